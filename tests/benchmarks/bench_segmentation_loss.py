"""Measure the time of the Tversky loss against MONAI's, in one run.

    python tests/benchmarks/bench_segmentation_loss.py

Forward and backward, from logits and class indices, in processor time, so that other programs do not count. The two
take turns, and the fastest round of each counts. MONAI's loss ignores no pixel: the labels have none to ignore. Both
leave the background out and add up the batch.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import torch
from monai.losses import TverskyLoss
from torch import Tensor
from tqdm import tqdm

from data_scripts.system.command_line import run
from train.objectives.overlap import soft_overlap, tversky_loss

FALSE_NEGATIVE_WEIGHT = 0.7


@dataclass
class BenchArguments:
    """The settings of this benchmark."""

    sizes: list[int] = field(default_factory=lambda: [128, 256, 512], metadata={"help": "Sides of the images, pixels."})
    images: int = field(default=8, metadata={"help": "Images of a batch."})
    classes: int = field(default=4, metadata={"help": "Classes, the background among them."})
    repeats: int = field(default=15, metadata={"help": "Timed rounds."})
    threads: int = field(default=1, metadata={"help": "Threads of torch."})
    out: str = field(default="", metadata={"help": "JSON file to write the measurements to; nothing when empty."})


def ours(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the loss of this package."""
    return tversky_loss(soft_overlap(logits, labels), FALSE_NEGATIVE_WEIGHT, smooth=1e-5)


def monai(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute MONAI's loss with the same meaning."""
    loss = TverskyLoss(
        include_background=False,
        to_onehot_y=True,
        softmax=True,
        batch=True,
        alpha=1 - FALSE_NEGATIVE_WEIGHT,
        beta=FALSE_NEGATIVE_WEIGHT,
    )
    return loss(logits, labels[:, None])


def seconds(loss: Callable[[Tensor, Tensor], Tensor], logits: Tensor, labels: Tensor) -> float:
    """Measure the processor time of one forward and backward."""
    leaf = logits.clone().requires_grad_()
    start = time.process_time()
    loss(leaf, labels).backward()
    return time.process_time() - start


def main(args: BenchArguments) -> None:
    """Measure both losses at every size and print the table."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    results = {}
    for size in tqdm(args.sizes, disable=None):
        logits = torch.randn(args.images, args.classes, size, size)
        labels = torch.randint(0, args.classes, (args.images, size, size))
        torch.testing.assert_close(ours(logits, labels), monai(logits, labels), rtol=1e-4, atol=1e-6)
        rounds = [[seconds(loss, logits, labels) for loss in (ours, monai)] for _ in range(args.repeats + 1)][1:]
        mine, theirs = (min(column) for column in zip(*rounds, strict=True))
        results[f"{size}"] = {"seconds": mine, "monai_seconds": theirs, "times_as_fast": theirs / mine}
    print(f"forward + backward, {args.images} images, {args.classes} classes, float32, {args.threads} thread(s)\n")
    print("| pixels | ours | MONAI | times as fast |")
    print("|---:|---:|---:|---:|")
    for size, row in results.items():
        cells = [f"{1000 * row[key]:.1f} ms" for key in ("seconds", "monai_seconds")]
        print(f"| {size} x {size} | {' | '.join(cells)} | {row['times_as_fast']:.2f} |")
    if args.out:
        content = {"date": date.today().isoformat(), "arguments": vars(args), "results": results}
        Path(args.out).write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(run(main))
