"""Read a built dataset from its current files; `load_dataset` may return the rows of an earlier load."""

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import datasets
from datasets.exceptions import DatasetsError

from data_scripts.lumbar_builder import DATA_FOLDER


def check_is_dataset(folder: Path) -> None:
    """Raise a ValueError for a folder without shards, whose subfolders `load_dataset` would join into one dataset."""
    if not any((folder / DATA_FOLDER).glob("*.parquet")):
        raise ValueError(
            f"{folder} has no {DATA_FOLDER}/*.parquet: it is not a dataset. Name a folder that data_scripts.build made."
        )


@contextmanager
def opened_afresh(folder: Path) -> Iterator[datasets.DatasetDict]:
    """Load a dataset from its files; raise a ValueError if it cannot be read.

    `load_dataset` caches a folder by its name and the head of its card, and would miss a shard that was changed since.
    Here the rows go to a temporary cache.
    """
    check_is_dataset(folder)
    shared_cache = Path(datasets.config.HF_DATASETS_CACHE)  # on a disk with room for rows
    shared_cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="checked-", dir=shared_cache) as cache:
        try:
            dataset = datasets.load_dataset(str(folder), cache_dir=cache)
        except DatasetsError as error:
            raise ValueError(f"{folder} cannot be read as a dataset: {error}") from error
        yield dataset


def shard_digests(folder: Path) -> dict[str, str]:
    """Compute the SHA-256 of each file below `data`, by its name relative to the folder."""
    digests = {}
    for path in sorted((folder / DATA_FOLDER).rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digests[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def check_shards_unchanged(folder: Path, built: Mapping[str, str]) -> None:
    """Raise a ValueError naming shards that were changed, removed or added since the build, by its digests."""
    now = shard_digests(folder)
    if changed := sorted(name for name in built.keys() | now.keys() if built.get(name) != now.get(name)):
        verbs = ("added" if name not in built else "removed" if name not in now else "changed" for name in changed)
        what = ", ".join(f"{name} was {verb}" for name, verb in zip(changed, verbs, strict=True))
        raise ValueError(f"{folder} was changed after the build: {what}. Change the source's rows, and build again.")
