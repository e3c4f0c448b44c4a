"""What a compressed frame says of itself, read before its decoder does: decoders believe it, and allocate.

Decoders were found, or are known, to hang or to take gigabytes on made-up frames of a kilobyte: a JPEG-LS frame without
its end, JPEG 2000 frames of 60,000 x 60,000 pixels, of a million tiles or of a million precincts.
"""

import math
from collections.abc import Iterator

from data_scripts.imaging.images import UnusableImageError

MAX_JPEG_2000_PARTS = 2**20  # packets or code blocks; a radiograph of 4096 x 4096 pixels has 4,096 code blocks

_END_OF_IMAGE = b"\xff\xd9"  # the same in all JPEG standards
_JPEG_BASELINE_FRAME, _JPEG_LS_FRAME = 0xC0, 0xF7
_SIZE, _CODING, _COMPONENT_CODING = 0xFF51, 0xFF52, 0xFF53
_TILE_PART, _TILE_DATA, _END = 0xFF90, 0xFF93, 0xFFD9


def check_end(content: bytes) -> None:
    """Refuse a JPEG, JPEG-LS or JPEG 2000 frame that was cut.

    On such a frame the decoder of JPEG-LS loops for ever, and that of JPEG 2000 makes up the rest.

    Raises:
        UnusableImageError: If the end marker is missing.
    """
    if not content.rstrip(b"\0").endswith(_END_OF_IMAGE):
        raise UnusableImageError("truncated DICOM: compressed frame has no end")


def jpeg_size(content: bytes) -> tuple[int, int, int]:
    """Rows, columns and components of a baseline JPEG or a JPEG-LS frame.

    Raises:
        UnusableImageError: If there is no such frame header.
    """
    at = 2
    while content[:2] == b"\xff\xd8" and at + 10 <= len(content) and content[at] == 0xFF:
        if content[at + 1] in (_JPEG_BASELINE_FRAME, _JPEG_LS_FRAME):
            return _number(content, at + 5, 2), _number(content, at + 7, 2), content[at + 9]
        at += 2 + _number(content, at + 2, 2)
    raise UnusableImageError("unreadable DICOM: no baseline JPEG or JPEG-LS frame")


def jpeg_2000_size(content: bytes) -> tuple[int, int, int]:
    """Rows, columns and components of a JPEG 2000 codestream.

    Raises:
        UnusableImageError: If it is none, if its components differ in size, or if it is cut into more parts than an
            image of its size can be meant to have.
    """
    if content[:4] != b"\xff\x4f\xff\x51" or len(content) < 45:
        raise UnusableImageError("unreadable DICOM: no JPEG 2000 codestream")
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
    """Markers of the main header and of the tile parts' headers, with their places."""
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
    """Upper bound of packets and code blocks of a component, by the coding style marker."""
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
