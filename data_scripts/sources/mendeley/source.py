"""The lumbar MRI set of Sudirman et al. on Mendeley Data, with its radiologists' notes, in one of two forms.

- Label images (zbf6b4pttk): one axial slice through each of the last three discs, `T1_0001_D3.png` (`D3` = L3/L4,
  `D4` = L4/L5, `D5` = L5/S1), in any sub-folder: the 3,090 images of the LumbarCLIP paper. Composites and
  ground-truth labels beside them are excluded by rule.
- Raw studies (k57fr854j2): `0001/STUDY/SERIES/NAME.ima`, DICOM, where 0001 is the patient. Every slice of the axial
  (`T2_TSE_TRA_384_0005`) and sagittal (`T1_TSE_SAG_320_0003`) T1 and T2 series is a record. Other series (localizers,
  position displays) are left out by rule, with one exclusion per series.

The notes (s6bgczr8s2) are `Radiologists Report.xlsx` in the same folder, or given by `--notes`. A slice has the whole
note of its patient, as in the paper; its labels are those of the note at the level of the slice.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path

from data_scripts.imaging.dicom import SliceHeader, read_all_headers, read_slice
from data_scripts.imaging.images import UnusableImageError, read_image
from data_scripts.records import LOW_BACK_PAIN, NO_FINDING, Exclusion, ReadOptions, Record, SourceAbout, SourceInfo
from data_scripts.reports.text import REPORT_LABELS, labels_at_level, labels_from_report
from data_scripts.sources.mendeley.layout import Series, find_layout, source_of
from data_scripts.sources.notes import Note, notes_left_over, read_notes, report_or_exclusion
from data_scripts.sources.slice_names import SliceName, one_file_each

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
)
_PLANE_OF_WORD = {"TRA": "axial", "SAG": "sagittal"}


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
def labels_of(report: str, level: str) -> tuple[str, ...]:
    """Return the classes of a slice: the note's findings at its level, or all of them if it shows several.

    At an unknown level, only the patient's class as in the paper: `LBP` or `No Finding`.
    """
    if level == "several":
        return labels_from_report(report)
    if level == "unknown":
        return tuple(label for label in labels_from_report(report) if label in (LOW_BACK_PAIN, NO_FINDING))
    return labels_at_level(report, level)


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
    """Read sequence and plane from the name of a series folder; None for a localizer and the like.

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
