"""The trainer: the same losses from one process, two processes and a killed run; errors that name the way out."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from accelerate import Accelerator
from safetensors.torch import load_file
from scipy.stats import entropy
from transformers import AutoModel

from data_scripts.system.staging import only_process
from modeling_lumbarclip.configuration_lumbarclip import CalibratedQuestion, ZeroShotCalibration
from modeling_lumbarclip.losses_lumbarclip import soft_targets
from tests.train.experiments.experiment_settings import SMALL
from train import pretrain
from train.checkpoints.checkpoint import load_checkpoint
from train.data.batch_sampler import TrainingSet
from train.data.loaders import open_dataset, plan_batches, target_classes, text_and_patient_ids
from train.pretraining import task
from train.pretraining.arguments import PretrainArguments
from train.training.run_folder import check_same_settings, keep_history

PROJECT = Path(__file__).parents[2]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def settings(tiny_dataset_folder, tmp_path):
    """A run of seconds whose tower has no batch statistics and no dropout, so that processes cannot matter."""
    return {
        "dataset": str(tiny_dataset_folder),
        "output_dir": str(tmp_path / "run"),
        **SMALL,
        "initial_temperature": 0.2,
        "epochs": 6,
        "learning_rate": 1e-3,
        "weight_average": 0.9,
        "augment": True,
        "evaluate": False,
    }


def launch(settings, tmp_path, *launcher, wait=True):
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(settings))
    command = [*(launcher or [sys.executable]), str(PROJECT / "train" / "pretrain.py"), str(config)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    if wait:
        output, _ = process.communicate(timeout=300)
        return process.returncode, output
    return process


def run_here(settings):
    pretrain.main(PretrainArguments(**settings))


def history(settings):
    path = Path(settings["output_dir"]) / "history.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def losses(settings):
    return {line["update"]: [line["loss"], line.get("validation_loss")] for line in history(settings)}


def assert_same_losses(one, other):
    assert one.keys() == other.keys()
    for update in one:
        assert one[update] == pytest.approx(other[update], abs=1e-5), update


@pytest.fixture
def uninterrupted(settings, tmp_path):
    settings = {**settings, "output_dir": str(tmp_path / "uninterrupted")}
    run_here(settings)
    return settings


def test_a_run_learns_and_leaves_a_complete_folder(uninterrupted):
    folder = Path(uninterrupted["output_dir"])
    values = losses(uninterrupted)
    assert len(values) == 30  # 40 rows, batches of 8, 6 epochs
    assert values[30][0] < values[1][0] - 0.5
    assert {path.name for path in folder.iterdir()} == {"checkpoint", "history.jsonl", "run.json"}
    assert AutoModel.from_pretrained(folder / "checkpoint").config.projection_dim == 8
    run = json.loads((folder / "run.json").read_text())
    assert run["arguments"]["learning_rate"] == 1e-3 and run["num_processes"] == 1 and "torch" in run["packages"]
    assert history(uninterrupted)[-1]["pairs_per_second"] > 0


def test_a_balanced_run_logs_the_statistics_of_its_batches(settings):
    balance = ["upsample", "sampler"]
    run_here({**settings, "balance": balance, "max_updates": 2, "log_every": 2, "learning_rate": 1e-12})
    (line,) = history(settings)
    rows = open_dataset(settings["dataset"])["train"]
    (texts, patients), classes = text_and_patient_ids(rows), target_classes(rows, ["labels"])
    expected = []
    for batch in plan_batches(rows, TrainingSet(balance=balance), 8, seed=0).batches_of_epoch(0)[:2]:
        targets = soft_targets(classes[batch], settings["initial_temperature"])
        same_class = classes[batch] @ classes[batch].T
        rates = [np.mean([np.sum(ids[batch] == ids[row]) > 1 for row in batch]) for ids in (texts, patients)]
        expected.append([*rates, entropy(targets, axis=1).mean(), (targets * same_class).sum(dim=1).mean().item()])
    names = ("duplicate_text_rate", "duplicate_patient_rate", "target_entropy", "same_class_mass")
    assert [line[name] for name in names] == pytest.approx(np.mean(expected, axis=0), abs=1e-5)


# The paper's set: five texts of a pair, EDA on top, the rare class raised; an epoch here is two or three times as long.
PAPER_SET = {
    "texts_per_pair": 3,
    "text_augmentation": "both",
    "balance": ["upsample", "sampler"],
    "minority_share": 0.4,
    "epochs": 2,
}


def test_an_epoch_passes_over_all_texts_and_both_parts_of_the_loss(settings):
    run_here({**settings, **PAPER_SET})
    lines = history(settings)
    assert len(lines) == 2 * (3 * 40 // 8)
    assert [line["update"] for line in lines if "validation_loss" in line] == [15, 30]
    run = json.loads((Path(settings["output_dir"]) / "run.json").read_text())["arguments"]
    assert run["texts_per_pair"] == 3 and run["minority_share"] == 0.4


def test_one_update_is_adamw_at_the_rate_of_the_settings(settings, monkeypatch):
    """The first step of AdamW without decay moves each weight by the rate, in the direction of its gradient."""
    before = {}

    class Watched(task.PretrainingTask):
        def build_optimizer(self, trained):
            before.update({name: value.detach().clone() for name, value in trained.named_parameters()})
            return super().build_optimizer(trained)

        def validate(self, trained, accelerator):
            before.update({name: trained.get_parameter(name).detach() - before[name] for name in before})
            return 0.0

    monkeypatch.setattr(task, "PretrainingTask", Watched)
    once = {"max_updates": 1, "warmup_ratio": 0.0, "weight_decay": 0.0, "weight_average": 0.0, "max_grad_norm": 1e9}
    run_here({**settings, **once, "learning_rate": 4e-3})
    moved = torch.cat([change.abs().flatten() for name, change in before.items() if "projection" in name])
    assert moved.median().item() == pytest.approx(4e-3, rel=1e-3)


def test_a_loss_on_augmented_texts_that_the_data_lack_is_warned_of(settings, tmp_path, caplog):
    bare = without_rephrasings(settings, tmp_path)
    run_here({**settings, "dataset": bare, "max_updates": 1})
    assert "40 of 40 training pairs have none" in caplog.text and "data_scripts.paraphrase" in caplog.text
    caplog.clear()
    run_here({**settings, "max_updates": 1, "overwrite": True})
    assert "augmented texts" not in caplog.text


def without_rephrasings(settings, folder):
    from datasets import load_dataset

    (folder / "bare" / "data").mkdir(parents=True)
    for split, rows in load_dataset(settings["dataset"]).items():
        bare = rows.map(lambda row: {"rephrasings": []}, features=rows.features)
        bare.to_parquet(folder / "bare" / "data" / f"{split}.parquet")
    return str(folder / "bare")


@pytest.mark.slow
@pytest.mark.parametrize("pairs", [{}, {"balance": ["upsample", "sampler"]}, PAPER_SET])
def test_two_processes_give_the_losses_of_one(settings, tmp_path, pairs):
    uninterrupted = {**settings, **pairs, "output_dir": str(tmp_path / "uninterrupted")}
    run_here(uninterrupted)
    settings |= {**pairs, "batch_size": 4}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    code, output = launch(settings, tmp_path, *torchrun)
    assert code == 0, output[-3000:]
    assert json.loads((Path(settings["output_dir"]) / "run.json").read_text())["num_processes"] == 2
    assert_same_losses(losses(settings), losses(uninterrupted))
    for line, other in zip(history(settings), history(uninterrupted), strict=True):
        assert line["target_entropy"] == pytest.approx(other["target_entropy"], abs=1e-4)
        assert line["duplicate_text_rate"] == other["duplicate_text_rate"]
    one, two = (
        AutoModel.from_pretrained(Path(run["output_dir"]) / "checkpoint").state_dict()
        for run in (uninterrupted, settings)
    )
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-4, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "pairs", [{}, PAPER_SET, {"layer_decay": 0.5}], ids=["as they are", "as the paper's", "with rates by layer"]
)
def test_a_killed_run_resumes_to_the_same_losses(settings, pairs, tmp_path):
    settings |= pairs
    uninterrupted = {**settings, "output_dir": str(tmp_path / "uninterrupted")}
    run_here(uninterrupted)
    settings |= {"save_every": 7}  # never at the end of an epoch of 5 or 15 updates
    process = launch(settings, tmp_path, wait=False)
    deadline = time.monotonic() + 200
    while len(history(settings)) < 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    killed_at = len(history(settings))
    assert 8 <= killed_at < 30 and not (Path(settings["output_dir"]) / "checkpoint").exists()
    (state,) = (Path(settings["output_dir"]) / "states").glob("update-*")
    assert int(state.name[-8:]) % 5 != 0
    run_here({**settings, "resume": True})
    assert_same_losses(losses(settings), losses(uninterrupted))
    assert not (Path(settings["output_dir"]) / "states").exists()


def test_resuming_a_finished_run_trains_nothing(uninterrupted):
    before = history(uninterrupted)
    run_here({**uninterrupted, "resume": True})
    assert history(uninterrupted) == before


def test_a_layer_moves_by_its_rate(settings, tmp_path):
    """AdamW's first step is as long as the rate, whatever the gradient: by hand, halved from layer to layer."""
    settings |= {"vision": "test_vit", "vision_model_args": {"depth": 2}}
    one_step = {"max_updates": 1, "warmup_ratio": 0.0, "weight_decay": 0.0, "weight_average": 0.0, "layer_decay": 0.5}
    weights = []
    for name, rate in (("start", 1e-30), ("moved", 1e-3)):
        run_here({**settings, **one_step, "learning_rate": rate, "output_dir": str(tmp_path / name)})
        weights.append(load_file(tmp_path / name / "checkpoint/model.safetensors"))
    start, moved = weights
    steps = {
        "image_projection.weight": 1.0,
        "vision_model.timm_model.blocks.1.attn.proj.weight": 1.0,
        "vision_model.timm_model.blocks.0.attn.proj.weight": 0.5,
        "vision_model.timm_model.patch_embed.proj.weight": 0.25,
        "text_model.encoder.layer.0.output.dense.weight": 1.0,
        "text_model.embeddings.position_embeddings.weight": 0.5,
    }
    for name, scale in steps.items():
        longest = (moved[name] - start[name]).abs().max().item()
        assert longest == pytest.approx(scale * 1e-3, rel=0.05), name


def test_accumulation_averages_micro_batches(settings, tmp_path):
    settings |= {"epochs": 2, "weight_average": 0.0, "learning_rate": 1e-12}  # the model stays what it is
    run_here(settings)
    single = [line["loss"] for line in history(settings)]
    accumulated = {**settings, "output_dir": str(tmp_path / "accumulated"), "gradient_accumulation_steps": 2}
    run_here(accumulated)
    means = [(first + second) / 2 for first, second in zip(single[::2], single[1::2], strict=True)]
    assert [line["loss"] for line in history(accumulated)] == pytest.approx(means, abs=1e-5)
    assert history(accumulated)[-1]["learning_rate"] == pytest.approx(0, abs=1e-20)
    with pytest.raises(ValueError, match="do not fill one update of 20 steps"):
        run_here({**accumulated, "gradient_accumulation_steps": 20, "overwrite": True})


def test_an_existing_folder_is_neither_mixed_nor_deleted(uninterrupted):
    with pytest.raises(ValueError, match=r"not empty: --resume.*--overwrite"):
        run_here(uninterrupted)
    with pytest.raises(ValueError, match=r"other settings \(learning_rate: 0.001 then, 0.5 now\)"):
        run_here({**uninterrupted, "resume": True, "learning_rate": 0.5})
    assert len(history(uninterrupted)) == 30
    precious = Path(uninterrupted["output_dir"]).parent / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="is not a run.*remove it yourself"):
        run_here({**uninterrupted, "output_dir": str(precious), "overwrite": True})
    assert (precious / "thesis.txt").exists()
    run_here({**uninterrupted, "overwrite": True, "max_updates": 2})
    assert len(history(uninterrupted)) == 2


def test_early_stopping_publishes_the_best_weights(settings, monkeypatch):
    losses, snapshots = iter([3.0, 1.0, 2.0, 2.5, 0.1]), []

    def validate(self, trained, accelerator):
        snapshots.append({name: value.detach().clone() for name, value in trained.model.state_dict().items()})
        return next(losses)

    monkeypatch.setattr(task.PretrainingTask, "validate", validate)
    run_here({**settings, "patience": 2})
    assert [line["validation_loss"] for line in history(settings) if "validation_loss" in line] == [3.0, 1.0, 2.0, 2.5]
    saved = AutoModel.from_pretrained(Path(settings["output_dir"]) / "checkpoint").state_dict()
    assert all(torch.equal(saved[name], snapshots[1][name]) for name in saved)


def test_half_the_batch_on_twice_the_processes_is_the_same_run(tmp_path):
    before = {"arguments": {"batch_size": 8, "seed": 0}, "num_processes": 1, "rows_sha256": {"train": "a"}}
    now = {**before, "arguments": {"batch_size": 4, "seed": 0}, "num_processes": 2}
    check_same_settings(before, now, tmp_path)
    with pytest.raises(ValueError, match="pairs of a step: 8 then, 16 now"):
        check_same_settings(before, {**before, "num_processes": 2}, tmp_path)
    with pytest.raises(ValueError, match="rows of train: changed"):
        check_same_settings(before, {**before, "rows_sha256": {"train": "b"}}, tmp_path)


def test_a_torn_last_line_of_the_history_does_not_stop_a_resumption(uninterrupted):
    path = Path(uninterrupted["output_dir"]) / "history.jsonl"
    with path.open("a") as file:
        file.write('{"update": 31, "lo')
    keep_history(path, 4, Accelerator())
    assert [line["update"] for line in history(uninterrupted)] == [1, 2, 3, 4]


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_rows(settings):
    diverging = {**settings, "learning_rate": 1e30, "warmup_ratio": 0.0, "max_grad_norm": 1e30}
    with pytest.raises(FloatingPointError, match=r"(?s)loss is nan at update 2 .*--learning_rate.*Rows.*tiny/"):
        run_here(diverging)
    folder = Path(settings["output_dir"])
    assert not (folder / "checkpoint").exists()
    with pytest.raises(FloatingPointError, match="validation loss is nan at update 1 "):
        run_here({**diverging, "max_updates": 1, "overwrite": True})
    assert not (folder / "checkpoint").exists() and not (folder / "states").exists()


def test_one_class_everywhere_is_refused_but_plain_contrast_is_not(settings):
    with pytest.raises(ValueError, match="All 40 training pairs have the same classes.*--target_columns none"):
        run_here(
            {**settings, "target_columns": ["sequence"], "dataset": settings["dataset"], "epochs": 1}
            | one_sequence(settings)
        )
    run_here({**settings, "target_columns": [], "max_updates": 2, "overwrite": True})
    assert len(history(settings)) == 2


def test_a_calibration_of_the_weights_a_run_starts_from_is_not_published(settings, monkeypatch):
    build_model = task.build_model

    def build_calibrated(*args):
        processor, model = build_model(*args)
        question = CalibratedQuestion(None, ["LBP", "No Finding"], [["pain"], ["none"]], 2.0, [0.5, 0.5])
        model.config.calibration = asdict(ZeroShotCalibration([question], 0.9, fitted_on={}))
        return processor, model

    monkeypatch.setattr(task, "build_model", build_calibrated)
    run_here({**settings, "max_updates": 1})
    saved = json.loads((Path(settings["output_dir"]) / "checkpoint" / "config.json").read_text())
    assert saved.get("calibration") is None


@pytest.fixture
def few_patients_suffice(monkeypatch):
    """The three validation patients of the tiny dataset set a threshold."""
    monkeypatch.setattr("train.evaluation.checkpoint_scope.PATIENTS_FOR_SCOPE", 3)
    monkeypatch.setattr("train.evaluation.checkpoint_scope.FALSE_ALARM_RATE", 0.2)


def test_the_checkpoint_knows_what_it_was_trained_on(settings, few_patients_suffice):
    run_here({**settings, "max_updates": 2})
    model, _ = load_checkpoint(f"{settings['output_dir']}/checkpoint")
    scope, check = model.config.scope, model.config.scope["check"]
    assert (scope["planes"], scope["sequences"], scope["num_patients"]) == (["axial"], ["T1", "T2"], 10)
    assert (scope["is_synthetic"], check["num_images"], check["num_patients"]) == (False, 12, 3)
    assert model.scope_problem() is None
    again = {**settings, "output_dir": f"{settings['output_dir']}-2", "max_updates": 1}
    run_here({**again, "init_checkpoint": f"{settings['output_dir']}/checkpoint"})
    trained, _ = load_checkpoint(f"{again['output_dir']}/checkpoint")
    assert trained.config.scope["weights"] != scope["weights"] and trained.scope_problem() is None


def test_too_few_validation_patients_make_no_check_and_the_report_says_so(settings):
    run_here({**settings, "max_updates": 1, "evaluate": True, "baselines": False})
    folder = Path(settings["output_dir"])
    scope = json.loads((folder / "checkpoint" / "config.json").read_text())["scope"]
    assert scope["check"] is None and "12 images of 3 validation patients" in scope["no_check"]
    report = (folder / "report.md").read_text()
    assert "**Scope**: Trained on axial T1 and T2 slices" in report and "are not checked: 12 images of 3" in report
    assert json.loads((folder / "metrics.json").read_text())["scope"]["held_back"] is None


def test_a_finished_run_whose_code_reads_no_calibration_is_refused_before_it_is_evaluated(settings, monkeypatch):
    settings |= {"max_updates": 1}
    run_here(settings)
    (Path(settings["output_dir"]) / "checkpoint" / "calibration_lumbarclip.py").unlink()
    evaluated = "train.reporting.evaluation.evaluate"
    monkeypatch.setattr(evaluated, lambda *args, **options: pytest.fail("evaluated for nothing"))
    with pytest.raises(ValueError, match="saved before checkpoints could be calibrated.*Save it again"):
        run_here({**settings, "resume": True, "evaluate": True})


def test_a_leaking_data_set_is_refused_unless_wanted(settings, tmp_path):
    leaking = tmp_path / "leaking"
    shutil.copytree(settings["dataset"], leaking)
    shutil.copy(leaking / "data" / "train.parquet", leaking / "data" / "test.parquet")
    settings |= {"dataset": str(leaking), "max_updates": 1}
    with pytest.raises(ValueError, match="leaks.*tiny-00.*--allow_leaks"):
        run_here(settings)
    assert not Path(settings["output_dir"]).exists()
    run_here({**settings, "allow_leaks": True})
    assert len(history(settings)) == 1


def one_sequence(settings):
    """The same dataset with one sequence only."""
    from datasets import load_dataset

    folder = Path(settings["output_dir"]).parent / "one"
    (folder / "data").mkdir(parents=True)
    for split, rows in load_dataset(settings["dataset"]).items():
        same = rows.map(lambda row: {"sequence": 0})
        same.to_parquet(folder / "data" / f"{split}.parquet")
    return {"dataset": str(folder)}


def test_an_unknown_tower_is_refused_and_leaves_no_folder(settings):
    with pytest.raises(ValueError, match="timm has no model 'convnext_tinny'.*convnext_tiny"):
        run_here({**settings, "vision": "convnext_tinny"})
    assert not Path(settings["output_dir"]).exists()


def test_projection_none_trains(settings):
    run_here({**settings, "projection": "none", "max_updates": 2})
    assert len(history(settings)) == 2


def test_the_command_line_reports_errors_without_a_traceback(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            str(PROJECT / "train" / "pretrain.py"),
            "--dataset",
            str(tmp_path / "no"),
            "--output_dir",
            str(tmp_path / "o"),
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "data_scripts.build" in done.stderr and "Traceback" not in done.stderr


def test_two_runs_do_not_write_to_one_folder(settings, tmp_path):
    """Not even with --overwrite: the other process's folder does not change, and a finished run keeps no lock."""
    folder = tmp_path / "run"
    with only_process(folder):
        for choice in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(ValueError, match=f"another process is writing to {folder}"):
                run_here({**settings, **choice})
        assert [path.name for path in folder.iterdir()] == [".lock"]
    run_here({**settings, "max_updates": 1})
    assert (folder / "checkpoint").is_dir() and not (folder / ".lock").exists()


def test_a_damaged_state_is_named(settings, tmp_path):
    interrupted = {**settings, "max_updates": 2, "save_every": 1}
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("train.training.loop.write_result", interrupt)
        run_here(interrupted)
    (state,) = (tmp_path / "run" / "states").iterdir()
    # Without the states of random generators a run resumes to the same numbers: it seeds them at each step.
    whole = {path: path.read_bytes() for path in state.iterdir() if not path.name.startswith("random_states")}
    assert len(whole) >= 3
    for path, content in whole.items():
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match=f"The state {state} cannot be read"):
            run_here({**interrupted, "resume": True})
        path.write_bytes(content)
    run_here({**interrupted, "resume": True})


def interrupt(*_, **__):
    raise KeyboardInterrupt
