"""Knee radiographs with their Kellgren-Lawrence grade: `train/2/9003175L.png`, in folders of split and grade.

The first seven digits of a name are the patient, `L` or `R` is the knee. The set has no written reports: captions are
composed from the grade and the side (see `compose_knee_captions`).
"""

import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from data_scripts.imaging.images import read_image
from data_scripts.records import KNEE, NO_FINDING, Exclusion, ReadOptions, Record, SourceAbout, SourceInfo
from data_scripts.reports.phrasing import as_text, distinct
from data_scripts.splits import num_shared_patients

ABOUT = SourceAbout(
    name="knee_kl",
    summary=(
        "Knee radiographs of the Osteoarthritis Initiative, 8,260 of 224 x 224 pixels, with Kellgren-Lawrence grades; "
        "no written reports: captions are composed from the grades."
    ),
    license="cc-by-4.0",
    citation=(
        "Chen, Knee Osteoarthritis Severity Grading Dataset, Mendeley Data 56rmx5bjcr, version 1 (2018), derived from "
        "the Osteoarthritis Initiative."
    ),
    size="about 0.3 GB (224 x 224)",
    where="https://data.mendeley.com/datasets/56rmx5bjcr/1: the folders train/, val/ and test/ of the 224 x 224 images",
    anatomy=KNEE,
    labels_from="grades",
)
OSTEOARTHRITIS = "osteoarthritis"
LABEL_NAMES = (OSTEOARTHRITIS, NO_FINDING)
NUM_REPHRASINGS = 4

SPLIT_OF_FOLDER = {"train": "train", "val": "validation", "test": "test"}
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
_KNEE_NAME = re.compile(r"([0-9]{7})([LR])")
_SIDES = {"L": "left", "R": "right"}

KL_GRADES = ("0", "1", "2", "3", "4")

# The definition of each grade (Kellgren and Lawrence 1957), in several wordings; each belongs to one grade only.
DEFINITIONS = {
    "0": (
        "no radiographic features of osteoarthritis",
        "no osteophytes and no joint space narrowing",
        "a normal joint without signs of osteoarthritis",
    ),
    "1": (
        "doubtful joint space narrowing with possible osteophytic lipping",
        "possible osteophytic lipping and doubtful narrowing of the joint space",
        "doubtful osteoarthritis",
    ),
    "2": (
        "definite osteophytes with possible joint space narrowing",
        "possible narrowing of the joint space and definite osteophytes",
        "mild osteoarthritis",
    ),
    "3": (
        "multiple osteophytes, definite joint space narrowing and some sclerosis",
        "definite narrowing of the joint space with multiple osteophytes and some sclerosis",
        "moderate osteoarthritis",
    ),
    "4": (
        "large osteophytes, marked joint space narrowing and severe sclerosis",
        "marked narrowing of the joint space with large osteophytes and severe sclerosis",
        "severe osteoarthritis",
    ),
}
# Wordings for measuring: no caption and no training prompt has them.
UNSEEN_DEFINITIONS = {
    "0": ("intact joint space and no bony spurs", "a healthy joint without degenerative change"),
    "1": ("questionable spurring with a joint space of borderline width", "equivocal signs of early degeneration"),
    "2": ("clear bony spurs while the joint space is perhaps slightly reduced", "early but established degeneration"),
    "3": (
        "several moderate spurs, a clearly reduced joint space and sclerotic bone ends",
        "established degeneration of intermediate degree",
    ),
    "4": ("bulky spurs, a nearly lost joint space and deformed bone ends", "end-stage degeneration"),
}
# What tells grade 1, the one that readers agree on least, from grades 0 and 2.
RICH_DEFINITIONS = {
    "1": (
        "a minute osteophyte of doubtful significance at a joint margin, with a joint space of normal height",
        "slight sharpening of the tibial spines, without a definite osteophyte or definite narrowing",
        "doubtful narrowing of the medial joint space, without sclerosis and without a definite osteophyte",
        "more than a normal joint, but less than mild osteoarthritis",
    )
}
UNSEEN_RICH_DEFINITIONS = {
    "1": (
        "tiny questionable spurs at the joint line while the joint space is kept",
        "changes too slight to be called definite degeneration, yet not a healthy joint",
    )
}
GRADES = ("Kellgren-Lawrence grade {}", "Kellgren and Lawrence grade {}", "KL grade {}", "Kellgren-Lawrence {}")
KNEES = ("{} knee", "frontal radiograph of the {} knee", "radiograph of the {} knee", "{} knee radiograph")
CAPTIONS = (
    "{knee}: {definition}. {grade}",
    "{knee}: {grade}, {definition}",
    "{knee} with {definition} ({grade})",
    "{grade}: {definition}. {knee}",
    "{definition}, {grade}. {knee}",
)


class _Knee(NamedTuple):
    """Facts in the path of an image."""

    file: str
    split: str
    grade: str
    patient: str
    side: str


def describe(options: ReadOptions) -> SourceInfo:
    """Describe what was found, and whose splits are used; raise a ValueError for a folder without splits."""
    knees, _ = _sort_out(_raw_folder(options))
    problem = _problem_of_splits(knees)
    return SourceInfo(
        about=ABOUT,
        summary=(
            f"Frontal radiographs of {len(knees)} knees with Kellgren-Lawrence grades. "
            f"Class `{OSTEOARTHRITIS}` is grade 2 and above, `{NO_FINDING}` grade 0; grade 1 (doubtful) has no class. "
            f"The dataset's own splits are {f'not used: {problem}' if problem else 'used'}."
        ),
        label_names=LABEL_NAMES,
        grade_names=KL_GRADES,
        report_origin=(
            "composed by a program from the Kellgren-Lawrence grade and the side, in varied wording; the dataset has "
            "no written reports"
        ),
    )


def read(options: ReadOptions) -> Iterator[Record | Exclusion]:
    """Yield each image as a record or an exclusion; raise a ValueError as `describe` does.

    The dataset's own splits are kept if all three are there and no patient is in two of them.
    """
    raw = _raw_folder(options)
    knees, exclusions = _sort_out(raw)
    keeps_splits = _problem_of_splits(knees) is None
    yield from exclusions
    for knee in knees:
        report, *rephrasings = compose_knee_captions(
            knee.grade, knee.side, random.Random(f"{options.seed}/{knee.patient}{knee.side}"), 1 + NUM_REPHRASINGS
        )
        yield Record(
            load_image=partial(read_image, raw / knee.file),
            report=report,
            rephrasings=tuple(rephrasings),
            labels=_labels(knee.grade),
            grade=knee.grade,
            patient_id=f"knee-{knee.patient}",
            study_id=f"knee-{knee.patient}",
            plane="coronal",
            sequence="other",
            split=knee.split if keeps_splits else None,
            source=f"knee_kl/{knee.file}",
        )


def compose_knee_captions(grade: str, side: str, wording: random.Random, num_captions: int) -> list[str]:
    """Compose distinct captions of the patient's `left` or `right` knee that all state the same facts."""
    return distinct(lambda: _caption(grade, side, wording), num_captions)


def _caption(grade: str, side: str, wording: random.Random) -> str:
    caption = wording.choice(CAPTIONS).format(
        knee=wording.choice(KNEES).format(side),
        grade=wording.choice(GRADES).format(grade),
        definition=wording.choice(DEFINITIONS[grade]),
    )
    return as_text(caption.split(". "))


def _labels(grade: str) -> tuple[str, ...]:
    if int(grade) >= 2:
        return (OSTEOARTHRITIS,)
    return (NO_FINDING,) if grade == "0" else ()


def _raw_folder(options: ReadOptions) -> Path:
    raw = options.raw
    if raw is None or not any((raw / folder).is_dir() for folder in SPLIT_OF_FOLDER):
        raise ValueError(f"--raw must contain the folders {', '.join(SPLIT_OF_FOLDER)} with 0 to 4 in each, got {raw}")
    return raw


def _sort_out(raw: Path) -> tuple[list[_Knee], list[Exclusion]]:
    knees_of_name: dict[str, list[_Knee]] = defaultdict(list)
    exclusions = []
    for file in sorted(path.relative_to(raw).as_posix() for path in raw.rglob("*") if not path.is_dir()):
        item = _knee_or_exclusion(file)
        if isinstance(item, Exclusion):
            exclusions.append(item)
        else:
            knees_of_name[item.patient + item.side].append(item)
    for repeated in knees_of_name.values():
        if len(repeated) > 1:
            files = " and ".join(knee.file for knee in repeated)
            reason = f"several files of one knee: {files}; keep one"
            exclusions += [Exclusion(f"knee_kl/{knee.file}", reason) for knee in repeated]
    return [knees[0] for knees in knees_of_name.values() if len(knees) == 1], exclusions


def _knee_or_exclusion(file: str) -> _Knee | Exclusion:
    source = f"knee_kl/{file}"
    folders, name = Path(file).parts[:-1], Path(file)
    if not folders or folders[0] not in SPLIT_OF_FOLDER or name.name.startswith("."):
        return Exclusion(source, f"hidden, or outside the folders {', '.join(SPLIT_OF_FOLDER)}", by_rule=True)
    knee = _KNEE_NAME.fullmatch(name.stem)
    if re.fullmatch(r"[0-9]{7}", name.stem):
        return Exclusion(source, f"{name.name!r} names no side; expected 7 digits and L or R, as 9003175L.png")
    if knee is None or name.suffix.lower() not in IMAGE_SUFFIXES:
        return Exclusion(source, f"unknown image name {name.name!r}; expected 7 digits and L or R, as 9003175L.png")
    if len(folders) != 2 or folders[1] not in KL_GRADES:
        beyond = len(folders) == 2 and folders[1].isdigit()
        problem = "grade outside the scale" if beyond else "unknown folder"
        return Exclusion(source, f"{problem} {'/'.join(folders)!r}; expected a grade, 0 to 4")
    return _Knee(file, SPLIT_OF_FOLDER[folders[0]], folders[1], knee[1], _SIDES[knee[2]])


def _problem_of_splits(knees: Sequence[_Knee]) -> str | None:
    """Say why the dataset's own splits cannot be used; None if they can."""
    missing = [folder for folder, split in SPLIT_OF_FOLDER.items() if all(knee.split != split for knee in knees)]
    if missing:
        return f"no image in {' and '.join(missing)}"
    num_shared = num_shared_patients([knee.patient for knee in knees], [knee.split for knee in knees])
    return f"{num_shared} patients are in more than one of them" if num_shared else None
