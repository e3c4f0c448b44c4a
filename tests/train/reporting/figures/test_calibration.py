"""Figures of calibration draw the numbers that they are given."""

import numpy as np
import pytest

from train.reporting.figures import calibration as plots


def test_a_diagram_draws_accuracy_over_mean_confidence():
    confidence, correct = np.array([0.72, 0.78, 0.95]), np.array([1, 0, 1])
    figure = plots.reliability_diagrams({"error": (confidence, correct)}, "images", "title")
    np.testing.assert_allclose(figure.axes[0].lines[1].get_xydata(), [[0.75, 0.5], [0.95, 1.0]])
    assert [bar.get_height() for bar in figure.axes[1].patches] == [0] * 7 + [2, 0, 1]


def test_before_and_after_share_their_axes():
    confidence, correct = np.array([0.72, 0.78, 0.95]), np.array([1, 0, 1])
    panels = {"before": (confidence, correct), "after": (confidence - 0.2, correct)}
    figure = plots.reliability_diagrams(panels, "images", "title")
    before, after, counts, _ = figure.axes
    np.testing.assert_allclose(before.lines[1].get_xydata(), [[0.75, 0.5], [0.95, 1.0]])
    np.testing.assert_allclose(after.lines[1].get_xydata(), [[0.55, 0.5], [0.75, 1.0]])
    assert (before.get_title("left"), after.get_title("left")) == ("before", "after")
    assert before.get_ylim() == after.get_ylim()
    assert counts.get_ylabel() == "images"


def test_risk_coverage_starts_where_enough_rows_are_answered():
    answered, accuracy = np.arange(1, 101) / 100, np.linspace(1, 0.7, 100)
    figure = plots.risk_coverage_chart({"probe": (answered, accuracy)}, 100, {"sets": (0.6, 0.9)}, "images", "title")
    curve, point = figure.axes[0].lines
    np.testing.assert_allclose(curve.get_xdata(), answered[19:])
    np.testing.assert_allclose(curve.get_ydata(), accuracy[19:])
    np.testing.assert_allclose(point.get_xydata(), [[0.6, 0.9]])


@pytest.mark.parametrize(
    "accuracy, point",
    [([1.0], 1.0), ([1.0, 1.0], 1.0), ([1.0, 0.998], 0.997), ([0.99, 0.95], 0.6), ([0.2, 0.0], 0.0), ([0.9], 0.7)],
    ids=str,
)
def test_abstention_has_something_to_see_and_true_ticks(accuracy, point):
    answered = np.linspace(0, 1, len(accuracy) + 1)[1:]
    points = {"sets at 90 %": (0.7, point), "others": (0.7, point)}
    figure = plots.risk_coverage_chart({"probe": (answered, np.array(accuracy))}, 30, points, "images", "title")
    (axes,) = figure.axes
    figure.draw_without_rendering()
    curve, one, other = axes.lines
    assert len(curve.get_xdata()) > 1 or curve.get_marker() == "o"
    assert one.get_markersize() != other.get_markersize()  # both seen where they coincide
    low, high = axes.get_ylim()
    assert low < min(point, *accuracy) and high > 1
    shown = [float(label.get_text().rstrip("%")) / 100 for label in axes.yaxis.get_ticklabels()]
    assert len(shown) > 1 and len(set(shown)) == len(shown) and max(shown) <= 1
    np.testing.assert_allclose(shown, axes.yaxis.get_ticklocs(), atol=1e-9)
    assert figure.legends and axes.get_legend() is None  # inside, it would hide a point
