"""Whether text was burnt into an image: scanners and exports print names and dates into the pixels.

No text is read, so no model is needed: letters are small bright strokes of one height on one line, and anatomy is not.
"""

import numpy as np
from PIL import Image, ImageFilter
from scipy import ndimage
from scipy.sparse.csgraph import connected_components

# Letters in a row from which on an image is suspected; a side marker (`L`, `R`) has fewer. Chosen on real images: of
# 710 lumbar MR slices one reaches it, of 805 crops of discs and 1,203 knee radiographs none.
SUSPECT_LETTERS = 4

_STROKE_RADIUS = 4  # pixels; a stroke is brighter than the mean of the square around it
_CONTRAST = 60  # grey values above that mean
_LETTER_HEIGHT = (5, 40)  # pixels
# All pairs of spots are compared, so their number has a bound. Slices have tens; a page of print, or noise, has more.
_MAX_SPOTS = 1000
_LARGEST_SIDE = 1024  # above it the image is halved, so that letters stay within that height


def burnt_in_letters(image: Image.Image) -> int:
    """Count the letters of the longest line of what may be text.

    Bright text is found, as scanners and viewers draw it; dark text on a bright ground is not, nor is text without
    contrast to the tissue under it.

    Args:
        image: Grey, 8 bit (mode `L`).

    Returns:
        Length of the longest row of letter-like spots; 0 to 3 on nearly every image without text, since a few spots
        in a row are found in any texture. The number of all spots where there are more than a slice can have.

    Example:
        >>> from PIL import ImageDraw
        >>> image = Image.new("L", (160, 80))
        >>> burnt_in_letters(image)
        0
        >>> ImageDraw.Draw(image).text((4, 4), "SALEM 1961", fill=255, font_size=14)
        >>> burnt_in_letters(image) >= SUSPECT_LETTERS
        True
    """
    while max(image.size) > _LARGEST_SIDE:
        image = image.reduce(2)
    boxes, peaks = _spots(image)
    if len(boxes) < 2:
        return len(boxes)
    if len(boxes) > _MAX_SPOTS:
        return len(boxes)
    _, line_of_spot = connected_components(_are_neighbours(boxes, peaks), directed=False)
    return int(np.bincount(line_of_spot).max())


def has_burnt_in_text(image: Image.Image) -> bool:
    """Whether an image (mode `L`) is suspected of text in its pixels; someone should look at it."""
    return burnt_in_letters(image) >= SUSPECT_LETTERS


def _spots(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """Connected bright strokes of the size of letters: top, bottom, left, right, shape (N, 4), and brightest pixel."""
    pixels = np.asarray(image)
    surroundings = np.asarray(image.filter(ImageFilter.BoxBlur(_STROKE_RADIUS)))
    is_stroke = pixels > np.minimum(surroundings, 255 - _CONTRAST) + np.uint8(_CONTRAST)
    if np.count_nonzero(is_stroke) < _LETTER_HEIGHT[0]:  # a letter has a pixel in each of its rows
        return np.empty((0, 4), dtype=np.int64), np.empty(0, dtype=np.int64)
    spots, _ = ndimage.label(is_stroke, structure=np.ones((3, 3)))
    found = ndimage.find_objects(spots)
    boxes = np.array([(y.start, y.stop, x.start, x.stop) for y, x in found], dtype=np.int64).reshape(-1, 4)
    heights, widths = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    # In small print several letters touch.
    is_letter = (heights >= _LETTER_HEIGHT[0]) & (heights <= _LETTER_HEIGHT[1]) & (widths <= 4 * heights)
    index = np.flatnonzero(is_letter)
    # Of the box, not of the spot within it: a tenth of the time, and strokes are the brightest there.
    peaks = np.array([pixels[found[spot]].max() for spot in index], dtype=np.int64)
    return boxes[index], peaks


def _are_neighbours(boxes: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """Which spots stand beside each other on one line, like letters of one font and one grey. Shape (N, N), bool."""
    top, bottom, left, right = boxes.T
    heights = bottom - top
    smaller = np.minimum(heights[:, None], heights)
    larger = np.maximum(heights[:, None], heights)
    gap = np.maximum(left[:, None], left) - np.minimum(right[:, None], right)
    on_one_line = np.abs(bottom[:, None] - bottom) <= np.maximum(1, 0.12 * smaller)
    of_one_font = (larger <= 1.7 * smaller) & (np.abs(peaks[:, None] - peaks) <= 40)
    return on_one_line & of_one_font & (gap >= 0) & (gap <= 1.2 * larger)
