"""Words of lumbar reports that may be exchanged or left out, because they state no fact.

Only true synonyms share a group. A bulge, a protrusion, an extrusion and a herniation are different facts, as are
mild and minimal, or likely and probable: words of findings, severity, certainty, side, level, number and negation are
in no group, and unknown words (a misspelling may hide one of these) are never touched.
"""

import re

SYNONYM_GROUPS: tuple[tuple[str, ...], ...] = (
    # Anatomy. Terms after Fardon et al. 2014 ("Lumbar disc nomenclature: version 2.0") and the Terminologia Anatomica.
    ("disc", "disk"),
    ("discs", "disks"),
    ("thecal sac", "dural sac"),
    ("neural foramen", "intervertebral foramen"),
    ("neural foramina", "intervertebral foramina"),
    ("exit canal", "exit neural canal", "exiting neural canal"),
    ("exit canals", "exit neural canals", "exiting neural canals"),
    ("exit nerve root", "exiting nerve root"),
    ("exit nerve roots", "exiting nerve roots"),
    ("spinal canal", "vertebral canal"),
    ("endplate", "end-plate", "end plate"),
    ("endplates", "end-plates", "end plates"),
    ("annulus", "anulus"),
    ("marrow signal", "bone marrow signal"),
    ("CSF space", "cerebrospinal fluid space"),
    ("CSF spaces", "cerebrospinal fluid spaces"),
    # Shape and spelling.
    ("broad base", "wide base"),
    ("broad based", "broad-based", "wide based", "wide-based"),
    ("generalised", "generalized"),
    ("multilevel", "multi-level"),
    ("edema", "oedema"),
    ("caudally", "inferiorly", "downwards"),
    ("cranially", "superiorly", "upwards"),
    ("encroaching upon", "encroaching on"),
    # The frame of a sentence.
    ("noted", "seen", "observed", "identified"),
    ("evidence of", "sign of", "signs of"),
    ("feature of", "features of"),
    ("associated with", "accompanied by", "along with", "together with"),
    ("causing", "producing", "resulting in"),
    ("due to", "because of", "owing to"),
    ("mainly", "chiefly"),
    ("especially", "particularly"),
    ("noticeably", "notably"),
    ("previous", "prior"),
    ("surgery", "operation"),
    ("advised", "recommended"),
    ("in addition", "additionally"),
    # The examination.
    ("LSS MRI", "lumbosacral MRI", "MRI of the lumbosacral spine", "MRI of the LSS"),
)

# May be left out or change places: the sentence reads worse, as random deletion and swapping intend, and says the
# same. Verbs in the past (`was seen`) are not here: they may set an earlier finding apart from a present one.
FRAME_WORDS = frozenset(
    {"the", "a", "an", "is", "are", "there", "noted", "seen", "observed", "identified", "also", "which"}
)

SYNONYMS: dict[str, tuple[str, ...]] = {
    phrase.casefold(): tuple(other for other in group if other != phrase)
    for group in SYNONYM_GROUPS
    for phrase in group
}

# Longest first, so that "exit neural canals" is not read as something shorter within it. A hyphen or an apostrophe
# continues a word: "disc-like" is no disc.
PHRASE = re.compile(
    r"(?<![\w'’-])(?:"
    + "|".join(r"\s+".join(map(re.escape, phrase.split())) for phrase in sorted(SYNONYMS, key=len, reverse=True))
    + r")(?![\w'’-])",
    re.IGNORECASE,
)
# The letter of "grade a" is no article, nor is a capital A that does not begin a sentence: "Schizas class A".
WORD = re.compile(
    r"(?<![\w'’-])(?<!grade )(?<!type )(?<!class )(?<!stage )"
    r"(?:(?-i:(?!A(?!\w)))|(?<![\s\S])|(?<=[.!?]\s)|(?<=\n)|(?<=//)|(?<=//\s))"
    r"[A-Za-z]+(?![\w'’-])",
    re.IGNORECASE,
)
