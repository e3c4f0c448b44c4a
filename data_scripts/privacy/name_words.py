"""Which words of a report are no names, and which may be both."""

import re

from data_scripts.reports.lexicon import ACTION_FORMS, FORMS, KNOWN_WORDS

# Words that begin or follow a sentence of a report, and so end a name. Lower case.
_WORDS_OF_REPORTS = """
a about abutting according acute additional adequate advice advised aera age aged also an and annular any are
arthritis as asked assessment associated at avanto axial back base bilateral body bone both broad bulge bulges
bulging by canal canon cc center central centre cervical changes clinic clinical clinically clinician comparison
compatible complain complaining complains complaint compressing compression conclusion consistent consultant
contrast cord coronal correlate correlation ct cyst date dated decreased degenerative dehydrated dehydration
department desiccated desiccation details diagnosis diffuse disc discs disease diseases disk dissicating doctor
dorsal dr due emergency endplate evidence exam examination examined exit exiting extending extruded extrusion
facet family feature features female few findings focal follow for foramen foramina foraminal fracture from ge
general gp grade has have he hemangioma her hernia herniated herniation his history hitachi hospital hypertrophy
if image images imaging imp impression in indenting indication internal is it known l large lateral left less
level levels ligamentum location loss low lower lss lt lumbar lumbosacral m male marked marrow mass md medical
medicine mild mildly minimal moderate modic more mr mri mrs ms multilevel multiple muscle my name narrowed
narrowing nb nerve neural neuro neurological neurology neurosurgeon neurosurgery new no node nodes normal not
note noted notes noticed obvious of office old on or orthopaedic orthopaedics orthopedic orthopedics osteophyte
other our out outpatient pain paracentral paramedian part partial patient patients pelvic philips phone
physician physio physiotherapy please post posterior preserved previous prior private procedure prof protocol
protruded protrusion pt radiologist radiology ray re reason recommend recommended referral referred referring
regarding relation report reported reporting request requested rheumatology right root roots rt sac sacral
sagittal said scan scoliosis seen sequence sequences series severe sex she short shows siemens signal signed
significant sir skyra slight small spasm spinal spine spondylolisthesis stenosis straightening studies study
suggested surgeon surgery surgical t tear technique technologist tel tesla the thecal there they this thoracic
time to today tomorrow toshiba type unit university unremarkable urgent us venous vertebra vertebrae vertebral
ward was we were which who whole wide wise with without x xray year years yesterday
"""
_PARTICLE_WORDS = "al el abu abd abdel ben bin bint ibn da de del della der di du la le ten ter ul van von"
PARTICLES = frozenset(_PARTICLE_WORDS.split())
_OTHER_MEDICAL_WORDS = """
abdomen abdominal appearances etc incidental showed ankle anaemia anemia angle arm asthma backache brain breast
burning cancer chest claudication coccyx compressive diabetic disturbance elbow epileptic foot gait hand head heart
hip hyperintense hypertensive hypointense hypothyroid incontinence knee kyphosis leg limb liver lordosis lumbago
meningeal numbness obese operated orbit pelvis pregnant prostate radiculopathy rheumatoid sacrum sciatica sciatic
sclerosis sensory shoulder smoker conditional diffusion dixon fusion imaging perfusion safe sphincter spondylotic
swelling syrinx thigh tingling trauma traumatic weakness wrist whole
"""
NOT_NAMES = (
    frozenset(f"{_WORDS_OF_REPORTS} {_OTHER_MEDICAL_WORDS}".split())
    .union(*(forms.split() for forms in FORMS.values()), KNOWN_WORDS)
    .union(*(forms.split() for roles in ACTION_FORMS.values() for forms in roles.values()))
    - PARTICLES
)
# Endings of diseases, operations and examinations.
MEDICAL_ENDING = re.compile(
    r"\w{2,}(?:itis|osis|oses|esis|lysis|pathy|pathies|ectomy|ectomies|otomy|algia|plegia|phytes?|graphy|scopy"
    r"|grams?|osteal|listhesis|otensive|itic)|\w{4,}omas?"
)
# What a patient does, is and has done, and what doctors do: the words after "patient" and "Dr" that open no name when
# they are typed in small letters. With a capital they may (Young, Will).
_WORDS_AFTER_PATIENT = """
able above admits admitted after again agreed agrees alert allergic already although always anxious any anymore
appears arrived asks attended autistic available awake aware bedridden before began being below bends between bound
breathing brought called calls came can cannot cared carries cervical child chose claims claustrophobic comes
comfortable comment compliant confidential confused consent consented consents continues cooperative could couldn
cover cried data declined declines degraded demographics denied denies describes developed did didn died discharged
discontinued discussed does doesn doing drowsy during ect elderly ended endorses ever every exercises expired factors
failed fasting feels fell felt file first flow gave gets gives goes got group groups habitus had happy hasn haven here
however ids info information informed informs infused injected injured into intubated isn items just keeps kept knows
last later lay lies lifted likely list lives lost lying made make makes manages many may mentions middle might missed
monitoring motion moved movement movements moves moving must near needed needs neither never next nil non none nor
notified now obeys once only onto operated opted or orders outcomes over own paced pain perhaps placed position
positioning postop postoperative prefers preop prepared presented presenting presents probably prone put quite ran
rather ready really received receives record recovered redacted refused refuses remained remains removed reports
requests required requires responded responds restless returned returns review run safety said sat satisfaction says
see seems sent set setup shall shook should si since sits size sleeps slept slipped smokes some soon stable stands
started stated states stayed steady still stood stopped stops such suddenly suffered suffers supine takes technique
than that their them then these thinks those though throughout thus till told tolerated too took transfer transferred
tried tries turned twice unable unaware uncooperative under underwent unknown unless unstable until unwell upon uses
usually verified very via visited waited walk walks wants wasn weak wears weighed weighs well went weren wheelchair
when where whether while will wished wishes withheld within woke won works worried worse would wouldn yet young
"""
ORDINARY_WORDS = frozenset(_WORDS_AFTER_PATIENT.split())
# Of verbs and adjectives; names end otherwise ("Ahmed", "Kelly", "King", "Clement").
ORDINARY_ENDING = re.compile(
    r"\w{4,}(?:ing|ive|ous|able|ible|ful|less|ness|tions?|ment|ance|ence|ities|ically|ally|ently|antly|edly)"
    r"|\w{2,}(?:at|in|on|is|iz|ct|nt|rm|ss|rr|ov|uc|tt|rt|pp|uir|os|ain|or)ed"
)
# Of those words, the ones that are family names too; after "Dr." they are.
_WORDS_AND_NAMES = """
said ward ray small short low root back cord base bone post large wise white free parent marker chance mass sack place
face new old
"""
ALSO_NAMES = frozenset(_WORDS_AND_NAMES.split())
_WORDS_AFTER_NAMES = (
    "a about an and as at because by for from has he his in is of on or regarding she the to was who with"
)
FUNCTION_WORDS = frozenset(_WORDS_AFTER_NAMES.split())
_EPONYM_WORDS = """
andersson baastrup baker bertolotti castellvi charcot cobb ferguson forestier hodgkin meyerding paget pott romanus
scheuermann tarlov
"""
EPONYMS = frozenset(_EPONYM_WORDS.split())
