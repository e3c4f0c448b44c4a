"""Remove names from texts, and a hospital's ids from records, before they are written."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from data_scripts.privacy.identifiers import find_identifiers, scrub_text
from data_scripts.privacy.pseudonyms import Pseudonyms
from data_scripts.records import Record, SourceAbout
from data_scripts.reports.text import report_facts


@dataclass(frozen=True)
class ScrubbedText:
    """A text with placeholders for what may name a person."""

    text: str
    replaced: tuple[str, ...] = ()  # kinds of the passages that were replaced
    left: tuple[str, ...] = ()  # kinds of passages that a second check still finds; if any, the text must not be shared
    facts_changed: bool = False  # whether its findings changed, because one was taken for a name


@lru_cache(maxsize=10_000)  # the images of a study share their report
def scrub(text: str) -> ScrubbedText:
    """Replace passages that may name a person, and check again.

    Example:
        >>> scrub("Seen 12 Mar 2016: bulge at L4-5")
        ScrubbedText(text='Seen [DATE]: bulge at L4-5', replaced=('DATE',), left=(), facts_changed=False)
    """
    if not (replaced := _kinds_in(text)):
        return ScrubbedText(text)
    clean = scrub_text(text)
    return ScrubbedText(clean, replaced, _kinds_in(clean), report_facts(clean) != report_facts(text))


def _kinds_in(text: str) -> tuple[str, ...]:
    return tuple(found.kind for found in find_identifiers(text))


def pseudonyms_of_public(about: SourceAbout) -> Pseudonyms:
    """Make pseudonyms for a public dataset, where nothing is secret: the same in every build."""
    return Pseudonyms(hashlib.sha256(about.name.encode()).digest())


def pseudonymise(
    records_of_split: Mapping[str, Sequence[Record]], about: SourceAbout, pseudonyms: Pseudonyms
) -> dict[str, list[Record]]:
    """Replace anything in the ids and the file name that could lead back to a patient.

    In a public dataset, whose ids are pseudonyms already, only dates are replaced: scanners write the day of an
    examination into folder names. Other ids and file names are replaced whole. Records are split by their original ids
    before, so that splits are reproducible.
    """

    def protect(record: Record) -> Record:
        if about.has_public_ids:
            dateless = pseudonyms.of_dates_in
            return replace(record, study_id=dateless(record.study_id), source=dateless(record.source))
        return replace(
            record,
            patient_id=pseudonyms.of(record.patient_id, prefix="patient"),
            study_id=pseudonyms.of(record.study_id, prefix="study"),
            source=f"{about.name}/{pseudonyms.of(record.source, prefix='file')}",
        )

    return {split: [protect(record) for record in records] for split, records in records_of_split.items()}
