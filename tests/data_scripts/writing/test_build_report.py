import json
from collections.abc import Mapping
from typing import Any

import pytest

from data_scripts.writing.build_report import without_quoted_names, without_row_names


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ('missing image: "O\'Brien 3.png" is not in the folder', 'missing image: "..." is not in the folder'),
        (r"missing mask: 'O\'Hara \"Bo\" 3.png' is not there", "missing mask: '...' is not there"),
        ("empty report, and study 'A7' has 2 different ones", "empty report, and study '...' has 2 different ones"),
        ("patient_id '17E4' is odd; series_id \"7\"", "patient_id '...' is odd; series_id \"...\""),
        (
            "the file lies in sub-Salem/ses-1, but its name says sub-02",
            "the file lies in sub-.../ses-..., but its name says sub-...",
        ),
        ("Salem.tsv row 3 names no session_id", "... row 3 names no session_id"),
        ("unknown level 'C5'; the spreadsheet's 'x'", "unknown level 'C5'; the spreadsheet's 'x'"),
    ],
)
def test_reasons_name_no_one(reason, expected):
    assert without_quoted_names(reason) == expected


def report_of(**lists: Any) -> Mapping[str, Any]:
    """A build report that lists only what is given."""
    of_texts = {name: lists.get(name, []) for name in ("rows_left", "dates_in_names", "burnt_in_text")}
    return {
        "arguments": {},
        "deidentification": of_texts,
        "labels": {"not_understood": lists.get("not_understood", [])},
        "facts_changed": {"first": lists.get("first", [])},
        **{name: lists.get(name, []) for name in ("orientation_not_stated", "windows_replaced", "exclusions")},
    }


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("rows_left", [{"source": "salem/3.dcm", "kinds": ["NAME"]}]),
        ("dates_in_names", ["salem/3.dcm"]),
        ("burnt_in_text", ["salem/3.dcm"]),
        ("not_understood", [{"first_row": "salem/3.dcm", "rows": 1}]),
        ("first", ["salem/3.dcm"]),
        ("orientation_not_stated", ["salem/3.dcm"]),
        ("windows_replaced", ["salem/3.dcm"]),
        ("exclusions", [{"source": "salem/3.dcm", "reason": "'salem/3.dcm' is broken", "by_rule": False}]),
    ],
)
def test_no_list_names_a_row(name, rows):
    nameless, names = without_row_names(report_of(**{name: rows}), lambda source: f"folder/file-{len(source)}")
    assert "salem" not in json.dumps(nameless) and "folder/file-11" in json.dumps(nameless)
    assert names["rows"] == {"folder/file-11": "salem/3.dcm"}


def test_rows_of_two_tables_keep_their_names():
    report = report_of(
        exclusions=[
            {"source": source, "reason": "empty report", "by_rule": False}
            for source in ("metadata.csv row 3", "reports.xlsx row 3", "Salem.csv row 3")
        ]
    )
    nameless, names = without_row_names(report, lambda name: "folder/file-0")
    shown = [exclusion["source"] for exclusion in nameless["exclusions"]]
    assert shown == ["metadata row 3", "reports row 3", "table row 3"]
    assert [names["rows"][source] for source in shown] == [row["source"] for row in report["exclusions"]]
