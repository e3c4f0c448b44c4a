"""Find and replace what names a person in a report (dates, names, numbers, addresses), by rules.

No language model is used, since every medical word must stay: levels (`L4/5`), sizes (`3*2 cm`), grades and eponyms
(Schmorl, Tarlov) look like dates, fractions and names. A name is found by a title, a label or a degree next to it, and
then wherever it stands again. One without any is not: reports that contain such names need another tool, or a reader.
"""

import html
import re
import unicodedata
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

from data_scripts.privacy.addresses import find_mail_addresses, find_places, find_web_addresses
from data_scripts.privacy.dates import find_dates
from data_scripts.privacy.person_names import Span, find_institutions, find_named_again, find_names, name_words
from data_scripts.reports.text import replace_spans

KINDS = ("NAME", "DATE", "TIME", "AGE", "PHONE", "EMAIL", "URL", "ID", "PLACE")


@dataclass(frozen=True)
class Identifier:
    """A passage that may name a person."""

    kind: str  # one of `KINDS`; AGE: over 89
    span: Span  # where it begins and ends in the text, as in a slice
    text: str


def find_identifiers(text: str, names: Collection[str] = ()) -> tuple[Identifier, ...]:
    """Find passages that name a person, in the order of the text and without overlaps.

    Args:
        text: A report.
        names: Words of names that are known from elsewhere, as of `names_in`.

    Look-alikes are read, too: full-width letters, invisible characters, unusual spaces, `&#64;`.

    Labels are left out: in `MRN: 12345` the number is found. Bare years and ages up to 89 are not identifiers.

    Source:
        The identifiers of the Safe Harbor method, 45 CFR 164.514(b)(2), as far as they occur in reports.

    Example:
        >>> [(found.kind, found.text) for found in find_identifiers("Dr. A. Salem, 12/03/2016: L4/5 bulge, 3*2 cm")]
        [('NAME', 'A. Salem'), ('DATE', '12/03/2016')]
    """
    kept: list[Identifier] = []
    plain, places = _plain_spelling(text)
    taken = bytearray(len(plain))
    known = set(names)
    again = (("NAME", span) for span in find_named_again(plain, known))  # once all others are found
    for kind, (start, end) in chain(_candidates(plain), again):
        if not any(taken[start:end]):
            taken[start:end] = bytes([1]) * (end - start)
            span = (places[start][0], places[end - 1][1]) if places else (start, end)
            kept.append(Identifier(kind, span, text[slice(*span)]))
            known |= name_words(plain[start:end]) if kind == "NAME" else set()
    return tuple(sorted(kept, key=lambda identifier: identifier.span))


@lru_cache(maxsize=10_000)
def names_in(text: str) -> frozenset[str]:
    """Return the words of the names in a text, in small letters, to find them in other texts of the patient.

    Example:
        >>> sorted(names_in("Patient name: Ahmad Salem. Disc bulge."))
        ['ahmad', 'salem']
    """
    return frozenset().union(*(name_words(found.text) for found in find_identifiers(text) if found.kind == "NAME"))


def _plain_spelling(text: str) -> tuple[str, list[Span]]:
    """Replace look-alikes of letters, signs and spaces, and drop invisible characters.

    Returns:
        The text, and the span of each of its characters in the original; no spans if nothing changed.
    """
    if "&" not in text and all(_plain_char(char) == char and not unicodedata.combining(char) for char in set(text)):
        return text, []
    plain: list[str] = []
    places: list[Span] = []
    for start, end, chars in _decoded(text):
        for char in filter(None, map(_plain_char, chars)):
            joined = unicodedata.normalize("NFC", plain[-1] + char) if plain and unicodedata.combining(char) else ""
            if len(joined) == 1:  # an accent
                plain[-1], places[-1] = joined, (places[-1][0], end)
            else:
                plain.append(char)
                places.append((start, end))
    return "".join(plain), places


def _decoded(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield the start and end of each character or HTML character reference, and its text."""
    position = 0
    for match in _HTML_REFERENCE.finditer(text):
        yield from ((at, at + 1, text[at]) for at in range(position, match.start()))
        yield match.start(), match.end(), html.unescape(f"&{match[1]};")
        position = match.end()
    yield from ((at, at + 1, text[at]) for at in range(position, len(text)))


@lru_cache(maxsize=4096)
def _plain_char(char: str) -> str:
    """Return the usual form of a character; empty for an invisible one."""
    if char.isascii():
        return char
    if unicodedata.category(char) == "Cf":
        return ""
    if char in _DOTS:
        return "."
    if unicodedata.category(char) == "Nd":  # digits of other scripts
        return str(unicodedata.decimal(char))
    form, _, _ = unicodedata.decomposition(char).partition(" ")
    usual = unicodedata.normalize("NFKC", char)
    return usual if form in _LOOKALIKE_FORMS and len(usual) == 1 else char


def scrub_text(text: str, names: Collection[str] = ()) -> str:
    """Replace passages that name a person with placeholders. For `names`, see `find_identifiers`.

    Example:
        >>> scrub_text("Patient name: Ahmad Salem. MRN: 12345. Seen 12 Mar 2016: L4-5 bulge of 4.5 mm, Schmorl node")
        'Patient name: [NAME]. MRN: [ID]. Seen [DATE]: L4-5 bulge of 4.5 mm, Schmorl node'
    """
    return replace_spans(text, {found.span: f"[{found.kind}]" for found in find_identifiers(text, names)})


def _candidates(text: str) -> Iterator[tuple[str, Span]]:
    """Yield passages, the most certain first: a later one that overlaps an earlier one is dropped."""
    yield from (("EMAIL", span) for span in find_mail_addresses(text))
    yield from (("URL", span) for span in find_web_addresses(text))
    for kind, patterns in _CERTAIN.items():
        for match in chain.from_iterable(re.finditer(pattern, text) for pattern in patterns):
            yield kind, match.span("value")
    yield from (("DATE", span) for span in find_dates(text))
    for match in _PHONE.finditer(text):
        num_digits = sum(char.isdigit() for char in match[0])
        if (9 if match["groups"] else 7) <= num_digits <= 15:
            yield "PHONE", match.span()
    yield from (("PLACE", span) for span in find_places(text))
    yield from (("ID", match.span()) for match in _LONG_NUMBER.finditer(text))
    yield from (("NAME", span) for span in find_names(text))
    yield from (("PLACE", span) for span in find_institutions(text))


_HTML_REFERENCE = re.compile(r"&(?:amp;){0,3}(#\d{1,7}|#[xX][\da-fA-F]{1,6}|[A-Za-z]{2,16});")
_DOTS = "\u2024\u3002\uff61"  # of other scripts
_LOOKALIKE_FORMS = ("<wide>", "<narrow>", "<noBreak>", "<small>", "<font>", "<compat>")

# Repetitions are bounded, so the time for a hostile text is linear in its length.
_PHONE = re.compile(
    r"""(?<![\w.,/*+-])(?:
      \+\s?\d[\d\s().\u2013/-]{5,20}\d | 00\d[\d\s().\u2013/-]{6,20}\d            # +962 6 535 3666, +49 (0)761 270-1234
    | \(\d{2,5}\)\s?\d{2,4}(?:[\s.-]?\d{2,4}){1,3}                        # (06) 535 3666
    | \d{3}[\s.-]\d{3}[\s.-]\d{4} | 0\d{1,3}[\s-]\d{3,4}[\s-]?\d{3,4}     # 555-123-4567
    | (?P<groups>0[1-9]\d{0,4}(?:\s?[\s./\u2013-]\s?\d{2,8}){1,5})         # 0761/270 12 34, 01 42 34 56 78
    )(?![\w*]|[./-]\d)""",
    re.VERBOSE,
)
_LONG_NUMBER = re.compile(r"(?<![^\W_])(?<![.,])[A-Za-z]{0,4}-?\d{6,}[A-Za-z]?(?![^\W_]|\.\d)")

_ID_LABEL = (
    r"(?:m\.?r\.?n\.?|(?:patient|pt\.?|study|exam(?:ination)?|case|file|chart|report|order|request|visit|admission|ref"
    r"(?:erence)?|accession|insurance|policy|passport|national|serial|device|licen[cs]e|medical\s+record|hospital|nhs|chi|emirates)"
    r"\s*(?:id\b|i\.d\.|identifier|number|num\b\.?|no\.|no\b|\#)"
    r"|(?:pat(?:ienten)?|fall|vers(?:icher(?:ten|ungs))?|kv|ahv|sv|auftrags?|aufnahme|untersuchungs|akten|zugangs|befund)"
    r"[.\s-]{0,3}(?:nr|nummer|id)\b|(?:ahv|nhs|ipp|nir)\b|n[°º]\s?(?:de\s)?(?:dossier|patient|s[ée]curit[ée]\ssociale)"
    r"|accession|acc\.?\s*\#|ssn|s/n|i\.d\.|id(?:\s*no\b\.?|\#)?)"
)
_WEEKDAY_OR_MONTH = (
    r"(?:(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
    r"|January|February|March|April|May|June|July|August|September|October|November|December)"
)
_CLOCK = r"(?:[01]?\d|2[0-3]):[0-5]\d"
_NOT_MEASURED = r"(?!\s?(?:(?:mm|cm|ms|x|deg|years?|y)\b|[*%°])|[.,]\d)"
_OVER_89 = r"(?P<value>9\d|1[0-2]\d)"
_CERTAIN = {
    "PHONE": (
        r"(?i:\b(?:tel(?:e(?:phone|fon))?|t[ée]l(?:[ée]phone)?|phone|ph|fon|mobile?|mob|cell|handy|natel|fax|telefax|whatsapp"
        r"|hotline|call|r[üu]ckruf(?:nummer)?)\b\.?[\s-]{0,2}(?:number|no|num|nr|nummer)?\.?)"
        r"\s*[:#=-]?\s*(?P<value>[+(]?\d(?:[\s()./\u2013-]{0,3}\d){4,14}(?:\s*(?i:ext|x|dw)\.?\s*\d+)?)",
        r"(?i:\b(?:dect|pager|bleep|beeper|piepser|funk|durchwahl|nebenstelle|apparat|ext(?=\.|:))\b\.?"
        rf"\s?(?:number|no|nr)?\.?)\s?[:#=-]?\s?(?P<value>[*#]?\d(?:[\s/-]?\d){{2,9}})\b{_NOT_MEASURED}",
    ),
    "ID": (
        rf"(?<!\w)(?i:{_ID_LABEL}(?:\s*(?:number|no|num)\b)?\.?\s*(?:is\s+)?[:\#=-]*)\s*"
        r"(?P<value>(?=[\w/.-]{0,40}\d)[A-Za-z\d]\w*(?:[/.-]\w+)*"
        rf"(?: \d{{3,4}}\b{_NOT_MEASURED}(?: \d{{2,4}}\b{_NOT_MEASURED}){{0,3}})?)",
        # Indian, Swiss, French and British numbers; SSN; UID, address in a network
        r"(?<![\w.])(?P<value>\d{4} \d{4} \d{4})(?![\w*]|[./ -]\d)",
        r"(?<![\w.])(?P<value>756[. -]?\d{4}[. -]?\d{4}[. -]?\d\d)(?!\.?\d)",
        r"(?<![\w.])(?P<value>[12] \d\d (?:0[1-9]|1[0-2]) \d[\dAB] \d{3} \d{3}(?: \d\d)?)(?!\.?\d)",
        r"(?<![\w.-])(?P<value>(?:[\dA-F]{2}[:-]){5}[\dA-F]{2})(?![\w:-])",
        r"(?<![\w.])(?P<value>\d{3}-\d{2}-\d{4}|\d{1,40}(?:\.\d{1,40}){3,20})(?!\.?\d)",
        # without "no.": at least three digits
        r"(?<!\w)(?i:file|folder|chart|case|invoice|order|ref(?:erence)?)\b\.?\s*[:\#=/-]?\s*"
        r"(?P<value>[A-Za-z]{0,3}-?\d{3,12}(?:[/-]\d{3,8})?)\b(?![.,/*-]\d|\s?(?:mm|cm|%))",
    ),
    "DATE": (
        r"(?i:\b(?:d\.?o\.?b|date|birth|born|geb(?:oren|urtsdatum)?|né|née|naissance))[\s:.]*(?:(?:am|le)\s)?"
        r"(?P<value>\d{6}(?:\d\d)?|\d{1,4}(?P<dash>[-/.\\])\d{1,2}(?P=dash)\d{2,4})\b",
        # Not "12th of May", which is a date with its day.
        rf"(?<!\d\s)(?<!\d(?i:st|nd|rd|th)\s)\b(?i:in|since|on|of|from|until|till|last|dated)\s+"
        rf"(?P<value>{_WEEKDAY_OR_MONTH})\b(?![\s,./_'’-]*(?:of\s)?\d)",
    ),
    "TIME": (
        rf"(?<![\w:/.-])(?P<value>{_CLOCK}(?::[0-5]\d(?:\.\d+)?)?\s?(?i:[ap]\.?m\b\.?))",
        rf"(?<![\w:/.-])(?P<value>{_CLOCK}:[0-5]\d)(?![\w:])",
        rf"(?:(?i:\bat|\btime|\bhrs?)\W{{1,2}}|\d{{4}},?\s)(?P<value>{_CLOCK})(?![\w:])",
    ),
    "AGE": (
        rf"(?<![\w.,*/-]){_OVER_89}(?=[\s-]?(?i:years?|yrs?|yo|y\W?o|y)\b)",
        rf"(?i:\bage|\baged)\b[\s:]*(?:of\s)?{_OVER_89}\b",
    ),
    "PLACE": (
        r"(?i:\baddress)\s*:\s*(?P<value>[^\n;\[]*[^\s;.\[\]])",
        r"(?P<value>\bP\.?\s?O\.?\s?Box\s*\d+)",
    ),
}
