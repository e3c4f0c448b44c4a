"""A run whose predicting failed keeps what it has learned."""

import json
import logging
from pathlib import Path

import pytest
from accelerate import Accelerator

from tests.train.experiments.experiment_settings import experiment_settings
from train.experiments.data import open_experiment_data
from train.experiments.kinds.pretraining import Pretraining
from train.experiments.runner import do_run, forget, read_summary
from train.experiments.spec import ExperimentArguments, plan_runs
from train.training import loop


def test_a_failed_run_is_told_in_one_line(tiny_dataset_folder, tmp_path, monkeypatch, caplog):
    systems = {"Ours": {"system": "lumbarclip", "vision": "resnet10tt"}}
    settings = experiment_settings(tiny_dataset_folder, tmp_path / "s", systems=systems, max_updates=1)
    experiment = ExperimentArguments(**settings)
    (run,) = plan_runs(experiment)
    (fold,) = open_experiment_data(experiment, False).folds
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        summary = do_run(run, fold, Accelerator(), keep_checkpoint=False)
    (record,) = caplog.records
    kept = Path(run.arguments.output_dir) / "traceback.txt"
    assert record.getMessage() == f"ours-seed0 failed: {summary['reason']} (traceback in {kept})"
    assert "timm has no model 'resnet10tt'" in record.getMessage() and record.exc_info is None
    assert kept.read_text().startswith("Traceback (most recent call last)")
    forget(run)
    assert not kept.exists()


def test_a_failed_predicting_is_tried_again_without_training_again(tiny_dataset_folder, tmp_path, monkeypatch):
    systems = {"Ours": {"system": "lumbarclip"}}
    settings = experiment_settings(tiny_dataset_folder, tmp_path / "s", systems=systems, max_updates=1)
    experiment = ExperimentArguments(**settings)
    (run,) = plan_runs(experiment)
    (fold,) = open_experiment_data(experiment, False).folds
    folder = Path(run.arguments.output_dir)

    def fail(*args, **kwargs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Pretraining, "predict", fail)
    summary = do_run(run, fold, Accelerator(), keep_checkpoint=False)
    assert (summary["state"], summary["reason"]) == ("failed", "RuntimeError: out of memory")
    assert (folder / "checkpoint").exists()
    trained = json.loads((folder / "run.json").read_text())["date"]
    (folder / "predictions.parquet").write_text("of an earlier start")

    forget(run)
    assert read_summary(run) is None and not (folder / "predictions.parquet").exists()
    monkeypatch.setattr(Pretraining, "predict", lambda *args: {})
    monkeypatch.setattr(loop, "Training", fail)
    assert do_run(run, fold, Accelerator(), keep_checkpoint=False)["state"] == "done"
    assert json.loads((folder / "run.json").read_text())["date"] == trained
    assert not (folder / "checkpoint").exists()  # measured, it is not kept unless asked


@pytest.mark.parametrize("begun", [("run.json", "history.jsonl"), ("run.json", "states/update-1/model")])
def test_a_run_that_was_not_trained_to_its_end_starts_again(tmp_path, begun):
    experiment = ExperimentArguments(**experiment_settings("d", tmp_path, systems={"Ours": {"system": "clip"}}))
    (run,) = plan_runs(experiment)
    folder = Path(run.arguments.output_dir)
    for name in (*begun, "summary.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    forget(run)
    assert not folder.exists()
