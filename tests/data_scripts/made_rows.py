"""Small datasets of made-up rows, and copies of their images that are stored otherwise."""

import io

import datasets
import numpy as np
from PIL import Image

from data_scripts.lumbar_builder import dataset_features
from data_scripts.records import SourceAbout, SourceInfo

ABOUT = SourceAbout(name="made", summary="", license="other: none", citation="", size="", where="")
INFO = SourceInfo(about=ABOUT, label_names=("LBP", "No Finding"), grade_names=("1", "2"))


def slice_of(number: int, side: int = 96) -> Image.Image:
    """Soft blobs, other ones for each number."""
    small = np.random.default_rng(number).integers(0, 200, (9, 9)).astype(np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)


def png(image: Image.Image, level: int = 6) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=level)
    return buffer.getvalue()


def decoded(value: dict[str, bytes]) -> Image.Image:
    return Image.open(io.BytesIO(value["bytes"]))


def row(number: int, **changes: object) -> dict[str, object]:
    values = {
        "image": {"bytes": png(slice_of(number)), "path": None},
        "report": f"Report {number}.",
        "rephrasings": [],
        "labels": ["LBP"] if number % 2 else ["No Finding"],
        "grade": "1",
        "patient_id": f"p{number}",
        "study_id": f"s{number}",
        "series_id": None,
        "slice_index": None,
        "plane": "axial",
        "sequence": "T2",
        "level": "L4/L5",
        "pixel_spacing_mm": None,
        "slice_spacing_mm": None,
        "disc_height_mm": None,
        "mask": None,
        "mask_classes": None,
        "mask_origin": None,
        "source": f"made/{number}",
    }
    return values | changes


def dataset_of(**rows_of_split: list[dict[str, object]]) -> datasets.DatasetDict:
    features = dataset_features(INFO)
    return datasets.DatasetDict(
        {name: datasets.Dataset.from_list(rows, features=features) for name, rows in rows_of_split.items()}
    )


def splits(**changes: object) -> datasets.DatasetDict:
    """Ten rows for training, four for validation, four for test; the first test row is changed."""
    return dataset_of(
        train=[row(number) for number in range(10)],
        validation=[row(number) for number in range(10, 14)],
        test=[row(14, **changes), *(row(number) for number in range(15, 18))],
    )


def jpeg(number: int) -> Image.Image:
    buffer = io.BytesIO()
    slice_of(number).save(buffer, "JPEG", quality=50)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("L")


def brighter(number: int) -> Image.Image:
    return slice_of(number).point([min(255, round(1.15 * grey)) for grey in range(256)])


LEAKS = {
    "patient": {"patient_id": "p3"},
    "study": {"study_id": "s3"},
    "image": {"image": {"bytes": png(slice_of(3), level=0), "path": None}},
    "near-identical image": {"image": {"bytes": png(jpeg(3)), "path": None}},
}
