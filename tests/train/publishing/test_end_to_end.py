"""From pretraining to the Hub and back, in new processes: the numbers that come out are those that went in."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.loopback_hub import LoopbackHub
from tests.train.study_settings import SMALL

PROJECT = Path(__file__).parents[3]
REPO = "lumbar-lab/tiny"
# As a stranger has it: nothing of this project can be imported, though it is installed where the tests run.
ALONE = f"""
import importlib.util, sys
spec = importlib.util.spec_from_file_location("alone", {str(PROJECT / "train/publishing/load_alone.py")!r})
alone = importlib.util.module_from_spec(spec)
spec.loader.exec_module(alone)
sys.meta_path.insert(0, alone.HiddenProject())
"""
USE = """
import json
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor, pipeline
name, trust = sys.argv[1], {"trust_remote_code": True}
image = Image.linear_gradient("L").resize((40, 24))
texts = ["Disc bulge at L4/L5.", "No disc bulge at L4/L5."]
model = AutoModel.from_pretrained(name, **trust).eval()
processor = AutoProcessor.from_pretrained(name, **trust)
with torch.no_grad():
    output = model(**processor(images=image, text=texts, return_tensors="pt"))
answers = {key: output[key].tolist() for key in ("logits_per_image", "image_embeds", "text_embeds")}
asked = {"candidate_labels": texts, "hypothesis_template": "{}"}
answers["zero_shot"] = pipeline("zero-shot-image-classification", model=name, **trust)(image, **asked)
answers["images"] = pipeline("image-feature-extraction", model=name, **trust)(image)
answers["texts"] = pipeline("feature-extraction", model=name, **trust)(texts[0])
print(json.dumps(answers))
"""


def run_alone(code, folder, *arguments, hub=None):
    """Run code in an empty folder, with empty caches."""
    (folder / "cwd").mkdir(parents=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": "", "OMP_NUM_THREADS": "1"}
    environment |= hub.environment(folder / "home") if hub else {}
    done = subprocess.run(
        [sys.executable, "-c", ALONE + code, *map(str, arguments)],
        cwd=folder / "cwd",
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def assert_close(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_close(one[key], other[key])
    elif isinstance(one, list) and one and isinstance(one[0], dict):
        for first, second in zip(one, other, strict=True):
            assert_close(first, second)
    elif isinstance(one, str):
        assert one == other
    else:
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a machine shared by many
def test_a_run_is_published_and_used_from_the_hub(tiny_dataset_folder, tmp_path):
    run = tmp_path / "run"
    settings = {**SMALL, "dataset": str(tiny_dataset_folder), "output_dir": str(run), "baselines": False}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**settings, "class_prompts": {"LBP": ["Disc bulge."]}}))
    with LoopbackHub() as hub:
        environment = {**os.environ, **hub.environment(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
        pretrain = [sys.executable, str(PROJECT / "train/pretrain.py"), str(tmp_path / "run.yaml")]
        published = subprocess.run(
            [*pretrain, "--push_to_hub", "--hub_repo_id", REPO],
            env={**environment, "ACCELERATE_USE_CPU": "true"},
            capture_output=True,
            text=True,
        )
        assert published.returncode == 0, published.stderr[-3000:]
        model = hub.model(REPO)
        assert model.private and model.messages == ["Publish v0.1"] and set(model.tags) == {"v0.1"}
        written = {path.name for path in (run / "checkpoint").iterdir()}
        assert set(model.files) == {*written, "README.md", ".gitattributes"}
        card = model.files["README.md"].decode()
        assert f'"{REPO}", trust_remote_code=True' in card
        assert "De-identification unknown" in card  # nobody built this data set with data_scripts: the card is stamped
        assert str(tmp_path) not in card

        # A stranger with the repository has what its maker has in the folder.
        here = run_alone(USE, tmp_path / "here", run / "checkpoint")
        there = run_alone(USE, tmp_path / "there", REPO, hub=hub)
        assert_close(there, here)

        again = subprocess.run(
            [sys.executable, str(PROJECT / "train/publish.py"), "--run", str(run), "--repo_id", REPO],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert again.returncode and f"{REPO} has a version v0.1" in again.stderr
        everything = "".join(done.stdout + done.stderr for done in (published, again))
        everything += "".join(path.read_text() for path in run.rglob("*.json"))
        assert hub.token not in everything and hub.token not in card
