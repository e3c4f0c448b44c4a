r"""The soft contrastive loss in O(N) memory: tiles of the similarities, computed once forward and once backward.

Shapes: N pairs, D width of the embeddings, K classes, P distinct label patterns.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# A tile of this many rows and columns of the similarity matrix stays in a core's cache; a GPU wants larger ones.
CPU_TILE = 1024
ACCELERATOR_TILE = 8192


def flat_soft_loss(
    image_embeds: Tensor,
    text_embeds: Tensor,
    scale: Tensor,
    labels: Tensor | None,
    label_temperature: Tensor,
    tile_size: int | None = None,
) -> Tensor:
    """Compute `losses_lumbarclip.soft_contrastive_loss` on checked inputs, all of one float type and device."""
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
