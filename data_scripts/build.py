"""Build a dataset folder that `datasets.load_dataset` reads, from one source of paired images and reports.

    python -m data_scripts.build --source synthetic --out data/synthetic
    python -m data_scripts.build --source folder --raw my_study --out data/my_study
    python -m data_scripts.build --source spider --raw raw/spider_discs --out data/spider_discs

The folder holds Parquet shards, a dataset card and `build_report.json`. It appears whole or not at all: everything
is written into a hidden sibling folder first, which is renamed at the end (a build that is killed leaves that folder,
`.NAME.partial-*`, to be deleted). Each row of the source is written or
listed in the report with the reason why it was left out.
"""

import json
import shlex
import shutil
import sys
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import datasets
from transformers.hf_argparser import HfArgumentParser

from data_scripts.dataset_card import card_text
from data_scripts.lumbar_builder import DATA_FOLDER, LumbarReports, card_metadata, split_table
from data_scripts.records import SPLITS, Exclusion, ReadOptions, Record, SourceInfo, record_problem
from data_scripts.sources import SOURCES
from data_scripts.splits import (
    DEFAULT_FRACTIONS,
    check_given_splits,
    num_shared_patients,
    split_by_patient,
    split_by_record,
)

REPORT_NAME = "build_report.json"
NUM_NAMED_EXCLUSIONS = 10


@dataclass(kw_only=True)
class BuildArguments:
    """What a build needs to know."""

    source: str = field(metadata={"help": "Where the rows come from.", "choices": sorted(SOURCES)})
    out: Path = field(metadata={"help": "Folder to make. It must not exist, unless --overwrite is given."})
    raw: Path | None = field(
        default=None, metadata={"help": "Folder of the raw studies; not needed for the synthetic source."}
    )
    split_by: Literal["patient", "record"] = field(
        default="patient",
        metadata={"help": "record: the paper's split, which puts a patient into several splits; the card says so."},
    )
    split_fractions: list[float] = field(
        default_factory=lambda: list(DEFAULT_FRACTIONS),
        metadata={"help": "Shares of train, validation and test. 0 leaves a split out."},
    )
    seed: int = field(default=0, metadata={"help": "Seed of the splits, and of what a source draws."})
    num_patients: int = field(default=400, metadata={"help": "Patients to draw (synthetic source only)."})
    max_bad: float = field(
        default=0.05, metadata={"help": "Largest share of rows left out; above it nothing is built."}
    )
    overwrite: bool = field(default=False, metadata={"help": "Replace --out if it holds an earlier build."})


def build(args: BuildArguments, command: str) -> dict[str, Any]:
    """Build the dataset at `args.out`.

    Args:
        args: What to build.
        command: The command line, for the card.

    Returns:
        The build report, as written.

    Raises:
        ValueError: If an argument cannot be met, the source cannot be read or too many rows are bad; nothing is
            left at `args.out` then, or the earlier build stays as it was.
    """
    _check_out(args)
    if not 0 <= args.max_bad <= 1:
        raise ValueError(f"--max_bad is a share of the rows, 0 to 1, got {args.max_bad}")
    source, options = SOURCES[args.source], ReadOptions(raw=args.raw, seed=args.seed, num_patients=args.num_patients)
    info = source.describe(options)

    records, exclusions = _sort_out(source.read(options), info)
    num_read = len(records) + len(exclusions)
    _check_share_of_bad(exclusions, num_read, args.max_bad)
    records_of_split, split_rule = _assign_splits(records, args)

    args.out.parent.mkdir(parents=True, exist_ok=True)
    staging = args.out.parent / f".{args.out.name}.partial-{uuid.uuid4().hex[:8]}"
    staging.mkdir()
    try:
        builder = _write_parquet(staging, info, records_of_split)
        exclusions += builder.exclusions
        _check_share_of_bad(exclusions, num_read, args.max_bad)
        written = _without(builder.exclusions, records_of_split)
        report = _build_report(args, command, num_read, exclusions, written, split_rule)
        (staging / REPORT_NAME).write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        card = card_metadata(info, builder.info) + card_text(info, report)
        (staging / "README.md").write_text(card, encoding="utf-8")
        _publish(staging, args.out, args.overwrite)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return report


def _check_out(args: BuildArguments) -> None:
    """Refuse an output folder that exists, unless it is an earlier build that may be replaced."""
    out = args.out.resolve()
    if args.raw is not None and (args.raw.resolve() == out or out in args.raw.resolve().parents):
        raise ValueError(f"--out {args.out} holds the raw data {args.raw}; choose another folder")
    if not args.out.exists():
        return
    if not args.overwrite:
        raise ValueError(f"--out {args.out} exists; choose another folder, or replace it with --overwrite")
    is_build = args.out.is_dir() and ((args.out / REPORT_NAME).is_file() or not any(args.out.iterdir()))
    if not is_build:
        raise ValueError(f"--out {args.out} is no earlier build (it has no {REPORT_NAME}); remove it yourself")


def _sort_out(items: Iterable[Record | Exclusion], info: SourceInfo) -> tuple[list[Record], list[Exclusion]]:
    """Separate the rows that can be written from those that cannot, before any pixel is loaded."""
    records: list[Record] = []
    exclusions: list[Exclusion] = []
    row_of_source: dict[str, int] = {}
    for row, item in enumerate(items, start=1):
        if isinstance(item, Exclusion):
            exclusions.append(item)
            continue
        first_row = row_of_source.setdefault(item.source, row)
        problem = record_problem(item, info)
        if first_row != row:
            problem = f"duplicate id: row {row} repeats row {first_row}"
        if problem:
            exclusions.append(Exclusion(item.source, problem))
        else:
            records.append(item)
    return records, exclusions


def _check_share_of_bad(exclusions: Sequence[Exclusion], num_read: int, max_bad: float) -> None:
    if num_read == 0:
        raise ValueError("the source holds no rows")
    bad_rows = [exclusion for exclusion in exclusions if not exclusion.by_rule]
    if len(bad_rows) > max_bad * num_read:
        named = "\n".join(f"  {bad.source}: {bad.reason}" for bad in bad_rows[:NUM_NAMED_EXCLUSIONS])
        raise ValueError(
            f"{len(bad_rows)} of {num_read} rows are bad, more than --max_bad {max_bad:g} allows; nothing was built. "
            f"Mend them, or raise --max_bad. The first {min(len(bad_rows), NUM_NAMED_EXCLUSIONS)}:\n{named}"
        )


def _assign_splits(records: Sequence[Record], args: BuildArguments) -> tuple[dict[str, list[Record]], str]:
    """Give each record its split; also say by which rule, for the card."""
    if not records:
        raise ValueError("no usable row is left; see the reasons with a lower --max_bad")
    patient_ids = [record.patient_id for record in records]
    labels = [record.labels for record in records]
    given = [record.split for record in records if record.split is not None]
    shares = " / ".join(f"{100 * fraction:g} %" for fraction in args.split_fractions)
    if given:
        if len(given) != len(records) or args.split_by != "patient":
            raise ValueError(
                f"the source gives {len(given)} of {len(records)} rows a split: it must be given for all of them, "
                "and --split_by left out"
            )
        check_given_splits(patient_ids, given)
        splits, rule = given, "As the source gives them. No patient is in two splits."
    elif args.split_by == "patient":
        splits = split_by_patient(patient_ids, labels, fractions=args.split_fractions, seed=args.seed)
        rule = f"By patient, {shares}, stratified by the patients' classes, seed {args.seed}."
    else:
        sources = [record.source for record in records]
        splits = split_by_record(sources, labels, fractions=args.split_fractions, seed=args.seed)
        rule = f"By record, {shares}, stratified by class, seed {args.seed}."
    records_of_split = {
        name: [record for record, split in zip(records, splits, strict=True) if split == name] for name in SPLITS
    }
    return {name: members for name, members in records_of_split.items() if members}, rule


def _write_parquet(staging: Path, info: SourceInfo, records_of_split: Mapping[str, Sequence[Record]]) -> LumbarReports:
    scratch = staging / "scratch"  # lock files and a second description, which the card makes needless
    builder = LumbarReports(info, records_of_split, cache_dir=scratch / "cache")
    builder.download_and_prepare(str(scratch / DATA_FOLDER), file_format="parquet")
    (staging / DATA_FOLDER).mkdir()
    for shard in sorted((scratch / DATA_FOLDER).glob("*.parquet")):
        shard.rename(staging / DATA_FOLDER / shard.name)
    shutil.rmtree(scratch)
    return builder


def _without(
    exclusions: Sequence[Exclusion], records_of_split: Mapping[str, Sequence[Record]]
) -> dict[str, list[Record]]:
    """The records that were written: those whose image turned out unusable are taken out."""
    left_out = {exclusion.source for exclusion in exclusions}
    written = {
        split: [record for record in records if record.source not in left_out]
        for split, records in records_of_split.items()
    }
    empty = [split for split, records in written.items() if not records]
    if empty:
        raise ValueError(f"no usable image is left in the splits {', '.join(empty)}; mend the rows left out")
    return written


def _build_report(
    args: BuildArguments,
    command: str,
    num_read: int,
    exclusions: Sequence[Exclusion],
    records_of_split: Mapping[str, Sequence[Record]],
    split_rule: str,
) -> dict[str, Any]:
    written = [record for records in records_of_split.values() for record in records]
    # Every row is accounted for: written, or listed with its reason.
    assert num_read == len(written) + len(exclusions)
    patient_ids = [record.patient_id for record in written]
    splits = [split for split, records in records_of_split.items() for _ in records]
    leak = {"num_shared": num_shared_patients(patient_ids, splits), "num_patients": len(set(patient_ids))}
    return {
        "command": command,
        "date": datetime.now(UTC).date().isoformat(),
        "arguments": {name: str(value) if isinstance(value, Path) else value for name, value in asdict(args).items()},
        "rows_read": num_read,
        "rows_written": len(written),
        "num_masks": sum(record.load_mask is not None for record in written),
        "split_rule": split_rule,
        "splits": split_table(records_of_split),
        "leak": leak if args.split_by == "record" else None,
        "exclusions": [asdict(exclusion) for exclusion in exclusions],
    }


def _publish(staging: Path, out: Path, overwrite: bool) -> None:
    """Move the finished folder to its place; an earlier build is removed only after that."""
    earlier = staging.with_name(f"{staging.name}.earlier")
    if overwrite and out.exists():
        out.rename(earlier)
    staging.rename(out)
    shutil.rmtree(earlier, ignore_errors=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse the command line, build, and say what was built."""
    argv = sys.argv[1:] if argv is None else argv
    # `HfArgumentParser` declares its argument as a NewType that no class satisfies.
    (args,) = HfArgumentParser(BuildArguments).parse_args_into_dataclasses(list(argv))  # type: ignore[arg-type]
    datasets.disable_progress_bars()  # ours counts images, over whole splits
    try:
        report = build(args, command=shlex.join(["python", "-m", "data_scripts.build", *argv]))
    except ValueError as error:
        sys.exit(f"error: {error}")
    for name, split in report["splits"].items():
        print(f"{name:>10}: {split['rows']} rows of {split['patients']} patients")
    print(f"{report['rows_written']} of {report['rows_read']} rows written to {args.out}")
    for exclusion in report["exclusions"][:NUM_NAMED_EXCLUSIONS]:
        print(f"left out: {exclusion['source']}: {exclusion['reason']}")


if __name__ == "__main__":
    main()
