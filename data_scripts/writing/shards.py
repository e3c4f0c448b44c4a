"""Parquet shards of equal length, made of the parts that the workers wrote."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets.arrow_writer import ParquetWriter

MAX_SHARD_BYTES = 500_000_000  # as `datasets` has it
ROW_GROUP_ROWS = 100  # what a reader decodes at once: few enough for random access, enough for speed
ROW_GROUP_BYTES = 64 * 2**20


def shard_lengths(num_rows: int, num_shards: int) -> list[int]:
    """Spread rows over shards so that no two differ by more than one.

    Example:
        >>> shard_lengths(11, 4)
        [3, 3, 3, 2]
    """
    fewest, rest = divmod(num_rows, num_shards)
    return [fewest + (index < rest) for index in range(num_shards)]


def join_parts(
    parts: Sequence[Path], folder: Path, split: str, features: datasets.Features, num_shards: int | None = None
) -> datasets.SplitInfo:
    """Write the rows of the parts, in order, into shards `SPLIT-00000-of-0000N.parquet`.

    The same rows give the same bytes, whichever processes wrote the parts.

    Args:
        parts: Parquet files of one split.
        folder: Where the shards go.
        split: Name of the split.
        features: Their columns.
        num_shards: How many; None for as many as keep a shard below 500 MB.

    Returns:
        The split as the dataset card describes it.

    Raises:
        ValueError: If there are fewer rows than shards.
    """
    num_rows = sum(pq.read_metadata(part).num_rows for part in parts)
    num_bytes = sum(part.stat().st_size for part in parts)
    num_shards = num_shards or math.ceil(num_bytes / MAX_SHARD_BYTES)
    if num_shards > num_rows:
        raise ValueError(
            f"--streaming_shards {num_shards} is more than the {num_rows} rows of {split}; give at most {num_rows}"
        )
    group_rows = max(1, min(ROW_GROUP_ROWS, ROW_GROUP_BYTES * num_rows // num_bytes))
    rows = _RowReader(parts, batch_rows=group_rows)
    lengths = shard_lengths(num_rows, num_shards)
    arrow_bytes = 0
    for index, length in enumerate(lengths):
        path = folder / f"{split}-{index:05d}-of-{num_shards:05d}.parquet"
        with ParquetWriter(features=features, path=str(path)) as writer:
            for start in range(0, length, group_rows):
                table = rows.take(min(group_rows, length - start))
                writer.write_table(table, writer_batch_size=group_rows)
            arrow_bytes += writer.finalize()[1]
    return datasets.SplitInfo(split, num_bytes=arrow_bytes, num_examples=num_rows, shard_lengths=lengths)


class _RowReader:
    """The rows of several Parquet files as one stream, of which any number can be taken."""

    def __init__(self, paths: Sequence[Path], batch_rows: int) -> None:
        self._batches = self._read(paths, batch_rows)
        self._rest: pa.RecordBatch | None = None

    def take(self, num_rows: int) -> pa.Table:
        pieces = []
        while num_rows:
            batch = self._rest if self._rest is not None else next(self._batches)
            pieces.append(batch.slice(0, num_rows))
            num_rows -= pieces[-1].num_rows
            self._rest = batch.slice(pieces[-1].num_rows) if pieces[-1].num_rows < batch.num_rows else None
        return pa.Table.from_batches(pieces)

    @staticmethod
    def _read(paths: Sequence[Path], batch_rows: int) -> Iterator[pa.RecordBatch]:
        for path in paths:
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches(batch_rows)
