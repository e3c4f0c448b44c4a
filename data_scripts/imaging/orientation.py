"""Turn slices to the radiological convention, in which readers look at them; pixels are moved, never interpolated.

| plane    | right side of the picture | lower side |
|----------|---------------------------|------------|
| axial    | patient's left            | back       |
| sagittal | back                      | feet       |
| coronal  | patient's left            | feet       |

Scanners and converters store slices mirrored, upside down or lying on a side; a model would learn that as anatomy, and
`left` in a report would not be where the picture shows it. Coordinates are DICOM's: x to the patient's left, y to the
back, z to the head. Those of NIfTI run to the right and the front: negate x and y of its directions.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

AXIAL_CONE_DEGREES = 55
COSINE_TOLERANCE = 0.05

# Where rows run, to the right of the picture, and columns, downwards.
_SHOWN_DIRECTIONS = {
    "axial": ((1, 0, 0), (0, 1, 0)),
    "sagittal": ((0, 1, 0), (0, 0, -1)),
    "coronal": ((1, 0, 0), (0, 0, -1)),
}
# Where row x column runs then: to the head, the right and the back.
SHOWN_NORMALS = {"axial": (0, 0, 1), "sagittal": (-1, 0, 0), "coronal": (0, 1, 0)}
_NEAR_PLANE = math.cos(math.radians(70))
_TIE = 1e-6  # rows at 45 degrees agree with two turns; the one that moves less is taken

Direction = Sequence[float]


class Turn(NamedTuple):
    """How stored pixels become the picture: rows and columns are exchanged, then the picture is mirrored."""

    transpose: bool = False
    flip_rows: bool = False  # upside down
    flip_columns: bool = False  # left to right


AS_STORED = Turn()


def plane_of(row_direction: Direction, column_direction: Direction) -> str:
    """Name the plane of a slice: `axial`, `sagittal` or `coronal`.

    Slices through a disc are tilted with it, L5/S1 by 50 degrees and more, and still count as axial. So a slice is
    sagittal if its normal is nearest to the left-right axis, else axial if its normal is within 55 degrees of the
    head-foot axis, else coronal.

    Args:
        row_direction: Unit vector along a row, from the first column to the last. Shape (3,).
        column_direction: Unit vector along a column, from the first row to the last, at a right angle. Shape (3,).

    Example:
        >>> plane_of((1, 0, 0), (0, 0.7, -0.714)), plane_of((0, 1, 0), (0, 0, -1)), plane_of((1, 0, 0), (0, 0, -1))
        ('axial', 'sagittal', 'coronal')
    """
    return plane_across(normal_of(row_direction, column_direction))


def plane_across(normal: Direction) -> str:
    """Name the plane of slices by the direction across them, of either sign. Shape (3,)."""
    left, back, head = (abs(value) / math.hypot(*normal) for value in normal)
    if left >= max(back, head):
        return "sagittal"
    return "axial" if head >= math.cos(math.radians(AXIAL_CONE_DEGREES)) else "coronal"


def normal_of(row_direction: Direction, column_direction: Direction) -> tuple[float, float, float]:
    """Compute the unit vector across a slice, row x column."""
    (a, b, c), (d, e, f) = row_direction, column_direction
    normal = (b * f - c * e, c * d - a * f, a * e - b * d)
    length = math.hypot(*normal)
    return normal[0] / length, normal[1] / length, normal[2] / length


def are_directions(row_direction: Direction, column_direction: Direction) -> bool:
    """Whether two vectors are unit vectors at a right angle, as precisely as headers are written."""
    products = (
        _dot(row_direction, row_direction) - 1,
        _dot(column_direction, column_direction) - 1,
        _dot(row_direction, column_direction),
    )
    return all(abs(product) < COSINE_TOLERANCE for product in products)


def turn_of(row_direction: Direction, column_direction: Direction, plane: str | None = None) -> Turn:
    """Find how a slice is turned to the radiological convention of its plane.

    Of the eight ways to turn and mirror a picture, take the one whose rows and columns agree best with the convention:
    for an oblique slice, the one nearest to it.

    Args:
        row_direction: As in `plane_of`.
        column_direction: As in `plane_of`.
        plane: What the series is known to be. It decides for slices between two planes, such as steep ones through
            L5/S1, and is not heeded for slices more than 70 degrees off.

    Example:
        >>> turn_of((1, 0, 0), (0, 1, 0)) == AS_STORED
        True
        >>> turn_of((0, 0, 1), (0, 1, 0))
        Turn(transpose=True, flip_rows=True, flip_columns=False)
    """
    normal = normal_of(row_direction, column_direction)
    if plane not in SHOWN_NORMALS or abs(_dot(normal, SHOWN_NORMALS[plane])) < _NEAR_PLANE:
        plane = plane_across(normal)
    shown_row, shown_column = _SHOWN_DIRECTIONS[plane]
    along, down = _dot(row_direction, shown_row), _dot(column_direction, shown_column)
    exchanged_along, exchanged_down = _dot(column_direction, shown_row), _dot(row_direction, shown_column)
    transpose = abs(exchanged_along) + abs(exchanged_down) > abs(along) + abs(down) + _TIE
    if transpose:
        along, down = exchanged_along, exchanged_down
    return Turn(transpose=transpose, flip_rows=down < -_TIE, flip_columns=along < -_TIE)


def turned_image(image: Image.Image, turn: Turn) -> Image.Image:
    """Turn a picture or a mask of any mode."""
    for is_needed, operation in (
        (turn.transpose, Image.Transpose.TRANSPOSE),
        (turn.flip_rows, Image.Transpose.FLIP_TOP_BOTTOM),
        (turn.flip_columns, Image.Transpose.FLIP_LEFT_RIGHT),
    ):
        image = image.transpose(operation) if is_needed else image
    return image


def turned_directions(
    row_direction: Direction, column_direction: Direction, turn: Turn
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the directions of rows and columns of the turned picture."""
    row, column = (column_direction, row_direction) if turn.transpose else (row_direction, column_direction)
    along, down = (-1 if turn.flip_columns else 1), (-1 if turn.flip_rows else 1)
    return tuple(along * value for value in row), tuple(down * value for value in column)


def _dot(first: Direction, second: Direction) -> float:
    return sum(a * b for a, b in zip(first, second, strict=True))
