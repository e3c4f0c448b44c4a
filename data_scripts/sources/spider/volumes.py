"""Take the mid-sagittal slice of a SPIDER volume and its mask: upright, front at the left, square pixels."""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from data_scripts.imaging.dicom import square_pixel_size
from data_scripts.imaging.images import ORIENTATION_STATED, UnusableImageError, window_to_uint8
from data_scripts.imaging.metaimage import VolumeHeader, read_header, read_sagittal_volume

MASK_NAMES = ("background", "vertebra", "disc", "spinal canal")
_VERTEBRA, _DISC, _CANAL = 1, 2, 3

# SPIDER numbers each structure from the bottom: vertebrae from 1 = L5, or from 101 if the image cuts them off, discs
# from 201 = L5/S1. Index: number in the file; value: index in `MASK_NAMES`, or `_UNKNOWN`.
_UNKNOWN = 255
_CLASS_OF_NUMBER = np.full(256, _UNKNOWN, np.uint8)
_CLASS_OF_NUMBER[0] = 0
_CLASS_OF_NUMBER[1:26] = _CLASS_OF_NUMBER[101:126] = _VERTEBRA
_CLASS_OF_NUMBER[201:226] = _DISC
_CLASS_OF_NUMBER[100] = _CANAL

_SAME_SPACING = 0.01  # relative; headers round


class Slice(NamedTuple):
    """A grey slice and its class indices, if there is a mask."""

    image: Image.Image
    mask: Image.Image | None


def load_image(volume: Path, mask: Path | None) -> Image.Image:
    """Load the mid-sagittal slice, 8-bit grey, windowed between percentiles of the slice."""
    return load_slice(volume, mask).image


def load_mask(volume: Path, mask: Path) -> Image.Image:
    """Load the same slice of the mask: indices of `MASK_NAMES`."""
    sliced = load_slice(volume, mask).mask
    assert sliced is not None
    return sliced


@lru_cache(maxsize=1)  # a record's mask is loaded right after its image
def load_slice(volume: Path, mask: Path | None) -> Slice:
    """Take the slice through the middle of the spine.

    With a mask, take the slice of the middle third that shows most of the spinal canal, or of the spine if no canal is
    marked: scoliosis moves the spine out of the middle of the volume. Without a mask, take the middle slice.

    Raises:
        UnusableImageError: If a file cannot be read, the mask does not fit the volume or holds unknown numbers.
    """
    header = read_header(volume)
    if mask is None:
        return Slice(_grey(volume, header.sagittal_size[0] // 2, header), None)
    _check_fit(header, read_header(mask))
    index, numbers = _middle_of_mask(mask)
    return Slice(_grey(volume, index, header), _class_indices(numbers, header))


def stored_spacing_mm(header: VolumeHeader) -> float:
    """Return the side of a stored pixel: the finer in-plane spacing."""
    return min(header.sagittal_spacing_mm[1:])


def middle_of_spine(numbers: np.ndarray) -> int:
    """Find the slice of a mask, shape (across, down, back), with most of the canal, else of any structure.

    Example:
        >>> numbers = np.zeros((9, 2, 2), int)
        >>> middle_of_spine(numbers)
        4
        >>> numbers[5, 0] = 3
        >>> middle_of_spine(numbers)
        5
        >>> numbers[3, 0, 0] = 100
        >>> middle_of_spine(numbers)
        3
    """
    count = len(numbers)
    third = numbers[count // 3 : count - count // 3]
    for shown in (third == 100, third > 0):
        areas = shown.sum(axis=(1, 2))
        if areas.any():
            largest = np.flatnonzero(areas == areas.max()) + count // 3
            return int(largest[np.argmin(np.abs(largest - count // 2))])
    return count // 2


def _middle_of_mask(path: Path) -> tuple[int, np.ndarray]:
    """Find the slice and copy it, so that the rest of the mask is freed before the volume is read."""
    numbers = read_sagittal_volume(path)
    index = middle_of_spine(numbers)
    return index, numbers[index].copy()


def _check_fit(volume: VolumeHeader, mask: VolumeHeader) -> None:
    if mask.sagittal_size != volume.sagittal_size or not np.allclose(
        mask.sagittal_spacing_mm, volume.sagittal_spacing_mm, rtol=_SAME_SPACING
    ):
        raise UnusableImageError(
            f"the mask does not fit: it has {mask.sagittal_size} voxels of {mask.sagittal_spacing_mm} mm, "
            f"the volume {volume.sagittal_size} of {volume.sagittal_spacing_mm} mm"
        )


def _grey(volume: Path, index: int, header: VolumeHeader) -> Image.Image:
    grey = Image.fromarray(window_to_uint8(read_sagittal_volume(volume)[index]))
    grey.info[ORIENTATION_STATED] = True
    return grey.resize(_square_size(grey.size, header), Image.Resampling.BILINEAR)


def _class_indices(numbers: np.ndarray, header: VolumeHeader) -> Image.Image:
    if not np.isin(numbers, np.arange(256)).all():
        raise UnusableImageError("mask values must be whole numbers from 0 to 255")
    indices = _CLASS_OF_NUMBER[numbers.astype(np.uint8)]
    if (indices == _UNKNOWN).any():
        unknown = numbers[indices == _UNKNOWN].flat[0]
        raise UnusableImageError(f"unknown mask value {unknown}; allowed: 0 to 25, 100 to 125, 201 to 225")
    mask = Image.fromarray(indices)
    return mask.resize(_square_size(mask.size, header), Image.Resampling.NEAREST)


def _square_size(size: tuple[int, int], header: VolumeHeader) -> tuple[int, int]:
    return square_pixel_size(size[1], size[0], header.sagittal_spacing_mm[1:])
