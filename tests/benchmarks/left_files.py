"""Compare what a command left with what an undisturbed run left, for `robustness.py`."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from safetensors.numpy import load_file

from data_scripts.system.command_line import FAILED

# Differs between two undisturbed runs: when, how fast, by which command.
VOLATILE = re.compile(r"date|.*seconds.*|.*_per_second.*|command|resume|python")


def content_of(path: Path) -> dict[str, str]:
    """The numbers and texts of a file by their place in it, without dates, times and speeds; raises if damaged."""
    match path.suffix:
        case ".json":
            return leaves(json.loads(path.read_text()))
        case ".jsonl":
            return leaves([json.loads(line) for line in path.read_text().splitlines()])
        case ".safetensors":
            return {name: f"{a.dtype} {a.shape} {digest(a.tobytes())}" for name, a in load_file(path).items()}
        case ".parquet":
            table = pq.read_table(path)
            return {name: digest(repr(table[name].to_pylist()).encode()) for name in table.column_names}
        case ".md" | ".html" | ".png":  # made from the numbers, with their dates
            return {"": "something" if path.stat().st_size else "nothing"}
    return {"": digest(path.read_bytes())}


def leaves(value: Any, place: str = "") -> dict[str, str]:
    if isinstance(value, dict):
        items = [(f"{place}.{key}", item) for key, item in value.items() if not VOLATILE.fullmatch(key)]
    elif isinstance(value, list):
        items = [(f"{place}[{index}]", item) for index, item in enumerate(value)]
    else:
        return {place: repr(value)}
    return {place: leaf for inner, item in items for place, leaf in leaves(item, inner).items()}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def files_below(folder: Path, *names: str) -> set[str]:
    """The files with these final names, relative to the folder; a name may be a file, a folder or a pattern."""
    paths = [path for name in names for found in folder.glob(name) for path in (found, *found.rglob("*"))]
    return {path.relative_to(folder).as_posix() for path in paths if path.is_file()}


def half_written(folder: Path, outputs: Sequence[str], undisturbed: Path) -> list[str]:
    """What is neither absent nor complete: readable, with all files of the undisturbed run."""
    problems = []
    for name in outputs:
        found = files_below(folder, name)
        if (folder / name).exists() and (lacking := files_below(undisturbed, name) - found):
            problems.append(f"half-written: {name} lacks {', '.join(sorted(lacking)[:3])}")
        for file in sorted(found):
            try:
                content_of(folder / file)
            except Exception as error:
                problems.append(f"half-written: {file}: {type(error).__name__}: {error}")
    return problems


def differences(folder: Path, compared: Sequence[str], undisturbed: Path) -> list[str]:
    """How the outputs of a command differ from an undisturbed run's; of other files only the names must be the same."""
    found, expected = (files_below(where, *compared) for where in (folder, undisturbed))
    problems = [f"{name} is missing" for name in sorted(expected - found)]
    for name in sorted(expected & found):
        before, after = content_of(undisturbed / name), content_of(folder / name)
        if changed := [place for place in before.keys() | after.keys() if before.get(place) != after.get(place)]:
            place = min(changed)
            problems.append(
                f"{name}: {len(changed)} values differ, such as {place.lstrip('.')}: {before.get(place)} undisturbed, "
                f"{after.get(place)} here"
            )
    added = files_below(folder, "*") - files_below(undisturbed, "*")
    # `features/` is a cache.
    return problems + [f"left over: {path}" for path in sorted(added) if "/features/" not in path][:3]


def refusal_problems(code: int, log: Path, system_errors: bool = True) -> list[str]:
    """Why an exit is not a one-line error for the user; with `system_errors`, it may quote `[Errno 28]`."""
    lines = Path(f"{log}.err").read_text(errors="replace").replace("\r", "\n").splitlines()
    lines = [line for line in lines if line.strip() and "%|" not in line]  # without progress bars
    if code == FAILED and lines and lines[-1].startswith("error: ") and (system_errors or "Errno" not in lines[-1]):
        return []
    return [f"exit code {code}, not {FAILED} with one line: {' / '.join(lines[-2:])[-300:]}"]


def tail_of(log: Path) -> str:
    return Path(f"{log}.err").read_text(errors="replace")[-300:].strip()
