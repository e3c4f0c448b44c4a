"""Read DICOM files, whatever their names, as 8-bit grey slices and the facts of their headers.

Slices have square pixels and are turned to the radiological convention (`orientation`). Built on pydicom and its
decoders. Coordinates are the patient's: x to the left, y to the back, z to the head, in mm.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import Dataset
from pydicom.tag import Tag
from tqdm.auto import tqdm

from data_scripts.imaging.dicom_pixels import PIXEL_TAGS, check_pixels, decode_frame
from data_scripts.imaging.dicom_reading import finite_numbers, frame_headers, num_frames, open_dicom
from data_scripts.imaging.dicom_sequence import SEQUENCE_TAGS, mr_sequence
from data_scripts.imaging.dicom_window import WINDOW_TAGS, grey_levels
from data_scripts.imaging.images import (
    MAX_PIXELS,
    ORIENTATION_STATED,
    WINDOW_REPLACED,
    UnusableImageError,
    read_image,
)
from data_scripts.imaging.orientation import (
    AS_STORED,
    SHOWN_NORMALS,
    Turn,
    are_directions,
    normal_of,
    plane_across,
    plane_of,
    turn_of,
    turned_directions,
    turned_image,
)
from data_scripts.records import KNEE, LUMBAR_SPINE
from data_scripts.system.worker_pool import Crash, Workers

NUM_READ_HERE = 2048  # headers that this process reads itself: starting others takes as long
MAX_PIXEL_ASPECT = 20  # ratio of a pixel's sides; a larger one is a broken header, and would make a huge image

_GEOMETRY_TAGS = (
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
_STACK_TAGS = ("SpacingBetweenSlices", "SliceThickness")
_IDENTITY_TAGS = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "InstanceNumber")
_HEADER_TAGS = [
    Tag(keyword)
    for tags in (_GEOMETRY_TAGS, _STACK_TAGS, _IDENTITY_TAGS, ("BodyPartExamined",), SEQUENCE_TAGS, PIXEL_TAGS)
    for keyword in tags
]
# `BodyPartExamined`, letters only. A spine whose part is not named may be the lumbar one: it says nothing.
_ANATOMIES = (
    (r"LUMB|^LS?SP", LUMBAR_SPINE),
    (r"CERV|^CSP", "cervical spine"),
    (r"THORAC|^[TD]SP", "thoracic spine"),
    (r"KNEE", KNEE),
    (r"HEAD|BRAIN|SKULL", "head"),
    *((part, part.lower()) for part in ("NECK", "CHEST", "ABDOMEN", "PELVIS", "BREAST", "HEART")),
    *((part, part.lower()) for part in ("HIP", "THIGH", "LEG", "ANKLE", "FOOT")),
    *((part, part.lower()) for part in ("SHOULDER", "ELBOW", "WRIST", "HAND", "ARM")),
)
_SLICE_TAGS = [Tag(keyword) for keyword in (*_GEOMETRY_TAGS, *PIXEL_TAGS, *WINDOW_TAGS)]

_FIRST_GROUPS = (0x0002, 0x0008)  # file meta information; identification, where the meta information is missing


@dataclass(frozen=True, kw_only=True)
class SliceHeader:
    """What the header says about one frame; None or an empty text where it says nothing.

    Ids and descriptions are as in the file: they may name a patient.
    """

    path: Path
    frame: int  # index in the file
    rows: int  # height as stored in the file, in pixels
    columns: int
    patient_id: str
    study_id: str  # `StudyInstanceUID`
    series_id: str  # `SeriesInstanceUID`
    plane: str  # among `records.PLANES`, see `orientation.plane_of`
    sequence: str  # among `records.SEQUENCES`, see `dicom_sequence.mr_sequence`
    anatomy: str  # as `records.SourceAbout.anatomy`, see `anatomy_of`
    # Direction cosines of a row, then of a column, as stored; None if they are missing or not at a right angle.
    orientation: tuple[float, ...] | None
    corner_mm: tuple[float, ...] | None  # patient coordinates of the first pixel
    pixel_spacing_mm: tuple[float, float] | None  # between rows, between columns, as stored
    slice_spacing_mm: float | None  # between the middles of neighbours, or if not stated, the thickness of the slice
    instance_number: int | None  # the scanner's count within the series, not the order in space

    @property
    def turn(self) -> Turn:
        """How `read_slice` turns the stored pixels if it is not given the plane."""
        return _turn(self.orientation)

    @property
    def normal(self) -> tuple[float, ...] | None:
        """Unit vector across the slice: to the head for axial slices, right for sagittal, back for coronal ones."""
        if self.orientation is None:
            return None
        return normal_of(*turned_directions(*_directions(self.orientation), self.turn))

    @property
    def square_size(self) -> tuple[int, int]:
        """Width and height with square pixels, before the slice is turned."""
        return square_pixel_size(self.rows, self.columns, self.pixel_spacing_mm)

    @property
    def stored_spacing_mm(self) -> float | None:
        """Side of a pixel of `read_slice`'s image: the finer of the two spacings."""
        return None if self.pixel_spacing_mm is None else min(self.pixel_spacing_mm)


HeadersOrError = list[SliceHeader] | UnusableImageError


def is_dicom(path: Path) -> bool:
    """Whether a file starts like DICOM: with the prefix, or where that is missing, a first element.

    Reads 140 bytes. The rest of the file may still be unreadable.
    """
    if not path.is_file():  # opening a pipe would wait for its writer
        return False
    try:
        with path.open("rb") as file:
            start = file.read(140)
    except OSError:
        return False
    if start[128:132] == b"DICM":
        return True
    little, big = (int.from_bytes(start[:2], order) for order in ("little", "big"))
    has_vr = start[4:6].isalpha() and start[4:6].isupper()
    is_short = len(start) >= 8 and int.from_bytes(start[4:8], "little") <= 1024
    return (little in _FIRST_GROUPS and (has_vr or is_short)) or (big in _FIRST_GROUPS and has_vr)


def read_headers(path: Path) -> list[SliceHeader]:
    """Read the header of each frame of a file; pixels are not read.

    Raises:
        UnusableImageError: If the file is not DICOM, has no image, or has a header that `read_slice` would refuse.
    """
    with open_dicom(path, _HEADER_TAGS) as file:
        check_pixels(file)
        headers = frame_headers(file.header, range(num_frames(file.header)))
        return [_slice_header(path, frame, header) for frame, header in enumerate(headers)]


def read_all_headers(paths: Sequence[Path], num_proc: int = 1) -> Iterator[HeadersOrError]:
    """Read the headers of each file, in order, in several processes if there are many.

    Yields:
        The header of each frame of a file, or the error of `read_headers`.
    """
    if not paths:
        return
    num_read_here = NUM_READ_HERE if num_proc > 1 else len(paths)
    here = map(_headers_or_error, paths[:num_read_here])
    there = _read_in_workers(paths[num_read_here:], num_proc)
    yield from tqdm(chain(here, there), total=len(paths), desc="headers", unit=" files")


def _read_in_workers(paths: Sequence[Path], num_proc: int) -> Iterator[HeadersOrError]:
    if paths:
        with Workers(num_proc, preload=(__name__,)) as workers:
            for outcome in workers.map(_headers_or_error, paths):
                yield UnusableImageError(outcome.reason) if isinstance(outcome, Crash) else outcome


def _headers_or_error(path: Path) -> HeadersOrError:
    try:
        return read_headers(path)
    except UnusableImageError as error:
        return error


def read_slice(path: Path, frame: int = 0, plane: str | None = None) -> Image.Image:
    """Decode one frame to 8-bit grey (mode `L`), windowed, with square pixels, in radiological orientation.

    The window is the first of the file's (VOI LUT, then windows) that shows the slice, see
    `dicom_window.shows_slice`; without one, it lies between the 0.5 and 99.5 percentiles of the slice. `MONOCHROME1` is
    inverted, colour reduced to luminance. If the spacings of rows and columns differ, the coarser direction is
    interpolated to the finer spacing. A file that states no orientation is not turned; `plane`, if known, helps as in
    `orientation.turn_of`.

    Returns:
        The slice; its `info` has `ORIENTATION_STATED` and `WINDOW_REPLACED`.

    Raises:
        UnusableImageError: If the file cannot be decoded, within bounds, to the size that its header states.
    """
    with open_dicom(path, _SLICE_TAGS) as file:
        check_pixels(file)
        count = num_frames(file.header)
        if not 0 <= frame < count:
            raise UnusableImageError(f"no frame {frame}: the file has {count}")
        header = next(frame_headers(file.header, range(frame, frame + 1)))
        size = square_pixel_size(header.Rows, header.Columns, _spacing(header))
        grey, is_replaced = grey_levels(decode_frame(file, frame), header)
        orientation = _orientation(header)
    image = Image.fromarray(grey)
    image = image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)
    image = turned_image(image, _turn(orientation, plane))
    image.info |= {ORIENTATION_STATED: orientation is not None, WINDOW_REPLACED: is_replaced}
    return image


def read_mask(path: Path, slice_path: Path, frame: int = 0, plane: str | None = None) -> Image.Image:
    """Read the mask of a slice: resampled to square pixels and turned with it.

    A mask lies as the stored slice does, on the stored grid or on one of square pixels; one that has the size of
    `read_slice`'s image only, with rows and columns exchanged, is taken to be turned already.

    Args:
        path: Picture of class indices, such as a PNG.
        slice_path: DICOM file of the slice.
        frame: Index of the slice in that file.
        plane: As `read_slice` is given it.

    Returns:
        Class indices in the mask's mode, of the size of `read_slice`'s image.

    Raises:
        UnusableImageError: If a file cannot be read, or the mask has neither size.
    """
    mask, header = read_image(path), read_headers(slice_path)[frame]
    turn = _turn(header.orientation, plane)
    stored_size, square_size = (header.columns, header.rows), header.square_size
    turned_size = square_size[::-1] if turn.transpose else square_size
    if mask.size not in (stored_size, square_size, turned_size):
        sizes = [f"{width} x {height}" for width, height in dict.fromkeys((stored_size, turned_size))]
        raise UnusableImageError(
            f"mask is {mask.width} x {mask.height}, its image {' as stored, and '.join(sizes)}"
            + " as read" * (len(sizes) > 1)
        )
    if mask.size not in (stored_size, square_size):
        return mask
    if mask.size != square_size:
        mask = mask.resize(square_size, Image.Resampling.NEAREST)
    return turned_image(mask, turn)


def order_slices(headers: Iterable[SliceHeader]) -> list[SliceHeader]:
    """Order slices along their normal: foot to head for axial ones, left to right for sagittal ones.

    File names and instance numbers follow the scanner, which may interleave slices or number them from the head down;
    they only break ties. Stacks through several discs, each with its own tilt, are ordered along their mean normal.
    If a slice of the series has no position, all are ordered by instance number.
    """
    by_number = sorted(headers, key=lambda header: (header.instance_number or 0, str(header.path), header.frame))
    placed = [(header.normal, header.corner_mm) for header in by_number if header.normal and header.corner_mm]
    if not placed or len(placed) < len(by_number):
        return by_number
    normals, corners_mm = np.array(placed).transpose(1, 0, 2)
    normal = (np.where(normals @ normals[0] < 0, -1, 1) @ normals).tolist()
    sign = 1 if np.dot(normal, SHOWN_NORMALS[plane_across(normal)]) > 0 else -1
    places_mm = corners_mm @ np.multiply(sign, normal)
    return [by_number[index] for index in np.argsort(places_mm, kind="stable")]


def square_pixel_size(rows: int, columns: int, spacing_mm: tuple[float, float] | None) -> tuple[int, int]:
    """Compute width and height of an image once its pixels are squares of the finer spacing.

    Raises:
        UnusableImageError: If the pixels are implausibly long, or the image would be too large.

    Example:
        >>> square_pixel_size(100, 200, (1.5, 0.5))
        (200, 300)
    """
    if spacing_mm is None:
        return columns, rows
    finer = min(spacing_mm)
    if max(spacing_mm) > MAX_PIXEL_ASPECT * finer:
        raise UnusableImageError(f"implausible pixel spacing {spacing_mm[0]:g} x {spacing_mm[1]:g} mm")
    height, width = round(rows * spacing_mm[0] / finer), round(columns * spacing_mm[1] / finer)
    if width * height > MAX_PIXELS:
        raise UnusableImageError(f"image too large: {width} x {height}, at most {MAX_PIXELS} pixels")
    return width, height


def _directions(orientation: tuple[float, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return orientation[:3], orientation[3:]


def _turn(orientation: tuple[float, ...] | None, plane: str | None = None) -> Turn:
    return AS_STORED if orientation is None else turn_of(*_directions(orientation), plane)


def anatomy_of(body_part: str) -> str:
    """Name what a slice shows, by the `BodyPartExamined` of its header; `unknown` if that does not tell.

    Example:
        >>> [anatomy_of(name) for name in ("LSPINE", "L-Spine", "LUMBAR SPINE", "SPINE", "TLSPINE", "KNEE", "")]
        ['lumbar spine', 'lumbar spine', 'lumbar spine', 'unknown', 'unknown', 'knee', 'unknown']
    """
    letters = re.sub("[^A-Z]", "", body_part.upper())
    found = {anatomy for pattern, anatomy in _ANATOMIES if re.search(pattern, letters)}
    return found.pop() if len(found) == 1 else "unknown"


def _slice_header(path: Path, frame: int, header: Dataset) -> SliceHeader:
    orientation = _orientation(header)
    spacing = _spacing(header)
    square_pixel_size(header.Rows, header.Columns, spacing)
    instance = _numbers(header, "InStackPositionNumber", 1) or _numbers(header, "InstanceNumber", 1)
    return SliceHeader(
        path=path,
        frame=frame,
        rows=header.Rows,
        columns=header.Columns,
        patient_id=_text(header, "PatientID"),
        study_id=_text(header, "StudyInstanceUID"),
        series_id=_text(header, "SeriesInstanceUID"),
        plane="unknown" if orientation is None else plane_of(*_directions(orientation)),
        sequence=mr_sequence(header),
        anatomy=anatomy_of(_text(header, "BodyPartExamined")),
        orientation=orientation,
        corner_mm=_numbers(header, "ImagePositionPatient", 3),
        pixel_spacing_mm=spacing,
        slice_spacing_mm=_slice_spacing(header),
        instance_number=int(instance[0]) if instance else None,
    )


def _orientation(header: Dataset) -> tuple[float, ...] | None:
    cosines = _numbers(header, "ImageOrientationPatient", 6)
    return cosines if cosines is not None and are_directions(*_directions(cosines)) else None


def _spacing(header: Dataset) -> tuple[float, float] | None:
    """Return the spacing in the patient, or that of the detector for an uncalibrated projection."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        spacing = _numbers(header, keyword, 2)
        if spacing is not None and min(spacing) > 0:
            return spacing[0], spacing[1]
    return None


def _slice_spacing(header: Dataset) -> float | None:
    for keyword in _STACK_TAGS:
        spacing = _numbers(header, keyword, 1)
        if spacing is not None and spacing[0] > 0:
            return spacing[0]
    return None


def _numbers(header: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """Return the numbers of an element; None unless there are `count`, all finite."""
    numbers = finite_numbers(header, keyword)
    return numbers if len(numbers) == count else None


def _text(header: Dataset, keyword: str) -> str:
    value = header.get(keyword)
    return "" if value is None else "".join(filter(str.isprintable, str(value))).strip()
