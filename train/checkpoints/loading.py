"""Load a checkpoint that may come from anyone: with the installed classes, from JSON and safetensors.

Its files are checked before anything is built from them: no code, no pickle, no sizes that fill the memory.
"""

import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from peft.utils import CONFIG_NAME as ADAPTER_CONFIG_NAME
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import nn
from torch.nn.modules import module as torch_module
from transformers import AutoTokenizer
from transformers.utils import (
    CONFIG_NAME,
    IMAGE_PROCESSOR_NAME,
    PROCESSOR_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
)

import modeling_lumbarclip
from data_scripts.system.whole_files import read_json
from train.checkpoints.manifest import check_not_parent_of_checkpoint

# Formats that may run code when they are read.
PICKLE_SUFFIXES = (".bin", ".ckpt", ".h5", ".joblib", ".msgpack", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth")
NOT_DOWNLOADED = [f"*{suffix}" for suffix in (*PICKLE_SUFFIXES, ".gguf", ".onnx", ".ot")]
SETTINGS = ("*config.json", SAFE_WEIGHTS_INDEX_NAME, "*tokens*.json")
READ = (*SETTINGS, "tokenizer.json", "vocab*", "merges.txt", "*.model", "model*.safetensors")
# Fields that make transformers fetch or run something other than the weights of the checkpoint.
NOT_OF_A_CHECKPOINT = (
    *("attn_implementation", "_attn_implementation", "experts_implementation", "configuration_files"),
    *("quantization_config", "transformers_weights", "distributed_config", "fusion_config"),
)
MAX_DEPTH = 50  # of nested JSON; a configuration has about 5
MAX_CHARACTERS = 500  # of a library's reason
# Far above any tower: the deepest have a few hundred layers, the largest vocabulary 900,000 pieces.
MAX_LAYERS, MAX_PIXELS, MAX_WIDTH = 2000, 4096, 2**20
LIMITS = (
    (re.compile(r"layers?$|depths?$"), MAX_LAYERS),
    (re.compile(r"(image|img|feat|input)_size$|^(height|width|shortest_edge|longest_edge)$"), MAX_PIXELS),
    (
        re.compile(r"size|dim|length|heads|chan|position|embed|feature|class|label|tokens|kernel|stride|expert"),
        MAX_WIDTH,
    ),
)
# A model may have more parameters than its weights, in buffers that are not saved, but not many times more.
MAX_RATIO, SPARE_TENSORS, SPARE_VALUES = 4, 1000, 2**26


def find_checkpoint(folder_or_id: str | Path, revision: str | None = None) -> Path:
    """Find the folder of a checkpoint, or download it from the Hub, without files that are not read.

    Args:
        folder_or_id: Checkpoint folder, or Hub id.
        revision: Branch, tag or commit of a Hub id; None: the newest.

    Raises:
        ValueError: If neither such a folder nor such a model exists, or the checkpoint is in a subfolder.
    """
    folder = Path(folder_or_id)
    try:
        if folder.is_dir():
            check_not_parent_of_checkpoint(folder)
            return folder
    except PermissionError as error:
        raise _forbidden(folder / CONFIG_NAME, error) from error
    try:
        return Path(snapshot_download(str(folder_or_id), revision=revision or None, ignore_patterns=NOT_DOWNLOADED))
    except PermissionError as error:  # a cache of another user
        raise _forbidden(Path(error.filename or folder), error) from error
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(f"No checkpoint at {folder_or_id}: neither a folder nor a Hub id. {error}") from error


def load_parts(
    folder: Path,
    model_class: Any,
    processor_class: Any,
    *,
    new: str | tuple[str, ...] = "",
    dtype: Any = None,
    **config_fields: Any,
) -> tuple[Any, Any]:
    """Load model and processor of the installed classes, in evaluation mode.

    Args:
        folder: A folder of `find_checkpoint`.
        model_class: Class of the model.
        processor_class: Class of the processor or image processor.
        new: Prefixes of parameters that may be missing, such as those of a new head.
        dtype: Of the weights; None: as they were saved.
        **config_fields: Fields of the configuration that replace the saved ones.

    Raises:
        ValueError: If a file is missing or damaged, or may not be read; the message names it.
    """
    config = read_config(folder, **config_fields)
    settings = {"use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
    with _reading(folder, CONFIG_NAME), _no_larger_than_its_weights(folder):
        model, found = model_class.from_pretrained(
            folder, config=config, **settings, **({"dtype": dtype} if dtype else {})
        )
    if mismatched := sorted(found["mismatched_keys"]):
        name, saved, built = mismatched[0]
        raise ValueError(
            f"{folder / SAFE_WEIGHTS_NAME} does not fit {CONFIG_NAME}: {name} has the shape {tuple(saved)}, not "
            f"{tuple(built)}. Fetch the checkpoint again."
        )
    if missing := sorted(name for name in found["missing_keys"] if not (new and name.startswith(new))):
        raise ValueError(
            f"The weights in {folder} lack {len(missing)} parameters of the model, such as {missing[0]}. Fetch or save "
            "the checkpoint again."
        )
    processor = load_processor(folder, processor_class)
    if hasattr(processor, "tokenizer"):
        _check_tokens(folder, processor, config.text_config, getattr(model, "text_model", None))
    return model.eval(), processor


def _check_tokens(folder: Path, processor: Any, text_config: Any, text_tower: Any | None) -> None:
    """Raise `ValueError` if the tokenizer gives more than the text tower has embeddings for."""
    from modeling_lumbarclip.towers_lumbarclip import max_text_tokens  # slow, and imported by the model already

    largest_id = max(processor.tokenizer.get_vocab().values())
    if largest_id >= text_config.vocab_size:
        raise ValueError(
            f"{folder / 'tokenizer.json'} has a token {largest_id}, but the text tower embeds only "
            f"{text_config.vocab_size}. Fetch the checkpoint again."
        )
    positions = None if text_tower is None else max_text_tokens(text_tower)  # None: a classifier
    if positions is not None and processor.max_length > positions:
        raise ValueError(
            f"{folder / PROCESSOR_NAME} sets max_length to {processor.max_length}; the text tower has positions for "
            f"{positions} tokens."
        )


def load_processor(folder: Path, processor_class: Any) -> Any:
    """Load a processor or image processor of an installed class; raise `ValueError` naming a file that is damaged."""
    try:
        processor = processor_class.from_pretrained(folder, trust_remote_code=False)
        text = {"text": ["disc"]} if hasattr(processor, "tokenizer") else {}
        image = np.arange(64, dtype=np.uint8).reshape(8, 8)
        processor(images=[image], return_tensors="pt", **text)  # a setting of a wrong type shows only in use
        return processor
    except Exception as error:  # a damaged file makes the libraries raise anything
        raise _unreadable(folder, _damaged_file_of_processor(folder), error) from error


def read_config(folder: Path, **fields: Any) -> Any:
    """Check the files of a checkpoint, and read its `LumbarCLIPConfig`, with other `fields` in place of the saved ones.

    Raises:
        ValueError: If a file is missing or damaged, or may not be read; the message names it.
    """
    saved = check_files(folder)
    with _reading(folder, CONFIG_NAME):
        return modeling_lumbarclip.LumbarCLIPConfig.from_dict({**saved, "name_or_path": str(folder), **fields})


def check_files(folder: Path) -> dict[str, Any]:
    """Check what loading a checkpoint would read, without building anything; return the content of its `config.json`.

    Raises:
        ValueError: If a file is missing or damaged, is not LumbarCLIP's, is a pickle, names code in another repository
            or a size that no model has; the message names it.
    """
    _check_permissions(folder)
    paths = sorted(path for pattern in SETTINGS for path in folder.glob(pattern))
    # macOS adds `._config.json` to copies; nothing reads it.
    settings = {path: read_settings(path) for path in paths if path.is_file() and not path.name.startswith(".")}
    for path, content in settings.items():
        check_references(path, content)
    if folder / CONFIG_NAME not in settings:
        kind = " It has adapters: load the checkpoint they were merged into." if _is_adapter(folder) else ""
        raise ValueError(f"No checkpoint at {folder}: there is no {CONFIG_NAME}.{kind}")
    if _is_adapter(folder):
        raise ValueError(
            f"{folder} has adapters ({ADAPTER_CONFIG_NAME}) next to its weights, which loading would add to them. "
            "Merge them, or move them elsewhere."
        )
    config = settings[folder / CONFIG_NAME]
    if config.get("model_type") != "lumbarclip":
        raise ValueError(
            f"{folder} is not a LumbarCLIP checkpoint: the model_type in its {CONFIG_NAME} is "
            f"{_shown(config.get('model_type'))}, not 'lumbarclip'. Towers go to train/pretrain.py: --vision, --text."
        )
    _check_config(folder / CONFIG_NAME, config)
    for name in (PROCESSOR_NAME, IMAGE_PROCESSOR_NAME):
        _check_sizes(folder / name, "", settings.get(folder / name))
    _check_weights(folder, settings.get(folder / SAFE_WEIGHTS_INDEX_NAME))
    return config


def _check_permissions(folder: Path) -> None:
    """Raise `ValueError` naming a file that this user may not read; the libraries say that it does not exist."""
    path = folder
    try:
        for path in sorted(folder.iterdir()):
            if any(path.match(pattern) for pattern in READ) and path.is_file():
                path.open("rb").close()
    except PermissionError as error:
        raise _forbidden(path, error) from error


def _forbidden(path: Path, error: PermissionError) -> ValueError:
    """Name the file, or the folder on the way to it, that this user may not read, and who can change that."""
    reached = path.absolute()
    while True:
        try:
            status = reached.stat()
            break
        except OSError:
            reached = reached.parent
    try:
        owner = reached.owner()
    except KeyError:  # no name for the number
        owner = f"user {status.st_uid}"
    return ValueError(
        f"{path} cannot be read ({error.strerror}): {reached} is closed to this user ({stat.filemode(status.st_mode)}, "
        f"owner {owner}). Ask its owner for: chmod a+rX {reached}"
    )


def check_references(path: Path, content: Any) -> None:
    """Raise `ValueError` if a JSON file refers to code in another repository."""
    for name, value in json_values(content):
        if re.search(r"(^|\.)(auto_map\b|impl$)", name) and isinstance(value, str) and "--" in value:
            raise ValueError(
                f"{path}: {name} is {_shown(value)}: code in another repository never runs. Only code in the "
                "checkpoint's own folder can."
            )


def read_settings(path: Path) -> dict[str, Any]:
    """Read a JSON object of a checkpoint.

    Raises:
        ValueError: If it cannot be read, holds something else, or is nested too deeply.
    """
    with _reading(path.parent, path.name):
        content = read_json(path, "Fetch the checkpoint again.")
        for _ in json_values(content):  # which checks the depth
            pass
    return content


def json_values(content: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield every value of a JSON document with its dotted name; raise `ValueError` if it is nested too deeply."""
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
    if isinstance(content, dict):
        for key, value in content.items():
            yield from json_values(value, f"{name}.{key}" if name else key, depth + 1)
    elif isinstance(content, list):
        for index, value in enumerate(content):
            yield from json_values(value, f"{name}[{index}]", depth + 1)
    else:
        yield name, content


def _check_config(path: Path, config: dict[str, Any]) -> None:
    for name, value in json_values(config):
        field = next((key for key in re.split(r"\W", name) if key in NOT_OF_A_CHECKPOINT), None)
        if field and value is not None:
            raise ValueError(f"{path} sets {field}, which no LumbarCLIP checkpoint has. Remove it, or fetch another.")
    for name in config.keys() - {"calibration", "scope"}:  # which count rows and patients
        _check_sizes(path, name, config[name])


def _check_sizes(path: Path, name: str, content: Any) -> None:
    for field, value in json_values(content, name):
        if not isinstance(value, int):
            continue
        key = re.sub(r"(\[\d+\])+$", "", field).rpartition(".")[2]
        limit = next((limit for pattern, limit in LIMITS if pattern.search(key)), None)
        if limit is not None and abs(value) > limit:
            raise ValueError(f"{path} sets {field} to {_shown(value)}; at most {limit:,} is possible.")
        if value < 0 and key.startswith("num_"):
            raise ValueError(f"{path} sets {field} to {value}, which counts something.")


def _check_weights(folder: Path, index: dict[str, Any] | None) -> None:
    if (folder / SAFE_WEIGHTS_NAME).is_file():
        return
    if index is None:
        names = [path.name for path in folder.iterdir()] + _files_on_hub(folder)
        pickles = sorted({name for name in names if Path(name).suffix in PICKLE_SUFFIXES})
        found = f" Not read, since reading may run code: {', '.join(pickles[:3])}." if pickles else ""
        raise ValueError(
            f"{folder} has no {SAFE_WEIGHTS_NAME}.{found} If you trust the weights, convert them: "
            "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'model.safetensors', {'format': 'pt'})."
        )
    shards = index.get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ValueError(f"{folder / SAFE_WEIGHTS_INDEX_NAME} has no weight_map. Fetch the checkpoint again.")
    for shard in shards.values():
        if not isinstance(shard, str) or not re.fullmatch(r"[\w.-]+\.safetensors", shard):
            raise ValueError(
                f"{folder / SAFE_WEIGHTS_INDEX_NAME} names {_shown(shard)}: weights are read from safetensors files in "
                "the checkpoint's own folder."
            )
        if not (folder / shard).is_file():
            raise ValueError(f"{folder / shard} is missing. Fetch the checkpoint again.")


def _files_on_hub(snapshot: Path) -> list[str]:
    """List the files of a Hub model, those not downloaded to its cache included."""
    with suppress(Exception):  # offline, or a folder of another layout
        _, _, name = snapshot.parents[1].name.partition("--")
        return HfApi().list_repo_files(name.replace("--", "/"), revision=snapshot.name)
    return []


@contextmanager
def _no_larger_than_its_weights(folder: Path) -> Iterator[None]:
    """Raise `ValueError` as soon as a model being built has many times the parameters of its weights."""
    tensors, values = _size_of_weights(folder)
    most_tensors, most_values = MAX_RATIO * tensors + SPARE_TENSORS, MAX_RATIO * values + SPARE_VALUES
    built = {"tensors": 0, "values": 0}

    def count(_module: nn.Module, _name: str, tensor: Any) -> None:
        built["tensors"] += 1
        built["values"] += 0 if tensor is None else tensor.numel()
        if built["tensors"] > most_tensors or built["values"] > most_values:
            raise ValueError(
                f"{folder / CONFIG_NAME} describes a larger model than the weights hold: at least {built['tensors']:,} "
                f"tensors with {built['values']:,} values; {SAFE_WEIGHTS_NAME} has {tensors:,} with {values:,}."
            )

    hooks = [
        torch_module.register_module_parameter_registration_hook(count),
        torch_module.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _size_of_weights(folder: Path) -> tuple[int, int]:
    """Count the tensors in the weights, and their values."""
    path, shards = folder / SAFE_WEIGHTS_NAME, [SAFE_WEIGHTS_NAME]
    if not path.is_file():
        shards = sorted(set(read_settings(folder / SAFE_WEIGHTS_INDEX_NAME)["weight_map"].values()))
    shapes = []
    for shard in shards:
        with _reading(folder, shard), safe_open(folder / shard, framework="pt") as weights:
            shapes += [weights.get_slice(name).get_shape() for name in weights.keys()]  # noqa: SIM118 - a file
    return len(shapes), sum(_product(shape) for shape in shapes)


def _product(shape: list[int]) -> int:
    values = 1
    for length in shape:
        values *= length
    return values


@contextmanager
def _reading(folder: Path, name: str) -> Iterator[None]:
    """Turn whatever a library raises about a file of a checkpoint into a `ValueError` that names the file."""
    try:
        yield
    except Exception as error:  # a damaged file makes the libraries raise anything
        if isinstance(error, ValueError) and str(error).startswith((str(folder), name)):
            raise  # it names the file already
        raise _unreadable(folder, name, error) from error


def _unreadable(folder: Path, name: str, error: BaseException) -> ValueError:
    reason = " ".join(str(error).split())
    reason = f"{reason[:MAX_CHARACTERS]} ..." if len(reason) > MAX_CHARACTERS else reason
    if isinstance(error, SafetensorError):
        name = name if name.endswith(".safetensors") else SAFE_WEIGHTS_NAME
        return ValueError(f"{folder / name} is incomplete ({reason}): a copy or download was cut off. Fetch it again.")
    if "trust_remote_code=True" in reason:
        return ValueError(f"{folder / name} names a class that is code of the checkpoint, which never runs here.")
    if isinstance(error, ValueError) and reason.endswith("."):  # a sentence of ours
        return ValueError(f"{folder / name}: {reason}")
    kind = "" if isinstance(error, ValueError | OSError) and reason else f"{type(error).__name__}: "
    return ValueError(f"{folder / name} cannot be read ({kind}{reason}). Fetch it again.")


def _damaged_file_of_processor(folder: Path) -> str:
    """Name the file that no processor can be made from."""
    named = PROCESSOR_NAME if (folder / PROCESSOR_NAME).exists() else IMAGE_PROCESSOR_NAME
    if not (folder / "tokenizer_config.json").exists() and not (folder / "tokenizer.json").exists():
        return named
    try:
        Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception:  # the library raises no narrower one
        return "tokenizer.json"
    try:
        AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception:  # as above
        return "tokenizer_config.json"
    return named


def _is_adapter(folder: Path) -> bool:
    return (folder / ADAPTER_CONFIG_NAME).exists()


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:80]}..."
