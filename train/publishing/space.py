"""Prepare a Hub Space that runs the app: its code, requirements and card, in a folder ready to be uploaded.

The Space contains no weights and no pictures: it loads the model from the Hub, and draws its examples on request.
"""

import json
import re
import shutil
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from huggingface_hub import metadata_save
from huggingface_hub.utils import validate_repo_id

from data_scripts.auditing.privacy_check import kinds_in_id
from data_scripts.privacy.identifiers import find_identifiers
from data_scripts.records import LUMBAR_SPINE, NOT_STATED
from train.encoding.chunks import METADATA
from train.reporting.rendering import TEMPLATES, fill_template
from train.web_app.answers import MODEL_REVISION
from train.web_app.report_index import COLUMNS, REPORTS_INDEX, read_index

PROJECT = Path(__file__).parents[2]
APP = "app.py"
PINS = "constraints.txt"
PYTHON = "3.11"  # for which the pins are resolved
INDEX = "index.parquet"
PACKAGES = ("modeling_lumbarclip", "data_scripts", "train")
SUFFIXES = (".py", ".css", ".jinja")
LICENSE = "apache-2.0"
CARD = "space_card.md.jinja"


def prepare_space(
    folder: Path, model_id: str, index: Path | None = None, *, tag: str | None = None, anatomy: str = LUMBAR_SPINE
) -> None:
    """Write what a Space needs to run the app for a model of the Hub.

    Args:
        folder: A new or empty folder.
        model_id: Hub id of the model, as `org/name`.
        index: Parquet file of `train/encode.py`, if any; everyone who opens the Space can read its reports.
        tag: Version of the model that the Space loads, whatever is published later; None: the newest.
        anatomy: What the images show that the model was trained on, for the card.

    Raises:
        ValueError: If the folder is not empty, the id is not valid, the project is incomplete, or the index cannot be
            read, may not be shared, or seems to name someone.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not empty: name a new folder.")
    if model_id.count("/") != 1:
        raise ValueError(f"A Space loads its model from the Hub and needs its id as org/name; got {model_id!r}.")
    validate_repo_id(model_id)
    if missing := [name for name in (APP, "setup.cfg", PINS, *PACKAGES) if not (PROJECT / name).exists()]:
        raise ValueError(f"{PROJECT} lacks {', '.join(missing)}: prepare a Space from a clone of the project.")
    licence = ""
    if index is not None:
        check_index_names_no_one(index)
        licence = licence_of_index(index).removeprefix("other: ")

    folder.mkdir(parents=True, exist_ok=True)
    code = (path for package in PACKAGES for path in (PROJECT / package).rglob("*") if path.suffix in SUFFIXES)
    for path in (PROJECT / APP, *code):
        target = folder / path.relative_to(PROJECT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    if index is not None:
        pq.write_table(pq.read_table(index, columns=list(COLUMNS)), folder / INDEX)
    (folder / "requirements.txt").write_text("\n".join(sorted(set(requirements("app")))) + "\n")
    _write_card(folder / "README.md", model_id, licence, tag, anatomy, INDEX if index else "")


def licence_of_index(index: Path) -> str:
    """Read the licence of the reports of an index, as `train/encode.py` recorded it.

    Raises:
        ValueError: If the licence, or whether it allows sharing, is not recorded; or if it does not allow sharing.
    """
    about = _about(index)
    licence = str(about.get("license") or NOT_STATED)
    if licence == NOT_STATED:
        raise ValueError(
            f"{index} has no licence for its reports, and everyone who opens the Space could read them. If you may "
            "share them, build the dataset with --license and encode it again."
        )
    if about.get("may_be_shared") is None:
        raise ValueError(
            f"{index} does not say whether the licence of its reports ({licence.removeprefix('other: ')}) allows "
            "sharing, and everyone who opens the Space could read them. Build the dataset with data_scripts.build, "
            "which records that, and encode it again."
        )
    if not about["may_be_shared"]:
        raise ValueError(
            f"The licence of the reports in {index} ({licence.removeprefix('other: ')}) does not allow sharing, and "
            "everyone who opens the Space could read them. Encode another dataset, or omit the index."
        )
    return licence


def check_index_names_no_one(index: Path) -> None:
    """Check that no report and no source of an index seems to name a person, or a path on this machine.

    Raises:
        ValueError: If one does, with the kind but not the passage; if its dataset is not known to have passed the
            de-identification check; or if the index cannot be read.
    """
    content = read_index(index)
    checked = _about(index).get("deidentification")
    if not (checked and checked["passed"]):
        raise ValueError(
            f"The dataset of {index} {'did not pass' if checked else 'is not known to have passed'} the "
            "de-identification check, and everyone who opens the Space could read its reports. Build it with "
            "data_scripts.build, without --keep_ids, fix what build_report.json lists under `deidentification`, and "
            "encode it again."
        )
    kinds = {found.kind for text in set(content.reports) for found in find_identifiers(text)}
    kinds |= {kind for source in set(content.sources) for kind in kinds_in_id("source", source)}
    if any(Path(source).is_absolute() for source in content.sources):
        kinds.add("PATH")
    if kinds:
        raise ValueError(
            f"{index} seems to name someone ({', '.join(sorted(kinds))}), and everyone who opens the Space could read "
            "it. Build the dataset with data_scripts.build, which removes such passages, and encode it again."
        )


def _about(index: Path) -> dict[str, Any]:
    return json.loads((pq.read_schema(index).metadata or {}).get(METADATA, b"{}"))


def requirements(extra: str) -> Iterator[str]:
    """Yield what `pip install lumbarclip[extra]` asks for, at the versions that were tested.

    Hashes are left out: a Space installs more than we name, and pip would refuse the rest.

    Example:
        >>> next(requirement for requirement in requirements("app") if requirement.startswith("gradio"))
        'gradio==...'
    """
    pins = pinned_versions()
    settings = ConfigParser()
    settings.read(PROJECT / "setup.cfg", encoding="utf-8")
    extras = settings["options.extras_require"]
    lines = [*settings["options"]["install_requires"].split(), *extras[extra].split()]
    for line in lines:
        if line.startswith("lumbarclip["):
            yield from requirements(line.removeprefix("lumbarclip[").removesuffix("]"))
        else:
            name = line.split(">=")[0]
            yield f"{name}=={pins[name.lower().replace('_', '-')]}"


def pinned_versions() -> dict[str, str]:
    """Read the version of each package, by its name in lower case with hyphens, from constraints.txt."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (PROJECT / PINS).read_text(), flags=re.MULTILINE))


def _write_card(path: Path, model_id: str, licence: str, tag: str | None, anatomy: str, index: str) -> None:
    """Write the card; its head tells the Hub how to run the Space, and the app what to load."""
    values = {"model_id": model_id, "reports_licence": licence, "anatomy": anatomy}
    path.write_text(fill_template(TEMPLATES / CARD, values) + "\n")
    head = {
        "title": "LumbarCLIP",
        "emoji": "🩻",
        "colorFrom": "blue",
        "colorTo": "gray",
        "sdk": "gradio",
        "sdk_version": pinned_versions()["gradio"],
        "python_version": PYTHON,
        "app_file": APP,
        "pinned": False,
        "license": LICENSE,
        "models": [model_id],
        **({MODEL_REVISION: tag} if tag else {}),
        **({REPORTS_INDEX: index} if index else {}),
        "short_description": "Asks a model about medical images; research only",
    }
    metadata_save(path, head)
