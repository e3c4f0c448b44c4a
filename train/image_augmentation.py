"""Variation of training images that changes no finding: pose, contrast, bias field and noise; never a flip.

A flip would exchange left and right while the report does not, so it is not here.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MAX_ROTATION_DEGREES = 8.0
MAX_SHIFT = 0.06  # of the side
MAX_LOG_SCALE = 0.12
MAX_LOG_CONTRAST = 0.35
MAX_LOG_GAMMA = 0.3
MAX_BRIGHTNESS = 12.0  # grey values
MAX_LOG_BIAS = 0.25  # of the field, corner to corner
MAX_NOISE = 10.0  # standard deviation in grey values


def vary_images(images: Tensor, generators: Sequence[np.random.Generator]) -> Tensor:
    """Rotate, shift, scale, and change contrast, illumination and noise, each image by its own generator.

    Args:
        images: Grey values of 0 to 255. Shape (B, S, S), float.
        generators: One a row.

    Returns:
        Shape (B, S, S), float, in 0 to 255.
    """
    draws = torch.from_numpy(np.stack([random.uniform(-1, 1, size=10) for random in generators])).float()  # (B, 10)
    noise_seeds = [int(random.integers(2**62)) for random in generators]
    posed = _change_pose(images, draws[:, :5])
    contrast, gamma, brightness = draws[:, 5, None, None], draws[:, 6, None, None], draws[:, 7, None, None]
    grey = (posed / 255).clamp(0, 1) ** (MAX_LOG_GAMMA * gamma).exp()
    mean = grey.mean(dim=(1, 2), keepdim=True)
    grey = (grey - mean) * (MAX_LOG_CONTRAST * contrast).exp() + mean
    ramp = torch.linspace(-1, 1, images.shape[-1])
    field = draws[:, 8, None, None] * ramp[:, None] + draws[:, 9, None, None] * ramp[None, :]
    varied = grey * (MAX_LOG_BIAS / 2 * field).exp() * 255 + MAX_BRIGHTNESS * brightness
    level = MAX_NOISE * draws[:, 4, None, None].abs()
    noise = torch.stack([torch.randn(images.shape[1:], generator=_torch_generator(seed)) for seed in noise_seeds])
    # What padding made black stays black: the tower shall not learn from it. A ramp and not a threshold, which would
    # turn the rounding of a border pixel into a pixel of noise and make batches of two sizes differ.
    return (varied + level * noise).clamp(0, 255) * posed.clamp(0, 1)


def _change_pose(images: Tensor, draws: Tensor) -> Tensor:
    angle = draws[:, 0] * math.radians(MAX_ROTATION_DEGREES)
    scale = (draws[:, 1] * MAX_LOG_SCALE).exp()
    cosine, sine = angle.cos() * scale, angle.sin() * scale
    shift = 2 * MAX_SHIFT * draws[:, 2:4]  # affine_grid's side is 2
    theta = torch.stack(
        [torch.stack([cosine, -sine, shift[:, 0]], dim=1), torch.stack([sine, cosine, shift[:, 1]], dim=1)], dim=1
    )
    grid = F.affine_grid(theta, [len(images), 1, *images.shape[1:]], align_corners=False)
    return F.grid_sample(images[:, None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[:, 0]


def _torch_generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
