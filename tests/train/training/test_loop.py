"""What an update does and leaves undone: overflows that a gradient scaler skips, and numbers that are NaN."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import accelerate
import pytest
import torch
from datasets import load_dataset

from tests.train.experiments.experiment_settings import SMALL
from train.pretrain import pretrain
from train.pretraining import task
from train.pretraining.arguments import PretrainArguments
from train.training import loop
from train.training.loop import MAX_SKIPPED, Training

PROJECT = Path(__file__).parents[3]

pytestmark = pytest.mark.usefixtures("one_thread")


class Fp16(accelerate.Accelerator):
    """What mixed precision fp16 does on a GPU, on a CPU: autocast, and a scaler of the gradients."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.scaler, self.native_amp = torch.amp.GradScaler("cpu"), True
        self.state._mixed_precision = "fp16"


@pytest.fixture
def settings(tiny_dataset_folder, tmp_path):
    return {
        **SMALL,
        "dataset": str(tiny_dataset_folder),
        "output_dir": str(tmp_path / "run"),
        "learning_rate": 1e-3,
        "epochs": 6,
        "max_updates": 8,
        "weight_average": 0.9,
        "save_every": 1000,
        "evaluate": False,
    }


@pytest.fixture
def fp16(monkeypatch):
    monkeypatch.setattr(loop, "Accelerator", Fp16)


def run(settings, **more):
    args = PretrainArguments(**settings, **more)
    return pretrain(args, load_dataset(args.dataset))


def history(settings):
    path = Path(settings["output_dir"]) / "history.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def timeless(settings):
    return [{**line, "pairs_per_second": None} for line in history(settings)]


def weights(settings):
    return (Path(settings["output_dir"]) / "checkpoint" / "model.safetensors").read_bytes()


@pytest.fixture
def watched(monkeypatch):
    """Copies of what an update may change, by update; 0: before the first."""
    states, update_once = {}, Training._update

    def watch(self, update, batches):
        states.setdefault(update - 1, state_of(self))
        update_once(self, update, batches)
        states[update] = state_of(self)

    monkeypatch.setattr(Training, "_update", watch)
    return states


def state_of(training):
    return {
        "weights": [parameter.detach().clone() for parameter in training.trained.parameters()],
        "average": [parameter.detach().clone() for parameter in training.average.module.parameters()],
        "moments": [value.clone() for state in training.optimizer.state.values() for value in state.values()],
        "rate": training.schedule.get_last_lr(),
        "scale": None if training.accelerator.scaler is None else training.accelerator.scaler.get_scale(),
    }


def same(one, other):
    return all(
        len(one[name]) == len(other[name]) and all(map(torch.equal, one[name], other[name]))
        for name in ("weights", "average", "moments")
    )


def spoil_gradients(patch, updates, factor=math.inf, micro_steps=None):
    """Multiply the gradient of the image head by a factor in some updates, and in some micro-steps of them."""
    now, build, update_once, loss = {"step": -1}, task.build_model, Training._update, task.PretrainingTask.loss

    def build_spoiled(*args, **kwargs):
        processor, model = build(*args, **kwargs)

        def hook(gradient):
            is_spoiled = now["update"] in updates and (micro_steps is None or now["step"] in micro_steps)
            return gradient * factor if is_spoiled else gradient

        model.image_projection.weight.register_hook(hook)
        return processor, model

    def update(self, number, batches):
        now.update(update=number, step=-1)
        update_once(self, number, batches)

    def count(self, *args):
        now["step"] += 1
        return loss(self, *args)

    patch.setattr(task, "build_model", build_spoiled)
    patch.setattr(Training, "_update", update)
    patch.setattr(task.PretrainingTask, "loss", count)


def spoil_losses(patch, updates, value=math.nan):
    loss, update_once, now = task.PretrainingTask.loss, Training._update, {}

    def spoiled(self, *args):
        of_batch, numbers = loss(self, *args)
        return (of_batch * value if now["update"] in updates else of_batch), numbers

    def update(self, number, batches):
        now["update"] = number
        update_once(self, number, batches)

    patch.setattr(Training, "_update", update)
    patch.setattr(task.PretrainingTask, "loss", spoiled)


@pytest.mark.usefixtures("fp16")
def test_fp16_goes_on_after_the_overflows_that_its_scaler_expects(settings):
    run({**settings, "max_updates": 12})
    lines = history(settings)
    assert len(lines) == 12 and 0 < lines[-1]["skipped_updates"] < 12
    assert json.loads((Path(settings["output_dir"]) / "run.json").read_text())["mixed_precision"] == "fp16"


@pytest.mark.usefixtures("fp16")
@pytest.mark.parametrize("factor", [math.inf, math.nan, 1e25])
def test_an_update_that_overflows_changes_nothing_but_the_scale(settings, watched, monkeypatch, factor):
    """1e25: all gradients are finite, only their norm is not, which no smaller scale would change."""
    monkeypatch.setattr(Fp16, "__init__", small_scale(Fp16.__init__))
    spoil_gradients(monkeypatch, {2, 3, 5}, factor)
    run(settings)
    for update in range(1, 9):
        before, after = watched[update - 1], watched[update]
        if update in {2, 3, 5}:
            assert same(before, after) and before["rate"] == after["rate"]
            assert after["scale"] == before["scale"] / (1 if factor == 1e25 else 2)
        else:
            assert not same(before, after) and before["rate"] != after["rate"]
    assert [line["skipped_updates"] for line in history(settings)] == [0, 1, 2, 2, 3, 3, 3, 3]
    assert ["target_entropy" in line for line in history(settings)] == [
        update not in {2, 3, 5} for update in range(1, 9)
    ]
    assert all(math.isfinite(line["loss"]) for line in history(settings))


def small_scale(init):
    """A scale at which nothing overflows by itself."""

    def with_scale(self, *args, **kwargs):
        init(self, *args, **kwargs)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)

    return with_scale


@pytest.mark.usefixtures("fp16")
def test_one_micro_batch_that_overflows_skips_the_whole_update(settings, watched, monkeypatch):
    monkeypatch.setattr(Fp16, "__init__", small_scale(Fp16.__init__))
    spoil_gradients(monkeypatch, {2}, micro_steps={0})
    run({**settings, "gradient_accumulation_steps": 2, "max_updates": 3})
    assert [same(watched[update - 1], watched[update]) for update in (1, 2, 3)] == [False, True, False]
    assert [line["skipped_updates"] for line in history(settings)] == [0, 1, 1]


@pytest.mark.usefixtures("fp16")
def test_overflow_that_does_not_end_ends_the_run(settings, monkeypatch):
    monkeypatch.setattr(Fp16, "__init__", small_scale(Fp16.__init__))
    monkeypatch.setattr(loop, "MAX_SKIPPED", 3)
    spoil_gradients(monkeypatch, {2, 3, 5, 6, 7})
    with pytest.raises(FloatingPointError, match=r"3 updates in a row, up to update 7, at loss scales down to .*bf16"):
        run(settings)
    assert not (Path(settings["output_dir"]) / "checkpoint").exists() and MAX_SKIPPED == 20
    assert [line["update"] for line in history(settings)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.usefixtures("fp16")
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_a_run_with_a_scaler_too(settings, monkeypatch, value):
    spoil_losses(monkeypatch, {2}, value)
    with pytest.raises(FloatingPointError, match=r"The loss is (nan|inf) at update 2 .*Rows of this step: tiny/"):
        run(settings)
    assert len(history(settings)) == 1


@pytest.mark.parametrize("factor", [math.inf, math.nan, 1e25])
def test_without_a_scaler_a_gradient_that_is_no_number_ends_the_run(settings, monkeypatch, factor):
    spoil_gradients(monkeypatch, {2}, factor)
    with pytest.raises(FloatingPointError, match=r"gradient norm is (inf|nan) at update 2 .*Rows of this step: tiny/"):
        run(settings)
    assert len(history(settings)) == 1 and "skipped_updates" not in history(settings)[0]


@pytest.mark.usefixtures("fp16")
def test_a_resumed_run_has_the_scale_it_was_interrupted_with(settings, watched, tmp_path, monkeypatch):
    settings |= {"max_updates": 12, "save_every": 5, "log_every": 3}
    run(settings)
    whole, scale = dict(watched), watched[12]["scale"]
    assert whole[5]["scale"] < 65536  # some update before was skipped
    interrupted = {**settings, "output_dir": str(tmp_path / "interrupted")}
    save_state = loop.save_state

    def save_and_die(*args):
        save_state(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_state", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            run(interrupted)
    watched.clear()
    run(interrupted, resume=True)
    assert min(watched) == 5 and watched[12]["scale"] == scale
    assert watched[5]["scale"] == whole[5]["scale"] and same(watched[12], whole[12])
    assert weights(interrupted) == weights(settings)
    skipped = [[line["skipped_updates"] for line in history(of_run)] for of_run in (settings, interrupted)]
    assert skipped[0] == skipped[1]


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Read the numbers of several updates together."""
    monkeypatch.setattr(Training, "_read_every", 1000)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("spoil", [spoil_losses, spoil_gradients])
def test_a_number_that_is_read_late_names_the_first_bad_update(settings, monkeypatch, spoil):
    with monkeypatch.context() as patch:
        patch.setattr(Training, "_read_every", 1)
        spoil(patch, {3})
        with pytest.raises(FloatingPointError) as at_once:
            run(settings)
    spoil(monkeypatch, {3})
    with pytest.raises(FloatingPointError) as late:
        run({**settings, "log_every": 4}, overwrite=True)
    assert str(late.value) == str(at_once.value) and "at update 3 " in str(late.value)
    assert {path.name for path in Path(settings["output_dir"]).iterdir()} == {"run.json"}


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("more", [{"save_every": 3}, {"save_every": 0, "patience": 5}, {"max_updates": 4}])
def test_no_state_validation_or_checkpoint_comes_before_the_check(settings, monkeypatch, more):
    spoil_losses(monkeypatch, {2})
    monkeypatch.setattr(task.PretrainingTask, "validate", lambda *_: pytest.fail("validated"))
    with pytest.raises(FloatingPointError, match="at update 2 "):
        run({**settings, "log_every": 0, **more})
    assert {path.name for path in Path(settings["output_dir"]).iterdir()} == {"run.json"}


@pytest.mark.parametrize("more", [{}, {"gradient_accumulation_steps": 2, "max_updates": 5, "patience": 3}])
def test_late_reading_changes_no_number(settings, tmp_path, monkeypatch, more):
    settings |= {"log_every": 3, **more}
    run(settings)
    late = {**settings, "output_dir": str(tmp_path / "late")}
    monkeypatch.setattr(Training, "_read_every", 1000)
    run(late)
    assert timeless(late) == timeless(settings) and weights(late) == weights(settings)


@pytest.mark.usefixtures("as_on_a_gpu")
def test_an_update_reads_nothing_from_the_device(settings, monkeypatch):
    """Each reading waits until a GPU has done all that it was told to do."""
    reading, update_once = [], Training._update

    def watch(self, *args):
        with pytest.MonkeyPatch.context() as patch:
            for name in ("item", "tolist", "cpu", "numpy", "__bool__", "__float__"):
                patch.setattr(torch.Tensor, name, recorded(name, getattr(torch.Tensor, name)))
            update_once(self, *args)

    def recorded(name, method):
        def call(tensor, *args, **kwargs):
            caller = Path(sys._getframe(1).f_code.co_filename)
            if caller.is_relative_to(PROJECT / "train"):
                reading.append(f"{name} in {caller.name}")
            return method(tensor, *args, **kwargs)

        return call

    monkeypatch.setattr(Training, "_update", watch)
    run({**settings, "log_every": 4, "weight_average": 0.0})
    assert not reading


def test_weights_that_are_no_numbers_are_not_saved_in_a_state(settings):
    diverging = {"learning_rate": 3e37, "warmup_ratio": 0.0, "save_every": 1}
    with pytest.raises(FloatingPointError, match="norm of the weights is (nan|inf) at update 1 "):
        run({**settings, **diverging})
    assert not (Path(settings["output_dir"]) / "states").exists()


def test_weights_that_are_no_numbers_are_not_saved_in_the_checkpoint(settings, monkeypatch):
    """Neither the last training loss nor, in a row that no text looks up, that of validation may show them."""

    def spoil(training, update):
        next(training.published.parameters()).detach().view(-1)[0] = float("inf")
        return 1.0

    monkeypatch.setattr(Training, "_validate", spoil)
    with pytest.raises(FloatingPointError, match="norm of the weights is inf"):
        run({**settings, "save_every": 100})
    assert not (Path(settings["output_dir"]) / "checkpoint").exists()


# The gradients of one process overflow, before they are added up.
OF_ONE_PROCESS = """
import json, os, sys
from pathlib import Path
import pytest
from tests.train.training.test_loop import Fp16, run, small_scale, spoil_gradients, spoil_losses
from train.training import loop
rank, spoilt, settings = int(os.environ["RANK"]), sys.argv[1], json.loads(sys.argv[2])
loop.Accelerator, loop.MAX_SKIPPED = Fp16, 3
Fp16.__init__ = small_scale(Fp16.__init__)
if rank == 1 and spoilt == "gradients":
    spoil_gradients(pytest.MonkeyPatch(), {2, 3, 5})
if rank == 1 and spoilt == "more gradients":
    spoil_gradients(pytest.MonkeyPatch(), {2, 3, 4})
if rank == 1 and spoilt == "losses":
    spoil_losses(pytest.MonkeyPatch(), {2})
error = ""
try:
    run(settings)
except FloatingPointError as raised:
    error = str(raised)
Path(f"{settings['output_dir']}-{rank}.txt").write_text(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("spoilt", ["gradients", "more gradients", "losses"])
def test_processes_decide_alike(settings, tmp_path, spoilt):
    (tmp_path / "script.py").write_text(OF_ONE_PROCESS)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*torchrun, str(tmp_path / "script.py"), spoilt, json.dumps({**settings, "batch_size": 4})],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    errors = [(tmp_path / f"run-{rank}.txt").read_text() for rank in (0, 1)]
    assert errors[0] == errors[1]
    if spoilt == "gradients":
        assert errors[0] == "" and [line["skipped_updates"] for line in history(settings)] == [0, 1, 2, 2, 3, 3, 3, 3]
    elif spoilt == "more gradients":
        assert "3 updates in a row, up to update 4" in errors[0]
    else:
        assert "The loss is nan at update 2 " in errors[0] and "Rows of this step: tiny/" in errors[0]
