"""Write the model card: `model_card.md`, filled only from the files of a run."""

import json
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from safetensors import SafetensorError

from train.checkpoints.checkpoint import CHECKPOINT
from train.checkpoints.golden_outputs import load_for_golden_outputs
from train.checkpoints.onnx_export import weights_sha256
from train.reporting.card.values import RunFiles, card_values
from train.reporting.rendering import fill_template
from train.training.history import read_history

TEMPLATE = Path(__file__).parents[3] / "model_card.md"
# What a card reads from each file, and how to restore the file.
RUN_KEYS = (
    *("command", "date", "arguments", "rows_sha256", "num_processes", "mixed_precision", "device", "device_name"),
    *("num_threads", "python", "packages", "data", "start"),
)
CONFIG_KEYS = ("vision_config", "text_config", "projection", "projection_dim")
METRICS_KEYS = ("dataset", "weights_sha256", "command", "date")
CLASSIFIER_KEYS = ("by_system", "difference", "patients", "calibration")
SEGMENTATION_KEYS = ("metrics", "classes")
EVALUATION_KEYS = ("linear_probe", "zero_shot", "retrieval", "baselines", "further", "prompts")
EXPERIMENT_KEYS = ("headline", "systems", "baselines", "comparisons", "experiment", "dataset", "command", "date")
OF_A_RUN = "Name the whole folder that pretraining or fine-tuning wrote."
OF_AN_EXPERIMENT = "Set --experiment to the folder of a finished experiment, written by train/compare_systems.py."
MEASURE_AGAIN = (
    "Measure the model again with train/evaluate_model.py --checkpoint; for a classifier or a "
    "segmentation model, rerun its training with "
    "--resume."
)


def build_model_card(
    run_folder: Path,
    repo_id: str,
    *,
    experiment_folder: Path | None = None,
    allow_unmeasured: bool = False,
    adapter_base: tuple[str, str | None] | None = None,
) -> ModelCard:
    """Write the card of a run.

    Args:
        run_folder: Folder with `run.json`, `metrics.json`, `history.jsonl` and `checkpoint/`.
        repo_id: Hub id that the model will have.
        experiment_folder: Folder of an experiment whose result the card also shows.
        allow_unmeasured: Whether to write the card of a model without `metrics.json`, which says so at the top.
        adapter_base: Hub id and commit of the base, for the card of an adapter repository.

    Raises:
        ValueError: If a file is missing or damaged, or the metrics are those of other weights.
    """
    checkpoint = run_folder / CHECKPOINT
    metrics = _read(run_folder / "metrics.json", METRICS_KEYS, MEASURE_AGAIN)
    if metrics is None and not allow_unmeasured:
        raise ValueError(
            f"{run_folder} has no metrics.json: this model was not measured. Measure it with train/evaluate_model.py "
            "--checkpoint, or set --allow_unmeasured; the card will then say so."
        )
    if metrics is not None:
        of_head = SEGMENTATION_KEYS if "resolution_limit" in metrics else EVALUATION_KEYS
        protocol = CLASSIFIER_KEYS if "by_system" in metrics else of_head
        _check_complete(run_folder / "metrics.json", metrics, protocol, MEASURE_AGAIN)
        check_same_weights(checkpoint, metrics["weights_sha256"])
    files = RunFiles(
        run=_require(run_folder / "run.json", RUN_KEYS, OF_A_RUN),
        config=_require(checkpoint / "config.json", CONFIG_KEYS, OF_A_RUN),
        processor=_read(checkpoint / "preprocessor_config.json", ("size",), OF_A_RUN)
        or _require(checkpoint / "processor_config.json", ("image_processor",), OF_A_RUN),
        history=read_history(run_folder),
        metrics=metrics,
        adapter_base=adapter_base,
        experiment=None
        if experiment_folder is None
        else _require(experiment_folder / "results.json", EXPERIMENT_KEYS, OF_AN_EXPERIMENT),
    )
    try:
        return ModelCard(fill_template(TEMPLATE, card_values(files, repo_id)))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:  # below the outermost keys
        folders, ways_out = f"{run_folder}", f"{OF_A_RUN} {MEASURE_AGAIN}"
        if experiment_folder is not None:
            folders, ways_out = f"{folders} or {experiment_folder}", f"{ways_out} {OF_AN_EXPERIMENT}"
        raise ValueError(
            f"A file of {folders} lacks a value that the model card needs, or has it in another form "
            f"({type(error).__name__}: {error}). {ways_out}"
        ) from error


def check_same_weights(checkpoint: Path, measured: str) -> None:
    """Raise `ValueError` if a checkpoint cannot be loaded, or its weights do not have the measured `weights_sha256`."""
    try:
        model, _ = load_for_golden_outputs(checkpoint, trust_remote_code=False)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"{checkpoint} cannot be loaded, so the metrics cannot be matched to it: {error}") from error
    if weights_sha256(model) != measured:
        raise ValueError(
            f"{checkpoint.parent / 'metrics.json'} has the metrics of other weights than those in {checkpoint}. "
            f"{MEASURE_AGAIN}"
        )


def _read(path: Path, keys: tuple[str, ...], way_out: str) -> Any:
    """Read a JSON file that has at least these keys and no NaN; None if it does not exist."""
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_check_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): it was cut off or edited, or holds invalid numbers. {way_out}"
        ) from error
    _check_complete(path, content, keys, way_out)
    return content


def _require(path: Path, keys: tuple[str, ...], way_out: str) -> Any:
    content = _read(path, keys, way_out)
    if content is None:
        raise ValueError(f"{path} is missing, and the model card needs it. {way_out}")
    return content


def _check_complete(path: Path, content: Any, keys: tuple[str, ...], way_out: str) -> None:
    lacking = [key for key in keys if not isinstance(content, dict) or key not in content]
    if lacking:
        raise ValueError(f"{path} has no {', '.join(lacking)}; the model card needs it. {way_out}")


def _check_constant(name: str) -> None:
    raise ValueError(f"it contains {name}, which is not a number")
