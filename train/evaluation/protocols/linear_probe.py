"""Linear probe: predict labels from frozen features by logistic regression.

The same probe measures every system: features are standardised, the inverse regularisation strength C is the one with
the least log loss on the validation patients, and the probe with that C is then fitted on training and validation
patients together. Test rows are only predicted.

Cross-validation over training patients cannot choose C: the encoder has been trained on their pairs, so a fold
of them is not new to it, as the test patients are.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from train.evaluation.protocols.probe_inputs import check_features, unlearnable_findings
from train.evaluation.statistics.metrics import Array
from train.evaluation.targets import Targets

REGULARISATION_GRID = tuple(10.0**power for power in range(-4, 3))

Fit = Callable[[Mapping[str, Array], Mapping[str, Array]], Any]


def logistic_probe(features: Mapping[str, Array], targets: Mapping[str, Targets]) -> Array:
    """Fit the probe on frozen features, by split of shape (N, D), and predict the test split.

    Exclusive labels get one multinomial probe; other labels one binary probe each, rows without labels counting as
    negatives of all.

    Returns:
        Probabilities of the test rows; a finding that could not be learned is NaN. Shape (N, K).

    Raises:
        ValueError: If the rows of features and targets differ, or a feature is not finite.
    """
    check_features(features, targets)
    return label_probabilities(features, targets, fit_classifier)


def label_probabilities(features: Mapping[str, Array], targets: Mapping[str, Targets], fit: Fit) -> Array:
    """Predict exclusive labels by one classifier, and other labels by one each; see `logistic_probe`.

    `fit` makes a classifier of scikit-learn from features (N, D) and class indices (N,), both by split.
    """
    probe = _class_probabilities if targets["test"].exclusive else _finding_probabilities
    return probe(features, targets, fit)


def fit_classifier(features: Mapping[str, Array], classes: Mapping[str, Array]) -> Pipeline:
    """Fit a standardised logistic regression on the splits `train` and `validation`; C is chosen on `validation`.

    Features have shape (N, D), class indices (N,). `classes_` of the result lists the classes seen.
    """
    scaler = StandardScaler().fit(features["train"])
    train_features = scaler.transform(features["train"])
    known_classes = np.unique(classes["train"])
    known = np.isin(classes["validation"], known_classes)
    regularisation = 1.0
    if known.any() and len(known_classes) > 1:
        validation_features = scaler.transform(features["validation"][known])
        path = LogisticRegression(max_iter=2000, warm_start=True)  # each C starts from the solution of the last
        losses = []
        for candidate in REGULARISATION_GRID:
            path.set_params(C=candidate).fit(train_features, classes["train"])
            predicted = path.predict_proba(validation_features)
            losses.append(log_loss(classes["validation"][known], predicted, labels=known_classes))
        regularisation = REGULARISATION_GRID[int(np.argmin(losses))]
    final = make_pipeline(StandardScaler(), LogisticRegression(C=regularisation, max_iter=2000))
    return final.fit(
        np.concatenate([features["train"], features["validation"]]),
        np.concatenate([classes["train"], classes["validation"]]),
    )


def _class_probabilities(features: Mapping[str, Array], targets: Mapping[str, Targets], fit: Fit) -> Array:
    test = targets["test"]
    classes = {split: of_split.classes for split, of_split in targets.items()}
    seen = np.unique(np.concatenate([classes["train"], classes["validation"]]))
    probabilities = np.zeros((len(test), len(test.label_names)))
    if len(seen) == 1:  # nothing to learn: the one class is predicted
        probabilities[:, seen] = 1.0
        return probabilities
    classifier = fit(features, classes)
    probabilities[:, classifier.classes_] = classifier.predict_proba(features["test"])
    return probabilities


def _finding_probabilities(features: Mapping[str, Array], targets: Mapping[str, Targets], fit: Fit) -> Array:
    test = targets["test"]
    learned_from = np.concatenate([targets["train"].labels, targets["validation"].labels])
    unlearnable = unlearnable_findings(learned_from, test.label_names)
    probabilities = np.full((len(test), len(test.label_names)), np.nan)
    for k in range(len(test.label_names)):
        if k not in unlearnable:
            present = {split: of_split.labels[:, k].astype(int) for split, of_split in targets.items()}
            probabilities[:, k] = fit(features, present).predict_proba(features["test"])[:, 1]
    return probabilities
