"""The sections of an experiment's report that set systems against each other; empty where there is nothing to show."""

from collections.abc import Mapping, Sequence
from typing import Any

from train.reporting.experiment.cells import HEADLINE_COLUMNS, any_has, cell, percent_cell, spread_of_seeds, title_of
from train.reporting.experiment.charts import HEADS, head_metrics, systems_by_head
from train.reporting.experiment.words import fewer_seeds, figure_in_words
from train.reporting.figures.paper import FIGURE_3, TABLE_2, always_positive, paper_row
from train.reporting.report import SYSTEM_NAMES
from train.reporting.tables import format_entry, markdown_table, readable


def headline_section(results: Mapping[str, Any]) -> str:
    """Every system and baseline by the headline probe, with the spread of the seeds."""
    group, metric = results["headline"]["group"], results["headline"]["metric"]
    everything = {**results["systems"], **results["baselines"]}
    columns = [name for name in HEADLINE_COLUMNS if any_has(everything, group, name)]
    columns.sort(key=lambda name: name != metric)
    header = ["system", *map(figure_in_words, columns)]
    graded = any_has(everything, "grade/unprojected", "quadratic_kappa")
    seeds = any(spread_of_seeds(system, group, metric) for system in everything.values())
    rows = []
    for title, system in everything.items():
        row = [title_of(title, system), *(cell(system, group, name) for name in columns)]
        row += [cell(system, "grade/unprojected", "quadratic_kappa")] if graded else []
        rows.append(row + ([spread_of_seeds(system, group, metric) or "-"] if seeds else []))
    header += ["grade quadratic kappa"] if graded else []
    header += [f"SD of seeds, {figure_in_words(metric)}"] if seeds else []
    return "\n\n".join(part for part in (markdown_table(header, rows), fewer_seeds(results)) if part)


def differences_section(results: Mapping[str, Any]) -> str:
    """The comparisons by the headline figure pair by pair, those by other figures in one table."""
    reference, metric = results["headline"]["reference"], results["headline"]["metric"]
    of_headline = {entry["to"]: entry for entry in results["comparisons"] if entry["metric"] == metric}
    parts = []
    if "best" in of_headline and of_headline["best"]["first"] != reference:
        parts += [
            "The highest less every other system. It is the highest on these very rows, which flatters its lead.",
            _comparison_table([of_headline["best"]]),
        ]
    to_reference = [of_headline[to] for to in ("systems", "baselines") if to in of_headline]
    if to_reference:
        parts += [
            f"{reference}, named before anything was measured, less every other system, and less the baselines: "
            "features that no run has learned. Holm's correction counts systems and baselines apart. Where seeds are "
            "missing, a difference is over the seeds that both have.",
            _comparison_table(to_reference),
        ]
    others = [entry for entry in results["comparisons"] if entry["to"] == "systems" and entry["metric"] != metric]
    if others:
        titles = dict.fromkeys(title for entry in others for title in entry["differences"])
        rows = [
            [f"{reference} − {title}", *(format_entry(e["differences"].get(title)) for e in others)] for title in titles
        ]
        table = markdown_table(["difference", *(figure_in_words(entry["metric"]) for entry in others)], rows)
        parts.append(f"By other figures (p-values are in `results.json`):\n\n{table}")
    return "\n\n".join(parts)


def table_2_section(results: Mapping[str, Any]) -> str:
    """The form of the paper's Table 2, in percent, with its own figures beside."""
    group = results["headline"]["group"]
    names = ("accuracy", "precision", "recall", "f1")
    if not any_has(results["systems"], group, "precision"):
        return ""
    rows, taken = [], set()
    for title, system in results["systems"].items():
        of_paper = paper_row(system["settings"])
        cells = [percent_cell(system["metrics"].get(group, {}).get(name)) for name in names]
        beside = ["-", "-", "-"]
        if of_paper and of_paper not in taken:  # of several that are alike, the first in the experiment's file
            taken.add(of_paper)
            beside = [of_paper, f"{TABLE_2[of_paper].accuracy:.2f}", f"{TABLE_2[of_paper].f1:.2f}"]
        rows.append([title_of(title, system), *cells, *beside])
    header = ["system", *map(readable, names), "row of the paper", "its accuracy", "its F1"]
    if not taken:
        table = markdown_table(header[:-3], [row[:-3] for row in rows])
        return f"Percent; precision, recall and F1 of the finding. No system here is one of the paper's.\n\n{table}"
    always = always_positive()
    return (
        "Percent; precision, recall and F1 of the finding. **The last columns are the paper's own figures**: other "
        "data (528 test records of the Mendeley set), split by record and not by patient, no intervals. "
        f"By the counts of its Table 1, answering `LBP` always has an accuracy of {always.accuracy:.2f} and "
        f"an F1 of {always.f1:.2f} there.\n\n{markdown_table(header, rows)}"
    )


def heads_section(results: Mapping[str, Any]) -> str:
    """The forms of the paper's figures 3 (no heads) and 4 (heads by kind and width), as one table."""
    arranged = systems_by_head(results)
    if sum(len(widths) for backbones in arranged.values() for widths in backbones.values()) < 2:
        return ""
    metrics = head_metrics(results)
    rows = [
        [
            backbone,
            head,
            width if head != "none" else "-",
            *(format_entry(figures.get(name)) for name in metrics),
            _of_figure_3(backbone) if head == "none" and results["headline"]["exclusive"] else "-",
        ]
        for head in ("none", *HEADS)
        for backbone, widths in arranged.get(head, {}).items()
        for width, figures in widths.items()
    ]
    header = ["backbone", "heads", "width", *map(figure_in_words, metrics), "paper: accuracy, macro F1"]
    if not any(row[-1] != "-" for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    return markdown_table(header, rows)


def _comparison_table(comparisons: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            f"{comparison['first']} − {SYSTEM_NAMES.get(title, title)}",
            format_entry(entry),
            {True: "yes", False: "no", None: "-"}[entry["excludes_zero"]],
            *("-" if entry[name] is None else f"{entry[name]:.3f}" for name in ("p", "p_holm")),
        ]
        for comparison in comparisons
        for title, entry in comparison["differences"].items()
    ]
    header = ["difference", figure_in_words(comparisons[0]["metric"]), "excludes zero", "p", "p, Holm"]
    return markdown_table(header, rows)


def _of_figure_3(backbone: str) -> str:
    return "{:.2f}, {:.2f}".format(*FIGURE_3[backbone]) if backbone in FIGURE_3 else "-"
