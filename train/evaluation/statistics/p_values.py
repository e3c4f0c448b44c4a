"""P-values of differences between two systems on the same rows, and their correction for many comparisons."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import binomtest

from train.evaluation.statistics.metrics import Array, Floats


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


def mcnemar_p(only_ours: int, only_theirs: int) -> float:
    """Compute the exact p-value of McNemar's test: are two classifiers wrong equally often?

    Rows that both get right, or both wrong, say nothing. If the two are equally good, each other row is as likely to
    be right by one as by the other, and the counts are binomial. Rows count as independent: with several images of a
    patient, the value is too small, and the bootstrap over patients is the safer test.

    Args:
        only_ours: Rows that the first gets right and the second wrong, >= 0.
        only_theirs: The reverse.

    Returns:
        In (0, 1]; 1 if the two never disagree.

    Source:
        McNemar 1947; exact, since the chi-squared approximation is poor for few such rows. arXiv 2604.02502 compares
        its models by McNemar's test; it does not say in which form.

    Relations:
        `two_sided_p` is for any metric, and for rows that belong together.

    Example:
        >>> mcnemar_p(5, 0), mcnemar_p(0, 0)
        (0.0625, 1.0)
    """
    discordant = only_ours + only_theirs
    return float(binomtest(only_ours, discordant).pvalue) if discordant else 1.0


def mcnemar_table(truth: Array, predicted: Array, others: Mapping[str, Array]) -> dict[str, dict[str, float]]:
    """Compare one classifier with others, each by McNemar's test, with p-values corrected for their number by Holm.

    Args:
        truth: Classes. Shape (N,), integer.
        predicted: Classes by the first classifier. Shape (N,).
        others: By name, classes by each other one. Shape (N,).

    Returns:
        By name, a JSON value: `only_first`, `only_other` (rows that one of the two gets right), `p` and `p_holm`.

    Example:
        >>> mcnemar_table(np.array([0, 1, 1]), np.array([0, 1, 1]), {"majority": np.array([1, 1, 1])})
        {'majority': {'only_first': 1, 'only_other': 0, 'p': 1.0, 'p_holm': 1.0}}
    """
    right = predicted == truth
    counts = [(int((right & (of != truth)).sum()), int((~right & (of == truth)).sum())) for of in others.values()]
    p_values = [mcnemar_p(*of_pair) for of_pair in counts]
    return {
        name: {"only_first": ours, "only_other": theirs, "p": p, "p_holm": p_holm}
        for name, (ours, theirs), p, p_holm in zip(others, counts, p_values, holm_adjusted(p_values), strict=True)
    }


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
