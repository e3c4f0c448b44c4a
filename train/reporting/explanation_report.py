"""Write `explanation.json` as words and tables."""

from collections.abc import Mapping
from typing import Any

from train.reporting.report import describe_dataset
from train.reporting.tables import format_entry, markdown_table

SCORES = {"pointing_game": "pointing game", "inside_energy": "inside-mask energy"}
BASELINES = ("randomised model", "centre prior", "uniform map")


def explanation_report(results: Mapping[str, Any]) -> str:
    """Write the report.

    Args:
        results: The content of `explanation.json`.

    Returns:
        Markdown.
    """
    data, model = results["dataset"], results["model"]
    rows, columns = model["map_size"]
    synthetic = "The images are drawn by a program, not taken from patients.\n\n" if data["synthetic"] else ""
    sections = [
        f"# Where the model looks: {describe_dataset(data)}",
        "Research use only: not for diagnosis, and not for any decision about a patient.",
        f"{synthetic}{data['num_maps']} maps, one for each finding that a report affirms and whose structure the mask "
        f"shows. Vision tower {model['vision']}: a map has {rows} x {columns} cells, drawn bilinear over the image.",
        "## Scores",
        "Pointing game: share of the maps whose maximum lies inside the mask. Inside-mask energy: share of a map's "
        "non-negative mass inside it. Rank correlation: Spearman's, of the trained model's maps with those of "
        f"{results['num_randomised']} models with random weights; near 0 if the weights decide what a map shows. "
        '*Less its denial*: the map of the direction from "No disc bulge." to "Disc bulge.". Brackets hold 95 % '
        "intervals over patients.",
        scores_table(results),
        "## Differences on the same maps",
        "Above 0, the map falls on the structure more than the baseline does. A map whose intervals do not all lie "
        "above 0 is no evidence of where the model looks.",
        differences_table(results),
        "## By finding",
        f"{SCORES['pointing_game'].capitalize()} / {SCORES['inside_energy']}.",
        findings_table(results),
        "![Examples, one a finding, picked at random.](explanation.png)",
        f"## Command\n\n```sh\n{results['command']}\n```\n\n{results['date']}",
    ]
    return "\n\n".join(sections) + "\n"


def scores_table(results: Mapping[str, Any]) -> str:
    """Tabulate each kind of map, the same by randomised models, and the maps that need no model."""
    systems = {}
    for name, groups in results["methods"].items():
        systems[f"**{name}**"] = groups["trained"]
        systems[f"{name}, randomised model"] = groups["randomised model"]
    rows = [
        [name, *(format_entry(entries.get(metric)) for metric in (*SCORES, "rank_correlation"))]
        for name, entries in {**systems, **results["baselines"]}.items()
    ]
    return markdown_table(["map", *SCORES.values(), "rank correlation"], rows)


def differences_table(results: Mapping[str, Any]) -> str:
    """Tabulate by how much each kind of map exceeds each baseline."""
    rows = [
        [f"{name}, {words}", *(format_entry(groups[f"less {baseline}"][score]) for baseline in BASELINES)]
        for name, groups in results["methods"].items()
        for score, words in SCORES.items()
    ]
    return markdown_table(["map", *(f"less {baseline}" for baseline in BASELINES)], rows)


def findings_table(results: Mapping[str, Any]) -> str:
    """Tabulate both scores of each finding, without intervals."""
    header = ["finding (structure)", "maps, patients", *results["methods"], *results["baselines"]]
    rows = []
    for label, systems in results["by_finding"].items():
        about = results["dataset"]["findings"][label]
        cells = [" / ".join(f"{entries[score]['value']:.3f}" for score in SCORES) for entries in systems.values()]
        rows.append([f"{label} ({about['structure']})", f"{about['maps']}, {about['patients']}", *cells])
    return markdown_table(header, rows)
