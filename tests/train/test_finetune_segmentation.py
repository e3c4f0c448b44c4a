"""Training a segmenter: what it starts from, a killed run, several processes, and a checkpoint that answers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSemanticSegmentation, AutoProcessor

from tests.train.segmentation.made_masks import NAMES, masked_dataset, write_dataset
from train.finetune_segmentation import finetune
from train.segmentation.arguments import FinetuneSegmentationArguments
from train.segmentation.data import read_data
from train.segmentation.evaluation import predict_masks
from train.training import loop

PROJECT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def few_patients(monkeypatch):
    monkeypatch.setattr("train.evaluation.statistics.minima.PATIENTS_FOR_SCOPE", 100)


@pytest.fixture
def settings(checkpoint, tmp_path):
    """A tower without batch norm, so that processes can be equal."""
    return {
        "checkpoint": str(checkpoint),
        "dataset": "drawn",
        "output_dir": str(tmp_path / "run"),
        "loss": "pid_tversky",
        "epochs": 3,
        "batch_size": 6,
        "learning_rate": 3e-3,
        "num_resamples": 20,
        "report_to": "none",
        "decoder_widths": [16, 8, 8],
        "mask_names": list(NAMES),
    }


def run(settings, **more):
    return finetune(FinetuneSegmentationArguments(**(settings | more)), masked_dataset())


def weights(folder):
    return load_file(Path(folder) / "checkpoint" / "model.safetensors")


def history(folder):
    """The history without the speed, which differs from run to run."""
    lines = [json.loads(line) for line in (Path(folder) / "history.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "pairs_per_second"} for line in lines]


def share_of_same_weights(folder, other, **tolerance):
    expected = weights(other)
    same = [torch.isclose(value, expected[name], **tolerance).flatten() for name, value in weights(folder).items()]
    return torch.cat(same).double().mean().item()


def assert_same_weights(folder, other, **tolerance):
    expected = weights(other)
    for name, value in weights(folder).items():
        if tolerance:
            torch.testing.assert_close(value, expected[name], **tolerance)
        else:
            assert torch.equal(value, expected[name]), name


def test_the_checkpoint_answers_as_was_measured(settings):
    model = run(settings, vision="resnet10t", epochs=1, max_updates=1)
    folder = settings["output_dir"]
    assert model.config.id2label == dict(enumerate(NAMES)) and model.config.segmentation_prompts
    loaded = AutoModelForSemanticSegmentation.from_pretrained(f"{folder}/checkpoint").eval()
    processor = AutoProcessor.from_pretrained(f"{folder}/checkpoint")
    data = read_data(masked_dataset(), FinetuneSegmentationArguments(**settings))
    asked = data.rows["test"], 4, data.annotated["test"]
    for one, other in zip(
        predict_masks(model.eval(), processor, *asked), predict_masks(loaded, processor, *asked), strict=True
    ):
        assert one.shape == (40, 28) and (one == other).all()
    assert json.loads((Path(folder) / "metrics.json").read_text())
    assert not any(value.requires_grad for value in model.text_model.parameters())  # it keeps all its words
    (line,) = history(folder)
    assert {"validation_dice/disc", "fn_weight/canal", "error/disc"} <= line.keys()
    dice = [line["validation_dice/disc"], line["validation_dice/canal"]]
    assert line["validation_loss"] == pytest.approx(1 - sum(dice) / 2)


def test_a_run_killed_within_an_epoch_resumes_to_the_same_weights(settings, tmp_path, monkeypatch):
    settings = settings | {"save_every": 4, "patience": 3, "weight_average": 0.5, "contrast_inversion": 0.5}
    run(settings)
    killed = settings | {"output_dir": str(tmp_path / "killed")}
    save_state = loop.save_state

    def save_and_die(accelerator, output_dir, update):
        save_state(accelerator, output_dir, update)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(loop, "save_state", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            run(killed)
    with pytest.raises(ValueError, match="loss: 'pid_tversky' then, 'dice' now"):
        run(killed | {"loss": "dice"}, resume=True)
    run(killed, resume=True)
    assert_same_weights(tmp_path / "killed", tmp_path / "run")
    for killed_line, line in zip(history(tmp_path / "killed")[1:], history(tmp_path / "run")[1:], strict=True):
        assert killed_line | {"loss": 0} == line | {"loss": 0}  # the mean of the steps since the run was resumed
    weights_of_epochs = [line["fn_weight/disc"] for line in history(tmp_path / "run")]
    assert weights_of_epochs[0] == 0.5 and len(set(weights_of_epochs)) == 3  # the controller has moved


@pytest.mark.parametrize(
    "start",
    [
        {"cross_attention": "none"},
        {"lora_rank": 2},
        {"freeze_tower": True},
        {"patch_size": 16, "checkpoint": "", "vision": "resnet10t", "pretrained": False, "image_size": 32,
         "text_config": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}},
        {"cross_attention": "none", "checkpoint": "", "vision": "resnet10t", "pretrained": False, "image_size": 32},
        {"prompts": {"disc": "a disc bulge."}, "loss": "cross_entropy", "augment": False},
    ],
)  # fmt: skip
def test_other_ways_to_start(settings, checkpoint, start):
    model = run(settings | start, epochs=1, max_updates=1)
    before = load_file(checkpoint / "model.safetensors")
    tower = {name: value for name, value in model.state_dict().items() if name in before and "vision_model" in name}
    changed = [name for name, value in tower.items() if not torch.equal(value, before[name])]
    if "checkpoint" not in start:
        assert tower and bool(changed) is not start.get("freeze_tower", False)
    else:
        assert not tower or len(changed) == len(tower)
    assert hasattr(model, "text_model") is (start.get("cross_attention") != "none")
    if "prompts" in start:
        assert model.config.segmentation_prompts == ["a disc bulge.", "The canal."]
    if "lora_rank" in start:
        assert (Path(settings["output_dir"]) / "adapter").exists()
    run(settings | start, epochs=1, max_updates=1, resume=True)  # nothing left to train: measured again


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"patch_size": 64}, "patch_size is 64, and images have 32 pixels a side"),
        ({"prompts": {"disk": "a disc"}}, "prompts: disk: not among the classes disc, canal"),
        ({"mask_names": ["background", "disc"]}, "has the value 2"),
    ],
)
def test_what_cannot_be_trained_leaves_no_run(settings, wrong, said):
    with pytest.raises(ValueError, match=said):
        run(settings | wrong)
    assert not Path(settings["output_dir"]).exists() or not list(Path(settings["output_dir"]).glob("*"))


def test_a_segmenter_is_no_start(settings):
    run(settings, epochs=1, max_updates=1)
    with pytest.raises(ValueError, match="is a segmenter; start from the pretrained checkpoint it came from"):
        run(settings, checkpoint=f"{settings['output_dir']}/checkpoint", overwrite=True)


@pytest.mark.slow
def test_two_processes_or_accumulated_steps_give_one_run(settings, tmp_path):
    """Cross-entropy accumulates; overlaps are ratios of sums, which two processes share and two steps do not."""
    folder = write_dataset(tmp_path / "drawn", masked_dataset())
    settings = settings | {"dataset": str(folder), "epochs": 1, "allow_leaks": True}  # drawn patients look alike
    run(settings, output_dir=str(tmp_path / "one"))
    arguments = settings | {"batch_size": 3, "output_dir": str(tmp_path / "two")}
    (tmp_path / "settings.yaml").write_text(json.dumps(arguments))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*torchrun, str(PROJECT / "train/finetune_segmentation.py"), str(tmp_path / "settings.yaml")],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "two" / "run.json").read_text())["num_processes"] == 2
    # Not all: rounding, magnified by the norms, flips the sign of gradients near 0, which Adam makes whole steps of.
    # One process whose images are changed by 3e-7 of their values keeps 0.93.
    assert share_of_same_weights(tmp_path / "two", tmp_path / "one", rtol=1e-3, atol=1e-3) > 0.95
    (one,), (two,) = history(tmp_path / "one"), history(tmp_path / "two")
    of_training = [name for name in one if name.startswith(("loss", "error/", "fn_weight/"))]
    assert len(of_training) == 5
    assert [two[name] for name in of_training] == pytest.approx([one[name] for name in of_training], rel=2e-3)
    plain = settings | {"loss": "cross_entropy", "augment": False, "freeze_tower": True}
    run(plain, output_dir=str(tmp_path / "whole"), batch_size=6)
    run(plain, output_dir=str(tmp_path / "steps"), batch_size=3, gradient_accumulation_steps=2)
    whole, steps = history(tmp_path / "whole"), history(tmp_path / "steps")
    assert steps[-1]["loss"] == pytest.approx(whole[-1]["loss"], rel=0.05)
