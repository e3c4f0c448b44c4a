"""Counterfactual: an image is nearer to its own report than to that report with one fact changed."""

import torch
from torch import Tensor

from modeling_lumbarclip.losses_lumbarclip import similarity_logits
from train.objectives.instance import even_targets
from train.objectives.objective import Gather, Objective, Pairs
from train.training.distributed import gather_with_gradient


def counterfactual_losses(
    image_embeds: Tensor,
    text_embeds: Tensor,
    inverse_temperature: Tensor | float,
    counterfactual_embeds: Tensor,
    counterfactual_rows: Tensor,
    facts: Tensor,
    text_facts: Tensor,
) -> Tensor:
    r"""Compute the cross-entropy of each image over all reports and its own counterfactuals.

    Reports of other patients differ in many words, so the one that matters, a level, a side, a "no", need not be read.
    A counterfactual differs in nothing else:

    $$\ell_i = -\sum_j T_{ij} \log \frac{e^{s\, z_i \cdot t_j}}
      {\sum_k e^{s\, z_i \cdot t_k} + \sum_{c \in C_i} e^{s\, z_i \cdot c}}$$

    with the even targets T of `instance_loss`. It is a column of its own image's row alone: of another image, it may be
    true.

    Args:
        image_embeds: Unit length. Shape (n, D).
        text_embeds: Unit length; those of all processes. Shape (N, D).
        inverse_temperature: $s = 1 / \tau$, > 0. Scalar.
        counterfactual_embeds: Unit length. Shape (m, D).
        counterfactual_rows: The image that each belongs to. Shape (m,), integer.
        facts: Equal for pairs with equal facts, of the images. Shape (n,), integer.
        text_facts: The same of the reports; each image has a report with its facts. Shape (N,), integer.

    Returns:
        The loss of each image in nats, 0 for those without a counterfactual. Shape (n,).

    Raises:
        ValueError: If the shapes do not fit, or there are no images or reports.

    Source:
        NegCLIP, Yuksekgonul et al. 2023 (arXiv 2210.01936), which swaps words and shows the result to all images. Ours:
        the report reader changes one fact, and only the own image sees it.

    Relations:
        `polarity_loss` asks for each finding on its own, in many wordings.

    Example:
        >>> facts, rows = torch.arange(2), torch.tensor([0])
        >>> counterfactual_losses(torch.eye(2), torch.eye(2), 1.0, torch.eye(2)[1:], rows, facts, facts)
        tensor([0.5514, 0.0000])
    """
    logits = similarity_logits(image_embeds, text_embeds, inverse_temperature, paired=False)  # (n, N)
    num_changed = len(counterfactual_embeds)
    if counterfactual_rows.shape != (num_changed,) or facts.shape != (len(logits),):
        raise ValueError(
            "There must be one counterfactual_row for each counterfactual, and facts for each image; got "
            f"{tuple(counterfactual_rows.shape)} for {num_changed}, and {tuple(facts.shape)} for {len(logits)}."
        )
    with torch.autocast(logits.device.type, enabled=False):
        is_own = torch.arange(len(logits), device=logits.device)[:, None] == counterfactual_rows  # (n, m)
        of_changed = logits.new_full(is_own.shape, -torch.inf)
        if num_changed:
            changed = similarity_logits(image_embeds, counterfactual_embeds, inverse_temperature, paired=False)
            of_changed = torch.where(is_own, changed, of_changed)
        targets = even_targets(facts, text_facts).to(logits)
        losses = torch.cat([logits, of_changed], dim=1).logsumexp(dim=1) - (targets * logits).sum(dim=1)
        return torch.where(is_own.any(dim=1), losses, 0)


class CounterfactualObjective(Objective):
    """The mean of `counterfactual_losses` over the images of all processes that have a counterfactual in this step.

    Source:
        Ours, to be added to `lumbarclip`.
    """

    inputs = frozenset({"counterfactuals", "facts"})

    def forward(self, pairs: Pairs, gather: Gather = gather_with_gradient) -> Tensor:
        output, facts, rows = pairs.output, pairs.facts, pairs.counterfactual_rows
        assert output.image_embeds is not None and output.text_embeds is not None
        assert facts is not None and rows is not None and pairs.counterfactual_embeds is not None
        assert output.inverse_temperature is not None
        # Each process judges its own images: the numbers of their counterfactuals differ.
        losses = counterfactual_losses(
            output.image_embeds,
            gather(output.text_embeds),
            output.inverse_temperature,
            pairs.counterfactual_embeds,
            rows,
            facts,
            gather(facts),
        )
        is_counted = torch.zeros_like(losses).index_fill(0, rows, 1.0)
        return gather(losses).sum() / gather(is_counted).sum().clamp(min=1)
