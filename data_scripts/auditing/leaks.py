"""Find patients, studies and images that are in several splits: each inflates the test scores."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations, islice
from typing import Any

import datasets

from data_scripts.auditing.image_scan import scan_images
from data_scripts.auditing.near_duplicates import Fingerprint, fingerprint, near_duplicates

LOOKED_FOR = ("patient", "study", "image", "near-identical image")

_NUM_EXAMPLES = 10


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Values of one kind that several splits share."""

    kind: str  # among `LOOKED_FOR`
    num_shared: int  # shared values, such as patients
    rows: dict[str, int]  # number of rows with a shared value, by split
    examples: tuple[str, ...]  # the first shared values, with their splits or rows


@dataclass(frozen=True)
class LeakReport:
    """The leaks of a dataset, one for each kind found."""

    leaks: tuple[Leak, ...]

    @property
    def found(self) -> bool:
        """Whether anything is shared."""
        return bool(self.leaks)

    def in_words(self) -> str:
        """Summarise the leaks in one sentence.

        Example:
            >>> shared = Leak(kind="patient", num_shared=3, rows={"train": 7, "test": 4}, examples=())
            >>> LeakReport((shared,)).in_words()
            '3 patients in several splits (rows: train 7, test 4).'
        """
        if not self.leaks:
            return f"No {', '.join(LOOKED_FOR[:-1])} or {LOOKED_FOR[-1]} is in two splits."
        parts = []
        for leak in self.leaks:
            rows = ", ".join(f"{split} {count}" for split, count in leak.rows.items())
            nouns = leak.kind if leak.num_shared == 1 else "studies" if leak.kind == "study" else f"{leak.kind}s"
            parts.append(f"{leak.num_shared} {nouns} in several splits (rows: {rows})")
        return "; ".join(parts) + "."

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values by kind."""
        return {leak.kind: {key: value for key, value in asdict(leak).items() if key != "kind"} for leak in self.leaks}


def leaks_of(dataset: Mapping[str, datasets.Dataset], show_progress: bool = True) -> LeakReport:
    """Find patients, studies, images and near-identical images that two splits share.

    Decodes every image, which takes a few milliseconds for a slice. Uses the columns `patient_id`, `study_id`, `source`
    and `image`.
    """
    return leaks_of_fingerprints(dataset, read_fingerprints(dataset, show_progress=show_progress))


def read_fingerprints(
    dataset: Mapping[str, datasets.Dataset], num_proc: int = 1, show_progress: bool = True
) -> dict[str, list[Fingerprint]]:
    """Decode the images of each split and compute their fingerprints."""
    scan = partial(scan_images, function=fingerprint, num_proc=num_proc, show_progress=show_progress)
    return {name: scan(split, description=f"comparing images of {name}") for name, split in dataset.items()}


def leaks_of_fingerprints(
    dataset: Mapping[str, datasets.Dataset], prints: Mapping[str, Sequence[Fingerprint]]
) -> LeakReport:
    """Like `leaks_of`, for images that have been read."""
    ids = [_shared_ids(kind, dataset) for kind in ("patient", "study")]
    leaks = [*ids, _shared_images(prints, dataset), _near_identical(prints, dataset)]
    return LeakReport(tuple(leak for leak in leaks if leak))


def _shared_ids(kind: str, dataset: Mapping[str, datasets.Dataset]) -> Leak | None:
    places = _places_of_shared({name: split[f"{kind}_id"] for name, split in dataset.items()})
    return _leak(kind, places, [f"{value} in {' and '.join(dict(found))}" for value, found in places.items()])


def _shared_images(prints: Mapping[str, Sequence[Fingerprint]], dataset: Mapping[str, datasets.Dataset]) -> Leak | None:
    places = _places_of_shared({name: [one.pixels_sha256 for one in of_split] for name, of_split in prints.items()})
    examples = []
    for found in islice(places.values(), _NUM_EXAMPLES):
        row_of_split = dict(reversed(found))  # the first row of each
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
    """Locate each value that occurs in more than one split; an empty id is unknown and equals no other."""
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
