"""Lay out the tables of a model card from `metrics.json`: a short one first, then the others."""

from collections.abc import Mapping
from typing import Any

from data_scripts.system.markdown import markdown_table
from train.evaluation.statistics.spreads import POLARITY, SINGLE, spread_name
from train.reporting.classifier_report import SYSTEMS
from train.reporting.run_report import (
    GRADE_KAPPAS,
    MODEL,
    STATES,
    asks_unseen_wordings,
    left_out_baselines,
    probe_differences,
    probe_metrics,
)
from train.reporting.tables import (
    Entry,
    counts_table,
    format_entry,
    metrics_table,
    readable,
    retrieval_table,
    systems_table,
    undefined_notes,
)
from train.reporting.wordings import MACRO_POLARITY, alike_note, asked_in_words, polarity_table, wordings_table

ZERO_SHOT = f"{MODEL}, zero-shot"
# Rows below it: what one wording gives, by the spread that it is of.
ONE_WORDING = {"one wording on average": "mean", "the worst wording": "worst"}
GRADE_ROWS = {"prompts": ZERO_SHOT, "fusion": f"{MODEL}, image and text fused"}  # ways of telling the grade
SCALED = ("expected_calibration_error", "brier_score")
IN_SETS = {
    "coverage": "truth in the prediction set",
    "answered": "answered (one choice in the set)",
    "accuracy_if_answered": "accuracy where answered",
    "accuracy_of_all": "accuracy without abstaining",
}


def result_tables(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Lay out the metrics of an evaluation, by name in the card."""
    (first, of_model), *others = probe_metrics(metrics).items()
    differences = probe_differences(metrics)
    compared = list(dict.fromkeys(metric for entries in differences.values() for metric in entries))
    leading = headline_metrics(of_model)
    prompts = {ZERO_SHOT: metrics["zero_shot"]} if metrics["zero_shot"] else {}
    further = metrics["further"]
    single, polarity = (further.get(group, {}) for group in (SINGLE, POLARITY))
    for words, spread in ONE_WORDING.items():
        entries = {name: single[key] for name in leading if (key := spread_name(name, spread)) in single}
        if entries and spread == "mean":  # as the polarity is
            entries |= {MACRO_POLARITY: polarity[MACRO_POLARITY]} if MACRO_POLARITY in polarity else {}
        prompts |= {f"{ZERO_SHOT}, {words}": entries} if entries else {}
    grade = {name: entries["quadratic_kappa"] for name in GRADE_ROWS if (entries := further.get(f"grade_by/{name}"))}
    for name, entry in grade.items():
        prompts[GRADE_ROWS[name]] = {**prompts.get(GRADE_ROWS[name], {}), "grade_quadratic_kappa": entry}
    shown = [*leading, *([MACRO_POLARITY] if polarity and prompts else [])]
    return {
        "headline_table": systems_table({first: of_model, **prompts, **dict(others)}, shown) if leading else "",
        "fused": "fusion" in grade,
        "baselines": list(metrics["baselines"]),
        "left_out_baselines": left_out_baselines(metrics),
        "all_metrics_table": metrics_table({"linear probe": of_model, "zero-shot": metrics["zero_shot"]}),
        "differences_table": systems_table(differences, compared) if compared else "",
        "retrieval_table": retrieval_table(metrics["retrieval"]),
        "label_table": counts_table("label", metrics["dataset"]["labels"]) if metrics["dataset"]["labels"] else "",
        "asked": " ".join(filter(None, (asked_in_words(metrics.get("unseen_wordings", {})), alike_note(metrics)))),
        "wordings_table": wordings_table(metrics),
        "polarity_table": polarity_table(metrics),
        "prompts": {} if asks_unseen_wordings(metrics) else metrics["prompts"],
        "unseen_wordings": metrics.get("unseen_wordings", {}),
        "undefined": undefined_notes([of_model, metrics["zero_shot"], single]),
    }


def classifier_tables(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Lay out the metrics of a fine-tuned classifier, by name in the card."""
    by_system = {words: metrics["by_system"][name] for name, words in SYSTEMS.items()}
    fine_tuned, difference = metrics["by_system"]["fine_tuned"], metrics["difference"]
    return {
        "headline_table": systems_table(by_system, headline_metrics(fine_tuned)),
        "all_metrics_table": metrics_table({"images": fine_tuned, "patients": metrics["patients"]}),
        "differences_table": systems_table({"fine-tuned − linear probe": difference}, list(difference)),
        "label_table": counts_table("label", metrics["dataset"]["labels"]),
        **{"baselines": [], "left_out_baselines": {}, "retrieval_table": "", "prompts": {}, "unseen_wordings": {}},
        **{"asked": "", "fused": False, "wordings_table": "", "polarity_table": ""},
        "undefined": undefined_notes([fine_tuned]),
    }


def segmentation_tables(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Lay out the metrics of a segmentation model, by name in the card."""
    entries = metrics["metrics"]
    leading = [name for name in entries if name == "macro_dice" or name.startswith("dice/")]
    return {
        "headline_table": systems_table({"this model": entries}, leading),
        "all_metrics_table": metrics_table({"metric": entries, "limit of the resolution": metrics["resolution_limit"]}),
        "differences_table": "",
        "label_table": counts_table("class", metrics["dataset"]["labels"]),
        **{"baselines": [], "left_out_baselines": {}, "retrieval_table": "", "prompts": {}, "unseen_wordings": {}},
        **{"asked": "", "fused": False, "wordings_table": "", "polarity_table": ""},
        "undefined": undefined_notes([entries]),
    }


def headline_metrics(linear_probe: Mapping[str, Entry]) -> list[str]:
    """Choose the metrics that a card leads with: AUROC for independent findings, else F1 and accuracy.

    Example:
        >>> entry = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}
        >>> headline_metrics({"accuracy": entry, "macro_f1": entry, "balanced_accuracy": entry})
        ['macro_f1', 'balanced_accuracy']
        >>> headline_metrics({"macro_auroc": entry, "macro_f1": entry, "grade_quadratic_kappa": entry})
        ['macro_auroc', 'grade_quadratic_kappa']
    """
    if not {"macro_auroc", "macro_f1"} & linear_probe.keys():
        return [name for name in linear_probe if "grade_" in name]
    of_labels = ("macro_auroc",) if "macro_auroc" in linear_probe else ("macro_f1", "balanced_accuracy")
    return [name for name in (*of_labels, *GRADE_KAPPAS) if name in linear_probe]


def calibration_table(metrics: Mapping[str, Any]) -> str:
    """Show the effect of scaling and prediction sets on the measured patients, for a classifier or the prompts."""
    of_prompts = metrics.get("further", {}).get("calibration/zero_shot")  # a segmentation model has none
    entries = metrics.get("calibration", of_prompts)
    if not entries:
        return ""
    before, after, _ = STATES
    scaled = [
        [f"{readable(name)}, {when} scaling", format_entry(entries.get(f"{state}/{name}"))]
        for name in SCALED
        for when, state in (("before", before), ("after", after))
    ]
    in_sets = [[words, format_entry(entries.get(f"class_conditional/{name}"))] for name, words in IN_SETS.items()]
    return markdown_table(["answers", "metric"], [*scaled, *in_sets])
