"""Audit a built dataset: what its splits share, and whether their classes are alike.

    python -m data_scripts.audit --dataset data/spider_discs
    python -m data_scripts.audit --dataset data/my_study --out audit.json --num_proc 2

A patient, a study, an image or a near-identical image in two splits is a leak: scores are too good by what a model
remembers. A report text in two splits is none, since the reports of many patients read "no disc herniation"; its share
is told.

Exit code 0 without leaks, 1 with leaks, 2 when there is no answer, as of a dataset that cannot be read. `--out` writes
the JSON and, beside it, the same as Markdown.
"""

import json
import shlex
import sys
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
from datasets.exceptions import DatasetsError

from data_scripts.auditing.balance import class_shares
from data_scripts.auditing.built_folder import opened_afresh
from data_scripts.auditing.leaks import leaks_of_fingerprints, read_fingerprints
from data_scripts.auditing.near_duplicates import Fingerprint
from data_scripts.auditing.report import audit_markdown
from data_scripts.reports.text import normalise_report
from data_scripts.system.command_line import parse_arguments

COLUMNS = {"image", "report", "labels", "grade", "patient_id", "study_id", "sequence", "source"}


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
    prints = read_fingerprints(dataset, num_proc)
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
    """Share of the rows of each further split whose text, case and blanks apart, a split before it holds too."""
    known: set[str] = set()
    shares = {}
    for name, split in dataset.items():
        texts = _texts(split)
        shares[name] = sum(text in known for text in texts) / max(1, len(texts))
        known.update(texts)
    return {name: shares[name] for name in list(dataset)[1:]}


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
        args = parse_arguments(AuditArguments, argv)
        with opened_afresh(args.dataset) as dataset:
            result = audit(dataset, args.num_proc)
        result["dataset"] = args.dataset.name
        result["command"] = shlex.join(["python", "-m", "data_scripts.audit", *argv])
        report = audit_markdown(result)
        print(report)
        if args.out:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            args.out.with_suffix(".md").write_text(report, encoding="utf-8")
    except (OSError, ValueError, DatasetsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Exception:  # Python's own exit code for it would be 1: leaks
        traceback.print_exc()
        return 2
    return 0 if result["clean"] else 1


if __name__ == "__main__":
    sys.exit(main())
