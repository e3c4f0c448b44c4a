"""The baselines of a fold are predicted once for the same rows, and again for others."""

from dataclasses import replace

import numpy as np
import pytest
import timm
from datasets import load_dataset

from train.evaluation.predict import PROBES
from train.experiments.data import Fold
from train.experiments.kinds import pretraining
from train.experiments.kinds.pretraining import baselines_of


@pytest.fixture
def fold(tiny_dataset_folder):
    dataset = load_dataset(str(tiny_dataset_folder))
    return Fold(0, dataset, np.arange(len(dataset["test"])))


def test_baselines_of_other_rows_are_answered_anew(fold, tmp_path, monkeypatch):
    asked = []
    predict = pretraining.predict_majority
    monkeypatch.setattr(pretraining, "predict_majority", lambda of: asked.append(len(of["test"])) or predict(of))
    first = baselines_of(fold, ["majority"], tmp_path)["majority"]
    again = baselines_of(fold, ["majority"], tmp_path)["majority"]
    assert asked == [12] and first.keys() == again.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(again[name], array)
    fewer = fold.dataset.copy()
    fewer["train"] = fewer["train"].select(np.flatnonzero(np.array(fewer["train"]["labels"][:]).ravel() == 1))
    of_others = baselines_of(replace(fold, dataset=fewer), ["majority"], tmp_path)["majority"]
    assert asked == [12, 12]
    for probe in PROBES:
        assert (of_others[f"probe/{probe}/unprojected"] == [0, 1]).all()
        assert not (first[f"probe/{probe}/unprojected"] == [0, 1]).any()


def test_a_baseline_that_cannot_be_had_is_left_out_and_asks_for_nothing_again(fold, tmp_path, monkeypatch):
    monkeypatch.setattr("train.evaluation.baselines.imagenet_tower", lambda: (None, "no network"))
    names = ["hog", "texture", "imagenet"]
    first = baselines_of(fold, names, tmp_path)
    assert list(first) == ["hog", "texture"]
    monkeypatch.setattr(pretraining, "pixel_features", None)  # the file of the first start has all that can be had
    assert list(baselines_of(fold, names, tmp_path)) == ["hog", "texture"]


def test_a_baseline_that_an_earlier_start_lacked_is_predicted_now(fold, tmp_path, monkeypatch):
    monkeypatch.setattr("train.evaluation.baselines.imagenet_tower", lambda: (None, "no network"))
    baselines_of(fold, ["imagenet", "hog"], tmp_path)
    tower = timm.create_model("test_efficientnet", num_classes=0).eval()
    monkeypatch.setattr("train.evaluation.baselines.imagenet_tower", lambda: (tower, ""))
    assert list(baselines_of(fold, ["imagenet", "hog"], tmp_path)) == ["imagenet", "hog"]
