"""Facts of a run's data: identity of the rows, leaks between splits, licence and origin."""

import logging
import re
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
from data_scripts.system.whole_files import read_json
from data_scripts.writing.build_report import REPORT_NAME
from train.data.loaders import rows_sha256

logger = logging.getLogger(__name__)

ABOUT = ("anatomy", "license", "citation", "summary", "report_origin")
UNKNOWN: dict[str, Any] = dict.fromkeys(
    ("hub_id", "source", *ABOUT, "labels_from", "may_be_shared", "split_rule", "split_by", "deidentification")
)


@dataclass(frozen=True)
class DataFacts:
    """Facts of the splits or folds of a run, each computed once, when needed; `name` is their folder or Hub id."""

    name: str
    splits: Mapping[str, Dataset]
    show_progress: bool = True

    @cached_property
    def rows_sha256(self) -> dict[str, str]:
        """Identity of the rows of each split."""
        return {name: rows_sha256(rows) for name, rows in self.splits.items()}

    @cached_property
    def leaks(self) -> LeakReport:
        """Patients, studies, images and near-identical images that splits share."""
        return leaks_of(self.splits, self.show_progress)

    @property
    def leak_stamp(self) -> dict[str, Any] | None:
        """The leaks, by kind and in words, for `metrics.json`; None if there are none."""
        return {"in_words": self.leaks.in_words(), **self.leaks.as_dict()} if self.leaks.found else None

    @cached_property
    def description(self) -> dict[str, Any]:
        """Result of `describe_data`."""
        return describe_data(self.name, self.splits)

    def check_leaks(self, allow_leaks: bool) -> None:
        """Raise ValueError if splits share a patient, study or (near-)identical image, unless leaks are allowed."""
        if not allow_leaks and self.leaks.found:
            examples = "; ".join(leak.examples[0] for leak in self.leaks.leaks)
            raise ValueError(
                f"The dataset leaks: {self.leaks.in_words()} For example: {examples}. Scores would be too good. "
                "Rebuild it with --split_by patient. If images are still shared, give their rows one patient_id or "
                "remove the copies (`python -m data_scripts.audit` lists them). To use the data anyway, pass "
                "--allow_leaks; all results are then marked."
            )


def describe_data(name: str, dataset: Mapping[str, Dataset]) -> dict[str, Any]:
    """Describe a dataset and what may be done with it, as its build recorded it; None where it did not.

    Returns:
        `name`, `hub_id` (None for a folder), `synthetic`, `splits` (rows and patients of each), `planes` and
        `sequences` (rows of each in the training split); and from the build `source`, `anatomy` (of an older build,
        that of the source which its rows name), `license`, `citation`, `summary`, `report_origin`, `labels_from`
        (`reports` that the report reader read, or the `source`), `may_be_shared`, `split_rule`, `split_by` and
        `deidentification` (whether its check `passed`, and what was done with `ids`).
    """
    return {
        "name": Path(name).name,
        "synthetic": all(source.startswith("synthetic") for split in dataset.values() for source in split["source"]),
        "splits": {
            split: {"rows": len(rows), "patients": len(set(rows["patient_id"]))} for split, rows in dataset.items()
        },
        "planes": _rows_by_name(dataset["train"], "plane"),
        "sequences": _rows_by_name(dataset["train"], "sequence"),
        **describe_build(name),
        "anatomy": anatomy_of(name, dataset),
    }


def describe_build(name: str) -> dict[str, Any]:
    """Return what the build of a dataset, a folder or Hub id, recorded under the names of `UNKNOWN`; else None."""
    folder = Path(name)
    return {**UNKNOWN, **(_of_folder(folder) if folder.is_dir() else _of_hub(name))}


def anatomy_of(name: str, dataset: Mapping[str, Dataset]) -> str | None:
    """Return what the images of a dataset show, such as `knee`: as its build or its card says.

    An older one says nothing: then it is what the source shows whose name all rows bear; None if it is not known.
    """
    from data_scripts.sources import SOURCES  # which imports the reader of every format

    if anatomy := describe_build(name)["anatomy"]:
        return str(anatomy)
    names = {
        re.split(r"[/ ]", source, maxsplit=1)[0].lower() for split in dataset.values() for source in split["source"]
    }
    known = [SOURCES[name].ABOUT.anatomy if name in SOURCES else None for name in names]
    return known[0] if len(known) == 1 else None


def _rows_by_name(rows: Dataset, column: str) -> dict[str, int]:
    feature = rows.features.get(column)
    return dict(Counter(map(feature.int2str, rows[column])).most_common()) if isinstance(feature, ClassLabel) else {}


def _of_folder(folder: Path) -> dict[str, Any]:
    path = folder / REPORT_NAME
    if not path.exists():
        return {}
    try:
        report = read_json(path, "Build the dataset again with data_scripts.build.", ("arguments", "split_rule"))
    except PermissionError:  # only its owner can read it, since it names rows as the source does
        logger.warning("Only the owner of %s can read it: licence and origin of the data are not recorded.", path)
        return {}
    try:
        return _of_report(report)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error!r}). Build the dataset again with data_scripts.build.") from error


def _of_report(report: dict[str, Any]) -> dict[str, Any]:
    about, found = report.get("source", {}), report.get("deidentification")
    read = report.get("labels", {}).get("from_reports")
    return {
        "source": about.get("name", report["arguments"]["source"]),
        **{key: about.get(key) for key in ABOUT},
        "labels_from": None if read is None else "reports" if read else "source",
        "may_be_shared": report.get("may_be_shared"),
        "split_rule": report["split_rule"],
        "split_by": report["arguments"]["split_by"],
        "deidentification": found and {"passed": found["passed"], "ids": found["ids"]},
    }


def _of_hub(name: str) -> dict[str, Any]:
    try:  # the card's metadata; the build report is not published
        card = DatasetCard.load(name).data.to_dict()
    except HFValidationError:  # the name of rows made by a program
        return {}
    except OSError:  # not reachable, but the dataset is cached: train anyway
        return {"hub_id": name}
    license_id, passed = card.get("license"), card.get("deidentification_passed")
    return {
        "hub_id": name,
        "anatomy": card.get("anatomy"),
        "license": f"other: {card['license_details']}" if "license_details" in card else license_id,
        "citation": card.get("citation"),
        "may_be_shared": card.get("may_be_shared"),
        "deidentification": None if passed is None else {"passed": passed, "ids": None},
    }
