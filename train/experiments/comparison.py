"""Find which differences between systems exceed chance: paired, and corrected for their number.

An interval covers a single difference. Of k differences one in twenty would exclude zero by chance, so each also
has a Holm-adjusted bootstrap p-value over the k differences of its table.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from train.evaluation.statistics.bootstrap import Resampled, difference
from train.evaluation.statistics.metrics import Floats

LOWER_IS_BETTER = ("macro_hausdorff_95",)  # how such metrics begin

Metrics = Mapping[str, Mapping[str, Resampled]]  # by group and name


def compare(systems: Mapping[str, Metrics], group: str, metric: str, first: str) -> dict[str, Any]:
    """Subtract the metric of every other system that has it from that of `first`.

    Returns:
        A JSON value: `first`, `group`, `metric`, `num_comparisons`, and `differences` by system, each an estimate of
        (first − system) with `p`, `p_holm` and `excludes_zero`; null where undefined.
    """
    ours = systems[first][group][metric]
    others = {
        title: difference(ours, metrics[group][metric])
        for title, metrics in systems.items()
        if title != first and metric in metrics.get(group, {})
    }
    p_values = [two_sided_p(of_pair.resampled) for of_pair in others.values()]
    adjusted = holm_adjusted(p_values)
    return {
        "first": first,
        "group": group,
        "metric": metric,
        "num_comparisons": sum(not math.isnan(p_value) for p_value in p_values),
        "differences": {
            title: _entry(of_pair, p_value, p_holm)
            for (title, of_pair), p_value, p_holm in zip(others.items(), p_values, adjusted, strict=True)
        },
    }


def best_systems(systems: Mapping[str, Metrics], group: str, metric: str) -> list[str]:
    """Find the system with the best metric, or all that share it; empty if no system has it.

    The best is the highest, of distances the lowest.
    """
    values = {
        title: metrics[group][metric].value for title, metrics in systems.items() if metric in metrics.get(group, {})
    }
    defined = {title: value for title, value in values.items() if not math.isnan(value)}
    best = (min if metric.startswith(LOWER_IS_BETTER) else max)(defined.values(), default=math.nan)
    return [title for title, value in defined.items() if math.isclose(value, best, rel_tol=0, abs_tol=1e-9)]


def two_sided_p(resampled: Floats) -> float:
    """Compute the bootstrap p-value of a difference: twice the share of resamples with the rarer sign.

    Args:
        resampled: The difference on each resample; NaN ones are left out. Shape (R,).

    Returns:
        In (0, 1], never less than 2 / (R + 1): a resample is counted for the sample itself (Davison and Hinkley 1997,
        section 4.2). NaN without a defined resample.

    Example:
        >>> two_sided_p(np.array([0.1, 0.2, 0.3, -0.1]))
        0.8
    """
    defined = resampled[~np.isnan(resampled)]
    if not len(defined):
        return math.nan
    against = min((defined <= 0).sum(), (defined >= 0).sum())
    return float(min(1.0, 2 * (1 + against) / (len(defined) + 1)))


def holm_adjusted(p_values: Sequence[float]) -> list[float]:
    """Correct p-values of several comparisons, so that the chance of any false finding stays below the level.

    The i-th smallest of k is multiplied by (k - i + 1), is never less than those before it nor more than 1. NaN ones do
    not count.

    Source:
        Holm, A simple sequentially rejective multiple test procedure, 1979.

    Example:
        >>> holm_adjusted([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")[: np.count_nonzero(~np.isnan(values))]  # NaN sorts last
    factors = np.arange(len(order), 0, -1)
    adjusted = np.full(len(values), math.nan)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(values[order] * factors))
    return adjusted.tolist()


def _entry(of_pair: Resampled, p_value: float, p_holm: float) -> dict[str, Any]:
    estimate = of_pair.estimate()
    return {
        **estimate.as_dict(),
        "p": None if math.isnan(p_value) else p_value,
        "p_holm": None if math.isnan(p_holm) else p_holm,
        "excludes_zero": None if math.isnan(estimate.low) else bool(estimate.low > 0 or estimate.high < 0),
    }
