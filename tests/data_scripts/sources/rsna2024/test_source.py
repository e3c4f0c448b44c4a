import csv
import random

import numpy as np
import pytest
from pydicom.uid import RLELossless

from data_scripts.imaging import dicom
from data_scripts.records import Exclusion, ReadOptions, Record, record_problem
from data_scripts.sources.rsna2024 import source as rsna2024
from data_scripts.sources.rsna2024.captions import CONDITIONS
from data_scripts.sources.rsna2024.tables import LEVELS
from data_scripts.system.worker_pool import Workers
from tests.data_scripts.imaging.dicom_files import AXIAL, SAGITTAL, make_dicom

T1, T2, AXIAL_T2 = ("11", "Sagittal T1"), ("12", "Sagittal T2/STIR"), ("13", "Axial T2")
NORMAL = {
    f"{condition}_{level.replace('/', '_').lower()}": "Normal/Mild" for condition in CONDITIONS for level in LEVELS
}


def write_csv(path, rows, columns):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)


def label(series, instance, condition, level, study="1"):
    columns = ("study_id", "series_id", "instance_number", "condition", "level", "x", "y")
    return dict(zip(columns, (study, series, instance, condition, level, 101.5, 99.25), strict=True))


@pytest.fixture
def download(tmp_path):
    """Make a download: studies by id with the grades that are not Normal/Mild, three series of five images each.

    File N.dcm of a sagittal series lies N * 10 mm to the left, of which the pixels are N * 10 + series.
    """

    def make(studies, labels=None, series=(T1, T2, AXIAL_T2)):
        raw = tmp_path / "rsna"
        for study in studies:
            for number, description in series:
                orientation = AXIAL if description == "Axial T2" else SAGITTAL
                for instance in range(1, 6):
                    pixels = np.arange(80, dtype=np.uint16).reshape(8, 10) * 10 * instance + int(number)
                    position = (0, 0, 10 * instance) if orientation == AXIAL else (30 - 10 * instance, 0, 0)
                    make_dicom(
                        raw / f"train_images/{study}/{number}/{instance}.dcm",
                        pixels,
                        orientation=orientation,
                        position=position,
                        spacing=(0.5, 0.5),
                        transfer_syntax=RLELossless,
                        patient_id=study,
                        InstanceNumber=instance,
                    )
        raw.mkdir(exist_ok=True)
        rows = [{"study_id": study, **NORMAL, **grades} for study, grades in studies.items()]
        write_csv(raw / "train.csv", rows, ["study_id", *NORMAL])
        descriptions = [
            {"study_id": study, "series_id": number, "series_description": description}
            for study in studies
            for number, description in series
        ]
        columns = ["study_id", "series_id", "series_description"]
        write_csv(raw / "train_series_descriptions.csv", descriptions, columns)
        if labels is not None:
            write_csv(raw / "train_label_coordinates.csv", labels, list(label("", "", "", "")))
        return raw

    return make


def read(raw):
    return list(rsna2024.read(ReadOptions(raw=raw)))


def split(items):
    return (
        {item.source: item for item in items if isinstance(item, Record)},
        {item.source: item for item in items if isinstance(item, Exclusion)},
    )


def test_labels_tell_the_image_the_level_and_what_the_report_states(download):
    grades = {
        "spinal_canal_stenosis_l4_l5": "Severe",
        "left_subarticular_stenosis_l4_l5": "Moderate",
        "right_neural_foraminal_narrowing_l4_l5": "Moderate",
        "right_neural_foraminal_narrowing_l5_s1": "Severe",
        "left_neural_foraminal_narrowing_l5_s1": "",
    }
    raw = download(
        {"1": grades},
        [
            label("11", 2, "Right Neural Foraminal Narrowing", "L4/L5"),
            label("11", 2, "Right Neural Foraminal Narrowing", "L5/S1"),
            label("11", 4, "Left Neural Foraminal Narrowing", "L5/S1"),
            label("11", 4, "Left Neural Foraminal Narrowing", "L4/L5"),
            label("12", 3, "Spinal Canal Stenosis", "L3/L4"),
            label("13", 1, "Left Subarticular Stenosis", "L4/L5"),
            label("13", 5, "right_subarticular_stenosis", "l1_l2"),
        ],
    )
    info, (records, exclusions) = rsna2024.describe(ReadOptions(raw=raw)), split(read(raw))
    assert not exclusions
    found = {
        source.removeprefix("RSNA2024/1/"): (record.plane, record.sequence, record.level, record.grade, record.labels)
        for source, record in records.items()
    }
    assert found == {
        "11/2.dcm": ("sagittal", "T1", "several", "Severe", ("right foraminal narrowing",)),
        "11/4.dcm": ("sagittal", "T1", "L4/L5", "Normal/Mild", ()),  # L5/S1 was not graded: no claim of normality
        "12/3.dcm": ("sagittal", "T2", "L3/L4", "Normal/Mild", ("No Finding",)),
        "13/1.dcm": ("axial", "T2", "L4/L5", "Severe", ("canal stenosis", "left subarticular stenosis")),
        "13/5.dcm": ("axial", "T2", "L1/L2", "Normal/Mild", ("No Finding",)),
    }
    for record in records.values():
        assert record_problem(record, info) is None
        assert (record.patient_id, record.study_id, record.pixel_spacing_mm) == ("rsna-1", "rsna-1", 0.5)
        assert len({record.report, *record.rephrasings}) == 5
        assert record.load_image().size == (10, 8)
    texts = {name: record.report.lower() for name, record in records.items()}
    axial, foramina = texts["RSNA2024/1/13/1.dcm"], texts["RSNA2024/1/11/2.dcm"]
    assert "severe" in axial and "moderate left" in axial and "foramin" not in axial and "right" in axial
    assert "moderate right" in foramina and "severe right" in foramina and "left" not in foramina
    assert "canal" in texts["RSNA2024/1/12/3.dcm"] and "foramin" not in texts["RSNA2024/1/12/3.dcm"]


def test_without_coordinates_the_middle_image_of_each_sagittal_series_states_all_grades(download):
    raw = download({"1": {"left_subarticular_stenosis_l5_s1": "Severe"}, "2": {}})
    # The middle is that of the places, not of the names.
    folder = raw / "train_images/1/11"
    for old, new in (("3", "0"), ("1", "3"), ("0", "1")):
        (folder / f"{old}.dcm").rename(folder / f"{new}.dcm")
    records, exclusions = split(read(raw))
    assert sorted(records) == [f"RSNA2024/{name}" for name in ("1/11/1.dcm", "1/12/3.dcm", "2/11/3.dcm", "2/12/3.dcm")]
    first, normal = records["RSNA2024/1/11/1.dcm"], records["RSNA2024/2/12/3.dcm"]
    assert (first.level, first.grade, first.labels) == ("several", "Severe", ("left subarticular stenosis",))
    assert (normal.level, normal.grade, normal.labels) == ("several", "Normal/Mild", ("No Finding",))
    for words in ("canal", "foramin", "severe left"):
        assert words in first.report.lower()
    assert {name: item.by_rule for name, item in exclusions.items()} == {"RSNA2024/1/13": True, "RSNA2024/2/13": True}
    assert "unknown without train_label_coordinates.csv" in exclusions["RSNA2024/1/13"].reason


@pytest.mark.parametrize("has_labels", [True, False])
def test_several_processes_read_what_one_reads(download, monkeypatch, has_labels):
    places = [(series, instance) for series in ("12", "11", "13") for instance in (4, 1)]
    labels = [label(series, instance, "Spinal Canal Stenosis", "L4/L5") for series, instance in places]
    grades = {"1": {}, "2": {"left_subarticular_stenosis_l5_s1": "Severe"}}
    raw = download(grades, labels if has_labels else None)
    (raw / "train_images/1/11/1.dcm").write_bytes(b"broken")
    alone = [repr(item) for item in read(raw)]
    monkeypatch.setattr(dicom, "NUM_READ_HERE", 2)
    with Workers(2):  # as in a build: their server, which lasts, has imported everything
        together = [repr(item) for item in rsna2024.read(ReadOptions(raw=raw, num_proc=2))]
    assert together == alone and any("Record(" in item for item in alone)


def test_the_header_tells_t2_from_stir(download):
    raw = download({"1": {}}, series=(T1, T2))
    make_dicom(
        raw / "train_images/1/12/3.dcm",
        np.arange(80, dtype=np.uint16).reshape(8, 10),
        orientation=SAGITTAL,
        series_description="SAG STIR",
    )
    assert [record.sequence for record in read(raw)] == ["T1", "STIR"]
    make_dicom(raw / "train_images/1/12/3.dcm", np.eye(8, dtype=np.uint16), series_description="")
    assert [record.sequence for record in read(raw)] == ["T1", "unknown"]


def test_what_nothing_points_at_or_nobody_graded_is_left_out_by_rule(download):
    blank = dict.fromkeys(NORMAL, "")
    raw = download({"1": {}, "2": blank}, [label("12", 3, "Spinal Canal Stenosis", "L1/L2", study="2")])
    write_csv(raw / "train.csv", [{"study_id": study, **blank} for study in "123"], ["study_id", *NORMAL])
    records, exclusions = split(read(raw))
    assert not records and all(item.by_rule for item in exclusions.values())
    assert "no condition on this image is graded" in exclusions["RSNA2024/2/12/3.dcm"].reason
    assert (
        "no label" in exclusions["RSNA2024/1/11"].reason
        and "has no series for this study" in exclusions["RSNA2024/3"].reason
    )
    assert len(exclusions) == 7


@pytest.mark.parametrize(
    ("table", "row", "reason"),
    [
        (
            "train.csv",
            {"study_id": "3", **NORMAL, "spinal_canal_stenosis_l1_l2": "Mild"},
            "unknown spinal_canal_stenosis_l1_l2",
        ),
        ("train.csv", {"study_id": "1", **NORMAL}, "study 1 is repeated, first in train.csv row 1"),
        ("train.csv", {"study_id": "../1", **NORMAL}, "study_id must be letters and digits, got '../1'"),
        ("train_series_descriptions.csv", ("1", "11", "Sagittal T1"), "series 11 of study 1 is described twice"),
        ("train_series_descriptions.csv", ("1", "14", "Coronal"), "unknown series_description 'Coronal'"),
        ("train_series_descriptions.csv", ("1", "../11", "Axial T2"), "series_id must be letters and digits"),
        ("train_series_descriptions.csv", ("1", "11"), "2 fields, the header has 3"),
        (
            "train_label_coordinates.csv",
            label("12", "3.5", "Spinal Canal Stenosis", "L1/L2"),
            "instance_number must be",
        ),
        ("train_label_coordinates.csv", label("12", "-1", "Spinal Canal Stenosis", "L1/L2"), "instance_number must be"),
        (
            "train_label_coordinates.csv",
            label("12", "3", "Stenosis", "L1/L2"),
            "unknown condition and level 'Stenosis'",
        ),
        (
            "train_label_coordinates.csv",
            label("12", "3", "Spinal Canal Stenosis", "T12/L1"),
            "unknown condition and level",
        ),
        (
            "train_label_coordinates.csv",
            label("99", "3", "Spinal Canal Stenosis", "L1/L2"),
            "series 99 of study 1 is not in",
        ),
    ],
)
def test_bad_rows_are_listed(download, table, row, reason):
    raw = download({"1": {}, "2": {}}, [label("12", 3, "Spinal Canal Stenosis", "L1/L2", study="2")])
    with (raw / table).open("a", newline="") as file:
        csv.writer(file).writerow(row.values() if isinstance(row, dict) else row)
    records, exclusions = split(read(raw))
    (bad,) = (item for name, item in exclusions.items() if name.startswith(table))
    assert reason in bad.reason and not bad.by_rule
    assert list(records) == ["RSNA2024/2/12/3.dcm"]


def test_unreadable_images_are_listed(download):
    raw = download(
        {"1": {}},
        [
            label("12", 3, "Spinal Canal Stenosis", "L1/L2"),
            label("12", 4, "Spinal Canal Stenosis", "L2/L3"),
            label("12", 9, "Spinal Canal Stenosis", "L3/L4"),
        ],
        series=(T1, T2),
    )
    (raw / "train_images/1/12/4.dcm").write_bytes(random.Random(0).randbytes(500))
    records, exclusions = split(read(raw))
    assert list(records) == ["RSNA2024/1/12/3.dcm"]
    assert exclusions.keys() == {"RSNA2024/1/11", "RSNA2024/1/12/4.dcm", "RSNA2024/1/12/9.dcm"}
    (raw / "train_label_coordinates.csv").unlink()
    for path in (raw / "train_images/1/11").iterdir():
        path.unlink()
    records, exclusions = split(read(raw))
    assert list(records) == ["RSNA2024/1/12/3.dcm"]  # 1, 2, 3 and 5 can be read; the later of the two in the middle
    assert exclusions["RSNA2024/1/11"].reason == "no image of this series is readable"


def test_a_folder_in_another_layout_is_refused(tmp_path, download):
    for raw in (None, tmp_path):
        with pytest.raises(
            ValueError, match="--raw must contain train.csv, train_series_descriptions.csv and train_images/"
        ):
            rsna2024.describe(ReadOptions(raw=raw))
    raw = download({"1": {}})
    (raw / "train.csv").write_text("study_id,spinal_canal_stenosis_l1_l2\n1,Severe\n")
    with pytest.raises(ValueError, match="train.csv lacks the columns spinal_canal_stenosis_l2_l3"):
        read(raw)


def test_a_built_dataset_may_not_be_shared(download, built, tmp_path):
    grades = [{"spinal_canal_stenosis_l4_l5": severity} for severity in ("Severe", "Moderate", "Normal/Mild", "")] * 2
    raw = download(
        {str(number): graded for number, graded in enumerate(grades, start=1)},
        [label("12", 3, "Spinal Canal Stenosis", "L4/L5", study=str(number)) for number in range(1, 9)],
        series=(T2,),
    )
    report = built(raw, source="rsna2024")
    assert (report["rows_read"], report["rows_written"]) == (8, 6)
    assert {item["source"] for item in report["exclusions"]} == {"RSNA2024/4/12/3.dcm", "RSNA2024/8/12/3.dcm"}
    counts = [split["labels"] for split in report["splits"].values()]
    assert sum(count.get("canal stenosis", 0) for count in counts) == 4
    assert "non-commercial" in (tmp_path / "out/README.md").read_text()
