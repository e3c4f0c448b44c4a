"""Distance fields, smooth noise and the canvas that the synthetic anatomy is painted on.

Coordinates are millimetres: x grows to the right of the image, which is the patient's LEFT (radiological
convention); y grows downwards, which is posterior. The origin is the middle of the posterior disc margin.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Field = NDArray[np.floating[Any]]  # float32 throughout; more would only be slower

WARP_MM = 0.9
WARP_CELL_MM = 14.0


@dataclass(frozen=True, kw_only=True)
class Pose:
    """How the patient lies in the image: turned by `angle` radians, origin at pixel (`column`, `row`)."""

    angle: float
    column: float
    row: float


class Canvas:
    """An image and its mask, painted together so that they agree pixel by pixel.

    `signal` is the brightness of each tissue, fat near 1; `rng` bends the coordinates by about `WARP_MM`, so that no
    outline is a drawn curve.
    """

    def __init__(
        self, size: int, spacing_mm: float, pose: Pose, signal: Mapping[str, float], rng: np.random.Generator
    ) -> None:
        rows, columns = np.mgrid[:size, :size].astype(np.float32)
        right, down = (columns - pose.column) * spacing_mm, (rows - pose.row) * spacing_mm
        cosine, sine = math.cos(pose.angle), math.sin(pose.angle)
        x, y = cosine * right + sine * down, cosine * down - sine * right
        # Coarse bends everywhere, less at the canal, where a millimetre is a finding.
        amplitude = WARP_MM * (1.0 - 0.7 * np.exp(-(x * x + y * y) / 25.0**2))
        self.x: Field = x + amplitude * smooth_noise(rng, size, WARP_CELL_MM / spacing_mm)
        self.y: Field = y + amplitude * smooth_noise(rng, size, WARP_CELL_MM / spacing_mm)
        self.image: Field = np.zeros((size, size), np.float32)
        self.mask = np.zeros((size, size), np.uint8)
        self.spacing_mm, self.signal = spacing_mm, signal
        self._pose, self._cosine, self._sine = pose, cosine, sine

    def window(self, x: float, y: float, reach: float) -> tuple[slice, slice]:
        """Return the rows and columns around (x, y) that contain everything within `reach` mm, to compute less."""
        column = self._pose.column + (self._cosine * x - self._sine * y) / self.spacing_mm
        row = self._pose.row + (self._cosine * y + self._sine * x) / self.spacing_mm
        pixels = (reach + 3 * WARP_MM) / self.spacing_mm + 2
        rows = slice(max(0, int(row - pixels)), max(0, int(row + pixels) + 1))
        return rows, slice(max(0, int(column - pixels)), max(0, int(column + pixels) + 1))

    def paint(
        self,
        distance: Field,
        tissue: str | Field,
        *,
        where: tuple[slice, slice] = (slice(None), slice(None)),
        blur_mm: float = 0.0,
        opacity: float = 1.0,
        mask: int | None = None,
    ) -> None:
        """Cover the inside of a shape with a tissue, and write `mask` where it covers more than half of a pixel.

        `distance` is the signed distance to the outline in mm, below 0 inside, and `tissue` a name in the signal table
        or the brightness of each pixel, both over the part `where` of the canvas. `blur_mm` softens the outline beyond
        the partial volume of one pixel.
        """
        cover = np.clip(0.5 - distance / (self.spacing_mm + blur_mm), 0.0, 1.0)
        value = self.signal[tissue] if isinstance(tissue, str) else tissue
        self.image[where] += (cover * opacity) * (value - self.image[where])
        if mask is not None:
            self.mask[where][distance < 0] = mask


def radial_distance(dx: Field, dy: Field, level: Field, radius: float) -> Field:
    """Measure the distance to an outline along the ray from the centre, in mm; below 0 inside.

    `dx` and `dy` lead from the centre, `level` grows along each ray from 0 there to 1 on the outline, and `radius` is
    the distance from centre to outline, used at the centre.
    """
    # The small terms carry the centre, where reach and level are both 0; they move the outline by a thousandth.
    return (np.sqrt(dx * dx + dy * dy) + 1e-3 * radius) * (1.0 - 1.0 / (level + 1e-3))


def ellipse(x: Field, y: Field, center: tuple[float, float], radii: tuple[float, float], angle: float = 0.0) -> Field:
    """Measure the radial distance to an ellipse turned by `angle` radians, in mm.

    Example:
        >>> ellipse(np.float32([0, 3, 5]), np.float32([0, 0, 0]), (0, 0), (3, 2)).round(1).tolist()
        [-2.0, 0.0, 2.0]
    """
    dx, dy = x - center[0], y - center[1]
    if angle:
        cosine, sine = math.cos(angle), math.sin(angle)
        dx, dy = cosine * dx + sine * dy, cosine * dy - sine * dx
    u, v = dx * (1.0 / radii[0]), dy * (1.0 / radii[1])
    return radial_distance(dx, dy, np.sqrt(u * u + v * v), min(radii))


def capsule(x: Field, y: Field, start: tuple[float, float], end: tuple[float, float], radius: float) -> Field:
    """Measure the signed distance to a thick line from `start` to `end`, in mm.

    Example:
        >>> capsule(np.float32([0, 5]), np.float32([3, 0]), (-1, 0), (1, 0), 1).tolist()
        [2.0, 3.0]
    """
    along = (end[0] - start[0], end[1] - start[1])
    dx, dy = x - start[0], y - start[1]
    share = np.clip((dx * along[0] + dy * along[1]) / (along[0] ** 2 + along[1] ** 2), 0.0, 1.0)
    dx, dy = dx - share * along[0], dy - share * along[1]
    return np.sqrt(dx * dx + dy * dy) - radius


def union(first: Field, second: Field, fillet_mm: float) -> Field:
    """Measure the distance to the union of two shapes, their seam rounded over about `fillet_mm`.

    Example:
        >>> union(np.float32([5, 1]), np.float32([1, 1]), 2.0).tolist()
        [1.0, 0.5]
    """
    seam = np.clip(0.5 + 0.5 * (second - first) / fillet_mm, 0.0, 1.0)
    return second + seam * (first - second) - fillet_mm * seam * (1.0 - seam)


def smooth_noise(rng: np.random.Generator, size: int, cell: float, cell_across: float | None = None) -> Field:
    """Draw noise of mean 0 and deviation near 1 that varies over about `cell` rows and `cell_across` columns.

    Random numbers on a coarse grid, enlarged by Pillow: as smooth as a Gaussian filter, and faster.
    """
    rows, columns = size / cell, size / (cell_across or cell)
    grid = rng.standard_normal((int(rows) + 4, int(columns) + 4), dtype=np.float32)
    # A margin of more than a node on each side, or the enlarged edge would go flat.
    enlarged = Image.fromarray(grid).resize(
        (size, size), Image.Resampling.BICUBIC, (1.5, 1.5, 1.5 + columns, 1.5 + rows)
    )
    return np.asarray(enlarged) * np.float32(1.23)  # between its nodes, bicubic interpolation is flatter
