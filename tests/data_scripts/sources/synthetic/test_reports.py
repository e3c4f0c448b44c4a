"""The wording is read back by patterns written from the meaning of the words, not from the templates."""

import re

import numpy as np
import pytest

from data_scripts.sources.synthetic.findings import SYNTHETIC_LEVELS, LevelFindings, sample_patient
from data_scripts.sources.synthetic.reports import spell_level, write_reports

NEGATED = re.compile(r"\b(no|not|neither|nor|without|adequate|normal width|free|patent|open|preserved|well)\b", re.I)
SEVERITIES = {"mild": r"mild|slight", "moderate": r"moderate", "severe": r"severe|marked"}


def sentences(report, pattern):
    return [sentence for sentence in report.split(".") if re.search(pattern, sentence, re.I)]


def affirmed(report, pattern):
    return [sentence for sentence in sentences(report, pattern) if not NEGATED.search(sentence)]


def severity_of(found):
    assert len(found) <= 1, found
    if not found:
        return None
    (severity,) = [name for name, pattern in SEVERITIES.items() if re.search(pattern, found[0], re.I)]
    return severity


def facts_of(report):
    """Read the facts of a report."""
    protrusion = affirmed(report, r"protru")
    site = None
    if protrusion:
        side = re.search(r"\b(left|right)", protrusion[0], re.I)
        zone = "foraminal" if re.search("foram", protrusion[0], re.I) else "paracentral"
        site = f"{side[1].lower()} {zone}" if side else "central"
        assert side or re.search("central|midline", protrusion[0], re.I)
    root = affirmed(report, r"compress")
    foramen = affirmed(report, r"(narrow\w* .*foramen)|(foramen .*narrow)")
    levels = {
        f"L{upper}/{'S1' if upper == '5' else 'L' + lower}"
        for upper, lower in re.findall(r"\bL(\d)[/-][LS]?(\d)", report)
    }
    return {
        "level": levels,
        "bulge": severity_of(affirmed(report, r"bulg")),
        "protrusion": severity_of(protrusion),
        "protrusion_site": site,
        "stenosis": severity_of(affirmed(report, r"canal.*(stenosis|narrow)|narrow.*canal|stenosis")),
        "hypertrophy": bool(affirmed(report, r"hypertroph|thickened")),
        "dehydration": bool(affirmed(report, r"dehydrat|desiccat")),
        "compressed_root": " ".join(
            [re.search("left|right", root[0])[0], re.search(r"\b(L\d|S1) (nerve )?root", root[0])[1]]
        )
        if root
        else None,
        "foraminal_side": re.search("left|right", foramen[0])[0] if foramen else None,
    }


def all_findings(num_patients):
    for patient in range(num_patients):
        yield from sample_patient(np.random.default_rng([3, patient]))


def test_every_text_states_exactly_the_facts_drawn():
    for index, findings in enumerate(all_findings(150)):
        for report in write_reports(findings, np.random.default_rng(index)):
            expected = {
                "level": {findings.level},
                "bulge": findings.bulge,
                "protrusion": findings.protrusion,
                "protrusion_site": findings.protrusion_site,
                "stenosis": findings.stenosis,
                "hypertrophy": findings.hypertrophy,
                "dehydration": findings.dehydration,
                "compressed_root": findings.compressed_root,
                "foraminal_side": findings.foraminal_side,
            }
            assert facts_of(report) == expected, report


def test_what_is_absent_is_denied():
    for index, findings in enumerate(all_findings(60)):
        for report in write_reports(findings, np.random.default_rng(index)):
            if findings.stenosis is None:
                assert [s for s in sentences(report, "canal") if NEGATED.search(s)], report
            if not findings.bulge and not findings.protrusion:
                (contour,) = sentences(report, "bulg")
                assert "protru" in contour and NEGATED.search(contour)
            if findings.compressed_root is None and findings.stenosis in (None, "mild"):
                assert [s for s in sentences(report, "root") if NEGATED.search(s)], report


def test_the_texts_of_a_level_state_the_same_negations():
    topics = ("hydrat|desiccat", "foram", "root", "canal", "bulg")
    for index, findings in enumerate(all_findings(60)):
        reports = write_reports(findings, np.random.default_rng(index))
        stated = {tuple(bool(sentences(report, topic)) for topic in topics) for report in reports}
        assert len(stated) == 1, reports


def test_wording_varies():
    normal = LevelFindings(level="L4/L5")
    texts = {text for seed in range(100) for text in write_reports(normal, np.random.default_rng(seed))}
    assert len(texts) > 450


def test_count_is_kept_and_texts_differ():
    texts = write_reports(LevelFindings(level="L3/L4"), np.random.default_rng(0), count=30)
    assert len(set(texts)) == 30


@pytest.mark.parametrize(
    ("level", "spellings"),
    [("L4/L5", {"L4/L5", "L4-L5", "L4/5", "L4-5"}), ("L5/S1", {"L5/S1", "L5-S1"})],
)
def test_levels_are_spelt_in_the_usual_ways(level, spellings):
    assert {spell_level(level, np.random.default_rng(seed)) for seed in range(80)} == spellings


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"level": "L1/L2"}, "L1/L2"),
        ({"level": "L4/L5", "protrusion": "mild"}, "give both"),
        ({"level": "L4/L5", "hypertrophy": True}, "without stenosis"),
    ],
)
def test_findings_that_cannot_be_drawn_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        LevelFindings(**fields)


def test_sides_name_the_root_that_lies_there():
    site = {"protrusion": "severe", "protrusion_site": "right foraminal"}
    roots = [LevelFindings(level=level, **site).compressed_root for level in SYNTHETIC_LEVELS]
    assert roots == ["right L3", "right L4", "right L5"]
