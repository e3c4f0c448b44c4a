"""Means over seeds and paired differences: equal to copying rows and asking scikit-learn, resample by resample."""

import math
from functools import partial

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from train.evaluation.statistics import metrics
from train.evaluation.statistics.bootstrap import Resampling, paired_difference
from train.evaluation.statistics.resampled import Measure, difference, holm_adjusted, resample, two_sided_p

RESAMPLING = Resampling(40, seed=3)
PATIENT_IDS = np.repeat([f"p{patient}" for patient in range(12)], 5)
MACRO_F1 = partial(metrics.macro_f1, num_classes=2)


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
    baseline = resample([measures[3]], RESAMPLING)
    np.testing.assert_array_equal(difference(ours, baseline).resampled, ours.resampled - baseline.resampled)
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
        assert math.isnan(two_sided_p(pair.resampled))


def test_what_was_measured_on_other_rows_is_refused(truth):
    one = Measure(metrics.mean, [truth], PATIENT_IDS)
    with pytest.raises(ValueError, match="rows of differing patients"):
        resample([one, Measure(metrics.mean, [truth], PATIENT_IDS[::-1])], RESAMPLING)
    shorter = Measure(metrics.mean, [truth[:50]], PATIENT_IDS[:50])
    with pytest.raises(ValueError, match="cannot be paired"):
        difference(resample([one], RESAMPLING), resample([shorter], RESAMPLING))
    with pytest.raises(ValueError, match="one patient id for each row"):
        resample([Measure(metrics.mean, [np.arange(61)], PATIENT_IDS[:59])], RESAMPLING)


def test_p_is_small_only_if_nearly_all_resamples_agree():
    assert two_sided_p(np.full(999, 0.1)) == two_sided_p(np.full(999, -0.1)) == 0.002
    assert two_sided_p(np.zeros(999)) == 1
    # 20 of 999 resamples on the other side of zero, 20 at zero: both count against.
    assert two_sided_p(np.repeat([0.1, -0.1, 0.0], [959, 20, 20])) == pytest.approx(2 * 41 / 1000)


def test_holm_multiplies_the_smallest_by_all_and_keeps_the_order():
    # By hand: 0.01 x 4, 0.02 x 3, then 0.025 x 2 = 0.05 is less than 0.06 before it, 0.6 x 1.
    assert holm_adjusted([0.6, 0.01, 0.025, 0.02]) == pytest.approx([0.6, 0.04, 0.06, 0.06])
    assert holm_adjusted([0.7, 0.6]) == [1, 1]
    adjusted = holm_adjusted([math.nan, 0.02])
    assert math.isnan(adjusted[0]) and adjusted[1] == 0.02
    assert holm_adjusted([]) == []
