"""Describe a disk error in one line: which path, why, and how much room is left."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a full disk, a quota, `ulimit -f`
# How libraries quote the system in their own errors: Arrow and Python, and Rust (safetensors).
_QUOTED = re.compile(r"\[errno (\d+)\]|\(os error (\d+)\)", re.IGNORECASE)
_TORCH_SAVE = ("iostream error", "unexpected pos")  # all that torch.save says when a write fails
_DATASETS = "Not enough disk space"  # what `datasets` says before it writes
_OUTPUTS = ("out", "output_dir", "run")


def disk_error(error: BaseException) -> str | None:
    """Describe a disk error, even one that a library has wrapped; None for any other error."""
    found = next((of_system for one in _chain(error) if (of_system := _of_system(one)) is not None), None)
    if found is None:
        return None
    paths = " -> ".join(
        os.fsdecode(path) for path in (found.filename, found.filename2) if isinstance(path, str | bytes)
    )
    reason = os.strerror(found.errno) if found.errno else found.strerror
    return f"{paths}: {reason}" if paths else reason


def is_disk_full(error: BaseException) -> bool:
    """Whether an error means that there is no room, on the disk or in a quota."""
    return full_disk_error(error) is not None


def full_disk_error(error: BaseException) -> OSError | None:
    """Find the full-disk error that an error stems from, or that was being handled; None if there is none."""
    for one in _chain(error, with_context=True):
        of_system = _of_system(one)
        if of_system is not None and of_system.errno in NO_ROOM:
            return of_system
        if isinstance(one, RuntimeError) and any(words in str(one) for words in _TORCH_SAVE):
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return None


def full_disk_in_words(error: OSError, settings: Any) -> str:
    """Say which folder has no room, how much is free there, and the way out.

    The folder is one that a command with these settings writes to: on the same disk as the file that the error names,
    else the fullest.
    """
    folders = [folder for folder in map(_nearest, _written_folders(settings)) if os.access(folder, os.W_OK)]
    written = error.filename if error.filename2 is None else error.filename2  # the second is the copy
    if isinstance(written, str):
        failed = _nearest(Path(written).parent)
        folders = [folder for folder in folders if folder.stat().st_dev == failed.stat().st_dev][:1] or [failed]
    folder = min(folders or [Path()], key=lambda folder: shutil.disk_usage(folder).free)
    stats, reason = os.statvfs(folder), os.strerror(error.errno or errno.ENOSPC)
    free_mb = stats.f_bavail * stats.f_frsize / 1e6
    inodes = ", but no inodes" if stats.f_files and not stats.f_favail else ""
    return (
        f"Cannot write to {folder}: {reason} ({free_mb:,.1f} MB free on its disk{inodes}). Make room, and rerun "
        "the same command."
    )


def _chain(error: BaseException, with_context: bool = False) -> Iterator[BaseException]:
    """List an error, its cause, the cause of that, and so on; with context, also what was being handled."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (current.__context__ if with_context else None)


def _of_system(error: BaseException) -> OSError | None:
    """Return the system's error that this one is, or quotes in its text or notes (a worker's traceback)."""
    if isinstance(error, OSError) and error.errno is not None:
        return error
    if isinstance(error, OSError) and str(error).startswith(_DATASETS):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for text in (str(error), *getattr(error, "__notes__", ())):
        if quoted := _QUOTED.search(text):
            number = int(quoted[1] or quoted[2])
            return OSError(number, os.strerror(number))
    return None


def _written_folders(settings: Any) -> Iterator[Path]:
    values = vars(settings) if settings is not None else {}
    for name in sorted(values, key=lambda name: name not in _OUTPUTS):
        if isinstance(values[name], str | Path) and str(values[name]):
            yield Path(values[name])
    caches = ("HF_DATASETS_CACHE", "HF_MODULES_CACHE", "HF_HOME")
    yield from (Path(os.environ[cache]) for cache in caches if cache in os.environ)
    yield from (Path.home() / ".cache", Path(tempfile.gettempdir()), Path())
    if (printed := Path("/dev/stdout").resolve()).is_file():
        yield printed.parent


def _nearest(path: Path) -> Path:
    """Return the folder, or its nearest parent that exists."""
    folders = (folder for folder in (path, *path.absolute().parents) if folder.is_dir())
    return next(folders, Path())
