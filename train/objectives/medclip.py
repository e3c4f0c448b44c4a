"""MedCLIP: semantic matching, targets from the similarity of the labels of images and texts."""

import torch
import torch.nn.functional as F
from torch import Tensor

from modeling_lumbarclip.losses_lumbarclip import similarity_logits
from train.objectives.objective import Gather, Objective, Pairs, gather_pairs
from train.training.distributed import gather_with_gradient


def medclip_loss(
    image_embeds: Tensor,
    text_embeds: Tensor,
    inverse_temperature: Tensor | float,
    image_labels: Tensor,
    text_labels: Tensor,
) -> Tensor:
    r"""Compute the semantic matching loss: an image matches every text with similar labels, its own or not.

    $$q_{ij} = \frac{l_i \cdot m_j}{\lVert l_i \rVert \lVert m_j \rVert}, \qquad
      y_{ij} = \mathrm{softmax}_j(q_{ij}), \qquad \hat y_{ij} = \mathrm{softmax}_j(s\, v_i \cdot t_j), \qquad
      \mathcal L^{v \to t} = -\frac1N \sum_{ij} y_{ij} \log \hat y_{ij}$$

    for labels l of the images and m of the texts; $\mathcal L^{t \to v}$ is the same on the columns, and the loss is
    the mean of both. Images and texts may come from different pools.

    Args:
        image_embeds: Unit length. Shape (N, D).
        text_embeds: Unit length. Shape (M, D).
        inverse_temperature: $s = 1 / \tau$, > 0. Scalar.
        image_labels: Multi-hot classes of the images. Shape (N, K). A row without a class has similarity 0 to all and a
            uniform target; to avoid that, give such rows a class of their own.
        text_labels: The same of the texts. Shape (M, K).

    Returns:
        The loss in nats. Scalar.

    Raises:
        ValueError: If the shapes do not fit, or there are no images or texts.

    Source:
        MedCLIP, Wang et al. 2022 (arXiv 2210.10163), equations 1 to 5. No gradient flows through the targets, which
        have no temperature: labels without a common class still get $e^{-1}$ of the weight of equal ones.

    Example:
        >>> classes = torch.tensor([[1, 0], [0, 1]])
        >>> medclip_loss(torch.eye(2), torch.eye(2), 1.0, classes, classes)
        tensor(0.5822)
    """
    for name, labels, embeds in (("image", image_labels, image_embeds), ("text", text_labels, text_embeds)):
        if labels.ndim != 2 or len(labels) != len(embeds) or labels.shape[1] != image_labels.shape[-1]:
            raise ValueError(
                f"{name}_labels must be multi-hot, a row for each of the {len(embeds)} {name}s and as many classes as "
                f"the other labels; got {tuple(labels.shape)}, image_labels being {tuple(image_labels.shape)}."
            )
    logits = similarity_logits(image_embeds, text_embeds, inverse_temperature, paired=False)  # (N, M)
    with torch.autocast(logits.device.type, enabled=False):
        label_similarity = F.normalize(image_labels.to(logits)) @ F.normalize(text_labels.to(logits)).T  # (N, M)
        image_to_text = F.cross_entropy(logits, label_similarity.softmax(dim=1))
        text_to_image = F.cross_entropy(logits.T, label_similarity.T.softmax(dim=1))
        return (image_to_text + text_to_image) / 2


class MedCLIPObjective(Objective):
    """Semantic matching on the images and reports of all processes.

    Source:
        MedCLIP, section 3. Deviations: images and texts of a batch are pairs with common labels, those of the run's
        `target_columns`, where MedCLIP draws them from separate pools, and reads the labels of a text with an entity
        extractor; its sentences and its image-only data are left out, so that all systems see the same pairs.
    """

    inputs = frozenset({"labels"})

    def target_vectors(self, labels: Tensor) -> Tensor:
        return F.normalize(labels)  # dot products are cosines

    def target_temperature(self, inverse_temperature: float) -> float:
        return 1.0

    def forward(self, pairs: Pairs, gather: Gather = gather_with_gradient) -> Tensor:
        assert pairs.labels is not None
        labels = gather(pairs.labels)
        return medclip_loss(*gather_pairs(pairs.output, gather), labels, labels)
