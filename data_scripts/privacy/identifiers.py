"""Find and replace what names a person in a report (dates, names, numbers, addresses), by rules.

No language model is used, since every medical word must stay: levels (`L4/5`), sizes (`3*2 cm`), grades and eponyms
(Schmorl, Tarlov) look like dates, fractions and names. A name without a title, a label or a degree next to it is not
found: reports that contain such names need another tool, or a reader.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from data_scripts.privacy.person_names import Span, find_institutions, find_names
from data_scripts.reports.text import replace_spans

KINDS = ("NAME", "DATE", "TIME", "AGE", "PHONE", "EMAIL", "URL", "ID", "PLACE")


@dataclass(frozen=True)
class Identifier:
    """A passage that may name a person."""

    kind: str  # one of `KINDS`; AGE: over 89
    span: Span  # where it begins and ends in the text, as in a slice
    text: str


def find_identifiers(text: str) -> tuple[Identifier, ...]:
    """Find passages that name a person, in the order of the text and without overlaps.

    Labels are left out: in `MRN: 12345` the number is found. Bare years and ages up to 89 are not identifiers.

    Source:
        The identifiers of the Safe Harbor method, 45 CFR 164.514(b)(2), as far as they occur in reports.

    Example:
        >>> [(found.kind, found.text) for found in find_identifiers("Dr. A. Salem, 12/03/2016: L4/5 bulge, 3*2 cm")]
        [('NAME', 'A. Salem'), ('DATE', '12/03/2016')]
    """
    kept: list[Identifier] = []
    taken = bytearray(len(text))
    for kind, (start, end) in _candidates(text):
        if not any(taken[start:end]):
            taken[start:end] = bytes([1]) * (end - start)
            kept.append(Identifier(kind, (start, end), text[start:end]))
    return tuple(sorted(kept, key=lambda identifier: identifier.span))


def scrub_text(text: str) -> str:
    """Replace passages that name a person with placeholders.

    Example:
        >>> scrub_text("Patient name: Ahmad Salem. MRN: 12345. Seen 12 Mar 2016: L4-5 bulge of 4.5 mm, Schmorl node")
        'Patient name: [NAME]. MRN: [ID]. Seen [DATE]: L4-5 bulge of 4.5 mm, Schmorl node'
    """
    return replace_spans(text, {found.span: f"[{found.kind}]" for found in find_identifiers(text)})


def _candidates(text: str) -> Iterator[tuple[str, Span]]:
    """Yield passages, the most certain first: a later one that overlaps an earlier one is dropped."""
    for kind, patterns in _CERTAIN.items():
        for match in chain.from_iterable(re.finditer(pattern, text) for pattern in patterns):
            yield kind, match.span("value")
    for match in _DATE.finditer(text):
        if _is_date(text, match):
            yield "DATE", match.span()
    for match in _PHONE.finditer(text):
        if 7 <= sum(char.isdigit() for char in match[0]) <= 15:
            yield "PHONE", match.span()
    yield from (("ID", match.span()) for match in _LONG_NUMBER.finditer(text))
    yield from (("NAME", span) for span in find_names(text))
    yield from (("PLACE", span) for span in find_institutions(text))


def _is_date(text: str, match: re.Match[str]) -> bool:
    """Whether numbers that look like a date are one; with a four-digit year they are."""
    if re.search(r"\d{4}", match[0]):
        return True
    before = text[max(0, match.start() - 40) : match.start()]
    if before[-1:].isalpha() or _UNIT_AFTER.match(text, match.end()):
        return False
    is_numeric = not any(char.isalpha() for char in match[0])
    return not (is_numeric and (_LEVEL_BEFORE.search(before) or _MEASURE_BEFORE.search(before)))


# Repetitions are bounded, so the time for a hostile text is linear in its length. `\d` matches the digits of every
# script, Arabic ones among them.
_DAY = r"(?:0?[1-9]|[12]\d|3[01]|[٠-٩]{1,2})"
_MONTH = r"(?:0?[1-9]|1[0-2]|[٠-٩]{1,2})"
_YEAR = r"(?:(?:19|20)\d\d|[١٢][٠-٩]{3})"
_MONTH_NAME = (
    r"(?:(?i:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)|May|MAY)\b(?:\.(?=[\s-]*\d))?"  # not "may", the verb
)
_DATE = re.compile(
    rf"""(?:(?<![\w/.,*+-])|(?<=[^\W\d_][^\W\d_]))(?:                                     # also "DOB12/03/1961"
      {_YEAR}(?P<a>\s?[-/.\\]\s?){_MONTH}(?P=a){_DAY}(?:T\d\d:?\d\d(?::?\d\d)?)?           # 2016-03-12
    | {_DAY}(?P<b>\s?[-/.\\]\s?){_MONTH}(?P=b)(?:{_YEAR}|\d\d)                             # 12/03/2016, 12.3.16
    | {_MONTH}(?P<c>\s?[-/.\\]\s?){_DAY}(?P=c)(?:{_YEAR}|\d\d)                             # 03/25/2016
    | {_DAY}\s{{0,2}}(?P<d>[-/.\\])\s{{0,2}}{_MONTH}\s{{0,2}}(?P=d)\s{{0,2}}{_YEAR}            # 12/ 3/2016
    | {_MONTH}\s{{0,2}}(?P<e>[-/.\\])\s{{0,2}}{_DAY}\s{{0,2}}(?P=e)\s{{0,2}}{_YEAR}            # 3/ 25/2016
    | {_MONTH}[-/]{_YEAR} | (?:0[1-9]|1[0-2])\.{_YEAR}                                     # 03/2016
    | {_DAY}(?:st|nd|rd|th)?[\s-]*(?:of\s)?{_MONTH_NAME}(?:[\s,'’-]*(?:{_YEAR}|\d\d\b))?   # 12th of March, 2016
    | {_MONTH_NAME}\s?{_DAY}(?:st|nd|rd|th)?(?!\d)(?:[\s,]+{_YEAR})?                       # March 12th, 2016
    | {_MONTH_NAME}[\s,'’-]*{_YEAR}                                                        # March 2016
    | {_YEAR}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])                                      # 20160312
    )(?![\w/]|[.,*-]\d)""",
    re.VERBOSE,
)
# "levels 10/11/12" and "7-8-10 mm" are not dates.
_LEVEL_BEFORE = re.compile(
    r"(?:\b(?:levels?|discs?|disks?|vertebrae|(?<![/.])[LTDCS])[\s:]*|\d\s?[/&-]\s?)$", re.IGNORECASE
)
_MEASURE_BEFORE = re.compile(
    r"\b(?:diameters?|dimensions?|measur(?:es?|ed|ing|ements?)|sizes?|heights?|widths?|depths?|lengths?|thickness"
    r"|angles?|ratios?)(?:\s+(?:is|are|of|about|were|was))?[\s:=]*$",
    re.IGNORECASE,
)
_UNIT_AFTER = re.compile(r"\s?(?:(?:mm|cm|ml|cc|deg|degrees?)\b|%|°)", re.IGNORECASE)

_PHONE = re.compile(
    r"""(?<![\w.,/*+-])(?:
      \+\s?\d[\d\s().-]{5,20}\d | 00\d[\d\s().-]{6,20}\d                  # +962 6 535 3666
    | \(\d{2,4}\)\s?\d{3,4}[\s.-]?\d{3,4}                                 # (06) 535 3666
    | \d{3}[\s.-]\d{3}[\s.-]\d{4} | 0\d{1,3}[\s-]\d{3,4}[\s-]?\d{3,4}     # 555-123-4567
    )(?![\w*]|[./-]\d)""",
    re.VERBOSE,
)
_LONG_NUMBER = re.compile(r"(?<![\w.,])[A-Za-z]{0,4}-?\d{6,}[A-Za-z]?(?!\w|\.\d)")

_ID_LABEL = (
    r"(?:m\.?r\.?n\.?|(?:patient|pt\.?|study|exam(?:ination)?|case|file|chart|report|order|request|visit|admission|ref"
    r"(?:erence)?|accession|insurance|policy|passport|national|serial|device|licen[cs]e|medical\s+record|hospital)"
    r"\s*(?:id\b|i\.d\.|identifier|number|num\b\.?|no\.|no\b|\#)|accession|acc\.?\s*\#|ssn|s/n|i\.d\.|id(?:\s*no\b\.?|\#)?)"
)
_WEEKDAY_OR_MONTH = (
    r"(?:(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
    r"|January|February|March|April|May|June|July|August|September|October|November|December)"
)
_CLOCK = r"(?:[01]?\d|2[0-3]):[0-5]\d"
_OVER_89 = r"(?P<value>9\d|1[0-2]\d)"
_CERTAIN = {
    "EMAIL": (r"(?P<value>[\w.+-]{1,64}\s?@\s?[\w-]{1,63}(?:\.[\w-]{1,63}){0,8}\.[A-Za-z]{2,63})",),
    "URL": (
        r"(?P<value>(?:(?:https?|ftp|file)://|\bwww\.)[^\s<>]*[^\s<>.,;:)])",
        r"(?P<value>\b[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){0,8}\.(?:com|org|net|edu|gov|info)\b(?:/[^\s<>]*[^\s<>.,;:)])?)",
    ),
    "PHONE": (
        r"(?i:\b(?:tel(?:ephone)?|phone|ph|mobile|mob|cell|fax|whatsapp|pager|hotline|call)\b\.?\s*(?:number|no|num)?\.?)"
        r"\s*[:#=-]?\s*(?P<value>[+(]?\d(?:[\s().-]{0,2}\d){4,14}(?:\s*(?i:ext|x)\.?\s*\d+)?)",
    ),
    "ID": (
        rf"(?<!\w)(?i:{_ID_LABEL}(?:\s*(?:number|no|num)\b)?\.?\s*(?:is\s+)?[:\#=-]*)\s*"
        r"(?P<value>(?=[\w/.-]{0,40}\d)[A-Za-z\d]\w*(?:[/.-]\w+)*)",
        # SSN; UID, address in a network
        r"(?<![\w.])(?P<value>\d{3}-\d{2}-\d{4}|\d{1,40}(?:\.\d{1,40}){3,20})(?!\.?\d)",
        # without "no.": at least three digits
        r"(?<!\w)(?i:file|folder|chart|case|invoice|order|ref(?:erence)?)\b\.?\s*[:\#=/-]?\s*"
        r"(?P<value>[A-Za-z]{0,3}-?\d{3,12})\b(?![.,/*-]\d|\s?(?:mm|cm|%))",
    ),
    "DATE": (
        r"(?i:\b(?:d\.?o\.?b|date|birth|born))[\s:.]*"
        r"(?P<value>\d{6}(?:\d\d)?|\d{1,4}(?P<dash>[-/.\\])\d{1,2}(?P=dash)\d{2,4})\b",
        rf"\b(?i:in|since|on|of|from|until|till|last|dated)\s+(?P<value>{_WEEKDAY_OR_MONTH})\b(?!,?\s+\d)",
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
        r"(?P<value>\b\d{1,5}\s(?:[A-Z][\w'’-]+\s){1,3}(?:Street|St|Road|Rd|Avenue|Ave|Lane|Drive|Boulevard|Blvd)\b\.?)",
    ),
}
