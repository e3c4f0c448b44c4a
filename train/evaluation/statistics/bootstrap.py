"""Intervals that know rows of one patient are not independent: resample patients, not rows.

All metrics of a comparison are computed on the same resampled patients. The difference of two systems is then taken
resample by resample, and a mean over seeds is the mean of each resample: the interval says how much the metric would
change with other patients, the spread of the seeds how much with another training.

Shapes: N rows, R resamples.
"""

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
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
    """A metric with its 95 % interval.

    Args:
        value: On all rows; NaN when they do not define it.
        low: 2.5th percentile over the resamples.
        high: 97.5th percentile over the resamples.
        n: Number of rows measured.
        reason: Why `value` or the interval is NaN.
        dropped_resamples: Resamples that do not define the metric (they missed a class), left out of the interval.

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
    """Turn estimates into JSON values, by name.

    Example:
        >>> as_entries({"accuracy": Estimate(0.912, 0.871, 0.95, n=132)})
        {'accuracy': {'value': 0.912, 'low': 0.871, 'high': 0.95, 'n': 132}}
    """
    return {name: estimate.as_dict() for name, estimate in estimates.items()}


def warn_once(of_module: logging.Logger, text: str) -> None:
    """Warn once a process: many metrics lack the same class, and the results name each of them."""
    if text not in _said and of_module.isEnabledFor(logging.WARNING):
        _said.add(text)
        of_module.warning("%s", text)


def undefined_estimate(num_rows: int, reason: str) -> Estimate:
    """Return a metric that the rows do not define, and warn with the reason, which names what is missing."""
    warn_once(logger, f"A metric is undefined: {reason}.")
    return Estimate(math.nan, math.nan, math.nan, num_rows, reason)


@dataclass(frozen=True)
class Measure:
    """What a metric of one model is computed of.

    Args:
        metric: Called as `metric(*arrays, weights=...)`; a function of `train.evaluation.statistics.metrics` or alike.
        arrays: What the metric takes, each with N rows first.
        patient_ids: Patient of each row. Shape (N,).
        reason_if_undefined: Why the metric is NaN, if it is; names the missing class.
    """

    metric: Metric
    arrays: Sequence[Array]
    patient_ids: Array
    reason_if_undefined: str = "the rows do not define it"

    def value(self) -> float:
        """Compute the metric on all rows, without an interval."""
        return float(self.metric(*self.arrays))


@dataclass(frozen=True)
class Resampled:
    """A metric, averaged over seeds, on all rows and on every resample.

    Args:
        by_seed: Of each seed on all rows; NaN where they do not define it.
        resampled_by_seed: The same on each resample. Shape (seeds, R).
        num_rows: Rows measured.
        num_patients: Patients of these rows.
        reason_if_undefined: Why the metric is NaN, if it is.
        seeds: Number of each seed; empty for what has none, such as a baseline.
    """

    by_seed: tuple[float, ...]
    resampled_by_seed: Floats
    num_rows: int
    num_patients: int
    reason_if_undefined: str
    seeds: tuple[int, ...] = ()

    @property
    def value(self) -> float:
        """The mean over the seeds; NaN without any."""
        return float(np.mean(self.by_seed)) if self.by_seed else math.nan

    @property
    def resampled(self) -> Floats:
        """The mean over the seeds on each resample; NaN where it is undefined. Shape (R,)."""
        if math.isnan(self.value):
            return np.full(self.resampled_by_seed.shape[1], math.nan)
        return np.mean(self.resampled_by_seed, axis=0)

    @property
    def standard_deviation(self) -> float:
        """Of the seeds; NaN for a single one."""
        return float(np.std(self.by_seed, ddof=1)) if len(self.by_seed) > 1 else math.nan

    def estimate(self) -> Estimate:
        """The mean over the seeds with its 95 % interval over patients."""
        if math.isnan(self.value):
            return Estimate(math.nan, math.nan, math.nan, self.num_rows, self.reason_if_undefined)
        return percentile_estimate(self.value, self.resampled, self.num_rows, self.num_patients)

    def of_seeds(self, seeds: Collection[int]) -> "Resampled":
        """Keep some of the seeds."""
        kept = [place for place, seed in enumerate(self.seeds) if seed in seeds]
        return replace(
            self,
            by_seed=tuple(self.by_seed[place] for place in kept),
            resampled_by_seed=self.resampled_by_seed[kept],
            reason_if_undefined=self.reason_if_undefined if kept else "the two have no seed in common",
            seeds=tuple(self.seeds[place] for place in kept),
        )


def resample(measures: Sequence[Measure], resampling: Resampling, seeds: Sequence[int] = ()) -> Resampled:
    """Measure a metric, averaged over seeds, on all rows and on every resample of the patients.

    A resample draws as many patients as there are, with replacement, each with all their rows. The same `Resampling`
    draws the same patients for every metric and system, so that the metrics of one table vary together.

    Args:
        measures: The same metric of each seed, at least one, on the same rows.
        resampling: How patients are drawn; the same for all that is compared.
        seeds: Number of each seed; empty for what has none, such as a baseline.

    Returns:
        The metric.

    Raises:
        ValueError: If the seeds were measured on rows of differing patients, there are no rows, or arrays and patient
            ids differ in length.

    Example:
        >>> from train.evaluation.statistics.metrics import mean
        >>> seeds = [Measure(mean, [np.array(right)], np.array(["a", "b"])) for right in ([1.0, 0.0], [1.0, 1.0])]
        >>> accuracy = resample(seeds, Resampling(100))
        >>> print(accuracy.estimate(), accuracy.by_seed)
        0.750 [0.500, 1.000] (0.5, 1.0)
    """
    first = measures[0]
    for measure in measures:
        check_lengths(measure.arrays, measure.patient_ids)
        if not np.array_equal(measure.patient_ids, first.patient_ids):
            raise ValueError("The seeds of a system predict rows of differing patients; measure them on one split.")
    by_seed = tuple(measure.value() for measure in measures)
    resampled = np.full((len(measures), resampling.num_resamples), math.nan)
    for place, measure in enumerate(measures):
        if not math.isnan(by_seed[place]):
            resampled[place] = _over_resamples(measure, resampling)
    num_patients = len(np.unique(first.patient_ids))
    return Resampled(by_seed, resampled, len(first.patient_ids), num_patients, first.reason_if_undefined, tuple(seeds))


def difference(ours: Resampled, theirs: Resampled) -> Resampled:
    """Subtract two metrics resample by resample.

    What makes a draw of patients hard for both cancels, so that the interval is narrower than those of the two
    metrics suggest. An interval above 0 says that the first is better.

    Args:
        ours: Of the system in question.
        theirs: Of the system it is compared with, drawn with the same `Resampling` from the same rows.

    Returns:
        `ours - theirs`, each averaged over the seeds that both have: a seed that failed in one says nothing about the
        other. All seeds where one of them has no seeds. There is one value, the difference of the means.

    Raises:
        ValueError: If the two were not measured on equally many rows, patients and resamples.
    """
    sizes, others = ((one.num_rows, one.num_patients, one.resampled_by_seed.shape[1]) for one in (ours, theirs))
    if sizes != others:
        raise ValueError(
            f"Metrics of {sizes} and of {others} rows, patients and resamples cannot be paired; "
            "measure both on the same rows with the same Resampling."
        )
    shared = tuple(seed for seed in ours.seeds if seed in theirs.seeds)
    if ours.seeds and theirs.seeds:
        ours, theirs = ours.of_seeds(shared), theirs.of_seeds(shared)
    undefined = ours if math.isnan(ours.value) else theirs
    return Resampled(
        (ours.value - theirs.value,),
        (ours.resampled - theirs.resampled)[None],
        ours.num_rows,
        ours.num_patients,
        undefined.reason_if_undefined,
    )


def estimates_of(measures: Mapping[str, Measure], resampling: Resampling) -> dict[str, Estimate]:
    """Estimate several metrics; those that the rows do not define are NaN, with a warning."""
    return {name: _warned(resample([measure], resampling)) for name, measure in measures.items()}


def patient_bootstrap(
    metric: Metric,
    arrays: Sequence[Array],
    patient_ids: Sequence[str] | Array,
    resampling: Resampling = DEFAULT_RESAMPLING,
    reason_if_undefined: str = "the rows do not define it",
) -> Estimate:
    """Measure a metric with its 95 % percentile interval over resampled patients: `resample` of one model.

    Args:
        metric: As of a `Measure`.
        arrays: What the metric takes, each with N rows first.
        patient_ids: Patient of each row. Shape (N,).
        resampling: How intervals are drawn.
        reason_if_undefined: Why the metric is NaN, if it is; names the missing class.

    Returns:
        The estimate. A resample on which the metric is NaN is dropped and counted.

    Raises:
        ValueError: If there are no rows, or the arrays and patient ids differ in length.

    Example:
        >>> from train.evaluation.statistics.metrics import mean
        >>> print(patient_bootstrap(mean, [np.array([1.0, 1.0, 0.0, 0.0])], ["a", "a", "b", "b"]))
        0.500 [0.000, 1.000]
    """
    return _warned(resample([Measure(metric, arrays, np.asarray(patient_ids), reason_if_undefined)], resampling))


def paired_difference(
    metric: Metric,
    arrays: Sequence[Array],
    other_arrays: Sequence[Array],
    patient_ids: Sequence[str] | Array,
    resampling: Resampling = DEFAULT_RESAMPLING,
) -> Estimate:
    """Measure by how much one model exceeds another on the same rows: `difference` of two models.

    Args:
        metric: As of a `Measure`.
        arrays: What the metric takes for the model in question.
        other_arrays: The same for the model it is compared with.
        patient_ids: Patient of each row. Shape (N,).
        resampling: How intervals are drawn.

    Returns:
        The estimate of metric(model) - metric(other model).

    Raises:
        ValueError: If there are no rows, or the arrays and patient ids differ in length.
    """
    reason = "one of the two metrics is undefined on these rows"
    both = (Measure(metric, given, np.asarray(patient_ids), reason) for given in (arrays, other_arrays))
    return _warned(difference(*(resample([measure], resampling) for measure in both)))


def check_lengths(arrays: Sequence[Array], patient_ids: Sequence[str] | Array) -> None:
    """Raise if there is not one row for each patient id, and at least one."""
    lengths = [len(array) for array in arrays]
    if not len(patient_ids) or set(lengths) != {len(patient_ids)}:
        raise ValueError(
            f"The metric's arrays have {lengths} rows and there are {len(patient_ids)} patient ids; "
            "pass one patient id for each row, and at least one row."
        )


def percentile_estimate(value: float, resampled: Floats, num_rows: int, num_patients: int) -> Estimate:
    """Put the 95 % percentile interval of resampled values around the value on all rows.

    Args:
        value: The metric on all rows.
        resampled: On each resample; NaN where it is undefined. Shape (R,).
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


def _warned(resampled: Resampled) -> Estimate:
    if math.isnan(resampled.value):
        return undefined_estimate(resampled.num_rows, resampled.reason_if_undefined)
    return resampled.estimate()


def _over_resamples(measure: Measure, resampling: Resampling) -> Floats:
    """Evaluate a metric on every resample, in blocks that fit the memory. Shape (R,)."""
    patients, patient_of_row = np.unique(np.asarray(measure.patient_ids), return_inverse=True)
    draws = _draws(len(patients), resampling)
    block = max(1, MAX_WEIGHTS_IN_MEMORY // len(patient_of_row))
    values = [
        np.asarray(measure.metric(*measure.arrays, weights=draws[start : start + block, patient_of_row]))
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
