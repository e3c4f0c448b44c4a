"""Configuration of LumbarCLIP: what fixes the architecture and the meaning of the weights."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig

PROJECTIONS = ("none", "linear", "nonlinear")
TEXT_POOLINGS = ("cls", "mean")
ZERO_SHOT_AUTO_CLASS = "AutoModelForZeroShotImageClassification"


@strict
class LumbarCLIPConfig(PreTrainedConfig):
    r"""Two towers, two projection heads and a temperature.

    Args:
        vision_config: Configuration of the vision tower, or a dict with its `model_type`. Any vision model of
            transformers, or any of timm: `{"model_type": "timm_wrapper", "architecture": "resnet50"}`, with
            `"model_args": {"img_size": 128}` for transformers whose size is fixed. None: timm's ResNet-50.
        text_config: Configuration of the text encoder, or a dict with its `model_type`. None: BERT-base, the shape
            of BioClinicalBERT.
        projection: Heads on the pooled outputs: `none`, `linear`, or `nonlinear` (linear, ReLU, linear). With `none`
            and towers of different widths, the wider output is average-pooled to the narrower; the paper does not
            say what it does there.
        projection_dim: Width of the shared space. Not used by `none`.
        text_pooling: `cls` takes the first token's last hidden state, `mean` the mean over the tokens.
        initial_temperature: Temperature τ at which training starts, > 0. CLIP's 0.07; the paper gives none.
        learn_temperature: Whether τ is learned. The paper does not say.
        max_inverse_temperature: Largest 1/τ that is used, so that the logits cannot run away.
        label_temperature: Temperature of the soft targets, > 0; None uses τ itself, without a gradient.
        alpha: Weight of the loss on the reports; 1 - alpha weighs the loss on their rephrasings. In [0, 1].

    Raises:
        StrictDataclassClassValidationError: If a value makes no sense; the message names it and the way out.

    Source:
        LumbarCLIP, arXiv 2509.20813, sections 3.3 and 3.4.

    Example:
        >>> config = LumbarCLIPConfig(projection="linear", projection_dim=256)
        >>> config.vision_config.architecture, config.text_config.hidden_size
        ('resnet50', 768)
    """

    model_type = "lumbarclip"
    sub_configs = {"vision_config": AutoConfig, "text_config": AutoConfig}  # noqa: RUF012 - read by transformers

    vision_config: Any = None  # given as a dict, a configuration or None; a configuration from then on
    text_config: Any = None
    projection: str = "linear"
    projection_dim: int = 256
    text_pooling: str = "cls"
    initial_temperature: float | int = 0.07
    learn_temperature: bool = True
    max_inverse_temperature: float | int = 100.0
    label_temperature: float | int | None = None
    alpha: float | int = 0.5

    def __post_init__(self, **kwargs: Any) -> None:
        """Turn the dicts of a saved configuration into configurations."""
        self.vision_config = _tower_config(self.vision_config, "vision_config", {"model_type": "timm_wrapper"})
        self.text_config = _tower_config(self.text_config, "text_config", {"model_type": "bert"})
        super().__post_init__(**kwargs)
        # `register_for_auto_class` keeps one Auto class for each of ours; this is the second one of the model.
        self.auto_map = {ZERO_SHOT_AUTO_CLASS: "modeling_lumbarclip.LumbarCLIPModel", **getattr(self, "auto_map", {})}

    def validate_heads(self) -> None:
        """Refuse a projection or pooling that does not exist."""
        if self.projection not in PROJECTIONS:
            raise ValueError(f"projection must be one of {', '.join(PROJECTIONS)}; got {self.projection!r}.")
        if self.text_pooling not in TEXT_POOLINGS:
            raise ValueError(f"text_pooling must be one of {', '.join(TEXT_POOLINGS)}; got {self.text_pooling!r}.")
        if self.projection_dim < 1:
            raise ValueError(
                f"projection_dim must be at least 1 (256, 512 and 1024 in the paper); got {self.projection_dim}. "
                "For no projection at all set projection='none'."
            )

    def validate_temperatures(self) -> None:
        """Refuse temperatures that are not positive or that contradict each other."""
        if not self.initial_temperature > 0:
            raise ValueError(f"initial_temperature must be positive, such as 0.07; got {self.initial_temperature}.")
        if self.label_temperature is not None and not self.label_temperature > 0:
            raise ValueError(
                f"label_temperature must be positive, or None to use the learned temperature; "
                f"got {self.label_temperature}."
            )
        if not 1 / self.initial_temperature <= self.max_inverse_temperature:
            raise ValueError(
                f"initial_temperature {self.initial_temperature} starts at an inverse of "
                f"{1 / self.initial_temperature:.4g}, above max_inverse_temperature {self.max_inverse_temperature}: "
                "raise one of the two."
            )
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha weighs reports against rephrasings and lies in [0, 1]; got {self.alpha}.")

    def validate_text_tower(self) -> None:
        """Refuse a text tower with a decoder."""
        if self.text_config.is_encoder_decoder:
            raise ValueError(
                f"text_config {self.text_config.model_type!r} is an encoder-decoder; LumbarCLIP needs a text encoder "
                "such as bert, roberta or distilbert."
            )


def _tower_config(
    tower: dict[str, Any] | PreTrainedConfig | None, name: str, default: dict[str, Any]
) -> PreTrainedConfig:
    if isinstance(tower, PreTrainedConfig):
        return tower
    arguments = dict(default if tower is None else tower)
    model_type = arguments.pop("model_type", None)
    if model_type is None:
        raise ValueError(
            f"{name} needs a 'model_type', such as 'timm_wrapper', 'vit' or 'bert'; got the keys {sorted(arguments)}."
        )
    return AutoConfig.for_model(model_type, **arguments)


LumbarCLIPConfig.register_for_auto_class()
# The package alone: if a checkpoint's copy of this file did so, the next checkpoint would run its code.
if not __name__.startswith("transformers_modules."):
    AutoConfig.register("lumbarclip", LumbarCLIPConfig)

__all__ = ["LumbarCLIPConfig"]
