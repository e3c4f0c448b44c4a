from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from data_scripts.deidentify import deidentify_folder
from data_scripts.privacy.patient_identity import Patients, name_of
from data_scripts.privacy.pseudonyms import Pseudonyms
from tests.data_scripts.imaging.dicom_files import make_dicom

PIXELS = (np.add.outer(np.arange(64), np.arange(64)) * 30).astype(np.uint16)


def pseudonyms_of(tmp_path, *headers):
    """De-identify a file for each header, in a folder of its own; return the new patients, and the folders' names."""
    raw = tmp_path / "raw"
    for number, (patient_id, name, birth) in enumerate(headers):
        make_dicom(
            raw / f"{number}" / "slice",
            PIXELS + number,
            patient_id=patient_id,
            PatientName=name,
            PatientBirthDate=birth,
            InstanceNumber=number + 1,
        )
    out = tmp_path / "out"
    outcomes = deidentify_folder(raw, out, Pseudonyms(bytes(32)))
    assert set(outcomes.values()) == {"written"}
    copies = {dcmread(path).InstanceNumber: path for path in out.rglob("*.dcm")}
    ordered = [copies[number + 1] for number in range(len(headers))]
    return [str(dcmread(path).PatientID) for path in ordered], [path.relative_to(out).parts[0] for path in ordered]


ID = Pseudonyms(bytes(32)).of("17")


@pytest.mark.parametrize("no_id", ["", "UNKNOWN", "N/A", "-"])
@pytest.mark.parametrize("name", ["Doe^Jane", "DOE^JANE", "Doe^Jane^^^", "doe, jane"])
def test_a_file_without_an_id_is_of_the_patient_of_its_name(tmp_path, caplog, name, no_id):
    ids, folders = pseudonyms_of(tmp_path, ("17", "Doe^Jane", "19610402"), (no_id, name, ""))
    assert ids == folders == [ID, ID]
    assert "1 files have no PatientID; those of one PatientName were taken for one patient" in caplog.text
    assert "1/slice" not in caplog.text  # a path may name the patient


def test_files_of_one_name_stay_together_without_any_id(tmp_path):
    (first, second, other), _ = pseudonyms_of(tmp_path, ("", "Doe^Jane", ""), ("", "DOE^JANE", ""), ("", "Roe^Ann", ""))
    assert first == second != other


def test_a_name_of_two_patients_decides_nothing(tmp_path):
    ids, _ = pseudonyms_of(tmp_path, ("17", "Doe^Jane", "1961"), ("18", "Doe^Jane", "1975"), ("", "Doe^Jane", ""))
    assert len(set(ids)) == 3


def test_the_date_of_birth_tells_two_people_of_one_name_apart(tmp_path):
    first, second = ("17", "Doe^Jane", "19610402"), ("18", "Doe^Jane", "19750101")
    ids, _ = pseudonyms_of(tmp_path, first, second, ("", "Doe^Jane", "19750101"), ("", "Doe^Jane", "19991231"))
    assert ids[2] == ids[1] and len(set(ids)) == 3


def test_two_dates_of_birth_without_any_id(tmp_path):
    first, second, other = ("", "Doe^Jane", "1961"), ("", "Doe^Jane", "1961"), ("", "Doe^Jane", "1975")
    ids, _ = pseudonyms_of(tmp_path, first, second, other)
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize("name", ["", "ANONYMOUS", "Anonymized", "UNKNOWN", "N/A", "^^"])
def test_without_id_and_name_each_folder_is_its_own(tmp_path, caplog, name):
    ids, folders = pseudonyms_of(tmp_path, ("", name, ""), ("", name, ""), ("17", name, ""))
    assert ids == ["", "", ID] and len(set(folders)) == 3 and not caplog.messages


def test_unreadable_files_say_nothing(tmp_path):
    (tmp_path / "broken").write_bytes(bytes(128) + b"DICM" + b"\xff" * 40)
    assert Patients([tmp_path / "broken", Path("nowhere")]).identity_of(Dataset()) == ("", False)


def test_a_name_in_several_scripts():
    header = Dataset()
    header.SpecificCharacterSet = "ISO_IR 192"
    header.PatientName = "Yamada^Tarou=山田^太郎"
    assert name_of(header) == "YAMADA^TAROU"
