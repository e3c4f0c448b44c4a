"""Words that deny a finding, doubt it or say it of another examination, and the headings of reports. Data only.

Phrases are regular expressions over lemmas with single blanks between them, as in `lexicon`.
"""


def word_set(text: str) -> frozenset[str]:
    """Split a list of words at its blanks."""
    return frozenset(text.split())


# Denials, and where they end.
NEGATIONS = word_set("no none nothing not without neither nor denied denies absence lack never excludes")
# Two words that deny what follows them; "free" on its own denies what precedes it.
NEGATING_PAIRS = (
    *(("negative", "for"), ("free", "of"), ("free", "from"), ("clear", "of"), ("devoid", "of"), ("resolution", "of")),
    *(("fail", "to"), ("rather", "than"), ("instead", "of"), ("opposed", "to"), ("rules", "out")),
)
# Phrases that look like a negation but are not: "no change in the protrusion" says that there still is one.
_ADJECTIVES = (
    "(?:(?:evidence|sign|signs|suggestion|of|for|any|severe|significant|interval|definite|obvious|further|clear"
    "|appreciable"
    "|substantial|major|gross|convincing) )*"
)
_WAYS_OF_CHANGE = r"(?:change|increase|progression|progress|improvement|worsening|deterioration|enlargement)"
_CHANGING = "(?:worsening|worsened|progressive|progressing|increasing|enlarging)"
NO_NEGATION = (
    r"(?:with or )?without (?:contrast|nuclear border|findings)|not (?:only|just|merely|simply)|nothing but"
    r"|no doubt|no question(?! of)|(?:without|beyond) (?:any |a )?(?:doubt|question(?! of))"
    r"|no (?:lumbar |intervertebral |single )*(?:disc|level|segment) be spare"
    r"|(?:no|not|nothing) (?:be )?(?:more|greater|worse|higher|less|larger) than"
    rf"|(?:no|without) {_ADJECTIVES}(?:change(?! (?:of|in))|{_CHANGING}"
    rf"|{_WAYS_OF_CHANGE}(?= (?:of|in) (?:(?!and|or|nor|with)[^\s,;:]+ ){{0,7}}?"
    r"(?:bulge|protrude|extrude|sequester|herniate|tear|cyst|fracture|spondylolisthesis|scoliosis|stenosis|compress"
    r"|compression|narrow|narrowing)))"
    r"|not (?:be )?(?:free (?:of|from)|negative for)"
    r"|(?:not|partially|partial|partly|incompletely|incomplete|nearly|almost) (?:be )?"
    r"(?:yet |completely |fully |entirely )?(?:resolve|resolution)"
)
# Negations after what they deny.
NEGATED_BEFORE = (
    r"(?:not|no longer) (?:be )?(?:clearly |definitely )?noted(?! (?:previously|before|earlier))|absent|excluded"
    r"|ruled out|resolve"
)
# Words that answer the heading before them: "herniation: none", "stenosis - absent".
ANSWERS = (("no",), ("none",), ("negative",), ("no", "evidence"), ("none", "noted"))
END_OF_NEGATION = word_set(
    "but however although though except excepting besides apart while whereas yet despite positive where with noted ; "
    ": ("
)
# Two words that end a denial: "no abnormality other than a bulge".
ENDING_PAIRS = (
    ("other", "than"),
    ("aside", "from"),
    ("save", "for"),
    ("save", "at"),
    ("in", "spite"),
    ("outside", "of"),
    ("only", "a"),
    ("presence", "of"),
)
# What a denial is about stands after these and is itself affirmed: "no stenosis from the bulge", "no oedema around the
# fracture". After "of" and "in" only if the word before is none of the others: "no sign of the bulge".
ATTRIBUTING = word_set("by from due secondary around adjacent near owing of in")
DENIED_WITH_ITS_OBJECT = (
    r"evidence|sign|signs|suggestion|indication|trace|traces|residual|residue|remnant|remnants|recurrence"
    r"|presence|persistence|history|appearance|demonstration|visualization|visualisation|finding|findings"
    r"|feature|features|form|type|any|more|longer|development|correlate|picture|part|most|all"
)
DEFINITE = word_set("the this that these those its <level> <vertebra>")
# It is none of this examination: "no compression from the previous extrusion".
NOT_OF_NOW = ("previous", "previously", "prior", "former", "suspected", "clinical", "clinically", "possible", "alleged")
# After a comma, these begin a new statement and end a denied list.
AFFIRMING = word_set(
    "<level> there be a an noted minimal mild moderate severe notable only just instead old probably likely suggestive"
)
# Words that exclude the levels that follow: "at all levels except L5-S1"; words that may stand between.
EXCEPTING = (
    ("except",),
    ("excluding",),
    ("save",),
    ("not",),
    ("sparing",),
    ("apart", "from"),
    ("other", "than"),
    ("aside", "from"),
)
EXCEPTED_LEVEL_WORDS = word_set("at the level for of")

# Doubt: what is asked or cannot be excluded is neither stated nor denied.
QUERYING = (
    r"not (?:completely |entirely |fully |definitely )?(?:exclude|excludes|rule out)"
    rf"|(?:no|without) {_ADJECTIVES}new"
)
QUERIED_BEFORE = (
    r"not (?:be )?(?:completely |entirely |fully |definitely )?(?:excluded|ruled out)"
    r"|(?:should|must|need to|needs to|to|can|may|could|has to|have to) be (?:excluded|ruled out|evaluated|assessed"
    r"|considered|suspected)"
    r"|not (?:be )?(?:well |fully |adequately |reliably |optimally )?(?:evaluated|assessed)"
    r"|(?:may|might|could|can) be (?:missed|overlooked|obscured|masked)"
    r"|(?<!at )(?<!high )risk(?! (?:of|for|factors?))"
    r"|be (?:\w+ )?(?:common|frequent|prevalent)(?: findings?)? (?:in|among) (?:the )?(?:asymptomatic|healthy|spare"
    r"|general|older|elderly|adults|people|individuals|volunteers)"
    r"|(?:poorly|suboptimally|incompletely|inadequately) (?:evaluated|assessed|noted)"
    r"|be (?:clinically )?(?:suspected|queried|questioned|unlikely)|clinically(?=$| [,;)])"
    r"|(?:clinically )?suspected(?: clinically)?(?=$"
    r"| [,;)])"
)
_TO_EVALUATE = (
    "(?:evaluate|evaluating|assess|assessing|exclude|look|looking|check|screen|screening|investigate|characterize)"
)
# Questions and advice: they reach to the end of their clause.
ASKING = (
    r"r o|ro|rule out|(?:to|and|please|kindly|for) " + _TO_EVALUATE + r"(?: for)?"
    r"|^" + _TO_EVALUATE + r"(?: for)?|(?:evaluate|evaluated|evaluation|evaluating|assess|assessed|assessment|assessing"
    r"|exclude|look|looking|check|screen|screening|workup|work up|investigate|investigation|search) for"
    r"|(?:to|please|kindly|for) (?:comment|advise|opine) (?:on|about|regarding)"
    r"|exclusion of|query|queries|question of|(?:clinically )?suspected|suspect|suspicion (?:of|for)"
    r"|(?:raises? )?concern(?:ed|s)? (?:for|of|about)|^concern(?:s|ed)?|if|in case of|in the event of|unless"
    r"|whether|consider"
    r"|(?:recommend|recommended|advise|advised|suggest|suggested|indicated|needed|requested|referred|scheduled|planned)"
    r" (?:for|to|with)|risk (?:of|for|factors for)|prone to|predisposing to"
    r"|(?:symptoms|clinical (?:picture|findings|features|signs|symptoms)|clinically) (?:of|suggest|suggests"
    r"|suggesting|suggestive of|indicate)"
    r"|(?:^suggest|^advise|recommend|recommended) (?:(?!noted |be )[^\s,;:]+ ){1,4}(?:for|to)|correlation for"
    r"|differential|(?:indication|indications) (?:be|include|includes)|clinical(?:ly)? (?:suspicion|question|concern"
    r"|diagnosis)(?: of)?|years? old|\d+ (?:y o|yo)"
)
END_OF_QUESTION = word_set(
    "but however although though ; now currently today presently shows show reveals demonstrates"
)
# A statement that ends so is the question put to the radiologist: "herniation at L4-5, for evaluation".
ASKED_ALTOGETHER = r"(?:for )?(?:evaluation|assessment|follow ?up|followup|review|exclusion)$"
# After these it is advice, and what stands before is a finding: "herniation, recommend follow-up".
ADVISING = word_set(
    "recommend recommended advise advised suggest suggested need needs needed require requires required warrants"
)
NOW = word_set("now currently today presently")
# What is evaluated is not thereby found: "evaluation of stenosis is limited".
EVALUATING = r"(?:evaluation|assessment|visualization|visualisation|delineation|characterization) of"
END_OF_EVALUATION = END_OF_QUESTION | word_set("be , noted reveal revealed showed demonstrate")

# Other examinations and times.
_PRIOR = "(?:prior|previous|last|earlier|old|older|outside|preceding|comparison|pre op|preop|preoperative)"
_EXAM = (
    "(?:mri|mr|ct|scan|scans|study|studies|exam|exams|examination|examinations|imaging|images|radiographs|films|report)"
)
_YEAR = r"(?:(?:19|20)\d\d|date)"  # "[DATE]" stands for one
_SHOWED = "(?:showed|shown|showing|revealed|revealing|reported|described|documented|disclosed|indicated|noted)"
_WORDS = r"(?:(?!be )[^\s,;:.]+ )"
_PRIOR_EXAM = (
    rf"(?:{_PRIOR} {_WORDS}{{0,3}}?{_EXAM}|{_EXAM} (?:of |from |dated |in |on )?(?:the )?{_WORDS}{{0,3}}?{_YEAR}"
    rf"|{_YEAR} {_WORDS}{{0,2}}?{_EXAM})"
)
# An earlier examination showed what follows, or is where that was seen which precedes.
SHOWN_BEFORE = (
    rf"(?<!to )(?<!to the )(?<!with )(?<!with the )(?<!from )(?<!from the )(?<!since )(?<!since the )(?<!than )"
    rf"{_PRIOR_EXAM} {_WORDS}{{0,3}}?{_SHOWED}|{_PRIOR_EXAM} (?:, )?(?:which|that|where) {_SHOWED}"
    rf"|(?:compared|comparison) (?:be made )?(?:to|with) {_WORDS}{{0,5}}?(?:, )?when there be"
    rf"|(?:radiograph|radiographs|radiography|x ray|xray|ct|myelography|ultrasound) (?:noted|{_WORDS}{{0,3}}?"
    r"(?:showed|revealed|reported|described))"
    rf"|(?:(?:on|in|at) (?:the |a |an |his |her )?{_PRIOR_EXAM}|in {_YEAR}) (?:, )?there be"
)
SEEN_BEFORE = (
    rf"(?:noted|reported|described|documented) (?:on|in|at|by|during) (?:the |a |an |his |her )?{_PRIOR_EXAM}"
    rf"|(?:on|in) (?:the |a |an |his |her ){_PRIOR_EXAM}"
)
PREVIOUSLY = (
    r"^known|(?:patient with|with a) known|prior to (?:operate|treatment)|before operate|preoperatively"
    r"|(?:previously|formerly|originally)(?: (?:noted|described|reported|known|documented|mentioned"
    r"|diagnosed|treated))?"
    r"|(?:known|old) case of|(?:known|diagnosed) (?:to have|with)"
)
# Words by which an earlier finding is one of this examination, too, or one that this examination denies.
PERSISTING = word_set(
    """unchanged unaltered stable again persist persists persisted persistent persisting still remains remain similar
    worse worsened worsening progressed larger bigger smaller increased reduce thicken resolve improved progression
    regressed same longer not"""
)
HISTORY = (
    r"(?:family |past |medical |operate |clinical |known |prior |remote )*(?:history|h o|hx|pmh) (?:be )?(?:of"
    r"|significant for"
    r"|notable for|includes)"
    r"|(?:family|mother|father|brother|sister|siblings|parents) (?:history|has|have|had|with)"
    r"|^(?:a |the )?(?:patient|pt|man|woman|male|female) (?:with|had|presents|presenting|complains)"
    r"|be told|(?:thank you|thanks) for (?:[a-z]+ ){1,5}with|(?:referred|sent) with"
    r"|treated for|treatment (?:of|for)|therapy for|status post|s p|f u"
    r"|follow ?up (?:of|for)|followup (?:of|for)"
)
# Operations were done for what follows these.
REASON_OF_OPERATION = word_set("for because due secondary owing treating")

# Headings, over lemmas. What stands under these asserts nothing of this examination.
HEADINGS_OF_OTHER_TEXT = (
    r"(?:clinical |brief |relevant |pertinent |patient |medical |past |operate |noted |social |family "
    r"|provided |given )*"
    r"(?:indication|indications|history|histories)(?: of (?:the )?noted illness)?"
    r"(?:(?: and|,) (?:clinical )?(?:indication|indications|history))?(?: for (?:the )?(?:exam|examination|study|mri))?"
    r"|clinical (?:information|data|detail|details|question|questions|background|context|noted|note|presentation"
    r"|problem"
    r"|query|suspicion|diagnosis|complaint|features|symptoms|info|summary|statement|concern)"
    r"|(?:reason|reasons)(?: for (?:the )?(?:exam|examination|study|mri|visit|referral|request|imaging|scan|test|this"
    r"|consultation|order))?(?: (?:exam|examination|study|mri))?"
    r"|(?:chief |presenting )?(?:complaint|complaints)|referral(?: (?:reason|diagnosis|information))?"
    r"|comparison|comparisons|anamnesis"
    r"|(?:provisional|working|tentative|presumptive|admitting|admission|referral|referring|preoperative|suspected)"
    r" (?:diagnosis|diagnoses|dx)"
)
# These are headings only before a colon or dash: "Previous surgery" is a statement.
HEADINGS_BEFORE_A_SIGN = (
    r"(?:comparison|compared|prior|previous|old|outside)(?: (?:mri|mr|ct|lumbar|spine))*"
    r" (?:study|studies|exam|exams|examination|examinations|imaging|mri|ct|films|operate|report|reports|treatment)"
    r"|compared|symptoms|question|questions|request|requested|ordering diagnosis|order|limitation|limitations"
    r"|disclaimer"
    r"|medication|medications|risk factors|icd|dx|hx|pmh|ddx|d d|differentials?(?: (?:diagnosis|diagnoses))?"
)
# The same, for one statement: what follows may have no heading.
HEADINGS_OF_METHOD = (
    r"(?:imaging |scan |scanning |mr |mri |examination |exam )*"
    r"(?:technique|techniques|protocol|protocols|sequences|parameters|procedure|procedures|contrast)"
    r"|technical (?:details|factors|information|note|quality|data)|exam|examination"
    r"|(?:exam|examination|study) (?:type|name|description|quality|performed|date)|type of (?:exam|examination|study)"
)
# The same; these stand at the end and reach to it.
HEADINGS_OF_ADVICE = (
    r"(?:recommendation|recommendations|recommended|advice|advised|plan|management|suggestion|suggestions|follow ?up"
    r"|followup|further (?:evaluation|imaging|management)|next steps?)(?: (?:recommendation|recommendations|plan"
    r"|imaging))?"
)
HEADINGS_OF_FINDINGS = (
    r"(?:mri |mr |imaging |radiological |radiologic |radiology |positive |additional |other |incidental |key |main "
    r"|spine"
    r" |lumbar |significant |pertinent |detailed )*(?:finding|findings|observation|observations|result|results)"
    r"(?: and (?:indent|conclusion|interpretation))?"
    r"|(?:final |overall |summary |radiological |diagnostic |mri )*(?:indent|impressions|conclusion|conclusions|opinion"
    r"|opinions|interpretation|summary|diagnosis|diagnoses|assessment|report|description)"
)
# Lesser headings of findings: remarks and structures.
HEADINGS_OF_PARTS = (
    r"(?:other |additional )?(?:comment|comments|remark|remarks|addendum|note|nb)"
    r"|(?:vertebra |lumbar |spinal |bony |paraspinal |spine |soft |intervertebral |disc |bone |conus |thecal |nerve "
    r"|facet |cauda |osseous )*(?:alignment|curvature|lordosis|disc|level|canal|cord|conus|medullaris|bones|marrow"
    r"|vertebra"
    r"|body|bodies|tissue|tissues|facet|joint|foramen|ligament|structures|muscle|muscles|endplate|segments|sac|root"
    r"|equina"
    r"|space|height|sacrum|spine|retroperitoneum)(?: (?:level|disc|signal|height|alignment))*"
)

# Abnormal words that the reader has no finding for: a report that affirms one and nothing else is not normal.
UNREAD_ABNORMALITY = (
    r"(?!lordosis|kyphosis|hypolordosis|diagnos|prognos|metamorphosis|arthrodesis|stenosis|appendicitis)"
    r"[a-z]{3,}(?:itis|osis|omas?|opath(?:y|ies)|oceles?|ectas(?:is|ia)|malacia|lith(?:s|iasis)|scess(?:es)?|rrhages?"
    r"|trophy|plasia|emia)"
    r"|abnormal(?:ly|ity|ities)?|syrinx|syringes|clumping|collection|collections|enhancement|infection|infarct\w*"
    r"|effusions?"
    r"|tethered|bifida|dysraphism|anomaly|anomalies|deformity|deformities|metasta\w+|malignan\w+|ischa?emia|patholog\w+"
    r"|spurs?|erosions?|erosive|sclerotic|abscess(?:es)?|myelomalacia|osteolytic|lytic|aneurysm"
)
# Words of normality beside "normal" and its like; what is denied in a normal report without findings.
NORMAL_WORDS = word_set("wnl nad negative")
DENIED_IN_NORMAL = (
    r"abnormalit(?:y|ies)|patholog(?:y|ies|ical|ic)|disease|disorders?|findings?|problems?|lesions?|abnormal|defects?"
    r"|degenerati(?:on|ve)|concern"
)
# What is not the spine: organs, joints and vessels beside it, and what else a report calls normal. A clause that has
# one of these, and no word of the spine, states nothing about it.
OTHER_SUBJECTS = word_set(
    """kidney kidneys renal cortical liver hepatic spleen splenic gallbladder biliary bile pancreas pancreatic bowel
    colon colonic sigmoid rectal rectum bladder uterus uterine ovary ovaries ovarian adnexa adnexal endometrial cervix
    nabothian fibroid fibroids prostate prostatic testis testicular adrenal adrenals aorta aortic iliac artery arterial
    arteries carotid abdomen abdominal pelvic lung lungs pulmonary pleural thyroid breast hip hips knee shoulder wrist
    ankle rotator meniscus meniscal rib ribs femur femoral tibial skull brain cerebral inguinal umbilical hiatus hiatal
    stomach gastric esophageal heart cardiac popliteal subcutaneous dermoid
    saline bmi protocol gait reflex reflexes pressure labs laboratory urine power strength sensation coil slr
    neurological"""
)
SPINAL_WORDS = word_set(
    """<level> <vertebra> disc canal vertebra spine spinal lumbar lumbosacral sacral sacrum foramen foraminal thecal sac
    nerve root cord conus cauda facet endplate plate ligament annular recess epidural intradural paraspinal marrow pars
    intervertebral lordosis curvature alignment level"""
)
END_OF_SUBJECT = word_set(", ; : ( ) and or but with due causing secondary from after")
# What words of normality must be about. Whoever calls the rest normal has named something else before.
OF_THE_SPINE = (
    r"<level>|<vertebra>|disc|spine|spinal|vertebra|vertebral|vertebrae|lumbar|lumbosacral|sacral|sacrum"
    r"|dorsal|thoracic|coccyx|mri|mr|lss|scan|study|exam|examination|imaging|appearance|appearances|alignment"
    r"|marrow|bone|bones|bony|osseous|cord|conus|cauda|canal|canals|foramen|facet|joint|joints|muscle|muscles"
    r"|soft|tissue|tissues|paraspinal|ligament|lordosis|curvature|signal|signals|height|heights|limits|age"
    r"|abnormality|pathology|pathologies|lesion|findings|nad|wnl|all|everything|levels|root|nerve|neural|sac"
    r"|thecal|endplate|body|bodies|column|segments|si|sacroiliac|degenerative|degeneration|compression|space"
    r"|spaces|structures|report|result|impression"
)
AROUND_NORMAL = ("all", "is", "are", "overall", "quite", "very", "perfect", "a", "the", "this", "it")
NOT_OF_THE_SPINE = (
    r"otherwise|remainder|rest|remaining|other|others|else|weight|behaviour|behavior|preparation"
    r"|sequence|sequences|quality|technically|acquired|obtained|acquisition"
    r"|variant|motion|artefact|artefacts|artifact|artifacts|limited|failed|used|walking"
    r"|radiograph|radiographs"
)
