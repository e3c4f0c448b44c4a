"""Rephrasings say what the report says, or are not kept."""

import re
from itertools import islice

import pytest

from data_scripts.paraphrasing.phrases import CONTOURS, EFFECTS, OTHERS
from data_scripts.paraphrasing.rephraser import comparable, rephrasings, word_groups
from data_scripts.records import ReadOptions
from data_scripts.reports.text import FINDING_KINDS, report_facts, report_findings
from data_scripts.sources.notes import read_notes
from data_scripts.sources.synthetic import source as synthetic

REPORT = (
    "LSS MRI. Feature of muscle spasm. Mild diffuse disc bulges noted at L3-4 & L4/5 levels, indenting the thecal sac. "
    "Lt paracentral disc protrusion at L5-S1 compressing the left S1 nerve root and narrowing both neural foramina. "
    "Modic type II noted at L5/S1. No significant spinal canal stenosis."
)


def rephrase(report, count, seed=0):
    return tuple(islice(rephrasings(report, seed), count))


def test_rephrasings_keep_what_plain_reading_finds():
    texts = rephrase(REPORT, 12)
    assert len({*map(comparable, texts)}) == 12
    for text in texts:
        assert report_facts(text) == report_facts(REPORT)
        # Without the parser: the words that each fact needs.
        assert {re.sub("-", "/", level) for level in re.findall(r"L\d[-/][LS]\d", text)} == {"L3/L4", "L4/L5", "L5/S1"}
        for word in ("spasm", "bulge", "protrusion", "thecal sac", "nerve root", "type II"):
            assert word in text.replace("Spasm", "spasm"), text
        assert len(re.findall(r"\bleft", text)) == 2 and "right" not in text and "both" in text
        assert len(re.findall(r"\b(?:no|without)\b", text, re.I)) == 1
        (denied,) = [sentence for sentence in text.split(".") if re.search(r"\bno\b", sentence, re.I)]
        assert re.search("canal", denied) and not re.search("bulge|protrusion|spasm", denied)
        assert not re.search("moderate|severe|marked", text)


def test_grammar():
    reports = (
        REPORT,
        "Annular tear at L4/L5.",
        "Severe central extrusion at L4/L5, L5/S1. Annular tears. Osteophytes.",
    )
    for report in reports:
        for text in rephrase(report, 15):
            assert not re.search(r"\b[aA] [aeiou]|\ban [^aeiou]|  | [.,]|\b(?:there|There) are an? ", text), text
            assert all(sentence[0].isupper() for sentence in text.split(". ")) and text.endswith(".")
            assert not re.search(
                r"\b(?:bulge|protrusion|extrusion)s [^,.]*\b(?:compresses|narrows|indents|is seen)", text
            )
            assert not re.search(r"\bA [^,.]*\b(?:bulge|protrusion) [^,.]*\b(?:compress|narrow|are)\b", text), text


@pytest.mark.parametrize("kind", FINDING_KINDS)
def test_each_kind_has_words_that_mean_it(kind):
    """Whatever phrase is drawn, the parser reads it as the kind."""
    names = [name for noun in (CONTOURS | OTHERS).get(kind, ()) for name in (noun.one, noun.many) if name]
    if kind in EFFECTS:
        effect = EFFECTS[kind]
        structures = [effect.structure, *(s.format(side="left") for s in (effect.sided, effect.both) if s)]
        names = [effect.name, *(f"{verbs[3]} {structure}" for verbs in effect.verbs for structure in structures)]
    assert names
    for name in names:
        grade = "grade II" if kind in ("spondylolisthesis", "Pfirrmann grade") else "type II"
        sentence = f"There is {name.format(grade=grade)} at L4/L5."
        ((found, severity),) = {(finding.kind, finding.severity) for finding in report_findings(sentence)}
        assert (found, severity) == (kind, grade.replace("II", "2") if "{grade}" in name else None), sentence


@pytest.mark.parametrize(
    ("report", "words"),
    [
        ("Mild diffuse disc bulge at L4/L5.", {"diffuse"}),
        ("Wide base ,disc bulge at L4/L5.", {"broad-based"}),
        ("Rt paracentral/foraminal disc protrusion at L5-S1.", {"right paracentral and foraminal"}),
        ("Diffuse bulge with Lt para central protrusion at L5-S1.", {"diffuse", "left paracentral"}),
        ("Diffuse degeneration. Central protrusion at L5-S1.", set()),
        ("Paracentral fat. A protrusion at L5-S1.", set()),
    ],
)
def test_shape_and_zone_are_kept(report, words):
    for text in rephrase(report, 4):
        assert all(word in text for word in words), text
        assert set(re.findall(r"diffuse|broad-based|paracentral|foraminal", text)) == set(
            re.findall(r"diffuse|broad-based|paracentral|foraminal", " ".join(words))
        ), text


def test_both_endplates_are_not_left_and_right():
    for text in rephrase("Changes of both endplates at L4/L5.", 4):
        assert "both endplates" in text and "bilateral" not in text.casefold()


def test_a_report_without_a_finding_has_no_rephrasing():
    assert rephrase("LSS MRI with contrast.", 4) == () == rephrase("", 4)


def test_rephrasing_depends_on_report_and_seed_alone():
    assert rephrase(REPORT, 4) == rephrase(REPORT, 8)[:4] != rephrase(REPORT, 4, seed=1)


def test_wordings_that_change_a_fact_are_drawn_and_dropped(monkeypatch):
    """A wrong sentence among the drawn ones does not pass."""
    monkeypatch.setattr(
        "data_scripts.paraphrasing.rephraser.word_groups",
        lambda groups, rng, one_by_one: (
            word_groups(groups, rng) + " Right disc protrusion at L2/L3." * int(rng.integers(2))
        ),
    )
    assert all("L2" not in text for text in rephrase(REPORT, 6))


def test_synthetic_reports_have_four_rephrasings():
    reports = {r.report for r in synthetic.read(ReadOptions(raw=None, seed=9, num_patients=4))}
    for report in reports:
        texts = rephrase(report, 4)
        assert len(texts) == 4 and {report_facts(text) for text in texts} == {report_facts(report)}


@pytest.mark.slow
def test_notes_have_four_rephrasings(shared_data):
    notes = read_notes(shared_data / "mendeley_notes" / "Radiologists Report.xlsx")
    with_finding = [note.text for note in notes if report_facts(note.text)]
    complete = 0
    for text in with_finding:
        rephrasings = rephrase(text, 4)
        assert all(report_facts(rephrasing) == report_facts(text) for rephrasing in rephrasings)
        complete += len({*map(comparable, rephrasings)} - {comparable(text)}) == 4
    print(f"{complete} of {len(with_finding)} notes with a finding have four rephrasings")
    assert complete >= 0.95 * len(with_finding) > 480
