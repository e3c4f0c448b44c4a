"""Small folders in the layout of LSMA-PQR."""

import csv
import itertools
from collections import Counter

import numpy as np
from PIL import Image

from data_scripts.records import Exclusion, ReadOptions, Record
from data_scripts.sources.lsma_pqr import source as lsma_pqr

NOTE = {
    "PatientID": "1",
    "Severity": "moderate",
    "Compression": "1",
    "DiscBulge": "1",
    "Herniation": "0",
    "Stenosis": "0",
    "MuscleSpasm": "1",
    "AffectedLevels": "D3,D4",
    "NerveInvolvement": "left",
    "ClinicalNotes": "Diffuse disc bulge at L3-L4 and L4-L5, compressing the thecal sac.//Muscle spasm",
}
NORMAL = {
    "PatientID": "2",
    "Severity": "normal",
    "Compression": "0",
    "DiscBulge": "0",
    "Herniation": "0",
    "Stenosis": "0",
    "MuscleSpasm": "0",
    "AffectedLevels": "",
    "NerveInvolvement": "none",
    "ClinicalNotes": "Normal study. No disc herniation.",
}
GRADES = {"PatientID": "1", "D3": "2", "D4": "4", "D5": "3"}
AXIAL_MASK = np.array([[0, 1], [2, 3]], dtype=np.uint8).repeat(4, axis=0).repeat(5, axis=1)
SAGITTAL_MASK = np.array([[0, 1, 2], [3, 4, 0]], dtype=np.uint8).repeat(4, axis=0).repeat(5, axis=1)
SHORT_NAMES = {"notes": "structured_notes.csv", "grades": "PfirrmannGrade.csv"}
LONG_NAMES = {"notes": "RadiologicalNotes.csv", "grades": "PfirrmannGrades.csv"}


def write_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_png(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def pixels_of(mask, number):
    return np.random.default_rng(number).integers(0, 256, mask.shape, dtype=np.uint8)


def make_lsma(
    raw,
    notes=(NOTE,),
    grades=(GRADES,),
    *,
    patients=("0001",),
    image_prefixes=("", ""),
    mask_prefixes=("", ""),
    names=SHORT_NAMES,
):
    """Write eight images with masks of each patient, and the tables."""
    for patient, sequence in itertools.product(patients, ("T1", "T2")):
        for place in ("D3", "D4", "D5", "S8"):
            is_sagittal = place == "S8"
            mask = SAGITTAL_MASK if is_sagittal else AXIAL_MASK
            name = f"{sequence}_{patient}_{place}.png"
            number = int(patient) * 100 + int(place[1]) * 10 + int(sequence[1])
            write_png(raw / "images_png" / f"{image_prefixes[is_sagittal]}{name}", pixels_of(mask, number))
            write_png(raw / "masks_indexed" / f"{mask_prefixes[is_sagittal]}{name}", mask)
    write_csv(raw / names["notes"], notes)
    if grades:
        write_csv(raw / names["grades"], grades)
    return raw


def read(raw, **options):
    items = list(lsma_pqr.read(ReadOptions(raw=raw, **options)))
    return [item for item in items if isinstance(item, Record)], [item for item in items if isinstance(item, Exclusion)]


def reasons(exclusions):
    return Counter((exclusion.reason, exclusion.by_rule) for exclusion in exclusions)
