import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from train.evaluation.protocols.decision_threshold import choose_threshold, threshold_decisions


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_has_a_better_balanced_accuracy(seed):
    rng = np.random.default_rng(seed)
    truth = rng.random(60) < 0.15
    truth[0] = True
    probabilities = np.round(np.clip(0.1 + 0.1 * truth + rng.normal(0, 0.08, 60), 0, 1), 2)  # with ties
    chosen = balanced_accuracy_score(truth, probabilities > choose_threshold(probabilities, truth))
    every = [balanced_accuracy_score(truth, probabilities > threshold) for threshold in np.arange(-0.005, 1.005, 0.01)]
    assert chosen == pytest.approx(max(every))


@pytest.mark.parametrize(
    ("probabilities", "truth", "threshold"),
    [
        ([0.1, 0.2, 0.6, 0.9], [0, 0, 1, 1], 0.4),  # the middle of the gap
        ([0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1], 0.15),  # 0.15 and 0.35 get three of four right: the lower
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0, 1, 0, 1, 0, 1], 0.35),  # 0.15, 0.35 and 0.55 get four of six right
        ([0.2, 0.2], [0, 1], 0.1),  # nothing to choose by: 0.1 (all) or 0.6 (none), the lower
        ([0.0, 1.0], [0, 1], 0.5),
        ([0.1, 0.3, 0.5, 0.7, 0.9], [0, 1, 0, 1, 1], 0.6),
    ],
)
def test_by_hand(probabilities, truth, threshold):
    assert choose_threshold(np.array(probabilities), np.array(truth, bool)) == pytest.approx(threshold)


@pytest.mark.parametrize("truth", [[0, 0], [1, 1]])
def test_one_kind_of_row_chooses_nothing(truth):
    assert np.isnan(choose_threshold(np.array([0.2, 0.8]), np.array(truth, bool)))


def test_findings_are_answered_each_at_its_own_threshold(make_targets):
    labels = np.array([[0, 0, 1], [0, 1, 0], [1, 1, 0], [1, 0, 0]])
    targets = make_targets(dict.fromkeys(("train", "validation", "test"), labels), ["a", "b", "c"])
    validation = np.array([[0.1, 0.4, np.nan], [0.1, 0.9, np.nan], [0.3, 0.9, np.nan], [0.3, 0.4, np.nan]])
    test = np.array([[0.25, 0.6, np.nan], [0.15, 0.7, np.nan]])  # thresholds 0.2 and 0.65
    decided = threshold_decisions({"validation": validation, "test": test}, targets)
    np.testing.assert_array_equal(decided, [[1, 0, np.nan], [0, 1, np.nan]])


def test_one_of_two_classes_is_answered_where_it_exceeds_its_threshold(make_targets):
    targets = make_targets({split: np.eye(2)[[0, 0, 1]] for split in ("train", "validation", "test")}, ["a", "b"])
    rare = np.array([0.05, 0.1, 0.2])
    asked = np.array([0.14, 0.16, 0.3])
    decided = threshold_decisions(
        {"validation": np.c_[1 - rare, rare], "test": np.c_[1 - asked, asked]}, targets
    )  # threshold of b: 0.15, of a: 0.85
    np.testing.assert_array_equal(decided, np.eye(2)[[0, 1, 1]])


def test_labels_that_validation_patients_do_not_tell_keep_the_untuned_decision(make_targets):
    train = np.array([[1, 1], [0, 1], [0, 0]])
    untold = make_targets({"train": train, "validation": train * [[0, 1]]}, ["a", "b"])
    probabilities = {"validation": np.full((3, 2), 0.2), "test": np.array([[0.45, 0.2], [0.55, 0.2]])}
    np.testing.assert_array_equal(threshold_decisions(probabilities, untold)[:, 0], [0, 1])
    classes = make_targets({"train": np.eye(3), "validation": np.eye(3)[[0, 0]]}, ["a", "b", "c"])
    probabilities = {"validation": np.full((2, 3), 1 / 3), "test": np.array([[0.2, 0.5, 0.3], [0.1, 0.4, 0.5]])}
    np.testing.assert_array_equal(threshold_decisions(probabilities, classes), np.eye(3)[[1, 2]])


def test_test_labels_change_nothing(planted):
    _, targets = planted
    rng = np.random.default_rng(0)
    probabilities = {split: rng.random(targets[split].labels.shape) for split in ("validation", "test")}
    before = threshold_decisions(probabilities, targets)
    targets["test"].labels[:] = ~targets["test"].labels
    np.testing.assert_array_equal(before, threshold_decisions(probabilities, targets))
