"""From the folder of a run to a repository of the Hub: look at everything, and write the folder that is sent."""

import shutil
from pathlib import Path

from huggingface_hub import HfApi

from data_scripts.hub_upload import Destination, files_below, upload
from modeling_lumbarclip.verify import check_checkpoint
from train.adapters import ADAPTER, check_adapter_base
from train.checkpoints import CHECKPOINT, write_folder
from train.publishing.checks import refuse_unfit
from train.publishing.clean_process import refuse_unloadable
from train.publishing.space import prepare_space
from train.reporting.model_card import build_model_card

HUB = "hub"  # below the folder of the run: exactly what is sent
NUM_SHOWN = 5


def prepare_model(
    run: Path,
    repo_id: str,
    *,
    study: Path | None = None,
    allow_unmeasured: bool = False,
    adapter: bool = False,
) -> Path:
    """Check a run's checkpoint and write the folder that is published: the checkpoint and its card.

    Args:
        run: What `train/pretrain.py` or `train/finetune_classification.py` wrote.
        repo_id: Where the model will be; the card says how to load it from there.
        study: Folder of a study whose result the card tells, too.
        allow_unmeasured: Whether a model without `metrics.json` may be published; its card says so.
        adapter: Whether to publish the low-rank adapters of the run in place of the merged checkpoint.

    Returns:
        `RUN/hub/model`.

    Raises:
        ValueError: If the run is not finished or not measured, or its checkpoint is not fit to be used by others.
    """
    source = run / (ADAPTER if adapter else CHECKPOINT)
    if not source.is_dir():
        raise ValueError(f"{source} is missing: --run names the folder of a finished run; adapters need --lora_rank.")
    if adapter:
        check_adapter_base(source)
    card = build_model_card(run, repo_id, study_folder=study, allow_unmeasured=allow_unmeasured, is_adapter=adapter)
    refuse_unfit(source)
    if not adapter:
        refuse_drift(source)
    refuse_unloadable(source)

    def fill(unfinished: Path) -> None:
        shutil.copytree(source, unfinished, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        (unfinished / "README.md").write_text(str(card), encoding="utf-8")

    folder = run / HUB / "model"
    write_folder(folder, fill)
    refuse_unfit(folder)  # now with its card
    return folder


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
    """
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
