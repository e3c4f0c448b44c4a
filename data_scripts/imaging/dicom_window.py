"""Convert the stored values of a DICOM frame to 8-bit grey, as its header prescribes if that shows the slice.

Headers prescribe windows that do not fit their pixels: the whole range of the bits, the default of another modality or
of 8 bits, the units before rescaling. So each window is compared with the one between percentiles.
"""

import math
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
from PIL import Image
from pydicom import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, apply_windowing

from data_scripts.imaging.dicom_reading import finite_numbers
from data_scripts.imaging.images import (
    UnusableImageError,
    between,
    look_up,
    percentile_window,
    value_histogram,
    window_to_uint8,
)

WINDOW_TAGS = (
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "VOILUTSequence",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    *(
        f"{colour}PaletteColorLookupTable{part}"
        for colour in ("Red", "Green", "Blue")
        for part in ("Descriptor", "Data")
    ),
)

MAX_WINDOWS = 8  # alternatives tried; scanners write one or two
# What pydicom raises for a broken table or window: no width, no data, an unknown function.
_BROKEN_TABLE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, NotImplementedError)
WHOLE_RANGE = 0.98  # of the values that the stored bits can have: a window this wide was not set for a slice

# What `shows_slice` asks of a window, in grey levels of 255 and shares of the pixels.
MIN_CONTRAST = 160
MAX_DARKEST = 64
MAX_WHITE, MAX_WHITE_TISSUE = 0.10, 0.25
MAX_BLACK_TISSUE = 0.15
BACKGROUND_GREYS = 25  # a tenth of the range between percentiles


def grey_levels(stored: np.ndarray, header: Dataset) -> tuple[np.ndarray, bool]:
    """Turn stored values, shape (H, W), or (H, W, 3) in RGB, into grey.

    Returns:
        Grey values, uint8, shape (H, W); and whether the header's window was replaced, see `shows_slice`.

    Raises:
        UnusableImageError: If no value is finite, or all are padding.
    """
    if str(header.get("PhotometricInterpretation")) == "PALETTE COLOR":
        stored = apply_color_lut(stored, header)
    if stored.ndim == 3:
        surplus_bits = 8 * stored.dtype.itemsize - 8
        return np.asarray(Image.fromarray((stored >> surplus_bits).astype(np.uint8)).convert("L")), False
    shown = ~_padding(stored, header)
    if shown.all():
        return _windowed(stored, header)
    if not shown.any():
        raise UnusableImageError("DICOM image contains only padding")
    grey = np.zeros(stored.shape, dtype=np.uint8)
    # Padding is black and does not influence the window.
    of_tissue, is_replaced = _windowed(stored[shown][np.newaxis], header)
    grey[shown] = of_tissue.ravel()
    return grey, is_replaced


def _padding(stored: np.ndarray, header: Dataset) -> np.ndarray:
    """Mark pixels of `PixelPaddingValue`, or between it and `PixelPaddingRangeLimit`; bool, shape (H, W)."""
    value = _stored_value(header, "PixelPaddingValue", stored.dtype)
    if value is None:
        return np.zeros(stored.shape, dtype=bool)
    limit = _stored_value(header, "PixelPaddingRangeLimit", stored.dtype)
    low, high = sorted((value, value if limit is None else limit))
    return (stored >= low) & (stored <= high)


def _stored_value(header: Dataset, keyword: str, dtype: np.dtype) -> int | None:
    """Read an element of the pixels' type, which scanners also write with the other sign: 63536 is -2000."""
    value = header.get(keyword)
    if isinstance(value, bytes):  # an implicit transfer syntax, where the type is that of the pixels
        value = int.from_bytes(value, "little") if 0 < len(value) <= dtype.itemsize else None
    if not isinstance(value, int) or dtype.kind not in "iu":
        return None
    return int(np.array(value % 2 ** (8 * dtype.itemsize)).astype(dtype))


def _windowed(stored: np.ndarray, header: Dataset) -> tuple[np.ndarray, bool]:
    """Apply the first of the header's windows that shows the slice, else the one between percentiles."""
    has_window = "VOILUTSequence" in header or "WindowWidth" in header
    if has_window:
        values, indices, counts = value_histogram(stored)
        if np.isfinite(values).all():
            by_percentiles = _between_percentiles(values, counts, header)
            for table in _tables(values, header):
                if shows_slice(table, by_percentiles, counts):
                    return look_up(table, indices), False
    if "ModalityLUTSequence" in header:
        grey = window_to_uint8(_rescaled(stored, header))
    elif stored.dtype == np.uint8 and "RescaleSlope" not in header and not has_window:
        grey = stored  # like any other 8-bit image
    else:
        grey = window_to_uint8(stored)
    return 255 - grey if _is_inverted(header) else grey, has_window


def shows_slice(table: np.ndarray, by_percentiles: np.ndarray, counts: np.ndarray) -> bool:
    """Whether a window shows a slice, compared with the window between its percentiles.

    It does not if the slice is dim or flat (0.5 and 99.5 percentiles of the greys less than `MIN_CONTRAST` apart),
    washed out (the lower one above `MAX_DARKEST`), saturated (more than `MAX_WHITE` of the pixels, or
    `MAX_WHITE_TISSUE` of those that are not background, have become white), or more than `MAX_BLACK_TISSUE` of the
    tissue is black. A slice of one value has nothing to show, and any window does.

    Args:
        table: Grey of each value in the window, uint8, shape (V,).
        by_percentiles: The same between the percentiles.
        counts: Number of pixels of each value, shape (V,).

    Example:
        >>> ramp, counts = np.arange(256, dtype=np.uint8), np.ones(256, dtype=int)
        >>> shows_slice(ramp, ramp, counts), shows_slice(ramp // 2, ramp, counts), shows_slice(ramp | 128, ramp, counts)
        (True, False, False)
    """
    if np.count_nonzero(counts) == 1:
        return True
    num_shown = np.bincount(table, weights=counts, minlength=256)
    darkest, brightest = percentile_window(np.arange(256), num_shown)
    is_tissue = by_percentiles > BACKGROUND_GREYS
    num_pixels, num_tissue = counts.sum(), counts[is_tissue].sum()
    num_white = counts[(table == 255) & (by_percentiles < 255)].sum()
    num_black = counts[(table == 0) & is_tissue].sum()
    return bool(
        brightest - darkest >= MIN_CONTRAST
        and darkest <= MAX_DARKEST
        and num_white <= min(MAX_WHITE * num_pixels, MAX_WHITE_TISSUE * num_tissue)
        and num_black <= MAX_BLACK_TISSUE * num_tissue
    )


def _between_percentiles(values: np.ndarray, counts: np.ndarray, header: Dataset) -> np.ndarray:
    """Map each stored value to grey, as `window_to_uint8` does."""
    if "ModalityLUTSequence" in header:
        values = _rescaled(values, header)
    order = np.argsort(values, kind="stable")  # a lookup table need not ascend
    low, high = percentile_window(values[order], counts[order])
    greys = between(values.astype(np.float64), low, high)
    return 255 - greys if _is_inverted(header) else greys


def _is_inverted(header: Dataset) -> bool:
    """Whether greater stored values are darker."""
    is_descending = "ModalityLUTSequence" not in header and _number(header, "RescaleSlope", 1.0) < 0
    return is_descending != (str(header.get("PhotometricInterpretation")) == "MONOCHROME1")


def _tables(values: np.ndarray, header: Dataset) -> Iterator[np.ndarray]:
    """Map each stored value to grey by each VOI LUT, then by each window, that can be applied, uint8, shape (V,)."""
    rescaled = _rescaled(values, header)
    for shown in (*_by_voi_luts(rescaled, header), *_by_windows(rescaled, header)):
        if np.isfinite(shown).all():
            greys = np.round(shown).astype(np.uint8)
            yield 255 - greys if str(header.get("PhotometricInterpretation")) == "MONOCHROME1" else greys


def _by_voi_luts(rescaled: np.ndarray, header: Dataset) -> Iterator[np.ndarray]:
    for index, item in enumerate((header.get("VOILUTSequence") or ())[:MAX_WINDOWS]):
        with suppress(*_BROKEN_TABLE):
            yield apply_voi(np.round(rescaled).astype(np.int64), header, index) * (
                255 / (2 ** item.LUTDescriptor[2] - 1)
            )


def _by_windows(rescaled: np.ndarray, header: Dataset) -> Iterator[np.ndarray]:
    centers, widths = finite_numbers(header, "WindowCenter"), finite_numbers(header, "WindowWidth")
    for center, width in list(zip(centers, widths, strict=False))[:MAX_WINDOWS]:
        if not _spans_all_values(center, width, header):
            with suppress(*_BROKEN_TABLE):
                yield apply_windowing(rescaled, _window_to_8_bits(center, width, header))


def _window_to_8_bits(center: float, width: float, header: Dataset) -> Dataset:
    """Make a window for an 8-bit image: `apply_windowing` scales to the range of the stored bits."""
    window = Dataset()
    window.PhotometricInterpretation = "MONOCHROME2"
    window.BitsStored, window.PixelRepresentation = 8, 0
    window.WindowCenter, window.WindowWidth = center, width
    window.VOILUTFunction = str(header.get("VOILUTFunction") or "LINEAR")
    return window


def _spans_all_values(center: float, width: float, header: Dataset) -> bool:
    """Whether a window holds nearly all values that the stored bits can have; 8-bit images are shown so as they are."""
    bits = header.get("BitsStored") or header.get("BitsAllocated")
    if not isinstance(bits, int) or bits <= 8 or bits > 16 or "ModalityLUTSequence" in header:
        return False
    first = -(2 ** (bits - 1)) if header.get("PixelRepresentation") else 0
    ends = np.array([first, first + 2**bits - 1]) * _number(header, "RescaleSlope", 1.0)
    low, high = sorted(ends + _number(header, "RescaleIntercept", 0.0))
    overlap = min(high, center + width / 2) - max(low, center - width / 2)
    return overlap >= WHOLE_RANGE * (high - low)


def _rescaled(values: np.ndarray, header: Dataset) -> np.ndarray:
    if _lut_item(header, "ModalityLUTSequence") is not None:
        return apply_modality_lut(values, header)
    return values * _number(header, "RescaleSlope", 1.0) + _number(header, "RescaleIntercept", 0.0)


def _lut_item(header: Dataset, keyword: str) -> Dataset | None:
    items = header.get(keyword)
    return items[0] if items else None


def _number(header: Dataset, keyword: str, default: float = math.nan) -> float:
    numbers = finite_numbers(header, keyword)
    return numbers[0] if numbers else default


def real_values(stored: np.ndarray, header: Dataset) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Return the values of a slice, without a window, for one that serves the whole volume.

    Returns:
        The stored values, and the slope and intercept that make them real; or, if that takes a lookup table or pixels
        are padding, the real values, float32, NaN where padded, and None.
    """
    scale = _number(header, "RescaleSlope", 1.0), _number(header, "RescaleIntercept", 0.0)
    is_padded = _padding(stored, header)
    if "ModalityLUTSequence" not in header and not is_padded.any():
        return stored, scale
    return np.where(is_padded, np.nan, _rescaled(stored, header)).astype(np.float32), None
