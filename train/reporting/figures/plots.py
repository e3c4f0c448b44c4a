"""Draw training curves, confusion, a comparison of systems, and a map of the embeddings."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from train.reporting.figures.style import AMBER, BLACK, BLUE, GREY, MARKERS, ORANGE, PALETTE, STYLE, new_figure

MAX_MAP_POINTS = 1500


@rc_context(STYLE)
def training_curves(history: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Draw loss, inverse temperature, learning rate and the batch statistics of a history over its updates.

    Raises:
        ValueError: If the history is empty.
    """
    if not history:
        raise ValueError("The history is empty; nothing was logged before the run ended.")
    figure = new_figure(11, 7, title)
    panels = figure.subplots(2, 2).ravel()
    blue, orange, green, pink, sky, *_ = PALETTE
    # A contrastive loss grows with the pairs of a batch. Older runs have only that of all validation pairs at once.
    validation = "validation_loss_of_batches", orange, "validation, batches of the same size"
    if not any("validation_loss_of_batches" in row for row in history):
        validation = "validation_loss", AMBER, "validation, all pairs at once: not comparable"
    drawn = (
        (panels[0], "loss", blue, "training, augmented"),
        (panels[0], *validation),
        (panels[1], "inverse_temperature", green, None),
        (panels[2], "learning_rate", GREY, None),
        (panels[3], "duplicate_text_rate", pink, "pairs whose report occurs twice"),
        (panels[3], "same_class_mass", sky, "target on the same classes"),
    )
    for axes, name, colour, label in drawn:
        points = [(row["update"], row[name]) for row in history if row.get(name) is not None]
        if points:
            marker = "o" if len(points) < 40 else None
            axes.plot(*zip(*points, strict=True), color=colour, label=label, marker=marker, markersize=3)
    panels[0].set(title="Loss", ylabel="nats")
    panels[1].set(title="Inverse temperature", ylabel="1/τ")
    panels[1].ticklabel_format(axis="y", useOffset=False)  # it may hardly move: 14.29, not +1.428e1 above the axis
    panels[2].set(title="Learning rate")
    panels[2].yaxis.set_major_formatter("{x:g}")
    panels[3].set(title="Batches", ylabel="share", ylim=(-0.03, 1.03))
    for axes in panels:
        axes.set_xlabel("optimizer update")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=9)
        if not axes.lines:
            axes.text(0.5, 0.5, "not logged", ha="center", va="center", transform=axes.transAxes, color=GREY)
            axes.set(xticks=[], yticks=[])
    return figure


@rc_context(STYLE)
def confusion_matrix(counts: NDArray[Any], names: Sequence[str], what: str, title: str) -> Figure:
    """Draw a confusion matrix: counts in the cells, colour by the share of the true class.

    Args:
        counts: Rows by true class (axis 0) and predicted class (axis 1). Shape (K, K).
        names: Names of the K classes.
        what: `class`, or `grade`.
        title: The measurement and its data.
    """
    side = 2.6 + 0.75 * len(names)
    figure = new_figure(side + 1.2, side, title)
    axes = figure.subplots()
    totals = counts.sum(1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts, dtype=float), where=totals > 0)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        share = shares[row, column]
        text = f"{counts[row, column]:.0f}\n{share:.0%}" if totals[row] else "no row"
        axes.text(column, row, text, ha="center", va="center", color="white" if share > 0.55 else BLACK)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel=f"predicted {what}", ylabel=f"true {what}")
    axes.grid(visible=False)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    return figure


@rc_context(STYLE)
def interval_chart(
    rows: Mapping[str, Mapping[str, Mapping[str, Any]]], axis_label: str, title: str, chance: float | None = None
) -> Figure:
    """Compare systems: a point with its 95 % interval for each system, row by row.

    `rows` are entries by system, by metric or finding. A row without a defined entry says so. A dashed line marks
    chance.
    """
    systems = list(dict.fromkeys(system for entries in rows.values() for system in entries))
    figure = new_figure(8.5, 1.5 + len(rows) * (0.25 + 0.13 * len(systems)), title)
    axes = figure.subplots()
    for position, entries in enumerate(rows.values()):
        if position % 2:
            axes.axhspan(position - 0.5, position + 0.5, color="#F6F6F6", zorder=0)
        if all(entry["value"] is None for entry in entries.values()):
            across = axes.get_yaxis_transform()
            axes.text(0.02, position, "not defined", transform=across, va="center", color=GREY)
        for index, system in enumerate(systems):
            entry = entries.get(system)
            if entry is None or entry["value"] is None:
                continue
            height = position + 0.76 * ((index + 0.5) / len(systems) - 0.5)
            if entry["low"] is not None:
                axes.plot([entry["low"], entry["high"]], [height] * 2, color=PALETTE[index], linewidth=1.6)
            size = 7 if index == 0 else 5
            axes.plot(entry["value"], height, marker=MARKERS[index], color=PALETTE[index], markersize=size)
    if chance is not None:
        axes.axvline(chance, color=GREY, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set(xlabel=f"{axis_label} (point and 95 % interval over patients)", ylim=(len(rows) - 0.5, -0.5))
    axes.grid(visible=False, axis="y")
    handles = [
        Line2D([], [], color=PALETTE[i], marker=MARKERS[i], linewidth=1.6, label=system)
        for i, system in enumerate(systems)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9)
    return figure


@rc_context(STYLE)
def wordings_chart(
    by_wording: Mapping[str, Sequence[float]],
    together: Mapping[str, Mapping[str, Any]],
    polarity: Mapping[str, Mapping[str, Any]],
    axis_label: str,
    title: str,
) -> Figure:
    """Draw what single wordings give beside all of them, and how often a statement is told from its denial.

    Args:
        by_wording: By metric, its value for each wording; none is NaN where a metric is defined.
        together: By metric, its entry for all wordings together.
        polarity: By class, the entry of its polarity accuracy.
        axis_label: What the metrics are.
        title: The measurement and its data.
    """
    figure = new_figure(11, 1.9 + 0.34 * max(len(by_wording), len(polarity)), title)
    spread, told = figure.subplots(1, 2)
    for row, (metric, values) in enumerate(by_wording.items()):
        if together[metric]["value"] is None:
            continue
        spread.plot(values, [row] * len(values), marker="|", markersize=13, linestyle="", color=GREY)
        spread.plot(min(values), row, marker="|", markersize=13, markeredgewidth=2.5, linestyle="", color=ORANGE)
        _draw_entry(spread, together[metric], row)
    for row, entry in enumerate(polarity.values()):
        if entry["value"] is not None:
            _draw_entry(told, entry, row)
    told.axvline(0.5, color=GREY, linestyle="--", linewidth=1)
    is_auroc = axis_label == "AUROC"  # chance of shares and F1 depends on the classes
    if is_auroc:
        spread.axvline(0.5, color=GREY, linestyle="--", linewidth=1)
    spread.set_xlabel(f"zero-shot, {axis_label}" + (" (dashed: chance)" if is_auroc else ""))
    told.set(xlabel="polarity accuracy (dashed: chance)", xlim=(-0.02, 1.02))
    for axes, rows, entries in ((spread, by_wording, together), (told, polarity, polarity)):
        axes.set_yticks(range(len(rows)), list(rows))
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        for row, name in enumerate(rows):
            if entries[name]["value"] is None:
                axes.text(0.02, row, "not defined", transform=axes.get_yaxis_transform(), va="center", color=GREY)
    handles = [
        Line2D(
            [], [], color=BLUE, marker="o", linewidth=1.6, label="all wordings together, 95 % interval over patients"
        ),
        Line2D([], [], color=GREY, marker="|", markersize=11, linestyle="", label="one wording"),
        Line2D([], [], color=ORANGE, marker="|", markersize=11, markeredgewidth=2.5, linestyle="", label="the worst"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9)
    return figure


def _draw_entry(axes: Axes, entry: Mapping[str, Any], row: int) -> None:
    if entry["low"] is not None:
        axes.plot([entry["low"], entry["high"]], [row] * 2, color=BLUE, linewidth=1.6)
    axes.plot(entry["value"], row, marker="o", color=BLUE, markersize=7)


@rc_context(STYLE)
def embedding_map(
    image_embeds: NDArray[Any],
    text_embeds: NDArray[Any],
    groups: NDArray[Any],
    group_names: Sequence[str],
    title: str,
    seed: int = 0,
) -> Figure:
    """Draw images and distinct reports on one two-dimensional map, coloured by label.

    The mean of the images and that of the reports are subtracted first: the two kinds lie apart in any contrastive
    model (Liang et al. 2022, "Mind the gap"), and the question here is whether similar findings lie together. PCA and
    t-SNE follow. Neighbours on the map are neighbours in the space; distances between clusters mean little.

    Args:
        image_embeds: Unit length. Shape (N, D).
        text_embeds: The same rows' reports, of unit length. Shape (N, D).
        groups: Index of each row in `group_names`. Shape (N,).
        group_names: Names of the groups.
        title: The embedded data.
        seed: Seed of the layout, and of the choice of `MAX_MAP_POINTS` rows.
    """
    rng = np.random.default_rng(seed)
    kept = np.sort(rng.permutation(len(image_embeds))[:MAX_MAP_POINTS])
    distinct = kept[np.sort(np.unique(text_embeds[kept].round(6), axis=0, return_index=True)[1])]
    centred = [points - points.mean(0) for points in (image_embeds[kept], text_embeds[distinct])]
    positions = _two_dimensions(np.concatenate(centred), seed)
    of_images, of_texts = positions[: len(kept)], positions[len(kept) :]
    figure = new_figure(8.2, 6, title)
    axes = figure.subplots()
    for group, name in enumerate(group_names):
        colour = PALETTE[group % len(PALETTE)]
        images, texts = groups[kept] == group, groups[distinct] == group
        if not images.any():
            continue
        axes.scatter(
            of_images[images, 0], of_images[images, 1], s=18, color=colour, alpha=0.65, linewidths=0, label=name
        )
        axes.scatter(
            of_texts[texts, 0],
            of_texts[texts, 1],
            s=42,
            facecolors="white",
            edgecolors=colour,
            marker="s",
            linewidths=1.4,
        )
    axes.set(xticks=[], yticks=[], xlabel="t-SNE 1", ylabel="t-SNE 2")
    axes.grid(visible=False)
    handles, _ = axes.get_legend_handles_labels()
    handles.append(Line2D([], [], marker="o", color=GREY, linestyle="", markersize=5, label=f"image ({len(kept)})"))
    handles.append(
        Line2D([], [], marker="s", markerfacecolor="white", color=GREY, linestyle="", label=f"report ({len(distinct)})")
    )
    figure.legend(handles=handles, loc="outside right upper", fontsize=9)
    return figure


def _two_dimensions(points: NDArray[Any], seed: int) -> NDArray[Any]:
    """Reduce by PCA to at most 50 dimensions, then by t-SNE; by only PCA with too few points for neighbours."""
    reduced = PCA(min(50, *points.shape), random_state=seed).fit_transform(points)
    if len(points) < 10:
        return np.pad(reduced, ((0, 0), (0, 2)))[:, :2]
    perplexity = min(30.0, (len(points) - 1) / 3)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
