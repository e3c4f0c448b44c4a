"""The lumbar MRI set of Sudirman et al. on Mendeley Data, with its radiologists' notes, in one of two forms.

- Label images (zbf6b4pttk): one axial slice through each of the last three discs, `T1_0001_D3.png` (`D3` = L3/L4,
  `D4` = L4/L5, `D5` = L5/S1), in any sub-folder: the 3,090 images of the LumbarCLIP paper. Composites and
  ground-truth labels next to them are excluded by rule.
- Raw studies (k57fr854j2): `0001/STUDY/SERIES/NAME.ima`, DICOM, where 0001 is the patient. Every slice of the axial
  (`T2_TSE_TRA_384_0005`) and sagittal (`T1_TSE_SAG_320_0003`) T1 and T2 series is a record. Other series (localizers,
  position displays) are left out by rule, with one exclusion per series.

The notes (s6bgczr8s2) are `Radiologists Report.xlsx` in the same folder, or given by `--notes`. A slice has the whole
note of its patient, as in the paper; its labels are those of the note at the level of the slice.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby, islice
from pathlib import Path

from data_scripts.imaging.dicom import SliceHeader, read_all_headers, read_slice
from data_scripts.imaging.images import UnusableImageError, read_image
from data_scripts.records import Exclusion, ReadOptions, Record, SourceAbout, SourceInfo, paper_labels
from data_scripts.reports.text import REPORT_LABELS, labels_at_level, labels_from_report, normalise_report
from data_scripts.sources.notes import Note, notes_left_over, read_notes, report_or_exclusion
from data_scripts.sources.slice_names import (
    NOT_PNG,
    OTHER_IMAGE_SUFFIXES,
    SliceName,
    group_by_name,
    one_file_each,
    parse_slice_name,
)

ABOUT = SourceAbout(
    name="mendeley",
    summary=(
        "Lumbar MRI of 515 patients with radiologists' notes: 3,090 axial slices, T1 and T2, through the last three "
        "discs (the LumbarCLIP paper's data), or the raw studies."
    ),
    license="cc-by-4.0",
    citation=(
        "Sudirman et al., Lumbar Spine MRI Dataset, Mendeley Data k57fr854j2 v2 (2019), with Label Image "
        "Ground Truth Data for Lumbar Spine MRI Dataset, zbf6b4pttk v2, and Radiologists Notes for Lumbar Spine MRI "
        "Dataset, s6bgczr8s2 v2."
    ),
    size="about 1 GB (label images) or 6 GB (raw studies), and 38 KB (notes)",
    where=(
        "https://data.mendeley.com/datasets/zbf6b4pttk (T1_0001_D3.png, ...) or .../k57fr854j2 (01_MRI_Data/); notes: "
        ".../s6bgczr8s2 (Radiologists Report.xlsx)"
    ),
    reads_notes=True,
    labels_from="reports",
)
_PLANE_OF_WORD = {"TRA": "axial", "SAG": "sagittal"}

NOTES_NAME = "Radiologists Report.xlsx"
EXPECTED = f"label images (T1_0001_D3.png, ...) or raw studies (0001/STUDY/SERIES/NAME.ima), and {NOTES_NAME}"
LABEL_IMAGE = "label image, not a slice"

# Folders whose files may be named like slices, but were painted by a person or a program.
_LABELLER_FOLDER = re.compile(r"manual.?label|labell?er", re.IGNORECASE)
_LABEL_FOLDER = re.compile(r"label|composite|ground.?truth|mask", re.IGNORECASE)
_SLICE_FOLDER = re.compile(r"T[12]_Output", re.IGNORECASE)  # in the ground-truth archive
# `T1_0001_D9.png` claims to be a slice; `T1_0001_D3_label.png` and `C1_0001_D3.png` do not.
_CLAIMS_SLICE = re.compile(r"T[12]_[^_]*_[^_]*\.png", re.IGNORECASE)

_DICOM_SUFFIXES = (".ima", ".dcm")
_PATIENT_FOLDER = re.compile(r"[0-9]{4}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Series:
    """A series of the raw studies."""

    name: str  # name of its folder
    patient: str  # four digits
    study: int  # number of the patient's study, from 1 in the order of the folders
    files: Sequence[Path]  # sorted by name

    @property
    def source(self) -> str:
        """Source as in `Record`, without the study's folder, whose name contains the date of the examination."""
        return f"Mendeley/{self.patient}/study-{self.study}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What a folder holds: slices or series."""

    raw: Path
    notes: Path  # the workbook
    slices: Mapping[SliceName, Sequence[Path]]  # the PNG files of each slice
    series: Sequence[Series]  # series of the raw studies
    exclusions: Sequence[Exclusion]  # files that look like slices or series and are neither

    @property
    def patients(self) -> set[str]:
        """Patients with an image."""
        return {name.patient for name in self.slices} | {series.patient for series in self.series}


def describe(options: ReadOptions) -> SourceInfo:
    """Describe the form found in the folder; raise a ValueError if it has neither or both, or no notes."""
    layout = find_layout(options)
    form = (
        "Every slice of the axial and sagittal T1 and T2 series of the raw studies."
        if layout.series
        else "Axial T1 and T2 slices through the discs L3/L4, L4/L5 and L5/S1."
    )
    return SourceInfo(
        about=ABOUT,
        summary=f"{form} Labels are read from the patient's note by rules, at the disc that the slice shows.",
        label_names=REPORT_LABELS,
        report_origin="radiologist; the images of a patient share the note",
    )


def read(options: ReadOptions) -> Iterator[Record | Exclusion]:
    """Yield each slice as a record or an exclusion, then exclusions of unused notes.

    Raises:
        ValueError: As in `describe`, or if the notes cannot be read.
    """
    layout = find_layout(options)
    notes = read_notes(layout.notes)
    note_of = {note.patient_id: note for note in notes if note.patient_id}
    yield from layout.exclusions
    path_of, copies = one_file_each(layout.slices, partial(source_of, layout.raw))
    yield from copies
    for name, path in path_of.items():
        yield _slice_record(name, path, layout.raw, note_of.get(name.patient))
    yield from _read_all_series(layout.series, note_of, options.num_proc)
    yield from notes_left_over(notes, layout.patients)


@lru_cache(maxsize=4096)  # T1 and T2, and hundreds of raw slices, share note and level
def labels_of(report: str, level: str) -> tuple[str, ...] | None:
    """Return the classes of a slice: the note's findings at its level, or all of them if it shows several.

    At an unknown level, only the patient's class as in the paper: `LBP` or `No Finding`. None if the note was not
    understood.
    """
    report = normalise_report(report)  # as it is stored
    if level in ("several", "unknown"):
        labels = labels_from_report(report) or None
        return labels if level == "several" else paper_labels(labels)
    return labels_at_level(report, level) or None


def _slice_record(name: SliceName, path: Path, raw: Path, note: Note | None) -> Record | Exclusion:
    source = source_of(raw, path)
    report = report_or_exclusion(note, source)
    if isinstance(report, Exclusion):
        return report
    return Record(
        load_image=partial(read_image, path),
        report=report,
        labels=labels_of(report, name.level),
        patient_id=_patient_id(name.patient),
        study_id=_patient_id(name.patient),
        plane=name.plane,
        sequence=name.sequence,
        level=name.level,
        source=source,
    )


def _read_all_series(
    all_series: Sequence[Series], note_of: Mapping[str, Note], num_proc: int
) -> Iterator[Record | Exclusion]:
    contents = [(series, _content_or_exclusion(series, note_of.get(series.patient))) for series in all_series]
    paths = [path for series, content in contents if not isinstance(content, Exclusion) for path in series.files]
    headers_of_paths = read_all_headers(paths, num_proc)
    for series, content in contents:
        if isinstance(content, Exclusion):
            yield content
            continue
        kind, report = content
        for path, headers in zip(series.files, islice(headers_of_paths, len(series.files)), strict=True):
            source = f"{series.source}/{path.name}"
            if isinstance(headers, UnusableImageError):
                yield Exclusion(source, str(headers))
                continue
            for header in headers:
                frame = f" frame {header.frame}" if len(headers) > 1 else ""
                yield _raw_record(header, kind, series, report, source + frame)


def _content_or_exclusion(series: Series, note: Note | None) -> tuple[tuple[str, str], str] | Exclusion:
    """Return sequence and plane of a series with its report, or an exclusion of all its files."""
    source = f"{series.source} ({len(series.files)} files)"
    kind = series_kind(series.name)
    if kind is None:
        return Exclusion(source, "not an axial or sagittal T1 or T2 series", by_rule=True)
    report = report_or_exclusion(note, source)
    return report if isinstance(report, Exclusion) else (kind, report)


def series_kind(folder_name: str) -> tuple[str, str] | None:
    """Read sequence and plane from the name of a series folder; None for others, such as localizers.

    Example:
        >>> series_kind("T2_TSE_TRA_384_0005"), series_kind("T1_TSE_SAG_320_0003")
        (('T2', 'axial'), ('T1', 'sagittal'))
        >>> series_kind("LOCALIZER_0001"), series_kind("POSDISP_[4]_T2_TSE_TRA_384_5001")
        (None, None)
    """
    first, *words = re.split("[^A-Z0-9]+", folder_name.upper())
    planes = [plane for word, plane in _PLANE_OF_WORD.items() if word in words]
    return (first, planes[0]) if first in ("T1", "T2") and len(planes) == 1 else None


def _raw_record(header: SliceHeader, kind: tuple[str, str], series: Series, report: str, source: str) -> Record:
    """Make the record of a raw slice; its orientation, unless coronal or unknown, outranks the series' name."""
    sequence = kind[0] if header.sequence in ("unknown", "other") else header.sequence
    plane = header.plane if header.plane in _PLANE_OF_WORD.values() else kind[1]
    level = "several" if plane == "sagittal" else "unknown"
    return Record(
        load_image=partial(read_slice, header.path, header.frame),
        report=report,
        labels=labels_of(report, level),
        patient_id=_patient_id(series.patient),
        study_id=f"{_patient_id(series.patient)}-study-{series.study}",
        plane=plane,
        sequence=sequence,
        level=level,
        pixel_spacing_mm=header.stored_spacing_mm,
        source=source,
    )


def _patient_id(patient: str) -> str:
    return f"mendeley-{patient}"


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
    """List images that are named like slices but are not PNG files."""
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
