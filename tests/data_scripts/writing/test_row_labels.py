import pytest
from PIL import Image

from data_scripts.records import Exclusion, Record, SourceAbout, SourceInfo
from data_scripts.reports.text import REPORT_LABELS
from data_scripts.writing.build_arguments import BuildArguments
from data_scripts.writing.row_labels import Labelling, label_lines, labels_report


def info(label_names=(), labels_from="source"):
    about = SourceAbout(
        name="t", summary="", license="other: none", citation="", size="", where="", labels_from=labels_from
    )
    return SourceInfo(about=about, label_names=label_names)


def record(report="Disc bulge at L4/L5.", labels=None, level="unknown", source="a"):
    return Record(
        load_image=lambda: Image.new("L", (8, 8)),
        report=report,
        patient_id="p",
        study_id="p",
        source=source,
        labels=labels,
        level=level,
    )


def labelling(source=None, **options):
    return Labelling.of(BuildArguments(source="folder", out="out", **options), source or info())


def labels_of(plan, *records):
    return [item.labels for item in plan.label(records)]


GIVEN = info(("slip", "No Finding"))


@pytest.mark.parametrize(
    ("source", "options", "labels", "expected"),
    [
        (GIVEN, {}, ("slip",), ("slip",)),
        (GIVEN, {"labels": "paper"}, ("slip",), ("LBP",)),
        (GIVEN, {"labels": "paper"}, ("No Finding",), ("No Finding",)),
        (GIVEN, {"labels": "paper"}, (), None),  # none of the classes is not the same as nothing found
        (GIVEN, {"labels": "paper"}, None, None),  # given labels are not filled up from reports
        (GIVEN, {"labels_from_reports": True}, ("slip",), ("LBP", "disc bulge")),
        (GIVEN, {"labels_from_reports": True, "labels": "paper"}, ("No Finding",), ("LBP",)),
        (info(), {}, None, None),
        (info(), {"labels": "paper"}, None, ("LBP",)),
        (info(), {"labels_from_reports": True}, None, ("LBP", "disc bulge")),
        (info(REPORT_LABELS, "reports"), {"labels_from_reports": True}, ("LBP",), ("LBP",)),  # the source has read them
        (info(REPORT_LABELS, "reports"), {"labels": "paper"}, ("LBP", "disc bulge"), ("LBP",)),
        (info(REPORT_LABELS, "reports"), {"labels": "paper"}, None, None),
    ],
)
def test_labels_by_source_and_option(source, options, labels, expected):
    plan = labelling(source, **options)
    assert labels_of(plan, record(labels=labels)) == [expected]
    assert set(expected or ()) <= set(plan.describe(source).label_names)


def test_a_report_is_read_at_the_level_of_its_image():
    plan = labelling(labels_from_reports=True)
    levels = ("L4/L5", "L5/S1", "several", "unknown")
    read = labels_of(plan, *(record(level=level) for level in levels))
    assert read == [("LBP", "disc bulge"), ("LBP",), ("LBP", "disc bulge"), ("LBP", "disc bulge")]


def test_contradictory_labels_stay_so_that_the_row_is_excluded():
    assert labels_of(labelling(GIVEN, labels="paper"), record(labels=("slip", "No Finding"))) == [("LBP", "No Finding")]


def test_exclusions_pass():
    exclusion = Exclusion("b", "no image")
    assert list(labelling(labels="paper").label([exclusion])) == [exclusion]


def test_reports_not_understood_are_counted_and_listed(monkeypatch):
    monkeypatch.setattr("data_scripts.writing.row_labels.labels_from_report", lambda text: ())
    plan = labelling(labels_from_reports=True)
    records = [record("One.", source="a"), record("Two.", source="b"), record("One.", source="c")]
    written = [*plan.label(records)]
    account = labels_report(plan, written, {"a": "a.png", "b": "b.png", "c": "c.png"}, ())
    assert account == {
        "classes": "findings",
        "from_reports": True,
        "reports_say_them": True,
        "not_used": [],
        "rows_without": 3,
        "not_understood": [{"first_row": "a.png", "rows": 2}, {"first_row": "b.png", "rows": 1}],
    }
    (line,) = label_lines({"rows_written": 3, "labels": account})
    assert line == "3 rows have no label: 2 reports were not understood; build_report.json lists them"


def test_rows_without_labels_are_said_with_the_way_out():
    account = {"from_reports": False, "reports_say_them": True, "not_used": [], "rows_without": 2, "not_understood": []}
    way_out = "--labels_from_reports reads labels from the reports"
    assert label_lines({"rows_written": 2, "labels": account}) == [f"no row has a label; {way_out}"]
    assert label_lines({"rows_written": 3, "labels": account}) == [f"2 of 3 rows have no label; {way_out}"]
    assert label_lines({"rows_written": 3, "labels": {**account, "rows_without": 0}}) == []
    composed = {**account, "reports_say_them": False}
    assert label_lines({"rows_written": 2, "labels": composed}) == ["no row has a label"]
