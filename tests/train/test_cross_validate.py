"""Cross-validation end to end: no patient is measured by a model that saw them, and a killed run repeats nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
from datasets import concatenate_datasets, load_dataset
from safetensors.numpy import load_file
from sklearn.metrics import accuracy_score, f1_score

from data_scripts.system.command_line import parse_arguments
from train import cross_validate
from train.cross_validate import ANSWERS, CrossValidateArguments, main
from train.evaluation.out_of_fold import pool

FOLDS = 3


def arguments(dataset, output_dir, **changed):
    settings = {
        "dataset": str(dataset),
        "output_dir": str(output_dir),
        "folds": FOLDS,
        "num_resamples": 50,
        "pretrained": False,
        "vision": "test_convnext",
        "text_pooling": "mean",
        "text_config": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32},
        "image_size": 32,
        "projection_dim": 8,
        "epochs": 2,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "report_to": "none",
    }
    return CrossValidateArguments(**{**settings, **changed})


@pytest.fixture(scope="module")
def rows(tiny_dataset_folder):
    """The data set as one."""
    return concatenate_datasets(list(load_dataset(str(tiny_dataset_folder)).values()))


@pytest.fixture(scope="module")
def finished(tiny_dataset_folder, tmp_path_factory):
    """A finished cross-validation: its folder, and the patients that each fold's training was given."""
    folder = tmp_path_factory.mktemp("finished") / "cv"
    seen = []

    def watched(args, dataset):
        seen.append({split: set(dataset[split]["patient_id"]) for split in dataset})
        return pretrain(args, dataset)

    pretrain = cross_validate.pretrain
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_validate, "pretrain", watched)
        main(arguments(tiny_dataset_folder, folder))
    return folder, seen


def answers_of(folder):
    return [load_file(folder / f"fold-{fold}" / ANSWERS) for fold in range(FOLDS)]


def test_an_image_of_two_patients_is_refused_unless_wanted(tiny_dataset_folder, tmp_path, monkeypatch):
    data = load_dataset(str(tiny_dataset_folder))
    fold_of_patient = dict.fromkeys(data["train"]["patient_id"], 0) | dict.fromkeys(data["test"]["patient_id"], 1)
    monkeypatch.setattr(
        cross_validate, "cut", lambda targets, *_: np.array([fold_of_patient.get(p, 2) for p in targets.patient_ids])
    )
    copied = {"image": data["train"][0]["image"]}
    data["test"] = data["test"].map(
        lambda row, index: row if index else row | copied,
        with_indices=True,
        keep_in_memory=True,
        load_from_cache_file=False,
    )
    monkeypatch.setattr(cross_validate, "open_dataset", lambda _: data)
    with pytest.raises(ValueError, match=r"1 image in several splits \(rows: fold 0 1, fold 1 1\)"):
        main(arguments(tiny_dataset_folder, tmp_path / "cv"))
    assert not (tmp_path / "cv").exists()


def test_each_row_is_answered_once_by_models_that_never_saw_its_patient(finished, rows):
    folder, seen = finished
    patients = np.array(rows["patient_id"][:])
    answers = answers_of(folder)
    assert np.sort(np.concatenate([of_fold["row"] for of_fold in answers])).tolist() == list(range(len(rows)))
    recorded = json.loads((folder / "folds.json").read_text())["fold_of_patient"]
    for fold, of_fold in enumerate(answers):
        tested = set(patients[of_fold["row"]])
        assert tested == {patient for patient, number in recorded.items() if number == fold} == seen[fold]["test"]
        assert not tested & (seen[fold]["train"] | seen[fold]["validation"])
        assert not seen[fold]["train"] & seen[fold]["validation"]
        assert set().union(*seen[fold].values()) == set(patients)


def test_pooled_figures_equal_scikit_learn_on_the_pooled_answers(finished, rows):
    folder, _ = finished
    results = json.loads((folder / "metrics.json").read_text())
    truth = np.array([labels[0] for labels in rows["labels"]])
    answers = pool(answers_of(folder))
    for name, entries in (("model", results["linear_probe"]), ("hog", results["baselines"]["hog"]["linear_probe"])):
        predicted = answers[f"probe/{name}"].argmax(1)
        assert entries["accuracy"]["value"] == pytest.approx(accuracy_score(truth, predicted))
        assert entries["macro_f1"]["value"] == pytest.approx(f1_score(truth, predicted, average="macro"))
        assert entries["accuracy"]["n"] == len(rows)
    by_fold = [accuracy_score(truth[a["row"]], a["probe/hog"].argmax(1)) for a in answers_of(folder)]
    mean = results["mean_over_folds"]["baselines"]["hog"]["linear_probe"]["accuracy"]
    assert (mean["value"], mean["n"]) == (pytest.approx(np.mean(by_fold)), 3)
    assert mean["standard_deviation"] == pytest.approx(np.std(by_fold, ddof=1))
    # In the tiny set brightness tells the classes apart; an answer that knows nothing is at chance, not below.
    assert results["baselines"]["pixel_pca"]["linear_probe"]["macro_f1"]["value"] == 1
    assert results["baselines"]["majority"]["linear_probe"]["auroc"]["value"] == 0.5


def test_the_folder_holds_what_the_readme_needs(finished, rows):
    folder, _ = finished
    results = json.loads((folder / "metrics.json").read_text())
    assert results["dataset"]["num_patients"] == 16 and results["settings"]["folds"] == FOLDS
    assert all(fold["training_seconds"] > 0 for fold in results["folds"])
    assert sum(fold["num_rows"]["test"] for fold in results["folds"]) == len(rows) == 64
    report = (folder / "report.md").read_text()
    assert "3-fold cross-validation: 64 images of 16 patients" in report
    for text in ("| LumbarCLIP, zero-shot", "| LumbarCLIP − HOG", "| image to text, R@10", "± "):
        assert text in report
    assert (folder / "figures" / "comparison.png").stat().st_size > 5000
    assert not [path.name for path in folder.rglob("*") if "unfinished" in path.name]


def test_an_interrupted_run_repeats_no_finished_fold(finished, tiny_dataset_folder, tmp_path, monkeypatch):
    """Killed after pretraining fold 1: fold 0 is read, the checkpoint of fold 1 is used, fold 2 is run."""
    uninterrupted, _ = finished
    pretrain, measure, folder = cross_validate.pretrain, cross_validate.measure, tmp_path / "cv"
    trained, measured = [], []

    def watched_pretrain(args, dataset):
        trained.append(Path(args.output_dir).name)
        return pretrain(args, dataset)

    def killed_at_the_second(*args, **kwargs):
        measured.append(trained[-1])
        if measured == ["fold-0", "fold-1"]:
            raise KeyboardInterrupt
        return measure(*args, **kwargs)

    monkeypatch.setattr(cross_validate, "pretrain", watched_pretrain)
    monkeypatch.setattr(cross_validate, "measure", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        main(arguments(tiny_dataset_folder, folder))
    assert not (folder / "metrics.json").exists() and not (folder / "fold-1" / ANSWERS).exists()
    names = (f"fold-0/{ANSWERS}", "fold-1/history.jsonl", "fold-1/checkpoint/model.safetensors")
    kept = [folder / name for name in names]
    before = [path.stat().st_mtime_ns for path in kept]

    main(arguments(tiny_dataset_folder, folder, resume=True))
    assert trained == ["fold-0", "fold-1", "fold-1", "fold-2"]
    assert [path.stat().st_mtime_ns for path in kept] == before
    for resumed, at_once in zip(answers_of(folder), answers_of(uninterrupted), strict=True):
        for name in at_once:
            np.testing.assert_allclose(resumed[name], at_once[name], atol=1e-5, err_msg=name)

    main(arguments(tiny_dataset_folder, folder, resume=True, num_resamples=60))  # a finished one only measures again
    assert trained == ["fold-0", "fold-1", "fold-1", "fold-2"]


def test_a_finding_of_one_patient_is_null_with_the_reason(tiny_dataset_folder, tmp_path):
    """Whoever measures that patient has nothing to learn from; levels stand in for grades."""
    folder = tmp_path / "rare"
    (folder / "data").mkdir(parents=True)
    for split, rows in load_dataset(str(tiny_dataset_folder)).items():
        features = rows.features.copy()
        features["grade"] = features["level"]
        rare = rows.map(
            lambda row: {
                "labels": [k for k in row["labels"] if k == 1 or row["patient_id"] == "tiny-00"],
                "grade": row["level"],
            },
            features=features,
        )
        rare.to_parquet(folder / "data" / f"{split}.parquet")
    main(arguments(folder, tmp_path / "cv", baselines=False, max_updates=1))
    results = json.loads((tmp_path / "cv" / "metrics.json").read_text())
    (fold,) = {json.loads((tmp_path / "cv" / "folds.json").read_text())["fold_of_patient"]["tiny-00"]}
    for name in ("auroc/LBP", "macro_auroc"):
        entry = results["linear_probe"][name]
        assert entry["value"] is None
        assert f"learn `LBP` from all have it or all lack it (fold {fold})" in entry["reason"]
    assert results["zero_shot"]["auroc/LBP"]["value"] is not None
    assert results["linear_probe"]["auroc/No Finding"]["value"] is not None
    assert results["linear_probe"]["grade_quadratic_kappa"]["n"] == 64
    assert "## Undefined figures" in (tmp_path / "cv" / "report.md").read_text()


def test_folds_of_other_rows_are_not_mixed(finished, tiny_dataset_folder, tmp_path):
    folder, _ = finished
    before = (folder / "metrics.json").read_text()
    for changed, message in (
        ({}, "not empty: --resume"),
        ({"resume": True, "folds": 4}, "folds: 3 then, 4 now"),
        ({"resume": True, "seed": 1}, "seed: 0 then, 1 now"),
    ):
        with pytest.raises(ValueError, match=message):
            main(arguments(tiny_dataset_folder, folder, **changed))
    cut = json.loads((folder / "folds.json").read_text())
    try:
        (folder / "folds.json").write_text(json.dumps({**cut, "rows_sha256": "of another build"}))
        with pytest.raises(ValueError, match=r"cut from other rows.*--overwrite"):
            main(arguments(tiny_dataset_folder, folder, resume=True))
    finally:
        (folder / "folds.json").write_text(json.dumps(cut))
    assert (folder / "metrics.json").read_text() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--folds", "2"], "at least 3 .*got 2"),
        (["--num_resamples", "0"], "at least 1"),
        (["--no_evaluate"], "evaluate is false"),
    ],
)
def test_settings_that_cannot_work_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        parse_arguments(CrossValidateArguments, ["--dataset", "d", "--output_dir", "o", *words])
