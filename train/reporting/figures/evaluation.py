"""Which figures an evaluation draws, from what was measured."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from matplotlib.figure import Figure
from numpy.typing import NDArray

from train.evaluation.measure import CALIBRATED, GRADES, HEADLINE
from train.evaluation.predict import Encoded
from train.evaluation.predictions import Predictions
from train.evaluation.protocols.calibration import TARGET_COVERAGE, confidence_and_correctness
from train.evaluation.protocols.conformal import risk_coverage
from train.evaluation.statistics import metrics
from train.evaluation.targets import Targets
from train.reporting.figures.calibration import (
    reliability_before_and_after,
    reliability_diagram,
    risk_coverage_chart,
)
from train.reporting.figures.gallery import ALIKE, HIT, MISS, image_to_text_gallery, text_to_image_gallery
from train.reporting.figures.plots import (
    confusion_matrix,
    embedding_map,
    interval_chart,
    training_curves,
)
from train.reporting.run_report import MODEL, SYSTEM_NAMES, compared_metrics, describe_dataset
from train.reporting.tables import readable

GALLERY_QUERIES, GALLERY_DEPTH = 4, 5
CALIBRATION_BINS = 10


@dataclass(frozen=True)
class CaptionedFigure:
    """A figure and the sentence that stands for it where it is not seen."""

    figure: Figure
    caption: str


def draw_figures(
    predictions: Predictions,
    targets: Targets,
    encoded: Encoded,
    results: Mapping[str, Any],
    test_rows: Dataset,
    history: list[dict[str, Any]],
    seed: int,
) -> dict[str, CaptionedFigure]:
    """Draw what the report shows.

    Args:
        predictions: Of the test rows.
        targets: Their truth.
        encoded: What the model makes of them.
        results: The content of `metrics.json`.
        test_rows: Of the test split, with the column `image`.
        history: Logged updates of the training run; empty when it is not known.
        seed: Of the choice of examples and the layout of the map.

    Returns:
        Figures by file name, in the order of the report.
    """
    where = describe_dataset(results["dataset"])
    figures = {
        "probe_comparison.png": CaptionedFigure(
            system_comparison(targets, results, where), "Linear probe, all systems"
        ),
    }
    probabilities = predictions[HEADLINE]
    if targets.exclusive:
        figures["confusion.png"] = CaptionedFigure(
            confusion_matrix(
                metrics.confusion_counts(targets.classes, probabilities.argmax(1), len(targets.label_names)),
                targets.label_names,
                "class",
                f"Linear probe\n{where}",
            ),
            "Confusion matrix of the linear probe",
        )
    figures["reliability.png"] = CaptionedFigure(
        _reliability(targets, probabilities, where), "Reliability of the linear probe"
    )
    figures |= _calibration_figures(predictions, targets, results, where)
    if GRADES in predictions:
        graded = targets.grades >= 0
        counts = metrics.confusion_counts(targets.grades[graded], predictions[GRADES][graded], len(targets.grade_names))
        figures["grade_confusion.png"] = CaptionedFigure(
            confusion_matrix(counts, targets.grade_names, "grade", f"Grade probe\n{where}"),
            "Confusion matrix of the grade probe",
        )
    by_image, by_text = _galleries(encoded, targets, test_rows, where, seed)
    figures["image_to_text.png"] = CaptionedFigure(by_image, "Images and the reports found for them")
    figures["text_to_image.png"] = CaptionedFigure(by_text, "Reports and the images found for them")
    groups, names = _groups(targets)
    figures["embedding_map.png"] = CaptionedFigure(
        embedding_map(
            encoded.image_embeds,
            encoded.text_embeds,
            groups,
            names,
            f"Embeddings, images and reports each centred (PCA, t-SNE)\n{where}",
            seed,
        ),
        "Map of the embeddings",
    )
    if history:
        figures["training.png"] = CaptionedFigure(
            training_curves(history, f"Pretraining on {results['dataset']['name']}"), "Training curves"
        )
    return figures


def system_comparison(targets: Targets, results: Mapping[str, Any], where: str) -> Figure:
    """Draw the probe of every system, metric by metric or label by label.

    Args:
        targets: What was measured on.
        results: The content of `metrics.json`: `linear_probe` and `baselines`.
        where: What was measured on, in words.

    Returns:
        The figure.
    """
    systems = {MODEL: results["linear_probe"]} | {
        SYSTEM_NAMES[name]: entry["linear_probe"] for name, entry in results["baselines"].items()
    }
    if targets.exclusive:
        rows = compared_metrics(results)
        axis_label, chance = "share, F1 or kappa", None
    else:
        rows = ["macro_auroc", *(f"auroc/{targets.label_names[k]}" for k in range(len(targets.label_names)))]
        rows += ["grade_quadratic_kappa"] if "grade_quadratic_kappa" in results["linear_probe"] else []
        axis_label, chance = "AUROC or kappa", 0.5
    entries = {
        readable(row): {system: figures[row] for system, figures in systems.items() if row in figures} for row in rows
    }
    return interval_chart(entries, axis_label, f"Linear probe on frozen features\n{where}", chance)


def _reliability(targets: Targets, probabilities: NDArray[Any], where: str) -> Figure:
    """Of the predicted class; of findings that exclude nothing, every yes-no answer counts."""
    if targets.exclusive:
        confidence, correct = probabilities.max(1), probabilities.argmax(1) == targets.classes
    else:
        learned = ~np.isnan(probabilities).any(0)
        present = probabilities[:, learned].ravel()
        confidence = np.maximum(present, 1 - present)
        correct = (present > 0.5) == targets.labels[:, learned].ravel()
    error = float(metrics.expected_calibration_error(confidence, correct, CALIBRATION_BINS))
    bins = metrics.calibration_bins(confidence, CALIBRATION_BINS)
    counted = "images" if targets.exclusive else "answers"
    subtitle = f"expected calibration error {error:.3f}"
    return reliability_diagram(confidence, correct, bins, CALIBRATION_BINS, counted, subtitle, f"Linear probe\n{where}")


def _calibration_figures(
    predictions: Predictions, targets: Targets, results: Mapping[str, Any], where: str
) -> dict[str, CaptionedFigure]:
    """Reliability of the prompts before and after scaling; accuracy of prompts and paper's probe where few abstain."""
    panels, curves, points = {}, {}, {}
    for state, name in {"before": "zero_shot", "after": f"calibrated/{CALIBRATED['zero_shot']}"}.items():
        confidence, correct = confidence_and_correctness(targets, predictions[name])
        error = float(metrics.expected_calibration_error(confidence, correct, CALIBRATION_BINS))
        bins = metrics.calibration_bins(confidence, CALIBRATION_BINS)
        panels[f"{state}: calibration error {error:.3f}"] = confidence, correct, bins
    for title, name in {"zero-shot": "zero_shot", "probe": "paper"}.items():
        confidence, correct = confidence_and_correctness(targets, predictions[f"calibrated/{CALIBRATED[name]}"])
        curves[title] = risk_coverage(confidence, correct)
        estimates = results["further"][f"calibration/{name}"]
        answered = estimates.get("class_conditional/answered")
        accuracy = estimates.get("class_conditional/accuracy_if_answered")
        if answered and accuracy and accuracy["value"] is not None:
            points[f"{title}, sets at {TARGET_COVERAGE:.0%}"] = answered["value"], accuracy["value"]
    counted = "images" if targets.exclusive else "answers"
    return {
        "reliability_zero_shot.png": CaptionedFigure(
            reliability_before_and_after(panels, CALIBRATION_BINS, counted, f"Zero-shot, temperature scaling\n{where}"),
            "Reliability of the prompts before and after temperature scaling",
        ),
        "abstention.png": CaptionedFigure(
            risk_coverage_chart(curves, len(targets), points, counted, f"Accuracy if the unsure abstain\n{where}"),
            "Accuracy where the least certain images are not answered",
        ),
    }


def _galleries(encoded: Encoded, targets: Targets, test_rows: Dataset, where: str, seed: int) -> tuple[Figure, Figure]:
    """Search the test split for a few rows of different patients, both ways."""
    images = test_rows.with_format(None)
    order = np.random.default_rng(seed).permutation(len(targets))
    _, first_of_patient = np.unique(targets.patient_ids[order], return_index=True)
    queries = order[np.sort(first_of_patient)][:GALLERY_QUERIES]
    distinct_rows = np.array(list({text: row for row, text in reversed(list(enumerate(encoded.texts)))}.values()))

    def verdict(query: int, found: int) -> str:
        if encoded.texts[query] == encoded.texts[found]:
            return HIT
        return ALIKE if (targets.labels[query] == targets.labels[found]).all() else MISS

    def best(scores: NDArray[Any], rows: NDArray[Any]) -> list[int]:
        return [int(row) for row in rows[np.argsort(-scores, kind="stable")[:GALLERY_DEPTH]]]

    texts_found = [best(encoded.text_embeds[distinct_rows] @ encoded.image_embeds[q], distinct_rows) for q in queries]
    all_rows = np.arange(len(targets))
    images_found = [best(encoded.image_embeds @ encoded.text_embeds[q], all_rows) for q in queries]
    by_image = image_to_text_gallery(
        [images[int(q)]["image"] for q in queries],
        [encoded.texts[q] for q in queries],
        [[encoded.texts[row] for row in rows] for rows in texts_found],
        [[verdict(q, row) for row in rows] for q, rows in zip(queries, texts_found, strict=True)],
        f"Image to text, {GALLERY_DEPTH} of {len(distinct_rows)} reports\n{where}",
    )
    by_text = text_to_image_gallery(
        [encoded.texts[q] for q in queries],
        [[images[row]["image"] for row in rows] for rows in images_found],
        [[verdict(q, row) for row in rows] for q, rows in zip(queries, images_found, strict=True)],
        f"Text to image, {GALLERY_DEPTH} of {len(targets)} images\n{where}",
    )
    return by_image, by_text


def _groups(targets: Targets) -> tuple[NDArray[Any], list[str]]:
    """One colour a row: its class, or how many findings it has."""
    if targets.exclusive:
        return targets.classes, list(targets.label_names)
    num_findings = targets.labels[:, targets.findings].sum(1)
    return np.minimum(num_findings, 3), ["no finding", "1 finding", "2 findings", "3 or more"]
