"""What the batches of a run are like for the contrastive loss: duplicates, and how soft its targets are.

Shapes: R rows of the split, N pairs of a batch (of all processes), K classes, P distinct label patterns of the batch.
"""

from collections import defaultdict

import torch
from torch import Tensor

from train.batch_sampler import Indices

# Target probabilities held at once: 16 MiB.
MAX_TARGETS_IN_MEMORY = 4_194_304


def duplicate_rate(ids: Tensor) -> float:
    """Share of the pairs of a batch whose id occurs at another pair, too.

    Args:
        ids: Equal for pairs with the same report, or of the same patient. Shape (N,), integer.

    Returns:
        A share in [0, 1].

    Example:
        >>> duplicate_rate(torch.tensor([4, 7, 4, 5]))
        0.5
    """
    counts = ids.unique(return_counts=True)[1]
    return float(counts[counts > 1].sum() / len(ids))


def target_statistics(labels: Tensor | None, label_temperature: float) -> dict[str, float]:
    r"""How soft the soft targets $T_{ij}$ of a batch are, from its label patterns and never from N × N targets.

    Args:
        labels: Multi-hot classes of each pair. Shape (N, K); None: a pair matches only itself.
        label_temperature: Temperature of the targets, > 0.

    Returns:
        `target_entropy`: the mean of $-\sum_j T_{ij} \log T_{ij}$ over the pairs, in nats; 0 for hard targets, ln N
        for flat ones. `same_class_mass`: the mean share of a target that falls on pairs with the very same classes.

    Relations:
        `modeling_lumbarclip.losses_lumbarclip.soft_targets` gives the targets themselves.

    Example:
        >>> statistics = target_statistics(torch.tensor([[1, 0], [0, 1], [1, 0], [0, 1]]), label_temperature=1.0)
        >>> {name: round(value, 3) for name, value in statistics.items()}
        {'target_entropy': 1.275, 'same_class_mass': 0.731}
    """
    if labels is None:
        return {"target_entropy": 0.0, "same_class_mass": 1.0}
    patterns, counts = labels.float().unique(dim=0, return_counts=True)  # (P, K), (P,)
    entropy, same_class_mass = torch.zeros(()), torch.zeros(())
    rows_at_once = max(1, MAX_TARGETS_IN_MEMORY // len(patterns))
    for top in range(0, len(patterns), rows_at_once):
        own = torch.arange(top, min(top + rows_at_once, len(patterns)))
        overlap = patterns[own] @ patterns.T / label_temperature
        log_targets = overlap - (overlap + counts.log()).logsumexp(dim=1, keepdim=True)  # of one pair of the pattern
        mass = log_targets.exp() * counts  # of all its pairs
        entropy -= (counts[own] * (mass * log_targets).sum(dim=1)).sum()
        same_class_mass += (counts[own] * mass[torch.arange(len(own)), own]).sum()
    return {"target_entropy": float(entropy / len(labels)), "same_class_mass": float(same_class_mass / len(labels))}


class BatchStatistics:
    """Means of the statistics over the batches since the last line of the history.

    Args:
        text_ids: Equal for rows of the training split with the same report. Shape (R,).
        patient_ids: Equal for rows of the same patient. Shape (R,).
        labels: Multi-hot classes of the rows. Shape (R, K); None: a pair matches only itself.
    """

    def __init__(self, text_ids: Indices, patient_ids: Indices, labels: Tensor | None) -> None:
        self.text_ids, self.patient_ids = torch.from_numpy(text_ids), torch.from_numpy(patient_ids)
        self.labels = labels
        self._values: dict[str, list[float]] = defaultdict(list)

    def add(self, rows: Tensor, label_temperature: float) -> None:
        """Count a batch.

        Args:
            rows: Its rows of all processes. Shape (N,), integer.
            label_temperature: Of its targets.
        """
        rows = rows.cpu()
        self._values["duplicate_text_rate"].append(duplicate_rate(self.text_ids[rows]))
        self._values["duplicate_patient_rate"].append(duplicate_rate(self.patient_ids[rows]))
        labels = None if self.labels is None else self.labels[rows]
        for name, value in target_statistics(labels, label_temperature).items():
            self._values[name].append(value)

    def take(self) -> dict[str, float]:
        """Return the means of the batches since the last call, and forget them.

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
