"""Record the files of a checkpoint, and find which file, tensor or field has changed."""

import fnmatch
import hashlib
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers.utils import CONFIG_NAME

import modeling_lumbarclip

# May be written after the checkpoint: the card is edited on the Hub, and no output depends on it.
FREE_FILES = ("README.md",)
# What transformers may read from a folder: a file of these names that was not recorded can change what is loaded.
READ_WHEN_LOADING = (
    *("*.py", "*.safetensors", "*.bin", "*.index.json", "*config.json"),
    *("tokenizer*.json", "*tokens*.json", "vocab*", "merges.txt", "chat_template*"),
)
MAX_ENTRIES = 100  # larger JSON objects and arrays, such as a vocabulary, count as one field
MAX_CHARACTERS = 200  # of longer JSON values only the digest is kept


@dataclass(frozen=True)
class Drift:
    """A difference between a checkpoint and its record.

    `what` is kind and name: `file`, `tensor vision_model.norm.weight`, `field image_processor.image_mean`,
    `input pixel_values`, `output image_embeds`, `package torch`.
    """

    what: str
    file: str  # relative to the folder; empty for a package
    detail: str  # before and after


def record_files(folder: Path, left_out: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """Record every file of a checkpoint by relative path, except hidden ones, the model card, and those `left_out`."""
    return {name: record_file(folder / name) for name in _file_names(folder) if name not in (*FREE_FILES, *left_out)}


def record_file(path: Path) -> dict[str, Any]:
    """Record a file: `bytes`, `sha256` and, for weights and JSON, `tensors` or `fields` by name.

    The digest of the whole file finds any change; those of the parts only name it.
    """
    record = {"bytes": path.stat().st_size, "sha256": _sha256_of_file(path)}
    if path.suffix == ".safetensors":
        return {**record, "tensors": dict(_tensor_digests(path))}
    if path.suffix == ".json":
        return {**record, "fields": dict(json_fields(json.loads(path.read_text(encoding="utf-8"))))}
    return record


def check_records(recorded: Any) -> None:
    """Raise `TypeError` unless what was read has the form of `record_files`, and names files inside the folder."""
    if not isinstance(recorded, dict):
        raise TypeError(f"the records are {_shown(recorded)[:100]}")
    for name, record in recorded.items():
        is_record = isinstance(record, dict) and type(record.get("bytes")) is int and "sha256" in record
        if not is_record or any(not isinstance(record.get(kind, {}), dict) for kind in ("tensors", "fields")):
            raise TypeError(f"the record of {name!r} is {_shown(record)[:100]}")
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise TypeError(f"{name!r} is not in the folder")


def compare_files(folder: Path, recorded: dict[str, dict[str, Any]]) -> list[Drift]:
    """List what has changed since `record_files`: files that are missing or unreadable, and tensors and fields.

    Rewriting the same weights or JSON in another layout is not a change.
    """
    return [drift for name, record in recorded.items() for drift in _compare_file(folder, name, record)]


def unrecorded_files(folder: Path, recorded: dict[str, dict[str, Any]]) -> list[str]:
    """List files added after the checkpoint was written that loading may read."""
    return [
        name
        for name in added_files(folder, recorded)
        if any(fnmatch.fnmatch(name, pattern) for pattern in READ_WHEN_LOADING)
    ]


def added_files(folder: Path, recorded: Collection[str]) -> list[str]:
    """List all files added after the checkpoint was written, except hidden ones and the model card."""
    return [name for name in _file_names(folder) if name not in (*FREE_FILES, *recorded)]


def other_code(folder: Path) -> list[str]:
    """List the Python files in a folder that differ from those of the installed package, by name."""
    installed = Path(str(modeling_lumbarclip.__file__)).parent
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.py"))
    return [
        name
        for name in names
        if not (installed / name).is_file() or _sha256_of_file(installed / name) != _sha256_of_file(folder / name)
    ]


def json_fields(content: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """List the values of a JSON document under dotted names.

    A long value, such as a vocabulary, is replaced by its digest.

    Example:
        >>> dict(json_fields({"image_processor": {"image_mean": [0.5, 0.5], "do_resize": True}}))
        {'image_processor.image_mean': [0.5, 0.5], 'image_processor.do_resize': True}
    """
    entries: list[tuple[Any, Any]] = []
    if isinstance(content, dict):
        entries = list(content.items())
    elif isinstance(content, list) and any(isinstance(entry, dict) for entry in content):
        entries = list(enumerate(content))
    if 0 < len(entries) <= MAX_ENTRIES:
        for key, value in entries:
            yield from json_fields(value, f"{name}.{key}" if name else str(key))
        return
    text = json.dumps(content, ensure_ascii=False, sort_keys=True)
    if len(text) > MAX_CHARACTERS:
        yield name, {"entries": len(content), "sha256": hashlib.sha256(text.encode()).hexdigest()}
    else:
        yield name, content


def check_not_parent_of_checkpoint(folder: Path) -> None:
    """Raise `ValueError` if a folder, such as that of a run, has no config but contains a checkpoint; name that one."""
    if (folder / CONFIG_NAME).exists():
        return
    if inside := sorted(config.parent for config in folder.glob(f"*/{CONFIG_NAME}")):
        raise ValueError(f"{folder} is not a checkpoint: it has no {CONFIG_NAME}. Did you mean {inside[0]}?")


def _compare_file(folder: Path, name: str, record: dict[str, Any]) -> list[Drift]:
    path = folder / name
    if not path.is_file():
        return [Drift("file", name, "is missing")]
    size = path.stat().st_size
    if size == record["bytes"] and _sha256_of_file(path) == record["sha256"]:
        return []
    sizes = f"{size:,} bytes" if size == record["bytes"] else f"{record['bytes']:,} bytes when recorded, {size:,} now"
    try:
        now = record_file(path)
    except (SafetensorError, ValueError, RecursionError, OSError) as error:  # ValueError: not JSON, or not UTF-8
        return [Drift("file", name, f"cannot be read; {sizes}: cut off or overwritten ({error})")]
    for parts, kind in (("tensors", "tensor"), ("fields", "field")):
        if parts in record:
            return _compare_parts(name, kind, record[parts], now[parts])
    return [Drift("file", name, f"other content; {sizes}")]


def _compare_parts(file: str, kind: str, recorded: dict[str, Any], now: dict[str, Any]) -> list[Drift]:
    drifts = []
    for name in sorted(recorded.keys() | now.keys()):
        if name not in now:
            detail = "is missing"
        elif name not in recorded:
            detail = "is new"
        elif recorded[name] == now[name]:
            continue
        elif _is_digest(recorded[name]) and _is_digest(now[name]):
            detail = _compare_digests(recorded[name], now[name])
        else:
            detail = f"{_shown(recorded[name])} when recorded, {_shown(now[name])} now"
        drifts.append(Drift(f"{kind} {name}", file, detail))
    return drifts


def _compare_digests(recorded: dict[str, Any], now: dict[str, Any]) -> str:
    measures = [name for name in recorded.keys() & now.keys() - {"sha256"} if recorded[name] != now[name]]
    changes = [f"{name} {recorded[name]} when recorded, {now[name]} now" for name in sorted(measures)]
    return "; ".join(changes) or "other values"


def _is_digest(value: Any) -> bool:
    return isinstance(value, dict) and "sha256" in value


def _shown(value: Any) -> str:
    return f"{value.get('entries')} entries" if _is_digest(value) else json.dumps(value, ensure_ascii=False)


def _tensor_digests(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with safe_open(path, framework="pt") as weights:
        for name in weights.keys():  # noqa: SIM118 - a file, not a dict
            tensor = weights.get_tensor(name)
            values = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
            dtype = str(tensor.dtype).removeprefix("torch.")
            yield name, {"dtype": dtype, "shape": list(tensor.shape), "sha256": hashlib.sha256(values).hexdigest()}


def _sha256_of_file(path: Path) -> str:
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _file_names(folder: Path) -> list[str]:
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    is_hidden = re.compile(r"\.|__pycache__$").match
    return sorted(name.as_posix() for name in names if not any(map(is_hidden, name.parts)))
