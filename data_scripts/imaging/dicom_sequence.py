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
    "MRAcquisitionType",
    # Of enhanced files, whose functional groups `frame_headers` lays over the header.
    "FrameType",
    "PulseSequenceName",
    "EchoPulseSequence",
    "EchoPlanarPulseSequence",
    "EffectiveEchoTime",
    "InversionRecovery",
    "InversionTimes",
    "AcquisitionContrast",
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
# Enhanced files say what classic ones leave to their times. Of the defined terms, those that are missing here (such as
# `MIXED`) do not decide.
_CONTRASTS = {"T1": "T1", "T2": "T2", "PROTON_DENSITY": "PD", "STIR": "STIR"}
_CONTRASTS |= dict.fromkeys(
    ("DIFFUSION", "PERFUSION", "T2_STAR", "TOF", "FLOW_ENCODED", "SPIN_TAGGED", "TAGGING", "DYNAMIC_CONTRAST"), "other"
)
_SCANNING_OF_ECHO = {"SPIN": "SE", "GRADIENT": "GR", "BOTH": "GR SE"}
_SHORT_ECHO_MS = 45
_SHORT_REPETITION_MS = 1200
_NULLING_FAT_MS = (80, 260)  # inversion times from 0.2 to 3 tesla


def mr_sequence(header: Dataset) -> str:
    """Name the sequence by the series' name, or else by the contrast or the timing of a spin echo.

    1. Anything but MR is `other`; so are localizers.
    2. The first of series description, protocol and sequence name that holds exactly one weighting: `STIR` or `TIRM`;
       `T2_SPACE` (SPACE, CUBE, VISTA with T2); `T1`, `T2`, `PD`. Diffusion, myelography, T2* and maps are `other`.
    3. Other named sequences (gradient echo, echo planar) are `other`.
    4. A spin echo (or inversion recovery): inversion at 80-260 ms is `STIR`; else the acquisition contrast that an
       enhanced file states; else an echo within 45 ms is `T1` when the repetition takes at most 1,200 ms or an
       inversion precedes it, else `PD`; a later echo is `T2`. A T2 spin echo of a volume (3D) is `T2_SPACE`.
    5. Without names, contrast and times, `unknown`.

    Attributes of enhanced files count as their classic equals: `EffectiveEchoTime`, `InversionTimes`,
    `EchoPulseSequence`, `PulseSequenceName`, `FrameType`.

    Example:
        >>> mr_sequence(Dataset())
        'unknown'
    """
    if _upper(header, "Modality") not in ("", "MR") or "LOCALIZER" in _upper(header, "ImageType", "FrameType"):
        return "other"
    for keyword in ("SeriesDescription", "ProtocolName", "SequenceName", "PulseSequenceName"):
        if named := sequence_from_name(_upper(header, keyword)):
            return named
    return _sequence_from_contrast(header)


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


def _sequence_from_contrast(header: Dataset) -> str:
    scanning, contrast = _scanning(header), _CONTRASTS.get(_upper(header, "AcquisitionContrast"))
    is_spin_echo = ("SE" in scanning or "IR" in scanning) and "EP" not in scanning
    if contrast == "other" or (scanning and not is_spin_echo):
        return "other"
    inversion_ms = _first_number(header, "InversionTime", "InversionTimes")
    if _upper(header, "InversionRecovery") == "NO":
        inversion_ms = 0
    if is_spin_echo and _NULLING_FAT_MS[0] <= inversion_ms <= _NULLING_FAT_MS[1]:
        return "STIR"
    if contrast is None:
        contrast = _contrast_of_times(header, inversion_ms) if is_spin_echo else "unknown"
    is_volume = _upper(header, "MRAcquisitionType") == "3D"
    return "T2_SPACE" if contrast == "T2" and is_volume and is_spin_echo else contrast


def _contrast_of_times(header: Dataset, inversion_ms: float) -> str:
    echo_ms = _first_number(header, "EchoTime", "EffectiveEchoTime")
    repetition_ms = _first_number(header, "RepetitionTime")
    if not echo_ms or not repetition_ms:
        return "unknown"
    if echo_ms > _SHORT_ECHO_MS:
        return "T2"
    return "T1" if repetition_ms <= _SHORT_REPETITION_MS or inversion_ms else "PD"


def _scanning(header: Dataset) -> str:
    """Return `ScanningSequence`, or what an enhanced file says instead; empty if it says nothing."""
    echo = _SCANNING_OF_ECHO.get(_upper(header, "EchoPulseSequence"), "")
    inversion = "IR" if _upper(header, "InversionRecovery") == "YES" else ""
    planar = "EP" if _upper(header, "EchoPlanarPulseSequence") == "YES" else ""
    return _upper(header, "ScanningSequence") or " ".join(filter(None, (planar, echo, inversion)))


def _first_number(header: Dataset, *keywords: str) -> float:
    """Return the first number of the first element that has one; 0 if none has."""
    return next((numbers[0] for numbers in (finite_numbers(header, name) for name in keywords) if numbers), 0.0)


def _upper(header: Dataset, *keywords: str) -> str:
    return " ".join(str(header.get(keyword) or "") for keyword in keywords).upper()
