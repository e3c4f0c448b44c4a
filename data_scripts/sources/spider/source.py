"""SPIDER: lumbar MRI with a radiologist's grades of each disc, in one of three forms recognised by their files.

- Volumes, as published: `images/1_t1.mha`, `masks/1_t1.mha`, and `radiological_gradings.csv`, one row per disc. One
  slice of each volume is taken, through the middle of the spine. `overview.csv` is not needed.
- Mid-sagittal slices: `series.csv`, one row per slice, and `radiological_gradings.csv`.
- Disc crops: `discs.csv`, one row per crop with that disc's grades.

The set has no written reports: captions are composed from the grades (see `captions.py`).
"""

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from data_scripts.imaging.images import file_inside, read_image
from data_scripts.imaging.metaimage import read_header
from data_scripts.records import NO_FINDING, Exclusion, ReadOptions, Record, SourceAbout, SourceInfo
from data_scripts.sources.spider import volumes
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
SEQUENCE_NAMES = {"t1": "T1", "t2": "T2", "t2_SPACE": "T2_SPACE"}


_SLICE_SUMMARY = "Mid-sagittal slices of lumbar MRI. The grade of a slice is the worst Pfirrmann grade of its discs."
SUMMARIES = {
    "discs": "Crops of single discs from mid-sagittal lumbar MRI slices.",
    "slices": _SLICE_SUMMARY,
    "volumes": _SLICE_SUMMARY + " Each is the slice of its volume that shows most of the spinal canal.",
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


def describe(options: ReadOptions) -> SourceInfo:
    """Describe the form found in the folder; raise a ValueError if there is none or several."""
    _, form = _find_form(options)
    return SourceInfo(
        about=ABOUT,
        summary=SUMMARIES[form],
        label_names=LABEL_NAMES,
        grade_names=GRADE_NAMES,
        mask_names=volumes.MASK_NAMES if form == "volumes" else (),
        report_origin=(
            "composed by a program from the radiologist's grades of each disc, in varied wording; "
            "the dataset has no written reports"
        ),
    )


def read(options: ReadOptions) -> Iterator[Record | Exclusion]:
    """Yield each crop, slice or volume as a record or an exclusion.

    Raises:
        ValueError: As in `describe`, or if a table lacks columns.
    """
    raw, form = _find_form(options)
    if form == "discs":
        for row in read_table(raw / "discs.csv", ("file", "sequence", *GRADE_COLUMNS)):
            yield _row_item(row, raw, options.seed, None)
        return
    gradings_of: dict[str, list[Row]] = defaultdict(list)
    for row in read_table(raw / "radiological_gradings.csv", GRADE_COLUMNS):
        if row.problem:
            yield Exclusion(row.where, row.problem)
        else:
            gradings_of[row.text("Patient")].append(row)
    if form == "slices":
        for row in read_table(raw / "series.csv", ("file", "patient", "sequence")):
            yield _row_item(row, raw, options.seed, gradings_of)
    else:
        for path in sorted((raw / "images").glob("*.mha")):
            yield _volume_item(path, raw, options.seed, gradings_of)


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
    raw = options.raw_folder("discs.csv, or radiological_gradings.csv and images/ or series.csv")
    is_graded = (raw / "radiological_gradings.csv").is_file()
    is_found = {
        "discs": (raw / "discs.csv").is_file(),
        "slices": is_graded and (raw / "series.csv").is_file(),
        "volumes": is_graded and any((raw / "images").glob("*.mha")),
    }
    found = [form for form, is_there in is_found.items() if is_there]
    if len(found) != 1:
        raise ValueError(
            f"{raw} must hold one form of SPIDER, found: {' and '.join(found) or 'none'}. The forms: discs.csv (disc "
            "crops); series.csv and radiological_gradings.csv (mid-sagittal slices); images/*.mha and "
            "radiological_gradings.csv (volumes, their masks in masks/)"
        )
    return raw, found[0]


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


def _volume_item(path: Path, raw: Path, seed: int, gradings_of: GradingsOf) -> Record | Exclusion:
    file = path.relative_to(raw).as_posix()
    try:
        name = _VOLUME_NAME.fullmatch(path.name)
        if name is None:
            raise ValueError(f"a volume is named PATIENT_t1.mha, _t2.mha or _t2_SPACE.mha, got {path.name!r}")
        mask = raw / "masks" / path.name
        picture = _Picture(
            file=file,
            patient=name[1],
            sequence=name[2],
            load_image=partial(volumes.load_image, path, mask if mask.exists() else None),
            load_mask=partial(volumes.load_mask, path, mask) if mask.exists() else None,
            pixel_spacing_mm=volumes.stored_spacing_mm(read_header(path)),
        )
        return _spine_record(picture, seed, gradings_of)
    except ValueError as error:
        return Exclusion(f"SPIDER/{file}", str(error))


def _spine_record(picture: _Picture, seed: int, gradings_of: GradingsOf) -> Record:
    if picture.patient not in gradings_of:
        raise ValueError(f"no gradings for patient {picture.patient!r} in radiological_gradings.csv")
    discs = _discs_from_top(gradings_of[picture.patient])
    # Seeded by the file, so that the wording does not depend on other rows.
    captions = compose_spine_captions(discs, random.Random(f"{seed}/{picture.file}"), 1 + NUM_REPHRASINGS)
    return _record(picture, discs, captions, level="several")


def _disc_record(picture: _Picture, row: Row, seed: int) -> Record:
    disc = _disc_grades(row)
    captions = compose_disc_captions(disc, random.Random(f"{seed}/{picture.file}"), 1 + NUM_REPHRASINGS)
    return _record(picture, [disc], captions, level=disc.level)


def _record(picture: _Picture, discs: Sequence[DiscGrades], captions: Sequence[str], level: str) -> Record:
    patient_id = f"spider-{picture.patient}" if picture.patient else ""
    return Record(
        load_image=picture.load_image,
        load_mask=picture.load_mask,
        report=captions[0],
        rephrasings=tuple(captions[1:]),
        labels=present_labels(discs),
        grade=str(max(disc.pfirrmann for disc in discs)),
        patient_id=patient_id,
        study_id=patient_id,
        plane="sagittal",
        sequence=SEQUENCE_NAMES.get(picture.sequence, picture.sequence),
        level=level,
        pixel_spacing_mm=picture.pixel_spacing_mm,
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
