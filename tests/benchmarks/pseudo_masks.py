"""Measure pseudo-masks against experts' masks: Dice of each class.

    python -m data_scripts.build --source spider --raw raw/spider_masks --out data/spider_masks
    python -m tests.benchmarks.pseudo_masks --dataset data/spider_masks

The dataset has experts' masks with the classes of pseudo-masks; those of spinous processes count as vertebra, which
pseudo-masks never mark. A slice on which nothing was found counts with a Dice of 0.
"""

import json
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from datasets import concatenate_datasets, load_dataset
from tqdm import tqdm

from data_scripts.preprocessing.pseudo_masks import PSEUDO_MASK_NAMES, pseudo_mask
from data_scripts.records import MASK_ORIGINS, SOURCE_MASK
from data_scripts.system.command_line import run, setting
from train.evaluation.statistics.bootstrap import patient_bootstrap
from train.evaluation.statistics.metrics import mean


@dataclass
class PseudoMaskArguments:
    """The settings of this benchmark."""

    dataset: str = setting("data/spider_masks", "Built dataset with experts' masks.")
    out: str = setting("", "JSON file to write the metrics to; nothing when empty.")


def main(args: PseudoMaskArguments) -> None:
    """Compute a pseudo-mask of each slice that an expert marked, and print its Dice by class."""
    splits = load_dataset(args.dataset)
    rows = concatenate_datasets([splits[name] for name in splits])
    names = rows.features["mask_classes"].feature.names
    classes = [(index, names.index(name)) for index, name in enumerate(PSEUDO_MASK_NAMES)][1:]
    scores, patients, num_found = [], [], 0
    for row in tqdm(rows, desc="slices"):
        if row["mask_origin"] != MASK_ORIGINS.index(SOURCE_MASK):
            continue
        truth = np.asarray(row["mask"])
        found = pseudo_mask(np.asarray(row["image"]), row["report"])
        num_found += found is not None
        guess = np.zeros_like(truth) if found is None else found
        scores.append([dice(guess == index, truth == expert) for index, expert in classes])
        patients.append(row["patient_id"])
    table = np.array(scores)
    columns = {name: table[:, place] for place, name in enumerate(PSEUDO_MASK_NAMES[1:])} | {
        "macro": table.mean(axis=1)
    }
    estimates = {name: patient_bootstrap(mean, [values], patients) for name, values in columns.items()}
    print(f"{num_found} of {len(scores)} slices of {len(set(patients))} patients have a pseudo-mask")
    print("\n| class | Dice, mean over slices |\n|:--|--:|")
    for name, estimate in estimates.items():
        print(f"| {name} | {estimate} |")
    if args.out:
        content = {
            "date": date.today().isoformat(),
            "dataset": Path(args.dataset).name,
            "slices": len(scores),
            "patients": len(set(patients)),
            "with_pseudo_mask": num_found,
            "dice": {name: estimate.as_dict() for name, estimate in estimates.items()},
        }
        Path(args.out).write_text(json.dumps(content, indent=2) + "\n")


def dice(guess: np.ndarray, truth: np.ndarray) -> float:
    """Compute the overlap of two areas; 1 if both are empty."""
    total = guess.sum() + truth.sum()
    return 1.0 if total == 0 else float(2 * (guess & truth).sum() / total)


if __name__ == "__main__":
    sys.exit(run(main))
