"""Variations of grey values and pose, against slow sums and drawn anatomy."""

import numpy as np
import pytest
from PIL import Image

from data_scripts.augmentations.image_variation import (
    CENTRAL_SHARE,
    Pose,
    mirrored,
    points_to_keep,
    pose_in_view,
    posed,
    with_bias_field,
    with_grey_scale,
)
from data_scripts.augmentations.map_functions import VaryBiasField, VaryPose
from data_scripts.records import ReadOptions
from data_scripts.sources.synthetic import source as synthetic
from tests.data_scripts.made_rows import decoded


def test_grey_scale_by_hand_and_black_stays_black():
    image = Image.fromarray(np.array([[0, 102, 204]], dtype=np.uint8))
    assert np.asarray(with_grey_scale(image, np.log(2), 0.0, 0.0)).tolist() == [[0, 41, 163]]  # 255 (v/255)²
    assert np.asarray(with_grey_scale(image, 0.0, np.log(0.5), 0.2)).tolist() == [[0, 102, 153]]
    assert with_grey_scale(image, 0.0, 0.0, 0.0).tobytes() == image.tobytes()


def test_bias_field_is_smooth_and_positive():
    rng = np.random.default_rng(0)
    image = Image.new("L", (64, 48), 120)
    varied = VaryBiasField(seed=0, max_coefficient=0.3)({"image": [image] * 20, "source": list(map(str, range(20)))})
    for value in varied["image"]:
        pixels = np.asarray(decoded(value)).astype(float)
        assert 20 < pixels.min() < 120 < pixels.max() and pixels.shape == (48, 64)
        assert max(np.abs(np.diff(pixels[:, 5:-5], axis=axis)).max() for axis in (0, 1)) <= 16
    coefficients = rng.normal(size=(3, 3)) / 10
    slow = np.empty((48, 64))
    for row, y in enumerate(np.linspace(-1, 1, 48)):
        for column, x in enumerate(np.linspace(-1, 1, 64)):
            exponent = sum(coefficients[j, k] * x**j * y**k for j in range(3) for k in range(3))
            slow[row, column] = np.clip(round(120 * np.exp(exponent)), 0, 255)
    assert np.abs(np.asarray(with_bias_field(image, coefficients)) - slow).max() <= 1


def test_pose_moves_pixels_as_its_matrix_says():
    pose = Pose(degrees=7, zoom=1.08, shift_right=0.04, shift_down=-0.03)
    pixels = np.zeros((90, 120), dtype=np.uint8)
    pixels[30:33, 70:73] = 255  # centre (71.5, 31.5)
    rows, columns = np.indices(pixels.shape)
    moved = np.asarray(posed(Image.fromarray(pixels), pose)).astype(float)
    centre = [(columns + 0.5) * moved, (rows + 0.5) * moved]
    expected = pose.matrix((120, 90)) @ [71.5, 31.5, 1]
    assert np.allclose([part.sum() / moved.sum() for part in centre], expected[:2], atol=0.1)
    assert moved.sum() == pytest.approx(255 * 9 * 1.08**2, rel=0.05)
    # Clockwise, by hand: what lies right of the centre goes down.
    assert (Pose(degrees=90).matrix((10, 10)) @ [9, 5, 1]).round(6).tolist() == [5, 9, 1]
    assert posed(Image.fromarray(pixels), Pose()).tobytes() == pixels.tobytes()


@pytest.mark.parametrize("size", [(100, 100), (60, 150), (200, 80)])
def test_the_central_part_stays_in_view(size):
    points = points_to_keep(size, None, None)
    rng = np.random.default_rng(0)
    milder = 0
    for _ in range(200):
        drawn = Pose(
            degrees=rng.uniform(-40, 40),
            zoom=np.exp(rng.uniform(-0.4, 0.4)),
            shift_right=rng.uniform(-0.3, 0.3),
            shift_down=rng.uniform(-0.3, 0.3),
        )
        pose = pose_in_view(drawn, points, size)
        milder += pose != drawn
        # Marks at the corners of the central part are still there.
        corners = np.array([[x, y, 1] for x in (0.15, 0.85) for y in (0.15, 0.85)]) * [*size, 1]
        moved = corners @ pose.matrix(size).T
        assert (moved[:, :2] > -1e-9).all() and (moved[:, :2] < np.array(size) + 1e-9).all()
    assert CENTRAL_SHARE == 0.7 and 50 < milder < 200


def test_no_kept_pixel_leaves_the_image_on_drawn_anatomy():
    """Disc and canal, moved to the border of the image, still have all their pixels after the pose."""
    records = list(synthetic.read(ReadOptions(raw=None, seed=1, num_patients=2)))[::3]
    kept_classes = tuple(synthetic.MASK_NAMES.index(name) for name in ("disc", "thecal sac"))
    turned = 0
    for number, record in enumerate(records):
        image, mask = record.load_image(), record.load_mask()
        indices = np.isin(np.asarray(mask), kept_classes)
        rows, columns = np.nonzero(indices)
        # Cut so that disc and canal nearly touch the border.
        box = (columns.min() - 3, rows.min() - 3, columns.max() + 4, rows.max() + 4)
        image, mask = image.crop(box), mask.crop(box)
        batch = {"image": [image], "mask": [mask], "pixel_spacing_mm": [0.5], "source": [str(number)]}
        moved = VaryPose(seed=0, max_degrees=30, max_shift=0.2, kept_classes=kept_classes)(batch)
        after = np.isin(np.asarray(decoded(moved["mask"][0])), kept_classes).sum()
        scale = (0.5 / moved["pixel_spacing_mm"][0]) ** 2
        assert after == pytest.approx(indices.sum() * scale, rel=0.015)
        turned += moved["image"][0]["bytes"] != batch["image"][0].tobytes() and moved["pixel_spacing_mm"][0] != 0.5
    assert turned == len(records)


def test_kept_classes_default_to_those_that_are_whole():
    mask = np.zeros((50, 50), dtype=np.uint8)
    mask[0:20, 10:20] = 1  # cut by the border
    mask[3:9, 30:35] = 2
    points = points_to_keep((50, 50), Image.fromarray(mask), None)
    assert len(points) == 4 + 4 * 30 and points[4:].min(axis=0).tolist() == [30, 3]
    assert len(points_to_keep((50, 50), Image.fromarray(mask), (1, 2))) == 4 + 4 * 230


def test_mirrored_is_a_mirror():
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert np.asarray(mirrored(Image.fromarray(pixels))).tolist() == [[2, 1, 0], [5, 4, 3]]
