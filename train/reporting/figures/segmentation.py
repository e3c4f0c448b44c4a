"""Draw predicted masks beside true ones, and how the Dice of images is spread."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from train.evaluation.predictions import Predictions
from train.evaluation.protocols.segmentation import dice_of_images, scored_classes
from train.evaluation.statistics.metrics import Array
from train.evaluation.statistics.overlap import IGNORED
from train.reporting.figures.style import BLACK, GREY, PALETTE, STYLE, new_figure, show_slice

OPACITY = 0.45
COLUMNS = ("image", "truth", "prediction", "wrong pixels")


@dataclass(frozen=True)
class Case:
    """One image: its 8-bit grey pixels, the true mask (255: not annotated) and the predicted one, all (H, W)."""

    title: str
    image: Array
    truth: Array
    predicted: Array


@rc_context(STYLE)
def case_figure(cases: Sequence[Case], class_names: Sequence[str], title: str) -> Figure:
    """Draw each case in a row: image, truth, prediction, and the pixels that differ, in the predicted class's colour.

    `class_names` are those of the masks' values 1, 2, ...; a missed pixel is grey.
    """
    tallest = max(case.image.shape[0] / case.image.shape[1] for case in cases)
    figure = new_figure(2.3 * len(COLUMNS), 1.2 + 2.3 * min(tallest, 2.0) * len(cases), title)
    grid = figure.subplots(len(cases), len(COLUMNS), squeeze=False)
    for axes_of_row, case in zip(grid, cases, strict=True):
        wrong = (case.truth != case.predicted) & (case.truth != IGNORED)
        layers = [None, case.truth, case.predicted, case.predicted]
        for axes, mask, shown in zip(axes_of_row, layers, (None, True, True, wrong), strict=True):
            show_slice(axes, case.image)
            if mask is not None:
                axes.imshow(_coloured(mask, shown, is_wrong=shown is wrong))
        axes_of_row[0].set_ylabel(case.title, fontsize=8.5)
    for axes, name in zip(grid[0], COLUMNS, strict=True):
        axes.set_title(name, fontsize=9, fontweight="normal", loc="center")
    handles = [Patch(color=_colour(value), label=name) for value, name in enumerate(class_names, 1)]
    handles.append(Patch(color=GREY, label="wrong pixels: missed"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9)
    return figure


@rc_context(STYLE)
def image_dice_chart(scores: Predictions, title: str) -> Figure:
    """Draw the Dice of every image, class by class, with the median."""
    names, values = scored_classes(scores), dice_of_images(scores)
    figure = new_figure(7.5, 1.6 + 0.6 * len(names), title)
    axes = figure.subplots()
    for place, of_class in enumerate(values.T):
        defined = of_class[~np.isnan(of_class)]
        aside = place + 0.28 * (np.arange(len(defined)) % 9 / 4 - 1)  # so that equal ones do not hide each other
        axes.plot(defined, aside, marker="o", linestyle="", markersize=3.5, alpha=0.5, color=_colour(place + 1))
        if len(defined):
            axes.plot([np.median(defined)] * 2, [place - 0.4, place + 0.4], color=BLACK, linewidth=1.5)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="Dice of an image; line: the median", xlim=(-0.02, 1.02), ylim=(len(names) - 0.5, -0.5))
    axes.grid(visible=False, axis="y")
    return figure


def _colour(value: int) -> str:
    return PALETTE[(value - 1) % (len(PALETTE) - 2)]  # grey and black mean something else


def _coloured(mask: Array, shown: Array | bool | None, *, is_wrong: bool) -> Array:
    """Colour the classes of a mask where it is shown. Shape (H, W, 4)."""
    picture = np.zeros((*mask.shape, 4))
    for value in np.unique(mask):
        if value != IGNORED and (value or is_wrong):
            picture[(mask == value) & shown] = (
                *to_rgb(_colour(int(value)) if value else GREY),
                OPACITY + 0.4 * is_wrong,
            )
    return picture
