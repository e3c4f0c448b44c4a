"""Optimizer and learning-rate schedule."""

from torch import nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_cosine_schedule_with_warmup


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
