"""Find the files of the Mendeley lumbar set: PNG slices or raw series, and the notes."""

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

# Folders whose files may be named as slices, but show what a person or a program painted.
_LABELLER_FOLDER = re.compile(r"manual.?label|labell?er", re.IGNORECASE)
_LABEL_FOLDER = re.compile(r"label|composite|ground.?truth|mask", re.IGNORECASE)
_SLICE_FOLDER = re.compile(r"T[12]_Output", re.IGNORECASE)  # of the ground-truth archive
# `T1_0001_D9.png` claims to be a slice; `T1_0001_D3_label.png` and `C1_0001_D3.png` do not.
_CLAIMS_SLICE = re.compile(r"T[12]_[^_]*_[^_]*\.png", re.IGNORECASE)

_DICOM_SUFFIXES = (".ima", ".dcm")
_PATIENT_FOLDER = re.compile(r"[0-9]{4}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Series:
    """A series of the raw studies."""

    name: str  # of its folder
    patient: str  # four digits
    study: int  # of the patient, from 1 in the order of the folders
    files: Sequence[Path]  # sorted by name

    @property
    def source(self) -> str:
        """As in `Record`, without the study's folder, whose name holds the date of the examination."""
        return f"Mendeley/{self.patient}/study-{self.study}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a folder holds: slices or series."""

    raw: Path
    notes: Path  # the workbook
    slices: Mapping[SliceName, Sequence[Path]]  # the PNG files of each slice
    series: Sequence[Series]  # of the raw studies
    exclusions: Sequence[Exclusion]  # files that look like slices or series and are neither

    @property
    def patients(self) -> set[str]:
        """Patients with an image."""
        return {name.patient for name in self.slices} | {series.patient for series in self.series}


def find_layout(options: ReadOptions) -> Layout:
    """Find the form of the set in `options.raw`; raise a ValueError if it has neither or both, or no notes."""
    raw = options.raw_folder(EXPECTED)
    files = sorted(path for path in raw.rglob("*") if path.is_file() and not path.name.startswith("."))
    slices, no_slices = _find_slices([path for path in files if path.suffix.lower() == ".png"], raw)
    series, no_series = _find_series(files, raw)
    if bool(slices) == bool(series):
        raise ValueError(f"{raw} contains {'both forms' if slices else 'neither form'} of the set; expected {EXPECTED}")
    notes = options.notes or _find_notes(files, raw)
    exclusions = [*no_slices, *_find_other_forms(files, raw), *no_series]
    return Layout(raw=raw, notes=notes, slices=slices, series=series, exclusions=exclusions)


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
    """Drop files in folders of labels from those named as one slice."""
    extracted = [path for path in paths if _SLICE_FOLDER.fullmatch(path.parent.name)]
    return extracted or [path for path in paths if not _lies_in(_LABEL_FOLDER, path, raw)] or list(paths)


def _lies_in(pattern: re.Pattern[str], path: Path, raw: Path) -> bool:
    return any(pattern.search(folder) for folder in path.relative_to(raw).parts[:-1])


def _find_series(files: Sequence[Path], raw: Path) -> tuple[list[Series], list[Exclusion]]:
    """Group DICOM files into series; in a patient's folders, also those without a suffix."""
    files_of: dict[Path, list[Path]] = {}
    exclusions = []
    for path in files:
        folders = path.relative_to(raw).parts[:-1]
        is_placed = len(folders) >= 3 and _PATIENT_FOLDER.fullmatch(folders[-3])
        if is_placed and path.suffix.lower() in (*_DICOM_SUFFIXES, ""):
            files_of.setdefault(path.parent, []).append(path)
        elif path.suffix.lower() in _DICOM_SUFFIXES:
            reason = "outside a folder PATIENT/STUDY/SERIES, such as 0001/A/B"
            exclusions.append(Exclusion(source_of(raw, path), reason))
    studies = sorted({folder.parent for folder in files_of}, key=lambda study: (study.parent.name, study))
    by_patient = groupby(studies, lambda study: study.parent.name)
    number_of = {study: number for _, of_patient in by_patient for number, study in enumerate(of_patient, start=1)}
    series = [
        Series(name=folder.name, patient=folder.parent.parent.name, study=number_of[folder.parent], files=members)
        for folder, members in files_of.items()
    ]
    return series, exclusions
