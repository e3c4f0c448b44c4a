import csv
import itertools
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from data_scripts.images import UnusableImageError
from data_scripts.lsma_tables import StructuredNote, compose_report
from data_scripts.records import Exclusion, ReadOptions, Record, record_problem
from data_scripts.sources import lsma_pqr
from data_scripts.sources.lsma_pqr import MASK_NAMES
from modeling_lumbarclip.report_text_lumbarclip import report_findings

NOTE = {
    "PatientID": "1",
    "Severity": "moderate",
    "Compression": "1",
    "DiscBulge": "1",
    "Herniation": "0",
    "Stenosis": "0",
    "MuscleSpasm": "1",
    "AffectedLevels": "D3,D4",
    "NerveInvolvement": "left",
    "ClinicalNotes": "Diffuse disc bulge at L3-L4 and L4-L5, compressing the thecal sac.//Muscle spasm",
}
NORMAL = {
    "PatientID": "2",
    "Severity": "normal",
    "Compression": "0",
    "DiscBulge": "0",
    "Herniation": "0",
    "Stenosis": "0",
    "MuscleSpasm": "0",
    "AffectedLevels": "",
    "NerveInvolvement": "none",
    "ClinicalNotes": "Normal study. No disc herniation.",
}
GRADES = {"PatientID": "1", "D3": "2", "D4": "4", "D5": "3"}
AXIAL_MASK = np.array([[0, 1], [2, 3]], dtype=np.uint8).repeat(4, axis=0).repeat(5, axis=1)
SAGITTAL_MASK = np.array([[0, 1, 2], [3, 4, 0]], dtype=np.uint8).repeat(4, axis=0).repeat(5, axis=1)
SHORT_NAMES = {"notes": "structured_notes.csv", "grades": "PfirrmannGrade.csv"}
LONG_NAMES = {"notes": "RadiologicalNotes.csv", "grades": "PfirrmannGrades.csv"}


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_png(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def pixels_of(mask, number):
    return np.random.default_rng(number).integers(0, 256, mask.shape, dtype=np.uint8)


@pytest.fixture
def lsma(tmp_path):
    """Make a folder: eight images with masks of each patient, and the tables."""

    def make(
        notes=(NOTE,),
        grades=(GRADES,),
        *,
        patients=("0001",),
        image_prefixes=("", ""),
        mask_prefixes=("", ""),
        names=SHORT_NAMES,
    ):
        raw = tmp_path / "raw"
        for patient, sequence in itertools.product(patients, ("T1", "T2")):
            for place in ("D3", "D4", "D5", "S8"):
                is_sagittal = place == "S8"
                mask = SAGITTAL_MASK if is_sagittal else AXIAL_MASK
                name = f"{sequence}_{patient}_{place}.png"
                number = int(patient) * 100 + int(place[1]) * 10 + int(sequence[1])
                write_png(raw / "images_png" / f"{image_prefixes[is_sagittal]}{name}", pixels_of(mask, number))
                write_png(raw / "masks_indexed" / f"{mask_prefixes[is_sagittal]}{name}", mask)
        write_csv(raw / names["notes"], notes)
        if grades:
            write_csv(raw / names["grades"], grades)
        return raw

    return make


def read(raw, **options):
    items = list(lsma_pqr.read(ReadOptions(raw=raw, **options)))
    return [item for item in items if isinstance(item, Record)], [item for item in items if isinstance(item, Exclusion)]


def reasons(exclusions):
    return Counter((exclusion.reason, exclusion.by_rule) for exclusion in exclusions)


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
        assert record.report == ("Diffuse disc bulge at L3-L4 and L4-L5, compressing the thecal sac. Muscle spasm")
        expected = SAGITTAL_MASK if record.plane == "sagittal" else AXIAL_MASK
        assert record.load_mask().size == record.load_image().size == expected.shape[::-1]
    name = f"{image_prefixes[0]}T2_0001_D4.png"
    (record,) = [record for record in records if record.source == f"LSMA-PQR/images_png/{name}"]
    np.testing.assert_array_equal(np.asarray(record.load_image()), pixels_of(AXIAL_MASK, 142))


def test_labels_at_the_affected_levels(lsma):
    spasm_alone = {**NORMAL, "PatientID": "3", "MuscleSpasm": "1", "Severity": "mild", "ClinicalNotes": "Muscle spasm."}
    unplaced = {**NOTE, "PatientID": "4", "AffectedLevels": "nan", "Herniation": "1", "Compression": "0"}
    read_from_text = {**NORMAL, "PatientID": "5", "Severity": "unknown", "ClinicalNotes": "Annular tear at L4/L5."}
    raw = lsma((NOTE, NORMAL, spasm_alone, unplaced, read_from_text), patients=[f"000{n}" for n in range(1, 6)])
    records, _ = read(raw)
    labels = {(record.patient_id[-1], record.level): record.labels for record in records}
    everything = ("LBP", "disc bulge", "compression")
    assert [labels["1", level] for level in ("L3/L4", "L4/L5", "L5/S1", "several")] == [
        everything,
        everything,
        ("LBP",),
        everything,
    ]
    assert {labels["2", level] for level in ("L3/L4", "several")} == {("No Finding",)}
    assert labels["3", "L4/L5"] == labels["3", "several"] == ("No Finding",)
    assert labels["4", "L4/L5"] == ("LBP",)
    assert labels["4", "several"] == ("LBP", "disc bulge", "disc herniation")
    assert labels["5", "L4/L5"] == labels["5", "several"] == ("LBP",)


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
            ("axial", [[[1, 1, 1]]], "no 8-bit grey or palette image"),
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
            Exclusion("LSMA-PQR/images_png/T1_0001_D3.png", "missing mask: masks_indexed holds none for 0001_D3_T1"),
            Exclusion(
                "LSMA-PQR/images_png/T1_0001_D4.png",
                "ambiguous mask: 2 files that differ claim to be 0001_D4_T1; keep one",
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


class TestGrades:
    @pytest.mark.parametrize(
        ("cells", "expected"),
        [
            ({}, ["2", "4", "3", "4"]),
            ({"D4": "5.0"}, ["2", "5", "3", "5"]),
            ({"D4": ""}, ["2", None, "3", None]),
            ({"D4": "NaN"}, ["2", None, "3", None]),
        ],
    )
    def test_grade_of_the_disc_or_the_worst(self, lsma, cells, expected):
        records, _ = read(lsma(grades=[{**GRADES, **cells}]))
        assert [record.grade for record in records if record.sequence == "T1"] == expected

    @pytest.mark.parametrize("grade", ["6", "0", "2.5", "-1", "٣", "two"])
    def test_a_wrong_grade_leaves_out_the_images_that_show_it(self, lsma, grade):
        records, exclusions = read(lsma(grades=[{**GRADES, "D4": grade}]))
        assert {record.level for record in records} == {"L3/L4", "L5/S1"} and len(records) == 4
        assert set(reasons(exclusions)) == {
            (f"PfirrmannGrade.csv row 1: unknown Pfirrmann grade {grade!r} at D4; allowed: 1 to 5, or blank", False)
        }

    def test_rows_without_a_patient_and_repeated_ones(self, lsma):
        other = {**GRADES, "PatientID": "x"}
        records, exclusions = read(lsma(grades=[GRADES, other]))
        assert len(records) == 8
        (exclusion,) = exclusions
        assert exclusion == Exclusion("PfirrmannGrade.csv row 2", "the patient ID must be a whole number, got 'x'")
        records, exclusions = read(lsma(grades=[GRADES, {**GRADES, "PatientID": "0001.0"}]))
        assert records == [] and len(exclusions) == 8
        assert "patient 0001 stands in 2 rows; keep one" in exclusions[0].reason

    def test_either_id_column(self, lsma):
        note = {"Patient_ID": NOTE["PatientID"], **{key: value for key, value in NOTE.items() if key != "PatientID"}}
        grades = {"Patient_ID": "0001", "D5": "1", "D4": "1", "D3": "1"}
        records, exclusions = read(lsma([note], [grades]))
        assert [record.grade for record in records] == ["1"] * 8 and exclusions == []


class TestNotes:
    def test_every_note_and_image_is_accounted_for(self, lsma, built):
        empty, nan = (
            {**NOTE, "PatientID": "3", "ClinicalNotes": " "},
            {**NOTE, "PatientID": "4", "ClinicalNotes": "NaN"},
        )
        alone = {**NOTE, "PatientID": "5"}
        raw = lsma([NOTE, NORMAL, empty, nan, alone], patients=["0001", "0002", "0003", "0006"])
        records, exclusions = read(raw)
        assert Counter(record.patient_id for record in records) == {"mendeley-0001": 8, "mendeley-0002": 8}
        assert reasons(exclusions) == {
            ("empty note", True): 8 + 2,
            ("no note of its patient", True): 8,
            ("note without an image", True): 1,
        }
        report = built(raw, source="lsma_pqr", split_fractions=[0.5, 0.5, 0.0])
        assert (report["rows_read"], report["rows_written"], report["num_masks"]) == (35, 16, 16)
        assert all(exclusion["by_rule"] for exclusion in report["exclusions"])

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"AffectedLevels": "D3;D9"}, "unknown AffectedLevels 'D9'; allowed: D1, D2, D3, D4, D5"),
            ({"DiscBulge": ""}, "DiscBulge must be 0 or 1, got ''"),
            ({"Stenosis": "2"}, "Stenosis must be 0 or 1, got '2'"),
            ({"Severity": "awful"}, "unknown Severity 'awful'; allowed: normal, mild, moderate, severe, unknown"),
        ],
    )
    def test_a_bad_row_leaves_out_its_images(self, lsma, change, reason):
        records, exclusions = read(lsma([{**NOTE, **change}, NORMAL], patients=["0001", "0002"]))
        assert len(records) == 8
        assert reasons(exclusions) == {(f"structured_notes.csv row 1: {reason}", False): 8, (reason, False): 1}

    @pytest.mark.parametrize("patient", ["", "nan", "0", "1.5", "٠٠٠١", "P1"])
    def test_a_row_of_an_unknown_patient(self, lsma, patient):
        _, exclusions = read(lsma([{**NOTE, "PatientID": patient}, NORMAL], grades=(), patients=["0002"]))
        reason = f"the patient ID must be a whole number, got {patient!r}"
        assert exclusions == [Exclusion("structured_notes.csv row 1, patient unknown", reason)]

    @pytest.mark.parametrize("levels", ["D3;D4", "d4 D3", "D3 , D4", "D1,D3,D4", "D4,D3,D4"])
    def test_spellings_of_levels(self, lsma, levels):
        records, _ = read(lsma([{**NOTE, "AffectedLevels": levels}]))
        with_bulge = {record.level for record in records if "disc bulge" in record.labels}
        assert with_bulge == {"L3/L4", "L4/L5", "several"}

    def test_text_composed_where_the_table_has_none(self, lsma):
        notes = [{key: value for key, value in note.items() if key != "ClinicalNotes"} for note in (NOTE, NORMAL)]
        raw = lsma(notes, patients=["0001", "0002"])
        assert "composed by a program" in lsma_pqr.describe(ReadOptions(raw=raw)).report_origin
        records, _ = read(raw)
        reports = {record.patient_id: record.report for record in records}
        assert reports == {
            "mendeley-0001": "Disc bulge at L3/L4 and L4/L5. Left nerve root compression at L3/L4 and L4/L5. "
            "No disc herniation. No spinal canal stenosis. Muscle spasm.",
            "mendeley-0002": "No disc bulge. No disc herniation. No spinal canal stenosis. No compression. "
            "No muscle spasm.",
        }

    def test_the_composed_text_is_read_as_the_columns(self):
        """The report reader finds each finding at each affected level, with its side, and denies the others."""
        kinds = {"disc bulge": "bulge", "disc herniation": "herniation", "spinal canal stenosis": "stenosis"}
        for present in itertools.product((True, False), repeat=3):
            for levels in ((), ("L4/L5",), ("L2/L3", "L3/L4", "L5/S1")):
                for side in ("left", "right", "bilateral"):
                    findings = [label for label, is_present in zip(kinds, present, strict=True) if is_present]
                    note = StructuredNote(where="", findings=(*findings, "compression"), levels=levels)
                    read_back = report_findings(compose_report(note, nerve_side=side))
                    at = set(levels or [None])
                    expected = {(kinds[label], level, None, False) for label in findings for level in at}
                    expected |= {("nerve root compression", level, side, False) for level in at}
                    expected |= {(kind, None, None, True) for label, kind in kinds.items() if label not in findings}
                    expected.add(("muscle spasm", None, None, True))
                    assert {(found.kind, found.level, found.side, found.negated) for found in read_back} == expected

    def test_origin_of_written_notes(self, lsma):
        assert lsma_pqr.describe(ReadOptions(raw=lsma())).report_origin.startswith("radiologist, with spelling")


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
            "2 files that differ claim to be 0001_D4_T1": 2,
        }

    def test_images_and_notes_are_needed(self, lsma, tmp_path):
        with pytest.raises(ValueError, match="--raw must be an existing folder with LSMA-PQR, got None"):
            lsma_pqr.describe(ReadOptions(raw=None))
        with pytest.raises(ValueError, match="holds no folder images_png"):
            lsma_pqr.describe(ReadOptions(raw=tmp_path))
        raw = lsma()
        (raw / "structured_notes.csv").rename(tmp_path / "elsewhere.csv")
        with pytest.raises(ValueError, match=r"must hold structured_notes\.csv or RadiologicalNotes\.csv.*got None"):
            lsma_pqr.describe(ReadOptions(raw=raw))
        with pytest.raises(ValueError, match=r"--notes name a \.csv file; got .*nowhere\.csv"):
            lsma_pqr.describe(ReadOptions(raw=raw, notes=tmp_path / "nowhere.csv"))
        assert len(read(raw, notes=tmp_path / "elsewhere.csv")[0]) == 8

    @pytest.mark.parametrize("key", ["notes", "grades"])
    def test_a_table_in_both_namings(self, lsma, key):
        raw = lsma()
        (raw / LONG_NAMES[key]).write_bytes((raw / SHORT_NAMES[key]).read_bytes())
        with pytest.raises(ValueError, match=f"holds both {SHORT_NAMES[key]} and {LONG_NAMES[key]}; keep one"):
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


def test_no_finding_is_not_claimed_beside_a_report_of_one(lsma):
    text = "Left foraminal narrowing with nerve root compression at L4/L5."
    records, exclusions = read(lsma([{**NORMAL, "ClinicalNotes": text}], patients=["0002"], grades=()))
    assert exclusions == [] and {record.labels for record in records} == {()}
