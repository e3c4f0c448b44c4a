"""Name the MR sequence of a DICOM header as in `records.SEQUENCES`."""

import re

from pydicom import Dataset

from data_scripts.imaging.dicom_reading import finite_numbers

SEQUENCE_TAGS = (
    "Modality",
    "ImageType",
    "SeriesDescription",
    "ProtocolName",
    "SequenceName",
    "ScanningSequence",
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
)

# Searched in this order in the names that people and scanners give. Underscores separate as blanks do.
_NAMES: tuple[tuple[str, str], ...] = (
    ("other", r"LOCALI[SZ]ER|\bLOC\b|SCOUT|SURVEY|\b3 ?PL|MYELO|\bDWI|\bDIFF|\bADC\b|\bSUB\b|\bMAP\b|\bMIP\b"),
    ("other", r"\bT2 ?(\*|STAR)|\bMEDIC\b|\bMERGE\b|\bSWI\b"),
    ("STIR", r"\bSTIR|\bTIRM"),
    ("T2_SPACE", r"\bT2W?.*(SPACE|\bSPC|\bCUBE|\bVISTA)|(SPACE|\bSPC|\bCUBE|\bVISTA).*\bT2"),
    ("T1", r"\bT1(?!\d)"),
    ("T2", r"\bT2(?!\d)"),
    ("PD", r"\bPD(?![A-Z]*IR)|PROTON"),
)
_SHORT_ECHO_MS = 45
_SHORT_REPETITION_MS = 1200
_NULLING_FAT_MS = (80, 260)  # inversion times from 0.2 to 3 tesla


def mr_sequence(header: Dataset) -> str:
    """Name the sequence by the series' name, or else by the timing of a spin echo.

    1. Anything but MR is `other`; so are localizers.
    2. The first of series description, protocol and sequence name that holds exactly one weighting: `STIR` or `TIRM`;
       `T2_SPACE` (SPACE, CUBE, VISTA with T2); `T1`, `T2`, `PD`. Diffusion, myelography, T2* and maps are `other`.
    3. A spin echo (or inversion recovery) by its times: inversion at 80-260 ms is `STIR`; an echo within 45 ms is `T1`
       when the repetition takes at most 1,200 ms or an inversion precedes it, else `PD`; a later echo is `T2`.
    4. Other named sequences (gradient echo) are `other`; without names and times, `unknown`.

    Example:
        >>> mr_sequence(Dataset())
        'unknown'
    """
    if _upper(header, "Modality") not in ("", "MR") or "LOCALIZER" in _upper(header, "ImageType"):
        return "other"
    for keyword in ("SeriesDescription", "ProtocolName", "SequenceName"):
        if named := sequence_from_name(_upper(header, keyword)):
            return named
    return _sequence_from_times(header)


def sequence_from_name(name: str) -> str | None:
    """Name the MR sequence from the name of a series; None if that does not tell.

    Example:
        >>> [sequence_from_name(name) for name in ("T2_TSE_TRA_384", "Sag T1", "t2_spc_sag", "SAG STIR", "spine")]
        ['T2', 'T1', 'T2_SPACE', 'STIR', None]
    """
    words = " ".join(name.upper().replace("_", " ").split())
    found = [sequence for sequence, pattern in _NAMES if re.search(pattern, words)]
    weightings = {sequence for sequence in found if sequence in ("T1", "T2", "PD")}
    if not found or (found[0] in weightings and len(weightings) > 1):  # "T2 T1-T12": one of them is a vertebra
        return None
    return found[0]


def _sequence_from_times(header: Dataset) -> str:
    times_ms = (finite_numbers(header, name) for name in ("EchoTime", "RepetitionTime", "InversionTime"))
    echo, repetition, inversion = (numbers[0] if len(numbers) == 1 else 0 for numbers in times_ms)
    scanning = _upper(header, "ScanningSequence")
    if "SE" not in scanning and "IR" not in scanning:
        return "other" if scanning else "unknown"
    if _NULLING_FAT_MS[0] <= inversion <= _NULLING_FAT_MS[1]:
        return "STIR"
    if not echo or not repetition:
        return "unknown"
    if echo > _SHORT_ECHO_MS:
        return "T2"
    return "T1" if repetition <= _SHORT_REPETITION_MS or inversion else "PD"


def _upper(header: Dataset, keyword: str) -> str:
    return str(header.get(keyword) or "").upper()
