"""RSNA 2024 lumbar spine: DICOM series with graded stenosis at each level, in the layout of the Kaggle download.

    train.csv                       study_id, and a column for each condition and level
    train_series_descriptions.csv   study_id, series_id, series_description
    train_label_coordinates.csv     where each label was read: series, instance, condition, level
    train_images/STUDY/SERIES/INSTANCE.dcm

With `train_label_coordinates.csv`, each image that labels point at becomes a record. Its report states the conditions
graded there; on axial images, also the canal and both recesses at that level. Without that file the level of an axial
image is unknown: then the middle image of each sagittal series becomes a record, and its report states all grades of
the study, even those of structures outside that image (the foramina).

The set has no written reports: captions are composed from the grades (see `captions.py`). It has no patient ids: each
study counts as a patient.
"""

import random
from collections.abc import Iterator, Mapping, Set
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import NamedTuple

from data_scripts.imaging.dicom import HeadersOrError, SliceHeader, order_slices, read_all_headers, read_slice
from data_scripts.imaging.images import UnusableImageError
from data_scripts.records import NO_FINDING, Exclusion, ReadOptions, Record, SourceAbout, SourceInfo
from data_scripts.sources.rsna2024.captions import (
    CANAL,
    CONDITIONS,
    LEFT_FORAMEN,
    LEFT_RECESS,
    NORMAL,
    RIGHT_FORAMEN,
    RIGHT_RECESS,
    SEVERITIES,
    compose_stenosis_captions,
)
from data_scripts.sources.rsna2024.tables import (
    GRADES_TABLE,
    LABELS_TABLE,
    LEVELS,
    SERIES_TABLE,
    Label,
    Series,
    read_tables,
)

ABOUT = SourceAbout(
    name="rsna2024",
    summary=(
        "Lumbar MRI of 1,975 studies (sagittal T1, sagittal T2 or STIR, axial T2) with graded canal, foraminal and "
        "subarticular stenosis at each level; no written reports: captions are composed from the grades."
    ),
    license="other: non-commercial use, no redistribution (competition rules)",
    citation=(
        "Richards et al., RSNA 2024 Lumbar Spine Degenerative Classification, Kaggle (2024), "
        "https://kaggle.com/competitions/rsna-2024-lumbar-spine-degenerative-classification."
    ),
    size="about 35 GB",
    where=(
        "https://www.kaggle.com/competitions/rsna-2024-lumbar-spine-degenerative-classification/data: train_images/, "
        "train.csv, train_series_descriptions.csv, train_label_coordinates.csv"
    ),
    may_be_shared=False,
    labels_from="grades",
)
LABEL_OF_CONDITION = {
    CANAL: "canal stenosis",
    LEFT_FORAMEN: "left foraminal narrowing",
    RIGHT_FORAMEN: "right foraminal narrowing",
    LEFT_RECESS: "left subarticular stenosis",
    RIGHT_RECESS: "right subarticular stenosis",
}
IMAGES_FOLDER = "train_images"
NUM_REPHRASINGS = 4


class View(NamedTuple):
    """What a series description says: plane, possible sequences, and what each image shows."""

    plane: str
    sequences: tuple[str, ...]
    always_shown: tuple[str, ...] = ()


VIEWS = {
    "Sagittal T1": View("sagittal", ("T1",)),
    "Sagittal T2/STIR": View("sagittal", ("T2", "STIR")),
    "Axial T2": View("axial", ("T2",), (CANAL, LEFT_RECESS, RIGHT_RECESS)),
}


def describe(options: ReadOptions) -> SourceInfo:
    """Describe which images are used; raise a ValueError if the folder does not have the layout of the download."""
    raw = _raw_folder(options)
    images = (
        "Images of lumbar MRI at which a graded label points"
        if (raw / LABELS_TABLE).is_file()
        else "Middle images of sagittal series of lumbar MRI, with all grades of the study"
    )
    return SourceInfo(
        about=ABOUT,
        summary=(
            f"{images}. The classes are moderate or severe narrowing; `{NO_FINDING}` means that all conditions of the "
            "image are graded Normal/Mild. The grade is the worst one that the report states."
        ),
        label_names=(*LABEL_OF_CONDITION.values(), NO_FINDING),
        grade_names=SEVERITIES,
        report_origin=(
            "composed by a program from the graders' severity of each condition, in varied wording; the dataset has "
            "no written reports"
        ),
    )


def read(options: ReadOptions) -> Iterator[Record | Exclusion]:
    """Yield the images of each series as records, and exclusions.

    Raises:
        ValueError: As in `describe`, or if a table lacks columns.
    """
    raw = _raw_folder(options)
    tables = read_tables(raw)
    yield from tables.exclusions
    has_labels = (raw / LABELS_TABLE).is_file()
    images_of = _labelled_images if has_labels else _middle_image
    files_of_series = [
        _files_of(series, raw, has_labels) if series.study in tables.grades_of_study else [] for series in tables.series
    ]
    headers = read_all_headers([path for files in files_of_series for path in files], options.num_proc)
    for series, files in zip(tables.series, files_of_series, strict=True):
        if series.study in tables.grades_of_study:
            read_files = list(zip(files, islice(headers, len(files)), strict=True))
            yield from images_of(series, read_files, tables.grades_of_study[series.study], options.seed)
        else:
            yield Exclusion(_source(series), f"{GRADES_TABLE} has no usable row for study {series.study}")
    for study in sorted(tables.grades_of_study.keys() - {series.study for series in tables.series}):
        yield Exclusion(f"RSNA2024/{study}", f"{SERIES_TABLE} has no series for this study", by_rule=True)


def _raw_folder(options: ReadOptions) -> Path:
    raw = options.raw
    if raw is None or not all((raw / name).exists() for name in (GRADES_TABLE, SERIES_TABLE, IMAGES_FOLDER)):
        raise ValueError(f"--raw must contain {GRADES_TABLE}, {SERIES_TABLE} and {IMAGES_FOLDER}/, got {raw}")
    return raw


ReadFiles = list[tuple[Path, HeadersOrError]]


def _files_of(series: Series, raw: Path, has_labels: bool) -> list[Path]:
    folder = raw / IMAGES_FOLDER / series.study / series.series
    if has_labels:
        return [folder / f"{instance}.dcm" for instance in sorted(series.labels_of_instance)]
    return sorted(folder.glob("*.dcm")) if VIEWS[series.description].plane == "sagittal" else []


def _labelled_images(
    series: Series, read_files: ReadFiles, grades: Mapping[Label, str], seed: int
) -> Iterator[Record | Exclusion]:
    if not series.labels_of_instance:
        yield Exclusion(_source(series), f"no label in {LABELS_TABLE} points at this series", by_rule=True)
    for (path, headers), (_, pointed) in zip(read_files, sorted(series.labels_of_instance.items()), strict=True):
        if isinstance(headers, UnusableImageError):
            yield Exclusion(_source(series, path.name), str(headers))
            continue
        beside = {(condition, level) for condition in VIEWS[series.description].always_shown for _, level in pointed}
        yield _record_or_exclusion(series, headers[0], pointed | beside, grades, seed)


def _middle_image(
    series: Series, read_files: ReadFiles, grades: Mapping[Label, str], seed: int
) -> Iterator[Record | Exclusion]:
    """Yield the middle image of a sagittal series by position, and list unreadable files."""
    if VIEWS[series.description].plane != "sagittal":
        reason = f"the level of an axial image is unknown without {LABELS_TABLE}"
        yield Exclusion(_source(series), reason, by_rule=True)
        return
    headers: list[SliceHeader] = []
    for path, headers_of_file in read_files:
        if isinstance(headers_of_file, UnusableImageError):
            yield Exclusion(_source(series, path.name), str(headers_of_file))
        else:
            headers += headers_of_file
    if not headers:
        yield Exclusion(_source(series), "no image of this series is readable")
        return
    middle = order_slices(headers)[len(headers) // 2]
    yield _record_or_exclusion(series, middle, set(product(CONDITIONS, LEVELS)), grades, seed)


def _record_or_exclusion(
    series: Series, header: SliceHeader, labels: Set[Label], grades: Mapping[Label, str], seed: int
) -> Record | Exclusion:
    source, view = _source(series, header.path.name), VIEWS[series.description]
    grades_of_level: dict[str, dict[str, str]] = {}
    for level, condition in product(LEVELS, CONDITIONS):
        if (condition, level) in labels & grades.keys():
            grades_of_level.setdefault(level, {})[condition] = grades[condition, level]
    if not grades_of_level:
        return Exclusion(source, "no condition on this image is graded", by_rule=True)
    report, *rephrasings = compose_stenosis_captions(
        grades_of_level, random.Random(f"{seed}/{source}"), 1 + NUM_REPHRASINGS
    )
    stated = [item for graded in grades_of_level.values() for item in graded.items()]
    narrowed = {condition for condition, severity in stated if severity != NORMAL}
    is_normal = not narrowed and labels <= grades.keys()
    sequence = view.sequences[0] if len(view.sequences) == 1 else header.sequence
    return Record(
        load_image=partial(read_slice, header.path, header.frame),
        report=report,
        rephrasings=tuple(rephrasings),
        labels=(NO_FINDING,)
        if is_normal
        else tuple(LABEL_OF_CONDITION[name] for name in CONDITIONS if name in narrowed),
        grade=max((severity for _, severity in stated), key=SEVERITIES.index),
        patient_id=f"rsna-{series.study}",
        study_id=f"rsna-{series.study}",
        plane=view.plane,
        sequence=sequence if sequence in view.sequences else "unknown",
        level=next(iter(grades_of_level)) if len(grades_of_level) == 1 else "several",
        pixel_spacing_mm=header.stored_spacing_mm,
        source=source,
    )


def _source(series: Series, file: str = "") -> str:
    return f"RSNA2024/{series.study}/{series.series}" + (f"/{file}" if file else "")
