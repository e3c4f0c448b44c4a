"""Images decoded, padded and resized once in a process, however many runs, folds and evaluations look at them.

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

# Ten thousand slices of 224 pixels.
MAX_CACHE_BYTES = 512 * 1024**2


class ImageCache:
    """The images used last, up to a number of bytes.

    Args:
        max_bytes: Beyond it, the images used longest ago are forgotten.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._images: OrderedDict[str, Tensor] = OrderedDict()
        self._num_bytes = 0

    def get(self, key: str, make: Callable[[], Tensor]) -> Tensor:
        """Return the image of a key, made at need; it must not be written to."""
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

    An image is known by its stored bytes and the settings of the processor: the folds of a cross-validation share
    theirs, and a data set that was built anew does not find the old ones.

    Args:
        dataset: A split with the column `image`.
        image_processor: Whose size, padding and windowing apply.
    """

    def __init__(self, dataset: Dataset, image_processor: LumbarCLIPImageProcessor) -> None:
        self.image_processor = image_processor
        self._feature = dataset.features["image"]
        self._rows = dataset.with_format(None).select_columns("image").cast_column("image", Image(decode=False))
        self._settings = f"{image_processor.to_json_string()}\n{self._feature.mode}\n".encode()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> Tensor:
        """The image of a row, uint8. Shape (1, S, S) where it is grey, (3, S, S) where it has colours."""
        stored = self._rows[row]["image"]
        if stored["bytes"] is None:  # the file of a path may change
            return self._decoded(stored)
        key = hashlib.sha256(self._settings + stored["bytes"]).hexdigest()
        return _CACHE.get(key, lambda: self._decoded(stored))

    def _decoded(self, stored: dict[str, Any]) -> Tensor:
        image = self._feature.decode_example(stored)
        (pixels,) = self.image_processor(
            image, do_rescale=False, do_normalize=False, return_tensors="pt"
        ).pixel_values.to(torch.uint8)
        is_grey = torch.equal(pixels[0], pixels[1]) and torch.equal(pixels[0], pixels[2])
        return pixels[:1].clone() if is_grey else pixels


def decode_images(dataset: Dataset, image_processor: LumbarCLIPImageProcessor, show_progress: bool = True) -> Tensor:
    """Decode, pad and resize every image of a split, the expensive part of the processor that no augmentation changes.

    Args:
        dataset: A split.
        image_processor: Whose size and padding apply.
        show_progress: Whether to draw a progress bar.

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
    """Finish what decoding began: values of 0 to 255 to what the vision tower expects.

    Args:
        images: Shape (B, C, S, S), uint8 or float; C is 1 or 3.
        image_processor: Whose mean and standard deviation apply.

    Returns:
        Shape (B, 3, S, S), float32; equal to the processor's own `pixel_values`.
    """
    return image_processor.rescale_and_normalize(
        images.expand(-1, 3, -1, -1).float(),
        image_processor.do_rescale,
        image_processor.rescale_factor,
        image_processor.do_normalize,
        tuple(image_processor.image_mean),  # type: ignore[arg-type]  # hashed by the processor's cache
        tuple(image_processor.image_std),  # type: ignore[arg-type]
    )
