"""BIDS datasets made on the fly."""

import csv
import json
import re

import nibabel
import numpy as np
import pytest

from data_scripts.records import Exclusion, ReadOptions, Record
from data_scripts.sources import bids
from tests.data_scripts.imaging.volume_files import spine, write_nifti

ANATOMY = spine()
REPORT = "Disc bulge at L4/L5."


@pytest.fixture
def image(tmp_path):
    """Write a volume under its BIDS name: `image("sub-01/ses-1/anat", "T2w")`."""

    def write(folder="sub-01/anat", suffix="T2w", name=None, anatomy=ANATOMY, axes="RAS"):
        path = tmp_path / "set" / folder
        path.mkdir(parents=True, exist_ok=True)
        entities = "_".join(part for part in folder.split("/") if part.startswith(("sub-", "ses-")))
        return write_nifti(path / (name or f"{entities}_{suffix}.nii.gz"), anatomy, axes)

    return write


@pytest.fixture
def table(tmp_path):
    def write(name, *rows):
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0]], restval="n/a", delimiter="\t")
            writer.writeheader()
            writer.writerows(rows)

    return write


@pytest.fixture
def read(tmp_path):
    def run(**options):
        items = list(bids.read(ReadOptions(raw=tmp_path / "set", **options)))
        return [item for item in items if isinstance(item, Record)], [i for i in items if isinstance(i, Exclusion)]

    return run


def row(participant, session=None, report=REPORT):
    return {"participant_id": participant, **({"session_id": session} if session else {}), "report": report}


def test_slices_of_sessions_become_rows(image, table, read):
    for session in ("ses-1", "ses-2"):
        image(f"sub-01/{session}/anat")
    image("sub-01/ses-1/anat", "T1w", axes="PIL")
    table("phenotype/reports.tsv", row("sub-01", "ses-1"), row("01", "2", "No disc herniation."))
    records, left_out = read()
    assert not left_out and len(records) == 15
    first, last = records[0], records[-1]
    assert (first.patient_id, first.study_id, first.report) == ("sub-01", "sub-01_ses-1", REPORT)
    assert (first.sequence, first.plane, first.slice_index, first.labels) == ("T1", "sagittal", 0, None)
    assert first.pixel_spacing_mm == pytest.approx(0.7) and first.slice_spacing_mm == pytest.approx(4.4)
    assert first.series_id == "set/sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz"
    assert first.source == f"{first.series_id} slice 0"
    assert (last.study_id, last.report, last.sequence) == ("sub-01_ses-2", "No disc herniation.", "T2")
    same = [np.asarray(record.load_image()) for record in records if record.slice_index == 2]
    assert np.array_equal(same[0], same[1]) and np.array_equal(same[0], same[2])
    assert len({record.series_id for record in records}) == 3
    assert [record.slice_index for record in read(slices="middle")[0]] == [2, 2, 2]


@pytest.mark.parametrize("name", bids.REPORT_TABLES)
def test_without_sessions_a_table_has_a_row_a_participant(image, table, read, name):
    image("sub-01/anat")
    image("sub-02/anat")
    table(name, row("sub-01"), row("sub-02", report="n/a"))
    records, (bad,) = read()
    assert {(record.patient_id, record.study_id) for record in records} == {("sub-01", "sub-01")}
    assert bad.source == "set/sub-02/anat/sub-02_T2w.nii.gz" and not bad.by_rule
    assert bad.reason.startswith("no report of sub-02; write it into phenotype/reports.tsv")


def test_the_sidecar_goes_first_and_participants_last(image, table, read):
    path = image("sub-01/anat")
    table("participants.tsv", row("sub-01", report="From participants."))
    assert read()[0][0].report == "From participants."
    table("phenotype/reports.tsv", row("sub-01", report="From the table."))
    assert read()[0][0].report == "From the table."
    sidecar = path.with_name("sub-01_T2w.json")
    sidecar.write_text(json.dumps({"EchoTime": 0.1, "Report": " From the sidecar. "}))
    assert read()[0][0].report == "From the sidecar."
    sidecar.write_text("{")
    assert "sub-01_T2w.json cannot be read" in read()[1][0].reason


def test_a_report_of_one_session_is_given_to_no_other(image, table, read):
    image("sub-01/ses-1/anat")
    table("participants.tsv", row("sub-01"))
    assert len(read()[0]) == 5  # the only session
    image("sub-01/ses-2/anat")
    records, left_out = read()
    assert not records and len(left_out) == 2
    assert "participants.tsv row 1 names no session_id, but sub-01 has 2 sessions" in left_out[0].reason
    table("phenotype/reports.tsv", row("sub-01", "ses-2"))
    table("participants.tsv", {"participant_id": "sub-01", "age": "40"})
    records, (bad,) = read()
    assert {record.study_id for record in records} == {"sub-01_ses-2"} and "no report of sub-01 in ses-1" in bad.reason


def test_a_repeated_report_is_not_chosen(image, table, read):
    image("sub-01/anat")
    table("phenotype/reports.tsv", row("sub-01"), row("01", report="Another."))
    assert "row 2 repeats its participant and session" in read()[1][0].reason


def test_reports_without_images_are_listed(image, table, read):
    image("sub-01/anat")
    table("phenotype/reports.tsv", row("sub-01", "n/a"), row("sub-09", "n/a"), row("sub-01", "ses-2"))
    assert read()[1] == [
        Exclusion("reports.tsv row 2", "report of a participant without an anatomical image", by_rule=True),
        Exclusion("reports.tsv row 3", "report of a session without an anatomical image", by_rule=True),
    ]


def test_a_row_that_a_spreadsheet_destroyed_stops_no_other(image, table, read):
    image("sub-01/anat")
    table("phenotype/reports.tsv", row("sub-01"), row("####"), row("sub-09", report="#NAME?"))
    records, left_out = read()
    assert len(records) == 5 and [bad.source for bad in left_out] == ["reports.tsv row 2", "reports.tsv row 3"]
    assert all("spreadsheet" in bad.reason and not bad.by_rule for bad in left_out)


@pytest.mark.parametrize(
    ("folder", "name", "reason", "by_rule"),
    [
        ("sub-01/dwi", "sub-01_dwi.nii.gz", "not anatomical: in the folder 'dwi'", True),
        ("sub-01/anat", "sub-01_label-disc_dseg.nii.gz", "not an image: dseg", True),
        ("sub-01/anat", "sub-02_T1w.nii.gz", "lies in sub-01, but its name says sub-02", False),
    ],
)
def test_other_files_are_listed(image, table, read, folder, name, reason, by_rule):
    image("sub-01/anat")
    image(folder, name=name)
    table("participants.tsv", row("sub-01"))
    records, (bad,) = read()
    assert len(records) == 5 and reason in bad.reason and bad.by_rule == by_rule


def test_volumes_that_cannot_be_read_are_listed(image, table, read, tmp_path):
    path = image("sub-01/anat")
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 4, 5, 6), np.int16), np.eye(4)), path)
    image("sub-02/anat").write_bytes(b"")
    (tmp_path / "set/sub-03/anat").mkdir(parents=True)
    (tmp_path / "set/sub-03/anat/sub-03_T2w.nii.gz").symlink_to("../.git/annex/objects/none")
    outside = image("sub-04/anat").rename(tmp_path / "outside.nii.gz")
    (tmp_path / "set/sub-04/anat/sub-04_T2w.nii.gz").symlink_to(outside)
    table("participants.tsv", *(row(f"sub-0{number}") for number in range(1, 5)))
    records, left_out = read()
    assert not records
    for bad, reason in zip(
        left_out, ("of 6 volumes", "damaged|too short", "link to nothing; fetch", "link out"), strict=True
    ):
        assert re.search(reason, bad.reason), bad.reason


@pytest.mark.parametrize(
    ("suffix", "sequence"),
    [("T1w", "T1"), ("T2w", "T2"), ("PDw", "PD"), ("STIR", "STIR"), ("acq-sagSTIR_T2w", "STIR"), ("FLAIR", "other"),
     ("acq-space_T2w", "T2_SPACE"), ("T2starw", "other"), ("acq-ax_T2w", "T2"), ("acq-T12_T1w", "T1"),
     ("MRI", "unknown")],
)  # fmt: skip
def test_the_suffix_names_the_sequence(image, table, read, suffix, sequence):
    image("sub-01/anat", suffix)
    table("participants.tsv", row("sub-01"))
    assert {record.sequence for record in read()[0]} == {sequence}


def test_a_folder_without_participants_is_refused(tmp_path):
    (tmp_path / "sub-01").mkdir()
    for raw in (tmp_path, tmp_path / "none"):
        with pytest.raises(ValueError, match=r"holds no BIDS dataset: .* use --source folder|names no folder"):
            bids.describe(ReadOptions(raw=raw))


def test_end_to_end(image, table, built, tmp_path):
    for number in range(1, 7):
        image(f"sub-{number:02}/anat")
    table("phenotype/reports.tsv", *(row(f"sub-{number:02}") for number in range(1, 7)))
    report = built(tmp_path / "set", source="bids", slices="3", keep_ids=False, labels_from_reports=True)
    assert report["rows_written"] == 18 and report["deidentification"]["ids"] == "pseudonyms"
    assert report["orientation_not_stated"] == []
    assert {name for split in report["splits"].values() for name in split["labels"]} == {"LBP", "disc bulge"}
