"""The losses of segmentation by name, and the module that computes one for a run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from train.objectives.objective import Gather
from train.objectives.overlap import pixel_cross_entropy, soft_overlap, tversky_loss
from train.objectives.pid_tversky import (
    ClassWeights,
    Gains,
    Limits,
    PIDController,
    WeightSchedule,
    average_schedule,
    read_weights,
    shuffled_schedule,
)
from train.training.distributed import gather_with_gradient

SCHEDULES = ("average", "shuffled")


@dataclass(frozen=True)
class LossForm:
    """What a loss is made of.

    Attributes:
        has_cross_entropy: Adds the cross-entropy of all pixels.
        false_negative_weight: b of the Tversky index, unless the settings say otherwise; None: no index.
        is_weighted: b may be set.
        is_adaptive: b follows the errors of each epoch.
        gamma: Exponent of one minus the index, unless the settings say otherwise.
    """

    has_cross_entropy: bool = False
    false_negative_weight: float | None = None
    is_weighted: bool = False
    is_adaptive: bool = False
    gamma: float = 1.0


SEGMENTATION_LOSSES = {
    "cross_entropy": LossForm(has_cross_entropy=True),
    "dice": LossForm(false_negative_weight=0.5),
    "dice_ce": LossForm(has_cross_entropy=True, false_negative_weight=0.5),  # equal shares, as nnU-Net's
    "tversky": LossForm(false_negative_weight=0.7, is_weighted=True),  # the best of Salehi et al. 2017
    # Abraham and Khan 2019: exponent 1 / γ with γ = 4/3.
    "focal_tversky": LossForm(false_negative_weight=0.7, is_weighted=True, gamma=0.75),
    "pid_tversky": LossForm(false_negative_weight=0.5, is_weighted=True, is_adaptive=True),
}


@dataclass(frozen=True)
class SegmentationLossSettings:
    """What a run may set of its loss.

    Attributes:
        false_negative_weight: b of the Tversky index, in (0, 1); false positives weigh 1 - b. Where pid_tversky
            starts. None: 0.7, pid_tversky 0.5.
        gamma: Exponent of one minus the Tversky index, > 0. None: 0.75 for focal_tversky, else 1.
        pid_gains: Proportional, integral and derivative gain, >= 0.
        pid_limits: Lowest and highest b of pid_tversky.
        pid_run: Folder of a finished run of pid_tversky whose weights tversky or focal_tversky take, to tell what
            controlling them adds.
        pid_schedule: `average`: fixed weights, its average; `shuffled`: those of its epochs, in a drawn order.
        seed: Of that order.
    """

    false_negative_weight: float | None = None
    gamma: float | None = None
    pid_gains: Sequence[float] = Gains()
    pid_limits: Sequence[float] = Limits()
    pid_run: str | None = None
    pid_schedule: str = "average"
    seed: int = 0

    def check(self, name: str) -> None:
        """Check the settings for a loss.

        Raises:
            ValueError: If there is no such loss, it does not use what was set, or a value is out of range.
        """
        if name not in SEGMENTATION_LOSSES:
            raise ValueError(f"There is no loss {name!r}: choose one of {', '.join(SEGMENTATION_LOSSES)}.")
        form = SEGMENTATION_LOSSES[name]
        weight, gamma = self.false_negative_weight, self.gamma
        unused = [
            setting
            for setting, is_used, is_set in (
                ("false_negative_weight", form.is_weighted and self.pid_run is None, weight is not None),
                ("gamma", form.is_weighted, gamma is not None),
                ("pid_gains", form.is_adaptive, tuple(self.pid_gains) != Gains()),  # a list, from YAML
                ("pid_limits", form.is_adaptive, tuple(self.pid_limits) != Limits()),
                ("pid_run", form.is_weighted and not form.is_adaptive, self.pid_run is not None),
                ("pid_schedule", self.pid_run is not None, self.pid_schedule != "average"),
            )
            if is_set and not is_used
        ]
        if unused:
            taken = " with pid_run" if self.pid_run is not None and form.is_weighted else ""
            raise ValueError(f"The loss {name}{taken} does not use {' and '.join(unused)}: leave it out.")
        if weight is not None and not 0 < weight < 1:
            raise ValueError(f"false_negative_weight must lie between 0 and 1; got {weight}.")
        if gamma is not None and not 0 < gamma < math.inf:
            raise ValueError(f"gamma must be a number above 0; got {gamma}.")
        if len(self.pid_gains) != 3 or not all(0 <= gain < math.inf for gain in self.pid_gains):
            raise ValueError(f"pid_gains must be three numbers, 0 or more; got {list(self.pid_gains)}.")
        if len(self.pid_limits) != 2 or not 0 <= self.pid_limits[0] < self.pid_limits[1] <= 1:
            raise ValueError(f"pid_limits must be two rising numbers from 0 to 1; got {list(self.pid_limits)}.")
        start = form.false_negative_weight if weight is None else weight
        if form.is_adaptive and start is not None and not self.pid_limits[0] <= start <= self.pid_limits[1]:
            raise ValueError(
                f"pid_tversky starts at the false_negative_weight {start}, outside pid_limits "
                f"{list(self.pid_limits)}: move one of them."
            )
        if self.pid_schedule not in SCHEDULES:
            raise ValueError(f"pid_schedule must be {' or '.join(SCHEDULES)}; got {self.pid_schedule!r}.")


class SegmentationLoss(nn.Module):
    """The loss of a run; a part of what is trained, so that the run's state keeps its weights of classes.

    Args:
        name: One of `SEGMENTATION_LOSSES`.
        class_names: All K, the background first.
        settings: Of the run.

    Raises:
        ValueError: If the settings do not fit, or `pid_run` cannot be read.
    """

    def __init__(
        self,
        name: str,
        class_names: Sequence[str],
        settings: SegmentationLossSettings = SegmentationLossSettings(),
    ) -> None:
        super().__init__()
        settings.check(name)
        self.form = SEGMENTATION_LOSSES[name]
        self.gamma = self.form.gamma if settings.gamma is None else settings.gamma
        self.class_weights = build_class_weights(self.form, class_names[1:], settings)

    def forward(self, logits: Tensor, labels: Tensor, gather: Gather = gather_with_gradient) -> Tensor:
        """Compute the loss of the images of all processes; in training, count the epoch's pixels.

        Args:
            logits: Shape (B, K, H, W).
            labels: 0 for the background; 255 is ignored. Shape (B, H, W), integer.
            gather: Joins a tensor of all processes, with gradient.

        Returns:
            Scalar, at least float32.

        Raises:
            ValueError: If the shapes do not fit, or a label is not a class.
        """
        terms: list[Tensor] = []
        if self.form.false_negative_weight is not None:
            overlap, weights = soft_overlap(logits, labels, gather), self.class_weights
            b = self.form.false_negative_weight if weights is None else weights.false_negative_weights
            terms.append(tversky_loss(overlap, b, self.gamma))
            if self.training and weights is not None:
                weights.observe(overlap)
        if self.form.has_cross_entropy:
            terms.append(pixel_cross_entropy(logits, labels, gather))
        return sum(terms[1:], start=terms[0])

    def end_epoch(self) -> dict[str, float]:
        """Move the weights of classes, on every process; return what the history says of them, nothing without."""
        return {} if self.class_weights is None else self.class_weights.end_epoch()


def build_class_weights(
    form: LossForm, class_names: Sequence[str], settings: SegmentationLossSettings
) -> ClassWeights | None:
    """Build the weights of the classes without the background; None where a loss has none to set."""
    if not form.is_weighted or form.false_negative_weight is None:
        return None
    if settings.pid_run is not None:
        weights = read_weights(settings.pid_run, class_names)
        is_average = settings.pid_schedule == "average"
        schedule = average_schedule(weights) if is_average else shuffled_schedule(weights, settings.seed)
        return WeightSchedule(class_names, schedule)
    given = settings.false_negative_weight
    start = form.false_negative_weight if given is None else given
    if form.is_adaptive:
        return PIDController(class_names, start, Gains(*settings.pid_gains), Limits(*settings.pid_limits))
    return WeightSchedule(class_names, Tensor([[start] * len(class_names)]))
