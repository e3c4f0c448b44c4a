"""The truth of a split: labels, grades and patients as arrays, read without decoding an image."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from datasets import Dataset, DatasetDict

from data_scripts.records import NO_FINDING
from train.evaluation.statistics.metrics import Array

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Targets:
    """The truth of one split, row by row. Shapes: N rows, K labels."""

    split: str  # its name
    label_names: tuple[str, ...]  # K names
    labels: Array  # whether the row has the label; a row that was not labelled has none; (N, K), bool
    exclusive: bool  # whether each labelled row of the whole dataset has exactly one label
    grade_names: tuple[str, ...]  # ordinal scale, lowest first; empty for none
    grades: Array  # index on the scale, -1 where a row has no grade; (N,), integer
    patient_ids: Array  # (N,), string
    labelled: Array | None = None  # whether the row was labelled, (N,), bool; None: every row

    def __len__(self) -> int:
        return len(self.patient_ids)

    @property
    def classes(self) -> Array:
        """The one label of each row of an exclusive set, as an index. Shape (N,)."""
        return self.labels.argmax(1)

    @property
    def is_labelled(self) -> Array:
        """Whether each row was labelled; none is without classes. Shape (N,), bool."""
        every = np.full(len(self), bool(self.label_names))
        return every if self.labelled is None else every & self.labelled

    def select(self, rows: Array, split: str) -> "Targets":
        """Select rows (indices or a mask) as a split with a name of its own."""
        names = ("labels", "grades", "patient_ids", *(() if self.labelled is None else ("labelled",)))
        chosen = {name: getattr(self, name)[rows] for name in names}
        return replace(self, split=split, **chosen)

    @property
    def findings(self) -> list[int]:
        """Columns that state a finding: all but `No Finding`."""
        return [k for k, name in enumerate(self.label_names) if name != NO_FINDING]


def read_targets(dataset: DatasetDict | Mapping[str, Dataset]) -> dict[str, Targets]:
    """Read the truth of the splits `train`, `validation` and `test`.

    Raises:
        ValueError: If a split is missing or empty.
    """
    for split in SPLITS:
        if split not in dataset or not len(dataset[split]):
            found = {name: len(rows) for name, rows in dataset.items()}
            raise ValueError(
                f"Evaluation needs rows in the splits {', '.join(SPLITS)}; `{split}` has none (found {found}). "
                "Rebuild the dataset with more patients or other --split_fractions."
            )
    targets = {split: read_rows(dataset[split], split) for split in SPLITS}
    exclusive = all(of_split.exclusive for of_split in targets.values() if of_split.is_labelled.any())
    exclusive &= have_labels(targets.values())
    return {split: replace(of_split, exclusive=exclusive) for split, of_split in targets.items()}


def have_labels(targets: Iterable[Targets]) -> bool:
    """Whether labels can be learned and measured: each split has labelled rows."""
    return all(of_split.is_labelled.any() for of_split in targets)


def read_rows(rows: Dataset, split: str) -> Targets:
    """Read the truth of rows that are a dataset of their own, named `split`."""
    label_names = tuple(rows.features["labels"].feature.names)
    labels = np.zeros((len(rows), len(label_names)), dtype=bool)
    of_rows = rows["labels"][:]
    for row, present in enumerate(of_rows):
        labels[row, present or []] = True
    labelled = np.array([present is not None for present in of_rows], dtype=bool)
    grade_names, grades = read_grades(rows)
    return Targets(
        split=split,
        label_names=label_names,
        labels=labels,
        exclusive=bool(labelled.any() and (labels[labelled].sum(1) == 1).all()),
        grade_names=grade_names,
        grades=grades,
        patient_ids=np.asarray(rows["patient_id"][:]),
        labelled=None if labelled.all() else labelled,
    )


def read_grades(rows: Dataset) -> tuple[tuple[str, ...], Array]:
    """Read the names of the grades, lowest first, and the grade of each row, (N,), -1 where it has none."""
    names = tuple(getattr(rows.features.get("grade"), "names", None) or ())
    grades = rows["grade"][:] if names else [None] * len(rows)
    return names, np.array([-1 if grade is None else grade for grade in grades])


def missing_labels(targets: Mapping[str, Targets]) -> str:
    """Say which rows have no label, and what that leaves out; empty if all are labelled."""
    without = {split: int((~of_split.is_labelled).sum()) for split, of_split in targets.items()}
    if not any(without.values()):
        return ""
    counted = ", ".join(f"{count} of {len(targets[split])} in {split}" for split, count in without.items())
    if have_labels(targets.values()):
        return f"Rows without a label are left out of everything that needs one: {counted}."
    lacking = f"Rows without a label: {counted}"
    if not any(of_split.is_labelled.any() for of_split in targets.values()):
        lacking = "No row has a label"
    return (
        f"{lacking}, so nothing that needs labels is measured: label probes, zero-shot classification, calibration. "
        "Build with --labels_from_reports to read labels from the reports."
    )


def count_labels(targets: Targets) -> dict[str, dict[str, int]]:
    """Count the rows and patients with each label; a metric on one patient says little."""
    return {
        name: {"rows": int(present.sum()), "patients": len(set(targets.patient_ids[present]))}
        for name, present in zip(targets.label_names, targets.labels.T, strict=True)
    }
