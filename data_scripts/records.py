"""The one record that every source yields, and the exclusion it yields instead when a row is bad."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

PLANES = ("axial", "sagittal", "coronal", "unknown")
SEQUENCES = ("T1", "T2", "T2_SPACE", "STIR", "PD", "other", "unknown")
LEVELS = ("T10/T11", "T11/T12", "T12/L1", "L1/L2", "L2/L3", "L3/L4", "L4/L5", "L5/S1", "several", "unknown")

LOW_BACK_PAIN = "LBP"
NO_FINDING = "No Finding"

SPLITS = ("train", "validation", "test")

NUM_DRAWN_PATIENTS = 400  # of a source that draws its own

# The licence of data that a user brings. It lets nothing be passed on.
NOT_STATED = "other: not stated"

# What tables hold where nobody knew the patient; grouping such rows as one patient would be wrong.
_UNKNOWN_PATIENTS = ("", "unknown", "nan", "none", "null", "n/a", "na", "n.a.", "<na>", "nat", "?", "-", "--")


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What a source needs to know before it is read.

    Args:
        raw: Folder of the raw studies; None for a source that draws its own.
        seed: Seed of whatever a source draws: pixels, wordings.
        num_patients: Patients to draw; sources that read files take all they find.
        notes: File of the written reports where it does not lie in `raw`.
        num_proc: Processes that may read at once.
        license: Licence of the user's own data, as `SourceAbout.license`; None when it was not stated.
    """

    raw: Path | None
    seed: int = 0
    num_patients: int = NUM_DRAWN_PATIENTS
    notes: Path | None = None
    num_proc: int = 1
    license: str | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    """One image with its report, before it is written.

    Pixels are loaded when the record is written, not when it is read: patients can be split, and a hundred
    thousand rows listed, without holding an image.

    Args:
        load_image: Returns the slice; grey, 8 bit (mode `L`) or 16 bit (`I;16`, windowed when written). A function
            of a module or a `functools.partial` of one, so that worker processes can receive it.
        load_mask: Returns the 8-bit class indices (mode `L`) of the same size as the image, or None.
        report: The original text. Not empty.
        rephrasings: Other wordings of the same facts.
        labels: Names of the classes present, each among the source's `label_names`.
        grade: Ordinal severity, among the source's `grade_names`, or None.
        patient_id: Pseudonym; everything of one patient goes to one split.
        study_id: Pseudonym of one examination.
        source: Data set and file, unique: the record's identity in `build_report.json`.
        pixel_spacing_mm: Side of a pixel of the stored image, in mm; None when unknown or not square.
        disc_height_mm: Height of the disc at `level`, as the source measured it; None when it did not.
        split: A split that the source prescribes (`train`, `validation`, `test`), or None to let us split.
    """

    load_image: Callable[[], Image.Image]
    report: str
    patient_id: str
    study_id: str
    source: str
    load_mask: Callable[[], Image.Image] | None = None
    rephrasings: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    grade: str | None = None
    plane: str = "unknown"
    sequence: str = "unknown"
    level: str = "unknown"
    pixel_spacing_mm: float | None = None
    disc_height_mm: float | None = None
    split: str | None = None


@dataclass(frozen=True)
class Exclusion:
    """A row that did not become a record: which, and why in words a user can act on.

    Args:
        source: As in `Record`.
        reason: What is wrong with it.
        by_rule: Left out by what the source is (a localizer, an empty note) and not because something is broken:
            listed, too, but not counted against `--max_bad`.
    """

    source: str
    reason: str
    by_rule: bool = False


@dataclass(frozen=True, kw_only=True)
class SourceAbout:
    """What a user wants to know of a source before anything is downloaded; each source module has one, `ABOUT`.

    Args:
        name: Name given to `--source`.
        summary: One sentence: which images, which reports, how many.
        license: Hub licence identifier (`cc-by-4.0`), or `other: ` and the data set's own words.
        citation: What to cite.
        size: Of the download.
        where: Where to get it, and which files `--raw` must hold.
        has_public_ids: Whether its patient ids are pseudonyms given by a public data set. Otherwise they are
            replaced when a dataset is built.
        may_be_shared: Whether its licence lets a built dataset be passed on.
        draws_patients: Whether it draws its own patients, as many as `--num_patients` says.
        reads_notes: Whether its written reports may lie elsewhere, where `--notes` says.
    """

    name: str
    summary: str
    license: str
    citation: str
    size: str
    where: str
    has_public_ids: bool = True
    may_be_shared: bool = True
    draws_patients: bool = False
    reads_notes: bool = False


@dataclass(frozen=True, kw_only=True)
class SourceInfo:
    """What the dataset card says of the records of a source, and their vocabularies.

    Args:
        about: The source.
        summary: One sentence on what was found; the source's own when empty.
        label_names: Every class that `Record.labels` may hold, in column order.
        grade_names: The ordinal scale of `Record.grade`, lowest first; empty when the source has none.
        mask_names: Name of each mask index, background first; empty when the source has no masks.
        report_origin: Who wrote the reports: `radiologist`, or how they were composed.
    """

    about: SourceAbout
    summary: str = ""
    label_names: tuple[str, ...]
    grade_names: tuple[str, ...] = ()
    mask_names: tuple[str, ...] = ()
    report_origin: str = field(default="radiologist")


def is_unknown_patient(patient_id: str) -> bool:
    """Whether an id is what tables hold where nobody knew the patient (`NA`, `?`, nothing)."""
    return patient_id.strip().casefold() in _UNKNOWN_PATIENTS


def record_problem(record: Record, info: SourceInfo) -> str | None:
    """Say why a record's fields cannot be written; None when they are in order.

    Pixels are not looked at: they are loaded, and judged, when the record is written.
    """
    if not record.report.strip():
        return "empty report"
    if is_unknown_patient(record.patient_id):
        return f"unknown patient: patient_id is {record.patient_id!r}"
    allowed_values: list[tuple[str, str | None, tuple[str, ...]]] = [
        ("plane", record.plane, PLANES),
        ("sequence", record.sequence, SEQUENCES),
        ("level", record.level, LEVELS),
        *(("label", label, info.label_names) for label in record.labels),
    ]
    if record.grade is not None:
        allowed_values.append(("grade", record.grade, info.grade_names))
    if record.split is not None:
        allowed_values.append(("split", record.split, SPLITS))
    for column, value, allowed in allowed_values:
        if value not in allowed:
            return f"unknown {column} {value!r}; allowed: {', '.join(allowed)}"
    if NO_FINDING in record.labels and len(set(record.labels)) > 1:
        return f"contradictory labels: {NO_FINDING!r} beside {sorted(set(record.labels) - {NO_FINDING})}"
    lengths = {"pixel_spacing_mm": record.pixel_spacing_mm, "disc_height_mm": record.disc_height_mm}
    for column, length in lengths.items():
        if length is not None and not (math.isfinite(length) and length > 0):
            return f"{column} must be a positive number, got {length}"
    return None


def normalise_level(text: str) -> str:
    """Spell a disc level as the record does; a level that is not known comes back as it is.

    Example:
        >>> [normalise_level(text) for text in ("L4-5", "l4-L5", "L5/S1", "T12 L1", "", "C5/C6")]
        ['L4/L5', 'L4/L5', 'L5/S1', 'T12/L1', 'unknown', 'C5/C6']
    """
    key = "".join(char for char in text.lower() if char.isalnum())
    return _LEVEL_SPELLINGS.get(key, text) if key else "unknown"


def _level_spellings() -> dict[str, str]:
    spellings = {}
    for level in LEVELS:
        upper, _, lower = level.partition("/")
        spellings[(upper + lower).lower()] = level
        if lower and upper[0] == lower[0]:
            spellings[(upper + lower[1:]).lower()] = level  # "L4-5"
    return spellings


_LEVEL_SPELLINGS = _level_spellings()
