"""A CSV or JSON-lines file to rows of cells, with every malformed row kept and named."""

import csv
import io
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of a table.

    Args:
        where: File and number of the row, counted from 1 after the header.
        cells: Values by column: text in CSV, any JSON value in JSON lines.
        problem: Why the row could not be read, or None.
    """

    where: str
    cells: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None

    def text(self, column: str) -> str:
        """The cell as text without outer blanks; empty when the cell is.

        Raises:
            ValueError: If the cell holds a list or an object.
        """
        value = self.cells.get(column)
        if isinstance(value, (list, dict, bool)):
            raise ValueError(f"{column} must be text, got {json.dumps(value)[:60]}")
        return "" if value is None else str(value).strip()

    def texts(self, column: str, separator: str) -> tuple[str, ...]:
        """The cell as distinct non-empty texts: the items of a list, or the parts of a text between separators."""
        value = self.cells.get(column)
        items = value if isinstance(value, list) else self.text(column).split(separator)
        return tuple(dict.fromkeys(text for item in items if (text := str(item).strip())))


def read_table(path: Path) -> list[Row]:
    """Read a `.csv` file (comma-separated, first line the header) or a `.jsonl` file (one object a line).

    Every row comes back, also one that could not be read, which then says why.

    Raises:
        ValueError: If the file is in no known encoding, its header repeats a name, or it holds no row.
    """
    read = {".csv": _csv_rows, ".jsonl": _json_rows}[path.suffix]
    rows = list(read(path, _read_text(path)))
    if not rows:
        raise ValueError(f"{path} holds no rows")
    return rows


def columns_of(rows: list[Row]) -> tuple[str, ...]:
    """Names of all columns, in order of appearance."""
    return tuple(dict.fromkeys(column for row in rows for column in row.cells))


def _read_text(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass  # not UTF-8: the two other encodings that spreadsheets write are tried below
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "cp1252"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is neither UTF-8 nor {encoding} ({error}); save it as UTF-8") from error
    logger.warning("%s is not UTF-8; read as %s", path, encoding)
    return text


def _csv_rows(path: Path, text: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    number = 0
    try:
        for values in reader:
            if not any(value.strip() for value in values):
                continue  # an empty line is no row
            if header is None:
                header = _csv_header(path, values)
                continue
            number += 1
            where = f"{path.name} row {number}"
            if len(values) == len(header):
                yield Row(where=where, cells=dict(zip(header, values, strict=True)))
            else:
                yield Row(
                    where=where,
                    problem=f"{len(values)} fields, the header has {len(header)}; quote a report that holds commas",
                )
    except csv.Error as error:
        raise ValueError(f"{path} is no CSV after row {number} (line {reader.line_num}): {error}") from error


def _csv_header(path: Path, values: list[str]) -> list[str]:
    header = [value.strip() for value in values]
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise ValueError(f"{path} repeats the columns {', '.join(map(repr, repeated))}; a column needs one name")
    return header


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    lines = (line for line in text.split("\n") if line.strip())
    for number, line in enumerate(lines, start=1):
        where = f"{path.name} row {number}"
        try:
            cells = json.loads(line)
        except json.JSONDecodeError as error:
            yield Row(where=where, problem=f"no JSON: {error}")
            continue
        if isinstance(cells, dict):
            yield Row(where=where, cells=cells)
        else:
            yield Row(where=where, problem=f"a JSON object is expected, got {line.strip()[:60]!r}")
