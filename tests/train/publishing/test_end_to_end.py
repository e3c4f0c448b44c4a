"""From training to the Hub and back, in new processes: the numbers that come out are those that went in."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from huggingface_hub import HfApi
from safetensors.torch import load, save

from tests.loopback_hub import LoopbackHub
from tests.train.experiments.experiment_settings import SMALL
from tests.train.publishing.stranger import answers_of, use_classifier, use_model
from train import publish
from train.checkpoints.checkpoint import load_checkpoint
from train.classification.arguments import FinetuneClassificationArguments
from train.data.loaders import open_dataset
from train.finetune_classification import finetune
from train.pretrain import pretrain
from train.pretraining.arguments import PretrainArguments
from train.publishing import publication
from train.publishing.arguments import PublishArguments

PROJECT = Path(__file__).parents[3]
MODEL, ADAPTER, CLASSIFIER = "lumbar-lab/tiny", "lumbar-lab/tiny-adapter", "lumbar-lab/tiny-classifier"
WEIGHTS = "model.safetensors"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
@pytest.mark.timeout(1800)  # six new processes, on a machine shared by many
def test_published_models_are_what_was_trained(tiny_dataset_folder, tmp_path, monkeypatch, capsys):
    """In one test, for new processes take long: each model starts from the one before."""
    run, adapters, classifier = (tmp_path / name for name in ("run", "adapters", "classifier"))
    with LoopbackHub() as hub:
        environment = hub.environment(tmp_path / "home") | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        printed = pretrain_and_push(tiny_dataset_folder, run, environment)
        model = hub.model(MODEL)
        assert model.private and model.messages == ["Publish v0.1"] and set(model.tags) == {"v0.1"}
        written = {path.name for path in (run / "checkpoint").iterdir()}
        assert set(model.files) == {*written, "README.md", ".gitattributes"}
        card = model.files["README.md"].decode()
        assert f'repo = "{MODEL}"' in card and str(tmp_path) not in card
        assert "De-identification unknown" in card  # nobody built this dataset with data_scripts: the card is stamped

        train_adapters(tiny_dataset_folder, run / "checkpoint", adapters)
        train_classifier(tiny_dataset_folder, run / "checkpoint", classifier)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)  # for the processes that publishing starts
        hub.connect(monkeypatch)
        monkeypatch.setattr(publication, "HfApi", lambda: HfApi(endpoint=hub.endpoint, token=hub.token))
        with pytest.raises(ValueError, match=f"{MODEL} already has a version v0.1"):
            publish.main(PublishArguments(run=str(classifier), repo_id=MODEL))  # other files
        as_adapter = PublishArguments(
            run=str(adapters), repo_id=ADAPTER, adapter=True, adapter_base=MODEL, allow_unmeasured=True
        )
        publish.main(as_adapter)
        publish.main(PublishArguments(run=str(classifier), repo_id=CLASSIFIER))
        assert_names_its_base(hub.model(ADAPTER), model, run)

        there = as_a_stranger(
            tmp_path / "stranger",
            hub,
            {"use_model": [MODEL], "use_adapter": [MODEL, ADAPTER], "use_classifier": [CLASSIFIER]},
        )
        assert_close(there["use_model"], use_model(run / "checkpoint"), 1e-6)
        assert_close(there["use_classifier"], use_classifier(classifier / "checkpoint"), 1e-6)
        base, merged = (answers_of(*load_checkpoint(folder / "checkpoint")) for folder in (run, adapters))
        assert np.abs(np.subtract(base["image_embeds"], merged["image_embeds"])).max() > 0.01
        assert_close(there["use_adapter"], {"put_on": merged, "at_once": merged}, 1e-5)

        # Another model of the same shapes: the adapter loads on it, and gives other answers.
        model.commit("Other weights", model.commits[-1][2] | {WEIGHTS: (negated(model.files[WEIGHTS]), True)})
        with pytest.raises(ValueError, match="the base on the Hub is not the one it was trained on"):
            publish.main(replace(as_adapter, dry_run=True))

        printed += "".join(capsys.readouterr())
        printed += "".join(
            path.read_text() for folder in (run, adapters, classifier) for path in folder.rglob("*.json")
        )
        assert hub.token not in printed and hub.token not in card


def pretrain_and_push(dataset, run, environment):
    settings = {**SMALL, "dataset": str(dataset), "output_dir": str(run), "baselines": False}
    file = run.with_suffix(".yaml")
    file.write_text(yaml.safe_dump({**settings, "class_prompts": {"LBP": ["Disc bulge."]}}))
    words = [str(PROJECT / "train/pretrain.py"), str(file), "--push_to_hub", "--hub_repo_id", MODEL]
    done = subprocess.run(
        [sys.executable, *words], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def train_adapters(dataset, base, run):
    settings = {**SMALL, "init_checkpoint": str(base), "lora_rank": 2, "learning_rate": 1e-2, "evaluate": False}
    arguments = PretrainArguments(**{**settings, "dataset": str(dataset), "output_dir": str(run), "epochs": 1})
    pretrain(arguments, open_dataset(str(dataset)))


def train_classifier(dataset, base, run):
    folders = {"checkpoint": str(base), "dataset": str(dataset), "output_dir": str(run)}
    arguments = FinetuneClassificationArguments(**folders, epochs=1, batch_size=8, num_resamples=20)
    finetune(arguments, open_dataset(str(dataset)))


def assert_names_its_base(adapter, base, run):
    """By id and commit; nothing says where the base lay when the adapter was trained."""
    commit, _ = base.at("v0.1")
    config = json.loads(adapter.files["adapter_config.json"])
    assert (config["base_model_name_or_path"], config["revision"]) == (MODEL, commit)
    assert not any(str(run).encode() in content for content in adapter.files.values())
    assert f'commit = "{commit}"' in adapter.files["README.md"].decode()


def negated(weights):
    tensors = load(weights)
    changed = {name: -value if name.startswith("vision_model.") else value for name, value in tensors.items()}
    return save(changed, metadata={"format": "pt"})


def as_a_stranger(folder, hub, asked):
    """Let functions of `stranger.py` answer in a new process, in an empty folder, with empty caches."""
    (folder / "cwd").mkdir(parents=True)
    script, load_alone = PROJECT / "tests/train/publishing/stranger.py", PROJECT / "train/publishing/load_alone.py"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {**hub.environment(folder / "home"), "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-P", str(script), str(load_alone), json.dumps(asked)],
        cwd=folder / "cwd",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def assert_close(one, other, tolerance):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_close(one[key], other[key], tolerance)
    elif isinstance(one, list) and one and isinstance(one[0], dict):
        for first, second in zip(one, other, strict=True):
            assert_close(first, second, tolerance)
    elif isinstance(one, str):
        assert one == other
    else:
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)
