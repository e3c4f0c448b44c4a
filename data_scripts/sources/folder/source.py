"""Your own data: a table next to the images, one row per image.

    my_study/
        metadata.csv          or .tsv, .jsonl, .xlsx; or any single table of these
        reports.csv           perhaps: `study_id` and `report`, for studies of several images
        images/0001.png       named in the table, relative to the folder

`file_name`, `report` and `patient_id` are required. Optional columns are those of the record: `study_id`, `series_id`,
`slice_index`, `labels` (separated by `;`, a list in JSON lines), `grade`, `plane`, `sequence`, `level`,
`pixel_spacing_mm`, `slice_spacing_mm`, `disc_height_mm` (of the disc at `level`), `mask` (a file name), `rephrasings`
(separated by `|`, a list in JSON lines) and `split`, which is given for all rows or for none.

An empty cell, and whatever `records.is_missing` reads as one, says nothing: a row without `labels` is not labelled.
That nothing was found is said by `none`, `No Finding`, `-` or an empty list. A row without a report takes that of its
study, from another row of the same `study_id` or from `reports.csv`.

An image may also be a DICOM file, whatever its name, a NIfTI or MetaImage volume, or a folder of DICOM slices. Each
slice of a volume becomes a row, see `--slices`. The header gives plane, sequence and spacing where the table does not,
but never the patient. A slice's mask is drawn on it as the file stores it: both are turned, and brought to square
pixels, together.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from data_scripts.imaging.voxel_grid import SLICE_DIRECTIONS
from data_scripts.records import (
    NO_FINDING,
    NOT_STATED,
    SEQUENCES,
    Exclusion,
    ReadOptions,
    Record,
    SourceAbout,
    SourceInfo,
    is_missing,
    normalise_level,
)
from data_scripts.sources.folder.ids import ID_COLUMNS, check_no_date, check_spellings, dates_among, lookalikes, read_id
from data_scripts.sources.folder.labels import read_labels, warn_of_labels
from data_scripts.sources.folder.names import find_file
from data_scripts.sources.folder.pictures import Picture, pictures_of
from data_scripts.sources.folder.reports import StudyReports
from data_scripts.sources.tables import TABLE_SUFFIXES, Row, columns_of, read_table

ABOUT = SourceAbout(
    name="folder",
    summary="Your own images or volumes and reports: a table next to the files, one row per file.",
    license=NOT_STATED,
    citation="not stated",
    size="yours",
    where="your folder: metadata.csv, .tsv, .jsonl or .xlsx (file_name, report, patient_id, ...), and the images",
    has_public_ids=False,
    may_be_shared=False,
    reads_volumes=True,
    has_own_masks=True,
)
REQUIRED_COLUMNS = ("file_name", "report", "patient_id")
OPTIONAL_COLUMNS = (
    "study_id",
    "series_id",
    "slice_index",
    "labels",
    "grade",
    "plane",
    "sequence",
    "level",
    "pixel_spacing_mm",
    "slice_spacing_mm",
    "disc_height_mm",
    "mask",
    "rephrasings",
    "split",
)
SPLIT_SPELLINGS = {"val": "validation", "valid": "validation", "dev": "validation"}
_OTHER_TABLES = (".xls", ".xlsm", ".xlsb", ".ods", ".numbers", ".json", ".parquet")
_PICTURE_COLUMNS = ("plane", "sequence", "series_id", "slice_index", "pixel_spacing_mm", "slice_spacing_mm")
# Beside one of these, the grade "none" is the lowest of a scale; beside others it says that there is no grade.
_SEVERITIES = re.compile(r"\b(?:minimal|mild|slight|moderate|marked|severe)\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class _Tables:
    raw: Path
    rows: Sequence[Row]  # of the images
    reports: Path | None  # the table of reports

    def items(self, options: ReadOptions) -> Iterator[Record | Exclusion]:
        """Yield the rows of the images, then the reports that cannot be used."""
        reading = _Reading(
            raw=self.raw,
            reports=StudyReports(self.rows, self.reports),
            dates=dates_among(self.rows),
            is_split=any(_is_given(row, "split") for row in self.rows),
            slices=options.slices or "all",
            none_is_grade=any(_SEVERITIES.search(str(row.cells.get("grade"))) for row in self.rows),
        )
        for row in self.rows:
            try:
                yield from _records(row, reading)
            except ValueError as error:
                yield Exclusion(row.where, str(error))
        yield from reading.reports.problems


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """What a row is read by: the folder, and what all rows say together."""

    raw: Path
    reports: StudyReports
    dates: Mapping[str, set[str]]  # ids that are dates, by column
    is_split: bool  # whether rows have a `split`
    slices: str  # of each volume
    none_is_grade: bool


def describe(options: ReadOptions) -> SourceInfo:
    """Collect the vocabularies of labels and grades from the table.

    Raises:
        ValueError: If the folder or its table is missing, ambiguous or malformed, or a class or patient has several
            spellings.
    """
    tables = _read_tables(options)
    records = [item for item in tables.items(options) if isinstance(item, Record)]
    labels = {label for record in records for label in record.labels or ()}
    if pair := lookalikes(labels, str.casefold):
        raise ValueError(f"labels {pair[0]!r} and {pair[1]!r} differ only in case; spell a class one way")
    warn_of_labels(tables.rows, labels)
    return SourceInfo(
        about=replace(ABOUT, license=options.license, may_be_shared=True) if options.license else ABOUT,
        label_names=tuple(sorted(labels, key=lambda label: (label == NO_FINDING, label))),
        grade_names=tuple(sorted({record.grade for record in records if record.grade}, key=_grade_order)),
        mask_names=options.mask_names,
        report_origin="as given in the table",
    )


def read(options: ReadOptions) -> Iterator[Record | Exclusion]:
    """Yield each row of the table as a record or an exclusion; raise a ValueError as `describe` does."""
    yield from _read_tables(options).items(options)


def _read_tables(options: ReadOptions) -> _Tables:
    raw = options.raw_folder("images and a table").resolve()
    tables = sorted(path for path in raw.iterdir() if path.suffix.lower() in TABLE_SUFFIXES)
    reports = _only_table(raw, [path for path in tables if path.stem.casefold() == "reports"], "reports")
    path = _images_table(raw, tables, reports)
    if path == reports:
        reports = None  # the only table, of the images
    rows = read_table(path, known=(*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS))
    _check_columns(path, columns_of(rows), reports)
    check_spellings(rows)
    return _Tables(raw=raw, rows=rows, reports=reports)


def _images_table(raw: Path, tables: Sequence[Path], reports: Path | None) -> Path:
    named = [path for path in tables if path.stem.casefold() == "metadata"]
    # A text file of another name is a note, and ~$ marks what Excel has open.
    others = [path for path in tables if path.suffix.lower() != ".txt" and not path.name.startswith(("~$", "."))]
    path = _only_table(raw, named or [path for path in others if path != reports] or others, "metadata")
    if path is None:
        endings = ", ".join(suffix for suffix in TABLE_SUFFIXES if suffix != ".txt")
        exports = sorted(file.name for file in raw.iterdir() if file.suffix.lower() in _OTHER_TABLES)
        export = f"; export {exports[0]} as one of these" if exports else ""
        raise ValueError(f"{raw} has no table; expected metadata.csv, or another that ends in {endings}{export}")
    return path


def _only_table(raw: Path, found: Sequence[Path], name: str) -> Path | None:
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{raw} must contain one table of {name}, such as {name}.csv; found: {names}")
    return found[0] if found else None


def _check_columns(path: Path, columns: Sequence[str], reports: Path | None) -> None:
    """Raise a ValueError if a column is missing or unknown."""
    missing = [name for name in REQUIRED_COLUMNS if name not in columns and not (name == "report" and reports)]
    known = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
    unknown = [column for column in columns if column not in known]
    if not missing and not unknown:
        return
    nearest = {name: difflib.get_close_matches(name.lower(), known, n=1) for name in unknown}
    hints = [
        f"{name[:40]!r} (did you mean {close[0]!r}?)" if close else repr(name[:40]) for name, close in nearest.items()
    ]
    raise ValueError(
        f"{path} "
        + " and ".join(
            [f"lacks the columns {', '.join(missing)}"] * bool(missing)
            + [f"has the unknown columns {', '.join(hints)}"] * bool(unknown)
        )
        + f". Required: {', '.join(REQUIRED_COLUMNS)}; optional: {', '.join(OPTIONAL_COLUMNS)}. "
        "Separate them by commas, semicolons or tabs."
    )


def _is_given(row: Row, column: str) -> bool:
    value = row.cells.get(column)
    return not (value is None or is_missing(str(value)))


def _records(row: Row, reading: _Reading) -> Iterator[Record | Exclusion]:
    """Make a record of each picture of a row's file, and an exclusion of each series that makes no volume."""
    if row.problem:
        raise ValueError(row.problem)
    if reading.is_split and not _is_given(row, "split"):
        raise ValueError("no split, although other rows have it; give it for all rows or for none")
    whole = _record(row, reading)
    mask_name = row.text("mask")
    path = find_file(reading.raw, row.written("file_name"), "image")
    mask_path = find_file(reading.raw, mask_name, "mask") if mask_name else None
    plane = whole.plane if whole.plane in SLICE_DIRECTIONS else None
    pictures = pictures_of(path, mask_path, plane, reading.slices)
    if len(pictures) > 1 and (own := [column for column in ("series_id", "slice_index") if _is_given(row, column)]):
        raise ValueError(f"{' and '.join(own)} given for a file of several slices, which have their own; leave it out")
    file = f"{reading.raw.name}/{path.relative_to(reading.raw).as_posix()}"
    for picture in pictures:
        if isinstance(picture, ValueError):
            yield Exclusion(row.where, str(picture))
        else:
            yield _with_picture(whole, picture, file)


def _with_picture(record: Record, picture: Picture, file: str) -> Record:
    """Complete a record by a picture of a file; what the table says outranks what the file says."""
    if picture.series_id == "":  # a volume whose format has no ids
        picture = replace(picture, series_id=file)
    said = {name: getattr(record, name) for name in _PICTURE_COLUMNS}
    return replace(
        record,
        load_image=picture.load_image,
        load_mask=picture.load_mask,
        source=f"{file} {picture.part}".strip(),
        **{name: getattr(picture, name) if value in (None, "unknown") else value for name, value in said.items()},
    )


def _record(row: Row, reading: _Reading) -> Record:
    """Make the record of a row, without its picture."""
    patient_id, study_id = (read_id(row, column) for column in ID_COLUMNS)
    for column, text in zip(ID_COLUMNS, (patient_id, study_id), strict=True):
        check_no_date(column, text, reading.dates[column])
    split = row.text("split").lower()
    grade = row.written("grade")
    return Record(
        load_image=_no_image,
        report=reading.reports.of(row),
        rephrasings=row.texts("rephrasings", "|"),
        labels=read_labels(row),
        grade=grade if reading.none_is_grade and grade.casefold() == "none" else row.text("grade") or None,
        patient_id=patient_id,
        study_id=patient_id if is_missing(study_id) else study_id,
        series_id=None if is_missing(series_id := read_id(row, "series_id")) else series_id,
        slice_index=_index_or_none(row, "slice_index"),
        plane=row.text("plane").lower() or "unknown",
        sequence=_normalise_sequence(row.text("sequence")),
        level=normalise_level(row.text("level")),
        pixel_spacing_mm=row.number("pixel_spacing_mm"),
        slice_spacing_mm=row.number("slice_spacing_mm"),
        disc_height_mm=row.number("disc_height_mm"),
        split=SPLIT_SPELLINGS.get(split, split) or None,
        source=row.where,
    )


def _no_image() -> Image.Image:
    raise AssertionError("the record has no picture yet")


def _normalise_sequence(text: str) -> str:
    key = text.upper().replace(" ", "_").replace("-", "_")
    return next((name for name in SEQUENCES if name.upper() == key), text) if text else "unknown"


def _index_or_none(row: Row, column: str) -> int | None:
    number = row.number(column)
    if number is not None and not number.is_integer():
        raise ValueError(f"{column} must be a whole number, got {row.text(column)!r}")
    return None if number is None else int(number)


def _grade_order(grade: str) -> tuple[float, str]:
    """Sort numbers by value, then the rest by spelling."""
    try:
        return float(grade), grade
    except ValueError:
        return float("inf"), grade
