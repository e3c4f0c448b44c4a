"""Makes volumes of one anatomy in each format that is read, stored in any order of the axes."""

from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk  # noqa: N813
from pydicom import Dataset
from pydicom.uid import generate_uid

from tests.data_scripts.imaging.dicom_files import make_dicom

SPACING_MM = (4.4, 0.9, 0.7)  # to the left, to the back, to the head: sagittal slices of pixels that are no squares
CORNER_MM = (-12.0, -40.0, -250.0)  # of the voxel furthest to the right, front and feet
_SIDES = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}


def spine(shape: tuple[int, int, int] = (5, 24, 30), dtype: type = np.int16) -> np.ndarray:
    """Draw something with no symmetry at all; axes run to the left, to the back and to the head."""
    left, back, head = np.indices(shape)
    noise = np.random.default_rng(0).integers(0, 60, shape)
    anatomy = 90 * left + 12 * back + 5 * head + noise
    anatomy[:, : shape[1] // 3, -shape[2] // 4 :] += 500  # in front, near the head
    anatomy[0, -4:, :3] += 300  # at the back, near the feet, only furthest to the right
    return anatomy.astype(dtype)


def stored_as(
    anatomy: np.ndarray, axes: str, spacing_mm: tuple[float, ...] = SPACING_MM, turn: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, tuple[float, ...], np.ndarray]:
    """Permute and reverse the axes of an anatomy.

    Args:
        anatomy: Axes to the left, to the back and to the head.
        axes: Sides to which i, j and k run, such as `LPS`, the order of `anatomy`.
        spacing_mm: Along the axes of `anatomy`.
        turn: Rotation of the patient in the scanner, shape (3, 3).

    Returns:
        Voxels [i, j, k]; directions along i, j and k, as rows; spacing along them; the first voxel, all in DICOM's
        coordinates.
    """
    order = [_SIDES[side][0] for side in axes]
    signs = [_SIDES[side][1] for side in axes]
    flipped = [axis for axis, sign in zip(order, signs, strict=True) if sign < 0]
    voxels = np.flip(anatomy, flipped).transpose(order)
    corner = np.array(CORNER_MM)
    for axis in flipped:
        corner[axis] += (anatomy.shape[axis] - 1) * spacing_mm[axis]
    directions = np.array([sign * np.eye(3)[axis] for axis, sign in zip(order, signs, strict=True)])
    turn = np.eye(3) if turn is None else turn
    return voxels, directions @ turn.T, tuple(spacing_mm[axis] for axis in order), turn @ corner


def affine_of(directions: np.ndarray, spacing_mm: tuple[float, ...], corner_mm: np.ndarray) -> np.ndarray:
    """Return the affine of NIfTI, whose coordinates run to the right, front and head."""
    affine = np.eye(4)
    affine[:3, :3] = directions.T * spacing_mm
    affine[:3, 3] = corner_mm
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def write_nifti(path: Path, anatomy: np.ndarray, axes: str = "LPS", **options: object) -> Path:
    voxels, directions, spacing, corner = stored_as(anatomy, axes, **options)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, affine_of(directions, spacing, corner)), path)
    return path


def write_metaimage(path: Path, anatomy: np.ndarray, axes: str = "LPS", **options: object) -> Path:
    voxels, directions, spacing, corner = stored_as(anatomy, axes, **options)
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
    image.SetSpacing(spacing)
    image.SetOrigin(corner.tolist())
    image.SetDirection(directions.T.ravel().tolist())
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path), True)
    return path


def write_series(folder: Path, anatomy: np.ndarray, axes: str = "PIL", **options: object) -> Path:
    """One file a slice across the last axis; names and instance numbers are in no order of space."""
    tags = {key: options.pop(key) for key in list(options) if key not in ("spacing_mm", "turn")}
    voxels, directions, spacing, corner = stored_as(anatomy, axes, **options)
    tags = {"SeriesInstanceUID": "1.2.3.4", "series_description": "lumbar", **tags}
    shuffled_numbers = np.random.default_rng(1).permutation(voxels.shape[2])
    for k, shuffled in enumerate(shuffled_numbers.tolist()):
        make_dicom(
            folder / f"IM{shuffled:03d}",
            np.ascontiguousarray(voxels[:, :, k].T),
            orientation=directions[:2].ravel().tolist(),
            position=(corner + k * spacing[2] * directions[2]).tolist(),
            spacing=(spacing[1], spacing[0]),
            InstanceNumber=shuffled + 1,
            **tags,
        )
    return folder


def write_enhanced(path: Path, anatomy: np.ndarray, axes: str = "PIL", **options: object) -> Path:
    """One file with a frame for each slice, in reversed order."""
    voxels, directions, spacing, corner = stored_as(anatomy, axes, **options)
    order = range(voxels.shape[2])[::-1]
    shared = _group("PlaneOrientationSequence", ImageOrientationPatient=directions[:2].ravel().tolist())
    shared.update(_group("PixelMeasuresSequence", PixelSpacing=[spacing[1], spacing[0]], SliceThickness=spacing[2]))
    places = [(corner + k * spacing[2] * directions[2]).tolist() for k in order]
    make_dicom(
        path,
        np.ascontiguousarray(voxels.transpose(2, 1, 0)[list(order)]),
        orientation=None,
        position=None,
        spacing=None,
        series_description="lumbar",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.4.1",
        SeriesInstanceUID=generate_uid(),
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=[_group("PlanePositionSequence", ImagePositionPatient=at) for at in places],
    )
    return path


def _group(keyword: str, **elements: object) -> Dataset:
    group, item = Dataset(), Dataset()
    for name, value in elements.items():
        setattr(item, name, value)
    setattr(group, keyword, [item])
    return group
