"""Supervised reference: the vision tower learns the labels themselves, with the same data and budget."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
    in_full_precision,
)
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

    A reference for what only the labels teach a tower on the same budget. On its own, only the vision tower and the
    head learn: projected features, zero-shot answers and retrieval of such a model are at chance level.

    The classes are exclusive if every training pair has exactly one (softmax), else findings (sigmoid). If some pairs
    have none, "none of these" is another class, see `train.data.loaders.target_classes`.
    """

    inputs = frozenset({"classes"})
    trains = frozenset({"vision_model"})

    def __init__(
        self,
        model: LumbarCLIPModel,
        targets: TrainingTargets = NO_TARGETS,
        settings: ObjectiveSettings = DEFAULT_SETTINGS,
    ) -> None:
        super().__init__(model, targets, settings)
        assert targets.classes is not None
        self.exclusive = bool((targets.classes.sum(dim=1) == 1).all())
        self.class_head = nn.Linear(output_width(model.vision_model), targets.classes.shape[1])

    def forward(self, pairs: Pairs, gather: Gather = gather_with_gradient) -> Tensor:
        features, classes = pairs.output.image_features, pairs.classes
        assert features is not None and classes is not None
        # Another split may lack the class "none of these", or have it although training lacks it.
        classes = F.pad(classes, (0, self.class_head.out_features - classes.shape[1]))
        return supervised_loss(gather(self.class_head(features)), gather(classes), self.exclusive)
