"""Mark vertebrae, discs and canal in a sagittal T2 slice without an expert: thresholds, edges and morphology.

A pseudo-mask is a guess to learn from, never a truth to measure by; it does not mark spinous processes. The stenosis
framework (arXiv 2604.02502) names the tools (Otsu, Canny, morphology, the report) but not what is done with them: this
procedure is ours.

1. Denoise, and divide by the local mean of the tissue, since surface coils leave the front dark.
2. Follow the canal from top to bottom, the brightest tube with tissue on both sides, by dynamic programming. Mark what
   is above Otsu's threshold beside its path, as far as Canny's edges.
3. In front of it mark what is above Otsu's threshold between edges, and of that the pieces as large as bodies.
4. A disc fills the gap between two bodies, as far as their convex hull reaches.

Lengths are shares of the image's height, which shows the lumbar spine, since slices often state no spacing.

Shapes: H height, W width.
"""

from collections.abc import Collection
from itertools import pairwise

import numpy as np

from data_scripts.records import BACKGROUND
from data_scripts.reports.findings import report_findings

PSEUDO_MASK_NAMES = (BACKGROUND, "vertebra", "disc", "spinal canal")
_VERTEBRA, _DISC, _CANAL = 1, 2, 3

SEQUENCES = ("T2", "T2_SPACE")  # fluid is bright, and bodies are brighter than most discs
WHOLE_SPINE = ("several", "unknown")  # a slice of one level is a crop, without a canal to follow
LEAST_HEIGHT = 64  # pixels; below, a disc has few

_BULGES = frozenset(("bulge", "protrusion", "extrusion", "sequestration", "herniation"))
_NARROW_CANAL = frozenset(("stenosis", "thecal sac compression", "spinal cord compression", "CSF space effacement"))


def has_pseudo_mask(plane: str, sequence: str, level: str) -> bool:
    """Whether `pseudo_mask` can mark a slice, by what its row says.

    Example:
        >>> has_pseudo_mask("sagittal", "T2", "several"), has_pseudo_mask("axial", "T2", "L4/L5")
        (True, False)
    """
    return plane == "sagittal" and sequence in SEQUENCES and level in WHOLE_SPINE


def pseudo_mask(pixels: np.ndarray, report: str = "") -> np.ndarray | None:
    """Mark a sagittal T2 slice of the lumbar spine.

    Findings that the report states change the procedure: a bulge or herniation lets discs reach behind the bodies, disc
    space narrowing lets thinner gaps count as discs, and stenosis bridges longer gaps of the canal.

    Args:
        pixels: Grey values, uint8, upright, the front at the left. Shape (H, W).
        report: What was written about the slice; empty if nothing.

    Returns:
        Indices of `PSEUDO_MASK_NAMES`, uint8, shape (H, W); None if no canal or fewer than two bodies are found.
    """
    if min(pixels.shape) < LEAST_HEIGHT or pixels.min() == pixels.max():
        return None
    stated = {finding.kind for finding in report_findings(report) if not finding.negated} if report else set()
    tissue = _evened(pixels)
    behind = _behind_canal(tissue)
    canal = _canal(tissue, behind, bridged=0.03 if stated & _NARROW_CANAL else 0.012)
    bodies = _bodies(tissue, behind, canal)
    if len(bodies) < 2 or not canal.any():
        return None
    mask = np.zeros(pixels.shape, np.uint8)
    mask[canal] = _CANAL
    for upper, lower in pairwise(bodies):
        mask[_disc(upper, lower, stated) & ~(canal if not stated & _BULGES else _eroded(canal))] = _DISC
    for body in bodies:
        mask[body] = _VERTEBRA
    return mask


def _evened(pixels: np.ndarray) -> np.ndarray:
    """Divide the slice by the local mean of its tissue; air becomes 0. Shape (H, W)."""
    from scipy.ndimage import gaussian_filter
    from skimage.filters import threshold_otsu

    from data_scripts.preprocessing.denoising import denoised

    grey = denoised(pixels)
    is_tissue = (grey > max(0.35 * threshold_otsu(grey), 0.02)).astype(np.float32)
    sigma = 0.06 * len(grey)
    local = gaussian_filter(grey * is_tissue, sigma) / np.maximum(gaussian_filter(is_tissue, sigma), 1e-3)
    return np.clip(grey / np.maximum(local, max(0.1 * float(local.max()), 1e-6)), 0, 4) * is_tissue


def _behind_canal(tissue: np.ndarray) -> np.ndarray:
    """Measure how far each pixel lies behind the canal's middle, in pixels across it. Shape (H, W)."""
    from scipy.ndimage import gaussian_filter1d

    path = _brightest_path(_tube_scores(tissue)).astype(np.float64)
    smooth = gaussian_filter1d(path, 0.012 * len(tissue))
    across = 1 / np.hypot(1, np.gradient(smooth))
    return (np.arange(tissue.shape[1])[None] - smooth[:, None]) * across[:, None]


def _tube_scores(tissue: np.ndarray) -> np.ndarray:
    """Score pixels as the middle of the canal: brighter than both sides, bone before and muscle or fat behind."""
    from scipy.ndimage import gaussian_filter, shift, uniform_filter1d

    height = len(tissue)
    width = max(3, round(0.04 * height))
    smooth = gaussian_filter(tissue, (0.012 * height, 0.5))

    def mean_between(start: int, stop: int) -> np.ndarray:
        means = uniform_filter1d(smooth, stop - start, axis=1)
        return np.asarray(shift(means, (0, -(start + stop) / 2), order=1, mode="constant"))

    centre = mean_between(-(width // 2), width // 2 + 1)
    front, back = mean_between(-width - width // 2, -(width // 2) - 2), mean_between(width // 2 + 2, width + width // 2)
    contrast = np.minimum(np.minimum(centre - front, centre - back), 0.8)
    bone, muscle = mean_between(-4 * width, -width), mean_between(width, 4 * width)
    return contrast - 1.5 * np.maximum(0, 0.55 - bone) - 1.5 * np.maximum(0, 0.5 - muscle)


def _brightest_path(scores: np.ndarray) -> np.ndarray:
    """Find the column of the path from top to bottom with the highest sum, at most a column aside a row. Shape (H,).

    Example:
        >>> _brightest_path(np.array([[0.0, 1, 0], [0, 0, 1], [0, 1, 0]])).tolist()
        [1, 2, 1]
    """
    total = scores[0].copy()
    came_from = []
    for row in scores[1:]:
        padded = np.pad(total, 1, constant_values=-np.inf)
        candidates = np.stack([padded[:-2] - 0.03, padded[1:-1], padded[2:] - 0.03])
        came_from.append(candidates.argmax(axis=0) - 1)
        total = row + candidates.max(axis=0)
    columns = [int(total.argmax())]
    for steps in reversed(came_from):
        columns.append(columns[-1] + int(steps[columns[-1]]))
    return np.array(columns[::-1])


def _canal(tissue: np.ndarray, behind: np.ndarray, bridged: float) -> np.ndarray:
    from scipy.ndimage import binary_closing, binary_dilation, binary_fill_holes, binary_opening, gaussian_filter
    from skimage.filters import threshold_otsu
    from skimage.measure import label

    height = len(tissue)
    smooth = gaussian_filter(tissue, 0.004 * height)
    near = np.abs(behind) < 0.04 * height
    is_bright = near & (smooth > threshold_otsu(smooth[np.abs(behind) < 0.06 * height])) & ~_edges(tissue)
    pieces = label(binary_opening(is_bright, _disk(0.007, height)))
    on_path = np.setdiff1d(pieces[np.abs(behind) < 0.008 * height], 0)
    canal = binary_dilation(np.isin(pieces, on_path), _disk(0.003, height))
    return np.asarray(binary_fill_holes(binary_closing(canal, _disk(bridged, height))) & near)


def _bodies(tissue: np.ndarray, behind: np.ndarray, canal: np.ndarray) -> list[np.ndarray]:
    """List the vertebral bodies from top to bottom, each a mask of shape (H, W)."""
    from scipy.ndimage import binary_closing, binary_dilation, binary_fill_holes, binary_opening, gaussian_filter
    from skimage.filters import threshold_otsu
    from skimage.measure import label, regionprops

    height = len(tissue)
    smooth = gaussian_filter(tissue, 0.004 * height)
    band = (behind < -0.015 * height) & (behind > -0.2 * height) & ~canal
    values = smooth[band & (smooth > 0.1)]
    if not values.size or values.min() == values.max():
        return []
    is_bright = binary_fill_holes(band & (smooth > 0.85 * threshold_otsu(values)) & ~_edges(tissue))
    pieces = label(binary_opening(is_bright, _disk(0.015, height)))
    bodies = []
    for piece in sorted(regionprops(pieces), key=lambda piece: piece.centroid[0]):
        top, left, bottom, right = piece.bbox
        down, across = map(int, piece.centroid)
        if (
            0.0035 * height**2 <= piece.area <= 0.02 * height**2
            and piece.solidity >= 0.8
            and bottom - top <= 0.15 * height
            and right - left <= 0.17 * height
            and -0.125 * height < behind[down, across] < -0.03 * height
        ):
            margin = round(0.05 * height)
            padded = np.pad(pieces == piece.label, margin)
            closed = binary_closing(padded, _disk(0.012, height))[margin:-margin, margin:-margin]
            bodies.append(np.asarray(binary_dilation(closed, _disk(0.004, height))))
    return bodies


def _disc(upper: np.ndarray, lower: np.ndarray, stated: Collection[str]) -> np.ndarray:
    """Mark the gap between two neighbouring bodies; nothing if a body between them was not found."""
    from scipy.ndimage import binary_dilation, binary_opening
    from skimage.morphology import convex_hull_image

    height = len(upper)
    if np.flatnonzero(lower.any(axis=1))[0] - np.flatnonzero(upper.any(axis=1))[-1] >= 0.045 * height:
        return np.zeros_like(upper)
    gap = convex_hull_image(upper | lower) & ~upper & ~lower
    disc = binary_opening(gap, _disk(0.004 if "disc space narrowing" in stated else 0.008, height))
    if _BULGES.isdisjoint(stated):
        return np.asarray(disc)
    return np.asarray(binary_dilation(disc, _disk(0.004, height)) & ~upper & ~lower)


def _edges(tissue: np.ndarray) -> np.ndarray:
    from skimage.feature import canny

    return np.asarray(
        canny(tissue, sigma=0.007 * len(tissue), low_threshold=0.85, high_threshold=0.95, use_quantiles=True)
    )


def _eroded(canal: np.ndarray) -> np.ndarray:
    from scipy.ndimage import binary_erosion

    return np.asarray(binary_erosion(canal, _disk(0.004, len(canal))))


def _disk(share: float, height: int) -> np.ndarray:
    from skimage.morphology import disk

    return np.asarray(disk(max(1, round(share * height))))
