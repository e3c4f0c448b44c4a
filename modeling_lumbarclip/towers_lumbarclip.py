"""Build and load towers of transformers and timm, and read their outputs as pooled features and as patches.

Shapes: B images, P patches, U texts, T tokens, d_I and d_T widths of the towers.
"""

import difflib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from types import MethodType
from typing import Any, cast

import timm
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModel
from transformers.configuration_utils import PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.models.timm_wrapper.modeling_timm_wrapper import TimmWrapperModel
from transformers.utils import logging
from transformers.utils.generic import is_flash_attention_requested
from transformers.utils.output_capturing import selected_hidden_states

logger = logging.get_logger(__name__)

# The paper's text tower: its repository has no safetensors; `weights_only` reads a pickle without running its code.
PICKLED_TOWERS = ("emilyalsentzer/Bio_ClinicalBERT",)
# What a tower returns on request, by `output_hidden_states=True` and `output_attentions=True`.
RECORDS = ("hidden_states", "attentions")
# Inputs that the model sets, or does without.
NOT_OPTIONS = {"input_ids", "inputs_embeds", "pixel_values", "attention_mask", "return_dict", "do_pooling", "use_cache"}


class TimmTower(TimmWrapperModel):
    """A model of timm that keeps the weights that timm drew.

    transformers would draw every convolution anew with std 0.02, which shrinks a ResNet's features fiftyfold.
    """

    _no_split_modules = ["TimmTower"]  # noqa: RUF012 - read by transformers

    def post_init(self) -> None:
        """Mark the weights as drawn, unless they are only declared, to be loaded."""
        if not next(self.parameters()).is_meta:
            for module in self.modules():
                cast(Any, module)._is_hf_initialized = True
        super().post_init()

    def get_correct_attn_implementation(self, requested_attention: str | None, is_init_check: bool = False) -> str:
        """Replace flash attention, when the whole model is set to it."""
        return super().get_correct_attn_implementation(
            supported_attention(TimmTower, requested_attention), is_init_check
        )


def build_tower(config: PreTrainedConfig) -> PreTrainedModel:
    """Make a tower with random weights, drawn by its own library."""
    if config.model_type != "timm_wrapper":
        tower_class: Any = MODEL_MAPPING.get(type(config), None)
        config._attn_implementation = supported_attention(tower_class, config._attn_implementation)
        return AutoModel.from_config(config, trust_remote_code=False, **_without_pooler(config))
    if not timm.is_model(config.architecture):
        raise ValueError(f"timm has no model {config.architecture!r}. {_nearest_timm_models(config.architecture)}")
    config._attn_implementation = supported_attention(TimmTower, config._attn_implementation)
    return TimmTower._from_config(config)


def supported_attention(tower_class: type[PreTrainedModel] | None, requested: str | None) -> str | None:
    """Replace flash attention by PyTorch's for a tower that has none, and log it."""
    if requested is None or tower_class is None or tower_class._supports_flash_attn:
        return requested
    if not is_flash_attention_requested(requested_attention_implementation=requested):
        return requested
    instead = "sdpa" if tower_class._supports_sdpa else "eager"
    logger.warning(f"{tower_class.__name__} has no flash attention: it uses {instead!r} in place of {requested!r}.")
    return instead


def _without_pooler(config: PreTrainedConfig) -> dict[str, bool]:
    """Leave out the pooler: we pool ourselves, and an unused one breaks distributed training."""
    model_class: Any = MODEL_MAPPING.get(type(config), None)
    has_pooler = model_class is not None and "add_pooling_layer" in inspect.signature(model_class).parameters
    return {"add_pooling_layer": False} if has_pooler else {}


def tower_options(
    method: Callable[..., Any], options: dict[str, Any], *towers: PreTrainedModel, records: Sequence[str] = RECORDS
) -> tuple[dict[str, Any], ...]:
    """Give each tower the options that its `forward` names, and all of them the requests for `records`.

    PEFT passes some of `NOT_OPTIONS` as None, which asks for nothing.

    Raises:
        TypeError: If no tower takes an option of this method of the model; with the nearest name.
    """
    options = {name: value for name, value in options.items() if value is not None or name not in NOT_OPTIONS}
    if not options:
        return ({},) * len(towers)
    requests = {f"output_{record}" for record in records}
    never = NOT_OPTIONS | {f"output_{record}" for record in RECORDS}
    taken = [requests | inspect.signature(tower.forward).parameters.keys() - never for tower in towers]
    for option in options:
        if not any(option in names for names in taken):
            known = {*inspect.signature(method).parameters, *set().union(*taken), "return_dict"} - {"args", "kwargs"}
            nearest = difflib.get_close_matches(option, known, n=1)
            hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
            model = type(cast(MethodType, method).__self__).__name__
            raise TypeError(f"{model}.{method.__name__}() takes no {option!r}.{hint}")
    return tuple({name: value for name, value in options.items() if name in names} for names in taken)


def run_tower(
    tower: PreTrainedModel, config: PreTrainedConfig, options: dict[str, Any], **inputs: Tensor
) -> BaseModelOutputWithPooling:
    """Run a tower with its `tower_options`, with the requests for records of the whole model's configuration.

    Raises:
        ValueError: If the tower does not return the hidden states or attentions that are requested.
    """
    options, requested = dict(options), {}
    for record in RECORDS:
        value = options.pop(f"output_{record}", None)
        if getattr(config, f"output_{record}", False) if value is None else value:
            requested[f"output_{record}"] = True if value is None else value
    kept = None
    if isinstance(tower, TimmWrapperModel):
        if "output_attentions" in requested:
            raise ValueError(_not_returned(tower, "attentions"))
        kept = selected_hidden_states(requested.get("output_hidden_states"))
        if kept is not None:  # timm counts from its first block, and returns no others
            requested["output_hidden_states"] = True
    outputs = tower(**inputs, **options, **requested, return_dict=True)
    returned = {record: getattr(outputs, record, None) for record in RECORDS}
    if kept is not None:
        states = returned["hidden_states"]
        indices = {index % len(states) for index in kept if -len(states) <= index < len(states)}
        returned["hidden_states"] = tuple(state if i in indices else None for i, state in enumerate(states))
    for record in RECORDS:
        if f"output_{record}" in requested and not returned[record]:
            raise ValueError(_not_returned(tower, record))
    return BaseModelOutputWithPooling(outputs.last_hidden_state, getattr(outputs, "pooler_output", None), **returned)


def tower_name(tower: PreTrainedModel) -> str:
    """Name a tower for messages."""
    return f"The tower {getattr(tower.config, 'architecture', tower.config.model_type)!r}"


def _not_returned(tower: PreTrainedModel, record: str) -> str:
    found = f"output_{record}: {tower_name(tower)} returns no {record.replace('_', ' ')}"
    if record == "attentions" and not isinstance(tower, TimmWrapperModel):
        found += f" with attn_implementation={tower.config._attn_implementation!r}; it may with 'eager'"
    return f"{found}."


def output_width(tower: PreTrainedModel) -> int:
    """Return the width of the pooled features of a vision tower."""
    if isinstance(tower, TimmWrapperModel):
        timm_model: Any = tower.timm_model
        return getattr(timm_model, "head_hidden_size", timm_model.num_features)
    return patch_width(tower)


def patch_width(tower: PreTrainedModel) -> int:
    """Return the width of a patch, which in some convolutional towers differs from `output_width`."""
    if isinstance(tower, TimmWrapperModel):
        timm_model: Any = tower.timm_model
        return timm_model.num_features
    config: Any = tower.config
    return getattr(config, "hidden_size", None) or config.hidden_sizes[-1]


def pooled_image(tower: PreTrainedModel, outputs: Any) -> Tensor:
    """Pool the tower's outputs to (B, d_I): by its own pooling, else the class token, else the mean over patches."""
    if getattr(outputs, "pooler_output", None) is not None:
        return outputs.pooler_output.flatten(1)
    hidden = outputs.last_hidden_state
    if hidden.ndim == 4:
        return hidden.mean(dim=(2, 3))
    has_class_token = getattr(getattr(tower, "embeddings", None), "cls_token", None) is not None
    return hidden[:, 0] if has_class_token else hidden.mean(dim=1)


def patch_features(tower: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Flatten a feature map or tokens of a vision tower to patches (B, P, d_I), without class tokens."""
    if hidden.ndim == 4:
        return hidden.flatten(1, 2) if has_channels_last(tower) else hidden.flatten(2).transpose(1, 2)
    return hidden[:, num_prefix_tokens(tower) :]


def has_channels_last(tower: PreTrainedModel) -> bool:
    """Whether a tower's feature maps are (B, H, W, C), as in timm's Swin."""
    return getattr(getattr(tower, "timm_model", None), "output_fmt", "NCHW") == "NHWC"


def num_prefix_tokens(tower: PreTrainedModel) -> int:
    """Count the class, distillation and register tokens before a tower's patches."""
    if isinstance(tower, TimmWrapperModel):
        return getattr(tower.timm_model, "num_prefix_tokens", 0)
    # transformers has no common name for their number, only for their parameters.
    tokens = {name.rpartition(".")[2]: parameter for name, parameter in tower.named_parameters()}
    num_registers = tokens["register_tokens"].shape[1] if "register_tokens" in tokens else 0
    return num_registers + sum(name in tokens for name in ("cls_token", "class_embedding", "distillation_token"))


def inner_tokens(attention_mask: Tensor) -> Tensor:
    """Mark the tokens of words, (U, T): all but padding and the first and last token, [CLS] and [SEP].

    Example:
        >>> inner_tokens(torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])).int()
        tensor([[0, 1, 1, 0],
                [0, 1, 0, 0]], dtype=torch.int32)
    """
    position = attention_mask.cumsum(dim=1)
    return attention_mask.bool() & (position > 1) & (position < position[:, -1:])


def max_text_tokens(tower: PreTrainedModel) -> int | None:
    """Return the longest text, in tokens, that a text tower has positions for; None if nothing bounds it.

    Read off two short forward passes, since configurations do not say it: RoBERTa counts its positions from 2 on, so
    its 514 take texts of 512 tokens. Rotary and relative positions bound nothing.

    Raises:
        ValueError: If the tower does not run on plain tokens.
    """
    # A table that is made for a text, such as XLNet's, has another length for another text.
    limits = _table_limits(tower, 4) & _table_limits(tower, 5)
    return min(limits, default=None)


def _table_limits(tower: PreTrainedModel, num_tokens: int) -> set[int]:
    with _PositionTables(num_tokens) as tables:
        _run_text_tower(tower, torch.full((1, num_tokens), _word_tokens(tower)[0]))
    return tables.limits


class _PositionTables(TorchDispatchMode):
    """Collect how many tokens fit the tables that are read at consecutive rows: with equal tokens, at positions."""

    def __init__(self, num_tokens: int) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.limits: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aten = torch.ops.aten
        if func is aten.embedding.default:
            self._read(args[0], 0, args[1])
        elif func is aten.index.Tensor and len(args[1]) == 1:
            self._read(args[0], 0, args[1][0])
        elif func is aten.index_select.default:
            self._read(*args)
        elif func is aten.gather.default:
            self._read(args[0], args[1], args[2].movedim(args[1], -1))
        return func(*args, **(kwargs or {}))

    def _read(self, table: Tensor, dim: int, rows: Tensor) -> None:
        if not table.is_floating_point():  # a mask or token types, which grow with the text
            return
        first = rows.flatten()[: self.num_tokens].tolist()
        if len(first) == self.num_tokens and first == list(range(first[0], first[0] + self.num_tokens)):
            self.limits.add(table.shape[dim] - first[0])


def _word_tokens(tower: PreTrainedModel) -> tuple[int, int]:
    """Name two tokens from the middle of a text tower's vocabulary, which mean no padding, start or end."""
    names = ("pad", "bos", "eos", "cls", "sep", "mask", "unk")
    special = {getattr(tower.config, f"{name}_token_id", None) for name in names}
    size = getattr(tower.config, "vocab_size", None) or 128  # CANINE reads characters, and has no vocabulary
    first = next(token for token in range(size // 2, size) if token not in special)
    return first, next(token for token in range(size // 3, size) if token not in {first, *special})


@torch.no_grad()
def _run_text_tower(tower: PreTrainedModel, token_ids: Tensor) -> Tensor:
    """Return the last hidden states (U, T, d_T) of texts (U, T) without padding, in evaluation mode."""
    was_training = tower.training
    tower.eval()
    token_ids = token_ids.to(tower.device)
    try:
        return tower(input_ids=token_ids, attention_mask=torch.ones_like(token_ids)).last_hidden_state
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{tower.config.model_type!r} is no text tower: on tokens and their mask it fails with "
            f"{type(error).__name__}: {error}. Use an encoder such as bert, roberta or distilbert."
        ) from error
    finally:
        tower.train(was_training)


def load_vision_tower(name: str, model_args: dict[str, Any] | None) -> PreTrainedModel:
    """Load a vision tower with its weights: by timm's name, from a folder, or from the Hub."""
    if timm.is_model(name) and not Path(name).is_dir():
        config = AutoConfig.for_model("timm_wrapper", architecture=name, model_args=model_args)
        tower = TimmTower._from_config(config)
        try:
            pretrained = timm.create_model(name, pretrained=True, num_classes=0, **(model_args or {}))
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f"No tower {name!r}: its pretrained weights could not be fetched ({error}). Name a folder with a saved "
                "tower, or use random weights: --no_pretrained in train/pretrain.py, or a model built from a "
                "LumbarCLIPConfig."
            ) from error
        tower.timm_model.load_state_dict(pretrained.state_dict())
        return tower
    return load_tower(name, **({"model_args": model_args} if model_args else {}))


def load_tower(name: str, **kwargs: Any) -> PreTrainedModel:
    """Load a tower of transformers with its weights, from a folder or from the Hub, without running its code.

    Raises:
        ValueError: If there is no such tower, or its weights are not safetensors.
    """
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False, **kwargs)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"No tower {name!r}: it is neither a folder with a config.json nor a reachable Hub id. "
            f"{_nearest_timm_models(name)}"
        ) from error
    config.dtype = None  # towers saved in half precision must match float32 heads; cast the whole model afterwards
    try:
        return AutoModel.from_pretrained(
            name,
            config=config,
            dtype=torch.float32,
            use_safetensors=name not in PICKLED_TOWERS,
            weights_only=True,
            trust_remote_code=False,
            **_without_pooler(config),
        )
    except OSError as error:
        raise ValueError(
            f"No weights of the tower {name!r} ({error}). Only safetensors are read, since pickles such as "
            "pytorch_model.bin may run code. If you trust one, convert it: "
            "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors', {'format': 'pt'})."
        ) from error


def _nearest_timm_models(name: str) -> str:
    nearest = difflib.get_close_matches(name, timm.list_models(), n=3)
    return f"Nearest in timm: {', '.join(nearest)}." if nearest else "`timm.list_models()` lists timm's names."
