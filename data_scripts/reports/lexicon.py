"""The words of lumbar reports: their forms, and what they mean. Data only.

A report is read as lemmas. `FORMS` and `ACTION_FORMS` give the spellings of each lemma, `FINDING_PHRASES` and
`STRUCTURE_PHRASES` are regular expressions over lemmas with single blanks between them, and `RELATIONS` says which
finding an action on a structure is.
"""

import re

from data_scripts.reports import cues
from data_scripts.reports.cues import word_set as word_set


def _kinds(text: str) -> frozenset[str]:
    return frozenset(text.split(", "))


# What acts on a structure: lemma → role → forms. "active" words look for their structure on the right ("compressing
# the sac"), "passive" ones and "noun"s on the left first ("the sac is compressed", "sac compression").
ACTION_FORMS = {
    "compress": {
        "active": "compress compresses compressing pressing encroach encroaches encroaching impinge impinges impinging "
        "displace displaces displacing deform deforms entrap entraps entrapping obliterate obliterates obliterating "
        "efface effaces effacing flatten flattens "
        "flattening compromise compromises compromising deforming",
        "passive": "compressed encroached impinged displaced obliterated effaced flattened compromised deformed "
        "entrapped",
        "noun": "entrapment compression encroachment impingement displacement obliteration effacement",
    },
    "indent": {"active": "indent indents indenting intending", "passive": "indented", "noun": "indentation impression"},
    "effect": {"noun": "effect effects"},
    "touch": {
        "active": "abut abuts abutts abutting touch touches touching reach reaches reaching contact contacts "
        "contacting",
        "passive": "abutted touched contacted",
        "noun": "abutment",
    },
    "narrow": {"active": "narrows narrowing", "passive": "narrow narrowed stenosed stenotic", "noun": "stenosis"},
    "collapse": {"active": "collapsing", "passive": "collapsed", "noun": "collapse"},
    "reduce": {"active": "reducing", "passive": "reduced decreased diminished", "noun": "loss reduction decrease"},
    "crowd": {"active": "crowding clumping", "passive": "crowded clumped"},
    "thicken": {
        "active": "thickening buckling infolding",
        "passive": "hypertrophied thickened enlarged",
        "noun": "hypertrophy",
    },
    "degrade": {"passive": "arthritic", "noun": "arthropathy arthrosis osteoarthritis"},
    "spare": {
        "passive": "adequate patent preserved open normal capacious maintained intact unremarkable "
        "spared healthy unaffected uninvolved"
    },
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
    "abnormality": "abnormality abnormalities",
    "change": "change changes altered alteration alterations irregular irregularity",
    "cyst": "cyst cysts meningocele",
    "defect": "defect defects",
    "degenerative": "degenerative degenerated degenerate degenerating spondylotic",
    "degeneration": "degeneration degenerations spondylosis spondyloarthrosis osteochondrosis",
    "desiccate": "desiccated desiccating desiccation desiccative dissicating dissecating dehydrated dehydration",
    "disc": "disc discs disk disks discal",
    "edema": "edema oedema",
    "endplate": "endplate endplates",
    "exit": "exit exits exiting exite",
    "extrude": "extrusion extrusions extruded extruding extrudes",
    "fail": "fail fails failed failing failure",
    "facet": "facet facets facetal facetogenic zygapophyseal zygapophysial apophyseal",
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
    "mass": "lesion lesions mass masses tumour tumor lipoma metastasis metastases metastatic neoplasm "
    "neoplasms schwannoma neurofibroma meningioma ependymoma plasmacytoma",
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
    "evident visible observed",
    "operate": "operation operations surgery surgeries surgical operated operative postoperative fixation fusion "
    "screws laminectomy laminectomies laminotomy discectomy microdiscectomy fenestration decompression",
    "osteophyte": "osteophyte osteophytes osteophytic spur spurs spurring lipping",
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
    "severe": "severe severely marked markedly large largely huge advanced critical profound pronounced",
    "significant": "significant significantly",
    "side": "side sides sided",
    "space": "space spaces",
    "spasm": "spasm spasms spam",
    "spondylolisthesis": "spondylolisthesis anterolisthesis retrolisthesis laterolisthesis listhesis",
    "spondylolysis": "spondylolysis lysis",
    "straighten": "straightening straightened",
    "tear": "tear tears torn fissure fissures fissured fissuring rent",
    "thecal": "thecal theca dural thecalsac",
    "vertebra": "vertebra vertebrae vertebral",
    "wedge": "wedge wedging wedged",
}

# Known words with neither lemma nor meaning, except those that phrases and lists below contain.
OTHER_WORDS = word_set(
    """
    curvature falls suspicious
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
# Words for wear and its like, of endplates, marrow or facets.
_CHANGE = "(?:change|abnormality)"
_DISEASE = "(?:disease|disorder)"
FINDING_PHRASES = {
    "bulge": r"bulge",
    "protrusion": r"protrude",
    "extrusion": r"extrude",
    "sequestration": r"sequester(?: disc)?(?: fragment| material)?|(?:disc|free|detached) fragment|detached disc",
    "herniation": r"herniate(?! of mening)|(?:slipped|ruptured) (?:intervertebral )?disc|disc rupture",
    "annular tear": r"annular (?:tear|disruption|defect)|tear (?:of (?:the )?)?annular"
    r"|(?<!meniscal )(?<!meniscus )(?<!muscle )(?<!ligament )(?<!tendon )(?<!thecal )tear"
    r"|(?:high|increased) (?:signal )?intensity zone|hyperintense zone|hiz"
    r"|(?:high|increased) (?:<vertebra> )?signal (?:intensity )?(?:in|of|within) (?:the )?(?:posterior )?annular",
    "dehydration": r"desiccate|(?:dark|black) disc|reduce of (?:the )?(?:spare )?disc signal|low disc signal"
    r"|(?:dark|low) in (?:<vertebra> )?signal"
    r"|disc signal (?:be )?reduce|(?:reduce|low) (?:of )?(?:the )?(?:spare )?<vertebra> (?:disc )?signal(?: (?:of"
    r"|in) (?:the )?disc)?",
    "hydration": r"(?:well )?hydrate|bright (?:homogeneous )?nucleus|nucleus of high signal",
    "Modic change": rf"(?:(?:endplate|end plate) )?(?:marrow {_CHANGE} (?:of |\( )?)?modic(?: ?type)?"
    rf"(?: ?(?:i{{1,3}}|[123]))?(?: \))?(?: (?:endplate|end plate))?(?: degenerative)?(?: {_CHANGE})?",
    "endplate change": r"(?:degenerative )?(?:endplate|end plate)(?! osteophyte)"
    rf"(?: degenerative)?(?: {_CHANGE}| degeneration)?",
    "degenerative change": rf"degenerative(?: degenerative)? {_CHANGE}|(?:disc )?degeneration(?: of (?:the )?disc)?"
    rf"|degenerative (?:lumbar |intervertebral |multilevel )?(?:disc |spine |spinal |joint )*{_DISEASE}|ddd|discopathy"
    rf"|discogenic (?:{_DISEASE}|{_CHANGE})|disc {_DISEASE}|disc be (?:mild |moderate |severe )?degenerative"
    r"|degenerative (?:<level> )?(?:intervertebral )?disc(?! (?:bulge|protrude|extrude|herniate|sequester|space"
    r"|osteophyte))",
    "Pfirrmann grade": r"pfirrmann|pfirrman",
    "spondylolisthesis": r"vertebra slip(?: \( spondylolisthesis)?|slip of (?:the )?vertebra|spondylolisthesis"
    r"|(?:slipped|slippage of (?:the )?) vertebra"
    r"|(?:slip|slippage)(?: of (?:the )?(?:<vertebra>|<level>))?",
    "spondylolysis": r"spondylolysis|pars (?:interarticularis )?(?:defect|fracture|stress fracture)"
    r"|defect (?:of |in )(?:the )?(?:both |left |right )?pars(?: interarticularis)?",
    "osteophyte": r"(?:(?:endplate|end plate) )?osteophyte",
    "Schmorl node": r"schmorl(?: (?:node|nodes|nodule|nodules))?"
    r"|(?:intravertebral|intraosseous|intrabody|intraspongious) (?:disc )?herniate",
    "muscle spasm": r"(?:muscle )?spasm",
    "loss of lordosis": r"straighten|reduce (?:of )?(?:the )?(?:spare )?(?:lumbar )?lordosis|hypolordosis"
    r"|(?:lumbar )?lordosis be (?:lost|reduce|straighten)|(?:reversal"
    r"|compress) (?:of )?(?:the )?(?:spare )?(?:lumbar )?lordosis",
    "scoliosis": r"scoliosis|(?:left|right) (?:convex )?curvature",
    "fracture": r"(?:(?:compress|wedge|burst) )?fracture|compress deformity|vertebra (?:body )?collapse"
    r"|collapse of (?:the )?(?:<vertebra> )?(?:vertebra|body)",
    "vertebral wedging": r"wedge",
    "haemangioma": r"hemangioma",
    "cyst": r"cyst",
    "marrow change": rf"(?:bone )?marrow(?! isotope)(?: (?:signal|signals|edema|{_CHANGE}|reconversion))*",
    "postoperative change": r"operate(?! (?:consult|consultation|opinion|review|evaluation|referral|planning"
    r"|intervention"
    r"|correlation|candidate|history|management|treatment))",
    "granulation tissue": r"granulation(?: tissue)?",
    "disc migration": r"migrate",
    "discitis": r"discitis|spondylodiscitis",
    "vacuum phenomenon": r"vacuum|vacuume",
    "mass": r"mass(?! effect)",
    "facet arthropathy": rf"facet(?: joint)? (?:degenerative )?(?:{_DISEASE}|degeneration|{_CHANGE})"
    rf"|degenerative facet(?: joint)? (?:{_DISEASE}|{_CHANGE})|degeneration of (?:the )?facet(?: joint)?"
    rf"|arthritic facet",
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
    "vertebral height": r"(?:vertebra )?(?:body|bodies) height|vertebra height",
    "disc space": r"(?:intervertebral )?disc space|(?:disc )?height",
    "facet joint": r"facet(?: joint)?",
    "ligament": r"ligament(?: flavum)?|flavum",
}

# (action, structure) → finding. Other pairs mean nothing ("the sac is reduced in area").
RELATIONS = {
    (action, structure): finding
    for finding, actions, structure in (
        ("thecal sac compression", "compress indent narrow effect", "thecal sac"),
        ("nerve root compression", "compress indent effect", "nerve root"),
        ("nerve root compression", "compress effect", "cauda equina"),
        ("spinal cord compression", "compress indent effect", "spinal cord"),
        ("foraminal narrowing", "compress narrow", "foramen"),
        ("lateral recess narrowing", "compress narrow", "lateral recess"),
        ("stenosis", "compress narrow", "spinal canal"),
        ("CSF space effacement", "compress narrow", "CSF space"),
        ("thecal sac contact", "touch", "thecal sac"),
        ("nerve root contact", "touch", "nerve root"),
        ("spinal cord contact", "touch", "spinal cord"),
        ("foraminal contact", "touch", "foramen"),
        ("disc space narrowing", "narrow reduce collapse", "disc space"),
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
# Findings to which others are related: "no stenosis from the bulge".
ATTRIBUTABLE_KINDS = frozenset(DISC_CONTOUR_KINDS) | _kinds(
    "annular tear, osteophyte, cyst, fracture, spondylolisthesis, spondylolysis, stenosis, Schmorl node, haemangioma, "
    "scoliosis, mass"
)
# A disc and what it does to its surroundings: a trailing "more to the left" refers to these.
DISC_AND_EFFECT_KINDS = frozenset(DISC_CONTOUR_KINDS).union(
    kind for (action, _), kind in RELATIONS.items() if action in ("compress", "indent", "effect", "touch", "narrow")
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
# lemma → the severity it states.
SEVERITIES = {"minimal": "minimal", "mild": "mild", "moderate": "moderate", "severe": "severe", "significant": "severe"}

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

# At the beginning of a line these begin a statement, in lower case, too.
STATEMENT_STARTS = cues.NEGATIONS.union(
    word_set(
        """the there evidence feature features appearance appearances spare free multilevel multiple diffuse wide
        minimal mild moderate severe significant central posterior anterior left
        right desiccate degenerative grade about"""
    )
)

# Words that a list of structures, sides or levels may contain.
LIST_WORDS = word_set(
    """and or nor , / ( ) the a an of on upon either neither both left right central side be appear also still not no
    <vertebra> mild moderate severe significant minimal traversing descending relatively any its widely well"""
)
SIDE_LIST_WORDS = word_set("and or to the more mild of toward towards paracentral side extending on ,")
LEVEL_LIST_WORDS = word_set(", and or the level at disc to through /")
END_OF_STRUCTURES = word_set(
    """within in inside along through below above behind extending extended extends due into toward towards beyond
    without no not but however ; :"""
)
# Words of statements about no level in particular.
GENERAL = word_set("multilevel elsewhere other multiple")

# Words that are spelt right, whatever they resemble, including those of grammar and phrases.
KNOWN_WORDS = OTHER_WORDS.union(
    *(LIST_WORDS, SIDE_LIST_WORDS, LEVEL_LIST_WORDS, END_OF_STRUCTURES, GENERAL),
    *(words for words in vars(cues).values() if isinstance(words, frozenset)),
    *(re.findall("[a-z]+", " ".join(pair)) for pair in (*cues.NEGATING_PAIRS, *cues.ENDING_PAIRS, *cues.EXCEPTING)),
    *(
        re.findall("[a-z]+", phrase)
        for phrase in (
            *FINDING_PHRASES.values(),
            *STRUCTURE_PHRASES.values(),
            *(cues.NO_NEGATION, cues.NEGATED_BEFORE, cues.QUERYING, cues.QUERIED_BEFORE, cues.ASKING, cues.EVALUATING),
            cues.ASKED_ALTOGETHER,
            *(cues.SHOWN_BEFORE, cues.SEEN_BEFORE, cues.PREVIOUSLY, cues.HISTORY),
            *(cues.HEADINGS_OF_OTHER_TEXT, cues.HEADINGS_BEFORE_A_SIGN, cues.HEADINGS_OF_METHOD),
            *(cues.HEADINGS_OF_ADVICE, cues.HEADINGS_OF_FINDINGS, cues.HEADINGS_OF_PARTS),
        )
    ),
)
