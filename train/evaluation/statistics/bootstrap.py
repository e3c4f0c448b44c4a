"""Bootstrap intervals over patients: rows of one patient are not independent, so patients are resampled, not rows.

All metrics of a comparison are computed on the same resampled patients. The difference of two systems is then taken
resample by resample, and a mean over seeds is the mean of each resample: the interval says how much the metric would
change with other patients, the spread of the seeds how much with another training run.

Shapes: N rows, R resamples.
"""

import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from train.evaluation.statistics.metrics import Array, Floats, Metric
from train.evaluation.statistics.minima import too_few_to_rank

logger = logging.getLogger(__name__)
_said: set[str] = set()

# 8 million weights are 64 MiB: a thousand resamples of a typical test split in one go, of 50,000 rows in seven.
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

    Example:
        >>> print(Estimate(0.912, 0.871, 0.95, n=132))
        0.912 [0.871, 0.950]
    """

    value: float  # on all rows; NaN when they do not define it
    low: float  # 2.5th percentile over the resamples
    high: float  # 97.5th percentile over the resamples
    n: int  # rows measured
    reason: str | None = None  # why `value` or the interval is NaN
    dropped_resamples: int = 0  # resamples that missed a class; they are left out of the interval

    def __str__(self) -> str:
        if math.isnan(self.value):
            return f"not defined: {self.reason}"
        if math.isnan(self.low):
            return f"{self.value:.3f} (no interval: {self.reason})"
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON value: NaN becomes null, next to the reason."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        entry = {name: None if math.isnan(number) else number for name, number in numbers.items()}
        if_any = {"reason": self.reason, "dropped_resamples": self.dropped_resamples}
        return entry | {"n": self.n} | {name: value for name, value in if_any.items() if value}


def as_entries(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, Any]]:
    """Turn estimates into JSON values, by name.

    Example:
        >>> as_entries({"accuracy": Estimate(0.912, 0.871, 0.95, n=132)})
        {'accuracy': {'value': 0.912, 'low': 0.871, 'high': 0.95, 'n': 132}}
    """
    return {name: estimate.as_dict() for name, estimate in estimates.items()}


def warn_once(of_module: logging.Logger, text: str) -> None:
    """Warn once per process: many metrics lack the same class, and the results name each of them."""
    if text not in _said and of_module.isEnabledFor(logging.WARNING):
        _said.add(text)
        of_module.warning("%s", text)


def undefined_estimate(num_rows: int, reason: str, warn: bool = True) -> Estimate:
    """Return a metric that the rows do not define; the reason names what is missing."""
    if warn:
        warn_once(logger, f"A metric is not defined: {reason}.")
    return Estimate(math.nan, math.nan, math.nan, num_rows, reason)


@dataclass(frozen=True)
class Measure:
    """A metric of one model, and the arrays to compute it from."""

    metric: Metric  # called as `metric(*arrays, weights=...)`, like those of `statistics.metrics`
    arrays: Sequence[Array]  # what the metric takes, each with N rows first
    patient_ids: Array  # of each row; shape (N,)
    reason_if_undefined: str = "the rows do not define it"  # names the missing class

    def value(self) -> float:
        """Compute the metric on all rows, without an interval."""
        return float(self.metric(*self.arrays))


@dataclass(frozen=True)
class Resampled:
    """A metric, averaged over seeds, on all rows and on every resample."""

    by_seed: tuple[float, ...]  # each seed on all rows; NaN where they do not define the metric
    resampled_by_seed: Floats  # each seed on each resample; shape (seeds, R)
    num_rows: int
    num_patients: int
    reason_if_undefined: str
    seeds: tuple[int, ...] = ()  # number of each seed; empty without seeds, as for a baseline

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
        """Spread of the seeds; NaN for a single one."""
        return float(np.std(self.by_seed, ddof=1)) if len(self.by_seed) > 1 else math.nan

    def estimate(self, warn: bool = False) -> Estimate:
        """The mean over the seeds with its 95 % interval over patients; `warn` where it is undefined."""
        if math.isnan(self.value):
            is_news = self.reason_if_undefined != too_few_to_rank(self.num_patients)  # the report opens with it
            return undefined_estimate(self.num_rows, self.reason_if_undefined, warn and is_news)
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
    """Compute a metric, averaged over seeds, on all rows and on every resample of the patients.

    A resample draws as many patients as there are, with replacement, each with all their rows. The same `Resampling`
    draws the same patients for every metric and system, so that the metrics of one table vary together.

    Args:
        measures: The same metric of each seed, at least one, on the same rows.
        resampling: The same for everything that is compared.
        seeds: Number of each seed; empty without seeds, as for a baseline.

    Raises:
        ValueError: If the seeds were measured on rows of different patients, there are no rows, or arrays and patient
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
        lengths = [len(array) for array in measure.arrays]
        if not len(measure.patient_ids) or set(lengths) != {len(measure.patient_ids)}:
            raise ValueError(
                f"The metric's arrays have {lengths} rows and there are {len(measure.patient_ids)} patient ids; "
                "pass one patient id for each row, and at least one row."
            )
        if not np.array_equal(measure.patient_ids, first.patient_ids):
            raise ValueError("The seeds of a system predict rows of different patients; measure them on one split.")
    by_seed = tuple(measure.value() for measure in measures)
    resampled = np.full((len(measures), resampling.num_resamples), math.nan)
    for place, measure in enumerate(measures):
        if not math.isnan(by_seed[place]):
            resampled[place] = _over_resamples(measure, resampling)
    num_patients = len(np.unique(first.patient_ids))
    return Resampled(by_seed, resampled, len(first.patient_ids), num_patients, first.reason_if_undefined, tuple(seeds))


def difference(ours: Resampled, theirs: Resampled) -> Resampled:
    """Subtract two metrics, `ours - theirs`, resample by resample.

    What makes a draw of patients hard for both cancels, so the interval is narrower than those of the two metrics
    suggest. If both have seeds, each is averaged over the seeds that they share: a seed that failed in one says nothing
    about the other.

    Returns:
        The difference; undefined for fewer patients than `minima.PATIENTS_TO_RANK`: a lead among them is chance.

    Raises:
        ValueError: If the two were not measured on equally many rows, patients and resamples.
    """
    sizes, others = ((one.num_rows, one.num_patients, one.resampled_by_seed.shape[1]) for one in (ours, theirs))
    if sizes != others:
        raise ValueError(
            f"Metrics of {sizes} and {others} (rows, patients, resamples) cannot be paired; measure both on the same "
            "rows with the same Resampling."
        )
    shared = tuple(seed for seed in ours.seeds if seed in theirs.seeds)
    if ours.seeds and theirs.seeds:
        ours, theirs = ours.of_seeds(shared), theirs.of_seeds(shared)
    reason = (ours if math.isnan(ours.value) else theirs).reason_if_undefined
    value, resampled = (ours.value - theirs.value,), (ours.resampled - theirs.resampled)[None]
    if (too_few := too_few_to_rank(ours.num_patients)) and not math.isnan(value[0]):
        value, resampled, reason = (math.nan,), np.full_like(resampled, math.nan), too_few
    return Resampled(value, resampled, ours.num_rows, ours.num_patients, reason)


def combined(parts: Sequence[Resampled], how: Callable[..., Floats]) -> Resampled:
    """Combine metrics of the same rows and seeds into one, such as their mean: seed by seed, resample by resample.

    `how` takes the values of all parts, and `axis=0`.
    """
    first = parts[0]
    return replace(
        first,
        by_seed=tuple(how(np.array([part.by_seed for part in parts]), axis=0).tolist()),
        resampled_by_seed=how(np.stack([part.resampled_by_seed for part in parts]), axis=0),
    )


def estimates_of(measures: Mapping[str, Measure], resampling: Resampling) -> dict[str, Estimate]:
    """Estimate several metrics; those that the rows do not define are NaN, with a warning."""
    return {name: resample([measure], resampling).estimate(warn=True) for name, measure in measures.items()}


def patient_bootstrap(
    metric: Metric,
    arrays: Sequence[Array],
    patient_ids: Sequence[str] | Array,
    resampling: Resampling = DEFAULT_RESAMPLING,
    reason_if_undefined: str = "the rows do not define it",
) -> Estimate:
    """Measure a metric of one model with its 95 % percentile interval: `resample` of a single `Measure`.

    A resample on which the metric is NaN is dropped and counted.

    Example:
        >>> from train.evaluation.statistics.metrics import mean
        >>> print(patient_bootstrap(mean, [np.array([1.0, 1.0, 0.0, 0.0])], ["a", "a", "b", "b"]))
        0.500 [0.000, 1.000]
    """
    measure = Measure(metric, arrays, np.asarray(patient_ids), reason_if_undefined)
    return resample([measure], resampling).estimate(warn=True)


def paired_difference(
    metric: Metric,
    arrays: Sequence[Array],
    other_arrays: Sequence[Array],
    patient_ids: Sequence[str] | Array,
    resampling: Resampling = DEFAULT_RESAMPLING,
) -> Estimate:
    """Measure metric(model) - metric(other model) on the same rows: `difference` of two single `Measure`s."""
    reason = "one of the two metrics is undefined on these rows"
    both = (Measure(metric, given, np.asarray(patient_ids), reason) for given in (arrays, other_arrays))
    return difference(*(resample([measure], resampling) for measure in both)).estimate(warn=True)


def percentile_estimate(value: float, resampled: Floats, num_rows: int, num_patients: int) -> Estimate:
    """Put the 95 % percentile interval of resampled values, NaN where undefined, around the value on all rows.

    A single patient gets no interval.
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


def _over_resamples(measure: Measure, resampling: Resampling) -> Floats:
    """Evaluate a metric on every resample, in blocks that fit the memory. Shape (R,)."""
    patients, patient_of_row = np.unique(measure.patient_ids, return_inverse=True)
    draws = _draws(len(patients), resampling)
    block = max(1, MAX_WEIGHTS_IN_MEMORY // len(patient_of_row))
    values = [
        np.asarray(measure.metric(*measure.arrays, weights=draws[start : start + block, patient_of_row]))
        for start in range(0, resampling.num_resamples, block)
    ]
    return np.concatenate(values)


@lru_cache(maxsize=8)  # a comparison asks for the same draws thousands of times
def _draws(num_patients: int, resampling: Resampling) -> Floats:
    """How often each patient is drawn in each resample. Shape (R, patients)."""
    rng = np.random.default_rng(resampling.seed)
    shares = np.full(num_patients, 1 / num_patients)
    draws = rng.multinomial(num_patients, shares, size=resampling.num_resamples).astype(np.float64)
    draws.flags.writeable = False
    return draws
