"""Maps of what a model sees: equal to slow references, on the right grid, and without a trace in the model."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPVisionConfig, ResNetConfig, SwinConfig, ViTConfig
from transformers.utils import ModelOutput

from modeling_lumbarclip import LumbarCLIPConfig, LumbarCLIPModel
from modeling_lumbarclip.explanation_lumbarclip import contrast, grad_cam, patch_grid, text_to_patch_similarity
from modeling_lumbarclip.vision_tower_lumbarclip import ImageLayout

TEXT = {"model_type": "bert", "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 64, "patch_size": 16}


def timm_config(architecture, **model_args):
    return {"model_type": "timm_wrapper", "architecture": architecture, "model_args": model_args or None}


RESNET = timm_config("resnet10t", channels=[8, 8, 16, 16], stem_width=8)
VIT = timm_config("vit_tiny_patch16_224", img_size=64, embed_dim=24, depth=2, num_heads=2)
VIT_AVERAGE = timm_config(
    "vit_tiny_patch16_224", img_size=64, embed_dim=24, depth=2, num_heads=2, global_pool="avg", fc_norm=False
)
SWIN = timm_config("swin_tiny_patch4_window7_224", img_size=64, embed_dim=12, depths=[1, 1], window_size=2)
IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]])


def model_of(vision_config, **config):
    torch.manual_seed(0)
    config = {"projection_dim": 8, **config}
    return LumbarCLIPModel(LumbarCLIPConfig(vision_config=vision_config, text_config=TEXT, **config)).eval()


def pixels_of(height=64, width=64):
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "vision_config, size, grid",
    [
        (RESNET, (64, 96), (2, 3)),
        (VIT, (64, 64), (4, 4)),
        (
            timm_config("deit_tiny_distilled_patch16_224", img_size=64, embed_dim=24, depth=1, num_heads=2),
            (64, 64),
            (4, 4),
        ),
        (SWIN, (64, 64), (8, 8)),
        (timm_config("convnext_atto", dims=[8, 8, 8, 16], depths=[1, 1, 1, 1]), (64, 96), (2, 3)),
        (timm_config("mobilenetv3_small_050"), (64, 64), (2, 2)),  # pools into more features than a patch has
        (ViTConfig(**{**SMALL, "image_size": (32, 64)}), (32, 64), (2, 4)),
        (CLIPVisionConfig(**SMALL, intermediate_size=30), (64, 64), (4, 4)),
        (SwinConfig(image_size=64, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4), (64, 64), (8, 8)),
        (ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"), (64, 96), (8, 12)),
    ],
    ids=lambda value: value["architecture"] if isinstance(value, dict) else getattr(value, "model_type", None),
)
def test_maps_lie_on_the_grid_of_the_tower(vision_config, size, grid):
    model, pixels = model_of(vision_config), pixels_of(*size)
    similarity, saliency = model.text_to_patch_similarity(pixels, IDS, MASK), model.grad_cam(pixels, IDS, MASK)
    assert similarity.shape == saliency.shape == (2, 3, *grid)
    assert similarity.dtype == saliency.dtype == torch.float32
    assert similarity.abs().max() <= 1 and similarity.std() > 1e-3
    assert saliency.min() == 0 and saliency.amax() > 0


@pytest.mark.parametrize("vision_config", [RESNET, VIT_AVERAGE, SWIN], ids=["resnet", "vit", "swin"])
@pytest.mark.parametrize("projection", ["linear", "none"])
def test_patches_add_up_to_the_answer_where_they_are_averaged(vision_config, projection):
    """The similarity of the image is that of its patches, weighted by their lengths."""
    model, pixels = model_of(vision_config, projection=projection), pixels_of()
    with torch.no_grad():
        output = model(IDS, pixels, MASK, output_local_features=True)
        projected = torch.stack([model.image_projection(patches) for patches in output.patch_features])  # (B, P, D)
    maps = model.text_to_patch_similarity(pixels, IDS, MASK).flatten(2)
    weights = projected.norm(dim=2) / projected.sum(dim=1).norm(dim=1, keepdim=True)
    torch.testing.assert_close(
        torch.einsum("bp,bup->bu", weights, maps), output.image_embeds @ output.text_embeds.T, atol=1e-5, rtol=1e-4
    )


def test_a_class_token_takes_no_part_in_the_map():
    model, pixels = model_of(VIT, projection="nonlinear"), pixels_of()
    with torch.no_grad():
        tokens = model.vision_model.timm_model.forward_features(pixels)  # (2, 1 + 16, 24)
        patch = F.normalize(model.image_projection(tokens[:1, 1 + 4 * 2 + 3]), dim=1)  # row 2, column 3
        texts = model.get_text_features(IDS, MASK).pooler_output
    torch.testing.assert_close(model.text_to_patch_similarity(pixels, IDS, MASK)[0, :, 2, 3], (patch @ texts.T)[0])


def resnet_steps(tower, pixels):
    feature_map = tower.forward_features(pixels).detach().requires_grad_()
    return feature_map, tower.forward_head(feature_map), feature_map[0].flatten(1).T


def swin_steps(tower, pixels):
    feature_map = tower.forward_features(pixels).detach().requires_grad_()  # channels last
    return feature_map, feature_map.mean(dim=(1, 2)), feature_map[0].flatten(0, 1)


def vit_steps(tower, pixels):
    """As timm's last block, written out: the normalised input of its attention is the map."""
    block = tower.blocks[-1]
    hidden = tower.blocks[:-1](tower.norm_pre(tower._pos_embed(tower.patch_embed(pixels)))).detach()
    feature_map = block.norm1(hidden).detach().requires_grad_()
    hidden = hidden + block.attn(feature_map)
    hidden = hidden + block.mlp(block.norm2(hidden))
    return feature_map, tower.norm(hidden)[:, 0], feature_map[0, 1:]


@pytest.mark.parametrize(
    "vision_config, steps",
    [(RESNET, resnet_steps), (VIT, vit_steps), (SWIN, swin_steps)],
    ids=["resnet", "vit", "swin"],
)
def test_grad_cam_is_equations_1_and_2_for_one_image_and_one_text(vision_config, steps):
    """pytorch-grad-cam 1.5.7 gives these maps, too, scaled (measured to 4e-6 on eight towers)."""
    model, pixels = model_of(vision_config), pixels_of()
    maps = model.grad_cam(pixels, IDS, MASK)
    for image in range(2):
        for text in range(3):
            feature_map, features, patches = steps(model.vision_model.timm_model, pixels[image : image + 1])
            embed = F.normalize(model.image_projection(features), dim=1)[0]
            (embed @ model.get_text_features(IDS, MASK).pooler_output[text]).backward()
            gradient = feature_map.grad[0]
            if feature_map.ndim == 4:
                gradient = gradient.flatten(1).T if gradient.shape[0] == patches.shape[1] else gradient.flatten(0, 1)
            else:
                gradient = gradient[1:]
            alpha = [float(gradient[:, k].mean()) for k in range(patches.shape[1])]
            expected = [max(0.0, sum(a * x for a, x in zip(alpha, patch, strict=True))) for patch in patches.tolist()]
            scale = max(expected)
            assert scale > 0
            torch.testing.assert_close(
                maps[image, text].flatten() / scale, torch.tensor(expected) / scale, atol=1e-4, rtol=1e-3
            )


class BrightnessTower(nn.Module):
    """Each patch of 8 x 8 pixels has two features: its brightness, and 1."""

    image_layout = ImageLayout(width=2, patch_width=2, num_prefix_tokens=0)

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 2, kernel_size=8, stride=8)
        with torch.no_grad():
            self.patches.weight.zero_()
            self.patches.weight[0] = 1 / self.patches.weight[0].numel()
            self.patches.bias.copy_(torch.tensor([0.0, 1.0]))

    def forward(self, pixel_values, return_dict=None):
        features = self.patches(pixel_values)
        return ModelOutput(last_hidden_state=features, pooler_output=features.mean(dim=(2, 3)))


@pytest.mark.parametrize("draw", [text_to_patch_similarity, grad_cam])
def test_maps_find_the_one_patch_that_matters(draw):
    pixels = torch.zeros(1, 3, 40, 24)
    pixels[:, :, 24:32, 8:16] = 1.0  # row 3, column 1
    maps = draw(BrightnessTower().eval(), nn.Identity(), pixels, torch.eye(2))
    bright = torch.zeros(5, 3, dtype=torch.bool)
    bright[3, 1] = True
    if draw is grad_cam:  # what speaks for "bright" is the bright patch alone, for "1" every other
        assert torch.equal(maps[0, 0] > 0, bright) and torch.equal(maps[0, 1] > 0, ~bright)
    else:
        expected = torch.where(bright, 0.5**0.5, 0.0)
        torch.testing.assert_close(maps[0, 0], expected)
        torch.testing.assert_close(maps[0, 1], torch.where(bright, 0.5**0.5, 1.0))


@pytest.mark.parametrize("vision_config", [RESNET, VIT], ids=["resnet", "vit"])
def test_images_and_texts_of_a_batch_do_not_change_each_other(vision_config):
    model, pixels = model_of(vision_config), pixels_of()
    for draw in (model.text_to_patch_similarity, model.grad_cam):
        together = draw(pixels, IDS, MASK)
        alone = torch.stack(
            [torch.cat([draw(p[None], i[None], m[None])[0] for i, m in zip(IDS, MASK, strict=True)]) for p in pixels]
        )
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("vision_config", [RESNET, VIT], ids=["resnet", "vit"])
def test_grad_cam_leaves_no_trace_and_asks_nothing_of_its_caller(vision_config):
    model, pixels = model_of(vision_config), pixels_of()
    expected = model.grad_cam(pixels, IDS, MASK)
    assert not expected.requires_grad
    with torch.no_grad():
        assert torch.equal(model.grad_cam(pixels, IDS, MASK), expected)
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        made_inside = pixels * 1
        assert torch.equal(model.grad_cam(made_inside, IDS, MASK), expected)
    frozen = model.requires_grad_(False)
    assert torch.equal(frozen.grad_cam(pixels, IDS, MASK), expected)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not pixels.requires_grad
    assert not any(module._forward_hooks for module in model.modules())


def test_grad_cam_refuses_training_mode(tiny_model, tiny_inputs):
    with pytest.raises(ValueError, match=r"evaluation mode.*eval\(\)"):
        tiny_model.train().grad_cam(**tiny_inputs)


def test_methods_take_what_the_processor_gives(tiny_model, tiny_inputs):
    assert "token_type_ids" in tiny_inputs
    assert tiny_model.grad_cam(**tiny_inputs).shape == tiny_model.text_to_patch_similarity(**tiny_inputs).shape


def test_a_denial_turns_the_map_round():
    model, pixels = model_of(RESNET), pixels_of()
    stated, denied = (IDS[:1], MASK[:1]), (IDS[1:2], MASK[1:2])
    for draw in (model.text_to_patch_similarity, model.grad_cam):
        forward = draw(pixels, *stated, denial_input_ids=denied[0], denial_attention_mask=denied[1])
        backward = draw(pixels, *denied, denial_input_ids=stated[0], denial_attention_mask=stated[1])
        if draw == model.text_to_patch_similarity:
            torch.testing.assert_close(forward, -backward)
        else:
            assert (forward * backward).max() == 0 and (forward + backward).min() > 0
    with torch.no_grad():
        direction = contrast(*(model.get_text_features(*texts).pooler_output for texts in (stated, denied)))
    expected = text_to_patch_similarity(model.vision_model, model.image_projection, pixels, direction)
    actual = model.text_to_patch_similarity(
        pixels, *stated, denial_input_ids=denied[0], denial_attention_mask=denied[1]
    )
    torch.testing.assert_close(actual, expected)


def test_half_precision_models_give_maps_in_full_precision():
    model, pixels = model_of(RESNET), pixels_of()
    for draw in ("text_to_patch_similarity", "grad_cam"):
        full = getattr(model.float(), draw)(pixels, IDS, MASK)
        half = getattr(model.bfloat16(), draw)(pixels, IDS, MASK)
        assert half.dtype == torch.float32
        assert torch.corrcoef(torch.stack([half.flatten(), full.flatten()]))[0, 1] > 0.98


def test_towers_without_known_attention_blocks_are_refused():
    tower = BrightnessTower().eval()
    tower.image_layout = ImageLayout(width=2, patch_width=2, num_prefix_tokens=1)
    tower.config = SwinConfig()
    with pytest.raises(ValueError, match="no transformer block .* swin tower"):
        grad_cam(tower, nn.Identity(), torch.zeros(1, 3, 8, 8), torch.eye(2))


def test_grids_are_told_from_the_number_of_patches():
    assert patch_grid(256, 224, 224) == (16, 16) and patch_grid(6, 20, 30) == (2, 3) and patch_grid(6, 30, 20) == (3, 2)
    with pytest.raises(ValueError, match="197 patches do not cover an image of 224 x 224"):
        patch_grid(197, 224, 224)


@pytest.mark.parametrize("vision_config", [RESNET, SWIN], ids=["resnet", "swin"])
def test_grad_cam_of_averaged_patches_and_a_linear_head_in_closed_form(vision_config):
    model, pixels = model_of(vision_config), pixels_of()
    with torch.no_grad():
        output = model(IDS, pixels, MASK, output_local_features=True)
        length = model.image_projection(output.image_features).norm(dim=1)  # (B,)
        projected = output.patch_features @ model.image_projection.weight.T  # (B, P, D), without bias
    similarity = output.image_embeds @ output.text_embeds.T
    across = output.text_embeds - similarity[:, :, None] * output.image_embeds[:, None]  # (B, U, D)
    expected = torch.einsum("bud,bpd->bup", across, projected).relu() / (projected.shape[1] * length[:, None, None])
    torch.testing.assert_close(model.grad_cam(pixels, IDS, MASK).flatten(2), expected, atol=1e-6, rtol=1e-3)
