"""Read a CSV, JSON-lines or Excel file into rows of cells; malformed rows are kept with their problems."""

import codecs
import csv
import json
import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, time
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from data_scripts.records import is_missing
from data_scripts.sources.workbooks import KINDS, Cell, sheet_rows

logger = logging.getLogger(__name__)

# Limits on the cost of a damaged or hostile file. A table of 128 MiB holds some 250,000 reports.
MAX_TABLE_BYTES = 128 * 2**20
MAX_ROWS = 500_000
MAX_COLUMNS = 256
MAX_LINE_CHARS = 2**20

TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".xlsx")
_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}

# Bytes that are not UTF-8 and lone surrogates of JSON; zero bytes, which no editor writes.
_DAMAGED = re.compile("[\0\ud800-\udfff]")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_BEYOND_ASCII = re.compile("[^\0-\x7f\ud800-\udfff]")
# What a spreadsheet shows in place of a content: too narrow a column, a broken formula. `#N/A` says that there is none.
_SPREADSHEET_ERROR = re.compile(r"#{2,}|#(?!N/?[AD]\b|NV\b)¿?[\w/]+[!?]|#GETTING_DATA|Err:[0-9]{3}", re.IGNORECASE)
_DELIMITER_LINE = re.compile(r"\"?sep=([,;\t])\"?\s*", re.IGNORECASE)  # of Excel: not a header
_UNNAMED = re.compile(r"(?:Unnamed: [0-9.]+)?")  # pandas numbers what has no name
_WHOLE_NUMBER = re.compile(r"[0-9]+(?:\.0)?")
_MAX_EXACT = 1e15  # spreadsheets keep 15 digits


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A row of a table."""

    where: str  # file and number of the row: counted from 1 after the header, or that of the sheet
    cells: Mapping[str, Any] = field(default_factory=dict)  # by column: text in CSV, any value in JSON lines and sheets
    problem: str | None = None  # why the row could not be read
    decimal_comma: bool = False  # whether `0,5` is a number

    def written(self, column: str) -> str:
        """Return a cell as stripped text, also if it says that there is nothing.

        Raises:
            ValueError: If it is a list, an object, a truth value or a date, or a spreadsheet has destroyed it.
        """
        value = self.cells.get(column)
        if isinstance(value, (list, dict, bool)):
            raise ValueError(f"{column} must be text, got {json.dumps(value)[:60]}")
        if isinstance(value, (date, time)):
            raise ValueError(
                f"{column} must be text, got the date {value}; format the column as text, then type the cell again"
            )
        if isinstance(value, float) and value.is_integer():  # 123.0, as pandas and spreadsheets store whole numbers
            value = int(value) if abs(value) < _MAX_EXACT else f"{value:E}"
        text = "" if value is None else str(value).strip()
        if _SPREADSHEET_ERROR.fullmatch(text):
            raise ValueError(
                f"{column} is {text[:20]!r}, which a spreadsheet shows in place of the content; repair the cell or "
                "widen its column, and export again"
            )
        return text

    def text(self, column: str) -> str:
        """Return a cell as `written`; empty if it says that there is nothing (`NaN`, `N/A`, `-`)."""
        text = self.written(column)
        return "" if is_missing(text) else text

    def texts(self, column: str, separator: str) -> tuple[str, ...]:
        """Return the cell as distinct texts that say something: items of a list, or the parts between separators."""
        value = self.cells.get(column)
        items = value if isinstance(value, list) else self.text(column).split(separator)
        return tuple(dict.fromkeys(text for item in items if not is_missing(text := str(item).strip())))

    def number(self, column: str) -> float | None:
        """Return a cell as a number, None if it says that there is nothing; raise a ValueError for anything else."""
        text = self.text(column)
        try:
            return float(text.replace(",", ".") if self.decimal_comma else text) if text else None
        except ValueError as error:
            hint = "; write a decimal point" if re.fullmatch("[0-9]+,[0-9]+", text) else ""
            raise ValueError(f"{column} must be a number, got {text!r}{hint}") from error


def check_one_of(column: str, value: str, allowed: Sequence[str]) -> str:
    """Return a value; raise a ValueError unless it is one of the allowed ones."""
    if value not in allowed:
        raise ValueError(f"unknown {column} {value[:40]!r}; allowed: {', '.join(allowed)}")
    return value


def read_table(path: Path, columns: Iterable[str] = (), known: Iterable[str] = ()) -> list[Row]:
    """Read a table whose first row names the columns, or a `.jsonl` file of one object per line.

    A text file (`.csv`, `.tsv`, `.txt`) is separated by commas, semicolons or tabs, whichever gives most of the `known`
    columns; a workbook (`.xlsx`) is read from its first sheet. An empty column without a name is ignored, and so is one
    of row numbers at the left.

    Returns all rows; an unreadable one states its problem.

    Raises:
        ValueError: If the file cannot be read, is too large, has an unknown encoding, is not a table, repeats a name in
            its header, has a column without a name, lacks one of the columns, or has no row.
    """
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise ValueError(f"{path} must be a table that ends in {', '.join(TABLE_SUFFIXES)}; export it as one of them")
    if suffix == ".jsonl":
        rows = list(islice(_json_rows(path, _read_text(path)), MAX_ROWS + 1))
    elif suffix == ".xlsx":
        rows = _rows_below_header(path, _sheet_lines(path), decimal_comma=True, separated_by="cells")
    else:
        rows = _delimited_rows(path, _read_text(path), {*columns, *known})
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
    if content.startswith((b"PK\3\4", b"\xd0\xcf\x11\xe0")):
        raise ValueError(f"{path} is a workbook, not text; name it .xlsx, or export it as .csv")
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
    _warn_once(f"{path} is not UTF-8; read as {encoding}")
    return text


_Line = tuple[int, list[Any], str | None]  # number of a row, its values, and why they cannot be used


def _delimited_rows(path: Path, text: str, known: Collection[str]) -> list[Row]:
    start = 0
    first_line = next(filter(str.strip, _lines(path, text)), "")
    if stated := _DELIMITER_LINE.fullmatch(first_line):
        start = text.index(first_line) + len(first_line)
    delimiter = stated[1] if stated else _delimiter(first_line, known)
    lines = _text_lines(path, text[start:], delimiter)
    return _rows_below_header(path, lines, decimal_comma=delimiter != ",", separated_by=_DELIMITERS[delimiter])


def _delimiter(header: str, known: Collection[str]) -> str:
    r"""Find what separates the names of a header: what gives most known names, else more than one name.

    Example:
        >>> _delimiter("file_name;report", {"report"}), _delimiter("a,b;c", set()), _delimiter("a\tb", set())
        (';', ',', '\t')
    """
    names = {delimiter: next(csv.reader([header], delimiter=delimiter), []) for delimiter in _DELIMITERS}
    return max(
        _DELIMITERS,
        key=lambda delimiter: (len({name.strip() for name in names[delimiter]} & {*known}), len(names[delimiter]) > 1),
    )


def _text_lines(path: Path, text: str, delimiter: str) -> Iterator[_Line]:
    reader = csv.reader(_lines(path, text), delimiter=delimiter, strict=True)
    number, width = -1, 0
    try:
        for values in reader:
            if not any(value.strip() for value in values) and len(values) in (0, 1, width or len(values)):
                continue  # an empty line, or one of empty cells as spreadsheets write them
            number, width = number + 1, width or len(values)
            yield number, values, _damage("".join(values))
    except csv.Error as error:
        raise ValueError(
            f"{path} is not valid CSV after row {max(number, 0)} (line {reader.line_num}): {error}; is a quote missing?"
        ) from error


def _sheet_lines(path: Path) -> Iterator[_Line]:
    for number, cells in enumerate(sheet_rows(path), start=1):
        values = [cell.value for cell in cells]
        if not all(map(_is_empty, values)):
            yield number, values, _formula(cells)


def _formula(cells: list[Cell]) -> str | None:
    for column, cell in enumerate(cells, start=1):
        if cell.kind == "f":
            return f"column {column} has {KINDS[cell.kind]}; copy the column and paste its values over it"
    return None


def _rows_below_header(path: Path, lines: Iterator[_Line], *, decimal_comma: bool, separated_by: str) -> list[Row]:
    """Give the values of each line their columns."""
    _, names, problem = next(lines, (0, [], None))
    if len(names) > MAX_COLUMNS:
        raise ValueError(f"{path} has {len(names)} columns, more than {MAX_COLUMNS}; is it the right file?")
    if problem:
        raise ValueError(f"{path} has a header that cannot be read: {problem}; save it as UTF-8")
    body = list(islice(lines, MAX_ROWS + 1))
    is_sheet = separated_by == "cells"  # which ends its rows at the last cell that is not empty
    header = ["" if name is None else str(name).strip() for name in names]
    header = _with_unnamed(header, body, may_be_shorter=is_sheet)
    width = len(header)
    fewest = 0 if is_sheet else max((place for place, name in enumerate(header, start=1) if name), default=0)
    body = [
        (number, values + [None] * (width - len(values)) if fewest <= len(values) < width else values, problem)
        for number, values, problem in body
    ]
    used = _named_columns(path, header, [line for line in body if len(line[1]) == width])
    repeated = sorted(name for name, count in Counter(header[place] for place in used).items() if count > 1)
    if repeated:
        raise ValueError(f"{path} repeats the columns {', '.join(map(repr, repeated))}; a column needs one name")
    rows = []
    for number, values, problem in body:
        where = f"{path.name} row {number}"
        if len(values) != width:
            problem = f"{len(values)} fields, the header has {width}; quote reports that contain {separated_by}"
        cells = {} if problem else {header[place]: values[place] for place in used}
        rows.append(Row(where=where, cells=cells, problem=problem, decimal_comma=decimal_comma))
    return rows


def _with_unnamed(header: list[str], body: list[_Line], *, may_be_shorter: bool) -> list[str]:
    """Add empty names for columns beyond the header: of a sheet, or of empty fields at the end of each line."""
    widths = [len(values) for _, values, _ in body] or [0]
    are_empty = all(all(map(_is_empty, values[len(header) :])) for _, values, _ in body)
    if may_be_shorter or (are_empty and min(widths) > len(header)):
        return [*header, *[""] * min(max(widths) - len(header), MAX_COLUMNS)]
    return header


def _named_columns(path: Path, header: list[str], body: list[_Line]) -> list[int]:
    """List the places of the columns with names; raise a ValueError if another has content that is no row number."""
    named = []
    for place, name in enumerate(header):
        if not _UNNAMED.fullmatch(name):
            named.append(place)
            continue
        filled = [(number, values[place]) for number, values, _ in body if not _is_empty(values[place])]
        if not filled:
            continue
        if place > 0 or not all(_WHOLE_NUMBER.fullmatch(str(value).strip()) for _, value in filled):
            number, value = filled[0]
            raise ValueError(
                f"{path}: column {place + 1} has no name, but content (row {number}: {str(value)[:40]!r}); name the "
                "column or delete it"
            )
        _warn_once(f"{path}: column 1 has no name and contains row numbers; ignored")
    return named


@cache
def _warn_once(message: str) -> None:
    """Warn of a table that is read several times."""
    logger.warning(message)


def _is_empty(value: Any) -> bool:
    return value is None or not str(value).strip()


def _lines(path: Path, text: str) -> Iterator[str]:
    """Yield the lines with their ends; `io.StringIO` would take four bytes a character."""
    for number, match in enumerate(_LINE.finditer(text), start=1):
        if match.end() - match.start() > MAX_LINE_CHARS:
            raise ValueError(
                f"{path} has more than {MAX_LINE_CHARS} characters in line {number}; is it the right file?"
            )
        yield match[0]


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
