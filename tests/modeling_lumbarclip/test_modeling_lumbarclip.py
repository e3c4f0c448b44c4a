"""The model: shapes, pooling, heads, temperature, losses, towers, and a checkpoint that any process loads."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from transformers import AutoModel, BertConfig, BertModel, ResNetConfig, SwinConfig, ViTConfig
from transformers.utils import logging

from modeling_lumbarclip import LumbarCLIPConfig, LumbarCLIPModel
from modeling_lumbarclip.losses_lumbarclip import soft_contrastive_loss_dense
from tests.without_package import last_line

TEXT = {"model_type": "bert", "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
SMALL_VIT = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
SMALL_SWIN = {
    "image_size": 32,
    "patch_size": 4,
    "embed_dim": 8,
    "depths": [1, 1],
    "num_heads": [1, 2],
    "window_size": 4,
}
SMALL_RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}


def timm_config(architecture, **model_args):
    return {"model_type": "timm_wrapper", "architecture": architecture, "model_args": model_args or None}


def test_output_shapes_and_unit_length(tiny_model, tiny_inputs):
    output = tiny_model(**tiny_inputs)
    assert output.image_embeds.shape == output.text_embeds.shape == (4, 8)
    assert output.image_features.shape == (4, 24) and output.text_features.shape == (4, 16)
    torch.testing.assert_close(output.image_embeds.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(output.logits_per_image, output.logits_per_text.T)
    torch.testing.assert_close(
        output.logits_per_image, (output.image_embeds @ output.text_embeds.T) / 0.07, atol=1e-5, rtol=1e-5
    )
    assert output.loss is None
    assert tiny_model.train()(**tiny_inputs).logits_per_image.shape == (4, 4)
    assert tiny_model(**tiny_inputs, return_logits=False).logits_per_image is None


def test_features_are_those_of_forward(tiny_model, tiny_inputs):
    output = tiny_model(**tiny_inputs)
    for project, image, text in (
        (True, output.image_embeds, output.text_embeds),
        (False, output.image_features, output.text_features),
    ):
        features = tiny_model.get_image_features(tiny_inputs.pixel_values, project=project)
        torch.testing.assert_close(features.pooler_output, image)
        features = tiny_model.get_text_features(tiny_inputs.input_ids, tiny_inputs.attention_mask, project=project)
        torch.testing.assert_close(features.pooler_output, text)


def test_images_or_texts_alone_embed_as_together(tiny_model, tiny_inputs):
    texts = {name: value for name, value in tiny_inputs.items() if name != "pixel_values"}
    with torch.no_grad():
        both = tiny_model(**tiny_inputs, output_local_features=True)
        images = tiny_model(pixel_values=tiny_inputs.pixel_values, output_local_features=True)
        alone = tiny_model(**texts, output_local_features=True)
    for output, names, tower in (
        (images, ["image_embeds", "image_features", "patch_features"], "vision_model_output"),
        (alone, ["text_embeds", "text_features", "token_features", "token_mask"], "text_model_output"),
    ):
        assert set(output.keys()) == {*names, tower, "inverse_temperature"}
        torch.testing.assert_close(output[0], both[names[0]])  # what pipelines of features return
        for name in names:
            torch.testing.assert_close(output[name], both[name])
    with pytest.raises(ValueError, match="pixel_values, input_ids, or both"):
        tiny_model()
    with pytest.raises(ValueError, match="A loss compares images with texts"):
        tiny_model(pixel_values=tiny_inputs.pixel_values, return_loss=True)


def test_loss_is_equation_7_of_the_dense_reference(tiny_model, tiny_inputs):
    labels = torch.tensor([[1, 0], [0, 1], [0, 1], [1, 0]])
    augmented = {
        "augmented_input_ids": tiny_inputs.input_ids.flip(0),
        "augmented_attention_mask": tiny_inputs.attention_mask.flip(0),
    }
    output = tiny_model(**tiny_inputs, **augmented, classes=labels)
    scale = torch.tensor(1 / 0.07)
    parts = [
        soft_contrastive_loss_dense(output.image_embeds, text_embeds, scale, labels)
        for text_embeds in (output.text_embeds, output.augmented_text_embeds)
    ]
    assert output.loss.item() == pytest.approx((0.5 * parts[0] + 0.5 * parts[1]).item(), rel=1e-5)
    torch.testing.assert_close(output.augmented_text_embeds, output.text_embeds.flip(0), atol=1e-6, rtol=1e-5)


def test_repeated_reports_are_encoded_once(tiny_model, tiny_inputs):
    index = torch.tensor([0, 1, 0, 1])
    labels = torch.eye(2)[index]
    tokens = {name: tiny_inputs[name] for name in ("input_ids", "attention_mask")}
    repeated = tiny_model(
        pixel_values=tiny_inputs.pixel_values, **{k: v[index] for k, v in tokens.items()}, classes=labels
    )
    shared = tiny_model(
        pixel_values=tiny_inputs.pixel_values,
        **{k: v[:2] for k, v in tokens.items()},
        classes=labels,
        text_index=index,
    )
    torch.testing.assert_close(shared.text_embeds, repeated.text_embeds)
    assert shared.loss.item() == pytest.approx(repeated.loss.item(), rel=1e-6)


def test_padding_does_not_change_a_text(tiny_config, tiny_processor):
    for pooling in ("cls", "mean"):
        tiny_config.text_pooling = pooling
        model = LumbarCLIPModel(tiny_config).eval()
        alone = tiny_processor(text=["disc bulge"], return_tensors="pt")
        padded = tiny_processor(text=["disc bulge"], return_tensors="pt", padding="max_length")
        torch.testing.assert_close(
            model.get_text_features(**alone).pooler_output,
            model.get_text_features(**padded).pooler_output,
            atol=1e-5,
            rtol=1e-5,
        )


@pytest.mark.parametrize("projection, layers", [("linear", 1), ("nonlinear", 2)])
def test_heads(tiny_config, projection, layers):
    tiny_config.projection = projection
    model = LumbarCLIPModel(tiny_config)
    linear = [module for module in model.image_projection.modules() if isinstance(module, torch.nn.Linear)]
    assert [layer.out_features for layer in linear] == [8] * layers
    assert linear[0].in_features == 24


def test_the_nonlinear_head_is_linear_relu_linear(tiny_config):
    """By hand: two hidden units are above zero, one a little below it, one far, where other activations differ."""
    tiny_config.projection, tiny_config.projection_dim = "nonlinear", 4
    head = LumbarCLIPModel(tiny_config).text_projection
    first, _, second = head
    with torch.no_grad():
        for layer in (first, second):
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
        first.weight[:, 0] = torch.tensor([2.0, 0.5, -0.25, -3.0])
        second.weight[:] = torch.eye(4)
        second.weight[0] = 1.0
        second.bias[3] = -7.0
        features = torch.zeros(1, 16)
        features[0, 0] = 1.0
        torch.testing.assert_close(head(features), torch.tensor([[2.5, 0.5, 0.0, -7.0]]), rtol=0, atol=1e-6)


def test_projection_none_pools_the_wider_tower_and_says_so(tiny_config, tiny_inputs, caplog):
    tiny_config.projection = "none"
    logging.enable_propagation()
    with caplog.at_level("WARNING"):
        model = LumbarCLIPModel(tiny_config).eval()
    logging.disable_propagation()
    assert "width 24 and 16" in caplog.text
    output = model(**tiny_inputs)
    assert output.image_embeds.shape == output.text_embeds.shape == (4, 16)
    torch.testing.assert_close(output.text_embeds, F.normalize(output.text_features, dim=1))
    expected = F.adaptive_avg_pool1d(output.image_features[:, None], 16)[:, 0]
    torch.testing.assert_close(output.image_embeds, F.normalize(expected, dim=1))
    assert not any(name.startswith(("image_projection", "text_projection")) for name, _ in model.named_parameters())


def test_temperature_starts_where_it_should_stays_below_its_limit_and_still_learns(tiny_config):
    tiny_config.initial_temperature, tiny_config.max_inverse_temperature = 0.05, 50.0
    model = LumbarCLIPModel(tiny_config)
    assert model.inverse_temperature.item() == pytest.approx(20.0)
    with torch.no_grad():
        model.log_inverse_temperature.fill_(math.log(80.0))
    assert model.inverse_temperature.item() == pytest.approx(50.0)
    model.inverse_temperature.backward()
    assert model.log_inverse_temperature.grad.item() == pytest.approx(50.0)  # a clamp would give 0 for ever


def test_timm_towers_keep_the_initialisation_of_timm():
    text = {**TEXT}
    torch.manual_seed(0)
    model = LumbarCLIPModel(LumbarCLIPConfig(vision_config=timm_config("resnet10t"), text_config=text)).eval()
    torch.manual_seed(0)
    reference = timm.create_model("resnet10t", num_classes=0).eval()
    pixels = torch.randn(4, 3, 64, 64)
    ours, theirs = model.get_image_features(pixels, project=False).pooler_output.std(), reference(pixels).std()
    assert 0.3 < (ours / theirs).item() < 3


@pytest.mark.parametrize(
    "vision_config",
    [
        timm_config("resnet10t"),
        timm_config("test_vit", img_size=32),
        timm_config("swin_tiny_patch4_window7_224", img_size=32, embed_dim=12, depths=[1, 1, 1, 1], window_size=4),
        timm_config("convnext_atto"),
        timm_config("mobilenetv3_small_050"),
        ViTConfig(**SMALL_VIT),
        SwinConfig(**SMALL_SWIN),
        ResNetConfig(**SMALL_RESNET),
    ],
    ids=lambda config: config["architecture"] if isinstance(config, dict) else config.model_type,
)
@pytest.mark.parametrize("text_type", ["bert", "roberta", "distilbert"])
def test_any_tower_builds_trains_every_parameter_and_reloads(vision_config, text_type, tmp_path):
    text = {**TEXT, "model_type": text_type, "n_heads": 2, "n_layers": 1, "dim": 16, "max_position_embeddings": 40}
    model = LumbarCLIPModel(LumbarCLIPConfig(vision_config=vision_config, text_config=text, projection_dim=8))
    inputs = {"pixel_values": torch.randn(3, 3, 32, 32), "input_ids": torch.randint(5, 40, (3, 7))}
    model(**inputs, return_loss=True).loss.backward()
    unused = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not unused  # they would break distributed training
    model.eval().save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert_equal_models(model, loaded, inputs)


def assert_equal_models(model, loaded, inputs):
    before, after = model.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]), name
    with torch.no_grad():
        torch.testing.assert_close(
            model(**inputs).logits_per_image, loaded(**inputs).logits_per_image, atol=1e-5, rtol=1e-6
        )


def test_pretrained_towers_come_in_with_their_weights(tmp_path):
    torch.manual_seed(1)
    vision = AutoModel.from_config(ViTConfig(**SMALL_VIT), add_pooling_layer=False)
    text = BertModel(BertConfig(**{k: v for k, v in TEXT.items() if k != "model_type"}))
    vision.save_pretrained(tmp_path / "vision")
    text.save_pretrained(tmp_path / "text")
    model = LumbarCLIPModel.from_vision_text_pretrained(tmp_path / "vision", tmp_path / "text", projection_dim=12)
    for name, value in vision.state_dict().items():
        assert torch.equal(model.vision_model.state_dict()[name], value)
    for name, value in model.text_model.state_dict().items():
        assert torch.equal(text.state_dict()[name], value)
    assert model.image_projection.out_features == 12
    assert model.inverse_temperature.item() == pytest.approx(1 / 0.07)


def test_towers_saved_in_half_precision_join_in_float32(tmp_path):
    AutoModel.from_config(ViTConfig(**SMALL_VIT)).half().save_pretrained(tmp_path / "vision")
    text = BertModel(BertConfig(**{k: v for k, v in TEXT.items() if k != "model_type"})).to(torch.bfloat16)
    text.save_pretrained(tmp_path / "text")
    model = LumbarCLIPModel.from_vision_text_pretrained(tmp_path / "vision", tmp_path / "text")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    model(torch.randint(5, 40, (2, 7)), torch.randn(2, 3, 32, 32))
    model.save_pretrained(tmp_path / "joined")
    assert AutoModel.from_pretrained(tmp_path / "joined").dtype == torch.float32


def test_pretrained_timm_towers_come_in_by_name(tmp_path, monkeypatch):
    weights = timm.create_model("resnet10t", num_classes=0)
    create_model = timm.create_model

    def download(name, pretrained=False, **kwargs):
        return weights if pretrained else create_model(name, **kwargs)

    monkeypatch.setattr(timm, "create_model", download)
    BertModel(BertConfig(**{k: v for k, v in TEXT.items() if k != "model_type"})).save_pretrained(tmp_path)
    model = LumbarCLIPModel.from_vision_text_pretrained("resnet10t", tmp_path)
    for name, value in weights.state_dict().items():
        assert torch.equal(model.vision_model.timm_model.state_dict()[name], value)


def test_unknown_towers_are_named_with_the_nearest():
    config = LumbarCLIPConfig(vision_config=timm_config("resnet5O"), text_config=TEXT)
    with pytest.raises(ValueError, match="no model 'resnet5O'.*resnet50"):
        LumbarCLIPModel(config)
    with pytest.raises(ValueError, match=r"No tower 'swin_tinny_patch4_window7_224'.*swin_tiny_patch4_window7_224"):
        LumbarCLIPModel.from_vision_text_pretrained("swin_tinny_patch4_window7_224", "nowhere")


def test_dtype_sdpa_and_device_map(tiny_model, tiny_inputs, tmp_path):
    tiny_model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, dtype=torch.bfloat16, device_map="cpu", attn_implementation="sdpa")
    assert loaded.dtype == torch.bfloat16
    assert loaded.config.text_config._attn_implementation == "sdpa"
    logits = loaded(**tiny_inputs).logits_per_image
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, tiny_model(**tiny_inputs).logits_per_image, atol=0.5, rtol=0.1)


FRESH_PROCESS = """
import json, sys
import torch
from PIL import Image
from transformers import (AutoConfig, AutoImageProcessor, AutoModel, AutoModelForZeroShotImageClassification,
                          AutoProcessor, AutoTokenizer, pipeline)
folder = sys.argv[1]
try:
    import modeling_lumbarclip
    raise SystemExit("the package must not be importable here")
except ModuleNotFoundError:
    trust = {"trust_remote_code": True}
config = AutoConfig.from_pretrained(folder, **trust)
model = AutoModel.from_pretrained(folder, **trust)
zero_shot = AutoModelForZeroShotImageClassification.from_pretrained(folder, **trust)
processor = AutoProcessor.from_pretrained(folder, **trust)
image_processor = AutoImageProcessor.from_pretrained(folder, **trust)
tokenizer = AutoTokenizer.from_pretrained(folder, **trust)
image = Image.linear_gradient("L").resize((40, 24))
texts = ["disc bulge.", "normal disc."]
inputs = processor(images=[image], text=texts, return_tensors="pt")
assert torch.equal(image_processor(image, return_tensors="pt").pixel_values, inputs.pixel_values)
assert tokenizer(texts, padding=True)["input_ids"] == inputs.input_ids.tolist()
with torch.no_grad():
    logits = model(**inputs).logits_per_image
    assert torch.equal(logits, zero_shot(**inputs).logits_per_image)
classify = pipeline("zero-shot-image-classification", model=folder, **trust)
answer = classify(image, candidate_labels=["disc bulge", "normal disc"], hypothesis_template="{}.")
model.save_pretrained("again")
processor.save_pretrained("again")
again = AutoModel.from_pretrained("again", **trust)
assert "AutoModelForZeroShotImageClassification" in again.config.auto_map
print(json.dumps({"model_type": config.model_type, "logits": logits.tolist(), "answer": answer,
                  "checksum": sum(float(p.double().sum()) for p in model.parameters())}))
"""


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
@pytest.mark.parametrize("options", [{}, {"max_shard_size": "50KB"}], ids=["one file", "shards"])
def test_who_may_read_the_configuration_may_read_the_weights(tiny_model, tmp_path, umask, mode, options):
    before = os.umask(umask)
    try:
        tiny_model.save_pretrained(tmp_path / "saved", **options)
    finally:
        os.umask(before)
    weights = list((tmp_path / "saved").glob("*.safetensors"))
    assert {path.stat().st_mode & 0o777 for path in (*weights, tmp_path / "saved" / "config.json")} == {mode}
    assert len(weights) > 1 or not options


def test_a_saved_folder_works_in_a_fresh_process_without_our_package(tiny_model, tiny_processor, tmp_path):
    from PIL import Image

    tiny_model.save_pretrained(tmp_path / "checkpoint")
    tiny_processor.save_pretrained(tmp_path / "checkpoint")
    answer = json.loads(last_line(FRESH_PROCESS, tmp_path / "checkpoint", folder=tmp_path))
    image = Image.linear_gradient("L").resize((40, 24))
    inputs = tiny_processor(images=[image], text=["disc bulge.", "normal disc."], return_tensors="pt")
    with torch.no_grad():
        logits = tiny_model(**inputs).logits_per_image
    torch.testing.assert_close(torch.tensor(answer["logits"]), logits, atol=1e-5, rtol=1e-6)
    assert answer["checksum"] == sum(float(p.double().sum()) for p in tiny_model.parameters())
    scores = {entry["label"]: entry["score"] for entry in answer["answer"]}
    assert scores["disc bulge"] == pytest.approx(logits.softmax(dim=1)[0, 0].item(), abs=1e-4)


TOWERS_OF_THE_PAPER = {
    "resnet50": timm_config("resnet50"),
    "vit": timm_config("vit_base_patch16_224"),
    "swin": timm_config("swin_tiny_patch4_window7_224"),
}
RELOAD = """
import sys, torch
sys.path.insert(0, sys.argv[2])
from modeling_lumbarclip import LumbarCLIPProcessor  # one class registers all
from transformers import AutoModel
folder = sys.argv[1]
expected = torch.load(folder + "/expected.pt")
model = AutoModel.from_pretrained(folder).eval()
for name, value in model.state_dict().items():
    assert torch.equal(value, expected["state"][name]), name
with torch.no_grad():
    output = model(**expected["inputs"])
for name in ("image_embeds", "text_embeds"):
    torch.testing.assert_close(output[name], expected[name], atol=1e-6, rtol=0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("tower", TOWERS_OF_THE_PAPER)
def test_towers_of_the_paper_train_save_and_load_at_full_size(tower, tmp_path):
    torch.manual_seed(0)
    config = LumbarCLIPConfig(vision_config=TOWERS_OF_THE_PAPER[tower], text_config={"model_type": "bert"})
    model = LumbarCLIPModel(config).train()
    inputs = {"pixel_values": torch.randn(2, 3, 224, 224), "input_ids": torch.randint(100, 1000, (2, 16))}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    before = model.text_projection.weight.detach().clone()
    model(**inputs, classes=torch.eye(2)).loss.backward()
    optimizer.step()
    assert not torch.equal(before, model.text_projection.weight)
    model.eval().save_pretrained(tmp_path)
    with torch.no_grad():
        output = model(**inputs)
    expected = {"state": model.state_dict(), "inputs": inputs}
    expected |= {name: output[name] for name in ("image_embeds", "text_embeds")}
    torch.save(expected, tmp_path / "expected.pt")
    project = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", RELOAD, str(tmp_path), project], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_every_file_of_the_package_travels(tiny_model, tiny_processor, tiny_config, tmp_path):
    """What no checkpoint needs belongs elsewhere."""
    tiny_model.save_pretrained(tmp_path)
    tiny_processor.save_pretrained(tmp_path)
    package = Path(__file__).parents[2] / "modeling_lumbarclip"
    saved = {path.name for path in tmp_path.glob("*.py")}
    assert saved == {path.name for path in package.glob("*.py")} - {"__init__.py"}
