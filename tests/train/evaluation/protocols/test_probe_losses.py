import math

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from train.evaluation.protocols import probe_losses
from train.evaluation.protocols.probe_losses import PROBE_LOSSES

COUNTS = [70, 25, 5]


@pytest.fixture
def batch():
    """Logits and one-hot labels of 8 rows of 3 classes."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 3, generator=generator)
    return logits, torch.eye(3)[torch.tensor([0, 0, 0, 1, 2, 1, 0, 2])]


def effective(count):
    return (1 - 0.999**count) / (1 - 0.999)


def plain_softmax_loss(logits, labels, weights, offsets):
    """Mean over rows of -weight of the class · log of its softmax, in double precision."""
    total = 0.0
    for row, one_hot in zip(logits.double().tolist(), labels.tolist(), strict=True):
        adjusted = [logit + offset for logit, offset in zip(row, offsets, strict=True)]
        k = one_hot.index(1.0)
        total -= weights[k] * (adjusted[k] - math.log(sum(math.exp(logit) for logit in adjusted)))
    return total / len(logits)


def plain_sigmoid_loss(logits, labels, present_weights, offsets):
    """Sum over columns of the mean over rows of binary cross-entropy, in double precision."""
    total = 0.0
    for row, row_labels in zip(logits.double().tolist(), labels.tolist(), strict=True):
        for k, (logit, label) in enumerate(zip(row, row_labels, strict=True)):
            probability = 1 / (1 + math.exp(-logit - offsets[k]))
            total -= present_weights[k] * math.log(probability) if label else math.log(1 - probability)
    return total / len(logits)


def weights_of_sum_three():
    inverse = [1 / effective(count) for count in COUNTS]
    return [3 * weight / sum(inverse) for weight in inverse]


@pytest.mark.parametrize(
    ("name", "weights", "offsets"),
    [
        ("paper", [1, 1, 1], [0, 0, 0]),
        ("paper_balanced", weights_of_sum_three(), [0, 0, 0]),
        ("paper_logit_adjusted", [1, 1, 1], [math.log(count / 100) for count in COUNTS]),
    ],
)
def test_losses_of_classes_equal_plain_loops(batch, name, weights, offsets):
    loss = PROBE_LOSSES[name].of_classes(*batch, torch.tensor(COUNTS, dtype=torch.float), 100)
    assert loss.item() == pytest.approx(plain_softmax_loss(*batch, weights, offsets), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "weights", "offsets"),
    [
        ("paper", [1, 1, 1], [0, 0, 0]),
        ("paper_balanced", [effective(100 - count) / effective(count) for count in COUNTS], [0, 0, 0]),
        ("paper_logit_adjusted", [1, 1, 1], [math.log(count / (100 - count)) for count in COUNTS]),
    ],
)
def test_losses_of_findings_equal_plain_loops(batch, name, weights, offsets):
    logits, labels = batch
    labels = labels.clone()
    labels[:3] = 1.0  # findings do not exclude each other
    loss = PROBE_LOSSES[name].of_findings(logits, labels, torch.tensor(COUNTS, dtype=torch.float), 100)
    assert loss.item() == pytest.approx(plain_sigmoid_loss(logits, labels, weights, offsets), rel=1e-5)


def test_weights_reach_those_of_scikit_learn_as_beta_nears_one(monkeypatch, batch):
    """Few rows of many possible ones do not overlap: a class then weighs the inverse of its rows."""
    monkeypatch.setattr(probe_losses, "EFFECTIVE_NUMBER_BETA", 1 - 1e-9)
    numbers = probe_losses.effective_number(torch.tensor(COUNTS, dtype=torch.float))
    balanced = compute_class_weight("balanced", classes=np.arange(3), y=np.repeat(np.arange(3), COUNTS))
    np.testing.assert_allclose((1 / numbers) / (1 / numbers).sum(), balanced / balanced.sum(), rtol=1e-4)


@pytest.mark.parametrize("name", PROBE_LOSSES)
def test_with_classes_of_equal_size_every_loss_is_the_papers(batch, name):
    counts = torch.full((3,), 50.0)
    for form, num_rows in (("of_classes", 150), ("of_findings", 100)):
        loss, paper = (getattr(PROBE_LOSSES[which], form)(*batch, counts, num_rows) for which in (name, "paper"))
        torch.testing.assert_close(loss, paper)


@pytest.mark.parametrize(
    ("name", "weights", "offsets"),
    [
        ("paper", [1, 1, 1], [0, 0, 0]),
        ("paper_balanced", [1, 1, 0], [0, 0, 0]),
        ("paper_logit_adjusted", [1, 1, 1], [math.log(1 / 2), math.log(1 / 2), math.log(1 / 200)]),
    ],
)
def test_a_class_without_a_training_row_has_no_say(batch, name, weights, offsets):
    loss = PROBE_LOSSES[name].of_classes(*batch, torch.tensor([100.0, 100.0, 0.0]), 200)
    assert loss.item() == pytest.approx(plain_softmax_loss(*batch, weights, offsets), rel=1e-5)


def test_two_adjusted_classes_are_an_adjusted_finding(batch):
    """Softmax over (absent, present) with logits (0, f) is the sigmoid of f, the priors included."""
    present, labels = batch[0][:, :1], batch[1][:, :1]
    both, one_hot = torch.cat([0 * present, present], 1), torch.cat([1 - labels, labels], 1)
    adjusted = PROBE_LOSSES["paper_logit_adjusted"]
    torch.testing.assert_close(
        adjusted.of_classes(both, one_hot, torch.tensor([90.0, 10.0]), 100),
        adjusted.of_findings(present, labels, torch.tensor([10.0]), 100),
    )
