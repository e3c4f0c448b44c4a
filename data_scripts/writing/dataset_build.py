"""Build a dataset from the rows of a source: shards, report and card, in a staging folder that survives a kill."""

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from data_scripts.auditing.built_folder import shard_digests
from data_scripts.lumbar_builder import DATA_FOLDER, card_metadata, dataset_features
from data_scripts.preprocessing.pseudo_masks import PSEUDO_MASK_NAMES, has_pseudo_mask
from data_scripts.privacy.protection import kinds_in_names, pseudonym_of_row, pseudonymise, pseudonyms_of_public
from data_scripts.privacy.pseudonyms import Pseudonyms
from data_scripts.records import (
    NUM_DRAWN_PATIENTS,
    SPLITS,
    Exclusion,
    ReadOptions,
    Record,
    SourceInfo,
    record_problem,
)
from data_scripts.sources import SOURCES
from data_scripts.splits import DEFAULT_FRACTIONS, check_given_splits, split_by_patient
from data_scripts.system.staging import clear, publish, staging_folder
from data_scripts.system.whole_files import write_private_json, write_text
from data_scripts.system.worker_pool import Workers
from data_scripts.writing.build_arguments import BuildArguments, check_options
from data_scripts.writing.build_report import (
    REPORT_NAME,
    build_report,
    deidentification_report,
    row_names_path,
    without_row_names,
)
from data_scripts.writing.dataset_card import card_text
from data_scripts.writing.parts import (
    Part,
    any_finished,
    check_shards,
    join_parts,
    keep_finished,
    parts_of,
    read_result,
    write_part,
)
from data_scripts.writing.row_labels import Labelling, labels_report

NUM_NAMED_EXCLUSIONS = 10


def build(args: BuildArguments, command: str) -> dict[str, Any]:
    """Build the dataset at `args.out`, with the command line in its card; return the build report.

    Raises:
        ValueError: If an argument cannot be met, the source cannot be read or too many rows are bad; `args.out` is
            unchanged then.
    """
    check_options(args, SOURCES[args.source].ABOUT)
    with staging_folder(args.out) as staging:
        _check_out(args)
        try:
            return _build_in(staging, args, command)
        except ValueError as error:
            if not any_finished(staging / "parts"):
                clear(staging)
                raise
            # An unmounted disk must not cost hours of decoding, nor the key of the pseudonyms.
            raise ValueError(
                f"{error}\nThe images written so far stay in {staging}: the next build of {args.out} resumes from "
                "them; delete that folder to start over"
            ) from error


def _build_in(staging: Path, args: BuildArguments, command: str) -> dict[str, Any]:
    source = SOURCES[args.source]
    options = ReadOptions(
        raw=args.raw,
        seed=args.seed,
        num_patients=NUM_DRAWN_PATIENTS if args.num_patients is None else args.num_patients,
        plane=args.plane or "axial",
        notes=args.notes,
        num_proc=args.num_proc,
        slices=args.slices,
        license=args.license,
        crops=args.crops,
        context_mm=args.context_mm or 0.0,
        mask_names=tuple(args.mask_names or ()),
        grades=args.grades,
    )
    # Sources import the decoders, here in the background while the source is read.
    with Workers(args.num_proc, preload=("data_scripts.writing.parts", "data_scripts.sources")) as workers:
        # The rows, and the split of each.
        described = source.describe(options)
        if args.anatomy:
            described = replace(described, about=replace(described.about, anatomy=args.anatomy))
        labelling = Labelling.of(args, described)
        info = labelling.describe(described)
        if args.pseudo_masks:
            info = with_pseudo_classes(info)
        pseudonyms = None if args.keep_ids else _pseudonyms(args, info, staging)
        records, exclusions = sort_out(labelling.label(source.read(options)), info)
        if args.pseudo_masks:
            records = mark_for_pseudo_masks(records, described.mask_names)
        num_read = len(records) + len(exclusions)
        check_share_of_bad(exclusions, num_read, args.max_bad)
        records_of_split, split_rule = assign_splits(records, args.split_by, args.split_fractions, args.seed)
        if args.streaming_shards:
            for split, members in records_of_split.items():
                check_shards(split, len(members), args.streaming_shards)  # before any image is decoded
            records_of_split = shuffle_rows(records_of_split, args.seed)
        own_names = [record.source for record in _flat(records_of_split)]
        if pseudonyms is not None:
            records_of_split = pseudonymise(records_of_split, info.about, pseudonyms)

        # Their images, in parts; those of an interrupted build are kept.
        parts = _write_parts(workers, info, records_of_split, staging / "parts")
    results = [read_result(part) for part in parts]
    unusable = [exclusion for result in results for exclusion in result.exclusions]
    own_name_of = dict(zip((record.source for record in _flat(records_of_split)), own_names, strict=True))
    unusable_own = [replace(exclusion, source=own_name_of[exclusion.source]) for exclusion in unusable]
    exclusions += unusable_own
    check_share_of_bad(exclusions, num_read, args.max_bad)

    # The dataset: shards, report and card, and only then its name.
    left_out = {exclusion.source for exclusion in unusable}
    written = {
        split: [record for record in records if record.source not in left_out]
        for split, records in records_of_split.items()
    }
    if empty := [split for split, records in written.items() if not records]:
        named = ", ".join(empty)
        raise ValueError(f"no usable image is left in the splits {named}; fix the rows. {first_of(unusable_own)}")
    report = build_report(
        info,
        command=command,
        arguments={name: str(value) if isinstance(value, Path) else value for name, value in asdict(args).items()},
        num_read=num_read,
        exclusions=exclusions,
        records_of_split=written,
        split_rule=split_rule,
        deidentification=deidentification_report(
            _flat(written),
            has_public_ids=info.about.has_public_ids,
            keep_ids=args.keep_ids,
            replaced=sum((Counter(result.scrubbed) for result in results), Counter()),
            left=sum((Counter(result.left_in_texts) for result in results), kinds_in_names(info)),
            rows_left={source: kinds for result in results for source, kinds in result.rows_left.items()},
            burnt_in_text=[source for result in results for source in result.burnt_in_text],
            own_name_of=own_name_of,
        ),
        labels=labels_report(labelling, [*_flat(written)], own_name_of, described.label_names),
        facts_changed=[own_name_of[source] for result in results for source in result.facts_changed],
        orientation_not_stated=[own_name_of[source] for result in results for source in result.orientation_not_stated],
        num_pseudo_masks=sum(len(result.pseudo_masks) for result in results),
        windows_replaced=[own_name_of[source] for result in results for source in result.windows_replaced],
    )
    names: dict[str, Any] = {}
    if pseudonyms is not None and not info.about.has_public_ids:
        report, names = without_row_names(report, partial(pseudonym_of_row, about=info.about, pseudonyms=pseudonyms))
    dataset, report = _write_dataset(staging / "dataset", info, parts, report, args.streaming_shards)
    row_names_path(args.out).unlink(missing_ok=True)  # of an earlier build
    if names:
        write_private_json(row_names_path(args.out), names)  # first: no list of pseudonyms is ever without it
    publish(dataset, args.out, staging)
    return report


def sort_out(items: Iterable[Record | Exclusion], info: SourceInfo) -> tuple[list[Record], list[Exclusion]]:
    """Separate the rows that can be written from those that cannot, before any pixel is loaded."""
    records: list[Record] = []
    exclusions: list[Exclusion] = []
    first_of_source: dict[str, tuple[int, Record]] = {}
    for row, item in enumerate(items, start=1):
        if isinstance(item, Exclusion):
            exclusions.append(item)
            continue
        first_row, first = first_of_source.setdefault(item.source, (row, item))
        problem = record_problem(item, info) or _unwritable_text(item)
        if first_row != row:
            problem = f"duplicate id: row {row} repeats row {first_row}{_difference(item, first)}"
        if problem:
            exclusions.append(Exclusion(item.source, problem))
        else:
            records.append(item)
    return records, exclusions


def with_pseudo_classes(info: SourceInfo) -> SourceInfo:
    """Add the classes of pseudo-masks to those of the source, where it lacks them.

    Example:
        >>> from data_scripts.sources.lsma_pqr.source import ABOUT
        >>> info = SourceInfo(about=ABOUT, label_names=(), mask_names=("background", "disc", "sacrum"))
        >>> with_pseudo_classes(info).mask_names
        ('background', 'disc', 'sacrum', 'vertebra', 'spinal canal')
    """
    return replace(info, mask_names=tuple(dict.fromkeys((*info.mask_names, *PSEUDO_MASK_NAMES))))


def mark_for_pseudo_masks(records: Sequence[Record], source_names: Sequence[str]) -> list[Record]:
    """Mark the records that can have a pseudo-mask; the source's own masks keep its own classes, `source_names`.

    Raises:
        ValueError: If the source has masks of classes without names, or no record can have a pseudo-mask.
    """
    if not source_names and any(record.load_mask for record in records):
        raise ValueError("--pseudo_masks adds named classes, but those of your own masks have no names: --mask_names")
    own = tuple(source_names[1:])
    marked = [
        replace(record, mask_classes=own if record.mask_classes is None else record.mask_classes)
        if record.load_mask
        else replace(record, gets_pseudo_mask=True, mask_classes=PSEUDO_MASK_NAMES[1:])
        if has_pseudo_mask(record.plane, record.sequence, record.level)
        else record
        for record in records
    ]
    if not any(record.gets_pseudo_mask for record in marked):
        raise ValueError(
            "--pseudo_masks marks whole sagittal T2 slices without a mask, and there is none: name plane, sequence and "
            "the level `several`, or leave the option out"
        )
    return marked


def _difference(record: Record, first: Record) -> str:
    """Say what a row states otherwise than the first one of its image, which is kept."""
    names = ("patient_id", "study_id", "report", "labels", "grade")
    differing = [name for name in names if getattr(record, name) != getattr(first, name)]
    return f" with another {' and '.join(differing)}; remove the wrong row" if differing else ""


def _unwritable_text(record: Record) -> str | None:
    r"""Describe lone surrogates, from `"\ud800"` in JSON or a damaged file name, which cannot be stored."""
    try:
        ids = (record.patient_id, record.study_id, record.series_id or "", record.source)
        "".join((record.report, *record.rephrasings, *ids)).encode()
    except UnicodeEncodeError as error:
        return f"text that is not Unicode: {error.reason} ({error.object[error.start : error.start + 1]!r})"
    return None


def check_share_of_bad(exclusions: Sequence[Exclusion], num_read: int, max_bad: float) -> None:
    """Raise a ValueError if more than the share `max_bad` of the rows is defective, or there are no usable rows."""
    if num_read == 0:
        raise ValueError("the source has no rows")
    bad_rows = [exclusion for exclusion in exclusions if not exclusion.by_rule]
    if len(bad_rows) > max_bad * num_read:
        raise ValueError(
            f"{len(bad_rows)} of {num_read} rows are bad, more than --max_bad {max_bad:g} allows; nothing was built. "
            f"Fix them, or raise --max_bad. {first_of(bad_rows)}"
        )
    if len(exclusions) == num_read:
        raise ValueError(f"none of {num_read} rows is usable; nothing was built. {first_of(exclusions)}")


def first_of(exclusions: Sequence[Exclusion]) -> str:
    r"""List the first rows left out, with their reasons, for an error.

    Example:
        >>> first_of([Exclusion("scan 1", "truncated")])
        'The first 1:\n  scan 1: truncated'
    """
    first = exclusions[:NUM_NAMED_EXCLUSIONS]
    return "\n".join([f"The first {len(first)}:", *(f"  {bad.source}: {bad.reason}" for bad in first)])


def assign_splits(
    records: Sequence[Record], split_by: str, fractions: Sequence[float], seed: int
) -> tuple[dict[str, list[Record]], str]:
    """Assign each record to a split, by `patient` or `record`; also describe the rule for the card.

    Raises:
        ValueError: If the source's own splits cannot be kept, or `fractions` contradict them.
    """
    patient_ids = [record.patient_id for record in records]
    labels = [record.labels or () for record in records]
    given = [record.split for record in records if record.split is not None]
    shares = " / ".join(f"{100 * fraction:g} %" for fraction in fractions)
    if given:
        if len(given) != len(records) or split_by != "patient":
            raise ValueError(
                f"the source gives a split for {len(given)} of {len(records)} rows; give it for all of them, and "
                "leave --split_by out"
            )
        if tuple(fractions) != DEFAULT_FRACTIONS:
            raise ValueError(f"the source gives the splits; leave --split_fractions out, got {shares}")
        check_given_splits(patient_ids, given)
        splits, rule = given, "As the source gives them. No patient is in two splits."
    elif split_by == "patient":
        splits = split_by_patient(patient_ids, labels, fractions=fractions, seed=seed)
        rule = f"By patient, {shares}, stratified by the patients' classes, seed {seed}."
    else:
        sources = [record.source for record in records]
        splits = split_by_patient(sources, labels, fractions=fractions, seed=seed, unit="record")
        rule = f"By record, {shares}, stratified by class, seed {seed}."
    records_of_split = {
        name: [record for record, split in zip(records, splits, strict=True) if split == name] for name in SPLITS
    }
    return {name: members for name, members in records_of_split.items() if members}, rule


def shuffle_rows(records_of_split: Mapping[str, Sequence[Record]], seed: int) -> dict[str, list[Record]]:
    """Shuffle the rows of each split, so that each shard has all kinds of rows."""
    shuffled = {}
    for split, records in records_of_split.items():
        order = np.random.default_rng([seed, SPLITS.index(split)]).permutation(len(records))
        shuffled[split] = [records[index] for index in order]
    return shuffled


def _pseudonyms(args: BuildArguments, info: SourceInfo, staging: Path) -> Pseudonyms:
    if info.about.has_public_ids:
        return pseudonyms_of_public(info.about)
    if args.pseudonym_key is None:
        # A resumed build finds its key in the staging folder, which is removed at the end.
        return Pseudonyms.from_file(staging / "pseudonym_key")
    try:
        return Pseudonyms.from_file(args.pseudonym_key)
    except OSError as error:
        raise ValueError(
            f"--pseudonym_key {args.pseudonym_key} can be neither read nor made ({error.strerror}); give a file in a "
            "writable folder"
        ) from error


def _flat(records_of_split: Mapping[str, Sequence[Record]]) -> Iterator[Record]:
    return chain.from_iterable(records_of_split.values())


def _check_out(args: BuildArguments) -> None:
    """Raise a ValueError if the output folder exists, unless it is an earlier build that may be replaced."""
    out = args.out.resolve()
    if args.raw is not None and (args.raw.resolve() == out or out in args.raw.resolve().parents):
        raise ValueError(f"--out {args.out} contains the raw data {args.raw}; choose another folder")
    if not args.out.exists():
        return
    if not args.overwrite:
        raise ValueError(f"--out {args.out} exists; choose another folder, or replace it with --overwrite")
    is_build = args.out.is_dir() and ((args.out / REPORT_NAME).is_file() or not any(args.out.iterdir()))
    if not is_build:
        raise ValueError(f"--out {args.out} is not an earlier build (it has no {REPORT_NAME}); remove it yourself")


def _write_parts(
    workers: Workers, info: SourceInfo, records_of_split: Mapping[str, Sequence[Record]], folder: Path
) -> list[Part]:
    folder.mkdir(exist_ok=True)
    parts = parts_of(records_of_split, info, folder)
    missing = keep_finished(parts, folder)
    num_rows, num_missing = (sum(len(part.records) for part in some) for some in (parts, missing))
    with tqdm(total=num_rows, initial=num_rows - num_missing, desc="images", unit=" images") as progress_bar:
        for _ in workers.run(partial(write_part, info), missing, on_items=progress_bar.update):
            pass
    return parts


def _write_dataset(
    folder: Path, info: SourceInfo, parts: Sequence[Part], report: Mapping[str, Any], num_shards: int | None
) -> tuple[Path, dict[str, Any]]:
    """Write shards, report and card; return the folder, and the report with the digests of the shards."""
    if folder.exists():
        shutil.rmtree(folder)  # an interrupted build was joining its parts
    (folder / DATA_FOLDER).mkdir(parents=True)
    splits = []
    for split in report["splits"]:
        paths = [part.path for part in parts if part.split == split]
        splits.append(join_parts(paths, folder / DATA_FOLDER, split, dataset_features(info), num_shards))
    digests = shard_digests(folder)
    num_file_bytes = sum((folder / shard).stat().st_size for shard in digests)
    sha256 = hashlib.sha256(bytes.fromhex("".join(digests.values())))
    report = {**report, "shards": digests}
    write_private_json(folder / REPORT_NAME, report)  # with --keep_ids it names rows as the source does
    passed = report["deidentification"]["passed"]
    head = card_metadata(
        info,
        splits,
        num_file_bytes,
        sha256.hexdigest(),
        passed=passed,
        num_pseudo_masks=report["pseudo_masks"]["written"],
    )
    write_text(folder / "README.md", head + card_text(info, report))
    return folder, report
