"""Image processor of LumbarCLIP: any slice to a square, normalised, three-channel tensor."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoImageProcessor
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling, SizeDict
from transformers.processing_utils import ImagesKwargs, Unpack
from transformers.utils import TensorType

from .configuration_lumbarclip import LumbarCLIPConfig

WINDOW_PERCENTILES = (0.5, 99.5)


class LumbarCLIPImageProcessorKwargs(ImagesKwargs, total=False):
    """Arguments beyond those of every image processor.

    Args:
        do_pad_to_square: Whether the shorter side is padded with black, the image in the middle, before resizing.
        do_window_eight_bit: Whether 8-bit images, too, are windowed between the percentiles of their slice, which
            evens out scanners and exporters.
    """

    do_pad_to_square: bool
    do_window_eight_bit: bool


class LumbarCLIPImageProcessor(TorchvisionBackend):
    """Window, pad to a square, resize, repeat grey to three channels, normalise.

    Takes PIL images of any mode, arrays and tensors, (H, W), (1, H, W), (3, H, W) or channels last, of any size. Values
    of 8 bits are taken as they are, unless `do_window_eight_bit`. Deeper integers, and floats beyond [0, 1], are
    windowed between the 0.5 and 99.5 percentiles of their slice, because a cast to 8 bits would turn a 12-bit slice
    white; floats in [0, 1] are scaled.

    Source:
        LumbarCLIP, arXiv 2509.20813, section 3.2. The paper does not name its window.

    Example:
        >>> processor = LumbarCLIPImageProcessor(size={"height": 64, "width": 64})
        >>> processor(np.arange(12 * 20, dtype=np.uint16).reshape(12, 20) * 16, return_tensors="pt").pixel_values.shape
        torch.Size([1, 3, 64, 64])
    """

    valid_kwargs = LumbarCLIPImageProcessorKwargs
    resample = PILImageResampling.BILINEAR
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    size = {"height": 224, "width": 224}  # noqa: RUF012 - copied for each instance by transformers
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    do_pad_to_square = True
    do_window_eight_bit = False

    def __init__(self, **kwargs: Unpack[LumbarCLIPImageProcessorKwargs]) -> None:
        super().__init__(**kwargs)  # type: ignore[misc]  # it reads `valid_kwargs`

    def _prepare_images_structure(self, images: Any, expected_ndims: int = 3) -> Any:
        """Bring images to eight bits before transformers sees them: it refuses grey arrays and clips deep ones."""
        if isinstance(images, list | tuple) or (isinstance(images, np.ndarray | Tensor) and images.ndim == 4):
            images = [to_eight_bits(image) for image in images]
        else:
            images = to_eight_bits(images)
        return super()._prepare_images_structure(images, expected_ndims)

    def _preprocess(  # type: ignore[override]  # the rest of the arguments is passed on
        self,
        images: list[Tensor],
        size: SizeDict,
        do_pad_to_square: bool,
        do_window_eight_bit: bool,
        return_tensors: str | TensorType | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        if do_window_eight_bit:
            images = [_window(image) for image in images]
        if do_pad_to_square:
            images = [_pad_to_square(image) for image in images]
        return super()._preprocess(images, size=size, return_tensors=return_tensors, **kwargs)


def to_eight_bits(image: Any) -> Any:
    """Window a deep or float image to 8 bits; leave 8-bit images, and what is no image, as they are.

    Args:
        image: A PIL image, an array or a tensor; grey or colour, channels first or last.

    Returns:
        A uint8 tensor with channels first, (1, H, W) or (3, H, W); 8-bit PIL images and unknown objects unchanged.

    Raises:
        ValueError: If the image has no pixel, or a dimension beyond a slice with channels.

    Example:
        >>> to_eight_bits(np.array([[0, 2048, 4095]], dtype=np.uint16))
        tensor([[[  0, 128, 255]]], dtype=torch.uint8)
    """
    if hasattr(image, "getbands"):  # a PIL image, without importing PIL
        if image.mode in ("1", "P", "PA", "LA", "La", "RGBA", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"):
            return image.convert("RGB")
        if not image.mode.startswith(("I", "F")):
            return image
        image = np.asarray(image)
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(np.ascontiguousarray(image.astype(image.dtype.newbyteorder("="))))
    if not isinstance(image, Tensor):
        return image
    if image.ndim not in (2, 3) or image.numel() == 0:
        raise ValueError(f"An image has shape (H, W), (C, H, W) or (H, W, C); got {tuple(image.shape)}.")
    image = image[None] if image.ndim == 2 else image
    if image.shape[0] not in (1, 3, 4) and image.shape[-1] in (1, 3, 4):
        image = image.movedim(-1, 0)
    if image.shape[0] not in (1, 3, 4):
        raise ValueError(
            f"An image has 1, 3 or 4 channels; got shape {tuple(image.shape)}. Of a volume, pass one slice at a time."
        )
    image = image[:3]
    return image if image.dtype == torch.uint8 else _window(image)


def _window(image: Tensor) -> Tensor:
    values = image.to(torch.float32)
    finite = values[values.isfinite()]
    if finite.numel() == 0:
        raise ValueError("The image has no finite pixel.")
    if image.is_floating_point() and finite.min() >= 0 and finite.max() <= 1:
        low, high = 0.0, 1.0
    else:
        low, high = np.percentile(finite.numpy(force=True), WINDOW_PERCENTILES)
        if low == high:  # nearly constant: the percentiles hide what little there is
            low, high = float(finite.min()), float(finite.max())
    scaled = (values - float(low)) * (255 / max(float(high) - float(low), 1e-6))
    return scaled.nan_to_num(0.0, 255.0, 0.0).clamp(0, 255).round().to(torch.uint8)


def _pad_to_square(image: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return F.pad(image, (left, side - width - left, top, side - height - top))


LumbarCLIPImageProcessor.register_for_auto_class()
# The package alone: if a checkpoint's copy of this file did so, the next checkpoint would run its code.
if not __name__.startswith("transformers_modules."):
    AutoImageProcessor.register(LumbarCLIPConfig, image_processor_classes={"torchvision": LumbarCLIPImageProcessor})

__all__ = ["LumbarCLIPImageProcessor"]
