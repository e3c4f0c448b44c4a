import pytest

from data_scripts.sources.tables import columns_of, read_table


def read(tmp_path, content, name="table.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_encodings_and_line_ends(tmp_path, encoding, newline):
    (row,) = read(tmp_path, newline.join(["report,patient_id", '"Gefügestörung, L4/5",7', ""]).encode(encoding))
    assert row.cells == {"report": "Gefügestörung, L4/5", "patient_id": "7"}


def test_quoted_line_breaks_stay_in_one_row(tmp_path):
    rows = read(tmp_path, 'report,patient_id\n"LSS MRI\r\n-Bulge, ""mild""",1\nNormal,2\n')
    assert [row.text("report") for row in rows] == ['LSS MRI\r\n-Bulge, "mild"', "Normal"]


def test_cells_are_text_as_written(tmp_path):
    (row,) = read(tmp_path, "a,b,c\n007,NA,1.0\n")
    assert row.cells == {"a": "007", "b": "NA", "c": "1.0"}


def test_empty_lines_are_no_rows(tmp_path):
    rows = read(tmp_path, "report,patient_id,level\n\nBulge,1,L4/L5\n  \n,,\nNormal,2,\n")
    assert [row.where for row in rows] == ["table.csv row 1", "table.csv row 2"]
    assert [row.problem for row in rows] == [None, None]
    (ragged,) = read(tmp_path, "report,patient_id,level\n,\n")
    assert "2 fields, the header has 3" in ragged.problem


def test_ragged_rows_are_kept_and_named(tmp_path):
    rows = read(tmp_path, "report,patient_id\nBulge, mild,1\n\nNormal,2\nShort\n")
    assert [row.problem is None for row in rows] == [False, True, False]
    assert rows[0].where == "table.csv row 1" and "3 fields, the header has 2" in rows[0].problem


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("a,a\n1,2\n", "repeats the columns 'a'"),
        ("a,b\n", "has no rows"),
        ("", "has no rows"),
        ('a,b\n1,2\n3,"open\n', "is not valid CSV after row 1"),
        (b"a,b\n1,\x81\x8d\xff\n", "save it as UTF-8"),
    ],
)
def test_malformed_csv(tmp_path, content, reason):
    with pytest.raises(ValueError, match=reason):
        read(tmp_path, content)


def test_json_lines(tmp_path):
    content = '\ufeff{"a": 1, "labels": ["x", "y", "x", ""]}\n\n{"a": null, "b": "z"}\nbroken\n[1]\n'
    rows = read(tmp_path, content, "table.jsonl")
    assert [row.problem and row.problem[:9] for row in rows] == [None, None, "not valid", "expected "]
    assert columns_of(rows) == ("a", "labels", "b")
    assert rows[0].text("a") == "1" and rows[1].text("a") == ""
    assert rows[0].texts("labels", ";") == ("x", "y")
    with pytest.raises(ValueError, match="labels must be text"):
        rows[0].text("labels")
