"""Statistics of the batches of a run: duplicate pairs, and the softness of the targets of the contrastive loss.

Flat targets teach nothing; hard ones leave the labels unused. Shapes: R rows of the split, N pairs of a batch (of all
processes), K classes, P distinct label patterns.
"""

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from modeling_lumbarclip.losses_lumbarclip import log_target_blocks
from train.data.batch_sampler import Indices

# Target probabilities held at once: 16 MiB.
MAX_TARGETS_IN_MEMORY = 4_194_304
FLAT_ENTROPY = 0.95  # of ln N: targets of a higher entropy are nearly flat
HARD_OWN_TARGET = 0.95  # an own target above it, although others share its classes: nearly hard
BISECTIONS = 30  # halvings of the range of the temperature's logarithm


def target_statistics(labels: Tensor | None, label_temperature: float) -> dict[str, float]:
    r"""Measure how soft the soft targets $T_{ij}$ of a batch are, from its label patterns instead of N × N targets.

    Args:
        labels: Multi-hot classes of each pair, or other vectors whose dot products are the overlaps. Shape (N, K);
            None: a pair matches only itself.
        label_temperature: Temperature of the targets, > 0.

    Returns:
        `target_entropy`: the mean of $-\sum_j T_{ij} \log T_{ij}$ over the pairs, in nats; 0 for hard targets, ln N
        for flat ones. `same_class_mass`: the mean share of a target that falls on pairs with exactly the same classes.

    Example:
        >>> statistics = target_statistics(torch.tensor([[1, 0], [0, 1], [1, 0], [0, 1]]), label_temperature=1.0)
        >>> {name: round(value, 3) for name, value in statistics.items()}
        {'target_entropy': 1.275, 'same_class_mass': 0.731}
    """
    if labels is None:
        return {"target_entropy": 0.0, "same_class_mass": 1.0}
    patterns, counts = labels.float().unique(dim=0, return_counts=True)  # (P, K), (P,)
    entropy, same_class_mass = torch.zeros(()), torch.zeros(())
    for own, log_targets in log_target_blocks(patterns, counts, label_temperature, MAX_TARGETS_IN_MEMORY):
        mass = log_targets.exp() * counts  # of all pairs of a pattern
        entropy -= (counts[own] * (mass * log_targets).sum(dim=1)).sum()
        same_class_mass += (counts[own] * mass.diagonal(own.start)).sum()
    return {"target_entropy": float(entropy / len(labels)), "same_class_mass": float(same_class_mass / len(labels))}


@dataclass(frozen=True, kw_only=True)
class TargetJudgement:
    """Result of `judge_targets`.

    Args:
        verdict: `soft` is good; `flat`: nearly every report matches every image; `hard`: nearly as without labels.
        entropy: Mean entropy of the targets, in nats; at most ln `num_pairs`.
        own_target: Mean target that pairs which share a class with another keep for themselves.
        num_pairs: Pairs of the batch.
        label_temperature: The one that was judged.
        better_temperature: Its entropy is halfway between the hardest targets of these labels and nearly flat ones;
            None if the verdict is `soft`, no temperature helps, or it is not a setting.
        has_label_temperature: Whether the temperature is a setting.
    """

    verdict: Literal["soft", "flat", "hard"]
    entropy: float
    own_target: float
    num_pairs: int
    label_temperature: float
    better_temperature: float | None
    has_label_temperature: bool

    @property
    def warning(self) -> str | None:
        """The problem and what to do about it; None if the targets are soft."""
        if self.verdict == "soft":
            return None
        figures = (
            f"their entropy is {self.entropy:.2f} nats of ln {self.num_pairs} = {math.log(self.num_pairs):.2f} at a "
            f"label temperature of {self.label_temperature:.3g}"
        )
        if self.verdict == "flat":
            problem = f"The soft targets are nearly flat: {figures}, so most reports match most images."
        else:
            problem = (
                f"The soft targets are nearly hard: {figures}, and a pair that shares classes with others keeps "
                f"{self.own_target:.0%} of its target for itself, as if there were no labels."
            )
        if not self.has_label_temperature:
            return (
                f"{problem} The objective fixes this temperature: --objectives lumbarclip has a --label_temperature, "
                "--objectives clip needs no classes."
            )
        if self.better_temperature is None:
            return (
                f"{problem} No temperature makes them sharper, since most pairs have the same classes: name more "
                "--target_columns, or --balance upsample."
            )
        return f"{problem} --label_temperature {self.better_temperature:.2g} puts them in between."


def judge_targets(labels: Tensor, label_temperature: float, has_label_temperature: bool = True) -> TargetJudgement:
    r"""Judge the soft targets of a batch, and find a better temperature if they are nearly flat or nearly hard.

    Args:
        labels: As in `target_statistics`. Shape (N, K).
        label_temperature: Temperature of the targets, > 0.
        has_label_temperature: Whether it is a setting; if not, no better one is searched for.

    Returns:
        The judgement. `flat`: the entropy is above 0.95 ln N though labels differ. `hard`: the own target is above
        0.95 though other pairs share classes. Pairs with exactly the same classes share their target evenly, so a
        batch with many of them never has hard targets.

    Example:
        >>> labels = torch.eye(4).repeat(8, 1)
        >>> [judge_targets(labels, temperature).verdict for temperature in (0.07, 5.0)]
        ['soft', 'flat']
        >>> round(judge_targets(labels, 5.0).better_temperature, 2)
        0.36
    """
    patterns, counts = labels.float().unique(dim=0, return_counts=True)
    entropy = target_statistics(labels, label_temperature)["target_entropy"]
    own_target = _own_target(patterns, counts, label_temperature)
    verdict: Literal["soft", "flat", "hard"] = "soft"
    if len(patterns) > 1 and entropy > FLAT_ENTROPY * math.log(len(labels)):
        verdict = "flat"
    elif own_target > HARD_OWN_TARGET:
        verdict = "hard"
    return TargetJudgement(
        verdict=verdict,
        entropy=entropy,
        own_target=own_target,
        num_pairs=len(labels),
        label_temperature=label_temperature,
        better_temperature=_temperature_in_between(labels) if verdict != "soft" and has_label_temperature else None,
        has_label_temperature=has_label_temperature,
    )


def _own_target(patterns: Tensor, counts: Tensor, label_temperature: float) -> float:
    """Average the target of the own pair over the pairs that share a class with another one; 0 if none does."""
    total, num_sharing = 0.0, 0
    for own, log_targets in log_target_blocks(patterns, counts, label_temperature, MAX_TARGETS_IN_MEMORY):
        pairs_with_shared_class = ((patterns[own] @ patterns.T > 0) * counts).sum(dim=1)
        shares = pairs_with_shared_class > 1  # it counts itself
        total += float((log_targets.diagonal(own.start).exp() * counts[own] * shares).sum())
        num_sharing += int((counts[own] * shares).sum())
    return total / num_sharing if num_sharing else 0.0


def _temperature_in_between(labels: Tensor) -> float | None:
    """Find the temperature with an entropy halfway between the hardest and nearly flat targets, by bisection."""
    # Overlaps are integers: a hundredth is as good as zero, and a hundred times the largest as good as infinity.
    low, high = 0.01, 100 * float(labels.sum(dim=1).max())
    hardest, flat = target_statistics(labels, low)["target_entropy"], FLAT_ENTROPY * math.log(len(labels))
    if hardest >= flat:
        return None
    for _ in range(BISECTIONS):
        middle = math.sqrt(low * high)
        if target_statistics(labels, middle)["target_entropy"] < (hardest + flat) / 2:
            low = middle
        else:
            high = middle
    return math.sqrt(low * high)


def duplicate_rate(ids: Tensor) -> float:
    """Return the share of pairs whose id, such as that of a report or a patient (N,), occurs more than once.

    Example:
        >>> duplicate_rate(torch.tensor([4, 7, 4, 5]))
        0.5
    """
    counts = ids.unique(return_counts=True)[1]
    return float(counts[counts > 1].sum() / len(ids))


class BatchStatistics:
    """Means of the statistics over the batches since the last line of the history.

    Ids are equal for rows of the training split (R,) with the same report, or of the same patient; labels (R, K) are
    those of `Objective.target_vectors`.
    """

    def __init__(
        self, text_ids: Indices, patient_ids: Indices, labels: Tensor | None, has_label_temperature: bool = True
    ) -> None:
        self.text_ids, self.patient_ids = torch.from_numpy(text_ids), torch.from_numpy(patient_ids)
        self.labels, self.has_label_temperature = labels, has_label_temperature
        self._values: dict[str, list[float]] = defaultdict(list)
        self._last_targets: tuple[Tensor, float] | None = None  # labels of a batch, and their temperature
        self._has_warned = False

    def add(self, rows: Tensor, label_temperature: float | None) -> None:
        """Add the batch of these rows of all processes (N,); without a label temperature it has no soft targets."""
        rows = rows.cpu()
        self._values["duplicate_text_rate"].append(duplicate_rate(self.text_ids[rows]))
        self._values["duplicate_patient_rate"].append(duplicate_rate(self.patient_ids[rows]))
        if label_temperature is None:
            return
        labels = None if self.labels is None else self.labels[rows]
        self._last_targets = None if labels is None else (labels, label_temperature)
        for name, value in target_statistics(labels, label_temperature).items():
            self._values[name].append(value)

    def target_warning(self) -> str | None:
        """Return a warning if the soft targets of the last batch are bad; once."""
        if self._has_warned or self._last_targets is None:
            return None
        warning = judge_targets(*self._last_targets, has_label_temperature=self.has_label_temperature).warning
        self._has_warned = warning is not None
        return warning

    def take(self) -> dict[str, float]:
        """Return the means of the batches since the last call, and reset them.

        Example:
            >>> import numpy as np
            >>> statistics = BatchStatistics(np.array([0, 0, 1]), np.array([0, 1, 2]), labels=None)
            >>> statistics.add(torch.tensor([0, 1]), 1.0)
            >>> statistics.add(torch.tensor([0, 2]), 1.0)
            >>> statistics.take()["duplicate_text_rate"], statistics.take()
            (0.5, {})
        """
        means = {name: sum(values) / len(values) for name, values in self._values.items()}
        self._values.clear()
        return means
