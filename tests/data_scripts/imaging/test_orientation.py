import itertools

import numpy as np
import pytest
from PIL import Image

from data_scripts.imaging.orientation import (
    AS_STORED,
    Turn,
    are_directions,
    normal_of,
    plane_of,
    turn_of,
    turned_directions,
    turned_image,
)
from tests.data_scripts.imaging.dicom_files import AXIAL, CORONAL, SAGITTAL, tilted

TURNS = [Turn(*flags) for flags in itertools.product((False, True), repeat=3)]
PICTURE = np.arange(15, dtype=np.uint16).reshape(3, 5)


def stored_as(turn, orientation):
    """Directions and pixels of a file in which the picture lies so that `turn` sets it right."""
    row, column = np.array(orientation[:3], float), np.array(orientation[3:], float)
    pixels = PICTURE
    if turn.flip_columns:
        row, pixels = -row, pixels[:, ::-1]
    if turn.flip_rows:
        column, pixels = -column, pixels[::-1]
    if turn.transpose:
        row, column, pixels = column, row, pixels.T
    return pixels, row, column


@pytest.mark.parametrize("turn", TURNS, ids=str)
@pytest.mark.parametrize(
    ("plane", "orientation"),
    [
        ("axial", AXIAL),
        ("sagittal", SAGITTAL),
        ("coronal", CORONAL),
        ("axial", tilted(50, (1, 2))),  # L5/S1: its columns run more to the head than to the back
        ("axial", tilted(-50, (1, 2))),
        ("axial", tilted(20, (0, 2))),
        ("axial", tilted(30, (0, 1))),
        ("sagittal", (0.3420201, 0.9396926, 0, 0, 0, -1)),
        ("sagittal", (0, 0.9396926, 0.3420201, 0, 0.3420201, -0.9396926)),
        ("coronal", tilted(-70, (1, 2))),
        ("coronal", (0.9396926, 0.3420201, 0, 0, 0, -1)),
    ],
)
def test_every_way_to_store_a_slice_gives_the_same_picture(plane, orientation, turn):
    pixels, row, column = stored_as(turn, orientation)
    assert (plane_of(row, column), turn_of(row, column)) == (plane, turn)
    shown_row, shown_column = turned_directions(row, column, turn)
    assert np.allclose((*shown_row, *shown_column), orientation)
    assert np.array_equal(np.asarray(turned_image(Image.fromarray(pixels.astype(np.uint8)), turn)), PICTURE)


def test_normals_of_turned_slices_run_to_the_head_right_and_back():
    assert normal_of(AXIAL[:3], AXIAL[3:]) == (0, 0, 1)
    assert normal_of(SAGITTAL[:3], SAGITTAL[3:]) == (-1, 0, 0)
    assert normal_of(CORONAL[:3], CORONAL[3:]) == (0, 1, 0)


def test_the_plane_of_a_series_decides_between_planes():
    steep = tilted(62, (1, 2))
    row, column = steep[:3], steep[3:]
    assert plane_of(row, column) == "coronal" and turn_of(row, column).flip_rows
    assert turn_of(row, column, "axial") == AS_STORED
    assert turn_of(row, column, "coronal") == turn_of(row, column, "unknown") == turn_of(row, column, None)
    for plane in ("sagittal", "coronal"):  # a table that is wrong
        assert turn_of(AXIAL[:3], AXIAL[3:], plane) == AS_STORED


def test_a_slice_at_45_degrees_and_the_noise_of_headers_move_nothing():
    half = np.sqrt(0.5)
    assert turn_of((half, half, 0), (-half, half, 0)) == AS_STORED
    assert turn_of((1, -1e-9, 0), (1e-9, 1, 0)) == AS_STORED
    assert turn_of((0.998, 0.04, 0.03), (-0.04, 0.999, 0)) == AS_STORED


@pytest.mark.parametrize("mode", ["1", "L", "P", "I;16", "I", "RGB"])
def test_masks_of_any_mode_are_turned(mode):
    image = Image.new(mode, (5, 3))
    image.putpixel((4, 0), 1 if mode != "RGB" else (1, 2, 3))
    marked = image.getpixel((4, 0))
    shown = turned_image(image, Turn(transpose=True, flip_columns=True))
    assert shown.size == (3, 5) and shown.mode == mode and shown.getpixel((2, 4)) == marked
    assert turned_image(image, AS_STORED) is image


def test_directions_are_unit_vectors_at_a_right_angle():
    assert are_directions(AXIAL[:3], AXIAL[3:])
    assert not are_directions((1, 0, 0), (1, 0, 0)) and not are_directions((2, 0, 0), (0, 1, 0))


def test_planes_lie_within_their_cones():
    assert [plane_of(*np.split(np.array(tilted(angle, (1, 2))), 2)) for angle in (54, 56)] == ["axial", "coronal"]
