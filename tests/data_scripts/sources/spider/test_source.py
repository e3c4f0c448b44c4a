import csv
from collections import Counter

import datasets
import numpy as np
import pytest
from PIL import Image

from data_scripts.records import Exclusion, ReadOptions, Record, record_problem
from data_scripts.sources.spider import source as spider
from data_scripts.sources.spider.captions import DiscGrades
from data_scripts.sources.spider.source import present_labels

GRADES = {
    "Modic": "0",
    "UP endplate": "0",
    "LOW endplate": "0",
    "Spondylolisthesis": "0",
    "Disc herniation": "0",
    "Disc narrowing": "0",
    "Disc bulging": "0",
    "Pfirrman grade": "1",
}


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def disc_folder(tmp_path):
    def make(*changes):
        rows = []
        for number, change in enumerate(changes):
            name = f"images/{number}.png"
            (tmp_path / "images").mkdir(exist_ok=True)
            Image.new("L", (20, 8), number).save(tmp_path / name)
            rows.append({"file": name, "sequence": "t2", "Patient": "7", "IVD label": "2", **GRADES, **change})
        write_csv(tmp_path / "discs.csv", rows)
        return ReadOptions(raw=tmp_path)

    return make


@pytest.fixture
def sagittal_folder(tmp_path):
    def make(gradings, series=({"patient": "7"},)):
        (tmp_path / "images").mkdir()
        rows = []
        for number, change in enumerate(series):
            Image.new("L", (8, 20), number).save(tmp_path / f"images/{number}.png")
            rows.append({"file": f"images/{number}.png", "sequence": "t1", "sex": "F ", **change})
        write_csv(tmp_path / "series.csv", rows)
        write_csv(tmp_path / "radiological_gradings.csv", [{"Patient": "7", **GRADES, **grades} for grades in gradings])
        return ReadOptions(raw=tmp_path)

    return make


def test_disc_row(disc_folder):
    options = disc_folder({"IVD label": "1", "sequence": "t2_SPACE", "Pfirrman grade": "4", "UP endplate": "1"})
    (record,) = spider.read(options)
    assert (record.patient_id, record.study_id, record.source) == ("spider-7", "spider-7", "SPIDER/images/0.png")
    assert (record.plane, record.sequence, record.level, record.grade) == ("sagittal", "T2_SPACE", "L5/S1", "4")
    assert record.labels == ("Pfirrmann >= 4", "endplate change")
    assert record.pixel_spacing_mm is None and record.load_mask is None
    assert len({record.report, *record.rephrasings}) == 5
    assert record.load_image().size == (20, 8)
    assert record_problem(record, spider.describe(options)) is None


def test_levels_count_from_the_bottom(disc_folder):
    records = list(spider.read(disc_folder(*({"IVD label": str(number)} for number in range(1, 10)))))
    levels = ["L5/S1", "L4/L5", "L3/L4", "L2/L3", "L1/L2", "T12/L1", "T11/T12", "T10/T11", "T9/T10"]
    assert [record.level for record in records] == levels


@pytest.mark.parametrize(
    ("grades", "labels"),
    [
        ({"pfirrmann": 1}, ("No Finding",)),
        ({"pfirrmann": 2}, ("No Finding",)),
        ({"pfirrmann": 3}, ()),
        ({"pfirrmann": 4}, ("Pfirrmann >= 4",)),
        ({"pfirrmann": 1, "narrowing": True}, ("disc narrowing",)),
        ({"pfirrmann": 2, "bulging": True, "herniation": True}, ("disc bulging", "disc herniation")),
        ({"pfirrmann": 3, "lower_endplate": True}, ("endplate change",)),
        ({"pfirrmann": 2, "modic": 1}, ("Modic change",)),
        ({"pfirrmann": 5, "spondylolisthesis": True}, ("Pfirrmann >= 4", "spondylolisthesis")),
    ],
)
def test_labels_of_a_disc(grades, labels):
    assert present_labels([DiscGrades(level="L4/L5", **grades)]) == labels


def test_labels_of_a_spine_are_the_union():
    healthy, grey = DiscGrades("L3/L4", 1), DiscGrades("L4/L5", 3)
    assert present_labels([healthy, healthy]) == ("No Finding",)
    assert present_labels([healthy, grey]) == ()
    assert present_labels([healthy, grey, DiscGrades("L5/S1", 2, bulging=True)]) == ("disc bulging",)


def test_sagittal_row(sagittal_folder):
    options = sagittal_folder(
        [{"IVD label": "1", "Pfirrman grade": "3"}, {"IVD label": "9"}, {"IVD label": "2", "Disc bulging": "1"}]
    )
    (record,) = spider.read(options)
    assert (record.sequence, record.level, record.grade) == ("T1", "several", "3")
    assert record.labels == ("disc bulging",)
    assert "T9" in record.report and record_problem(record, spider.describe(options)) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Pfirrman grade": "6"}, "unknown Pfirrman grade '6' in discs.csv row 2; allowed: 1 to 5"),
        ({"Disc bulging": ""}, "unknown Disc bulging ''"),
        ({"IVD label": "10"}, "unknown IVD label '10'"),
        ({"file": "images/9.png"}, "missing image"),
        ({"file": "../images.png"}, "lies outside the folder"),
    ],
)
def test_bad_disc_rows_become_exclusions(disc_folder, change, reason):
    good, bad = spider.read(disc_folder({}, change))
    assert isinstance(good, Record)
    assert isinstance(bad, Exclusion) and bad.source == "discs.csv row 2" and reason in bad.reason


def test_values_left_to_the_build_to_refuse(disc_folder):
    options = disc_folder({"sequence": "t9"}, {"Patient": ""})
    problems = [record_problem(record, spider.describe(options)) for record in spider.read(options)]
    assert [problem.split(";")[0] for problem in problems] == [
        "unknown sequence 't9'",
        "unknown patient: patient_id is ''",
    ]


def test_slices_without_usable_gradings_become_exclusions(sagittal_folder):
    gradings = [
        {"IVD label": "1"},
        {"Patient": "8", "IVD label": "1", "Modic": "x"},
        {"Patient": "9", "IVD label": "1"},
        {"Patient": "9", "IVD label": "1"},
    ]
    items = list(spider.read(sagittal_folder(gradings, [{"patient": patient} for patient in ("7", "6", "8", "9")])))
    assert isinstance(items[0], Record)
    assert [item.reason.split(";")[0] for item in items[1:]] == [
        "no gradings for patient '6' in radiological_gradings.csv",
        "unknown Modic 'x' in radiological_gradings.csv row 2",
        "patient '9' has two gradings for one disc",
    ]


def test_the_form_must_be_clear(tmp_path, disc_folder):
    with pytest.raises(ValueError, match="--raw is not given"):
        spider.describe(ReadOptions(raw=None))
    with pytest.raises(ValueError, match="one form of SPIDER, found: none"):
        spider.describe(ReadOptions(raw=tmp_path))
    options = disc_folder({})
    (tmp_path / "series.csv").touch()
    (tmp_path / "radiological_gradings.csv").touch()
    with pytest.raises(ValueError, match="found: discs and slices"):
        spider.describe(options)


def test_a_missing_column_is_named(tmp_path):
    write_csv(tmp_path / "discs.csv", [{"file": "a.png", "sequence": "t1"}])
    with pytest.raises(ValueError, match=r"lacks the columns Patient, IVD label, Modic"):
        list(spider.read(ReadOptions(raw=tmp_path)))


def test_the_wording_of_a_row_does_not_depend_on_its_neighbours(disc_folder):
    change = {"Pfirrman grade": "4", "Disc bulging": "1"}
    first = next(iter(spider.read(disc_folder(change))))
    same, other = spider.read(disc_folder(change, change))
    assert (same.report, same.rephrasings) == (first.report, first.rephrasings)
    assert other.report != first.report


MASK = np.repeat(np.arange(4, dtype=np.uint8), 24).reshape(12, 8)


@pytest.fixture
def masked_folder(tmp_path):
    """Three slices of each of six patients, with masks."""
    for folder in ("images", "masks"):
        (tmp_path / "raw" / folder).mkdir(parents=True)
    for patient in range(1, 7):
        for number in (7, 8, 9):
            name = f"{patient}_t2_SPACE_slice{number:02d}"
            Image.new("L", (8, 12), 20 * patient + number).save(tmp_path / f"raw/images/{name}.jpg")
            Image.fromarray(MASK).save(tmp_path / f"raw/masks/{name}.png")
    return tmp_path / "raw"


def test_slices_with_masks(masked_folder, built, tmp_path):
    report = built(masked_folder, source="spider", keep_ids=False)
    dataset = datasets.load_dataset(str(tmp_path / "out"))
    assert (report["rows_written"], report["num_masks"], report["exclusions"]) == (18, 18, [])
    patients = [set(rows["patient_id"]) for rows in dataset.values()]
    assert set.union(*patients) == {f"spider-{number}" for number in range(1, 7)} and sum(map(len, patients)) == 6
    features = dataset["train"].features
    row = next(row for rows in dataset.values() for row in rows if row["source"].endswith("/2_t2_SPACE_slice08.jpg"))
    assert (row["patient_id"], row["series_id"], row["slice_index"]) == ("spider-2", "spider-2_t2_SPACE", 8)
    assert features["sequence"].int2str(row["sequence"]) == "T2_SPACE"
    assert (row["labels"], row["grade"], row["report"]) == (None, None, "Sagittal T2 SPACE slice.")
    assert np.array_equal(np.asarray(row["mask"]), MASK)
    assert [features["mask_classes"].feature.int2str(index) for index in row["mask_classes"]] == [
        "vertebra",
        "disc",
        "spinal canal",
    ]
    assert features["mask_origin"].int2str(row["mask_origin"]) == "source"
    assert "\n- vertebra\n" in (tmp_path / "out/README.md").read_text()


def test_graded_slices_with_masks_have_captions(masked_folder):
    rows = [{"Patient": str(patient), **GRADES, "IVD label": "1", "Disc bulging": "1"} for patient in range(1, 6)]
    write_csv(masked_folder / "radiological_gradings.csv", rows)
    options = ReadOptions(raw=masked_folder)
    items = list(spider.read(options))
    assert [item.labels for item in items[:15]] == [("disc bulging",)] * 15 and "L5" in items[0].report
    assert all("no gradings for patient '6'" in item.reason for item in items[15:])
    assert "disc bulging" in spider.describe(options).label_names


@pytest.mark.parametrize(
    ("spoil", "row", "reason"),
    [
        (
            lambda raw: (raw / "masks/1_t2_SPACE_slice07.png").unlink(),
            "images/1_t2_SPACE_slice07.jpg",
            "none in masks/",
        ),
        (
            lambda raw: (raw / "images/1_t2_SPACE_slice07.jpg").unlink(),
            "masks/1_t2_SPACE_slice07.png",
            "mask without an image",
        ),
        (
            lambda raw: Image.new("L", (8, 12)).save(raw / "images/1_t2_SPACE_slice07.png"),
            "images/1_t2_SPACE_slice07.jpg",
            "expected one image 1_t2_SPACE_slice07, found: 1_t2_SPACE_slice07.jpg, 1_t2_SPACE_slice07.png",
        ),
        (
            lambda raw: Image.fromarray(MASK[1:]).save(raw / "masks/1_t2_SPACE_slice07.png"),
            "images/1_t2_SPACE_slice07.jpg",
            "mask is 8 x 11, its image 8 x 12",
        ),
        (
            lambda raw: Image.fromarray(MASK + 1).save(raw / "masks/1_t2_SPACE_slice07.png"),
            "images/1_t2_SPACE_slice07.jpg",
            "mask contains class 4; known are 0 to 3",
        ),
        (
            lambda raw: Image.new("RGB", (8, 12)).save(raw / "masks/1_t2_SPACE_slice07.png"),
            "images/1_t2_SPACE_slice07.jpg",
            "mask of mode 'RGB'",
        ),
        (
            lambda raw: Image.new("L", (8, 12)).save(raw / "images/1_t9_slice07.png"),
            "images/1_t9_slice07.png",
            "a slice is named PATIENT_t1_sliceNN.jpg, _t2_ or _t2_SPACE_, got '1_t9_slice07.png'",
        ),
    ],
)
def test_bad_slices_with_masks_are_listed(masked_folder, built, spoil, row, reason):
    spoil(masked_folder)
    (exclusion,) = built(masked_folder, source="spider", keep_ids=False, max_bad=0.1)["exclusions"]
    assert exclusion["source"] == f"SPIDER/{row}" and reason in exclusion["reason"]


def test_slices_are_chosen_of_volumes_only(masked_folder):
    with pytest.raises(ValueError, match="--slices 3 takes slices of volumes, but .* holds masked slices"):
        spider.describe(ReadOptions(raw=masked_folder, slices="3"))


def test_real_slices_with_masks(shared_data):
    options = ReadOptions(raw=shared_data / "spider_masks")
    info, records = spider.describe(options), list(spider.read(options))
    assert (len(records), len({record.patient_id for record in records})) == (266, 30)
    assert [problem for record in records if (problem := record_problem(record, info))] == []
    assert set(np.unique(np.asarray(records[0].load_mask()))) == {0, 1, 2, 3}


@pytest.mark.parametrize(("form", "num_rows", "num_patients"), [("discs", 805, 73), ("sagittal", 360, 179)])
def test_real_data(shared_data, form, num_rows, num_patients):
    options = ReadOptions(raw=shared_data / f"spider_{form}")
    info, records = spider.describe(options), list(spider.read(options))
    assert len(records) == num_rows and not any(isinstance(record, Exclusion) for record in records)
    assert len({record.patient_id for record in records}) == num_patients
    assert [problem for record in records if (problem := record_problem(record, info))] == []
    limit = 60 if form == "discs" else 200
    assert all(len(text.split()) < limit for record in records for text in (record.report, *record.rephrasings))
    if form == "discs":
        counts = Counter(label for record in records for label in record.labels)
        # Sums over the columns of discs.csv.
        assert (counts["disc narrowing"], counts["disc bulging"], counts["disc herniation"]) == (227, 347, 35)
        assert (counts["Pfirrmann >= 4"], counts["Modic change"], counts["spondylolisthesis"]) == (176, 220, 7)
