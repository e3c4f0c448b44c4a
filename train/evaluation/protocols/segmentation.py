"""Score predicted masks against true ones: overlap, and distance of the outlines (MONAI).

Scores are predictions as in `train.evaluation.predictions`, arrays by name; the file has one row for each image
and class. N images, C classes without the background:

    true_positives/CLASS, false_positives/CLASS, false_negatives/CLASS     pixels; NaN where the image's source does not
                                           annotate the class                                              (N,)
    hausdorff_95/CLASS, surface_distance/CLASS     in pixels of the stored image; NaN unless both masks show the class
                                                                                                           (N,)
    pixel_spacing_mm                       of the stored image; NaN where unknown                          (N,)
    volume                                 the images of a patient's series, which are one volume          (N,)

A slice may show little of a class, where a few pixels decide its Dice. So Dice and IoU pool the pixels of a volume and
average the volumes, as SPIDER's challenge does; `image_dice` averages images.
"""

import io
import math
import warnings
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_scripts.system.whole_files import write_bytes
from train.evaluation.predictions import Predictions, naming_damaged
from train.evaluation.statistics.bootstrap import Measure
from train.evaluation.statistics.metrics import Array, Floats
from train.evaluation.statistics.overlap import IGNORED, dice, intersection_over_union, mean_of_defined, overlap_counts

COUNTS = ("true_positives", "false_positives", "false_negatives")
DISTANCES = ("hausdorff_95", "surface_distance")
GROUP = "segmentation"  # of the metrics in an experiment
HEADLINE = "macro_dice"
NO_MONAI = "distances of outlines need MONAI: pip install -e '.[segmentation]'"
NOT_SHOWN = "no measured image shows the class"
NO_DISTANCE = "predicted in no image that shows it"


@cache
def has_monai() -> bool:
    """Whether the extra `segmentation` is installed."""
    return find_spec("monai") is not None


def outline_distances(truth: Array, predicted: Array) -> tuple[float, float]:
    """Measure how far two outlines lie apart, in pixels.

    Args:
        truth: Where the class is. Shape (H, W), bool.
        predicted: Where it is predicted. Shape (H, W), bool.

    Returns:
        The 95th percentile of the Hausdorff distance, and the average symmetric surface distance; NaN if a mask is
        empty, or without MONAI.

    Example:
        >>> square = np.zeros((12, 12), dtype=bool)
        >>> square[4:8, 4:8] = True
        >>> tuple(round(distance, 3) for distance in outline_distances(square, np.roll(square, 2, axis=0)))
        (2.0, 1.0)
    """
    if not (truth.any() and predicted.any() and has_monai()):
        return math.nan, math.nan
    import torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    first, second = (torch.from_numpy(np.ascontiguousarray(mask))[None, None].float() for mask in (predicted, truth))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI warns of its own calls
        hausdorff = compute_hausdorff_distance(first, second, include_background=True, percentile=95)
        surface = compute_average_surface_distance(first, second, include_background=True, symmetric=True)
    return hausdorff.item(), surface.item()


def score_masks(
    pairs: Iterable[tuple[Array, Array]],
    annotated: Array,
    class_names: Sequence[str],
    pixel_spacings_mm: Sequence[float | None],
    volumes: Sequence[str],
) -> Predictions:
    """Score predicted masks image by image.

    Args:
        pairs: Of each image its true mask, `IGNORED` where nobody annotated, and the predicted one, both (H, W).
        annotated: Whether the image's mask marks the class, background first. Shape (N, 1 + C), bool.
        class_names: Background first.
        pixel_spacings_mm: Of each stored image; None where unknown.
        volumes: Of each image; images of one volume are slices of one series.

    Raises:
        ValueError: If two masks differ in size, or hold values that are no class.
    """
    shape = len(annotated), len(class_names)
    counts = {name: np.full(shape, math.nan) for name in (*COUNTS, *DISTANCES)}
    for row, (truth, predicted) in enumerate(pairs):
        known = annotated[row]
        for name, of_classes in zip(COUNTS, overlap_counts(truth, predicted, len(class_names)), strict=True):
            counts[name][row, known] = of_classes[known]
        for k in np.flatnonzero(known[1:]) + 1:
            found = outline_distances(truth == k, (predicted == k) & (truth != IGNORED))
            for name, distance in zip(DISTANCES, found, strict=True):
                counts[name][row, k] = distance
    scores = {
        f"{name}/{of_class}": columns[:, k]
        for name, columns in counts.items()
        for k, of_class in enumerate(class_names)
        if k
    }
    spacings = [math.nan if spacing is None else spacing for spacing in pixel_spacings_mm]
    return {"pixel_spacing_mm": np.array(spacings, dtype=np.float64), "volume": np.asarray(volumes), **scores}


def scored_classes(scores: Predictions) -> list[str]:
    """List the classes, without the background."""
    return [name.partition("/")[2] for name in scores if name.startswith(f"{COUNTS[0]}/")]


def of_classes(scores: Predictions, name: str) -> Floats:
    """Lay the classes of a score side by side. Shape (N, C)."""
    return np.stack([scores[f"{name}/{of_class}"] for of_class in scored_classes(scores)], axis=1)


def segmentation_measures(scores: Predictions, patient_ids: Array) -> dict[str, Measure]:
    """Collect the metrics of scored masks, each as `macro_NAME` and `NAME/CLASS`.

    `dice` and `iou` are means over volumes; `image_dice` and the distances over images; `missed` is the share of the
    images with the class in which none of it was predicted, and which thus have no distance. Distances are in mm of
    images whose pixel spacing is known, in pixels of the stored image of the others. A class that no true mask shows
    is undefined and left out of the macro means.
    """
    names = scored_classes(scores)
    counts = [of_classes(scores, name) for name in COUNTS]
    true_positives, false_positives, false_negatives = counts
    shown = [bool(np.nansum(true_positives[:, k] + false_negatives[:, k])) for k in range(len(names))]
    of_volumes, volume_patients = _pooled(counts, scores["volume"], patient_ids)
    in_truth = np.nan_to_num(true_positives + false_negatives) > 0
    tables: dict[str, tuple[Floats, Array]] = {
        "dice": (dice(*of_volumes), volume_patients),
        "iou": (intersection_over_union(*of_volumes), volume_patients),
        "image_dice": (dice_of_images(scores), patient_ids),
        "missed": (np.where(in_truth, true_positives + false_positives == 0, math.nan), patient_ids),
    }
    spacing = scores["pixel_spacing_mm"]
    for unit, scale in (("mm", spacing), ("pixels", np.where(np.isnan(spacing), 1.0, math.nan))):
        if not np.isnan(scale).all():
            for name in DISTANCES:
                tables[f"{name}_{unit}"] = of_classes(scores, name) * scale[:, None], patient_ids
    measures = {}
    for metric, (values, patients) in tables.items():
        lacking = NO_DISTANCE if has_monai() else NO_MONAI
        reason = lacking if metric.startswith(DISTANCES) else NOT_SHOWN
        measures[f"macro_{metric}"] = Measure(mean_of_defined, [values[:, shown]], patients, reason)
        for k, of_class in enumerate(names):
            column = values[:, k] if shown[k] else np.full(len(values), math.nan)
            reason_of_class = f"{of_class}: {reason if shown[k] else NOT_SHOWN}"
            measures[f"{metric}/{of_class}"] = Measure(mean_of_defined, [column], patients, reason_of_class)
    if not any(shown):
        measures = {name: m for name, m in measures.items() if not name.startswith("macro_")}
    return measures


def dice_by_grade(
    scores: Predictions, patient_ids: Array, grades: Array, grade_names: Sequence[str]
) -> dict[str, Measure]:
    """Collect the macro Dice of the images of each grade, as `macro_dice_by_grade/GRADE`.

    The pixels of a volume's images of a grade are pooled. Empty if no image has a grade.

    Args:
        scores: Of N images.
        patient_ids: Shape (N,).
        grades: Indices of `grade_names`; -1 where an image has none. Shape (N,).
        grade_names: Lowest first.

    Source:
        arXiv 2604.02502 reports Dice by severity grade; how it averages is not said, and ours.
    """
    if not (grades >= 0).any():
        return {}
    measures = {}
    for index, grade in enumerate(grade_names):
        rows = grades == index
        of_grade = {name: values[rows] for name, values in scores.items()}
        nothing = Measure(
            mean_of_defined, [np.full(len(grades), math.nan)], patient_ids, f"no mask of an image of grade {grade}"
        )
        found = segmentation_measures(of_grade, patient_ids[rows]) if rows.any() else {}
        measures[f"macro_dice_by_grade/{grade}"] = found.get(HEADLINE, nothing)
    return measures


def _pooled(counts: Sequence[Floats], volumes: Array, patient_ids: Array) -> tuple[list[Floats], Array]:
    """Add up the pixels of each volume, NaN where no image of it annotates the class; and name its patient."""
    _, first, volume_of_row = np.unique(volumes, return_index=True, return_inverse=True)
    sums = []
    for values in counts:
        known, total = np.zeros((2, len(first), values.shape[1]))
        np.add.at(known, volume_of_row, ~np.isnan(values))
        np.add.at(total, volume_of_row, np.nan_to_num(values))
        sums.append(np.where(known > 0, total, math.nan))
    return sums, patient_ids[first]


def dice_of_images(scores: Predictions) -> Floats:
    """Compute the Dice of each class in each image; NaN where neither mask shows it. Shape (N, C)."""
    return dice(*(of_classes(scores, name) for name in COUNTS))


def mean_over_classes(values: Floats) -> Floats:
    """Average the classes that a row defines; NaN if it defines none. (N, C) to (N,)."""
    defined = ~np.isnan(values)
    sums = np.where(defined, values, 0.0).sum(1)
    return np.divide(sums, defined.sum(1), out=np.full(len(values), math.nan), where=defined.any(1))


def write_scores(path: Path, scores: Predictions, patient_ids: Sequence[str] | Array, sources: Sequence[str]) -> None:
    """Write scores as Parquet, whole or not at all: one row for each image and class, images together.

    Columns: `source`, `patient_id`, `volume`, `row`, `fold`, `class`, the counts, `dice`, `iou`, both distances in
    pixels and in mm, and `pixel_spacing_mm`. Null: not annotated, not defined, or not known.
    """
    names = scored_classes(scores)
    counts = {name: of_classes(scores, name) for name in COUNTS}
    values = counts | {"dice": dice(*counts.values()), "iou": intersection_over_union(*counts.values())}
    for name in DISTANCES:
        in_pixels = of_classes(scores, name)
        values |= {f"{name}_pixels": in_pixels, f"{name}_mm": in_pixels * scores["pixel_spacing_mm"][:, None]}
    of_images = {"source": list(sources), "patient_id": list(patient_ids), "volume": scores["volume"].tolist()}
    of_images |= {name: scores[name].tolist() for name in ("row", "fold") if name in scores}
    columns: dict[str, Any] = {name: pa.array(np.repeat(of, len(names))) for name, of in of_images.items()}
    columns["class"] = pa.array(names * len(sources))
    spacings = np.repeat(scores["pixel_spacing_mm"], len(names))
    for name, numbers in (*values.items(), ("pixel_spacing_mm", spacings)):
        columns[name] = pa.array(numbers.reshape(-1), pa.float64(), from_pandas=True)  # NaN becomes null
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue())


def read_scores(path: Path) -> tuple[Predictions, Array]:
    """Read the scores that `write_scores` wrote, and the patient of each image.

    Raises:
        ValueError: If the file is damaged, or holds other predictions; the message names it.
        FileNotFoundError: If there is none.
    """
    with naming_damaged(path):
        table = pq.read_table(path)
        names = list(dict.fromkeys(table["class"].to_pylist()))
        images = slice(None, None, len(names))
        scores = {
            name: table[name].to_numpy()[images]
            for name in ("row", "fold", "pixel_spacing_mm")
            if name in table.column_names
        }
        scores["volume"] = np.array(table["volume"].to_pylist()[images])
        for name in (*COUNTS, *(f"{distance}_pixels" for distance in DISTANCES)):
            values = table[name].to_numpy().reshape(-1, len(names))
            for k, of_class in enumerate(names):
                scores[f"{name.removesuffix('_pixels')}/{of_class}"] = values[:, k]
        return scores, np.array(table["patient_id"].to_pylist()[images])
