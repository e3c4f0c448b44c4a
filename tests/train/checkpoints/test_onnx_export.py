"""The export to ONNX: equal to torch for any batch size and text length, whole or absent."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from data_scripts.system import command_line
from modeling_lumbarclip import (
    LumbarCLIPConfig,
    LumbarCLIPForImageClassification,
    LumbarCLIPForSemanticSegmentation,
    LumbarCLIPModel,
)
from tests.conftest import TINY_TEXT, TINY_VISION
from train.checkpoints import onnx_export as export_module
from train.checkpoints import onnx_graphs
from train.checkpoints.onnx_export import EXPORT, export, read_export, weights_sha256
from train.checkpoints.onnx_graphs import (
    Graph,
    check_deviation,
    describe_file,
    deviations,
    open_session,
    open_unchanged,
)
from train.export import main

RESNET = {"architecture": "resnet10t", "model_args": {"channels": [8, 16, 16, 24], "stem_width": 8}}
SWIN = {
    "architecture": "swin_tiny_patch4_window7_224",
    "model_args": {"img_size": 64, "window_size": 2, "embed_dim": 12, "depths": [1, 1], "num_heads": [2, 2]},
}


def tower(**vision):
    return {"model_type": "timm_wrapper", **vision}


def save(model, processor, folder):
    torch.manual_seed(0)
    for module in model.modules():  # as after training: statistics that are not 0 and 1
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def run(path, outputs, **inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(outputs, {name: value.numpy() for name, value in inputs.items()})


def pictures(side, number=12):
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (side, side), dtype=np.uint8)) for _ in range(number)]


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("vision", "side", "settings"),
    [
        (TINY_VISION, 32, {"text_pooling": "mean", "projection": "nonlinear"}),
        (tower(**RESNET), 64, {"projection": "none"}),
        (tower(**SWIN), 64, {}),
    ],
    ids=["vit", "resnet", "swin"],
)
def test_both_towers_are_those_of_torch(vision, side, settings, tiny_processor, tmp_path):
    torch.manual_seed(0)
    model = LumbarCLIPModel(LumbarCLIPConfig(vision_config=vision, text_config=TINY_TEXT, projection_dim=8, **settings))
    tiny_processor.image_processor.size = {"height": side, "width": side}
    folder = save(model, tiny_processor, tmp_path / "checkpoint")
    description = export(folder, tmp_path / "onnx", int8_images=pictures(side))
    model.eval()
    for batch_size in (1, 4, 7):  # sizes that the export itself did not try
        pixels = torch.randn(batch_size, 3, side, side)
        given = run(tmp_path / "onnx" / "vision_model.onnx", ["image_embeds", "image_features"], pixel_values=pixels)
        with torch.inference_mode():
            expected = [
                model.get_image_features(pixels, project=project).pooler_output.numpy() for project in (True, False)
            ]
        for before, after in zip(expected, given, strict=True):
            np.testing.assert_allclose(after, before, atol=1e-4)
    for texts in (["disc bulge at l4/l5."], ["no disc bulge.", "normal disc.", "left disc bulge at l4/l5 . . . ."]):
        tokens = tiny_processor(text=texts, return_tensors="pt")
        tokens = {name: tokens[name] for name in ("input_ids", "attention_mask")}
        given = run(tmp_path / "onnx" / "text_model.onnx", ["text_embeds", "text_features"], **tokens)
        with torch.inference_mode():
            expected = [
                model.get_text_features(**tokens, project=project).pooler_output.numpy() for project in (True, False)
            ]
        for before, after in zip(expected, given, strict=True):
            np.testing.assert_allclose(after, before, atol=1e-4)

    # The quantised copy answers nearly the same, with all products and convolutions in 8 bits.
    assert description == json.loads((tmp_path / "onnx" / EXPORT).read_text())
    assert [*description["files"]] == ["vision_model.onnx", "vision_model_int8.onnx", "text_model.onnx"]
    entry, whole = (description["files"][f"vision_model{ending}.onnx"] for ending in ("_int8", ""))
    assert (tmp_path / "onnx" / "vision_model_int8.onnx").stat().st_size == entry["bytes"]
    weighted = sum(count for kind, count in entry["operations"].items() if kind != "QuantizeLinear")
    assert entry["operations"]["QuantizeLinear"] >= weighted == sum(whole["operations"].values())
    assert 0 < max(entry["deviation"].values()) < 0.5  # random weights of a few channels
    assert description["inverse_temperature"] == pytest.approx(1 / 0.07)
    assert description["weights_sha256"] == weights_sha256(model)


@pytest.mark.slow
def test_weights_of_gigabytes_lie_beside_their_graph(tiny_model, tiny_processor, tmp_path, monkeypatch):
    folder = save(tiny_model, tiny_processor, tmp_path / "checkpoint")
    small = export(folder, tmp_path / "small", int8_images=pictures(32))["files"]
    monkeypatch.setattr(onnx_graphs, "MAX_SINGLE_FILE_BYTES", 0)
    large = export(folder, tmp_path / "large", int8_images=pictures(32))[
        "files"
    ]  # compared with torch as it is written
    assert [*large["vision_model.onnx"]["parts"]] == ["vision_model.onnx", "vision_model.onnx.data"]
    recorded = [name for entry in large.values() for name in entry["parts"]]
    assert sorted(recorded) == sorted(path.name for path in (tmp_path / "large").glob("*.onnx*"))
    for name, entry in large.items():
        assert entry["deviation"] == pytest.approx(small[name]["deviation"], abs=1e-6)
        assert entry["bytes"] == sum(part["bytes"] for part in entry["parts"].values())
    path = tmp_path / "large" / "vision_model.onnx"
    parts = large[path.name]["parts"]
    open_unchanged(path, parts)
    weights = path.with_name("vision_model.onnx.data")
    flip_a_bit(weights)
    with pytest.raises(ValueError, match=r"vision_model.onnx.data \(other content.*export again"):
        open_unchanged(path, parts)
    weights.unlink()
    with pytest.raises(ValueError, match=r"vision_model.onnx.data \(is missing\).*export again"):
        open_unchanged(path, parts)


@pytest.mark.slow
def test_a_classifier_gives_logits(tiny_processor, tmp_path):
    torch.manual_seed(0)
    config = LumbarCLIPConfig(
        vision_config=TINY_VISION,
        text_config=TINY_TEXT,
        id2label={0: "LBP", 1: "No Finding", 2: "other"},
        class_temperatures=[2.0, 2.0, 2.0],
    )
    model = LumbarCLIPForImageClassification(config)
    folder = save(model, tiny_processor, tmp_path / "checkpoint")
    description = export(folder, tmp_path / "onnx")
    pixels = torch.randn(3, 3, 32, 32)
    (logits,) = run(tmp_path / "onnx" / "vision_model.onnx", ["logits"], pixel_values=pixels)
    with torch.inference_mode():
        np.testing.assert_allclose(logits, model.eval()(pixels).logits.numpy(), atol=1e-4)
    assert [*description["files"]] == ["vision_model.onnx"]
    assert description["id2label"] == {0: "LBP", 1: "No Finding", 2: "other"}


@pytest.mark.slow
@pytest.mark.parametrize("cross_attention", ["patch", "none"])
@pytest.mark.parametrize(
    "vision", [TINY_VISION, {"model_type": "timm_wrapper", "architecture": "resnet10t"}], ids=["vit", "resnet"]
)
def test_a_segmentation_model_gives_maps(tiny_processor, tmp_path, cross_attention, vision):
    torch.manual_seed(0)
    prompts = tiny_processor.segmentation_prompts(["disc", "left disc at l4"]) if cross_attention == "patch" else {}
    config = LumbarCLIPConfig(
        vision_config=vision,
        text_config=TINY_TEXT,
        id2label={0: "background", 1: "disc", 2: "other"},
        cross_attention=cross_attention,
        **prompts,
    )
    model = LumbarCLIPForSemanticSegmentation(config)
    processor = tiny_processor if prompts else tiny_processor.image_processor
    folder = save(model, processor, tmp_path / "checkpoint")
    description = export(folder, tmp_path / "onnx")
    pixels = torch.randn(4, 3, 32, 32)
    (logits,) = run(tmp_path / "onnx" / "vision_model.onnx", ["logits"], pixel_values=pixels)
    with torch.inference_mode():
        # A norm over the four cells that a tower leaves of so small an image magnifies what rounding makes of them.
        np.testing.assert_allclose(logits, model.eval()(pixels).logits.numpy(), atol=1e-3)
    assert [*description["files"]] == ["vision_model.onnx"]
    assert description["id2label"] == {0: "background", 1: "disc", 2: "other"}


def test_a_graph_that_computes_something_else_is_refused_and_nothing_stays(
    tiny_model, tiny_processor, tmp_path, monkeypatch, capsys
):
    folder = save(tiny_model, tiny_processor, tmp_path / "checkpoint")
    monkeypatch.setattr(export_module, "write_onnx", lambda graph, sample, path: path.write_bytes(b"onnx"))
    monkeypatch.setattr(export_module, "deviations", lambda *_: {"image_embeds": 2e-4})
    assert command_line.run(main, [str(folder), "--out", str(tmp_path / "onnx")]) == 2
    assert "image_embeds differs by 0.0002 of its length" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def write_addition(path, ir_version=8):
    """A graph that adds its input to itself; of version 8 every onnxruntime knows the format."""
    value = {name: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"}
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["x", "x"], ["y"])], "g", [value["x"]], [value["y"]])
    opset = onnx.helper.make_opsetid("", 17)
    path.write_bytes(onnx.helper.make_model(graph, ir_version=ir_version, opset_imports=[opset]).SerializeToString())
    return path


@pytest.mark.parametrize("cut", ["middle", "empty"])
def test_a_file_that_is_not_as_it_was_written_is_not_opened(tmp_path, cut):
    path = write_addition(tmp_path / "vision_model.onnx")
    parts = describe_file(path, {})["parts"]
    open_unchanged(path, parts)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2 if cut == "middle" else 0])
    with pytest.raises(ValueError, match=rf"vision_model.onnx \(other.* {len(content)} bytes when .*export again"):
        open_unchanged(path, parts)
    path.unlink()
    with pytest.raises(ValueError, match=r"vision_model.onnx \(is missing\).*export again"):
        open_unchanged(path, parts)


def test_a_file_that_onnxruntime_cannot_open_is_named(tmp_path):
    path = write_addition(tmp_path / "newer.onnx", ir_version=9999)
    message = r"onnxruntime [\d.]+ cannot open .*newer.onnx: .*IR version: 9999.*pip install -U onnxruntime\."
    with pytest.raises(ValueError, match=f"{message}$"):  # while it is exported, too
        open_session(path)
    with pytest.raises(ValueError, match=f"{message} .*export again"):
        open_unchanged(path, describe_file(path, {})["parts"])
    path.write_bytes(b"onnx")
    with pytest.raises(ValueError, match=r"cannot open .*newer.onnx: "):
        open_session(path)


@pytest.mark.parametrize("file", ["vision_model.onnx", "vision_model_int8.onnx"])
@pytest.mark.parametrize("fate", ["changed", "missing"])
def test_the_advice_makes_the_quantised_copy_again(tmp_path, file, fate):
    path = write_addition(tmp_path / file)
    parts = describe_file(path, {})["parts"]
    path.write_bytes(b"onnx")
    if fate == "missing":
        path.unlink()
    ending = " --int8 DATASET" if "int8" in file else ""
    with pytest.raises(ValueError, match=rf"--out \S*{ending}`\.$"):
        open_unchanged(path, parts)
    if fate == "changed":
        (tmp_path / EXPORT).write_text("[")
        with pytest.raises(ValueError, match=rf"cannot be read .* --out \S*{ending}`\.$"):
            read_export(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no export.json. Export a checkpoint"),
        ('{"weights_sha256": "0", "fil', "export.json cannot be read .*export again"),
        (
            '{"weights_sha256": "0", "files": {"vision_model.onnx": {"bytes": 5}}}',
            "export.json cannot be read .it has no digest of vision_model.onnx.*export again",
        ),
        ("[" * 100_000 + "]" * 100_000, "export.json cannot be read .*export again"),
        (
            '{"weights_sha256": "0", "files": {"a": {"parts": {"a": {"bytes": "1"}}}}}',
            "export.json cannot be read .the record of 'a' is .*export again",
        ),
        (
            '{"weights_sha256": "0", "files": {"../a": {"parts": {"../a": {"bytes": 1, "sha256": ""}}}}}',
            "export.json cannot be read .'../a' is not in the folder.*export again",
        ),
    ],
)
def test_an_export_without_digests_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / EXPORT).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_export(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({}, "lacks weights_sha256"),
        ([], "a list, not an object"),
        (None, "a NoneType, not an object"),
        ({"weights_sha256": 3, "files": {"a": {"parts": {"a": {}}}}}, "lacks weights_sha256"),
        ({"weights_sha256": "0"}, "names no files"),
        ({"weights_sha256": "0", "files": []}, "names no files"),
        ({"weights_sha256": "0", "files": {}}, "names no files"),
        ({"weights_sha256": "0", "files": {"a": 3}}, "has no digest of a"),
        ({"weights_sha256": "0", "files": {"a": {"parts": None}}}, "has no digest of a"),
    ],
)
def test_an_export_that_is_described_otherwise_is_refused(tmp_path, content, reason):
    (tmp_path / EXPORT).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"export.json cannot be read \((it )?{reason}\).*export again"):
        read_export(tmp_path)


@pytest.mark.parametrize("distance", [1.1e-4, float("nan"), float("inf")])
def test_only_small_deviations_pass(distance):
    check_deviation("vision_model.onnx", {"image_embeds": 9e-5})
    with pytest.raises(ValueError, match="differs by"):
        check_deviation("vision_model.onnx", {"image_embeds": 0.0, "image_features": distance})


def test_deviations_are_those_of_the_worst_row(monkeypatch):
    class Session:
        def run(self, names, inputs):
            moved = inputs["pixel_values"].copy()
            moved[1, 0] += 0.5
            return [moved]

    monkeypatch.setattr(onnx_graphs, "open_session", lambda path: Session())
    graph = Graph("x", lambda pixel_values: {"image_embeds": pixel_values}, {"pixel_values": {}}, ("image_embeds",))
    found = deviations(graph, [{"pixel_values": torch.tensor([[3.0, 4.0], [3.0, 4.0]])}], None)
    assert found == {"image_embeds": pytest.approx(0.1)}


def test_an_existing_folder_and_a_missing_package_are_said(tiny_model, tiny_processor, tmp_path, monkeypatch, capsys):
    folder = save(tiny_model, tiny_processor, tmp_path / "checkpoint")
    assert command_line.run(main, [str(folder), "--out", str(folder)]) == 2
    assert "exists; remove it, or name another folder" in capsys.readouterr().err
    monkeypatch.setattr(onnx_graphs, "find_spec", lambda name: None if name == "onnxscript" else True)
    assert command_line.run(main, [str(folder), "--out", str(tmp_path / "onnx")]) == 2
    assert "needs the packages onnxscript: pip install lumbarclip[export]" in capsys.readouterr().err


def test_the_digest_of_weights_knows_values_and_not_precision(tiny_model):
    before = weights_sha256(tiny_model.bfloat16())
    assert weights_sha256(tiny_model.float()) == before
    with torch.no_grad():
        tiny_model.image_projection.bias[0] += 0.5
    assert weights_sha256(tiny_model) != before
