"""Read the tables of the RSNA 2024 lumbar set: grades of studies, descriptions of series, positions of labels."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data_scripts.records import Exclusion
from data_scripts.sources.rsna2024.captions import CONDITIONS, SEVERITIES
from data_scripts.sources.tables import Row, check_one_of, read_table

LEVELS = ("L1/L2", "L2/L3", "L3/L4", "L4/L5", "L5/S1")
DESCRIPTIONS = ("Sagittal T1", "Sagittal T2/STIR", "Axial T2")

GRADES_TABLE = "train.csv"
SERIES_TABLE = "train_series_descriptions.csv"
LABELS_TABLE = "train_label_coordinates.csv"

Label = tuple[str, str]  # condition, level

_ID = re.compile(r"[A-Za-z0-9_-]+")  # becomes a part of a path
_COLUMN_OF_LABEL = {
    (condition, level): f"{condition}_{level.replace('/', '_').lower()}" for condition in CONDITIONS for level in LEVELS
}
_LABEL_OF_COLUMN = {column: label for label, column in _COLUMN_OF_LABEL.items()}


@dataclass(frozen=True, kw_only=True)
class Series:
    """A series of a study."""

    study: str
    series: str  # its own id
    description: str  # among `DESCRIPTIONS`
    labels_of_instance: dict[int, set[Label]] = field(default_factory=dict)  # labels that point at each image


@dataclass(frozen=True)
class RsnaTables:
    """The contents of the tables."""

    grades_of_study: dict[str, dict[Label, str]]  # severity of each graded label
    series: list[Series]  # in the order of their table
    exclusions: list[Exclusion]  # unusable rows


def read_tables(raw: Path) -> RsnaTables:
    """Read the tables of a download; raise a ValueError if one lacks a column or cannot be read."""
    tables = RsnaTables({}, [], [])
    _read_grades(raw / GRADES_TABLE, tables)
    series_of_id = _read_series(raw / SERIES_TABLE, tables)
    if (raw / LABELS_TABLE).is_file():
        _read_labels(raw / LABELS_TABLE, series_of_id, tables)
    return tables


def _read_grades(path: Path, tables: RsnaTables) -> None:
    row_of_study: dict[str, Row] = {}
    for row in _usable_rows(path, ("study_id", *_COLUMN_OF_LABEL.values()), tables):
        try:
            study = _id(row, "study_id")
            if study in row_of_study:
                tables.grades_of_study.pop(study, None)
                raise ValueError(f"study {study} is repeated, first in {row_of_study[study].where}; keep one row")
            row_of_study[study] = row
            tables.grades_of_study[study] = _grades(row)
        except ValueError as error:
            tables.exclusions.append(Exclusion(row.where, str(error)))


def _grades(row: Row) -> dict[Label, str]:
    grades = {}
    for label, column in _COLUMN_OF_LABEL.items():
        severity = row.text(column)
        if severity and severity not in SEVERITIES:
            raise ValueError(f"unknown {column} {severity!r}; allowed: {', '.join(SEVERITIES)} or blank")
        if severity:
            grades[label] = severity
    return grades


def _read_series(path: Path, tables: RsnaTables) -> dict[tuple[str, str], Series]:
    series_of_id: dict[tuple[str, str], Series] = {}
    for row in _usable_rows(path, ("study_id", "series_id", "series_description"), tables):
        try:
            series = Series(
                study=_id(row, "study_id"),
                series=_id(row, "series_id"),
                description=check_one_of("series_description", row.text("series_description"), DESCRIPTIONS),
            )
            if (series.study, series.series) in series_of_id:
                raise ValueError(f"series {series.series} of study {series.study} is described twice")
            series_of_id[series.study, series.series] = series
            tables.series.append(series)
        except ValueError as error:
            tables.exclusions.append(Exclusion(row.where, str(error)))
    return series_of_id


def _read_labels(path: Path, series_of_id: dict[tuple[str, str], Series], tables: RsnaTables) -> None:
    columns = ("study_id", "series_id", "instance_number", "condition", "level")
    for row in _usable_rows(path, columns, tables):
        try:
            study, series = _id(row, "study_id"), _id(row, "series_id")
            if (study, series) not in series_of_id:
                raise ValueError(f"series {series} of study {study} is not in {SERIES_TABLE}")
            instance = row.text("instance_number")
            if not re.fullmatch(r"[0-9]{1,9}", instance):
                raise ValueError(f"instance_number must be a whole number, got {instance[:40]!r}")
            label = _label(row.text("condition"), row.text("level"))
            series_of_id[study, series].labels_of_instance.setdefault(int(instance), set()).add(label)
        except ValueError as error:
            tables.exclusions.append(Exclusion(row.where, str(error)))


def _label(condition: str, level: str) -> Label:
    """Read `Left Neural Foraminal Narrowing` and `L4/L5` as the grades' columns spell them."""
    column = re.sub(r"[ /]", "_", f"{condition} {level}").lower()
    if column not in _LABEL_OF_COLUMN:
        raise ValueError(f"unknown condition and level {condition[:60]!r}, {level[:20]!r}")
    return _LABEL_OF_COLUMN[column]


def _usable_rows(path: Path, columns: tuple[str, ...], tables: RsnaTables) -> Iterator[Row]:
    for row in read_table(path, columns):
        if row.problem:
            tables.exclusions.append(Exclusion(row.where, row.problem))
        else:
            yield row


def _id(row: Row, column: str) -> str:
    text = row.text(column)
    if not _ID.fullmatch(text):
        raise ValueError(f"{column} must be letters and digits, got {text[:40]!r}")
    return text
