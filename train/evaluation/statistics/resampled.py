"""A figure on every resample of the patients: what intervals, paired differences and means over seeds are made of.

All figures of a comparison are computed on the same resampled patients. The difference of two systems is then taken
resample by resample, with no computation of its own, and a mean over seeds is the mean of each resample: the interval
says how much the figure would change with other patients, the spread of the seeds how much with another training.

Shapes: N rows, R resamples.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from train.evaluation.statistics.bootstrap import (
    Estimate,
    Resampling,
    check_lengths,
    over_resamples,
    percentile_estimate,
)
from train.evaluation.statistics.metrics import Array, Floats, Metric


@dataclass(frozen=True)
class Measure:
    """What one figure of one seed is computed of.

    Args:
        metric: Called as `metric(*arrays, weights=...)`; a function of `train.evaluation.statistics.metrics` or alike.
        arrays: What the metric takes, each with N rows first.
        patient_ids: Patient of each row. Shape (N,).
        reason_if_undefined: What to tell when the metric is NaN; names the missing class.
    """

    metric: Metric
    arrays: Sequence[Array]
    patient_ids: Array
    reason_if_undefined: str = "the rows do not define it"


@dataclass(frozen=True)
class Resampled:
    """A figure, averaged over seeds, on all rows and on every resample.

    Args:
        by_seed: The figure of each seed on all rows; NaN where they do not define it.
        resampled_by_seed: The same on each resample. Shape (seeds, R).
        num_rows: Rows measured.
        num_patients: Patients of these rows.
        reason_if_undefined: Why the figure is NaN, if it is.
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
        """The figure of some of the seeds alone."""
        kept = [place for place, seed in enumerate(self.seeds) if seed in seeds]
        return replace(
            self,
            by_seed=tuple(self.by_seed[place] for place in kept),
            resampled_by_seed=self.resampled_by_seed[kept],
            reason_if_undefined=self.reason_if_undefined if kept else "the two have no seed in common",
            seeds=tuple(self.seeds[place] for place in kept),
        )


def resample(measures: Sequence[Measure], resampling: Resampling, seeds: Sequence[int] = ()) -> Resampled:
    """Measure a figure, averaged over seeds, on all rows and on every resample of the patients.

    Args:
        measures: The same figure of each seed, at least one, on the same rows.
        resampling: How patients are drawn; the same for all that is compared.
        seeds: Number of each seed; empty for what has none, such as a baseline.

    Returns:
        The figure.

    Raises:
        ValueError: If the seeds were measured on rows of differing patients, or arrays and patient ids do not fit.

    Example:
        >>> from train.evaluation.statistics.metrics import mean
        >>> seeds = [Measure(mean, [np.array(answers)], np.array(["a", "b"])) for answers in ([1.0, 0.0], [1.0, 1.0])]
        >>> figure = resample(seeds, Resampling(100))
        >>> print(figure.estimate(), figure.by_seed)
        0.750 [0.500, 1.000] (0.5, 1.0)
    """
    first = measures[0]
    for measure in measures:
        check_lengths(measure.arrays, measure.patient_ids)
        if not np.array_equal(measure.patient_ids, first.patient_ids):
            raise ValueError("The seeds of a system answer for rows of differing patients; measure them on one split.")
    by_seed = tuple(float(measure.metric(*measure.arrays)) for measure in measures)
    resampled = np.full((len(measures), resampling.num_resamples), math.nan)
    for place, measure in enumerate(measures):
        if not math.isnan(by_seed[place]):
            resampled[place] = _over_resamples(measure, resampling)
    num_patients = len(np.unique(first.patient_ids))
    return Resampled(by_seed, resampled, len(first.patient_ids), num_patients, first.reason_if_undefined, tuple(seeds))


def difference(ours: Resampled, theirs: Resampled) -> Resampled:
    """Subtract two figures resample by resample.

    What makes a draw of patients hard for both cancels, so that the interval is narrower than those of the two
    figures suggest.

    Args:
        ours: Of the system in question.
        theirs: Of the system it is compared with, drawn with the same `Resampling` from the same rows.

    Returns:
        `ours - theirs`, each averaged over the seeds that both have: a seed that failed in one says nothing about the
        other. All seeds where one of them has no seeds. There is one value, the difference of the means.

    Raises:
        ValueError: If the two were not measured on equally many rows, patients and resamples.
    """
    sizes, others = (
        (figure.num_rows, figure.num_patients, figure.resampled_by_seed.shape[1]) for figure in (ours, theirs)
    )
    if sizes != others:
        raise ValueError(
            f"Figures of {sizes} and of {others} rows, patients and resamples cannot be paired; "
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


def two_sided_p(resampled: Floats) -> float:
    """Bootstrap p-value of a difference: how often a resample does not have the sign that most have, twice.

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

    Args:
        p_values: Of k comparisons; NaN ones do not count.

    Returns:
        Of the i-th smallest, (k - i + 1) times it, never less than those before it nor more than 1.

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


def _over_resamples(measure: Measure, resampling: Resampling) -> Floats:
    return over_resamples(
        lambda weights: measure.metric(*measure.arrays, weights=weights), measure.patient_ids, resampling
    )
