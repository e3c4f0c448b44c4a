"""Configuration of LumbarCLIP: the architecture and the meaning of the weights."""

import math
import os
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec

PROJECTIONS = ("none", "linear", "nonlinear")
TEXT_POOLINGS = ("cls", "mean", "last")
CROSS_ATTENTIONS = ("patch", "none")
CLASSIFIER = "LumbarCLIPForImageClassification"
SEGMENTER = "LumbarCLIPForSemanticSegmentation"
# `register_for_auto_class` keeps one Auto class for each of ours; these are the others.
AUTO_MAP = {
    "AutoModelForZeroShotImageClassification": "modeling_lumbarclip.LumbarCLIPModel",
    "AutoModelForImageClassification": f"modeling_lumbarclip_classification.{CLASSIFIER}",
    "AutoModelForSemanticSegmentation": f"modeling_lumbarclip_segmentation.{SEGMENTER}",
}
# By task: our pipeline and the Auto class of its model. transformers' own pipelines would turn a 16-bit slice white,
# use prompts for photographs, and not truncate long reports.
PIPELINES = {
    "zero-shot-image-classification": ("LumbarCLIPZeroShotPipeline", "AutoModelForZeroShotImageClassification"),
    "image-feature-extraction": ("LumbarCLIPImageFeaturePipeline", "AutoModel"),
    "feature-extraction": ("LumbarCLIPTextFeaturePipeline", "AutoModel"),
    "image-classification": ("LumbarCLIPImageClassificationPipeline", "AutoModelForImageClassification"),
    "image-segmentation": ("LumbarCLIPSegmentationPipeline", "AutoModelForSemanticSegmentation"),
}

# Settings that make transformers run code or read files outside the checkpoint; then arguments of timm that do.
NOT_OF_A_TOWER = ("auto_map", "quantization_config", "transformers_weights", "attn_implementation")
NOT_OF_TIMM = {"pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}


@dataclass(frozen=True)
class CalibratedQuestion:
    """A zero-shot question and its calibration.

    Args:
        label: The finding, with the choices absent and present; None where the choices are exclusive classes.
        choices: At least two.
        prompts: The sentences that state each choice.
        temperature: Divisor of the logits, > 0.
        score_thresholds: A prediction set contains a choice if 1 - probability is at most its threshold, in [0, 1].
    """

    label: str | None
    choices: list[str]
    prompts: list[list[str]]
    temperature: float
    score_thresholds: list[float]

    def __post_init__(self) -> None:
        """Check shapes and ranges."""
        if len(self.choices) < 2 or len(set(self.choices)) < len(self.choices):
            raise ValueError(f"A calibrated question needs at least two different choices; got {self.choices}.")
        for name in ("prompts", "score_thresholds"):
            if len(getattr(self, name)) != len(self.choices):
                raise ValueError(
                    f"A calibrated question with the choices {self.choices} needs one entry of {name} for each; got "
                    f"{getattr(self, name)}."
                )
        if not all(self.prompts):
            raise ValueError(f"Each of the choices {self.choices} needs at least one prompt; got {self.prompts}.")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"A calibrated temperature must be positive and finite; got {self.temperature}.")
        if not all(0 <= threshold <= 1 for threshold in self.score_thresholds):
            raise ValueError(f"score_thresholds must lie in [0, 1]; got {self.score_thresholds}.")


@dataclass(frozen=True)
class ZeroShotCalibration:
    """`LumbarCLIPConfig.calibration`, parsed.

    Args:
        questions: One for exclusive classes, else one per finding; all with the same number of choices.
        target_coverage: Share of rows whose prediction set should contain the truth, in (0, 1).
        fitted_on: `dataset`, `split`, `num_rows`, `num_patients`, `date`, the `reasons` why a question could not be
            fitted, and `weights`, the digests without which there are no answers: see
            `calibration_lumbarclip.weights_digests`.
    """

    questions: list[CalibratedQuestion]
    target_coverage: float
    fitted_on: dict[str, Any]

    def __post_init__(self) -> None:
        """Check shapes and ranges."""
        numbers = sorted({len(question.choices) for question in self.questions})
        if len(numbers) != 1:
            raise ValueError(f"A calibration needs questions, all with the same number of choices; got {numbers}.")
        if not 0 < self.target_coverage < 1:
            raise ValueError(f"target_coverage is a share between 0 and 1, such as 0.9; got {self.target_coverage}.")

    @classmethod
    def from_dict(cls, calibration: dict[str, Any] | None) -> "ZeroShotCalibration":
        """Parse the field of a configuration.

        Raises:
            ValueError: If it is None or incomplete.
        """
        if calibration is None:
            raise ValueError(
                "This checkpoint has no calibration. Fit one on validation patients with "
                "train.evaluation.checkpoint_calibration.fit_checkpoint_calibration, or use the raw logits."
            )
        try:
            questions = [CalibratedQuestion(**question) for question in calibration["questions"]]
            return cls(**{**calibration, "questions": questions})
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"The calibration has missing or unknown fields ({error}); it needs `questions`, `target_coverage` and "
                "`fitted_on`. Fit it again, or set it to None."
            ) from error


@dataclass(frozen=True, kw_only=True)
class FeatureCheck:
    """How far from the training images the features of an image may be.

    Args:
        threshold: Largest distance inside the scope, in the unit of `ScopeStatistics`, > 0.
        false_alarm_rate: Share of images of new patients like those of the training that are held back, in (0, 1):
            that share of `num_images` images of `num_patients` validation patients set the threshold.
        num_directions: Directions of the features with a variance of their own.
        num_images: At least one.
        num_patients: At least one.
    """

    threshold: float
    false_alarm_rate: float
    num_directions: int
    num_images: int
    num_patients: int

    def __post_init__(self) -> None:
        """Check types and ranges."""
        if not 0 < self.threshold < math.inf:
            raise ValueError(f"The threshold of a scope must be positive and finite; got {self.threshold}.")
        if not 0 < self.false_alarm_rate < 1:
            raise ValueError(f"false_alarm_rate is a share between 0 and 1, such as 0.05; got {self.false_alarm_rate}.")
        for name in ("num_directions", "num_images", "num_patients"):
            count = getattr(self, name)
            if type(count) is not int or not 0 <= count <= 2**31 or (count == 0 and name != "num_directions"):
                least = 0 if name == "num_directions" else 1
                raise ValueError(f"{name} of a scope is a count, at least {least}; got {count!r}.")


@dataclass(frozen=True, kw_only=True)
class Scope:
    """`LumbarCLIPConfig.scope`, parsed: what the checkpoint was trained on.

    Args:
        planes: Planes of the training images, such as `axial`; empty if unknown.
        sequences: Their MR sequences, such as `T2`, or `other`; empty if unknown.
        anatomy: What they show, such as `lumbar spine`; None if unknown.
        is_synthetic: Whether a program drew them; None if unknown.
        num_patients: Patients of the training split.
        check: Check of features; None if there is none.
        no_check: Why there is none; empty if there is one.
        weights: `module_digests` of the vision tower that was trained: it is not the scope of another. Empty if they
            were not recorded.
    """

    planes: list[str]
    sequences: list[str]
    anatomy: str | None
    is_synthetic: bool | None
    num_patients: int
    check: FeatureCheck | None = None
    no_check: str = ""
    weights: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Check types."""
        for name in ("planes", "sequences", "weights"):
            names = getattr(self, name)
            if not isinstance(names, list) or not all(isinstance(value, str) for value in names):
                raise ValueError(f"{name} of a scope is a list of names, such as ['axial']; got {names!r}.")
        if not isinstance(self.anatomy, str | None):
            raise ValueError(f"anatomy of a scope is a name, such as 'lumbar spine', or None; got {self.anatomy!r}.")
        if type(self.num_patients) is not int or self.num_patients < 0:
            raise ValueError(f"num_patients of a scope is a count; got {self.num_patients!r}.")
        if not isinstance(self.is_synthetic, bool | None):
            raise ValueError(f"is_synthetic of a scope is true, false or null; got {self.is_synthetic!r}.")

    @classmethod
    def from_dict(cls, scope: dict[str, Any]) -> "Scope":
        """Parse the field of a configuration; raise a ValueError if it is incomplete."""
        try:
            check = scope["check"]
            return cls(**{**scope, "check": None if check is None else FeatureCheck(**check)})
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"The scope has missing or unknown fields ({error}). Set it to None, or train the checkpoint again."
            ) from error


@strict
class LumbarCLIPConfig(PreTrainedConfig):
    r"""Two towers, two projection heads and a temperature.

    Args:
        vision_config: Configuration of the vision tower, or a dict with its `model_type`. Any vision model of
            transformers, or any of timm: `{"model_type": "timm_wrapper", "architecture": "resnet50"}`, with
            `"model_args": {"img_size": 128}` for vision transformers of fixed size. Without a `model_type`, one of
            timm. None: timm's ResNet-50.
        text_config: Configuration of the text encoder, or a dict with its `model_type`. Without it, a BERT. None:
            BERT-base, the shape of BioClinicalBERT.
        projection: Heads on the pooled outputs: `none`, `linear`, or `nonlinear` (linear, ReLU, linear). With `none`
            and towers of different widths, the wider output is average-pooled to the narrower; the paper does not
            say what it does there.
        projection_dim: Width of the shared space. Not used by `none`.
        text_pooling: `cls` takes the first token's last hidden state, `last` the last one's, which a causal tower such
            as CLIP's or GPT-2 needs, `mean` the mean over the tokens.
        initial_temperature: Temperature τ at which training starts, > 0. CLIP's 0.07; the paper gives none.
        max_inverse_temperature: Upper bound of 1/τ, so that the logits cannot diverge.
        calibration: `ZeroShotCalibration` as a dict, for exactly these weights: others get scores without answers.
            Fit it again after more training. None before fitting.
        class_text_width: Width of the class texts' embeddings that `LumbarCLIPForImageClassification` fuses with the
            image's features; 0: it reads the image alone.
        mask_classes: Classes of the masks, the background included, whose decoder and prompts a
            `LumbarCLIPForImageClassification` from a segmentation model reads; 0: it has no decoder.
        class_temperatures: Divisor of each class's logits in `LumbarCLIPForImageClassification`, fitted on validation
            patients. Exclusive classes share one temperature, repeated K times. None before fitting.
        class_temperatures_fitted_on: Their `weights`, as in `ZeroShotCalibration.fitted_on`.
        cross_attention: In `LumbarCLIPForSemanticSegmentation`: `patch`, each patch reads the words of a prompt; or
            `none`, one map for each class without texts.
        decoder_widths: Channels of its decoder from the coarsest to the finest scale. A tower with more scales repeats
            the first, one with fewer leaves out the first. Without texts, the classes share the last: with 8, thin
            structures are learned late.
        segmentation_prompts: Texts of its classes but the background, in the order of `id2label`, for `patch`.
        segmentation_prompt_ids: Their tokens, without padding: `processor.segmentation_prompts` makes both.
        scope: `Scope` as a dict: what these weights were trained on. Images unlike that get no answer. None if unknown.

    Raises:
        StrictDataclassClassValidationError: If a value is invalid.

    Source:
        LumbarCLIP, arXiv 2509.20813, sections 3.3 and 3.4.

    Example:
        >>> config = LumbarCLIPConfig(projection="linear", projection_dim=256)
        >>> config.vision_config.architecture, config.text_config.hidden_size
        ('resnet50', 768)
    """

    model_type = "lumbarclip"
    sub_configs_defaults = {  # noqa: RUF012 - read by transformers
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="timm_wrapper"),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="bert"),
    }

    vision_config: Any = None  # given as a dict, a configuration or None; a configuration afterwards
    text_config: Any = None
    projection: str = "linear"
    projection_dim: int = 256
    text_pooling: str = "cls"
    initial_temperature: float | int = 0.07
    max_inverse_temperature: float | int = 100.0
    calibration: dict[str, Any] | None = None
    class_text_width: int = 0
    mask_classes: int = 0
    class_temperatures: list[float | int] | None = None
    class_temperatures_fitted_on: dict[str, Any] | None = None
    cross_attention: str = "patch"
    decoder_widths: list[int] | tuple[int, ...] = (64, 48, 32, 24, 16, 16)
    segmentation_prompts: list[str] | None = None
    segmentation_prompt_ids: list[list[int]] | None = None
    scope: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Turn the dicts of a saved configuration into configurations; raise a ValueError for run settings."""
        if settings := sorted({"alpha", "label_temperature", "learn_temperature"} & kwargs.keys()):
            raise ValueError(
                f"{', '.join(settings)}: set by train/pretrain.py, not by the configuration. A checkpoint with these "
                "fields has an earlier layout: train it again."
            )
        for name, default in self.sub_configs_defaults.items():
            setattr(self, name, _tower_config(getattr(self, name), name, default.model_type))
        super().__post_init__(**kwargs)
        self._offer_all_classes()

    def save_pretrained(self, save_directory: str | os.PathLike[str], push_to_hub: bool = False, **kwargs: Any) -> None:
        """Save, with references to our Auto classes and pipelines."""
        self._offer_all_classes()
        super().save_pretrained(save_directory, push_to_hub, **kwargs)

    def _offer_all_classes(self) -> None:
        # Ours last: entries loaded from the Hub name the repository they came from, and a copy must name itself.
        self.auto_map = {**getattr(self, "auto_map", {}), **AUTO_MAP}

    @property
    def is_classifier(self) -> bool:
        """Whether the checkpoint is a `LumbarCLIPForImageClassification`, without projections for texts."""
        return CLASSIFIER in (self.architectures or ())

    @property
    def is_segmenter(self) -> bool:
        """Whether the checkpoint is a `LumbarCLIPForSemanticSegmentation`."""
        return SEGMENTER in (self.architectures or ())

    def check_has_projections(self) -> None:
        """Raise ValueError if the checkpoint has a head in place of the projections of `LumbarCLIPModel`."""
        if self.is_classifier:
            raise ValueError(
                "This checkpoint holds a classifier without projections: load it with AutoModelForImageClassification."
            )
        if self.is_segmenter:
            raise ValueError(
                "This checkpoint holds a segmentation model without projections: load it with "
                "AutoModelForSemanticSegmentation."
            )

    @property
    def custom_pipelines(self) -> dict[str, dict[str, Any]]:
        """Our replacements for the pipelines of transformers; a new dict each time, since transformers changes it."""
        return {
            task: {"impl": f"pipeline_lumbarclip.{pipeline}", "pt": (auto_class,)}
            for task, (pipeline, auto_class) in PIPELINES.items()
        }

    def validate_heads(self) -> None:
        """Check projection, pooling and text tower."""
        if self.projection not in PROJECTIONS:
            raise ValueError(f"projection must be one of {', '.join(PROJECTIONS)}; got {self.projection!r}.")
        if self.text_pooling not in TEXT_POOLINGS:
            raise ValueError(f"text_pooling must be one of {', '.join(TEXT_POOLINGS)}; got {self.text_pooling!r}.")
        if self.projection_dim < 1:
            raise ValueError(
                f"projection_dim must be at least 1 (256, 512 and 1024 in the paper); got {self.projection_dim}. "
                "For no projection, set projection='none'."
            )
        if self.class_text_width < 0:
            raise ValueError(f"class_text_width is a width, or 0 for none; got {self.class_text_width}.")
        if self.mask_classes < 0 or self.mask_classes == 1:
            raise ValueError(
                f"mask_classes counts the background and at least one class, or is 0 for none; got {self.mask_classes}."
            )
        if self.text_config.is_encoder_decoder:
            raise ValueError(
                f"text_config {self.text_config.model_type!r} is an encoder-decoder; LumbarCLIP needs a text encoder "
                "such as bert, roberta or distilbert."
            )

    def validate_temperatures(self) -> None:
        """Check that the temperatures are positive and consistent."""
        if not self.initial_temperature > 0:
            raise ValueError(f"initial_temperature must be positive, such as 0.07; got {self.initial_temperature}.")
        if not 1 / self.initial_temperature <= self.max_inverse_temperature:
            raise ValueError(
                f"initial_temperature {self.initial_temperature} starts at an inverse of "
                f"{1 / self.initial_temperature:.4g}, above max_inverse_temperature {self.max_inverse_temperature}: "
                "raise one of the two."
            )

    def validate_calibration(self) -> None:
        """Check the calibration of prompts, and one positive temperature per class."""
        if self.calibration is not None:
            ZeroShotCalibration.from_dict(self.calibration)
        temperatures = self.class_temperatures
        if temperatures is not None and (
            len(temperatures) != self.num_labels or not all(0 < value < math.inf for value in temperatures)
        ):
            raise ValueError(
                f"class_temperatures needs a positive number for each of the {self.num_labels} classes; got "
                f"{temperatures}. Fit them again, or set them to None."
            )

    def validate_segmentation(self) -> None:
        """Check decoder and prompts of a segmentation model."""
        if self.cross_attention not in CROSS_ATTENTIONS:
            raise ValueError(
                f"cross_attention must be one of {', '.join(CROSS_ATTENTIONS)}; got {self.cross_attention!r}."
            )
        if not self.decoder_widths or not all(type(width) is int and width > 0 for width in self.decoder_widths):
            raise ValueError(f"decoder_widths are positive whole numbers, coarse to fine; got {self.decoder_widths}.")
        texts, ids = self.segmentation_prompts, self.segmentation_prompt_ids
        if texts is None and ids is None:
            return
        if not texts or not ids or len(texts) != len(ids) or not all(ids):
            raise ValueError(
                "segmentation_prompts needs one text for each class but the background, and segmentation_prompt_ids "
                f"its tokens; got {texts} and {ids}. processor.segmentation_prompts(names) makes both."
            )
        vocabulary_size = getattr(self.text_config, "vocab_size", None) or math.inf
        if unknown := [token for prompt in ids for token in prompt if not 0 <= token < vocabulary_size]:
            raise ValueError(
                f"segmentation_prompt_ids has the token {unknown[0]}; the text tower embeds {vocabulary_size}. Make "
                "the prompts with the tokenizer of this text tower."
            )

    def validate_scope(self) -> None:
        """Check the scope."""
        if self.scope is not None:
            Scope.from_dict(self.scope)


def _runs_or_fetches(settings: Any) -> str:
    """Name a setting of a tower, at any depth, that makes transformers or timm run code or read other files."""
    if not isinstance(settings, dict):
        return ""
    fields = {name for name, value in settings.items() if name in NOT_OF_A_TOWER and value is not None}
    if isinstance(settings.get("model_args"), dict):
        fields |= {f"model_args.{name}" for name in settings["model_args"].keys() & NOT_OF_TIMM}
    return next(iter(sorted(fields)), "") or next(filter(None, map(_runs_or_fetches, settings.values())), "")


def _tower_config(tower: dict[str, Any] | PreTrainedConfig | None, name: str, default_type: str) -> PreTrainedConfig:
    if isinstance(tower, PreTrainedConfig):
        vars(tower).pop("auto_map", None)  # of a pretrained tower, whose installed class is used
        return tower
    if not isinstance(tower, dict | None):
        raise ValueError(f"{name} must be an object with a 'model_type'; got {tower!r}.")
    arguments = {"model_type": default_type, **(tower or {})}
    if field := _runs_or_fetches(arguments):
        raise ValueError(
            f"{name} sets {field}, which would run code or read other files: a tower is built from the classes of "
            "transformers and timm, and the weights of the checkpoint. Remove it."
        )
    if tower and "model_type" not in tower:
        default = AutoConfig.for_model(default_type)
        if unknown := sorted(
            field for field in tower if not hasattr(default, field)
        ):  # transformers keeps them, unused
            raise ValueError(
                f"{name} needs a 'model_type', such as 'timm_wrapper', 'vit' or 'bert': without one it is "
                f"{default_type!r}, which has no {', '.join(unknown)}."
            )
    return AutoConfig.for_model(**arguments)


LumbarCLIPConfig.register_for_auto_class()
# Only in the package: if a checkpoint's copy registered, the next checkpoint would run its code.
if not __name__.startswith("transformers_modules."):
    AutoConfig.register("lumbarclip", LumbarCLIPConfig)

__all__ = ["CalibratedQuestion", "FeatureCheck", "LumbarCLIPConfig", "Scope", "ZeroShotCalibration"]
