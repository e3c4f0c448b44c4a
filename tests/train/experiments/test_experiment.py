"""What an experiment checks before it trains, and says of starting weights; test_compare_systems does whole ones."""

import json

import pytest

from tests.train.experiments.experiment_settings import experiment_settings
from train.experiments.experiment import check_predictions, worst_start
from train.experiments.runner import SUMMARY, folder_of
from train.experiments.spec import ExperimentArguments, plan_runs


@pytest.fixture
def runs(tmp_path):
    runs = plan_runs(ExperimentArguments(**experiment_settings("data", tmp_path / "s")))
    for run in runs:
        folder_of(run).mkdir(parents=True)
    return runs


def test_a_finished_run_without_predictions_is_named_before_anything_is_trained(runs):
    check_predictions(runs)  # none has ended
    for run, state in zip(runs, ("done", "failed"), strict=False):
        (folder_of(run) / SUMMARY).write_text(json.dumps({"state": state}))
    with pytest.raises(ValueError, match=r"runs/ours-seed0: finished, but without predictions\.parquet.*--overwrite"):
        check_predictions(runs)
    (folder_of(runs[0]) / "predictions.parquet").touch()
    check_predictions(runs)


def test_the_report_warns_of_the_weights_most_likely_to_have_seen_test_patients(runs):
    assert worst_start(runs) is None
    for run, rows in zip(runs, ("same", "other", "unknown"), strict=True):
        (folder_of(run) / "run.json").write_text(json.dumps({"start": {"checkpoint": "c", "rows": rows}}))
    assert worst_start(runs) == {"checkpoint": "c", "rows": "other"}
    (folder_of(runs[1]) / "run.json").write_text(json.dumps({"start": None}))
    assert worst_start(runs) == {"checkpoint": "c", "rows": "unknown"}
