"""Variation of training images together with their masks: pose, elastic deformation, contrast, resolution, noise.

Never a flip: images and reports keep their sides. Nothing is random but the generators, so that a row of an epoch
varies alike in every process and after a resume.

Shapes: B images of a batch, S side of the image, P side of what the model sees: S, or that of a patch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from train.data.image_augmentation import pose_matrices, vary_grey

IGNORED = 255  # in masks
BENDS = 5  # control points a side
MAX_BEND = 0.012  # standard deviation of their shifts, in sides of the image
MIN_RESOLUTION = 0.4  # of the side
LOW_RESOLUTION_PROBABILITY = 0.3
CURVE_POINTS = 6


@dataclass(frozen=True)
class Variation:
    """How training images vary.

    Args:
        augment: Whether they vary at all; without, only patches are cut.
        contrast_inversion: Share of the images, in [0, 1], whose grey values pass through a random curve that may fall
            as well as rise, so that a model of one sequence reads others.
        patch_size: P, of a random patch; 0: the whole image.
    """

    augment: bool = True
    contrast_inversion: float = 0.0
    patch_size: int = 0

    def __call__(
        self, images: Tensor, masks: Tensor, generators: Sequence[np.random.Generator]
    ) -> tuple[Tensor, Tensor]:
        """Vary images and masks, each pair by its own generator.

        Args:
            images: Grey values from 0 to 255. Shape (B, S, S), float.
            masks: Class indices; 255 is ignored. Shape (B, S, S), uint8.
            generators: One for each image.

        Returns:
            Both of shape (B, P, P). What moves in from beyond the border is black, and ignored in the mask.
        """
        side = images.shape[-1]
        if self.augment:
            images, masks = bend(images, masks, generators)
        if 0 < self.patch_size < side:
            images, masks = cut_patches(images, masks, self.patch_size, generators)
        if self.augment:
            images = lower_resolution(images, generators)
            images = curve_contrast(images, generators, self.contrast_inversion)
            images = vary_grey(images, generators)
        return images, masks


def bend(images: Tensor, masks: Tensor, generators: Sequence[np.random.Generator]) -> tuple[Tensor, Tensor]:
    """Change the pose and bend the plane smoothly: images bilinearly, masks by their nearest pixel.

    Returns:
        Both of shape (B, S, S).
    """
    side = images.shape[-1]
    draws = torch.from_numpy(np.stack([random.uniform(-1, 1, size=5) for random in generators])).float()
    bends = torch.from_numpy(
        np.stack([random.standard_normal((2, BENDS, BENDS), dtype=np.float32) for random in generators])
    )
    grid = F.affine_grid(pose_matrices(draws), [len(images), 1, side, side], align_corners=False)  # (B, S, S, 2)
    shifts = F.interpolate(2 * MAX_BEND * bends, size=(side, side), mode="bicubic", align_corners=True)
    grid = grid + shifts.permute(0, 2, 3, 1)
    bent = F.grid_sample(images[:, None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)[:, 0]
    # Zeros from beyond the border mean "ignored".
    shifted = IGNORED - masks[:, None].float()
    kept = F.grid_sample(shifted, grid, mode="nearest", padding_mode="zeros", align_corners=False)[:, 0]
    return bent, (IGNORED - kept).to(torch.uint8)


def cut_patches(
    images: Tensor, masks: Tensor, size: int, generators: Sequence[np.random.Generator]
) -> tuple[Tensor, Tensor]:
    """Cut one random patch out of each image and mask. Shapes (B, size, size)."""
    places = [random.integers(0, images.shape[-1] - size + 1, size=2).tolist() for random in generators]
    cut = [
        (image[top : top + size, left : left + size], mask[top : top + size, left : left + size])
        for image, mask, (top, left) in zip(images, masks, places, strict=True)
    ]
    return torch.stack([image for image, _ in cut]), torch.stack([mask for _, mask in cut])


def lower_resolution(images: Tensor, generators: Sequence[np.random.Generator]) -> Tensor:
    """Lower the resolution of some images, each axis on its own, as coarser scans have. Shape (B, S, S)."""
    side = images.shape[-1]
    lowered = []
    for image, random in zip(images, generators, strict=True):
        is_low, *factors = random.uniform(size=3)
        if is_low < LOW_RESOLUTION_PROBABILITY:
            size = [max(round(side * (MIN_RESOLUTION + (1 - MIN_RESOLUTION) * factor)), 1) for factor in factors]
            small = F.interpolate(image[None, None], size=size, mode="area")
            image = F.interpolate(small, size=(side, side), mode="bilinear")[0, 0]
        lowered.append(image)
    return torch.stack(lowered)


def curve_contrast(images: Tensor, generators: Sequence[np.random.Generator], share: float) -> Tensor:
    """Map the grey values of a share of the images through a random curve. Shape (B, S, S).

    The curve joins random values at equally spaced grey values: tissues that are bright in one sequence are dark in
    another, not all in the same order. Black stays black, since air gives no signal in any sequence.

    Source:
        Random curves that rise and fall: Models Genesis, Zhou et al. 2021 (there Bézier curves).
    """
    curved = []
    for image, random in zip(images, generators, strict=True):
        is_curved, values = random.uniform(), random.uniform(0, 255, size=CURVE_POINTS)
        if is_curved < share:
            values[0] = 0
            points = np.linspace(0, 255, CURVE_POINTS)
            image = torch.from_numpy(np.interp(image.numpy(), points, values).astype(np.float32))
        curved.append(image)
    return torch.stack(curved)
