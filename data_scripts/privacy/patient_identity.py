"""Tell whose a DICOM file is if its header has a name but no patient ID."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from pydicom import Dataset
from pydicom.tag import Tag

from data_scripts.imaging.dicom_reading import open_dicom
from data_scripts.imaging.images import UnusableImageError
from data_scripts.records import is_missing

_TAGS = [Tag(keyword) for keyword in ("PatientID", "PatientName", "PatientBirthDate")]
_NAMES_OF_NO_ONE = ("anonymous", "anonymized", "anonymised", "anon", "noname", "no name", "deidentified", "patient")


class Patients:
    """The patient IDs of a folder by name and date of birth, for files of the same patient without an ID."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._ids: dict[str, set[tuple[str, str]]] = defaultdict(set)  # by name: IDs and dates of birth
        self._births: dict[str, set[str]] = defaultdict(set)  # by name: dates of birth
        for path in paths:
            try:
                with open_dicom(path, _TAGS) as file:
                    self._add(file.header)
            except UnusableImageError:
                continue  # it is left out with this reason when it is copied

    def _add(self, header: Dataset) -> None:
        patient_id, name, birth = _text(header, "PatientID"), name_of(header), _text(header, "PatientBirthDate")
        if birth:
            self._births[name].add(birth)
        if name and not is_missing(patient_id):
            self._ids[name].add((patient_id, birth))

    def identity_of(self, header: Dataset) -> tuple[str, bool]:
        """Return what identifies the patient, empty if nothing does, and whether only the name does.

        It is the ID; without one, the only ID that files of the same name have; else the name, so that the files of one
        name stay together. A date of birth that differs tells two people of one name apart.
        """
        patient_id, name = _text(header, "PatientID"), name_of(header)
        if not is_missing(patient_id):
            return patient_id, False
        birth = _text(header, "PatientBirthDate")
        ids = {known for known, born in self._ids.get(name, ()) if not birth or not born or birth == born}
        if len(ids) == 1:
            return ids.pop(), True
        has_namesakes = len(self._births.get(name, ())) > 1
        return f"{name} {birth}".strip() if name and has_namesakes else name, bool(name)


def name_of(header: Dataset) -> str:
    """Return the patient's name in one spelling; empty if it names no one.

    Example:
        >>> header = Dataset()
        >>> for name in ("Doe^Jane^^", "DOE^JANE", "Doe, Jane", "ANONYMOUS", "N/A"):
        ...     header.PatientName = name
        ...     print(repr(name_of(header)))
        'DOE^JANE'
        'DOE^JANE'
        'DOE^JANE'
        ''
        ''
    """
    text = unicodedata.normalize("NFKC", _text(header, "PatientName").partition("=")[0])
    parts = [" ".join(part.split()) for part in text.upper().replace(",", "^").split("^")]
    name = "^".join(parts).strip("^")
    return "" if is_missing(name) or name.casefold() in _NAMES_OF_NO_ONE else name


def _text(header: Dataset, keyword: str) -> str:
    return str(header.get(keyword) or "").strip()
