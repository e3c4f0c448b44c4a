import csv
import json
from collections import Counter

import pytest

from data_scripts.parse_reports import COLUMNS, ParseArguments, main, parse_reports
from data_scripts.system.command_line import run
from tests.data_scripts.sources.test_notes import write_workbook

ROWS = [
    (1, "Feature of muscle spasm.\nSmall Lt protrusion at L4/L5 & L5/S1,\n- no  stenosis"),
    (2, None),
    (3, "Muscle spasm. No bulge."),
    ("x", "bulge"),
    (5, " "),
    (6, "Kein Bandscheibenvorfall L4/5."),
    (7, "Low back pain. Rule out bulge."),
]


def test_names_in_notes_are_not_written(tmp_path):
    notes = write_workbook(tmp_path / "notes.xlsx", [(1, "Dr. Salem, a.b@klinik.de 12/03/2016: disc bulge at L4/L5.")])
    parse_reports(ParseArguments(notes=notes, out=tmp_path / "findings.jsonl"))
    (row,) = map(json.loads, (tmp_path / "findings.jsonl").read_text(encoding="utf-8").splitlines())
    assert row["text"] == "Dr. [NAME], [EMAIL] [DATE]: disc bulge at L4/L5."
    assert row["text"][slice(*row["span"])] == "bulge"


@pytest.fixture
def notes(tmp_path):
    return write_workbook(tmp_path / "notes.xlsx", ROWS)


def test_a_line_for_each_finding_and_level(notes, tmp_path):
    out = tmp_path / "made" / "findings.jsonl"
    report = parse_reports(ParseArguments(notes=notes, out=out))
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    texts = {f"{patient_id:04}": text for patient_id, text in ROWS if isinstance(patient_id, int)}
    common = {"patient_id": "0001", "kind": "protrusion", "side": "left", "severity": "mild", "negated": False}
    common |= {"span": [34, 44], "text": texts["0001"]}
    assert rows[1:3] == [{**common, "level": level} for level in ("L4/L5", "L5/S1")]
    assert [(row["patient_id"], row["kind"], row["negated"]) for row in rows[:1] + rows[3:]] == [
        ("0001", "muscle spasm", False),
        ("0001", "stenosis", True),
        ("0003", "muscle spasm", False),
        ("0003", "bulge", True),
    ]
    assert all(row["text"] == texts[row["patient_id"]] for row in rows)
    assert [row["text"][slice(*row["span"])] for row in rows] == [
        *("muscle spasm", "protrusion", "protrusion", "stenosis", "Muscle spasm", "bulge"),
    ]
    assert report == json.loads((out.parent / "findings_report.json").read_text(encoding="utf-8"))
    assert (report["notes_read"], report["with_text"], report["empty"], report["left_out"]) == (7, 4, 2, 1)
    assert report["empty_patient_ids"] == ["0002", "0005"]
    assert report["exclusions"][0]["source"] == "notes.xlsx row 5"
    assert report["patients_by_class"] == {"LBP": 1, "No Finding": 1}
    assert report["not_understood"] == [
        {"source": "notes.xlsx row 7", "reason": "seems not to be English"},
        {"source": "notes.xlsx row 8", "reason": "no known finding and no word of normality"},
    ]
    assert report["findings_by_kind"] == Counter(row["kind"] for row in rows) and report["findings"] == 6
    assert sorted(path.name for path in out.parent.iterdir()) == ["findings.jsonl", "findings_report.json"]


def test_csv_holds_the_same(notes, tmp_path):
    for name in ("findings.jsonl", "table.csv"):
        parse_reports(ParseArguments(notes=notes, out=tmp_path / name))
    lines = [json.loads(line) for line in (tmp_path / "findings.jsonl").read_text(encoding="utf-8").splitlines()]
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert tuple(reader.fieldnames) == tuple(lines[0]) == COLUMNS
    for row, line in zip(rows, lines, strict=True):
        as_text = {name: "" if value is None else str(value) for name, value in line.items()}
        as_text |= {"negated": str(line["negated"]).lower(), "span": "-".join(map(str, line["span"]))}
        assert row == as_text


def test_what_exists_is_replaced_only_when_asked(notes, tmp_path):
    out = tmp_path / "findings.jsonl"
    out.write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="findings.jsonl exists; .*--overwrite"):
        parse_reports(ParseArguments(notes=notes, out=out))
    assert out.read_text(encoding="utf-8") == "mine"
    parse_reports(ParseArguments(notes=notes, out=out, overwrite=True))
    assert out.read_text(encoding="utf-8").count("\n") == 6


def test_command_line(notes, tmp_path, capsys):
    assert run(main, ["--notes", str(notes), "--out", str(tmp_path / "findings.jsonl")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "7 notes read: 4 with text, 2 empty, 1 left out, 2 not understood",
        "empty: 0002, 0005",
        "left out: notes.xlsx row 5: the patient ID must be a whole number, got 'x'",
        "not understood: notes.xlsx row 7: seems not to be English",
        "not understood: notes.xlsx row 8: no known finding and no word of normality",
        f"6 findings written to {tmp_path / 'findings.jsonl'}",
        "1 LBP, 1 No Finding",
    ]
    for arguments, message in (
        (["--notes", str(notes), "--out", "findings.txt"], "must end in .jsonl or .csv"),
        (["--notes", str(tmp_path / "none.xlsx"), "--out", str(tmp_path / "new.csv")], "none.xlsx cannot be read"),
    ):
        assert run(main, arguments) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "new.csv").exists()


def test_real_notes(shared_data, tmp_path):
    workbook = shared_data / "mendeley_notes" / "Radiologists Report.xlsx"
    report = parse_reports(ParseArguments(notes=workbook, out=tmp_path / "findings.csv"))
    assert (report["notes_read"], report["with_text"], report["empty"], report["left_out"]) == (575, 515, 60, 0)
    assert sum(report["patients_by_class"].values()) == 515 - len(report["not_understood"]) == 513
    assert 0.10 < report["patients_by_class"]["No Finding"] / 515 < 0.20  # the paper: 492 of 3,360 records
