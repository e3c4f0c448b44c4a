"""Rephrase a report from its parsed findings, without a model: other words in another order, the same facts.

A rephrasing states kind, level, side, severity and negation of each finding, in the order of the report, and shape and
zone of a disc's contour ("diffuse", "paracentral"). What the parser does not read (sizes, names of roots, advice) is
left out. Every text is parsed again and kept only if its facts equal the report's.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple

import numpy as np

from data_scripts.paraphrasing.phrases import CONTOURS, EFFECTS, OTHERS, SHAPES, SIDE_WORDS, ZONES
from data_scripts.reports.phrasing import ROMAN_NUMERALS, SEVERITY_WORDS, as_text, listed, one_of, with_article
from data_scripts.reports.text import Finding, report_facts, report_findings

MAX_DRAWS = 60


@dataclass(frozen=True, kw_only=True)
class Mention:
    """A finding without its level, as `Finding`; shape and zone are not facts, but are kept."""

    kind: str
    side: str | None
    severity: str | None
    shape: str = ""  # `diffuse`, `broad-based`, ... of a disc; `both` of endplates, which have no side
    zone: str = ""  # `paracentral`, `paracentral and foraminal`, ...


@dataclass(frozen=True, kw_only=True)
class Group:
    """Distinct mentions in the report's order, at the same levels (empty: not stated), all affirmed or all denied."""

    levels: tuple[str, ...]
    mentions: tuple[Mention, ...]
    negated: bool


def rephrasings(report: str, seed: int = 0) -> Iterator[str]:
    """Yield distinct texts with the facts of a report, until `MAX_DRAWS` draws in a row bring no new one.

    Only report and seed decide the wording. A report without a finding has no rephrasing.
    """
    groups, facts = read_groups(report), report_facts(report)
    if not groups:
        return
    digest = hashlib.sha256(f"{seed}\0{report}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:16], "big"))
    seen, draws = {comparable(report)}, 0
    while draws < MAX_DRAWS:
        draws += 1
        # Last resort: a sentence for each finding reads stiffly, but the parser cannot misread it.
        text = word_groups(groups, rng, one_by_one=draws > MAX_DRAWS // 2)
        if comparable(text) not in seen and report_facts(text) == facts:
            seen.add(comparable(text))
            draws = 0
            yield text


def comparable(text: str) -> str:
    """Normalise case and blanks: texts that are then equal count as one rephrasing.

    Example:
        >>> comparable(" No  disc bulge.") == comparable("no disc bulge.")
        True
    """
    return " ".join(text.casefold().split())


def word_groups(groups: Sequence[Group], rng: np.random.Generator, one_by_one: bool = False) -> str:
    """Word groups as sentences, whose facts must be checked; `one_by_one` gives each finding a sentence of its own."""
    if one_by_one:
        groups = [
            replace(group, mentions=(mention,))
            for group in sorted(groups, key=lambda group: bool(group.levels))
            for mention in group.mentions
        ]
    elif rng.random() < 0.6:
        groups = with_levels_merged(groups)
    sentences = Sentences(rng=rng, level_separator=str(rng.choice(["/", "-"])))
    return as_text([sentence for group in groups for sentence in sentences.of(group)])


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
    """Merge neighbouring groups that state the same about different levels."""
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
    """Find the words for shape and zone right before a finding of a side, in our spelling.

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


class Phrase(NamedTuple):
    """Words that name findings."""

    text: str
    is_plural: bool  # whether a verb after them is plural
    begins_plural: bool  # whether a verb before them is plural


@dataclass(frozen=True, kw_only=True)
class Sentences:
    """Writes sentences in random wordings."""

    rng: np.random.Generator
    level_separator: str  # `/` or `-`, between the vertebrae of a level

    def of(self, group: Group) -> list[str]:
        """Word a group in sentences without capital and full stop."""
        if group.negated:
            return [self._denial(group)]
        contours = [mention for mention in group.mentions if mention.kind in CONTOURS]
        effects = [mention for mention in group.mentions if mention.kind in EFFECTS]
        others = [mention for mention in group.mentions if mention.kind in OTHERS]
        sentences = []
        if contours and effects:
            sentences.append(self._contours_with_effects(group.levels, contours, effects))
        elif contours or effects:
            sentences.append(self._presence(group.levels, contours or effects))
        if others:
            sentences.append(self._presence(group.levels, others))
        return sentences

    def _denial(self, group: Group) -> str:
        names = listed([self._name(mention, article=False, many=False).text for mention in group.mentions], "or")
        seen = one_of(("seen", "noted", "present", "identified"), self.rng)
        at = self._at(group.levels)
        forms = [
            f"no {names} is {seen}{at}",
            f"there is no {names}{at}",
            f"no evidence of {names}{at}",
            f"there is no evidence of {names}{at}",
        ]
        if group.levels:
            levels = self._levels(group.levels)
            forms += [f"{levels}: no {names}", f"at {levels}, there is no {names}"]
        return one_of(forms, self.rng)

    def _presence(self, levels: tuple[str, ...], mentions: Sequence[Mention]) -> str:
        names = self._names(levels, mentions)
        seen = one_of(("seen", "noted", "present", "demonstrated"), self.rng)
        there = f"there {_be(names.begins_plural)}"
        at = self._at(levels)
        forms = [f"{names.text} {_be(names.is_plural)} {seen}{at}", f"{there} {names.text}{at}"]
        if levels:
            forms += [f"{self._levels(levels)}: {names.text}", f"at {self._levels(levels)}, {there} {names.text}"]
        return one_of(forms, self.rng)

    def _contours_with_effects(
        self, levels: tuple[str, ...], contours: Sequence[Mention], effects: Sequence[Mention]
    ) -> str:
        names = self._names(levels, contours)
        seen = one_of(("seen", "noted", "present"), self.rng)
        at, be, there = self._at(levels), _be(names.is_plural), f"there {_be(names.begins_plural)}"
        participles = self._actions(effects, form=2)
        forms = [
            f"{names.text}{at} {self._actions(effects, form=1 if names.is_plural else 0)}",
            f"{names.text} {be} {seen}{at}, {participles}",
            f"{there} {names.text}{at}, {participles}",
            f"{there} {names.text}{at} with {self._actions(effects, form=3)}",
        ]
        if levels:
            forms += [
                f"{self._levels(levels)}: {names.text}, {participles}",
                f"{self._levels(levels)}: {names.text} with {self._actions(effects, form=3)}",
                f"at {self._levels(levels)}, {names.text} {self._actions(effects, form=1 if names.is_plural else 0)}",
            ]
        return one_of(forms, self.rng)

    def _actions(self, effects: Sequence[Mention], form: int) -> str:
        """Name the effects and their structures; `form` is an index of `Effect.verbs`."""
        done = []
        for (verbs, severity), same in groupby(effects, key=lambda f: (EFFECTS[f.kind].verbs, f.severity)):
            verb = one_of(verbs, self.rng)[form]
            adjective, adverb = one_of(SEVERITY_WORDS[severity], self.rng) if severity else ("", "")
            word = adjective if form == 3 else adverb
            done.append(" ".join(filter(None, (word, verb, listed([_structure(f) for f in same], "and")))))
        return listed(done, "and")

    def _names(self, levels: tuple[str, ...], mentions: Sequence[Mention]) -> Phrase:
        names = [self._name(mention, many=len(levels) > 1) for mention in mentions]
        is_plural = names[0].is_plural
        return Phrase(listed([name.text for name in names], "and"), len(names) > 1 or is_plural, is_plural)

    def _name(self, mention: Mention, many: bool, article: bool = True) -> Phrase:
        severity = one_of(SEVERITY_WORDS[mention.severity], self.rng)[0] if mention.severity in SEVERITY_WORDS else ""
        if mention.kind in EFFECTS:
            effect = EFFECTS[mention.kind]
            name = effect.name if mention.side is None else f"{one_of(effect.verbs, self.rng)[3]} {_structure(mention)}"
            return Phrase(f"{severity} {name}".strip(), is_plural=False, begins_plural=False)
        nouns = (CONTOURS | OTHERS)[mention.kind]
        if mention.side:
            nouns = tuple(noun for noun in nouns if " of " not in noun.one) or nouns  # no "left stenosis of the canal"
        noun = one_of(nouns, self.rng)
        is_plural = noun.many is not None and (many or noun.always_many)
        named = noun.many if noun.many and is_plural else noun.one
        side, shape = "", mention.shape
        if noun.of_both and shape == "both":
            named, shape = noun.of_both, ""
        elif mention.side:
            side = mention.side if mention.zone else one_of(SIDE_WORDS[mention.side], self.rng)
        words = f"{severity} {shape} {side} {mention.zone} {named.format(grade=_grade(mention))}"
        text = " ".join(words.split())  # most of these are empty
        return Phrase(with_article(text) if article and noun.many and not is_plural else text, is_plural, is_plural)

    def _levels(self, levels: tuple[str, ...]) -> str:
        return listed([level.replace("/", self.level_separator) for level in levels], "and")

    def _at(self, levels: tuple[str, ...]) -> str:
        if not levels:
            return ""
        word = "level" if len(levels) == 1 else "levels"
        return one_of((f" at {self._levels(levels)}", f" at the {self._levels(levels)} {word}"), self.rng)


def _be(is_plural: bool) -> str:
    return "are" if is_plural else "is"


def _grade(mention: Mention) -> str:
    """Spell a grade, as `grade I` or `type II`, if there is one."""
    if mention.severity is None or mention.severity in SEVERITY_WORDS:
        return ""
    scale, _, number = mention.severity.partition(" ")
    return f"{scale} {ROMAN_NUMERALS.get(number, number)}"


def _structure(mention: Mention) -> str:
    effect = EFFECTS[mention.kind]
    if mention.side is None:
        return effect.structure
    if mention.side == "bilateral" and effect.both:
        return effect.both
    return (effect.sided or effect.structure).format(side=mention.side)
