"""Find text burnt into an image: scanners and exports print names and dates into the pixels.

No text is read, so no model is needed. Letters are thin strokes that differ from the pixels around them, with sharp
edges, of one height, stroke and grey, on one line; anatomy is not. The weights of these features were fitted to real
slices with and without drawn text. **It misses text: a person must look at the images.**
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

_OPENING = 9  # pixels; a stroke is thinner
_LEAST_CONTRAST = 14  # grey values between a stroke and the pixels around it
_SHARE_OF_PEAK = 0.45  # a stroke differs by at least this share of the largest contrast nearby, so that letters part
_NEARBY = 16  # pixels
_LETTER_HEIGHT = (4, 36)  # pixels, at one of the scales
_NUM_SCALES = 4  # the image, and halved up to three times: larger letters
_LEAST_SIDE = 40  # of a halved image, pixels
_LARGEST_SIDE = 1024  # above it the image is halved first, to bound time and memory
_TILTS = np.tan(np.radians([-8, -4, 0, 4, 8]))
_LEAST_LETTERS = 3  # of a line
_MAX_PAIRS = 1_500_000  # of spots that may be neighbours; a slice has tens of thousands, noise more

# Logistic regression on the most text-like line of an image, by `tests/benchmarks/burnt_in_text.py --fit`: the summand,
# then a factor for each column of `_line_features`.
_SUMMAND = -26.15
_FACTORS = np.array([6.79, -25.2, -23.34, 0.75, -2.83, -0.64, 8.89, -0.03, 2.02, 1.7, -1.96, -2.02])


def has_burnt_in_text(image: Image.Image) -> bool:
    """Whether an 8-bit grey image (mode `L`) may have text in its pixels, so that someone should check it.

    Looks for rows of four or more letters or digits, bright or dark, turned by quarter turns or tilted by up to 10
    degrees, 5 to 150 pixels high. Of 20 texts of each kind, drawn on slices of held-out patients, it found 16 to 20 if
    bright and in a corner, 18 to 20 if turned, 15 if dim, 13 if tilted or dark on tissue, 9 or fewer if dim and
    enlarged, tilted or over tissue, or enlarged and dark on tissue. None of 369 slices without text was suspected.

    Example:
        >>> from PIL import ImageDraw
        >>> image = Image.new("L", (160, 80))
        >>> has_burnt_in_text(image)
        False
        >>> ImageDraw.Draw(image).text((4, 4), "SALEM 1961", fill=255, font_size=14)
        >>> has_burnt_in_text(image)
        True
    """
    features = line_features(image)
    return features is None or bool(np.any(_SUMMAND + features @ _FACTORS > 0))


class _Spots(NamedTuple):
    """Connected strokes; arrays of shape (N,)."""

    top: np.ndarray  # pixels
    bottom: np.ndarray
    left: np.ndarray
    right: np.ndarray
    area: np.ndarray  # pixels
    stroke: np.ndarray  # mean width, pixels
    grey: np.ndarray  # mean
    contrast: np.ndarray  # mean, grey values
    edge: np.ndarray  # mean step across the outline, grey values


def line_features(image: Image.Image) -> np.ndarray | None:
    """Describe each row of letter-like spots in an 8-bit grey image (mode `L`), in four directions and at all scales.

    Returns:
        Features of the rows, shape (L, 12); None if there are more spots than can be compared.
    """
    found = [spots for pixels in _scales(image) for spots in _strokes(pixels)]
    groups = [group for spots in found for group in (_letter_sized(spots), _letter_sized(_transposed(spots)))]
    # Spots are compared within a group only: of one scale, brightness and direction.
    group_of_spot = np.repeat(np.arange(len(groups)), [len(group.top) for group in groups])
    spots = _Spots(*(np.concatenate(columns) for columns in zip(*groups, strict=True)))
    return _features_of_rows(spots, group_of_spot)


def _scales(image: Image.Image) -> Iterator[np.ndarray]:
    while max(image.size) > _LARGEST_SIDE:
        image = image.reduce(2)
    for scale in range(_NUM_SCALES):
        if scale and min(image.size) < _LEAST_SIDE:
            return
        yield np.asarray(image)
        image = image.reduce(2)


def _strokes(pixels: np.ndarray) -> Iterator[_Spots]:
    """Yield the bright strokes of an image of shape (H, W), then the dark ones."""
    for bright in (pixels, 255 - pixels):
        contrast = bright - _opened(bright)  # the top-hat: zero wherever a square fits, even at the edges of anatomy
        peak = _sliding(np.pad(contrast, ((_NEARBY // 2, _NEARBY - 1 - _NEARBY // 2),) * 2), _NEARBY, np.maximum)
        is_stroke = contrast >= np.maximum(_LEAST_CONTRAST, (peak * np.float32(_SHARE_OF_PEAK)).astype(np.uint8))
        yield _spots(bright, contrast, is_stroke)


def _opened(pixels: np.ndarray) -> np.ndarray:
    padded = np.pad(pixels, _OPENING - 1, mode="edge")
    return _sliding(_sliding(padded, _OPENING, np.minimum), _OPENING, np.maximum)


def _sliding(pixels: np.ndarray, size: int, combine: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Combine every square of `size` pixels, by doubling, which is faster than `ndimage`."""
    for _ in range(2):
        done = 1
        while done < size:
            step = min(done, size - done)
            pixels = combine(pixels[:-step], pixels[step:])
            done += step
        pixels = pixels.T
    return pixels


def _spots(pixels: np.ndarray, contrast: np.ndarray, is_stroke: np.ndarray) -> _Spots:
    """Measure connected strokes; arrays of shape (H, W). `ndimage.find_objects` would take longer than all of this."""
    labels, number = ndimage.label(is_stroke, structure=np.ones((3, 3)))
    is_large = np.bincount(labels.ravel(), minlength=number + 1) >= _LETTER_HEIGHT[0]
    is_large[0] = False  # no stroke
    index = np.flatnonzero(is_large[labels])
    if not len(index):
        return _Spots(*np.empty((9, 0)))
    index = index[np.argsort(labels.ravel()[index], kind="stable")]
    start = np.flatnonzero(np.diff(labels.ravel()[index], prepend=0))

    def total(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, start, dtype=np.int64)

    y, x = np.divmod(index, pixels.shape[1])
    row = pixels.shape[1] + 2
    padded = np.pad(pixels, 1, mode="edge").ravel().astype(np.int16)
    is_inside = np.pad(is_stroke, 1).ravel()
    place = (y + 1) * row + x + 1
    grey = padded[place]
    outline, steps = np.zeros((2, len(index)), dtype=np.int16)
    for neighbour in (place - 1, place + 1, place - row, place + row):
        is_outside = ~is_inside[neighbour]
        outline += is_outside
        steps += is_outside * (grey - padded[neighbour])
    area, length = np.diff(start, append=len(index)), total(outline)
    return _Spots(
        top=y[start],  # pixels of a spot are in reading order
        bottom=y[np.append(start[1:], len(index)) - 1] + 1,
        left=np.minimum.reduceat(x, start),
        right=np.maximum.reduceat(x, start) + 1,
        area=area,
        stroke=2 * area / length,
        grey=total(grey) / area,
        contrast=total(contrast.ravel()[index]) / area,
        edge=total(steps) / length,
    )


def _transposed(spots: _Spots) -> _Spots:
    return spots._replace(top=spots.left, bottom=spots.right, left=spots.top, right=spots.bottom)


def _letter_sized(spots: _Spots) -> _Spots:
    """Return the spots that may be letters of a horizontal line, from left to right."""
    heights, widths = spots.bottom - spots.top, spots.right - spots.left
    # In small print several letters touch.
    is_letter = (heights >= _LETTER_HEIGHT[0]) & (heights <= _LETTER_HEIGHT[1]) & (widths <= 4 * heights)
    index = np.flatnonzero(is_letter & (heights <= 9 * widths))
    index = index[np.argsort(spots.left[index], kind="stable")]
    return _Spots(*(values[index] for values in spots))


def _neighbours(spots: _Spots, group_of_spot: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Return pairs of spots that follow each other like letters of one font, shape (P,) each; None if too many."""
    heights = spots.bottom - spots.top
    key = group_of_spot * 4 * _LARGEST_SIDE
    first = np.arange(1, len(key) + 1)
    last = np.searchsorted(key + spots.left, key + spots.right + 2.3 * heights, side="right")
    counts = np.maximum(last - first, 0)
    if counts.sum() > _MAX_PAIRS:
        return None
    i = np.repeat(np.arange(len(key)), counts)
    j = np.arange(len(i)) - np.repeat(np.cumsum(counts) - counts, counts) + first[i]
    is_near = np.abs(spots.bottom[i] + spots.top[i] - spots.bottom[j] - spots.top[j]) < 2 * heights[i]
    i, j = i[is_near], j[is_near]

    def alike(values: np.ndarray) -> np.ndarray:
        return np.maximum(values[i], values[j]) <= 1.8 * np.minimum(values[i], values[j])

    gap = (spots.left[j] - spots.right[i]) / np.maximum(heights[i], heights[j])
    is_pair = (gap >= -0.1) & (gap <= 1.3) & alike(heights) & alike(spots.stroke) & alike(spots.contrast)
    return i[is_pair], j[is_pair]


def _features_of_rows(spots: _Spots, group_of_spot: np.ndarray) -> np.ndarray | None:
    """Chain neighbours into rows whose lower or upper edges are on one line; describe each. Shape (L, 12)."""
    pairs = _neighbours(spots, group_of_spot)
    if pairs is None:
        return None
    i, j = pairs
    heights = (spots.bottom - spots.top).astype(np.float64)
    middle = (spots.left + spots.right) / 2
    tolerance = np.maximum(1, 0.09 * np.minimum(heights[i], heights[j]))
    edges = np.stack([spots.bottom, spots.top])[:, None] - _TILTS[:, None] * middle  # (2, tilts, N)
    edges = edges.reshape(2 * len(_TILTS), -1)
    way, pair = np.nonzero(np.abs(edges[:, i] - edges[:, j]) <= tolerance)
    if not len(way):
        return np.empty((0, len(_FACTORS)))
    # A node is a spot seen in one of the ways: an edge and a tilt.
    nodes = (way * len(heights) + i[pair], way * len(heights) + j[pair])
    graph = coo_matrix((np.ones(len(way), dtype=np.int8), nodes), shape=(edges.size, edges.size))
    _, row_of_node = connected_components(graph, directed=False)
    node = np.flatnonzero(np.bincount(row_of_node)[row_of_node] >= _LEAST_LETTERS)
    if not len(node):
        return np.empty((0, len(_FACTORS)))
    node = node[np.argsort(row_of_node[node], kind="stable")]
    start = np.flatnonzero(np.diff(row_of_node[node], prepend=-1))
    count = np.diff(start, append=len(node))

    def mean(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, start, dtype=np.float64) / count

    def spread(values: np.ndarray) -> np.ndarray:
        centred = values - np.repeat(values[start], count)
        return np.sqrt(np.maximum(mean(centred**2) - mean(centred) ** 2, 0))

    way, spot = np.divmod(node, len(heights))
    height, is_upper = mean(heights[spot]), way >= len(_TILTS)
    other_way = np.where(is_upper, way - len(_TILTS), way + len(_TILTS))
    length = np.maximum.reduceat(spots.right[spot], start) - np.minimum.reduceat(spots.left[spot], start)
    contrast = mean(spots.contrast[spot])
    return np.stack(
        [
            np.log(np.minimum(count, 10)),
            np.minimum(spread(edges[way, spot]) / height, 0.2),  # 0 on a line
            np.minimum(spread(edges[other_way, spot]) / height, 0.4),
            np.minimum(spread(heights[spot]) / height, 0.4),
            np.minimum(spread(np.log(spots.stroke[spot])), 0.5),
            np.clip(np.log(mean(spots.stroke[spot]) / height), -3, 0),
            np.clip(mean(spots.edge[spot] / spots.contrast[spot]), 0, 1.1),  # 1 if the outline is sharp
            np.minimum(spread(spots.grey[spot]) / contrast, 1),
            np.clip(np.log(contrast), 2.5, 5),
            np.clip(np.add.reduceat(spots.right[spot] - spots.left[spot], start) / length, 0.4, 1.1),
            is_upper[start],
            _TILTS[way[start] % len(_TILTS)] != 0,
        ],
        axis=1,
    )
