"""Planted temperatures are found, calibration helps where it should, and what cannot be fitted says why."""

import logging

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, softmax

from modeling_lumbarclip.calibration_lumbarclip import calibrated_probabilities, prediction_sets
from modeling_lumbarclip.configuration_lumbarclip import CalibratedQuestion, ZeroShotCalibration
from train.evaluation.protocols.calibration import (
    confidence_and_correctness,
    fit_calibration,
    fit_temperature,
    measure_calibration,
    scale,
    warn_of_reasons,
)
from train.evaluation.statistics.bootstrap import Resampling
from train.evaluation.statistics.metrics import expected_calibration_error

FEW = Resampling(num_resamples=100)


def rows_at_temperature(rng, temperature, num_rows, num_classes=3):
    """Logits whose softmax is right once they are divided by the temperature, and classes drawn from it."""
    logits = rng.normal(size=(num_rows, num_classes)) * 2
    drawn = rng.random(num_rows)[:, None] < softmax(logits, axis=1).cumsum(1)
    return logits * temperature, drawn.argmax(1)


@pytest.mark.parametrize("temperature", [0.2, 1.0, 3.0])
@pytest.mark.parametrize("num_classes", [2, 5])
def test_a_planted_temperature_is_found(temperature, num_classes):
    logits, truth = rows_at_temperature(np.random.default_rng(0), temperature, 10_000, num_classes)
    fitted, reason = fit_temperature(logits, truth)
    assert fitted == pytest.approx(temperature, rel=0.05)
    assert reason is None


def test_the_temperature_is_the_best_of_a_grid():
    logits, truth = rows_at_temperature(np.random.default_rng(1), 2.5, 300)
    grid = np.geomspace(1, 6, 700)
    losses = [-log_softmax(logits / t, axis=1)[np.arange(300), truth].mean() for t in grid]
    assert fit_temperature(logits, truth)[0] == pytest.approx(grid[np.argmin(losses)], rel=0.003)


def test_what_is_common_to_the_logits_of_a_row_changes_nothing():
    logits, truth = rows_at_temperature(np.random.default_rng(1), 2.5, 300)
    shifted = logits + np.arange(300)[:, None]
    assert fit_temperature(shifted, truth)[0] == pytest.approx(fit_temperature(logits, truth)[0], rel=1e-4)
    scaled = [scale(of[:, None], np.array([2.5])) for of in (logits, shifted)]
    np.testing.assert_allclose(*scaled, rtol=1e-9)


def test_a_choice_that_cannot_be_answered_is_left_out():
    logits, truth = rows_at_temperature(np.random.default_rng(1), 2.5, 300)
    with_third = np.c_[logits, np.full(300, -np.inf)]
    expected = fit_temperature(logits, truth)
    assert fit_temperature(with_third, truth) == expected
    more = np.r_[with_third, with_third[:5]], np.r_[truth, np.full(5, 3)]  # five rows of which it is the truth
    assert fit_temperature(*more) == expected
    assert "no validation row can be predicted" in fit_temperature(with_third[:5], np.full(5, 3))[1]


@pytest.mark.parametrize("exclusive", [True, False])
def test_sharp_logits_are_calibrated_as_users_apply_them(make_targets, exclusive):
    """Logits of +-40 and beyond: as probabilities most of them are 0 and 1."""
    rng = np.random.default_rng(0)
    logits, labels = {}, {}
    for split in ("train", "validation", "test"):
        log_odds = rng.normal(size=(2000, 1)) * 60
        present = rng.random((2000, 1)) < 1 / (1 + np.exp(-log_odds / 30))
        logits[split] = np.c_[np.zeros(2000), log_odds] if exclusive else log_odds
        labels[split] = np.c_[~present, present] if exclusive else present
    if exclusive:
        targets = make_targets(labels, ["LBP", "No Finding"])
    else:
        labels["train"][0] = False  # a row without a label: no exclusive classes
        targets = make_targets(labels, ["bulge"])
    assert targets["test"].exclusive == exclusive
    test, two_logits = targets["test"], {split: np.c_[np.zeros(2000), of[:, -1]] for split, of in logits.items()}
    truth = {split: of.labels[:, -1].astype(int) for split, of in targets.items()}
    result = measure_calibration(logits["validation"], targets["validation"], logits["test"], test, FEW)
    temperature, reason = fit_temperature(two_logits["validation"], truth["validation"])
    assert reason is None
    assert temperature == pytest.approx(30, rel=0.15)
    np.testing.assert_allclose(result.calibration.temperatures, [temperature])

    question = CalibratedQuestion(
        None, ["a", "b"], [["a"], ["b"]], float(temperature), result.calibration.thresholds[0].tolist()
    )
    calibration = ZeroShotCalibration([question], 0.9, {})
    probabilities = calibrated_probabilities(torch.from_numpy(two_logits["test"])[:, None], calibration)
    held = prediction_sets(probabilities, calibration)[:, 0].numpy()
    coverage = held[np.arange(2000), truth["test"]].mean()
    assert result.estimates["class_conditional/coverage"].value == pytest.approx(coverage, abs=1e-12)
    assert coverage == pytest.approx(0.9, abs=0.03)
    assert 0.1 < result.estimates["class_conditional/answered"].value < 0.95


@pytest.mark.parametrize(
    "logits, truth, temperature, reason",
    [
        ([[2.0, 0.0], [0.0, 1.0]], [0, 0], 1.0, "one choice is true of all 2"),
        ([[2.0, 0.0], [0.0, 0.1]], [0, 1], 1.0, "all 2 validation rows are predicted right"),
        ([[2.0, 0.0], [0.0, 1.0]], [1, 0], 100.0, "tell nothing"),
        ([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]], [0, 1, 1], None, None),
    ],
    ids=["one class", "separable", "anti-informative", "constant"],
)
def test_what_the_rows_do_not_settle_has_a_reason(logits, truth, temperature, reason):
    fitted, why = fit_temperature(np.array(logits), np.array(truth))
    assert 0.01 <= fitted <= 100
    if temperature is not None:
        assert fitted == temperature
        assert reason in why


@pytest.fixture
def overconfident(make_targets):
    """Three exclusive classes, the last rare, with logits three times too large."""
    rng = np.random.default_rng(0)
    logits, labels = {}, {}
    for split, size in {"train": 400, "validation": 800, "test": 1200}.items():
        logits[split], truth = rows_at_temperature(rng, 3.0, size)
        labels[split] = np.eye(3)[truth]
    return logits, make_targets(labels, ["protrusion", "bulge", "normal"])


def test_calibration_of_exclusive_classes_helps_and_keeps_the_answers(overconfident):
    logits, targets = overconfident
    test = targets["test"]
    result = measure_calibration(logits["validation"], targets["validation"], logits["test"], test, FEW)
    assert result.calibration.temperatures[0] == pytest.approx(3, rel=0.15)
    assert result.calibration.reasons == {}
    np.testing.assert_array_equal(result.probabilities.argmax(1), logits["test"].argmax(1))
    np.testing.assert_allclose(result.probabilities.sum(1), 1)
    values = {name: estimate.value for name, estimate in result.estimates.items()}
    assert values["uncalibrated/expected_calibration_error"] > 0.1
    assert values["calibrated/expected_calibration_error"] < 0.05
    for name in ("expected_calibration_error", "brier_score", "negative_log_likelihood"):
        assert result.estimates[f"change/{name}"].high < 0
        assert values[f"change/{name}"] == pytest.approx(values[f"calibrated/{name}"] - values[f"uncalibrated/{name}"])
    confidence, correct = confidence_and_correctness(test, result.probabilities)
    assert values["calibrated/expected_calibration_error"] == expected_calibration_error(confidence, correct)
    assert values["class_conditional/coverage"] == pytest.approx(0.9, abs=0.03)
    for name in test.label_names:
        assert values[f"class_conditional/coverage/{name}"] == pytest.approx(0.9, abs=0.06)
    assert values["class_conditional/accuracy_if_answered"] > values["class_conditional/accuracy_of_all"] + 0.05
    assert result.sets.shape == (1200, 1, 3)


def made_findings(make_targets, size=400):
    """Two findings and `No Finding`, logits of the first too sure, of the second too unsure."""
    rng = np.random.default_rng(0)
    given, labels = {}, {}
    for split in ("train", "validation", "test"):
        logits = rng.normal(size=(size, 3)) * 1.5
        labels[split] = rng.random((size, 3)) < 1 / (1 + np.exp(-logits))
        given[split] = logits * [4, 0.25, 1]
    return given, make_targets(labels, ["bulge", "stenosis", "No Finding"])


def test_each_finding_has_its_temperature(make_targets):
    logits, targets = made_findings(make_targets)
    result = measure_calibration(logits["validation"], targets["validation"], logits["test"], targets["test"], FEW)
    np.testing.assert_allclose(result.calibration.temperatures, [4, 0.25, 1], rtol=0.35)
    for name in ("bulge", "stenosis"):
        before, after = (
            result.estimates[f"{state}/expected_calibration_error/{name}"].value
            for state in ("uncalibrated", "calibrated")
        )
        assert after < before / 2
    # Macro figures are of the findings; whether there is none is no finding.
    of_findings = [result.estimates[f"calibrated/expected_calibration_error/{n}"].value for n in ("bulge", "stenosis")]
    assert result.estimates["calibrated/expected_calibration_error"].value == pytest.approx(np.mean(of_findings))
    assert result.sets.shape == (400, 3, 2)
    assert {"class_conditional/coverage/absent", "marginal/coverage/present"} <= result.estimates.keys()


def test_the_temperature_changes_no_set_of_two_choices(make_targets):
    logits, targets = made_findings(make_targets)
    sharpened = {split: 3 * of_split for split, of_split in logits.items()}
    sets = [
        measure_calibration(of["validation"], targets["validation"], of["test"], targets["test"], FEW).sets
        for of in (logits, sharpened)
    ]
    np.testing.assert_array_equal(*sets)


def test_the_truth_of_test_rows_changes_no_answer(make_targets):
    logits, targets = made_findings(make_targets)
    other = targets["test"].select(np.arange(400)[::-1], "reversed")
    results = [
        measure_calibration(logits["validation"], targets["validation"], logits["test"], truth, FEW)
        for truth in (targets["test"], other)
    ]
    np.testing.assert_array_equal(results[0].probabilities, results[1].probabilities)
    np.testing.assert_array_equal(results[0].sets, results[1].sets)


def test_findings_that_cannot_be_calibrated_are_told(make_targets, caplog, monkeypatch):
    monkeypatch.setattr("train.evaluation.protocols.calibration._warned", set())  # another test may have said the same
    logits, targets = made_findings(make_targets, size=80)  # 20 patients
    for split in targets:
        logits[split][:, 0] = np.nan
    targets["validation"].labels[:, 1] = False
    result = measure_calibration(logits["validation"], targets["validation"], logits["test"], targets["test"], FEW)
    with caplog.at_level(logging.WARNING):
        warn_of_reasons([result.calibration])
    reasons = result.calibration.reasons
    assert reasons["bulge"] == "there are no probabilities to calibrate"
    assert "one choice is true of all 80 validation rows" in reasons["stenosis"]
    assert "0 validation patients have it, and 0.9 coverage needs 9" in reasons["stenosis: present"]
    (told,) = caplog.messages  # one line
    assert told == (
        "Calibration: there are no probabilities to calibrate (bulge); T left at 1 (stenosis): one choice is true of "
        "all 80 validation rows; in every set (stenosis: absent, stenosis: present): such as another choice has fewer "
        "than the 9 validation patients that sets need."
    )
    with caplog.at_level(logging.WARNING):
        warn_of_reasons([result.calibration, result.calibration])
    assert caplog.messages == [told]
    assert np.isnan(result.probabilities[:, 0]).all()
    np.testing.assert_allclose(result.probabilities[:, 1], expit(logits["test"][:, 1]))
    assert not result.sets[:, 0].any()  # no answer
    assert result.sets[:, 1, 1].all()
    undefined = {name: e.reason for name, e in result.estimates.items() if np.isnan(e.value)}
    assert undefined and all(name.startswith("class_conditional/") for name in undefined)
    assert set(undefined.values()) == {
        "0 validation patients of the rarest choice, and sets of 90% coverage need 9 of each"
    }


def test_answers_that_are_all_equally_sure(make_targets):
    labels = {split: np.eye(2)[np.arange(80) % 2] for split in ("train", "validation", "test")}
    targets = make_targets(labels, ["LBP", "No Finding"])
    sure = 50 * np.eye(2)[(np.arange(80) % 4 != 0).astype(int)]  # right on three of four
    result = measure_calibration(sure, targets["validation"], sure, targets["test"], FEW)
    assert np.isfinite(result.probabilities).all()
    assert result.probabilities.max(1)[0] == pytest.approx((sure.argmax(1) == np.arange(80) % 2).mean(), abs=0.01)
    assert result.estimates["calibrated/expected_calibration_error"].value < 0.02


def test_nothing_learned_gives_no_figures(make_targets):
    labels = {split: np.tile([1, 0, 0], (40, 1)) + np.eye(40, 3) > 0 for split in ("train", "validation", "test")}
    targets = make_targets(labels, ["bulge", "stenosis", "No Finding"])
    nothing = np.full((40, 3), np.nan)
    assert measure_calibration(nothing, targets["validation"], nothing, targets["test"], FEW).estimates == {}
    assert fit_calibration(nothing, targets["validation"]).thresholds.min() == 1


def exclusive_rows(make_targets, patients_by_class, rng):
    """Four rows a patient (`make_targets`), all of one class; logits that are right in most rows."""
    classes = np.repeat(np.repeat(np.arange(len(patients_by_class)), patients_by_class), 4)
    labels = np.eye(len(patients_by_class))[classes]
    logits = 2 * labels + rng.normal(size=labels.shape)
    names = ["LBP", "No Finding", "Other"][: len(patients_by_class)]
    return logits, make_targets({"train": labels, "validation": labels, "test": labels}, names)


@pytest.mark.parametrize(
    "patients, has_temperature, has_sets, has_marginal_sets",
    [
        ((2, 2), False, False, False),
        ((4, 5), False, False, True),
        ((5, 5), True, False, True),
        ((9, 8), True, False, True),
        ((9, 9), True, True, True),
        ((30, 8), True, False, True),
        ((9, 9, 9), True, True, True),
        ((30, 30, 1), True, False, True),
    ],
    ids=str,
)
def test_nothing_is_fitted_below_the_patients_it_needs(
    make_targets, patients, has_temperature, has_sets, has_marginal_sets
):
    logits, targets = exclusive_rows(make_targets, patients, np.random.default_rng(0))
    result = measure_calibration(logits, targets["validation"], logits, targets["test"], FEW)
    fitted, values = result.calibration, {name: e.value for name, e in result.estimates.items()}
    assert (fitted.temperatures[0] != 1) == has_temperature
    assert (fitted.thresholds.min() < 1) == has_sets
    assert (fitted.marginal_thresholds.min() < 1) == has_marginal_sets
    assert np.isfinite(values["calibrated/brier_score"]) == has_temperature
    assert np.isfinite(values["class_conditional/coverage"]) == has_sets
    assert np.isfinite(values["marginal/coverage"]) == has_marginal_sets
    assert np.isfinite(values["class_conditional/accuracy_of_all"])  # needs no sets
    assert np.isfinite(values["uncalibrated/brier_score"])
    if not has_sets:  # no choice may become the answer because the others are better known
        assert result.sets.all()
        assert all("in every set" in fitted.reasons[f"classes: {name}"] for name in targets["test"].label_names)
        assert "need 9 of each" in result.estimates["class_conditional/answered"].reason
    if not has_temperature:
        assert "a temperature needs 10" in fitted.reasons["classes"]


def test_a_finding_that_few_patients_have_is_not_answered(make_targets):
    """With the rare choice in every set, a set of one choice would always be that choice."""
    rng = np.random.default_rng(0)
    labels = np.zeros((120, 3), dtype=bool)  # 30 patients
    labels[:8, 0], labels[:60, 1], labels[:, 2] = True, True, ~labels[:, :2].any(1)
    logits = 3 * (labels - 0.5) + rng.normal(size=labels.shape)
    targets = make_targets(dict.fromkeys(("train", "validation", "test"), labels), ["slip", "bulge", "No Finding"])
    result = measure_calibration(logits, targets["validation"], logits, targets["test"], FEW)
    assert result.sets[:, 0].all() and not result.sets[:, 1].all()
    assert np.isfinite(result.estimates["class_conditional/coverage"].value)  # of the other finding


def test_every_gap_is_in_one_line(make_targets, caplog, monkeypatch):
    monkeypatch.setattr("train.evaluation.protocols.calibration._warned", set())
    names = [f"finding {number}" for number in range(7)]
    labels = np.random.default_rng(0).random((24, 7)) < 0.5  # 6 patients
    targets = make_targets(dict.fromkeys(("train", "validation", "test"), labels), names)
    fitted = [fit_calibration(scale * labels, targets["validation"]) for scale in (1.0, 2.0)]
    with caplog.at_level(logging.WARNING):
        warn_of_reasons(fitted)
    (line,) = caplog.messages
    assert line.startswith("Calibration: T left at 1 (finding 0, finding 1, finding 2, finding 3 and 3 more): 6 valid")
    assert line.count("in every set") == 1 and "\n" not in line and len(line) < 400
