"""ConVIRT: InfoNCE in both directions, the one from image to text with more weight."""

import torch
import torch.nn.functional as F
from torch import Tensor

from modeling_lumbarclip import LumbarCLIPOutput
from train.objectives.objective import Gather, Objective, gather_pairs, similarity_logits
from train.training.distributed import gather_with_gradient

IMAGE_TO_TEXT_WEIGHT = 0.75


def convirt_loss(
    image_embeds: Tensor,
    text_embeds: Tensor,
    inverse_temperature: Tensor | float,
    image_to_text_weight: float = IMAGE_TO_TEXT_WEIGHT,
) -> Tensor:
    r"""Mean of both contrastive directions, weighted.

    $$\ell_i^{v \to u} = -\log \frac{e^{s\, v_i \cdot u_i}}{\sum_k e^{s\, v_i \cdot u_k}}, \qquad
      \ell_i^{u \to v} = -\log \frac{e^{s\, u_i \cdot v_i}}{\sum_k e^{s\, u_i \cdot v_k}}, \qquad
      \mathcal L = \frac1N \sum_i \big(\lambda\, \ell_i^{v \to u} + (1 - \lambda)\, \ell_i^{u \to v}\big)$$

    Args:
        image_embeds: Unit-length image embeddings v. Shape (N, D), float.
        text_embeds: Unit-length text embeddings u, row i paired with image i. Shape (N, D), float.
        inverse_temperature: Factor on the cosine similarities, $s = 1 / \tau$, > 0. Scalar; ConVIRT fixes τ = 0.1.
        image_to_text_weight: λ, in [0, 1].

    Returns:
        The loss in nats. Scalar.

    Raises:
        ValueError: If the embeddings differ in shape, or there are none.

    Source:
        ConVIRT, Zhang et al. 2020 (arXiv 2010.00747), equations 2 to 4.

    Relations:
        With λ = 0.5 it is `info_nce_loss`.

    Example:
        >>> image_embeds, text_embeds = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        >>> convirt_loss(image_embeds, text_embeds, 1.0)
        tensor(0.7232)
    """
    if len(image_embeds) != len(text_embeds):
        raise ValueError(f"Row i of both belongs to pair i; got {len(image_embeds)} images, {len(text_embeds)} texts.")
    logits = similarity_logits(image_embeds, text_embeds, inverse_temperature)  # (N, N)
    own_pair = torch.arange(len(logits), device=logits.device)
    image_to_text, text_to_image = F.cross_entropy(logits, own_pair), F.cross_entropy(logits.T, own_pair)
    return image_to_text_weight * image_to_text + (1 - image_to_text_weight) * text_to_image


class ConVIRTObjective(Objective):
    """ConVIRT on all pairs, λ = 0.75.

    Source:
        ConVIRT, section 2. Its non-linear heads, its fixed temperature and its one sentence drawn from each report
        are settings of the run: `projection`, `initial_temperature`, `learn_temperature`, `text_unit`. Deviations:
        the towers and the augmentation of images are those of the run and not ResNet-50 and ConVIRT's own.
    """

    def forward(self, output: LumbarCLIPOutput, labels: Tensor | None, gather: Gather = gather_with_gradient) -> Tensor:
        """See `Objective.forward`."""
        return convirt_loss(*gather_pairs(output, gather))
