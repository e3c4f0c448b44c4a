"""Group the findings of a report: what a rephrasing must say, and what goes into one sentence."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from data_scripts.paraphrasing.phrases import CONTOURS, SHAPES, ZONES
from data_scripts.reports.text import Finding, report_findings


@dataclass(frozen=True, kw_only=True)
class Mention:
    """A finding without its level; kind, side and severity are those of `Finding`.

    Args:
        shape: `diffuse`, `broad-based`, ... of a disc; `both` of endplates, which have no side. Not a fact, but kept.
        zone: `paracentral`, `paracentral and foraminal`, ...; kept as well.
    """

    kind: str
    side: str | None
    severity: str | None
    shape: str = ""
    zone: str = ""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Distinct mentions in the report's order, at the same levels (empty: not stated), all affirmed or all denied."""

    levels: tuple[str, ...]
    mentions: tuple[Mention, ...]
    negated: bool


def read_groups(report: str) -> list[Group]:
    """Group neighbouring findings that share levels and negation, each mentioned once.

    Example:
        >>> for group in read_groups("Lt foraminal protrusion at L4-5 & L5-S1. No spinal stenosis."):
        ...     print(group.levels, *(mention.kind for mention in group.mentions), group.negated)
        ('L4/L5', 'L5/S1') protrusion False
        () stenosis True
    """
    said: dict[tuple[tuple[str, ...], bool, Mention], None] = {}
    for _, same in groupby(report_findings(report), key=lambda finding: finding.span):
        # A mention of several levels gives one finding each, not always with the same side.
        levels_of: dict[tuple[bool, Mention], list[str]] = {}
        for finding in same:
            levels = levels_of.setdefault((finding.negated, _mention(report, finding)), [])
            levels += [finding.level] if finding.level else []
        said |= {(tuple(levels), negated, mention): None for (negated, mention), levels in levels_of.items()}
    return [
        Group(levels=levels, negated=negated, mentions=tuple(dict.fromkeys(mention for _, _, mention in members)))
        for (levels, negated), members in groupby(said, key=lambda key: key[:2])
    ]


def with_levels_merged(groups: Sequence[Group]) -> list[Group]:
    """Merge neighbouring groups that state the same of different levels."""
    merged: list[Group] = []
    for (has_levels, negated, mentions), same in groupby(groups, key=lambda g: (bool(g.levels), g.negated, g.mentions)):
        levels = tuple(dict.fromkeys(level for group in same for level in group.levels)) if has_levels else ()
        merged.append(Group(levels=levels, mentions=mentions, negated=negated))
    return merged


def _mention(report: str, finding: Finding) -> Mention:
    shape, zone = "", ""
    if finding.kind in CONTOURS:
        shape, zone = describe_contour(report, finding.span[0], finding.side)
    elif finding.kind == "endplate change" and _OF_BOTH.search(report[max(0, finding.span[0] - 20) : finding.span[0]]):
        shape = "both"
    return Mention(kind=finding.kind, side=finding.side, severity=finding.severity, shape=shape, zone=zone)


_OF_BOTH = re.compile(r"\b(?:both|bilateral)\s+$", re.IGNORECASE)
# Words allowed between a word for shape or zone and its finding.
_PASSED = frozenset(
    {"and", "to", "the", "more", "side", "sided", "disc", "discs", "disk", "disks", "degenerative", "annular"}
    | {"left", "right", "lt", "rt", "both", "bilateral", "central", "posterior"}
    | {"mild", "mildly", "small", "moderate", "severe", "large"}
)


def describe_contour(report: str, start: int, side: str | None) -> tuple[str, str]:
    """Find the words for shape and zone right before a finding of a side, in our spelling; empty where there are none.

    Example:
        >>> text = "Diffuse bulge. Central and Lt para-central/foraminal disc protrusion at L4-5"
        >>> describe_contour(text, text.index("bulge"), None), describe_contour(text, text.index("protru"), "left")
        (('diffuse', ''), ('', 'paracentral and foraminal'))
    """
    clause = re.split(r"[.:;\n]|//", report[max(0, start - 80) : start])[-1].casefold()
    clause = re.sub(r"\b(?:broad|wide)[- ]based?\b", "broadbased", clause)
    clause = re.sub(r"\bpara[- ]central\b", "paracentral", clause)
    shapes: list[str] = []
    zones: list[str] = []
    for word in reversed(re.findall(r"[a-z]+", clause)):
        if word in SHAPES:
            shapes.insert(0, SHAPES[word])
        elif word in ZONES and side != "central":
            zones.insert(0, word)
        elif word not in _PASSED:
            break
    return " ".join(dict.fromkeys(shapes)), " and ".join(dict.fromkeys(zones))
