r"""Contrastive losses of LumbarCLIP: the soft loss of the paper, dense and flat in memory, and two for reference.

Pure functions of tensors. Shapes: N pairs, D width of the embeddings, K classes, P distinct label patterns.

Every function takes `inverse_temperature` $s = 1/\tau$ as a factor on the similarities, not its logarithm. Float64
inputs are computed in float64, every other type in float32, whatever autocast says.
"""

import math
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
    device = image_embeds.device
    if tile_size is None:
        tile_size = CPU_TILE if device.type == "cpu" else ACCELERATOR_TILE
    with torch.autocast(device.type, enabled=False):
        if labels is None:
            patterns, pattern_of_pair, counts = None, None, None
        else:
            labels = _checked_labels(labels, image_embeds)
            patterns, pattern_of_pair, counts = labels.unique(dim=0, return_inverse=True, return_counts=True)
        temperature = _label_temperature(label_temperature, scale)
        return _FlatSoftLoss.apply(
            image_embeds, text_embeds, scale, patterns, pattern_of_pair, counts, temperature, tile_size
        )


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


class _FlatSoftLoss(torch.autograd.Function):
    r"""The loss from images a, texts b and label patterns; no tensor of it is larger than the embeddings.

    N times the loss is $\sum_i \log \sum_j e^{s\, a_i \cdot b_j} + \sum_j \log \sum_i e^{s\, a_i \cdot b_j}
    - s \sum_{ij} (T_{ij} + T_{ji})\, a_i \cdot b_j$. Backward computes the tiles of the log-sum-exps r and c again:
    with $G_{ij} = e^{\ell_{ij} - r_i} + e^{\ell_{ij} - c_j} - T_{ij} - T_{ji}$ the gradients are $s\,G b$,
    $s\,G^\top a$ and $\sum_{ij} G_{ij}\, a_i \cdot b_j$. One function and not a sum of two, whose gradients would lie
    side by side.

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


def _tiles(a: Tensor, b: Tensor, scale: Tensor, tile_size: int, buffer: Tensor) -> Any:
    """Yield (row slice, column slice, logits of the tile), every tile in the same buffer."""
    num_pairs = len(a)
    for top in range(0, num_pairs, tile_size):
        i = slice(top, min(top + tile_size, num_pairs))
        scaled = a[i] * scale
        for left in range(0, num_pairs, tile_size):
            j = slice(left, min(left + tile_size, num_pairs))
            shape = (i.stop - i.start, j.stop - j.start)
            logits = buffer[: shape[0] * shape[1]].view(shape)
            torch.mm(scaled, b[j].T, out=logits)
            yield i, j, logits


def _mix_by_targets(x: Tensor, patterns: Tensor, counts: Tensor, label_temperature: Tensor, tile_size: int) -> Tensor:
    r"""$(W + W^\top) x$, where $W_{pq}$ is the target that a pair of pattern p gives to one pair of pattern q.

    Rows are made a tile at a time, since a batch in which all labels differ has as many patterns as pairs.
    """
    mixed = torch.zeros_like(x)
    log_counts = counts.to(x.dtype).log()
    rows_at_once = max(1, tile_size * tile_size // len(patterns))
    for top in range(0, len(patterns), rows_at_once):
        i = slice(top, top + rows_at_once)
        overlap = patterns[i] @ patterns.T / label_temperature
        # Normalised over all pairs of the batch: a pattern counts as often as it occurs.
        weights = (overlap - (overlap + log_counts).logsumexp(dim=1, keepdim=True)).exp()
        mixed[i] += weights @ x
        mixed += weights.T @ x[i]
    return mixed


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
