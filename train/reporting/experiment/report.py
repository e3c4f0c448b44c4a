"""The report of an experiment: `results.json` in words, tables and figures, as Markdown and as one HTML page."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from data_scripts.system.whole_files import write_folder, write_text
from train.reporting.experiment.charts import draw_charts
from train.reporting.experiment.html import html_page
from train.reporting.experiment.protocol_sections import (
    calibration_section,
    cost_section,
    failures_section,
    label_section,
    minority_section,
    patients_section,
    probes_section,
    retrieval_section,
    undefined_section,
    zero_shot_section,
)
from train.reporting.experiment.sections import differences_section, headline_section, heads_section, table_2_section
from train.reporting.experiment.words import seeds_in_words, who_wins
from train.reporting.report import describe_dataset, warnings_of

SECTIONS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "Systems": headline_section,
    "Differences": differences_section,
    "As in Table 2 of the paper": table_2_section,
    "Projection heads, as in figures 3 and 4 of the paper": heads_section,
    "Findings": label_section,
    "Probes": probes_section,
    "The rare class": minority_section,
    "Zero-shot": zero_shot_section,
    "Retrieval": retrieval_section,
    "Patients": patients_section,
    "Calibration": calibration_section,
    "Cost": cost_section,
    "Runs that did not finish": failures_section,
    "Undefined figures": undefined_section,
}
# Where each figure stands: under the heading of a section.
CHARTS = {
    "Systems": {"systems.png": "Systems and baselines with their intervals"},
    "Differences": {"differences.png": "Differences of the reference to the others"},
    "Projection heads, as in figures 3 and 4 of the paper": {
        "no_heads.png": "Without heads, by backbone",
        "heads.png": "Heads by kind, width and backbone",
    },
    "Calibration": {"reliability.png": "Reliability before and after temperature scaling"},
    "Cost": {"cost.png": "Score and training time"},
}


def write_report(results: Mapping[str, Any], folder: Path) -> None:
    """Write `figures/`, `report.md` and `report.html`, each whole or not at all.

    Args:
        results: The content of `results.json`: what `measure_experiment` returns, with `experiment` (`name`,
            `description`, `seeds`, `folds`), `dataset` (as `metrics.json` of a cross-validation describes it),
            `command` and `date`.
        folder: Of the experiment.
    """
    charts = draw_charts(results)

    def draw(unfinished: Path) -> None:
        for name, figure in charts.items():
            figure.savefig(unfinished / name)

    write_folder(folder / "figures", draw)
    report = experiment_report(results, charts)
    write_text(folder / "report.html", html_page(report, f"Experiment {results['experiment']['name']}", folder))
    write_text(folder / "report.md", report)


def experiment_report(results: Mapping[str, Any], charts: Collection[str]) -> str:
    """Write the report of an experiment.

    Args:
        results: The content of `results.json`.
        charts: File names in `figures/`.

    Returns:
        Markdown.
    """
    sections = {heading: section(results) for heading, section in SECTIONS.items()}
    parts = [
        f"# Experiment `{results['experiment']['name']}`",
        "Research use only: not for diagnosis, and not for any decision about a patient.",
        warnings_of(results["dataset"]),
        _what_was_compared(results),
        _verdict(results),
    ]
    for heading, section in sections.items():
        shown = [f"![{caption}](figures/{n})" for n, caption in CHARTS.get(heading, {}).items() if n in charts]
        if section or shown:
            parts += [f"## {heading}", section, *shown]
    parts.append(f"## Command\n\n```sh\n{results['command']}\n```\n\n{results['date']}")
    return "\n\n".join(part for part in parts if part) + "\n"


def _what_was_compared(results: Mapping[str, Any]) -> str:
    experiment, group = results["experiment"], results["headline"]["group"]
    _, probe, features = group.split("/")
    cut = f"{experiment['folds']} folds of the patients" if experiment["folds"] else "the splits of the data set"
    return " ".join(
        [
            experiment["description"],
            f"{len(results['systems'])} systems with the same data, towers, budget and loop unless a setting of their "
            f"own says otherwise; {describe_dataset(results['dataset'])}; {cut}; "
            f"{seeds_in_words(experiment['seeds'])}.",
            f"The tables lead with the probe `{probe}` on `{features}` image features, frozen. Brackets hold 95 % "
            f"intervals: {results['num_resamples']} bootstrap resamples of patients, the same for every system and "
            "seed. They do not cover another training run; the standard deviation over seeds does, where there are "
            "several. Differences are paired on the same resampled patients.",
        ]
    ).strip()


def _verdict(results: Mapping[str, Any]) -> str:
    """Who wins by each compared figure, the headline first."""
    metrics = dict.fromkeys(comparison["metric"] for comparison in results["comparisons"])
    sentences = [f"- {who_wins(results, metric)}" for metric in metrics]
    return "**Who wins**\n\n" + "\n".join(sentences) if sentences else ""
