"""Turn the denial of a finding into its statement, and a statement into a denial, within the report's own words."""

import re
from collections.abc import Iterator

from data_scripts.reports.lexicon import word_set
from data_scripts.reports.phrasing import listed, with_article
from data_scripts.reports.text import Finding, report_facts
from data_scripts.reports.words import read_statements


def with_other_polarity(report: str, start: int, end: int, finding: Finding) -> Iterator[str]:
    """Yield reports in which a finding is stated instead of denied, or the reverse, in the ways that its words allow.

    Not every text has only this change: read it again.

    Args:
        report: A report.
        start: Where the statement of the finding begins.
        end: Where it ends.
        finding: A finding of this statement.

    Example:
        >>> from data_scripts.reports.text import report_findings
        >>> report = "No disc bulge or herniation."
        >>> [*with_other_polarity(report, 0, len(report), report_findings(report)[0])][0]
        'No herniation. A disc bulge.'
    """
    before, after = report[:start], report[end:]
    sentence, span = report[start:end], (finding.span[0] - start, finding.span[1] - start)
    if not finding.negated:
        for text in _denials(sentence, span, finding):
            yield _joined(before, text, after)
        return
    sentence, span = _without_normal_part(sentence, span)
    if NORMALITY.search(sentence):
        return
    contexts = [(_without_normality(before, keeps), _without_normality(after, keeps)) for keeps in ("opening", "level")]
    statements = [*_statements(sentence, span, finding)]
    for first, last in dict.fromkeys(contexts):
        if first is not None and last is not None:
            yield from (_joined(first, text, last) for text in statements)


def _denials(sentence: str, span: tuple[int, int], finding: Finding) -> Iterator[str]:
    for rest, item in _taken_out(sentence, span, negated=False):
        yield from (f"{rest} No {_bare(item)}{at}." for at in _levels_said(finding))
    yield from _denied(sentence, span)


def _statements(sentence: str, span: tuple[int, int], finding: Finding) -> Iterator[str]:
    for rest, item in _taken_out(sentence, span, negated=True):
        yield from (f"{rest} {capital(_with_article(item))}{at}." for at in _levels_said(finding))
    yield from _stated(sentence, span)


def _levels_said(finding: Finding) -> tuple[str, ...]:
    return ("", f" at {finding.level}") if finding.level else ("",)


def _joined(before: str, text: str, after: str) -> str:
    text = _continued(before, capital(re.sub(" +", " ", text)))
    return f"{text}{' ' if after[:1].isalpha() else ''}{after}".rstrip()


# A report that calls the disc normal cannot also have one of its findings.
NORMALITY = re.compile(
    r"(?i)\b(?:unremarkable|healthy|no abnormalit(?:y|ies)|without (?:any )?findings|normal(?! (?:width|in width|calib"
    r"|signal|height|alignment|lordosis|conus|cord|marrow|vertebra|position|curvature|canal|spinal canal|foram|facet"
    r"|in signal|in height|in calib)))\b"
)
_SENTENCE = re.compile(r"[^.;]*[.;]\s*")


def _without_normality(text: str, keeps: str) -> str | None:
    """Leave out sentences that only call all normal, except their `opening` or `level`; None if one says more."""
    kept, position = "", 0
    for match in _SENTENCE.finditer(text):
        position = match.end()
        if not NORMALITY.search(match[0]):
            kept = _continued(kept, match[0])
            continue
        levels = _ANY_LEVEL.findall(match[0])
        opening = _OPENING.match(match[0])
        if report_facts(match[0]) or len(levels) > 1:
            return None
        if levels and keeps == "level":
            kept += f"{levels[0]} level. "
        elif levels:
            if opening is None or levels[0] not in opening[0]:
                return None
            kept += opening[0][: opening.end("level")]
    rest = text[position:]
    return None if NORMALITY.search(rest) else _continued(kept, rest)


def _continued(before: str, text: str) -> str:
    goes_on = before.rstrip().endswith((",", ":")) and not _PROPER.match(text)
    return f"{before}{text[:1].lower() + text[1:] if goes_on else text}"


def _without_normal_part(sentence: str, span: tuple[int, int]) -> tuple[str, tuple[int, int]]:
    """Turn "the contour is normal, without bulge or protrusion" into "no bulge or protrusion"."""
    match = _NORMAL_PART.search(sentence, 0, span[0])
    if match is None:
        return sentence, span
    shift = len("no") - len(match[0])
    return f"{sentence[: match.start()]}no{sentence[match.end() :]}", (span[0] + shift, span[1] + shift)


_NORMAL_PART = re.compile(
    r"(?i)(?:the )?(?:[a-z]+ ){0,3}(?:is|are) (?:normal|unremarkable|preserved), (?:without|with no)\b"
)
_ANY_LEVEL = re.compile(r"\b[LTD]\d{1,2}\s?[-/]\s?[LTSD]?\d{1,2}\b")

_DONE = (
    "compressed|narrowed|dehydrated|desiccated|hypertrophied|crowded|displaced|thickened|reduced|effaced|indented"
    "|deformed|encroached|impinged|obliterated|enlarged|stenosed|narrow|straightened|degenerated|seen|noted|present"
    "|visible|identified|found|detected|evident"
)
_ADVERB = "(?:minimally|mildly|slightly|moderately|severely|markedly)"
_ADVERBS = f"(?:{_ADVERB} )?"
_TRAILING_ADVERB = re.compile(r"(?i)\b(?:minimal|mild|slight|moderate|severe|marked)(?:ly)? $")
_IS_DONE = re.compile(rf"(?i)\b(?P<verb>is|are) {_ADVERBS}(?P<done>{_DONE})\b")
_IS_NOT_DONE = re.compile(rf"(?i)\b(?P<verb>is|are) not (?P<done>(?:significantly )?(?:{_DONE}))\b")
_DOES = re.compile(
    r"(?i)(?:(?<=the disc )|(?<=disc margin )|(?<=annulus ))(?P<verb>bulge|protrude)s"
    rf"(?: {_ADVERB})?(?: and symmetrically)?\b"
    r"|\b(?P<act>compresse|indent|abut|touche|narrow|contact|encroache|efface|displace|impinge)s"
    r"(?= (?:on |upon )?the\b)"
)
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
    if _acts(sentence[start:].partition(" ")[0]):
        cause = _TRAILING_ADVERB.sub("", sentence[:start])
        is_noun = cause.endswith(" with ")
        yield f"{cause.removesuffix('with ') + 'without' if is_noun else cause + 'not'} {sentence[start:]}"
    for match in _IS_DONE.finditer(sentence, max(0, start - 30), min(len(sentence), end + 30)):
        if match.start() <= end and match["done"].lower() not in _SEEN:
            yield f"{sentence[: match.start()]}{match['verb']} not {match['done']}{sentence[match.end() :]}"
    for match in _DOES.finditer(sentence, max(0, start - 2), min(len(sentence), end + 40)):
        verb = match["verb"] or re.sub("(?<=ss|ch)e$", "", match["act"])
        yield f"{sentence[: match.start()]}does not {verb}{sentence[match.end() :]}"
    noun = _start_of_noun(sentence, start)
    goes_on = _acts(sentence[end:]) or _GOES_ON.match(sentence[end:])
    if goes_on or not (opens := _BEFORE_DENIAL.search(sentence, 0, noun)):
        return  # "no bulge, compressing the sac"
    noun = opens.start("of") if opens["of"] else noun
    said = _bare(sentence[noun:end])
    if said:
        yield f"{sentence[:noun]}{'No' if noun == 0 else 'no'} {said}{sentence[end:]}"


def _acts(text: str) -> bool:
    """Whether something acts on a structure: "compressing the sac", also mistyped, but not "compression of the sac"."""
    words = (word for statement in read_statements(text) for word in statement)
    return any(word.role == "active" and word.lemma in ("compress", "indent", "touch") for word in words)


_GOES_ON = re.compile(
    r"(?i)[^.]*\b(?:press|caus|extend|migrat|result|lead|produc)(?:ing|s)\b|[^.]{0,40}\bwith\b| altered\b|[^.]*, more\b"
)
_BEFORE_DENIAL = re.compile(
    r"(?i)(?:^|[,:;.(] ?|\b(?:shows?|reveals?|demonstrates?|with|and|is|are|there) )"
    r"(?P<of>(?:features?|signs?|evidence) of )?$"
)
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
    named = re.sub(r"(?i)^(?:(?:any|significant|obvious|definite|frank|other) )+", "", sentence[noun:])
    if cue == "without":
        stated = f"with {_with_article(named)}"
    elif cue.startswith("no ") or cue == "absence of":
        yield f"{sentence[: denial.start()]}{denial['joint'] or ''}{there}{_with_article(named)}"
        stated = f"{there}{cue.removeprefix('no ').replace('absence', 'presence')} {named}"
    else:
        stated = there + _with_article(named)
    before = sentence[: denial.start()]
    if denial["joint"] and cue == "no" and denial["joint"] != ", ":
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
    "sac upper lower"
)
_WORD_BEFORE = re.compile(r"([A-Za-z1-5'-]+),?[ ]+$")
_GRADED = re.compile(r"(?i)\b(?:type|grade) (?:[1-5]|I{1,3}|IV|V)\b")


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
    words = _GRADED.sub(" ", re.sub(r"(?i)\b(upper|lower) and (upper|lower)\b", r"\1 or \2", noun)).split()
    kept: list[str] = []
    while len(words) > 1 and words[0].lower().strip(",") in _DESCRIBING | _NAMING:
        word = words.pop(0)
        kept += [word] if word.lower() in _NAMING else []
    text = " ".join([*kept, *words]).replace(" of both ", " of the ").replace(" and ", " or ")
    return text if _PROPER.match(text) else text[:1].lower() + text[1:]


_PROPER = re.compile(r"Modic|Modec|Schmorl|Pfirrmann|.[A-Z0-9]")


_COUNTABLE = re.compile(
    r"(?i)(?:(?!(?:a|an|the)\b)[a-z'-]+ ){0,4}?(?:bulge|protrusion|extrusion|tear|fissure|fracture|cyst|ha?emangioma"
    r"|slip|fragment|mass|lesion|node|defect|herniated disc(?! material))\b(?! (?:of the [a-z]+ )?(?:and|or)\b)"
)


def _with_article(noun: str) -> str:
    """Put an article before a countable noun that has none, but not before a list."""
    return with_article(noun) if _COUNTABLE.match(noun) else noun


_OPENING = re.compile(
    r"(?i)^(?P<level>(?:at |disc |level |findings at |axial section through )?(?:the )?"
    r"[LTD]\d{1,2}\s?[-/][LTSD]?\d{1,2}(?: disc level| disc| level)?(?::|,)\s*)?"
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
        cue = max(_CUE.finditer(sentence, 0, span[0]), key=re.Match.start, default=None)
        if cue is None or cue.end() < begin:
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
    if negated and any(map(_STRUCTURE_ALONE.search, others)):  # "no thecal sac or nerve root compression"
        return
    if not negated and any(_acts(one) or not report_facts(f"There is {one}.") for one in (item, *others)):
        return  # "protrusion at L4-5, compressing the sac"
    rest = listed(others, "or" if negated else "and")
    if not negated and items[0] == chosen[0] and begin == 0:
        rest = capital(rest)
    yield f"{sentence[:begin]}{rest}{sentence[finish:]}", item


_HALVES = word_set("upper lower left right central mild moderate severe")
_STRUCTURE_ALONE = re.compile(r"(?i)(?:\bsac|\broots?|\bcanals?|\bforam\w+|\brecess(?:es)?|\bcord)$")
_NOT_A_NOUN = re.compile(r"(?i)^(?:both|with|no|without|but|the disc|there)\b|\b(?:altered|is|are|not)\b|[:;]")


def capital(text: str) -> str:
    """Begin a text with a capital."""
    return text[:1].upper() + text[1:]
