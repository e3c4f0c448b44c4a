"""Write embeddings in chunks that survive a kill, and join them to a file that is complete or absent."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_scripts.system.staging import LOCK_NAME, clear, staging_folder
from data_scripts.system.whole_files import read_json, unfinished_file, write_json
from train.checkpoints.manifest import json_fields

METADATA = b"lumbarclip"
SETTINGS = "settings.json"
UNREADABLE = b"unreadable"


class EmbeddingChunks:
    """The chunks written so far, each a Parquet file that also lists its unreadable files; see `open_chunks`.

    `is_resumed` says whether an earlier run was interrupted, even before its first chunk.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], is_resumed: bool) -> None:
        self.folder, self.settings, self.is_resumed = folder, settings, is_resumed
        self.num_done = 0
        while self._path(self.num_done).exists():
            self.num_done += 1

    def write(self, table: pa.Table, unreadable: list[dict[str, Any]]) -> None:
        """Add a chunk, whole or not at all."""
        with unfinished_file(self._path(self.num_done)) as unfinished:
            pq.write_table(table.replace_schema_metadata({UNREADABLE: json.dumps(unreadable)}), unfinished)
        self.num_done += 1

    def unreadable(self) -> list[dict[str, Any]]:
        """List what could not be read, over all chunks."""
        chunks = (pq.read_schema(self._path(chunk)).metadata[UNREADABLE] for chunk in range(self.num_done))
        return [entry for chunk in chunks for entry in json.loads(chunk)]

    def join(self, out: Path) -> int:
        """Join the chunks, one in memory at a time, and list what was left out; return the number of rows.

        Raises:
            ValueError: If nothing could be read.
        """
        unreadable, joined = self.unreadable(), self.folder / "joined"
        schema = pq.read_schema(self._path(0)).with_metadata({METADATA: json.dumps(self.settings["embeddings"])})
        with pq.ParquetWriter(joined, schema) as writer:
            for chunk in range(self.num_done):
                writer.write_table(pq.read_table(self._path(chunk)).replace_schema_metadata(schema.metadata))
        num_rows = pq.ParquetFile(joined).metadata.num_rows
        if not num_rows:
            clear(self.folder)  # there is nothing to resume
            reasons = "; ".join(f"{entry['source']}: {entry['reason']}" for entry in unreadable[:10])
            raise ValueError(f"None of the {len(unreadable)} files is a readable image ({reasons}).")
        write_json(report_path(out), {**self.settings, "num_rows": num_rows, "unreadable": unreadable})
        joined.replace(out)
        return num_rows

    def _path(self, chunk: int) -> Path:
        return self.folder / f"chunk-{chunk:06d}.parquet"


@contextmanager
def open_chunks(out: Path, settings: dict[str, Any], overwrite: bool) -> Iterator[EmbeddingChunks]:
    """Lock the hidden folder next to `out` that holds the chunks, those of an interrupted run included.

    Args:
        out: The file to be made.
        settings: Everything the embeddings depend on; kept with the chunks.
        overwrite: Whether to drop the chunks of a run with other settings.

    Raises:
        ValueError: If another process uses the folder, or its chunks are from a run with other settings.
    """
    with staging_folder(out) as folder:
        path = folder / SETTINGS
        before = read_json(path, f"Delete {folder} to start over.") if path.exists() else None
        if before is not None and before != settings:
            if not overwrite:
                then, now = dict(json_fields(before)), dict(json_fields(settings))
                names = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
                changed = "; ".join(f"{name}: {then.get(name)} then, {now.get(name)} now" for name in names)
                raise ValueError(
                    f"{folder} contains an interrupted run with other settings ({changed}). Rerun with those to resume "
                    "it, or drop it with --overwrite."
                )
            for path in folder.iterdir():
                if path.name != LOCK_NAME:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_json(folder / SETTINGS, settings)
        yield EmbeddingChunks(folder, settings, is_resumed=before == settings)
        clear(folder)  # not if the run failed or was interrupted: the next one resumes it


def report_path(out: Path) -> Path:
    """Name the file that lists the settings of an encoding and what it left out: `OUT.parquet.json`."""
    return out.with_name(f"{out.name}.json")


def as_table(columns: dict[str, list[Any]], embeddings: NDArray[np.float32], schema: pa.Schema) -> pa.Table:
    """Join the columns of a schema with a column `embedding`, lists of float32, from embeddings (rows, D)."""
    offsets = np.arange(len(embeddings) + 1, dtype=np.int32) * embeddings.shape[1]
    lists = pa.ListArray.from_arrays(offsets, np.ascontiguousarray(embeddings, dtype=np.float32).ravel())
    return pa.table(columns, schema=schema).append_column("embedding", lists)
