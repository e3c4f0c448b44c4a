"""Cells of an experiment's tables, and which systems and groups have a figure, from `results.json`."""

from collections.abc import Mapping
from typing import Any

from train.reporting.report import SYSTEM_NAMES
from train.reporting.tables import Entry, format_entry

HEADLINE_COLUMNS = (
    "macro_auroc",
    "macro_average_precision",
    "accuracy",
    "macro_f1",
    "balanced_accuracy",
    "minority_recall",
    "auroc",
    "expected_calibration_error",
)


def title_of(title: str, system: Mapping[str, Any]) -> str:
    """Title of a system, or name of a baseline; marked if runs are missing."""
    cost = system.get("cost")
    if cost and cost["num_finished"] < cost["num_runs"]:
        return f"{title} ({cost['num_finished']} of {cost['num_runs']} runs)"
    return SYSTEM_NAMES.get(title, title)


def cell(system: Mapping[str, Any], group: str, metric: str) -> str:
    """One figure of a system as text."""
    return format_entry(system["metrics"].get(group, {}).get(metric))


def percent_cell(entry: Entry | None) -> str:
    """One figure in percent, one decimal."""
    if entry is None or entry["value"] is None:
        return format_entry(entry)
    scaled = {name: None if entry[name] is None else 100 * entry[name] for name in ("value", "low", "high")}
    return format_entry(scaled, decimals=1)


def spread_of_seeds(system: Mapping[str, Any], group: str, metric: str) -> str:
    """Standard deviation over seeds as text; empty where there is none."""
    spread = system["metrics"].get(group, {}).get(metric, {}).get("standard_deviation_of_seeds")
    return "" if spread is None else f"{spread:.3f}"


def any_has(systems: Mapping[str, Any], group: str, metric: str) -> bool:
    """Whether one of the systems has a figure."""
    return any(metric in system["metrics"].get(group, {}) for system in systems.values())


def systems_with(systems: Mapping[str, Any], group: str) -> dict[str, Any]:
    """Those systems that were asked in this way."""
    return {title: system for title, system in systems.items() if group in system["metrics"]}


def groups_of(systems: Mapping[str, Any], start: str) -> list[str]:
    """Names of the groups that start so, in order of appearance."""
    groups = dict.fromkeys(group for system in systems.values() for group in system["metrics"])
    return [group for group in groups if group.startswith(start)]


def capitalised(words: str) -> str:
    """Begin a sentence, leaving abbreviations as they are."""
    return words[0].upper() + words[1:]
