"""Parts of a dataset: rows that are written together, and found done when an interrupted build is resumed.

The name of a part's file is the fingerprint of all that decides its content: the records, the files behind their
pixels (size and time of change), the vocabularies and this code. A part that lies in the folder is therefore the
right one, whatever else has changed since.
"""

import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from PIL import Image

from data_scripts.imaging.images import UnusableImageError
from data_scripts.lumbar_builder import LumbarReports
from data_scripts.records import Exclusion, Record, SourceInfo

PART_ROWS = 64  # below a second of work for slices: little is lost by an interruption, and all processes end together

_LIBRARIES = ("datasets", "numpy", "pillow", "pyarrow", "pydicom")


@dataclass(frozen=True, kw_only=True)
class Part:
    """Rows of one split, in order.

    Args:
        split: Their split.
        records: The rows.
        path: The Parquet file to write; what was left out goes into a `.json` file beside it.
    """

    split: str
    records: tuple[Record, ...]
    path: Path

    @property
    def result_path(self) -> Path:
        """Written last: the part is done when it exists."""
        return self.path.with_suffix(".json")


@dataclass(frozen=True, kw_only=True)
class PartResult:
    """What became of the rows of a part.

    Args:
        exclusions: Rows whose image could not be used.
        scrubbed: Number of passages in texts that were replaced, by kind.
        left_in_texts: The same of those that were found when they were looked for again.
        facts_changed: Sources of the rows whose texts state other facts since then.
        burnt_in_text: Sources of the rows whose image seems to hold letters.
    """

    exclusions: tuple[Exclusion, ...]
    scrubbed: Mapping[str, int]
    left_in_texts: Mapping[str, int]
    facts_changed: tuple[str, ...]
    burnt_in_text: tuple[str, ...]


def parts_of(
    records_of_split: Mapping[str, Sequence[Record]], info: SourceInfo, folder: Path, part_rows: int = PART_ROWS
) -> list[Part]:
    """Cut the rows of each split into parts, whose files lie in `folder`."""
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
    """Empty the folder of all but finished parts of this build; give the parts that are still to be written."""
    finished = [part for part in parts if part.result_path.is_file() and part.path.is_file()]
    kept = {path for part in finished for path in (part.path, part.result_path)}
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path not in kept:
            path.unlink()
    finished_paths = {part.path for part in finished}
    return [part for part in parts if part.path not in finished_paths]


def any_finished(folder: Path) -> bool:
    """Whether a part in the folder is done, of whichever build."""
    return any(path.with_suffix(".parquet").is_file() for path in folder.glob("*.json"))


def write_part(
    part: Part, info: SourceInfo, skipped: Mapping[int, str], announce: Callable[[int | None], None]
) -> None:
    """Write the rows of a part; the files appear whole or not at all.

    Args:
        part: What to write.
        info: The source of the records.
        skipped: Reasons by index of the rows that are not to be touched.
        announce: Called with the index of each row before it is touched, and with None after the last.
    """

    def rows() -> Iterator[Record]:
        for index, record in enumerate(part.records):
            announce(index)
            refused = partial(_raise_unusable, skipped.get(index, ""))
            yield replace(record, load_image=refused, load_mask=None) if index in skipped else record
        announce(None)

    scratch = part.path.with_suffix(f".{os.getpid()}")
    builder = LumbarReports(info, {part.split: rows()}, cache_dir=scratch / "cache")
    builder.download_and_prepare(str(scratch / "data"), file_format="parquet", max_shard_size=sys.maxsize)
    result = {
        "exclusions": [[exclusion.source, exclusion.reason] for exclusion in builder.exclusions],
        "scrubbed": builder.scrubbed,
        "left_in_texts": builder.left_in_texts,
        "facts_changed": builder.facts_changed,
        "burnt_in_text": builder.burnt_in_text,
    }
    (scratch / "result.json").write_text(json.dumps(result), encoding="utf-8")
    (written,) = (scratch / "data").glob("*.parquet")
    written.replace(part.path)
    (scratch / "result.json").replace(part.result_path)
    shutil.rmtree(scratch)


def read_result(part: Part) -> PartResult:
    """What became of the rows of a finished part."""
    result = json.loads(part.result_path.read_text(encoding="utf-8"))
    return PartResult(
        exclusions=tuple(Exclusion(source, reason) for source, reason in result["exclusions"]),
        scrubbed=result["scrubbed"],
        left_in_texts=result["left_in_texts"],
        facts_changed=tuple(result["facts_changed"]),
        burnt_in_text=tuple(result["burnt_in_text"]),
    )


def record_fingerprint(record: Record) -> str:
    """All that decides the row of a record, as text; for files that its functions are bound to, size and time."""
    return repr([_value_fingerprint(getattr(record, column.name)) for column in fields(record)])


def _value_fingerprint(value: Any) -> str:
    if isinstance(value, partial):
        arguments = [*value.args, *(item for pair in sorted(value.keywords.items()) for item in pair)]
        return repr([_value_fingerprint(value.func), *map(_value_fingerprint, arguments)])
    if isinstance(value, Path):
        state = value.stat() if value.exists() else None
        return repr([str(value), state and (state.st_size, state.st_mtime_ns)])
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value)


@cache
def code_fingerprint() -> str:
    """Changes with every change of this package's code and of the libraries that decide what is written."""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        code.update(path.read_bytes())
    versions = [f"{library} {importlib.metadata.version(library)}" for library in _LIBRARIES]
    return " ".join([code.hexdigest(), *versions])


def _raise_unusable(reason: str) -> Image.Image:
    raise UnusableImageError(reason)
