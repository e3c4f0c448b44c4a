"""Write the report of an evaluation from its `metrics.json`; names of systems and data that other reports share."""

from collections.abc import Collection, Mapping
from typing import Any

from data_scripts.system.markdown import Markdown, markdown_table
from train.evaluation.statistics.minima import counted, too_few_to_rank
from train.evaluation.statistics.spreads import UNSEEN
from train.reporting.rendering import TEMPLATES, fill_template
from train.reporting.tables import (
    Entry,
    counts_table,
    format_entry,
    metrics_table,
    readable,
    reasons_once,
    retrieval_table,
    systems_table,
    undefined_notes,
)
from train.reporting.wordings import alike_note, asked_in_words, polarity_table, unseen_in_words, wordings_table

MODEL = "LumbarCLIP"
SYSTEM_NAMES = {
    "majority": "majority class",
    "untrained": "untrained encoder",
    "pixel_pca": "pixel PCA",
    "hog": "HOG",
    "texture": "texture, boosted trees",
    "imagenet": "ImageNet tower",
    "no_pixels": "no pixels",
    "resolution_limit": "limit of the resolution",
}
# Columns of the tables that compare systems; those missing from a dataset are left out.
GRADE_KAPPAS = ("grade_quadratic_kappa", "ordinal_grade_quadratic_kappa")
COMPARED = ("macro_f1", "macro_auroc", "balanced_accuracy", "accuracy", "minority_recall", *GRADE_KAPPAS)
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
# Ways of telling the grade, of `evaluation/protocols/grade_classifiers.py`.
GRADED_BY = {"prompts": "prompts, zero-shot", "fusion": "image and text fused", "probe": "grade probe"}
CLASSIFIERS = {"paper": "the paper's linear layer", "zero_shot": "zero-shot"}
SET_KINDS = {"class_conditional": "aimed at for each class", "marginal": "aimed at on average"}
HEADLINE = "probe/logistic/unprojected"
STATES = ("uncalibrated", "calibrated", "change")
CERTAIN_CHANCE = 0.99  # with hardly more candidates than places counted, retrieval finds everything
SCALED = ("expected_calibration_error", "brier_score", "negative_log_likelihood")
# The first that was drawn opens the report.
OPENING_CHARTS = {
    "probe_comparison.png": "Linear probe, all systems",
    "text_to_image.png": "Reports and the images found for them",
}


def run_report(results: Mapping[str, Any], drawn: Collection[str]) -> str:
    """Write the content of `metrics.json` as Markdown, with the figures that were drawn in `figures/`."""
    compared, further, probes = compared_metrics(results), results["further"], probe_metrics(results)
    differences = probe_differences(results)
    shared = [name for name in compared if any(name in entries for entries in differences.values())]
    zero_shot = {"all prompts": results["zero_shot"]}
    if results["zero_shot_first_prompt"]:
        zero_shot["first prompt of each class"] = results["zero_shot_first_prompt"]
    unseen, asks_unseen = results.get("unseen_wordings", {}), asks_unseen_wordings(results)
    if UNSEEN in further and not asks_unseen:
        zero_shot["unseen wordings"] = further[UNSEEN]
    of_meaning = {f"{name}_retrieval_table": further.get(f"retrieval/{name}") for name in ("pair", "facts")}
    calibration, sets = _calibration_tables(further)
    opening_chart = dict([item for item in OPENING_CHARTS.items() if item[0] in drawn][:1])
    values = {
        **opening_values(results),
        "summary": run_summary(results),
        "opening_chart": opening_chart,
        "baselines": list(results["baselines"]),
        "left_out_baselines": left_out_baselines(results),
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
        "prompts": {} if asks_unseen else results["prompts"],
        "wordings_table": wordings_table(results),
        "polarity_table": polarity_table(results),
        "exclusive": "macro_f1" in results["zero_shot"] and "macro_auroc" not in results["zero_shot"],
        "alike": alike_note(results),
        "asked": asked_in_words(unseen),
        "unseen_wordings": unseen,
        "grades_table": grades_table(further),
        "flipped": any("flip_agreement" in entries for entries in further.values()),
        "retrieval_table": retrieval_table(results["retrieval"]),
        **{name: retrieval_table(entries) if entries else "" for name, entries in of_meaning.items()},
        "probe_metrics_table": metrics_table(probes),
        "undefined": undefined_notes(_all_entries(results)),
        "drawn": [name for name in drawn if name not in opening_chart],
    }
    return fill_template(TEMPLATES / "run_report.md.jinja", values) + "\n"


def asks_unseen_wordings(results: Mapping[str, Any]) -> bool:
    """Whether the prompts of the checkpoint are the unseen wordings, as those of a new one are."""
    unseen = results.get("unseen_wordings", {})
    return bool(unseen) and all(
        texts == unseen.get(label, {}).get(side)
        for label, asked in results["prompts"].items()
        for side, texts in asked.items()
    )


def run_summary(results: Mapping[str, Any]) -> list[Markdown]:
    """Say in a few lines what the probe, the prompts and retrieval reach; empty lines are left out."""
    return [
        Markdown(line)
        for line in (
            _probe_in_words(results),
            _prompts_in_words(results),
            _unseen_in_words(results),
            _grades_in_words(results["further"]),
            _retrieval_in_words(results),
        )
        if line
    ]


def _probe_in_words(results: Mapping[str, Any]) -> str:
    """Say what the linear probe reaches, and whether it leads the best baseline, if systems can be ranked."""
    compared = compared_metrics(results)
    if not compared:
        return ""
    metric, probes, differences = _leading(compared), probe_metrics(results), probe_differences(results)
    line = f"Linear probe on frozen image features: {readable(metric)} {format_entry(probes[MODEL][metric])}"
    if metric not in GRADE_KAPPAS and "grade_quadratic_kappa" in probes[MODEL]:
        line += f", quadratic kappa of the grade {format_entry(probes[MODEL]['grade_quadratic_kappa'])}"
    others = {name: of[metric]["value"] for name, of in probes.items() if name != MODEL and metric in of}
    defined = {name: value for name, value in others.items() if value is not None}
    if not defined:
        return f"{line}."
    best = max(defined, key=lambda name: defined[name])
    difference = differences[f"{MODEL} − {best}"].get(metric, {"value": None, "low": None})
    if difference["low"] is None:
        return f"{line}."
    told = "ahead of" if difference["low"] > 0 else "behind" if difference["high"] < 0 else "not told apart from"
    words = f"{best} ({format_entry(probes[best][metric])}), by {format_entry(difference)}"
    return f"{line}. In {readable(metric)} it is {told} the best baseline, {words}."


def _leading(compared: list[str]) -> str:
    """Choose the metric that a summary tells: AUROC of findings, else the first."""
    return "macro_auroc" if "macro_auroc" in compared else compared[0]


def _prompts_in_words(results: Mapping[str, Any]) -> str:
    """Say what prompts reach without labels, and how often prediction sets answer."""
    shown = [name for name in compared_metrics(results) if name in results["zero_shot"]]
    if not shown:
        return ""
    metric = _leading(shown)
    by = "by wordings that no training used" if asks_unseen_wordings(results) else "by prompts"
    line = f"Zero-shot, {by}: {readable(metric)} {format_entry(results['zero_shot'][metric])}"
    sets = results["further"].get("calibration/zero_shot", {})
    answered, right = (sets.get(f"class_conditional/{name}") for name in ("answered", "accuracy_if_answered"))
    if not answered:
        return f"{line}."
    if answered["value"] is None:
        return f"{line}. Prediction sets are {format_entry(answered)}."
    accuracy = "" if right is None or right["value"] is None else f", and {right['value']:.0%} of those are right"
    return f"{line}. Prediction sets answer {answered['value']:.0%}{accuracy}."


def _unseen_in_words(results: Mapping[str, Any]) -> str:
    """Say what a single unseen wording gives."""
    compared = compared_metrics(results)
    return unseen_in_words(results, _leading(compared)) if compared else ""


def _grades_in_words(further: Mapping[str, Mapping[str, Entry]]) -> str:
    """Say how well prompts tell the grade, and the image beside the texts that it resembles."""
    found = {name: entries for name in ("prompts", "fusion") if (entries := further.get(f"grade_by/{name}"))}
    told = [
        f"by {GRADED_BY[name]}, quadratic kappa {format_entry(entries['quadratic_kappa'])} and accuracy "
        f"{format_entry(entries['accuracy'])}"
        for name, entries in found.items()
    ]
    return f"Grade {'; '.join(told)}." if told else ""


def _retrieval_in_words(results: Mapping[str, Any]) -> str:
    """Say how often a report finds its image among the first ten, next to chance."""
    entry = results["retrieval"].get("text_to_image_recall_at_10")
    chance = results["retrieval"].get("text_to_image_chance_at_10")
    if entry is None or chance is None or chance["value"] is None:
        return ""
    if chance["value"] > CERTAIN_CHANCE:
        return "Retrieval: so few images that chance finds each of them among the first ten."
    found = f"{format_entry(entry)} of cases (chance {chance['value']:.3f})"
    return f"Retrieval: a report finds its image among the first ten in {found}."


def _all_entries(results: Mapping[str, Any]) -> list[Mapping[str, Entry]]:
    """List every group of entries that a table of the report shows."""
    parts = ("linear_probe",) if too_few_in_words(results["dataset"]) else ("linear_probe", "difference")
    baselines = [of[part] for of in results["baselines"].values() for part in parts]
    shown = [results[name] for name in ("linear_probe", "zero_shot", "zero_shot_first_prompt", "retrieval")]
    return [*shown, *baselines, *results["further"].values()]


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
        "too_few": too_few_in_words(data),
        "data": data,
        "where": describe_dataset(data),
        "start_warning": start_warning(data.get("start")),
        "scope": scope_line(results.get("scope")),
        "label_table": counts_table("label", data["labels"]) if data["labels"] else "",
        "command": results["command"],
        "date": results["date"],
    }


def too_few_in_words(data: Mapping[str, Any]) -> str:
    """Say that systems measured on so few patients are not ranked; empty if they are enough.

    Example:
        >>> too_few_in_words({"num_patients": 30, "num_labelled_patients": 4})
        'Too few to rank: 4 patients, and a comparison needs 20'
    """
    too_few = too_few_to_rank(data.get("num_labelled_patients") or data["num_patients"])
    return too_few[:1].upper() + too_few[1:]


def left_out_baselines(results: Mapping[str, Any]) -> dict[str, str]:
    """Say why a baseline could not be had, by its name in the report; older results do not know."""
    return {SYSTEM_NAMES[name]: reason for name, reason in results.get("left_out_baselines", {}).items()}


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
        f"{scope['num_patients']} patients measured here, a share of {format_entry(scope['held_back'])} is held back; "
        "its interval counts patients."
    )


def describe_dataset(data: Mapping[str, Any]) -> str:
    """Name a dataset, its split and its size, and say if it is synthetic.

    Example:
        >>> describe_dataset({"name": "demo", "split": "test", "num_rows": 12, "num_patients": 2, "synthetic": True})
        'demo (synthetic), test: 12 images of 2 patients'
    """
    synthetic = " (synthetic)" if data["synthetic"] else ""
    images, patients = (
        counted(data[f"num_{name}"], word) for name, word in (("rows", "image"), ("patients", "patient"))
    )
    return f"{data['name']}{synthetic}, {data['split']}: {images} of {patients}"


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
    return systems_table(rows, [name for name in compared if name not in GRADE_KAPPAS]) if len(rows) > 1 else ""


def grades_table(further: Mapping[str, Mapping[str, Entry]]) -> str:
    """Compare the ways of telling the grade; empty where there are no grades."""
    found = {words: entries for name, words in GRADED_BY.items() if (entries := further.get(f"grade_by/{name}"))}
    return metrics_table(found) if found else ""


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
        [
            classifier,
            readable(metric),
            *reasons_once([format_entry(entries.get(f"{state}/{metric}")) for state in STATES]),
        ]
        for classifier, entries in by_classifier.items()
        for metric in SCALED
    ]
    names = dict.fromkeys(name for entries in by_classifier.values() for name in entries)
    in_sets = [name.removeprefix("marginal/") for name in names if name.startswith("marginal/")]
    sets = [
        [classifier, words, *reasons_once([format_entry(entries.get(f"{kind}/{name}")) for name in in_sets])]
        for classifier, entries in by_classifier.items()
        for kind, words in SET_KINDS.items()
    ]
    scaled_table = markdown_table(["classifier", "metric", "before", "after", "change"], scaled)
    return scaled_table, markdown_table(["classifier", "coverage", *map(readable, in_sets)], sets)
