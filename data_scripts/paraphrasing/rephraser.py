"""Rephrase a report from its parsed findings, without a model: other words and order of words, the same facts.

What is said is what the parser found: kind, level, side, severity and negation of each finding, in the order of the
report, and shape and zone of a disc's contour ("diffuse", "paracentral"). What the parser does not read (sizes, names
of roots, advice) is not repeated. Every text is parsed again and kept only if its facts equal the report's.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from data_scripts.paraphrasing.groups import Group, read_groups, with_levels_merged
from data_scripts.paraphrasing.sentences import Sentences, say
from data_scripts.reports.text import report_facts

MAX_DRAWS = 60


def rephrase(report: str, count: int, seed: int = 0) -> tuple[str, ...]:
    """Word the findings of a report anew.

    Args:
        report: A report.
        count: Texts wanted.
        seed: Of the wording; the report and the seed alone decide it.

    Returns:
        Up to `count` texts, distinct from each other and from the report, whose facts equal the report's. Fewer if
        the wordings run out; none if the report states no finding.
    """
    return tuple(islice(rephrasings(report, seed), count))


def rephrasings(report: str, seed: int = 0) -> Iterator[str]:
    """Yield distinct rephrasings with equal facts, until `MAX_DRAWS` draws in a row brought none."""
    groups, facts = read_groups(report), report_facts(report)
    if not groups:
        return
    digest = hashlib.sha256(f"{seed}\0{report}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:16], "big"))
    seen, draws = {comparable(report)}, 0
    while draws < MAX_DRAWS:
        draws += 1
        # A text that says each finding by itself is stilted, but leaves the parser no doubt: the last resort.
        text = word_groups(groups, rng, one_by_one=draws > MAX_DRAWS // 2)
        if comparable(text) not in seen and report_facts(text) == facts:
            seen.add(comparable(text))
            draws = 0
            yield text


def comparable(text: str) -> str:
    """The text with case and blanks evened out: texts equal in this are one rephrasing.

    Example:
        >>> comparable(" No  disc bulge.") == comparable("no disc bulge.")
        True
    """
    return " ".join(text.casefold().split())


def word_groups(groups: Sequence[Group], rng: np.random.Generator, one_by_one: bool = False) -> str:
    """Put what a report says into sentences.

    Args:
        groups: As `read_groups` gives them.
        rng: Chooses words and forms.
        one_by_one: State each finding in a sentence of its own, those without a level first.

    Returns:
        A text; whether it keeps the facts is for the parser to say.
    """
    if one_by_one:
        groups = [
            Group(levels=group.levels, mentions=(mention,), negated=group.negated)
            for group in sorted(groups, key=lambda group: bool(group.levels))
            for mention in group.mentions
        ]
    elif rng.random() < 0.6:
        groups = with_levels_merged(groups)
    sentences = Sentences(rng=rng, level_separator=str(rng.choice(["/", "-"])))
    return say(sentence for group in groups for sentence in sentences.of(group))
