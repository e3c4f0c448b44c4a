"""Any image in, the same tensor out: sizes, depths, channels, padding, values by hand."""

import base64
import gzip
import os
import re
import struct
import threading
import warnings
import zlib
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import EpsImagePlugin, Image, UnidentifiedImageError
from transformers.image_utils import SizeDict

from data_scripts.imaging import images
from modeling_lumbarclip import LumbarCLIPImageProcessor, image_processing_lumbarclip
from modeling_lumbarclip.geometry_lumbarclip import padding
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


class Web(BaseHTTPRequestHandler):
    """Answers by the path of the URL, as a friendly server or a hostile one."""

    picture = BytesIO()
    Image.fromarray(GREY).save(picture, "PNG")

    def do_GET(self):
        kind = self.path.strip("/")
        with suppress(ConnectionError):
            if kind.startswith("to:"):
                self.answer(b"moved", 302, Location=kind[3:])
            elif kind == "long-way":  # the answer that redirects has no end
                self.answer(b"", 302, Location="/picture", endless=True)
            elif kind == "slow-header":
                for letter in b"HTTP/1.0 200 OK\r\nX-Long: " + b"x" * 1000:
                    self.wfile.write(bytes([letter]))
                    self.server.over.wait(0.05)
            elif kind == "slow":
                self.answer(self.picture.getvalue(), pause=0.005)
            elif kind == "says-huge":
                self.answer(self.picture.getvalue(), **{"Content-Length": "1400000000"})
            elif kind == "says-small":
                self.answer(self.picture.getvalue(), **{"Content-Length": "20"})
            elif kind == "endless":
                self.answer(b"", endless=True)
            elif kind == "packed":
                self.answer(gzip.compress(bytes(10**7)), **{"Content-Encoding": "gzip"})
            elif kind == "page":
                self.answer(b"<html>")
            else:
                self.answer(self.picture.getvalue())

    def answer(self, content, status=200, pause=0.0, endless=False, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        step = 1 if pause else max(1, len(content))
        for start in range(0, len(content), step):
            self.wfile.write(content[start : start + step])
            self.server.over.wait(pause)
        while endless and not self.server.over.is_set():
            self.wfile.write(bytes(2**16))

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def web():
    with ThreadingHTTPServer(("127.0.0.1", 0), Web) as server:
        server.daemon_threads, server.over = True, threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.over.set()
        server.shutdown()


@pytest.mark.parametrize("path", ["picture", "to:/picture", "long-way"])
def test_a_url_is_the_image_behind_it(web, path):
    assert np.array_equal(np.asarray(read_image(f"{web}/{path}", timeout=30)), GREY)


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("page", ValueError, "No image at 'http://.*/page'"),
        ("packed", ValueError, "No image at"),
        ("says-huge", ValueError, "says-huge is larger than 0.5 MiB. Shrink it"),
        ("endless", ValueError, "endless is larger than 0.5 MiB. Shrink it"),
        ("slow", TimeoutError, "slow did not arrive within 0.5 seconds"),
        ("slow-header", TimeoutError, "slow-header did not arrive within 0.5 seconds"),
        ("to:file:///etc/hostname", OSError, "not allowed"),
        ("to:ftp://127.0.0.1/a.png", OSError, "unknown url type: ftp"),
        ("to:data:text/plain,x", OSError, "not allowed"),
        ("to:/to:/to:/", OSError, "redirect"),
    ],
)
def test_a_server_bounds_neither_memory_nor_time_and_leads_to_no_file(web, path, error, message, monkeypatch):
    monkeypatch.setattr(image_processing_lumbarclip, "MAX_FETCHED_BYTES", 2**19)
    timeout = 0.5 if error is TimeoutError else 30
    with pytest.raises(error, match=message):
        read_image(f"{web}/{path}", timeout=timeout)


def test_less_than_the_whole_image_is_no_image(web):
    with pytest.raises((ValueError, OSError)):
        np.asarray(read_image(f"{web}/says-small"))


def test_a_url_has_a_time_limit_unless_a_longer_one_is_given(web, monkeypatch):
    monkeypatch.setattr(image_processing_lumbarclip, "MAX_FETCH_SECONDS", 0.5)
    with pytest.raises(TimeoutError, match="within 0.5 seconds. Download it first, or pass a longer timeout"):
        read_image(f"{web}/slow")
    assert np.array_equal(np.asarray(read_image(f"{web}/slow", timeout=600)), GREY)


def test_a_base64_text_has_a_limit(monkeypatch):
    monkeypatch.setattr(image_processing_lumbarclip, "MAX_FETCHED_BYTES", 2**19)
    with pytest.raises(ValueError, match="base64 image is larger than 0.5 MiB"):
        read_image("A" * 2**20)


def test_the_formats_are_those_of_a_build():
    assert image_processing_lumbarclip.IMAGE_FORMATS == images.IMAGE_FORMATS


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """A `gs` that leaves a mark if it is started."""
    mark, program = tmp_path / "mark", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {mark}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # looked up once a process
    yield program
    assert not mark.exists()


def test_no_image_starts_ghostscript(ghostscript, tmp_path):
    path = tmp_path / "eps_named.png"
    Image.fromarray(GREY).convert("RGB").save(path, "EPS")
    encoded = base64.b64encode(path.read_bytes()).decode()
    for given in (path, str(path), [path], encoded, f"data:image/png;base64,{encoded}"):
        with pytest.raises((ValueError, UnidentifiedImageError), match=r"cannot identify|No image at"):
            process(given)
    with Image.open(path) as opened, pytest.raises(ValueError, match="an undecoded EPS file"):
        process(opened)


def test_a_long_image_is_resized_as_its_square_would_be():
    """The square of 9,459 pixels would take 268 MB."""
    generator = np.random.default_rng(0)
    for shape in ((700, 31), (31, 700), (300, 299), (1, 500), (33, 33)):
        image = torch.from_numpy(generator.integers(0, 256, (3, *shape), dtype=np.uint8))
        for resample in (0, 2, 3):
            processor = LumbarCLIPImageProcessor(resample=resample, do_rescale=False, do_normalize=False)
            square = F.pad(image, padding(image))
            expected = processor.resize(square[None], SizeDict(height=224, width=224), resample)
            assert torch.equal(processor(image, return_tensors="pt").pixel_values, expected)


def test_at_most_one_image_of_a_batch_is_square_at_a_time(monkeypatch):
    largest = 0
    pad = F.pad

    def padded(image, *how):
        nonlocal largest
        made = pad(image, *how)
        largest = max(largest, made.numel())
        return made

    monkeypatch.setattr(image_processing_lumbarclip.F, "pad", padded)
    process([np.zeros((5000, 33), dtype=np.uint8), np.zeros((33, 5000), dtype=np.uint8)])
    assert 0 < largest < 10**6  # pixels; the square has 25 million


@pytest.mark.parametrize(
    "images, count", [([GREY] * 3, 3), ([[GREY, GREY], [GREY]], 3), (np.stack([GREY[None]] * 2), 2)]
)
def test_each_image_of_a_list_is_prepared_once(images, count, monkeypatch):
    prepared = []
    monkeypatch.setattr(
        image_processing_lumbarclip, "to_eight_bits", lambda *given: prepared.append(given[0]) or to_eight_bits(*given)
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


UNIT = torch.from_numpy(GREY) / 255
NOT_RESCALED = [{"do_rescale": False}, {"rescale_factor": 1}, {"rescale_factor": 1.0}]


@pytest.mark.parametrize("options", NOT_RESCALED, ids=str)
@pytest.mark.parametrize(
    "image",
    [
        UNIT,
        UNIT[None],
        UNIT.expand(3, -1, -1),
        UNIT.double(),
        UNIT.half(),
        UNIT.bfloat16(),
        UNIT.numpy(),
        UNIT.numpy()[..., None],
        UNIT.numpy().astype(">f4"),
        Image.fromarray(UNIT.numpy()),
        [UNIT, UNIT],
        [UNIT.numpy(), Image.fromarray(UNIT.numpy())],
        UNIT[None, None],
        UNIT + 1e-6,
    ],
    ids=lambda image: type(image).__name__,
)
def test_floats_between_0_and_1_need_no_rescaling(image, options):
    pixels = process(image, **options)
    torch.testing.assert_close(pixels, process(GREY).expand_as(pixels), atol=0.05, rtol=0)
    without = process(image, do_normalize=False, **options)
    assert without.min() >= 0 and 0.9 < without.max() <= 1


@pytest.mark.parametrize(
    "options", [{"do_rescale": False}, {"rescale_factor": 1}, {"do_rescale": False, "do_normalize": False}], ids=str
)
@pytest.mark.parametrize(
    ("image", "found"),
    [
        (GREY.astype(np.uint16) * 16, r"0 of 1 has torch.uint16 values from 0 to 4080"),
        (GREY.astype(np.int64), "torch.int64 values from 0 to 255"),
        (torch.from_numpy(GREY) / 255 * 2 - 1, "torch.float32 values from -1 to 1"),
        (GREY.astype(np.float64), "torch.float64 values from 0 to 255"),
        (Image.fromarray(GREY.astype(np.uint16) * 16), "to 4080"),
        (Image.fromarray(GREY.astype(np.float32)), "to 255"),
        ([UNIT, UNIT * 300], "1 of 2 has"),
        ([UNIT, torch.from_numpy(GREY)], "1 of 2 has torch.uint8"),
        ([UNIT, Image.fromarray(GREY)], "1 of 2 has torch.uint8"),
        (UNIT * 1.01, "to 1.01"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_other_values_that_are_not_to_be_rescaled_are_refused(image, found, options):
    with pytest.raises(ValueError, match=rf"(do_rescale=False|rescale_factor=1) is for floats in \[0, 1\].*{found}"):
        process(image, **options)


@pytest.mark.parametrize("factor", [1 / 4095, 1 / 65535, 2 / 255, 0.0, 0], ids=str)
@pytest.mark.parametrize("image", [GREY.astype(np.uint16) * 16, UNIT, Image.fromarray(GREY.astype(np.int32))], ids=type)
def test_a_factor_for_another_depth_is_refused(image, factor):
    with pytest.raises(ValueError, match=rf"rescale_factor={factor:g}: images are brought to 8 bits first"):
        LumbarCLIPImageProcessor()(image, rescale_factor=factor)


def test_a_call_may_say_that_nothing_is_to_be_rescaled_with_an_integer():
    torch.testing.assert_close(
        LumbarCLIPImageProcessor()(UNIT, rescale_factor=1, return_tensors="pt").pixel_values,
        LumbarCLIPImageProcessor()(UNIT, return_tensors="pt").pixel_values,
    )


@pytest.mark.parametrize(
    "image",
    [GREY, torch.from_numpy(GREY)[None], Image.fromarray(GREY), [GREY, GREY]],
    ids=lambda image: type(image).__name__,
)
def test_eight_bits_may_stay_as_they_are_but_not_be_normalised(image):
    raw = process(image, do_rescale=False, do_normalize=False)
    torch.testing.assert_close(raw / 255, process(image, do_normalize=False), atol=1e-6, rtol=0)
    for options in NOT_RESCALED:
        with pytest.raises(ValueError, match="torch.uint8 values from 0 to 255. Leave it out"):
            process(image, **options)


SLICES = [np.roll(GREY, 3 * shift, axis=1) for shift in range(4)]
DEEP = {
    "12 bits": lambda values: values.astype(np.uint16) * 16,
    "signed": lambda values: values.astype(np.int16) - 100,
    "32 bits": lambda values: values.astype(np.int32) * 1000,
    "float": lambda values: values.astype(np.float32) * 3,
    "double": lambda values: values.astype(np.float64) / 100 - 1,
    "half": lambda values: values.astype(np.float16),
}


@pytest.mark.parametrize("count", [3, 4])
@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("depth", DEEP)
@pytest.mark.parametrize(
    "as_given", [np.asarray, torch.from_numpy, lambda stack: [stack]], ids=["array", "tensor", "list"]
)
def test_a_stack_of_deep_slices_is_no_colour_image(count, axis, depth, as_given):
    stack = DEEP[depth](np.stack(SLICES[:count], axis=axis))
    with pytest.raises(ValueError, match=f"may be a stack of slices.*For {count} slices, pass a list"):
        process(as_given(stack))
    slices = process(list(np.moveaxis(stack, axis, 0)))  # what the message says
    torch.testing.assert_close(slices, torch.cat([process(DEEP[depth](one)) for one in SLICES[:count]]))
    torch.testing.assert_close(process(np.moveaxis(stack, axis, 0)[:, None].copy()), slices)
    first_or_last = "channels_first" if axis == 0 else "channels_last"
    assert process(as_given(stack), input_data_format=first_or_last).shape == (1, 3, 32, 32)


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("depth", ["8 bits", "float in [0, 1]"])
@pytest.mark.parametrize("count", [3, 4])
def test_of_an_array_that_may_be_in_colour_a_warning_says_how_it_was_taken(count, axis, depth, caplog):
    stack = np.stack(SLICES[:count], axis=axis)
    stack = stack if depth == "8 bits" else stack.astype(np.float32) / 255
    image_processing_lumbarclip.logger.warning_once.cache_clear()
    assert process(stack).shape == (1, 3, 32, 32)
    (warning,) = [record.getMessage() for record in caplog.records]
    assert f"shape {stack.shape} was taken for one colour image. For {count} slices" in warning
    caplog.clear()
    if depth == "8 bits":
        process(Image.fromarray(np.moveaxis(stack, axis, -1).copy()))
    process(np.repeat(GREY[None], 3, axis=0))
    process(stack, input_data_format="channels_first" if axis == 0 else "channels_last")
    assert not caplog.records


@pytest.mark.parametrize(
    "shape", [(3, 9, 3), (3, 9, 4), (4, 9, 3), (1, 9, 3), (3, 9, 1), (1, 9, 1), (4, 4, 4)], ids=str
)
@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy], ids=["array", "tensor"])
def test_channels_that_may_be_first_or_last_are_asked_for(shape, make):
    values = make(np.random.default_rng(1).integers(0, 256, size=shape, dtype=np.uint8))
    with pytest.raises(ValueError, match=f"An array of shape {re.escape(str(shape))} may have its channels first or"):
        process(values)
    assert process([values], input_data_format="channels_first").shape == (1, 3, 32, 32)
    assert process(values, input_data_format="channels_last").shape == (1, 3, 32, 32)


def test_where_the_channels_are_may_be_said():
    colour = np.stack(SLICES[:3], axis=-1)
    last = process(colour, input_data_format="channels_last")
    torch.testing.assert_close(last, process(Image.fromarray(colour)))
    torch.testing.assert_close(process(np.moveaxis(colour, -1, 0), input_data_format="channels_first"), last)
    torch.testing.assert_close(process(GREY, input_data_format="channels_last"), process(GREY))
    with pytest.raises(ValueError, match="has 1, 3 or 4 channels; got shape"):
        process(colour, input_data_format="channels_first")
    with pytest.raises((ValueError, TypeError), match="channels_middle"):
        process(colour, input_data_format="channels_middle")


ALPHA = np.where(np.arange(30) < 12, 0, np.where(np.arange(30) < 20, 128, 255)).astype(np.uint8) * np.ones_like(GREY)
SEEN = Image.fromarray((GREY * (ALPHA / 255)).round().astype(np.uint8))  # on black
LA = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)])
RGBA = LA.convert("RGBA")


def palette(as_bytes):
    image = Image.fromarray(GREY).convert("P")
    image.putpalette([value for grey in range(256) for value in (grey, grey, grey)])
    image.info["transparency"] = (
        bytes(0 if value < 90 else 255 for value in range(256)) if as_bytes else int(GREY.max())
    )
    return image


@pytest.mark.parametrize(
    ("image", "seen"),
    [
        (LA, SEEN),
        (RGBA, SEEN),
        (RGBA.convert("RGBa"), SEEN),
        (np.asarray(RGBA), SEEN),
        (np.moveaxis(np.asarray(RGBA), -1, 0).copy(), SEEN),
        (torch.from_numpy(np.asarray(RGBA).copy()), SEEN),
        (np.asarray(RGBA).astype(np.float32) / 255, SEEN),
        (torch.from_numpy(np.asarray(RGBA).copy()).movedim(-1, 0) / 255, SEEN),
        ([RGBA, np.asarray(RGBA)], SEEN),
        (palette(True), Image.fromarray(np.where(GREY < 90, 0, GREY))),
        (palette(False), Image.fromarray(np.where(GREY.max() == GREY, 0, GREY))),
        (Image.merge("LA", [Image.new("L", (30, 20), 255), Image.new("L", (30, 20), 0)]), Image.new("L", (30, 20))),
    ],
    ids=lambda image: getattr(image, "mode", type(image).__name__),
)
def test_what_is_transparent_is_black_and_what_it_hides_is_not_seen(image, seen):
    pixels = process(image)
    torch.testing.assert_close(
        pixels, process(seen).expand_as(pixels), atol=0.03, rtol=0
    )  # an 8-bit step, rounded twice


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_a_value_that_a_file_calls_transparent(mode, tmp_path):
    values = (
        GREY if mode == "L" else GREY.astype(np.uint16) * 16 if mode == "I;16" else np.repeat(GREY[..., None], 3, 2)
    )
    hidden = int(GREY[0, 0]) * (16 if mode == "I;16" else 1)
    Image.fromarray(values).save(tmp_path / "key.png", transparency=(hidden,) * 3 if mode == "RGB" else hidden)
    assert Image.open(tmp_path / "key.png").mode == mode
    if mode == "I;16":
        with pytest.raises(ValueError, match=f"a transparent value, {hidden}. To keep"):
            process(tmp_path / "key.png")
        kept = read_image(tmp_path / "key.png")
        del kept.info["transparency"]  # what the message says
        torch.testing.assert_close(process(kept), process(values))
    else:
        seen = process(Image.fromarray(np.where(GREY[0, 0] == GREY, 0, GREY)))
        torch.testing.assert_close(process(tmp_path / "key.png"), seen)


def test_transparency_is_kept_where_four_channels_are_asked_for():
    mean_and_std = {"image_mean": [0.0] * 4, "image_std": [1.0] * 4}
    pixels = process(np.asarray(RGBA), do_convert_rgb=False, do_pad_to_square=False, do_resize=False, **mean_and_std)
    torch.testing.assert_close(pixels[0, 3], torch.from_numpy(ALPHA) / 255)
