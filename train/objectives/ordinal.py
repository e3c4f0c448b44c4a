"""Ordinal grades: the vision tower learns how bad a slice looks, on a scale whose steps it learns, too."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling_lumbarclip import LumbarCLIPModel
from modeling_lumbarclip.vision_tower_lumbarclip import output_width
from train.objectives.objective import (
    DEFAULT_SETTINGS,
    NO_TARGETS,
    Gather,
    Objective,
    ObjectiveSettings,
    Pairs,
    TrainingTargets,
    check_grades,
    in_full_precision,
)
from train.training.distributed import gather_with_gradient

# Between two thresholds: a grade without pairs would close its gap, until float32 cannot tell the two apart.
MIN_GAP = 1e-3


def cumulative_link_loss(scores: Tensor, thresholds: Tensor, grades: Tensor) -> Tensor:
    r"""Compute the negative log-likelihood of grades under proportional odds.

    $$P(y \le k) = \sigma(\theta_k - s), \qquad
      \mathcal L = -\frac1M \sum_{i:\, y_i \ge 0} \log \big(\sigma(\theta_{y_i} - s_i)
      - \sigma(\theta_{y_i - 1} - s_i)\big), \qquad \theta_{-1} = -\infty,\ \theta_{G-1} = \infty$$

    One number orders all grades, as readers do, where a cross-entropy over grades would take 1 and 5 for as near as 1
    and 2. The difference is taken as $\sigma(b)\,\sigma(-a)\,(1 - e^{a - b})$, which does not cancel far from the
    thresholds, so that the gradient of a row never vanishes before its score is right.

    Args:
        scores: How bad each row looks. Shape (N,).
        thresholds: Where one grade ends and the next begins, rising. Shape (G - 1,), for G >= 2 grades.
        grades: Index of the grade, lowest first; -1: unknown, which counts for nothing. Shape (N,), integer.

    Returns:
        The mean over the M rows with a grade, in nats; 0 if there are none. Scalar.

    Raises:
        ValueError: If shapes differ, thresholds do not rise, or a grade is not on the scale.

    Source:
        McCullagh, Regression Models for Ordinal Data, 1980.

    Relations:
        `supervised_loss` learns classes without an order.

    Example:
        >>> cumulative_link_loss(torch.zeros(3), torch.tensor([-1.0, 1.0]), torch.tensor([1, 0, -1]))
        tensor(1.0426)
    """
    if scores.ndim != 1:
        raise ValueError(f"scores must have one entry for each row; got {tuple(scores.shape)}.")
    if thresholds.ndim != 1 or not len(thresholds) or (thresholds.diff() <= 0).any():
        raise ValueError(f"thresholds must rise, and there is one less than grades; got {thresholds.tolist()}.")
    check_grades(grades, len(scores), len(thresholds) + 1)
    with torch.autocast(scores.device.type, enabled=False):
        scores, thresholds = in_full_precision(scores), in_full_precision(thresholds)
        highest = len(thresholds)  # index of the highest grade
        is_graded, has_above, has_below = grades >= 0, grades < highest, grades > 0
        above, below = (thresholds[index.clamp(0, highest - 1)] for index in (grades, grades - 1))
        gaps = torch.where(has_above & has_below, above - below, 1.0)
        log_likelihood = (
            torch.where(has_above, F.logsigmoid(above - scores), 0.0)
            + torch.where(has_below, F.logsigmoid(scores - below), 0.0)
            + torch.where(has_above & has_below, torch.log(-torch.expm1(-gaps)), 0.0)
        )
        return -torch.where(is_graded, log_likelihood, 0.0).sum() / is_graded.sum().clamp(min=1)


class OrdinalObjective(Objective):
    """Learn the grades of the pairs with one direction of z_I and thresholds of its own; pairs without one say nothing.

    It reads z_I, the output of the vision tower, as probes and downstream tasks do, not the projected z'_I. That one
    lies on a sphere that the reports share, where a scale from -1 to 1 would have to hold all grades, and where the
    soft targets pull pairs of one class together whatever their grade: this term would fight them, and reach z_I only
    through the head. On z_I both are learned side by side.

    The scale is that of the dataset, of any number of grades (Pfirrmann 1-5, Kellgren-Lawrence 0-4, stenosis A-D). The
    thresholds start where they predict each grade as often as it occurs, and rise after every update, because their
    gaps are softpluses; a grade that no training pair has keeps a small one. Only the vision tower and the head learn
    from this term.

    Source:
        `cumulative_link_loss`; as a term of pretraining it is ours.
    """

    inputs = frozenset({"grades"})
    trains = frozenset({"vision_model"})

    def __init__(
        self,
        model: LumbarCLIPModel,
        targets: TrainingTargets = NO_TARGETS,
        settings: ObjectiveSettings = DEFAULT_SETTINGS,
    ) -> None:
        super().__init__(model, targets, settings)
        assert targets.grades is not None
        num_grades = len(targets.grade_names)
        counts = torch.bincount(targets.grades[targets.grades >= 0], minlength=num_grades)
        if len(counts) > num_grades or (counts > 0).sum() < 2:
            names = ", ".join(name for name, count in zip(targets.grade_names, counts.tolist(), strict=False) if count)
            raise ValueError(
                f"ordinal learns an order of grades, but all training pairs that have one have {names or 'one'}: leave "
                "ordinal out of the objectives, or add pairs of other grades."
            )
        self.score_head = nn.Linear(output_width(model.vision_model), 1, bias=False)
        thresholds = starting_thresholds(counts)
        # The first threshold, then the gaps before their softplus.
        gaps = (thresholds.diff() - MIN_GAP).clamp(min=MIN_GAP)
        self.scale = nn.Parameter(torch.cat([thresholds[:1], gaps.expm1().log()]))

    @property
    def thresholds(self) -> Tensor:
        """Where one grade ends and the next begins. Shape (G - 1,), rising."""
        return torch.cat([self.scale[:1], F.softplus(self.scale[1:]) + MIN_GAP]).cumsum(0)

    def forward(self, pairs: Pairs, gather: Gather = gather_with_gradient) -> Tensor:
        features, grades = pairs.output.image_features, pairs.grades
        assert features is not None and grades is not None
        scores = self.score_head(features)[:, 0]
        return cumulative_link_loss(gather(scores), self.thresholds, gather(grades))


def starting_thresholds(counts: Tensor) -> Tensor:
    """Place thresholds so that a score of 0 predicts each grade as often as it occurs.

    One row is added to each grade, so that one without rows keeps a gap. `counts` has shape (G,).

    Example:
        >>> starting_thresholds(torch.tensor([2, 0, 1]))
        tensor([0.0000, 0.6931])
    """
    shares = (counts + 1).cumsum(0)[:-1] / (counts + 1).sum()
    return torch.logit(shares)
