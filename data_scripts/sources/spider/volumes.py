"""Take sagittal slices of a SPIDER volume and its mask: upright, front at the left, square pixels."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from data_scripts.imaging.dicom import square_pixel_size
from data_scripts.imaging.images import ORIENTATION_STATED, UnusableImageError, window_to_uint8
from data_scripts.imaging.metaimage import VolumeHeader, read_header, read_sagittal_volume
from data_scripts.records import BACKGROUND

MASK_NAMES = (BACKGROUND, "vertebra", "disc", "spinal canal")
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


def load_image(volume: Path, mask: Path | None, indices: tuple[int, ...] = (), index: int | None = None) -> Image.Image:
    """Load a slice, 8-bit grey, windowed between percentiles of the slice.

    Args:
        volume: The grey volume.
        mask: Its mask, if there is one.
        indices: All slices that will be loaded one after the other: the volume is read once for them.
        index: The slice, one of them, from the patient's right; None for the one through the middle of the spine.
    """
    return _load_slices(volume, mask, indices)[index][0]


def load_mask(volume: Path, mask: Path, indices: tuple[int, ...] = (), index: int | None = None) -> Image.Image:
    """Load the same slice of the mask: indices of `MASK_NAMES`."""
    numbers = _load_slices(volume, mask, indices)[index][1]
    assert numbers is not None
    return class_indices(numbers, read_header(volume))


def slices_about_spine(volume: Path, mask: Path | None, slices: str) -> tuple[int, ...]:
    """Choose `all` slices of a volume, or as many about the middle of the spine as `slices` says, from right to left.

    With a mask, the middle is the slice of the middle third that shows most of the spinal canal, or of the spine if no
    canal is marked: scoliosis moves the spine out of the middle of the volume. Without a mask, it is the volume's.

    Raises:
        UnusableImageError: If a file cannot be read, or the mask does not fit the volume.
    """
    header = read_header(volume)
    if mask is not None:
        check_fit(header, read_header(mask))
    count = header.sagittal_size[0]
    if slices == "all":
        return tuple(range(count))
    middle = count // 2 if mask is None else middle_of_spine(read_sagittal_volume(mask))
    num_slices = min(int(slices), count)
    start = min(max(middle - num_slices // 2, 0), count - num_slices)
    return tuple(range(start, start + num_slices))


@lru_cache(maxsize=1)  # a record's mask is loaded right after its image
def _load_slices(
    volume: Path, mask: Path | None, indices: tuple[int, ...]
) -> dict[int | None, tuple[Image.Image, np.ndarray | None]]:
    """Load slices and the numbers of their mask by their index or, without indices, by None the one in the middle.

    The rest of the mask is freed before the volume is read.

    Raises:
        UnusableImageError: If a file cannot be read, or the mask does not fit the volume.
    """
    header = read_header(volume)
    numbers = None
    if mask is not None:
        check_fit(header, read_header(mask))
        numbers = read_sagittal_volume(mask)
    middle = header.sagittal_size[0] // 2 if numbers is None else middle_of_spine(numbers)
    wanted: dict[int | None, int] = {index: index for index in indices} or {None: middle}
    numbers_of = {name: None if numbers is None else numbers[index].copy() for name, index in wanted.items()}
    del numbers
    voxels = read_sagittal_volume(volume)
    return {name: (grey_slice(voxels[index], header), numbers_of[name]) for name, index in wanted.items()}


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


def check_fit(volume: VolumeHeader, mask: VolumeHeader) -> None:
    """Raise an UnusableImageError if a mask has other voxels than its volume."""
    if mask.sagittal_size != volume.sagittal_size or not np.allclose(
        mask.sagittal_spacing_mm, volume.sagittal_spacing_mm, rtol=_SAME_SPACING
    ):
        raise UnusableImageError(
            f"the mask does not fit: it has {mask.sagittal_size} voxels of {mask.sagittal_spacing_mm} mm, "
            f"the volume {volume.sagittal_size} of {volume.sagittal_spacing_mm} mm"
        )


def whole_numbers(numbers: np.ndarray) -> np.ndarray:
    """Return the numbers of a mask as uint8; raise an UnusableImageError if they are others."""
    with np.errstate(invalid="ignore"):  # NaN
        small = numbers.astype(np.uint8)
    if (small != numbers).any():
        raise UnusableImageError("mask values must be whole numbers from 0 to 255")
    return small


def grey_slice(voxels: np.ndarray, header: VolumeHeader) -> Image.Image:
    """Window a slice to 8 bits and make its pixels squares. Shape (down, back)."""
    grey = Image.fromarray(window_to_uint8(voxels))
    grey.info[ORIENTATION_STATED] = True
    return grey.resize(square_size(header), Image.Resampling.BILINEAR)


def class_indices(numbers: np.ndarray, header: VolumeHeader) -> Image.Image:
    """Turn the numbers of a slice, shape (down, back), into indices of `MASK_NAMES`, with square pixels."""
    indices = _CLASS_OF_NUMBER[whole_numbers(numbers)]
    if (indices == _UNKNOWN).any():
        unknown = numbers[indices == _UNKNOWN].flat[0]
        raise UnusableImageError(f"unknown mask value {unknown}; allowed: 0 to 25, 100 to 125, 201 to 225")
    return Image.fromarray(indices).resize(square_size(header), Image.Resampling.NEAREST)


def square_size(header: VolumeHeader) -> tuple[int, int]:
    """Compute width and height of a stored slice."""
    _, down, back = header.sagittal_size
    return square_pixel_size(down, back, header.sagittal_spacing_mm[1:])
