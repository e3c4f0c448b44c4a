"""Figures of an evaluation say how much they show, and are left out where there is nothing to see."""

from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset, Image
from PIL import Image as Pillow

from train.evaluation.targets import Targets
from train.reporting.figures.evaluation import _abstention, _galleries, _system_comparison


def made_targets(num_rows):
    classes = np.arange(num_rows) % 2
    return Targets(
        split="test",
        label_names=("LBP", "No Finding"),
        labels=np.eye(2, dtype=bool)[classes],
        exclusive=True,
        grade_names=(),
        grades=np.full(num_rows, -1),
        patient_ids=np.array([f"p{row // 2}" for row in range(num_rows)]),
    )


@pytest.mark.parametrize(
    "num_rows, num_texts, titles",
    [
        (1, 1, ("1 of 1 reports", "1 of 1 images")),
        (4, 4, ("4 of 4 reports", "4 of 4 images")),
        (8, 3, ("3 of 3 reports", "5 of 8 images")),
        (12, 12, ("5 of 12 reports", "5 of 12 images")),
    ],
)
def test_galleries_count_what_they_show(num_rows, num_texts, titles):
    rng = np.random.default_rng(0)
    texts = [f"Report {row % num_texts}." for row in range(num_rows)]
    embeds = {name: rng.normal(size=(num_rows, 4)) for name in ("image_embeds", "text_embeds")}
    pictures = Dataset.from_dict({"image": [Pillow.new("L", (8, 8))] * num_rows}).cast_column("image", Image())
    encoded = SimpleNamespace(texts=texts, **embeds)
    figures = _galleries(encoded, made_targets(num_rows), pictures, "data", 0)
    assert [figure.get_suptitle().splitlines()[0].partition(", ")[2] for figure in figures] == list(titles)


@pytest.mark.parametrize("num_rows, is_drawn", [(4, False), (20, False), (39, False), (40, True)])
def test_a_curve_of_too_few_answers_is_not_drawn(num_rows, is_drawn):
    targets = made_targets(num_rows)
    probabilities = np.full((num_rows, 2), 0.5) + np.linspace(0, 0.4, num_rows)[:, None] * [1, -1]
    predictions = {f"calibrated/{name}": probabilities for name in ("zero_shot", "paper/unprojected")}
    results = {"further": {"calibration/zero_shot": {}, "calibration/paper": {}}}
    figure = _abstention(predictions, targets, results, "images", "data")
    assert (figure is not None) is is_drawn


def test_a_comparison_of_nothing_is_not_drawn():
    undefined = {"value": None, "low": None, "high": None, "n": 4, "reason": "no row"}
    results = {"linear_probe": {"macro_f1": undefined, "accuracy": undefined}, "baselines": {}}
    assert _system_comparison(made_targets(4), results, "data") is None
    results["linear_probe"]["accuracy"] = undefined | {"value": 0.5}
    assert _system_comparison(made_targets(4), results, "data") is not None
