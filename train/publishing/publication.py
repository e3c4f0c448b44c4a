"""From the folder of a run to a repository of the Hub: look at everything, and write the folder that is sent."""

import shutil
from pathlib import Path

from huggingface_hub import HfApi, ModelCard

from data_scripts.hub_upload import Destination, files_below, hub_errors, upload
from modeling_lumbarclip import LumbarCLIPConfig
from modeling_lumbarclip.export import weights_sha256
from modeling_lumbarclip.golden_outputs import GOLDEN_TENSORS
from modeling_lumbarclip.verify import check_checkpoint
from train.adapters import ADAPTER, check_adapter_base, set_adapter_base
from train.checkpoints import CHECKPOINT, load_checkpoint, write_folder
from train.publishing.checks import refuse_unfit
from train.publishing.clean_process import refuse_unloadable
from train.publishing.space import prepare_space
from train.reporting.model_card import build_model_card
from train.web_app.report_index import read_index

HUB = "hub"  # below the folder of the run: exactly what is sent
NUM_SHOWN = 5


def prepare_model(
    run: Path,
    repo_id: str,
    *,
    study: Path | None = None,
    allow_unmeasured: bool = False,
) -> Path:
    """Check a run's checkpoint and write the folder that is published: the checkpoint and its card.

    Args:
        run: What `train/pretrain.py` or `train/finetune_classification.py` wrote.
        repo_id: Where the model will be; the card says how to load it from there.
        study: Folder of a study whose result the card tells, too.
        allow_unmeasured: Whether a model without `metrics.json` may be published; its card says so.

    Returns:
        `RUN/hub/model`.

    Raises:
        ValueError: If the run is not finished or not measured, or its checkpoint is not fit to be used by others.
    """
    source = run / CHECKPOINT
    if not source.is_dir():
        raise ValueError(f"{source} is missing: --run names the folder of a finished run.")
    card = build_model_card(run, repo_id, study_folder=study, allow_unmeasured=allow_unmeasured)
    refuse_unfit(source)
    refuse_drift(source)
    refuse_unloadable(source, source / GOLDEN_TENSORS)
    folder = run / HUB / "model"
    write_folder(folder, lambda unfinished: _fill(unfinished, source, card))
    refuse_unfit(folder)  # now with its card
    return folder


def prepare_adapter(
    run: Path,
    repo_id: str,
    *,
    api: HfApi,
    base: str = "",
    study: Path | None = None,
    allow_unmeasured: bool = False,
) -> Path:
    """Check a run's low-rank adapters and write the folder that is published: them, the name of their base, a card.

    With the base as it is on the Hub now, they must give the golden outputs of the run's own checkpoint: those of
    another base, or of other weights of it, would differ.

    Args:
        run: Of `train/pretrain.py` with `--lora_rank`.
        repo_id: Where the adapters will be.
        api: Client of the Hub.
        base: Hub id of the checkpoint that they were trained on; empty: as the run named it.
        study: As in `prepare_model`.
        allow_unmeasured: As in `prepare_model`.

    Returns:
        `RUN/hub/model`.

    Raises:
        ValueError: If the run has no adapters, their base is not on the Hub, or others could not use them with it.
    """
    source, golden = run / ADAPTER, run / CHECKPOINT / GOLDEN_TENSORS
    if not source.is_dir() or not golden.exists():
        raise ValueError(
            f"{run} has no {ADAPTER} or no {golden.relative_to(run)}: --run names the folder of a finished run with "
            "--lora_rank."
        )
    if LumbarCLIPConfig.from_pretrained(run / CHECKPOINT).is_classifier:
        raise ValueError(
            f"{run} is a classifier: an adapter does not keep the names of its classes. Publish it whole, without "
            "--adapter."
        )
    base = base or check_adapter_base(source)
    with hub_errors(api, base):
        commit = api.model_info(base).sha
    card = build_model_card(
        run, repo_id, study_folder=study, allow_unmeasured=allow_unmeasured, adapter_base=(base, commit)
    )

    def fill(unfinished: Path) -> None:
        _fill(unfinished, source, card)
        set_adapter_base(unfinished, base, commit)

    folder = run / HUB / "model"
    write_folder(folder, fill)
    refuse_unfit(folder)
    refuse_unloadable(folder, golden)
    return folder


def _fill(folder: Path, source: Path, card: ModelCard) -> None:
    shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    (folder / "README.md").write_text(str(card), encoding="utf-8")


def publish_model(run: Path, repo_id: str) -> str:
    """Publish a run that has just ended, private, as the first version.

    Returns:
        Address of the commit.

    Raises:
        ValueError: If it is not fit to be used by others, or the Hub refuses, fails or cannot be reached; the run stays
            as it is.
    """
    try:
        (address,) = upload(HfApi(), {Destination(repo_id=repo_id): files_below(prepare_model(run, repo_id))})
    except ValueError as error:
        again = f"python train/publish.py --run {run} --repo_id {repo_id}"
        raise ValueError(f"The run is complete, but it was not published; later: `{again}`. {error}") from error
    return address


def prepare_app(run: Path, repo_id: str, index: Path | None) -> Path:
    """Write the Space that runs the app on a published model.

    Args:
        run: Folder of the run.
        repo_id: Where the model will be.
        index: Parquet of reports and their images, for the nearest reports; None: without them.

    Returns:
        `RUN/hub/space`.

    Raises:
        ValueError: If the index cannot be read, was not encoded by this run's checkpoint, or may not be shown to all.
    """
    if index is not None:
        model, _ = load_checkpoint(run / CHECKPOINT)
        read_index(index, weights_sha256(model))
    folder = run / HUB / "space"
    write_folder(folder, lambda unfinished: prepare_space(unfinished, repo_id, index))
    return folder


def refuse_drift(checkpoint: Path) -> None:
    """Raise if a checkpoint is no longer what was saved, or no longer gives the answers it gave then."""
    drifts = check_checkpoint(checkpoint)
    if drifts:
        shown = "; ".join(f"{drift.file} {drift.what} {drift.detail}".strip() for drift in drifts[:NUM_SHOWN])
        more = f"; and {len(drifts) - NUM_SHOWN} more" if len(drifts) > NUM_SHOWN else ""
        raise ValueError(
            f"{checkpoint} is not what was saved: {shown}{more}. `python -m modeling_lumbarclip.verify {checkpoint}` "
            "lists all; save the checkpoint again, or publish the one that was measured."
        )
