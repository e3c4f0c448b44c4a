"""Find where a report names a person or an institution: after a title, after a label, before a degree.

A capital letter alone means nothing in reports (`Schmorl`, `Grade I`, `Diffuse`), so a name needs a cue next to it, and
it ends before the first word that reports use for something else.
"""

import re
from collections.abc import Collection, Iterator
from itertools import chain

from data_scripts.reports.lexicon import word_set
from data_scripts.reports.words import is_word_of_reports, known_forms

Span = tuple[int, int]

# Words of reports end a name; these are the ones that the lexicon lacks. Lower case.
_OTHER_WORDS_OF_REPORTS = word_set("""
abdomen abdominal according acute additional advice aera age aged anaemia anemia angle ankle appearances arm as asked
assessment asthma avanto back backache base brain breast burning by cancer canon cc center chest claudication clinic
clinical clinically clinician coccyx complain complaining complains complaint conclusion conditional consistent
consultant coronal correlation ct date dated department details diabetic diagnosis diffusion disease diseases
disturbance dixon doctor dr elbow emergency epileptic erector etc exam examination examined family female few foot
gait ge gluteus gp hand has have he head heart her hernia hip his history hitachi hospital hyperintense hypertensive
hypointense hypothyroid if iliacus iliopsoas image images imaging imp incidental incontinence indication internal it
knee known kyphosis l leg limb liver location lower lss lumbago m male matrix md medicine meningeal mr mri mrs ms
multifidus my name nb neuro neurological neurology neurosurgeon neurosurgery new noticed numbness obese office
operated orbit orthopaedic orthopaedics orthopedic orthopedics our outpatient pain perfusion philips phone physician
physio physiotherapy piriformis please post pregnant private procedure prof prostate protocol psoas pt quadratus
radiculopathy radiologist radiology ray re reason recommend recommended referral referred referring regarding reported
reporting request requested rheumatoid rheumatology sacrum safe sagittal said sciatic sciatica sclerosis sensory
sequence sequences series sex she short shoulder showed siemens signed sir skyra smoker sphincter studies study
suggested swelling syrinx t technique technologist tel tesla they thigh this thoracic time tingling today tomorrow
toshiba trapezius trauma traumatic unit university urgent us venous ward we weakness which who whole wise wrist x xray
year years yesterday
""")
PARTICLES = word_set(
    "al el abu abd abdel ben bin bint ibn da das de degli del della den der di dos du e la le lo ten ter ul van vom von"
    " y zu zum zur"
)
EPONYMS = word_set(
    """andersson baastrup baker bertolotti castellvi charcot cobb ferguson forestier hodgkin meyerding paget pott
    romanus scheuermann tarlov"""
)
# An eponym is a name unless what is named after it follows: "Dr. Baker", but "Baker cyst".
NOT_NAMES = _OTHER_WORDS_OF_REPORTS.union(known_forms()) - PARTICLES - EPONYMS
# Endings of diseases, operations and examinations.
MEDICAL_ENDING = re.compile(
    r"\w{2,}(?:itis|osis|oses|esis|lysis|pathy|pathies|ectomy|ectomies|otomy|algia|plegia|phytes?|graphy|scopy"
    r"|grams?|osteal|listhesis|otensive|itic)|\w{4,}omas?"
)
# What patients and doctors are and do: in lower case, these words after "patient" or "Dr" begin no name. With a capital
# they may (Young, Will).
ORDINARY_WORDS = word_set("""
able admits admitted after again agreed agrees alert allergic already always anxious anymore arrived asks attended
autistic available awake aware bedridden before began bends between bound breathing brought called calls came can cared
carries child chose claims claustrophobic comes comfortable comment compliant confidential confused consent consented
consents continues cooperative could couldn cover cried data declined declines degraded demographics describes
developed did didn died discharged discontinued discussed does doesn doing drowsy during ect elderly ended endorses
ever every exercises expired factors failed fasting feels fell felt file first flow gave gets gives goes got group
groups habitus had happy hasn haven here ids info information informed informs infused injured intubated isn items just
keeps kept knows last later lay lies lifted list lives lost lying made make makes manages many may mentions middle
might missed monitoring motion moved movement movements moves moving must near needed needs next non notified now obeys
once onto opted orders outcomes over own paced perhaps positioning postop prefers preop prepared presenting prone put
quite ran ready really received record recovered redacted refused refuses remained remains removed reports requests
required requires responded responds restless returned returns review run safety sat satisfaction says see seems sent
set setup shook should si sits sleeps slept slipped smokes some soon stable stands started stated states stayed steady
stood stopped stops such suddenly suffered suffers supine takes that their them then thinks throughout thus till told
tolerated too took transfer transferred tried tries turned twice unable unaware uncooperative under underwent unknown
unless unstable until unwell uses usually verified very via visited waited walk walks wants wasn weak wears weighed
weighs went weren wheelchair when whether will wished wishes withheld woke won works worried worse would wouldn young
""")
# Endings of verbs and adjectives; names end otherwise ("Ahmed", "Kelly", "King", "Clement").
ORDINARY_ENDING = re.compile(
    r"\w{4,}(?:ing|ive|ous|able|ible|ful|less|ness|tions?|ment|ance|ence|ities|ically|ally|ently|antly|edly)"
    r"|\w{2,}(?:at|in|on|is|iz|ct|nt|rm|ss|rr|ov|uc|tt|rt|pp|uir|os|ain|or)ed"
)
# Words above that are family names after "Dr.".
ALSO_NAMES = word_set(
    """said ward ray small short low root back cord base bone post large wise white free parent marker chance mass sack
    place face new old can"""
)
FUNCTION_WORDS = word_set(
    "a about an and as at because by for from has he his in is of on or regarding she the to was who with"
)

_NAMED_AFTER = re.compile(
    r"(?:['’]s)?[ \t]+(?:type|grade|cysts?|nodes?|disease|lesions?|angle|changes?|syndrome|lymphoma|classification"
    r"|spine|joint)\b",
    re.IGNORECASE,
)

# "Dr/ Salem" and "Dr - Salem" are written, too; "MR - lumbar spine" names no one.
_DEGREES = (
    r"(?:(?:[Mm]ed|habil|univ|rer|nat|phil|dent|h\.[ \t]?c|Dr|Prof|Dott|Öğr|Doç|Uzm|Op)\.[ \t]*"
    r"|(?:Üyesi|Gör|Görevlisi)\b\.?[ \t]*){0,5}"
)
_TITLE = re.compile(
    r"\b(?:(?P<cue>Dra?|DRA?|dra?|[Dd]rs|Doctora?|DOCTORA?|doctora?|Prof|PROF|prof|Professor|Dres|Priv\.-Doz"
    r"|(?:Dipl\.?-?[ \t]?)(?:Med|Ing|Psych))\b(?:\.?(?:ssa|SSA|ª|in)\b|\(a\))?\.?[ \t]*(?P<sign>[:/–-][ \t]*)?"
    r"|(?P<other>Mr|mr|MR|Mrs|MRS|mrs|Ms|Miss|Master|Sheikh|Hajj|Nurse|NURSE|Smt|SMT|Shri|Shrimati|Kumari)\b\.?[ \t]*)"
    + _DEGREES
)
# Some are abbreviations of other words, too: "M. psoas", "Fr. L1".
_FOREIGN_TITLE = re.compile(
    r"(?<![\w.])(?:Herrn?|HERRN?|Frau|FRAU|Mme|MME|Mlle|MLLE|Monsieur|MONSIEUR|Madame|MADAME|Mademoiselle"
    r"|Signora?|Se[ñn]ora?"
    r"|Sra|SRA|Srta|SRTA|Senhora?|Dott|DOTT|Dottoressa|Docteur|Doutora?|Doktor(?:in)?|MUDr|Do[ñn]a?|Mevr|Mevrouw|Dhr|Sayın"
    r"|Frøken|Fru|Pani?(?=[ \t])|Bay(?:an)?|Uzm|Doç|Doc|Lic|Licda|Ing|Dña|(?:lek|LEK)\.?[ \t](?=med)"
    r"|Hrn?|(?:Ober|Chef|Assistenz)(?:arzt|ärztin)|(?:mevr|dhr|mme|sig)(?=\.)"
    r"|(?:M|Fr|FR|Sig|Sr|PD|OA|OÄ|Pr|Sn|Bn|BN|lek)(?=\.|[ \t]+Dr\b))\b"
    r"(?:\.?(?:ssa|SSA|ra|na|ª)\b)?\.?[ \t]*" + _DEGREES
)
_WORD_FOR_NAME = (
    r"(?:full\s*|first\s*|last\s*|family\s*|middle\s*|sur|vor|nach|familien|patienten)?names?|pr[ée]noms?|noms?(?:\sde\sfamille)?"
    r"|nombres?|apellidos?|cognome|(?:sobre)?nome|(?:voor|achter)?naam|(?:soy)?ad[ıi]|ad\ssoyad|imi[ęe]|nazwisko|jm[ée]no"
    r"|nume(?:le)?|prenume|név|vezetéknév|keresztnév|(?:för|efter|for|etter)?na[mv]n|ime|prezime|příjmení|(?:suku|etu)?nimi"
    r"|nama|họ(?:\s(?:và\s)?tên)?|tên|ชื่อ|नाम|שם|ф\.\s?и\.\s?о\.?|ім['’]я|прізвище|患者(?:氏名|姓名|名)|환자\s?(?:명|이름)"
    r"|имя|фамилия|фио|ονοματεπώνυμο|όνομα|姓名|氏名|名前|이름|성명|(?:ال)?اسم"
)
_FOREIGN_WORD_FOR_PATIENT = (
    r"patientin|pati[ëe]nte|patiënt|pa[cz]iente|utente|doente|pacjent(?:ka|a)?|pacient(?:ka|a|ul)?|pacijent(?:ica)?|bolesnik"
    r"|beteg|potilas|pasient(?:en)?|pasien|hasta|bệnh nhân|пац[иі][еє]нт(?:ка)?|больной|хворий|ασθενής"
    r"|患者|환자|(?:ال)?مريضة?|מטופלת?|חולה|रोगी|मरीज|ผู้ป่วย"
)
_WORD_FOR_PATIENT = (
    r"pati[eë]nt(?:in|e|en|ens|/in|\(in\))?|client"
    rf"|{_FOREIGN_WORD_FOR_PATIENT}"
)
_LABEL_OF_NAME = re.compile(
    r"\b(?:(?:pt|mother|father|husband|wife|doctor|physician|radiologist"
    rf"|{_WORD_FOR_PATIENT})(?:['’]?s)?\.?\s+)?(?:{_WORD_FOR_NAME})(?:\s+(?:et|y|e|i|und|en|/|and)\s+(?:{_WORD_FOR_NAME}))?"
    r"(?:\s+(?:of\s(?:the\s)?|du\s|de\s(?:la\s)?|del(?:la)?\s|d[oae]\s|des\s|der\s|van\sde\s)?"
    rf"(?:{_WORD_FOR_PATIENT}))?\s*(?:[:=]|\bis\b|\s-\s)\s*",
    re.IGNORECASE,
)
_LABEL_OF_PATIENT = re.compile(rf"(?<!\w)(?:{_WORD_FOR_PATIENT}|pte?|pat|bn)(?!\w)\.?\s*:\s*", re.IGNORECASE)
# Without a colon or with a dash two words make a name; "patient" alone is English, too.
_PATIENT_THEN_NAME = re.compile(
    rf"(?<!\w)(?:(?P<foreign>{_FOREIGN_WORD_FOR_PATIENT})[ \t]+(?:-[ \t]+)?|(?:patient|pt)[ \t]+[-–][ \t]+)",
    re.IGNORECASE,
)
# Child or wife of: "S/O Mohan Lal", "Baby of Anita"; "s/o" is "suggestive of", too.
_RELATIVE = re.compile(r"(?<![\w/])(?:[SDWCsdwc]/[Oo]\b\.?|(?P<baby>(?:[Bb]aby|B)[ \t]?(?:/[Oo]|of)))[ \t]*:?[ \t]+")
_PERSON_NAME_OF_DICOM = re.compile(r"(?<![\w^])[^\W\d_]{2,30}\^[^\W\d_]{2,30}(?:\^[^\W\d_]{1,30}){0,3}")
_PATIENT_NAME = re.compile(r"\b(?:patient|pt)(?:['’]?s)?\.?[ \t]+name[ \t]+", re.IGNORECASE)
_DONE_BY = re.compile(
    r"\b(?:(?:referred|ref(?:'d)?\.?|requested|ordered|reported|dictated|signed|verified|approved|reviewed|interpreted"
    r"|transcribed|typed"
    r"|read|seen|examined|performed|prepared|authori[sz]ed|entered|checked|attested|finali[sz]ed|supervised|validated|written"
    r"|edited|released|co-?signed)(?:\s+(?:electronically|digitally))?\s+by"
    r"|(?:discussed|reviewed|correlated)\s+with|(?:communicated|conveyed|phoned|reported)\s+to"
    r"|(?:befundet|diktiert|geschrieben|unterschrieben|unterzeichnet|freigegeben|validiert|vidiert|erstellt|untersucht"
    r"|[üu]berwiesen|zugewiesen|gesehen|gelesen|angefordert|signiert)\s+(?:von|durch)|gez\b\.?|sgd\b\.?"
    r"|(?:dict[ée]e?|lue?|valid[ée]e?|sign[ée]e?|r[ée]dig[ée]e?|adress[ée]e?|interpr[ée]t[ée]e?)\s+par"
    r"|(?:firmado|informado|dictado|validado|assinado|laudado|realizado)\s+por|(?:refertato|dettato|firmato)\s+da"
    r"|report\s+by|(?:informe|laudo|rapport|compte[ -]rendu)\s+d(?:e(?:l|\s+la)?|u)|referto\s+d(?:i|el|ella)"
    r"|(?:befund|bericht|arztbrief)\s+(?:von|der|des)|verslag\s+van|fdo)\b\.?\s*:?\s*(?:[a-z]{2,4}/)?"
    r"|(?<!\w)/s/\s*",
    re.IGNORECASE,
)
_ROLE = re.compile(
    r"\b(?:next of kin|husband|wife|spouse|mother|father|guardian|carer|contact|tech|nurse|typist|dictated"
    r"|radiologist|consultant|physician|surgeon|resident|registrar|fellow|technician|technologist|operator|attending"
    r"|clinician|doctor|reporter|referrer|referring\s\w+|patientin|patient|pt|asistente|firmado|firmato|sign[ée]e?"
    r"|unterschrift|fdo\.?|signature|signed|attn|attention|sincerely|regards|befunder(?:in)?|zuweiser(?:in)?"
    r"|einsender(?:in)?|[üu]berweiser(?:in)?|hausarzt|m[ée]decin|radiologue|radi[oó]logo|m[ée]dico|radiologe|radiologin|arzt"
    r"|[äa]rztin|gr(?:[üu](?:ss|ß)en?)|radioloo?g|radyolog|lekarz|läkare|læge|lege|orvos|lääkäri|dokter|doktor|врач|лікар"
    r"|医師|의사)(?:\s*[:,]\s*|\s+[-–]\s+)|(?<![\d\w.])(?<!\d[ ])c\.?c\.?\s*:\s*",
    re.IGNORECASE,
)
_PATIENT_OR_SUBJECT = re.compile(
    r"\b(?:[Pp]atient|PATIENT|[Pp]t\.?|PT\.?|Pat\.|PAT\.|[Rr]e:|RE:|[Ss]ubject:|SUBJECT:)[ \t]+"
)
_PAT = re.compile(r"(?<!\w)Pat\.[ \t]+(?=[^\W\d_a-z][\w'’-]{1,30},?[ \t]+(?:geb|\d|\())")  # "Pat. Schmidt, geb. 1960"
_PATIENT = re.compile(r"\b(?:[Pp]atient|PATIENT|[Pp]t|PT)\b\.?(?P<colon>[ \t]*:)?[ \t]+")
_DEGREE = re.compile(
    r"(?<![\w'’-])(?P<name>(?:[^\W\d_][\w'’-]{0,40}\.?[ \t]{1,3}){0,4}[^\W\d_][\w'’-]{0,40}),?[ \t]{1,3}"
    r"(?:M\.?D\b\.?|M\.?B\.?B\.?S\b|F\.?R\.?C\.?[RSP]\b|Ph\.?D\b|MBChB\b|D\.O\.|MRCP\b|MSc\b)"
)
# Each contains one of these, few reports do.
_OF_DONE_BY = (
    *(
        " by",
        " with",
        " to",
        " von",
        " durch",
        " par",
        " por",
        " da",
        "gez",
        "sgd",
        "/s/",
        "fdo",
        "informe",
        "laudo",
        "rapport",
    ),
    *("compte", "referto", "befund", "bericht", "arztbrief", "verslag"),
)
_OF_DEGREE = ("MD", "M.D", "MB", "M.B", "FR", "F.R", "Ph", "D.O.", "MRCP", "MSc")
_INSTITUTION = re.compile(
    r"(?<![\w'’-])(?P<name>(?:[A-Z][\w'’-]{0,40}[ \t]{1,3}(?:(?:of|and|for)[ \t]{1,3})?){1,5})"
    r"(?:Hospital|Infirmary|Clinics?|University"
    r"|(?:Medical|Imaging|Diagnostic|Radiology|Health|Spine|Scan)[ \t]+Cent(?:er|re))\b"
)
_WORD = re.compile(r"[^\W\d_](?:[^\W\d_]|['’-](?=[^\W\d_]))*")
_POSSESSIVE = re.compile(r"['’]s\b", re.IGNORECASE)
_ABBREVIATED = frozenset({"mohd", "moh", "md", "abd", "st", "jr"})
_MAX_WORDS = 5
_AFTER_SLASH = re.compile(r"[ \t]?/[ \t]?(?P<name>[^\W\d_]{2,20})\b")  # the typist: "Dr. Salem/abc"
_CLAUSE_END = re.compile(r"\s*(?:$|[.,;:(\n/])")
_BEFORE_MAIL = re.compile(
    r"(?P<name>(?:[^\W\d_a-z][\w'’-]{1,40}\.?[ ]){0,3}[^\W\d_a-z][\w'’-]{1,40})[\"']?[ ]?[<(\[](?=[^\s<>@]{1,64}@)"
)
_ANOTHER = re.compile(r"[ \t]*(?:\.?,|[;&/]|\b(?:and|und|et)\b)[ \t]*")


def find_names(text: str) -> Iterator[Span]:
    """Yield where a person is named, the most certain first; passages may overlap.

    Example:
        >>> text = "Referred by Dr. Ahmad al-Salem for MR lumbar spine: Schmorl nodes, Modic type 2."
        >>> [text[start:end] for start, end in find_names(text)]
        ['Ahmad al-Salem']
    """
    for match in _TITLE.finditer(text):
        cue = match["cue"] or match["other"]
        lower_case = 0 if match["sign"] or cue.casefold() == "doctor" else 2
        yield from _name_at(text, match.end(), lower_case=lower_case, certain=cue not in ("MR", "mr"))  # resonance
    for match in _LABEL_OF_NAME.finditer(text):
        yield from _name_at(text, match.end(), lower_case=_MAX_WORDS, labelled=True, certain=True)
    for match in _LABEL_OF_PATIENT.finditer(text):
        yield from _name_at(text, match.end(), labelled=True)
    lowered = text.casefold()
    for match in _DONE_BY.finditer(text) if any(part in lowered for part in _OF_DONE_BY) else ():
        if not (_TITLE.match(text, match.end()) or _FOREIGN_TITLE.match(text, match.end())):  # it begins the name
            yield from _name_at(text, match.end(), lower_case=int(":" in match[0]), certain=True)
    for match in _ROLE.finditer(text):
        if not (_TITLE.match(text, match.end()) or _FOREIGN_TITLE.match(text, match.end())):
            yield from _name_at(text, match.end())
    yield from chain.from_iterable(_name_at(text, match.end()) for match in _PAT.finditer(text))
    for match in _PATIENT_THEN_NAME.finditer(text):
        yield from _name_at(text, match.end(), fewest=1 if match["foreign"] else 2, labelled=True)
    for match in _RELATIVE.finditer(text) if "/" in text or "aby of" in text else ():
        yield from _name_at(text, match.end(), fewest=1 if match["baby"] else 2)
    yield from (match.span() for match in _PERSON_NAME_OF_DICOM.finditer(text)) if "^" in text else ()
    for match in _PATIENT_NAME.finditer(text):
        yield from _name_at(text, match.end(), lower_case=_MAX_WORDS)
    for match in _PATIENT_OR_SUBJECT.finditer(text):
        yield from _name_at(text, match.end(), fewest=2, labelled=True)
    for match in _PATIENT.finditer(text):
        if text[match.end() : match.end() + 1].islower():
            fewest = 1 if match["colon"] else 2
            for start, end in _name_at(text, match.end(), fewest=fewest, lower_case=_MAX_WORDS - 1):
                # One word within a clause is more likely a typo ("pt: nild bulge").
                if " " in text[start:end] or not (text[end : end + 1].isspace() and _WORD.match(text, end + 1)):
                    yield start, end
    for match in _DEGREE.finditer(text) if any(part in text for part in _OF_DEGREE) else ():
        start = _last_known_word_end(match["name"])
        if start < len(match["name"]) and not match["name"][start].islower():
            yield match.start("name") + start, match.end("name")
    for match in _BEFORE_MAIL.finditer(text) if "@" in text else ():
        start = _last_known_word_end(match["name"])
        if start < len(match["name"]):
            yield match.start("name") + start, match.end("name")
    for match in _FOREIGN_TITLE.finditer(text):
        yield from _name_at(text, match.end())


def name_words(name: str) -> frozenset[str]:
    """Return the words of a name by which the same person may be named again, in small letters.

    Example:
        >>> sorted(name_words("Salem-Haddad, Ahmad M. de Small"))
        ['ahmad', 'salem-haddad']
    """
    return frozenset(
        word.casefold()
        for word in _WORD.findall(_POSSESSIVE.sub("", name))
        if len(word) > 1 + (word.upper() != word.lower())
        and word not in PARTICLES
        and not any(map(_is_known, (word, *word.split("-"))))
    )


def find_named_again(text: str, words: Collection[str]) -> Iterator[Span]:
    """Yield where one of the `name_words` stands in a text, with a capital or in a script without case.

    Example:
        >>> text = "Baker cyst. Seen with Baker, and with the baker."
        >>> [text[start:end] for start, end in find_named_again(text, {"baker"})]
        ['Baker']
    """
    for match in _WORD.finditer(text) if words else ():
        word = _POSSESSIVE.sub("", match[0])
        is_named = word.casefold() in words and not word[0].islower()
        if is_named and not _NAMED_AFTER.match(text, match.end()):
            yield match.start(), match.start() + len(word)


def find_institutions(text: str) -> Iterator[Span]:
    """Yield where a hospital, clinic or university is named; `Orthopaedic Clinic` names none.

    Example:
        >>> text = "MRI of King Hussein Hospital, referred from Orthopaedic Clinic"
        >>> [text[start:end] for start, end in find_institutions(text)]
        ['King Hussein Hospital']
    """
    for match in _INSTITUTION.finditer(text):
        words = list(_WORD.finditer(match["name"]))
        first = next((word for word in words if word[0].casefold() not in NOT_NAMES), None)
        if first:
            yield match.start() + first.start(), match.end()


def _name_at(
    text: str, start: int, *, fewest: int = 1, lower_case: int = 0, labelled: bool = False, certain: bool = False
) -> Iterator[Span]:
    """Yield the name of at least `fewest` words that begins at a position, if one does.

    In lower case a name may have `lower_case` words; all but the first count only before the end of a clause or a
    word of reports, to spare findings. `labelled`: the text calls it a name, so a comma may separate family name
    and name, and any word may be one. `certain`: a name follows, even one that is a word as well ("Small").
    """
    words: list[re.Match[str]] = []
    position = start
    while len(words) < _MAX_WORDS and (word := _WORD.match(text, position)):
        if not _continues_name(word, words, text, lower_case=lower_case, labelled=labelled, certain=certain):
            break
        if words and "," in text[words[-1].end() : word.start()] and is_word_of_reports(word[0]):  # "Salem, Buldge"
            break
        words.append(word)
        position = _next_word(text, word, commas=labelled)
        if position < 0:
            break
    while words and words[-1][0] in PARTICLES:  # "Dr. Salem de"
        words.pop()
    if len(words) >= fewest and any(len(word[0]) > 1 for word in words):
        yield start, words[-1].end()
        if (after := _AFTER_SLASH.match(text, words[-1].end())) and not _is_known(after["name"]):
            yield after.span("name")
        if another := _ANOTHER.match(text, words[-1].end()):
            for first, last in _name_at(text, another.end()):
                others = _WORD.findall(text, first, last)
                is_name = len(others) > 1 or _CLAUSE_END.match(text, last)  # "Smith, John."
                if is_name and not any(map(_is_known, others)):
                    yield first, last


def _is_known(word: str) -> bool:
    return len(word) > 1 and (word.casefold() in NOT_NAMES or is_word_of_reports(word))


def _continues_name(
    word: re.Match[str], words: list[re.Match[str]], text: str, *, lower_case: int, labelled: bool, certain: bool
) -> bool:
    is_initial = len(word[0]) == 1 and text[word.end() : word.end() + 1] == "."
    is_name_too = certain and _is_name_too(word, text, is_first=not words)
    if _is_no_name(word, text) and not is_name_too and not (is_initial and word[0].isupper()):
        return False
    if not word[0][0].islower():  # a capital, or a script without case
        return True
    if word[0] in PARTICLES or word[0].partition("-")[0] in PARTICLES:
        return True
    if len(words) >= lower_case or (words and not words[0][0][0].islower()):
        return False
    if len(word[0]) == 1 or (word[0] in ORDINARY_WORDS and not labelled):  # "c/o"
        return False
    if not certain and (is_word_of_reports(word[0]) or ORDINARY_ENDING.fullmatch(word[0])):
        return False
    return not words or _ends_clause(text, word.end(), lower_case - len(words) - 1)


def _ends_clause(text: str, position: int, num_more: int) -> bool:
    """Whether a clause ends, or a word of reports follows, after at most `num_more` other words."""
    for _ in range(num_more + 1):
        following = _WORD.match(text, position + 1)
        if following is None or not text[position].isspace():
            return True
        if _is_no_name(following, text) or following[0] in ORDINARY_WORDS:
            return True
        position = following.end()
    return False


def _is_no_name(word: re.Match[str], text: str) -> bool:
    """Whether a word, or a part of it ("Post-laminectomy"), is a word of reports."""
    parts = [part for part in word[0].casefold().split("-") if len(part) > 2] or [word[0].casefold()]
    if any(part in EPONYMS for part in parts) and _NAMED_AFTER.match(text, word.end()):
        return True
    return word[0].casefold() in NOT_NAMES or any(
        (part in NOT_NAMES and (len(parts) == 1 or part not in ALSO_NAMES)) or MEDICAL_ENDING.fullmatch(part)
        for part in parts
    )


def _is_name_too(word: re.Match[str], text: str, *, is_first: bool) -> bool:
    """Whether a word of reports is a name here: no finding begins with it ("Dr. Salem. Small bulge")."""
    if word[0].casefold() not in ALSO_NAMES or word[0][0].islower():
        return False
    following = re.compile(r"[ \t]+([^\W\d_][\w'’-]*)").match(text, word.end())
    if following is None:
        return True
    folded = following[1].casefold()
    is_unknown_name = is_first and following[1][0].isupper() and folded not in NOT_NAMES
    return is_unknown_name or folded in FUNCTION_WORDS or (folded in ALSO_NAMES and is_first)


def _next_word(text: str, word: re.Match[str], *, commas: bool) -> int:
    """Return where the next word of the name may begin; -1 if punctuation or a new line ends it."""
    abbreviated = len(word[0]) == 1 or word[0].casefold() in _ABBREVIATED
    pattern = (r"\.?,[ \t]*(?=[^\W\d_a-z])|" if commas else "") + (r"\.[ \t]*-?|" if abbreviated else "") + r"[ \t^]+"
    gap = re.compile(pattern).match(text, word.end())
    return gap.end() if gap else -1


def _last_known_word_end(text: str) -> int:
    """Return where the name begins: after the last word of reports."""
    known = [word.end() for word in _WORD.finditer(text) if len(word[0]) > 1 and word[0].casefold() in NOT_NAMES]
    rest = _WORD.search(text, known[-1]) if known else _WORD.search(text)
    return rest.start() if rest else len(text)
