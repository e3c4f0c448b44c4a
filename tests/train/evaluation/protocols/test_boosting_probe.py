import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from train.evaluation.protocols.boosting_probe import MAX_TREES, boosting_grade_probe, boosting_probe, fit_trees
from train.evaluation.protocols.linear_probe import logistic_probe

SIZES = {"train": 400, "validation": 200, "test": 300}


def make_features(seed=0):
    rng = np.random.default_rng(seed)
    return {split: rng.normal(size=(size, 5)) for split, size in SIZES.items()}


def crossed(rows):
    """Present where two features have one sign: no line tells, two cuts do."""
    return rows[:, 0] * rows[:, 1] > 0


@pytest.fixture
def findings(make_targets):
    features = make_features()
    labels = {split: np.c_[crossed(rows), rows[:, 0] > 9, crossed(rows)] for split, rows in features.items()}
    return features, make_targets(labels, ["bulge", "stenosis", "Modic change"])


def test_trees_read_what_no_line_tells_and_what_nobody_has_is_nan(findings):
    features, targets = findings
    probabilities, linear = boosting_probe(features, targets), logistic_probe(features, targets)
    truth = targets["test"].labels[:, 0]
    assert roc_auc_score(truth, probabilities[:, 0]) > 0.9
    assert roc_auc_score(truth, linear[:, 0]) < 0.65
    assert np.isnan(probabilities[:, 1]).all() and not np.isnan(probabilities[:, 2]).any()


def test_exclusive_classes_share_one_probability(make_targets):
    features = make_features()
    labels = {split: np.c_[crossed(rows), ~crossed(rows)] for split, rows in features.items()}
    probabilities = boosting_probe(features, make_targets(labels, ["LBP", "No Finding"]))
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert (probabilities.argmax(1) == np.where(crossed(features["test"]), 0, 1)).mean() > 0.8


def test_the_number_of_trees_is_that_of_the_validation_patients():
    """Where the features tell nothing, more trees only learn the training rows by heart."""
    features = make_features()
    classes = {split: np.random.default_rng(1).integers(0, 2, size) for split, size in SIZES.items()}
    assert fit_trees(features, classes).n_iter_ < MAX_TREES / 4
    classes = {split: crossed(rows).astype(int) for split, rows in features.items()}
    assert fit_trees(features, classes).n_iter_ > MAX_TREES / 2


def test_grades_come_out_as_often_as_they_occur(make_targets):
    features = make_features()
    grades = {split: np.digitize(rows[:, 0] * rows[:, 1], [-0.5, 0.5]) for split, rows in features.items()}
    grades["test"][::3] = -1
    labels = {split: np.ones((size, 1)) for split, size in SIZES.items()}
    targets = make_targets(labels, ["any"], grades, tuple("123"))
    predicted, graded = boosting_grade_probe(features, targets), grades["test"] >= 0
    np.testing.assert_array_equal(predicted == -1, ~graded)
    assert (predicted == grades["test"])[graded].mean() > 0.6
    shares = np.bincount(predicted[graded], minlength=3) / graded.sum()
    np.testing.assert_allclose(shares, np.bincount(grades["train"]) / 400, atol=0.1)


def test_test_rows_and_the_order_of_fitting_change_nothing(findings):
    features, targets = findings
    before = boosting_probe(features, targets)
    after = boosting_probe(features | {"test": features["test"][::-1]}, targets)
    np.testing.assert_array_equal(after, before[::-1])


def test_features_that_are_not_finite_are_named(findings):
    features, targets = findings
    features["train"][3, 2] = np.nan
    with pytest.raises(ValueError, match="1 of 400 feature rows of the train split are not finite.*row 3"):
        boosting_probe(features, targets)
