"""The report reader reads every statement as stated and every denial as denied; no template is in both halves."""

import hashlib
import subprocess
import sys

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, List, Value

from data_scripts.records import LEVELS
from data_scripts.reports.text import FINDING_KINDS, REPORT_LABELS, labels_from_report, report_findings
from data_scripts.sources.lsma_pqr.tables import LABEL_NAMES as LSMA
from data_scripts.sources.rsna2024.source import LABEL_OF_CONDITION
from data_scripts.sources.spider.source import LABEL_NAMES as SPIDER
from tests.conftest import PROJECT
from train.data import statement_words as words
from train.data.statement_banks import (
    finding_states,
    grade_bank,
    grade_scale,
    statement_bank,
    trained_wordings,
)

RSNA = (*LABEL_OF_CONDITION.values(), "No Finding")
KNEE = ("osteoarthritis", "No Finding")
OF_ABNORMALITY = ("LBP", "No Finding")
DATASETS = {"spider": SPIDER, "reports": REPORT_LABELS, "lsma": LSMA, "rsna": RSNA, "drawn": OF_ABNORMALITY}
NAMED = (
    "severe stenosis",
    "mild disc bulge",
    "Modic type 2",
    "L4/L5 disc bulge",
    "grade 1 spondylolisthesis",
    "Disc_Bulge",
)
# name → kind, side, severity and level
READ = {
    "disc narrowing": ("disc space narrowing", None, None, None),
    "disc bulging": ("bulge", None, None, None),
    "canal stenosis": ("stenosis", None, None, None),
    "left foraminal narrowing": ("foraminal narrowing", "left", None, None),
    "right subarticular stenosis": ("lateral recess narrowing", "right", None, None),
    "mild disc bulge": ("bulge", None, "mild", None),
    "Modic type 2": ("Modic change", None, "type 2", None),
    "L4/L5 disc bulge": ("bulge", None, None, "L4/L5"),
    "vertebral fracture": ("fracture", None, None, None),
}


def all_of(wordings):
    return (*wordings.trained, *wordings.unseen)


def known_classes():
    graded = ("Pfirrmann >= 4", "Pfirrmann grade", "compression")
    names = {*SPIDER, *REPORT_LABELS, *LSMA, *RSNA, *FINDING_KINDS, *NAMED} - {*OF_ABNORMALITY, *graded}
    return sorted(names)


def test_statements_are_read_as_stated_and_denials_as_denied():
    for name in known_classes():
        bank = statement_bank(name)
        for wordings, negated in ((bank.stated, False), (bank.denied, True)):
            read = [{(f.kind, f.side, f.level, f.negated) for f in report_findings(text)} for text in all_of(wordings)]
            assert all(len(findings) == 1 for findings in read) and len(set.union(*read)) == 1, name
            assert {found[-1] for found in read[0]} == {negated}, name


@pytest.mark.parametrize(("name", "expected"), READ.items())
def test_a_class_is_worded_as_the_finding_that_its_name_states(name, expected):
    read = {
        (f.kind, f.side, f.severity, f.level)
        for text in statement_bank(name).stated.trained
        for f in report_findings(text)
    }
    assert read == {expected}


@pytest.mark.parametrize("anatomy", [None, "knee", "shoulder"])
def test_halves_share_no_wording_and_each_has_enough(anatomy):
    names = (
        *known_classes(),
        *OF_ABNORMALITY,
        "Pfirrmann >= 4",
        "compression",
        "Baker cyst",
        "wobble",
        "osteoarthritis",
    )
    banks = [statement_bank(name, anatomy) for name in names]
    for wordings in (half for bank in banks for half in (bank.stated, bank.denied)):
        texts = all_of(wordings)
        assert len(set(texts)) == len(texts) and len(wordings.unseen) >= 10
        assert 0.15 < len(wordings.unseen) / len(texts) < 0.25
        assert all(text[0] == text[0].upper() and text.endswith(".") and "  " not in text for text in texts)


def test_halves_share_no_template():
    for trained, unseen in zip(
        zip(*words.TRAINED_TEMPLATES, strict=True), zip(*words.UNSEEN_TEMPLATES, strict=True), strict=True
    ):
        assert not {*trained} & {*unseen} and len({*trained}) == len(trained) == 20 and len({*unseen}) == 5
    assert not {*words.TRAINED_GRADE_TEMPLATES} & {*words.UNSEEN_GRADE_TEMPLATES}


def test_unseen_denials_use_no_word_of_denial_that_training_lacks():
    cues = ("no", "not", "without", "absent", "none", "negative", "free")
    denials = [[denied for _, denied in pairs] for pairs in (words.TRAINED_TEMPLATES, words.UNSEEN_TEMPLATES)]
    trained, unseen = ({word.lower().strip(".:") for text in half for word in text.split()} for half in denials)
    assert unseen & {*cues} and unseen & {*cues} <= trained


@pytest.mark.parametrize("names", DATASETS.values(), ids=DATASETS)
def test_statements_of_a_class_state_no_other_class_of_the_dataset(names):
    kinds = {
        name: {f.kind for f in report_findings(f"There is {name}.")} for name in names if name not in OF_ABNORMALITY
    }
    for name in names:
        others = {kind for other, found in kinds.items() if other != name for kind in found} - kinds.get(name, set())
        for text in all_of(statement_bank(name, None, names).stated):
            assert not others & {f.kind for f in report_findings(text) if not f.negated}, text
            contained = [
                other for other in names if other.lower() in text.lower() and other.lower() not in name.lower()
            ]
            assert name == "No Finding" or not contained, text


def test_abnormality_and_normality_deny_each_other():
    low_back_pain, no_finding = statement_bank("LBP"), statement_bank("No Finding")
    assert low_back_pain.stated == no_finding.denied and low_back_pain.denied == no_finding.stated
    assert statement_bank("normal", "shoulder") == statement_bank("No Finding", "shoulder")
    assert {labels_from_report(text)[:1] for text in all_of(low_back_pain.stated)} == {("LBP",), ()}
    assert {labels_from_report(text)[:1] for text in all_of(no_finding.stated)} == {("No Finding",), ()}
    assert "The scan reveals a normal shoulder." in no_finding_of("shoulder")


def no_finding_of(anatomy):
    return statement_bank("No Finding", anatomy).stated.unseen


def test_a_class_that_denies_is_the_denial_of_the_class():
    stenosis, denied = statement_bank("canal stenosis"), statement_bank("No canal_stenosis")
    assert denied.stated == stenosis.denied and denied.denied == stenosis.stated
    assert statement_bank("stenosis absent").stated == statement_bank("stenosis").denied


@pytest.mark.parametrize(
    ("name", "anatomy", "held", "others"),
    [
        ("Pfirrmann >= 4", None, "45", "123"),
        ("KL 1", "knee", "1", "0234"),
        ("KL >= 2", "knee", "234", "01"),
        ("Pfirrmann II-III", None, "23", "145"),
    ],
)
def test_a_class_of_grades_has_the_words_of_its_grades(name, anatomy, held, others):
    scale = grade_scale(["1", "2"], anatomy)
    bank = statement_bank(name, anatomy)
    for wordings, grades in ((bank.stated, held), (bank.denied, others)):
        assert {*wordings.trained} == {text for grade in grades for text in grade_bank(scale, grade, anatomy).trained}
        assert {*wordings.unseen} == {text for grade in grades for text in grade_bank(scale, grade, anatomy).unseen}


@pytest.mark.parametrize(
    ("grades", "anatomy", "scale"),
    [
        ("12345", None, "Pfirrmann"),
        ("01234", "knee", "Kellgren-Lawrence"),
        ("ABCD", None, "stenosis"),
        ("ABCD", "knee", "severity"),
        (("Normal/Mild", "Moderate", "Severe"), None, "stenosis severity"),
        (("low", "high"), None, "severity"),
        ("0123", None, "severity"),
    ],
)
def test_the_banks_of_a_scale_tell_its_grades_apart(grades, anatomy, scale):
    assert grade_scale(grades, anatomy) == scale
    banks = [grade_bank(scale, grade, anatomy) for grade in grades]
    texts = [text for bank in banks for text in all_of(bank)]
    assert len({*texts}) == len(texts)
    for bank in banks:
        assert len(bank.trained) >= 20 and len(bank.unseen) >= 6 and not {*bank.trained} & {*bank.unseen}


@pytest.mark.parametrize("name", ["", "  ", "--", "?!", "N/A", "nan", "…"])
def test_a_class_without_words_is_refused(name):
    with pytest.raises(ValueError, match="No statement can be made of the class"):
        statement_bank(name)


@pytest.mark.parametrize(
    ("scale", "grade"), [("Pfirrmann", "6"), ("Kellgren-Lawrence", "5"), ("stenosis", "E"), ("severity", "-")]
)
def test_a_grade_without_a_bank_is_refused(scale, grade):
    with pytest.raises(ValueError, match=repr(grade)):
        grade_bank(scale, grade)


def test_names_may_hold_braces_and_other_scripts():
    assert "There is no {n} x." in statement_bank("{n} x").denied.trained
    assert "No 椎间盘突出." in statement_bank("椎间盘突出").denied.trained


def test_banks_are_the_same_in_every_process():
    code = (
        "import hashlib\nfrom train.data.statement_banks import statement_bank as bank\n"
        "banks = [bank('disc bulge'), bank('LBP'), bank('wobble', 'knee')]\n"
        "print(hashlib.sha256(repr(banks).encode()).hexdigest())"
    )
    environment = {"PYTHONHASHSEED": "1", "PYTHONPATH": str(PROJECT)}  # of this process: another seed
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=True)
    banks = [statement_bank("disc bulge"), statement_bank("LBP"), statement_bank("wobble", "knee")]
    assert done.stdout.strip() == hashlib.sha256(repr(banks).encode()).hexdigest()


def test_the_words_of_all_classes_and_grades_can_be_learnt():
    texts = trained_wordings(SPIDER, None, "12345")
    assert len({*texts}) == len(texts)
    assert {*statement_bank("No Finding", None, SPIDER).denied.trained, *grade_bank("Pfirrmann", "3").trained} <= {
        *texts
    }
    assert not {*statement_bank("disc bulging", None, SPIDER).stated.unseen} & {*texts}


def rows(names, labels, reports=None, levels=None):
    features = Features(
        {
            "labels": List(ClassLabel(names=list(names))),
            "report": Value("string"),
            "level": ClassLabel(names=list(LEVELS)),
        }
    )
    return Dataset.from_dict(
        {"labels": labels, "report": reports or [""] * len(labels), "level": levels or ["unknown"] * len(labels)},
        features=features,
    )


def test_grades_and_people_say_of_every_class_whether_it_is_there():
    split = rows(("bulge", "stenosis", "No Finding"), [["bulge"], ["No Finding"], [], None])
    expected = torch.tensor([[1, 0.0], [0, 0], [0, 0], [-1, -1]])
    for origin in ("grades", "source", None):
        assert torch.equal(finding_states(split, ["bulge", "stenosis"], origin), expected)


def test_reports_are_silent_on_what_they_do_not_name():
    reports = [
        "Disc bulge at L4/L5. No stenosis at L4/L5.",
        "Disc bulge at L4/L5. No stenosis at L5/S1.",
        "No disc bulge. Stenosis at L3/L4.",
        "Bandscheibenvorfall.",
    ]
    labels = [["LBP", "disc bulge"], ["LBP", "disc bulge"], ["LBP"], None]
    split = rows(REPORT_LABELS, labels, reports, ["L4/L5"] * 4)
    states = finding_states(
        split, ["LBP", "No Finding", "disc bulge", "spinal canal stenosis", "vertebral fracture"], None
    )
    assert states.tolist() == [[1, 0, 1, 0, -1], [1, 0, 1, -1, -1], [1, 0, 0, -1, -1], [-1] * 5]


def test_what_is_both_stated_and_denied_at_a_level_is_not_known():
    split = rows(REPORT_LABELS, [["LBP"]], ["No disc bulge at L4/L5. Multilevel disc bulges."], ["L4/L5"])
    assert finding_states(split, ["disc bulge"], "reports").tolist() == [[-1]]


def test_an_unknown_class_is_refused():
    with pytest.raises(ValueError, match="no class tumour; its classes are bulge"):
        finding_states(rows(["bulge"], [[]]), ["tumour"])
