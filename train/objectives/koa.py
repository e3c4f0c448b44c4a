"""CLIP-KOA: grades told by prompts, alike for a film and its mirror image, and for two views of a film.

Shapes: N films, G grades of an ordinal scale, W wordings of a grade, D width of the shared space.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data_scripts.records import KNEE
from modeling_lumbarclip import LumbarCLIPModel
from modeling_lumbarclip.vision_tower_lumbarclip import output_width
from train.objectives.objective import (
    DEFAULT_SETTINGS,
    NO_TARGETS,
    Gather,
    Objective,
    ObjectiveSettings,
    Pairs,
    TrainingTargets,
    check_grades,
    in_full_precision,
)
from train.training.distributed import gather_with_gradient

ERROR_MOMENTUM = 0.9  # of the running error of a grade, a step
MIN_ERROR = 0.05  # a grade that is learned keeps some weight


def grade_similarities(image_embeds: Tensor, grade_embeds: Tensor, inverse_temperature: Tensor | float) -> Tensor:
    r"""Compare films with the prompts of each grade: $S_{ig} = z_i \cdot \bar t_g / \tau$.

    $\bar t_g$ is the mean of the wordings at unit length, as in zero-shot classification.

    Args:
        image_embeds: Unit length. Shape (N, D).
        grade_embeds: Unit length. Shape (G, W, D).
        inverse_temperature: 1 / τ, > 0. Scalar.

    Returns:
        Logits of a softmax over the grades. Shape (N, G), at least float32.

    Raises:
        ValueError: If the shapes do not fit.

    Source:
        CLIP-KOA, arXiv 2504.19443: similarities S of image and grade prompts; ensembles as in CLIP, section 3.1.4.

    Example:
        >>> grade_similarities(torch.tensor([[1.0, 0.0]]), torch.eye(2)[:, None], 10.0)
        tensor([[10.,  0.]])
    """
    if image_embeds.ndim != 2 or grade_embeds.ndim != 3 or image_embeds.shape[-1] != grade_embeds.shape[-1]:
        raise ValueError(
            "image_embeds must be (N, D) and grade_embeds (G, W, D); got "
            f"{tuple(image_embeds.shape)} and {tuple(grade_embeds.shape)}."
        )
    with torch.autocast(image_embeds.device.type, enabled=False):
        ensembles = F.normalize(in_full_precision(grade_embeds).mean(dim=1), dim=-1)
        return inverse_temperature * in_full_precision(image_embeds) @ ensembles.T


def grade_cross_entropy(similarities: Tensor, grades: Tensor, grade_weights: Tensor | None = None) -> Tensor:
    """Compute CE(S, y), the mean over films with a grade.

    Args:
        similarities: S, logits. Shape (N, G).
        grades: y, indices on the scale; -1: not graded, which changes nothing. Shape (N,), integer.
        grade_weights: Weight of each grade, >= 0; the mean is weighted by them. Shape (G,). None: all alike.

    Returns:
        In nats; 0 if no film is graded. Scalar, at least float32.

    Raises:
        ValueError: If a grade is outside the scale, or the shapes do not fit.

    Example:
        >>> grade_cross_entropy(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([0, -1]))
        tensor(0.1269)
    """
    num_grades = similarities.shape[-1]
    check_grades(grades, len(similarities), num_grades)
    if grade_weights is not None and grade_weights.shape != (num_grades,):
        raise ValueError(f"grade_weights must be ({num_grades},), one a grade; got {tuple(grade_weights.shape)}.")
    with torch.autocast(similarities.device.type, enabled=False):
        similarities = in_full_precision(similarities)
        if not (grades >= 0).any():
            return 0 * similarities.sum()  # every parameter keeps a gradient, which distributed training waits for
        weights = None if grade_weights is None else grade_weights.to(similarities)
        return F.cross_entropy(similarities, grades.long(), weights, ignore_index=-1)


def symmetry_loss(
    similarities: Tensor, flipped_similarities: Tensor, grades: Tensor, grade_weights: Tensor | None = None
) -> Tensor:
    r"""Compute $L_{sym} = CE(S, y) + CE(S^H, y)$: a film and its mirror image have the same grade.

    Args:
        similarities: S of the films. Shape (N, G).
        flipped_similarities: $S^H$ of the films flipped left to right, row by row. Shape (N, G).
        grades: y, as in `grade_cross_entropy`. Shape (N,), integer.
        grade_weights: As in `grade_cross_entropy`. Shape (G,).

    Returns:
        In nats; 0 if no film is graded. Scalar.

    Raises:
        ValueError: If a grade is outside the scale, or the shapes do not fit.

    Source:
        CLIP-KOA, arXiv 2504.19443, symmetry loss. Weights of grades are ours, for its open question on early grades.

    Relations:
        `grade_cross_entropy` is its first term alone; `consistency_loss` needs no grades.

    Example:
        >>> symmetry_loss(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 0.0]]), torch.tensor([0]))
        tensor(0.8201)
    """
    _check_pair(similarities, flipped_similarities, "flipped_similarities")
    of_films = grade_cross_entropy(similarities, grades, grade_weights)
    return of_films + grade_cross_entropy(flipped_similarities, grades, grade_weights)


def consistency_loss(similarities: Tensor, view_similarities: Tensor) -> Tensor:
    r"""Compute the symmetric divergence of two views' grades: $\frac12 (KL(p \| q) + KL(q \| p))$, the mean over films.

    p and q are the softmax of S and of the similarities of another augmented view. Both learn.

    Args:
        similarities: S. Shape (N, G).
        view_similarities: Those of the other view, row by row. Shape (N, G).

    Returns:
        In nats. Scalar.

    Raises:
        ValueError: If the shapes differ.

    Source:
        CLIP-KOA, arXiv 2504.19443, names a consistency loss without its form: form and weight are ours.

    Example:
        >>> consistency_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
        tensor(0.4621)
    """
    _check_pair(similarities, view_similarities, "view_similarities")
    with torch.autocast(similarities.device.type, enabled=False):
        log_p, log_q = (in_full_precision(logits).log_softmax(dim=1) for logits in (similarities, view_similarities))
        return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(dim=1).mean() / 2


def error_weights(errors: Tensor) -> Tensor:
    """Turn the running error of each grade, in [0, 1], into weights with mean 1. Shape (G,) both.

    Example:
        >>> error_weights(torch.tensor([0.2, 0.6, 0.0]))
        tensor([0.7059, 2.1176, 0.1765])
    """
    kept = errors.clamp_min(MIN_ERROR)
    return kept / kept.mean()


def updated_errors(errors: Tensor, similarities: Tensor, grades: Tensor) -> Tensor:
    """Move the error of each grade towards 1 - p_y of its films; a grade without a film keeps its error.

    Args:
        errors: Shape (G,), in [0, 1].
        similarities: S. Shape (N, G).
        grades: Shape (N,), integer; -1: not graded.

    Example:
        >>> updated_errors(torch.ones(2), torch.zeros(1, 2), torch.tensor([1]))
        tensor([1.0000, 0.9500])
    """
    graded = grades >= 0
    one_hot = F.one_hot(grades[graded].long(), len(errors)).to(errors)
    counts = one_hot.sum(dim=0)
    missed = 1 - (similarities.detach()[graded].to(errors).softmax(dim=1) * one_hot).sum(dim=1)
    found = one_hot.T @ missed / counts.clamp_min(1)
    return torch.where(counts > 0, ERROR_MOMENTUM * errors + (1 - ERROR_MOMENTUM) * found, errors)


def _check_pair(similarities: Tensor, others: Tensor, name: str) -> None:
    if similarities.shape != others.shape:
        raise ValueError(f"{name} must be {tuple(similarities.shape)}, like similarities; got {tuple(others.shape)}.")


class GradePromptsObjective(Objective):
    """Learn grades from the prompts of each grade alone: what symmetry and consistency add is measured against it.

    `grade_weights` `adaptive` weighs each grade by its running training error, so that grades that are often missed,
    such as KL 1, count more.
    """

    inputs = frozenset({"grades", "grade_prompts"})

    def __init__(
        self,
        model: LumbarCLIPModel,
        targets: TrainingTargets = NO_TARGETS,
        settings: ObjectiveSettings = DEFAULT_SETTINGS,
    ) -> None:
        super().__init__(model, targets, settings)
        is_adaptive = settings.grade_weights == "adaptive"
        # Kept with the run, so that a resumed one goes on with the same weights; the same on every process.
        self.errors: Tensor | None
        self.register_buffer("errors", torch.ones(len(targets.grade_names)) if is_adaptive else None)

    def weights_of(self, similarities: Tensor, grades: Tensor) -> Tensor | None:
        """Return the weights of the grades before this step, shape (G,), and in training take note of its errors."""
        if self.errors is None:
            return None
        weights = error_weights(self.errors)
        if self.training:
            self.errors.copy_(updated_errors(self.errors, similarities, grades))
        return weights

    def forward(self, pairs: Pairs, gather: Gather = gather_with_gradient) -> Tensor:
        similarities, grades = similarities_of(pairs, pairs.output.image_embeds, gather), gathered_grades(pairs, gather)
        return grade_cross_entropy(similarities, grades, self.weights_of(similarities, grades))


class ImageGradesObjective(GradePromptsObjective):
    """Learn grades with a linear head on the pooled image features, without texts: the reference of equal budget.

    On its own, only the vision tower and the head learn: prompts tell nothing, a grade probe does.
    """

    inputs = frozenset({"grades"})
    trains = frozenset({"vision_model"})

    def __init__(
        self,
        model: LumbarCLIPModel,
        targets: TrainingTargets = NO_TARGETS,
        settings: ObjectiveSettings = DEFAULT_SETTINGS,
    ) -> None:
        super().__init__(model, targets, settings)
        self.grade_head = nn.Linear(output_width(model.vision_model), len(targets.grade_names))

    def forward(self, pairs: Pairs, gather: Gather = gather_with_gradient) -> Tensor:
        assert pairs.output.image_features is not None
        logits, grades = gather(self.grade_head(pairs.output.image_features)), gathered_grades(pairs, gather)
        return grade_cross_entropy(logits, grades, self.weights_of(logits, grades))


class SymmetryObjective(GradePromptsObjective):
    """Learn grades from prompts, for each film and its mirror image; see `symmetry_loss`. Knees only.

    Prompts name no side, and are the same for both: a flipped right knee looks like a left one of the same grade.
    """

    inputs = frozenset({"grades", "grade_prompts", "flipped_images"})

    @classmethod
    def check_dataset(cls, anatomy: str | None, grade_names: Sequence[str]) -> None:
        """Refuse images whose left and right are facts.

        Raises:
            ValueError: If the dataset is not of knees.
        """
        super().check_dataset(anatomy, grade_names)
        if anatomy != KNEE:
            raise ValueError(
                f"symmetry learns that an image and its mirror image mean the same, which holds for single knees; the "
                f"dataset shows {anatomy or 'an unknown anatomy'}, where left and right are facts. Use grade_prompts "
                "instead, or consistency."
            )

    def forward(self, pairs: Pairs, gather: Gather = gather_with_gradient) -> Tensor:
        similarities, grades = similarities_of(pairs, pairs.output.image_embeds, gather), gathered_grades(pairs, gather)
        flipped = similarities_of(pairs, pairs.flipped_image_embeds, gather)
        return symmetry_loss(similarities, flipped, grades, self.weights_of(similarities, grades))


class ConsistencyObjective(Objective):
    """Learn to give two augmented views of an image the same grades; see `consistency_loss`.

    Alone it is met by a model that tells no grade from another: combine it with grade_prompts or symmetry.
    """

    inputs = frozenset({"grade_prompts", "image_views"})

    def forward(self, pairs: Pairs, gather: Gather = gather_with_gradient) -> Tensor:
        similarities = similarities_of(pairs, pairs.output.image_embeds, gather)
        return consistency_loss(similarities, similarities_of(pairs, pairs.view_image_embeds, gather))


def similarities_of(pairs: Pairs, image_embeds: Tensor | None, gather: Gather) -> Tensor:
    """Gather embeddings of images (n, D) and compare them with the grades' prompts. Shape (N, G)."""
    assert image_embeds is not None and pairs.grade_embeds is not None
    assert pairs.output.inverse_temperature is not None
    return grade_similarities(gather(image_embeds), pairs.grade_embeds, pairs.output.inverse_temperature)


def gathered_grades(pairs: Pairs, gather: Gather) -> Tensor:
    """Gather the grades of all pairs. Shape (N,)."""
    assert pairs.grades is not None
    return gather(pairs.grades)
