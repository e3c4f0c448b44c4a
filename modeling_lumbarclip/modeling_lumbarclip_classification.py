"""LumbarCLIP for image classification: the vision tower and a linear head, without the text tower.

Shapes: B images, H × W pixels, d_I width of the vision tower, D width of the shared space, K classes.
"""

from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageClassification
from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput
from transformers.utils import can_return_tuple, logging

from .calibration_lumbarclip import calibration_problem
from .configuration_lumbarclip import LumbarCLIPConfig
from .modeling_lumbarclip import LumbarCLIPPreTrainedModel
from .scope_lumbarclip import build_statistics
from .towers_lumbarclip import build_tower, tower_options
from .vision_tower_lumbarclip import output_width

logger = logging.get_logger(__name__)


class LumbarCLIPClassifierOutput(ImageClassifierOutput):
    """Output of transformers' classifiers, with the pooled features z_I (B, d_I) beside its fields.

    `transformers.Trainer` takes every field but the loss for predictions.
    """

    image_features: Tensor | None = None


class LumbarCLIPForImageClassification(LumbarCLIPPreTrainedModel):
    r"""A linear head on the pooled output z_I of the vision tower.

    `config.problem_type` is `single_label_classification` (exclusive classes, softmax; also ordinal grades, in order)
    or `multi_label_classification` (findings, a sigmoid each). `config.id2label` names the classes. Loading a
    pretrained checkpoint keeps the tower and makes a new head, which transformers reports.

    Source:
        The head of the paper's probe, LumbarCLIP, arXiv 2509.20813, section 4.2.

    Example:
        >>> import torch
        >>> vision = {"model_type": "timm_wrapper", "architecture": "resnet10t"}
        >>> config = LumbarCLIPConfig(vision_config=vision, id2label={0: "LBP", 1: "No Finding"})
        >>> LumbarCLIPForImageClassification(config).eval()(torch.zeros(3, 3, 64, 64)).logits.shape
        torch.Size([3, 2])
    """

    main_input_name = "pixel_values"
    input_modalities = ["image"]  # noqa: RUF012 - read by transformers
    # Parts of a pretrained checkpoint that classification does not use.
    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012 - read by transformers
        r"^text_model\.",
        r"^(image|text)_projection\.",
        r"^log_inverse_temperature$",
        *LumbarCLIPPreTrainedModel._keys_to_ignore_on_load_unexpected,
    ]

    def __init__(self, config: LumbarCLIPConfig) -> None:
        super().__init__(config)
        self.vision_model = build_tower(config.vision_config)
        width = output_width(self.vision_model)
        self.classifier = nn.Linear(width, cast(int, config.num_labels))
        self.scope = build_statistics(config, width)
        self._are_calibrated = False
        self.post_init()

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

    def get_input_embeddings(self) -> nn.Module:
        """Return the embedding of the patches; None in a tower of timm."""
        return self.vision_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the embedding of the patches."""
        self.vision_model.set_input_embeddings(value)

    @can_return_tuple
    def get_image_features(self, pixel_values: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Return the tower's outputs, with z_I as `pooler_output` (B, d_I), for images (B, 3, H, W)."""
        (options,) = tower_options(self.get_image_features, kwargs, self.vision_model)
        return self._run_vision_tower(pixel_values, options)

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
        vision = self._run_vision_tower(pixel_values, options)
        logits = self.classifier(vision.pooler_output)
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


LumbarCLIPForImageClassification.register_for_auto_class("AutoModelForImageClassification")
# Only in the package: if a checkpoint's copy registered, the next checkpoint would run its code.
if not __name__.startswith("transformers_modules."):
    AutoModelForImageClassification.register(LumbarCLIPConfig, LumbarCLIPForImageClassification)

__all__ = ["LumbarCLIPForImageClassification"]
