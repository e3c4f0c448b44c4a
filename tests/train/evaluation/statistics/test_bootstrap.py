import json
import logging
import math
from functools import partial

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from train.evaluation.statistics import bootstrap, metrics
from train.evaluation.statistics.bootstrap import (
    Measure,
    Resampling,
    difference,
    paired_difference,
    patient_bootstrap,
    resample,
    undefined_estimate,
)

pytestmark = pytest.mark.usefixtures("any_number_is_ranked")


RESAMPLING = Resampling(40, seed=3)
PATIENT_IDS = np.repeat([f"p{patient}" for patient in range(12)], 5)
MACRO_F1 = partial(metrics.macro_f1, num_classes=2)


def clustered_rows(rng, num_patients=30, rows_of_patient=20, between=1.0, within=1.0):
    patient_means = rng.normal(0, between, num_patients)
    values = patient_means[:, None] + rng.normal(0, within, (num_patients, rows_of_patient))
    return values.ravel(), np.repeat(np.arange(num_patients), rows_of_patient).astype(str)


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        values, patient_ids = clustered_rows(rng)
        estimate = patient_bootstrap(metrics.mean, [values], patient_ids, Resampling(300))
        covered += estimate.low <= 0 <= estimate.high
    assert 0.88 <= covered / 200 <= 0.99


def test_patients_widen_the_interval_that_rows_would_claim():
    values, patient_ids = clustered_rows(np.random.default_rng(1))
    by_patient = patient_bootstrap(metrics.mean, [values], patient_ids)
    by_row = patient_bootstrap(metrics.mean, [values], np.arange(len(values)).astype(str))
    assert by_patient.value == by_row.value
    assert by_patient.high - by_patient.low > 2 * (by_row.high - by_row.low)


def test_equals_the_slow_bootstrap_that_copies_rows():
    rng = np.random.default_rng(2)
    scores, patient_ids = clustered_rows(rng, num_patients=8, rows_of_patient=5)
    positive = scores + rng.normal(size=len(scores)) > 0
    estimate = patient_bootstrap(metrics.auroc, [positive, scores], patient_ids, Resampling(100, seed=3))
    patients = np.unique(patient_ids)
    draws = np.random.default_rng(3).multinomial(len(patients), np.full(len(patients), 1 / len(patients)), size=100)
    slow = []
    for draw in draws:
        rows = np.concatenate(
            [np.flatnonzero(patient_ids == p) for p, times in zip(patients, draw, strict=True) for _ in range(times)]
        )
        slow.append(metrics.auroc(positive[rows], scores[rows]))
    np.testing.assert_allclose([estimate.low, estimate.high], np.nanpercentile(slow, [2.5, 97.5]))


def test_neither_row_order_nor_memory_blocks_change_an_interval(monkeypatch):
    values, patient_ids = clustered_rows(np.random.default_rng(4))
    estimate = patient_bootstrap(metrics.mean, [values], patient_ids)
    order = np.random.default_rng(5).permutation(len(values))
    shuffled = patient_bootstrap(metrics.mean, [values[order]], patient_ids[order])
    monkeypatch.setattr("train.evaluation.statistics.bootstrap.MAX_WEIGHTS_IN_MEMORY", 7 * len(values))
    in_blocks = patient_bootstrap(metrics.mean, [values], patient_ids)
    for other in (shuffled, in_blocks):
        np.testing.assert_allclose([other.low, other.high], [estimate.low, estimate.high])


def test_the_same_gap_is_told_once_and_what_was_silenced_is_not_told(caplog, monkeypatch):
    monkeypatch.setattr(bootstrap, "_said", set())
    with caplog.at_level(logging.ERROR, bootstrap.__name__):
        undefined_estimate(4, "no row with `x`")
    with caplog.at_level(logging.WARNING, bootstrap.__name__):
        estimates = [undefined_estimate(4, f"no row with `{name}`") for name in "xyx"]
    assert caplog.messages == [f"A metric is not defined: no row with `{name}`." for name in "xy"]
    assert [estimate.reason for estimate in estimates] == [f"no row with `{name}`" for name in "xyx"]


def test_absent_class_is_undefined_and_named(caplog, monkeypatch):
    monkeypatch.setattr(bootstrap, "_said", set())
    estimate = patient_bootstrap(
        metrics.auroc, [np.zeros(4), np.arange(4)], list("aabb"), reason_if_undefined="no row with `Modic change`"
    )
    assert math.isnan(estimate.value)
    assert "Modic change" in caplog.text
    assert "not defined: no row with `Modic change`" in str(estimate)
    entry = json.loads(json.dumps(estimate.as_dict(), allow_nan=False))
    assert entry == {"value": None, "low": None, "high": None, "n": 4, "reason": "no row with `Modic change`"}


def test_resamples_without_the_class_are_dropped_and_counted():
    positive = np.array([1, 0, 0, 0, 0, 0])
    estimate = patient_bootstrap(metrics.auroc, [positive, positive * 1.0], list("abcdef"))
    # One of six patients is missing from a draw with probability (5/6)^6 = 0.33; all draws are he with (1/6)^6.
    assert 250 < estimate.dropped_resamples < 420
    assert (estimate.value, estimate.low, estimate.high) == (1, 1, 1)
    assert estimate.as_dict()["dropped_resamples"] == estimate.dropped_resamples


def test_one_patient_gives_no_interval():
    estimate = patient_bootstrap(metrics.mean, [np.arange(5.0)], ["a"] * 5)
    assert estimate.value == 2
    assert math.isnan(estimate.low)
    assert "one patient" in str(estimate)


def test_paired_difference_cancels_what_both_find_hard():
    rng = np.random.default_rng(6)
    ours, patient_ids = clustered_rows(rng, between=3.0)
    theirs = ours - 0.3 + rng.normal(0, 0.1, len(ours))
    difference = paired_difference(metrics.mean, [ours], [theirs], patient_ids)
    alone = patient_bootstrap(metrics.mean, [ours], patient_ids)
    assert difference.value == pytest.approx(0.3, abs=0.02)
    assert difference.low > 0.25
    assert difference.high - difference.low < 0.1 * (alone.high - alone.low)


def test_paired_difference_of_equal_systems_is_zero():
    truth = np.array([0, 1, 1, 0])
    metric = partial(metrics.macro_f1, num_classes=2)
    difference = paired_difference(metric, [truth, truth], [truth, truth], list("aabb"))
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)


@pytest.mark.parametrize(("values", "patient_ids"), [([], []), ([1.0, 2.0], ["a"])])
def test_lengths_that_do_not_fit_are_refused(values, patient_ids):
    with pytest.raises(ValueError, match="one patient id for each row"):
        patient_bootstrap(metrics.mean, [np.array(values)], patient_ids)


@pytest.fixture
def truth():
    return np.random.default_rng(0).integers(0, 2, len(PATIENT_IDS))


def answered(truth, seed, share_right):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(len(truth)) < share_right, truth, 1 - truth)


def rows_of_resamples():
    """The rows of each resample, copied as often as their patient was drawn."""
    patients = np.unique(PATIENT_IDS)
    rng = np.random.default_rng(RESAMPLING.seed)
    for draw in rng.multinomial(len(patients), np.full(len(patients), 1 / len(patients)), RESAMPLING.num_resamples):
        yield np.concatenate(
            [np.flatnonzero(p == PATIENT_IDS) for p, times in zip(patients, draw, strict=True) for _ in range(times)]
        )


def test_mean_over_seeds_equals_a_slow_loop_with_scikit_learn(truth):
    seeds = [answered(truth, seed, 0.8) for seed in range(3)]
    figure = resample([Measure(MACRO_F1, [truth, predicted], PATIENT_IDS) for predicted in seeds], RESAMPLING)
    slow = [
        np.mean([f1_score(truth[rows], predicted[rows], average="macro") for predicted in seeds])
        for rows in rows_of_resamples()
    ]
    np.testing.assert_allclose(figure.resampled, slow)
    by_seed = [f1_score(truth, predicted, average="macro") for predicted in seeds]
    assert figure.by_seed == pytest.approx(by_seed)
    assert figure.standard_deviation == pytest.approx(np.std(by_seed, ddof=1))
    estimate = figure.estimate()
    assert (estimate.value, estimate.n) == (pytest.approx(np.mean(by_seed)), 60)
    assert [estimate.low, estimate.high] == pytest.approx(np.percentile(slow, [2.5, 97.5]))


def test_difference_of_means_equals_a_slow_loop_with_scikit_learn(truth):
    rng = np.random.default_rng(5)
    ours, theirs = ([truth + rng.normal(0, noise, len(truth)) for _ in range(2)] for noise in (0.8, 1.2))
    pair = difference(
        *(
            resample([Measure(metrics.auroc, [truth, scores], PATIENT_IDS) for scores in seeds], RESAMPLING)
            for seeds in (ours, theirs)
        )
    )
    slow = [
        np.mean([roc_auc_score(truth[rows], scores[rows]) for scores in ours])
        - np.mean([roc_auc_score(truth[rows], scores[rows]) for scores in theirs])
        for rows in rows_of_resamples()
    ]
    np.testing.assert_allclose(pair.resampled, slow)


def test_of_one_seed_it_is_the_paired_difference(truth):
    ours, theirs = answered(truth, 1, 0.9), answered(truth, 2, 0.7)
    pair = difference(
        *(resample([Measure(MACRO_F1, [truth, answers], PATIENT_IDS)], RESAMPLING) for answers in (ours, theirs))
    )
    expected = paired_difference(MACRO_F1, [truth, ours], [truth, theirs], PATIENT_IDS, RESAMPLING)
    assert pair.estimate() == expected


def test_a_difference_is_of_the_seeds_that_both_have(truth):
    measures = [Measure(MACRO_F1, [truth, answered(truth, seed, 0.8)], PATIENT_IDS) for seed in range(4)]
    ours, theirs = resample(measures[:3], RESAMPLING, [0, 1, 2]), resample(measures[2:], RESAMPLING, [1, 5])
    alone = [resample([measures[place]], RESAMPLING) for place in (1, 2)]
    np.testing.assert_array_equal(difference(ours, theirs).resampled, alone[0].resampled - alone[1].resampled)
    control = resample([measures[3]], RESAMPLING)
    np.testing.assert_array_equal(difference(ours, control).resampled, ours.resampled - control.resampled)
    without = difference(ours, resample(measures[:1], RESAMPLING, [9])).estimate()
    assert math.isnan(without.value) and without.reason == "the two have no seed in common"


def test_a_seed_that_is_undefined_makes_the_mean_so_with_its_reason():
    nothing, something = np.zeros(60, dtype=int), np.arange(60) % 2
    seeds = [Measure(metrics.auroc, [p, np.arange(60.0)], PATIENT_IDS, "no row of `LBP`") for p in (something, nothing)]
    estimate = resample(seeds, RESAMPLING).estimate()
    assert math.isnan(estimate.value) and math.isnan(estimate.low)
    assert estimate.reason == "no row of `LBP`"
    defined = resample(seeds[:1], RESAMPLING)
    for pair in (
        difference(defined, resample(seeds[1:], RESAMPLING)),
        difference(resample(seeds[1:], RESAMPLING), defined),
    ):
        assert pair.estimate().reason == "no row of `LBP`"
        assert np.isnan(pair.resampled).all()


def test_what_was_measured_on_other_rows_is_refused(truth):
    one = Measure(metrics.mean, [truth], PATIENT_IDS)
    with pytest.raises(ValueError, match="rows of different patients"):
        resample([one, Measure(metrics.mean, [truth], PATIENT_IDS[::-1])], RESAMPLING)
    shorter = Measure(metrics.mean, [truth[:50]], PATIENT_IDS[:50])
    with pytest.raises(ValueError, match="cannot be paired"):
        difference(resample([one], RESAMPLING), resample([shorter], RESAMPLING))
    with pytest.raises(ValueError, match="one patient id for each row"):
        resample([Measure(metrics.mean, [np.arange(61)], PATIENT_IDS[:59])], RESAMPLING)


@pytest.mark.parametrize("num_patients, is_told", [(2, False), (4, False), (19, False), (20, True), (45, True)])
def test_a_difference_of_few_patients_is_not_told(monkeypatch, caplog, num_patients, is_told):
    monkeypatch.setattr("train.evaluation.statistics.minima.PATIENTS_TO_RANK", 20)
    patients = np.repeat(np.arange(num_patients), 6)  # rows do not count
    ours, theirs = np.ones(len(patients)), np.zeros(len(patients))
    with caplog.at_level(logging.WARNING):
        estimate = paired_difference(metrics.mean, [ours], [theirs], patients, RESAMPLING)
    assert (estimate.value == 1) is is_told
    if not is_told:
        assert estimate.reason == f"too few to rank: {num_patients} patients, and a comparison needs 20"
        assert math.isnan(estimate.low)
    assert not caplog.messages  # the report opens with it


def test_what_is_undefined_for_another_reason_keeps_it(monkeypatch):
    monkeypatch.setattr("train.evaluation.statistics.minima.PATIENTS_TO_RANK", 20)
    measure = Measure(metrics.auroc, [np.zeros(4), np.arange(4)], np.array(list("aabb")), "no row of `LBP`")
    one = resample([measure], RESAMPLING)
    assert difference(one, one).estimate().reason == "no row of `LBP`"
