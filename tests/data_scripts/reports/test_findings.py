import json
import random
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from data_scripts.reports.lexicon import CONTINUING_KINDS, FINDING_KINDS, LABEL_OF_KIND
from data_scripts.reports.text import DISC_LEVELS, labels_from_report, report_facts, report_findings
from data_scripts.reports.words import LONGEST_STATEMENT, read_statements
from data_scripts.sources.notes import read_notes
from data_scripts.sources.spider.captions import LEVEL_OF_IVD_LABEL, DiscGrades, compose_disc_captions
from data_scripts.sources.synthetic.findings import SYNTHETIC_LEVELS, LevelFindings, sample_level
from data_scripts.sources.synthetic.reports import plan_statements, write_reports
from tests.data_scripts.reports.report_scores import LABELLED_KINDS, ReportScores, read_labels, score_reports


def facts(text):
    """The findings as lines: `level kind [side] [severity]`, a minus before what is denied."""
    lines = []
    for finding in report_findings(text):
        words = (finding.level, finding.kind, finding.side, finding.severity)
        lines.append("-" * finding.negated + " ".join(word or "" for word in words).strip())
    return [re.sub(" +", " ", line) for line in lines]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("MRI of the spine", []),
        # Levels: headings, lists, ranges, what continues and what does not.
        ("L4-5: bulge. L5-S1: protrusion", ["L4/L5 bulge", "L5/S1 protrusion"]),
        ("Bulges at L3/L4 & L5/S1 levels", ["L3/L4 bulge", "L5/S1 bulge"]),
        ("Bulges at L3/L4 to L5/S1", ["L3/L4 bulge", "L4/L5 bulge", "L5/S1 bulge"]),
        ("Bulges from L3 to S1 (L3-S1)", ["L3/L4 bulge", "L4/L5 bulge", "L5/S1 bulge"]),
        ("Protrusion at D11/D12, bulge at l5 s1", ["T11/T12 protrusion", "L5/S1 bulge"]),
        ("Spondylolisthesis grade II of L4 over L5", ["L4/L5 spondylolisthesis grade 2"]),
        ("Bulge at L4-5.\nIndenting the sac.", ["L4/L5 bulge", "L4/L5 thecal sac compression mild"]),
        ("L4-5: bulge.\nNo root compression.", ["L4/L5 bulge", "-nerve root compression"]),
        ("L4-5: bulge, no root compression", ["L4/L5 bulge", "-L4/L5 nerve root compression"]),
        ("Bulge at L4-5. Multilevel bulges.", ["L4/L5 bulge", "bulge"]),
        ("Bulges at L3-4, annular tear at L4-5", ["L3/L4 bulge", "L4/L5 annular tear"]),
        ("L3-4, L4-5:\nbulges, mainly at L4-5", ["L3/L4 bulge", "L4/L5 bulge"]),
        ("Multilevel bulges, worst at L4-5", ["L4/L5 bulge"]),
        (
            "Bulge at L4-5 with lesion. Compressing L5 root",
            ["L4/L5 bulge", "L4/L5 mass", "L4/L5 nerve root compression"],
        ),
        ("Muscle spasm, bulge at L4-5", ["muscle spasm", "L4/L5 bulge"]),
        ("Low on T1-T2 images, L1 haemangioma", ["haemangioma"]),
        ("Bulges at L3/4,4/5", ["L3/L4 bulge", "L4/L5 bulge"]),
        ("Bulges at L3-4,4-5 and 5-1", ["L3/L4 bulge", "L4/L5 bulge", "L5/S1 bulge"]),
        ("Bulges at L4/5,5/S1; cyst at L4\\L5", ["L4/L5 bulge", "L5/S1 bulge", "L4/L5 cyst"]),
        ("Bulge at L4-5,8 mm", ["L4/L5 bulge"]),
        ("Bulge at L4-5: 3mm,L5-S1: 4mm", ["L4/L5 bulge", "L5/S1 bulge"]),
        ("L4-5: bulge, L5-S1: normal", ["L4/L5 bulge"]),
        ("Bulges at all levels except L5-S1", ["bulge", "-L5/S1 bulge"]),
        ("Bulge at L4-5 and not L5-S1. Pressing sac", ["L4/L5 bulge", "-L5/S1 bulge", "L4/L5 thecal sac compression"]),
        ("No bulge except at L5-S1", ["-bulge", "L5/S1 bulge"]),
        ("Bulges from L3-4 to L5-S1 apart from L4-5", ["L3/L4 bulge", "L5/S1 bulge", "-L4/L5 bulge"]),
        # Actions and structures, in either order.
        ("Pressing the sac and both roots", ["thecal sac compression", "nerve root compression bilateral"]),
        ("Sac and root compression", ["thecal sac compression", "nerve root compression"]),
        ("Compression of left root within foramen", ["nerve root compression left"]),
        ("The canal is narrowed, spinal stenosis", ["stenosis", "stenosis"]),
        ("Narrowing left exit canal; foraminal stenosis", ["foraminal narrowing left", "foraminal narrowing"]),
        ("Narrowed disc spaces, loss of disc height", ["disc space narrowing", "disc space narrowing"]),
        ("Touching the sac and S1 root", ["thecal sac contact", "nerve root contact"]),
        ("Hypertrophied facets and ligamenta flava", ["facet hypertrophy", "ligament hypertrophy"]),
        ("Compression fracture", ["fracture"]),
        ("Zygapophyseal joint hypertrophy", ["facet hypertrophy"]),
        ("Lt subarticular stenosis, subarticular bulge", ["lateral recess narrowing left", "bulge"]),
        # Negation and where it ends.
        ("No herniation, bulge or stenosis", ["-herniation", "-bulge", "-stenosis"]),
        ("No stenosis, mild bulge noted", ["-stenosis", "bulge mild"]),
        ("No stenosis but a bulge", ["-stenosis", "bulge"]),
        ("Bulge without sac compression", ["bulge", "-thecal sac compression"]),
        ("Bulge not compressing the sac", ["bulge", "-thecal sac compression"]),
        ("The roots are not compressed", ["-nerve root compression"]),
        ("Herniation is not seen", ["-herniation"]),
        ("Not only a bulge", ["bulge"]),
        ("MRI without contrast: bulge", ["bulge"]),
        ("Adequate canal and preserved disc height", ["-stenosis", "-disc space narrowing"]),
        ("The canal is not adequate", ["stenosis"]),
        ("Normal marrow signal, marrow oedema", ["-marrow change", "marrow change"]),
        ("Without significant thecal sac.", ["-thecal sac compression"]),
        ("No stenosis, left bulge", ["-stenosis", "bulge left"]),
        ("No canal stenosis, foraminal or recess stenosis", ["-stenosis", "-lateral recess narrowing"]),
        (
            "No canal stenosis, Rt foraminal narrowing or Lt recess stenosis",
            ["-stenosis", "-foraminal narrowing right", "-lateral recess narrowing left"],
        ),
        (
            "No Lt recess narrowing, narrowing of the canal or Rt foraminal stenosis",
            ["-lateral recess narrowing left", "-stenosis", "-foraminal narrowing right"],
        ),
        (
            "No bulging, disc space narrowing, prolapse or listhesis at any level",
            ["-bulge", "-disc space narrowing", "-herniation", "-spondylolisthesis"],
        ),
        ("No bulge, compressing the left or right root", ["-bulge", "nerve root compression bilateral"]),
        ("Canal stenosis: none. Fracture: no\nBulge - absent", ["-stenosis", "-fracture", "-bulge"]),
        ("Herniation: none, mild stenosis, cyst (no)", ["-herniation", "stenosis mild", "-cyst"]),
        ("Negative for herniation; nil fracture", ["-herniation", "-fracture"]),
        ("Free of root compression. Not free of stenosis", ["-nerve root compression", "stenosis"]),
        ("Disc isn't bulging, hasn’t herniated", ["-bulge", "-herniation"]),
        ("Bulge that doesn't compress the sac", ["bulge", "-thecal sac compression"]),
        ("Bulge is no longer seen. Protrusion has resolved", ["-bulge", "-protrusion"]),
        ("Bulge has not resolved. Cyst has partially resolved", ["bulge", "cyst"]),
        ("No change in the L4-5 protrusion", ["L4/L5 protrusion"]),
        ("No progression of stenosis. No change in marrow signal", ["stenosis", "-marrow change"]),
        # What is queried is no finding.
        ("Fracture cannot be excluded. Cyst could not be ruled out", []),
        ("Cannot exclude fracture. Fracture excluded", ["-fracture"]),
        ("? extruded disc, cyst", []),
        ("Collection noted ?? herniation, a bulge at L4-5", ["L4/L5 bulge"]),
        ("?? Protrusion. Bulge", ["bulge"]),
        ("Cyst noted, haemangioma ?, bulge", ["cyst", "bulge"]),
        # Statements.
        ("Bulge more to the Rt. No stenosis", ["bulge right", "-stenosis"]),
        ("Bulge at L4-5 more to the Rt. Multilevel bulges", ["L4/L5 bulge right", "bulge"]),
        ("Bulge, Rt. Paracentral protrusion", ["bulge", "protrusion right"]),
        ("Bulge at L4-5 NB: renal cyst", ["L4/L5 bulge"]),
        ("Bulge at L4-5\nand dehydrated disc", ["L4/L5 bulge", "L4/L5 dehydration"]),
        # Sides.
        ("Rt paracentral protrusion", ["protrusion right"]),
        ("Central and to the Lt, protrusion", ["protrusion left"]),
        ("Central protrusion", ["protrusion central"]),
        ("Bulge, more to the left, pressing the right root", ["bulge left", "nerve root compression right"]),
        ("Bulge pressing both roots, more to left", ["bulge", "nerve root compression bilateral"]),
        ("Pressing the left root, more to the right", ["nerve root compression left"]),
        ("Bulge extending to left recess, pressing sac", ["bulge left", "thecal sac compression"]),
        ("Bulge with left annular tear", ["bulge", "annular tear left"]),
        ("Encroaching on the left exit canal", ["foraminal narrowing left"]),
        ("R foraminal protrusion", ["protrusion right"]),
        ("Levoscoliosis", ["scoliosis left"]),
        ("Protrusion at L4-5 (R)", ["L4/L5 protrusion right"]),
        ("R. paracentral bulge; L posterolat. protrusion", ["bulge right", "protrusion left"]),
        ("Pressing the R L5 root; scoliosis convex to L", ["nerve root compression right", "scoliosis left"]),
        ("R and L foraminal narrowing", ["foraminal narrowing bilateral"]),
        ("Central canal stenosis, bulge with central canal stenosis", ["stenosis", "bulge", "stenosis"]),
        # A side before joined structures is that of both, unless the second has one.
        ("Pressing the Rt sided sac and exit root", ["thecal sac compression right", "nerve root compression right"]),
        ("Pressing Rt sac & S1 root", ["thecal sac compression right", "nerve root compression right"]),
        ("Pressing Rt sided (sac and exit canal)", ["thecal sac compression right", "foraminal narrowing right"]),
        ("Pressing the Rt sac and Lt root", ["thecal sac compression right", "nerve root compression left"]),
        ("Pressing the sac and Lt root", ["thecal sac compression", "nerve root compression left"]),
        ("Pressing the Rt root, sac", ["nerve root compression right", "thecal sac compression"]),
        ("Pressing both roots and the sac", ["nerve root compression bilateral", "thecal sac compression"]),
        # A sequestration or extrusion is on the side of its disc.
        ("Rt foraminal protrusion -sequestered", ["protrusion right", "sequestration right"]),
        ("Lt extrusion with sequestrated fragment", ["extrusion left", "sequestration left"]),
        ("Rt protrusion with extruded fragment at L4-5", ["L4/L5 protrusion right", "L4/L5 extrusion right"]),
        ("Rt protrusion at L4-5, sequestration at L5-S1", ["L4/L5 protrusion right", "L5/S1 sequestration"]),
        ("Rt protrusion, no sequestration", ["protrusion right", "-sequestration"]),
        # What is more to a side is the disc or the root, not the sac.
        (
            "Bulge pressing the sac reaching the recess, more to Lt with encroaching on exit canal",
            ["bulge left", "thecal sac compression", "foraminal narrowing"],
        ),
        ("Bulge pressing the sac, more to left", ["bulge left", "thecal sac compression"]),
        (
            "Bulge pressing the sac and roots, more to left",
            ["bulge", "thecal sac compression", "nerve root compression left"],
        ),
        ("Changes of both endplates, bilateral pars defects", ["endplate change", "spondylolysis bilateral"]),
        ("Bulge, defect in the left pars", ["bulge", "spondylolysis left"]),
        # Severities and grades.
        ("Small protrusion largely pressing the sac", ["protrusion mild", "thecal sac compression severe"]),
        ("Protrusion, moderate in size", ["protrusion moderate"]),
        ("No significant stenosis", ["-stenosis"]),
        ("Modic type II, Pfirrmann grade 4", ["Modic change type 2", "Pfirrmann grade grade 4"]),
        # Spelling.
        ("Protruion compresing the theacl sac", ["protrusion", "thecal sac compression"]),
        ("Musclespasm; inadequate rest", ["muscle spasm"]),
        ("Osteoporosis, hydrated disc", ["-dehydration"]),
    ],
)
def test_values(text, expected):
    assert facts(text) == expected


def statement_facts(key, blanks):
    """What a statement of the synthetic reports says, as (kind, side, severity, negated)."""
    severity, side = blanks.get("severity"), blanks.get("side")
    site = blanks.get("site", "").split()
    return {
        "bulge": [("bulge", None, severity, False)],
        "protrusion": [("protrusion", site[0] if site else None, severity, False)],
        "superimposed protrusion": [("protrusion", site[0] if site else None, severity, False)],
        "normal contour": [("bulge", None, None, True), ("protrusion", None, None, True)],
        "dehydration": [("dehydration", None, None, False)],
        "hydration": [("dehydration", None, None, True)],
        "stenosis": [("stenosis", None, severity, False)],
        "no stenosis": [("stenosis", None, None, True)],
        "hypertrophy": [("facet hypertrophy", None, None, False), ("ligament hypertrophy", None, None, False)],
        "root": [("nerve root compression", side, None, False)],
        "no root": [("nerve root compression", None, None, True)],
        "crowding": [("nerve root crowding", None, None, False)],
        "foramen": [("foraminal narrowing", side, None, False)],
        "no foramen": [("foraminal narrowing", None, None, True)],
        "normal": [],
    }[key]


def synthetic_reports(num_levels):
    """Drawn levels: the level, what its statements say, and five wordings of them."""
    for seed in range(num_levels):
        level = SYNTHETIC_LEVELS[seed % 3]
        drawn = LevelFindings(level=level) if seed % 8 == 0 else sample_level(level, np.random.default_rng(seed))
        disc, rest = plan_statements(drawn, np.random.default_rng([seed, 1]))
        truth = {fact for statement in disc + rest for fact in statement_facts(*statement)}
        yield level, truth, write_reports(drawn, np.random.default_rng([seed, 1]))


def test_synthetic_reports_are_read_as_they_were_drawn():
    for level, truth, texts in synthetic_reports(100):
        for text in texts:
            findings = report_findings(text)
            read = {(f.kind, f.side, f.severity, f.negated) for f in findings if f.kind != "thecal sac contact"}
            assert read == truth, text
            assert {finding.level for finding in findings} <= {level, None}, text
            assert all(
                finding.level == level
                for finding in findings
                if finding.kind in CONTINUING_KINDS and not finding.negated
            ), text


def test_captions_are_read_as_they_were_graded():
    kind_of_grade = {"narrowing": "disc space narrowing", "bulging": "bulge"}
    flags = ("spondylolisthesis", "herniation", "narrowing", "bulging")
    for seed in range(150):
        draw = random.Random(seed)
        disc = DiscGrades(
            level=draw.choice(list(LEVEL_OF_IVD_LABEL.values())),
            pfirrmann=draw.randint(1, 5),
            modic=draw.choice((0, 1, 2, 3)),
            upper_endplate=draw.random() < 0.3,
            lower_endplate=draw.random() < 0.3,
            **{flag: draw.random() < 0.3 for flag in flags},
        )
        truth = {(kind_of_grade.get(flag, flag), None) for flag in flags if getattr(disc, flag)}
        truth |= {("endplate change", None)} if disc.upper_endplate or disc.lower_endplate else set()
        truth |= {("Modic change", f"type {disc.modic}")} if disc.modic else set()
        graded_kinds = {"disc space narrowing", "bulge", "herniation", "spondylolisthesis", "endplate change"}
        graded_kinds |= {"Modic change"}
        for caption in compose_disc_captions(disc, draw, 2):
            findings = report_findings(caption)
            stated = {f.severity for f in findings if f.kind == "Pfirrmann grade"}
            affirmed = [f for f in findings if f.kind in graded_kinds and not f.negated]
            assert {(f.kind, f.severity) for f in affirmed} == truth, caption
            assert {f.level for f in affirmed} <= {disc.level}, caption
            assert stated <= {f"grade {disc.pfirrmann}"}, caption
            assert not {f.kind for f in findings if f.negated} & {kind for kind, _ in truth}, caption


def slip(word, draw):
    """The word with one letter left out, doubled by another, replaced, or exchanged with the next; never the first."""
    place = draw.randrange(1, len(word) - 1)
    letter = draw.choice("abcdefghijklmnopqrstuvwxyz")
    before, after = word[:place], word[place:]
    return before + draw.choice((after[1:], letter + after, letter + after[1:], after[1] + after[0] + after[2:]))


def test_slips_of_the_keyboard_change_few_facts():
    draw = random.Random(0)
    same = changed = 0
    for _, _, texts in synthetic_reports(100):
        true_facts = report_facts(texts[0])
        mistyped = re.sub(
            r"\b[A-Za-z]{6,}\b", lambda found: slip(found[0], draw) if draw.random() < 0.15 else found[0], texts[0]
        )
        read = report_facts(mistyped)
        same, changed = same + len(read & true_facts), changed + len(read ^ true_facts)
    assert 2 * same / (2 * same + changed) > 0.97


def hostile_texts():
    """Reports torn apart and filled with what reports do not hold."""
    draw = random.Random(0)
    alphabet = "abLS15/-.,;:()&?'’\n\r\t 　ßÄ漢🦴\x00éİ"
    pieces = [
        "L4-5",
        "L5/S1",
        "no ",
        "not ",
        "left ",
        "both ",
        "bulge ",
        "sac ",
        "compressing ",
        "modic ",
        "to ",
        "L4 over ",
    ]
    for _ in range(150):
        text = "".join(draw.choice(alphabet) for _ in range(draw.randint(0, 60)))
        yield text
        words = [draw.choice(pieces) for _ in range(draw.randint(1, 25))]
        words.insert(draw.randrange(len(words)), text[:8])
        yield "".join(words)
    for piece in ("no ", "left ", "L4-", "thecal sac and ", "x", "(", "modic "):
        yield piece * (10_000 // len(piece))


def test_any_text_is_read_and_spans_lie_within_it():
    for text in hostile_texts():
        findings = report_findings(text)
        statements = [(words[0].start, words[-1].end) for words in read_statements(text)]
        assert all(len(words) <= LONGEST_STATEMENT + 1 for words in read_statements(text))  # a word may be two
        assert all(start < end for start, end in statements)
        assert all(before[1] <= after[0] for before, after in pairwise(statements))
        for finding in findings:
            start, end = finding.span
            assert finding.kind in FINDING_KINDS and finding.level in (None, *DISC_LEVELS)
            assert sum(first <= start < end <= last for first, last in statements) == 1


def test_words_stand_where_they_say():
    text = "Lt.paracentral musclespasm at L4/5,5.2mm – no Bulge."
    for statement in read_statements(text):
        for before, after in pairwise(statement):
            assert before.end <= after.start
    spasm, bulge = (text[slice(*finding.span)] for finding in report_findings(text))
    assert (spasm, bulge) == ("musclespasm", "Bulge")


def test_kinds_of_classes_are_kinds():
    assert set(LABEL_OF_KIND) <= set(FINDING_KINDS) and set(LABELLED_KINDS) <= set(FINDING_KINDS)
    assert len(set(LABEL_OF_KIND.values())) == len(LABEL_OF_KIND)


def test_scores_count_by_hand():
    text = {"0001": "L4-5: left protrusion, no stenosis. Bulge at L5-S1"}
    labels = {
        "0001": [
            ("L4/L5", "protrusion", "right", False),  # found, with another side
            ("L4/L5", "stenosis", None, True),  # right
            ("L5/S1", "bulge", None, True),  # read as affirmed: invented, and a wrong negation
            (None, "herniation", None, True),  # a denial that was not read
            ("L5/S1", "protrusion", None, False),  # missed
        ]
    }
    scores = score_reports(text, labels)
    assert scores == ReportScores(1, 1, 1, 4, 2, 1, 0, scores.differences)
    assert (scores.f1, scores.negation_accuracy, scores.side_accuracy) == (0.5, 0.5, 0.0)
    assert len(scores.differences) == 5


@pytest.mark.parametrize(("name", "num_notes"), [("development", 40), ("held_out", 40), ("second", 60)])
def test_findings_agree_with_labels_made_by_reading(name, num_notes, shared_data):
    notes = read_notes(shared_data / "mendeley_notes" / "Radiologists Report.xlsx")
    labels = read_labels(Path(__file__).with_name(f"report_labels_{name}.json"))
    scores = score_reports({note.patient_id: note.text for note in notes}, labels)
    print(scores)  # shown by pytest -s, and with a failure
    assert len(labels) == num_notes
    assert scores.f1 >= 0.93 and scores.negation_accuracy >= 0.97 and scores.side_accuracy >= 0.95, scores.differences


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("L3-4: normal appearance. There is no disc bulge.", [("L3/L4", "bulge", True)]),
        ("L4-5: normal. L5-S1: bulge. No stenosis.", [("L5/S1", "bulge", False), (None, "stenosis", True)]),
        ("L5-S1:\nNo significant stenosis.", [(None, "stenosis", True)]),
    ],
)
def test_what_is_denied_after_a_normal_level_is_denied_of_it(text, facts):
    assert [(finding.level, finding.kind, finding.negated) for finding in report_findings(text)] == facts


def test_reports_that_were_misread_elsewhere(shared_data):
    path = shared_data.parent / "faults" / "data" / "expected.json"
    if not path.is_file():
        pytest.skip("no such reports beside the project")
    for case in json.loads(path.read_text(encoding="utf-8"))["reports"]:
        findings, labels = report_findings(case["text"]), list(labels_from_report(case["text"]))
        affirmed = [(f.kind, f.level, f.side, f.severity) for f in findings if not f.negated]
        for wanted in case.get("affirm", []):
            assert any(
                all(want in ("*", got) for want, got in zip(wanted, found, strict=True)) for found in affirmed
            ), case
        assert not {found[0] for found in affirmed} & {*case.get("not_affirm", [])}, case
        assert not {f.kind for f in findings if f.negated} & {*case.get("not_deny", [])}, case
        assert not {found[:2] for found in affirmed} & {
            (kind, level) for kind, level in case.get("not_affirm_at", [])
        }, case
        assert labels == case.get("labels", labels) and labels != case.get("labels_not"), case
