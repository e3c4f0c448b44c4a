"""Communication between the processes of a run: gather pairs, share batch statistics, wait."""

import logging
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

logger = logging.getLogger(__name__)
Model = TypeVar("Model", bound=nn.Module)


def waiting_process_group() -> InitProcessGroupKwargs:
    """Set a timeout of hours, while the first process evaluates; torch's default on GPUs is ten minutes.

    Returns:
        For the `kwargs_handlers` of the first `Accelerator` of a process; later ones reuse its group.
    """
    return InitProcessGroupKwargs(timeout=timedelta(hours=6))


def gather_with_gradient(local: Tensor) -> Tensor:
    """Concatenate a tensor of all processes along its first dimension, in rank order.

    Each process then computes the loss of the whole batch. Backward sums the gradients of all processes, which is the
    world size times the gradient; distributed data parallel divides by the world size again. `accelerator.gather` has
    no gradient, and putting the local part back into its result loses that of the other processes' losses.

    Args:
        local: This process's part. Shape (n, ...), equal on all processes.

    Returns:
        Shape (world size × n, ...). In a single process `local` itself.
    """
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return local
    from torch.distributed.nn.functional import all_gather  # fails in a torch without distributed

    return torch.cat(all_gather(local.contiguous()))


def share_batch_statistics(model: Model, accelerator: Accelerator) -> Model:
    """Let batch norm see the rows of all processes, on GPUs; warn where it cannot."""
    if accelerator.num_processes == 1:
        return model
    if accelerator.device.type == "cuda":
        return convert_sync_batchnorm(model)  # timm's: torch's own drops the activation of a fused norm
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        logger.warning(
            "On this device each process computes its own batch-norm statistics: losses will differ from those of one "
            "process. Towers without batch norm give equal losses."
        )
    return model


@torch.no_grad()
def take_buffers_of_first_process(model: nn.Module) -> None:
    """Copy the buffers of the first process to all, since each has the batch statistics of its own rows."""
    for buffer in model.buffers():
        broadcast(buffer)  # in place
