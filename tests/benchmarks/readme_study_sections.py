"""The README's sections on studies and probes: what was measured, as Markdown."""

from typing import Any

from train.reporting.experiment.words import figure_in_words, seeds_in_words, who_wins
from train.reporting.report import SYSTEM_NAMES, describe_dataset
from train.reporting.tables import format_entry, markdown_table

PAPER = "probe/paper/unprojected"
REMEDIES = {
    "paper": "the paper's probe",
    "paper_balanced": "class-balanced loss",
    "paper_logit_adjusted": "logit-adjusted loss",
    "paper_threshold": "threshold of validation patients",
    "logistic": "logistic regression",
    "knn": "nearest neighbours",
}


def study_section(name: str, title: str, introduction: str, closing: str, results: dict[str, Any]) -> str:
    """One study: its table, who wins, and a figure.

    Args:
        name: Of the study's files in `tests/benchmarks/results`.
        title: Of the section.
        introduction: What was compared.
        closing: What a reader has to bear in mind; may be empty.
        results: What `keep_study.py` kept.

    Returns:
        Markdown.
    """
    headline, metric = results["headline"]["group"], results["headline"]["metric"]
    differences = _differences(results, metric)
    if results["headline"]["exclusive"]:
        columns = {
            figure_in_words(metric): (headline, metric),
            "AUROC": (headline, "auroc"),
            "macro F1, the paper's probe": (PAPER, metric),
            "zero-shot macro F1": ("zero_shot", metric),
        }
    else:
        columns = {
            figure_in_words(metric): (headline, metric),
            "grade kappa": ("grade/unprojected", "quadratic_kappa"),
            "zero-shot macro AUROC": ("zero_shot", metric),
        }
    columns["text to image, R@10"] = ("retrieval/report", "text_to_image_recall_at_10")
    reference = results["headline"]["reference"]
    rows = []
    for system, entry in {**results["systems"], **results["controls"]}.items():
        cells = [format_entry(entry["figures"].get(group, {}).get(figure)) for group, figure in columns.values()]
        rows.append([SYSTEM_NAMES.get(system, system), *cells, differences.get(system, "-")])
    header = ["system", *columns, f"{reference} less this"]
    where = f"{describe_dataset(results['dataset'])}; {seeds_in_words(results['seeds'])}"
    told = [metric, "text_to_image_recall_at_10"]
    if not results["headline"]["exclusive"]:
        told.insert(1, "quadratic_kappa")
    verdicts = [who_wins(results, figure) for figure in told]
    parts = [
        f"### {title}",
        f"{introduction} Measured on {where}; 95 % intervals over patients.",
        markdown_table(header, rows),
        "\n".join(f"- {verdict}" for verdict in verdicts if verdict),
        f"![{title}](tests/benchmarks/results/study_{name}.png)",
        closing,
        f"`{results['command']}`, {results['date'][:10]}, `tests/benchmarks/results/study_{name}.json`.",
    ]
    return "\n\n".join(part for part in parts if part)


def probe_section(results: dict[str, Any]) -> str:
    """What caching features is worth, and what the remedies do for a rare class."""
    speed = results["speed"]
    kept = {share: results["training_rows"][share] for share in results["remedies"]}
    header = ["probe", *(f"{min(rows.values())} of {sum(rows.values())} training rows rare" for rows in kept.values())]
    names = next(iter(results["remedies"].values()))
    rows = [
        [
            REMEDIES[name],
            *(
                f"{of[name]['macro_f1']['mean']:.3f} / {of[name]['minority_recall']['mean']:.3f}"
                for of in results["remedies"].values()
            ),
        ]
        for name in names
    ]
    return (
        "### Probes\n\n"
        f"Fifty epochs of the paper's probe on cached features of {speed['training_images']:,} images take "
        f"{speed['cached_seconds']:.0f} s with encoding; encoding again in each epoch takes "
        f"{speed['encoding_each_epoch_seconds']:,.0f} s ({speed['ratio']:.0f} times as long; "
        f"{results['arguments']['encoding_epochs']} of the 50 encodings were timed).\n\n"
        "The rare class thinned for the probe alone; macro F1 / minority recall on the synthetic test patients, mean "
        f"of {results['arguments']['seeds']} draws. The paper's probe, 50 epochs at 1e-4, gives a rare class up; its "
        f"features do not.\n\n{markdown_table(header, rows)}\n\n"
        f"`{results['command']}`, {results['date']}, `tests/benchmarks/results/probe.json`."
    )


def _differences(results: dict[str, Any], metric: str) -> dict[str, str]:
    """The reference less each other system and control, by the headline figure."""
    found = [entry for entry in results["comparisons"] if entry["metric"] == metric and entry["to"] != "best"]
    return {name: format_entry(entry) for comparison in found for name, entry in comparison["differences"].items()}
