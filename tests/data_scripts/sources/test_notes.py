import datetime
import os
import random
import tracemalloc
import zipfile

import openpyxl
import pytest

from data_scripts.sources.notes import Note, read_notes
from data_scripts.sources.workbooks import MAX_UNPACKED_BYTES

HEADER = ("Patient ID", "Clinician's Notes")


def write_workbook(path, rows, header=HEADER):
    workbook = openpyxl.Workbook()
    for row in ([header] if header else []) + list(rows):
        workbook.active.append(row)
    workbook.save(path)
    return path


def test_rows_are_read_and_empty_ones_are_notes_without_text(tmp_path):
    rows = [(1, "bulge\nat L4-5 "), ("0012", None), (3.0, "  "), (None, None), (10450, "=bulge")]
    rows[-1] = (10450, "long id")
    path = write_workbook(tmp_path / "notes.xlsx", rows)
    assert read_notes(path) == [
        Note(where="notes.xlsx row 2", patient_id="0001", text="bulge\nat L4-5 "),
        Note(where="notes.xlsx row 3", patient_id="0012"),
        Note(where="notes.xlsx row 4", patient_id="0003"),
        Note(where="notes.xlsx row 6", patient_id="10450", text="long id"),
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("one", "bulge"), "patient ID must be a whole number, got 'one'"),
        ((1.5, "bulge"), "got '1.5'"),
        ((-1, "bulge"), "got '-1'"),
        ((0, "bulge"), "got '0'"),
        ((True, "bulge"), "got 'True'"),
        ((None, "bulge"), "got 'None'"),
        ((7, 12.5), "note must be text, got the number '12.5'"),
        ((7, "=A1"), "got the formula '=A1'"),
        ((7, datetime.date(2026, 1, 2)), "got the date '2026-01-02"),
        ((7, False), "got the truth value 'False'"),
    ],
)
def test_a_row_that_cannot_be_used_says_why_and_the_others_are_read(tmp_path, row, message):
    bad, good = read_notes(write_workbook(tmp_path / "notes.xlsx", [row, (2, "stenosis")]))
    assert message in bad.problem and bad.text == ""
    assert good == Note(where="notes.xlsx row 3", patient_id="0002", text="stenosis")


def test_all_rows_of_a_repeated_patient_are_problems(tmp_path):
    notes = read_notes(write_workbook(tmp_path / "notes.xlsx", [(1, "bulge"), (2, "cyst"), ("01", "stenosis")]))
    assert [note.problem for note in notes] == [
        "patient 0001 has 2 rows; keep one",
        None,
        "patient 0001 has 2 rows; keep one",
    ]


def write_merged(path, rows, *ranges):
    workbook = openpyxl.Workbook()
    for row in [HEADER, *rows]:
        workbook.active.append(row)
    for cells in ranges:
        workbook.active.merge_cells(cells)
    workbook.save(path)
    return path


def test_rows_of_a_merged_id_are_one_note(tmp_path):
    rows = [(1, "bulge"), (None, "stenosis"), (None, None), (2, "cyst"), (3, "spasm"), (None, "spasm"), (None, "lost")]
    notes = read_notes(write_merged(tmp_path / "notes.xlsx", rows, "A2:A4", "A6:A7"))
    assert [(note.where, note.patient_id, note.text) for note in notes] == [
        ("notes.xlsx row 2", "0001", "bulge\nstenosis"),
        ("notes.xlsx row 5", "0002", "cyst"),
        ("notes.xlsx row 6", "0003", "spasm"),
        ("notes.xlsx row 8", "", ""),
    ]
    assert [bool(note.problem) for note in notes] == [False, False, False, True]


def test_a_merged_note_is_that_of_each_of_its_patients(tmp_path):
    rows = [(1, "bulge"), (2, None), (3, "cyst")]
    notes = read_notes(write_merged(tmp_path / "notes.xlsx", rows, "B2:B3"))
    assert [(note.patient_id, note.text) for note in notes] == [("0001", "bulge"), ("0002", "bulge"), ("0003", "cyst")]


def test_a_merged_id_with_an_unreadable_row_keeps_no_half(tmp_path):
    notes = read_notes(write_merged(tmp_path / "notes.xlsx", [(1, "bulge"), (None, 4.5), (2, "cyst")], "A2:A3"))
    assert [bool(note.problem) for note in notes] == [True, True, False]


def test_merged_cells_beside_one_another_and_in_the_header_change_nothing(tmp_path):
    rows = [(None, None), ("Group 1", None), (1, "bulge")]
    notes = read_notes(write_merged(tmp_path / "notes.xlsx", rows, "A1:A2", "A3:B3"))
    assert [(note.patient_id, note.text) for note in notes] == [("", ""), ("0001", "bulge")]


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        (("Patient ID", "Severity"), [(1, "x")], 'one column like "Clinician\'s Notes" in its first row, found 0'),
        (("Patient", "Notes"), [(1, "x")], "one column like 'Patient ID' in its first row, found 0"),
        (("Patient ID", "Notes", "Notes 2"), [(1, "x", "y")], "found 2 among: 'Patient ID', 'Notes', 'Notes 2'"),
        (HEADER, [], "no rows below its header"),
        (None, [], "found 0"),
    ],
)
def test_a_workbook_without_the_columns_is_refused(tmp_path, header, rows, message):
    path = write_workbook(tmp_path / "notes.xlsx", rows, header)
    with pytest.raises(ValueError, match="notes.xlsx") as caught:
        read_notes(path)
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 no archive", b"Patient ID,Notes\n1,bulge\n"])
def test_a_file_that_is_no_workbook_is_refused(tmp_path, content):
    path = tmp_path / "notes.xlsx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="notes.xlsx cannot be read as an .xlsx workbook"):
        read_notes(path)


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "notes.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/sharedStrings.xml", b" " * (MAX_UNPACKED_BYTES + 1))
    tracemalloc.start()
    with pytest.raises(ValueError, match=f"unpacks to {MAX_UNPACKED_BYTES + 1} bytes, more than {MAX_UNPACKED_BYTES}"):
        read_notes(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_a_sheet_that_lies_about_its_size_is_read(tmp_path):
    """One cell in the last row and column that a sheet can have; a size that asks to be padded to."""
    path = write_workbook(tmp_path / "notes.xlsx", [(1, "bulge")])
    changed = tmp_path / "changed.xlsx"
    with zipfile.ZipFile(path) as before, zipfile.ZipFile(changed, "w") as after:
        for name in before.namelist():
            content = before.read(name)
            if name.endswith("sheet1.xml"):
                content = content.replace(b'ref="A1:B2"', b'ref="A1:XFD1048576"')
                content = content.replace(b"</sheetData>", b'<row r="9"><c r="XFD9"><v>1</v></c></row></sheetData>')
            after.writestr(name, content)
    assert [note.text for note in read_notes(changed)] == ["bulge"]


def test_mutated_workbooks_are_read_or_refused_with_their_name(tmp_path):
    path = write_workbook(tmp_path / "notes.xlsx", [(number, f"bulge {number}") for number in range(1, 9)])
    whole, draw = path.read_bytes(), random.Random(0)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    num_read = num_refused = 0
    for turn in range(120):
        if turn % 2:  # the archive itself
            content = bytearray(whole)
            for _ in range(draw.randint(1, 8)):
                content[draw.randrange(len(content))] = draw.randrange(256)
            path.write_bytes(content[: draw.randint(1, len(content))] if turn % 3 == 0 else content)
        else:  # a file within it
            with zipfile.ZipFile(path, "w") as archive:
                for name, member in members.items():
                    content = bytearray(member)
                    if name.endswith((".xml", ".rels")):
                        content[draw.randrange(len(content))] = draw.randrange(256)
                    archive.writestr(name, bytes(content))
        try:
            notes = read_notes(path)
        except ValueError as error:
            assert "notes.xlsx" in str(error)
            num_refused += 1
        else:
            assert len(notes) <= 8
            num_read += 1
    assert num_read and num_refused


def test_real_notes(shared_data):
    notes = read_notes(shared_data / "mendeley_notes" / "Radiologists Report.xlsx")
    assert [note.patient_id for note in notes] == [f"{number:04}" for number in range(1, 576)]
    assert sum(bool(note.text) for note in notes) == 515
    assert not any(note.problem for note in notes)


def test_a_pipe_is_no_workbook(tmp_path):
    os.mkfifo(tmp_path / "notes.xlsx")
    with pytest.raises(ValueError, match="there is no such file"):
        read_notes(tmp_path / "notes.xlsx")
