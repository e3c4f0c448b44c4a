import struct

import jpeg_ls
import numpy as np
import openjpeg
import pytest

from data_scripts.imaging.dicom_codestreams import check_end, jpeg_2000_size, jpeg_size
from data_scripts.imaging.images import UnusableImageError

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
        (b"", "no JPEG 2000"),
        (JPEG_LS, "no JPEG 2000"),
        (JPEG_2000[:44], "no JPEG 2000"),
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
    with pytest.raises(UnusableImageError, match="no baseline JPEG"):
        jpeg_size(content)


@pytest.mark.parametrize("content", [JPEG_LS, JPEG_2000])
def test_cut_frames(content):
    check_end(content)
    check_end(content + b"\0")
    for length in (0, 1, 60, len(content) - 1):
        with pytest.raises(UnusableImageError, match="no end"):
            check_end(content[:length])
