"""Easy data augmentation of report texts (synonyms, swaps, deletions) that keeps every fact. Pure functions."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from data_scripts.augmentations.synonyms import FRAME_WORDS, PHRASE, SYNONYMS, WORD
from data_scripts.reports.text import report_facts

ATTEMPTS = 4  # candidates for each number of changes, before fewer are tried

_SENTENCE_END = re.compile(r"[.;:!?](?=\s)|\n|/{2,}")


@dataclass(frozen=True, kw_only=True)
class AugmentedText:
    """A text and how it came about.

    Args:
        text: The new text; the given one if no change was possible.
        operation: One of `OPERATIONS`; None if nothing was changed.
    """

    text: str
    operation: str | None = None


def augment_text(
    text: str, rng: np.random.Generator, alpha: float = 0.1, operations: Sequence[str] | None = None
) -> AugmentedText:
    """Change a report by one operation of EDA, drawn at random, so that its facts stay.

    `max(1, round(alpha * words))` changes are planned. Each candidate is parsed, and dropped unless its facts equal
    the report's. After a few candidates fewer changes are tried, then another operation; at worst the text is
    returned as it is.

    Args:
        text: A report.
        rng: Source of every choice.
        alpha: Share of the words to change.
        operations: Of `OPERATIONS`; None for all.

    Source:
        EDA, Wei & Zou 2019; the LumbarCLIP paper names three of its four operations. Ours: only words that state no
        fact are touched (`radiology_lexicon`), where EDA draws from all words and WordNet, and would delete a "no"
        or swap a "left"; the number of deletions is planned, where EDA deletes each word with a probability; swaps
        stay within a sentence.

    Example:
        >>> text = "There is a mild disc bulge at L4/L5."
        >>> augment_text(text, np.random.default_rng(0), operations=["synonym replacement"]).text
        'There is a mild disk bulge at L4/L5.'
    """
    planned = max(1, round(alpha * len(text.split())))
    for name in rng.permutation(list(OPERATIONS if operations is None else operations)):
        for count in range(planned, 0, -1):
            for _ in range(ATTEMPTS):
                candidate = OPERATIONS[name](text, count, rng)
                if candidate == text:  # nothing here that this operation may change
                    break
                if report_facts(candidate) == _facts(text):
                    return AugmentedText(text=candidate, operation=str(name))
    return AugmentedText(text=text)


@lru_cache(maxsize=1024)  # the rows of a patient share their report
def _facts(text: str) -> frozenset[Any]:
    return report_facts(text)


def replace_synonyms(text: str, count: int, rng: np.random.Generator) -> str:
    """Replace up to `count` phrases by a synonym, upper and lower case kept."""
    found = list(PHRASE.finditer(text))
    chosen = rng.permutation(len(found))[:count]
    edits = {}
    for match in (found[index] for index in chosen):
        synonyms = SYNONYMS[" ".join(match[0].casefold().split())]
        edits[match.span()] = _in_case_of(match[0], synonyms[rng.integers(len(synonyms))])
    return _edited(text, edits)


def swap_words(text: str, count: int, rng: np.random.Generator) -> str:
    """Swap up to `count` pairs of frame words, each pair within one sentence."""
    words = _frame_words(text)
    edits: dict[tuple[int, int], str] = {}
    for first in rng.permutation(len(words)):
        start, end = words[first]
        partners = [
            span
            for span in words
            if span not in edits
            and text[slice(*span)].casefold() != text[start:end].casefold()
            and not _SENTENCE_END.search(text, *sorted((span[0], start)))
        ]
        if (start, end) in edits or not partners:
            continue
        partner = partners[rng.integers(len(partners))]
        edits[start, end] = _in_case_of(text[start:end], text[slice(*partner)])
        edits[partner] = _in_case_of(text[slice(*partner)], text[start:end])
        if len(edits) == 2 * count:
            break
    return _edited(text, edits)


def delete_words(text: str, count: int, rng: np.random.Generator) -> str:
    """Delete up to `count` frame words, each with the blank before it, or after it at the beginning of a line."""
    words = _frame_words(text)
    edits = {}
    for index in rng.permutation(len(words))[:count]:
        start, end = words[index]
        before = text[:start].rstrip(" \t")
        if len(before) == start or not before or before.endswith("\n"):
            edits[start, len(text) - len(text[end:].lstrip(" \t"))] = ""
        else:
            edits[len(before), end] = ""
    return _edited(text, edits)


OPERATIONS: dict[str, Callable[[str, int, np.random.Generator], str]] = {
    "synonym replacement": replace_synonyms,
    "random swap": swap_words,
    "random deletion": delete_words,
}


def _frame_words(text: str) -> list[tuple[int, int]]:
    return [match.span() for match in WORD.finditer(text) if match[0].casefold() in FRAME_WORDS]


def _in_case_of(model: str, word: str) -> str:
    if len(model) > 1 and model.isupper():
        return word.upper()
    if word[0].isupper() and word[1:2].isupper():  # an abbreviation
        return word
    return (word[0].upper() if model[0].isupper() else word[0].lower()) + word[1:]


def _edited(text: str, edits: dict[tuple[int, int], str]) -> str:
    """Put replacements in the place of spans; two spans share a blank at most."""
    pieces, position = [], 0
    for (start, end), replacement in sorted(edits.items()):
        pieces += [text[position:start], replacement]
        position = end
    return "".join([*pieces, text[position:]])
