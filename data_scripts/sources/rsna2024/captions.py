"""Compose captions from the stenosis grades of lumbar levels, for a dataset without written reports.

A caption states the severity of each condition at each level, with the patient's side. The lowest grade, Normal/Mild,
reads `no significant`. The wording is random, the facts are not.
"""

import random
from collections.abc import Mapping, Sequence
from itertools import groupby

from data_scripts.reports.phrasing import as_text, distinct, listed, spell_levels

CANAL = "spinal_canal_stenosis"
LEFT_FORAMEN, RIGHT_FORAMEN = "left_neural_foraminal_narrowing", "right_neural_foraminal_narrowing"
LEFT_RECESS, RIGHT_RECESS = "left_subarticular_stenosis", "right_subarticular_stenosis"
CONDITIONS = (CANAL, LEFT_FORAMEN, RIGHT_FORAMEN, LEFT_RECESS, RIGHT_RECESS)

NORMAL, MODERATE, SEVERE = SEVERITIES = ("Normal/Mild", "Moderate", "Severe")

# Severity by condition; a condition that was not graded is left out.
Grades = Mapping[str, str]

_CANAL_WORDS = ("spinal canal stenosis", "canal stenosis", "central canal stenosis", "narrowing of the spinal canal")
# Wordings by the conditions of the left and of the right; `{}` is the side.
_SIDED_WORDS = {
    (LEFT_FORAMEN, RIGHT_FORAMEN): ("{}neural foraminal narrowing", "{}foraminal narrowing", "{}foraminal stenosis"),
    (LEFT_RECESS, RIGHT_RECESS): ("{}subarticular stenosis", "{}lateral recess narrowing", "{}lateral recess stenosis"),
}


def compose_stenosis_captions(
    grades_of_level: Mapping[str, Grades], wording: random.Random, num_captions: int
) -> list[str]:
    """Compose distinct captions that all state the same grades, level by level from top to bottom.

    Neighbouring levels of equal grades share a sentence.
    """
    groups = [
        ([level for level, _ in members], grades)
        for grades, members in groupby(grades_of_level.items(), key=lambda item: item[1])
    ]
    return distinct(lambda: _caption(groups, wording), num_captions)


def _caption(groups: Sequence[tuple[Sequence[str], Grades]], wording: random.Random) -> str:
    sentences = [_sentence(spell_levels(levels, wording), grades, wording) for levels, grades in groups]
    if wording.random() < 0.5:
        sentences.reverse()
    return as_text(sentences)


def _sentence(levels: str, grades: Grades, wording: random.Random) -> str:
    present = [f"{severity.lower()} {words}" for severity, words in _worded(grades, wording) if severity != NORMAL]
    absent = [words for severity, words in _worded(grades, wording) if severity == NORMAL]
    wording.shuffle(present)
    wording.shuffle(absent)
    clauses = []
    if present:
        clauses.append(wording.choice(("{}", "{} noted", "{} seen")).format(listed(present, "and")))
    if absent:
        denials = ("no significant {}", "without significant {}" if present else "there is no significant {}")
        clauses.append(wording.choice(denials).format(listed(absent, "or")))
    return wording.choice(("{}: {}", "at {}, {}", "{} level: {}")).format(levels, "; ".join(clauses))


def _worded(grades: Grades, wording: random.Random) -> list[tuple[str, str]]:
    """Word each condition with its severity; two sides of one severity share the words."""
    worded = [(grades[CANAL], wording.choice(_CANAL_WORDS))] if CANAL in grades else []
    for (left, right), words in _SIDED_WORDS.items():
        if left in grades and grades.get(left) == grades.get(right):
            # "No significant bilateral narrowing" would leave one side open.
            side = "" if grades[left] == NORMAL else "bilateral "
            worded.append((grades[left], wording.choice(words).format(side)))
        else:
            sides = ((left, "left "), (right, "right "))
            worded += [(grades[name], wording.choice(words).format(side)) for name, side in sides if name in grades]
    return worded
