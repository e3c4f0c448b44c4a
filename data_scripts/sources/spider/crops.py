"""Cut the discs of a SPIDER volume out of its sagittal slices, where the mask marks them."""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from PIL import Image
from scipy.ndimage import find_objects

from data_scripts.imaging.images import UnusableImageError
from data_scripts.imaging.metaimage import read_header, read_sagittal_volume
from data_scripts.sources.spider.volumes import check_fit, class_indices, grey_slice, square_size, whole_numbers

# Numbers of the mask, from the bottom: disc 201 lies below vertebra 1. Those that the image cuts off are left out.
_DISCS = range(201, 226)
_VERTEBRAE = range(1, 26)


class Crop(NamedTuple):
    """Where one slice shows one disc: pixels of the slice as stored, right and bottom excluded."""

    ivd_label: int  # counted from the bottom, as in the gradings
    slice_index: int  # from the patient's right
    left: int
    top: int
    right: int
    bottom: int


class _Cut(NamedTuple):
    image: Image.Image
    mask: Image.Image


def find_crops(volume: Path, mask: Path, context_mm: float, slices: str) -> list[Crop]:
    """Find the crops of every disc in the mask, from bottom to top, each disc's slices from right to left.

    A crop is the box around the disc in its slice, `context_mm` wider on each side, as far as the slice goes.

    Args:
        volume: The grey volume, of which only the header is read.
        mask: Its mask.
        context_mm: Margin around the disc; 0 cuts at its edge.
        slices: `all` slices with the disc, the one nearest to its `middle`, or as many of the nearest as this number.

    Raises:
        UnusableImageError: If a file cannot be read, the mask does not fit the volume, or it contradicts itself about
            which disc is which.
    """
    header = read_header(volume)
    check_fit(header, read_header(mask))
    numbers = whole_numbers(read_sagittal_volume(mask))
    width, height = square_size(header)
    pixels_down, pixels_back = height / header.sagittal_size[1], width / header.sagittal_size[2]
    context = context_mm / min(header.sagittal_spacing_mm[1:])
    num_slices = None if slices == "all" else 1 if slices == "middle" else int(slices)
    crops = []
    discs = _discs(numbers)
    _check_numbers(numbers, discs)
    for number, disc in discs.items():
        is_disc = numbers[disc] == number
        for index in _nearest_slices(is_disc.sum(axis=(1, 2)), num_slices):
            rows, columns = np.flatnonzero(is_disc[index].any(axis=1)), np.flatnonzero(is_disc[index].any(axis=0))
            top, left = disc[1].start + rows[0], disc[2].start + columns[0]
            bottom, right = disc[1].start + rows[-1] + 1, disc[2].start + columns[-1] + 1
            crops.append(
                Crop(
                    ivd_label=number - _DISCS.start + 1,
                    slice_index=disc[0].start + index,
                    left=max(0, math.floor(left * pixels_back - context)),
                    top=max(0, math.floor(top * pixels_down - context)),
                    right=min(width, math.ceil(right * pixels_back + context)),
                    bottom=min(height, math.ceil(bottom * pixels_down + context)),
                )
            )
    return crops


def load_image(volume: Path, mask: Path, crops: tuple[Crop, ...], crop: Crop) -> Image.Image:
    """Load one of the crops of a volume, 8-bit grey, windowed between percentiles of its whole slice."""
    return _cut(volume, mask, crops)[crop].image


def load_mask(volume: Path, mask: Path, crops: tuple[Crop, ...], crop: Crop) -> Image.Image:
    """Load the same part of the mask: indices of `MASK_NAMES`."""
    return _cut(volume, mask, crops)[crop].mask


@lru_cache(maxsize=1)  # the crops of a volume are loaded one after another: it is decoded once, and freed
def _cut(volume: Path, mask: Path, crops: tuple[Crop, ...]) -> dict[Crop, _Cut]:
    header = read_header(volume)
    numbers = read_sagittal_volume(mask)
    masks = {index: class_indices(numbers[index], header) for index in {crop.slice_index for crop in crops}}
    del numbers  # not in memory together with the volume
    voxels = read_sagittal_volume(volume)
    images = {index: grey_slice(voxels[index], header) for index in masks}
    return {
        crop: _Cut(images[crop.slice_index].crop(crop[2:]), masks[crop.slice_index].crop(crop[2:])) for crop in crops
    }


def _discs(numbers: np.ndarray) -> dict[int, tuple[slice, slice, slice]]:
    """Find the bounding box of each disc, by its number."""
    boxes = find_objects(numbers, max_label=_DISCS[-1])
    return {number: boxes[number - 1] for number in _DISCS if boxes[number - 1] is not None}


def _nearest_slices(areas: np.ndarray, num_slices: int | None) -> Sequence[int]:
    """Choose the slices of a disc nearest to its centre of mass, in order.

    Example:
        >>> _nearest_slices(np.array([1, 5, 9, 8, 0, 1]), 1), _nearest_slices(np.array([1, 5, 9, 8, 0, 1]), 3)
        ([2], [1, 2, 3])
        >>> _nearest_slices(np.array([1, 5, 9, 8, 0, 1]), None)
        [0, 1, 2, 3, 5]
    """
    shown = np.flatnonzero(areas)
    centre = (shown * areas[shown]).sum() / areas.sum()
    nearest = np.argsort(np.abs(shown - centre), kind="stable")[:num_slices]
    return sorted(shown[nearest].tolist())


def _check_numbers(numbers: np.ndarray, discs: Mapping[int, tuple[slice, slice, slice]]) -> None:
    """Check that each disc lies below the vertebrae from its number on, and above those before.

    Discs are numbered after the vertebra above, from L5 = 1 at the bottom. With six lumbar vertebrae, or a transitional
    one, the two may be counted differently; the level is then not known.
    """
    for number, disc in discs.items():
        column = numbers[disc[0], :, disc[2]]  # without the posterior elements, which hang down
        rows = np.arange(column.shape[1])
        counts = np.array([np.bincount(column[:, row].ravel(), minlength=256) for row in rows])  # (row, number)
        sizes = counts.sum(axis=0)
        heights = {other: rows @ counts[:, other] / sizes[other] for other in np.flatnonzero(sizes).tolist()}
        ivd_label = number - _DISCS.start + 1
        for vertebra in (other for other in heights if other in _VERTEBRAE):
            is_above = heights[vertebra] < heights[number]
            if is_above != (vertebra >= ivd_label):
                where = "below" if is_above else "above"
                _raise_unknown_levels(f"disc {number} lies {where} vertebra {vertebra}")
    for (lower, lower_box), (upper, upper_box) in pairwise(discs.items()):
        if upper_box[1].start >= lower_box[1].start:
            _raise_unknown_levels(f"disc {upper} lies below disc {lower}")


def _raise_unknown_levels(contradiction: str) -> NoReturn:
    raise UnusableImageError(
        f"the mask contradicts itself: {contradiction}, so the levels are not known (L6, or a transitional vertebra?)"
    )
