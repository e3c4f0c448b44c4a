"""Plan what to write: the usable rows, their splits, and their order."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from data_scripts.records import SPLITS, Exclusion, Record, SourceInfo, record_problem
from data_scripts.splits import DEFAULT_FRACTIONS, check_given_splits, split_by_patient

NUM_NAMED_EXCLUSIONS = 10


def sort_out(items: Iterable[Record | Exclusion], info: SourceInfo) -> tuple[list[Record], list[Exclusion]]:
    """Separate the rows that can be written from those that cannot, before any pixel is loaded."""
    records: list[Record] = []
    exclusions: list[Exclusion] = []
    row_of_source: dict[str, int] = {}
    for row, item in enumerate(items, start=1):
        if isinstance(item, Exclusion):
            exclusions.append(item)
            continue
        first_row = row_of_source.setdefault(item.source, row)
        problem = record_problem(item, info) or _unwritable_text(item)
        if first_row != row:
            problem = f"duplicate id: row {row} repeats row {first_row}"
        if problem:
            exclusions.append(Exclusion(item.source, problem))
        else:
            records.append(item)
    return records, exclusions


def _unwritable_text(record: Record) -> str | None:
    r"""Describe lone surrogates, from `"\ud800"` in JSON or a damaged file name, which cannot be stored."""
    try:
        "".join((record.report, *record.rephrasings, record.patient_id, record.study_id, record.source)).encode()
    except UnicodeEncodeError as error:
        return f"text that is no Unicode: {error.reason} ({error.object[error.start : error.start + 1]!r})"
    return None


def check_share_of_bad(exclusions: Sequence[Exclusion], num_read: int, max_bad: float) -> None:
    """Raise a ValueError if more than the share `max_bad` of the rows is defective, or there are no usable rows."""
    if num_read == 0:
        raise ValueError("the source holds no rows")
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
    labels = [record.labels for record in records]
    given = [record.split for record in records if record.split is not None]
    shares = " / ".join(f"{100 * fraction:g} %" for fraction in fractions)
    if given:
        if len(given) != len(records) or split_by != "patient":
            raise ValueError(
                f"the source gives {len(given)} of {len(records)} rows a split: it must be given for all of them, "
                "and --split_by left out"
            )
        if tuple(fractions) != DEFAULT_FRACTIONS:
            raise ValueError(f"the source gives its rows their splits; leave --split_fractions out, not {shares}")
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
    """Shuffle the rows of each split, so that each shard holds all kinds of rows."""
    shuffled = {}
    for split, records in records_of_split.items():
        order = np.random.default_rng([seed, SPLITS.index(split)]).permutation(len(records))
        shuffled[split] = [records[index] for index in order]
    return shuffled
