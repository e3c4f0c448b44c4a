"""Low-rank adapters (LoRA): train a few parameters of large towers, save them in a small folder, merge them.

Heads, temperature and a tower without adapters are trained in full and saved with the adapters. Adapted towers keep
their weights and batch-norm statistics, so that the base and the adapter folder together are the trained model.
"""

import logging
import re
from collections.abc import Collection
from copy import copy
from pathlib import Path
from typing import TypeVar, cast

from accelerate import PartialState
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import save_file
from timm.layers import freeze_batch_norm_2d, unfreeze_batch_norm_2d
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import BaseImageProcessor, PreTrainedModel, ProcessorMixin

from data_scripts.system.whole_files import write_folder, write_json
from train.checkpoints.checkpoint import save_processor
from train.checkpoints.loading import read_settings

logger = logging.getLogger(__name__)
ModelT = TypeVar("ModelT", bound=PreTrainedModel)  # a model before and after peft has wrapped it

ADAPTER = "adapter"
TOWERS = ("vision_model", "text_model")
ADAPTER_NAME = "default"  # peft's


def add_adapters(model: ModelT, rank: int, towers: Collection[str] = TOWERS) -> ModelT:
    """Freeze towers and add adapters to their layers; whatever else the model trains, it still trains.

    In a tower with attention, all its linear layers are adapted; in one without, such as a ResNet, all convolutions and
    linear layers. Batch norm keeps the statistics of the base: an adapter could not store them, and a few patients
    give poor estimates.

    Args:
        model: Pretrained; it is changed in place.
        rank: Rank of the updates; their scale is 2, whatever the rank.
        towers: Towers that get adapters, if the model has them.

    Returns:
        The model, wrapped in a `PeftModel`, which works like the model itself.

    Raises:
        ValueError: If a tower has no layer that can be adapted, or batch norm that cannot be frozen.

    Source:
        LoRA, Hu et al. 2021. Which layers are adapted is our choice.
    """
    towers = [name for name in TOWERS if name in towers and hasattr(model, name)]
    for name in towers:
        freeze_batch_norm_2d(model.get_submodule(name))
        if any(isinstance(module, _BatchNorm) for module in model.get_submodule(name).modules()):
            raise ValueError(f"{name} has batch norm that adapters cannot freeze: train it whole, without lora_rank.")
    heads = [name for name, child in model.named_children() if name not in TOWERS and [*child.parameters()]]
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=[layer for name in towers for layer in adapted_layers(model, name)],
        modules_to_save=heads,
    )
    # The temperature and the other tower, which peft freezes.
    trained = [value for value in _without_adapters(model, towers).values() if value.requires_grad]
    adapted = cast(PeftModel, get_peft_model(model, config))  # not a mixed one
    for parameter in trained:
        parameter.requires_grad_(True)
    if PartialState().is_main_process:
        learned, total = adapted.get_nb_trainable_parameters()
        share = f"{learned:,} of {total:,} parameters are trained ({100 * learned / total:.1f} %)"
        logger.info("Adapters of rank %d: %s.", rank, share)
    return cast(ModelT, adapted)


def _without_adapters(model: nn.Module, towers: Collection[str]) -> dict[str, Tensor]:
    """Collect the model's own parameters and buffers, and all weights of trained towers other than `towers`."""
    weights: dict[str, Tensor] = dict(model.named_parameters(recurse=False))
    weights |= dict(model.named_buffers(recurse=False))  # the texts of a fused classifier
    for name in TOWERS:
        tower = getattr(model, name, None)
        if name not in towers and tower is not None and any(value.requires_grad for value in tower.parameters()):
            weights |= tower.state_dict(prefix=f"{name}.", keep_vars=True)
    return weights


def adapted_layers(model: nn.Module, tower: str) -> list[str]:
    """Name the layers of a tower that get adapters, or raise ValueError if there are none.

    Example:
        >>> block = nn.ModuleDict({"attn": nn.ModuleDict({"qkv": nn.Linear(4, 12)}), "mlp": nn.Linear(4, 4)})
        >>> adapted_layers(nn.ModuleDict({"vision_model": block}), "vision_model")
        ['vision_model.attn.qkv']
        >>> stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8))
        >>> adapted_layers(nn.ModuleDict({"vision_model": stem}), "vision_model")
        ['vision_model.0']
    """
    # Not subclasses: peft does not know those that standardise their weights or pad themselves.
    # Not grouped convolutions: each of their small kernels has full rank already.
    layers = [
        f"{tower}.{name}"
        for name, module in model.get_submodule(tower).named_modules()
        if type(module) is nn.Linear or (type(module) is nn.Conv2d and module.groups == 1)
    ]
    of_attention = [name for name in layers if re.search(r"attn|attention", name.rpartition(".")[0])]
    if not layers:
        raise ValueError(f"{tower} has no linear layer and no plain convolution to adapt; train it whole.")
    return of_attention or layers


def save_adapters(model: PreTrainedModel, processor: ProcessorMixin | BaseImageProcessor, folder: Path) -> None:
    """Write adapters, heads, temperature and processor, for `PeftModel.from_pretrained(base, folder)`."""
    adapted = cast(PeftModel, model)
    base = adapted.get_base_model()
    weights = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    config = copy(cast(LoraConfig, adapted.peft_config[ADAPTER_NAME]))
    # peft reads them, but does not write them. Copies: a tower may name a tensor twice, which safetensors refuses.
    towers = {name.partition(".")[0] for name, _ in base.named_parameters() if ".lora_" in name}
    weights |= {
        f"base_model.model.{name}": value.detach().clone() for name, value in _without_adapters(base, towers).items()
    }
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules or [])  # a set, whose order differs between processes

    def fill(unfinished: Path) -> None:
        contiguous = {name: tensor.cpu().contiguous() for name, tensor in weights.items()}
        save_file(contiguous, unfinished / SAFETENSORS_WEIGHTS_NAME, metadata={"format": "pt"})
        config.save_pretrained(str(unfinished))
        save_processor(processor, unfinished)

    write_folder(folder, fill)


def merge_adapters(model: ModelT) -> ModelT:
    """Return a plain model with the adapters added to its weights, in evaluation mode; drop the adapted one."""
    merged = cast(ModelT, cast(PeftModel, model).merge_and_unload())
    return unfreeze_batch_norm_2d(merged).eval()


def check_adapter_base(folder: Path) -> str:
    """Return the Hub id of the base of an adapter that `save_adapters` wrote.

    Raises:
        ValueError: If the base is not on the Hub: others could not load the adapter.
    """
    base = read_settings(folder / CONFIG_NAME).get("base_model_name_or_path")
    if not base or not isinstance(base, str):
        raise ValueError(
            f"{folder} has no base: its run started from two towers (no --init_checkpoint). Publish the merged "
            "checkpoint instead."
        )
    if _is_local(base):
        raise ValueError(
            f"The base of {folder} is {base}, which is not on the Hub. Publish that checkpoint first, then pass its id "
            "as --adapter_base org/name; or publish the merged checkpoint instead, without --adapter."
        )
    return base


def set_adapter_base(folder: Path, repo_id: str, revision: str | None = None) -> None:
    """Set the Hub id, and the commit, of the base of an adapter that was trained on a local copy of it.

    Raises:
        ValueError: If `repo_id` is not a Hub id.
    """
    if _is_local(repo_id):
        raise ValueError(f"The base of an adapter must be a Hub id, such as org/name; got {repo_id!r}.")
    path = folder / CONFIG_NAME
    write_json(path, {**read_settings(path), "base_model_name_or_path": repo_id, "revision": revision})


def _is_local(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return True
    return "/" not in name or Path(name).exists()
