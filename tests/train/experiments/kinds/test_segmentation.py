"""An experiment of seconds: two segmenters and a U-Net on drawn discs, cut into folds."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from accelerate import Accelerator
from datasets import Dataset, DatasetDict
from PIL import Image

from data_scripts.lumbar_builder import dataset_features
from data_scripts.records import SourceAbout, SourceInfo
from train.experiments.data import open_experiment_data
from train.experiments.experiment import run_experiment
from train.experiments.kinds import kind_named
from train.experiments.runner import folder_of
from train.experiments.spec import ExperimentArguments, plan_runs

pytest.importorskip("monai")

NAMES = ("background", "vertebra", "disc")
SETTINGS = {
    "pretrained": False,
    "vision": "test_convnext",
    "cross_attention": "none",
    "decoder_widths": [8, 8],
    "image_size": 32,
    "batch_size": 4,
    "learning_rate": "1e-2",
    "layer_decay": 0.9,  # of towers; a U-Net has none
    "max_updates": 3,
    "augment": False,
    "report_to": "none",
}


@pytest.fixture(scope="module")
def masked_folder(tmp_path_factory):
    """Twelve patients, two slices each, of which one has a pseudo-mask and one none."""
    about = SourceAbout(name="tiny", summary="", license="other: none", citation="", size="", where="")
    features = dataset_features(SourceInfo(about=about, label_names=(), mask_names=NAMES))
    folder = tmp_path_factory.mktemp("masked")
    (folder / "data").mkdir()
    rng = np.random.default_rng(0)
    for split, patients in {"train": range(6), "validation": range(6, 9), "test": range(9, 12)}.items():
        rows = []
        for patient in patients:
            for slice_index in range(2):
                mask = np.zeros((36, 28), dtype=np.uint8)
                mask[4 : 12 + patient % 4, 6:20], mask[20:30, 6:22] = 1, 2
                image = (mask * 90 + rng.integers(0, 40, mask.shape)).astype(np.uint8)
                rows.append(
                    dict.fromkeys(features)
                    | {
                        "image": Image.fromarray(image),
                        "report": f"Slice {slice_index} of patient {patient}.",
                        "rephrasings": [],
                        "patient_id": f"tiny-{patient:02d}",
                        "study_id": f"tiny-{patient:02d}",
                        "series_id": "1",
                        "slice_index": slice_index,
                        "plane": "sagittal",
                        "sequence": "T2",
                        "level": "several",
                        "pixel_spacing_mm": 1.0,
                        "mask": None if (patient, slice_index) == (1, 1) else Image.fromarray(mask),
                        "mask_classes": [1, 2],
                        "mask_origin": "pseudo" if (patient, slice_index) == (0, 1) else "source",
                        "source": f"tiny/{patient:02d}/{slice_index}",
                    }
                )
        Dataset.from_list(rows, features=features).to_parquet(folder / "data" / f"{split}.parquet")
    return folder


@pytest.fixture(scope="module")
def experiment(masked_folder, tmp_path_factory):
    """An experiment that was run."""
    arguments = ExperimentArguments(
        dataset=str(masked_folder),
        out=str(tmp_path_factory.mktemp("experiments") / "masks"),
        folds=3,
        allow_leaks=True,
        settings=SETTINGS,
        systems={"Ours": {"system": "segmentation"}, "U-Net": {"system": "unet"}},
        num_resamples=20,
    )
    run_experiment(arguments)
    return arguments


def results_of(experiment):
    return json.loads((folder_of(plan_runs(experiment)[0]).parents[1] / "results.json").read_text())


def test_segmenters_are_compared_by_dice_on_the_same_patients(experiment):
    results = results_of(experiment)
    assert results["headline"]["group"] == "segmentation" and results["headline"]["metric"] == "macro_dice"
    assert results["dataset"]["num_rows"] == 22 and results["dataset"]["missing_labels"] == ""
    assert {title: system["cost"]["num_finished"] for title, system in results["systems"].items()} == {
        "Ours": 3,
        "U-Net": 3,
    }
    for system in results["systems"].values():
        metrics = system["metrics"]["segmentation"]
        assert 0 <= metrics["macro_dice"]["value"] <= 1 and metrics["macro_dice"]["n"] == 12
        assert {"dice/disc", "iou/vertebra", "hausdorff_95_mm/disc", "missed/disc"} <= metrics.keys()
        assert system["mean_over_folds"]["segmentation"]["macro_dice"]["n"] == 3
    assert results["baselines"]["resolution_limit"]["metrics"]["segmentation"]["macro_dice"]["value"] > 0.97


def test_the_neighbour_has_about_as_many_parameters(experiment):
    ours, unet = (system["cost"]["num_parameters"] for system in results_of(experiment)["systems"].values())
    assert unet == pytest.approx(ours, rel=0.3)


def test_the_report_leads_with_dice_and_shows_each_class(experiment):
    folder = folder_of(plan_runs(experiment)[0]).parents[1]
    report = (folder / "report.md").read_text()
    assert "macro Dice" in report and "limit of the resolution" in report and "parameters" in report
    assert "Labels**" not in report
    assert (folder / "figures/systems.png").exists()
    progress = (folder / "progress.md").read_text()
    assert "macro Dice" in progress


def test_predictions_have_a_row_for_each_image_and_class_and_name_the_fold(experiment):
    rows = []
    for run in plan_runs(experiment):
        table = pq.read_table(folder_of(run) / "predictions.parquet").to_pandas()
        assert set(table["fold"]) == {run.fold} and set(table["class"]) == set(NAMES[1:])
        rows += table["row"].tolist() if run.title == "Ours" else []
    assert sorted(rows) == sorted([*range(22)] * 2)


def test_a_finished_experiment_is_not_run_again_and_baselines_are_kept(experiment, monkeypatch):
    kind = kind_named("segmentation")
    monkeypatch.setattr(type(kind), "learn", lambda *_: pytest.fail("trained again"))
    monkeypatch.setattr("train.experiments.kinds.segmentation.score_limit", lambda *_: pytest.fail("scored again"))
    before = results_of(experiment)
    run_experiment(experiment)
    after = results_of(experiment)
    assert {**after, "date": "", "command": ""} == {**before, "date": "", "command": ""}


def test_a_unet_that_was_trained_but_not_measured_is_loaded(experiment, masked_folder, tmp_path):
    """As after a kill between training and predicting."""
    arguments = ExperimentArguments(
        dataset=str(masked_folder),
        out=str(tmp_path / "masks"),
        allow_leaks=True,
        settings=SETTINGS | {"max_updates": 1},
        systems={"U-Net": {"system": "unet"}},
    )
    (run,) = plan_runs(arguments)
    (fold,) = open_experiment_data(arguments, False).folds
    kind = kind_named("segmentation")
    _, trained = kind.learn(run, fold, Accelerator())
    task, loaded = kind.learn(run, fold, Accelerator())  # from its checkpoint
    weights = trained.state_dict()
    assert all((value == weights[name]).all() for name, value in loaded.state_dict().items())
    assert kind.predict((task, loaded), run, fold, tmp_path / "p.parquet")["num_parameters"] > 0
    assert kind.steps_of_epoch(run, fold, Accelerator()) == 2
    assert kind.pairs_per_second(run, fold, Accelerator()) > 0


def test_slices_beside_the_spine_do_not_stop_the_timing(masked_folder, tmp_path):
    arguments = ExperimentArguments(
        dataset=str(masked_folder),
        out=str(tmp_path / "masks"),
        allow_leaks=True,
        settings=SETTINGS,
        systems={"Ours": {"system": "segmentation"}},
    )
    (run,) = plan_runs(arguments)
    (fold,) = open_experiment_data(arguments, False).folds
    empty = Image.fromarray(np.zeros((36, 28), dtype=np.uint8))
    emptied = {
        split: rows.map(lambda row, index: {"mask": empty if index < 2 else row["mask"]}, with_indices=True)
        for split, rows in fold.dataset.items()
    }
    kind = kind_named("segmentation")
    assert kind.pairs_per_second(run, replace(fold, dataset=DatasetDict(emptied)), Accelerator()) > 0


def test_a_dataset_without_masks_is_named(tiny_dataset_folder, tmp_path):
    arguments = ExperimentArguments(
        dataset=str(tiny_dataset_folder),
        out=str(tmp_path),
        settings=SETTINGS,
        systems={"A": {"system": "segmentation"}},
    )
    with pytest.raises(ValueError, match="A split has no mask that an expert drew"):
        open_experiment_data(arguments, False)
