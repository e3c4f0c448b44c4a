"""What processes do for each other: gather their pairs, so that a step equals one of a single process, and wait."""

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor


def waiting_process_group() -> InitProcessGroupKwargs:
    """Have the other processes wait for hours while the first one evaluates; torch gives up after ten minutes on GPUs.

    Returns:
        One of `kwargs_handlers` of the first `Accelerator` of a process; later ones find the group made.
    """
    return InitProcessGroupKwargs(timeout=timedelta(hours=6))


def gather_with_gradient(local: Tensor) -> Tensor:
    """Concatenate a tensor of all processes along its first dimension, in rank order.

    Each process then computes the loss of the whole batch. Backward adds up what the processes found for a row, which
    is the world size times its gradient, and distributed data parallel divides by the world size again.

    Args:
        local: This process's part. Shape (n, ...), equal on all processes.

    Returns:
        Shape (world size × n, ...). In a single process `local` itself.

    Relations:
        `accelerator.gather` has no gradient. Putting the own part back into its result loses the gradient that flows
        through the other processes' losses.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return local
    return _AllGather.apply(local)


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        ctx.num_rows = len(local)
        parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        summed = grad_output.contiguous()
        dist.all_reduce(summed)
        start = dist.get_rank() * ctx.num_rows
        return summed[start : start + ctx.num_rows]
