"""Data without labels, or with some: all that needs none is trained and measured, and what is missing is said."""

import json
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, DatasetDict, List, load_dataset

from data_scripts.records import PAPER_LABELS
from tests.train.experiments.experiment_settings import SMALL, experiment_settings
from train.checkpoints.checkpoint import load_checkpoint
from train.checkpoints.verification import verify_checkpoint
from train.classification.data import read_data
from train.data.batch_sampler import TrainingSet
from train.data.loaders import classes_to_balance, plan_batches, target_classes, with_labels
from train.evaluation.checkpoint_calibration import fit_zero_shot_calibration
from train.evaluation.measure import measure
from train.evaluation.predict import Encoded, predict
from train.evaluation.statistics.bootstrap import Resampling
from train.evaluation.targets import missing_labels, read_targets
from train.experiments import experiment
from train.experiments.spec import ExperimentArguments
from train.pretrain import pretrain
from train.pretraining.arguments import PretrainArguments
from train.reporting.card.model_card import build_model_card

pytestmark = pytest.mark.usefixtures("one_thread")


def labelled(dataset, of_row, names=PAPER_LABELS):
    """The dataset with the labels that `of_row` gives to a row and its number: indices of the names, or None."""
    feature, splits = List(ClassLabel(names=list(names))), {}
    for split, rows in dataset.items():
        labels = [of_row(row, number) for number, row in enumerate(rows.remove_columns("image"))]
        splits[split] = rows.remove_columns("labels").add_column("labels", labels, feature=feature)
    return DatasetDict(splits)


def graded(dataset):
    """The dataset with a grade for each row: whether the disc bulges."""
    feature, splits = ClassLabel(names=["1", "2"]), {}
    for split, rows in dataset.items():
        grades = [int("No" not in report) for report in rows["report"]]
        splits[split] = rows.remove_columns("grade").add_column("grade", grades, feature=feature)
    return DatasetDict(splits)


@pytest.fixture
def dataset(tiny_dataset_folder):
    return load_dataset(str(tiny_dataset_folder))


GRADE_METRICS = ("quadratic_kappa", "mean_absolute_error")


@pytest.fixture(params=["no labels", "a grade only"])
def unlabelled(request, dataset):
    without = labelled(dataset, lambda row, number: None, names=())
    return graded(without) if request.param == "a grade only" else without


def test_all_that_needs_no_label_is_trained_measured_and_said(unlabelled, tmp_path, caplog):
    settings = {
        **SMALL,
        "learning_rate": 1e-3,
        "dataset": "d",
        "output_dir": str(tmp_path / "run"),
        "balance": ["upsample"],
    }
    pretrain(PretrainArguments(**settings, labels="paper"), unlabelled)
    assert "none of the 40 training pairs has a label" in caplog.text and "not calibrated" in caplog.text
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    has_grade = unlabelled["train"][0]["grade"] is not None
    of_grades = [f"{probe}_{name}" for probe in ("grade", "ordinal_grade") for name in GRADE_METRICS]
    assert list(metrics["linear_probe"]) == of_grades * has_grade
    assert metrics["zero_shot"] == metrics["zero_shot_first_prompt"] == metrics["prompts"] == {}
    assert metrics["retrieval"]["text_to_image_recall_at_1"]["value"] is not None
    graded = {"grade_by/prompts", "grade_by/fusion", "grade_by/probe"} if has_grade else set()
    assert set(metrics["further"]) <= {"retrieval/pair", "retrieval/facts", *graded}
    assert metrics["unseen_wordings"] == {}
    report = (tmp_path / "run/report.md").read_text()
    assert "No row has a label" in report and "--labels_from_reports" in report
    assert ("## Linear probe" in report) is has_grade and "## Zero-shot" not in report and "## Retrieval" in report
    card = str(build_model_card(tmp_path / "run", "me/model"))
    assert "No row has a label" in card and "The checkpoint has no calibration" in card
    checkpoint = tmp_path / "run/checkpoint"
    assert load_checkpoint(checkpoint)[0].config.calibration is None
    verify_checkpoint(str(checkpoint))


def test_an_experiment_leads_with_what_there_is(unlabelled, tmp_path):
    unlabelled.save_to_disk(str(tmp_path / "d"))
    for split, rows in unlabelled.items():
        (tmp_path / "built/data").mkdir(parents=True, exist_ok=True)
        rows.to_parquet(tmp_path / f"built/data/{split}.parquet")
    systems = {"Ours": {"system": "lumbarclip"}, "Supervised": {"system": "supervised"}}
    settings = experiment_settings(tmp_path / "built", tmp_path / "out", systems=systems)
    experiment.run_experiment(ExperimentArguments(**settings))
    results = json.loads((tmp_path / "out/results.json").read_text())
    has_grade = unlabelled["train"][0]["grade"] is not None
    group = "grade/unprojected" if has_grade else "retrieval/report"
    assert results["headline"]["group"] == group
    states = {run["system"]: run["state"] for run in results["runs"]}
    assert states == {"Ours": "done", "Supervised": "failed"}  # it learns labels, and there are none
    report = (tmp_path / "out/report.md").read_text()
    assert "No row has a label" in report and "learns from the classes of the pairs" in report
    assert ("retrieval between images and reports" if not has_grade else "the probe of the grade") in report


def test_a_classifier_says_what_to_do_without_labels(unlabelled):
    with pytest.raises(ValueError, match="no row of train, validation, test has a label.*--labels_from_reports"):
        read_data(unlabelled, "labels")


# Some rows without labels.


def every_third(row, number):
    return None if number % 3 == 0 else [int(row["report"].startswith("No"))]


@pytest.fixture
def partly(dataset):
    return labelled(dataset, every_third)


def test_rows_without_labels_are_neither_learned_from_nor_measured(dataset, partly):
    """The metrics are those of a dataset without these rows, whatever the features of the rows are."""
    targets = read_targets(partly)
    assert all(of_split.exclusive for of_split in targets.values())
    kept = DatasetDict({s: rows.select(np.flatnonzero(np.arange(len(rows)) % 3)) for s, rows in dataset.items()})
    random = np.random.default_rng(0)
    features = {split: random.normal(size=(len(rows), 6)).astype(np.float32) for split, rows in partly.items()}

    def encoded(of_rows):
        chosen = {split: rows[of_rows(len(rows))] for split, rows in features.items()}
        unit = {split: rows / np.linalg.norm(rows, axis=1, keepdims=True) for split, rows in chosen.items()}
        prompts = {name: np.eye(6)[k : k + 1] for k, name in enumerate(PAPER_LABELS)}
        reports = [
            text for text, keep in zip(partly["test"]["report"], of_rows(len(partly["test"])), strict=True) if keep
        ]
        return Encoded({"unprojected": chosen, "projected": unit}, reports, unit["test"], prompts, prompts, 10.0)

    def metrics_of(of_rows, targets):
        made = encoded(of_rows)
        predictions = predict(made, targets, np.arange(len(made.texts)))
        return measure(predictions, targets["test"], targets["validation"], Resampling(10, 0))

    whole = metrics_of(lambda number: np.ones(number, dtype=bool), targets)
    without = metrics_of(lambda number: np.arange(number) % 3 > 0, read_targets(kept))
    for group in ("linear_probe", "zero_shot"):
        assert whole[group] == without[group]
    for group in ("probe/paper/unprojected", "probe/knn/projected", "patients/mean", "calibration/paper"):
        assert whole["further"][group] == without["further"][group]
    assert whole["retrieval"]["text_to_image_recall_at_1"]["n"] > without["retrieval"]["text_to_image_recall_at_1"]["n"]
    assert missing_labels(targets).startswith(
        "Rows without a label are left out of everything that needs one: 14 of 40"
    )


def test_unlabelled_rows_are_not_repeated(partly):
    classes = classes_to_balance(partly["train"])
    counts = np.bincount([labels[0] for labels in partly["train"]["labels"] if labels is not None])
    commonest = int(counts.argmax())
    assert classes.sum(0)[1 - commonest] == counts[1 - commonest]
    batches = plan_batches(partly["train"], TrainingSet(balance=["upsample"]), 8, seed=0)
    times = np.bincount(batches.upsampling.draw(np.random.default_rng(0)), minlength=40)
    assert set(times[[labels is None for labels in partly["train"]["labels"]]]) == {1}


def test_absences_are_not_counted_of_unlabelled_rows(partly):
    classes = target_classes(partly["train"], ["labels"], count_absences=True).numpy()
    is_labelled = np.array([labels is not None for labels in partly["train"]["labels"]])
    assert (classes[~is_labelled] == [0, 0, 0, 0, 1]).all() and (classes[is_labelled].sum(1) == 2).all()


def test_calibration_takes_labelled_rows_only(partly, tiny_model, tiny_processor):
    targets = read_targets(partly)["validation"]
    options = {"dataset_name": "d", "batch_size": 8}
    fitted = fit_zero_shot_calibration(tiny_model, tiny_processor, partly["validation"], targets, **options)
    rows = np.flatnonzero(targets.is_labelled)
    selected = targets.select(rows, "validation")
    expected = fit_zero_shot_calibration(
        tiny_model, tiny_processor, partly["validation"].select(rows), selected, **options
    )
    assert fitted.questions[0].temperature == pytest.approx(expected.questions[0].temperature, rel=1e-4)
    assert fitted.fitted_on["num_rows"] == len(rows)


def test_a_classifier_learns_from_labelled_rows(partly):
    data = read_data(partly, "labels")
    assert data.exclusive and {split: len(rows) for split, rows in data.rows.items()} == {
        split: sum(labels is not None for labels in rows["labels"]) for split, rows in partly.items()
    }


# The paper's pair as a view.

FINDINGS = ("LBP", "disc bulge", "tear", "No Finding")


@pytest.mark.parametrize(
    ("names", "given", "expected"),
    [
        (FINDINGS, [[0, 1], [0], [2], [3], [], None], [[0], [0], [0], [1], None, None]),
        (("tear", "No Finding"), [[0], [1], [], None, [0], [1]], [[0], [1], None, None, [0], [1]]),
        (PAPER_LABELS, [[0], [1], None, [1], [0], []], [[0], [1], None, [1], [0], []]),
    ],
)
def test_the_view_of_the_pair(dataset, names, given, expected):
    view = with_labels(labelled(dataset, lambda row, number: given[number % 6], names), "paper")
    for rows in view.values():
        assert rows.features["labels"].feature.names == list(PAPER_LABELS)
        assert rows["labels"][:6] == expected
    assert rows["image"][0].size == (40, 24)


def test_a_view_needs_the_class_of_normal_rows(dataset, caplog):
    with pytest.raises(ValueError, match="needs the class 'No Finding'; the dataset has tear.*--labels findings"):
        with_labels(labelled(dataset, lambda row, number: [0], names=("tear",)), "paper")
    bare = labelled(dataset, lambda row, number: None, names=())
    assert with_labels(bare, "paper") is bare and "has no labels" in caplog.text


def test_a_run_with_the_pair_keeps_it_in_its_files(dataset, tmp_path):
    findings = labelled(dataset, lambda row, number: [3] if row["report"].startswith("No") else [0, 1], FINDINGS)
    settings = {
        **SMALL,
        "learning_rate": 1e-3,
        "dataset": "d",
        "output_dir": str(tmp_path / "run"),
        "labels": "paper",
        "baselines": False,
    }
    pretrain(PretrainArguments(**settings), with_labels(findings, "paper"))
    assert json.loads((tmp_path / "run/run.json").read_text())["arguments"]["labels"] == "paper"
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert list(metrics["dataset"]["labels"]) == list(metrics["prompts"]) == list(PAPER_LABELS)
    assert {"accuracy", "precision", "recall", "f1"} <= metrics["linear_probe"].keys()
    config = json.loads(Path(tmp_path / "run/checkpoint/config.json").read_text())
    assert [question["choices"] for question in config["calibration"]["questions"]] == [list(PAPER_LABELS)]
