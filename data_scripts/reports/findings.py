"""Read the findings of a lumbar report, with level, side, severity and negation.

The steps, statement by statement: words (spelling mistakes corrected) → mentions (findings, structures, actions)
→ actions joined with the structures they act on → negations, severities, sides and levels, each within its reach.
"""

from dataclasses import dataclass

from data_scripts.reports import modifiers
from data_scripts.reports.drafts import Statement
from data_scripts.reports.language import seems_english
from data_scripts.reports.lexicon import NOT_LOW_BACK_PAIN
from data_scripts.reports.sections import asserting_statements
from data_scripts.reports.words import read_statements


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a report states about one level."""

    kind: str  # one of `FINDING_KINDS`
    level: str | None  # a disc level as `L4/L5`, or None if the report names none
    side: str | None  # `left`, `right`, `bilateral`, `central`, or None
    severity: str | None  # one of `SEVERITIES`; for graded kinds the grade as `grade 1` or `type 2`; or None
    negated: bool
    span: tuple[int, int]  # place of the words that state the kind, as in a slice


Fact = tuple[str, str | None, str | None, str | None, bool]  # kind, level, side, severity, negated


@dataclass(frozen=True, kw_only=True)
class ReportReading:
    """What a report says, and whether the reader understood it."""

    findings: tuple[Finding, ...]
    problem: str = ""  # why the report was not understood; empty if it was


def report_facts(text: str) -> frozenset[Fact]:
    """Read the facts of a report that another wording must keep: its findings without their places.

    Whether the text is English plays no part: a name in it must not decide whether it has facts.
    """
    return frozenset((f.kind, f.level, f.side, f.severity, f.negated) for f in _read(text).findings)


def report_findings(text: str) -> tuple[Finding, ...]:
    """Read a report into its findings, in the order of the text, one for each level named.

    A statement without a level continues the level named last if it is still about the disc; a general statement
    ("No significant thecal sac or nerve root compression noted.") has none. Left out is what is not stated of this
    examination: queries ("rule out stenosis", "haemangioma ?"), history, comparison and advice. A text that seems not
    to be English has no findings.

    Example:
        >>> for finding in report_findings("Mild bulge at L4-5, compresing Lt exit nerve root // No spinal stenosis"):
        ...     print(finding.level, finding.kind, finding.side, finding.severity, finding.negated)
        L4/L5 bulge None mild False
        L4/L5 nerve root compression left None False
        None stenosis None None True
    """
    return read_report(text).findings


def read_report(text: str) -> ReportReading:
    """Read the findings of a report, and say whether it was understood.

    A report is understood if it is English and states or denies a finding, or calls something normal. One that affirms
    nothing but an abnormality that the reader does not know ("arachnoiditis") is not.

    Example:
        >>> read_report("Normal study.").problem, read_report("Arachnoiditis at L4.").problem
        ('', 'no known finding and no word of normality')
    """
    return _read(text) if seems_english(text) else ReportReading(findings=(), problem="seems not to be English")


def _read(text: str) -> ReportReading:
    findings: list[Finding] = []
    context = modifiers.LevelContext()
    is_normal, unread = False, ""
    for words, follows_heading in asserting_statements(read_statements(text), text):
        context = modifiers.LevelContext() if follows_heading else context
        statement = Statement(words, text)
        is_normal = is_normal or statement.says_normal
        unread = unread or statement.unread_abnormality
        gradings = modifiers.attach_severities_and_sides(statement)
        context = modifiers.attach_levels(statement, context, gradings)
        if statement.states_nothing:  # a level of another examination is not carried over
            context = modifiers.LevelContext()
        modifiers.attach_sides_of_discs(statement)
        findings += [
            Finding(
                kind=draft.kind,
                level=level,
                side=modifiers.side_of(draft),
                severity=draft.severity,
                negated=draft.negated,
                span=(words[draft.first].start, words[draft.last].end),
            )
            for draft in statement.drafts
            for level in draft.levels or (None,)
        ]
    problem = ""
    if not findings and not is_normal:
        problem = "no known finding and no word of normality"
    elif unread and all(finding.negated or finding.kind in NOT_LOW_BACK_PAIN for finding in findings):
        problem = f"affirms only what the reader does not know: {unread!r}"
    return ReportReading(findings=tuple(findings), problem=problem)
