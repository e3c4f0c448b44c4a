"""What lies in more than one split: patients, studies, images. A test score is too good by each of them."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import datasets

from data_scripts.image_scan import scan_images

_NUM_EXAMPLES = 10
_PLURALS = {
    "patient": "patients",
    "study": "studies",
    "image": "images",
    "near-identical image": "near-identical images",
}


@dataclass(frozen=True, kw_only=True)
class Leak:
    """One kind of thing that several splits share.

    Args:
        kind: `patient`, `study`, `image` or `near-identical image`.
        num_shared: How many of them, say patients.
        rows: Rows of each split that hold a shared one.
        examples: The first of them, with the splits or rows.
    """

    kind: str
    num_shared: int
    rows: dict[str, int]
    examples: tuple[str, ...]


@dataclass(frozen=True)
class LeakReport:
    """The leaks of a dataset.

    Args:
        leaks: One of each kind that was found.
        looked_for: Kinds that were looked for.
    """

    leaks: tuple[Leak, ...]
    looked_for: tuple[str, ...]

    @property
    def found(self) -> bool:
        """Whether anything is shared."""
        return bool(self.leaks)

    def in_words(self) -> str:
        """One sentence.

        Example:
            >>> shared = Leak(kind="patient", num_shared=3, rows={"train": 7, "test": 4}, examples=())
            >>> LeakReport((shared,), ("patient",)).in_words()
            '3 patients in several splits (rows: train 7, test 4).'
        """
        if not self.leaks:
            return f"No {', '.join(self.looked_for[:-1])} or {self.looked_for[-1]} is in two splits."
        parts = []
        for leak in self.leaks:
            rows = ", ".join(f"{split} {count}" for split, count in leak.rows.items())
            nouns = leak.kind if leak.num_shared == 1 else _PLURALS[leak.kind]
            parts.append(f"{leak.num_shared} {nouns} in several splits (rows: {rows})")
        return "; ".join(parts) + "."

    def as_dict(self) -> dict[str, Any]:
        """Values for JSON, by kind."""
        return {leak.kind: {key: value for key, value in asdict(leak).items() if key != "kind"} for leak in self.leaks}


def leaks_of(dataset: Mapping[str, datasets.Dataset], show_progress: bool = True) -> LeakReport:
    """Look for patients, studies and image files that two splits share: quick, no image is decoded.

    The same pixels written by one encoder are the same file, as in what `data_scripts.build` makes. For copies that
    were stored anew, see `audit`.

    Args:
        dataset: Splits with the columns `patient_id`, `study_id`, `source` and `image`.
        show_progress: Whether to draw a progress bar.
    """
    digests = {
        name: scan_images(split, _sha256, description=f"comparing {name} images", show_progress=show_progress)
        for name, split in dataset.items()
    }
    return gather(("patient", "study", "image"), [*shared_ids(dataset), shared_images(digests, dataset)])


def gather(looked_for: tuple[str, ...], leaks: Iterable[Leak | None]) -> LeakReport:
    """A report of what was found."""
    return LeakReport(tuple(leak for leak in leaks if leak), looked_for)


def shared_ids(dataset: Mapping[str, datasets.Dataset]) -> list[Leak | None]:
    """Patients and studies that two splits share; an empty id is unknown and equals no other."""
    leaks = []
    for kind, column in (("patient", "patient_id"), ("study", "study_id")):
        places = _places_of_shared({name: split[column] for name, split in dataset.items()})
        examples = [f"{value} in {' and '.join(dict(found))}" for value, found in places.items()]
        leaks.append(_leak(kind, places, examples))
    return leaks


def shared_images(digests: Mapping[str, Sequence[str]], dataset: Mapping[str, datasets.Dataset]) -> Leak | None:
    """Images that two splits share.

    Args:
        digests: Of the file or the pixels of each row, by split.
        dataset: The splits, whose column `source` names the rows.
    """
    places = _places_of_shared(digests)
    examples = []
    for found in islice(places.values(), _NUM_EXAMPLES):
        row_of_split = dict(reversed(found))  # the first of each
        named = [f"{split} {dataset[split][row]['source']}" for split, row in reversed(row_of_split.items())]
        examples.append(" = ".join(named))
    return _leak("image", places, examples)


Places = list[tuple[str, int]]


def _places_of_shared(values: Mapping[str, Iterable[str]]) -> dict[str, Places]:
    """Split and row of each value that occurs in more than one split."""
    places: dict[str, Places] = defaultdict(list)
    for split, of_rows in values.items():
        for row, value in enumerate(of_rows):
            if value:
                places[value].append((split, row))
    return {value: found for value, found in places.items() if len(dict(found)) > 1}


def _leak(kind: str, places: Mapping[str, Places], examples: Sequence[str]) -> Leak | None:
    if not places:
        return None
    rows = Counter(split for found in places.values() for split, _ in found)
    return Leak(kind=kind, num_shared=len(places), rows=dict(rows), examples=tuple(examples[:_NUM_EXAMPLES]))


def _sha256(file: bytes) -> str:
    return hashlib.sha256(file).hexdigest()
