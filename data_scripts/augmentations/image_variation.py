"""Variations of a stored slice that change no finding: grey scale, bias field and pose. Pure functions of images.

They change a dataset once, before training, with its masks; pixels are 8-bit grey (mode `L`). The trainer's `--augment`
draws them each epoch, on batches of tensors, without masks. torchvision's v2 transforms would bring torch into data
scripts, and interpolate to other pixels.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from PIL import Image

CENTRAL_SHARE = 0.7  # share of width and height that shows disc and canal in a lumbar slice


def mirrored(image: Image.Image) -> Image.Image:
    """Exchange the left and the right half of an image or a mask."""
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def with_grey_scale(image: Image.Image, log_gamma: float, log_contrast: float, brightness: float) -> Image.Image:
    r"""Change gamma, contrast and brightness, as receiver gain and windowing differ between scanners.

    $v' = \mathrm{clip}((v / 255)^\gamma \cdot c + b, 0, 1) \cdot 255$ with $\ln \gamma$, $\ln c$ and $b$ given; a
    positive `log_gamma` darkens the mid-tones. Black stays black, since background and padding hold no signal.

    Example:
        >>> image = Image.fromarray(np.array([[0, 64, 255]], dtype=np.uint8))
        >>> np.asarray(with_grey_scale(image, log_gamma=0.0, log_contrast=math.log(2), brightness=0.1)).tolist()
        [[0, 154, 255]]
    """
    fractions = (np.arange(256) / 255) ** math.exp(log_gamma) * math.exp(log_contrast) + brightness
    table = np.round(255 * np.clip(fractions, 0, 1)).astype(np.uint8)
    table[0] = 0
    return image.point(table.tolist())


def with_bias_field(image: Image.Image, coefficients: np.ndarray) -> Image.Image:
    r"""Multiply by a smooth field, as the uneven sensitivity of a surface coil does.

    The logarithm of the field is a polynomial $\sum_{jk} c_{jk} x^j y^k$ with $x$ and $y$ from -1 to 1 over width
    and height. `coefficients` has the shape (order + 1, order + 1).

    Source:
        Van Leemput et al. 1999, as `RandomBiasField` of TorchIO simulates it (order 3).

    Example:
        >>> grey = Image.new("L", (3, 1), 100)
        >>> np.asarray(with_bias_field(grey, np.array([[0.0, 0.0], [math.log(2), 0.0]]))).tolist()
        [[50, 100, 200]]
    """
    width, height = image.size
    across, down = np.linspace(-1, 1, width), np.linspace(-1, 1, height)
    field = np.exp(np.polynomial.polynomial.polygrid2d(across, down, coefficients)).T  # (H, W)
    return Image.fromarray(np.round(np.clip(np.asarray(image) * field, 0, 255)).astype(np.uint8))


def random_bias_coefficients(rng: np.random.Generator, order: int, max_coefficient: float) -> np.ndarray:
    """Draw coefficients for `with_bias_field`: no constant, others up to the total order in ±`max_coefficient`."""
    coefficients = rng.uniform(-max_coefficient, max_coefficient, size=(order + 1, order + 1))
    degree = np.add.outer(np.arange(order + 1), np.arange(order + 1))
    return np.where((degree > 0) & (degree <= order), coefficients, 0.0)


@dataclass(frozen=True, kw_only=True)
class Pose:
    """A turn, zoom and shift about the centre of the image. Angles and proportions of the anatomy stay true."""

    degrees: float = 0.0  # clockwise turn, as seen
    zoom: float = 1.0  # above 1 the anatomy grows and the border is cropped
    shift_right: float = 0.0  # in widths of the image
    shift_down: float = 0.0  # in heights of the image

    def milder(self) -> "Pose":
        """Halve the pose."""
        right, down = self.shift_right / 2, self.shift_down / 2
        return Pose(degrees=self.degrees / 2, zoom=math.sqrt(self.zoom), shift_right=right, shift_down=down)

    def matrix(self, size: tuple[int, int]) -> np.ndarray:
        """Return the map of points of an image of this width and height, in pixels, homogeneous. Shape (3, 3).

        Example:
            >>> (Pose(degrees=90).matrix((10, 10)) @ [10.0, 5.0, 1.0]).round(6).tolist()
            [5.0, 10.0, 1.0]
        """
        cosine, sine = (self.zoom * f(math.radians(self.degrees)) for f in (math.cos, math.sin))
        turn = np.array([[cosine, -sine], [sine, cosine]])
        centre, shift = np.array(size) / 2, np.array([self.shift_right, self.shift_down]) * size
        return np.block([[turn, (centre + shift - turn @ centre)[:, None]], [0.0, 0.0, 1.0]])


def posed(image: Image.Image, pose: Pose, resample: Image.Resampling = Image.Resampling.BILINEAR) -> Image.Image:
    """Apply a pose to an image or, with `Image.Resampling.NEAREST`, a mask; pixels from outside are black."""
    # Pillow asks where each pixel of the result comes from.
    inverse = np.linalg.inv(pose.matrix(image.size))
    return image.transform(image.size, Image.Transform.AFFINE, inverse[:2].ravel().tolist(), resample)


def pose_in_view(pose: Pose, points: np.ndarray, size: tuple[int, int], halvings: int = 6) -> Pose:
    """Halve a pose until every point, shape (N, 2), stays in the image; no pose at all after `halvings`."""
    for _ in range(halvings + 1):
        matrix = pose.matrix(size)
        moved = points @ matrix[:2, :2].T + matrix[:2, 2]
        if ((moved >= 0) & (moved <= size)).all():
            return pose
        pose = pose.milder()
    return Pose()


def points_to_keep(size: tuple[int, int], mask: Image.Image | None, classes: Collection[int] | None) -> np.ndarray:
    """List the points that must stay in view: corners of the central part, and of each pixel of the kept classes.

    `classes` are indices in the mask; None for every class that touches no edge of the image. The points are x to the
    right and y down, in pixels; the first pixel covers 0 to 1. Shape (N, 2).
    """
    low, high = 0.5 - CENTRAL_SHARE / 2, 0.5 + CENTRAL_SHARE / 2
    points = np.array([[x, y] for x in (low, high) for y in (low, high)]) * size
    if mask is None:
        return points
    indices = np.asarray(mask)
    if classes is None:
        cut = np.concatenate([indices[0], indices[-1], indices[:, 0], indices[:, -1]])
        classes = set(np.unique(indices).tolist()) - set(cut.tolist()) - {0}
    rows, columns = np.nonzero(np.isin(indices, list(classes)))
    pixels = np.stack([columns, rows], axis=1)
    return np.concatenate([points, *(pixels + corner for corner in ((0, 0), (0, 1), (1, 0), (1, 1)))])
