"""Convert the stored values of a DICOM frame to 8-bit grey as its header prescribes."""

import math

import numpy as np
from PIL import Image
from pydicom import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, apply_windowing

from data_scripts.imaging.dicom_reading import finite_numbers
from data_scripts.imaging.images import UnusableImageError, look_up, value_histogram, window_to_uint8

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

_ENOUGH_GREYS = 16


def grey_levels(stored: np.ndarray, header: Dataset) -> np.ndarray:
    """Turn stored values, shape (H, W), or (H, W, 3) in RGB, into grey, uint8, shape (H, W).

    Raises:
        UnusableImageError: If no value is finite, or all are padding.
    """
    photometric = str(header.get("PhotometricInterpretation") or "MONOCHROME2")
    if photometric == "PALETTE COLOR":
        stored = apply_color_lut(stored, header)
    if stored.ndim == 3:
        surplus_bits = 8 * stored.dtype.itemsize - 8
        return np.asarray(Image.fromarray((stored >> surplus_bits).astype(np.uint8)).convert("L"))
    shown = ~_padding(stored, header)
    if not shown.any():
        raise UnusableImageError("DICOM image contains only padding")
    grey = np.zeros(stored.shape, dtype=np.uint8)
    # Padding is black and does not influence the window.
    of_tissue = _windowed(stored if shown.all() else stored[shown][np.newaxis], header)
    grey[shown] = (255 - of_tissue if photometric == "MONOCHROME1" else of_tissue).ravel()
    return grey


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


def _windowed(stored: np.ndarray, header: Dataset) -> np.ndarray:
    """Apply the header's window if it shows something, else one between percentiles."""
    if "VOILUTSequence" in header or "WindowWidth" in header:
        values, indices, counts = value_histogram(stored)
        table = _shown(values, header)
        if table is not None and _shows_enough(table[counts > 0]):
            return look_up(table, indices)
    if "ModalityLUTSequence" in header:
        return window_to_uint8(_rescaled(stored, header))
    if stored.dtype == np.uint8 and "RescaleSlope" not in header:
        return stored  # like any other 8-bit image
    grey = window_to_uint8(stored)
    return 255 - grey if _number(header, "RescaleSlope", 1.0) < 0 else grey


def _shown(values: np.ndarray, header: Dataset) -> np.ndarray | None:
    """Map each stored value to grey by the VOI LUT, or the first window; None if that cannot be applied."""
    rescaled = _rescaled(values, header)
    voi_lut = _lut_item(header, "VOILUTSequence")
    try:
        if voi_lut is not None:
            shown = apply_voi(np.round(rescaled).astype(np.int64), header) * (255 / (2 ** voi_lut.LUTDescriptor[2] - 1))
        else:
            shown = apply_windowing(rescaled, _window_to_8_bits(header))
    # What pydicom raises for a broken table or window: no width, no data, an unknown function.
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, NotImplementedError):
        return None
    return np.round(shown).astype(np.uint8) if np.isfinite(shown).all() else None


def _window_to_8_bits(header: Dataset) -> Dataset:
    """Copy the first window for an 8-bit image: `apply_windowing` scales to the range of the stored bits."""
    window = Dataset()
    window.PhotometricInterpretation = "MONOCHROME2"
    window.BitsStored, window.PixelRepresentation = 8, 0
    window.WindowCenter, window.WindowWidth = _number(header, "WindowCenter"), _number(header, "WindowWidth")
    window.VOILUTFunction = str(header.get("VOILUTFunction") or "LINEAR")
    return window


def _shows_enough(greys: np.ndarray) -> bool:
    """Whether a window gives the values that occur enough greys: one for each eight of them, at most 16."""
    return np.unique(greys).size >= min(_ENOUGH_GREYS, greys.size, 2 + greys.size // 8)


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
