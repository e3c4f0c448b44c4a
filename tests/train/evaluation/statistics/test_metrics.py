import warnings
from functools import partial

import numpy as np
import pytest
from sklearn import metrics as reference

from train.evaluation.statistics import metrics

NUM_CLASSES = 4


@pytest.fixture(scope="module")
def rows():
    """200 rows with integer multiplicities, scores that tie often, and answers that are right half of the time."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, NUM_CLASSES, 200)
    predicted = np.where(rng.random(200) < 0.5, truth, rng.integers(0, NUM_CLASSES, 200))
    scores = np.round(rng.normal(size=200) + (truth == 1), 1)
    return truth, predicted, scores, rng.integers(0, 4, 200)


CLASS_METRICS = [
    (metrics.accuracy, reference.accuracy_score),
    (metrics.balanced_accuracy, reference.balanced_accuracy_score),
    (metrics.macro_f1, partial(reference.f1_score, average="macro")),
    (metrics.precision_by_class, partial(reference.precision_score, average=None)),
    (metrics.recall_by_class, partial(reference.recall_score, average=None)),
    (metrics.f1_by_class, partial(reference.f1_score, average=None)),
    (metrics.quadratic_kappa, partial(reference.cohen_kappa_score, weights="quadratic")),
    (metrics.confusion_counts, reference.confusion_matrix),
]


@pytest.mark.parametrize(("ours", "theirs"), CLASS_METRICS)
def test_class_metrics_equal_scikit_learn(ours, theirs, rows):
    truth, predicted, _, weights = rows
    np.testing.assert_allclose(ours(truth, predicted, NUM_CLASSES), theirs(truth, predicted))
    expected = theirs(truth, predicted, sample_weight=weights)
    np.testing.assert_allclose(ours(truth, predicted, NUM_CLASSES, weights), expected)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(metrics.auroc, reference.roc_auc_score), (metrics.average_precision, reference.average_precision_score)],
)
def test_ranking_metrics_equal_scikit_learn_with_ties_and_weights(ours, theirs, rows):
    truth, _, scores, weights = rows
    positive = truth == 1
    np.testing.assert_allclose(ours(positive, scores), theirs(positive, scores))
    np.testing.assert_allclose(ours(positive, scores, weights), theirs(positive, scores, sample_weight=weights))


@pytest.mark.parametrize("num_classes", [2, NUM_CLASSES])
def test_scores_of_probabilities_equal_scikit_learn(num_classes, rows):
    truth, weights = rows[0] % num_classes, rows[3]
    probabilities = np.random.default_rng(0).dirichlet(np.ones(num_classes), len(truth))
    labels = range(num_classes)
    for ours, theirs in (
        (metrics.brier_score, reference.brier_score_loss),
        (metrics.negative_log_likelihood, reference.log_loss),
    ):
        np.testing.assert_allclose(ours(truth, probabilities), theirs(truth, probabilities, labels=labels))
        expected = theirs(truth, probabilities, labels=labels, sample_weight=weights)
        np.testing.assert_allclose(ours(truth, probabilities, weights), expected)


def test_a_class_that_was_ruled_out_costs_much_but_not_everything():
    sure = np.array([[1.0, 0.0]])
    assert metrics.negative_log_likelihood(np.array([1]), sure) == pytest.approx(
        reference.log_loss([1], sure, labels=[0, 1])
    )


@pytest.mark.parametrize(
    "metric",
    [
        lambda truth, predicted, scores, weights: metrics.brier_score(
            truth, np.eye(NUM_CLASSES)[predicted] * 0.8 + 0.05, weights
        ),
        lambda truth, predicted, scores, weights: metrics.negative_log_likelihood(
            truth, np.eye(NUM_CLASSES)[predicted] * 0.8 + 0.05, weights
        ),
        lambda truth, predicted, scores, weights: metrics.macro_f1(truth, predicted, NUM_CLASSES, weights),
        lambda truth, predicted, scores, weights: metrics.minority_recall(truth, predicted, NUM_CLASSES, weights),
        lambda truth, predicted, scores, weights: metrics.auroc(truth == 1, scores, weights),
        lambda truth, predicted, scores, weights: metrics.average_precision(truth == 1, scores, weights),
        lambda truth, predicted, scores, weights: metrics.median(scores, weights),
        lambda truth, predicted, scores, weights: metrics.presence_balanced_accuracy(
            truth == 1, np.abs(scores) / 10, weights
        ),
        lambda truth, predicted, scores, weights: metrics.mean(scores, weights),
        lambda truth, predicted, scores, weights: metrics.expected_calibration_error(
            np.abs(scores) / 10, truth == predicted, weights=weights
        ),
    ],
)
def test_weights_are_multiplicities_and_stack(metric, rows):
    truth, predicted, scores, weights = rows
    repeated = np.repeat(np.arange(len(truth)), weights)
    on_copies = metric(truth[repeated], predicted[repeated], scores[repeated], None)
    stacked = metric(truth, predicted, scores, np.stack([weights, np.ones_like(weights)]))
    np.testing.assert_allclose(stacked, [on_copies, metric(truth, predicted, scores, None)])


def test_minority_is_the_rarest_class_that_has_rows():
    truth, predicted = np.array([0, 0, 0, 2, 2]), np.array([0, 0, 0, 2, 0])
    assert metrics.minority_recall(truth, predicted, 3) == 0.5


def test_figures_that_the_rows_do_not_define_are_nan():
    truth, predicted = np.array([0, 0, 1]), np.array([0, 2, 1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(metrics.macro_f1(truth, predicted, 3))
        assert np.isnan(metrics.balanced_accuracy(truth, predicted, 3))
        assert np.isnan(metrics.auroc(np.zeros(3), np.arange(3)))
        assert np.isnan(metrics.average_precision(np.ones(3), np.arange(3)))
        assert np.isnan(metrics.macro_auroc(np.eye(3)[:, [0, 0]] * [1, 0], np.eye(3)[:, :2]))
        assert metrics.accuracy(truth, predicted, 3) == pytest.approx(2 / 3)


def test_calibration_error_by_hand():
    # Bin (0.7, 0.8]: claims 0.75 twice, right once: gap 0.25. Bin (0.9, 1]: claims 1, right: gap 0.
    confidence, correct = np.array([0.75, 0.75, 1.0, 1.0]), np.array([1, 0, 1, 1])
    assert metrics.expected_calibration_error(confidence, correct) == pytest.approx(0.125)


def test_calibrated_answers_have_little_error():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 50_000)
    assert metrics.expected_calibration_error(confidence, rng.random(50_000) < confidence) < 0.01


def test_a_share_of_predictors_scores_the_mean_of_their_balanced_accuracies():
    rng = np.random.default_rng(0)
    positive, said = rng.random(30) < 0.4, rng.random((30, 6)) < 0.5
    each = [reference.balanced_accuracy_score(positive, said[:, predictor]) for predictor in range(6)]
    assert metrics.presence_balanced_accuracy(positive, said.mean(1)) == pytest.approx(np.mean(each))
    assert metrics.presence_balanced_accuracy(positive, said[:, 0]) == pytest.approx(each[0])
    assert np.isnan(metrics.presence_balanced_accuracy(np.ones(3), np.ones(3)))
