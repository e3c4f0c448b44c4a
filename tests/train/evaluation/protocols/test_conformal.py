"""Sets keep their promise on exchangeable patients, for each class where asked to, and say where they cannot."""

import numpy as np
import pytest
from scipy.special import softmax

from train.evaluation.protocols.conformal import (
    class_conditional_thresholds,
    conformal_threshold,
    marginal_thresholds,
    prediction_sets,
    risk_coverage,
    set_estimates,
)
from train.evaluation.statistics.bootstrap import Resampling
from train.evaluation.statistics.minima import patients_for_sets

FEW = Resampling(num_resamples=50)


def slow_threshold(scores, patient_ids, target):
    """Try every score, from the smallest, and count each patient's share of rows that do not exceed it."""
    patients = sorted(set(patient_ids))
    for threshold in sorted(scores):
        shares = []
        for patient in patients:
            of_patient = [score for score, owner in zip(scores, patient_ids, strict=True) if owner == patient]
            shares.append(sum(score <= threshold for score in of_patient) / len(of_patient))
        if sum(shares) >= target * (len(patients) + 1) - 1e-9:
            return threshold
    return 1.0


@pytest.mark.parametrize("target", [0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("num_patients", [4, 9, 19, 40])
def test_threshold_equals_the_slow_one(num_patients, target):
    rng = np.random.default_rng(num_patients)
    patient_ids = np.repeat(np.arange(num_patients), rng.integers(1, 7, num_patients))
    scores = rng.random(len(patient_ids)).round(2)  # with ties
    shuffled = rng.permutation(len(scores))
    expected = slow_threshold(scores.tolist(), patient_ids.tolist(), target)
    assert conformal_threshold(scores[shuffled], patient_ids[shuffled], target) == expected


@pytest.mark.parametrize("num_rows, target, rank", [(9, 0.9, 9), (10, 0.9, 10), (19, 0.9, 18), (100, 0.95, 96)])
def test_threshold_with_one_row_a_patient_is_the_textbook_quantile(num_rows, target, rank):
    scores = np.random.default_rng(0).random(num_rows)
    assert conformal_threshold(scores, np.arange(num_rows), target) == np.sort(scores)[rank - 1]


def test_too_few_patients_put_every_choice_into_every_set():
    assert patients_for_sets(0.9) == 9
    scores = np.linspace(0, 0.5, 9)
    assert conformal_threshold(scores, np.arange(9), 0.9) == 0.5
    assert conformal_threshold(scores[:8], np.arange(8), 0.9) == 1.0
    # A thousand rows of eight patients are no more than eight patients.
    assert conformal_threshold(np.tile(scores[:8], 125), np.tile(np.arange(8), 125), 0.9) == 1.0
    assert conformal_threshold(np.array([]), np.array([]), 0.9) == 1.0


@pytest.mark.parametrize("target", [0, 1, 90])
def test_a_target_that_is_no_share_is_refused(target):
    with pytest.raises(ValueError, match=f"between 0 and 1, such as 0.9; got {target}"):
        conformal_threshold(np.array([0.5]), np.array([0]), target)


def draw_rows(rng, num_patients, minority=0.15, spread=0.0):
    """Rows of patients whose class the logits show: the majority's clearly, the minority's hardly. One to six each."""
    rows_of_patient = rng.integers(1, 7, num_patients)
    patient_ids = np.repeat(np.arange(num_patients), rows_of_patient)
    truth = (rng.random(num_patients) < minority)[patient_ids].astype(int)
    own = rng.normal(size=num_patients)[patient_ids] * spread
    evidence = np.where(truth == 1, 0.0, 2.0) + own + rng.normal(size=len(truth))
    logits = np.stack([evidence, np.zeros(len(truth))], axis=1)
    return softmax(logits, axis=1)[:, None], truth[:, None], patient_ids


def coverage_over_draws(thresholds_of, spread, draws=150):
    """Coverage of one random row a test patient: on average, and of the minority, over fresh calibrations."""
    rng = np.random.default_rng(0)
    on_average, of_minority = [], []
    for _ in range(draws):
        thresholds = thresholds_of(*draw_rows(rng, 60, spread=spread), 0.8)
        probabilities, truth, patient_ids = draw_rows(rng, 200, spread=spread)
        held = np.take_along_axis(prediction_sets(probabilities, thresholds), truth[..., None], axis=2)[:, 0, 0]
        _, first_rows = np.unique(patient_ids, return_index=True)
        held, truth = held[first_rows], truth[first_rows, 0]
        on_average.append(held.mean())
        of_minority.append(held[truth == 1].mean())
    error = 3 * np.std(on_average) / np.sqrt(draws), 3 * np.std(of_minority) / np.sqrt(draws)
    return np.mean(on_average), error[0], np.mean(of_minority), error[1]


@pytest.mark.parametrize("spread", [0.0, 2.0])
def test_marginal_sets_keep_their_promise_and_break_it_for_the_minority(spread):
    coverage, error, of_minority, _ = coverage_over_draws(marginal_thresholds, spread)
    assert 0.8 - error < coverage < 0.8 + 1 / 61 + error  # no less than promised, and little more
    assert of_minority < 0.7


@pytest.mark.parametrize("spread", [0.0, 2.0])
def test_class_conditional_sets_keep_their_promise_for_the_minority(spread):
    coverage, error, of_minority, minority_error = coverage_over_draws(class_conditional_thresholds, spread)
    assert coverage > 0.8 - error
    assert of_minority > 0.8 - minority_error


def test_each_choice_has_the_threshold_of_its_own_rows():
    rng = np.random.default_rng(0)
    probabilities, truth = rng.dirichlet(np.ones(3), (400, 2)), rng.integers(0, 3, (400, 2))
    patient_ids = np.arange(400) // 4
    thresholds = class_conditional_thresholds(probabilities, truth, patient_ids, 0.9)
    for question in range(2):
        for choice in range(3):
            rows = truth[:, question] == choice
            scores = 1 - probabilities[rows, question, choice]
            assert thresholds[question, choice] == conformal_threshold(scores, patient_ids[rows], 0.9)


def test_sets_by_hand():
    probabilities = np.array([[[0.7, 0.2, 0.1]], [[0.4, 0.35, 0.25]], [[0.1, 0.1, 0.8]], [[np.nan] * 3]])
    sets = prediction_sets(probabilities, np.array([[0.6, 0.65, 0.1]]))
    assert sets[:, 0].tolist() == [[True, False, False], [True, True, False], [False] * 3, [False] * 3]


def test_set_figures_by_hand():
    # Two questions with the choices absent and present, three rows. Held sets: {a}, {a, p}, {} and {p}, {p}, {a}.
    truth = np.array([[0, 1], [1, 0], [1, 0]])
    probabilities = np.array([[[0.9, 0.1], [0.2, 0.8]], [[0.6, 0.4], [0.3, 0.7]], [[0.5, 0.5], [0.8, 0.2]]])
    sets = np.array([[[1, 0], [0, 1]], [[1, 1], [0, 1]], [[0, 0], [1, 0]]], dtype=bool)
    estimates = set_estimates(truth, probabilities, sets, ("absent", "present"), np.array(list("abc")), FEW)
    values = {name: estimate.value for name, estimate in estimates.items()}
    assert values == pytest.approx(
        {
            "coverage": 2 / 3,  # two of three, and two of three
            "coverage/absent": (1 + 1 / 2) / 2,
            "coverage/present": (1 / 2 + 1) / 2,
            "set_size": 1,
            "answered": (1 / 3 + 1) / 2,
            "accuracy_if_answered": (1 + 2 / 3) / 2,
            "accuracy_of_all": (1 / 3 + 2 / 3) / 2,
        }
    )


def test_figures_without_rows_are_undefined_with_the_reason():
    truth, probabilities = np.zeros((4, 1), dtype=int), np.tile([0.6, 0.4], (4, 1, 1))
    estimates = set_estimates(truth, probabilities, np.ones((4, 1, 2)) > 0, ("LBP", "none"), np.arange(4), FEW)
    assert np.isnan(estimates["coverage/none"].value)
    assert estimates["coverage/none"].reason == "`none` is true of no row"
    assert estimates["accuracy_if_answered"].reason == "every set abstains"


def test_risk_coverage_equals_answering_the_most_confident_rows():
    rng = np.random.default_rng(0)
    confidence, correct = rng.random(200).round(2), rng.random(200) < 0.7
    answered, accuracy = risk_coverage(confidence, correct)
    for share, right in zip(answered, accuracy, strict=True):
        threshold = np.sort(confidence)[::-1][round(share * 200) - 1]
        assert (confidence >= threshold).mean() == share
        assert correct[confidence >= threshold].mean() == pytest.approx(right)
    assert answered[-1] == 1
    assert len(answered) == len(np.unique(confidence))
