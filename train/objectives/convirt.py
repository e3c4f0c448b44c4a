"""ConVIRT: InfoNCE that gives each direction its own weight."""

from torch import Tensor

from modeling_lumbarclip.losses_lumbarclip import contrast_both_ways, similarity_logits
from train.objectives.objective import Gather, Objective, Pairs, gather_pairs
from train.training.distributed import gather_with_gradient

IMAGE_TO_TEXT_WEIGHT = 0.75


class ConVIRTObjective(Objective):
    """ConVIRT on all pairs, λ = 0.75.

    Source:
        ConVIRT, section 2. Its non-linear heads, fixed temperature and one sentence drawn from each report are
        settings of the run: `projection`, `initial_temperature`, `learn_temperature`, `text_unit`. Deviations: towers
        and image augmentation are the run's, not ResNet-50 and ConVIRT's own.
    """

    def forward(self, pairs: Pairs, gather: Gather = gather_with_gradient) -> Tensor:
        return convirt_loss(*gather_pairs(pairs.output, gather))


def convirt_loss(
    image_embeds: Tensor,
    text_embeds: Tensor,
    inverse_temperature: Tensor | float,
    image_to_text_weight: float = IMAGE_TO_TEXT_WEIGHT,
) -> Tensor:
    r"""Compute InfoNCE in both directions, with more weight on image to text.

    $$\ell_i^{v \to u} = -\log \frac{e^{s\, v_i \cdot u_i}}{\sum_k e^{s\, v_i \cdot u_k}}, \qquad
      \ell_i^{u \to v} = -\log \frac{e^{s\, u_i \cdot v_i}}{\sum_k e^{s\, u_i \cdot v_k}}, \qquad
      \mathcal L = \frac1N \sum_i \big(\lambda\, \ell_i^{v \to u} + (1 - \lambda)\, \ell_i^{u \to v}\big)$$

    Embeddings v and u have unit length, (N, D). ConVIRT fixes $s = 1 / \tau$ to 10. λ, in [0, 1], is
    `image_to_text_weight`; 0.5 gives `info_nce_loss`.

    Returns:
        The loss in nats. Scalar.

    Raises:
        ValueError: If the embeddings differ in shape, or there are none.

    Source:
        ConVIRT, Zhang et al. 2020 (arXiv 2010.00747), equations 2 to 4.

    Example:
        >>> import torch
        >>> image_embeds, text_embeds = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        >>> convirt_loss(image_embeds, text_embeds, 1.0)
        tensor(0.7232)
    """
    image_to_text, text_to_image = contrast_both_ways(similarity_logits(image_embeds, text_embeds, inverse_temperature))
    return image_to_text_weight * image_to_text + (1 - image_to_text_weight) * text_to_image
