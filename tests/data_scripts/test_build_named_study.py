"""A DICOM study that names its patients everywhere: none of it is in what is built, said or listed."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydicom import Dataset

from tests.conftest import PROJECT
from tests.data_scripts.imaging.dicom_files import make_dicom

SECRETS = (
    *("Zqxsalem", "Vwahmad", "Kjhaddad", "Xykhospital", "Qzdoctor", "9988776", "19610402", "1961-04-02", "02.04.1961"),
    *("12MAR2019", "14/03/2019", "20190312", "7.7.19610402", "0795551234", "zqx@klinik.example"),
)
REPORT = (
    "Patient: Zqxsalem, Vwahmad. MRN: 9988776, born *02.04.1961. Reported by Dr. Qzdoctor at Xykhospital Hospital, tel "
    "0795551234, zqx@klinik.example. Compared with MRI 12MAR2019-14/03/2019: mild bulge at L4/L5, 3*2 mm."
)
KEPT = "mild bulge at L4/L5, 3*2 mm"


def named_dicom(path: Path, number: int) -> None:
    """Write a slice whose header, private elements and sequences name people, places and days."""
    item = Dataset()
    item.RequestedProcedureDescription, item.RequestingPhysician = "MRI for Zqxsalem", "Qzdoctor"
    item.ReferencedSOPInstanceUID, item.ScheduledProcedureStepStartDate = "1.2.7.7.19610402", "20190312"
    inner = Dataset()
    inner.PatientComments, inner.RequestAttributesSequence = "called Kjhaddad, 0795551234", [item]
    private = Dataset()
    block = private.private_block(0x0011, "Xykhospital", create=True)
    block.add_new(0x01, "LO", "Zqxsalem Vwahmad 9988776")
    make_dicom(
        path,
        (np.add.outer(np.arange(64), np.arange(64)) * 30 + number).astype(np.uint16),
        patient_id="9988776",
        series_description="T2 TSE TRA Zqxsalem",
        PatientName="Zqxsalem^Vwahmad",
        PatientBirthDate="19610402",
        StudyDate="20190312",
        InstitutionName="Xykhospital",
        ReferringPhysicianName="Qzdoctor",
        StudyDescription="Kjhaddad 9988776",
        StudyInstanceUID="1.2.7.7.19610402",
        ImageComments="Zqxsalem",
        RequestAttributesSequence=[item, inner],
        ReferencedImageSequence=[private],
    )


def write_table(raw: Path, rows: list[dict[str, str]]) -> None:
    with (raw / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["file_name", "report", "rephrasings", "patient_id", "labels"])
        writer.writeheader()
        writer.writerows(rows)


def row(name: str, patient: str) -> dict[str, str]:
    rephrasing = "Dra. Kjhaddad, 12MAR2019: bulge at L4/L5.|Bulge (Zqxsalem@klinik.example)."
    return {"file_name": name, "report": REPORT, "rephrasings": rephrasing, "patient_id": patient, "labels": "LBP"}


def run(*args: object) -> str:
    command = [sys.executable, "-m", *map(str, args)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def secrets_in(content: bytes) -> list[str]:
    lowered = content.lower()
    return [
        secret
        for secret in SECRETS
        for code in ("utf-8", "utf-16-le", "utf-16-be")
        if secret.lower().encode(code) in lowered
    ]


def assert_names_no_one(folder: Path, log: str) -> None:
    """Search the bytes of each file, of each value of the compressed shards, and of what was said."""
    assert secrets_in(log.encode()) == []
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"README.md", "build_report.json"} < {path.name for path in files}
    for path in files:
        assert secrets_in(str(path.relative_to(folder)).encode() + path.read_bytes()) == [], path
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            assert secrets_in(repr(table.to_pylist()).encode() + repr(table.schema).encode()) == []
            for value in table.column("image").to_pylist():
                assert secrets_in(value["bytes"]) == []
            assert all(KEPT in report for report in table.column("report").to_pylist())


@pytest.mark.slow
def test_nothing_of_a_named_study_is_built_said_or_listed(tmp_path):
    raw, out = tmp_path / "Zqxsalem_19610402", tmp_path / "out"
    names = [f"Zqxsalem_Vwahmad/20190312_{number}_9988776.dcm" for number in range(20)]
    for number, name in enumerate(names):
        named_dicom(raw / name, number)
    (raw / names[3]).write_bytes((raw / names[3]).read_bytes()[:-3000])  # a row left out once its pixels are read
    rows = [row(name, f"9988776-{number}") for number, name in enumerate(names)]
    rows += [row("Kjhaddad 02.04.1961.dcm", "x"), {**row(names[0], "Zqxsalem, Vwahmad")}]  # missing; used twice
    write_table(raw, rows)
    log = run("data_scripts.build", "--source", "folder", "--raw", raw, "--out", out, "--max_bad", "0.5")
    assert_names_no_one(out, log)

    report = json.loads((out / "build_report.json").read_text())
    listed = json.loads((tmp_path / "out.rows.json").read_text())
    assert report["rows_written"] == 19 and len(report["exclusions"]) == 3 and report["deidentification"]["passed"]
    own_names = [listed["rows"][exclusion["source"]] for exclusion in report["exclusions"]]
    assert own_names == [exclusion["source"] for exclusion in listed["exclusions"]]
    assert own_names[0] == "metadata.csv row 4" and "Kjhaddad" in str(listed["exclusions"])
    assert (tmp_path / "out.rows.json").stat().st_mode & 0o777 == 0o600 and "out.rows.json" in log


@pytest.mark.slow
def test_nothing_of_a_deidentified_study_names_its_patients(tmp_path):
    raw, copies, out = tmp_path / "Zqxsalem", tmp_path / "copies", tmp_path / "out"
    for number in range(20):
        named_dicom(raw / f"Vwahmad_{number}/Zqxsalem_20190312.dcm", number)
    (raw / "Kjhaddad.txt").write_text("not DICOM")
    log = run("data_scripts.deidentify", "--raw", raw, "--out", copies)
    paths = sorted(path for path in copies.rglob("*") if path.is_file())
    assert len(paths) == 20
    for path in paths:
        assert secrets_in(str(path.relative_to(copies)).encode() + path.read_bytes()) == []
    write_table(copies, [row(str(path.relative_to(copies)), f"p{number}") for number, path in enumerate(paths)])
    log += run("data_scripts.build", "--source", "folder", "--raw", copies, "--out", out)
    assert_names_no_one(out, log)
