"""Audit a built dataset: what its splits share, and whether their classes are alike.

    python -m data_scripts.audit --dataset data/spider_discs
    python -m data_scripts.audit --dataset data/my_study --out audit.json --num_proc 2

A patient, a study, an image or a near-identical image in two splits is a leak: scores are too good by what a model
remembers. A report text in two splits is none, since the reports of many patients read "no disc herniation"; its share
is told.

Exit code 0 without leaks, 1 with leaks, 2 when the dataset cannot be read. `--out` writes the JSON and, beside it, the
same as Markdown.
"""

import json
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetsError
from transformers.hf_argparser import HfArgumentParser

from data_scripts.audit_report import audit_markdown
from data_scripts.image_scan import scan_images
from data_scripts.leaks import Leak, LeakReport, gather, shared_ids, shared_images
from data_scripts.near_duplicates import Fingerprint, fingerprint, near_duplicates
from data_scripts.split_balance import class_shares
from modeling_lumbarclip.report_text_lumbarclip import normalise_report

LOOKED_FOR = ("patient", "study", "image", "near-identical image")
COLUMNS = {"image", "report", "labels", "grade", "patient_id", "study_id", "sequence", "source"}

_NUM_EXAMPLES = 10


@dataclass(kw_only=True)
class AuditArguments:
    """What to audit."""

    dataset: Path = field(metadata={"help": "Folder that data_scripts.build wrote."})
    out: Path | None = field(default=None, metadata={"help": "JSON file to write; Markdown comes beside it."})
    num_proc: int = field(default=1, metadata={"help": "Processes that decode images."})

    def __post_init__(self) -> None:
        """Refuse what cannot work before anything is read."""
        if self.num_proc < 1:
            raise ValueError(f"--num_proc must be at least 1, got {self.num_proc}")
        if self.out is not None and self.out.suffix != ".json":
            raise ValueError(f"--out must name a .json file, got {self.out}")


def audit(dataset: Mapping[str, datasets.Dataset], num_proc: int = 1) -> dict[str, Any]:
    """Compare the splits of a dataset.

    Args:
        dataset: Its splits, with the columns that `data_scripts.build` makes.
        num_proc: Processes that decode images.

    Returns:
        Values for JSON: `clean`, `leaks` by kind, `splits`, `shared_reports`, `repeated_images`, `classes`.

    Raises:
        ValueError: If a column is missing.
    """
    for name, split in dataset.items():
        if missing := COLUMNS - set(split.column_names):
            raise ValueError(f"split {name} lacks the columns {', '.join(sorted(missing))}; build it with data_scripts")
    prints = {
        name: scan_images(split, fingerprint, num_proc=num_proc, description=f"reading images of {name}")
        for name, split in dataset.items()
    }
    leaks = leaks_of_fingerprints(dataset, prints)
    return {
        "clean": not leaks.found,
        "leaks": leaks.as_dict(),
        "in_words": leaks.in_words(),
        "splits": {name: _sizes(split) for name, split in dataset.items()},
        "shared_reports": _shared_reports(dataset),
        "repeated_images": {name: _num_repeated(of_split) for name, of_split in prints.items()},
        "classes": class_shares(dataset),
    }


def leaks_of_fingerprints(
    dataset: Mapping[str, datasets.Dataset], prints: Mapping[str, Sequence[Fingerprint]]
) -> LeakReport:
    """All kinds of leaks; `leaks.leaks_of` is the quick form."""
    pixels = {name: [one.pixels_sha256 for one in of_split] for name, of_split in prints.items()}
    return gather(LOOKED_FOR, [*shared_ids(dataset), shared_images(pixels, dataset), _near_identical(dataset, prints)])


def _near_identical(
    dataset: Mapping[str, datasets.Dataset], prints: Mapping[str, Sequence[Fingerprint]]
) -> Leak | None:
    rows: dict[str, set[int]] = {}
    examples: list[str] = []
    num_found = 0
    for first, second in combinations(prints, 2):
        found = near_duplicates(prints[first], prints[second])
        num_found += len(found)
        rows.setdefault(first, set()).update(pair.first for pair in found)
        rows.setdefault(second, set()).update(pair.second for pair in found)
        for pair in found[: _NUM_EXAMPLES - len(examples)]:
            names = dataset[first][pair.first]["source"], dataset[second][pair.second]["source"]
            examples.append(f"{first} {names[0]} ~ {second} {names[1]} (correlation {pair.correlation:.3f})")
    if not num_found:
        return None
    counts = {split: len(found) for split, found in rows.items() if found}
    return Leak(kind="near-identical image", num_shared=num_found, rows=counts, examples=tuple(examples))


def _sizes(split: datasets.Dataset) -> dict[str, int]:
    return {
        "rows": len(split),
        "patients": len(set(split["patient_id"])),
        "studies": len(set(split["study_id"])),
        "distinct_reports": len(set(_texts(split))),
    }


def _texts(split: datasets.Dataset) -> list[str]:
    normalised = {report: normalise_report(report).casefold() for report in set(split["report"])}
    return [normalised[report] for report in split["report"]]


def _shared_reports(dataset: Mapping[str, datasets.Dataset]) -> dict[str, float]:
    """Share of the rows of each further split whose text, case and blanks apart, the first split holds too."""
    first, *others = dataset
    known = set(_texts(dataset[first]))
    return {name: sum(text in known for text in _texts(dataset[name])) / len(dataset[name]) for name in others}


def _num_repeated(prints: Sequence[Fingerprint]) -> int:
    """Rows beyond the first that hold the pixels of another row of the same split."""
    return len(prints) - len(Counter(one.pixels_sha256 for one in prints))


def main(argv: Sequence[str] | None = None) -> int:
    """Audit, print the report, and write it.

    Returns:
        The exit code.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        # `HfArgumentParser` declares its argument as a NewType that no class satisfies.
        (args,) = HfArgumentParser(AuditArguments).parse_args_into_dataclasses(list(argv))  # type: ignore[arg-type]
        result = audit(datasets.load_dataset(str(args.dataset)), args.num_proc)
    except (OSError, ValueError, DatasetsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    result["dataset"] = args.dataset.name
    result["command"] = shlex.join(["python", "-m", "data_scripts.audit", *argv])
    report = audit_markdown(result)
    print(report)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        args.out.with_suffix(".md").write_text(report, encoding="utf-8")
    return 0 if result["clean"] else 1


if __name__ == "__main__":
    sys.exit(main())
