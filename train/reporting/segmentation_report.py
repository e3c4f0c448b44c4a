"""Write the report of a segmentation model from its `metrics.json`."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from data_scripts.system.markdown import Markdown, code_span, escape_markdown, markdown_table
from train.reporting.rendering import TEMPLATES, fill_template
from train.reporting.run_report import opening_values
from train.reporting.tables import Entry, format_entry, undefined_notes

OPENING_CHART = {"cases.png": "Truth beside prediction; worst cases first"}
# Columns of the tables, and their decimals.
METRICS = {
    "dice": ("Dice", 3),
    "iou": ("IoU", 3),
    "image_dice": ("Dice, mean over images", 3),
    "hausdorff_95_mm": ("95 % Hausdorff, mm", 2),
    "surface_distance_mm": ("surface distance, mm", 2),
    "hausdorff_95_pixels": ("95 % Hausdorff, pixels", 2),
    "surface_distance_pixels": ("surface distance, pixels", 2),
    "missed": ("images that miss it", 3),
}
MEAN = "mean over classes"
OF_GRADE = "macro_dice_by_grade/"


def segmentation_report(results: Mapping[str, Any], drawn: Collection[str]) -> str:
    """Write the content of `metrics.json` as Markdown, with the figures that were drawn in `figures/`."""
    metrics, classes = results["metrics"], results["classes"]
    opening_chart = {name: caption for name, caption in OPENING_CHART.items() if name in drawn}
    values = {
        **opening_values(results),
        "summary": segmentation_summary(results),
        "opening_chart": opening_chart,
        "training": results["training"],
        "metrics_table": class_table(metrics, classes),
        "grade_table": _grade_table(metrics),
        "limit_table": _limit_table(results),
        "in_pixels": results["num_without_spacing"],
        **{name: results[name] for name in ("num_pseudo_masks", "num_training_masks")},
        "worst_table": _worst_table(results),
        "undefined": undefined_notes([metrics]),
        "drawn": [name for name in drawn if name not in opening_chart],
    }
    return fill_template(TEMPLATES / "segmentation_report.md.jinja", values) + "\n"


def segmentation_summary(results: Mapping[str, Any]) -> list[Markdown]:
    """Say in a few lines what is reached: mean, worst class, distance of outlines."""
    metrics, classes = results["metrics"], results["classes"]
    lines = [f"Macro Dice {format_entry(metrics.get('macro_dice'))}."]
    defined = {name: entry for name in classes if (entry := metrics[f"dice/{name}"])["value"] is not None}
    if len(defined) > 1:
        lowest = min(defined, key=lambda name: defined[name]["value"])
        lines.append(f"Lowest: {escape_markdown(lowest)}, {format_entry(defined[lowest])}.")
    for unit, words in (("mm", "mm"), ("pixels", "pixels of the stored image")):
        entry = metrics.get(f"macro_hausdorff_95_{unit}")
        if entry is not None and entry["value"] is not None:
            lines.append(f"95 % Hausdorff distance {format_entry(entry, 2)} {words}.")
    return [Markdown(line) for line in lines]


def class_table(metrics: Mapping[str, Entry], classes: Sequence[str]) -> str:
    """List each class, one per row, with its metrics that are there, and the mean over classes."""
    shown = {name: about for name, about in METRICS.items() if any(f"{name}/{of}" in metrics for of in classes)}
    rows = [
        [
            title,
            *(
                format_entry(metrics.get(f"{name}/{of}" if of else f"macro_{name}"), d)
                for name, (_, d) in shown.items()
            ),
        ]
        for title, of in [*((name, name) for name in classes), (MEAN, "")]
    ]
    return markdown_table(["class", *(words for words, _ in shown.values())], rows)


def _grade_table(metrics: Mapping[str, Entry]) -> str:
    """List the macro Dice of the images of each grade; empty where images have none."""
    rows = [
        [name.removeprefix(OF_GRADE), format_entry(entry)]
        for name, entry in metrics.items()
        if name.startswith(OF_GRADE)
    ]
    return markdown_table(["grade", "macro Dice"], rows) if rows else ""


def _limit_table(results: Mapping[str, Any]) -> str:
    """List the Dice of the true masks, scaled to the model's size and back, beside the model's."""
    rows = [
        [title, *(format_entry(results[part].get(name)) for part in ("metrics", "resolution_limit"))]
        for title, name in [*((of, f"dice/{of}") for of in results["classes"]), (MEAN, "macro_dice")]
    ]
    return markdown_table(["Dice of", "model", "limit of its resolution"], rows)


def _worst_table(results: Mapping[str, Any]) -> str:
    """List the images with the lowest Dice."""
    rows = [
        [
            code_span(image["source"]),
            f"{image['dice']:.3f}",
            *("-" if image["by_class"][of] is None else f"{image['by_class'][of]:.3f}" for of in results["classes"]),
        ]
        for image in results["worst"]
    ]
    return markdown_table(["image", "Dice", *results["classes"]], rows) if rows else ""
