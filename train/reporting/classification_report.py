"""The report of a fine-tuned classifier: `metrics.json` in words and tables."""

from collections.abc import Mapping
from typing import Any

from train.reporting.report import describe_dataset, warnings_of
from train.reporting.tables import markdown_table, metrics_table, systems_table, undefined_notes

SYSTEMS = {"fine_tuned": "fine-tuned", "linear_probe": "linear probe, tower as it was", "majority": "majority class"}
HEADLINES = (
    "macro_f1",
    "macro_auroc",
    "balanced_accuracy",
    "accuracy",
    "minority_recall",
    "grade_quadratic_kappa",
    "grade_mean_absolute_error",
)

CALIBRATION = (
    *(
        f"{state}/{name}"
        for name in ("expected_calibration_error", "brier_score", "negative_log_likelihood")
        for state in ("uncalibrated", "calibrated", "change")
    ),
    *(f"class_conditional/{name}" for name in ("coverage", "answered", "accuracy_if_answered")),
)


def classification_report(results: Mapping[str, Any], captions: Mapping[str, str]) -> str:
    """Write the report.

    Args:
        results: The content of `metrics.json`.
        captions: Of each figure, by its file name in `figures/`.

    Returns:
        Markdown.
    """
    data, figures = results["dataset"], results["figures"]
    compared = [name for name in HEADLINES if name in figures["fine_tuned"]]
    notes = undefined_notes({"fine_tuned": figures["fine_tuned"]})
    labels = [[name, str(counts["rows"]), str(counts["patients"])] for name, counts in data["labels"].items()]
    sections = [
        f"# Classification ({results['target']}) on {describe_dataset(data)}",
        "Research use only: not for diagnosis, and not for any decision about a patient.",
        warnings_of(data),
        "Brackets hold 95 % intervals: bootstrap over patients, not images. Weights, the epoch to stop at and the "
        f"temperature come from training and validation patients; the weights are those of epoch "
        f"{results['training']['best_epoch']} of {results['training']['epochs']}.",
        systems_table({SYSTEMS[name]: figures[name] for name in SYSTEMS}, compared),
        "Fine-tuned less linear probe, on the same resampled patients:",
        metrics_table({"difference": results["difference"]}),
        "## Patients\n\nThe mean over the images of a patient.\n\n"
        + systems_table(
            {SYSTEMS["fine_tuned"]: results["patients"]}, [n for n in compared if n in results["patients"]]
        ),
        "## Calibration\n\nA temperature fitted on validation patients is saved with the checkpoint, and used: "
        + ", ".join(f"{name} {value:.3g}" for name, value in results["class_temperatures"].items())
        + ".\n\n"
        + metrics_table({"test patients": {n: e for n, e in results["calibration"].items() if n in CALIBRATION}}),
        "## Labels of the split\n\nA figure that rests on few patients says little.\n\n"
        + markdown_table(["label", "images", "patients"], labels),
        "## All figures\n\n" + metrics_table({SYSTEMS[name]: figures[name] for name in SYSTEMS}),
        "## Undefined figures\n\n" + "\n".join(f"- {note}" for note in notes) if notes else "",
        "## Figures\n\n" + "\n\n".join(f"![{caption}](figures/{name})" for name, caption in captions.items()),
        f"## Command\n\n```sh\n{results['command']}\n```\n\n{results['date']}",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"
