"""Find checked rephrasings: ask the model, keep those with the report's facts, ask again, fill gaps without a model."""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from PIL import Image
from tqdm.auto import tqdm

from data_scripts.paraphrasing.model import Answerer, KeptAnswers
from data_scripts.paraphrasing.rephraser import comparable, rephrasings
from data_scripts.privacy.identifiers import find_identifiers
from data_scripts.reports.findings import Fact
from data_scripts.reports.text import report_facts, report_measures

_Repeats = Literal["repeats the report", "repeats a rephrasing"]
_Facts = Literal["fact missing", "fact added", "fact changed", "number added"]
Cause = Literal["accepted", "no text", "names a person", _Repeats, _Facts]
CAUSES: tuple[Cause, ...] = get_args(Cause)

_ITEM = re.compile(r"^\s*(?:\(?\d{1,2}[.):]|[-*•]|sentence \d{1,2}:)\s+", re.IGNORECASE)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether a candidate is used, and why."""

    cause: Cause
    missing: tuple[str, ...] = ()  # facts that only the report states
    added: tuple[str, ...] = ()  # facts or numbers that only the candidate states


def judge(candidate: str, report: str, kept: Collection[str]) -> Verdict:
    """Compare a candidate with its report and the rephrasings `kept` before.

    The check sees what the report parser sees: kinds, levels, sides, severities and negations of findings. Numbers and
    their units are compared, too: models tend to invent measurements. Other words may differ.

    Example:
        >>> judge("Right disc bulge at L4/L5.", "Left disc bulge at L4-5.", kept=())
        Verdict(cause='fact changed', missing=('left bulge at L4/L5',), added=('right bulge at L4/L5',))
    """
    if not candidate.strip():
        return Verdict(cause="no text")
    if find_identifiers(candidate):
        return Verdict(cause="names a person")
    if comparable(candidate) == comparable(report):
        return Verdict(cause="repeats the report")
    if comparable(candidate) in map(comparable, kept):
        return Verdict(cause="repeats a rephrasing")
    found, stated = report_facts(candidate), report_facts(report)
    missing, added = _in_words(stated - found), _in_words(found - stated)
    if missing or added:
        cause: Cause = "fact changed" if missing and added else "fact missing" if missing else "fact added"
        return Verdict(cause=cause, missing=missing, added=added)
    numbers = tuple(sorted(report_measures(candidate) - report_measures(report)))
    return Verdict(cause="number added" if numbers else "accepted", added=numbers)


def _in_words(facts: Iterable[Fact]) -> tuple[str, ...]:
    return tuple(
        sorted(
            " ".join(filter(None, ("no" if negated else "", severity, side, kind, f"at {level}" if level else "")))
            for kind, level, side, severity, negated in facts
        )
    )


def split_answer(answer: str, report: str) -> list[str]:
    r"""Split an answer into its items or lines, or a single line into sentences if the report is one sentence.

    Example:
        >>> split_answer('Sure:\n1. "No disc bulge."\n2. There is no bulge.', "No bulge.")
        ['No disc bulge.', 'There is no bulge.']
    """
    lines = [line for line in answer.splitlines() if line.strip()]
    items = [_ITEM.sub("", line) for line in lines if _ITEM.match(line)]
    if not items and len(lines) == 1 and not _SENTENCE_END.search(report.strip()):
        items = _SENTENCE_END.split(lines[0])
    return [stripped for item in items or lines if (stripped := item.strip().strip("\"“”'*").strip())]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A text proposed for a report."""

    text: str
    origin: str  # `model` or `embedded`
    attempt: int  # the model's attempt, from 1; 0 for the embedded rephraser
    verdict: Verdict


@dataclass(kw_only=True)
class Rephrased:
    """A report, the number of rephrasings wanted, and its candidates in the order of judgement."""

    report: str
    wanted: int
    candidates: list[Candidate] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        """List the accepted rephrasings."""
        return [candidate.text for candidate in self.candidates if candidate.verdict.cause == "accepted"]

    @property
    def is_complete(self) -> bool:
        """Whether there are enough rephrasings."""
        return len(self.texts) == self.wanted

    def consider(self, text: str, origin: str, attempt: int = 0) -> None:
        """Judge a candidate, unless there are enough."""
        if not self.is_complete:
            verdict = judge(text, self.report, self.texts)
            self.candidates.append(Candidate(text=text, origin=origin, attempt=attempt, verdict=verdict))


def rephrase_all(
    reports: Sequence[str],
    image_of: Callable[[str], Image.Image],
    answerer: Answerer | None,
    kept: KeptAnswers,
    *,
    num_rephrasings: int,
    max_attempts: int,
    batch_size: int,
    seed: int,
) -> list[Rephrased]:
    """Find rephrasings of each report. One without a parsed finding gets none: nothing could be checked.

    The order of the reports, which are distinct, decides the batches, and thus what a model samples. Without an
    answerer the embedded rephraser, whose seed is `seed`, writes all. New answers are added to `kept`.
    """
    rephrased = [Rephrased(report=report, wanted=num_rephrasings) for report in reports]
    with_facts = [entry for entry in rephrased if report_facts(entry.report)]
    if answerer is not None:
        for attempt in range(1, max_attempts + 1):
            unfinished = [entry for entry in with_facts if not entry.is_complete]
            batches = [unfinished[start : start + batch_size] for start in range(0, len(unfinished), batch_size)]
            for batch in tqdm(batches, desc=f"asking the model, attempt {attempt}", unit=" batches"):
                asked = [entry.report for entry in batch]
                answers = kept.of(asked, attempt)
                if answers is None:
                    answers = answerer.answers(asked, [image_of(report) for report in asked], attempt)
                    kept.keep(asked, attempt, answers)
                for entry, answer in zip(batch, answers, strict=True):
                    for text in split_answer(answer, entry.report):
                        entry.consider(text, "model", attempt)
    for entry in tqdm(with_facts, desc="filling up", unit=" reports"):
        known, embedded = set(map(comparable, entry.texts)), rephrasings(entry.report, seed)
        while not entry.is_complete and (wording := next(embedded, None)) is not None:
            if comparable(wording) not in known:
                entry.consider(wording, "embedded")
    return rephrased
