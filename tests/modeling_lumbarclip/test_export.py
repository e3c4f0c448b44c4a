"""The export to ONNX: equal to torch for any batch size and text length, whole or absent."""

import json

import numpy as np
import onnxruntime
import pytest
import torch

from modeling_lumbarclip import LumbarCLIPConfig, LumbarCLIPForImageClassification, LumbarCLIPModel, onnx_graphs
from modeling_lumbarclip import export as export_module
from modeling_lumbarclip.export import EXPORT, export, main, weights_sha256
from modeling_lumbarclip.onnx_graphs import Graph, deviations, refuse_deviation
from tests.conftest import TINY_TEXT, TINY_VISION

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
    description = export(folder, tmp_path / "onnx", int8=True)
    model.eval()
    for batch_size in (1, 4, 7):  # sizes that the export itself did not try
        pixels = torch.randn(batch_size, 3, side, side)
        given = run(tmp_path / "onnx" / "vision_model.onnx", ["image_embeds", "image_features"], pixel_values=pixels)
        with torch.inference_mode():
            expected = [model.get_image_features(pixels, project=project).numpy() for project in (True, False)]
        for before, after in zip(expected, given, strict=True):
            np.testing.assert_allclose(after, before, atol=1e-4)
    for texts in (["disc bulge at l4/l5."], ["no disc bulge.", "normal disc.", "left disc bulge at l4/l5 . . . ."]):
        tokens = tiny_processor(text=texts, return_tensors="pt")
        tokens = {name: tokens[name] for name in ("input_ids", "attention_mask")}
        given = run(tmp_path / "onnx" / "text_model.onnx", ["text_embeds", "text_features"], **tokens)
        with torch.inference_mode():
            expected = [model.get_text_features(**tokens, project=project).numpy() for project in (True, False)]
        for before, after in zip(expected, given, strict=True):
            np.testing.assert_allclose(after, before, atol=1e-4)

    # The quantised copies answer nearly the same, with all products and convolutions in 8 bits.
    assert description == json.loads((tmp_path / "onnx" / EXPORT).read_text())
    for name in ("vision_model_int8.onnx", "text_model_int8.onnx"):
        entry = description["files"][name]
        assert (tmp_path / "onnx" / name).stat().st_size == entry["bytes"]
        assert entry["operations"].get("Conv", 0) == entry["operations"].get("Gemm", 0) == 0
        assert 0 < max(entry["deviation"].values()) < 0.2
    assert description["inverse_temperature"] == pytest.approx(1 / 0.07)
    assert description["weights_sha256"] == weights_sha256(model)


@pytest.mark.slow
def test_weights_of_gigabytes_lie_beside_their_graph(tiny_model, tiny_processor, tmp_path, monkeypatch):
    folder = save(tiny_model, tiny_processor, tmp_path / "checkpoint")
    small = export(folder, tmp_path / "small", int8=True)["files"]
    monkeypatch.setattr(onnx_graphs, "MAX_SINGLE_FILE_BYTES", 0)
    large = export(folder, tmp_path / "large", int8=True)["files"]  # compared with torch as it is written
    assert {path.name for path in (tmp_path / "large").glob("vision*.data")} == {"vision_model.onnx.data"}
    for name, entry in large.items():
        assert entry["deviation"] == pytest.approx(small[name]["deviation"], abs=1e-6)


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


def test_a_graph_that_computes_something_else_is_refused_and_nothing_stays(
    tiny_model, tiny_processor, tmp_path, monkeypatch, capsys
):
    folder = save(tiny_model, tiny_processor, tmp_path / "checkpoint")
    monkeypatch.setattr(export_module, "write_onnx", lambda graph, sample, path: path.write_bytes(b"onnx"))
    monkeypatch.setattr(export_module, "deviations", lambda *_: {"image_embeds": 2e-4})
    assert main([str(folder), "--out", str(tmp_path / "onnx")]) == 1
    assert "image_embeds differs by 0.0002 of its length" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize("distance", [1.1e-4, float("nan"), float("inf")])
def test_only_small_deviations_pass(distance):
    refuse_deviation("vision_model.onnx", {"image_embeds": 9e-5})
    with pytest.raises(ValueError, match="differs by"):
        refuse_deviation("vision_model.onnx", {"image_embeds": 0.0, "image_features": distance})


def test_deviations_are_those_of_the_worst_row(monkeypatch):
    class Session:
        def run(self, names, inputs):
            moved = inputs["pixel_values"].copy()
            moved[1, 0] += 0.5
            return [moved]

    monkeypatch.setattr(onnx_graphs, "open_session", lambda path: Session())
    graph = Graph("x", torch.nn.Identity(), {}, ("image_embeds",))
    graph.module.forward = lambda pixel_values: (pixel_values,)
    found = deviations(graph, [{"pixel_values": torch.tensor([[3.0, 4.0], [3.0, 4.0]])}], None)
    assert found == {"image_embeds": pytest.approx(0.1)}


def test_an_existing_folder_and_a_missing_package_are_said(tiny_model, tiny_processor, tmp_path, monkeypatch, capsys):
    folder = save(tiny_model, tiny_processor, tmp_path / "checkpoint")
    assert main([str(folder), "--out", str(folder)]) == 1
    assert "exists; remove it, or name another folder" in capsys.readouterr().err
    monkeypatch.setattr(onnx_graphs, "find_spec", lambda name: None if name == "onnxscript" else True)
    assert main([str(folder), "--out", str(tmp_path / "onnx")]) == 1
    assert "needs the packages onnxscript: pip install lumbarclip[export]" in capsys.readouterr().err


def test_the_digest_of_weights_knows_values_and_not_precision(tiny_model):
    before = weights_sha256(tiny_model.bfloat16())
    assert weights_sha256(tiny_model.float()) == before
    with torch.no_grad():
        tiny_model.image_projection.bias[0] += 0.5
    assert weights_sha256(tiny_model) != before
