"""SPIDER: lumbar MRI with a radiologist's grades of each disc, in one of four forms recognised by their files.

- Volumes, as published: `images/1_t1.mha`, `masks/1_t1.mha`, and `radiological_gradings.csv`, one row per disc. One
  slice of each volume is taken, through the middle of the spine; with `--crops discs`, each disc is cut out where the
  mask marks it. `overview.csv` is not needed.
- Slices with masks: `images/1_t2_SPACE_slice58.jpg` (or `.png`) and `masks/1_t2_SPACE_slice58.png`, class indices of
  `volumes.MASK_NAMES`; perhaps `radiological_gradings.csv`.
- Mid-sagittal slices: `series.csv`, one row per slice, and `radiological_gradings.csv`.
- Disc crops: `discs.csv`, one row per crop with that disc's grades.

The set has no written reports: captions are composed from the grades (see `captions.py`).
"""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from PIL import Image
from tqdm.auto import tqdm

from data_scripts.imaging.images import file_inside, read_image
from data_scripts.imaging.metaimage import read_header
from data_scripts.records import NO_FINDING, Exclusion, ReadOptions, Record, SourceAbout, SourceInfo
from data_scripts.sources.spider import crops, volumes
from data_scripts.sources.spider.captions import (
    LEVEL_OF_IVD_LABEL,
    DiscGrades,
    compose_disc_captions,
    compose_spine_captions,
)
from data_scripts.sources.tables import Row, read_table

ABOUT = SourceAbout(
    name="spider",
    summary=(
        "Sagittal lumbar MRI of 218 patients with a radiologist's grades of each disc (Pfirrmann, herniation, Modic, "
        "...) and masks; no written reports: captions are composed from the grades."
    ),
    license="cc-by-4.0",
    citation=(
        "van der Graaf et al., Lumbar spine segmentation in MR images: a dataset and a public benchmark, "
        "Scientific Data 11, 264 (2024). Data: Zenodo 10159290."
    ),
    size="about 4 GB",
    where="https://zenodo.org/records/10159290: images/, masks/, overview.csv, radiological_gradings.csv",
    reads_volumes=True,
    cuts_crops=True,
    labels_from="grades",
)
LABEL_NAMES = (
    "Pfirrmann >= 4",
    "disc narrowing",
    "disc bulging",
    "disc herniation",
    "endplate change",
    "Modic change",
    "spondylolisthesis",
    NO_FINDING,
)
GRADE_NAMES = ("1", "2", "3", "4", "5")
NUM_REPHRASINGS = 4
GRADINGS_NAME = "radiological_gradings.csv"

FINDING_COLUMNS = {
    "upper_endplate": "UP endplate",
    "lower_endplate": "LOW endplate",
    "spondylolisthesis": "Spondylolisthesis",
    "herniation": "Disc herniation",
    "narrowing": "Disc narrowing",
    "bulging": "Disc bulging",
}
# The source spells it "Pfirrman".
GRADE_COLUMNS = ("Patient", "IVD label", "Modic", *FINDING_COLUMNS.values(), "Pfirrman grade")
_VOLUME_NAME = re.compile(r"([1-9][0-9]{0,5})_(t1|t2|t2_SPACE)\.mha")
_MASKED_SLICE_NAME = re.compile(r"([1-9][0-9]{0,5})_(t1|t2|t2_SPACE)_slice([0-9]{1,5})\.(?:jpe?g|png)", re.ASCII)
_PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")
SEQUENCE_NAMES = {"t1": "T1", "t2": "T2", "t2_SPACE": "T2_SPACE"}


_SLICE_SUMMARY = "Mid-sagittal slices of lumbar MRI. The grade of a slice is the worst Pfirrmann grade of its discs."
SUMMARIES = {
    "discs": "Crops of single discs from mid-sagittal lumbar MRI slices.",
    "masked slices": "Sagittal slices of lumbar MRI with masks of vertebrae, discs and spinal canal.",
    "slices": _SLICE_SUMMARY,
    "volumes": _SLICE_SUMMARY + " Each is the slice of its volume that shows most of the spinal canal, or near it.",
    "crops": "Crops of single discs from sagittal slices of lumbar MRI, cut where the volume's mask marks the disc.",
}

GradingsOf = Mapping[str, Sequence[Row]]  # rows of radiological_gradings.csv by patient


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """A crop or slice without its grades; `file`, `patient` and `sequence` as the source spells them."""

    file: str
    patient: str
    sequence: str
    load_image: Callable[[], Image.Image]
    load_mask: Callable[[], Image.Image] | None = None
    pixel_spacing_mm: float | None = None
    series_id: str | None = None
    slice_index: int | None = None
    slice_spacing_mm: float | None = None


def describe(options: ReadOptions) -> SourceInfo:
    """Describe the form found in the folder; raise a ValueError if there is none or several, or it cannot be cut."""
    raw, form = _find_form(options)
    is_graded = form == "discs" or (raw / GRADINGS_NAME).is_file()
    return SourceInfo(
        about=ABOUT,
        summary=SUMMARIES[form],
        label_names=LABEL_NAMES if is_graded else (),
        grade_names=GRADE_NAMES if is_graded else (),
        mask_names=volumes.MASK_NAMES if form in ("volumes", "crops", "masked slices") else (),
        report_origin=(
            "composed by a program from the radiologist's grades of each disc, in varied wording; "
            "the dataset has no written reports"
            if is_graded
            else "none: a sentence of a program states plane and sequence, and nothing about the patient"
        ),
    )


def read(options: ReadOptions) -> Iterator[Record | Exclusion]:
    """Yield each crop, slice or volume as a record or an exclusion, and what has grades without a disc or the reverse.

    Raises:
        ValueError: As in `describe`, or if a table lacks columns.
    """
    raw, form = _find_form(options)
    if form == "discs":
        for row in read_table(raw / "discs.csv", ("file", "sequence", *GRADE_COLUMNS)):
            yield _row_item(row, raw, options.seed, None)
        return
    if form == "masked slices" and not (raw / GRADINGS_NAME).is_file():
        yield from _masked_slice_items(raw, options.seed, None)
        return
    gradings_of: dict[str, list[Row]] = defaultdict(list)
    for row in read_table(raw / GRADINGS_NAME, GRADE_COLUMNS):
        if row.problem:
            yield Exclusion(row.where, row.problem)
        else:
            gradings_of[row.text("Patient")].append(row)
    if form == "masked slices":
        yield from _masked_slice_items(raw, options.seed, gradings_of)
        return
    if form == "slices":
        for row in read_table(raw / "series.csv", ("file", "patient", "sequence")):
            yield _row_item(row, raw, options.seed, gradings_of)
        return
    paths = sorted((raw / "images").glob("*.mha"))
    if form == "volumes":
        for path in paths:
            yield from _volume_items(path, raw, options, gradings_of)
        return
    for path in tqdm(paths, desc="Finding discs in masks", unit=" volumes", delay=5):
        yield from _crop_items(path, raw, options, gradings_of)
    patients = {path.name.partition("_")[0] for path in paths}
    for patient in gradings_of:
        if patient not in patients:
            reason = "graded, but images/ has no volume of this patient"
            yield Exclusion(f"SPIDER/radiological_gradings.csv patient {patient}", reason, by_rule=True)


def present_labels(discs: Sequence[DiscGrades]) -> tuple[str, ...]:
    """List the classes that at least one of the discs shows.

    `No Finding` means discs of Pfirrmann grade 1 or 2 without any finding. A disc of grade 3 without other findings is
    neither healthy nor a finding, and has no class.

    Example:
        >>> present_labels([DiscGrades(level="L4/L5", pfirrmann=4, modic=2)])
        ('Pfirrmann >= 4', 'Modic change')
        >>> present_labels([DiscGrades(level="L4/L5", pfirrmann=2)]), present_labels([DiscGrades("L4/L5", 3)])
        (('No Finding',), ())
    """
    present = {
        "Pfirrmann >= 4": any(disc.pfirrmann >= 4 for disc in discs),
        "disc narrowing": any(disc.narrowing for disc in discs),
        "disc bulging": any(disc.bulging for disc in discs),
        "disc herniation": any(disc.herniation for disc in discs),
        "endplate change": any(disc.upper_endplate or disc.lower_endplate for disc in discs),
        "Modic change": any(disc.modic > 0 for disc in discs),
        "spondylolisthesis": any(disc.spondylolisthesis for disc in discs),
    }
    present[NO_FINDING] = not any(present.values()) and all(disc.pfirrmann <= 2 for disc in discs)
    return tuple(name for name in LABEL_NAMES if present[name])


def _find_form(options: ReadOptions) -> tuple[Path, str]:
    raw = options.raw_folder(f"discs.csv, or images/ with masks/, or {GRADINGS_NAME} and images/ or series.csv")
    is_graded = (raw / GRADINGS_NAME).is_file()
    is_found = {
        "discs": (raw / "discs.csv").is_file(),
        "slices": is_graded and (raw / "series.csv").is_file(),
        "volumes": is_graded and any((raw / "images").glob("*.mha")),
        "masked slices": (raw / "masks").is_dir() and bool(_pictures_in(raw / "images")),
    }
    found = [form for form, is_there in is_found.items() if is_there]
    if len(found) != 1:
        raise ValueError(
            f"{raw} must hold one form of SPIDER, found: {' and '.join(found) or 'none'}. The forms: discs.csv (disc "
            f"crops); series.csv and {GRADINGS_NAME} (mid-sagittal slices); images/*.mha and {GRADINGS_NAME} (volumes, "
            "their masks in masks/); images/PATIENT_t2_sliceNN.jpg and masks/PATIENT_t2_sliceNN.png (slices with masks)"
        )
    (form,) = found
    if options.slices is not None and form != "volumes":
        raise ValueError(f"--slices {options.slices} takes slices of volumes, but {raw} holds {form}; leave it out")
    if options.crops is None:
        return raw, form
    if form != "volumes":
        raise ValueError(f"--crops {options.crops} cuts discs out of volumes, but {raw} holds {form}; leave it out")
    return raw, "crops"


def _row_item(row: Row, raw: Path, seed: int, gradings_of: GradingsOf | None) -> Record | Exclusion:
    """Make a record of a slice or, without `gradings_of`, of the crop of one disc."""
    try:
        if row.problem:
            raise ValueError(row.problem)
        picture = _Picture(
            file=row.text("file"),
            patient=row.text("Patient" if gradings_of is None else "patient"),
            sequence=row.text("sequence"),
            load_image=partial(read_image, file_inside(raw, row.text("file"), "image")),
        )
        return _disc_record(picture, row, seed) if gradings_of is None else _spine_record(picture, seed, gradings_of)
    except ValueError as error:
        return Exclusion(row.where, str(error))


def _volume_items(path: Path, raw: Path, options: ReadOptions, gradings_of: GradingsOf) -> Iterator[Record | Exclusion]:
    """Yield the slice through the middle of the spine, or as many about it as `--slices` says."""
    file = path.relative_to(raw).as_posix()
    try:
        patient, sequence = _volume_name(path)
        mask = raw / "masks" / path.name
        mask_or_none = mask if mask.exists() else None
        header = read_header(path)
        middle = _Picture(
            file=file,
            patient=patient,
            sequence=sequence,
            load_image=partial(volumes.load_image, path, mask_or_none),
            load_mask=partial(volumes.load_mask, path, mask) if mask_or_none else None,
            pixel_spacing_mm=volumes.stored_spacing_mm(header),
        )
        if options.slices in (None, "middle"):
            yield _spine_record(middle, options.seed, gradings_of)
            return
        indices = volumes.slices_about_spine(path, mask_or_none, options.slices)
        for index in indices:
            picture = replace(
                middle,
                file=f"{file} slice {index}",
                load_image=partial(volumes.load_image, path, mask_or_none, indices, index),
                load_mask=partial(volumes.load_mask, path, mask, indices, index) if mask_or_none else None,
                series_id=f"spider-{path.stem}",
                slice_index=index,
                slice_spacing_mm=header.sagittal_spacing_mm[0],
            )
            yield _spine_record(picture, options.seed, gradings_of)
    except ValueError as error:
        yield Exclusion(f"SPIDER/{file}", str(error))


def _pictures_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in _PICTURE_SUFFIXES)


def _masked_slice_items(raw: Path, seed: int, gradings_of: GradingsOf | None) -> Iterator[Record | Exclusion]:
    """Yield the slices with their masks, and masks without a slice."""
    images_of: dict[str, list[Path]] = defaultdict(list)
    masks_of: dict[str, list[Path]] = defaultdict(list)
    for folder, paths_of in ((raw / "images", images_of), (raw / "masks", masks_of)):
        for path in _pictures_in(folder):
            paths_of[path.stem].append(path)
    for stem, paths in images_of.items():
        file = paths[0].relative_to(raw).as_posix()
        try:
            yield _masked_slice(paths, masks_of.get(stem, []), raw, seed, gradings_of)
        except ValueError as error:
            yield Exclusion(f"SPIDER/{file}", str(error))
    for stem, paths in masks_of.items():
        if stem not in images_of:
            yield Exclusion(f"SPIDER/{paths[0].relative_to(raw).as_posix()}", "mask without an image")


def _masked_slice(
    images: Sequence[Path], masks: Sequence[Path], raw: Path, seed: int, gradings_of: GradingsOf | None
) -> Record:
    name = _MASKED_SLICE_NAME.fullmatch(images[0].name)
    if name is None:
        raise ValueError(f"a slice is named PATIENT_t1_sliceNN.jpg, _t2_ or _t2_SPACE_, got {images[0].name!r}")
    for what, paths in (("image", images), ("mask", masks)):
        if len(paths) != 1:
            found = ", ".join(path.name for path in paths) or f"none in {what}s/"
            raise ValueError(f"expected one {what} {images[0].stem}, found: {found}")
    patient, sequence, number = name.groups()
    picture = _Picture(
        file=images[0].relative_to(raw).as_posix(),
        patient=patient,
        sequence=sequence,
        load_image=partial(read_image, images[0]),
        load_mask=partial(read_image, masks[0]),
        series_id=f"spider-{patient}_{sequence}",
        slice_index=int(number),
    )
    if gradings_of is not None:
        return _spine_record(picture, seed, gradings_of)
    sequence_name = SEQUENCE_NAMES[sequence]
    return _record(picture, None, [f"Sagittal {sequence_name.replace('_', ' ')} slice."], level="several")


def _crop_items(path: Path, raw: Path, options: ReadOptions, gradings_of: GradingsOf) -> Iterator[Record | Exclusion]:
    """Yield the crops of the graded discs of a volume, and its discs without grades and grades without discs."""
    file = path.relative_to(raw).as_posix()
    try:
        patient, sequence = _volume_name(path)
        rows_of: dict[str, list[Row]] = defaultdict(list)
        for row in _gradings_of(patient, gradings_of):
            rows_of[row.text("IVD label")].append(row)
        mask = raw / "masks" / path.name
        if not mask.exists():
            raise ValueError(f"no mask {mask.relative_to(raw)}, which says where the discs are")
        found = tuple(crops.find_crops(path, mask, options.context_mm, options.slices or "middle"))
        header = read_header(path)
    except ValueError as error:
        yield Exclusion(f"SPIDER/{file}", str(error))
        return
    crops_of: dict[str, list[crops.Crop]] = defaultdict(list)
    for crop in found:
        crops_of[str(crop.ivd_label)].append(crop)
    spacing_mm = volumes.stored_spacing_mm(header)
    for ivd_label in dict.fromkeys((*crops_of, *rows_of)):
        where = f"{file}/ivd{ivd_label}"
        try:
            grading = _only_grading(rows_of[ivd_label], patient)
            if grading is None:
                reason = "this disc has no grades in radiological_gradings.csv"
                yield Exclusion(f"SPIDER/{where}", reason, by_rule=True)
                continue
            if ivd_label not in crops_of:
                yield Exclusion(f"SPIDER/{where}", "graded, but the mask has no such disc", by_rule=True)
            for crop in crops_of[ivd_label]:
                picture = _Picture(
                    file=f"{where}/slice{crop.slice_index}",
                    patient=patient,
                    sequence=sequence,
                    load_image=partial(crops.load_image, path, mask, found, crop),
                    load_mask=partial(crops.load_mask, path, mask, found, crop),
                    pixel_spacing_mm=spacing_mm,
                    series_id=f"spider-{path.stem}",
                    slice_index=crop.slice_index,
                    slice_spacing_mm=header.sagittal_spacing_mm[0],
                )
                yield _disc_record(picture, grading, options.seed)
        except ValueError as error:
            yield Exclusion(f"SPIDER/{where}", str(error))


def _volume_name(path: Path) -> tuple[str, str]:
    """Read patient and sequence, as the source spells them, from the name of a volume."""
    name = _VOLUME_NAME.fullmatch(path.name)
    if name is None:
        raise ValueError(f"a volume is named PATIENT_t1.mha, _t2.mha or _t2_SPACE.mha, got {path.name!r}")
    return name[1], name[2]


def _gradings_of(patient: str, gradings_of: GradingsOf) -> Sequence[Row]:
    if patient not in gradings_of:
        raise ValueError(f"no gradings for patient {patient!r} in radiological_gradings.csv")
    return gradings_of[patient]


def _only_grading(rows: Sequence[Row], patient: str) -> Row | None:
    """Return the row of grades of a disc, checked; None if there is none."""
    for row in rows:
        _disc_grades(row)
    if len(rows) > 1:
        raise ValueError(f"patient {patient!r} has two gradings for one disc")
    return rows[0] if rows else None


def _spine_record(picture: _Picture, seed: int, gradings_of: GradingsOf) -> Record:
    discs = _discs_from_top(_gradings_of(picture.patient, gradings_of))
    # Seeded by the file, so that the wording does not depend on other rows.
    captions = compose_spine_captions(discs, random.Random(f"{seed}/{picture.file}"), 1 + NUM_REPHRASINGS)
    return _record(picture, discs, captions, level="several")


def _disc_record(picture: _Picture, row: Row, seed: int) -> Record:
    disc = _disc_grades(row)
    captions = compose_disc_captions(disc, random.Random(f"{seed}/{picture.file}"), 1 + NUM_REPHRASINGS)
    return _record(picture, [disc], captions, level=disc.level)


def _record(picture: _Picture, discs: Sequence[DiscGrades] | None, captions: Sequence[str], level: str) -> Record:
    """Make the record of a picture; `discs` is None if they are not graded."""
    patient_id = f"spider-{picture.patient}" if picture.patient else ""
    return Record(
        load_image=picture.load_image,
        load_mask=picture.load_mask,
        report=captions[0],
        rephrasings=tuple(captions[1:]),
        labels=None if discs is None else present_labels(discs),
        grade=None if discs is None else str(max(disc.pfirrmann for disc in discs)),
        patient_id=patient_id,
        study_id=patient_id,
        plane="sagittal",
        sequence=SEQUENCE_NAMES.get(picture.sequence, picture.sequence),
        level=level,
        series_id=picture.series_id,
        slice_index=picture.slice_index,
        pixel_spacing_mm=picture.pixel_spacing_mm,
        slice_spacing_mm=picture.slice_spacing_mm,
        source=f"SPIDER/{picture.file}",
    )


def _discs_from_top(gradings: Sequence[Row]) -> list[DiscGrades]:
    disc_of_level = {disc.level: disc for disc in map(_disc_grades, gradings)}
    if len(disc_of_level) != len(gradings):
        raise ValueError(f"patient {gradings[0].text('Patient')!r} has two gradings for one disc")
    return [disc_of_level[level] for level in reversed(LEVEL_OF_IVD_LABEL.values()) if level in disc_of_level]


def _disc_grades(row: Row) -> DiscGrades:
    ivd_label = _grade(row, "IVD label", range(min(LEVEL_OF_IVD_LABEL), max(LEVEL_OF_IVD_LABEL) + 1))
    pfirrmann, modic = _grade(row, "Pfirrman grade", range(1, 6)), _grade(row, "Modic", range(4))
    findings = {name: bool(_grade(row, column, range(2))) for name, column in FINDING_COLUMNS.items()}
    return DiscGrades(LEVEL_OF_IVD_LABEL[ivd_label], pfirrmann, modic, **findings)


def _grade(row: Row, column: str, allowed: range) -> int:
    text = row.text(column)
    if text not in map(str, allowed):
        raise ValueError(f"unknown {column} {text!r} in {row.where}; allowed: {allowed[0]} to {allowed[-1]}")
    return int(text)
