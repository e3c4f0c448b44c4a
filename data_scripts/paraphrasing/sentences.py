"""Sentences that state or deny findings, from the phrases of `rephraser_phrases`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple, TypeVar

import numpy as np

from data_scripts.paraphrasing.groups import Group, Mention
from data_scripts.paraphrasing.phrases import CONTOURS, EFFECTS, OTHERS, ROMAN_NUMERALS, SEVERITY_WORDS, SIDE_WORDS

Option = TypeVar("Option")


class Phrase(NamedTuple):
    """Words that name one or more findings, and whether a verb after them, or before them, stands in the plural."""

    text: str
    is_plural: bool
    begins_plural: bool


@dataclass(frozen=True, kw_only=True)
class Sentences:
    """Writes sentences, drawing among wordings.

    Args:
        rng: Source of every choice.
        level_separator: Between the vertebrae of a level: `/` or `-`.
    """

    rng: np.random.Generator
    level_separator: str

    def of(self, group: Group) -> list[str]:
        """Sentences, without capital and full stop, that say what a group says."""
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
        seen = self._one_of(("seen", "noted", "present", "identified"))
        at = self._at(group.levels)
        forms = [
            f"no {names} is {seen}{at}",
            f"there is no {names}{at}",
            f"no evidence of {names}{at}",
            f"there is no evidence of {names}{at}",
        ]
        if group.levels:
            forms += [
                f"{self._levels(group.levels)}: no {names}",
                f"at {self._levels(group.levels)}, there is no {names}",
            ]
        return self._one_of(forms)

    def _presence(self, levels: tuple[str, ...], mentions: Sequence[Mention]) -> str:
        names = self._names(levels, mentions)
        seen = self._one_of(("seen", "noted", "present", "demonstrated"))
        there = f"there {_be(names.begins_plural)}"
        at = self._at(levels)
        forms = [f"{names.text} {_be(names.is_plural)} {seen}{at}", f"{there} {names.text}{at}"]
        if levels:
            forms += [f"{self._levels(levels)}: {names.text}", f"at {self._levels(levels)}, {there} {names.text}"]
        return self._one_of(forms)

    def _contours_with_effects(
        self, levels: tuple[str, ...], contours: Sequence[Mention], effects: Sequence[Mention]
    ) -> str:
        names = self._names(levels, contours)
        seen = self._one_of(("seen", "noted", "present"))
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
        return self._one_of(forms)

    def _actions(self, effects: Sequence[Mention], form: int) -> str:
        """What is done to which structures; `form` counts as in `Effect.verbs`."""
        done = []
        for (verbs, severity), same in groupby(effects, key=lambda f: (EFFECTS[f.kind].verbs, f.severity)):
            verb = self._one_of(verbs)[form]
            adjective, adverb = self._one_of(SEVERITY_WORDS[severity]) if severity else ("", "")
            word = adjective if form == 3 else adverb
            done.append(" ".join(filter(None, (word, verb, listed([_structure(f) for f in same], "and")))))
        return listed(done, "and")

    def _names(self, levels: tuple[str, ...], mentions: Sequence[Mention]) -> Phrase:
        names = [self._name(mention, many=len(levels) > 1) for mention in mentions]
        return Phrase(
            listed([name.text for name in names], "and"), len(names) > 1 or names[0].is_plural, names[0].is_plural
        )

    def _name(self, mention: Mention, many: bool, article: bool = True) -> Phrase:
        severity = self._one_of(SEVERITY_WORDS[mention.severity])[0] if mention.severity in SEVERITY_WORDS else ""
        if mention.kind in EFFECTS:
            effect = EFFECTS[mention.kind]
            name = effect.name if mention.side is None else f"{self._one_of(effect.verbs)[3]} {_structure(mention)}"
            return Phrase(f"{severity} {name}".strip(), is_plural=False, begins_plural=False)
        nouns = (CONTOURS | OTHERS)[mention.kind]
        if mention.side:
            nouns = tuple(noun for noun in nouns if " of " not in noun.one) or nouns  # no "left stenosis of the canal"
        noun = self._one_of(nouns)
        is_plural = noun.many is not None and (many or noun.always_many)
        named = noun.many if noun.many and is_plural else noun.one
        side, shape = "", mention.shape
        if noun.of_both and shape == "both":
            named, shape = noun.of_both, ""
        elif mention.side:
            side = mention.side if mention.zone else self._one_of(SIDE_WORDS[mention.side])
        words = f"{severity} {shape} {side} {mention.zone} {named.format(grade=_grade(mention))}"
        text = " ".join(words.split())  # most of these are empty
        return Phrase(with_article(text) if article and noun.many and not is_plural else text, is_plural, is_plural)

    def _levels(self, levels: tuple[str, ...]) -> str:
        return listed([level.replace("/", self.level_separator) for level in levels], "and")

    def _at(self, levels: tuple[str, ...]) -> str:
        if not levels:
            return ""
        word = "level" if len(levels) == 1 else "levels"
        return self._one_of((f" at {self._levels(levels)}", f" at the {self._levels(levels)} {word}"))

    def _one_of(self, options: Sequence[Option]) -> Option:
        return options[int(self.rng.integers(len(options)))]


def _be(is_plural: bool) -> str:
    return "are" if is_plural else "is"


def _grade(mention: Mention) -> str:
    """`grade I`, `type II`; nothing when the severity is a word, or none."""
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


def with_article(words: str) -> str:
    """Put `a` or `an` before words.

    Example:
        >>> with_article("annular tear"), with_article("disc bulge")
        ('an annular tear', 'a disc bulge')
    """
    return f"{'an' if words[0].casefold() in 'aeiou' else 'a'} {words}"


def listed(items: Sequence[str], conjunction: str) -> str:
    """Join items with commas and a conjunction before the last.

    Example:
        >>> listed(["L3/L4", "L4/L5", "L5/S1"], "and")
        'L3/L4, L4/L5 and L5/S1'
    """
    return f" {conjunction} ".join(filter(None, (", ".join(items[:-1]), items[-1])))


def say(sentences: Iterable[str]) -> str:
    """Sentences as a text: each with its capital and full stop.

    Example:
        >>> say(["there is muscle spasm", "no disc bulge"])
        'There is muscle spasm. No disc bulge.'
    """
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)
