"""Features of a frozen text tower: those of the tower to the bit, encoded once, never those of other weights."""

import copy
import logging
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from modeling_lumbarclip import LumbarCLIPConfig, LumbarCLIPModel
from tests.conftest import TINY_TEXT, TINY_VISION
from train.data import text_cache
from train.data.text_cache import TextCache

PROJECT = Path(__file__).parents[3]
TEXTS = [[2, 5, 6, 3], [2, 7, 5, 6, 3], [2, 8, 5, 3], [2, 5, 6, 11, 12, 14, 13, 15, 3], [2, 6, 5, 3], [2, 3]]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def nothing_encoded(monkeypatch):
    monkeypatch.setattr(text_cache, "_last", ("", {}))


@pytest.fixture
def encoded(tiny_model, monkeypatch):
    """The texts that the tower has been given, one entry for each."""
    counted, run = [], type(tiny_model)._run_text_tower

    def count(model, input_ids, *args):
        counted.extend(input_ids.tolist())
        return run(model, input_ids, *args)

    monkeypatch.setattr(type(tiny_model), "_run_text_tower", count)
    return counted


def opened(model, folder, texts=TEXTS):
    cache = TextCache(texts)
    cache.open(model, folder, Accelerator(cpu=True))
    return cache


def padded(texts, side="right", to=0):
    longest = max(to, *map(len, texts))
    rows = [
        [*text, *[0] * (longest - len(text))] if side == "right" else [*[0] * (longest - len(text)), *text]
        for text in texts
    ]
    masks = [[int(i < len(text)) for i in range(longest)][:: 1 if side == "right" else -1] for text in texts]
    return torch.tensor(rows), torch.tensor(masks)


def alone(model, text):
    with torch.no_grad():
        return model.get_text_features(torch.tensor([text]), project=False).pooler_output[0]


@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_features_are_those_of_the_tower_whatever_the_padding(tmp_path, pooling, side):
    torch.manual_seed(0)
    config = LumbarCLIPConfig(vision_config=TINY_VISION, text_config=TINY_TEXT, projection_dim=8, text_pooling=pooling)
    model = LumbarCLIPModel(config).eval()
    cache = opened(model, tmp_path)
    asked = [TEXTS[i] for i in (3, 0, 4, 0, 5)]
    for to in (0, 9):
        found = cache(*padded(asked, side, to))
        assert torch.equal(found, torch.stack([alone(model, text) for text in asked]))
    assert torch.equal(cache(*padded([[2, 3]], side)), alone(model, [2, 3])[None])
    batched = model.get_text_features(*padded(asked, side), project=False).pooler_output
    torch.testing.assert_close(cache(*padded(asked, side)), batched.detach(), atol=1e-5, rtol=1e-5)


def test_each_distinct_text_is_encoded_once_for_all_who_open_it(tmp_path, tiny_model, encoded):
    cache = opened(tiny_model, tmp_path / "run", [*TEXTS, *TEXTS])
    assert sorted(encoded) == sorted(TEXTS)
    again = opened(tiny_model, tmp_path / "run", TEXTS[::-1])
    assert len(encoded) == len(TEXTS) and len([*(tmp_path / "run").iterdir()]) == 1
    assert torch.equal(again(*padded(TEXTS)), cache(*padded(TEXTS)))
    # Another run of the process, as of an experiment, with other texts.
    more = opened(tiny_model, tmp_path / "other", [*TEXTS[:2], [2, 9, 3]])
    assert encoded[len(TEXTS) :] == [[2, 9, 3]]
    assert torch.equal(
        more(*padded([[2, 9, 3], TEXTS[1]])), torch.stack([alone(tiny_model, t) for t in ([2, 9, 3], TEXTS[1])])
    )


@pytest.mark.parametrize("changed", ["weight", "pooling", "setting", "texts"])
def test_features_of_other_weights_or_texts_are_not_used(tmp_path, tiny_model, encoded, changed):
    opened(tiny_model, tmp_path)
    encoded.clear()
    texts = TEXTS
    if changed == "weight":
        with torch.no_grad():
            next(tiny_model.text_model.parameters())[5, 3] += 1e-3
    elif changed == "pooling":
        tiny_model.config.text_pooling = "mean"
    elif changed == "setting":
        tiny_model.text_model.config.layer_norm_eps = 0.1
    else:
        texts = [*TEXTS, [2, 9, 3]]
    cache = opened(tiny_model, tmp_path, texts)
    assert sorted(encoded) == (sorted(TEXTS) if changed != "texts" else [[2, 9, 3]])
    assert torch.equal(cache(*padded(texts)), torch.stack([alone(tiny_model, text) for text in texts]))


def test_the_heads_and_the_vision_tower_may_learn(tmp_path, tiny_model, encoded):
    opened(tiny_model, tmp_path)
    encoded.clear()
    with torch.no_grad():
        for part in (tiny_model.text_projection, tiny_model.image_projection, tiny_model.vision_model):
            next(part.parameters()).add_(1)
    opened(tiny_model, tmp_path)
    assert not encoded


@pytest.mark.parametrize("damage", [b"", b"{}", None])
def test_a_damaged_file_is_made_again(tmp_path, tiny_model, damage, caplog):
    expected = opened(tiny_model, tmp_path)(*padded(TEXTS))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-7] if damage is None else damage)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(opened(tiny_model, tmp_path)(*padded(TEXTS)), expected)
    assert "encoding the texts again" in caplog.text


def test_an_unknown_text_is_an_error(tmp_path, tiny_model):
    cache = opened(tiny_model, tmp_path)
    for text in ([2, 9, 3], [2, 5, 6], [*TEXTS[3], 5], [2, 5, 6, 11, 12, 14, 13, 15, 3, 0, 0]):
        with pytest.raises(RuntimeError, match="was not encoded when the run began"):
            cache(*padded([TEXTS[0], text]))


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path, tiny_model):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        opened(tiny_model, tmp_path / "file")


def test_copies_of_a_module_share_the_features(tmp_path, tiny_model):
    cache = opened(tiny_model, tmp_path)
    assert copy.deepcopy({"cache": cache})["cache"] is cache


def test_the_features_are_not_read_into_memory(tmp_path, tiny_model):
    """5 MB of features by 3 pages of a file."""
    features = opened(tiny_model, tmp_path)._features
    (path,) = tmp_path.iterdir()
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("needs /proc")
    address = features.data_ptr()
    mapped = [line for line in maps.read_text().splitlines() if str(path) in line]
    ranges = [[int(end, 16) for end in line.split()[0].split("-")] for line in mapped]
    assert any(start <= address < end for start, end in ranges)
