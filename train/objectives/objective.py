"""What all training objectives share: their interface, and the step that joins a model with one of them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPOutput
from train.training.distributed import gather_with_gradient

Gather = Callable[[Tensor], Tensor]


class Objective(nn.Module, ABC):
    """What a run minimises: a pure loss function, fed with the pairs of all processes.

    Whatever only training needs, such as a second head, is a parameter of the objective. The published model has none
    of it.

    Args:
        model: What is trained. An objective that leaves a part of it unused freezes that part, which distributed
            training would otherwise wait for.
        train_labels: Multi-hot classes of the training pairs. Shape (R, K); None: they have none.

    Raises:
        ValueError: If the objective cannot do without classes and there are none.
    """

    # What it reads beside images and reports, nothing else is made: "local_features" (patches and tokens),
    # "augmented_texts", "labels", which it cannot do without, or "labels_if_any".
    inputs: ClassVar[frozenset[str]] = frozenset()
    has_label_temperature: ClassVar[bool] = False  # else a warning need not advise another one

    def __init__(self, model: LumbarCLIPModel, train_labels: Tensor | None = None) -> None:
        super().__init__()
        if "labels" in self.inputs and train_labels is None:
            raise ValueError(
                f"{type(self).__name__} learns from the classes of the pairs, but no training pair has one: label the "
                "data, name columns that have classes (--target_columns labels), or take an objective that does "
                "without, such as --objective clip."
            )

    @classmethod
    def label_settings(cls, target_columns: list[str], count_absences: bool) -> tuple[list[str], bool]:
        """Choose the columns that `labels` come from, given the run's settings of these names.

        Returns:
            Columns, and whether absences count; see `train.data.loaders.target_classes`.
        """
        return (target_columns, count_absences) if cls.inputs & {"labels", "labels_if_any"} else ([], False)

    def target_vectors(self, labels: Tensor) -> Tensor:
        """Vectors of the pairs whose dot products are the overlaps that soft targets are the softmax of.

        Args:
            labels: Multi-hot classes of the pairs. Shape (R, K).

        Returns:
            The classes themselves, or what the objective makes of them. Shape (R, K).
        """
        return labels

    def target_temperature(self, inverse_temperature: float) -> float | None:
        """Temperature of that softmax, at this inverse temperature of the model; None: there are no soft targets."""
        return None

    @abstractmethod
    def forward(self, output: LumbarCLIPOutput, labels: Tensor | None, gather: Gather = gather_with_gradient) -> Tensor:
        """Gather what the loss compares and compute the loss of the whole batch.

        Args:
            output: What the model returned for n pairs, those of this process.
            labels: Their multi-hot classes. Shape (n, K); None: they have none.
            gather: Joins a tensor of shape (n, ...) with those of the other processes. `keep_local` where each
                process holds all the pairs there are.

        Returns:
            The loss in nats, equal on all processes. Scalar.
        """


class ModelWithObjective(nn.Module):
    """One step of training as one module, so that distributed training sees every parameter in one forward.

    Args:
        model: What is published.
        objective: What it is trained for.
    """

    def __init__(self, model: LumbarCLIPModel, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def encode(self, batch: dict[str, Tensor]) -> LumbarCLIPOutput:
        """Compute what the objective compares, for the inputs of n pairs."""
        return self.model(**batch, return_loss=False, output_local_features="local_features" in self.objective.inputs)

    def forward(self, batch: dict[str, Tensor], labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Compute the loss of a batch.

        Args:
            batch: Inputs of the model for the n pairs of this process.
            labels: Their multi-hot classes. Shape (n, K), or None.

        Returns:
            The loss of the pairs of all processes, and the inverse temperature as used. Two scalars.
        """
        output = self.encode(batch)
        assert output.inverse_temperature is not None
        return self.objective(output, labels), output.inverse_temperature.detach()


def keep_local(local: Tensor) -> Tensor:
    """Gather nothing: this process holds all pairs."""
    return local


def gather_pairs(output: LumbarCLIPOutput, gather: Gather) -> tuple[Tensor, Tensor, Tensor]:
    """Return image embeddings and text embeddings of all pairs, both (N, D), and the inverse temperature."""
    assert output.image_embeds is not None and output.text_embeds is not None
    assert output.inverse_temperature is not None
    return gather(output.image_embeds), gather(output.text_embeds), output.inverse_temperature


def similarity_logits(image_embeds: Tensor, text_embeds: Tensor, inverse_temperature: Tensor | float) -> Tensor:
    r"""Cosine similarities times the inverse temperature, in float32 (float64 for float64) even under autocast.

    Args:
        image_embeds: Unit-length image embeddings. Shape (N, D), float.
        text_embeds: Unit-length text embeddings. Shape (M, D), float.
        inverse_temperature: Factor on the cosine similarities, > 0. Scalar.

    Returns:
        $s\, z_i \cdot t_j$. Shape (N, M).

    Raises:
        ValueError: If there is no image or no text, or the widths differ.

    Example:
        >>> similarity_logits(torch.eye(2), torch.tensor([[0.6, 0.8]]), 10.0)
        tensor([[6.],
                [8.]])
    """
    if image_embeds.ndim != 2 or text_embeds.ndim != 2 or image_embeds.shape[1] != text_embeds.shape[1]:
        raise ValueError(
            "image_embeds and text_embeds must have shapes (images, width) and (texts, width); got "
            f"{tuple(image_embeds.shape)} and {tuple(text_embeds.shape)}."
        )
    if len(image_embeds) == 0 or len(text_embeds) == 0:
        raise ValueError(f"No pair to contrast: {len(image_embeds)} images and {len(text_embeds)} texts.")
    with torch.autocast(image_embeds.device.type, enabled=False):
        return inverse_temperature * in_full_precision(image_embeds) @ in_full_precision(text_embeds).T


def in_full_precision(tensor: Tensor) -> Tensor:
    """Return float64 as it is and every other type as float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()
