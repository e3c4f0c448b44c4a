"""The interface of all training objectives, their weighted sum, and the module that joins a model with it.

Shapes: n pairs of this process, m counterfactuals, R pairs of the training split, K classes, F findings, G grades, W
wordings of a step, D width of the embeddings.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPOutput
from train.data.text_cache import TextCache
from train.objectives.wordings import StepWordings
from train.training.distributed import gather_with_gradient

Gather = Callable[[Tensor], Tensor]
# The parts of the model that an objective may train.
PARTS = ("vision_model", "image_projection", "text_model", "text_projection", "log_inverse_temperature")
# What a batch holds for the objectives besides images and texts, by the names of `Pairs`.
TARGETS = ("labels", "classes", "states", "grades", "facts", "counterfactual_rows")
# What has a row for each pair, of `Pairs` and of the model's output.
OF_PAIRS = ("labels", "classes", "states", "grades", "facts", "flipped_image_embeds", "view_image_embeds")
COMPARED = ("image_embeds", "text_embeds", "image_features", "augmented_text_embeds")


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """The pairs of this process, with what the objectives declare in `inputs`; the rest is None.

    Args:
        output: The model's.
        labels: Multi-hot classes of `target_columns`, for soft targets. Shape (n, K).
        classes: Multi-hot classes of the column `labels`. Shape (n, K).
        states: What a pair says of each finding: 1 stated, 0 denied, -1 nothing. Shape (n, F), integer.
        grades: Index of the grade on its scale, -1 unknown. Shape (n,), integer.
        facts: Equal for pairs with equal facts. Shape (n,), integer.
        statement_embeds: W wordings that state each finding, then W that deny it; equal on all processes. Shape
            (F, 2, W, D).
        grade_embeds: W wordings of each grade; equal on all processes. Shape (G, W, D).
        counterfactual_embeds: Reports with one fact changed. Shape (m, D).
        counterfactual_rows: The pair that each belongs to. Shape (m,), integer.
        flipped_image_embeds: The images, exchanged left and right. Shape (n, D).
        view_image_embeds: The images, augmented a second time. Shape (n, D).
    """

    output: LumbarCLIPOutput
    labels: Tensor | None = None
    classes: Tensor | None = None
    states: Tensor | None = None
    grades: Tensor | None = None
    facts: Tensor | None = None
    statement_embeds: Tensor | None = None
    grade_embeds: Tensor | None = None
    counterfactual_embeds: Tensor | None = None
    counterfactual_rows: Tensor | None = None
    flipped_image_embeds: Tensor | None = None
    view_image_embeds: Tensor | None = None

    @classmethod
    def join(cls, parts: Sequence["Pairs"]) -> "Pairs":
        """Join pairs that were encoded one part after the other."""
        joined: dict[str, Any] = {}
        for name in (*OF_PAIRS, "counterfactual_embeds"):
            if getattr(parts[0], name) is not None:
                joined[name] = torch.cat([getattr(part, name) for part in parts])
        starts = accumulate((len(part.output["image_embeds"]) for part in parts[:-1]), initial=0)
        rows = [(part.counterfactual_rows, start) for part, start in zip(parts, starts, strict=True)]
        if moved := [of_part + start for of_part, start in rows if of_part is not None]:
            joined["counterfactual_rows"] = torch.cat(moved)
        outputs: dict[str, Any] = {
            name: torch.cat([part.output[name] for part in parts]) for name in COMPARED if name in parts[0].output
        }
        scale = parts[0].output.inverse_temperature
        return replace(parts[0], output=LumbarCLIPOutput(**outputs, inverse_temperature=scale), **joined)

    def select(self, rows: Tensor) -> "Pairs":
        """Choose pairs by their indices, each once."""
        chosen: dict[str, Any] = {name: value[rows] for name in OF_PAIRS if (value := getattr(self, name)) is not None}
        if self.counterfactual_rows is not None and self.counterfactual_embeds is not None:
            places = torch.full((len(self.output["image_embeds"]),), -1, device=rows.device)
            places[rows] = torch.arange(len(rows), device=rows.device)
            place = places[self.counterfactual_rows]
            chosen |= {
                "counterfactual_embeds": self.counterfactual_embeds[place >= 0],
                "counterfactual_rows": place[place >= 0],
            }
        outputs: dict[str, Any] = {name: self.output[name][rows] for name in COMPARED if name in self.output}
        scale = self.output.inverse_temperature
        return replace(self, output=LumbarCLIPOutput(**outputs, inverse_temperature=scale), **chosen)


@dataclass(frozen=True, kw_only=True)
class TrainingTargets:
    """What the training split teaches: `labels`, `classes`, `states`, `grades` as in `Pairs`, of R pairs.

    `draws` says how often an epoch draws each pair, (R,); None: once. `findings` are the F names of the states,
    `grade_names` the scale, lowest first, and `num_counterfactuals` the pairs whose report has a counterfactual. None,
    empty and 0 where no objective asks, or the data have none.
    """

    labels: Tensor | None = None
    classes: Tensor | None = None
    states: Tensor | None = None
    draws: Tensor | None = None
    findings: Sequence[str] = ()
    grades: Tensor | None = None
    grade_names: Sequence[str] = ()
    num_counterfactuals: int = 0


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings:
    """The settings of a run that objectives read, by the names of `PretrainArguments`."""

    alpha: float = 0.5
    label_temperature: float | None = None
    grade_weights: str = "none"
    polarity_temperature: float = 0.15

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "ObjectiveSettings":
        """Choose them from all settings."""
        return cls(**{field.name: settings[field.name] for field in fields(cls)})


NO_TARGETS, DEFAULT_SETTINGS = TrainingTargets(), ObjectiveSettings()


class Objective(nn.Module, ABC):
    """A loss function, fed with the pairs of all processes.

    Parameters that only training needs, such as a second head, belong to the objective, not the published model.

    Args:
        model: The model to train.
        targets: What the training split teaches.
        settings: Settings of the run.

    Raises:
        ValueError: If the training split lacks what the objective learns from.
    """

    # What it reads besides images and reports; nothing else is computed. Required: "local_features" (patches and
    # tokens), "labels", "classes", "states" (with their statements), "grades", "grade_prompts", "facts",
    # "counterfactuals", "flipped_images", "image_views". If there are any: "augmented_texts", "labels_if_any".
    # "label_temperature" is a setting that it heeds.
    inputs: ClassVar[frozenset[str]] = frozenset()
    # The parts of the model that get a gradient. What no objective of a run trains is frozen, since distributed
    # training waits for the gradient of every trainable parameter.
    trains: ClassVar[frozenset[str]] = frozenset(PARTS)

    def __init__(
        self,
        model: LumbarCLIPModel,
        targets: TrainingTargets = NO_TARGETS,
        settings: ObjectiveSettings = DEFAULT_SETTINGS,
    ) -> None:
        super().__init__()
        self.settings = settings
        if problem := lacking_input(self.inputs, targets):
            raise ValueError(
                f"{type(self).__name__} {problem}, or choose an objective that needs none, such as --objectives clip."
            )

    @classmethod
    def check_dataset(cls, anatomy: str | None, grade_names: Sequence[str]) -> None:
        """Raise ValueError if the objective cannot learn from images of this anatomy, or from this scale of grades.

        Called before an image is read.
        """

    def target_vectors(self, labels: Tensor) -> Tensor:
        """Turn multi-hot classes (R, K) into vectors (R, K) whose dot products are the logits of the soft targets."""
        return labels

    def target_temperature(self, inverse_temperature: float) -> float | None:
        """Return the temperature of the soft targets at this 1/τ of the model; None: there are no soft targets."""
        return None

    @abstractmethod
    def forward(self, pairs: Pairs, gather: Gather = gather_with_gradient) -> Tensor:
        """Gather what the loss compares and compute the loss of the whole batch.

        Args:
            pairs: Those of this process.
            gather: Joins a tensor of shape (n, ...) with those of the other processes; `keep_local` if each process
                holds all pairs.

        Returns:
            The loss in nats, equal on all processes. Scalar.
        """


def lacking_input(inputs: frozenset[str], targets: TrainingTargets) -> str | None:
    """Say in words what the training split lacks of an objective's inputs; None if nothing."""
    if inputs & {"labels", "classes"} and (targets.labels if "labels" in inputs else targets.classes) is None:
        return (
            "learns from the classes of the pairs, but no training pair has one: label the data, name columns that "
            "have classes (--target_columns labels)"
        )
    if "states" in inputs:
        if targets.states is None or not len(targets.findings):
            return (
                "learns which findings are present, but the dataset has no classes: build it with "
                "--labels_from_reports, which reads them from the reports"
            )
        if not told_apart(targets.states).any():
            return (
                "learns to tell a finding from its denial, but no class is both stated and denied in the training "
                f"pairs ({', '.join(targets.findings)}): add pairs of the other kind"
            )
    if "grade_prompts" in inputs and not targets.grade_names:
        return "words the grades of a scale, but the dataset has none: build it with a column `grade`"
    if "grades" in inputs and (targets.grades is None or not (targets.grades >= 0).any()):
        return "learns from grades, but no training pair has one: build the dataset with a column `grade`"
    if "counterfactuals" in inputs and not targets.num_counterfactuals:
        return (
            "changes one fact of a report, but the report reader finds none to change in any training report: see what "
            "it reads with `python -m data_scripts.parse_reports`"
        )
    return None


def told_apart(states: Tensor) -> Tensor:
    """Tell which findings are both stated and denied, in states (R, F). Shape (F,), bool."""
    return (states == 1).any(dim=0) & (states == 0).any(dim=0)


class CombinedObjective(nn.Module):
    """The weighted sum of one or more objectives; what none of them trains is frozen.

    Args:
        terms: Objectives by name.
        weights: Weight of each, > 0.
        model: The model to train.
    """

    def __init__(self, terms: Mapping[str, Objective], weights: Mapping[str, float], model: LumbarCLIPModel) -> None:
        super().__init__()
        self.terms, self.weights = nn.ModuleDict(terms), dict(weights)
        self.inputs = frozenset().union(*(term.inputs for term in terms.values()))
        trained = frozenset().union(*(term.trains for term in terms.values()))
        for part in set(PARTS) - trained:
            getattr(model, part).requires_grad_(False)

    @property
    def with_targets(self) -> Objective:
        """The first objective that has soft targets; the first of all if none has."""
        terms: list[Any] = [*self.terms.values()]
        return next((term for term in terms if term.target_temperature(1.0) is not None), terms[0])

    def forward(self, pairs: Pairs, gather: Gather = gather_with_gradient) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the weighted sum, and each loss as `NAME_loss` without its weight and gradient. Scalars."""
        losses = {name: term(pairs, gather) for name, term in self.terms.items()}
        total = torch.stack([self.weights[name] * loss for name, loss in losses.items()]).sum()
        return total, {f"{name}_loss": loss.detach() for name, loss in losses.items()}


class ModelWithObjective(nn.Module):
    """Model and objective as one module, so that distributed training sees every parameter in one forward.

    `statements` (F, 2, ...) and `grade_prompts` (G, ...) are the wordings that the objective's inputs ask for. With a
    `text_cache` the text tower is frozen, and never run.
    """

    step: Tensor
    text_cache: TextCache | None = None
    frozen_norms: Sequence[nn.Module] = ()  # of the vision tower, which keep their statistics

    def __init__(
        self,
        model: LumbarCLIPModel,
        objective: CombinedObjective,
        statements: StepWordings | None = None,
        grade_prompts: StepWordings | None = None,
    ) -> None:
        super().__init__()
        self.model, self.objective = model, objective
        self.statements, self.grade_prompts = statements, grade_prompts
        if statements is not None or grade_prompts is not None:
            # Steps of training so far: they choose the wordings. A buffer, so that a resumed run goes on with them.
            self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def embed_texts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed texts (U, T) as unit-length vectors (U, D).

        All texts of a step and of a validation pass through here, but those whose tokens are compared.
        """
        if self.text_cache is None:
            return self.model.get_text_features(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        return F.normalize(self.model.text_projection(self.text_cache(input_ids, attention_mask)), dim=-1)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of all parts, but keep a frozen text tower (no dropout) and frozen norms in evaluation mode."""
        super().train(mode)
        for norm in self.frozen_norms:
            norm.eval()
        if self.text_cache is not None:
            self.model.text_model.eval()
        return self

    def embed_wordings(self) -> dict[str, Any]:
        """Embed the wordings of this step of training, or those of every validation: fields of `Pairs`."""
        embeds: dict[str, Any] = {}
        for name, wordings in (("statement_embeds", self.statements), ("grade_embeds", self.grade_prompts)):
            if wordings is not None:
                input_ids, attention_mask = wordings.draw(self.step, self.training)
                of_texts = self.embed_texts(input_ids.flatten(0, -2), attention_mask.flatten(0, -2))
                embeds[name] = of_texts.unflatten(0, input_ids.shape[:-1])
        return embeds

    def encode(self, batch: Mapping[str, Tensor]) -> Pairs:
        """Compute what the objective compares, without logits: an N × N matrix; and without the wordings."""
        pairs: dict[str, Any] = {name: batch[name] for name in TARGETS if name in batch}
        fields = self._embed_images(batch["pixel_values"])
        for name, view in (
            ("flipped_image_embeds", "flipped_pixel_values"),
            ("view_image_embeds", "view_pixel_values"),
        ):
            if view in batch:
                pairs[name] = self._embed_images(batch[view])["image_embeds"]
        index = batch.get("text_index", slice(None))
        texts = batch["input_ids"], batch["attention_mask"]
        if "local_features" in self.objective.inputs:
            words = self.model(
                input_ids=texts[0], attention_mask=texts[1], return_loss=False, output_local_features=True
            )
            fields |= {name: words[name][index] for name in ("text_embeds", "token_features", "token_mask")}
        else:
            fields["text_embeds"] = self.embed_texts(*texts)[index]
        if "augmented_input_ids" in batch:
            augmented = self.embed_texts(batch["augmented_input_ids"], batch["augmented_attention_mask"])
            fields["augmented_text_embeds"] = augmented[batch.get("augmented_text_index", slice(None))]
        if "counterfactual_input_ids" in batch:
            changed = batch["counterfactual_input_ids"], batch["counterfactual_attention_mask"]
            none = fields["text_embeds"][:0]  # a step may draw none, and a tower needs one
            pairs["counterfactual_embeds"] = self.embed_texts(*changed) if len(changed[0]) else none
        return Pairs(output=LumbarCLIPOutput(**fields), **pairs)

    def _embed_images(self, pixel_values: Tensor) -> dict[str, Any]:
        output = self.model(
            pixel_values=pixel_values,
            return_loss=False,
            return_logits=False,
            output_local_features="local_features" in self.objective.inputs,
        )
        # The layers of the tower would be the largest tensors when the outputs of a whole split are kept.
        return {name: value for name, value in output.items() if name != "vision_model_output"}

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of the pairs of all processes, and that of each term and the inverse temperature as used."""
        pairs = self.encode(batch)
        pairs = replace(pairs, **self.embed_wordings())
        if self.training and hasattr(self, "step"):
            self.step += 1
        assert pairs.output.inverse_temperature is not None
        loss, terms = self.objective(pairs)
        return loss, {"inverse_temperature": pairs.output.inverse_temperature.detach(), **terms}


def check_grades(grades: Tensor, num_rows: int, num_grades: int) -> None:
    """Check grades, (N,), that a loss learns from.

    Raises:
        ValueError: If there is not one a row, or one is not on the scale.
    """
    if grades.shape != (num_rows,):
        raise ValueError(f"grades must be ({num_rows},), one a row; got {tuple(grades.shape)}.")
    outside = grades[(grades < -1) | (grades >= num_grades)]
    if len(outside):
        raise ValueError(
            f"A grade must lie between 0 and {num_grades - 1}, or be -1 where a row has none; got {outside[0].item()}."
        )


def keep_local(local: Tensor) -> Tensor:
    """Return the tensor: this process holds all pairs."""
    return local


def gather_pairs(output: LumbarCLIPOutput, gather: Gather) -> tuple[Tensor, Tensor, Tensor]:
    """Return image embeddings and text embeddings of all pairs, both (N, D), and the inverse temperature."""
    assert output.image_embeds is not None and output.text_embeds is not None
    assert output.inverse_temperature is not None
    return gather(output.image_embeds), gather(output.text_embeds), output.inverse_temperature


def in_full_precision(tensor: Tensor) -> Tensor:
    """Return float64 unchanged, and every other type as float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
