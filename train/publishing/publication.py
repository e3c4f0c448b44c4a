"""From the folder of a run to a repository of the Hub: look at everything, and write the folder that is sent."""

import json
import shutil
from collections.abc import Collection
from pathlib import Path

from huggingface_hub import HfApi, ModelCard
from peft.utils import CONFIG_NAME as ADAPTER_CONFIG_NAME
from peft.utils import SAFETENSORS_WEIGHTS_NAME as ADAPTER_WEIGHTS_NAME

from data_scripts.hub.upload import Destination, asked_again, files_below, hub_errors, upload
from data_scripts.system.whole_files import write_folder
from modeling_lumbarclip import LumbarCLIPConfig
from train.checkpoints.checkpoint import CHECKPOINT, load_checkpoint
from train.checkpoints.golden_outputs import GOLDEN, GOLDEN_TENSORS, read_golden_outputs
from train.checkpoints.manifest import added_files
from train.checkpoints.onnx_export import weights_sha256
from train.checkpoints.verification import check_checkpoint
from train.publishing.checks import check_fit
from train.publishing.clean_process import check_loadable
from train.publishing.space import prepare_space
from train.reporting.card.model_card import build_model_card
from train.training.adapters import ADAPTER, check_adapter_base, set_adapter_base
from train.web_app.report_index import read_index

HUB = "hub"  # below the folder of the run: exactly what is sent
NUM_SHOWN = 5
ADAPTER_FILES = (ADAPTER_CONFIG_NAME, ADAPTER_WEIGHTS_NAME)


def prepare_model(
    run: Path,
    repo_id: str,
    *,
    public: bool = False,
    experiment: Path | None = None,
    allow_unmeasured: bool = False,
) -> Path:
    """Check a run's checkpoint and write the folder that is published: the checkpoint and its card.

    Args:
        run: What `train/pretrain.py` or `train/finetune_classification.py` wrote.
        repo_id: Where the model will be; the card says how to load it from there.
        public: Whether all may see it, which the card must not forbid.
        experiment: Folder of an experiment whose result the card tells, too.
        allow_unmeasured: Whether a model without `metrics.json` may be published; its card says so.

    Returns:
        `RUN/hub/model`.

    Raises:
        ValueError: If the run is not finished or not measured, or its checkpoint is not fit to be used by others.
    """
    source = run / CHECKPOINT
    if not source.is_dir():
        raise ValueError(f"{source} is missing: --run names the folder of a finished run.")
    card = build_model_card(run, repo_id, experiment_folder=experiment, allow_unmeasured=allow_unmeasured)
    if public:
        check_may_be_public(run)
    check_fit(source)
    check_drift(source)
    check_nothing_added(source, read_golden_outputs(source)["files"])
    check_loadable(source, source / GOLDEN_TENSORS)
    folder = run / HUB / "model"
    write_folder(folder, lambda unfinished: _fill(unfinished, source, card))
    check_fit(folder)  # now with its card
    return folder


def prepare_adapter(
    run: Path,
    repo_id: str,
    *,
    api: HfApi,
    base: str = "",
    public: bool = False,
    experiment: Path | None = None,
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
        public: As in `prepare_model`.
        experiment: As in `prepare_model`.
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
    check_nothing_added(source, [*read_golden_outputs(run / CHECKPOINT)["files"], *ADAPTER_FILES])
    base = base or check_adapter_base(source)
    with hub_errors(api, base):
        found = asked_again(lambda: api.model_info(base))
    if public and (found.private or found.gated):
        raise ValueError(
            f"The base {base} is {'private' if found.private else 'gated'}, so that others could not use the adapters "
            "alone: publish them without --public, or the run's whole checkpoint."
        )
    card = build_model_card(
        run, repo_id, experiment_folder=experiment, allow_unmeasured=allow_unmeasured, adapter_base=(base, found.sha)
    )

    if public:
        check_may_be_public(run)

    def fill(unfinished: Path) -> None:
        _fill(unfinished, source, card)
        set_adapter_base(unfinished, base, found.sha)

    folder = run / HUB / "model"
    write_folder(folder, fill)
    check_fit(folder)
    check_loadable(folder, golden)
    return folder


def _fill(folder: Path, source: Path, card: ModelCard) -> None:
    shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    (folder / "README.md").write_text(str(card), encoding="utf-8")


def publish_model(run: Path, repo_id: str, tag: str) -> str:
    """Publish a run that has just ended, private.

    Args:
        run: As in `prepare_model`.
        repo_id: Where the model will be.
        tag: Name of this version, which the repository does not have yet.

    Returns:
        Address of the commit.

    Raises:
        ValueError: If it is not fit to be used by others, or the Hub refuses, fails or cannot be reached; the run stays
            as it is.
    """
    try:
        destination = Destination(repo_id=repo_id, tag=tag)
        (address,) = upload(HfApi(), {destination: files_below(prepare_model(run, repo_id))})
    except ValueError as error:
        again = f"python train/publish.py --run {run} --repo_id {repo_id} --tag {tag}"
        raise ValueError(
            f"The run is complete, but it was not published: {error} Once that is mended: `{again}`."
        ) from error
    return address


def prepare_app(run: Path, repo_id: str, index: Path | None, tag: str | None = None) -> Path:
    """Write the Space that runs the app on a published model.

    Args:
        run: Folder of the run.
        repo_id: Where the model will be.
        index: Parquet of reports and their images, for the nearest reports; None: without them.
        tag: Version of the model that the app keeps to; None: the newest.

    Returns:
        `RUN/hub/space`.

    Raises:
        ValueError: If the run is a classifier, or the index cannot be read, was not encoded by this run's checkpoint,
            or may not be shown to all.
    """
    if LumbarCLIPConfig.from_pretrained(run / CHECKPOINT).is_classifier:
        raise ValueError(f"{run} is a classifier, and the app asks models that compare images with texts: no --space.")
    if index is not None:
        model, _ = load_checkpoint(run / CHECKPOINT)
        read_index(index, weights_sha256(model))
    folder = run / HUB / "space"
    write_folder(folder, lambda unfinished: prepare_space(unfinished, repo_id, index, tag=tag))
    return folder


def check_may_be_public(run: Path) -> None:
    """Raise if the card of a run forbids to pass the model on."""
    data = json.loads((run / "run.json").read_text()).get("data", {})
    if data.get("may_be_shared") is False:
        why = f"the licence of its training data does not let others have what was made of them ({data['license']})"
    elif not data.get("synthetic") and (data.get("deidentification") or {}).get("passed") is False:
        why = "its training data did not pass the check of de-identification"
    else:
        return
    raise ValueError(f"{run} is not for everybody, and its card says so: {why}. Publish it without --public.")


def check_nothing_added(folder: Path, recorded: Collection[str]) -> None:
    """Raise if a folder holds more than was saved there: it would be published, and may be anybody's data."""
    if added := added_files(folder, [*recorded, GOLDEN]):
        raise ValueError(
            f"{folder} holds what was not saved with the checkpoint: {', '.join(added[:NUM_SHOWN])}"
            f"{f' and {len(added) - NUM_SHOWN} more' if len(added) > NUM_SHOWN else ''}. Move it elsewhere: all of the "
            "folder is published."
        )


def check_drift(checkpoint: Path) -> None:
    """Raise if a checkpoint is no longer what was saved, or no longer gives the answers it gave then."""
    drifts = check_checkpoint(checkpoint)
    if drifts:
        shown = "; ".join(f"{drift.file} {drift.what} {drift.detail}".strip() for drift in drifts[:NUM_SHOWN])
        more = f"; and {len(drifts) - NUM_SHOWN} more" if len(drifts) > NUM_SHOWN else ""
        raise ValueError(
            f"{checkpoint} is not what was saved: {shown}{more}. `python train/verify.py {checkpoint}` "
            "lists all; save the checkpoint again, or publish the one that was measured."
        )
