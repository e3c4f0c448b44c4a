"""The Parquet of a run gives back what was written; folds put together are fair to systems of other scales."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score

from tests.train.experiments.made_experiment import finding_targets
from train.evaluation.predictions import pool, ranks_within_folds, read_about, read_predictions, write_predictions


def test_a_file_gives_back_predictions_and_truth(tmp_path):
    targets, rng = finding_targets(), np.random.default_rng(0)
    targets.grades[3] = -1
    written = {
        "row": np.arange(24),
        "probe/paper/unprojected": rng.random((24, 4)),
        "zero_shot": rng.random((24, 4)).astype(np.float32),
        "grade/unprojected": rng.integers(-1, 2, 24),
        "sets/zero_shot": rng.random((24, 8)) < 0.5,
    }
    written["probe/paper/unprojected"][:, 2] = np.nan
    path = tmp_path / "run" / "predictions.parquet"
    write_predictions(path, written, targets, [f"{row}.png" for row in range(24)], {"train": "abc"})
    predictions, truth = read_predictions(path)
    assert predictions.keys() == written.keys() and read_about(path) == {"train": "abc"}
    for name, array in written.items():
        np.testing.assert_array_equal(predictions[name], array)
        assert predictions[name].dtype == array.dtype
    for name in ("labels", "grades", "patient_ids"):
        np.testing.assert_array_equal(getattr(truth, name), getattr(targets, name))
    for name in ("split", "label_names", "exclusive", "grade_names"):
        assert getattr(truth, name) == getattr(targets, name)
    rows = pq.read_table(path).to_pylist()
    assert len(rows) == 24 and rows[3]["source"] == "3.png" and rows[3]["grade"] == -1
    assert rows[5]["truth"] == targets.labels[5].tolist()


@pytest.mark.parametrize("place", [0.0, 0.02, 0.5, 0.98])
def test_a_file_that_was_cut_off_is_named(tmp_path, place):
    path = tmp_path / "predictions.parquet"
    ones = np.ones(24)
    write_predictions(path, {"row": ones}, finding_targets(), [f"{row}.png" for row in range(24)], {"train": "abc"})
    path.write_bytes(path.read_bytes()[: int(place * path.stat().st_size)])
    for read in (read_predictions, read_about):
        with pytest.raises(ValueError, match=r"predictions\.parquet cannot be read .*Delete it"):
            read(path)


def test_there_may_be_no_file(tmp_path):
    assert read_about(tmp_path / "none.parquet") == {}


def test_a_prediction_that_knows_nothing_is_at_chance_and_not_below():
    rng = np.random.default_rng(0)
    present, fold = rng.random(120) < 0.5, np.arange(120) // 40
    majority = np.array([[present[fold != number].mean()] for number in fold])
    assert roc_auc_score(present, majority[:, 0]) < 0.49  # pooled as they are
    assert roc_auc_score(present, ranks_within_folds(majority, fold)[:, 0]) == 0.5


def test_ranks_ignore_the_scale_of_a_fold_and_keep_what_it_could_not_learn():
    scores, fold = np.random.default_rng(1).random((30, 2)), np.arange(30) // 10
    squeezed = scores.copy()
    squeezed[fold == 1] *= 0.01
    np.testing.assert_array_equal(ranks_within_folds(scores, fold), ranks_within_folds(squeezed, fold))
    scores[fold == 2, 1] = np.nan
    assert np.isnan(ranks_within_folds(scores, fold))[:, 1].sum() == 10


def test_what_a_fold_lacks_is_left_out_and_named():
    folds = [{"row": np.array([1]), "a": np.array([5]), "b": np.array([6])}, {"row": np.array([0]), "a": np.array([7])}]
    for order in (folds, folds[::-1]):
        pooled, left_out = pool(order)
        assert left_out == ["b"] and pooled.keys() == {"row", "a"} and pooled["a"].tolist() == [7, 5]


def test_folds_that_do_not_fit_together_are_refused():
    fold = {"row": np.array([0, 1, 2])}
    for folds in ([fold, fold], [{"row": np.array([1])}]):
        with pytest.raises(ValueError, match="but not each row once.*--overwrite"):
            pool(folds)
