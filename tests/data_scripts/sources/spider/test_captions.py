"""The facts of a caption, read back by expressions that know nothing of how it was composed."""

import itertools
import random
import re
from dataclasses import replace

import pytest

from data_scripts.sources.spider.captions import (
    LEVEL_OF_IVD_LABEL,
    DiscGrades,
    compose_disc_captions,
    compose_spine_captions,
)

FINDING_WORDS = {
    "narrowing": r"narrow|height",
    "bulging": r"bulg",
    "herniation": r"hernia",
    "upper endplate": r"upper endplate|upper and lower endplate|both endplates",
    "lower endplate": r"lower endplate|both endplates",
    "spondylolisthesis": r"listhesis|slip",
}
ABSENCE_WORDS = {
    "narrowing": r"narrow|height",
    "bulging": r"bulg",
    "herniation": r"hernia",
    "endplate": r"endplate",
    "Modic": r"Modic",
    "spondylolisthesis": r"listhesis|slip",
}
GRADE_WORDS = {
    1: r"bright homogeneous|high signal|no disc degeneration",
    2: r"slightly inhomogeneous|faint bands|faint nuclear bands",
    3: r"grey nucleus|intermediate nuclear|moderate degeneration",
    4: r"dark disc|low disc signal|advanced degeneration",
    5: r"black disc|complete loss|end-stage",
}
ROMAN = {"I": 1, "II": 2, "III": 3, "IV": 4, "V": 5}
LEVEL = r"\b([TL])(\d+)[/-]([TLS]?)(\d+)\b"


def grades_named(text):
    numbers = re.findall(r"Pfirrmann (?:grade )?(\d|[IV]+)\b", text)
    grades = {ROMAN[number] if number in ROMAN else int(number) for number in numbers}
    return grades | {grade for grade, words in GRADE_WORDS.items() if re.search(words, text, re.IGNORECASE)}


def levels_named(text):
    return [f"{a}{b}/{c or a}{d}" for a, b, c, d in re.findall(LEVEL, text)]


def present_and_absent(text):
    """Split a caption into what it states and what it denies, sentence by sentence."""
    sentences = re.split(r"\.(?:\s|$)", text)
    denies = re.compile(r"(?:^|[:,] )(?:there is )?no (?!disc degeneration)", re.IGNORECASE)
    denied = " ".join(sentence for sentence in sentences if denies.search(sentence))
    return " ".join(sentence for sentence in sentences if not denies.search(sentence)), denied


def modic_types_named(text):
    found = re.findall(r"Modic (?:type )?(\d)|type (\d) Modic", text, re.IGNORECASE)
    return {int(first or second) for first, second in found}


def words_found(words, text):
    return {name for name, pattern in words.items() if re.search(pattern, text, re.IGNORECASE)}


def expected_findings(disc):
    flags = {
        "narrowing": disc.narrowing,
        "bulging": disc.bulging,
        "herniation": disc.herniation,
        "upper endplate": disc.upper_endplate,
        "lower endplate": disc.lower_endplate,
        "spondylolisthesis": disc.spondylolisthesis,
    }
    return {name for name, is_present in flags.items() if is_present}


def random_disc(draw, level=None):
    def flag():
        return draw.random() < 0.3

    return DiscGrades(
        level=level or draw.choice(list(LEVEL_OF_IVD_LABEL.values())),
        pfirrmann=draw.randint(1, 5),
        modic=draw.choice((0, 0, 1, 2, 3)),
        upper_endplate=flag(),
        lower_endplate=flag(),
        spondylolisthesis=flag(),
        herniation=flag(),
        narrowing=flag(),
        bulging=flag(),
    )


@pytest.mark.parametrize("grade", range(1, 6))
@pytest.mark.parametrize("seed", range(0, 60, 20))
def test_every_disc_caption_states_the_grades_and_nothing_else(grade, seed):
    for draw in map(random.Random, range(seed, seed + 20)):
        check_disc_captions(replace(random_disc(draw), pfirrmann=grade), draw)


def test_every_spine_report_goes_level_by_level():
    for draw in map(random.Random, range(100)):
        levels = [LEVEL_OF_IVD_LABEL[number] for number in range(draw.randint(5, 9), 0, -1)]
        discs = []
        for level in levels:  # equal neighbours are common
            repeats = discs and draw.random() < 0.4
            discs.append(replace(discs[-1], level=level) if repeats else random_disc(draw, level))
        for report in compose_spine_captions(discs, draw, 5):
            check_spine_report(report, discs)


def check_disc_captions(disc, draw):
    captions = compose_disc_captions(disc, draw, 5)
    assert len(set(captions)) == 5
    denials = []
    for caption in captions:
        present, denied = present_and_absent(caption)
        assert levels_named(caption) == [disc.level], caption
        assert grades_named(caption) == {disc.pfirrmann}, caption
        assert words_found(FINDING_WORDS, present) == expected_findings(disc), caption
        assert modic_types_named(present) == ({disc.modic} if disc.modic else set()), caption
        denials.append(words_found(ABSENCE_WORDS, denied))
        assert not denials[-1] & (expected_findings(disc) | ({"Modic"} if disc.modic else set())), caption
        assert "endplate" not in denials[-1] or not (disc.upper_endplate or disc.lower_endplate), caption
        is_healthy = disc.pfirrmann <= 2 and not expected_findings(disc) and not disc.modic
        assert bool(re.search(r"unremarkable|\bnormal|healthy", caption, re.IGNORECASE)) == is_healthy, caption
        assert len(caption.split()) < 60
    assert all(denial == denials[0] for denial in denials)


def check_spine_report(report, discs):
    assert len(report.split()) < 200
    levels = [disc.level for disc in discs]
    stated = {}
    for sentence in re.split(r"\.(?:\s|$)", report):
        named = levels_named(sentence)
        if named:
            first, last = levels.index(named[0]), levels.index(named[-1])
            stated.update(dict.fromkeys(levels[first : last + 1], sentence))
        elif sentence:
            denied = words_found(ABSENCE_WORDS, sentence)
            assert sentence.endswith("at any level") and denied
            assert not denied & set().union(*(expected_findings(disc) for disc in discs)), report
    assert set(stated) == set(levels)
    for disc in discs:
        assert grades_named(stated[disc.level]) == {disc.pfirrmann}, report
        assert words_found(FINDING_WORDS, stated[disc.level]) == expected_findings(disc), report
        assert modic_types_named(stated[disc.level]) == ({disc.modic} if disc.modic else set()), report


def test_captions_repeat_with_the_seed_and_vary_without():
    disc = DiscGrades("L4/L5", 4, bulging=True)
    assert compose_disc_captions(disc, random.Random(1), 5) == compose_disc_captions(disc, random.Random(1), 5)
    captions = set(itertools.chain.from_iterable(compose_disc_captions(disc, random.Random(s), 5) for s in range(40)))
    assert len(captions) > 180
