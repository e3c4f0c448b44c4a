"""Grade probe: what a ridge regression reads of an ordinal grade from frozen features.

The regression sees grades as numbers, which fits the squared distance that quadratic kappa punishes. A regularised
regression answers too near the mean, so plain rounding would hardly ever give the extreme grades. Cut-points turn its
answers into grades instead, set where the answers for the validation patients (of whom the regression had seen
nothing) take each grade as often as it occurs in training and validation. Then the regression is fitted again on
training and validation patients together, and keeps the cut-points: set on its answers for patients that it has seen,
they would be too far apart. A grade beyond all that occur is never answered. Test rows are only predicted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from train.evaluation.statistics import metrics
from train.evaluation.statistics.bootstrap import Estimate, Resampling, patient_bootstrap
from train.evaluation.statistics.metrics import Array
from train.evaluation.targets import Targets

PENALTY_GRID = tuple(10.0**power for power in range(-1, 6))


@dataclass(frozen=True)
class Grader:
    """A fitted grade probe.

    Args:
        regression: Scaler and ridge regression.
        cut_points: Answers above the i-th are graded above i. Shape (grades - 1,), rising.
    """

    regression: Pipeline
    cut_points: Array

    def predict(self, features: Array) -> Array:
        """Grade indices of rows of features. Shape (N,)."""
        return np.searchsorted(self.cut_points, self.regression.predict(features))


@dataclass(frozen=True)
class GradeResult:
    """What the grade probe found on the graded rows of the test split, G of them.

    Args:
        estimates: `grade_quadratic_kappa` and `grade_mean_absolute_error` (in grades).
        truth: Shape (G,).
        predicted: Shape (G,).
        patient_ids: Shape (G,).
    """

    estimates: dict[str, Estimate]
    truth: Array
    predicted: Array
    patient_ids: Array


def grade_probe(
    features: Mapping[str, Array], targets: Mapping[str, Targets], resampling: Resampling
) -> GradeResult | None:
    """Fit the grade probe and measure it on the test split.

    Args:
        features: By split, shape (N, D).
        targets: By split, row by row with the features. Rows without a grade are left out.
        resampling: How intervals are drawn.

    Returns:
        The result, or None if one of the splits has no graded row.
    """
    graded = {split: split_targets.grades >= 0 for split, split_targets in targets.items()}
    if not all(rows.any() for rows in graded.values()):
        return None
    features = {split: features[split][rows] for split, rows in graded.items()}
    grades = {split: targets[split].grades[rows] for split, rows in graded.items()}
    patient_ids = targets["test"].patient_ids[graded["test"]]
    num_grades = len(targets["test"].grade_names)

    predicted = fit_grader(features, grades, num_grades).predict(features["test"])
    return grade_result(grades["test"], predicted, patient_ids, num_grades, resampling)


def grade_result(
    truth: Array, predicted: Array, patient_ids: Array, num_grades: int, resampling: Resampling
) -> GradeResult:
    """Measure predicted grades.

    Args:
        truth: Grade indices. Shape (G,).
        predicted: Grade indices. Shape (G,).
        patient_ids: Patient of each row. Shape (G,).
        num_grades: Number of grades on the scale.
        resampling: How intervals are drawn.

    Returns:
        The figures, with what they rest on.
    """
    estimate = partial(
        patient_bootstrap,
        patient_ids=patient_ids,
        resampling=resampling,
        reason_if_undefined="all test rows have one grade, and it is predicted for all",
    )
    estimates = {
        "grade_quadratic_kappa": estimate(partial(metrics.quadratic_kappa, num_classes=num_grades), [truth, predicted]),
        "grade_mean_absolute_error": estimate(metrics.mean, [np.abs(truth - predicted)]),
    }
    return GradeResult(estimates, truth, predicted, patient_ids)


def fit_grader(features: Mapping[str, Array], grades: Mapping[str, Array], num_grades: int) -> Grader:
    """Fit regression and cut-points. Test rows are not looked at.

    Args:
        features: Splits `train` and `validation`, shape (N, D).
        grades: Grade indices of the same splits, shape (N,).
        num_grades: Number of grades on the scale.

    Returns:
        The grader; its ridge penalty is the one with the least squared error on the validation rows.
    """

    def fitted(penalty: float, rows: Array, row_grades: Array) -> Pipeline:
        return make_pipeline(StandardScaler(), Ridge(alpha=penalty)).fit(rows, row_grades)

    answers = [
        fitted(penalty, features["train"], grades["train"]).predict(features["validation"]) for penalty in PENALTY_GRID
    ]
    best = int(np.argmin([((answer - grades["validation"]) ** 2).mean() for answer in answers]))
    all_grades = np.concatenate([grades["train"], grades["validation"]])
    shares = np.bincount(all_grades, minlength=num_grades).cumsum() / len(all_grades)
    # Where a grade never occurs, its cut-point lies beyond all answers: at the least or greatest one, rounding decided.
    outside = np.where(shares <= 0, -np.inf, np.inf)
    cut_points = np.where((shares > 0) & (shares < 1), np.quantile(answers[best], shares), outside)[:-1]
    regression = fitted(PENALTY_GRID[best], np.concatenate([features["train"], features["validation"]]), all_grades)
    return Grader(regression, cut_points)
