"""The dry run of an experiment: the updates of each run, and how long it would take on this machine."""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device, set_seed
from datasets import Dataset
from tqdm.auto import tqdm

from data_scripts.system.markdown import markdown_table
from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPProcessor
from modeling_lumbarclip.towers_lumbarclip import hidden_width
from train.data.batch_sampler import TrainingSet
from train.data.loaders import PairedRows, plan_batches
from train.experiments.data import Fold
from train.experiments.progress import in_words
from train.experiments.spec import ExperimentRun
from train.objectives import ModelWithObjective
from train.pretraining.arguments import PretrainArguments
from train.pretraining.initial_model import build_model
from train.pretraining.task import build_rows, collect_texts, join_with_objective
from train.training.loop import count_updates
from train.training.optimization import build_optimizer

logger = logging.getLogger(__name__)

TIMED_UPDATES = 2
# If a batch this small takes longer than this, one of the paper's size would take minutes, at about the same speed.
SMALL_BATCH_SIZE = 8
SLOW_SECONDS = 1.0
# The settings that decide the speed; heads, temperatures and learning rates cost nothing compared with the towers.
SPEED_SETTINGS = (
    "objectives",
    "vision",
    "vision_model_args",
    "text",
    "text_config",
    "pretrained",
    "vocabulary_size",
    "image_size",
    "max_text_length",
    "text_unit",
    "text_augmentation",
    "augment",
    "gradient_checkpointing",
    "freeze",
    "freeze_vision_layers",
    "lora_rank",
    "lora_towers",
    "batch_size",
)


def estimate_runs(
    runs: Sequence[ExperimentRun], folds: Sequence[Fold], accelerator: Accelerator
) -> list[dict[str, Any]]:
    """Count the updates of each run and estimate its time from a few measured steps of each kind of run.

    Returns:
        For each run its `run`, `updates`, `pairs`, `pairs_per_second` and `seconds`; all 0 or None where nothing is
        trained. Decoding, validation and predicting are not counted.
    """
    speeds: dict[str, float] = {}
    planned = []
    for run in tqdm(runs, desc="measuring speed", unit=" runs", disable=not accelerator.is_main_process):
        args, dataset = run.arguments, folds[run.fold or 0].dataset
        if not run.system.trained:
            planned.append({"run": run.run_id, "updates": 0, "pairs": 0, "pairs_per_second": None, "seconds": 0.0})
            continue
        kind = json.dumps([args.alpha < 1, *(getattr(args, name) for name in SPEED_SETTINGS)])
        if kind not in speeds:
            speeds[kind] = pairs_per_second(args, dataset["train"], accelerator)
        share = accelerator.process_index, accelerator.num_processes
        batches = plan_batches(dataset["train"], TrainingSet.of(vars(args)), args.batch_size, args.seed, *share)
        updates = count_updates(args, len(batches))
        pairs = updates * args.gradient_accumulation_steps * args.batch_size * accelerator.num_processes
        time_of_run = {"pairs_per_second": speeds[kind], "seconds": pairs / speeds[kind]}
        planned.append({"run": run.run_id, "updates": updates, "pairs": pairs, **time_of_run})
    return planned


def pairs_per_second(args: PretrainArguments, train_split: Dataset, accelerator: Accelerator) -> float:
    """Time a few updates, after one that warms up: towers of the run's size, on rows of its data.

    If pretrained towers cannot be reached, random ones with the text tower's usual shape replace them. Batches are
    those of the run, or small ones where even these take seconds.

    Returns:
        Pairs per second of all processes together.
    """
    # From all over the split: one patient might show no class, or only one.
    spread = np.linspace(0, len(train_split) - 1, min(args.batch_size, len(train_split))).astype(int)
    few = train_split.select(spread)
    set_seed(args.seed)
    try:
        processor, model = build_model(args, few)
    except (OSError, ValueError):  # the Hub raises one, a tower's loader the other
        if not args.pretrained:
            raise
        logger.warning("Cannot fetch %s or %s; timing random towers instead.", args.vision, args.text)
        # Random towers are neither frozen nor adapted by a run; frozen ones take as long as pretrained ones.
        random = replace(args, pretrained=False, freeze=[], lora_rank=0, lora_towers=["vision", "text"])
        processor, model = build_model(random, few)
        model.text_model.requires_grad_(not args.freeze)
    try:
        rows, step = _rows_and_step(args, few, processor, model)
    except ValueError:  # the few lack what an objective learns from
        rows, step = _rows_and_step(args, train_split, processor, model)
    if args.freeze:
        step.text_cache = collect_texts(step, rows)
        step.text_cache.fill(torch.zeros(len(step.text_cache.texts), hidden_width(model.text_model)))
    step.to(accelerator.device).train()
    optimizer = build_optimizer(step, args.learning_rate, args.weight_decay)

    def seconds_of_update(batch_size: int) -> float:
        started = time.perf_counter()
        batch = send_to_device(
            rows.__getitems__([(0, row % len(rows)) for row in range(batch_size)]), accelerator.device
        )
        batch.pop("rows")
        with accelerator.autocast():
            loss, _ = step(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for the device
        return time.perf_counter() - started

    seconds_of_update(SMALL_BATCH_SIZE)  # the first one allocates
    small = torch.tensor(seconds_of_update(SMALL_BATCH_SIZE), device=accelerator.device)
    if accelerator.reduce(small, "mean").item() > SLOW_SECONDS:  # the same on all processes, which gather together
        return SMALL_BATCH_SIZE * accelerator.num_processes / small.item()
    seconds = sum(seconds_of_update(args.batch_size) for _ in range(TIMED_UPDATES))
    return TIMED_UPDATES * args.batch_size * accelerator.num_processes / seconds


def _rows_and_step(
    args: PretrainArguments, split: Dataset, processor: LumbarCLIPProcessor, model: LumbarCLIPModel
) -> tuple[PairedRows, ModelWithObjective]:
    rows, _ = build_rows(args, {"train": split, "validation": split.select([0])}, processor, show_progress=False)
    return rows, join_with_objective(args, model, processor, rows)


def plan_table(planned: Sequence[dict[str, Any]]) -> str:
    """Lay out the plan, with the total in the last line."""
    rows = [
        [
            of_run["run"],
            f"{of_run['updates']:,}",
            f"{of_run['pairs']:,}",
            "-" if of_run["pairs_per_second"] is None else f"{of_run['pairs_per_second']:.1f}",
            in_words(of_run["seconds"]),
        ]
        for of_run in planned
    ]
    total = {name: sum(of_run[name] for of_run in planned) for name in ("updates", "pairs", "seconds")}
    sums = f"{total['updates']:,}", f"{total['pairs']:,}", "", in_words(total["seconds"])
    rows.append([f"{len(planned)} runs", *sums])
    return markdown_table(["run", "updates", "pairs", "pairs/s", "training"], rows)
