"""What all runs of an experiment share: the rows, the folds they are measured on, and the baselines of each fold."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DatasetDict, concatenate_datasets
from safetensors import safe_open
from safetensors.numpy import save

from data_scripts.system.whole_files import write_bytes
from train.data.loaders import open_dataset, rows_sha256
from train.data.provenance import DataFacts
from train.evaluation.baselines import pixel_features
from train.evaluation.out_of_fold import Answers
from train.evaluation.predictions import baseline_answers
from train.evaluation.statistics.metrics import Array
from train.evaluation.targets import Targets, read_rows, read_targets
from train.experiments.folds import FOLDS, cut, fold_splits, keep_cut
from train.experiments.spec import ExperimentArguments

logger = logging.getLogger(__name__)

# Of the cut alone: all seeds are measured on the same folds, so that their answers can be compared row by row.
CUT_SEED = 0


@dataclass(frozen=True)
class Fold:
    """What one fold trains, validates and measures on.

    Args:
        number: 0 where the data set's own splits are used.
        dataset: Splits `train`, `validation` and `test`.
        rows: Index of each test row among all rows that the experiment measures. Shape (N,).
    """

    number: int
    dataset: DatasetDict
    rows: Array


@dataclass(frozen=True)
class ExperimentData:
    """The data of an experiment.

    Args:
        name: Of the data set.
        folds: At least one.
        targets: The truth of all rows that the experiment measures.
        sources: Of the same rows.
        leak: What the splits or folds share, where that was allowed; else None.
        fold_of_row: The cut; None where the data set's own splits are used.
    """

    name: str
    folds: Sequence[Fold]
    targets: Targets
    sources: Sequence[str]
    leak: Mapping[str, Any] | None
    fold_of_row: Array | None

    def describe(self) -> dict[str, Any]:
        """Say what is measured on, as `results.json` keeps it."""
        targets = self.targets
        return {
            "name": self.name,
            "split": targets.split,
            "num_rows": len(targets),
            "num_patients": len(set(targets.patient_ids)),
            "leak": self.leak,
            "synthetic": all(source.startswith("synthetic") for source in self.sources),
            "labels": {
                name: {"rows": int(present.sum()), "patients": len(set(targets.patient_ids[present]))}
                for name, present in zip(targets.label_names, targets.labels.T, strict=True)
            },
        }


def open_experiment_data(experiment: ExperimentArguments, show_progress: bool) -> ExperimentData:
    """Read the data set, refuse one that leaks or has no labels, and cut it into folds.

    Args:
        experiment: The experiment.
        show_progress: Whether to draw a progress bar.

    Returns:
        The data.

    Raises:
        ValueError: If there is no such data set, it has no labels or too few patients, or it leaks.
    """
    dataset = open_dataset(experiment.dataset)
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
    if not targets.labels.any():
        raise ValueError(
            f"None of the {len(targets)} rows that {experiment.dataset} is to be measured on has a label, so there is "
            "nothing to measure: label the data (`python -m data_scripts.parse_reports` reads findings from reports)."
        )
    facts = DataFacts(experiment.dataset, parts, show_progress)
    facts.check_leaks(experiment.allow_leaks)
    return ExperimentData(
        name=Path(experiment.dataset).name,
        folds=folds,
        targets=targets,
        sources=measured["source"][:],
        leak=facts.leak_stamp if experiment.allow_leaks else None,
        fold_of_row=fold_of_row,
    )


def keep_folds(data: ExperimentData, out: Path) -> None:
    """Record the cut in the experiment's folder; refuse to go on with another one.

    Raises:
        ValueError: If the folder's runs were measured on folds of other rows.
    """
    if data.fold_of_row is not None:
        rows = concatenate_datasets([fold.dataset["test"] for fold in data.folds])
        order = np.argsort(np.concatenate([fold.rows for fold in data.folds]))
        keep_cut(out / FOLDS, data.targets, data.fold_of_row, rows.select(order))


def baselines_of(fold: Fold, names: Sequence[str], folder: Path) -> dict[str, Answers]:
    """Answer a fold's rows from features that no run has learned, or read the answers from an earlier start.

    Args:
        fold: The fold.
        names: Baselines.
        folder: Where the answers are kept, in a file for each fold, which names the rows that it is of.

    Returns:
        Answers by baseline.
    """
    path, rows = folder / f"{fold.number}.safetensors", rows_of_splits(fold)
    answers = read_baselines(path, rows)
    if set(names) - set(answers):
        targets = read_targets(fold.dataset)
        features = pixel_features(fold.dataset) if set(names) - {"majority"} else {}
        answers = baseline_answers(features, targets, fold.rows, fold.number)
        folder.mkdir(parents=True, exist_ok=True)
        flat = {
            f"{name}/{key}": np.ascontiguousarray(array) for name, of in answers.items() for key, array in of.items()
        }
        write_bytes(path, save(flat, metadata=rows))
    return {name: answers[name] for name in names}


def read_baselines(path: Path, rows: Mapping[str, str]) -> dict[str, Answers]:
    """Read the answers of baselines; none if there is no file, or it is of other rows."""
    if not path.exists():
        return {}
    answers: dict[str, Answers] = {}
    with safe_open(path, "numpy") as kept:
        if kept.metadata() == rows:
            for name in kept.keys():  # noqa: SIM118 -- it cannot be iterated over
                baseline, _, key = name.partition("/")
                answers.setdefault(baseline, {})[key] = kept.get_tensor(name)
    return answers


def rows_of_splits(fold: Fold) -> dict[str, str]:
    """Identity of the rows of each split."""
    return {split: rows_sha256(rows) for split, rows in fold.dataset.items()}
