"""Find the report of each row: its own, that of its study in another row, or in a second table of reports."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from data_scripts.records import Exclusion, is_missing
from data_scripts.sources.folder.ids import read_id
from data_scripts.sources.tables import Row, columns_of, read_table

REPORT_COLUMNS = ("study_id", "report")
OPTIONAL_REPORT_COLUMNS = ("patient_id",)

_Study = tuple[str, str]  # patient and study


class StudyReports:
    """The reports of the studies of a table, for rows that have none of their own.

    `own` are the rows of images. Only a stated `study_id` makes rows of one study: two images of a patient may be of
    two examinations.
    """

    def __init__(self, own: Sequence[Row], table: Path | None) -> None:
        self.table = table
        self.of_own: dict[_Study, set[str]] = defaultdict(set)
        self.patients_of: dict[str, set[str]] = defaultdict(set)
        for row in own:
            study = _study_of(row)
            if study is not None:
                self.patients_of[study[1]].add(study[0])
                self.of_own[study] |= {text} - {""} if (text := _text_or_empty(row)) else set()
        self.of_table: dict[str, list[tuple[str, str]]] = defaultdict(list)  # by study: patient (may be empty), report
        self.problems: list[Exclusion] = []
        for row in _read_reports(table) if table else []:
            self._add(row)

    def _add(self, row: Row) -> None:
        try:
            if row.problem:
                raise ValueError(row.problem)
            study, patient, text = _id(row, "study_id"), _id(row, "patient_id"), row.text("report")
        except ValueError as error:
            self.problems.append(Exclusion(row.where, str(error)))
            return
        patient = "" if is_missing(patient) else patient
        if is_missing(study) or not text:
            self.problems.append(Exclusion(row.where, "no study_id" if is_missing(study) else "empty report"))
        elif not self.patients_of.get(study) or (patient and patient not in self.patients_of[study]):
            self.problems.append(Exclusion(row.where, "report of a study without an image", by_rule=True))
        elif (theirs := self._own_reports(study, patient)) and text not in theirs:
            self.problems.append(Exclusion(row.where, "the study has another report in its own row", by_rule=True))
        else:
            self.of_table[study].append((patient, text))

    def _own_reports(self, study: str, patient: str) -> set[str]:
        patients = {patient} if patient else self.patients_of[study]
        return {text for one in patients for text in self.of_own[one, study]}

    def of(self, row: Row) -> str:
        """Return the report of a row; raise a ValueError if none or several may be meant."""
        if text := row.text("report"):
            return text
        said = row.written("report")
        empty = f"empty report: {said!r}" if said else "empty report"
        study = _study_of(row)
        if study is None:
            raise ValueError(f"{empty}; to use that of another row, give both rows the same study_id")
        patient, name = study
        stated = [(of, text) for of, text in self.of_table.get(name, ()) if of in ("", patient)]
        if any(not of for of, _ in stated) and len(self.patients_of[name]) > 1:
            raise ValueError(f"{empty}; study {name!r} has several patients: add patient_id to the table of reports")
        found = self.of_own[study] or {text for _, text in stated}
        if len(found) > 1:
            raise ValueError(f"{empty}, and study {name!r} has {len(found)} different ones; give each row its own")
        if not found:
            place = f" or in {self.table.name}" if self.table else ""
            raise ValueError(f"{empty}, and study {name!r} has none in another row{place}")
        return next(iter(found))


def _read_reports(path: Path) -> list[Row]:
    rows = read_table(path, REPORT_COLUMNS)
    if unknown := [name for name in columns_of(rows) if name not in (*REPORT_COLUMNS, *OPTIONAL_REPORT_COLUMNS)]:
        raise ValueError(
            f"{path} has the unknown columns {', '.join(map(repr, unknown))}; it may have "
            f"{', '.join((*REPORT_COLUMNS, *OPTIONAL_REPORT_COLUMNS))}"
        )
    return rows


def _study_of(row: Row) -> _Study | None:
    """Return patient and study of a row; None if it states no study, or cannot be used."""
    try:
        ids = _id(row, "patient_id"), _id(row, "study_id")
    except ValueError:
        return None
    return None if row.problem or any(map(is_missing, ids)) else ids


def _id(row: Row, column: str) -> str:
    """Read an id; a table of pandas may have 12.0 where the other has 12."""
    return re.sub(r"^([0-9]+)\.0+$", r"\1", read_id(row, column))


def _text_or_empty(row: Row) -> str:
    try:
        return row.text("report")
    except ValueError:
        return ""
