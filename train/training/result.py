"""The checkpoint and adapters of a finished run; whether they can be written is tried before its first update."""

import copy
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from train.checkpoints.checkpoint import CHECKPOINT, STATES
from train.checkpoints.golden_outputs import golden_images, golden_texts, processed, run_model
from train.training.adapters import ADAPTER, merge_adapters, save_adapters
from train.training.arguments import TrainingArguments
from train.training.run_folder import DRY_RUN
from train.training.task import Task

logger = logging.getLogger(__name__)


def write_result(
    task: Task, trained: nn.Module, args: TrainingArguments, output_dir: Path, *, calibrated: bool, writes: bool
) -> PreTrainedModel:
    """Write the adapters, if any, and the checkpoint, `calibrated` before; return the model with its adapters merged.

    Without `writes`, as on all processes but the first, only return the model: calibrating reads whole splits.
    """
    final = cast(PreTrainedModel, task.model_in(trained).eval())
    if args.lora_rank:
        if writes:
            save_adapters(final, task.processor, output_dir / ADAPTER)
        final = merge_adapters(final)
    if writes:
        if calibrated:
            task.calibrate(final)
        task.save(final, output_dir / CHECKPOINT)
    return final


def check_can_be_written(
    task: Task, trained: nn.Module, args: TrainingArguments, output_dir: Path, num_states: int, accelerator: Accelerator
) -> None:
    """Write the result of an untrained copy into the folder of the run, read it again, and delete it.

    The copy has done one forward pass in training mode, so that what training changes besides the weights, such as
    batch statistics, must survive, too. Done on the first process for all.

    Args:
        task: The system.
        trained: The module to be trained, on the CPU.
        args: The settings of the run.
        output_dir: The folder of the run, which exists.
        num_states: States that the run will save.
        accelerator: Of the run.

    Raises:
        ValueError: If the result could not be written; on all processes.
        OSError: If the disk refuses it or has no room for it and the states; on all processes.
    """
    problem: list[Exception | None] = [None]
    if accelerator.is_main_process:
        with torch.random.fork_rng(devices=[]), _without_progress_bars():
            try:
                size = _write_and_delete(task, copy.deepcopy(trained), args, output_dir)
                _check_room(size, _size_of_state(trained, args), num_states, args, output_dir)
            except (OSError, MemoryError) as error:
                problem = [error]
            except Exception as error:  # a tower or tokenizer makes the libraries raise anything
                reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
                refusal = ValueError(f"Nothing was trained, because the result could not be saved. {reason}")
                refusal.__cause__ = error
                problem = [refusal]
    broadcast_object_list(problem)
    if problem[0] is not None:
        raise problem[0]


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    were_shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if were_shown:
            transformers_logging.enable_progress_bar()


def _write_and_delete(task: Task, trained: nn.Module, args: TrainingArguments, output_dir: Path) -> int:
    """Return the size of the result in bytes."""
    _forward(task.model_in(trained), task.processor)
    folder = output_dir / DRY_RUN
    shutil.rmtree(folder, ignore_errors=True)  # left by a kill
    try:
        write_result(task, trained, args, folder, calibrated=False, writes=True)
        return _size_of_files(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@torch.no_grad()
def _forward(model: Any, processor: Any) -> None:
    """Pass the images and texts of the golden outputs through a model in training mode, the longest text first.

    Raises:
        ValueError: If the longest text does not fit the text tower.
    """
    images, texts = golden_images(), golden_texts(processor)
    if texts:
        inputs = processed(processor, images[:1], texts[-1:])
        try:
            _outputs(model.eval(), inputs)
        except Exception as error:  # an index out of range, a shape that does not fit, ...
            raise ValueError(
                f"A text of {inputs['input_ids'].shape[1]} tokens does not pass through the model "
                f"({type(error).__name__}: {error}). Lower --max_text_length, which is {processor.max_length}."
            ) from error
    _outputs(model.train(), processed(processor, images, texts))


def _outputs(model: Any, inputs: Any) -> None:
    run_model(cast(Any, model.get_base_model()) if isinstance(model, PeftModel) else model, inputs)


def _check_room(
    result_bytes: int, state_bytes: int, num_states: int, args: TrainingArguments, output_dir: Path
) -> None:
    """Raise ValueError if the disk has no room for the states and the result of a run."""
    # A state is complete before the previous one is deleted; the last one is deleted after the result is written.
    needed = max(min(num_states, 1) * state_bytes + result_bytes, min(num_states, 2) * state_bytes)
    deleted = _size_of_files(output_dir if args.overwrite else output_dir / STATES)
    disk = shutil.disk_usage(output_dir)
    if disk.total and disk.free + deleted < needed:  # some network disks say 0
        raise ValueError(
            f"The run needs {needed / 1e6:,.0f} MB in {output_dir} for its states and its checkpoint, and its disk has "
            f"{(disk.free + deleted) / 1e6:,.0f} MB. Make room, or choose another --output_dir."
        )


def _size_of_state(trained: nn.Module, args: TrainingArguments) -> int:
    """Estimate the bytes of a state: the weights, their average and the best ones, and two moments of AdamW."""
    copies = 1 + (args.weight_average > 0) + (args.patience > 0)
    moments = sum(2 * parameter.nbytes for parameter in trained.parameters() if parameter.requires_grad)
    return copies * sum(tensor.nbytes for tensor in trained.state_dict().values()) + moments


def _size_of_files(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
