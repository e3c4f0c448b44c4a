"""The report of a cross-validation: `metrics.json` in words and tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from train.reporting.report import MODEL, SYSTEM_NAMES, describe_dataset, warnings_of
from train.reporting.tables import Entry, format_entry, markdown_table, readable, undefined_notes

# Of these, what the data set has sets systems beside each other: findings, or exclusive classes; then the grade.
HEADLINES = (("macro_auroc",), ("macro_f1", "balanced_accuracy"))
GRADE = "grade_quadratic_kappa"
BY_LABEL = ("auroc/", "f1/")
ZERO_SHOT = f"{MODEL}, zero-shot"


def cross_validation_report(results: Mapping[str, Any]) -> str:
    """Write the report of a cross-validation.

    Args:
        results: The content of `metrics.json`.

    Returns:
        Markdown.
    """
    data = results["dataset"]
    sections = [
        f"# Cross-validation on {describe_dataset(data)}",
        "Research use only: not for diagnosis, and not for any decision about a patient.",
        warnings_of(data),
        "Each image is measured once, by models pretrained and fitted without its patient. *Pooled*: the answers of "
        "all folds together, with 95 % intervals by bootstrap over all patients. *Folds*: mean of the figures of the "
        "single folds ± their standard deviation. Pooled answers come from differently fitted models and are not "
        "perfectly comparable: AUROC ranks an image by its rank within its fold, other figures use the answer itself. "
        "The mean over folds compares answers of one model only, but each on few patients, and "
        "leaves out of a macro mean what the fold lacks.",
        _headline_section(results),
        _label_section(results),
        "## Retrieval\n\nAn image searches the distinct reports of its fold, a report the images of its fold. A report "
        "word for word the same counts as a hit; a tie counts as a miss.\n\n" + _retrieval_table(results),
        "## Folds\n\nSeconds of the training steps; decoding and validation come on top.\n\n" + _fold_table(results),
        _notes(results),
        "![Linear probe, all systems](figures/comparison.png)",
        f"## Command\n\n```sh\n{results['command']}\n```\n\n{results['date']}",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def format_mean(entry: Entry | None, num_folds: int) -> str:
    """Write a mean over folds with its standard deviation, and how many folds define it if not all do.

    Example:
        >>> format_mean({"value": 0.8321, "standard_deviation": 0.0307, "n": 5}, num_folds=5)
        '0.832 ± 0.031'
        >>> format_mean({"value": 0.8321, "standard_deviation": None, "n": 1}, num_folds=5)
        '0.832 (1 of 5 folds)'
    """
    if entry is None:
        return "-"
    if entry["value"] is None:
        return "undefined"
    spread = "" if entry["standard_deviation"] is None else f" ± {entry['standard_deviation']:.3f}"
    folds = "" if entry["n"] == num_folds else f" ({entry['n']} of {num_folds} folds)"
    return f"{entry['value']:.3f}{spread}{folds}"


def headline_metrics(results: Mapping[str, Any]) -> list[str]:
    """Metrics that set systems beside each other on this data set."""
    probe = results["linear_probe"]
    compared = next(names for names in HEADLINES if names[0] in probe)
    return [name for name in (*compared, GRADE) if name in probe]


def _systems(results: Mapping[str, Any]) -> dict[str, Mapping[str, Entry]]:
    """Entries of each system: the pooled ones of `metrics.json`, or those of its part `mean_over_folds`."""
    baselines = {SYSTEM_NAMES[name]: entry["linear_probe"] for name, entry in results["baselines"].items()}
    return {MODEL: results["linear_probe"], ZERO_SHOT: results["zero_shot"], **baselines}


def _headline_section(results: Mapping[str, Any]) -> str:
    shown = headline_metrics(results)
    means, num_folds = results["mean_over_folds"], len(results["folds"])
    parts = [
        "## Systems\n\nLinear probe on the frozen image features of each system (ridge regression for grades), and "
        "the model by prompts alone.",
        _both_table("system", _systems(results), _systems(means), shown, num_folds),
    ]
    differences, mean_differences = (
        {f"{MODEL} − {SYSTEM_NAMES[name]}": entry["difference"] for name, entry in part["baselines"].items()}
        for part in (results, means)
    )
    if differences:
        compared = [name for name in shown if any(name in entries for entries in differences.values())]
        parts += [
            "Differences on the same rows and the same resampled patients; an interval above 0 says that the "
            "pretrained features hold more.",
            _both_table("difference", differences, mean_differences, compared, num_folds),
            "Untrained encoder: the same towers with random weights. Pixel PCA, HOG: of 64 x 64 grey thumbnails. No "
            "pixels: sequence, level, plane and size of the image alone.",
        ]
    return "\n\n".join(parts)


def _both_table(
    heading: str,
    pooled: Mapping[str, Mapping[str, Entry]],
    means: Mapping[str, Mapping[str, Entry]],
    metrics: Sequence[str],
    num_folds: int,
) -> str:
    """One row a system; for each metric the pooled figure and the mean over the folds."""
    header = [heading]
    for metric in metrics:
        header += [f"{readable(metric)}, pooled", f"{readable(metric)}, folds"]
    rows = []
    for name, entries in pooled.items():
        cells = [
            cell
            for metric in metrics
            for cell in (format_entry(entries.get(metric)), format_mean(means[name].get(metric), num_folds))
        ]
        rows.append([name, *cells])
    return markdown_table(header, rows)


def _label_section(results: Mapping[str, Any]) -> str:
    """Figures of each label with the numbers of images and patients that carry it."""
    counts = results["dataset"]["labels"]
    pooled, means = _systems(results), _systems(results["mean_over_folds"])
    prefixes = [prefix for prefix in BY_LABEL if any(name.startswith(prefix) for name in results["linear_probe"])]
    if not prefixes:
        rows = [[label, str(count["rows"]), str(count["patients"])] for label, count in counts.items()]
        return "## Labels\n\n" + markdown_table(["label", "images", "patients"], rows)
    prefix, num_folds = prefixes[0], len(results["folds"])
    tables = []
    for title, systems, write in (
        ("pooled", pooled, format_entry),
        ("folds", means, lambda entry: format_mean(entry, num_folds)),
    ):
        rows = [
            [
                label,
                f"{count['rows']} ({count['patients']})",
                *(write(entries.get(f"{prefix}{label}")) for entries in systems.values()),
            ]
            for label, count in counts.items()
        ]
        tables.append(
            f"{readable(prefix.removesuffix('/'))}, {title}:\n\n"
            + markdown_table(["label", "images (patients)", *systems], rows)
        )
    return "## Labels\n\nA figure that rests on few patients says little.\n\n" + "\n\n".join(tables)


def _retrieval_table(results: Mapping[str, Any]) -> str:
    entries, means = results["retrieval"], results["mean_over_folds"]["retrieval"]
    rows = []
    for name, entry in entries.items():
        if "_recall_" in name:
            direction, depth = name.split("_recall_at_")
            chance = entries[f"{direction}_chance_at_{depth}"]
            mean = format_mean(means[name], len(results["folds"]))
            rows.append([f"{readable(direction)}, R@{depth}", format_entry(entry), mean, f"{chance['value']:.3f}"])
    return markdown_table(["retrieval", "pooled", "folds", "chance"], rows)


def _fold_table(results: Mapping[str, Any]) -> str:
    shown = headline_metrics(results)
    rows = [
        [
            str(fold["fold"]),
            *(
                f"{fold['num_rows'][split]} ({fold['num_patients'][split]})"
                for split in ("train", "validation", "test")
            ),
            f"{fold['training_seconds']:.0f}",
            *(format_entry(fold["linear_probe"].get(metric)) for metric in shown),
        ]
        for fold in results["folds"]
    ]
    header = ["fold", "training images (patients)", "validation", "test", "seconds", *map(readable, shown)]
    return markdown_table(header, rows)


def _notes(results: Mapping[str, Any]) -> str:
    notes = undefined_notes({name: results[name] for name in ("linear_probe", "zero_shot")})
    return "## Undefined figures\n\n" + "\n".join(f"- {note}" for note in notes) if notes else ""
