"""All metrics of an experiment: the scores of every system, their differences, and the cost of each.

The metrics of a system are means over its seeds; their intervals are over patients, the same resampled ones for every
system and seed. The spread of the seeds is given as a standard deviation.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from train.evaluation.predictions import Predictions
from train.evaluation.protocols.calibration import confidence_and_correctness
from train.evaluation.protocols.segmentation import GROUP as SEGMENTATION
from train.evaluation.protocols.segmentation import HEADLINE as MACRO_DICE
from train.evaluation.protocols.wordings import combined_value, with_spreads
from train.evaluation.questions import counted_questions
from train.evaluation.statistics import metrics
from train.evaluation.statistics.bootstrap import Resampled, Resampling, combined, resample
from train.evaluation.statistics.minima import too_few_to_rank
from train.evaluation.statistics.spreads import POLARITY, SINGLE
from train.evaluation.targets import Targets
from train.experiments.comparison import Metrics, best_systems, compare
from train.experiments.measures import CALIBRATED, measures_of, unlearned_by_group, was_scaled
from train.experiments.runner import DONE

CALIBRATION_BINS = 10
# With hardly more candidates than places counted, retrieval finds everything and says nothing.
CERTAIN_CHANCE = 0.99
# Groups and metrics that are also compared pair by pair, if measured.
ALSO_COMPARED = (
    ("grade/unprojected", "quadratic_kappa"),
    *(
        (f"grade_by/{name}", metric)
        for name in ("prompts", "fusion")
        for metric in ("accuracy", "quadratic_kappa", "flip_agreement")
    ),
    ("retrieval/report", "image_to_text_recall_at_10"),
    ("retrieval/report", "text_to_image_recall_at_10"),
    (SINGLE, "macro_auroc_mean"),
    (SINGLE, "macro_f1_mean"),
    (POLARITY, "polarity_accuracy"),
    *((SEGMENTATION, f"macro_hausdorff_95_{unit}") for unit in ("mm", "pixels")),
)


def measure_experiment(
    predictions: Mapping[str, Mapping[int, Predictions]],
    baselines: Mapping[str, Predictions],
    targets: Targets,
    summaries: Sequence[Mapping[str, Any]],
    resampling: Resampling,
    headline: str,
    systems: Mapping[str, Mapping[str, Any]],
    reference: str | None = None,
) -> dict[str, Any]:
    """Measure every system of an experiment on the same rows.

    Args:
        predictions: By title of the system, pooled over the folds, by seed; empty where no run of it has finished.
        baselines: Pooled predictions from features that no run has learned; only probes and grades.
        targets: The truth of the rows, in the order of the predictions.
        summaries: For every run: `system` (its title), `seed`, `fold`, `state`, and its cost.
        resampling: How intervals are drawn.
        headline: The probe that leads the tables, as `PROBE/FEATURES`.
        systems: For each title: `system`, `vision`, `projection`, `projection_dim`.
        reference: Title that the others are subtracted from, chosen before anything was measured; None: the first
            LumbarCLIP of `systems`, or else the first of all. If it has not finished, differences are to the best.

    Returns:
        A JSON value: `headline`, `systems`, `baselines`, `comparisons` (none of fewer patients than
        `minima.PATIENTS_TO_RANK`), `runs`.

    Raises:
        ValueError: If a system predicts other rows than the targets, or no system has finished.
    """
    every_seed = [(title, of_seed) for title, seeds in predictions.items() for of_seed in seeds.values()]
    every_seed += baselines.items()
    _check_rows(every_seed, targets)
    unlearned = unlearned_by_group([of_seed for _, of_seed in every_seed], targets)

    def metrics_of(every: Sequence[Predictions], seeds: Sequence[int] = ()) -> dict[str, dict[str, Resampled]]:
        measures = [measures_of(of_seed, targets, headline, unlearned) for of_seed in every]
        resampled = {
            group: {name: resample([of_seed[group][name] for of_seed in measures], resampling, seeds) for name in names}
            for group, names in measures[0].items()
            if all(group in of_seed for of_seed in measures)
        }
        return with_spreads(resampled, combined)

    bar = tqdm(predictions.items(), desc="Measuring", unit=" systems", delay=5)
    finished = {title: metrics_of(list(seeds.values()), list(seeds)) for title, seeds in bar if seeds}
    measured_baselines = {name: metrics_of([of_baseline]) for name, of_baseline in baselines.items()}
    if not finished:
        raise ValueError(
            "No system has a finished run, in all folds if there are any. Fix the errors in "
            "runs/*/summary.json, then rerun with --retry_failed."
        )
    group, metric = _headline(finished, headline, targets)
    if reference is None:
        ours = [title for title, settings in systems.items() if settings["system"] == "lumbarclip"]
        reference = [*ours, *systems][0]
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
                **_over_folds(list(seeds.values()), targets, headline),
                "reliability": _reliability(list(seeds.values()), targets),
                "cost": _cost(title, summaries),
            }
            for title, seeds in predictions.items()
        },
        "baselines": {
            name: {"metrics": _entries(measured), **_over_folds([baselines[name]], targets, headline)}
            for name, measured in measured_baselines.items()
        },
        "comparisons": _comparisons(finished, measured_baselines, group, metric, reference),
        "runs": [dict(summary) for summary in summaries],
    }


def _headline(finished: Mapping[str, Metrics], headline: str, targets: Targets) -> tuple[str, str]:
    """Choose the group and metric that lead the tables: of the headline probe, else of masks, else of the grades, ...

    Raises:
        ValueError: If labels were predicted, but not by this probe.
    """
    led = f"probe/{headline}", "macro_f1" if targets.exclusive else "macro_auroc"
    probes = sorted({name for of_system in finished.values() for name in of_system if name.startswith("probe/")})
    for group, metric in (led,) if probes else ((SEGMENTATION, MACRO_DICE), *ALSO_COMPARED):
        if any(metric in of_system.get(group, {}) for of_system in finished.values()):
            return group, metric
    found = ", ".join(name.removeprefix("probe/") for name in probes)
    raise ValueError(f"headline is {headline!r}, but no system has this probe; choose one of {found}.")


def _check_rows(every_seed: Sequence[tuple[str, Predictions]], targets: Targets) -> None:
    for title, of_seed in every_seed:
        if len(of_seed["row"]) != len(targets) or not np.array_equal(of_seed["row"], every_seed[0][1]["row"]):
            raise ValueError(
                f"{title} predicts {len(of_seed['row'])} rows that are not the {len(targets)} rows of the other "
                "systems, in their order; systems can only be compared on the same rows."
            )


def _comparisons(
    systems: Mapping[str, Metrics], baselines: Mapping[str, Metrics], group: str, metric: str, reference: str
) -> list[dict[str, Any]]:
    """For each compared metric: the reference and the best, each less every system and less every baseline.

    Metrics of too few patients rank nothing.
    """
    comparisons = []
    of_classes = [
        (SEGMENTATION, name)
        for metrics_of_system in systems.values()
        for name in metrics_of_system.get(SEGMENTATION, {})
        if name.startswith("dice/")
    ]
    for pair in dict.fromkeys([(group, metric), *of_classes, *ALSO_COMPARED]):
        best = best_systems(systems, *pair)
        if not best or _is_certain(systems[best[0]][pair[0]], pair[1]):
            continue
        if too_few_to_rank(systems[best[0]][pair[0]][pair[1]].num_patients):
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


def _is_certain(of_group: Mapping[str, Resampled], metric: str) -> bool:
    """Whether chance retrieves nearly all."""
    chance = of_group.get(metric.replace("_recall_", "_chance_"))
    return "_recall_" in metric and chance is not None and chance.value >= CERTAIN_CHANCE


def _over_folds(seeds: Sequence[Predictions], targets: Targets, headline: str) -> dict[str, Any]:
    """Average each metric over the folds that define it, seeds together; empty where there is one split.

    A fold compares predictions of one model only, but on few patients. Its macro means leave out what it lacks.

    Returns:
        `mean_over_folds`: by group, by name, `value`, `standard_deviation` (null for fewer than two folds) and `n`, the
        folds averaged.
    """
    folds = {int(fold) for of_seed in seeds for fold in of_seed["fold"]}
    if len(folds) < 2:
        return {}
    values: dict[tuple[str, str], list[float]] = {}
    for fold in sorted(folds):
        of_seeds: dict[tuple[str, str], list[float]] = {}
        for predictions in seeds:
            rows = predictions["fold"] == fold
            of_fold = {name: array[rows] for name, array in predictions.items()}
            truth = targets.select(rows, f"fold {fold}")
            groups = measures_of(of_fold, truth, headline, unlearned_by_group([of_fold], truth))
            values_of_fold = {
                group: {name: measure.value() for name, measure in measures.items()}
                for group, measures in groups.items()
            }
            for group, of_group in with_spreads(values_of_fold, combined_value).items():
                for name, value in of_group.items():
                    of_seeds.setdefault((group, name), []).append(value)
        for key, of_key in of_seeds.items():
            values.setdefault(key, []).append(float(np.mean(of_key)))
    means: dict[str, dict[str, Any]] = {}
    for (group, name), of_folds in values.items():
        defined = [value for value in of_folds if not math.isnan(value)]
        means.setdefault(group, {})[name] = {
            "value": float(np.mean(defined)) if defined else None,
            "standard_deviation": float(np.std(defined, ddof=1)) if len(defined) > 1 else None,
            "n": len(defined),
        }
    return {"mean_over_folds": means}


def _entries(measured: Metrics) -> dict[str, dict[str, Any]]:
    return {group: {name: _entry(one) for name, one in of_group.items()} for group, of_group in measured.items()}


def _entry(measured: Resampled) -> dict[str, Any]:
    """The estimate as JSON, with the score of each seed."""
    spread = measured.standard_deviation
    return {
        **measured.estimate().as_dict(),
        "by_seed": [None if math.isnan(value) else value for value in measured.by_seed],
        "standard_deviation_of_seeds": None if math.isnan(spread) else spread,
    }


def _reliability(seeds: Sequence[Predictions], targets: Targets) -> dict[str, Any]:
    """Confidence and accuracy of each bin, seeds together; before and after temperature scaling."""
    curves = {}
    rows = targets.is_labelled
    targets = targets.select(rows, targets.split)
    for when, name in (("before", f"probe/{CALIBRATED}"), ("after", f"calibrated/{CALIBRATED}")):
        scaled = [of_seed for of_seed in seeds if when == "before" or was_scaled(of_seed)]
        every = [of_seed[name][rows] for of_seed in scaled if name in of_seed]
        if not every:
            continue
        predicted = [confidence_and_correctness(targets, of, counted_questions(of, targets)) for of in every]
        confidence, correct = (np.concatenate(parts) for parts in zip(*predicted, strict=True))
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
    means = {}
    for name in ("updates", "pairs_seen", "seconds", "pairs_per_second", "num_parameters"):
        values = [summary[name] for summary in done if summary.get(name) is not None]
        means[name] = float(np.mean(values)) if values else None
    return {"num_runs": len(runs), "num_finished": len(done), **means}
