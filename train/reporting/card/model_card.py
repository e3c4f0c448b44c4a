"""The model card: `model_card.md`, filled from what a run left and from nothing else."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from jinja2 import Environment, StrictUndefined, TemplateSyntaxError, UndefinedError
from jinja2.meta import find_undeclared_variables
from safetensors import SafetensorError

from train.checkpoints.checkpoint import CHECKPOINT
from train.checkpoints.golden_outputs import load_for_golden_outputs
from train.checkpoints.onnx_export import weights_sha256
from train.reporting.card.values import RunFiles, card_values
from train.training.history import read_history

TEMPLATE = Path(__file__).parents[3] / "model_card.md"
# What a card reads of each file, and how to get the file whole.
RUN_KEYS = ("command", "date", "arguments", "num_processes", "mixed_precision", "device", "python", "packages")
CONFIG_KEYS = ("vision_config", "text_config", "projection", "projection_dim")
METRICS_KEYS = ("dataset", "command", "date")
CLASSIFIER_KEYS = ("figures", "difference", "patients", "calibration")
EVALUATION_KEYS = ("linear_probe", "zero_shot", "retrieval", "baselines", "further", "prompts")
EXPERIMENT_KEYS = ("headline", "systems", "baselines", "card_text")
OF_A_RUN = "Name the folder that pretraining or fine-tuning wrote, whole."
OF_AN_EXPERIMENT = "--experiment names the folder of a finished experiment, which train/compare_systems.py wrote."
MEASURE_AGAIN = (
    "Measure the model again: train/evaluate_model.py --checkpoint, or, of a classifier, its run again with --resume."
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
        run_folder: Holds `run.json`, `metrics.json`, `history.jsonl` and `checkpoint/`.
        repo_id: Hub id that the model will have.
        experiment_folder: Of an experiment whose result the card tells, too.
        allow_unmeasured: Whether to write the card of a model without `metrics.json`; it then says so in front.
        adapter_base: Hub id and commit of their base, where the card is that of the low-rank adapters alone.

    Returns:
        The card; `str(card)` is the README of the repository, `card.data` its metadata.

    Raises:
        ValueError: If a file is missing or damaged, the figures are of other weights, or the template asks for what is
            not known.
    """
    metrics = _read(run_folder / "metrics.json", METRICS_KEYS, MEASURE_AGAIN)
    if metrics is None and not allow_unmeasured:
        raise ValueError(
            f"{run_folder} has no metrics.json: nobody has measured this model. Measure it with "
            "train/evaluate_model.py --checkpoint, or give --allow_unmeasured; its card will then say so."
        )
    if metrics is not None:
        protocol = CLASSIFIER_KEYS if "figures" in metrics else EVALUATION_KEYS
        _check_complete(run_folder / "metrics.json", metrics, protocol, MEASURE_AGAIN)
    checkpoint = run_folder / CHECKPOINT
    if metrics is not None and "weights_sha256" in metrics:  # earlier versions did not record it; the card says so
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
        values = card_values(files, repo_id)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:  # below the outermost keys
        folders, ways_out = f"{run_folder}", f"{OF_A_RUN} {MEASURE_AGAIN}"
        if experiment_folder is not None:
            folders, ways_out = f"{folders} or {experiment_folder}", f"{ways_out} {OF_AN_EXPERIMENT}"
        raise ValueError(
            f"A file of {folders} lacks what a model card needs, or holds it in another form ({type(error).__name__}: "
            f"{error}): it was edited or badly computed. {ways_out}"
        ) from error
    return ModelCard(fill_template(TEMPLATE.read_text(encoding="utf-8"), values))


def check_same_weights(checkpoint: Path, measured: str) -> None:
    """Raise if a checkpoint does not have the weights that were measured.

    Args:
        checkpoint: Its folder.
        measured: `weights_sha256` of the model that was measured.

    Raises:
        ValueError: If it has others, or cannot be loaded.
    """
    try:
        model, _ = load_for_golden_outputs(checkpoint, trust_remote_code=False)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(f"{checkpoint} cannot be loaded, so that nobody knows what was measured: {error}") from error
    if weights_sha256(model) != measured:
        raise ValueError(
            f"{checkpoint.parent / 'metrics.json'} holds figures of other weights than those in {checkpoint}. "
            f"{MEASURE_AGAIN}"
        )


def fill_template(template: str, values: Mapping[str, Any]) -> str:
    r"""Fill a template of Jinja.

    Args:
        template: Text with `{{ name }}` and `{% if name %}`.
        values: By name of the placeholder.

    Returns:
        The text, without the empty lines that conditions leave.

    Raises:
        ValueError: If the template has a placeholder that `values` has not, in a branch not taken, too.

    Example:
        >>> fill_template("{% if leak %}\nLeak!\n{% endif %}\n# {{ name }}", {"leak": "", "name": "Card"})
        '# Card'
    """
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    known = f"Known are: {', '.join(sorted(values))}."
    try:
        if unknown := sorted(find_undeclared_variables(environment.parse(template)) - set(values)):
            raise ValueError(f"The template of the model card asks for {', '.join(unknown)}, which is unknown. {known}")
        text = environment.from_string(template).render(values)
    except TemplateSyntaxError as error:
        raise ValueError(f"The template of the model card cannot be read: line {error.lineno}: {error}.") from error
    except UndefinedError as error:  # of a part, as in `calibration.dataset`
        raise ValueError(f"The template of the model card asks for what is unknown: {error}. {known}") from error
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n")


def _read(path: Path, keys: tuple[str, ...], way_out: str) -> Any:
    """Read a file of JSON that has at least these keys and no NaN; None if there is none."""
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_check_constant)
    except ValueError as error:
        raise ValueError(
            f"{path} cannot be read ({error}): it was cut off, edited or badly computed. {way_out}"
        ) from error
    _check_complete(path, content, keys, way_out)
    return content


def _require(path: Path, keys: tuple[str, ...], way_out: str) -> Any:
    content = _read(path, keys, way_out)
    if content is None:
        raise ValueError(f"{path} is missing; a model card needs it. {way_out}")
    return content


def _check_complete(path: Path, content: Any, keys: tuple[str, ...], way_out: str) -> None:
    lacking = [key for key in keys if not isinstance(content, dict) or key not in content]
    if lacking:
        raise ValueError(f"{path} has no {', '.join(lacking)}; a model card needs that. {way_out}")


def _check_constant(name: str) -> None:
    raise ValueError(f"it holds {name}, which is no number")
