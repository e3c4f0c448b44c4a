"""Read uploads into grey slices, and hold them in memory no larger than the page needs.

From a DICOM header, only plane, sequence, anatomy and pixel spacing are kept. A patient's id is only compared within a
study.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from weakref import WeakKeyDictionary

from PIL import Image

from data_scripts.imaging.dicom import SliceHeader, is_dicom, read_headers, read_slice
from data_scripts.imaging.images import MAX_PIXELS, SeveralFramesError, UnusableImageError, grey_8bit, read_image
from modeling_lumbarclip.image_processing_lumbarclip import MAX_SIDE

MIN_SIDE = 8  # pixels; a slice has hundreds, a crop of one disc may be 8 high
MAX_SHOWN_SIDE = 768  # pixels; a large radiograph is held, and sent to the browser, at this size
MAX_FRAMES = 300  # per upload
MAX_READ_PIXELS = 2 * MAX_PIXELS  # of all its frames
MAX_HELD_BYTES = 2**28  # of all visitors' uploads together; the largest takes 200 MB

_KINDS = "DICOM, PNG, JPEG, TIFF, BMP, GIF, WebP or JPEG 2000"
_LOGGER = logging.getLogger(__name__)


class UnusableUploadError(ValueError):
    """An upload that cannot be answered; the message tells the user why, in plain words."""


See = Callable[[Image.Image], Image.Image]  # how a model sees a slice: padded and resized, for instance


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One slice, without its full size: as the page shows it, and as the model sees it. Grey, 8 bit (mode `L`)."""

    name: str  # of its file, with the frame if there are several
    image: Image.Image  # at most `MAX_SHOWN_SIDE` pixels a side
    seen: Image.Image
    facts: str = ""  # plane, sequence and pixel spacing, as far as they are known
    header: Mapping[str, str] = field(default_factory=dict)  # as `scope_lumbarclip.header_reason` takes it

    @property
    def num_bytes(self) -> int:
        """The memory it takes."""
        return sum(image.width * image.height for image in (self.image, self.seen))


@dataclass(frozen=True, kw_only=True)
class Upload:
    """The slices of one upload, at least one, and notes to the user on what was left out or chosen."""

    slices: tuple[Slice, ...]
    notes: tuple[str, ...] = ()


class HeldUploads:
    """The visitors' uploads, each under a key that the visitor's session holds.

    An upload is dropped with its key, and the least recently used ones when all take more than `MAX_HELD_BYTES`.
    """

    class Key:
        """Stands for one upload."""

    def __init__(self) -> None:
        self._uploads: WeakKeyDictionary[HeldUploads.Key, Upload] = WeakKeyDictionary()  # least recently used first
        self._lock = Lock()

    def keep(self, upload: Upload) -> Key:
        """Hold an upload, dropping others if necessary; return its key."""
        key = self.Key()
        with self._lock:
            self._uploads[key] = upload
            excess = self.num_bytes() - MAX_HELD_BYTES
            for other, held in [*self._uploads.items()][:-1]:
                if excess <= 0:
                    break
                excess -= sum(slice_.num_bytes for slice_ in held.slices)
                del self._uploads[other]
        return key

    def use(self, key: Key) -> Upload | None:
        """Return an upload, or None if it was dropped."""
        with self._lock:
            upload = self._uploads.pop(key, None)
            if upload is not None:
                self._uploads[key] = upload
        return upload

    def num_bytes(self) -> int:
        """Count the memory that all uploads take."""
        return sum(slice_.num_bytes for upload in [*self._uploads.values()] for slice_ in upload.slices)


def make_slice(
    see: See, image: Image.Image, *, name: str, facts: str = "", header: Mapping[str, str] | None = None
) -> Slice:
    """Make a slice of an image, grey, 8 bit (mode `L`), which is shrunk in place.

    Raises:
        UnusableImageError: If a side is too short or too long.
    """
    width, height = image.size
    if min(width, height) < MIN_SIDE:
        raise UnusableImageError(f"image too small: {width} x {height}")
    if max(width, height) > MAX_SIDE:
        raise UnusableImageError(f"image too long: {width:,} x {height:,}")
    seen = see(image)
    image.thumbnail((MAX_SHOWN_SIDE, MAX_SHOWN_SIDE), Image.Resampling.LANCZOS)
    return Slice(name=name, image=image, seen=seen, facts=facts, header=header or {})


def read_upload(path: Path, see: See) -> Upload:
    """Read an image or a DICOM file, all its frames.

    Raises:
        UnusableUploadError: If it holds no slice that can be read.
    """
    try:
        return _read_dicom(path, read_headers(path), see) if is_dicom(path) else _read_picture(path, see)
    except UnusableImageError as error:
        # Not logged with its message: a parser may quote the header, which names the patient.
        _LOGGER.info("An upload could not be read (%s)", type(error).__name__)
        raise UnusableUploadError(_plain_words(path, str(error))) from error


def read_study(paths: Sequence[Path], see: See) -> Upload:
    """Read the slices of one patient; list unreadable files in the notes.

    Raises:
        UnusableUploadError: If none can be read, there are too many, or the headers name several patients.
    """
    if len(paths) > MAX_FRAMES:
        raise UnusableUploadError(
            f"{len(paths)} files are too many: at most {MAX_FRAMES}. Choose the slices of the lumbar discs."
        )
    slices: list[Slice] = []
    notes: list[str] = []
    patients: set[str] = set()
    for path in paths:
        try:
            upload = read_upload(path, see)
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
        if len(slices) > MAX_FRAMES:
            raise UnusableUploadError(
                f"Too many slices: more than {MAX_FRAMES} in all frames. Choose those of the lumbar discs."
            )
    if not slices:
        raise UnusableUploadError(" ".join(["None of the files could be read.", *notes]))
    return Upload(slices=tuple(slices), notes=tuple(notes))


def _read_dicom(path: Path, headers: list[SliceHeader], see: See) -> Upload:
    slices: list[Slice] = []
    num_pixels = 0
    for header in headers[:MAX_FRAMES]:
        name = path.name if len(headers) == 1 else f"{path.name}, frame {header.frame + 1}"
        image = read_slice(path, header.frame)
        num_pixels += image.width * image.height
        in_scope = {"plane": header.plane, "sequence": header.sequence, "anatomy": header.anatomy}
        slices.append(make_slice(see, image, name=name, facts=_facts(header), header=in_scope))
        if num_pixels > MAX_READ_PIXELS:
            break
    left_out = len(headers) - len(slices)
    return Upload(
        slices=tuple(slices),
        notes=(f"The first {len(slices)} of {len(headers)} frames are shown.",) if left_out else (),
    )


def _read_picture(path: Path, see: See) -> Upload:
    notes: tuple[str, ...] = ()
    try:
        image = read_image(path)
    except SeveralFramesError:
        image = read_image(path, first_of_several=True)
        notes = ("The image has several frames, as an animation does; the first is taken.",)
    return Upload(slices=(make_slice(see, grey_8bit(image), name=path.name),), notes=notes)


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
    if reason.startswith("image too long"):
        size = reason.removeprefix("image too long: ")
        return f"{path.name} is too long ({size} pixels): a side has at most {MAX_SIDE:,} pixels. Export one slice."
    if is_dicom(path):
        return (
            f"{path.name} is DICOM, but no image could be read from it: it is damaged, cut off, or contains no slice."
        )
    return f"{path.name} is not a readable image: it is damaged, or its content is not {_KINDS}."
