"""Any image in, the same tensor out: sizes, depths, channels, padding, values by hand."""

import base64
import struct
import warnings
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError

from modeling_lumbarclip import LumbarCLIPImageProcessor, image_processing_lumbarclip
from modeling_lumbarclip.image_processing_lumbarclip import read_image, to_eight_bits

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


def gif(num_frames):
    frames = [Image.fromarray(np.full((8, 8), 40 * index, dtype=np.uint8)) for index in range(num_frames)]
    buffer = BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return Image.open(buffer)


def test_of_several_frames_none_is_taken_for_the_image():
    assert process(gif(1)).shape == (1, 3, 32, 32)
    for read in (to_eight_bits, read_image):
        with pytest.raises(ValueError, match="has 3 frames"):
            read(gif(3))
    animated = gif(3)
    animated.seek(1)
    chosen = process(animated.copy())
    torch.testing.assert_close(chosen, process(np.full((8, 8), 40, dtype=np.uint8)))


@pytest.mark.parametrize("as_given", [str, Path, lambda path: [str(path)], lambda path: [[path]]])
def test_a_file_is_the_image_in_it_and_no_animation(as_given, tmp_path):
    deep = Image.fromarray(GREY.astype(np.uint16) * 256)
    deep.save(tmp_path / "deep.tif")
    torch.testing.assert_close(process(as_given(tmp_path / "deep.tif")), process(deep))
    (tmp_path / "moving.gif").write_bytes(gif(3).fp.getvalue())
    with pytest.raises(ValueError, match="moving.gif has 3 frames"):
        process(as_given(tmp_path / "moving.gif"))
    with pytest.raises((ValueError, FileNotFoundError), match="missing.png"):
        process(as_given(tmp_path / "missing.png"))


def test_files_and_images_mix_in_a_list(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "slice.png")
    pixels = process([GREY, tmp_path / "slice.png", f"{tmp_path}/slice.png", Image.fromarray(GREY)])
    torch.testing.assert_close(pixels, process([GREY] * 4))


@pytest.mark.parametrize("images", [[], (), [[]], np.zeros((0, 3, 8, 8))])
def test_no_image_at_all_is_refused(images):
    with pytest.raises(ValueError, match="list of images is empty"):
        process(images)


@pytest.mark.parametrize("image", [3, [None], [np.zeros((2, 3, 8, 8), dtype=np.uint8)]])
def test_what_is_no_image_is_refused(image):
    with pytest.raises((TypeError, ValueError), match="is supported|An image has shape"):
        process(image)


def test_of_a_phone_photograph_the_first_frame_is_the_image(tmp_path):
    photograph, small_copy = (Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8)) for value in (200, 40))
    photograph.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[small_copy])
    opened = Image.open(tmp_path / "phone.jpg")
    assert (opened.format, opened.n_frames) == ("MPO", 2)
    for image in (opened, read_image(tmp_path / "phone.jpg")):
        torch.testing.assert_close(process(image), process(photograph))


def test_one_pixel_and_the_largest_side_and_one_more(tmp_path, monkeypatch):
    assert torch.equal(process(GREY[:1, :1]), process(np.full((32, 32), GREY[0, 0])))
    monkeypatch.setattr(image_processing_lumbarclip, "MAX_SIDE", 100)
    assert process(np.zeros((100, 1), dtype=np.uint8)).shape == (1, 3, 32, 32)
    for huge in (np.zeros((101, 1), dtype=np.uint8), np.zeros((1, 101), dtype=np.uint16), Image.new("L", (1, 101))):
        with pytest.raises(ValueError, match="at most 100 per side. Shrink it"):
            process(huge)


@pytest.mark.parametrize("side", [9_500, 20_000])  # below and above where PIL itself refuses
def test_a_huge_file_is_refused_before_it_is_decoded(side, tmp_path, monkeypatch):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    path = tmp_path / "huge.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\x00")) + chunk(b"IEND", b""))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(ValueError, match="Shrink it first"):
            read_image(path)


def test_an_image_is_read_deep_and_upright_from_wherever_it_is(tmp_path):
    deep = Image.fromarray(GREY.astype(np.uint16) * 256)
    path = tmp_path / "slice.png"
    deep.save(path)
    encoded = base64.b64encode(path.read_bytes()).decode()
    wrapped = base64.encodebytes(path.read_bytes()).decode()
    assert "\n" in wrapped.strip()
    for given in (path, str(path), encoded, wrapped, f"data:image/png;base64,{encoded}", deep):
        assert np.array_equal(np.asarray(read_image(given)), GREY.astype(np.uint16) * 256)
    assert read_image(GREY) is GREY
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera held sideways
    Image.fromarray(GREY).save(tmp_path / "photo.png", exif=exif)
    assert np.array_equal(np.asarray(read_image(tmp_path / "photo.png")), np.rot90(GREY, -1))
    turned = process(np.rot90(GREY, -1).copy())
    for given in (tmp_path / "photo.png", Image.open(tmp_path / "photo.png")):
        torch.testing.assert_close(process(given), turned)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(UnidentifiedImageError, match="text.png"):
        read_image(tmp_path / "text.png")


@pytest.mark.parametrize("text", ["missing.png", "scans/T2", "IM000001", "data:image/png;base64,IM000001", "é.png", ""])
def test_a_text_that_stands_for_no_image_is_named(text):
    with pytest.raises(ValueError, match=rf"^No image at '{text}': it is not a file, an image URL"):
        read_image(text)


def test_a_url_is_the_image_behind_it_or_named(monkeypatch):
    picture = BytesIO()
    Image.fromarray(GREY).save(picture, "PNG")
    contents = iter([picture.getvalue(), b"<html>"])
    monkeypatch.setattr(image_processing_lumbarclip, "urlopen", lambda url, timeout: BytesIO(next(contents)))
    assert np.array_equal(np.asarray(read_image("https://example.org/a.png")), GREY)
    with pytest.raises(ValueError, match="No image at 'https://example.org/a.png'"):
        read_image("https://example.org/a.png")


@pytest.mark.parametrize(
    "images, count", [([GREY] * 3, 3), ([[GREY, GREY], [GREY]], 3), (np.stack([GREY[None]] * 2), 2)]
)
def test_each_image_of_a_list_is_prepared_once(images, count, monkeypatch):
    prepared = []
    monkeypatch.setattr(
        image_processing_lumbarclip, "to_eight_bits", lambda image: prepared.append(image) or to_eight_bits(image)
    )
    torch.testing.assert_close(process(images), process([GREY])[[0] * count])
    assert len(prepared) == count + 1


@pytest.mark.parametrize("height, width", [(60, 100), (100, 60), (61, 100), (80, 80), (1, 1)])
def test_maps_at_the_size_of_the_square_come_back_pixel_by_pixel(height, width):
    """Exactly what was drawn, where the processor had nothing to resize."""
    image = np.random.default_rng(0).integers(0, 256, size=(height, width), dtype=np.uint8)
    side = max(height, width)
    processor = LumbarCLIPImageProcessor(size={"height": side, "width": side}, do_rescale=False, do_normalize=False)
    seen = processor(image, return_tensors="pt").pixel_values[0, 0].float()
    assert torch.equal(processor.unpad_maps(seen, (height, width)), torch.from_numpy(image).float())


@pytest.mark.parametrize("height, width", [(60, 100), (100, 60)])
def test_a_rectangle_comes_back_where_it_was_drawn(height, width):
    image = np.zeros((height, width), dtype=np.uint8)
    image[10:30, 24:50] = 255
    processor = LumbarCLIPImageProcessor(size={"height": 50, "width": 50}, do_normalize=False)
    seen = processor(image, return_tensors="pt").pixel_values[0, :2]
    over_image = processor.unpad_maps(seen, (height, width))
    assert over_image.shape == (2, height, width)
    assert np.array_equal(over_image[1].numpy() > 0.4, image > 0)


@pytest.mark.parametrize("pad", [True, False])
def test_maps_are_interpolated_as_torch_does(pad):
    maps = torch.rand(2, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    processor = LumbarCLIPImageProcessor(do_pad_to_square=pad)
    square = F.interpolate(maps, size=(90, 90) if pad else (41, 90), mode="bilinear")
    expected = square[:, :, 24 : 24 + 41] if pad else square  # (90 - 41) // 2 rows of padding above
    torch.testing.assert_close(processor.unpad_maps(maps, (41, 90)), expected)


def test_maps_of_a_long_image_do_not_fill_its_square():
    """The square of 20,000 pixels would take 1.6 GB."""
    assert LumbarCLIPImageProcessor().unpad_maps(torch.ones(7, 7), (3, 20_000)).shape == (3, 20_000)
