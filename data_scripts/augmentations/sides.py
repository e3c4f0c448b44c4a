"""Exchange the sides of a text for a mirrored image, where every word that may tell a side is understood.

A word that may or may not be a side ("Leftt", "has left", "right angle", "cyst R", "at 7 o'clock") would no longer fit
the mirrored pixels, so such a text is not exchanged at all.
"""

import re

from rapidfuzz.distance import OSA

from data_scripts.reports.language import seems_english
from data_scripts.reports.lexicon import word_set
from data_scripts.reports.text import exchange_sides, has_unclear_side

# Curves and turns to a side: "levoscoliosis", "dextro-convex"; not "levothyroxine".
_CURVE = re.compile(
    r"(?<![^\W\d_])(?P<side>l(?:a?e)vo|dextro)(?=[ -]?(?:k[yi]pho|roto)?-?(?:scolio|curv|conve[xd]|concav|rotat"
    r"|position|tors|tilt|deviat|list(?:hes)?|apex|lumbar|thorac))",
    re.IGNORECASE,
)
_OTHER_CURVE = {"levo": "dextro", "laevo": "dextro", "dextro": "levo"}
_CURVE_WORD = re.compile(r"(?<![^\W\d_])(?:la?evo|dextr|sinistr)", re.IGNORECASE)

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
# Words of sides as `exchange_sides` reads them, in one piece or before "sided".
_SIDE_WORDS = word_set("left leftward leftwards lt lft l't right rightward rightwards rt rght r't")
_SIDED = re.compile(r"(?:left|right|lt|rt)(?:sided?|most)")
# Words that contain or resemble one, and are none.
_OTHER_WORDS = word_set(
    """bright brighter brightly brightness upright cleft clefts lift lifts lifted lifting loft let lets lent lest less
    leg legs felt deft heft weft light lights lighter fight might night nights sight tight tighter eight height heights
    weight weights weighted rigid rigidity fright eighth slight slightly girth lit list lists lost last rift reft raft
    rest rot rut art rat"""
)
_SIDES = ("left", "right")
_UNCLEAR = re.compile(
    r"""
    \b(?:has|have|had|was|were|been|be|being|get|gets|got|just|nothing|anything|little|none|pain)\ left
        (?!\W*(?:\S+\W+)?(?:side|sided|para|post|fora|facet|lat|exit|nerve|neural|root|l\d|s1|disc|disk|bulg|protru
        |extru|hernia|sub|extra|recess|hemi|ilia|sacro|psoas|kidney|ren|leg|lower|sci|rad))
    | \bleft(?:-|\ )(?:out|over|behind|off|alone|untreated|unchanged|untouched|open|in\ (?:place|situ)|as|us|him|her
        |them|it|the\ (?:hospital|clinic|ward|room|scanner|country)|against|to\ (?:heal|chance)|intact)\b
    | \b(?:left|right)\W{0,2}hand(?:ed|er|ers|edness|\ domin\w*)\b
    | \b(?:all|just|in\ its\ own|quite|that['’]s|is\ it|not)\ right\b(?!\W*(?:side|sided|para|post|fora|facet|lat))
    | \bright(?:-|\ )?(?:angl\w*|away|now|there|here|then|triangle|diagnosis|patient|level|time|way|order|size
        |direction)\b
    | (?<!the\ )(?<!and\ )(?<!to\ )(?<!on\ )\bright\ (?:after|before|above|below|behind|beside|next|up|through|on|at|in
        |across|along)\b
    | \b(?:post|prior|after|previous)\W{1,2}(?-i:RT)\b | \b(?-i:RT)\ (?:field|dose|plan|change|therap)  # radiotherapy
    | \b(?:[LR]HS|[LR][UL][QEL]|[LR][ML]L|[LR][AP]O|[LR]CC|[LR]MLO)\b                                # LHS, RLE, RLQ
    | (?<![\w.'’])(?-i:l)(?![\w'’]|[./\s-]{0,2}(?:s(?![a-rt-z])|spine|spinal|\d)) | (?<![\w.'’])(?-i:r)(?![\w'’])
    | \d\s?(?-i:[LR])(?![\w/\\-])(?!\s?\d) | \b[LR]['’]?sided?\b                                    # L4L, Rsided
    | \bo['’]?\s?clock | clockwise | \b(?:east|west)(?:ward|ern)?s?\b
    | \b(?:sin|dext?|dx|sx|sn)\b\.?                                                                 # Latin
    # abbreviations and words of other languages that resemble English ones: German, Spanish, French, Turkish, Swedish
    | \b(?:li|lks|re|rts|izq(?:d[ao]?)?|dch[ao]?|dcho|der|dr(?=\.?$)|esq|dir|gche?|dte|sol|sağ|hö|lewostr|prawostr
        |jobb|bal|vas|oik)
        \b(?!-)
    | \b(?:sinist|dexter|dextra|levostran|pravostran|lijevo|desno)\w*
    | \b(?:port|near|far|same|starboard)\W?side\b | \b(?:starboard|larboard|rite|reft)\b
    | [\u2190\u2192\u21D0\u21D2\u27F5\u27F6\u25C0\u25B6\u2B05\u27A1]                                      # arrows
    """,
    re.VERBOSE | re.IGNORECASE,
)


# These tell a side by one that is named; without one, by a side that only the pixels or another text knows.
_RELATIVE = re.compile(r"\b(?:ipsi|contra)-?lateral(?:ly)?\b|\b(?:opposite|other|same|affected) side\b", re.IGNORECASE)


def exchange_all_sides(text: str) -> str | None:
    """Exchange left and right, also in curves; None if a word that may tell a side is not understood.

    Twice restores the text.

    Example:
        >>> exchange_all_sides("Levoscoliosis, Rt foraminal stenosis"), exchange_all_sides("Leftt foraminal stenosis")
        ('Dextroscoliosis, Lt foraminal stenosis', None)
    """
    curves = list(_CURVE.finditer(text))
    rest = _with_signs(text, curves)
    if not seems_english(text) or has_unclear_side(text) or _is_unclear(rest):
        return None
    exchanged = exchange_sides(rest)
    for number, match in enumerate(curves):
        exchanged = exchanged.replace(chr(_FIRST_SIGN + number), _in_case_of(match["side"]))
    return exchanged


_FIRST_SIGN = 0xE000  # private characters, which no text has, hold the places of the curves


def _with_signs(text: str, matches: list[re.Match[str]]) -> str:
    for number, match in reversed(list(enumerate(matches))):
        text = text[: match.start()] + chr(_FIRST_SIGN + number) + text[match.end() :]
    return text


def _in_case_of(side: str) -> str:
    other = _OTHER_CURVE[side.casefold()]
    return other.upper() if side.isupper() else other.capitalize() if side[0].isupper() else other


def _is_unclear(text: str) -> bool:
    patterns = (_UNCLEAR, _CURVE_WORD)
    words = _WORD.findall(text)
    if _RELATIVE.search(text) and _SIDE_WORDS.isdisjoint(map(str.casefold, words)):
        return True
    return any(pattern.search(text) for pattern in patterns) or any(map(_may_be_side, words))


def _may_be_side(word: str) -> bool:
    """Whether a word is made of a word of sides, or resembles one, and was not understood."""
    word = word.casefold()
    if word in _SIDE_WORDS or word in _OTHER_WORDS or _SIDED.fullmatch(word):
        return False
    return any(side in word or (3 <= len(word) <= 8 and _resembles(word, side)) for side in _SIDES)


def _resembles(word: str, side: str) -> bool:
    allowed = 2 if len(word) > 4 and word[0] == side[0] else 1
    return OSA.distance(word, side, score_cutoff=allowed) <= allowed
