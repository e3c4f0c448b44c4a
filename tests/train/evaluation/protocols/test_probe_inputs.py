import numpy as np
import pytest

from train.evaluation.protocols.linear_probe import logistic_probe
from train.evaluation.protocols.nearest_neighbour_probe import nearest_neighbour_probe
from train.evaluation.protocols.paper_probe import paper_probe
from train.evaluation.protocols.probe_inputs import check_features, unlearnable_findings

PROBES = [logistic_probe, nearest_neighbour_probe, lambda *inputs: paper_probe(*inputs, seed=0)]


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize(
    ("split", "ruin", "message"),
    [
        ("test", lambda rows: np.where(np.arange(12) == 3, np.nan, rows), r"80 of 80 feature rows of the test split"),
        ("train", lambda rows: rows[:-1], r"The train split has 120 rows but 119 feature rows"),
    ],
)
def test_no_probe_takes_features_that_it_cannot_be_fitted_on(planted, probe, split, ruin, message):
    features, targets = planted
    with pytest.raises(ValueError, match=message):
        probe(features | {split: ruin(features[split])}, targets)


def test_names_the_first_row_that_is_not_finite(planted):
    features, targets = planted
    features["validation"][[7, 30], 2] = np.inf
    with pytest.raises(ValueError, match=r"2 of 60 feature rows of the validation split .* row 7"):
        check_features(features, targets)


def test_a_label_of_every_row_cannot_be_learned_either():
    labels = np.array([[True, False, True], [True, False, False]])
    reasons = unlearnable_findings(labels, ("always", "never", "sometimes"))
    assert list(reasons) == [0, 1]
    assert reasons[0] == "`always` has 2 positive rows of 2 to learn from"
