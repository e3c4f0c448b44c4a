"""Optimizer, learning-rate schedule, the average of the weights, and a guard against numbers that are none."""

import math
from collections.abc import Sequence
from typing import Any

from timm.optim import param_groups_layer_decay
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import get_cosine_schedule_with_warmup

Tensors = tuple[Tensor, ...] | list[Tensor]


def build_optimizer(model: nn.Module, learning_rate: float, weight_decay: float) -> AdamW:
    """AdamW that decays matrices and kernels only, not biases, norms or the temperature.

    Args:
        model: What is trained; frozen parameters are left out.
        learning_rate: Peak learning rate.
        weight_decay: Decoupled weight decay.

    Returns:
        The optimizer.

    Source:
        LumbarCLIP, arXiv 2509.20813, section 4.1 (AdamW, 2e-5, 1e-4). Sparing one-dimensional parameters is ours.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decayed = [parameter for parameter in trained if parameter.ndim > 1]
    spared = [parameter for parameter in trained if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return AdamW(groups, lr=learning_rate)


def build_schedule(optimizer: Optimizer, num_updates: int, warmup_ratio: float) -> LRScheduler:
    """Linear warm-up, then half a cosine to zero.

    The paper warms up over the first 10 % of the steps and does not say what follows; the cosine is ours.

    Args:
        optimizer: Whose learning rate is scheduled.
        num_updates: Optimizer updates of the whole run.
        warmup_ratio: Share of them that warms up, in [0, 1].

    Returns:
        The schedule, to be stepped once an update.
    """
    return get_cosine_schedule_with_warmup(optimizer, round(num_updates * warmup_ratio), num_updates)


def average_weights(model: nn.Module, decay: float) -> AveragedModel:
    """Begin an exponential moving average of weights and batch-norm statistics.

    What is no real number, such as the position ids of a text tower, is copied: torch would average it in integers,
    which rounds every position down.

    Args:
        model: What is trained.
        decay: Share of the average that an update keeps, in (0, 1).

    Returns:
        The average, whose `update_parameters(model)` is to be called once an update.
    """
    average_reals = get_ema_multi_avg_fn(decay)

    def average_group(averages: Tensors, values: Tensors, num_averaged: Tensor | int) -> None:
        if averages[0].is_floating_point():  # torch groups them by type
            average_reals(averages, values, num_averaged)
        else:
            for average, value in zip(averages, values, strict=True):
                average.copy_(value)

    return AveragedModel(model, multi_avg_fn=average_group, use_buffers=True)


def build_layerwise_optimizer(
    model: nn.Module, tower: nn.Module, learning_rate: float, weight_decay: float, layer_decay: float
) -> AdamW:
    """AdamW whose rate falls from the head down: what the first layers of a pretrained tower know, suits most tasks.

    Args:
        model: What is trained; frozen parameters are left out.
        tower: A timm model within it, which knows its layers. The rest of the model learns at the full rate.
        learning_rate: Peak learning rate of the head and the tower's last layer.
        weight_decay: Decoupled weight decay of matrices and kernels.
        layer_decay: Factor from a layer to the one before it, in (0, 1].

    Returns:
        The optimizer.

    Source:
        BEiT, Bao et al. 2022; the groups are timm's.
    """
    groups = param_groups_layer_decay(tower, weight_decay=weight_decay, layer_decay=layer_decay)
    in_tower = {parameter for group in groups for parameter in group["params"]}
    head = [parameter for parameter in model.parameters() if parameter.requires_grad and parameter not in in_tower]
    for decay, parameters in (
        (weight_decay, [parameter for parameter in head if parameter.ndim > 1]),
        (0.0, [parameter for parameter in head if parameter.ndim <= 1]),
    ):
        groups.append({"params": parameters, "weight_decay": decay, "lr_scale": 1.0})
    return AdamW(
        [
            {"params": group["params"], "weight_decay": group["weight_decay"], "lr": learning_rate * group["lr_scale"]}
            for group in groups
        ]
    )


def check_finite(name: str, value: float, update: int, optimizer: Any, sources: Sequence[str] = ()) -> None:
    """Raise at the first loss or gradient that is no number, before it reaches a weight or a file.

    Args:
        name: What the number is of.
        value: The number.
        update: Where the run stands.
        optimizer: Whose learning rate is told.
        sources: Rows of the step, of which the first are told; none if it is of no step.

    Raises:
        FloatingPointError: If the value is infinite or NaN.
    """
    if not math.isfinite(value):
        rows = f" Rows of this step: {', '.join(sources[:8])}, ..." if sources else ""
        raise FloatingPointError(
            f"The {name} is {value} at update {update} (learning rate {optimizer.param_groups[0]['lr']:.3g}). "
            f"Start again with a lower --learning_rate or --max_grad_norm, or in full precision.{rows}"
        )
