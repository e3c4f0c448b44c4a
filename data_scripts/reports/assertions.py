"""Find the words of a statement that it denies, doubts, or says of another examination: the reach of its cues."""

import re
from collections.abc import Container, Iterator, Sequence

from data_scripts.reports import cues, lexicon
from data_scripts.reports.words import Mention, Phrases

_JOINED_BY_RESTART = frozenset(("and", ",", "or"))
_DENIED_WITH_ITS_OBJECT = re.compile(cues.DENIED_WITH_ITS_OBJECT)
_STATING = ("finding", "structure", "action")


def denied_words(statement: Phrases) -> set[int]:
    """Return the words that a negation reaches: from "no" to the end of its list, from "not seen" backwards."""
    denied: set[int] = set()
    lemmas = statement.lemmas
    for mention in statement.mentions:
        if mention.what == "negation before" and not _follows_finding(statement, mention):  # "absent disc herniation"
            denied.update(range(mention.last + 1, _end_of_negation(statement, mention.last)))
        elif mention.what == "negation before":
            first = mention.first
            follows_sign = lemmas[first - 1] in (":", ",", "(") and _ends_clause(lemmas, mention.last + 1)
            denied.update(_denied_before(statement, first - follows_sign))  # "herniation: absent"
    for index in range(len(lemmas)):
        if _is_answer(statement, index):
            denied.update(_words_before(statement, index - (lemmas[index - 1] in (":", ",", "(", "?"))))
        elif lemmas[index] == "non":  # "non stenotic canal"
            denied.add(index + 1)
        elif _negates(statement, index):
            denied.update(range(index + 1, _end_of_negation(statement, index)))
    return denied


def doubted_words(statement: Phrases) -> set[int]:
    """Return the words that a statement neither affirms nor denies: after "rule out" or "?", before "cyst ?"."""
    doubted: set[int] = set()
    for mention in statement.mentions:
        if mention.what == "asked altogether":
            advising = (index for index in range(mention.first) if statement.lemmas[index] in cues.ADVISING)
            is_advice = statement.lemmas[: mention.first][-1:] == (",",) and statement.lemmas[mention.first] != "for"
            doubted.update(range(next(advising, mention.first if is_advice else 0), mention.first))
        elif mention.what == "query":
            doubted.update(range(mention.last + 1, _end_of_negation(statement, mention.last, may_restart=False)))
        elif mention.what == "question":
            doubted.update(range(mention.last + 1, _end_of_clause(statement, mention.last, cues.END_OF_QUESTION)))
        elif mention.what == "evaluation":
            doubted.update(range(mention.last + 1, _end_of_clause(statement, mention.last, cues.END_OF_EVALUATION)))
        elif mention.what == "query before":
            doubted.update(_words_before(statement, mention.first))
    for index, lemma in enumerate(statement.lemmas):
        if lemma == "?":
            asked = statement.mention_at.get(index - 1)
            if statement.lemmas[index + 1 : index + 2] in (("yes",), ("no",), ("none",)):
                continue
            if asked and _ends_clause(statement.lemmas, index + 1):
                doubted.update(range(asked.first, index))
            else:
                doubted.update(range(index + 1, _end_of_negation(statement, index, may_restart=False)))
    return doubted


def past_words(statement: Phrases) -> set[int]:
    """Return the words about another examination or time: "prior MRI showed …", "history of …", "surgery for …"."""
    past: set[int] = set()
    persists = not cues.PERSISTING.isdisjoint(statement.lemmas)
    for mention in statement.mentions:
        end = _end_of_negation(statement, mention.last, may_restart=False)
        nows = (index for index in range(mention.last + 1, end) if statement.lemmas[index] in cues.NOW)
        after = range(mention.last + 1, next(nows, end))
        if mention.what in ("shown before", "history") or (mention.what == "previously" and not persists):
            past.update(after)
        elif mention.what == "seen before" and not persists:
            past.update(_words_before(statement, mention.first))
        elif mention.name == "postoperative change":
            reasons = (index for index in after if statement.lemmas[index] in cues.REASON_OF_OPERATION)
            past.update(range(next(reasons, after.stop), after.stop))
    return past


def _denied_before(statement: Phrases, end: int) -> set[int]:
    """Return the words that a negation behind them reaches, but "bulge" in "compression by the bulge is not seen"."""
    words = set(_words_before(statement, end))
    first = min(words, default=end)
    places = (place for place in range(first + 1, end) if _is_attributed(statement, first, place))
    return words - set(range(next(places, end), end))


def _is_attributed(statement: Phrases, start: int, place: int) -> bool:
    """Whether a finding that exists follows, to which what is denied is related: "no stenosis from the bulge"."""
    lemmas = statement.lemmas
    if lemmas[place] not in cues.ATTRIBUTING or place in statement.mention_at:
        return False
    if lemmas[place] in ("of", "in") and (
        lemmas[place + 1 : place + 2] in (("<level>",), ("<vertebra>",)) or _is_about_evidence(lemmas, start, place)
    ):
        return False
    first = place + 1 + (lemmas[place + 1 : place + 2] in (("to",), ("of",)))
    if lemmas[first : first + 1] == () or lemmas[first] not in cues.DEFINITE:
        return False
    for position in range(first, min(first + 6, len(lemmas))):
        mention = statement.mention_at.get(position)
        if mention is not None and mention.what == "finding":
            return mention.name in lexicon.ATTRIBUTABLE_KINDS
        if mention is not None and mention.name == "narrow" and mention.role == "noun":
            return True
        ends = lemmas[position] in (",", "or", "and", "nor", "with", "of", ";", *cues.NOT_OF_NOW)
        if ends or (mention and mention.what != "action"):
            return False
    return False


def _is_about_evidence(lemmas: Sequence[str], start: int, place: int) -> bool:
    """Whether a denial goes through "of": "no evidence of the bulge"."""
    return place <= start + 1 or any(map(_DENIED_WITH_ITS_OBJECT.fullmatch, lemmas[max(start, place - 2) : place]))


def _follows_finding(statement: Phrases, mention: Mention) -> bool:
    """Whether there is something before a negation that it can deny."""
    before = [statement.mention_at.get(position) for position in _words_before(statement, mention.first)]
    return mention.first > 0 and (
        statement.lemmas[mention.first - 1] in (":", ",", "(")
        or any(found and found.what in _STATING for found in before)
    )


def _negates(statement: Phrases, index: int) -> bool:
    """Whether a negation of what follows begins here; "no stenosis greater than mild" is none."""
    mention = statement.mention_at.get(index)
    if mention and mention.what not in ("action", "finding", "structure"):
        return False
    lemmas = statement.lemmas
    if lemmas[index : index + 2] in (("none", "at"), ("none", "on")):  # of what was named before
        return False
    if lemmas[index] not in cues.NEGATIONS and lemmas[index : index + 2] not in cues.NEGATING_PAIRS:
        return False
    places = (place for place in range(index + 2, min(index + 8, len(lemmas))) if lemmas[place] == "than")
    places = (place for place in places if lemmas[place - 1] in ("more", "greater", "worse"))
    return all(lemmas[place + 1] not in lexicon.SEVERITIES for place in places if place + 1 < len(lemmas))


def _is_answer(statement: Phrases, index: int) -> bool:
    """Whether a negation answers a heading: "herniation: none", "stenosis - no", "bulge (none)"."""
    lemmas = statement.lemmas
    ends = [index + len(answer) for answer in cues.ANSWERS if lemmas[index : index + len(answer)] == answer]
    follows_heading = index > 0 and (
        lemmas[index - 1] in (":", ",", "(", "be", "?") or index - 1 in statement.mention_at
    )
    return follows_heading and any(_ends_clause(lemmas, end) for end in ends)


def _ends_clause(lemmas: Sequence[str], index: int) -> bool:
    return lemmas[index : index + 1] in ((), (",",), (";",), (")",))


def _words_before(statement: Phrases, end: int) -> Iterator[int]:
    for position in range(end - 1, -1, -1):
        lemma = statement.lemmas[position]
        if lemma in (";", ":", "but", ",") or (lemma == "and" and "be" in statement.lemmas[:position]):
            return  # "a bulge is present and stenosis is absent", but "bulge and stenosis are absent"
        yield position


def _end_of_clause(statement: Phrases, start: int, ends: Container[str]) -> int:
    """Find the end of a question that begins at a cue: a word that ends it, or "and there is"."""
    lemmas = statement.lemmas
    for position in range(start + 1, len(lemmas)):
        if lemmas[position] in ends or (lemmas[position] == ":" and position > start + 1):
            return position
        if lemmas[position] in ("and", ",") and lemmas[position + 1 : position + 3] == ("there", "be"):
            return position
    return len(lemmas)


def _end_of_negation(statement: Phrases, start: int, *, may_restart: bool = True) -> int:
    lemmas = statement.lemmas
    for position in range(start + 1, len(lemmas)):
        lemma = lemmas[position]
        if position > start + 1 and (
            (lemma in cues.END_OF_NEGATION and lemmas[position - 1 : position + 1] != ("associated", "with"))
            or lemmas[position : position + 2] in cues.ENDING_PAIRS
        ):
            return position
        if position > start + 1 and _is_attributed(statement, start, position):
            return position
        if lemma == "," and (_affirms(statement, position + 1) or _begins_clause(statement, position + 1)):
            return position
        if lemma == "and" and _affirms_after_and(statement, start, position, may_restart=may_restart):
            return position
    return len(lemmas)


def _is_participle(statement: Phrases, action: Mention) -> bool:
    """Whether an action begins a clause, as "compressing the sac", unlike the noun in "narrowing of the canal"."""
    following = statement.lemmas[action.last + 1 : action.last + 2]
    acts = following == ("the",) or (following != ("of",) and acts_forward(statement, action))
    return action.role == "active" and acts


def acts_forward(statement: Phrases, action: Mention) -> bool:
    """Whether an action has its structure on its right: "compression of the sac", "narrowed disc space"."""
    for position in range(action.last + 1, len(statement.lemmas)):
        if statement.lemmas[position] not in lexicon.LIST_WORDS - {"and", "or", "nor", ",", "on", "(", ")"}:
            mention = statement.mention_at.get(position)
            return mention is not None and mention.what == "structure"
    return False


def _affirms(statement: Phrases, start: int) -> bool:
    """Whether what follows a comma is a new, affirmed statement and not another item of a denied list."""
    is_sided = False
    for position in range(start, len(statement.lemmas)):
        mention, lemma = statement.mention_at.get(position), statement.lemmas[position]
        if lemma in ("or", "nor", "no", "not"):
            return False
        if lemma in lexicon.SIDES:
            is_sided = True
        elif lemma in cues.AFFIRMING or (mention and _is_participle(statement, mention)):
            return True
        elif lemma in cues.END_OF_NEGATION or (lemma == "," and not is_sided):
            return is_sided
    return is_sided  # "no stenosis, left protrusion", but a later "or" marks a list


def _affirms_after_and(statement: Phrases, start: int, place: int, *, may_restart: bool) -> bool:
    """Whether a new, affirmed statement follows "and" in a denied list.

    It does in "no stenosis and there is a bulge", "no stenosis and mild bulge", "no stenosis and the sac is
    compressed", but not in "no stenosis and herniation" or "no left and right stenosis".
    """
    lemmas = statement.lemmas
    after = lemmas[place + 1 :]
    if (
        after[:2] == ("there", "be")
        or after[:1] == ("instead",)
        or (after[:1] == ("be",) and start > 0 and "be" in lemmas[start - 1 : start])  # "is not bright and is torn"
        or after[:2] == ("noted", "of")
        or _begins_clause(statement, place + 1)
    ):
        return True
    if not may_restart or not after or not _states_finding(statement, start + 1, place):
        return False
    action = statement.mention_at.get(place + 1)
    if action and action.role == "active" and statement.forms[place + 1].endswith("s"):  # "and abuts the root"
        return True
    if after[0] == "<level>" and len(after) > 1:  # "no stenosis and L4-5 mild bulge"
        after = after[1:]
    restarts = after[0] in lexicon.SEVERITIES.keys() - {"significant"} or after[0] in lexicon.SIDES
    restarts = restarts or (after[0] in ("a", "an") and not {"a", "an"} & {*lemmas[start:place]})
    ends = (
        index for index in range(place + 1, len(lemmas)) if lemmas[index] in (*_JOINED_BY_RESTART, ";", ":", "with")
    )
    return restarts and _states_finding(statement, place + 1, next(ends, len(lemmas)))


def _begins_clause(statement: Phrases, start: int) -> bool:
    """Whether a structure or finding with a verb of its own follows: "the canal is narrowed", but not "B is seen"."""
    lemmas = statement.lemmas
    position = start
    while position < len(lemmas) and (lemmas[position] in lexicon.LIST_WORDS - {*_JOINED_BY_RESTART, "be", "appear"}):
        position += 1
    mention = statement.mention_at.get(position)
    if lemmas[position : position + 2] == ("at", "<level>"):
        return lemmas[position + 2 : position + 4] == ("there", "be")
    if mention is None and lemmas[position : position + 1] in (
        ("disc",),
        ("vertebra",),
        ("spine",),
        ("study",),
        ("<level>",),
    ):
        verb = position + 1
    elif mention is not None and mention.what in ("finding", "structure"):
        verb = mention.last + 1
    else:
        return False
    is_denied_list = lemmas[verb + 1 : verb + 2] in (("noted",), ("absent",), ("excluded",))
    return lemmas[verb : verb + 1] in (("be",), ("appear",), ("has",), ("have",), ("shows",)) and not is_denied_list


def _states_finding(statement: Phrases, start: int, end: int) -> bool:
    """Whether words contain a finding, or a structure together with what acts on it."""
    inside = [mention for mention in statement.mentions if start <= mention.first and mention.last < end]
    kinds = {mention.what for mention in inside}
    return (
        "finding" in kinds
        or {"structure", "action"} <= kinds
        or any(mention.what == "action" and mention.role == "noun" and mention.name == "narrow" for mention in inside)
    )
