"""Grade probe: predict an ordinal grade from frozen features by ridge regression.

The regression sees grades as numbers, which fits the squared distance that quadratic kappa punishes. It predicts too
near the mean, so plain rounding would hardly ever give the extreme grades. Cut-points turn its outputs into grades
instead: on the validation patients, which the regression had not seen, each grade comes out as often as it occurs in
training and validation. Then the regression is fitted again on both splits and keeps the cut-points: set on patients
that it has seen, they would be too far apart. A grade beyond all that occur is never predicted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from train.evaluation.statistics import metrics
from train.evaluation.statistics.bootstrap import Estimate, Measure, Resampling, estimates_of
from train.evaluation.statistics.metrics import Array
from train.evaluation.targets import Targets

PENALTY_GRID = tuple(10.0**power for power in range(-1, 6))


@dataclass(frozen=True)
class Grader:
    """A fitted grade probe."""

    regression: Any  # its `predict` gives a number for each row, (N,); here scaler and ridge regression
    cut_points: Array  # outputs above the i-th are graded above i; (grades - 1,), rising

    def predict(self, features: Array) -> Array:
        """Grade indices of rows of features. Shape (N,)."""
        return np.searchsorted(self.cut_points, self.regression.predict(features))


FitGrader = Callable[[Mapping[str, Array], Mapping[str, Array], int], Grader]


def grade_probe(
    features: Mapping[str, Array], targets: Mapping[str, Targets], fit: FitGrader | None = None
) -> Array | None:
    """Fit a probe of grades on features, by split of shape (N, D), and predict the test split.

    Args:
        features: By split.
        targets: By split.
        fit: Makes the probe of features and grade indices by split, and the number of grades; None: `fit_grader`.

    Returns:
        Grade of each test row, -1 where it has none, shape (N,); None if one of the splits has no graded row.
    """
    graded = {split: of_split.grades >= 0 for split, of_split in targets.items()}
    if not all(rows.any() for rows in graded.values()):
        return None
    features = {split: features[split][rows] for split, rows in graded.items()}
    grades = {split: targets[split].grades[rows] for split, rows in graded.items()}
    predicted = np.full(len(targets["test"]), -1)
    grader = (fit or fit_grader)(features, grades, len(targets["test"].grade_names))
    predicted[graded["test"]] = grader.predict(features["test"])
    return predicted


def grade_measures(targets: Targets, predicted: Array) -> dict[str, Measure]:
    """Collect the metrics of predicted grade indices, shape (N,), -1 where none is predicted.

    Returns:
        `quadratic_kappa` and `mean_absolute_error` (in grades); nothing without a row that has both grades.
    """
    graded = (targets.grades >= 0) & (predicted >= 0)
    if not graded.any():
        return {}
    truth, predicted, patient_ids = targets.grades[graded], predicted[graded], targets.patient_ids[graded]
    kappa = partial(metrics.quadratic_kappa, num_classes=len(targets.grade_names))
    reason = "all rows have one grade, and it is predicted for all"
    return {
        "quadratic_kappa": Measure(kappa, [truth, predicted], patient_ids, reason),
        "mean_absolute_error": Measure(metrics.mean, [np.abs(truth - predicted)], patient_ids),
    }


def grade_estimates(
    targets: Targets, predicted: Array, resampling: Resampling, prefix: str = "grade"
) -> dict[str, Estimate]:
    """Estimate the metrics of `grade_measures`, each as `PREFIX_NAME`."""
    estimates = estimates_of(grade_measures(targets, predicted), resampling)
    return {f"{prefix}_{name}": estimate for name, estimate in estimates.items()}


def fit_grader(features: Mapping[str, Array], grades: Mapping[str, Array], num_grades: int) -> Grader:
    """Fit regression and cut-points on the splits `train` and `validation`.

    Features have shape (N, D), grade indices (N,). The ridge penalty is the one with the least squared error on the
    validation rows.
    """
    features = {split: of_split.astype(np.float64) for split, of_split in features.items()}  # single is ill-conditioned

    def fitted(penalty: float, rows: Array, row_grades: Array) -> Pipeline:
        return make_pipeline(StandardScaler(), Ridge(alpha=penalty)).fit(rows, row_grades)

    outputs = [
        fitted(penalty, features["train"], grades["train"]).predict(features["validation"]) for penalty in PENALTY_GRID
    ]
    best = int(np.argmin([((output - grades["validation"]) ** 2).mean() for output in outputs]))
    all_grades = np.concatenate([grades["train"], grades["validation"]])
    regression = fitted(PENALTY_GRID[best], np.concatenate([features["train"], features["validation"]]), all_grades)
    return Grader(regression, cut_points_by_rank(outputs[best], all_grades, num_grades))


def cut_points_by_rank(outputs: Array, grades: Array, num_grades: int) -> Array:
    """Cut the outputs of unseen rows so that each grade comes out as often as it occurs in `grades`.

    Returns:
        Shape (grades - 1,), rising.

    Example:
        >>> cut_points_by_rank(np.array([0.0, 1.0, 2.0, 3.0]), np.array([0, 0, 1, 1]), 3).tolist()
        [1.5, inf]
    """
    shares = np.bincount(grades, minlength=num_grades).cumsum() / len(grades)
    # The cut-point of a grade that never occurs is infinite: at the least or greatest output, rounding would decide.
    outside = np.where(shares <= 0, -np.inf, np.inf)
    cut_points: Array = np.where((shares > 0) & (shares < 1), np.quantile(outputs, shares), outside)[:-1]
    return cut_points
