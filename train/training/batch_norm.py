"""Batch norm in a run of several processes: its statistics are of all of them, or at least the same in each."""

import logging
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from timm.layers import convert_sync_batchnorm
from torch import nn

logger = logging.getLogger(__name__)
Model = TypeVar("Model", bound=nn.Module)


def share_batch_statistics(model: Model, accelerator: Accelerator) -> Model:
    """Let batch norm see the rows of all processes, on GPUs; say so where it cannot."""
    if accelerator.num_processes == 1:
        return model
    if accelerator.device.type == "cuda":
        return convert_sync_batchnorm(model)  # timm's: torch's own drops the activation of a fused norm
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules()):
        logger.warning(
            "The vision tower has batch norm, whose statistics are of each process on this device: losses will differ "
            "from those of one process. Towers without batch norm give the same."
        )
    return model


@torch.no_grad()
def take_buffers_of_first_process(model: nn.Module) -> None:
    """Make the buffers those of the first process: after a step, batch statistics are of each process's own rows."""
    for buffer in model.buffers():
        broadcast(buffer)  # in place
