"""The statistics of a batch equal those of the dense targets, whatever order its pairs come in."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from modeling_lumbarclip.losses_lumbarclip import soft_targets
from train import batch_statistics
from train.batch_statistics import BatchStatistics, duplicate_rate, target_statistics


def some_labels(num_pairs=40, num_classes=5, seed=0):
    return (torch.rand(num_pairs, num_classes, generator=torch.Generator().manual_seed(seed)) < 0.4).float()


@pytest.mark.parametrize("temperature", [0.01, 0.07, 0.5, 1.0, 30.0])
@pytest.mark.parametrize("targets_in_memory", [1, 100, 10**6])
def test_target_statistics_are_those_of_the_dense_targets(temperature, targets_in_memory, monkeypatch):
    monkeypatch.setattr(batch_statistics, "MAX_TARGETS_IN_MEMORY", targets_in_memory)
    labels = some_labels()
    targets = soft_targets(labels, temperature)
    same = (labels[:, None] == labels).all(dim=2)
    statistics = target_statistics(labels, temperature)
    assert statistics["target_entropy"] == pytest.approx(entropy(targets.double(), axis=1).mean(), abs=1e-5)
    assert statistics["same_class_mass"] == pytest.approx((targets * same).sum(dim=1).mean().item(), abs=1e-5)


def test_hard_and_flat_targets_are_the_ends_of_the_scale():
    assert target_statistics(None, 1.0) == {"target_entropy": 0.0, "same_class_mass": 1.0}
    hard = target_statistics(torch.eye(6), 0.01)
    assert hard["target_entropy"] == pytest.approx(0, abs=1e-6) and hard["same_class_mass"] == pytest.approx(1)
    flat = target_statistics(torch.ones(6, 2), 0.07)
    assert flat["target_entropy"] == pytest.approx(math.log(6)) and flat["same_class_mass"] == pytest.approx(1)


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
