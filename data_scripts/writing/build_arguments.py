"""The settings of a build, and their checks before anything is read."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_scripts.hub.licenses import check_license
from data_scripts.records import BACKGROUND, LUMBAR_SPINE, NOT_STATED, NUM_DRAWN_PATIENTS, SourceAbout, says_anything
from data_scripts.splits import DEFAULT_FRACTIONS
from data_scripts.system.command_line import check_choices, setting

MAX_MASK_CLASSES = 255  # 255 itself means "ignored" in training

# The keys of `sources.SOURCES`, whose modules take seconds to import.
SourceName = Literal["bids", "folder", "knee_kl", "lsma_pqr", "mendeley", "rsna2024", "spider", "synthetic"]


@dataclass(kw_only=True)
class BuildArguments:
    """Build a dataset from one source of images and reports."""

    # Only --list works without the first two.
    source: SourceName = setting(None, "Where the rows come from; --list describes each source.")
    out: Path = setting(None, "Folder to make. It must not exist, unless --overwrite is given.")
    raw: Path | None = setting(None, "Folder of the raw studies; the synthetic source needs none.")
    notes: Path | None = setting(None, "File of the written reports, if it is not in --raw.")
    crops: Literal["discs"] | None = setting(
        None, "discs: cut each disc out of the volumes where their masks mark it (spider source)."
    )
    context_mm: float | None = setting(None, "Margin on each side of a crop; default 0, the edge of the disc.")
    slices: str | None = setting(
        None,
        "Slices of each volume that become rows: all, middle, or a number, the slices about the middle (of the "
        "spine or, with --crops, of the disc, for spider); default all, for spider middle.",
    )
    split_by: Literal["patient", "record"] = setting(
        "patient", "record: the paper's split, which puts patients into several splits; the card says so."
    )
    split_fractions: list[float] = setting(
        [*DEFAULT_FRACTIONS], "Shares of train, validation and test. 0 leaves a split out."
    )
    seed: int = setting(0, "Seed of the splits, of the order of shards, and of what a source draws.")
    num_patients: int | None = setting(None, f"Patients to draw (synthetic source only); default {NUM_DRAWN_PATIENTS}.")
    plane: Literal["axial", "sagittal"] | None = setting(
        None, "Plane of the slices to draw (synthetic source only); default axial. The patients are the same."
    )
    grades: Literal["pfirrmann", "severity"] | None = setting(
        None,
        "Grades of a row (lsma_pqr source only). pfirrmann (default): of its discs. severity: of the patient, as the "
        "notes have it: normal, mild, moderate or severe.",
    )
    labels: Literal["findings", "paper"] = setting(
        "findings",
        "Classes of a row. findings: those of the source. paper: the pair of the LumbarCLIP paper, LBP or No Finding, "
        "as the source's labels say or, without any, the reports.",
    )
    labels_from_reports: bool = setting(
        False,
        "Read the labels from the reports, not from the source. A report that is not understood gives none; "
        "build_report.json lists it.",
    )
    max_bad: float = setting(0.05, "Largest share of rows left out for a defect; above it nothing is built.")
    num_proc: int = setting(1, "Processes that decode and write images; the result is the same for any number.")
    streaming_shards: int | None = setting(
        None,
        "Files of equal length for each split, rows mixed, for load_dataset(..., streaming=True) on several machines. "
        "If not given: as few files as keep each below 500 MB, rows in the order of the source.",
    )
    license: str | None = setting(
        None,
        "Licence of your own data (folder source), as the Hub names it (cc-by-4.0) or `other: ` and words: the "
        "dataset may then be shared. If not given, the card forbids sharing.",
    )
    anatomy: str | None = setting(
        None,
        "What your own images show (folder and bids sources), such as knee: classes are then prompted for it. If not "
        f"given: {LUMBAR_SPINE}.",
    )
    mask_names: list[str] | None = setting(
        None,
        "Names of the classes of your own masks (folder source), from 0 on, background first: background vertebra "
        "disc. A row whose mask has other classes is then left out.",
    )
    pseudo_masks: bool = setting(
        False,
        "Compute a mask for whole sagittal T2 slices without one, by thresholds, edges and the report. Such masks are "
        "called pseudo in mask_origin and on the card: a guess to train on, not to measure by.",
    )
    keep_ids: bool = setting(
        False,
        "Keep ids of patients and studies and names of files. If not given, pseudonyms replace those of a source that "
        "is not a public dataset.",
    )
    pseudonym_key: Path | None = setting(
        None,
        "File of the secret key of the pseudonyms, made if missing. Builds with the same key give a patient the same "
        "pseudonym. If not given, the key is drawn for this build and thrown away.",
    )
    overwrite: bool = setting(False, "Replace --out if it is an earlier build.")
    push_to_hub: str | None = setting(
        None, "owner/name of a private dataset on the Hub to publish it as; see data_scripts.publish_dataset."
    )
    tag: str = setting("v0.1", "Name of the version that --push_to_hub publishes, unique in the repository.")
    # Last, since it hides the type.
    list: bool = setting(False, "Describe each source, its licence, its size and where to get it, and exit.")

    def __post_init__(self) -> None:
        check_choices(self)
        if not self.list and (self.source is None or self.out is None):
            raise ValueError("give --source and --out; --list describes the sources")
        if not 0 <= self.max_bad <= 1:
            raise ValueError(f"--max_bad must be a share of the rows, 0 to 1, got {self.max_bad}")
        for name, number in (("num_proc", self.num_proc), ("streaming_shards", self.streaming_shards)):
            if number is not None and number < 1:
                raise ValueError(f"--{name} must be 1 or more, got {number}")
        if self.context_mm is not None and (self.crops is None or not 0 <= self.context_mm < math.inf):
            raise ValueError(f"--context_mm {self.context_mm:g} is the margin around --crops, 0 or more; give both")
        if self.slices not in (None, "all", "middle") and not (self.slices.isdecimal() and int(self.slices) > 0):
            raise ValueError(f"--slices must be all, middle or a number of slices, got {self.slices!r}")
        if self.license is not None:
            check_license(self.license)
        if self.anatomy is not None and not re.fullmatch(r"[a-z]+(?:[ -][a-z]+){0,3}", self.anatomy):
            raise ValueError(
                f"--anatomy names what the images show in small letters, such as knee or {LUMBAR_SPINE!r}; got "
                f"{self.anatomy!r}"
            )
        if self.mask_names is not None:
            check_mask_names(self.mask_names)
        if self.tag != BuildArguments.tag and not self.push_to_hub:
            raise ValueError(f"--tag {self.tag} names the version that --push_to_hub publishes; give that, too")


def check_mask_names(names: Sequence[str]) -> None:
    """Raise a ValueError for names that cannot be those of mask classes.

    Example:
        >>> check_mask_names(["background", "vertebra", "disc"])
    """
    repeated = len({name.strip().casefold() for name in names}) < len(names)
    if len(names) < 2 or names[0] != BACKGROUND or repeated or not all(map(says_anything, names)):
        raise ValueError(
            f"--mask_names are the classes 0, 1, ... of the masks, {BACKGROUND} first and each with a name of its own; "
            f"got {' '.join(map(repr, names))}"
        )
    if len(names) > MAX_MASK_CLASSES:
        raise ValueError(f"--mask_names names {len(names)} classes; a mask of 8 bits has {MAX_MASK_CLASSES}")


def check_options(args: BuildArguments, about: SourceAbout) -> None:
    """Raise a ValueError for an option that the source would ignore."""
    if args.notes is not None and not about.reads_notes:
        raise ValueError(f"the source {args.source} does not read --notes; leave it out")
    if args.num_patients is not None and not about.draws_patients:
        raise ValueError(f"the source {args.source} takes all patients in --raw; leave --num_patients out")
    if args.plane is not None and not about.draws_patients:
        raise ValueError(f"the source {args.source} takes slices as they were scanned; leave --plane out")
    if args.grades is not None and args.grades not in about.kinds_of_grades:
        raise ValueError(f"the source {args.source} has no choice of grades; leave --grades out")
    if args.crops is not None and not about.cuts_crops:
        raise ValueError(f"the source {args.source} has no volumes to cut --crops out of; leave it out")
    if args.slices is not None and not about.reads_volumes and args.crops is None:
        raise ValueError(f"the source {args.source} does not read whole volumes; leave --slices out")
    if about.labels_from == "grades" and (args.labels == "paper" or args.labels_from_reports):
        option = "--labels_from_reports" if args.labels_from_reports else "--labels paper"
        raise ValueError(
            f"{option} needs written reports: those of {args.source} were composed from its grades, which its labels "
            "state already; leave the option out"
        )
    if args.mask_names is not None and not about.has_own_masks:
        named = f"{args.source} names the classes of its masks, or has none"
        raise ValueError(f"--mask_names is for your own masks (--source folder); {named}; leave the option out")
    if args.license is not None and about.license != NOT_STATED:
        raise ValueError(f"--license is for your own data; {args.source} has its own licence; leave the option out")
    if args.anatomy is not None and about.license != NOT_STATED:
        raise ValueError(
            f"--anatomy is for your own data; {args.source} shows the {about.anatomy}; leave the option out"
        )
    if args.pseudonym_key is not None and (args.keep_ids or about.has_public_ids):
        why = "--keep_ids keeps the ids" if args.keep_ids else f"{args.source} is published with pseudonyms"
        raise ValueError(f"--pseudonym_key would not be used, since {why}; leave it out")
