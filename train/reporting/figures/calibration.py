"""Draw reliability, and accuracy when the least certain rows are not answered."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from train.evaluation.statistics.metrics import calibration_bins
from train.reporting.figures.style import BLUE, GREY, MARKERS, ORANGE, PALETTE, STYLE, new_figure

NUM_BINS = 10  # of equal width over [0, 1]
# Accuracies of a few rows jump between 0 and 1 and say nothing.
FEWEST_ANSWERED = 20


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
    num_rows: int,
    operating_points: Mapping[str, tuple[float, float]],
    counted: str,
    title: str,
) -> Figure:
    """Draw how accurate the answers are when only the most confident rows are answered.

    Args:
        curves: By system: share of the rows answered, rising, and the accuracy on them.
        num_rows: Rows measured; the curves start where 20 of them are answered.
        operating_points: By name, such as `sets at 90 %`: share answered and accuracy on them.
        counted: Name of the rows, such as `images`.
        title: The measurement and its data.
    """
    figure = new_figure(6.4, 4.4, title)
    axes = figure.subplots()
    for colour, (name, (answered, accuracy)) in zip(PALETTE, curves.items(), strict=False):
        drawn = answered >= min(1.0, FEWEST_ANSWERED / num_rows)
        axes.plot(answered[drawn], accuracy[drawn], color=colour, label=name)
    for marker, colour, (name, point) in zip(MARKERS, reversed(PALETTE), operating_points.items(), strict=False):
        axes.plot(*point, color=colour, marker=marker, markersize=8, linestyle="", label=name)
    axes.set(xlabel=f"share answered, the most confident {counted} first", ylabel="share correct", xlim=(0, 1.02))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.legend()
    return figure
