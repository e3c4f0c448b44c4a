"""Which figures an experiment has, from `results.json` alone."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from train.reporting.experiment.words import figure_in_words
from train.reporting.figures.experiment import cost_chart, difference_chart, forest_chart, heads_chart, reliability_pair
from train.reporting.figures.paper import backbone_family
from train.reporting.report import SYSTEM_NAMES, describe_dataset
from train.reporting.tables import Entry

HEADS = ("linear", "nonlinear")


def draw_charts(results: Mapping[str, Any]) -> dict[str, Figure]:
    """Draw what the experiment has the runs for.

    Args:
        results: The content of `results.json`.

    Returns:
        Figures by file name: `systems.png`, `differences.png`, `no_heads.png` (the paper's figure 3), `heads.png` (its
        figure 4), `reliability.png`, `cost.png`; those without anything to show are not there.
    """
    where = describe_dataset(results["dataset"])
    headline = results["headline"]
    metric, reference = headline["metric"], headline["reference"]
    words = figure_in_words(metric)
    systems, baselines = headline_entries(results)
    chance = None if headline["exclusive"] else 0.5
    charts = {"systems.png": forest_chart(systems, baselines, reference, words, f"{words}\n{where}", chance)}
    differences = {
        SYSTEM_NAMES.get(title, title): entry
        for comparison in results["comparisons"]
        if comparison["to"] in ("systems", "baselines") and comparison["metric"] == metric
        for title, entry in comparison["differences"].items()
    }
    if any(entry["value"] is not None for entry in differences.values()):
        title = f"{reference} against the others\n{where}"
        charts["differences.png"] = difference_chart(differences, reference, words, title)
    charts |= _head_charts(results, where)
    if reliability := _reliability(results, where):
        charts["reliability.png"] = reliability
    costs = {
        title: (results["systems"][title]["cost"]["seconds"], entry)
        for title, entry in systems.items()
        if entry["value"] is not None and results["systems"][title]["cost"]["seconds"]
    }
    if len(costs) > 1:
        charts["cost.png"] = cost_chart(costs, reference, words, f"{words} and training time\n{where}")
    return charts


def headline_entries(results: Mapping[str, Any]) -> tuple[dict[str, Entry], dict[str, Entry]]:
    """The headline figure of each system and of each baseline that has one."""
    group, metric = results["headline"]["group"], results["headline"]["metric"]
    systems, baselines = (
        {
            SYSTEM_NAMES.get(title, title): system["metrics"][group][metric]
            for title, system in results[part].items()
            if metric in system["metrics"].get(group, {})
        }
        for part in ("systems", "baselines")
    )
    return systems, baselines


def systems_by_head(results: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Mapping[str, Entry]]]]:
    """Arrange the LumbarCLIP systems as the paper's figures 3 and 4 do.

    Args:
        results: The content of `results.json`.

    Returns:
        Figures of the headline probe by head (`none`, `linear`, `nonlinear`), backbone and width. Where two systems
        differ in something else alone, the first one stands.
    """
    arranged: dict[str, dict[str, dict[str, Mapping[str, Entry]]]] = {}
    for system in results["systems"].values():
        settings, figures = system["settings"], system["metrics"].get(results["headline"]["group"])
        if settings["system"] == "lumbarclip" and figures:
            backbone = backbone_family(settings["vision"]) or settings["vision"]
            of_head = arranged.setdefault(settings["projection"], {}).setdefault(backbone, {})
            of_head.setdefault(str(settings["projection_dim"]), figures)
    return arranged


def _head_charts(results: Mapping[str, Any], where: str) -> dict[str, Figure]:
    arranged = systems_by_head(results)
    metrics = {name: figure_in_words(name) for name in head_metrics(results)}
    charts = {}
    without = arranged.get("none", {})
    if len(without) > 1:
        panel = {"no heads": {name: {name: next(iter(widths.values()))} for name, widths in without.items()}}
        charts["no_heads.png"] = heads_chart(panel, metrics, "backbone", f"No projection heads\n{where}")
    with_heads = {head: arranged[head] for head in HEADS if head in arranged}
    widths = {width for backbones in with_heads.values() for of_backbone in backbones.values() for width in of_backbone}
    if len(with_heads) > 1 or len(widths) > 1:
        charts["heads.png"] = heads_chart(with_heads, metrics, "width of the heads", f"Projection heads\n{where}")
    return charts


def head_metrics(results: Mapping[str, Any]) -> tuple[str, str]:
    """What the paper's figures 3 and 4 show, or what comes next to it where rows have several findings."""
    return ("accuracy", "macro_f1") if results["headline"]["exclusive"] else ("macro_auroc", "macro_f1")


def _reliability(results: Mapping[str, Any], where: str) -> Figure | None:
    """Of the reference, if its answers were temperature-scaled."""
    reference, calibrated = results["headline"]["reference"], results["headline"]["calibrated"]
    system = results["systems"][reference]
    if "after" not in system["reliability"]:
        return None
    groups = {"before": f"probe/{calibrated}", "after": f"calibrated/{calibrated}"}
    errors = {}
    for when, of_group in groups.items():
        entry = system["metrics"].get(of_group, {}).get("expected_calibration_error")
        errors[when] = "error " + ("undefined" if entry is None or entry["value"] is None else f"{entry['value']:.3f}")
    counted = "images" if results["headline"]["exclusive"] else "answers"
    title = f"{reference}: temperature scaling of the paper's probe\n{where}"
    return reliability_pair(system["reliability"], errors, counted, title)
