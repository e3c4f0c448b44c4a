"""The data that all runs of an experiment share: the rows and the folds."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DatasetDict, concatenate_datasets

from data_scripts.splits import patient_folds
from data_scripts.system.whole_files import read_json, write_json
from train.data.loaders import open_dataset, rows_sha256
from train.data.provenance import DataFacts
from train.evaluation.statistics.metrics import Array
from train.evaluation.targets import Targets, count_labels, missing_labels, read_rows, read_targets
from train.experiments.kinds import kind_named
from train.experiments.spec import ExperimentArguments
from train.reporting.run_report import too_few_in_words

logger = logging.getLogger(__name__)

FOLDS = "folds.json"
# Seeds only the cut: all seeds of an experiment share the folds, so their predictions compare row by row.
CUT_SEED = 0


@dataclass(frozen=True)
class Fold:
    """The rows that one fold trains, validates and measures on."""

    number: int  # 0 for the dataset's own splits
    dataset: DatasetDict  # splits `train`, `validation` and `test`
    rows: Array  # index of each test row among all rows that the experiment measures; (N,)

    def describe(self) -> dict[str, Any]:
        """Count the rows and patients of the splits."""
        return {
            "fold": self.number,
            "num_rows": {split: len(rows) for split, rows in self.dataset.items()},
            "num_patients": {split: len(set(rows["patient_id"][:])) for split, rows in self.dataset.items()},
        }


@dataclass(frozen=True)
class ExperimentData:
    """The data of an experiment."""

    name: str  # of the dataset
    folds: Sequence[Fold]  # at least one
    targets: Targets  # the truth of all rows that the experiment measures
    sources: Sequence[str]  # of the same rows
    leak: Mapping[str, Any] | None  # what the splits or folds share, where that was allowed
    fold_of_row: Array | None  # the cut; None for the dataset's own splits
    asks_labels: bool = True  # whether rows without labels lack something

    def describe(self) -> dict[str, Any]:
        """Describe the measured rows, for `results.json`."""
        targets = self.targets
        return {
            "name": self.name,
            "split": targets.split,
            "num_rows": len(targets),
            "num_patients": len(set(targets.patient_ids)),
            "num_labelled_patients": len(set(targets.patient_ids[targets.is_labelled])),
            "leak": self.leak,
            "synthetic": all(source.startswith("synthetic") for source in self.sources),
            "labels": count_labels(targets),
            "missing_labels": missing_labels({targets.split: targets}) if self.asks_labels else "",
        } | ({} if self.fold_of_row is None else {"folds": [fold.describe() for fold in self.folds]})


def open_experiment_data(experiment: ExperimentArguments, show_progress: bool) -> ExperimentData:
    """Read the dataset, check that it does not leak, and cut it into folds; warn of rows that lack something.

    Raises:
        ValueError: If there is no such dataset, it has too few patients, or it leaks.
    """
    kind = kind_named(experiment.kind)
    opened = open_dataset(experiment.dataset, experiment.labels)
    dataset = DatasetDict({split: kind.measurable(rows) for split, rows in opened.items()})
    if show_progress and (left_out := sum(map(len, opened.values())) - sum(map(len, dataset.values()))):
        logger.warning("%d rows of %s cannot be measured and are left out.", left_out, experiment.dataset)
    if experiment.folds is None:
        targets = read_targets(dataset)["test"]
        folds = [Fold(0, dataset, np.arange(len(targets)))]
        measured, fold_of_row, parts = dataset["test"], None, dict(dataset)
    else:
        measured = concatenate_datasets(list(dataset.values()))
        targets = read_rows(measured, f"{experiment.folds}-fold cross-validation")
        fold_of_row = cut(targets, experiment.folds, CUT_SEED)
        folds = []
        for number in range(experiment.folds):
            splits = fold_splits(fold_of_row, number)
            of_splits = DatasetDict({split: measured.select(rows) for split, rows in splits.items()})
            folds.append(Fold(number, of_splits, splits["test"]))
        parts = {f"fold {fold.number}": fold.dataset["test"] for fold in folds}
    facts = DataFacts(experiment.dataset, parts, show_progress)
    facts.check_leaks(experiment.allow_leaks)
    data = ExperimentData(
        name=Path(experiment.dataset).name,
        folds=folds,
        targets=targets,
        sources=measured["source"][:],
        leak=facts.leak_stamp if experiment.allow_leaks else None,
        fold_of_row=fold_of_row,
        asks_labels=kind.asks_labels,
    )
    if show_progress:
        described = data.describe()
        if too_few := too_few_in_words(described):
            logger.warning("%s.", too_few)
        if described["missing_labels"]:
            logger.warning(described["missing_labels"])
    return data


def cut(targets: Targets, num_folds: int, seed: int) -> Array:
    """Assign rows to folds by patient, stratified by label. Shape (N,)."""
    labels = [[targets.label_names[k] for k in np.flatnonzero(present)] for present in targets.labels]
    return np.array(patient_folds(targets.patient_ids.tolist(), labels, num_folds, seed))


def fold_splits(fold_of_row: Array, fold: int) -> dict[str, Array]:
    """Select the rows of each split of a fold: the fold itself is the test, the next validates, the others train.

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


def keep_folds(data: ExperimentData, folder: Path) -> None:
    """Record the cut in the experiment's folder, or check that the one there is the same.

    Raises:
        ValueError: If the folder's runs were measured on folds of other rows, or of the same rows in another order.
    """
    if data.fold_of_row is None:
        return
    rows = concatenate_datasets([fold.dataset["test"] for fold in data.folds])
    order = np.argsort(np.concatenate([fold.rows for fold in data.folds]))
    patients = zip(data.targets.patient_ids.tolist(), data.fold_of_row.tolist(), strict=True)
    now = {"rows_sha256": rows_sha256(rows.select(order)), "fold_of_patient": dict(sorted(patients))}
    path = folder / FOLDS
    if path.exists() and read_json(path, "Restore it, or start again with --overwrite.") != now:
        raise ValueError(
            f"{path} was cut from other rows: the dataset has been rebuilt since. Choose another folder, or start "
            "again with --overwrite."
        )
    write_json(path, now)


def rows_of_splits(fold: Fold) -> dict[str, str]:
    """Hash the rows of each split."""
    return {split: rows_sha256(rows) for split, rows in fold.dataset.items()}
