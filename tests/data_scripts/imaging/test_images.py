import io
import os

import numpy as np
import pytest
from PIL import Image

from data_scripts.imaging import images
from data_scripts.imaging.images import (
    UnusableImageError,
    class_indices,
    file_inside,
    grey_8bit,
    png_bytes,
    read_image,
    window_to_uint8,
)


def test_window_by_hand():
    # 0.5 and 99.5 percentiles of 0..1000 are 5 and 995: 500 lies in the middle.
    windowed = window_to_uint8(np.arange(1001, dtype=np.uint16).reshape(7, 143)).ravel()
    assert windowed[0] == windowed[5] == 0
    assert windowed[995] == windowed[1000] == 255
    assert windowed[500] == 128


def plain_window(pixels):
    """The window without a histogram: every pixel sorted and scaled."""
    pixels = pixels.astype(np.float64)
    low, high = np.percentile(pixels, (0.5, 99.5))
    if low == high:
        low, high = pixels.min(), pixels.max()
    if low == high:
        return np.zeros(pixels.shape, dtype=np.uint8)
    return np.round(np.clip((pixels - low) / (high - low), 0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.int32, np.uint64, np.float32])
def test_window_equals_that_of_sorted_pixels(dtype):
    for seed in range(100):
        generator = np.random.default_rng(seed)
        shape = tuple(generator.integers(1, 50, 2))
        spread = generator.gamma(generator.uniform(0.3, 4), generator.uniform(0.02, 0.5), shape).clip(0, 1)
        low = -100 if np.dtype(dtype).kind == "i" else 0
        top = generator.integers(1, 120 if np.dtype(dtype).itemsize == 1 else 30_000)
        pixels = (low + spread * top).astype(dtype)
        assert np.array_equal(window_to_uint8(pixels), plain_window(pixels)), seed


def test_wide_range_is_windowed_without_a_table_of_it():
    pixels = np.array([[-(2**31), 0], [5, 2**31 - 1]], dtype=np.int32)
    assert np.array_equal(window_to_uint8(pixels), plain_window(pixels))


@pytest.mark.parametrize("bits", [10, 12, 16])
@pytest.mark.parametrize("seed", range(5))
def test_16_bit_files_never_saturate(tmp_path, bits, seed):
    generator = np.random.default_rng([bits, seed])
    pixels = (generator.gamma(2.0, 0.1, (64, 64)).clip(0, 1) * (2**bits - 1)).astype(np.uint16)
    Image.fromarray(pixels).save(tmp_path / "slice.png")
    grey = np.asarray(grey_8bit(read_image(tmp_path / "slice.png")))
    assert grey.dtype == np.uint8
    assert np.mean(grey == 255) < 0.02 and np.mean(grey == 0) < 0.02
    assert len(np.unique(grey)) > 100
    # The order of intensities survives.
    assert np.all(np.diff(grey.ravel()[np.argsort(pixels, axis=None)].astype(int)) >= 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float32])
def test_constant_image_is_black(dtype):
    assert not window_to_uint8(np.full((4, 5), 7, dtype=dtype)).any()


def test_few_bright_pixels_on_background_stay_visible():
    pixels = np.zeros((100, 100), dtype=np.uint16)
    pixels[50, 50] = 4000  # fewer than 0.5 % of the pixels
    assert window_to_uint8(pixels)[50, 50] == 255


def test_non_finite_pixels():
    pixels = np.array([[np.nan, 0.0, 50.0], [100.0, np.inf, -np.inf]])
    windowed = window_to_uint8(pixels)
    assert windowed[0, 0] == windowed[1, 2] == 0
    assert windowed[1, 1] == windowed[1, 0] == 255
    with pytest.raises(UnusableImageError, match="finite"):
        window_to_uint8(np.full((2, 2), np.nan))


def test_8_bit_grey_is_not_touched(grey_pixels):
    pixels = grey_pixels(0) // 4  # a dark slice stays dark
    assert np.array_equal(np.asarray(grey_8bit(Image.fromarray(pixels))), pixels)


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "RGBA", "LA", "P", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_every_mode_becomes_grey(mode, grey_pixels):
    pixels = (grey_pixels(1) > 127).astype(np.uint8) * 255
    if mode in ("I;16", "I", "F"):
        image = Image.fromarray(pixels.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]) * 16)
    else:
        image = Image.fromarray(pixels).convert(mode)
    assert image.mode == mode
    grey = grey_8bit(image)
    assert grey.mode == "L"
    assert np.array_equal(np.asarray(grey) > 127, pixels > 127)


def test_transparent_is_black():
    image = Image.new("RGBA", (2, 1), (255, 255, 255, 255))
    image.putpixel((1, 0), (255, 255, 255, 0))
    assert np.asarray(grey_8bit(image)).tolist() == [[255, 0]]


def test_big_endian_16_bit_tiff(tmp_path):
    pixels = np.linspace(0, 4095, 64).astype(">u2").reshape(8, 8)
    header = b"MM\x00*\x00\x00\x00\x08"
    entries = [(256, 3, 8), (257, 3, 8), (258, 3, 16), (259, 3, 1), (262, 3, 1), (277, 3, 1), (278, 3, 8)]
    fields = [*entries, (273, 4, 8 + 2 + 12 * 9 + 4), (279, 4, 128)]
    directory = len(fields).to_bytes(2, "big")
    for tag, kind, value in sorted(fields):
        packed = value.to_bytes(2, "big") + b"\0\0" if kind == 3 else value.to_bytes(4, "big")
        directory += tag.to_bytes(2, "big") + kind.to_bytes(2, "big") + (1).to_bytes(4, "big") + packed
    (tmp_path / "slice.tif").write_bytes(header + directory + b"\0\0\0\0" + pixels.tobytes())
    grey = np.asarray(grey_8bit(read_image(tmp_path / "slice.tif"))).ravel().astype(int)
    assert grey[0] == 0 and grey[-1] == 255 and np.all(np.diff(grey) >= 0)


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[274] = 6  # rotate by 90 degrees to view
    Image.new("L", (20, 10)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").size == (10, 20)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (12, 10), (301, 300)])
def test_png_holds_the_pixels(shape):
    generator = np.random.default_rng(0)
    for pixels in (generator.integers(0, 256, shape, dtype=np.uint8), np.full(shape, 255, dtype=np.uint8)):
        with Image.open(io.BytesIO(png_bytes(Image.fromarray(pixels)))) as stored:
            stored.verify()
        stored = Image.open(io.BytesIO(png_bytes(Image.fromarray(pixels))))
        assert stored.mode == "L" and np.array_equal(np.asarray(stored), pixels)
    with pytest.raises(ValueError, match="mode 'RGB'"):
        png_bytes(Image.new("RGB", (2, 2)))


def test_metadata_does_not_reach_the_png(tmp_path):
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("PatientName", "Doe^Jane")
    Image.new("L", (4, 4)).save(tmp_path / "named.png", pnginfo=info, dpi=(72, 72))
    stored = png_bytes(grey_8bit(read_image(tmp_path / "named.png")))
    assert b"Doe" not in stored
    assert Image.open(io.BytesIO(stored)).info == {}


def test_of_a_phone_photograph_the_first_frame_is_the_image(tmp_path):
    photograph, small_copy = (Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8)) for value in (200, 40))
    photograph.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[small_copy])
    with Image.open(tmp_path / "phone.jpg") as opened:
        assert (opened.format, opened.n_frames) == ("MPO", 2)
    assert np.unique(grey_8bit(read_image(tmp_path / "phone.jpg"))).tolist() == [200]


def test_unusable_files(tmp_path, grey_pixels, monkeypatch):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99), dtype=np.uint8)).save(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "truncated.png").write_bytes(content[: len(content) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("not an image")
    frames = [Image.fromarray(grey_pixels(number)) for number in range(3)]
    frames[0].save(tmp_path / "frames.tif", save_all=True, append_images=frames[1:])
    for name, reason in {
        "absent.png": "missing",
        "truncated.png": "unreadable",
        "empty.png": "unreadable",
        "text.png": "unreadable",
        "frames.tif": "3 frames",
    }.items():
        with pytest.raises(UnusableImageError, match=reason) as caught:
            read_image(tmp_path / name)
        assert str(tmp_path) not in str(caught.value)  # reasons end up in a file that is published
    monkeypatch.setattr(images, "MAX_PIXELS", 99 * 99 - 1)
    with pytest.raises(UnusableImageError, match="99 x 99"):
        read_image(tmp_path / "whole.png")


def test_masks():
    indices = np.array([[0, 1], [2, 3]], dtype=np.uint8)
    palette = Image.fromarray(indices).convert("P")
    palette.putdata(list(range(4)))
    for mask in (Image.fromarray(indices), palette, Image.fromarray(indices.astype(np.uint16))):
        assert np.array_equal(np.asarray(class_indices(mask, (2, 2), num_classes=4)), indices)
    assert np.asarray(class_indices(Image.fromarray(indices), (2, 2), num_classes=0)).max() == 3
    with pytest.raises(UnusableImageError, match="class 3"):
        class_indices(Image.fromarray(indices), (2, 2), num_classes=3)
    with pytest.raises(UnusableImageError, match="class 300"):
        class_indices(Image.fromarray(np.full((2, 2), 300, dtype=np.uint16)), (2, 2), num_classes=0)
    with pytest.raises(UnusableImageError, match="2 x 2, its image 4 x 2"):
        class_indices(Image.fromarray(indices), (4, 2), num_classes=4)
    with pytest.raises(UnusableImageError, match="RGB"):
        class_indices(Image.new("RGB", (2, 2)), (2, 2), num_classes=4)


def test_files_stay_inside_the_folder(tmp_path):
    folder = tmp_path / "study"
    (folder / "images").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(b"")
    (folder / "images" / "a.png").write_bytes(b"")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    assert file_inside(folder, "images\\a.png", "image") == (folder / "images/a.png").resolve()
    assert file_inside(folder, "images/../images/a.png", "image") == (folder / "images/a.png").resolve()
    for name in ("../secret.png", str(tmp_path / "secret.png"), "link.png"):
        with pytest.raises(UnusableImageError, match="outside"):
            file_inside(folder, name, "image")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "one.png").symlink_to("two.png")
    (folder / "two.png").symlink_to("one.png")
    (folder / "lost.png").symlink_to("nowhere.png")
    (folder / "images" / "again").symlink_to("../images")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    assert file_inside(folder, "images/again/again/a.png", "image") == (folder / "images/a.png").resolve()
    (folder / "zero.png").symlink_to("/dev/zero")
    with pytest.raises(UnusableImageError, match="outside"):
        file_inside(folder, "zero.png", "image")
    special = ("loop.png", "one.png", "loop.png/a.png", "lost.png", "folder.png", "pipe.png")
    for name in ("", "images", "images/b.png", "a\0b.png", "x" * 5000, *special):
        with pytest.raises(UnusableImageError, match="missing"):
            file_inside(folder, name, "image")


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "I", "F"])
def test_decoded_bytes_are_bounded(tmp_path, mode, monkeypatch):
    """A file of some kilobytes may decode to a hundred thousand times as much, by four bytes a pixel."""
    Image.new(mode, (64, 32)).save(tmp_path / "a.tif")
    Image.new("I;16", (64, 32)).save(tmp_path / "grey.tif")
    monkeypatch.setattr(images, "MAX_DECODED_BYTES", 4 * 64 * 32)
    read_image(tmp_path / "a.tif")
    monkeypatch.setattr(images, "MAX_DECODED_BYTES", 4 * 64 * 32 - 1)
    with pytest.raises(UnusableImageError, match=f"64 x 32 of mode '{mode}'"):
        read_image(tmp_path / "a.tif")
    read_image(tmp_path / "grey.tif")


def test_formats_that_start_programs_are_no_images(tmp_path, monkeypatch):
    Image.new("L", (8, 8)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    started = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *args, **kwargs: started.append(args))
    with pytest.raises(UnusableImageError, match="cannot identify image file"):
        read_image(tmp_path / "a.png")
    assert not started


def test_blocks_of_rows_change_no_pixel(monkeypatch):
    generator = np.random.default_rng(0)
    arrays = [generator.integers(-900, 900, (37, 11)).astype(dtype) for dtype in (np.int16, np.int32, np.float64)]
    arrays.append(generator.normal(0, 1e6, (37, 11)))
    alpha = Image.fromarray(generator.integers(0, 256, (37, 11, 4), dtype=np.uint8))
    whole = [window_to_uint8(pixels) for pixels in arrays]
    expected = Image.alpha_composite(Image.new("RGBA", alpha.size, (0, 0, 0, 255)), alpha).convert("L")
    monkeypatch.setattr(images, "_BLOCK_PIXELS", 50)
    for pixels, windowed in zip(arrays, whole, strict=True):
        assert np.array_equal(window_to_uint8(pixels), windowed)
        assert np.array_equal(windowed, plain_window(pixels))
    assert np.array_equal(np.asarray(grey_8bit(alpha)), np.asarray(expected))
