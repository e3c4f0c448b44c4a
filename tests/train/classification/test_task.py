"""Severity: a classifier that starts from a segmenter, and two systems compared."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, load_dataset
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from transformers import AutoModelForImageClassification

from modeling_lumbarclip import LumbarCLIPForSemanticSegmentation
from train.checkpoints.checkpoint import save_checkpoint
from train.checkpoints.onnx_export import weights_sha256
from train.classification import task
from train.classification.arguments import FinetuneClassificationArguments
from train.classification.data import read_data
from train.evaluation.predictions import read_predictions
from train.finetune_classification import finetune

pytestmark = pytest.mark.usefixtures("one_thread")


def metrics_of(settings):
    return json.loads((Path(settings["output_dir"]) / "metrics.json").read_text())


@pytest.fixture
def settings(tiny_model, tiny_processor, tiny_dataset_folder, tmp_path):
    """From a segmenter, to the grades of a dataset."""
    prompts = tiny_processor.segmentation_prompts(["disc", "canal"])
    masks = {"id2label": {0: "background", 1: "disc", 2: "canal"}, **prompts}
    tiny_model.save_pretrained(tmp_path / "towers")
    torch.manual_seed(0)
    segmenter = LumbarCLIPForSemanticSegmentation.from_pretrained(tmp_path / "towers", **masks)
    save_checkpoint(segmenter, tiny_processor, tmp_path / "segmenter")
    return {
        "checkpoint": str(tmp_path / "segmenter"),
        "dataset": str(tiny_dataset_folder),
        "output_dir": str(tmp_path / "run"),
        "target": "grade",
        "epochs": 2,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "num_resamples": 20,
        "report_to": "none",
    }


def with_grades(folder):
    """The dataset with grades of 1, 2 and 3 by the labels: the first label has two of them."""
    dataset = load_dataset(folder)
    for split, rows in dataset.items():
        grades = [2 if label else row % 2 for row, (label,) in enumerate(rows["labels"])]
        names = ClassLabel(names=["1", "2", "3"])
        dataset[split] = rows.remove_columns("grade").add_column("grade", grades, feature=names)
    return dataset


def finetune_graded(settings, **more):
    return finetune(FinetuneClassificationArguments(**settings, **more), with_grades(settings["dataset"]))


@pytest.mark.parametrize("more", [{}, {"head": "fusion", "freeze_tower": True}, {"head": "fusion", "lora_rank": 2}])
def test_severity_is_learned_on_the_features_of_a_segmenter(settings, more):
    model = finetune_graded(settings, **more)
    before, after = (
        load_file(f"{settings['checkpoint']}/model.safetensors"),
        load_file(f"{settings['output_dir']}/checkpoint/model.safetensors"),
    )
    assert model.config.mask_classes == 3 and model.config.id2label == {0: "1", 1: "2", 2: "3"}
    kept = {name: torch.equal(value, before[name]) for name, value in after.items() if name in before}
    assert all(same for name, same in kept.items() if name.startswith("text_model."))
    learned = {name.split(".")[0] for name, same in kept.items() if not same}
    assert learned == (set() if more.get("freeze_tower") else {"vision_model", "decoder"})
    if "head" in more:
        assert model.config.class_text_width == after["class_embeds"].shape[1] == 16  # of the text tower
        torch.testing.assert_close(after["class_embeds"].norm(dim=1), torch.ones(3))
        assert model.image_projection.in_features == model.classifier.in_features - 16
    loaded = AutoModelForImageClassification.from_pretrained(f"{settings['output_dir']}/checkpoint")
    assert weights_sha256(loaded) == metrics_of(settings)["weights_sha256"]


def test_two_systems_are_compared_grade_by_grade(settings, tmp_path):
    first = settings | {"output_dir": str(tmp_path / "first"), "epochs": 1}
    finetune_graded(first)
    finetune_graded(settings, compare_with=[first["output_dir"]])
    metrics = metrics_of(settings)
    predictions, truth = read_predictions(Path(settings["output_dir"]) / "predictions.parquet")
    theirs = read_predictions(Path(first["output_dir"]) / "predictions.parquet")[0]["fine_tuned"]
    ours, classes = predictions["fine_tuned"], truth.classes
    assert (predictions["first"] == theirs).all()
    right, others = ours.argmax(1) == classes, theirs.argmax(1) == classes
    assert list(metrics["mcnemar"]) == ["linear_probe", "majority", "first"]
    assert metrics["mcnemar"]["first"]["only_first"] == (right & ~others).sum()
    assert metrics["mcnemar"]["first"]["only_other"] == (others & ~right).sum()
    assert metrics["by_system"]["first"] == metrics_of(first)["by_system"]["fine_tuned"]
    measured = metrics["by_system"]["fine_tuned"]
    aurocs = [roc_auc_score(classes == grade, ours[:, grade]) for grade in range(3)]
    assert [measured[f"auroc/{grade}"]["value"] for grade in "123"] == pytest.approx(aurocs)
    assert measured["macro_auroc"]["value"] == pytest.approx(np.mean(aurocs))
    report = (Path(settings["output_dir"]) / "report.md").read_text()
    assert "McNemar's exact test" in report and "| first " in report
    for wrong, said in (
        ({"compare_with": [str(tmp_path)]}, "has no predictions.parquet; name the output_dir"),
        ({"compare_with": [first["output_dir"]], "target": "labels"}, "first predicts 1, 2, 3, and this run LBP"),
        ({"compare_with": [first["output_dir"]] * 2}, "'first' is empty, given twice, or one of fine_tuned"),
    ):
        with pytest.raises(ValueError, match=said):
            finetune_graded(settings | {"output_dir": str(tmp_path / "none")} | wrong)
        assert not (tmp_path / "none").exists()


def test_a_head_that_reads_texts_needs_a_segmenter_with_a_text_tower(settings, tiny_model, tiny_processor):
    folder = Path(settings["checkpoint"])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"cross_attention": "none"}))
    with pytest.raises(ValueError, match="has no text tower .*--head linear"):
        task.embed_classes(folder, read_data(with_grades(settings["dataset"]), "grade"))
