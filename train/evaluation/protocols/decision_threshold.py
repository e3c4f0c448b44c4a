"""Decision thresholds chosen on validation patients: what a probability must exceed for a label to be predicted.

A rare label's probability seldom exceeds one half, however well it ranks the rows. Each label's threshold is the one
with the best balanced accuracy on the validation patients, which, unlike F1, does not depend on how frequent the label
is: the choice holds for test patients with another share of it.
"""

from collections.abc import Mapping

import numpy as np

from train.evaluation.statistics.metrics import Array, Floats
from train.evaluation.targets import Targets


def threshold_decisions(probabilities: Mapping[str, Array], targets: Mapping[str, Targets]) -> Floats:
    """Predict the test rows at thresholds chosen on the validation rows.

    A label that all validation rows carry, or none, has no threshold of its own: a finding keeps one half, and an
    exclusive class 1 / K.

    Args:
        probabilities: Splits `validation` and `test`, from one model that was fitted on neither. Shape (N, K).
        targets: By split; the truth of test rows is not used.

    Returns:
        1 where the label is predicted, else 0; NaN where it has no probability. Each row gets one exclusive class: the
        one whose probability exceeds its threshold by the largest factor. Shape (N, K).
    """
    validation, asked = targets["validation"], probabilities["test"]
    num_labels = len(validation.label_names)
    untuned = 1 / num_labels if validation.exclusive else 0.5
    chosen = [
        choose_threshold(probabilities["validation"][:, k], validation.labels[:, k].astype(bool))
        for k in range(num_labels)
    ]
    thresholds = np.where(np.isnan(chosen), untuned, chosen)
    if validation.exclusive:
        return np.eye(num_labels)[(asked / thresholds).argmax(1)]
    return np.where(np.isnan(asked), np.nan, asked > thresholds)


def choose_threshold(probabilities: Array, truth: Array) -> float:
    """Find the threshold with the best balanced accuracy of "present if the probability exceeds it".

    Candidates lie halfway between neighbouring probabilities, and between the outer ones and 0 and 1. Of several best
    the (lower) middle one is taken: the outer ones lose first when patients change.

    Args:
        probabilities: Shape (N,), in [0, 1].
        truth: Whether the label is present. Shape (N,), bool.

    Returns:
        Above 0 and below 1; NaN if the label is present in no row or in all, or a probability is NaN.

    Example:
        >>> choose_threshold(np.array([0.05, 0.1, 0.3, 0.2]), np.array([False, False, True, True]))
        0.15000000000000002
    """
    present, absent = np.sort(probabilities[truth]), np.sort(probabilities[~truth])
    if not len(present) or not len(absent) or np.isnan(probabilities).any():
        return float("nan")
    values = np.unique(np.concatenate([[0.0], probabilities, [1.0]]))
    candidates = (values[1:] + values[:-1]) / 2
    num_missed = np.searchsorted(present, candidates, side="right")
    num_cleared = np.searchsorted(absent, candidates, side="right")
    # Sensitivity + specificity, times both numbers of rows: integers, so that ties are exact.
    score = (len(present) - num_missed) * len(absent) + num_cleared * len(present)
    best = np.flatnonzero(score == score.max())
    return float(candidates[best[(len(best) - 1) // 2]])
