"""The slices of a DICOM series in the order in which they lie in the patient."""

from collections.abc import Iterable

import numpy as np

from data_scripts.imaging.dicom import SliceHeader


def order_slices(headers: Iterable[SliceHeader]) -> list[SliceHeader]:
    """Order slices along their normal: foot to head for axial ones, left to right for sagittal ones.

    File names and instance numbers follow the scanner, which may interleave slices or number them from the head down;
    they only break ties. Stacks through several discs, each tilted its own way, are ordered along their mean normal.
    Where a slice lacks its place, all go by instance number.

    Args:
        headers: Of one series.
    """
    by_number = sorted(headers, key=lambda header: (header.instance_number or 0, str(header.path), header.frame))
    placed = [(header.normal, header.corner_mm) for header in by_number if header.normal and header.corner_mm]
    if not placed or len(placed) < len(by_number):
        return by_number
    normals, corners_mm = np.array(placed).transpose(1, 0, 2)
    places_mm = corners_mm @ normals.sum(axis=0)
    return [by_number[index] for index in np.argsort(places_mm, kind="stable")]
