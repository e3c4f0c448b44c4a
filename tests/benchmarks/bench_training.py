"""Measure pairs per second of our trainer, a bare loop, and transformers' dual encoder with its Trainer, in one run.

    python tests/benchmarks/bench_training.py

All three train the same towers (a small ViT, a small BERT) on the same synthetic pairs, on the CPU, in float32. They
take turns, in the opposite order every second turn, so that a noisy machine is noisy for all. A ratio is taken within a
turn; the median over the turns is reported, with the lowest and the highest. The bare loop holds its tensors in memory
and pads each batch to its longest text. Transformers' model is used as in its contrastive example: images transformed
as they are read, texts padded to 128 tokens.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch
from datasets import DatasetDict, disable_progress_bars
from tqdm import tqdm
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    VisionTextDualEncoderModel,
    ViTConfig,
    ViTModel,
    set_seed,
)

from data_scripts.system.command_line import run
from data_scripts.writing.build_arguments import BuildArguments
from data_scripts.writing.dataset_build import build
from train import pretrain
from train.data.batch_sampler import EpochBatches
from train.data.loaders import PairedRows, open_dataset
from train.objectives import ModelWithObjective, TrainingTargets, build_objective
from train.pretraining.arguments import PretrainArguments
from train.pretraining.initial_model import build_model
from train.training.history import HISTORY
from train.training.initial_towers import learn_tokenizer
from train.training.loop import build_loader
from train.training.optimization import build_optimizer

IMAGE_SIZE = 96
TEXT_LENGTH_OF_THE_EXAMPLE = 128


@dataclass
class BenchArguments:
    """The settings of this benchmark."""

    num_patients: int = field(default=64, metadata={"help": "Synthetic patients, six images each."})
    batch_size: int = field(default=32, metadata={"help": "Pairs per step."})
    updates: int = field(default=6, metadata={"help": "Timed steps per turn, after two warm-up steps."})
    turns: int = field(default=8, metadata={"help": "Turns of each system."})
    out: str = field(default="", metadata={"help": "JSON file to write the measurements to; nothing when empty."})


def main(args: BenchArguments) -> None:
    """Measure in turns and print the ratios."""
    disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        build(BuildArguments(source="synthetic", num_patients=args.num_patients, out=work / "data"), command="")
        dataset = open_dataset(str(work / "data"))
        save_towers(dataset, work)
        settings = pretrain_settings(args, work)
        systems: dict[str, Callable[[], float]] = {
            "trainer": lambda: our_trainer(settings, args),
            "bare loop": lambda: bare_loop(settings, dataset, args, studies_together=False, distinct=True),
            "dual encoder + Trainer": lambda: dual_encoder(dataset, work, args),
            "studies together, reports once": lambda: bare_loop(settings, dataset, args, True, distinct=True),
            "studies together, every report": lambda: bare_loop(settings, dataset, args, True, distinct=False),
        }
        speeds: dict[str, list[float]] = {name: [] for name in systems}
        for turn in tqdm(range(args.turns), desc="turns", disable=None):
            for name in [*systems][:: -1 if turn % 2 else 1]:
                speeds[name].append(systems[name]())
    report(speeds, args)


def report(speeds: dict[str, list[float]], args: BenchArguments) -> None:
    """Print medians of the speeds, and of their ratios within a turn."""
    median = {name: statistics.median(values) for name, values in speeds.items()}
    print("\n| system | pairs/s, median of turns |\n|:--|--:|")
    for name, value in median.items():
        print(f"| {name} | {value:.1f} |")
    compared = {
        "trainer / bare loop": ("trainer", "bare loop"),
        "trainer / dual encoder + Trainer": ("trainer", "dual encoder + Trainer"),
        "T1 and T2 of a study in one batch: reports once / every report": (
            "studies together, reports once",
            "studies together, every report",
        ),
    }
    ratios = {
        name: [ours / theirs for ours, theirs in zip(speeds[first], speeds[second], strict=True)]
        for name, (first, second) in compared.items()
    }
    print("\n| ratio | median of turns | lowest to highest |\n|:--|--:|:--|")
    for name, values in ratios.items():
        print(f"| {name} | {statistics.median(values):.2f} | {min(values):.2f} to {max(values):.2f} |")
    if args.out:
        content = {
            "date": date.today().isoformat(),
            "arguments": vars(args),
            "pairs_per_second": speeds,
            "ratios_of_turns": ratios,
        }
        Path(args.out).write_text(json.dumps(content, indent=2) + "\n")


def save_towers(dataset: DatasetDict, work: Path) -> None:
    """Write the towers that all systems load."""
    tokenizer = learn_tokenizer(dataset["train"]["report"][:], 4000)
    vision = ViTConfig(
        hidden_size=192, num_hidden_layers=6, num_attention_heads=3, intermediate_size=768, image_size=IMAGE_SIZE
    )
    text = BertConfig(
        vocab_size=len(tokenizer), hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024
    )
    ViTModel(vision).save_pretrained(work / "vision")
    BertModel(text).save_pretrained(work / "text")
    tokenizer.save_pretrained(work / "text")


def pretrain_settings(args: BenchArguments, work: Path) -> PretrainArguments:
    """Make the settings of a run of a few updates."""
    return PretrainArguments(
        dataset=str(work / "data"),
        output_dir=str(work / "run"),
        overwrite=True,
        vision=str(work / "vision"),
        text=str(work / "text"),
        image_size=IMAGE_SIZE,
        batch_size=args.batch_size,
        max_updates=args.updates + 2,
        log_every=1,
        save_every=10**9,
        alpha=1.0,
        report_to="none",
        evaluate=False,
    )


def our_trainer(settings: PretrainArguments, args: BenchArguments) -> float:
    """Read pairs per second as the trainer logs them: loader, loss, gradient, clipping, optimizer, schedule."""
    pretrain.main(settings)
    lines = [json.loads(line) for line in (Path(settings.output_dir) / HISTORY).read_text().splitlines()]
    return args.updates / sum(1 / line["pairs_per_second"] for line in lines[2:])


def bare_loop(
    settings: PretrainArguments, dataset: DatasetDict, args: BenchArguments, studies_together: bool, distinct: bool
) -> float:
    """Measure pairs per second of forward, loss, backward and step on batches made beforehand."""
    set_seed(0)
    processor, model = build_model(settings, dataset["train"])
    rows = PairedRows(dataset["train"], processor, ["labels"], seed=0, text_augmentation="none", show_progress=False)
    if studies_together:
        chunks = range(0, (args.updates + 2) * args.batch_size, args.batch_size)
        indices = [[(0, (start + i) % len(rows)) for i in range(args.batch_size)] for start in chunks]
        batches = [rows.__getitems__(batch) for batch in indices]
    else:
        loader = iter(build_loader(rows, EpochBatches(len(rows), args.batch_size, seed=0), 0))
        batches = [next(loader) for _ in range(args.updates + 2)]
    if not distinct:
        batches = [one_text_a_pair(batch) for batch in batches]
    objective = build_objective(settings.objectives, model, TrainingTargets(labels=rows.labels))
    trained = ModelWithObjective(model, objective).train()
    optimizer = build_optimizer(trained, settings.learning_rate, settings.weight_decay)
    started = 0.0
    for step, batch in enumerate(batches):
        if step == 2:
            started = time.perf_counter()
        loss, _ = trained(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return args.updates * args.batch_size / (time.perf_counter() - started)


def one_text_a_pair(batch: dict[str, Any]) -> dict[str, Any]:
    """Undo the sharing of reports."""
    repeated = dict(batch)
    index = repeated.pop("text_index")
    for name in ("input_ids", "attention_mask"):
        repeated[name] = batch[name][index]
    return repeated


def dual_encoder(dataset: DatasetDict, work: Path, args: BenchArguments) -> float:
    """Measure pairs per second of VisionTextDualEncoderModel under Trainer, on only the reports."""
    set_seed(0)
    model = VisionTextDualEncoderModel.from_vision_text_pretrained(str(work / "vision"), str(work / "text"))
    tokenizer = AutoTokenizer.from_pretrained(work / "text")
    train_split = dataset["train"].select_columns(["image", "report"])
    train_split.set_transform(lambda rows: example_transform(rows, tokenizer))
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    options = TrainingArguments(
        output_dir=str(work / "trainer"),
        per_device_train_batch_size=args.batch_size,
        max_steps=args.updates + 2,
        remove_unused_columns=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        label_names=[],
        dataloader_drop_last=True,
    )

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
        return {**batch, "return_loss": True}

    Trainer(model, options, train_dataset=train_split, data_collator=collate, callbacks=[Clock()]).train()
    return args.updates * args.batch_size / (ends[-1] - ends[1])


def example_transform(rows: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    """Prepare a row as the contrastive example does: resize, crop and normalise the image, pad the text to 128."""
    from torchvision.transforms import v2

    transform = v2.Compose(
        [
            v2.Resize([IMAGE_SIZE]),
            v2.CenterCrop(IMAGE_SIZE),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.5] * 3),
        ]
    )
    texts = tokenizer(
        rows["report"],
        max_length=TEXT_LENGTH_OF_THE_EXAMPLE,
        padding="max_length",
        truncation=True,
        return_tensors="pt",
    )
    return {
        "pixel_values": [transform(image.convert("RGB")) for image in rows["image"]],
        "input_ids": list(texts["input_ids"]),
        "attention_mask": list(texts["attention_mask"]),
    }


if __name__ == "__main__":
    sys.exit(run(main))
