"""Write a file or a folder whole, or not at all."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def unfinished_file(path: Path) -> Iterator[Path]:
    """Yield a hidden name next to `path` to write to; rename it when the `with` block succeeds, else remove it."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        yield unfinished
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with unfinished_file(path) as unfinished:
        unfinished.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_private_json(path: Path, content: Any) -> None:
    """Write a JSON file whole or not at all, which only its owner can read, at no moment anyone else.

    File names may contain bytes that are not text; JSON escapes them.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    with unfinished_file(path) as unfinished:
        unfinished.unlink(missing_ok=True)  # left by a killed process, perhaps readable by others
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(text.encode(errors="backslashreplace"))


def write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write into a hidden folder, and rename that to `folder`, replacing it, when it is complete."""
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        fill(unfinished)
    except Exception:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    replaced = folder.with_name(f".{folder.name}.replaced")
    if folder.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        folder.rename(replaced)
    unfinished.rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)
