"""What the placeholders of a model card stand for, in words, from the files that a run left."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from modeling_lumbarclip.configuration_lumbarclip import CLASSIFIER
from train.data.provenance import UNKNOWN
from train.reporting.card.energy import emissions_metadata, energy_values
from train.reporting.card.metadata import PIPELINE_TAG, card_metadata
from train.reporting.card.origin import (
    is_measured_elsewhere,
    license_statement,
    model_license,
    start_overlap,
    starting_checkpoint,
    starting_folder,
    starting_hub_ids,
    starting_weights,
)
from train.reporting.card.tables import (
    RESULT_TABLES,
    calibration_table,
    classifier_tables,
    experiment_table,
    result_tables,
    splits_table,
)
from train.reporting.card.words import (
    counted,
    folder_name,
    in_words,
    number,
    one_line,
    shown_command,
    without_folders,
)
from train.reporting.report import describe_dataset
from train.training.history import training_seconds

INTERVALS = "95 % intervals, by bootstrap over patients"  # percentiles of train.evaluation.statistics.bootstrap
# Of where and how a run wrote, not of what it learned.
OF_THE_PLACE = ("output_dir", "resume", "overwrite", "report_to", "num_workers", "save_every", "log_every")
FEW_PATIENTS = 10
NOT_RECORDED = "not recorded"
ELSEWHERE = (
    "This is another data set than that of the training, or another version of it; whether they share patients, nobody "
    "looked. "
)


@dataclass(frozen=True)
class RunFiles:
    """What a run left, read.

    Args:
        run: `run.json`.
        config: `config.json` of the checkpoint.
        processor: `processor_config.json` of the checkpoint; of a classifier, `preprocessor_config.json`.
        history: Lines of `history.jsonl`.
        metrics: `metrics.json`; None if the model was not measured.
        adapter_base: Hub id and commit of the base, where the card is that of low-rank adapters alone; else None.
        experiment: `results.json` of an experiment; None without one.
    """

    run: Mapping[str, Any]
    config: Mapping[str, Any]
    processor: Mapping[str, Any]
    history: list[dict[str, Any]]
    metrics: Mapping[str, Any] | None
    adapter_base: tuple[str, str | None] | None
    experiment: Mapping[str, Any] | None

    @property
    def is_classifier(self) -> bool:
        """Whether the checkpoint is a fine-tuned classifier."""
        return CLASSIFIER in self.config.get("architectures", ())

    @property
    def is_measured_elsewhere(self) -> bool:
        """Whether the figures are of other rows than those of the training data set."""
        return self.metrics is not None and is_measured_elsewhere(self.run, self.metrics, self.data["name"])

    @property
    def data(self) -> dict[str, Any]:
        """What the run recorded of its data; runs of earlier versions recorded its name alone."""
        name = Path(self.run["arguments"]["dataset"]).name
        synthetic = bool(self.metrics and self.metrics["dataset"]["synthetic"])
        unrecorded = {"name": name, "synthetic": synthetic, "splits": None, "planes": {}, "sequences": {}}
        return {**UNKNOWN, **unrecorded, **self.run.get("data", {})}

    @property
    def pairs_of_update(self) -> int:
        """Pairs of an update in all processes; of a classifier, images."""
        arguments = self.run["arguments"]
        return int(
            self.run["num_processes"] * arguments["batch_size"] * arguments.get("gradient_accumulation_steps", 1)
        )

    @property
    def seconds(self) -> float | None:
        """Time of all updates; None where it was not recorded."""
        is_timed = bool(self.history) and all("pairs_per_second" in line for line in self.history)
        return training_seconds(self.history, self.pairs_of_update) if is_timed else None


def card_values(files: RunFiles, repo_id: str) -> dict[str, Any]:
    """Fill the placeholders of `model_card.md`.

    Args:
        files: What the run left.
        repo_id: Hub id that the model will have.

    Returns:
        A value for each placeholder.
    """
    task = "image-classification" if files.is_classifier else PIPELINE_TAG
    arguments, leak, overlap = files.run["arguments"], _leak_values(files), start_overlap(files.run)
    energy = energy_values(arguments, files.seconds)
    goes_on = bool(starting_checkpoint(arguments))
    metadata = card_metadata(
        repo_id,
        pipeline_tag=task,
        license_id=model_license(files.data, arguments),
        data=files.data,
        metrics=None if leak["leak"] or overlap else files.metrics,
        is_measured_elsewhere=files.is_measured_elsewhere,
        base_model=files.adapter_base[0] if files.adapter_base else starting_hub_ids(files.run),
        uses_lora=bool(arguments.get("lora_rank")),
        is_adapter=files.adapter_base is not None,
        emissions=energy and emissions_metadata(energy, goes_on=goes_on, hardware=_device(files.run)),
    )
    return {
        "metadata": metadata.to_yaml(),
        "model_name": metadata.model_name,
        "repo_id": repo_id,
        "task": task,
        "adapter_base": files.adapter_base and files.adapter_base[0],
        "adapter_base_commit": files.adapter_base and files.adapter_base[1],
        **_model_values(files),
        **leak,
        "start_overlap": overlap,
        "license_statement": license_statement(files.data, files.run),
        **_data_values(files),
        **_result_values(files),
        **_training_values(files),
        "energy": energy,
    }


def _model_values(files: RunFiles) -> dict[str, Any]:
    arguments, config = files.run["arguments"], files.config
    vision, text = config["vision_config"], config["text_config"]
    heads = {
        "none": "no projection heads",
        "linear": f"linear heads into a shared space of {config['projection_dim']} dimensions",
        "nonlinear": f"heads of two layers into a shared space of {config['projection_dim']} dimensions",
    }
    layers = f", {text['num_hidden_layers']} layers of width {text['hidden_size']}," if "hidden_size" in text else ""
    return {
        "vision_tower": f"`{vision.get('architecture', vision['model_type'])}`",
        "text_tower": f"a `{text['model_type']}` encoder{layers}",
        "projection": heads[config["projection"]],
        "image_size": files.processor.get("image_processor", files.processor)["size"]["height"],
        "max_text_length": files.processor.get("max_length", ""),
        "starting_weights": starting_weights(files.run),
        "objective": arguments["objective"] if "objective" in arguments else arguments["loss"],
        "lora_rank": arguments.get("lora_rank", 0),
    }


def _data_values(files: RunFiles) -> dict[str, Any]:
    data = files.data
    found, splits = data["deidentification"], data["splits"]
    named = (
        f"[{data['name']}](https://huggingface.co/datasets/{data['hub_id']})" if data["hub_id"] else f"`{data['name']}`"
    )
    state = "synthetic" if data["synthetic"] else "unknown" if found is None else "passed"
    if found is not None and not found["passed"]:
        state = "failed"
    statements = {
        "synthetic": "the data are drawn; there is nobody to name.",
        "unknown": NOT_RECORDED + ".",
        "passed": "the check of texts, ids and images passed. Rules miss things.",
        "failed": "**the check failed.**",
    }
    patients = "drawn patients" if data["synthetic"] else "patients"
    trained_on = (
        "" if splits is None else f"{splits['train']['rows']} images of {splits['train']['patients']} {patients}"
    )
    seen = {"planes": "plane", "sequences": "sequence"}
    protocol = [f"{one}: {counted(data[many])}" for many, one in seen.items() if data[many]]
    return {
        "data_name": named,
        "trained_on_synthetic": data["synthetic"],
        "may_be_shared": data["may_be_shared"],
        "deidentification": state,
        "deidentification_statement": statements[state],
        "data_summary": one_line(data["summary"] or f"{named}; what it holds was {NOT_RECORDED}."),
        "report_origin": one_line(data["report_origin"] or NOT_RECORDED).removesuffix("."),
        "data_license": one_line(data["license"] or NOT_RECORDED).removeprefix("other: "),
        "data_citation": one_line(data["citation"] or NOT_RECORDED + "."),
        "split_rule": one_line(data["split_rule"] or NOT_RECORDED + "."),
        "splits_table": splits_table(splits),
        "population": f"It learned from {trained_on}." if trained_on else f"Whom it learned from was {NOT_RECORDED}.",
        "protocol": f"It learned from images by {'; by '.join(protocol)}." if protocol else "Not recorded.",
    }


def _leak_values(files: RunFiles) -> dict[str, str]:
    """The stamp, empty without a leak, and what the section on data says."""
    arguments = files.run["arguments"]
    measured = files.metrics["dataset"].get("leak") if files.metrics else None
    if measured:
        stamp = measured["in_words"]
    elif files.data["split_by"] == "record":
        stamp = "The splits are by record: patients have images in more than one."
    elif arguments.get("allow_leaks") and (files.metrics is None or files.is_measured_elsewhere):
        stamp = "The run was told to take data whose splits may share patients or images, and nobody looked."
    else:
        stamp = ""
    looked = "allow_leaks" in arguments  # runs of earlier versions did not look
    none_found = "no patient, study, image or near-identical image is in two splits." if looked else NOT_RECORDED + "."
    return {"leak": stamp, "leak_statement": stamp or none_found}


def _result_values(files: RunFiles) -> dict[str, Any]:
    metrics, experiment = files.metrics, files.experiment
    values = {
        "measured": metrics is not None,
        "zero_shot_is_chance": metrics is not None and _is_chance(metrics),
        "intervals": INTERVALS,
        "measured_on_synthetic": bool(metrics and metrics["dataset"]["synthetic"]),
        "experiment": experiment["card_text"] if experiment else "",
        "experiment_table": experiment_table(experiment) if experiment else "",
        "calibration": _calibration(files.config.get("calibration")),
        "class_temperatures": _class_temperatures(files.config),
        "calibration_table": calibration_table(metrics) if metrics else "",
        "rarest_label": _rarest_labels(metrics["dataset"]["labels"]) if metrics else "",
    }
    return values | {
        "measured_on": describe_dataset(metrics["dataset"]) if metrics else "",
        "measured_elsewhere": ELSEWHERE if files.is_measured_elsewhere else "",
        "measured_these_weights": bool(metrics and "weights_sha256" in metrics),
        "metrics_date": metrics["date"][:10] if metrics else "",
        "metrics_command": shown_command(metrics["command"], starting_folder(files.run)) if metrics else "",
        **dict.fromkeys(RESULT_TABLES, ""),
        **_tables(metrics),
    }


def _tables(metrics: Mapping[str, Any] | None) -> dict[str, str]:
    if metrics is None:
        return {}
    return classifier_tables(metrics) if "figures" in metrics else result_tables(metrics)


def _class_temperatures(config: Mapping[str, Any]) -> str:
    temperatures = config.get("class_temperatures") or []
    return ", ".join(f"{config['id2label'][str(k)]} {value:.3f}" for k, value in enumerate(temperatures))


def _calibration(fitted: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if fitted is None:
        return None
    reasons = "\n".join(f"- {question}: {reason}." for question, reason in fitted["fitted_on"]["reasons"].items())
    return {**fitted["fitted_on"], "coverage": f"{100 * fitted['target_coverage']:g} %", "reasons": reasons}


def _rarest_labels(labels: Mapping[str, Mapping[str, int]]) -> str:
    rare = {name: n for name, n in labels.items() if n["patients"] < FEW_PATIENTS}
    said = [f"{name} in {number(n['rows'], 'image')} of {number(n['patients'], 'patient')}" for name, n in rare.items()]
    return f"The test patients show {'; '.join(said)}." if said else ""


def _is_chance(metrics: Mapping[str, Any]) -> bool:
    """Whether the interval of the zero-shot headline reaches down to guessing."""
    if "zero_shot" not in metrics:
        return False
    if "macro_auroc" in metrics["zero_shot"]:
        entry, chance = metrics["zero_shot"]["macro_auroc"], 0.5
    else:
        entry, chance = metrics["zero_shot"]["balanced_accuracy"], 1 / len(metrics["dataset"]["labels"])
    return entry["low"] is None or entry["low"] <= chance


def _training_values(files: RunFiles) -> dict[str, str]:
    run, history = files.run, files.history
    arguments = run["arguments"]
    examples = "images" if files.is_classifier else "pairs"
    folder = starting_folder(run)
    shown = {
        key: f"{folder_name(folder)} (not on the Hub)" if folder and value == folder else without_folders(value)
        for key, value in arguments.items()
        if key not in OF_THE_PLACE
    }
    last = history[-1] if history else {}
    losses = [f"{name.replace('_', ' ')} {last[name]:.3f}" for name in ("loss", "validation_loss") if name in last]
    ended = f" Ended at {' and '.join(losses)}." if losses else ""
    updates = f"{last['update']} updates of {files.pairs_of_update} {examples}, " if history else ""
    software = [f"Python {run['python']}", *(f"{name} {version}" for name, version in run["packages"].items())]
    return {
        "command": shown_command(run["command"], folder),
        "training": f"{updates}AdamW at {arguments['learning_rate']:g}, seed {arguments['seed']}.{ended} "
        f"Started on {run['date'][:10]}.",
        "training_time": f"{NOT_RECORDED if files.seconds is None else in_words(files.seconds)} (updates alone) on "
        f"{_device(run)}.",
        "software": ", ".join(software) + ".",
        "arguments": yaml.safe_dump(shown, sort_keys=False, allow_unicode=True, width=100).strip(),
    }


def _device(run: Mapping[str, Any]) -> str:
    model = f" ({run['device_name']})" if "device_name" in run else ""
    threads = f", {number(run['num_threads'], 'thread')}" if "num_threads" in run and run["device"] == "cpu" else ""
    each = " each" if threads and run["num_processes"] > 1 else ""
    precision = {"no": "float32"}.get(run["mixed_precision"], f"mixed precision {run['mixed_precision']}")
    return f"{run['device']}{model}: {number(run['num_processes'], 'process', 'processes')}{threads}{each}, {precision}"
