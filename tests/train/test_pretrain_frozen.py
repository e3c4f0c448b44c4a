"""A frozen text tower: a run that encodes its texts once is, to the bit, one that runs the tower in every step."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from modeling_lumbarclip import LumbarCLIPConfig, LumbarCLIPModel
from tests.conftest import TINY_TEXT
from tests.train.experiments.experiment_settings import SMALL
from train import pretrain
from train.checkpoints.checkpoint import CHECKPOINT, load_checkpoint, save_checkpoint
from train.data import text_cache
from train.data.loaders import open_dataset
from train.data.text_cache import TextCache
from train.pretraining.arguments import PretrainArguments
from train.training import loop

PROJECT = Path(__file__).parents[2]
VISION = {"model_type": "timm_wrapper", "architecture": "test_convnext"}
# In training mode, these texts would have other features in every step.
TEXT = {**TINY_TEXT, "hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3}

pytestmark = pytest.mark.usefixtures("one_thread")


def save_base(folder, processor, **config):
    torch.manual_seed(1)
    config = {"projection_dim": 8, "text_pooling": "mean", "initial_temperature": 0.2, **config}
    model = LumbarCLIPModel(LumbarCLIPConfig(vision_config=VISION, text_config=TEXT, **config))
    save_checkpoint(model.eval(), processor, folder)
    return str(folder)


@pytest.fixture
def settings(tiny_dataset_folder, tiny_processor, tmp_path):
    return {
        **SMALL,
        "dataset": str(tiny_dataset_folder),
        "output_dir": str(tmp_path / "run"),
        "init_checkpoint": save_base(tmp_path / "base", tiny_processor),
        "freeze": ["text"],
        "learning_rate": 1e-2,
        "evaluate": False,
    }


@pytest.fixture(autouse=True)
def nothing_encoded(monkeypatch):
    monkeypatch.setattr(text_cache, "_last", ("", {}))


@pytest.fixture
def encoded(monkeypatch):
    """How many texts the towers of all models have been given: a list that grows."""
    counted, run = [], LumbarCLIPModel._run_text_tower

    def count(model, input_ids, *args):
        counted.extend(input_ids.tolist())
        return run(model, input_ids, *args)

    monkeypatch.setattr(LumbarCLIPModel, "_run_text_tower", count)
    return counted


def run_the_tower_in_each_step(patch):
    """Instead of looking texts up, give each to the tower, which is in the mode that training puts it in."""

    def keep(cache, model, folder, accelerator):
        cache.model = model

    def run_tower(cache, input_ids, attention_mask):
        with torch.no_grad():
            alone = [
                cache.model.get_text_features(tokens[mask.bool()][None], project=False).pooler_output
                for tokens, mask in zip(input_ids, attention_mask, strict=True)
            ]
        return torch.cat(alone)

    patch.setattr(TextCache, "open", keep)
    patch.setattr(TextCache, "__call__", run_tower)


def run(settings):
    pretrain.pretrain(PretrainArguments(**settings), open_dataset(settings["dataset"]))


def history(settings):
    lines = (Path(settings["output_dir"]) / "history.jsonl").read_text().splitlines()
    return [{**json.loads(line), "pairs_per_second": None} for line in lines]


def weights(settings):
    return (Path(settings["output_dir"]) / "checkpoint" / "model.safetensors").read_bytes()


VARIANTS = {
    "rephrasings": {},
    "accumulated": {"gradient_accumulation_steps": 2, "weight_average": 0.5},
    "several texts": {"texts_per_pair": 3, "text_augmentation": "both", "epochs": 1},
    "eda": {"text_augmentation": "eda", "balance": ["sampler"]},
    "sentences": {"text_unit": "sentence", "objectives": "clip"},
    "checkpointing": {"gradient_checkpointing": True, "patience": 1, "objectives": {"lumbarclip": 1, "siglip": 0.5}},
    "statements": {"objectives": {"lumbarclip": 1, "polarity": 1, "instance": 0.5}, "epochs": 3},
    "counterfactuals": {"objectives": {"clip": 1, "counterfactual": 1}, "text_augmentation": "none"},
    "images alone": {"objectives": "supervised"},
}


# Statements are looked up like reports, and read in every step: the others add a way to vary texts or to train.
@pytest.mark.parametrize(
    "variant",
    ["statements", *(pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS if name != "statements")],
)
def test_texts_encoded_once_train_as_the_tower_does_in_every_step(settings, tmp_path, encoded, variant):
    settings |= VARIANTS[variant]
    run(settings)
    of_cache = len(encoded)
    slow = {**settings, "output_dir": str(tmp_path / "slow")}
    with pytest.MonkeyPatch.context() as patch:
        run_the_tower_in_each_step(patch)
        run(slow)
    assert len(encoded) - of_cache > of_cache
    assert history(settings) == history(slow) and len(history(settings)) > 2
    assert weights(settings) == weights(slow)


def test_the_tower_runs_once_for_each_text_and_stays_as_it_is(settings, encoded, monkeypatch):
    counts, opened, written = {}, TextCache.open, loop.write_result

    def count_open(cache, *args):
        counts["begin"], counts["texts"] = len(encoded), len(cache.texts)
        opened(cache, *args)

    def count_written(*args, **kwargs):
        counts["end"] = len(encoded)
        return written(*args, **kwargs)

    monkeypatch.setattr(TextCache, "open", count_open)
    monkeypatch.setattr(loop, "write_result", count_written)
    run(settings)
    assert counts["end"] - counts["begin"] == counts["texts"] > 10  # in all steps and validations together
    folder = Path(settings["output_dir"])
    assert {path.name for path in folder.iterdir()} == {"checkpoint", "history.jsonl", "run.json"}
    base, trained = (
        load_checkpoint(path)[0].state_dict() for path in (settings["init_checkpoint"], folder / CHECKPOINT)
    )
    changed = {name.partition(".")[0] for name in base if not torch.equal(base[name], trained[name])}
    assert changed == {"vision_model", "image_projection", "text_projection", "log_inverse_temperature"}


def test_an_interrupted_run_resumes_with_the_features_it_began_with(settings, tmp_path, encoded, monkeypatch):
    settings |= {"save_every": 3}
    whole = {**settings, "output_dir": str(tmp_path / "whole")}
    run(whole)

    def interrupt(line, *args):
        log(line, *args)
        if line["update"] == 7:
            raise KeyboardInterrupt

    log = loop.log
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(loop, "log", interrupt)
        run(settings)
    assert len([*(Path(settings["output_dir"]) / "text_features").iterdir()]) == 1
    monkeypatch.setattr(text_cache, "encode_each", lambda *_: pytest.fail("encoded again"))
    run({**settings, "resume": True})
    assert history(settings) == history(whole) and weights(settings) == weights(whole)
    assert not (Path(settings["output_dir"]) / "text_features").exists()


def test_a_frozen_text_tower_and_an_adapted_vision_tower(settings, tmp_path):
    settings |= {"lora_rank": 2, "lora_towers": ["vision"]}
    run(settings)
    slow = {**settings, "output_dir": str(tmp_path / "slow")}
    with pytest.MonkeyPatch.context() as patch:
        run_the_tower_in_each_step(patch)
        run(slow)
    assert history(settings) == history(slow) and weights(settings) == weights(slow)
    adapter = load_file(Path(settings["output_dir"]) / "adapter" / "adapter_model.safetensors")
    assert not any("text_model" in name for name in adapter)


def test_an_objective_that_compares_words_is_refused(settings):
    with pytest.raises(ValueError, match="objective gloria compares words, and freeze text keeps one vector"):
        run({**settings, "objectives": {"lumbarclip": 1, "gloria": 1}})
    assert not Path(settings["output_dir"]).exists()


# Both processes look texts up; or both run the tower.
IN_TWO = """
import json, sys
import pytest
from tests.train.test_pretrain_frozen import run, run_the_tower_in_each_step
if sys.argv[1] == "slow":
    run_the_tower_in_each_step(pytest.MonkeyPatch())
run(json.loads(sys.argv[2]))
"""


@pytest.mark.slow
def test_two_processes_read_what_the_first_has_encoded(settings, tmp_path):
    alone = {**settings, "output_dir": str(tmp_path / "alone")}
    run(alone)
    (tmp_path / "script.py").write_text(IN_TWO)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
    in_two = {}
    for how in ("cached", "slow"):
        in_two[how] = {**settings, "batch_size": 4, "output_dir": str(tmp_path / how)}
        command = [*launcher, str(tmp_path / "script.py"), how, json.dumps(in_two[how])]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "cached" / "run.json").read_text())["num_processes"] == 2
    assert history(in_two["cached"]) == history(in_two["slow"]) and weights(in_two["cached"]) == weights(in_two["slow"])
    for one, two in zip(history(alone), history(in_two["cached"]), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-5)


def test_first_vision_layers_keep_weights_and_statistics(settings, tiny_processor, tmp_path):
    """A batch norm would move its statistics without a gradient, too."""
    model = LumbarCLIPModel(
        LumbarCLIPConfig(vision_config=VISION | {"architecture": "test_resnet"}, text_config=TEXT, projection_dim=8)
    )
    save_checkpoint(model.eval(), tiny_processor, tmp_path / "resnet")
    args = {**settings, "init_checkpoint": str(tmp_path / "resnet"), "freeze": [], "freeze_vision_layers": 1}
    pretrain.main(PretrainArguments(**args))
    after, _ = load_checkpoint(Path(settings["output_dir"]) / CHECKPOINT)
    before, after = (of.vision_model.timm_model.state_dict() for of in (model, after))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not {name for name in changed if name.startswith(("conv1.", "bn1."))}
    assert {"layer1.0.bn1.running_mean", "layer1.0.conv1.weight"} <= changed
