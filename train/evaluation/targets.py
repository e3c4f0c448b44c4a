"""What a split asks of a model: labels, grades and patients as arrays, read without decoding an image."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from datasets import Dataset, DatasetDict

from data_scripts.records import NO_FINDING
from train.evaluation.statistics.metrics import Array

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Targets:
    """The truth of one split, row by row. Shapes: N rows, K labels.

    Args:
        split: Name of the split.
        label_names: The K label names.
        labels: Whether the row carries the label. Shape (N, K), bool. A row without labels is negative for all.
        exclusive: Whether each row of the whole data set carries exactly one label.
        grade_names: Ordinal scale, lowest first; empty when there is none.
        grades: Index on the scale, -1 where a row has no grade. Shape (N,), integer.
        patient_ids: Shape (N,), string.
    """

    split: str
    label_names: tuple[str, ...]
    labels: Array
    exclusive: bool
    grade_names: tuple[str, ...]
    grades: Array
    patient_ids: Array

    def __len__(self) -> int:
        return len(self.patient_ids)

    @property
    def classes(self) -> Array:
        """The one label of each row of an exclusive set, as an index. Shape (N,)."""
        return self.labels.argmax(1)

    def select(self, rows: Array, split: str) -> "Targets":
        """The targets of some rows (indices or a mask), under a name of their own."""
        return replace(
            self,
            split=split,
            labels=self.labels[rows],
            grades=self.grades[rows],
            patient_ids=self.patient_ids[rows],
        )

    @property
    def findings(self) -> list[int]:
        """Columns that state a finding: all but `No Finding`."""
        return [k for k, name in enumerate(self.label_names) if name != NO_FINDING]


def read_targets(dataset: DatasetDict | Mapping[str, Dataset]) -> dict[str, Targets]:
    """Read the truth of the three splits.

    Args:
        dataset: Splits `train`, `validation` and `test` with the columns that `data_scripts.build` writes.

    Returns:
        The targets by split name.

    Raises:
        ValueError: If a split is missing or empty.
    """
    for split in SPLITS:
        if split not in dataset or not len(dataset[split]):
            found = {name: len(rows) for name, rows in dataset.items()}
            raise ValueError(
                f"Evaluation needs rows in the splits {', '.join(SPLITS)}; `{split}` has none (found {found}). "
                "Build the data set again with more patients or other --split_fractions."
            )
    targets = {split: read_rows(dataset[split], split) for split in SPLITS}
    exclusive = all(of_split.exclusive for of_split in targets.values())
    return {split: replace(of_split, exclusive=exclusive) for split, of_split in targets.items()}


def read_rows(rows: Dataset, split: str) -> Targets:
    """Read the truth of rows that are a data set of their own.

    Args:
        rows: With the columns that `data_scripts.build` writes.
        split: What to call them.

    Returns:
        The targets.
    """
    labels = _label_matrix(rows)
    grade_names = tuple(getattr(rows.features.get("grade"), "names", None) or ())
    return Targets(
        split=split,
        label_names=tuple(rows.features["labels"].feature.names),
        labels=labels,
        exclusive=bool((labels.sum(1) == 1).all()),
        grade_names=grade_names,
        grades=_grades(rows, bool(grade_names)),
        patient_ids=np.asarray(rows["patient_id"][:]),
    )


def _label_matrix(rows: Dataset) -> Array:
    matrix = np.zeros((len(rows), len(rows.features["labels"].feature.names)), dtype=bool)
    for row, present in enumerate(rows["labels"][:]):
        matrix[row, present] = True
    return matrix


def _grades(rows: Dataset, graded: bool) -> Array:
    if not graded:
        return np.full(len(rows), -1)
    return np.array([-1 if grade is None else grade for grade in rows["grade"][:]])


def count_labels(targets: Targets) -> dict[str, dict[str, int]]:
    """Count the rows and the patients with each label: a metric that rests on one patient says little."""
    return {
        name: {"rows": int(present.sum()), "patients": len(set(targets.patient_ids[present]))}
        for name, present in zip(targets.label_names, targets.labels.T, strict=True)
    }
