"""Decode, pad and resize images once per process, for all runs, folds and evaluations.

Shapes: R rows of a split, B images of a batch, C channels, S side of the image.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset, Image
from torch import Tensor
from tqdm.auto import tqdm

from modeling_lumbarclip import LumbarCLIPImageProcessor
from modeling_lumbarclip.image_processing_lumbarclip import to_eight_bits

MAX_CACHE_BYTES = 512 * 1024**2  # ten thousand slices of 224 pixels


class ImageCache:
    """The most recently used images, up to a number of bytes."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._images: OrderedDict[str, Tensor] = OrderedDict()
        self._num_bytes = 0

    def get(self, key: str, make: Callable[[], Tensor]) -> Tensor:
        """Return the image of a key, made if needed; do not write to it."""
        if key in self._images:
            self._images.move_to_end(key)
            return self._images[key]
        image = self._images[key] = make()
        self._num_bytes += image.nbytes
        while self._num_bytes > self.max_bytes:
            self._num_bytes -= self._images.popitem(last=False)[1].nbytes
        return image


_CACHE = ImageCache(MAX_CACHE_BYTES)


class DecodedImages:
    """The images of a split as the image processor leaves them before rescaling and normalising.

    The cache identifies an image by its stored bytes and the settings of the processor, so that the folds of a
    cross-validation share theirs and a rebuilt dataset does not find old ones.
    """

    def __init__(self, dataset: Dataset, image_processor: LumbarCLIPImageProcessor) -> None:
        self.image_processor = image_processor
        self._feature = dataset.features["image"]
        self._rows = dataset.with_format(None).select_columns("image").cast_column("image", Image(decode=False))
        self._settings = f"{image_processor.to_json_string()}\n{self._feature.mode}\n".encode()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> Tensor:
        """Return the image of a row, uint8. Shape (1, S, S) if grey, (3, S, S) if in colour.

        Raises:
            ValueError: If it cannot be read.
        """
        stored = self._rows[row]["image"]
        if stored["bytes"] is None:  # a path, whose file may change
            return self._decoded(row, stored)
        key = hashlib.sha256(self._settings + stored["bytes"]).hexdigest()
        return _CACHE.get(key, lambda: self._decoded(row, stored))

    def _decoded(self, row: int, stored: dict[str, Any]) -> Tensor:
        try:
            image = self._feature.decode_example(stored)
        except Exception as error:  # decoders raise anything
            where = f"row {row} of {self._rows.split}" if self._rows.split else f"row {row}"
            raise ValueError(
                f"The image of {where} cannot be read: {error}. Build or copy the dataset again."
            ) from error
        made = self.image_processor(to_eight_bits(image), do_rescale=False, do_normalize=False, return_tensors="pt")
        (pixels,) = made.pixel_values.to(torch.uint8)
        is_grey = torch.equal(pixels[0], pixels[1]) and torch.equal(pixels[0], pixels[2])
        return pixels[:1].clone() if is_grey else pixels


def decode_images(dataset: Dataset, image_processor: LumbarCLIPImageProcessor, show_progress: bool = True) -> Tensor:
    """Decode, pad and resize every image of a split, the slow part of the processor, before any augmentation.

    Returns:
        Grey images. Shape (R, S, S), uint8: a thousand slices of 224 pixels are 50 MB.

    Raises:
        ValueError: If an image has colours.
    """
    decoded = DecodedImages(dataset, image_processor)
    images = torch.empty(len(dataset), image_processor.size["height"], image_processor.size["width"], dtype=torch.uint8)
    for row in tqdm(range(len(decoded)), desc="decoding images", unit=" images", disable=not show_progress):
        image = decoded[row]
        if len(image) != 1:
            raise ValueError(f"Row {row} holds a colour image; convert the images to grey before training.")
        images[row] = image[0]
    return images


def normalise(images: Tensor, image_processor: LumbarCLIPImageProcessor) -> Tensor:
    """Rescale and normalise images (B, 1 or 3, S, S) from 0 to 255 to `pixel_values` (B, 3, S, S), float32."""
    return image_processor.rescale_and_normalize(
        images.expand(-1, 3, -1, -1).float(),
        image_processor.do_rescale,
        image_processor.rescale_factor,
        image_processor.do_normalize,
        tuple(image_processor.image_mean),  # type: ignore[arg-type]  # hashed by the processor's cache
        tuple(image_processor.image_std),  # type: ignore[arg-type]
    )
