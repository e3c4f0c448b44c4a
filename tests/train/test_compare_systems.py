"""An experiment end to end: nothing is done twice, one bad run stops no other, errors name the way out."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from datasets import load_dataset
from sklearn.metrics import f1_score

from data_scripts.system.staging import only_process
from tests.train.experiments.experiment_settings import SMALL, experiment_settings
from train.evaluation.predictions import read_predictions
from train.experiments import experiment, runner
from train.experiments.spec import ExperimentArguments
from train.training.history import read_history

PROJECT = Path(__file__).parents[2]
BEGUN = ("predictions.parquet", "history.jsonl", "run.json", "summary.json")


pytestmark = pytest.mark.usefixtures("one_thread")


def run_here(settings):
    experiment.run_experiment(ExperimentArguments(**settings))


def results_of(settings):
    return json.loads((Path(settings["out"]) / "results.json").read_text())


def summaries_of(settings):
    return {
        path.parent.name: json.loads(path.read_text()) for path in Path(settings["out"]).glob("runs/*/summary.json")
    }


def states_of(settings):
    return {run_id: summary["state"] for run_id, summary in summaries_of(settings).items()}


def written_at(settings, run_id):
    folder = Path(settings["out"]) / "runs" / run_id
    return [(folder / name).stat().st_mtime_ns for name in BEGUN if (folder / name).exists()]


def metrics_of(settings):
    return {title: system["metrics"] for title, system in results_of(settings)["systems"].items()}


def assert_same_metrics(one, other):
    """Of floats in nested mappings."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_same_metrics(one[name], other[name])
    elif isinstance(one, list):
        for left, right in zip(one, other, strict=True):
            assert_same_metrics(left, right)
    else:
        assert one == (pytest.approx(other, abs=1e-4) if isinstance(other, float) else other)


def assert_same_predictions(settings, other):
    """Of what follows smoothly from the weights. Figures may jump where a last digit moves a row over an edge."""
    runs = [path.parent for path in sorted(Path(settings["out"]).glob("runs/*/predictions.parquet"))]
    assert runs
    for folder in runs:
        one = read_predictions(folder / "predictions.parquet")[0]
        two = read_predictions(Path(other["out"]) / "runs" / folder.name / "predictions.parquet")[0]
        assert one.keys() == two.keys()
        np.testing.assert_array_equal(one["row"], two["row"])
        for name in ("zero_shot", "probe/paper/unprojected", "probe/paper/projected"):
            np.testing.assert_allclose(one[name], two[name], atol=1e-3)
    assert {title: list(of) for title, of in metrics_of(settings).items()} == {
        title: list(of) for title, of in metrics_of(other).items()
    }


@pytest.fixture(scope="module")
def finished(tiny_dataset_folder, tmp_path_factory):
    """An experiment of one trained and one untrained system."""
    systems = {"Ours": {"system": "lumbarclip"}, "Untrained": {"system": "untrained"}}
    settings = experiment_settings(tiny_dataset_folder, tmp_path_factory.mktemp("experiment") / "s", systems=systems)
    run_here(settings)
    return settings


def test_an_experiment_leaves_a_report_that_its_predictions_bear_out(finished, tiny_dataset_folder):
    out, results = Path(finished["out"]), results_of(finished)
    assert {path.name for path in out.iterdir()} == {
        *("experiment.json", "results.json", "report.md", "report.html", "progress.md"),
        *("figures", "baselines", "runs"),
    }
    assert not list(out.rglob("*unfinished*")) and not list(out.rglob("checkpoint"))
    truth = np.array([labels[0] for labels in load_dataset(str(tiny_dataset_folder), split="test")["labels"]])
    for title in ("Ours", "Untrained"):
        predictions = read_predictions(out / "runs" / f"{title.lower()}-seed0" / "predictions.parquet")[0]
        expected = f1_score(truth, predictions["zero_shot"].argmax(1), average="macro")
        assert metrics_of(finished)[title]["zero_shot"]["macro_f1"]["value"] == pytest.approx(expected)
    assert results["baselines"]["majority"]["metrics"]["probe/logistic/unprojected"]["auroc"]["value"] == 0.5
    ours, untrained = summaries_of(finished)["ours-seed0"], summaries_of(finished)["untrained-seed0"]
    assert (ours["updates"], ours["pairs_seen"], untrained["updates"]) == (10, 80, 0)
    assert ours["pairs_per_second"] * ours["seconds"] == pytest.approx(80)
    assert "| Ours " in (out / "progress.md").read_text() and "2 of 2 runs" in (out / "progress.md").read_text()
    assert "Research use only" in (out / "report.md").read_text()


@pytest.mark.slow
def test_a_finished_experiment_repeats_nothing_and_may_grow(finished, tmp_path):
    grown = {**finished, "out": str(tmp_path / "s")}
    shutil.copytree(finished["out"], grown["out"])
    before = [written_at(grown, run_id) for run_id in ("ours-seed0", "untrained-seed0")]
    metrics = metrics_of(grown)
    run_here({**grown, "num_resamples": 30, "systems": {**grown["systems"], "Too": {"system": "untrained"}}})
    assert [written_at(grown, run_id) for run_id in ("ours-seed0", "untrained-seed0")] == before
    after = metrics_of(grown)
    value = after["Too"]["zero_shot"]["accuracy"]["value"]
    assert value == after["Untrained"]["zero_shot"]["accuracy"]["value"]  # the same seed, the same weights
    assert after["Ours"]["zero_shot"]["accuracy"]["value"] == metrics["Ours"]["zero_shot"]["accuracy"]["value"]


def test_a_changed_setting_of_a_begun_run_is_refused(finished, tmp_path):
    changed = {**finished, "systems": {**finished["systems"], "Ours": {"system": "lumbarclip", "learning_rate": 0.5}}}
    with pytest.raises(ValueError, match=r"1 runs? .*ours-seed0 \(learning_rate: 0.001 then, 0.5 now\).*--overwrite"):
        run_here(changed)
    with pytest.raises(ValueError, match=r"ours-seed0 \(max_updates: None then, 1 now\).*--out"):
        run_here({**finished, "max_updates": 1})
    with pytest.raises(ValueError, match="on the dataset's own splits, and this one uses 3 folds.*--out"):
        run_here({**finished, "folds": 3})
    (tmp_path / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="is not an experiment.*--out"):
            run_here({**finished, "out": str(tmp_path), "overwrite": overwrite})
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.parametrize("killed_at", ["keep_folds", "delete"])
def test_an_experiment_killed_at_its_start_or_its_end_is_known_as_one(finished, tmp_path, monkeypatch, killed_at):
    out = tmp_path / "s"

    def kill(*args):
        raise KeyboardInterrupt

    if killed_at == "delete":
        (out / "runs").mkdir(parents=True)
        for name in ("folds.json", "experiment.json", "z.txt"):
            (out / name).write_text("{}")
        unlink = Path.unlink
        monkeypatch.setattr(
            Path,
            "unlink",
            lambda path, **options: kill() if path.name == "experiment.json" else unlink(path, **options),
        )
    else:
        monkeypatch.setattr(experiment, "keep_folds", kill)
    with pytest.raises(KeyboardInterrupt):
        run_here({**finished, "out": str(out), "overwrite": True})
    assert [path.name for path in out.iterdir()] == ["experiment.json"]
    experiment.check_folder(out)


def test_an_unknown_data_set_is_refused_with_the_command_that_builds_it(tmp_path):
    with pytest.raises(ValueError, match="No dataset.*data_scripts.build"):
        run_here(experiment_settings(tmp_path / "none", tmp_path / "s"))
    assert not (tmp_path / "s").exists()


def changed_copy(source, folder, change):
    """The dataset with each row changed."""
    (folder / "data").mkdir(parents=True)
    for split, rows in load_dataset(str(source)).items():
        rows.map(change, load_from_cache_file=False).to_parquet(folder / "data" / f"{split}.parquet")
    return folder


@pytest.mark.slow
def test_a_class_absent_from_the_test_split_is_null_with_the_reason(tiny_dataset_folder, tmp_path):
    """All test patients have a bulge."""
    one_class = changed_copy(
        tiny_dataset_folder,
        tmp_path / "d",
        lambda row: {"labels": [0] if row["patient_id"] >= "tiny-13" else row["labels"]},
    )
    settings = experiment_settings(one_class, tmp_path / "s", max_updates=1)
    run_here(settings)
    entry = metrics_of(settings)["Ours"]["probe/logistic/unprojected"]["macro_f1"]
    assert entry["value"] is None and "No Finding" in entry["reason"]
    assert "No Finding" in (tmp_path / "s" / "report.md").read_text()


@pytest.mark.slow
def test_a_bad_run_stops_no_other_and_may_be_tried_again(tiny_dataset_folder, tmp_path, monkeypatch):
    hot = {"learning_rate": 1e30, "warmup_ratio": 0.0, "max_grad_norm": 1e30}
    systems = {
        "Hot": {"system": "lumbarclip", **hot},
        "Misspelt": {"system": "clip", "vision": "convnext_tinny"},
        "Ours": {"system": "lumbarclip"},
    }
    settings = experiment_settings(tiny_dataset_folder, tmp_path / "s", systems=systems, max_updates=3)
    run_here(settings)
    assert states_of(settings) == {"hot-seed0": "diverged", "misspelt-seed0": "failed", "ours-seed0": "done"}
    summaries = summaries_of(settings)
    assert "loss is nan at update 2" in summaries["hot-seed0"]["reason"]
    assert "convnext_tiny" in summaries["misspelt-seed0"]["reason"]
    report = (tmp_path / "s" / "report.md").read_text()
    assert "diverged" in report and "convnext_tinny" in report
    assert metrics_of(settings)["Hot"] == {} and metrics_of(settings)["Ours"]

    done = []
    monkeypatch.setattr(experiment, "do_run", lambda run, *rest: done.append(run.run_id) or runner.do_run(run, *rest))
    before = written_at(settings, "ours-seed0")
    run_here(settings)
    assert done == []  # they ended, if badly
    settings["systems"] = {**systems, "Hot": {"system": "lumbarclip"}, "Misspelt": {"system": "clip"}}
    run_here({**settings, "retry_failed": True})
    assert done == ["hot-seed0", "misspelt-seed0"] and set(states_of(settings).values()) == {"done"}
    assert written_at(settings, "ours-seed0") == before


@pytest.mark.slow
def test_an_experiment_that_nothing_comes_of_says_so(tiny_dataset_folder, tmp_path):
    systems = {"Misspelt": {"system": "clip", "vision": "convnext_tinny"}}
    with pytest.raises(ValueError, match="No system has a finished run.*--retry_failed"):
        run_here(experiment_settings(tiny_dataset_folder, tmp_path / "s", systems=systems))


def full_after(written, substring):
    """A `Path.write_bytes` for which the disk is full in the middle of files of a name."""

    def write_bytes(path, content):
        if substring in path.name:
            written(path, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        return written(path, content)

    return write_bytes


@pytest.mark.slow
@pytest.mark.parametrize("file", ["predictions", "report.html", "results.json"])
def test_a_full_disk_is_named_and_leaves_nothing_half_written(finished, tmp_path, file):
    """At the predictions of a run, and at the report; with room again the experiment goes on."""
    settings = {**finished, "out": str(tmp_path / "s")}
    shutil.copytree(finished["out"], settings["out"])
    out = tmp_path / "s"
    (out / "results.json").unlink()
    if file == "predictions":
        shutil.rmtree(out / "runs" / "untrained-seed0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_bytes", full_after(Path.write_bytes, file))
        with pytest.raises(OSError, match=rf"No space left on device: '{out}/.*{file}") as raised:
            run_here(settings)
    assert raised.value.errno == errno.ENOSPC and not (out / ".lock").exists()
    assert not list(out.rglob("*unfinished*")) and not (out / "results.json").exists()
    before = written_at(settings, "ours-seed0")
    run_here(settings)
    assert set(states_of(settings).values()) == {"done"} and written_at(settings, "ours-seed0") == before
    assert_same_metrics(metrics_of(settings), metrics_of(finished))


def test_two_experiments_do_not_write_to_one_folder(finished, tmp_path):
    out = tmp_path / "s"
    with only_process(out):
        for choice in ({}, {"overwrite": True}, {"dry_run": True}):
            with pytest.raises(ValueError, match=f"another process is writing to {out}"):
                run_here({**finished, "out": str(out), **choice})
        assert [path.name for path in out.iterdir()] == [".lock"]
    assert not list(Path(finished["out"]).rglob(".lock"))


def launch(settings, folder, *launcher):
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(settings, sort_keys=False))
    return subprocess.Popen(
        [*(launcher or [sys.executable]), str(PROJECT / "train" / "compare_systems.py"), str(file)],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def in_folds(tiny_dataset_folder, tmp_path_factory):
    """An uninterrupted experiment of two systems over three folds of the patients."""
    settings = experiment_settings(
        tiny_dataset_folder,
        tmp_path_factory.mktemp("folds") / "s",
        folds=3,
        settings={**SMALL, "epochs": 6, "save_every": 7},
        systems={"Ours": {"system": "lumbarclip"}, "GLoRIA": {"system": "gloria"}},
    )
    run_here(settings)
    return settings


@pytest.mark.slow
def test_folds_predict_every_row_once(in_folds, tiny_dataset_folder):
    out = Path(in_folds["out"])
    runs = [out / "runs" / f"gloria-seed0-fold{fold}" for fold in range(3)]
    rows = [read_predictions(run / "predictions.parquet")[0]["row"] for run in runs]
    assert sorted(np.concatenate(rows)) == list(range(64))
    cut = json.loads((out / "folds.json").read_text())["fold_of_patient"]
    patients = np.concatenate([rows["patient_id"] for rows in load_dataset(str(tiny_dataset_folder)).values()])
    for fold, of_fold in enumerate(rows):
        assert {patient for patient, number in cut.items() if number == fold} == set(patients[of_fold])
    results = results_of(in_folds)
    assert results["dataset"]["num_patients"] == 16
    assert results["systems"]["Ours"]["metrics"]["zero_shot"]["accuracy"]["n"] == 64
    assert results["systems"]["Ours"]["cost"]["num_finished"] == 3
    of_runs = [read_predictions(run / "predictions.parquet") for run in runs]
    accuracies = [(of["zero_shot"].argmax(1) == truth.classes).mean() for of, truth in of_runs]
    mean = results["systems"]["GLoRIA"]["mean_over_folds"]["zero_shot"]["accuracy"]
    assert (mean["value"], mean["n"]) == (pytest.approx(np.mean(accuracies)), 3)
    assert mean["standard_deviation"] == pytest.approx(np.std(accuracies, ddof=1))
    assert [fold["num_rows"]["test"] for fold in results["dataset"]["folds"]] == [len(truth) for _, truth in of_runs]
    with pytest.raises(ValueError, match="has an experiment on 3 folds, and this one uses 4 folds.*--out.*--overwrite"):
        run_here({**in_folds, "folds": 4})


@pytest.mark.slow
def test_a_killed_experiment_repeats_no_finished_run_and_gives_the_same_predictions(in_folds, tmp_path):
    settings = {**in_folds, "out": str(tmp_path / "s")}
    second = Path(settings["out"]) / "runs" / "gloria-seed0-fold0"
    process = launch(settings, tmp_path)
    deadline = time.monotonic() + 300
    while (not second.exists() or len(read_history(second)) < 9) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert states_of(settings) == {"ours-seed0-fold0": "done"}
    assert list((second / "states").glob("update-*")) and not (second / "checkpoint").exists()
    before = written_at(settings, "ours-seed0-fold0")
    process = launch(settings, tmp_path)
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output[-3000:]
    assert written_at(settings, "ours-seed0-fold0") == before and len(before) == len(BEGUN)
    assert "1 of 6 runs have ended already" in output
    history = read_history(second)
    assert [line["update"] for line in history] == list(range(1, 1 + len(history)))
    uninterrupted = read_history(Path(in_folds["out"]) / "runs" / second.name)
    assert [line["loss"] for line in history] == pytest.approx([line["loss"] for line in uninterrupted], abs=1e-5)
    assert_same_predictions(settings, in_folds)


ALL = {"lumbarclip": 1.0, "polarity": 0.5, "instance": 0.5, "counterfactual": 0.5}


@pytest.mark.slow
def test_two_processes_give_the_experiment_of_one(tiny_dataset_folder, tmp_path):
    """Also after a run that diverges in both."""
    systems = {
        "Ours": {"system": "lumbarclip"},
        "All": {"system": "lumbarclip", "objectives": ALL},
        "Hot": {"system": "clip", "learning_rate": 1e30, "warmup_ratio": 0.0, "max_grad_norm": 1e30},
        "Labels": {"system": "supervised"},
        "Untrained": {"system": "untrained"},
    }
    settings = experiment_settings(tiny_dataset_folder, tmp_path / "one", systems=systems)
    run_here(settings)
    halved = {**settings, "out": str(tmp_path / "two"), "settings": {**SMALL, "batch_size": 4}}
    process = launch(
        halved, tmp_path, sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"
    )
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output[-3000:]
    run = json.loads((tmp_path / "two" / "runs" / "ours-seed0" / "run.json").read_text())
    assert run["num_processes"] == 2
    assert states_of(halved) == states_of(settings) and states_of(settings)["hot-seed0"] == "diverged"
    assert_same_predictions(halved, settings)
    assert summaries_of(halved)["ours-seed0"]["pairs_seen"] == 80
    one, two = (read_history(tmp_path / folder / "runs" / "all-seed0") for folder in ("one", "two"))
    for name in (f"{objective}_loss" for objective in ALL):
        assert [line[name] for line in two] == pytest.approx([line[name] for line in one], abs=1e-5), name


@pytest.mark.slow
def test_the_command_line_reports_errors_without_a_traceback(tmp_path):
    process = launch(experiment_settings(tmp_path / "none", tmp_path / "s"), tmp_path)
    output, _ = process.communicate(timeout=200)
    assert process.returncode != 0 and "data_scripts.build" in output and "Traceback" not in output
