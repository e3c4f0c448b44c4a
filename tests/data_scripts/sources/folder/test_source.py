import os
import unicodedata
from datetime import date

import datasets
import numpy as np
import openpyxl
import pytest
from PIL import Image

from data_scripts.imaging.images import window_to_uint8
from data_scripts.records import Exclusion, ReadOptions, Record
from data_scripts.sources.folder import source as folder
from data_scripts.writing.build_report import summary_lines
from tests.data_scripts.imaging.dicom_files import AXIAL, SAGITTAL, make_dicom

ROW = {"file_name": "images/a.png", "report": "Disc bulge.", "patient_id": "p1"}


def read(raw):
    return list(folder.read(ReadOptions(raw=raw)))


def test_required_columns_suffice(study):
    (record,) = read(study([ROW]))
    assert isinstance(record, Record)
    assert (record.report, record.patient_id, record.study_id) == ("Disc bulge.", "p1", "p1")
    assert (record.labels, record.grade, record.plane, record.sequence, record.level) == (None, None, *["unknown"] * 3)
    assert (record.rephrasings, record.pixel_spacing_mm, record.split, record.load_mask) == ((), None, None, None)
    assert record.source == "study/images/a.png"
    assert record.load_image().size == (10, 12)
    assert folder.describe(ReadOptions(raw=study([ROW]))).label_names == ()


@pytest.mark.parametrize("table", ["metadata.csv", "metadata.jsonl", "mine.csv", "mine.jsonl", "reports.csv"])
def test_every_column(study, table):
    lists = table.endswith(".jsonl")
    raw = study(
        [
            {
                **ROW,
                "study_id": "s1",
                "labels": ["stenosis", "bulge"] if lists else "stenosis; bulge",
                "grade": "B",
                "plane": "Axial",
                "sequence": "t2 space",
                "level": "l4-L5",
                "pixel_spacing_mm": 0.6875,
                "mask": "mask.png",
                "rephrasings": ["A bulge; mild.", "Bulging disc."] if lists else "A bulge; mild.|Bulging disc.",
                "split": "val",
            }
        ],
        table=table,
    )
    Image.fromarray(np.eye(12, 10, dtype=np.uint8)).save(raw / "mask.png")
    (record,) = read(raw)
    assert record.study_id == "s1"
    assert record.labels == ("stenosis", "bulge")
    assert (record.grade, record.plane, record.sequence, record.level) == ("B", "axial", "T2_SPACE", "L4/L5")
    assert (record.pixel_spacing_mm, record.split) == (0.6875, "validation")
    assert record.rephrasings == ("A bulge; mild.", "Bulging disc.")
    assert np.asarray(record.load_mask()).sum() == 10
    info = folder.describe(ReadOptions(raw=raw))
    assert (info.label_names, info.grade_names, info.mask_names) == (("bulge", "stenosis"), ("B",), ())


def test_vocabularies_are_sorted(study):
    labels, grades = ["stenosis", "no finding", "Zyst", "bulge"], ["10", "9", "A", "2"]
    rows = [
        {**ROW, "file_name": f"{label}.png", "labels": label, "grade": grade}
        for label, grade in zip(labels, grades, strict=True)
    ]
    info = folder.describe(ReadOptions(raw=study(rows)))
    assert info.label_names == ("Zyst", "bulge", "stenosis", "No Finding")
    assert info.grade_names == ("2", "9", "10", "A")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"file_name": ""}, "missing image: no file name"),
        ({"file_name": "images/none.jpg"}, "missing image: 'images/none.jpg' is not in the folder"),
        ({"file_name": "../outside.png"}, "lies outside the folder"),
        ({"mask": "none.png"}, "missing mask: 'none.png'"),
        ({"pixel_spacing_mm": "0,5"}, "pixel_spacing_mm must be a number, got '0,5'; write a decimal point"),
        ({"report": "N/A"}, "empty report: 'N/A'"),
        ({"patient_id": "1.23457E+11"}, "patient_id '1.23457E+11' is a number that a spreadsheet has rounded"),
        ({"level": "#REF!"}, "level is '#REF!', which a spreadsheet shows in place of the content"),
    ],
)
def test_bad_rows_become_exclusions(study, change, reason):
    raw = study([{**ROW, "file_name": "good.png"}, {**ROW, **change}])
    (raw.parent / "outside.png").write_bytes(b"")
    good, bad = read(raw)
    assert isinstance(good, Record)
    assert isinstance(bad, Exclusion) and bad.source == "metadata.csv row 2" and reason in bad.reason


@pytest.mark.parametrize("cell", [["a list"], {"an": "object"}, True])
@pytest.mark.parametrize("column", ["report", "patient_id", "grade"])
def test_json_cells_of_the_wrong_type_become_exclusions(study, column, cell):
    (bad,) = read(study([{**ROW, column: cell}], table="metadata.jsonl"))
    assert isinstance(bad, Exclusion) and f"{column} must be text" in bad.reason


def test_splits_for_all_rows_or_none(study):
    rows = [{**ROW, "file_name": "a.png", "split": "test"}, {**ROW, "file_name": "b.png", "split": "NaN"}]
    good, bad = read(study(rows))
    assert isinstance(good, Record)
    assert isinstance(bad, Exclusion) and "no split, although other rows have it" in bad.reason


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([{"file_name": "a.png", "patient_id": "p"}], "lacks the columns report"),
        ([{**ROW, "lable": "LBP"}], r"unknown columns 'lable' \(did you mean 'labels'\?\).*optional: study_id"),
        ([{"file_name|report|patient_id": "a.png|Bulge|p"}], "Separate them by commas, semicolons or tabs"),
    ],
)
def test_columns_are_checked(study, rows, reason):
    with pytest.raises(ValueError, match=reason):
        read(study(rows))


def test_labels_that_differ_in_case_only(study):
    rows = [{**ROW, "file_name": f"{label}.png", "labels": label} for label in ("LBP", "lbp")]
    with pytest.raises(ValueError, match="'LBP' and 'lbp' differ only in case"):
        folder.describe(ReadOptions(raw=study(rows)))


def test_the_table_must_be_found_and_unambiguous(study, tmp_path):
    with pytest.raises(ValueError, match="--raw (is not given|names no folder)"):
        read(None)
    with pytest.raises(ValueError, match="--raw (is not given|names no folder)"):
        read(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="has no table; expected metadata.csv"):
        read(tmp_path)
    (tmp_path / "metadata.xls").write_bytes(b"")
    with pytest.raises(ValueError, match="export metadata.xls as one of these"):
        read(tmp_path)
    raw = study([ROW], table="one.csv")
    assert len(read(raw)) == 1
    study([ROW], table="two.jsonl")
    with pytest.raises(ValueError, match=r"found: one\.csv, two\.jsonl"):
        read(raw)
    study([ROW], table="metadata.csv")  # its name settles it
    assert len(read(raw)) == 1
    study([ROW], table="metadata.jsonl")
    with pytest.raises(ValueError, match=r"found: metadata\.csv, metadata\.jsonl"):
        read(raw)


@pytest.mark.parametrize(
    ("first", "second"), [("P001", "p001"), ("1.0", "1"), ("1", "0001"), ("P1", "P001"), (1, "01"), ("P 1", "P  1")]
)
def test_one_patient_in_two_spellings(study, first, second):
    rows = [{**ROW, "file_name": f"{number}.png", "patient_id": id} for number, id in enumerate((first, second))]
    raw = study(rows, table="metadata.jsonl")
    for use in (folder.describe, lambda options: list(folder.read(options))):
        with pytest.raises(ValueError, match="differ only in case, leading zeros or '.0'; spell a patient one way"):
            use(ReadOptions(raw=raw))


def test_patients_that_differ_in_more(study):
    ids = ["10", "1", "1.2.0", "1.2", "p10", "p1", "a1-1", "a11", "NA", "na", "100"]
    rows = [{**ROW, "file_name": f"{number}.png", "patient_id": id} for number, id in enumerate(ids)]
    assert [item.patient_id for item in read(study(rows))] == ids


def test_dicom_files_end_to_end(study, built, tmp_path):
    raw = study([])
    rows = [
        {"file_name": f"{number}.dcm", "report": "Disc bulge.", "patient_id": f"q{number}", "labels": "LBP"}
        for number in range(4)
    ]
    rows[1] |= {"plane": "axial", "sequence": "PD", "pixel_spacing_mm": 0.25}
    for number in range(3):
        pixels = np.arange(400, dtype=np.uint16).reshape(20, 20) * (number + 1)
        make_dicom(raw / f"{number}.dcm", pixels, orientation=SAGITTAL, spacing=(0.5, 0.5))
    make_dicom(raw / "3.dcm", np.zeros((3, 20, 20), dtype=np.uint16))
    first, second, _, bad = read(study(rows))
    assert (first.plane, first.sequence, first.pixel_spacing_mm) == ("sagittal", "T2", 0.5)
    assert (second.plane, second.sequence, second.pixel_spacing_mm) == ("axial", "PD", 0.25)
    assert (first.patient_id, first.study_id) == ("q0", "q0")  # not the header's
    assert isinstance(bad, Exclusion) and "slices lie at the same place" in bad.reason
    report = built(raw, max_bad=0.5)
    assert (report["rows_written"], report["rows_read"]) == (3, 4)
    shown = [row for split in datasets.load_dataset(str(tmp_path / "out")).values() for row in split]
    (row,) = [row for row in shown if row["patient_id"] == "q0"]
    expected = window_to_uint8(np.arange(400, dtype=np.uint16).reshape(20, 20))
    assert np.array_equal(np.asarray(row["image"]), expected)


def test_images_are_turned_with_their_masks_and_what_could_not_be_is_listed(study, built, tmp_path):
    """Stored mirrored, with pixels twice as high as wide: eight files with a mask each, as it is drawn on them."""
    names = ["good", "standard", "whole_range", "no_orientation", "secondary.png", "square_mask", "bad_mask", "lying"]
    raw = study([])
    rows = [
        {"file_name": name, "report": "Disc bulge.", "patient_id": f"q{number}", "mask": f"{name}_mask.png"}
        for number, name in enumerate(names)
    ]
    pixels = np.linspace(0, 1200, 32 * 64).reshape(32, 64).astype(np.uint16)
    marked = (pixels > 600).astype(np.uint8)
    window, mirrored = {"WindowCenter": 600, "WindowWidth": 1200}, (-1, 0, 0, 0, 1, 0)
    for name in names:
        lies = {"standard": AXIAL, "no_orientation": None, "lying": (0, 1, 0, 1, 0, 0)}.get(name, mirrored)
        tags = {"WindowCenter": 2048, "WindowWidth": 4096} if name == "whole_range" else window
        if name == "secondary.png":
            Image.fromarray(pixels).save(raw / name)
        else:
            make_dicom(raw / name, pixels, orientation=lies, spacing=(1.0, 0.5), bits_stored=12, **tags)
        size = {"square_mask": (64, 64), "bad_mask": (50, 64)}.get(name, (64, 32))
        Image.fromarray(marked).resize(size, Image.Resampling.NEAREST).save(raw / f"{name}_mask.png")
    study(rows)
    report = built(raw, max_bad=0.5, split_fractions=(0.5, 0.25, 0.25))

    (listed,) = report["exclusions"]
    assert listed["source"] == "study/bad_mask"
    assert listed["reason"] == "mask is 50 x 64, its image 64 x 32 as stored, and 64 x 64 as read"
    unstated = {"study/no_orientation", "study/secondary.png"}
    assert set(report["orientation_not_stated"]) == unstated and report["windows_replaced"] == ["study/whole_range"]
    lines = summary_lines(report, "out")
    assert "orientation not stated: 2 images, which are kept as they were stored" in lines
    assert "header windows replaced: 1, which did not show the slice" in lines
    card = " ".join((tmp_path / "out/README.md").read_text().split())
    assert "(1 replaced)" in card and "but for 2 images whose files state none" in card

    splits = datasets.load_dataset(str(tmp_path / "out")).values()
    shown = {row["source"].split("/")[1]: row for split in splits for row in split}
    square = np.repeat(marked, 2, axis=0)
    for name, row in shown.items():
        mask, image = np.asarray(row["mask"]), np.asarray(row["image"])
        expected = {
            "standard": square,
            "no_orientation": square,
            "secondary.png": marked,
            "lying": square.T,
        }.get(name, square[:, ::-1])
        assert np.array_equal(mask, expected), name
        assert ((image > 127) != mask).mean() < 0.04, name


@pytest.mark.parametrize("column", ["file_name", "mask"])
def test_rows_of_loops_pipes_and_folders_are_left_out(study, built, column):
    """In every column that names a file; the other rows are written."""
    rows = [{"file_name": f"{n}.png", "report": "Bulge.", "patient_id": f"p{n}", "mask": "mask.png"} for n in range(12)]
    names = ["loop.png", "one.png", "lost.png", "pipe.png", "folder.png", "zero.png"]
    raw = study(rows)
    table = (raw / "metadata.csv").read_text().splitlines()
    for number, name in enumerate(names):
        good = f"{number}.png" if column == "file_name" else "mask.png"
        table[1 + number] = table[1 + number].replace(good, f"bad/{name}")
    (raw / "metadata.csv").write_text("\n".join(table))
    Image.new("L", (10, 12)).save(raw / "mask.png")
    (raw / "bad").mkdir()
    targets = {"loop.png": "loop.png", "one.png": "two.png", "two.png": "one.png", "lost.png": "nowhere.png"}
    for name, target in (targets | {"zero.png": "/dev/zero"}).items():
        (raw / "bad" / name).symlink_to(target)
    os.mkfifo(raw / "bad" / "pipe.png")
    (raw / "bad" / "folder.png").mkdir()
    report = built(raw, max_bad=0.9)
    assert (report["rows_written"], len(report["exclusions"])) == (6, 6)


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_a_table_that_is_a_pipe_or_a_loop_is_refused(tmp_path, name):
    for make in (os.mkfifo, lambda path: path.symlink_to(path.name)):
        make(tmp_path / name)
        with pytest.raises(ValueError, match=rf"{name} cannot be read: there is no such file"):
            folder.describe(ReadOptions(raw=tmp_path))
        (tmp_path / name).unlink()


def write_sheet(path, rows):
    workbook = openpyxl.Workbook()
    columns = list(dict.fromkeys(column for row in rows for column in row))
    for values in (columns, *([row.get(column) for column in columns] for row in rows)):
        workbook.active.append(values)
    workbook.save(path)


@pytest.mark.parametrize("name", ["metadata.xlsx", "metadata.csv", "METADATA.TSV", "metadata.txt", "mine.xlsx"])
def test_every_format_gives_the_same_rows(study, name):
    rows = [
        {**ROW, "file_name": "a.png", "patient_id": 7, "labels": "bulge; cyst", "pixel_spacing_mm": 0.5, "grade": 2},
        {**ROW, "file_name": "b.png", "patient_id": 8, "labels": "none", "pixel_spacing_mm": None, "grade": None},
    ]
    raw = study(rows)
    (raw / "metadata.csv").unlink()
    if name.endswith(".xlsx"):
        write_sheet(raw / name, rows)
        (raw / f"~${name}").write_bytes(b"lock")
    else:
        separator = ";" if name.endswith(".csv") else "\t"
        lines = [[*rows[0]], *([str(row[column] or "").replace("0.5", "0,5") for column in row] for row in rows)]
        (raw / name).write_text("\n".join(separator.join(f'"{cell}"' for cell in line) for line in lines))
    first, second = read(raw)
    assert (first.patient_id, first.labels, first.pixel_spacing_mm, first.grade) == ("7", ("bulge", "cyst"), 0.5, "2")
    assert (second.patient_id, second.labels, second.pixel_spacing_mm, second.grade) == (
        "8",
        ("No Finding",),
        None,
        None,
    )


def test_what_a_row_does_not_say(study):
    words = ["NaN", "N/A", "None", "-", "<NA>", "unknown", "#N/A", "not available"]
    columns = ("study_id", "series_id", "slice_index", "grade", "plane", "sequence", "level", "mask", "rephrasings")
    columns = (*columns, "pixel_spacing_mm", "slice_spacing_mm", "disc_height_mm", "split")
    rows = [{**ROW, "file_name": f"{word[1:]}.png", **dict.fromkeys(columns, word)} for word in words]
    for row, record in zip(
        rows, read(study([{**row, "file_name": f"{n}.png"} for n, row in enumerate(rows)])), strict=True
    ):
        assert isinstance(record, Record), row
        assert (record.study_id, record.series_id, record.slice_index, record.grade) == ("p1", None, None, None)
        assert (record.plane, record.sequence, record.level, record.load_mask) == (*["unknown"] * 3, None)
        assert (record.rephrasings, record.pixel_spacing_mm, record.disc_height_mm) == ((), None, None)
        assert record.split is None


@pytest.mark.parametrize(
    ("grades", "names"),
    [
        (["none", "mild", "severe"], {"none", "mild", "severe"}),
        (["None", "Mild", "Moderate stenosis"], {"None", "Mild", "Moderate stenosis"}),
        (["none", "2", "3"], {"2", "3"}),
        (["None", "A", "nan"], {"A"}),
    ],
)
def test_none_may_be_the_lowest_grade(study, grades, names):
    rows = [{**ROW, "file_name": f"{number}.png", "grade": grade} for number, grade in enumerate(grades)]
    assert set(folder.describe(ReadOptions(raw=study(rows))).grade_names) == names


def test_a_row_without_labels_is_not_labelled(study):
    cells = ["bulge", "", "none", "NaN", "[]", "-"]
    rows = [{**ROW, "file_name": f"{number}.png", "labels": cell} for number, cell in enumerate(cells)]
    nothing = ("No Finding",)
    assert [record.labels for record in read(study(rows))] == [("bulge",), None, nothing, None, nothing, nothing]
    assert folder.describe(ReadOptions(raw=study(rows))).label_names == ("bulge", "No Finding")


def test_reports_in_a_table_of_their_own(study):
    rows = [{"file_name": f"{n}.png", "patient_id": "p1", "study_id": f"s{n // 2}"} for n in range(6)]
    raw = study(rows)
    (raw / "Reports.csv").write_text("study_id;report\ns0;Bulge.\ns1;Normal.\ns7;Lost.\n")
    *records, first, second, lost = read(raw)
    assert [record.report for record in records] == ["Bulge.", "Bulge.", "Normal.", "Normal."]
    assert "study 's2' has none in another row or in Reports.csv" in first.reason == second.reason
    assert (lost.source, lost.by_rule) == ("Reports.csv row 3", True)


def test_labels_that_seem_to_be_several_are_warned_of_once(study, caplog):
    raw = study([{**ROW, "labels": "bulge, stenosis"}])
    folder.describe(ReadOptions(raw=raw))
    read(raw)
    assert caplog.text.count("separate classes by ';'") == 1


def test_ids_that_became_dates(study):
    rows = [{**ROW, "file_name": f"{n}.png", "patient_id": id} for n, id in enumerate(["3-45", "03-Jan", "4-60"])]
    first, bad, last = read(study(rows))
    assert isinstance(first, Record) and isinstance(last, Record)
    assert "patient_id '03-Jan' is an id that a spreadsheet took for a date; format the column as text" in bad.reason


def test_a_date_in_a_cell_of_a_sheet(study):
    raw = study([{**ROW, "file_name": f"{n}.png"} for n in range(2)])
    (raw / "metadata.csv").unlink()
    rows = [{**ROW, "file_name": "0.png"}, {**ROW, "file_name": "1.png", "patient_id": date(2024, 5, 4)}]
    write_sheet(raw / "metadata.xlsx", rows)
    good, bad = read(raw)
    assert isinstance(good, Record)
    assert bad.source == "metadata.xlsx row 3" and "patient_id must be text, got the date 2024-05-04" in bad.reason


def test_a_file_and_a_mask_named_as_on_another_system(study):
    raw = study([{**ROW, "file_name": "Images/Müller.PNG", "mask": "MASK.png"}])
    (raw / "Images").mkdir(exist_ok=True)
    Image.new("L", (10, 12)).save(raw / "Images" / unicodedata.normalize("NFD", "müller.png"))
    Image.new("L", (10, 12)).save(raw / "mask.PNG")
    (record,) = read(raw)
    assert record.load_image().size == record.load_mask().size == (10, 12)


def test_what_the_table_says_outranks_the_header(study):
    raw = study([])
    make_dicom(raw / "0.dcm", np.zeros((20, 20), np.uint16), orientation=SAGITTAL, spacing=(0.5, 0.5))
    (unknown,) = read(study([{**ROW, "file_name": "0.dcm", "plane": "unknown", "sequence": "N/A"}]))
    assert (unknown.plane, unknown.sequence) == ("sagittal", "T2")
    (bad,) = read(study([{**ROW, "file_name": "0.dcm", "pixel_spacing_mm": "0"}]))
    assert bad.pixel_spacing_mm == 0  # which the build refuses: the header does not repair the table
