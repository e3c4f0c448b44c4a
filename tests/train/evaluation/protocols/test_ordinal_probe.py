import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from train.evaluation.protocols.grade_probe import grade_measures
from train.evaluation.protocols.ordinal_probe import (
    fit_ordinal_grader,
    fit_proportional_odds,
    log_likelihoods,
    ordinal_probe,
)

THRESHOLDS = np.array([-2.0, -0.5, 1.5])


def graded_rows(num_rows, seed=0, strength=1.5):
    """Grades drawn from the model itself: one feature tells, with three thresholds; three do not."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(num_rows, 4))
    return features, (strength * features[:, 0] + rng.logistic(size=num_rows) > THRESHOLDS[:, None]).sum(0)


@pytest.fixture
def graded(make_targets):
    sizes = {"train": 400, "validation": 200, "test": 300}
    rows = {split: graded_rows(size, seed) for seed, (split, size) in enumerate(sizes.items())}
    grades = {split: of[1].copy() for split, of in rows.items()}
    for of_split in grades.values():
        of_split[::10] = -1
    labels = {split: np.ones((size, 1)) for split, size in sizes.items()}
    return {split: of[0] for split, of in rows.items()}, make_targets(labels, ["any"], grades, tuple("ABCD"))


def test_finds_the_model_that_the_grades_were_drawn_from():
    features, grades = graded_rows(20_000)
    fitted = fit_proportional_odds(features, grades, penalty=1e-6)
    np.testing.assert_allclose(fitted.weights / fitted.scaler.scale_, [1.5, 0, 0, 0], atol=0.06)
    np.testing.assert_allclose(fitted.thresholds, THRESHOLDS, atol=0.06)


def test_two_grades_make_a_logistic_regression():
    """That of scikit-learn, with C = 1 / penalty."""
    features, grades = graded_rows(300)
    binary = (grades > 1).astype(int) * 3  # indices 0 and 3: the other two do not occur
    ours = fit_proportional_odds(features, binary, penalty=20.0)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=1 / 20, tol=1e-8)).fit(features, binary)
    np.testing.assert_allclose(ours.probabilities(features), theirs.predict_proba(features), atol=1e-4)
    assert ours.grades.tolist() == [0, 3]


def test_gradients_are_those_of_finite_differences():
    features, grades = graded_rows(30)
    scores = 40 * features[:, 0]  # so far from the thresholds that a difference of sigmoids would be 0

    def of_scores(values):
        return log_likelihoods(values, THRESHOLDS, grades)[0]

    def of_thresholds(values):
        return log_likelihoods(scores, values, grades)[0]

    _, by_score, by_threshold = log_likelihoods(scores, THRESHOLDS, grades)
    np.testing.assert_allclose(by_score, approx_fprime(scores, of_scores), atol=1e-4)
    np.testing.assert_allclose(by_threshold, approx_fprime(THRESHOLDS, of_thresholds), atol=1e-4)
    plain = [
        np.log(np.diff(expit(np.array([-np.inf, *THRESHOLDS, np.inf]) - score))[grade])
        for score, grade in zip(features[:, 0], grades, strict=True)
    ]
    assert log_likelihoods(features[:, 0], THRESHOLDS, grades)[0] == pytest.approx(sum(plain))


def test_features_that_tell_nothing_leave_the_shares_of_the_grades():
    _, grades = graded_rows(200)
    fitted = fit_proportional_odds(np.zeros((200, 2)), grades, penalty=1.0)
    shares = np.bincount(grades).cumsum()[:-1] / 200
    np.testing.assert_allclose(fitted.thresholds, logit(shares), atol=1e-3)


def test_predicts_grades_and_leaves_rows_without_out(graded):
    features, targets = graded
    predicted = ordinal_probe(features, targets)
    np.testing.assert_array_equal(predicted == -1, np.arange(300) % 10 == 0)
    measures = grade_measures(targets["test"], predicted)
    assert measures["quadratic_kappa"].value() > 0.4
    shares = np.bincount(predicted[predicted >= 0], minlength=4) / 270
    np.testing.assert_allclose(shares, np.bincount(targets["train"].grades.clip(0)) / 400, atol=0.12)


def test_the_penalty_is_that_of_the_validation_patients_and_no_test_row_counts(graded):
    features, targets = graded
    grades = {split: of.grades.clip(0) for split, of in targets.items()}
    noisy = {
        split: np.c_[rows, np.random.default_rng(7).normal(size=(len(rows), 150))] for split, rows in features.items()
    }
    chosen = fit_ordinal_grader(noisy, grades, 4).regression
    free = fit_proportional_odds(*(np.concatenate([of["train"], of["validation"]]) for of in (noisy, grades)), 0.1)
    assert np.linalg.norm(chosen.weights) < 0.8 * np.linalg.norm(free.weights)
    again = fit_ordinal_grader(noisy | {"test": noisy["test"] * 100}, grades | {"test": grades["test"] * 0}, 4)
    np.testing.assert_array_equal(again.regression.weights, chosen.weights)


@pytest.mark.parametrize("occurring", [[2], [0, 3], [1, 2]])
def test_a_grade_that_never_occurs_is_never_predicted(graded, occurring):
    features, targets = graded
    grades = {split: np.array(occurring)[of.grades.clip(0) % len(occurring)] for split, of in targets.items()}
    predicted = fit_ordinal_grader(features, grades, 4).predict(features["test"] * 50)
    assert set(predicted) <= set(occurring)


def test_a_grade_that_only_validation_patients_have_is_learned_in_the_end(graded):
    features, targets = graded
    grades = {split: of.grades.clip(0) for split, of in targets.items()}
    grades["train"] = grades["train"].clip(max=2)
    assert fit_ordinal_grader(features, grades, 4).regression.grades.tolist() == [0, 1, 2, 3]


def test_without_grades_there_is_no_probe(planted):
    assert ordinal_probe(*planted) is None
