"""How far a predicted mask overlaps the true one, and means of what not every row defines. Pure functions of arrays.

Shapes: H, W an image; K classes; N rows, R resamples; `weights` as in `statistics.metrics`, (..., N).
"""

import numpy as np

from train.evaluation.statistics.metrics import Array, Floats

IGNORED = 255  # value of a mask's pixel that nobody annotated


def overlap_counts(truth: Array, predicted: Array, num_classes: int) -> tuple[Floats, Floats, Floats]:
    """Count the true-positive, false-positive and false-negative pixels of each class.

    Args:
        truth: Classes in [0, K), or `IGNORED`, which is left out. Shape (H, W), integer.
        predicted: Classes in [0, K). Shape (H, W), integer.
        num_classes: K.

    Returns:
        Three counts of shape (K,).

    Raises:
        ValueError: If the masks differ in size, or hold another value.

    Example:
        >>> [counts.tolist() for counts in overlap_counts(np.array([[0, 1, 1, 255]]), np.array([[0, 0, 1, 1]]), 2)]
        [[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
    """
    truth, predicted = np.asarray(truth, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    if truth.shape != predicted.shape:
        raise ValueError(f"The true mask has the size {truth.shape}, the predicted one {predicted.shape}.")
    known = truth != IGNORED
    truth, predicted = truth[known], predicted[known]
    for name, mask in (("true", truth), ("predicted", predicted)):
        if mask.size and not (mask.min() >= 0 and mask.max() < num_classes):
            raise ValueError(f"The {name} mask has the value {mask.max()}; the {num_classes} classes are 0, 1, ...")
    cells = np.bincount(truth * num_classes + predicted, minlength=num_classes**2).astype(np.float64)
    cells = cells.reshape(num_classes, num_classes)
    right = np.diagonal(cells).copy()
    return right, cells.sum(0) - right, cells.sum(1) - right


def dice(true_positives: Array, false_positives: Array, false_negatives: Array) -> Floats:
    """Compute 2 TP / (2 TP + FP + FN); NaN where neither mask shows the class, 0 where only one does.

    Source:
        Dice 1945.

    Example:
        >>> dice(np.array([3.0, 0.0, 0.0]), np.array([1.0, 5.0, 0.0]), np.array([1.0, 0.0, 0.0])).tolist()
        [0.75, 0.0, nan]
    """
    return _share(2 * true_positives, 2 * true_positives + false_positives + false_negatives)


def intersection_over_union(true_positives: Array, false_positives: Array, false_negatives: Array) -> Floats:
    """Compute TP / (TP + FP + FN), the Jaccard index; NaN and 0 as for `dice`.

    Example:
        >>> intersection_over_union(np.array([3.0]), np.array([1.0]), np.array([1.0])).tolist()
        [0.6]
    """
    return _share(true_positives, true_positives + false_positives + false_negatives)


def mean_of_defined(values: Array, weights: Array | None = None) -> Floats:
    """Mean over the rows of each column that are not NaN, then over the columns; NaN if a column has no such row.

    So a class that few images show counts as much as one that all do. Shape (N, K) or, of one class, (N,).

    Example:
        >>> float(mean_of_defined(np.array([[1.0, 0.5], [np.nan, 0.7]])))
        0.8
    """
    columns = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    row_weights = np.ones(len(columns)) if weights is None else np.asarray(weights, dtype=np.float64)
    defined = ~np.isnan(columns)
    sums = row_weights @ np.where(defined, columns, 0.0)
    return _share(sums, row_weights @ defined.astype(np.float64)).mean(-1)


def _share(part: Array, whole: Array) -> Floats:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)
