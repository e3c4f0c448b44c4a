"""One run of an experiment: train, answer for the test rows, and say how it ended. A run is finished, or it goes on.

A run's folder is that of any pretraining. Finished, it holds `answers.safetensors` as well, and then `summary.json`.
"""

import errno
import gc
import json
import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from safetensors.numpy import save

from data_scripts.system.whole_files import write_bytes, write_json
from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPProcessor
from train.checkpoints.checkpoint import CHECKPOINT
from train.evaluation.predictions import answer_run
from train.experiments.data import Fold, rows_of_splits
from train.experiments.spec import ExperimentRun
from train.pretrain import pretrain
from train.pretraining.initial_model import build_model
from train.training.history import read_history, training_seconds
from train.training.run_folder import RUN, changed_settings, check_output, describe_run, make_output

logger = logging.getLogger(__name__)

ANSWERS = "answers.safetensors"
SUMMARY = "summary.json"
DONE, DIVERGED, FAILED = "done", "diverged", "failed"

Summary = dict[str, Any]


def do_run(run: ExperimentRun, fold: Fold, accelerator: Accelerator, keep_checkpoint: bool) -> Summary:
    """Train a run from where it stands, and let the first process answer and write its summary.

    Args:
        run: The run.
        fold: What it trains and is measured on.
        accelerator: Knows the processes; each run makes its own for training.
        keep_checkpoint: Whether to keep the weights.

    Returns:
        The summary.

    Raises:
        OSError: If the disk is full. Whatever else stops a run is written into its summary.
    """
    folder = folder_of(run)
    if accelerator.is_main_process and not (folder / RUN).exists():
        shutil.rmtree(folder, ignore_errors=True)  # killed before it had begun, or never built
    accelerator.wait_for_everyone()
    state, reason, answering = DONE, None, 0.0
    try:
        processor, model = learned_model(run, fold, accelerator)
        if accelerator.is_main_process:
            started = time.perf_counter()
            answers = answer_run(
                model, processor, fold.dataset, fold.rows, fold.number, batch_size=run.arguments.batch_size
            )
            answering = time.perf_counter() - started
            write_bytes(folder / ANSWERS, save({name: np.ascontiguousarray(of) for name, of in answers.items()}))
        del processor, model
    except FloatingPointError as error:
        state, reason = DIVERGED, str(error)
    except Exception as error:  # whatever stops one run, the others of the night should go on
        if is_disk_full(error):
            raise
        logger.warning("%s failed.", run.run_id, exc_info=True)
        state, reason = FAILED, f"{type(error).__name__}: {error}"
    if accelerator.is_main_process:
        summary = summarise(run, accelerator, state, reason) | {"answering_seconds": answering}
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / SUMMARY, summary)
        if state == DONE and not keep_checkpoint:  # if only the answering failed, it need not be trained again
            shutil.rmtree(folder / CHECKPOINT, ignore_errors=True)
    gc.collect()
    torch.cuda.empty_cache()
    accelerator.wait_for_everyone()
    written = read_summary(run)
    assert written is not None
    return written


def learned_model(
    run: ExperimentRun, fold: Fold, accelerator: Accelerator
) -> tuple[LumbarCLIPProcessor, LumbarCLIPModel]:
    """Train the model of a run, or build it as its seed initialises it where the system is not trained."""
    if run.system.trained:
        return pretrain(run.arguments, fold.dataset)
    folder = folder_of(run)
    identity = describe_run(run.arguments, accelerator, rows_of_splits(fold))
    check_output(folder, identity, run.arguments)
    set_seed(run.seed)
    processor, model = build_model(run.arguments, fold.dataset["train"])
    make_output(folder, identity, run.arguments, accelerator)
    model.to(accelerator.device)
    return processor, model.eval()


def summarise(run: ExperimentRun, accelerator: Accelerator, state: str, reason: str | None) -> Summary:
    """Say how a run ended and what it cost. Seconds are those of training alone, before an interruption too."""
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
    """How a run ended; None while it has not."""
    path = folder_of(run) / SUMMARY
    return json.loads(path.read_text()) if path.exists() else None


def forget(run: ExperimentRun) -> None:
    """Forget how a run that did not end well ended; if it was trained, it only answers again, else it starts again."""
    folder = folder_of(run)
    if (folder / CHECKPOINT).exists():
        for name in (SUMMARY, ANSWERS):
            (folder / name).unlink(missing_ok=True)
    else:
        shutil.rmtree(folder)


def check_runs_unchanged(runs: Sequence[ExperimentRun], folds: Sequence[Fold], accelerator: Accelerator) -> None:
    """Raise if a run was begun with other settings or rows: its metrics would belong to another experiment.

    Args:
        runs: Of the experiment.
        folds: Of the experiment, in order.
        accelerator: Knows the processes.

    Raises:
        ValueError: If so; the message names each run and what has changed.
    """
    changed = {}
    rows = [rows_of_splits(fold) for fold in folds]
    for run in runs:
        begun = folder_of(run) / RUN
        if begun.exists():
            now = describe_run(run.arguments, accelerator, rows[run.fold or 0])
            if changes := changed_settings(json.loads(begun.read_text()), now):
                changed[run.run_id] = "; ".join(changes)
    if changed:
        raise ValueError(
            f"{len(changed)} runs have begun with other settings than the experiment now gives them: "
            + ", ".join(f"{run_id} ({changes})" for run_id, changes in list(changed.items())[:5])
            + ". Give back the old settings, give changed systems another title, name another folder with --out, or "
            "start all over with --overwrite."
        )


def folder_of(run: ExperimentRun) -> Path:
    """Where a run writes."""
    return Path(run.arguments.output_dir)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that nothing more can be written; libraries wrap the system's own error."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return True
    # As safetensors says it, the system, and the writer of torch.save, which forgets why a file could not be written.
    if any(words in str(error) for words in ("os error 28", "No space left", "iostream error", "unexpected pos")):
        return True
    cause = error.__cause__ or error.__context__
    return cause is not None and is_disk_full(cause)


@contextmanager
def naming_a_full_disk(folder: Path) -> Iterator[None]:
    """Turn whatever a full disk raises into one error that says so."""
    try:
        yield
    except Exception as error:
        if is_disk_full(error):
            raise OSError(
                errno.ENOSPC,
                f"The disk that holds {folder} is full. What is finished is whole and kept: make room "
                "and give the same command again",
            ) from error
        raise
