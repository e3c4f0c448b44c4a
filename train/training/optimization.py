"""Optimizers, learning-rate schedule, the average of the weights, and a guard against NaN and infinity."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from timm.optim import param_groups_layer_decay
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import get_cosine_schedule_with_warmup

Tensors = tuple[Tensor, ...] | list[Tensor]


def build_optimizer(model: nn.Module, learning_rate: float, weight_decay: float) -> AdamW:
    """Build AdamW that decays only matrices and kernels, not biases, norms or the temperature.

    Source:
        LumbarCLIP, arXiv 2509.20813, section 4.1 (AdamW, 2e-5, 1e-4). Sparing one-dimensional parameters is ours.
    """
    return AdamW(_groups_by_decay(model.parameters(), weight_decay), lr=learning_rate)


def _groups_by_decay(parameters: Iterable[Tensor], weight_decay: float) -> list[dict[str, Any]]:
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    decayed = [parameter for parameter in trained if parameter.ndim > 1]
    spared = [parameter for parameter in trained if parameter.ndim <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": spared, "weight_decay": 0.0}]


def build_schedule(optimizer: Optimizer, num_updates: int, warmup_ratio: float) -> LRScheduler:
    """Build a linear warm-up over a share `warmup_ratio` of the updates, followed by half a cosine to zero.

    The paper warms up over the first 10 % of the steps and does not say what follows; the cosine is ours.
    """
    return get_cosine_schedule_with_warmup(optimizer, round(num_updates * warmup_ratio), num_updates)


def average_weights(model: nn.Module, decay: float) -> AveragedModel:
    """Begin an exponential moving average of weights and batch-norm statistics, updated once per optimizer update.

    Integer buffers, such as the position ids of a text tower, are copied: torch's average would round them down. An
    update keeps `decay`, in (0, 1), of the average.
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
    """Build AdamW with a learning rate that falls from the head to the first layers.

    `layer_decay`, in (0, 1], is the factor from a layer of the timm `tower` to the one before it. Its last layer and
    the rest of the model learn at the full rate.

    Source:
        BEiT, Bao et al. 2022; the groups are timm's.
    """
    groups = param_groups_layer_decay(tower, weight_decay=weight_decay, layer_decay=layer_decay)
    in_tower = {parameter for group in groups for parameter in group["params"]}
    head = (parameter for parameter in model.parameters() if parameter not in in_tower)
    groups += [{**group, "lr_scale": 1.0} for group in _groups_by_decay(head, weight_decay)]
    names = ("params", "weight_decay")
    return AdamW(
        [{name: group[name] for name in names} | {"lr": learning_rate * group["lr_scale"]} for group in groups]
    )


def check_finite(name: str, value: float, update: int, learning_rate: float, sources: Sequence[str] = ()) -> None:
    """Raise FloatingPointError for a NaN or infinite loss, gradient norm or weight, before it reaches a file."""
    if not math.isfinite(value):
        rows = f" Rows of this step: {', '.join(sources[:8])}, ..." if sources else ""
        raise FloatingPointError(
            f"The {name} is {value} at update {update} (learning rate {learning_rate:.3g}). "
            f"Start again with a lower --learning_rate or --max_grad_norm, or in full precision.{rows}"
        )
