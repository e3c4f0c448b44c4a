"""A run whose result cannot be saved is refused before its first update, and nothing of it stays."""

import copy
import errno
import json
import os
import stat
import subprocess
import sys
from argparse import Namespace
from collections import namedtuple

import pytest
import torch
from datasets import load_dataset
from torch import nn

from tests.conftest import PROJECT
from tests.train.experiments.experiment_settings import SMALL
from train.checkpoints.checkpoint import save_checkpoint
from train.classification import task as classification
from train.classification.arguments import FinetuneClassificationArguments
from train.finetune_classification import finetune
from train.pretrain import pretrain
from train.pretraining import task as pretraining
from train.pretraining.arguments import PretrainArguments
from train.training import loop, result

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def run(tiny_dataset_folder, tiny_model, tiny_processor, tmp_path):
    """Do a run of two updates in `tmp_path / "run"`, of a kind: from towers, with adapters, or of a classifier."""
    save_checkpoint(tiny_model, tiny_processor, tmp_path / "base")
    dataset = load_dataset(str(tiny_dataset_folder))

    def run(kind="towers", **more):
        names = ("batch_size", "report_to")
        settings = {name: SMALL[name] for name in names} | {"max_updates": 2, "dataset": str(tiny_dataset_folder)}
        settings |= {"output_dir": str(tmp_path / "run")}
        base = str(tmp_path / "base")
        if kind.startswith("classifier"):
            rank = 2 if kind == "classifier with adapters" else 0
            settings |= {"checkpoint": base, "num_resamples": 5, "lora_rank": rank}
            return finetune(FinetuneClassificationArguments(**{**settings, **more}), dataset)
        start = {**SMALL, "learning_rate": 1e-3} if kind == "towers" else {"init_checkpoint": base, "lora_rank": 2}
        settings |= {"evaluate": False, **start}
        return pretrain(PretrainArguments(**{**settings, **more}), dataset)

    return run


class CountedTask:
    calibrated = 0

    def model_in(self, trained):
        return trained

    def calibrate(self, model):
        self.calibrated += 1


def test_only_the_process_that_writes_reads_whole_splits_to_calibrate(tiny_model, tmp_path):
    task = CountedTask()
    final = result.write_result(task, tiny_model, Namespace(lora_rank=0), tmp_path, calibrated=True, writes=False)
    assert final is tiny_model and task.calibrated == 0 and not list(tmp_path.iterdir())


KINDS = ["towers", "adapters", "classifier", "classifier with adapters"]


def change_model(patch, change):
    """Let `change` see the model and processor of each run when they are built; it may return another processor."""
    build, load = pretraining.build_model, classification.load_pretrained

    def built(*args, **kwargs):
        processor, model = build(*args, **kwargs)
        return change(model, processor) or processor, model

    def loaded(*args, **kwargs):
        model, processor = load(*args, **kwargs)
        return model, change(model, processor) or processor

    patch.setattr(pretraining, "build_model", built)
    patch.setattr(classification, "load_pretrained", loaded)


def tower_of(model):
    return model.get_base_model().vision_model if hasattr(model, "get_base_model") else model.vision_model


def never(*_, **__):
    raise AssertionError("a run that cannot be saved was trained")


def add_hook(model, hook):
    """On the class of a module of its own, which survives a copy, but not saving."""

    class Changed(type(tower_of(model))):
        def forward(self, *args, **kwargs):
            return hook(self, super().forward(*args, **kwargs))

    tower_of(model).__class__ = Changed


def forget_a_running_mean(model, processor):
    tower_of(model).register_buffer("running", torch.zeros(1), persistent=False)

    def hook(tower, output):
        if tower.training:
            tower.running += 1
        output.pooler_output = output.pooler_output + tower.running
        return output

    add_hook(model, hook)


def forget_a_buffer(model, processor):
    """It differs from the one that a new tower has."""
    tower_of(model).register_buffer("shift", torch.ones(1), persistent=False)

    def hook(tower, output):
        output.pooler_output = output.pooler_output + tower.shift
        return output

    add_hook(model, hook)


def mask_at_random(model, processor):
    def hook(tower, output):
        output.pooler_output = output.pooler_output * torch.rand_like(output.pooler_output)
        return output

    add_hook(model, hook)


def break_saving(model, processor):
    class Unwritable(type(processor)):
        def save_pretrained(self, *_, **__):
            raise TypeError("Object of type Tensor is not JSON serializable")

    changed = copy.copy(processor)
    changed.__class__ = Unwritable
    return changed


def break_weights(model, processor):
    with torch.no_grad():
        next(parameter for parameter in tower_of(model).parameters() if parameter.ndim > 1).fill_(float("nan"))


def close_the_disk(model, processor):
    class OnAClosedDisk(type(processor)):
        def save_pretrained(self, folder, **__):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(folder))

    changed = copy.copy(processor)
    changed.__class__ = OnAClosedDisk
    return changed


REFUSED = {
    forget_a_running_mean: "not the saved one: .*non-persistent buffer",
    forget_a_buffer: "not the saved one: .*non-persistent buffer",
    mask_at_random: "another .* each time: .*choose another tower",
    break_saving: "could not be saved. TypeError: Object of type Tensor",
    break_weights: "outputs contain NaN or Inf",
    close_the_disk: "Read-only file system",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", REFUSED, ids=lambda change: change.__name__)
def test_what_cannot_be_saved_is_refused_before_the_first_update(run, change, kind, tmp_path, monkeypatch):
    change_model(monkeypatch, change)
    monkeypatch.setattr(loop.Training, "_update", never)
    with pytest.raises((ValueError, OSError), match=f"(?s){REFUSED[change]}"):
        run(kind)
    assert not (tmp_path / "run").exists()


def index_beyond_its_table(model, processor):
    """Unlike a table of positions, this one cannot be found by looking."""

    class Short(type(model.text_model)):
        def forward(self, input_ids, **kwargs):
            nn.functional.embedding(torch.tensor(input_ids.shape[1]), torch.zeros(20, 1))
            return super().forward(input_ids=input_ids, **kwargs)

    model.text_model.__class__ = Short


def test_a_text_that_is_too_long_for_the_tower_names_the_setting(run, tmp_path, monkeypatch):
    change_model(monkeypatch, index_beyond_its_table)
    monkeypatch.setattr(loop.Training, "_update", never)
    with pytest.raises(ValueError, match=r"A text of 40 tokens .*Lower --max_text_length, which is 40\."):
        run(max_text_length=40)
    assert not (tmp_path / "run").exists()
    monkeypatch.undo()
    change_model(monkeypatch, index_beyond_its_table)
    run(max_text_length=19)


def take_away_the_padding(model, processor):
    processor.tokenizer.pad_token = None


def test_a_tokenizer_that_cannot_pad_is_refused(run, tmp_path, monkeypatch):
    change_model(monkeypatch, take_away_the_padding)
    with pytest.raises(ValueError, match="padding token"):
        run()
    assert not (tmp_path / "run" / "history.jsonl").exists()


def keep_a_constant_out_of_the_weights(model, processor):
    tower_of(model).register_buffer("frequencies", torch.ones(4), persistent=False)


def tie_two_weights(model, processor):
    layer = model.text_model.encoder.layer[0].attention.self
    layer.key.weight = layer.query.weight


def test_weights_that_are_tied_without_a_word_are_refused(run, tmp_path, monkeypatch):
    change_model(monkeypatch, tie_two_weights)
    monkeypatch.setattr(loop.Training, "_update", never)
    with pytest.raises(ValueError, match="could not be saved"):
        run()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_what_can_be_saved_is_trained(run, kind, tmp_path, monkeypatch):
    change_model(monkeypatch, keep_a_constant_out_of_the_weights)
    run(kind)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert "checkpoint" in names and not any(name.startswith(".") for name in names)
    assert ("adapter" in names) == ("adapters" in kind)


def test_an_earlier_run_stays_if_the_one_to_overwrite_it_cannot_be_saved(run, tmp_path, monkeypatch):
    run()
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    change_model(monkeypatch, break_saving)
    with pytest.raises(ValueError, match="could not be saved"):
        run(overwrite=True)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_what_a_killed_dry_run_leaves_is_no_run(run, tmp_path):
    (tmp_path / "run" / ".dry_run" / "checkpoint").mkdir(parents=True)
    run()
    assert not (tmp_path / "run" / ".dry_run").exists()


def test_the_dry_run_changes_no_number(run, tmp_path, monkeypatch):
    """Neither the weights nor the random generators that later draws depend on."""
    run(objectives="gloria")
    expected = (tmp_path / "run" / "checkpoint" / "model.safetensors").read_bytes()
    monkeypatch.setattr(loop, "check_can_be_written", lambda *_: None)
    run(objectives="gloria", overwrite=True)
    assert (tmp_path / "run" / "checkpoint" / "model.safetensors").read_bytes() == expected


@pytest.mark.parametrize("umask", [0o022, 0o077], ids="{:03o}".format)
@pytest.mark.parametrize("kind", ["adapters", "classifier"])
def test_all_files_of_a_run_have_the_permissions_of_new_files(run, kind, umask, tmp_path, monkeypatch):
    """States, too: another user of a lab resumes a run."""
    states, save_state = [], loop.save_state

    def save(accelerator, output_dir, update):
        save_state(accelerator, output_dir, update)
        states.extend(stat.S_IMODE(path.stat().st_mode) for path in output_dir.rglob("states/*/*"))

    monkeypatch.setattr(loop, "save_state", save)
    before = os.umask(umask)
    try:
        run(kind)
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"model.safetensors", "golden_outputs.safetensors", "history.jsonl"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == set(states) == {0o666 & ~umask}


Usage = namedtuple("Usage", "total used free")


def limit_the_disk(patch, free):
    patch.setattr(result.shutil, "disk_usage", lambda _: Usage(10**9, 0, free))


def test_a_disk_without_room_for_two_states_is_refused(run, tmp_path, monkeypatch):
    """While a state is written, the previous one is still there."""
    run(patience=5, weight_average=0.5, save_every=1)
    weights = sum(path.stat().st_size for path in (tmp_path / "run" / "checkpoint").glob("model.safetensors"))
    state = 5 * weights  # the weights, their average, the best ones, and two moments
    limit_the_disk(monkeypatch, 2 * state - weights)
    more = {"patience": 5, "weight_average": 0.5, "output_dir": str(tmp_path / "other")}
    with pytest.raises(ValueError, match=r"needs \d+ MB in .*other for its states .* has \d+ MB\. Make room"):
        run(save_every=1, **more)
    assert not (tmp_path / "other").exists()
    run(**more)  # one state
    limit_the_disk(monkeypatch, 2 * state - weights)
    run(patience=5, weight_average=0.5, save_every=1, overwrite=True)  # the room of the run that it deletes


def test_a_disk_that_does_not_know_its_size_is_not_refused(run, monkeypatch):
    monkeypatch.setattr(result.shutil, "disk_usage", lambda _: Usage(0, 0, 0))
    run()


# The other process waits for what the first one finds.
TWO_PROCESSES = """
import json, os, sys
from pathlib import Path
import pytest
from datasets import load_dataset
from tests.train.training.test_result import break_saving, change_model
from train.pretrain import pretrain
from train.pretraining.arguments import PretrainArguments
args = PretrainArguments(**json.loads(sys.argv[1]))
change_model(pytest.MonkeyPatch(), break_saving)
try:
    pretrain(args, load_dataset(args.dataset))
except ValueError as error:
    Path(f"{args.output_dir}-{os.environ['RANK']}.txt").write_text(str(error))
"""


@pytest.mark.slow
def test_all_processes_are_told_that_a_run_cannot_be_saved(tiny_dataset_folder, tmp_path):
    settings = {**SMALL, "learning_rate": 1e-3, "dataset": str(tiny_dataset_folder), "output_dir": f"{tmp_path}/run"}
    (tmp_path / "script.py").write_text(TWO_PROCESSES)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*torchrun, str(tmp_path / "script.py"), json.dumps({**settings, "evaluate": False})],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    errors = [(tmp_path / f"run-{rank}.txt").read_text() for rank in (0, 1)]
    assert errors[0] == errors[1] and "could not be saved" in errors[0]
    assert not (tmp_path / "run").exists()
