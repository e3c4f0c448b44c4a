"""Read a workbook of radiologists' notes, one row per patient, and pair them with images."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data_scripts.records import Exclusion, is_missing, says_anything
from data_scripts.sources.tables import PatientRow, mark_repeated
from data_scripts.sources.workbooks import KINDS, Cell, is_text, sheet_rows

_COLUMNS = (
    (re.compile(r"patient[\s_]*id", re.IGNORECASE), "Patient ID"),
    (re.compile(r"\bnotes?\b", re.IGNORECASE), "Clinician's Notes"),
)


@dataclass(frozen=True, kw_only=True)
class Note(PatientRow):
    """A row of the workbook."""

    text: str = ""  # as typed; an empty note is no `problem`


def read_notes(path: Path) -> list[Note]:
    """Read the first sheet of an `.xlsx` file: a header with `Patient ID` and `Notes`, then a row per patient.

    A cell merged over several rows counts for each of them; the texts beside one merged ID are one note.

    Raises:
        ValueError: If the file is not a workbook, is too large, does not have each column once, or has no row.
    """
    rows = sheet_rows(path)
    header = [str(cell.value).strip() if is_text(cell.kind) else "" for cell in next(rows, [])]
    columns = [_only_column(path, header, pattern, name) for pattern, name in _COLUMNS]
    notes: list[Note] = []
    for number, row in enumerate(rows, start=2):
        patient, text = (row[column] if column < len(row) else Cell() for column in columns)
        if patient.value is None and text.value is None:
            continue
        note = _read_note(f"{path.name} row {number}", patient, text)
        if patient.is_repeated and notes and not (note.problem or notes[-1].problem):
            texts = dict.fromkeys(part for part in (notes[-1].text, note.text) if part)
            notes[-1] = replace(notes[-1], text="\n".join(texts))
        else:
            notes.append(note)
    if not notes:
        raise ValueError(f"{path} has no rows below its header")
    return mark_repeated(notes)


def _only_column(path: Path, header: Sequence[str], pattern: re.Pattern[str], usual_name: str) -> int:
    found = [index for index, name in enumerate(header) if pattern.search(name)]
    if len(found) != 1:
        names = ", ".join(repr(name[:40]) for name in header[:10])
        raise ValueError(
            f"{path} must have one column like {usual_name!r} in its first row, found {len(found)} among: {names}"
        )
    return found[0]


def _read_note(where: str, patient: Cell, text: Cell) -> Note:
    patient_id = _patient_id(patient.kind, patient.value)
    note = Note(where=where, patient_id=patient_id)
    if not patient_id:
        return replace(note, problem=f"the patient ID must be a whole number, got {str(patient.value)[:40]!r}")
    kind, value, _ = text
    if value is None:
        return note
    if not is_text(kind):
        return replace(note, problem=f"the note must be text, got {KINDS.get(kind, kind)} {str(value)[:40]!r}")
    return replace(note, text=value if value.strip() else "")


def _patient_id(kind: str, value: object) -> str:
    """Return the ID as in the image names; empty if it is not a whole number from 1."""
    digits = ""
    if kind == "n" and isinstance(value, int | float) and 0 < value < 1e9 and value == int(value):
        digits = str(int(value))
    elif is_text(kind) and re.fullmatch(r"[0-9]{1,9}", str(value).strip()):
        digits = str(value).strip().lstrip("0")
    return digits.zfill(4) if digits else ""


def report_or_exclusion(note: Note | None, source: str) -> str | Exclusion:
    """Return the report of an image from its patient's note, or an exclusion.

    An empty or missing note is a gap of the dataset, excluded by rule; an unreadable row is a defect.

    Example:
        >>> report_or_exclusion(Note(where="row 2", patient_id="0001", text="Mild bulge.//No stenosis"), "a.png")
        'Mild bulge.//No stenosis'
        >>> report_or_exclusion(Note(where="row 3", patient_id="0002"), "b.png")
        Exclusion(source='b.png', reason='empty note', by_rule=True)
    """
    if note is None:
        return Exclusion(source, "the patient has no note", by_rule=True)
    if note.problem:
        return Exclusion(source, f"{note.where}: {note.problem}")
    says_nothing = is_missing(note.text) or not says_anything(note.text)
    return Exclusion(source, "empty note", by_rule=True) if says_nothing else note.text


def notes_left_over(notes: Iterable[Note], patients_with_images: Collection[str]) -> Iterator[Exclusion]:
    """List each unused note: unreadable, empty, or of a patient without images.

    Example:
        >>> notes = [Note(where="row 2", patient_id="0001"), Note(where="row 3", patient_id="0002", text="Bulge.")]
        >>> [exclusion.reason for exclusion in notes_left_over(notes, {"0001"})]
        ['empty note', 'note without an image']
    """
    for note in notes:
        source = f"{note.where}, patient {note.patient_id or 'unknown'}"
        report = report_or_exclusion(note, source)
        if isinstance(report, Exclusion):
            yield report if not note.problem else Exclusion(source, note.problem)
        elif note.patient_id not in patients_with_images:
            yield Exclusion(source, "note without an image", by_rule=True)
