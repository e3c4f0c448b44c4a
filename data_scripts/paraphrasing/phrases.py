"""The phrases of rephrasings: how a radiologist names each kind of finding. Data only."""

from dataclasses import dataclass

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
SIDE_WORDS = {
    "left": ("left", "left-sided"),
    "right": ("right", "right-sided"),
    "bilateral": ("bilateral",),
    "central": ("central",),
}


@dataclass(frozen=True)
class Noun:
    """A finding as a noun. `{grade}` is replaced by the grade (`type 2`) if the report gives one.

    Args:
        one: Singular, without article.
        many: Plural, for several levels; None for uncountable nouns ("spinal canal stenosis").
        always_many: Whether the plural is used even at one level ("osteophytes").
        of_both: Wording for both of a pair that is not left and right ("changes of both endplates").
    """

    one: str
    many: str | None = None
    always_many: bool = False
    of_both: str | None = None


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A finding as what the finding before it does to a structure.

    Args:
        verbs: Each wording's third person singular, plural, participle, and noun with preposition.
        name: The finding as a compound noun, for no side.
        structure: The structure, for no side.
        sided: The structure with `{side}` for left or right; None if it has no side.
        both: The structure on both sides.
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
    "bulge": (Noun("disc bulge", "disc bulges"), Noun("bulge of the disc", "bulges of the discs")),
    "protrusion": (
        Noun("disc protrusion", "disc protrusions"),
        Noun("protrusion of the disc", "protrusions of the discs"),
    ),
    "extrusion": (Noun("disc extrusion", "disc extrusions"), Noun("extrusion of the disc", "extrusions of the discs")),
    "sequestration": (
        Noun("sequestrated disc fragment", "sequestrated disc fragments"),
        Noun("disc sequestration", "disc sequestrations"),
    ),
    "herniation": (
        Noun("disc herniation", "disc herniations"),
        Noun("herniation of the disc", "herniations of the discs"),
    ),
}

OTHERS: dict[str, tuple[Noun, ...]] = {
    "stenosis": (
        Noun("spinal canal stenosis"),
        Noun("narrowing of the spinal canal"),
        Noun("stenosis of the spinal canal"),
    ),
    "annular tear": (
        Noun("annular tear", "annular tears"),
        Noun("tear of the annulus", "tears of the annulus"),
        Noun("annular fissure", "annular fissures"),
    ),
    "dehydration": (
        Noun("disc dehydration"),
        Noun("disc desiccation"),
        Noun("dehydration of the disc"),
        Noun("desiccation of the disc"),
    ),
    "Modic change": (
        Noun("Modic {grade} change", "Modic {grade} changes", always_many=True),
        Noun("Modic {grade} endplate change", "Modic {grade} endplate changes", always_many=True),
    ),
    "endplate change": (
        Noun(
            "{grade} endplate change",
            "{grade} endplate changes",
            always_many=True,
            of_both="{grade} changes of both endplates",
        ),
        Noun("{grade} endplate degeneration", of_both="{grade} degeneration of both endplates"),
    ),
    "degenerative change": (Noun("degenerative change", "degenerative changes", always_many=True),),
    "spondylolisthesis": (Noun("{grade} spondylolisthesis"), Noun("spondylolisthesis {grade}")),
    "spondylolysis": (Noun("spondylolysis"),),
    "osteophyte": (Noun("osteophyte", "osteophytes", always_many=True),),
    "Schmorl node": (
        Noun("Schmorl's node", "Schmorl's nodes", always_many=True),
        Noun("Schmorl's nodule", "Schmorl's nodules", always_many=True),
    ),
    "muscle spasm": (
        Noun("muscle spasm"),
        Noun("feature of muscle spasm", "features of muscle spasm", always_many=True),
        Noun("spasm of the muscles"),
    ),
    "loss of lordosis": (
        Noun("straightening of the lumbar lordosis"),
        Noun("loss of the lumbar lordosis"),
        Noun("loss of lordosis"),
    ),
    "scoliosis": (Noun("scoliosis"), Noun("scoliosis of the lumbar spine")),
    "fracture": (Noun("fracture", "fractures"), Noun("vertebral fracture", "vertebral fractures")),
    "vertebral wedging": (Noun("wedging of the vertebra"), Noun("vertebral wedging")),
    "vertebral height loss": (Noun("loss of vertebral body height"), Noun("reduction of vertebral body height")),
    "haemangioma": (Noun("haemangioma", "haemangiomas"), Noun("vertebral haemangioma", "vertebral haemangiomas")),
    "cyst": (Noun("cyst", "cysts"),),
    "mass": (Noun("mass", "masses"), Noun("lesion", "lesions")),
    "marrow change": (
        Noun("marrow signal change", "marrow signal changes", always_many=True),
        Noun("bone marrow change", "bone marrow changes", always_many=True),
    ),
    "postoperative change": (
        Noun("postoperative change", "postoperative changes", always_many=True),
        Noun("sign of an operation", "signs of an operation", always_many=True),
    ),
    "granulation tissue": (Noun("granulation tissue"),),
    "disc migration": (Noun("migration of disc material"), Noun("disc migration")),
    "discitis": (Noun("discitis"),),
    "vacuum phenomenon": (Noun("vacuum phenomenon"),),
    "disc space narrowing": (
        Noun("disc space narrowing"),
        Noun("narrowing of the disc space"),
        Noun("loss of disc height"),
    ),
    "facet hypertrophy": (
        Noun("facet joint hypertrophy"),
        Noun("hypertrophy of the facet joints"),
        Noun("facet hypertrophy"),
    ),
    "facet arthropathy": (Noun("facet joint arthropathy"), Noun("arthropathy of the facet joints")),
    "ligament hypertrophy": (
        Noun("ligamentum flavum hypertrophy"),
        Noun("hypertrophy of the ligamenta flava"),
        Noun("thickening of the ligamentum flavum"),
    ),
    "nerve root crowding": (Noun("crowding of the nerve roots"), Noun("crowding of the cauda equina roots")),
    "Pfirrmann grade": (Noun("Pfirrmann {grade}"),),
}
