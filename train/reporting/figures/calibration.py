"""Draw reliability, and accuracy when the least certain rows are not answered."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from train.evaluation.statistics.metrics import calibration_bins
from train.evaluation.statistics.minima import PREDICTIONS_FOR_CURVE, ROUNDING
from train.reporting.figures.style import BLUE, GREY, MARKERS, ORANGE, PALETTE, STYLE, new_figure

NUM_BINS = 10  # of equal width over [0, 1]
LEAST_SPAN = 0.05  # of an axis of shares, so that a curve at 100 % has true ticks


@rc_context(STYLE)
def reliability_diagrams(panels: Mapping[str, tuple[NDArray[Any], NDArray[Any]]], counted: str, title: str) -> Figure:
    """Draw accuracy over confidence with the numbers of rows below, panels side by side on the same axes.

    Args:
        panels: By subtitle, each row's confidence in the predicted class, and whether that class is the true one.
        counted: Name of the rows, such as `images`.
        title: The measurement and its data.
    """
    figure = new_figure(1.2 + 4 * len(panels), 5.6, title)
    grid = figure.subplots(2, len(panels), height_ratios=[3, 1], sharex=True, sharey="row", squeeze=False)
    for (upper, lower), (subtitle, (confidence, correct)) in zip(grid.T, panels.items(), strict=True):
        bins = calibration_bins(confidence, NUM_BINS)
        counts = np.bincount(bins, minlength=NUM_BINS)
        filled = counts > 0
        claimed = np.bincount(bins, confidence, NUM_BINS)[filled] / counts[filled]
        achieved = np.bincount(bins, correct, NUM_BINS)[filled] / counts[filled]
        upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfect calibration")
        upper.plot(claimed, achieved, color=BLUE, marker="o", label="measured")
        upper.vlines(claimed, claimed, achieved, color=ORANGE, linewidth=3, alpha=0.6, label="gap")
        upper.set(xlim=(0, 1), ylim=(0, 1.02), title=subtitle)
        lower.bar((np.arange(NUM_BINS) + 0.5) / NUM_BINS, counts, width=0.9 / NUM_BINS, color=BLUE)
        lower.set_xlabel("confidence in the predicted class")
    grid[0, 0].set_ylabel("share correct")
    grid[0, 0].legend(loc="upper left")
    grid[1, 0].set_ylabel(counted)
    return figure


@rc_context(STYLE)
def risk_coverage_chart(
    curves: Mapping[str, tuple[NDArray[Any], NDArray[Any]]],
    num_predictions: int,
    operating_points: Mapping[str, tuple[float, float]],
    counted: str,
    title: str,
) -> Figure:
    """Draw how accurate the answers are when only the most confident rows are answered.

    Args:
        curves: By system: share of the rows answered, rising, and the accuracy on them.
        num_predictions: Those measured; the curves start where `minima.PREDICTIONS_FOR_CURVE` of them are answered.
        operating_points: By name, such as `sets at 90 %`: share answered and accuracy on them.
        counted: Name of the rows, such as `images`.
        title: The measurement and its data.
    """
    figure = new_figure(6.4, 4.9, title)
    axes = figure.subplots()
    lowest = min((accuracy for _, accuracy in operating_points.values()), default=1.0)
    for colour, (name, (answered, accuracy)) in zip(PALETTE, curves.items(), strict=False):
        drawn = answered >= min(1.0, PREDICTIONS_FOR_CURVE / num_predictions)
        marker = "o" if drawn.sum() == 1 else None  # a line of one point is invisible
        axes.plot(answered[drawn], accuracy[drawn], color=colour, label=name, marker=marker)
        lowest = min(lowest, *accuracy[drawn])
    # Hollow and of different size: two points may coincide.
    for place, (name, point) in enumerate(operating_points.items()):
        look: dict[str, Any] = {"markersize": 11 - 4 * place, "markerfacecolor": "none", "markeredgewidth": 2}
        axes.plot(*point, color=PALETTE[place], marker=MARKERS[place], **look, linestyle="", label=name)
    span = max(1 - lowest, LEAST_SPAN)
    axes.set(xlabel=f"share answered, the most confident {counted} first", ylabel="share correct", xlim=(0, 1.02))
    axes.set_ylim(1 - 1.05 * span, 1 + 0.05 * span)
    ticks = [tick for tick in axes.get_yticks() if 1 - 1.05 * span <= tick < 1 + ROUNDING]
    axes.set_yticks(ticks)
    are_whole = all(abs(100 * tick - round(100 * tick)) < ROUNDING for tick in ticks)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0 if are_whole else 1))
    figure.legend(loc="outside lower center", ncols=2, fontsize=9)  # inside, it would hide a point
    return figure
