"""What the batches of a run are like for the contrastive loss: duplicates, and how soft its targets are.

Shapes: R rows of the split, N pairs of a batch (of all processes), K classes.
"""

from collections import defaultdict

import torch
from torch import Tensor

from train.data.batch_sampler import Indices
from train.pretraining.soft_targets import judge_targets, target_statistics


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


class BatchStatistics:
    """Means of the statistics over the batches since the last line of the history.

    Args:
        text_ids: Equal for rows of the training split with the same report. Shape (R,).
        patient_ids: Equal for rows of the same patient. Shape (R,).
        labels: Multi-hot classes of the rows, or vectors made of them (`Objective.target_vectors`). Shape (R, K);
            None: a pair matches only itself.
        has_label_temperature: Whether the temperature of the targets is a setting, which a warning may advise.
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
        """Count a batch.

        Args:
            rows: Its rows of all processes. Shape (N,), integer.
            label_temperature: Of its targets; None: the objective has none like these, and they are not counted.
        """
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
        """Say what is wrong with the soft targets of the last batch, once; None if nothing, or it has been said."""
        if self._has_warned or self._last_targets is None:
            return None
        warning = judge_targets(*self._last_targets, has_label_temperature=self.has_label_temperature).warning
        self._has_warned = warning is not None
        return warning

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
