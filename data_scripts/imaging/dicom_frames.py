"""The header of each frame of a DICOM file, enhanced multi-frame files included, as if it were a file of its own."""

import io
from collections.abc import Iterator, MutableSequence

from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.filereader import read_sequence, read_sequence_item

from data_scripts.imaging.dicom_reading import MAX_VALUE_BYTES, BoundedReader
from data_scripts.imaging.images import UnusableImageError

# Macros of an enhanced file whose elements mean the same as in a file of one frame.
_FUNCTIONAL_GROUPS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
    "MREchoSequence",
    "MRTimingAndRelatedParametersSequence",
    "FrameContentSequence",
)
_ITEM_HEADER_BYTES = 8


def frame_headers(header: Dataset, frames: range) -> Iterator[Dataset]:
    """Header of each frame, flat: as if it were a file of its own.

    The functional groups of an enhanced file, the shared ones and then the frame's own, are laid over the file's
    elements. A file without them gives its header again.
    """
    if "PerFrameFunctionalGroupsSequence" not in header and "SharedFunctionalGroupsSequence" not in header:
        yield from (header for _ in frames)
        return
    shared = _first_item(header, "SharedFunctionalGroupsSequence")
    own = _items(header, "PerFrameFunctionalGroupsSequence")
    for frame in frames:
        flat = _copy(header)
        for group in (shared, own[frame] if frame < len(own) else None):
            if group is not None:
                for macro in (_first_item(group, keyword) for keyword in _FUNCTIONAL_GROUPS):
                    _lay_over(flat, macro or Dataset())
        yield flat


def _lay_over(header: Dataset, macro: Dataset) -> None:
    """Set the macro's elements in the header, as they are, unless one of them is implausibly long."""
    for tag in macro.keys():  # noqa: SIM118 (iterating would convert)
        element = macro.get_item(tag)
        if isinstance(element, RawDataElement) and len(element.value or b"") > MAX_VALUE_BYTES:
            raise UnusableImageError(f"DICOM element {tag} of {len(element.value or b'')} bytes in a functional group")
        header[tag] = element


def _copy(header: Dataset) -> Dataset:
    """A data set of the same elements; `Dataset(header)` would share the dictionary that holds them."""
    copied = Dataset({tag: header.get_item(tag) for tag in header.keys()})  # noqa: SIM118 (iterating would convert)
    implicit, little = header.original_encoding
    copied.set_original_encoding(implicit, little, header.original_character_set)
    return copied


def _items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Items of a sequence; unlike pydicom, not believing that there are as many as the bytes allow."""
    element = dataset.get_item(keyword)
    if not isinstance(element, RawDataElement):
        return [] if element is None else list(element.value or ())
    stream = BoundedReader(io.BytesIO(element.value or b""), keyword)
    return list(read_sequence(stream, *_encoding_of(element, dataset)))


def _first_item(dataset: Dataset, keyword: str) -> Dataset | None:
    """First item of a sequence that holds one; further ones are not even parsed."""
    element = dataset.get_item(keyword)
    if not isinstance(element, RawDataElement):
        return None if element is None or not element.value else element.value[0]
    if len(element.value or b"") < _ITEM_HEADER_BYTES:
        return None
    implicit, little, _, encoding = _encoding_of(element, dataset)
    stream = BoundedReader(io.BytesIO(element.value), keyword)
    return read_sequence_item(stream, implicit, little, encoding)


def _encoding_of(element: RawDataElement, dataset: Dataset) -> tuple[bool, bool, int, str | MutableSequence[str]]:
    """How the bytes of a sequence are written, in the order in which `read_sequence` takes it."""
    encoding = dataset.original_character_set or "iso8859"
    return element.is_implicit_VR, element.is_little_endian, len(element.value or b""), encoding
