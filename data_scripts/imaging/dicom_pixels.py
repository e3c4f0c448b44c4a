"""Check the pixels of an open DICOM file, then decode one frame.

Decoders allocate what a compressed frame claims to need. Some hang, or take gigabytes, on made-up frames of a
kilobyte: a JPEG-LS frame without its end, JPEG 2000 frames of 60,000 x 60,000 pixels, of a million tiles or of a
million precincts. So the frame's own header is checked first.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from pydicom import Dataset, uid
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import get_decoder

from data_scripts.imaging.dicom_reading import DicomFile, num_frames
from data_scripts.imaging.images import MAX_PIXELS, UnusableImageError

MAX_FRAME_BYTES = MAX_PIXELS  # decoded: 8192 x 4096 of 16 bits; decoders need several times as much

PIXEL_TAGS = (
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)

_NATIVE = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)
# One decoder for each, so that a slice is the same on every machine, whatever else is installed.
_DECODING_PLUGINS = {
    uid.RLELossless: "pylibjpeg",
    uid.JPEGLSLossless: "pyjpegls",
    uid.JPEGLSNearLossless: "pyjpegls",
    uid.JPEG2000Lossless: "pylibjpeg",
    uid.JPEG2000: "pylibjpeg",
    uid.JPEGBaseline8Bit: "pillow",
}

MAX_JPEG_2000_PARTS = 2**20  # packets or code blocks; a radiograph of 4096 x 4096 pixels has 4,096 code blocks

_END_OF_IMAGE = b"\xff\xd9"  # the same in all JPEG standards
_JPEG_BASELINE_FRAME, _JPEG_LS_FRAME = 0xC0, 0xF7
_SIZE, _CODING, _COMPONENT_CODING = 0xFF51, 0xFF52, 0xFF53
_TILE_PART, _TILE_DATA, _END = 0xFF90, 0xFF93, 0xFFD9


def check_pixels(file: DicomFile) -> None:
    """Check by the header that the pixels can be decoded within bounds; nothing is allocated.

    Raises:
        UnusableImageError: If there are no pixels, the encoding is unknown, the header lacks or contradicts what
            decoding needs, or the file is shorter than the header says.
    """
    if not file.pixel_keyword:
        raise UnusableImageError("no DICOM image: the file has no pixels")
    syntax = file.transfer_syntax
    if syntax not in _NATIVE and syntax not in _DECODING_PLUGINS:
        is_rare_jpeg = "JPEG Lossless" in syntax.name or "JPEG Extended" in syntax.name
        way_out = ", with pydicom and its plug-in pylibjpeg-libjpeg or with dcmdjpeg" if is_rare_jpeg else ""
        raise UnusableImageError(
            f"DICOM transfer syntax {syntax.name[:80]!r} is not supported; decompress it first{way_out}"
        )
    header = file.header
    shape = [_count(header, keyword) for keyword in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")]
    rows, columns, samples, bits = shape
    if samples not in (1, 3) or bits not in (8, 16, 32, 64):
        raise UnusableImageError(f"DICOM image of {samples} samples of {bits} bits; supported are 1 or 3 of 8 to 64")
    stored, high = header.get("BitsStored") or bits, header.get("HighBit")
    if high is not None and high != stored - 1:
        raise UnusableImageError(
            f"DICOM image of {stored} bits up to bit {high}; only HighBit = BitsStored - 1 is supported"
        )
    frame_bytes = rows * columns * samples * bits // 8
    if frame_bytes > MAX_FRAME_BYTES:
        raise UnusableImageError(f"image too large: {columns} x {rows}, at most {MAX_FRAME_BYTES} bytes")
    count = num_frames(header)
    if syntax in _NATIVE:
        wanted = frame_bytes * count
        found = min(file.pixel_bytes or 0, file.stream.num_bytes_left)
        if found < wanted:
            raise UnusableImageError(f"truncated DICOM: {found} of {wanted} bytes of pixels")
    elif file.pixel_bytes is not None:
        raise UnusableImageError("unreadable DICOM: compressed pixels are not in fragments")


def _count(header: Dataset, keyword: str) -> int:
    value = header.get(keyword)
    if not isinstance(value, int) or value < 1:
        raise UnusableImageError(f"no DICOM image: {keyword} is {str(value)[:20]!r}")
    return value


def decode_frame(file: DicomFile, frame: int) -> np.ndarray:
    """Decode a frame of a checked file.

    Returns:
        Stored values, shape (rows, columns), or (rows, columns, 3) in RGB.

    Raises:
        UnusableImageError: If a compressed frame is truncated, or not of the size that the header states.
    """
    header = file.header
    options: dict[str, Any] = {
        "rows": header.Rows,
        "columns": header.Columns,
        "samples_per_pixel": header.SamplesPerPixel,
        "bits_allocated": header.BitsAllocated,
        "bits_stored": header.get("BitsStored") or header.BitsAllocated,
        "pixel_representation": header.get("PixelRepresentation") or 0,
        "planar_configuration": header.get("PlanarConfiguration") or 0,
        "photometric_interpretation": header.get("PhotometricInterpretation") or "MONOCHROME2",
        "number_of_frames": num_frames(header),
        "pixel_keyword": file.pixel_keyword,
        "pixel_vr": file.pixel_vr,
    }
    source: Any = file.stream
    if file.transfer_syntax in _DECODING_PLUGINS:
        content = get_frame(source, frame, number_of_frames=num_frames(header))
        _check_codestream(content, file)
        source, frame = encapsulate([content], has_bot=False), 0
        options |= {"number_of_frames": 1, "decoding_plugin": _DECODING_PLUGINS[file.transfer_syntax]}
    stored, _ = get_decoder(file.transfer_syntax).as_array(source, index=frame, **options)
    return stored


def _check_codestream(content: bytes, file: DicomFile) -> None:
    if file.transfer_syntax == uid.RLELossless:
        return  # states no size
    check_end(content)
    is_jpeg_2000 = file.transfer_syntax in (uid.JPEG2000, uid.JPEG2000Lossless)
    stated = jpeg_2000_size(content) if is_jpeg_2000 else jpeg_size(content)
    expected = (file.header.Rows, file.header.Columns, file.header.SamplesPerPixel)
    if stated != expected:
        raise UnusableImageError(f"compressed frame is {stated}, the header says {expected} (rows, columns, samples)")


def check_end(content: bytes) -> None:
    """Raise an UnusableImageError for a JPEG, JPEG-LS or JPEG 2000 frame without its end marker.

    On a truncated frame the JPEG-LS decoder loops forever, and the JPEG 2000 decoder makes up the rest.
    """
    if not content.rstrip(b"\0").endswith(_END_OF_IMAGE):
        raise UnusableImageError("truncated DICOM: compressed frame has no end marker")


def jpeg_size(content: bytes) -> tuple[int, int, int]:
    """Read rows, columns and components of a baseline JPEG or JPEG-LS frame; raise an UnusableImageError for others."""
    at = 2
    while content[:2] == b"\xff\xd8" and at + 10 <= len(content) and content[at] == 0xFF:
        if content[at + 1] in (_JPEG_BASELINE_FRAME, _JPEG_LS_FRAME):
            return _number(content, at + 5, 2), _number(content, at + 7, 2), content[at + 9]
        at += 2 + _number(content, at + 2, 2)
    raise UnusableImageError("unreadable DICOM: not a baseline JPEG or JPEG-LS frame")


def jpeg_2000_size(content: bytes) -> tuple[int, int, int]:
    """Read rows, columns and components of a JPEG 2000 codestream.

    Raises:
        UnusableImageError: If it is not one, its components differ in size, or it has more parts than an image of its
            size can need.
    """
    if content[:4] != b"\xff\x4f\xff\x51" or len(content) < 45:
        raise UnusableImageError("unreadable DICOM: not a JPEG 2000 codestream")
    right, bottom, left, top, tile_width, tile_height = (_number(content, 8 + 4 * i, 4) for i in range(6))
    components = _number(content, 40, 2)
    sampling = content[43 : 42 + 3 * components]
    markers = list(_jpeg_2000_markers(content))
    codings = [at for marker, at in markers if marker in (_CODING, _COMPONENT_CODING)]
    if len(codings) != 1 or set(sampling[0::3] + sampling[1::3]) != {1}:
        raise UnusableImageError("JPEG 2000 frame whose tiles or components differ in coding or size")
    num_tiles = math.ceil(right / max(tile_width, 1)) * math.ceil(bottom / max(tile_height, 1))
    parts = _num_parts(content, codings[0], right, bottom, num_tiles) * components
    if parts > MAX_JPEG_2000_PARTS:
        raise UnusableImageError(f"JPEG 2000 frame of {parts} parts, more than its pixels can need")
    return bottom - top, right - left, components


def _jpeg_2000_markers(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield the markers of the main header and of the tile parts' headers, with their positions."""
    at, tile_end = 2, len(content)
    while at + 4 <= len(content):
        marker = _number(content, at, 2)
        if marker == _END:
            return
        if marker == _TILE_DATA:
            at = tile_end
            continue
        yield marker, at
        if marker == _TILE_PART:  # a length of 0 reaches to the end
            tile_end = at + max(_number(content, at + 6, 4), 14) if _number(content, at + 6, 4) else len(content)
        at += 2 + _number(content, at + 2, 2)


def _num_parts(content: bytes, coding_at: int, width: int, height: int, num_tiles: int) -> int:
    """Bound the number of packets and code blocks of a component, by the coding style marker."""
    has_precincts, layers = content[coding_at + 4] & 1, _number(content, coding_at + 6, 2)
    levels, block_exponents = content[coding_at + 9], content[coding_at + 10 : coding_at + 12]
    precincts = content[coding_at + 14 : coding_at + 15 + levels] if has_precincts else b"\xff"
    smallest_width, smallest_height = (2 ** min(byte >> shift & 15 for byte in precincts) for shift in (0, 4))
    num_precincts = math.ceil(width / smallest_width) * math.ceil(height / smallest_height)
    num_packets = (num_precincts + num_tiles) * (levels + 1) * layers
    num_blocks = width * height // 2 ** min(32, sum(block_exponents) + 4)
    return max(num_packets, num_blocks)


def _number(content: bytes, at: int, num_bytes: int) -> int:
    return int.from_bytes(content[at : at + num_bytes])
