"""The settings that every training run has; a system inherits them and adds its own.

A system's dataclasses carry the first line of the docstrings here, so that `--help` shows each group once.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from data_scripts.system.command_line import JsonMapping, check_choices, setting
from train.checkpoints.packaged_towers import is_packaged


@dataclass
class DataArguments:
    """Data."""

    dataset: str = setting("", "Folder that data_scripts.build wrote, or Hub id of such a dataset.")
    labels: Literal["findings", "paper"] = setting(
        "findings",
        "Classes of the rows. findings: those of the dataset. paper: as in the LumbarCLIP paper, LBP for any finding, "
        "or No Finding.",
    )
    allow_leaks: bool = setting(
        False, "Accept splits that share patients, studies or (near-)identical images; all results are then marked."
    )
    augment: bool = setting(False, "Vary training images: pose, contrast, illumination, blur, noise. No flips.")
    num_workers: int = setting(0, "Loader processes. Images are decoded once at the start, so 0 is rarely slower.")


@dataclass
class ModelArguments:
    """Model."""

    lora_rank: int = setting(
        0,
        "Train low-rank adapters of this rank, such as 8, and the heads instead of whole towers: less memory, and a "
        "small file in addition to a large base. 0: train whole towers.",
    )


@dataclass
class TowerArguments(ModelArguments):
    """Model."""

    vision: str = setting(
        "resnet50",
        "Vision tower: timm name, Hub id or folder of a pretrained model, or packaged:efficientnet_lite0, with the "
        "extra [towers].",
    )
    vision_model_args: JsonMapping = setting(
        JsonMapping(),
        "Arguments of timm.create_model: JSON here, such as '{\"drop_path_rate\": 0.1}', YAML in a file.",
    )
    text: str = setting(
        "emilyalsentzer/Bio_ClinicalBERT",
        "Text tower: Hub id or folder, used with pretrained; or packaged:all-MiniLM-L6-v2, with the extra [towers].",
    )
    text_config: JsonMapping = setting(
        JsonMapping(),
        "Shape of an untrained text tower (default model_type: bert), instead of text. Replaces that of a YAML file.",
    )
    pretrained: bool = setting(
        True,
        "Load pretrained towers from the Hub or a folder. Off: random ones, and a vocabulary from the reports; a "
        "packaged: tower keeps its weights.",
    )
    vocabulary_size: int = setting(4000, "Largest vocabulary without pretrained towers, in word pieces.")
    image_size: int = setting(224, "Side of the square image, in pixels; timm transformers are built for it.")
    window_images: bool = setting(False, "Window 8-bit images, too, between percentiles: evens out scanners.")
    max_text_length: int = setting(128, "Truncate reports to this many tokens.")

    def is_pretrained(self, tower: str) -> bool:
        """Whether the tower `vision` or `text` starts from weights that were trained before."""
        return self.pretrained or is_packaged(getattr(self, tower))


@dataclass
class OptimisationArguments:
    """Optimisation."""

    epochs: int = setting(50, "Passes over the training rows.")
    max_updates: int | None = setting(None, "Stop after this many optimizer updates; the schedule ends there, too.")
    patience: int = setting(
        0, "Stop after this many epochs without a lower validation loss and keep the best weights; 0: never stop early."
    )
    batch_size: int = setting(128, "Rows per step in each process.")
    gradient_accumulation_steps: int = setting(1, "Steps per update. Averages losses; adds no negatives.")
    learning_rate: float = setting(2e-5, "Peak learning rate of AdamW.")
    layer_decay: float = setting(
        1.0,
        "Factor in (0, 1] on the learning rate from each layer of a tower to the one before, such as 0.75: what a "
        "pretrained tower learned first changes least. The heads learn at the full rate. 1: the same for all.",
    )
    weight_decay: float = setting(1e-4, "Weight decay of matrices and kernels.")
    warmup_ratio: float = setting(0.1, "Share of the updates for the warm-up; a cosine follows.")
    max_grad_norm: float = setting(1.0, "Scale gradients down to this norm.")
    weight_average: float = setting(
        0.0, "Publish a moving average of the weights with this decay, such as 0.99; 0: the last weights."
    )
    seed: int = setting(0, "Seed of weights, order, augmentation and every other random choice.")


@dataclass
class OutputArguments:
    """Output."""

    output_dir: str = setting("", "Folder of the run: checkpoint, run.json, metrics.json, report.md, figures.")
    resume: bool = setting(False, "Resume the run in output_dir; start it if there is none.")
    overwrite: bool = setting(False, "Delete output_dir first, if it exists.")
    log_every: int = setting(10, "Updates between lines of history.jsonl; 0: one line per epoch.")
    save_every: int = setting(0, "Updates between resumable states; 0: one state per epoch.")
    report_to: str = setting("tensorboard", "Tracker of Accelerate: tensorboard, wandb, ..., or none.")


@dataclass
class FinetuneOutputArguments(OutputArguments):
    """Output."""

    log_every: int = setting(0, "Updates between lines of history.jsonl; 0: one line per epoch.")
    num_resamples: int = setting(1000, "Bootstrap resamples of patients for the intervals.")


@dataclass
class TrainingArguments(OutputArguments, OptimisationArguments, ModelArguments, DataArguments):
    """The settings that the training loop reads."""

    SYSTEM: ClassVar[str] = ""  # written to run.json; a run is only resumed by its own system

    def __post_init__(self) -> None:
        """Check the settings before anything is loaded.

        Raises:
            ValueError: If a setting is missing, out of range, or contradicts another.
        """
        check_choices(self)
        if not self.dataset:
            raise ValueError("dataset is empty: name the folder that `python -m data_scripts.build --out` wrote.")
        if not self.output_dir:
            raise ValueError("output_dir is empty: name a folder for the run, such as runs/demo.")
        if self.resume and self.overwrite:
            raise ValueError("resume continues the run in output_dir and overwrite deletes it: choose one.")
        self.check_at_least(1, "epochs", "batch_size", "gradient_accumulation_steps")
        self.check_at_least(0, "patience", "lora_rank", "log_every", "save_every", "num_workers")
        if self.max_updates is not None:
            self.check_at_least(1, "max_updates")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive; got {self.learning_rate}.")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay is a factor in (0, 1], such as 0.75; got {self.layer_decay}.")
        if not 0 <= self.warmup_ratio <= 1:
            raise ValueError(f"warmup_ratio is a share of the updates, in [0, 1]; got {self.warmup_ratio}.")
        if not 0 <= self.weight_average < 1:
            raise ValueError(f"weight_average is a decay in [0, 1), such as 0.99; got {self.weight_average}.")

    def check_at_least(self, lowest: int, *names: str) -> None:
        """Check that settings are not below a bound.

        Raises:
            ValueError: If one is; the message names it and its value.
        """
        for name in names:
            value: Any = getattr(self, name)
            if value < lowest:
                raise ValueError(f"{name} must be at least {lowest}; got {value}.")
