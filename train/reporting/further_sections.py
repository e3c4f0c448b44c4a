"""Sections of an evaluation's report beside the headline probe: other probes, remedies, patients, calibration."""

from collections.abc import Mapping
from typing import Any

from train.reporting.tables import Entry, format_entry, markdown_table, readable, retrieval_table, systems_table

PROBES = {
    "logistic": "logistic regression",
    "paper": "the paper's linear layer",
    "paper_balanced": "the paper's, class-balanced loss",
    "paper_logit_adjusted": "the paper's, logit-adjusted loss",
    "paper_threshold": "the paper's, threshold of validation patients",
    "knn": "nearest neighbours",
}
HITS = {
    "pair": "The row's own report alone counts as a hit; its copies count as misses and stand in random order.",
    "facts": "Every report that states the same facts counts as a hit, however it is worded.",
}
CLASSIFIERS = {"paper": "the paper's linear layer", "zero_shot": "zero-shot"}
HEADLINE = "probe/logistic/unprojected"
STATES = ("uncalibrated", "calibrated", "change")


def probes_section(results: Mapping[str, Any], columns: list[str]) -> str:
    """Every probe on what the tower gives and on the shared space.

    Args:
        results: The content of `metrics.json`.
        columns: Metrics to show.

    Returns:
        Markdown; empty without other probes.
    """
    asked = {HEADLINE: results["linear_probe"], **results["further"]}
    rows = {
        f"{PROBES[name.split('/')[1]]}, {name.split('/')[2]}": entries
        for name, entries in asked.items()
        if name.startswith(("probe/", "decision/"))
    }
    if len(rows) < 2:
        return ""
    shown = [name for name in columns if name != "grade_quadratic_kappa"]
    return (
        "## Other probes\n\n*Unprojected*: what the vision tower gives; *projected*: the shared space. The paper's "
        "probe is one linear layer, AdamW at 1e-4, 50 epochs on the training patients; two losses and a threshold "
        "chosen on validation patients are remedies for rare classes.\n\n" + systems_table(rows, shown)
    )


def patients_section(results: Mapping[str, Any], columns: list[str]) -> str:
    """One answer a patient, beside one an image."""
    further = results["further"]
    if "patients/mean" not in further:
        return ""
    shown = [name for name in columns if name in further["patients/mean"]]
    rows = {
        "image by image": results["linear_probe"],
        "patients, mean of their images": further["patients/mean"],
        "patients, attention over their images": further["patients/attention"],
    }
    return (
        "## Patient by patient\n\nA patient has a finding if one image of the patient has it. Attention is learned on "
        "the features of the training patients.\n\n" + systems_table(rows, shown)
    )


def calibration_section(results: Mapping[str, Any]) -> str:
    """Probabilities before and after temperature scaling, and what prediction sets hold."""
    of = {name.partition("/")[2]: e for name, e in results["further"].items() if name.startswith("calibration/") and e}
    if not of:
        return ""
    columns = {CLASSIFIERS[name]: entries for name, entries in of.items()}
    metrics = ("expected_calibration_error", "brier_score", "negative_log_likelihood")
    rows = [
        [classifier, readable(metric), *(format_entry(entries.get(f"{state}/{metric}")) for state in STATES)]
        for classifier, entries in columns.items()
        for metric in metrics
    ]
    scaled = markdown_table(["classifier", "figure", "before", "after", "change"], rows)
    kinds = {"class_conditional": "promised for each class", "marginal": "promised on average"}
    names = list(dict.fromkeys(name for entries in columns.values() for name in entries))
    in_sets = [name.partition("/")[2] for name in names if name.startswith("marginal/")]
    sets = markdown_table(
        ["classifier", "coverage", *map(readable, in_sets)],
        [
            [classifier, words, *(format_entry(entries.get(f"{kind}/{name}")) for name in in_sets)]
            for classifier, entries in columns.items()
            for kind, words in kinds.items()
        ],
    )
    return (
        "## Calibration\n\nTemperatures and prediction sets were fitted on the validation patients, of whom these "
        "classifiers had learned nothing. A set with other than one class abstains; sets promise to hold the truth "
        f"in 90 % of cases, if new patients come from the same population.\n\n{scaled}\n\n{sets}"
    )


def retrieval_section(results: Mapping[str, Any]) -> str:
    """Retrieval by the two other meanings of a hit."""
    tables = [
        f"{words}\n\n{retrieval_table(results['further'][f'retrieval/{hits}'])}"
        for hits, words in HITS.items()
        if f"retrieval/{hits}" in results["further"]
    ]
    return "\n\n".join(tables)


def zero_shot_table(results: Mapping[str, Any], columns: list[str]) -> str:
    """The ensemble of prompts beside the first prompt of each class."""
    rows: dict[str, Mapping[str, Entry]] = {"all prompts": results["zero_shot"]}
    if results.get("zero_shot_first_prompt"):
        rows["first prompt of each class"] = results["zero_shot_first_prompt"]
    return systems_table(rows, [name for name in columns if name in results["zero_shot"]])


def prompts_list(prompts: Mapping[str, Mapping[str, list[str]]]) -> str:
    """The sentences asked, so that nobody has to guess what zero-shot means here."""
    lines = []
    for label, asked in prompts.items():
        said = "; ".join(f"“{text}”" for text in asked["present"])
        denied = "; ".join(f"“{text}”" for text in asked.get("absent", []))
        lines.append(f"- {label}: {said}" + (f" against {denied}" if denied else ""))
    return "\n".join(lines)
