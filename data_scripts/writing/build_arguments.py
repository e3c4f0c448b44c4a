"""What may be asked of a build, and what is refused before anything is read."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from data_scripts.hub.licenses import check_license
from data_scripts.records import NOT_STATED, NUM_DRAWN_PATIENTS, SourceAbout
from data_scripts.sources import SOURCES
from data_scripts.splits import DEFAULT_FRACTIONS


@dataclass(kw_only=True)
class BuildArguments:
    """What a build needs to know."""

    source: str = field(metadata={"help": "Where the rows come from; see --list.", "choices": sorted(SOURCES)})
    out: Path = field(metadata={"help": "Folder to make. It must not exist, unless --overwrite is given."})
    raw: Path | None = field(
        default=None, metadata={"help": "Folder of the raw studies; not needed for the synthetic source."}
    )
    notes: Path | None = field(
        default=None, metadata={"help": "File of the written reports, where it does not lie in --raw."}
    )
    split_by: Literal["patient", "record"] = field(
        default="patient",
        metadata={"help": "record: the paper's split, which puts a patient into several splits; the card says so."},
    )
    split_fractions: list[float] = field(
        default_factory=lambda: list(DEFAULT_FRACTIONS),
        metadata={"help": "Shares of train, validation and test. 0 leaves a split out."},
    )
    seed: int = field(
        default=0, metadata={"help": "Seed of the splits, of the order of shards, and of what a source draws."}
    )
    num_patients: int | None = field(
        default=None, metadata={"help": f"Patients to draw (synthetic source only), {NUM_DRAWN_PATIENTS} if not given."}
    )
    max_bad: float = field(
        default=0.05,
        metadata={"help": "Largest share of rows left out for a defect; above it nothing is built."},
    )
    num_proc: int = field(
        default=1, metadata={"help": "Processes that decode and write images; the result is the same for any number."}
    )
    streaming_shards: int | None = field(
        default=None,
        metadata={
            "help": "Files of equal length for each split, rows mixed, for load_dataset(..., streaming=True) on "
            "several machines; else as few files as keep each below 500 MB, rows in the order of the source."
        },
    )
    license: str | None = field(
        default=None,
        metadata={
            "help": "Licence of your own data (folder source), as the Hub names it (cc-by-4.0) or `other: ` and words. "
            "Who states one says that the dataset may be passed on; without one the card forbids it."
        },
    )
    keep_ids: bool = field(
        default=False,
        metadata={
            "help": "Leave ids of patients and studies and names of files as they are; else those of a source that is "
            "no public data set are replaced by pseudonyms."
        },
    )
    pseudonym_key: Path | None = field(
        default=None,
        metadata={
            "help": "File of the key of the pseudonyms, made if there is none; keep it secret. Builds with one key "
            "give a patient one pseudonym. Without it the key is drawn for this build and thrown away."
        },
    )
    overwrite: bool = field(default=False, metadata={"help": "Replace --out if it holds an earlier build."})
    push_to_hub: str | None = field(
        default=None,
        metadata={
            "help": "owner/name of a private dataset on the Hub to publish it as; see data_scripts.publish_dataset."
        },
    )
    list: bool = field(
        default=False, metadata={"help": "Say what each source is, its licence, size and where to get it, and leave."}
    )
    tag: str = field(
        default="v0.1", metadata={"help": "Name of the version that --push_to_hub publishes; a dataset has each once."}
    )


def check_numbers(args: BuildArguments) -> None:
    """Refuse numbers out of their range.

    Raises:
        ValueError: If there is one.
    """
    if not 0 <= args.max_bad <= 1:
        raise ValueError(f"--max_bad is a share of the rows, 0 to 1, got {args.max_bad}")
    if args.num_proc < 1:
        raise ValueError(f"--num_proc is a number of processes, 1 or more, got {args.num_proc}")
    if args.streaming_shards is not None and args.streaming_shards < 1:
        raise ValueError(f"--streaming_shards is a number of files, 1 or more, got {args.streaming_shards}")


def check_options(args: BuildArguments, about: SourceAbout) -> None:
    """Refuse what the source would not heed.

    Raises:
        ValueError: If there is such an option.
    """
    if args.notes is not None and not about.reads_notes:
        readers = ", ".join(sorted(name for name, source in SOURCES.items() if source.ABOUT.reads_notes))
        raise ValueError(f"--notes is read by the sources {readers}, and not by {args.source}; leave it out")
    if args.num_patients is not None and not about.draws_patients:
        raise ValueError(
            f"--num_patients says how many to draw; {args.source} takes all that --raw holds, leave it out"
        )
    if args.license is not None and about.license != NOT_STATED:
        raise ValueError(f"--license states that of your own data; {args.source} stands under its own, leave it out")
    if args.license is not None:
        check_license(args.license)
    if args.tag != BuildArguments.tag and not args.push_to_hub:
        raise ValueError(f"--tag {args.tag} names the version that --push_to_hub publishes; give that, too")
    if args.pseudonym_key is not None and (args.keep_ids or about.has_public_ids):
        why = "with --keep_ids ids stay" if args.keep_ids else f"{args.source} is published with pseudonyms, which stay"
        raise ValueError(f"--pseudonym_key would not be used: {why}; leave it out")
