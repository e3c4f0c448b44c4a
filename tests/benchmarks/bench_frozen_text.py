"""Measure a training step with a frozen text tower whose texts are looked up, beside steps that run the tower.

    python -m tests.benchmarks.bench_frozen_text

All steps train the same small vision tower (a ViT, 6 layers of 192, 64 pixels) on the same synthetic pairs, reports and
rephrasings, on the CPU, in float32, with the parts of the trainer. They take turns, so that a noisy machine is noisy
for all, and the ratios are of medians over the turns. The text towers have the sizes of BERT-base and of MiniLM, and
random weights, on which no time depends.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from datasets import DatasetDict, disable_progress_bars
from tqdm import tqdm
from transformers import BertConfig, BertModel, ViTConfig, ViTModel, set_seed

from data_scripts.system.command_line import run
from data_scripts.writing.build_arguments import BuildArguments
from data_scripts.writing.dataset_build import build
from train.data.loaders import open_dataset
from train.data.provenance import DataFacts
from train.data.text_cache import TextCache
from train.pretraining.arguments import PretrainArguments
from train.pretraining.task import PretrainingTask
from train.training.initial_towers import learn_tokenizer
from train.training.loop import build_loader
from train.training.optimization import build_optimizer

IMAGE_SIZE = 64
TEXT_TOWERS: dict[str, dict[str, Any]] = {
    "BERT-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    "MiniLM": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
}


@dataclass
class BenchArguments:
    """The settings of this benchmark."""

    num_patients: int = field(default=24, metadata={"help": "Synthetic patients, six images each."})
    batch_size: int = field(default=8, metadata={"help": "Pairs per step."})
    updates: int = field(default=3, metadata={"help": "Timed steps per turn, after a warm-up step."})
    turns: int = field(default=3, metadata={"help": "Turns of each kind of step."})
    out: str = field(default="", metadata={"help": "JSON file to write the measurements to; nothing when empty."})


def main(args: BenchArguments) -> None:
    """Measure in turns for each text tower, and print the ratios."""
    disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        build(BuildArguments(source="synthetic", num_patients=args.num_patients, out=work / "data"), command="")
        dataset = open_dataset(str(work / "data"))
        measured = {}
        for name, size in TEXT_TOWERS.items():
            save_towers(dataset, work, size)
            measured[name] = compare_steps(dataset, work, args)
    report(measured, args)


def save_towers(dataset: DatasetDict, work: Path, text_size: dict[str, Any]) -> None:
    """Write the towers that all steps load."""
    tokenizer = learn_tokenizer(dataset["train"]["report"][:], 4000)
    vision = ViTConfig(
        hidden_size=192, num_hidden_layers=6, num_attention_heads=3, intermediate_size=768, image_size=IMAGE_SIZE
    )
    ViTModel(vision).save_pretrained(work / "vision")
    BertModel(BertConfig(vocab_size=len(tokenizer), **text_size)).save_pretrained(work / "text")
    tokenizer.save_pretrained(work / "text")


def compare_steps(dataset: DatasetDict, work: Path, args: BenchArguments) -> dict[str, Any]:
    """Time the three kinds of steps, and the encoding that a run does once."""
    steps: dict[str, Callable[[], float]] = {
        "trained": lambda: seconds_of_step(prepare(dataset, work, args, freeze=False), args),
        "frozen, run in every step": lambda: seconds_of_step(without_cache(prepare(dataset, work, args)), args),
        "frozen, looked up": lambda: seconds_of_step(opened, args),
    }
    opened = prepare(dataset, work, args)
    texts_of_all = len(opened.text_cache.texts)
    opened.trained.text_cache = opened.text_cache = texts_of_steps(opened, args)
    started = time.perf_counter()
    opened.begin(Accelerator(cpu=True), work)
    encoding = (time.perf_counter() - started) / len(opened.text_cache.texts)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for name, measure in tqdm([*steps.items()] * args.turns, desc="turns", disable=None):
        seconds[name].append(measure())
    return {"seconds_of_step": seconds, "texts_of_run": texts_of_all, "seconds_to_encode_one": encoding}


def texts_of_steps(task: Any, args: BenchArguments) -> TextCache:
    """Collect the texts of the steps that are timed: encoding those of the whole run would take longer than they do."""
    rows, order = task.batches(0, 1)
    batches = islice(build_loader(rows, order, 0), args.updates + 1)
    padded = [
        pair
        for batch in batches
        for prefix in ("", "augmented_")
        for pair in zip(batch[f"{prefix}input_ids"], batch[f"{prefix}attention_mask"], strict=True)
    ]
    return TextCache(tokens[mask.bool()].tolist() for tokens, mask in padded)


def prepare(dataset: DatasetDict, work: Path, args: BenchArguments, freeze: bool = True) -> Any:
    """Build model, rows and objective of a run with the default settings; `task.trained` is its module."""
    settings = PretrainArguments(
        dataset=str(work / "data"),
        output_dir=str(work / "run"),
        vision=str(work / "vision"),
        text=str(work / "text"),
        image_size=IMAGE_SIZE,
        batch_size=args.batch_size,
        freeze=["text"] if freeze else [],
    )
    set_seed(0)
    task: Any = PretrainingTask(settings, dataset, DataFacts(settings.dataset, dataset))
    task.trained = task.build_model()
    return task


def without_cache(task: Any) -> Any:
    """Let each step run the frozen tower."""
    task.trained.text_cache = None
    return task


def seconds_of_step(task: Any, args: BenchArguments) -> float:
    """Time the steps of a run, from the batch to the optimizer; the mean of some."""
    rows, order = task.batches(0, 1)
    batches = iter(build_loader(rows, order, 0))
    optimizer = build_optimizer(task.trained, task.args.learning_rate, task.args.weight_decay)
    task.trained.train()
    if task.args.freeze:
        task.model.text_model.eval()
    started = 0.0
    for step in range(args.updates + 1):
        if step == 1:
            started = time.perf_counter()
        loss, _ = task.loss(task.trained, next(batches))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(task.trained.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return (time.perf_counter() - started) / args.updates


def report(measured: dict[str, dict[str, Any]], args: BenchArguments) -> None:
    """Print medians and their ratios."""
    print("\n| text tower | which is | seconds a step, median of turns | looked up, times as fast |\n|:--|:--|--:|--:|")
    for tower, of_tower in measured.items():
        median = {name: statistics.median(values) for name, values in of_tower["seconds_of_step"].items()}
        of_tower["ratios"] = {name: value / median["frozen, looked up"] for name, value in median.items()}
        for name, value in median.items():
            print(f"| {tower} | {name} | {value:.3f} | {of_tower['ratios'][name]:.1f} |")
    for tower, of_tower in measured.items():
        one, texts = of_tower["seconds_to_encode_one"], of_tower["texts_of_run"]
        print(f"{tower}: {1000 * one:.0f} ms to encode a text, once for each of the {texts} of a run.")
    if args.out:
        content = {"date": date.today().isoformat(), "arguments": vars(args), "text_towers": measured}
        Path(args.out).write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(run(main))
