import json

import pytest

from data_scripts.sources.folder.reports import StudyReports
from data_scripts.sources.tables import Row


def row(number, report, study="s1", patient="p1"):
    cells = {"report": report, "study_id": study, "patient_id": patient}
    return Row(where=f"metadata.csv row {number}", cells=cells)


@pytest.fixture
def reports_of(tmp_path):
    """Give each row its report, or the reason why it has none; and what is wrong with the table of reports."""

    def read(rows, table=None):
        path = tmp_path / "reports.jsonl"
        path.write_text("".join(json.dumps(cells) + "\n" for cells in table or ()))
        reports = StudyReports(rows, path if table else None)
        found = []
        for one in rows:
            try:
                found.append(reports.of(one))
            except ValueError as error:
                found.append(f"error: {error}")
        return found, [f"{problem.source}: {problem.reason}" for problem in reports.problems]

    return read


def test_rows_of_a_study_share_its_report(reports_of):
    rows = [row(1, "Bulge."), row(2, ""), row(3, "N/A"), row(4, "Normal.", "s2"), row(5, None, "s2")]
    assert reports_of(rows) == (["Bulge.", "Bulge.", "Bulge.", "Normal.", "Normal."], [])


def test_different_reports_of_a_study_are_kept(reports_of):
    rows = [row(1, "Bulge."), row(2, "Stenosis."), row(3, "")]
    found, _ = reports_of(rows)
    assert found[:2] == ["Bulge.", "Stenosis."] and "study 's1' has 2 different ones" in found[2]


def test_a_study_is_one_patient(reports_of):
    found, _ = reports_of([row(1, "Bulge.", "1", "p1"), row(2, "", "1", "p2")])
    assert "study '1' has none in another row" in found[1]


@pytest.mark.parametrize("study", ["", None, "NA"])
def test_without_a_study_nothing_is_shared(reports_of, study):
    found, _ = reports_of([row(1, "Bulge.", study), row(2, "nil", study)])
    assert found[1] == "error: empty report: 'nil'; to use that of another row, give both rows the same study_id"


def test_a_table_of_reports(reports_of):
    rows = [row(1, ""), row(2, None), row(3, "Own.", "s2"), row(4, "", "s3"), row(5, "", "s4")]
    table = [
        {"study_id": "s1", "report": "Bulge."},
        {"study_id": "s2", "report": "Other."},
        {"study_id": "s4", "report": "nan"},
        {"study_id": "s9", "report": "Lost."},
        {"study_id": None, "report": "Whose?"},
    ]
    found, problems = reports_of(rows, table)
    assert found[:3] == ["Bulge.", "Bulge.", "Own."]
    assert all("has none in another row or in reports.jsonl" in text for text in found[3:])
    assert problems == [
        "reports.jsonl row 2: the study has another report in its own row",
        "reports.jsonl row 3: empty report",
        "reports.jsonl row 4: report of a study without an image",
        "reports.jsonl row 5: no study_id",
    ]


def test_studies_numbered_for_each_patient(reports_of):
    rows = [row(1, "", "1", "p1"), row(2, "", "1", "p2")]
    found, _ = reports_of(rows, [{"study_id": "1", "report": "Bulge."}])
    assert all("study '1' has several patients: add patient_id to the table of reports" in text for text in found)
    table = [
        {"study_id": 1, "patient_id": "p1", "report": "Bulge."},
        {"study_id": 1.0, "patient_id": "p2", "report": "Cyst."},
    ]
    assert reports_of(rows, table) == (["Bulge.", "Cyst."], [])


def test_whole_numbers_of_pandas(reports_of):
    assert reports_of([row(1, "", "12.0", "7.0")], [{"study_id": "12", "report": "Bulge."}]) == (["Bulge."], [])


def test_two_reports_of_one_study_in_the_table(reports_of):
    table = [{"study_id": "s1", "report": "Bulge."}, {"study_id": "s1", "report": "Cyst."}]
    (text,), _ = reports_of([row(1, "")], table)
    assert "study 's1' has 2 different ones; give each row its own" in text
    assert reports_of([row(1, "")], [table[0], table[0]])[0] == ["Bulge."]


@pytest.mark.parametrize("cells", [{"report": "Bulge."}, {"study_id": "s1", "report": "Bulge.", "labels": "x"}])
def test_columns_of_the_table_are_checked(reports_of, cells):
    with pytest.raises(
        ValueError, match="lacks the columns study_id|unknown columns 'labels'; it may have study_id, rep"
    ):
        reports_of([row(1, "")], [cells])
