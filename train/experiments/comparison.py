"""Which differences between the systems of an experiment are more than chance: paired, and corrected for their number.

An interval is that of the single difference. Of k differences one in twenty would exclude zero by chance, so a
Holm-adjusted bootstrap p-value over the k differences of a table stands beside it.
"""

import math
from collections.abc import Mapping
from typing import Any

from train.evaluation.statistics.resampled import Resampled, difference, holm_adjusted, two_sided_p

Figures = Mapping[str, Mapping[str, Resampled]]


def compare(systems: Mapping[str, Figures], group: str, metric: str, first: str) -> dict[str, Any]:
    """Subtract the figure of every other system from that of one.

    Args:
        systems: Figures by group and metric, by system. Those that lack the figure are left out.
        group: Of the figure.
        metric: Of the figure.
        first: The system that the others are subtracted from; among `systems`.

    Returns:
        A JSON value: `first`, `group`, `metric`, `num_comparisons`, and `differences` by system, each an estimate of
        (first − system) with `p`, `p_holm` and `excludes_zero`; null where undefined.
    """
    ours = systems[first][group][metric]
    others = {
        title: difference(ours, figures[group][metric])
        for title, figures in systems.items()
        if title != first and metric in figures.get(group, {})
    }
    p_values = [two_sided_p(of_pair.resampled) for of_pair in others.values()]
    adjusted = holm_adjusted(p_values)
    differences = {
        title: _entry(of_pair, p_value, p_holm)
        for (title, of_pair), p_value, p_holm in zip(others.items(), p_values, adjusted, strict=True)
    }
    return {
        "first": first,
        "group": group,
        "metric": metric,
        "num_comparisons": sum(not math.isnan(p_value) for p_value in p_values),
        "differences": differences,
    }


def best_systems(systems: Mapping[str, Figures], group: str, metric: str) -> list[str]:
    """The system with the highest figure, or all that share it; empty if no system has it."""
    values = {
        title: figures[group][metric].value for title, figures in systems.items() if metric in figures.get(group, {})
    }
    defined = {title: value for title, value in values.items() if not math.isnan(value)}
    highest = max(defined.values(), default=math.nan)
    return [title for title, value in defined.items() if math.isclose(value, highest, rel_tol=0, abs_tol=1e-9)]


def _entry(of_pair: Resampled, p_value: float, p_holm: float) -> dict[str, Any]:
    estimate = of_pair.estimate()
    return {
        **estimate.as_dict(),
        "p": None if math.isnan(p_value) else p_value,
        "p_holm": None if math.isnan(p_holm) else p_holm,
        "excludes_zero": None if math.isnan(estimate.low) else bool(estimate.low > 0 or estimate.high < 0),
    }
