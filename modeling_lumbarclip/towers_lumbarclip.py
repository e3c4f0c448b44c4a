"""Build and load towers of transformers and timm, and read their outputs as pooled features and as patches.

Shapes: B images, P patches, U texts, T tokens, d_I and d_T widths of the towers.
"""

import difflib
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import MethodType
from typing import Any, cast

import timm
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
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
    """A model of timm that keeps timm's own initialisation.

    transformers would initialise every convolution again with std 0.02, which shrinks a ResNet's features fiftyfold.
    """

    _no_split_modules = ["TimmTower"]  # noqa: RUF012 - read by transformers

    def post_init(self) -> None:
        """Mark the weights as initialised, unless they are on the meta device and still to be loaded."""
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
    """Make a tower with random weights, initialised by its own library."""
    if config.model_type != "timm_wrapper":
        tower_class = _tower_class(config)
        if tower_class is None:
            raise ValueError(
                f"AutoModel of transformers builds no {config.model_type!r}. "
                "modeling_lumbarclip/README.md lists towers that were tested."
            )
        config._attn_implementation = supported_attention(tower_class, config._attn_implementation)
        return AutoModel.from_config(config, trust_remote_code=False, **_without_pooler(config))
    if not timm.is_model(config.architecture):
        raise ValueError(f"timm has no model {config.architecture!r}. {_nearest_timm_models(config.architecture)}")
    config._attn_implementation = supported_attention(TimmTower, config._attn_implementation)
    return TimmTower._from_config(config)


def _tower_class(config: PreTrainedConfig) -> type[PreTrainedModel] | None:
    """Return the class that AutoModel builds; None if there is none, or several as for Funnel."""
    mapped: Any = MODEL_MAPPING.get(type(config), None)
    return None if isinstance(mapped, tuple) else mapped


def supported_attention(tower_class: type[PreTrainedModel] | None, requested: str | None) -> str | None:
    """Replace flash attention by PyTorch's for a tower that has none, and log it."""
    if requested is None or tower_class is None or tower_class._supports_flash_attn:
        return requested
    if not is_flash_attention_requested(requested_attention_implementation=requested):
        return requested
    instead = "sdpa" if tower_class._supports_sdpa else "eager"
    logger.warning(f"{tower_class.__name__} has no flash attention: it uses {instead!r} in place of {requested!r}.")
    return instead


def keep_attention(tower: PreTrainedModel) -> None:
    """Set the attention of a tower that was given to a model: a configuration made around the tower's clears it.

    Without one, the tower heeds neither padding nor order.
    """
    if tower.config._attn_implementation is None:
        tower.config._attn_implementation = tower.get_correct_attn_implementation(None)


def _without_pooler(config: PreTrainedConfig) -> dict[str, bool]:
    """Leave out the pooler: we pool ourselves, and an unused one breaks distributed training."""
    model_class: Any = _tower_class(config)
    has_pooler = model_class is not None and "add_pooling_layer" in inspect.signature(model_class).parameters
    return {"add_pooling_layer": False} if has_pooler else {}


def tower_options(
    method: Callable[..., Any], options: dict[str, Any], *towers: PreTrainedModel, records: Sequence[str] = RECORDS
) -> tuple[dict[str, Any], ...]:
    """Give each tower the options that its `forward` names, and all of them the requests for `records`.

    PEFT passes some of `NOT_OPTIONS` as None, which asks for nothing. A tokenizer may make `token_type_ids`, all of one
    type, for a text tower that has no types.

    Raises:
        TypeError: If no tower takes an option of this method of the model; with the nearest name.
    """
    options = {name: value for name, value in options.items() if value is not None or name not in NOT_OPTIONS}
    if not options:
        return ({},) * len(towers)
    requests = {f"output_{record}" for record in records}
    never = NOT_OPTIONS | {f"output_{record}" for record in RECORDS}
    inputs = [inspect.signature(tower.forward).parameters.keys() for tower in towers]
    taken = [requests | names - never for names in inputs]
    ignored = {"token_type_ids"} if any("input_ids" in names for names in inputs) else set()
    for option in options:
        if option not in ignored and not any(option in names for names in taken):
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

    Where attentions are requested, they are computed in full ("eager") for this call.

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
    with _eager_attention(tower) if "output_attentions" in requested else nullcontext():
        outputs = tower(**inputs, **options, **requested, return_dict=True)
    returned = {record: getattr(outputs, record, None) for record in RECORDS}
    if kept is not None:
        states: Any = returned["hidden_states"]
        indices = {index % len(states) for index in kept if -len(states) <= index < len(states)}
        returned["hidden_states"] = tuple(state if i in indices else None for i, state in enumerate(states))
    for record in RECORDS:
        if f"output_{record}" in requested and not returned[record]:
            raise ValueError(_not_returned(tower, record))
    return BaseModelOutputWithPooling(outputs.last_hidden_state, getattr(outputs, "pooler_output", None), **returned)


def count_batches_once(tower: PreTrainedModel) -> None:
    """Keep batch norm from counting a batch twice, when checkpointing computes it again in a backward pass."""
    for norm in tower.modules():  # at each step: conversion to synchronised batch norm makes new modules
        if isinstance(norm, _BatchNorm) and not hasattr(norm, "momentum_of_forward"):
            cast(Any, norm).momentum_of_forward = norm.momentum
            norm.register_forward_pre_hook(_stop_in_backward)


def _stop_in_backward(norm: Any, inputs: Any) -> None:
    is_again = torch._C._current_graph_task_id() != -1
    norm.momentum = 0.0 if is_again else norm.momentum_of_forward
    if is_again and norm.training and norm.num_batches_tracked is not None:
        norm.num_batches_tracked -= 1  # which the forward pass adds again


@contextmanager
def _eager_attention(tower: PreTrainedModel) -> Iterator[None]:
    """Compute attentions in full: other implementations return none."""
    configs = {id(part.config): part.config for part in tower.modules() if isinstance(part, PreTrainedModel)}
    kept = {key: config._attn_implementation for key, config in configs.items()}
    try:
        for config in configs.values():
            config._attn_implementation_internal = "eager"
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation_internal = kept[key]


def run_text_tower(
    tower: PreTrainedModel, config: PreTrainedConfig, options: dict[str, Any], input_ids: Tensor, attention_mask: Tensor
) -> BaseModelOutputWithPooling:
    """Run a text tower as `run_tower` does, with padding on either side: neither changes a text's embedding."""

    def moved(values: Any, back: bool = False) -> Any:
        is_by_token = isinstance(values, Tensor) and values.shape[:2] == input_ids.shape
        return padding_last(values, attention_mask, back) if is_by_token else values

    options = {name: moved(value) for name, value in options.items()}
    inputs = {"input_ids": moved(input_ids), "attention_mask": moved(attention_mask)}
    outputs = run_tower(tower, config, options, **inputs)
    outputs.last_hidden_state = moved(outputs.last_hidden_state, back=True)
    if outputs.hidden_states is not None:
        outputs.hidden_states = tuple(moved(hidden, back=True) for hidden in outputs.hidden_states)
    if outputs.attentions is not None:  # (U, heads, T, T)
        columns_first = (of_layer.transpose(1, 2) for of_layer in outputs.attentions)
        both = (moved(rows, back=True).permute(0, 3, 2, 1) for rows in columns_first)
        outputs.attentions = tuple(moved(rows, back=True).permute(0, 2, 3, 1) for rows in both)
    return outputs


def tower_name(tower: PreTrainedModel) -> str:
    """Name a tower for messages."""
    return f"The tower {getattr(tower.config, 'architecture', tower.config.model_type)!r}"


def _not_returned(tower: PreTrainedModel, record: str) -> str:
    return f"output_{record}: {tower_name(tower)} returns no {record.replace('_', ' ')}."


@contextmanager
def evaluating(tower: PreTrainedModel, role: str, given: str) -> Iterator[None]:
    """Run a tower in evaluation mode without gradients; turn what it stumbles over into words.

    In eager attention, since flash attention does not run on the CPU, where a model is built.
    """
    was_training = tower.training
    tower.eval()
    try:
        with torch.no_grad(), _eager_attention(tower):
            yield
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{tower_name(tower)} is no {role}: given {given}, it fails with {type(error).__name__}: {error}. "
            "modeling_lumbarclip/README.md lists towers that were tested."
        ) from error
    finally:
        tower.train(was_training)


def padding_last(tokens: Tensor, attention_mask: Tensor, back: bool = False) -> Tensor:
    """Move the padding before each text behind it, (U, T, ...): towers count positions from the first token on.

    Texts without padding before them stay as they are. `back` undoes it.

    Example:
        >>> padding_last(torch.tensor([[0, 0, 7, 8], [7, 8, 9, 0]]), torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]]))
        tensor([[7, 8, 0, 0],
                [7, 8, 9, 0]])
    """
    start = attention_mask.int().argmax(dim=1, keepdim=True)
    place = torch.arange(tokens.shape[1], device=tokens.device)[None]
    index = place - start if back else place + start - tokens.shape[1]
    index = torch.where(index < 0, index + tokens.shape[1], index)  # ONNX has no remainder by a dynamic length
    return tokens.gather(1, index.view(*index.shape, *[1] * (tokens.ndim - 2)).expand_as(tokens))


def pooled_text(hidden: Tensor, attention_mask: Tensor, pooling: str) -> Tensor:
    """Pool the last hidden states of texts (U, T, d_T) to (U, d_T).

    Args:
        hidden: Shape (U, T, d_T).
        attention_mask: 1 for tokens, 0 for padding on either side. Shape (U, T).
        pooling: `cls`: the first token; `last`: the last one; `mean`: the mean over all of them.
    """
    weights = attention_mask.to(hidden)[..., None]  # (U, T, 1)
    if pooling == "mean":
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
    places = attention_mask.int()
    if pooling == "last":
        places = places * torch.arange(1, hidden.shape[1] + 1, device=hidden.device, dtype=torch.int32)
    index = places.argmax(dim=1)[:, None, None]
    return hidden.gather(1, index.expand(-1, 1, hidden.shape[2]))[:, 0]


def inner_tokens(attention_mask: Tensor, input_ids: Tensor | None = None, special_tokens: Sequence[int] = ()) -> Tensor:
    """Mark the tokens of words, (U, T): all but padding and special tokens.

    Without special tokens, those are the first and last of each text, as [CLS] and [SEP] of BERT.

    Example:
        >>> inner_tokens(torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])).int()
        tensor([[0, 1, 1, 0],
                [0, 1, 0, 0]], dtype=torch.int32)
    """
    mask = attention_mask.bool()
    if input_ids is not None and special_tokens:
        return mask & ~torch.isin(input_ids, torch.tensor(special_tokens, device=input_ids.device))
    position = attention_mask.cumsum(dim=1)
    return mask & (position > 1) & (position < position[:, -1:])


def special_tokens(tower: PreTrainedModel) -> list[int]:
    """List the tokens that start and end a text, where the tower's configuration knows them; BERT's does not."""
    ids = [getattr(tower.config, f"{name}_token_id", None) for name in ("bos", "eos", "cls", "sep")]
    flat = [token for given in ids for token in (given if isinstance(given, list) else [given])]
    return sorted({token for token in flat if token is not None})


def hidden_width(tower: PreTrainedModel) -> int:
    """Return the width of the hidden states of a text tower, by one forward pass.

    Raises:
        ValueError: If the tower does not run on tokens.
    """
    return _hidden_states(tower, [[_word_tokens(tower)[0]] * 2]).shape[-1]


def check_text_pooling(tower: PreTrainedModel, pooling: str) -> None:
    """Raise ValueError if two texts get one embedding: the first token of a causal tower sees no other.

    Logs a warning if padding changes an embedding: such a tower, as FNet, does not look at the mask.
    """
    if tower.device.type == "meta":
        return
    word, other = _word_tokens(tower)
    padded, alone = (
        _hidden_states(tower, [[word, other, word, word]], num_tokens=2),
        _hidden_states(tower, [[word, other]]),
    )
    if (padded[:, :2] - alone).norm() > 0.01 * alone.norm():
        logger.warning(
            f"{tower_name(tower)} does not look at the attention mask: the embedding of a text depends on the texts it "
            "is padded with. Pad all texts to one length (text_kwargs={'padding': 'max_length'}) or use another tower."
        )
    # Equal in their first token, and different in the others.
    hidden = _hidden_states(tower, [[word, word, word, word], [word, other, other, word]])
    one, two = pooled_text(hidden, torch.ones(hidden.shape[:2], device=hidden.device), pooling).float()
    if (one - two).norm() > 1e-6 * one.norm():
        return
    if pooling == "cls":
        raise ValueError(
            f"{tower_name(tower)} gives two texts one embedding with text_pooling='cls': the first token of a causal "
            "tower sees no other. Use text_pooling='last', the end of the text (--text_pooling last), or 'mean'."
        )
    raise ValueError(f"{tower_name(tower)} gives two texts one embedding. Are its weights those of a trained encoder?")


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
        _hidden_states(tower, [[_word_tokens(tower)[0]] * num_tokens])
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
        elif func is aten.gather.default and args[1] % args[0].ndim != args[0].ndim - 1:
            # Along the last dimension lie no positions: DeBERTa picks distances there, which repeat in long texts.
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


def _hidden_states(tower: PreTrainedModel, token_ids: list[list[int]], num_tokens: int | None = None) -> Tensor:
    """Return the last hidden states (U, T, d_T) of texts; what follows `num_tokens` is padding."""
    input_ids = torch.tensor(token_ids, device=tower.device)
    # On the meta device a mask cannot be looked into.
    mask = {} if input_ids.is_meta else {"attention_mask": torch.ones_like(input_ids)}
    if mask and num_tokens is not None:
        mask["attention_mask"][:, num_tokens:] = 0
    with evaluating(tower, "text tower", "tokens and their mask"):
        return tower(input_ids=input_ids, **mask, return_dict=True).last_hidden_state


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
    tower_class: Any = TimmTower if config.model_type == "timm_wrapper" else AutoModel
    try:
        return tower_class.from_pretrained(
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
