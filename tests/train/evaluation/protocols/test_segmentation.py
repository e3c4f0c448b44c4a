import warnings

import numpy as np
import pyarrow.parquet as pq
import pytest

from train.evaluation.protocols import segmentation
from train.evaluation.protocols.segmentation import (
    dice_by_grade,
    dice_of_images,
    mean_over_classes,
    outline_distances,
    read_scores,
    score_masks,
    segmentation_measures,
    write_scores,
)
from train.evaluation.statistics.bootstrap import Resampling, estimates_of
from train.evaluation.statistics.overlap import IGNORED

NAMES = ("background", "vertebra", "disc")
PATIENTS = np.array(["a", "a", "b"])


def square(top, left, size=4, value=1, shape=(16, 20)):
    mask = np.zeros(shape, dtype=np.uint8)
    mask[top : top + size, left : left + size] = value
    return mask


def scores_of(pairs, annotated=None, spacings=(0.5, 0.5, None), volumes=("a/1", "a/1", "b/1")):
    annotated = np.ones((len(pairs), 3), dtype=bool) if annotated is None else annotated
    return score_masks(pairs, annotated, NAMES, spacings[: len(pairs)], volumes[: len(pairs)])


@pytest.fixture
def scores():
    """Patient a: two slices of one volume, of which the second shows 4 vertebra pixels; b: a missed vertebra."""
    return scores_of(
        [
            (square(2, 2), square(2, 4)),  # 8 of 16 pixels
            (square(2, 2, size=2), np.zeros((16, 20), dtype=np.uint8)),
            (square(2, 2) + square(9, 9, value=2), square(2, 2) + square(9, 10, value=2)),
        ]
    )


def values(scores, patients=PATIENTS):
    return {name: measure.value() for name, measure in segmentation_measures(scores, patients).items()}


def test_dice_pools_the_slices_of_a_volume_and_averages_volumes(scores):
    found = values(scores)
    # a: TP 8, FP 8, FN 8 + 4; b: 1.
    assert found["dice/vertebra"] == pytest.approx((16 / (16 + 8 + 12) + 1) / 2)
    assert found["iou/vertebra"] == pytest.approx((8 / 28 + 1) / 2)
    assert found["image_dice/vertebra"] == pytest.approx((0.5 + 0 + 1) / 3)
    assert found["dice/disc"] == pytest.approx(0.75)  # only b shows it
    assert found["macro_dice"] == pytest.approx((found["dice/vertebra"] + 0.75) / 2)
    assert (found["missed/vertebra"], found["missed/disc"]) == (pytest.approx(1 / 3), 0)


def test_distances_are_in_mm_where_the_spacing_is_known_and_else_in_pixels(scores):
    pytest.importorskip("monai")
    found = values(scores)
    assert found["hausdorff_95_mm/vertebra"] == pytest.approx(2 * 0.5)  # of the first image; the second has none
    assert found["hausdorff_95_pixels/vertebra"] == 0  # of b
    assert found["hausdorff_95_pixels/disc"] == pytest.approx(1)
    assert np.isnan(found["hausdorff_95_mm/disc"])
    known = {**scores, "pixel_spacing_mm": np.full(3, 0.5)}
    assert not any("pixels" in name for name in segmentation_measures(known, PATIENTS))


def test_distances_equal_monai():
    monai_metrics = pytest.importorskip("monai.metrics")
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    truth, predicted = (np.kron(rng.random((6, 6)) < 0.4, np.ones((5, 5))).astype(bool) for _ in range(2))
    pair = [torch.from_numpy(mask)[None, None].float() for mask in (predicted, truth)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        hausdorff = monai_metrics.HausdorffDistanceMetric(include_background=True, percentile=95)(*pair)
        surface = monai_metrics.SurfaceDistanceMetric(include_background=True, symmetric=True)(*pair)
    assert outline_distances(truth, predicted) == pytest.approx((hausdorff.item(), surface.item()))


def test_distances_do_not_count_where_nobody_annotated():
    pytest.importorskip("monai")
    truth = square(2, 2)
    truth[:, 10:] = IGNORED
    found = scores_of([(truth, square(2, 2) + square(2, 12))])
    assert found["hausdorff_95/vertebra"][0] == 0 and found["false_positives/vertebra"][0] == 0


def test_without_monai_distances_say_what_to_install(scores, monkeypatch):
    monkeypatch.setattr(segmentation, "has_monai", lambda: False)
    found = scores_of([(square(2, 2), square(2, 4))] * 3)
    estimate = estimates_of(segmentation_measures(found, PATIENTS), Resampling(10))["hausdorff_95_mm/vertebra"]
    assert np.isnan(estimate.value) and r".[segmentation]" in estimate.reason


def test_a_class_that_is_not_annotated_is_not_measured_there():
    annotated = np.array([[True, True, False]] * 2 + [[True, True, True]])
    both = square(2, 2) + square(9, 9, value=2)
    found = scores_of([(square(2, 2), both), (square(2, 2), both), (both, both)], annotated)
    assert np.isnan(found["false_positives/disc"]).tolist() == [True, True, False]
    assert values(found)["dice/disc"] == 1 and values(found)["macro_dice"] == 1


def test_a_class_that_no_true_mask_shows_is_undefined_and_not_in_the_mean():
    found = scores_of([(square(2, 2), square(2, 2) + square(9, 9, value=2))] * 3)
    estimates = estimates_of(segmentation_measures(found, PATIENTS), Resampling(10))
    assert np.isnan(estimates["dice/disc"].value) and "disc: no measured image shows" in estimates["dice/disc"].reason
    assert estimates["macro_dice"].value == 1


def test_a_class_predicted_where_it_is_not_scores_zero():
    found = scores_of([(square(2, 2, value=2), square(2, 2, value=2)), (square(2, 2), square(2, 2, value=2))])
    assert dice_of_images(found)[:, 1].tolist() == [1, 0]
    np.testing.assert_array_equal(mean_over_classes(np.array([[0.5, np.nan], [np.nan, np.nan]])), [0.5, np.nan])


def test_the_order_of_images_does_not_matter(scores):
    order = [2, 0, 1]
    turned = {name: array[order] for name, array in scores.items()}
    assert values(turned, PATIENTS[order]) == pytest.approx(values(scores), nan_ok=True)


def test_intervals_are_over_patients(scores):
    estimate = estimates_of(segmentation_measures(scores, PATIENTS), Resampling(200))["dice/vertebra"]
    assert (estimate.low, estimate.high) == (pytest.approx(16 / 36), 1)


def test_scores_come_back_as_they_were_one_row_for_each_image_and_class(scores, tmp_path):
    path = tmp_path / "predictions.parquet"
    whole = {"row": np.array([4, 5, 6]), "fold": np.full(3, 2), **scores}
    write_scores(path, whole, PATIENTS, ["s/1", "s/2", "s/3"])
    table = pq.read_table(path).to_pandas()
    assert len(table) == 6 and table["class"].tolist() == ["vertebra", "disc"] * 3
    first = table.iloc[0]
    assert (first["source"], first["dice"], first["pixel_spacing_mm"]) == ("s/1", 0.5, 0.5)
    assert table["pixel_spacing_mm"].isna().tolist() == [False] * 4 + [True] * 2
    found, patients = read_scores(path)
    assert found.keys() == whole.keys() and patients.tolist() == PATIENTS.tolist()
    for name, array in whole.items():
        np.testing.assert_array_equal(found[name], array)


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "predictions.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"predictions\.parquet cannot be read"):
        read_scores(path)


def test_dice_by_grade_is_that_of_its_images(scores):
    measures = dice_by_grade(scores, PATIENTS, np.array([2, 0, 0]), ["A", "B", "C"])
    found = {name.partition("/")[2]: measure.value() for name, measure in measures.items()}
    # A: the missed vertebra and a right one, and a disc of Dice 0.75; C: the first slice of patient a alone.
    assert found["A"] == pytest.approx(((0 + 1) / 2 + 0.75) / 2) and found["C"] == pytest.approx(0.5)
    assert (
        np.isnan(found["B"])
        and "no mask of an image of grade B" in measures["macro_dice_by_grade/B"].reason_if_undefined
    )
    (entry,) = estimates_of({"A": measures["macro_dice_by_grade/A"]}, Resampling(20)).values()
    assert entry.n == 2
    assert dice_by_grade(scores, PATIENTS, np.full(3, -1), ["A"]) == {}
