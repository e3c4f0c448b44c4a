"""The words of lumbar reports: their forms, and what they mean. Data only.

A report is read as lemmas. `FORMS` and `ACTION_FORMS` give the spellings of each lemma, `FINDING_PHRASES` and
`STRUCTURE_PHRASES` are regular expressions over lemmas with single blanks between them, and `RELATIONS` says which
finding an action on a structure is.
"""

import re


def word_set(text: str) -> frozenset[str]:
    """Split a list of words at its blanks."""
    return frozenset(text.split())


def _kinds(text: str) -> frozenset[str]:
    return frozenset(text.split(", "))


# What acts on a structure: lemma → role → forms. "active" words look for their structure on the right ("compressing
# the sac"), "passive" ones and "noun"s on the left first ("the sac is compressed", "sac compression").
ACTION_FORMS = {
    "compress": {
        "active": "compress compresses compressing pressing encroach encroaches encroaching impinge impinges impinging "
        "displace displaces displacing obliterate obliterates obliterating efface effaces effacing flatten flattens "
        "flattening compromise compromises compromising deforming",
        "passive": "compressed encroached impinged displaced obliterated effaced flattened compromised",
        "noun": "compression encroachment impingement displacement obliteration effacement",
    },
    "indent": {"active": "indent indents indenting intending", "passive": "indented", "noun": "indentation impression"},
    "touch": {
        "active": "abut abuts abutting touch touches touching reach reaches reaching contact contacts contacting",
        "passive": "abutted touched contacted",
        "noun": "abutment",
    },
    "narrow": {"active": "narrows narrowing", "passive": "narrow narrowed stenosed stenotic", "noun": "stenosis"},
    "reduce": {"active": "reducing", "passive": "reduced decreased diminished", "noun": "loss reduction decrease"},
    "crowd": {"active": "crowding", "passive": "crowded"},
    "thicken": {"active": "thickening", "passive": "hypertrophied thickened enlarged", "noun": "hypertrophy"},
    "degrade": {"passive": "arthritic", "noun": "arthropathy arthrosis osteoarthritis"},
    "spare": {"passive": "adequate patent preserved open normal capacious maintained intact unremarkable"},
    "free": {"passive": "free"},
}

# lemma → forms. Words without meaning that resemble one with a meaning are in `OTHER_WORDS`.
FORMS = {
    "annular": "annular annulus",
    "appear": "appear appears appeared",
    "be": "is are be was were been being",
    "both": "both bilateral bilaterally",
    "bulge": "bulge bulges bulging bulged",
    "canal": "canal canals",
    "central": "central centrally midline posterocentral posteriocentral",
    "change": "change changes altered alteration alterations abnormality abnormalities irregular irregularity",
    "cyst": "cyst cysts meningocele",
    "defect": "defect defects",
    "degenerative": "degenerative degenerated spondylotic",
    "degeneration": "degeneration degenerations spondylosis",
    "desiccate": "desiccated desiccating desiccation desiccative dissicating dissecating dehydrated dehydration",
    "disc": "disc discs disk disks discal",
    "edema": "edema oedema",
    "endplate": "endplate endplates",
    "exit": "exit exits exiting exite",
    "extrude": "extrusion extrusions extruded extruding extrudes",
    "facet": "facet facets zygapophyseal zygapophysial apophyseal",
    "flavum": "flavum flava",
    "foramen": "foramen foramina foramens neuroforamen neuroforamina",
    "foraminal": "foraminal neuroforaminal",
    "fracture": "fracture fractures fractured",
    "fragment": "fragment fragments",
    "hemangioma": "hemangioma hemangiomas haemangioma haemangiomas",
    "herniate": "herniation herniations herniated herniating herniates prolapse prolapsed prolapses hnp pivd",
    "hydrate": "hydrated hydration",
    "joint": "joint joints",
    "left": "left leftward leftwards lt lft l't levo laevo",
    "level": "level levels",
    "ligament": "ligamentum ligament ligaments ligamenta",
    "mass": "lesion lesions mass masses tumour tumor lipoma",
    "mild": "mild mildly slight slightly small",
    "minimal": "minimal minimally tiny",
    "moderate": "moderate moderately",
    "migrate": "migration migrated migrating migrates",
    "modic": "modic modec",
    "multilevel": "multilevel multilevels",
    "nerve": "nerve nerves",
    "notable": "noticeably notably mainly mostly largest especially particularly predominantly worst maximal",
    "no": "no nil",
    "not": "not cannot can't couldn't isn't aren't wasn't weren't doesn't don't didn't hasn't haven't hadn't "
    "isnt arent wasnt werent doesnt didnt hasnt havent",
    "noted": "noted notes seen found identified detected visualised visualized demonstrated appreciated present "
    "evident",
    "operate": "operation operations surgery surgical operative postoperative fixation fusion screws laminectomy "
    "discectomy fenestration decompression",
    "osteophyte": "osteophyte osteophytes osteophytic",
    "plate": "plate plates",
    "protrude": "protrusion protrusions protruded protruding protrudes",
    "recess": "recess recesses",
    "resolve": "resolved disappeared vanished resorbed",
    "right": "right rightward rightwards rt rght r't dextro",
    "root": "root roots rootlets",
    "sac": "sac sca sack",
    "schmorl": "schmorl schmorls schmorl's",
    "scoliosis": "scoliosis kyphoscoliosis",
    "sequester": "sequestration sequestrated sequestered sequestrum sequestrate",
    "severe": "severe severely marked markedly significant significantly large largely huge",
    "side": "side sides sided",
    "space": "space spaces",
    "spasm": "spasm spasms spam",
    "spondylolisthesis": "spondylolisthesis anterolisthesis retrolisthesis listhesis",
    "spondylolysis": "spondylolysis lysis",
    "straighten": "straightening straightened",
    "tear": "tear tears torn fissure fissures",
    "thecal": "thecal theca dural thecalsac",
    "vertebra": "vertebra vertebrae vertebral",
    "wedge": "wedge wedging wedged",
}

# Known words with neither lemma nor meaning, except those that phrases and lists below contain.
OTHER_WORDS = word_set(
    """
    abnormal about advised alone alongside among angular anterior anywhere apparent appearance area arthritis
    arthrodesis associated asymmetric axial based bony broad bulk bulky casts caudally caused causing centre cervical
    chance chances charge coding collection compared comparison compatible component components compose composed
    compressive compressor comprised comprises comprising conducted connected connecting connection connects constants
    contain contained containing contains content contents contract contracted contracting contracts conversion convex
    convexity correlate costs cranial cropping crossing dedicated deformity degree degrees deleted density designated
    diffuse diffusely direct display displayed displays distal dorsal dual enhancing epidural exclusion exist existed
    existing exists expansion extension extensions extradural extraforaminal face faces fact factored facts feature
    features figures focal follow forming freely general generalised grade hypertension inadequate indeed infection
    inferior inferiorly inflammatory injected injection inserted inserting insertion instance intended intensity
    inverted involving join joined joins leading leaving less lesser lever limbus located lumbosacral marker masked
    materials medial median medical minor mixed mode model models modes modest muscles nature neutral nodal note
    operator osteopenia osteopenic osteoporosis osteoporotic otherwise outside paramedian paraspinal parent part
    particular parts passing patient patients pelvic pelvis period place placed places position positive possible
    posterior posteriorly posterolateral preferred presented presents prevent previous prior process processing
    projection projections protection pulposus radiating range rather reaction reactions reading receives recent
    recession refusing region related relation relative releases remaining renal report result rights sacral scan
    secondary section sections septic serve several severed severity shall share shows sign similar since sites size
    soft spine spiral spondylitis spread superior superiorly surface surgeon symmetric symmetrically teaching these
    thickness those three torch trace tract traction treat treatment trees uncompressed underlying upper variant ventral
    view visualisation weighted weights white wide widely width
    """
)

# finding → the phrases, over lemmas, that state it on their own. The first match wins, so longer ones come first.
FINDING_PHRASES = {
    "bulge": r"bulge",
    "protrusion": r"protrude",
    "extrusion": r"extrude",
    "sequestration": r"sequester(?: disc)?(?: fragment| material)?|(?:disc|free|detached) fragment|detached disc",
    "herniation": r"herniate(?! of mening)",
    "annular tear": r"annular tear|tear (?:of (?:the )?)?annular|tear",
    "dehydration": r"desiccate|(?:dark|black) disc|reduce of disc signal|low disc signal",
    "hydration": r"(?:well )?hydrate|bright (?:homogeneous )?nucleus|nucleus of high signal",
    "Modic change": r"(?:(?:endplate|end plate) )?(?:marrow change (?:of |\( )?)?modic(?: ?type)?"
    r"(?: ?(?:i{1,3}|[123]))?(?: \))?(?: (?:endplate|end plate))?(?: degenerative)?(?: change)?",
    "endplate change": r"(?:degenerative )?(?:endplate|end plate)(?! osteophyte)"
    r"(?: degenerative)?(?: change| degeneration)?",
    "degenerative change": r"degenerative(?: degenerative)? change|degeneration",
    "Pfirrmann grade": r"pfirrmann|pfirrman",
    "spondylolisthesis": r"vertebra slip(?: \( spondylolisthesis)?|slip of (?:the )?vertebra|spondylolisthesis",
    "spondylolysis": r"spondylolysis|pars (?:interarticularis )?defect"
    r"|defect (?:of |in )(?:the )?(?:both |left |right )?pars(?: interarticularis)?",
    "osteophyte": r"(?:(?:endplate|end plate) )?osteophyte",
    "Schmorl node": r"schmorl(?: (?:node|nodes|nodule|nodules))?",
    "muscle spasm": r"(?:muscle )?spasm",
    "loss of lordosis": r"straighten|reduce (?:of )?(?:the )?(?:normal )?(?:lumbar )?lordosis",
    "scoliosis": r"scoliosis",
    "fracture": r"(?:(?:compress|wedge|burst) )?fracture",
    "vertebral wedging": r"wedge",
    "haemangioma": r"hemangioma",
    "cyst": r"cyst",
    "marrow change": r"(?:bone )?marrow(?! isotope)(?: (?:signal|signals|edema|change|reconversion))*",
    "postoperative change": r"operate",
    "granulation tissue": r"granulation(?: tissue)?",
    "disc migration": r"migrate",
    "discitis": r"discitis",
    "vacuum phenomenon": r"vacuum|vacuume",
    "mass": r"mass",
}

# structure → the phrases that name it.
STRUCTURE_PHRASES = {
    "foramen": r"(?:exit )?(?:neural|nerve) (?:exit )?(?:canal|foramen)|exit (?:canal|foramen)|exit neural"
    r"|(?:intervertebral )?foramen|foraminal(?= (?:narrow|compress))",
    "lateral recess": r"(?:lateral |subarticular )?recess|subarticular(?: zone)?(?= narrow)",
    "cauda equina": r"cauda(?: equina)?(?: root| nerve)*|intrathecal root",
    "nerve root": r"(?:exit )?(?:nerve|neural) root|(?:exit )?(?:nerve|root)",
    "spinal cord": r"spinal cord|cord|conus",
    "CSF space": r"csf(?: space)?|subarachnoid space",
    "spinal canal": r"(?:spinal |central |lumbar |vertebra )*canal|spinal(?= narrow)|spinal$",
    "thecal sac": r"thecal(?: sac| [a-z]{2,4}(?= (?:and|or)(?: |$)))?|sac",
    "vertebral height": r"(?:vertebra )?(?:body|bodies) height",
    "disc space": r"(?:intervertebral )?disc space|(?:disc )?height",
    "facet joint": r"facet(?: joint)?",
    "ligament": r"ligament(?: flavum)?|flavum",
}

# (action, structure) → finding. Other pairs mean nothing ("the sac is reduced in area").
RELATIONS = {
    (action, structure): finding
    for finding, actions, structure in (
        ("thecal sac compression", "compress indent narrow", "thecal sac"),
        ("nerve root compression", "compress indent", "nerve root"),
        ("nerve root compression", "compress", "cauda equina"),
        ("spinal cord compression", "compress indent", "spinal cord"),
        ("foraminal narrowing", "compress narrow", "foramen"),
        ("lateral recess narrowing", "compress narrow", "lateral recess"),
        ("stenosis", "compress narrow", "spinal canal"),
        ("CSF space effacement", "compress narrow", "CSF space"),
        ("thecal sac contact", "touch", "thecal sac"),
        ("nerve root contact", "touch", "nerve root"),
        ("spinal cord contact", "touch", "spinal cord"),
        ("foraminal contact", "touch", "foramen"),
        ("disc space narrowing", "narrow reduce", "disc space"),
        ("vertebral height loss", "reduce", "vertebral height"),
        ("nerve root crowding", "crowd", "cauda equina"),
        ("nerve root crowding", "crowd", "nerve root"),
        ("facet hypertrophy", "thicken", "facet joint"),
        ("ligament hypertrophy", "thicken", "ligament"),
        ("facet arthropathy", "degrade", "facet joint"),
    )
    for action in actions.split()
}
# Findings that a spared structure does not have ("adequate spinal canal").
DENIED_BY_SPARING = {
    "thecal sac": "thecal sac compression",
    "nerve root": "nerve root compression",
    "foramen": "foraminal narrowing",
    "lateral recess": "lateral recess narrowing",
    "spinal canal": "stenosis",
    "disc space": "disc space narrowing",
    "vertebral height": "vertebral height loss",
}

SPARING_ACTIONS = ("spare", "free")

# Findings whose words name a structure, so that it may be spared: "normal bone marrow signal".
SPARABLE_KINDS = _kinds("marrow change, endplate change")

DISC_CONTOUR_KINDS = ("bulge", "protrusion", "extrusion", "sequestration", "herniation")
FINDING_KINDS = tuple(
    dict.fromkeys(
        (*(kind for kind in FINDING_PHRASES if kind != "hydration"), *RELATIONS.values(), *DENIED_BY_SPARING.values())
    )
)
# A disc and what it does to its surroundings: a trailing "more to the left" refers to these.
DISC_AND_EFFECT_KINDS = frozenset(DISC_CONTOUR_KINDS).union(
    kind for (action, _), kind in RELATIONS.items() if action in ("compress", "indent", "touch", "narrow")
)
# Kinds that refer to the level named last when a statement names none.
CONTINUING_KINDS = DISC_AND_EFFECT_KINDS | _kinds(
    "annular tear, disc migration, facet hypertrophy, ligament hypertrophy, endplate change, Modic change, "
    "nerve root crowding, Pfirrmann grade, spondylolisthesis"
)
WITHOUT_LEVEL = _kinds("muscle spasm, loss of lordosis, scoliosis")
WITHOUT_SIDE = _kinds(
    "stenosis, muscle spasm, loss of lordosis, dehydration, Pfirrmann grade, degenerative change, marrow change, "
    "spondylolisthesis, disc space narrowing, CSF space effacement, disc migration"
)
GRADED_KINDS = _kinds("spondylolisthesis, Pfirrmann grade, Modic change, endplate change")

SIDES = {"left": "left", "right": "right", "both": "bilateral", "central": "central"}
SEVERITIES = ("minimal", "mild", "moderate", "severe")

# Kinds that on their own do not count as low back pain: posture, soft tissue, a bare grade.
NOT_LOW_BACK_PAIN = _kinds("muscle spasm, loss of lordosis, Pfirrmann grade")
# kind → its class in the multi-label form, in column order; rarer kinds have none.
LABEL_OF_KIND = {kind: f"disc {kind}" for kind in DISC_CONTOUR_KINDS} | {
    "annular tear": "annular tear",
    "dehydration": "disc dehydration",
    "disc space narrowing": "disc space narrowing",
    "thecal sac compression": "thecal sac compression",
    "nerve root compression": "nerve root compression",
    "spinal cord compression": "spinal cord compression",
    "stenosis": "spinal canal stenosis",
    "foraminal narrowing": "foraminal narrowing",
    "lateral recess narrowing": "lateral recess narrowing",
    "facet hypertrophy": "facet hypertrophy",
    "ligament hypertrophy": "ligament hypertrophy",
    "spondylolisthesis": "spondylolisthesis",
    "Modic change": "Modic change",
    "endplate change": "endplate change",
    "Schmorl node": "Schmorl node",
    "fracture": "vertebral fracture",
}

NEGATIONS = word_set("no none not without neither nor denied denies absence lack never")
# Two words that deny what follows them; "free" on its own denies what precedes it.
NEGATING_PAIRS = (("negative", "for"), ("free", "of"), ("free", "from"), ("resolution", "of"))
# Phrases that look like a negation but are not: "no change in the protrusion" says that there still is one.
_WAYS_OF_CHANGE = r"(?:change|increase|progression|progress|improvement|worsening|deterioration|enlargement)"
NO_NEGATION = (
    r"(?:with or )?without (?:contrast|nuclear border|findings)|not only"
    r"|no (?:severe |interval |definite |obvious |further )*(?:change(?! (?:of|in))"
    rf"|{_WAYS_OF_CHANGE}(?= (?:of|in) (?:(?!and|or|nor|with)[^\s,;:]+ ){{0,7}}?"
    r"(?:bulge|protrude|extrude|sequester|herniate|tear|cyst|fracture|spondylolisthesis|scoliosis|stenosis|compress"
    r"|compression|narrow|narrowing)))"
    r"|not (?:be )?(?:free (?:of|from)|negative for)"
    r"|(?:not|partially|partial|partly|incompletely|incomplete|nearly|almost) (?:be )?"
    r"(?:yet |completely |fully |entirely )?(?:resolve|resolution)"
)
# Words that query a finding: it cannot be excluded.
QUERYING = r"not (?:completely |entirely |fully |definitely )?(?:exclude|excludes|rule out)"
QUERIED_BEFORE = r"not (?:be )?(?:completely |entirely |fully |definitely )?(?:excluded|ruled out)"
# Negations after what they deny.
NEGATED_BEFORE = r"(?:not|no longer) (?:be )?(?:clearly )?noted|absent|excluded|ruled out|resolve"
# Words that answer the heading before them: "herniation: none", "stenosis - absent".
ANSWERS = (("no",), ("none",), ("negative",), ("no", "evidence"), ("none", "noted"))
END_OF_NEGATION = word_set("but however although though except apart while yet where with noted ; : (")
# After a comma, these begin a new statement and end a denied list.
AFFIRMING = word_set("<level> there be a an noted mild moderate notable old probably likely suggestive")

# At the beginning of a line these begin a statement, in lower case, too.
STATEMENT_STARTS = NEGATIONS.union(
    word_set(
        """the there evidence feature features appearance appearances spare free multilevel multiple diffuse wide
        minimal mild moderate severe central posterior anterior left right desiccate degenerative grade about"""
    )
)

# Words that a list of structures, sides or levels may contain.
LIST_WORDS = word_set(
    """and or nor , / ( ) the a an of on upon either neither both left right central side be appear also still not no
    <vertebra> mild moderate severe minimal traversing descending relatively any its"""
)
SIDE_LIST_WORDS = word_set("and or to the more mild of toward towards paracentral side extending on ,")
LEVEL_LIST_WORDS = word_set(", and or the level at disc to through /")
END_OF_STRUCTURES = word_set(
    """within in inside along through below above behind extending extended extends due into toward towards beyond
    without no not but however ; :"""
)
# Words that exclude the levels that follow: "at all levels except L5-S1"; words that may stand between.
EXCEPTING = (("except",), ("excluding",), ("not",), ("sparing",), ("apart", "from"), ("other", "than"))
EXCEPTED_LEVEL_WORDS = word_set("at the level for of")
# Words of statements about no level in particular.
GENERAL = word_set("multilevel elsewhere other multiple")

# Words that are spelt right, whatever they resemble, including those of grammar and phrases.
KNOWN_WORDS = OTHER_WORDS.union(
    *(NEGATIONS, END_OF_NEGATION, AFFIRMING, LIST_WORDS, SIDE_LIST_WORDS, LEVEL_LIST_WORDS, END_OF_STRUCTURES, GENERAL),
    *(
        re.findall("[a-z]+", phrase)
        for phrase in (
            *FINDING_PHRASES.values(),
            *STRUCTURE_PHRASES.values(),
            *(NO_NEGATION, QUERYING, QUERIED_BEFORE, NEGATED_BEFORE),
            *(" ".join(words) for words in (*NEGATING_PAIRS, *ANSWERS, *EXCEPTING)),
        )
    ),
)
