"""Audit a dataset, as JSON values and as Markdown that also reads well in a terminal."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import datasets

from data_scripts.auditing.leaks import leaks_of_fingerprints, read_fingerprints
from data_scripts.auditing.privacy_check import check_dataset
from data_scripts.reports.text import normalise_report
from data_scripts.system.markdown import Markdown, code_block, escape_markdown, fill_markdown, markdown_table

COLUMNS = {"image", "report", "rephrasings", "labels", "grade", "patient_id", "study_id", "sequence", "source"}

# Rubin, "Using propensity scores to help design observational studies", Health Serv Outcomes Res Methodol 2:169, 2001.
LARGE_DIFFERENCE = 0.25

_CLASS_COLUMNS = ("labels", "grade", "sequence")
_NUM_ROWS = 20  # rows that may name someone, in the Markdown


def audit(dataset: Mapping[str, datasets.Dataset], num_proc: int = 1) -> dict[str, Any]:
    """Compare the splits of a dataset, and find anything that may name a person.

    Returns JSON values; raises a ValueError if a column that `data_scripts.build` writes is missing.
    """
    for name, split in dataset.items():
        if missing := COLUMNS - set(split.column_names):
            raise ValueError(f"split {name} lacks the columns {', '.join(sorted(missing))}; build it with data_scripts")
    prints = read_fingerprints(dataset, num_proc)
    leaks = leaks_of_fingerprints(dataset, prints)
    return {
        "clean": not leaks.found,
        "leaks": leaks.as_dict(),
        "in_words": leaks.in_words(),
        "splits": {
            name: {
                "rows": len(split),
                "patients": len(set(split["patient_id"])),
                "studies": len(set(split["study_id"])),
                "distinct_reports": len(set(_texts(split))),
            }
            for name, split in dataset.items()
        },
        "shared_reports": _shared_reports(dataset),
        "repeated_images": {
            name: len(of_split) - len({one.pixels_sha256 for one in of_split}) for name, of_split in prints.items()
        },
        "classes": class_shares(dataset),
        "privacy": check_dataset(dataset, num_proc).as_dict(),
    }


def _texts(split: datasets.Dataset) -> list[str]:
    normalised = {report: normalise_report(report).casefold() for report in set(split["report"])}
    return [normalised[report] for report in split["report"]]


def _shared_reports(dataset: Mapping[str, datasets.Dataset]) -> dict[str, float]:
    """Compute the share of rows whose text, ignoring case and blanks, occurs in an earlier split."""
    known: set[str] = set()
    shares = {}
    for name, split in dataset.items():
        texts = _texts(split)
        shares[name] = sum(text in known for text in texts) / max(1, len(texts))
        known.update(texts)
    return {name: shares[name] for name in list(dataset)[1:]}


def class_shares(dataset: Mapping[str, datasets.Dataset]) -> list[dict[str, Any]]:
    """Compute the share of each split's rows that have a class, and its difference from the first split.

    Returns:
        One entry for each class that occurs: `column`, `name`, `shares` and `differences` by split. Rows without a
        grade do not count towards the shares of grades.
    """
    first = next(iter(dataset))
    entries = []
    for column in _CLASS_COLUMNS:
        feature = dataset[first].features[column]
        names = getattr(feature, "feature", feature).names
        shares_of_split = {split: _shares(rows[column], len(names)) for split, rows in dataset.items()}
        for index, name in enumerate(names):
            shares = {split: of_split[index] for split, of_split in shares_of_split.items()}
            if any(shares.values()):
                differences = {split: standardised_difference(share, shares[first]) for split, share in shares.items()}
                entries.append({"column": column, "name": name, "shares": shares, "differences": differences})
    return entries


def standardised_difference(share: float, reference: float) -> float | None:
    """Divide the difference of two shares by their pooled standard deviation.

    Returns:
        None for the shares 0 and 1, which have no spread: one split lacks the class, the other has it in all rows.

    Source:
        Austin, "An introduction to propensity score methods", Multivariate Behav Res 46:399, 2011.

    Example:
        >>> round(standardised_difference(0.6, 0.5), 3)
        0.202
    """
    spread = math.sqrt((share * (1 - share) + reference * (1 - reference)) / 2)
    if spread == 0:
        return 0.0 if share == reference else None
    return (share - reference) / spread


def _shares(values: list[Any], num_classes: int) -> list[float]:
    """Compute the share of each class among the rows with a value: an empty list counts, null does not."""
    known = [value if isinstance(value, list) else [value] for value in values if value is not None]
    counts = Counter(index for row in known for index in set(row))
    return [counts[index] / len(known) if known else 0.0 for index in range(num_classes)]


def audit_markdown(result: Mapping[str, Any]) -> str:
    """Format the result of `audit`."""
    sections = [
        f"# Audit of {escape_markdown(result['dataset'])}: {'no leak' if result['clean'] else '**leaks**'}",
        escape_markdown(result["in_words"]),
        *(_leak_section(kind, leak) for kind, leak in result["leaks"].items()),
        "## Splits\n\n" + _split_table(result),
        "Shared reports: rows whose text also occurs in a split above. They are not leaks on their own.",
        "## Classes\n\nShare of the rows; in brackets the standardised difference from the first split, "
        f"marked * above {LARGE_DIFFERENCE}.\n\n" + _class_table(result),
        _privacy_section(result["privacy"]),
        code_block(result["command"], "sh"),
    ]
    return "\n\n".join(sections) + "\n"


def _leak_section(kind: str, leak: Mapping[str, Any]) -> str:
    examples = "\n".join(f"- {escape_markdown(example)}" for example in leak["examples"])
    more = leak["num_shared"] - len(leak["examples"])
    return f"## Leak: {kind}\n\n{examples}" + (f"\n- and {more} more" if more > 0 else "")


_PASSAGE = "- {split} row {row}, {column}: {kind}: {excerpt}"
_CLASS_NAME = "- {split}, {column}: {kind}: {excerpt}"


def _privacy_section(found: Mapping[str, Any]) -> str:
    letters = found["burnt_in_text"]
    rows = [
        *(fill_markdown(_CLASS_NAME if row["row"] is None else _PASSAGE, row) for row in found["findings"]),
        *(fill_markdown("- {split} row {row}: the image may contain text; check it", row) for row in letters),
    ]
    more = [f"- and {len(rows) - _NUM_ROWS} more"] if len(rows) > _NUM_ROWS else []
    verdict = "No passage names a person" if found["passed"] else "**The data may name a person**"
    counts = f"{len(found['findings'])} identifiers, {len(letters)} images that may contain text"
    return "\n".join([f"## Privacy\n\n{verdict}: {counts}.", *([""] if rows else []), *rows[:_NUM_ROWS], *more])


def _split_table(result: Mapping[str, Any]) -> str:
    header = ["split", "rows", "patients", "studies", "distinct reports", "shared reports", "repeated images"]
    rows = []
    for split, sizes in result["splits"].items():
        shared = result["shared_reports"].get(split)
        shown = "" if shared is None else f"{100 * shared:.1f} %"
        rows.append([split, *map(str, sizes.values()), shown, str(result["repeated_images"][split])])
    return markdown_table(header, rows)


def _class_table(result: Mapping[str, Any]) -> str:
    splits = list(result["splits"])
    rows = [
        [entry["column"], entry["name"], *(_share(entry, split, is_first=split == splits[0]) for split in splits)]
        for entry in result["classes"]
    ]
    return markdown_table(["column", "class", *splits], rows)


def _share(entry: Mapping[str, Any], split: str, is_first: bool) -> Markdown:
    share, difference = entry["shares"][split], entry["differences"][split]
    shown = "(all or none)*" if difference is None else f"({difference:+.2f})"
    mark = "*" if difference is not None and abs(difference) > LARGE_DIFFERENCE else ""
    return Markdown(f"{100 * share:.1f} %" + ("" if is_first else f" {shown}{mark}"))
