"""Metrics of a classifier of labels, whichever protocol predicts: one table for exclusive classes, one for findings.

Shapes: N rows, K labels.
"""

import math
from collections.abc import Mapping
from functools import partial

import numpy as np

from data_scripts.records import NO_FINDING
from train.evaluation.statistics import metrics
from train.evaluation.statistics.bootstrap import (
    Estimate,
    Measure,
    Resampling,
    estimates_of,
    paired_difference,
    undefined_estimate,
)
from train.evaluation.statistics.metrics import Array
from train.evaluation.targets import Targets


def label_estimates(targets: Targets, probabilities: Array, resampling: Resampling) -> dict[str, Estimate]:
    """Estimate the metrics of `label_measures`."""
    return estimates_of(label_measures(targets, probabilities), resampling)


def label_measures(
    targets: Targets,
    probabilities: Array,
    *,
    scores: Array | None = None,
    said: Array | None = None,
    unlearned: Mapping[int, str] | None = None,
) -> dict[str, Measure]:
    """Collect the metrics of predicted labels, not computed yet.

    Args:
        targets: The truth.
        probabilities: One for each label; NaN where a finding could not be learned. Shape (N, K).
        scores: What `auroc` and `average_precision` rank rows by; None: the probabilities. Shape (N, K).
        said: Whether a finding is predicted to be present, bool; None: where its probability exceeds one half.
            Exclusive classes take the likeliest. Shape (N, K).
        unlearned: Columns of findings to leave out, with the reason; None: those with NaN.

    Returns:
        The metrics of `exclusive_class_measures` or of `finding_measures`.
    """
    scores = probabilities if scores is None else scores
    if targets.exclusive:
        return exclusive_class_measures(targets, probabilities, scores)
    said = probabilities > 0.5 if said is None else said
    unlearned = unlearned_columns(targets, probabilities) if unlearned is None else unlearned
    return finding_measures(targets, scores, said, unlearned)


def unlearned_columns(targets: Targets, probabilities: Array, folds: Array | None = None) -> dict[int, str]:
    """Find the columns of findings with NaN, which could not be learned; the reason names the `folds`, if any."""
    unlearned: dict[int, str] = {}
    if targets.exclusive:
        return unlearned
    for k in np.flatnonzero(np.isnan(probabilities).any(0)).tolist():
        without = [] if folds is None else np.unique(folds[np.isnan(probabilities[:, k])]).tolist()
        of_folds = f" (fold {', '.join(map(str, without))})" if len(without) else ""
        unlearned[k] = f"the patients to learn `{targets.label_names[k]}` from all have it or all lack it{of_folds}"
    return unlearned


def exclusive_class_measures(targets: Targets, probabilities: Array, scores: Array) -> dict[str, Measure]:
    """Collect the metrics of a classifier of exclusive classes.

    Args:
        targets: The truth; exclusive labels.
        probabilities: One for each class; the likeliest is predicted. Shape (N, K), rows sum to 1.
        scores: What `auroc` and `average_precision` rank rows by. Shape (N, K).

    Returns:
        `accuracy`, `macro_f1`, `balanced_accuracy`, `minority_recall`, `expected_calibration_error`; for two classes
        also `precision`, `recall`, `f1`, `auroc`, `average_precision` of the finding; else `f1/CLASS` and `auroc/CLASS`
        of each, the class against all others, and their mean, `macro_auroc`.
    """
    truth, predicted, num_classes = targets.classes, probabilities.argmax(1), len(targets.label_names)
    missing = [name for k, name in enumerate(targets.label_names) if not (truth == k).any()]
    reason = f"no row of {_quoted(missing)} in the {targets.split} split"
    measure = partial(Measure, patient_ids=targets.patient_ids, reason_if_undefined=reason)
    measures = {
        function.__name__: measure(partial(function, num_classes=num_classes), [truth, predicted])
        for function in (metrics.accuracy, metrics.macro_f1, metrics.balanced_accuracy, metrics.minority_recall)
    }
    measures["expected_calibration_error"] = measure(
        metrics.expected_calibration_error, [probabilities.max(1), predicted == truth]
    )
    if num_classes != 2:
        for k, name in enumerate(targets.label_names):
            measures[f"f1/{name}"] = measure(_of_class(metrics.f1_by_class, k, num_classes), [truth, predicted])
            measures[f"auroc/{name}"] = measure(metrics.auroc, [truth == k, scores[:, k]])
        measures["macro_auroc"] = measure(metrics.macro_auroc, [np.eye(num_classes, dtype=bool)[truth], scores])
        return measures
    finding = targets.findings[0]  # the first class that is not `No Finding` is the positive one
    for function in (metrics.precision_by_class, metrics.recall_by_class, metrics.f1_by_class):
        name = function.__name__.removesuffix("_by_class")
        measures[name] = measure(_of_class(function, finding, num_classes), [truth, predicted])
    ranked = [truth == finding, scores[:, finding]]
    measures["auroc"] = measure(metrics.auroc, ranked)
    measures["average_precision"] = measure(metrics.average_precision, ranked)
    return measures


def finding_measures(targets: Targets, scores: Array, said: Array, undefined: Mapping[int, str]) -> dict[str, Measure]:
    """Collect the metrics of labels that need not exclude each other.

    Args:
        targets: The truth.
        scores: Higher means more likely present. Shape (N, K).
        said: Whether the finding is predicted to be present. Shape (N, K), bool.
        undefined: Columns without scores, with the reason.

    Returns:
        `macro_auroc`, `macro_average_precision`, `macro_f1`, `balanced_accuracy`: means over the defined findings
        without `No Finding`, the absence of the others; `macro_auroc_with_no_finding`: the mean over all labels; then
        `auroc/LABEL` and `average_precision/LABEL` of each.
    """
    reasons = reasons_without_rows(targets) | dict(undefined)
    measure = partial(Measure, patient_ids=targets.patient_ids)

    def macro(metric: metrics.Metric, predicted: Array, columns: list[int]) -> Measure:
        kept = [k for k in columns if k not in reasons]
        if not kept:
            return undefined_measure(targets, "; ".join(reasons.values()))
        return measure(partial(metrics.mean_over_findings, metric), [targets.labels[:, kept], predicted[:, kept]])

    measures = {
        "macro_auroc": macro(metrics.auroc, scores, targets.findings),
        "macro_average_precision": macro(metrics.average_precision, scores, targets.findings),
        "macro_f1": macro(metrics.presence_f1, said, targets.findings),
        "balanced_accuracy": macro(metrics.presence_balanced_accuracy, said, targets.findings),
    }
    if NO_FINDING in targets.label_names:
        measures["macro_auroc_with_no_finding"] = macro(metrics.auroc, scores, list(range(scores.shape[1])))
    for k, name in enumerate(targets.label_names):
        for metric in (metrics.auroc, metrics.average_precision):
            defined = measure(metric, [targets.labels[:, k], scores[:, k]])
            measures[f"{metric.__name__}/{name}"] = undefined_measure(targets, reasons[k]) if k in reasons else defined
    return measures


def label_difference(targets: Targets, ours: Array, theirs: Array, resampling: Resampling) -> dict[str, Estimate]:
    """Measure how much better one system predicts labels than another, on the same resampled patients.

    Args:
        targets: The truth.
        ours: Probabilities of exclusive labels; otherwise what ranks the rows, label by label; NaN where a label could
            not be learned. Shape (N, K).
        theirs: The same of the other system.
        resampling: How intervals are drawn.

    Returns:
        `macro_f1` (exclusive labels) or `macro_auroc` (findings that are learned, present and absent).
    """
    if targets.exclusive:
        metric = partial(metrics.macro_f1, num_classes=len(targets.label_names))
        arrays, others = ([targets.classes, one.argmax(1)] for one in (ours, theirs))
        return {"macro_f1": paired_difference(metric, arrays, others, targets.patient_ids, resampling)}
    undefined = reasons_without_rows(targets) | unlearned_columns(targets, ours)
    defined = [k for k in targets.findings if k not in undefined]
    if not defined:
        return {"macro_auroc": undefined_estimate(len(targets), "no finding is learned, present and absent")}
    arrays, others = ([targets.labels[:, defined], one[:, defined]] for one in (ours, theirs))
    return {"macro_auroc": paired_difference(metrics.macro_auroc, arrays, others, targets.patient_ids, resampling)}


def undefined_measure(targets: Targets, reason: str) -> Measure:
    """Make a metric that is not defined, for this reason."""
    return Measure(lambda *_, **__: np.array(math.nan), [targets.patient_ids], targets.patient_ids, reason)


def reasons_without_rows(targets: Targets) -> dict[int, str]:
    """Columns whose AUROC the split does not define, each with its reason."""
    positives = targets.labels.sum(0)
    return {
        k: f"{_quoted([name])} has {positives[k]} positive rows of {len(targets)} in the {targets.split} split"
        for k, name in enumerate(targets.label_names)
        if positives[k] in (0, len(targets))
    }


def _of_class(function: metrics.Metric, index: int, num_classes: int) -> metrics.Metric:
    def of_class(truth: Array, predicted: Array, weights: Array | None = None) -> metrics.Floats:
        return function(truth, predicted, num_classes, weights)[..., index]

    return of_class


def _quoted(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
