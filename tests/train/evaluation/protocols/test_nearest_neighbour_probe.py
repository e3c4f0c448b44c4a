import dataclasses

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from train.evaluation.protocols import nearest_neighbour_probe as module
from train.evaluation.protocols.nearest_neighbour_probe import nearest_neighbour_probe, neighbour_votes


@pytest.mark.parametrize("number", [1, 5, 20])
def test_votes_are_the_probabilities_of_scikit_learn(number):
    rng = np.random.default_rng(0)
    known, queries, classes = rng.normal(size=(80, 5)), rng.normal(size=(30, 5)), rng.integers(0, 3, 80)
    votes = neighbour_votes(known, np.eye(3)[classes], queries, [number, 40])[number]
    reference = KNeighborsClassifier(number, metric="cosine", weights=lambda distances: np.exp((1 - distances) / 0.07))
    np.testing.assert_allclose(votes, reference.fit(known, classes).predict_proba(queries), atol=1e-9)


def test_votes_by_hand():
    known = np.array([[2.0, 0.0], [0.0, 0.1], [-1.0, 0.0]])  # cosines with (1, 0): 1, 0, -1, whatever the length
    labels = np.array([[True, False], [True, True], [False, True]])
    votes = neighbour_votes(known, labels, np.array([[1.0, 0.0]]), [2, 3])
    near, side, far = np.exp(np.array([1, 0, -1]) / 0.07)
    np.testing.assert_allclose(votes[2], [[1, side / (near + side)]])
    np.testing.assert_allclose(votes[3], np.array([[near + side, side + far]]) / (near + side + far))


def test_the_number_of_neighbours_answers_to_the_validation_rows(make_targets, monkeypatch):
    """Classes in tight groups of six ask for few neighbours, a faint difference between two clouds for many."""
    asked = []
    votes = module.neighbour_votes
    monkeypatch.setattr(module, "neighbour_votes", lambda *args: asked.append(args[3]) or votes(*args))
    rng = np.random.default_rng(0)
    groups = {"train": np.repeat(np.arange(40), 6), "validation": np.arange(40), "test": np.arange(40)}
    centres, class_of_group = rng.normal(size=(40, 30)), rng.integers(0, 2, 40)
    tight = {split: centres[of_split] + rng.normal(0, 0.05, (len(of_split), 30)) for split, of_split in groups.items()}
    classes = {split: class_of_group[of_split] for split, of_split in groups.items()}
    targets = make_targets({split: np.eye(2)[of_split] for split, of_split in classes.items()}, ["LBP", "No Finding"])
    nearest_neighbour_probe(tight, targets)
    clouds = {
        split: rng.normal(size=(len(rows), 30)) + 0.25 * (2 * rows[:, None] - 1) for split, rows in classes.items()
    }
    nearest_neighbour_probe(clouds, targets)
    assert asked[0] == [5, 10, 20, 50]
    assert asked[1] == [5]
    assert asked[3][0] >= 20


def test_validation_rows_vote_for_test_rows(make_targets):
    """A test row's double lies in the validation split, and has a label that no training row has."""
    rng = np.random.default_rng(0)
    features = {"train": rng.normal(size=(20, 8)), "validation": rng.normal(size=(10, 8))}
    features["test"] = features["validation"][:1]
    labels = {"train": np.eye(2)[np.zeros(20, int)], "validation": np.eye(2)[[1] + [0] * 9], "test": np.eye(2)[[1]]}
    probabilities = nearest_neighbour_probe(features, make_targets(labels, ["No Finding", "LBP"]))
    assert probabilities[0, 1] > 0.5


def test_test_labels_change_nothing(planted):
    features, targets = planted
    before = nearest_neighbour_probe(features, targets)
    labels = np.random.default_rng(1).permutation(targets["test"].labels)
    after = nearest_neighbour_probe(features, targets | {"test": dataclasses.replace(targets["test"], labels=labels)})
    np.testing.assert_array_equal(before, after)


def test_finds_what_is_planted_and_leaves_out_what_nobody_has(planted):
    features, targets = planted
    for split in ("train", "validation"):
        targets[split].labels[:, 1] = False
    features = {split: rows[:, 2:5] for split, rows in features.items()}
    answers = nearest_neighbour_probe(features, targets)
    present = targets["test"].labels[:, 0]
    assert answers[present, 0].mean() > answers[~present, 0].mean() + 0.3
    assert np.isnan(answers[:, 1]).all()


def test_fewer_training_rows_than_neighbours(make_targets):
    rng = np.random.default_rng(0)
    labels = {split: np.eye(2)[[0, 1, 0]] for split in ("train", "validation", "test")}
    features = {split: rng.normal(size=(3, 4)) for split in labels}
    probabilities = nearest_neighbour_probe(features, make_targets(labels, ["LBP", "No Finding"]))
    np.testing.assert_allclose(probabilities.sum(1), 1)
