"""The interface between the training loop and a system."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Protocol

from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import BaseImageProcessor, PreTrainedModel, ProcessorMixin

from train.checkpoints.checkpoint import save_checkpoint
from train.data.batch_sampler import EpochAndRow, EpochBatches
from train.training.arguments import TrainingArguments
from train.training.optimization import build_optimizer


class TrainingRows(Protocol):
    """The rows of the training split."""

    sources: list[str]  # of each row, for errors that name it

    def __len__(self) -> int: ...

    def __getitems__(self, rows: list[EpochAndRow]) -> dict[str, Tensor]:
        """Make a batch; its `rows` are the indices of the rows, shape (B,)."""


class Task(ABC):
    """A system, as the loop in `train.training.loop` sees it.

    Attributes:
        verb: Label of the progress bar.
        start: `describe_start` of the initial checkpoint; None if there is none.
        processor: Saved with the model; set by `build_model`.
        order: This process's share of the order; set by `batches`.
    """

    verb: ClassVar[str]
    start: dict[str, Any] | None
    processor: ProcessorMixin | BaseImageProcessor
    order: EpochBatches

    def __init__(self, args: TrainingArguments) -> None:
        self.args = args
        self._losses: list[float] = []

    @abstractmethod
    def build_model(self) -> nn.Module:
        """Build the module to train, on the CPU, and read its rows. Called once, after seeding."""

    @abstractmethod
    def batches(self, process_index: int, num_processes: int) -> tuple[TrainingRows, EpochBatches]:
        """Return the training rows and this process's share of their order. Called after `build_model`."""

    def begin(self, accelerator: Accelerator, output_dir: Path) -> None:  # noqa: B027 - most systems need nothing
        """Do what needs the folder of the run, and the module with its weights on its device, on all processes.

        Called before the first update, also of a resumed run.
        """

    @abstractmethod
    def loss(self, prepared: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a batch without its `rows`, with the module that Accelerate has wrapped.

        Returns:
            The loss, and what else `observe` needs. Scalars on the device: reading one would wait for it.
        """

    @abstractmethod
    def validate(self, trained: nn.Module, accelerator: Accelerator) -> float:
        """Compute the loss on the validation split with the module, or its average; leave it in evaluation mode."""

    @abstractmethod
    def model_in(self, trained: nn.Module) -> PreTrainedModel:
        """Return the part of the trained module that is published."""

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Save the model and its processor, complete or not at all; `load` reads them."""
        save_checkpoint(model, self.processor, folder)

    @abstractmethod
    def load(self, checkpoint: Path) -> PreTrainedModel:
        """Load the checkpoint of a finished run, and its processor."""

    def seed_of_step(self, update: int, micro_step: int) -> tuple[int, int]:
        """Return two numbers that differ for every step, for the seed of dropout; updates count from 1."""
        return divmod((update - 1) * self.args.gradient_accumulation_steps + micro_step, len(self.order))

    def observe(self, rows: Tensor, loss: float, **numbers: float) -> None:
        """Record a step for `statistics`: the rows of all processes (N,), its loss, and the other numbers of `loss`.

        Called some steps later, and not for a step whose update was skipped.
        """
        self._losses.append(loss)

    def statistics(self) -> dict[str, float]:
        """Return what the next line of the history adds to the loop's own numbers, and reset: the mean loss.

        There may have been no step since the last line.
        """
        losses, self._losses = self._losses, []
        return {"loss": sum(losses) / len(losses)} if losses else {}  # in place of the last one

    def validation_statistics(self) -> dict[str, float]:
        """Return what the last `validate` adds to its line of the history."""
        return {}

    def build_optimizer(self, trained: nn.Module) -> Optimizer:
        """Build the optimizer."""
        args = self.args
        return build_optimizer(trained, args.learning_rate, args.weight_decay, args.layer_decay)

    def calibrate(self, model: PreTrainedModel) -> None:  # noqa: B027 - most systems need none before saving
        """Fit on the validation split what the trained model stores besides its weights; on the first process only."""
