"""Read a CSV or JSON-lines file into rows of cells; malformed rows are kept with their problems."""

import codecs
import csv
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

# Limits on the cost of a damaged or hostile file. A table of 128 MiB holds some 250,000 reports.
MAX_TABLE_BYTES = 128 * 2**20
MAX_ROWS = 500_000
MAX_COLUMNS = 256
MAX_LINE_CHARS = 2**20

# Bytes that are not UTF-8 and lone surrogates of JSON; zero bytes, which no editor writes.
_DAMAGED = re.compile("[\0\ud800-\udfff]")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_BEYOND_ASCII = re.compile("[^\0-\x7f\ud800-\udfff]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A row of a table."""

    where: str  # file and number of the row, counted from 1 after the header
    cells: Mapping[str, Any] = field(default_factory=dict)  # by column: text in CSV, any JSON value in JSON lines
    problem: str | None = None  # why the row could not be read

    def text(self, column: str) -> str:
        """Return the stripped text of a cell; raise a ValueError for a list or an object."""
        value = self.cells.get(column)
        if isinstance(value, (list, dict, bool)):
            raise ValueError(f"{column} must be text, got {json.dumps(value)[:60]}")
        return "" if value is None else str(value).strip()

    def texts(self, column: str, separator: str) -> tuple[str, ...]:
        """Return the cell as distinct non-empty texts: the items of a list, or the parts between separators."""
        value = self.cells.get(column)
        items = value if isinstance(value, list) else self.text(column).split(separator)
        return tuple(dict.fromkeys(text for item in items if (text := str(item).strip())))


def check_one_of(column: str, value: str, allowed: Sequence[str]) -> str:
    """Return a value; raise a ValueError unless it is one of the allowed ones."""
    if value not in allowed:
        raise ValueError(f"unknown {column} {value[:40]!r}; allowed: {', '.join(allowed)}")
    return value


def read_table(path: Path, columns: Iterable[str] = ()) -> list[Row]:
    """Read a `.csv` file (comma-separated, first line the header) or a `.jsonl` file (one object per line).

    Returns all rows; an unreadable one states its problem.

    Raises:
        ValueError: If the file cannot be read, is too large, has an unknown encoding, is not a table, repeats a name in
            its header, lacks one of the columns, or has no row.
    """
    readers = {".csv": _csv_rows, ".jsonl": _json_rows}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path} must be a table that ends in .csv or .jsonl")
    rows = list(islice(readers[path.suffix.lower()](path, _read_text(path)), MAX_ROWS + 1))
    if len(rows) > MAX_ROWS:
        raise ValueError(f"{path} has more than {MAX_ROWS} rows; split the table")
    if not rows:
        raise ValueError(f"{path} has no rows")
    found = columns_of(rows)
    if missing := [column for column in columns if column not in found]:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}")
    return rows


def columns_of(rows: list[Row]) -> tuple[str, ...]:
    """List all columns in order of appearance."""
    return tuple(dict.fromkeys(column for row in rows for column in row.cells))


@dataclass(frozen=True, kw_only=True)
class PatientRow:
    """What a row of a table says about a patient."""

    where: str  # file and number of the row
    patient_id: str = ""  # four digits or more; empty if the row names no patient
    problem: str | None = None  # why the row cannot be used


_PatientRow = TypeVar("_PatientRow", bound=PatientRow)


def mark_repeated(items: Sequence[_PatientRow]) -> list[_PatientRow]:
    """Give all rows that repeat a patient a `problem`: we cannot know which one is right."""
    count = Counter(item.patient_id for item in items if item.patient_id)
    return [
        replace(item, problem=f"patient {item.patient_id} has {count[item.patient_id]} rows; keep one")
        if count[item.patient_id] > 1
        else item
        for item in items
    ]


def _read_text(path: Path) -> str:
    """Read a text file. Damaged bytes of UTF-8 become lone surrogates."""
    if not path.is_file():
        raise ValueError(f"{path} cannot be read: there is no such file")
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise ValueError(f"{path} is larger than {MAX_TABLE_BYTES // 2**20} MiB; split the table")
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _decode(path, content, "utf-16")
    text = content.decode("utf-8-sig", "surrogateescape")
    if not _DAMAGED.search(text) or _BEYOND_ASCII.search(text):
        return text  # UTF-8, perhaps with a few damaged bytes
    return _decode(path, content, "cp1252")


def _decode(path: Path, content: bytes, encoding: str) -> str:
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is neither UTF-8 nor {encoding} ({error}); save it as UTF-8") from error
    logger.warning("%s is not UTF-8; read as %s", path, encoding)
    return text


def _csv_rows(path: Path, text: str) -> Iterator[Row]:
    reader = csv.reader(_lines(path, text), strict=True)
    header: list[str] | None = None
    number = 0
    try:
        for values in reader:
            if not any(value.strip() for value in values) and len(values) in (0, 1, len(header or values)):
                continue  # an empty line, or one of empty cells as spreadsheets write them
            if header is None:
                header = _csv_header(path, values)
                continue
            number += 1
            where = f"{path.name} row {number}"
            problem = _damage("".join(values))
            if len(values) != len(header):
                problem = f"{len(values)} fields, the header has {len(header)}; quote reports that contain commas"
            yield Row(where=where, cells={} if problem else dict(zip(header, values, strict=True)), problem=problem)
    except csv.Error as error:
        raise ValueError(
            f"{path} is not valid CSV after row {number} (line {reader.line_num}): {error}; is a quote missing?"
        ) from error


def _lines(path: Path, text: str) -> Iterator[str]:
    """Yield the lines with their ends; `io.StringIO` would take four bytes a character."""
    for number, match in enumerate(_LINE.finditer(text), start=1):
        if match.end() - match.start() > MAX_LINE_CHARS:
            raise ValueError(
                f"{path} has more than {MAX_LINE_CHARS} characters in line {number}; is it the right file?"
            )
        yield match[0]


def _csv_header(path: Path, values: list[str]) -> list[str]:
    header = [value.strip() for value in values]
    if len(header) > MAX_COLUMNS:
        raise ValueError(f"{path} has {len(header)} columns, more than {MAX_COLUMNS}; is it the right file?")
    if problem := _damage("".join(header)):
        raise ValueError(f"{path} has a header that cannot be read: {problem}; save it as UTF-8")
    repeated = sorted(name for name, count in Counter(header).items() if count > 1)
    if repeated:
        raise ValueError(f"{path} repeats the columns {', '.join(map(repr, repeated))}; a column needs one name")
    return header


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    lines = (line for line in _lines(path, text) if line.strip())
    for number, line in enumerate(lines, start=1):
        where = f"{path.name} row {number}"
        try:
            cells = json.loads(line)
            problem = _damage(json.dumps(cells, ensure_ascii=False))
        except (ValueError, RecursionError) as error:  # also a number of thousands of digits, or endless nesting
            yield Row(where=where, problem=f"not valid JSON: {error}")
            continue
        if not isinstance(cells, dict):
            problem = f"expected a JSON object, got {line.strip()[:60]!r}"
        elif len(cells) > MAX_COLUMNS:
            problem = f"{len(cells)} columns, more than {MAX_COLUMNS}"
        yield Row(where=where, cells={} if problem else cells, problem=problem)


def _damage(text: str) -> str | None:
    r"""Describe the first damaged place of a text, if any.

    Example:
        >>> _damage("L4/L5\udcff bulge")
        "damaged text: '\\udcff' after 'L4/L5'"
    """
    match = _DAMAGED.search(text)
    return f"damaged text: {match[0]!r} after {text[: match.start()][-20:]!r}" if match else None
