"""Any image in, the same tensor out: sizes, depths, channels, padding, values by hand."""

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_lumbarclip import LumbarCLIPImageProcessor
from modeling_lumbarclip.image_processing_lumbarclip import to_eight_bits

GREY = np.random.default_rng(0).integers(0, 256, size=(20, 30), dtype=np.uint8)


def process(image, **options):
    processor = LumbarCLIPImageProcessor(size={"height": 32, "width": 32}, **options)
    return processor(image, return_tensors="pt").pixel_values


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(GREY),
        Image.fromarray(GREY).convert("RGB"),
        Image.fromarray(GREY).convert("RGBA"),
        Image.fromarray(GREY).convert("LA"),
        GREY,
        GREY[None],
        GREY[..., None],
        np.repeat(GREY[..., None], 3, axis=2),
        np.repeat(GREY[None], 3, axis=0),
        torch.from_numpy(GREY),
        torch.from_numpy(GREY)[None],
        GREY.astype(np.float32) / 255,
        [Image.fromarray(GREY)],
        [GREY],
        GREY[None, None],
    ],
)
def test_every_form_of_one_image_is_the_same_tensor(image):
    expected = process(Image.fromarray(GREY))
    assert expected.shape == (1, 3, 32, 32)
    torch.testing.assert_close(process(image), expected)


def test_values_by_hand():
    pixels = process(np.full((32, 32), 51, dtype=np.uint8))  # 51 / 255 = 0.2
    expected = (0.2 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(pixels[0, :, 5, 5], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(16, 64), (64, 16), (15, 64)])
def test_padding_centres_the_image_and_keeps_its_proportions(shape):
    white = process(np.full(shape, 255, dtype=np.uint8), do_normalize=False)[0, 0]
    assert white.sum() == pytest.approx(32 * 32 * min(shape) / max(shape), rel=0.02)  # the share of the square
    profile = white.sum(dim=0 if shape[0] > shape[1] else 1)
    assert profile[0] == profile[-1] == 0
    centre = (profile * torch.arange(32)).sum() / profile.sum()
    assert abs(centre - 15.5) < 0.3


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32, ">u2", np.float32, np.float64])
def test_deep_images_are_windowed_and_never_saturate(dtype):
    deep = (GREY.astype(np.float64) * 16).astype(dtype)  # 12 bits
    eight = to_eight_bits(deep)
    assert eight.dtype == torch.uint8
    assert (eight == 255).float().mean() < 0.02 and (eight == 0).float().mean() < 0.02
    assert len(eight.unique()) > 200
    torch.testing.assert_close(eight[0].float(), torch.from_numpy(GREY).float(), atol=2.0, rtol=0)


def test_sixteen_bit_pil_images_are_windowed():
    deep = Image.fromarray(GREY.astype(np.uint16) * 256)
    assert deep.mode == "I;16"
    assert len(process(deep).unique()) > 500
    assert process(deep).mean() < 1.5  # not white


def test_outliers_do_not_darken_the_slice():
    deep = GREY.astype(np.uint16)
    deep[0, 0] = 65535
    assert to_eight_bits(deep).float().mean() > 100


@pytest.mark.parametrize("value", [0, 7, 4095])
def test_constant_slices_are_finite(value):
    assert process(np.full((8, 8), value, dtype=np.uint16)).isfinite().all()


def test_nan_becomes_black():
    image = GREY.astype(np.float32) * 16
    image[3, 3] = np.nan
    assert to_eight_bits(image)[0, 3, 3] == 0


@pytest.mark.parametrize(
    "image, message",
    [
        (np.zeros((0, 5)), r"got \(0, 5\)"),
        (np.zeros((2, 2, 2, 2, 2)), "got"),
        (np.zeros((12, 40, 40)), "one slice at a time"),
        (np.full((4, 4), np.nan), "no finite pixel"),
    ],
)
def test_what_is_no_slice_is_refused(image, message):
    with pytest.raises(ValueError, match=message):
        process(image)


def test_settings_travel(tmp_path):
    processor = LumbarCLIPImageProcessor(size={"height": 48, "width": 48}, do_pad_to_square=False)
    processor.save_pretrained(tmp_path)
    loaded = LumbarCLIPImageProcessor.from_pretrained(tmp_path)
    assert loaded.size["height"] == 48 and loaded.do_pad_to_square is False
    torch.testing.assert_close(
        loaded(GREY, return_tensors="pt").pixel_values, processor(GREY, return_tensors="pt").pixel_values
    )
