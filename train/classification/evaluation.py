"""Calibrate a fine-tuned classifier on validation patients, and measure it on test patients."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from data_scripts.system.whole_files import write_json, write_text
from modeling_lumbarclip import LumbarCLIPForImageClassification, LumbarCLIPImageProcessor
from train.checkpoints.checkpoint import CHECKPOINT
from train.checkpoints.loading import find_checkpoint, load_parts, load_processor
from train.checkpoints.onnx_export import weights_sha256
from train.classification.arguments import FinetuneClassificationArguments
from train.classification.data import ClassificationData, LabelledImages
from train.data.provenance import DataFacts
from train.evaluation import METRICS
from train.evaluation.checkpoint_scope import measure_scope
from train.evaluation.predictions import PREDICTIONS, read_predictions, write_predictions
from train.evaluation.protocols.calibration import confidence_and_correctness
from train.evaluation.protocols.fine_tuned import ClassifierMetrics, measure_classifier
from train.evaluation.statistics import metrics
from train.evaluation.statistics.bootstrap import Resampling, as_entries
from train.evaluation.statistics.metrics import Array, Floats
from train.evaluation.targets import Targets, count_labels
from train.reporting.classifier_report import classifier_report
from train.reporting.figures.calibration import reliability_diagrams
from train.reporting.figures.plots import confusion_matrix
from train.reporting.figures.style import save_figures
from train.reporting.run_report import describe_dataset
from train.training.history import read_history
from train.training.run_folder import read_start

REPORT = "report.md"


@torch.inference_mode()
def predict_logits(model: nn.Module, images: LabelledImages, batch_size: int) -> Floats:
    """Compute the logits of all images of a split. Shape (R, K), float64."""
    model.eval()
    logits = [model(pixel_values=pixels).logits.float().cpu().numpy() for pixels in _batches(model, images, batch_size)]
    return np.concatenate(logits)


@torch.inference_mode()
def tower_features(model: LumbarCLIPForImageClassification, images: LabelledImages, batch_size: int) -> Array:
    """Compute the pooled output z_I of the tower for all images of a split. Shape (R, D), float32."""
    batches = _batches(model.eval(), images, batch_size)
    features = [model.get_image_features(pixel_values=pixels).pooler_output for pixels in batches]
    return torch.cat(features).float().cpu().numpy()


def _batches(model: nn.Module, images: LabelledImages, batch_size: int) -> Iterator[Tensor]:
    device = next(model.parameters()).device
    for start in range(0, len(images), batch_size):
        rows = [(0, row) for row in range(start, min(start + batch_size, len(images)))]
        yield images.__getitems__(rows)["pixel_values"].to(device)


def evaluate_classifier(
    model: LumbarCLIPForImageClassification,
    data: ClassificationData,
    args: FinetuneClassificationArguments,
    facts: DataFacts,
    output_dir: Path,
) -> dict[str, Any]:
    """Measure a calibrated classifier; write `metrics.json`, whose content is returned, `report.md` and `figures/`.

    Raises:
        ValueError: If a run to compare with has no predictions of these test rows.
    """
    others = predictions_of_runs(args.compare_with, data.targets["test"])
    start, _ = load_parts(
        find_checkpoint(args.checkpoint),
        LumbarCLIPForImageClassification,
        LumbarCLIPImageProcessor,
        new="classifier.",
        dtype=torch.float32,
    )
    start.to(model.device)
    image_processor = load_processor(output_dir / CHECKPOINT, LumbarCLIPImageProcessor)
    images = {
        split: LabelledImages(
            rows, data.multi_hot(split), image_processor, args.seed, augment=False, show_progress=True
        )
        for split, rows in data.rows.items()
    }
    temperatures = np.array(model.config.class_temperatures)
    measured_splits = ("validation", "test")
    measured = measure_classifier(
        {split: predict_logits(model, images[split], args.batch_size) * temperatures for split in measured_splits},
        {split: tower_features(start, of_split, args.batch_size) for split, of_split in images.items()},
        data.targets,
        Resampling(args.num_resamples, args.seed),
        data.is_grade,
        others,
    )
    test = data.targets["test"]
    losses = [line["validation_loss"] for line in read_history(output_dir) if "validation_loss" in line]
    results: dict[str, Any] = {
        "target": args.target,
        "by_system": {name: as_entries(entries) for name, entries in measured.metrics.items()},
        "difference": as_entries(measured.difference),
        "mcnemar": measured.mcnemar,
        "patients": as_entries(measured.patients),
        "calibration": as_entries(measured.calibration.estimates),
        "class_temperatures": dict(zip(data.class_names, temperatures.tolist(), strict=True)),
        "scope": measure_scope(
            model, tower_features(model, images["test"], args.batch_size), np.asarray(test.patient_ids)
        ),
        "training": {"epochs": len(losses), "best_epoch": int(np.argmin(losses)) + 1},
        "dataset": {
            "name": Path(args.dataset).name,
            "split": "test",
            "num_rows": len(test),
            "num_patients": len(set(test.patient_ids)),
            "leak": facts.leak_stamp,
            "start": read_start(output_dir),
            "synthetic": all(source.startswith("synthetic") for source in data.rows["test"]["source"]),
            "labels": count_labels(test),
        },
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "weights_sha256": weights_sha256(model),
    }
    figures = draw_figures(measured, test, describe_dataset(results["dataset"]))
    (output_dir / METRICS).unlink(missing_ok=True)
    rows = {"row": np.arange(len(test)), "fold": np.zeros(len(test), dtype=int)}
    write_predictions(output_dir / PREDICTIONS, rows | measured.predictions, test, data.rows["test"]["source"][:])
    save_figures(figures, output_dir)
    write_text(output_dir / REPORT, classifier_report(results, figures))
    write_json(output_dir / METRICS, results)  # last: if it exists, so do the others
    return results


def predictions_of_runs(folders: Sequence[str], test: Targets) -> dict[str, Floats]:
    """Read what the classifiers of other runs predict for the same test rows, by the name of the folder. Shape (R, K).

    Raises:
        ValueError: If one has predicted nothing, other rows or other classes.
    """
    return {Path(folder).name: _predictions_of_run(Path(folder), test) for folder in folders}


def _predictions_of_run(folder: Path, test: Targets) -> Floats:
    if not (folder / PREDICTIONS).exists():
        raise ValueError(f"compare_with: {folder} has no {PREDICTIONS}; name the output_dir of a finished classifier.")
    predictions, theirs = read_predictions(folder / PREDICTIONS)
    if "fine_tuned" not in predictions or theirs.label_names != test.label_names:
        found = (
            ", ".join(theirs.label_names) if "fine_tuned" in predictions else "no classes of a fine-tuned classifier"
        )
        raise ValueError(f"compare_with: {folder} predicts {found}, and this run {', '.join(test.label_names)}.")
    if not (np.array_equal(theirs.patient_ids, test.patient_ids) and np.array_equal(theirs.labels, test.labels)):
        raise ValueError(
            f"compare_with: {folder} predicts {len(theirs)} rows that are not the {len(test)} test rows of this run. "
            "Train both on the same dataset."
        )
    return predictions["fine_tuned"]


def draw_figures(measured: ClassifierMetrics, targets: Targets, where: str) -> dict[str, Figure]:
    """Draw what the report shows, by file name."""
    names, figures, probabilities = targets.label_names, {}, measured.predictions["fine_tuned"]
    confidence, correct = confidence_and_correctness(targets, probabilities)
    error = measured.calibration.estimates["calibrated/expected_calibration_error"].value
    shown = "no temperature" if np.isnan(error) else f"calibrated: error {error:.3f}"
    counted = "images" if targets.exclusive else "answers"
    title = f"Classifier\n{where}"
    figures["reliability.png"] = reliability_diagrams({shown: (confidence, correct)}, counted, title)
    if targets.exclusive:
        counts = metrics.confusion_counts(targets.classes, probabilities.argmax(1), len(names))
        figures["confusion.png"] = confusion_matrix(counts, names, "class", title)
    return figures
