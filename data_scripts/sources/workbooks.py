"""Read the first sheet of an `.xlsx` workbook into cells, with limits on the cost of a hostile file."""

import re
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import openpyxl
from openpyxl.utils.cell import range_boundaries
from openpyxl.utils.escape import unescape

# The published notes unpack to under 1 MiB; 32 MiB of XML hold some 50,000 reports.
MAX_UNPACKED_BYTES = 32 * 2**20
MAX_ROWS = 2**20
MAX_COLUMNS = 256

# What to say of a cell that is not text, by openpyxl's letter of its data type.
KINDS = {"n": "the number", "f": "the formula", "d": "the date", "b": "the truth value", "e": "the error"}

_MERGED = re.compile(rb"<(?:\w+:)?mergeCell\b[^<>]*\bref=[\"']([A-Z]{1,3}[0-9]{1,7}:[A-Z]{1,3}[0-9]{1,7})[\"']")


class Cell(NamedTuple):
    """A cell of the sheet."""

    kind: str = "n"  # openpyxl's letter of the data type
    value: Any = None
    is_repeated: bool = False  # merged with the one above


def sheet_rows(path: Path) -> Iterator[list[Cell]]:
    """Yield the rows of the first sheet from the top, also the empty ones; each ends with its last cell.

    Cells of one column that are merged below the header have the value of the first one in each row.

    Raises:
        ValueError: If the file is not a workbook, or unpacks to more than `MAX_UNPACKED_BYTES`.
    """
    _check_archive(path)
    try:
        workbook = openpyxl.load_workbook(path, read_only=True)
        try:
            sheet = workbook.worksheets[0]
            merged = _merged_columns(path, sheet._worksheet_path)  # openpyxl offers them only if all cells are loaded
            sheet.reset_dimensions()  # the stated size may be false, and padding to it endless
            rows = sheet.iter_rows(max_row=MAX_ROWS, max_col=MAX_COLUMNS)
            yield from _filled(([Cell(cell.data_type, _plain(cell.value)) for cell in row] for row in rows), merged)
        finally:
            workbook.close()
    except Exception as error:  # openpyxl raises anything for a damaged member: KeyError, ParseError, zlib.error, ...
        raise ValueError(f"{path} cannot be read as an .xlsx workbook: {type(error).__name__}: {error}") from error


def _plain(value: Any) -> Any:
    """Decode what XML cannot hold as it is: `_x000D_`, a carriage return that a database exported."""
    return unescape(value) if isinstance(value, str) and "_x" in value else value


def is_text(kind: str) -> bool:
    """Whether a cell of this kind is text."""
    return kind in ("s", "inlineStr", "str")


def _check_archive(path: Path) -> None:
    if not path.is_file():
        raise ValueError(f"{path} cannot be read as an .xlsx workbook: there is no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked_bytes = sum(member.file_size for member in archive.infolist())
    # NotImplementedError: packed in a way that `zipfile` does not know, or damaged so that it seems to be.
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ValueError(
            f"{path} cannot be read as an .xlsx workbook: {error}; if it has a password or is an .xls, save it as .xlsx"
        ) from error
    if unpacked_bytes > MAX_UNPACKED_BYTES:
        raise ValueError(f"{path} unpacks to {unpacked_bytes} bytes, more than {MAX_UNPACKED_BYTES}; save it as .csv")


MergedColumns = dict[int, list[tuple[int, int]]]  # by first row, from 1: columns, from 0, and their last rows


def _merged_columns(path: Path, member: str) -> MergedColumns:
    """Read which cells of a sheet are merged downwards."""
    with zipfile.ZipFile(path) as archive:
        xml = archive.read(member)
    merged = defaultdict(list)
    for match in _MERGED.finditer(xml):
        left, top, right, bottom = range_boundaries(match[1].decode())
        if left == right and 1 < top < bottom:  # across columns, or from a header: it holds for the first cell alone
            merged[top].append((left - 1, bottom))
    return merged


def _filled(rows: Iterator[list[Cell]], merged: MergedColumns) -> Iterator[list[Cell]]:
    """Repeat the value of merged cells in each of their rows."""
    repeated: dict[int, tuple[int, Cell]] = {}  # by column: last row and value
    for number, row in enumerate(rows, start=1):
        for column, (last, cell) in repeated.items():
            if number <= last:
                row += [Cell()] * (column + 1 - len(row))
                row[column] = cell
        for column, last in merged.get(number, ()):
            cell = row[column] if column < len(row) else Cell()
            repeated[column] = (last, cell._replace(is_repeated=True))
        while row and row[-1].value is None:  # openpyxl pads to `MAX_COLUMNS`
            row.pop()
        yield row
