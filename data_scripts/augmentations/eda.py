"""Easy data augmentation of report texts (synonyms, swaps, deletions) that keeps every fact. Pure functions."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from data_scripts.reports.language import seems_english
from data_scripts.reports.text import replace_spans, report_facts

ATTEMPTS = 4  # candidates for each number of changes, before fewer are tried
_facts = lru_cache(maxsize=1024)(report_facts)  # the rows of a patient share their report

# Only true synonyms share a group. A bulge, a protrusion, an extrusion and a herniation are different facts, as are
# mild and minimal, or likely and probable: no group has words of findings, severity, certainty, side, level, number
# or negation. Unknown words are never changed: a misspelling may hide one of these.
SYNONYM_GROUPS: tuple[tuple[str, ...], ...] = (
    # Anatomy. Terms after Fardon et al. 2014 ("Lumbar disc nomenclature: version 2.0") and the Terminologia Anatomica.
    ("disc", "disk"),
    ("discs", "disks"),
    ("thecal sac", "dural sac"),
    ("neural foramen", "intervertebral foramen"),
    ("neural foramina", "intervertebral foramina"),
    ("exit canal", "exit neural canal", "exiting neural canal"),
    ("exit canals", "exit neural canals", "exiting neural canals"),
    ("exit nerve root", "exiting nerve root"),
    ("exit nerve roots", "exiting nerve roots"),
    ("spinal canal", "vertebral canal"),
    ("endplate", "end-plate", "end plate"),
    ("endplates", "end-plates", "end plates"),
    ("annulus", "anulus"),
    ("marrow signal", "bone marrow signal"),
    ("CSF space", "cerebrospinal fluid space"),
    ("CSF spaces", "cerebrospinal fluid spaces"),
    # Shape and spelling.
    ("broad base", "wide base"),
    ("broad based", "broad-based", "wide based", "wide-based"),
    ("generalised", "generalized"),
    ("multilevel", "multi-level"),
    ("edema", "oedema"),
    ("caudally", "inferiorly", "downwards"),
    ("cranially", "superiorly", "upwards"),
    ("encroaching upon", "encroaching on"),
    # The frame of a sentence.
    ("noted", "seen", "observed", "identified"),
    ("evidence of", "sign of", "signs of"),
    ("feature of", "features of"),
    ("associated with", "accompanied by", "along with", "together with"),
    ("causing", "producing", "resulting in"),
    ("due to", "because of", "owing to"),
    ("mainly", "chiefly"),
    ("especially", "particularly"),
    ("noticeably", "notably"),
    ("previous", "prior"),
    ("surgery", "operation"),
    ("advised", "recommended"),
    ("in addition", "additionally"),
    # The examination.
    ("LSS MRI", "lumbosacral MRI", "MRI of the lumbosacral spine", "MRI of the LSS"),
)

# Words to delete or swap: the sentence reads worse, as EDA intends, and means the same. Past forms (`was seen`) are
# excluded: they may tell an earlier finding from a present one.
FRAME_WORDS = frozenset(
    {"the", "a", "an", "is", "are", "there", "noted", "seen", "observed", "identified", "also", "which"}
)

SYNONYMS: dict[str, tuple[str, ...]] = {
    phrase.casefold(): tuple(other for other in group if other != phrase)
    for group in SYNONYM_GROUPS
    for phrase in group
}

# Longest first, so that "exit neural canals" is not read as something shorter within it. A hyphen or an apostrophe
# continues a word: "disc-like" is not a disc.
PHRASE = re.compile(
    r"(?<![\w'’-])(?:"
    + "|".join(r"\s+".join(map(re.escape, phrase.split())) for phrase in sorted(SYNONYMS, key=len, reverse=True))
    + r")(?![\w'’-])",
    re.IGNORECASE,
)
# No article: the letter of "grade a", and a capital A within a sentence ("Schizas class A").
WORD = re.compile(
    r"(?<![\w'’-])(?<!grade )(?<!type )(?<!class )(?<!stage )"
    r"(?:(?-i:(?!A(?!\w)))|(?<![\s\S])|(?<=[.!?]\s)|(?<=\n)|(?<=//)|(?<=//\s))"
    r"[A-Za-z]+(?![\w'’-])",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.;:!?](?=\s)|\n|/{2,}")


@dataclass(frozen=True, kw_only=True)
class AugmentedText:
    """A changed text and the one of `OPERATIONS` that made it; None if no change was possible."""

    text: str
    operation: str | None = None


def augment_text(
    text: str, rng: np.random.Generator, alpha: float = 0.1, operations: Sequence[str] | None = None
) -> AugmentedText:
    """Change a report by one random EDA operation that keeps its facts.

    `max(1, round(alpha * words))` changes are planned, by one of `operations` (None for all of `OPERATIONS`). Each
    candidate is parsed, and dropped unless its facts equal the report's. After a few candidates fewer changes are
    tried, then another operation; the text may stay unchanged. So does one that seems not to be English, whose facts
    are not read.

    Source:
        EDA, Wei & Zou 2019; the LumbarCLIP paper names three of its four operations. Ours differs: only words
        that state no fact are changed, while EDA draws from all words and WordNet and may delete a "no" or swap a
        "left"; the number of deletions is planned, while EDA deletes each word with a probability; swaps stay within
        a sentence.

    Example:
        >>> text = "There is a mild disc bulge at L4/L5."
        >>> augment_text(text, np.random.default_rng(0), operations=["synonym replacement"]).text
        'There is a mild disk bulge at L4/L5.'
    """
    if not seems_english(text):
        return AugmentedText(text=text)
    planned = max(1, round(alpha * len(text.split())))
    for name in rng.permutation(list(OPERATIONS if operations is None else operations)):
        for count in range(planned, 0, -1):
            for _ in range(ATTEMPTS):
                candidate = OPERATIONS[name](text, count, rng)
                if candidate == text:  # this operation finds nothing to change
                    break
                if report_facts(candidate) == _facts(text):
                    return AugmentedText(text=candidate, operation=str(name))
    return AugmentedText(text=text)


def replace_synonyms(text: str, count: int, rng: np.random.Generator) -> str:
    """Replace up to `count` phrases with a synonym in the same case."""
    found = list(PHRASE.finditer(text))
    chosen = rng.permutation(len(found))[:count]
    edits = {}
    for match in (found[index] for index in chosen):
        synonyms = SYNONYMS[" ".join(match[0].casefold().split())]
        edits[match.span()] = _in_case_of(match[0], synonyms[rng.integers(len(synonyms))])
    return replace_spans(text, edits)


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
    return replace_spans(text, edits)


def delete_words(text: str, count: int, rng: np.random.Generator) -> str:
    """Delete up to `count` frame words, each with the blank before it, or after it where a line begins."""
    words = _frame_words(text)
    edits = {}
    for index in rng.permutation(len(words))[:count]:
        start, end = words[index]
        before = text[:start].rstrip(" \t")
        if len(before) == start or not before or before.endswith("\n"):
            edits[start, len(text) - len(text[end:].lstrip(" \t"))] = ""
        else:
            edits[len(before), end] = ""
    return replace_spans(text, edits)


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
