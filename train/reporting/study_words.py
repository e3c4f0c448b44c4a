"""Who wins, in sentences that follow from the intervals and from nothing else."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from train.reporting.report import SYSTEM_NAMES, describe_dataset
from train.reporting.tables import format_entry, readable

LEVEL = 0.05
MAX_NAMES = 12
WORDS_OF_FIGURES = {
    "quadratic_kappa": "quadratic kappa of the grade",
    "image_to_text_recall_at_10": "retrieval image to text, R@10",
    "text_to_image_recall_at_10": "retrieval text to image, R@10",
}


def figure_in_words(metric: str) -> str:
    """Name a compared figure."""
    return WORDS_OF_FIGURES.get(metric, readable(metric))


def who_wins(results: Mapping[str, Any], metric: str) -> str:
    """Say which system has the highest figure, and against which others its lead is more than chance.

    Args:
        results: The content of `results.json`.
        metric: One of the compared figures.

    Returns:
        One paragraph; empty if nothing was compared by this figure.
    """
    best = _comparison(results, "best", metric)
    if best is None:
        return ""
    title = best["first"]
    entry = results["systems"][title]["figures"][best["group"]][metric]
    sentences = [f"**{title}** has the highest {figure_in_words(metric)}, {format_entry(entry)}."]
    sentences.append(_lead(best, results["num_resamples"]))
    reference = results["headline"]["reference"]
    against = _comparison(results, "systems", metric)
    if title != reference and against is not None:
        sentences.append(_standing(reference, against))
    controls = _comparison(results, "controls", metric)
    if controls is not None:
        sentences.append(f"Among the controls, {_standing(reference, controls)}")
        sentences += _higher_controls(results, best["group"], metric, entry["value"])
    return " ".join(sentences)


def card_text(results: Mapping[str, Any]) -> str:
    """Write what a model card says of a study, with its command, data and date.

    Args:
        results: The content of `results.json`.

    Returns:
        One paragraph of Markdown.
    """
    study = results["study"]
    sentences = [
        f"Study `{study['name']}` on {describe_dataset(results['dataset'])}; {seeds_in_words(study['seeds'])}.",
        who_wins(results, results["headline"]["metric"]),
        "Intervals are 95 %, by bootstrap over patients. Research use only.",
        f"Command: `{results['command']}`, {results['date'][:10]}.",
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def seeds_in_words(seeds: Sequence[int]) -> str:
    """Say over how many seeds figures are averaged.

    Example:
        >>> seeds_in_words([0]), seeds_in_words([0, 1, 2])
        ('one seed', 'mean over 3 seeds')
    """
    return "one seed" if len(seeds) == 1 else f"mean over {len(seeds)} seeds"


def listed(names: Sequence[str]) -> str:
    """Join names as in a sentence.

    Example:
        >>> listed(["A", "B", "C"])
        'A, B and C'
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def named(titles: Sequence[str]) -> str:
    """Join titles of systems; too many to be read are counted, and the tables name them."""
    return listed(titles) if len(titles) <= MAX_NAMES else f"{len(titles)} systems"


def _comparison(results: Mapping[str, Any], to: str, metric: str) -> Mapping[str, Any] | None:
    found = [entry for entry in results["comparisons"] if entry["to"] == to and entry["metric"] == metric]
    return found[0] if found else None


def _higher_controls(results: Mapping[str, Any], group: str, metric: str, highest: float) -> list[str]:
    """Say so if features that nobody learned score more than every system."""
    values = {name: control["figures"].get(group, {}).get(metric) for name, control in results["controls"].items()}
    higher = [
        f"{SYSTEM_NAMES.get(name, name)} ({entry['value']:.3f})"
        for name, entry in values.items()
        if entry and entry["value"] is not None and entry["value"] > highest
    ]
    return [f"No system reaches the control {listed(higher)}."] if higher else []


def _lead(best: Mapping[str, Any], num_resamples: int) -> str:
    """Of the best: against whom the interval of the lead excludes zero, and what is left of it after correction."""
    differences = best["differences"]
    sure = [title for title, entry in differences.items() if entry["excludes_zero"]]
    unsure = [title for title, entry in differences.items() if entry["excludes_zero"] is False]
    unknown = [title for title, entry in differences.items() if entry["excludes_zero"] is None]
    number = best["num_comparisons"]
    parts = []
    if sure and not unsure:
        others = f"each of the other {len(sure)} systems" if len(sure) > 1 else sure[0]
        parts.append(f"The 95 % interval of its lead excludes zero against {others}.")
    elif sure:
        parts.append(
            f"The 95 % interval of its lead excludes zero against {named(sure)}; it does not against {named(unsure)}."
        )
    elif unsure:
        others = f"any of the other {len(unsure)} systems" if len(unsure) > 1 else unsure[0]
        parts.append(f"The 95 % interval of its lead does not exclude zero against {others}: no winner is shown.")
    if sure and number > 1:
        parts.append(_after_correction(best, sure, number, num_resamples))
    if unknown:
        parts.append(f"Against {named(unknown)} there is no interval.")
    return " ".join(parts)


def _after_correction(best: Mapping[str, Any], sure: Sequence[str], number: int, num_resamples: int) -> str:
    enough = math.ceil(2 * number / LEVEL)  # the least p-value is 2 / (resamples + 1), and Holm multiplies it
    if num_resamples < enough:
        return (
            f"Holm's correction for {number} comparisons needs {enough} resamples or more; there are {num_resamples}."
        )
    kept = [title for title in sure if best["differences"][title]["p_holm"] < LEVEL]
    of_them = "all of these" if len(kept) == len(sure) else named(kept) if kept else "none of these"
    return f"After Holm's correction for {number} comparisons: {of_them}."


def _standing(reference: str, against: Mapping[str, Any]) -> str:
    """Of the reference: whom it is above, whom below, and whom it cannot be told from."""
    names: dict[str, list[str]] = {"above": [], "below": [], "level": [], "unknown": []}
    for title, entry in against["differences"].items():
        side = {True: "above" if (entry["value"] or 0) > 0 else "below", False: "level", None: "unknown"}
        names[side[entry["excludes_zero"]]].append(SYSTEM_NAMES.get(title, title))
    parts = [
        f"{words} {named(names[side])}"
        for side, words in (
            ("above", "is above"),
            ("below", "is below"),
            ("level", "cannot be told from"),
            ("unknown", "has no interval against"),
        )
        if names[side]
    ]
    return f"{reference} {'; '.join(parts)}."
