"""What lies in more than one split: patients, studies, images. A test score is too good by each of them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, islice
from typing import Any

import datasets

from data_scripts.auditing.image_scan import scan_images
from data_scripts.auditing.near_duplicates import Fingerprint, fingerprint, near_duplicates

LOOKED_FOR = ("patient", "study", "image", "near-identical image")

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
    """Look for patients, studies, images and near-identical images that two splits share.

    Every image is decoded: a few milliseconds for a slice.

    Args:
        dataset: Splits with the columns `patient_id`, `study_id`, `source` and `image`.
        show_progress: Whether to draw a progress bar.
    """
    return leaks_of_fingerprints(dataset, read_fingerprints(dataset, show_progress=show_progress))


def read_fingerprints(
    dataset: Mapping[str, datasets.Dataset], num_proc: int = 1, show_progress: bool = True
) -> dict[str, list[Fingerprint]]:
    """Decode and sum up the images of each split."""
    return {
        name: scan_images(
            split,
            fingerprint,
            description=f"comparing images of {name}",
            num_proc=num_proc,
            show_progress=show_progress,
        )
        for name, split in dataset.items()
    }


def leaks_of_fingerprints(
    dataset: Mapping[str, datasets.Dataset], prints: Mapping[str, Sequence[Fingerprint]]
) -> LeakReport:
    """`leaks_of` where the images have been read."""
    digests = {name: [one.pixels_sha256 for one in of_split] for name, of_split in prints.items()}
    leaks = [*shared_ids(dataset), shared_images(digests, dataset), _near_identical(prints, dataset)]
    return LeakReport(tuple(leak for leak in leaks if leak), LOOKED_FOR)


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
        digests: Of the pixels of each row, by split.
        dataset: The splits, whose column `source` names the rows.
    """
    places = _places_of_shared(digests)
    examples = []
    for found in islice(places.values(), _NUM_EXAMPLES):
        row_of_split = dict(reversed(found))  # the first of each
        named = [f"{split} {dataset[split][row]['source']}" for split, row in reversed(row_of_split.items())]
        examples.append(" = ".join(named))
    return _leak("image", places, examples)


def _near_identical(
    prints: Mapping[str, Sequence[Fingerprint]], dataset: Mapping[str, datasets.Dataset]
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
