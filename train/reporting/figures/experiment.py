"""Draw the figures of an experiment from `results.json`: systems, their differences, heads, calibration, cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from train.reporting.experiment.paper import UP_TO, Printed, printed_values
from train.reporting.experiment.tables import HEADS, head_metrics, metric_name, metric_of, systems_by_head
from train.reporting.figures.style import BLACK, BLUE, GREY, MARKERS, ORANGE, PALETTE, STYLE, new_figure
from train.reporting.run_report import SYSTEM_NAMES, describe_dataset, too_few_in_words
from train.reporting.tables import Entry

ROW_HEIGHT = 0.3
HOLLOW: dict[str, Any] = {"markersize": 5, "markerfacecolor": "white", "linestyle": ":", "linewidth": 1.2}


def draw_charts(results: Mapping[str, Any]) -> dict[str, Figure]:
    """Draw the figures of `results.json` that have something to show, by file name.

    They are `systems.png`, `differences.png`, `no_heads.png` (the paper's figure 3), `heads.png` (its figure 4),
    `reliability.png` and `cost.png`.
    """
    where = describe_dataset(results["dataset"])
    headline = results["headline"]
    metric, reference = headline["metric"], headline["reference"]
    words = metric_name(metric)
    group = headline["group"]
    systems, baselines = (
        {
            SYSTEM_NAMES.get(title, title): system["metrics"][group][metric]
            for title, system in results[part].items()
            if metric in system["metrics"].get(group, {})
        }
        for part in ("systems", "baselines")
    )
    chance = 0.5 if metric == "macro_auroc" else None
    charts = {}
    if any(entry["value"] is not None for entry in (*systems.values(), *baselines.values())):
        ranked = not too_few_in_words(results["dataset"])
        charts["systems.png"] = forest_chart(systems, baselines, reference, words, f"{words}\n{where}", chance, ranked)
    differences = {
        SYSTEM_NAMES.get(title, title): entry
        for comparison in results["comparisons"]
        if comparison["to"] in ("systems", "baselines") and comparison["metric"] == metric
        for title, entry in comparison["differences"].items()
    }
    if any(entry["value"] is not None for entry in differences.values()):
        title = f"{reference} against the others\n{where}"
        charts["differences.png"] = difference_chart(differences, reference, words, title)
    charts |= _head_charts(results, where)
    if reliability := _reliability(results, where):
        charts["reliability.png"] = reliability
    costs = {
        title: (results["systems"][title]["cost"]["seconds"], entry)
        for title, entry in systems.items()
        if entry["value"] is not None and results["systems"][title]["cost"]["seconds"]
    }
    if len(costs) > 1:
        charts["cost.png"] = cost_chart(costs, reference, words, f"{words} and training time\n{where}")
    return charts


def _head_charts(results: Mapping[str, Any], where: str) -> dict[str, Figure]:
    arranged = systems_by_head(results)
    metrics = {name: metric_name(name) for name in head_metrics(results)}
    charts = {}
    exclusive = results["headline"]["exclusive"]  # the paper's numbers are those of its two classes
    without = arranged.get("none", {})
    if len(without) > 1:
        panel = {"no heads": {name: {name: next(iter(widths.values()))} for name, widths in without.items()}}
        paper = {("no heads", name, name): printed_values(name, "none", 0) for name in without if exclusive}
        charts["no_heads.png"] = heads_chart(panel, metrics, "backbone", f"No projection heads\n{where}", paper)
    with_heads = {head: arranged[head] for head in HEADS if head in arranged}
    widths = {width for backbones in with_heads.values() for of_backbone in backbones.values() for width in of_backbone}
    if len(with_heads) > 1 or len(widths) > 1:
        paper = {
            (head, backbone, width): printed_values(backbone, head, int(width))
            for head, backbones in with_heads.items()
            for backbone, of_backbone in backbones.items()
            for width in of_backbone
            if exclusive
        }
        title = f"Projection heads\n{where}"
        charts["heads.png"] = heads_chart(with_heads, metrics, "width of the heads", title, paper)
    return charts


@rc_context(STYLE)
def _reliability(results: Mapping[str, Any], where: str) -> Figure | None:
    """Draw accuracy over confidence of the reference before temperature scaling, and after it if it was scaled."""
    reference, calibrated = results["headline"]["reference"], results["headline"]["calibrated"]
    system = results["systems"][reference]
    curves = system["reliability"]
    if not curves or f"calibrated/{calibrated}" not in system["metrics"]:
        return None
    what = "temperature scaling of the paper's probe" if "after" in curves else "the paper's probe, no temperature"
    figure = new_figure(0.6 + 3.45 * len(curves), 3.9, f"{reference}: {what}\n{where}")
    panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    for axes, (when, curve) in zip(panels, curves.items(), strict=True):
        group = f"probe/{calibrated}" if when == "before" else f"calibrated/{calibrated}"
        entry = metric_of(system, group, "expected_calibration_error")
        error = "not defined" if entry is None or entry["value"] is None else f"{entry['value']:.3f}"
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfect calibration")
        axes.plot(curve["claimed"], curve["achieved"], color=BLUE, linewidth=1.2)
        sizes = [12 + 300 * count / sum(curve["counts"]) for count in curve["counts"]]
        axes.scatter(curve["claimed"], curve["achieved"], s=sizes, color=BLUE, alpha=0.85, zorder=3)
        axes.set(title=f"{when}: error {error}", xlabel="confidence in the answer", xlim=(0, 1.03), ylim=(0, 1.03))
    panels[0].set_ylabel("share correct")
    panels[0].legend(loc="upper left")
    counted = "images" if results["headline"]["exclusive"] else "answers"
    figure.supxlabel(f"area of a point: its share of the {counted}", fontsize=9)
    return figure


@rc_context(STYLE)
def forest_chart(
    systems: Mapping[str, Entry],
    baselines: Mapping[str, Entry],
    highlighted: str,
    axis_label: str,
    title: str,
    chance: float | None = None,
    ranked: bool = True,
) -> Figure:
    """Draw a metric of every system with its interval, the best on top, and of the baselines below, in grey.

    Undefined entries are left out. A dashed line marks the level of chance. If not `ranked`, all keep their order.
    """
    in_order = _best_first if ranked else _defined
    rows = [(name, entry, BLUE if name == highlighted else BLACK) for name, entry in in_order(systems)]
    rows += [(name, entry, GREY) for name, entry in in_order(baselines)]
    figure = new_figure(7.5, 1.5 + ROW_HEIGHT * len(rows), title)
    axes = figure.subplots()
    _draw_intervals(axes, rows)
    if chance is not None:
        axes.axvline(chance, color=GREY, linestyle="--", linewidth=1)
    key = "\ngrey: baselines, features that no run has learned" if baselines else ""
    axes.set_xlabel(f"{axis_label}, 95 % interval over patients{key}")
    return figure


@rc_context(STYLE)
def difference_chart(differences: Mapping[str, Entry], first: str, axis_label: str, title: str) -> Figure:
    """Draw the differences of the `first` system to each other one; colour intervals that exclude zero."""
    rows = [
        (f"− {name}", entry, GREY if not entry["excludes_zero"] else ORANGE if entry["value"] < 0 else BLUE)
        for name, entry in _best_first(differences)
    ]
    figure = new_figure(7.5, 1.7 + ROW_HEIGHT * len(rows), title)
    axes = figure.subplots()
    _draw_intervals(axes, rows)
    axes.axvline(0, color=BLACK, linewidth=1)
    axes.set_xlabel(f"{first} minus the other: {axis_label}, 95 % interval of the pair\ngrey: the interval holds zero")
    return figure


@rc_context(STYLE)
def heads_chart(
    panels: Mapping[str, Mapping[str, Mapping[str, Entry]]],
    metrics: Mapping[str, str],
    axis_label: str,
    title: str,
    paper: Mapping[tuple[str, str, str], Printed] | None = None,
) -> Figure:
    """Draw metrics over the width of the heads or another setting, in the form of the paper's figures 3 and 4.

    Args:
        panels: By panel (kind of head), by series (backbone), by position (width): entries by metric.
        metrics: Shown metrics with their names; one column of panels each.
        axis_label: Meaning of the positions.
        title: The measurement and its data.
        paper: What the paper prints for a panel, series and position; drawn hollow beside ours.
    """
    figure = new_figure(4.4 * len(metrics), 1.0 + 2.7 * len(panels), title)
    grid = figure.subplots(len(panels), len(metrics), squeeze=False, sharey="col")
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    # Widths by their number, names as they come.
    positions = list(dict.fromkeys(at for series in panels.values() for points in series.values() for at in points))
    if all(position.isdigit() for position in positions):
        positions.sort(key=int)
    crowded = any(
        sum(position in points for points in panels[p].values()) > 1 for p in panels for position in positions
    )
    for row, (panel, series) in zip(grid, panels.items(), strict=True):
        for axes, (metric, words) in zip(row, metrics.items(), strict=True):
            for name, points in series.items():
                index = names.index(name)
                # Moved aside, so that none hides another.
                aside = 0.5 * ((index + 0.5) / len(names) - 0.5) if crowded else 0.0
                places = {positions.index(position) + aside: entries for position, entries in points.items()}
                _draw_series(axes, index, name, places, metric)
                for position in points:
                    printed = (paper or {}).get((panel, name, position), {})
                    _draw_printed(axes, index, positions.index(position) + aside + 0.09, printed.get(metric))
            axes.set(title=f"{panel}: {words}", xlabel=axis_label, xlim=(-0.5, len(positions) - 0.5))
            axes.set_xticks(range(len(positions)), positions)
            axes.grid(visible=False, axis="x")
    handles, labels = grid[0, 0].get_legend_handles_labels() if crowded else ([], [])
    if any(metric in printed for printed in (paper or {}).values() for metric in metrics):
        handles.append(Line2D([], [], marker="D", **HOLLOW, color=BLACK))
        labels.append("the paper: a value, or a range; an arrow: at most")
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


@rc_context(STYLE)
def cost_chart(points: Mapping[str, tuple[float, Entry]], highlighted: str, axis_label: str, title: str) -> Figure:
    """Draw the metric of each system over its seconds of training, from `points`: seconds and entry."""
    figure = new_figure(7.5, max(4.2, 0.8 + 0.23 * len(points)), title)  # room for the legend
    axes = figure.subplots()
    for index, (name, (seconds, entry)) in enumerate(points.items()):
        colour, marker = PALETTE[index % len(PALETTE)], MARKERS[(index + index // len(PALETTE)) % len(MARKERS)]
        if entry["low"] is not None:
            axes.plot([seconds] * 2, [entry["low"], entry["high"]], color=colour, linewidth=1.2, alpha=0.6)
        size = 10 if name == highlighted else 7
        axes.plot(seconds, entry["value"], color=colour, marker=marker, markersize=size, linestyle="", label=name)
    axes.set(xlabel="seconds of training, mean over runs", ylabel=axis_label)
    axes.set_xlim(0, 1.05 * max(seconds for seconds, _ in points.values()))  # the last mark stays whole
    figure.legend(loc="outside right upper", fontsize=9)
    return figure


def _defined(entries: Mapping[str, Entry]) -> list[tuple[str, Entry]]:
    return [(name, entry) for name, entry in entries.items() if entry["value"] is not None]


def _best_first(entries: Mapping[str, Entry]) -> list[tuple[str, Entry]]:
    return sorted(_defined(entries), key=lambda item: -item[1]["value"])


def _draw_intervals(axes: Axes, rows: Sequence[tuple[str, Entry, str]]) -> None:
    for position, (_, entry, colour) in enumerate(rows):
        if entry["low"] is not None:
            axes.plot([entry["low"], entry["high"]], [position] * 2, color=colour, linewidth=2)
        axes.plot(entry["value"], position, marker="o", color=colour, markersize=7)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.set(ylim=(len(rows) - 0.5, -0.5))
    axes.grid(visible=False, axis="y")


def _draw_printed(axes: Axes, index: int, place: float, printed: tuple[float, float] | None) -> None:
    """Mark a value of the paper, a range of it, or the most that it may be."""
    if printed is None:
        return
    low, high = printed
    if low == UP_TO:
        axes.plot(place, high, marker="v", **HOLLOW, color=PALETTE[index])
    else:
        axes.plot([place, place], [low, high], marker="D", **HOLLOW, color=PALETTE[index])


def _draw_series(axes: Axes, index: int, name: str, places: Mapping[float, Mapping[str, Entry]], metric: str) -> None:
    drawn = {
        place: entries[metric] for place, entries in places.items() if entries.get(metric, {}).get("value") is not None
    }
    for place, entry in drawn.items():
        if entry["low"] is not None:
            axes.plot([place] * 2, [entry["low"], entry["high"]], color=PALETTE[index], linewidth=1.6)
    values = [entry["value"] for entry in drawn.values()]
    axes.plot(list(drawn), values, color=PALETTE[index], marker=MARKERS[index], linewidth=0.8, label=name)
