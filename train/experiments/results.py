"""All figures of an experiment: what every system scores, by how much systems differ, what each cost.

The figures of a system are means over its seeds; their intervals are over patients, the same resampled ones for every
system and seed. The spread of the seeds stands beside them as a standard deviation.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from train.evaluation.out_of_fold import Answers
from train.evaluation.statistics import metrics
from train.evaluation.statistics.bootstrap import Resampling
from train.evaluation.statistics.resampled import Resampled, resample
from train.evaluation.targets import Targets
from train.experiments.comparison import Figures, best_systems, compare
from train.experiments.measures import CALIBRATED, answer_measures, confident_answers, unlearned_by_group

CALIBRATION_BINS = 10
# Retrieval among hardly more candidates than are counted says nothing: everything is found.
CERTAIN_CHANCE = 0.99
DONE = "done"
# What is compared pair by pair beside the headline, if the experiment has it: group and metric.
ALSO_COMPARED = (
    ("grade/unprojected", "quadratic_kappa"),
    ("retrieval/report", "image_to_text_recall_at_10"),
    ("retrieval/report", "text_to_image_recall_at_10"),
)


def measure_experiment(
    answers: Mapping[str, Mapping[int, Answers]],
    baselines: Mapping[str, Answers],
    targets: Targets,
    summaries: Sequence[Mapping[str, Any]],
    resampling: Resampling,
    headline: str,
    systems: Mapping[str, Mapping[str, Any]],
    reference: str | None = None,
) -> dict[str, Any]:
    """Measure every system of an experiment on the same rows.

    Args:
        answers: By title of the system, pooled answers by seed; none where no run of it was finished.
        baselines: Pooled answers from features that no run has learned; probes and grades alone.
        targets: The truth of the rows, in the order of the answers.
        summaries: Of every run: `system` (its title), `seed`, `fold`, `state`, and what it cost.
        resampling: How intervals are drawn.
        headline: The probe that leads the tables, as `PROBE/FEATURES`.
        systems: What each title stands for: `system`, `vision`, `projection`, `projection_dim`.
        reference: Title that the others are subtracted from, chosen before anything was measured; None: the first
            LumbarCLIP of `systems`, or the first of all if there is none. If it has not finished, differences are to
            the best alone.

    Returns:
        A JSON value: `headline`, `systems`, `baselines`, `comparisons`, `runs`.

    Raises:
        ValueError: If a system answers for other rows than the targets, or no system has finished.
    """
    every_seed = [(title, of_seed) for title, seeds in answers.items() for of_seed in seeds.values()]
    every_seed += baselines.items()
    _check_rows(every_seed, targets)
    unlearned = unlearned_by_group([of_seed for _, of_seed in every_seed], targets)

    def figures_of(every_answer: Sequence[Answers], seeds: Sequence[int] = ()) -> dict[str, dict[str, Resampled]]:
        measures = [answer_measures(of_seed, targets, headline, unlearned) for of_seed in every_answer]
        return {
            group: {
                name: resample([of_seed[group][name] for of_seed in measures], resampling, seeds) for name in figures
            }
            for group, figures in measures[0].items()
            if all(group in of_seed for of_seed in measures)
        }

    bar = tqdm(answers.items(), desc="Measuring", unit=" systems", delay=5)
    finished = {title: figures_of(list(seeds.values()), list(seeds)) for title, seeds in bar if seeds}
    measured_baselines = {name: figures_of([of_baseline]) for name, of_baseline in baselines.items()}
    if not finished:
        raise ValueError(
            "No system of the experiment has a finished run, in all folds if it has folds; the reasons are in "
            "runs/*/summary.json. Mend them, and give the same command with --retry_failed."
        )
    group, metric = f"probe/{headline}", "macro_f1" if targets.exclusive else "macro_auroc"
    if not any(metric in figures.get(group, {}) for figures in finished.values()):
        found = sorted({name.removeprefix("probe/") for figures in finished.values() for name in figures})
        raise ValueError(f"headline is {headline!r}, but no system was probed so; choose one of {', '.join(found)}.")
    if reference is None:
        ours = [title for title, settings in systems.items() if settings["system"] == "lumbarclip"]
        reference = next(iter([*ours, *systems]))
    return {
        "headline": {
            "group": group,
            "metric": metric,
            "reference": reference,
            "exclusive": targets.exclusive,
            "calibrated": CALIBRATED,
        },
        "num_resamples": resampling.num_resamples,
        "systems": {
            title: {
                "settings": dict(systems[title]),
                "num_seeds": len(seeds),
                "metrics": _entries(finished.get(title, {})),
                "reliability": _reliability(list(seeds.values()), targets),
                "cost": _cost(title, summaries),
            }
            for title, seeds in answers.items()
        },
        "baselines": {name: {"metrics": _entries(figures)} for name, figures in measured_baselines.items()},
        "comparisons": _comparisons(finished, measured_baselines, group, metric, reference),
        "runs": [dict(summary) for summary in summaries],
    }


def _check_rows(every_seed: Sequence[tuple[str, Answers]], targets: Targets) -> None:
    for title, of_seed in every_seed:
        if len(of_seed["row"]) != len(targets) or not np.array_equal(of_seed["row"], every_seed[0][1]["row"]):
            raise ValueError(
                f"{title} answers for {len(of_seed['row'])} rows that are not the {len(targets)} rows of the other "
                "systems, in their order; systems can only be compared on the same rows."
            )


def _comparisons(
    systems: Mapping[str, Figures], baselines: Mapping[str, Figures], group: str, metric: str, reference: str
) -> list[dict[str, Any]]:
    """For each compared figure: the reference and the best, each less every system and less every baseline."""
    comparisons = []
    for pair in ((group, metric), *ALSO_COMPARED):
        best = best_systems(systems, *pair)
        if not best or _is_certain(systems[best[0]][pair[0]], pair[1]):
            continue
        comparisons += [
            {"to": "best", "tied": best[1:], **compare(systems, *pair, best[0])},
            {"to": "baselines of the best", **compare({best[0]: systems[best[0]], **baselines}, *pair, best[0])},
        ]
        if pair[1] in systems.get(reference, {}).get(pair[0], {}):
            comparisons += [
                {"to": "systems", **compare(systems, *pair, reference)},
                {"to": "baselines", **compare({reference: systems[reference], **baselines}, *pair, reference)},
            ]
    return [comparison for comparison in comparisons if comparison["differences"]]


def _is_certain(figures: Mapping[str, Resampled], metric: str) -> bool:
    """Whether chance alone retrieves nearly all."""
    chance = figures.get(metric.replace("_recall_", "_chance_"))
    return "_recall_" in metric and chance is not None and chance.value >= CERTAIN_CHANCE


def _entries(figures: Figures) -> dict[str, dict[str, Any]]:
    return {group: {name: _entry(figure) for name, figure in of_group.items()} for group, of_group in figures.items()}


def _entry(figure: Resampled) -> dict[str, Any]:
    """The estimate as JSON, with what the single seeds scored."""
    spread = figure.standard_deviation
    return {
        **figure.estimate().as_dict(),
        "by_seed": [None if math.isnan(value) else value for value in figure.by_seed],
        "standard_deviation_of_seeds": None if math.isnan(spread) else spread,
    }


def _reliability(seeds: Sequence[Answers], targets: Targets) -> dict[str, Any]:
    """Claimed and achieved shares of each bin of confidence, seeds together; before and after temperature scaling."""
    curves = {}
    for when, name in (("before", f"probe/{CALIBRATED}"), ("after", f"calibrated/{CALIBRATED}")):
        answered = [confident_answers(targets, of_seed[name]) for of_seed in seeds if name in of_seed]
        if not answered:
            continue
        confidence, correct = (np.concatenate([parts[i] for parts in answered]) for i in (0, 1))
        bins = metrics.calibration_bins(confidence, CALIBRATION_BINS)
        counts = np.bincount(bins, minlength=CALIBRATION_BINS)
        filled = counts > 0
        curves[when] = {
            "counts": counts[filled].tolist(),
            "claimed": (np.bincount(bins, confidence, CALIBRATION_BINS)[filled] / counts[filled]).tolist(),
            "achieved": (np.bincount(bins, correct, CALIBRATION_BINS)[filled] / counts[filled]).tolist(),
        }
    return curves


def _cost(title: str, summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean over the finished runs of a system, and how many there are."""
    runs = [summary for summary in summaries if summary["system"] == title]
    done = [summary for summary in runs if summary["state"] == DONE]
    names = ("updates", "pairs_seen", "seconds", "pairs_per_second")
    means = {}
    for name in names:
        values = [summary[name] for summary in done if summary.get(name) is not None]
        means[name] = float(np.mean(values)) if values else None
    return {"num_runs": len(runs), "num_finished": len(done), **means}
