"""Measure the paper's probe: cached features against encoding in every epoch, and what finds a rare class.

    make demo
    python tests/benchmarks/bench_probe.py --out tests/benchmarks/results/probe.json

The tower is that of `make demo`, and so are the synthetic images. With the cache the training images are encoded once,
which is counted, and the probe's 50 epochs run on the features; without it the images are encoded in each of the 50
epochs. Only `--encoding_epochs` of these are run and timed; the others, doing the same, count with their mean.

The paper trains its probe on the augmented set, where each image comes with five texts, and upsampled; `TRAINING_SETS`
are that set, and what is left of it with each row once. Corrections of the loss see each row once.

All are compared on the demo's unchanged features, and with the rarer class thinned out for the probe (the
tower was pretrained on all rows). Every test row is kept, but those of the rarer class weigh less by the same share, so
that the figures describe patients among whom the class is as rare as in training. Figures are means over seeds, each
with its own draw of rows, initial weights and order.
"""

import json
import shlex
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import disable_progress_bars

from data_scripts.system.command_line import run
from data_scripts.system.markdown import markdown_table
from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPProcessor
from train.data.batch_sampler import EACH_PAIR_ONCE, TrainingSet
from train.data.loaders import open_dataset
from train.evaluation.features import encode_images
from train.evaluation.protocols.decision_threshold import threshold_decisions
from train.evaluation.protocols.linear_probe import logistic_probe
from train.evaluation.protocols.nearest_neighbour_probe import nearest_neighbour_probe
from train.evaluation.protocols.paper_probe import EPOCHS, paper_probe
from train.evaluation.protocols.probe_losses import PROBE_LOSSES
from train.evaluation.statistics import metrics
from train.evaluation.statistics.metrics import Array
from train.evaluation.targets import Targets, read_targets

THINNED_SPLITS = ("train", "validation")
TRAINING_SETS = {
    "paper": EACH_PAIR_ONCE,
    "paper_upsampled": TrainingSet(balance=("upsample",)),
    "paper_five_texts": TrainingSet(texts_per_pair=5),
    "paper_five_texts_table_1": TrainingSet(texts_per_pair=5, balance=("upsample",), minority_share=0.1607),
    "paper_five_texts_upsampled": TrainingSet(texts_per_pair=5, balance=("upsample",)),
}
FIGURES = {
    "accuracy": metrics.accuracy,
    "macro_f1": metrics.macro_f1,
    "balanced_accuracy": metrics.balanced_accuracy,
    "minority_recall": metrics.minority_recall,
}


@dataclass
class ProbeBenchArguments:
    """The settings of this benchmark."""

    checkpoint: str = field(default="runs/demo/checkpoint", metadata={"help": "Model whose features are probed."})
    dataset: str = field(default="data/synthetic", metadata={"help": "Dataset with exclusive labels."})
    batch_size: int = field(default=128, metadata={"help": "Images per forward pass."})
    encoding_epochs: int = field(default=2, metadata={"help": "Epochs of encoding to run, of the 50."})
    kept: list[float] = field(
        default_factory=lambda: [1.0, 0.1, 0.05],
        metadata={"help": "Shares of the rarer class's rows that are left to learn from."},
    )
    seeds: int = field(default=5, metadata={"help": "Seeds to average over."})
    out: str = field(default="", metadata={"help": "JSON file to write the measurements to; nothing when empty."})


def main(args: ProbeBenchArguments) -> None:
    """Measure time, then the corrections; print both."""
    disable_progress_bars()
    dataset, targets = open_dataset(args.dataset), read_targets(open_dataset(args.dataset))
    model = LumbarCLIPModel.from_pretrained(args.checkpoint)
    processor = LumbarCLIPProcessor.from_pretrained(args.checkpoint)

    # Time. The first pass warms up: it fills the page cache and the allocator.
    encode = partial(encode_images, model, processor, batch_size=args.batch_size, description="Images")
    features = {split: encode(dataset[split])["image_features"] for split in targets}
    encoding_seconds = [seconds_of(lambda: encode(dataset["train"])) for _ in range(args.encoding_epochs)]
    fitting_seconds = seconds_of(lambda: paper_probe(features, targets, seed=0))
    speed = compare(encoding_seconds, fitting_seconds, len(targets["train"]))
    print(markdown_table(["", ""], [[name.replace("_", " "), f"{value:.2f}"] for name, value in speed.items()]))

    # The corrections.
    corrections = {}
    for share in args.kept:
        runs = [answers_of_probes(*thin(features, targets, share, seed), seed) for seed in range(args.seeds)]
        corrections[str(share)] = {
            probe: summarise([measure(run[probe], targets, share) for run in runs]) for probe in runs[0]
        }
        cells = [
            [probe, *(f"{entry['mean']:.3f} ± {entry['standard_deviation']:.3f}" for entry in figures.values())]
            for probe, figures in corrections[str(share)].items()
        ]
        print(f"\n{share:.0%} of the rarer class\n\n{markdown_table(['probe', *FIGURES], cells)}")
    if args.out:
        content = {
            "command": shlex.join(["python", *sys.argv]),
            "date": date.today().isoformat(),
            "arguments": asdict(args),
            "speed": speed,
            "training_rows": {share: count_rows(targets, float(share)) for share in corrections},
            "corrections": corrections,
        }
        Path(args.out).write_text(json.dumps(content, indent=2) + "\n")


def seconds_of(work: Any) -> float:
    """Measure the wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compare(encoding_seconds: list[float], fitting_seconds: float, num_images: int) -> dict[str, float]:
    """Measure the seconds of the 50 epochs both ways, and their ratio."""
    encoding = statistics.mean(encoding_seconds)
    cached, encoding_each_epoch = encoding + fitting_seconds, EPOCHS * encoding + fitting_seconds
    return {
        "training_images": num_images,
        "encoding_seconds_an_epoch": encoding,
        "fitting_seconds_all_epochs": fitting_seconds,
        "cached_seconds": cached,
        "encoding_each_epoch_seconds": encoding_each_epoch,
        "ratio": encoding_each_epoch / cached,
    }


def thin(
    features: Mapping[str, Array], targets: Mapping[str, Targets], share: float, seed: int
) -> tuple[dict[str, Array], dict[str, Targets]]:
    """Keep a share of the rarer class's rows in the training and the validation split, at least one of each."""
    rng = np.random.default_rng(seed)
    rarer = rarer_class(targets)
    thinned_features, thinned_targets = dict(features), dict(targets)
    for split in THINNED_SPLITS:
        rare = np.flatnonzero(targets[split].classes == rarer)
        left_out = rng.permutation(rare)[max(1, round(share * len(rare))) :]
        rows = np.setdiff1d(np.arange(len(targets[split])), left_out)
        thinned_features[split] = features[split][rows]
        thinned_targets[split] = targets[split].select(rows, split)
    return thinned_features, thinned_targets


def rarer_class(targets: Mapping[str, Targets]) -> int:
    """Find the class with the fewest test rows, for `minority_recall`."""
    return int(targets["test"].labels.sum(0).argmin())


def count_rows(targets: Mapping[str, Targets], share: float) -> dict[str, int]:
    """Count the training rows of each class after thinning."""
    train = targets["train"]
    kept = {name: int(count) for name, count in zip(train.label_names, train.labels.sum(0), strict=True)}
    rarer = train.label_names[rarer_class(targets)]
    return kept | {rarer: max(1, round(share * kept[rarer]))}


def answers_of_probes(features: dict[str, Array], targets: dict[str, Targets], seed: int) -> dict[str, Array]:
    """Predict the test rows with each probe: probabilities, or decisions. Shape (N, K)."""
    paper = PROBE_LOSSES["paper"]
    fitted = {name: paper_probe(features, targets, paper, rows, seed=seed) for name, rows in TRAINING_SETS.items()}
    fitted |= {
        name: paper_probe(features, targets, loss, seed=seed) for name, loss in PROBE_LOSSES.items() if name != "paper"
    }
    return {
        **{name: probe.probabilities["test"] for name, probe in fitted.items()},
        "paper_threshold": threshold_decisions(fitted["paper"].probabilities, targets),
        "logistic": logistic_probe(features, targets),
        "knn": nearest_neighbour_probe(features, targets),
    }


def measure(answers: Array, targets: Mapping[str, Targets], share: float) -> dict[str, float]:
    """Compute the figures of one probe, test rows of the rarer class weighing `share` each."""
    truth, num_classes = targets["test"].classes, len(targets["test"].label_names)
    weights = np.where(truth == rarer_class(targets), share, 1.0)
    predicted = answers.argmax(1)
    return {name: float(metric(truth, predicted, num_classes, weights)) for name, metric in FIGURES.items()}


def summarise(runs: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Compute mean and standard deviation over seeds of each figure."""
    values = {name: [run[name] for run in runs] for name in FIGURES}
    return {
        name: {"mean": statistics.mean(of_runs), "standard_deviation": statistics.stdev(of_runs)}
        for name, of_runs in values.items()
    }


if __name__ == "__main__":
    sys.exit(run(main))
