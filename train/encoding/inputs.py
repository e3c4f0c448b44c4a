"""Read the inputs of the bulk encoder in batches: images of a folder, or images or reports of a dataset.

Shapes: B images or rows of a batch that can be read, C channels, S side of the image, U distinct texts, T tokens.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image
from pydicom.tag import Tag
from torch import Tensor

from data_scripts.imaging.dicom import is_dicom, read_slice
from data_scripts.imaging.dicom_reading import num_frames, open_dicom
from data_scripts.imaging.images import MAX_PIXELS, UnusableImageError, read_image
from data_scripts.system.worker_pool import Announce
from modeling_lumbarclip import LumbarCLIPImageProcessor, LumbarCLIPProcessor
from modeling_lumbarclip.image_processing_lumbarclip import to_eight_bits

COLUMNS = ("source", "patient_id", "report")  # of a dataset, in addition to labels and split
NO_CRASH: Mapping[int, str] = {}

Reference = tuple[str, int]  # a file and the frame in it, or a split and the row in it


@dataclass(frozen=True)
class ReadBatch:
    """A batch that was read.

    Args:
        columns: By name, a value for each of the B that could be read.
        tensors: `images`, uint8, (B, C, S, S), where C is 1 if all are grey and else 3; or `input_ids` and
            `attention_mask`, (U, T), and `text_index`, (B,), the text of each row. Empty if B is 0.
        unreadable: What could not be read, with its `reason`.
        num_files: Files or rows in the batch.
    """

    columns: dict[str, list[Any]]
    tensors: dict[str, Any]
    unreadable: list[dict[str, Any]]
    num_files: int


class FolderImages:
    """The images in a folder and its subfolders, recognised by their content, whatever their names.

    Each frame of a DICOM file is an image. Other files are listed as unreadable. `schema` describes the columns next to
    the embeddings. `read` follows `data_scripts.system.worker_pool.BatchFunction`.

    Raises:
        ValueError: If there is no such folder, or no file in it.
    """

    schema = pa.schema([("source", pa.string()), ("frame", pa.int32())])
    name = "files"

    def __init__(self, folder: Path, image_processor: LumbarCLIPImageProcessor) -> None:
        if not folder.is_dir():
            raise ValueError(f"--images {folder} is not a folder. Name a dataset with --dataset.")
        self.folder, self.image_processor = folder, image_processor
        self.file_names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        self.num_files = len(self.file_names)
        if not self.file_names:
            raise ValueError(f"--images {folder} is empty.")

    def identity(self) -> dict[str, Any]:
        """Count the files, and hash their names, sizes and times."""
        digest = hashlib.sha256()
        for name in self.file_names:
            stat = (self.folder / name).stat()
            digest.update(os.fsencode(name) + f"\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return {"num_files": self.num_files, "files_sha256": digest.hexdigest()}

    def references(self) -> Iterator[Reference]:
        """List each frame of each file, the files by name."""
        return ((name, frame) for name in self.file_names for frame in range(_num_frames(self.folder / name)))

    def load(self, name: str, frame: int) -> Image.Image:
        """Decode one frame; raise an `UnusableImageError` for a name that cannot be a `source`."""
        if name.encode(errors="replace").decode() != name:
            raise UnusableImageError("the file name is not UTF-8; rename the file")
        path = self.folder / name
        return read_slice(path, frame) if is_dicom(path) else read_image(path)

    def read(
        self, references: list[Reference], crashed: Mapping[int, str] = NO_CRASH, announce: Announce = lambda _: None
    ) -> ReadBatch:
        """Decode images, bring them to 8 bits, pad and resize them."""
        images, reasons = _decode(self.load, references, crashed, announce)
        columns: dict[str, list[Any]] = {
            "source": [name for name, _ in images],
            "frame": [frame for _, frame in images],
        }
        unreadable = [{"source": name, "frame": frame, "reason": reason} for (name, frame), reason in reasons.items()]
        num_files = sum(frame == 0 for _, frame in references)
        return ReadBatch(columns, resized([*images.values()], self.image_processor), unreadable, num_files)


class DatasetRows:
    """Rows of a dataset, by split and number; attributes as in `FolderImages`."""

    schema = pa.schema(dict.fromkeys(COLUMNS, pa.string()) | {"labels": pa.list_(pa.string()), "split": pa.string()})
    name = "rows"

    def __init__(self, splits: Mapping[str, Dataset]) -> None:
        self.num_files = sum(map(len, splits.values()))
        self._fingerprints = {split: [len(rows), rows._fingerprint] for split, rows in splits.items()}
        self._rows = {
            split: rows.with_format(None).select_columns([*COLUMNS, "labels"]) for split, rows in splits.items()
        }
        self._label_names = {split: rows.features["labels"].feature.names for split, rows in splits.items()}

    def identity(self) -> dict[str, Any]:
        """List length and fingerprint of each split, which `datasets` keeps from load to load."""
        return {"splits": self._fingerprints}

    def references(self) -> Iterator[Reference]:
        """List the rows, split by split."""
        return ((split, row) for split, rows in self._rows.items() for row in range(len(rows)))

    def columns(self, references: list[Reference]) -> dict[str, list[Any]]:
        """Read the columns next to the embeddings."""
        rows = [self._rows[split][row] for split, row in references]
        return {
            **{name: [row[name] for row in rows] for name in COLUMNS},
            "labels": [
                row["labels"] and [self._label_names[split][label] for label in row["labels"]]
                for (split, _), row in zip(references, rows, strict=True)
            ],
            "split": [split for split, _ in references],
        }


class DatasetImages(DatasetRows):
    """The images of a dataset."""

    def __init__(self, splits: Mapping[str, Dataset], image_processor: LumbarCLIPImageProcessor) -> None:
        super().__init__(splits)
        self.image_processor = image_processor
        self._feature = {split: rows.features["image"] for split, rows in splits.items()}
        self._stored = {
            split: rows.with_format(None).select_columns(["image"]).cast_column("image", ImageFeature(decode=False))
            for split, rows in splits.items()
        }

    def load(self, split: str, row: int) -> Image.Image:
        """Decode the image of a row."""
        return self._feature[split].decode_example(self._stored[split][row]["image"])

    def read(
        self, references: list[Reference], crashed: Mapping[int, str] = NO_CRASH, announce: Announce = lambda _: None
    ) -> ReadBatch:
        """Decode images, bring them to 8 bits, pad and resize them."""
        images, reasons = _decode(self.load, references, crashed, announce)
        sources = self.columns([*reasons])["source"]
        unreadable = [
            {"source": source, "split": split, "reason": reason}
            for source, ((split, _), reason) in zip(sources, reasons.items(), strict=True)
        ]
        tensors = resized([*images.values()], self.image_processor)
        return ReadBatch(self.columns([*images]), tensors, unreadable, len(references))


class DatasetReports(DatasetRows):
    """The reports of a dataset; one that several rows of a batch share is encoded once."""

    def __init__(self, splits: Mapping[str, Dataset], processor: LumbarCLIPProcessor) -> None:
        super().__init__(splits)
        self.processor = processor

    def read(
        self, references: list[Reference], _: Mapping[int, str] = NO_CRASH, __: Announce = lambda _: None
    ) -> ReadBatch:
        """Tokenise reports."""
        columns = self.columns(references)
        row_of_text = {text: row for row, text in enumerate(dict.fromkeys(columns["report"]))}
        tokens = self.processor(text=list(row_of_text), return_tensors="pt")
        text_index = torch.tensor([row_of_text[text] for text in columns["report"]])
        return ReadBatch(columns, {**tokens, "text_index": text_index}, [], len(references))


Inputs = FolderImages | DatasetImages | DatasetReports


def _decode(
    load: Callable[[str, int], Image.Image],
    references: list[Reference],
    crashed: Mapping[int, str],
    announce: Announce,
) -> tuple[dict[Reference, Tensor], dict[Reference, str]]:
    """Load images as `eight_bits`; return those that can be read, and why the others cannot."""
    images, reasons = {}, {}
    for index, reference in enumerate(references):
        announce(index)
        try:
            if index in crashed:
                raise UnusableImageError(crashed[index])
            images[reference] = eight_bits(load(*reference))
        except ValueError as error:
            reasons[reference] = str(error)
        except Exception as error:  # Pillow's plug-ins raise anything
            reasons[reference] = f"{type(error).__name__}: {error}"
    announce(None)
    return images, reasons


def eight_bits(image: Image.Image) -> Tensor:
    """Bring an image to 8 bits, as the image processor does: (1, H, W) if it is stored in grey, else (3, H, W).

    Raises:
        ValueError: If it is empty, without a finite pixel, or too long to be padded to a square.
    """
    side = max(image.size)
    if side * side > MAX_PIXELS:
        raise UnusableImageError(
            f"image too long: {image.width} x {image.height}; padded to a square it has more than {MAX_PIXELS} pixels"
        )
    eight_bit = to_eight_bits(image)
    return eight_bit if isinstance(eight_bit, Tensor) else to_eight_bits(np.asarray(eight_bit), "channels_last")


def resized(images: Sequence[Tensor], image_processor: LumbarCLIPImageProcessor) -> dict[str, Tensor]:
    """Pad and resize images, (1, H, W) or (3, H, W), to `images`, (B, C, S, S), uint8; nothing if there are none.

    Images of one size go together, grey ones in one channel, a third of the work. The encoder
    rescales and normalises.
    """
    if not images:
        return {}
    options: dict[str, Any] = {
        "do_convert_rgb": False,
        "do_rescale": False,
        "do_normalize": False,
        "input_data_format": "channels_first",
    }
    squares = image_processor(list(images), **options).pixel_values
    num_channels = max(len(square) for square in squares)
    return {"images": torch.stack([square.expand(num_channels, -1, -1) for square in squares])}


def _num_frames(path: Path) -> int:
    """Count the frames of a DICOM file; 1 for any other file, and for a header that reading will report as broken."""
    if not is_dicom(path):
        return 1
    try:
        with open_dicom(path, [Tag("NumberOfFrames")]) as file:
            return num_frames(file.header)
    except UnusableImageError:
        return 1
