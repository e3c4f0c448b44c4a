import os

import datasets
import numpy as np
import pytest
from PIL import Image

from data_scripts.imaging.images import window_to_uint8
from data_scripts.records import Exclusion, ReadOptions, Record
from data_scripts.sources.folder import source as folder
from tests.data_scripts.imaging.dicom_files import SAGITTAL, make_dicom

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


@pytest.mark.parametrize("table", ["metadata.csv", "metadata.jsonl", "mine.csv", "mine.jsonl"])
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
