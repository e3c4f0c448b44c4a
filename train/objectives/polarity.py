"""Polarity: an image is nearer to the statement of a finding that it shows than to its denial."""

import torch
import torch.nn.functional as F
from torch import Tensor

from modeling_lumbarclip import LumbarCLIPModel
from train.objectives.objective import (
    DEFAULT_SETTINGS,
    NO_TARGETS,
    PARTS,
    Gather,
    Objective,
    ObjectiveSettings,
    Pairs,
    TrainingTargets,
    in_full_precision,
    told_apart,
)
from train.training.distributed import gather_with_gradient

MAX_WEIGHT = 20.0  # of one pair: a finding that one in forty shows is balanced, a rarer one only in part


def polarity_loss(
    image_embeds: Tensor,
    statement_embeds: Tensor,
    inverse_temperature: Tensor | float,
    states: Tensor,
    prevalence: Tensor,
) -> Tensor:
    r"""Compute the cross-entropy of statement against denial, for each image and finding of which its report speaks.

    Contrast of whole reports leaves "There is X." and "There is no X." almost at one place, since they share all words
    but one. Here

    $$s^\pm_{ik} = \frac1W \sum_w z_i \cdot t^\pm_{kw}, \qquad
      \mathcal L = \frac{1}{|K|} \sum_{(i, k) \in K} w_{ik}\,
      \mathrm{BCE}\big(s\,(s^+_{ik} - s^-_{ik}),\, y_{ik}\big)$$

    over the known states K, with statements $t^+$ and denials $t^-$ of finding k. The weights $w = 1 / 2p_k$ of present
    and $1 / 2(1 - p_k)$ of absent findings, at most 20, balance them by the prevalence $p_k$: the threshold between
    them is then a margin of 0, at which zero-shot decides, however rare the finding is. A loss for each pair of
    wordings in place of their mean was worse: on the drawn set, the threshold of unseen wordings moved.

    Args:
        image_embeds: Unit length. Shape (N, D).
        statement_embeds: Unit length; W wordings that state each of F findings, then W that deny it. Shape
            (F, 2, W, D).
        inverse_temperature: $s = 1 / \tau$, > 0. Scalar.
        states: 1 present, 0 absent, negative: nothing is known, which changes nothing. Shape (N, F).
        prevalence: Share of the drawn pairs with a known state that show the finding. Shape (F,). Findings with a
            share of 0 or 1 are left out: there is nothing to tell apart.

    Returns:
        The loss in nats; 0 if nothing is known. Scalar.

    Raises:
        ValueError: If the shapes do not fit.

    Source:
        Ours.

    Relations:
        `counterfactual_losses` teaches the same of a whole report, and of level, side and severity.

    Example:
        >>> statements = torch.eye(2).reshape(1, 2, 1, 2)  # one finding, one wording of either kind
        >>> polarity_loss(torch.eye(2), statements, 1.0, torch.tensor([[1], [0]]), torch.tensor([0.5]))
        tensor(0.3133)
    """
    num_findings = len(statement_embeds)
    fits = statement_embeds.ndim == 4 and statement_embeds.shape[1::2] == (2, image_embeds.shape[-1])
    if not fits or states.shape != (len(image_embeds), num_findings) or prevalence.shape != (num_findings,):
        raise ValueError(
            "image_embeds, statement_embeds, states and prevalence must have shapes (pairs, width), "
            "(findings, 2, wordings, width), (pairs, findings) and (findings,); got "
            f"{', '.join(str(tuple(tensor.shape)) for tensor in (image_embeds, statement_embeds, states, prevalence))}."
        )
    with torch.autocast(image_embeds.device.type, enabled=False):
        images, statements = in_full_precision(image_embeds), in_full_precision(statement_embeds)
        stated, denied = statements.mean(dim=2).unbind(dim=1)  # (F, D): the mean of cosines is the cosine of the mean
        logits = inverse_temperature * images @ (stated - denied).T  # (N, F)
        is_present, share = states == 1, prevalence.to(logits)
        known = (states >= 0) & (share > 0) & (share < 1)
        weights = torch.where(is_present, 0.5 / share, 0.5 / (1 - share)).clamp(max=MAX_WEIGHT)
        losses = F.binary_cross_entropy_with_logits(logits, is_present.to(logits), reduction="none")
        return torch.where(known, weights * losses, 0).sum() / known.sum().clamp(min=1)


class PolarityObjective(Objective):
    """Statement against denial on the images of all processes, with wordings that change from step to step.

    Source:
        Ours. The temperature is a setting of the run, `polarity_temperature`: a learned one falls to where contrast
        wants it, and the cross-entropy of a wrong answer then outweighs all others.
    """

    inputs = frozenset({"states"})
    trains = frozenset(PARTS) - {"log_inverse_temperature"}
    prevalence: Tensor

    def __init__(
        self,
        model: LumbarCLIPModel,
        targets: TrainingTargets = NO_TARGETS,
        settings: ObjectiveSettings = DEFAULT_SETTINGS,
    ) -> None:
        super().__init__(model, targets, settings)
        assert targets.states is not None
        draws = torch.ones(len(targets.states)) if targets.draws is None else targets.draws
        drawn = draws @ (targets.states >= 0).to(draws)  # of each finding, how many states of it an epoch shows
        prevalence = draws @ (targets.states == 1).to(draws) / torch.where(drawn > 0, drawn, 1)
        self.register_buffer("prevalence", prevalence, persistent=False)
        self.left_out = [
            name for name, learned in zip(targets.findings, told_apart(targets.states), strict=True) if not learned
        ]

    def forward(self, pairs: Pairs, gather: Gather = gather_with_gradient) -> Tensor:
        output = pairs.output
        assert output.image_embeds is not None
        assert pairs.statement_embeds is not None and pairs.states is not None
        images, states = gather(output.image_embeds), gather(pairs.states)
        inverse_temperature = 1 / self.settings.polarity_temperature
        return polarity_loss(images, pairs.statement_embeds, inverse_temperature, states, self.prevalence)
