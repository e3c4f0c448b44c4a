"""What a vision tower makes of an image: widths, class tokens and patches, whatever its library calls them.

Shapes: B images, P patches, d_I width of the tower.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel
from transformers.models.timm_wrapper.modeling_timm_wrapper import TimmWrapperModel

from .towers_lumbarclip import build_tower, evaluating, tower_name

SMALLEST_STRIDE = 4  # at which a map still shows patches


class Scale(NamedTuple):
    """A feature map of a vision tower.

    Args:
        layer: Among the tower's hidden states; None: its last layer.
        width: Channels.
        stride: Pixels of the image between neighbouring cells.
    """

    layer: int | None
    width: int
    stride: int


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


def scales(tower: PreTrainedModel) -> list[Scale]:
    """Find the feature maps of a vision tower, coarse to fine, by one forward pass; kept on the tower.

    The coarsest is its last layer; beside it the last hidden state of each finer grid. A tower with one grid, such as
    ViT, gives a pyramid: of evenly spaced earlier layers, each to be resized to half the stride of the one before.

    Raises:
        ValueError: If the tower returns no hidden states, or its last layer is no grid of patches.

    Source:
        The pyramid is simpler than that of ViTDet (Li et al. 2022), which uses the last layer alone.
    """
    found = getattr(tower, "map_scales", None)
    if found is None:
        num_prefix_tokens(tower)  # before the tower runs on the meta device
        try:
            found = _find_scales(tower)
        except ValueError:
            if not tower.device.type == "meta":
                raise
            with torch.device("cpu"):
                found = _find_scales(build_tower(tower.config))
        cast(Any, tower).map_scales = found
    return found


def _find_scales(tower: PreTrainedModel) -> list[Scale]:
    shape = _image_shape(tower)
    pixels = torch.linspace(-1, 1, math.prod(shape), dtype=tower.dtype, device=tower.device).view(shape)
    options: dict[str, Any] = {"output_attentions": False} if isinstance(tower, TimmWrapperModel) else {}
    with evaluating(tower, "vision tower with feature maps", "an RGB image"):
        outputs = tower(pixel_values=pixels, return_dict=True, output_hidden_states=True, **options)
        states = [_as_grid(state, shape, num_prefix_tokens(tower)) for state in outputs.hidden_states]
        last = _last_grid(tower, outputs.last_hidden_state, shape)
    rows = last.shape[2]
    coarsest = Scale(None, last.shape[1], round(shape[2] / rows))
    grids = {index: state for index, state in enumerate(states) if state is not None}
    by_rows = {state.shape[2]: index for index, state in grids.items() if state.shape[2] > rows}
    if by_rows:
        finer = [by_rows[size] for size in sorted(by_rows)]
        return [
            coarsest,
            *(Scale(index, grids[index].shape[1], round(shape[2] / grids[index].shape[2])) for index in finer),
        ]
    strides = [coarsest.stride]
    while strides[-1] // 2 >= SMALLEST_STRIDE:
        strides.append(strides[-1] // 2)
    layers = list(grids)
    earlier = [layers[len(layers) * (len(strides) - place) // len(strides) - 1] for place in range(1, len(strides))]
    return [
        coarsest,
        *(Scale(index, grids[index].shape[1], stride) for index, stride in zip(earlier, strides[1:], strict=True)),
    ]


def feature_maps(tower: PreTrainedModel, outputs: Any, image_shape: Sequence[int]) -> list[Tensor]:
    """Return the maps of `scales(tower)` for images (B, 3, H, W), coarse to fine, each (B, C, h, w).

    Those of a pyramid have the grid of the last layer; their strides say to which size they are to be resized.

    Args:
        tower: The vision tower.
        outputs: Its outputs, with hidden states.
        image_shape: (B, 3, H, W).

    Raises:
        ValueError: If a layer is no grid for images of this size.
    """
    maps = []
    for scale in scales(tower):
        if scale.layer is None:
            grid: Tensor | None = _last_grid(tower, outputs.last_hidden_state, image_shape)
        else:
            grid = _as_grid(outputs.hidden_states[scale.layer], image_shape, num_prefix_tokens(tower))
        if grid is None:
            raise ValueError(
                f"{tower_name(tower)} cuts images of {image_shape[2]} x {image_shape[3]} pixels into patches that "
                "are no grid. Pass square images, with a side that is a multiple of the patch's."
            )
        maps.append(grid)
    return maps


def _last_grid(tower: PreTrainedModel, hidden: Tensor, image_shape: Sequence[int]) -> Tensor:
    if hidden.ndim == 4:
        return hidden.permute(0, 3, 1, 2) if has_channels_last(tower) else hidden
    grid = _as_grid(patch_features(tower, hidden), image_shape, 0)
    if grid is None:
        raise ValueError(f"the {hidden.shape[1]} tokens of its last layer are no grid of patches")
    return grid


def _as_grid(state: Tensor, image_shape: Sequence[int], num_prefix_tokens: int) -> Tensor | None:
    """Turn a hidden state into a map (B, C, h, w) with sides in the ratio of the image's; None if it is no grid."""
    if state.ndim == 4:
        return state
    height, width = image_shape[2:]
    for skipped in {num_prefix_tokens: None, 0: None}:  # early layers of some towers have no class token yet
        num_patches = state.shape[1] - skipped
        rows = round(math.sqrt(num_patches * height / width))
        if rows and num_patches % rows == 0 and abs(rows * width - num_patches // rows * height) < max(height, width):
            return state[:, skipped:].transpose(1, 2).unflatten(2, (rows, num_patches // rows))
    return None


def has_channels_last(tower: PreTrainedModel) -> bool:
    """Whether a tower's feature maps are (B, H, W, C), as in timm's Swin."""
    return getattr(getattr(tower, "timm_model", None), "output_fmt", "NCHW") == "NHWC"
