"""A dry run counts the updates that a run really does, and times each kind of run once."""

import json

import pytest
from accelerate import Accelerator
from datasets import load_dataset

from tests.train.experiments.experiment_settings import experiment_settings
from train.experiments.data import open_experiment_data
from train.experiments.experiment import PLAN, run_experiment
from train.experiments.kinds import pretraining
from train.experiments.kinds.pretraining_speed import pairs_per_second
from train.experiments.plan import estimate_runs, plan_table
from train.experiments.spec import ExperimentArguments, plan_runs
from train.objectives import ModelWithObjective
from train.pretrain import pretrain
from train.training.history import read_history


def experiment_of(dataset, out, **changed):
    return ExperimentArguments(**experiment_settings(dataset, out, **changed))


@pytest.mark.slow
def test_updates_are_those_of_the_run(tiny_dataset_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining, "pairs_per_second", lambda *_: 20.0)
    settings = {"gradient_accumulation_steps": 3, "balance": "upsample"}
    systems = {"A": {"system": "clip", **settings}, "B": {"system": "clip", "max_updates": 2}}
    experiment = experiment_of(tiny_dataset_folder, tmp_path / "s", systems=systems)
    runs, data = plan_runs(experiment), open_experiment_data(experiment, show_progress=False)
    planned = estimate_runs(runs, data.folds, Accelerator())
    for run, of_run in zip(runs, planned, strict=True):
        pretrain(run.arguments, data.folds[0].dataset)
        history = read_history(tmp_path / "s" / "runs" / run.run_id)
        assert of_run["updates"] == history[-1]["update"]
        assert of_run["pairs"] == of_run["updates"] * 8 * run.arguments.gradient_accumulation_steps
        assert of_run["seconds"] == of_run["pairs"] / 20


def test_runs_of_one_kind_are_timed_once(tiny_dataset_folder, tmp_path, monkeypatch, capsys):
    timed = []

    def watched(args, rows, accelerator):
        timed.append((*args.objectives, args.image_size))
        return 10.0

    monkeypatch.setattr(pretraining, "pairs_per_second", watched)
    systems = {
        "A": {"system": "lumbarclip"},
        "B": {"system": "lumbarclip", "projection": "nonlinear", "label_temperature": 0.5, "learning_rate": 1e-5},
        "C": {"system": "lumbarclip", "image_size": 48},
        "D": {"system": "gloria"},
        "E": {"system": "untrained"},
    }
    run_experiment(experiment_of(tiny_dataset_folder, tmp_path / "s", systems=systems, seeds=[0, 1], dry_run=True))
    assert timed == [("lumbarclip", 32), ("lumbarclip", 48), ("gloria", 32)]
    assert [path.name for path in (tmp_path / "s").iterdir()] == [PLAN]  # nothing is trained
    planned = json.loads((tmp_path / "s" / PLAN).read_text())["runs"]
    assert [of_run["updates"] for of_run in planned] == 2 * [10, 10, 10, 10, 0]
    assert [of_run["seconds"] for of_run in planned] == 2 * [8.0, 8.0, 8.0, 8.0, 0.0]
    assert "| 10 runs |      80 |   640 |         |     64 s |" in capsys.readouterr().out


def test_the_total_is_the_last_line():
    planned = [
        {"run": "a", "updates": 1000, "pairs": 128000, "pairs_per_second": 64.0, "seconds": 2000.0},
        {"run": "b", "updates": 0, "pairs": 0, "pairs_per_second": None, "seconds": 0.0},
    ]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in plan_table(planned).splitlines()]
    assert lines[2:] == [
        ["a", "1,000", "128,000", "64.0", "33 min"],
        ["b", "0", "0", "-", "0 s"],
        ["2 runs", "1,000", "128,000", "", "33 min"],
    ]


@pytest.mark.slow
def test_speed_is_measured_although_the_first_rows_show_one_class(tiny_dataset_folder, tmp_path):
    systems = {"A": {"system": "clip", "objectives": {"clip": 1, "polarity": 1}}}
    (run,) = plan_runs(experiment_of(tiny_dataset_folder, tmp_path, systems=systems))
    rows = load_dataset(str(tiny_dataset_folder), split="train")
    bulges = [index for index, labels in enumerate(rows["labels"][:]) if labels == [0]]
    others = [index for index, labels in enumerate(rows["labels"][:]) if labels == [1]]
    one_sided = rows.select([*bulges[:10], others[0], *bulges[10:]])  # not among eight from all over
    assert 1 < pairs_per_second(run.arguments, one_sided, Accelerator()) < 1e5


@pytest.mark.slow
@pytest.mark.parametrize("pretrained", [False, True])
def test_speed_is_measured_without_the_hub(tiny_dataset_folder, tmp_path, pretrained):
    """Pretrained towers that cannot be reached give way to random ones; the text tower is then tiny here."""
    (run,) = plan_runs(experiment_of(tiny_dataset_folder, tmp_path, systems={"A": {"system": "gloria"}}))
    run.arguments.pretrained, run.arguments.text = pretrained, "nobody/has-this"
    rows = load_dataset(str(tiny_dataset_folder), split="train")
    assert 1 < pairs_per_second(run.arguments, rows, Accelerator()) < 1e5


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"freeze": ["text"]}, {"lora_rank": 2, "lora_towers": ["text"]}])
@pytest.mark.parametrize("text", ["nobody/has-this", "a folder"])
def test_speed_of_a_tower_that_is_frozen_or_adapted(
    tiny_dataset_folder, tmp_path, tiny_model, tiny_processor, monkeypatch, settings, text
):
    if text == "a folder":
        text = str(tmp_path / "text")
        tiny_model.text_model.save_pretrained(text)
        tiny_processor.tokenizer.save_pretrained(text)
        tiny_model.vision_model.save_pretrained(tmp_path / "vision")
    towers = {"pretrained": True, "text": text, "vision": str(tmp_path / "vision"), "max_text_length": 32}
    systems = {"A": {"system": "clip", **towers, **settings}}
    (run,) = plan_runs(experiment_of(tiny_dataset_folder, tmp_path, systems=systems))
    rows = load_dataset(str(tiny_dataset_folder), split="train")
    steps, embed = [], ModelWithObjective.embed_texts

    def watched(trained, *args):
        steps.append(trained.text_cache is not None and not trained.model.text_model.training)
        return embed(trained, *args)

    monkeypatch.setattr(ModelWithObjective, "embed_texts", watched)
    if text.startswith("nobody"):
        monkeypatch.setattr(run.arguments, "vision", "test_convnext")
    assert pairs_per_second(run.arguments, rows, Accelerator()) > 0
    assert set(steps) == {"freeze" in settings}
