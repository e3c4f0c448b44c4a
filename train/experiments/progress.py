"""How far an experiment is: a table of its systems and an estimate of the time that is left."""

from collections.abc import Mapping, Sequence

import numpy as np

from train.evaluation.statistics import metrics
from train.evaluation.statistics.metrics import Array
from train.evaluation.targets import Targets
from train.experiments.runner import DONE, Summary
from train.experiments.spec import ExperimentRun
from train.reporting.tables import markdown_table

Summaries = Mapping[str, Summary]


def progress_table(
    runs: Sequence[ExperimentRun], summaries: Summaries, figures: Mapping[str, float], metric: str
) -> str:
    """Lay out what each system has done, one line a system.

    Args:
        runs: Of the experiment.
        summaries: By run id, of the runs that have ended.
        figures: By run id, of the runs that have one: see `quick_figure`.
        metric: What the figures are.

    Returns:
        A Markdown table: runs done, those that ended badly, the mean figure of those done, and the seconds of a run.
    """
    rows = []
    for title in dict.fromkeys(run.title for run in runs):
        of_title = [run.run_id for run in runs if run.title == title]
        ended = [summaries[run_id] for run_id in of_title if run_id in summaries]
        done = [summary for summary in ended if summary["state"] == DONE]
        badly = sorted({summary["state"] for summary in ended} - {DONE})
        values = [figures[run_id] for run_id in of_title if run_id in figures]
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
    """Estimate the time that the runs which have not ended will take.

    A run is taken to last as long as those of its system did on average, or as those of all systems before there is
    one of its own.

    Args:
        runs: Of the experiment.
        summaries: By run id, of the runs that have ended.

    Returns:
        Seconds; None before the first run is done.
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
    """Seconds of training and answering."""
    return summary["seconds"] + summary["answering_seconds"]


def in_words(seconds: float) -> str:
    """Say a duration as a person would.

    Example:
        >>> in_words(45), in_words(700), in_words(9000), in_words(400000)
        ('45 s', '12 min', '2.5 h', '4.6 days')
    """
    for unit, length, decimals in (("days", 86400, 1), ("h", 3600, 1), ("min", 60, 0)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.{decimals}f} {unit}"
    return f"{seconds:.0f} s"


def quick_figure(answers: Mapping[str, Array], targets: Targets, headline: str) -> float | None:
    """What the headline probe of one run scores, without an interval.

    Args:
        answers: Of N rows.
        targets: Their truth.
        headline: Probe and features, as PROBE/FEATURES.

    Returns:
        Macro F1 of exclusive classes, macro AUROC of findings, over those that the rows define; None without any.
    """
    probabilities = answers.get(f"probe/{headline}")
    if probabilities is None:
        return None
    if targets.exclusive:
        figure = metrics.macro_f1(targets.classes, probabilities.argmax(1), len(targets.label_names))
    else:
        positives = targets.labels.sum(0)
        defined = (positives > 0) & (positives < len(targets)) & ~np.isnan(probabilities).any(0)
        kept = [k for k in targets.findings if defined[k]]
        if not kept:
            return None
        figure = metrics.macro_auroc(targets.labels[:, kept], probabilities[:, kept])
    return None if np.isnan(figure) else float(figure)
