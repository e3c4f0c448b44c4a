"""One process per output; and the hidden folder where an output grows until complete, and resumes after a kill."""

import errno
import logging
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

_LOGGER = logging.getLogger(__name__)
LOCK_NAME = "lock"
HIDDEN_LOCK_NAME = ".lock"  # in a folder that others read
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
    lock = _acquired(folder / LOCK_NAME, f"another build of --out {out} is running")
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


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Lock a folder in which files appear one by one; make it if missing, and remove it if it stays empty.

    Raises:
        ValueError: If another process writes to it.
    """
    new_folders = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    lock = _acquired(folder / HIDDEN_LOCK_NAME, f"another process is writing to {folder}")
    try:
        yield
    finally:
        (folder / HIDDEN_LOCK_NAME).unlink(missing_ok=True)  # while held: nobody gets the lock of a deleted file
        with suppress(OSError):  # not empty
            for path in new_folders:
                path.rmdir()
        lock.release()


def holds_nothing(folder: Path, ignored: Collection[str] = (HIDDEN_LOCK_NAME,)) -> bool:
    """Whether a folder holds nothing but `ignored` files, by default its lock."""
    return folder.is_dir() and all(path.name in ignored for path in folder.iterdir())


def _acquired(path: Path, holder: str) -> FileLock:
    lock = FileLock(path, blocking=False)  # the system frees it however its holder dies
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(f"{holder}; wait for it, or choose another folder") from None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP):
            raise
        _LOGGER.warning("%s cannot be locked (%s): start no second process on it.", path.parent, error.strerror)
    return lock


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
