"""Intervals that know rows of one patient are not independent: resample patients, not rows."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from train.evaluation.statistics.metrics import Array, Floats, Metric

logger = logging.getLogger(__name__)
_said: set[str] = set()

# 8 million weights are 64 MiB: a thousand resamples of a usual test split in one go, of 50,000 rows in seven.
MAX_WEIGHTS_IN_MEMORY = 8_000_000


@dataclass(frozen=True)
class Resampling:
    """How intervals are drawn: number of bootstrap resamples of patients, and their seed."""

    num_resamples: int = 1000
    seed: int = 0


DEFAULT_RESAMPLING = Resampling()


@dataclass(frozen=True)
class Estimate:
    """A measured figure with its 95 % interval.

    Args:
        value: The figure on all rows; NaN when they do not define it.
        low: 2.5th percentile over the resamples.
        high: 97.5th percentile over the resamples.
        n: Number of rows measured.
        reason: Why `value` or the interval is NaN.
        dropped_resamples: Resamples without an answer (they happened to miss a class), left out of the interval.

    Example:
        >>> print(Estimate(0.912, 0.871, 0.95, n=132))
        0.912 [0.871, 0.950]
    """

    value: float
    low: float
    high: float
    n: int
    reason: str | None = None
    dropped_resamples: int = 0

    def __str__(self) -> str:
        if math.isnan(self.value):
            return f"undefined ({self.reason})"
        if math.isnan(self.low):
            return f"{self.value:.3f} (no interval: {self.reason})"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON value: NaN becomes null, with the reason beside it."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        entry: dict[str, Any] = {name: None if math.isnan(number) else number for name, number in numbers.items()}
        entry["n"] = self.n
        if self.reason is not None:
            entry["reason"] = self.reason
        if self.dropped_resamples:
            entry["dropped_resamples"] = self.dropped_resamples
        return entry


def as_entries(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, Any]]:
    """Turn figures into JSON values, by name.

    Example:
        >>> as_entries({"accuracy": Estimate(0.912, 0.871, 0.95, n=132)})
        {'accuracy': {'value': 0.912, 'low': 0.871, 'high': 0.95, 'n': 132}}
    """
    return {name: estimate.as_dict() for name, estimate in estimates.items()}


def warn_once(of_module: logging.Logger, text: str) -> None:
    """Warn, unless this process has said the same: many figures lack one class, and the results name each of them."""
    if text not in _said and of_module.isEnabledFor(logging.WARNING):  # what was silenced is not said
        _said.add(text)
        of_module.warning("%s", text)


def undefined_estimate(num_rows: int, reason: str) -> Estimate:
    """Return a figure that the rows do not define, and warn with the reason, which names what is missing."""
    warn_once(logger, f"A figure is undefined: {reason}.")
    return Estimate(math.nan, math.nan, math.nan, num_rows, reason)


def patient_bootstrap(
    metric: Metric,
    arrays: Sequence[Array],
    patient_ids: Sequence[str] | Array,
    resampling: Resampling = DEFAULT_RESAMPLING,
    reason_if_undefined: str = "the rows do not define it",
) -> Estimate:
    """Measure a metric with its 95 % percentile interval over resampled patients.

    As many patients as there are, drawn with replacement, each with all their rows. The same seed draws the same
    patients for every metric and system, so that figures of one table vary together.

    Args:
        metric: Called as `metric(*arrays, weights=...)`; a function of `train.evaluation.statistics.metrics` or alike.
        arrays: What the metric takes, each with N rows first.
        patient_ids: Patient of each row. Shape (N,).
        resampling: How intervals are drawn.
        reason_if_undefined: What to tell when the metric is NaN; names the missing class.

    Returns:
        The estimate. A resample on which the metric is NaN is dropped and counted.

    Raises:
        ValueError: If there are no rows, or the arrays and patient ids differ in length.

    Example:
        >>> from train.evaluation.statistics.metrics import mean
        >>> print(patient_bootstrap(mean, [np.array([1.0, 1.0, 0.0, 0.0])], ["a", "a", "b", "b"]))
        0.500 [0.000, 1.000]
    """
    check_lengths(arrays, patient_ids)
    value = float(metric(*arrays))
    if math.isnan(value):
        return undefined_estimate(len(patient_ids), reason_if_undefined)
    resampled = over_resamples(lambda weights: metric(*arrays, weights=weights), patient_ids, resampling)
    return percentile_estimate(value, resampled, len(patient_ids), len(np.unique(patient_ids)))


def paired_difference(
    metric: Metric,
    arrays: Sequence[Array],
    other_arrays: Sequence[Array],
    patient_ids: Sequence[str] | Array,
    resampling: Resampling = DEFAULT_RESAMPLING,
) -> Estimate:
    """Measure by how much one system exceeds another on the same rows, with its interval.

    Both are measured on the same resampled patients: what makes a draw hard for both cancels, so the interval is
    narrower than those of the two figures suggest. An interval above 0 says that the first is better.

    Args:
        metric: As for `patient_bootstrap`.
        arrays: What the metric takes for the system in question.
        other_arrays: The same for the system it is compared with.
        patient_ids: Patient of each row. Shape (N,).
        resampling: How intervals are drawn.

    Returns:
        The estimate of metric(system) - metric(other system).

    Raises:
        ValueError: If there are no rows, or the arrays and patient ids differ in length.
    """
    check_lengths([*arrays, *other_arrays], patient_ids)
    value = float(metric(*arrays)) - float(metric(*other_arrays))
    if math.isnan(value):
        return undefined_estimate(len(patient_ids), "one of the two figures is undefined on these rows")
    resampled = over_resamples(
        lambda weights: metric(*arrays, weights=weights) - metric(*other_arrays, weights=weights),
        patient_ids,
        resampling,
    )
    return percentile_estimate(value, resampled, len(patient_ids), len(np.unique(patient_ids)))


def check_lengths(arrays: Sequence[Array], patient_ids: Sequence[str] | Array) -> None:
    """Refuse arrays that do not have one row for each patient id, and at least one."""
    lengths = [len(array) for array in arrays]
    if not len(patient_ids) or set(lengths) != {len(patient_ids)}:
        raise ValueError(
            f"The metric's arrays have {lengths} rows and there are {len(patient_ids)} patient ids; "
            "pass one patient id for each row, and at least one row."
        )


def over_resamples(
    metric: Callable[[Floats], Any], patient_ids: Sequence[str] | Array, resampling: Resampling
) -> Floats:
    """Evaluate the metric on every resample, in blocks that fit the memory. Shape (R,)."""
    patients, patient_of_row = np.unique(np.asarray(patient_ids), return_inverse=True)
    draws = _draws(len(patients), resampling)
    block = max(1, MAX_WEIGHTS_IN_MEMORY // len(patient_of_row))
    values = [
        np.asarray(metric(draws[start : start + block, patient_of_row]))
        for start in range(0, resampling.num_resamples, block)
    ]
    return np.concatenate(values)


@lru_cache(maxsize=8)  # a comparison asks for the same draws some thousand times
def _draws(num_patients: int, resampling: Resampling) -> Floats:
    """How often each patient is drawn in each resample. Shape (R, patients)."""
    rng = np.random.default_rng(resampling.seed)
    shares = np.full(num_patients, 1 / num_patients)
    draws = rng.multinomial(num_patients, shares, size=resampling.num_resamples).astype(np.float64)
    draws.flags.writeable = False
    return draws


def percentile_estimate(value: float, resampled: Floats, num_rows: int, num_patients: int) -> Estimate:
    """Put the 95 % percentile interval of resampled values around the value on all rows.

    Args:
        value: The figure on all rows.
        resampled: The figure on each resample; NaN where it is undefined. Shape (R,).
        num_rows: Rows measured.
        num_patients: Patients of these rows.

    Returns:
        The estimate, without an interval for a single patient.
    """
    defined = resampled[~np.isnan(resampled)]
    dropped = len(resampled) - len(defined)
    if num_patients < 2:
        # Every resample of one patient is that patient: an interval of width 0 would claim certainty.
        return Estimate(value, math.nan, math.nan, num_rows, "one patient gives no interval", dropped)
    if not len(defined):
        return Estimate(value, math.nan, math.nan, num_rows, "no resample defines it", dropped)
    low, high = np.percentile(defined, [2.5, 97.5])
    return Estimate(value, float(low), float(high), num_rows, dropped_resamples=dropped)
