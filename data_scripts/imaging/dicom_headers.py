"""The headers of many DICOM files, read by several processes."""

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain
from pathlib import Path

from tqdm.auto import tqdm

from data_scripts.imaging.dicom import SliceHeader, read_headers
from data_scripts.imaging.images import UnusableImageError

# Read by this process alone: other processes take as long to start as it needs for these.
NUM_READ_HERE = 2048

_CHUNK_FILES = 64
_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"

HeadersOrError = list[SliceHeader] | UnusableImageError


def read_all_headers(paths: Sequence[Path], num_proc: int = 1) -> Iterator[HeadersOrError]:
    """Read the headers of each file, in order.

    Args:
        paths: The files.
        num_proc: Number of processes.

    Yields:
        The header of each frame of a file, or what `read_headers` raises for it.

    Raises:
        ValueError: If one of the processes is killed: memory ran out, or somebody ended it.
    """
    if not paths:
        return
    num_read_here = NUM_READ_HERE if num_proc > 1 else len(paths)
    here = map(_headers_or_error, paths[:num_read_here])
    there = _read_in_pool(paths[num_read_here:], num_proc)
    yield from tqdm(chain(here, there), total=len(paths), desc="headers", unit=" files")


def _read_in_pool(paths: Sequence[Path], num_proc: int) -> Iterator[HeadersOrError]:
    if not paths:
        return
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        num_proc,
        mp_context=multiprocessing.get_context(_METHOD),
        initializer=signal.signal,  # Ctrl-C reaches the whole group; this process ends the others
        initargs=(signal.SIGINT, signal.SIG_IGN),
    )
    try:
        num_read = 0
        for outcome in pool.map(_headers_or_error, paths, chunksize=_CHUNK_FILES):
            yield outcome
            num_read += 1
    except BrokenProcessPool as error:
        # One that was just being started when the pool broke is told nothing, and the pool would wait for it for ever.
        for process in set(multiprocessing.active_children()) - others:
            process.kill()
        raise ValueError(
            f"a process that read DICOM headers was killed, at {paths[num_read]} or a file after it; run the same "
            "command again, with a smaller --num_proc if memory ran out"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _headers_or_error(path: Path) -> HeadersOrError:
    try:
        return read_headers(path)
    except UnusableImageError as error:
        return error
