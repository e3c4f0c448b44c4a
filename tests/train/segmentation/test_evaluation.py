import json
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import ClassLabel, Dataset
from PIL import Image

from modeling_lumbarclip import LumbarCLIPImageProcessor
from train.data.loaders import have_pseudo_masks
from train.segmentation.evaluation import (
    evaluate_segmentation,
    predict_masks,
    score_limit,
    volumes_of,
)

NAMES = ("background", "vertebra", "disc")
LEVELS = 100  # grey value of a class, over that of the one before


class Reader(torch.nn.Module):
    """Reads the class of a pixel from its grey value."""

    def __init__(self):
        super().__init__()
        self.levels = torch.nn.Parameter(torch.arange(3.0) * LEVELS)

    def forward(self, pixel_values):
        grey = pixel_values.mean(1, keepdim=True) * 255
        return SimpleNamespace(logits=-((grey - self.levels[:, None, None]) ** 2))


@pytest.fixture
def processor():
    normalised = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    return LumbarCLIPImageProcessor(size={"height": 64, "width": 64}, **normalised)


def made_mask(patient, height=40, width=28):
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[4 : 14 + patient % 5, 6:20], mask[24:30, 6:22] = 1, 2
    return mask


def made_data(num_patients=4, wrong=(), spacing=0.5, pseudo=0, grades=None):
    """Two slices a patient, whose grey values are their classes; `wrong` patients show their disc as vertebra."""
    rows = []
    for row in range(2 * num_patients):
        mask = made_mask(row // 2)
        shown = np.where(mask == 2, 1, mask) if row // 2 in wrong else mask
        rows.append(
            {
                "image": Image.fromarray((shown * LEVELS).astype(np.uint8)),
                "mask": Image.fromarray(mask),
                "patient_id": f"p{row // 2}",
                "series_id": None,
                "plane": "sagittal",
                "sequence": "T2",
                "pixel_spacing_mm": spacing,
                "source": f"drawn/{row}",
                "report": "",
                "mask_origin": "pseudo" if row < pseudo else "source",
            }
        )
    dataset = Dataset.from_list(rows).cast_column("mask_origin", ClassLabel(names=["source", "pseudo"]))
    if grades is not None:
        dataset = dataset.add_column("grade", grades, feature=ClassLabel(names=["A", "B", "C"]))
    splits = dict.fromkeys(("train", "validation", "test"), dataset)
    return SimpleNamespace(
        class_names=NAMES,
        rows=splits,
        annotated={split: torch.ones(len(rows), 3, dtype=torch.bool) for split in splits},
        mask=lambda split, row: np.asarray(splits[split][int(row)]["mask"]),
    )


def evaluated(data, processor, folder):
    args = SimpleNamespace(batch_size=3, num_resamples=20, seed=0, dataset="data/drawn")
    facts = SimpleNamespace(leak_stamp=None)
    folder.mkdir(exist_ok=True)
    return evaluate_segmentation(Reader(), processor, data, args, facts, folder)


def test_a_mask_comes_back_on_the_grid_of_its_image(processor):
    data = made_data()
    masks = list(predict_masks(Reader(), processor, data.rows["test"], 3, data.annotated["test"]))
    assert len(masks) == 8 and masks[0].dtype == np.uint8
    for row, mask in enumerate(masks):
        truth = made_mask(row // 2)
        assert mask.shape == truth.shape
        assert (mask != truth).mean() < 0.08  # between two structures, grey values mix


def test_a_class_that_a_row_does_not_mark_is_not_asked(processor):
    data = made_data(num_patients=1)
    asked = torch.tensor([[True, True, True], [True, True, False]])
    first, second = predict_masks(Reader(), processor, data.rows["test"], 3, asked)
    assert set(np.unique(first)) == {0, 1, 2} and set(np.unique(second)) == {0, 1}


def test_dice_is_told_by_grade_where_images_have_grades(processor, tmp_path):
    data = made_data(wrong=(2,), grades=[0, 0, 0, 0, 2, 2, None, None])  # the wrong patient alone has C
    metrics = evaluated(data, processor, tmp_path / "run")["metrics"]
    of_grades = {name: entry["value"] for name, entry in metrics.items() if name.startswith("macro_dice_by_grade/")}
    assert list(of_grades) == [f"macro_dice_by_grade/{grade}" for grade in "ABC"]
    assert of_grades["macro_dice_by_grade/A"] > 0.9 > 0.5 > of_grades["macro_dice_by_grade/C"]
    assert metrics["macro_dice_by_grade/B"] == {"value": None, "low": None, "high": None, "n": 8} | {
        "reason": "no mask of an image of grade B"
    }
    report = (tmp_path / "run" / "report.md").read_text()
    assert "## Grades" in report and "| C " in report
    evaluated(made_data(), processor, tmp_path / "without")
    assert "## Grades" not in (tmp_path / "without" / "report.md").read_text()


def test_a_run_leaves_metrics_scores_report_and_worst_cases_first(processor, tmp_path):
    results = evaluated(made_data(wrong=(2,)), processor, tmp_path / "run")
    metrics = results["metrics"]
    assert results["classes"] == ["vertebra", "disc"]
    assert metrics["missed/disc"]["value"] == pytest.approx(1 / 4)
    assert metrics["dice/disc"]["value"] < 0.76 < metrics["dice/vertebra"]["value"]
    assert results["resolution_limit"]["dice/disc"]["value"] > 0.97
    assert "hausdorff_95_mm/disc" in metrics
    assert results["resolution_limit"]["hausdorff_95_mm/disc"]["value"] <= 0.5
    assert [image["source"] for image in results["worst"][:2]] == ["drawn/4", "drawn/5"]
    assert results["worst"][0]["by_class"]["disc"] == 0
    assert json.loads((tmp_path / "run/metrics.json").read_text()) == results
    assert len(pq.read_table(tmp_path / "run/predictions.parquet")) == 16
    report = (tmp_path / "run/report.md").read_text()
    assert "figures/cases.png" in report and report.index("drawn/4") < report.index("drawn/0")
    assert "pixels of the stored image" not in report
    assert {path.name for path in (tmp_path / "run/figures").glob("*.png")} == {"cases.png", "image_dice.png"}


def test_the_weights_of_an_adaptive_loss_are_drawn(processor, tmp_path):
    folder = tmp_path / "run"
    lines = [
        {"update": e, "epoch": e, "validation_loss": 0.5}
        | {f"{name}/{of}": 0.5 for name in ("error", "fn_weight") for of in NAMES[1:]}
        for e in (1, 2)
    ]
    folder.mkdir()
    (folder / "history.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    evaluated(made_data(), processor, folder)
    assert (folder / "figures/controller.png").exists()
    assert "figures/controller.png" in (folder / "report.md").read_text()


def test_without_spacing_distances_are_called_pixels(processor, tmp_path):
    results = evaluated(made_data(spacing=None), processor, tmp_path / "run")
    assert "hausdorff_95_pixels/disc" in results["metrics"] and "hausdorff_95_mm/disc" not in results["metrics"]
    assert "in pixels of the stored image, not in mm" in (tmp_path / "run/report.md").read_text().replace("\n", " ")


def test_a_report_says_that_masks_were_learned_which_no_expert_drew(processor, tmp_path):
    data = made_data(pseudo=3)
    assert have_pseudo_masks(data.rows["train"]).tolist() == [True] * 3 + [False] * 5
    evaluated(data, processor, tmp_path / "run")
    assert "3 of the 8 training masks were computed" in (tmp_path / "run/report.md").read_text()
    without = data.rows["train"].remove_columns("mask_origin")
    assert not have_pseudo_masks(without).any()


def test_a_coarser_model_is_allowed_less(processor):
    data = made_data()
    coarse = LumbarCLIPImageProcessor(size={"height": 16, "width": 16})
    counts = [
        sum(score_limit(of_size, data, "test")[f"true_positives/{name}"].sum() for name in NAMES[1:])
        for of_size in (processor, coarse)
    ]
    assert counts[0] > counts[1]


def test_slices_of_a_series_are_one_volume():
    rows = made_data(num_patients=2).rows["test"]
    assert volumes_of(rows) == ["p0/sagittal-T2"] * 2 + ["p1/sagittal-T2"] * 2
    named = rows.remove_columns("series_id").add_column("series_id", ["1", "2", "1", "1"])
    assert volumes_of(named) == ["p0/1", "p0/2", "p1/1", "p1/1"]
