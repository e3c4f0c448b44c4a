"""Captions composed from the Kellgren-Lawrence grade of a knee, for a data set without written reports.

A caption states the grade, the side and what the scale's definition says of the grade, nothing else. The wording is
drawn at random, the facts are not.
"""

import random

from data_scripts.sources.caption_words import as_text, distinct

KL_GRADES = ("0", "1", "2", "3", "4")

# The definition of each grade (Kellgren and Lawrence 1957), in several wordings; each belongs to one grade only.
DEFINITIONS = {
    "0": (
        "no radiographic features of osteoarthritis",
        "no osteophytes and no joint space narrowing",
        "a normal joint without signs of osteoarthritis",
    ),
    "1": (
        "doubtful joint space narrowing with possible osteophytic lipping",
        "possible osteophytic lipping and doubtful narrowing of the joint space",
        "doubtful osteoarthritis",
    ),
    "2": (
        "definite osteophytes with possible joint space narrowing",
        "possible narrowing of the joint space and definite osteophytes",
        "mild osteoarthritis",
    ),
    "3": (
        "multiple osteophytes, definite joint space narrowing and some sclerosis",
        "definite narrowing of the joint space with multiple osteophytes and some sclerosis",
        "moderate osteoarthritis",
    ),
    "4": (
        "large osteophytes, marked joint space narrowing and severe sclerosis",
        "marked narrowing of the joint space with large osteophytes and severe sclerosis",
        "severe osteoarthritis",
    ),
}
GRADES = ("Kellgren-Lawrence grade {}", "Kellgren and Lawrence grade {}", "KL grade {}", "Kellgren-Lawrence {}")
KNEES = ("{} knee", "frontal radiograph of the {} knee", "radiograph of the {} knee", "{} knee radiograph")
CAPTIONS = (
    "{knee}: {definition}. {grade}",
    "{knee}: {grade}, {definition}",
    "{knee} with {definition} ({grade})",
    "{grade}: {definition}. {knee}",
    "{definition}, {grade}. {knee}",
)


def compose_knee_captions(grade: str, side: str, wording: random.Random, num_captions: int) -> list[str]:
    """Compose distinct captions of one knee that all state the same facts.

    Args:
        grade: Among `KL_GRADES`.
        side: The patient's: `left` or `right`.
        wording: Where the choices come from; the same state gives the same captions.
        num_captions: Number of captions.
    """
    return distinct(lambda: _caption(grade, side, wording), num_captions)


def _caption(grade: str, side: str, wording: random.Random) -> str:
    caption = wording.choice(CAPTIONS).format(
        knee=wording.choice(KNEES).format(side),
        grade=wording.choice(GRADES).format(grade),
        definition=wording.choice(DEFINITIONS[grade]),
    )
    return as_text(caption.split(". "))
