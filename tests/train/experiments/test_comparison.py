"""P-values of differences, by hand."""

import math

import numpy as np
import pytest

from train.experiments.comparison import holm_adjusted, two_sided_p


def test_p_is_small_only_if_nearly_all_resamples_agree():
    assert two_sided_p(np.full(999, 0.1)) == two_sided_p(np.full(999, -0.1)) == 0.002
    assert two_sided_p(np.zeros(999)) == 1
    # 20 of 999 resamples on the other side of zero, 20 at zero: both count against.
    assert two_sided_p(np.repeat([0.1, -0.1, 0.0], [959, 20, 20])) == pytest.approx(2 * 41 / 1000)


def test_holm_multiplies_the_smallest_by_all_and_keeps_the_order():
    # By hand: 0.01 x 4, 0.02 x 3, then 0.025 x 2 = 0.05 is less than 0.06 before it, 0.6 x 1.
    assert holm_adjusted([0.6, 0.01, 0.025, 0.02]) == pytest.approx([0.6, 0.04, 0.06, 0.06])
    assert holm_adjusted([0.7, 0.6]) == [1, 1]
    adjusted = holm_adjusted([math.nan, 0.02])
    assert math.isnan(adjusted[0]) and adjusted[1] == 0.02
    assert holm_adjusted([]) == []
