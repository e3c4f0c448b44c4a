"""How a radiologist names each kind of finding: the phrases from which rephrasings are put together. Data only."""

from dataclasses import dataclass

# Severity → adjective, adverb; the wordings of one severity are synonyms to the report parser, too.
SEVERITY_WORDS = {
    "minimal": (("minimal", "minimally"),),
    "mild": (("mild", "mildly"), ("slight", "slightly")),
    "moderate": (("moderate", "moderately"),),
    "severe": (("severe", "severely"), ("marked", "markedly")),
}
# What else a report may say of a disc's contour, in our spelling.
SHAPES = {
    "diffuse": "diffuse",
    "focal": "focal",
    "broadbased": "broad-based",
    "circumferential": "circumferential",
    "generalised": "generalised",
    "generalized": "generalised",
    "asymmetric": "asymmetric",
    "symmetric": "symmetric",
}
ZONES = ("paracentral", "paramedian", "foraminal", "extraforaminal", "posterolateral", "subarticular")
# Of grades (`grade 1`, `type 2`), as they are usually written.
ROMAN_NUMERALS = {"1": "I", "2": "II", "3": "III", "4": "IV", "5": "V"}
SIDE_WORDS = {
    "left": ("left", "left-sided"),
    "right": ("right", "right-sided"),
    "bilateral": ("bilateral",),
    "central": ("central",),
}


@dataclass(frozen=True, kw_only=True)
class Noun:
    """A finding as a thing. `{grade}` stands where a grade is said (`type 2`), if the report gives one.

    Args:
        one: Its singular, without article.
        many: Its plural, for several levels; None for what is not counted ("spinal canal stenosis").
        always_many: Whether it is spoken of in the plural even at one level ("osteophytes").
        of_both: Where the report speaks of both, which are not left and right ("changes of both endplates").
    """

    one: str
    many: str | None = None
    always_many: bool = False
    of_both: str | None = None


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A finding as something done to a structure by the finding before it.

    Args:
        verbs: Third person singular, plural, participle and noun with its preposition, of each wording.
        name: The finding as a compound, when no side is named.
        structure: The structure when no side is named.
        sided: With `{side}` for left or right; None if it cannot have a side.
        both: Both sides.
    """

    verbs: tuple[tuple[str, str, str, str], ...]
    name: str
    structure: str
    sided: str | None = None
    both: str | None = None


_COMPRESS = ("compresses", "compress", "compressing", "compression of")
_NARROW = ("narrows", "narrow", "narrowing", "narrowing of")
_ENCROACH = ("encroaches on", "encroach on", "encroaching on", "encroachment on")
_ABUT = ("abuts", "abut", "abutting", "abutment of")
_TOUCH = ("touches", "touch", "touching", "abutment of")

_SAC = {"structure": "the thecal sac", "sided": "the {side} side of the thecal sac"}
_ROOT = {"structure": "the nerve roots", "sided": "the {side} nerve root", "both": "both nerve roots"}
_FORAMEN = {"structure": "the neural foramina", "sided": "the {side} neural foramen", "both": "both neural foramina"}

EFFECTS: dict[str, Effect] = {
    "thecal sac compression": Effect(verbs=(_COMPRESS,), name="thecal sac compression", **_SAC),
    "thecal sac contact": Effect(verbs=(_ABUT, _TOUCH), name="thecal sac contact", **_SAC),
    "nerve root compression": Effect(verbs=(_COMPRESS,), name="nerve root compression", **_ROOT),
    "nerve root contact": Effect(verbs=(_ABUT, _TOUCH), name="nerve root contact", **_ROOT),
    "foraminal narrowing": Effect(verbs=(_NARROW, _ENCROACH), name="foraminal narrowing", **_FORAMEN),
    "foraminal contact": Effect(verbs=(_ABUT, _TOUCH), name="abutment of the neural foramina", **_FORAMEN),
    "lateral recess narrowing": Effect(
        verbs=(_NARROW, _ENCROACH),
        name="lateral recess narrowing",
        structure="the lateral recesses",
        sided="the {side} lateral recess",
        both="both lateral recesses",
    ),
    "spinal cord compression": Effect(verbs=(_COMPRESS,), name="spinal cord compression", structure="the spinal cord"),
    "spinal cord contact": Effect(verbs=(_ABUT, _TOUCH), name="spinal cord contact", structure="the spinal cord"),
    "CSF space effacement": Effect(
        verbs=(("effaces", "efface", "effacing", "effacement of"),),
        name="CSF space effacement",
        structure="the CSF spaces",
    ),
}

CONTOURS: dict[str, tuple[Noun, ...]] = {
    "bulge": (
        Noun(one="disc bulge", many="disc bulges"),
        Noun(one="bulge of the disc", many="bulges of the discs"),
    ),
    "protrusion": (
        Noun(one="disc protrusion", many="disc protrusions"),
        Noun(one="protrusion of the disc", many="protrusions of the discs"),
    ),
    "extrusion": (
        Noun(one="disc extrusion", many="disc extrusions"),
        Noun(one="extrusion of the disc", many="extrusions of the discs"),
    ),
    "sequestration": (
        Noun(one="sequestrated disc fragment", many="sequestrated disc fragments"),
        Noun(one="disc sequestration", many="disc sequestrations"),
    ),
    "herniation": (
        Noun(one="disc herniation", many="disc herniations"),
        Noun(one="herniation of the disc", many="herniations of the discs"),
    ),
}

OTHERS: dict[str, tuple[Noun, ...]] = {
    "stenosis": (
        Noun(one="spinal canal stenosis"),
        Noun(one="narrowing of the spinal canal"),
        Noun(one="stenosis of the spinal canal"),
    ),
    "annular tear": (
        Noun(one="annular tear", many="annular tears"),
        Noun(one="tear of the annulus", many="tears of the annulus"),
        Noun(one="annular fissure", many="annular fissures"),
    ),
    "dehydration": (
        Noun(one="disc dehydration"),
        Noun(one="disc desiccation"),
        Noun(one="dehydration of the disc"),
        Noun(one="desiccation of the disc"),
    ),
    "Modic change": (
        Noun(one="Modic {grade} change", many="Modic {grade} changes", always_many=True),
        Noun(one="Modic {grade} endplate change", many="Modic {grade} endplate changes", always_many=True),
    ),
    "endplate change": (
        Noun(
            one="{grade} endplate change",
            many="{grade} endplate changes",
            always_many=True,
            of_both="{grade} changes of both endplates",
        ),
        Noun(one="{grade} endplate degeneration", of_both="{grade} degeneration of both endplates"),
    ),
    "degenerative change": (Noun(one="degenerative change", many="degenerative changes", always_many=True),),
    "spondylolisthesis": (Noun(one="{grade} spondylolisthesis"), Noun(one="spondylolisthesis {grade}")),
    "spondylolysis": (Noun(one="spondylolysis"),),
    "osteophyte": (Noun(one="osteophyte", many="osteophytes", always_many=True),),
    "Schmorl node": (
        Noun(one="Schmorl's node", many="Schmorl's nodes", always_many=True),
        Noun(one="Schmorl's nodule", many="Schmorl's nodules", always_many=True),
    ),
    "muscle spasm": (
        Noun(one="muscle spasm"),
        Noun(one="feature of muscle spasm", many="features of muscle spasm", always_many=True),
        Noun(one="spasm of the muscles"),
    ),
    "loss of lordosis": (
        Noun(one="straightening of the lumbar lordosis"),
        Noun(one="loss of the lumbar lordosis"),
        Noun(one="loss of lordosis"),
    ),
    "scoliosis": (Noun(one="scoliosis"), Noun(one="scoliosis of the lumbar spine")),
    "fracture": (Noun(one="fracture", many="fractures"), Noun(one="vertebral fracture", many="vertebral fractures")),
    "vertebral wedging": (Noun(one="wedging of the vertebra"), Noun(one="vertebral wedging")),
    "vertebral height loss": (
        Noun(one="loss of vertebral body height"),
        Noun(one="reduction of vertebral body height"),
    ),
    "haemangioma": (
        Noun(one="haemangioma", many="haemangiomas"),
        Noun(one="vertebral haemangioma", many="vertebral haemangiomas"),
    ),
    "cyst": (Noun(one="cyst", many="cysts"),),
    "mass": (Noun(one="mass", many="masses"), Noun(one="lesion", many="lesions")),
    "marrow change": (
        Noun(one="marrow signal change", many="marrow signal changes", always_many=True),
        Noun(one="bone marrow change", many="bone marrow changes", always_many=True),
    ),
    "postoperative change": (
        Noun(one="postoperative change", many="postoperative changes", always_many=True),
        Noun(one="sign of an operation", many="signs of an operation", always_many=True),
    ),
    "granulation tissue": (Noun(one="granulation tissue"),),
    "disc migration": (Noun(one="migration of disc material"), Noun(one="disc migration")),
    "discitis": (Noun(one="discitis"),),
    "vacuum phenomenon": (Noun(one="vacuum phenomenon"),),
    "disc space narrowing": (
        Noun(one="disc space narrowing"),
        Noun(one="narrowing of the disc space"),
        Noun(one="loss of disc height"),
    ),
    "facet hypertrophy": (
        Noun(one="facet joint hypertrophy"),
        Noun(one="hypertrophy of the facet joints"),
        Noun(one="facet hypertrophy"),
    ),
    "facet arthropathy": (Noun(one="facet joint arthropathy"), Noun(one="arthropathy of the facet joints")),
    "ligament hypertrophy": (
        Noun(one="ligamentum flavum hypertrophy"),
        Noun(one="hypertrophy of the ligamenta flava"),
        Noun(one="thickening of the ligamentum flavum"),
    ),
    "nerve root crowding": (
        Noun(one="crowding of the nerve roots"),
        Noun(one="crowding of the cauda equina roots"),
    ),
    "Pfirrmann grade": (Noun(one="Pfirrmann {grade}"),),
}
