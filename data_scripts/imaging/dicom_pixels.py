"""The stored values of a frame of an open DICOM file: checked before a decoder sees them, then decoded."""

from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import get_decoder
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from data_scripts.imaging.dicom_codestreams import check_end, jpeg_2000_size, jpeg_size
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
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
# One decoder for each, so that a slice is the same wherever it is read, whatever else is installed there.
_DECODING_PLUGINS = {
    RLELossless: "pylibjpeg",
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
    JPEG2000Lossless: "pylibjpeg",
    JPEG2000: "pylibjpeg",
    JPEGBaseline8Bit: "pillow",
}


def check_pixels(file: DicomFile) -> None:
    """Refuse by the header what could not be decoded, or not within bounds; nothing is allocated.

    Raises:
        UnusableImageError: If there are no pixels, the encoding is not known, the header lacks or contradicts what
            decoding needs, or the file is too short for what it says.
    """
    if not file.pixel_keyword:
        raise UnusableImageError("no DICOM image: the file has no pixels")
    syntax = file.transfer_syntax
    if syntax not in _NATIVE and syntax not in _DECODING_PLUGINS:
        raise UnusableImageError(_unknown_syntax(syntax))
    header = file.header
    shape = [_count(header, keyword) for keyword in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated")]
    rows, columns, samples, bits = shape
    if samples not in (1, 3) or bits not in (8, 16, 32, 64):
        raise UnusableImageError(f"DICOM image of {samples} samples of {bits} bits; 1 or 3 of 8 to 64 can be read")
    stored, high = header.get("BitsStored") or bits, header.get("HighBit")
    if high is not None and high != stored - 1:
        raise UnusableImageError(
            f"DICOM image of {stored} bits up to bit {high}; only HighBit = BitsStored - 1 is read"
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


def _unknown_syntax(syntax: UID) -> str:
    if "JPEG Lossless" in syntax.name or "JPEG Extended" in syntax.name:
        way_out = "decompress it first, with pydicom and its plug-in pylibjpeg-libjpeg or with dcmdjpeg"
    else:
        way_out = "decompress it first"
    return f"DICOM transfer syntax {syntax.name[:80]!r} is not read; {way_out}"


def decode_frame(file: DicomFile, frame: int) -> np.ndarray:
    """Decode the stored values of a frame of a checked file.

    Returns:
        Stored values, shape (rows, columns), or (rows, columns, 3) in RGB.

    Raises:
        UnusableImageError: If a compressed frame is cut, or not of the size that the header states.
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
    """Refuse a compressed frame whose own header states another size than the file's."""
    if file.transfer_syntax == RLELossless:
        return  # has no size of its own
    check_end(content)
    is_jpeg_2000 = file.transfer_syntax in (JPEG2000, JPEG2000Lossless)
    stated = jpeg_2000_size(content) if is_jpeg_2000 else jpeg_size(content)
    expected = (file.header.Rows, file.header.Columns, file.header.SamplesPerPixel)
    if stated != expected:
        raise UnusableImageError(f"compressed frame is {stated}, the header says {expected} (rows, columns, samples)")
