"""Image processor of LumbarCLIP: any slice to a square, normalised, three-channel tensor."""

import base64
import math
import os
import queue
import threading
import time
from collections.abc import Callable
from io import BytesIO
from typing import Any
from urllib import request as web

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor
from transformers import AutoImageProcessor
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_processing_utils import BatchFeature
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ChannelDimension,
    PILImageResampling,
    SizeDict,
)
from transformers.processing_utils import ImagesKwargs, Unpack
from transformers.utils import logging

from .configuration_lumbarclip import LumbarCLIPConfig
from .geometry_lumbarclip import WithGeometry, padding

logger = logging.get_logger(__name__)

WINDOW_PERCENTILES = (0.5, 99.5)
EIGHT_BIT_STEP = 1 / 255  # of values in [0, 1]
NUM_CHANNELS = (1, 3, 4)
MAX_SIDE = 9_459  # pixels; the largest square that PIL opens without a warning
SMALLER = "Shrink it first: a slice has a few hundred pixels a side, an X-ray a few thousand."
# PIL would also try formats that start another program (EPS: Ghostscript) or open other files.
IMAGE_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000", "PPM")
MAX_FETCHED_BYTES = 256 * 2**20  # of a URL or a base64 text; as many as the largest 8-bit colour image has
MAX_FETCH_SECONDS = 60.0
UPRIGHT = 1  # the orientation in Exif
ROWS_AT_ONCE = 128  # of a long image, padded to its width


class LumbarCLIPImageProcessorKwargs(ImagesKwargs, total=False):
    """Arguments on top of those of every image processor.

    Args:
        do_pad_to_square: Whether to centre the image in a black square before resizing.
        do_window_eight_bit: Whether to window 8-bit images, too, between the percentiles of their slice, which evens
            out differences between scanners and exporters.
    """

    rescale_factor: float | int | None  # 1 is how one says "not at all"
    do_pad_to_square: bool
    do_window_eight_bit: bool


class LumbarCLIPImageProcessor(WithGeometry, TorchvisionBackend):
    """Window, pad to a square, resize, repeat grey to three channels, normalise.

    Takes PIL images of any mode, arrays and tensors, (H, W), (1, H, W), (3, H, W), (4, H, W) or channels last, of any
    size, and whatever `read_image` opens. 8-bit values are kept, unless `do_window_eight_bit`. Deeper integers, and
    floats beyond [0, 1], are windowed between the 0.5 and 99.5 percentiles of their slice, because a cast to 8 bits
    would turn a 12-bit slice white; floats in [0, 1] are scaled, with `do_rescale=False` and `rescale_factor=1` too.
    What is transparent becomes black, like the padding. Pass slices in a list or as (N, 1, H, W), not stacked.

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
        """Open files and turn images upright, at their depth.

        transformers would split an animation into images, and clip deep images. Takes one image, lists, or an array or
        tensor of four dimensions.

        Raises:
            ValueError: If `read_image` refuses one.
            TypeError: If something is not an image.
        """
        is_batch = isinstance(image_url_or_urls, np.ndarray | Tensor) and image_url_or_urls.ndim == 4
        return _for_each(self._fetch, list(image_url_or_urls) if is_batch else image_url_or_urls)

    def _fetch(self, image: Any) -> Any:
        return super().fetch_images(read_image(image))

    def _preprocess_image_like_inputs(self, images: Any, *args: Any, **kwargs: Any) -> BatchFeature:
        """Bring images to eight bits before transformers sees them: it would refuse grey arrays."""
        images = self.fetch_images(images)
        kwargs |= _rescaling(images, kwargs["do_rescale"], kwargs["rescale_factor"], kwargs["do_normalize"])
        data_format = kwargs.pop("input_data_format", None)
        images = _for_each(lambda image: to_eight_bits(image, data_format), images)
        return super()._preprocess_image_like_inputs(images, *args, input_data_format=ChannelDimension.FIRST, **kwargs)

    def _prepare_images_structure(self, images: Any, expected_ndims: int = 3) -> Any:
        images = super()._prepare_images_structure(images, expected_ndims)  # which calls `fetch_images`
        if len(images) == 0:
            raise ValueError("The list of images is empty. Pass an image, or a list of at least one.")
        return images

    def process_image(  # type: ignore[override]  # the rest of the arguments is passed on
        self,
        image: Any,
        *,
        do_convert_rgb: bool,
        do_window_eight_bit: bool,
        do_pad_to_square: bool,
        do_resize: bool,
        size: SizeDict,
        resample: Any,
        **kwargs: Any,
    ) -> Tensor:
        """Window, pad and resize one image, so that a batch does not hold them all at full size; uint8, (3, H, W)."""
        # A grey image gets its three channels last: they are equal, and earlier would take three times the memory.
        is_colour = image.mode != "L" if isinstance(image, Image.Image) else len(image) == 4
        pixels = super().process_image(image, do_convert_rgb=do_convert_rgb and is_colour, **kwargs)
        channels = 3 if do_convert_rgb and pixels.shape[0] == 1 else -1
        if do_window_eight_bit:
            pixels = _window(pixels.expand(channels, -1, -1))
        if do_pad_to_square and do_resize and size.height and size.width and pixels.device.type == "cpu":
            pixels = self._resize_padded(pixels, size, resample)
        else:
            if do_pad_to_square:
                pixels = F.pad(pixels, padding(pixels))
            if do_resize:
                pixels = self.resize(pixels[None], size=size, resample=resample)[0]
        return pixels.expand(channels, -1, -1).contiguous()

    def convert_to_rgb(self, image: Tensor, input_data_format: Any = None) -> Tensor:
        """Show an RGBA image (4, H, W), uint8, on black, the background of medical images and of the padding."""
        if len(image) != 4:
            return super().convert_to_rgb(image, input_data_format)
        return (image[:3] * (image[3:] / 255)).round().to(torch.uint8)

    def _resize_padded(self, image: Tensor, size: SizeDict, resample: Any) -> Tensor:
        """Pad to a square and resize by axis, which gives the values of the full square without its memory.

        On a CPU, torch resizes eight bits along the rows first and rounds in between, as is done here.
        """
        left, right, top, bottom = padding(image)
        blocks = [
            self.resize(
                F.pad(block, (left, right))[None], SizeDict(height=block.shape[-2], width=size.width), resample
            )[0]
            for block in image.split(ROWS_AT_ONCE, dim=-2)
        ]
        rows = F.pad(torch.cat(blocks, dim=-2), (0, 0, top, bottom))
        return self.resize(rows[None], SizeDict(height=size.height, width=size.width), resample)[0]

    def to_dict(self) -> dict[str, Any]:
        """List what is saved; not the class of a processor beside which it was loaded, whose code may stay behind."""
        auto_map = {"AutoImageProcessor": f"{__name__.rpartition('.')[2]}.{type(self).__name__}"}
        return {**super().to_dict(), "auto_map": auto_map}

    def _preprocess(self, images: list[Tensor], **kwargs: Any) -> BatchFeature:  # type: ignore[override]
        return super()._preprocess(images, **{**kwargs, "do_resize": False})  # `process_image` has resized them


def read_image(image: Any, timeout: float | None = None) -> Any:
    """Open an image upright, at any depth; transformers' `load_image` would clip 16 bits to white.

    `image` may be a file in one of `IMAGE_FORMATS`, a URL, base64 (a `data:` URL or bare), or an image; arrays and
    tensors are returned unchanged. A URL is given up after `timeout` seconds, by default `MAX_FETCH_SECONDS`.

    Raises:
        ValueError: If a string is none of these, more than `MAX_FETCHED_BYTES` would have to be read, or the image is
            too large, has several frames, or was opened from a file in another format.
        TimeoutError: If a URL takes too long.
        urllib.error.URLError: If a URL cannot be opened, or redirects elsewhere than to `http` or `https`.
        PIL.UnidentifiedImageError: If PIL cannot read the file.
    """
    if isinstance(image, str | os.PathLike):
        try:
            image = _open(image, MAX_FETCH_SECONDS if timeout is None else timeout)
        except Image.DecompressionBombError as error:
            raise ValueError(f"{error} {SMALLER}") from error
    if not isinstance(image, Image.Image):
        return image
    _check_pil_image(image)  # before it is decoded and its frames are lost
    image.load()
    turned = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT) != UPRIGHT
    return ImageOps.exif_transpose(image) if turned else image  # not called on upright images, which it would copy


def _open(image: str | os.PathLike[str], seconds: float) -> Image.Image:
    if isinstance(image, str) and image.startswith(("http://", "https://")):
        content = _fetch_within(image, seconds)
    elif isinstance(image, os.PathLike) or os.path.isfile(image):  # noqa: PTH113 - `Path` raises at a long text
        return Image.open(image, formats=IMAGE_FORMATS)
    else:
        _check_num_bytes(len(image) // 4 * 3, "A base64 image")
        try:  # base64, with line breaks or without, after a `data:` header or bare
            content = base64.b64decode("".join(image.rpartition(",")[2].split()), validate=True)
        except ValueError:
            content = b""
    try:
        return Image.open(BytesIO(content), formats=IMAGE_FORMATS)
    except UnidentifiedImageError:  # names the buffer
        raise ValueError(
            f"No image at {image[:100]!r}: it is not a file, an image URL or a base64 image. Readable formats: "
            f"{', '.join(IMAGE_FORMATS)}."
        ) from None


def _fetch_within(url: str, seconds: float) -> bytes:
    """Fetch a URL in a thread: no socket setting bounds the total time, from the name look-up to the last byte."""
    outcome: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()
    threading.Thread(target=_fetch, args=(url, seconds, outcome), daemon=True).start()
    try:
        fetched = outcome.get(timeout=seconds)
    except queue.Empty:
        fetched = TimeoutError()
    if isinstance(fetched, TimeoutError):
        raise TimeoutError(
            f"{url[:100]} did not arrive within {seconds:g} seconds. Download it first, or pass a longer timeout."
        )
    if isinstance(fetched, Exception):
        raise fetched
    return fetched


def _fetch(url: str, seconds: float, outcome: "queue.SimpleQueue[bytes | Exception]") -> None:
    end = time.monotonic() + seconds
    content = BytesIO()
    try:
        with _opener().open(url, timeout=seconds) as answer:
            _check_num_bytes(answer.length or 0, url[:100])  # as announced
            while part := answer.read1(2**16):
                content.write(part)
                _check_num_bytes(content.tell(), url[:100])
                if time.monotonic() > end:
                    raise TimeoutError
    except Exception as error:
        outcome.put(error)
    else:
        outcome.put(content.getvalue())


def _opener() -> web.OpenerDirector:
    """Make an opener for `http` and `https` only: the default one also follows redirects to `ftp`."""
    opener = web.OpenerDirector()
    for handler in (
        *(web.ProxyHandler, web.UnknownHandler, web.HTTPHandler, web.HTTPSHandler),
        *(web.HTTPDefaultErrorHandler, web.HTTPErrorProcessor, _UnreadRedirects),
    ):
        opener.add_handler(handler())
    return opener


class _UnreadRedirects(web.HTTPRedirectHandler):
    """Follows redirects without reading their bodies, which may be of any size."""

    def redirect_request(self, req: Any, fp: Any, *details: Any) -> Any:
        fp.close()
        return super().redirect_request(req, fp, *details)


def _check_num_bytes(num_bytes: int, what: str) -> None:
    if num_bytes > MAX_FETCHED_BYTES:
        raise ValueError(f"{what} is larger than {MAX_FETCHED_BYTES / 2**20:g} MiB. {SMALLER}")


def to_eight_bits(image: Any, input_data_format: str | None = None) -> Any:
    """Window a deep or float image, PIL, array or tensor, grey or colour, to 8 bits.

    `input_data_format` says that the channels of an array are first or last (`channels_first`, `channels_last`). None:
    they are where its shape has 1, 3 or 4.

    Returns:
        A uint8 tensor with channels first, (1, H, W), (3, H, W), or (4, H, W) with transparency; 8-bit PIL images as
        grey or RGB, what is transparent in black; other objects unchanged.

    Raises:
        ValueError: If the image is empty, has a side beyond `MAX_SIDE`, several frames, too many dimensions, channels
            that may be first or last, or planes that may be slices: they differ, and are deeper than 8 bits.

    Example:
        >>> to_eight_bits(np.array([[0, 2048, 4095]], dtype=np.uint16))
        tensor([[[  0, 128, 255]]], dtype=torch.uint8)
    """
    if isinstance(image, Image.Image):
        _check_pil_image(image)
        if not image.mode.startswith(("I", "F")):
            return _opaque(image)
        if "transparency" in image.info and (np.asarray(image) == image.info["transparency"]).any():
            raise ValueError(
                f"The image has mode {image.mode!r} and a transparent value, {image.info['transparency']}. To keep the "
                "pixels of this value, delete image.info['transparency']."
            )
    image = _as_tensor(image)
    if not isinstance(image, Tensor):
        return image
    if image.ndim not in (2, 3) or image.numel() == 0:
        raise ValueError(f"An image has shape (H, W), (C, H, W) or (H, W, C); got {tuple(image.shape)}.")
    image = image[None] if image.ndim == 2 else _channels_first(image, input_data_format)
    _check_size(image.shape[-1], image.shape[-2])
    return image if image.dtype == torch.uint8 else _window(image)


def _as_tensor(image: Any) -> Any:
    """Make a tensor of an array, of any byte order, or of a PIL image; return other objects unchanged."""
    if isinstance(image, Image.Image):
        image = np.asarray(image)
    if isinstance(image, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(image.astype(image.dtype.newbyteorder("="))))
    return image


def _opaque(image: Image.Image) -> Image.Image:
    """Make an 8-bit PIL image grey or RGB, and what is transparent in it black."""
    if not image.has_transparency_data:
        return image if image.mode in ("L", "RGB") else image.convert("RGB")
    image = image.convert(image.mode.upper()) if image.mode.endswith("a") else image  # premultiplied
    return Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image.convert("RGBA")).convert("RGB")


def _channels_first(image: Tensor, input_data_format: str | None) -> Tensor:
    """Move the channels of an array with three dimensions to the front, unless its planes may be slices."""
    first, last = (image.shape[axis] in NUM_CHANNELS for axis in (0, -1))
    if input_data_format is None and first and last:
        raise ValueError(
            f"An array of shape {tuple(image.shape)} may have its channels first or last. Pass "
            "input_data_format='channels_first' or 'channels_last', or a grey image as (H, W)."
        )
    is_last = last if input_data_format is None else ChannelDimension(input_data_format) == ChannelDimension.LAST
    planes = image.movedim(-1, 0) if is_last else image
    if len(planes) not in NUM_CHANNELS:
        raise ValueError(
            f"An image has 1, 3 or 4 channels; got shape {tuple(image.shape)}. Pass a volume one slice at a time."
        )
    if input_data_format is None and not _is_grey(planes):
        axis = -1 if is_last else 0
        slices = f"For {len(planes)} slices, pass a list of arrays (H, W), such as list(np.moveaxis(array, {axis}, 0))"
        if planes.dtype != torch.uint8 and not _is_unit(planes):
            raise ValueError(
                f"An array of shape {tuple(image.shape)} and type {image.dtype} may be a stack of slices: colours are "
                f"of 8 bits, or floats in [0, 1]. {slices}; for one colour image, input_data_format="
                f"'{ChannelDimension.LAST.value if is_last else ChannelDimension.FIRST.value}'."
            )
        logger.warning_once(f"An array of shape {tuple(image.shape)} was taken for one colour image. {slices}.")
    return planes


def _is_grey(planes: Tensor) -> bool:
    """Whether all planes of an image show the same; the fourth, of transparency, may be opaque."""
    opaque = 255 if planes.dtype == torch.uint8 else 1
    is_opaque = len(planes) < 4 or bool((planes[3] == opaque).all())
    return is_opaque and all(torch.equal(planes[0], plane) for plane in planes[1:3])


def _is_unit(image: Any) -> bool:
    """Whether an image holds floats in [0, 1], up to half a step of 8 bits."""
    values = _as_tensor(image)
    if not isinstance(values, Tensor) or not values.is_floating_point():
        return False
    finite = values[values.isfinite()]
    margin = EIGHT_BIT_STEP / 2
    return finite.numel() > 0 and bool(finite.min() >= -margin and finite.max() <= 1 + margin)


def _rescaling(images: Any, do_rescale: bool, rescale_factor: float, do_normalize: bool) -> dict[str, Any]:
    """Tell how the 8 bits of images are rescaled whose values the caller says to be in [0, 1] already.

    Raises:
        ValueError: If they are not, and would be normalised or are not of 8 bits either; or if the factor is for more.
    """
    listed: list[Any] = []
    _for_each(listed.append, images)
    if do_rescale and rescale_factor != 1:
        is_for_eight_bits = rescale_factor is None or math.isclose(rescale_factor, EIGHT_BIT_STEP, rel_tol=0.01)
        if rescale_factor == 0 or (not is_for_eight_bits and any(map(_is_deep, listed))):
            raise ValueError(f"rescale_factor={rescale_factor:g}: images are brought to 8 bits first. Leave it out.")
        return {}
    setting = "rescale_factor=1" if do_rescale else "do_rescale=False"
    are_unit = [_is_unit(image) for image in listed]
    if all(are_unit):
        return {"do_rescale": True, "rescale_factor": EIGHT_BIT_STEP}
    for index, image in enumerate(listed):
        values = _as_tensor(image)
        if not are_unit[index] and (do_normalize or any(are_unit) or getattr(values, "dtype", None) != torch.uint8):
            raise ValueError(
                f"{setting} is for floats in [0, 1]; image {index} of {len(listed)} has {values.dtype} values from "
                f"{values.double().min():g} to {values.double().max():g}. Leave it out: images of any depth are scaled."
            )
    return {}


def _is_deep(image: Any) -> bool:
    """Whether an image has other values than 8 bits."""
    if isinstance(image, Image.Image):
        return image.mode.startswith(("I", "F"))
    return getattr(_as_tensor(image), "dtype", torch.uint8) != torch.uint8


def _for_each(function: Callable[[Any], Any], images: Any) -> Any:
    """Apply a function to an image, or to each in lists of any depth."""
    if isinstance(images, list | tuple):
        return [_for_each(function, image) for image in images]
    return function(images)


def _check_pil_image(image: Image.Image) -> None:
    if isinstance(image, ImageFile.ImageFile) and image.tile and image.format not in (*IMAGE_FORMATS, "MPO"):
        raise ValueError(
            f"The image is an undecoded {image.format} file; only {', '.join(IMAGE_FORMATS)} are decoded. If you trust "
            "it, call `image.load()` first."
        )
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
    if _is_unit(image):
        low, high = 0.0, 1.0
    else:
        low, high = np.percentile(finite.numpy(force=True), WINDOW_PERCENTILES)
        if low == high:  # nearly constant: the percentiles hide the few other values
            low, high = float(finite.min()), float(finite.max())
    scaled = (values - float(low)) * (255 / max(float(high) - float(low), 1e-6))
    return scaled.nan_to_num(0.0, 255.0, 0.0).clamp(0, 255).round().to(torch.uint8)


LumbarCLIPImageProcessor.register_for_auto_class()
# Only in the package: if a checkpoint's copy registered, the next checkpoint would run its code.
if not __name__.startswith("transformers_modules."):
    AutoImageProcessor.register(LumbarCLIPConfig, image_processor_classes={"torchvision": LumbarCLIPImageProcessor})

__all__ = ["LumbarCLIPImageProcessor"]
