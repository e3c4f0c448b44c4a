"""Write the report of a fine-tuned classifier from its `metrics.json`."""

from collections.abc import Collection, Mapping
from typing import Any

from data_scripts.system.markdown import Markdown, markdown_table
from train.reporting.rendering import TEMPLATES, fill_template
from train.reporting.run_report import COMPARED, SCALED, STATES, opening_values
from train.reporting.tables import format_entry, metrics_table, readable, systems_table, undefined_notes

SYSTEMS = {"fine_tuned": "fine-tuned", "linear_probe": "linear probe before fine-tuning", "majority": "majority class"}
COMPARED_OF_CLASSIFIER = (*COMPARED, "grade_mean_absolute_error")
OPENING_CHART = {"reliability.png": "Reliability of the calibrated classifier"}
IN_SETS = ("coverage", "answered", "accuracy_if_answered")


def classifier_report(results: Mapping[str, Any], drawn: Collection[str]) -> str:
    """Write the content of `metrics.json` as Markdown, with the figures that were drawn in `figures/`."""
    by_system = {SYSTEMS.get(name, name): of_system for name, of_system in results["by_system"].items()}
    fine_tuned, patients = results["by_system"]["fine_tuned"], results["patients"]
    compared = [name for name in COMPARED_OF_CLASSIFIER if name in fine_tuned]
    opening_chart = {name: caption for name, caption in OPENING_CHART.items() if name in drawn}
    calibrated = results["calibration"].get("calibrated/expected_calibration_error", {"value": None})
    temperatures = [f"{name} {value:.3g}" for name, value in results["class_temperatures"].items()]
    values = {
        **opening_values(results),
        "summary": classifier_summary(results, compared),
        "opening_chart": opening_chart,
        "no_temperature": calibrated.get("reason") if calibrated["value"] is None else "",
        "target": results["target"],
        "training": results["training"],
        "systems_table": systems_table(by_system, compared),
        "difference_table": metrics_table({"difference": results["difference"]}),
        "mcnemar_table": _mcnemar_table(results.get("mcnemar", {})),
        "patients_table": systems_table(
            {SYSTEMS["fine_tuned"]: patients}, [name for name in compared if name in patients]
        ),
        "temperatures": ", ".join(temperatures),
        "calibration_table": _calibration_table(results["calibration"]),
        "metrics_table": metrics_table(by_system),
        "undefined": undefined_notes([fine_tuned]),
        "drawn": [name for name in drawn if name not in opening_chart],
    }
    return fill_template(TEMPLATES / "classifier_report.md.jinja", values) + "\n"


def classifier_summary(results: Mapping[str, Any], compared: list[str]) -> list[Markdown]:
    """Say in a few lines what the classifier reaches, and what fine-tuning changed."""
    metric = compared[0]
    fine_tuned, probe = (results["by_system"][name][metric] for name in ("fine_tuned", "linear_probe"))
    lines = [f"Fine-tuned: {readable(metric)} {format_entry(fine_tuned)}; linear probe before: {format_entry(probe)}."]
    if (difference := results["difference"].get(metric)) is not None:
        lines.append(f"Fine-tuned minus linear probe, {readable(metric)}: {format_entry(difference)}.")
    if (answered := results["calibration"].get("class_conditional/answered")) is not None:
        lines.append(f"Share of images that prediction sets answer: {format_entry(answered)}.")
    return [Markdown(line) for line in lines]


def _mcnemar_table(compared: Mapping[str, Mapping[str, float]]) -> str:
    """List the images that only one of two systems gets right, with the p-value; empty without exclusive classes."""
    rows = [
        [SYSTEMS.get(name, name), str(of["only_first"]), str(of["only_other"]), f"{of['p']:.3g}", f"{of['p_holm']:.3g}"]
        for name, of in compared.items()
    ]
    headings = ["system", "only fine-tuned right", "only this right", "p", "p, Holm"]
    return markdown_table(headings, rows) if rows else ""


def _calibration_table(entries: Mapping[str, Any]) -> str:
    """List calibration on the test patients before and after scaling, and what the prediction sets contain."""
    scaled = {f"{state} {readable(metric)}": entries.get(f"{state}/{metric}") for metric in SCALED for state in STATES}
    in_sets = {f"class conditional {readable(name)}": entries.get(f"class_conditional/{name}") for name in IN_SETS}
    rows = [[words, format_entry(entry)] for words, entry in (scaled | in_sets).items() if entry]
    return markdown_table(["metric", "test patients"], rows)
