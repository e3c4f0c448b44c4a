"""The templates and words of statement banks: how a report states a class, or denies it. Data only.

A template has blanks: `{n}` for words without article, `{a}` for words with one, `{is}` for the verb, and `{image}` for
what shows it. Templates stand in pairs, one that states and one that denies.
"""

import re

from data_scripts.paraphrasing.phrases import Noun
from data_scripts.records import KNEE, LUMBAR_SPINE
from data_scripts.reports.lexicon import word_set

Pairs = tuple[tuple[str, str], ...]

# Every word that denies ("no", "without", "absent", "not") also stands in a template that is trained on.
TRAINED_TEMPLATES: Pairs = (
    ("{n}.", "No {n}."),
    ("There {is} {a}.", "There {is} no {n}."),
    ("{a} {is} seen.", "No {n} {is} seen."),
    ("{a} {is} noted.", "No {n} {is} noted."),
    ("{a} {is} visible.", "{n} {is} not visible."),
    ("{a} {is} identified.", "{n} {is} not identified."),
    ("{a} {is} demonstrated.", "{n} {is} not seen."),
    ("{a} {is} evident.", "{n} {is} absent."),
    ("The image shows {a}.", "The image shows no {n}."),
    ("{image} shows {a}.", "{image} shows no {n}."),
    ("The study shows {a}.", "The study shows no {n}."),
    ("The scan demonstrates {a}.", "The scan demonstrates no {n}."),
    ("Findings: {n}.", "Findings: no {n}."),
    ("Impression: {n}.", "Impression: no {n}."),
    ("With {n}.", "Without {n}."),
    ("{n} noted.", "No {n} noted."),
    ("Positive for {n}.", "Negative for {n}."),
    ("Evidence of {n}.", "No evidence of {n}."),
    ("There is evidence of {n}.", "There is no evidence of {n}."),
    ("Signs of {n}.", "No sign of {n}."),
)
# A fifth, for measuring only.
UNSEEN_TEMPLATES: Pairs = (
    ("{n} present.", "No {n} present."),
    ("The scan reveals {a}.", "The scan reveals no {n}."),
    ("Conclusion: {n}.", "Conclusion: no {n}."),
    ("The image is one with {n}.", "The image is one without {n}."),
    ("On this image {a} {is} present.", "On this image {n} {is} absent."),
)
# For grades and their descriptions, which have no denial: "no osteophytes" is one.
TRAINED_GRADE_TEMPLATES = (
    *("{n}.", "The image shows {n}.", "{image} shows {n}.", "The study shows {n}.", "The scan demonstrates {n}."),
    *("Findings: {n}.", "Impression: {n}.", "With {n}.", "{n} noted.", "{n} seen.", "In keeping with {n}."),
    "The appearance is that of {n}.",
)
UNSEEN_GRADE_TEMPLATES = ("The scan reveals {n}.", "Conclusion: {n}.", "The image is one with {n}.")

IMAGES = {LUMBAR_SPINE: "MRI of the lumbar spine", KNEE: "The radiograph of the knee"}


def _countable(*nouns: str) -> tuple[Noun, ...]:
    return tuple(Noun(noun, f"{noun}s") for noun in nouns)


def _uncountable(*nouns: str) -> tuple[Noun, ...]:
    return tuple(map(Noun, nouns))


def _plural(*nouns: str) -> tuple[Noun, ...]:
    return tuple(Noun(noun, noun, always_many=True) for noun in nouns)


# What stands for "any finding" and for "none", by what the images show.
ABNORMAL = {
    LUMBAR_SPINE: (
        *_countable("abnormality", "abnormal disc"),
        *_plural("degenerative changes"),
        *_countable("disc bulge or protrusion", "disc bulge or stenosis"),
        *_uncountable("disc or canal disease"),
    ),
    KNEE: (*_countable("abnormality", "abnormal joint"), *_plural("degenerative changes", "abnormal findings")),
}
NORMAL = {
    LUMBAR_SPINE: (
        *_countable("normal disc", "healthy disc", "unremarkable disc", "normal disc and canal"),
        *_plural("normal appearances"),
    ),
    KNEE: (*_countable("normal joint", "healthy knee", "normal knee"), *_plural("normal appearances")),
}
ABNORMAL_NAME = re.compile(
    r"lbp|low back pain|abnormal(?:ity|ities)?|patholog(?:y|ies|ical|ic)|diseased?|findings?|positive"
    r"|(?:any|some|with|has) (?:abnormality|pathology|disease|findings?)|(?:not normal|non ?normal)"
)
NORMAL_NAME = re.compile(
    r"(?:no|without|non) (?:significant |other )?(?:abnormality|abnormalities|findings?|pathology|disease|lesions?)"
    r"|(?:normal|healthy|unremarkable)(?: (?:discs?|spines?|knees?|joints?|study|level|appearances?|findings?|patients?"
    r"|controls?|mri|image|scan|anatomy))?|normality|negative|controls?|within normal limits"
)

# Other words of the kinds that `data_scripts.paraphrasing.phrases` names.
MORE_WORDS: dict[str, tuple[Noun, ...]] = {
    "bulge": _uncountable("bulging of the disc"),
    "herniation": _countable("herniated disc"),
    "disc space narrowing": _uncountable("reduced disc height"),
    "endplate change": _plural("changes of the endplates"),
    "Modic change": _plural("Modic signal changes"),
    "spondylolisthesis": _countable("vertebral slip", "slip of the vertebra"),
    "spondylolysis": _countable("pars defect"),
    "degenerative change": _uncountable("disc degeneration", "degeneration of the disc"),
    "osteophyte": _plural("bony spurs"),
    "discitis": _uncountable("spondylodiscitis"),
}
# Words of classes that the report reader has no kind for.
OTHER_CLASSES: dict[str, dict[str, tuple[Noun, ...]]] = {
    LUMBAR_SPINE: {
        "compression": _uncountable("neural compression", "compression of neural structures"),
    },
    KNEE: {
        "osteoarthritis": (
            *_uncountable("osteoarthritis", "osteoarthritis of the knee", "degenerative joint disease"),
            *_plural("osteoarthritic changes"),
        ),
        "joint space narrowing": _uncountable("joint space narrowing", "narrowing of the joint space"),
        "osteophytes": _plural("osteophytes", "bony spurs"),
        "sclerosis": _uncountable("sclerosis", "subchondral sclerosis"),
    },
}

# What a name may contain beside a finding, its side, severity and level, without changing which finding it is.
FILLING_WORDS = word_set(
    """a an any at canal central change changes degenerative disc discs grade in intervertebral level lumbar of on or
    phenomenon sided signal spinal spine the type vertebral"""
)

# Words that are written with a capital.
PROPER_NAMES = word_set(
    """Baastrup Baker Kellgren Lawrence Modic Pfirrmann Schizas Scheuermann Schmorl Schmorl's Tarlov Segond Hoffa
    Osgood Schlatter"""
)
# Nouns without article and plural, by their ends; any other word gets "a" or "an".
UNCOUNTABLE = re.compile(
    r"(?:sis|itis|ing|[ts]ion|(?:ace|ge|fine)ment|pathy|trophy|plasia|malacia|[oe]dema|ance|ness|tissue|disease|loss"
    r"|wear|fluid|pain|cartilage|spasm|lordosis|kyphosis|height|signal|emia|fat|bone|haemorrhage|hemorrhage|gas|l[iy]sthesis)$"
)
PLURAL = re.compile(r"(?<![sui'’])s$")
# A class named by an adjective alone.
ADJECTIVE = re.compile(r"mild|moderate|severe|minimal|marked|acute|chronic|\w+(?:ative|ous|ed|ical|otic|etic)")

# How else a grade is named, and the words that describe it; each belongs to one grade only.
GRADE_WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "Pfirrmann": {
        "1": ("a bright homogeneous nucleus", "a homogeneous nucleus of high signal", "a disc without degeneration"),
        "2": ("a bright but slightly inhomogeneous nucleus", "faint nuclear bands", "an inhomogeneous bright nucleus"),
        "3": ("a grey nucleus", "intermediate nuclear signal", "moderate degeneration"),
        "4": ("a dark disc without nuclear border", "low disc signal without nuclear border", "advanced degeneration"),
        "5": ("a black disc", "complete loss of disc signal", "end-stage degeneration"),
    },
    "stenosis": {
        "A": ("no canal stenosis", "an adequate spinal canal", "a spinal canal of normal width"),
        "B": ("mild canal stenosis", "mild narrowing of the spinal canal", "a slightly narrowed spinal canal"),
        "C": (
            "moderate canal stenosis",
            "moderate narrowing of the spinal canal",
            "a moderately narrowed spinal canal",
        ),
        "D": ("severe canal stenosis", "severe narrowing of the spinal canal", "a severely narrowed spinal canal"),
    },
    "stenosis severity": {
        "Normal/Mild": ("no significant stenosis", "no significant narrowing", "stenosis that is at most mild"),
        "Moderate": ("moderate stenosis", "moderate narrowing", "stenosis of moderate degree"),
        "Severe": ("severe stenosis", "severe narrowing", "stenosis of severe degree"),
    },
}
