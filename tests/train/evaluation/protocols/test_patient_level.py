import dataclasses
import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from train.evaluation.protocols.patient_level import (
    mean_over_patients,
    patient_measures,
    patient_targets,
)
from train.evaluation.statistics.bootstrap import Resampling, estimates_of

FEW = Resampling(50)


def of_patients(targets, patient_ids):
    return dataclasses.replace(targets, patient_ids=np.array(list(patient_ids)))


def test_the_mean_equals_the_obvious_loop():
    rng = np.random.default_rng(0)
    patient_ids, values = rng.integers(0, 7, 50).astype(str), rng.normal(size=(50, 3))
    expected = [np.mean([v for v, p in zip(values, patient_ids, strict=True) if p == q], 0) for q in "0123456"]
    np.testing.assert_allclose(mean_over_patients(values, patient_ids), expected)


def test_any_row_with_a_finding_gives_it_to_the_patient(make_targets):
    #          bulge, stenosis, No Finding
    rows = [[1, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 0]]
    labels = np.array([*rows, [1, 1, 0]])
    targets = make_targets({"test": labels}, ["bulge", "stenosis", "No Finding"])["test"]
    pooled = patient_targets(of_patients(targets, "cccaabc"))
    assert pooled.patient_ids.tolist() == ["a", "b", "c"]
    # `b` has no label at all: nothing is known of it, so it is no `No Finding` either.
    assert pooled.labels.astype(int).tolist() == [[0, 0, 1], [0, 0, 0], [1, 1, 0]]


def test_exclusive_patients_have_one_label_that_of_most_rows(make_targets):
    classes = np.array([2, 2, 2, 0, 1, 1, 2, 0, 1, 2])  # patients: a aaa bbb cc d
    targets = make_targets({"test": np.eye(3)[classes]}, ["mild", "severe", "No Finding"])["test"]
    pooled = patient_targets(of_patients(targets, "aaaabbbccd"))
    assert [targets.label_names[k] for k in pooled.classes] == ["mild", "severe", "mild", "No Finding"]
    assert (pooled.labels.sum(1) == 1).all()


def test_a_patient_has_the_highest_grade_of_the_rows(make_targets):
    grades = {"test": np.array([1, 3, -1, -1, 0])}
    targets = make_targets({"test": np.eye(2)[[0, 0, 0, 1, 1]]}, ["LBP", "No Finding"], grades, "ABCD")["test"]
    assert patient_targets(of_patients(targets, "aaabc")).grades.tolist() == [3, -1, 0]


def test_metrics_count_patients_and_equal_sklearn(make_targets):
    rng = np.random.default_rng(0)
    patient_ids = np.repeat([f"p{i:02d}" for i in range(20)], 3)
    labels = np.eye(2)[rng.integers(0, 2, 60) | rng.integers(0, 2, 60)]
    targets = of_patients(make_targets({"test": labels}, ["LBP", "No Finding"])["test"], patient_ids)
    probabilities = rng.dirichlet([1, 1], 60)
    figures = estimates_of(patient_measures(targets, probabilities), FEW)
    positive = labels[:, 0].reshape(20, 3).any(1)
    pooled = probabilities[:, 0].reshape(20, 3).mean(1)
    assert figures["auroc"].n == 20
    assert figures["auroc"].value == pytest.approx(roc_auc_score(positive, pooled))
    assert figures["accuracy"].value == pytest.approx(((pooled > 0.5) == positive).mean())


def test_answers_for_the_patient_are_measured_as_they_are(make_targets):
    """The same probability in all rows of a patient, as attention pooling gives it; rows in any order."""
    rng = np.random.default_rng(1)
    targets = make_targets({"test": rng.random((40, 2)) < 0.3}, ["bulge", "stenosis"])["test"]
    of_patient = rng.random((10, 2))
    rows = patient_measures(targets, of_patient[np.repeat(np.argsort(np.arange(10).astype(str)), 4)])
    order = rng.permutation(40)
    shuffled = patient_measures(
        targets.select(order, "test"), of_patient[np.repeat(np.argsort(np.arange(10).astype(str)), 4)][order]
    )
    assert {name: e.value() for name, e in rows.items()} == pytest.approx({n: e.value() for n, e in shuffled.items()})


def test_a_finding_that_could_not_be_learned_is_nan_with_its_name(make_targets):
    labels = np.array([[1, 0], [0, 1], [0, 0], [1, 1]] * 4)
    targets = of_patients(make_targets({"test": labels}, ["bulge", "stenosis"])["test"], "abcd" * 4)
    probabilities = np.where(labels, 0.9, 0.2).astype(float)
    probabilities[:, 1] = np.nan
    figures = estimates_of(patient_measures(targets, probabilities), FEW)
    assert figures["macro_auroc"].value == figures["auroc/bulge"].value == 1
    assert math.isnan(figures["auroc/stenosis"].value)
    assert "`stenosis`" in figures["auroc/stenosis"].reason
