"""The phrases of rephrasings: how a radiologist names each kind of finding. Data only."""

from dataclasses import dataclass

# What else a report may say about a disc's contour, in our spelling.
SHAPES = {shape: shape for shape in ("diffuse", "focal", "circumferential", "generalised", "asymmetric", "symmetric")}
SHAPES |= {"broadbased": "broad-based", "generalized": "generalised"}
ZONES = ("paracentral", "paramedian", "foraminal", "extraforaminal", "posterolateral", "subarticular")
SIDE_WORDS = {
    "left": ("left", "left-sided"),
    "right": ("right", "right-sided"),
    "bilateral": ("bilateral",),
    "central": ("central",),
}


@dataclass(frozen=True)
class Noun:
    """A finding as a noun. `{grade}` is replaced by the grade (`type 2`) if the report gives one."""

    one: str  # without article
    many: str | None = None  # for several levels; None for uncountable nouns ("spinal canal stenosis")
    always_many: bool = False  # whether the plural is used even at one level ("osteophytes")
    of_both: str | None = None  # for both of a pair that is not left and right ("changes of both endplates")


def _countable(noun: str) -> Noun:
    return Noun(noun, f"{noun}s")


def _uncountable(*wordings: str) -> tuple[Noun, ...]:
    return tuple(map(Noun, wordings))


def _always_many(noun: str, of_both: str | None = None) -> Noun:
    return Noun(noun, f"{noun}s", always_many=True, of_both=of_both)


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A finding as the effect of the finding before it on a structure."""

    verbs: tuple[tuple[str, str, str, str], ...]  # third person singular, plural, participle, noun with preposition
    name: str  # the finding as a compound noun, without a side
    structure: str  # without a side
    sided: str | None = None  # with `{side}` for left or right; None if it has no side
    both: str | None = None  # on both sides


_COMPRESS = ("compresses", "compress", "compressing", "compression of")
_NARROW = ("narrows", "narrow", "narrowing", "narrowing of")
_ENCROACH = ("encroaches on", "encroach on", "encroaching on", "encroachment on")
_ABUT = ("abuts", "abut", "abutting", "abutment of")
_EFFACE = ("effaces", "efface", "effacing", "effacement of")
_TOUCH = ("touches", "touch", "touching", "abutment of")

_SAC = {"structure": "the thecal sac", "sided": "the {side} side of the thecal sac"}
_ROOT = {"structure": "the nerve roots", "sided": "the {side} nerve root", "both": "both nerve roots"}
_FORAMEN = {"structure": "the neural foramina", "sided": "the {side} neural foramen", "both": "both neural foramina"}
_RECESS = {"structure": "the lateral recesses", "sided": "the {side} lateral recess", "both": "both lateral recesses"}

EFFECTS: dict[str, Effect] = {
    "thecal sac compression": Effect(verbs=(_COMPRESS,), name="thecal sac compression", **_SAC),
    "thecal sac contact": Effect(verbs=(_ABUT, _TOUCH), name="thecal sac contact", **_SAC),
    "nerve root compression": Effect(verbs=(_COMPRESS,), name="nerve root compression", **_ROOT),
    "nerve root contact": Effect(verbs=(_ABUT, _TOUCH), name="nerve root contact", **_ROOT),
    "foraminal narrowing": Effect(verbs=(_NARROW, _ENCROACH), name="foraminal narrowing", **_FORAMEN),
    "foraminal contact": Effect(verbs=(_ABUT, _TOUCH), name="abutment of the neural foramina", **_FORAMEN),
    "lateral recess narrowing": Effect(verbs=(_NARROW, _ENCROACH), name="lateral recess narrowing", **_RECESS),
    "spinal cord compression": Effect(verbs=(_COMPRESS,), name="spinal cord compression", structure="the spinal cord"),
    "spinal cord contact": Effect(verbs=(_ABUT, _TOUCH), name="spinal cord contact", structure="the spinal cord"),
    "CSF space effacement": Effect(verbs=(_EFFACE,), name="CSF space effacement", structure="the CSF spaces"),
}

CONTOURS: dict[str, tuple[Noun, ...]] = {
    "bulge": (_countable("disc bulge"), Noun("bulge of the disc", "bulges of the discs")),
    "protrusion": (_countable("disc protrusion"), Noun("protrusion of the disc", "protrusions of the discs")),
    "extrusion": (_countable("disc extrusion"), Noun("extrusion of the disc", "extrusions of the discs")),
    "sequestration": (_countable("sequestrated disc fragment"), _countable("disc sequestration")),
    "herniation": (_countable("disc herniation"), Noun("herniation of the disc", "herniations of the discs")),
}

OTHERS: dict[str, tuple[Noun, ...]] = {
    "stenosis": _uncountable("spinal canal stenosis", "narrowing of the spinal canal", "stenosis of the spinal canal"),
    "annular tear": (
        _countable("annular tear"),
        Noun("tear of the annulus", "tears of the annulus"),
        _countable("annular fissure"),
    ),
    "dehydration": _uncountable(
        "disc dehydration", "disc desiccation", "dehydration of the disc", "desiccation of the disc"
    ),
    "Modic change": (_always_many("Modic {grade} change"), _always_many("Modic {grade} endplate change")),
    "endplate change": (
        _always_many("{grade} endplate change", of_both="{grade} changes of both endplates"),
        Noun("{grade} endplate degeneration", of_both="{grade} degeneration of both endplates"),
    ),
    "degenerative change": (_always_many("degenerative change"),),
    "spondylolisthesis": _uncountable("{grade} spondylolisthesis", "spondylolisthesis {grade}"),
    "spondylolysis": _uncountable("spondylolysis"),
    "osteophyte": (_always_many("osteophyte"),),
    "Schmorl node": (_always_many("Schmorl's node"), _always_many("Schmorl's nodule")),
    "muscle spasm": (
        Noun("muscle spasm"),
        Noun("feature of muscle spasm", "features of muscle spasm", always_many=True),
        Noun("spasm of the muscles"),
    ),
    "loss of lordosis": _uncountable(
        "straightening of the lumbar lordosis", "loss of the lumbar lordosis", "loss of lordosis"
    ),
    "scoliosis": _uncountable("scoliosis", "scoliosis of the lumbar spine"),
    "fracture": (_countable("fracture"), _countable("vertebral fracture")),
    "vertebral wedging": _uncountable("wedging of the vertebra", "vertebral wedging"),
    "vertebral height loss": _uncountable("loss of vertebral body height", "reduction of vertebral body height"),
    "haemangioma": (_countable("haemangioma"), _countable("vertebral haemangioma")),
    "cyst": (_countable("cyst"),),
    "mass": (Noun("mass", "masses"), _countable("lesion")),
    "marrow change": (_always_many("marrow signal change"), _always_many("bone marrow change")),
    "postoperative change": (
        _always_many("postoperative change"),
        Noun("sign of an operation", "signs of an operation", always_many=True),
    ),
    "granulation tissue": _uncountable("granulation tissue"),
    "disc migration": _uncountable("migration of disc material", "disc migration"),
    "discitis": _uncountable("discitis"),
    "vacuum phenomenon": _uncountable("vacuum phenomenon"),
    "disc space narrowing": _uncountable("disc space narrowing", "narrowing of the disc space", "loss of disc height"),
    "facet hypertrophy": _uncountable(
        "facet joint hypertrophy", "hypertrophy of the facet joints", "facet hypertrophy"
    ),
    "facet arthropathy": _uncountable("facet joint arthropathy", "arthropathy of the facet joints"),
    "ligament hypertrophy": _uncountable(
        "ligamentum flavum hypertrophy", "hypertrophy of the ligamenta flava", "thickening of the ligamentum flavum"
    ),
    "nerve root crowding": _uncountable("crowding of the nerve roots", "crowding of the cauda equina roots"),
    "Pfirrmann grade": _uncountable("Pfirrmann {grade}"),
}
