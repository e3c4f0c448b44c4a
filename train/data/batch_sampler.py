"""The training pairs of an epoch and their batches, which depend only on seed and epoch.

Shapes: R rows of the split, T texts per pair, K classes, S steps of an epoch, B pairs of a step in all processes
together.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from data_scripts.records import PAPER_LABELS

Indices = NDArray[np.int64]
EpochAndRow = tuple[int, int]  # the epoch decides how a row is augmented


@dataclass(frozen=True)
class Upsampling:
    """The one class that each row counts for (R,), and the rows of each class in an epoch, with repetitions (K,)."""

    class_of_row: Indices
    rows_of_class: Indices

    def __len__(self) -> int:
        """Rows of an epoch."""
        return int(self.rows_of_class.sum())

    @property
    def draws(self) -> NDArray[np.float64]:
        """How often an epoch draws each row, on average. Shape (R,)."""
        share = self.rows_of_class / np.maximum(np.bincount(self.class_of_row, minlength=len(self.rows_of_class)), 1)
        return share[self.class_of_row]

    def draw(self, random: np.random.Generator) -> Indices:
        """Draw the rows of an epoch: those of a class equally often, give or take one.

        Example:
            >>> upsampling = Upsampling(np.array([0, 0, 0, 1, 1]), rows_of_class=np.array([3, 3]))
            >>> np.bincount(upsampling.draw(np.random.default_rng(0))).tolist()
            [1, 1, 1, 1, 2]
        """
        drawn = [
            np.resize(random.permutation(np.flatnonzero(self.class_of_row == k)), num_rows)  # repeats cyclically
            for k, num_rows in enumerate(self.rows_of_class)
        ]
        return np.concatenate(drawn)


def upsample_minorities(classes: NDArray[np.bool_], minority_share: float = 0.5) -> Upsampling:
    r"""Plan an epoch in which rare classes weigh more.

    If each row has one class, each rare one gets $m = n_\mathrm{max} s / (1 - s)$ rows: a share s of those that it and
    the largest class have together, or as many as the largest for s = 0.5. If rows have several classes, no repetition
    can equalise them, since copying the rows of a rare finding copies the common ones with it. A row then counts for
    the rarest of its classes and is repeated $\sqrt{m / n_k}$ times, $n_k$ being the rows with class k. No row is left
    out.

    Args:
        classes: Multi-hot classes, at least one in each row (else a ValueError). Shape (R, K).
        minority_share: s, in (0, 0.5].

    Source:
        LumbarCLIP, arXiv 2509.20813, section 4.1: "upsampling to address imbalance", without details. Its training set
        has 5 x 2,328 = 11,640 pairs in section 3.1 and 11,760 in table 1, 1,890 of them No Finding: our reading is
        that the 120 are the repeated ones, so s = 1,890 / 11,760 = 0.1607. Several classes: the repeat factors of
        LVIS, Gupta et al. 2019, with m as threshold.

    Example:
        >>> upsample_minorities(np.array([[1, 0], [1, 0], [1, 0], [0, 1]], dtype=bool)).rows_of_class.tolist()
        [3, 3]
        >>> upsample_minorities(np.array([[1, 0], [1, 0], [1, 0], [1, 1]], dtype=bool)).rows_of_class.tolist()
        [3, 2]
        >>> table_1 = np.eye(2, dtype=bool)[[0] * 5 * 1974 + [1] * 5 * 354]
        >>> upsample_minorities(table_1, minority_share=0.1607).rows_of_class.tolist()
        [9870, 1890]
    """
    if without := int((~classes.any(axis=1)).sum()):
        raise ValueError(f"{without} of {len(classes)} rows have no class; give such rows a class of their own.")
    counts = np.maximum(classes.sum(axis=0), 1)  # no division by zero
    class_of_row = np.where(classes, counts, len(classes) + 1).argmin(axis=1)
    factors = np.maximum(counts.max() / counts * (minority_share / (1 - minority_share)), 1)
    if (classes.sum(axis=1) > 1).any():
        factors = np.sqrt(factors)
    rows_of_class = np.rint(np.bincount(class_of_row, minlength=len(counts)) * factors)
    return Upsampling(class_of_row, rows_of_class.astype(np.int64))


def exclusive_or_all(labels: NDArray[np.bool_], label_names: Sequence[str]) -> NDArray[np.bool_]:
    """Choose the classes to balance: the paper's pair if each row has one of the two, else all labels.

    Args:
        labels: Multi-hot. Shape (R, K).
        label_names: Names of the first columns; of all, unless the last one is "none of these".

    Returns:
        Shape (R, 2) or (R, K); with one more column, "none of these", if a row has no label.
    """
    pair = [label_names.index(name) for name in PAPER_LABELS if name in label_names]
    if len(pair) == 2 and (labels[:, pair].sum(axis=1) == 1).all():
        return labels[:, pair]
    without = ~labels.any(axis=1, keepdims=True)
    return np.concatenate([labels, without], axis=1) if without.any() else labels


@dataclass(frozen=True)
class TrainingSet:
    """What an epoch passes over: each pair with each of its texts, pairs of rare classes more often.

    Entry `R * k + row` of the augmented set is `row` with its text k, for k < `texts_per_pair`. Entries of a pair are
    pairs of one report to `deal`. The names are those of the settings of `pretrain.py`.
    """

    texts_per_pair: int = 1
    balance: Sequence[str] = ()  # `upsample`: see `upsample_minorities`; `sampler`: see `deal`
    minority_share: float = 0.5

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> "TrainingSet":
        """Take the settings of a run; those that an older run did not have keep their defaults."""
        return cls(**{field.name: arguments[field.name] for field in fields(cls) if field.name in arguments})

    def upsampling(self, classes: NDArray[np.bool_]) -> Upsampling:
        """Plan the upsampling of the augmented set; classes of its pairs have shape (R, K)."""
        return upsample_minorities(np.tile(classes, (self.texts_per_pair, 1)), self.minority_share)

    def rows(self, classes: NDArray[np.bool_], seed: int) -> Indices:
        """List the row of each entry of the augmented and upsampled set, for a learner that reads no texts. Shape (M,).

        Example:
            >>> TrainingSet(texts_per_pair=2).rows(np.array([[True], [True]]), seed=0).tolist()
            [0, 1, 0, 1]
        """
        if "upsample" not in self.balance:
            return np.tile(np.arange(len(classes)), self.texts_per_pair)
        return self.upsampling(classes).draw(np.random.default_rng(seed)) % len(classes)


EACH_PAIR_ONCE = TrainingSet()


def deal(rows: Indices, text_ids: Indices, patient_ids: Indices, num_batches: int) -> Indices:
    """Spread the pairs of one report, and then those of one patient, over the batches.

    Two pairs of one report are false negatives of each other. Rows are sorted so that those of a report are neighbours,
    and dealt in turn like cards: each batch gets n / S pairs of a report with n rows, rounded up or down. Reports of
    one patient are neighbours, too, so that patients are spread the same way, unless they share a report.

    Args:
        rows: Rows in random order. Shape (S * B,).
        text_ids: Equal for rows of the split with the same report. Shape (R,).
        patient_ids: Equal for rows of the same patient. Shape (R,).
        num_batches: S.

    Returns:
        The rows of each batch. Shape (S, B).

    Example:
        >>> reports = np.array([0, 0, 1, 1, 2, 2])
        >>> reports[deal(np.arange(6), reports, patient_ids=reports, num_batches=2)].tolist()
        [[0, 1, 2], [0, 1, 2]]
    """
    patients = patient_ids[rows]
    text, patient = _first_places(text_ids[rows]), _first_places(patients)
    owner = _first_places(patients[text])  # if patients share a report, the one with its first row
    order = np.lexsort((patient, text, owner))  # the last key comes first
    return rows[order].reshape(-1, num_batches).T


def _first_places(ids: Indices) -> Indices:
    """Replace each id by the index of its first row, which gives random rows a random order of ids.

    Example:
        >>> _first_places(np.array([7, 3, 7, 5])).tolist()
        [0, 1, 0, 3]
    """
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    return first[inverse]


@dataclass
class EpochBatches(Sampler[list[EpochAndRow]]):
    """The batches of one process, in an order that depends only on seed and epoch.

    An epoch is cut into batches of all processes together, and each process takes its share of every batch: one process
    with a batch of 2 B sees the same pairs in a step as two processes with B. Rows beyond the last full batch wait for
    another epoch, since a smaller batch has fewer negatives.

    Args:
        num_rows: Rows of the split; a ValueError if they do not fill one batch.
        batch_size: Pairs of a step in each process.
        seed: Seed of the order.
        process_index: This process.
        num_processes: All processes.
        upsampling: Which rows an epoch repeats; None: each row once.
        text_and_patient_ids: What `deal` spreads over the batches, each of shape (R,); None: batches are random.
    """

    num_rows: int
    batch_size: int
    seed: int
    process_index: int = 0
    num_processes: int = 1
    upsampling: Upsampling | None = None
    text_and_patient_ids: tuple[Indices, Indices] | None = None

    def __post_init__(self) -> None:
        if len(self) == 0:
            raise ValueError(
                f"{self.num_rows} training pairs do not fill one batch of {self.batch_size} on each of "
                f"{self.num_processes} processes: lower --batch_size."
            )
        self.first_step = 0

    def __len__(self) -> int:
        """Steps of an epoch."""
        num_rows = self.num_rows if self.upsampling is None else len(self.upsampling)
        return num_rows // (self.batch_size * self.num_processes)

    def __iter__(self) -> Iterator[list[EpochAndRow]]:
        """Yield this process's rows of every step from `first_step` on, without end."""
        epoch, position = divmod(self.first_step, len(self))
        share = slice(self.process_index * self.batch_size, (self.process_index + 1) * self.batch_size)
        while True:
            for batch in self.batches_of_epoch(epoch)[position:]:
                yield [(epoch, int(row)) for row in batch[share]]
            epoch, position = epoch + 1, 0

    def batches_of_epoch(self, epoch: int) -> Indices:
        """Draw the batches of all processes together. Shape (S, B)."""
        random = np.random.default_rng([self.seed, epoch])
        rows = random.permutation(self.num_rows if self.upsampling is None else self.upsampling.draw(random))
        rows = rows[: len(self) * self.batch_size * self.num_processes]
        if self.text_and_patient_ids is None:
            return rows.reshape(len(self), -1)
        dealt = deal(rows, *self.text_and_patient_ids, num_batches=len(self))
        # Otherwise the same patients would appear in neighbouring steps, and in the same processes.
        return random.permuted(dealt, axis=1)[random.permutation(len(self))]
