"""LSMA-PQR: axial and sagittal lumbar slices with masks, Pfirrmann grades and radiologists' notes, from Mendeley Data.

    images_png/T1_0042_D4.png           or axial_T1_0042_D4.png: axial, D3 = L3/L4, D4 = L4/L5, D5 = L5/S1
    images_png/T2_0001_S8.png           or sag_T2_0001_S8.png: sagittal
    masks_indexed/T1_0042_D4.png        of the same slices, with or without the prefix
    structured_notes.csv                or RadiologicalNotes.csv: the report, and what a program read from it
    PfirrmannGrade.csv                  or PfirrmannGrades.csv: grades at D3, D4, D5
    IVDHeights.csv                      heights at D3, D4, D5, in mm

The documents of the set disagree on these names: all are accepted, even mixed. Masks, grades and heights may be
missing. Not used: the points between which heights were measured, polygons (`labels_yolo`) and overlays, which repeat
the masks.

A slice has the whole note of its patient; for its labels see `StructuredNote.labels_at`, for its severity, which
`--grades severity` makes its grade, `StructuredNote.severity_at`. Patients have the same ids as
in the `mendeley` source, so that splits of both cannot leak into each other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from data_scripts.imaging.images import UnusableImageError, read_image
from data_scripts.records import BACKGROUND, Exclusion, ReadOptions, Record, SourceAbout, SourceInfo
from data_scripts.sources.lsma_pqr.heights import height_left_over, read_disc_heights
from data_scripts.sources.lsma_pqr.tables import (
    LABEL_NAMES,
    PFIRRMANN_GRADES,
    SEVERITY_GRADES,
    DiscGrades,
    StructuredNote,
    has_written_notes,
    read_pfirrmann_grades,
    read_structured_notes,
)
from data_scripts.sources.notes import notes_left_over, report_or_exclusion
from data_scripts.sources.slice_names import NOT_PNG, OTHER_IMAGE_SUFFIXES, SliceName, group_by_name, one_file_each

ABOUT = SourceAbout(
    name="lsma_pqr",
    summary=(
        "Axial and mid-sagittal T1 and T2 slices of 515 patients (3,090 and 1,030 images) with masks, Pfirrmann "
        "grades, disc heights and radiologists' notes."
    ),
    license="cc-by-4.0",
    citation=(
        "Masood et al., LSMA-PQR: Lumbar Spine Multi-view Annotations with Pfirrmann grading, Quantitative "
        "measurements and structured Radiological reports, Mendeley Data p3r4xd2488 (2025); derived from Sudirman et "
        "al., Lumbar Spine MRI Dataset, Mendeley Data k57fr854j2 (2019)."
    ),
    size="2.6 GB",
    where=(
        "https://data.mendeley.com/datasets/p3r4xd2488: images_png/, masks_indexed/, structured_notes.csv or "
        "RadiologicalNotes.csv, PfirrmannGrade.csv or PfirrmannGrades.csv, IVDHeights.csv"
    ),
    reads_notes=True,
    kinds_of_grades=("pfirrmann", "severity"),
)
NOTES_NAMES = ("structured_notes.csv", "RadiologicalNotes.csv")
GRADES_NAMES = ("PfirrmannGrade.csv", "PfirrmannGrades.csv")
HEIGHTS_NAME = "IVDHeights.csv"
UNKNOWN_NAME = "unknown image name; expected T1_0042_D4.png or T1_0042_S8.png, with or without axial_ or sag_ before it"
UNKNOWN_MASK_NAME = "unknown mask name; expected the name of its image"
IN_SUB_FOLDER = "in a sub-folder; move it up"
PIXEL_SPACING_MM = 0.6875  # as the dataset states for all images, although it also says that it resampled them

# One vocabulary for both planes; the first three are the axial numbering.
MASK_NAMES = (BACKGROUND, "disc", "posterior element", "spinal canal", "vertebra", "sacrum")
# Index in the file → index here. The documents number sagittal classes from 1, or continue from the axial ones.
MASK_NUMBERINGS: dict[str, tuple[dict[int, int], ...]] = {
    "axial": ({1: 1, 2: 2, 3: 3},),
    "sagittal": ({1: 4, 2: 1, 3: 5, 4: 3}, {4: 4, 5: 1, 6: 5, 7: 3}),
}


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Paths of the parts; None for missing ones."""

    images: Path
    masks: Path | None
    notes: Path
    grades: Path | None  # Pfirrmann's; None also if they are not asked for
    heights: Path | None


# Classes that the masks of a plane mark.
MARKED_IN = {
    plane: tuple(MASK_NAMES[index] for index in sorted(numberings[0].values()))
    for plane, numberings in MASK_NUMBERINGS.items()
}


def describe(options: ReadOptions) -> SourceInfo:
    """Describe the folder; raise a ValueError if images or notes are missing, or a table has both names."""
    layout = _layout(options)
    return SourceInfo(
        about=ABOUT,
        label_names=LABEL_NAMES,
        grade_names=SEVERITY_GRADES if options.grades == "severity" else PFIRRMANN_GRADES if layout.grades else (),
        mask_names=MASK_NAMES if layout.masks else (),
        report_origin=(
            "radiologist, with spelling corrected by a program of the dataset's authors; a patient's images share it"
            if has_written_notes(layout.notes)
            else "composed by a program from the structured columns of the notes, which hold no text here"
        ),
    )


def read(options: ReadOptions) -> Iterator[Record | Exclusion]:
    """Yield each image as a record or an exclusion, then exclusions of unused notes and rows.

    Raises:
        ValueError: As in `describe`, or if a table lacks columns.
    """
    layout = _layout(options)
    notes = read_structured_notes(layout.notes)
    note_of = {note.patient_id: note for note in notes if note.patient_id}
    grades = read_pfirrmann_grades(layout.grades) if layout.grades else []
    grades_of = {row.patient_id: row for row in grades if row.patient_id}
    heights = read_disc_heights(layout.heights) if layout.heights else []
    height_of = {(height.patient_id, height.level): height.height_mm for height in heights}
    images, exclusions = _png_files(layout.images)
    yield from exclusions
    files_of, unnamed = group_by_name(images)
    yield from (Exclusion(_source(path), UNKNOWN_NAME) for path in unnamed)
    image_of, exclusions = one_file_each(files_of, _source)
    yield from exclusions
    masks_of = None
    if layout.masks:
        masks, exclusions = _png_files(layout.masks)
        yield from exclusions
        masks_of, unnamed = group_by_name(masks)
        yield from (Exclusion(_source(path), UNKNOWN_MASK_NAME) for path in unnamed)
    for name, path in image_of.items():
        note, grades_of_patient = note_of.get(name.patient), grades_of.get(name.patient)
        height_mm = height_of.get((name.patient, name.level))
        item = _record_or_exclusion(name, path, note, grades_of_patient, masks_of, height_mm)
        if options.grades == "severity" and isinstance(item, Record) and note is not None:
            item = replace(item, grade=note.severity_at(name.level))
        yield item
    for name, of_slice in (masks_of or {}).items():
        if name not in files_of:
            yield from (Exclusion(_source(mask), "mask without an image") for mask in of_slice)
    patients = {name.patient for name in files_of}
    yield from notes_left_over(notes, patients)
    yield from (_grades_left_over(row) for row in grades if row.patient_id not in patients)
    left_over = (height_left_over(height, height.patient_id in patients) for height in heights)
    yield from (exclusion for exclusion in left_over if exclusion)


def _grades_left_over(row: DiscGrades) -> Exclusion:
    if row.problem:
        return Exclusion(row.where, row.problem)
    try:
        row.grade_at("several")
    except ValueError as error:
        return Exclusion(row.where, str(error))
    return Exclusion(row.where, "grades without an image", by_rule=True)


def load_mask(path: Path, plane: str) -> Image.Image:
    """Load a mask with the indices of `MASK_NAMES`.

    Raises:
        UnusableImageError: If the file is not a mask, or its classes do not fit exactly one numbering of the plane.
    """
    mask = np.asarray(read_image(path))
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise UnusableImageError("mask must be an 8-bit grey or palette image of class indices")
    classes = set(np.unique(mask).tolist()) - {0}
    fitting = [numbering for numbering in MASK_NUMBERINGS[plane] if classes <= numbering.keys()]
    if not fitting or (classes and len(fitting) > 1):
        problem = "fits two numberings of" if fitting else "is unknown in"
        raise UnusableImageError(f"mask of the classes {sorted(classes)[:8]} {problem} {plane} masks")
    index_here = np.zeros(256, dtype=np.uint8)
    for index, here in fitting[0].items():
        index_here[index] = here
    return Image.fromarray(index_here[mask])


def _layout(options: ReadOptions) -> _Layout:
    raw = options.raw_folder("LSMA-PQR")
    if not (raw / "images_png").is_dir():
        raise ValueError(f"{raw} has no folder images_png; give the unpacked folder, with {NOTES_NAMES[0]}")
    notes = options.notes or _either(raw, NOTES_NAMES)
    if notes is None or not notes.is_file() or notes.suffix != ".csv":
        raise ValueError(f"{raw} must contain {' or '.join(NOTES_NAMES)}, or --notes a .csv file; got {notes}")
    masks = raw / "masks_indexed"
    return _Layout(
        images=raw / "images_png",
        masks=masks if masks.is_dir() else None,
        notes=notes,
        grades=None if options.grades == "severity" else _either(raw, GRADES_NAMES),
        heights=_either(raw, (HEIGHTS_NAME,)),
    )


def _either(raw: Path, names: Sequence[str]) -> Path | None:
    found = [raw / name for name in names if (raw / name).is_file()]
    if len(found) > 1:
        raise ValueError(f"{raw} contains both {' and '.join(names)}; keep one of them")
    return found[0] if found else None


def _png_files(folder: Path) -> tuple[list[Path], list[Exclusion]]:
    images = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in (".png", *OTHER_IMAGE_SUFFIXES) and path.is_file()
    )
    found, exclusions = [], []
    for path in images:
        source = f"LSMA-PQR/{path.relative_to(folder.parent).as_posix()}"
        if path.parent != folder:
            exclusions.append(Exclusion(source, IN_SUB_FOLDER))
        elif path.suffix.lower() != ".png":
            exclusions.append(Exclusion(source, NOT_PNG))
        else:
            found.append(path)
    return found, exclusions


def _source(path: Path) -> str:
    return f"LSMA-PQR/{path.parent.name}/{path.name}"


def _record_or_exclusion(
    name: SliceName,
    path: Path,
    note: StructuredNote | None,
    grades: DiscGrades | None,
    masks_of: dict[SliceName, list[Path]] | None,
    disc_height_mm: float | None,
) -> Record | Exclusion:
    source = _source(path)
    report = report_or_exclusion(note, source)
    if isinstance(report, Exclusion):
        return report
    assert note is not None  # a report has a note
    try:
        mask = None if masks_of is None else _only_mask(name, masks_of)
        grade = None if grades is None else grades.grade_at(name.place)
    except ValueError as error:
        return Exclusion(source, str(error))
    patient_id = f"mendeley-{name.patient}"
    return Record(
        load_image=partial(read_image, path),
        load_mask=None if mask is None else partial(load_mask, mask, name.plane),
        mask_classes=None if mask is None else MARKED_IN[name.plane],
        report=report,
        labels=note.labels_at(name.level) or None,
        grade=grade,
        patient_id=patient_id,
        study_id=patient_id,
        plane=name.plane,
        sequence=name.sequence,
        level=name.level,
        pixel_spacing_mm=PIXEL_SPACING_MM,
        disc_height_mm=disc_height_mm,
        source=source,
    )


def _only_mask(name: SliceName, masks_of: dict[SliceName, list[Path]]) -> Path:
    if name not in masks_of:
        raise ValueError(f"missing mask: masks_indexed has none for {'_'.join(name)}")
    chosen, exclusions = one_file_each({name: masks_of[name]}, _source)
    if not chosen:
        raise ValueError(f"ambiguous mask: {exclusions[0].reason}")
    return chosen[name]
