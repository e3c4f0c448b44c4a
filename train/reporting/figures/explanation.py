"""Draw maps of findings over their images, next to those of models with random weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from modeling_lumbarclip import LumbarCLIPProcessor
from train.evaluation.protocols.finding_maps import LESS_DENIAL, Maps, MaskedFinding
from train.evaluation.statistics.metrics import Array
from train.reporting.figures.style import GREEN, STYLE, new_figure, show_slice

OPACITY = 0.5
DRAWN = (f"text to patch{LESS_DENIAL}", f"Grad-CAM{LESS_DENIAL}")  # by the trained and by a randomised model


@dataclass(frozen=True)
class Example:
    """One finding of one image: the 8-bit grey image, where the structure is, and maps by title, all (H, W)."""

    title: str
    image: NDArray[Any]
    inside: NDArray[np.bool_]
    maps: Mapping[str, NDArray[Any]]


def draw_examples(
    trained: Maps,
    randomised: Maps,
    rows: Dataset,
    findings: Sequence[MaskedFinding],
    mask_names: Sequence[str],
    processor: LumbarCLIPProcessor,
    seed: int,
) -> list[Example]:
    """Pick one finding of each label at random, so that no example was chosen for its looks."""
    rng = np.random.default_rng(seed)
    chosen = []
    for label in dict.fromkeys(finding.label for finding in findings):
        number = int(rng.choice([number for number, finding in enumerate(findings) if finding.label == label]))
        finding, row = findings[number], rows[findings[number].row]
        mask = np.asarray(row["mask"])

        def over_image(maps: Maps, method: str, number: int = number, size: tuple[int, int] = mask.shape) -> Array:
            return processor.image_processor.unpad_maps(maps[method][number], size).numpy()

        panels = {
            f"{method}{ending}": over_image(maps, method)
            for ending, maps in (("", trained), (", random weights", randomised))
            for method in DRAWN
        }
        title = f"{label}\n({mask_names[finding.mask_index]})"
        chosen.append(Example(title, np.asarray(row["image"].convert("L")), mask == finding.mask_index, panels))
    return chosen


@rc_context(STYLE)
def explanation_figure(examples: Sequence[Example], title: str) -> Figure:
    """Draw each example in a row: the image with the structure outlined, then each map over it.

    Each map has its own scale: colours compare places within a map only.
    """
    maps = list(examples[0].maps)
    figure = new_figure(2.1 * (1 + len(maps)), 0.9 + 2.25 * len(examples), title)
    grid = figure.subplots(len(examples), 1 + len(maps), squeeze=False)
    for axes_of_row, example in zip(grid, examples, strict=True):
        _show(axes_of_row[0], example)
        axes_of_row[0].set_ylabel(example.title, fontsize=8.5)
        for axes, name in zip(axes_of_row[1:], maps, strict=True):
            _show(axes, example)
            axes.imshow(example.maps[name], cmap="inferno", alpha=OPACITY)
    for axes, name in zip(grid[0], ["image", *maps], strict=True):
        axes.set_title(name.replace(", ", ",\n"), fontsize=8.5, fontweight="normal", loc="center")
    figure.supxlabel(
        "Outlined: where the finding is. Bright: high, on each map's own scale. Examples: one per finding, at random.",
        fontsize=8.5,
    )
    return figure


def _show(axes: Axes, example: Example) -> None:
    show_slice(axes, example.image)
    axes.contour(example.inside, levels=[0.5], colors=[GREEN], linewidths=1.0)
