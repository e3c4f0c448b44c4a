"""The settings of a pretraining run: a YAML file, overridden on the command line."""

import math
from dataclasses import dataclass

from data_scripts.system.command_line import JsonMapping, setting
from train.data.report_texts import TEXT_AUGMENTATIONS, TEXT_UNITS
from train.objectives import OBJECTIVES


@dataclass
class PretrainArguments:
    """Settings of `train/pretrain.py`."""

    dataset: str = setting("", "Folder that data_scripts.build wrote, or a Hub id of such a dataset.")
    allow_leaks: bool = setting(
        False,
        "Take a data set whose splits share patients, studies or (near-)equal images; its figures are then marked.",
    )
    output_dir: str = setting("", "Folder of the run: checkpoint, run.json, metrics.json, report.md, figures.")
    resume: bool = setting(False, "Go on with the run in output_dir; starts it where there is none yet.")
    overwrite: bool = setting(False, "Delete output_dir first, if it exists.")

    vision: str = setting("resnet50", "Vision tower: timm name, or Hub id or folder of a pretrained model.")
    vision_model_args: JsonMapping = setting(
        JsonMapping(),
        "Arguments of timm.create_model. Here JSON, such as '{\"drop_path_rate\": 0.1}', and YAML in a file.",
    )
    text: str = setting("emilyalsentzer/Bio_ClinicalBERT", "Text tower: Hub id or folder. Used with pretrained.")
    text_config: JsonMapping = setting(
        JsonMapping(),
        "Shape of an untrained text tower (model_type bert unless given), in place of text. Replaces that of a YAML.",
    )
    pretrained: bool = setting(
        True,
        "Pretrained towers, from the Hub or a folder. Without: random ones, and a vocabulary of the training reports.",
    )
    init_checkpoint: str = setting(
        "",
        "Start from this LumbarCLIP checkpoint, a folder or Hub id. Towers, heads, tokenizer and image size are then "
        "its own, whatever the settings of these say.",
    )
    lora_rank: int = setting(
        0,
        "Train low-rank adapters of this rank, such as 8, and the heads, in place of the whole towers: a small file "
        "beside a large base, and less memory. 0: the whole towers.",
    )
    vocabulary_size: int = setting(4000, "Most words of the vocabulary, without pretrained towers.")
    image_size: int = setting(224, "Side of the square image, in pixels; timm transformers are built for it.")
    window_images: bool = setting(False, "Window 8-bit images, too, between percentiles: evens out scanners.")
    max_text_length: int = setting(128, "Tokens after which a report is cut.")
    class_prompts: JsonMapping = setting(
        JsonMapping(), 'Zero-shot sentences that state a class: \'{"LBP": ["There is a disc bulge."]}\'.'
    )
    absent_class_prompts: JsonMapping = setting(JsonMapping(), "Zero-shot sentences that deny a class.")

    projection: str = setting("linear", "Projection heads: none, linear or nonlinear.")
    projection_dim: int = setting(256, "Width of the shared space.")
    text_pooling: str = setting("cls", "Pooling of the text tower: cls or mean.")
    initial_temperature: float = setting(0.07, "Temperature at the start.")
    learn_temperature: bool = setting(True, "Learn the temperature.")
    label_temperature: float | None = setting(None, "Temperature of the soft targets; none: the learned one.")
    alpha: float = setting(
        0.5, "Weight of the reports' loss; 1 - alpha weighs that of their augmented texts. At 1 there are none."
    )
    text_unit: str = setting(
        "report",
        "What of a text a pair shows: the whole report, or a sentence of it, drawn for each pair and epoch, as in "
        "ConVIRT. Sentences are shorter, so steps are faster, but one seldom says what level the next speaks of.",
    )
    text_augmentation: str = setting(
        "rephrasings",
        "Augmented text of a pair, drawn for each epoch. rephrasings: one that the data set holds; where it holds "
        "none at all there is no augmented loss. eda: one of four variations of the report that keep its facts "
        "(synonyms, swaps, deletions), made at the start. both: such a variation of a rephrasing. none: as alpha 1.",
    )
    objective: str = setting("lumbarclip", f"Objective: {', '.join(OBJECTIVES)}.")
    target_columns: list[str] = setting(
        ["labels"], "Columns whose classes make the soft targets: labels, grade, level, sequence; none: plain InfoNCE."
    )
    count_absences: bool = setting(
        False, "Let the targets count classes that two pairs both lack, and grades by threshold; the paper does not."
    )

    balance: list[str] = setting(
        ["none"],
        "upsample: an epoch repeats the training pairs of rare labels until all labels have as many (LBP and No "
        "Finding, where each pair has one of them); where pairs have several labels, the rarest counts, and its pairs "
        "are repeated by the root of its rarity. sampler: batches without two pairs of one report, then of one "
        "patient, as far as can be. Both may be given. none: each pair once, shuffled.",
    )
    epochs: int = setting(50, "Passes over the training pairs.")
    max_updates: int | None = setting(None, "Stop after so many optimizer updates; the schedule then ends there.")
    batch_size: int = setting(128, "Pairs of a step in each process.")
    gradient_accumulation_steps: int = setting(1, "Steps of an update. Averages losses; adds no negatives.")
    learning_rate: float = setting(2e-5, "Peak learning rate of AdamW.")
    weight_decay: float = setting(1e-4, "Weight decay of matrices and kernels.")
    warmup_ratio: float = setting(0.1, "Share of the updates that warms up; a cosine follows.")
    max_grad_norm: float = setting(1.0, "Gradient norm above which gradients are scaled down.")
    weight_average: float = setting(
        0.0, "Decay of an average of the weights that is published in their place; 0: none."
    )
    gradient_checkpointing: bool = setting(False, "Recompute activations in backward: less memory, more time.")
    augment: bool = setting(False, "Vary training images: pose, contrast, illumination, blur, noise. No flips.")
    seed: int = setting(0, "Seed of weights, order, augmentation and choice of rephrasings.")
    num_workers: int = setting(0, "Loader processes. Images are decoded once beforehand, so 0 is seldom slower.")

    log_every: int = setting(10, "Updates between lines of history.jsonl.")
    save_every: int = setting(0, "Updates between resumable states; 0: once an epoch.")
    power_watts: float | None = setting(
        None, "Watts that the whole machine draws in training, as measured or from its data sheet, for the model card."
    )
    carbon_intensity: float | None = setting(
        None, "Grams of CO2eq per kWh of the grid that it draws from. With power_watts the card tells the emissions."
    )
    report_to: str = setting("tensorboard", "Tracker of Accelerate: tensorboard, wandb, ..., or none.")
    evaluate: bool = setting(True, "Evaluate the test split at the end and write metrics.json, report.md, figures.")
    baselines: bool = setting(True, "Evaluate the controls too: untrained encoder, pixel-PCA, HOG, no pixels.")
    push_to_hub: bool = setting(
        False, "Publish the run at the end, private; train/publish.py does so later and can more."
    )
    hub_repo_id: str = setting("", "owner/name of the repository to publish it in.")
    hub_tag: str = setting("v0.1", "Name of the version to publish it as; a repository has each once.")

    def __post_init__(self) -> None:
        """Refuse what cannot work before anything is loaded."""
        if not self.dataset:
            raise ValueError("dataset is empty: name the folder that `python -m data_scripts.build --out` wrote.")
        if not self.output_dir:
            raise ValueError("output_dir is empty: name a folder for the run, such as runs/demo.")
        if self.resume and self.overwrite:
            raise ValueError("resume goes on with output_dir and overwrite deletes it: choose one.")
        if self.objective not in OBJECTIVES:
            raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}; got {self.objective!r}.")
        if self.text_unit not in TEXT_UNITS:
            raise ValueError(f"text_unit must be one of {', '.join(TEXT_UNITS)}; got {self.text_unit!r}.")
        if self.text_augmentation not in TEXT_AUGMENTATIONS:
            raise ValueError(
                f"text_augmentation must be one of {', '.join(TEXT_AUGMENTATIONS)}; got {self.text_augmentation!r}."
            )
        for name in ("epochs", "batch_size", "gradient_accumulation_steps", "image_size", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if self.max_updates is not None and self.max_updates < 1:
            raise ValueError(f"max_updates must be at least 1, or left out; got {self.max_updates}.")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive; got {self.learning_rate}.")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha weighs reports against augmented texts and lies in [0, 1]; got {self.alpha}.")
        if self.label_temperature is not None and not self.label_temperature > 0:
            raise ValueError(f"label_temperature must be positive, or left out; got {self.label_temperature}.")
        if not 0 <= self.warmup_ratio <= 1:
            raise ValueError(f"warmup_ratio is a share of the updates, in [0, 1]; got {self.warmup_ratio}.")
        if self.lora_rank < 0:
            raise ValueError(f"lora_rank must be positive, or 0 for no adapters; got {self.lora_rank}.")
        if self.lora_rank and not (self.pretrained or self.init_checkpoint):
            raise ValueError(
                f"lora_rank {self.lora_rank} would leave random towers random: adapters need --init_checkpoint, or "
                "pretrained towers."
            )
        if self.save_every < 0:
            raise ValueError(f"save_every must be positive, or 0 for once an epoch; got {self.save_every}.")
        if not 0 <= self.weight_average < 1:
            raise ValueError(f"weight_average is a decay in [0, 1), such as 0.99; got {self.weight_average}.")
        for name in ("power_watts", "carbon_intensity"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive, or left out where it is not known; got {value}.")
        if self.push_to_hub and not self.hub_repo_id:
            raise ValueError("push_to_hub needs hub_repo_id: name the repository, such as me/lumbarclip-demo.")
        if self.hub_tag != PretrainArguments.hub_tag and not self.push_to_hub:
            raise ValueError(
                f"hub_tag {self.hub_tag} names the version that push_to_hub publishes: set that, too, or publish "
                "afterwards with train/publish.py --tag."
            )
        if self.push_to_hub and not self.evaluate:
            raise ValueError(
                "push_to_hub publishes a model with its figures: leave evaluate on, or publish it afterwards with "
                "train/publish.py --allow_unmeasured."
            )
        self.target_columns = [column for column in self.target_columns if column != "none"]
        balance = [self.balance] if isinstance(self.balance, str) else self.balance  # `balance: upsample` in YAML
        self.balance = [way for way in balance if way != "none"]
        if unknown := set(self.balance) - {"upsample", "sampler"}:
            raise ValueError(f"balance may be upsample, sampler, both or none; got {', '.join(sorted(unknown))}.")
        unknown = set(self.target_columns) - {"labels", "grade", "level", "sequence"}
        if unknown:
            raise ValueError(
                f"target_columns may name labels, grade, level and sequence; got {', '.join(sorted(unknown))}."
            )
