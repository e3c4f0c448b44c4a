"""The losses and gradient norms of a run, read from the device together: each reading waits for it.

Shapes: S steps of several updates, B rows of a step, P processes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from train.training.optimization import check_finite

READ_EVERY = 10  # updates, if nothing else asks for their numbers before


@dataclass(frozen=True)
class Step:
    """A micro-batch: `rows` (B,) of this process, on the CPU; its `loss` and other `numbers`, scalars on the device."""

    rows: Tensor
    loss: Tensor
    numbers: Mapping[str, Tensor]


@dataclass(frozen=True)
class Update:
    """An optimizer update: its steps, their mean loss and the gradient norm, scalars on the device."""

    number: int
    learning_rate: float
    steps: Sequence[Step]
    loss: Tensor
    gradient_norm: Tensor
    is_skipped: bool  # by the gradient scaler


@dataclass(frozen=True)
class MeasuredStep:
    """A step of an update that was made: the rows of all processes (P * B,), the loss and numbers of this one."""

    rows: Tensor
    loss: float
    numbers: Mapping[str, float]


class UpdateNumbers:
    """The numbers of the updates since they were last read. `sources` name the rows of the training split."""

    def __init__(self, accelerator: Accelerator, sources: Sequence[str]) -> None:
        self.accelerator, self.sources = accelerator, sources
        self.last_loss = float("nan")  # of the last update that was read
        self._unread: list[Update] = []

    def add(self, update: Update) -> None:
        """Keep the numbers of an update on the device."""
        self._unread.append(update)

    @torch.no_grad()
    def read(self) -> list[MeasuredStep]:
        """Read and check the numbers; return the steps of the updates that were not skipped.

        Raises:
            FloatingPointError: If a loss, or the gradient norm of an update that was not skipped, is NaN or infinite,
                on all processes; the message names the first such update and its rows.
        """
        updates, self._unread = self._unread, []
        if not updates:
            return []
        accelerator = self.accelerator
        scalars, rows = [], []
        for update in updates:
            for step in update.steps:
                scalars += [step.loss, *step.numbers.values()]
                rows.append(step.rows)
            scalars += [update.loss, update.gradient_norm]
        values = iter(accelerator.gather(torch.stack(scalars)[None]).T.tolist())  # P values of each scalar
        rows_of_steps = torch.stack(rows)[None]
        if accelerator.num_processes > 1:
            rows_of_steps = accelerator.gather(rows_of_steps.to(accelerator.device)).cpu()
        steps = iter(rows_of_steps.unbind(1))  # (P, B)
        own, measured = accelerator.process_index, []
        for update in updates:
            at_update = update.number, update.learning_rate
            for step in update.steps:
                rows_of_step, losses = next(steps), next(values)
                for loss, of_process in zip(losses, rows_of_step, strict=True):
                    check_finite("loss", loss, *at_update, self._sources(of_process))
                numbers = {name: next(values)[own] for name in step.numbers}
                if not update.is_skipped:
                    measured.append(MeasuredStep(rows_of_step.flatten(), losses[own], numbers))
            self.last_loss, norms = next(values)[own], next(values)
            if not update.is_skipped:
                check_finite("gradient norm", norms[0], *at_update, self._sources(rows_of_step.flatten()))
        return measured

    def _sources(self, rows: Tensor) -> list[str]:
        return [self.sources[row] for row in rows.tolist()]
