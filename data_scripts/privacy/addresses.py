"""Find addresses in a report: mail, web, network, streets and towns, even where typing or layout split them.

Domain endings that are also words of reports (`.no`, `.is`, `.at`) count only where the rest leaves no doubt:
"canal.No stenosis", which lacks a space, keeps its denial.
"""

import re
from collections.abc import Iterator

from data_scripts.privacy.person_names import NOT_NAMES, Span
from data_scripts.reports.words import is_word_of_reports, known_forms

# Domain endings that no report uses as a word.
_GENERIC = "com|org|net|edu|gov"
_COUNTRIES = (
    "jo|de|ch|uk|fr|eu|nl|dk|se|fi|pl|cz|sk|hu|ro|bg|gr|ru|ua|ie|es|lu|il|sa|ae|qa|kw|bh|om|eg|lb|sy|iq|ir|pk|tn|ma|dz|au"
    "|nz|za|br|mx|ar|cl|jp|cn|kr|sg|hk|tw|th|vn|ng|ke|si|hr|rs|ba|ee|lv|cy|mt|ai|io"
)
_PRIVATE = "info|int|mil|biz|name|health|hospital|clinic|care|local|lan|intra|intranet|intern|internal|home|corp"
_ENDING = re.compile(rf"(?:{_GENERIC}|{_COUNTRIES}|{_PRIVATE})", re.IGNORECASE)
_LETTERS = re.compile(r"[^\W\d_]{2,24}")
_LABEL = r"[^\W_](?:[\w-]{0,62}[^\W_])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL}){{0,8}}")
_NUMBERED_HOST = re.compile(r"\[(?:\d{1,3}\.){3}\d{1,3}\]")
_DOT = r"(?:\s{0,2}\.\s{1,3}|\s{1,2}\.\s{0,3}|\s?[\[({]\s?(?:dot|punkt|point|\.)\s?[\])}]\s?|\s(?:dot|DOT|punkt)\s)"
# The rest of a host whose dots were typed as words, or next to spaces. A capital letter starts a sentence.
_SPLIT_ENDING = re.compile(
    rf"(?:{_DOT}|-\n)(?:(?:[^\W_A-Z][\w-]{{0,62}}|[A-Z\d-]{{2,30}})(?:{_DOT}|\.)){{0,3}}"
    rf"(?:{_GENERIC}|{_COUNTRIES}|{_GENERIC.upper()}|{_COUNTRIES.upper()})\b"
)
_PATH = re.compile(r"(?::\d{1,5})?(?:[/?#][^\s<>\"]*)?")
_AT = re.compile(
    r"(?<=[^\W_])[._+-]?(?:\s{0,3}(?:@|%40)\s{0,3}|\s?[\[({<]\s?(?:at|AT|ät|@)\s?[\])}>]\s?|[_-](?:at|AT)[_-])(?=\[?\w)"
    r"|(?<=[^\W_])(?P<word>\s(?:at|AT)\s)(?=[\w-]{1,63}(?:\.|\s\.|\s?[\[({]|\s(?:dot|DOT|punkt)\s))"
)
_LOCAL_BACKWARDS = re.compile(r"[\w.+%'’&=~-]+")
# A part of a name, before a dot next to a space.
_SPLIT_LOCAL = re.compile(r"(?<!\w)[^\W_][\w+-]{0,40}(?:\s?\.\s{1,2}|\s\.|\s(?:dot|punkt)\s|\s?[\[(]dot[\])]\s?)$")
_LEVEL = re.compile(r"[CDLST]?\d", re.IGNORECASE)
_OWNERS_OF_HOSTS = {"center", "clinic", "hospital", "radiology", "university"}
_MAX_LOCAL = 80  # characters; standards allow 64

_WEB = re.compile(
    rf"""
    \b[a-zA-Z][a-zA-Z\d+-]{{1,15}}://[^\s<>"]+
    | \b(?:https?|ftps?|www\d?)\b[\s:./-]{{1,5}}(?P<host>{_LABEL}(?:\.{_LABEL}){{0,8}})
    | \\\\[\w.$-]{{1,80}}(?:\\[^\s\\<>"|]{{1,80}}){{1,20}}                                 # \\server\share\file
    | \b[A-Za-z]:\\[^\s\\<>"|]{{1,80}}(?:\\[^\s\\<>"|]{{1,80}}){{0,20}}
    | (?<!\w)/(?:home|Users|mnt|media|data|srv|export)/[^\s<>"]+
    | (?<![\w.])(?:\d{{1,3}}\.){{3}}\d{{1,3}}(?=:\d|/)                                      # 10.0.0.1:8080
    | (?<![\w:.])(?=[\dA-Fa-f:]{{0,39}}(?:[A-Fa-f]|\d{{4}}))(?:[\dA-Fa-f]{{0,4}}:){{4,7}}[\dA-Fa-f]{{1,4}}(?![\w:])
    | (?<![\w@.-]){_LABEL}(?:\.{_LABEL}){{1,8}}(?![\w@])
    | (?<![\w.-])[a-z\d-]{{2,63}}\.\s(?:com|org|net|edu|gov)\b(?=[\s/.,;)]|$)
    """,
    re.VERBOSE,
)
# Every web address contains one of these, few reports do.
_SIGN_OF_WEB = re.compile(
    r"[^\W_]\.[^\W\d_]|://|\\\\|:\\|www|http|ftp|\d\.\d{1,3}\.\d{1,3}\.\d|:[\dA-Fa-f]{0,4}:|\.\s(?:com|org|net|edu|gov)\b"
    r"|/(?:home|Users|mnt|media|data|srv|export)/",
    re.IGNORECASE,
)
_STOPS = ".,;:!?)]}>'\""


def find_mail_addresses(text: str) -> Iterator[Span]:
    """Yield mail addresses: `a.b@klinik.de`, `a. b @ klinik. de`, `a.b[at]klinik.de`, `a.b at klinik dot de`.

    Example:
        >>> text = "Images: a.salem@uni-klinik.de, or ahmad. salem at clinic dot org. Bulge at L4."
        >>> [text[start:end] for start, end in find_mail_addresses(text)]
        ['a.salem@uni-klinik.de', 'ahmad. salem at clinic dot org']
    """
    position = 0
    for at in _AT.finditer(text):
        if at.start() < position:
            continue
        end, is_split, has_ending, is_known_ending = _end_of_host(text, at.end())
        if end < 0 or (at["word"] and not is_known_ending):
            continue
        is_split = is_split or at[0] != "@"
        start = _start_of_local(text, at.start(), earliest=position, is_split=is_split)
        if start == at.start() and at["word"]:
            continue  # "pain at klinik.de"
        host = text[at.end() : end].partition(".")[0]
        # "bulge @ L4.mild" is none, but "salem@klinik" is an address in a network.
        is_doubtful = not is_known_ending and (_LEVEL.match(host) or host.casefold() in known_forms())
        is_in_network = at[0] == "@" and start < at.start() and not any(map(_is_word, (host, text[start : at.start()])))
        if not is_doubtful and (has_ending or is_in_network):
            position = end
            yield start, end


def _is_word(text: str) -> bool:
    """Whether this may be a word of a report, a level or a number ("pain@rest", "bulge@L4")."""
    return text.casefold() in NOT_NAMES - _OWNERS_OF_HOSTS or len(text) < 2 or bool(_LEVEL.match(text))


def _end_of_host(text: str, start: int) -> tuple[int, bool, bool, bool]:
    """Return where a host ends (-1: none), and whether its dots were split, it has an ending, and a known one."""
    if bracketed := _NUMBERED_HOST.match(text, start):
        return bracketed.end(), False, True, True
    host = _HOST.match(text, start)
    if host is None:
        return -1, False, False, False
    whole = _without_sentence(host[0], text[host.end() : host.end() + 40])
    end = start + len(whole)
    if end == host.end() and (rest := _SPLIT_ENDING.match(text, end)):
        return rest.end(), True, True, True
    _, dot, ending = whole.rpartition(".")
    return end, False, bool(dot and _LETTERS.fullmatch(ending)), bool(dot and _ENDING.fullmatch(ending))


def _without_sentence(host: str, after: str) -> str:
    """Cut off what belongs to the next sentence: the `No` of `klinik.de.No stenosis`."""
    labels = host.split(".")
    while len(labels) > 1 and _begins_sentence(labels, after):
        after = f" {labels.pop()}{after}"
    return ".".join(labels)


def _begins_sentence(labels: list[str], after: str) -> bool:
    *_, before, last = labels
    if _ENDING.fullmatch(last) and not (last.istitle() and not before.istitle()):
        return False
    if last.istitle() and not before.istitle():
        return True
    following = re.match(r"\s+([^\W\d_]+)", after)
    return last.casefold() in known_forms() and (
        bool(_ENDING.fullmatch(before)) or bool(following and following[1].casefold() in known_forms())
    )


def _start_of_local(text: str, end: int, *, earliest: int, is_split: bool) -> int:
    """Return where the part before the at sign begins; `end` if it is only a word of reports."""
    backwards = text[max(earliest, end - _MAX_LOCAL) : end][::-1]
    found = _LOCAL_BACKWARDS.match(backwards)
    local = backwards[: found.end()][::-1].lstrip("._+%'’&=~-") if found else ""
    parts = local.split(".")
    while len(parts) > 1 and len(parts[0]) > 2 and parts[0].casefold() in known_forms():  # "stenosis.salem@klinik.de"
        parts.pop(0)
    if len(parts) == 1 and is_split and len(local) > 1 and local.casefold() in NOT_NAMES:
        return end  # "stenosis at klinik.de"
    start = end - len(".".join(parts))
    for _ in range(3 if len(parts[0]) and start == end - len(local) else 0):
        if not is_split and not text.endswith((".\n", ".\r\n"), 0, start):
            break
        begin = max(earliest, start - _MAX_LOCAL)
        part = _SPLIT_LOCAL.search(text[begin:start])
        if part is None:
            break
        word = re.split(r"[\s.\[(]", part[0], maxsplit=1)[0]
        if len(word) > 1 and _is_word(word):
            break
        start = begin + part.start()
    return start


def find_web_addresses(text: str) -> Iterator[Span]:
    r"""Yield web and network addresses, with or without a scheme, and file paths.

    Example:
        >>> text = r"See klinik.de/patient/8842, \\pacs\images\8842 and www. klinik. de. The sac.No stenosis"
        >>> [text[start:end] for start, end in find_web_addresses(text)]
        ['klinik.de/patient/8842', '\\\\pacs\\images\\8842', 'www. klinik. de']
    """
    position = 0
    for match in _WEB.finditer(text) if _SIGN_OF_WEB.search(text) else ():
        start, end = match.span()
        if start < position:
            continue
        found = match[0]
        if match["host"]:
            end = _end_of_path(text, _end_of_host(text, match.start("host"))[0])
        elif not re.search(r"[:/\\\s]", found):
            if not (end := _end_of_bare_host(text, start, found)):
                continue
        elif re.search(r"\.\s", found):
            if found.partition(".")[0].casefold() in NOT_NAMES - _OWNERS_OF_HOSTS:
                continue
            end = _end_of_path(text, end)
        while end > start and text[end - 1] in _STOPS:
            end -= 1
        position = end
        yield start, end


def _end_of_path(text: str, start: int) -> int:
    path = _PATH.match(text, start)
    return path.end() if path else start


def _end_of_bare_host(text: str, start: int, found: str) -> int:
    """Return where a host without a scheme, and its path, ends; 0 if it is no host."""
    if re.fullmatch(r"(?:\d{1,3}\.){3}\d{1,3}", found):
        return _end_of_path(text, start + len(found))
    host = _without_sentence(found, text[start + len(found) : start + len(found) + 40])
    labels = host.split(".")
    if len(labels) < 2 or len(labels[-2]) < 2 or not _LETTERS.fullmatch(labels[-1]):
        return 0
    end = start + len(host)
    path_end = _end_of_path(text, end)
    is_spelt_as_host = labels[-1].islower() or (labels[-1].isupper() and labels[-2].isupper())
    if not is_spelt_as_host:
        return 0
    has_path = path_end > end + 1 and any(char.isdigit() or char in "?=#_" for char in text[end:path_end])
    if _ENDING.fullmatch(labels[-1]):
        is_plain = len(labels) == 2 and not has_path and not re.fullmatch(_GENERIC, labels[-1], re.IGNORECASE)
        return 0 if is_plain and (_LEVEL.match(labels[0]) or is_word_of_reports(labels[0])) else path_end
    if labels[-1].casefold() in known_forms() and not has_path and (len(labels) < 3 or labels[-2] in known_forms()):
        return 0
    is_long = len(labels) > 2 and host.islower() and all(len(label) > 2 for label in labels[:-1])
    return path_end if len(labels[-1]) == 2 and (has_path or is_long) else 0


_NAME = r"(?:St\.[ ])?[^\W\d_a-z][\w'’-]{1,40}"
_TOWN = rf"{_NAME}(?:[ ](?:am|an[ ]der|im|in[ ]der|bei|a\.|sur|les|de|la|upon)[ ]{_NAME})?"
_STREET = re.compile(
    rf"""
    \b\d{{1,5}}[A-Za-z]?,?\s(?:[A-Z][\w'’-]+\s){{1,3}}(?:Street|STREET|St|Road|ROAD|Rd|Avenue|AVENUE|Ave|Lane|LANE|Drive
        |DRIVE|Boulevard|Blvd)\b\.?
    | \b\d{{1,5}}[A-Za-z]?,?\s(?P<name>(?:[A-Z][\w'’-]+\s){{1,3}})(?:Crescent|Terrace|Gardens|Grove|Mews|Close|Court
        |Square|Way|Highway|Parkway|Place)\b
    | \b\d{{1,5}}[a-z]?,?\s(?P<small>(?:[a-z][\w'’-]+\s){{1,2}})(?:street|road|avenue|lane|boulevard)\b
    | \b\d{{1,4}}(?:\s?(?:bis|ter))?,?\s(?i:rue|avenue|av\.|boulevard|bd\.?|place|chemin|impasse|allée|quai|route|cours
        |passage|faubourg)\s(?:(?:de|du|des|la|le|les|l['’]|d['’])\s?){{0,3}}{_NAME}(?:\s(?:de|du|des|la|le|et|{_NAME})){{0,3}}
    """,
    re.VERBOSE,
)
# Streets whose number follows. Each contains one of `_OF_STREET_FIRST`, few reports do.
_STREET_FIRST = re.compile(
    rf"""
    (?P<before>(?:\b{_NAME}[ ]){{0,2}})(?<!\w)[\w.-]{{0,30}}
        (?:[Ss]tr(?:\.|a(?:ss|ß)e)|gasse|[a-zäöü]{{3}}(?:weg|platz|ufer|damm)|allee|chaussee|promenade
        |\b{_NAME}[ ](?:Gasse|Weg|Platz|Allee|Damm|Ufer|Ring|Markt))
        (?:\sdes\s\d\d\.\s\w{{3,12}})?\s{{0,2}}\d{{1,4}}(?!\d|[.,]\d{{1,3}}(?!\d)|\s?[mc]m\b)(?:\s?[a-z]\b)?
    | \b(?:Via|Viale|Piazza|Corso|Largo|Calle|C/|Avenida|Avda\.?|Plaza|Paseo|Rua|Travessa)\s
        (?:(?:de|del|della|dei|delle|los|las|la|el|di|da|do|dos)\s){{0,3}}(?P<first>[^\W\d_a-z][^\W\d_]{{1,40}})
        (?:\s[^\W\d_][\w'’.-]{{1,40}}){{0,3}},?\s(?:n[°ºr]?\.?\s?)?\d{{1,4}}\b(?!\s?[mc]m\b|[.,]\d)
    """,
    re.VERBOSE,
)
_OF_STREET_FIRST = (
    *("str.", "strasse", "gasse", "weg", "platz", "allee", "damm", "ufer", "chaussee", "promenade", " ring", " markt"),
    *("via ", "viale ", "piazza", "corso ", "largo ", "calle ", "c/ ", "avenida", "avda", "plaza", "paseo", "rua "),
    "travessa",
)
_FOUR_DIGITS = re.compile(r"\d{4}")
_POSTCODE = re.compile(
    rf"""
    (?<![\w./=-])(?<!T[EIR][ ])(?:(?:D|F|I|E)[ -])?\d{{5}}[ ](?P<town>{_TOWN})
    | (?:(?<=,[ ])|(?<=\()|(?<=\n)|(?<=\bin[ ])|(?<=\baus[ ])|(?<=\A)|(?<=\bCH-)|(?<=\bA-))
        (?P<four>\d{{4}})[ ](?P<town4>[^\W\d_a-z][a-zà-ÿ]{{3,40}}(?:[ -]{_NAME})?)(?!\w)
    | \b(?:AL|AK|AZ|AR|CA|CO|CT|DE|FL|GA|HI|ID|IL|IN|IA|KS|KY|LA|ME|MD|MA|MI|MN|MS|MO|MT|NE|NV|NH|NJ|NM|NY|NC|ND|OH|OK
        |OR|PA|RI|SC|SD|TN|TX|UT|VT|VA|WA|WV|WI|WY)[ ]\d{{5}}(?:-\d{{4}})?\b
    """,
    re.VERBOSE,
)
_BRITISH_POSTCODE = re.compile(r"\b[A-PR-UWYZ][A-HK-Y]?\d[A-Z\d]?[ ]?\d[ABD-HJLNP-UW-Z]{2}\b")
_VERTEBRA = re.compile(r"[CLST]\d{1,2}(?: |\d[A-Z])")  # "L4 5RT" looks like a postcode
_TOWN_BEFORE = re.compile(r"([^\W\d_a-z][^\W\d_]{2,40}),?\s$")


def find_places(text: str) -> Iterator[Span]:
    """Yield streets with a number, and postcodes with their town.

    Example:
        >>> text = "Lives at Hauptstr. 12, 79106 Freiburg, or 10 Downing Street, SW1A 2AA. Seen via L4 approach 2"
        >>> [text[start:end] for start, end in find_places(text)]
        ['10 Downing Street', 'Hauptstr. 12', 'SW1A 2AA', '79106 Freiburg']
    """
    for match in _STREET.finditer(text):
        words = (match["name"] or match["small"] or "").casefold().split()
        if not words or not NOT_NAMES.issuperset(words):  # "3 Lumbar Way"
            yield match.span()
    lowered = text.casefold()
    if any(part in lowered for part in _OF_STREET_FIRST):
        for match in _STREET_FIRST.finditer(text):
            if not (match["first"] and match["first"].casefold() in NOT_NAMES):  # "Via Posterior approach 2"
                words = re.finditer(r"\S+ ", match["before"] or "")
                known = [word.end() for word in words if word[0].strip().casefold() in NOT_NAMES]  # "Bulge Hauptstr. 5"
                yield match.start() + (known[-1] if known else 0), match.end()
    for match in _BRITISH_POSTCODE.finditer(text):
        before = _TOWN_BEFORE.search(text[max(0, match.start() - 44) : match.start()])
        if not _VERTEBRA.match(match[0]) or (before and before[1].casefold() not in NOT_NAMES):
            yield match.span()
    for match in _POSTCODE.finditer(text) if _FOUR_DIGITS.search(text) else ():
        town = match["town"] or match["town4"]
        is_year = match["four"] and match["four"][:2] in ("19", "20")
        if not (town and re.split(r"[\W_]", town, maxsplit=1)[0].casefold() in NOT_NAMES) and not is_year:
            yield match.span()
