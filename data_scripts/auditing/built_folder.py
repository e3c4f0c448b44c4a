"""A built dataset as its files are now: `load_dataset` alone may give the rows of an earlier load."""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import datasets
from datasets.exceptions import DatasetsError

from data_scripts.lumbar_builder import DATA_FOLDER


@contextmanager
def opened_afresh(folder: Path) -> Iterator[datasets.DatasetDict]:
    """Load a dataset from its files.

    `load_dataset` knows a folder by its name and the head of its card: a shard that was changed since somebody loaded
    it would not be looked at. Here the rows lie in a cache of their own, which goes at the end.

    Args:
        folder: What `data_scripts.build` wrote.

    Raises:
        ValueError: If it cannot be read.
    """
    shared_cache = Path(datasets.config.HF_DATASETS_CACHE)  # on a disk that has room for rows
    shared_cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="checked-", dir=shared_cache) as cache:
        try:
            dataset = datasets.load_dataset(str(folder), cache_dir=cache)
        except DatasetsError as error:
            raise ValueError(f"{folder} cannot be read as a data set: {error}") from error
        yield dataset


def shard_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file below `data`, by its name relative to the folder."""
    digests = {}
    for path in sorted((folder / DATA_FOLDER).rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digests[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def check_shards_unchanged(folder: Path, built: Mapping[str, str]) -> None:
    """Raise if the shards are not those that the build wrote, whose account and card would then be of other rows.

    Args:
        folder: What `data_scripts.build` wrote.
        built: Their digests then, as in `build_report.json`.

    Raises:
        ValueError: If one was changed, removed or added; the message names all of them.
    """
    now = shard_digests(folder)
    if changed := sorted(name for name in built.keys() | now.keys() if built.get(name) != now.get(name)):
        what = (
            f"{name} was {'added' if name not in built else 'removed' if name not in now else 'changed'}"
            for name in changed
        )
        raise ValueError(
            f"{folder} is not what was built: {', '.join(what)}. Change the rows of the source, and build it again."
        )
