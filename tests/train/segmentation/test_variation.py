"""Images and masks vary alike, seeded by row; what comes from beyond the border is ignored."""

import numpy as np
import pytest
import torch

from train.segmentation.variation import IGNORED, Variation, bend, curve_contrast, cut_patches, lower_resolution

SIDE = 48


def generators(number=2, epoch=0):
    return [np.random.default_rng([0, epoch, row]) for row in range(number)]


@pytest.fixture
def images():
    """A smooth picture and a mask of its brighter half: both move together."""
    ramp = torch.linspace(0, 1, SIDE)
    picture = 255 * (ramp + (3 * ramp[:, None]).sin()) / 2
    return picture.expand(2, -1, -1).clone(), (picture > 110).to(torch.uint8).expand(2, -1, -1).clone()


def test_mask_and_image_take_the_same_path(images):
    bent, masks = bend(*images, generators())
    assert not torch.equal(bent[0], bent[1])  # each row its own
    inside = masks != IGNORED
    assert 0.5 < inside.float().mean() < 1  # rotation and shift bring in the outside
    # Brighter than the threshold means 1, wherever the border has moved; nearest and bilinear differ beside the edge.
    decided = inside & ((bent - 110).abs() > 12) & (bent > 0)
    assert (masks[decided] == (bent[decided] > 110)).float().mean() > 0.97


def test_pixels_from_beyond_the_border_are_black_and_ignored():
    white, whole = torch.full((4, SIDE, SIDE), 200.0), torch.ones(4, SIDE, SIDE, dtype=torch.uint8)
    varied, masks = bend(white, whole, generators(4))
    assert set(masks.unique().tolist()) == {1, IGNORED}
    assert varied[masks == IGNORED].max() <= 101 and varied[masks == 1].min() >= 49  # half, or a quarter in a corner
    assert (Variation()(white, whole, generators(4))[1] == masks).all()


def test_a_row_varies_alike_in_any_batch_and_differently_in_another_epoch(images):
    variation = Variation(contrast_inversion=0.5, patch_size=32)
    together = variation(*images, generators())
    alone = variation(images[0][1:], images[1][1:], generators()[1:])
    later = variation(*images, generators(epoch=1))
    for both, one, other in zip(together, alone, later, strict=True):
        torch.testing.assert_close(both[1:].float(), one.float(), rtol=0, atol=1e-3)
        assert both.shape == (2, 32, 32) and not torch.equal(both, other)


def test_without_augmentation_only_patches_are_cut(images):
    same = Variation(augment=False)(*images, generators())
    assert torch.equal(same[0], images[0]) and torch.equal(same[1], images[1])
    (patches, masks) = cut_patches(*images, 16, generators())
    windows = images[0][0].unfold(0, 16, 1).unfold(1, 16, 1).reshape(-1, 16, 16)
    place = (windows == patches[0]).flatten(1).all(1).nonzero()
    assert len(place) == 1
    rows, columns = divmod(place.item(), SIDE - 15)
    assert torch.equal(masks[0], images[1][0, rows : rows + 16, columns : columns + 16])


def test_curves_fall_as_well_as_rise_but_leave_air_black(images):
    assert torch.equal(curve_contrast(images[0], generators(), share=0.0), images[0])
    ramp = torch.linspace(0, 255, SIDE).expand(SIDE, SIDE)[None]
    slopes = []
    for epoch in range(8):
        curved = curve_contrast(ramp, generators(1, epoch), share=1.0)
        assert curved[0, 0, 0] == 0 and curved.min() >= 0 and curved.max() <= 255
        slopes.append(curved[0, 0].diff()[10:])
    assert all((slope > 0).any() for slope in slopes) and sum((slope < 0).any().item() for slope in slopes) > 5


def test_a_lower_resolution_keeps_size_and_mean():
    noise = torch.rand(40, SIDE, SIDE) * 255
    lowered = lower_resolution(noise, generators(40))
    changed = [not torch.equal(a, b) for a, b in zip(noise, lowered, strict=True)]
    assert 4 < sum(changed) < 22  # three in ten
    assert (lowered.mean((1, 2)) - noise.mean((1, 2))).abs().max() < 3
    assert min(image.std().item() for image in lowered) < 0.7 * noise.std()
