import random
import re

import pytest

from data_scripts.sources.knee_kl.captions import KL_GRADES, compose_knee_captions

# What a text may say only of one grade; read by expressions that know nothing of how it was composed.
WORDS_OF_GRADE = {
    "0": r"\bno (?:radiographic|osteophytes)|normal joint",
    "1": r"doubtful",
    "2": r"definite osteophytes|mild osteoarthritis",
    "3": r"multiple osteophytes|moderate osteoarthritis",
    "4": r"large osteophytes|severe",
}


@pytest.mark.parametrize("grade", KL_GRADES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_captions_state_the_grade_and_the_side_and_nothing_else(grade, side):
    seen = set()
    for seed in range(60):
        captions = compose_knee_captions(grade, side, random.Random(seed), 5)
        assert len(set(captions)) == 5
        seen.update(captions)
    for caption in seen:
        assert re.findall(r"(?:Kellgren|KL)\D*(\d)", caption) == [grade], caption
        assert set(re.findall(r"left|right", caption.lower())) == {side}, caption
        told = {grade for grade, words in WORDS_OF_GRADE.items() if re.search(words, caption, re.IGNORECASE)}
        assert told == {grade}, caption
        assert re.fullmatch(r"[A-Z].*\.", caption) and ".." not in caption and not re.search(r"\. [a-z]", caption)
    assert len(seen) > 150


def test_the_same_state_gives_the_same_captions():
    assert compose_knee_captions("2", "left", random.Random(1), 5) == compose_knee_captions(
        "2", "left", random.Random(1), 5
    )
