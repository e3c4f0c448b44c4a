"""The statistics of batches are those of their rows, whatever order the pairs come in."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from modeling_lumbarclip.losses_lumbarclip import soft_targets as dense_targets
from train.objectives import OBJECTIVES, ObjectiveSettings, TrainingTargets
from train.pretraining import batch_statistics
from train.pretraining.batch_statistics import BatchStatistics, duplicate_rate, judge_targets, target_statistics


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
    objective = OBJECTIVES["medclip"](tiny_model, TrainingTargets(labels=labels))
    vectors = objective.target_vectors(labels)
    statistics = BatchStatistics(np.arange(32), np.arange(32), vectors, "label_temperature" in objective.inputs)
    statistics.add(torch.arange(32), objective.target_temperature(inverse_temperature=14.0))
    lengths = labels.norm(dim=1)
    targets = (labels @ labels.T / (lengths[:, None] * lengths).clamp_min(1)).softmax(dim=1)
    found = statistics.take()
    assert found["target_entropy"] == pytest.approx(-(targets * targets.log()).sum(dim=1).mean().item(), abs=1e-5)
    same = (labels[:, None] == labels).all(dim=2)
    assert found["same_class_mass"] == pytest.approx((targets * same).sum(dim=1).mean().item(), abs=1e-5)
    warning = statistics.target_warning()
    assert warning.startswith("The soft targets are nearly flat") and "--objectives lumbarclip has a" in warning


def test_each_objective_knows_the_temperature_of_its_targets(tiny_model):
    labels = torch.eye(2)
    grades = {"grades": torch.tensor([0, 1]), "grade_names": ("A", "B")}
    others = {"states": labels, "findings": ("a", "b"), "num_counterfactuals": 1, **grades}
    targets = TrainingTargets(labels=labels, classes=labels, **others)
    found = {name: objective(tiny_model, targets).target_temperature(4.0) for name, objective in OBJECTIVES.items()}
    assert {name: value for name, value in found.items() if value is not None} == {"lumbarclip": 0.25, "medclip": 1.0}
    objective = OBJECTIVES["lumbarclip"](tiny_model, targets, ObjectiveSettings(label_temperature=0.5))
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


@pytest.mark.parametrize("temperature", [0.01, 0.07, 0.5, 1.0, 30.0])
@pytest.mark.parametrize("targets_in_memory", [1, 100, 10**6])
def test_target_statistics_are_those_of_the_dense_targets(temperature, targets_in_memory, monkeypatch):
    monkeypatch.setattr(batch_statistics, "MAX_TARGETS_IN_MEMORY", targets_in_memory)
    labels = some_labels()
    targets = dense_targets(labels, temperature)
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


def test_two_even_classes_by_hand():
    """Of 8 pairs 4 are alike: each gives e^(1/τ) to 4 pairs and 1 to 4, so at τ = 1 / ln 3 it gives 3/16 and 1/16."""
    labels = torch.eye(2).repeat(4, 1)
    judgement = judge_targets(labels, 1 / math.log(3))
    assert judgement.own_target == pytest.approx(3 / 16)
    assert judgement.entropy == pytest.approx(0.75 * math.log(16 / 3) + 0.25 * math.log(16))
    assert judgement.num_pairs == 8 and judgement.verdict == "soft" and judgement.warning is None
    assert judge_targets(labels, 0.01).verdict == "soft"  # the four share evenly, however low
    flat = judge_targets(labels, 10.0)
    assert flat.verdict == "flat" and flat.own_target == pytest.approx(math.exp(0.1) / (4 * math.exp(0.1) + 4))
    # The hardest targets these labels allow spread over 4 pairs.
    halfway = (math.log(4) + 0.95 * math.log(8)) / 2
    assert target_statistics(labels, flat.better_temperature)["target_entropy"] == pytest.approx(halfway, abs=1e-4)


def test_pairs_that_share_some_but_not_all_classes_can_have_hard_targets():
    """Pair i has classes i and i + 1 of a ring of 6: overlap 2 with itself, 1 with both neighbours, 0 with three."""
    labels = torch.eye(6) + torch.eye(6).roll(1, dims=1)
    hard = judge_targets(labels, 0.2)
    e = math.exp(5)
    assert hard.own_target == pytest.approx(e * e / (e * e + 2 * e + 3)) and hard.own_target > 0.95
    assert hard.verdict == "hard" and 0.2 < hard.better_temperature < 2
    assert judge_targets(labels, hard.better_temperature).verdict == "soft"
    assert judge_targets(torch.eye(6), 0.01).verdict == "soft"  # none shares a class: nothing is left unused
    with_loners = torch.block_diag(labels, torch.eye(6))  # these do not dilute what the others keep
    assert judge_targets(with_loners, 0.2).own_target == pytest.approx(e * e / (e * e + 2 * e + 9))


@pytest.mark.parametrize("targets_in_memory", [1, 10**6])
def test_the_own_target_is_that_of_the_dense_targets(targets_in_memory, monkeypatch):
    monkeypatch.setattr(batch_statistics, "MAX_TARGETS_IN_MEMORY", targets_in_memory)
    labels = some_labels(30, 9)
    sharing = ((labels @ labels.T > 0).sum(dim=1) > 1) & (labels.sum(dim=1) > 0)
    for temperature in (0.1, 0.5, 3.0):
        own = dense_targets(labels, temperature).diagonal()[sharing]
        assert judge_targets(labels, temperature).own_target == pytest.approx(own.mean().item(), abs=1e-5)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("temperature", [0.02, 50.0])
def test_the_advice_makes_targets_soft(seed, temperature):
    labels = some_labels(24, 12, seed)
    judgement = judge_targets(labels, temperature)
    if judgement.verdict != "soft":
        assert judge_targets(labels, judgement.better_temperature).verdict == "soft"
        shown = float(judgement.warning.split("--label_temperature ")[1].split()[0])
        assert shown == pytest.approx(judgement.better_temperature, rel=0.05)
    assert judgement.verdict == "soft" or temperature < 1 or judgement.verdict == "flat"


def test_warnings_say_what_is_wrong_and_what_to_do():
    flat = judge_targets(torch.eye(4).repeat(8, 1), 5.0)
    assert flat.warning.startswith("The soft targets are nearly flat: their entropy is 3.46 nats of ln 32 = 3.47 at a")
    assert "label temperature of 5," in flat.warning and "--label_temperature 0.36" in flat.warning
    one_in_sixty = torch.eye(2)[[0] * 60 + [1]]
    hopeless = judge_targets(one_in_sixty, 0.07)
    assert hopeless.better_temperature is None and "No temperature makes them sharper" in hopeless.warning
    assert judge_targets(torch.ones(6, 2), 0.07).warning is None  # the trainer refuses labels that are all equal
    ring = torch.eye(6) + torch.eye(6).roll(1, dims=1)
    assert "keeps 99% of its target for itself, as if there were no labels" in judge_targets(ring, 0.2).warning
