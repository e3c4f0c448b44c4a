"""Write a file or a folder whole, or not at all; read a JSON file that may be damaged."""

import json
import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator
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
    except BaseException as error:
        unfinished.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a failed write does not say where
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with unfinished_file(path) as unfinished:
        unfinished.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 text file whole or not at all; bytes of a file name that are not UTF-8 are escaped."""
    write_bytes(path, content.encode(errors="backslashreplace"))


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_bytes(path, _json_bytes(content))


def write_private_json(path: Path, content: Any) -> None:
    """Write a JSON file whole or not at all; at no moment can anyone but its owner read it."""
    with unfinished_file(path) as unfinished:
        unfinished.unlink(missing_ok=True)  # left by a killed process, perhaps readable by others
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(_json_bytes(content))


def _json_bytes(content: Any) -> bytes:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    return text.encode(errors="backslashreplace")  # a file name may contain bytes that are not UTF-8


def read_json(path: Path, way_out: str, keys: Collection[str] = ()) -> dict[str, Any]:
    """Read a file that holds a JSON object with these keys, perhaps among others.

    Raises:
        ValueError: If it holds anything else; the message names the file and ends in `way_out`.
        OSError: If it cannot be opened.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # ValueError: not JSON, or not UTF-8
        raise ValueError(f"{path} cannot be read ({error}): it was cut off or edited. {way_out}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} cannot be read (a {type(content).__name__}, not an object). {way_out}")
    if missing := set(keys) - content.keys():
        raise ValueError(f"{path} lacks {', '.join(sorted(missing))}. {way_out}")
    return content


def follow_umask(path: Path) -> None:
    """Give a file, or all files in a folder, the permissions that the process gives new files.

    safetensors writes files that only their owner can read, whatever the umask, and copies keep their permissions.
    """
    probe = (path if path.is_dir() else path.parent) / ".permissions.unfinished"
    probe.unlink(missing_ok=True)  # left by a killed process
    probe.touch()  # asking for the umask would change it, for all threads
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file() and not file.is_symlink() and stat.S_IMODE(file.stat().st_mode) != mode:
            file.chmod(mode)


def write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write into a hidden folder, and rename that to `folder`, replacing it, when it is complete.

    Its files get the permissions of new files: no private one belongs in it.
    """
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    replaced = folder.with_name(f".{folder.name}.replaced")
    if replaced.exists() and not folder.exists():
        replaced.rename(folder)  # killed between the two renames below
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        fill(unfinished)
        follow_umask(unfinished)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    if folder.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        folder.rename(replaced)
    unfinished.rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)
