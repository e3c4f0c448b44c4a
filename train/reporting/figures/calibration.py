"""Figures of calibration: reliability before and after scaling, and accuracy where the least certain abstain."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from train.reporting.figures.style import BLUE, GREY, MARKERS, ORANGE, PALETTE, STYLE, new_figure

# Accuracies of a few rows jump between 0 and 1 and tell nothing.
FEWEST_ANSWERED = 20


@rc_context(STYLE)
def reliability_diagram(
    confidence: NDArray[Any],
    correct: NDArray[Any],
    bins: NDArray[Any],
    num_bins: int,
    counted: str,
    subtitle: str,
    title: str,
) -> Figure:
    """Draw accuracy over confidence, bin by bin, with the numbers of rows below.

    Args:
        confidence: Probability given to the predicted class. Shape (N,).
        correct: Whether that class is the true one. Shape (N,).
        bins: Bin of each row, in [0, num_bins). Shape (N,).
        num_bins: Number of bins of equal width over [0, 1].
        counted: What a row is: `images`.
        subtitle: The calibration error, in words.
        title: What was measured, on what.

    Returns:
        The figure.
    """
    figure = new_figure(5.2, 5.6, title)
    upper, lower = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    _draw_reliability(upper, lower, confidence, correct, bins, num_bins)
    upper.set(title=subtitle, ylabel="share correct")
    upper.legend(loc="upper left")
    lower.set_ylabel(counted)
    return figure


@rc_context(STYLE)
def reliability_before_and_after(
    panels: Mapping[str, tuple[NDArray[Any], NDArray[Any], NDArray[Any]]], num_bins: int, counted: str, title: str
) -> Figure:
    """Draw reliability diagrams side by side, on the same axes.

    Args:
        panels: By subtitle, such as `before: calibration error 0.112`: confidence, whether the answer is correct, and
            bin of each row, as for `reliability_diagram`.
        num_bins: Number of bins of equal width over [0, 1].
        counted: What a row is: `images`.
        title: What was measured, on what.

    Returns:
        The figure.
    """
    figure = new_figure(1.2 + 4 * len(panels), 5.6, title)
    grid = figure.subplots(2, len(panels), height_ratios=[3, 1], sharex=True, sharey="row", squeeze=False)
    for column, (subtitle, (confidence, correct, bins)) in enumerate(panels.items()):
        _draw_reliability(grid[0, column], grid[1, column], confidence, correct, bins, num_bins)
        grid[0, column].set_title(subtitle)
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
        counted: What a row is: `images`.
        title: What was measured, on what.

    Returns:
        The figure.
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


def _draw_reliability(
    upper: Axes, lower: Axes, confidence: NDArray[Any], correct: NDArray[Any], bins: NDArray[Any], num_bins: int
) -> None:
    counts = np.bincount(bins, minlength=num_bins)
    filled = counts > 0
    claimed = np.bincount(bins, confidence, num_bins)[filled] / counts[filled]
    achieved = np.bincount(bins, correct, num_bins)[filled] / counts[filled]
    upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfect calibration")
    upper.plot(claimed, achieved, color=BLUE, marker="o", label="measured")
    upper.vlines(claimed, claimed, achieved, color=ORANGE, linewidth=3, alpha=0.6, label="gap")
    upper.set(xlim=(0, 1), ylim=(0, 1.02))
    centres = (np.arange(num_bins) + 0.5) / num_bins
    lower.bar(centres, counts, width=0.9 / num_bins, color=BLUE)
    lower.set_xlabel("confidence in the predicted class")
