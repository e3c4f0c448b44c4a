"""One run of an experiment: train, predict the test rows, and record how it ended.

A run's folder is that of any pretraining; `predictions.parquet` and then `summary.json` mark it as finished.
"""

import gc
import logging
import shutil
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from data_scripts.system.disk_errors import is_disk_full
from data_scripts.system.whole_files import read_json, write_json
from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPProcessor
from train.checkpoints.checkpoint import CHECKPOINT
from train.data.batch_sampler import TrainingSet
from train.data.provenance import anatomy_of
from train.evaluation.predict import encode, predict
from train.evaluation.predictions import PREDICTIONS, write_predictions
from train.evaluation.targets import read_targets
from train.experiments.data import Fold, rows_of_splits
from train.experiments.spec import ExperimentRun
from train.pretrain import pretrain
from train.pretraining.arguments import PretrainArguments
from train.pretraining.initial_model import build_model
from train.training.history import read_history, training_seconds
from train.training.run_folder import (
    RUN,
    changed_settings,
    check_output,
    delete_run,
    describe_run,
    make_output,
    read_run,
)

logger = logging.getLogger(__name__)

SUMMARY = "summary.json"
DONE, DIVERGED, FAILED = "done", "diverged", "failed"

Summary = dict[str, Any]


def do_run(run: ExperimentRun, fold: Fold, accelerator: Accelerator, keep_checkpoint: bool) -> Summary:
    """Train a run from its last state, predict on the first process, and write and return the summary.

    Raises:
        OSError: If the disk is full. Any other error is recorded in the run's summary.
    """
    folder = folder_of(run)
    if accelerator.is_main_process and not (folder / RUN).exists():
        shutil.rmtree(folder, ignore_errors=True)  # killed before it began
    accelerator.wait_for_everyone()
    state, reason, predicting = DONE, None, 0.0
    try:
        processor, model = learned_model(run, fold, accelerator)
        if accelerator.is_main_process:
            started = time.perf_counter()
            predict_fold(model, processor, fold, folder / PREDICTIONS, run.arguments)
            predicting = time.perf_counter() - started
        del processor, model
    except FloatingPointError as error:
        state, reason = DIVERGED, str(error)
    except Exception as error:  # whatever stops one run, the others should run
        if is_disk_full(error):
            raise
        logger.warning("%s failed.", run.run_id, exc_info=True)
        state, reason = FAILED, f"{type(error).__name__}: {error}"
    if accelerator.is_main_process:
        summary = summarise(run, accelerator, state, reason) | {"predicting_seconds": predicting}
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / SUMMARY, summary)
        if state == DONE and not keep_checkpoint:  # if only predicting failed, it need not be trained again
            shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)
    gc.collect()
    torch.cuda.empty_cache()
    accelerator.wait_for_everyone()
    written = read_summary(run)
    assert written is not None
    return written


def predict_fold(
    model: LumbarCLIPModel, processor: LumbarCLIPProcessor, fold: Fold, path: Path, args: PretrainArguments
) -> None:
    """Predict the test rows of a fold by every protocol, and write the predictions."""
    targets = read_targets(fold.dataset)
    encoded = encode(model, processor, fold.dataset, targets, batch_size=args.batch_size)
    predictions = predict(encoded, targets, fold.rows, fold.number, TrainingSet.of(vars(args)))
    write_predictions(path, predictions, targets["test"], fold.dataset["test"]["source"][:])


def learned_model(
    run: ExperimentRun, fold: Fold, accelerator: Accelerator
) -> tuple[LumbarCLIPProcessor, LumbarCLIPModel]:
    """Train the model of a run, or build it as its seed initialises it if the system is not trained."""
    if run.system.trained:
        return pretrain(run.arguments, fold.dataset)
    folder = folder_of(run)
    identity = describe_run(run.arguments, accelerator, rows_of_splits(fold))
    check_output(folder, identity, run.arguments)
    set_seed(run.seed)
    anatomy = anatomy_of(run.arguments.dataset, fold.dataset)
    processor, model = build_model(run.arguments, fold.dataset["train"], anatomy)
    make_output(folder, identity, run.arguments, accelerator)
    model.to(accelerator.device)
    return processor, model.eval()


def summarise(run: ExperimentRun, accelerator: Accelerator, state: str, reason: str | None) -> Summary:
    """Describe how a run ended and its cost; seconds count only training, also before an interruption."""
    history = read_history(folder_of(run))
    pairs_of_update = run.arguments.batch_size * accelerator.num_processes * run.arguments.gradient_accumulation_steps
    updates = history[-1]["update"] if history else 0
    seconds = training_seconds(history, pairs_of_update) if history else 0.0
    return {
        "system": run.title,
        "seed": run.seed,
        "fold": run.fold,
        "state": state,
        "reason": reason,
        "updates": updates,
        "pairs_seen": updates * pairs_of_update,
        "seconds": seconds,
        "pairs_per_second": updates * pairs_of_update / seconds if seconds else None,
        "device": accelerator.device.type,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def read_summary(run: ExperimentRun) -> Summary | None:
    """Read how a run ended; None while it has not."""
    path = folder_of(run) / SUMMARY
    return read_json(path, f"Delete {path.parent} to repeat the run.") if path.exists() else None


def forget(run: ExperimentRun) -> None:
    """Forget how a failed run ended. If it was trained, it only predicts again; else it starts again."""
    folder = folder_of(run)
    if (folder / CHECKPOINT).exists():
        for name in (SUMMARY, PREDICTIONS):
            (folder / name).unlink(missing_ok=True)
    else:
        delete_run(folder)
        shutil.rmtree(folder)  # with the lock that a kill may have left


def check_runs_unchanged(runs: Sequence[ExperimentRun], folds: Sequence[Fold], accelerator: Accelerator) -> None:
    """Check that the runs that have begun have the settings and rows that they began with.

    Raises:
        ValueError: If one has not; the message names each run and what has changed.
    """
    changed = {}
    rows = [rows_of_splits(fold) for fold in folds]
    for run in runs:
        begun = folder_of(run) / RUN
        if begun.exists():
            now = describe_run(run.arguments, accelerator, rows[run.fold or 0])
            if changes := changed_settings(read_run(folder_of(run)), now):
                changed[run.run_id] = "; ".join(changes)
    if changed:
        raise ValueError(
            f"{len(changed)} runs have begun with other settings than they now have: "
            + ", ".join(f"{run_id} ({changes})" for run_id, changes in list(changed.items())[:5])
            + ". Restore the old settings, give changed systems another title, name another folder with --out, or "
            "start over with --overwrite."
        )


def folder_of(run: ExperimentRun) -> Path:
    """Name the output folder of a run."""
    return Path(run.arguments.output_dir)
