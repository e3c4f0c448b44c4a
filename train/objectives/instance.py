"""Instance: InfoNCE in which pairs with equal facts are not told apart."""

import torch
from torch import Tensor

from modeling_lumbarclip.losses_lumbarclip import similarity_logits
from train.objectives.objective import Gather, Objective, Pairs, gather_pairs
from train.training.distributed import gather_with_gradient


def even_targets(facts: Tensor, facts_of_columns: Tensor) -> Tensor:
    """Spread the target of each row evenly over the columns with its facts: of (N,) and (M,), shape (N, M).

    Each row has a column with its facts.

    Example:
        >>> even_targets(torch.tensor([3, 5]), torch.tensor([3, 5, 3]))
        tensor([[0.5000, 0.0000, 0.5000],
                [0.0000, 1.0000, 0.0000]])
    """
    equal = facts[:, None] == facts_of_columns
    return equal / equal.sum(dim=1, keepdim=True)


def instance_loss(
    image_embeds: Tensor, text_embeds: Tensor, inverse_temperature: Tensor | float, facts: Tensor
) -> Tensor:
    r"""Compute symmetric InfoNCE in which all pairs with equal facts are right answers, in equal shares.

    Soft targets from few classes draw together all reports of a class, and retrieval finds a class instead of a report.
    Plain InfoNCE finds the report, but pushes apart pairs that say the same. With
    $T_{ij} = [f_i = f_j] / \sum_k [f_i = f_k]$,

    $$\mathcal L = -\frac{1}{2N} \sum_{ij} T_{ij} \big(\log \mathrm{softmax}_j(s\, z_i \cdot t_j)
      + \log \mathrm{softmax}_j(s\, t_i \cdot z_j)\big)$$

    Args:
        image_embeds: Unit length. Shape (N, D).
        text_embeds: Unit length, row i of the pair i. Shape (N, D).
        inverse_temperature: $s = 1 / \tau$, > 0. Scalar.
        facts: Equal for pairs with equal facts. Shape (N,), integer.

    Returns:
        The loss in nats. Scalar.

    Raises:
        ValueError: If the shapes do not fit, or there are no pairs.

    Source:
        UniCL, Yang et al. 2022 (arXiv 2204.03610), with facts for its classes.

    Relations:
        If all facts differ it is `info_nce_loss`; `soft_contrastive_loss` has shares for similar classes, too.

    Example:
        >>> instance_loss(torch.eye(2), torch.eye(2), 1.0, torch.tensor([0, 1]))
        tensor(0.3133)
        >>> instance_loss(torch.eye(2), torch.eye(2), 1.0, torch.tensor([0, 0]))
        tensor(0.8133)
    """
    if facts.shape != image_embeds.shape[:1]:
        raise ValueError(
            f"facts must have one entry for each of the {len(image_embeds)} pairs; got {tuple(facts.shape)}."
        )
    logits = similarity_logits(image_embeds, text_embeds, inverse_temperature)
    with torch.autocast(logits.device.type, enabled=False):
        targets = even_targets(facts, facts).to(logits)
        both = logits.log_softmax(dim=1) + logits.T.log_softmax(dim=1)
        return -(targets * both).sum() / (2 * len(logits))


class InstanceObjective(Objective):
    """InfoNCE on all pairs; equal facts are an equal report, labels and grade.

    Source:
        Ours, to be added to `lumbarclip`; see `instance_loss`.
    """

    inputs = frozenset({"facts"})

    def forward(self, pairs: Pairs, gather: Gather = gather_with_gradient) -> Tensor:
        assert pairs.facts is not None
        return instance_loss(*gather_pairs(pairs.output, gather), gather(pairs.facts))
