"""List the pictures of a file or folder that a table names: an image, a DICOM slice, or the slices of volumes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from data_scripts.imaging.dicom import SliceHeader, is_dicom, read_headers, read_mask, read_slice
from data_scripts.imaging.images import UnusableImageError, read_image
from data_scripts.imaging.volumes import (
    Series,
    check_fit,
    chosen_slices,
    find_series,
    is_volume,
    load_mask,
    load_slice,
)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image, its mask and what their file says about it; the fields are those of `Record`."""

    load_image: Callable[[], Image.Image]
    load_mask: Callable[[], Image.Image] | None = None
    plane: str = "unknown"
    sequence: str = "unknown"
    series_id: str | None = None
    slice_index: int | None = None
    pixel_spacing_mm: float | None = None
    slice_spacing_mm: float | None = None
    part: str = ""  # which part of the file it is (`slice 7`), for `Record.source`; empty if it is all of it


def pictures_of(
    path: Path, mask_path: Path | None, plane: str | None = None, slices: str = "all"
) -> list[Picture | UnusableImageError]:
    """List the pictures of a file or folder, in order, each of which becomes a row.

    Args:
        path: An image, a DICOM file, a volume, or a folder of DICOM slices.
        mask_path: Its mask; for volumes a volume on the same grid.
        plane: Slices to take of a volume; None for those that were scanned.
        slices: How many slices to take of a volume, see `volumes.chosen_slices`.

    Returns:
        The pictures; an error for each series that makes no volume.

    Raises:
        UnusableImageError: If none can be told without reading pixels. Pixels are read later, by the loaders.
    """
    if is_volume(path):
        headers = [] if path.is_dir() or not is_dicom(path) else read_headers(path)
        if len(headers) != 1:
            return _slices_of(path, mask_path, plane, slices)
        return [_dicom_slice(headers[0], mask_path)]
    return [Picture(load_image=partial(read_image, path), load_mask=_mask_of_one(mask_path))]


def _mask_of_one(mask_path: Path | None) -> Callable[[], Image.Image] | None:
    if mask_path is None:
        return None
    if is_volume(mask_path) and not is_dicom(mask_path):
        raise UnusableImageError(f"mask {mask_path.name!r} is a volume, its image one slice; store the slice's mask")
    return partial(read_image, mask_path)


def _dicom_slice(header: SliceHeader, mask_path: Path | None) -> Picture:
    return Picture(
        load_image=partial(read_slice, header.path),
        load_mask=partial(read_mask, mask_path, header.path) if _mask_of_one(mask_path) and mask_path else None,
        plane=header.plane,
        sequence=header.sequence,
        pixel_spacing_mm=header.stored_spacing_mm,
    )


def _slices_of(
    path: Path, mask_path: Path | None, plane: str | None, slices: str
) -> list[Picture | UnusableImageError]:
    mask = _mask_of_volume(mask_path) if mask_path else None
    found = find_series(path, plane)
    pictures: list[Picture | UnusableImageError] = []
    for number, series in enumerate(found, start=1):
        if isinstance(series, UnusableImageError):
            pictures.append(series)
            continue
        try:
            if mask is not None:
                check_fit(mask, series)
        except UnusableImageError as error:
            pictures.append(error)
            continue
        of_series = f"series {number} " if len(found) > 1 else ""
        pictures += [
            Picture(
                load_image=partial(load_slice, series, index),
                load_mask=None if mask is None else partial(load_mask, mask, series, index),
                plane=series.plane,
                sequence=series.sequence,
                series_id=series.series_id,
                slice_index=index,
                pixel_spacing_mm=series.pixel_spacing_mm,
                slice_spacing_mm=series.slice_spacing_mm,
                part=f"{of_series}slice {index}",
            )
            for index in chosen_slices(series.num_slices, slices)
        ]
    if len(pictures) == 1 and isinstance(pictures[0], UnusableImageError):
        raise pictures[0]
    return pictures


def _mask_of_volume(mask_path: Path) -> Series:
    if not is_volume(mask_path):
        raise UnusableImageError(f"mask {mask_path.name!r} is one image, its image a volume; store a volume of classes")
    mask, *others = find_series(mask_path)
    if others:
        raise UnusableImageError(f"mask {mask_path.name!r} holds {1 + len(others)} series; name one")
    if isinstance(mask, UnusableImageError):
        raise UnusableImageError(f"mask {mask_path.name!r}: {mask}")
    return mask
