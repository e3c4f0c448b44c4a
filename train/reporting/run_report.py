"""Write the report of an evaluation from its `metrics.json`; names of systems and data that other reports share."""

from collections.abc import Collection, Mapping
from typing import Any

from data_scripts.system.markdown import markdown_table
from train.reporting.rendering import TEMPLATES, fill_template
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

MODEL = "LumbarCLIP"
SYSTEM_NAMES = {
    "majority": "majority class",
    "untrained": "untrained encoder",
    "pixel_pca": "pixel PCA",
    "hog": "HOG",
    "no_pixels": "no pixels",
}
# Columns of the tables that compare systems; those missing from a dataset are left out.
COMPARED = ("macro_f1", "macro_auroc", "balanced_accuracy", "accuracy", "minority_recall", "grade_quadratic_kappa")
# By `rows` of `run_folder.describe_start`: whether the starting weights may have seen the test patients.
START_IN_WORDS = {
    "unknown": "It is unknown whether its starting weights saw these test patients.",
    "other": "Its starting weights were trained on other rows, which may include these test patients.",
}
# A probe without a title is shown by its name.
PROBE_TITLES = {
    "logistic": "logistic regression",
    "paper": "the paper's linear layer",
    "paper_balanced": "the paper's, class-balanced loss",
    "paper_logit_adjusted": "the paper's, logit-adjusted loss",
    "paper_threshold": "the paper's, threshold of validation patients",
    "knn": "nearest neighbours",
}
CLASSIFIERS = {"paper": "the paper's linear layer", "zero_shot": "zero-shot"}
SET_KINDS = {"class_conditional": "aimed at for each class", "marginal": "aimed at on average"}
HEADLINE = "probe/logistic/unprojected"
STATES = ("uncalibrated", "calibrated", "change")
SCALED = ("expected_calibration_error", "brier_score", "negative_log_likelihood")


def run_report(results: Mapping[str, Any], drawn: Collection[str]) -> str:
    """Write the content of `metrics.json` as Markdown, with the figures that were drawn in `figures/`."""
    compared, further, probes = compared_metrics(results), results["further"], probe_metrics(results)
    differences = probe_differences(results)
    shared = [name for name in compared if any(name in entries for entries in differences.values())]
    zero_shot = {"all prompts": results["zero_shot"]}
    if results["zero_shot_first_prompt"]:
        zero_shot["first prompt of each class"] = results["zero_shot_first_prompt"]
    of_meaning = {f"{name}_retrieval_table": further.get(f"retrieval/{name}") for name in ("pair", "facts")}
    calibration, sets = _calibration_tables(further)
    values = {
        **opening_values(results),
        "baselines": list(results["baselines"]),
        "probe_table": systems_table(probes, compared) if compared else "",
        "differences_table": systems_table(differences, shared) if shared else "",
        "other_probes_table": _other_probes_table(results, compared),
        "probed_rows": rows_in_words(results.get("training_set", {})),
        "patients_table": _patients_table(results, compared),
        "calibration_table": calibration,
        "sets_table": sets,
        "zero_shot_table": systems_table(zero_shot, [name for name in compared if name in results["zero_shot"]])
        if results["zero_shot"]
        else "",
        "zero_shot_metrics_table": metrics_table({MODEL: results["zero_shot"]}),
        "prompts": results["prompts"],
        "retrieval_table": retrieval_table(results["retrieval"]),
        **{name: retrieval_table(entries) if entries else "" for name, entries in of_meaning.items()},
        "probe_metrics_table": metrics_table(probes),
        "undefined": undefined_notes([results["linear_probe"], results["zero_shot"]]),
        "drawn": drawn,
    }
    return fill_template(TEMPLATES / "run_report.md.jinja", values) + "\n"


def rows_in_words(training_set: Mapping[str, Any]) -> str:
    """Say which rows an epoch of the paper's probe had: the `training_set` of `metrics.json`.

    Older ones do not have it: their probe learned from each image once.

    Example:
        >>> rows_in_words({"texts_per_pair": 5, "balance": ["upsample"]})
        'as in pretraining, each image 5 times an epoch, and those of rare classes more often'
    """
    times = training_set.get("texts_per_pair", 1)
    once = "each image once an epoch" if times == 1 else f"as in pretraining, each image {times} times an epoch"
    return once + (", and those of rare classes more often" if "upsample" in training_set.get("balance", ()) else "")


def opening_values(results: Mapping[str, Any]) -> dict[str, Any]:
    """Collect what every report opens and ends with: the data, warnings, labels, command and date."""
    data = results["dataset"]
    return {
        "data": data,
        "where": describe_dataset(data),
        "start_warning": start_warning(data.get("start")),
        "scope": scope_line(results.get("scope")),
        "label_table": counts_table("label", data["labels"]) if data["labels"] else "",
        "command": results["command"],
        "date": results["date"],
    }


def start_warning(start: Mapping[str, Any] | None) -> str:
    """Warn that the starting weights may have seen the test patients, by `run_folder.describe_start`; else empty."""
    return START_IN_WORDS.get(start["rows"], "") if start else ""


def scope_line(scope: Mapping[str, Any] | None) -> str:
    """Say in a line what a model was trained on and what gets no answer: `measure_scope`; empty without a scope.

    Example:
        >>> scope_line({"in_words": "axial slices (9 patients)", "no_check": "4 images", "held_back": None})
        'Trained on axial slices (9 patients). Images without a header are not checked: 4 images.'
    """
    if scope is None:
        return ""
    trained = f"Trained on {scope['in_words']}."
    if scope["held_back"] is None:
        return f"{trained} Images without a header are not checked: {scope['no_check']}."
    return (
        f"{trained} Images unlike these get no answer. The threshold, set on {scope['num_validation_patients']} "
        f"validation patients, aims to hold back {100 * scope['aim']:g} % of images like these; of the images of the "
        f"{scope['num_patients']} patients measured here, a share of {format_entry(scope['held_back'])} is held back."
    )


def describe_dataset(data: Mapping[str, Any]) -> str:
    """Name a dataset, its split and its size, and say if it is synthetic.

    Example:
        >>> describe_dataset({"name": "demo", "split": "test", "num_rows": 12, "num_patients": 2, "synthetic": True})
        'demo (synthetic), test: 12 images of 2 patients'
    """
    synthetic = " (synthetic)" if data["synthetic"] else ""
    return f"{data['name']}{synthetic}, {data['split']}: {data['num_rows']} images of {data['num_patients']} patients"


def compared_metrics(results: Mapping[str, Any]) -> list[str]:
    """List the metrics of the linear probe that compare systems on this dataset."""
    return [name for name in COMPARED if name in results["linear_probe"]]


def probe_metrics(results: Mapping[str, Any]) -> dict[str, Mapping[str, Entry]]:
    """Collect the probe's metrics of the model and of each baseline."""
    baselines = {SYSTEM_NAMES[name]: entry["linear_probe"] for name, entry in results["baselines"].items()}
    return {MODEL: results["linear_probe"], **baselines}


def probe_differences(results: Mapping[str, Any]) -> dict[str, Mapping[str, Entry]]:
    """Collect the differences of the model to each baseline."""
    return {f"{MODEL} − {SYSTEM_NAMES[name]}": entry["difference"] for name, entry in results["baselines"].items()}


def _other_probes_table(results: Mapping[str, Any], compared: list[str]) -> str:
    """Compare every probe on the tower's output and on the shared space; empty without other probes."""
    rows = {}
    for group, entries in {HEADLINE: results["linear_probe"], **results["further"]}.items():
        if group.startswith(("probe/", "decision/")):
            _, probe, features = group.split("/")
            rows[f"{PROBE_TITLES.get(probe, probe)}, {features}"] = entries
    return systems_table(rows, [name for name in compared if name != "grade_quadratic_kappa"]) if len(rows) > 1 else ""


def _patients_table(results: Mapping[str, Any], compared: list[str]) -> str:
    """Compare metrics by image with those by patient; empty where patients were not pooled."""
    further = results["further"]
    if "patients/mean" not in further:
        return ""
    rows = {
        "image by image": results["linear_probe"],
        "patients, mean of their images": further["patients/mean"],
        "patients, attention over their images": further["patients/attention"],
    }
    return systems_table(rows, [name for name in compared if name in further["patients/mean"]])


def _calibration_tables(further: Mapping[str, Mapping[str, Entry]]) -> tuple[str, str]:
    """Lay out calibration before and after scaling, and the prediction sets; both empty if nothing was calibrated."""
    of = {words: further.get(f"calibration/{name}") for name, words in CLASSIFIERS.items()}
    by_classifier = {words: entries for words, entries in of.items() if entries}
    if not by_classifier:
        return "", ""
    scaled = [
        [classifier, readable(metric), *(format_entry(entries.get(f"{state}/{metric}")) for state in STATES)]
        for classifier, entries in by_classifier.items()
        for metric in SCALED
    ]
    names = dict.fromkeys(name for entries in by_classifier.values() for name in entries)
    in_sets = [name.removeprefix("marginal/") for name in names if name.startswith("marginal/")]
    sets = [
        [classifier, words, *(format_entry(entries.get(f"{kind}/{name}")) for name in in_sets)]
        for classifier, entries in by_classifier.items()
        for kind, words in SET_KINDS.items()
    ]
    scaled_table = markdown_table(["classifier", "metric", "before", "after", "change"], scaled)
    return scaled_table, markdown_table(["classifier", "coverage", *map(readable, in_sets)], sets)
