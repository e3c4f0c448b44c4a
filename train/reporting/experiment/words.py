"""Who wins, in sentences that follow from the intervals and from nothing else."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from train.reporting.report import SYSTEM_NAMES, describe_dataset
from train.reporting.tables import format_entry, readable

LEVEL = 0.05
MAX_NAMES = 12
PAPER_PROBE = "probe/paper/unprojected"
PROBE_NAMES = {
    "paper": "linear layer (paper)",
    "paper_balanced": "linear layer, class-balanced",
    "paper_logit_adjusted": "linear layer, logit-adjusted",
    "logistic": "logistic regression",
    "knn": "k-NN",
}
WORDS_OF_FIGURES = {
    "quadratic_kappa": "quadratic kappa of the grade",
    "image_to_text_recall_at_10": "retrieval image to text, R@10",
    "text_to_image_recall_at_10": "retrieval text to image, R@10",
}


def figure_in_words(metric: str) -> str:
    """Name a compared figure."""
    return WORDS_OF_FIGURES.get(metric, readable(metric))


def probe_in_words(group: str) -> str:
    """Say by which probe a figure was read, and of which features; empty where there was no probe of labels.

    Example:
        >>> probe_in_words("probe/logistic/unprojected"), probe_in_words("retrieval/report")
        (' by logistic regression on unprojected features', '')
    """
    kind, _, probe = group.partition("/")
    if kind != "probe":
        return ""
    name, features = probe.split("/")
    return f" by {PROBE_NAMES.get(name, name)} on {features} features"


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
    title, group = best["first"], best["group"]
    entry = results["systems"][title]["metrics"][group][metric]
    figure = f"the highest {figure_in_words(metric)}{probe_in_words(group)}, {format_entry(entry)}"
    sentences = [_highest([title, *best["tied"]], figure), _lead(best, results["num_resamples"])]
    reference = results["headline"]["reference"]
    against = _comparison(results, "systems", metric)
    if title != reference and against is not None:
        sentences.append(_standing(reference, against))
    baselines = _comparison(results, "baselines", metric)
    if baselines is not None:
        sentences.append(f"Among the baselines, {_standing(reference, baselines)}")
    sentences += _higher_baselines(results, metric)
    if metric == results["headline"]["metric"]:
        sentences += [_without_reference(results, group, metric), _by_paper_probe(results, group, metric)]
    return " ".join(sentence for sentence in sentences if sentence)


def card_text(results: Mapping[str, Any]) -> str:
    """Write what a model card says of an experiment, with its command, data and date.

    Args:
        results: The content of `results.json`.

    Returns:
        One paragraph of Markdown.
    """
    experiment = results["experiment"]
    sentences = [
        f"Experiment `{experiment['name']}` on {describe_dataset(results['dataset'])}; "
        f"{seeds_in_words(experiment['seeds'])}.",
        who_wins(results, results["headline"]["metric"]),
        fewer_seeds(results),
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


def fewer_seeds(results: Mapping[str, Any]) -> str:
    """Name the systems of which fewer seeds have finished than were asked; empty if there are none.

    Args:
        results: The content of `results.json`.

    Returns:
        A sentence.
    """
    asked = len(results["experiment"]["seeds"])
    numbers = {title: system["num_seeds"] for title, system in results["systems"].items()}
    fewer = [f"{title} ({number})" for title, number in numbers.items() if number < asked]
    return f"Fewer seeds than asked ({asked}) have finished of {listed(fewer)}." if fewer else ""


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


def _highest(titles: Sequence[str], figure: str) -> str:
    shared = listed([f"**{title}**" for title in titles])
    return f"{shared} share {figure}." if len(titles) > 1 else f"{shared} has {figure}."


def _higher_baselines(results: Mapping[str, Any], metric: str) -> list[str]:
    """Say which features that nobody learned score more than every system, and whether that is more than chance."""
    comparison = _comparison(results, "baselines of the best", metric)
    if comparison is None:
        return []
    higher: dict[bool | None, list[str]] = {True: [], False: [], None: []}
    for name, entry in comparison["differences"].items():
        if entry["value"] is not None and entry["value"] < 0:
            value = results["baselines"][name]["metrics"][comparison["group"]][metric]["value"]
            higher[entry["excludes_zero"]].append(f"{SYSTEM_NAMES.get(name, name)} ({value:.3f})")
    words = {
        True: "No system reaches the baseline {}.",
        False: f"{comparison['first']} cannot be told from the baseline {{}}, which is higher.",
        None: "No system is as high as the baseline {}, but there is no interval.",
    }
    return [words[sure].format(listed(names)) for sure, names in higher.items() if names]


def _without_reference(results: Mapping[str, Any], group: str, metric: str) -> str:
    """Say so if what was to be compared with the others has no figure."""
    reference = results["headline"]["reference"]
    if metric in results["systems"].get(reference, {"metrics": {}})["metrics"].get(group, {}):
        return ""
    return f"The reference, {reference}, has no finished seed, so that differences are to the best alone."


def _by_paper_probe(results: Mapping[str, Any], group: str, metric: str) -> str:
    """The highest by the paper's probe, if another one leads."""
    entries = {t: system["metrics"].get(PAPER_PROBE, {}).get(metric) for t, system in results["systems"].items()}
    values = {title: entry["value"] for title, entry in entries.items() if entry and entry["value"] is not None}
    if group == PAPER_PROBE or not values:
        return ""
    highest = max(values.values())
    titles = [title for title, value in values.items() if math.isclose(value, highest, rel_tol=0, abs_tol=1e-9)]
    have = "share" if len(titles) > 1 else "has"
    return f"By the paper's own probe, {listed(titles)} {have} the highest, {format_entry(entries[titles[0]])}."


def _lead(best: Mapping[str, Any], num_resamples: int) -> str:
    """Of the best: against whom the interval of the lead excludes zero, and what is left of it after correction."""
    differences = {title: entry for title, entry in best["differences"].items() if title not in best["tied"]}
    sure = [title for title, entry in differences.items() if entry["excludes_zero"]]
    unsure = [title for title, entry in differences.items() if entry["excludes_zero"] is False]
    unknown = [title for title, entry in differences.items() if entry["excludes_zero"] is None]
    number = best["num_comparisons"]
    lead = f"The 95 % interval of {'the lead of ' + best['first'] if best['tied'] else 'its lead'}"
    parts = ["No winner is shown."] if best["tied"] else []
    if sure and not unsure:
        others = f"each of the other {len(sure)} systems" if len(sure) > 1 else sure[0]
        parts.append(f"{lead} excludes zero against {others}.")
    elif sure:
        parts.append(f"{lead} excludes zero against {named(sure)}; it does not against {named(unsure)}.")
    elif unsure:
        others = f"any of the other {len(unsure)} systems" if len(unsure) > 1 else unsure[0]
        parts.append(f"{lead} does not exclude zero against {others}{'' if best['tied'] else ': no winner is shown'}.")
    if sure and number > 1:
        parts.append(_after_correction(best, sure, number, num_resamples))
    if sure:
        parts.append("It was chosen as the highest on these very rows, which flatters its lead.")
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
