"""The sections of an experiment's report on each protocol, and on its runs; empty where a protocol was not asked."""

from collections.abc import Mapping
from typing import Any

from train.reporting.experiment.cells import (
    HEADLINE_COLUMNS,
    any_has,
    capitalised,
    cell,
    groups_of,
    systems_with,
    title_of,
)
from train.reporting.experiment.words import PROBE_NAMES, figure_in_words, listed
from train.reporting.tables import markdown_table, readable, undefined_notes

# What is done against the minority problem: what the columns of its tables are called, and the group behind each.
REMEDIES = {
    "as it is": "probe/paper/unprojected",
    "class-balanced loss": "probe/paper_balanced/unprojected",
    "logit-adjusted loss": "probe/paper_logit_adjusted/unprojected",
    "threshold of the validation patients": "decision/paper_threshold/unprojected",
}
WITHOUT_TEXTS = ("supervised", "untrained")
HITS = {"pair": "its own pair", "report": "the same report", "facts": "the same findings"}


def probes_section(results: Mapping[str, Any]) -> str:
    """The headline figure by every probe on every space of features."""
    metric = results["headline"]["metric"]
    everything = {**results["systems"], **results["baselines"]}
    groups = groups_of(everything, "probe/")
    if len(groups) < 2:
        return ""
    header = ["system"]
    for group in groups:
        _, probe, features = group.split("/")
        header.append(f"{PROBE_NAMES.get(probe, probe)}, {features}")
    rows = [
        [title_of(title, system), *(cell(system, group, metric) for group in groups)]
        for title, system in everything.items()
    ]
    return (
        f"{capitalised(figure_in_words(metric))} by every probe. *Unprojected*: z_I, what the vision tower gives and "
        f"downstream tasks use; *projected*: after the head.\n\n{markdown_table(header, rows)}"
    )


def minority_section(results: Mapping[str, Any]) -> str:
    """What each remedy does to the rare class and to the whole."""
    systems = results["systems"]
    remedies = {name: group for name, group in REMEDIES.items() if any(group in s["metrics"] for s in systems.values())}
    if len(remedies) < 2:
        return ""
    shown = ("minority_recall", "macro_f1", "balanced_accuracy", "accuracy")
    metrics = [name for name in shown if any(any_has(systems, group, name) for group in remedies.values())]
    parts = ["The paper's probe, its losses against imbalance, and a threshold chosen on the validation patients."]
    for metric in metrics:
        rows = [
            [title_of(title, system), *(cell(system, group, metric) for group in remedies.values())]
            for title, system in systems.items()
        ]
        parts.append(f"{capitalised(figure_in_words(metric))}:\n\n{markdown_table(['system', *remedies], rows)}")
    return "\n\n".join(parts)


def zero_shot_section(results: Mapping[str, Any]) -> str:
    """By prompts alone."""
    systems = systems_with(results["systems"], "zero_shot")
    columns = [name for name in HEADLINE_COLUMNS if any_has(systems, "zero_shot", name)]
    rows = [[title_of(t, s), *(cell(s, "zero_shot", name) for name in columns)] for t, s in systems.items()]
    if not rows:
        return ""
    table = markdown_table(["system", *map(figure_in_words, columns)], rows)
    parts = ["By prompts alone, no training on the labels.", table, _without_texts(systems)]
    return "\n\n".join(part for part in parts if part)


def retrieval_section(results: Mapping[str, Any]) -> str:
    """Recall at 1, 5 and 10 both ways, one table for each meaning of a hit, chance in the last row."""
    parts = []
    for group in groups_of(results["systems"], "retrieval/"):
        systems = systems_with(results["systems"], group)
        first = next(iter(systems.values()))["metrics"][group]
        names = [name for name in first if "_recall_" in name]
        rows = [[title_of(title, s), *(cell(s, group, name) for name in names)] for title, s in systems.items()]
        chances = [first[name.replace("_recall_", "_chance_")]["value"] for name in names]
        rows.append(["chance", *(f"{chance:.3f}" for chance in chances)])
        header = ["system", *(readable(name).replace(" recall at ", ", R@") for name in names)]
        hits = group.split("/")[1]
        parts.append(f"A hit is {HITS.get(hits, hits)}:\n\n{markdown_table(header, rows)}")
    parts.append(_without_texts(results["systems"]) if parts else "")
    return "\n\n".join(part for part in parts if part)


def patients_section(results: Mapping[str, Any]) -> str:
    """The headline figure by image, and by patient."""
    group, metric = results["headline"]["group"], results["headline"]["metric"]
    pools = {"image by image": group, "patients, mean": "patients/mean", "patients, attention": "patients/attention"}
    return _side_by_side(results, pools, metric, "One answer a patient, pooled over all images of the patient. ")


def calibration_section(results: Mapping[str, Any]) -> str:
    """Calibration error and Brier score before and after temperature scaling."""
    calibrated = results["headline"]["calibrated"]
    times = {"before": f"probe/{calibrated}", "after": f"calibrated/{calibrated}"}
    tables = [_side_by_side(results, times, metric, "") for metric in ("expected_calibration_error", "brier_score")]
    words = (
        "The paper's probe before and after temperature scaling; the temperature was fitted on the validation patients."
    )
    return "\n\n".join([words, *tables]) if all(tables) else ""


def label_section(results: Mapping[str, Any]) -> str:
    """AUROC of each finding."""
    group, systems = results["headline"]["group"], results["systems"]
    labels = [label for label in results["dataset"]["labels"] if any_has(systems, group, f"auroc/{label}")]
    if not labels:
        return ""
    counts = results["dataset"]["labels"]
    rows = [
        [
            label,
            f"{counts[label]['rows']} ({counts[label]['patients']})",
            *(cell(system, group, f"auroc/{label}") for system in systems.values()),
        ]
        for label in labels
    ]
    table = markdown_table(["AUROC of", "images (patients)", *(title_of(t, s) for t, s in systems.items())], rows)
    return f"A figure that rests on few patients says little.\n\n{table}"


def cost_section(results: Mapping[str, Any]) -> str:
    """What a run of each system took."""
    rows = []
    for title, system in results["systems"].items():
        cost = system["cost"]
        decimals = {"updates": 0, "pairs_seen": 0, "seconds": int((cost["seconds"] or 0) < 10), "pairs_per_second": 0}
        numbers = ["-" if cost[name] is None else f"{cost[name]:,.{places}f}" for name, places in decimals.items()]
        rows.append([title, f"{cost['num_finished']} of {cost['num_runs']}", *numbers])
    header = ["system", "finished runs", "updates", "pairs seen", "seconds of training", "pairs/s"]
    return "Mean over the finished runs.\n\n" + markdown_table(header, rows)


def failures_section(results: Mapping[str, Any]) -> str:
    """Runs that did not finish, with the reason."""
    rows = [
        [
            run["system"],
            str(run["seed"]),
            "-" if run.get("fold") is None else str(run["fold"]),
            run["state"],
            _code(run),
        ]
        for run in results["runs"]
        if run["state"] != "done"
    ]
    return markdown_table(["system", "seed", "fold", "state", "reason"], rows) if rows else ""


def undefined_section(results: Mapping[str, Any]) -> str:
    """Why figures are undefined."""
    groups = {
        f"{title} {group}": figures
        for part in ("systems", "baselines")
        for title, system in results[part].items()
        for group, figures in system["metrics"].items()
    }
    notes = undefined_notes(groups)
    for title, names in results["left_out_answers"].items():
        notes.append(f"{title}: left out, since not all folds have it: {', '.join(f'`{name}`' for name in names)}.")
    return "\n".join(f"- {note}" for note in notes)


def _without_texts(systems: Mapping[str, Any]) -> str:
    """Name the references whose image and text spaces were never brought together."""
    titles = [title for title, of in systems.items() if of["settings"]["system"] in WITHOUT_TEXTS and of["metrics"]]
    learned = "has not learned to bring images and texts together: its row shows"
    if len(titles) > 1:
        learned = "have not learned to bring images and texts together: their rows show"
    return f"{listed(titles)} {learned} chance." if titles else ""


def _side_by_side(results: Mapping[str, Any], columns: Mapping[str, str], metric: str, words: str) -> str:
    """One figure, a column for each group that has it; nothing if there is but one."""
    systems = results["systems"]
    kept = {name: group for name, group in columns.items() if any_has(systems, group, metric)}
    if len(kept) < 2:
        return ""
    rows = [[title_of(t, s), *(cell(s, group, metric) for group in kept.values())] for t, s in systems.items()]
    return f"{words}{capitalised(figure_in_words(metric))}:\n\n{markdown_table(['system', *kept], rows)}"


def _code(run: Mapping[str, Any]) -> str:
    """The reason as code: an error may hold `<`, which Markdown would take for HTML."""
    reason = " ".join(str(run.get("reason") or "unknown").split()).replace("`", "'")
    return f"`{reason[:300]}`"
