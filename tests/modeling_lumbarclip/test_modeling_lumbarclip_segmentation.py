"""The segmentation model: prompts with maps of their own, towers kept, full resolution, and no dead weights."""

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from transformers import AutoModel, AutoModelForSemanticSegmentation

from modeling_lumbarclip import LumbarCLIPConfig, LumbarCLIPForSemanticSegmentation, LumbarCLIPModel
from modeling_lumbarclip.modeling_lumbarclip_segmentation import Decoder, PatchCrossAttention, pixel_cross_entropy
from modeling_lumbarclip.towers_lumbarclip import build_tower
from modeling_lumbarclip.vision_tower_lumbarclip import Scale
from tests.conftest import TINY_TEXT
from tests.without_package import last_line

NAMES = {0: "background", 1: "disc", 2: "left disc"}
RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}


@pytest.fixture
def prompts(tiny_processor):
    return tiny_processor.segmentation_prompts(["disc", "left disc"])


@pytest.fixture
def folder(tiny_model, tiny_processor, tmp_path):
    tiny_model.save_pretrained(tmp_path / "pretrained")
    tiny_processor.save_pretrained(tmp_path / "pretrained")
    return tmp_path / "pretrained"


@pytest.fixture
def model(folder, prompts):
    torch.manual_seed(0)
    return AutoModelForSemanticSegmentation.from_pretrained(folder, id2label=NAMES, **prompts).eval()


@pytest.fixture
def without_texts(folder):
    torch.manual_seed(0)
    settings = {"id2label": NAMES, "cross_attention": "none"}
    return LumbarCLIPForSemanticSegmentation.from_pretrained(folder, **settings).eval()


def test_a_pretrained_checkpoint_gives_its_towers_and_a_new_decoder_which_is_reported(folder, tiny_model, prompts):
    model, report = AutoModelForSemanticSegmentation.from_pretrained(
        folder, id2label=NAMES, **prompts, output_loading_info=True
    )
    assert type(model) is LumbarCLIPForSemanticSegmentation
    assert report["missing_keys"] and all(name.startswith("decoder.") for name in report["missing_keys"])
    assert not report["unexpected_keys"]
    for tower in ("vision_model", "text_model"):
        kept, given = getattr(model, tower).state_dict(), getattr(tiny_model, tower).state_dict()
        assert all(torch.equal(kept[name], value) for name, value in given.items())
    assert all(torch.isfinite(value).all() for value in model.decoder.parameters())


@torch.no_grad()
def test_the_prompts_of_the_classes_are_those_of_the_configuration(model, tiny_processor, tiny_inputs):
    assert model.config.segmentation_prompts == ["The disc.", "The left disc."]
    asked = tiny_processor(text=model.config.segmentation_prompts, return_tensors="pt")
    logits = model(tiny_inputs.pixel_values).logits
    assert logits.shape == (4, 3, 32, 32)
    torch.testing.assert_close(model(tiny_inputs.pixel_values, asked.input_ids, asked.attention_mask).logits, logits)
    assert (logits[:, 0] == 0).all() and logits[:, 1:].std() > 0


@torch.no_grad()
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_the_map_of_a_prompt_does_not_depend_on_the_other_prompts_or_their_padding(
    model, tiny_processor, tiny_inputs, mode
):
    getattr(model, mode)()
    texts = ["disc bulge", "no disc bulge at l4 / l5 .", "right"]
    together = tiny_processor(text=texts, return_tensors="pt")
    maps = model(tiny_inputs.pixel_values, together.input_ids, together.attention_mask).logits[:, 1:]
    for place, text in enumerate(texts):
        alone = tiny_processor(text=text, return_tensors="pt")
        expected = model(tiny_inputs.pixel_values, alone.input_ids, alone.attention_mask).logits[:, 1]
        torch.testing.assert_close(maps[:, place], expected, atol=1e-4, rtol=1e-4)
    assert (maps[:, 0] - maps[:, 1]).abs().max() > 1e-3


@torch.no_grad()
def test_an_image_does_not_depend_on_the_others_of_its_batch(model, tiny_inputs):
    logits = model(tiny_inputs.pixel_values).logits
    alone = torch.cat([model(image[None]).logits for image in tiny_inputs.pixel_values])
    torch.testing.assert_close(logits, alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("tower", ["resnet", "timm resnet", "tiny vit"])
@pytest.mark.parametrize("cross_attention", ["patch", "none"])
def test_every_parameter_has_a_gradient_and_logits_have_the_size_of_any_image(
    tower, cross_attention, prompts, tiny_model
):
    vision = {
        "resnet": RESNET,
        "timm resnet": {"model_type": "timm_wrapper", "architecture": "resnet10t"},
        "tiny vit": tiny_model.config.vision_config,
    }[tower]
    texts = prompts if cross_attention == "patch" else {}
    config = LumbarCLIPConfig(
        vision_config=vision, text_config=dict(TINY_TEXT), id2label=NAMES, cross_attention=cross_attention, **texts
    )
    model = LumbarCLIPForSemanticSegmentation(config).train()
    side = 32 if tower == "tiny vit" else 72
    output = model(torch.randn(2, 3, side, side), labels=torch.randint(0, 3, (2, side, side)))
    assert output.logits.shape == (2, 3, side, side)
    output.loss.backward()
    assert [name for name, value in model.named_parameters() if value.grad is None] == []
    dead = [name for name, value in model.decoder.named_parameters() if not value.grad.any()]
    # A key's bias adds the same to the scores of all words, which a softmax does not see.
    assert [name for name in dead if not name.endswith("key.bias")] == []
    if tower != "tiny vit":
        assert model(torch.randn(1, 3, 61, 90)).logits.shape == (1, 3, 61, 90)


def test_the_loss_is_the_mean_cross_entropy_of_annotated_pixels(model, tiny_inputs):
    labels = torch.randint(0, 3, (4, 32, 32))
    labels[:, :5] = 255
    output = model(tiny_inputs.pixel_values, labels=labels)
    by_hand = -output.logits.log_softmax(1).gather(1, labels.clamp(max=2)[:, None])[:, 0][labels != 255].mean()
    torch.testing.assert_close(output.loss, by_hand)
    nothing = model(tiny_inputs.pixel_values, labels=torch.full((4, 32, 32), 255)).loss
    assert nothing.item() == 0 and nothing.requires_grad
    with pytest.raises(ValueError, match=r"labels must have a class for each pixel.*\(4, 32, 32\); got \(4, 16, 16\)"):
        model(tiny_inputs.pixel_values, labels=labels[:, ::2, ::2])
    uneven = torch.zeros(2, 4, 1, 3), torch.tensor([[[0, 1, 2]], [[3, 255, 255]]])
    torch.testing.assert_close(pixel_cross_entropy(*uneven), torch.tensor(4.0).log())


@torch.no_grad()
def test_cross_attention_is_that_of_pytorch_over_the_words_that_are_no_padding():
    torch.manual_seed(0)
    layer = PatchCrossAttention(16, 12)
    assert layer.num_heads == 8 and PatchCrossAttention(12, 12).num_heads == 4
    maps, words, mask = (
        torch.randn(6, 16, 3, 5),
        torch.randn(2, 4, 12),
        torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool(),
    )
    reference = torch.nn.MultiheadAttention(16, 8, kdim=12, vdim=12, batch_first=True)
    reference.q_proj_weight, reference.k_proj_weight, reference.v_proj_weight = (
        getattr(layer, name).weight for name in ("query", "key", "value")
    )
    reference.in_proj_bias = torch.nn.Parameter(torch.cat([layer.query.bias, layer.key.bias, layer.value.bias]))
    reference.out_proj = layer.out
    cells = maps.flatten(2).transpose(1, 2)
    # Image by image, the prompts of each: rows 0 and 1 are the first image's.
    of_rows, masks = words.repeat(3, 1, 1), mask.repeat(3, 1)
    read, _ = reference(cells, of_rows, of_rows, key_padding_mask=~masks)
    expected = F.layer_norm(cells + read, (16,)).relu().transpose(1, 2).unflatten(2, (3, 5))
    torch.testing.assert_close(layer(maps, words, mask), expected, atol=1e-5, rtol=1e-5)


def test_widths_are_those_of_the_finest_scales():
    tower = [Scale(None, 10, 16), Scale(1, 9, 8), Scale(0, 8, 4)]  # and stems at strides 2 and 1
    for given, expected in (
        ((32, 24, 16, 8, 4), (32, 24, 16, 8, 4)),
        ((64, 48, 32, 24, 16, 8, 4), (32, 24, 16, 8, 4)),
        ((12, 8), (12, 12, 12, 12, 8)),
    ):
        decoder = Decoder(tower, given, image_width=6, text_width=0, num_maps=2)
        assert tuple(scale.beside.out_channels for scale in decoder.scales) == expected


@torch.no_grad()
def test_no_norm_takes_away_the_context_or_a_map_with_one_cell(without_texts):
    decoder, pixels = without_texts.decoder, torch.randn(1, 3, 32, 32)
    width, widths = decoder.context.in_features, [scale.beside.in_channels for scale in decoder.scales]
    num_maps = len(decoder.strides)
    for side in (1, 4):
        maps = [torch.randn(1, channels, side, side) for channels in widths[:num_maps]]
        given = decoder(pixels, maps, torch.zeros(1, width), None, None)
        other_context = decoder(pixels, maps, torch.full((1, width), 3.0), None, None)
        other_map = decoder(pixels, [torch.randn_like(maps[0]), *maps[1:]], torch.zeros(1, width), None, None)
        for other in (other_context, other_map):
            assert (given - other).abs().mean() > 1e-3 * given.std()


def test_a_saved_model_reloads_alone_and_is_no_dual_encoder(model, tiny_processor, tiny_inputs, tmp_path):
    model.save_pretrained(tmp_path / "segmenter")
    tiny_processor.save_pretrained(tmp_path / "segmenter")
    with safe_open(tmp_path / "segmenter" / "model.safetensors", "pt") as weights:
        assert {name.split(".")[0] for name in weights.keys()} == {"vision_model", "text_model", "decoder"}  # noqa: SIM118
    torch.save(tiny_inputs.pixel_values, tmp_path / "pixels.pt")
    with torch.no_grad():
        torch.save(model(tiny_inputs.pixel_values).logits, tmp_path / "logits.pt")
    script = """
import sys, torch
from transformers import AutoModelForSemanticSegmentation
folder, pixels, logits = sys.argv[1:]
model, report = AutoModelForSemanticSegmentation.from_pretrained(
    folder, trust_remote_code=True, output_loading_info=True)
assert type(model).__module__.startswith("transformers_modules."), type(model)
assert not any(report.values()), report
with torch.no_grad():
    print((model.eval()(torch.load(pixels)).logits - torch.load(logits)).abs().max().item())
"""
    paths = [tmp_path / name for name in ("segmenter", "pixels.pt", "logits.pt")]
    assert float(last_line(script, *paths, folder=tmp_path)) < 1e-5
    for load in (AutoModel, LumbarCLIPModel):
        with pytest.raises(ValueError, match="holds a segmentation model.*AutoModelForSemanticSegmentation"):
            load.from_pretrained(tmp_path / "segmenter")


@torch.no_grad()
def test_without_cross_attention_there_is_no_text_tower_and_no_prompt_to_ask(without_texts, tiny_inputs, tmp_path):
    model = without_texts
    assert {name.split(".")[0] for name in model.state_dict()} == {"vision_model", "decoder"}
    assert model.decoder.head.out_channels == 3
    logits = model(tiny_inputs.pixel_values).logits
    assert logits.shape == (4, 3, 32, 32) and logits[:, 0].std() > 0
    with pytest.raises(ValueError, match=r"no text tower.*its own classes, background, disc, left disc\. Leave out"):
        model(tiny_inputs.pixel_values, tiny_inputs.input_ids)
    model.save_pretrained(tmp_path / "saved")
    again = AutoModelForSemanticSegmentation.from_pretrained(tmp_path / "saved")
    torch.testing.assert_close(again(tiny_inputs.pixel_values).logits, logits, atol=1e-5, rtol=1e-5)


def test_classes_without_prompts_are_refused_before_anything_is_loaded(folder, prompts, tiny_config):
    for settings in ({"id2label": NAMES}, {"id2label": {**NAMES, 3: "canal"}, **prompts}):
        with pytest.raises(ValueError, match="segmentation_prompts, one for each but the background; got"):
            LumbarCLIPForSemanticSegmentation.from_pretrained(folder, **settings)


def test_towers_that_are_given_are_used(tiny_config, prompts):
    torch.manual_seed(0)
    towers = {
        "vision_model": build_tower(tiny_config.vision_config),
        "text_model": build_tower(tiny_config.text_config),
    }
    config = LumbarCLIPConfig(
        vision_config=towers["vision_model"].config, text_config=towers["text_model"].config, id2label=NAMES, **prompts
    )
    before = {name: value.clone() for name, tower in towers.items() for name, value in tower.state_dict().items()}
    model = LumbarCLIPForSemanticSegmentation(config, **towers).eval()
    assert model.vision_model is towers["vision_model"] and model.text_model is towers["text_model"]
    assert all(
        torch.equal(before[name], value) for tower in towers.values() for name, value in tower.state_dict().items()
    )
    assert all(tower.config._attn_implementation for tower in towers.values())


@torch.no_grad()
def test_features_and_hidden_states_are_those_of_the_tower(model, tiny_model, tiny_inputs):
    output = model(tiny_inputs.pixel_values)
    assert output.hidden_states is None
    features = tiny_model.get_image_features(tiny_inputs.pixel_values, project=False).pooler_output
    torch.testing.assert_close(output.image_features, features)
    torch.testing.assert_close(model.get_image_features(tiny_inputs.pixel_values).pooler_output, features)
    states = model(tiny_inputs.pixel_values, output_hidden_states=True).hidden_states
    expected = tiny_model.get_image_features(tiny_inputs.pixel_values, output_hidden_states=True).hidden_states
    assert len(states) == len(expected) == 2
    for one, other in zip(states, expected, strict=True):
        torch.testing.assert_close(one, other)
    first, last = model(tiny_inputs.pixel_values, output_hidden_states=[-1]).hidden_states
    assert first is None and torch.equal(last, states[1])
