import numpy as np
import pytest

from data_scripts.preprocessing.pseudo_masks import LEAST_HEIGHT, has_pseudo_mask, pseudo_mask
from tests.data_scripts.preprocessing.drawn_spine import CANAL, DISC, VERTEBRA, drawn_spine


def dice(guess, truth):
    return 2 * (guess & truth).sum() / (guess.sum() + truth.sum())


def test_structures_of_a_drawn_spine_are_found():
    pixels, truth = drawn_spine()
    found = pseudo_mask(pixels)
    assert found.dtype == np.uint8 and found.shape == pixels.shape
    assert dice(found == VERTEBRA, truth == VERTEBRA) > 0.7
    assert dice(found == DISC, truth == DISC) > 0.5
    assert dice(found == CANAL, truth == CANAL) > 0.6


def test_bulges_that_the_report_states_widen_discs():
    pixels, _ = drawn_spine()
    discs = {report: (pseudo_mask(pixels, report) == DISC).sum() for report in ("", "Disc bulge at L4/L5.")}
    assert discs["Disc bulge at L4/L5."] > discs[""]
    assert np.array_equal(pseudo_mask(pixels, "No disc bulge at L4/L5."), pseudo_mask(pixels))


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((192, 150), np.uint8),
        np.full((192, 150), 90, np.uint8),
        drawn_spine()[0][: LEAST_HEIGHT - 1],
        np.random.default_rng(0).integers(0, 256, (128, 100), dtype=np.uint8),
    ],
)
def test_no_spine_no_mask(pixels):
    assert pseudo_mask(pixels) is None


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (("sagittal", "T2_SPACE", "several"), True),
        (("sagittal", "T2", "unknown"), True),
        (("sagittal", "T1", "several"), False),
        (("sagittal", "STIR", "several"), False),
        (("sagittal", "T2", "L4/L5"), False),
        (("axial", "T2", "several"), False),
        (("unknown", "T2", "several"), False),
    ],
)
def test_which_slices_can_have_one(place, expected):
    assert has_pseudo_mask(*place) is expected
