"""The progress of an experiment: a table of its systems and an estimate of the time left."""

from collections.abc import Mapping, Sequence

import numpy as np

from data_scripts.system.markdown import markdown_table
from train.evaluation.label_metrics import label_measures
from train.evaluation.predictions import of_labelled_rows
from train.evaluation.statistics.metrics import Array
from train.evaluation.targets import Targets
from train.experiments.runner import DONE, Summary
from train.experiments.spec import ExperimentRun

Summaries = Mapping[str, Summary]


def progress_table(
    runs: Sequence[ExperimentRun], summaries: Summaries, values_of_runs: Mapping[str, float | None], metric: str
) -> str:
    """Lay out the progress of each system, one per line, as a Markdown table.

    It shows runs done, those that ended badly, the mean of `values_of_runs` (`quick_metric` by run id, called
    `metric`), and the seconds of a run.
    """
    rows = []
    for title in dict.fromkeys(run.title for run in runs):
        of_title = [run.run_id for run in runs if run.title == title]
        ended = [summaries[run_id] for run_id in of_title if run_id in summaries]
        done = [summary for summary in ended if summary["state"] == DONE]
        badly = sorted({summary["state"] for summary in ended} - {DONE})
        values = [value for run_id in of_title if (value := values_of_runs.get(run_id)) is not None]
        rows.append(
            [
                title,
                f"{len(done)} of {len(of_title)}",
                ", ".join(f"{sum(of['state'] == state for of in ended)} {state}" for state in badly) or "-",
                f"{np.mean(values):.3f}" if values else "-",
                f"{np.mean([run_seconds(summary) for summary in done]):.0f}" if done else "-",
            ]
        )
    return markdown_table(["system", "done", "ended badly", metric, "s a run"], rows)


def remaining_seconds(runs: Sequence[ExperimentRun], summaries: Summaries) -> float | None:
    """Estimate the time that the runs which have not ended will take; None before the first run is done.

    A run is assumed to take the average of its system's finished runs, or of all finished runs if its system has none.
    """
    done = [summary for summary in summaries.values() if summary["state"] == DONE]
    if not done:
        return None
    seconds = 0.0
    for run in runs:
        if run.run_id not in summaries:
            alike = [summary for summary in done if summary["system"] == run.title]
            seconds += float(np.mean([run_seconds(summary) for summary in alike or done]))
    return seconds


def run_seconds(summary: Summary) -> float:
    """Add the seconds of training and predicting."""
    return summary["seconds"] + summary["predicting_seconds"]


def in_words(seconds: float) -> str:
    """Format a duration in its largest unit.

    Example:
        >>> in_words(45), in_words(700), in_words(9000), in_words(400000)
        ('45 s', '12 min', '2.5 h', '4.6 days')
    """
    for unit, length, decimals in (("days", 86400, 1), ("h", 3600, 1), ("min", 60, 0)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.{decimals}f} {unit}"
    return f"{seconds:.0f} s"


def quick_metric(predictions: Mapping[str, Array], targets: Targets, headline: str) -> float | None:
    """Measure the headline probe, named PROBE/FEATURES, of one run, without an interval.

    Returns:
        Macro F1 of exclusive classes, macro AUROC of the findings that the rows define; None without any.
    """
    if f"probe/{headline}" not in predictions:
        return None
    of_labelled, targets = of_labelled_rows(predictions, targets)
    value = label_measures(targets, of_labelled[f"probe/{headline}"])[
        "macro_f1" if targets.exclusive else "macro_auroc"
    ].value()
    return None if np.isnan(value) else value
