"""Put phrases into sentences, for the rephraser and the sources that compose their reports.

Seeds of published data fix the order of the draws, so each caller keeps its kind of generator.
"""

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

Option = TypeVar("Option")

# Severity: adjective and adverb of each wording. The report reader takes the wordings of one severity as synonyms.
SEVERITY_WORDS = {
    "minimal": (("minimal", "minimally"),),
    "mild": (("mild", "mildly"), ("slight", "slightly")),
    "moderate": (("moderate", "moderately"),),
    "severe": (("severe", "severely"), ("marked", "markedly")),
}
ROMAN_NUMERALS = {"1": "I", "2": "II", "3": "III", "4": "IV", "5": "V"}


def one_of(options: Sequence[Option], rng: np.random.Generator) -> Option:
    """Draw one of the options."""
    return options[int(rng.integers(len(options)))]


def spell_level(level: str, wording: random.Random) -> str:
    """Draw one of the usual spellings of a disc level: L4/L5, L4-L5 or L4-5."""
    upper, lower = level.split("/")
    short = lower[1:] if upper[0] == lower[0] else lower
    return wording.choice((level, f"{upper}-{lower}", f"{upper}-{short}"))


def spell_levels(levels: Sequence[str], wording: random.Random) -> str:
    """Name neighbouring levels: one, two joined by `and`, more as a range."""
    first = spell_level(levels[0], wording)
    if len(levels) == 1:
        return first
    return f"{first}{' and ' if len(levels) == 2 else ' to '}{spell_level(levels[-1], wording)}"


def listed(phrases: Sequence[str], conjunction: str) -> str:
    """Join phrases with commas and a conjunction before the last.

    Example:
        >>> listed(["bulging", "narrowing", "herniation"], "or"), listed(["bulging"], "or")
        ('bulging, narrowing or herniation', 'bulging')
    """
    return f" {conjunction} ".join(filter(None, (", ".join(phrases[:-1]), phrases[-1])))


def with_article(words: str) -> str:
    """Put `a` or `an` before words.

    Example:
        >>> with_article("annular tear"), with_article("disc bulge")
        ('an annular tear', 'a disc bulge')
    """
    return f"{'an' if words[0].casefold() in 'aeiou' else 'a'} {words}"


def as_text(sentences: Sequence[str]) -> str:
    """Join sentences, each with its capital and full stop.

    Example:
        >>> as_text(["there is muscle spasm", "no disc bulge"])
        'There is muscle spasm. No disc bulge.'
    """
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)


def distinct(compose: Callable[[], str], count: int) -> list[str]:
    """Compose until there are `count` different texts; the wordings must allow far more."""
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts[compose()] = None
    return list(texts)
