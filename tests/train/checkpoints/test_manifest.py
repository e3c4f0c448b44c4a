"""Files are compared byte for byte, and what has changed in them is called by its name."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from train.checkpoints.manifest import compare_files, json_fields, record_files, unrecorded_files

SETTINGS = {"size": {"height": 32}, "mean": [0.4, 0.5], "list": [{"id": 1}, {"id": 2}], "empty": {}, "none": None}
VOCABULARY = {"model": {"vocab": {f"word{index}": index for index in range(200)}}}


@pytest.fixture
def folder(tmp_path):
    weights = {
        "scalar": torch.tensor(1.5),
        "half": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
        "empty": torch.zeros(0, 3),
    }
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "settings.json").write_text(json.dumps(SETTINGS))
    (tmp_path / "tokenizer.json").write_text(json.dumps(VOCABULARY))
    (tmp_path / "code.py").write_text("x = 1\n" * 20)
    (tmp_path / "README.md").write_text("# A card\n")
    (tmp_path / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    return tmp_path


def as_tuples(drifts):
    return [(drift.file, drift.what, drift.detail) for drift in drifts]


def test_every_file_but_card_and_hidden_ones_is_recorded(folder):
    recorded = record_files(folder)
    assert set(recorded) == {"model.safetensors", "settings.json", "tokenizer.json", "code.py"}
    assert json.loads(json.dumps(recorded)) == recorded
    (folder / "README.md").write_text("# Another\n")
    (folder / ".gitattributes").unlink()
    assert compare_files(folder, recorded) == []


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"mean": [0.5, 0.5]}, ("field mean", "[0.4, 0.5] when recorded, [0.5, 0.5] now")),
        ({"size": {"height": 64}}, ("field size.height", "32 when recorded, 64 now")),
        ({"list": [{"id": 1}, {"id": 3}]}, ("field list.1.id", "2 when recorded, 3 now")),
        ({"none": False}, ("field none", "null when recorded, false now")),
        ({"new": 1}, ("field new", "is new")),
    ],
)
def test_a_changed_field_is_named(folder, changed, expected):
    recorded = record_files(folder)
    (folder / "settings.json").write_text(json.dumps(SETTINGS | changed))
    assert as_tuples(compare_files(folder, recorded)) == [("settings.json", *expected)]


def test_the_same_json_in_another_layout_has_not_changed(folder):
    recorded = record_files(folder)
    (folder / "settings.json").write_text(json.dumps(dict(reversed(SETTINGS.items())), indent=4))
    assert compare_files(folder, recorded) == []


@pytest.mark.parametrize(
    ("vocabulary", "detail"),
    [
        ({f"word{index}": index for index in range(199)}, "entries 200 when recorded, 199 now"),
        ({**VOCABULARY["model"]["vocab"], "word7": 8, "word8": 7}, "other values"),
    ],
)
def test_a_vocabulary_is_one_field(folder, vocabulary, detail):
    recorded = record_files(folder)
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    assert as_tuples(compare_files(folder, recorded)) == [("tokenizer.json", "field model.vocab", detail)]


def test_a_changed_tensor_is_named(folder):
    recorded = record_files(folder)
    weights = {
        "scalar": torch.tensor(1.51),
        "half": torch.arange(6, dtype=torch.float16).reshape(3, 2),
        "other": torch.zeros(0, 3),
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert as_tuples(compare_files(folder, recorded)) == [
        ("model.safetensors", "tensor empty", "is missing"),
        (
            "model.safetensors",
            "tensor half",
            "dtype bfloat16 when recorded, float16 now; shape [2, 3] when recorded, [3, 2] now",
        ),
        ("model.safetensors", "tensor other", "is new"),
        ("model.safetensors", "tensor scalar", "other values"),
    ]


@pytest.mark.parametrize("name", ["model.safetensors", "settings.json", "tokenizer.json", "code.py"])
def test_a_truncated_or_missing_file_is_named(folder, name):
    recorded = record_files(folder)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-7])
    ((file, what, detail),) = as_tuples(compare_files(folder, recorded))
    assert (file, what) == (name, "file")
    assert f"{len(content):,} bytes when recorded, {len(content) - 7:,} now" in detail
    (folder / name).unlink()
    assert as_tuples(compare_files(folder, recorded)) == [(name, "file", "is missing")]


def test_no_flipped_bit_passes(folder):
    recorded = record_files(folder)
    generator = np.random.default_rng(0)
    for name in recorded:
        content = (folder / name).read_bytes()
        for position in generator.integers(len(content), size=40):
            flipped = bytearray(content)
            flipped[position] ^= 1 << generator.integers(8)
            (folder / name).write_bytes(flipped)
            assert {drift.file for drift in compare_files(folder, recorded)} == {name}, (name, position)
        (folder / name).write_bytes(content)
    assert compare_files(folder, recorded) == []


def test_added_files_that_loading_reads(folder):
    recorded = record_files(folder)
    for name in ("adapter_config.json", "metrics.json", "figure.png", "pytorch_model.bin", "extra.py"):
        (folder / name).write_text("{}")
    assert unrecorded_files(folder, recorded) == ["adapter_config.json", "extra.py", "pytorch_model.bin"]


def test_fields_stand_for_themselves_or_for_a_digest():
    fields = dict(json_fields(SETTINGS | VOCABULARY))
    assert fields == {
        "size.height": 32,
        "mean": [0.4, 0.5],
        "list.0.id": 1,
        "list.1.id": 2,
        "empty": {},
        "none": None,
        "model.vocab": {"entries": 200, "sha256": fields["model.vocab"]["sha256"]},
    }
