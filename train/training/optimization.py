"""Optimizers, learning-rate schedule, the average of the weights, and a guard against NaN and infinity."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, cast

from timm.models import group_parameters
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import PreTrainedModel, get_cosine_schedule_with_warmup
from transformers.models.timm_wrapper.modeling_timm_wrapper import TimmWrapperModel

from modeling_lumbarclip.modeling_lumbarclip import LumbarCLIPPreTrainedModel

Tensors = tuple[Tensor, ...] | list[Tensor]


def build_optimizer(model: nn.Module, learning_rate: float, weight_decay: float, layer_decay: float = 1.0) -> AdamW:
    """Build AdamW that decays only matrices and kernels, not biases, norms or the temperature.

    Args:
        model: A model with towers, or a module that holds one.
        learning_rate: Of the heads, and of the last layer of each tower.
        weight_decay: Of matrices and kernels.
        layer_decay: Factor, in (0, 1], on the learning rate from each layer of a tower to the one before it.

    Raises:
        ValueError: If `layer_decay` is below 1 and a tower has no layers that its names tell.

    Source:
        LumbarCLIP, arXiv 2509.20813, section 4.1 (AdamW, 2e-5, 1e-4). Sparing one-dimensional parameters is ours.
        Rates by layer: BEiT, Bao et al. 2022.
    """
    groups: list[dict[str, Any]] = []
    if layer_decay < 1:
        groups = [group for tower in _towers(model) for group in _groups_by_layer(tower, weight_decay, layer_decay)]
    in_towers = {parameter for group in groups for parameter in group["params"]}
    rest = (parameter for parameter in model.parameters() if parameter not in in_towers)
    groups += [{**group, "lr_scale": 1.0} for group in _groups_by_decay(rest, weight_decay)]
    names = ("params", "weight_decay")
    return AdamW(
        [{name: group[name] for name in names} | {"lr": learning_rate * group["lr_scale"]} for group in groups],
        lr=learning_rate,
    )


def _towers(model: nn.Module) -> list[PreTrainedModel]:
    clip = next(module for module in model.modules() if isinstance(module, LumbarCLIPPreTrainedModel))
    return [child for child in clip.children() if isinstance(child, PreTrainedModel)]


def _groups_by_layer(tower: PreTrainedModel, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Group the trained parameters of a tower by layer and by what decays, with the `lr_scale` of each group."""
    if isinstance(tower, TimmWrapperModel):
        return param_groups_layer_decay(tower.timm_model, weight_decay=weight_decay, layer_decay=layer_decay)
    layers = layers_of_parameters(name for name, _ in tower.named_parameters())
    last = max(layers.values())
    if last == 0:
        raise ValueError(
            f"layer_decay {layer_decay} needs the layers of a tower, and the names of the weights of "
            f"{tower.config.model_type!r} number none: set layer_decay to 1, or use another tower."
        )
    parameters: dict[int, list[Tensor]] = defaultdict(list)
    for name, parameter in tower.named_parameters():
        parameters[layers[name]].append(parameter)
    return [
        {**group, "lr_scale": layer_decay ** (last - layer)}
        for layer, of_layer in sorted(parameters.items())
        for group in _groups_by_decay(of_layer, weight_decay)
        if group["params"]
    ]


def freeze_first_layers(tower: PreTrainedModel, count: int) -> None:
    """Freeze the first layers of a tower, numbered as `build_optimizer` does; before DDP and the optimizer.

    Without gradients of their own they need no backward pass, which in convolutional towers is the dearest part of it.

    Args:
        tower: Its last layer stays trained.
        count: Layers, from what comes before the first block on. 0: none.

    Raises:
        ValueError: If the tower has no more layers than that.
    """
    module: nn.Module = tower.timm_model if isinstance(tower, TimmWrapperModel) else tower
    layers = (
        group_parameters(module, cast(Any, module).group_matcher(coarse=False), reverse=True)
        if isinstance(tower, TimmWrapperModel)
        else layers_of_parameters(name for name, _ in module.named_parameters())
    )
    if count > (last := max(layers.values())):
        raise ValueError(
            f"freeze_vision_layers {count} would leave nothing of the vision tower to train, which has {last + 1} "
            f"layers: freeze at most {last}."
        )
    for name, parameter in module.named_parameters():
        if layers[name] < count:
            parameter.requires_grad_(False)


def frozen_norms(tower: nn.Module) -> list[nn.Module]:
    """List the batch norms of a tower that do not learn, and so keep their statistics."""
    norms = [module for module in tower.modules() if isinstance(module, _BatchNorm)]
    return [norm for norm in norms if norm.affine and not norm.weight.requires_grad]


def layers_of_parameters(names: Iterable[str]) -> dict[str, int]:
    """Number the layers of a tower of transformers by the first index in the names of its parameters, in their order.

    What comes before the first layer (embeddings) is layer 0; what comes after (the last norm) belongs to the last one.
    In a tower of stages, such as Swin, a stage is a layer.

    Example:
        >>> layers_of_parameters(["wte.weight", "h.0.attn.weight", "h.1.mlp.3.weight", "ln_f.weight"])
        {'wte.weight': 0, 'h.0.attn.weight': 1, 'h.1.mlp.3.weight': 2, 'ln_f.weight': 2}
    """
    layers: dict[str, int] = {}
    after: list[str] = []
    for name in names:
        index = re.search(r"\.(\d+)\.", f".{name}")
        if index:
            layers[name] = int(index[1]) + 1
        elif any(layers.values()):
            after.append(name)
        else:
            layers[name] = 0
    return layers | dict.fromkeys(after, max(layers.values(), default=0))


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

    Update n keeps `min(decay, (1 + n) / (10 + n))` of the average: with the full decay from the start, 0.99 would leave
    a seventh of the first, random weights after 200 updates. Integer buffers, such as the position ids of a text tower,
    are copied: torch's average would round them down.

    Args:
        model: What is trained.
        decay: The full decay, in (0, 1).

    Source:
        The warm-up is that of TensorFlow's `ExponentialMovingAverage` with `num_updates`.
    """

    def average_group(averages: Tensors, values: Tensors, _: Tensor | int) -> None:
        if not averages[0].is_floating_point():  # torch groups them by type
            for average, value in zip(averages, values, strict=True):
                average.copy_(value)
            return
        num_averaged = averaged.n_averaged.item()  # on the CPU, where reading it waits for nothing
        average_reals = get_ema_multi_avg_fn(min(decay, (1 + num_averaged) / (10 + num_averaged)))
        average_reals(averages, values, _)

    averaged = AveragedModel(model, multi_avg_fn=average_group, use_buffers=True)
    return averaged


def check_finite(name: str, value: float, update: int, learning_rate: float, sources: Sequence[str] = ()) -> None:
    """Raise FloatingPointError for a NaN or infinite loss, gradient norm or weight, before it reaches a file."""
    if not math.isfinite(value):
        rows = f" Rows of this step: {', '.join(sources[:8])}, ..." if sources else ""
        raise FloatingPointError(
            f"The {name} is {value} at update {update} (learning rate {learning_rate:.3g}). "
            f"Start again with a lower --learning_rate or --max_grad_norm, or in full precision.{rows}"
        )
