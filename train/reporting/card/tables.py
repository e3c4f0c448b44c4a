"""The tables of a model card, from `metrics.json`: one short table in front, the others behind it."""

from collections.abc import Mapping
from typing import Any

from train.reporting.classification_report import SYSTEMS
from train.reporting.experiment.cells import cell, title_of
from train.reporting.further_sections import STATES, prompts_list
from train.reporting.report import MODEL, SYSTEM_NAMES
from train.reporting.tables import (
    Entry,
    format_entry,
    markdown_table,
    metrics_table,
    readable,
    retrieval_table,
    systems_table,
    undefined_notes,
)

ZERO_SHOT = f"{MODEL}, zero-shot"
SCALED = ("expected_calibration_error", "brier_score")
# Placeholders of the card, in the order of `result_tables`.
RESULT_TABLES = (
    "headline_table",
    "headline_notes",
    "all_figures_table",
    "differences_table",
    "retrieval_table",
    "label_table",
    "prompts",
    "undefined",
)
IN_SETS = {
    "coverage": "truth in the prediction set",
    "answered": "answered (one choice in the set)",
    "accuracy_if_answered": "accuracy where answered",
    "accuracy_of_all": "accuracy without abstaining",
}


def result_tables(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Lay out the figures of an evaluation, by placeholder of the card."""
    probes = {MODEL: metrics["linear_probe"]} | {
        SYSTEM_NAMES[name]: entry["linear_probe"] for name, entry in metrics["baselines"].items()
    }
    differences = {
        f"{MODEL} − {SYSTEM_NAMES[name]}": entry["difference"] for name, entry in metrics["baselines"].items()
    }
    columns = headline_metrics(metrics["linear_probe"])
    compared = list(dict.fromkeys(metric for entries in differences.values() for metric in entries))
    notes = undefined_notes({"linear_probe": metrics["linear_probe"], "zero_shot": metrics["zero_shot"]})
    first, *others = probes.items()
    tables = (
        systems_table({**dict([first]), ZERO_SHOT: metrics["zero_shot"], **dict(others)}, columns),
        _about_baselines(metrics["baselines"]),
        metrics_table({"linear probe": metrics["linear_probe"], "zero-shot": metrics["zero_shot"]}),
        systems_table(differences, compared) if differences else "",
        retrieval_table(metrics["retrieval"]),
        _label_table(metrics["dataset"]["labels"]),
        prompts_list(metrics["prompts"]),
        "\n".join(f"- {note}" for note in notes),
    )
    return dict(zip(RESULT_TABLES, tables, strict=True))


def classifier_tables(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Lay out the figures of a fine-tuned classifier, by placeholder of the card."""
    figures = metrics["figures"]
    notes = undefined_notes({"fine_tuned": figures["fine_tuned"]})
    return {
        "headline_table": systems_table(
            {words: figures[name] for name, words in SYSTEMS.items()}, headline_metrics(figures["fine_tuned"])
        ),
        "all_figures_table": metrics_table({"images": figures["fine_tuned"], "patients": metrics["patients"]}),
        "differences_table": systems_table(
            {"fine-tuned − linear probe": metrics["difference"]}, list(metrics["difference"])
        ),
        "label_table": _label_table(metrics["dataset"]["labels"]),
        "undefined": "\n".join(f"- {note}" for note in notes),
    }


def headline_metrics(linear_probe: Mapping[str, Entry]) -> list[str]:
    """Choose the figures that a card leads with: of findings that exclude nothing the AUROC, else F1 and accuracy.

    Example:
        >>> entry = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}
        >>> headline_metrics({"accuracy": entry, "macro_f1": entry, "balanced_accuracy": entry})
        ['macro_f1', 'balanced_accuracy']
        >>> headline_metrics({"macro_auroc": entry, "macro_f1": entry, "grade_quadratic_kappa": entry})
        ['macro_auroc', 'grade_quadratic_kappa']
    """
    if not {"macro_auroc", "macro_f1"} & linear_probe.keys():
        return [name for name in linear_probe if name.startswith("grade_")]
    of_labels = ("macro_auroc",) if "macro_auroc" in linear_probe else ("macro_f1", "balanced_accuracy")
    return [name for name in (*of_labels, "grade_quadratic_kappa") if name in linear_probe]


def calibration_table(metrics: Mapping[str, Any]) -> str:
    """What scaling and prediction sets did on the measured patients: of a classifier, else of the prompts' answers."""
    entries = metrics["calibration"] if "calibration" in metrics else metrics["further"].get("calibration/zero_shot")
    if not entries:
        return ""
    before, after, _ = STATES
    scaled = [
        [f"{readable(name)}, {when} scaling", format_entry(entries.get(f"{state}/{name}"))]
        for name in SCALED
        for when, state in (("before", before), ("after", after))
    ]
    in_sets = [[words, format_entry(entries.get(f"class_conditional/{name}"))] for name, words in IN_SETS.items()]
    return markdown_table(["answers", "figure"], [*scaled, *in_sets])


def experiment_table(results: Mapping[str, Any]) -> str:
    """The headline figure of an experiment, system by system.

    Args:
        results: The content of an experiment's `results.json`.
    """
    group, metric = results["headline"]["group"], results["headline"]["metric"]
    systems = {**results["systems"], **results["baselines"]}
    rows = [[title_of(title, system), cell(system, group, metric)] for title, system in systems.items()]
    return markdown_table(["system", readable(metric)], rows)


def splits_table(splits: Mapping[str, Mapping[str, int]] | None) -> str:
    """Rows and patients of each split; empty where the run did not record them."""
    if splits is None:
        return ""
    return markdown_table(
        ["split", "images", "patients"], [[name, str(n["rows"]), str(n["patients"])] for name, n in splits.items()]
    )


def _label_table(labels: Mapping[str, Mapping[str, int]]) -> str:
    rows = [[name, str(n["rows"]), str(n["patients"])] for name, n in labels.items()]
    return markdown_table(["label", "images", "patients"], rows)


def _about_baselines(baselines: Mapping[str, Any]) -> str:
    said = {
        "untrained": "*Untrained encoder*: the same tower with random weights.",
        "pixel_pca": "*Pixel PCA* and *HOG*: of the grey image alone.",
        "no_pixels": "*No pixels*: sequence, level, plane and size of the image.",
    }
    return " ".join(words for name, words in said.items() if name in baselines)
