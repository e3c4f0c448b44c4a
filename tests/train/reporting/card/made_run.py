"""The folder of a run, made without training: every number in its files is one of its own, so that it can be traced."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from train.training.run_folder import PACKAGES

COMMAND = "python /mnt/smith/lumbarclip/train/pretrain.py train/configs/made.yaml --output_dir /mnt/smith/made"
BASELINES = ("majority", "untrained", "pixel_pca", "hog", "texture", "imagenet", "no_pixels")


class Numbers:
    """Gives each number once: shares with three decimals, and whole numbers. Another `start` gives all others."""

    def __init__(self, start: int = 0) -> None:
        self.shares: Iterator[int] = itertools.count(101 + start)
        self.counts: Iterator[int] = itertools.count(2101 + start)

    def share(self) -> float:
        return next(self.shares) / 1000

    def count(self) -> int:
        return next(self.counts)

    def entry(self) -> dict[str, Any]:
        return {"value": self.share(), "low": self.share(), "high": self.share(), "n": self.count()}

    def entries(self, *names: str) -> dict[str, Any]:
        return {name: self.entry() for name in names}


def made_metrics(numbers: Numbers, *, findings: bool = False) -> dict[str, Any]:
    """A small `metrics.json`, of exclusive classes or of findings that exclude nothing."""
    of_labels = ("macro_auroc", "macro_f1") if findings else ("accuracy", "macro_f1", "balanced_accuracy")
    names = (*of_labels, "expected_calibration_error", "grade_quadratic_kappa", "ordinal_grade_quadratic_kappa")
    labels = ["disc bulging", "spondylolisthesis", "No Finding"] if findings else ["LBP", "No Finding"]
    recall = [
        f"{way}_{what}_at_{k}"
        for way in ("image_to_text", "text_to_image")
        for what in ("recall", "chance")
        for k in (1, 5)
    ]
    states = [
        f"{s}/{e}"
        for s in ("uncalibrated", "calibrated", "change")
        for e in ("expected_calibration_error", "brier_score", "negative_log_likelihood")
    ]
    sets = [f"class_conditional/{name}" for name in ("coverage", "answered", "accuracy_if_answered", "accuracy_of_all")]
    rank = {
        "value": numbers.count() + 0.5,
        "low": numbers.count() + 0.5,
        "high": numbers.count() + 0.5,
        "n": numbers.count(),
    }
    return {
        "linear_probe": numbers.entries(*names),
        "zero_shot": numbers.entries(*names[:-1]),
        "retrieval": numbers.entries(*recall) | {"image_to_text_median_rank": rank},
        "baselines": {
            name: {
                "linear_probe": numbers.entries(*names),
                "difference": numbers.entries("macro_auroc" if findings else "macro_f1", "grade_quadratic_kappa"),
            }
            for name in BASELINES
        },
        "further": {
            "calibration/zero_shot": numbers.entries(*states, *sets),
            "zero_shot/unseen": numbers.entries(*names[:-1]),
            "zero_shot/single_wordings": numbers.entries(
                *(
                    f"{'macro_auroc' if findings else 'macro_f1'}_{how}"
                    for how in ("mean", "standard_deviation", "worst")
                )
            ),
            "polarity": numbers.entries("polarity_accuracy", *(f"polarity_accuracy/{label}" for label in labels)),
        },
        "statement_cosines": {label: numbers.share() for label in labels},
        "prompts": {label: {"present": [f"There is {label}."]} for label in labels},
        "unseen_wordings": {
            label: {"present": [f"{label} present."], "absent": [f"No {label} present."]} for label in labels
        },
        "dataset": {
            "name": "made",
            "split": "test",
            "num_rows": numbers.count(),
            "num_patients": numbers.count(),
            "leak": None,
            "synthetic": False,
            "labels": {label: {"rows": numbers.count(), "patients": numbers.count()} for label in labels},
        },
        "weights_sha256": "made",
        "command": COMMAND,
        "date": "2031-01-31T01:02:03+00:00",
    }


def made_calibration(numbers: Numbers, *, findings: bool = False) -> dict[str, Any]:
    """What `config.json` holds of a calibration."""
    choices = ["absent", "present"] if findings else ["LBP", "No Finding"]
    question = {
        "label": "disc bulging" if findings else None,
        "choices": choices,
        "prompts": [["Normal disc."], ["Disc bulge.", "A bulge."]],
        "temperature": numbers.share(),
        "score_thresholds": [numbers.share(), numbers.share()],
    }
    return {
        "questions": [question],
        "target_coverage": 0.83,
        "fitted_on": {
            "dataset": "made",
            "split": "validation",
            "num_rows": numbers.count(),
            "num_patients": numbers.count(),
            "date": "2031-02-01",
            "reasons": {"spondylolisthesis": "no validation patient has it"} if findings else {},
        },
    }


def made_run_json(numbers: Numbers) -> dict[str, Any]:
    """A `run.json`; the settings are those that a card reads."""
    return {
        "command": COMMAND,
        "date": "2031-01-30T01:02:03+00:00",
        "arguments": {
            "dataset": "/mnt/smith/made",
            "allow_leaks": False,
            "output_dir": "/mnt/smith/runs/made",
            "vision": "resnet10t",
            "vision_model_args": {"channels": [numbers.count()]},
            "text": "emilyalsentzer/Bio_ClinicalBERT",
            "text_config": {},
            "pretrained": False,
            "init_checkpoint": "",
            "lora_rank": 0,
            "objective": "lumbarclip",
            "batch_size": 13,
            "gradient_accumulation_steps": 2,
            "learning_rate": numbers.share(),
            "seed": numbers.count(),
        },
        "data": {
            "name": "made",
            "hub_id": None,
            "synthetic": False,
            "splits": {
                s: {"rows": numbers.count(), "patients": numbers.count()} for s in ("train", "validation", "test")
            },
            "planes": {"axial": numbers.count()},
            "sequences": {"T1": numbers.count(), "T2": numbers.count()},
            "source": "made",
            "license": "cc-by-4.0",
            "citation": f"Smith et al., Made discs, Journal {numbers.count()}, {numbers.count()} (2030).",
            "summary": f"Slices of {numbers.count()} made patients.",
            "report_origin": "a radiologist",
            "may_be_shared": True,
            "split_rule": f"By patient, {numbers.count()} % and the rest.",
            "split_by": "patient",
            "deidentification": {"passed": True, "ids": "pseudonyms"},
        },
        "rows_sha256": {},
        "start": None,
        "num_processes": 3,
        "mixed_precision": "bf16",
        "device": "cpu",
        "device_name": "x86_64",
        "num_threads": numbers.count(),
        "python": f"3.{numbers.count()}.1",
        "packages": {name: f"{numbers.count()}.0.1" for name in PACKAGES},
    }


def made_history(numbers: Numbers) -> list[dict[str, Any]]:
    """Of 10 updates: at 39 pairs in 2 processes' worth of seconds each; see the test that adds them up."""
    line = {"loss": numbers.share(), "validation_loss": numbers.share()}
    return [{"update": 10, "pairs_per_second": 78.0, "loss": 9.0}, {"update": 20, "pairs_per_second": 39.0, **line}]


def made_config(numbers: Numbers, *, findings: bool = False) -> dict[str, Any]:
    """A `config.json`."""
    return {
        "architectures": ["LumbarCLIPModel"],
        "projection": "linear",
        "projection_dim": numbers.count(),
        "vision_config": {"model_type": "timm_wrapper", "architecture": "resnet10t"},
        "text_config": {
            "model_type": "bert",
            "num_hidden_layers": numbers.count(),
            "hidden_size": numbers.count(),
        },
        "calibration": made_calibration(numbers, findings=findings),
    }


def made_run(folder: Path, *, start: int = 0, findings: bool = False) -> Path:
    """Write the folder of a run.

    Args:
        folder: Where; made.
        start: Of the numbers: runs with other starts share none.
        findings: Whether labels exclude each other or not.
    """
    numbers = Numbers(start)
    size = numbers.count()
    files: dict[str, Any] = {
        "run.json": made_run_json(numbers),
        "metrics.json": made_metrics(numbers, findings=findings),
        "checkpoint/config.json": made_config(numbers, findings=findings),
        "checkpoint/processor_config.json": {
            "image_processor": {"size": {"height": size, "width": size}},
            "text_kwargs": {"max_length": numbers.count()},
        },
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    lines = [json.dumps(line) for line in made_history(numbers)]
    (folder / "history.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def started_from(folder: Path, checkpoint: str, *, is_folder: bool = False, rows: str = "same") -> Path:
    """Let a run start from a checkpoint, trained on the `same`, `other` or `unknown` rows."""
    start = {"checkpoint": checkpoint, "is_folder": is_folder, "rows": rows}
    return change(folder, "run.json", arguments__init_checkpoint=checkpoint, start=start)


def change(folder: Path, file: str, **values: Any) -> Path:
    """Put values in a JSON file of a run; `data__license="mit"` goes into the mapping `data`."""
    content = json.loads((folder / file).read_text())
    for name, value in values.items():
        *outer, last = name.split("__")
        inner = content
        for key in outer:
            inner = inner[key]
        inner[last] = value
    (folder / file).write_text(json.dumps(content))
    return folder
