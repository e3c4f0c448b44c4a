"""Adapters: what is kept is what was trained, bit for bit; merged they give the same outputs; runs with them resume."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModel, AutoProcessor

from modeling_lumbarclip import LumbarCLIPConfig, LumbarCLIPModel
from tests.conftest import TINY_TEXT, TINY_VISION
from tests.train.experiments.experiment_settings import SMALL
from train import pretrain
from train.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from train.data.loaders import open_dataset
from train.pretraining.arguments import PretrainArguments
from train.training import loop
from train.training.adapters import (
    TOWERS,
    add_adapters,
    check_adapter_base,
    merge_adapters,
    save_adapters,
    set_adapter_base,
)

PROJECT = Path(__file__).parents[3]
RESNET = {
    "model_type": "timm_wrapper",
    "architecture": "resnet10t",
    "model_args": {"channels": [8, 8, 16, 16], "stem_width": 8},
}
SWIN = {
    "model_type": "timm_wrapper",
    "architecture": "swin_tiny_patch4_window7_224",
    "model_args": {"img_size": 32, "embed_dim": 12, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4},
}

pytestmark = pytest.mark.usefixtures("one_thread")


def save_base(folder, vision, processor, seed=0, **config):
    """Save a checkpoint whose batch norm has seen images, and lets every block of a ResNet through, as trained ones."""
    torch.manual_seed(seed)
    model = LumbarCLIPModel(LumbarCLIPConfig(vision_config=vision, text_config=TINY_TEXT, projection_dim=8, **config))
    with torch.no_grad():
        for module in model.vision_model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
        for _ in range(3):
            model.train().get_image_features(torch.randn(8, 3, 32, 32) * 2 + 1)
    save_checkpoint(model.eval(), processor, folder)
    return folder


def train_briefly(model, inputs):
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.01)
    for _ in range(3):
        model.train()(**inputs, return_loss=True).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def outputs(model, inputs):
    with torch.no_grad():
        output = model.eval()(**inputs)
    return torch.cat([output.image_embeds, output.text_embeds, output.logits_per_image], dim=1)


BOTH_OR_TEXT = [["vision", "text"], ["text"]]  # the other tower is trained whole
BERT_LAYERS, RESNET_LAYERS = {"query", "key", "value", "dense"}, {"0", "1", "3", "6", "conv1", "conv2"}


@pytest.mark.parametrize(
    ("vision", "projection", "towers", "layers"),
    [
        pytest.param(TINY_VISION, "linear", TOWERS, {"qkv", "proj"} | BERT_LAYERS, id="vit"),
        pytest.param(RESNET, "nonlinear", TOWERS, RESNET_LAYERS | BERT_LAYERS, id="resnet"),
        pytest.param(SWIN, "none", TOWERS, {"qkv", "proj"} | BERT_LAYERS, id="swin"),
        pytest.param(TINY_VISION, "none", ["text_model"], BERT_LAYERS, id="vit-text"),
        pytest.param(RESNET, "linear", ["text_model"], BERT_LAYERS, id="resnet-text"),
        pytest.param(RESNET, "linear", ["vision_model"], RESNET_LAYERS, id="resnet-vision"),
    ],
)
def test_adapters_and_base_together_are_the_trained_model(
    tmp_path, tiny_processor, tiny_inputs, vision, projection, towers, layers
):
    base = save_base(tmp_path / "base", vision, tiny_processor, projection=projection)
    before = AutoModel.from_pretrained(base).state_dict()
    model = add_adapters(AutoModel.from_pretrained(base), rank=2, towers=towers)
    adapted = {
        name.partition(".lora_A")[0].rpartition(".")[2] for name, _ in model.named_parameters() if "lora_A" in name
    }
    assert adapted == layers
    train_briefly(model, tiny_inputs)
    save_adapters(model, tiny_processor, tmp_path / "adapter")

    loaded = PeftModel.from_pretrained(AutoModel.from_pretrained(base), tmp_path / "adapter")
    weights, again = model.state_dict(), loaded.state_dict()
    assert {name for name in again if name in weights or "num_batches_tracked" not in name} == set(weights)
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    # Equal weights that lie elsewhere in memory may give sums that differ in the last bit.
    torch.testing.assert_close(outputs(loaded, tiny_inputs), outputs(model, tiny_inputs), atol=1e-6, rtol=1e-6)
    # What the adapter leaves to the base is as it was: weights of its towers and statistics of batch norm.
    of_base = {name.removeprefix("base_model.model.").replace("base_layer.", ""): weights[name] for name in weights}
    of_towers = [name for name in before if "_model." in name and "num_batches_tracked" not in name]
    kept = {name for name in of_towers if torch.equal(before[name], of_base[name])}
    of_adapted = {name for name in of_towers if name.partition(".")[0] in towers}
    assert of_adapted <= kept and len(of_adapted) > 10
    # The other tower has learned, its statistics, too; a key's bias changes no attention.
    assert all("key.bias" in name or "position_ids" in name or ".qkv." in name for name in kept - of_adapted)
    assert not torch.equal(before["log_inverse_temperature"], of_base["log_inverse_temperature"])

    at_once = AutoModel.from_pretrained(tmp_path / "adapter")  # transformers finds the base by the adapter's name of it
    torch.testing.assert_close(outputs(at_once, tiny_inputs), outputs(model, tiny_inputs), atol=1e-6, rtol=1e-6)
    expected = outputs(model, tiny_inputs)
    save_checkpoint(merge_adapters(model), tiny_processor, tmp_path / "merged")
    merged, _ = load_checkpoint(tmp_path / "merged")
    assert type(merged) is LumbarCLIPModel and merged.state_dict().keys() == before.keys()
    torch.testing.assert_close(outputs(merged, tiny_inputs), expected, atol=1e-5, rtol=0)


def test_training_reaches_every_adapter_and_the_heads(tmp_path, tiny_processor, tiny_inputs, caplog):
    caplog.set_level("INFO")
    base = save_base(tmp_path / "base", RESNET, tiny_processor)
    model = add_adapters(AutoModel.from_pretrained(base), rank=2)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert f"Adapters of rank 2: {trained:,} of " in caplog.text
    start = copy.deepcopy(model.state_dict())
    train_briefly(model, tiny_inputs)
    end = model.state_dict()
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    heads = {
        f"base_model.model.{head}_projection.modules_to_save.default.{part}"
        for head in ("image", "text")
        for part in ("weight", "bias")
    }
    adapters = {name for name in start if "lora_" in name}
    assert changed == adapters | heads | {"base_model.model.log_inverse_temperature"}


def test_a_fixed_temperature_stays_fixed(tiny_config):
    model = LumbarCLIPModel(tiny_config)
    model.log_inverse_temperature.requires_grad_(False)
    model = add_adapters(model, rank=2)
    assert not model.log_inverse_temperature.requires_grad


def test_a_tower_that_cannot_be_adapted_is_refused(tiny_model):
    tiny_model.vision_model = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 3, groups=4))
    with pytest.raises(ValueError, match="vision_model has no linear layer and no plain convolution"):
        add_adapters(tiny_model, rank=2)
    tiny_model.vision_model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    with pytest.raises(ValueError, match="vision_model has batch norm that adapters cannot freeze"):
        add_adapters(tiny_model, rank=2)


def test_the_base_of_a_published_adapter_is_on_the_hub(tmp_path, tiny_processor, tiny_model):
    base = save_base(tmp_path / "base", TINY_VISION, tiny_processor)
    folder = tmp_path / "adapter"
    save_adapters(add_adapters(AutoModel.from_pretrained(base), rank=2), tiny_processor, folder)
    with pytest.raises(ValueError, match=r"base, which is not on the Hub.*--adapter_base org/name"):
        check_adapter_base(folder)
    for wrong in ("name", "a/b/c", "../base", str(base)):
        with pytest.raises(ValueError, match="such as org/name"):
            set_adapter_base(folder, wrong)
    before = json.loads((folder / "adapter_config.json").read_text())
    set_adapter_base(folder, "org/lumbarclip", revision="0123abc")
    assert check_adapter_base(folder) == "org/lumbarclip"
    after = json.loads((folder / "adapter_config.json").read_text())
    assert after == {**before, "base_model_name_or_path": "org/lumbarclip", "revision": "0123abc"}
    save_adapters(add_adapters(tiny_model, rank=2), tiny_processor, folder)
    with pytest.raises(ValueError, match="has no base: its run started from two towers"):
        check_adapter_base(folder)


@pytest.fixture
def settings(tiny_dataset_folder, tiny_processor, tmp_path):
    """A run from a small ResNet checkpoint; with its batch norm frozen, processes cannot matter."""
    return {
        **SMALL,
        "dataset": str(tiny_dataset_folder),
        "output_dir": str(tmp_path / "run"),
        "init_checkpoint": str(
            save_base(tmp_path / "base", RESNET, tiny_processor, seed=1, text_pooling="mean", initial_temperature=0.2)
        ),
        "lora_rank": 4,
        "epochs": 2,
        "learning_rate": 1e-2,
        "weight_average": 0.5,
        "save_every": 3,
        "evaluate": False,
    }


def history(settings):
    lines = (Path(settings["output_dir"]) / "history.jsonl").read_text().splitlines()
    return {line["update"]: [line["loss"], line.get("validation_loss")] for line in map(json.loads, lines)}


def weights(settings, folder="checkpoint"):
    return load_checkpoint(Path(settings["output_dir"]) / folder)[0].state_dict()


def run(settings):
    pretrain.pretrain(PretrainArguments(**settings), open_dataset(settings["dataset"]))


@pytest.mark.parametrize("towers", BOTH_OR_TEXT)
def test_a_run_leaves_an_adapter_and_the_same_model_merged(settings, tiny_inputs, towers):
    run({**settings, "lora_towers": towers})
    folder = Path(settings["output_dir"])
    assert {path.name for path in folder.iterdir()} == {"adapter", "checkpoint", "history.jsonl", "run.json"}
    assert {"adapter_model.safetensors", "adapter_config.json", "processor_config.json", "tokenizer.json"} <= {
        path.name for path in (folder / "adapter").iterdir()
    }
    losses = history(settings)
    assert losses[10][0] < losses[1][0] - 0.2 and losses[10][1] < losses[5][1] - 0.05
    merged, processor = load_checkpoint(folder / "checkpoint")
    assert (
        processor.tokenizer.get_vocab()
        == AutoProcessor.from_pretrained(settings["init_checkpoint"]).tokenizer.get_vocab()
    )
    adapted = PeftModel.from_pretrained(AutoModel.from_pretrained(settings["init_checkpoint"]), folder / "adapter")
    torch.testing.assert_close(outputs(merged, tiny_inputs), outputs(adapted, tiny_inputs), atol=1e-5, rtol=0)
    base = AutoModel.from_pretrained(settings["init_checkpoint"])
    assert (outputs(merged, tiny_inputs) - outputs(base, tiny_inputs)).abs().max() > 0.01
    assert not any(settings["output_dir"] in path.read_text() for path in folder.glob("*/*.json"))


@pytest.mark.slow
@pytest.mark.parametrize("towers", BOTH_OR_TEXT)
def test_an_interrupted_run_resumes_to_the_same_weights(settings, monkeypatch, tmp_path, towers):
    settings |= {"lora_towers": towers}
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
    assert not (Path(settings["output_dir"]) / "adapter").exists()
    assert [path.name for path in (Path(settings["output_dir"]) / "states").iterdir()] == ["update-00000006"]
    run({**settings, "resume": True})
    assert history(settings) == history(whole)
    one, other = weights(settings), weights(whole)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_two_processes_train_the_adapters_of_one(settings, tmp_path):
    alone = {**settings, "output_dir": str(tmp_path / "alone")}
    run(alone)
    words = [word for name, value in {**settings, "batch_size": 4}.items() for word in option(name, value)]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [*launcher, str(PROJECT / "train" / "pretrain.py"), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("Adapters of rank 4") == 1
    assert json.loads((Path(settings["output_dir"]) / "run.json").read_text())["num_processes"] == 2
    for update, losses in history(alone).items():
        assert history(settings)[update] == pytest.approx(losses, abs=1e-5)
    one, two = weights(alone), weights(settings)
    for name in one:
        torch.testing.assert_close(one[name], two[name], atol=1e-4, rtol=1e-3)


def option(name, value):
    if isinstance(value, bool):
        return [f"--{name}" if value else f"--no_{name}"]
    return [f"--{name}", json.dumps(value) if isinstance(value, dict) else str(value)]


# An editable install would make our package importable: leave out its finder and the project folder.
HIDE_THE_PROJECT = f"""
import sys
sys.path[:] = [path for path in sys.path if path != {str(PROJECT)!r}]
editable = lambda finder: "editable" in getattr(finder, "__module__", type(finder).__module__)
sys.meta_path[:] = [finder for finder in sys.meta_path if not editable(finder)]
"""
LOAD_ELSEWHERE = """
import torch
from importlib.util import find_spec
from peft import PeftModel
from transformers import AutoModel, AutoProcessor
assert find_spec("train") is None and find_spec("modeling_lumbarclip") is None
base, adapter, inputs, out = sys.argv[1:]
model = PeftModel.from_pretrained(AutoModel.from_pretrained(base, trust_remote_code=True), adapter)
at_once = AutoModel.from_pretrained(adapter, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(adapter, trust_remote_code=True)
assert type(processor).__module__.startswith("transformers_modules")
inputs = torch.load(inputs)
with torch.no_grad():
    torch.save([each.eval()(**inputs).logits_per_image for each in (model, at_once)], out)
"""


@pytest.mark.slow
@pytest.mark.parametrize("towers", BOTH_OR_TEXT)
def test_an_adapter_loads_where_the_package_is_not_installed(tmp_path, tiny_processor, tiny_inputs, towers):
    base = save_base(tmp_path / "base", RESNET, tiny_processor)
    towers = [f"{tower}_model" for tower in towers]
    model = train_briefly(add_adapters(AutoModel.from_pretrained(base), rank=2, towers=towers), tiny_inputs)
    save_adapters(model, tiny_processor, tmp_path / "adapter")
    torch.save(dict(tiny_inputs), tmp_path / "inputs.pt")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    words = [str(tmp_path / name) for name in ("base", "adapter", "inputs.pt", "outputs.pt")]
    done = subprocess.run(
        [sys.executable, "-c", HIDE_THE_PROJECT + LOAD_ELSEWHERE, *words],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": "", "HF_MODULES_CACHE": str(elsewhere / "modules")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with torch.no_grad():
        expected = model(**tiny_inputs).logits_per_image
    for logits in torch.load(tmp_path / "outputs.pt"):
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
