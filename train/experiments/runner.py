"""One run of an experiment: train, predict the test rows, and record how it ended.

A run's folder is that of any training; `predictions.parquet` and then `summary.json` mark it as finished.
"""

import gc
import logging
import shutil
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from tqdm.contrib.logging import logging_redirect_tqdm

from data_scripts.system.disk_errors import is_disk_full
from data_scripts.system.whole_files import read_json, write_json, write_text
from train.checkpoints.checkpoint import CHECKPOINT
from train.evaluation.predictions import PREDICTIONS
from train.experiments.data import Fold, rows_of_splits
from train.experiments.kinds import kind_named
from train.experiments.spec import ExperimentRun
from train.training.history import read_history, training_seconds
from train.training.run_folder import (
    RUN,
    changed_settings,
    delete_run,
    describe_run,
    read_run,
)

logger = logging.getLogger(__name__)

SUMMARY, TRACEBACK = "summary.json", "traceback.txt"
DONE, DIVERGED, FAILED = "done", "diverged", "failed"

MAX_REASON = 300  # characters of a reason that are printed

Summary = dict[str, Any]


def do_run(run: ExperimentRun, fold: Fold, accelerator: Accelerator, keep_checkpoint: bool) -> Summary:
    """Train a run from its last state, predict on the first process, and write and return the summary.

    Raises:
        OSError: If the disk is full. Any other error is told in one line and recorded in the run's summary; its
            traceback is kept in `traceback.txt`.
    """
    folder = folder_of(run)
    if accelerator.is_main_process and not (folder / RUN).exists():
        shutil.rmtree(folder, ignore_errors=True)  # killed before it began
    accelerator.wait_for_everyone()
    state, reason, trace, predicting, about = DONE, None, "", 0.0, {}
    kind = kind_named(run.system.kind)
    try:
        learned = kind.learn(run, fold, accelerator)
        if accelerator.is_main_process:
            started = time.perf_counter()
            about = kind.predict(learned, run, fold, folder / PREDICTIONS)
            predicting = time.perf_counter() - started
        del learned
    except FloatingPointError as error:
        state, reason = DIVERGED, str(error)
    except Exception as error:  # whatever stops one run, the others should run
        if is_disk_full(error):
            raise
        state, reason, trace = FAILED, f"{type(error).__name__}: {error}", traceback.format_exc()
    if accelerator.is_main_process:
        summary = summarise(run, accelerator, state, reason) | {"predicting_seconds": predicting, **about}
        folder.mkdir(parents=True, exist_ok=True)
        if state != DONE:
            said = f"{run.run_id} {state}: {' '.join(str(reason).split())[:MAX_REASON]}"
            if trace:
                write_text(folder / TRACEBACK, trace)
                said += f" (traceback in {folder / TRACEBACK})"
            with logging_redirect_tqdm():  # a line of its own, not the end of a progress bar
                logger.warning(said)
        write_json(folder / SUMMARY, summary)
        if state == DONE and not keep_checkpoint:  # if only predicting failed, it need not be trained again
            shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)
    gc.collect()
    torch.cuda.empty_cache()
    accelerator.wait_for_everyone()
    written = read_summary(run)
    assert written is not None
    return written


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
        for name in (SUMMARY, PREDICTIONS, TRACEBACK):
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
