"""Find which differences between systems exceed chance: paired, and corrected for their number.

An interval covers a single difference. Of k differences one in twenty would exclude zero by chance, so each also
has a Holm-adjusted bootstrap p-value over the k differences of its table.
"""

import math
from collections.abc import Mapping
from typing import Any

from train.evaluation.statistics.bootstrap import Resampled, difference
from train.evaluation.statistics.p_values import holm_adjusted, two_sided_p

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


def _entry(of_pair: Resampled, p_value: float, p_holm: float) -> dict[str, Any]:
    estimate = of_pair.estimate()
    return {
        **estimate.as_dict(),
        "p": None if math.isnan(p_value) else p_value,
        "p_holm": None if math.isnan(p_holm) else p_holm,
        "excludes_zero": None if math.isnan(estimate.low) else bool(estimate.low > 0 or estimate.high < 0),
    }
