"""What becomes of a candidate rephrasing: it is kept only if it states what the report states, in other words."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from data_scripts.paraphrasing.rephraser import comparable
from data_scripts.reports.text import report_facts, report_measures

ACCEPTED = "accepted"
NO_TEXT = "no text"
REPEATS_REPORT = "repeats the report"
REPEATS_REPHRASING = "repeats a rephrasing"
FACT_MISSING = "fact missing"
FACT_ADDED = "fact added"
FACT_CHANGED = "fact changed"
NUMBER_ADDED = "number added"
CAUSES = (ACCEPTED, NO_TEXT, REPEATS_REPORT, REPEATS_REPHRASING, FACT_MISSING, FACT_ADDED, FACT_CHANGED, NUMBER_ADDED)

_ITEM = re.compile(r"^\s*(?:\(?\d{1,2}[.):]|[-*•]|sentence \d{1,2}:)\s+", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a candidate may be used.

    Args:
        cause: One of `CAUSES`.
        missing: Facts of the report that the candidate does not state, in words.
        added: Facts or numbers of the candidate that the report does not state.
    """

    cause: str
    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


def judge(candidate: str, report: str, kept: Collection[str]) -> Verdict:
    """Compare a candidate with its report.

    The check sees what the report parser sees: kinds, levels, sides, severities and negations of findings; numbers
    and their units are compared besides, since a measure that nobody took is the likeliest thing a model invents.
    Words outside of both may differ.

    Args:
        candidate: A text.
        report: What it shall rephrase.
        kept: Rephrasings that the report has already.

    Example:
        >>> judge("Right disc bulge at L4/L5.", "Left disc bulge at L4-5.", kept=())
        Verdict(cause='fact changed', missing=('left bulge at L4/L5',), added=('right bulge at L4/L5',))
    """
    if not candidate.strip():
        return Verdict(cause=NO_TEXT)
    if comparable(candidate) == comparable(report):
        return Verdict(cause=REPEATS_REPORT)
    if comparable(candidate) in map(comparable, kept):
        return Verdict(cause=REPEATS_REPHRASING)
    found, stated = report_facts(candidate), report_facts(report)
    missing, added = _in_words(stated - found), _in_words(found - stated)
    if missing and added:
        return Verdict(cause=FACT_CHANGED, missing=missing, added=added)
    if missing or added:
        return Verdict(cause=FACT_MISSING if missing else FACT_ADDED, missing=missing, added=added)
    numbers = report_measures(candidate) - report_measures(report)
    if numbers:
        return Verdict(cause=NUMBER_ADDED, added=tuple(sorted(numbers)))
    return Verdict(cause=ACCEPTED)


def _in_words(facts: Iterable[tuple[str, str | None, str | None, str | None, bool]]) -> tuple[str, ...]:
    return tuple(
        sorted(
            " ".join(filter(None, ("no" if negated else "", severity, side, kind, f"at {level}" if level else "")))
            for kind, level, side, severity, negated in facts
        )
    )


def split_answer(answer: str, report: str) -> list[str]:
    r"""Take a model's answer apart into candidates.

    Numbered or bulleted items if there are any, else lines. An answer of one line is cut into its sentences where
    the report is a single sentence itself.

    Example:
        >>> split_answer('Sure:\n1. "No disc bulge."\n2. There is no bulge.', "No bulge.")
        ['No disc bulge.', 'There is no bulge.']
    """
    lines = [line for line in answer.splitlines() if line.strip()]
    items = [_ITEM.sub("", line) for line in lines if _ITEM.match(line)]
    if not items and len(lines) == 1 and not _SENTENCE_END.search(report.strip()):
        items = _SENTENCE_END.split(lines[0])
    return [stripped for item in items or lines if (stripped := item.strip().strip("\"“”'*").strip())]
