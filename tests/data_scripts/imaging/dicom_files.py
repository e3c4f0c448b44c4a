"""Makes small DICOM files for tests, in any of the transfer syntaxes that are read."""

import copy
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGLSNearLossless,
    MRImageStorage,
    generate_uid,
)

AXIAL = (1, 0, 0, 0, 1, 0)
SAGITTAL = (0, 1, 0, 0, 0, -1)
CORONAL = (1, 0, 0, 0, 0, -1)


def tilted(degrees: float, axes: tuple[int, int]) -> tuple[float, ...]:
    """Axial cosines after a turn in the plane of two patient axes: (1, 2) follows the lordosis."""
    angle = np.radians(degrees)
    turn = np.eye(3)
    first, second = axes
    turn[first, first] = turn[second, second] = np.cos(angle)
    turn[first, second], turn[second, first] = -np.sin(angle), np.sin(angle)
    return (*turn[:, 0], *turn[:, 1])


def draw_pixels(dtype: type[np.integer], bits: int, shape: tuple[int, ...] = (36, 33), seed: int = 0) -> np.ndarray:
    """Random stored values of so many bits."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if np.issubdtype(dtype, np.signedinteger) else (0, 2**bits)
    return np.random.default_rng(seed).integers(low, high, shape, dtype=dtype)


def make_dicom(
    path: Path,
    pixels: np.ndarray,
    *,
    orientation: Sequence[float] | None = AXIAL,
    position: Sequence[float] | None = (0, 0, 0),
    spacing: Sequence[float] | None = (0.6875, 0.6875),
    transfer_syntax: str = ExplicitVRLittleEndian,
    series_description: str = "T2_TSE_TRA_384",
    patient_id: str = "0001",
    bits_stored: int | None = None,
    **tags: Any,
) -> Dataset:
    """Write a file and return its dataset, as it was before compression.

    Args:
        path: File to write; missing folders are made.
        pixels: Stored values: (rows, columns), (frames, rows, columns) or (rows, columns, 3); 8 or 16 bit. JPEG 2000
            is not written for images of fewer than 32 rows or columns.
        orientation: Direction cosines of a row, then of a column; None leaves them out.
        position: Of the first pixel, in mm; None leaves it out.
        spacing: Between rows, then between columns, in mm; None leaves it out.
        transfer_syntax: UID of the encoding.
        bits_stored: Of each value; those of the array's type when None.
        tags: Further elements by keyword (`WindowCenter=40`); None removes one that is set here.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = MRImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.Modality = "MR"
    dataset.PatientID = patient_id
    dataset.PatientName = "Doe^Jane"
    dataset.StudyInstanceUID = f"1.2.826.0.1.{int.from_bytes(patient_id.encode())}"
    dataset.SeriesDescription = series_description
    description_number = int.from_bytes(series_description.encode()[:16])
    dataset.SeriesInstanceUID = f"{dataset.StudyInstanceUID[:20]}.{description_number}"[:64]
    dataset.InstanceNumber = 1
    if orientation is not None:
        dataset.ImageOrientationPatient = [float(f"{value:.6f}") for value in orientation]
    if position is not None:
        dataset.ImagePositionPatient = list(position)
    if spacing is not None:
        dataset.PixelSpacing = list(spacing)
    _set_pixels(dataset, pixels, bits_stored)
    for keyword, value in tags.items():
        if value is None:
            if keyword in dataset:
                delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    _save(dataset, path, UID(transfer_syntax))
    return dataset


def _set_pixels(dataset: Dataset, pixels: np.ndarray, bits_stored: int | None) -> None:
    is_colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    if pixels.ndim == 3 and not is_colour:
        dataset.NumberOfFrames = len(pixels)
    dataset.Rows, dataset.Columns = pixels.shape[:2] if is_colour else pixels.shape[-2:]
    dataset.SamplesPerPixel = 3 if is_colour else 1
    dataset.PhotometricInterpretation = "RGB" if is_colour else "MONOCHROME2"
    if is_colour:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored = bits_stored or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    content = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    dataset["PixelData"].VR = "OB" if dataset.BitsAllocated == 8 else "OW"


def _save(dataset: Dataset, path: Path, syntax: UID) -> None:
    stored = copy.deepcopy(dataset)
    if syntax == JPEGBaseline8Bit:  # pydicom has no encoder for it
        buffer = io.BytesIO()
        Image.fromarray(dataset.pixel_array).save(buffer, format="JPEG", quality=95, subsampling=0)
        stored.file_meta.TransferSyntaxUID = syntax
        stored.PixelData = encapsulate([buffer.getvalue()])
        stored["PixelData"].VR = "OB"
        if dataset.SamplesPerPixel == 3:
            stored.PhotometricInterpretation = "YBR_FULL"
    elif syntax.is_compressed and not syntax.is_deflated:
        options: dict[str, Any] = {}
        if syntax == JPEGLSNearLossless:
            options["jls_error"] = 2
        elif syntax == JPEG2000:
            options["j2k_cr"] = [4]
        stored.compress(syntax, generate_instance_uid=False, **options)
    else:
        stored.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian and dataset.BitsAllocated == 16:
            stored.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    stored.save_as(path, enforce_file_format=True)
