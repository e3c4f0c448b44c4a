"""The scope of a trained model: what its rows show, a covariance that is shrunk, a threshold that keeps its promise."""

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from sklearn.covariance import LedoitWolf

from data_scripts.records import PLANES, SEQUENCES
from modeling_lumbarclip.configuration_lumbarclip import Scope
from modeling_lumbarclip.scope_lumbarclip import ScopeStatistics
from train.data.loaders import open_dataset
from train.evaluation.checkpoint_scope import (
    FALSE_ALARM_RATE,
    describe_rows,
    fit_scope,
    fit_statistics,
    held_back_share,
    measure_scope,
    threshold_of,
)
from train.evaluation.statistics.minima import PATIENTS_FOR_SCOPE

WIDTH = 24  # of the tiny vision tower


def rows(patients, planes=("axial",), sequences=("T2",), source="real"):
    """Rows of these patients; planes and sequences take turns."""
    features = {"patient_id": Value("string"), "source": Value("string")}
    features |= {"plane": ClassLabel(names=list(PLANES)), "sequence": ClassLabel(names=list(SEQUENCES))}
    columns = {
        "patient_id": list(patients),
        "source": [f"{source}/{number}" for number in range(len(patients))],
        "plane": [planes[number % len(planes)] for number in range(len(patients))],
        "sequence": [sequences[number % len(sequences)] for number in range(len(patients))],
    }
    return Dataset.from_dict(columns, features=Features(features))


def patients(number, images=4):
    return [f"p{patient}" for patient in range(number) for _ in range(images)]


def encoder(seed=0, shift=0.0):
    """Gives features of a training distribution; images of a patient are alike."""

    def encode(split, of_split):
        generator = np.random.default_rng([seed, len(split)])
        scales = np.linspace(3, 0.1, WIDTH)
        of_patient = {patient: generator.normal(size=WIDTH) for patient in sorted(set(of_split["patient_id"]))}
        drawn = [of_patient[patient] + generator.normal(size=WIDTH) for patient in of_split["patient_id"]]
        return (shift + 50 + scales * np.array(drawn)).astype(np.float32)

    return encode


def splits(train=40, validation=20, **columns):
    return {"train": rows(patients(train), **columns), "validation": rows(patients(validation), **columns)}


@pytest.mark.parametrize(
    ("planes", "sequences", "expected"),
    [
        (["axial"], ["T1", "T2"], (["axial"], ["T1", "T2"])),
        (["unknown"], ["other"], ([], ["other"])),
        (["axial", "unknown", "axial"], ["unknown", "unknown", "T2"], (["axial"], [])),
        (["sagittal", "sagittal", "axial"], ["T2_SPACE"], (["sagittal", "axial"], ["T2_SPACE"])),
        (["axial"] * 199 + ["sagittal"], ["T2"], (["axial"], ["T2"])),  # one stray row is no part of the scope
    ],
)
def test_the_rows_say_what_they_show(planes, sequences, expected):
    described = describe_rows(rows(patients(100), planes, sequences), "knee")
    assert (described["planes"], described["sequences"]) == expected
    assert (described["anatomy"], described["is_synthetic"], described["num_patients"]) == ("knee", False, 100)


@pytest.mark.parametrize(("sources", "drawn"), [("synthetic", True), ("spider", False)])
def test_drawn_images_are_called_drawn(sources, drawn):
    assert describe_rows(rows(patients(2), source=sources), None)["is_synthetic"] is drawn


def test_one_real_row_makes_a_mixed_set_real():
    mixed = rows(["a", "b"], source="synthetic").to_dict() | {"source": ["synthetic/0", "spider/1"]}
    assert describe_rows(Dataset.from_dict(mixed), None)["is_synthetic"] is False


def test_the_covariance_is_that_of_ledoit_and_wolf():
    features = encoder()("train", rows(patients(10)))
    fitted = fit_statistics(features)
    module = ScopeStatistics(WIDTH, len(fitted["directions"]))
    module.load({name: torch.from_numpy(value) for name, value in fitted.items()})
    roots = np.sign(features) * np.sqrt(np.abs(features.astype(np.float64)))
    expected = LedoitWolf().fit(roots).mahalanobis(roots)
    np.testing.assert_allclose(module(torch.from_numpy(features)), np.sqrt(expected / WIDTH), rtol=1e-4)


@pytest.mark.parametrize("shape", [(5, 700), (300, 700), (2, 3), (50, 1)])
def test_few_images_and_wide_towers_have_finite_statistics(shape):
    fitted = fit_statistics(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    assert fitted["directions"].shape == (min(256, shape[1] - 1), shape[1])
    assert all(np.isfinite(value).all() for value in fitted.values()) and (fitted["variances"] > 0).all()


def test_a_collapsed_tower_has_statistics_too():
    fitted = fit_statistics(np.ones((40, 8), np.float32))
    assert all(np.isfinite(value).all() for value in fitted.values()) and (fitted["variances"] > 0).all()


def test_the_threshold_keeps_its_rate_on_new_images():
    generator = np.random.default_rng(0)
    alarms = [np.mean(generator.normal(size=500) > threshold_of(generator.normal(size=99))) for _ in range(400)]
    assert np.mean(alarms) == pytest.approx(FALSE_ALARM_RATE, abs=0.005)


def test_a_model_keeps_its_scope_and_holds_back_what_is_unlike(tiny_model):
    fit_scope(tiny_model, splits(), "knee", encoder())
    scope = Scope.from_dict(tiny_model.config.scope)
    assert (scope.anatomy, scope.num_patients, scope.no_check) == ("knee", 40, "")
    assert (scope.check.num_images, scope.check.num_patients, scope.check.false_alarm_rate) == (80, 20, 0.05)
    new = rows([f"new{patient}" for patient in range(300)])
    alike, unlike = (torch.from_numpy(encoder(shift=shift)("other", new)) for shift in (0, 40))
    assert np.mean([reason is not None for reason in tiny_model.scope_reasons(alike)]) < 0.15
    assert all(tiny_model.scope_reasons(unlike))


@pytest.mark.parametrize(
    ("validation", "said"),
    [
        ([], "0 images of 0 validation patients"),
        (patients(1, images=50), "50 images of 1 validation patient;"),
        (patients(PATIENTS_FOR_SCOPE - 1), "36 images of 9 validation patients"),
        (patients(PATIENTS_FOR_SCOPE, images=1), "10 images of 10 validation patients"),
    ],
)
def test_without_enough_validation_patients_there_is_no_check_and_it_is_said(tiny_model, validation, said):
    def encode(split, of_split):
        raise AssertionError("nothing needs encoding")

    of_splits = {"train": rows(patients(9)), "validation": rows(validation)}
    fit_scope(tiny_model, of_splits, None, encode)
    assert tiny_model.scope is None and tiny_model.config.scope["check"] is None
    assert said in tiny_model.config.scope["no_check"]
    assert "the check needs 19 images of 10 patients" in tiny_model.config.scope["no_check"]
    assert tiny_model.scope_reasons(torch.full((1, WIDTH), 1e9)) == [None]
    assert tiny_model.scope_reasons(torch.zeros(1, WIDTH), [{"plane": "sagittal"}]) != [None]


def test_features_that_are_not_finite_make_no_check(tiny_model):
    fit_scope(tiny_model, splits(), None, lambda split, of_split: np.full((len(of_split), WIDTH), np.nan, np.float32))
    assert "validation" not in tiny_model.config.scope["no_check"] and "NaN" in tiny_model.config.scope["no_check"]


def test_a_tower_that_gives_equal_features_makes_no_check(tiny_model):
    fit_scope(tiny_model, splits(), None, lambda split, of_split: np.ones((len(of_split), WIDTH), np.float32))
    assert "same features" in tiny_model.config.scope["no_check"]


def test_only_a_sample_of_many_images_is_encoded(tiny_model, monkeypatch):
    monkeypatch.setattr("train.evaluation.checkpoint_scope.MAX_IMAGES", 30)
    asked = {}

    def encode(split, of_split):
        asked[split] = len(of_split)
        return encoder()(split, of_split)

    fit_scope(tiny_model, splits(), None, encode)
    assert asked == {"train": 30, "validation": 80}
    assert tiny_model.config.scope["num_patients"] == 40  # of all rows


def test_false_alarms_are_measured_by_patient(tiny_model):
    fit_scope(tiny_model, splits(), "knee", encoder())
    test = rows(patients(20))
    features = encoder()("test", test)
    features[:8] += 100  # two patients
    measured = measure_scope(tiny_model, features, np.array(test["patient_id"]))
    assert measured["held_back"]["value"] >= 0.1
    assert measured["held_back"]["low"] < measured["held_back"]["value"] < measured["held_back"]["high"]
    assert measured["in_words"] == "axial T2 slices of the knee (40 patients)"
    assert (measured["aim"], measured["num_validation_patients"], measured["num_patients"]) == (0.05, 20, 20)


@pytest.mark.parametrize(("held", "low", "high"), [(0, 0.0, 0.161), (60, 0.839, 1.0), (30, 0.299, 0.701)])
def test_an_interval_counts_patients_and_has_a_width_if_none_or_all_are_held_back(held, low, high):
    share = held_back_share([True] * held + [False] * (60 - held), [f"p{image // 3}" for image in range(60)])
    assert (share.value, share.n) == (held / 60, 60)
    assert (share.low, share.high) == (pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3))


def test_without_scope_or_check_there_are_no_false_alarms_to_measure(tiny_model):
    arguments = np.zeros((3, WIDTH), np.float32), np.array(["a", "b", "c"])
    assert measure_scope(tiny_model, *arguments) is None
    fit_scope(tiny_model, splits(validation=2), None, encoder())
    measured = measure_scope(tiny_model, *arguments)
    assert measured["held_back"] is None and "8 images of 2" in measured["no_check"]


def test_a_built_dataset_has_the_columns(tiny_dataset_folder):
    described = describe_rows(open_dataset(str(tiny_dataset_folder))["train"], None)
    assert (described["planes"], described["sequences"]) == (["axial"], ["T1", "T2"])
