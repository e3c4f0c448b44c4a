"""Variation of training images that changes no finding: pose, contrast, bias field and noise.

Never a flip: it would exchange left and right, but not in the report.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MAX_ROTATION_DEGREES = 15.0
MAX_SHIFT = 0.06  # of the side
MAX_LOG_SCALE = 0.2
MAX_LOG_ASPECT = 0.15
MAX_LOG_CONTRAST = 0.4
MAX_LOG_GAMMA = 0.5
MAX_LOG_BIAS = 0.25  # of the field, corner to corner
MAX_NOISE = 13.0  # standard deviation in grey values
BLUR_PROBABILITY = 0.5


def vary_images(images: Tensor, generators: Sequence[np.random.Generator]) -> Tensor:
    """Vary pose, contrast, illumination, sharpness and noise of images, each by its own generator.

    Args:
        images: Grey values from 0 to 255. Shape (B, S, S), float.
        generators: One per image.

    Returns:
        Shape (B, S, S), float, in 0 to 255.
    """
    draws = _draws(generators, 11)
    return _vary_grey(_change_pose(images, draws[:, :5]), draws[:, 5:], generators)


def vary_grey(images: Tensor, generators: Sequence[np.random.Generator]) -> Tensor:
    """Vary all but the pose, as `vary_images` does. Shape (B, S, S)."""
    return _vary_grey(images, _draws(generators, 6), generators)


def pose_matrices(draws: Tensor) -> Tensor:
    """Make affine matrices of rotation, scale, aspect and shift, for `affine_grid`.

    Args:
        draws: Uniform in [-1, 1]. Shape (B, 5).

    Returns:
        Shape (B, 2, 3).
    """
    angle = draws[:, 0] * math.radians(MAX_ROTATION_DEGREES)
    scale, aspect = (draws[:, 1] * MAX_LOG_SCALE).exp(), (draws[:, 2] * MAX_LOG_ASPECT).exp()
    cosine, sine = angle.cos() * scale, angle.sin() * scale
    shift = 2 * MAX_SHIFT * draws[:, 3:5]  # affine_grid's side is 2
    rows = [
        torch.stack([cosine, -sine, shift[:, 0]], dim=1),
        torch.stack([sine * aspect, cosine * aspect, shift[:, 1]], dim=1),
    ]
    return torch.stack(rows, dim=1)


def _draws(generators: Sequence[np.random.Generator], number: int) -> Tensor:
    return torch.from_numpy(np.stack([random.uniform(-1, 1, size=number) for random in generators])).float()


def _vary_grey(posed: Tensor, draws: Tensor, generators: Sequence[np.random.Generator]) -> Tensor:
    noise = np.stack([random.standard_normal(posed.shape[1:], dtype=np.float32) for random in generators])
    contrast, gamma, sharpness, level, across, down = (draws[:, i, None, None] for i in range(6))
    grey = (posed / 255).clamp(0, 1) ** (MAX_LOG_GAMMA * gamma).exp() * (MAX_LOG_CONTRAST * contrast).exp()
    ramp = torch.linspace(-1, 1, posed.shape[-1])
    grey = grey * (MAX_LOG_BIAS / 2 * (across * ramp + down * ramp[:, None])).exp()
    grey = torch.where(sharpness > 1 - 2 * BLUR_PROBABILITY, _blurred(grey), grey)
    varied = 255 * grey + MAX_NOISE * level.abs() * torch.from_numpy(noise)
    # Black padding stays black, so that the tower cannot learn from it. A ramp instead of a threshold, which would turn
    # the rounding of a border pixel into a pixel of noise, so that results depended on the batch size.
    return varied.clamp(0, 255) * posed.clamp(0, 1)


def _change_pose(images: Tensor, draws: Tensor) -> Tensor:
    grid = F.affine_grid(pose_matrices(draws), [len(images), 1, *images.shape[1:]], align_corners=False)
    return F.grid_sample(images[:, None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[:, 0]


def _blurred(images: Tensor) -> Tensor:
    binomial = torch.tensor([1.0, 2.0, 1.0]) / 4
    return F.conv2d(images[:, None], torch.outer(binomial, binomial)[None, None], padding=1)[:, 0]
