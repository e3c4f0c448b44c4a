"""Measure the batches of an epoch under each `--balance`, and of the paper's set: duplicates, targets, classes.

    python tests/benchmarks/batch_balance.py --datasets data/synthetic data/spider_discs --notes FILE.xlsx

Nothing is trained: the batches are those that `train/pretrain.py` would use, and the statistics those that it logs.
With the notes of the Mendeley set, the rows of the paper are measured without its images: each note six times (three
discs, T1 and T2), LBP or No Finding as the parser reads it.
"""

import json
import shlex
import sys
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, List, Value

from data_scripts.records import LOW_BACK_PAIN, NO_FINDING
from data_scripts.reports.text import labels_from_report, normalise_report
from data_scripts.sources.notes import read_notes
from data_scripts.system.command_line import run
from data_scripts.system.markdown import markdown_table
from train.data.batch_sampler import TrainingSet
from train.data.loaders import classes_to_balance, open_dataset, plan_batches, target_classes, text_and_patient_ids
from train.pretraining.batch_statistics import BatchStatistics

IMAGES_OF_A_NOTE = 6
WAYS = {
    "none": TrainingSet(),
    "upsample": TrainingSet(balance=("upsample",)),
    "sampler": TrainingSet(balance=("sampler",)),
    "upsample sampler": TrainingSet(balance=("upsample", "sampler")),
    "upsample, as in the paper": TrainingSet(texts_per_pair=5, balance=("upsample",), minority_share=0.1607),
}


@dataclass
class BatchBalanceArguments:
    """The settings of this benchmark."""

    datasets: list[str] = field(default_factory=list, metadata={"help": "Folders that data_scripts.build wrote."})
    notes: str = field(default="", metadata={"help": "Workbook of the Mendeley notes; nothing when empty."})
    batch_size: list[int] = field(default_factory=lambda: [32, 128], metadata={"help": "Pairs per step."})
    epochs: int = field(default=5, metadata={"help": "Epochs to average over."})
    label_temperature: float = field(default=0.07, metadata={"help": "Label temperature; the paper starts there."})
    out: str = field(default="", metadata={"help": "JSON file to write the measurements to; nothing when empty."})


def main(args: BatchBalanceArguments) -> None:
    """Measure each dataset at each batch size and balance; print tables."""
    rows_of = {Path(name).name: open_dataset(name)["train"] for name in args.datasets}
    if args.notes:
        rows_of["mendeley_notes"] = rows_of_notes(Path(args.notes))
    results: dict[str, Any] = {}
    for name, rows in rows_of.items():
        results[name] = {
            str(size): {way: measure(rows, training_set, size, args) for way, training_set in WAYS.items()}
            for size in args.batch_size
        }
        for size, ways in results[name].items():
            header = ["balance", *(key.replace("_", " ") for key in ways["none"])]
            cells = [[way, *(f"{value:.3f}" for value in figures.values())] for way, figures in ways.items()]
            print(f"\n{name}, batches of {size}\n\n{markdown_table(header, cells)}")
    if args.out:
        content = {
            "command": shlex.join(["python", *sys.argv]),
            "date": date.today().isoformat(),
            "arguments": asdict(args),
            "num_rows": {name: len(rows) for name, rows in rows_of.items()},
            "results": results,
        }
        Path(args.out).write_text(json.dumps(content, indent=2) + "\n")


def rows_of_notes(path: Path) -> Dataset:
    """Build the rows of the paper without their images: every note six times, except those not understood."""
    names = [LOW_BACK_PAIN, NO_FINDING]
    read = [(note, labels_from_report(note.text)) for note in read_notes(path) if not note.problem and note.text]
    notes = [(note, [name for name in labels if name in names]) for note, labels in read if labels]
    columns = {
        "report": [normalise_report(note.text) for note, _ in notes],
        "patient_id": [note.patient_id for note, _ in notes],
        "labels": [labels for _, labels in notes],
    }
    features = Features(report=Value("string"), patient_id=Value("string"), labels=List(ClassLabel(names=names)))
    repeated = {name: [value for value in values for _ in range(IMAGES_OF_A_NOTE)] for name, values in columns.items()}
    return Dataset.from_dict(repeated, features=features)


def measure(
    train: Dataset, training_set: TrainingSet, batch_size: int, args: BatchBalanceArguments
) -> dict[str, float]:
    """Average statistics over the batches of some epochs, with the shares of the rarest and the commonest class."""
    batches = plan_batches(train, training_set, batch_size, seed=0)
    statistics = BatchStatistics(*text_and_patient_ids(train), target_classes(train, ["labels"]))
    counts = np.zeros(len(train), dtype=int)
    for epoch in range(args.epochs):
        for batch in batches.batches_of_epoch(epoch) % len(train):
            statistics.add(torch.from_numpy(batch), args.label_temperature)
            np.add.at(counts, batch, 1)
    classes = classes_to_balance(train)
    present = classes[:, classes.any(axis=0)]
    shares = counts @ present / counts.sum()
    return {
        **statistics.take(),
        "share_of_rarest_class": float(shares[present.sum(axis=0).argmin()]),
        "share_of_commonest_class": float(shares[present.sum(axis=0).argmax()]),
    }


if __name__ == "__main__":
    sys.exit(run(main))
