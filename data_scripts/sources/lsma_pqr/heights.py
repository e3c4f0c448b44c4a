"""Read the disc heights of LSMA-PQR in mm, one for each patient and disc."""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from data_scripts.records import LEVELS, Exclusion, normalise_level
from data_scripts.sources.lsma_pqr.tables import LEVEL_OF_ANY_DISC, id_column_of, patient_id_of
from data_scripts.sources.tables import PatientRow, Row, columns_of, read_table

# Plausible heights. The published ones are between 1.26 and 15.25 mm; others are pixel counts or slips.
LOWEST_MM, HIGHEST_MM = 1.0, 25.0
MM_PER_UNIT = {"": 1.0, "mm": 1.0, "cm": 10.0}  # the documents of the set give the unit as mm

_HEIGHT = re.compile(r"height|(?<![a-z])ht(?![a-z])", re.IGNORECASE)
_DISC_WORDS = re.compile(r"intervertebral|ivd|disc", re.IGNORECASE)
_LEVEL_AND_UNIT = re.compile(r"(d[1-5]|l[1-6](?:l?[2-6]|s1)|)([a-z]*)")
_LEVEL_COLUMNS = ("level", "disc", "disclevel", "ivd", "ivdlevel")


@dataclass(frozen=True, kw_only=True)
class DiscHeight(PatientRow):
    """The height of a disc; `where` also names the column if the row has several heights."""

    level: str = ""  # as in the record
    height_mm: float | None = None  # between `LOWEST_MM` and `HIGHEST_MM`; None if there is a problem


@dataclass(frozen=True)
class _HeightColumn:
    name: str
    level: str  # empty if another column states it
    mm_per_unit: float


def read_disc_heights(path: Path) -> list[DiscHeight]:
    """Read the heights from one column per disc, as published (`D3_Ht`), or one row per disc (`Level`, `Height_mm`).

    Blank cells are skipped. An unusable height states its `problem`, as do several heights of one disc: we cannot know
    which one is right.

    Raises:
        ValueError: If the file is not a table, lacks a column, or gives heights in a unit that is neither mm nor cm.
    """
    rows = read_table(path)
    id_column = id_column_of(path, rows, ())
    columns = columns_of(rows)
    height_columns = [column for name in columns if (column := _height_column(path, name))]
    level_columns = [name for name in columns if _letters(name) in _LEVEL_COLUMNS]
    wide = [column for column in height_columns if column.level]
    long = [column for column in height_columns if not column.level]
    if wide and len({column.level for column in wide}) == len(wide) and not long:
        heights = [height for row in rows for height in _heights_of_row(row, id_column, wide, None)]
    elif len(long) == len(level_columns) == 1 and not wide:
        heights = [height for row in rows for height in _heights_of_row(row, id_column, long, level_columns[0])]
    else:
        raise ValueError(
            f"{path} must have one column of heights for each disc (D3_Ht, D4_Ht, D5_Ht), or the columns Level and "
            f"Height_mm; found: {', '.join(columns[:20])}"
        )
    count = Counter((height.patient_id, height.level) for height in heights if height.level)
    return [
        replace(height, height_mm=None, problem=f"patient {height.patient_id} has {number} heights at {height.level}")
        if not height.problem and (number := count[height.patient_id, height.level]) > 1
        else height
        for height in heights
    ]


def height_left_over(height: DiscHeight, has_images: bool) -> Exclusion | None:
    """Exclude a height with a problem, or of a patient without images; None for any other.

    Example:
        >>> height_left_over(DiscHeight(where="row 1, D3_Ht", problem="not a number: 'x'"), has_images=True)
        Exclusion(source='row 1, D3_Ht', reason="not a number: 'x'; images stay without it", by_rule=False)
    """
    if height.problem:
        return Exclusion(height.where, f"{height.problem}; images stay without it")
    return None if has_images else Exclusion(height.where, "height without an image", by_rule=True)


def height_in_mm(text: str, mm_per_unit: float) -> float:
    """Read a height; raise a ValueError for a text that is not a number, or not a plausible height.

    Example:
        >>> height_in_mm("9.87", mm_per_unit=1.0), height_in_mm("1.1", mm_per_unit=10.0)
        (9.87, 11.0)
    """
    try:
        height = float(text) * mm_per_unit
    except ValueError as error:
        raise ValueError(f"the disc height must be a number, got {text[:40]!r}") from error
    if not (math.isfinite(height) and LOWEST_MM <= height <= HIGHEST_MM):
        raise ValueError(f"the disc height must lie between {LOWEST_MM:g} and {HIGHEST_MM:g} mm, got {height:g} mm")
    return height


def _heights_of_row(
    row: Row, id_column: str, columns: list[_HeightColumn], level_column: str | None
) -> Iterator[DiscHeight]:
    """Read the heights of a row, whose level is that of each height's column or in its own column."""
    try:
        patient_id = patient_id_of(row, id_column)
        level_of_row = _level(row.text(level_column)) if level_column else ""
    except ValueError as error:
        yield DiscHeight(where=row.where, problem=str(error))
        return
    for column in columns:
        where = row.where if level_column else f"{row.where}, {column.name}"
        height = DiscHeight(where=where, patient_id=patient_id, level=level_of_row or column.level)
        try:
            if text := row.text(column.name):
                yield replace(height, height_mm=height_in_mm(text, column.mm_per_unit))
        except ValueError as error:
            yield replace(height, problem=str(error))


def _height_column(path: Path, name: str) -> _HeightColumn | None:
    """Recognise a column of heights by its name: `D3_Ht`, `L4-L5 height (cm)`, `Height_mm`."""
    match = _LEVEL_AND_UNIT.fullmatch(_letters(_DISC_WORDS.sub("", _HEIGHT.sub("", name))))
    names_height = _HEIGHT.search(name) is not None
    if match is None or not (names_height or match[1]):
        return None
    level, unit = match.groups()
    if unit in MM_PER_UNIT:
        return _HeightColumn(name, _level(level) if level else "", MM_PER_UNIT[unit])
    if names_height and level:
        raise ValueError(f"{path}: the heights in column {name!r} must be in mm or cm; convert them, or rename it")
    return None  # such as `D3_Coord`


def _level(text: str) -> str:
    level = LEVEL_OF_ANY_DISC.get(text.upper()) or normalise_level(text)
    if level not in LEVELS[: LEVELS.index("several")]:
        raise ValueError(f"unknown disc level {text[:20]!r}; allowed: {', '.join(LEVEL_OF_ANY_DISC)}, L3/L4, ...")
    return level


def _letters(name: str) -> str:
    return "".join(char for char in name.casefold() if char.isalnum())
