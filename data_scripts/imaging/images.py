"""Convert any stored slice to an 8-bit grey PNG, and any stored mask to class indices."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

WINDOW_PERCENTILES = (0.5, 99.5)
MAX_PIXELS = 8192 * 8192  # twice the largest digital radiograph; above it a file is broken or hostile

MAX_DECODED_BYTES = 2 * MAX_PIXELS  # in Pillow's memory: colour and 32 bits take four bytes a pixel
# Pillow would also try formats that start another program (EPS: Ghostscript) or open other files.
IMAGE_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000", "PPM")

# Facts that a loaded image carries in `Image.info`, for the build report; encoding drops them.
ORIENTATION_STATED = "orientation stated"  # the file says how the patient lies in the picture, which was turned by it
WINDOW_REPLACED = "window replaced"  # the header's window did not show the slice

_BLOCK_PIXELS = 2**20
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_UP_FILTER = 2
_GREY_MODES = ("1", "L")
_COLOUR_MODES = ("RGB", "YCbCr", "CMYK", "LAB", "HSV")
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa", "P")


class UnusableImageError(ValueError):
    """An image cannot become a row; the row is excluded with this message as the reason."""


class SeveralFramesError(UnusableImageError):
    """An image file has several frames, and any may be the slice."""


def read_image(path: Path, *, first_of_several: bool = False) -> Image.Image:
    """Decode an image file in its stored mode, upright (EXIF orientation applied).

    Raises:
        SeveralFramesError: If the file has several frames, unless `first_of_several` takes the first.
        UnusableImageError: If the file is missing, in none of `IMAGE_FORMATS`, truncated, or larger than `MAX_PIXELS`
            or `MAX_DECODED_BYTES`.
    """
    if not path.is_file():
        raise UnusableImageError(f"missing image: no file {path.name!r}")
    try:
        with Image.open(path, formats=IMAGE_FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise UnusableImageError(f"image too large: {width} x {height}, at most {MAX_PIXELS} pixels")
            bytes_per_pixel = 1 if image.mode in (*_GREY_MODES, "P") else 2 if image.mode.startswith("I;16") else 4
            num_bytes = width * height * bytes_per_pixel
            if num_bytes > MAX_DECODED_BYTES:
                raise UnusableImageError(
                    f"image too large: {width} x {height} of mode {image.mode!r} takes {num_bytes >> 20} MiB, at most "
                    f"{MAX_DECODED_BYTES >> 20}; store it as 8- or 16-bit grey"
                )
            # Further frames of MPO, the JPEG of phones, are a depth map or a smaller copy.
            num_frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
            if num_frames > 1 and not first_of_several:
                raise SeveralFramesError(f"image has {num_frames} frames; store each slice as its own file")
            image.load()
            return ImageOps.exif_transpose(image)
    except UnusableImageError:
        raise
    except Image.DecompressionBombError as error:  # Pillow's own limit
        raise UnusableImageError(f"image too large, at most {MAX_PIXELS} pixels: {error}") from error
    # Pillow's plug-ins raise anything (OSError, SyntaxError, struct.error, zlib.error, ...).
    except Exception as error:
        raise UnusableImageError(
            f"unreadable image: {type(error).__name__}: {error}".replace(str(path), path.name)
        ) from error


def file_inside(folder: Path, name: str, what: str) -> Path:
    r"""Resolve a file name in a table, relative to the table's folder; `\\` separates too, as on Windows.

    Raises:
        UnusableImageError: If there is no such file, or it lies outside (a `..`, a link): a table from elsewhere must
            not reach the rest of the disk.
    """
    if not name:
        raise UnusableImageError(f"missing {what}: no file name")
    try:
        path = (folder / name.replace("\\", "/")).resolve()
        found = path.is_file()
    except (OSError, RuntimeError, ValueError) as error:  # too long a name, a null byte, a loop of links
        raise UnusableImageError(f"missing {what}: {name[:60]!r} is not a file name ({error})") from error
    if not path.is_relative_to(folder.resolve()):
        raise UnusableImageError(f"{what} {name!r} lies outside the folder; copy the file into it")
    if not found:
        raise UnusableImageError(f"missing {what}: {name!r} is not in the folder")
    return path


def window_to_uint8(pixels: np.ndarray) -> np.ndarray:
    """Map intensities of any range to 8 bits by a window between the slice's 0.5 and 99.5 percentiles.

    A plain cast would saturate 12-bit and 16-bit slices to white. The window ignores the few brightest pixels (fat
    next to the coil, metal) that would otherwise leave the spine dark. Non-finite pixels become black.

    Returns:
        Grey values, uint8, shape (H, W); all 0 if all pixels are the same.

    Raises:
        UnusableImageError: If no pixel is finite.

    Example:
        >>> window_to_uint8(np.array([[0, 1000], [2000, 4000]], dtype=np.uint16))
        array([[  0,  64],
               [128, 255]], dtype=uint8)
    """
    if _has_few_values(pixels):
        values, indices, counts = value_histogram(pixels)
        low, high = percentile_window(values, counts)
        return look_up(between(values.astype(np.float64), low, high), indices)
    finite = pixels[np.isfinite(pixels)].astype(np.float64)
    if finite.size == 0:
        raise UnusableImageError("image has no finite pixel")
    low, high = np.percentile(finite, WINDOW_PERCENTILES, overwrite_input=True)
    if low == high:  # fewer than 0.5 % of the pixels differ from the background: keep those few visible
        low, high = finite.min(), finite.max()
    grey = np.empty(pixels.shape, dtype=np.uint8)
    for block in _row_blocks(pixels.shape):
        intensities = np.nan_to_num(pixels[block].astype(np.float64), nan=low, posinf=high, neginf=low)
        grey[block] = between(intensities, low, high)
    return grey


def between(intensities: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map intensities linearly to grey, uint8: `low` and less to 0, `high` and more to 255; all to 0 if they agree."""
    if low == high:
        return np.zeros(intensities.shape, dtype=np.uint8)
    return np.round(np.clip((intensities - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def _row_blocks(shape: tuple[int, ...]) -> list[slice]:
    """Cut rows into blocks of about `_BLOCK_PIXELS` pixels, which bounds the memory of 64-bit work."""
    height = max(1, _BLOCK_PIXELS // max(1, shape[-1]))
    return [slice(row, row + height) for row in range(0, shape[0], height)]


def look_up(table: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Compute `table[indices]`, shapes (V,) and (H, W), without a 64-bit copy of the indices."""
    found = np.empty(indices.shape, dtype=table.dtype)
    for block in _row_blocks(indices.shape):
        found[block] = table[indices[block]]
    return found


def value_histogram(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count the values of a slice.

    A slice has a hundred thousand pixels but a few thousand values: mapping the values and looking the pixels up takes
    a tenth of the time.

    Returns:
        Ascending values, shape (V,); indices, shape (H, W), for `look_up`; counts, shape (V,), 0 for a value in the
        range of a 16-bit image that does not occur.

    Example:
        >>> values, indices, counts = value_histogram(np.array([[7, 9], [9, 9]]))
        >>> values.tolist(), indices.tolist(), counts.tolist()
        ([7, 8, 9], [[0, 2], [2, 2]], [1, 0, 3])
    """
    if not _has_few_values(pixels):
        return np.unique(pixels, return_inverse=True, return_counts=True)
    low, high = int(pixels.min()), int(pixels.max())
    # Modulo 65,536, which exceeds the differences: they need no wider type than the values.
    indices = np.subtract(pixels, pixels.min(), dtype=np.uint16, casting="unsafe")
    values = np.arange(low, high + 1)
    counts = sum(np.bincount(indices[block].ravel(), minlength=values.size) for block in _row_blocks(indices.shape))
    return values, indices, np.asarray(counts)


def _has_few_values(pixels: np.ndarray) -> bool:
    return pixels.dtype.kind in "iu" and pixels.size > 0 and int(pixels.max()) - int(pixels.min()) < 2**16


def percentile_window(values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Compute the `WINDOW_PERCENTILES` of a slice, as `numpy.percentile` does, from its values in ascending order.

    Args:
        values: Ascending intensities, shape (V,).
        counts: Number of pixels of each, shape (V,).

    Returns:
        Low and high end; the extremes if fewer than 0.5 % of the pixels differ from the background.

    Example:
        >>> percentile_window(np.array([0, 1000]), np.array([999, 1]))
        (0.0, 1000.0)
    """
    last_rank = np.cumsum(counts)
    ranks = np.array(WINDOW_PERCENTILES) / 100 * (last_rank[-1] - 1)
    below = np.floor(ranks)
    at_or_below, above = (values[np.searchsorted(last_rank, rank, side="right")] for rank in (below, np.ceil(ranks)))
    low, high = at_or_below + (ranks - below) * (above - at_or_below)
    if low == high:
        occurring = values[counts > 0]
        low, high = occurring[0], occurring[-1]
    return float(low), float(high)


def grey_8bit(image: Image.Image) -> Image.Image:
    """Turn an image of any mode into grey, 8 bit (mode `L`).

    8-bit grey values stay as they are. More than 8 bits are windowed, colour is reduced to luminance, and transparency
    becomes black, the background of a medical image. Metadata, which may name a patient, is dropped.

    Raises:
        UnusableImageError: If the mode is unknown or the image is empty.
    """
    if 0 in image.size:
        raise UnusableImageError(f"empty image: {image.size[0]} x {image.size[1]} pixels")
    if image.mode in _ALPHA_MODES or (image.mode in _COLOUR_MODES and "transparency" in image.info):
        return _on_black(image)
    if image.mode in _GREY_MODES or image.mode in _COLOUR_MODES:
        return Image.fromarray(np.asarray(image.convert("L")))
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(window_to_uint8(np.asarray(image)))
    raise UnusableImageError(f"image mode {image.mode!r} is not supported; store 8- or 16-bit grey")


def _on_black(image: Image.Image) -> Image.Image:
    """Blend an image with transparency over black, strip by strip, which saves three RGBA copies."""
    width, height = image.size
    grey = Image.new("L", image.size)
    strip_height = max(1, _BLOCK_PIXELS // width)
    for top in range(0, height, strip_height):
        strip = image.crop((0, top, width, min(height, top + strip_height))).convert("RGBA")
        black = Image.new("RGBA", strip.size, (0, 0, 0, 255))
        grey.paste(Image.alpha_composite(black, strip).convert("L"), (0, top))
    return grey


def class_indices(mask: Image.Image, image_size: tuple[int, int], num_classes: int) -> Image.Image:
    """Check a mask and turn it into 8-bit class indices (mode `L`).

    `num_classes` is 0 if the source does not name them.

    Raises:
        UnusableImageError: If the size differs from the image's, or a pixel is not a known class.
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
        raise UnusableImageError(f"mask contains class {unknown[0]}; known are 0 to {highest_known}")
    return Image.fromarray(indices.astype(np.uint8))


def png_bytes(image: Image.Image) -> bytes:
    """Encode an 8-bit grey image (mode `L`) as PNG, without metadata.

    Half of a build's time goes into this. Pillow tries all five filters on each row and then searches for repeats that
    noise does not have; here each row is stored as the difference from the one above, and only runs are searched for.
    That takes a quarter of the time of Pillow's default, for about 5 % more bytes.
    """
    if image.mode != "L":
        raise ValueError(f"image of mode {image.mode!r}; only 8-bit grey ('L') is written, see grey_8bit")
    pixels = np.asarray(image)
    height, width = pixels.shape
    rows = np.empty((height, 1 + width), dtype=np.uint8)
    rows[:, 0] = _PNG_UP_FILTER
    rows[0, 1:] = pixels[0]
    np.subtract(pixels[1:], pixels[:-1], out=rows[1:, 1:])  # modulo 256, as the standard says
    compressor = zlib.compressobj(strategy=zlib.Z_RLE)
    compressed = compressor.compress(rows.tobytes()) + compressor.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8 bits, grey, not interlaced
    chunks = ((b"IHDR", header), (b"IDAT", compressed), (b"IEND", b""))
    return _PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
