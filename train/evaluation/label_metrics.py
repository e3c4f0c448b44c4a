"""The figures reported of any classifier, probe or zero-shot: one table for exclusive classes, one for findings."""

import math
from collections.abc import Mapping
from functools import partial

import numpy as np

from data_scripts.records import NO_FINDING
from train.evaluation.statistics import metrics
from train.evaluation.statistics.bootstrap import Estimate, Resampling, patient_bootstrap
from train.evaluation.statistics.metrics import Array
from train.evaluation.statistics.resampled import Measure
from train.evaluation.targets import Targets


def exclusive_class_estimates(
    targets: Targets, probabilities: Array, resampling: Resampling, scores: Array | None = None
) -> dict[str, Estimate]:
    """Measure a classifier of classes of which each row has exactly one: `exclusive_class_measures`, with intervals."""
    return _estimates(exclusive_class_measures(targets, probabilities, scores), resampling)


def exclusive_class_measures(targets: Targets, probabilities: Array, scores: Array | None = None) -> dict[str, Measure]:
    """Say what the figures of a classifier are computed of, for classes of which each row has exactly one.

    Args:
        targets: The truth; exclusive labels.
        probabilities: Of each class; the largest is the answer. Shape (N, K), rows sum to 1.
        scores: What `auroc` and `average_precision` rank rows by; None: the probabilities. Shape (N, K).

    Returns:
        `accuracy`, `macro_f1`, `balanced_accuracy`, `minority_recall`, `expected_calibration_error`; for two classes
        also `precision`, `recall`, `f1`, `auroc`, `average_precision` of the finding; else `f1/CLASS` of each.
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
    by_class = (metrics.precision_by_class, metrics.recall_by_class, metrics.f1_by_class)
    if num_classes != 2:
        for k, name in enumerate(targets.label_names):
            measures[f"f1/{name}"] = measure(_of_class(metrics.f1_by_class, k, num_classes), [truth, predicted])
        return measures
    finding = finding_of_two(targets)
    for function in by_class:
        name = function.__name__.removesuffix("_by_class")
        measures[name] = measure(_of_class(function, finding, num_classes), [truth, predicted])
    ranked = [truth == finding, (probabilities if scores is None else scores)[:, finding]]
    measures["auroc"] = measure(metrics.auroc, ranked)
    measures["average_precision"] = measure(metrics.average_precision, ranked)
    return measures


def finding_of_two(targets: Targets) -> int:
    """Column of the class that counts as positive among two: the first that is not `No Finding`."""
    return targets.findings[0]


def finding_estimates(
    targets: Targets,
    scores: Array,
    answered: Array,
    resampling: Resampling,
    undefined: dict[int, str] | None = None,
) -> dict[str, Estimate]:
    """Measure how well scores tell rows with a finding from those without: `finding_measures`, with intervals."""
    return _estimates(finding_measures(targets, scores, answered, undefined), resampling)


def finding_measures(
    targets: Targets, scores: Array, answered: Array, undefined: Mapping[int, str] | None = None
) -> dict[str, Measure]:
    """Say what the figures of scores are computed of, for labels that need not exclude each other.

    Args:
        targets: The truth; labels need not exclude each other.
        scores: Higher means more likely present. Shape (N, K).
        answered: Whether the finding is said to be present. Shape (N, K), bool.
        undefined: Columns that have no scores (the training split lacks the class), with the reason.

    Returns:
        `macro_auroc`, `macro_average_precision`, `macro_f1`, `balanced_accuracy`: means over the findings that are
        defined, `No Finding` left out (it is the absence of the others); `macro_auroc_with_no_finding`: the mean over
        all labels; then `auroc/LABEL` and `average_precision/LABEL` of each.
    """
    reasons = _reasons_without_rows(targets) | dict(undefined or {})
    measure = partial(Measure, patient_ids=targets.patient_ids)

    def macro(metric: metrics.Metric, answers: Array, columns: list[int]) -> Measure:
        kept = [k for k in columns if k not in reasons]
        if not kept:
            return _undefined(targets, "; ".join(reasons.values()))
        return measure(partial(metrics.mean_over_findings, metric), [targets.labels[:, kept], answers[:, kept]])

    measures = {
        "macro_auroc": macro(metrics.auroc, scores, targets.findings),
        "macro_average_precision": macro(metrics.average_precision, scores, targets.findings),
        "macro_f1": macro(metrics.presence_f1, answered, targets.findings),
        "balanced_accuracy": macro(metrics.presence_balanced_accuracy, answered, targets.findings),
    }
    if NO_FINDING in targets.label_names:
        every_label = list(range(len(targets.label_names)))
        measures["macro_auroc_with_no_finding"] = macro(metrics.auroc, scores, every_label)
    for k, name in enumerate(targets.label_names):
        for metric in (metrics.auroc, metrics.average_precision):
            measures[f"{metric.__name__}/{name}"] = (
                _undefined(targets, reasons[k])
                if k in reasons
                else measure(metric, [targets.labels[:, k], scores[:, k]])
            )
    return measures


def _estimates(measures: Mapping[str, Measure], resampling: Resampling) -> dict[str, Estimate]:
    return {
        name: patient_bootstrap(
            measure.metric, measure.arrays, measure.patient_ids, resampling, measure.reason_if_undefined
        )
        for name, measure in measures.items()
    }


def _undefined(targets: Targets, reason: str) -> Measure:
    """A figure that no metric could compute: too little is there."""
    return Measure(lambda *_, **__: np.array(math.nan), [targets.patient_ids], targets.patient_ids, reason)


def _reasons_without_rows(targets: Targets) -> dict[int, str]:
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
