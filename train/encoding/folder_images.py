"""The images of a folder, DICOM files included, for the bulk encoder."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydicom.tag import Tag

from data_scripts.imaging.dicom import is_dicom, read_slice
from data_scripts.imaging.dicom_reading import num_frames, open_dicom
from data_scripts.imaging.images import UnusableImageError, read_image
from modeling_lumbarclip import LumbarCLIPImageProcessor
from train.encoding.crashes import CRASHED
from train.encoding.read_batch import ReadBatch, Reference, eight_bits, resized


class FolderImages:
    """The images in a folder and the folders in it, known by their content, whatever their names.

    Each frame of a DICOM file is an image. A file that is no image is listed as unreadable: which ones were meant, only
    the user can tell.

    Args:
        folder: The folder.
        image_processor: Of the checkpoint.

    Raises:
        ValueError: If there is no such folder, or no file in it.
    """

    schema = pa.schema([("source", pa.string()), ("frame", pa.int32())])
    name = "files"

    def __init__(self, folder: Path, image_processor: LumbarCLIPImageProcessor) -> None:
        if not folder.is_dir():
            raise ValueError(f"--images {folder} is no folder. A data set is named with --dataset.")
        self.folder, self.image_processor = folder, image_processor
        self.file_names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        self.num_files = len(self.file_names)
        self.crashing: set[Reference] = set()
        if not self.file_names:
            raise ValueError(f"--images {folder} holds no file.")

    def identity(self) -> dict[str, Any]:
        """Count the files, and digest their names, sizes and times."""
        digest = hashlib.sha256()
        for name in self.file_names:
            stat = (self.folder / name).stat()
            digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return {"num_files": self.num_files, "files_sha256": digest.hexdigest()}

    def references(self) -> Iterator[Reference]:
        """List each frame of each file, the files by name."""
        return ((name, frame) for name in self.file_names for frame in range(_num_frames(self.folder / name)))

    def __getitem__(self, references: list[Reference]) -> ReadBatch:
        """Decode images, bring them to 8 bits, pad and resize them."""
        read, images, unreadable = [], [], []
        for name, frame in references:
            path = self.folder / name
            try:
                if (name, frame) in self.crashing:
                    raise UnusableImageError(CRASHED)
                images.append(eight_bits(read_slice(path, frame) if is_dicom(path) else read_image(path)))
            except ValueError as error:
                unreadable.append({"source": name, "frame": frame, "reason": str(error)})
            else:
                read.append((name, frame))
        columns: dict[str, list[Any]] = {"source": [name for name, _ in read], "frame": [frame for _, frame in read]}
        num_files = sum(frame == 0 for _, frame in references)
        return ReadBatch(columns, resized(images, self.image_processor), unreadable, num_files)


def _num_frames(path: Path) -> int:
    """Frames of a DICOM file; 1 for any other file, and where the header cannot be read, as reading will say."""
    if not is_dicom(path):
        return 1
    try:
        with open_dicom(path, [Tag("NumberOfFrames")]) as file:
            return num_frames(file.header)
    except UnusableImageError:
        return 1
