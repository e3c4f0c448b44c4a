"""Publish the folder of a run on the Hub: check it, write the folders that are sent, and send them."""

import shutil
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from huggingface_hub import HfApi, ModelCard
from peft.utils import CONFIG_NAME as ADAPTER_CONFIG_NAME
from peft.utils import SAFETENSORS_WEIGHTS_NAME as ADAPTER_WEIGHTS_NAME

from data_scripts.hub.upload import Destination, asked_again, check_destination, files_below, hub_errors, upload
from data_scripts.records import LUMBAR_SPINE
from data_scripts.system.whole_files import write_folder, write_text
from train.checkpoints.checkpoint import CHECKPOINT, load_checkpoint
from train.checkpoints.golden_outputs import GOLDEN, GOLDEN_TENSORS, read_golden_outputs
from train.checkpoints.loading import read_config
from train.checkpoints.manifest import added_files
from train.checkpoints.onnx_export import weights_sha256
from train.checkpoints.verification import check_checkpoint
from train.publishing.arguments import PublishArguments
from train.publishing.checks import check_code, check_fit
from train.publishing.clean_process import check_loadable
from train.publishing.space import prepare_space
from train.reporting.card.model_card import build_model_card
from train.reporting.rendering import html_page
from train.training.adapters import ADAPTER, check_adapter_base, set_adapter_base
from train.training.run_folder import read_run
from train.web_app.report_index import read_index

HUB = "hub"  # below the folder of the run: exactly what is sent
CARD_PAGE = "card.html"
NUM_SHOWN = 5
ADAPTER_FILES = (ADAPTER_CONFIG_NAME, ADAPTER_WEIGHTS_NAME)


def publish(args: PublishArguments) -> None:
    """Check the run, write the folders, and send them.

    Raises:
        ValueError: If the run is not fit to be published, or the Hub refuses, fails or cannot be reached.
    """
    api, model = HfApi(), Destination(repo_id=args.repo_id, private=not args.public, tag=args.tag)
    if not args.dry_run:
        check_destination(api, model)  # reports a wrong token before minutes of checks
    folders = {model: prepare_adapter(args, api) if args.adapter else prepare_model(args)}
    if args.space:
        folders[replace(model, kind="space")] = prepare_app(args)
    files = {destination: files_below(folder) for destination, folder in folders.items()}
    for destination, folder in folders.items():
        size = sum(path.stat().st_size for path in files[destination].values())
        print(f"{destination.kind} {destination.repo_id}: {folder}, {size / 1e6:.1f} MB")
    page = card_page(folders[model], args.repo_id)  # replaces that of an earlier call, perhaps with another card
    print(f"The card as a page, which is not part of the repository: {page}")
    if args.dry_run:
        print("Dry run: nothing was sent.")
        return
    for destination, address in zip(files, upload(api, files), strict=True):
        print(f"Published {destination.kind} {args.tag}: {address}")


def card_page(model: Path, title: str) -> Path:
    """Write the card of a prepared folder as the page `CARD_PAGE` next to that folder; return its path."""
    page = model.with_name(CARD_PAGE)
    write_text(page, html_page(ModelCard.load(model / "README.md").text, title, {}))
    return page


def prepare_model(args: PublishArguments) -> Path:
    """Check a run's checkpoint, and write it with its card to `RUN/hub/model`.

    Raises:
        ValueError: If the run is not finished or not measured, or others could not use its checkpoint.
    """
    run = Path(args.run)
    source, folder = run / CHECKPOINT, run / HUB / "model"
    if not source.is_dir():
        raise ValueError(f"{source} is missing: set --run to the folder of a finished run.")
    card = _checked_card(args)
    check_fit(source)
    check_drift(source)
    check_nothing_added(source, read_golden_outputs(source)["files"])
    check_code(source, str(source))
    check_loadable(source, source / GOLDEN_TENSORS)
    write_folder(folder, lambda unfinished: _fill(unfinished, source, card))
    check_fit(folder)  # now with its card
    return folder


def prepare_adapter(args: PublishArguments, api: HfApi) -> Path:
    """Check a run's low-rank adapters, and write them with the name of their base and a card to `RUN/hub/model`.

    On the base now on the Hub, the adapters must reproduce the golden outputs of the run's own checkpoint; on another
    base, or with other weights, the outputs would differ.

    Raises:
        ValueError: If the run has no adapters, their base is not on the Hub, or others could not use them with it.
    """
    run = Path(args.run)
    source, golden, folder = run / ADAPTER, run / CHECKPOINT / GOLDEN_TENSORS, run / HUB / "model"
    if not source.is_dir() or not golden.exists():
        raise ValueError(
            f"{run} has no {ADAPTER} or no {golden.relative_to(run)}: set --run to the folder of a finished run with "
            "--lora_rank."
        )
    config = read_config(run / CHECKPOINT)
    if config.is_classifier or config.is_segmenter:
        kind = "classifier" if config.is_classifier else "segmentation model"
        raise ValueError(
            f"{run} is a {kind}, and adapters do not contain the names of its classes: publish it whole, without "
            "--adapter."
        )
    check_nothing_added(source, [*read_golden_outputs(run / CHECKPOINT)["files"], *ADAPTER_FILES])
    base = args.adapter_base or check_adapter_base(source)
    with hub_errors(api, base):
        found = asked_again(lambda: api.model_info(base))
        code = asked_again(lambda: api.snapshot_download(base, revision=found.sha, allow_patterns=["*.json", "*.py"]))
    if args.public and (found.private or found.gated):
        raise ValueError(
            f"The base {base} is {'private' if found.private else 'gated'}, so others could not use the "
            "adapters: publish them without --public, or publish the run's whole checkpoint."
        )
    card = _checked_card(args, (base, found.sha))

    def fill(unfinished: Path) -> None:
        _fill(unfinished, source, card)
        set_adapter_base(unfinished, base, found.sha)

    write_folder(folder, fill)
    check_fit(folder)
    check_code(folder, str(source))
    check_code(Path(code), f"the base {base}")
    check_loadable(folder, golden)
    return folder


def _checked_card(args: PublishArguments, adapter_base: tuple[str, str | None] | None = None) -> ModelCard:
    """Write the card, and check that it does not forbid what `--public` asks for."""
    card = build_model_card(
        Path(args.run),
        args.repo_id,
        experiment_folder=Path(args.experiment) if args.experiment else None,
        allow_unmeasured=args.allow_unmeasured,
        adapter_base=adapter_base,
    )
    if args.public:
        check_may_be_public(Path(args.run))
    return card


def _fill(folder: Path, source: Path, card: ModelCard) -> None:
    shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    (folder / "README.md").write_text(str(card), encoding="utf-8")


def publish_model(run: Path, repo_id: str, tag: str) -> str:
    """Publish a run that has just ended, in a private repository; return the address of the commit.

    Raises:
        ValueError: If others could not use it, or the Hub refuses, fails or cannot be reached; the run is unchanged.
    """
    try:
        files = files_below(prepare_model(PublishArguments(run=str(run), repo_id=repo_id, tag=tag)))
        (address,) = upload(HfApi(), {Destination(repo_id=repo_id, tag=tag): files})
    except ValueError as error:
        again = f"python train/publish.py --run {run} --repo_id {repo_id} --tag {tag}"
        raise ValueError(
            f"The run is complete, but it was not published: {error} Fix that, then run `{again}`."
        ) from error
    return address


def prepare_app(args: PublishArguments) -> Path:
    """Write the Space that runs the app on the published model to `RUN/hub/space`.

    Raises:
        ValueError: If the index cannot be read, was not encoded by this run's checkpoint, or may not be shown to all,
            or the run is a classifier, which no reports can be compared with.
    """
    run, index = Path(args.run), Path(args.index) if args.index else None
    if index is not None:
        config = read_config(run / CHECKPOINT)
        if config.is_classifier or config.is_segmenter:
            kind = "classifier" if config.is_classifier else "segmentation model"
            raise ValueError(f"{run} is a {kind}, which does not compare images with reports: omit --index.")
        model, _ = load_checkpoint(run / CHECKPOINT)
        read_index(index, weights_sha256(model))
    folder, anatomy = run / HUB / "space", read_run(run)["data"].get("anatomy") or LUMBAR_SPINE
    write_folder(
        folder, lambda unfinished: prepare_space(unfinished, args.repo_id, index, tag=args.tag, anatomy=anatomy)
    )
    return folder


def check_may_be_public(run: Path) -> None:
    """Raise if the card of a run forbids sharing the model."""
    data = read_run(run)["data"]
    if data["may_be_shared"] is False:
        why = f"the licence of its training data does not allow sharing what was made from them ({data['license']})"
    elif not data["synthetic"] and data["deidentification"] and not data["deidentification"]["passed"]:
        why = "its training data failed the de-identification check"
    else:
        return
    raise ValueError(f"{run} must not be public, as its card says: {why}. Publish it without --public.")


def check_nothing_added(folder: Path, recorded: Collection[str]) -> None:
    """Raise if a folder contains files that were not saved with the checkpoint: they would be published, too."""
    if added := added_files(folder, [*recorded, GOLDEN]):
        raise ValueError(
            f"{folder} contains files that were not saved with the checkpoint: {', '.join(added[:NUM_SHOWN])}"
            f"{f' and {len(added) - NUM_SHOWN} more' if len(added) > NUM_SHOWN else ''}. Move them elsewhere: the "
            "whole folder is published."
        )


def check_drift(checkpoint: Path) -> None:
    """Raise if a checkpoint is no longer what was saved, or its outputs have changed."""
    drifts = check_checkpoint(checkpoint)
    if drifts:
        shown = "; ".join(f"{drift.file} {drift.what} {drift.detail}".strip() for drift in drifts[:NUM_SHOWN])
        more = f"; and {len(drifts) - NUM_SHOWN} more" if len(drifts) > NUM_SHOWN else ""
        raise ValueError(
            f"{checkpoint} is not what was saved: {shown}{more}. `python train/verify.py {checkpoint}` lists all "
            "changes. Save the checkpoint again, or publish the one that was measured."
        )
