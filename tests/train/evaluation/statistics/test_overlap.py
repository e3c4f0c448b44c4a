import numpy as np
import pytest
from sklearn.metrics import f1_score, jaccard_score

from train.evaluation.statistics.overlap import (
    IGNORED,
    dice,
    intersection_over_union,
    mean_of_defined,
    overlap_counts,
)


@pytest.fixture
def masks():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, (30, 20))
    return truth, np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(0, 4, truth.shape))


def slow_counts(truth, predicted, num_classes):
    counts = np.zeros((3, num_classes))
    for of_truth, of_prediction in zip(truth.reshape(-1), predicted.reshape(-1), strict=True):
        if of_truth == IGNORED:
            continue
        for k in range(num_classes):
            counts[0, k] += of_truth == k and of_prediction == k
            counts[1, k] += of_truth != k and of_prediction == k
            counts[2, k] += of_truth == k and of_prediction != k
    return counts


def test_counts_equal_a_plain_loop_and_leave_out_what_nobody_annotated(masks):
    truth, predicted = masks
    truth[:5] = IGNORED
    np.testing.assert_array_equal(np.stack(overlap_counts(truth, predicted, 4)), slow_counts(truth, predicted, 4))


def test_dice_and_iou_equal_scikit_learn(masks):
    truth, predicted = (mask.reshape(-1) for mask in masks)
    counts = overlap_counts(*masks, 4)
    np.testing.assert_allclose(dice(*counts), f1_score(truth, predicted, average=None))
    np.testing.assert_allclose(intersection_over_union(*counts), jaccard_score(truth, predicted, average=None))


def test_dice_equals_monai(masks):
    monai_metrics = pytest.importorskip("monai.metrics")
    torch = pytest.importorskip("torch")
    one_hot = [torch.nn.functional.one_hot(torch.from_numpy(mask), 4).movedim(-1, 0)[None] for mask in masks[::-1]]
    expected = monai_metrics.DiceMetric(include_background=True, reduction="none")(*one_hot)
    np.testing.assert_allclose(dice(*overlap_counts(*masks, 4)), expected[0].numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        (np.zeros((4, 4)), np.zeros((4, 5)), r"true mask has the size \(4, 4\), the predicted one \(4, 5\)"),
        (np.full((4, 4), 3), np.zeros((4, 4)), "true mask has the value 3; the 3 classes"),
        (np.zeros((4, 4)), np.full((4, 4), 7), "predicted mask has the value 7"),
    ],
)
def test_masks_that_do_not_fit_are_named(truth, predicted, message):
    with pytest.raises(ValueError, match=message):
        overlap_counts(truth, predicted, 3)


def test_rows_that_do_not_define_a_class_do_not_count():
    values = np.array([[1.0, np.nan], [0.5, 0.2], [np.nan, 0.4]])
    assert mean_of_defined(values) == pytest.approx((0.75 + 0.3) / 2)
    weights = np.array([[1, 0, 0], [0, 2, 1]])  # the first has no row of the second class
    np.testing.assert_allclose(mean_of_defined(values, weights), [np.nan, (0.5 + (0.4 + 0.4) / 3) / 2])
    np.testing.assert_allclose(mean_of_defined(values[:, 0], weights), [1.0, 0.5])


def test_weights_repeat_rows():
    values = np.random.default_rng(0).random((6, 3))
    values[2, 1] = np.nan
    weights = np.array([0, 3, 1, 2, 1, 0])
    assert mean_of_defined(values, weights) == pytest.approx(mean_of_defined(np.repeat(values, weights, axis=0)))
