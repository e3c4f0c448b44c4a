"""Calibrate a fine-tuned classifier on validation patients, and measure it on test patients."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from modeling_lumbarclip import LumbarCLIPForImageClassification, LumbarCLIPImageProcessor
from train.checkpoints.checkpoint import CHECKPOINT
from train.checkpoints.loading import find_checkpoint, load_parts, load_processor
from train.classification.arguments import FinetuneClassificationArguments
from train.classification.data import ClassificationData, LabelledImages
from train.data.provenance import DataFacts
from train.evaluation.checkpoint_scope import measure_scope
from train.evaluation.features import tower_features
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
from train.reporting.measured_run import count_epochs, describe_measured, write_measured
from train.reporting.run_report import describe_dataset
from train.training.run_folder import read_start


@torch.inference_mode()
def predict_logits(model: nn.Module, images: LabelledImages, batch_size: int) -> Floats:
    """Compute the logits of all images of a split. Shape (R, K), float64."""
    model.eval()
    device = next(model.parameters()).device
    logits = []
    for start in range(0, len(images), batch_size):
        rows = [(0, row) for row in range(start, min(start + batch_size, len(images)))]
        pixels = images.__getitems__(rows)["pixel_values"].to(device)
        logits.append(model(pixel_values=pixels).logits.float().cpu().numpy())
    return np.concatenate(logits)


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

    def features_of(of_model: LumbarCLIPForImageClassification, split: str) -> Array:
        return tower_features(of_model, images[split].images, image_processor, args.batch_size)

    temperatures = np.array(model.config.class_temperatures)
    measured_splits = ("validation", "test")
    measured = measure_classifier(
        {split: predict_logits(model, images[split], args.batch_size) * temperatures for split in measured_splits},
        {split: features_of(start, split) for split in images},
        data.targets,
        Resampling(args.num_resamples, args.seed),
        data.is_grade,
        others,
    )
    test = data.targets["test"]
    results: dict[str, Any] = {
        "target": args.target,
        "by_system": {name: as_entries(entries) for name, entries in measured.metrics.items()},
        "difference": as_entries(measured.difference),
        "mcnemar": measured.mcnemar,
        "patients": as_entries(measured.patients),
        "calibration": as_entries(measured.calibration.estimates),
        "class_temperatures": dict(zip(data.class_names, temperatures.tolist(), strict=True)),
        "scope": measure_scope(model, features_of(model, "test"), np.asarray(test.patient_ids)),
        "training": count_epochs(output_dir),
        **describe_measured(
            model,
            data.rows["test"],
            facts,
            name=Path(args.dataset).name,
            start=read_start(output_dir),
            labels=count_labels(test),
        ),
    }
    figures = draw_figures(measured, test, describe_dataset(results["dataset"]))
    rows = {"row": np.arange(len(test)), "fold": np.zeros(len(test), dtype=int)}
    write = partial(
        write_predictions,
        predictions=rows | measured.predictions,
        targets=test,
        sources=data.rows["test"]["source"][:],
    )
    write_measured(output_dir, results, classifier_report(results, figures), figures, write)
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
