"""Image processor of LumbarCLIP: any slice to a square, normalised, three-channel tensor."""

import base64
import os
from io import BytesIO
from typing import Any
from urllib.request import urlopen

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from transformers import AutoImageProcessor
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling, SizeDict
from transformers.processing_utils import ImagesKwargs, Unpack
from transformers.utils import TensorType

from .configuration_lumbarclip import LumbarCLIPConfig

WINDOW_PERCENTILES = (0.5, 99.5)
# The largest padded square that PIL opens without a warning: 1 GB at 8 bits, 3 GB beyond.
MAX_SIDE = 9_459
SMALLER = "Shrink it first: a slice has a few hundred pixels a side, an X-ray a few thousand."


class LumbarCLIPImageProcessorKwargs(ImagesKwargs, total=False):
    """Arguments on top of those of every image processor.

    Args:
        do_pad_to_square: Whether to centre the image in a black square before resizing.
        do_window_eight_bit: Whether to window 8-bit images, too, between the percentiles of their slice, which evens
            out differences between scanners and exporters.
    """

    do_pad_to_square: bool
    do_window_eight_bit: bool


class LumbarCLIPImageProcessor(TorchvisionBackend):
    """Window, pad to a square, resize, repeat grey to three channels, normalise.

    Takes PIL images of any mode, arrays and tensors, (H, W), (1, H, W), (3, H, W) or channels last, of any size, and
    whatever `read_image` opens. 8-bit values are kept, unless `do_window_eight_bit`. Deeper integers, and floats beyond
    [0, 1], are windowed between the 0.5 and 99.5 percentiles of their slice, because a cast to 8 bits would turn a
    12-bit slice white; floats in [0, 1] are scaled.

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

    def fetch_images(self, image_url_or_urls: Any) -> Any:
        """Open files, turn images upright, and convert them to eight bits.

        transformers would split an animation into images, refuse grey arrays, and clip deep images. Takes
        one image, lists, or an array or tensor of four dimensions.

        Raises:
            ValueError: If `read_image` or `to_eight_bits` refuses one.
            TypeError: If something is not an image.
        """
        is_batch = isinstance(image_url_or_urls, np.ndarray | Tensor) and image_url_or_urls.ndim == 4
        return self._fetch(list(image_url_or_urls) if is_batch else image_url_or_urls)

    def _fetch(self, images: Any) -> Any:
        if isinstance(images, list | tuple):
            return [self._fetch(image) for image in images]
        return super().fetch_images(to_eight_bits(read_image(images)))

    def _prepare_images_structure(self, images: Any, expected_ndims: int = 3) -> Any:
        images = super()._prepare_images_structure(images, expected_ndims)  # which calls `fetch_images`
        if len(images) == 0:
            raise ValueError("The list of images is empty. Pass an image, or a list of at least one.")
        return images

    def unpad_maps(self, maps: Tensor, image_size: tuple[int, int]) -> Tensor:
        """Undo padding and resizing, so that maps fit the original image.

        The maps (..., h, w) cover the square that the model saw, such as those of `model.grad_cam(...)`; the size is
        the height and width of the original image, upright. Returns (..., height, width), bilinear between cells.

        Example:
            >>> LumbarCLIPImageProcessor().unpad_maps(torch.tensor([[0.0, 1.0], [2.0, 3.0]]), (2, 4))
            tensor([[0.5000, 0.7500, 1.2500, 1.5000],
                    [1.5000, 1.7500, 2.2500, 2.5000]])
        """
        height, width = image_size
        side_rows, side_columns = (max(image_size), max(image_size)) if self.do_pad_to_square else image_size
        top, left = (side_rows - height) // 2, (side_columns - width) // 2  # as `_pad_to_square` does
        # Axis by axis, without the padding: the full square of a long image may not fit in memory.
        rows = _interpolation(maps.shape[-2], side_rows).to(maps)[top : top + height]
        columns = _interpolation(maps.shape[-1], side_columns).to(maps)[left : left + width]
        return rows @ maps @ columns.T

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


def read_image(image: Any, timeout: float | None = None) -> Any:
    """Open an image upright, at any depth; transformers' `load_image` would clip 16 bits to white.

    `image` may be a file, a URL, base64 (a `data:` URL or bare), or an image; arrays and tensors are returned
    unchanged. A URL times out after `timeout` seconds; None: never.

    Raises:
        ValueError: If a string is none of these, or the image is too large or has several frames.
        PIL.UnidentifiedImageError: If PIL cannot read the file.
    """
    if isinstance(image, str | os.PathLike):
        try:
            image = _open(image, timeout)
        except Image.DecompressionBombError as error:
            raise ValueError(f"{error} {SMALLER}") from error
    if not isinstance(image, Image.Image):
        return image
    _check_pil_image(image)  # before it is decoded and its frames are lost
    return ImageOps.exif_transpose(image)


def _open(image: str | os.PathLike[str], timeout: float | None) -> Image.Image:
    if isinstance(image, str) and image.startswith(("http://", "https://")):
        with urlopen(image, timeout=timeout) as answer:
            content = answer.read()
    elif isinstance(image, os.PathLike) or os.path.isfile(image):  # noqa: PTH113 - `Path` raises at a long text
        return Image.open(image)
    else:
        try:  # base64, with line breaks or without, after a `data:` header or bare
            content = base64.b64decode("".join(image.rpartition(",")[2].split()), validate=True)
        except ValueError:
            content = b""
    try:
        return Image.open(BytesIO(content))
    except UnidentifiedImageError:  # names the buffer
        raise ValueError(f"No image at {image[:100]!r}: it is not a file, an image URL or a base64 image.") from None


def to_eight_bits(image: Any) -> Any:
    """Window a deep or float image, PIL, array or tensor, grey or colour, channels first or last, to 8 bits.

    Returns:
        A uint8 tensor with channels first, (1, H, W) or (3, H, W); 8-bit PIL images and other objects unchanged.

    Raises:
        ValueError: If the image is empty, has a side beyond `MAX_SIDE`, several frames, or too many dimensions.

    Example:
        >>> to_eight_bits(np.array([[0, 2048, 4095]], dtype=np.uint16))
        tensor([[[  0, 128, 255]]], dtype=torch.uint8)
    """
    if isinstance(image, Image.Image):
        _check_pil_image(image)
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
            f"An image has 1, 3 or 4 channels; got shape {tuple(image.shape)}. Pass a volume one slice at a time."
        )
    _check_size(image.shape[-1], image.shape[-2])
    image = image[:3]
    return image if image.dtype == torch.uint8 else _window(image)


def _check_pil_image(image: Image.Image) -> None:
    _check_size(image.width, image.height)
    # Further frames of MPO, the JPEG of phones, are a depth map or a smaller copy.
    num_frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if num_frames > 1:
        named = f"The image {getattr(image, 'filename', '')}".rstrip()
        raise ValueError(
            f"{named} has {num_frames} frames: pass one of them, for example with `image.seek(0)` and `image.copy()`."
        )


def _check_size(width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE:
        raise ValueError(f"The image has {width} x {height} pixels; at most {MAX_SIDE:,} per side. {SMALLER}")


def _window(image: Tensor) -> Tensor:
    values = image.to(torch.float32)
    finite = values[values.isfinite()]
    if finite.numel() == 0:
        raise ValueError("The image has no finite pixel.")
    if image.is_floating_point() and finite.min() >= 0 and finite.max() <= 1:
        low, high = 0.0, 1.0
    else:
        low, high = np.percentile(finite.numpy(force=True), WINDOW_PERCENTILES)
        if low == high:  # nearly constant: the percentiles hide the few other values
            low, high = float(finite.min()), float(finite.max())
    scaled = (values - float(low)) * (255 / max(float(high) - float(low), 1e-6))
    return scaled.nan_to_num(0.0, 255.0, 0.0).clamp(0, 255).round().to(torch.uint8)


def _pad_to_square(image: Tensor) -> Tensor:
    height, width = image.shape[-2:]
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return F.pad(image, (left, side - width - left, top, side - height - top))


def _interpolation(size: int, new_size: int) -> Tensor:
    """Return the matrix of linear interpolation from `size` to `new_size` values."""
    return F.interpolate(torch.eye(size)[None], size=new_size, mode="linear")[0].T


LumbarCLIPImageProcessor.register_for_auto_class()
# Only in the package: if a checkpoint's copy registered, the next checkpoint would run its code.
if not __name__.startswith("transformers_modules."):
    AutoImageProcessor.register(LumbarCLIPConfig, image_processor_classes={"torchvision": LumbarCLIPImageProcessor})

__all__ = ["LumbarCLIPImageProcessor"]
