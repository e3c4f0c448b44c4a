"""Lay a segmenter over sagittal slices that have no masks, and count those with five plausible lumbar discs in order.

    python -m tests.benchmarks.sagittal_transfer --checkpoint runs/spider_segmentation/checkpoint \
        --data ../shared/data --dataset data/spider_masks --out tests/benchmarks/results/sagittal_transfer.json
    python -m tests.benchmarks.sagittal_transfer --data ../shared/data

`--dataset` is what the segmenter was trained on: its training and validation patients are not measured. `--overlays`
draws slices of 24 patients to look at. Without a checkpoint, the rule itself is measured: on masks of experts, and on
those that it accepts with one error in each.

The rule, `implausible`, asks about shape, not about truth: discs may be plausible and one level off.
"""

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from skimage.measure import label, regionprops
from skimage.morphology import closing

from data_scripts.system.command_line import run
from data_scripts.system.markdown import markdown_table

logger = logging.getLogger(__name__)

BACKGROUND, VERTEBRA, DISC, CANAL = range(4)
NAMES = ("background", "vertebra", "disc", "spinal canal")
NUM_DISCS = 5  # L1/L2 to L5/S1
MIN_RELATIVE_WIDTH = 0.5  # of the five widest; narrower pieces are fragments
MAX_WIDTH_RATIO = 2.0  # widest to narrowest
MIN_FLATNESS = 1.5  # width to height
MAX_STEP_RATIO = 1.8  # largest to smallest distance between neighbours
STEP_IN_WIDTHS = (0.45, 1.75)  # such a distance: a disc and a vertebra
MAX_TURN = 55  # degrees between successive steps
MIN_TILT = 45  # degrees between a disc and the step to its neighbour
MAX_CANAL_DISTANCE = 1.3  # widths, from the centre of a disc
MIN_VERTEBRA_SHARE = 0.75  # of what lies between neighbouring discs
MIN_CANAL_PIECE = 0.1  # of its largest piece
NUM_OVERLAYS = 24

Mask = NDArray[np.uint8]
Points = NDArray[np.float64]


@dataclass
class TransferArguments:
    """The settings of this benchmark."""

    data: Path = field(metadata={"help": "Folder with spider_sagittal and spider_masks."})
    checkpoint: str = field(default="", metadata={"help": "Segmenter, a folder; without, the rule is measured."})
    dataset: str = field(default="", metadata={"help": "The dataset that the segmenter was trained on."})
    batch_size: int = field(default=4, metadata={"help": "Images at once."})
    num_resamples: int = field(default=1000, metadata={"help": "Bootstrap resamples of patients."})
    overlays: str = field(default="", metadata={"help": "PNG file to draw slices with their masks into."})
    out: str = field(default="", metadata={"help": "JSON file to write the measurements to; nothing when empty."})


def main(args: TransferArguments) -> None:
    """Measure and print."""
    result = measure_transfer(args) if args.checkpoint else measure_rule(args.data)
    if args.out:
        content = {"date": date.today().isoformat(), "checkpoint": args.checkpoint, **result}
        Path(args.out).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def measure_transfer(args: TransferArguments) -> dict[str, Any]:
    """Segment the slices of patients that the segmenter was not trained on; apply the rule; draw some."""
    import torch
    from datasets import Dataset
    from datasets import Image as ImageFeature

    from modeling_lumbarclip import LumbarCLIPForSemanticSegmentation, LumbarCLIPImageProcessor
    from train.checkpoints.loading import find_checkpoint, load_parts
    from train.evaluation.statistics.bootstrap import Resampling, patient_bootstrap
    from train.evaluation.statistics.metrics import mean
    from train.segmentation.evaluation import predict_masks

    folder = find_checkpoint(args.checkpoint)
    model, processor = load_parts(folder, LumbarCLIPForSemanticSegmentation, LumbarCLIPImageProcessor)
    values = values_of(model.config.id2label)
    series = pd.read_csv(args.data / "spider_sagittal/series.csv", dtype={"patient": str})
    series = series[~series["patient"].isin(training_patients(args.dataset))].reset_index(drop=True)
    paths = [str(args.data / "spider_sagittal" / name) for name in series["file"]]
    rows = Dataset.from_dict({"image": paths}).cast_column("image", ImageFeature())
    every_class = torch.ones(len(rows), len(values), dtype=torch.bool)
    masks = [values[mask] for mask in predict_masks(model, processor, rows, args.batch_size, every_class)]
    reasons = [implausible(mask) for mask in masks]
    is_plausible = np.array([not reason for reason in reasons], dtype=float)
    patients, sequences = series["patient"].to_numpy(), series["sequence"].to_numpy()
    resampling = Resampling(args.num_resamples, 0)
    shares = {}
    for name in ("t1", "t2", "t2_SPACE", "T1 and T2"):
        of_name = np.isin(sequences, ["t1", "t2"] if name == "T1 and T2" else [name])
        if of_name.any():
            estimate = patient_bootstrap(mean, [is_plausible[of_name]], patients[of_name], resampling)
            shares[name] = {"patients": len(set(patients[of_name])), **estimate.as_dict()}
    cells = [[name, share["n"], share["patients"], *map(three, (share["value"], share["low"], share["high"]))]
             for name, share in shares.items()]  # fmt: skip
    print(markdown_table(["sequence", "slices", "patients", "five plausible discs", "low", "high"], cells))
    missed = {str(file): reason for file, reason in zip(series["file"], reasons, strict=True) if reason}
    if args.overlays:
        is_wanted = np.isin(sequences, ["t1", "t2"])
        drawn = drawn_rows(np.where(is_wanted, patients, ""), NUM_OVERLAYS)
        titles = [f"{Path(series['file'][row]).stem}\n{reasons[row] or 'plausible'}" for row in drawn]
        images = [np.asarray(Image.open(paths[row]).convert("L")) for row in drawn]
        overlay_figure(images, [masks[row] for row in drawn], titles).savefig(args.overlays, dpi=110)
    return {"shares": shares, "implausible": missed}


def measure_rule(data: Path) -> dict[str, Any]:
    """Apply the rule to experts' masks, and to those that it accepts with an error in each."""
    masks = [np.asarray(Image.open(path)) for path in sorted((data / "spider_masks/masks").glob("*.png"))]
    accepted = [mask for mask in masks if not implausible(mask)]
    found = {name: sum(bool(implausible(spoil(mask))) for mask in accepted) for name, spoil in ERRORS.items()}
    print(f"plausible: {len(accepted)} of {len(masks)} masks of experts")
    print(markdown_table(["error", "found"], [[name, f"{n} of {len(accepted)}"] for name, n in found.items()]))
    return {"masks": len(masks), "plausible": len(accepted), "errors found": found}


def implausible(mask: Mask) -> str:
    """Say why a mask does not show five plausible lumbar discs in order; empty if it does.

    The five lowest discs must be flat, of similar width and at similar distances; follow each other in a smooth curve,
    each across it, with a vertebra between each two and none below the lowest (the sacrum is background); and the
    spinal canal must run on one side of them, beside at least four, as it may leave the plane.

    Args:
        mask: 1 vertebra, 2 disc, 3 spinal canal, in upright sagittal slices. Shape (H, W).

    Source:
        Ours. The limits were set by looking at the experts' masks of SPIDER's T2 SPACE slices.
    """
    discs = find_discs(mask)
    if len(discs) < NUM_DISCS:
        return f"{len(discs)} discs"
    discs = discs[:NUM_DISCS]
    centres = np.array([disc.centroid for disc in discs])  # (5, 2), rows and columns, from the lowest on
    widths = np.array([disc.axis_major_length for disc in discs])
    heights = np.array([disc.axis_minor_length for disc in discs])
    axes = np.array([(np.cos(disc.orientation), np.sin(disc.orientation)) for disc in discs])
    steps = np.diff(centres, axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    upwards = np.vstack([steps, steps[-1:]]) / np.append(lengths, lengths[-1])[:, None]
    in_widths = lengths / np.median(widths)
    turns = np.abs(np.diff(np.unwrap(np.arctan2(steps[:, 0], steps[:, 1]))))
    tilts = np.degrees(np.arccos(np.clip(np.abs((axes * upwards).sum(1)), 0, 1)))
    below = np.stack([-axes[0, 1], axes[0, 0]])  # across the lowest disc, away from the others
    below = -below * np.sign(below @ upwards[0])
    checks: list[tuple[bool, str]] = [
        (widths.max() > MAX_WIDTH_RATIO * widths.min(), "widths differ"),
        ((widths < MIN_FLATNESS * heights).any(), "not flat"),
        (lengths.max() > MAX_STEP_RATIO * lengths.min(), "distances differ"),
        ((in_widths < STEP_IN_WIDTHS[0]).any() or (in_widths > STEP_IN_WIDTHS[1]).any(), "too near or far"),
        (np.degrees(turns.max()) > MAX_TURN, "a bend"),
        (tilts.min() < MIN_TILT, "a disc along the spine"),
        (any(not are_neighbours(mask, low, high) for low, high in pairwise(centres)),
         "no vertebra between two discs"),
        (is_vertebra(mask, centres[0], below * lengths[0]), "a vertebra below the lowest disc"),
        (not is_beside_canal(mask, centres, upwards, float(np.median(widths))), "canal not along the discs"),
    ]  # fmt: skip
    return next((reason for is_wrong, reason in checks if is_wrong), "")


def find_discs(mask: Mask) -> list[Any]:
    """Return the regions of the discs, from the lowest on, without fragments."""
    regions = [r for r in regionprops(label(closing(mask == DISC, np.ones((3, 3))))) if r.area > 1]
    widest = sorted((region.axis_major_length for region in regions), reverse=True)[:NUM_DISCS]
    kept = [region for region in regions if region.axis_major_length >= MIN_RELATIVE_WIDTH * np.mean(widest)]
    return sorted(kept, key=lambda region: -region.centroid[0])


def are_neighbours(mask: Mask, low: Points, high: Points) -> bool:
    """Whether a vertebra fills the way from one disc to the next."""
    between = values_along(mask, low, high)
    between = between[between != DISC]
    return bool(len(between) and np.mean(between == VERTEBRA) >= MIN_VERTEBRA_SHARE)


def is_vertebra(mask: Mask, start: Points, step: Points) -> bool:
    """Whether a vertebra lies one step from a disc."""
    return bool(np.mean(values_along(mask, start + 0.3 * step, start + 0.7 * step) == VERTEBRA) > 0.5)


def is_beside_canal(mask: Mask, centres: Points, upwards: Points, width: float) -> bool:
    """Whether the canal runs near the discs, all but one, and on the same side of them."""
    pieces = regionprops(label(mask == CANAL))
    if not pieces:
        return False
    largest = max(piece.area for piece in pieces)
    canal = np.concatenate([piece.coords for piece in pieces if piece.area >= MIN_CANAL_PIECE * largest])
    sides = []
    for centre, upward in zip(centres, upwards, strict=True):
        ways = canal - centre
        way = ways[np.argmin((ways**2).sum(1))]
        if np.linalg.norm(way) <= MAX_CANAL_DISTANCE * width:
            sides.append(np.sign(upward[0] * way[1] - upward[1] * way[0]))
    return len(sides) >= NUM_DISCS - 1 and len(set(sides)) == 1


def values_along(mask: Mask, start: Points, end: Points) -> Mask:
    """Return the mask's values on a line; the border is repeated outside."""
    points = np.round(np.linspace(start, end, 50)).astype(int)
    rows, columns = np.clip(points, 0, np.array(mask.shape) - 1).T
    return mask[rows, columns]


def without_disc(mask: Mask, place: int, value: int) -> Mask:
    """Give one disc, counted from the lowest, another class."""
    spoilt = mask.copy()
    rows, columns = find_discs(mask)[place].coords.T
    spoilt[rows, columns] = value
    return spoilt


def with_bridge(mask: Mask) -> Mask:
    """Join two discs through the vertebra between them."""
    spoilt = mask.copy()
    low, high = (np.array(disc.centroid) for disc in find_discs(mask)[2:4])
    for row, column in np.round(np.linspace(low, high, 200)).astype(int):
        spoilt[row - 3 : row + 4, column - 3 : column + 4] = DISC
    return spoilt


ERRORS: dict[str, Callable[[Mask], Mask]] = {
    "a middle disc is missing": lambda mask: without_disc(mask, 2, BACKGROUND),
    "a middle disc is called vertebra": lambda mask: without_disc(mask, 2, VERTEBRA),
    "the lowest disc is missing": lambda mask: without_disc(mask, 0, BACKGROUND),
    "no canal": lambda mask: np.where(mask == CANAL, BACKGROUND, mask),
    "discs and vertebrae exchanged": lambda mask: np.array([BACKGROUND, DISC, VERTEBRA, CANAL], np.uint8)[mask],
    "two discs in one": with_bridge,
}


def values_of(id2label: dict[int, str]) -> Mask:
    """Return the value in `NAMES` of each class of a model; classes of other names are background.

    Raises:
        ValueError: If the model lacks one of the classes.
    """
    if missing := [name for name in NAMES[1:] if name not in id2label.values()]:
        raise ValueError(
            f"The segmenter does not know {', '.join(missing)}; its classes: {', '.join(id2label.values())}."
        )
    return np.array([NAMES.index(id2label[k]) if id2label[k] in NAMES else 0 for k in range(len(id2label))], np.uint8)


def training_patients(dataset: str) -> set[str]:
    """Return SPIDER's numbers of the patients in training and validation; none without a dataset."""
    if not dataset:
        logger.warning("Without --dataset, patients that the segmenter was trained on are measured, too.")
        return set()
    from train.data.loaders import open_dataset

    rows = open_dataset(dataset)
    ids = [patient for split in ("train", "validation") for patient in rows[split]["patient_id"][:]]
    return {patient.removeprefix("spider-") for patient in ids}


def three(value: float | None) -> str:
    """Write a number with three places; - for none."""
    return "-" if value is None else f"{value:.3f}"


def drawn_rows(patients: NDArray[Any], number: int) -> list[int]:
    """Choose rows of different patients at random, the same each time. Rows without a patient are left out."""
    order = np.random.default_rng(0).permutation(len(patients))
    firsts: dict[str, int] = {}
    for row in order:
        if patients[row]:
            firsts.setdefault(str(patients[row]), int(row))
    return list(firsts.values())[:number]


def overlay_figure(images: list[Mask], masks: list[Mask], titles: list[str]) -> Figure:
    """Draw each image with the outlines of its classes."""
    columns = 8
    lines = -(-len(images) // columns)
    figure = Figure(figsize=(2.3 * columns, 2.9 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, image, mask, title in zip(grid, images, masks, titles, strict=False):
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        for value, colour in ((VERTEBRA, "tab:orange"), (DISC, "lime"), (CANAL, "deepskyblue")):
            if (mask == value).any():
                axes.contour(mask == value, levels=[0.5], colors=[colour], linewidths=0.8)
        axes.set_title(title, fontsize=8)
    return figure


if __name__ == "__main__":
    sys.exit(run(main))
