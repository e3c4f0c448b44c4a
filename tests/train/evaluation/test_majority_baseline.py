"""The majority baseline: how often training rows carry a label, whatever the probe."""

import numpy as np
import pytest

from tests.train.experiments.made_experiment import exclusive_targets, finding_targets
from train.evaluation.predictions import baseline_answers, majority_answers, probe_answers
from train.evaluation.statistics import metrics

TRAIN, VALIDATION, TEST = np.r_[0:2, 15:24], np.r_[2:6], np.r_[6:15, 15:18]


def splits_of(targets):
    rows = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    return {split: targets.select(of_split, split) for split, of_split in rows.items()}


def test_the_most_frequent_class_of_training_is_answered_by_every_probe():
    # 2 of 11 training rows have low back pain, 9 of 12 test rows: answering `No Finding` finds 3.
    targets = splits_of(exclusive_targets())
    answers = baseline_answers({}, targets, TEST, 0)["majority"]
    for probe in ("paper", "logistic", "knn"):
        probabilities = answers[f"probe/{probe}/unprojected"]
        np.testing.assert_allclose(probabilities, [[2 / 11, 9 / 11]] * 12)
        classes, answered = targets["test"].classes, probabilities.argmax(1)
        # `LBP`: recall 0, F1 0. `No Finding`: recall 1, precision 3 / 12, F1 2 * 3 / (12 + 3).
        assert metrics.accuracy(classes, answered, 2) == pytest.approx(3 / 12)
        assert metrics.balanced_accuracy(classes, answered, 2) == pytest.approx(1 / 2)
        assert metrics.macro_f1(classes, answered, 2) == pytest.approx((0 + 6 / 15) / 2)


def test_findings_are_answered_by_their_share_and_grades_by_the_commonest():
    targets = splits_of(finding_targets())
    targets["test"].grades[3] = -1
    answers = majority_answers(targets)
    shares = [sum(row[k] for row in targets["train"].labels.tolist()) / 11 for k in range(4)]
    np.testing.assert_allclose(answers["probe/knn/unprojected"], [shares] * 12)
    # Training rows 0, 1, 15, ..., 23: the odd ones, of grade 1, are more.
    assert answers["grade/unprojected"].tolist() == [1] * 3 + [-1] + [1] * 8


@pytest.mark.parametrize("made", [exclusive_targets, finding_targets])
def test_it_answers_what_the_probes_answer(made):
    targets = splits_of(made())
    features = {split: np.random.default_rng(0).random((len(of), 2)) for split, of in targets.items()}
    assert majority_answers(targets).keys() == probe_answers(features, targets, "unprojected").keys()
