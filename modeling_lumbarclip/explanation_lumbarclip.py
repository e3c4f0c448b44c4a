r"""Maps of where the model sees what a text describes: similarity of each patch, and Grad-CAM.

A map describes the model and is not evidence of a finding: random weights give convincing maps too (Adebayo et al.
2018). Score maps against masks, and against random weights, before trusting them.

Shapes: B images, U texts, H × W pixels, P = h · w patches, D width of the shared space, C channels.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel

from .towers_lumbarclip import tower_options
from .vision_tower_lumbarclip import has_channels_last, num_prefix_tokens, patch_features, pooled_image


class WithMaps:
    """Maps of a LumbarCLIP model."""

    vision_model: PreTrainedModel
    text_model: PreTrainedModel
    image_projection: nn.Module
    dtype: torch.dtype
    _embed_texts: Callable[..., Tensor]

    def text_to_patch_similarity(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        denial_input_ids: Tensor | None = None,
        denial_attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Compute the cosine of each patch with each text; see `explanation_lumbarclip.text_to_patch_similarity`.

        `processor.image_processor.unpad_maps` fits the maps to the images.

        Args:
            pixel_values: Shape (B, 3, H, W).
            input_ids: Shape (U, T).
            attention_mask: 1 for tokens, 0 for padding. Shape (U, T); None: no padding.
            denial_input_ids: Texts that deny the others, row by row; maps then show the direction between the two,
                without what both share. Shape (U, T').
            denial_attention_mask: Their mask. Shape (U, T').
            **kwargs: More inputs of the text tower, such as `token_type_ids`, for the stating texts.

        Returns:
            In [-1, 1]. Shape (B, U, h, w), float32.
        """
        denial = {"denial_input_ids": denial_input_ids, "denial_attention_mask": denial_attention_mask}
        directions = self._text_directions(input_ids, attention_mask, **denial, **kwargs)
        pixels = pixel_values.to(self.dtype)
        return text_to_patch_similarity(self.vision_model, self.image_projection, pixels, directions)

    def grad_cam(self, pixel_values: Tensor, *texts: Tensor, **text_inputs: Any) -> Tensor:
        """Compute Grad-CAM of each image for each text; see `explanation_lumbarclip.grad_cam`.

        Takes the arguments of `text_to_patch_similarity`, in evaluation mode (else a ValueError).

        Returns:
            At least 0, without a unit: compare places within a map. Shape (B, U, h, w), float32.
        """
        directions = self._text_directions(*texts, **text_inputs)
        return grad_cam(self.vision_model, self.image_projection, pixel_values.to(self.dtype), directions)

    @torch.no_grad()
    def _text_directions(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        denial_input_ids: Tensor | None = None,
        denial_attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        (options,) = tower_options(self.text_to_patch_similarity, kwargs, self.text_model, records=())
        text_embeds = self._embed_texts(input_ids, attention_mask, **options)
        if denial_input_ids is None:
            return text_embeds
        return contrast(text_embeds, self._embed_texts(denial_input_ids, denial_attention_mask))


def text_to_patch_similarity(
    vision_model: PreTrainedModel, image_projection: nn.Module, pixel_values: Tensor, text_embeds: Tensor
) -> Tensor:
    r"""Compute the cosine of each patch with each text, embedding a patch as if it filled the image.

    The patches are those of the vision tower's last layer. Each passes on its own through the tower's pooling and
    the projection head, which were trained on whole images. How faithful this is depends on both:

    - Exact with an average over patches (ResNet, Swin, timm's ViT with `global_pool="avg"` and no norm after it) and
      the heads `linear` and `none`. The image embedding is then the mean of the projected patches $v_p$, and its
      similarity to a text the mean of the patch similarities $s_p$, weighted by the length of $v_p$:
      $s = \sum_p \lVert v_p \rVert s_p / \lVert \sum_p v_p \rVert$.
    - A heuristic with the head `nonlinear`, and where a norm follows the average (ConvNeXt).
    - A heuristic with a class token (timm's default ViT; ViT, DINOv2 and CLIP of transformers): only the token was
      trained to be projected, and the last layer's patches do not affect the answer.

    `pixel_values` have shape (B, 3, H, W). `text_embeds` are unit-length directions in the shared space, (U, D):
    embeddings of texts, or `contrast`.

    Returns:
        In [-1, 1]. Shape (B, U, h, w), float32.

    Raises:
        ValueError: If the patches form no grid.

    Source:
        Zhou et al. 2022, "Extract Free Dense Labels from CLIP" (MaskCLIP), section 3.2.
    """
    with torch.no_grad():
        hidden = vision_model(pixel_values=pixel_values, return_dict=True).last_hidden_state
        patches = patch_features(vision_model, hidden)  # (B, P, C)
        height, width = _grid(vision_model, hidden, patches.shape[1], pixel_values)
        embeds = image_projection(_pool_each_alone(vision_model, hidden, patches.flatten(0, 1)))
        embeds = F.normalize(embeds.float(), dim=-1).view(*patches.shape[:2], -1)  # (B, P, D)
        similarity = torch.einsum("bpd,ud->bup", embeds, text_embeds.float())
    return similarity.clamp(-1, 1).view(len(pixel_values), len(text_embeds), height, width)


def grad_cam(
    vision_model: PreTrainedModel, image_projection: nn.Module, pixel_values: Tensor, text_embeds: Tensor
) -> Tensor:
    r"""Compute Grad-CAM of the similarity between image and text: the channels that raise it, where they are active.

    $\alpha_k = \frac{1}{P} \sum_p \partial s / \partial A_{kp}$ (eq. 1) and $L_p = \max(0, \sum_k \alpha_k A_{kp})$
    (eq. 2), with s the cosine of image and text, and A the last feature map that the answer depends on: the last layer,
    as in the paper; with a class token, which the last patches do not reach, the normalised input of the last attention
    block. Takes the arguments of `text_to_patch_similarity`, with the tower in evaluation mode. Works under a caller's
    `no_grad` and leaves parameters and their gradients unchanged.

    Returns:
        At least 0, without a unit: compare places within a map, not across maps. Shape (B, U, h, w), float32.

    Raises:
        ValueError: If the tower is in training mode, or its last attention block cannot be found.

    Source:
        Selvaraju et al. 2017, "Grad-CAM", arXiv 1610.02391, section 3, with a similarity as the score of a class.
        With average pooling and a linear head, it is the product of each projected patch with the part of the text
        orthogonal to the image's embedding: unlike in `text_to_patch_similarity`, features that all patches
        share or that contradict the text do not count.
    """
    if vision_model.training:
        raise ValueError("Grad-CAM needs the model in evaluation mode, where images are independent: call eval().")
    with torch.inference_mode(mode=False), torch.enable_grad():
        # A copy, since inference-mode tensors have no gradient; it requires one, since a frozen tower does not.
        pixels = pixel_values.detach().clone().requires_grad_()
        outputs, feature_map = _forward_with_map(vision_model, pixels)
        embeds = F.normalize(image_projection(pooled_image(vision_model, outputs)).float(), dim=-1)
        similarity = embeds @ text_embeds.detach().clone().to(embeds).T  # (B, U)
        # Summing over images mixes nothing: each depends only on its own pixels.
        gradients = [torch.autograd.grad(of_text.sum(), feature_map, retain_graph=True)[0] for of_text in similarity.T]
    activations = patch_features(vision_model, feature_map.detach()).float()  # (B, P, C)
    alphas = [patch_features(vision_model, gradient).float().mean(dim=1, keepdim=True) for gradient in gradients]
    maps = [(alpha * activations).sum(dim=2).relu() for alpha in alphas]
    height, width = _grid(vision_model, feature_map, activations.shape[1], pixel_values)
    return torch.stack(maps, dim=1).view(len(pixel_values), len(text_embeds), height, width)


def contrast(text_embeds: Tensor, denial_embeds: Tensor) -> Tensor:
    """Return the direction from texts that deny findings to texts that state them, unit length, float32.

    "Disc bulge." and "No disc bulge." share most of their words and of their embedding; a map of the difference leaves
    out what they share, such as the disc itself. Row i of the denials denies text i; all shapes are (U, D).

    Example:
        >>> contrast(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
        tensor([[ 0.7071, -0.7071]])
    """
    return F.normalize(text_embeds.float() - denial_embeds.float(), dim=-1)


def _forward_with_map(tower: PreTrainedModel, pixels: Tensor) -> tuple[Any, Tensor]:
    """Run the tower; also return the last feature map that its pooled output depends on."""
    if not num_prefix_tokens(tower):
        outputs = tower(pixel_values=pixels, return_dict=True)
        return outputs, outputs.last_hidden_state
    kept: list[Tensor] = []
    hook = _norm_before_last_attention(tower).register_forward_hook(lambda *called: kept.append(called[2]))
    try:
        outputs = tower(pixel_values=pixels, return_dict=True)
    finally:
        hook.remove()
    return outputs, kept[0]


def _norm_before_last_attention(tower: PreTrainedModel) -> nn.Module:
    # Not the block's input: a norm removes the length of its input, so the gradient there is orthogonal to the
    # activation, and their product says nothing.
    norms = []
    for block in tower.modules():
        children = dict(block.named_children())
        if children.keys() & {"attn", "attention", "self_attn"}:
            norms += [child for name, child in children.items() if "norm" in name][:1]
    if not norms:
        raise ValueError(
            f"Grad-CAM found no transformer block with a norm and an attention in a {tower.config.model_type} tower; "
            "it needs a ResNet, ViT, Swin or similar. `text_to_patch_similarity` works without them."
        )
    return norms[-1]


def _pool_each_alone(tower: PreTrainedModel, hidden: Tensor, patches: Tensor) -> Tensor:
    """Pool each patch (B * P, C), in the layout of the last layer, as if it filled the image; to (B * P, d_I)."""
    timm_model: Any = getattr(tower, "timm_model", None)
    if timm_model is None:  # class token or mean: one patch passes unchanged; the norm of CLIP, ConvNeXt is skipped
        return patches
    if hidden.ndim == 4:
        alone = patches[:, None, None, :] if has_channels_last(tower) else patches[:, :, None, None]
    else:  # also in place of the class token
        alone = patches[:, None].expand(-1, num_prefix_tokens(tower) + 1, -1)
    return timm_model.forward_head(alone).flatten(1)


def _grid(tower: PreTrainedModel, hidden: Tensor, num_patches: int, pixel_values: Tensor) -> tuple[int, int]:
    if hidden.ndim == 4:
        rows, columns = hidden.shape[1:3] if has_channels_last(tower) else hidden.shape[2:]
        return rows, columns
    return patch_grid(num_patches, pixel_values.shape[-2], pixel_values.shape[-1])


def patch_grid(num_patches: int, height: int, width: int) -> tuple[int, int]:
    """Return rows and columns of the square patches, without class tokens, that cover an image of this size.

    Raises:
        ValueError: If no such grid has this many patches.

    Example:
        >>> patch_grid(196, 224, 224), patch_grid(140, 224, 160)
        ((14, 14), (14, 10))
    """
    rows = round(math.sqrt(num_patches * height / width))
    columns = round(num_patches / max(rows, 1))
    if rows * columns != num_patches:
        raise ValueError(
            f"{num_patches} patches do not cover an image of {height} x {width} pixels: make its sides multiples of "
            "the patch size."
        )
    return rows, columns
