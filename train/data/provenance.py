"""What a run says of the data it learned from: enough for the card of its model, and no row of them."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset
from huggingface_hub import DatasetCard
from huggingface_hub.errors import HFValidationError

from data_scripts.writing.build_report import REPORT_NAME

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
