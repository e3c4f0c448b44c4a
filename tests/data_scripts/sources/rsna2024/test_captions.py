"""The grades of a caption, read back by expressions that know nothing of how it was composed."""

import random
import re
from itertools import pairwise, product

import pytest

from data_scripts.reports.text import report_facts
from data_scripts.sources.rsna2024.captions import CONDITIONS, SEVERITIES, compose_stenosis_captions
from data_scripts.sources.rsna2024.tables import LEVELS

KIND_WORDS = {
    "foraminal": r"foraminal (?:narrowing|stenosis)",
    "recess": r"(?:subarticular|lateral recess) (?:narrowing|stenosis)",
    "canal": r"canal stenosis|narrowing of the spinal canal",
}
KIND_OF_CONDITION = {
    "spinal_canal_stenosis": ("canal", None),
    "left_neural_foraminal_narrowing": ("foraminal", "left"),
    "right_neural_foraminal_narrowing": ("foraminal", "right"),
    "left_subarticular_stenosis": ("recess", "left"),
    "right_subarticular_stenosis": ("recess", "right"),
}
PARSER_KINDS = {"canal": "stenosis", "foraminal": "foraminal narrowing", "recess": "lateral recess narrowing"}


def levels_named(text):
    found = [f"L{upper}/{sacral}{lower}" for upper, sacral, lower in re.findall(r"L(\d)[/-]([LS]?)(\d)", text)]
    found = [level if level[3] in "LS" else f"{level[:3]}L{level[3:]}" for level in found]
    if " to " in text:
        return LEVELS[LEVELS.index(found[0]) : LEVELS.index(found[1]) + 1]
    return tuple(found)


def facts_read_from(caption):
    """(level, kind, side, severity) of each phrase; a phrase without a side speaks of both sides."""
    facts = set()
    for sentence in caption.removesuffix(".").split(". "):
        for clause in sentence.split("; "):
            denied = re.search(r"\b(?:no|without) significant\b", clause)
            for phrase in re.split(r", (?!without|no )| and (?!L\d)| or ", clause):
                kinds = [kind for kind, words in KIND_WORDS.items() if re.search(words, phrase)]
                if not kinds:
                    assert re.fullmatch(r"At L[\dLS/\- andto]+", phrase), phrase  # the level alone
                    continue
                (kind,) = kinds
                stated = re.findall(r"moderate|severe", phrase)
                assert stated == [] if denied else len(stated) == 1, (phrase, caption)
                severity = "Normal/Mild" if denied else stated[0].capitalize()
                sides = re.findall(r"\b(?:left|right)\b", phrase) or ([None] if kind == "canal" else ["left", "right"])
                assert ("bilateral" in phrase) == (not denied and len(sides) == 2), phrase
                facts |= {(level, kind, side, severity) for level in levels_named(sentence) for side in sides}
    return facts


def random_grades(draw, levels=LEVELS):
    grades = {
        level: {condition: draw.choices(SEVERITIES, (6, 2, 1))[0] for condition in CONDITIONS if draw.random() < 0.9}
        for level in levels
    }
    for upper, lower in pairwise(levels):  # equal neighbours are common
        if draw.random() < 0.4:
            grades[lower] = grades[upper]
    return {level: graded for level, graded in grades.items() if graded}


def expected_facts(grades):
    return {
        (level, *KIND_OF_CONDITION[condition], severity)
        for level, graded in grades.items()
        for condition, severity in graded.items()
    }


@pytest.mark.parametrize("num_levels", [1, 2, 5])
def test_every_caption_states_the_grades_and_nothing_else(num_levels):
    for seed in range(150):
        draw = random.Random(seed)
        start = draw.randrange(len(LEVELS) - num_levels + 1)
        grades = random_grades(draw, LEVELS[start : start + num_levels])
        captions = compose_stenosis_captions(grades, draw, 5)
        assert len(set(captions)) == 5
        for caption in captions:
            assert facts_read_from(caption) == expected_facts(grades), caption


@pytest.mark.parametrize(("condition", "severity"), list(product(CONDITIONS, SEVERITIES)))
def test_one_grade_has_words_enough(condition, severity):
    grades = {"L5/S1": {condition: severity}}
    captions = compose_stenosis_captions(grades, random.Random(0), 10)
    assert all(facts_read_from(caption) == expected_facts(grades) for caption in captions)


def parser_facts(grades):
    """What the report parser should find: two sides of one severity are one finding."""
    facts = set()
    for level, kind, side, severity in expected_facts(grades):
        other = {"left": "right", "right": "left"}.get(side)
        if (level, kind, other, severity) in expected_facts(grades) and other:
            side = None if severity == "Normal/Mild" else "bilateral"
        denied = severity == "Normal/Mild"
        facts.add((PARSER_KINDS[kind], level, side, None if denied else severity.lower(), denied))
    return facts


def test_the_report_parser_reads_the_grades():
    for seed in range(100):
        draw = random.Random(seed)
        grades = random_grades(draw, draw.choice((LEVELS, LEVELS[3:4])))
        for caption in compose_stenosis_captions(grades, draw, 5):
            assert report_facts(caption) == parser_facts(grades), caption
