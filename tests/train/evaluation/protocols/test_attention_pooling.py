import dataclasses

import numpy as np
import pytest
import torch

from train.evaluation.label_metrics import label_estimates
from train.evaluation.protocols.attention_pooling import GatedAttention, attention_pooling
from train.evaluation.protocols.linear_probe import logistic_probe
from train.evaluation.protocols.patient_level import mean_over_patients, patient_measures, patient_targets
from train.evaluation.statistics.bootstrap import Resampling
from train.evaluation.targets import Targets

ROWS = 6
FEW = Resampling(20)


@pytest.fixture(scope="module")
def one_of_six():
    """Every patient has six slices. Of a patient with the finding, one slice is moved along the first feature, and
    marked by the second; the first feature of all other slices is loud noise that hides it in the mean."""
    rng = np.random.default_rng(0)
    features, targets = {}, {}
    for split, num_patients in {"train": 150, "validation": 50, "test": 100}.items():
        sick = rng.random(num_patients) < 0.5
        rows = rng.normal(size=(num_patients, ROWS, 8))
        rows[:, :, 0] *= 3
        shown = rng.integers(0, ROWS, num_patients)
        every = np.arange(num_patients)
        rows[every, shown, 0] = np.where(sick, 1.5, -1.5) + rng.normal(0, 0.5, num_patients)
        rows[every, shown, 1] = 5
        labels = np.zeros((num_patients, ROWS, 2), dtype=bool)
        labels[every[sick], shown[sick], 0] = True
        labels[:, :, 1] = ~labels[:, :, 0]
        features[split] = rows.reshape(-1, 8)
        patient_ids = np.repeat([f"{split}-{patient:03d}" for patient in every], ROWS)
        targets[split] = Targets(
            split, ("LBP", "No Finding"), labels.reshape(-1, 2), True, (), np.full(len(patient_ids), -1), patient_ids
        )
    return features, targets


@pytest.fixture(scope="module")
def answers(one_of_six):
    return attention_pooling(*one_of_six)


def test_attention_finds_the_one_slice_that_the_mean_drowns(one_of_six, answers):
    features, targets = one_of_six
    attended = patient_measures(targets["test"], answers)["auroc"].value()
    pooled = {split: mean_over_patients(rows, targets[split].patient_ids) for split, rows in features.items()}
    of_patients = {split: patient_targets(of_rows) for split, of_rows in targets.items()}
    mean = label_estimates(of_patients["test"], logistic_probe(pooled, of_patients), FEW)["auroc"].value
    assert attended > 0.9
    assert mean < 0.75


def test_all_rows_of_a_patient_get_the_answer_of_the_patient(answers):
    by_patient = answers.reshape(-1, ROWS, 2)
    assert (by_patient == by_patient[:, :1]).all()
    np.testing.assert_allclose(answers.sum(1), 1, atol=1e-6)


@pytest.fixture
def few_epochs(monkeypatch):
    monkeypatch.setattr("train.evaluation.protocols.attention_pooling.MAX_EPOCHS", 15)


def test_the_same_seed_gives_the_same_answers_and_leaves_the_global_state(one_of_six, few_epochs):
    first = attention_pooling(*one_of_six)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    np.testing.assert_array_equal(attention_pooling(*one_of_six), first)
    assert torch.rand(1) == expected
    assert not np.allclose(attention_pooling(*one_of_six, seed=1), first)


def test_answers_depend_on_the_rows_of_the_patient_alone(one_of_six, few_epochs):
    """Not on the order of rows, on other test patients, or on what is true of any of them."""
    features, targets = one_of_six
    answers = attention_pooling(features, targets)
    rows = np.random.default_rng(1).permutation(10 * ROWS)  # ten patients, mixed, their labels turned round
    turned = dataclasses.replace(targets["test"].select(rows, "test"), labels=~targets["test"].labels[rows])
    alone = attention_pooling(features | {"test": features["test"][rows]}, targets | {"test": turned})
    np.testing.assert_allclose(alone, answers[rows], atol=1e-6)


def moved_network(num_features=5, num_labels=3):
    torch.manual_seed(0)
    network = GatedAttention(num_features, num_labels)
    torch.nn.init.normal_(network.attention.weight, std=2)
    return network


def test_pooling_equals_the_equations_patient_by_patient():
    network = moved_network().requires_grad_(False)
    features = torch.randn(11, 5)
    patient_of_row = torch.tensor([2, 0, 0, 1, 2, 2, 0, 2, 1, 2, 3])
    logits, attention = network(features, patient_of_row, 4)
    for patient in range(4):
        rows = features[patient_of_row == patient]
        for label in range(3):
            scores = [
                float(
                    network.attention.weight[label]
                    @ (
                        torch.tanh(network.signal.weight @ row + network.signal.bias)
                        * torch.sigmoid(network.gate.weight @ row + network.gate.bias)
                    )
                )
                for row in rows
            ]
            weights = np.exp(scores) / np.exp(scores).sum()
            pooled = sum(w * row.numpy() for w, row in zip(weights, rows, strict=True))
            expected = network.classifier.weight[label].numpy() @ pooled + network.classifier.bias[label].item()
            assert logits[patient, label].item() == pytest.approx(expected, abs=1e-4)
    np.testing.assert_allclose(attention[-1], 1, atol=1e-6)  # a patient of one row


def test_other_patients_do_not_matter():
    network = moved_network()
    features = torch.randn(9, 5)
    alone, _ = network(features[:2], torch.zeros(2, dtype=int), 1)
    beside, _ = network(features, torch.tensor([0, 0, *[1] * 7]), 2)
    torch.testing.assert_close(beside[:1], alone)


def test_large_scores_stay_finite():
    network = moved_network()
    torch.nn.init.constant_(network.attention.weight, 100.0)
    logits, _ = network(100 * torch.randn(6, 5), torch.tensor([0, 0, 0, 1, 1, 1]), 2)
    assert logits.isfinite().all()


def test_a_finding_that_no_training_patient_has_is_nan(planted):
    features, targets = planted
    labels = targets["train"].labels.copy()
    labels[:, 1] = False
    without = targets | {"train": dataclasses.replace(targets["train"], labels=labels)}
    answers = attention_pooling(features, without)
    assert np.isnan(answers[:, 1]).all()
    assert np.isfinite(answers[:, [0, 2]]).all()
    assert patient_measures(targets["test"], answers)["auroc/bulge"].value() > 0.8


def test_constant_features_are_no_crash(planted, few_epochs):
    features, targets = planted
    answers = attention_pooling({split: np.ones((len(rows), 1)) for split, rows in features.items()}, targets)
    assert np.isfinite(answers).all()
