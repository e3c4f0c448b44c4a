"""Publish a built dataset on the Hugging Face Hub, unless it may name a person, leaks, or must not be shared."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from huggingface_hub import HfApi
from PIL import Image

from data_scripts.auditing.built_folder import check_shards_unchanged, opened_afresh
from data_scripts.auditing.leaks import leaks_of
from data_scripts.auditing.privacy_check import check_dataset
from data_scripts.hub.upload import PICTURES, Destination, check_destination, paths_of_this_machine, upload
from data_scripts.lumbar_builder import DATA_FOLDER
from data_scripts.records import NOT_STATED, SourceAbout
from data_scripts.system.whole_files import read_json
from data_scripts.writing.build_arguments import BuildArguments
from data_scripts.writing.build_report import REPORT_NAME

CARD_NAME = "README.md"
LEAK_STAMP = "> **Leak.**"
_MARKDOWN_PICTURE = re.compile(r"!\[[^\]\n]*\]\(\s*<?([^)\s>]+)")
_HTML_PICTURE = re.compile(r"<img\b[^>]*?\bsrc\s*=\s*[\"']([^\"']+)", re.IGNORECASE)
KEPT_IDS = "patient ids were kept (--keep_ids)"


def check_publishable_build(args: BuildArguments, about: SourceAbout) -> None:
    """Check, before a build, the conditions of publishing that do not depend on its rows.

    Raises:
        ValueError: If the licence of the source forbids sharing and the user states no other, or the ids of a private
            source are kept.
    """
    if args.license is None:
        _check_licence(about.name, about.license, about.may_be_shared)
    if args.keep_ids and not about.has_public_ids:
        raise ValueError(
            f"{args.out} would not pass the de-identification check: {KEPT_IDS}. Leave out --keep_ids or --push_to_hub."
        )


def check_publishable(folder: Path, num_proc: int = 1) -> None:
    """Check that a dataset may be shared, by its build report and its current rows.

    Raises:
        ValueError: If it is not a build, its shards were changed, its licence forbids sharing or is not stated, it may
            name a person, or its splits leak and the card does not say so.
    """
    report = _read_report(folder)
    source = report["source"]
    _check_licence(source["name"], source["license"], report["may_be_shared"])
    _check_names(report["deidentification"], folder)
    check_shards_unchanged(folder, report["shards"])
    with opened_afresh(folder) as dataset:
        checked, leaks = check_dataset(dataset, num_proc), leaks_of(dataset)
    if not checked.passed:
        first = [
            f"{found.split} {'class names' if found.row is None else f'row {found.row}'}, {found.column}: {found.kind}"
            for found in checked.findings[:3]
        ]
        raise ValueError(
            f"{folder} may name a person: {len(checked.findings)} passages ({'; '.join(first) or 'none in texts'}), "
            f"{len(checked.burnt_in_text)} images that may contain text. `python -m "
            f"data_scripts.audit --dataset {folder}` lists them."
        )
    if leaks.found and LEAK_STAMP not in (folder / CARD_NAME).read_text(encoding="utf-8"):
        raise ValueError(
            f"The splits of {folder} leak, and its card does not say so: {leaks.in_words()} `python -m "
            f"data_scripts.audit --dataset {folder}` lists what is shared; build it again without the copies."
        )


def _check_licence(source: str, licence: str, may_be_shared: bool) -> None:
    if may_be_shared:
        return
    if licence == NOT_STATED:
        raise ValueError(
            f"The data of the source {source} have no stated licence: if you may share them, build the dataset with "
            "--license."
        )
    raise ValueError(
        f"The licence of the source {source} ({licence.removeprefix('other: ')}) forbids sharing anything made from "
        "it. Publish the build command instead."
    )


def _read_report(folder: Path) -> dict[str, Any]:
    path = folder / REPORT_NAME
    if not path.is_file():
        raise ValueError(f"{folder} is not a build: it has no {REPORT_NAME}. Give the folder that `--out` named.")
    return read_json(path, "Build the dataset again.", ("may_be_shared", "source", "deidentification", "shards"))


def _check_names(found: Mapping[str, Any], folder: Path) -> None:
    if found["passed"]:
        return
    reasons = {
        KEPT_IDS: found["ids"] == "kept",
        f"texts: {found['left_in_texts']}": found["left_in_texts"],
        f"names with dates: {len(found['dates_in_names'])}": found["dates_in_names"],
        f"images that may contain text: {len(found['burnt_in_text'])}": found["burnt_in_text"],
    }
    named = "; ".join(reason for reason, holds in reasons.items() if holds)
    raise ValueError(f"{folder} did not pass the de-identification check: {named}. See {REPORT_NAME}.")


def files_to_send(folder: Path) -> dict[str, Path]:
    """List the card, the pictures that it shows and the shards, by their names in the repository.

    Raises:
        ValueError: If the card has local paths, or shows a picture that is missing, outside the folder, or says in its
            metadata where it comes from.
    """
    card = folder / CARD_NAME
    if local := paths_of_this_machine(card.read_text(encoding="utf-8")):
        raise ValueError(f"{card} contains paths of this machine: {', '.join(local)}. Remove them.")
    shards = sorted((folder / DATA_FOLDER).glob("*.parquet"))
    return {CARD_NAME: card, **_pictures_of(card), **{f"{DATA_FOLDER}/{shard.name}": shard for shard in shards}}


def _pictures_of(card: Path) -> dict[str, Path]:
    """Find the previews that a card shows, `![](preview.png)` or `<img src="preview.png">`, beside it."""
    text, folder = card.read_text(encoding="utf-8"), card.parent.resolve()
    names = [*_MARKDOWN_PICTURE.findall(text), *_HTML_PICTURE.findall(text)]
    found = {}
    for name in dict.fromkeys(unquote(name) for name in names if "://" not in name and not name.startswith("data:")):
        path = (folder / name).resolve()
        if not path.is_file() or folder not in path.parents or path.suffix.lower() not in PICTURES:
            raise ValueError(
                f"{card} shows {name!r}, which would be missing on the Hub: put a picture ({', '.join(PICTURES)}) of "
                "this name beside the card, or remove the line."
            )
        with Image.open(path) as image:
            if image.getexif() or getattr(image, "text", None) or {"comment", "xmp"} & image.info.keys():
                raise ValueError(f"{path} has metadata, which may name someone: save the picture without.")
        found[path.relative_to(folder).as_posix()] = path
    return found


def publish_dataset(api: HfApi, folder: Path, destination: Destination, num_proc: int = 1) -> str:
    """Check a built dataset and send it; return the address of the commit.

    Raises:
        ValueError: If it must not be shared, or the Hub refuses, fails or cannot be reached.
    """
    check_destination(api, destination)
    check_publishable(folder, num_proc)
    (address,) = upload(api, {destination: files_to_send(folder)})
    return address
