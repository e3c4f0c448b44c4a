"""Change one fact of a report, and prove by reading it again that only this fact has changed.

The changed report is close to the true one and wrong about the image: a hard negative. The words are the report's own
where that can be done: "No disc bulge or herniation." becomes "No herniation. Disc bulge.".
"""

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple, TypeVar

from data_scripts.reports.findings import Fact
from data_scripts.reports.lexicon import SEVERITIES, word_set
from data_scripts.reports.phrasing import ROMAN_NUMERALS, listed, with_article
from data_scripts.reports.text import (
    DISC_LEVELS,
    Finding,
    exchange_sides,
    replace_spans,
    report_facts,
    report_findings,
)
from data_scripts.reports.words import EXTRA_VERTEBRAE, Word, read_statements

Item = TypeVar("Item")
Change = Literal["polarity", "level", "side", "severity"]
CHANGES: tuple[Change, ...] = ("polarity", "level", "side", "severity")
MOST_OF_EACH = 2  # counterfactuals of one kind
LONGEST_REPORT = 4000  # characters; a longer one has none, since every change reads it again

_ORDER = ("minimal", "mild", "moderate", "severe")
# Levels that a change may name, from the top down.
_LEVELS = tuple(level for level in DISC_LEVELS if level[0] in "TL" and not {*level.split("/")} & {*EXTRA_VERTEBRAE})
_LAST_GRADE = {"spondylolisthesis": 4, "Modic change": 3, "Pfirrmann grade": 5}


@lru_cache(maxsize=65536)
def counterfactual_reports(report: str, seed: int = 0) -> tuple[tuple[Change, str], ...]:
    """Make texts that differ from a report in exactly one fact.

    A change is `polarity` (a finding stated instead of denied, or the reverse; a denial may drop its side, severity and
    level), `level` (one disc higher or lower), `side`, or `severity` (one step). A text is kept if reading it again
    shows that one fact has gone and its changed form has come, and that it contradicts nothing else in the report.

    Args:
        report: A report, or a part of one.
        seed: With the report, decides which findings are changed and which way.

    Returns:
        Pairs of change and text, at most `MOST_OF_EACH` of a change; none if the reader knows no fact to change.

    Example:
        >>> counterfactual_reports("Mild left paracentral protrusion at L4-5.")
        (('polarity', 'No protrusion at L4-5.'), ('level', 'Mild left paracentral protrusion at L3-4.'),
        ('side', 'Mild right paracentral protrusion at L4-5.'),
        ('severity', 'Moderate left paracentral protrusion at L4-5.'))
    """
    if len(report) > LONGEST_REPORT:
        return ()
    digest = hashlib.sha256(f"{seed}\0{report}".encode()).digest()
    draw = random.Random(int.from_bytes(digest[:8], "big"))
    findings = report_findings(report)
    facts = report_facts(report)
    if not facts or not findings:
        return ()
    statements = [_Statement.of(report, words) for words in read_statements(report)]
    made: dict[str, Change] = {}
    for change, candidates in (
        ("polarity", _polarity_candidates(report, statements, findings, draw)),
        ("level", _level_candidates(report, statements, draw)),
        ("side", _side_candidates(report, statements, draw)),
        ("severity", _severity_candidates(report, statements, findings, draw)),
    ):
        found = 0
        for texts in candidates:
            for text in texts:
                if text not in made and _is_proved(facts, report_facts(text), change):  # type: ignore[arg-type]
                    made[text] = change  # type: ignore[assignment]
                    found += 1
                    break
            if found == MOST_OF_EACH:
                break
    return tuple((change, text) for text, change in made.items())


def _is_proved(before: frozenset[Fact], after: frozenset[Fact], change: Change) -> bool:
    """Whether exactly one fact has changed, in one respect, and contradicts no other."""
    gone, come = before - after, after - before
    if len(gone) != 1 or len(come) != 1:
        return False
    (old,), (new,) = gone, come
    if old[0] != new[0] or any(_contradict(new, other) for other in after - come):
        return False
    differing = {name for name, was, now in zip(_FIELDS, old, new, strict=True) if was != now}
    if change == "polarity":
        denied = old if old[4] else new
        dropped = {name for name, value in zip(_FIELDS, denied, strict=True) if value is None}
        return "polarity" in differing and differing <= {"polarity"} | dropped
    if differing != {change}:
        return False
    was, now = (fact[_FIELDS.index(change)] for fact in (old, new))
    return not old[4] and was is not None and now is not None  # what is denied here may be absent there as well


_FIELDS = ("kind", "level", "side", "severity", "polarity")


def _contradict(fact: Fact, other: Fact) -> bool:
    """Whether one states and one denies the same: kind and negation apart, they agree wherever both say something."""
    kind, *place, negated = fact
    other_kind, *other_place, other_negated = other
    both_said = [(a, b) for a, b in zip(place[:2], other_place[:2], strict=True) if a and b]
    return kind == other_kind and negated != other_negated and all(a == b for a, b in both_said)


class _Statement(NamedTuple):
    """A statement of a report, and its place in the text, with its full stop."""

    start: int
    end: int
    words: tuple[Word, ...]

    @classmethod
    def of(cls, report: str, words: tuple[Word, ...]) -> "_Statement":
        end = words[-1].end
        while end < len(report) and report[end] in ")%\"'":
            end += 1
        return cls(words[0].start, end + (report[end : end + 1] == "."), words)


# --- levels, sides and severities: one word is exchanged


def _level_candidates(report: str, statements: list[_Statement], draw: random.Random) -> Iterator[Iterator[str]]:
    words = [word for statement in statements for word in statement.words if word.lemma == "<level>"]
    for word in _shuffled([word for word in words if len(word.levels) == 1], draw):
        yield _with_other_level(report, word, draw)


def _with_other_level(report: str, word: Word, draw: random.Random) -> Iterator[str]:
    (level,), spelt = word.levels, _SPELT_LEVEL.fullmatch(report[word.start : word.end])
    if level not in _LEVELS or spelt is None:
        return
    place = _LEVELS.index(level)
    for neighbour in _shuffled([*_LEVELS[max(0, place - 1) : place], *_LEVELS[place + 1 : place + 2]], draw):
        upper, lower = neighbour.split("/")
        letter = lower[0] if spelt["lower"] or lower[0] != upper[0] else ""
        if spelt["upper"].islower():
            upper, letter = upper.lower(), letter.lower()
        yield replace_spans(report, {(word.start, word.end): f"{upper}{spelt['joint']}{letter}{lower[1:]}"})


_SPELT_LEVEL = re.compile(r"(?P<upper>[CDTLcdtl])\d{1,2}(?P<joint>[-/\\_‐‑–—−]{1,2})(?P<lower>[DTLSdtls]?)\d{1,2}")


def _side_candidates(report: str, statements: list[_Statement], draw: random.Random) -> Iterator[Iterator[str]]:
    words = [word for statement in statements for word in statement.words if word.lemma in ("left", "right", "both")]
    for word in _shuffled(words, draw):
        yield _with_other_side(report, word, draw)


def _with_other_side(report: str, word: Word, draw: random.Random) -> Iterator[str]:
    before, found, after = report[: word.start], report[word.start : word.end], report[word.end :]
    if word.lemma != "both":
        exchanged = exchange_sides(found if len(found) > 1 else f"({found})").strip("()")
        yield f"{before}{exchanged}{after}"
    elif _IN_SINGULAR.match(after) and found.lower() == "bilateral":
        for side in _shuffled(["left", "right"], draw):
            yield f"{before}{_in_case_of(found, side)}{after}"


_IN_SINGULAR = re.compile(
    r" (?:[a-z]+ ){0,2}(?:narrowing|stenosis|compression|encroachment|hypertrophy|impingement|arthropathy)\b"
)


def _severity_candidates(
    report: str, statements: list[_Statement], findings: tuple[Finding, ...], draw: random.Random
) -> Iterator[Iterator[str]]:
    words = [
        word
        for statement in statements
        for place, word in enumerate(statement.words)
        if word.lemma in _ORDER and not _is_of_a_range(statement.words, place)
    ]
    graded = sorted({finding.span for finding in findings if finding.kind in _LAST_GRADE and finding.severity})
    kind_at = {finding.span: finding.kind for finding in findings}
    options: list[Word | tuple[int, int]] = [*words, *graded]
    for option in _shuffled(options, draw):
        if isinstance(option, Word):
            yield _with_other_severity(report, option, draw)
        else:
            yield _with_other_grade(report, option, kind_at[option], draw)


def _is_of_a_range(words: tuple[Word, ...], place: int) -> bool:
    """Whether a severity is one end of "mild to moderate"."""
    around = words[max(0, place - 2) : place] + words[place + 1 : place + 3]
    return any(word.lemma in SEVERITIES for word in around)


def _with_other_severity(report: str, word: Word, draw: random.Random) -> Iterator[str]:
    found = report[word.start : word.end]
    is_of_grade = " degeneration" in report[word.end : word.end + 20] and _OF_PFIRRMANN.search(report)
    if found.lower() not in _SEVERITY_FORMS or is_of_grade:
        return
    place = _ORDER.index(word.lemma)
    steps = [_ORDER[index] for index in (place - 1, place + 1) if 0 < index < len(_ORDER)]  # "minimal" is rare
    for severity in _shuffled(steps, draw):
        other = severity + ("ly" if found.lower().endswith("ly") else "")
        yield replace_spans(report, {(word.start, word.end): _in_case_of(found, other)})


_SEVERITY_FORMS = word_set(
    "minimal minimally mild mildly slight slightly moderate moderately severe severely marked markedly"
)


def _with_other_grade(report: str, span: tuple[int, int], kind: str, draw: random.Random) -> Iterator[str]:
    """Raise or lower the number of a grade, together with the word that describes a Modic type."""
    start, end = max(0, span[0] - 24), min(len(report), span[1] + 16)
    clause = report[max(0, report.rfind(".", 0, span[0])) : report.find(".", span[1]) + 1 or None]
    if kind == "Pfirrmann grade" and _DESCRIBES_DISC.search(clause):
        return  # "Pfirrmann 4 (a black disc)" would contradict itself
    for match in _GRADE.finditer(report, start, end):
        number = _ARABIC.get(match["number"].upper(), match["number"])
        grades = [int(number) - 1, int(number) + 1]
        for grade in _shuffled([grade for grade in grades if 1 <= grade <= _LAST_GRADE[kind]], draw):
            spelt = str(grade) if match["number"].isdigit() else ROMAN_NUMERALS[str(grade)]
            replacements = {match.span("number"): spelt}
            if kind == "Modic change":
                described = _DESCRIBES_MARROW.search(report, max(0, span[0] - 40), end)
                if described:
                    replacements[described.span()] = _in_case_of(described[0], _MARROW[grade])
            yield replace_spans(report, replacements)


_GRADE = re.compile(r"(?i)\b(?:grade|type|modic|pfirrmann?)(?: type| grade)?[ (]+(?P<number>[1-5]|I{1,3}|IV|V)\b")
_ARABIC = {roman: number for number, roman in ROMAN_NUMERALS.items()}
_DESCRIBES_DISC = re.compile(r"nucle(?:us|ar)|dark|black|signal|degenerat|hydrat|desiccat|annular border|homogeneous")
_MARROW = {1: "oedema-like", 2: "fatty", 3: "sclerotic"}
_DESCRIBES_MARROW = re.compile(r"(?i)oedema-like|fatty|sclerotic")


# --- polarity: a denial becomes a statement, or the reverse


def _polarity_candidates(
    report: str, statements: list[_Statement], findings: tuple[Finding, ...], draw: random.Random
) -> Iterator[Iterator[str]]:
    for finding in _shuffled(list({finding.span: finding for finding in findings}.values()), draw):
        statement = next((one for one in statements if one.start <= finding.span[0] < one.end), None)
        if statement is not None and finding.kind != "Pfirrmann grade" and not _describes_grade(report, finding.kind):
            yield _with_other_polarity(report, statement, finding)


def _describes_grade(report: str, kind: str) -> bool:
    """Whether a finding may be the description of a Pfirrmann grade, which would contradict its number."""
    return kind in ("dehydration", "degenerative change") and bool(_OF_PFIRRMANN.search(report))


_OF_PFIRRMANN = re.compile(
    r"(?i)pfirrmann?|nuclear|homogeneous|grey nucleus|(?:bright|hydrated) nucleus|faint|end-stage"
)


def _with_other_polarity(report: str, statement: _Statement, finding: Finding) -> Iterator[str]:
    start, end = statement.start, statement.end
    before, after = report[:start], report[end:]
    sentence, span = report[start:end], (finding.span[0] - start, finding.span[1] - start)
    if finding.negated:
        sentence, span = _without_normal_part(sentence, span)
        others = _without_normality(before), _without_normality(after)
        if None in others or _NORMALITY.search(sentence):
            return
        before, after = map(str, others)
    changed = _stated(sentence, span) if finding.negated else _denied(sentence, span)
    for text in changed:
        yield _joined(before, text, after)
    for rest, item in _taken_out(sentence, span, finding.negated):
        said = _capital(_with_article(item)) if finding.negated else f"No {_bare(item)}"
        ends = ("", *((f" at {finding.level}",) if finding.level else ()))
        for at in ends:
            yield _joined(before, f"{rest} {said}{at}.", after)


def _joined(before: str, text: str, after: str) -> str:
    text = re.sub(" +", " ", text)
    text = text[:1].lower() + text[1:] if before.rstrip().endswith((",", ":")) else _capital(text)
    return f"{before}{text}{' ' if after[:1].isalpha() else ''}{after}".rstrip()


# A report that calls the disc normal cannot also have one of its findings.
_NORMALITY = re.compile(
    r"(?i)\b(?:unremarkable|healthy|no abnormalit(?:y|ies)|without (?:any )?findings|normal(?! (?:width|in width|calib"
    r"|signal|height|alignment|lordosis|conus|cord|marrow|vertebra|position|curvature|canal|spinal canal|foram|facet"
    r"|in signal|in height|in calib)))\b"
)
_SENTENCE = re.compile(r"[^.;]*[.;]\s*")


def _without_normality(text: str) -> str | None:
    """Leave out sentences that only call all normal, but not the level they open with; None if one says more."""
    kept, position = [], 0
    for match in _SENTENCE.finditer(text):
        position = match.end()
        if not _NORMALITY.search(match[0]):
            kept.append(match[0])
            continue
        opening = _OPENING.match(match[0])
        level = opening[0] if opening else ""
        if report_facts(match[0]) or _ANY_LEVEL.search(match[0], len(level)):
            return None
        kept.append(re.sub(r"(?i)there (?:is|are) $|the (?:image|study|scan|mri) \w+ $", "", level))
    rest = text[position:]
    return None if _NORMALITY.search(rest) else "".join([*kept, rest])


def _without_normal_part(sentence: str, span: tuple[int, int]) -> tuple[str, tuple[int, int]]:
    """Turn "the contour is normal, without bulge or protrusion" into "no bulge or protrusion"."""
    match = _NORMAL_PART.search(sentence, 0, span[0])
    if match is None:
        return sentence, span
    shift = len("no") - len(match[0])
    return f"{sentence[: match.start()]}no{sentence[match.end() :]}", (span[0] + shift, span[1] + shift)


_NORMAL_PART = re.compile(r"(?i)(?:the )?(?:[a-z]+ ){0,3}(?:is|are) (?:normal|unremarkable), (?:without|with no)\b")
_ANY_LEVEL = re.compile(r"[LTDltd]\d{1,2}\s?[-/]")

_DONE = (
    "compressed|narrowed|dehydrated|desiccated|hypertrophied|crowded|displaced|thickened|reduced|effaced|indented"
    "|deformed|encroached|impinged|obliterated|enlarged|stenosed|narrow|straightened|degenerated|seen|noted|present"
    "|visible|identified|found|detected|evident"
)
_ADVERB = "(?:minimally|mildly|slightly|moderately|severely|markedly)"
_ADVERBS = f"(?:{_ADVERB} )?"
_IS_DONE = re.compile(rf"(?i)\b(?P<verb>is|are) {_ADVERBS}(?P<done>{_DONE})\b")
_IS_NOT_DONE = re.compile(rf"(?i)\b(?P<verb>is|are) not (?P<done>(?:significantly )?(?:{_DONE}))\b")
_DOING = re.compile(
    r"(?i)(?:compressing|indenting|abutting|encroaching|narrowing|touching|effacing|displacing|contacting|pressing"
    r"|impinging|obliterating|reaching)\b"
)
_DOES = re.compile(
    r"\b(?P<verb>bulge|protrude|compresse|indent|abut|touche|narrow|contact|encroache|efface|displace|impinge)s"
    rf"(?: {_ADVERB})?(?: and symmetrically)?\b"
)
_NOT_DOES = re.compile(r"\b(?P<verb>do|does) not (?P<done>[a-z]+)\b")
_OPPOSITES = (
    (
        r"\b(is|are) (?:widely )?(?:patent|open|adequate|maintained|of normal width|normal in width|capacious)",
        r"\1 narrowed",
    ),
    (r"\b(is|are) (?:free|spared|unaffected)", r"\1 compressed"),
    (r"\b(is|are) (?:well )?hydrated", r"\1 dehydrated"),
    (r"\b(the )?hydration of (.+?) is preserved", r"dehydration of \2 is present"),
    (
        r"\b(?:adequate|patent|normal) ((?:lumbar |central |spinal |exit(?:ing)? |neural |nerve )*"
        r"(?:canals?|foramina|foramen))",
        r"narrowed \1",
    ),
    (r"\babsent\b", "present"),
    (r": (?:none|no|absent|negative|nil)(?=[.,;)]|$)", ": present"),
    (r"\bneither bulges nor protrudes", "bulges but does not protrude"),
    (r"\bneither bulges nor protrudes", "protrudes but does not bulge"),
)
_DENYING = (
    r"(?P<there>there (?:is|are) )?"
    r"(?P<cue>no (?:definite |clear )?(?:evidence|signs?|features?) of|no|without|absence of)"
    r" (?:any |significant |obvious |definite |frank |other )*"
)
_DENIAL_BEFORE = re.compile(rf"(?i)(?:(?P<joint>(?:,|,? and|,? or) )?\b{_DENYING})$")


def _denied(sentence: str, span: tuple[int, int]) -> Iterator[str]:
    """Deny the finding at a place of a sentence, in the ways that its words allow."""
    start, end = span
    if _DOING.match(sentence[start:]):
        yield f"{sentence[:start]}not {sentence[start:]}"
    for match in _IS_DONE.finditer(sentence, max(0, start - 30), min(len(sentence), end + 30)):
        if match.start() <= end and match["done"].lower() not in _SEEN:
            yield f"{sentence[: match.start()]}{match['verb']} not {match['done']}{sentence[match.end() :]}"
    for match in _DOES.finditer(sentence, max(0, start - 2), min(len(sentence), end + 40)):
        verb = match["verb"]
        verb = verb[:-1] if verb in ("compresse", "touche", "encroache") else verb
        yield f"{sentence[: match.start()]}does not {verb}{sentence[match.end() :]}"
    noun = _start_of_noun(sentence, start)
    said = _bare(sentence[noun:end])
    if said:
        yield f"{sentence[:noun]}{'No' if _begins(sentence, noun) else 'no'} {said}{sentence[end:]}"


_SEEN = word_set("seen noted present visible identified found detected evident")


def _stated(sentence: str, span: tuple[int, int]) -> Iterator[str]:
    """State the finding that a sentence denies."""
    for match in _IS_NOT_DONE.finditer(sentence):
        yield f"{sentence[: match.start()]}{match['verb']} {match['done']}{sentence[match.end() :]}"
    for pattern, opposite in _OPPOSITES:
        changed = re.sub(pattern, opposite, sentence, count=1, flags=re.IGNORECASE)
        if changed != sentence:
            yield changed
    noun = _start_of_noun(sentence, span[0])
    denial = _DENIAL_BEFORE.search(sentence, 0, noun)
    if denial is None:
        return
    cue, there = denial["cue"].lower(), denial["there"] or ""
    named = sentence[noun:]
    if cue == "without":
        stated = f"with {_with_article(named)}"
    elif cue.startswith("no ") or cue == "absence of":
        stated = f"{there}{cue.removeprefix('no ').replace('absence', 'presence')} {named}"
    else:
        stated = there + _with_article(named)
    before = sentence[: denial.start()]
    if denial["joint"] and cue == "no":
        yield f"{before} but {'there is ' if not there else ''}{stated}"
        yield f"{before} and {stated}"
    else:
        yield f"{before}{denial['joint'] or ''}{stated}"


# Words before a finding that describe it, and go when it is denied; and those that are part of its name.
_DESCRIBING = word_set(
    """a an the any some minimal mild moderate severe slight marked small large significant diffuse focal
    circumferential generalised generalized broad broad-based based wide base asymmetric asymmetrical symmetric
    symmetrical posterior left right lt rt left-sided right-sided bilateral both paracentral paramedian foraminal
    extraforaminal posterolateral subarticular midline central superimposed additional associated concentric mildly
    moderately severely to and type grade 1 2 3 4 5 i ii iii iv v"""
)
_NAMING = word_set(
    "disc disk discs disks intervertebral spinal canal lumbar nerve root neural vertebral annular facet joint thecal "
    "sac"
)
_WORD_BEFORE = re.compile(r"([A-Za-z1-5'-]+),?[ ]+$")
_GRADED = re.compile(r"(?i)\b(?:type|grade) (?:[1-5]|I{1,3}|IV|V) | (?:type|grade) (?:[1-5]|I{1,3}|IV|V)\b")


def _start_of_noun(sentence: str, start: int) -> int:
    """Find where the words that describe a finding begin."""
    while match := _WORD_BEFORE.search(sentence, 0, start):
        word = match[1].lower()
        if word not in _DESCRIBING and word not in _NAMING:
            break
        start = match.start()
    while first := re.match(r"(?:and|to) ", sentence[start:]):
        start += first.end()
    return start


def _bare(noun: str) -> str:
    """Leave out article, severity, side and shape; "upper and lower" endplates become "upper or lower" ones."""
    words = noun.split(" ")
    while len(words) > 1 and words[0].lower().strip(",") in _DESCRIBING:
        words.pop(0)
    kept = [
        word for place, word in enumerate(words) if place == len(words) - 1 or word.lower() not in _DESCRIBING - {"and"}
    ]
    text = _GRADED.sub(" ", " ".join(kept)).strip()
    text = re.sub(r"\band\b", "or", re.sub(" +", " ", text))
    return text[:1].lower() + text[1:] if text[1:2].islower() and not text.startswith(("Modic", "Schmorl")) else text


_COUNTABLE = re.compile(
    r"(?i)(?:(?!(?:a|an|the)\b)[a-z'-]+ ){0,4}?(?:bulge|protrusion|extrusion|tear|fissure|fracture|cyst|ha?emangioma"
    r"|slip|fragment|mass|lesion|node|defect|herniated disc)\b(?! (?:of the [a-z]+ )?(?:and|or)\b)"
)


def _with_article(noun: str) -> str:
    """Put an article before a countable noun that has none, but not before a list."""
    return with_article(noun) if _COUNTABLE.match(noun) else noun


_OPENING = re.compile(
    r"(?i)^(?:(?:at |disc |level |findings at |axial section through )?(?:the )?[LTD]\d{1,2}\s?[-/][LTSD]?\d{1,2}"
    r"(?: disc level| disc| level)?(?::|,)\s*)?"
    r"(?:(?:the|this) (?:image|study|scan|mri) (?:shows?|reveals?|demonstrates?) |there (?:is|are) )?"
)
_CUE = re.compile(rf"(?i){_DENYING}")
_CLOSING = re.compile(
    r"(?i)(?: (?:is|are|was|were))?(?: (?:seen|noted|present|identified|detected))?(?: at [^,]+)?\.?$"
)
_SEPARATOR = re.compile(r"(, (?:and |or )?| and | or | nor )")


def _taken_out(sentence: str, span: tuple[int, int], negated: bool) -> Iterator[tuple[str, str]]:
    """Take the item that names a finding out of a list: the sentence without it, and the item."""
    opening = _OPENING.match(sentence)
    begin = opening.end() if opening else 0
    if negated:
        cue = _CUE.match(
            sentence, begin - len("there is ") if sentence[:begin].lower().endswith("there is ") else begin
        )
        cue = cue or _CUE.match(sentence, begin)
        if cue is None:
            return
        begin = cue.end()
    closing = _CLOSING.search(sentence, begin)
    finish = closing.start() if closing else len(sentence)
    items: list[tuple[int, int]] = []
    position = begin
    for separator in [*_SEPARATOR.finditer(sentence, begin, finish), None]:
        stop = separator.start() if separator else finish
        if sentence[position:stop].lower().strip() not in _HALVES:  # "upper" of "upper and lower endplate change"
            items.append((position, stop))
            position = separator.end() if separator else finish
    chosen = [item for item in items if item[0] <= span[0] < item[1]]
    if len(items) < 2 or len(chosen) != 1 or span[1] > chosen[0][1]:
        return
    item = re.sub(r"(?i)^both endplates altered$", "endplate changes", sentence[slice(*chosen[0])])
    if _NOT_A_NOUN.search(item):
        return
    others = [sentence[slice(*one)] for one in items if one is not chosen[0] and one != chosen[0]]
    rest = listed(others, "or" if negated else "and")
    if not negated and items[0] == chosen[0] and begin == 0:
        rest = _capital(rest)
    yield f"{sentence[:begin]}{rest}{sentence[finish:]}", item


_HALVES = word_set("upper lower left right central mild moderate severe")
_NOT_A_NOUN = re.compile(r"(?i)^(?:both|with|no|without|but|the disc|there)\b|\b(?:altered|is|are|not)\b|[:;]")


def _begins(sentence: str, place: int) -> bool:
    return place == 0 or sentence[:place].rstrip().endswith(".")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _in_case_of(found: str, word: str) -> str:
    return word.upper() if found.isupper() and len(found) > 1 else _capital(word) if found[0].isupper() else word


def _shuffled(items: Sequence[Item], draw: random.Random) -> list[Item]:
    return draw.sample(items, len(items))
