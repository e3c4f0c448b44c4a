import itertools
from collections import Counter

import pytest

from data_scripts.records import Exclusion, ReadOptions
from data_scripts.reports.text import report_findings
from data_scripts.sources.lsma_pqr import source as lsma_pqr
from data_scripts.sources.lsma_pqr.tables import StructuredNote, compose_report
from tests.data_scripts.sources.lsma_pqr.lsma_folder import GRADES, NORMAL, NOTE, read, reasons


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
        assert "patient 0001 has 2 rows; keep one" in exclusions[0].reason

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
            ("the patient has no note", True): 8,
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


def test_no_finding_is_not_claimed_beside_a_report_of_one(lsma):
    text = "Left foraminal narrowing with nerve root compression at L4/L5."
    records, exclusions = read(lsma([{**NORMAL, "ClinicalNotes": text}], patients=["0002"], grades=()))
    assert exclusions == [] and {record.labels for record in records} == {None}
