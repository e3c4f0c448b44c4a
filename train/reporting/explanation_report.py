"""Write the report of `explanation.json`."""

from collections.abc import Mapping
from typing import Any

from data_scripts.system.markdown import Markdown, escape_markdown, markdown_table
from train.reporting.rendering import TEMPLATES, fill_template
from train.reporting.run_report import describe_dataset, too_few_in_words
from train.reporting.tables import format_entry

SCORES = {"pointing_game": "pointing game", "inside_energy": "inside-mask energy"}
BASELINES = ("randomised model", "centre prior", "uniform map")


def explanation_report(results: Mapping[str, Any]) -> str:
    """Write the content of `explanation.json` as Markdown."""
    values = {
        "where": describe_dataset(results["dataset"]),
        "data": results["dataset"],
        "too_few": too_few_in_words(results["dataset"]),
        "scores_table": _scores_table(results),
        "differences_table": _differences_table(results),
        "findings_table": _findings_table(results),
        **{name: results[name] for name in ("model", "num_randomised", "command", "date")},
    }
    return fill_template(TEMPLATES / "explanation_report.md.jinja", values) + "\n"


def _scores_table(results: Mapping[str, Any]) -> str:
    """Tabulate each kind of map, the same by randomised models, and the maps that need no model."""
    systems: dict[str, Any] = {}
    for name, groups in results["methods"].items():
        systems[Markdown(f"**{escape_markdown(name)}**")] = groups["trained"]
        systems[f"{name}, randomised model"] = groups["randomised model"]
    rows = [
        [name, *(format_entry(entries.get(metric)) for metric in (*SCORES, "rank_correlation"))]
        for name, entries in {**systems, **results["baselines"]}.items()
    ]
    return markdown_table(["map", *SCORES.values(), "rank correlation"], rows)


def _differences_table(results: Mapping[str, Any]) -> str:
    """Tabulate by how much each kind of map exceeds each baseline."""
    rows = [
        [f"{name}, {words}", *(format_entry(groups[f"less {baseline}"][score]) for baseline in BASELINES)]
        for name, groups in results["methods"].items()
        for score, words in SCORES.items()
    ]
    return markdown_table(["map", *(f"less {baseline}" for baseline in BASELINES)], rows)


def _findings_table(results: Mapping[str, Any]) -> str:
    """Tabulate both scores of each finding, without intervals."""
    header = ["finding (structure)", "maps, patients", *results["methods"], *results["baselines"]]
    rows = []
    for label, systems in results["by_finding"].items():
        about = results["dataset"]["findings"][label]
        cells = [" / ".join(f"{entries[score]['value']:.3f}" for score in SCORES) for entries in systems.values()]
        rows.append([f"{label} ({about['structure']})", f"{about['maps']}, {about['patients']}", *cells])
    return markdown_table(header, rows)
