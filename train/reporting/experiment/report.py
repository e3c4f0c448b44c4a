"""Write the report of an experiment from its `results.json`: tables and figures, as Markdown and as one HTML page."""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_scripts.system.markdown import Markdown, escape_markdown
from data_scripts.system.whole_files import write_text
from train.reporting.experiment import tables
from train.reporting.figures.experiment import draw_charts
from train.reporting.figures.style import save_figures
from train.reporting.rendering import TEMPLATES, fill_template, html_page
from train.reporting.run_report import opening_values
from train.reporting.tables import format_entry, undefined_notes

LEVEL = 0.05  # of Holm's correction
OPENING_CHART = {"systems.png": "Systems and baselines with their intervals"}
WITHOUT_TEXTS = ("supervised", "untrained")  # kinds of systems whose image and text spaces were never matched


def write_report(results: Mapping[str, Any], folder: Path) -> None:
    """Write `figures/`, `report.md` and `report.html`, each whole or not at all.

    Args:
        results: The content of `results.json`: what `measure_experiment` returns, with `experiment` (`name`,
            `description`, `seeds`, `folds`), `dataset`, `left_out_predictions`, `command` and `date`.
        folder: Folder of the experiment.
    """
    charts = draw_charts(results)
    save_figures(charts, folder)
    report = experiment_report(results, charts)
    drawn = {f"figures/{name}": folder / "figures" / name for name in charts}
    write_text(folder / "report.html", html_page(report, f"Experiment {results['experiment']['name']}", drawn))
    write_text(folder / "report.md", report)


def experiment_report(results: Mapping[str, Any], drawn: Collection[str]) -> str:
    """Write the content of `results.json` as Markdown, with the figures that were drawn in `figures/`."""
    experiment, headline, systems = results["experiment"], results["headline"], results["systems"]
    leads, *probed = headline["group"].split("/")
    most = max((comparison["num_comparisons"] for comparison in results["comparisons"]), default=0)
    opening_chart = {name: caption for name, caption in OPENING_CHART.items() if name in drawn}
    table_2, shows_paper = tables.table_2(results)
    means_table, folds_table = tables.fold_tables(results)
    values = {
        **opening_values(results),
        "summary": experiment_summary(results),
        "opening_chart": opening_chart,
        "experiment": experiment,
        "num_systems": len(systems),
        "leads": leads,
        "probed": probed,
        "metric": tables.metric_name(headline["metric"]),
        "num_resamples": results["num_resamples"],
        "resamples_needed": math.ceil(2 * most / LEVEL),  # the least p is 2 / (resamples + 1); Holm multiplies it
        "reference": headline["reference"],
        "reference_measured": bool(systems.get(headline["reference"], {}).get("metrics")),
        "fewer_seeds": {
            title: system["num_seeds"]
            for title, system in systems.items()
            if system["num_seeds"] < len(experiment["seeds"])
        },
        "without_texts": [
            title
            for title, system in systems.items()
            if system["settings"]["system"] in WITHOUT_TEXTS and system["metrics"]
        ],
        "tied": {
            tables.metric_name(comparison["metric"]): [comparison["first"], *comparison["tied"]]
            for comparison in results["comparisons"]
            if comparison.get("tied")
        },
        "drawn": drawn,
        "comparison_tables": {
            tables.metric_name(metric): tables.comparison_table(results, metric)
            for metric in dict.fromkeys(comparison["metric"] for comparison in results["comparisons"])
        },
        "means_table": means_table,
        "folds_table": folds_table,
        "table_2": table_2,
        "shows_paper": shows_paper,
        "headline_table": tables.headline_table(results),
        "heads_table": tables.heads_table(results),
        "findings_table": tables.findings_table(results),
        "probes_table": tables.probes_table(results),
        "imbalance_tables": tables.imbalance_tables(results),
        "zero_shot_table": tables.zero_shot_table(results),
        "retrieval_tables": tables.retrieval_tables(results),
        "patients_tables": tables.patients_tables(results),
        "calibration_tables": tables.calibration_tables(results),
        "cost_table": tables.cost_table(systems),
        "failures_table": tables.failures_table(results["runs"]),
        "undefined": undefined_notes(
            metrics for system in tables.everything(results).values() for metrics in system["metrics"].values()
        ),
        "left_out": results["left_out_predictions"],
    }
    return fill_template(TEMPLATES / "experiment_report.md.jinja", values) + "\n"


def experiment_summary(results: Mapping[str, Any]) -> list[Markdown]:
    """Say in a few lines which system leads, or what the reference reaches if none can; and which runs are missing."""
    group, metric = results["headline"]["group"], results["headline"]["metric"]
    lines = [lead_in_words(results, metric)]
    if not lines[0]:
        reference = results["headline"]["reference"]
        entry = tables.metric_of(results["systems"].get(reference, {"metrics": {}}), group, metric)
        words = f"{escape_markdown(reference)}: {tables.metric_name(metric)} {format_entry(entry)}."
        lines = [words if entry else f"{escape_markdown(reference)} has no finished run."]
    lines += [
        lead_in_words(results, other)
        for other in dict.fromkeys(entry["metric"] for entry in results["comparisons"])
        if other != metric
    ][:2]
    badly = sum(run["state"] != "done" for run in results["runs"])
    lines.append(f"{badly} of {len(results['runs'])} runs did not finish; the last table says why." if badly else "")
    return [Markdown(line) for line in lines if line]


def lead_in_words(results: Mapping[str, Any], metric: str) -> str:
    """Say which system has the highest metric, and over which others its lead is more than chance.

    Returns:
        Markdown in one line; empty where systems are not compared.
    """
    best = next((e for e in results["comparisons"] if e["to"] == "best" and e["metric"] == metric), None)
    if best is None:
        return ""
    entry = results["systems"][best["first"]]["metrics"][best["group"]][metric]
    found = {name: difference for name, difference in best["differences"].items() if difference["value"] is not None}
    sure = [name for name, difference in found.items() if difference["excludes_zero"]]
    kept = [name for name in sure if found[name]["p_holm"] < LEVEL]
    unsure = [name for name in found if name not in sure]
    first, *tied = [best["first"], *best.get("tied", [])]
    has = f"**{escape_markdown(first)}** has" if not tied else f"**{listed([first, *tied])}** share"
    sentences = [f"{has} the highest {tables.metric_name(metric)}, {format_entry(entry)}."]
    if unsure:
        sentences.append(f"Its lead over {listed(unsure)} may be chance: the 95 % interval includes zero.")
    if lost := [name for name in sure if name not in kept]:
        sentences.append(f"After Holm's correction, so may its lead over {listed(lost)}.")
    if kept:
        tests = best["num_comparisons"]
        holm = f", also after Holm's correction for {tests} tests" if tests > 1 else ""
        sentences.append(f"It leads {listed(kept)}{holm}.")
    return " ".join(sentences)


def listed(names: Sequence[str]) -> Markdown:
    """Join names in a sentence.

    Example:
        >>> listed(["CLIP", "GLoRIA", "SigLIP"]), listed(["CLIP"])
        ('CLIP, GLoRIA and SigLIP', 'CLIP')
    """
    *others, last = map(escape_markdown, names)
    return Markdown(f"{', '.join(others)} and {last}" if others else last)
