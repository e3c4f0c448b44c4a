"""What a lumbar report states: findings with level, side, severity and negation.

The steps, statement by statement: words (spelling mistakes read through) → mentions (findings, structures, actions)
→ actions joined with the structures they act on → negations, severities, sides and levels, each within its reach.
"""

from dataclasses import dataclass

from data_scripts.reports.mentions import Statement
from data_scripts.reports.modifiers import (
    LevelContext,
    attach_grades,
    attach_levels,
    attach_severities,
    attach_sides,
    attach_sides_of_discs,
    side_of,
)
from data_scripts.reports.words import read_statements


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that a report states of one level.

    Args:
        kind: One of `FINDING_KINDS`.
        level: A disc level as `L4/L5`, or None when the report names none.
        side: `left`, `right`, `bilateral`, `central`, or None.
        severity: `minimal`, `mild`, `moderate`, `severe`; of graded kinds the grade as `grade 1` or `type 2`; or None.
        negated: Whether the report denies it.
        span: First character, and the one after the last, of the words that state the kind.
    """

    kind: str
    level: str | None
    side: str | None
    severity: str | None
    negated: bool
    span: tuple[int, int]


Fact = tuple[str, str | None, str | None, str | None, bool]


def report_facts(text: str) -> frozenset[Fact]:
    """The findings without their places: what another wording of the report must keep.

    Returns:
        Tuples of kind, level, side, severity and negated.
    """
    return frozenset(
        (finding.kind, finding.level, finding.side, finding.severity, finding.negated)
        for finding in report_findings(text)
    )


def report_findings(text: str) -> tuple[Finding, ...]:
    """Read a report into its findings, in the order of the text, one for each level named.

    A statement without a level continues the level named last when it goes on about the disc; a general statement
    ("No significant thecal sac or nerve root compression noted.") has none. What is queried, as in "lesion
    noted ? neuroma, sequestrated disc" or "haemangioma ?", is a differential diagnosis and no finding.

    Args:
        text: A report as it was typed, or normalised.

    Returns:
        The findings; empty when the text states none.

    Example:
        >>> for finding in report_findings("Mild bulge at L4-5, compresing Lt exit nerve root // No spinal stenosis"):
        ...     print(finding.level, finding.kind, finding.side, finding.severity, finding.negated)
        L4/L5 bulge None mild False
        L4/L5 nerve root compression left None False
        None stenosis None None True
    """
    findings: list[Finding] = []
    context = LevelContext()
    for words in read_statements(text):
        statement = Statement(words)
        attach_severities(statement)
        attach_grades(statement)
        attach_sides(statement)
        context = attach_levels(statement, context)
        attach_sides_of_discs(statement)
        findings += [
            Finding(
                kind=draft.kind,
                level=level,
                side=side_of(draft),
                severity=draft.severity,
                negated=draft.negated,
                span=(words[draft.first].start, words[draft.last].end),
            )
            for draft in statement.drafts
            for level in draft.levels or (None,)
        ]
    return tuple(findings)


def statement_spans(text: str) -> tuple[tuple[int, int], ...]:
    """The places of the statements of a report: first character, and the one after the last.

    Example:
        >>> text = "Mild bulge at L4-5 // no stenosis."
        >>> [text[start:end] for start, end in statement_spans(text)]
        ['Mild bulge at L4-5', 'no stenosis']
    """
    return tuple((words[0].start, words[-1].end) for words in read_statements(text))
