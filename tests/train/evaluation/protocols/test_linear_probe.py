import dataclasses
import math

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from train.evaluation.label_metrics import label_estimates
from train.evaluation.protocols.linear_probe import fit_classifier, logistic_probe
from train.evaluation.statistics.bootstrap import Resampling

FEW = Resampling(100)


def measured(features, targets):
    return label_estimates(targets["test"], logistic_probe(features, targets), FEW)


def with_only(targets, split, label, present):
    """The targets with one label set everywhere in one split."""
    labels = targets[split].labels.copy()
    labels[:, targets[split].label_names.index(label)] = present
    return targets | {split: dataclasses.replace(targets[split], labels=labels)}


def test_finds_a_planted_finding_and_is_at_chance_on_noise(planted):
    features, targets = planted
    estimates = measured(features, targets)
    assert estimates["auroc/bulge"].value > 0.95
    assert estimates["auroc/stenosis"].low < 0.5 < estimates["auroc/stenosis"].high
    macro = (estimates["auroc/bulge"].value + estimates["auroc/stenosis"].value) / 2
    assert estimates["macro_auroc"].value == pytest.approx(macro)
    assert estimates["macro_auroc_with_no_finding"].value == pytest.approx(
        (2 * macro + estimates["auroc/No Finding"].value) / 3
    )


def test_never_sees_test_rows_in_fitting(planted):
    features, targets = planted
    before = logistic_probe(features, targets)
    ruined = np.where(np.arange(80)[:, None] < 40, features["test"], np.random.default_rng(9).normal(5, 50, (80, 12)))
    after = logistic_probe(features | {"test": ruined}, with_only(targets, "test", "bulge", False))
    np.testing.assert_array_equal(before[:40], after[:40])
    assert (before[40:] != after[40:]).any()


def test_is_fitted_on_training_and_validation_with_their_own_statistics(planted):
    features, targets = planted
    classes = {split: split_targets.labels[:, 0].astype(int) for split, split_targets in targets.items()}
    classifier = fit_classifier(features, classes)
    both = np.concatenate([features["train"], features["validation"]])
    scaled = (both - both.mean(0)) / both.std(0)
    truth = np.concatenate([classes["train"], classes["validation"]])
    expected = LogisticRegression(C=classifier[-1].C, max_iter=2000).fit(scaled, truth)
    np.testing.assert_allclose(classifier[-1].coef_, expected.coef_, atol=1e-3)


def test_regularisation_answers_to_the_validation_rows():
    """Features that tell the training rows apart by accident are penalised, those that keep their word are not."""
    rng = np.random.default_rng(0)
    features = {split: rng.normal(size=(200, 400)) for split in ("train", "validation")}
    noise = {split: rng.integers(0, 2, 200) for split in features}
    assert fit_classifier(features, noise)[-1].C <= 1e-2
    signal = {split: (rows[:, 0] > 0).astype(int) for split, rows in features.items()}
    loud = {split: rows * np.r_[1, np.zeros(399)] for split, rows in features.items()}
    assert fit_classifier(loud, signal)[-1].C >= 1


@pytest.mark.parametrize("split", ["train", "test"])
def test_absent_class_gives_nan_with_its_name_and_spares_the_others(planted, split):
    features, targets = planted
    absent = with_only(targets, split, "stenosis", False)
    if split == "train":
        absent = with_only(absent, "validation", "stenosis", False)
    estimates = measured(features, absent)
    assert math.isnan(estimates["auroc/stenosis"].value)
    assert "`stenosis`" in estimates["auroc/stenosis"].reason
    assert estimates["macro_auroc"].value == estimates["auroc/bulge"].value


def test_every_class_absent_is_no_crash(planted):
    features, targets = planted
    for label in targets["test"].label_names:
        targets = with_only(targets, "test", label, False)
    estimates = measured(features, targets)
    assert all(math.isnan(estimate.value) for estimate in estimates.values())


def test_exclusive_classes(make_targets):
    rng = np.random.default_rng(0)
    classes = {split: rng.integers(0, 3, size) for split, size in (("train", 150), ("validation", 60), ("test", 90))}
    features = {split: np.eye(3)[rows] + rng.normal(0, 0.3, (len(rows), 3)) for split, rows in classes.items()}
    targets = make_targets(
        {split: np.eye(3)[rows] for split, rows in classes.items()}, ["mild", "severe", "No Finding"]
    )
    np.testing.assert_allclose(logistic_probe(features, targets).sum(1), 1)
    estimates = measured(features, targets)
    assert estimates["macro_f1"].value > 0.85
    assert {"f1/mild", "balanced_accuracy", "minority_recall", "expected_calibration_error"} <= set(estimates)


def test_two_classes_count_the_finding_as_positive(make_targets):
    labels = {split: np.eye(2)[(np.arange(40) % 4 == 0).astype(int)] for split in ("train", "validation", "test")}
    targets = make_targets(labels, ["No Finding", "LBP"])  # 10 of 40 rows have the finding
    constant = {split: np.zeros((40, 1)) for split in labels}
    estimates = measured(constant, targets)
    assert estimates["accuracy"].value == 0.75  # the majority class, No Finding
    assert estimates["recall"].value == 0
    assert estimates["minority_recall"].value == 0
    assert estimates["macro_f1"].value == pytest.approx(6 / 7 / 2)
    assert estimates["auroc"].value == 0.5


def test_one_class_to_learn_from_is_no_crash(make_targets):
    labels = {split: np.eye(2)[np.zeros(8, int)] for split in ("train", "validation")}
    labels["test"] = np.eye(2)[np.arange(8) % 2]
    targets = make_targets(labels, ["LBP", "No Finding"])
    estimates = measured({split: np.ones((8, 2)) for split in labels}, targets)
    assert estimates["accuracy"].value == 0.5


def test_features_that_are_not_finite_are_refused(planted):
    features, targets = planted
    features["test"][5, 0] = np.inf
    with pytest.raises(ValueError, match=r"1 of 80 feature rows of the test split .* row 5"):
        logistic_probe(features, targets)
