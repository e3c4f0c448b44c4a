"""The rule of `benchmarks/sagittal_transfer.py` accepts a drawn spine, and finds an error in it."""

import numpy as np
import pytest

pytest.importorskip("skimage")

from tests.benchmarks.sagittal_transfer import (
    CANAL,
    DISC,
    ERRORS,
    VERTEBRA,
    drawn_rows,
    find_discs,
    implausible,
    values_of,
    without_disc,
)


def drawn_spine(num_discs: int = 7, mirrored: bool = False) -> np.ndarray:
    """Draw upright boxes: discs of 40 x 8 and vertebrae of 40 x 24 pixels, the canal beside them."""
    mask = np.zeros((300, 200), np.uint8)
    top = 10
    for _ in range(num_discs):
        mask[top : top + 24, 60:100] = VERTEBRA
        mask[top + 26 : top + 34, 60:100] = DISC
        top += 36
    mask[5 : top + 20, 106:120] = CANAL
    return np.ascontiguousarray(mask[:, ::-1]) if mirrored else mask


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("num_discs", [5, 7])
def test_drawn_spine_is_plausible(num_discs, mirrored):
    mask = drawn_spine(num_discs, mirrored)
    assert not implausible(mask)
    assert [round(disc.centroid[0]) for disc in find_discs(mask)][:2] == [36 * num_discs + 4, 36 * num_discs - 32]


REASONS = {
    "a middle disc is missing": "distances differ",
    "a middle disc is called vertebra": "distances differ",
    "the lowest disc is missing": "a vertebra below the lowest disc",
    "no canal": "canal not along the discs",
    "discs and vertebrae exchanged": "no vertebra between two discs",
    "two discs in one": "a disc along the spine",
}


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_has_its_reason(error):
    assert implausible(ERRORS[error](drawn_spine())) == REASONS[error]


def test_too_few_discs():
    assert implausible(drawn_spine(4)) == "4 discs"
    assert implausible(np.zeros((20, 20), np.uint8)) == "0 discs"


def test_fragments_are_no_discs():
    mask = drawn_spine()
    mask[2:4, 10:14] = DISC
    assert len(find_discs(mask)) == 7


def with_canal(left: int, rows: slice = slice(None)) -> np.ndarray:
    mask = drawn_spine()
    mask[rows, 106:120] = 0
    mask[rows, left : left + 14] = CANAL
    return mask


def with_tall_discs() -> np.ndarray:
    """Discs of 28 x 30 pixels, three quarters of the vertebrae's height taken."""
    mask = np.where(drawn_spine() == CANAL, CANAL, 0).astype(np.uint8)
    for top in range(10, 250, 36):
        mask[top : top + 6, 66:94] = VERTEBRA
        mask[top + 6 : top + 36, 66:94] = DISC
        mask[top + 33 : top + 36, 66:94] = 0
    return mask


def sheared(pixels_a_row: float) -> np.ndarray:
    mask = np.pad(drawn_spine(), ((0, 0), (0, 400)))
    return np.stack([np.roll(line, int(pixels_a_row * row)) for row, line in enumerate(mask)])


def with_narrow_disc() -> np.ndarray:
    mask = without_disc(drawn_spine(), 1, 0)
    mask[217:221, 66:92] = DISC
    return mask


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (with_canal(106), ""),
        (with_canal(130), ""),  # 50 pixels from the discs' centres
        (with_canal(160), "canal not along the discs"),
        (with_canal(40, slice(130)), "canal not along the discs"),  # it crosses the spine
        (with_canal(160, slice(220, None)), ""),  # out of the plane beside the lowest disc
        (drawn_spine()[::3], "too near or far"),
        (with_tall_discs(), "not flat"),
        (sheared(0.5), ""),
        (sheared(1.5), "a disc along the spine"),
        (with_narrow_disc(), ""),
    ],
)
def test_limits(mask, reason):
    assert implausible(mask) == reason


def test_classes_are_found_by_name():
    names = {0: "background", 1: "sacrum", 2: "disc", 3: "spinal canal", 4: "vertebra"}
    assert values_of(names).tolist() == [0, 0, DISC, CANAL, VERTEBRA]
    with pytest.raises(ValueError, match="does not know vertebra; its classes: background, disc, spinal canal"):
        values_of({0: "background", 1: "disc", 2: "spinal canal"})


def test_drawn_rows_are_of_different_patients():
    patients = np.array(["a", "a", "", "b", "c", ""])
    rows = drawn_rows(patients, 5)
    assert sorted(patients[rows]) == ["a", "b", "c"]
    assert drawn_rows(patients, 2) == rows[:2]
