r"""Ordinal probe: predict a grade from frozen features by proportional-odds logistic regression.

$$P(y \le k \mid x) = \sigma(\theta_k - w^\top x), \qquad \theta_0 < \theta_1 < \dots < \theta_{G-2}$$

The ridge probe takes grades for numbers a step apart; this model learns how far apart they are. Features are
standardised, and the penalty on w is the one with the least log loss on the validation patients; the model with it is
then fitted on training and validation patients together. As in the ridge probe, cut-points on w'x give each grade as
often as it occurs: the most probable grade would hardly ever be a rare one.

scikit-learn has no such model; that of statsmodels has no penalty, which hundreds of features need.

Source:
    McCullagh, Regression Models for Ordinal Data, 1980.

Shapes: N rows, D features, G grades.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit
from sklearn.preprocessing import StandardScaler

from train.evaluation.protocols.grade_probe import Grader, cut_points_by_rank, grade_probe
from train.evaluation.statistics.metrics import Array, Floats
from train.evaluation.targets import Targets

PENALTY_GRID = tuple(10.0**power for power in range(-1, 6))
LOG_GAPS = (-15.0, 5.0)  # a step of the search beyond them would overflow


@dataclass(frozen=True)
class ProportionalOdds:
    """A fitted model of the grades that occur in its rows."""

    scaler: StandardScaler
    weights: Floats  # (D,)
    thresholds: Floats  # (G - 1,), rising
    grades: Array  # those that occur, rising; (G,)

    def predict(self, features: Array) -> Floats:
        """How bad each row looks. Shape (N,)."""
        scores: Floats = self.scaler.transform(features) @ self.weights
        return scores

    def probabilities(self, features: Array) -> Floats:
        """Probability of each grade that occurs. Shape (N, G)."""
        at_most = expit(self.thresholds - self.predict(features)[:, None])  # (N, G - 1)
        return np.diff(at_most, prepend=0.0, append=1.0, axis=1)

    def log_loss(self, features: Array, grades: Array) -> float:
        """Mean negative log-likelihood of grades that occur. Shape (N,)."""
        places = np.searchsorted(self.grades, grades)
        return -log_likelihoods(self.predict(features), self.thresholds, places)[0] / len(grades)


def ordinal_probe(features: Mapping[str, Array], targets: Mapping[str, Targets]) -> Array | None:
    """Fit the ordinal probe on features, by split of shape (N, D), and predict the test split, as `grade_probe` does.

    Returns:
        Grade of each test row, -1 where it has none, shape (N,); None if one of the splits has no graded row.
    """
    return grade_probe(features, targets, fit_ordinal_grader)


def fit_ordinal_grader(features: Mapping[str, Array], grades: Mapping[str, Array], num_grades: int) -> Grader:
    """Fit the model and its cut-points on the splits `train` and `validation`, as `fit_grader` does.

    Features have shape (N, D), grade indices (N,). The penalty is the one with the least log loss on the validation
    rows whose grade occurs in training.
    """
    fitted = [fit_proportional_odds(features["train"], grades["train"], penalty) for penalty in PENALTY_GRID]
    known = np.isin(grades["validation"], fitted[0].grades)
    losses = [of.log_loss(features["validation"][known], grades["validation"][known]) for of in fitted]
    best = int(np.argmin(losses)) if known.any() else PENALTY_GRID.index(1.0)
    rows, all_grades = (np.concatenate([of["train"], of["validation"]]) for of in (features, grades))
    model = fit_proportional_odds(rows, all_grades, PENALTY_GRID[best])
    return Grader(model, cut_points_by_rank(fitted[best].predict(features["validation"]), all_grades, num_grades))


def fit_proportional_odds(features: Array, grades: Array, penalty: float) -> ProportionalOdds:
    """Fit the model with `penalty` / 2 times the squared length of w; features (N, D), grade indices (N,)."""
    scaler = StandardScaler().fit(features)
    rows = scaler.transform(features)
    occurring, places = np.unique(grades, return_inverse=True)
    num_gaps = len(occurring) - 2
    if num_gaps < 0:
        return ProportionalOdds(scaler, np.zeros(rows.shape[1]), np.zeros(0), occurring)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        weights, first, log_gaps = np.split(parameters, [rows.shape[1], rows.shape[1] + 1])
        thresholds = first + np.concatenate([[0.0], np.exp(log_gaps).cumsum()])
        log_likelihood, of_scores, of_thresholds = log_likelihoods(rows @ weights, thresholds, places)
        of_gaps = of_thresholds[::-1].cumsum()[::-1]  # a gap moves all thresholds above it
        gradient = np.concatenate([rows.T @ of_scores, of_gaps[:1], of_gaps[1:] * np.exp(log_gaps)])
        gradient[: len(weights)] -= penalty * weights
        return float(penalty / 2 * weights @ weights - log_likelihood), -gradient

    shares = np.bincount(places).cumsum()[:-1] / len(places)
    thresholds = np.log(shares / (1 - shares))  # of the model that knows only how frequent grades are
    start = np.concatenate([np.zeros(rows.shape[1]), thresholds[:1], np.log(np.diff(thresholds))])
    bounds = [(None, None)] * (rows.shape[1] + 1) + [LOG_GAPS] * num_gaps
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 1000}).x
    weights, first, log_gaps = np.split(found, [rows.shape[1], rows.shape[1] + 1])
    return ProportionalOdds(scaler, weights, first + np.concatenate([[0.0], np.exp(log_gaps).cumsum()]), occurring)


def log_likelihoods(scores: Floats, thresholds: Floats, places: Array) -> tuple[float, Floats, Floats]:
    r"""Sum the log-likelihood of grades, with its gradients.

    For thresholds b above and a below the true grade, $\sigma(b) - \sigma(a) = \sigma(b)\,\sigma(-a)\,(1 - e^{a - b})$,
    which does not cancel where both are near 0 or 1.

    Args:
        scores: Shape (N,).
        thresholds: Rising. Shape (G - 1,).
        places: Index of the true grade, in [0, G). Shape (N,).

    Returns:
        The sum, its gradient by score, (N,), and by threshold, (G - 1,).
    """
    bounds = np.concatenate([[-np.inf], thresholds, [np.inf]])
    below, above = bounds[places] - scores, bounds[places + 1] - scores
    gaps = bounds[places + 1] - bounds[places]
    log_likelihood = log_expit(above) + log_expit(-below) + np.log(-np.expm1(-gaps))
    towards_above, towards_below = expit(-above), expit(below)
    of_gaps = np.where(np.isfinite(gaps), 1 / np.expm1(np.minimum(gaps, 700)), 0)
    num_grades = len(bounds) - 1
    of_thresholds: Floats = np.bincount(places, towards_above + of_gaps, num_grades)[:-1].astype(np.float64)
    of_thresholds -= np.bincount(places, towards_below + of_gaps, num_grades)[1:]
    return float(log_likelihood.sum()), towards_below - towards_above, of_thresholds
