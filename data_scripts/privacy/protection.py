"""What is taken out of records before they are written: names in texts, and ids that a hospital gave."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from data_scripts.privacy.identifiers import Identifier, find_identifiers, scrub_text
from data_scripts.privacy.pseudonyms import Pseudonyms
from data_scripts.records import Record, SourceAbout
from data_scripts.reports.text import report_facts


@dataclass(frozen=True)
class ScrubbedText:
    """A text without names.

    Args:
        text: With placeholders for what may name a person.
        replaced: Kinds of the passages that were replaced.
        left: Kinds of what a second look still finds; nothing, or the text must not be shared.
        facts_changed: Whether it states other findings than before: one was taken for a name.
    """

    text: str
    replaced: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    facts_changed: bool = False


@lru_cache(maxsize=10_000)  # the images of a study share their report
def scrub(text: str) -> ScrubbedText:
    """Replace what may name a person, and look again.

    Example:
        >>> scrub("Seen 12 Mar 2016: bulge at L4-5")
        ScrubbedText(text='Seen [DATE]: bulge at L4-5', replaced=('DATE',), left=(), facts_changed=False)
    """
    found = find_identifiers(text)
    if not found:
        return ScrubbedText(text)
    clean = scrub_text(text)
    facts_changed = report_facts(clean) != report_facts(text)
    return ScrubbedText(clean, _kinds(found), _kinds(find_identifiers(clean)), facts_changed)


def _kinds(identifiers: Sequence[Identifier]) -> tuple[str, ...]:
    return tuple(identifier.kind for identifier in identifiers)


def pseudonyms_of_public(about: SourceAbout) -> Pseudonyms:
    """For a data set whose names anyone can look up: nothing is secret there, and every build gives the same names."""
    return Pseudonyms(hashlib.sha256(about.name.encode()).digest())


def pseudonymise(
    records_of_split: Mapping[str, Sequence[Record]], about: SourceAbout, pseudonyms: Pseudonyms
) -> dict[str, list[Record]]:
    """Replace what could lead back to a patient in the ids and in the name of the file.

    Of a public data set, whose ids are pseudonyms already, only dates are replaced: scanners write the day of an
    examination into the names of folders. Other ids and names of files are replaced whole.

    Args:
        records_of_split: The records of each split; they were split by their own ids, so that splits can be repeated.
        about: The source.
        pseudonyms: The key.
    """

    def protect(record: Record) -> Record:
        if about.has_public_ids:
            return replace(
                record,
                study_id=pseudonyms.of_dates_in(record.study_id),
                source=pseudonyms.of_dates_in(record.source),
            )
        return replace(
            record,
            patient_id=pseudonyms.of(record.patient_id, prefix="patient"),
            study_id=pseudonyms.of(record.study_id, prefix="study"),
            source=f"{about.name}/{pseudonyms.of(record.source, prefix='file')}",
        )

    return {split: [protect(record) for record in records] for split, records in records_of_split.items()}
