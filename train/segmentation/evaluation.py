"""Measure a segmentation model on test patients, on the grid of the stored images."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset
from matplotlib.figure import Figure
from torch import nn
from transformers.modeling_outputs import SemanticSegmenterOutput

from modeling_lumbarclip.geometry_lumbarclip import padding
from train.data.loaders import have_pseudo_masks
from train.data.provenance import DataFacts
from train.evaluation.predictions import Predictions
from train.evaluation.protocols.segmentation import (
    dice_by_grade,
    dice_of_images,
    mean_over_classes,
    score_masks,
    scored_classes,
    segmentation_measures,
    write_scores,
)
from train.evaluation.statistics.bootstrap import Resampling, as_entries, estimates_of
from train.evaluation.statistics.metrics import Array, Floats
from train.evaluation.statistics.overlap import IGNORED
from train.evaluation.targets import read_grades
from train.reporting.figures.controller import controller_chart, has_controller
from train.reporting.figures.segmentation import Case, case_figure, image_dice_chart
from train.reporting.measured_run import count_epochs, describe_measured, write_measured
from train.reporting.run_report import describe_dataset
from train.reporting.segmentation_report import segmentation_report
from train.training.history import read_history
from train.training.run_folder import read_start

if TYPE_CHECKING:
    from train.segmentation.arguments import FinetuneSegmentationArguments
    from train.segmentation.data import SegmentationData

WORST, MEDIAN, BEST = 6, 2, 2  # cases that are drawn


def evaluate_segmentation(
    model: nn.Module,
    processor: Any,
    data: "SegmentationData",
    args: "FinetuneSegmentationArguments",
    facts: DataFacts,
    output_dir: Path,
) -> dict[str, Any]:
    """Measure the test patients; write `predictions.parquet`, `metrics.json`, `report.md` and `figures/`."""
    rows = data.rows["test"]
    scores = score_split(model, processor, data, "test", args.batch_size)
    limit = score_limit(processor, data, "test")
    patients, sources = (np.asarray(rows[name][:]) for name in ("patient_id", "source"))
    resampling = Resampling(args.num_resamples, args.seed)
    grade_names, grades = read_grades(rows)
    by_grade = dice_by_grade(scores, patients, grades, grade_names)
    entries, limits = (
        as_entries(estimates_of(measures, resampling))
        for measures in (segmentation_measures(scores, patients) | by_grade, segmentation_measures(limit, patients))
    )
    history = read_history(output_dir)
    image_dice = mean_over_classes(dice_of_images(scores))
    results: dict[str, Any] = {
        "metrics": entries,
        "resolution_limit": limits,
        "classes": scored_classes(scores),
        "num_volumes": len(set(scores["volume"])),
        "num_without_spacing": int(np.isnan(scores["pixel_spacing_mm"]).sum()),
        "num_training_masks": len(data.rows["train"]),
        "num_pseudo_masks": int(have_pseudo_masks(data.rows["train"]).sum()),
        "worst": worst_images(scores, image_dice, sources),
        "training": count_epochs(output_dir),
        **describe_measured(
            model,
            rows,
            facts,
            name=Path(args.dataset).name,
            start=read_start(output_dir),
            labels=count_classes(scores, patients),
        ),
    }
    where = describe_dataset(results["dataset"])
    cases = draw_cases(model, processor, data, image_dice, args.batch_size)
    figures: dict[str, Figure] = {"image_dice.png": image_dice_chart(scores, f"Dice of each image\n{where}")}
    if cases:
        figures = {"cases.png": case_figure(cases, scored_classes(scores), f"Segmentation\n{where}"), **figures}
    if has_controller(history):
        figures["controller.png"] = controller_chart(history, f"Weights of the loss\n{where}")
    write = partial(
        write_scores,
        scores=in_fold(scores, np.arange(len(rows)), 0),
        patient_ids=patients,
        sources=sources.tolist(),
    )
    write_measured(output_dir, results, segmentation_report(results, figures), figures, write)
    return results


def in_fold(scores: Predictions, rows: Array, fold: int) -> Predictions:
    """Say which rows of the dataset were scored, and in which fold."""
    return {"row": rows, "fold": np.full(len(rows), fold), **scores}


def score_split(model: nn.Module, processor: Any, data: "SegmentationData", split: str, batch_size: int) -> Predictions:
    """Predict the rows of a split, and score them."""
    predicted = predict_masks(model, processor, data.rows[split], batch_size, data.annotated[split])
    return _score(predicted, data, split)


def score_limit(processor: Any, data: "SegmentationData", split: str) -> Predictions:
    """Score the true masks, scaled to the model's size and back: what its resolution allows.

    Each class is scaled on its own, smoothly as an image is, since a model's logits may lie between classes, too.
    """
    images = getattr(processor, "image_processor", processor)

    def scaled() -> Iterator[Array]:
        for row in range(len(data.rows[split])):
            truth = torch.tensor(data.mask(split, row), dtype=torch.long)
            of_classes = nn.functional.one_hot(truth.masked_fill(truth == IGNORED, 0), len(data.class_names))
            shown = of_classes.movedim(-1, 0)[None].float()  # (1, K, H, W)
            if images.do_pad_to_square:
                shown = nn.functional.pad(shown, padding(shown))
            if images.do_resize:
                size = (images.size["height"], images.size["width"])
                shown = nn.functional.interpolate(shown, size=size, mode="bilinear", antialias=True)
            yield from _on_original_grid(processor, shown, [(truth.shape[0], truth.shape[1])])

    return _score(scaled(), data, split)


def _score(predicted: Iterator[Array], data: "SegmentationData", split: str) -> Predictions:
    rows = data.rows[split]
    pairs = ((data.mask(split, row), mask) for row, mask in zip(range(len(rows)), predicted, strict=True))
    annotated = np.asarray(data.annotated[split], dtype=bool)
    return score_masks(pairs, annotated, data.class_names, rows["pixel_spacing_mm"][:], volumes_of(rows))


def volumes_of(rows: Dataset) -> list[str]:
    """Name the volume of each row: its patient and series, or its plane and sequence where no series is named."""
    columns = [rows[name][:] for name in ("patient_id", "series_id", "plane", "sequence")]
    return [
        f"{patient}/{series if series is not None else f'{plane}-{sequence}'}"
        for patient, series, plane, sequence in zip(*columns, strict=True)
    ]


@torch.inference_mode()
def predict_masks(
    model: nn.Module, processor: Any, rows: Dataset, batch_size: int, annotated: torch.Tensor
) -> Iterator[Array]:
    """Predict the mask of each row, (H, W) uint8 on the grid of its image.

    Only `annotated` classes, (N, K), are asked: a sacrum is no error where a source leaves it in the background.
    """
    model.eval()
    device = next(model.parameters()).device
    image_processor = getattr(processor, "image_processor", processor)
    for start in range(0, len(rows), batch_size):
        images = rows[start : start + batch_size]["image"]
        pixels = image_processor(images=images, return_tensors="pt")["pixel_values"].to(device)
        logits = model(pixel_values=pixels).logits.float().cpu()
        asked = annotated[start : start + batch_size, :, None, None]
        logits = logits.masked_fill(~asked, logits.min() - 1)  # not -inf, which interpolates to NaN
        yield from _on_original_grid(processor, logits, [image.size[::-1] for image in images])


def _on_original_grid(processor: Any, logits: torch.Tensor, sizes: Sequence[tuple[int, int]]) -> Iterator[Array]:
    outputs = SemanticSegmenterOutput(logits=logits)
    for mask in processor.post_process_semantic_segmentation(outputs, target_sizes=list(sizes)):
        yield mask.numpy().astype(np.uint8)


def count_classes(scores: Predictions, patients: Array) -> dict[str, dict[str, int]]:
    """Count the images and patients whose true mask shows each class."""
    shown = {
        name: np.nan_to_num(scores[f"true_positives/{name}"] + scores[f"false_negatives/{name}"]) > 0
        for name in scored_classes(scores)
    }
    return {name: {"rows": int(rows.sum()), "patients": len(set(patients[rows]))} for name, rows in shown.items()}


def worst_images(scores: Predictions, image_dice: Floats, sources: Array, number: int = 10) -> list[dict[str, Any]]:
    """List the images with the lowest Dice, the mean over their classes; with the Dice of each class."""
    names, by_class = scored_classes(scores), dice_of_images(scores)
    order = np.argsort(image_dice, kind="stable")[:number]  # NaN sorts last
    return [
        {
            "source": str(sources[row]),
            "dice": float(image_dice[row]),
            "by_class": {
                name: None if np.isnan(value) else float(value)
                for name, value in zip(names, by_class[row], strict=True)
            },
        }
        for row in order[~np.isnan(image_dice[order])]
    ]


def draw_cases(
    model: nn.Module, processor: Any, data: "SegmentationData", image_dice: Floats, batch_size: int
) -> list[Case]:
    """Predict the worst images again, then some of the middle and the best, each of another patient if there are."""
    patients = np.asarray(data.rows["test"]["patient_id"][:])
    order = np.argsort(image_dice, kind="stable")
    order = order[~np.isnan(image_dice[order])]
    first_of_patient = order[np.sort(np.unique(patients[order], return_index=True)[1])]
    worst = [("worst", row) for row in first_of_patient[:WORST]]
    middle = len(order) // 2
    others = [("median", row) for row in order[middle : middle + MEDIAN]] + [("best", row) for row in order[-BEST:]]
    taken = {int(row) for _, row in worst}
    chosen = worst + [(name, row) for name, row in others if int(row) not in taken]
    index = [int(row) for _, row in chosen]
    rows, annotated = data.rows["test"].select(index), data.annotated["test"][index]
    cases = []
    for (name, row), of_row, mask in zip(
        chosen, rows, predict_masks(model, processor, rows, batch_size, annotated), strict=True
    ):
        truth = data.mask("test", int(row))
        title = f"{name}: Dice {image_dice[row]:.3f}\n{patients[row]}"
        cases.append(Case(title, np.asarray(of_row["image"].convert("L")), truth, mask))
    return cases
