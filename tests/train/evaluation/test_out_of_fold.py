"""Answers of folds put together: equal to scikit-learn, fair to systems whose folds answer on other scales."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from train.evaluation.out_of_fold import DIRECTIONS, measure_answers, pool, pool_shared, ranks_within_folds
from train.evaluation.statistics.bootstrap import Resampling
from train.evaluation.targets import Targets

NUM_ROWS, NAMES = 120, ("bulge", "stenosis", "No Finding")
RESAMPLING = Resampling(50, 0)


@pytest.fixture
def targets():
    random = np.random.default_rng(0)
    findings = random.random((NUM_ROWS, 2)) < [0.5, 0.2]
    return Targets(
        split="3-fold cross-validation",
        label_names=NAMES,
        labels=np.c_[findings, ~findings.any(1)],
        exclusive=False,
        grade_names=("1", "2", "3"),
        grades=np.where(random.random(NUM_ROWS) < 0.1, -1, random.integers(0, 3, NUM_ROWS)),
        patient_ids=np.array([f"p{row // 4}" for row in range(NUM_ROWS)]),
    )


@pytest.fixture
def answers(targets):
    """The model guesses well; the majority answers the prevalence among the patients of the other folds."""
    random = np.random.default_rng(1)
    fold = np.arange(NUM_ROWS) // 40
    majority = np.stack([targets.labels[fold != number].mean(0) for number in fold])
    ranks = {f"{d}/rank": random.integers(1, 40, NUM_ROWS) for d in DIRECTIONS}
    hits = {f"{d}/num_hits": np.ones(NUM_ROWS, dtype=int) for d in DIRECTIONS}
    candidates = {f"{d}/num_candidates": np.full(NUM_ROWS, 40) for d in DIRECTIONS}
    return {
        "row": np.arange(NUM_ROWS),
        "fold": fold,
        "zero_shot": random.random((NUM_ROWS, 3)),
        "probe/model": np.clip(0.3 * targets.labels + 0.6 * random.random((NUM_ROWS, 3)), 0, 1),
        "grade/model": np.where(random.random(NUM_ROWS) < 0.5, targets.grades, 1),
        "probe/majority": majority,
        "grade/majority": np.ones(NUM_ROWS, dtype=int),
        **ranks,
        **hits,
        **candidates,
    }


def test_pooled_figures_equal_scikit_learn(answers, targets):
    figures = measure_answers(answers, targets, RESAMPLING)
    scores = pd.DataFrame(answers["probe/model"]).groupby(answers["fold"]).rank(pct=True).to_numpy()
    by_finding = [roc_auc_score(targets.labels[:, k], scores[:, k]) for k in (0, 1)]
    probe = figures.probes.estimates
    assert [probe["auroc/bulge"].value, probe["auroc/stenosis"].value] == pytest.approx(by_finding)
    assert probe["macro_auroc"].value == pytest.approx(np.mean(by_finding))
    graded = targets.grades >= 0
    kappa = cohen_kappa_score(targets.grades[graded], answers["grade/model"][graded], weights="quadratic")
    assert probe["grade_quadratic_kappa"].value == pytest.approx(kappa)
    assert probe["grade_quadratic_kappa"].n == graded.sum()
    assert figures.retrieval["image_to_text_recall_at_5"].value == (answers["image_to_text/rank"] <= 5).mean()
    assert figures.retrieval["image_to_text_chance_at_5"].value == pytest.approx(5 / 40)


def test_an_answer_that_knows_nothing_is_at_chance_and_not_below(answers, targets):
    assert roc_auc_score(targets.labels[:, 0], answers["probe/majority"][:, 0]) < 0.49  # pooled as they are
    figures = measure_answers(answers, targets, RESAMPLING)
    baseline = figures.baselines["majority"].estimates["macro_auroc"]
    assert (baseline.value, baseline.low, baseline.high) == (0.5, 0.5, 0.5)
    difference = figures.differences["majority"]["macro_auroc"]
    assert difference.value == pytest.approx(figures.probes.estimates["macro_auroc"].value - 0.5)


def test_the_scale_of_a_fold_does_not_matter_to_ranks(answers, targets):
    squeezed = {**answers, "probe/model": answers["probe/model"].copy()}
    squeezed["probe/model"][answers["fold"] == 1] *= 0.01
    one, other = (measure_answers(given, targets, RESAMPLING).probes.estimates for given in (answers, squeezed))
    assert one["macro_auroc"] == other["macro_auroc"]
    assert one["macro_f1"].value > other["macro_f1"].value  # yes and no are read off the probabilities


def test_one_fold_alone_is_measured_as_it_is(answers, targets):
    rows = answers["fold"] == 2
    of_fold = {name: array[rows] for name, array in answers.items()}
    figures = measure_answers(of_fold, targets.select(rows, "fold 2"), RESAMPLING)
    expected = roc_auc_score(targets.labels[rows, 0], answers["probe/model"][rows, 0])
    assert figures.probes.estimates["auroc/bulge"].value == pytest.approx(expected)


def test_a_label_that_a_fold_could_not_learn_is_undefined_with_its_fold(answers, targets):
    probabilities = answers["probe/model"].copy()
    probabilities[answers["fold"] == 1, 1] = np.nan
    answers |= {"probe/model": probabilities, "probe/majority": probabilities}
    figures = measure_answers(answers, targets, RESAMPLING)
    estimate = figures.probes.estimates["auroc/stenosis"]
    assert np.isnan(estimate.value) and "`stenosis`" in estimate.reason and "(fold 1)" in estimate.reason
    assert figures.probes.estimates["macro_auroc"].value == figures.probes.estimates["auroc/bulge"].value
    assert figures.differences["majority"]["macro_auroc"].value == 0
    assert np.isnan(ranks_within_folds(probabilities, answers["fold"])[:, 1]).sum() == 40


def test_folds_that_do_not_fit_together_are_refused(answers):
    fold = {name: array[:3] for name, array in answers.items()}
    without = {name: array for name, array in fold.items() if not name.endswith("/majority")}
    with pytest.raises(ValueError, match=r"fold-0 and fold-1 holds grade/majority, probe/majority.*--baselines"):
        pool([fold, without])
    with pytest.raises(ValueError, match="6 answers but not one for each row"):
        pool([fold, fold])


def test_what_a_fold_lacks_is_left_out_and_named():
    folds = [{"row": np.array([1]), "a": np.array([5]), "b": np.array([6])}, {"row": np.array([0]), "a": np.array([7])}]
    for order in (folds, folds[::-1]):
        pooled, left_out = pool_shared(order)
        assert left_out == ["b"] and pooled.keys() == {"row", "a"} and pooled["a"].tolist() == [7, 5]
    with pytest.raises(ValueError, match="not one for each row"):
        pool_shared(folds[:1])
