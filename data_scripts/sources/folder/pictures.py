"""List the pictures of a file that a table names: the slice of an image or DICOM file."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image

from data_scripts.imaging.dicom import is_dicom, read_headers, read_slice
from data_scripts.imaging.images import UnusableImageError, read_image


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


def pictures_of(path: Path, mask_path: Path | None) -> list[Picture]:
    """List the pictures of a file or folder, in order, each of which becomes a row.

    Raises:
        UnusableImageError: If they cannot be told without reading pixels. Pixels are read later, by the loaders.
    """
    if path.is_dir():
        num_files = sum(1 for _ in path.iterdir())
        raise UnusableImageError(f"{path.name!r} is a folder ({num_files} files); name one file for each row")
    load_mask = partial(read_image, mask_path) if mask_path else None
    if not is_dicom(path):
        return [Picture(load_image=partial(read_image, path), load_mask=load_mask)]
    header, *others = read_headers(path)
    if others:
        raise UnusableImageError(
            f"DICOM file {path.name!r} has {1 + len(others)} frames; store each slice as its own file"
        )
    return [
        Picture(
            load_image=partial(read_slice, path),
            load_mask=load_mask,
            plane=header.plane,
            sequence=header.sequence,
            pixel_spacing_mm=header.stored_spacing_mm,
        )
    ]
