"""Draw the figures of an evaluation."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from datasets import Dataset
from matplotlib.figure import Figure
from numpy.typing import NDArray

from train.evaluation.measure import CALIBRATED, GRADES, HEADLINE
from train.evaluation.predict import Encoded
from train.evaluation.predictions import Predictions, of_labelled_rows
from train.evaluation.protocols.calibration import TARGET_COVERAGE, confidence_and_correctness
from train.evaluation.protocols.conformal import risk_coverage
from train.evaluation.protocols.wordings import measures_by_wording
from train.evaluation.questions import NUM_WORDINGS
from train.evaluation.statistics import metrics
from train.evaluation.statistics.minima import PREDICTIONS_FOR_CURVE
from train.evaluation.statistics.spreads import POLARITY, UNSEEN
from train.evaluation.targets import Targets
from train.reporting.figures.calibration import NUM_BINS, reliability_diagrams, risk_coverage_chart
from train.reporting.figures.gallery import ALIKE, HIT, MISS, image_to_text_gallery, text_to_image_gallery
from train.reporting.figures.plots import (
    confusion_matrix,
    embedding_map,
    interval_chart,
    training_curves,
    wordings_chart,
)
from train.reporting.run_report import GRADE_KAPPAS, GRADED_BY, compared_metrics, describe_dataset, probe_metrics
from train.reporting.tables import readable
from train.reporting.wordings import OVER_FINDINGS

GALLERY_QUERIES, GALLERY_DEPTH = 4, 5


def draw_figures(
    predictions: Predictions,
    targets: Targets,
    encoded: Encoded,
    results: Mapping[str, Any],
    test_rows: Dataset,
    history: list[dict[str, Any]],
    seed: int,
) -> dict[str, Figure]:
    """Draw what the report of `metrics.json` shows of the test rows, by file name.

    The `history` of the training run may be empty. The seed chooses examples and the layout of the map.
    """
    where = describe_dataset(results["dataset"])
    figures = {}
    if comparison := _system_comparison(targets, results, where):
        figures["probe_comparison.png"] = comparison
    if HEADLINE in predictions:
        figures |= _label_figures(*of_labelled_rows(predictions, targets), results, where)
    figures |= _grade_figures(predictions, targets, where)
    figures["image_to_text.png"], figures["text_to_image.png"] = _galleries(encoded, targets, test_rows, where, seed)
    title = f"Embeddings, images and reports each centred (PCA, t-SNE)\n{where}"
    figures["embedding_map.png"] = embedding_map(
        encoded.image_embeds, encoded.text_embeds, *_groups(targets), title, seed
    )
    if history:
        figures["training.png"] = training_curves(history, f"Pretraining on {results['dataset']['name']}")
    return figures


def _grade_figures(predictions: Predictions, targets: Targets, where: str) -> dict[str, Figure]:
    """Draw the confusion of grades, by the probe, and by prompts and fused features where they were predicted."""
    drawn = {"grade_confusion.png": (GRADES, "Grade probe")}
    drawn |= {
        f"grade_confusion_{name}.png": (f"grade_by/{name}", f"Grade by {GRADED_BY[name]}")
        for name in ("prompts", "fusion")
    }
    graded, names, figures = targets.grades >= 0, targets.grade_names, {}
    for file, (predicted, title) in drawn.items():
        if predicted in predictions:
            counts = metrics.confusion_counts(targets.grades[graded], predictions[predicted][graded], len(names))
            figures[file] = confusion_matrix(counts, names, "grade", f"{title}\n{where}")
    return figures


def _label_figures(
    predictions: Predictions, targets: Targets, results: Mapping[str, Any], where: str
) -> dict[str, Figure]:
    """Draw what needs labels."""
    probabilities, figures = predictions[HEADLINE], {}
    counted = "images" if targets.exclusive else "answers"
    if targets.exclusive:
        counts = metrics.confusion_counts(targets.classes, probabilities.argmax(1), len(targets.label_names))
        figures["confusion.png"] = confusion_matrix(counts, targets.label_names, "class", f"Linear probe\n{where}")
    if panels := _reliability(targets, {"expected calibration error": probabilities}):
        figures["reliability.png"] = reliability_diagrams(panels, counted, f"Linear probe\n{where}")
    of_prompts, what = {"calibration error": predictions["zero_shot"]}, "no temperature"
    scaled = results["further"]["calibration/zero_shot"].get("calibrated/expected_calibration_error")
    if scaled and scaled["value"] is not None:
        states = {"before": "zero_shot", "after": f"calibrated/{CALIBRATED['zero_shot']}"}
        of_prompts = {f"{state}: calibration error": predictions[name] for state, name in states.items()}
        what = "temperature scaling"
    if panels := _reliability(targets, of_prompts):
        figures["reliability_zero_shot.png"] = reliability_diagrams(panels, counted, f"Zero-shot, {what}\n{where}")
    if wordings := _wordings(predictions, targets, results, where):
        figures["wordings.png"] = wordings
    if abstention := _abstention(predictions, targets, results, counted, where):
        figures["abstention.png"] = abstention
    return figures


def _system_comparison(targets: Targets, results: Mapping[str, Any], where: str) -> Figure | None:
    """Draw the probe of every system, metric by metric or label by label; None without labels and grades."""
    systems = probe_metrics(results)
    if targets.exclusive:
        rows = compared_metrics(results)
        axis_label, chance = "share, F1 or kappa", None
    else:
        rows = ["macro_auroc", *(f"auroc/{name}" for name in targets.label_names), *GRADE_KAPPAS]
        rows = [row for row in rows if row in results["linear_probe"]]
        axis_label, chance = "AUROC or kappa", 0.5
    if all(of[row]["value"] is None for row in rows for of in systems.values() if row in of):
        return None
    entries = {readable(row): {name: of[row] for name, of in systems.items() if row in of} for row in rows}
    return interval_chart(entries, axis_label, f"Linear probe on frozen features\n{where}", chance)


def _wordings(predictions: Predictions, targets: Targets, results: Mapping[str, Any], where: str) -> Figure | None:
    """Draw zero-shot by single wordings, and the polarity of each class; None if no unseen wording was asked."""
    polarity, together = (results["further"].get(group) for group in (POLARITY, UNSEEN))
    if not polarity or not together:
        return None
    groups = measures_by_wording(predictions, targets).values()
    names = next(iter(groups))
    rows = {metric: metric.partition("/")[2] or readable(metric) for metric in together if metric in names}
    return wordings_chart(
        {words: [of_wording[metric].value() for of_wording in groups] for metric, words in rows.items()},
        {words: together[metric] for metric, words in rows.items()},
        {OVER_FINDINGS.get(name, name.partition("/")[2]): entry for name, entry in polarity.items()},
        "share, F1 or AUROC" if targets.exclusive else "AUROC",
        f"Zero-shot in {NUM_WORDINGS} wordings that no training used\n{where}",
    )


def _reliability(
    targets: Targets, probabilities: Mapping[str, NDArray[Any]]
) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """Write the calibration error behind each name: the panels of `reliability_diagrams`; none without predictions."""
    panels = {}
    for name, of_rows in probabilities.items():
        confidence, correct = confidence_and_correctness(targets, of_rows)
        if not len(confidence):
            continue
        error = float(metrics.expected_calibration_error(confidence, correct, NUM_BINS))
        panels[f"{name} {error:.3f}"] = confidence, correct
    return panels


def _abstention(
    predictions: Predictions, targets: Targets, results: Mapping[str, Any], counted: str, where: str
) -> Figure | None:
    """Draw accuracy of the calibrated prompts and of the paper's probe over the share answered; None if too few."""
    curves, points, num_predictions = {}, {}, 0
    for title, name in {"zero-shot": "zero_shot", "probe": "paper"}.items():
        confidence, correct = confidence_and_correctness(targets, predictions[f"calibrated/{CALIBRATED[name]}"])
        if len(confidence) < 2 * PREDICTIONS_FOR_CURVE:  # the curve would cover less than half of its axis
            continue
        curves[title], num_predictions = risk_coverage(confidence, correct), max(num_predictions, len(confidence))
        estimates = results["further"][f"calibration/{name}"]
        answered = estimates.get("class_conditional/answered")
        accuracy = estimates.get("class_conditional/accuracy_if_answered")
        if answered and accuracy and accuracy["value"] is not None:
            points[f"{title}, sets at {TARGET_COVERAGE:.0%}"] = answered["value"], accuracy["value"]
    if not curves:
        return None
    title = f"Accuracy if the unsure abstain\n{where}"
    return risk_coverage_chart(curves, num_predictions, points, counted, title)


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
        both_labelled = targets.is_labelled[[query, found]].all()
        return ALIKE if both_labelled and (targets.labels[query] == targets.labels[found]).all() else MISS

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
        f"Image to text, {min(GALLERY_DEPTH, len(distinct_rows))} of {len(distinct_rows)} reports\n{where}",
    )
    by_text = text_to_image_gallery(
        [encoded.texts[q] for q in queries],
        [[images[row]["image"] for row in rows] for rows in images_found],
        [[verdict(q, row) for row in rows] for q, rows in zip(queries, images_found, strict=True)],
        f"Text to image, {min(GALLERY_DEPTH, len(targets))} of {len(targets)} images\n{where}",
    )
    return by_image, by_text


def _groups(targets: Targets) -> tuple[NDArray[Any], list[str]]:
    """Group rows by class, or by how many findings they have; with the names of the groups."""
    if targets.exclusive:
        groups, names = targets.classes, list(targets.label_names)
    else:
        groups = np.minimum(targets.labels[:, targets.findings].sum(1), 3)
        names = ["no finding", "1 finding", "2 findings", "3 or more"]
    if targets.is_labelled.all():
        return groups, names
    return np.where(targets.is_labelled, groups, len(names)), [*names, "not labelled"]
