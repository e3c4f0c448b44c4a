"""The speed of pretraining on this machine, from a few measured steps."""

import logging
import time
from dataclasses import replace

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device, set_seed
from datasets import Dataset

from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPProcessor
from modeling_lumbarclip.towers_lumbarclip import hidden_width
from train.data.loaders import PairedRows
from train.objectives import ModelWithObjective
from train.pretraining.arguments import PretrainArguments
from train.pretraining.initial_model import build_model
from train.pretraining.task import build_rows, collect_texts, join_with_objective
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
