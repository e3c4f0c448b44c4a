"""The settings of training for segmentation: a YAML file, overridden on the command line."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from data_scripts.system.command_line import JsonMapping, setting
from train.checkpoints.packaged_towers import describe_packaged
from train.training import arguments as shared


@dataclass
class DataArguments(shared.DataArguments):
    """Data."""

    mask_names: list[str] = setting(
        [], "Names of the mask classes in their order, background first, in place of the dataset's own."
    )
    more_datasets: list[str] = setting(
        [],
        "Further datasets with masks: their training rows are added, and classes of the same name are one class. A "
        "class that a row's mask does not mark is left out of its loss, neither present nor absent.",
    )
    rename_classes: JsonMapping = setting(
        JsonMapping(),
        'Other names for mask classes, such as \'{"canal": "spinal canal"}\'. Classes of one name become one; null '
        "ignores the pixels of a class, and background makes them background.",
    )
    augment: bool = setting(
        True, "Vary training images and their masks: pose, bends, contrast, illumination, resolution, noise. No flips."
    )
    contrast_inversion: float = setting(
        0.0,
        "Share of the training images whose grey values pass through a random curve, dark tissues becoming bright and "
        "bright ones dark, so that a model of one sequence reads others.",
    )
    patch_size: int = setting(
        0, "Train on random square patches of this side, in pixels of image_size; 0: on whole images, as validation is."
    )


@dataclass
class ModelArguments(shared.TowerArguments):
    """Model."""

    checkpoint: str = setting(
        "",
        "Start from the towers and the tokenizer of this LumbarCLIP checkpoint, a folder or Hub id, instead of vision "
        "and text.",
    )
    cross_attention: Literal["patch", "none"] = setting(
        "patch",
        "patch: at each scale, patches attend to the tokens of a text for each class; other texts may be asked later. "
        "none: the same decoder without texts.",
    )
    decoder_widths: list[int] = setting([], "Channels of the decoder, coarse to fine; empty: the model's default.")
    image_size: int = setting(
        0, "Side of the square image, in pixels; timm transformers are built for it. 0: the checkpoint's, or 224."
    )
    prompts: JsonMapping = setting(
        JsonMapping(), 'Texts that ask for a class, in place of its name: \'{"disc": "the intervertebral discs"}\'.'
    )
    freeze_tower: bool = setting(False, "Train only the decoder; batch statistics of the vision tower stay.")


@dataclass
class OptimisationArguments(shared.OptimisationArguments):
    """Optimisation."""

    loss: Literal["cross_entropy", "dice", "dice_ce", "tversky", "focal_tversky", "pid_tversky"] = setting(
        "dice_ce", "Loss to minimise, see train/objectives/segmentation.py."
    )
    false_negative_weight: float | None = setting(
        None, "b of the Tversky losses, a = 1 - b; where pid_tversky starts. Default: 0.7, or 0.5 for pid_tversky."
    )
    gamma: float | None = setting(
        None, "Exponent of 1 - TI in the Tversky losses. Default: 0.75 for focal_tversky, else 1."
    )
    pid_gains: list[float] = setting(
        [0.5, 0.1, 0.1], "Gains Kp, Ki, Kd of pid_tversky, which moves b after each epoch; zeros leave it."
    )
    pid_limits: list[float] = setting([0.2, 0.8], "Lowest and highest b of pid_tversky.")
    pid_run: str = setting(
        "", "Ablation of pid_tversky: tversky or focal_tversky takes the weights of the run in this folder."
    )
    pid_schedule: Literal["average", "shuffled"] = setting(
        "average", "How it takes them. average: fixed, each class's average. shuffled: its epochs in random order."
    )
    epochs: int = setting(50, "Maximum number of passes over the training images.")
    batch_size: int = setting(8, "Images per step in each process.")
    learning_rate: float = setting(1e-3, "Peak learning rate of AdamW.")


@dataclass
class FinetuneSegmentationArguments(
    shared.FinetuneOutputArguments, OptimisationArguments, ModelArguments, DataArguments, shared.TrainingArguments
):  # dataclasses order the fields from the last base to the first
    """Train a segmenter on masks, from a LumbarCLIP checkpoint or from towers."""

    SYSTEM: ClassVar[str] = "segmentation"

    def __post_init__(self) -> None:
        """Check the settings before anything is loaded.

        Raises:
            ValueError: If a setting is out of range, or contradicts another.
        """
        super().__post_init__()
        self.check_at_least(1, "num_resamples")
        self.check_at_least(0, "patch_size", "image_size")
        if any(width < 1 for width in self.decoder_widths):
            raise ValueError(f"decoder_widths counts channels, at least 1 each; got {self.decoder_widths}.")
        from train.objectives.segmentation import SegmentationLossSettings  # torch

        SegmentationLossSettings(**self.loss_settings()).check(self.loss)
        if not 0 <= self.contrast_inversion <= 1:
            raise ValueError(f"contrast_inversion is a share of the images, in [0, 1]; got {self.contrast_inversion}.")
        if self.contrast_inversion and not self.augment:
            raise ValueError("contrast_inversion varies images, and augment is off: leave one of them out.")
        if self.prompts and self.cross_attention == "none":
            raise ValueError("prompts are texts that cross_attention patch reads; it is none: leave one of them out.")
        if self.freeze_tower and (self.lora_rank or self.layer_decay < 1):
            raise ValueError("freeze_tower does not train the tower: leave out lora_rank and layer_decay.")
        if not self.is_pretrained("vision") and (self.lora_rank or self.freeze_tower):
            given = "freeze_tower" if self.freeze_tower else f"lora_rank {self.lora_rank}"
            raise ValueError(
                f"{given} would leave a random vision tower random: start from --checkpoint or a pretrained tower."
            )
        if not self.checkpoint:
            describe_packaged(vars(self))  # or raises

    def loss_settings(self) -> dict[str, Any]:
        """Return the fields of `SegmentationLossSettings`."""
        names = ("false_negative_weight", "gamma", "pid_schedule", "seed")
        gains, limits = tuple(self.pid_gains), tuple(self.pid_limits)
        given = {name: getattr(self, name) for name in names}
        return given | {"pid_gains": gains, "pid_limits": limits, "pid_run": self.pid_run or None}

    def is_pretrained(self, tower: str) -> bool:
        """Whether the tower `vision` or `text` starts from weights that were trained before."""
        if tower == "text" and self.cross_attention == "none":
            return False  # it is not used
        return bool(self.checkpoint) or super().is_pretrained(tower)
