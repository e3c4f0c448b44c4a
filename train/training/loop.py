"""The training loop of every system: one run, from its folder to its checkpoint.

An update is one step of the optimizer, on one or several micro-batches. Random choices depend only on the seed and the
step: a resumed run gives the same numbers as an uninterrupted one.
"""

import json
import logging
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, send_to_device, set_seed
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from train.checkpoints.checkpoint import CHECKPOINT, STATES, load_state, save_state
from train.data.batch_sampler import EpochBatches
from train.data.provenance import DataFacts
from train.data.text_cache import TEXT_FEATURES
from train.training.arguments import TrainingArguments
from train.training.distributed import share_batch_statistics, take_buffers_of_first_process, waiting_process_group
from train.training.history import HISTORY
from train.training.optimization import average_weights, build_schedule, check_finite
from train.training.result import check_can_be_written, write_result
from train.training.run_folder import check_output, describe_run, keep_history, make_output, only_run
from train.training.task import Task, TrainingRows
from train.training.update_numbers import READ_EVERY, Step, Update, UpdateNumbers

logger = logging.getLogger(__name__)

MAX_SKIPPED = 20  # updates in a row, whose gradients a scaler finds to overflow


def run_task(
    task: Task,
    args: TrainingArguments,
    facts: DataFacts,
    evaluate: Callable[[PreTrainedModel, Path], None] | None = None,
) -> PreTrainedModel:
    """Do one run of a system: train, or load the finished checkpoint, then evaluate. May be called many times.

    `evaluate` is called on the first process with the model and the folder of the run.

    Raises:
        ValueError: If the output folder holds something else or another run writes to it, the dataset cannot be
            learned from, or the result could not be saved.
        FloatingPointError: If a loss is NaN or infinite, or a gradient: with a gradient scaler, those of 20 updates in
            a row.
    """
    accelerator = Accelerator(
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        log_with=None if args.report_to == "none" else args.report_to,
        project_dir=args.output_dir,
        kwargs_handlers=[waiting_process_group()],
    )
    output_dir = Path(args.output_dir)
    run = describe_run(args, accelerator, facts.rows_sha256)
    run |= {"data": facts.description, "start": task.start}
    with only_run(output_dir, accelerator):
        check_output(output_dir, run, args)
        if args.resume and (output_dir / CHECKPOINT).exists():
            logger.info("%s has a finished checkpoint: skipping training.", output_dir)
            model = task.load(output_dir / CHECKPOINT)
            model.to(accelerator.device)
        else:
            model = Training(task, args, accelerator, run).run()
        if evaluate is not None and accelerator.is_main_process:
            evaluate(model, output_dir)
        accelerator.wait_for_everyone()
        for tracker in accelerator.trackers:
            tracker.finish()
    if accelerator.is_main_process:
        logger.info("Written: %s", ", ".join(str(path) for path in sorted(output_dir.iterdir())))
    return model


def count_updates(args: TrainingArguments, steps_of_epoch: int) -> int:
    """Count the optimizer updates of a run; raise ValueError if there are none."""
    num_updates = args.epochs * steps_of_epoch // args.gradient_accumulation_steps
    if num_updates < 1:
        raise ValueError(
            f"{args.epochs} epochs of {steps_of_epoch} steps do not fill one update of "
            f"{args.gradient_accumulation_steps} steps: lower --gradient_accumulation_steps or raise --epochs."
        )
    return min(num_updates, args.max_updates or num_updates)


class BestWeights:
    """The weights of the epoch with the lowest validation loss, which `accelerate` saves with the states of a run."""

    def __init__(self) -> None:
        self.epoch, self.loss = 0, float("inf")
        self.weights: dict[str, Tensor] = {}

    def consider(self, epoch: int, loss: float, model: nn.Module) -> None:
        """Copy the weights if their loss is the lowest."""
        if loss < self.loss:
            self.epoch, self.loss = epoch, loss
            self.weights = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """Return all attributes."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore all attributes."""
        vars(self).update(state)


class Training:
    """Train from the start or an interruption, and save the checkpoint."""

    average: AveragedModel | None = None
    skipped_in_a_row = 0

    def __init__(self, task: Task, args: TrainingArguments, accelerator: Accelerator, run: dict[str, Any]) -> None:
        self.task, self.args, self.accelerator, self.run_json = task, args, accelerator, run
        self.output_dir, self.best = Path(args.output_dir), BestWeights()

    def run(self) -> PreTrainedModel:
        """Train, save, and return the model."""
        num_updates = self._prepare()
        first_update = load_state(self.accelerator, self.output_dir)  # 0 without a state to resume
        keep_history(self.output_dir / HISTORY, first_update, self.accelerator)
        self.task.begin(self.accelerator, self.output_dir)
        self.accelerator.init_trackers("logs", config={})
        args, accelerator = self.args, self.accelerator
        self.order.first_step = first_update * args.gradient_accumulation_steps
        rows_of_update = args.batch_size * accelerator.num_processes * args.gradient_accumulation_steps
        batches = iter(build_loader(self.rows, self.order, args.num_workers))
        bar = tqdm(
            initial=first_update * rows_of_update,
            total=num_updates * rows_of_update,
            desc=self.task.verb,
            unit=" rows",
            disable=not accelerator.is_main_process,
        )
        self.numbers = UpdateNumbers(accelerator, self.rows.sources)
        seconds, rows_since = 0.0, 0
        for update in range(first_update + 1, num_updates + 1):
            if args.patience and self._epochs_done(update - 1) - self.best.epoch >= args.patience:
                break
            epoch_ends = update == num_updates or self._epochs_done(update) > self._epochs_done(update - 1)
            is_logged = epoch_ends or (args.log_every > 0 and update % args.log_every == 0)
            is_saved = update % args.save_every == 0 if args.save_every else epoch_ends
            started = time.perf_counter()
            self._update(update, batches)
            if is_logged or is_saved or update % self._read_every == 0:
                self._read_numbers()
            seconds, rows_since = seconds + time.perf_counter() - started, rows_since + rows_of_update
            bar.update(rows_of_update)
            if is_logged:
                line = {
                    "update": update,
                    "epoch": update * args.gradient_accumulation_steps / len(self.order),
                    "loss": self.numbers.last_loss,
                    "learning_rate": self.schedule.get_last_lr()[-1],
                    "pairs_per_second": rows_since / seconds,
                    **self.task.statistics(),
                }
                if accelerator.scaler is not None:
                    line["skipped_updates"] = update - self.schedule.last_epoch  # so far
                seconds, rows_since = 0.0, 0
                if epoch_ends:
                    line["validation_loss"] = self._validate(update)
                    line |= self.task.validation_statistics()
                log(line, self.output_dir / HISTORY, accelerator, bar)
            if is_saved:
                self._check_weights(self.trained, update)
                save_state(accelerator, self.output_dir, update)
        return self._finish()

    @property
    def _read_every(self) -> int:
        return 1 if self.accelerator.device.type == "cpu" else READ_EVERY  # nothing waits for a CPU

    def _prepare(self) -> int:
        """Build model, data and optimizer; return the number of updates."""
        args, accelerator, task = self.args, self.accelerator, self.task
        set_seed(args.seed)
        self.trained = task.build_model()
        self.rows, self.order = task.batches(accelerator.process_index, accelerator.num_processes)
        num_updates = count_updates(args, len(self.order))
        steps = num_updates * args.gradient_accumulation_steps
        num_states = num_updates // args.save_every if args.save_every else math.ceil(steps / len(self.order))
        check_can_be_written(task, self.trained, args, self.output_dir, num_states, accelerator)
        self.trained = share_batch_statistics(self.trained, accelerator)
        optimizer = task.build_optimizer(self.trained)
        self.schedule = build_schedule(optimizer, num_updates, args.warmup_ratio)
        make_output(self.output_dir, self.run_json, args, accelerator)
        self.prepared, self.optimizer = accelerator.prepare(self.trained, optimizer)
        # Not prepared: Accelerate would step it once for each process.
        accelerator.register_for_checkpointing(self.schedule)
        self.published = self.trained
        if args.weight_average:
            self.average = average_weights(self.trained, args.weight_average)
            accelerator.register_for_checkpointing(self.average)
            self.published = self.average.module
        if args.patience:
            accelerator.register_for_checkpointing(self.best)
        return num_updates

    def _update(self, update: int, batches: Any) -> None:
        """Do one update; leave its numbers on the device.

        Raises:
            FloatingPointError: If a gradient scaler has skipped too many updates in a row.
        """
        args, accelerator = self.args, self.accelerator
        loss, steps = torch.zeros((), device=accelerator.device), []
        is_skipped, learning_rate = False, self._learning_rate
        self.prepared.train()
        for micro_step in range(args.gradient_accumulation_steps):
            batch = next(batches)
            rows = batch.pop("rows")
            # Pinned memory: the copy need not wait for the device.
            batch = send_to_device(batch, accelerator.device, non_blocking=accelerator.device.type == "cuda")
            seed = self.task.seed_of_step(update, micro_step)
            torch.manual_seed(hash((args.seed, *seed, accelerator.process_index)))  # for dropout
            with accelerator.accumulate(self.prepared):
                micro_loss, numbers = self.task.loss(self.prepared, batch)
                accelerator.backward(micro_loss)
                if accelerator.sync_gradients:
                    norm = accelerator.clip_grad_norm_(self.prepared.parameters(), args.max_grad_norm)
                    if accelerator.scaler is not None and not norm.isfinite().item():
                        is_skipped = True
                        self.optimizer.zero_grad()  # the scaler would not see that only the norm overflows
                self.optimizer.step()
                self.optimizer.zero_grad()
            steps.append(Step(rows, micro_loss.detach(), numbers))
            loss += micro_loss.detach() / args.gradient_accumulation_steps
        self.numbers.add(Update(update, learning_rate, steps, loss, norm, is_skipped))
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if is_skipped else 0
        if is_skipped:
            self._check_skipped(update)
            return
        self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.trained)

    def _check_skipped(self, update: int) -> None:
        """Raise FloatingPointError if the gradients overflow however far the scaler goes down."""
        if self.skipped_in_a_row < MAX_SKIPPED:
            return
        self._read_numbers()  # a loss that is NaN is the cause
        scale = cast(Any, self.accelerator.scaler).get_scale()
        raise FloatingPointError(
            f"The gradient norm was NaN or infinite in {MAX_SKIPPED} updates in a row, up to update {update}, at loss "
            f"scales down to {scale:.3g} (learning rate {self._learning_rate:.3g}). Start again in bf16 or full "
            "precision (accelerate launch --mixed_precision bf16 or no), or with a lower --learning_rate."
        )

    def _read_numbers(self) -> None:
        """Check the numbers of the last updates, and pass them on to the task."""
        for step in self.numbers.read():
            self.task.observe(step.rows, step.loss, **step.numbers)

    def _check_weights(self, module: nn.Module, update: int) -> None:
        """Raise FloatingPointError if a weight or a running statistic is NaN or infinite."""
        norm = nn.utils.get_total_norm(value for value in module.state_dict().values() if value.is_floating_point())
        check_finite("norm of the weights", norm.item(), update, self._learning_rate)

    @property
    def _learning_rate(self) -> float:
        return self.optimizer.param_groups[-1]["lr"]  # of the heads: the full rate

    def _validate(self, update: int) -> float:
        """Compute the validation loss, the same on every process, and keep the best weights."""
        take_buffers_of_first_process(self.published)
        # One loss for all: a process that stops early on its own would leave the others waiting.
        (loss,) = broadcast_object_list([self.task.validate(self.published, self.accelerator)])
        check_finite("validation loss", loss, update, self._learning_rate)
        if self.args.patience:
            self.best.consider(self._epochs_done(update), loss, self.published)
        return loss

    def _epochs_done(self, update: int) -> int:
        return update * self.args.gradient_accumulation_steps // len(self.order)

    def _finish(self) -> PreTrainedModel:
        """Save the checkpoint and the adapters; remove the states and the features of texts."""
        show = self.accelerator.is_main_process
        if self.best.weights:
            self.published.load_state_dict(self.best.weights)
        self._check_weights(self.published, self.schedule.last_epoch)
        final = write_result(self.task, self.published, self.args, self.output_dir, calibrated=True, writes=show)
        if show:
            for unneeded in (STATES, TEXT_FEATURES):
                shutil.rmtree(self.output_dir / unneeded, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        return final


def build_loader(rows: TrainingRows, order: EpochBatches, num_workers: int) -> DataLoader[Any]:
    """Join rows and order; workers are optional, since a batch is only indexing and augmentation."""
    return DataLoader(
        cast(Any, rows),
        batch_sampler=order,
        collate_fn=_identity,  # the rows make batches themselves
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
    )


def _identity(batch: Any) -> Any:
    return batch


def log(line: dict[str, float], path: Path, accelerator: Accelerator, bar: Any) -> None:
    """Add a line to history, trackers and progress bar."""
    accelerator.log({name: value for name, value in line.items() if name != "update"}, step=int(line["update"]))
    if accelerator.is_main_process:
        with path.open("a") as history:
            history.write(json.dumps(line) + "\n")
        skipped = f", {line['skipped_updates']} updates skipped" if line.get("skipped_updates") else ""
        bar.set_postfix_str(f"loss {line['loss']:.3f}{skipped}")
