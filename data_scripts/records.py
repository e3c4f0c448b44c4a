"""The record that every source yields, and the exclusion it yields instead of a bad row."""

import math
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from PIL import Image

PLANES = ("axial", "sagittal", "coronal", "unknown")
SEQUENCES = ("T1", "T2", "T2_SPACE", "STIR", "PD", "other", "unknown")
# From the top down; spines with a thirteenth thoracic or a sixth lumbar vertebra have discs of their own. A built
# dataset has the names that its numbers stand for, so new levels go where they belong.
LEVELS = (
    *("T9/T10", "T10/T11", "T11/T12", "T12/L1", "T12/T13", "T13/L1"),
    *("L1/L2", "L2/L3", "L3/L4", "L4/L5", "L5/S1", "L5/L6", "L6/S1", "S1/S2"),
    *("several", "unknown"),
)

LOW_BACK_PAIN = "LBP"
NO_FINDING = "No Finding"
PAPER_LABELS = (LOW_BACK_PAIN, NO_FINDING)  # the exclusive pair of the LumbarCLIP paper

# What images show, as cards and checkpoints spell it.
LUMBAR_SPINE = "lumbar spine"
KNEE = "knee"

SPLITS = ("train", "validation", "test")

BACKGROUND = "background"  # class 0 of every mask

# Who drew a mask. Pseudo-masks are computed from the image and its report: no truth to measure a model by.
SOURCE_MASK = "source"
PSEUDO_MASK = "pseudo"
MASK_ORIGINS = (SOURCE_MASK, PSEUDO_MASK)

MAX_SLICE_INDEX = 99_999  # thinner stacks than any scanner makes

NUM_DRAWN_PATIENTS = 400  # for a source that draws its own

# The default licence of a user's own data: nothing built from it may be shared.
NOT_STATED = "other: not stated"

# What people and programs write for "there is nothing", in small letters without brackets, dots and underscores.
_MISSING_WORDS = frozenset(
    {
        *(
            "",
            "nan",
            "none",
            "null",
            "nil",
            "na",
            "n/a",
            "n a",
            "nat",
            "k a",
            "unknown",
            "undefined",
            "missing",
            "pending",
        ),
        *(
            "#n/a",
            "#n/a n/a",
            "#na",
            "#n/d",
            "#nv",
            "-nan",
            "-nan(ind",
            "1 #ind",
            "-1 #ind",
            "1 #qnan",
            "-1 #qnan",
            "\\n",
        ),
        *(f"not {word}" for word in ("available", "reported", "applicable", "known", "stated", "recorded", "provided")),
        *("not given", "no data", "no value", "no report", "no report available", "report not available"),
        *("unavailable", "blank", "empty", "keine angabe", "n/d", "nd", "n d", "s/d", "tbd", "tba", "to be determined"),
        *("report pending", "pending report", "to follow", "report to follow", "awaiting report", "not yet reported"),
        *("see above", "as above", "same as above", "ditto", "idem", "see report", "see pacs", "see ris"),
    }
)
_LONGEST_MISSING = 40  # longer than any of them, with brackets and blanks around it
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u2060"
_ONLY_SIGNS = re.compile(rf"[-–—_.?/\\*…\s{_INVISIBLE}]*")
_AROUND_WORDS = "<>()[]{}\"' \t\r\n" + _INVISIBLE


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Options for reading a source."""

    raw: Path | None  # folder of the raw studies; None for a source that draws its own
    seed: int = 0  # for whatever a source draws: pixels, wordings
    num_patients: int = NUM_DRAWN_PATIENTS  # to draw; sources that read files take all they find
    plane: str = "axial"  # of the slices that a source draws; those of files have their own
    notes: Path | None = None  # file of the written reports, if it is not in `raw`
    num_proc: int = 1  # processes that may read at once
    slices: str | None = None  # of each volume, see `imaging.volumes.chosen_slices`; None: the source's default
    license: str | None = None  # licence of the user's own data, as `SourceAbout.license`; None if not stated
    crops: str | None = None  # what to cut out of volumes: `discs`; None for whole slices
    context_mm: float = 0.0  # margin around a crop
    mask_names: tuple[str, ...] = ()  # classes of the user's own masks, background first
    grades: str | None = None  # which grades, of a source that has several kinds; None: the source's default

    def raw_folder(self, content: str) -> Path:
        """Return `raw`; raise a ValueError that names the expected content if it is not a folder."""
        if self.raw is None or not self.raw.is_dir():
            found = "is not given" if self.raw is None else f"names no folder: {self.raw}"
            raise ValueError(f"--raw {found}. Name the folder with {content}.")
        return self.raw


@dataclass(frozen=True, kw_only=True)
class Record:
    """One image with its report, before it is written.

    Pixels are loaded when the record is written, not when it is read: patients can be split, and a hundred
    thousand rows listed, without holding an image. The loaders are functions of a module, or a `functools.partial` of
    one, so that worker processes can receive them.
    """

    load_image: Callable[[], Image.Image]  # grey, 8 bit (mode `L`) or 16 bit (`I;16`, windowed when written)
    report: str  # the text as typed, which the build scrubs and then normalises; not empty
    patient_id: str  # pseudonym; everything of one patient goes to one split
    study_id: str  # pseudonym of one examination
    source: str  # dataset and file, unique: the record's identity in `build_report.json`
    load_mask: Callable[[], Image.Image] | None = None  # 8-bit class indices (mode `L`), same size as the image
    # Classes that the mask marks wherever they are in the image, among the source's `mask_names` but for the
    # background. Others were not looked for: where the mask is 0, they may be. None: all of them.
    mask_classes: tuple[str, ...] | None = None
    gets_pseudo_mask: bool = False  # it has no mask: one is computed when it is written, if the image allows
    rephrasings: tuple[str, ...] = ()  # other wordings of the same facts
    # Classes present, each among the source's `label_names`; empty if it has none of them; None: not labelled.
    labels: tuple[str, ...] | None = None
    grade: str | None = None  # ordinal severity, among the source's `grade_names`
    plane: str = "unknown"
    sequence: str = "unknown"
    level: str = "unknown"
    series_id: str | None = None  # pseudonym of the stack of slices that the image is one of; None for a single image
    slice_index: int | None = None  # place in that stack, from 0, in the order of `imaging.volumes`
    pixel_spacing_mm: float | None = None  # side of a stored pixel; None if unknown or not square
    slice_spacing_mm: float | None = None  # distance to the next slice of the stack, between centres
    disc_height_mm: float | None = None  # height of the disc at `level`, as the source measured it
    split: str | None = None  # prescribed by the source; None to let us split


@dataclass(frozen=True)
class Exclusion:
    """A row that did not become a record."""

    source: str  # as in `Record`
    reason: str  # in words a user can act on
    # Left out for what it is (a localizer, an empty note), not for a defect: not counted against `--max_bad`.
    by_rule: bool = False


@dataclass(frozen=True, kw_only=True)
class SourceAbout:
    """What a user wants to know about a source before downloading it; each source module has one, `ABOUT`."""

    name: str  # as given to `--source`
    summary: str  # one sentence: which images, which reports, how many
    license: str  # a licence of the Hub (`cc-by-4.0`), or `other: ` and the dataset's own words
    citation: str
    size: str  # size of the download
    where: str  # where to get it, and which files `--raw` must contain
    anatomy: str = LUMBAR_SPINE  # what its images show, a noun in small letters; decides how a model is prompted
    has_public_ids: bool = True  # its patient ids are published pseudonyms; otherwise the build replaces them
    may_be_shared: bool = True  # its licence lets a built dataset be shared
    draws_patients: bool = False  # it draws `--num_patients` patients
    reads_volumes: bool = False  # it takes `--slices` of each volume
    has_own_masks: bool = False  # its masks are the user's own: `--mask_names` names their classes
    reads_notes: bool = False  # its written reports may lie elsewhere, at `--notes`
    kinds_of_grades: tuple[str, ...] = ()  # what `--grades` may name, the default first; empty: it has one kind
    cuts_crops: bool = False  # it cuts what `--crops` names out of its volumes
    labels_from: Literal["source", "reports", "grades"] = "source"  # `grades`: its reports were composed from them, too


@dataclass(frozen=True, kw_only=True)
class SourceInfo:
    """What the dataset card says about a source's records, and their vocabularies."""

    about: SourceAbout
    summary: str = ""  # one sentence on what was found; the source's own if empty
    label_names: tuple[str, ...]  # every class that `Record.labels` may hold, in column order
    grade_names: tuple[str, ...] = ()  # scale of `Record.grade`, lowest first
    mask_names: tuple[str, ...] = ()  # name of each mask index, background first
    report_origin: str = "radiologist"  # who wrote the reports, or how they were composed


def paper_labels(labels: Collection[str] | None) -> tuple[str, ...] | None:
    """Reduce the labels of a row to the paper's pair: any finding is `LBP`; a row without labels has neither, None.

    Example:
        >>> [paper_labels(labels) for labels in (("LBP", "disc bulge"), ("disc bulge",), ("No Finding",), (), None)]
        [('LBP',), ('LBP',), ('No Finding',), None, None]
    """
    is_present = {LOW_BACK_PAIN: set(labels or ()) - {NO_FINDING}, NO_FINDING: NO_FINDING in (labels or ())}
    return tuple(name for name in PAPER_LABELS if is_present[name]) or None


@lru_cache(maxsize=4096)  # the cells of a table repeat
def is_missing(text: str) -> bool:
    """Whether a cell of a table says that there is nothing: empty, a dash or a question mark, or a word for it.

    Example:
        >>> [is_missing(text) for text in ("", "NaN", "<NA>", "N/A", "n.a.", "--", "not_available", "Normal", "NA-1")]
        [True, True, True, True, True, True, True, False, False]
    """
    if _ONLY_SIGNS.fullmatch(text):
        return True
    if len(text) > _LONGEST_MISSING:
        return False
    return " ".join(re.split(r"[\s._]+", text.casefold().strip(_AROUND_WORDS))).strip() in _MISSING_WORDS


def says_anything(text: str) -> bool:
    """Whether a text has a letter or a digit."""
    return any(map(str.isalnum, text))


def record_problem(record: Record, info: SourceInfo) -> str | None:
    """Say why a record's fields cannot be written; None if they can. Pixels are checked later, when loaded."""
    if not says_anything(record.report) or is_missing(record.report):
        return f"empty report: {record.report!r}" if record.report.strip() else "empty report"
    if is_missing(record.patient_id):
        return f"unknown patient: patient_id is {record.patient_id!r}"
    allowed_values: list[tuple[str, str | None, tuple[str, ...]]] = [
        ("plane", record.plane, PLANES),
        ("sequence", record.sequence, SEQUENCES),
        ("level", record.level, LEVELS),
        *(("label", label, info.label_names) for label in record.labels or ()),
        ("grade", record.grade, info.grade_names),
        ("split", record.split, SPLITS),
        *(("mask class", name, info.mask_names[1:]) for name in record.mask_classes or ()),
    ]
    for column, value, allowed in allowed_values:
        if value is not None and value not in allowed:
            return f"unknown {column} {value!r}; allowed: {', '.join(allowed)}"
    if record.labels and NO_FINDING in record.labels and len(set(record.labels)) > 1:
        return f"contradictory labels: {NO_FINDING!r} together with {sorted(set(record.labels) - {NO_FINDING})}"
    if record.slice_index is not None and not 0 <= record.slice_index <= MAX_SLICE_INDEX:
        return f"slice_index must be 0 to {MAX_SLICE_INDEX}, got {record.slice_index}"
    for column in ("pixel_spacing_mm", "slice_spacing_mm", "disc_height_mm"):
        length = getattr(record, column)
        if length is not None and not (math.isfinite(length) and length > 0):
            return f"{column} must be a positive number, got {length}"
    return None


_LEVEL_OF_LETTERS = {level.replace("/", "").lower(): level for level in LEVELS} | {
    re.sub("/[TLS]", "", level).lower(): level
    for level in LEVELS  # "L4-5", "L5-1"
}


def normalise_level(text: str) -> str:
    """Spell a disc level as the record does; an unknown level is returned unchanged.

    Example:
        >>> [normalise_level(text) for text in ("L4-5", "l4-L5", "L5-1", "Th12 L1", "", "C5/C6")]
        ['L4/L5', 'L4/L5', 'L5/S1', 'T12/L1', 'unknown', 'C5/C6']
    """
    letters = "".join(char for char in text.lower() if char.isalnum())
    key = re.sub("(?:th|d)(?=[0-9])", "t", letters)
    return _LEVEL_OF_LETTERS.get(key, text) if key else "unknown"
