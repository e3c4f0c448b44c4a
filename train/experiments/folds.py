"""Folds of the patients: which rows each fold trains, validates and measures on."""

import json
from pathlib import Path

import numpy as np
from datasets import Dataset

from data_scripts.splits import patient_folds
from data_scripts.system.whole_files import write_json
from train.data.loaders import rows_sha256
from train.evaluation.statistics.metrics import Array
from train.evaluation.targets import Targets

FOLDS = "folds.json"


def cut(targets: Targets, num_folds: int, seed: int) -> Array:
    """Assign rows to folds by patient, stratified by label. Shape (N,)."""
    labels = [[targets.label_names[k] for k in np.flatnonzero(present)] for present in targets.labels]
    return np.array(patient_folds(targets.patient_ids.tolist(), labels, num_folds, seed))


def fold_splits(fold_of_row: Array, fold: int) -> dict[str, Array]:
    """Rows of each split of a fold: the fold itself is the test, the next validates, the others train.

    Example:
        >>> {split: rows.tolist() for split, rows in fold_splits(np.array([0, 1, 2, 2, 0]), 2).items()}
        {'train': [1], 'validation': [0, 4], 'test': [2, 3]}
    """
    next_fold = (fold + 1) % (fold_of_row.max() + 1)
    return {
        "train": np.flatnonzero((fold_of_row != fold) & (fold_of_row != next_fold)),
        "validation": np.flatnonzero(fold_of_row == next_fold),
        "test": np.flatnonzero(fold_of_row == fold),
    }


def keep_cut(path: Path, targets: Targets, fold_of_row: Array, rows: Dataset) -> None:
    """Record the cut; refuse to go on with finished folds of another.

    Raises:
        ValueError: If the folder's folds were cut from other rows, or the same in another order.
    """
    now = {
        "rows_sha256": rows_sha256(rows),
        "fold_of_patient": dict(sorted(zip(targets.patient_ids.tolist(), fold_of_row.tolist(), strict=True))),
    }
    if path.exists() and json.loads(path.read_text()) != now:
        raise ValueError(
            f"{path} was cut from other rows: the data set has been built anew since. Choose another folder, or "
            "start again with --overwrite."
        )
    write_json(path, now)
