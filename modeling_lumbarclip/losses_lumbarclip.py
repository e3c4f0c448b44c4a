r"""Contrastive losses of LumbarCLIP: the paper's soft loss, dense and flat in memory, and two others for comparison.

Pure functions of tensors. Shapes: N pairs, M texts, D width of the embeddings, K classes. Embeddings have unit length;
row i of the texts belongs to image i.

`inverse_temperature` $s = 1/\tau > 0$ is the factor on the similarities, not its logarithm. Float64 inputs are computed
in float64, all others in float32, even under autocast.
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
    r"""Compute the cross-entropy of both directions with targets from label similarity, flat in memory.

    Two patients with the same findings have interchangeable reports. Plain InfoNCE pushes them apart; here the
    target of a row is spread over all pairs in proportion to the exponential of their label overlap.

    $$T_{ij} = \mathrm{softmax}_j(y_i \cdot y_j / \tau_\mathrm{label}), \qquad
      \mathrm{I2T} = -\frac1N \sum_{ij} T_{ij} \log \mathrm{softmax}_j(s\, z_i \cdot t_j)$$

    and T2I is the same on the columns. Neither the N × N similarities nor the targets are ever stored: labels form
    few patterns, so $\sum_j T_{ij} z_i \cdot t_j$ needs only the sum of the embeddings of each pattern, and the
    log-sum-exps are computed tile by tile and recomputed in backward. Memory is O(N D).

    Args:
        image_embeds: Shape (N, D).
        text_embeds: Shape (N, D).
        inverse_temperature: Scalar.
        labels: Multi-hot classes of each pair. Shape (N, K). None: a pair matches only itself, and the loss is twice
            `info_nce_loss`. A row without a class gets the uniform target, as in the formula; to avoid that, give such
            rows a class of their own.
        label_temperature: Temperature of the targets, > 0. None: 1 / `inverse_temperature`, detached.
        tile_size: Rows and columns of a tile; None chooses by device.

    Returns:
        I2T + T2I in nats, each averaged over pairs. Scalar, float32 (float64 for float64 inputs).

    Raises:
        ValueError: If the shapes do not match, or a given temperature is not positive.

    Source:
        LumbarCLIP, arXiv 2509.20813, equations 3 to 6. Equation 6 as printed is equation 5 with the names i and j
        swapped; we take the columns of the similarities, as its name says. The paper has one τ for targets and
        similarities; we never let a gradient flow through the targets.

    Example:
        >>> embeds = torch.eye(2)
        >>> soft_contrastive_loss(embeds, embeds, 1.0, labels=torch.tensor([[1, 0], [0, 1]]), label_temperature=1.0)
        tensor(1.1644)
    """
    _check_embeds(image_embeds, text_embeds)
    image_embeds, text_embeds, scale = _in_full_precision(image_embeds, text_embeds, inverse_temperature)
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
    """Compute `soft_contrastive_loss` as its formula is written, in O(N²) memory: a reference for tests.

    Example:
        >>> embeds = torch.eye(2)
        >>> soft_contrastive_loss_dense(embeds, embeds, 1.0, torch.tensor([[1, 0], [0, 1]]), 1.0)
        tensor(1.1644)
    """
    logits = similarity_logits(image_embeds, text_embeds, inverse_temperature)  # (N, N)
    with torch.autocast(logits.device.type, enabled=False):
        targets = torch.eye(len(logits)).to(logits)
        if labels is not None:
            temperature = _label_temperature(
                label_temperature, torch.as_tensor(inverse_temperature, dtype=logits.dtype)
            )
            targets = soft_targets(_checked_labels(labels, logits), temperature)
        image_to_text = -(targets * logits.log_softmax(dim=1)).sum(dim=1).mean()
        text_to_image = -(targets * logits.T.log_softmax(dim=1)).sum(dim=1).mean()
        return image_to_text + text_to_image


def soft_targets(labels: Tensor, label_temperature: Tensor | float) -> Tensor:
    r"""Compute target probabilities from the overlap of labels, $\mathrm{softmax}_j(y_i \cdot y_j / \tau)$.

    Labels have shape (N, K), float. Each row of the targets (N, N) sums to 1.

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
    r"""Compute the paper's objective: `soft_contrastive_loss` on the reports, mixed with that on their rephrasings.

    $$\mathcal L = \alpha\,(\mathrm{I2T} + \mathrm{T2I}) + (1 - \alpha)\,(\mathrm{I2T}_\mathrm{aug}
      + \mathrm{T2I}_\mathrm{aug})$$

    α weighs the reports, in [0, 1]. Rephrasings are in the order of the reports; without them, the loss is that of the
    reports, whatever `alpha`.

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
    """Compute symmetric InfoNCE: each image has one right report in the batch, and each report one right image.

    Returns:
        The mean of both directions in nats, half of `soft_contrastive_loss` without labels. Scalar.

    Raises:
        ValueError: If the embeddings differ in shape.

    Source:
        CLIP, Radford et al. 2021, figure 3.

    Example:
        >>> info_nce_loss(torch.eye(2), torch.eye(2), 1.0)
        tensor(0.3133)
    """
    image_to_text, text_to_image = contrast_both_ways(similarity_logits(image_embeds, text_embeds, inverse_temperature))
    return (image_to_text + text_to_image) / 2


def contrast_both_ways(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the cross-entropy of rows and of columns of (N, N) logits with the pairs on the diagonal, in nats."""
    own_pair = torch.arange(len(logits), device=logits.device)
    return F.cross_entropy(logits, own_pair), F.cross_entropy(logits.T, own_pair)


def sigmoid_loss(
    image_embeds: Tensor, text_embeds: Tensor, inverse_temperature: Tensor | float, bias: Tensor | float
) -> Tensor:
    r"""Compute the sigmoid loss, which judges each pair on its own: does this report belong to this image?

    $$-\frac1N \sum_{ij} \log \sigma\big(\pm_{ij} (s\, z_i \cdot t_j + b)\big), \qquad \pm_{ij} = 2\,[i = j] - 1$$

    SigLIP starts from s = 10 and, since nearly all pairs are negative, from a bias of -10.

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
    logits = similarity_logits(image_embeds, text_embeds, inverse_temperature) + bias
    signs = 2 * torch.eye(len(logits), dtype=logits.dtype, device=logits.device) - 1
    return -F.logsigmoid(signs * logits).sum(dim=1).mean()


def similarity_logits(
    image_embeds: Tensor, text_embeds: Tensor, inverse_temperature: Tensor | float, paired: bool = True
) -> Tensor:
    r"""Multiply cosine similarities by the inverse temperature.

    If `paired`, row i of the texts belongs to image i, so that M = N.

    Returns:
        $s\, z_i \cdot t_j$. Shape (N, M).

    Raises:
        ValueError: If there is no image or no text, or the shapes do not match.

    Example:
        >>> similarity_logits(torch.eye(2), torch.tensor([[0.6, 0.8]]), 10.0, paired=False)
        tensor([[6.],
                [8.]])
    """
    _check_embeds(image_embeds, text_embeds, paired)
    image_embeds, text_embeds, scale = _in_full_precision(image_embeds, text_embeds, inverse_temperature)
    with torch.autocast(image_embeds.device.type, enabled=False):
        return scale * image_embeds @ text_embeds.T


def _check_embeds(image_embeds: Tensor, text_embeds: Tensor, paired: bool = True) -> None:
    shapes = f"{tuple(image_embeds.shape)} and {tuple(text_embeds.shape)}"
    if image_embeds.ndim != 2 or text_embeds.ndim != 2 or image_embeds.shape[1] != text_embeds.shape[1]:
        raise ValueError(f"image_embeds and text_embeds must have shapes (N, width) and (M, width); got {shapes}.")
    if paired and len(image_embeds) != len(text_embeds):
        raise ValueError(f"Row i of text_embeds must belong to row i of image_embeds; got {shapes}.")
    if len(image_embeds) == 0 or len(text_embeds) == 0:
        raise ValueError(f"A contrastive loss needs at least one pair; got an empty batch, {shapes}.")


def _in_full_precision(
    image_embeds: Tensor, text_embeds: Tensor, inverse_temperature: Tensor | float
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = torch.promote_types(torch.promote_types(image_embeds.dtype, text_embeds.dtype), torch.float32)
    scale = torch.as_tensor(inverse_temperature, dtype=dtype, device=image_embeds.device)
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
        raise ValueError(f"label_temperature must be positive, got {float(temperature)}; None uses the learned one.")
    return temperature
