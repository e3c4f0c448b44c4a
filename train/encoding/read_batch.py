"""A batch that the bulk encoder has read, and how images become tensors in it.

Shapes: B images or rows of a batch that can be read, C channels, S side of the image, U distinct texts, T tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

from data_scripts.imaging.images import MAX_PIXELS, UnusableImageError
from modeling_lumbarclip import LumbarCLIPImageProcessor
from modeling_lumbarclip.image_processing_lumbarclip import to_eight_bits

Reference = tuple[str, int]  # a file and the frame in it, or a split and the row in it


@dataclass(frozen=True)
class ReadBatch:
    """A batch as read.

    Args:
        columns: What is written beside the embeddings: by name, a value for each of the B that could be read.
        tensors: `images`, uint8, (B, C, S, S), C being 1 if all are grey and else 3; or `input_ids` and
            `attention_mask`, (U, T), and `text_index`, (B,), the text of each row. Empty if B is 0.
        unreadable: What could not be read, with its `reason`.
        num_files: Files or rows that the batch went through.
    """

    columns: dict[str, list[Any]]
    tensors: dict[str, Tensor]
    unreadable: list[dict[str, Any]]
    num_files: int


class Inputs(Protocol):
    """What there is to encode; passed on to worker processes.

    Args:
        schema: Of the columns beside the embeddings.
        name: What is counted: files or rows.
        num_files: How many there are.
        crashing: What is not read again, since it took the process down with it; listed as unreadable.
    """

    schema: pa.Schema
    name: str
    num_files: int
    crashing: set[Reference]

    def identity(self) -> dict[str, Any]:
        """Describe them so that others are described otherwise."""
        ...

    def references(self) -> Iterator[Reference]:
        """List them, always in the same order."""
        ...

    def __getitem__(self, references: list[Reference]) -> ReadBatch:
        """Read a batch."""
        ...


def eight_bits(image: Image.Image) -> Tensor:
    """Bring an image to 8 bits, as the image processor does.

    Returns:
        Shape (1, H, W) where it is stored in grey, else (3, H, W); uint8.

    Raises:
        ValueError: If it is empty, without a finite pixel, or too long to be padded to a square.
    """
    side = max(image.size)
    if side * side > MAX_PIXELS:
        raise UnusableImageError(
            f"image too long: {image.width} x {image.height}; padded to a square it has more than {MAX_PIXELS} pixels"
        )
    if image.mode != "L" and not image.mode.startswith(("I", "F")):
        image = image.convert("RGB")
    return to_eight_bits(np.asarray(image))


def resized(images: Sequence[Tensor], image_processor: LumbarCLIPImageProcessor) -> dict[str, Tensor]:
    """Pad and resize images, those of one size together and grey ones in one channel; a third of the work.

    Args:
        images: Each (1, H, W) or (3, H, W), uint8.
        image_processor: Whose settings apply. Rescaling and normalisation are left to the encoder.

    Returns:
        `images`, (B, C, S, S), uint8; nothing if there are none.
    """
    if not images:
        return {}
    options: dict[str, Any] = {
        "do_convert_rgb": False,
        "do_rescale": False,
        "do_normalize": False,
        "input_data_format": "channels_first",
    }
    squares = image_processor(list(images), **options).pixel_values
    num_channels = max(len(square) for square in squares)
    return {"images": torch.stack([square.expand(num_channels, -1, -1) for square in squares])}
