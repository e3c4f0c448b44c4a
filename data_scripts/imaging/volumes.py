"""Read volumes slice by slice: NIfTI, MetaImage, multi-frame DICOM, and folders of DICOM slices.

Slices are in radiological convention and in a fixed order, see `voxel_grid.arrange`; whatever the file's format and the
order of its axes, the same volume gives the same slices. They share one window, between the 0.5 and 99.5 percentiles
of the whole volume: with one a slice, the outermost would be as bright as the middle. A window in a DICOM header is
not used, since the other formats have none.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from data_scripts.imaging import dicom_series, metaimage, nifti
from data_scripts.imaging.dicom import is_dicom, square_pixel_size
from data_scripts.imaging.dicom_sequence import sequence_from_name
from data_scripts.imaging.images import ORIENTATION_STATED, UnusableImageError, window_to_uint8
from data_scripts.imaging.voxel_grid import Arrangement, Grid, arrange, fit

READ = "NIfTI (.nii, .nii.gz), MetaImage (.mha), DICOM"
_METAIMAGE_STARTS = (b"ObjectType", b"NDims", b"Comment")
_METAIMAGE_SUFFIXES = (".mha", ".mhd")
# Formats of volumes that are not read, by how their files start or end.
_OTHER_STARTS = {b"NRRD": "NRRD", b"\x89HDF": "HDF5 or MINC", b"MINC": "MINC", b"\x93NUMPY": "NumPy"}
_OTHER_SUFFIXES = {
    ".nrrd": "NRRD",
    ".nhdr": "NRRD",
    ".mgz": "FreeSurfer",
    ".mgh": "FreeSurfer",
    ".mnc": "MINC",
    ".par": "Philips PAR/REC",
    ".rec": "Philips PAR/REC",
    ".npy": "NumPy",
    ".npz": "NumPy",
    ".hdr": "NIfTI or Analyze pair",
    ".img": "NIfTI or Analyze pair",
    ".nii.bz2": "bzip2",
    ".nii.zst": "Zstandard",
    ".zip": "zip archive",
    ".tar": "tar archive",
    ".tar.gz": "tar archive",
    ".tgz": "tar archive",
    ".7z": "7z archive",
    ".rar": "rar archive",
}


@dataclass(frozen=True, kw_only=True)
class Series:
    """Slices of one volume, which stay in its files until one is loaded."""

    files: tuple[tuple[Path, int], ...]  # DICOM: file and frame of each slice as stored; else the one file and 0
    stored: Grid  # the voxels as stored
    arrangement: Arrangement  # how they become slices
    plane: str  # among `records.PLANES`
    sequence: str  # among `records.SEQUENCES`
    series_id: str = ""  # `SeriesInstanceUID`; empty if the format has none
    is_dicom: bool = False

    @property
    def grid(self) -> Grid:
        """The slices: how many, their rows and columns."""
        return self.arrangement.grid(self.stored)

    @property
    def num_slices(self) -> int:
        """Number of slices."""
        return self.grid.size[0]

    @property
    def slice_spacing_mm(self) -> float | None:
        """Distance between the centres of neighbouring slices."""
        return self.grid.spacing_mm[0]

    @property
    def pixel_spacing_mm(self) -> float | None:
        """Side of a pixel of `load_slice`'s image: the finer spacing in the slice."""
        _, down, along = self.grid.spacing_mm
        return None if down is None or along is None else min(down, along)


@dataclass(frozen=True, kw_only=True)
class Volume:
    """The values of a volume as slices in radiological convention."""

    voxels: np.ndarray  # shape (slices, H, W), a view; the first row is the top of the picture
    grid: Grid  # of these axes
    plane: str
    sequence: str


def is_volume(path: Path) -> bool:
    """Whether a path is a folder, or a file of a format of volumes, read or not; DICOM may also be a single slice."""
    return path.is_dir() or is_dicom(path) or _is_metaimage(path) or nifti.is_nifti(path) or _other_format(path) != ""


def find_series(path: Path, plane: str | None = None) -> list[Series | UnusableImageError]:
    """Find the volumes of a file or folder; voxels are not read.

    Args:
        path: A NIfTI, MetaImage or DICOM file, or a folder of DICOM files.
        plane: `axial`, `sagittal` or `coronal` slices, also if they were not scanned so; None for those scanned.

    Returns:
        One series, or for DICOM one for each series and orientation; an error for each that makes no volume.

    Raises:
        UnusableImageError: If nothing can be read, with the name of the format and the way out.
    """
    if path.is_dir() or is_dicom(path):
        return [_dicom_series(stack, plane) for stack in dicom_series.read_stacks(path)]
    stored = _stored_grid(path)
    arrangement, found = arrange(stored, plane)
    return [
        Series(
            files=((path, 0),),
            stored=stored,
            arrangement=arrangement,
            plane=found,
            sequence=sequence_from_name(_stem(path)) or "unknown",
        )
    ]


def read_volume(path: Path) -> Volume:
    """Read a volume whole, with its values; for a DICOM series up to a linear scale.

    Raises:
        UnusableImageError: If it cannot be read, or there are several in the folder.
    """
    series, *others = find_series(path)
    if others or isinstance(series, UnusableImageError):
        problem = f"holds {1 + len(others)} series" if others else str(series)
        raise UnusableImageError(f"{path.name!r} {problem}; name one" if others else problem)
    values, scale = _values(series)
    if scale != (1.0, 0.0):
        values = values * scale[0] + scale[1]
    return Volume(
        voxels=series.arrangement.applied(values), grid=series.grid, plane=series.plane, sequence=series.sequence
    )


def load_slice(series: Series, index: int) -> Image.Image:
    """Load a slice, 8-bit grey (mode `L`), with square pixels of the finer spacing.

    Slices of one volume are loaded one after another: the last volume stays in memory, one byte a voxel.

    Raises:
        UnusableImageError: If the volume cannot be read.
    """
    image = Image.fromarray(_held(_grey_slices(series))[index]).resize(_square_size(series), Image.Resampling.BILINEAR)
    image.info[ORIENTATION_STATED] = series.stored.directions is not None
    return image


def load_mask(mask: Series, series: Series, index: int) -> Image.Image:
    """Load the slice of a mask that lies on a slice of `series`: class indices, nearest neighbours.

    Raises:
        UnusableImageError: If the mask cannot be read, lies on another grid, or holds anything but whole numbers from
            0 to 255.
    """
    image = Image.fromarray(_held(_class_slices(mask, fit(mask.stored, series.stored, series.arrangement)))[index])
    return image.resize(_square_size(series), Image.Resampling.NEAREST)


def check_fit(mask: Series, series: Series) -> None:
    """Raise an UnusableImageError if a mask does not lie on the voxels of its image; only headers are compared."""
    fit(mask.stored, series.stored, series.arrangement)


def chosen_slices(num_slices: int, slices: str) -> range:
    """Choose `all` slices, the `middle` one, or as many about the middle as `slices` says.

    Example:
        >>> chosen_slices(9, "all"), chosen_slices(9, "middle"), chosen_slices(9, "4"), chosen_slices(2, "4")
        (range(0, 9), range(4, 5), range(2, 6), range(0, 2))
    """
    count = num_slices if slices == "all" else 1 if slices == "middle" else min(int(slices), num_slices)
    start = (num_slices - count) // 2
    return range(start, start + count)


def _dicom_series(stack: dicom_series.Stack | UnusableImageError, plane: str | None) -> Series | UnusableImageError:
    if isinstance(stack, UnusableImageError):
        return stack
    try:
        arrangement, found = arrange(stack.grid, plane)
    except UnusableImageError as error:
        return dicom_series.UnusableSeriesError(stack.series_id, str(error))
    return Series(
        files=stack.frames,
        stored=stack.grid,
        arrangement=arrangement,
        plane=found,
        sequence=stack.sequence,
        series_id=stack.series_id,
        is_dicom=True,
    )


def _stored_grid(path: Path) -> Grid:
    if nifti.is_nifti(path):
        return nifti.read_header(path).grid
    if _is_metaimage(path):
        return metaimage.read_header(path).grid
    if other := _other_format(path):
        raise UnusableImageError(f"{path.name!r} is a volume of format {other}, which is not read; save it as {READ}")
    raise UnusableImageError(f"{path.name!r} is not a volume; those read are {READ}")


def _is_metaimage(path: Path) -> bool:
    return path.is_file() and (
        path.suffix.lower() in _METAIMAGE_SUFFIXES or _start_of(path).startswith(_METAIMAGE_STARTS)
    )


def _other_format(path: Path) -> str:
    """Name the format of a volume that is not read; empty for any other file."""
    if not path.is_file():
        return ""
    name, start = path.name.lower(), _start_of(path)
    by_name = (format_ for suffix, format_ in _OTHER_SUFFIXES.items() if name.endswith(suffix))
    by_start = (format_ for first, format_ in _OTHER_STARTS.items() if start.startswith(first))
    return next(by_start, "") or next(by_name, "")


def _start_of(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(16)
    except OSError:
        return b""


def _stem(path: Path) -> str:
    """Return the name without endings, nor the BIDS patient and session: `sub` is also short for subtraction."""
    return re.sub(r"\b(sub|ses)-[^_]*", "", path.name.partition(".")[0])


def _square_size(series: Series) -> tuple[int, int]:
    (_, rows, columns), (_, down, along) = series.grid.size, series.grid.spacing_mm
    return square_pixel_size(rows, columns, None if down is None or along is None else (down, along))


def _values(series: Series) -> tuple[np.ndarray, tuple[float, float]]:
    """Read the voxels as stored, shape (k, j, i), and the slope and intercept of their values."""
    if series.is_dicom:
        values, is_inverted = dicom_series.read_frames(series.files)
        return values, (-1.0 if is_inverted else 1.0, 0.0)
    ((path, _),) = series.files
    if nifti.is_nifti(path):
        header = nifti.read_header(path)
        return nifti.read_voxels(path), (header.slope, header.intercept)
    return metaimage.read_voxels(path), (1.0, 0.0)


Held = np.ndarray | UnusableImageError  # kept, too, so that a damaged volume is not read again for each slice


def _held(held: Held) -> np.ndarray:
    if isinstance(held, UnusableImageError):
        raise held
    return held


@lru_cache(maxsize=1)
def _grey_slices(series: Series) -> Held:
    try:
        values, (slope, _) = _values(series)
        grey = window_to_uint8(values.reshape(-1, values.shape[-1])).reshape(values.shape)
    except UnusableImageError as error:
        return error
    if slope < 0:
        grey = 255 - grey
    if values.dtype.kind == "f":
        grey[~np.isfinite(values)] = 0
    return series.arrangement.applied(grey)


@lru_cache(maxsize=1)
def _class_slices(mask: Series, arrangement: Arrangement) -> Held:
    try:
        values, (slope, intercept) = _values(mask)
    except UnusableImageError as error:
        return error
    if (slope, intercept) != (1.0, 0.0):
        values = values * slope + intercept
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        return UnusableImageError("mask holds values that are not finite")
    if values.min() < 0 or values.max() > 255 or (values.dtype.kind == "f" and (values != np.round(values)).any()):
        return UnusableImageError(
            f"mask values must be whole numbers from 0 to 255, got {values.min():g} to {values.max():g}"
        )
    return arrangement.applied(values.astype(np.uint8))
