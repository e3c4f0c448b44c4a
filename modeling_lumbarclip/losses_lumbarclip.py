r"""Contrastive losses of LumbarCLIP: the soft loss of the paper, dense and flat in memory, and two for reference.

Pure functions of tensors. Shapes: N pairs, D width of the embeddings, K classes, P distinct label patterns.

Every function takes `inverse_temperature` $s = 1/\tau$ as a factor on the similarities, not its logarithm. Float64
inputs are computed in float64, every other type in float32, whatever autocast says.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .tiled_loss_lumbarclip import flat_soft_loss


def soft_contrastive_loss(
    image_embeds: Tensor,
    text_embeds: Tensor,
    inverse_temperature: Tensor | float,
    labels: Tensor | None = None,
    label_temperature: Tensor | float | None = None,
    tile_size: int | None = None,
) -> Tensor:
    r"""Image-to-text plus text-to-image cross-entropy with targets from label similarity, flat in memory.

    Two patients with the same findings have interchangeable reports. Plain InfoNCE pushes them apart; here the
    target of a row is spread over all pairs in proportion to the exponential of their label overlap.

    $$T_{ij} = \mathrm{softmax}_j(y_i \cdot y_j / \tau_\mathrm{label}), \qquad
      \mathrm{I2T} = -\frac1N \sum_{ij} T_{ij} \log \mathrm{softmax}_j(s\, z_i \cdot t_j)$$

    and T2I is the same on the columns. Neither the N × N similarities nor the targets are ever held: labels take
    few patterns, so $\sum_j T_{ij} z_i \cdot t_j$ needs only the sum of the embeddings of each pattern, and the
    log-sum-exps are computed tile by tile and computed again in backward. Memory is O(N D).

    Args:
        image_embeds: Unit-length image embeddings. Shape (N, D), float.
        text_embeds: Unit-length text embeddings, row i paired with image i. Shape (N, D), float.
        inverse_temperature: Factor on the cosine similarities, > 0. Scalar.
        labels: Multi-hot classes of each pair. Shape (N, K), bool, integer or float. None: a pair matches only
            itself, and the loss is twice `info_nce_loss`. A row without any class overlaps with none and gets the
            uniform target, as the formula says: give such rows a class of their own if that is not meant.
        label_temperature: Temperature of the targets, > 0. Scalar; None takes 1 / `inverse_temperature`, detached.
        tile_size: Rows and columns of a tile; None chooses by device.

    Returns:
        I2T + T2I in nats, each averaged over pairs. Scalar, float32 (float64 for float64 inputs).

    Raises:
        ValueError: If the shapes do not fit, or a given temperature is not positive.

    Source:
        LumbarCLIP, arXiv 2509.20813, equations 3 to 6. Equation 6 as printed is equation 5 with the names i and j
        exchanged; we take the columns of the similarities, as its name says. The paper has one τ for targets and
        similarities; we never let a gradient flow through the targets.

    Relations:
        `soft_contrastive_loss_dense` is the same number in O(N²) memory. With distinct labels and a small
        `label_temperature` it is twice `info_nce_loss`.

    Example:
        >>> embeds = torch.eye(2)
        >>> soft_contrastive_loss(embeds, embeds, 1.0, labels=torch.tensor([[1, 0], [0, 1]]), label_temperature=1.0)
        tensor(1.1644)
    """
    image_embeds, text_embeds, scale = _checked_inputs(image_embeds, text_embeds, inverse_temperature)
    with torch.autocast(image_embeds.device.type, enabled=False):
        labels = None if labels is None else _checked_labels(labels, image_embeds)
        temperature = _label_temperature(label_temperature, scale)
        return flat_soft_loss(image_embeds, text_embeds, scale, labels, temperature, tile_size)


def soft_contrastive_loss_dense(
    image_embeds: Tensor,
    text_embeds: Tensor,
    inverse_temperature: Tensor | float,
    labels: Tensor | None = None,
    label_temperature: Tensor | float | None = None,
) -> Tensor:
    r"""The same loss as `soft_contrastive_loss`, written as the formula stands: the reference of its tests.

    Args:
        image_embeds: Unit-length image embeddings. Shape (N, D), float.
        text_embeds: Unit-length text embeddings, row i paired with image i. Shape (N, D), float.
        inverse_temperature: Factor on the cosine similarities, > 0. Scalar.
        labels: Multi-hot classes of each pair. Shape (N, K); None: a pair matches only itself.
        label_temperature: Temperature of the targets, > 0. Scalar; None takes 1 / `inverse_temperature`, detached.

    Returns:
        I2T + T2I in nats, each averaged over pairs. Scalar, float32 (float64 for float64 inputs).

    Raises:
        ValueError: If the shapes do not fit, or a given temperature is not positive.

    Source:
        LumbarCLIP, arXiv 2509.20813, equations 3 to 6.

    Example:
        >>> embeds = torch.eye(2)
        >>> soft_contrastive_loss_dense(embeds, embeds, 1.0, torch.tensor([[1, 0], [0, 1]]), 1.0)
        tensor(1.1644)
    """
    image_embeds, text_embeds, scale = _checked_inputs(image_embeds, text_embeds, inverse_temperature)
    with torch.autocast(image_embeds.device.type, enabled=False):
        logits = scale * image_embeds @ text_embeds.T  # (N, N)
        if labels is None:
            targets = torch.eye(len(logits), dtype=logits.dtype, device=logits.device)
        else:
            labels = _checked_labels(labels, image_embeds)
            targets = soft_targets(labels, _label_temperature(label_temperature, scale))
        image_to_text = -(targets * logits.log_softmax(dim=1)).sum(dim=1).mean()
        text_to_image = -(targets * logits.T.log_softmax(dim=1)).sum(dim=1).mean()
        return image_to_text + text_to_image


def soft_targets(labels: Tensor, label_temperature: Tensor | float) -> Tensor:
    r"""Rows of target probabilities from the overlap of multi-hot labels, $\mathrm{softmax}_j(y_i \cdot y_j / \tau)$.

    Args:
        labels: Multi-hot classes. Shape (N, K), float.
        label_temperature: Temperature, > 0. Scalar.

    Returns:
        Targets, each row summing to 1. Shape (N, N).

    Source:
        LumbarCLIP, arXiv 2509.20813, equation 4.

    Example:
        >>> soft_targets(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), 1.0)[0]
        tensor([0.4223, 0.1554, 0.4223])
    """
    return (labels @ labels.T / label_temperature).softmax(dim=1)


def lumbarclip_loss(
    image_embeds: Tensor,
    text_embeds: Tensor,
    augmented_text_embeds: Tensor | None,
    inverse_temperature: Tensor | float,
    labels: Tensor | None = None,
    label_temperature: Tensor | float | None = None,
    alpha: float = 0.5,
) -> Tensor:
    r"""The paper's objective: the soft loss on the reports, mixed with the same on their rephrasings.

    $$\mathcal L = \alpha\,(\mathrm{I2T} + \mathrm{T2I}) + (1 - \alpha)\,(\mathrm{I2T}_\mathrm{aug}
      + \mathrm{T2I}_\mathrm{aug})$$

    Args:
        image_embeds: Unit-length image embeddings. Shape (N, D), float.
        text_embeds: Unit-length embeddings of the reports. Shape (N, D), float.
        augmented_text_embeds: Unit-length embeddings of the rephrased reports, same order. Shape (N, D), float.
            None: there are none, and the loss is that of the reports, whatever `alpha`.
        inverse_temperature: Factor on the cosine similarities, > 0. Scalar.
        labels: Multi-hot classes of each pair. Shape (N, K).
        label_temperature: Temperature of the targets, > 0. Scalar.
        alpha: Weight of the reports, in [0, 1].

    Returns:
        The loss in nats. Scalar.

    Source:
        LumbarCLIP, arXiv 2509.20813, equation 7; α = 0.5 in its section 4.1.

    Example:
        >>> embeds = torch.eye(2)
        >>> lumbarclip_loss(embeds, embeds, embeds, 1.0, torch.tensor([[1, 0], [0, 1]]), 1.0)
        tensor(1.1644)
    """
    report_loss = soft_contrastive_loss(image_embeds, text_embeds, inverse_temperature, labels, label_temperature)
    if augmented_text_embeds is None:
        return report_loss
    augmented_loss = soft_contrastive_loss(
        image_embeds, augmented_text_embeds, inverse_temperature, labels, label_temperature
    )
    return alpha * report_loss + (1 - alpha) * augmented_loss


def info_nce_loss(image_embeds: Tensor, text_embeds: Tensor, inverse_temperature: Tensor | float) -> Tensor:
    r"""Symmetric InfoNCE: each image has one right report in the batch, and each report one right image.

    Args:
        image_embeds: Unit-length image embeddings. Shape (N, D), float.
        text_embeds: Unit-length text embeddings, row i paired with image i. Shape (N, D), float.
        inverse_temperature: Factor on the cosine similarities, > 0. Scalar.

    Returns:
        The mean of both directions in nats. Scalar.

    Raises:
        ValueError: If the embeddings differ in shape.

    Source:
        CLIP, Radford et al. 2021, figure 3.

    Relations:
        Half of `soft_contrastive_loss` without labels, which needs O(N D) memory.

    Example:
        >>> info_nce_loss(torch.eye(2), torch.eye(2), 1.0)
        tensor(0.3133)
    """
    image_embeds, text_embeds, scale = _checked_inputs(image_embeds, text_embeds, inverse_temperature)
    with torch.autocast(image_embeds.device.type, enabled=False):
        logits = scale * image_embeds @ text_embeds.T
        own_pair = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, own_pair) + F.cross_entropy(logits.T, own_pair)) / 2


def sigmoid_loss(
    image_embeds: Tensor, text_embeds: Tensor, inverse_temperature: Tensor | float, bias: Tensor | float
) -> Tensor:
    r"""Every pair of the batch on its own: does this report belong to this image?

    $$-\frac1N \sum_{ij} \log \sigma\big(\pm_{ij} (s\, z_i \cdot t_j + b)\big), \qquad \pm_{ij} = 2\,[i = j] - 1$$

    Args:
        image_embeds: Unit-length image embeddings. Shape (N, D), float.
        text_embeds: Unit-length text embeddings, row i paired with image i. Shape (N, D), float.
        inverse_temperature: Factor on the cosine similarities, > 0. Scalar; SigLIP starts from 10.
        bias: Added to the logits. Scalar; SigLIP starts from -10, since nearly all pairs are negative.

    Returns:
        The loss in nats, summed over columns and averaged over rows. Scalar.

    Raises:
        ValueError: If the embeddings differ in shape.

    Source:
        SigLIP, Zhai et al. 2023, equation 1.

    Example:
        >>> sigmoid_loss(torch.eye(2), torch.eye(2), 1.0, 0.0)
        tensor(1.0064)
    """
    image_embeds, text_embeds, scale = _checked_inputs(image_embeds, text_embeds, inverse_temperature)
    with torch.autocast(image_embeds.device.type, enabled=False):
        logits = scale * image_embeds @ text_embeds.T + bias
        signs = 2 * torch.eye(len(logits), dtype=logits.dtype, device=logits.device) - 1
        return -F.logsigmoid(signs * logits).sum(dim=1).mean()


def _checked_inputs(
    image_embeds: Tensor, text_embeds: Tensor, inverse_temperature: Tensor | float
) -> tuple[Tensor, Tensor, Tensor]:
    if image_embeds.ndim != 2 or image_embeds.shape != text_embeds.shape:
        raise ValueError(
            "image_embeds and text_embeds must both have shape (pairs, width), row i of one belonging to row i of the "
            f"other; got {tuple(image_embeds.shape)} and {tuple(text_embeds.shape)}."
        )
    if len(image_embeds) == 0:
        raise ValueError("A contrastive loss needs at least one pair; got an empty batch.")
    in_float64 = torch.float64 in (image_embeds.dtype, text_embeds.dtype)
    dtype = torch.float64 if in_float64 else torch.float32
    scale = torch.as_tensor(inverse_temperature, device=image_embeds.device).to(dtype)
    return image_embeds.to(dtype), text_embeds.to(dtype), scale.reshape(())


def _checked_labels(labels: Tensor, embeds: Tensor) -> Tensor:
    if labels.ndim != 2 or len(labels) != len(embeds):
        raise ValueError(
            f"labels must be multi-hot with shape (pairs, classes), one row for each of the {len(embeds)} pairs; "
            f"got {tuple(labels.shape)}."
        )
    return labels.to(embeds)


def _label_temperature(label_temperature: Tensor | float | None, scale: Tensor) -> Tensor:
    if label_temperature is None:
        return 1 / scale.detach()
    temperature = torch.as_tensor(label_temperature, dtype=scale.dtype, device=scale.device).detach()
    if not temperature > 0:
        raise ValueError(f"label_temperature must be positive, got {float(temperature)}; None takes the learned one.")
    return temperature
