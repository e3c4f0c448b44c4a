"""Examples of maps over their images: what a finding's map shows, and what random weights show in its place."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from train.reporting.figures.style import GREEN, STYLE, new_figure, without_frame

OPACITY = 0.5


@dataclass(frozen=True)
class Example:
    """One finding of one image.

    Args:
        title: The finding, and the structure outlined.
        image: Grey. Shape (H, W), 8-bit.
        inside: The structure. Shape (H, W).
        maps: By title, over the image. Shape (H, W).
    """

    title: str
    image: NDArray[Any]
    inside: NDArray[np.bool_]
    maps: Mapping[str, NDArray[Any]]


@rc_context(STYLE)
def explanation_figure(examples: Sequence[Example], title: str) -> Figure:
    """Draw each example in a row: the image with the structure outlined, then each map over it.

    Each map has its own scale, from its least to its greatest value: colours compare places of one map alone.
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
        "Outlined: where the finding is. Bright: high, on each map's own scale. Examples drawn by lot, one a finding.",
        fontsize=8.5,
    )
    return figure


def _show(axes: Axes, example: Example) -> None:
    without_frame(axes)
    axes.imshow(example.image, cmap="gray", vmin=0, vmax=255)
    axes.contour(example.inside, levels=[0.5], colors=[GREEN], linewidths=1.0)
