"""Remove names from texts, and a hospital's ids from records, before they are written."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from data_scripts.privacy.identifiers import find_identifiers, scrub_text
from data_scripts.privacy.pseudonyms import Pseudonyms
from data_scripts.records import Record, SourceAbout, SourceInfo
from data_scripts.reports.language import seems_english
from data_scripts.reports.text import normalise_report, report_facts

LANGUAGE = "LANGUAGE"


@dataclass(frozen=True)
class ScrubbedText:
    """A text as it is stored: normalised, with placeholders for what may name a person."""

    text: str
    replaced: tuple[str, ...] = ()  # kinds of the passages that were replaced
    left: tuple[str, ...] = ()  # kinds of passages that a second check still finds, and `LANGUAGE` if the text is not
    # English, whose names and dates the rules may miss; if any, the text must not be shared
    facts_changed: bool = False  # whether its findings changed, because one was taken for a name


@lru_cache(maxsize=10_000)  # the images of a study share their report
def scrub(text: str, names: frozenset[str] = frozenset()) -> ScrubbedText:
    r"""Replace passages that may name a person, then normalise, and check again. For `names`, see `find_identifiers`.

    The order matters: normalising splits addresses, and separates names from the words next to them. What shows only
    afterwards is replaced, too.

    Example:
        >>> scrub("12 Mar 2016:\nbulge ,see a.b@klinik.de")
        ScrubbedText(text='[DATE]: bulge, see [EMAIL]', replaced=('DATE', 'EMAIL'), left=(), facts_changed=False)
    """
    replaced = _kinds_in(text, names)
    clean = normalise_report(scrub_text(text, names) if replaced else text)
    if replaced_later := _kinds_in(clean, names):
        clean = scrub_text(clean, names)
    if not (replaced + replaced_later):
        return ScrubbedText(clean, left=unjudged_kinds(clean))
    facts_changed = report_facts(clean) != report_facts(normalise_report(text))
    return ScrubbedText(
        clean, replaced + replaced_later, _kinds_in(clean, names) + unjudged_kinds(clean), facts_changed
    )


def unjudged_kinds(text: str) -> tuple[str, ...]:
    """Return `LANGUAGE` for a text in another language, in which names and dates may be missed; else nothing.

    Example:
        >>> unjudged_kinds("Mild bulge"), unjudged_kinds("Hernia discal izquierda")
        ((), ('LANGUAGE',))
    """
    return () if seems_english(text) else (LANGUAGE,)


def _kinds_in(text: str, names: frozenset[str] = frozenset()) -> tuple[str, ...]:
    return tuple(found.kind for found in find_identifiers(text, names))


def kinds_in_names(info: SourceInfo) -> Counter[str]:
    """Count, by kind, what may name a person in the names of classes, grades and masks, which are not scrubbed.

    Example:
        >>> about = SourceAbout(name="", summary="", license="", citation="", size="", where="")
        >>> kinds_in_names(SourceInfo(about=about, label_names=("disc bulge", "seen by Dr. Salem")))
        Counter({'NAME': 1})
    """
    return Counter(
        kind for name in (*info.label_names, *info.grade_names, *info.mask_names) for kind in _kinds_in(name)
    )


def pseudonyms_of_public(about: SourceAbout) -> Pseudonyms:
    """Make pseudonyms for a public dataset, where nothing is secret: the same in every build."""
    return Pseudonyms(hashlib.sha256(about.name.encode()).digest())


def pseudonym_of_row(source: str, *, about: SourceAbout, pseudonyms: Pseudonyms) -> str:
    """Replace the name of a row, its file within the source."""
    return f"{about.name}/{pseudonyms.of(source, prefix='file')}"


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
            return replace(
                record,
                study_id=dateless(record.study_id),
                series_id=record.series_id and dateless(record.series_id),
                source=dateless(record.source),
            )
        return replace(
            record,
            patient_id=pseudonyms.of(record.patient_id, prefix="patient"),
            study_id=pseudonyms.of(record.study_id, prefix="study"),
            series_id=record.series_id and pseudonyms.of(record.series_id, prefix="series"),
            source=pseudonym_of_row(record.source, about=about, pseudonyms=pseudonyms),
        )

    return {split: [protect(record) for record in records] for split, records in records_of_split.items()}
