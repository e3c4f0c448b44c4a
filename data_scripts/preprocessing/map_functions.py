"""The preprocessing of the stenosis framework (arXiv 2604.02502) as batched functions for `datasets.map`.

    train = load_dataset("data/spider")["train"]
    clean = train.map(Denoise(), batched=True)
    marked = clean.map(PseudoMasks.of(clean.features), batched=True, features=clean.features)
    balanced = marked.map(Rebalance.of(marked, "grade"), batched=True)  # more rows

As those of `augmentations.map_functions`, they give a row the same result whatever the order, batch and process.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import datasets
import numpy as np
from PIL import Image

from data_scripts.augmentations.map_functions import Batch, VaryBiasField, VaryGreyScale, VaryPose, row_generator
from data_scripts.imaging.images import grey_8bit, png_bytes
from data_scripts.preprocessing.denoising import denoised
from data_scripts.preprocessing.pseudo_masks import PSEUDO_MASK_NAMES, has_pseudo_mask, pseudo_mask
from data_scripts.records import LEVELS, MASK_ORIGINS, PLANES, PSEUDO_MASK, SEQUENCES

COPIED = " copy "  # between the `source` of a row and the number of its copy


@dataclass(frozen=True, kw_only=True)
class Denoise:
    """Remove noise from the images by non-local means; see `denoising.denoised`."""

    strength: float = 0.8

    def __call__(self, batch: Batch) -> dict[str, list[Any]]:
        """Denoise the images of a batch."""
        clean = (denoised(np.asarray(grey_8bit(image)), self.strength) for image in batch["image"])
        pictures = (Image.fromarray(np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8)) for pixels in clean)
        return {"image": [{"bytes": png_bytes(picture), "path": None} for picture in pictures]}


@dataclass(frozen=True, kw_only=True)
class PseudoMasks:
    """Give rows without a mask a pseudo-mask, and say so in `mask_origin`; masks of the source stay.

    Only whole sagittal T2 slices get one, see `pseudo_masks`. Pass `features=` of the dataset to `map`.

    Raises:
        ValueError: If the masks of the dataset have no class for a structure.
    """

    mask_names: tuple[str, ...]  # classes of the dataset's masks; `PseudoMasks.of(dataset.features)` reads them

    @classmethod
    def of(cls, features: datasets.Features) -> "PseudoMasks":
        """Read the names of the classes from the features of a dataset."""
        if "mask_classes" not in features:
            raise ValueError("no column 'mask_classes'; build the dataset again, with --pseudo_masks")
        return cls(mask_names=tuple(features["mask_classes"].feature.names))

    def __post_init__(self) -> None:
        if missing := [name for name in PSEUDO_MASK_NAMES if name not in self.mask_names]:
            raise ValueError(
                f"the masks have no class {', '.join(missing)}, but {', '.join(self.mask_names) or 'no names'}; build "
                "the dataset with --pseudo_masks, which adds them"
            )

    def __call__(self, batch: Batch) -> dict[str, list[Any]]:
        """Fill the masks of a batch."""
        columns = ("mask", "mask_classes", "mask_origin")
        rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        filled = [self._filled(row) or {name: row[name] for name in columns} for row in rows]
        return {name: [row[name] for row in filled] for name in columns}

    def _filled(self, row: Mapping[str, Any]) -> dict[str, Any] | None:
        place = PLANES[row["plane"]], SEQUENCES[row["sequence"]], LEVELS[row["level"]]
        if row["mask"] is not None or not has_pseudo_mask(*place):
            return None
        mask = pseudo_mask(np.asarray(grey_8bit(row["image"])), row["report"])
        if mask is None:
            return None
        indices = np.array([self.mask_names.index(name) for name in PSEUDO_MASK_NAMES], np.uint8)
        return {
            "mask": {"bytes": png_bytes(Image.fromarray(indices[mask])), "path": None},
            "mask_classes": sorted(indices[1:].tolist()),
            "mask_origin": MASK_ORIGINS.index(PSEUDO_MASK),
        }


@dataclass(frozen=True, kw_only=True)
class Rebalance:
    """Add varied copies of rows of rare classes, until all classes have about as many rows as the most frequent one.

    A copy has another pose, grey scale and bias field, within bounds that change no finding, and its mask follows; it
    keeps the patient, and its `source` says which copy it is. For training rows only: split first.
    """

    column: Literal["grade", "labels"]
    num_rows: tuple[int, ...]  # rows of each class, the rarest of their own
    frequency: tuple[int, ...]  # rows with each class
    max_copies: float = 4.0  # of a row
    seed: int = 0

    @classmethod
    def of(
        cls, dataset: datasets.Dataset, column: Literal["grade", "labels"], max_copies: float = 4.0, seed: int = 0
    ) -> "Rebalance":
        """Count the classes of a dataset; a row with several labels counts, and is copied, as its rarest."""
        feature = dataset.features[column]
        num_classes = (feature.feature if column == "labels" else feature).num_classes
        values = dataset[column][:]
        found = Counter(label for value in values for label in _classes(value))
        frequency = tuple(found[label] for label in range(num_classes))
        counted = Counter(_rarest(value, frequency) for value in values)
        num_rows = tuple(counted[label] for label in range(num_classes))
        return cls(column=column, num_rows=num_rows, frequency=frequency, max_copies=max_copies, seed=seed)

    def __post_init__(self) -> None:
        if not 0 <= self.max_copies < np.inf:
            raise ValueError(f"max_copies={self.max_copies} must be 0 or more")
        if not any(self.num_rows):
            raise ValueError(f"no row has a value in {self.column}; balance by another column")

    def __call__(self, batch: Batch) -> dict[str, list[Any]]:
        """Add copies to a batch, after its rows."""
        numbers = [self._num_copies(*row) for row in zip(batch[self.column], batch["source"], strict=True)]
        picked = [(row, copy) for row, number in enumerate(numbers) for copy in range(1, number + 1)]
        copies = {name: [values[row] for row, _ in picked] for name, values in batch.items()}
        copies["source"] = [f"{batch['source'][row]}{COPIED}{copy}" for row, copy in picked]
        if picked:
            for vary in (VaryPose(seed=self.seed), VaryGreyScale(seed=self.seed), VaryBiasField(seed=self.seed)):
                copies |= _decoded(vary(copies))
        return {name: [*values, *copies[name]] for name, values in batch.items()}

    def _num_copies(self, value: int | list[int] | None, source: str) -> int:
        """Draw the copies of a row: the expected number, rounded up or down by chance."""
        label = _rarest(value, self.frequency)
        if label is None:
            return 0
        expected = min(max(self.num_rows) / self.num_rows[label] - 1, self.max_copies)
        return int(expected + row_generator("rebalance", self.seed, source).random())


def _classes(value: int | list[int] | None) -> list[int]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _rarest(value: int | list[int] | None, frequency: Sequence[int]) -> int | None:
    return min(_classes(value), key=lambda label: (frequency[label], label), default=None)


def _decoded(varied: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Decode images, so that another function can vary them again."""
    return {
        name: [Image.open(BytesIO(value["bytes"])) if isinstance(value, dict) else value for value in values]
        for name, values in varied.items()
    }
