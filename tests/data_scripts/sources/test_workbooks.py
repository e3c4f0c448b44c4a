import random
import zipfile

import openpyxl
import pytest

from data_scripts.sources.workbooks import MAX_UNPACKED_BYTES, sheet_rows


def save(path, rows, merged=()):
    workbook = openpyxl.Workbook()
    sheet = workbook.active
    for row in rows:
        sheet.append(row)
    for cells in merged:
        sheet.merge_cells(cells)
    workbook.save(path)
    return path


def values(path):
    return [[cell.value for cell in row] for row in sheet_rows(path)]


@pytest.mark.parametrize(
    ("merged", "column"),
    [
        (["A2:A4"], ["id", 1, 1, 1, 5]),
        (["A3:A5"], ["id", 1, 2, 2, 2]),
        (["A1:A2", "A3:A4"], ["id", None, 2, 2, 5]),
        (["A2:B3"], ["id", 1, None, 3, 5]),
        (["A2:C2"], ["id", 1, 2, 3, 5]),
    ],
)
def test_cells_merged_downwards_hold_for_each_row(tmp_path, merged, column):
    path = save(tmp_path / "a.xlsx", [["id", "x"], [1, "a"], [2, "b"], [3, "c"], [5, "d"]], merged)
    assert [row[0] if row else None for row in values(path)] == column


def test_characters_that_xml_cannot_hold_are_decoded(tmp_path):
    path = save(tmp_path / "a.xlsx", [["report"], ["Bulge._x000D_\nNo stenosis."], ["file_x1"], ["scan_x00_y"]])
    assert values(path) == [["report"], ["Bulge.\r\nNo stenosis."], ["file_x1"], ["scan_x00_y"]]


def test_a_merge_of_the_whole_sheet_costs_nothing(tmp_path):
    path = save(tmp_path / "a.xlsx", [["id", "x"], [1, "a"]])
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    many = b"<mergeCells>" + b'<mergeCell ref="A2:XFD1048576"/>' * 1000 + b"</mergeCells>"
    members[sheet] = members[sheet].replace(b"</sheetData>", b"</sheetData>" + many)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert values(path) == [["id", "x"], [1, "a"]]


def test_what_is_no_workbook_is_refused(tmp_path):
    path = tmp_path / "a.xlsx"
    for content in (b"", b"a,b\n1,2\n", b"PK\3\4", b"\xd0\xcf\x11\xe0 an old or encrypted workbook"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read as an .xlsx workbook: .* save it as .xlsx"):
            list(sheet_rows(path))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", b" " * (MAX_UNPACKED_BYTES + 1))
    with pytest.raises(ValueError, match="unpacks to .* bytes, more than"):
        list(sheet_rows(path))


def test_damaged_workbooks_are_read_or_refused_with_their_name(tmp_path):
    path = save(tmp_path / "a.xlsx", [["id", "x"], [1, "a"], [2, "b"]], ["A2:A3"])
    whole, rng = path.read_bytes(), random.Random(0)
    for _ in range(100):
        damaged = bytearray(whole)
        for _ in range(rng.randrange(1, 9)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            list(sheet_rows(path))
        except ValueError as error:
            assert str(path) in str(error)
