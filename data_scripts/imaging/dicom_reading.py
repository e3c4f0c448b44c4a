"""Open DICOM files that may be truncated or hostile, within bounds of time and memory.

pydicom trusts a file: it reads as many bytes as an element claims, unpacks a deflated file whole, and makes an object
of a kilobyte for each eight bytes of an empty sequence item. Here it reads through `BoundedReader`, which stops at the
end of the file and after a fixed amount of work, and pixels stay in the file until their frame is decoded.
"""

import io
import logging
import math
import warnings
import zlib
from collections.abc import Iterator, MutableSequence, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pydicom.config
from pydicom import Dataset, uid
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_dataset, read_partial, read_preamble, read_sequence, read_sequence_item
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

from data_scripts.imaging.images import UnusableImageError

MAX_READS = 100_000  # two or three for an element or sequence item; an enhanced MR file needs 250 for a frame
MAX_READ_BYTES = 2**27  # for one file: its header and one compressed frame
MAX_INFLATED_BYTES = 2**27
MAX_VALUE_BYTES = 2**18  # for an element that is used: twice a lookup table of 65,536 entries
MAX_FRAMES = 4096

PIXEL_KEYWORDS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}

# Macros of an enhanced file whose elements mean the same as in a file of one frame.
_FUNCTIONAL_GROUPS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
    "MREchoSequence",
    "MRTimingAndRelatedParametersSequence",
    "MRModifierSequence",
    "MRImageFrameTypeSequence",
    "FrameContentSequence",
    # Where a converted classic file has what the macros above do not name.
    "UnassignedSharedConvertedAttributesSequence",
    "UnassignedPerFrameConvertedAttributesSequence",
)
_ITEM_HEADER_BYTES = 8
_META_GROUP = 0x0002
_LOGGER = logging.getLogger("pydicom")
_SILENT = logging.CRITICAL + 1
_UNDEFINED_LENGTH = 0xFFFFFFFF
_GROUP_SEQUENCES = (Tag("SharedFunctionalGroupsSequence"), Tag("PerFrameFunctionalGroupsSequence"))


class BoundedReader:
    """A binary file that allows only a fixed amount of reading."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.name = name
        self._file = file
        self._num_bytes = file.seek(0, io.SEEK_END)
        self._reads_left = MAX_READS
        self._bytes_left = MAX_READ_BYTES
        file.seek(0)
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes, or all if negative; raise an UnusableImageError beyond what an honest file needs."""
        left = max(0, self._num_bytes - self._file.tell())
        size = left if size < 0 else min(size, left)
        self._reads_left -= 1
        self._bytes_left -= size
        if self._reads_left < 0 or self._bytes_left < 0:
            raise UnusableImageError("DICOM header too large: more elements or bytes than any slice needs")
        return self._file.read(size)

    @property
    def num_bytes_left(self) -> int:
        """Number of bytes from here to the end of the file."""
        return self._num_bytes - self._file.tell()


@dataclass(frozen=True, kw_only=True)
class DicomFile:
    """An open file: its header, and where its pixels begin."""

    header: Dataset  # elements before the pixels
    transfer_syntax: uid.UID  # how the pixels are encoded
    stream: BoundedReader  # positioned at the value of the pixel element
    pixel_keyword: str  # name of that element; empty if the file has none
    pixel_bytes: int | None  # its length; None if it is encapsulated in fragments
    pixel_vr: str  # its value representation (`OB`, `OW`)


@contextmanager
def open_dicom(path: Path, tags: Sequence[BaseTag] = ()) -> Iterator[DicomFile]:
    """Open a file, whatever its name, and read its header, or faster, only the elements of `tags`.

    The pixels stay in the file. Any error, also inside the `with` block, becomes an `UnusableImageError`.
    """
    if not path.is_file():
        raise UnusableImageError(f"missing image: no file {path.name!r}")
    with _refusing(path), _quiet(), path.open("rb") as file:
        yield _read_header(BoundedReader(file, path.name), tags)


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Turn any error of a parser or decoder into an `UnusableImageError`."""
    try:
        yield
    except (UnusableImageError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    # pydicom and its decoders raise anything: struct.error, KeyError, NotImplementedError, RecursionError, MemoryError;
    # a panic of the RLE decoder derives from BaseException.
    except BaseException as error:
        first_line = (str(error).replace(str(path), path.name).splitlines() or [""])[0][:300]
        raise UnusableImageError(f"unreadable DICOM: {type(error).__name__}: {first_line}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence pydicom, which would repeat a warning for each of a scanner's ten thousand slices.

    Its warnings are harmless (a value longer than its type allows) or become an `UnusableImageError`.
    """
    if _LOGGER.level != _SILENT:  # only once: a change of level empties the caches of all loggers
        _LOGGER.setLevel(_SILENT)
    with warnings.catch_warnings(), pydicom.config.disable_value_validation():
        warnings.simplefilter("ignore")
        yield


def _read_header(stream: BoundedReader, tags: Sequence[BaseTag]) -> DicomFile:
    pixel_elements: list[tuple[int, str | None, int, int]] = []
    wanted = frozenset(tags)

    def at_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:
        if MAX_VALUE_BYTES < length < _UNDEFINED_LENGTH and tag in wanted and tag not in _GROUP_SEQUENCES:
            raise UnusableImageError(f"DICOM element {tag} of {length} bytes, more than any slice needs")
        if tag in PIXEL_KEYWORDS:
            pixel_elements.append((tag, vr, length, stream.tell()))
            return True
        return False

    def after_meta(tag: BaseTag, vr: str | None, length: int) -> bool:
        return tag >> 16 != _META_GROUP

    read_preamble(stream, force=True)  # type: ignore[arg-type]
    meta = read_dataset(stream, False, True, stop_when=after_meta)  # type: ignore[arg-type]
    syntax = uid.UID(str(meta.get("TransferSyntaxUID") or ""))
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        stream = BoundedReader(io.BytesIO(_inflate(stream.read())), stream.name)
    options: dict[str, Any] = {"stop_when": at_pixels, "specific_tags": list(tags) or None}
    header: Dataset
    if syntax.is_transfer_syntax:
        header = read_dataset(stream, syntax.is_implicit_VR, syntax.is_little_endian, **options)  # type: ignore[arg-type]
    else:
        stream.seek(0)
        header = read_partial(stream, force=True, **options)  # type: ignore[arg-type]
    if not syntax:
        implicit, little = header.original_encoding
        explicit = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
        syntax = uid.ImplicitVRLittleEndian if implicit else explicit
    tag, vr, length, start = pixel_elements[-1] if pixel_elements else (0, "", 0, 0)
    if pixel_elements:
        stream.seek(start)
    return DicomFile(
        header=header,
        transfer_syntax=syntax,
        stream=stream,
        pixel_keyword=PIXEL_KEYWORDS.get(tag, ""),
        pixel_bytes=None if length == _UNDEFINED_LENGTH else length,
        pixel_vr=vr or "OW",
    )


def _inflate(content: bytes) -> bytes:
    """Unpack a deflated dataset up to a bound: a kilobyte can unpack to a megabyte."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(content, MAX_INFLATED_BYTES)
    if inflater.unconsumed_tail:
        raise UnusableImageError(f"deflated DICOM file unpacks to more than {MAX_INFLATED_BYTES >> 20} MiB")
    if not inflater.eof:
        raise UnusableImageError("unreadable DICOM: deflated data are truncated")
    return inflated


def num_frames(header: Dataset) -> int:
    """Read the number of frames, 1 by default; raise an UnusableImageError unless it is between 1 and `MAX_FRAMES`."""
    value = header.get("NumberOfFrames")
    count = 1 if value in (None, "") else int(value)
    if not 1 <= count <= MAX_FRAMES:
        raise UnusableImageError(f"DICOM file claims {count} frames; supported are 1 to {MAX_FRAMES}")
    return count


def finite_numbers(header: Dataset, keyword: str) -> tuple[float, ...]:
    """Read the numbers of an element; empty if it is missing, or one number is unreadable or not finite."""
    try:
        value = header.get(keyword)
        values = value if isinstance(value, MultiValue) else () if value is None else (value,)
        numbers = tuple(float(number) for number in values)
    # What pydicom raises for a damaged element.
    except (ArithmeticError, LookupError, TypeError, ValueError, NotImplementedError):
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()


def frame_headers(header: Dataset, frames: range) -> Iterator[Dataset]:
    """Yield the header of each frame as if the frame were a file of its own.

    The functional groups of an enhanced file, first the shared ones, then the frame's own, override the file's
    elements. A file without groups yields its header for each frame.
    """
    if "PerFrameFunctionalGroupsSequence" not in header and "SharedFunctionalGroupsSequence" not in header:
        yield from (header for _ in frames)
        return
    common = _copy(header)
    _lay_macros_over(common, _first_item(header, "SharedFunctionalGroupsSequence"))
    own = _items(header, "PerFrameFunctionalGroupsSequence")
    for frame in frames:
        flat = _copy(common)
        _lay_macros_over(flat, own[frame] if frame < len(own) else None)
        yield flat


def _lay_macros_over(header: Dataset, group: Dataset | None) -> None:
    if group is None:
        return
    for keyword in _FUNCTIONAL_GROUPS:
        if (macro := _first_item(group, keyword)) is not None:
            _lay_over(header, macro)


def _lay_over(header: Dataset, macro: Dataset) -> None:
    for tag in macro.keys():  # noqa: SIM118 (iterating would convert)
        element = macro.get_item(tag)
        if isinstance(element, RawDataElement) and len(element.value or b"") > MAX_VALUE_BYTES:
            raise UnusableImageError(f"DICOM element {tag} of {len(element.value or b'')} bytes in a functional group")
        header[tag] = element


def _copy(header: Dataset) -> Dataset:
    """Copy a dataset's elements; `Dataset(header)` would share the dictionary that holds them."""
    copied = Dataset({tag: header.get_item(tag) for tag in header.keys()})  # noqa: SIM118 (iterating would convert)
    implicit, little = header.original_encoding
    copied.set_original_encoding(implicit, little, header.original_character_set)
    return copied


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    element = dataset.get_item(keyword)
    if not isinstance(element, RawDataElement):
        return [] if element is None else list(element.value or ())
    stream = BoundedReader(io.BytesIO(element.value or b""), keyword)
    return list(read_sequence(stream, *_encoding_of(element, dataset)))


def _first_item(dataset: Dataset, keyword: str) -> Dataset | None:
    """Parse the first item of a sequence, and no other."""
    element = dataset.get_item(keyword)
    if not isinstance(element, RawDataElement):
        return None if element is None or not element.value else element.value[0]
    if len(element.value or b"") < _ITEM_HEADER_BYTES:
        return None
    implicit, little, _, encoding = _encoding_of(element, dataset)
    stream = BoundedReader(io.BytesIO(element.value), keyword)
    return read_sequence_item(stream, implicit, little, encoding)


def _encoding_of(element: RawDataElement, dataset: Dataset) -> tuple[bool, bool, int, str | MutableSequence[str]]:
    """Return how the bytes of a sequence are written, in the argument order of `read_sequence`."""
    encoding = dataset.original_character_set or "iso8859"
    return element.is_implicit_VR, element.is_little_endian, len(element.value or b""), encoding
