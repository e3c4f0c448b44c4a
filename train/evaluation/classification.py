"""The figures reported of any classifier, probe or zero-shot: one table for exclusive classes, one for findings."""

from functools import partial

from data_scripts.records import NO_FINDING
from train.evaluation import metrics
from train.evaluation.bootstrap import Estimate, Resampling, patient_bootstrap, undefined_estimate
from train.evaluation.metrics import Array
from train.evaluation.targets import Targets


def exclusive_class_estimates(
    targets: Targets, probabilities: Array, resampling: Resampling, scores: Array | None = None
) -> dict[str, Estimate]:
    """Measure a classifier of classes of which each row has exactly one.

    Args:
        targets: The truth; exclusive labels.
        probabilities: Of each class; the largest is the answer. Shape (N, K), rows sum to 1.
        resampling: How intervals are drawn.
        scores: What `auroc` and `average_precision` rank rows by; None: the probabilities. Shape (N, K).

    Returns:
        `accuracy`, `macro_f1`, `balanced_accuracy`, `minority_recall`, `expected_calibration_error`; for two classes
        also `precision`, `recall`, `f1`, `auroc`, `average_precision` of the finding; else `f1/CLASS` of each.
    """
    truth, predicted, num_classes = targets.classes, probabilities.argmax(1), len(targets.label_names)
    missing = [name for k, name in enumerate(targets.label_names) if not (truth == k).any()]
    reason = f"no row of {_quoted(missing)} in the {targets.split} split"
    estimate = partial(
        patient_bootstrap,
        patient_ids=targets.patient_ids,
        resampling=resampling,
        reason_if_undefined=reason,
    )
    estimates = {
        function.__name__: estimate(partial(function, num_classes=num_classes), [truth, predicted])
        for function in (metrics.accuracy, metrics.macro_f1, metrics.balanced_accuracy, metrics.minority_recall)
    }
    estimates["expected_calibration_error"] = estimate(
        metrics.expected_calibration_error, [probabilities.max(1), predicted == truth]
    )
    by_class = (metrics.precision_by_class, metrics.recall_by_class, metrics.f1_by_class)
    if num_classes != 2:
        for k, name in enumerate(targets.label_names):
            estimates[f"f1/{name}"] = estimate(_of_class(metrics.f1_by_class, k, num_classes), [truth, predicted])
        return estimates
    finding = finding_of_two(targets)
    for function in by_class:
        name = function.__name__.removesuffix("_by_class")
        estimates[name] = estimate(_of_class(function, finding, num_classes), [truth, predicted])
    ranked = [truth == finding, (probabilities if scores is None else scores)[:, finding]]
    estimates["auroc"] = estimate(metrics.auroc, ranked)
    estimates["average_precision"] = estimate(metrics.average_precision, ranked)
    return estimates


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
    """Measure how well scores tell the rows with a finding from those without, finding by finding.

    Args:
        targets: The truth; labels need not exclude each other.
        scores: Higher means more likely present. Shape (N, K).
        answered: Whether the finding is said to be present. Shape (N, K), bool.
        resampling: How intervals are drawn.
        undefined: Columns that have no scores (the training split lacks the class), with the reason.

    Returns:
        `macro_auroc`, `macro_average_precision`, `macro_f1`, `balanced_accuracy`: means over the findings that are
        defined, `No Finding` left out (it is the absence of the others); `macro_auroc_with_no_finding`: the mean over
        all labels; then `auroc/LABEL` and `average_precision/LABEL` of each.
    """
    reasons = _reasons_without_rows(targets) | (undefined or {})
    estimate = partial(
        patient_bootstrap,
        patient_ids=targets.patient_ids,
        resampling=resampling,
    )

    def macro(metric: metrics.Metric, answers: Array, columns: list[int]) -> Estimate:
        kept = [k for k in columns if k not in reasons]
        if not kept:
            return undefined_estimate(len(targets), "; ".join(reasons.values()))
        return estimate(partial(metrics.mean_over_findings, metric), [targets.labels[:, kept], answers[:, kept]])

    estimates = {
        "macro_auroc": macro(metrics.auroc, scores, targets.findings),
        "macro_average_precision": macro(metrics.average_precision, scores, targets.findings),
        "macro_f1": macro(metrics.presence_f1, answered, targets.findings),
        "balanced_accuracy": macro(metrics.presence_balanced_accuracy, answered, targets.findings),
    }
    if NO_FINDING in targets.label_names:
        every_label = list(range(len(targets.label_names)))
        estimates["macro_auroc_with_no_finding"] = macro(metrics.auroc, scores, every_label)
    for k, name in enumerate(targets.label_names):
        for metric in (metrics.auroc, metrics.average_precision):
            estimates[f"{metric.__name__}/{name}"] = (
                undefined_estimate(len(targets), reasons[k])
                if k in reasons
                else estimate(metric, [targets.labels[:, k], scores[:, k]])
            )
    return estimates


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
