"""Systems that segment: measured by the overlap of their masks, volume by volume."""

import json
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device, set_seed
from datasets import Dataset, Image

from data_scripts.records import PSEUDO_MASK
from train.data.batch_sampler import EpochBatches
from train.data.provenance import DataFacts
from train.evaluation.predictions import Predictions
from train.evaluation.protocols.segmentation import HEADLINE, read_scores, segmentation_measures, write_scores
from train.evaluation.targets import Targets
from train.experiments.data import Fold, rows_of_splits
from train.experiments.kinds.kind import Kind
from train.experiments.kinds.unet import UNetTask
from train.experiments.spec import ExperimentRun
from train.segmentation.evaluation import in_fold, score_limit, score_split
from train.segmentation.task import SegmentationTask
from train.training.loop import run_task

TASKS = {"segmentation": SegmentationTask, "unet": UNetTask}
TIMED_UPDATES = 2
SPEED_SETTINGS = (
    *("vision", "vision_model_args", "text", "text_config", "checkpoint", "cross_attention", "decoder_widths"),
    *("image_size", "patch_size", "augment", "freeze_tower", "lora_rank", "batch_size", "loss"),
)


class Segmentation(Kind):
    """Segmenters, trained on masks and measured on the grid of the stored images."""

    asks_labels: ClassVar[bool] = False

    def measurable(self, rows: Dataset) -> Dataset:
        """Select the rows with a mask that an expert drew.

        Raises:
            ValueError: If there is none.
        """
        if "mask" not in rows.column_names:
            raise ValueError("The dataset has no masks: build it with masks, such as those of spider or lsma_pqr.")
        stored = rows.cast_column("mask", Image(decode=False)).select_columns("mask")
        kept = np.array([row["mask"] is not None for row in stored], dtype=bool)
        if (origin := rows.features.get("mask_origin")) is not None:
            pseudo = origin.str2int(PSEUDO_MASK)
            kept &= np.array([value != pseudo for value in rows["mask_origin"][:]], dtype=bool)
        if not kept.any():
            raise ValueError(
                "A split has no mask that an expert drew: build the dataset from masks, with enough patients for each "
                "split. Nothing is measured on pseudo-masks."
            )
        return rows if kept.all() else rows.select(np.flatnonzero(kept))

    def learn(self, run: ExperimentRun, fold: Fold, accelerator: Accelerator) -> tuple[Any, Any]:
        """Train the model of a run; return its task and the model."""
        task = task_of(run, fold)
        return task, run_task(task, run.arguments, task.facts)

    def predict(self, learned: Any, run: ExperimentRun, fold: Fold, path: Path) -> dict[str, Any]:
        """Score the masks of the test rows."""
        task, model = learned
        scores = score_split(model, task.processor, task.data, "test", run.arguments.batch_size)
        _write(path, scores, task, fold)
        return {"num_parameters": sum(value.numel() for value in model.parameters())}

    def read_predictions(self, path: Path) -> tuple[Predictions, Targets | None]:
        """Read scores; they are the truth's already."""
        return read_scores(path)[0], None

    def quick_name(self, headline: str, exclusive: bool) -> str:
        """Macro Dice."""
        return "macro Dice"

    def quick_metric(self, path: Path, headline: str) -> float | None:
        """Measure macro Dice."""
        measure = segmentation_measures(*read_scores(path)).get(HEADLINE)
        return None if measure is None or np.isnan(value := measure.value()) else value

    def baselines_of(
        self, run: ExperimentRun, fold: Fold, names: Sequence[str], folder: Path
    ) -> dict[str, Predictions]:
        """Score the true masks, scaled to the size of the first run's model and back."""
        if not names:
            return {}
        path, about = folder / f"{fold.number}.parquet", folder / f"{fold.number}.json"
        rows = json.dumps(rows_of_splits(fold) | {"image_size": run.arguments.image_size})
        if not (path.exists() and about.exists() and about.read_text() == rows):
            task = task_of(run, fold)
            task.new_model()  # sets the processor
            _write(path, score_limit(task.processor, task.data, "test"), task, fold)
            about.write_text(rows)
        return {"resolution_limit": read_scores(path)[0]}

    def describe_settings(self, run: ExperimentRun) -> dict[str, Any]:
        """Describe tower, decoder and loss."""
        args = run.arguments
        return {
            "system": run.system.objective,
            "objectives": {args.loss: 1.0},
            "vision": args.vision,
            "vision_model_args": dict(args.vision_model_args),
            "cross_attention": args.cross_attention,
            "projection": "none",
            "projection_dim": 0,
        }

    def speed_of(self, run: ExperimentRun) -> str:
        """Join the settings of model, images and batches."""
        return json.dumps([run.system.objective, *(getattr(run.arguments, name) for name in SPEED_SETTINGS)])

    def steps_of_epoch(self, run: ExperimentRun, fold: Fold, accelerator: Accelerator) -> int:
        """Count the batches of all training rows."""
        args, share = run.arguments, (accelerator.process_index, accelerator.num_processes)
        return len(EpochBatches(len(fold.dataset["train"]), args.batch_size, args.seed, *share))

    def pairs_per_second(self, run: ExperimentRun, fold: Fold, accelerator: Accelerator) -> float:
        """Time the training steps of a few updates."""
        few = {
            split: _first_shown(rows, run.arguments.batch_size if split == "train" else 2)
            for split, rows in fold.dataset.items()
        }
        set_seed(run.seed)
        task = TASKS[run.system.objective](run.arguments, few, DataFacts(run.arguments.dataset, few, False))
        module = task.build_model().to(accelerator.device).train()
        rows, _ = task.batches(0, 1)
        optimizer = task.build_optimizer(module)

        def update(epoch: int) -> None:
            batch = send_to_device(rows.__getitems__([(epoch, row) for row in range(len(rows))]), accelerator.device)
            batch.pop("rows")
            loss, _ = task.loss(module, batch)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            loss.item()  # waits for the device

        update(0)  # the first one allocates
        started = time.perf_counter()
        for epoch in range(TIMED_UPDATES):
            update(epoch + 1)
        seconds = torch.tensor(time.perf_counter() - started, device=accelerator.device)
        return TIMED_UPDATES * len(rows) * accelerator.num_processes / accelerator.reduce(seconds, "mean").item()


def _first_shown(rows: Dataset, number: int) -> Dataset:
    """Select the first rows whose mask shows a class: slices beside the spine are nothing to learn from."""
    shown = (index for index in range(len(rows)) if np.asarray(rows[index]["mask"]).any())
    return rows.select(list(islice(shown, number)))


def task_of(run: ExperimentRun, fold: Fold) -> SegmentationTask:
    """Make the task of a run on the rows of a fold."""
    facts = DataFacts(run.arguments.dataset, fold.dataset, show_progress=False)
    return TASKS[run.system.objective](run.arguments, fold.dataset, facts)


def _write(path: Path, scores: Predictions, task: SegmentationTask, fold: Fold) -> None:
    rows = task.data.rows["test"]
    if len(rows) != len(fold.rows):
        raise ValueError(f"{len(fold.rows)} rows are tested, and {len(rows)} of them have a mask to measure against.")
    write_scores(path, in_fold(scores, fold.rows, fold.number), rows["patient_id"][:], rows["source"][:])
