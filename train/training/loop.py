"""The training loop of every system: one run, from its folder to its checkpoint.

An update is one step of the optimizer, on one or several micro-batches. Random choices depend only on the seed and the
step: a resumed run gives the same numbers as an uninterrupted one.
"""

import json
import logging
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

from train.checkpoints.checkpoint import CHECKPOINT, STATES, load_state, save_checkpoint, save_state
from train.data.batch_sampler import EpochBatches
from train.data.provenance import DataFacts
from train.training.adapters import ADAPTER, merge_adapters, save_adapters
from train.training.arguments import TrainingArguments
from train.training.distributed import share_batch_statistics, take_buffers_of_first_process, waiting_process_group
from train.training.history import HISTORY
from train.training.optimization import average_weights, build_schedule, check_finite
from train.training.run_folder import check_output, describe_run, keep_history, make_output, only_run
from train.training.task import Task, TrainingRows

logger = logging.getLogger(__name__)


def run_task(
    task: Task,
    args: TrainingArguments,
    facts: DataFacts,
    evaluate: Callable[[PreTrainedModel, Path], None] | None = None,
) -> PreTrainedModel:
    """Do one run of a system: train, or load the finished checkpoint, then evaluate. May be called many times.

    `evaluate` is called on the first process with the model and the folder of the run.

    Raises:
        ValueError: If the output folder holds something else or another run writes to it, or the dataset cannot be
            learned from.
        FloatingPointError: If a loss or a gradient is NaN or infinite.
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

    def __init__(self, task: Task, args: TrainingArguments, accelerator: Accelerator, run: dict[str, Any]) -> None:
        self.task, self.args, self.accelerator, self.run_json = task, args, accelerator, run
        self.output_dir, self.best = Path(args.output_dir), BestWeights()

    def run(self) -> PreTrainedModel:
        """Train, save, and return the model."""
        num_updates = self._prepare()
        first_update = load_state(self.accelerator, self.output_dir)  # 0 without a state to resume
        keep_history(self.output_dir / HISTORY, first_update, self.accelerator)
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
        seconds, rows_since = 0.0, 0
        for update in range(first_update + 1, num_updates + 1):
            if args.patience and self._epochs_done(update - 1) - self.best.epoch >= args.patience:
                break
            started = time.perf_counter()
            loss = self._update(update, batches)
            seconds, rows_since = seconds + time.perf_counter() - started, rows_since + rows_of_update
            bar.update(rows_of_update)
            epoch_ended = update == num_updates or self._epochs_done(update) > self._epochs_done(update - 1)
            if epoch_ended or (args.log_every and update % args.log_every == 0):
                line = {
                    "update": update,
                    "epoch": update * args.gradient_accumulation_steps / len(self.order),
                    "loss": loss,
                    "learning_rate": self.schedule.get_last_lr()[-1],
                    "pairs_per_second": rows_since / seconds,
                    **self.task.statistics(),
                }
                seconds, rows_since = 0.0, 0
                if epoch_ended:
                    line["validation_loss"] = self._validate(update)
                    line |= self.task.validation_statistics()
                log(line, self.output_dir / HISTORY, accelerator, bar)
            if update % args.save_every == 0 if args.save_every else epoch_ended:
                save_state(accelerator, self.output_dir, update)
        return self._finish()

    def _prepare(self) -> int:
        """Build model, data and optimizer; return the number of updates."""
        args, accelerator, task = self.args, self.accelerator, self.task
        set_seed(args.seed)
        self.trained = share_batch_statistics(task.build_model(), accelerator)
        self.rows, self.order = task.batches(accelerator.process_index, accelerator.num_processes)
        num_updates = count_updates(args, len(self.order))
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

    def _update(self, update: int, batches: Any) -> float:
        """Do one update and return its loss, the mean over its micro-batches."""
        args, accelerator = self.args, self.accelerator
        loss = torch.zeros((), device=accelerator.device)
        self.prepared.train()
        for micro_step in range(args.gradient_accumulation_steps):
            batch = send_to_device(next(batches), accelerator.device)
            rows = batch.pop("rows")
            sources = [self.rows.sources[row] for row in rows.tolist()]
            step = self.task.seed_of_step(update, micro_step)
            torch.manual_seed(hash((args.seed, *step, accelerator.process_index)))  # for dropout
            with accelerator.accumulate(self.prepared):
                micro_loss = self.task.loss(self.prepared, batch)
                check_finite("loss", micro_loss.item(), update, self.optimizer, sources)
                accelerator.backward(micro_loss)
                if accelerator.sync_gradients:
                    norm = accelerator.clip_grad_norm_(self.prepared.parameters(), args.max_grad_norm)
                    check_finite("gradient norm", norm.item(), update, self.optimizer, sources)
                self.optimizer.step()
                self.optimizer.zero_grad()
            self.task.observe(accelerator.gather(rows), micro_loss.item())
            loss += micro_loss.detach() / args.gradient_accumulation_steps
        self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.trained)
        return loss.item()

    def _validate(self, update: int) -> float:
        """Compute the validation loss, the same on every process, and keep the best weights."""
        take_buffers_of_first_process(self.published)
        # One loss for all: a process that stops early on its own would leave the others waiting.
        (loss,) = broadcast_object_list([self.task.validate(self.published, self.accelerator)])
        check_finite("validation loss", loss, update, self.optimizer)
        if self.args.patience:
            self.best.consider(self._epochs_done(update), loss, self.published)
        return loss

    def _epochs_done(self, update: int) -> int:
        return update * self.args.gradient_accumulation_steps // len(self.order)

    def _finish(self) -> PreTrainedModel:
        """Save the checkpoint and the adapters; remove the states."""
        show = self.accelerator.is_main_process
        if self.best.weights:
            self.published.load_state_dict(self.best.weights)
        final = cast(PreTrainedModel, self.task.model_in(self.published).eval())
        if self.args.lora_rank:
            if show:
                save_adapters(final, self.task.processor, self.output_dir / ADAPTER)
            final = merge_adapters(final)
        self.task.calibrate(final)
        if show:
            save_checkpoint(final, self.task.processor, self.output_dir / CHECKPOINT)
            shutil.rmtree(self.output_dir / STATES, ignore_errors=True)
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
        bar.set_postfix_str(f"loss {line['loss']:.3f}")
