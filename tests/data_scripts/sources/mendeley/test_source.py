import itertools
import re
import shutil
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import openpyxl
import pytest
from PIL import Image

from data_scripts.imaging.dicom import read_slice
from data_scripts.records import Exclusion, ReadOptions, Record, record_problem
from data_scripts.reports.text import labels_at_level, labels_from_report, normalise_report
from data_scripts.sources.mendeley import source as mendeley
from data_scripts.sources.slice_names import LEVEL_OF_DISC
from tests.data_scripts.imaging.dicom_files import AXIAL, SAGITTAL, make_dicom

BULGE = "Mild disc bulge at L4/L5 level.//No stenosis"
NORMAL = "Normal study.//No evidence of disc bulge or herniation"
NOTES_NAME = "Radiologists Report.xlsx"


def write_notes(folder, notes, name=NOTES_NAME):
    workbook = openpyxl.Workbook()
    workbook.active.append(["Patient ID", "Clinician's Notes"])
    for patient, text in notes:
        workbook.active.append([patient, text])
    folder.mkdir(parents=True, exist_ok=True)
    workbook.save(folder / name)


def write_png(path, number=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (12, 10), dtype=np.uint8)).save(path)


def write_slices(folder, patient, sequences=("T1", "T2"), discs=("D3", "D4", "D5")):
    for number, (sequence, disc) in enumerate(itertools.product(sequences, discs)):
        write_png(folder / f"{sequence}_{patient}_{disc}.png", 10 * int(patient) + number)


def read(raw, **options):
    items = list(mendeley.read(ReadOptions(raw=raw, **options)))
    return [item for item in items if isinstance(item, Record)], [item for item in items if isinstance(item, Exclusion)]


def reasons(exclusions):
    return Counter((exclusion.reason, exclusion.by_rule) for exclusion in exclusions)


class TestSlices:
    def test_six_slices_of_a_patient(self, tmp_path):
        write_notes(tmp_path, [(1, BULGE)])
        write_slices(tmp_path, "0001")
        records, exclusions = read(tmp_path)
        assert exclusions == []
        assert [(record.sequence, record.level) for record in records] == list(
            itertools.product(("T1", "T2"), ("L3/L4", "L4/L5", "L5/S1"))
        )
        for record in records:
            assert normalise_report(record.report) == "Mild disc bulge at L4/L5 level. No stenosis"
            assert (record.patient_id, record.study_id, record.plane) == ("mendeley-0001", "mendeley-0001", "axial")
            assert (record.grade, record.pixel_spacing_mm, record.load_mask, record.split) == (None, None, None, None)
        assert records[4].source == "Mendeley/T2_0001_D4.png"
        expected = np.asarray(Image.open(tmp_path / "T2_0001_D4.png"))
        np.testing.assert_array_equal(np.asarray(records[4].load_image()), expected)

    def test_labels_are_of_the_patient_and_of_the_level(self, tmp_path):
        write_notes(tmp_path, [(1, BULGE), (2, NORMAL)])
        write_slices(tmp_path, "0001")
        write_slices(tmp_path, "0002")
        records, _ = read(tmp_path)
        labels = {(record.patient_id, record.level): record.labels for record in records}
        assert labels["mendeley-0001", "L4/L5"] == ("LBP", "disc bulge")
        assert labels["mendeley-0001", "L3/L4"] == labels["mendeley-0001", "L5/S1"] == ("LBP",)
        assert {labels["mendeley-0002", level] for level in ("L3/L4", "L4/L5", "L5/S1")} == {("No Finding",)}

    def test_the_archive_as_it_unpacks(self, tmp_path):
        """Slices in T1_Output and T2_Output; labels, composites and a labeller's copies of the same names beside."""
        raw = tmp_path / "Ground_Truth_Label"
        write_notes(raw / "notes", [(1, BULGE)])
        write_slices(raw / "04_Intermediary_Ground_Truth_Data/T1_Output", "0001", sequences=["T1"])
        write_slices(raw / "04_Intermediary_Ground_Truth_Data/T2_Output", "0001", sequences=["T2"])
        write_slices(raw / "03_Manual_Label_Data/Labeller 01", "0001", sequences=["T1"], discs=["D3"])
        write_slices(raw / "05_Final_Ground_Truth_Data/Registered", "0001", sequences=["T2"], discs=["D3"])
        write_png(raw / "05_Final_Ground_Truth_Data/Label_Images/L1_0001_D3.png")
        write_png(raw / "05_Final_Ground_Truth_Data/Composite_Images/C1_0001_D3.png")
        write_png(raw / "05_Final_Ground_Truth_Data/Label_Images/T1_0001_D3_label.png")
        (raw / "._T1_0001_D3.png").write_bytes(b"left by another system")
        records, exclusions = read(raw)
        assert len(records) == 6 and all("_Output/" in record.source for record in records)
        assert reasons(exclusions) == {("label image, not a slice", True): 5}

    @pytest.mark.parametrize("folder", ["labels", "Ground Truth", "composite", "masks"])
    def test_slices_come_before_label_images_of_the_same_name(self, tmp_path, folder):
        write_notes(tmp_path, [(1, BULGE)])
        write_png(tmp_path / "slices/T1_0001_D3.png", 1)
        write_png(tmp_path / folder / "T1_0001_D3.png", 2)
        (record,), (exclusion,) = read(tmp_path)
        assert record.source == "Mendeley/slices/T1_0001_D3.png"
        assert exclusion == Exclusion(f"Mendeley/{folder}/T1_0001_D3.png", "label image, not a slice", by_rule=True)

    @pytest.mark.parametrize(
        "name",
        ["T1_0001_D9.png", "T3_0001_D3.png", "T1_001_D3.png", "T1_٠٠٠١_D3.png", "T2_0001_S.png", "t1_abcd_d3.PNG"],
    )
    def test_names_that_claim_a_slice_wrongly_are_bad_rows(self, tmp_path, name):
        write_notes(tmp_path, [(1, BULGE)])
        write_slices(tmp_path, "0001")
        write_png(tmp_path / name)
        records, (exclusion,) = read(tmp_path)
        assert len(records) == 6
        is_slice_like = name[1] in "12"
        assert exclusion.source == f"Mendeley/{name}" and exclusion.by_rule is not is_slice_like
        assert ("unknown slice name; expected T1 or T2" in exclusion.reason) is is_slice_like

    def test_slices_in_another_form_are_listed(self, tmp_path):
        write_notes(tmp_path, [(1, BULGE)])
        write_slices(tmp_path, "0001")
        for name in ("T2_0001_D4.jpg", "T2_0001_D5.tif", "Label_Images/T1_0001_D3.bmp", "photo.jpg"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(b"")
        records, exclusions = read(tmp_path)
        assert len(records) == 6
        assert {(item.source, item.by_rule) for item in exclusions} == {
            ("Mendeley/T2_0001_D4.jpg", False),
            ("Mendeley/T2_0001_D5.tif", False),
            ("Mendeley/Label_Images/T1_0001_D3.bmp", True),
        }

    def test_copies(self, tmp_path):
        write_notes(tmp_path, [(1, BULGE)])
        for folder, number in (("a", 1), ("b", 1), ("c", 1)):
            write_png(tmp_path / folder / "T1_0001_D3.png", number)
        for folder, number in (("a", 1), ("b", 2)):
            write_png(tmp_path / folder / "T1_0001_D4.png", number)
        records, exclusions = read(tmp_path)
        assert [record.source for record in records] == ["Mendeley/a/T1_0001_D3.png"]
        assert reasons(exclusions) == {
            ("copy of another file", True): 2,
            ("2 different files are named 0001_D4_T1; keep one", False): 2,
        }


class TestNotes:
    def test_every_note_and_image_is_accounted_for(self, tmp_path, built):
        notes = [(1, BULGE), (2, NORMAL), (3, None), (4, "  "), (5, "A note without images"), (7, "//"), (8, BULGE)]
        write_notes(tmp_path / "raw", [*notes, (8, NORMAL)])
        for patient in ("0001", "0002", "0003", "0006", "0007"):
            write_slices(tmp_path / "raw", patient)
        write_png(tmp_path / "raw/T1_0008_D3.png")
        records, exclusions = read(tmp_path / "raw")
        assert Counter(record.patient_id for record in records) == {"mendeley-0001": 6, "mendeley-0002": 6}
        assert reasons(exclusions) == {
            ("empty note", True): 6 + 6 + 3,  # images of 3 and 7; notes of 3, 4 and 7
            ("note without an image", True): 1,
            ("the patient has no note", True): 6,
            ("patient 0008 has 2 rows; keep one", False): 2,
            (f"{NOTES_NAME} row 9: patient 0008 has 2 rows; keep one", False): 1,
        }
        report = built(tmp_path / "raw", source="mendeley", split_fractions=[0.5, 0.5, 0.0], max_bad=0.1)
        assert (report["rows_read"], report["rows_written"]) == (37, 12)
        assert len(report["exclusions"]) == 25

    def test_notes_elsewhere(self, tmp_path):
        write_slices(tmp_path / "raw", "0001")
        with pytest.raises(ValueError, match=r"one workbook of notes, Radiologists Report\.xlsx.*found: none"):
            mendeley.describe(ReadOptions(raw=tmp_path / "raw"))
        write_notes(tmp_path, [(1, BULGE)], "mine.xlsx")
        records, _ = read(tmp_path / "raw", notes=tmp_path / "mine.xlsx")
        assert len(records) == 6

    def test_the_workbook_is_known_by_its_name(self, tmp_path):
        write_slices(tmp_path, "0001")
        write_notes(tmp_path / "a", [(1, BULGE)], "renamed.xlsx")
        write_notes(tmp_path, [(1, BULGE)], "~$renamed.xlsx")  # a lock file of the spreadsheet program
        assert len(read(tmp_path)[0]) == 6
        write_notes(tmp_path, [(1, BULGE)], "other.xlsx")
        with pytest.raises(ValueError, match=r"found: a/renamed\.xlsx, other\.xlsx"):
            read(tmp_path)
        write_notes(tmp_path / "b", [(1, BULGE)])
        assert len(read(tmp_path)[0]) == 6

    @pytest.mark.parametrize("raw", [None, Path("nowhere")])
    def test_the_folder_must_exist(self, raw):
        with pytest.raises(ValueError, match="Name the folder with label images"):
            mendeley.describe(ReadOptions(raw=raw))

    def test_neither_form_or_both(self, tmp_path):
        write_notes(tmp_path, [(1, BULGE)])
        write_png(tmp_path / "C1_0001_D3.png")
        with pytest.raises(ValueError, match=r"neither form.*T1_0001_D3\.png.*0001/STUDY/SERIES"):
            mendeley.describe(ReadOptions(raw=tmp_path))
        write_png(tmp_path / "T1_0001_D3.png")
        mendeley.describe(ReadOptions(raw=tmp_path))
        make_dicom(tmp_path / "0001/study/T2_TSE_TRA_1/a.ima", np.zeros((8, 8), np.uint16))
        with pytest.raises(ValueError, match="both forms"):
            mendeley.describe(ReadOptions(raw=tmp_path))


TILTED = (1, 0, 0, 0, np.cos(0.5), -np.sin(0.5))  # an oblique slice along L5/S1
STUDY = "L-SPINE_LSS_20160309_091629_240000"


@pytest.fixture
def studies(tmp_path):
    """Patient 1 with two series of slices, a localizer and a position display; patient 3 without note text."""
    raw = tmp_path / "raw"
    pixels = np.random.default_rng(0).integers(0, 4096, (3, 16, 20), dtype=np.uint16)
    first = raw / "01_MRI_Data/0001" / STUDY

    def series(folder, orientation, count=3, description="", suffix=".ima", **tags):
        for number in range(count):
            make_dicom(
                folder / f"slice_{number}{suffix}",
                pixels[number],
                orientation=orientation,
                series_description=description,
                **tags,
            )

    series(first / "T2_TSE_TRA_384_0005", TILTED, spacing=(0.6875, 0.6875))
    series(first / "T1_TSE_SAG_320_0003", SAGITTAL, spacing=(0.9, 0.9), suffix="")
    series(first / "LOCALIZER_0001", AXIAL, count=2)
    series(first / "POSDISP_[4]_T2_TSE_TRA_384_5001", None, count=1)
    series(raw / "01_MRI_Data/0003/study/T2_TSE_TRA_0001", AXIAL, count=2)
    write_notes(raw, [(1, BULGE), (3, "")])
    return raw


class TestRawStudies:
    def test_slices_and_series_left_out(self, studies):
        records, exclusions = read(studies)
        assert Counter((record.plane, record.sequence, record.level) for record in records) == {
            ("axial", "T2", "unknown"): 3,
            ("sagittal", "T1", "several"): 3,
        }
        axial, sagittal = records[-1], records[0]
        assert axial.source == "Mendeley/0001/study-1/T2_TSE_TRA_384_0005/slice_2.ima"
        assert (axial.patient_id, axial.study_id) == ("mendeley-0001", "mendeley-0001-study-1")
        assert axial.pixel_spacing_mm == pytest.approx(0.6875) and sagittal.pixel_spacing_mm == pytest.approx(0.9)
        assert axial.labels == ("LBP",)  # nothing is claimed of a slice at an unknown level
        assert sagittal.labels == ("LBP", "disc bulge")
        path = studies / "01_MRI_Data/0001" / STUDY / "T2_TSE_TRA_384_0005/slice_2.ima"
        np.testing.assert_array_equal(np.asarray(axial.load_image()), np.asarray(read_slice(path)))
        patient = "Mendeley/0001/study-1"
        other = "not an axial or sagittal T1 or T2 series"
        assert exclusions == [
            Exclusion(f"{patient}/LOCALIZER_0001 (2 files)", other, by_rule=True),
            Exclusion(f"{patient}/POSDISP_[4]_T2_TSE_TRA_384_5001 (1 files)", other, by_rule=True),
            Exclusion("Mendeley/0003/study-1/T2_TSE_TRA_0001 (2 files)", "empty note", by_rule=True),
            Exclusion(f"{NOTES_NAME} row 3, patient 0003", "empty note", by_rule=True),
        ]

    def test_orientation_outranks_the_name(self, studies):
        folder = studies / "01_MRI_Data/0001/other study/T2_TSE_TRA_0009"
        pixels = np.arange(64, dtype=np.uint16).reshape(8, 8)
        make_dicom(folder / "a.ima", pixels, orientation=SAGITTAL)
        make_dicom(folder / "b.ima", pixels, orientation=None)
        records = {record.source.rsplit("/", 1)[1]: record for record in read(studies)[0] if "study-2" in record.source}
        assert (records["a.ima"].plane, records["b.ima"].plane) == ("sagittal", "axial")
        assert records["a.ima"].study_id == "mendeley-0001-study-2"

    def test_broken_and_misplaced_files_are_bad_rows(self, studies):
        series = studies / "01_MRI_Data/0001" / STUDY / "T2_TSE_TRA_384_0005"
        (series / "noise.ima").write_bytes(np.random.default_rng(0).bytes(500))
        shutil.copy(series / "slice_0.ima", studies / "01_MRI_Data/stray.ima")
        records, exclusions = read(studies)
        assert len(records) == 6
        bad = {exclusion.source: exclusion.reason for exclusion in exclusions if not exclusion.by_rule}
        assert set(bad) == {
            "Mendeley/0001/study-1/T2_TSE_TRA_384_0005/noise.ima",
            "Mendeley/01_MRI_Data/stray.ima",
        }
        assert "outside a folder PATIENT/STUDY/SERIES" in bad["Mendeley/01_MRI_Data/stray.ima"]

    def test_build(self, studies, built):
        write_notes(studies, [(1, BULGE), (2, NORMAL), (3, "")])
        shutil.copytree(studies / "01_MRI_Data/0001", studies / "01_MRI_Data/0002")
        truncated = studies / "01_MRI_Data/0002" / STUDY / "T2_TSE_TRA_384_0005/slice_0.ima"
        truncated.write_bytes(truncated.read_bytes()[:-100])
        report = built(studies, source="mendeley", split_fractions=[0.5, 0.5, 0.0], max_bad=0.1)
        bad = [exclusion for exclusion in report["exclusions"] if not exclusion["by_rule"]]
        assert report["rows_written"] == 11 and len(bad) == 1 and bad[0]["source"].endswith("slice_0.ima")


@pytest.fixture(scope="session")
def real_notes():
    path = Path(__file__).parents[5] / "shared/data/mendeley_notes" / NOTES_NAME
    if not path.is_file():
        pytest.skip("no real data beside the project")
    return path


class TestRealNotes:
    """The 575 published notes; the images are others': pairing them is arbitrary, so only counts are looked at."""

    def test_no_note_is_lost(self, real_notes, tmp_path):
        for patient in range(1, 576):
            (tmp_path / f"T2_{patient:04d}_D5.png").touch()
        records, exclusions = read(tmp_path, notes=real_notes)
        info = mendeley.describe(ReadOptions(raw=tmp_path, notes=real_notes))
        assert len(records) == 515 and [record_problem(record, info) for record in records] == [None] * 515
        assert reasons(exclusions) == {("empty note", True): 60 + 60}  # 60 notes, and their images
        assert len({exclusion.source for exclusion in exclusions}) == 120
        for record in records[::50]:
            assert record.labels == labels_at_level(record.report, "L5/S1")
            assert (record.labels == ("No Finding",)) is (labels_from_report(record.report) == ("No Finding",))

    def test_notes_without_images_are_listed(self, real_notes, tmp_path):
        write_png(tmp_path / "T1_0001_D3.png")
        records, exclusions = read(tmp_path, notes=real_notes)
        assert reasons(exclusions) == {("empty note", True): 60, ("note without an image", True): 514}
        assert len(records) == 1

    @pytest.mark.slow
    def test_build_with_real_pixels(self, real_notes, shared_data, tmp_path, built):
        slices = sorted((shared_data / "mendeley_axial").glob("*.png"))
        assert len(slices) == 84
        raw = tmp_path / "raw"
        raw.mkdir()
        shutil.copy(real_notes, raw)
        places = itertools.cycle(itertools.product(("T1", "T2"), ("D3", "D4", "D5")))
        for patient, (sequence, disc), path in zip(range(1, 576), places, itertools.cycle(slices), strict=False):
            (raw / f"{sequence}_{patient:04d}_{disc}.png").symlink_to(path)
        report = built(raw, source="mendeley")
        assert report["rows_written"] == 515
        assert Counter(exclusion["reason"] for exclusion in report["exclusions"]) == {"empty note": 60 + 60}
        rows = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
        row, level = rows[0], rows.features["level"]
        patient, disc = re.fullmatch(r"Mendeley/T[12]_([0-9]{4})_(D[345])\.png", row["source"]).groups()
        assert row["patient_id"] == f"mendeley-{patient}" and level.int2str(row["level"]) == LEVEL_OF_DISC[disc]
        original = slices[(int(patient) - 1) % 84]
        np.testing.assert_array_equal(np.asarray(row["image"]), np.asarray(Image.open(original).convert("L")))
