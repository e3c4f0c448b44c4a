"""Lay out the tables of an experiment's report from `results.json`; each is empty where there is nothing to show."""

from collections.abc import Mapping, Sequence
from typing import Any

from data_scripts.system.markdown import Markdown, markdown_table
from train.evaluation.statistics.spreads import POLARITY, SINGLE, SPREAD_NAMES, UNSEEN, spread_name
from train.reporting.experiment.paper import TABLE_2, backbone_family, format_printed, paper_row, printed_values
from train.reporting.run_report import GRADED_BY, PROBE_TITLES, SYSTEM_NAMES
from train.reporting.tables import Entry, format_entry, readable, reasons_once

HEADLINE_COLUMNS = (
    *("macro_auroc", "macro_average_precision", "accuracy", "macro_f1", "balanced_accuracy", "minority_recall"),
    *("auroc", "expected_calibration_error"),
    *("macro_iou", "macro_image_dice", "macro_hausdorff_95_mm", "macro_hausdorff_95_pixels"),
    *("macro_surface_distance_mm", "macro_surface_distance_pixels", "macro_missed"),
)
METRIC_NAMES = {
    "quadratic_kappa": "quadratic kappa of the grade",
    "image_to_text_recall_at_10": "retrieval image to text, R@10",
    "text_to_image_recall_at_10": "retrieval text to image, R@10",
    "macro_auroc_mean": "zero-shot macro AUROC of one unseen wording",
    "macro_f1_mean": "zero-shot macro F1 of one unseen wording",
    "polarity_accuracy": "polarity accuracy",
    "macro_image_dice": "macro Dice, mean over images",
    "macro_hausdorff_95_mm": "95 % Hausdorff, mm",
    "macro_hausdorff_95_pixels": "95 % Hausdorff, pixels",
    "macro_surface_distance_mm": "surface distance, mm",
    "macro_surface_distance_pixels": "surface distance, pixels",
    "macro_missed": "images that miss a class",
}
# Corrections of class imbalance: heading of a column, and the group of metrics behind it.
IMBALANCE_CORRECTIONS = {
    "none": "probe/paper/unprojected",
    "class-balanced loss": "probe/paper_balanced/unprojected",
    "logit-adjusted loss": "probe/paper_logit_adjusted/unprojected",
    "threshold of the validation patients": "decision/paper_threshold/unprojected",
}
HEADS = ("linear", "nonlinear")
MAX_REASON = 300


def metric_name(metric: str, group: str = "") -> str:
    """Name a compared metric; the same metric of the grade has several groups, by what reads the grade.

    Example:
        >>> metric_name("quadratic_kappa"), metric_name("accuracy", "grade_by/fusion")
        ('quadratic kappa of the grade', 'accuracy of the grade by image and text fused')
    """
    graded_by = GRADED_BY.get(group.removeprefix("grade_by/"))
    if graded_by is None:
        return METRIC_NAMES.get(metric, readable(metric))
    return f"{readable(metric)} of the grade by {graded_by}"


def everything(results: Mapping[str, Any]) -> dict[str, Any]:
    """Join systems and baselines, by title."""
    return {**results["systems"], **results["baselines"]}


def metric_of(system: Mapping[str, Any], group: str, metric: str) -> Entry | None:
    """Look up one metric of a system; None where it has none."""
    return system["metrics"].get(group, {}).get(metric)


def title_of(title: str, system: Mapping[str, Any]) -> str:
    """Name a system or baseline; mark a system with missing runs."""
    cost = system.get("cost")
    if cost and cost["num_finished"] < cost["num_runs"]:
        return f"{title} ({cost['num_finished']} of {cost['num_runs']} runs)"
    return SYSTEM_NAMES.get(title, title)


def headline_table(results: Mapping[str, Any]) -> str:
    """List every system and baseline by the headline probe, with the standard deviation over seeds."""
    group, metric = results["headline"]["group"], results["headline"]["metric"]
    systems = everything(results)
    columns = {(group, metric): metric_name(metric)}
    columns |= {(group, name): metric_name(name) for name in HEADLINE_COLUMNS if _any_has(systems, group, name)}
    columns = dict(sorted(columns.items(), key=lambda column: column[0] != (group, metric)))
    for probe in ("grade", "ordinal_grade"):
        if _any_has(systems, f"{probe}/unprojected", "quadratic_kappa"):
            columns[f"{probe}/unprojected", "quadratic_kappa"] = readable(f"{probe}_quadratic_kappa")
    rows = _rows(systems, columns)
    entries = [metric_of(system, group, metric) or {} for system in systems.values()]
    spreads = [entry.get("standard_deviation_of_seeds") for entry in entries]
    header = ["system", *columns.values()]
    if any(spread is not None for spread in spreads):
        header.append(f"SD of seeds, {metric_name(metric)}")
        rows = [[*row, "-" if spread is None else f"{spread:.3f}"] for row, spread in zip(rows, spreads, strict=True)]
    return markdown_table(header, rows)


def comparison_table(results: Mapping[str, Any], group: str, metric: str) -> str:
    """Compare each system and baseline with the reference, and with the highest system if that is another one.

    A row gives a compared metric of a system, and for each comparison the difference, its p-value, and the p-value
    after Holm's correction.
    """
    of_metric = [entry for entry in results["comparisons"] if (entry["group"], entry["metric"]) == (group, metric)]
    found = {entry["to"]: entry for entry in of_metric}
    reference = {
        title: e for to in ("systems", "baselines") if to in found for title, e in found[to]["differences"].items()
    }
    compared = {results["headline"]["reference"]: reference} if reference else {}
    if "best" in found and found["best"]["first"] not in compared:
        of_baselines = found.get("baselines of the best", {"differences": {}})
        compared[found["best"]["first"]] = {**found["best"]["differences"], **of_baselines["differences"]}
    header, rows = ["system", metric_name(metric, group)], []
    for first in compared:
        header += [f"{first} − system", "p", "p after Holm"]
    for title, system in everything(results).items():
        entry = metric_of(system, group, metric)
        if entry is not None:
            differences = []
            for pair in (of_first.get(title) for of_first in compared.values()):
                ps = ["-" if not pair or pair[p] is None else f"{pair[p]:.3f}" for p in ("p", "p_holm")]
                differences += [format_entry(pair), *ps]
            rows.append([title_of(title, system), format_entry(entry), *differences])
    return markdown_table(header, rows)


def table_2(results: Mapping[str, Any]) -> tuple[str, bool]:
    """Lay out the paper's Table 2, in percent; say whether it shows the paper's own numbers, too."""
    group, names = results["headline"]["group"], ("accuracy", "precision", "recall", "f1")
    if not _any_has(results["systems"], group, "precision"):
        return "", False
    rows, taken = [], set()
    for title, system in results["systems"].items():
        row = paper_row(system["settings"])
        printed = ["-", "-"]
        if row and row not in taken:  # if several match, the first in the experiment's file
            taken.add(row)
            printed = [row, ", ".join(f"{value:.2f}" for value in TABLE_2[row])]
        cells = [_percent(metric_of(system, group, name)) for name in names]
        rows.append([title_of(title, system), *cells, *printed])
    header = ["system", *map(readable, names), "row of the paper", "its accuracy, precision, recall, F1"]
    if not taken:
        header, rows = header[:-2], [row[:-2] for row in rows]
    return markdown_table(header, rows), bool(taken)


def systems_by_head(results: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Mapping[str, Entry]]]]:
    """Arrange the LumbarCLIP systems as the paper's figures 3 and 4 do.

    Returns:
        Metrics of the headline probe by head (`none`, `linear`, `nonlinear`), backbone and width. Of systems that
        differ only in something else, the first counts.
    """
    arranged: dict[str, dict[str, dict[str, Mapping[str, Entry]]]] = {}
    for system in results["systems"].values():
        settings, metrics = system["settings"], system["metrics"].get(results["headline"]["group"], {})
        if settings["system"] == "lumbarclip" and set(head_metrics(results)) & set(metrics):
            backbone = backbone_family(settings["vision"]) or settings["vision"]
            of_head = arranged.setdefault(settings["projection"], {}).setdefault(backbone, {})
            of_head.setdefault(str(settings["projection_dim"]), metrics)
    return arranged


def head_metrics(results: Mapping[str, Any]) -> tuple[str, str]:
    """Name the metrics of the paper's figures 3 and 4, or the nearest ones where rows have several findings."""
    return ("accuracy", "macro_f1") if results["headline"]["exclusive"] else ("macro_auroc", "macro_f1")


def heads_table(results: Mapping[str, Any]) -> str:
    """List the contents of the paper's figures 3 (no heads) and 4 (heads by kind and width)."""
    arranged, shown, rows = systems_by_head(results), head_metrics(results), []
    for head in ("none", *HEADS):
        for backbone, widths in arranged.get(head, {}).items():
            for width, metrics in widths.items():
                paper = format_printed(printed_values(backbone, head, int(width)))
                cells = [format_entry(metrics.get(name)) for name in shown]
                paper = paper if results["headline"]["exclusive"] else "-"
                rows.append([backbone, head, width if head != "none" else "-", *cells, paper])
    if len(rows) < 2:
        return ""
    header = ["backbone", "heads", "width", *map(metric_name, shown), "paper: accuracy, macro F1"]
    if all(row[-1] == "-" for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    return markdown_table(header, rows)


def findings_table(results: Mapping[str, Any]) -> str:
    """List the AUROC of each finding."""
    group, systems, labels = results["headline"]["group"], results["systems"], results["dataset"]["labels"]
    rows = [
        [
            label,
            f"{counts['rows']} ({counts['patients']})",
            *reasons_once([format_entry(metric_of(system, group, f"auroc/{label}")) for system in systems.values()]),
        ]
        for label, counts in labels.items()
        if _any_has(systems, group, f"auroc/{label}")
    ]
    header = ["AUROC of", "images (patients)", *(title_of(title, system) for title, system in systems.items())]
    return markdown_table(header, rows) if rows else ""


def masks_tables(results: Mapping[str, Any]) -> dict[str, str]:
    """Compare systems class by class, by what they segment."""
    systems = everything(results)
    tables: dict[str, str] = {}
    for metric in ("dice", "hausdorff_95_mm", "hausdorff_95_pixels"):
        found = {name for system in systems.values() for name in system["metrics"].get("segmentation", {})}
        columns = {
            ("segmentation", name): name.partition("/")[2] for name in sorted(found) if name.startswith(f"{metric}/")
        }
        if columns:
            words = METRIC_NAMES.get(f"macro_{metric}", readable(metric))
            tables[words] = markdown_table(["system", *columns.values()], _rows(systems, columns))
    return tables


def probes_table(results: Mapping[str, Any]) -> str:
    """Compare the headline metric by every probe on every space of features."""
    systems, metric, columns = everything(results), results["headline"]["metric"], {}
    for group in _groups(systems, "probe/"):
        _, probe, features = group.split("/")
        columns[group, metric] = f"{PROBE_TITLES.get(probe, probe)}, {features}"
    return markdown_table(["system", *columns.values()], _rows(systems, columns)) if len(columns) > 1 else ""


def imbalance_tables(results: Mapping[str, Any]) -> dict[str, str]:
    """Show the effect of each imbalance correction on the rare class and on the whole, by metric."""
    shown = ("minority_recall", "macro_f1", "balanced_accuracy", "accuracy")
    return _tables_by_metric(results["systems"], IMBALANCE_CORRECTIONS, shown)


def patients_tables(results: Mapping[str, Any]) -> dict[str, str]:
    """Compare the headline metric by image with that by patient."""
    group, metric = results["headline"]["group"], results["headline"]["metric"]
    pools = {"image by image": group, "patients, mean": "patients/mean", "patients, attention": "patients/attention"}
    return _tables_by_metric(results["systems"], pools, [metric])


def calibration_tables(results: Mapping[str, Any]) -> dict[str, str]:
    """Compare calibration error and Brier score before and after temperature scaling."""
    calibrated = results["headline"]["calibrated"]
    times = {"before": f"probe/{calibrated}", "after": f"calibrated/{calibrated}"}
    tables = _tables_by_metric(results["systems"], times, ("expected_calibration_error", "brier_score"))
    return tables if len(tables) == 2 else {}


def zero_shot_table(results: Mapping[str, Any]) -> str:
    """Compare systems by their zero-shot predictions."""
    systems = {title: system for title, system in results["systems"].items() if "zero_shot" in system["metrics"]}
    columns = {("zero_shot", n): metric_name(n) for n in HEADLINE_COLUMNS if _any_has(systems, "zero_shot", n)}
    return markdown_table(["system", *columns.values()], _rows(systems, columns)) if systems else ""


def wordings_table(results: Mapping[str, Any]) -> str:
    """Compare systems by what they say to words that no training used; each with its spread over the seeds."""
    metric = "macro_f1" if results["headline"]["exclusive"] else "macro_auroc"
    mean, spread, worst = (spread_name(metric, name) for name in SPREAD_NAMES)
    columns = {
        (UNSEEN, metric): f"{metric_name(metric)}, all wordings",
        (SINGLE, mean): "one wording: mean",
        (SINGLE, spread): "SD of wordings",
        (SINGLE, worst): "worst wording",
        (POLARITY, "polarity_accuracy"): "polarity accuracy",
        (POLARITY, "polarity_accuracy_together"): "polarity accuracy, all wordings",
    }
    systems = {title: system for title, system in results["systems"].items() if UNSEEN in system["metrics"]}
    rows = [
        [title_of(title, system), *reasons_once([_with_seeds(metric_of(system, *column)) for column in columns])]
        for title, system in systems.items()
    ]
    return markdown_table(["system", *columns.values()], rows) if systems else ""


def polarity_table(results: Mapping[str, Any]) -> str:
    """Compare systems by the polarity accuracy of each class."""
    systems = {title: system for title, system in results["systems"].items() if POLARITY in system["metrics"]}
    names = dict.fromkeys(name for system in systems.values() for name in system["metrics"][POLARITY])
    columns = {(POLARITY, name): name.partition("/")[2] for name in names if "/" in name}
    return markdown_table(["system", *columns.values()], _rows(systems, columns)) if columns else ""


def _with_seeds(entry: Entry | None) -> Markdown:
    """Write a metric with its interval, and its standard deviation over the seeds, if there are several.

    Example:
        >>> _with_seeds({"value": 0.81, "low": 0.78, "high": 0.83, "standard_deviation_of_seeds": 0.012})
        '0.810 [0.780, 0.830] ± 0.012'
    """
    spread = entry and entry.get("standard_deviation_of_seeds")
    return format_entry(entry) if spread is None else Markdown(f"{format_entry(entry)} ± {spread:.3f}")


def grades_tables(results: Mapping[str, Any]) -> dict[str, str]:
    """Compare systems by what prompts, fused features and the probe tell of the grade."""
    systems = results["systems"]
    tables: dict[str, str] = {}
    for name, words in GRADED_BY.items():
        group = f"grade_by/{name}"
        found = dict.fromkeys(metric for system in systems.values() for metric in system["metrics"].get(group, {}))
        columns = {(group, metric): readable(metric) for metric in found}
        if columns:
            tables[words] = markdown_table(["system", *columns.values()], _rows(systems, columns))
    return tables


def retrieval_tables(results: Mapping[str, Any]) -> dict[str, str]:
    """Compare recall at 1, 5 and 10 both ways, by meaning of a hit; the last row is chance."""
    tables: dict[str, str] = {}
    for group in _groups(results["systems"], "retrieval/"):
        systems = {title: system for title, system in results["systems"].items() if group in system["metrics"]}
        first = next(iter(systems.values()))["metrics"][group]
        columns = {(group, name): readable(name).replace(" recall at ", ", R@") for name in first if "_recall_" in name}
        chances = [first[name.replace("_recall_", "_chance_")]["value"] for _, name in columns]
        rows = [*_rows(systems, columns), ["chance", *(f"{chance:.3f}" for chance in chances)]]
        tables[group.removeprefix("retrieval/")] = markdown_table(["system", *columns.values()], rows)
    return tables


def fold_tables(results: Mapping[str, Any]) -> tuple[str, str]:
    """Lay out the means ± standard deviations over folds, and the sizes of the folds; both empty without folds."""
    folds = results["dataset"].get("folds")
    if not folds:
        return "", ""
    headline = results["headline"]
    compared = [(entry["group"], entry["metric"]) for entry in (headline, *results["comparisons"])]
    names = {(group, metric): metric_name(metric, group) for group, metric in compared}
    means = {title: system.get("mean_over_folds", {}) for title, system in everything(results).items()}
    rows = [
        [
            SYSTEM_NAMES.get(title, title),
            *(format_mean(of.get(group, {}).get(metric), len(folds)) for group, metric in names),
        ]
        for title, of in means.items()
    ]
    sizes = [
        [str(fold["fold"]), *(f"{number} ({fold['num_patients'][s]})" for s, number in fold["num_rows"].items())]
        for fold in folds
    ]
    header = ["fold", *(f"{split} images (patients)" for split in folds[0]["num_rows"])]
    return markdown_table(["system", *names.values()], rows), markdown_table(header, sizes)


def format_mean(entry: Mapping[str, Any] | None, num_folds: int) -> str:
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
        return "not defined: in no fold"
    spread = "" if entry["standard_deviation"] is None else f" ± {entry['standard_deviation']:.3f}"
    folds = "" if entry["n"] == num_folds else f" ({entry['n']} of {num_folds} folds)"
    return f"{entry['value']:.3f}{spread}{folds}"


def cost_table(systems: Mapping[str, Any]) -> str:
    """List what a run of each system took, and the parameters of its model where they are known."""
    has_parameters = any(system["cost"].get("num_parameters") for system in systems.values())
    rows = []
    for title, system in systems.items():
        cost = system["cost"]
        decimals = {"updates": 0, "pairs_seen": 0, "seconds": int((cost["seconds"] or 0) < 10), "pairs_per_second": 0}
        decimals |= {"num_parameters": 0} if has_parameters else {}
        numbers = ["-" if cost[name] is None else f"{cost[name]:,.{places}f}" for name, places in decimals.items()]
        rows.append([title, f"{cost['num_finished']} of {cost['num_runs']}", *numbers])
    header = ["system", "finished runs", "updates", "pairs seen", "seconds of training", "pairs/s"]
    return markdown_table([*header, *(["parameters"] if has_parameters else [])], rows)


def failures_table(runs: Sequence[Mapping[str, Any]]) -> str:
    """List the runs that did not finish, with the reason."""
    rows = []
    for run in runs:
        if run["state"] != "done":
            reason = " ".join(str(run.get("reason") or "unknown").split())[:MAX_REASON]
            fold = "-" if run.get("fold") is None else str(run["fold"])
            rows.append([run["system"], str(run["seed"]), fold, run["state"], reason])
    return markdown_table(["system", "seed", "fold", "state", "reason"], rows) if rows else ""


def _any_has(systems: Mapping[str, Any], group: str, metric: str) -> bool:
    return any(metric_of(system, group, metric) is not None for system in systems.values())


def _groups(systems: Mapping[str, Any], start: str) -> list[str]:
    """List the groups with this prefix, in order of appearance."""
    groups = dict.fromkeys(group for system in systems.values() for group in system["metrics"])
    return [group for group in groups if group.startswith(start)]


def _rows(systems: Mapping[str, Any], columns: Mapping[tuple[str, str], str]) -> list[list[str]]:
    """Write one row for each system, one cell for each group and metric."""
    return [
        [title_of(title, system), *reasons_once([format_entry(metric_of(system, *column)) for column in columns])]
        for title, system in systems.items()
    ]


def _tables_by_metric(systems: Mapping[str, Any], groups: Mapping[str, str], metrics: Sequence[str]) -> dict[str, str]:
    """Lay out a table for each metric, a column for each group that has it; a single column compares nothing."""
    kept = {name: group for name, group in groups.items() if any(_any_has(systems, group, m) for m in metrics)}
    if len(kept) < 2:
        return {}
    return {
        metric_name(metric): markdown_table(
            ["system", *kept], _rows(systems, {(group, metric): name for name, group in kept.items()})
        )
        for metric in metrics
        if any(_any_has(systems, group, metric) for group in kept.values())
    }


def _percent(entry: Entry | None) -> str:
    """Write a metric in percent, with one decimal."""
    if entry is None or entry["value"] is None:
        return format_entry(entry)
    scaled = {name: None if entry[name] is None else 100 * entry[name] for name in ("value", "low", "high")}
    return format_entry(scaled, decimals=1)
