"""Read the findings of a lumbar report, with level, side, severity and negation.

The steps, statement by statement: words (spelling mistakes corrected) → mentions (findings, structures, actions)
→ actions joined with the structures they act on → negations, severities, sides and levels, each within its reach.
"""

from dataclasses import dataclass

from data_scripts.reports import modifiers
from data_scripts.reports.mentions import Statement
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


def report_facts(text: str) -> frozenset[Fact]:
    """Read the facts of a report that another wording must keep: its findings without their places."""
    return frozenset((f.kind, f.level, f.side, f.severity, f.negated) for f in report_findings(text))


def report_findings(text: str) -> tuple[Finding, ...]:
    """Read a report into its findings, in the order of the text, one for each level named.

    A statement without a level continues the level named last if it is still about the disc; a general statement
    ("No significant thecal sac or nerve root compression noted.") has none. A query, as in "lesion
    noted ? neuroma, sequestrated disc" or "haemangioma ?", is a differential diagnosis and not a finding.

    Example:
        >>> for finding in report_findings("Mild bulge at L4-5, compresing Lt exit nerve root // No spinal stenosis"):
        ...     print(finding.level, finding.kind, finding.side, finding.severity, finding.negated)
        L4/L5 bulge None mild False
        L4/L5 nerve root compression left None False
        None stenosis None None True
    """
    findings: list[Finding] = []
    context = modifiers.LevelContext()
    for words in read_statements(text):
        statement = Statement(words)
        modifiers.attach_severities(statement)
        modifiers.attach_grades(statement)
        modifiers.attach_sides(statement)
        context = modifiers.attach_levels(statement, context)
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
    return tuple(findings)
