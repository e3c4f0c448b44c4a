"""Supervised reference: the vision tower learns the labels themselves, with the same data and budget."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPOutput
from modeling_lumbarclip.vision_tower_lumbarclip import output_width
from train.objectives.objective import Gather, Objective, in_full_precision
from train.training.distributed import gather_with_gradient


def supervised_loss(logits: Tensor, labels: Tensor, exclusive: bool) -> Tensor:
    r"""Compute the cross-entropy of class logits: over exclusive classes, or of each finding on its own.

    Args:
        logits: Shape (N, K).
        labels: Multi-hot classes. Shape (N, K).
        exclusive: True: exactly one class per row (softmax). False: each class is present or absent on its own
            (sigmoid); the mean over rows and classes.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> supervised_loss(torch.zeros(1, 4), torch.tensor([[0, 1, 0, 0]]), exclusive=True)
        tensor(1.3863)
        >>> supervised_loss(torch.zeros(1, 4), torch.tensor([[0, 1, 0, 1]]), exclusive=False)
        tensor(0.6931)
    """
    if logits.shape != labels.shape:
        raise ValueError(f"labels must have the shape of the logits, {tuple(logits.shape)}; got {tuple(labels.shape)}.")
    with torch.autocast(logits.device.type, enabled=False):
        logits = in_full_precision(logits)
        loss = F.cross_entropy if exclusive else F.binary_cross_entropy_with_logits
        return loss(logits, labels.to(logits))


class SupervisedObjective(Objective):
    """Learn the classes of the column `labels` with a linear head on the pooled image features, without texts.

    A reference for what only the labels teach a tower on the same budget. Only the vision tower and the head learn:
    projected features, zero-shot answers and retrieval of such a model are at chance level.

    The classes are exclusive if every training pair has exactly one (softmax), else findings (sigmoid). If some pairs
    have none, "none of these" is another class, see `train.data.loaders.target_classes`.
    """

    inputs = frozenset({"labels"})

    def __init__(self, model: LumbarCLIPModel, train_labels: Tensor | None = None, **settings: Any) -> None:
        super().__init__(model, train_labels, **settings)
        assert train_labels is not None
        self.exclusive = bool((train_labels.sum(dim=1) == 1).all())
        self.class_head = nn.Linear(output_width(model.vision_model), train_labels.shape[1])
        learned = [parameter for parameter in model.vision_model.parameters() if parameter.requires_grad]
        model.requires_grad_(False)
        for parameter in learned:  # in a tower with adapters, only these
            parameter.requires_grad_(True)

    @classmethod
    def label_settings(cls, target_columns: list[str], count_absences: bool) -> tuple[list[str], bool]:
        return ["labels"], False

    def forward(self, output: LumbarCLIPOutput, labels: Tensor | None, gather: Gather = gather_with_gradient) -> Tensor:
        assert output.image_features is not None and labels is not None
        num_classes = self.class_head.out_features
        # Another split may lack the class "none of these", or have it although training lacks it.
        labels = F.pad(labels, (0, num_classes - labels.shape[1]))
        return supervised_loss(gather(self.class_head(output.image_features)), gather(labels), self.exclusive)
