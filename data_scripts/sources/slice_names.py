"""Slice names of the lumbar sets on Mendeley Data: `T1_0001_D3.png`, `axial_T2_0042_D5.png`, `sag_T2_0001_S8.png`.

They state sequence, patient and place: `D3`, `D4` and `D5` are axial slices through a disc, `S8` is the eighth sagittal
slice.
"""

import filecmp
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from data_scripts.records import Exclusion

LEVEL_OF_DISC = {"D3": "L3/L4", "D4": "L4/L5", "D5": "L5/S1"}

# Image formats that are not read: a slice stored in one of them is listed as excluded.
OTHER_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2")
NOT_PNG = "not a PNG file; convert it, and keep its name"

# ASCII only: `\d` matches digits of other scripts, which no table has.
_AXIAL = re.compile(r"(?:axial_)?(T[12])_([0-9]{4})_(D[345])\.png", re.IGNORECASE | re.ASCII)
_SAGITTAL = re.compile(r"(?:sag_)?(T[12])_([0-9]{4})_(S[0-9]{1,2})\.png", re.IGNORECASE | re.ASCII)


class SliceName(NamedTuple):
    """Facts in the name of a slice file."""

    patient: str  # four digits, as in the notes
    place: str  # the disc (`D3` to `D5`) of an axial slice, the number (`S8`) of a sagittal one
    sequence: str  # `T1` or `T2`

    @property
    def plane(self) -> str:
        """Plane as in the record."""
        return "axial" if self.place in LEVEL_OF_DISC else "sagittal"

    @property
    def level(self) -> str:
        """Level as in the record: a sagittal slice shows several discs."""
        return LEVEL_OF_DISC.get(self.place, "several")


def parse_slice_name(name: str) -> SliceName | None:
    """Read the name of a slice file; None for any other name.

    Example:
        >>> parse_slice_name("sag_T2_0001_S8.png")
        SliceName(patient='0001', place='S8', sequence='T2')
        >>> parse_slice_name("T1_0042_D4.png").level
        'L4/L5'
        >>> [parse_slice_name(name) for name in ("T1_0042_D9.png", "sag_T1_0042_D4.png", "L1_0042_D4.png")]
        [None, None, None]
    """
    match = _AXIAL.fullmatch(name) or _SAGITTAL.fullmatch(name)
    if match is None:
        return None
    sequence, patient, place = match.groups()
    return SliceName(patient, place.upper(), sequence.upper())


def one_file_each(
    files_of: Mapping[SliceName, Sequence[Path]], source_of: Callable[[Path], str]
) -> tuple[dict[SliceName, Path], list[Exclusion]]:
    """Choose the file of each slice.

    Identical copies are excluded by rule. Files that differ are all excluded as defects: we cannot know which one shows
    the slice. `source_of` names a file as in `Record`.
    """
    chosen: dict[SliceName, Path] = {}
    exclusions: list[Exclusion] = []
    for name, (first, *others) in files_of.items():
        if all(_is_copy(first, other) for other in others):
            chosen[name] = first
            exclusions += [Exclusion(source_of(other), "copy of another file", by_rule=True) for other in others]
        else:
            reason = f"{1 + len(others)} different files are named {'_'.join(name)}; keep one"
            exclusions += [Exclusion(source_of(path), reason) for path in (first, *others)]
    return chosen, exclusions


def group_by_name(paths: Iterable[Path]) -> tuple[dict[SliceName, list[Path]], list[Path]]:
    """Group files by the slice that they name; also list the files without such a name."""
    files_of: dict[SliceName, list[Path]] = {}
    others = []
    for path in paths:
        name = parse_slice_name(path.name)
        if name is None:
            others.append(path)
        else:
            files_of.setdefault(name, []).append(path)
    return files_of, others


def _is_copy(first: Path, second: Path) -> bool:
    try:
        return filecmp.cmp(first, second, shallow=False)
    except OSError:  # a broken link, no permission
        return False
