"""Every objective in the trainer: it learns, resumes with its own parameters, validates, and says what it needs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import load_dataset
from PIL import Image
from transformers import AutoModel

from data_scripts.writing.build_arguments import BuildArguments
from data_scripts.writing.dataset_build import build
from tests.train.experiments.experiment_settings import SMALL
from train import pretrain
from train.objectives import OBJECTIVES
from train.pretraining.arguments import PretrainArguments
from train.training import loop

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def settings(tiny_dataset_folder, tmp_path):
    return {
        "dataset": str(tiny_dataset_folder),
        "output_dir": str(tmp_path / "run"),
        **SMALL,
        "initial_temperature": 0.2,
        "epochs": 6,
        "learning_rate": 1e-3,
        "evaluate": False,
    }


def run_here(settings):
    pretrain.main(PretrainArguments(**settings))


def history(settings):
    return [json.loads(line) for line in (Path(settings["output_dir"]) / "history.jsonl").read_text().splitlines()]


OF_GRADES = ("image_grades", "grade_prompts", "symmetry", "consistency")  # the small dataset has no grades


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(OBJECTIVES.keys() - set(OF_GRADES)))
def test_every_objective_learns_and_publishes_a_plain_model(name, settings):
    run_here({**settings, "objectives": name})
    lines = history(settings)
    losses = [line["loss"] for line in lines if line["loss"]]  # a step of eight pairs may draw no counterfactual
    first, last = (sum(part) / 5 for part in (losses[:5], losses[-5:]))
    assert last < first - 0.1
    assert {"validation_loss"} <= lines[-1].keys()
    # Targets are logged where there are any of this kind.
    assert ("target_entropy" in lines[-1]) == (name in ("lumbarclip", "medclip"))
    _, loading = AutoModel.from_pretrained(Path(settings["output_dir"]) / "checkpoint", output_loading_info=True)
    assert not any(loading.values())


class KilledError(Exception):
    pass


@pytest.mark.slow
def test_an_interrupted_run_resumes_with_the_parameters_of_its_objective(settings, tmp_path, monkeypatch):
    settings |= {"objectives": "gloria", "weight_average": 0.9}
    uninterrupted = {**settings, "output_dir": str(tmp_path / "uninterrupted")}
    run_here(uninterrupted)

    log = loop.log

    def log_until_killed(line, *args):
        if line["update"] == 12:
            raise KilledError
        log(line, *args)

    settings |= {"save_every": 7}  # never at the end of an epoch of 5 updates
    with monkeypatch.context() as patched, pytest.raises(KilledError):
        patched.setattr(loop, "log", log_until_killed)
        run_here(settings)
    run_here({**settings, "resume": True})
    timeless = [[{**line, "pairs_per_second": 0} for line in history(run)] for run in (settings, uninterrupted)]
    assert timeless[0] == timeless[1]
    one, two = (
        AutoModel.from_pretrained(Path(run["output_dir"]) / "checkpoint").state_dict()
        for run in (settings, uninterrupted)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)


ALL = {"lumbarclip": 1.0, "polarity": 0.5, "instance": 0.25, "counterfactual": 2.0}


@pytest.mark.slow
def test_the_history_tells_each_term_and_a_resumed_run_shows_the_same_wordings(settings, tmp_path, monkeypatch):
    """With accumulation, and killed between two epochs."""
    settings |= {"objectives": ALL, "gradient_accumulation_steps": 2, "batch_size": 4}
    uninterrupted = {**settings, "output_dir": str(tmp_path / "uninterrupted")}
    run_here(uninterrupted)
    lines = history(uninterrupted)
    for line in lines:
        assert sum(weight * line[f"{name}_loss"] for name, weight in ALL.items()) == pytest.approx(
            line["loss"], rel=1e-5
        )
        of_validation = [line.get(f"validation_{name}_loss", 0) * weight for name, weight in ALL.items()]
        assert sum(of_validation) == pytest.approx(line.get("validation_loss", 0), rel=1e-5)
    assert lines[-1]["polarity_loss"] < lines[0]["polarity_loss"] - 0.1

    log = loop.log

    def log_until_killed(line, *args):
        if line["update"] == 12:
            raise KilledError
        log(line, *args)

    with monkeypatch.context() as patched, pytest.raises(KilledError):
        patched.setattr(loop, "log", log_until_killed)
        run_here({**settings, "save_every": 7})
    run_here({**settings, "save_every": 7, "resume": True})
    timeless = [[{**line, "pairs_per_second": 0} for line in history(run)] for run in (settings, uninterrupted)]
    assert timeless[0] == timeless[1]


def test_objectives_that_find_nothing_to_learn_say_so_before_a_folder_is_made(settings, tmp_path, caplog):
    bare = relabelled(settings, tmp_path, [1])
    with pytest.raises(ValueError, match="no class is both stated and denied.*LBP, No Finding.*--objectives clip"):
        run_here({**bare, "objectives": {"clip": 1, "polarity": 1}})
    for objectives in ("instance", "counterfactual"):  # which need no class
        run_here({**bare, "objectives": objectives, "max_updates": 1, "overwrite": True})
        assert len(history(bare)) == 1


def relabelled(settings, tmp_path, labels):
    """The same dataset, all rows of which have these labels."""
    folder = tmp_path / "relabelled"
    (folder / "data").mkdir(parents=True)
    for split, rows in load_dataset(settings["dataset"]).items():
        same = rows.map(lambda row: {"labels": labels}, features=rows.features)
        same.to_parquet(folder / "data" / f"{split}.parquet")
    return {**settings, "dataset": str(folder)}


def test_objectives_that_learn_labels_say_so_before_a_folder_is_made(settings, tmp_path):
    settings = relabelled(settings, tmp_path, [])
    for name in ("medclip", "supervised"):
        with pytest.raises(ValueError, match="no training pair has one.*--objectives clip"):
            run_here({**settings, "objectives": name})
    assert not Path(settings["output_dir"]).exists()


def test_equal_labels_stop_the_objectives_that_use_labels_and_no_other(settings, tmp_path):
    settings = relabelled(settings, tmp_path, [0]) | {"max_updates": 1}
    for name in ("lumbarclip", "medclip", "supervised"):
        with pytest.raises(ValueError, match="All 40 training pairs have the same classes.*--objectives clip"):
            run_here({**settings, "objectives": name})
    run_here({**settings, "objectives": "clip"})
    assert len(history(settings)) == 1


@pytest.fixture
def knees(settings, tmp_path):
    """Settings for films of 20 patients, both knees each, whose grade is their brightness."""
    random = np.random.default_rng(0)
    for number in range(40):
        split, grade = ("train", "train", "train", "val", "test")[number // 2 % 5], number // 2 % 3
        file = tmp_path / "films" / split / str(grade) / f"90000{number // 2:02}{'LR'[number % 2]}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.clip(random.normal(40 + 80 * grade, 15, (24, 24)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(file)
    build(BuildArguments(source="knee_kl", raw=tmp_path / "films", out=tmp_path / "knees"), command="test")
    return {**settings, "dataset": str(tmp_path / "knees"), "batch_size": 8}


@pytest.mark.slow
@pytest.mark.parametrize(
    "objectives",
    ["image_grades", "grade_prompts", {"clip": 0.2, "symmetry": 0.5, "consistency": 0.5}],
    ids=["image", "prompts", "clip-koa"],
)
def test_grades_are_learned_from_knees(knees, objectives):
    run_here({**knees, "objectives": objectives, "grade_weights": "adaptive", "epochs": 20, "augment": True})
    lines = history(knees)
    name = next(name for name in lines[-1] if name in ("image_grades_loss", "grade_prompts_loss", "symmetry_loss"))
    losses = [line[name] for line in lines]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert {f"validation_{name}"} <= lines[-1].keys()


def test_grades_are_not_learned_where_there_are_none(settings):
    """Nor is a spine mirrored."""
    with pytest.raises(ValueError, match="symmetry learns.*knees.*left and right are facts"):
        run_here({**settings, "objectives": {"clip": 1, "symmetry": 1}})
    for name in sorted(set(OF_GRADES) - {"symmetry"}):
        with pytest.raises(ValueError, match="no training pair has one.*column `grade`"):
            run_here({**settings, "objectives": name})
    assert not Path(settings["output_dir"]).exists()
