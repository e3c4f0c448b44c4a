"""What captions composed from grades have in common: spellings of levels, lists of phrases, distinct wordings."""

import random
from collections.abc import Callable, Sequence


def spell_level(level: str, wording: random.Random) -> str:
    """One of the usual spellings of a disc level: L4/L5, L4-L5 or L4-5."""
    upper, lower = level.split("/")
    short = lower[1:] if upper[0] == lower[0] else lower
    return wording.choice((level, f"{upper}-{lower}", f"{upper}-{short}"))


def spell_levels(levels: Sequence[str], wording: random.Random) -> str:
    """Name neighbouring levels: one, two joined by `and`, more as a range."""
    first = spell_level(levels[0], wording)
    if len(levels) == 1:
        return first
    joint = " and " if len(levels) == 2 else " to "
    return f"{first}{joint}{spell_level(levels[-1], wording)}"


def listed(phrases: Sequence[str], conjunction: str) -> str:
    """Join phrases as a sentence does.

    Example:
        >>> listed(["bulging", "narrowing", "herniation"], "or"), listed(["bulging"], "or")
        ('bulging, narrowing or herniation', 'bulging')
    """
    return f" {conjunction} ".join(filter(None, (", ".join(phrases[:-1]), phrases[-1])))


def as_text(sentences: Sequence[str]) -> str:
    """Sentences with their capitals and full stops."""
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)


def distinct(compose: Callable[[], str], count: int) -> list[str]:
    """Compose until there are `count` different captions. There must be far more wordings than that."""
    captions: dict[str, None] = {}
    while len(captions) < count:
        captions[compose()] = None
    return list(captions)
