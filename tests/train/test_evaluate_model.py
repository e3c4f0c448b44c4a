import json
import sys
from dataclasses import fields

import numpy as np
import pytest
import timm
from datasets import load_dataset

from data_scripts.system.command_line import parse_arguments
from data_scripts.system.staging import only_process
from train.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from train.checkpoints.onnx_export import weights_sha256
from train.data.loaders import rows_sha256
from train.evaluate_model import main
from train.evaluation import baselines
from train.evaluation.arguments import EvaluateArguments
from train.evaluation.predictions import of_baselines, read_predictions
from train.reporting.evaluation import EvaluationSettings, evaluate

BASELINES = ["majority", "untrained", "pixel_pca", "hog", "texture", "imagenet", "no_pixels"]


@pytest.fixture(autouse=True)
def imagenet_tower(monkeypatch):
    """A small tower of random weights: the tests load nothing."""
    tower = timm.create_model("test_efficientnet", num_classes=0)
    monkeypatch.setattr(baselines, "imagenet_tower", lambda: (tower.eval(), ""))


@pytest.fixture
def dataset(tiny_dataset_folder):
    return load_dataset(str(tiny_dataset_folder))


@pytest.mark.usefixtures("any_number_is_ranked")
def test_writes_metrics_report_and_figures(tiny_model, tiny_processor, tiny_dataset_folder, tmp_path, monkeypatch):
    save_checkpoint(tiny_model, tiny_processor, tmp_path / "checkpoint")
    history = {"update": 1, "loss": 2.0, "learning_rate": 1e-3, "inverse_temperature": 14.0}
    (tmp_path / "history.jsonl").write_text(json.dumps(history) + "\n")
    words = ["--checkpoint", str(tmp_path / "checkpoint"), "--dataset", str(tiny_dataset_folder)]
    monkeypatch.setattr(sys, "argv", ["train/evaluate_model.py", *words])
    main(parse_arguments(EvaluateArguments, [*words, "--num_resamples", "50"]))

    results = json.loads((tmp_path / "metrics.json").read_text())
    groups = ["linear_probe", "zero_shot", "retrieval", "baselines", "further", "zero_shot_first_prompt"]
    groups += ["left_out_baselines", "scope", "prompts", "unseen_wordings", "statement_cosines"]
    assert list(results) == [*groups, "training_set", "dataset", "weights_sha256", "command", "date"]
    assert {
        *(f"probe/{probe}/unprojected" for probe in ("paper", "paper_balanced", "paper_logit_adjusted", "knn")),
        "probe/logistic/projected",
        "decision/paper_threshold/unprojected",
        "patients/mean",
        "patients/attention",
        "retrieval/pair",
        "retrieval/facts",
        "calibration/paper",
        "calibration/zero_shot",
    } <= set(results["further"])
    assert results["further"]["patients/mean"]["accuracy"]["n"] == 3
    assert "auroc" not in results["further"]["decision/paper_threshold/unprojected"]
    assert {"value", "low", "high", "n"} <= set(results["linear_probe"]["macro_f1"])
    assert 0 <= results["zero_shot"]["balanced_accuracy"]["value"] <= 1
    assert results["retrieval"]["image_to_text_recall_at_1"]["n"] == 12
    assert list(results["baselines"]) == BASELINES
    assert all("macro_f1" in results["baselines"][name]["linear_probe"] for name in BASELINES)
    assert results["dataset"]["num_rows"] == 12
    assert results["dataset"]["num_patients"] == 3
    assert results["dataset"]["synthetic"] is False
    measured, _ = load_checkpoint(tmp_path / "checkpoint")
    assert results["weights_sha256"] == weights_sha256(measured)
    rows = {name: rows_sha256(split) for name, split in load_dataset(str(tiny_dataset_folder)).items()}
    assert results["dataset"]["rows_sha256"] == rows and len(set(rows.values())) == 3
    assert results["command"].startswith("python train/evaluate_model.py --checkpoint")

    # In the tiny set a bright disc bulges and a dark one does not: pixels tell, the majority class does not.
    assert results["baselines"]["pixel_pca"]["linear_probe"]["macro_f1"]["value"] == 1
    majority = results["baselines"]["majority"]
    assert majority["linear_probe"]["balanced_accuracy"]["value"] == 0.5
    difference = results["linear_probe"]["macro_f1"]["value"] - majority["linear_probe"]["macro_f1"]["value"]
    assert majority["difference"]["macro_f1"]["value"] == pytest.approx(difference)

    predictions, truth = read_predictions(tmp_path / "predictions.parquet")
    assert len(truth) == 12 and truth.exclusive
    accuracy = (predictions["probe/logistic/unprojected"].argmax(1) == truth.classes).mean()
    assert results["linear_probe"]["accuracy"]["value"] == pytest.approx(accuracy)
    assert set(of_baselines(predictions)) == set(BASELINES)

    report = (tmp_path / "report.md").read_text()
    assert "Research use only" in report
    assert "HOG" in report
    for line in report.splitlines():
        if line.startswith("!["):
            assert (tmp_path / line.split("(")[1].rstrip(")")).stat().st_size > 5000
    drawn = {"training.png", "confusion.png", "text_to_image.png", "wordings.png", "wordings.svg"}
    assert drawn <= {path.name for path in (tmp_path / "figures").iterdir()}
    assert [len(results["unseen_wordings"]["LBP"][side]) for side in ("present", "absent")] == [10, 10]
    assert all(-1 <= cosine <= 1 for cosine in results["statement_cosines"].values())
    assert results["further"]["polarity"].keys() == {
        "polarity_accuracy",
        "polarity_accuracy_together",
        "polarity_accuracy/LBP",
        "polarity_accuracy/No Finding",
    }
    left_over = [path.name for path in tmp_path.rglob("*") if "unfinished" in path.name]
    assert not left_over


def test_a_second_run_reads_the_cache_and_says_the_same(tiny_model, tiny_processor, dataset, tmp_path, monkeypatch):
    settings = EvaluationSettings(batch_size=8, baselines=False, num_resamples=20)
    first = evaluate(tiny_model, tiny_processor, dataset, tmp_path, settings=settings)
    assert len(list((tmp_path / "features").iterdir())) == 3
    monkeypatch.setattr("train.evaluation.features.encode_images", None)
    second = evaluate(tiny_model, tiny_processor, dataset, tmp_path, settings=settings)
    assert {**second, "date": None} == {**first, "date": None}


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ({"batch_size": 8}, {"texts_per_pair": 1, "balance": [], "minority_share": 0.5}),  # of an older run
        ({"texts_per_pair": 5, "balance": ["upsample"], "minority_share": 0.2}, None),
    ],
)
def test_the_papers_probe_learns_from_the_set_of_the_run(
    tiny_model, tiny_processor, tiny_dataset_folder, tmp_path, arguments, expected
):
    save_checkpoint(tiny_model, tiny_processor, tmp_path / "checkpoint")
    (tmp_path / "run.json").write_text(json.dumps({"arguments": arguments}))
    words = ["--checkpoint", str(tmp_path / "checkpoint"), "--dataset", str(tiny_dataset_folder), "--no_baselines"]
    main(parse_arguments(EvaluateArguments, [*words, "--num_resamples", "20"]))
    assert json.loads((tmp_path / "metrics.json").read_text())["training_set"] == (expected or arguments)


def test_an_absent_class_is_null_with_a_reason(tiny_model, tiny_processor, dataset, tmp_path):
    dataset["test"] = dataset["test"].filter(lambda row: row["labels"] == [0])
    settings = EvaluationSettings(batch_size=8, baselines=False, num_resamples=20)
    results = evaluate(tiny_model, tiny_processor, dataset, tmp_path, settings=settings)
    entry = json.loads((tmp_path / "metrics.json").read_text())["linear_probe"]["macro_f1"]
    assert entry["value"] is None
    assert "`No Finding`" in entry["reason"]
    assert "`No Finding`" in (tmp_path / "report.md").read_text()
    assert results["linear_probe"]["accuracy"]["value"] is not None


def test_multi_label_data_with_grades(tiny_model, tiny_processor, dataset, tmp_path):
    """Rows without a label make the set multi-label; levels stand in for grades."""
    features = dataset["train"].features.copy()
    features["grade"] = features["level"]
    for split in dataset:
        graded = dataset[split].map(lambda row, i: {"grade": row["level"], "labels": row["labels"][i % 5 == 0 :]},
                                    with_indices=True, features=features)  # fmt: skip
        dataset[split] = graded
    settings = EvaluationSettings(batch_size=8, num_resamples=20)
    results = evaluate(tiny_model, tiny_processor, dataset, tmp_path, settings=settings)
    probe = results["linear_probe"]
    kappas = {"grade_quadratic_kappa", "ordinal_grade_quadratic_kappa"}
    assert {"macro_auroc", "macro_auroc_with_no_finding", "auroc/LBP", *kappas} <= set(probe)
    assert np.isclose(probe["macro_auroc"]["value"], probe["auroc/LBP"]["value"])
    assert set(results["baselines"]["hog"]["difference"]) == {"macro_auroc", *kappas}
    assert set(results["baselines"]["texture"]["difference"]) == {"macro_auroc", "grade_quadratic_kappa"}
    assert "ordinal grade quadratic kappa" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "figures" / "grade_confusion.png").exists()


def test_what_test_and_training_share_is_reported(tiny_model, tiny_processor, dataset, tmp_path):
    dataset["test"] = dataset["train"].select(range(8))
    settings = EvaluationSettings(batch_size=8, baselines=False, num_resamples=20)
    results = evaluate(tiny_model, tiny_processor, dataset, tmp_path, settings=settings)
    leak = results["dataset"]["leak"]
    assert {kind: leak[kind]["num_shared"] for kind in ("patient", "study", "image")} == {
        "patient": 2,
        "study": 2,
        "image": 8,
    }
    assert "**Leak**: 2 patients in several splits (rows: train 8, test 8)" in (tmp_path / "report.md").read_text()


def test_bad_settings_are_refused(tiny_model, tiny_processor, dataset, tmp_path):
    for words, message in ((["--split", "validation"], "fitted on it"), (["--num_resamples", "0"], "at least 1")):
        with pytest.raises(ValueError, match=message):
            parse_arguments(EvaluateArguments, ["--checkpoint", "c", "--dataset", "d", *words])
    with pytest.raises(ValueError, match="no split 'held_out'; it has train"):
        settings = EvaluationSettings(split="held_out")
        evaluate(tiny_model, tiny_processor, dataset, tmp_path, settings=settings)
    assert not list(tmp_path.iterdir())


def test_help_explains_every_setting(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(EvaluateArguments, ["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for setting in fields(EvaluateArguments):
        assert f"--{setting.name}" in shown
        assert setting.metadata["help"] in shown
    assert "--no_baselines" in shown


def test_two_evaluations_do_not_write_to_one_folder(tiny_model, tiny_processor, tiny_dataset_folder, tmp_path):
    save_checkpoint(tiny_model, tiny_processor, tmp_path / "run" / "checkpoint")
    words = ["--checkpoint", str(tmp_path / "run" / "checkpoint"), "--dataset", str(tiny_dataset_folder)]
    with only_process(tmp_path / "run"), pytest.raises(ValueError, match="another process is writing to .*run"):
        main(parse_arguments(EvaluateArguments, words))
    (tmp_path / "run" / "metrics.json").write_text('{"dataset": {"na')
    with pytest.raises(ValueError, match=r"metrics\.json cannot be read .*Delete it"):
        main(parse_arguments(EvaluateArguments, words))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["checkpoint", "metrics.json"]
