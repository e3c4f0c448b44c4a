"""The embedded source: T1 and T2 slices drawn from anatomy, with reports that state exactly what was drawn.

A patient has six axial slices, T1 and T2 at L3/L4, L4/L5 and L5/S1, and two midsagittal ones, which show the same
findings (`--plane` says which are drawn). The patient's LEFT is on the image's RIGHT in axial slices (radiological
convention), in pixels, masks and reports alike; sagittal ones have the front at the left. Every drawing depends only on
(seed, patient): the same patient looks the same whatever the number of patients, the process or the order of reading.
`findings.py` sets which findings are drawn, and how often. Results on these data are results on synthetic data.
"""

from collections.abc import Iterator
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
from PIL import Image

from data_scripts.imaging.images import ORIENTATION_STATED
from data_scripts.records import LOW_BACK_PAIN, NO_FINDING, Exclusion, ReadOptions, Record, SourceAbout, SourceInfo
from data_scripts.sources.synthetic.anatomy import MASK_NAMES, paint_level, sample_shape
from data_scripts.sources.synthetic.canvas import Canvas, Pose
from data_scripts.sources.synthetic.findings import (
    STENOSIS_GRADES,
    SYNTHETIC_LEVELS,
    LevelFindings,
    Patient,
    sample_patient,
    sample_sagittal_facts,
)
from data_scripts.sources.synthetic.reports import write_reports, write_spine_reports
from data_scripts.sources.synthetic.sagittal import SAGITTAL_MASK_NAMES, paint_spine
from data_scripts.sources.synthetic.scanner import SIGNAL, Scanner, expose, expose_sagittal, sample_scanner
from data_scripts.sources.synthetic.spine import sample_spine
from data_scripts.sources.synthetic.surroundings import Build, paint_surroundings, sample_build

ABOUT = SourceAbout(
    name="synthetic",
    summary=(
        "T1 and T2 slices drawn from anatomy, six axial ones per patient or, with --plane sagittal, two midsagittal "
        "ones, with masks, and reports that state what was drawn: disc bulge, protrusion, canal stenosis, dehydration "
        "or no finding. No real patient."
    ),
    license="cc0-1.0",
    citation="Drawn by data_scripts.sources.synthetic.source of LumbarCLIP.",
    size="nothing to download",
    where="drawn here; leave out --raw; --num_patients says how many",
    draws_patients=True,
)
IMAGE_SIZE = 192
SAGITTAL_SIZE = 352
SYNTHETIC_SEQUENCES = ("T1", "T2")

# Streams of random numbers. Each purpose has its own, so that a finding cannot shift other draws.
_FINDINGS, _PATIENT, _SHAPE, _TEXTURE, _EXPOSURE, _WORDING = range(6)
_DEGENERATION, _SPINE, _SAGITTAL_TEXTURE, _SAGITTAL_EXPOSURE, _SAGITTAL_WORDING = range(6, 11)


class Slice(NamedTuple):
    """A drawn slice: grey levels and mask indices, both (H, W) uint8."""

    image: np.ndarray
    mask: np.ndarray


def describe(options: ReadOptions) -> SourceInfo:
    """Describe the synthetic set for the card."""
    return SourceInfo(
        about=ABOUT,
        summary=(
            f"{options.num_patients} synthetic patients (seed {options.seed}): {options.plane} lumbar MRI slices drawn "
            "from anatomy, with disc bulge, protrusion, canal stenosis, dehydration or no finding. No real patient."
        ),
        label_names=(LOW_BACK_PAIN, NO_FINDING),
        grade_names=STENOSIS_GRADES,
        mask_names=SAGITTAL_MASK_NAMES if options.plane == "sagittal" else MASK_NAMES,
        report_origin="composed from the drawn findings",
    )


def read(options: ReadOptions) -> Iterator[Record | Exclusion]:
    """Yield the records of each patient: T1 and T2 of each axial level, or of the midsagittal slice.

    The records of one level, or of the midsagittal slice, share their report.

    Raises:
        ValueError: If `raw` is given or `num_patients` is below 1.
    """
    if options.raw is not None:
        raise ValueError(f"raw={str(options.raw)!r} is not read: the synthetic source draws its studies; leave raw out")
    if options.num_patients < 1:
        raise ValueError(f"num_patients={options.num_patients} draws nothing; give 1 or more")
    records = _sagittal_records if options.plane == "sagittal" else _axial_records
    for patient in range(1, options.num_patients + 1):
        yield from records(options.seed, patient)


def _axial_records(seed: int, patient: int) -> Iterator[Record]:
    patient_id = f"synthetic-{patient:04d}"
    _, scanner = _sample_patient_looks(seed, patient)
    for findings in sample_patient(_stream(seed, patient, _FINDINGS)):
        report, *rephrasings = write_reports(findings, _stream(seed, patient, _WORDING, findings.level))
        for sequence in SYNTHETIC_SEQUENCES:
            yield Record(
                load_image=partial(load_image, seed, patient, findings, sequence),
                load_mask=partial(load_mask, seed, patient, findings, sequence),
                report=report,
                rephrasings=tuple(rephrasings),
                labels=(NO_FINDING if findings.is_normal else LOW_BACK_PAIN,),
                grade=findings.grade,
                patient_id=patient_id,
                study_id=f"{patient_id}-study",
                source=f"synthetic seed {seed}: {patient_id} {findings.level} {sequence}",
                plane="axial",
                sequence=sequence,
                level=findings.level,
                pixel_spacing_mm=scanner.spacing_mm,
            )


def _sagittal_records(seed: int, patient: int) -> Iterator[Record]:
    patient_id = f"synthetic-{patient:04d}"
    _, scanner = _sample_patient_looks(seed, patient)
    facts = sagittal_facts(seed, patient)
    report, *rephrasings = write_spine_reports(facts, _stream(seed, patient, _SAGITTAL_WORDING))
    for sequence in SYNTHETIC_SEQUENCES:
        yield Record(
            load_image=partial(load_sagittal_image, seed, patient, facts, sequence),
            load_mask=partial(load_sagittal_mask, seed, patient, facts, sequence),
            report=report,
            rephrasings=tuple(rephrasings),
            labels=(NO_FINDING if facts.is_normal else LOW_BACK_PAIN,),
            grade=facts.grade,
            patient_id=patient_id,
            study_id=f"{patient_id}-study",
            source=f"synthetic seed {seed}: {patient_id} sagittal {sequence}",
            plane="sagittal",
            sequence=sequence,
            level="several",
            pixel_spacing_mm=scanner.spacing_mm,
        )


def load_image(seed: int, patient: int, findings: LevelFindings, sequence: str) -> Image.Image:
    """Draw an axial slice, 8-bit grey."""
    return _as_image(draw_slice(seed, patient, findings, sequence))


def load_mask(seed: int, patient: int, findings: LevelFindings, sequence: str) -> Image.Image:
    """Draw the mask of the slice, indices of `MASK_NAMES`."""
    return Image.fromarray(draw_slice(seed, patient, findings, sequence).mask)


def load_sagittal_image(seed: int, patient: int, facts: Patient, sequence: str) -> Image.Image:
    """Draw a midsagittal slice, 8-bit grey."""
    return _as_image(draw_sagittal(seed, patient, facts, sequence))


def load_sagittal_mask(seed: int, patient: int, facts: Patient, sequence: str) -> Image.Image:
    """Draw the mask of the slice, indices of `SAGITTAL_MASK_NAMES`."""
    return Image.fromarray(draw_sagittal(seed, patient, facts, sequence).mask)


def _as_image(slice_: Slice) -> Image.Image:
    image = Image.fromarray(slice_.image)
    image.info[ORIENTATION_STATED] = True  # drawn so
    return image


@lru_cache(maxsize=1)  # a record's mask is loaded right after its image
def draw_slice(seed: int, patient: int, findings: LevelFindings, sequence: str) -> Slice:
    """Draw one slice of a patient with the given findings, which change the level's own pixels and nothing else.

    Build, texture, noise and scanner come from other streams, so a patient can be drawn with and without a finding.
    """
    build, scanner = _sample_patient_looks(seed, patient)
    shape_rng = _stream(seed, patient, _SHAPE, findings.level)
    shape = sample_shape(findings.level, build.size, shape_rng)
    pose = Pose(
        angle=shape_rng.normal(0.0, 0.035),
        column=0.5 * IMAGE_SIZE + shape_rng.normal(0.0, 3.0),
        row=0.52 * IMAGE_SIZE + shape_rng.normal(0.0, 3.0),
    )
    texture_rng = _stream(seed, patient, _TEXTURE, findings.level)  # the same for T1 and T2: it is the same tissue
    canvas = Canvas(IMAGE_SIZE, scanner.spacing_mm, pose, SIGNAL[sequence], texture_rng)
    paint_surroundings(canvas, shape, build, texture_rng)
    paint_level(canvas, shape, findings, texture_rng)
    disc_front = -2.0 * shape.disc_half_depth
    exposure_rng = _stream(seed, patient, _EXPOSURE, findings.level, sequence)
    image = expose(canvas.image, canvas.x, canvas.y, disc_front, scanner, exposure_rng)
    return Slice(image=image, mask=canvas.mask)


def sagittal_facts(seed: int, patient: int) -> Patient:
    """Draw the facts of a patient's sagittal slices: the findings of the axial ones, and what only this plane shows."""
    levels = sample_patient(_stream(seed, patient, _FINDINGS))
    return sample_sagittal_facts(levels, _stream(seed, patient, _DEGENERATION))


@lru_cache(maxsize=1)
def draw_sagittal(seed: int, patient: int, facts: Patient, sequence: str) -> Slice:
    """Draw the midsagittal slice of a patient with the given facts, cut to a field of view of the patient's own."""
    build, scanner = _sample_patient_looks(seed, patient)
    shapes = {
        level: sample_shape(level, build.size, _stream(seed, patient, _SHAPE, level)) for level in SYNTHETIC_LEVELS
    }
    shape_rng = _stream(seed, patient, _SPINE)
    spine = sample_spine(facts, shapes, build.size, shape_rng)
    pose = Pose(
        angle=shape_rng.normal(0.0, 0.03),
        column=0.60 * SAGITTAL_SIZE + shape_rng.normal(0.0, 5.0),
        row=0.535 * SAGITTAL_SIZE + shape_rng.normal(0.0, 4.0),
    )
    columns = slice(
        int(shape_rng.uniform(0.0, 0.28) * SAGITTAL_SIZE), int(shape_rng.uniform(0.94, 1.0) * SAGITTAL_SIZE)
    )
    texture_rng = _stream(seed, patient, _SAGITTAL_TEXTURE)  # the same for T1 and T2: it is the same tissue
    canvas = Canvas(SAGITTAL_SIZE, scanner.spacing_mm, pose, SIGNAL[sequence], texture_rng)
    paint_spine(canvas, spine, facts.conus, build.fat_mm, texture_rng)
    fronts = np.array([body.at(-body.half_depth, 0.0) for body in spine.bodies[::-1]])
    front = np.interp(canvas.y, fronts[:, 1], fronts[:, 0]).astype(np.float32)
    exposure_rng = _stream(seed, patient, _SAGITTAL_EXPOSURE, None, sequence)
    image = expose_sagittal(canvas.image, canvas.x, canvas.y, front, scanner, exposure_rng)
    return Slice(image=image[:, columns].copy(), mask=canvas.mask[:, columns].copy())


def _sample_patient_looks(seed: int, patient: int) -> tuple[Build, Scanner]:
    rng = _stream(seed, patient, _PATIENT)
    return sample_build(rng), sample_scanner(rng)


def _stream(
    seed: int, patient: int, purpose: int, level: str | None = None, sequence: str | None = None
) -> np.random.Generator:
    """Make the generator of one purpose; the key has a fixed length, since NumPy ignores trailing zeros."""
    level_key = 1 + SYNTHETIC_LEVELS.index(level) if level else 9
    sequence_key = 1 + SYNTHETIC_SEQUENCES.index(sequence) if sequence else 9
    return np.random.default_rng([seed, patient, purpose, level_key, sequence_key])
