"""What a system must provide to be trained by the loop."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Protocol

from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import BaseImageProcessor, PreTrainedModel, ProcessorMixin

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

    Args:
        args: Settings of the run.

    Attributes:
        verb: What the progress bar says.
        start: What `describe_start` says of the checkpoint that the run starts from; None if there is none.
        processor: Saved beside the model; set by `build_model`.
    """

    verb: ClassVar[str]
    start: dict[str, Any] | None
    processor: ProcessorMixin | BaseImageProcessor

    def __init__(self, args: TrainingArguments) -> None:
        self.args = args

    @abstractmethod
    def build_model(self) -> nn.Module:
        """Build what is trained, on the CPU, and read the rows it learns from. Called once, after seeding."""

    @abstractmethod
    def batches(self, process_index: int, num_processes: int) -> tuple[TrainingRows, EpochBatches]:
        """Return the training rows and this process's share of their order. Called after `build_model`."""

    @abstractmethod
    def loss(self, prepared: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """Compute the loss of a batch.

        Args:
            prepared: What `build_model` built, as Accelerate has wrapped it; in training mode.
            batch: From the training rows, without `rows`.

        Returns:
            The loss of the pairs of all processes, or of this one. Scalar.
        """

    @abstractmethod
    def validate(self, trained: nn.Module, accelerator: Accelerator) -> float:
        """Compute the loss on the validation split.

        Args:
            trained: What `build_model` built, or the average of its weights. Left in evaluation mode.
            accelerator: Knows device, precision and processes.
        """

    @abstractmethod
    def model_in(self, trained: nn.Module) -> PreTrainedModel:
        """Return the part of what was trained that is published."""

    @abstractmethod
    def load(self, checkpoint: Path) -> PreTrainedModel:
        """Load the checkpoint of a finished run, and its processor."""

    @abstractmethod
    def seed_of_step(self, update: int, micro_step: int) -> tuple[int, int]:
        """Return two numbers that differ for every step, for the seed of dropout.

        Args:
            update: From 1.
            micro_step: Within the update, from 0.
        """

    @abstractmethod
    def observe(self, rows: Tensor, loss: float) -> None:
        """Take note of a step, for `statistics`.

        Args:
            rows: Rows of all processes. Shape (N,).
            loss: As `loss` returned it.
        """

    @abstractmethod
    def statistics(self) -> dict[str, float]:
        """Return what the next line of the history says beside the loop's own numbers, and forget the steps."""

    def build_optimizer(self, trained: nn.Module) -> Optimizer:
        """Build the optimizer of what is trained."""
        return build_optimizer(trained, self.args.learning_rate, self.args.weight_decay)

    def calibrate(self, model: PreTrainedModel) -> None:  # noqa: B027 -- most systems need none before the saving
        """Fit on the validation split what is saved in the configuration of the trained model."""
