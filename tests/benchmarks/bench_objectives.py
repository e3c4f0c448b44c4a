"""Measure what each further objective adds to a step of training, all in one run.

    python tests/benchmarks/bench_objectives.py --settings train/configs/demo.yaml

A step is a batch, forward, backward and optimizer, as the trainer does them. The variants take turns step by step, and
the CPU time of a step counts, so that other work on the machine falls on all of them alike.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import torch
from accelerate.utils import set_seed
from datasets import DatasetDict, disable_progress_bars
from tqdm import tqdm

from data_scripts.system.command_line import JsonMapping, parse_arguments, run, setting
from train.data.batch_sampler import TrainingSet
from train.data.loaders import open_dataset, plan_batches
from train.data.provenance import describe_build
from train.pretraining.arguments import ObjectiveWeights, PretrainArguments
from train.pretraining.initial_model import build_model
from train.pretraining.task import build_rows, join_with_objective
from train.training.loop import build_loader
from train.training.optimization import build_optimizer


@dataclass
class BenchArguments:
    """The settings of this benchmark."""

    settings: str = setting("train/configs/demo.yaml", "Settings of the run that is measured, in YAML.")
    dataset: str = setting("", "Dataset in place of that of the settings.")
    alone: JsonMapping = setting(JsonMapping({"lumbarclip": 1.0}), "Objectives that the others are added to.")
    added: list[str] = setting(["polarity", "counterfactual"], "Objectives to add, each alone and all.")
    steps: int = field(default=30, metadata={"help": "Timed steps of each variant, after two that warm up."})
    out: str = field(default="", metadata={"help": "JSON file to write the measurements to; nothing when empty."})


def main(args: BenchArguments) -> None:
    """Measure in turns and print the ratios."""
    disable_progress_bars()
    torch.set_num_threads(1)
    own = ["--dataset", args.dataset] if args.dataset else []
    settings = parse_arguments(PretrainArguments, [args.settings, *own])
    dataset = open_dataset(settings.dataset)
    variants = {"+".join(args.alone): dict(args.alone)}
    variants |= {f"+ {name}": {**args.alone, name: 1.0} for name in args.added}
    variants["+ all"] = {**args.alone, **dict.fromkeys(args.added, 1.0)}
    steps = {
        name: stepper(replace(settings, objectives=ObjectiveWeights(chosen)), dataset)
        for name, chosen in variants.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in tqdm(range(args.steps + 2), desc="steps"):
        for name, step in steps.items():
            started = time.process_time()
            step()
            if turn >= 2:
                seconds[name].append(time.process_time() - started)
    first = next(iter(seconds.values()))
    # Of steps that took turns: a slow moment is slow for both.
    ratios = {
        name: statistics.median(own / base for own, base in zip(of_variant, first, strict=True))
        for name, of_variant in seconds.items()
    }
    print("\n| objectives | CPU ms a step, median | ratio |\n|:--|--:|--:|")
    for name, of_variant in seconds.items():
        print(f"| {name} | {1000 * statistics.median(of_variant):.0f} | {ratios[name]:.3f} |")
    if args.out:
        content = {"date": date.today().isoformat(), "arguments": vars(args), "seconds": seconds, "ratios": ratios}
        Path(args.out).write_text(json.dumps(content, indent=2) + "\n")


def stepper(settings: PretrainArguments, dataset: DatasetDict) -> Callable[[], None]:
    """Make a run's model, rows and optimizer; return its next step."""
    set_seed(0)
    processor, model = build_model(settings, dataset["train"])
    splits = {"train": dataset["train"], "validation": dataset["validation"].select(range(1))}
    rows, _ = build_rows(settings, splits, processor, False, describe_build(settings.dataset)["labels_from"])
    torch.nn.Module.to(model.vision_model, memory_format=torch.channels_last)
    trained = join_with_objective(settings, model, processor, rows).train()
    optimizer = build_optimizer(trained, settings.learning_rate / 100, settings.weight_decay)
    order = plan_batches(dataset["train"], TrainingSet.of(vars(settings)), settings.batch_size, settings.seed)
    batches: Iterator[dict[str, torch.Tensor]] = iter(build_loader(rows, order, 0))

    def step() -> None:
        loss, _ = trained(next(batches))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


if __name__ == "__main__":
    sys.exit(run(main))
