"""LumbarCLIP: a vision tower and a text tower that meet in one space of unit-length embeddings.

Shapes: B images, U texts, N pairs, H × W pixels, P patches, T tokens, d_I and d_T widths of the towers, D width of the
shared space, K classes.
"""

import math
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForZeroShotImageClassification
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput, can_return_tuple, logging

from .calibration_lumbarclip import Origin, fields_of_other_weights
from .configuration_lumbarclip import LumbarCLIPConfig
from .explanation_lumbarclip import WithMaps
from .losses_lumbarclip import lumbarclip_loss
from .pipeline_lumbarclip import offer_pipelines
from .scope_lumbarclip import BITS_OF_NAN, SCOPE_PREFIX, ScopeStatistics, WithScope, build_statistics
from .towers_lumbarclip import (
    build_tower,
    check_text_pooling,
    count_batches_once,
    hidden_width,
    inner_tokens,
    keep_attention,
    load_tower,
    load_vision_tower,
    pooled_text,
    run_text_tower,
    run_tower,
    special_tokens,
    tower_name,
    tower_options,
)
from .vision_tower_lumbarclip import output_width, patch_features, pooled_image

if TYPE_CHECKING:
    # transformers reads the imports in this file, and copies the imported files next to the weights.
    from .modeling_lumbarclip_classification import LumbarCLIPForImageClassification  # noqa: F401
    from .modeling_lumbarclip_segmentation import LumbarCLIPForSemanticSegmentation  # noqa: F401

logger = logging.get_logger(__name__)


@dataclass
class LumbarCLIPOutput(ModelOutput):
    """Output of `LumbarCLIPModel`; a field is None if its input was not given.

    With a `text_index`, text fields but `text_features` and `text_model_output` have one row per pair. Given only
    images, the first field is `image_embeds`, given only texts `text_embeds`, as the feature pipelines need.

    Args:
        loss: Loss in nats, if requested. Scalar.
        logits_per_image: Similarities times the inverse temperature. Shape (B, U).
        logits_per_text: The same, transposed. Shape (U, B).
        text_embeds: Projected, unit-length z'_T. Shape (U, D).
        image_embeds: Projected, unit-length z'_I. Shape (B, D).
        augmented_text_embeds: The same as `text_embeds` for the rephrasings.
        image_features: Pooled output z_I of the vision tower. Shape (B, d_I).
        text_features: Pooled output z_T of the text tower. Shape (U, d_T).
        inverse_temperature: 1/τ as used. Scalar.
        patch_features: If requested, the vision tower's last layer at each patch, without class tokens. Shape
            (B, P, d_I); in a few convolutional towers (MobileNet) narrower than the pooled features.
        token_features: If requested, the text tower's last layer at each token. Shape (U, T, d_T).
        token_mask: True for the tokens of words, False for padding, [CLS] and [SEP]. Shape (U, T).
        text_model_output: The text tower's last layer, z_T as `pooler_output`, and if requested `hidden_states` and
            `attentions`.
        vision_model_output: The same of the vision tower, with z_I.
    """

    loss: Tensor | None = None
    logits_per_image: Tensor | None = None
    logits_per_text: Tensor | None = None
    text_embeds: Tensor | None = None
    image_embeds: Tensor | None = None
    augmented_text_embeds: Tensor | None = None
    image_features: Tensor | None = None
    text_features: Tensor | None = None
    inverse_temperature: Tensor | None = None
    patch_features: Tensor | None = None
    token_features: Tensor | None = None
    token_mask: Tensor | None = None
    text_model_output: BaseModelOutputWithPooling | None = None
    vision_model_output: BaseModelOutputWithPooling | None = None
    origin = Origin()  # no field: neither in the tuple nor among the keys

    def to_tuple(self) -> tuple[Any, ...]:
        """Turn the outputs of the towers into tuples, too."""
        return tuple(field.to_tuple() if isinstance(field, ModelOutput) else field for field in self.values())


class LumbarCLIPPreTrainedModel(WithScope, PreTrainedModel):
    """Configuration, initialisation and tower features that all LumbarCLIP models share."""

    config_class = LumbarCLIPConfig
    base_model_prefix = "lumbarclip"
    main_input_name = "input_ids"
    input_modalities = ["image", "text"]  # noqa: RUF012 - read by transformers
    _keys_to_ignore_on_load_unexpected = [rf"^{SCOPE_PREFIX}"]  # noqa: RUF012 - statistics of a scope that was removed
    supports_gradient_checkpointing = True
    # The loss is a mean over the batch: Trainer divides it by the accumulation steps.
    accepts_loss_kwargs = False
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    vision_model: PreTrainedModel

    def post_init(self) -> None:
        """Know what the towers can do, then initialise."""
        self.gradient_checkpointing = False
        self.supports_gradient_checkpointing = any(tower.supports_gradient_checkpointing for tower in self._towers())
        self._supports_flex_attn = all(tower._supports_flex_attn for tower in self._towers())
        self._supports_attention_backend = all(tower._supports_attention_backend for tower in self._towers())
        super().post_init()

    def _towers(self) -> list[PreTrainedModel]:
        return [module for module in self.children() if isinstance(module, PreTrainedModel)]

    def _set_gradient_checkpointing(self, enable: bool = True, *args: Any, **kwargs: Any) -> None:
        """Recompute activations in backward: in timm's towers too, which transformers' own method does not reach."""
        self.gradient_checkpointing = enable
        for tower in self._towers():
            if tower.supports_gradient_checkpointing:
                tower._set_gradient_checkpointing(enable, *args, **kwargs)
            elif enable:
                logger.warning(f"{tower_name(tower)} cannot recompute its activations: it keeps them for backward.")

    def enable_input_require_grads(self) -> None:
        """Give embeddings a gradient, which adapters need with checkpointing.

        The hook of transformers fails on a native Swin, whose embedding returns a tuple.
        """

        def require_gradient(module: nn.Module, inputs: Any, output: Any) -> None:
            (output[0] if isinstance(output, tuple) else output).requires_grad_(True)

        self._require_grads_hooks = []
        for tower in self._towers():
            with suppress(NotImplementedError):  # a ResNet of transformers
                if (embeddings := tower.get_input_embeddings()) is not None:
                    self._require_grads_hooks.append(embeddings.register_forward_hook(require_gradient))

    def _run_vision_tower(self, pixel_values: Tensor, options: dict[str, Any]) -> BaseModelOutputWithPooling:
        """Run the vision tower; `pooler_output` is z_I (B, d_I)."""
        if self.gradient_checkpointing and self.training:
            count_batches_once(self.vision_model)
        outputs = run_tower(self.vision_model, self.config, options, pixel_values=pixel_values.to(self.dtype))
        outputs.pooler_output = pooled_image(self.vision_model, outputs)
        return outputs

    def save_pretrained(  # type: ignore[override]  # transformers names each argument
        self,
        save_directory: str | os.PathLike[str],
        is_main_process: bool = True,
        state_dict: dict[str, Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        """Save as transformers does, without a calibration or a scope that was fitted on other weights.

        Whoever may read the configuration may read the weights.
        """
        kept = {name: getattr(self.config, name) for name in fields_of_other_weights(self, state_dict)}
        if self.scope_problem() is not None:
            kept["scope"] = self.config.scope
        try:
            for name in kept:
                logger.warning(f"{name} was fitted on other weights and is not saved: fit it again on the saved model.")
                setattr(self.config, name, None)
            super().save_pretrained(save_directory, is_main_process, state_dict, **kwargs)
            # safetensors lets only the owner read its files, whatever the umask.
            for settings in [*Path(save_directory).glob("*config.json")][:1]:
                for weights in Path(save_directory).glob("*model*.safetensors"):
                    weights.chmod(settings.stat().st_mode & 0o777)
        finally:
            for name, value in kept.items():
                setattr(self.config, name, value)

    @property
    def inverse_temperature(self) -> Tensor:
        """1/τ, at most `config.max_inverse_temperature`. Scalar, float32."""
        log_inverse = cast(Tensor, self.log_inverse_temperature).float()
        excess = (log_inverse - math.log(self.config.max_inverse_temperature)).clamp(min=0)
        # Clamped in value but not in gradient: with a plain clamp, a temperature beyond the limit could not return.
        return (log_inverse - excess.detach()).exp()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # The towers initialise themselves.
        if isinstance(module, nn.Linear):
            init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, ScopeStatistics):
            for buffer in module.buffers():
                init.constant_(buffer, BITS_OF_NAN)
        elif isinstance(module, LumbarCLIPPreTrainedModel) and hasattr(module, "log_inverse_temperature"):
            init.constant_(cast(Tensor, module.log_inverse_temperature), -math.log(self.config.initial_temperature))


class LumbarCLIPModel(WithMaps, LumbarCLIPPreTrainedModel):
    r"""Images and reports of the lumbar spine in one embedding space.

    Weights are random, but those of towers that are given; `from_vision_text_pretrained` loads pretrained ones.

    Raises:
        ValueError: If timm does not know the vision architecture, or the configuration is that of another head.

    Source:
        LumbarCLIP, arXiv 2509.20813, section 3.3.

    Example:
        >>> vision = {"model_type": "timm_wrapper", "architecture": "resnet10t"}
        >>> text = {"model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        >>> model = LumbarCLIPModel(LumbarCLIPConfig(vision_config=vision, text_config=text, projection_dim=16))
        >>> model.get_image_features(torch.zeros(2, 3, 64, 64)).pooler_output.shape
        torch.Size([2, 16])
        >>> model.get_image_features(torch.zeros(2, 3, 64, 64), project=False).pooler_output.shape
        torch.Size([2, 512])
    """

    def __init__(
        self,
        config: LumbarCLIPConfig,
        vision_model: PreTrainedModel | None = None,
        text_model: PreTrainedModel | None = None,
    ) -> None:
        super().__init__(config)
        config.check_has_projections()
        self.vision_model = build_tower(config.vision_config) if vision_model is None else vision_model
        self.text_model = build_tower(config.text_config) if text_model is None else text_model
        for tower in self._towers():
            keep_attention(tower)
        check_text_pooling(self.text_model, config.text_pooling)
        vision_width, text_width = output_width(self.vision_model), hidden_width(self.text_model)
        if config.projection == "none" and vision_width != text_width:
            logger.warning(
                f"projection='none' with towers of width {vision_width} and {text_width}: the wider output is "
                f"average-pooled to {min(vision_width, text_width)}."
            )
        self.image_projection = projection_head(config, vision_width, min(vision_width, text_width))
        self.text_projection = projection_head(config, text_width, min(vision_width, text_width))
        # The logarithm, so that a step changes 1/τ by a factor and never its sign.
        self.log_inverse_temperature = nn.Parameter(torch.tensor(-math.log(config.initial_temperature)))
        self.scope = build_statistics(config, vision_width)
        self.post_init()

    @property
    def logit_scale(self) -> nn.Parameter:
        """`log_inverse_temperature`, by the name that CLIP gives it: log(1/τ), without the limit. Scalar."""
        return self.log_inverse_temperature

    def get_input_embeddings(self) -> nn.Module:
        """Return the embedding of the tokens."""
        return self.text_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the embedding of the tokens."""
        self.text_model.set_input_embeddings(value)

    @can_return_tuple
    def get_image_features(
        self, pixel_values: Tensor, project: bool = True, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """Embed images as unit-length z'_I.

        Args:
            pixel_values: Shape (B, 3, H, W).
            project: False: return the pooled output z_I of the tower, for downstream tasks.
            **kwargs: As in `forward`.

        Returns:
            `BaseModelOutputWithPooling` with z'_I as `pooler_output`, (B, D), or z_I, (B, d_I).
        """
        (options,) = tower_options(self.get_image_features, kwargs, self.vision_model)
        outputs = self._run_vision_tower(pixel_values, options)
        if project:
            outputs.pooler_output = F.normalize(self.image_projection(outputs.pooler_output), dim=-1)
        return outputs

    @can_return_tuple
    def get_text_features(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, project: bool = True, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """Embed texts as unit-length z'_T.

        Args:
            input_ids: Shape (U, T).
            attention_mask: 1 for tokens, 0 for padding. Shape (U, T); None: no padding.
            project: False: return the pooled output z_T of the tower.
            **kwargs: As in `forward`.

        Returns:
            `BaseModelOutputWithPooling` with z'_T as `pooler_output`, (U, D), or z_T, (U, d_T).
        """
        (options,) = tower_options(self.get_text_features, kwargs, self.text_model)
        outputs = self._run_text_tower(input_ids, attention_mask, options)
        if project:
            outputs.pooler_output = F.normalize(self.text_projection(outputs.pooler_output), dim=-1)
        return outputs

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        return_loss: bool | None = None,
        classes: Tensor | None = None,
        augmented_input_ids: Tensor | None = None,
        augmented_attention_mask: Tensor | None = None,
        text_index: Tensor | None = None,
        augmented_text_index: Tensor | None = None,
        return_logits: bool | None = None,
        output_local_features: bool = False,
        **kwargs: Any,
    ) -> LumbarCLIPOutput:
        """Embed images, texts, or both; compare them, and compute the loss if requested.

        Args:
            input_ids: Reports. Shape (U, T). None: images only.
            pixel_values: Images. Shape (B, 3, H, W). None: texts only.
            attention_mask: 1 for tokens, 0 for padding. Shape (U, T).
            position_ids: Positions of the tokens. Shape (U, T). None: the text tower counts them.
            return_loss: Whether to compute `lumbarclip_loss` with α = 0.5 on these pairs; None: if classes are given.
                For another α or label temperature, or gathered embeddings, call that function.
            classes: Multi-hot classes of the pairs, for the soft targets. Shape (N, K). None: a pair matches only
                itself.
            augmented_input_ids: Rephrased reports. Shape (U', T').
            augmented_attention_mask: Their mask. Shape (U', T').
            text_index: Row of `input_ids` with the report of each image, so that a shared report is encoded once.
                Shape (N,), integer. None: row i belongs to image i.
            augmented_text_index: The same for the rephrasings.
            return_logits: Whether to compare all images with all texts; None: yes. In training with large batches this
                N × N matrix would be the largest tensor, and the loss works without it.
            output_local_features: Whether to return the features of each patch and token too.
            **kwargs: `output_hidden_states` and `output_attentions` of both towers (of one: `get_image_features`,
                `get_text_features`); `return_dict`; more inputs of a tower, such as `token_type_ids` of the reports
                and `interpolate_pos_encoding`.

        Returns:
            `LumbarCLIPOutput`; its values as a tuple with `return_dict=False`.

        Raises:
            TypeError: If an input is unknown, or images come first without their name.
            ValueError: If there are neither images nor texts, a loss is requested without pairs, or a tower does not
                return the hidden states or attentions that are requested.
        """
        if position_ids is not None:
            kwargs["position_ids"] = position_ids
        vision_options, text_options = tower_options(self.forward, kwargs, self.vision_model, self.text_model)
        if pixel_values is None and input_ids is None:
            raise ValueError("LumbarCLIPModel needs pixel_values, input_ids, or both; got neither.")
        if input_ids is not None and input_ids.is_floating_point():
            raise TypeError("The first input is input_ids, whole numbers; pass images by name: pixel_values=images.")
        outputs: dict[str, Any] = {}
        if pixel_values is not None:
            vision = self._run_vision_tower(pixel_values, vision_options)
            outputs |= self._image_outputs(vision, output_local_features)
        if input_ids is not None:
            text = self._run_text_tower(input_ids, attention_mask, text_options)
            words = None
            if output_local_features:
                words = inner_tokens(_mask(input_ids, attention_mask), input_ids, special_tokens(self.text_model))
            outputs |= self._text_outputs(text, text_index, words)
        augmented = None
        if augmented_input_ids is not None:
            augmented = self._embed_texts(augmented_input_ids, augmented_attention_mask)
            augmented = augmented if augmented_text_index is None else augmented[augmented_text_index]

        inverse_temperature = self.inverse_temperature
        paired = pixel_values is not None and input_ids is not None
        loss = None
        if return_loss or (return_loss is None and classes is not None):
            if not paired:
                raise ValueError("A loss compares images with texts: give pixel_values and input_ids.")
            image_embeds, text_embeds = outputs["image_embeds"], outputs["text_embeds"]
            loss = lumbarclip_loss(image_embeds, text_embeds, augmented, inverse_temperature, classes)
        logits = None
        if paired and return_logits is not False:
            logits = inverse_temperature * outputs["image_embeds"].float() @ outputs["text_embeds"].float().T
        output = LumbarCLIPOutput(
            loss=loss,
            logits_per_image=logits,
            logits_per_text=None if logits is None else logits.T,
            augmented_text_embeds=augmented,
            inverse_temperature=inverse_temperature,
            **outputs,
        )
        output.origin = Origin(self)
        return output

    def _image_outputs(self, vision: BaseModelOutputWithPooling, output_local_features: bool) -> dict[str, Any]:
        features, hidden = cast(Tensor, vision.pooler_output), cast(Tensor, vision.last_hidden_state)
        embeds = F.normalize(self.image_projection(features), dim=-1)
        outputs = {"image_features": features, "image_embeds": embeds, "vision_model_output": vision}
        if output_local_features:
            outputs["patch_features"] = patch_features(self.vision_model, hidden)
        return outputs

    def _text_outputs(
        self, text: BaseModelOutputWithPooling, text_index: Tensor | None, words: Tensor | None
    ) -> dict[str, Any]:
        features, hidden = cast(Tensor, text.pooler_output), cast(Tensor, text.last_hidden_state)
        by_pair = {"text_embeds": F.normalize(self.text_projection(features), dim=-1)}
        if words is not None:
            by_pair |= {"token_features": hidden, "token_mask": words}
        if text_index is not None:
            by_pair = {name: of_text[text_index] for name, of_text in by_pair.items()}
        return {"text_features": features, "text_model_output": text, **by_pair}

    def _run_text_tower(
        self, input_ids: Tensor, attention_mask: Tensor | None, options: dict[str, Any]
    ) -> BaseModelOutputWithPooling:
        """Run the text tower; `pooler_output` is z_T (U, d_T)."""
        mask = _mask(input_ids, attention_mask)
        outputs = run_text_tower(self.text_model, self.config, options, input_ids, mask)
        outputs.pooler_output = pooled_text(cast(Tensor, outputs.last_hidden_state), mask, self.config.text_pooling)
        return outputs

    def _embed_texts(self, input_ids: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Tensor:
        """Embed texts as unit-length z'_T (U, D)."""
        return self.get_text_features(input_ids, attention_mask, **options, return_dict=True).pooler_output

    @classmethod
    def from_vision_text_pretrained(
        cls,
        vision: str | Path,
        text: str | Path,
        *,
        vision_model_args: dict[str, Any] | None = None,
        **config_kwargs: Any,
    ) -> "LumbarCLIPModel":
        """Join two pretrained towers with new projection heads.

        Args:
            vision: Hub id (`timm/resnet50.a1_in1k`, `microsoft/swin-tiny-patch4-window7-224`), folder, or name of a
                pretrained timm model (`resnet50`).
            text: Hub id (`emilyalsentzer/Bio_ClinicalBERT`) or folder of a text encoder.
            vision_model_args: For timm: arguments of `timm.create_model`, such as `{"img_size": 128}`.
            **config_kwargs: Fields of `LumbarCLIPConfig`, such as `projection_dim`.

        Returns:
            The model, on the CPU, in evaluation mode.

        Raises:
            ValueError: If neither transformers nor timm knows the tower.
        """
        vision_tower = load_vision_tower(str(vision), vision_model_args)
        text_tower = load_tower(str(text))
        config = LumbarCLIPConfig(vision_config=vision_tower.config, text_config=text_tower.config, **config_kwargs)
        return cls(config, vision_tower, text_tower).eval()


def _mask(input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    return torch.ones_like(input_ids) if attention_mask is None else attention_mask


class _PoolToWidth(nn.Module):
    """Average neighbouring features down to `width` of them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, features: Tensor) -> Tensor:
        return F.adaptive_avg_pool1d(features[:, None], self.width)[:, 0]


def projection_head(config: LumbarCLIPConfig, width: int, narrower_width: int) -> nn.Module:
    if config.projection == "none":
        return _PoolToWidth(narrower_width)
    linear = nn.Linear(width, config.projection_dim)
    if config.projection == "linear":
        return linear
    return nn.Sequential(linear, nn.ReLU(), nn.Linear(config.projection_dim, config.projection_dim))


offer_pipelines()
LumbarCLIPModel.register_for_auto_class("AutoModel")
# Only in the package: if a checkpoint's copy registered, the next checkpoint would run its code.
if not __name__.startswith("transformers_modules."):
    AutoModel.register(LumbarCLIPConfig, LumbarCLIPModel)
    AutoModelForZeroShotImageClassification.register(LumbarCLIPConfig, LumbarCLIPModel)

__all__ = ["LumbarCLIPModel", "LumbarCLIPOutput", "LumbarCLIPPreTrainedModel"]
