"""Boosting probe: predict labels and grades from features that a person chose, by gradient-boosted trees.

A linear probe asks what a representation has made linear, which texture features are not: a referee would read them
with trees. The number of trees is the one with the least loss on the validation patients; the probe with as many is
then fitted on training and validation patients together, as the linear probe is. The rest is fixed.

Source:
    Friedman, Greedy Function Approximation: A Gradient Boosting Machine, 2001; scikit-learn's histogram version.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import log_loss

from train.evaluation.protocols.grade_probe import Grader, cut_points_by_rank, grade_probe
from train.evaluation.protocols.linear_probe import label_probabilities
from train.evaluation.protocols.probe_inputs import check_features
from train.evaluation.statistics.metrics import Array
from train.evaluation.targets import Targets

MAX_TREES = 150
# Small trees and a slow rate: the sets have hundreds of patients, and a hundred features or more.
TREES: Mapping[str, Any] = {
    "learning_rate": 0.05,
    "max_leaf_nodes": 8,
    "max_features": 0.3,
    "l2_regularization": 1.0,
    "early_stopping": False,
    "random_state": 0,
}


def boosting_probe(features: Mapping[str, Array], targets: Mapping[str, Targets]) -> Array:
    """Fit boosted trees on features, by split of shape (N, D), and predict the test split.

    Returns:
        Probabilities of the test rows; a finding that could not be learned is NaN. Shape (N, K).

    Raises:
        ValueError: If the rows of features and targets differ, or a feature is not finite.
    """
    check_features(features, targets)
    return label_probabilities(features, targets, fit_trees)


def boosting_grade_probe(features: Mapping[str, Array], targets: Mapping[str, Targets]) -> Array | None:
    """Predict the grades of the test split as `grade_probe` does, with trees in place of the ridge regression."""
    return grade_probe(features, targets, fit_tree_grader)


def fit_trees(features: Mapping[str, Array], classes: Mapping[str, Array]) -> HistGradientBoostingClassifier:
    """Fit trees on the splits `train` and `validation`, as many as predict class indices (N,) of `validation` best."""
    known_classes = np.unique(classes["train"])
    known = np.isin(classes["validation"], known_classes)
    num_trees = MAX_TREES
    if known.any() and len(known_classes) > 1:
        path = HistGradientBoostingClassifier(max_iter=MAX_TREES, **TREES).fit(features["train"], classes["train"])
        losses = [
            log_loss(classes["validation"][known], predicted, labels=known_classes)
            for predicted in path.staged_predict_proba(features["validation"][known])
        ]
        num_trees = 1 + int(np.argmin(losses))
    rows, all_classes = (np.concatenate([of["train"], of["validation"]]) for of in (features, classes))
    return HistGradientBoostingClassifier(max_iter=num_trees, **TREES).fit(rows, all_classes)


def fit_tree_grader(features: Mapping[str, Array], grades: Mapping[str, Array], num_grades: int) -> Grader:
    """Fit trees to grades as numbers on `train` and `validation`, with the cut-points of `fit_grader`."""
    path = HistGradientBoostingRegressor(max_iter=MAX_TREES, **TREES).fit(features["train"], grades["train"])
    outputs = list(path.staged_predict(features["validation"]))
    best = int(np.argmin([((output - grades["validation"]) ** 2).mean() for output in outputs]))
    rows, all_grades = (np.concatenate([of["train"], of["validation"]]) for of in (features, grades))
    trees = HistGradientBoostingRegressor(max_iter=1 + best, **TREES).fit(rows, all_grades)
    return Grader(trees, cut_points_by_rank(outputs[best], all_grades, num_grades))
