"""Golden outputs are those of the model that was saved, and are never renewed over a checkpoint that has changed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_weights
from safetensors.torch import save_file as save_weights

from modeling_lumbarclip import (
    LumbarCLIPConfig,
    LumbarCLIPForImageClassification,
    LumbarCLIPForSemanticSegmentation,
    LumbarCLIPModel,
)
from train.checkpoints.checkpoint import save_checkpoint
from train.checkpoints.golden_outputs import (
    deviation,
    golden_images,
    golden_texts,
    recorded_change,
    write_golden_outputs,
)
from train.checkpoints.verification import check_checkpoint


@pytest.fixture
def checkpoint(tiny_model, tiny_processor, tmp_path):
    save_checkpoint(tiny_model, tiny_processor, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def read(checkpoint):
    golden = json.loads((checkpoint / "golden_outputs.json").read_text())
    return golden, load_file(checkpoint / "golden_outputs.safetensors")


def test_they_are_what_a_user_of_the_saved_model_gets(checkpoint, tiny_model, tiny_processor):
    golden, tensors = read(checkpoint)
    images = [tensors[f"image.{number}"] for number in range(3)]
    inputs = tiny_processor(images=images, text=golden["texts"], return_tensors="pt")
    with torch.no_grad():
        output = tiny_model(**inputs)
    for name in ("pixel_values", "input_ids", "attention_mask"):
        assert np.array_equal(tensors[f"input.{name}"], inputs[name].numpy())
    for name in ("image_embeds", "text_embeds", "image_features", "text_features", "logits_per_image"):
        np.testing.assert_allclose(tensors[f"output.{name}"], output[name].numpy(), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(tensors["output.image_embeds"], axis=1), 1, atol=1e-6)
    assert tensors["output.inverse_temperature"] == pytest.approx([1 / 0.07])
    assert golden["packages"]["torch"] == torch.__version__.partition("+")[0]


def test_the_inputs_cover_what_can_go_wrong(checkpoint, tiny_processor):
    golden, tensors = read(checkpoint)
    wide, tall, colour = golden_images()
    assert wide.shape[0] < wide.shape[1] and tall.shape[0] > tall.shape[1] and colour.shape[2] == 3
    assert (wide.dtype, tall.dtype, colour.dtype) == (np.uint8, np.uint16, np.uint8)
    assert np.percentile(tall, 99) < 4096 < tall.max() == 60_000
    pixels = tensors["input.pixel_values"]
    assert all(image.std() > 0.1 for image in pixels), "a 16-bit image without a window would be flat"
    tokens, mask = tensors["input.input_ids"], tensors["input.attention_mask"]
    assert mask.sum(axis=1).max() == tiny_processor.max_length == tokens.shape[1]
    left, right, bulge, no_bulge = tokens[:4]
    assert not np.array_equal(left, right) and not np.array_equal(bulge, no_bulge)
    assert len(golden["texts"][4].split()) > tiny_processor.max_length
    embeds = tensors["output.text_embeds"]
    assert len(np.unique(embeds.round(4), axis=0)) == 5, "each text its own embedding"


def test_nobody_is_warned_of_the_colour_image_among_them(tiny_model, tiny_processor, tmp_path, monkeypatch):
    warned = []
    monkeypatch.setattr("modeling_lumbarclip.image_processing_lumbarclip.logger.warning_once", warned.append)
    save_checkpoint(tiny_model, tiny_processor, tmp_path / "saved")
    assert warned == []


def test_a_longer_limit_has_a_longer_text(tiny_processor):
    tiny_processor.max_length = 512
    assert len(golden_texts(tiny_processor)[-1].split()) > 512
    assert golden_texts(tiny_processor.image_processor) == []


def test_the_saved_model_is_left_as_it_was(tiny_model, tiny_processor, tmp_path):
    tiny_model.train().half()
    before = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    save_checkpoint(tiny_model, tiny_processor, tmp_path / "checkpoint")
    assert tiny_model.training
    for name, value in tiny_model.state_dict().items():
        assert value.dtype == torch.float16 and torch.equal(value, before[name])
    assert check_checkpoint(tmp_path / "checkpoint") == []
    assert read(tmp_path / "checkpoint")[1]["output.image_embeds"].dtype == np.float32


def test_no_weight_is_copied_where_it_lies(tiny_model, tiny_processor, tmp_path, monkeypatch):
    """A GPU may have no room for a second model at the end of a run."""

    def refuse(weight, memo):
        raise MemoryError

    for kind in (torch.Tensor, torch.nn.Parameter):
        monkeypatch.setattr(kind, "__deepcopy__", refuse)
    save_checkpoint(tiny_model, tiny_processor, tmp_path / "checkpoint")
    assert all(weight.requires_grad for weight in tiny_model.parameters())


def test_a_buffer_that_is_not_saved_is_told(tiny_model, tiny_processor, tmp_path):
    embeddings = tiny_model.text_model.embeddings
    embeddings.register_buffer("position_ids", embeddings.position_ids.flip(1), persistent=False)
    with pytest.raises(ValueError, match="is not the saved one.*a non-persistent buffer"):
        save_checkpoint(tiny_model, tiny_processor, tmp_path / "checkpoint")


def test_a_model_that_gives_no_numbers_is_called_so(tiny_model, tiny_processor, tmp_path):
    with torch.no_grad():
        tiny_model.image_projection.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"contain NaN or Inf: .*image_embeds.*lower learning rate"):
        save_checkpoint(tiny_model, tiny_processor, tmp_path / "checkpoint")
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_loads_as_another_model_is_not_saved(tiny_model, tiny_processor, tmp_path, monkeypatch):
    def forgetful(self, folder):
        other = LumbarCLIPModel(self.config)
        super(LumbarCLIPModel, other).save_pretrained(folder)

    monkeypatch.setattr(LumbarCLIPModel, "save_pretrained", forgetful)
    with pytest.raises(ValueError, match=r"is not the saved one: \w+ differs by"):
        save_checkpoint(tiny_model, tiny_processor, tmp_path / "checkpoint")
    assert not list(tmp_path.iterdir())


def test_they_are_not_renewed_over_a_weight_that_has_drifted(checkpoint):
    before = read(checkpoint)[0]
    write_golden_outputs(checkpoint)  # nothing has drifted
    assert read(checkpoint)[0] == before
    weights = load_weights(checkpoint / "model.safetensors")
    weights["image_projection.weight"][3, 5] += 1e-2
    save_weights(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="is not what was saved .model.safetensors: tensor image_projection.weight"):
        write_golden_outputs(checkpoint)
    assert read(checkpoint)[0] == before
    (checkpoint / "golden_outputs.json").unlink()  # the way out that the message gives
    write_golden_outputs(checkpoint)
    assert check_checkpoint(checkpoint) == []


def test_a_field_may_be_written_and_nothing_else(checkpoint):
    path = checkpoint / "config.json"
    settings = json.loads(path.read_text())
    with recorded_change(checkpoint, "config.json", "text_config"):
        settings["text_config"]["use_cache"] = False
        path.write_text(json.dumps(settings))
    assert check_checkpoint(checkpoint) == []
    path.write_text(json.dumps({**settings, "projection_dim": 9}))
    for field in ("text_config", "projection_di"):
        with (
            pytest.raises(ValueError, match="config.json: field projection_dim 8 when recorded, 9 now"),
            recorded_change(checkpoint, "config.json", field),
        ):
            raise AssertionError("refused before anything is written")
    with recorded_change(checkpoint, "config.json", "projection_dim"):  # a kill before its record
        pass
    (checkpoint / "golden_outputs.json").unlink()
    with recorded_change(checkpoint, "config.json", "projection_dim"):
        pass
    assert not (checkpoint / "golden_outputs.json").exists()


def test_a_kill_while_writing_leaves_no_golden_outputs(checkpoint, monkeypatch):
    (checkpoint / "golden_outputs.json").unlink()
    replace = Path.replace

    def killed(path, target):
        if target.name == "golden_outputs.json":
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_golden_outputs(checkpoint)
    with pytest.raises(ValueError, match="has no golden_outputs.json: it was saved without golden outputs"):
        check_checkpoint(checkpoint)


@pytest.fixture
def classifier_checkpoint(tiny_config, tiny_processor, tmp_path):
    torch.manual_seed(0)
    config = LumbarCLIPConfig.from_dict({**tiny_config.to_dict(), "id2label": {0: "a", 1: "b", 2: "c"}})
    model = LumbarCLIPForImageClassification(config).eval()
    save_checkpoint(model, tiny_processor, tmp_path / "classifier")
    return tmp_path / "classifier", model


def test_of_a_classifier_the_logits_are_kept(classifier_checkpoint, tiny_processor):
    folder, model = classifier_checkpoint
    _, tensors = read(folder)
    with torch.no_grad():
        inputs = tiny_processor(images=golden_images(), return_tensors="pt")
        logits = model(pixel_values=inputs.pixel_values).logits.numpy()
    assert {name for name in tensors if name.startswith("output.")} == {"output.logits"}
    np.testing.assert_allclose(tensors["output.logits"], logits, atol=1e-6)
    assert check_checkpoint(folder) == []
    weights = load_weights(folder / "model.safetensors")
    name = next(name for name in sorted(weights) if "classifier" in name and weights[name].ndim == 2)
    weights[name][1, 0] += 0.5
    save_weights(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert {drift.what for drift in check_checkpoint(folder)} == {f"tensor {name}", "output logits"}


def test_of_a_segmentation_model_the_maps_of_its_own_prompts_are_kept_by_their_cells(
    tiny_config, tiny_processor, tmp_path
):
    torch.manual_seed(0)
    fields = {**tiny_processor.segmentation_prompts(["disc", "left disc"]), "id2label": {0: "none", 1: "a", 2: "b"}}
    config = LumbarCLIPConfig.from_dict({**tiny_config.to_dict(), **fields})
    model, folder = LumbarCLIPForSemanticSegmentation(config).eval(), tmp_path / "segmenter"
    save_checkpoint(model, tiny_processor, folder)
    _, tensors = read(folder)
    with torch.no_grad():
        maps = model(tiny_processor(images=golden_images(), return_tensors="pt").pixel_values).logits
    assert {name for name in tensors if name.startswith("output.")} == {"output.logits"}
    assert "input.input_ids" in tensors
    cells = maps.unflatten(3, (4, 8)).unflatten(2, (4, 8)).mean((3, 5)).numpy()
    np.testing.assert_allclose(tensors["output.logits"], cells, atol=1e-5)
    assert check_checkpoint(folder) == []
    weights = load_weights(folder / "model.safetensors")
    weights["decoder.head.weight"] += 0.5
    save_weights(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert {drift.what for drift in check_checkpoint(folder)} == {"tensor decoder.head.weight", "output logits"}


def test_a_classifier_without_a_tokenizer(classifier_checkpoint, tiny_processor, tmp_path):
    folder, _ = classifier_checkpoint
    for path in [*folder.glob("golden*"), *folder.glob("tokenizer*"), *folder.glob("processor_config*")]:
        path.unlink()
    tiny_processor.image_processor.save_pretrained(folder)
    write_golden_outputs(folder)
    golden, tensors = read(folder)
    assert golden["texts"] == [] and "input.input_ids" not in tensors
    assert check_checkpoint(folder) == []
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    assert check_checkpoint(moved) == [], "no path of the folder is recorded"


@pytest.mark.parametrize(
    ("recorded", "now", "expected"),
    [
        ([[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0 + 3e-4]], 3e-4),
        ([[100.0, 0.0]], [[100.0, 0.01]], 1e-4),  # logits: of their own length
        ([[0.0, 0.0]], [[0.0, 0.0]], 0.0),
        ([[0.0, 0.0]], [[0.0, 1e-9]], np.inf),
        ([[1.0, 0.0]], [[1.0, np.nan]], np.inf),
        ([[1.0, np.nan]], [[1.0, 0.0]], np.inf),
        ([[1.0, np.nan]], [[1.0, np.nan]], np.inf),
        ([[1.0, 0.0]], [[1.0]], np.inf),
        ([[[3.0], [4.0]]], [[[3.0], [9.0]]], 1.0),  # an image: 5 of 5
    ],
)
def test_deviation(recorded, now, expected):
    assert deviation(np.array(recorded, np.float32), np.array(now, np.float32)) == pytest.approx(expected, rel=1e-3)
