"""Losses of the paper's probe: its own, and two corrections for a rare class.

The paper reports a macro F1 far below its accuracy and names class imbalance as the cause: a probe trained by plain
cross-entropy learns how rare a class is before it learns what it looks like, and misses it after few steps. The
corrections change only the loss, so a difference between two probes is due to the loss.

Every loss is a pure function of `logits` (B, K), `labels` (B, K) as 0.0 or 1.0, and of the training split `counts`
(K,), its rows of each class, and `num_rows`. The first three are for exclusive classes, some of which may have no
training row; the last three are for findings, where each column is a problem of its own: a mean over rows, summed over
columns. Every count of a finding is above 0 and below `num_rows`.

A corrected probe's probabilities assume classes of equal frequency. They find rare classes and rank rows as well as
others, but calibrate them before reading them as frequencies.

Shapes: B rows, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

Loss: TypeAlias = Callable[[Tensor, Tensor, Tensor, int], Tensor]

# The source tries 0.9, 0.99, 0.999 and 0.9999. With 0.999 a class of 100 rows weighs 6.6 times one of 1,000.
EFFECTIVE_NUMBER_BETA = 0.999


def cross_entropy(logits: Tensor, labels: Tensor, counts: Tensor, num_rows: int) -> Tensor:
    """Softmax cross-entropy, as in the paper; the counts are not used.

    Example:
        >>> cross_entropy(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]), torch.tensor([9.0, 1.0]), 10)
        tensor(0.6931)
    """
    return F.cross_entropy(logits, labels)


def class_balanced_cross_entropy(logits: Tensor, labels: Tensor, counts: Tensor, num_rows: int) -> Tensor:
    r"""Cross-entropy in which a class of $n$ rows weighs $1 / E_n$, with $E_n = (1 - \beta^n) / (1 - \beta)$.

    A class without a training row weighs nothing. The weights are scaled to sum to the number of the other classes.

    Source:
        Cui et al., Class-Balanced Loss Based on Effective Number of Samples, 2019, equation 10, β = 0.999.

    Relations:
        Weights stop mattering once the training rows are separated; `logit_adjusted_cross_entropy` keeps asking for a
        wider margin around the rarer class.

    Example:
        >>> class_balanced_cross_entropy(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]), torch.tensor([9.0, 1.0]), 10)
        tensor(1.2472)
    """
    learned = counts > 0
    weights = torch.where(learned, 1 / effective_number(counts), 0)
    weights = weights * (learned.sum() / weights.sum())
    return -(weights * labels * F.log_softmax(logits, dim=1)).sum(1).mean()


def logit_adjusted_cross_entropy(logits: Tensor, labels: Tensor, counts: Tensor, num_rows: int) -> Tensor:
    r"""Cross-entropy of the logits plus $\tau \log \pi_y$, where $\pi_y$ is the share of class $y$ in training.

    The frequency of a class is thus given in training and need not be learned; in testing it is left out. A class
    without a training row counts as if it had one: with a share of 0, its logit would learn nothing.

    Source:
        Menon et al., Long-Tail Learning via Logit Adjustment, 2021, equation 10, τ = 1.

    Example:
        >>> logit_adjusted_cross_entropy(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]), torch.tensor([9.0, 1.0]), 10)
        tensor(2.3026)
    """
    return F.cross_entropy(logits + (counts.clamp(min=1) / num_rows).log(), labels)


def binary_cross_entropy(logits: Tensor, labels: Tensor, counts: Tensor, num_rows: int) -> Tensor:
    """Sigmoid cross-entropy of each finding; the paper has only exclusive classes."""
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(0).sum()


def class_balanced_binary_cross_entropy(logits: Tensor, labels: Tensor, counts: Tensor, num_rows: int) -> Tensor:
    """Sigmoid cross-entropy in which rows with a finding weigh E(rows without it) / E(rows with it) (`pos_weight`).

    Source:
        Cui et al. 2019, as `class_balanced_cross_entropy`, for the two classes of each finding. Ours: rows without
        the finding keep the weight 1, since AdamW does not depend on the scale of a column's loss.
    """
    rarity = effective_number(num_rows - counts) / effective_number(counts)
    losses = F.binary_cross_entropy_with_logits(logits, labels, pos_weight=rarity, reduction="none")
    return losses.mean(0).sum()


def logit_adjusted_binary_cross_entropy(logits: Tensor, labels: Tensor, counts: Tensor, num_rows: int) -> Tensor:
    r"""Sigmoid cross-entropy of the logits plus $\log \pi / (1 - \pi)$, where $\pi$ is the finding's share of rows.

    Source:
        Menon et al. 2021, equation 10 with two classes, the logit of absence being 0; τ = 1.
    """
    adjusted = logits + (counts / (num_rows - counts)).log()
    return F.binary_cross_entropy_with_logits(adjusted, labels, reduction="none").mean(0).sum()


def effective_number(counts: Tensor) -> Tensor:
    """Compute how many rows a class of `counts` overlapping rows is worth: at most 1 / (1 - β) = 1,000. Shape (K,).

    Example:
        >>> effective_number(torch.tensor([1.0, 100.0, 1000.0, 100000.0]))
        tensor([   1.0000,   95.2079,  632.3046, 1000.0000])
    """
    numbers = (1 - EFFECTIVE_NUMBER_BETA ** counts.double()) / (1 - EFFECTIVE_NUMBER_BETA)
    return numbers.to(counts.dtype)


@dataclass(frozen=True)
class ProbeLoss:
    """A loss in its two forms, for exclusive classes and for findings."""

    of_classes: Loss
    of_findings: Loss


PROBE_LOSSES: dict[str, ProbeLoss] = {
    "paper": ProbeLoss(cross_entropy, binary_cross_entropy),
    "paper_balanced": ProbeLoss(class_balanced_cross_entropy, class_balanced_binary_cross_entropy),
    "paper_logit_adjusted": ProbeLoss(logit_adjusted_cross_entropy, logit_adjusted_binary_cross_entropy),
}
