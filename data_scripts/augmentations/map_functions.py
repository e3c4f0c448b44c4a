"""Augmentations as batched functions for `datasets.map`: same facts, other words or other pixels.

    dataset = load_dataset("data/synthetic")
    varied = dataset["train"].map(EDA(seed=0), batched=True, num_proc=2)
    flipped = dataset["train"].map(FlipLeftRight.of(dataset["train"].features), batched=True)

The result of a row depends only on the seed and the row's `source`, its identity: not on the order of rows, the batch
size or the number of processes. Two functions with one seed draw from separate streams.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
from PIL import Image

from data_scripts.augmentations.eda import OPERATIONS, augment_text
from data_scripts.augmentations.image_variation import (
    Pose,
    mirrored,
    points_to_keep,
    pose_in_view,
    posed,
    random_bias_coefficients,
    with_bias_field,
    with_grey_scale,
)
from data_scripts.imaging.images import grey_8bit, png_bytes
from data_scripts.records import PLANES
from data_scripts.reports.text import exchange_sides, has_unclear_side

# A batch as `datasets.map(batched=True)` gives it: a list for each column.
Batch = Mapping[str, list[Any]]

# In which the image's left and right are the patient's.
MIRRORED_PLANES = ("axial", "coronal")


@dataclass(frozen=True, kw_only=True)
class EDA:
    """Easy data augmentation of reports and rephrasings that keeps every fact; see `eda.augment_text`.

    Args:
        seed: Of every random choice.
        alpha: Share of the words that one operation changes.
        operations: Of `eda.OPERATIONS`; each text gets one of them.
        columns: Text columns to change, of strings or lists of strings.

    Raises:
        ValueError: If `alpha` is no share or an operation is unknown.
    """

    seed: int = 0
    alpha: float = 0.1
    operations: tuple[str, ...] = tuple(OPERATIONS)
    columns: tuple[str, ...] = ("report", "rephrasings")

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 1:
            raise ValueError(f"alpha={self.alpha} must be a share of the words, 0 < alpha <= 1")
        if not self.operations or (unknown := set(self.operations) - set(OPERATIONS)):
            raise ValueError(
                f"operations={self.operations}: choose among {tuple(OPERATIONS)}; unknown: {sorted(unknown)}"
            )

    def __call__(self, batch: Batch) -> dict[str, list[Any]]:
        """Change the texts of a batch."""
        sources = _column(batch, "source")
        return {
            column: [
                self._changed(value, source, column)
                for value, source in zip(_column(batch, column), sources, strict=True)
            ]
            for column in self.columns
        }

    def _changed(self, value: str | list[str], source: str, column: str) -> str | list[str]:
        rng = row_generator("EDA", self.seed, f"{source}\0{column}")
        if isinstance(value, str):
            return augment_text(value, rng, alpha=self.alpha, operations=self.operations).text
        return [augment_text(text, rng, alpha=self.alpha, operations=self.operations).text for text in value]


@dataclass(frozen=True, kw_only=True)
class FlipLeftRight:
    """Mirror image and mask, and exchange left and right in report, rephrasings and the names of classes.

    Axial and coronal slices only: there the image's left and right are the patient's. A mirrored sagittal slice would
    show an anatomy that nobody has, so it stays, as does a slice of unknown plane. A row also stays if a text has a
    bare R or L that may be a side ("cyst R"): the text would no longer fit the pixels. Flipping twice restores it.

    Args:
        seed: Of the choice of rows.
        probability: Share of the axial and coronal rows that are flipped.
        label_names: Names of the classes in `labels`, in order; `FlipLeftRight.of(dataset.features)` reads them.

    Raises:
        ValueError: If a class names a side and the class of the other side does not exist.
    """

    seed: int = 0
    probability: float = 1.0
    label_names: tuple[str, ...]

    @classmethod
    def of(cls, features: datasets.Features, seed: int = 0, probability: float = 1.0) -> "FlipLeftRight":
        """For a dataset with these features."""
        return cls(seed=seed, probability=probability, label_names=tuple(features["labels"].feature.names))

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability={self.probability} must be a share of the rows, 0 to 1")
        without_twin = [name for name in self.label_names if exchange_sides(name) not in self.label_names]
        if without_twin:
            raise ValueError(
                f"no class for the other side of {without_twin}: add {[exchange_sides(name) for name in without_twin]}"
            )

    def __call__(self, batch: Batch) -> dict[str, list[Any]]:
        """Flip the chosen rows of a batch."""
        chosen = [
            PLANES[plane] in MIRRORED_PLANES
            and row_generator("flip", self.seed, source).random() < self.probability
            and not any(map(has_unclear_side, (report, *rephrasings)))
            for plane, source, report, rephrasings in zip(
                *(_column(batch, name) for name in ("plane", "source", "report", "rephrasings")), strict=True
            )
        ]
        exchanged: dict[str, Callable[[Any], Any]] = {
            "report": exchange_sides,
            "rephrasings": lambda texts: [exchange_sides(text) for text in texts],
            "labels": lambda labels: sorted(self._other_side(label) for label in labels),
            "image": lambda image: _stored(mirrored(image)),
            "mask": lambda mask: None if mask is None else _stored(mirrored(mask)),
        }
        return {
            column: [
                exchange(value) if flip else value for value, flip in zip(_column(batch, column), chosen, strict=True)
            ]
            for column, exchange in exchanged.items()
        }

    def _other_side(self, label: int) -> int:
        return self.label_names.index(exchange_sides(self.label_names[label]))


@dataclass(frozen=True, kw_only=True)
class VaryGreyScale:
    """Change gamma, contrast and brightness of the images; see `image_variation.with_grey_scale`.

    Args:
        seed: Of the draws, each uniform in ± its bound.
        max_log_gamma: 0.3 is an exponent of 0.74 to 1.35.
        max_log_contrast: 0.2 is a factor of 0.82 to 1.22.
        max_brightness: As a share of the range.
    """

    seed: int = 0
    max_log_gamma: float = 0.3
    max_log_contrast: float = 0.2
    max_brightness: float = 0.05

    def __call__(self, batch: Batch) -> dict[str, list[Any]]:
        """Change the images of a batch."""
        images = []
        for image, source in zip(_column(batch, "image"), _column(batch, "source"), strict=True):
            gamma, contrast, brightness = row_generator("grey scale", self.seed, source).uniform(-1, 1, size=3)
            varied = with_grey_scale(
                grey_8bit(image),
                log_gamma=self.max_log_gamma * gamma,
                log_contrast=self.max_log_contrast * contrast,
                brightness=self.max_brightness * brightness,
            )
            images.append(_stored(varied))
        return {"image": images}


@dataclass(frozen=True, kw_only=True)
class VaryBiasField:
    """Multiply the images by a smooth field; see `image_variation.with_bias_field`.

    Args:
        seed: Of the coefficients.
        order: Of the polynomial.
        max_coefficient: Bound of each; 0.2 at order 3 makes the brightest corner up to a few times the darkest.
    """

    seed: int = 0
    order: int = 3
    max_coefficient: float = 0.2

    def __call__(self, batch: Batch) -> dict[str, list[Any]]:
        """Change the images of a batch."""
        images = []
        for image, source in zip(_column(batch, "image"), _column(batch, "source"), strict=True):
            rng = row_generator("bias field", self.seed, source)
            coefficients = random_bias_coefficients(rng, self.order, self.max_coefficient)
            images.append(_stored(with_bias_field(grey_8bit(image), coefficients)))
        return {"image": images}


@dataclass(frozen=True, kw_only=True)
class VaryPose:
    """Turn, zoom and shift images and masks a little, so that disc and canal stay in view.

    The central 70 % of width and height never leave the image, nor do pixels of the kept classes of a mask: a pose that
    would move them out is halved until it does not. A zoom changes `pixel_spacing_mm`, too.

    Args:
        seed: Of the draws, each uniform in ± its bound.
        max_degrees: Of the turn.
        max_log_zoom: 0.1 is a factor of 0.90 to 1.11.
        max_shift: In widths and heights of the image.
        kept_classes: Indices in the mask; None for every class that is whole in the image.
    """

    seed: int = 0
    max_degrees: float = 10.0
    max_log_zoom: float = 0.1
    max_shift: float = 0.05
    kept_classes: tuple[int, ...] | None = None

    def __call__(self, batch: Batch) -> dict[str, list[Any]]:
        """Move the images and masks of a batch."""
        columns = ("image", "mask", "pixel_spacing_mm")
        rows = zip(*(_column(batch, name) for name in (*columns, "source")), strict=True)
        moved = [self._moved(*row) for row in rows]
        return {column: list(values) for column, values in zip(columns, zip(*moved, strict=True), strict=True)}

    def _moved(
        self, image: Image.Image, mask: Image.Image | None, spacing: float | None, source: str
    ) -> tuple[dict[str, Any], dict[str, Any] | None, float | None]:
        pose = pose_in_view(self._drawn(source), points_to_keep(image.size, mask, self.kept_classes), image.size)
        return (
            _stored(posed(grey_8bit(image), pose)),
            None if mask is None else _stored(posed(mask, pose, Image.Resampling.NEAREST)),
            None if spacing is None else spacing / pose.zoom,
        )

    def _drawn(self, source: str) -> Pose:
        degrees, zoom, right, down = row_generator("pose", self.seed, source).uniform(-1, 1, size=4)
        return Pose(
            degrees=self.max_degrees * degrees,
            zoom=float(np.exp(self.max_log_zoom * zoom)),
            shift_right=self.max_shift * right,
            shift_down=self.max_shift * down,
        )


def row_generator(purpose: str, seed: int, row: str) -> np.random.Generator:
    """Make the random generator of one purpose for one row, whatever the process and the order of rows.

    Args:
        purpose: So that two functions with one seed do not draw the same.
        seed: The user's.
        row: Identity of the row.
    """
    digest = hashlib.sha256(f"{purpose}\0{seed}\0{row}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def _column(batch: Batch, name: str) -> list[Any]:
    if name not in batch:
        raise ValueError(f"no column {name!r} to augment; build the dataset with data_scripts.build")
    return batch[name]


def _stored(image: Image.Image) -> dict[str, Any]:
    """As the `Image` feature stores it: PNG bytes, not the list of numbers that arrays would become."""
    return {"bytes": png_bytes(image), "path": None}
