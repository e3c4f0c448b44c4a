"""The report of an evaluation: `metrics.json` in words and tables."""

from collections.abc import Mapping
from typing import Any

from train.reporting import further_sections
from train.reporting.tables import markdown_table, metrics_table, retrieval_table, systems_table, undefined_notes

MODEL = "LumbarCLIP"
SYSTEM_NAMES = {
    "majority": "majority class",
    "untrained": "untrained encoder",
    "pixel_pca": "pixel PCA",
    "hog": "HOG",
    "no_pixels": "no pixels",
}
# One column each in the tables that set systems beside each other; those a data set lacks are left out.
COMPARED = ("macro_f1", "macro_auroc", "balanced_accuracy", "accuracy", "minority_recall", "grade_quadratic_kappa")
# What `run_folder.describe_start` found of the rows that the starting weights were trained on.
START_IN_WORDS = {
    "unknown": "Whether its starting weights saw these test patients is unknown.",
    "other": "Its starting weights were trained on other rows, which may hold these test patients.",
}


def evaluation_report(results: Mapping[str, Any], figures: Mapping[str, str]) -> str:
    """Write the report of an evaluation.

    Args:
        results: The content of `metrics.json`.
        figures: Caption of each figure by its file name in `figures/`.

    Returns:
        Markdown.
    """
    data = results["dataset"]
    sections = [
        f"# Evaluation on {describe_dataset(data)}",
        "Research use only: not for diagnosis, and not for any decision about a patient.",
        warnings_of(data),
        "Brackets hold 95 % intervals: bootstrap over patients, not images. No test row was seen in fitting.",
        _probe_section(results),
        further_sections.probes_section(results, compared_metrics(results)),
        further_sections.patients_section(results, compared_metrics(results)),
        further_sections.calibration_section(results),
        _zero_shot_section(results),
        "## Retrieval\n\nAn image searches the distinct reports, a report the images. A report word for word the same "
        "counts as a hit; a tie counts as a miss.\n\n" + retrieval_table(results["retrieval"]),
        further_sections.retrieval_section(results),
        "## Labels of the split\n\nA figure that rests on few patients says little.\n\n" + _label_table(data),
        "## All figures of the probe\n\n" + metrics_table(_probe_columns(results)),
        _notes(results),
        "## Figures\n\n" + "\n\n".join(f"![{caption}](figures/{name})" for name, caption in figures.items()),
        f"## Command\n\n```sh\n{results['command']}\n```\n\n{results['date']}",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def describe_dataset(data: Mapping[str, Any]) -> str:
    """Name a data set, its split and its size; say so when it is synthetic.

    Example:
        >>> describe_dataset({"name": "demo", "split": "test", "num_rows": 12, "num_patients": 2, "synthetic": True})
        'demo (synthetic), test: 12 images of 2 patients'
    """
    synthetic = " (synthetic)" if data["synthetic"] else ""
    return f"{data['name']}{synthetic}, {data['split']}: {data['num_rows']} images of {data['num_patients']} patients"


def compared_metrics(results: Mapping[str, Any]) -> list[str]:
    """Metrics of the linear probe that set systems beside each other on this data set."""
    return [name for name in COMPARED if name in results["linear_probe"]]


def warnings_of(data: Mapping[str, Any]) -> str:
    """What a reader must know of the data before any figure."""
    lines = []
    if data["synthetic"]:
        lines.append("The images and reports are synthetic: drawn and worded by a program, not taken from patients.")
    if data["leak"]:
        lines.append(f"**Leak**: {data['leak']['in_words']} These figures are too good.")
    if (start := data.get("start")) and start["rows"] in START_IN_WORDS:
        lines.append(f"**Starting weights**: {START_IN_WORDS[start['rows']]} These figures may be too good.")
    return "\n\n".join(lines)


def _probe_columns(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    baselines = {SYSTEM_NAMES[name]: entry["linear_probe"] for name, entry in results["baselines"].items()}
    return {MODEL: results["linear_probe"], **baselines}


def _probe_section(results: Mapping[str, Any]) -> str:
    compared = compared_metrics(results)
    parts = [
        "## Linear probe\n\nThe same logistic regression (ridge regression for grades) on the frozen features of each "
        "system; strength of regularisation chosen on the validation patients, then fitted on training and "
        "validation patients.",
        systems_table(_probe_columns(results), compared),
        "Untrained encoder: the same towers with random weights. Pixel PCA, HOG: of 64 x 64 grey thumbnails. No "
        "pixels: sequence, level, plane and size of the image alone."
        if results["baselines"]
        else "",
    ]
    differences = {
        f"{MODEL} − {SYSTEM_NAMES[name]}": entry["difference"] for name, entry in results["baselines"].items()
    }
    if differences:
        shown = [name for name in compared if any(name in entries for entries in differences.values())]
        parts += [
            "Differences on the same rows and the same resampled patients; an interval above 0 says that the "
            "pretrained features hold more.",
            systems_table(differences, shown),
        ]
    return "\n\n".join(parts)


def _zero_shot_section(results: Mapping[str, Any]) -> str:
    parts = [
        "## Zero-shot\n\nBy prompts alone, no training on the labels.",
        further_sections.zero_shot_table(results, compared_metrics(results)),
        metrics_table({MODEL: results["zero_shot"]}),
        "Asked with these sentences:\n\n" + further_sections.prompts_list(results["prompts"]),
    ]
    return "\n\n".join(parts)


def _label_table(data: Mapping[str, Any]) -> str:
    rows = [[name, str(counts["rows"]), str(counts["patients"])] for name, counts in data["labels"].items()]
    return markdown_table(["label", "images", "patients"], rows)


def _notes(results: Mapping[str, Any]) -> str:
    groups = {"linear_probe": results["linear_probe"], "zero_shot": results["zero_shot"]}
    notes = undefined_notes(groups)
    return "## Undefined figures\n\n" + "\n".join(f"- {note}" for note in notes) if notes else ""
