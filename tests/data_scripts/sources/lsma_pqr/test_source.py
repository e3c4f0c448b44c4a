from collections import Counter

import numpy as np
import pytest
from PIL import Image

from data_scripts.imaging.images import UnusableImageError
from data_scripts.records import Exclusion, ReadOptions, record_problem
from data_scripts.reports.text import normalise_report
from data_scripts.sources.lsma_pqr import source as lsma_pqr
from data_scripts.sources.lsma_pqr.source import MASK_NAMES
from tests.data_scripts.sources.lsma_pqr.lsma_folder import (
    AXIAL_MASK,
    GRADES,
    LONG_NAMES,
    NORMAL,
    NOTE,
    SAGITTAL_MASK,
    SHORT_NAMES,
    pixels_of,
    read,
    write_png,
)


@pytest.mark.parametrize("names", [SHORT_NAMES, LONG_NAMES])
@pytest.mark.parametrize("image_prefixes", [("", ""), ("axial_", "sag_"), ("", "sag_")])
@pytest.mark.parametrize("mask_prefixes", [("", ""), ("axial_", "sag_")])
def test_eight_images_of_a_patient_in_every_naming(lsma, names, image_prefixes, mask_prefixes):
    raw = lsma(names=names, image_prefixes=image_prefixes, mask_prefixes=mask_prefixes)
    records, exclusions = read(raw)
    assert exclusions == []
    facts = {(record.sequence, record.plane, record.level, record.grade) for record in records}
    levels = [("axial", "L3/L4", "2"), ("axial", "L4/L5", "4"), ("axial", "L5/S1", "3"), ("sagittal", "several", "4")]
    assert facts == {(sequence, *level) for sequence in ("T1", "T2") for level in levels}
    info = lsma_pqr.describe(ReadOptions(raw=raw))
    for record in records:
        assert record_problem(record, info) is None
        assert (record.patient_id, record.pixel_spacing_mm) == ("mendeley-0001", 0.6875)
        assert normalise_report(record.report) == (
            "Diffuse disc bulge at L3-L4 and L4-L5, compressing the thecal sac. Muscle spasm"
        )
        expected = SAGITTAL_MASK if record.plane == "sagittal" else AXIAL_MASK
        marked = {"axial": {"disc", "posterior element", "spinal canal"}}.get(record.plane)
        assert set(record.mask_classes) == (marked or {"disc", "spinal canal", "vertebra", "sacrum"})
        assert record.load_mask().size == record.load_image().size == expected.shape[::-1]
    name = f"{image_prefixes[0]}T2_0001_D4.png"
    (record,) = [record for record in records if record.source == f"LSMA-PQR/images_png/{name}"]
    np.testing.assert_array_equal(np.asarray(record.load_image()), pixels_of(AXIAL_MASK, 142))


def test_the_severity_of_the_notes_may_be_the_grade(lsma):
    unknown = {**NOTE, "PatientID": "3", "Severity": "unknown"}
    doubtful = {**NOTE, "PatientID": "4", "Severity": "normal"}  # beside a finding
    raw = lsma(notes=(NOTE, NORMAL, unknown, doubtful), patients=("0001", "0002", "0003", "0004"))
    records, exclusions = read(raw, grades="severity")
    assert exclusions == []  # the table of the other grades is not read
    found = {(record.patient_id[-4:], record.level): record.grade for record in records}
    levels = ("L3/L4", "L4/L5", "L5/S1", "several")
    assert [found["0001", level] for level in levels] == ["moderate", "moderate", None, "moderate"]
    assert [found["0002", level] for level in levels] == ["normal"] * 4
    assert [found[patient, level] for patient in ("0003", "0004") for level in levels] == [None] * 8
    info = lsma_pqr.describe(ReadOptions(raw=raw, grades="severity"))
    assert info.grade_names == ("normal", "mild", "moderate", "severe")
    assert all(record_problem(record, info) is None for record in records)


class TestMasks:
    @pytest.mark.parametrize("mode", ["L", "P"])
    @pytest.mark.parametrize("offset", [0, 3])
    def test_one_vocabulary_for_both_planes(self, tmp_path, mode, offset):
        axial = np.array([[0, 1, 2, 3]], dtype=np.uint8)
        sagittal = np.array([[0, 1, 2, 3, 4]], dtype=np.uint8)
        sagittal[sagittal > 0] += offset  # either numbering of the documents
        named = {}
        for plane, mask in (("axial", axial), ("sagittal", sagittal)):
            image = Image.fromarray(mask)
            if mode == "P":
                image.putpalette([255, 0, 0] * 256)  # colours must not matter
            image.save(tmp_path / f"{plane}.png")
            indices = np.asarray(lsma_pqr.load_mask(tmp_path / f"{plane}.png", plane))
            named[plane] = [MASK_NAMES[index] for index in indices[0]]
        assert named["axial"] == ["background", "disc", "posterior element", "spinal canal"]
        assert named["sagittal"] == ["background", "vertebra", "disc", "sacrum", "spinal canal"]

    @pytest.mark.parametrize(
        ("plane", "pixels", "reason"),
        [
            ("axial", [[0, 4]], r"classes \[4\] is unknown in axial masks"),
            ("sagittal", [[1, 7]], r"classes \[1, 7\] is unknown in sagittal masks"),
            ("sagittal", [[0, 4]], r"classes \[4\] fits two numberings of sagittal masks"),
            ("axial", [[[1, 1, 1]]], "must be an 8-bit grey or palette image"),
        ],
    )
    def test_what_is_no_mask(self, tmp_path, plane, pixels, reason):
        Image.fromarray(np.array(pixels, dtype=np.uint8)).save(tmp_path / "mask.png")
        with pytest.raises(UnusableImageError, match=reason):
            lsma_pqr.load_mask(tmp_path / "mask.png", plane)

    def test_an_empty_mask_is_background(self, tmp_path):
        Image.fromarray(np.zeros((2, 2), dtype=np.uint8)).save(tmp_path / "mask.png")
        assert not np.asarray(lsma_pqr.load_mask(tmp_path / "mask.png", "sagittal")).any()

    def test_missing_ambiguous_and_left_over_masks_are_bad_rows(self, lsma):
        raw = lsma()
        (raw / "masks_indexed/T1_0001_D3.png").unlink()
        write_png(raw / "masks_indexed/axial_T1_0001_D4.png", AXIAL_MASK[::-1].copy())
        write_png(raw / "masks_indexed/axial_T1_0001_D5.png", AXIAL_MASK)  # equal to the other: no harm
        (raw / "images_png/T2_0001_S8.png").unlink()
        records, exclusions = read(raw)
        assert len(records) == 5
        assert exclusions == [
            Exclusion("LSMA-PQR/images_png/T1_0001_D3.png", "missing mask: masks_indexed has none for 0001_D3_T1"),
            Exclusion(
                "LSMA-PQR/images_png/T1_0001_D4.png",
                "ambiguous mask: 2 different files are named 0001_D4_T1; keep one",
            ),
            Exclusion("LSMA-PQR/masks_indexed/T2_0001_S8.png", "mask without an image"),
        ]

    def test_masks_and_grades_may_be_missing_as_a_whole(self, lsma):
        raw = lsma(grades=())
        for path in (raw / "masks_indexed").iterdir():
            path.unlink()
        (raw / "masks_indexed").rmdir()
        info = lsma_pqr.describe(ReadOptions(raw=raw))
        records, exclusions = read(raw)
        assert (info.mask_names, info.grade_names, len(records), exclusions) == ((), (), 8, [])
        assert {(record.load_mask, record.grade) for record in records} == {(None, None)}


class TestFolder:
    def test_misnamed_images_and_copies(self, lsma):
        raw = lsma()
        for name in (
            "axial_T1_0001_S8.png",
            "T1_0001_D9.png",
            "T1_٠٠٠١_D3.png",
            "sag_T1_0001_D3.png",
            "T1_0001_ſ8.png",
        ):
            write_png(raw / "images_png" / name, AXIAL_MASK)
        write_png(raw / "images_png/axial_T1_0001_D3.png", pixels_of(AXIAL_MASK, 131))
        write_png(raw / "images_png/axial_T1_0001_D4.png", AXIAL_MASK)
        records, exclusions = read(raw)
        assert len(records) == 7
        assert Counter(exclusion.reason.split(";")[0] for exclusion in exclusions) == {
            "unknown image name": 5,
            "copy of another file": 1,
            "2 different files are named 0001_D4_T1": 2,
        }

    def test_images_and_notes_are_needed(self, lsma, tmp_path):
        with pytest.raises(ValueError, match="--raw is not given. Name the folder with LSMA-PQR"):
            lsma_pqr.describe(ReadOptions(raw=None))
        with pytest.raises(ValueError, match="has no folder images_png"):
            lsma_pqr.describe(ReadOptions(raw=tmp_path))
        raw = lsma()
        (raw / "structured_notes.csv").rename(tmp_path / "elsewhere.csv")
        with pytest.raises(ValueError, match=r"must contain structured_notes\.csv or RadiologicalNotes\.csv.*got None"):
            lsma_pqr.describe(ReadOptions(raw=raw))
        with pytest.raises(ValueError, match=r"--notes a \.csv file; got .*nowhere\.csv"):
            lsma_pqr.describe(ReadOptions(raw=raw, notes=tmp_path / "nowhere.csv"))
        assert len(read(raw, notes=tmp_path / "elsewhere.csv")[0]) == 8

    @pytest.mark.parametrize("key", ["notes", "grades"])
    def test_a_table_in_both_namings(self, lsma, key):
        raw = lsma()
        (raw / LONG_NAMES[key]).write_bytes((raw / SHORT_NAMES[key]).read_bytes())
        with pytest.raises(ValueError, match=f"contains both {SHORT_NAMES[key]} and {LONG_NAMES[key]}; keep one"):
            lsma_pqr.describe(ReadOptions(raw=raw))

    def test_missing_columns_are_named(self, lsma):
        raw = lsma([{"PatientID": "1", "ClinicalNotes": "Bulge."}])
        with pytest.raises(ValueError, match=r"must have the columns PatientID or Patient_ID, Severity, DiscBulge"):
            read(raw)
        raw = lsma(grades=[{**GRADES, "Patient_ID": "1"}])
        with pytest.raises(ValueError, match=r"PfirrmannGrade\.csv must have the columns PatientID or Patient_ID, D3"):
            read(raw)


def test_build(lsma, built, tmp_path):
    import datasets

    patients = [f"{number:04d}" for number in range(1, 5)]
    notes = [{**(NOTE if number % 2 else NORMAL), "PatientID": str(number)} for number in range(1, 5)]
    raw = lsma(notes, [{**GRADES, "PatientID": str(number)} for number in range(1, 5)], patients=patients)
    write_png(raw / "masks_indexed/T1_0001_D3.png", AXIAL_MASK[1:])
    report = built(raw, source="lsma_pqr", split_fractions=[0.5, 0.5, 0.0])
    assert (report["rows_read"], report["rows_written"], report["num_masks"]) == (32, 31, 31)
    (exclusion,) = report["exclusions"]
    assert exclusion["reason"] == "mask is 10 x 7, its image 10 x 8"
    rows = datasets.concatenate_datasets(
        list(datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache")).values())
    )
    row = next(row for row in rows if row["source"] == "LSMA-PQR/images_png/T2_0001_S8.png")
    features = rows.features
    assert features["grade"].int2str(row["grade"]) == "4"
    assert [features["labels"].feature.int2str(label) for label in row["labels"]] == [
        "LBP",
        "disc bulge",
        "compression",
    ]
    here = np.array([0, 4, 1, 5, 3], dtype=np.uint8)[SAGITTAL_MASK]  # vertebra 4, disc 1, sacrum 5, canal 3
    np.testing.assert_array_equal(np.asarray(row["mask"]), here)
    card = (tmp_path / "out/README.md").read_text()
    assert "0 background, 1 disc, 2 posterior element, 3 spinal canal, 4 vertebra, 5 sacrum" in card
    assert "radiologist, with spelling corrected" in card and "license: cc-by-4.0" in card


def test_every_file_and_row_is_used_or_listed(lsma):
    nobody = [{**GRADES, "PatientID": "8", "D4": "9"}, {**GRADES, "PatientID": "9"}]
    raw = lsma(grades=(GRADES, *nobody))
    write_png(raw / "masks_indexed/T1_0002_D33.png", AXIAL_MASK)
    write_png(raw / "masks_indexed/more/T1_0002_D3.png", AXIAL_MASK)
    write_png(raw / "images_png/more/T1_0001_D3.png", AXIAL_MASK)
    write_png(raw / "images_png/T1_0001_D4.tif", AXIAL_MASK)
    records, exclusions = read(raw)
    assert len(records) == 8
    assert sorted((item.source, item.by_rule) for item in exclusions) == [
        ("LSMA-PQR/images_png/T1_0001_D4.tif", False),
        ("LSMA-PQR/images_png/more/T1_0001_D3.png", False),
        ("LSMA-PQR/masks_indexed/T1_0002_D33.png", False),
        ("LSMA-PQR/masks_indexed/more/T1_0002_D3.png", False),
        ("PfirrmannGrade.csv row 2", False),
        ("PfirrmannGrade.csv row 3", True),
    ]
    assert any("unknown Pfirrmann grade '9' at D4" in item.reason for item in exclusions)
