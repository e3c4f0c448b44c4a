"""What vision towers make of an image: widths, class tokens and patches, or words why they cannot be used."""

import pytest
import torch
from transformers import AutoConfig, AutoModel

from modeling_lumbarclip import LumbarCLIPConfig, LumbarCLIPForImageClassification, LumbarCLIPModel
from modeling_lumbarclip.towers_lumbarclip import build_tower
from modeling_lumbarclip.vision_tower_lumbarclip import image_layout, output_width, pooled_image
from tests.conftest import PROJECT
from tests.modeling_lumbarclip.test_towers_lumbarclip import TEXT_TOWERS

TEXT = {"model_type": "bert", "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
SMALL |= {"image_size": 64, "patch_size": 16}
DETR = {"model_type": "detr", "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "image_size": 64}
DETR |= {"backbone_config": {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8], "depths": [1, 1]}}
STAGES = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1], "image_size": 64}

# Families of transformers with their settings, prefix tokens, and patches of an image of 64 pixels.
TRANSFORMERS = {
    "aimv2_vision_model": (SMALL, 0, 16),
    "beit": (SMALL, 1, 16),
    "bit": ({"embedding_size": 32, "hidden_sizes": [32, 32], "depths": [1, 1], "num_groups": 8}, 0, 784),
    "chinese_clip_vision_model": (SMALL, 1, 16),
    "clip_vision_model": (SMALL, 1, 16),
    "convnext": ({"hidden_sizes": [8, 16, 16, 24], "depths": [1, 1, 1, 1], "image_size": 64}, 0, 4),
    "convnextv2": ({"hidden_sizes": [8, 16, 16, 24], "depths": [1, 1, 1, 1], "image_size": 64}, 0, 4),
    "cvt": ({}, 0, 196),
    "data2vec-vision": (SMALL, 1, 16),
    "deit": (SMALL, 2, 16),
    "dinov2": (SMALL, 1, 16),
    "dinov2_with_registers": ({**SMALL, "num_register_tokens": 3}, 4, 16),
    "dinov3_convnext": ({"hidden_sizes": [8, 16, 16, 24], "depths": [1, 1, 1, 1], "image_size": 64}, 1, 4),
    "dinov3_vit": ({**SMALL, "num_register_tokens": 2}, 3, 16),
    "efficientnet": ({"image_size": 64, "hidden_dim": 320, "width_coefficient": 0.25, "depth_coefficient": 0.5}, 0, 4),
    "focalnet": ({"image_size": 64, "embed_dim": 8, "depths": [1, 1], "hidden_sizes": [8, 16]}, 0, 64),
    "ijepa": (SMALL, 0, 16),
    "levit": ({"image_size": 128, "depths": [1, 1, 1]}, 0, 4),
    "mobilenet_v1": ({"image_size": 64, "depth_multiplier": 0.25}, 0, 4),
    "mobilenet_v2": ({"image_size": 64, "depth_multiplier": 0.35}, 0, 4),
    "mobilevit": ({"image_size": 64}, 0, 4),
    "pixio": ({**SMALL, "n_cls_tokens": 8}, 8, 16),
    "poolformer": ({"depths": [1, 1, 1, 1], "hidden_sizes": [8, 8, 16, 24]}, 0, 49),
    "pvt": ({"image_size": 64, "depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 20, 24]}, 1, 4),
    "regnet": ({"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "groups_width": 8}, 0, 784),
    "resnet": ({"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}, 0, 784),
    "segformer": ({"image_size": 64, "depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 16, 24]}, 0, 4),
    "siglip_vision_model": (SMALL, 0, 16),
    "swiftformer": ({"image_size": 64, "depths": [1, 1, 1, 1], "embed_dims": [8, 16, 16, 24]}, 0, 4),
    "swin": ({**STAGES, "window_size": 2, "patch_size": 4}, 0, 4),
    "swinv2": ({**STAGES, "window_size": 2, "patch_size": 4}, 0, 4),
    "vit": (SMALL, 1, 16),
    "vit_msn": (SMALL, 1, 16),
}

# Families of timm: prefix tokens, and whether they widen after their patches.
SMALL_VIT = {"img_size": 64, "embed_dim": 24, "depth": 1, "num_heads": 2}
TIMM = {
    "resnet10t": ({}, 0),
    "resnet50": ({"layers": [1, 1, 1, 1]}, 0),
    "convnext_atto": ({"depths": [1, 1, 1, 1], "dims": [8, 16, 16, 24]}, 0),
    "mobilenetv3_small_050": ({}, 0),
    "ghostnet_050": ({}, 0),
    "hgnetv2_b0": ({}, 0),
    "mambaout_femto": ({"depths": [1, 1, 1, 1], "dims": [8, 16, 16, 24]}, 0),
    "efficientnet_b0": ({}, 0),
    "regnety_002": ({}, 0),
    "densenet121": ({"block_config": [1, 1, 1, 1]}, 0),
    "vit_tiny_patch16_224": (SMALL_VIT, 1),
    "deit_tiny_distilled_patch16_224": (SMALL_VIT, 2),
    "vit_small_patch14_reg4_dinov2": ({**SMALL_VIT, "img_size": 56}, 5),
    "vit_base_patch16_siglip_224": (SMALL_VIT, 0),
    "vit_relpos_small_patch16_224": (SMALL_VIT, 0),
    "beit_base_patch16_224": (SMALL_VIT, 1),
    "eva02_tiny_patch14_224": ({**SMALL_VIT, "img_size": 56}, 1),
    "convit_tiny": ({**SMALL_VIT, "embed_dim": 12, "local_up_to_layer": 1}, 1),
    "cait_xxs24_224": ({**SMALL_VIT}, 1),
    "xcit_nano_12_p16_224": ({**SMALL_VIT}, 1),
    "volo_d1_224": ({"img_size": 64}, 1),
    "mixer_s32_224": ({"img_size": 64}, 0),
    "swin_tiny_patch4_window7_224": ({"img_size": 64, "embed_dim": 12, "depths": [1, 1], "window_size": 2}, 0),
    "swinv2_tiny_window8_256": ({"img_size": 64, "embed_dim": 12, "depths": [1, 1], "window_size": 2}, 0),
    "pvt_v2_b0": ({}, 0),
    "poolformer_s12": ({}, 0),
    "twins_pcpvt_small": ({"img_size": 64}, 0),
    "levit_128s": ({}, 0),
    "mobilevit_xxs": ({}, 0),
    "repvit_m0_9": ({}, 0),
}


def model_of(vision):
    torch.manual_seed(0)
    return LumbarCLIPModel(LumbarCLIPConfig(vision_config=vision, text_config=TEXT, projection_dim=8)).eval()


def check(model, pixels, num_prefix_tokens, num_patches=None):
    """Embed images twice, and compare their patches with the tower's own tokens."""
    tower = model.vision_model
    layout = image_layout(tower)
    assert layout.num_prefix_tokens == num_prefix_tokens
    with torch.no_grad():
        output, again = (model(pixel_values=pixels, output_local_features=True) for _ in range(2))
        hidden = tower(pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(again.image_embeds, output.image_embeds)
    assert output.image_features.shape == (2, layout.width)
    assert output.patch_features.shape[2] == layout.patch_width
    if hidden.ndim == 3:
        torch.testing.assert_close(output.patch_features, hidden[:, num_prefix_tokens:])
    assert num_patches in (None, output.patch_features.shape[1])
    with torch.device("meta"):  # as a checkpoint is loaded
        assert image_layout(build_tower(tower.config)) == layout


@pytest.mark.slow
@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_a_tower_of_transformers(kind):
    settings, num_prefix_tokens, num_patches = TRANSFORMERS[kind]
    model = model_of({"model_type": kind, **settings})
    side = getattr(model.config.vision_config, "image_size", None) or 224
    check(model, torch.randn(2, 3, side, side), num_prefix_tokens, num_patches)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", TIMM)
def test_a_tower_of_timm(architecture):
    settings, num_prefix_tokens = TIMM[architecture]
    model = model_of({"model_type": "timm_wrapper", "architecture": architecture, "model_args": settings})
    side = settings.get("img_size") or model.vision_model.timm_model.pretrained_cfg["input_size"][-1]
    check(model, torch.randn(2, 3, side, side), num_prefix_tokens)


@pytest.mark.parametrize(
    ("vision", "message"),
    [
        ({"model_type": "vit_mae", **SMALL}, "'vit_mae' draws random numbers in evaluation too"),
        ({"model_type": "yolos", **SMALL, "image_size": [64, 64]}, "64 x 64 pixels into 117 tokens that are not its"),
        (DETR, "'detr' turns an image of 64 x 64 pixels into 100 tokens that are not its patches"),
        ({"model_type": "hgnet_v2"}, "'hgnet_v2' is no vision tower: .*no attribute 'last_hidden_state'"),
        ({"model_type": "siglip2_vision_model", "num_hidden_layers": 1}, "'siglip2_vision_model' is no vision tower"),
        ({"model_type": "videomae", **SMALL}, "'videomae' is no vision tower: given an RGB image"),
        ({"model_type": "imagegpt", "n_embd": 16, "n_layer": 1, "n_head": 2}, "'imagegpt' is no vision tower"),
        ({"model_type": "bert", **{k: TEXT[k] for k in TEXT if k != "model_type"}}, "'bert' is no vision tower"),
        ({"model_type": "vit", **SMALL, "num_channels": 1}, "'vit' is no vision tower: given an RGB image"),
        ({"model_type": "blip_vision_model", **SMALL}, "AutoModel of transformers builds no 'blip_vision_model'"),
        ({"model_type": "timm_wrapper", "architecture": "coat_tiny"}, "'coat_tiny' is no vision tower"),
    ],
    ids=lambda value: value["model_type"] if isinstance(value, dict) else None,
)
def test_what_cannot_be_a_tower_is_named_when_the_model_is_built(vision, message):
    state = torch.get_rng_state()
    for build in (model_of, classifier_of):
        with pytest.raises(ValueError, match=message):
            build(vision)
    torch.set_rng_state(state)


def classifier_of(vision):
    return LumbarCLIPForImageClassification(LumbarCLIPConfig(vision_config=vision, text_config=TEXT))


def test_looking_at_a_tower_changes_neither_it_nor_later_random_numbers():
    tower = build_tower(AutoConfig.for_model("timm_wrapper", architecture="resnet10t")).train()
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    torch.manual_seed(0)
    output_width(tower)
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(0)))
    assert tower.training and all(torch.equal(before[name], value) for name, value in tower.state_dict().items())
    assert not any(module._forward_hooks for module in tower.modules())


def test_a_tower_that_looks_into_its_tensors_is_understood_while_it_has_none():
    config = AutoConfig.for_model("idefics3_vision", **SMALL)
    with torch.device("meta"):
        assert image_layout(build_tower(config)) == (32, 32, 0)


def test_a_class_token_is_pooled_wherever_the_tower_keeps_it():
    tower = build_tower(AutoConfig.for_model("data2vec-vision", **SMALL)).eval()
    outputs = tower(pixel_values=torch.randn(2, 3, 64, 64))
    assert outputs.pooler_output is None
    assert torch.equal(pooled_image(tower, outputs), outputs.last_hidden_state[:, 0])


def test_towers_that_were_built_elsewhere_keep_their_attention():
    text = AutoModel.from_config(AutoConfig.for_model(**TEXT))
    vision = AutoModel.from_config(AutoConfig.for_model("vit", **SMALL))
    model = LumbarCLIPModel(LumbarCLIPConfig(vision_config=vision.config, text_config=text.config), vision, text)
    assert model.text_model.config._attn_implementation == model.vision_model.config._attn_implementation == "sdpa"
    ids, mask = torch.tensor([[2, 20, 3, 30, 31]]), torch.tensor([[1, 1, 1, 0, 0]])
    with torch.no_grad():
        padded, alone = (model.eval().get_text_features(ids[:, :n], mask[:, :n]).pooler_output for n in (5, 3))
    torch.testing.assert_close(padded, alone)


def test_the_readme_lists_the_families_that_are_tested():
    readme = (PROJECT / "modeling_lumbarclip/README.md").read_text()
    listed = readme.partition("<!-- towers -->\n")[2].partition("<!-- /towers -->")[0]
    families = {
        "vision, transformers": TRANSFORMERS,
        "vision, timm": TIMM,
        "text": dict.fromkeys(kind for kind, *_ in TEXT_TOWERS),
    }
    table = ["| towers | tested |", "|---|---|"]
    table += [f"| {name} | {', '.join(f'`{kind}`' for kind in kinds)} |" for name, kinds in families.items()]
    assert listed.strip() == "\n".join(table)


def test_attentions_in_the_configuration_are_asked_of_no_tower_of_timm_while_it_is_built(tiny_config):
    for config in (tiny_config, tiny_config.vision_config, tiny_config.text_config):
        config.output_attentions = True
    model = LumbarCLIPModel(tiny_config).eval()
    assert len(model.get_text_features(torch.tensor([[2, 5, 3]])).attentions) == 1
    with pytest.raises(ValueError, match="returns no attentions"):
        model.get_image_features(torch.zeros(1, 3, 32, 32))
