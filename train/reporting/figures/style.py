"""One look for all figures: fonts, palette, axes."""

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data_scripts.system.whole_files import write_folder

# Okabe and Ito (2008): distinguishable with every common form of colour blindness, and in print.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
SKY, AMBER, GREY, BLACK = "#56B4E9", "#E69F00", "#8A8A8A", "#222222"
PALETTE = (BLUE, ORANGE, GREEN, PINK, SKY, AMBER, GREY, BLACK)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "text.parse_math": False,  # a class name with two `$` is no formula
    "savefig.dpi": 150,
    "svg.hashsalt": "lumbarclip",  # the same figure is the same file
}
COMMENTS = re.compile(rb"<!--.*?-->", re.DOTALL)


def new_figure(width: float, height: float, title: str) -> Figure:
    """Make a figure of a size in inches, its title at the top left. Drawn without a window or global state."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    return figure


def save_figures(figures: Mapping[str, Figure], folder: Path) -> None:
    """Replace `folder/figures` by these figures, PNG by file name with an SVG beside each: all or none."""

    def fill(unfinished: Path) -> None:
        for name, figure in figures.items():
            figure.savefig(unfinished / name)
            with rc_context(STYLE):
                drawing = io.BytesIO()
                figure.savefig(drawing, format="svg", metadata={"Date": None})
            # Comments repeat each text as typed, also characters that XML does not allow.
            (unfinished / name).with_suffix(".svg").write_bytes(COMMENTS.sub(b"", drawing.getvalue()))

    write_folder(folder / "figures", fill)


def show_slice(axes: Axes, image: Any) -> None:
    """Show an 8-bit grey image without ticks, grid and spines."""
    without_frame(axes)
    axes.imshow(image, cmap="gray", vmin=0, vmax=255)


def without_frame(axes: Axes) -> None:
    """Strip ticks, grid and spines from axes that hold a picture or text."""
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
