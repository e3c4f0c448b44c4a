"""SPIDER: lumbar MRI with a radiologist's grades of each disc, in one of two forms recognised by their files.

- Disc crops: `discs.csv`, one row a crop with that disc's grades.
- Mid-sagittal slices: `series.csv`, one row a slice, and `radiological_gradings.csv`, one row a disc.

The set has no written reports: captions are composed from the grades (see `spider_captions`).
"""

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from data_scripts.images import file_inside, read_image
from data_scripts.records import NO_FINDING, Exclusion, ReadOptions, Record, SourceAbout, SourceInfo
from data_scripts.spider_captions import LEVEL_OF_IVD_LABEL, DiscGrades, compose_disc_captions, compose_spine_captions
from data_scripts.tables import Row, columns_of, read_table

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

GRADE_COLUMNS = (
    "Patient",
    "IVD label",
    "Modic",
    "UP endplate",
    "LOW endplate",
    "Spondylolisthesis",
    "Disc herniation",
    "Disc narrowing",
    "Disc bulging",
    "Pfirrman grade",  # spelt so in the source
)
SEQUENCE_NAMES = {"t1": "T1", "t2": "T2", "t2_SPACE": "T2_SPACE"}


def describe(options: ReadOptions) -> SourceInfo:
    """Describe the form found in the folder.

    Raises:
        ValueError: If the folder holds neither form.
    """
    raw = _raw_folder(options)
    return SourceInfo(
        about=ABOUT,
        summary=(
            "Crops of single discs from mid-sagittal lumbar MRI slices."
            if _holds_discs(raw)
            else "Mid-sagittal slices of lumbar MRI. The grade of a slice is the worst Pfirrmann grade of its discs."
        ),
        label_names=LABEL_NAMES,
        grade_names=GRADE_NAMES,
        report_origin=(
            "composed by a program from the radiologist's grades of each disc, in varied wording; "
            "the data set has no written reports"
        ),
    )


def read(options: ReadOptions) -> Iterator[Record | Exclusion]:
    """Yield each crop or slice as a record, or as an exclusion with its reason.

    Raises:
        ValueError: If the folder holds neither form, or a table lacks columns.
    """
    raw = _raw_folder(options)
    if _holds_discs(raw):
        rows = _read_columns(raw / "discs.csv", ("file", "sequence", *GRADE_COLUMNS))
        for row in rows:
            yield _record_or_exclusion(row, raw, options.seed, None)
    else:
        gradings_of: dict[str, list[Row]] = defaultdict(list)
        for row in _read_columns(raw / "radiological_gradings.csv", GRADE_COLUMNS):
            gradings_of[row.text("Patient")].append(row)
        for row in _read_columns(raw / "series.csv", ("file", "patient", "sequence")):
            yield _record_or_exclusion(row, raw, options.seed, gradings_of)


def present_labels(discs: Sequence[DiscGrades]) -> tuple[str, ...]:
    """Classes present in at least one of the discs.

    `No Finding` needs discs without any finding and with a Pfirrmann grade of 2 or better: a disc of grade 3 without
    other findings is neither healthy nor a finding, and has no class at all.

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


def _raw_folder(options: ReadOptions) -> Path:
    raw = options.raw
    if raw is None or not raw.is_dir():
        raise ValueError(f"--raw must be an existing folder with a form of SPIDER, got {raw}")
    sagittal = (raw / "series.csv").is_file() and (raw / "radiological_gradings.csv").is_file()
    if _holds_discs(raw) == sagittal:
        raise ValueError(
            f"{raw} holds {'both forms' if sagittal else 'neither form'} of SPIDER: either discs.csv (disc crops), "
            "or series.csv and radiological_gradings.csv (mid-sagittal slices), beside images/"
        )
    return raw


def _holds_discs(raw: Path) -> bool:
    return (raw / "discs.csv").is_file()


def _read_columns(path: Path, columns: Sequence[str]) -> list[Row]:
    rows = read_table(path)
    missing = [column for column in columns if column not in columns_of(rows)]
    if missing:
        raise ValueError(f"{path} lacks the columns {', '.join(missing)}")
    return rows


def _record_or_exclusion(
    row: Row, raw: Path, seed: int, gradings_of: dict[str, list[Row]] | None
) -> Record | Exclusion:
    try:
        if row.problem:
            raise ValueError(row.problem)
        return _disc_record(row, raw, seed) if gradings_of is None else _slice_record(row, raw, seed, gradings_of)
    except ValueError as error:
        return Exclusion(row.where, str(error))


def _disc_record(row: Row, raw: Path, seed: int) -> Record:
    disc = _disc_grades(row)
    captions = compose_disc_captions(disc, _wording(seed, row), 1 + NUM_REPHRASINGS)
    return _record(row, raw, row.text("Patient"), [disc], captions, level=disc.level)


def _slice_record(row: Row, raw: Path, seed: int, gradings_of: dict[str, list[Row]]) -> Record:
    patient = row.text("patient")
    if patient not in gradings_of:
        raise ValueError(f"no gradings for patient {patient!r} in radiological_gradings.csv")
    discs = _discs_from_top(gradings_of[patient])
    captions = compose_spine_captions(discs, _wording(seed, row), 1 + NUM_REPHRASINGS)
    return _record(row, raw, patient, discs, captions, level="several")


def _record(
    row: Row, raw: Path, patient: str, discs: Sequence[DiscGrades], captions: Sequence[str], level: str
) -> Record:
    patient_id = f"spider-{patient}" if patient else ""
    return Record(
        load_image=partial(read_image, file_inside(raw, row.text("file"), "image")),
        report=captions[0],
        rephrasings=tuple(captions[1:]),
        labels=present_labels(discs),
        grade=str(max(disc.pfirrmann for disc in discs)),
        patient_id=patient_id,
        study_id=patient_id,
        plane="sagittal",
        sequence=SEQUENCE_NAMES.get(row.text("sequence"), row.text("sequence")),
        level=level,
        source=f"SPIDER/{row.text('file')}",
    )


def _discs_from_top(gradings: Sequence[Row]) -> list[DiscGrades]:
    disc_of_level = {disc.level: disc for disc in map(_disc_grades, gradings)}
    if len(disc_of_level) != len(gradings):
        raise ValueError(f"patient {gradings[0].text('Patient')!r} has two gradings for one disc")
    return [disc_of_level[level] for level in reversed(LEVEL_OF_IVD_LABEL.values()) if level in disc_of_level]


def _wording(seed: int, row: Row) -> random.Random:
    """The source of the wording of a row: the same whatever rows surround it."""
    return random.Random(f"{seed}/{row.text('file')}")


def _disc_grades(row: Row) -> DiscGrades:
    ivd_label = _grade(row, "IVD label", range(min(LEVEL_OF_IVD_LABEL), max(LEVEL_OF_IVD_LABEL) + 1))
    return DiscGrades(
        level=LEVEL_OF_IVD_LABEL[ivd_label],
        pfirrmann=_grade(row, "Pfirrman grade", range(1, 6)),
        modic=_grade(row, "Modic", range(4)),
        upper_endplate=bool(_grade(row, "UP endplate", range(2))),
        lower_endplate=bool(_grade(row, "LOW endplate", range(2))),
        spondylolisthesis=bool(_grade(row, "Spondylolisthesis", range(2))),
        herniation=bool(_grade(row, "Disc herniation", range(2))),
        narrowing=bool(_grade(row, "Disc narrowing", range(2))),
        bulging=bool(_grade(row, "Disc bulging", range(2))),
    )


def _grade(row: Row, column: str, allowed: range) -> int:
    text = row.text(column)
    if text not in map(str, allowed):
        raise ValueError(f"unknown {column} {text!r} in {row.where}; allowed: {allowed[0]} to {allowed[-1]}")
    return int(text)
