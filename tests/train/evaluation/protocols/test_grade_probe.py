import numpy as np
import pytest

from train.evaluation.protocols.grade_probe import fit_grader, grade_measures, grade_probe

NAMES = tuple("12345")


@pytest.fixture
def graded(make_targets):
    """Grades 0-4, most of them 2, read off one noisy feature; every tenth row has no grade."""
    rng = np.random.default_rng(0)
    grades, features, labels = {}, {}, {}
    for split, size in (("train", 400), ("validation", 400), ("test", 400)):
        grades[split] = rng.choice(5, size, p=[0.1, 0.2, 0.4, 0.2, 0.1])
        features[split] = rng.normal(size=(size, 6))
        features[split][:, 0] += 4 * grades[split]
        grades[split][::10] = -1
        labels[split] = np.ones((size, 1))
    return features, make_targets(labels, ["any"], grades, NAMES)


def test_reads_a_planted_grade_and_leaves_ungraded_rows_out(graded):
    features, targets = graded
    predicted = grade_probe(features, targets)
    np.testing.assert_array_equal(predicted == -1, np.arange(400) % 10 == 0)
    measures = grade_measures(targets["test"], predicted)
    assert len(measures["quadratic_kappa"].patient_ids) == 360
    assert measures["quadratic_kappa"].value() > 0.85
    assert measures["mean_absolute_error"].value() < 0.4


def test_gives_each_grade_about_as_often_as_it_occurs(graded):
    """A weak feature makes the regression answer near the mean; the cut-points keep the extreme grades."""
    features, targets = graded
    rng = np.random.default_rng(1)
    weak = {split: rows + rng.normal(0, 8, rows.shape) for split, rows in features.items()}
    predicted = grade_probe(weak, targets)
    shares = np.bincount(predicted[predicted >= 0], minlength=5) / 360
    np.testing.assert_allclose(shares, [0.1, 0.2, 0.4, 0.2, 0.1], atol=0.06)
    assert shares[0] > 0
    assert shares[4] > 0


def test_never_sees_test_rows_in_fitting(graded):
    features, targets = graded
    grades = {split: split_targets.grades.clip(0) for split, split_targets in targets.items()}
    before = fit_grader(features, grades, 5)
    after = fit_grader(features | {"test": features["test"] * 100}, grades | {"test": grades["test"] * 0}, 5)
    np.testing.assert_array_equal(before.cut_points, after.cut_points)
    np.testing.assert_array_equal(before.regression[-1].coef_, after.regression[-1].coef_)


def test_no_information_gives_no_kappa(graded):
    _, targets = graded
    constant = {split: np.zeros((len(split_targets), 1)) for split, split_targets in targets.items()}
    assert grade_measures(targets["test"], grade_probe(constant, targets))["quadratic_kappa"].value() == 0


def test_without_grades_there_is_no_probe(planted):
    features, targets = planted
    assert grade_probe(features, targets) is None


def test_a_grade_beyond_all_that_occur_is_never_answered(graded):
    """The refitted regression answers a hair beside the first one; where all have one grade, that must not matter."""
    features, targets = graded
    grades = {split: np.full(len(split_targets), 2) for split, split_targets in targets.items()}
    assert set(fit_grader(features, grades, 5).predict(features["test"])) == {2}
    high = {split: (rows[:, 0] > 8).astype(int) for split, rows in features.items()}
    grades = {split: grades[split] + high[split] for split in grades}
    assert set(fit_grader(features, grades, 5).predict(features["test"] * 50)) == {2, 3}


@pytest.mark.filterwarnings("error")
def test_features_of_single_precision_that_repeat_each_other_are_well_conditioned():
    random = np.random.default_rng(0)
    few = random.standard_normal((120, 2)).astype(np.float32)
    features = {"train": np.repeat(few[:80], 20_000, axis=1), "validation": np.repeat(few[80:], 20_000, axis=1)}
    grades = {split: (of_split[:, 0] > 0).astype(int) for split, of_split in features.items()}
    assert (fit_grader(features, grades, 2).predict(features["validation"]) == grades["validation"]).mean() > 0.9
