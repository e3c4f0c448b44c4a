import pytest

from data_scripts.reports.sections import asserting_statements
from data_scripts.reports.text import normalise_report
from data_scripts.reports.words import read_statements
from tests.data_scripts.reports.test_findings import facts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Headings in a line, on lines of their own, in any case, before a colon, a dash or nothing.
        ("INDICATION: Sciatica, herniation? FINDINGS: No bulge.", ["-bulge"]),
        ("Indication: sciatica, r/o stenosis.\nFindings: mild bulge", ["bulge mild"]),
        ("indication - stenosis\nfindings - bulge", ["bulge"]),
        ("Indication – stenosis. Conclusion – bulge", ["bulge"]),
        ("CLINICAL INFORMATION\nPain, protrusion at L4-5\n\nFINDINGS\nNo protrusion.", ["-protrusion"]),
        ("INDICATION Back pain, stenosis\nFINDINGS No bulge", ["-bulge"]),
        ("CLINICAL HISTORY/INDICATION: Stenosis. FINDINGS: Bulge.", ["bulge"]),
        ("1. INDICATION: stenosis\n2. FINDINGS: bulge at L4-5", ["L4/L5 bulge"]),
        ("**HISTORY:** stenosis **FINDINGS:** bulge", ["bulge"]),
        ("MRI LUMBAR SPINE INDICATION: stenosis COMPARISON: cyst in 2019 FINDINGS: bulge", ["bulge"]),
        ("INDICATON: stenosis. FINDNGS: bulge", ["bulge"]),
        ("Clinical notes: pivd\nMRI: mild bulge", ["bulge mild"]),
        # Every heading that asserts nothing.
        ("Reason for exam: Stenosis\nImpression: Bulge", ["bulge"]),
        ("Reason for the examination: stenosis. Opinion: bulge", ["bulge"]),
        ("Clinical details: stenosis. Report: bulge", ["bulge"]),
        ("History of present illness: stenosis. Impression: bulge", ["bulge"]),
        ("PAST MEDICAL HISTORY: fracture.\nRESULT: bulge", ["bulge"]),
        ("Comparison: CT of 2018: fracture of L1. Findings: bulge", ["bulge"]),
        ("PRIOR STUDIES: MRI with L5-S1 extrusion.\nFINDINGS:\nBulge", ["bulge"]),
        ("Procedure: MRI for spinal stenosis\n\nBulge at L4-5", ["L4/L5 bulge"]),
        ("TECHNIQUE: Axial images to assess stenosis. T2.\nL4-L5: bulge", ["L4/L5 bulge"]),
        ("Bulge. RECOMMENDATION: CT for fracture. Consider biopsy of a mass.", ["bulge"]),
        ("IMPRESSION: Bulge.\nPLAN\nFollow-up of the stenosis.\nBiopsy of the mass.", ["bulge"]),
        ("Hx: stenosis. Findings: bulge", ["bulge"]),
        ("Provisional diagnosis: stenosis. Observations: bulge", ["bulge"]),
        ("Working diagnosis - cyst\nFindings - bulge", ["bulge"]),
        ("Findings: bulge. D/D: discitis, metastasis", ["bulge"]),
        # A section without a heading of findings after it ends with its statement, line or paragraph.
        ("Indication: stenosis. Bulge at L4-5.", ["L4/L5 bulge"]),
        ("Indication: pain. Known stenosis.\nBulge at L4-5.\nNo cyst.", ["L4/L5 bulge", "-cyst"]),
        ("HISTORY\nPain, stenosis\nBulge at L4-5", ["L4/L5 bulge"]),
        ("HISTORY: stenosis.\n\nBulge at L4-5.\n\nIMPRESSION: Bulge.", ["L4/L5 bulge", "bulge"]),
        ("Indication: stenosis. L4-5: bulge. Conclusion: protrusion", ["L4/L5 bulge", "protrusion"]),
        ("HISTORY: stenosis\nDISCS: bulge\nFINDINGS: cyst", ["bulge", "cyst"]),
        # What asserts.
        ("IMPRESSION:\n1. Mild bulge at L4-5.\n2. No stenosis.", ["L4/L5 bulge mild", "-stenosis"]),
        ("Findings and impression: bulge", ["bulge"]),
        ("Impression on the sac", ["thecal sac compression mild"]),
        ("Follow-up\nBulge", ["bulge"]),
        ("Comparison: None. Bulge. Impression: Cyst", ["bulge", "cyst"]),
        ("Neural foramina: mild narrowing. Canal: stenosis", ["foraminal narrowing mild", "stenosis"]),
        ("Previous surgery. Bulge", ["postoperative change", "bulge"]),
        ("Lumbar canal: narrowed", ["stenosis"]),
        ("Bulge. CLINICAL INFORMATION: stenosis", ["bulge"]),
    ],
)
def test_values(text, expected):
    assert facts(text) == expected
    if "\n\nBulge" not in text and "HISTORY\n" not in text and "Known" not in text:
        assert facts(normalise_report(text)) == expected


def test_every_word_is_kept_where_no_heading_stands():
    text = "Mild bulge at L4-5, compressing the sac. The history of the disc: no change"
    kept = [words for words, _ in asserting_statements(read_statements(text), text)]
    assert kept == [*read_statements(text)]
