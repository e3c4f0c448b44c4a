"""The statistics of batches are those of their rows, whatever order the pairs come in."""

from collections import Counter

import numpy as np
import pytest
import torch

from train.objectives import OBJECTIVES, build_objective
from train.pretraining.batch_statistics import BatchStatistics, duplicate_rate
from train.pretraining.soft_targets import judge_targets, target_statistics


def some_labels(num_pairs=40, num_classes=5, seed=0):
    return (torch.rand(num_pairs, num_classes, generator=torch.Generator().manual_seed(seed)) < 0.4).float()


def test_duplicates_are_counted_as_by_hand():
    ids = torch.tensor([5, 1, 5, 2, 5, 2, 9])
    assert duplicate_rate(ids) == pytest.approx(5 / 7)
    assert duplicate_rate(torch.arange(4)) == 0


def test_the_means_over_batches_are_of_their_rows_in_any_order():
    random = np.random.default_rng(0)
    texts, patients, labels = random.integers(0, 30, 60), random.integers(0, 9, 60), some_labels(60)
    batches = [torch.from_numpy(random.permutation(60)[:20]) for _ in range(3)]
    means = []
    for order in (slice(None), torch.randperm(20, generator=torch.Generator().manual_seed(0))):
        statistics = BatchStatistics(texts, patients, labels)
        for rows in batches:
            statistics.add(rows[order], 0.5)
        means.append(statistics.take())
        assert statistics.take() == {}
    assert means[0] == pytest.approx(means[1], abs=1e-6)

    def by_hand(ids):
        return np.mean([sum(n for n in Counter(ids[rows].tolist()).values() if n > 1) / 20 for rows in batches])

    assert means[0]["duplicate_text_rate"] == pytest.approx(by_hand(texts))
    assert means[0]["duplicate_patient_rate"] == pytest.approx(by_hand(patients))
    expected = np.mean([target_statistics(labels[rows], 0.5)["target_entropy"] for rows in batches])
    assert means[0]["target_entropy"] == pytest.approx(expected)


def test_targets_of_medclip_are_those_of_its_cosines(tiny_model):
    """Dense targets of four kinds of pairs, among them one without any class."""
    labels = torch.tensor([[1.0, 0, 0], [1, 1, 0], [1, 1, 1], [0, 0, 0]]).repeat(8, 1)
    objective = build_objective("medclip", tiny_model, labels)
    vectors = objective.target_vectors(labels)
    statistics = BatchStatistics(np.arange(32), np.arange(32), vectors, objective.has_label_temperature)
    statistics.add(torch.arange(32), objective.target_temperature(inverse_temperature=14.0))
    lengths = labels.norm(dim=1)
    targets = (labels @ labels.T / (lengths[:, None] * lengths).clamp_min(1)).softmax(dim=1)
    found = statistics.take()
    assert found["target_entropy"] == pytest.approx(-(targets * targets.log()).sum(dim=1).mean().item(), abs=1e-5)
    same = (labels[:, None] == labels).all(dim=2)
    assert found["same_class_mass"] == pytest.approx((targets * same).sum(dim=1).mean().item(), abs=1e-5)
    warning = statistics.target_warning()
    assert warning.startswith("The soft targets are nearly flat") and "--objective lumbarclip has a" in warning


def test_each_objective_knows_the_temperature_of_its_targets(tiny_model):
    labels = torch.eye(2)
    found = {name: build_objective(name, tiny_model, labels).target_temperature(4.0) for name in OBJECTIVES}
    assert {name: value for name, value in found.items() if value is not None} == {"lumbarclip": 0.25, "medclip": 1.0}
    objective = build_objective("lumbarclip", tiny_model, labels, label_temperature=0.5)
    assert objective.target_temperature(4.0) == 0.5


def test_bad_targets_are_told_once_and_only_of_objectives_that_have_them():
    labels = torch.eye(4).repeat(8, 1)
    statistics = BatchStatistics(np.arange(32), np.arange(32), labels)
    rows = torch.arange(32)
    assert statistics.target_warning() is None  # before any batch
    statistics.add(rows, None)
    assert statistics.target_warning() is None and "target_entropy" not in statistics.take()
    statistics.add(rows, 0.3)
    assert statistics.target_warning() is None
    statistics.add(rows, 5.0)
    assert statistics.target_warning() == judge_targets(labels, 5.0).warning
    statistics.add(rows, 5.0)
    assert statistics.target_warning() is None
    plain = BatchStatistics(np.arange(32), np.arange(32), None)
    plain.add(rows, 0.01)
    assert plain.target_warning() is None
