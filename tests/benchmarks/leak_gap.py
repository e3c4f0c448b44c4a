"""Measure how much better a model looks on patients that it has seen: SPIDER discs split by record and by patient.

    python tests/benchmarks/leak_gap.py --out tests/benchmarks/results/leak_gap.json
    python tests/benchmarks/leak_gap.py --pretrained_cuts 1 --out tests/benchmarks/results/leak_gap.json

The discs are cut into five folds twice, by record and by patient, with the stratification of `data_scripts.build`, and
each fold is predicted by models fitted on three others (a fourth validates), so that both ways predict every disc
once, from as many rows. The differences are paired, disc by disc; their intervals are over patients, and the
figures are means over several cuts. The splits that `--split_by record` and `--split_by patient` make are measured,
too. The second command pretrains LumbarCLIP in every fold, about 3 minutes each; finished folds are not repeated.
"""

import json
import logging
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, concatenate_datasets, disable_progress_bars
from matplotlib.figure import Figure
from PIL import Image, ImageOps
from sklearn.neighbors import KNeighborsClassifier
from tqdm import tqdm
from transformers import HfArgumentParser

from data_scripts.splits import patient_folds
from data_scripts.system.command_line import parse_arguments
from data_scripts.system.markdown import markdown_table
from data_scripts.writing.build_arguments import BuildArguments
from data_scripts.writing.dataset_build import build
from train.data.loaders import open_dataset, rows_sha256
from train.evaluation.baselines import THUMBNAIL_SIZE, describing_features, pca_features
from train.evaluation.predictions import PREDICTIONS, pool, ranks_within_folds, read_predictions
from train.evaluation.protocols.grade_probe import grade_probe
from train.evaluation.protocols.linear_probe import logistic_probe
from train.evaluation.statistics import metrics
from train.evaluation.statistics.bootstrap import Resampling, paired_difference, patient_bootstrap
from train.evaluation.statistics.metrics import Array
from train.evaluation.targets import SPLITS, Targets, read_rows, read_targets
from train.experiments.data import Fold, fold_splits
from train.experiments.kinds.pretraining import predict_fold
from train.pretrain import pretrain
from train.pretraining.arguments import PretrainArguments
from train.reporting.figures.plots import interval_chart
from train.reporting.tables import format_entry

CONFIG = Path(__file__).parents[2] / "train" / "configs" / "spider.yaml"
UNITS = ("record", "patient")
NUM_FOLDS = 5
NEIGHBOURS = 5
MIN_PATIENTS = 2 * NUM_FOLDS
LUMBARCLIP = "LumbarCLIP, linear probe"
FIGURES = {"macro_auroc": "macro AUROC", "grade_quadratic_kappa": "grade kappa"}


@dataclass
class LeakGapArguments:
    """The settings of this benchmark."""

    raw: str = field(default="../shared/data/spider_discs", metadata={"help": "Folder with discs.csv."})
    work: str = field(default="runs/leak_gap", metadata={"help": "Folder for built data, pretraining runs, figure."})
    cuts: int = field(default=5, metadata={"help": "Cuts into folds, each with its own seed."})
    pretrained_cuts: int = field(default=0, metadata={"help": "Cuts in whose folds LumbarCLIP is pretrained."})
    num_resamples: int = field(default=1000, metadata={"help": "Bootstrap resamples of patients."})
    out: str = field(default="", metadata={"help": "JSON file to write the measurements to; nothing when empty."})


@dataclass(frozen=True)
class Answer:
    """Predictions of one system for N rows.

    Args:
        scores: One for each label, comparable over rows; NaN where a label could not be learned. Shape (N, K).
        grades: Grade indices. Shape (N,).
    """

    scores: Array
    grades: Array


def main(args: LeakGapArguments) -> None:
    """Build, predict, compare, write."""
    disable_progress_bars()
    logging.disable(logging.WARNING)  # a fold that lacks a rare finding would warn for each system
    work, resampling = Path(args.work), Resampling(args.num_resamples)
    built = {unit: built_splits(args, unit) for unit in UNITS}
    rows = concatenate_datasets([built["patient"][split] for split in SPLITS])
    targets, thumbnails = read_rows(rows, "all folds"), read_thumbnails(rows)
    findings = common_findings(targets)

    answers: dict[str, dict[str, list[Answer]]] = {}
    for seed in tqdm(range(args.cuts), desc="cuts", unit=" cuts"):
        for unit in UNITS:
            fold_of_row = cut(targets, rows, unit, seed)
            systems = answer_by_pixels(rows, targets, thumbnails, fold_of_row)
            if seed < args.pretrained_cuts:
                folder = work / rows_sha256(rows)[:12] / f"{unit}-{seed}"
                systems[LUMBARCLIP] = answer_by_lumbarclip(args, rows, fold_of_row, folder, seed)
            for name, answer in systems.items():
                answers.setdefault(name, {}).setdefault(unit, []).append(answer)

    results = {
        "command": shlex.join(["python", *sys.argv]),
        "date": date.today().isoformat(),
        "arguments": vars(args),
        "dataset": {"name": "spider_discs", "num_rows": len(rows), "num_patients": len(set(targets.patient_ids))},
        "num_folds": NUM_FOLDS,
        "findings": [targets.label_names[k] for k in findings],
        "cross_validated": compare(answers, targets, findings, resampling),
        "single_split": {unit: measure_split(built[unit], findings, resampling) for unit in UNITS},
    }
    print(tables(results))
    work.mkdir(parents=True, exist_ok=True)
    draw(results).savefig(work / "leak_gap.png")
    print(f"\nFigure: {work / 'leak_gap.png'}")
    if args.out:
        Path(args.out).write_text(json.dumps(results, indent=2) + "\n")


def built_splits(args: LeakGapArguments, unit: str) -> Mapping[str, Dataset]:
    """Build the discs with `--split_by record` or `patient`."""
    folder = Path(args.work) / f"by_{unit}"
    settings = BuildArguments(source="spider", raw=Path(args.raw), split_by=unit, out=folder, overwrite=True)
    build(settings, command="")
    return open_dataset(str(folder))


def read_thumbnails(rows: Dataset) -> tuple[Array, Array]:
    """Read grey images of one size, shape (N, 64, 64), and their original sizes, shape (N, 2)."""
    images = [row["image"] for row in rows.select_columns("image")]
    side = (THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    padded = [np.asarray(ImageOps.pad(image.convert("L"), side, Image.Resampling.BILINEAR)) for image in images]
    return np.stack(padded), np.array([image.size for image in images], dtype=np.float32)


def cut(targets: Targets, rows: Dataset, unit: str, seed: int) -> Array:
    """Assign rows to folds, row by row or patient by patient. Shape (N,)."""
    labels = [[targets.label_names[k] for k in np.flatnonzero(present)] for present in targets.labels]
    ids = rows["source"][:] if unit == "record" else rows["patient_id"][:]
    return np.array(patient_folds(ids, labels, NUM_FOLDS, seed))


def answer_by_pixels(
    rows: Dataset, targets: Targets, thumbnails: tuple[Array, Array], fold_of_row: Array
) -> dict[str, Answer]:
    """Predict every fold from features that are not learned from reports."""
    images, sizes = thumbnails
    described = describing_features(rows, sizes)
    folds: dict[str, list[Answer]] = {}
    for fold in range(NUM_FOLDS):
        splits = fold_splits(fold_of_row, fold)
        components = pca_features({split: images[indices] for split, indices in splits.items()})
        of_split = {split: targets.select(indices, split) for split, indices in splits.items()}
        systems = pixel_systems(components, {split: described[i] for split, i in splits.items()}, of_split)
        for name, answer in systems.items():
            folds.setdefault(name, []).append(answer)
    order = np.argsort(np.concatenate([fold_splits(fold_of_row, fold)["test"] for fold in range(NUM_FOLDS)]))
    return {
        name: Answer(
            ranks_within_folds(np.concatenate([a.scores for a in answers])[order], fold_of_row),
            np.concatenate([a.grades for a in answers])[order],
        )
        for name, answers in folds.items()
    }


def pixel_systems(
    components: Mapping[str, Array], described: Mapping[str, Array], targets: Mapping[str, Targets]
) -> dict[str, Answer]:
    """Predict one test split from pixels and, as a baseline, without them."""
    return {
        "pixel PCA, nearest neighbours": neighbour_answer(components, targets),
        "pixel PCA, linear probe": probe_answer(components, targets),
        "no pixels, linear probe": probe_answer(described, targets),
    }


def probe_answer(features: Mapping[str, Array], targets: Mapping[str, Targets]) -> Answer:
    """Predict the test split with the probes of the evaluation."""
    grades = grade_probe(features, targets)
    assert grades is not None and (grades >= 0).all()  # every disc has a grade
    return Answer(logistic_probe(features, targets), grades)


def neighbour_answer(features: Mapping[str, Array], targets: Mapping[str, Targets]) -> Answer:
    """Predict each row of the test split from the labels of the most similar other rows."""
    known = np.concatenate([features["train"], features["validation"]])
    labels = np.concatenate([targets["train"].labels, targets["validation"].labels]).astype(int)
    grades = np.concatenate([targets["train"].grades, targets["validation"].grades])
    nearest: Callable[[], Any] = partial(KNeighborsClassifier, NEIGHBOURS, weights="distance")
    scores = [
        nearest().fit(known, labels[:, k]).predict_proba(features["test"])[:, 1]
        if len(np.unique(labels[:, k])) == 2
        else np.full(len(features["test"]), np.nan)
        for k in range(labels.shape[1])
    ]
    return Answer(np.stack(scores, axis=1), nearest().fit(known, grades).predict(features["test"]))


def answer_by_lumbarclip(args: LeakGapArguments, rows: Dataset, fold_of_row: Array, folder: Path, seed: int) -> Answer:
    """Pretrain in every fold, and predict it with the linear probe on the frozen encoder."""
    words = [str(CONFIG), "--dataset", args.raw, "--seed", str(seed), "--no_evaluate", "--resume"]
    folds = []
    for number in range(NUM_FOLDS):
        path = folder / f"fold-{number}" / PREDICTIONS
        if not path.exists():
            recipe = parse_arguments(PretrainArguments, [*words, "--output_dir", str(path.parent)])
            splits = fold_splits(fold_of_row, number)
            dataset = DatasetDict({split: rows.select(indices) for split, indices in splits.items()})
            processor, model = pretrain(recipe, dataset)
            predict_fold(model, processor, Fold(number, dataset, splits["test"]), path, recipe)
        folds.append(read_predictions(path)[0])
    pooled, _ = pool(folds)
    scores = ranks_within_folds(pooled["probe/logistic/unprojected"], fold_of_row)
    return Answer(scores, pooled["grade/unprojected"])


def compare(
    answers: Mapping[str, Mapping[str, list[Answer]]], targets: Targets, findings: list[int], resampling: Resampling
) -> dict[str, Any]:
    """Measure both ways of cutting, and how much the first exceeds the second, for each system."""
    compared = {}
    for name, ways in answers.items():
        ours, theirs = (metric_inputs(targets, ways[unit], findings) for unit in UNITS)
        compared[name] = {"num_cuts": len(ways["record"])} | {
            unit: estimates(targets, ways[unit], findings, resampling) for unit in UNITS
        }
        compared[name]["difference"] = {
            figure: paired_difference(metric, arrays, theirs[figure][1], targets.patient_ids, resampling).as_dict()
            for figure, (metric, arrays) in ours.items()
        }
    return compared


def measure_split(splits: Mapping[str, Dataset], findings: list[int], resampling: Resampling) -> dict[str, Any]:
    """Measure the test split that a build made."""
    targets = read_targets({split: splits[split] for split in SPLITS})
    pixels = {split: read_thumbnails(splits[split]) for split in SPLITS}
    described = {split: describing_features(splits[split], sizes) for split, (_, sizes) in pixels.items()}
    components = pca_features({split: images for split, (images, _) in pixels.items()})
    answers = pixel_systems(components, described, targets)
    patients = {split: set(of_split.patient_ids) for split, of_split in targets.items()}
    return {
        "num_test_rows": len(targets["test"]),
        "num_test_patients": len(patients["test"]),
        "num_test_patients_in_training": len(patients["test"] & (patients["train"] | patients["validation"])),
        "systems": {
            name: estimates(targets["test"], [answer], findings, resampling) for name, answer in answers.items()
        },
    }


def common_findings(targets: Targets) -> list[int]:
    """Find the columns of findings that enough patients have to learn and test them in every fold."""
    return [k for k in targets.findings if len(np.unique(targets.patient_ids[targets.labels[:, k]])) >= MIN_PATIENTS]


def estimates(
    targets: Targets, answers: list[Answer], findings: list[int], resampling: Resampling
) -> dict[str, dict[str, Any]]:
    """Compute figures with intervals over patients, means over the predicted cuts."""
    return {
        figure: patient_bootstrap(metric, arrays, targets.patient_ids, resampling).as_dict()
        for figure, (metric, arrays) in metric_inputs(targets, answers, findings).items()
    }


def metric_inputs(
    targets: Targets, answers: list[Answer], findings: list[int]
) -> dict[str, tuple[metrics.Metric, list[Array]]]:
    """List what is measured: by name, a metric and the arrays that it takes."""
    kappa = partial(metrics.quadratic_kappa, num_classes=len(targets.grade_names))
    scores = [targets.labels[:, findings], *(answer.scores[:, findings] for answer in answers)]
    grades = [targets.grades, *(answer.grades for answer in answers)]
    return {
        "macro_auroc": (partial(mean_over_cuts, metrics.macro_auroc), scores),
        "grade_quadratic_kappa": (partial(mean_over_cuts, kappa), grades),
    }


def mean_over_cuts(
    metric: metrics.Metric, truth: Array, *answers: Array, weights: Array | None = None
) -> metrics.Floats:
    """Average a metric over cuts, on the same weighted patients."""
    return np.mean([metric(truth, answer, weights=weights) for answer in answers], axis=0)


def tables(results: Mapping[str, Any]) -> str:
    """Write the measurements as Markdown."""
    folds, single = [], []
    for figure, words in FIGURES.items():
        for name, compared in results["cross_validated"].items():
            entries = [format_entry(compared[column][figure]) for column in (*UNITS, "difference")]
            folds.append([f"{words}, {name}", str(compared["num_cuts"]), *entries])
        for name in results["single_split"]["record"]["systems"]:
            entries = [format_entry(results["single_split"][unit]["systems"][name][figure]) for unit in UNITS]
            single.append([f"{words}, {name}", *entries])
    ways = [f"by {unit}" for unit in UNITS]
    return (
        f"Five folds, every disc answered\n\n{markdown_table(['', 'cuts', *ways, 'difference'], folds)}\n\n"
        f"The test split of one build, seed 0\n\n{markdown_table(['', *ways], single)}"
    )


def draw(results: Mapping[str, Any]) -> Figure:
    """Draw both ways side by side, system by system."""
    dataset = results["dataset"]
    entries = {
        f"{words}\n{name}": {f"split by {unit}": compared[unit][figure] for unit in UNITS}
        for figure, words in FIGURES.items()
        for name, compared in results["cross_validated"].items()
    }
    where = f"{dataset['num_rows']} SPIDER discs of {dataset['num_patients']} patients, five folds"
    return interval_chart(entries, "AUROC or quadratic kappa", f"The same probe, with and without the leak\n{where}")


if __name__ == "__main__":
    (arguments,) = HfArgumentParser(LeakGapArguments).parse_args_into_dataclasses()  # type: ignore[arg-type]
    main(arguments)
