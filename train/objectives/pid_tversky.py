r"""Weights of false negatives in the Tversky index, one a class, that change from epoch to epoch.

The weight of false positives is what is left: $a = 1 - b$. C classes, the background not among them.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from train.checkpoints.checkpoint import CHECKPOINT
from train.objectives.overlap import Overlap
from train.training.history import read_history

logger = logging.getLogger(__name__)

WEIGHT, ERROR = "fn_weight/", "error/"  # of a class, in the history of a run


class Gains(NamedTuple):
    """How strongly the weights follow the error of an epoch, its sum over epochs, and its change."""

    proportional: float = 0.5
    integral: float = 0.1
    derivative: float = 0.1


class Limits(NamedTuple):
    """Between which the weight of false negatives stays."""

    lowest: float = 0.2
    highest: float = 0.8


def epoch_errors(overlap: Overlap) -> Tensor:
    r"""Compute $e = FN / (TP + FN) - FP / (TP + FP)$: above 0, a class is drawn too small; below 0, too large.

    It is precision minus recall, in [-1, 1]. A class that is never predicted has no false positives: e = 1.

    Args:
        overlap: Of an epoch. A class without a true pixel has no error: NaN.

    Source:
        arXiv 2604.02502 controls by "epoch-level false positive and false negative rates"; the difference is ours.

    Example:
        >>> epoch_errors(Overlap(torch.tensor([6.0]), torch.tensor([2.0]), torch.tensor([4.0])))  # 4 / 10 - 2 / 8
        tensor([0.1500])
    """
    true_positives, false_positives, false_negatives = overlap
    predicted = true_positives + false_positives
    false_discoveries = torch.where(predicted > 0, false_positives / predicted, 0.0)
    return false_negatives / (true_positives + false_negatives) - false_discoveries


def pid_weights(
    errors: Tensor, integral: Tensor, changes: Tensor, start: float, gains: Gains, limits: Limits
) -> tuple[Tensor, Tensor]:
    r"""Compute the next weights of false negatives, $b = \mathrm{clip}(b_0 + K_p e + K_i \sum e + K_d \Delta e)$.

    The sum of a class stands still while its weight is at a limit and its error pushes further (anti-windup):
    otherwise the weight would stay there for as many epochs again after the error has turned.

    Args:
        errors: e of the epoch. Shape (C,).
        integral: Sum of the errors before it. Shape (C,).
        changes: e minus that of the epoch before, 0 in the first. Shape (C,).
        start: $b_0$, in [0, 1].
        gains: $K_p, K_i, K_d$.
        limits: Of the clip.

    Returns:
        The weights b and the sums. Shape (C,) both.

    Source:
        arXiv 2604.02502 names a PID controller of the Tversky weights; its error, gains and limits are not public, and
        ours here, with conditional integration after Åström and Hägglund, PID Controllers, 1995, section 3.5.

    Example:
        >>> zero = torch.zeros(1)
        >>> pid_weights(torch.tensor([0.2]), zero, zero, 0.5, Gains(1.0, 0.5, 0.0), Limits(0.2, 0.7))
        (tensor([0.7000]), tensor([0.]))
    """
    summed = integral + errors
    moved = start + gains.proportional * errors + gains.derivative * changes
    weights = moved + gains.integral * summed
    winds_up = ((weights > limits.highest) & (errors > 0)) | ((weights < limits.lowest) & (errors < 0))
    summed = torch.where(winds_up, integral, summed)
    return (moved + gains.integral * summed).clamp(*limits), summed


class ClassWeights(nn.Module):
    """Weights of false negatives for an epoch, and what it counts; the state of a run keeps all of it.

    The counts are those of the loss, soft and of all processes: they cost no further pass, and every process moves its
    weights alike.

    Attributes:
        class_names: Without the background.
        false_negative_weights: b, in force now. Shape (C,).
        counts: TP, FP and FN of the epoch so far. Shape (3, C).
        steps_left_out: Steps of the epoch whose counts were not finite.
    """

    false_negative_weights: Tensor
    counts: Tensor
    steps_left_out: Tensor

    def __init__(self, class_names: Sequence[str], weights: Tensor) -> None:
        super().__init__()
        self.class_names = tuple(class_names)
        self.register_buffer("false_negative_weights", weights.clone())
        self.register_buffer("counts", torch.zeros(3, len(self.class_names)))
        self.register_buffer("steps_left_out", torch.zeros((), dtype=torch.long))
        self._warned: set[str] = set()

    @torch.no_grad()
    def observe(self, overlap: Overlap) -> None:
        """Add a step to the counts of the epoch; one with NaN or infinity is left out."""
        counts = torch.stack(list(overlap)).to(self.counts)
        is_finite = counts.isfinite().all()
        self.counts += torch.where(is_finite, counts, 0.0)
        self.steps_left_out += (~is_finite).long()

    @torch.no_grad()
    def end_epoch(self) -> dict[str, float]:
        """Move the weights and begin a new epoch; on every process alike.

        A class without a true pixel in the epoch keeps its weight, as do all if no step could be counted; a warning
        says so.

        Returns:
            For the history: `fn_weight/CLASS`, in force during the epoch, and `error/CLASS`, of the classes that have
            one.
        """
        errors = epoch_errors(Overlap(*self.counts))
        is_measured = errors.isfinite()
        self._warn(is_measured)
        numbers = {
            f"{WEIGHT}{name}": weight
            for name, weight in zip(self.class_names, self.false_negative_weights.tolist(), strict=True)
        }
        numbers |= {
            f"{ERROR}{name}": error
            for name, error, measured in zip(self.class_names, errors.tolist(), is_measured.tolist(), strict=True)
            if measured
        }
        self._move(errors, is_measured)
        self.counts.zero_()
        self.steps_left_out.zero_()
        return numbers

    def _move(self, errors: Tensor, is_measured: Tensor) -> None:
        """Set the weights of the next epoch; these stay."""

    def _warn(self, is_measured: Tensor) -> None:
        if left_out := int(self.steps_left_out):
            logger.warning(
                "%d steps of this epoch had NaN or infinite counts, which the class weights leave out: check the "
                "loss, or train in full precision.",
                left_out,
            )
        for name, measured in zip(self.class_names, is_measured.tolist(), strict=True):
            if not measured and name not in self._warned:
                self._warned.add(name)
                logger.warning(
                    "No pixel of %s was counted in this epoch: its weights stay at %.3g. If no training mask shows "
                    "it, leave the class out.",
                    name,
                    self.false_negative_weights[self.class_names.index(name)].item(),
                )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Check the state of a run before it is taken over.

        Raises:
            ValueError: If it lacks these weights, has other classes, or holds NaN.
        """
        for name, buffer in self.named_buffers(recurse=False):
            saved = state_dict.get(f"{prefix}{name}")
            if saved is None:
                fault = f"has no {name} of the class weights: it was saved with another loss or an older version"
            elif saved.shape != buffer.shape:
                fault = f"has {name} of shape {tuple(saved.shape)}, not {tuple(buffer.shape)}: its classes are others"
            elif not saved.isfinite().all():
                fault = f"has NaN or infinity in {name} of the class weights"
            else:
                continue
            raise ValueError(f"the state {fault}")
        super()._load_from_state_dict(state_dict, prefix, *args)


class PIDController(ClassWeights):
    """Move the weight of each class by its error: what is drawn too small pays more for missed pixels.

    Source:
        `pid_weights`. With gains of zero the weights never move: Tversky at `start`, bit for bit.
    """

    integral: Tensor
    previous_errors: Tensor
    num_epochs: Tensor

    def __init__(
        self,
        class_names: Sequence[str],
        start: float = 0.5,
        gains: Gains = Gains(),  # noqa: B008 - immutable
        limits: Limits = Limits(),  # noqa: B008
    ) -> None:
        super().__init__(class_names, torch.full((len(class_names),), start))
        self.start, self.gains, self.limits = start, gains, limits
        self.register_buffer("integral", torch.zeros(len(class_names)))
        self.register_buffer("previous_errors", torch.zeros(len(class_names)))
        self.register_buffer("num_epochs", torch.zeros(len(class_names), dtype=torch.long))  # that measured the class

    def _move(self, errors: Tensor, is_measured: Tensor) -> None:
        changes = torch.where(self.num_epochs > 0, errors - self.previous_errors, 0.0)
        weights, integral = pid_weights(errors, self.integral, changes, self.start, self.gains, self.limits)
        for buffer, moved in (
            (self.false_negative_weights, weights),
            (self.integral, integral),
            (self.previous_errors, errors),
            (self.num_epochs, self.num_epochs + 1),
        ):
            buffer.copy_(torch.where(is_measured, moved, buffer))


class WeightSchedule(ClassWeights):
    """Take the weights of each epoch from a table; those of its last row stay. One row: fixed weights."""

    schedule: Tensor
    epoch: Tensor

    def __init__(self, class_names: Sequence[str], schedule: Tensor) -> None:
        super().__init__(class_names, schedule[0])
        self.register_buffer("schedule", schedule.clone())  # (E, C)
        self.register_buffer("epoch", torch.zeros((), dtype=torch.long))

    def _move(self, errors: Tensor, is_measured: Tensor) -> None:
        self.epoch += 1
        self.false_negative_weights.copy_(self.schedule[self.epoch.clamp(max=len(self.schedule) - 1)])


def read_weights(run: str | Path, class_names: Sequence[str]) -> Tensor:
    """Read the weights of each epoch from the history of a finished run. Shape (E, C), float32.

    Raises:
        ValueError: If the run has not finished, or its history has no weights of these classes.
    """
    folder = Path(run)
    if not (folder / CHECKPOINT).is_dir():
        raise ValueError(f"{folder} is no finished run of pid_tversky: it has no {CHECKPOINT}.")
    epochs = [line for line in read_history(folder) if any(name.startswith(WEIGHT) for name in line)]
    found = {name.removeprefix(WEIGHT) for line in epochs for name in line if name.startswith(WEIGHT)}
    if found != set(class_names):
        raise ValueError(
            f"The history of {folder} has weights of {', '.join(sorted(found)) or 'no class'}, but the classes are "
            f"{', '.join(class_names)}: name a run of pid_tversky with these classes."
        )
    try:
        weights = torch.tensor([[float(line[f"{WEIGHT}{name}"]) for name in class_names] for line in epochs])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"The history of {folder} lacks a weight in some epoch ({error}).") from error
    if not ((weights >= 0) & (weights <= 1)).all():
        raise ValueError(f"The history of {folder} has a weight outside 0 to 1.")
    return weights


def average_schedule(weights: Tensor) -> Tensor:
    """Replace the weights of all epochs (E, C) by their mean: fixed weights. Shape (1, C).

    What the controller gains beside them, it gains by timing, not by another balance of errors.
    """
    return weights.double().mean(dim=0, keepdim=True).float()


def shuffled_schedule(weights: Tensor, seed: int) -> Tensor:
    """Draw another order of the epochs, all classes of one together. Shape (E, C) both.

    The weights of a run without what they answer to.

    Raises:
        ValueError: If there is no other order.
    """
    if len(weights.unique(dim=0)) < 2:
        raise ValueError("The weights of the run are the same in all epochs: there is no other order of them.")
    generator = torch.Generator().manual_seed(seed)
    while torch.equal(shuffled := weights[torch.randperm(len(weights), generator=generator)], weights):
        pass
    return shuffled
