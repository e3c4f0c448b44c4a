"""Objectives that contrast whole images with whole reports: LumbarCLIP, CLIP, SigLIP and ConVIRT."""

from typing import Any

import torch
from torch import Tensor, nn

from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPOutput
from modeling_lumbarclip.losses_lumbarclip import (
    contrast_both_ways,
    info_nce_loss,
    lumbarclip_loss,
    sigmoid_loss,
    similarity_logits,
)
from train.objectives.objective import Gather, Objective, gather_pairs
from train.training.distributed import gather_with_gradient

# Nearly all of the N² pairs are wrong ones: the first step of SigLIP would only correct that.
INITIAL_BIAS = -10.0
IMAGE_TO_TEXT_WEIGHT = 0.75  # of ConVIRT


class LumbarCLIPObjective(Objective):
    """The soft contrastive loss on all pairs; a pair without classes matches only itself.

    Source:
        LumbarCLIP, arXiv 2509.20813, equations 3 to 7; see `lumbarclip_loss`.
    """

    inputs = frozenset({"augmented_texts", "labels_if_any", "label_temperature"})

    def target_temperature(self, inverse_temperature: float) -> float:
        return self.label_temperature or 1 / inverse_temperature

    def forward(self, output: LumbarCLIPOutput, labels: Tensor | None, gather: Gather = gather_with_gradient) -> Tensor:
        image_embeds, text_embeds, inverse_temperature = gather_pairs(output, gather)
        augmented = None if output.augmented_text_embeds is None else gather(output.augmented_text_embeds)
        labels = None if labels is None else gather(labels)
        return lumbarclip_loss(
            image_embeds, text_embeds, augmented, inverse_temperature, labels, self.label_temperature, self.alpha
        )


class CLIPObjective(Objective):
    """Symmetric InfoNCE on all pairs, whatever their classes.

    Source:
        CLIP, Radford et al. 2021, figure 3; see `info_nce_loss`.
    """

    def forward(self, output: LumbarCLIPOutput, labels: Tensor | None, gather: Gather = gather_with_gradient) -> Tensor:
        return info_nce_loss(*gather_pairs(output, gather))


class SigLIPObjective(Objective):
    """The sigmoid loss on all pairs, with a learned bias on the logits.

    Source:
        SigLIP, Zhai et al. 2023 (arXiv 2303.15343), equation 1; see `sigmoid_loss`. Its initial temperature of 0.1 is
        a setting of the run (`initial_temperature`). The bias, initially -10, belongs to the objective, not to the
        model: rankings do not depend on it.
    """

    def __init__(self, model: LumbarCLIPModel, train_labels: Tensor | None = None, **settings: Any) -> None:
        super().__init__(model, train_labels, **settings)
        self.bias = nn.Parameter(torch.tensor(INITIAL_BIAS))

    def forward(self, output: LumbarCLIPOutput, labels: Tensor | None, gather: Gather = gather_with_gradient) -> Tensor:
        return sigmoid_loss(*gather_pairs(output, gather), self.bias)


class ConVIRTObjective(Objective):
    """ConVIRT on all pairs, λ = 0.75.

    Source:
        ConVIRT, section 2. Its non-linear heads, fixed temperature and one sentence drawn from each report are
        settings of the run: `projection`, `initial_temperature`, `learn_temperature`, `text_unit`. Deviations: towers
        and image augmentation are those of the run, not ResNet-50 and ConVIRT's own.
    """

    def forward(self, output: LumbarCLIPOutput, labels: Tensor | None, gather: Gather = gather_with_gradient) -> Tensor:
        return convirt_loss(*gather_pairs(output, gather))


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
        >>> image_embeds, text_embeds = torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        >>> convirt_loss(image_embeds, text_embeds, 1.0)
        tensor(0.7232)
    """
    image_to_text, text_to_image = contrast_both_ways(similarity_logits(image_embeds, text_embeds, inverse_temperature))
    return image_to_text_weight * image_to_text + (1 - image_to_text_weight) * text_to_image
