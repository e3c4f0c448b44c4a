from datetime import date

import openpyxl
import pytest

from data_scripts.sources.tables import Row, columns_of, read_table


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


def sheet(tmp_path, *rows):
    workbook = openpyxl.Workbook()
    for row in rows:
        workbook.active.append(row)
    workbook.save(tmp_path / "table.xlsx")
    return read_table(tmp_path / "table.xlsx")


KNOWN = ("report", "patient_id", "labels")


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("report;patient_id\nBulge, mild;7\n", "a.csv"),
        ('report;patient_id\n"Bulge, mild";7\n', "a.csv"),
        ("report\tpatient_id\nBulge, mild\t7\n", "a.tsv"),
        ("report\tpatient_id\nBulge, mild\t7\n", "a.csv"),
        ("report\tpatient_id\nBulge, mild\t7\n", "a.txt"),
        ('"report","patient_id"\n"Bulge, mild","7"\n', "a.tsv"),
        ("sep=;\nreport;patient_id\nBulge, mild;7\n", "a.csv"),
        ('"sep=\t"\r\nreport\tpatient_id\r\nBulge, mild\t7\r\n', "a.csv"),
        ("\n\nreport;patient_id\n\n;\nBulge, mild;7\n", "a.csv"),
        ("\ufeffreport;patient_id;\nBulge, mild;7;\n", "a.csv"),
    ],
)
def test_separators(tmp_path, content, name):
    (tmp_path / name).write_text(content)
    (row,) = read_table(tmp_path / name, known=KNOWN)
    assert row.cells == {"report": "Bulge, mild", "patient_id": "7"} and row.where == f"{name} row 1"


def test_tabs_as_excel_writes_unicode_text(tmp_path):
    (row,) = read(tmp_path, "report\tspacing\nÖdem\t0,5\n".encode("utf-16"), "a.txt")
    assert (row.text("report"), row.number("spacing")) == ("Ödem", 0.5)


@pytest.mark.parametrize(("content", "count"), [("a;b,c\n1;2,3\n", 2), ("a;b\n1;2\n", 2), ("a\n1\n", 1)])
def test_an_unknown_header_is_separated_by_commas_if_it_has_any(tmp_path, content, count):
    (row,) = read(tmp_path, content)
    assert len(row.cells) == count


@pytest.mark.parametrize(
    ("content", "number"),
    [
        ("x;y\n0,6875;1\n", 0.6875),
        ("x;y\n0.6875;1\n", 0.6875),
        ("x\ty\n-1,5\t1\n", -1.5),
        ("x;y\n;1\n", None),
        ("x,y\nN/A,1\n", None),
        ("x,y\n1e-1,1\n", 0.1),
    ],
)
def test_numbers(tmp_path, content, number):
    assert read(tmp_path, content)[0].number("x") == number


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('x,y\n"0,5",1\n', "got '0,5'; write a decimal point"),
        ("x;y\n1.234,5;1\n", "got '1.234,5'"),
        ("x;y\nhalf;1\n", "x must be a number, got 'half'"),
    ],
)
def test_what_is_no_number(tmp_path, content, reason):
    with pytest.raises(ValueError, match=reason):
        read(tmp_path, content)[0].number("x")


@pytest.mark.parametrize(
    "content",
    [
        ",a,b\n0,x,y\n1,x,y\n",
        '"","a","b"\n"1","x","y"\n"2","x","y"\n',
        "Unnamed: 0,a,b\n7,x,y\n3,x,y\n",
        ",a,b\n0.0,x,y\n1.0,x,y\n",
        "a,b,\nx,y,\nx,y,\n",
        "a,b,,,\nx,y,,,\nx,y\n",
        "a,b\nx,y,\nx,y,,\n",
        "a,,b\nx,,y\nx, ,y\n",
        "a,b,Unnamed: 2\nx,y,\nx,y,\n",
        ",a,b,\n0,x,y,\n1,x,y,\n",
    ],
)
def test_empty_columns_and_row_numbers_are_ignored(tmp_path, content):
    rows = read(tmp_path, content)
    assert [row.cells for row in rows] == [{"a": "x", "b": "y"}] * 2


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("a,b,\nx,y,note\n", "column 3 has no name, but content .row 1: 'note'."),
        ("a,,b\nx,,y\nx,5,y\n", "column 2 has no name, but content .row 2: '5'."),
        ("Unnamed: 0.1,Unnamed: 0,a\n0,0,x\n1,1,x\n", "column 2 has no name"),
        (",a\nP1,x\n", "column 1 has no name, but content .row 1: 'P1'."),
        ("a,b,Unnamed: 2\nx,y,3\n", "column 3 has no name"),
    ],
)
def test_a_column_without_a_name_but_with_content_is_refused(tmp_path, content, place):
    with pytest.raises(ValueError, match=f"{place}.*name the column or delete it"):
        read(tmp_path, content)


def test_an_unquoted_comma_is_no_trailing_separator(tmp_path):
    first, second = read(tmp_path, "report,patient_id\nBulge, mild,\nNormal,2\n")
    assert "3 fields, the header has 2; quote reports that contain commas" in first.problem and not second.problem
    rows = read(tmp_path, "patient_id,report\n1,Bulge, mild\n2,Bulge, mild\n")
    assert all("3 fields, the header has 2" in row.problem for row in rows)  # the first is no row number
    (row,) = read(tmp_path, "report;patient_id\nBulge; mild;2\n")
    assert "quote reports that contain semicolons" in row.problem


MISSING = [
    "",
    " ",
    "nan",
    "NaN",
    "None",
    "NULL",
    "null",
    "N/A",
    "n/a",
    "NA",
    "n.a.",
    "#N/A",
    "#NV",
    "-",
    "--",
    "—",
    ".",
]
MISSING += [
    "?",
    "<NA>",
    "NaT",
    "nil",
    "not available",
    "Not Reported",
    "NOT_AVAILABLE",
    "(null)",
    "\\N",
    "-nan",
    "k.A.",
]
MISSING += ["unknown", "1.#IND", "nan ", "[]", "n. a.", "\ufeff", "no report", "pending", "'NA'"]


@pytest.mark.parametrize("cell", [*MISSING, None, float("nan")])
def test_words_for_nothing(cell):
    row = Row(where="", cells={"a": cell})
    assert (row.text("a"), row.number("a"), row.texts("a", "|")) == ("", None, ())
    assert Row(where="", cells={"a": [cell, "x"]}).texts("a", "|") == ("x",)


@pytest.mark.parametrize(
    "cell", ["Normal", "NA-1", "none seen", "No finding", "0", "+", "nanometre", "A/N", "Nil acute."]
)
def test_words_that_say_something(cell):
    assert Row(where="", cells={"a": cell}).text("a") == cell


@pytest.mark.parametrize(
    ("cell", "text"), [(123, "123"), (123.0, "123"), (0.5, "0.5"), (1e15, "1.000000E+15"), (-2.0, "-2")]
)
def test_numbers_as_text(cell, text):
    assert Row(where="", cells={"a": cell}).text("a") == text


@pytest.mark.parametrize("cell", ["####", "##########", "#NAME?", "#REF!", "#VALUE!", "#DIV/0!", "#WERT!", "Err:508"])
def test_what_a_spreadsheet_destroyed_is_no_text(cell):
    with pytest.raises(ValueError, match="which a spreadsheet shows in place of the content; repair the cell"):
        Row(where="", cells={"a": cell}).text("a")


def test_a_date_is_no_text():
    with pytest.raises(ValueError, match="got the date 2024-05-04; format the column as text"):
        Row(where="", cells={"a": date(2024, 5, 4)}).text("a")


def test_workbooks(tmp_path):
    header = [None, "file_name", "report", "patient_id", "spacing", None, "level"]
    first, second, third = sheet(
        tmp_path,
        header,
        [0, "a.png", "Bulge; mild, left", 123, 0.6875, None, "L4/L5"],
        [],
        [1, "b.png", "Normal.", 124.0, "0,5"],
        [2, "c.png", '=A2&".png"', "007", None, None, date(2024, 5, 4)],
    )
    assert [row.where for row in (first, second, third)] == ["table.xlsx row 2", "table.xlsx row 4", "table.xlsx row 5"]
    assert (first.text("patient_id"), first.number("spacing"), first.text("level")) == ("123", 0.6875, "L4/L5")
    assert (second.text("patient_id"), second.number("spacing"), second.text("level")) == ("124", 0.5, "")
    assert third.problem == "column 3 has the formula; copy the column and paste its values over it"


def test_workbooks_that_are_no_tables(tmp_path):
    for rows, reason in (
        ([], "has no rows"),
        ([["a", "a"], [1, 2]], "repeats the columns 'a'"),
        ([["a", None], [1, 2]], "column 2 has no name"),
    ):
        with pytest.raises(ValueError, match=reason):
            sheet(tmp_path, *rows)


@pytest.mark.parametrize("start", [b"PK\3\4", b"\xd0\xcf\x11\xe0\xa1\xb1"])
def test_a_workbook_named_as_text_says_so(tmp_path, start):
    with pytest.raises(ValueError, match="is a workbook, not text; name it .xlsx, or export it as .csv"):
        read(tmp_path, start + bytes(100))


def test_other_formats_say_what_to_export(tmp_path):
    with pytest.raises(
        ValueError, match="table.ods must be a table that ends in .csv, .tsv, .txt, .jsonl, .xlsx; export"
    ):
        read(tmp_path, "a", "table.ods")
