"""Parts of a dataset, which workers write and a resumed build keeps, and the shards made of them.

A part's file is named by a fingerprint of what decides its content: the records, the files behind their pixels
(size and time of change), the vocabularies and this code. A part that exists is therefore the right one.
"""

import hashlib
import importlib.metadata
import json
import math
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from functools import cache, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.arrow_writer import ParquetWriter
from PIL import Image

from data_scripts.imaging.images import UnusableImageError
from data_scripts.lumbar_builder import Account, LumbarReports
from data_scripts.records import Exclusion, Record, SourceInfo
from data_scripts.system.worker_pool import Announce

MAX_SHARD_BYTES = 500_000_000  # the default of `datasets`
ROW_GROUP_ROWS = 100  # rows decoded at once: a compromise between random access and speed
ROW_GROUP_BYTES = 64 * 2**20
PART_ROWS = 64  # less than a second of work: an interruption loses little, and all processes end together

_LIBRARIES = ("datasets", "nibabel", "numpy", "pillow", "pyarrow", "pydicom", "scikit-image", "scipy")


@dataclass(frozen=True, kw_only=True)
class Part:
    """Rows of one split, in order."""

    split: str
    records: tuple[Record, ...]
    path: Path  # the Parquet file to write

    @property
    def result_path(self) -> Path:
        """File of the outcome of the rows; written last, when the part is done."""
        return self.path.with_suffix(".json")


def parts_of(
    records_of_split: Mapping[str, Sequence[Record]], info: SourceInfo, folder: Path, part_rows: int = PART_ROWS
) -> list[Part]:
    """Cut the rows of each split into parts with files in `folder`."""
    vocabularies = repr((info.label_names, info.grade_names, info.mask_names))
    parts = []
    for split, records in records_of_split.items():
        for start in range(0, len(records), part_rows):
            rows = tuple(records[start : start + part_rows])
            content = "\n".join([code_fingerprint(), vocabularies, split, *map(record_fingerprint, rows)])
            name = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]
            parts.append(Part(split=split, records=rows, path=folder / f"{name}.parquet"))
    return parts


def keep_finished(parts: Sequence[Part], folder: Path) -> list[Part]:
    """Remove all but this build's finished parts from the folder; return the parts still to be written."""
    finished = [part for part in parts if part.result_path.is_file() and part.path.is_file()]
    kept = {path for part in finished for path in (part.path, part.result_path)}
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path not in kept:
            path.unlink()
    return [part for part in parts if part.path not in kept]


def any_finished(folder: Path) -> bool:
    """Whether the folder has a finished part of any build."""
    return any(path.with_suffix(".parquet").is_file() for path in folder.glob("*.json"))


def write_part(info: SourceInfo, part: Part, crashed: Mapping[int, str], announce: Announce) -> None:
    """Write the rows of a part; the files appear whole or not at all. Runs in a worker, see `Workers.run`."""
    datasets.disable_progress_bars()

    def rows() -> Iterator[Record]:
        for index, record in enumerate(part.records):
            announce(index)
            unusable = partial(_raise_unusable, crashed.get(index, ""))
            yield replace(record, load_image=unusable, load_mask=None) if index in crashed else record
        announce(None)

    scratch = part.path.with_suffix(f".{os.getpid()}")
    builder = LumbarReports(info, {part.split: rows()}, cache_dir=scratch / "cache")
    builder.download_and_prepare(str(scratch / "data"), file_format="parquet", max_shard_size=sys.maxsize)
    account = {**vars(builder.account), "exclusions": [asdict(exclusion) for exclusion in builder.account.exclusions]}
    (scratch / "result.json").write_text(json.dumps(account), encoding="utf-8")
    (written,) = (scratch / "data").glob("*.parquet")
    written.replace(part.path)
    (scratch / "result.json").replace(part.result_path)
    shutil.rmtree(scratch)


def read_result(part: Part) -> Account:
    """Read the outcome of the rows of a finished part."""
    result = json.loads(part.result_path.read_text(encoding="utf-8"))
    return Account(**{**result, "exclusions": [Exclusion(**exclusion) for exclusion in result["exclusions"]]})


def record_fingerprint(record: Record) -> str:
    """Describe everything that decides a record's row; for files that its functions are bound to, size and time."""
    return repr([_value_fingerprint(getattr(record, column.name)) for column in fields(record)])


def _value_fingerprint(value: Any) -> str:
    if isinstance(value, partial):
        arguments = [*value.args, *(item for pair in sorted(value.keywords.items()) for item in pair)]
        return repr([_value_fingerprint(value.func), *map(_value_fingerprint, arguments)])
    if isinstance(value, Path):
        state = value.stat() if value.exists() else None
        return repr([str(value), state and (state.st_size, state.st_mtime_ns)])
    if isinstance(value, tuple):
        return repr([*map(_value_fingerprint, value)])
    if is_dataclass(value) and not isinstance(value, type):  # a series of slices, with its files
        return repr([_value_fingerprint(getattr(value, one.name)) for one in fields(value)])
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value)


@cache
def code_fingerprint() -> str:
    """Fingerprint this package's code and the versions of libraries that decide what is written."""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        code.update(path.read_bytes())
    versions = [f"{library} {importlib.metadata.version(library)}" for library in _LIBRARIES]
    return " ".join([code.hexdigest(), *versions])


def _raise_unusable(reason: str) -> Image.Image:
    raise UnusableImageError(reason)


def shard_lengths(num_rows: int, num_shards: int) -> list[int]:
    """Spread rows over shards whose lengths differ by at most one.

    Example:
        >>> shard_lengths(11, 4)
        [3, 3, 3, 2]
    """
    fewest, rest = divmod(num_rows, num_shards)
    return [fewest + (index < rest) for index in range(num_shards)]


def check_shards(split: str, num_rows: int, num_shards: int) -> None:
    """Raise a ValueError if a split has fewer rows than shards."""
    if num_shards > num_rows:
        raise ValueError(
            f"--streaming_shards {num_shards} is more than the {num_rows} rows of {split}; give at most {num_rows}"
        )


def join_parts(
    parts: Sequence[Path], folder: Path, split: str, features: datasets.Features, num_shards: int | None = None
) -> datasets.SplitInfo:
    """Write the rows of the parts, in order, into shards `SPLIT-00000-of-0000N.parquet`.

    The same rows give the same bytes, whichever processes wrote the parts. Without `num_shards`, there are as many as
    keep a shard below 500 MB.

    Returns:
        The split as the dataset card describes it.

    Raises:
        ValueError: If there are fewer rows than shards.
    """
    num_rows = sum(pq.read_metadata(part).num_rows for part in parts)
    num_bytes = sum(part.stat().st_size for part in parts)
    num_shards = num_shards or math.ceil(num_bytes / MAX_SHARD_BYTES)
    check_shards(split, num_rows, num_shards)
    group_rows = max(1, min(ROW_GROUP_ROWS, ROW_GROUP_BYTES * num_rows // num_bytes))
    lengths = shard_lengths(num_rows, num_shards)
    group_lengths = [[min(group_rows, length - at) for at in range(0, length, group_rows)] for length in lengths]
    groups = _row_groups(parts, chain.from_iterable(group_lengths), group_rows)
    arrow_bytes = 0
    for index, lengths_of_shard in enumerate(group_lengths):
        path = folder / f"{split}-{index:05d}-of-{num_shards:05d}.parquet"
        with ParquetWriter(features=features, path=str(path)) as writer:
            for group in islice(groups, len(lengths_of_shard)):
                writer.write_table(group, writer_batch_size=group_rows)
            arrow_bytes += writer.finalize()[1]
    return datasets.SplitInfo(split, num_bytes=arrow_bytes, num_examples=num_rows, shard_lengths=lengths)


def _row_groups(paths: Sequence[Path], lengths: Iterable[int], batch_rows: int) -> Iterator[pa.Table]:
    """Read the rows of several Parquet files as tables of given lengths."""
    batches = chain.from_iterable(_batches(path, batch_rows) for path in paths)
    rest = pa.table({})
    for length in lengths:
        pieces = [rest] if rest.num_rows else []
        while sum(piece.num_rows for piece in pieces) < length:
            pieces.append(pa.Table.from_batches([next(batches)]))
        table = pa.concat_tables(pieces)
        yield table.slice(0, length)
        rest = table.slice(length)


def _batches(path: Path, batch_rows: int) -> Iterator[pa.RecordBatch]:
    with pq.ParquetFile(path) as file:
        yield from file.iter_batches(batch_rows)
