"""What a run knows of its data: identity of the rows, leaks between splits, licence and origin; no row itself."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset
from huggingface_hub import DatasetCard
from huggingface_hub.errors import HFValidationError

from data_scripts.auditing.leaks import LeakReport, leaks_of
from data_scripts.writing.build_report import REPORT_NAME
from train.data.loaders import rows_sha256

UNKNOWN: dict[str, Any] = {
    "hub_id": None,
    "source": None,
    "license": None,
    "citation": None,
    "summary": None,
    "report_origin": None,
    "may_be_shared": None,
    "split_rule": None,
    "split_by": None,
    "deidentification": None,
}


@dataclass(frozen=True)
class DataFacts:
    """Facts of the splits of a run, each computed once, when first asked for, and passed on to whoever needs it.

    Args:
        name: Folder or Hub id that the splits were read from.
        splits: Splits, or folds.
        show_progress: Whether the search for leaks, which decodes every image, draws a progress bar.
    """

    name: str
    splits: Mapping[str, Dataset]
    show_progress: bool = True

    @cached_property
    def rows_sha256(self) -> dict[str, str]:
        """Identity of the rows of each split, in order: of their sources and reports."""
        return {name: rows_sha256(rows) for name, rows in self.splits.items()}

    @cached_property
    def leaks(self) -> LeakReport:
        """Patients, studies, images and near-identical images that splits share."""
        return leaks_of(self.splits, self.show_progress)

    @property
    def leak_stamp(self) -> dict[str, Any] | None:
        """What `metrics.json` says of leaks: what is shared, by kind, and a sentence; None if nothing is."""
        return {"in_words": self.leaks.in_words(), **self.leaks.as_dict()} if self.leaks.found else None

    @cached_property
    def description(self) -> dict[str, Any]:
        """See `describe_data`."""
        return describe_data(self.name, self.splits)

    def check_leaks(self, allow_leaks: bool) -> None:
        """Check that no patient, study, image or near-identical image is in two splits.

        Args:
            allow_leaks: Skip the check, for example to compare with a paper that split by record.

        Raises:
            ValueError: If the splits share something.
        """
        if not allow_leaks and self.leaks.found:
            examples = "; ".join(leak.examples[0] for leak in self.leaks.leaks)
            raise ValueError(
                f"The dataset leaks: {self.leaks.in_words()} For example: {examples}. Scores would be too good. "
                "Rebuild it with --split_by patient. If images are still shared, give their rows one patient_id or "
                "remove the copies (`python -m data_scripts.audit` lists them). To use the data as it is, pass "
                "--allow_leaks; all results are then marked."
            )


def describe_data(name: str, dataset: Mapping[str, Dataset]) -> dict[str, Any]:
    """Say what a data set is and what may be done with it, as its build wrote down; None where nobody did.

    Args:
        name: Folder or Hub id that the splits were read from.
        dataset: The splits that a run uses.

    Returns:
        `name`, `hub_id` (None for a folder), `synthetic`, `splits` (rows and patients of each), `planes` and
        `sequences` (rows of each in the training split); and what the build knew: `source`, `license`, `citation`,
        `summary`, `report_origin`, `may_be_shared`, `split_rule`, `split_by` and `deidentification` (whether its
        check `passed`, and what was done with `ids`).
    """
    folder = Path(name)
    return {
        "name": folder.name,
        "synthetic": all(source.startswith("synthetic") for split in dataset.values() for source in split["source"]),
        "splits": {
            split: {"rows": len(rows), "patients": len(set(rows["patient_id"]))} for split, rows in dataset.items()
        },
        "planes": _rows_by_name(dataset["train"], "plane"),
        "sequences": _rows_by_name(dataset["train"], "sequence"),
        **describe_build(name),
    }


def describe_build(name: str) -> dict[str, Any]:
    """Say what the build of a data set wrote down, under the names of `UNKNOWN`; None where nobody did.

    Args:
        name: Folder or Hub id.
    """
    folder = Path(name)
    return {**UNKNOWN, **(_of_folder(folder) if folder.is_dir() else _of_hub(name))}


def _rows_by_name(rows: Dataset, column: str) -> dict[str, int]:
    feature = rows.features.get(column)
    return dict(Counter(map(feature.int2str, rows[column])).most_common()) if isinstance(feature, ClassLabel) else {}


def _of_folder(folder: Path) -> dict[str, Any]:
    path = folder / REPORT_NAME
    if not path.exists():
        return {}
    report = json.loads(path.read_text())
    about, found = report.get("source", {}), report.get("deidentification")  # reports of earlier builds lack them
    return {
        "source": about.get("name", report["arguments"]["source"]),
        **{key: about.get(key) for key in ("license", "citation", "summary", "report_origin")},
        "may_be_shared": report.get("may_be_shared"),
        "split_rule": report["split_rule"],
        "split_by": report["arguments"]["split_by"],
        "deidentification": found and {"passed": found["passed"], "ids": found["ids"]},
    }


def _of_hub(name: str) -> dict[str, Any]:
    """What the head of a data set's card says; the account of its build stays with whoever built it."""
    try:
        card = DatasetCard.load(name).data.to_dict()
    except HFValidationError:  # the name of rows that a program made
        return {}
    except OSError:  # not reachable, while the data set itself is in the cache: no reason not to train
        return {"hub_id": name}
    license_id, passed = card.get("license"), card.get("deidentification_passed")
    return {
        "hub_id": name,
        "license": f"other: {card['license_details']}" if "license_details" in card else license_id,
        "citation": card.get("citation"),
        "may_be_shared": card.get("may_be_shared"),
        "deidentification": None if passed is None else {"passed": passed, "ids": None},
    }
