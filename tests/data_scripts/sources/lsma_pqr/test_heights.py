from collections import Counter

import datasets
import pytest

from data_scripts.records import Exclusion
from data_scripts.sources.lsma_pqr.heights import read_disc_heights
from tests.data_scripts.sources.lsma_pqr.lsma_folder import GRADES, NORMAL, NOTE, read, write_csv

# As published: a row a patient, and the points between which each height was measured.
HEIGHTS = {
    "PatientID": "1",
    "D3_Ht": "10.54",
    "D4_Ht": "9.87",
    "D5_Ht": "8.23",
    "D3_Coord": "165.76,288.16;174.07,302.6",
}
OF_PATIENT = {"L3/L4": 10.54, "L4/L5": 9.87, "L5/S1": 8.23}
FILE = "IVDHeights.csv"


@pytest.fixture
def table(tmp_path):
    def write(*rows):
        write_csv(tmp_path / FILE, rows)
        return tmp_path / FILE

    return write


def values(heights):
    return {(height.patient_id, height.level): height.height_mm for height in heights}


@pytest.mark.parametrize(
    "names",
    [
        ("PatientID", "D3_Ht", "D4_Ht", "D5_Ht"),
        ("Patient_ID", "d3", "d4", "d5"),
        ("Patient_ID", "D3 Height (mm)", "D4_height_mm", "IVD Height D5 mm"),
        ("PatientID", "L3/L4", "L4-5_ht", "Disc height L5-S1"),
    ],
)
def test_a_column_for_each_disc(table, names):
    rows = [dict(zip(names, cells, strict=True)) for cells in (("1", "10.5", "9", "8.25"), ("42", "11", "", "NaN"))]
    assert values(read_disc_heights(table(*rows))) == {
        ("0001", "L3/L4"): 10.5,
        ("0001", "L4/L5"): 9.0,
        ("0001", "L5/S1"): 8.25,
        ("0042", "L3/L4"): 11.0,
    }


@pytest.mark.parametrize("level_column", ["Level", "disc", "Disc_Level", "IVD level"])
@pytest.mark.parametrize("height_column", ["Height", "Height_mm", "IVD Height (mm)", "disc_ht"])
def test_a_row_for_each_disc(table, level_column, height_column):
    levels = ("D3", "L4-5", "L5/S1", "d3", "L1/L2")
    rows = [
        {"Patient_ID": patient, level_column: level, height_column: height}
        for patient, level, height in zip("11122", levels, ("10.5", "9", "8.25", "11", ""), strict=True)
    ]
    assert values(read_disc_heights(table(*rows))) == {
        ("0001", "L3/L4"): 10.5,
        ("0001", "L4/L5"): 9.0,
        ("0001", "L5/S1"): 8.25,
        ("0002", "L3/L4"): 11.0,
    }


def test_centimetres_are_converted(table):
    (height,) = read_disc_heights(table({"PatientID": "1", "Level": "D4", "Height (cm)": "0.95"}))
    assert height.height_mm == pytest.approx(9.5)
    (first, second) = read_disc_heights(table({"PatientID": "1", "D3_Ht_cm": "1.2", "D4_Ht_mm": "9"}))
    assert (first.height_mm, second.height_mm) == (pytest.approx(12.0), 9.0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"PatientID": "1", "D3_Ht_px": "15"}, "the heights in column 'D3_Ht_px' must be in mm or cm"),
        ({"PatientID": "1", "Level": "D3", "Height_px": "15"}, "or the columns Level and Height_mm; found: PatientID"),
        ({"PatientID": "1", "D3_Ht": "9", "L3/L4": "9"}, "must have one column of heights for each disc"),
        ({"PatientID": "1", "D3_Ht": "9", "Height": "9"}, "must have one column of heights for each disc"),
        ({"PatientID": "1", "D3_Coord": "1,2;3,4"}, "must have one column of heights for each disc"),
        ({"Patient": "1", "D3_Ht": "9"}, "must have the columns PatientID or Patient_ID; found: Patient, D3_Ht"),
    ],
)
def test_a_table_that_is_none_is_refused_by_name(table, row, message):
    with pytest.raises(ValueError, match=message):
        read_disc_heights(table(row))


@pytest.mark.parametrize("text", ["0.99", "25.01", "-8", "0", "inf", "1e999", "9,5", "tall", "9 mm"])
@pytest.mark.parametrize("is_long", [True, False])
def test_a_height_that_no_disc_has_is_listed_and_null(table, text, is_long):
    (height,) = read_disc_heights(
        table({"PatientID": "1", "Level": "D3", "Height": text} if is_long else {"PatientID": "1", "D3_Ht": text})
    )
    assert height.height_mm is None and "the disc height must " in height.problem
    assert height.where == (f"{FILE} row 1" if is_long else f"{FILE} row 1, D3_Ht")


@pytest.mark.parametrize("text", ["1", "25", "1.26", "15.25"])
def test_the_published_range_is_taken(table, text):
    (height,) = read_disc_heights(table({"PatientID": "1", "D3_Ht": text}))
    assert (height.height_mm, height.problem) == (float(text), None)


def test_heights_given_twice_are_none(table):
    rows = [{"PatientID": "1", "D3_Ht": "9", "D4_Ht": "8"}, {"PatientID": "0001.0", "D3_Ht": "30", "D4_Ht": ""}]
    heights = read_disc_heights(table(*rows))
    assert values(heights) == {("0001", "L3/L4"): None, ("0001", "L4/L5"): 8.0}
    assert [height.problem for height in heights] == [
        "patient 0001 has 2 heights at L3/L4",
        None,
        "the disc height must lie between 1 and 25 mm, got 30 mm",
    ]


def test_an_image_at_a_level_has_the_height_of_that_disc(lsma):
    raw = lsma()
    write_csv(raw / FILE, [HEIGHTS])
    records, exclusions = read(raw)
    assert exclusions == [] and len(records) == 8
    assert {record.level: record.disc_height_mm for record in records} == {**OF_PATIENT, "several": None}


def test_images_stay_when_heights_are_bad_or_missing(lsma):
    raw = lsma((NOTE, NORMAL), patients=["0001", "0002"], grades=(GRADES, {**GRADES, "PatientID": "2"}))
    records, _ = read(raw)
    assert len(records) == 16 and {record.disc_height_mm for record in records} == {None}

    bad = {**HEIGHTS, "PatientID": "2", "D3_Ht": "85", "D4_Ht": ""}
    write_csv(raw / FILE, [HEIGHTS, bad, {**HEIGHTS, "PatientID": "x"}, {**HEIGHTS, "PatientID": "3"}])
    records, exclusions = read(raw)
    assert Counter((record.patient_id[-1], record.disc_height_mm) for record in records) == {
        ("1", 10.54): 2,
        ("1", 9.87): 2,
        ("1", 8.23): 2,
        ("1", None): 2,
        ("2", 8.23): 2,
        ("2", None): 6,
    }
    without_image = [Exclusion(f"{FILE} row 4, D{n}_Ht", "height without an image", by_rule=True) for n in (3, 4, 5)]
    assert exclusions == [
        Exclusion(
            f"{FILE} row 2, D3_Ht",
            "the disc height must lie between 1 and 25 mm, got 85 mm; images stay without it",
        ),
        Exclusion(f"{FILE} row 3", "the patient ID must be a whole number, got 'x'; images stay without it"),
        *without_image,
    ]


def test_build(lsma, built, tmp_path):
    patients = [f"{number:04d}" for number in range(1, 5)]
    raw = lsma([{**NOTE, "PatientID": patient} for patient in patients], grades=(), patients=patients)
    write_csv(raw / FILE, [HEIGHTS, {**HEIGHTS, "PatientID": "2", "D3_Ht": "inf"}])
    report = built(raw, source="lsma_pqr", split_fractions=[0.5, 0.5, 0.0])
    assert (report["rows_written"], [item["source"] for item in report["exclusions"]]) == (32, [f"{FILE} row 2, D3_Ht"])
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    rows = {row["source"].split("/")[-1]: row for split in loaded.values() for row in split}
    assert loaded["train"].features["disc_height_mm"] == datasets.Value("float32")
    assert rows["T1_0001_D4.png"]["disc_height_mm"] == pytest.approx(9.87)
    assert rows["T1_0002_D3.png"]["disc_height_mm"] is rows["T2_0003_D4.png"]["disc_height_mm"] is None
    assert "`disc_height_mm`: of the disc at `level`" in (tmp_path / "out/README.md").read_text()
