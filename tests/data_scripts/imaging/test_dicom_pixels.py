import struct

import jpeg_ls
import numpy as np
import openjpeg
import pytest
from PIL import Image
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from data_scripts.imaging.dicom import read_headers, read_slice
from data_scripts.imaging.dicom_pixels import check_end, decode_frame, jpeg_2000_size, jpeg_size
from data_scripts.imaging.dicom_reading import open_dicom
from data_scripts.imaging.images import UnusableImageError
from tests.data_scripts.imaging.dicom_files import draw_pixels, make_dicom

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
LOSSLESS = (*NATIVE, RLELossless, JPEGLSLossless, JPEG2000Lossless)


def grey(path, frame=0):
    return np.asarray(read_slice(path, frame))


def stored_values(path, frame=0):
    with open_dicom(path) as file:
        return decode_frame(file, frame)


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize(
    ("dtype", "bits", "shape"),
    [
        (np.uint8, 8, (37, 33)),
        (np.uint16, 12, (36, 33)),
        (np.uint16, 16, (36, 33)),
        (np.int16, 12, (36, 33)),
        (np.int16, 16, (36, 33)),
        (np.uint8, 8, (36, 33, 3)),
        (np.uint16, 12, (3, 36, 33)),
    ],
)
def test_lossless_pixels_are_equal(tmp_path, syntax, dtype, bits, shape):
    pixels = draw_pixels(dtype, bits, shape)
    make_dicom(tmp_path / "a.ima", pixels, transfer_syntax=syntax, bits_stored=bits)
    headers = read_headers(tmp_path / "a.ima")
    is_multi_frame = pixels.ndim == 3 and shape[-1] != 3
    assert len(headers) == (3 if is_multi_frame else 1)
    for header in headers:
        expected = pixels[header.frame] if is_multi_frame else pixels
        assert np.array_equal(stored_values(header.path, header.frame), expected)


@pytest.mark.parametrize(("syntax", "error"), [(JPEGLSNearLossless, 2), (JPEG2000, 60)], ids=str)
def test_lossy_pixels_are_near(tmp_path, syntax, error):
    ramp = np.add.outer(np.arange(64) * 20, np.arange(64) * 30)
    pixels = (ramp + np.random.default_rng(0).integers(0, 100, ramp.shape)).astype(np.uint16)
    make_dicom(tmp_path / "a", pixels, transfer_syntax=syntax, bits_stored=12)
    difference = np.abs(stored_values(tmp_path / "a").astype(int) - pixels)
    assert 0 < difference.max() <= error


def test_baseline_jpeg(tmp_path):
    ramp = np.add.outer(np.arange(64) * 2, np.arange(64)).astype(np.uint8)
    rgb = np.stack([ramp, 255 - ramp, ramp // 2], axis=-1)
    for name, pixels, expected in [("grey", ramp, ramp), ("rgb", rgb, np.asarray(Image.fromarray(rgb).convert("L")))]:
        make_dicom(tmp_path / name, pixels, transfer_syntax=JPEGBaseline8Bit)
        assert np.abs(grey(tmp_path / name).astype(int) - expected).max() <= 4


def test_compression_that_is_not_read_names_a_way_out(tmp_path):
    make_dicom(tmp_path / "a", draw_pixels(np.uint8, 8), transfer_syntax=RLELossless)
    content = (tmp_path / "a").read_bytes()
    old, new = (f"{uid}{chr(0) * (len(uid) % 2)}".encode() for uid in (RLELossless, JPEGLosslessSV1))
    at = content.index(old)
    length = len(new).to_bytes(2, "little")
    (tmp_path / "b").write_bytes(content[: at - 2] + length + new + content[at + len(old) :])
    for read in (read_headers, read_slice):
        with pytest.raises(UnusableImageError, match="JPEG Lossless.* is not supported; .*pylibjpeg-libjpeg"):
            read(tmp_path / "b")


def test_bits_that_lie_higher_are_refused(tmp_path):
    """12 bits at the top of 16 would be read as the lower 12."""
    pixels = draw_pixels(np.uint16, 12) << 4
    make_dicom(tmp_path / "a", pixels, bits_stored=12, HighBit=15)
    for read in (read_headers, read_slice):
        with pytest.raises(UnusableImageError, match="12 bits up to bit 15"):
            read(tmp_path / "a")


PIXELS = np.add.outer(np.arange(40) * 20, np.arange(50) * 30).astype(np.uint16)
JPEG_LS = bytes(jpeg_ls.encode_array(PIXELS))
JPEG_2000 = bytes(openjpeg.utils.encode_array(PIXELS, photometric_interpretation=2))
CODING_AT = JPEG_2000.index(b"\xff\x52")
BLOCKS = JPEG_2000[CODING_AT + 9 : CODING_AT + 12]  # after the number of resolutions, which tells them from data
SMALLEST_BLOCKS = BLOCKS[:1] + b"\0\0"
LAYERS, MOST_LAYERS = JPEG_2000[CODING_AT : CODING_AT + 8], JPEG_2000[CODING_AT : CODING_AT + 6] + b"\xff\xff"


def changed(at, content):
    return JPEG_2000[:at] + content + JPEG_2000[at + len(content) :]


def with_precincts(byte):
    """Precincts stated for each resolution."""
    length, levels = int.from_bytes(JPEG_2000[CODING_AT + 2 : CODING_AT + 4]), JPEG_2000[CODING_AT + 9]
    coding = bytearray(JPEG_2000[CODING_AT : CODING_AT + 2 + length])
    coding[4] |= 1
    coding[2:4] = struct.pack(">H", length + levels + 1)
    return JPEG_2000[:CODING_AT] + coding + bytes([byte]) * (levels + 1) + JPEG_2000[CODING_AT + 2 + length :]


def test_sizes():
    assert jpeg_size(JPEG_LS) == (40, 50, 1)
    assert jpeg_2000_size(JPEG_2000) == (40, 50, 1)
    assert jpeg_2000_size(with_precincts(0x88)) == (40, 50, 1)
    assert np.array_equal(openjpeg.decode(with_precincts(0x88)), PIXELS)  # our change is what we think it is
    assert jpeg_2000_size(changed(8, struct.pack(">2I", 60, 70))) == (70, 60, 1)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a JPEG 2000"),
        (JPEG_LS, "not a JPEG 2000"),
        (JPEG_2000[:44], "not a JPEG 2000"),
        (changed(8, struct.pack(">2I", 60000, 60000)), "parts"),  # tiles stay small
        (changed(8, struct.pack(">6I", 4096, 4096, 0, 0, 1, 1)), "parts"),
        (changed(8, struct.pack(">6I", 4096, 4096, 0, 0, 0, 0)), "parts"),
        (changed(8, struct.pack(">6I", 8192, 4096, 0, 0, 8192, 4096)).replace(BLOCKS, SMALLEST_BLOCKS), "parts"),
        (with_precincts(0x00).replace(JPEG_2000[8:16], struct.pack(">2I", 4096, 4096)), "parts"),
        (changed(8, struct.pack(">6I", 4096, 4096, 0, 0, 2048, 2048)).replace(LAYERS, MOST_LAYERS), "parts"),
        (changed(40, b"\x40\x00"), "differ"),
        (changed(43, b"\x02"), "differ"),
        (JPEG_2000[:CODING_AT] + JPEG_2000[CODING_AT : CODING_AT + 14] * 2 + JPEG_2000[CODING_AT + 14 :], "differ"),
    ],
)  # fmt: skip
def test_jpeg_2000_frames_that_ask_for_too_much(content, reason):
    with pytest.raises(UnusableImageError, match=reason):
        jpeg_2000_size(content)


@pytest.mark.parametrize("content", [b"", b"\xff\xd8", JPEG_2000, JPEG_LS[:9], b"\xff\xd8" + b"\xff\xe0\0\0" * 1000])
def test_frames_that_are_no_jpeg(content):
    with pytest.raises(UnusableImageError, match="not a baseline JPEG"):
        jpeg_size(content)


@pytest.mark.parametrize("content", [JPEG_LS, JPEG_2000])
def test_cut_frames(content):
    check_end(content)
    check_end(content + b"\0")
    for length in (0, 1, 60, len(content) - 1):
        with pytest.raises(UnusableImageError, match="no end"):
            check_end(content[:length])
