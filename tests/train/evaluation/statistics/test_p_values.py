"""P-values of differences, by hand."""

import math

import numpy as np
import pytest

from train.evaluation.statistics.p_values import holm_adjusted, mcnemar_p, mcnemar_table, two_sided_p


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


def test_mcnemar_counts_only_the_rows_that_one_of_two_gets_right():
    # By hand: of 7 such rows 1 or fewer one way, or the other: 2 (1 + 7) / 2^7.
    assert mcnemar_p(6, 1) == mcnemar_p(1, 6) == pytest.approx(16 / 128)
    assert mcnemar_p(0, 0) == mcnemar_p(3, 3) == 1
    truth, ours = np.array([0, 0, 1, 1, 2, 2, 2, 2]), np.array([0, 0, 1, 1, 2, 2, 2, 0])
    table = mcnemar_table(truth, ours, {"worse": np.full(8, 1), "same": ours, "other": truth})
    assert {name: (row["only_first"], row["only_other"]) for name, row in table.items()} == {
        "worse": (5, 0),
        "same": (0, 0),
        "other": (0, 1),
    }
    assert table["worse"]["p"] == 2 / 2**5 and table["worse"]["p_holm"] == 3 * table["worse"]["p"]
    assert table["same"]["p"] == table["other"]["p_holm"] == 1
