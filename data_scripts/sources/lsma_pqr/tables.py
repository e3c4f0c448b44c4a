"""Read the tables of LSMA-PQR: structured notes and Pfirrmann grades, one row per patient."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from data_scripts.records import LOW_BACK_PAIN, NO_FINDING
from data_scripts.reports.phrasing import as_text
from data_scripts.reports.text import labels_from_report
from data_scripts.sources.notes import Note
from data_scripts.sources.slice_names import LEVEL_OF_DISC
from data_scripts.sources.tables import PatientRow, Row, check_one_of, columns_of, mark_repeated, read_table

PATIENT_COLUMNS = ("PatientID", "Patient_ID")
TEXT_COLUMN = "ClinicalNotes"
# Muscle spasm is not a class: it has no level, and is no low back pain on its own (see `labels_from_report`).
LABEL_OF_COLUMN = {
    "DiscBulge": "disc bulge",
    "Herniation": "disc herniation",
    "Stenosis": "spinal canal stenosis",
    "Compression": "compression",
}
SPASM_COLUMN = "MuscleSpasm"
LABEL_NAMES = (LOW_BACK_PAIN, *LABEL_OF_COLUMN.values(), NO_FINDING)
SEVERITY_GRADES = ("normal", "mild", "moderate", "severe")
SEVERITIES = (*SEVERITY_GRADES, "unknown")
NERVE_SIDES = ("left", "right", "bilateral", "none")
PFIRRMANN_GRADES = ("1", "2", "3", "4", "5")

# Notes may also name discs above the three imaged ones.
LEVEL_OF_ANY_DISC = {"D1": "L1/L2", "D2": "L2/L3", **LEVEL_OF_DISC}


@dataclass(frozen=True, kw_only=True)
class StructuredNote(Note):
    """A row of the notes: the text, and what the authors' program read from it."""

    severity: str = "unknown"  # one of `SEVERITIES`
    findings: tuple[str, ...] = ()  # labels of the columns that hold 1
    levels: tuple[str, ...] = ()  # affected

    def severity_at(self, level: str) -> str | None:
        """Return the patient's severity for an image at a disc, or for one that shows `several`.

        The table does not say at which disc: it counts at every affected disc, and `normal` at each. None where it is
        unknown, or `normal` beside a finding.

        Example:
            >>> note = StructuredNote(where="", severity="severe", findings=("disc bulge",), levels=("L4/L5",))
            >>> note.severity_at("several"), note.severity_at("L4/L5"), note.severity_at("L5/S1")
            ('severe', 'severe', None)
        """
        if self.severity == "normal":
            return "normal" if self.labels_at(level) == (NO_FINDING,) else None
        return self.severity if self.severity in SEVERITY_GRADES and level in ("several", *self.levels) else None

    def labels_at(self, level: str) -> tuple[str, ...]:
        """Return the classes of an image at a disc, or of one that shows `several`.

        The table does not say which finding is at which disc: each counts at every affected disc, and at no other.
        `LBP` and `No Finding` are the patient's, as in the paper: `LBP` with any finding, else as the text says, or the
        severity where there is no text. If the columns say normal and the text does not, the image gets neither label.

        Example:
            >>> note = StructuredNote(where="", findings=("disc bulge",), levels=("L4/L5",))
            >>> note.labels_at("L4/L5"), note.labels_at("L5/S1")
            (('LBP', 'disc bulge'), ('LBP',))
            >>> StructuredNote(where="", severity="normal").labels_at("L4/L5")
            ('No Finding',)
            >>> StructuredNote(where="", severity="normal", text="Stenosis at L4/L5.").labels_at("L4/L5")
            ()
        """
        if self.findings:
            return (LOW_BACK_PAIN, *(self.findings if level in ("several", *self.levels) else ()))
        if not self.text:
            return (NO_FINDING,) if self.severity == "normal" else ()
        of_text = tuple(label for label in labels_from_report(self.text) if label in (LOW_BACK_PAIN, NO_FINDING))
        is_contradictory = self.severity == "normal" and NO_FINDING not in of_text
        return () if is_contradictory else of_text


def has_written_notes(path: Path) -> bool:
    """Whether the notes contain the radiologist's text, and not only its structured reading."""
    return TEXT_COLUMN in columns_of(read_table(path))


def read_structured_notes(path: Path) -> list[StructuredNote]:
    """Read the notes; an unusable row states its `problem`.

    Raises:
        ValueError: If the file is not a table or lacks a column other than `ClinicalNotes`, without which each text is
            composed from the other columns (see `compose_report`).
    """
    rows = read_table(path)
    id_column = id_column_of(path, rows, ("Severity", *LABEL_OF_COLUMN, "AffectedLevels"))
    is_written = TEXT_COLUMN in columns_of(rows)
    return mark_repeated([_read_note(row, id_column, is_written) for row in rows])


@dataclass(frozen=True, kw_only=True)
class DiscGrades(PatientRow):
    """Pfirrmann grades of a patient's three lowest discs."""

    cells: Mapping[str, str] = field(default_factory=dict)  # as written, by disc (`D3` to `D5`); may be empty

    def grade_at(self, place: str) -> str | None:
        """Return the grade of a disc, or the worst of three for a sagittal slice; None if a cell is blank.

        Raises:
            ValueError: If the row is unusable, or a cell holds something else.

        Example:
            >>> grades = DiscGrades(where="row 1", cells={"D3": "2", "D4": "4.0", "D5": ""})
            >>> grades.grade_at("D4"), grades.grade_at("D5"), grades.grade_at("S8")
            ('4', None, None)
        """
        if self.problem:
            raise ValueError(f"{self.where}: {self.problem}")
        discs = (place,) if place in LEVEL_OF_DISC else tuple(LEVEL_OF_DISC)
        grades = [self._grade(disc) for disc in discs]
        return None if None in grades else max(grade for grade in grades if grade)

    def _grade(self, disc: str) -> str | None:
        grade = _without_decimals(self.cells[disc])
        if grade and grade not in PFIRRMANN_GRADES:
            raise ValueError(
                f"{self.where}: unknown Pfirrmann grade {grade[:20]!r} at {disc}; allowed: 1 to 5, or blank"
            )
        return grade or None


def read_pfirrmann_grades(path: Path) -> list[DiscGrades]:
    """Read the grades; raise a ValueError for a missing column; an unusable row states its `problem`."""
    rows = read_table(path)
    id_column = id_column_of(path, rows, tuple(LEVEL_OF_DISC))
    return mark_repeated([_read_grades(row, id_column) for row in rows])


def _read_grades(row: Row, id_column: str) -> DiscGrades:
    try:
        patient_id = patient_id_of(row, id_column)
    except ValueError as error:
        return DiscGrades(where=row.where, problem=str(error))
    cells = {disc: row.text(disc) for disc in LEVEL_OF_DISC}
    return DiscGrades(where=row.where, patient_id=patient_id, cells=cells)


def _read_note(row: Row, id_column: str, is_written: bool) -> StructuredNote:
    note = StructuredNote(where=row.where)
    try:
        note = replace(note, patient_id=patient_id_of(row, id_column))
        note = replace(
            note,
            severity=_one_of(row, "Severity", SEVERITIES, if_blank="unknown"),
            findings=tuple(label for column, label in LABEL_OF_COLUMN.items() if _is_set(row, column)),
            levels=_affected_levels(row),
        )
        if is_written:
            return replace(note, text=row.text(TEXT_COLUMN))
        nerve_side = _one_of(row, "NerveInvolvement", NERVE_SIDES, if_blank="none")
        has_spasm = _is_set(row, SPASM_COLUMN)
        return replace(note, text=compose_report(note, nerve_side=nerve_side, has_spasm=has_spasm))
    except ValueError as error:
        return replace(note, problem=str(error))


def compose_report(note: StructuredNote, *, nerve_side: str = "none", has_spasm: bool = False) -> str:
    """Put a row into words, each finding at every affected level, for a table without the radiologist's text.

    Example:
        >>> note = StructuredNote(where="", findings=("disc bulge", "compression"), levels=("L4/L5", "L5/S1"))
        >>> print(compose_report(note, nerve_side="left"))
        Disc bulge at L4/L5 and L5/S1. Left nerve root compression at L4/L5 and L5/S1. No disc herniation. No spinal
        canal stenosis. No muscle spasm.
    """
    at_levels = f" at {' and '.join(note.levels)}" if note.levels else ""
    wordings = {label: label for label in LABEL_OF_COLUMN.values()}
    if "compression" in note.findings and nerve_side != "none":
        wordings["compression"] = f"{nerve_side} nerve root compression"
    present = [wording + at_levels for label, wording in wordings.items() if label in note.findings]
    absent = [f"no {wording}" for label, wording in wordings.items() if label not in note.findings]
    spasm = "muscle spasm" if has_spasm else "no muscle spasm"
    return as_text((*present, *absent, spasm))


def id_column_of(path: Path, rows: list[Row], others: tuple[str, ...]) -> str:
    """Find the column of patients; raise a ValueError if there is not exactly one, or another column is missing."""
    columns = columns_of(rows)
    found = [column for column in PATIENT_COLUMNS if column in columns]
    missing = [column for column in others if column not in columns]
    if len(found) != 1 or missing:
        raise ValueError(
            f"{path} must have the columns {', '.join([' or '.join(PATIENT_COLUMNS), *others])}; "
            f"found: {', '.join(columns[:20])}"
        )
    return found[0]


def patient_id_of(row: Row, column: str) -> str:
    """Return the patient as in the image names, four digits; raise a ValueError if the row names none."""
    if row.problem:
        raise ValueError(row.problem)
    number = _without_decimals(row.written(column))
    if not re.fullmatch(r"[0-9]{1,9}", number) or int(number) == 0:
        raise ValueError(f"the patient ID must be a whole number, got {number[:40]!r}")
    return f"{int(number):04d}"


def _without_decimals(number: str) -> str:
    """Turn `3.0`, as pandas writes whole numbers in a column with gaps, into `3`."""
    return re.sub(r"\.0+$", "", number)


def _one_of(row: Row, column: str, allowed: tuple[str, ...], if_blank: str) -> str:
    return check_one_of(column, row.text(column).lower() or if_blank, allowed)


def _is_set(row: Row, column: str) -> bool:
    value = _without_decimals(row.text(column)).lower()
    if value not in ("0", "1", "false", "true"):
        raise ValueError(f"{column} must be 0 or 1, got {value[:40]!r}")
    return value in ("1", "true")


def _affected_levels(row: Row) -> tuple[str, ...]:
    discs = [disc for disc in re.split(r"[,;/\s]+", row.text("AffectedLevels").upper()) if disc]
    unknown = [disc for disc in discs if disc not in LEVEL_OF_ANY_DISC]
    if unknown:
        raise ValueError(f"unknown AffectedLevels {unknown[0][:20]!r}; allowed: {', '.join(LEVEL_OF_ANY_DISC)}")
    return tuple(level for disc, level in LEVEL_OF_ANY_DISC.items() if disc in discs)
