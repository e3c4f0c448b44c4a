"""From reports to checked rephrasings: ask, judge, ask again for what is missing, and fill up without a model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from PIL import Image
from tqdm.auto import tqdm

from data_scripts.paraphrasing.answers import Answerer, KeptAnswers
from data_scripts.paraphrasing.checks import ACCEPTED, Verdict, judge, split_answer
from data_scripts.paraphrasing.rephraser import comparable, rephrasings
from data_scripts.reports.text import report_facts


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A text that was proposed for a report.

    Args:
        text: As proposed.
        origin: `model` or `embedded`.
        attempt: Which asking of the model it answered, from 1; 0 for the embedded rephraser.
        verdict: What the check said.
    """

    text: str
    origin: str
    attempt: int
    verdict: Verdict


@dataclass(kw_only=True)
class Rephrased:
    """A report, and all that was proposed for it.

    Args:
        report: The text.
        wanted: Rephrasings to find.
        candidates: In the order in which they were judged.
    """

    report: str
    wanted: int
    candidates: list[Candidate] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        """The rephrasings that were kept."""
        return [candidate.text for candidate in self.candidates if candidate.verdict.cause == ACCEPTED]

    def consider(self, text: str, origin: str, attempt: int = 0) -> None:
        """Judge a candidate, unless enough were kept already."""
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
    """Find rephrasings of each report.

    A report without a parsed finding gets none: there is nothing to hold a candidate against.

    Args:
        reports: Distinct texts. Batches are cut from their order, which thus decides what a model samples.
        image_of: The image that goes with a report.
        answerer: The model; None for the embedded rephraser alone.
        kept: Answers of earlier runs; new ones are added.
        num_rephrasings: For each report.
        max_attempts: How often the model is asked about a report.
        batch_size: Reports that it is asked about at once.
        seed: Of the embedded rephraser.
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
    """Add embedded rephrasings until there are enough, or no more wordings."""
    if len(entry.texts) == entry.wanted:
        return
    known = set(map(comparable, entry.texts))
    for text in rephrasings(entry.report, seed):
        if comparable(text) not in known:
            entry.consider(text, "embedded")
        if len(entry.texts) == entry.wanted:
            return
