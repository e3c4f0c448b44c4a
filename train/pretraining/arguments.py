"""The settings of a pretraining run: a YAML file, overridden on the command line."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar, Literal

from data_scripts.system.command_line import JsonMapping, setting
from train.checkpoints.packaged_towers import describe_packaged
from train.training import arguments as shared

# Those of `train.objectives.OBJECTIVES`, which imports torch.
OBJECTIVE_NAMES = (
    "lumbarclip",
    "clip",
    "siglip",
    "convirt",
    "gloria",
    "medclip",
    "supervised",
    "image_grades",
    "grade_prompts",
    "symmetry",
    "consistency",
    "polarity",
    "instance",
    "counterfactual",
    "ordinal",
)


class ObjectiveWeights(JsonMapping):
    """Weights of objectives by name: a mapping in YAML, JSON on the command line, or the name of the only one."""

    def __init__(self, value: Any) -> None:
        is_name = isinstance(value, str) and not value.lstrip().startswith("{")
        super().__init__({value: 1.0} if is_name else value)


def objective_weights(given: Any) -> ObjectiveWeights:
    """Check objectives and their weights.

    Raises:
        ValueError: If there is none, one is not known, or a weight is not a positive number.

    Example:
        >>> objective_weights("clip"), objective_weights({"lumbarclip": "1e0", "supervised": 1})
        ({'clip': 1.0}, {'lumbarclip': 1.0, 'supervised': 1.0})
    """
    weights = ObjectiveWeights(given) if isinstance(given, str | Mapping) and given else None
    if not weights:
        raise ValueError(
            f"objectives is a name, or names with weights, such as {{lumbarclip: 1, clip: 0.5}}; got {given!r}."
        )
    for name, value in weights.items():
        if name not in OBJECTIVE_NAMES:
            nearest = get_close_matches(str(name).lower(), OBJECTIVE_NAMES, n=1)
            hint = f" Did you mean {nearest[0]}?" if nearest else ""
            if not str(name).isidentifier():  # such as "lumbarclip,polarity"
                hint = ' Several are given with weights: \'{"lumbarclip": 1, "polarity": 0.5}\'.'
            raise ValueError(f"objectives must be among {', '.join(OBJECTIVE_NAMES)}; got {name!r}.{hint}")
        try:
            weight = math.nan if isinstance(value, bool) else float(value)  # YAML 1.1 reads 1e-1 as a string
        except (TypeError, ValueError):
            weight = math.nan
        if not 0 < weight < math.inf:
            raise ValueError(f"objectives: the weight of {name} must be a positive number; got {value!r}.")
        weights[name] = weight
    return weights


@dataclass
class DataArguments(shared.DataArguments):
    """Data."""

    text_unit: Literal["report", "sentence"] = setting(
        "report",
        "Text of a pair: the whole report, or one sentence, drawn for each pair and epoch, as in ConVIRT. Sentences "
        "are faster, but a sentence rarely names the level that the next one refers to.",
    )
    text_augmentation: Literal["rephrasings", "eda", "both", "none"] = setting(
        "rephrasings",
        "Augmented text of a pair, drawn each epoch. rephrasings: those in the dataset; without any there is no "
        "augmented loss. eda: one of four variations of the report that keep its facts (synonyms, swaps, deletions). "
        "both: such a variation of a rephrasing. none: same as alpha 1.",
    )
    texts_per_pair: int = setting(
        1,
        "Augmented texts that an epoch shows for each pair, one after the other: 5 is the paper's augmented set, the "
        "report and four rephrasings, and makes an epoch five times as long. Validation and the paper's probe then use "
        "that set, too. 1: one text, drawn.",
    )
    target_columns: list[Literal["labels", "grade", "level", "sequence", "none"]] = setting(
        ["labels"], "Columns whose classes make the soft targets; none: plain InfoNCE."
    )
    count_absences: bool = setting(
        False, "Also count classes that two pairs both lack, and grades by threshold; the paper does not."
    )
    balance: list[Literal["upsample", "sampler", "none"]] = setting(
        ["none"],
        "upsample: repeat pairs of rare labels until labels are balanced (LBP and No Finding, if each pair has one of "
        "them); with several labels per pair, the rarest counts, and its pairs are repeated by the root of its rarity. "
        "sampler: avoid pairs of one report, then of one patient, in a batch. Both are possible. none: each pair once.",
    )
    minority_share: float = setting(
        0.5,
        "Share to which upsample raises a rare class, beside the largest one; 0.5: equal numbers; 0.1607: Table 1 of "
        "the paper.",
    )


@dataclass
class ModelArguments(shared.TowerArguments):
    """Model."""

    init_checkpoint: str = setting(
        "",
        "Start from this LumbarCLIP checkpoint, a folder or Hub id. Its towers, heads, tokenizer and image size "
        "override the settings.",
    )
    class_prompts: JsonMapping = setting(
        JsonMapping(),
        "Zero-shot sentences that state a class, in place of wordings of its bank that no training uses: "
        '\'{"LBP": ["There is a disc bulge."]}\'.',
    )
    absent_class_prompts: JsonMapping = setting(JsonMapping(), "The same for sentences that deny a class.")
    projection: Literal["none", "linear", "nonlinear"] = setting("linear", "Projection heads.")
    projection_dim: int = setting(256, "Width of the shared space.")
    text_pooling: Literal["cls", "mean", "last"] = setting(
        "cls", "Pooling of the text tower; causal ones need last, or mean."
    )
    initial_temperature: float = setting(0.07, "Temperature at the start.")
    gradient_checkpointing: bool = setting(False, "Recompute activations in backward: less memory, more time.")
    freeze: list[Literal["text", "none"]] = setting(
        ["none"],
        "text: keep the text tower as it is, and encode each text once a run, not in every step; its head and the "
        "vision tower learn. The tower must know words: pretrained, or from a checkpoint.",
    )
    freeze_vision_layers: int = setting(
        0,
        "Keep this many of the first layers of a pretrained vision tower as they are, with their batch statistics: a "
        "step is faster, and few images overfit less. Layers are counted as by layer_decay.",
    )
    lora_towers: list[Literal["vision", "text"]] = setting(
        ["vision", "text"], "Towers that lora_rank adapts; the other one is trained whole, unless freeze keeps it."
    )


@dataclass
class OptimisationArguments(shared.OptimisationArguments):
    """Optimisation."""

    objectives: ObjectiveWeights = setting(
        "lumbarclip",
        'Losses to minimise, see train/objectives: a name, or the weight of each: \'{"lumbarclip": 1, "polarity": '
        "0.5}', in YAML {lumbarclip: 1, polarity: 0.5}.",
    )
    alpha: float = setting(
        0.5, "Weight of the loss on reports; 1 - alpha weighs the loss on augmented texts; 1: reports only."
    )
    label_temperature: float | None = setting(None, "Temperature of the soft targets; none: the learned one.")
    grade_weights: Literal["none", "adaptive"] = setting(
        "none", "adaptive: objectives that learn grades weigh each by how often training misses it."
    )
    rich_descriptions: bool = setting(
        False, "Describe doubtful grades, such as KL 1, by what tells them from their neighbours, in grade prompts."
    )
    polarity_temperature: float = setting(0.15, "Temperature of statement against denial, in the objective polarity.")
    learn_temperature: bool = setting(True, "Learn the temperature.")


@dataclass
class OutputArguments(shared.OutputArguments):
    """Output."""

    evaluate: bool = setting(True, "Evaluate the test split at the end: metrics.json, report.md, figures.")
    baselines: bool = setting(
        True, "Evaluate baselines, too: untrained encoder, pixel PCA, HOG, texture, ImageNet tower, no pixels."
    )
    power_watts: float | None = setting(
        None, "Power of the whole machine in training, in watts, measured or from a data sheet; for the model card."
    )
    carbon_intensity: float | None = setting(
        None, "Grams of CO2eq per kWh of its grid. With power_watts, the card states the emissions."
    )
    push_to_hub: bool = setting(
        False, "Publish the run at the end, as a private repository; train/publish.py can do so later."
    )
    hub_repo_id: str = setting("", "owner/name of the repository to publish in.")
    hub_tag: str = setting("v0.1", "Version to publish as; a repository takes each version once.")


@dataclass
class PretrainArguments(
    OutputArguments, OptimisationArguments, ModelArguments, DataArguments, shared.TrainingArguments
):  # dataclasses order the fields from the last base to the first
    """Pretrain LumbarCLIP on paired lumbar images and reports."""

    SYSTEM: ClassVar[str] = "pretraining"

    def __post_init__(self) -> None:
        """Check the settings before anything is loaded.

        Raises:
            ValueError: If a setting is missing, out of range, or contradicts another.
        """
        super().__post_init__()
        self.objectives = objective_weights(self.objectives)
        self.check_at_least(1, "image_size", "texts_per_pair")
        self.check_at_least(0, "freeze_vision_layers")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha is a weight in [0, 1]; got {self.alpha}.")
        if not 0 < self.minority_share <= 0.5:
            raise ValueError(f"minority_share is a share in (0, 0.5]; got {self.minority_share}.")
        if self.texts_per_pair > 1 and not self.shows_augmented_texts:
            raise ValueError(
                f"texts_per_pair {self.texts_per_pair} shows augmented texts, which only the objective lumbarclip has, "
                "with alpha below 1 and a text_augmentation: set texts_per_pair 1, or these."
            )
        describe_packaged(vars(self))  # or raises
        self._check_frozen()
        for name in ("label_temperature", "polarity_temperature", "power_watts", "carbon_intensity"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive, or left out; got {value}.")
        self._check_publishing()
        self.target_columns = [column for column in self.target_columns if column != "none"]
        balance = [self.balance] if isinstance(self.balance, str) else self.balance  # `balance: upsample` in YAML
        self.balance = [way for way in balance if way != "none"]

    @property
    def shows_augmented_texts(self) -> bool:
        """Whether the loss has a part on augmented texts."""
        return "lumbarclip" in self.objectives and self.alpha < 1 and self.text_augmentation != "none"

    def is_pretrained(self, tower: str) -> bool:
        """Whether the tower `vision` or `text` starts from weights that were trained before."""
        return bool(self.init_checkpoint) or super().is_pretrained(tower)

    def _check_frozen(self) -> None:
        freeze = [self.freeze] if isinstance(self.freeze, str) else self.freeze  # `freeze: text` in YAML
        self.freeze = [tower for tower in freeze if tower != "none"]
        self.lora_towers = [self.lora_towers] if isinstance(self.lora_towers, str) else self.lora_towers
        towers = list[str](self.lora_towers)
        if self.freeze and not self.is_pretrained("text"):
            raise ValueError(
                "freeze text would leave a random text tower random, which tells no two words apart: start from "
                "--init_checkpoint or pretrained towers, or leave freeze out."
            )
        if self.freeze_vision_layers and not self.is_pretrained("vision"):
            raise ValueError(
                f"freeze_vision_layers {self.freeze_vision_layers} would leave random layers random: start from "
                "--init_checkpoint or pretrained towers, or leave it out."
            )
        if self.freeze_vision_layers and self.lora_rank:
            raise ValueError(
                f"freeze_vision_layers {self.freeze_vision_layers} keeps layers that lora_rank {self.lora_rank} would "
                "adapt: leave one of them out."
            )
        random = [tower for tower in towers if not self.is_pretrained(tower)]
        if self.lora_rank and random:
            raise ValueError(
                f"lora_rank {self.lora_rank} would leave a random {random[0]} tower random: adapters need "
                "--init_checkpoint or pretrained towers. To train that tower whole, leave it out of lora_towers."
            )
        if self.lora_rank and not towers:
            raise ValueError(f"lora_rank {self.lora_rank} has no tower to adapt: name one in lora_towers.")
        if not self.lora_rank and set(towers) != {"vision", "text"}:
            raise ValueError(
                f"lora_towers {' '.join(towers)} names what lora_rank adapts, and lora_rank is 0: set --lora_rank 8, "
                "or leave lora_towers out."
            )
        if self.lora_rank and (both := set(self.freeze) & set(towers)):
            raise ValueError(
                f"freeze keeps the {both.pop()} tower as it is, and lora_rank {self.lora_rank} would adapt it: set "
                "--lora_towers vision, or leave one of them out."
            )

    def _check_publishing(self) -> None:
        if self.push_to_hub and not self.hub_repo_id:
            raise ValueError("push_to_hub needs hub_repo_id: name the repository, such as me/lumbarclip-demo.")
        if self.hub_tag != PretrainArguments.hub_tag and not self.push_to_hub:
            raise ValueError(
                f"hub_tag {self.hub_tag} names the version that push_to_hub publishes: set push_to_hub, too, or "
                "publish afterwards with train/publish.py --tag."
            )
        if self.push_to_hub and not self.evaluate:
            raise ValueError(
                "push_to_hub publishes a model with its results: leave evaluate on, or publish afterwards with "
                "train/publish.py --allow_unmeasured."
            )
