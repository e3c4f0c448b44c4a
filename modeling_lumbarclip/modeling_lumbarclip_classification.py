"""LumbarCLIP for image classification: the vision tower and a linear head.

The head reads the image's features alone or, fused with them, the texts of the classes that the image resembles. The
features are those of the tower or, from a segmentation model, also what its decoder finds in each class of its masks.

Shapes: B images, H × W pixels, d_I width of the vision tower, D width of the shared space, K classes, P classes of the
masks but the background, C channels of the decoder's last features.
"""

import math
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForImageClassification
from transformers import initialization as init
from transformers.modeling_outputs import ImageClassifierOutput
from transformers.utils import can_return_tuple, logging

from .calibration_lumbarclip import calibration_problem
from .configuration_lumbarclip import LumbarCLIPConfig
from .modeling_lumbarclip import projection_head
from .modeling_lumbarclip_segmentation import LumbarCLIPImageModel
from .scope_lumbarclip import build_statistics
from .towers_lumbarclip import build_tower, tower_options
from .vision_tower_lumbarclip import output_width

logger = logging.get_logger(__name__)

SMALLEST_SHARE = 1e-4  # of an image, that a class counts as at least: a logarithm needs one


class LumbarCLIPClassifierOutput(ImageClassifierOutput):
    """Output of transformers' classifiers, with the pooled features z_I (B, d_I) beside its fields.

    `transformers.Trainer` takes every field but the loss for predictions.
    """

    image_features: Tensor | None = None


class LumbarCLIPForImageClassification(LumbarCLIPImageModel):
    r"""A linear head on the pooled output z_I of the vision tower, or on z_I beside the texts that it resembles.

    With `config.mask_classes`, the model keeps the decoder of a segmentation model, and the text tower if that reads
    prompts: `features_in_classes` stand beside z_I, in what follows as in the head. Such a head grades the severity of
    a stenosis by what was segmented.

    With `config.class_text_width`, the head reads image and text, $[z_I; \mathrm{softmax}(z'_I C^T / \tau) C]$, where
    the rows of C (`class_embeds`, K × D) embed the texts of the classes. They are saved with the weights and need no
    text tower; `set_class_embeds` stores them. Loading a pretrained checkpoint keeps its projection and temperature; a
    segmentation model has none.

    `config.problem_type` is `single_label_classification` (exclusive classes, softmax; also ordinal grades, in order)
    or `multi_label_classification` (findings, a sigmoid each). `config.id2label` names the classes. Loading a
    pretrained checkpoint keeps the tower and makes a new head, which transformers reports.

    Source:
        The head of the paper's probe, LumbarCLIP, arXiv 2509.20813, section 4.2. CLIP-KOA, arXiv 2504.19443, fuses
        features of image and text; that the text is the mean of the classes' texts by similarity is ours. Severity
        grades A to D by image and text: arXiv 2604.02502, which does not say how its models read the masks, nor what
        their heads are; all of it is ours.

    Example:
        >>> import torch
        >>> vision = {"model_type": "timm_wrapper", "architecture": "resnet10t"}
        >>> config = LumbarCLIPConfig(vision_config=vision, id2label={0: "LBP", 1: "No Finding"})
        >>> LumbarCLIPForImageClassification(config).eval()(torch.zeros(3, 3, 64, 64)).logits.shape
        torch.Size([3, 2])
    """

    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012 - read by transformers
        r"^decoder\.",  # of a segmentation model, whose tower alone is used
        *LumbarCLIPImageModel._keys_to_ignore_on_load_unexpected,
    ]
    class_embeds: Tensor

    def __init__(self, config: LumbarCLIPConfig) -> None:
        super().__init__(config)
        self.vision_model = build_tower(config.vision_config)
        of_tower = width = output_width(self.vision_model)
        if config.mask_classes:
            self._build_decoder(config.mask_classes)
            width += (config.mask_classes - 1) * (self.decoder.head.in_channels + 1)
        num_classes, text_width = cast(int, config.num_labels), config.class_text_width
        self.classifier = nn.Linear(width + text_width, num_classes)
        if text_width:
            self.image_projection = projection_head(config, width, text_width)
            self.log_inverse_temperature = nn.Parameter(torch.tensor(-math.log(config.initial_temperature)))
            self.register_buffer("class_embeds", torch.zeros(num_classes, text_width))
        self.scope = build_statistics(config, of_tower)
        self._are_calibrated = False
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self and self.config.class_text_width:
            init.zeros_(self.class_embeds)

    @torch.no_grad()
    def set_class_embeds(self, class_embeds: Tensor) -> None:
        """Store the embeddings of the classes' texts, (K, D); lengths do not matter.

        Raises:
            ValueError: If the head reads no text, the shape does not fit, or an embedding is zero or not finite.
        """
        if not self.config.class_text_width:
            raise ValueError("The head reads the image alone; set class_text_width in the configuration.")
        expected = tuple(self.class_embeds.shape)
        if tuple(class_embeds.shape) != expected:
            raise ValueError(f"class_embeds must be {expected}, one row a class; got {tuple(class_embeds.shape)}.")
        lengths = class_embeds.float().norm(dim=1)
        if not (torch.isfinite(lengths) & (lengths > 0)).all():
            raise ValueError("class_embeds has a row that is zero or not finite; the text tower may be broken.")
        self.class_embeds.copy_(F.normalize(class_embeds, dim=1))

    def _with_text(self, features: Tensor) -> Tensor:
        """Put the texts that images resemble beside their features (B, d). Shape (B, d + D)."""
        if not self.config.class_text_width:
            return features
        embeds = F.normalize(self.image_projection(features), dim=-1)
        similarities = self.inverse_temperature * (embeds @ self.class_embeds.T)
        return torch.cat([features, similarities.softmax(dim=-1).to(features) @ self.class_embeds.to(features)], dim=-1)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; in evaluation, logits are calibrated if `config.class_temperatures` fit these weights."""
        super().train(mode)
        self._check_temperatures()
        return self

    def _check_temperatures(self) -> None:
        problem = None
        if self.config.class_temperatures is not None and not self.training:
            problem = calibration_problem(self)
            if problem is not None:
                logger.warning_once(f"The logits are not calibrated. {problem}")
        self._are_calibrated = self.config.class_temperatures is not None and not self.training and problem is None

    @can_return_tuple
    def forward(self, pixel_values: Tensor, labels: Tensor | None = None, **kwargs: Any) -> LumbarCLIPClassifierOutput:
        """Classify images, and compute transformers' loss if labels are given.

        Args:
            pixel_values: Shape (B, 3, H, W).
            labels: Exclusive classes, (B,), integer, or multi-hot findings, (B, K), float.
            **kwargs: `output_hidden_states`, `output_attentions`, `return_dict`; more inputs of the tower, such as
                `interpolate_pos_encoding`.

        Returns:
            `LumbarCLIPClassifierOutput`; its values as a tuple with `return_dict=False`. Logits (B, K) are calibrated
            in evaluation mode, if the configuration has temperatures that were fitted on these weights.

        Raises:
            TypeError: If an input is unknown.
            ValueError: If the tower does not return the hidden states or attentions that are requested.
        """
        (options,) = tower_options(self.forward, kwargs, self.vision_model)
        if self.config.mask_classes:
            vision, maps, decoded = self._segment(pixel_values, options, *self._read_prompts(None, None, {}))
            in_classes = features_in_classes(decoded, maps)
            features = torch.cat([cast(Tensor, vision.pooler_output), in_classes], dim=1)
        else:
            vision = self._run_vision_tower(pixel_values, options)
            features = cast(Tensor, vision.pooler_output)
        logits = self.classifier(self._with_text(features))
        if not (torch.compiler.is_compiling() or torch.jit.is_tracing()):  # a graph keeps what it was traced with
            self._check_temperatures()
        if self._are_calibrated:
            logits = logits / logits.new_tensor(self.config.class_temperatures)
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        output = LumbarCLIPClassifierOutput(
            loss=loss, logits=logits, hidden_states=vision.hidden_states, attentions=vision.attentions
        )
        output.image_features = vision.pooler_output
        return output


def features_in_classes(features: Tensor, logits: Tensor) -> Tensor:
    """Average the features of a decoder inside each class, and measure how much of the image the class takes.

    The average is weighted by the probability of the class, so that the tower and the decoder learn through both.

    Args:
        features: Of the decoder, for all classes together or for each. Shape (B, C, H, W) or (B · P, C, H, W).
        logits: Of the masks, the background first. Shape (B, 1 + P, H, W).

    Returns:
        Of each class C averages, then the natural logarithms of the shares of the image, at least 1e-4. Shape
        (B, P · (C + 1)), in the type of the features.

    Example:
        >>> logits = torch.tensor([[0.0, 0.0], [99.0, -99.0]]).view(1, 2, 1, 2)  # the class takes half of the image
        >>> features_in_classes(torch.tensor([[3.0, 5.0]]).view(1, 1, 1, 2), logits)
        tensor([[ 3.0000, -0.6931]])
    """
    probabilities = logits.float().softmax(dim=1)[:, 1:].flatten(2)  # (B, P, H · W)
    shares = probabilities.mean(dim=2)
    # (B, P or 1, C, H · W)
    of_classes = features.float().reshape(len(logits), -1, features.shape[1], probabilities.shape[2])
    sums = (of_classes * probabilities[:, :, None]).mean(dim=3)
    averages = sums / shares.clamp(min=SMALLEST_SHARE)[..., None]
    return torch.cat([averages.flatten(1), shares.clamp(min=SMALLEST_SHARE).log()], dim=1).to(features)


LumbarCLIPForImageClassification.register_for_auto_class("AutoModelForImageClassification")
# Only in the package: if a checkpoint's copy registered, the next checkpoint would run its code.
if not __name__.startswith("transformers_modules."):
    AutoModelForImageClassification.register(LumbarCLIPConfig, LumbarCLIPForImageClassification)

__all__ = ["LumbarCLIPForImageClassification"]
