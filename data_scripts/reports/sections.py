"""Split a report into sections and keep what is about this examination.

Indication, history, comparison, technique and recommendation assert nothing of it. Headings stand at the beginning of
a line or statement, or before a colon, in any case, and may be misspelt.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from data_scripts.reports import cues
from data_scripts.reports.words import Word

_LONGEST_HEADING = 7  # words
_KINDS = {
    "findings": cues.HEADINGS_OF_FINDINGS,
    "method": cues.HEADINGS_OF_METHOD,
    "advice": cues.HEADINGS_OF_ADVICE,
    "other text": cues.HEADINGS_OF_OTHER_TEXT,
}
_KINDS_BEFORE_A_SIGN = {"other text": cues.HEADINGS_BEFORE_A_SIGN, "part": cues.HEADINGS_OF_PARTS}
_BLANK_LINE = re.compile(r"\n[^\S\n]*\r?\n|\r[^\S\n\r]*\r")
_SIGN = re.compile(r"\s*[:=|–—-]")


@dataclass(frozen=True)
class _Part:
    """Words of a statement from one heading to the next."""

    heading: str  # one of `_KINDS` or `part`; empty where the statement goes on without one
    words: tuple[Word, ...]  # without the heading, unless that is a structure or level
    start: int  # where it begins in the text, with its heading


def asserting_statements(statements: Iterable[tuple[Word, ...]], text: str) -> Iterator[tuple[tuple[Word, ...], bool]]:
    """Leave out headings, and the sections that assert nothing of this examination.

    Such a section ends at the next heading or blank line. Where no heading of findings follows, it also ends with its
    line or, in a report of one line, with its first statement. A recommendation reaches to the end.

    Returns:
        The words of each statement, and whether it follows a heading of findings.

    Example:
        >>> from data_scripts.reports.words import read_statements
        >>> text = "INDICATION: rule out herniation. FINDINGS: Bulge at L4-5."
        >>> for words, follows_heading in asserting_statements(read_statements(text), text):
        ...     print([word.lemma for word in words], follows_heading)
        ['bulge', 'at', '<level>'] True
    """
    parts = [part for words in statements for part in _parts(words, text)]
    last_findings = max((place for place, part in enumerate(parts) if part.heading == "findings"), default=-1)
    last_line = max(text.rfind("\n"), text.rfind("\r"))
    section, end_of_content = "", 0  # 0: the section has no words yet
    for place, part in enumerate(parts):
        if part.heading:
            section, end_of_content = part.heading, 0
        elif end_of_content and section == "method":
            section = ""
        elif end_of_content and section == "other text":
            between = text[end_of_content : part.start]
            begins_line = "\n" in between or "\r" in between or last_line < part.start
            if _BLANK_LINE.search(between) or (begins_line and place > last_findings):
                section = ""
        if part.words:
            follows_heading = section == "findings" and not end_of_content
            end_of_content = part.words[-1].end
            if section not in ("other text", "method", "advice"):
                yield part.words, follows_heading


def _parts(words: tuple[Word, ...], text: str) -> Iterator[_Part]:
    """Cut a statement before each heading."""
    headings = [*_headings(words, text)]
    starts = [first for first, _, _ in headings]
    if starts[:1] != [0]:
        yield _Part("", words[: starts[0] if starts else len(words)], words[0].start)
    for (first, begin, kind), end in zip(headings, [*starts[1:], len(words)], strict=False):
        yield _Part(kind, words[first if kind == "part" else begin : end], words[first].start)


def _headings(words: Sequence[Word], text: str) -> Iterator[tuple[int, int, str]]:
    """Find the headings of a statement: index of the first word, of the first one after it, and kind."""
    signs = [index for index, word in enumerate(words) if _is_sign(word, text)]
    if at_start := _heading_at_start(words, text):
        signs = [index for index in signs if index >= at_start[1]]
        yield 0, at_start[1], at_start[0]
    for sign in signs:
        for first in range(max(0, sign - _LONGEST_HEADING), sign):
            kind = _kind([word.lemma for word in words[first:sign]], before_sign=True)
            if kind and (words[sign].lemma == ":" or kind == "findings") and _may_begin(words, first, text, kind):
                yield first, sign + 1, kind
                break


def _is_sign(word: Word, text: str) -> bool:
    return word.lemma == ":" or text[word.start] in "-–—"


def _heading_at_start(words: Sequence[Word], text: str) -> tuple[str, int] | None:
    for end in range(min(len(words), _LONGEST_HEADING), 0, -1):
        lemmas = [word.lemma for word in words[:end]]
        sign = _SIGN.match(text, words[end - 1].end) if end < len(words) else None
        if sign is None and end < len(words) and not _stands_in_capitals(words, end, text):
            continue
        if kind := _kind(lemmas, before_sign=sign is not None):
            return kind, end + (sign is not None and words[end].start < sign.end())
    return None


def _stands_in_capitals(words: Sequence[Word], end: int, text: str) -> bool:
    """Whether words are told from those that follow by their capitals: "INDICATION Back pain"."""
    return text[words[0].start : words[end - 1].end].isupper() and not text[words[end].start : words[end].end].isupper()


def _may_begin(words: Sequence[Word], first: int, text: str, kind: str) -> bool:
    """Whether a heading may begin within a statement: "…pain, Technique: …", but not "a plan: …"."""
    return kind == "findings" or (kind != "part" and text[words[first].start].isupper())


@cache
def _patterns(before_sign: bool) -> tuple[tuple[str, re.Pattern[str]], ...]:
    kinds = [*_KINDS.items(), *(_KINDS_BEFORE_A_SIGN.items() if before_sign else ())]
    return tuple((kind, re.compile(phrase)) for kind, phrase in kinds)


def _kind(lemmas: Sequence[str], *, before_sign: bool) -> str | None:
    """Return the kind of heading that words are, if they are one."""
    if before_sign and lemmas[0] == "<level>" and {*lemmas} <= {"<level>", "level", "disc", "and", ","}:
        return "part"
    heading = " ".join(lemmas)
    return next((kind for kind, pattern in _patterns(before_sign) if pattern.fullmatch(heading)), None)
