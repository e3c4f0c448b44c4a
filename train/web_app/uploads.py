"""Read uploads into grey slices in memory, and delete the files at once.

From a DICOM header, only plane, sequence and pixel spacing are kept. A patient's id is only compared within a study.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from data_scripts.imaging.dicom import SliceHeader, is_dicom, read_headers, read_slice
from data_scripts.imaging.images import MAX_PIXELS, SeveralFramesError, UnusableImageError, grey_8bit, read_image

MIN_SIDE = 32  # pixels; a slice has hundreds, and a thumbnail shows no disc
MAX_FRAMES = 300  # per upload, held in memory
MAX_HELD_PIXELS = 2 * MAX_PIXELS  # of all its frames, one byte each

_KINDS = "DICOM, PNG, JPEG, TIFF, BMP, GIF, WebP or JPEG 2000"
_LOGGER = logging.getLogger(__name__)


class UnusableUploadError(ValueError):
    """An upload that cannot be answered; the message tells the user why, in plain words."""


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One slice as the model gets it."""

    name: str  # of its file, with the frame if there are several
    image: Image.Image  # grey, 8 bit (mode `L`)
    facts: str = ""  # plane, sequence and pixel spacing, as far as they are known


@dataclass(frozen=True, kw_only=True)
class Upload:
    """The slices of one upload, at least one, and notes to the user on what was left out or chosen."""

    slices: tuple[Slice, ...]
    notes: tuple[str, ...] = ()


def read_upload(path: Path) -> Upload:
    """Read an image or a DICOM file, all its frames.

    Raises:
        UnusableUploadError: If it holds no slice that can be read.
    """
    try:
        return _read_dicom(path, read_headers(path)) if is_dicom(path) else _read_picture(path)
    except UnusableImageError as error:
        # Not logged with its message: a parser may quote the header, which names the patient.
        _LOGGER.info("An upload could not be read (%s)", type(error).__name__)
        raise UnusableUploadError(_plain_words(path, str(error))) from error


def read_study(paths: Sequence[Path]) -> Upload:
    """Read the slices of one patient; list unreadable files in the notes.

    Raises:
        UnusableUploadError: If none can be read, there are too many, or the headers name several patients.
    """
    slices: list[Slice] = []
    notes: list[str] = []
    patients: set[str] = set()
    for path in paths:
        try:
            upload = read_upload(path)
        except UnusableUploadError as error:
            notes.append(str(error))
            continue
        slices += upload.slices
        notes += [f"{path.name}: {note}" for note in upload.notes]
        if is_dicom(path):
            patients |= {header.patient_id for header in read_headers(path) if header.patient_id}
        if len(patients) > 1:
            raise UnusableUploadError(
                "The DICOM headers name more than one patient. Upload the slices of one patient at a time."
            )
        if len(slices) > MAX_FRAMES or _num_pixels(slices) > MAX_HELD_PIXELS:
            raise UnusableUploadError(
                f"Too many slices: more than {MAX_FRAMES}, or too large. Choose those of the lumbar discs."
            )
    if not slices:
        raise UnusableUploadError(" ".join(["None of the files could be read.", *notes]))
    return Upload(slices=tuple(slices), notes=tuple(notes))


def forget(paths: Sequence[Path], folder: Path) -> None:
    """Delete uploaded files and their emptied folders, but nothing outside the folder of uploads."""
    for path in (path.resolve() for path in paths):
        if folder.resolve() not in path.parents:
            continue
        path.unlink(missing_ok=True)
        if path.parent != folder.resolve() and path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()


def _read_dicom(path: Path, headers: list[SliceHeader]) -> Upload:
    slices: list[Slice] = []
    for header in headers[:MAX_FRAMES]:
        name = path.name if len(headers) == 1 else f"{path.name}, frame {header.frame + 1}"
        slices.append(_checked(Slice(name=name, image=read_slice(path, header.frame), facts=_facts(header))))
        if _num_pixels(slices) > MAX_HELD_PIXELS:
            break
    left_out = len(headers) - len(slices)
    return Upload(
        slices=tuple(slices),
        notes=(f"The first {len(slices)} of {len(headers)} frames are shown.",) if left_out else (),
    )


def _read_picture(path: Path) -> Upload:
    notes: tuple[str, ...] = ()
    try:
        image = read_image(path)
    except SeveralFramesError:
        image = read_image(path, first_of_several=True)
        notes = ("The image has several frames, as an animation does; the first is taken.",)
    return Upload(slices=(_checked(Slice(name=path.name, image=grey_8bit(image))),), notes=notes)


def _checked(slice_: Slice) -> Slice:
    width, height = slice_.image.size
    if min(width, height) < MIN_SIDE:
        raise UnusableImageError(f"image too small: {width} x {height}")
    return slice_


def _num_pixels(slices: Sequence[Slice]) -> int:
    return sum(slice_.image.size[0] * slice_.image.size[1] for slice_ in slices)


def _facts(header: SliceHeader) -> str:
    """Write plane, sequence and spacing in one line, as far as they are known."""
    spacing = header.stored_spacing_mm
    known = [fact for fact in (header.plane, header.sequence) if fact not in ("unknown", "other")]
    return " · ".join([*known, *([f"{spacing:.2g} mm per pixel"] if spacing else [])])


def _plain_words(path: Path, reason: str) -> str:
    """Say why a file cannot be used, without quoting from it."""
    if reason.startswith("image too large"):
        return (
            f"{path.name} is too large: the app reads at most {MAX_PIXELS / 1e6:.0f} million pixels. Export one slice."
        )
    if reason.startswith("image too small"):
        size = reason.removeprefix("image too small: ")
        return f"{path.name} is too small ({size} pixels): a slice has at least {MIN_SIDE} pixels a side."
    if is_dicom(path):
        return (
            f"{path.name} is DICOM, but no image could be read from it: it is damaged, cut off, or contains no slice."
        )
    return f"{path.name} is not a readable image: it is damaged, or its content is not {_KINDS}."
