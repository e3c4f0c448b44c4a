"""Put the slices of DICOM series together: those of a folder, or of one multi-frame file.

Slices are ordered by their places, not by name or instance number. A series becomes one stack for each orientation
in it: the axial series of a lumbar examination often has a stack of its own tilt for each disc.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.tag import Tag

from data_scripts.imaging.dicom import SliceHeader, is_dicom, read_headers
from data_scripts.imaging.dicom_pixels import PIXEL_TAGS, check_pixels, decode_frame
from data_scripts.imaging.dicom_reading import frame_headers, num_frames, open_dicom
from data_scripts.imaging.dicom_window import WINDOW_TAGS, real_values
from data_scripts.imaging.images import UnusableImageError
from data_scripts.imaging.metaimage import MAX_VOLUME_BYTES
from data_scripts.imaging.voxel_grid import Grid

MAX_FILES = 10_000

_SAME_DIRECTION = 0.9998  # cosine of 1 degree
_SAME_PLACE = 0.1  # of the usual distance between slices
_GAP = 1.5
_NUM_NAMED = 5
_WITHOUT_IMAGES = ("SR", "PR", "KO", "DOC", "PLAN", "REG")  # modalities of reports, displays and notes
_PIXEL_TAGS = [
    Tag(keyword)
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", *PIXEL_TAGS, *WINDOW_TAGS)
]


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Parallel slices of one series, in order; axes k, j and i of `grid` run across slices, down and along rows."""

    frames: tuple[tuple[Path, int], ...]  # file of each slice, and index of the frame in it
    grid: Grid
    series_id: str  # `SeriesInstanceUID`, and the number of the stack if there are several
    sequence: str


class UnusableSeriesError(UnusableImageError):
    """The slices of one series make no volume; `series_id` names it."""

    def __init__(self, series_id: str, reason: str) -> None:
        super().__init__(reason)
        self.series_id = series_id

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.series_id, str(self))


def read_stacks(path: Path) -> list[Stack | UnusableSeriesError]:
    """Find the stacks in a folder, also in folders within it, or in one file; pixels are not read.

    Files that are not DICOM are passed over, and so are those that hold no image by their kind, such as a `DICOMDIR`
    or a structured report.

    Returns:
        The stacks of each series, by its id; an error for one whose slices make no volume.

    Raises:
        UnusableImageError: If there is no DICOM file, or one that cannot be read, which may be a slice of any series,
            or there are slices of several patients or examinations, of which a report is about one.
    """
    of_series: dict[str, list[SliceHeader]] = defaultdict(list)
    for file in _files(path) if path.is_dir() else [path]:
        try:
            for header in read_headers(file):
                of_series[header.series_id].append(header)
        except UnusableImageError as error:
            if _holds_no_image(file):
                continue
            raise UnusableImageError(f"{file.name!r} cannot be read as a slice: {error}; take it away") from error
    _check_one_examination(path, [header for headers in of_series.values() for header in headers])
    found: list[Stack | UnusableSeriesError] = []
    for series_id, headers in sorted(of_series.items()):
        groups = _by_orientation(headers)
        for number, group in enumerate(groups, start=1):
            name = f"{series_id}/{number}" if len(groups) > 1 else series_id
            try:
                found.append(_stack(name, group))
            except UnusableImageError as error:
                found.append(UnusableSeriesError(name, str(error)))
    return found


def read_frames(frames: Sequence[tuple[Path, int]]) -> tuple[np.ndarray, bool]:
    """Decode the slices of a stack.

    Returns:
        Their values, shape (k, j, i), up to a linear scale if that is the same for all slices; NaN where a slice
        is padded. And whether low values are bright (`MONOCHROME1`).

    Raises:
        UnusableImageError: If a slice cannot be decoded, is in colour, or the slices take more than
            `MAX_VOLUME_BYTES`.
    """
    slices, scales, are_inverted = zip(*_decoded(frames), strict=True)
    if len(set(are_inverted)) > 1:
        raise UnusableImageError("some slices of the series are MONOCHROME1 and some MONOCHROME2")
    if len(set(scales)) == 1 and scales[0] is not None:
        return np.stack(slices), are_inverted[0] != (scales[0][0] < 0)
    values = [
        pixels if scale is None else pixels * np.float32(scale[0]) + np.float32(scale[1])
        for pixels, scale in zip(slices, scales, strict=True)
    ]
    return np.stack(values), are_inverted[0]


def _holds_no_image(path: Path) -> bool:
    try:
        with open_dicom(path, [Tag("Modality")]) as file:
            return str(file.header.get("Modality")) in _WITHOUT_IMAGES
    except UnusableImageError:
        return False


def _check_one_examination(path: Path, headers: Sequence[SliceHeader]) -> None:
    if not headers:
        raise UnusableImageError(f"{path.name!r} holds no DICOM image")
    for what, ids in (
        ("patients", {header.patient_id for header in headers}),
        ("examinations", {header.study_id for header in headers}),
    ):
        if len(ids) > 1:
            raise UnusableImageError(f"{path.name!r} holds slices of {len(ids)} {what}; name a folder of one")


def _files(folder: Path) -> list[Path]:
    """List the DICOM files of a folder; raise an UnusableImageError if there are none, too many, or links."""
    files: list[Path] = []
    others: list[Path] = []
    for number, path in enumerate(sorted(folder.rglob("*"))):
        if number > MAX_FILES:
            raise UnusableImageError(f"folder {folder.name!r} has more than {MAX_FILES} files; name a series in it")
        if path.is_dir():
            continue
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UnusableImageError(f"{path.name!r} links to a file outside the folder; copy the file into it")
        (files if is_dicom(path) and path.name != "DICOMDIR" else others).append(path)
    if not files:
        named = ", ".join(path.name for path in others[:_NUM_NAMED]) or "no file"
        raise UnusableImageError(f"{folder.name!r} is a folder without DICOM slices ({named}); name one file in it")
    return files


def _by_orientation(headers: Sequence[SliceHeader]) -> list[list[SliceHeader]]:
    """Group parallel slices, in the order of the scanner."""
    groups: list[list[SliceHeader]] = []
    for header in sorted(headers, key=lambda one: (one.instance_number or 0, str(one.path), one.frame)):
        for group in groups:
            if _are_parallel(group[0], header):
                group.append(header)
                break
        else:
            groups.append([header])
    return groups


def _are_parallel(one: SliceHeader, other: SliceHeader) -> bool:
    if one.orientation is None or other.orientation is None:
        return one.orientation is other.orientation
    pairs = ((one.orientation[:3], other.orientation[:3]), (one.orientation[3:], other.orientation[3:]))
    return all(sum(a * b for a, b in zip(*pair, strict=True)) > _SAME_DIRECTION for pair in pairs)


def _stack(series_id: str, headers: Sequence[SliceHeader]) -> Stack:
    first = headers[0]
    for what, values in (
        ("sizes", {(header.columns, header.rows) for header in headers}),
        ("pixel spacings", {header.pixel_spacing_mm for header in headers}),
    ):
        if len(values) > 1:
            found = ", ".join(sorted(" x ".join(map(str, value or ("unknown",))) for value in values)[:_NUM_NAMED])
            raise UnusableImageError(f"slices of one series have several {what}: {found}")
    size = (len(headers), first.rows, first.columns)
    in_plane = first.pixel_spacing_mm or (None, None)
    thickness = first.slice_spacing_mm
    if first.orientation is None or any(header.corner_mm is None for header in headers):
        placed, corner, spacing = list(headers), None, thickness
    else:
        placed, spacing = _placed(headers)
        corner, spacing = placed[0].corner_mm, spacing or thickness
    directions = None
    if first.orientation is not None:
        row, column = first.orientation[:3], first.orientation[3:]
        directions = (tuple(np.cross(row, column).tolist()), tuple(column), tuple(row))
    return Stack(
        frames=tuple((header.path, header.frame) for header in placed),
        grid=Grid(
            size=size,
            spacing_mm=(spacing, *in_plane),
            directions=directions,
            corner_mm=corner,
            slice_axis=0,
        ),
        series_id=series_id,
        sequence=first.sequence,
    )


def _placed(headers: Sequence[SliceHeader]) -> tuple[list[SliceHeader], float | None]:
    """Order slices along their normal; return their distance, too, None for a single slice."""
    assert headers[0].orientation is not None
    normal = np.cross(headers[0].orientation[:3], headers[0].orientation[3:])
    places = np.array([header.corner_mm for header in headers]) @ normal
    order = np.argsort(places, kind="stable")
    placed = [headers[index] for index in order]
    steps = np.diff(places[order])
    if not len(steps):
        return placed, None
    usual = float(np.median(steps))
    if steps.min() <= _SAME_PLACE * usual:
        at = int(steps.argmin())
        raise UnusableImageError(
            f"slices lie at the same place ({_name(placed[at])} and {_name(placed[at + 1])}), as copies, echoes or "
            "time points do; keep one of each"
        )
    if steps.max() > _GAP * usual:
        at = int(steps.argmax())
        raise UnusableImageError(
            f"slices are missing: {_name(placed[at])} and {_name(placed[at + 1])} are {steps.max():.1f} mm apart, the "
            f"others {usual:.1f} mm; complete the series, or name its slices one by one"
        )
    return placed, float(steps.mean())


def _name(header: SliceHeader) -> str:
    return f"{header.path.name} frame {header.frame}" if header.frame else header.path.name


def _decoded(frames: Sequence[tuple[Path, int]]) -> Iterator[tuple[np.ndarray, tuple[float, float] | None, bool]]:
    """Yield the values of each slice, the linear scale that is still to be applied, and whether it is inverted."""
    num_bytes = 0
    for path, frame in frames:
        with open_dicom(path, _PIXEL_TAGS) as file:
            check_pixels(file)
            if frame >= num_frames(file.header):
                raise UnusableImageError(f"{path.name!r} has no frame {frame}")
            header = next(frame_headers(file.header, range(frame, frame + 1)))
            stored = decode_frame(file, frame)
            photometric = str(header.get("PhotometricInterpretation") or "MONOCHROME2")
            if stored.ndim == 3 or photometric == "PALETTE COLOR":
                raise UnusableImageError("slices in colour make no volume; name them one by one")
            values, scale = real_values(stored, header)
        num_bytes += values.nbytes
        if num_bytes > MAX_VOLUME_BYTES:
            raise UnusableImageError(f"volume too large: {len(frames)} slices, at most {MAX_VOLUME_BYTES} bytes")
        yield values, scale, photometric == "MONOCHROME1"
