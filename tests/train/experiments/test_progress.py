"""The table of what is done, and the time that is left, by hand."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from tests.train.experiments.experiment_settings import experiment_settings
from train.evaluation.targets import Targets
from train.experiments.progress import progress_table, quick_metric, remaining_seconds
from train.experiments.spec import ExperimentArguments, plan_runs


@pytest.fixture
def runs():
    return plan_runs(ExperimentArguments(**experiment_settings("d", "s", seeds=[0, 1])))


def ended(title, seconds, state="done"):
    return {"system": title, "state": state, "seconds": seconds, "predicting_seconds": 10.0}


def test_a_system_has_one_line(runs):
    summaries = {
        "ours-seed0": ended("Ours", 90.0),
        "ours-seed1": ended("Ours", 110.0),
        "plain-seed0": ended("Plain", 5.0, "diverged"),
    }
    table = progress_table(runs, summaries, {"ours-seed0": 0.5, "ours-seed1": 0.75}, "macro F1")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert rows[0] == ["system", "done", "ended badly", "macro F1", "s a run"]
    assert rows[2:] == [
        ["Ours", "2 of 2", "-", "0.625", "110"],
        ["Plain", "0 of 2", "1 diverged", "-", "-"],
        ["Untrained", "0 of 2", "-", "-", "-"],
    ]


def test_the_rest_takes_what_runs_of_the_system_or_else_all_took(runs):
    assert remaining_seconds(runs, {}) is None
    assert remaining_seconds(runs, {"ours-seed0": ended("Ours", 3.0, "failed")}) is None
    summaries = {"ours-seed0": ended("Ours", 90.0), "plain-seed0": ended("Plain", 190.0)}
    # Ours 100 and Plain 200 once more, and two untrained ones, taken to last as long as the mean of both.
    assert remaining_seconds(runs, summaries) == 100 + 200 + 2 * 150


def made_targets(labels, exclusive):
    names = ("LBP", "No Finding") if exclusive else ("bulge", "narrowing", "No Finding")
    return Targets("test", names, labels, exclusive, (), np.full(len(labels), -1), np.arange(len(labels)).astype(str))


def test_the_quick_metric_is_that_of_scikit_learn():
    generator = np.random.default_rng(0)
    probabilities = generator.random((20, 2))
    truth = generator.integers(2, size=20)
    targets = made_targets(np.eye(2, dtype=bool)[truth], exclusive=True)
    expected = f1_score(truth, probabilities.argmax(1), average="macro")
    assert quick_metric({"probe/p/f": probabilities}, targets, "p/f") == pytest.approx(expected)
    assert quick_metric({"probe/p/f": probabilities}, targets, "other/f") is None


def test_the_quick_metric_leaves_out_what_the_rows_do_not_define():
    generator = np.random.default_rng(0)
    labels = generator.random((20, 3)) < 0.5
    probabilities = generator.random((20, 3))
    targets = made_targets(labels, exclusive=False)

    def figure():
        return quick_metric({"probe/p/f": probabilities}, targets, "p/f")

    both = [roc_auc_score(labels[:, k], probabilities[:, k]) for k in range(2)]
    assert figure() == pytest.approx(np.mean(both))
    probabilities[:, 0] = np.nan  # could not be learned
    assert figure() == pytest.approx(both[1])
    labels[:, 1] = False  # no row has it
    assert figure() is None
