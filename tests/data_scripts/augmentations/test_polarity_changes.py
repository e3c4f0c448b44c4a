"""Denials become statements, and the reverse, in the report's own words."""

import pytest

from data_scripts.augmentations.polarity_changes import capital, with_other_polarity
from data_scripts.reports.text import report_findings


def changed(report, place=0, sentence=None):
    finding = report_findings(report)[place]
    start, end = (
        (0, len(report)) if sentence is None else (report.index(sentence), report.index(sentence) + len(sentence))
    )
    return [*with_other_polarity(report, start, end, finding)]


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        ("There is a mild disc bulge at L4-5.", "There is no disc bulge at L4-5."),
        ("Mild left paracentral protrusion of the disc is seen.", "No protrusion of the disc is seen."),
        ("Features of muscle spasm.", "No features of muscle spasm."),
        ("The disc bulges mildly and symmetrically.", "The disc does not bulge."),
        ("A small bulge abuts the thecal sac.", "A small bulge does not abut the thecal sac."),
        ("The spinal canal is severely narrowed.", "The spinal canal is not narrowed."),
        ("Upper and lower endplate changes.", "No upper or lower endplate changes."),
        ("Modic type 2 change noted.", "No Modic change noted."),
        ("There is no disc bulge.", "There is a disc bulge."),
        ("Without disc bulge.", "With a disc bulge."),
        ("The disc neither bulges nor protrudes.", "The disc bulges but does not protrude."),
        ("The neural foramina are patent.", "The neural foramina are narrowed."),
        ("The disc is well hydrated.", "The disc is dehydrated."),
        ("No significant canal stenosis.", "Canal stenosis."),
        ("There is no herniated disc material.", "There is herniated disc material."),
        ("Disc contour is normal, without bulge or protrusion.", "No protrusion. A bulge."),
    ],
)
def test_a_finding_is_denied_or_stated(report, expected):
    kinds = [finding.kind for finding in report_findings(report)]
    assert expected in [text for place in range(len(kinds)) for text in changed(report, place)]


def test_a_cause_is_not_denied_without_its_effect():
    report = "Disc bulge at L4-5, compressing the thecal sac."
    assert not [text for text in changed(report, 0) if "o disc bulge" in text]


def test_the_rest_of_the_report_stays():
    report = "L4-5: disc bulge. No stenosis. The roots are free."
    (text,) = changed(report, 1, "No stenosis.")
    assert text == "L4-5: disc bulge. Stenosis. The roots are free."


def test_capital_begins_a_text():
    assert capital("a bulge") == "A bulge" and capital("") == ""
