"""Find checked rephrasings: ask the model, keep what states the report's facts, ask again, fill up without a model."""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

from PIL import Image
from tqdm.auto import tqdm

from data_scripts.paraphrasing.model import Answerer, KeptAnswers
from data_scripts.paraphrasing.rephraser import comparable, rephrasings
from data_scripts.reports.findings import Fact
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
    """Whether a candidate is used, and why.

    Args:
        cause: One of `CAUSES`.
        missing: Facts of the report that the candidate does not state.
        added: Facts or numbers that only the candidate states.
    """

    cause: str
    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


def judge(candidate: str, report: str, kept: Collection[str]) -> Verdict:
    """Compare a candidate with its report.

    The check sees what the report parser sees: kinds, levels, sides, severities and negations of findings. Numbers and
    their units are compared, too: a model likes to invent measures. Other words may differ.

    Args:
        candidate: The proposed text.
        report: What it rephrases.
        kept: Rephrasings accepted before.

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


def _in_words(facts: Iterable[Fact]) -> tuple[str, ...]:
    return tuple(
        sorted(
            " ".join(filter(None, ("no" if negated else "", severity, side, kind, f"at {level}" if level else "")))
            for kind, level, side, severity, negated in facts
        )
    )


def split_answer(answer: str, report: str) -> list[str]:
    r"""Split a model's answer into candidates.

    These are its numbered or bulleted items, else its lines. One line is cut into sentences if the report is a single
    sentence.

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
    """A text proposed for a report.

    Args:
        text: As proposed.
        origin: `model` or `embedded`.
        attempt: The model's attempt, from 1; 0 for the embedded rephraser.
        verdict: Result of the check.
    """

    text: str
    origin: str
    attempt: int
    verdict: Verdict


@dataclass(kw_only=True)
class Rephrased:
    """A report, the number of rephrasings wanted, and its candidates in the order in which they were judged."""

    report: str
    wanted: int
    candidates: list[Candidate] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        """List the accepted rephrasings."""
        return [candidate.text for candidate in self.candidates if candidate.verdict.cause == ACCEPTED]

    def consider(self, text: str, origin: str, attempt: int = 0) -> None:
        """Judge a candidate, unless there are enough."""
        if len(self.texts) < self.wanted:
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

    Args:
        reports: Distinct texts. Their order decides the batches, and thus what a model samples.
        image_of: Returns the image of a report.
        answerer: The model; None for the embedded rephraser alone.
        kept: Answers of earlier runs; new ones are added.
        num_rephrasings: Number for each report.
        max_attempts: How often the model is asked about a report.
        batch_size: Reports in one request.
        seed: Seed of the embedded rephraser.
    """
    rephrased = [Rephrased(report=report, wanted=num_rephrasings) for report in reports]
    with_facts = [entry for entry in rephrased if report_facts(entry.report)]
    if answerer is not None:
        for attempt in range(1, max_attempts + 1):
            unfinished = [entry for entry in with_facts if len(entry.texts) < num_rephrasings]
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
        _fill_up(entry, seed)
    return rephrased


def _fill_up(entry: Rephrased, seed: int) -> None:
    """Add embedded rephrasings until there are enough or the wordings run out."""
    if len(entry.texts) == entry.wanted:
        return
    known = set(map(comparable, entry.texts))
    for text in rephrasings(entry.report, seed):
        if comparable(text) not in known:
            entry.consider(text, "embedded")
        if len(entry.texts) == entry.wanted:
            return
