"""Find the phrases of the lexicon that a statement contains: findings, structures, actions, and cues."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from data_scripts.reports import cues, lexicon
from data_scripts.reports.words import Word


@dataclass(frozen=True, kw_only=True)
class Mention:
    """A phrase of the lexicon in a statement."""

    what: str  # `finding`, `structure`, `action`, or a cue: one of `_CUES`
    name: str  # the finding, structure or action
    first: int  # index of its first word
    last: int  # index of its last word
    role: str = ""  # role of an action: `active`, `passive` or `noun`

    @property
    def words(self) -> range:
        """Indices of its words."""
        return range(self.first, self.last + 1)


class Phrases:
    """The words of a statement and what they mention, in the order of the text."""

    def __init__(self, words: Sequence[Word], text: str) -> None:
        self.forms = tuple(text[word.start : word.end].lower() for word in words)  # as typed
        self.lemmas = tuple(word.lemma for word in words)
        self.levels = {index: word.levels for index, word in enumerate(words) if word.lemma == "<level>"}
        self.mentions = _find_mentions(words, self.lemmas)
        self.mention_at = {index: mention for mention in self.mentions for index in mention.words}


_CUES = {
    "no negation": cues.NO_NEGATION,
    "query": cues.QUERYING,
    "query before": cues.QUERIED_BEFORE,
    "negation before": cues.NEGATED_BEFORE,
    "asked altogether": cues.ASKED_ALTOGETHER,
    "evaluation": cues.EVALUATING,
    "question": cues.ASKING,
    "shown before": cues.SHOWN_BEFORE,
    "seen before": cues.SEEN_BEFORE,
    "previously": cues.PREVIOUSLY,
    "history": cues.HISTORY,
}


@cache
def _phrase_pattern() -> tuple[re.Pattern[str], dict[str, tuple[str, str]]]:
    phrases = [
        *((cue, "", phrase) for cue, phrase in _CUES.items()),
        *(("finding", name, phrase) for name, phrase in lexicon.FINDING_PHRASES.items()),
        *(("structure", name, phrase) for name, phrase in lexicon.STRUCTURE_PHRASES.items()),
    ]
    meaning = {f"phrase{number}": (what, name) for number, (what, name, _) in enumerate(phrases)}
    alternatives = "|".join(f"(?P<phrase{number}>{phrase})" for number, (_, _, phrase) in enumerate(phrases))
    return re.compile(rf"(?<!\S)(?:{alternatives})(?!\S)"), meaning


def _find_mentions(words: Sequence[Word], lemmas: Sequence[str]) -> list[Mention]:
    pattern, meaning = _phrase_pattern()
    text, mentions = " ".join(lemmas), []
    for match in pattern.finditer(text):
        what, name = meaning[str(match.lastgroup)]
        first = text.count(" ", 0, match.start())  # no lemma contains a blank
        mentions.append(Mention(what=what, name=name, first=first, last=first + match.group().count(" ")))
    covered = {index for mention in mentions for index in mention.words}
    mentions += [
        Mention(what="action", name=word.lemma, first=index, last=index, role=word.role)
        for index, word in enumerate(words)
        if word.role and index not in covered
    ]
    return sorted(mentions, key=lambda mention: mention.first)
