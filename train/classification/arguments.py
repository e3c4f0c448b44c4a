"""The settings of fine-tuning for classification: a YAML file, overridden on the command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from data_scripts.system.command_line import setting
from train.training import arguments as shared

SYSTEMS = ("fine_tuned", "linear_probe", "majority")  # that every run measures


@dataclass
class DataArguments(shared.DataArguments):
    """Data."""

    target: Literal["labels", "grade"] = setting(
        "labels", "What to predict: labels (classes or findings), or the grade."
    )
    augment: bool = setting(True, "Vary training images: pose, contrast, illumination, blur, noise. No flips.")


@dataclass
class ModelArguments(shared.ModelArguments):
    """Model."""

    checkpoint: str = setting(
        "",
        "LumbarCLIP checkpoint to start from, a folder or Hub id: pretrained, or a segmentation model, whose decoder "
        "the head reads, too, class by class.",
    )
    head: Literal["linear", "fusion"] = setting(
        "linear",
        "linear: reads the image. fusion: also the texts of the classes that the image resembles, as the checkpoint's "
        "text tower embeds them; they are saved with the classifier.",
    )
    freeze_tower: bool = setting(
        False, "Train only the head, neither tower nor decoder; batch statistics stay those of pretraining."
    )


@dataclass
class OptimisationArguments(shared.OptimisationArguments):
    """Optimisation."""

    loss: Literal["plain", "class_balanced", "logit_adjusted"] = setting(
        "class_balanced",
        "plain neglects rare classes; class_balanced gives them more weight; logit_adjusted a wider margin.",
    )
    epochs: int = setting(30, "Maximum number of passes over the training images.")
    patience: int = setting(5, "Stop after this many epochs without a lower validation loss; keep the best weights.")
    batch_size: int = setting(32, "Images per step in each process.")
    learning_rate: float = setting(1e-4, "Peak learning rate of AdamW.")


@dataclass
class OutputArguments(shared.FinetuneOutputArguments):
    """Output."""

    compare_with: list[str] = setting(
        [],
        "Folders of other classifier runs with the same test rows: their metrics stand beside this one's, and for "
        "exclusive classes McNemar's test.",
    )


@dataclass
class FinetuneClassificationArguments(
    OutputArguments, OptimisationArguments, ModelArguments, DataArguments, shared.TrainingArguments
):  # dataclasses order the fields from the last base to the first
    """Fine-tune the vision tower of a LumbarCLIP checkpoint to classify images."""

    SYSTEM: ClassVar[str] = "classification"

    def __post_init__(self) -> None:
        """Check the settings before anything is loaded.

        Raises:
            ValueError: If a setting is missing, out of range, or contradicts another.
        """
        super().__post_init__()
        names = [Path(run).name for run in self.compare_with]
        if taken := sorted({name for name in names if names.count(name) > 1 or name in SYSTEMS or not name}):
            raise ValueError(
                f"compare_with calls runs by the last part of their folder; {', '.join(map(repr, taken))} is empty, "
                f"given twice, or one of {', '.join(SYSTEMS)}. Rename a folder."
            )
        if not self.checkpoint:
            raise ValueError("checkpoint is empty: name the pretrained checkpoint to start from.")
        self.check_at_least(1, "patience", "num_resamples")
        if self.freeze_tower and (self.lora_rank or self.layer_decay < 1):
            raise ValueError("freeze_tower does not train the tower: leave out lora_rank and layer_decay.")
