import random
import re
from pathlib import Path

import numpy as np
import pytest

from data_scripts.reports.text import (
    REPORT_LABELS,
    exchange_sides,
    labels_at_level,
    labels_from_report,
    normalise_report,
    read_report,
    report_facts,
    report_sentences,
)
from data_scripts.reports.words import read_statements
from data_scripts.sources.notes import read_notes
from data_scripts.sources.synthetic.findings import SYNTHETIC_LEVELS, sample_level
from data_scripts.sources.synthetic.reports import write_reports


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        (" // \r\n - ", ""),
        ("L4/L5 bulge of 4.5 mm, i.e. mild.", "L4/L5 bulge of 4.5 mm, i.e. mild."),
        ("narrowing.//// dehydrated L4-5 discs./// mild", "narrowing. dehydrated L4-5 discs. mild"),
        ("noted at the level of\nL4/L5", "noted at the level of L4/L5"),
        ("bulge at L5-S1 level\nNo stenosis", "bulge at L5-S1 level. No stenosis"),
        ("disc bulge noted\ncompressing the sac", "disc bulge noted compressing the sac"),
        ("bulge of the disc \nno stenosis\nthe canal is wide", "bulge of the disc. no stenosis. the canal is wide"),
        ("bulge, more to\nleft side", "bulge, more to left side"),
        (
            "pressing the sac,\nNB: cyst noted , \n-L5/S1: bulge,\nmild",
            "pressing the sac. NB: cyst noted. L5/S1: bulge, mild",
        ),
        ("bulges at L3/L4,\nL4/L5", "bulges at L3/L4, L4/L5"),
        ("exit canals.associated with,mild stenosis .", "exit canals. associated with, mild stenosis."),
        ("cyst ..\r\n", "cyst."),
        ("Featrure of muscle spam", "Featrure of muscle spam"),
        ("zero\u200bwidth\u00a0blank\ttab", "zerowidth blank tab"),
        ("LSS MRI:\r\n-Bulge at L5/S1.No leak", "LSS MRI: Bulge at L5/S1. No leak"),
    ],
)
def test_values(text, expected):
    assert normalise_report(text) == expected


def test_normalising_twice_changes_nothing_and_keeps_every_letter():
    pieces = [
        "bulge",
        " ",
        ".",
        "..",
        ",",
        "//",
        "///",
        "\n",
        "\r\n",
        "-",
        "• ",
        "L4/L5",
        "4.5 mm",
        ":",
        "No",
        "i.e.",
        "(",
        ")",
    ]
    choose = random.Random(0)
    for _ in range(5000):
        text = "".join(choose.choice(pieces) for _ in range(choose.randint(1, 9)))
        once = normalise_report(text)
        assert normalise_report(once) == once, text
        assert [char for char in once if char.isalnum()] == [char for char in text if char.isalnum()], text
        assert "  " not in once and "\n" not in once


@pytest.mark.slow
def test_normalising_the_real_notes_changes_no_facts(notes):
    changed = [text for text in notes if report_facts(normalise_report(text)) != report_facts(text)]
    assert len(notes) == 515 and changed == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        (" // .\n-", ()),
        ("mild disc bulge at L4/L5", ("mild disc bulge at L4/L5",)),
        ("Bulge of 4.5 mm, i.e. mild. No stenosis.", ("Bulge of 4.5 mm, i.e. mild.", "No stenosis.")),
        ("- bulge L4-5//no stenosis ;\n• Rt. cyst", ("bulge L4-5", "no stenosis ;", "Rt. cyst")),
        ("Height lost by 50%. >2 cysts. (both small)", ("Height lost by 50%.", ">2 cysts.", "(both small)")),
        ("Herniation: no. Left", ("Herniation: no.", "Left")),
        ("1. Bulge at L4-5.\n2. No stenosis.", ("1. Bulge at L4-5.", "2. No stenosis.")),
        ("IMPRESSION\n1) Bulge\n2) no cyst", ("IMPRESSION. 1) Bulge", "2) no cyst")),
        ("LSS MRI :\n-Muscle spasm.\n-Bulge at L4-5", ("LSS MRI : Muscle spasm.", "Bulge at L4-5")),
        ("L3-L4, L4-L5:\n- Bulge. Cyst. L5-S1.\nNo cyst", ("L3-L4, L4-L5: Bulge.", "Cyst.", "L5-S1. No cyst")),
        ("Bulge (mild.) (No cyst.)\n3. Spasm.\n4.", ("Bulge (mild.)", "(No cyst.)", "3. Spasm. 4.")),
        ("Mild impression on the sac. No cyst", ("Mild impression on the sac.", "No cyst")),
        ("2.", ("2.",)),
    ],
)
def test_sentences_of_a_report(text, expected):
    assert report_sentences(text) == expected


def test_each_statement_of_a_made_report_is_a_sentence():
    reports = [
        text
        for seed in range(40)
        for text in write_reports(
            sample_level(SYNTHETIC_LEVELS[seed % 3], np.random.default_rng(seed)), np.random.default_rng(seed), count=3
        )
    ]
    for text in {*reports, *map(normalise_report, reports)}:
        assert len(report_sentences(text)) == len([*read_statements(text)]), text


def test_sentences_of_the_real_notes_are_whole(notes):
    def letters(text):
        return re.sub(r"[\s./\\•;*-]", "", text)

    for note in map(normalise_report, notes[::4]):
        sentences = report_sentences(note)
        assert letters("".join(sentences)) == letters(note)
        assert report_facts(". ".join(sentence.rstrip(".") for sentence in sentences)) == report_facts(note)
        assert all(report_sentences(sentence) == (sentence,) for sentence in sentences)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Left and right, LEFT and RIGHT, left and right", "Right and left, RIGHT and LEFT, right and left"),
        ("Lt, Rt., LT RT lt rt L't r’t", "Rt, Lt., RT LT rt lt R't l’t"),
        ("leftward, left-sided, Rightwards, Ltside", "rightward, right-sided, Leftwards, Rtside"),
        ("Levoscoliosis, dextro-scoliosis", "Dextroscoliosis, levo-scoliosis"),
        ("R paracentral, L-sided, worse R>L, L = R", "L paracentral, R-sided, worse L>R, R = L"),
        ("upright, copyright, bright, at L4 L5/S1, leftover", "upright, copyright, bright, at L4 L5/S1, leftover"),
        ("the rigth root", "the left root"),
        ("R.L.", "R.L."),
        ("R > L, R and L, L > R foraminal narrowing", "L > R, L and R, R > L foraminal narrowing"),
        ("R more than L, (R) at L4-5, convex to L.", "L more than R, (L) at L4-5, convex to R."),
        ("R. paracentral, R/paracentral, R posterolat.", "L. paracentral, L/paracentral, L posterolat."),
        ("R L5 root, L S1 root, L 5, L4 R/L", "L L5 root, R S1 root, L 5, L4 L/R"),
        ("Lft paracentral, rght", "Rght paracentral, lft"),
        ("MRI of the L. spine, L-spine, L/S, L-S spine", "MRI of the L. spine, L-spine, L/S, L-S spine"),
    ],
)
def test_exchange_sides_values(text, expected):
    assert exchange_sides(text) == expected
    assert exchange_sides(expected) == text or "rigth" in text


def mirrored(facts):
    other = {"left": "right", "right": "left"}
    return {(kind, level, other.get(side, side), severity, negated) for kind, level, side, severity, negated in facts}


def test_exchanging_sides_mirrors_the_facts_and_twice_gives_the_text_back():
    num_sided = 0
    for seed in range(40):
        drawn = sample_level(SYNTHETIC_LEVELS[seed % 3], np.random.default_rng(seed))
        for text in write_reports(drawn, np.random.default_rng([seed, 1]), count=2):
            exchanged = exchange_sides(text)
            assert report_facts(exchanged) == mirrored(report_facts(text)), text
            assert exchange_sides(exchanged) == text
            num_sided += exchanged != text
    assert num_sided > 10


@pytest.mark.slow
def test_facts_of_the_real_notes_are_mirrored_and_labels_agree_with_findings(notes):
    num_sided = 0
    for text in notes:
        exchanged = exchange_sides(text)
        assert report_facts(exchanged) == mirrored(report_facts(text))
        assert exchange_sides(exchanged) == text
        num_sided += exchanged != text
        labels = labels_from_report(text)
        assert list(labels) == sorted(labels, key=REPORT_LABELS.index)
        assert labels in ((), ("No Finding",)) or (labels[0] == "LBP" and "No Finding" not in labels)
    assert len(notes) == 515 and num_sided > 100


@pytest.fixture
def notes():
    workbook = Path(__file__).parents[4] / "shared/data/mendeley_notes/Radiologists Report.xlsx"
    if not workbook.is_file():
        pytest.skip("no real data beside the project")
    return [note.text for note in read_notes(workbook) if note.text]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Muscle spasm, straightening, no stenosis", ("No Finding",)),
        ("Herniation: none. Stenosis: none.", ("No Finding",)),
        ("Pfirrmann grade 2", ("No Finding",)),
        ("No bulge. L1 haemangioma", ("LBP",)),
        ("Stenosis, bulge at L4-5, no herniation", ("LBP", "disc bulge", "spinal canal stenosis")),
        ("Bulge at L4-5, bulge at L5-S1", ("LBP", "disc bulge")),
    ],
)
def test_labels_from_report(text, expected):
    assert labels_from_report(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", "LBP", "MRI of the lumbar spine was performed.", "Study degraded by motion.", "See previous report."),
        # Findings that the reader does not know, or only asked about.
        *("Arachnoiditis.", "Syrinx in the conus.", "Epidural abscess at L4-5.", "Normal alignment. Arachnoiditis."),
        *("Unremarkable discs; epidural abscess.",),
        *("Muscle spasm. Left sacroiliitis.", "Sclerotic sacrum, adequate canal.", "Abnormal study."),
        *("Rule out disc herniation.", "Fracture cannot be excluded.", "INDICATION: Disc herniation.", "Fracture?"),
        # Normal, but not the spine; or only what was not named before.
        *("Normal saline was given.", "Patient of normal weight.", "Normal T1 and T2 sequences.", "Patent airway."),
        *("Technically adequate study.", "Open MRI was used.", "Preserved images.", "Healthy volunteer, scan failed."),
        *(
            "Otherwise unremarkable.",
            "The remainder of the study is normal.",
            "No other abnormality.",
            "No disc is normal.",
        ),
        *("No findings can be reported because of motion.", "The scan was of negative quality."),
        *("No significant change since 2016.", "Unchanged.", "The study is not normal.", "No new herniation."),
        # Other languages.
        *("Bandscheibenvorfall L4/5 rechts.", "Kein Bandscheibenvorfall.", "Estenosis del canal en L3-L4."),
        *("Hernie discale L5-S1 à gauche.", "Stenosi del canale lombare.", "L4-L5 düzeyinde disk fıtığı.", "腰椎正常"),
        "Грыжа диска L5-S1.",
    ],
)
def test_what_was_not_understood_has_no_class(text):
    assert labels_from_report(text) == labels_at_level(text, "L4/L5") == ()
    assert read_report(text).problem


@pytest.mark.parametrize(
    "text",
    [
        *("Normal study.", "Unremarkable MRI of the lumbar spine.", "Within normal limits.", "WNL", "NAD"),
        *("Negative examination.", "No abnormality detected.", "No significant pathology.", "No acute findings."),
        *(
            "Discs are preserved.",
            "The canal is widely patent.",
            "Normal cord.",
            "Loss of the normal lordosis.",
            "Everything is normal.",
            "Completely normal.",
            "All is perfectly normal.",
            "Nothing abnormal detected.",
            "Normal MRI in a woman of 30 years.",
            "Appearances are within normal limits for age.",
            "Intact endplates.",
            "no disc disease",
        ),
        *(
            "No bulge.",
            "Query stenosis. The canal is normal.",
            "No arachnoiditis. Normal roots.",
            "? spondylitis. Normal",
        ),
    ],
)
def test_what_is_said_to_be_normal_has_no_finding(text):
    assert labels_from_report(text) == ("No Finding",) and not read_report(text).problem


def test_a_problem_says_why():
    assert read_report("Spinalkanalstenose L3/4.").problem == "seems not to be English"
    assert read_report("Low back pain.").problem == "no known finding and no word of normality"
    assert (
        read_report("Adequate canal. Arachnoiditis.").problem
        == "affirms only what the reader does not know: 'arachnoiditis'"
    )


def test_labels_at_level_are_those_of_one_disc():
    text = "L4-5: bulge, no stenosis. Small protrusion at L5-S1. Multilevel Schmorl nodes."
    assert labels_at_level(text, "L4/L5") == ("LBP", "disc bulge")
    assert labels_at_level(text, "L5/S1") == ("LBP", "disc protrusion")
    assert labels_at_level(text, "L1/L2") == ("LBP",)
    assert labels_at_level("No bulge at L4-5", "L4/L5") == ("No Finding",)
    with pytest.raises(ValueError, match="'L4-5'"):
        labels_at_level(text, "L4-5")


def test_names_of_labels():
    assert REPORT_LABELS[0] == "LBP" and REPORT_LABELS[-1] == "No Finding"
    assert len(set(REPORT_LABELS)) == len(REPORT_LABELS)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "Simple cyst in the right kidney.",
            "Renal cortical cyst at the level of L2.",
            "Hepatic hemangioma.",
            "Popliteal cyst.",
        ),
        *(
            "Inguinal hernia.",
            "Herniation of the abdominal wall.",
            "Hip fracture.",
            "Rotator cuff tear.",
            "No renal lesion.",
        ),
        *("Renal artery stenosis.", "Aorta is normal in calibre.", "Kidneys, liver and spleen are unremarkable."),
        *(
            "Normal saline was given.",
            "The normal protocol was used.",
            "The patient has a normal BMI.",
            "Reflexes are normal.",
        ),
        *("Recommend correlation for stenosis.", "Suggest CT for fracture.", "Advise follow up MRI for stenosis."),
    ],
)
def test_what_is_not_of_the_spine_makes_no_class(text):
    assert labels_from_report(text) == ()
    assert labels_from_report(f"No disc herniation. {text}") == ("No Finding",)
    assert labels_from_report(f"{text} Bulge at L4-5.") == ("LBP", "disc bulge")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("Hip pain due to disc bulge at L4-5.", ("LBP", "disc bulge")),
        ("Fracture of L1 after hip replacement.", ("LBP", "vertebral fracture")),
        ("Canal stenosis with bladder dysfunction.", ("LBP", "spinal canal stenosis")),
        ("Renal cyst and L4-5 annular tear.", ("LBP", "annular tear")),
        ("Kidneys and discs are normal.", ("No Finding",)),
        ("Synovial cyst at the L4-5 facet. Tarlov cyst.", ("LBP",)),
        ("Findings suggest stenosis, suitable for surgery.", ("LBP", "spinal canal stenosis")),
    ],
)
def test_organs_beside_the_spine_hide_nothing_of_it(text, labels):
    assert labels_from_report(text) == labels
