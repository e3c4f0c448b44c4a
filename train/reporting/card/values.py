"""Collect the values of a model card's placeholders from the files that a run left."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from data_scripts.records import KNEE, LUMBAR_SPINE
from data_scripts.system.markdown import Markdown
from modeling_lumbarclip.configuration_lumbarclip import CLASSIFIER, SEGMENTER, Scope
from modeling_lumbarclip.scope_lumbarclip import scope_in_words
from train.evaluation.statistics.minima import PATIENTS_FOR_LABEL
from train.reporting.card import tables
from train.reporting.card.metadata import EMISSIONS_SOURCE, PIPELINE_TAG, card_metadata, energy_values
from train.reporting.card.origin import (
    folder_name,
    model_license,
    shown_command,
    shown_models,
    starting_checkpoint,
    starting_folder,
    starting_hub_ids,
    starting_models,
    without_folders,
)
from train.reporting.experiment.tables import comparison_table
from train.reporting.run_report import describe_dataset, scope_line, start_warning
from train.reporting.tables import counts_table
from train.training.history import training_seconds

# Where and how a run wrote, not what it learned.
OF_THE_PLACE = ("output_dir", "resume", "overwrite", "report_to", "num_workers", "save_every", "log_every")
# For the code on a card: two choices, and a sentence for each.
EXAMPLES = {
    LUMBAR_SPINE: (["disc bulge", "normal disc"], ["There is a disc bulge.", "The disc is normal."]),
    KNEE: (["osteoarthritis", "normal knee"], ["There is osteoarthritis.", "The knee is normal."]),
}
WRITTEN_BY_OTHERS = ("license", "citation", "summary", "report_origin", "split_rule")


@dataclass(frozen=True)
class RunFiles:
    """The content of the files that a run left."""

    run: Mapping[str, Any]
    config: Mapping[str, Any]
    processor: Mapping[str, Any]  # of a classifier, `preprocessor_config.json`
    history: list[dict[str, Any]]
    metrics: Mapping[str, Any] | None
    adapter_base: tuple[str, str | None] | None  # Hub id and commit, for a repository of only low-rank adapters
    experiment: Mapping[str, Any] | None  # `results.json`

    @property
    def is_classifier(self) -> bool:
        """Whether the checkpoint is a fine-tuned classifier."""
        return CLASSIFIER in self.config.get("architectures", ())

    @property
    def is_segmenter(self) -> bool:
        """Whether the checkpoint is a segmentation model."""
        return SEGMENTER in self.config.get("architectures", ())

    @property
    def task(self) -> str:
        """Task of the checkpoint's pipeline."""
        if self.is_segmenter:
            return "image-segmentation"
        return "image-classification" if self.is_classifier else PIPELINE_TAG

    @property
    def is_measured_elsewhere(self) -> bool:
        """Whether the metrics are from rows other than the run's; a classifier is measured on its own."""
        measured = self.metrics["dataset"].get("rows_sha256", {}) if self.metrics else {}
        return any(self.run["rows_sha256"].get(split) != rows for split, rows in measured.items())

    @property
    def pairs_of_update(self) -> int:
        """Pairs (of a classifier: images) of an update in all processes."""
        of_process = self.run["arguments"]["batch_size"] * self.run["arguments"].get("gradient_accumulation_steps", 1)
        return int(self.run["num_processes"] * of_process)

    @property
    def seconds(self) -> float | None:
        """Time of all updates; None where the run was not timed."""
        is_timed = bool(self.history) and all("pairs_per_second" in line for line in self.history)
        return training_seconds(self.history, self.pairs_of_update) if is_timed else None


def card_values(files: RunFiles, repo_id: str) -> dict[str, Any]:
    """Collect the values of the placeholders of `model_card.md`, for a model that will have this Hub id."""
    run, arguments, data, experiment = files.run, files.run["arguments"], files.run["data"], files.experiment
    leak, overlap = _leak(files), start_warning(run["start"])
    license_id, energy = model_license(data, arguments), energy_values(arguments, files.seconds)
    base, commit = files.adapter_base or (None, None)
    temperatures = files.config.get("class_temperatures") or []
    metadata = card_metadata(
        repo_id,
        pipeline_tag=files.task,
        license_id=license_id,
        data=data,
        metrics=None if leak or overlap else files.metrics,
        is_measured_elsewhere=files.is_measured_elsewhere,
        base_model=base or starting_hub_ids(run),
        uses_lora=bool(arguments.get("lora_rank")),
        is_adapter=base is not None,
        emissions=energy
        and {
            "emissions": float(energy["grams"]),
            "source": EMISSIONS_SOURCE,
            "training_type": "fine-tuning" if starting_checkpoint(arguments) else "pre-training",
            "hardware_used": _device(run),
        },
    )
    return {
        "metadata": Markdown(metadata.to_yaml()),
        "model_name": metadata.model_name,
        "repo_id": repo_id,
        "task": files.task,
        "adapter_base": base,
        "adapter_base_commit": commit,
        "license_id": license_id,
        "leak": leak,
        "leak_in_words": files.metrics["dataset"]["leak"]["in_words"] if leak == "measured" and files.metrics else "",
        "start": {
            "models": shown_models(run),
            "is_local": bool(starting_folder(run)),
            "is_half_random": len(starting_models(arguments)) == 1 and not starting_checkpoint(arguments),
            "packaged": run.get("packaged_towers", []),  # older runs had none
            "overlap": overlap,
        },
        "model": _model_values(files),
        "data": _data_values(data),
        "splits_table": counts_table("split", data["splits"]),
        "calibration": files.config.get("calibration"),
        "scope": _scope(files),
        "class_temperatures": {files.config["id2label"][str(k)]: value for k, value in enumerate(temperatures)},
        "results": _result_values(files) if files.metrics else None,
        "experiment": experiment
        and {
            **experiment,
            "where": describe_dataset(experiment["dataset"]),
            "start_warning": start_warning(experiment["dataset"].get("start")),
            "table": comparison_table(experiment, **{of: experiment["headline"][of] for of in ("metric", "group")}),
        },
        "training": _training_values(files),
        "energy": energy,
    }


def objective_in_words(arguments: Mapping[str, Any]) -> str:
    """Name what a run minimised, as a weighted sum.

    Example:
        >>> objective_in_words({"objectives": {"lumbarclip": 1.0, "polarity": 0.5}})
        'lumbarclip + 0.5 polarity'
    """
    only = arguments.get("objective", arguments.get("loss"))  # of older runs, and of a classifier
    weights = arguments.get("objectives", {only: 1.0})
    return " + ".join(name if weight == 1 else f"{weight:g} {name}" for name, weight in weights.items())


def _frozen(arguments: Mapping[str, Any]) -> list[str]:
    count = arguments.get("freeze_vision_layers", 0)
    towers = [f"a frozen {tower} tower" for tower in arguments.get("freeze", [])]
    layers = "layer" if count == 1 else f"{count} layers"
    return towers + ([f"the first {layers} of the vision tower frozen"] if count else [])


def _model_values(files: RunFiles) -> dict[str, Any]:
    arguments, config = files.run["arguments"], files.config
    vision, text = config["vision_config"], config["text_config"]
    return {
        "vision_tower": vision.get("architecture", vision["model_type"]),
        "text_tower": text["model_type"],
        "text_layers": text.get("num_hidden_layers"),
        "text_width": text.get("hidden_size"),
        "projection": config["projection"],
        "projection_dim": config["projection_dim"],
        "image_size": files.processor.get("image_processor", files.processor)["size"]["height"],
        "max_text_length": files.processor.get("text_kwargs", files.processor).get("max_length", ""),
        "objective": objective_in_words(arguments),
        "lora_rank": arguments.get("lora_rank", 0),
        "lora_towers": arguments.get("lora_towers", []),
        "frozen": _frozen(arguments),
        "structures": list(config.get("id2label", {}).values())[1:] if files.is_segmenter else [],
        "reads_prompts": files.is_segmenter and config.get("cross_attention") == "patch",
    }


def _data_values(data: Mapping[str, Any]) -> dict[str, Any]:
    """Collect what the run recorded of its data; text of others in one line, so that it opens no heading or list."""
    found = data["deidentification"]
    state = "failed" if found and not found["passed"] else "passed" if found else "unknown"
    texts = {name: " ".join((data[name] or "").split()).removeprefix("other: ") for name in WRITTEN_BY_OTHERS}
    seen = {one: data[many] for one, many in (("plane", "planes"), ("sequence", "sequences"))}
    anatomy = data.get("anatomy") or LUMBAR_SPINE  # older runs did not record it
    of_any = (
        [f"normal {anatomy}", f"abnormal {anatomy}"],
        [f"The {anatomy} is {how}." for how in ("normal", "abnormal")],
    )
    choices, sentences = EXAMPLES.get(anatomy, of_any)
    return {
        **data,
        **texts,
        "anatomy": anatomy,
        "choices": Markdown(json.dumps(choices)),
        "sentences": Markdown(json.dumps(sentences)),
        "asks_for_attribution": (data["license"] or "").startswith("cc-by"),
        "deidentification": "synthetic" if data["synthetic"] and state != "failed" else state,
        "seen": {name: ", ".join(f"{value} ({n})" for value, n in rows.items()) for name, rows in seen.items() if rows},
    }


def _scope(files: RunFiles) -> str:
    """Say what the weights were trained on, and what they hold back, as far as it was measured; empty if unknown."""
    if files.config.get("scope") is None or files.adapter_base:
        return ""
    measured = scope_line((files.metrics or {}).get("scope"))
    return measured or f"Trained on {scope_in_words(Scope.from_dict(files.config['scope']))}."


def _leak(files: RunFiles) -> str:
    """Say how splits share patients: `measured`, `by record`, `unchecked`; empty if they do not."""
    if files.metrics and files.metrics["dataset"]["leak"]:
        return "measured"
    if files.run["data"]["split_by"] == "record":
        return "by record"
    is_unchecked = files.run["arguments"]["allow_leaks"] and (files.metrics is None or files.is_measured_elsewhere)
    return "unchecked" if is_unchecked else ""


def _result_values(files: RunFiles) -> dict[str, Any]:
    metrics: Any = files.metrics
    data, labels = metrics["dataset"], metrics["dataset"]["labels"]
    return {
        "where": describe_dataset(data),
        "interval_percent": 95,  # as train.evaluation.statistics.bootstrap computes them
        "synthetic": data["synthetic"],
        "elsewhere": files.is_measured_elsewhere,
        "date": metrics["date"][:10],
        "command": shown_command(metrics["command"], starting_folder(files.run)),
        "missing_labels": data.get("missing_labels", ""),
        "zero_shot_is_chance": _is_chance(metrics),
        "rare_labels": {name: counts for name, counts in labels.items() if counts["patients"] < PATIENTS_FOR_LABEL},
        "calibration_table": tables.calibration_table(metrics),
        **_tables(metrics),
    }


def _tables(metrics: Mapping[str, Any]) -> dict[str, Any]:
    if "by_system" in metrics:
        return tables.classifier_tables(metrics)
    return tables.segmentation_tables(metrics) if "resolution_limit" in metrics else tables.result_tables(metrics)


def _is_chance(metrics: Mapping[str, Any]) -> bool:
    """Whether the interval of the zero-shot headline reaches down to guessing."""
    if not metrics.get("zero_shot"):
        return False
    if "macro_auroc" in metrics["zero_shot"]:
        entry, chance = metrics["zero_shot"]["macro_auroc"], 0.5
    else:
        entry, chance = metrics["zero_shot"]["balanced_accuracy"], 1 / len(metrics["dataset"]["labels"])
    return entry["low"] is None or entry["low"] <= chance


def _training_values(files: RunFiles) -> dict[str, Any]:
    run, last = files.run, files.history[-1] if files.history else {}
    arguments, folder = run["arguments"], starting_folder(run)
    shown = {
        key: f"{folder_name(folder)} (not on the Hub)" if folder and value == folder else without_folders(value)
        for key, value in arguments.items()
        if key not in OF_THE_PLACE
    }
    losses = [f"{name.replace('_', ' ')} {last[name]:.3f}" for name in ("loss", "validation_loss") if name in last]
    return {
        "command": shown_command(run["command"], folder),
        "updates": last.get("update"),
        "batch": f"{files.pairs_of_update} {'pairs' if files.task == PIPELINE_TAG else 'images'}",
        "learning_rate": f"{arguments['learning_rate']:g}",
        "seed": arguments["seed"],
        "losses": " and ".join(losses),
        "date": run["date"][:10],
        "time": "" if files.seconds is None else in_words(files.seconds),
        "device": _device(run),
        "software": ", ".join(
            [f"Python {run['python']}", *(f"{name} {version}" for name, version in run["packages"].items())]
        ),
        "arguments": yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=100).strip(),
    }


def _device(run: Mapping[str, Any]) -> str:
    processes = _number(run["num_processes"], "process", "processes")
    threads = f", {_number(run['num_threads'], 'thread')}" if run["device"] == "cpu" else ""
    each = " each" if threads and run["num_processes"] > 1 else ""
    precision = {"no": "float32"}.get(run["mixed_precision"], f"mixed precision {run['mixed_precision']}")
    return f"{run['device']} ({run['device_name']}): {processes}{threads}{each}, {precision}"


def _number(count: int, one: str, many: str = "") -> str:
    """Write a count with its noun."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def in_words(seconds: float) -> str:
    """Write a duration in seconds, minutes or hours.

    Example:
        >>> in_words(48.2), in_words(250), in_words(30000)
        ('48 s', '4.2 min', '8.3 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
