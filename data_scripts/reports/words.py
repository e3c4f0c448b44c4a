"""Split a report into statements of words, with spelling mistakes corrected, and find the phrases they contain."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise

from rapidfuzz.distance import OSA

from data_scripts.reports import cues
from data_scripts.reports.lexicon import (
    ACTION_FORMS,
    FINDING_PHRASES,
    FORMS,
    KNOWN_WORDS,
    STATEMENT_STARTS,
    STRUCTURE_PHRASES,
)

EXTRA_VERTEBRAE = ("T13", "L6")  # about one spine in ten has one
VERTEBRAE = (
    *(f"C{number}" for number in range(1, 8)),
    *(f"T{number}" for number in range(1, 14)),
    *(f"L{number}" for number in range(1, 7)),
    *(f"S{number}" for number in range(1, 6)),
)


def _discs(vertebrae: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{upper}/{lower}" for upper, lower in pairwise(vertebrae))


_USUAL_VERTEBRAE = tuple(name for name in VERTEBRAE if name not in EXTRA_VERTEBRAE)
# From the top down; a disc that only an extra vertebra makes stands after the usual one that has its place.
DISC_LEVELS = tuple(
    sorted(
        {*_discs(VERTEBRAE), *_discs(_USUAL_VERTEBRAE)},
        key=lambda level: (VERTEBRAE.index(level.split("/")[0]), level in _discs(VERTEBRAE)),
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Word:
    """A word, number, sign or level of a report; it covers `text[start:end]`."""

    start: int
    end: int
    lemma: str  # the word as the lexicon knows it, or in lower case; `<level>` or `<vertebra>` for those
    role: str = ""  # role of an action: `active`, `passive` or `noun`
    levels: tuple[str, ...] = ()  # discs that a level names, from the top down; none if it is not understood


# A vertebra is a letter and a number. Blanks may be missing before it ("atL4/L5"), not within a word in capitals.
_START = r"(?:(?<![A-Za-z0-9])|(?<=[a-z])(?=[A-Z]))"
_VERTEBRA = r"(?:[CDTLcdtl]|T[Hh])\s?[0-9]{1,2}|[Ss]\s?[1-5]"
_JOINT = r"\s?[-/\\_‐‑–—−]{1,2}\s?"
_NEXT_VERTEBRA = rf"{_JOINT}(?:{_VERTEBRA}|[1-9][0-9]?(?![0-9])(?![.,][0-9])(?!\s?(?:mm|cm|[x*])))"
# What follows the comma of "L4/5,5/S1" or "L4-5,8 mm" is not a decimal if the vertebrae are neighbours.
_NEIGHBOURS = "|".join(
    rf"[Ll]\s?{upper}{_JOINT}{lower}(?=,\s?[0-9])"
    for upper, lower in ((1, 2), (2, 3), (3, 4), (4, 5), (5, 1), (5, 6), (6, 1))
)
_TOKEN = re.compile(
    rf"""
    (?P<level>{_START}(?:{_NEIGHBOURS})
             |{_START}(?:LS(?=\s?[-/]\s?[Ss]\s?1)|{_VERTEBRA})(?:{_NEXT_VERTEBRA})+
             |{_START}(?:{_VERTEBRA})\ ?[LlSs]\s?[1-5](?![0-9])
             |{_START}(?:{_VERTEBRA})\ (?:over|on|upon)\ (?:{_VERTEBRA})(?![0-9]))
    |(?P<short>(?:(?<=[,&d+]\ )|(?<=[0-9][,&+]))(?:[1-5][-/\\](?:[1-5]|[Ss]1)|5[-/\\]6|6[-/\\][Ss]?1)
             (?![0-9/.-]|\s?(?:mm|cm)))
    |(?P<vertebra>{_START}(?:{_VERTEBRA})(?![0-9]))
    |(?P<break>[/\\]{{2,}}|[\r\n]\s*|[•;]|\.{{2,}})
    |(?P<number>[0-9]+(?:[.,][0-9]+)?)
    |(?P<word>(?:(?!(?<=[a-z])[CDLTS][0-9])[^\W\d_])+(?:['’][^\W\d_]+)*)
    |(?P<sign>[.,:()&+?–—-])
    """,
    re.VERBOSE,
)
# A bare letter is a side if compared with the other one, in brackets, after "more to", or before what has a side; that
# of "L-spine" is not.
_LETTER = r"(?<![A-Za-z0-9.'’])[LR](?![A-Za-z0-9'’])"
_SIDE_LETTER = re.compile(
    rf"""
    (?<=\(){_LETTER}(?=\))
    |(?:(?<=\sto\s)|(?<=\son\s)|(?<=\stowards\s)|(?<=\stoward\s)|(?<=\s(?:to|on)\sthe\s)|(?<=\smore\s)){_LETTER}
    |{_LETTER}(?=\.?[\s/-]\s?(?:sided?|para|foramin|postero|lat|exit|nerve|neural|root|sub-?articular|extraforam|facet
        |recess|[LS]\s?[1-5](?![0-9])))
    """,
    re.VERBOSE,
)
_COMPARED = re.compile(rf"{_LETTER}(?:\s?[<>=&+/]+\s?|\s(?:and|or|to|vs\.?|versus|(?:[a-z]+\s)?than)\s)(?={_LETTER})")
_LUMBAR_LETTER = re.compile(r"L(?=[.\s/-]{1,2}(?:S(?![a-rt-z0-9])|[Ss](?:pine|pinal|PINE|PINAL)))")
_ANY_LETTER = re.compile(_LETTER)
_ABBREVIATIONS = frozenset(("rt", "lt", "lft", "rght", "vs", "approx", "posterolat", "lat", "m", "c", "l", "r", "d"))
LONGEST_STATEMENT = 200  # words; a longer one is cut, since reading takes time with the square of its length
LONGEST_WORD = 40  # letters; a longer one is not a word and stays as it is
_BULLETS = frozenset("-*•.")
# A line that ends in one of these runs on.
_RUNS_ON = {
    *("and", "or", "a", "an", "at", "by", "for", "from", "in", "involving", "of", "on", "over", "the", "to"),
    *("upon", "with", "causing", "exit", "both", "more", "no", "without"),
}
# A line that begins with one of these continues the last one.
_GOES_ON = re.compile(r"(?:and|or|with)(?!\w)")
_FIRST_WORD = re.compile(r"[^\W\d_]+")


def read_statements(text: str) -> Iterator[tuple[Word, ...]]:
    """Split a report into statements at full stops, line breaks, `//`, bullets and "NB".

    Example:
        >>> [[word.lemma for word in words] for words in read_statements("Diffuse bulgge at L4-5 // no stenosis")]
        [['diffuse', 'bulge', 'at', '<level>'], ['no', 'narrow']]
    """
    statement: list[Word] = []
    sides = _side_letters(text)
    for match in _TOKEN.finditer(text):
        kind, found = str(match.lastgroup), match.group()
        if kind == "break" or found == ".":
            if found == ";" and statement:
                statement.append(Word(start=match.start(), end=match.end(), lemma=";"))
            elif statement and not _runs_on(text, match, statement):
                yield tuple(statement)
                statement = []
            continue
        if len(statement) >= LONGEST_STATEMENT or (found == "NB" and statement):
            yield tuple(statement)
            statement = []
        kind = "side" if found in ("L", "R") and match.start() in sides else kind
        statement += [word for word in _words(match, kind) if statement or word.lemma != ","]
    if statement:
        yield tuple(statement)


def replace_spans(text: str, replacements: Mapping[tuple[int, int], str]) -> str:
    """Replace spans of a text, none of which begins before another ends."""
    pieces, position = [], 0
    for (start, end), replacement in sorted(replacements.items()):
        pieces += [text[position:start], replacement]
        position = end
    return "".join([*pieces, text[position:]])


def _side_letters(text: str) -> frozenset[int]:
    """Return the places of the bare letters that are sides."""
    found = {match.start() for match in _SIDE_LETTER.finditer(text)}
    found |= {place for match in _COMPARED.finditer(text) for place in (match.start(), match.end())}
    return frozenset(start for start in found if not _LUMBAR_LETTER.match(text, start))


def has_unclear_side(text: str) -> bool:
    """Whether a text contains a bare R or L that is neither clearly a side nor the letter of a vertebra.

    Example:
        >>> [has_unclear_side(text) for text in ("R more than L", "L 5 root", "L. spine", "Cyst R")]
        [False, False, False, True]
    """
    known = _side_letters(text) | {match.start() for match in _TOKEN.finditer(text) if len(match.group()) > 1}
    unclear = (match.start() for match in _ANY_LETTER.finditer(text))
    return any(start not in known and not _LUMBAR_LETTER.match(text, start) for start in unclear)


def _runs_on(text: str, match: re.Match[str], statement: Sequence[Word]) -> bool:
    """Whether a statement continues after a full stop or line break."""
    found, last = match.group(), statement[-1]
    if found == ".":
        after = text[match.end() : match.end() + 1]
        if last.end != match.start() or not (after.isalpha() or after == " "):
            return False
        in_a_row = last.end - last.start == 1 and (after.isalpha() or text[last.start - 1 : last.start] == ".")
        is_abbreviation = text[last.start : last.end].lower() in _ABBREVIATIONS  # "Rt. paracentral", not "to Rt. No"
        following = _FIRST_WORD.match(text, match.end() + 1)
        begins = following is not None and following[0][0].isupper() and starts_statement(following[0])
        return in_a_row or (is_abbreviation and not begins)
    if found[0] not in "\r\n":
        return False
    after = text[match.end() : match.end() + 2]
    if after[:1] in _BULLETS:
        return False
    if last.lemma in (",", "("):  # a capital starts a new statement, unless it is that of a level
        return not after[:1].isupper() or after[1:].isdigit()
    if last.lemma == "no" and len(statement) > 1 and text[statement[-2].start] in ":-":  # "Herniation: no"
        return False
    return last.lemma in _RUNS_ON or last.role == "active" or bool(_GOES_ON.match(text, match.end()))


def starts_statement(line: str) -> bool:
    """Whether a line begins with a word that starts statements, whatever its case.

    Example:
        >>> [starts_statement(line) for line in ("no stenosis", "dissicating disc", "compressing the sac", "4 mm")]
        [True, True, False, False]
    """
    first = _FIRST_WORD.match(line)
    return first is not None and _lemmas(first.group().lower())[0][0] in STATEMENT_STARTS


def _words(match: re.Match[str], kind: str) -> Iterator[Word]:
    text, start, end, found = match.string, match.start(), match.end(), match.group()
    if kind in ("level", "short"):
        levels = _named_levels(found if kind == "level" else f"L{found}")
        is_level = bool(levels) or not _names_no_level(found)
        yield Word(start=start, end=end, lemma="<level>" if is_level else "<vertebra>", levels=levels)
    elif kind == "vertebra":
        yield Word(start=start, end=end, lemma="<vertebra>")
    elif kind == "side":  # a bare letter: "R paracentral"
        yield Word(start=start, end=end, lemma="left" if found == "L" else "right")
    elif kind == "sign":
        if found in "-–—":  # a dash between words separates like a comma, a hyphen within a word does not
            if text[start - 1 : start].isspace() or text[end : end + 1].isspace():
                yield Word(start=start, end=end, lemma=",")
        else:
            yield Word(start=start, end=end, lemma="and" if found in "&+" else found)
    elif kind == "number":
        yield Word(start=start, end=end, lemma=found)
    else:
        lowered = found.lower().replace("’", "'")
        for lemma, role, length in _lemmas(lowered if len(lowered) == len(found) else found):  # "İ" becomes two
            yield Word(start=start, end=start + length, lemma=lemma, role=role)
            start += length


def _named_levels(found: str) -> tuple[str, ...]:
    """Return the discs between the first and the last vertebra named; none if the order is impossible.

    Example:
        >>> _named_levels("D12-L1"), _named_levels("L4/5"), _named_levels("L3-S1"), _named_levels("L5-1")
        (('T12/L1',), ('L4/L5',), ('L3/L4', 'L4/L5', 'L5/S1'), ('L5/S1',))
    """
    vertebrae: list[str] = []
    region = ""
    for letter, digits in re.findall(
        r"([CDTLS]?)\s?([0-9]{1,2})", found.upper().replace("LS", "L5").replace("TH", "T")
    ):
        region, last_region = {"D": "T", "": region}.get(letter, letter), region
        number = int(digits)
        if not letter and vertebrae and last_region in ("L", "T") and number == 1 < int(vertebrae[-1][1:]):
            region = {"L": "S", "T": "L"}[region]  # "L5-1", "D12-1"
        if region in "LS" and number > 9:
            number = int(digits[0])  # "L23-L3": one digit too many
        vertebrae.append(f"{region}{number}")
    if not {*vertebrae} <= {*VERTEBRAE} or _names_no_level(found):
        return ()
    if VERTEBRAE.index(vertebrae[0]) > VERTEBRAE.index(vertebrae[-1]):
        return ()
    return levels_between(vertebrae)


def levels_between(vertebrae: Sequence[str]) -> tuple[str, ...]:
    """List the discs from the topmost to the lowest vertebra; those of an extra vertebra only if it is named.

    Example:
        >>> levels_between(["L4", "S1"]), levels_between(["S1", "L6", "L5"])
        (('L4/L5', 'L5/S1'), ('L5/L6', 'L6/S1'))
    """
    places = [VERTEBRAE.index(name) for name in vertebrae]
    between = VERTEBRAE[min(places) : max(places) + 1]
    return _discs([name for name in between if name in vertebrae or name not in EXTRA_VERTEBRAE])


def _names_no_level(found: str) -> bool:
    """Whether it names MRI sequences or one vertebra twice."""
    return found.upper().replace(" ", "") in ("T1/T2", "T1-T2")


Lemma = tuple[str, str, int]  # lemma, role, number of letters


@lru_cache(maxsize=8192)
def _lemmas(word: str) -> tuple[Lemma, ...]:
    """Return the lemma of a word in lower case; or both lemmas of two words run together ("musclespasm")."""
    known = known_forms()
    if word in known or len(word) > LONGEST_WORD:
        return ((*known.get(word, (word, "")), len(word)),)
    for cut in range(2, len(word) - 3):
        if word[:cut] in known and word[cut:] in known and (cut > 2 or word[:cut] in ("lt", "rt")):
            return ((*known[word[:cut]], cut), (*known[word[cut:]], len(word) - cut))
    form = _nearest_form(word)
    return ((*known[form], len(word)),) if form else ((word, "", len(word)),)


def is_word_of_reports(word: str) -> bool:
    """Whether the reader knows a word, even one mistyped or two run together.

    Example:
        >>> [is_word_of_reports(word) for word in ("bulge", "Buldge", "musclespasm", "Salem")]
        [True, True, True, False]
    """
    return _lemmas(word.lower())[0][0] != word.lower() or word.lower() in known_forms()


@cache
def known_forms() -> dict[str, tuple[str, str]]:
    """Map each form that the reader knows to its lemma and role."""
    known = {word: (word, "") for word in KNOWN_WORDS}
    for lemma, forms in FORMS.items():
        known |= dict.fromkeys(forms.split(), (lemma, ""))
    for lemma, forms_of_role in ACTION_FORMS.items():
        known |= {form: (lemma, role) for role, forms in forms_of_role.items() for form in forms.split()}
    return known


@cache
def _forms_by_first_letter() -> dict[str, list[str]]:
    by_letter = defaultdict[str, list[str]](list)
    # Of two equally near ones, the one with a meaning wins: "compresing" is not "comprising".
    for form in sorted(known_forms(), key=lambda form: (form in KNOWN_WORDS, form)):
        if len(form) >= 5:
            by_letter[form[0]].append(form)
    return by_letter


def _nearest_form(word: str) -> str | None:
    """Return the known form that a typing slip or two turned into this word, or None.

    The first letter must be right: it tells "inadequate" and "dehydrated" from their opposites.
    """
    forms = _forms_by_first_letter().get(word[:1], ())
    if len(word) < 5:  # too short to guess more than a missing last letter
        return next((form for form in forms if form[:-1] == word), None)
    best, best_distance = None, 3
    for form in forms:
        allowed = min(1 if len(form) < 8 else 2, best_distance - 1)
        if abs(len(form) - len(word)) <= allowed:
            distance = OSA.distance(word, form, score_cutoff=allowed)
            best, best_distance = (form, distance) if distance <= allowed else (best, best_distance)
    return best


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
        *(("finding", name, phrase) for name, phrase in FINDING_PHRASES.items()),
        *(("structure", name, phrase) for name, phrase in STRUCTURE_PHRASES.items()),
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
