"""Write the report of an experiment from its `results.json`: tables and figures, as Markdown and as one HTML page."""

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from data_scripts.system.markdown import Markdown, escape_markdown
from data_scripts.system.whole_files import write_text
from train.reporting.experiment import tables
from train.reporting.figures.experiment import draw_charts
from train.reporting.figures.style import save_figures
from train.reporting.rendering import TEMPLATES, fill_template, html_page
from train.reporting.run_report import SYSTEM_NAMES, left_out_baselines, opening_values
from train.reporting.tables import format_entry, undefined_notes

LEVEL = 0.05  # of Holm's correction
OPENING_CHART = {"systems.png": "Systems and baselines with their intervals"}
# Kinds of systems whose image and text spaces were never matched.
WITHOUT_TEXTS = ("supervised", "image_grades", "untrained")


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
        "exclusive": headline["exclusive"],
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
            tables.metric_name(comparison["metric"], comparison["group"]): [comparison["first"], *comparison["tied"]]
            for comparison in results["comparisons"]
            if comparison.get("tied")
        },
        "drawn": drawn,
        "comparison_tables": {
            tables.metric_name(metric, group): tables.comparison_table(results, group, metric)
            for group, metric in dict.fromkeys((entry["group"], entry["metric"]) for entry in results["comparisons"])
        },
        "means_table": means_table,
        "folds_table": folds_table,
        "table_2": table_2,
        "shows_paper": shows_paper,
        "headline_table": tables.headline_table(results),
        "heads_table": tables.heads_table(results),
        "findings_table": tables.findings_table(results),
        "masks_tables": tables.masks_tables(results),
        "probes_table": tables.probes_table(results),
        "imbalance_tables": tables.imbalance_tables(results),
        "zero_shot_table": tables.zero_shot_table(results),
        "wordings_table": tables.wordings_table(results),
        "polarity_table": tables.polarity_table(results),
        "grades_tables": tables.grades_tables(results),
        "retrieval_tables": tables.retrieval_tables(results),
        "patients_tables": tables.patients_tables(results),
        "calibration_tables": tables.calibration_tables(results),
        "cost_table": tables.cost_table(systems),
        "failures_table": tables.failures_table(results["runs"]),
        "undefined": undefined_notes(
            metrics for system in tables.everything(results).values() for metrics in system["metrics"].values()
        ),
        "baselines": list(results["baselines"]),
        "left_out_baselines": left_out_baselines(results),
        "left_out": results["left_out_predictions"],
    }
    return fill_template(TEMPLATES / "experiment_report.md.jinja", values) + "\n"


def experiment_summary(results: Mapping[str, Any]) -> list[Markdown]:
    """Say in a few lines which system leads, what the best baseline reaches, and what is missing."""
    headline, seeds = results["headline"], len(results["experiment"]["seeds"])
    lines = [_lead_in_words(results), _best_baseline_in_words(results)]
    others = [e for e in results["comparisons"] if e["to"] == "best" and e["metric"] != headline["metric"]]
    for word, is_distance in (("Highest", False), ("Lowest", True)):
        extreme = [
            f"{tables.metric_name(e['metric'], e['group'])}: {escape_markdown(e['first'])}, "
            f"{format_entry(tables.metric_of(results['systems'][e['first']], e['group'], e['metric']))}"
            for e in others
            if e["metric"].startswith("macro_hausdorff_95") == is_distance
        ]
        lines.append(f"{word} {'; '.join(extreme)}." if extreme else "")
    badly = sum(run["state"] != "done" for run in results["runs"])
    missing = f"{badly} of {len(results['runs'])} runs did not finish; a table at the end says why. " if badly else ""
    one_seed = "One seed: another training run may order the systems otherwise." if seeds == 1 else ""
    return [Markdown(line) for line in (*lines, (missing + one_seed).strip()) if line]


def _lead_in_words(results: Mapping[str, Any]) -> str:
    """Say which system has the highest metric, and over how many its lead is more than chance."""
    headline = results["headline"]
    words = tables.metric_name(headline["metric"])
    best = _comparison(results, "best")
    title = best["first"] if best else headline["reference"]
    entry = tables.metric_of(results["systems"].get(title, {"metrics": {}}), headline["group"], headline["metric"])
    if entry is None:
        return f"{escape_markdown(title)} has no finished run."
    if best is None:
        return f"{escape_markdown(title)}: {words} {format_entry(entry)}."
    names = ", ".join(map(escape_markdown, [title, *best.get("tied", [])]))
    defined = [difference for difference in best["differences"].values() if difference["p_holm"] is not None]
    ahead = sum(difference["value"] > 0 and difference["p_holm"] < LEVEL for difference in defined)
    of_others = f"it leads {ahead} of {len(defined)} other systems after Holm's correction"
    rest = (
        "" if ahead == len(defined) else "; its lead over the rest may be chance" if ahead else ", so it may be chance"
    )
    return f"**{names}**: highest {words} of the systems, {format_entry(entry)}; {of_others}{rest}."


def _best_baseline_in_words(results: Mapping[str, Any]) -> str:
    """Say what the best baseline reaches, and whether the best system is above it; empty without baselines."""
    headline = results["headline"]
    entries = {
        name: entry
        for name, of in results["baselines"].items()
        if (entry := tables.metric_of(of, headline["group"], headline["metric"])) and entry["value"] is not None
    }
    if not entries or (compared := _comparison(results, "baselines of the best")) is None:
        return ""
    name = max(entries, key=lambda baseline: entries[baseline]["value"])
    difference = compared["differences"].get(name, {"low": None})
    if difference["low"] is None:
        return ""
    place = "below" if difference["low"] > 0 else "above" if difference["high"] < 0 else "not told apart from"
    title, baseline = escape_markdown(compared["first"]), SYSTEM_NAMES[name]
    return f"The best baseline, {baseline}, has {format_entry(entries[name])}: {place} {title}."


def _comparison(results: Mapping[str, Any], to: str) -> Mapping[str, Any] | None:
    """Find a comparison of the headline metric."""
    found = (e for e in results["comparisons"] if e["to"] == to and e["metric"] == results["headline"]["metric"])
    return next(found, None)
