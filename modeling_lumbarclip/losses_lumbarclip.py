r"""Contrastive losses of LumbarCLIP: the paper's soft loss, dense and flat in memory, and two others for comparison.

Pure functions of tensors. Shapes: N pairs, M texts, D width of the embeddings, K classes. Embeddings have unit length;
row i of the texts belongs to image i.

`inverse_temperature` $s = 1/\tau > 0$ is the factor on the similarities, not its logarithm. Float64 inputs are computed
in float64, all others in float32, even under autocast.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# A tile of this many rows and columns of the similarity matrix stays in a core's cache; a GPU wants larger ones.
CPU_TILE = 1024
ACCELERATOR_TILE = 8192


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


def flat_soft_loss(
    image_embeds: Tensor,
    text_embeds: Tensor,
    scale: Tensor,
    labels: Tensor | None,
    label_temperature: Tensor,
    tile_size: int | None = None,
) -> Tensor:
    """Compute `soft_contrastive_loss` on checked inputs, all of one float type and device."""
    if tile_size is None:
        tile_size = CPU_TILE if image_embeds.device.type == "cpu" else ACCELERATOR_TILE
    if labels is None:
        patterns, pattern_of_pair, counts = None, None, None
    else:
        patterns, pattern_of_pair, counts = labels.unique(dim=0, return_inverse=True, return_counts=True)
    return _FlatSoftLoss.apply(
        image_embeds, text_embeds, scale, patterns, pattern_of_pair, counts, label_temperature, tile_size
    )


class _FlatSoftLoss(torch.autograd.Function):
    r"""The loss from images a, texts b and label patterns; no tensor of it is larger than the embeddings.

    N times the loss is $\sum_i \log \sum_j e^{s\, a_i \cdot b_j} + \sum_j \log \sum_i e^{s\, a_i \cdot b_j}
    - s \sum_{ij} (T_{ij} + T_{ji})\, a_i \cdot b_j$. Backward computes the tiles of the log-sum-exps r and c again:
    with $G_{ij} = e^{\ell_{ij} - r_i} + e^{\ell_{ij} - c_j} - T_{ij} - T_{ji}$ the gradients are $s\,G b$,
    $s\,G^\top a$ and $\sum_{ij} G_{ij}\, a_i \cdot b_j$. A sum of two functions would hold both gradients at
    once.

    A unit-length pair cannot have a logit beyond ±s. While $e^{\pm s}$ is far from the ends of the number format,
    no maximum has to be subtracted, and one exponential serves rows and columns; otherwise each is stabilised.
    """

    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        b: Tensor,
        scale: Tensor,
        patterns: Tensor | None,
        pattern_of_pair: Tensor | None,
        counts: Tensor | None,
        label_temperature: Tensor,
        tile_size: int,
    ) -> Tensor:
        largest_logit = float(scale.abs() * a.norm(dim=1).max() * b.norm(dim=1).max())
        headroom = math.log(torch.finfo(a.dtype).max) - math.log(len(a)) - 2
        bounded = largest_logit < headroom
        rows = a.new_zeros(len(a)) if bounded else a.new_full((len(a),), -math.inf)
        columns = rows.clone()
        tile_buffer = a.new_empty(min(tile_size, len(a)) ** 2)
        for i, j, logits in _tiles(a, b, scale, tile_size, tile_buffer):
            if bounded:
                exponentials = logits.exp_()
                rows[i] += exponentials.sum(dim=1)
                columns[j] += exponentials.sum(dim=0)
            else:
                rows[i] = torch.logaddexp(rows[i], logits.logsumexp(dim=1))
                columns[j] = torch.logaddexp(columns[j], logits.logsumexp(dim=0))
        if bounded:
            rows, columns = rows.log_(), columns.log_()
        if patterns is None or pattern_of_pair is None or counts is None:
            # Each pair matches only itself: row i of the targets holds a one for i.
            mixed_a, mixed_b = None, None
            agreement = torch.stack([2 * (a[i] * b[i]).sum() for i in _slices(len(a), tile_size)]).sum()
        else:
            sums_a = a.new_zeros(len(patterns), a.shape[1]).index_add_(0, pattern_of_pair, a)  # (P, D)
            sums_b = b.new_zeros(len(patterns), b.shape[1]).index_add_(0, pattern_of_pair, b)  # (P, D)
            mixed_a = _mix_by_targets(sums_a, patterns, counts, label_temperature, tile_size)
            mixed_b = _mix_by_targets(sums_b, patterns, counts, label_temperature, tile_size)
            agreement = (sums_a * mixed_b).sum()
        ctx.save_for_backward(a, b, scale, rows, columns, mixed_a, mixed_b, pattern_of_pair, agreement)
        ctx.tile_size, ctx.bounded = tile_size, bounded
        return (rows.sum() + columns.sum() - scale * agreement) / len(a)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        a, b, scale, rows, columns, mixed_a, mixed_b, pattern_of_pair, agreement = ctx.saved_tensors
        grad_a, grad_b = torch.zeros_like(a), torch.zeros_like(b)
        tile_buffer = a.new_empty(min(ctx.tile_size, len(a)) ** 2)
        weight_buffer = torch.empty_like(tile_buffer)
        row_weights, column_weights = (-rows).exp(), (-columns).exp()
        for i, j, logits in _tiles(a, b, scale, ctx.tile_size, tile_buffer):
            weights = weight_buffer[: logits.numel()].view_as(logits)
            if ctx.bounded:
                torch.add(row_weights[i, None], column_weights[j], out=weights)
                weights *= logits.exp_()
            else:
                torch.sub(logits, rows[i, None], out=weights)
                weights.exp_()
                weights += logits.sub_(columns[j]).exp_()
            grad_a[i].addmm_(weights, b[j])
            grad_b[j].addmm_(weights.T, a[i])
        grad_scale = -agreement
        for i in _slices(len(a), ctx.tile_size):
            grad_scale = grad_scale + (grad_a[i] * a[i]).sum()
            grad_a[i] -= 2 * b[i] if mixed_b is None else mixed_b[pattern_of_pair[i]]
            grad_b[i] -= 2 * a[i] if mixed_a is None else mixed_a[pattern_of_pair[i]]
        share = grad_output / len(a)
        gradients = grad_a.mul_(scale * share), grad_b.mul_(scale * share), grad_scale * share
        return *gradients, None, None, None, None, None


def _slices(num_rows: int, tile_size: int) -> list[slice]:
    return [slice(start, start + tile_size) for start in range(0, num_rows, tile_size)]


def _tiles(
    a: Tensor, b: Tensor, scale: Tensor, tile_size: int, buffer: Tensor
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield rows, columns and logits of every tile, all in the same buffer."""
    for i in _slices(len(a), tile_size):
        scaled = a[i] * scale
        for j in _slices(len(a), tile_size):
            shape = (len(scaled), len(b[j]))
            logits = buffer[: shape[0] * shape[1]].view(shape)
            torch.mm(scaled, b[j].T, out=logits)
            yield i, j, logits


def log_target_blocks(
    patterns: Tensor, counts: Tensor, label_temperature: Tensor | float, max_targets: int
) -> Iterator[tuple[slice, Tensor]]:
    """Compute the logarithm of the soft targets between label patterns, a few rows at a time.

    A batch in which all labels differ has as many patterns as pairs.

    Args:
        patterns: Distinct multi-hot classes. Shape (P, K), float.
        counts: Pairs of each pattern. Shape (P,).
        label_temperature: > 0.
        max_targets: Most targets in a block; a block has at least one row.

    Yields:
        p rows, and the log target that a pair of each gives to one pair of every pattern, shape (p, P).
    """
    log_counts = counts.to(patterns.dtype).log()
    for i in _slices(len(patterns), max(1, max_targets // len(patterns))):
        overlap = patterns[i] @ patterns.T / label_temperature
        # Normalised over all pairs of the batch: a pattern counts as often as it occurs.
        yield i, overlap - (overlap + log_counts).logsumexp(dim=1, keepdim=True)


def _mix_by_targets(x: Tensor, patterns: Tensor, counts: Tensor, label_temperature: Tensor, tile_size: int) -> Tensor:
    r"""$(W + W^\top) x$, where $W_{pq}$ is the target that a pair of pattern p gives to one pair of pattern q."""
    mixed = torch.zeros_like(x)
    for i, log_targets in log_target_blocks(patterns, counts, label_temperature, tile_size * tile_size):
        weights = log_targets.exp()
        mixed[i] += weights @ x
        mixed += weights.T @ x[i]
    return mixed
