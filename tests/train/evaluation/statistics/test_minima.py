"""The minima are those that users read, and their reasons hold."""

import re

import numpy as np
import pytest

from tests.conftest import PROJECT
from train.evaluation.protocols.conformal import IN_EVERY_SET, conformal_threshold
from train.evaluation.statistics import minima
from train.evaluation.statistics.bootstrap import Resampling, patient_bootstrap
from train.evaluation.statistics.metrics import mean


def test_the_readme_has_the_same_minima():
    table = (PROJECT / "train" / "README.md").read_text().partition("| to | needs at least |")[2].partition("\n\n")[0]
    numbers = [int(re.findall(r"\d+", row.split("|")[2])[0]) for row in table.strip().splitlines()[1:]]
    of_sets = minima.patients_for_sets(0.9)
    fitted = [minima.PATIENTS_FOR_TEMPERATURE, minima.PATIENTS_FOR_SCOPE, of_sets]
    assert numbers == [minima.PATIENTS_TO_RANK, *fitted]


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95, 0.99])
def test_sets_have_a_threshold_from_the_minimum_on(coverage):
    needed = minima.patients_for_sets(coverage)
    for number, has_one in ((needed, True), (needed - 1, False)):
        threshold = conformal_threshold(np.linspace(0, 0.5, number), np.arange(number), coverage)
        assert (threshold < IN_EVERY_SET) == has_one
        assert bool(minima.too_few_for_sets(number, coverage)) != has_one


def test_intervals_of_four_patients_claim_too_much():
    """Means of normal values around 0: a 95 % interval that excludes 0 names a winner where there is none."""
    rng = np.random.default_rng(0)

    def false_leads(num_patients, trials=300):
        leads = 0
        for _ in range(trials):
            values = rng.normal(size=num_patients)
            estimate = patient_bootstrap(mean, [values], np.arange(num_patients), Resampling(200))
            leads += estimate.low > 0 or estimate.high < 0
        return leads / trials

    assert false_leads(4) > 0.12
    assert false_leads(minima.PATIENTS_TO_RANK) < 0.12


def test_what_is_enough_says_nothing():
    assert minima.too_few_to_rank(20) == minima.too_few_for_temperature(10) == minima.too_few_for_sets(9, 0.9) == ""
