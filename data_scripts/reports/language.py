"""Tell whether a report is English: in another language nothing is read, so nothing may be concluded.

Terse notes full of slips, abbreviations and Latin are English until something speaks for another language: its script,
its words for findings and sides, its words of grammar, its endings and accents.
"""

import re
import unicodedata

from data_scripts.reports.lexicon import ACTION_FORMS, FORMS, KNOWN_WORDS, word_set

# Words for findings, structures, sides and people that are neither English nor Latin: one is enough.
_TERMS = word_set(
    # Several
    "fraktur fractura fratura frattura frei cono medular aspecto normale skolioza skolyoz skolios skolioosi złamanie "
    # German
    "links linke linken linker linkes rechts rechte rechten rechter rechtes beidseits beiderseits befund beurteilung "
    "nachweis hinweis unauffällig regelrecht regelrechte regelrechter geringe geringer geringes geringen mäßige "
    "mäßiger mäßiges leichte leichter leichtes schwere schwerer deutliche deutlicher diskrete normaler normales "
    "normalen höhe lwk bwk swk hwk lws bws hws diskus rückenmark geboren enger engen weiter weites protrusionen "
    "vorfälle wirbel geb "
    # Spanish
    "izquierda izquierdo izquierdas izquierdos derecha derecho derechas derechos disco discos discales columnas "
    "estenosis espinal lumbares vertebrales conducto raíz raíces radiculares hallazgo hallazgos conclusión paciente "
    "pacientes informe leves moderada moderado moderadas moderados severa severo ligera ligero abombamiento "
    "deshidratación nervio nerviosa nervioso rodilla médula tecal cuerpos conservada conservado conservados "
    "alteraciones dolor dolores estudio ambos ambas altura vértebra vértebras canales protrusión extrusión compresión "
    "lesión artrosis edad mujer "
    # French
    "gauche gauches droite droites droit hernie hernies discaux disque disques racines étroit étroits rétrécissement "
    "pincement débord débordement étage étages saillie arthrose lombaire lombaires moelle conflit normaux osseux "
    "osseuse foraminaux patiente discopathie discopathies conservé conservée "
    # Italian
    "ernia ernie discale discali dischi destra destro destre sinistra sinistro sinistre bilaterali canale canali "
    "radice radici vertebrale vertebrali lombare lombari stenosi limiti nei protrusione protrusioni midollo referto "
    "compressione spazio spazi nervose lieve lievi foraminale foraminali normali alterazioni "
    # Portuguese
    "esquerda esquerdo esquerdas direita direito direitas hérnia hérnias coluna colunas estenose discreta discreto "
    "achados achado laudo abaulamento abaulamentos preservada preservado preservados raízes protrusão compressão "
    # Dutch
    "wervel wervels zenuw zenuwwortel zenuwwortels wortel wortels uitpuiling versmalling linkszijdig rechtszijdig "
    "beiderzijds normaal "
    # Turkish
    "sağ sağda sağa solda fıtığı fıtık omurga kanal kanalı daralma daralması hafif sinir kök normaldir izlendi "
    "izlenmedi izlenmektedir mevcut mevcuttur yoktur hasta hastanın düzeyinde seviyesinde diskinde "
    # Polish, Czech, Croatian, Romanian, Hungarian
    "lewa lewo lewy lewej lewostronna lewostronny prawa prawo prawy prawej prawostronna prawostronny krążka "
    "przepuklina kręgosłup kręgosłupa kanału wypuklina ucisk korzeń korzenia prawidłowy prawidłowa vlevo vpravo "
    "výhřez ploténky lijevo desno stânga dreapta discului lombară jobboldali baloldali porckorong porckorongsérv "
    "gerinccsatorna sérv "
    # Swedish, Danish, Norwegian, Finnish, Indonesian
    "vänster höger diskbråck ryggmärg venstre høyre højre rygmarv skiveprolaps diskusprolaps vasemmalla vasen oikea "
    "oikealla välilevy kiri kanan saraf tulang penyempitan"
)
# Words of grammar: one is enough in a sentence without an English word, two are beside English words.
_GRAMMAR = word_set(
    "und oder mit ohne das ist sind wird wurde kein keine keinen keiner keinerlei nicht auch sowie sich auf aus über "
    "für durch eine einer einen einem eines beim zum zur vom bei zeigt zwischen noch una uno unos como sobre entre "
    "hacia desde hasta muy más también está están que nivel une avec sans et est dans aux pour aucun aucune très à où "
    "cette gli lo della delle dello degli dei dal dalla nel nella nelle sul sulla alla alle agli senza sono è più "
    "anche che livello em ao sem uma um são é não às pelo pela nível het een zonder niet zijn naar ook bij voor geen "
    "wordt ve ile bir için yok olarak nie jest są oraz bez poziomie się przy och utan inte för på uten uden ikke ei "
    "ilman sekä és nincs nem tidak pada yang dengan tanpa"
)
# The same, but also parts of names, English words or abbreviations ("Juan de la Cruz", "post con", "van der Berg").
_WEAK_GRAMMAR = word_set(
    "de la le el les los las del di da do dos des du van der den dem von y e o con sin se si par por para il un au ou "
    "os na nos com sur nach unter nur wie per non en og med av"
)
# Beginnings and endings that English words lack.
_LINKING = word_set("de di du del des do da")  # with a word on each side: "Fracture de L1"
_FORMS = re.compile(
    r".*(?:bandscheib|wirbel|wurzel|spinalkanal|gelenk|vorfall|gradige?[rnms]?$|st[eé]nose$|sténoses$|stenosen$|kanals?$"
    r"|(?:arthr|chondr|lord|[ck]yph|s[ck]oli|listh|fibr)[eo]sen?$|osteofit(?:os|osi|i)$)"
    r"|(?:hochgrad|geringgrad|mäßiggrad|linksseit|rechtsseit|beidseit|unauffäll|tussenwervel|wervel|omuril|przepukli|espondil|escolios|discopati)"
    r"|.{3,}(?:igkeit(?:en)?|heiten|schaft(?:en)?|ungen|isch(?:e[nrms]?)|lich(?:e[nrms]?)|ción|ciones|siones|sión|idades"
    r"|miento|mientos|ção|ções|são|zione|zioni|mente|imento|amento|ità)$"
    r"|.{5,}(?:ung|keit)$|(?!questionn|million|solit|doctrin).{4,}aires?$"
)
_ENGLISH_GRAMMAR = word_set(
    "the and with at there this that these those from to by has have had not which but within of be been are it its "
    "for into seen noted shows show after before during since than then both each other some any all likely"
)
# Words of the lexicon that other languages spell in the same way.
_SHARED_WORDS = word_set(
    "a i in is no on or an of was also die canal canals central cervical lumbar sacral dorsal ventral lateral medial "
    "distal normal total focal local facet facets disc disco discal compression decompression extension extrusion "
    "protrusion lesion lesions edema spinal stenosis lordosis scoliosis spondylolisthesis spondylosis spondylolysis "
    "foraminal foramen intervertebral vertebral vertebra posterior anterior inferior superior minor minimal moderate "
    "severe signal sign contact contrast direct defect fragment fracture fractures face mode nature note place "
    "position region section surface type zone patient patients modic schmorl flavum cauda equina conus collection "
    "conversion degeneration dehydration epidural extradural fissure fissures fixation fusion general granulation "
    "hydration infection injection insertion instance interval isotope lipoma material median migration model nuclear "
    "nucleus operation osteopenia pelvis projection protection prolapse pulposus reaction reduction regression "
    "relation renal result resolution segment sequestration traction tumor vacuum variant bilateral listhesis "
    "retrolisthesis anterolisthesis laminectomy multiple but part parts pars discs marker disk intact diffuse"
)
_KNOWN = KNOWN_WORDS.union(
    *(forms.split() for forms in FORMS.values()),
    *(forms.split() for forms_of_role in ACTION_FORMS.values() for forms in forms_of_role.values()),
)
_ENGLISH = (_KNOWN | _ENGLISH_GRAMMAR) - _SHARED_WORDS
# Latin letters with accents that English texts have in small letters: loan words and eponyms.
_ACCENTED_IN_ENGLISH = word_set(
    "naïve façade café calvé ménière lasègue kümmell kümmel sjögren barré waldenström schüller böhler dandé née"
)
# Two letters of another script, or one that is a word (Chinese, Japanese, Korean): a lone letter of an alphabet is a
# sign ("α") or a slip of the keyboard.
_LETTER = r"[^\W\d_\u0000-\u036F\u1E00-\u1EFF\u2070-\u2189\u2C60-\u2C7F\uA720-\uA7FF\uAB30-\uAB6F]"
_OTHER_SCRIPT = re.compile(
    rf"{_LETTER}(?:{_LETTER}|[\u0591-\u065F\u0900-\u1CFF])"  # or a letter with a sign for its vowel
    r"|[\u1100-\u11FF\u3041-\u30FF\u3400-\u9FFF\uAC00-\uD7AF\uF900-\uFAFF\U00020000-\U0003FFFF]"
)
_PHRASE = re.compile(r"\bhernias? discal", re.IGNORECASE)  # each word alone is English
_ELISION = re.compile(r"(?:[cdjlns]|qu)['’][^\W\d_]{3,}")  # "l'étage"
# What says nothing of the language: placeholders, and French and Latin phrases of English texts.
_NEUTRAL = re.compile(
    r"\[[A-Z]+\]|\b(?i:en (?:bloc|face|plaque|passant)|per se|vis[- ][àa][- ]vis|caf[ée][- ]au[- ]lait|cul[- ]de[- ]sac"
    r"|per os|de novo|ex vacuo|disco-(?=[a-z])|os (?:odontoideum|acetabuli))\b"
)
_SENTENCE_END = re.compile(r"[.;:!?](?=\s|$)|[\r\n•]+|//")
_ACCENTED = re.compile(r"[\u00C0-\u024F\u1E00-\u1EFF]")
_LATIN_ENDING = re.compile(r".{3,}(?:us|um|ae|is|orum|arum|oma|major|minor)$")
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_FEW_UNKNOWN = 4  # as many unknown words, and none known, are no English sentence


def _without_accents(word: str) -> str:
    decomposed = unicodedata.normalize("NFD", word)
    return "".join(char for char in decomposed if not unicodedata.combining(char))


def _folded(word: str) -> str:
    return word.casefold().replace("ı", "i").replace("i̇", "i")  # Turkish has two


def _is_accented(word: str) -> bool:
    return _ACCENTED.search(word) is not None and word not in _ACCENTED_IN_ENGLISH


_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss"})
# Also as typed without accents, unless that is English ("lesion") or short ("Sag").
_TERMS_AS_TYPED = frozenset(map(_folded, _TERMS)).union(
    *({_without_accents(word), word.translate(_UMLAUTS)} - _KNOWN for word in _TERMS if len(word) > 4)
) - {"hernia", "hernias", "compresion"}  # English, and a slip


def seems_english(text: str) -> bool:
    """Whether nothing in a text speaks for another language.

    A single sentence in another language is enough for False. Names of people, eponyms, Latin and slips of the pen
    are not; placeholders (`[NAME]`) say nothing.

    Example:
        >>> [seems_english(text) for text in ("L4/5 buldge compresing sac", "Hernia discal L5-S1 izquierda.")]
        [True, False]
    """
    text = _NEUTRAL.sub(" ", unicodedata.normalize("NFKC", text))
    if _OTHER_SCRIPT.search(text):
        return False
    if _PHRASE.search(text):
        return False
    num_english = num_unknown = 0
    for sentence in _SENTENCE_END.split(text):
        words = _WORD.findall(sentence)
        if not words:
            continue
        english, unknown, is_foreign = _judge(words)
        if is_foreign:
            return False
        num_english, num_unknown = num_english + english, num_unknown + unknown
    return num_english > 0 or num_unknown < _FEW_UNKNOWN


def _judge(words: list[str]) -> tuple[int, int, bool]:
    """Count the English and the unknown words of a sentence, and say whether it is in another language."""
    in_capitals = all(word.isupper() for word in words)
    english = shared = unknown = grammar = weak = 0
    name_follows = False
    num_words = sum(len(word) > 1 for word in words)  # without the letters of levels
    for index, word in reversed(list(enumerate(words))):
        folded = _folded(word)
        is_name = word[0].isupper() and not in_capitals and num_words > 1
        is_abbreviation = word.isupper() and not in_capitals and len(word) < 5
        if folded in _WEAK_GRAMMAR and not is_abbreviation:  # "de la Cruz"
            weak += (1 + (folded in _LINKING and 0 < index < len(words) - 1)) * (not name_follows)
            continue
        name_follows = is_name and len(word) > 1  # not a level
        if folded in _ENGLISH:
            english += 1
        elif folded in _KNOWN:
            shared += 1
        elif folded in _TERMS_AS_TYPED or _FORMS.match(folded):
            if not is_abbreviation or len(word) == 3:
                return english, unknown, True
        elif is_abbreviation:
            continue
        elif folded in _GRAMMAR or _ELISION.match(word) or (not is_name and _is_accented(folded)):
            grammar += 1
        elif len(word) > 3 and not is_name and not _LATIN_ENDING.match(folded):
            unknown += 1
    if english:
        return english, unknown, grammar >= 2
    is_foreign = grammar > 0 or weak >= 2 or (weak == 1 and num_words >= 3) or (not shared and unknown >= _FEW_UNKNOWN)
    return english, unknown, is_foreign
