"""A small dataset with masks: a bright disc and a grey canal on a dark ground."""

import numpy as np
from datasets import Dataset, DatasetDict
from PIL import Image

from data_scripts.lumbar_builder import dataset_features
from data_scripts.records import SourceAbout, SourceInfo

NAMES = ("background", "disc", "canal")
PATIENTS = {"train": range(6), "validation": range(6, 8), "test": range(8, 10)}


def features(names=NAMES):
    about = SourceAbout(name="drawn", summary="", license="other: none", citation="", size="", where="")
    return dataset_features(SourceInfo(about=about, label_names=("LBP", "No Finding"), mask_names=names))


def made_row(patient, number, source="drawn", values=(1, 2)):
    """A picture of 40 x 28 pixels, its disc and canal shifted from picture to picture."""
    random = np.random.default_rng([patient, number])
    mask = np.zeros((40, 28), dtype=np.uint8)
    top = 6 + int(random.integers(10))
    mask[top : top + 9, 4:16], mask[4:36, 19:24] = values
    grey = np.array([30, 220, 120])[(mask == values[0]) + 2 * (mask == values[1])]
    pixels = np.clip(grey + random.normal(0, 8, mask.shape), 1, 255)
    name = f"{source}/{patient:02d}/{number}"
    return {
        "image": Image.fromarray(pixels.astype(np.uint8)),
        "mask": Image.fromarray(mask),
        "mask_classes": None,
        "mask_origin": "source",
        "report": f"Disc bulge of {patient}.",
        "rephrasings": [],
        "labels": None,
        "grade": None,
        "patient_id": f"{source}-{patient:02d}",
        "study_id": f"{source}-{patient:02d}",
        "series_id": None,
        "slice_index": number,
        "plane": "sagittal",
        "sequence": "T2",
        "level": None,
        "pixel_spacing_mm": None,
        "slice_spacing_mm": None,
        "disc_height_mm": None,
        "source": name,
    }


def masked_dataset(names=NAMES, change=lambda split, row: row, **made):
    """Three pictures of each patient; `change` may alter a row of a split."""
    return DatasetDict(
        {
            split: Dataset.from_list(
                [change(split, made_row(patient, number, **made)) for patient in patients for number in range(3)],
                features=features(names),
            )
            for split, patients in PATIENTS.items()
        }
    )


def write_dataset(folder, dataset):
    """Write a dataset as `open_dataset` reads it."""
    (folder / "data").mkdir(parents=True)
    for split, rows in dataset.items():
        rows.to_parquet(folder / "data" / f"{split}.parquet")
    return folder
