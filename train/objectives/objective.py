"""The interface of all training objectives, and the module that joins a model with one of them."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPOutput
from train.training.distributed import gather_with_gradient

Gather = Callable[[Tensor], Tensor]


class Objective(nn.Module, ABC):
    """A loss function, fed with the pairs of all processes.

    Parameters that only training needs, such as a second head, belong to the objective, not the published model.

    Args:
        model: The model to train. An objective freezes the parts that it does not use, since distributed training
            waits for the gradient of every trainable parameter.
        train_labels: Multi-hot classes of the training pairs. Shape (R, K); None: they have none.
        alpha: Weight of the loss on reports, in [0, 1]; 1 - alpha weighs that on augmented texts.
        label_temperature: Temperature of the soft targets, > 0; None: the learned one.

    Raises:
        ValueError: If the objective needs classes and there are none.
    """

    # What it reads besides images and reports; nothing else is computed: "local_features" (patches and tokens),
    # "augmented_texts", "labels", which are required, or "labels_if_any", "label_temperature".
    inputs: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        model: LumbarCLIPModel,
        train_labels: Tensor | None = None,
        *,
        alpha: float = 0.5,
        label_temperature: float | None = None,
    ) -> None:
        super().__init__()
        self.alpha, self.label_temperature = alpha, label_temperature
        if "labels" in self.inputs and train_labels is None:
            raise ValueError(
                f"{type(self).__name__} learns from the classes of the pairs, but no training pair has one: label the "
                "data, name columns that have classes (--target_columns labels), or choose an objective that needs "
                "none, such as --objective clip."
            )

    @classmethod
    def label_settings(cls, target_columns: list[str], count_absences: bool) -> tuple[list[str], bool]:
        """Choose the columns of the labels, and whether absences count; see `train.data.loaders.target_classes`."""
        return (target_columns, count_absences) if cls.inputs & {"labels", "labels_if_any"} else ([], False)

    def target_vectors(self, labels: Tensor) -> Tensor:
        """Turn multi-hot classes (R, K) into vectors (R, K) whose dot products are the logits of the soft targets."""
        return labels

    def target_temperature(self, inverse_temperature: float) -> float | None:
        """Return the temperature of the soft targets at this 1/τ of the model; None: there are no soft targets."""
        return None

    @abstractmethod
    def forward(self, output: LumbarCLIPOutput, labels: Tensor | None, gather: Gather = gather_with_gradient) -> Tensor:
        """Gather what the loss compares and compute the loss of the whole batch.

        Args:
            output: The model's, for the n pairs of this process.
            labels: Their multi-hot classes. Shape (n, K); None: they have none.
            gather: Joins a tensor of shape (n, ...) with those of the other processes; `keep_local` if each process
                holds all pairs.

        Returns:
            The loss in nats, equal on all processes. Scalar.
        """


class ModelWithObjective(nn.Module):
    """Model and objective as one module, so that distributed training sees every parameter in one forward."""

    def __init__(self, model: LumbarCLIPModel, objective: Objective) -> None:
        super().__init__()
        self.model, self.objective = model, objective

    def encode(self, batch: dict[str, Tensor]) -> LumbarCLIPOutput:
        """Compute what the objective compares."""
        # No objective needs the logits, an N × N matrix.
        local = "local_features" in self.objective.inputs
        return self.model(**batch, return_loss=False, return_logits=False, output_local_features=local)

    def forward(self, batch: dict[str, Tensor], labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Compute the loss of the pairs of all processes, and the inverse temperature as used, both scalars."""
        output = self.encode(batch)
        assert output.inverse_temperature is not None
        return self.objective(output, labels), output.inverse_temperature.detach()


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
