"""Read a NIfTI volume (`.nii`, `.nii.gz`), NIfTI-1 or 2, within bounds.

nibabel interprets the header. It would also inflate whatever a small file holds, and parse its extensions: the voxels
are read here, as many bytes as the header states.
"""

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError

from data_scripts.imaging.images import UnusableImageError
from data_scripts.imaging.metaimage import MAX_VOLUME_BYTES
from data_scripts.imaging.orientation import are_directions
from data_scripts.imaging.voxel_grid import Grid

MAX_DATA_OFFSET = 2**24  # header and extensions; some converters keep a whole DICOM header there

_NUM_HEADER_BYTES = 544
_GZIP = b"\x1f\x8b"
_PAIR_MAGIC = (b"ni1", b"ni2")
_MM = {"mm": 1.0, "unknown": 1.0, "meter": 1000.0, "micron": 0.001}


@dataclass(frozen=True, kw_only=True)
class NiftiHeader:
    """The checked header of a file, with axes k, j and i; i runs fastest in the file."""

    grid: Grid
    pixel_type: np.dtype  # with its byte order
    data_start: int  # first byte of the voxels
    slope: float  # value of a voxel: slope x stored + intercept
    intercept: float


def is_nifti(path: Path) -> bool:
    """Whether a file is named like NIfTI, or starts like it or an Analyze header, perhaps in gzip."""
    if path.is_file() and path.name.lower().endswith((".nii", ".nii.gz")):
        return True
    try:
        with _opened(path) as file:
            start = file.read(_NUM_HEADER_BYTES)
    except UnusableImageError:
        return False
    return start[:4] in (b"\x5c\1\0\0", b"\0\0\1\x5c", b"\x1c\2\0\0", b"\0\0\2\x1c")  # length of the header


def read_header(path: Path) -> NiftiHeader:
    """Read the header of a file.

    Raises:
        UnusableImageError: If the file is missing, or not one grey volume of at most `MAX_VOLUME_BYTES` in one file.
    """
    with _opened(path) as file:
        return _header(file.read(_NUM_HEADER_BYTES))


def read_voxels(path: Path) -> np.ndarray:
    """Read the stored values, shape (k, j, i).

    Raises:
        UnusableImageError: As in `read_header`, or if the voxels are damaged, too few or too many.
    """
    with _opened(path) as file:
        header = _header(file.read(_NUM_HEADER_BYTES))
        num_bytes = math.prod(header.grid.size) * header.pixel_type.itemsize
        file.seek(header.data_start)
        voxels = file.read(num_bytes)
        if len(voxels) != num_bytes:
            raise UnusableImageError(f"truncated NIfTI volume: {len(voxels)} bytes of {num_bytes}")
        if file.read(1):  # at the end, gzip also compares its checksum
            raise UnusableImageError(f"NIfTI volume has more than the {num_bytes} bytes that its header states")
    return np.frombuffer(voxels, header.pixel_type).reshape(header.grid.size)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if not path.is_file():
        raise UnusableImageError(f"missing volume: {path.name!r} is not a file")
    try:
        with path.open("rb") as stored:
            is_compressed = stored.read(2) == _GZIP
            stored.seek(0)
            if not is_compressed:
                yield stored
                return
            with gzip.GzipFile(fileobj=stored) as inflated:
                yield inflated  # type: ignore[misc]
    except (OSError, EOFError, zlib.error) as error:
        raise UnusableImageError(f"damaged NIfTI volume: {error}".replace(str(path), path.name)) from error


def _header(start: bytes) -> NiftiHeader:
    is_second = start[:4] in (b"\x1c\2\0\0", b"\0\0\2\x1c")
    length, header_type = (540, Nifti2Header) if is_second else (348, Nifti1Header)
    magic = start[4:7] if is_second else start[344:347]
    if magic in _PAIR_MAGIC or (not is_second and len(start) >= 348 and magic == b"\0\0\0"):
        raise UnusableImageError("NIfTI or Analyze pair (.hdr, .img); save it as one file, .nii or .nii.gz")
    if magic not in (b"n+1", b"n+2") or len(start) < length:
        raise UnusableImageError("not NIfTI: its header is damaged or too short")
    try:
        header = header_type(start[:length], check=False)
        size = _size(header.get_data_shape())
        pixel_type = header.get_data_dtype()
        slope, intercept = header.get_slope_inter()
        offset = header.get_data_offset()
        unit_mm = _MM[header.get_xyzt_units()[0]]
        slice_dimension = header.get_dim_info()[2]
    except (HeaderDataError, KeyError, ValueError, OverflowError) as error:
        raise UnusableImageError(f"NIfTI header cannot be read: {error}") from error
    if pixel_type.names or pixel_type.kind not in "iuf" or pixel_type.itemsize > 8:
        raise UnusableImageError(f"NIfTI volume of type {header['datatype']} ({pixel_type}); supported are grey values")
    if math.prod(size) * pixel_type.itemsize > MAX_VOLUME_BYTES:
        raise UnusableImageError(
            f"volume too large: {' x '.join(map(str, size))} voxels, at most {MAX_VOLUME_BYTES} bytes"
        )
    if not length <= offset <= MAX_DATA_OFFSET:
        raise UnusableImageError(f"NIfTI voxels begin at byte {offset}; expected {length} to {MAX_DATA_OFFSET}")
    stated = _stated_axes(header, unit_mm)
    spacing = stated[0] if stated else tuple(abs(float(step)) * unit_mm for step in header["pixdim"][1:4])
    if not all(math.isfinite(step) and step >= 0 for step in spacing):
        raise UnusableImageError(f"NIfTI spacing must be positive, got {spacing}")
    return NiftiHeader(
        grid=Grid(
            size=size[::-1],
            spacing_mm=tuple(step or None for step in spacing[::-1]),
            directions=stated[1][::-1] if stated else None,
            corner_mm=stated[2] if stated else None,
            slice_axis=None if slice_dimension is None else 2 - slice_dimension,
        ),
        pixel_type=pixel_type,
        data_start=int(offset),
        slope=1.0 if slope is None else float(slope),
        intercept=0.0 if intercept is None else float(intercept),
    )


def _size(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the three sizes of a volume, also of one that is stored as a series of one volume."""
    if not shape or min(shape) < 1:
        raise UnusableImageError(f"NIfTI dimensions must be positive, got {shape}")
    if math.prod(shape[3:]) > 1:
        raise UnusableImageError(
            f"NIfTI file of {math.prod(shape[3:])} volumes (time points, echoes or channels), dimensions "
            f"{' x '.join(map(str, shape))}; save the one to read as a file of its own"
        )
    return tuple(int(count) for count in (*shape[:3], 1, 1)[:3])


def _stated_axes(
    header: Nifti1Header, unit_mm: float
) -> tuple[tuple[float, ...], tuple[tuple[float, ...], ...], tuple[float, ...]] | None:
    """Return spacing, directions (along i, j, k) and the first voxel, from the sform, or else the qform.

    None if neither is given: programs then assume some orientation, each its own. The sform of a sheared volume has
    no perpendicular axes; the qform then serves.

    Raises:
        UnusableImageError: If what is given cannot be used.
    """
    is_given = False
    for read, code in ((header.get_sform, "sform_code"), (header.get_qform, "qform_code")):
        if int(header[code]) <= 0:
            continue
        is_given = True
        try:
            affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(read(), dtype=float)  # to the left and back
        except (HeaderDataError, ValueError, np.linalg.LinAlgError):
            continue
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        if not np.isfinite(affine).all() or lengths.min() <= 0:
            continue
        axes = (affine[:3, :3] / lengths).T
        if all(are_directions(axes[one], axes[other]) for one, other in ((0, 1), (0, 2), (1, 2))):
            spacing = tuple((lengths * unit_mm).tolist())
            return spacing, tuple(map(tuple, axes.tolist())), tuple((affine[:3, 3] * unit_mm).tolist())
    if is_given:
        raise UnusableImageError(
            "NIfTI orientation (sform, qform) is damaged, or its axes are not perpendicular; resample the volume, or "
            "convert the scanner's files again"
        )
    return None
