"""Which note belongs to an image, and what is left over: notes without an image, images without a note."""

from collections.abc import Collection, Iterable, Iterator
from functools import lru_cache

from data_scripts.records import Exclusion
from data_scripts.reports.text import normalise_report
from data_scripts.sources.notes import Note

_normalise = lru_cache(maxsize=1024)(normalise_report)  # the images of a patient, up to hundreds, share the note


def report_or_exclusion(note: Note | None, source: str) -> str | Exclusion:
    """The report of an image from the note of its patient, or the reason why there is none.

    An empty or missing note is a gap of the data set, left out by rule; a row that cannot be read is a bad one.

    Args:
        note: The patient's note, if the table has one.
        source: The image, as in `Record`.

    Example:
        >>> report_or_exclusion(Note(where="row 2", patient_id="0001", text="Mild bulge.//No stenosis"), "a.png")
        'Mild bulge. No stenosis'
        >>> report_or_exclusion(Note(where="row 3", patient_id="0002"), "b.png")
        Exclusion(source='b.png', reason='empty note', by_rule=True)
    """
    if note is None:
        return Exclusion(source, "no note of its patient", by_rule=True)
    if note.problem:
        return Exclusion(source, f"{note.where}: {note.problem}")
    return _normalise(note.text) or Exclusion(source, "empty note", by_rule=True)


def notes_left_over(notes: Iterable[Note], patients_with_images: Collection[str]) -> Iterator[Exclusion]:
    """List each note that no image can use: unreadable, empty, or of a patient without images.

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
