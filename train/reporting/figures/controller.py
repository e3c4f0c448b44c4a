"""Draw how the weights of a segmentation loss follow the errors of its classes."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from train.reporting.figures.style import GREY, MARKERS, PALETTE, STYLE, new_figure
from train.training.history import ERROR, WEIGHT


def has_controller(history: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether a history has weights of classes."""
    return any(name.startswith(WEIGHT) for line in history for name in line)


@rc_context(STYLE)
def controller_chart(history: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Draw the error of each class over the epochs, and the weights it leads to.

    The axis of the weights has b, of false negatives, at the left, and a = 1 - b, of false positives, at the right.

    Args:
        history: Lines of a run's history.
        title: The run and its data.

    Raises:
        ValueError: If no line has the weights of a class.
    """
    if not has_controller(history):
        raise ValueError("The history has no weights of classes: only Tversky losses log them.")
    figure = new_figure(8, 6.5, title)
    errors, weights = figure.subplots(2, 1, sharex=True)
    # In the order of the classes, for the colours that the other figures give them.
    names = dict.fromkeys(name.removeprefix(WEIGHT) for line in history for name in line if name.startswith(WEIGHT))
    for number, name in enumerate(names):
        look: dict[str, Any] = {
            "color": PALETTE[number % len(PALETTE)],
            "marker": MARKERS[number % len(MARKERS)],
            "markersize": 4,
            "label": name,
        }
        for axes, key in ((errors, f"{ERROR}{name}"), (weights, f"{WEIGHT}{name}")):
            points = [(line["epoch"], line[key]) for line in history if key in line]
            axes.plot([epoch for epoch, _ in points], [value for _, value in points], **look)
    errors.axhline(0, color=GREY, linewidth=1)
    errors.set(title="Error of the epoch: above 0, drawn too small", ylabel="e = precision - recall")
    weights.set(title="Weights in force", xlabel="epoch", ylabel="b, of false negatives")
    weights.secondary_yaxis("right", functions=(_rest, _rest)).set_ylabel("a = 1 - b, of false positives")
    weights.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    errors.legend(fontsize=9)
    return figure


def _rest(weight: Any) -> Any:
    return 1 - weight
