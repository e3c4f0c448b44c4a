"""Padding and resizing of images, done to masks and undone for maps and predictions.

Shapes: B images, K classes, H × W pixels of the original image, h × w of what the model sees.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

NOT_ANNOTATED = 255  # in masks, as transformers' losses and metrics ignore


class WithGeometry:
    """Masks, maps and predictions of an image processor that pads to a square and resizes."""

    do_pad_to_square: bool
    do_resize: bool
    size: Any

    def process_masks(self, masks: Any, size: tuple[int, int] | None = None) -> Tensor:
        """Pad and resize masks as their images are: each pixel gets the class at its centre.

        Args:
            masks: A mask or a list of masks, each (H, W): array, tensor or PIL image of one channel, of class indices
                from 0 to 255, where 255 is not annotated.
            size: Height and width of the model's images; None: those of this processor.

        Returns:
            Classes; 255 in the padding. Shape (B, h, w), int64.

        Raises:
            ValueError: If a mask has not two dimensions and whole numbers up to 255, or masks of several sizes are not
                resized.

        Example:
            >>> from modeling_lumbarclip import LumbarCLIPImageProcessor
            >>> LumbarCLIPImageProcessor().process_masks(np.array([[1, 2]], np.uint8), (2, 4))
            tensor([[[  1,   1,   2,   2],
                     [255, 255, 255, 255]]])
        """
        masks = masks if isinstance(masks, list | tuple) else [masks]
        if self.do_resize and size is None:
            size = (self.size["height"], self.size["width"])
        processed = [self._process_mask(_as_mask(mask), size) for mask in masks]
        if len({tuple(mask.shape) for mask in processed}) != 1:
            raise ValueError(
                f"{len(processed)} masks have the sizes {sorted({tuple(mask.shape) for mask in processed})}: pass at "
                "least one, and masks of several sizes only with a size."
            )
        return torch.stack(processed)

    def _process_mask(self, mask: Tensor, size: tuple[int, int] | None) -> Tensor:
        left, right, top, bottom = padding(mask) if self.do_pad_to_square else (0, 0, 0, 0)
        before, sides = (top, left), (mask.shape[0] + top + bottom, mask.shape[1] + left + right)
        rows, columns = (
            _nearest(side, new or side) - offset
            for side, new, offset in zip(sides, size or (None, None), before, strict=True)
        )
        inside = ((rows >= 0) & (rows < mask.shape[0]))[:, None] & (columns >= 0) & (columns < mask.shape[1])
        picked = mask[rows.clamp(0, mask.shape[0] - 1)][:, columns.clamp(0, mask.shape[1] - 1)]
        return picked.masked_fill(~inside, NOT_ANNOTATED)

    def unpad_maps(self, maps: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Undo padding and resizing, so that maps fit the original image.

        The maps (..., h, w) cover the square that the model saw, such as those of `model.grad_cam(...)`; the size is
        the height and width of the original image, upright. Returns (..., height, width), bilinear between cells.

        Example:
            >>> from modeling_lumbarclip import LumbarCLIPImageProcessor
            >>> LumbarCLIPImageProcessor().unpad_maps(torch.tensor([[0.0, 1.0], [2.0, 3.0]]), (2, 4))
            tensor([[0.5000, 0.7500, 1.2500, 1.5000],
                    [1.5000, 1.7500, 2.2500, 2.5000]])
        """
        height, width = image_size
        side_rows, side_columns = (max(image_size), max(image_size)) if self.do_pad_to_square else image_size
        top, left = (side_rows - height) // 2, (side_columns - width) // 2  # as `padding` does
        # Axis by axis, without the padding: the full square of a long image may not fit in memory.
        rows = _interpolation(maps.shape[-2], side_rows).to(maps)[top : top + height]
        columns = _interpolation(maps.shape[-1], side_columns).to(maps)[left : left + width]
        return rows @ maps @ columns.T

    def post_process_semantic_segmentation(
        self, outputs: Any, target_sizes: Sequence[Any] | Tensor | None = None
    ) -> list[Tensor]:
        """Turn a segmentation model's output into masks, on the grids of the original images.

        Args:
            outputs: With `logits` (B, K, h, w).
            target_sizes: Height and width of each original image, upright; None: masks at the size of the logits,
                padding included.

        Returns:
            The class with the highest logit at each pixel: 0 the background, then the prompts that were asked, or the
            classes of `config.id2label`. B masks (H, W), int64.

        Raises:
            ValueError: If there is not one size for each image.
        """
        logits = outputs.logits.float()
        if target_sizes is None:
            return list(logits.argmax(dim=1))
        sizes = [(int(height), int(width)) for height, width in target_sizes]
        if len(sizes) != len(logits):
            raise ValueError(
                f"target_sizes needs the height and width of each of {len(logits)} images; got {len(sizes)} of them."
            )
        return [self.unpad_maps(maps, size).argmax(dim=0) for maps, size in zip(logits, sizes, strict=True)]


def padding(image: Tensor) -> tuple[int, int, int, int]:
    """Count the columns left and right and the rows above and below that make an image square."""
    height, width = image.shape[-2:]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return left, side - width - left, top, side - height - top


def _as_mask(mask: Any) -> Tensor:
    values = mask if isinstance(mask, Tensor) else torch.from_numpy(np.array(mask))
    if values.ndim != 2 or values.is_floating_point() or values.is_complex() or values.numel() == 0:
        raise ValueError(
            f"A mask has shape (H, W) and whole numbers, the classes of the pixels; got {tuple(values.shape)} of "
            f"{values.dtype}. Colours are no classes: save their indices."
        )
    if values.min() < 0 or values.max() > NOT_ANNOTATED:
        raise ValueError(
            f"A mask has classes from 0 to 254, and {NOT_ANNOTATED} where nothing is annotated; got values from "
            f"{values.min()} to {values.max()}."
        )
    return values.long()


def _nearest(size: int, new_size: int) -> Tensor:
    """Name the old pixel at the centre of each of `new_size` new ones, of `size`."""
    return ((torch.arange(new_size) + 0.5) * (size / new_size)).long()


def _interpolation(size: int, new_size: int) -> Tensor:
    """Return the matrix of linear interpolation from `size` to `new_size` values."""
    return F.interpolate(torch.eye(size)[None], size=new_size, mode="linear")[0].T
