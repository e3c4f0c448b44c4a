"""Change one fact of a report, and prove by reading it again that only this fact has changed.

The changed report is close to the true one and wrong about the image: a hard negative. The words are the report's own
where that can be done: "No disc bulge or herniation." becomes "No herniation. Disc bulge.".
"""

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Literal, NamedTuple, TypeVar

from data_scripts.augmentations.polarity_changes import NORMALITY, capital, with_other_polarity
from data_scripts.reports.findings import Fact
from data_scripts.reports.lexicon import SEVERITIES, word_set
from data_scripts.reports.phrasing import ROMAN_NUMERALS
from data_scripts.reports.text import (
    DISC_LEVELS,
    Finding,
    exchange_sides,
    replace_spans,
    report_facts,
    report_findings,
)
from data_scripts.reports.words import EXTRA_VERTEBRAE, Word, read_statements

Item = TypeVar("Item")
Change = Literal["polarity", "level", "side", "severity"]
CHANGES: tuple[Change, ...] = ("polarity", "level", "side", "severity")
MOST_OF_EACH = 2  # counterfactuals of one kind
LONGEST_REPORT = 4000  # characters; a longer one has none, since every change reads it again

_ORDER = ("minimal", "mild", "moderate", "severe")
# Levels that a change may name, from the top down.
_LEVELS = tuple(level for level in DISC_LEVELS if level[0] in "TL" and not {*level.split("/")} & {*EXTRA_VERTEBRAE})
_LAST_GRADE = {"spondylolisthesis": 4, "Modic change": 3, "Pfirrmann grade": 5}


@lru_cache(maxsize=65536)
def counterfactual_reports(report: str, seed: int = 0) -> tuple[tuple[Change, str], ...]:
    """Make texts that differ from a report in exactly one fact.

    A change is `polarity` (a finding stated instead of denied, or the reverse; a denial may drop its side, severity and
    level), `level` (one disc higher or lower), `side`, or `severity` (one step). A text is kept if reading it again
    shows that one fact has gone and its changed form has come, and that it contradicts nothing else in the report.

    Args:
        report: A report, or a part of one.
        seed: With the report, decides which findings are changed and which way.

    Returns:
        Pairs of change and text, at most `MOST_OF_EACH` of a change; none if the reader knows no fact to change.

    Example:
        >>> counterfactual_reports("Mild left paracentral protrusion at L4-5.")
        (('polarity', 'No protrusion at L4-5.'), ('level', 'Mild left paracentral protrusion at L3-4.'),
        ('side', 'Mild right paracentral protrusion at L4-5.'),
        ('severity', 'Moderate left paracentral protrusion at L4-5.'))
    """
    if len(report) > LONGEST_REPORT:
        return ()
    digest = hashlib.sha256(f"{seed}\0{report}".encode()).digest()
    draw = random.Random(int.from_bytes(digest[:8], "big"))
    findings = report_findings(report)
    facts = report_facts(report)
    if not facts or not findings:
        return ()
    statements = [_Statement.of(report, words) for words in read_statements(report)]
    candidates_of: dict[Change, Iterator[Iterator[str]]] = {
        "polarity": _polarity_candidates(report, statements, findings, draw),
        "level": _level_candidates(report, statements, draw),
        "side": _side_candidates(report, statements, draw),
        "severity": _severity_candidates(report, statements, findings, draw),
    }
    made: dict[str, Change] = {}
    for change, candidates in candidates_of.items():
        proved = (_first_proved(texts, facts, change) for texts in candidates)
        made |= dict.fromkeys(islice((text for text in proved if text and text not in made), MOST_OF_EACH), change)
    return tuple((change, text) for text, change in made.items())


def _first_proved(texts: Iterator[str], facts: frozenset[Fact], change: Change) -> str | None:
    return next((text for text in texts if _is_proved(facts, report_facts(text), change)), None)


def _is_proved(before: frozenset[Fact], after: frozenset[Fact], change: Change) -> bool:
    """Whether exactly one fact has changed, in one respect, and contradicts no other."""
    gone, come = before - after, after - before
    if len(gone) != 1 or len(come) != 1:
        return False
    (old,), (new,) = gone, come
    if old[0] != new[0] or any(_contradict(new, other) for other in after - come):
        return False
    differing = {name for name, was, now in zip(_FIELDS, old, new, strict=True) if was != now}
    if change == "polarity":
        denied = old if old[4] else new
        dropped = {name for name, value in zip(_FIELDS, denied, strict=True) if value is None}
        return "polarity" in differing and differing <= {"polarity"} | dropped
    if differing != {change}:
        return False
    was, now = (fact[_FIELDS.index(change)] for fact in (old, new))
    return not old[4] and was is not None and now is not None  # what is denied here may be absent there as well


_FIELDS = ("kind", "level", "side", "severity", "polarity")


def _contradict(fact: Fact, other: Fact) -> bool:
    """Whether one states and one denies the same: kind and negation apart, they agree wherever both say something."""
    kind, *place, negated = fact
    other_kind, *other_place, other_negated = other
    both_said = [(a, b) for a, b in zip(place[:2], other_place[:2], strict=True) if a and b]
    return kind == other_kind and negated != other_negated and all(a == b for a, b in both_said)


class _Statement(NamedTuple):
    """A statement of a report, and its place in the text, with its full stop."""

    start: int
    end: int
    words: tuple[Word, ...]

    @classmethod
    def of(cls, report: str, words: tuple[Word, ...]) -> "_Statement":
        end = words[-1].end
        while end < len(report) and report[end] in ")%\"'":
            end += 1
        return cls(words[0].start, end + (report[end : end + 1] == "."), words)


# --- levels, sides and severities: one word is exchanged


def _level_candidates(report: str, statements: list[_Statement], draw: random.Random) -> Iterator[Iterator[str]]:
    words = [word for statement in statements for word in statement.words if word.lemma == "<level>"]
    for word in _shuffled([word for word in words if len(word.levels) == 1], draw):
        yield _with_other_level(report, word, draw)


def _with_other_level(report: str, word: Word, draw: random.Random) -> Iterator[str]:
    (level,), spelt = word.levels, _SPELT_LEVEL.fullmatch(report[word.start : word.end])
    if level not in _LEVELS or spelt is None:
        return
    place = _LEVELS.index(level)
    for neighbour in _shuffled([*_LEVELS[max(0, place - 1) : place], *_LEVELS[place + 1 : place + 2]], draw):
        upper, lower = neighbour.split("/")
        letter = lower[0] if spelt["lower"] or lower[0] != upper[0] else ""
        if spelt["upper"].islower():
            upper, letter = upper.lower(), letter.lower()
        yield replace_spans(report, {(word.start, word.end): f"{upper}{spelt['joint']}{letter}{lower[1:]}"})


_SPELT_LEVEL = re.compile(r"(?P<upper>[CDTLcdtl])\d{1,2}(?P<joint>[-/\\_‐‑–—−]{1,2})(?P<lower>[DTLSdtls]?)\d{1,2}")


def _side_candidates(report: str, statements: list[_Statement], draw: random.Random) -> Iterator[Iterator[str]]:
    words = [word for statement in statements for word in statement.words if word.lemma in ("left", "right", "both")]
    for word in _shuffled(words, draw):
        yield _with_other_side(report, word, draw)


def _with_other_side(report: str, word: Word, draw: random.Random) -> Iterator[str]:
    before, found, after = report[: word.start], report[word.start : word.end], report[word.end :]
    if word.lemma != "both":
        exchanged = exchange_sides(found if len(found) > 1 else f"({found})").strip("()")
        yield f"{before}{exchanged}{after}"
    elif _IN_SINGULAR.match(after) and found.lower() == "bilateral":
        for side in _shuffled(["left", "right"], draw):
            yield f"{before}{_in_case_of(found, side)}{after}"


_IN_SINGULAR = re.compile(
    r" (?:[a-z]+ ){0,2}(?:narrowing|stenosis|compression|encroachment|hypertrophy|impingement|arthropathy)\b"
)


def _severity_candidates(
    report: str, statements: list[_Statement], findings: tuple[Finding, ...], draw: random.Random
) -> Iterator[Iterator[str]]:
    words = [
        word
        for statement in statements
        for place, word in enumerate(statement.words)
        if word.lemma in _ORDER and not _is_of_a_range(statement.words, place)
    ]
    graded = sorted({finding.span for finding in findings if finding.kind in _LAST_GRADE and finding.severity})
    kind_at = {finding.span: finding.kind for finding in findings}
    options: list[Word | tuple[int, int]] = [*words, *graded]
    for option in _shuffled(options, draw):
        if isinstance(option, Word):
            yield _with_other_severity(report, option, draw)
        else:
            yield _with_other_grade(report, option, kind_at[option], draw)


def _is_of_a_range(words: tuple[Word, ...], place: int) -> bool:
    """Whether a severity is one end of "mild to moderate"."""
    around = words[max(0, place - 2) : place] + words[place + 1 : place + 3]
    return any(word.lemma in SEVERITIES for word in around)


def _with_other_severity(report: str, word: Word, draw: random.Random) -> Iterator[str]:
    found = report[word.start : word.end]
    is_of_grade = " degeneration" in report[word.end : word.end + 20] and _OF_PFIRRMANN.search(report)
    if found.lower() not in _SEVERITY_FORMS or is_of_grade:
        return
    place = _ORDER.index(word.lemma)
    steps = [_ORDER[index] for index in (place - 1, place + 1) if 0 < index < len(_ORDER)]  # "minimal" is rare
    for severity in _shuffled(steps, draw):
        other = severity + ("ly" if found.lower().endswith("ly") else "")
        yield replace_spans(report, {(word.start, word.end): _in_case_of(found, other)})


_SEVERITY_FORMS = word_set(
    "minimal minimally mild mildly slight slightly moderate moderately severe severely marked markedly"
)


def _with_other_grade(report: str, span: tuple[int, int], kind: str, draw: random.Random) -> Iterator[str]:
    """Raise or lower the number of a grade, together with the word that describes a Modic type."""
    start, end = max(0, span[0] - 24), min(len(report), span[1] + 16)
    clause = report[max(0, report.rfind(".", 0, span[0])) : report.find(".", span[1]) + 1 or None]
    if kind == "Pfirrmann grade" and (_DESCRIBES_DISC.search(clause) or NORMALITY.search(report)):
        return  # "Pfirrmann 4 (a black disc)" would contradict itself
    for match in _GRADE.finditer(report, start, end):
        if match[0].lower().startswith("pfirr") != (kind == "Pfirrmann grade"):
            continue  # of another finding beside it
        number = _ARABIC.get(match["number"].upper(), match["number"])
        grades = [int(number) - 1, int(number) + 1]
        for grade in _shuffled([grade for grade in grades if 1 <= grade <= _LAST_GRADE[kind]], draw):
            spelt = str(grade) if match["number"].isdigit() else ROMAN_NUMERALS[str(grade)]
            replacements = {match.span("number"): spelt}
            if kind == "Modic change":
                described = _DESCRIBES_MARROW.search(report, max(0, span[0] - 40), end)
                if described:
                    replacements[described.span()] = _in_case_of(described[0], _MARROW[grade])
            yield replace_spans(report, replacements)


_GRADE = re.compile(r"(?i)\b(?:grade|type|modic|pfirrmann?)(?: type| grade)?[ (]+(?P<number>[1-5]|I{1,3}|IV|V)\b")
_ARABIC = {roman: number for number, roman in ROMAN_NUMERALS.items()}
_DESCRIBES_DISC = re.compile(
    r"(?i)nucle(?:us|ar)|dark|black|signal|degenerat|hydrat|desiccat|annular border|homogeneous"
)
_MARROW = {1: "oedema-like", 2: "fatty", 3: "sclerotic"}
_DESCRIBES_MARROW = re.compile(r"(?i)oedema-like|fatty|sclerotic")


def _polarity_candidates(
    report: str, statements: list[_Statement], findings: tuple[Finding, ...], draw: random.Random
) -> Iterator[Iterator[str]]:
    for finding in _shuffled(list({finding.span: finding for finding in findings}.values()), draw):
        statement = next((one for one in statements if one.start <= finding.span[0] < one.end), None)
        if statement is not None and finding.kind not in _NEVER_DENIED and not _describes_grade(report, finding.kind):
            yield with_other_polarity(report, statement.start, statement.end, finding)


_NEVER_DENIED = ("Pfirrmann grade", "disc migration", "postoperative change")


def _describes_grade(report: str, kind: str) -> bool:
    """Whether a finding may be the description of a Pfirrmann grade, which would contradict its number."""
    return kind in ("dehydration", "degenerative change") and bool(_OF_PFIRRMANN.search(report))


_OF_PFIRRMANN = re.compile(
    r"(?i)pfirrmann?|nuclear|homogeneous|grey nucleus|(?:bright|hydrated) nucleus|faint|end-stage"
)


def _in_case_of(found: str, word: str) -> str:
    return word.upper() if found.isupper() and len(found) > 1 else capital(word) if found[0].isupper() else word


def _shuffled(items: Sequence[Item], draw: random.Random) -> list[Item]:
    return draw.sample(items, len(items))
