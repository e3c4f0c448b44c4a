import itertools
import re

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from data_scripts.imaging.images import UnusableImageError
from data_scripts.imaging.voxel_grid import Grid, arrange, fit
from tests.data_scripts.imaging.volume_files import SPACING_MM, spine, stored_as

ORIENTATIONS = [
    "".join(sides) for order in itertools.permutations(("LR", "PA", "SI")) for sides in itertools.product(*order)
]
ANATOMY = spine()
# As radiologists look at them, from arrays whose axes run to the left, to the back and to the head.
SHOWN = {
    "sagittal": ANATOMY[:, :, ::-1].transpose(0, 2, 1),  # from right to left; head up, front at the left
    "axial": ANATOMY.transpose(2, 1, 0),  # from foot to head; front up, patient's right at the left
    "coronal": ANATOMY[:, :, ::-1].transpose(1, 2, 0),  # from front to back; head up
}


def grid_of(axes, spacing_mm=SPACING_MM, turn=None, anatomy=ANATOMY):
    voxels, directions, spacing, corner = stored_as(anatomy, axes, spacing_mm, turn)
    directions = tuple(map(tuple, directions.tolist()))
    return voxels, Grid(size=voxels.shape, spacing_mm=spacing, directions=directions, corner_mm=tuple(corner))


@pytest.mark.parametrize("plane", SHOWN)
@pytest.mark.parametrize("axes", ORIENTATIONS)
def test_every_way_to_store_a_volume_gives_the_same_slices(axes, plane):
    voxels, grid = grid_of(axes)
    arrangement, found = arrange(grid, plane)
    assert found == plane and np.array_equal(arrangement.applied(voxels), SHOWN[plane])
    shown = arrangement.grid(grid)
    across, down, along = {"sagittal": (0, 2, 1), "axial": (2, 1, 0), "coronal": (1, 2, 0)}[plane]
    assert shown.spacing_mm == tuple(SPACING_MM[axis] for axis in (across, down, along))
    assert shown.size == SHOWN[plane].shape
    assert np.allclose(shown.corner_mm, arrange(grid_of("LPS")[1], plane)[0].grid(grid_of("LPS")[1]).corner_mm)


@pytest.mark.parametrize("degrees", [-35, -10, 10, 35])
@pytest.mark.parametrize("axis", np.eye(3).tolist())
def test_oblique_volumes_are_taken_for_the_nearest_axes(axis, degrees):
    turn = Rotation.from_rotvec(degrees * np.array(axis), degrees=True).as_matrix()
    for axes in ORIENTATIONS[::5]:
        voxels, grid = grid_of(axes, turn=turn)
        arrangement, plane = arrange(grid)
        assert plane == "sagittal" and np.array_equal(arrangement.applied(voxels), SHOWN["sagittal"])


@pytest.mark.parametrize(
    ("spacing_mm", "shape", "plane"),
    [
        ((4.4, 0.9, 0.7), (5, 24, 30), "sagittal"),  # no two are equal: the largest
        ((4.0, 0.7, 0.7), (50, 24, 30), "sagittal"),  # the odd one, however many
        ((0.5, 0.8, 0.8), (50, 24, 30), "sagittal"),  # also if it is the finest
        ((0.7, 0.7, 4.0), (30, 30, 9), "axial"),
        ((0.7, 3.0, 0.7), (30, 9, 30), "coronal"),
        ((0.9, 0.9, 0.9), (8, 24, 30), "sagittal"),  # all are equal: the fewest
        ((0.9, 0.89, 0.91), (24, 30, 8), "axial"),
        ((1.0, 1.0, 5.0), (1, 24, 30), "sagittal"),  # a single slice
    ],
)
def test_slices_lie_across_the_axis_that_was_scanned(spacing_mm, shape, plane):
    for axes in ORIENTATIONS[::7]:
        assert arrange(grid_of(axes, spacing_mm, anatomy=spine(shape))[1])[1] == plane


def test_without_directions_nothing_is_reversed():
    grid = Grid(size=(3, 4, 5), spacing_mm=(4.0, 1.0, 1.0))
    arrangement, plane = arrange(grid)
    assert plane == "unknown" and arrangement.axes == (0, 1, 2) and not any(arrangement.is_reversed)
    assert arrange(grid, "axial")[1] == "axial"


@pytest.mark.parametrize("of_mask", ORIENTATIONS[::5])
@pytest.mark.parametrize("of_image", ORIENTATIONS[::7])
def test_a_mask_lies_on_its_image_however_each_is_stored(of_image, of_mask):
    turn = Rotation.from_rotvec([12, 5, -20], degrees=True).as_matrix()
    image, mask = grid_of(of_image, turn=turn), grid_of(of_mask, turn=turn)
    arrangement, _ = arrange(image[1])
    fitted = fit(mask[1], image[1], arrangement)
    assert np.array_equal(fitted.applied(mask[0]), arrangement.applied(image[0]))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"size": (5, 24, 31)}, "another grid: 5 x 31 x 24 voxels of 4.4 x 0.7 x 0.9 mm, its image 5 x 30 x 24"),
        ({"spacing_mm": (4.4, 0.9, 0.8)}, "another grid: 5 x 30 x 24 voxels of 4.4 x 0.8 x 0.9 mm"),
        ({"corner_mm": (-12.0, -38.0, -250.0)}, "begins 2.0 mm away"),
        ({"directions": None}, "the mask states no orientation"),
        ({"directions": ((0.8, 0.6, 0), (-0.6, 0.8, 0), (0, 0, 1))}, "its axes are turned"),
    ],
)
def test_a_mask_on_another_grid_is_refused(changes, reason):
    _, image = grid_of("LPS")
    mask = Grid(**{**vars(image), **changes})
    with pytest.raises(UnusableImageError, match=re.escape(reason)):
        fit(mask, image, arrange(image)[0])


def test_a_mask_and_an_image_without_orientation_fit_as_stored():
    grid = Grid(size=(3, 4, 5), spacing_mm=(4.0, 1.0, 1.0))
    assert fit(grid, grid, arrange(grid)[0]) == arrange(grid)[0]
    with pytest.raises(UnusableImageError, match="the image states no orientation"):
        fit(grid_of("LPS")[1], grid, arrange(grid)[0])
