"""The settings of fine-tuning for classification: a YAML file, overridden on the command line."""

from dataclasses import dataclass

from data_scripts.system.command_line import setting

TARGETS = ("labels", "grade")
LOSSES = {
    "plain": "paper",
    "class_balanced": "paper_balanced",
    "logit_adjusted": "paper_logit_adjusted",
}  # names of `train.evaluation.protocols.probe_losses`


@dataclass
class FinetuneClassificationArguments:
    """Settings of `train/finetune_classification.py`."""

    checkpoint: str = setting("", "LumbarCLIP checkpoint to start from: a folder, or a Hub id.")
    dataset: str = setting("", "Folder that data_scripts.build wrote, or a Hub id of such a dataset.")
    target: str = setting("labels", "What to learn: labels (exclusive classes or findings), or grade.")
    allow_leaks: bool = setting(
        False,
        "Take a data set whose splits share patients, studies or (near-)equal images; its figures are then marked.",
    )
    output_dir: str = setting("", "Folder of the run: checkpoint, run.json, metrics.json, report.md, figures.")
    resume: bool = setting(False, "Go on with the run in output_dir; starts it where there is none yet.")
    overwrite: bool = setting(False, "Delete output_dir first, if it exists.")

    freeze_tower: bool = setting(False, "Train the head alone; batch statistics stay those of pretraining.")
    lora_rank: int = setting(0, "Train low-rank adapters of this rank, such as 8, and the head; 0: none.")
    layer_decay: float = setting(
        1.0, "Each layer of a timm tower learns this much slower than the next, in (0, 1]; 1: all alike."
    )
    loss: str = setting(
        "class_balanced",
        f"{', '.join(LOSSES)}. plain gives rare classes up where they are rare; the others weigh them, or ask for a "
        "wider margin around them.",
    )

    epochs: int = setting(30, "Passes over the training images, at most.")
    patience: int = setting(5, "Epochs without a lower loss on the validation patients after which training stops.")
    batch_size: int = setting(32, "Images of a step in each process.")
    learning_rate: float = setting(1e-4, "Peak learning rate of AdamW.")
    weight_decay: float = setting(1e-4, "Weight decay of matrices and kernels.")
    warmup_ratio: float = setting(0.1, "Share of the updates that warms up; a cosine follows.")
    max_grad_norm: float = setting(1.0, "Gradient norm above which gradients are scaled down.")
    augment: bool = setting(True, "Vary training images: pose, contrast, illumination, blur, noise. No flips.")
    seed: int = setting(0, "Seed of the head, the order and the augmentation.")
    num_resamples: int = setting(1000, "Bootstrap resamples of patients for the intervals.")

    def __post_init__(self) -> None:
        """Refuse what cannot work before anything is loaded."""
        for name in ("checkpoint", "dataset", "output_dir"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty: name it on the command line or in the YAML.")
        if self.resume and self.overwrite:
            raise ValueError("resume goes on with output_dir and overwrite deletes it: choose one.")
        if self.target not in TARGETS:
            raise ValueError(f"target must be one of {', '.join(TARGETS)}; got {self.target!r}.")
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}; got {self.loss!r}.")
        for name in ("epochs", "patience", "batch_size", "num_resamples"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive; got {self.learning_rate}.")
        if not 0 <= self.warmup_ratio <= 1:
            raise ValueError(f"warmup_ratio is a share of the updates, in [0, 1]; got {self.warmup_ratio}.")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay is a factor in (0, 1], such as 0.75; got {self.layer_decay}.")
        if self.lora_rank < 0:
            raise ValueError(f"lora_rank must be positive, or 0 for no adapters; got {self.lora_rank}.")
        if self.freeze_tower and (self.lora_rank or self.layer_decay < 1):
            raise ValueError("freeze_tower trains nothing of the tower: leave out lora_rank and layer_decay.")


__all__ = ["LOSSES", "FinetuneClassificationArguments"]
