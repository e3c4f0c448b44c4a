import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from train.data.batch_sampler import TrainingSet
from train.evaluation.protocols.decision_threshold import threshold_decisions
from train.evaluation.protocols.paper_probe import fit_linear_layer, paper_probe
from train.evaluation.protocols.probe_losses import PROBE_LOSSES
from train.evaluation.statistics import metrics


def plain_probe(features, labels, seed, exclusive):
    """The paper's probe in numpy and double precision: gradients by hand, AdamW written out (Loshchilov 2019)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        start = nn.Linear(features.shape[1], labels.shape[1])
        epochs = [torch.randperm(len(features)).numpy() for _ in range(50)]
    parameters = np.c_[start.weight.detach().double().numpy(), start.bias.detach().double().numpy()]
    first, second, step = np.zeros_like(parameters), np.zeros_like(parameters), 0
    for order in epochs:
        for begin in range(0, len(order), 128):
            rows = order[begin : begin + 128]
            inputs = np.c_[features[rows], np.ones(len(rows))]
            logits = inputs @ parameters.T
            exponentials = np.exp(logits)
            predicted = exponentials / (exponentials.sum(1, keepdims=True) if exclusive else 1 + exponentials)
            gradient = (predicted - labels[rows]).T @ inputs / len(rows)
            step += 1
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            parameters = parameters * (1 - 1e-4 * 1e-4)
            parameters -= 1e-4 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return parameters[:, :-1], parameters[:, -1]


@pytest.mark.parametrize("exclusive", [True, False])
def test_is_fifty_epochs_of_adamw(exclusive):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 6))
    labels = np.eye(3)[rng.integers(0, 3, 300)] if exclusive else (rng.random((300, 3)) < 0.3).astype(float)
    loss = PROBE_LOSSES["paper"].of_classes if exclusive else PROBE_LOSSES["paper"].of_findings
    layer = fit_linear_layer(torch.tensor(features, dtype=torch.float), torch.tensor(labels).float(), loss, seed=3)
    weight, bias = plain_probe(features, labels, 3, exclusive)
    np.testing.assert_allclose(layer.weight.detach().numpy(), weight, atol=2e-5)
    np.testing.assert_allclose(layer.bias.detach().numpy(), bias, atol=2e-5)


def test_answers_are_those_of_the_layer(planted):
    features, targets = planted
    layer = fit_linear_layer(
        torch.tensor(features["train"]).float(),
        torch.tensor(targets["train"].labels).float(),
        PROBE_LOSSES["paper"].of_findings,
        seed=1,
    )
    probe = paper_probe(features, targets, seed=1)
    for split in ("validation", "test"):
        expected = layer(torch.tensor(features[split]).float()).sigmoid().detach()
        np.testing.assert_allclose(probe.probabilities[split], expected, atol=1e-6)


def test_same_seed_same_answers_and_the_global_random_state_is_left_alone(planted):
    features, targets = planted
    torch.manual_seed(5)
    expected_draw = torch.rand(1)
    torch.manual_seed(5)
    first = paper_probe(features, targets, seed=1)
    assert torch.rand(1) == expected_draw
    again, other = paper_probe(features, targets, seed=1), paper_probe(features, targets, seed=2)
    np.testing.assert_array_equal(first.logits["test"], again.logits["test"])
    assert not np.allclose(first.logits["test"], other.logits["test"])


@pytest.mark.parametrize("name", PROBE_LOSSES)
def test_neither_test_nor_validation_rows_influence_the_fit(planted, name):
    features, targets = planted
    before = paper_probe(features, targets, PROBE_LOSSES[name], seed=0)
    rng = np.random.default_rng(1)
    shuffled = targets | {
        split: dataclasses.replace(targets[split], labels=rng.permutation(targets[split].labels))
        for split in ("validation", "test")
    }
    after = paper_probe(features | {"test": features["test"][::-1]}, shuffled, PROBE_LOSSES[name], seed=0)
    np.testing.assert_array_equal(before.logits["test"][::-1], after.logits["test"])
    np.testing.assert_array_equal(before.logits["validation"], after.logits["validation"])


def test_a_finding_without_a_training_row_is_nan_and_spares_the_others(planted):
    features, targets = planted
    labels = targets["train"].labels.copy()
    labels[:, 1] = False
    probe = paper_probe(features, targets | {"train": dataclasses.replace(targets["train"], labels=labels)}, seed=0)
    assert np.isnan(probe.probabilities["test"]).tolist() == [[False, True, False]] * 80


def test_a_class_without_a_training_row_is_never_answered(make_targets):
    rng = np.random.default_rng(0)
    classes = {split: rng.integers(0, 3, 60) for split in ("train", "validation", "test")}
    classes["train"] = classes["train"] % 2
    targets = make_targets({split: np.eye(3)[rows] for split, rows in classes.items()}, ["a", "b", "c"])
    probe = paper_probe({split: rng.normal(size=(60, 4)) for split in classes}, targets, seed=0)
    np.testing.assert_array_equal(probe.probabilities["test"][:, 2], 0)
    np.testing.assert_allclose(probe.probabilities["test"].sum(1), 1)


def test_nothing_to_learn_from_is_no_crash(planted):
    features, targets = planted
    none = dataclasses.replace(targets["train"], labels=np.zeros_like(targets["train"].labels))
    probe = paper_probe(features, targets | {"train": none}, seed=0)
    assert np.isnan(probe.probabilities["test"]).all()


@pytest.mark.parametrize("name", PROBE_LOSSES)
@pytest.mark.parametrize(
    "training_set", [TrainingSet(3), TrainingSet(1, ["upsample"]), TrainingSet(5, ["upsample"], 0.4)]
)
def test_repeated_rows_are_rows_that_occur_several_times(planted, name, training_set):
    """As if the features of each entry of the augmented and upsampled set had been computed."""
    features, targets = planted
    rows = training_set.rows(targets["train"].labels, seed=2)
    assert len(rows) > len(targets["train"])
    many = features | {"train": features["train"][rows]}, targets | {"train": targets["train"].select(rows, "train")}
    expected = paper_probe(*many, PROBE_LOSSES[name], seed=2)
    probe = paper_probe(features, targets, PROBE_LOSSES[name], training_set, seed=2)
    np.testing.assert_array_equal(probe.logits["test"], expected.logits["test"])


@pytest.fixture
def rare(make_targets):
    """A finding in one row of 16, faint in each of 256 features that are positive on average, as a tower's are."""

    def make(exclusive):
        rng = np.random.default_rng(0)
        labels, features = {}, {}
        for split, size in (("train", 640), ("validation", 640), ("test", 640)):
            present = np.arange(size) % 16 == 0
            labels[split] = np.c_[present, ~present] if exclusive else np.c_[present, rng.random(size) < 0.5]
            features[split] = rng.normal(1, 1, size=(size, 256)) + np.outer(present, np.tile([0.4, -0.4], 128))
        return features, make_targets(labels, ["LBP", "No Finding"] if exclusive else ["LBP", "other"])

    return make


def test_the_augmented_set_gives_the_probe_the_steps_to_find_a_rare_class(rare):
    """It does not give the class up: 250 steps on each row once are too few of 1e-4, five times as many are not."""
    features, targets = rare(True)
    present = targets["test"].labels[:, 0]
    recall = {
        training_set: (
            paper_probe(features, targets, training_set=training_set, seed=0).probabilities["test"][present, 0] > 0.5
        ).mean()
        for training_set in (TrainingSet(), TrainingSet(5), TrainingSet(5, ("upsample",)))
    }
    assert recall[TrainingSet()] < 0.1
    assert recall[TrainingSet(5)] > recall[TrainingSet()] + 0.3
    assert recall[TrainingSet(5, ("upsample",))] > recall[TrainingSet(5)]


@pytest.mark.parametrize("exclusive", [True, False])
def test_with_each_row_once_the_papers_probe_misses_a_rare_finding_and_each_correction_finds_it(rare, exclusive):
    features, targets = rare(exclusive)
    present = targets["test"].labels[:, 0]
    probes = {name: paper_probe(features, targets, loss, seed=0) for name, loss in PROBE_LOSSES.items()}

    answers = {name: probe.probabilities["test"][:, 0] > 0.5 for name, probe in probes.items()}
    answers["threshold"] = threshold_decisions(probes["paper"].probabilities, targets)[:, 0] > 0.5
    balanced = {name: float(metrics.presence_balanced_accuracy(present, answer)) for name, answer in answers.items()}
    assert answers["paper"][present].mean() < 0.1
    assert balanced["paper_balanced"] > balanced["paper"] + 0.2
    assert balanced["paper_logit_adjusted"] > balanced["paper"] + 0.2
    # A threshold cannot mend the order of the rows, of which a loss that is busy with the frequency learns less.
    assert balanced["threshold"] > balanced["paper"] + (0.2 if exclusive else 0.05)
