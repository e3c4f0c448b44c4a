"""Your own data: a table next to the images, one row per image.

    my_study/
        metadata.csv          or metadata.jsonl, or any single .csv or .jsonl file
        images/0001.png       named in the table, relative to the folder

`file_name`, `report` and `patient_id` are required. Optional columns are those of the record: `study_id`, `series_id`,
`slice_index`, `labels` (separated by `;` in CSV, a list in JSON lines), `grade`, `plane`, `sequence`, `level`,
`pixel_spacing_mm`, `slice_spacing_mm`, `disc_height_mm` (of the disc at `level`), `mask` (a file name), `rephrasings`
(separated by `|` in CSV, a list in JSON lines) and `split`. Labels and splits are given for all rows or for none; in
JSON lines an empty list says that none of the classes is present.

An image may also be a DICOM file of one frame, whatever its name. Its header then gives plane, sequence and pixel
spacing where the table does not, but never the patient.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

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
    is_unknown_patient,
    normalise_level,
)
from data_scripts.sources.folder.names import find_file
from data_scripts.sources.folder.pictures import Picture, pictures_of
from data_scripts.sources.tables import Row, columns_of, read_table

ABOUT = SourceAbout(
    name="folder",
    summary="Your own images and reports: a table next to the images, one row per image.",
    license=NOT_STATED,
    citation="not stated",
    size="yours",
    where="your folder: metadata.csv or metadata.jsonl (file_name, report, patient_id, ...) and the images it names",
    has_public_ids=False,
    may_be_shared=False,
    reads_volumes=True,
)
REQUIRED_COLUMNS = ("file_name", "report", "patient_id")
ALL_OR_NONE_COLUMNS = ("labels", "split")
OPTIONAL_COLUMNS = (
    "study_id",
    "series_id",
    "slice_index",
    "grade",
    "plane",
    "sequence",
    "level",
    "pixel_spacing_mm",
    "slice_spacing_mm",
    "disc_height_mm",
    "mask",
    "rephrasings",
    *ALL_OR_NONE_COLUMNS,
)
SPLIT_SPELLINGS = {"val": "validation", "valid": "validation", "dev": "validation"}


def describe(options: ReadOptions) -> SourceInfo:
    """Collect the vocabularies of labels and grades from the table.

    Raises:
        ValueError: If the folder or its table is missing, ambiguous or malformed, or a class or patient has several
            spellings.
    """
    records = [item for item in read(options) if isinstance(item, Record)]
    labels = {label for record in records for label in record.labels or ()}
    if pair := _lookalikes(labels, str.casefold):
        raise ValueError(f"labels {pair[0]!r} and {pair[1]!r} differ only in case; spell a class one way")
    return SourceInfo(
        about=replace(ABOUT, license=options.license, may_be_shared=True) if options.license else ABOUT,
        label_names=tuple(sorted(labels, key=lambda label: (label == NO_FINDING, label))),
        grade_names=tuple(sorted({record.grade for record in records if record.grade}, key=_grade_order)),
        report_origin="as given in the table",
    )


def read(options: ReadOptions) -> Iterator[Record | Exclusion]:
    """Yield each row of the table as a record or an exclusion; raise a ValueError as `describe` does."""
    raw, rows = _read_rows(options)
    needed = [column for column in ALL_OR_NONE_COLUMNS if any(_is_given(row, column) for row in rows)]
    for row in rows:
        try:
            yield from _records(row, raw, needed, options.slices)
        except ValueError as error:
            yield Exclusion(row.where, str(error))


def _read_rows(options: ReadOptions) -> tuple[Path, list[Row]]:
    raw = options.raw_folder("images and a table").resolve()
    rows = read_table(_find_table(raw))
    columns = columns_of(rows)
    missing = [column for column in REQUIRED_COLUMNS if column not in columns]
    known = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS)
    unknown = [column for column in columns if column not in known]
    if missing or unknown:
        nearest = {name: difflib.get_close_matches(name.lower(), known, n=1) for name in unknown}
        hints = [f"{name!r} (did you mean {close[0]!r}?)" if close else repr(name) for name, close in nearest.items()]
        raise ValueError(
            f"the table of {raw} "
            + " and ".join(
                [f"lacks the columns {', '.join(missing)}"] * bool(missing)
                + [f"has the unknown columns {', '.join(hints)}"] * bool(unknown)
            )
            + f". Required: {', '.join(REQUIRED_COLUMNS)}; optional: {', '.join(OPTIONAL_COLUMNS)}; "
            "CSV fields are separated by commas."
        )
    ids = {str(row.cells.get("patient_id", "")).strip() for row in rows if not row.problem}
    # They would count as two patients, and could go to two splits.
    if pair := _lookalikes((patient_id for patient_id in ids if not is_unknown_patient(patient_id)), _patient_key):
        raise ValueError(
            f"patient_id {pair[0]!r} and {pair[1]!r} differ only in case, leading zeros or '.0'; spell a patient one "
            "way, and give different patients more distinct ids"
        )
    return raw, rows


def _find_table(raw: Path) -> Path:
    named = [raw / name for name in ("metadata.csv", "metadata.jsonl") if (raw / name).is_file()]
    tables = named or sorted(path for path in raw.iterdir() if path.suffix in (".csv", ".jsonl"))
    if len(tables) != 1:
        found = ", ".join(path.name for path in tables) or "none"
        raise ValueError(f"{raw} must contain exactly one table, metadata.csv or metadata.jsonl; found: {found}")
    return tables[0]


def _is_given(row: Row, column: str) -> bool:
    return row.cells.get(column) not in (None, "")


def _records(row: Row, raw: Path, needed: list[str], slices: str) -> Iterator[Record | Exclusion]:
    """Make a record of each picture of a row's file."""
    if row.problem:
        raise ValueError(row.problem)
    for column in needed:
        if not _is_given(row, column):
            raise ValueError(f"no {column}, although other rows have it; give it for all rows or for none")
    path = find_file(raw, row.text("file_name"), "image")
    mask_name = row.text("mask")
    mask_path = find_file(raw, mask_name, "mask") if mask_name else None
    plane = row.text("plane").lower()
    pictures = pictures_of(path, mask_path, plane if plane in SLICE_DIRECTIONS else None, slices)
    if len(pictures) > 1 and (own := [column for column in ("series_id", "slice_index") if row.text(column)]):
        raise ValueError(f"{' and '.join(own)} given for a file of several slices, which have their own; leave it out")
    source = f"{raw.name}/{path.relative_to(raw).as_posix()}"
    for picture in pictures:
        if isinstance(picture, ValueError):
            yield Exclusion(row.where, str(picture))
        else:
            yield _record(row, picture, source)


def _record(row: Row, picture: Picture, file: str) -> Record:
    """Make the record of a picture of a file; what the table says outranks what the file says."""
    split = row.text("split").lower()
    slice_index = _index_or_none(row, "slice_index")
    pixel_spacing_mm, slice_spacing_mm = (_number_or_none(row, f"{name}_spacing_mm") for name in ("pixel", "slice"))
    return Record(
        load_image=picture.load_image,
        load_mask=picture.load_mask,
        report=row.text("report"),
        rephrasings=row.texts("rephrasings", "|"),
        labels=_labels(row),
        grade=row.text("grade") or None,
        patient_id=row.text("patient_id"),
        study_id=row.text("study_id") or row.text("patient_id"),
        series_id=row.text("series_id") or (file if picture.series_id == "" else picture.series_id),
        slice_index=picture.slice_index if slice_index is None else slice_index,
        plane=row.text("plane").lower() or picture.plane,
        sequence=_normalise_sequence(row.text("sequence")) if row.text("sequence") else picture.sequence,
        level=normalise_level(row.text("level")),
        pixel_spacing_mm=picture.pixel_spacing_mm if pixel_spacing_mm is None else pixel_spacing_mm,
        slice_spacing_mm=picture.slice_spacing_mm if slice_spacing_mm is None else slice_spacing_mm,
        disc_height_mm=_number_or_none(row, "disc_height_mm"),
        split=SPLIT_SPELLINGS.get(split, split) or None,
        source=f"{file} {picture.part}".strip(),
    )


def _labels(row: Row) -> tuple[str, ...] | None:
    if not _is_given(row, "labels"):
        return None
    labels = row.texts("labels", ";")
    return tuple(NO_FINDING if label.casefold() == NO_FINDING.casefold() else label for label in labels)


def _lookalikes(names: Iterable[str], key: Callable[[str], str]) -> tuple[str, str] | None:
    spellings: dict[str, str] = {}
    for name in sorted(names):
        if (other := spellings.setdefault(key(name), name)) != name:
            return other, name
    return None


def _patient_key(patient_id: str) -> str:
    """Reduce an id to the part that its spellings share.

    Example:
        >>> [_patient_key(patient_id) for patient_id in ("P001", "p1", "0010", "10.0", "1.2.0", "a-05")]
        ['p1', 'p1', '10', '10', '1.2.0', 'a-5']
    """
    without_decimals = re.sub(r"^([0-9]+)\.0+$", r"\1", patient_id.casefold())
    return re.sub(r"(?<![0-9.])0+(?=[0-9])", "", without_decimals)


def _normalise_sequence(text: str) -> str:
    key = text.upper().replace(" ", "_").replace("-", "_")
    return next((name for name in SEQUENCES if name.upper() == key), text)


def _number_or_none(row: Row, column: str) -> float | None:
    text = row.text(column)
    try:
        return float(text) if text else None
    except ValueError as error:
        raise ValueError(f"{column} must be a number, got {text!r}") from error


def _index_or_none(row: Row, column: str) -> int | None:
    number = _number_or_none(row, column)
    if number is not None and not number.is_integer():
        raise ValueError(f"{column} must be a whole number, got {row.text(column)!r}")
    return None if number is None else int(number)


def _grade_order(grade: str) -> tuple[float, str]:
    """Sort numbers by value, then the rest by spelling."""
    try:
        return float(grade), grade
    except ValueError:
        return float("inf"), grade
