"""Where the voxels of a volume lie in the patient, and how they become slices as a radiologist looks at them.

Coordinates are DICOM's: x to the patient's left, y to the back, z to the head, in mm. The voxels are permuted, never
interpolated: oblique axes are taken for the nearest ones.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from data_scripts.imaging.images import UnusableImageError
from data_scripts.imaging.orientation import Direction, normal_of, plane_of, turn_of

# Where the slices of a plane run: sagittal ones from right to left, coronal ones backwards, axial ones to the head.
SLICE_DIRECTIONS = {"sagittal": (1, 0, 0), "coronal": (0, 1, 0), "axial": (0, 0, 1)}

_SAME_SPACING = 0.02  # relative; headers round
_SAME_DIRECTION = 0.999  # cosine of 2.5 degrees
_SAME_PLACE = 0.5  # of a voxel


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The voxels of an array with three axes; of each axis, whatever the file says."""

    size: tuple[int, ...]  # shape of the array
    spacing_mm: tuple[float | None, ...]  # between voxels along each axis; None if unknown
    directions: tuple[tuple[float, ...], ...] | None = None  # unit vectors along the axes; None if not stated
    corner_mm: tuple[float, ...] | None = None  # centre of the first voxel; None if not stated
    slice_axis: int | None = None  # axis across the slices as they were scanned; None if the file does not say


class Arrangement(NamedTuple):
    """How an array becomes slices: its axes are permuted, then some are reversed."""

    axes: tuple[int, ...]  # which axis runs across the slices, down a slice and along its rows
    is_reversed: tuple[bool, ...]  # of each axis in that order

    def applied(self, voxels: np.ndarray) -> np.ndarray:
        """Return a view of the voxels, shape (slices, H, W)."""
        reversed_axes = tuple(axis for axis, is_reversed in enumerate(self.is_reversed) if is_reversed)
        return np.flip(voxels.transpose(self.axes), reversed_axes)

    def grid(self, stored: Grid) -> Grid:
        """Return the grid of the view."""

        def ordered(values: Any) -> tuple[Any, ...]:
            return tuple(values[axis] for axis in self.axes)

        size, spacing = ordered(stored.size), ordered(stored.spacing_mm)
        arranged = replace(stored, size=size, spacing_mm=spacing, slice_axis=0)
        if stored.directions is None:
            return arranged
        signs = [-1 if is_reversed else 1 for is_reversed in self.is_reversed]
        axes = np.array(ordered(stored.directions))
        if stored.corner_mm is not None:
            last = [(count - 1) * (step or 0) for count, step in zip(size, spacing, strict=True)]
            moved = np.array(stored.corner_mm) + (np.array(last) * self.is_reversed) @ axes
            arranged = replace(arranged, corner_mm=tuple(moved.tolist()))
        directions = tuple(tuple((sign * axis).tolist()) for sign, axis in zip(signs, axes, strict=True))
        return replace(arranged, directions=directions)


def arrange(grid: Grid, plane: str | None = None) -> tuple[Arrangement, str]:
    """Find how a volume becomes slices in radiological convention, and their plane.

    The slices lie across the axis that `plane` asks for, or else, the first that holds:

    1. the axis across which they were scanned, if the file says;
    2. an axis with one voxel;
    3. the axis whose spacing differs from that of the two others, which are equal (pixels are square);
    4. if no two spacings are equal, the axis of the largest spacing;
    5. if all are equal, the axis with the fewest voxels, then the last one of the file.

    The slices are in the order of `SLICE_DIRECTIONS`. Without directions nothing is reversed, and the plane is
    the one asked for, or `unknown`.

    Raises:
        UnusableImageError: If no axis gives slices of the plane.
    """
    across = _axis_of_plane(grid, plane) if plane and grid.directions else _slice_axis(grid)
    down, along = (axis for axis in range(3) if axis != across)
    if grid.directions is None:
        return Arrangement((across, down, along), (False, False, False)), plane or "unknown"
    row, column = grid.directions[along], grid.directions[down]
    found = plane_of(row, column)
    turn = turn_of(row, column)
    if turn.transpose:
        down, along = along, down
    # Without places, the order of the slices is all that is known of it.
    runs_back = grid.corner_mm is not None and _dot(grid.directions[across], SLICE_DIRECTIONS[found]) < 0
    return Arrangement((across, down, along), (runs_back, turn.flip_rows, turn.flip_columns)), found


def _slice_axis(grid: Grid) -> int:
    if grid.slice_axis is not None:
        return grid.slice_axis
    singles = [axis for axis, count in enumerate(grid.size) if count == 1]
    if singles:
        return singles[0]
    spacing = [step or 0.0 for step in grid.spacing_mm]
    pairs = ((0, (1, 2)), (1, (0, 2)), (2, (0, 1)))
    odd = [axis for axis, (one, other) in pairs if _are_close(spacing[one], spacing[other])]
    if not odd:
        return int(np.argmax(spacing))
    if len(odd) == 1:
        return odd[0]
    return int(np.argmin(grid.size))


def _axis_of_plane(grid: Grid, plane: str) -> int:
    assert grid.directions is not None
    candidates = {}
    for axis, (down, along) in enumerate(((1, 2), (0, 2), (0, 1))):
        row, column = grid.directions[along], grid.directions[down]
        if plane_of(row, column) == plane:
            candidates[axis] = abs(_dot(normal_of(row, column), SLICE_DIRECTIONS[plane]))
    if not candidates:
        raise UnusableImageError(f"the volume has no {plane} slices: its axes are oblique; leave the plane out")
    return max(candidates, key=lambda axis: candidates[axis])


def fit(mask: Grid, image: Grid, arrangement: Arrangement) -> Arrangement:
    """Find how a mask becomes slices that lie on those of its image, in whatever order either is stored.

    Raises:
        UnusableImageError: If the mask lies on another grid, or only one of the two says how it lies.
    """
    shown = arrangement.grid(image)
    if (mask.directions is None) != (image.directions is None):
        silent = "mask" if mask.directions is None else "image"
        raise UnusableImageError(f"the {silent} states no orientation; save the mask with the header of its image")
    if mask.directions is None or shown.directions is None:
        found = arrangement
    else:
        cosines = np.array(shown.directions) @ np.array(mask.directions).T  # rows: axes of the image
        axes = tuple(int(axis) for axis in np.abs(cosines).argmax(axis=1))
        if sorted(axes) != [0, 1, 2] or np.abs(cosines).max(axis=1).min() < _SAME_DIRECTION:
            raise UnusableImageError("the mask lies on another grid: its axes are turned; resample it onto its image")
        found = Arrangement(axes, tuple(bool(cosines[at, axis] < 0) for at, axis in enumerate(axes)))
    fitted = found.grid(mask)
    spacings = [pair for pair in zip(fitted.spacing_mm, shown.spacing_mm, strict=True) if None not in pair]
    if fitted.size != shown.size or not all(_are_close(one or 0, other or 0) for one, other in spacings):
        raise UnusableImageError(
            f"the mask lies on another grid: {_words(fitted)}, its image {_words(shown)}; resample it onto its image"
        )
    if fitted.corner_mm is not None and shown.corner_mm is not None:
        away_mm = float(np.abs(np.subtract(fitted.corner_mm, shown.corner_mm)).max())
        if away_mm > _SAME_PLACE * min((step for step in shown.spacing_mm if step), default=1.0):
            raise UnusableImageError(
                f"the mask lies on another grid: it begins {away_mm:.1f} mm away; resample it onto its image"
            )
    return found


def _words(grid: Grid) -> str:
    spacing = " x ".join("?" if step is None else f"{step:.3g}" for step in grid.spacing_mm)
    return f"{' x '.join(map(str, grid.size))} voxels of {spacing} mm"


def _are_close(one: float, other: float) -> bool:
    return abs(one - other) <= _SAME_SPACING * max(one, other)


def _dot(first: Direction, second: Direction) -> float:
    return sum(a * b for a, b in zip(first, second, strict=True))
