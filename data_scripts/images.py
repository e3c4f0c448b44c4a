"""Any stored slice to the 8-bit grey PNG of the record, and any stored mask to its class indices."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

WINDOW_PERCENTILES = (0.5, 99.5)
MAX_PIXELS = 8192 * 8192  # twice the largest digital radiograph; above it a file is broken or hostile

_GREY_MODES = ("1", "L")
_COLOUR_MODES = ("RGB", "YCbCr", "CMYK", "LAB", "HSV")
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa", "P")


class UnusableImageError(ValueError):
    """An image that cannot become a row: its row is left out and listed, with this message as the reason."""


def read_image(path: Path) -> Image.Image:
    """Decode an image file whole, upright (EXIF orientation applied), in the mode in which it is stored.

    Raises:
        UnusableImageError: If the file is missing, no image, truncated, multi-frame or larger than `MAX_PIXELS`.
    """
    if not path.is_file():
        raise UnusableImageError(f"missing image: no file {path.name!r}")
    try:
        with Image.open(path) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise UnusableImageError(f"image too large: {width} x {height}, at most {MAX_PIXELS} pixels")
            num_frames = getattr(image, "n_frames", 1)
            if num_frames > 1:
                raise UnusableImageError(f"image holds {num_frames} frames; store each slice as a file of its own")
            image.load()
            return ImageOps.exif_transpose(image)
    except UnusableImageError:
        raise
    # Pillow's plug-ins raise whatever their parser meets (OSError, SyntaxError, struct.error, zlib.error, ...).
    except Exception as error:
        raise UnusableImageError(
            f"unreadable image: {type(error).__name__}: {error}".replace(str(path), path.name)
        ) from error


def file_inside(folder: Path, name: str, what: str) -> Path:
    r"""Path of a file that a table names, which must exist and lie inside the folder.

    Args:
        folder: Folder of the table.
        name: Path relative to it; `\\` separates too, as in tables made on Windows.
        what: What the file is, for the message.

    Raises:
        UnusableImageError: If there is no such file, or it lies outside (a `..`, a link): a table from elsewhere
            must not reach the rest of the disk.
    """
    if not name:
        raise UnusableImageError(f"missing {what}: no file name")
    try:
        path = (folder / name.replace("\\", "/")).resolve()
        found = path.is_file()
    except (OSError, ValueError) as error:  # too long a name, a null byte
        raise UnusableImageError(f"missing {what}: {name[:60]!r} is no file name ({error})") from error
    if not path.is_relative_to(folder.resolve()):
        raise UnusableImageError(f"{what} {name!r} lies outside the folder; copy the file into it")
    if not found:
        raise UnusableImageError(f"missing {what}: {name!r} is not in the folder")
    return path


def window_to_uint8(pixels: np.ndarray) -> np.ndarray:
    """Map intensities of any range to 8 bits by a window between the slice's 0.5 and 99.5 percentiles.

    A plain cast would saturate 12-bit and 16-bit slices to white. The window ignores the few brightest pixels (fat
    next to the coil, metal) that would otherwise leave the spine dark. Non-finite pixels become black.

    Args:
        pixels: Intensities, any integer or float type. Shape (H, W).

    Returns:
        Grey values, uint8, shape (H, W); all 0 when every pixel is the same.

    Raises:
        UnusableImageError: If no pixel is finite.

    Example:
        >>> window_to_uint8(np.array([[0, 1000], [2000, 4000]], dtype=np.uint16))
        array([[  0,  64],
               [128, 255]], dtype=uint8)
    """
    values = pixels.astype(np.float64)
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        raise UnusableImageError("image without a finite pixel")
    low, high = np.percentile(finite, WINDOW_PERCENTILES)
    if low == high:  # fewer than 0.5 % of the pixels differ from the background: keep those few visible
        low, high = finite.min(), finite.max()
    if low == high:
        return np.zeros(pixels.shape, dtype=np.uint8)
    scaled = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) / (high - low)
    return np.round(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def grey_8bit(image: Image.Image) -> Image.Image:
    """Turn an image of any mode into grey, 8 bit (mode `L`).

    8-bit grey values stay as they are. More than 8 bits are windowed, colour is reduced to luminance, and what is
    transparent becomes black, the background of a medical image. Only pixels pass: metadata, which may name a
    patient, is left behind.

    Raises:
        UnusableImageError: If the mode is unknown or the image is empty.
    """
    if 0 in image.size:
        raise UnusableImageError(f"empty image: {image.size[0]} x {image.size[1]} pixels")
    if image.mode in _ALPHA_MODES or (image.mode in _COLOUR_MODES and "transparency" in image.info):
        opaque = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), opaque)
        return Image.fromarray(np.asarray(image.convert("L")))
    if image.mode in _GREY_MODES or image.mode in _COLOUR_MODES:
        return Image.fromarray(np.asarray(image.convert("L")))
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(window_to_uint8(np.asarray(image)))
    raise UnusableImageError(f"image mode {image.mode!r} is not known; store 8- or 16-bit grey")


def class_indices(mask: Image.Image, image_size: tuple[int, int], num_classes: int) -> Image.Image:
    """Check a mask and turn it into 8-bit class indices (mode `L`).

    Args:
        mask: Indices as grey or palette image.
        image_size: Width and height that the mask must have, in pixels.
        num_classes: Number of known classes; 0 when the source does not name them.

    Raises:
        UnusableImageError: If the size differs from the image's, or a pixel is no known class.
    """
    if mask.size != image_size:
        raise UnusableImageError(
            f"mask is {mask.size[0]} x {mask.size[1]}, its image {image_size[0]} x {image_size[1]}"
        )
    indices = np.asarray(mask)
    if indices.ndim != 2 or not (np.issubdtype(indices.dtype, np.integer) or indices.dtype == bool):
        raise UnusableImageError(f"mask of mode {mask.mode!r}; store class indices as an 8-bit grey or palette image")
    highest_known = (num_classes or 256) - 1
    unknown = indices[(indices < 0) | (indices > highest_known)]
    if unknown.size:
        raise UnusableImageError(f"mask holds class {unknown[0]}; known are 0 to {highest_known}")
    return Image.fromarray(indices.astype(np.uint8))


def png_bytes(image: Image.Image) -> bytes:
    """Encode an image as PNG, without metadata."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=3)  # half the time of 6 for a tenth more bytes
    return buffer.getvalue()
