"""Tell what the wording of a question does to zero-shot, in tables and in words, from `metrics.json`.

Each is empty for metrics that were measured before unseen wordings were asked.
"""

from collections.abc import Mapping
from typing import Any

from data_scripts.system.markdown import Markdown, markdown_table
from train.evaluation.statistics.minima import counted
from train.evaluation.statistics.spreads import (
    POLARITY,
    SINGLE,
    SPREAD_NAMES,
    UNSEEN,
    alike,
    alike_in_words,
    spread_name,
)
from train.reporting.tables import Entry, format_entry, readable, reasons_once

MACRO_POLARITY, POLARITY_TOGETHER = "polarity_accuracy", "polarity_accuracy_together"
OVER_FINDINGS = {
    MACRO_POLARITY: "mean over the findings",
    POLARITY_TOGETHER: "mean over the findings, all wordings together",
}


def wordings_table(results: Mapping[str, Any]) -> Markdown:
    """List the mean, standard deviation and worst of each metric over single wordings, beside all of them together."""
    single, together = results["further"].get(SINGLE, {}), results["further"].get(UNSEEN, {})
    names = [metric for metric in together if spread_name(metric, "mean") in single]
    rows = [
        [
            readable(metric),
            *reasons_once(
                [
                    format_entry(entry)
                    for entry in (together[metric], *(single[spread_name(metric, spread)] for spread in SPREAD_NAMES))
                ]
            ),
        ]
        for metric in names
    ]
    header = ["metric", "all together", "one by one: mean", "standard deviation", "worst"]
    return markdown_table(header, rows) if rows else Markdown("")


def polarity_table(results: Mapping[str, Any]) -> Markdown:
    """List the polarity accuracy of each class, beside the cosine of its statement and denial."""
    entries, cosines = results["further"].get(POLARITY, {}), results.get("statement_cosines", {})
    rows = [
        [
            OVER_FINDINGS.get(name, name.partition("/")[2]),
            format_entry(entry),
            f"{cosines[label]:.3f}" if (label := name.partition("/")[2]) in cosines else "",
        ]
        for name, entry in entries.items()
    ]
    header = ["class", "polarity accuracy", "cosine of statement and denial"]
    return markdown_table(header, rows) if rows else Markdown("")


def alike_note(results: Mapping[str, Any]) -> str:
    """Name the classes whose statement and denial the model embeds alike; empty if there is none."""
    found = alike(results.get("statement_cosines", {}))
    return alike_in_words(found) if found else ""


def unseen_in_words(results: Mapping[str, Any], metric: str) -> str:
    """Say what one wording that no training used gives in this metric of zero-shot, and the polarity accuracy."""
    single, polarity = results["further"].get(SINGLE, {}), results["further"].get(POLARITY, {})
    mean, spread, worst = (single.get(spread_name(metric, name)) for name in SPREAD_NAMES)
    if not mean or mean["value"] is None:
        return ""
    line = (
        f"Zero-shot by one wording that no training used, of ten: {readable(metric)} {format_entry(mean)} on average, "
        f"standard deviation {spread['value']:.3f}, worst {format_entry(worst)}."
    )
    accuracy: Entry | None = polarity.get(MACRO_POLARITY)
    if accuracy and accuracy["value"] is not None:
        line += f" Polarity accuracy, statement against denial: {format_entry(accuracy)} (chance: one half)"
        together = polarity.get(POLARITY_TOGETHER)
        line += f", by all ten together {format_entry(together)}." if together else "."
    return line


def asked_in_words(wordings: Mapping[str, Mapping[str, list[str]]]) -> str:
    """Say in how many wordings each class was asked, with the first of each; empty if none was.

    Example:
        >>> asked_in_words({"bulge": {"present": ["A bulge."], "absent": ["No bulge."]}})
        'Each class was asked in 1 statement (“A bulge.”) and 1 denial (“No bulge.”) that no training used.'
    """
    if not wordings:
        return ""
    first = next(iter(wordings.values()))
    most = {side: max(len(of_label[side]) for of_label in wordings.values()) for side in first}
    return (
        f"Each class was asked in {counted(most['present'], 'statement')} (“{first['present'][0]}”) and "
        f"{counted(most['absent'], 'denial')} (“{first['absent'][0]}”) that no training used."
    )
