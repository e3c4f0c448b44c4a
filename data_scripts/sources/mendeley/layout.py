"""Find the files of the Mendeley lumbar set: slices as PNG files or raw series, and the notes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from data_scripts.records import Exclusion, ReadOptions
from data_scripts.sources.slice_names import NOT_PNG, OTHER_IMAGE_SUFFIXES, SliceName, group_by_name, parse_slice_name

NOTES_NAME = "Radiologists Report.xlsx"
EXPECTED = f"label images (T1_0001_D3.png, ...) or raw studies (0001/STUDY/SERIES/NAME.ima), and {NOTES_NAME}"
LABEL_IMAGE = "label image, not a slice"

# Folders whose files may have the names of slices, but show what a person or a program painted.
_LABELLER_FOLDER = re.compile(r"manual.?label|labell?er", re.IGNORECASE)
_LABEL_FOLDER = re.compile(r"label|composite|ground.?truth|mask", re.IGNORECASE)
_SLICE_FOLDER = re.compile(r"T[12]_Output", re.IGNORECASE)  # of the ground-truth archive
# `T1_0001_D9.png` claims to be a slice; `T1_0001_D3_label.png` and `C1_0001_D3.png` do not.
_CLAIMS_SLICE = re.compile(r"T[12]_[^_]*_[^_]*\.png", re.IGNORECASE)

_DICOM_SUFFIXES = (".ima", ".dcm")
_PATIENT_FOLDER = re.compile(r"[0-9]{4}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Series:
    """A series of the raw studies.

    Args:
        name: That of its folder.
        patient: Four digits.
        study: Which of the patient's studies, counted from 1 in the order of their folders.
        files: Its files, sorted by name.
    """

    name: str
    patient: str
    study: int
    files: Sequence[Path]

    @property
    def source(self) -> str:
        """As in `Record`. The folder of the study is left out of it: its name holds the date of the examination."""
        return f"Mendeley/{self.patient}/study-{self.study}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a folder holds.

    Args:
        raw: The folder.
        notes: The workbook of notes.
        slices: The PNG files of each slice; empty where the folder holds raw studies.
        series: The series of the raw studies; empty where it holds slices.
        exclusions: Files that look like either and are neither.
    """

    raw: Path
    notes: Path
    slices: Mapping[SliceName, Sequence[Path]]
    series: Sequence[Series]
    exclusions: Sequence[Exclusion]

    @property
    def patients(self) -> set[str]:
        """Patients with an image."""
        return {name.patient for name in self.slices} | {series.patient for series in self.series}


def find_layout(options: ReadOptions) -> Layout:
    """Find the form of the set in `options.raw`.

    Raises:
        ValueError: If the folder holds neither form, or both, or the notes are not to be found.
    """
    raw = options.raw
    if raw is None or not raw.is_dir():
        raise ValueError(f"--raw must be an existing folder with {EXPECTED}; got {raw}")
    files = sorted(path for path in raw.rglob("*") if path.is_file() and not path.name.startswith("."))
    slices, no_slices = _find_slices([path for path in files if path.suffix.lower() == ".png"], raw)
    series, no_series = _find_series(files, raw)
    if bool(slices) == bool(series):
        raise ValueError(f"{raw} contains {'both forms' if slices else 'neither form'} of the set; expected {EXPECTED}")
    notes = options.notes or _find_notes(files, raw)
    return Layout(
        raw=raw,
        notes=notes,
        slices=slices,
        series=series,
        exclusions=[*no_slices, *_find_other_forms(files, raw), *no_series],
    )


def source_of(raw: Path, path: Path) -> str:
    """The `source` of a file, as in `Record`."""
    return f"Mendeley/{path.relative_to(raw).as_posix()}"


def _find_notes(files: Sequence[Path], raw: Path) -> Path:
    workbooks = [path for path in files if path.suffix.lower() == ".xlsx" and not path.name.startswith("~$")]
    named = [path for path in workbooks if path.name.casefold() == NOTES_NAME.casefold()] or workbooks
    if len(named) != 1:
        found = ", ".join(path.relative_to(raw).as_posix() for path in named[:10]) or "none"
        raise ValueError(f"{raw} must contain one workbook of notes, {NOTES_NAME} (or set --notes); found: {found}")
    return named[0]


def _find_slices(images: Sequence[Path], raw: Path) -> tuple[dict[SliceName, list[Path]], list[Exclusion]]:
    """Sort PNG files into slices, by name, and exclusions."""
    painted = [path for path in images if _lies_in(_LABELLER_FOLDER, path, raw)]
    named_of, others = group_by_name(path for path in images if not _lies_in(_LABELLER_FOLDER, path, raw))
    slices = {name: _without_labels(paths, raw) for name, paths in named_of.items()}
    painted += [path for name, paths in named_of.items() for path in paths if path not in slices[name]]
    painted += [path for path in others if not _CLAIMS_SLICE.fullmatch(path.name)]
    expected = "expected T1 or T2, four digits and D3, D4 or D5, as T1_0001_D3.png"
    misnamed = [path for path in others if _CLAIMS_SLICE.fullmatch(path.name)]
    return slices, [
        *(Exclusion(source_of(raw, path), f"unknown slice name; {expected}") for path in misnamed),
        *(Exclusion(source_of(raw, path), LABEL_IMAGE, by_rule=True) for path in sorted(painted)),
    ]


def _find_other_forms(files: Sequence[Path], raw: Path) -> list[Exclusion]:
    """List images that are named as slices but are not PNG files."""
    return [
        Exclusion(source_of(raw, path), LABEL_IMAGE, by_rule=True)
        if _lies_in(_LABEL_FOLDER, path, raw) or _lies_in(_LABELLER_FOLDER, path, raw)
        else Exclusion(source_of(raw, path), NOT_PNG)
        for path in files
        if path.suffix.lower() in OTHER_IMAGE_SUFFIXES and parse_slice_name(path.with_suffix(".png").name)
    ]


def _without_labels(paths: Sequence[Path], raw: Path) -> list[Path]:
    """Drop files in folders of labels, of files that all have the name of one slice."""
    extracted = [path for path in paths if _SLICE_FOLDER.fullmatch(path.parent.name)]
    return extracted or [path for path in paths if not _lies_in(_LABEL_FOLDER, path, raw)] or list(paths)


def _lies_in(pattern: re.Pattern[str], path: Path, raw: Path) -> bool:
    return any(pattern.search(folder) for folder in path.relative_to(raw).parts[:-1])


def _find_series(files: Sequence[Path], raw: Path) -> tuple[list[Series], list[Exclusion]]:
    """Group DICOM files into series; in the folders of a patient, files without a suffix count, too."""
    files_of: dict[Path, list[Path]] = {}
    exclusions = []
    for path in files:
        folders = path.relative_to(raw).parts[:-1]
        is_placed = len(folders) >= 3 and _PATIENT_FOLDER.fullmatch(folders[-3])
        if is_placed and path.suffix.lower() in (*_DICOM_SUFFIXES, ""):
            files_of.setdefault(path.parent, []).append(path)
        elif path.suffix.lower() in _DICOM_SUFFIXES:
            exclusions.append(
                Exclusion(source_of(raw, path), "outside a folder PATIENT/STUDY/SERIES, such as 0001/A/B")
            )
    number_of = _number_studies({folder.parent for folder in files_of})
    series = [
        Series(name=folder.name, patient=folder.parent.parent.name, study=number_of[folder.parent], files=members)
        for folder, members in files_of.items()
    ]
    return series, exclusions


def _number_studies(studies: set[Path]) -> dict[Path, int]:
    """Count the studies of each patient, in order of their names."""
    by_patient = groupby(sorted(studies, key=lambda study: (study.parent.name, study)), lambda study: study.parent.name)
    return {study: number for _, of_patient in by_patient for number, study in enumerate(of_patient, start=1)}
