"""Metrics as pure functions of arrays, for one weighting of the rows or for thousands at once.

Every metric takes `weights` of shape (..., N), the multiplicity of each row, and returns shape (...): one number
without weights, R numbers with the (R, N) multiplicities of R bootstrap resamples. scikit-learn has the same metrics
for one weighting at a time: a thousand resamples would take minutes instead of seconds. Tests compare each function
with it.

A metric that the rows do not define (a class without a row) is NaN, never 0 or 1.

Shapes: N rows, K classes, F findings, R resamples. Classes are indices in [0, K), shape (N,); probabilities have shape
(N, K), and their rows sum to 1; `positive` and `correct`, shape (N,), are 0/1 or bool.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Floats: TypeAlias = NDArray[np.float64]
Metric: TypeAlias = Callable[..., Floats]


def confusion_counts(truth: Array, predicted: Array, num_classes: int, weights: Array | None = None) -> Floats:
    """Count rows by true class (axis -2) and predicted class (axis -1). Shape (..., K, K).

    Example:
        >>> confusion_counts(np.array([0, 0, 1]), np.array([0, 1, 1]), 2).tolist()
        [[1.0, 1.0], [0.0, 1.0]]
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    cells = np.eye(num_classes**2)[truth * num_classes + predicted]  # (N, K²)
    counts = _weights(weights, len(truth)) @ cells
    return counts.reshape(*counts.shape[:-1], num_classes, num_classes)


def accuracy(truth: Array, predicted: Array, num_classes: int, weights: Array | None = None) -> Floats:
    """Share of rows whose class is predicted."""
    counts = confusion_counts(truth, predicted, num_classes, weights)
    return _ratio(np.trace(counts, axis1=-2, axis2=-1), counts.sum((-2, -1)))


def recall_by_class(truth: Array, predicted: Array, num_classes: int, weights: Array | None = None) -> Floats:
    """Share of each class's rows that are found; NaN for a class without a row. Shape (..., K)."""
    counts = confusion_counts(truth, predicted, num_classes, weights)
    return _ratio(np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1))


def precision_by_class(truth: Array, predicted: Array, num_classes: int, weights: Array | None = None) -> Floats:
    """Share of each class's predictions that are right: 0 if it is never predicted, NaN for a class without a row."""
    counts = confusion_counts(truth, predicted, num_classes, weights)
    right, made = np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-2)
    precision = np.divide(right, made, out=np.zeros_like(right), where=made > 0)
    return np.where(counts.sum(-1) > 0, precision, np.nan)


def f1_by_class(truth: Array, predicted: Array, num_classes: int, weights: Array | None = None) -> Floats:
    """Harmonic mean of precision and recall; NaN for a class without a row. Shape (..., K)."""
    counts = confusion_counts(truth, predicted, num_classes, weights)
    support = counts.sum(-1)
    f1 = _ratio(2 * np.diagonal(counts, axis1=-2, axis2=-1), support + counts.sum(-2))
    return np.where(support > 0, f1, np.nan)


def macro_f1(truth: Array, predicted: Array, num_classes: int, weights: Array | None = None) -> Floats:
    """Mean F1 over all classes; NaN if one of them has no row.

    Example:
        >>> round(float(macro_f1(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), 2)), 4)
        0.7333
    """
    return f1_by_class(truth, predicted, num_classes, weights).mean(-1)


def balanced_accuracy(truth: Array, predicted: Array, num_classes: int, weights: Array | None = None) -> Floats:
    """Mean recall over all classes; NaN if one of them has no row. A constant prediction scores 1 / K."""
    return recall_by_class(truth, predicted, num_classes, weights).mean(-1)


def minority_recall(truth: Array, predicted: Array, num_classes: int, weights: Array | None = None) -> Floats:
    """Recall of the class with the fewest rows in `truth` (at least one), whatever the weights."""
    support = np.bincount(truth, minlength=num_classes)
    minority = int(np.where(support > 0, support, len(truth) + 1).argmin())
    return recall_by_class(truth, predicted, num_classes, weights)[..., minority]


def quadratic_kappa(truth: Array, predicted: Array, num_classes: int, weights: Array | None = None) -> Floats:
    """Cohen's kappa between ordinal grades, disagreement weighted by the squared distance.

    Example:
        >>> round(float(quadratic_kappa(np.array([0, 1, 2, 3]), np.array([0, 1, 2, 2]), 4)), 4)
        0.875
    """
    counts = confusion_counts(truth, predicted, num_classes, weights)
    grades = np.arange(num_classes)
    penalty = (grades[:, None] - grades) ** 2
    expected = counts.sum(-1)[..., :, None] * counts.sum(-2)[..., None, :]
    return 1 - _ratio((penalty * counts).sum((-2, -1)) * counts.sum((-2, -1)), (penalty * expected).sum((-2, -1)))


def auroc(positive: Array, scores: Array, weights: Array | None = None) -> Floats:
    """Area under the ROC curve: the chance that a positive row outscores a negative one, ties counting half.

    NaN without a positive or without a negative row.

    Example:
        >>> float(auroc(np.array([1, 1, 0, 0]), np.array([0.9, 0.4, 0.4, 0.1])))
        0.875
    """
    present, absent = _counts_by_score(positive, scores, weights)
    num_absent = absent.sum(-1)
    below = num_absent[..., None] - absent.cumsum(-1) + absent / 2
    return _ratio((present * below).sum(-1), present.sum(-1) * num_absent)


def average_precision(positive: Array, scores: Array, weights: Array | None = None) -> Floats:
    """Precision averaged over the steps of recall (scikit-learn's definition: no interpolation); NaN as for `auroc`.

    Example:
        >>> round(float(average_precision(np.array([1, 0, 1]), np.array([0.9, 0.5, 0.1]))), 4)
        0.8333
    """
    present, absent = _counts_by_score(positive, scores, weights)
    found, retrieved = present.cumsum(-1), (present + absent).cumsum(-1)
    precision = np.divide(found, retrieved, out=np.zeros_like(found), where=retrieved > 0)
    both = np.where(absent.sum(-1) > 0, present.sum(-1), 0.0)
    return _ratio((present * precision).sum(-1), both)


def mean_over_findings(metric: Metric, positive: Array, predicted: Array, weights: Array | None = None) -> Floats:
    """Mean of a metric over findings, columns of both arrays; NaN if the rows do not define it for one of them.

    Leave an undefined finding out before the call: left out here, a resample would measure other findings than the full
    sample. The metric is called as `metric(positive, predicted, weights=...)` with one column each.
    """
    return np.mean([metric(positive[:, f], predicted[:, f], weights=weights) for f in range(positive.shape[1])], axis=0)


def macro_auroc(positive: Array, scores: Array, weights: Array | None = None) -> Floats:
    """Mean AUROC over findings, the columns of both arrays; NaN if one of them is undefined. Shapes (N, F)."""
    return mean_over_findings(auroc, positive, scores, weights)


def presence_f1(positive: Array, predicted: Array, weights: Array | None = None) -> Floats:
    """F1 of a finding from yes and no, shapes (N,); NaN if it is present in no row."""
    return f1_by_class(positive.astype(int), predicted.astype(int), 2, weights)[..., 1]


def presence_balanced_accuracy(positive: Array, predicted: Array, weights: Array | None = None) -> Floats:
    """Mean of sensitivity and specificity, shapes (N,); NaN unless both yes and no occur in `positive`.

    `predicted` is yes or no, or the share of several predictors that say yes: then it is the mean of their metrics.

    Example:
        >>> float(presence_balanced_accuracy(np.array([1, 1, 0]), np.array([1.0, 0.5, 0.25])))
        0.75
    """
    present = np.asarray(positive, dtype=bool)
    found = np.asarray(predicted, dtype=np.float64)
    row_weights = _weights(weights, len(found))
    sensitivity = _ratio(row_weights @ (present * found), row_weights @ present)
    specificity = _ratio(row_weights @ (~present * (1 - found)), row_weights @ ~present)
    return (sensitivity + specificity) / 2


def expected_calibration_error(
    confidence: Array, correct: Array, num_bins: int = 10, weights: Array | None = None
) -> Floats:
    """Mean distance between the confidence of a classifier, in [0, 1], and its accuracy.

    Rows are put into `num_bins` bins of equal width over [0, 1], each closed on the right (the first on both sides);
    the distances |accuracy - mean confidence| of the bins are averaged by their numbers of rows.

    Source:
        Guo et al., On Calibration of Modern Neural Networks, 2017, equation 3.

    Example:
        >>> round(float(expected_calibration_error(np.array([0.9, 0.9, 0.6, 0.6]), np.array([1, 1, 1, 0]))), 4)
        0.1
    """
    row_weights = _weights(weights, len(confidence))
    in_bin = np.eye(num_bins)[calibration_bins(confidence, num_bins)]  # (N, bins)
    gaps = row_weights @ (in_bin * (correct - confidence)[:, None])
    return _ratio(np.abs(gaps).sum(-1), row_weights.sum(-1))


def calibration_bins(confidence: Array, num_bins: int = 10) -> Array:
    """Find the bin of each confidence, as `expected_calibration_error` defines the bins.

    Example:
        >>> calibration_bins(np.array([0.0, 0.1, 0.11, 1.0])).tolist()
        [0, 0, 1, 9]
    """
    inner_edges = np.linspace(0, 1, num_bins + 1)[1:-1]
    return np.searchsorted(inner_edges, confidence, side="left")


def brier_score(truth: Array, probabilities: Array, weights: Array | None = None) -> Floats:
    """Mean squared distance between class probabilities and the truth, in [0, 2]; in [0, 1] for two classes.

    With two classes only one counts, as usual: half the sum over both.

    Example:
        >>> round(float(brier_score(np.array([1, 0]), np.array([[0.2, 0.8], [0.6, 0.4]]))), 4)
        0.1
    """
    num_classes = probabilities.shape[1]
    distances = ((probabilities - np.eye(num_classes)[truth]) ** 2).sum(1)
    return mean(distances / 2 if num_classes == 2 else distances, weights)


def negative_log_likelihood(truth: Array, probabilities: Array, weights: Array | None = None) -> Floats:
    """Mean of -log(probability of the true class), in nats. A probability of 0 counts as 2.2e-16.

    Example:
        >>> round(float(negative_log_likelihood(np.array([1, 0]), np.array([[0.2, 0.8], [0.6, 0.4]]))), 4)
        0.367
    """
    of_truth = np.take_along_axis(probabilities, truth[:, None], axis=1)[:, 0]
    return mean(-np.log(np.maximum(of_truth, np.finfo(np.float64).eps)), weights)


def mean(values: Array, weights: Array | None = None) -> Floats:
    """Weighted mean of per-row values. Shape (...)."""
    row_weights = _weights(weights, len(values))
    return _ratio(row_weights @ np.asarray(values, dtype=np.float64), row_weights.sum(-1))


def median(values: Array, weights: Array | None = None) -> Floats:
    """Weighted median; the mean of the two middle values when they differ.

    Example:
        >>> float(median(np.array([5.0, 1.0, 2.0, 8.0])))
        3.5
    """
    order = np.argsort(values, kind="stable")
    ordered = np.asarray(values, dtype=np.float64)[order]
    reached = _weights(weights, len(ordered))[..., order].cumsum(-1)
    half = reached[..., -1:] / 2
    last = len(ordered) - 1
    lower = np.minimum((reached < half).sum(-1), last)
    upper = np.minimum((reached <= half).sum(-1), last)
    return (ordered[lower] + ordered[upper]) / 2


def _weights(weights: Array | None, num_rows: int) -> Floats:
    return np.ones(num_rows) if weights is None else np.asarray(weights, dtype=np.float64)


def _ratio(numerator: Array, denominator: Array) -> Floats:
    """Divide, with NaN where there is nothing to divide by."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, dtype=np.float64), denominator)
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)[()]


def _counts_by_score(positive: Array, scores: Array, weights: Array | None) -> tuple[Floats, Floats]:
    """Weights of the present and of the absent rows at each distinct score, highest first. Shapes (..., distinct)."""
    order = np.argsort(-np.asarray(scores), kind="stable")
    ordered_scores, present = np.asarray(scores)[order], np.asarray(positive, dtype=np.float64)[order]
    starts = np.concatenate([[0], np.flatnonzero(np.diff(ordered_scores)) + 1])
    row_weights = _weights(weights, len(order))[..., order]
    present_weights = row_weights * present
    absent_weights = row_weights - present_weights
    if len(starts) == len(order):  # no ties, as usual for probabilities: nothing to add up
        return present_weights, absent_weights
    return np.add.reduceat(present_weights, starts, axis=-1), np.add.reduceat(absent_weights, starts, axis=-1)
