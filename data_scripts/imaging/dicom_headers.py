"""The headers of many DICOM files, read by several processes."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from tqdm.auto import tqdm

from data_scripts.imaging.dicom import SliceHeader, read_headers
from data_scripts.imaging.images import UnusableImageError
from data_scripts.system.worker_pool import Crash, Workers

# Read by this process alone: other processes take as long to start as it needs for these.
NUM_READ_HERE = 2048

HeadersOrError = list[SliceHeader] | UnusableImageError


def read_all_headers(paths: Sequence[Path], num_proc: int = 1) -> Iterator[HeadersOrError]:
    """Read the headers of each file, in order.

    Args:
        paths: The files.
        num_proc: Number of processes.

    Yields:
        The header of each frame of a file, or what `read_headers` raises for it.
    """
    if not paths:
        return
    num_read_here = NUM_READ_HERE if num_proc > 1 else len(paths)
    here = map(_headers_or_error, paths[:num_read_here])
    there = _read_in_workers(paths[num_read_here:], num_proc)
    yield from tqdm(chain(here, there), total=len(paths), desc="headers", unit=" files")


def _read_in_workers(paths: Sequence[Path], num_proc: int) -> Iterator[HeadersOrError]:
    if paths:
        with Workers(num_proc, preload=(__name__,)) as workers:
            for outcome in workers.map(_headers_or_error, paths):
                yield UnusableImageError(outcome.reason) if isinstance(outcome, Crash) else outcome


def _headers_or_error(path: Path) -> HeadersOrError:
    try:
        return read_headers(path)
    except UnusableImageError as error:
        return error
