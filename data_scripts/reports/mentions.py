"""Find the findings, structures and actions that a statement mentions, and the reach of its negations."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache

from data_scripts.reports import lexicon
from data_scripts.reports.words import Word


@dataclass(frozen=True, kw_only=True)
class Mention:
    """A phrase of the lexicon in a statement."""

    what: str  # `finding`, `structure`, `action`, `negation before`, `no negation`, `query` or `query before`
    name: str  # the finding, structure or action
    first: int  # index of its first word
    last: int  # index of its last word
    role: str = ""  # role of an action: `active`, `passive` or `noun`

    @property
    def words(self) -> range:
        """Indices of its words."""
        return range(self.first, self.last + 1)


@dataclass(kw_only=True)
class Draft:
    """A finding while it is being put together."""

    kind: str  # one of `FINDING_KINDS`
    head: Mention  # what a side or level is next to: the phrase itself, or the structure that is acted on
    action: Mention | None = None  # what acts on the structure
    denies: bool = False  # whether its words deny on their own: "adequate canal", "well hydrated"
    negated: bool = False  # whether the statement denies it
    severity: str | None = None
    sides: list[str] = field(default_factory=list)
    levels: tuple[str, ...] = ()

    @property
    def anchor(self) -> Mention:
        """The mention that a severity is next to."""
        return self.action or self.head

    @property
    def first(self) -> int:
        """Index of the first word that states it."""
        return min(self.head.first, self.anchor.first)

    @property
    def last(self) -> int:
        """Index of the last word that states it."""
        return max(self.head.last, self.anchor.last)


class Statement:
    """The words of a statement and what they mention; mentions and drafts keep the order of the text."""

    def __init__(self, words: Sequence[Word]) -> None:
        self.lemmas = tuple(word.lemma for word in words)
        self.levels = {index: word.levels for index, word in enumerate(words) if word.levels}
        self.mentions = _find_mentions(words, self.lemmas)
        self.mention_at = {index: mention for mention in self.mentions for index in mention.words}
        self.drafts = sorted(_draft_findings(self), key=lambda draft: draft.head.first)


@cache
def _phrase_pattern() -> tuple[re.Pattern[str], dict[str, tuple[str, str]]]:
    phrases = [
        ("no negation", "", lexicon.NO_NEGATION),
        ("query", "", lexicon.QUERYING),
        ("query before", "", lexicon.QUERIED_BEFORE),
        ("negation before", "", lexicon.NEGATED_BEFORE),
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


def _draft_findings(statement: Statement) -> list[Draft]:
    negated, queried = _negated_words(statement), _queried_words(statement)
    drafts = []
    used: set[Mention] = set()
    for mention in statement.mentions:
        if mention.what == "finding":
            kind, denies = ("dehydration", True) if mention.name == "hydration" else (mention.name, False)
            spared = _action_before(statement, mention) if kind in lexicon.SPARABLE_KINDS else None
            denies = denies or (spared is not None and spared.name in lexicon.SPARING_ACTIONS)
            drafts.append(Draft(kind=kind, head=mention, denies=denies))
        elif mention.what == "structure":
            action = _governing_action(statement, mention)
            if kind_found := _relation(statement, mention, action, negated):
                denies = action is not None and action.name in lexicon.SPARING_ACTIONS
                drafts.append(Draft(kind=kind_found, head=mention, action=action, denies=denies))
            used |= {action} if action else set()
    drafts += [
        Draft(kind="stenosis" if mention.role == "noun" else "disc space narrowing", head=mention)
        for mention in statement.mentions
        if mention.what == "action" and mention.name == "narrow" and mention not in used
    ]
    for draft in drafts:
        draft.negated = draft.denies != (draft.head.first in negated or draft.anchor.first in negated)
    return [draft for draft in drafts if draft.head.first not in queried]


def _relation(statement: Statement, structure: Mention, action: Mention | None, negated: set[int]) -> str | None:
    """Return the finding that an action on a structure is, if any."""
    if action is None:
        denied = structure.name in ("thecal sac", "nerve root") and _denied_directly(statement, structure, negated)
        return lexicon.RELATIONS["compress", structure.name] if denied else None
    if action.name in lexicon.SPARING_ACTIONS:
        return lexicon.DENIED_BY_SPARING.get(structure.name)
    return lexicon.RELATIONS.get((action.name, structure.name))


def _governing_action(statement: Statement, structure: Mention) -> Mention | None:
    """Find the action on a structure: the nearer one of those on its left and right."""
    before, after = _action_before(statement, structure), _action_after(statement, structure)
    if before and after:
        return before if structure.first - before.last <= after.first - structure.last else after
    return before or after


def _action_before(statement: Statement, structure: Mention) -> Mention | None:
    """Find the action on the left; an active one passes over words ("compressing the sac, and the left root")."""
    only_list = True
    for position in range(structure.first - 1, -1, -1):
        mention, lemma = statement.mention_at.get(position), statement.lemmas[position]
        if mention and mention.what == "action":
            return mention if mention.role == "active" or only_list else None
        if lemma in lexicon.END_OF_STRUCTURES or (mention and mention.name in lexicon.DISC_CONTOUR_KINDS):
            return None
        only_list = only_list and (lemma in lexicon.LIST_WORDS or (mention is not None and mention.what == "structure"))
    return None


def _action_after(statement: Statement, structure: Mention) -> Mention | None:
    for position in range(structure.last + 1, len(statement.lemmas)):
        mention = statement.mention_at.get(position)
        if mention and mention.what == "action":
            return None if _acts_forward(statement, mention) else mention
        if not (mention and mention.what == "structure") and statement.lemmas[position] not in lexicon.LIST_WORDS:
            return None
    return None


def _acts_forward(statement: Statement, action: Mention) -> bool:
    """Whether an action has its structure on its right: "compression of the sac", "narrowed disc space"."""
    for position in range(action.last + 1, len(statement.lemmas)):
        if statement.lemmas[position] not in lexicon.LIST_WORDS - {"and", "or", "nor", ",", "on", "(", ")"}:
            mention = statement.mention_at.get(position)
            return mention is not None and mention.what == "structure"
    return False


def _denied_directly(statement: Statement, structure: Mention, negated: set[int]) -> bool:
    """Whether only a list separates the structure from a negation, as in "without significant thecal sac"."""
    if structure.first not in negated:
        return False
    for position in range(structure.first - 1, -1, -1):
        mention, lemma = statement.mention_at.get(position), statement.lemmas[position]
        if lemma in lexicon.NEGATIONS:
            return True
        if not (mention and mention.what == "structure") and lemma not in {*lexicon.LIST_WORDS, "evidence", "definite"}:
            return False
    return False


def _negated_words(statement: Statement) -> set[int]:
    """Return the words that a negation reaches: from "no" to the end of its list, from "not seen" backwards."""
    negated: set[int] = set()
    for mention in statement.mentions:
        if mention.what == "negation before" and mention.first == 0:  # "absent disc herniation"
            negated.update(range(mention.last + 1, _end_of_negation(statement, mention.last)))
        elif mention.what == "negation before":
            lemmas, first = statement.lemmas, mention.first
            follows_sign = lemmas[first - 1] in (":", ",", "(") and _ends_clause(lemmas, mention.last + 1)
            negated.update(_words_before(lemmas, first - follows_sign))  # "herniation: absent"
    for index in range(len(statement.lemmas)):
        if _is_answer(statement, index):
            negated.update(_words_before(statement.lemmas, index - (statement.lemmas[index - 1] in (":", ",", "("))))
        elif _negates(statement, index):
            negated.update(range(index + 1, _end_of_negation(statement, index)))
    return negated


def _negates(statement: Statement, index: int) -> bool:
    """Whether a negation of what follows begins here."""
    mention = statement.mention_at.get(index)
    if mention and mention.what not in ("action", "finding", "structure"):
        return False
    return statement.lemmas[index] in lexicon.NEGATIONS or statement.lemmas[index : index + 2] in lexicon.NEGATING_PAIRS


def _is_answer(statement: Statement, index: int) -> bool:
    """Whether a negation answers a heading: "herniation: none", "stenosis - no", "bulge (none)"."""
    lemmas = statement.lemmas
    ends = [index + len(answer) for answer in lexicon.ANSWERS if lemmas[index : index + len(answer)] == answer]
    follows_heading = index > 0 and (lemmas[index - 1] in (":", ",", "(", "be") or index - 1 in statement.mention_at)
    return follows_heading and any(_ends_clause(lemmas, end) for end in ends)


def _ends_clause(lemmas: Sequence[str], index: int) -> bool:
    return lemmas[index : index + 1] in ((), (",",), (";",), (")",))


def _queried_words(statement: Statement) -> set[int]:
    """Return the words of a differential diagnosis: after "?" or "cannot exclude", or before "cyst ?"."""
    queried: set[int] = set()
    for mention in statement.mentions:
        if mention.what == "query":
            queried.update(range(mention.last + 1, _end_of_negation(statement, mention.last)))
        elif mention.what == "query before":
            queried.update(_words_before(statement.lemmas, mention.first))
    for index, lemma in enumerate(statement.lemmas):
        if lemma == "?":
            asked = statement.mention_at.get(index - 1)
            if asked and _ends_clause(statement.lemmas, index + 1):
                queried.update(range(asked.first, index))
            else:
                queried.update(range(index + 1, _end_of_negation(statement, index)))
    return queried


def _words_before(lemmas: Sequence[str], end: int) -> Iterator[int]:
    for position in range(end - 1, -1, -1):
        if lemmas[position] in (";", ":", "but", ","):
            return
        yield position


def _end_of_negation(statement: Statement, start: int) -> int:
    for position in range(start + 1, len(statement.lemmas)):
        lemma = statement.lemmas[position]
        if (lemma in lexicon.END_OF_NEGATION and position > start + 1) or (
            lemma == "," and _affirms(statement, position + 1)
        ):
            return position
    return len(statement.lemmas)


def _is_participle(statement: Statement, action: Mention) -> bool:
    """Whether an action begins a clause, as "compressing the sac", unlike the noun in "narrowing of the canal"."""
    following = statement.lemmas[action.last + 1 : action.last + 2]
    acts = following == ("the",) or (following != ("of",) and _acts_forward(statement, action))
    return action.role == "active" and acts


def _affirms(statement: Statement, start: int) -> bool:
    """Whether what follows a comma is a new, affirmed statement and not another item of a denied list."""
    is_sided = False
    for position in range(start, len(statement.lemmas)):
        mention, lemma = statement.mention_at.get(position), statement.lemmas[position]
        if lemma in ("or", "nor", "no", "not"):
            return False
        if lemma in lexicon.SIDES:
            is_sided = True
        elif lemma in lexicon.AFFIRMING or (mention and _is_participle(statement, mention)):
            return True
        elif lemma in lexicon.END_OF_NEGATION or (lemma == "," and not is_sided):
            return is_sided
    return is_sided  # "no stenosis, left protrusion", but a later "or" marks a list
