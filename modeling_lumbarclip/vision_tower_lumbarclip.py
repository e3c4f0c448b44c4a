"""What a vision tower makes of an image: widths, class tokens and patches, whatever its library calls them.

Shapes: B images, P patches, d_I width of the tower.
"""

import math
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel
from transformers.models.timm_wrapper.modeling_timm_wrapper import TimmWrapperModel

from .towers_lumbarclip import build_tower, evaluating, tower_name


class ImageLayout(NamedTuple):
    """What a vision tower makes of an image.

    Args:
        width: Of the pooled features, d_I.
        patch_width: Of a patch in the last layer, which in some convolutional towers differs from `width`.
        num_prefix_tokens: Class, distillation and register tokens before the patches.
    """

    width: int
    patch_width: int
    num_prefix_tokens: int


def output_width(tower: PreTrainedModel) -> int:
    """Return the width of the pooled features of a vision tower."""
    return image_layout(tower).width


def patch_width(tower: PreTrainedModel) -> int:
    """Return the width of a patch, which in some convolutional towers differs from `output_width`."""
    return image_layout(tower).patch_width


def num_prefix_tokens(tower: PreTrainedModel) -> int:
    """Count the class, distillation and register tokens before a tower's patches."""
    return image_layout(tower).num_prefix_tokens


def image_layout(tower: PreTrainedModel) -> ImageLayout:
    """Find out by one forward pass what a vision tower makes of an image; neither library has names for all of it.

    Asked first when a model is built, and kept on the tower. Works with weights on the meta device.

    Raises:
        ValueError: If the tower does not embed RGB images, draws random numbers in evaluation mode, as ViTMAE does to
            hide patches, or its output is not patches with other tokens before them.
    """
    layout = getattr(tower, "image_layout", None)
    if layout is None:
        try:
            layout = _find_layout(tower)
        except ValueError:
            if not tower.device.type == "meta":
                raise
            with torch.device("cpu"):  # a few look into the values of their tensors
                layout = _find_layout(build_tower(tower.config))
        cast(Any, tower).image_layout = layout
    return layout


def _find_layout(tower: PreTrainedModel) -> ImageLayout:
    shape = _image_shape(tower)
    pixels = torch.linspace(-1, 1, math.prod(shape), dtype=tower.dtype, device=tower.device).view(shape)
    # Convolutions cut the image into patches, if not always the first of them.
    grids: list[int] = []
    hooks = [
        module.register_forward_hook(lambda *called: grids.append(math.prod(called[2].shape[2:])))
        for module in tower.modules()
        if isinstance(module, nn.Conv2d)
    ]
    # A configuration that asks for attentions may be meant for the text tower; timm would refuse to run.
    options = {"output_attentions": False} if isinstance(tower, TimmWrapperModel) else {}
    random_state = torch.get_rng_state()
    try:
        with evaluating(tower, "vision tower", "an RGB image"):
            outputs = tower(pixel_values=pixels, return_dict=True, **options)
            hidden = outputs.last_hidden_state
            patch_width = hidden.shape[1 if hidden.ndim == 4 and not has_channels_last(tower) else -1]
    finally:
        for hook in hooks:
            hook.remove()
    if not torch.equal(random_state, torch.get_rng_state()):
        torch.set_rng_state(random_state)
        raise ValueError(
            f"{tower_name(tower)} draws random numbers in evaluation too, as masked autoencoders do: one image would "
            "get many embeddings. Use an encoder without masking, such as 'vit'."
        )
    num_prefix_tokens = 0 if hidden.ndim == 4 else _count_prefix_tokens(tower, hidden.shape[1], grids, pixels)
    layout = ImageLayout(0, patch_width, num_prefix_tokens)
    return layout._replace(width=_pooled_image(layout, outputs).shape[1])


def _image_shape(tower: PreTrainedModel) -> tuple[int, int, int, int]:
    """Return the shape of one image that a tower takes: (1, 3, H, W)."""
    config: Any = tower.config
    if isinstance(tower, TimmWrapperModel):
        timm_model: Any = tower.timm_model
        side = (config.model_args or {}).get("img_size") or timm_model.pretrained_cfg["input_size"][1:]
    else:
        side = getattr(config, "image_size", None) or 224
    height, width = (side, side) if isinstance(side, int) else side
    return 1, 3, height, width


def _count_prefix_tokens(tower: PreTrainedModel, num_tokens: int, grids: list[int], pixels: Tensor) -> int:
    known = getattr(getattr(tower, "timm_model", None), "num_prefix_tokens", None)
    if known is not None:
        return known
    num_patches = max((grid for grid in grids if 1 < grid <= num_tokens), default=0)
    if not num_patches:  # merged or pooled after the convolutions, as in Swin
        rows = round(math.sqrt(num_tokens * pixels.shape[2] / pixels.shape[3]))
        num_patches = num_tokens if num_tokens % max(rows, 1) == 0 else 0
    has_queries = getattr(tower.config, "is_encoder_decoder", False)  # in place of patches, as DETR
    if not num_patches or has_queries or _ends_with_other_tokens(tower, num_tokens, pixels):
        raise ValueError(
            f"{tower_name(tower)} turns an image of {pixels.shape[2]} x {pixels.shape[3]} pixels into {num_tokens} "
            "tokens that are not its patches, with class tokens before them. Use one such as 'vit', 'swin' or 'resnet'."
        )
    return num_tokens - num_patches


def _ends_with_other_tokens(tower: PreTrainedModel, num_tokens: int, pixels: Tensor) -> bool:
    """Whether the last token is no patch, as in YOLOS: at first it is the same for any image."""
    if pixels.is_meta:  # built before, and then checked
        return False
    first: list[Tensor] = []

    def look(module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        hidden = next((value for value in (*inputs, *named.values()) if isinstance(value, Tensor)), pixels)
        # Equal for both images: positions alone.
        if hidden.ndim == 3 and hidden.shape[:2] == (2, num_tokens) and not torch.equal(hidden[0], hidden[1]):
            first.append(hidden)

    hooks = [module.register_forward_pre_hook(look, with_kwargs=True) for module in tower.modules()]
    try:
        with evaluating(tower, "vision tower", "two RGB images"):
            tower(pixel_values=torch.cat([pixels, pixels.flip(3)]))
    finally:
        for hook in hooks:
            hook.remove()
    return bool(first) and torch.equal(first[0][0, -1], first[0][1, -1])


def pooled_image(tower: PreTrainedModel, outputs: Any) -> Tensor:
    """Pool the tower's outputs to (B, d_I): by its own pooling, else the class token, else the mean over patches."""
    return _pooled_image(image_layout(tower), outputs)


def _pooled_image(layout: ImageLayout, outputs: Any) -> Tensor:
    if getattr(outputs, "pooler_output", None) is not None:
        return outputs.pooler_output.flatten(1)
    hidden = outputs.last_hidden_state
    if hidden.ndim == 4:
        return hidden.mean(dim=(2, 3))
    return hidden[:, 0] if layout.num_prefix_tokens else hidden.mean(dim=1)


def patch_features(tower: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Flatten a feature map or tokens of a vision tower to patches (B, P, d_I), without class tokens."""
    if hidden.ndim == 4:
        return hidden.flatten(1, 2) if has_channels_last(tower) else hidden.flatten(2).transpose(1, 2)
    return hidden[:, num_prefix_tokens(tower) :]


def has_channels_last(tower: PreTrainedModel) -> bool:
    """Whether a tower's feature maps are (B, H, W, C), as in timm's Swin."""
    return getattr(getattr(tower, "timm_model", None), "output_fmt", "NCHW") == "NHWC"
