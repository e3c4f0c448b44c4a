"""Compose captions from the grades of discs, for a dataset without written reports.

Wording and order are random, facts are not: all captions of one call state the same level, grade, findings and
absences.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from data_scripts.reports.phrasing import ROMAN_NUMERALS, as_text, distinct, listed, spell_level, spell_levels

# Counted from the bottom of the spine.
LEVEL_OF_IVD_LABEL = {
    1: "L5/S1",
    2: "L4/L5",
    3: "L3/L4",
    4: "L2/L3",
    5: "L1/L2",
    6: "T12/L1",
    7: "T11/T12",
    8: "T10/T11",
    9: "T9/T10",
}

# Each phrase belongs to one Pfirrmann grade only, so that the words still tell the grade without its number.
DEGENERATION = {
    1: ("a bright homogeneous nucleus", "a homogeneous nucleus of high signal", "no disc degeneration"),
    2: (
        "a bright but slightly inhomogeneous nucleus",
        "a well-hydrated nucleus with faint bands",
        "faint nuclear bands",
    ),
    3: ("a grey nucleus with a blurred annular border", "intermediate nuclear signal", "moderate degeneration"),
    4: ("a dark disc without nuclear border", "low disc signal without nuclear border", "advanced degeneration"),
    5: ("a black disc", "complete loss of disc signal", "end-stage degeneration"),
}
MODIC = {
    1: ("Modic type 1 change", "oedema-like marrow change (Modic 1)", "type 1 Modic signal beside the disc"),
    2: ("Modic type 2 change", "fatty marrow change (Modic 2)", "type 2 Modic signal beside the disc"),
    3: ("Modic type 3 change", "sclerotic marrow change (Modic 3)", "type 3 Modic signal beside the disc"),
}
FINDINGS = {
    "narrowing": ("disc space narrowing", "loss of disc height", "reduced disc height", "a narrowed disc space"),
    "bulging": ("disc bulging", "a disc bulge", "a bulging disc margin", "bulging of the disc"),
    "herniation": ("disc herniation", "herniated disc material", "a herniated disc", "herniation of the disc"),
    "upper endplate": ("upper endplate change", "an altered upper endplate", "a change of the upper endplate"),
    "lower endplate": ("lower endplate change", "an altered lower endplate", "a change of the lower endplate"),
    "both endplates": ("changes of both endplates", "upper and lower endplate changes", "both endplates altered"),
    "spondylolisthesis": ("spondylolisthesis", "vertebral slip (spondylolisthesis)", "a spondylolisthesis"),
}
ABSENT = {
    "narrowing": ("disc space narrowing", "height loss", "narrowing"),
    "bulging": ("bulge", "disc bulging", "bulging of the disc"),
    "herniation": ("herniation", "herniated disc material", "disc herniation"),
    "endplate": ("endplate change", "change of the endplates", "endplate abnormality"),
    "Modic": ("Modic change", "Modic signal change", "marrow change of Modic type"),
    "spondylolisthesis": ("spondylolisthesis", "vertebral slip", "slip of the vertebra"),
}
NORMAL = ("the disc is unremarkable", "normal disc", "healthy disc without findings", "normal appearance of the disc")


@dataclass(frozen=True)
class DiscGrades:
    """Grades of one disc: `pfirrmann` 1 (healthy) to 5, `modic` 0 (no change) to 3, the rest present or not."""

    level: str
    pfirrmann: int
    modic: int = 0
    upper_endplate: bool = False
    lower_endplate: bool = False
    spondylolisthesis: bool = False
    herniation: bool = False
    narrowing: bool = False
    bulging: bool = False


def compose_disc_captions(disc: DiscGrades, wording: random.Random, num_captions: int) -> list[str]:
    """Compose distinct captions of one disc, under 60 words each, that all state the same facts."""
    absent = _some(_absent_findings([disc]), wording)
    return distinct(lambda: _disc_caption(disc, absent, wording), num_captions)


def compose_spine_captions(discs: Sequence[DiscGrades], wording: random.Random, num_captions: int) -> list[str]:
    """Compose distinct reports of a whole slice, under 200 words each, from the discs from top to bottom.

    Neighbouring discs of equal grades share a sentence. Absent findings are denied once, for the whole spine.
    """
    absent = _some(_absent_findings(discs), wording)
    return distinct(lambda: _spine_caption(discs, absent, wording), num_captions)


def _disc_caption(disc: DiscGrades, absent: Sequence[str], wording: random.Random) -> str:
    sentences = [_degeneration(disc.pfirrmann, wording)]
    present = _present_findings(disc, wording)
    if present:
        sentences.append(_presence(present, wording))
    elif disc.pfirrmann <= 2:
        sentences.append(wording.choice(NORMAL))
    if absent:
        sentences.append(_absence(absent, wording))
    wording.shuffle(sentences)
    level = spell_level(disc.level, wording)
    opening = wording.choice(("{}: ", "{} disc: ", "at {}, ", "disc {}: ", "level {}: "))
    sentences[0] = opening.format(level) + sentences[0]
    return as_text(sentences)


def _spine_caption(discs: Sequence[DiscGrades], absent: Sequence[str], wording: random.Random) -> str:
    sentences = []
    for _, equal_discs in groupby(discs, key=lambda disc: replace(disc, level="")):
        group = list(equal_discs)
        levels = spell_levels([disc.level for disc in group], wording)
        findings = [*_present_findings(group[0], wording), _degeneration_phrase(group[0].pfirrmann, wording)]
        wording.shuffle(findings)
        sentences.append(f"{levels}: {listed(findings, 'and')}")
    if wording.random() < 0.5:
        sentences.reverse()
    if absent:
        place = wording.choice((0, len(sentences)))
        sentences.insert(place, f"{_absence(absent, wording)} at any level")
    return as_text(sentences)


def _degeneration(pfirrmann: int, wording: random.Random) -> str:
    phrase = _degeneration_phrase(pfirrmann, wording)
    return wording.choice(("{}", "{}", "the image shows {}")).format(phrase)


def _degeneration_phrase(pfirrmann: int, wording: random.Random) -> str:
    words = wording.choice(DEGENERATION[pfirrmann])
    number = wording.choice((str(pfirrmann), str(pfirrmann), ROMAN_NUMERALS[str(pfirrmann)]))
    grade = wording.choice(("Pfirrmann grade {}", "Pfirrmann grade {}", "Pfirrmann {}")).format(number)
    return wording.choice(("{words}", "{grade}", "{words} ({grade})", "{grade} with {words}")).format(
        words=words, grade=grade
    )


def _present_findings(disc: DiscGrades, wording: random.Random) -> list[str]:
    both_endplates = disc.upper_endplate and disc.lower_endplate
    present = {
        "narrowing": disc.narrowing,
        "bulging": disc.bulging,
        "herniation": disc.herniation,
        "upper endplate": disc.upper_endplate and not both_endplates,
        "lower endplate": disc.lower_endplate and not both_endplates,
        "both endplates": both_endplates,
        "spondylolisthesis": disc.spondylolisthesis,
    }
    phrases = [wording.choice(FINDINGS[name]) for name, is_present in present.items() if is_present]
    if disc.modic:
        phrases.append(wording.choice(MODIC[disc.modic]))
    wording.shuffle(phrases)
    return phrases


def _absent_findings(discs: Sequence[DiscGrades]) -> list[str]:
    """List the findings that no disc has; denying only one of endplate and Modic change would be a contradiction."""
    endplates_or_modic = any(disc.upper_endplate or disc.lower_endplate or disc.modic for disc in discs)
    present = {
        "narrowing": any(disc.narrowing for disc in discs),
        "bulging": any(disc.bulging for disc in discs),
        "herniation": any(disc.herniation for disc in discs),
        "endplate": endplates_or_modic,
        "Modic": endplates_or_modic,
        "spondylolisthesis": any(disc.spondylolisthesis for disc in discs),
    }
    return [name for name, is_present in present.items() if not is_present]


def _some(names: list[str], wording: random.Random) -> list[str]:
    """Draw up to four names: a report denies what was looked for, not everything absent."""
    return wording.sample(names, k=min(len(names), wording.choice((1, 2, 3, 4))))


def _presence(phrases: Sequence[str], wording: random.Random) -> str:
    return wording.choice(("{}", "{} noted", "{} seen", "the image shows {}")).format(listed(phrases, "and"))


def _absence(names: Sequence[str], wording: random.Random) -> str:
    phrases = [wording.choice(ABSENT[name]) for name in names]
    wording.shuffle(phrases)
    return wording.choice(("no {}", "there is no {}", "no sign of {}", "no evidence of {}")).format(
        listed(phrases, "or")
    )
