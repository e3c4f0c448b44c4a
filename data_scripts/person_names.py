"""Where a report names a person or an institution: after a title, after a label, before a degree.

A capital letter alone says nothing in reports (`Schmorl`, `Grade I`, `Diffuse`), so a name needs a cue beside it, and
it ends before the first word that reports use for something else.
"""

import re
from collections.abc import Iterator

Span = tuple[int, int]

# Words that begin or follow a sentence of a report, and so end a name. Lower case.
_WORDS_OF_REPORTS = """
a about abutting according acute additional adequate advice advised aera age aged also an and annular any are
arthritis as asked assessment associated at avanto axial back base bilateral body bone both broad bulge bulges
bulging by canal canon cc center central centre cervical changes clinic clinical clinically clinician comparison
compatible complain complaining complains complaint compressing compression conclusion consistent consultant
contrast cord coronal correlate correlation ct cyst date dated decreased degenerative dehydrated dehydration
department desiccated desiccation details diagnosis diffuse disc discs disease diseases disk dissicating doctor
dorsal dr due emergency endplate evidence exam examination examined exit exiting extending extruded extrusion
facet family feature features female few findings focal follow for foramen foramina foraminal fracture from ge
general gp grade has have he hemangioma her hernia herniated herniation his history hitachi hospital hypertrophy
if image images imaging imp impression in indenting indication internal is it known l large lateral left less
level levels ligamentum location loss low lower lss lt lumbar lumbosacral m male marked marrow mass md medical
medicine mild mildly minimal moderate modic more mr mri mrs ms multilevel multiple muscle my name narrowed
narrowing nb nerve neural neuro neurological neurology neurosurgeon neurosurgery new no node nodes normal not
note noted notes noticed obvious of office old on or orthopaedic orthopaedics orthopedic orthopedics osteophyte
other our out outpatient pain paracentral paramedian part partial patient patients pelvic philips phone
physician physio physiotherapy please post posterior preserved previous prior private procedure prof protocol
protruded protrusion pt radiologist radiology ray re reason recommend recommended referral referred referring
regarding relation report reported reporting request requested rheumatology right root roots rt sac sacral
sagittal said scan scoliosis seen sequence sequences series severe sex she short shows siemens signal signed
significant sir skyra slight small spasm spinal spine spondylolisthesis stenosis straightening studies study
suggested surgeon surgery surgical t tear technique technologist tel tesla the thecal there they this thoracic
time to today tomorrow toshiba type unit university unremarkable urgent us venous vertebra vertebrae vertebral
ward was we were which who whole wide wise with without x xray year years yesterday
"""
_NOT_NAMES = frozenset(_WORDS_OF_REPORTS.split())
_PARTICLE_WORDS = "al el abu abd abdel ben bin bint ibn da de del della der di du la le ten ter ul van von"
_PARTICLES = frozenset(_PARTICLE_WORDS.split())

_TITLE = re.compile(
    r"\b(?P<cue>Dr|DR|dr|Drs|Doctor|DOCTOR|doctor|Prof|PROF|prof|Professor|Mr|mr|MR|Mrs|MRS|mrs|Ms|Miss|Sheikh|Hajj)\b"
    r"(?P<stop>\.?)[ \t]*"
)
_LABEL_OF_NAME = re.compile(
    r"\b(?:(?:patient|pt|client|mother|father|husband|wife|doctor|physician|radiologist)(?:['’]?s)?\.?\s+)?"
    r"(?:full\s*|first\s*|last\s*|family\s*|middle\s*|sur)?names?(?:\s+of\s+(?:the\s+)?patient)?"
    r"\s*(?:[:=]|\bis\b|\s-\s)\s*",
    re.IGNORECASE,
)
_DONE_BY = re.compile(
    r"\b(?:referred|requested|ordered|reported|dictated|signed|verified|approved|reviewed|interpreted|transcribed|typed"
    r"|read|seen|examined|performed|prepared|authori[sz]ed|entered|checked|attested|finali[sz]ed|supervised|validated)"
    r"\s+by\b\s*:?\s*",
    re.IGNORECASE,
)
_ROLE = re.compile(
    r"\b(?:radiologist|consultant|physician|surgeon|resident|registrar|fellow|technician|technologist|operator|attending"
    r"|clinician|doctor|reporter|referrer|referring\s\w+|patient|pt|signature|signed|attn|attention|sincerely|regards)"
    r"\s*[:,]\s*",
    re.IGNORECASE,
)
_PATIENT_OR_SUBJECT = re.compile(r"\b(?:[Pp]atient|PATIENT|[Rr]e:|RE:)[ \t]+")
_DEGREE = re.compile(
    r"(?<![\w'’-])(?P<name>(?:[^\W\d_][\w'’-]{0,40}\.?[ \t]{1,3}){0,4}[^\W\d_][\w'’-]{0,40}),?[ \t]{1,3}"
    r"(?:M\.?D\b\.?|M\.?B\.?B\.?S\b|F\.?R\.?C\.?[RSP]\b|Ph\.?D\b|MBChB\b|D\.O\.|MRCP\b|MSc\b)"
)
_INSTITUTION = re.compile(
    r"(?<![\w'’-])(?P<name>(?:[A-Z][\w'’-]{0,40}[ \t]{1,3}(?:(?:of|and|for)[ \t]{1,3})?){1,5})"
    r"(?:Hospital|Infirmary|Clinics?|University"
    r"|(?:Medical|Imaging|Diagnostic|Radiology|Health|Spine|Scan)[ \t]+Cent(?:er|re))\b"
)
_WORD = re.compile(r"[^\W\d_](?:[^\W\d_]|['’-](?=[^\W\d_]))*")
_ABBREVIATED = frozenset({"mohd", "moh", "md", "abd", "st", "jr"})
_MAX_WORDS = 5


def find_names(text: str) -> Iterator[Span]:
    """Yield where a person is named, the most certain first; passages may overlap.

    Example:
        >>> text = "Referred by Dr. Ahmad al-Salem for MR lumbar spine: Schmorl nodes, Modic type 2."
        >>> [text[start:end] for start, end in find_names(text)]
        ['Ahmad al-Salem']
    """
    for match in _TITLE.finditer(text):
        # MR is magnetic resonance first: without a full stop it takes a name and a family name.
        fewest = 2 if match["cue"] == "MR" and not match["stop"] else 1
        yield from _name_at(text, match.end(), fewest=fewest, lower_case=match["cue"].casefold() != "doctor")
    for match in _LABEL_OF_NAME.finditer(text):
        yield from _name_at(text, match.end(), lower_case=True, commas=True)
    for cue in (_DONE_BY, _ROLE):
        for match in cue.finditer(text):
            yield from _name_at(text, match.end())
    for match in _PATIENT_OR_SUBJECT.finditer(text):
        yield from _name_at(text, match.end(), fewest=2)
    for match in _DEGREE.finditer(text):
        start = _last_known_word_end(match["name"])
        if start < len(match["name"]) and not match["name"][start].islower():
            yield match.start("name") + start, match.end("name")


def find_institutions(text: str) -> Iterator[Span]:
    """Yield where a hospital, clinic or university is named; `Orthopaedic Clinic` names none.

    Example:
        >>> text = "MRI of King Hussein Hospital, referred from Orthopaedic Clinic"
        >>> [text[start:end] for start, end in find_institutions(text)]
        ['King Hussein Hospital']
    """
    for match in _INSTITUTION.finditer(text):
        words = list(_WORD.finditer(match["name"]))
        first = next((word for word in words if word[0].casefold() not in _NOT_NAMES), None)
        if first:
            yield match.start() + first.start(), match.end()


def _name_at(
    text: str, start: int, *, fewest: int = 1, lower_case: bool = False, commas: bool = False
) -> Iterator[Span]:
    """Yield the name that begins at a position, if one does.

    Args:
        text: The report.
        start: Where the cue ends.
        fewest: Words that make a name.
        lower_case: Whether the name may be typed in small letters; then two words at most, the second only where
            nothing but the end of a clause or a function word follows, lest a finding is taken.
        commas: Whether a comma may part family name and name.
    """
    words: list[re.Match[str]] = []
    position = start
    while len(words) < _MAX_WORDS and (word := _WORD.match(text, position)):
        if not _continues_name(word, words, text, lower_case):
            break
        words.append(word)
        position = _next_word(text, word, commas)
        if position < 0:
            break
    while words and words[-1][0] in _PARTICLES:  # "Dr. Salem de"
        words.pop()
    if len(words) >= fewest and any(len(word[0]) > 1 for word in words):
        end = words[-1].end()
        yield start, end


def _continues_name(word: re.Match[str], words: list[re.Match[str]], text: str, lower_case: bool) -> bool:
    is_initial = len(word[0]) == 1 and text[word.end() : word.end() + 1] == "."
    if word[0].casefold() in _NOT_NAMES and not (is_initial and word[0].isupper()):
        return False
    if not word[0][0].islower():  # a capital, or a script without case
        return True
    if word[0] in _PARTICLES or word[0].partition("-")[0] in _PARTICLES:
        return True
    if not lower_case or len(words) > 1 or (words and not words[0][0][0].islower()):
        return False
    if not words:
        return True
    following = _WORD.match(text, word.end() + 1)
    return following is None or following[0] in _NOT_NAMES or not text[word.end()].isspace()


def _next_word(text: str, word: re.Match[str], commas: bool) -> int:
    """Where the next word of the name may begin; -1 where punctuation or a new line ends it."""
    abbreviated = len(word[0]) == 1 or word[0].casefold() in _ABBREVIATED
    pattern = r"[ \t^]+" + (r"|\.[ \t]*" if abbreviated else "") + (r"|,[ \t]*(?=[^\W\d_a-z])" if commas else "")
    gap = re.compile(pattern).match(text, word.end())
    return gap.end() if gap else -1


def _last_known_word_end(text: str) -> int:
    """Where the name begins: after the last word that is none."""
    known = [word.end() for word in _WORD.finditer(text) if len(word[0]) > 1 and word[0].casefold() in _NOT_NAMES]
    rest = _WORD.search(text, known[-1]) if known else _WORD.search(text)
    return rest.start() if rest else len(text)
