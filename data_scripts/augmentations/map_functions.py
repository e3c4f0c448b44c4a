"""Augmentations as batched functions for `datasets.map`: same facts, other words or other pixels.

    dataset = load_dataset("data/synthetic")
    varied = dataset["train"].map(EDA(seed=0), batched=True, num_proc=2)
    flipped = dataset["train"].map(FlipLeftRight.of(dataset["train"].features), batched=True)

The result of a row depends only on the seed and the row's `source`, its identity: not on the order of rows, the batch
size or the number of processes. Two functions with one seed draw from separate streams.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import datasets
import numpy as np
from PIL import Image

from data_scripts.augmentations import image_variation
from data_scripts.augmentations.eda import OPERATIONS, augment_text
from data_scripts.augmentations.sides import exchange_all_sides
from data_scripts.imaging.images import grey_8bit, png_bytes
from data_scripts.records import PLANES

# A batch as `datasets.map(batched=True)` passes it: a list for each column.
Batch = Mapping[str, list[Any]]

# The image's left and right are the patient's.
MIRRORED_PLANES = ("axial", "coronal")


@dataclass(frozen=True, kw_only=True)
class EDA:
    """Easy data augmentation of reports and rephrasings that keeps every fact; see `eda.augment_text`.

    Raises:
        ValueError: If `alpha` is not a share or an operation is unknown.
    """

    seed: int = 0
    alpha: float = 0.1  # share of the words that one operation changes
    operations: tuple[str, ...] = tuple(OPERATIONS)  # each text gets one of them
    columns: tuple[str, ...] = ("report", "rephrasings")  # strings or lists of strings

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 1:
            raise ValueError(f"alpha={self.alpha} must be a share of the words, 0 < alpha <= 1")
        if not self.operations or (unknown := set(self.operations) - set(OPERATIONS)):
            raise ValueError(
                f"operations={self.operations}: choose among {tuple(OPERATIONS)}; unknown: {sorted(unknown)}"
            )

    def __call__(self, batch: Batch) -> dict[str, list[Any]]:
        """Change the texts of a batch."""
        return {
            column: [self._changed(value, source, column) for value, source in _rows(batch, column, "source")]
            for column in self.columns
        }

    def _changed(self, value: str | list[str], source: str, column: str) -> str | list[str]:
        rng = row_generator("EDA", self.seed, f"{source}\0{column}")
        texts = [value] if isinstance(value, str) else value
        changed = [augment_text(text, rng, alpha=self.alpha, operations=self.operations).text for text in texts]
        return changed[0] if isinstance(value, str) else changed


@dataclass(frozen=True, kw_only=True)
class FlipLeftRight:
    """Mirror image and mask, and exchange left and right in report, rephrasings and the names of classes.

    Axial and coronal slices only: there the image's left and right are the patient's. A mirrored sagittal slice would
    show an anatomy that nobody has, so it stays, as does a slice of unknown plane. A row also stays if a text or the
    name of a class has a word that may be a side and was not understood ("cyst R", "Leftt", "has left"), or is not in
    English: it would no longer fit the pixels. Flipping twice restores it.

    Raises:
        ValueError: If a class names a side and the class of the other side does not exist.
    """

    seed: int = 0
    probability: float = 1.0  # share of the axial and coronal rows that are flipped
    label_names: tuple[str, ...]  # names of the classes in `labels`; `FlipLeftRight.of(dataset.features)` reads them

    @classmethod
    def of(cls, features: datasets.Features, seed: int = 0, probability: float = 1.0) -> "FlipLeftRight":
        """Read the names of the classes from the features of a dataset."""
        return cls(seed=seed, probability=probability, label_names=tuple(features["labels"].feature.names))

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability={self.probability} must be a share of the rows, 0 to 1")
        others = {name: exchange_all_sides(name) for name in self.label_names}
        lacking = {name: other for name, other in others.items() if other is not None and other not in others}
        if lacking:
            raise ValueError(f"no class for the other side of {[*lacking]}: add {[*lacking.values()]}")

    def __call__(self, batch: Batch) -> dict[str, list[Any]]:
        """Flip the chosen rows of a batch."""
        names = self.label_names
        exchanged_texts = lru_cache(maxsize=None)(exchange_all_sides)  # rows share their texts

        def is_understood(report: str, rephrasings: list[str], labels: list[int] | None) -> bool:
            texts = (report, *rephrasings, *(names[label] for label in labels or ()))
            return all(exchanged_texts(text) is not None for text in texts)

        chosen = [
            PLANES[plane] in MIRRORED_PLANES
            and row_generator("flip", self.seed, source).random() < self.probability
            and is_understood(report, rephrasings, labels)
            for plane, source, report, rephrasings, labels in _rows(
                batch, "plane", "source", "report", "rephrasings", "labels"
            )
        ]
        exchanged: dict[str, Callable[[Any], Any]] = {
            "report": exchanged_texts,
            "rephrasings": lambda texts: [exchanged_texts(text) for text in texts],
            "labels": lambda labels: (
                labels and sorted(names.index(str(exchanged_texts(names[label]))) for label in labels)
            ),
            "image": lambda image: _stored(image_variation.mirrored(image)),
            "mask": lambda mask: None if mask is None else _stored(image_variation.mirrored(mask)),
        }
        return {
            column: [
                exchange(value) if flip else value for value, flip in zip(_column(batch, column), chosen, strict=True)
            ]
            for column, exchange in exchanged.items()
        }


@dataclass(frozen=True, kw_only=True)
class VaryGreyScale:
    """Change gamma, contrast and brightness of the images, each drawn uniformly in ± its bound."""

    seed: int = 0
    max_log_gamma: float = 0.3  # an exponent of 0.74 to 1.35
    max_log_contrast: float = 0.2  # a factor of 0.82 to 1.22
    max_brightness: float = 0.05  # share of the range

    def __call__(self, batch: Batch) -> dict[str, list[Any]]:
        """Change the images of a batch."""

        def vary(image: Image.Image, rng: np.random.Generator) -> Image.Image:
            bounds = (self.max_log_gamma, self.max_log_contrast, self.max_brightness)
            return image_variation.with_grey_scale(image, *(bounds * rng.uniform(-1, 1, size=3)))

        return _varied_images(batch, "grey scale", self.seed, vary)


@dataclass(frozen=True, kw_only=True)
class VaryBiasField:
    """Multiply the images by a smooth field; see `image_variation.with_bias_field`."""

    seed: int = 0
    order: int = 3
    max_coefficient: float = 0.2  # at order 3 the brightest corner is up to a few times as bright as the darkest

    def __call__(self, batch: Batch) -> dict[str, list[Any]]:
        """Change the images of a batch."""

        def vary(image: Image.Image, rng: np.random.Generator) -> Image.Image:
            coefficients = image_variation.random_bias_coefficients(rng, self.order, self.max_coefficient)
            return image_variation.with_bias_field(image, coefficients)

        return _varied_images(batch, "bias field", self.seed, vary)


@dataclass(frozen=True, kw_only=True)
class VaryPose:
    """Turn, zoom and shift images and masks a little, so that disc and canal stay in view.

    Each change is drawn uniformly in ± its bound. The central 70 % of width and height never leave the image, nor do
    pixels of the kept classes of a mask: a pose that would move them out is halved until it does not. A zoom changes
    `pixel_spacing_mm`, too.
    """

    seed: int = 0
    max_degrees: float = 10.0
    max_log_zoom: float = 0.1  # a factor of 0.90 to 1.11
    max_shift: float = 0.05  # in widths and heights of the image
    kept_classes: tuple[int, ...] | None = None  # indices in the mask; None for all that are whole in the image

    def __call__(self, batch: Batch) -> dict[str, list[Any]]:
        """Move the images and masks of a batch."""
        columns = ("image", "mask", "pixel_spacing_mm")
        moved = [self._moved(*row) for row in _rows(batch, *columns, "source")]
        return {column: list(values) for column, values in zip(columns, zip(*moved, strict=True), strict=True)}

    def _moved(
        self, image: Image.Image, mask: Image.Image | None, spacing: float | None, source: str
    ) -> tuple[dict[str, Any], dict[str, Any] | None, float | None]:
        degrees, zoom, right, down = row_generator("pose", self.seed, source).uniform(-1, 1, size=4)
        drawn = image_variation.Pose(
            degrees=self.max_degrees * degrees,
            zoom=float(np.exp(self.max_log_zoom * zoom)),
            shift_right=self.max_shift * right,
            shift_down=self.max_shift * down,
        )
        kept = image_variation.points_to_keep(image.size, mask, self.kept_classes)
        pose = image_variation.pose_in_view(drawn, kept, image.size)
        return (
            _stored(image_variation.posed(grey_8bit(image), pose)),
            None if mask is None else _stored(image_variation.posed(mask, pose, Image.Resampling.NEAREST)),
            None if spacing is None else spacing / pose.zoom,
        )


def row_generator(purpose: str, seed: int, row: str) -> np.random.Generator:
    """Make the random generator of a row for one purpose, whatever the process and the order of rows."""
    digest = hashlib.sha256(f"{purpose}\0{seed}\0{row}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _column(batch: Batch, name: str) -> list[Any]:
    if name not in batch:
        raise ValueError(f"no column {name!r} to augment; build the dataset with data_scripts.build")
    return batch[name]


def _rows(batch: Batch, *names: str) -> Iterator[tuple[Any, ...]]:
    return zip(*(_column(batch, name) for name in names), strict=True)


def _varied_images(
    batch: Batch, purpose: str, seed: int, vary: Callable[[Image.Image, np.random.Generator], Image.Image]
) -> dict[str, list[Any]]:
    return {
        "image": [
            _stored(vary(grey_8bit(image), row_generator(purpose, seed, source)))
            for image, source in _rows(batch, "image", "source")
        ]
    }


def _stored(image: Image.Image) -> dict[str, Any]:
    """Encode an image as the `Image` feature stores it: PNG bytes, not the list of numbers of an array."""
    return {"bytes": png_bytes(image), "path": None}
