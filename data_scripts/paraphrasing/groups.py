"""A report as groups of mentions: what a rephrasing has to say, and what belongs into one sentence."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from data_scripts.paraphrasing.phrases import CONTOURS, SHAPES, ZONES
from data_scripts.reports.text import Finding, report_findings


@dataclass(frozen=True, kw_only=True)
class Mention:
    """A finding as it is said, without its level.

    Args:
        kind: As in `Finding`.
        side: As in `Finding`.
        severity: As in `Finding`.
        shape: `diffuse`, `broad-based`, ... where the report says so of a disc; `both` of endplates, which have no
            side; no fact, but worth keeping.
        zone: `paracentral`, `paracentral and foraminal`, ...; the same.
    """

    kind: str
    side: str | None
    severity: str | None
    shape: str = ""
    zone: str = ""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Mentions that are stated together: all at the same levels, all affirmed or all denied.

    Args:
        levels: Where; empty if the report does not say.
        mentions: In the order of the report, none twice.
        negated: Whether they are denied.
    """

    levels: tuple[str, ...]
    mentions: tuple[Mention, ...]
    negated: bool


def read_groups(report: str) -> list[Group]:
    """Neighbouring findings with the same levels and the same negation, each said once.

    Example:
        >>> for group in read_groups("Lt foraminal protrusion at L4-5 & L5-S1. No spinal stenosis."):
        ...     print(group.levels, *(mention.kind for mention in group.mentions), group.negated)
        ('L4/L5', 'L5/S1') protrusion False
        () stenosis True
    """
    said: dict[tuple[tuple[str, ...], bool, Mention], None] = {}
    for _, same in groupby(report_findings(report), key=lambda finding: finding.span):
        # One mention of several levels is a finding for each, and not always with the same side.
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
    """Neighbouring groups that say the same of different levels, as one."""
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
# May stand between a word for shape or zone and the finding that it describes.
_PASSED = frozenset(
    {"and", "to", "the", "more", "side", "sided", "disc", "discs", "disk", "disks", "degenerative", "annular"}
    | {"left", "right", "lt", "rt", "both", "bilateral", "central", "posterior"}
    | {"mild", "mildly", "small", "moderate", "severe", "large"}
)


def describe_contour(report: str, start: int, side: str | None) -> tuple[str, str]:
    """Words for shape and zone that stand right before a finding.

    Args:
        report: The text.
        start: Where the finding begins.
        side: Of the finding.

    Returns:
        Shape and zone, in our spelling; empty where nothing is said.

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
