"""Read a MetaImage volume (`.mha`) as an array whose axes run right to left, down and back, whatever the file's axes.

SimpleITK's reader trusts the file: it opens any other file that `ElementDataFile` names, takes as much memory as
`DimSize` claims, and silently makes up the voxels of a damaged compressed volume.
"""

import itertools
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from data_scripts.imaging.images import UnusableImageError
from data_scripts.imaging.voxel_grid import Grid

# Limits on the cost of a damaged or hostile file. The largest volumes of lumbar MRI (3D T2, 512 x 512 x 200,
# 16 bit) take 100 MiB.
MAX_VOLUME_BYTES = 256 * 2**20
MAX_HEADER_BYTES = 2**16
_CHUNK_BYTES = 2**20

# Sides of the patient towards which an axis runs. MetaImage coordinates grow to the left, back and head.
_POSITIVE_SIDES, _NEGATIVE_SIDES = "LPS", "RAI"
SAGITTAL_AXES = "LIP"  # to the left, downwards, backwards

_PIXEL_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}


@dataclass(frozen=True, kw_only=True)
class VolumeHeader:
    """The checked header of a file, with axes i, j and k; i runs fastest."""

    size: tuple[int, int, int]  # voxels along i, j and k
    spacing_mm: tuple[float, float, float]  # along i, j and k
    directions: tuple[tuple[float, ...], ...] | None  # unit vectors along i, j and k; None if not stated
    corner_mm: tuple[float, ...] | None  # centre of the first voxel; None if not stated
    pixel_type: np.dtype  # with its byte order
    is_compressed: bool  # voxels are deflated (zlib)
    data_start: int  # first byte of the voxels

    @property
    def axes(self) -> str:
        """Side of the patient towards which i, j and k run, such as `LPS`; the nearest one of oblique axes."""
        if self.directions is None:
            raise UnusableImageError("TransformMatrix must be 9 numbers, got ''")
        return _axes(self.directions)

    @property
    def grid(self) -> Grid:
        """The voxels of `read_voxels`."""
        directions = None if self.directions is None else self.directions[::-1]
        return Grid(
            size=self.size[::-1], spacing_mm=self.spacing_mm[::-1], directions=directions, corner_mm=self.corner_mm
        )

    @property
    def num_bytes(self) -> int:
        """Size of the decoded voxels."""
        return math.prod(self.size) * self.pixel_type.itemsize

    @property
    def sagittal_size(self) -> tuple[int, int, int]:
        """Number of voxels from right to left, downwards and backwards."""
        across, down, back = (self.size[axis] for axis in _file_axes(self.axes))
        return across, down, back

    @property
    def sagittal_spacing_mm(self) -> tuple[float, float, float]:
        """Voxel spacing from right to left, downwards and backwards."""
        across, down, back = (self.spacing_mm[axis] for axis in _file_axes(self.axes))
        return across, down, back


def read_header(path: Path) -> VolumeHeader:
    """Read the header of a `.mha` file.

    Raises:
        UnusableImageError: If the file is missing or its header does not describe a three-dimensional volume of known
            scalar type, stored in the same file, of at most `MAX_VOLUME_BYTES`.
    """
    with _opened(path) as file:
        return _header(*_header_fields(file))


def read_voxels(path: Path) -> np.ndarray:
    """Decode a `.mha` file as it is stored, shape (k, j, i).

    Raises:
        UnusableImageError: As in `read_header`, or if the voxels are damaged, too few or too many.
    """
    return _read(path)[1]


def read_sagittal_volume(path: Path) -> np.ndarray:
    """Decode a `.mha` file and reorder its axes.

    Returns:
        A view of the voxels, shape (across, down, back): slice 0 is the patient's right, row 0 the top, column 0 the
        front. Copy the slice that you need.

    Raises:
        UnusableImageError: As in `read_voxels`, or if the file states no orientation.
    """
    header, volume = _read(path)
    axes = _file_axes(header.axes)
    opposed = tuple(at for at, axis in enumerate(axes) if header.axes[axis] != SAGITTAL_AXES[at])
    return np.flip(volume.transpose([2 - axis for axis in axes]), opposed)


def _read(path: Path) -> tuple[VolumeHeader, np.ndarray]:
    with _opened(path) as file:
        header = _header(*_header_fields(file))
        file.seek(header.data_start)
        voxels = _inflate(file, header.num_bytes) if header.is_compressed else file.read(header.num_bytes)
        if len(voxels) != header.num_bytes:
            raise UnusableImageError(f"truncated volume: {len(voxels)} bytes of {header.num_bytes}")
        if file.read(1):
            raise UnusableImageError(_surplus(header.num_bytes))
    return header, np.frombuffer(voxels, header.pixel_type).reshape(header.size[::-1])


def _opened(path: Path) -> BinaryIO:
    if not path.is_file():
        raise UnusableImageError(f"missing volume: {path.name!r} is not a file")
    try:
        return path.open("rb")
    except OSError as error:
        raise UnusableImageError(f"missing volume: {path.name!r} cannot be opened ({error.strerror})") from error


def _header_fields(file: BinaryIO) -> tuple[dict[str, str], int]:
    """Read the `name = value` lines up to `ElementDataFile`, and where they end."""
    fields: dict[str, str] = {}
    while "ElementDataFile" not in fields:
        line = file.readline(MAX_HEADER_BYTES - file.tell())
        name, equals, value = (part.strip() for part in line.decode("latin-1").partition("="))
        if not equals or not line.endswith(b"\n"):
            raise UnusableImageError(f"not MetaImage: header line {line[:40]!r} is not 'name = value'")
        if name in fields:
            raise UnusableImageError(f"MetaImage header states {name[:40]!r} twice")
        fields[name] = value
    return fields, file.tell()


def _header(fields: dict[str, str], data_start: int) -> VolumeHeader:
    _require(fields, "NDims", "3")
    _require(fields, "ElementDataFile", "LOCAL", "; save header and voxels as one file, .mha")
    for name, usual in (("ElementNumberOfChannels", "1"), ("BinaryData", "True"), ("HeaderSize", "0")):
        if name in fields:
            _require(fields, name, usual)
    if fields.get("ElementType") not in _PIXEL_TYPES:
        raise UnusableImageError(f"unknown ElementType {fields.get('ElementType')!r}; known: {', '.join(_PIXEL_TYPES)}")
    most_significant_first = _truth(fields, "BinaryDataByteOrderMSB") or _truth(fields, "ElementByteOrderMSB")
    sizes = _numbers(fields, "DimSize", 3)
    if not all(size >= 1 and size == int(size) for size in sizes):
        raise UnusableImageError(f"DimSize must be three positive whole numbers, got {fields['DimSize'][:60]!r}")
    spacing = _numbers(fields, "ElementSpacing", 3)
    if min(spacing) <= 0:
        raise UnusableImageError(f"ElementSpacing must be positive, got {fields['ElementSpacing'][:60]!r}")
    header = VolumeHeader(
        size=(int(sizes[0]), int(sizes[1]), int(sizes[2])),
        spacing_mm=(spacing[0], spacing[1], spacing[2]),
        directions=_directions(fields),
        corner_mm=tuple(_numbers(fields, "Offset", 3)) if "Offset" in fields else None,
        pixel_type=np.dtype((">" if most_significant_first else "<") + _PIXEL_TYPES[fields["ElementType"]]),
        is_compressed=_truth(fields, "CompressedData"),
        data_start=data_start,
    )
    if header.num_bytes > MAX_VOLUME_BYTES:
        raise UnusableImageError(
            f"volume too large: {' x '.join(map(str, header.size))} voxels, at most {MAX_VOLUME_BYTES} bytes"
        )
    return header


def _require(fields: dict[str, str], name: str, value: str, way_out: str = "") -> None:
    if fields.get(name, "").casefold() != value.casefold():
        raise UnusableImageError(f"{name} must be {value}, got {fields.get(name, '')[:60]!r}{way_out}")


def _truth(fields: dict[str, str], name: str) -> bool:
    return fields.get(name, "").casefold() == "true"


def _numbers(fields: dict[str, str], name: str, count: int) -> list[float]:
    try:
        numbers = [float(word) for word in fields.get(name, "").split()]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise UnusableImageError(f"{name} must be {count} numbers, got {fields.get(name, '')[:60]!r}")
    return numbers


def _directions(fields: dict[str, str]) -> tuple[tuple[float, ...], ...] | None:
    """Return the directions of i, j and k, which the matrix lists one after another."""
    if "TransformMatrix" not in fields:
        return None
    matrix = _numbers(fields, "TransformMatrix", 9)
    directions = np.reshape(matrix, (3, 3))
    if not np.allclose(directions @ directions.T, np.eye(3), atol=0.01):
        raise UnusableImageError(f"TransformMatrix must be three perpendicular directions of length 1, got {matrix}")
    return tuple(map(tuple, directions.tolist()))


def _axes(directions: Sequence[Sequence[float]]) -> str:
    """Name the sides towards which i, j and k run.

    Example:
        >>> _axes([(-0.0872, 0.9962, 0), (0, 0, -1), (0.9962, 0.0872, 0)])
        'PIL'
    """
    cosines = np.asarray(directions)
    # For oblique axes, the assignment that agrees best over all three, so that no side is taken twice.
    nearest = max(itertools.permutations(range(3)), key=lambda order: np.abs(cosines[range(3), order]).sum())
    return "".join(
        (_POSITIVE_SIDES if direction[side] > 0 else _NEGATIVE_SIDES)[side]
        for direction, side in zip(cosines, nearest, strict=True)
    )


def _file_axes(axes: str) -> list[int]:
    """Find the axis of the file that runs along each of `SAGITTAL_AXES`, in either direction."""
    pairs = ["".join(pair) for pair in zip(_POSITIVE_SIDES, _NEGATIVE_SIDES, strict=True)]
    along = [next(pair for pair in pairs if side in pair) for side in SAGITTAL_AXES]
    return [next(axis for axis, to in enumerate(axes) if to in pair) for pair in along]


def _inflate(file: BinaryIO, num_bytes: int) -> bytearray:
    """Inflate at most the bytes that the header states: a small file can inflate to gigabytes."""
    inflater, voxels = zlib.decompressobj(), bytearray()
    try:
        while not inflater.eof and (chunk := inflater.unconsumed_tail or file.read(_CHUNK_BYTES)):
            voxels += inflater.decompress(chunk, num_bytes + 1 - len(voxels))
            if len(voxels) > num_bytes:
                raise UnusableImageError(_surplus(num_bytes))
    except zlib.error as error:
        raise UnusableImageError(f"damaged volume: {error}") from error
    if not inflater.eof:
        raise UnusableImageError("truncated volume: its compressed data has no end")
    if inflater.unused_data:
        raise UnusableImageError(_surplus(num_bytes))
    return voxels


def _surplus(num_bytes: int) -> str:
    return f"volume has more than the {num_bytes} bytes that its header states"
