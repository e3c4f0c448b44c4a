"""Linear probe: which labels a logistic regression reads from frozen features.

The same probe measures every system: features are standardised, the inverse regularisation strength C is the one with
the least log loss on the validation patients after fitting on the training patients, and the reported probe is then
fitted on training and validation patients together. Test rows are only predicted.

C is chosen on the validation patients, not by folds over training and validation patients: the encoder has been
trained on the pairs of the training patients, so a fold of them is not new to it, as the test patients are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from train.evaluation.label_metrics import exclusive_class_estimates, finding_estimates
from train.evaluation.protocols.probe_inputs import check_features, unlearnable_findings
from train.evaluation.statistics.bootstrap import DEFAULT_RESAMPLING, Estimate, Resampling
from train.evaluation.statistics.metrics import Array
from train.evaluation.targets import Targets

REGULARISATION_GRID = tuple(10.0**power for power in range(-4, 3))


@dataclass(frozen=True)
class ProbeAnswers:
    """What a probe answers for the test split, before it is measured.

    Args:
        probabilities: Of each label. Shape (N, K); a finding that could not be learned is NaN.
        undefined: Columns that could not be learned, with the reason.
        classifiers: The fitted probes by what they predict: a label's name, or `classes` for exclusive labels.
    """

    probabilities: Array
    undefined: dict[int, str] = field(default_factory=dict)
    classifiers: dict[str, Pipeline] = field(default_factory=dict)


@dataclass(frozen=True)
class ProbeResult:
    """What the probe found on the test split.

    Args:
        estimates: The figures by name.
        probabilities: Of each label. Shape (N, K); a column that could not be learned is NaN.
        classifiers: The fitted probes by what they predict: a label's name, or `classes` for exclusive labels.
    """

    estimates: dict[str, Estimate]
    probabilities: Array
    classifiers: dict[str, Pipeline] = field(default_factory=dict)


def linear_probe(
    features: Mapping[str, Array], targets: Mapping[str, Targets], resampling: Resampling = DEFAULT_RESAMPLING
) -> ProbeResult:
    """Fit probes on frozen features and measure them on the test split.

    Args:
        features: By split, shape (N, D).
        targets: By split, row by row with the features.
        resampling: How intervals are drawn.

    Returns:
        The figures of the test split, with predictions for figures and paired differences.

    Raises:
        ValueError: If the rows of features and targets differ, or a feature is not finite.
    """
    answers, test = logistic_probe(features, targets), targets["test"]
    if test.exclusive:
        estimates = exclusive_class_estimates(test, answers.probabilities, resampling)
    else:
        answered = answers.probabilities > 0.5
        estimates = finding_estimates(test, answers.probabilities, answered, resampling, answers.undefined)
    return ProbeResult(estimates, answers.probabilities, answers.classifiers)


def logistic_probe(features: Mapping[str, Array], targets: Mapping[str, Targets]) -> ProbeAnswers:
    """Fit probes on frozen features and answer the test split.

    Exclusive labels get one multinomial probe; other labels one binary probe each, rows without labels counting as
    negatives of all.

    Args:
        features: By split, shape (N, D); projected or not.
        targets: By split, row by row with the features.

    Returns:
        The answers.

    Raises:
        ValueError: If the rows of features and targets differ, or a feature is not finite.
    """
    check_features(features, targets)
    return _answer_classes(features, targets) if targets["test"].exclusive else _answer_findings(features, targets)


def fit_classifier(features: Mapping[str, Array], classes: Mapping[str, Array]) -> Pipeline:
    """Fit a standardised logistic regression, its C chosen on the validation split. Test rows are not looked at.

    Args:
        features: Splits `train` and `validation`, shape (N, D).
        classes: Class indices of the same splits, shape (N,).

    Returns:
        Scaler and classifier, fitted on both splits. `classes_` lists the classes seen.
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


def _answer_classes(features: Mapping[str, Array], targets: Mapping[str, Targets]) -> ProbeAnswers:
    test = targets["test"]
    classes = {split: split_targets.classes for split, split_targets in targets.items()}
    seen = np.unique(np.concatenate([classes["train"], classes["validation"]]))
    probabilities = np.zeros((len(test), len(test.label_names)))
    if len(seen) == 1:  # nothing to learn: the one class is the answer
        probabilities[:, seen] = 1.0
        return ProbeAnswers(probabilities)
    classifier = fit_classifier(features, classes)
    probabilities[:, classifier.classes_] = classifier.predict_proba(features["test"])
    return ProbeAnswers(probabilities, classifiers={"classes": classifier})


def _answer_findings(features: Mapping[str, Array], targets: Mapping[str, Targets]) -> ProbeAnswers:
    test = targets["test"]
    learned_from = np.concatenate([targets["train"].labels, targets["validation"].labels])
    undefined = unlearnable_findings(learned_from, test.label_names)
    probabilities = np.full((len(test), len(test.label_names)), np.nan)
    classifiers = {}
    for k, name in enumerate(test.label_names):
        if k not in undefined:
            present = {split: split_targets.labels[:, k].astype(int) for split, split_targets in targets.items()}
            classifiers[name] = fit_classifier(features, present)
            probabilities[:, k] = classifiers[name].predict_proba(features["test"])[:, 1]
    return ProbeAnswers(probabilities, undefined, classifiers)
