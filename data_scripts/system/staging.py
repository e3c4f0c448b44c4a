"""The hidden folder in which a build grows until it is complete, and from which an interrupted one resumes."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

LOCK_NAME = "lock"
EARLIER_NAME = "earlier"
_REPLACED_NAME = "replaced"


def staging_path(out: Path) -> Path:
    """Return the folder next to `out` in which it is built.

    Example:
        >>> staging_path(Path("data/my_study")).as_posix()
        'data/.my_study.partial'
    """
    return out.parent / f".{out.name}.partial"


@contextmanager
def staging_folder(out: Path) -> Iterator[Path]:
    """Lock and yield the folder in which `out` is built. It is kept only if something is in it.

    Raises:
        ValueError: If another build of `out` is running.
    """
    folder = staging_path(out)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK_NAME, blocking=False)  # the system frees it however its holder dies
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"another build of --out {out} is running; wait for it, or choose another folder") from None
    try:
        if out.exists():
            _remove_earlier(folder)  # killed in `publish`, after the new one got its name
        elif (folder / EARLIER_NAME).exists():
            (folder / EARLIER_NAME).rename(out)  # killed between the two renames of `publish`
        yield folder
    finally:
        if folder.exists() and [path.name for path in folder.iterdir()] == [LOCK_NAME]:
            clear(folder)
        lock.release()


def clear(folder: Path) -> None:
    """Remove a staging folder and its content; its lock stays held until released."""
    shutil.rmtree(folder)


def publish(dataset: Path, out: Path, folder: Path) -> None:
    """Move a finished dataset from its staging folder to its place; an earlier one is removed only after that."""
    if out.exists():
        out.rename(folder / EARLIER_NAME)
    dataset.rename(out)
    _remove_earlier(folder)
    clear(folder)


def _remove_earlier(folder: Path) -> None:
    """Remove the earlier output under another name: a half-deleted one must never be restored."""
    earlier, replaced = folder / EARLIER_NAME, folder / _REPLACED_NAME
    if replaced.exists():
        shutil.rmtree(replaced)
    if earlier.exists():
        shutil.rmtree(earlier.rename(replaced))
