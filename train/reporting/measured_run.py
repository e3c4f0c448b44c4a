"""What every measured run says of itself, and how it writes what was measured."""

import shlex
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from matplotlib.figure import Figure
from torch import nn

from data_scripts.system.whole_files import write_json, write_text
from train.checkpoints.onnx_export import weights_sha256
from train.data.provenance import DataFacts
from train.evaluation import METRICS
from train.evaluation.predictions import PREDICTIONS
from train.reporting.figures.style import save_figures
from train.training.history import read_history

REPORT = "report.md"


def describe_measured(
    model: nn.Module,
    rows: Dataset,
    facts: DataFacts,
    *,
    name: str,
    start: Mapping[str, Any] | None,
    labels: Mapping[str, Mapping[str, int]],
    split: str = "test",
) -> dict[str, Any]:
    """Describe what was measured, on which rows, when and by which command, for `metrics.json`.

    Args:
        model: With the weights that were measured.
        rows: The measured ones.
        facts: Of all splits.
        name: Of the dataset.
        start: `read_start` of the run.
        labels: Rows and patients with each class.
        split: Of the rows.
    """
    return {
        "dataset": {
            "name": name,
            "split": split,
            "num_rows": len(rows),
            "num_patients": len(set(rows["patient_id"][:])),
            "leak": facts.leak_stamp,
            "start": start,
            "synthetic": all(source.startswith("synthetic") for source in rows["source"][:]),
            "labels": labels,
        },
        "weights_sha256": weights_sha256(model),
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def count_epochs(folder: Path) -> dict[str, int]:
    """Count the epochs of a run, and say which had the lowest validation loss; 0 without an epoch."""
    losses = [line["validation_loss"] for line in read_history(folder) if "validation_loss" in line]
    return {"epochs": len(losses), "best_epoch": int(np.argmin(losses)) + 1 if losses else 0}


def write_measured(
    folder: Path,
    results: Mapping[str, Any],
    report: str,
    figures: Mapping[str, Figure],
    write_predictions: Callable[[Path], None],
) -> None:
    """Replace what a run measured: `metrics.json` goes first and comes last, so if it exists, so do the others."""
    (folder / METRICS).unlink(missing_ok=True)
    write_predictions(folder / PREDICTIONS)
    save_figures(figures, folder)
    write_text(folder / REPORT, report)
    write_json(folder / METRICS, results)
