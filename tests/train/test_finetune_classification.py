"""Fine-tuning: what is trained, when it stops, a killed run, and a checkpoint that answers as was measured."""

import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, concatenate_datasets, load_dataset
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModelForImageClassification

from modeling_lumbarclip import LumbarCLIPConfig, LumbarCLIPModel
from modeling_lumbarclip.pipeline_lumbarclip import LumbarCLIPImageClassificationPipeline
from tests.conftest import TINY_TEXT
from train.checkpoints.checkpoint import save_checkpoint
from train.checkpoints.onnx_export import weights_sha256
from train.classification import evaluation, task
from train.classification.arguments import FinetuneClassificationArguments
from train.classification.data import read_data
from train.evaluation.predictions import read_predictions
from train.finetune_classification import finetune
from train.training import loop
from train.training.loop import BestWeights

PROJECT = Path(__file__).parents[2]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def settings(tiny_model, tiny_processor, tiny_dataset_folder, tmp_path):
    save_checkpoint(tiny_model, tiny_processor, tmp_path / "pretrained")
    return {
        "checkpoint": str(tmp_path / "pretrained"),
        "dataset": str(tiny_dataset_folder),
        "output_dir": str(tmp_path / "run"),
        "epochs": 3,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "num_resamples": 20,
        "report_to": "none",
    }


def run(settings, **more):
    return finetune(FinetuneClassificationArguments(**settings, **more), load_dataset(settings["dataset"]))


def timeless_history(folder):
    """The history without the speed, which differs from run to run."""
    lines = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    return [{**line, "pairs_per_second": None} for line in lines]


def weights(settings):
    return load_file(f"{settings['output_dir']}/checkpoint/model.safetensors")


def read_json(settings, name):
    return json.loads((Path(settings["output_dir"]) / name).read_text())


def test_the_checkpoint_answers_as_was_measured(settings, monkeypatch):
    monkeypatch.setattr("train.evaluation.statistics.minima.PATIENTS_FOR_TEMPERATURE", 1)
    run(settings)
    folder = f"{settings['output_dir']}/checkpoint"
    model = AutoModelForImageClassification.from_pretrained(folder)
    assert model.config.id2label == {0: "LBP", 1: "No Finding"}
    assert model.config.problem_type == "single_label_classification"
    metrics = read_json(settings, "metrics.json")
    assert metrics["weights_sha256"] == weights_sha256(model)
    assert model.config.class_temperatures == list(metrics["class_temperatures"].values())
    classify = LumbarCLIPImageClassificationPipeline(
        model=model, image_processor=AutoImageProcessor.from_pretrained(folder), task="image-classification"
    )
    test = load_dataset(settings["dataset"])["test"]
    names = test.features["labels"].feature.names
    answers = classify(list(test["image"]))
    right = [answer[0]["label"] == names[label] for answer, (label,) in zip(answers, test["labels"], strict=True)]
    assert metrics["by_system"]["fine_tuned"]["accuracy"]["value"] == pytest.approx(np.mean(right))
    assert np.mean(right) > 0.9  # a bright disc bulges
    truths = [names[label] for (label,) in test["labels"]]
    scores = [{entry["label"]: entry["score"] for entry in answer} for answer in answers]
    likelihood = -np.mean([math.log(score[truth]) for score, truth in zip(scores, truths, strict=True)])
    calibrated = metrics["calibration"]["calibrated/negative_log_likelihood"]["value"]
    assert calibrated == pytest.approx(likelihood, rel=1e-3)
    predictions, truth = read_predictions(Path(settings["output_dir"]) / "predictions.parquet")
    for system in ("fine_tuned", "linear_probe", "majority"):
        accuracy = (predictions[system].argmax(1) == truth.classes).mean()
        assert metrics["by_system"][system]["accuracy"]["value"] == pytest.approx(accuracy)
    assert predictions["fine_tuned"][0] == pytest.approx([scores[0][name] for name in names], rel=1e-3)
    report = (Path(settings["output_dir"]) / "report.md").read_text()
    assert "| fine-tuned " in report and "Research use only" in report
    assert (
        report.split("\n\n")[1].startswith("**Too few to rank: 3 patients") and "## Summary\n\n- Fine-tuned: " in report
    )


@pytest.mark.slow
def test_the_scope_is_that_of_the_rows_it_was_fine_tuned_on(settings, monkeypatch):
    monkeypatch.setattr("train.evaluation.checkpoint_scope.PATIENTS_FOR_SCOPE", 3)
    monkeypatch.setattr("train.evaluation.checkpoint_scope.FALSE_ALARM_RATE", 0.2)
    model = run(settings, max_updates=2)
    assert model.config.scope["planes"] == ["axial"] and model.config.scope["check"]["num_patients"] == 3
    loaded = AutoModelForImageClassification.from_pretrained(f"{settings['output_dir']}/checkpoint")
    assert loaded.scope_problem() is None and loaded.config.scope == model.config.scope
    measured = read_json(settings, "metrics.json")["scope"]
    assert measured["in_words"].startswith("axial T1 and T2 slices") and 0 <= measured["held_back"]["value"] <= 1
    report = (Path(settings["output_dir"]) / "report.md").read_text()
    assert "**Scope**: Trained on axial T1 and T2 slices" in report


def test_a_run_killed_between_epochs_resumes_to_the_same_weights(settings, tmp_path, monkeypatch):
    run(settings)
    killed = {**settings, "output_dir": str(tmp_path / "killed")}
    save_state = loop.save_state

    def save_and_die(accelerator, output_dir, update):
        save_state(accelerator, output_dir, update)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(loop, "save_state", save_and_die)
        with pytest.raises(KeyboardInterrupt):
            run(killed)
    assert not (tmp_path / "killed" / "checkpoint").exists()
    with pytest.raises(ValueError, match="learning_rate: 0.003 then, 0.001 now"):
        run({**killed, "learning_rate": 1e-3}, resume=True)
    run(killed, resume=True)
    expected = weights(settings)
    for name, value in weights(killed).items():
        assert torch.equal(value, expected[name]), name
    assert read_json(killed, "metrics.json")["by_system"] == read_json(settings, "metrics.json")["by_system"]
    lines = [timeless_history(tmp_path / name) for name in ("run", "killed")]
    assert lines[0] == lines[1] and len(lines[0]) == 3
    run(killed, resume=True)  # nothing left to train: measured again


@pytest.mark.slow
def test_training_stops_and_keeps_the_weights_of_the_lowest_validation_loss(settings, monkeypatch):
    losses = iter([3.0, 1.0, 2.0, 2.5, 0.1])
    snapshots = []

    def validate(self, model, accelerator):
        snapshots.append({name: value.detach().clone() for name, value in model.state_dict().items()})
        return next(losses)

    monkeypatch.setattr(task.ClassificationTask, "validate", validate)
    run({**settings, "epochs": 5}, patience=2)
    training = read_json(settings, "metrics.json")["training"]
    assert training == {"epochs": 4, "best_epoch": 2}
    for name, value in weights(settings).items():
        assert torch.equal(value, snapshots[1][name]), name


def with_grades(folder, **grades_of_split):
    """The dataset with grades of 1, 2 and 3, of which no training row has 3."""
    graded = load_dataset(folder)
    for split, rows in graded.items():
        grades = grades_of_split.get(split, [label for (label,) in rows["labels"]])
        graded[split] = rows.remove_columns("grade").add_column("grade", grades)
        graded[split] = graded[split].cast_column("grade", ClassLabel(names=["1", "2", "3"]))
    return graded


@pytest.mark.parametrize("loss", ["class_balanced", "logit_adjusted", "plain"])
def test_a_validation_patient_of_a_class_without_training_rows_changes_no_weight(settings, loss, monkeypatch, caplog):
    """One such row would decide when to stop: nothing of it is ever learned."""
    monkeypatch.setattr(evaluation, "evaluate_classifier", lambda *_: None)
    grades = [0, 1] * 5 + [2, None]
    runs = {}
    for name, of_validation in (("with", grades), ("without", [*grades[:-2], None, None])):
        runs[name] = {**settings, "output_dir": f"{settings['output_dir']}-{name}", "epochs": 2}
        args = FinetuneClassificationArguments(**runs[name], target="grade", loss=loss)
        finetune(args, with_grades(settings["dataset"], validation=of_validation))
    histories = [timeless_history(Path(run["output_dir"])) for run in runs.values()]
    assert histories[0] == histories[1]
    for name, value in weights(runs["with"]).items():
        assert torch.equal(value, weights(runs["without"])[name]), name
    told = [record.getMessage() for record in caplog.records if "without a training row" in record.getMessage()]
    assert len(told) == 2 and "`3` (1 validation rows, 0 test rows)" in told[0]


def test_errors_on_a_class_without_training_rows_count_on_the_test_split(settings):
    dataset = with_grades(settings["dataset"], test=[0, 1, 2] * 4)
    finetune(FinetuneClassificationArguments(**{**settings, "epochs": 1}, target="grade"), dataset)
    metrics = read_json(settings, "metrics.json")
    assert metrics["dataset"]["num_rows"] == 12 and metrics["dataset"]["labels"]["3"]["rows"] == 4
    assert metrics["by_system"]["fine_tuned"]["accuracy"]["value"] <= 8 / 12


def test_validation_rows_of_which_none_can_be_answered_are_refused(tiny_dataset_folder):
    dataset = with_grades(str(tiny_dataset_folder), validation=[2] * 12)
    with pytest.raises(ValueError, match=r"No validation row has .*: `3` \(12 validation rows, 0 test rows\)"):
        read_data(dataset, "grade")


def test_findings_that_are_left_out_leave_every_row_answerable(tiny_dataset_folder, caplog):
    caplog.set_level(logging.WARNING)
    dataset = load_dataset(str(tiny_dataset_folder))
    nothing, bulge = [], [dataset["train"].features["labels"].feature.str2int("LBP")]
    for split in dataset:
        labels = [nothing if split == "train" and label != bulge else label for label in dataset[split]["labels"]]
        features = dataset[split].features
        dataset[split] = (
            dataset[split].remove_columns("labels").add_column("labels", labels, feature=features["labels"])
        )
    data = read_data(dataset, "labels")
    assert data.class_names == ("LBP",) and data.answerable("validation").all()
    assert [record.getMessage() for record in caplog.records] == [
        "Left out: `No Finding` has 0 positive rows of 40 to learn from."
    ]


@pytest.mark.parametrize("more", [{}, {"lora_rank": 2}])
def test_a_checkpoint_in_half_precision_is_trained_and_measured_in_float32(
    settings, tiny_model, tiny_processor, tmp_path, more
):
    save_checkpoint(tiny_model.to(torch.bfloat16), tiny_processor, tmp_path / "half")
    run({**settings, "checkpoint": str(tmp_path / "half"), "epochs": 1}, **more)
    before, after = load_file(tmp_path / "half" / "model.safetensors"), weights(settings)
    assert {value.dtype for value in after.values()} == {torch.float32}
    trained = [name for name in before if "attn" in name and name in after and before[name].ndim > 1]
    assert all((after[name] != before[name].float()).float().mean() > 0.9 for name in trained) and trained


def test_a_gradient_that_is_no_number_reaches_no_weight(settings, monkeypatch):
    load_pretrained = task.load_pretrained

    def load_with_infinite_gradient(*words):
        model, processor = load_pretrained(*words)
        model.classifier.weight.register_hook(lambda gradient: gradient * math.inf)
        return model, processor

    monkeypatch.setattr(task, "load_pretrained", load_with_infinite_gradient)
    with pytest.raises(FloatingPointError, match=r"gradient norm is (inf|nan) at update 1 .*Rows of this step: tiny/"):
        run(settings)
    assert not (Path(settings["output_dir"]) / "states").exists()


def test_a_validation_loss_that_is_no_number_stops_the_run(settings):
    diverging = {**settings, "batch_size": 40, "learning_rate": 1e30, "epochs": 1}
    with pytest.raises(FloatingPointError, match="validation loss is (inf|nan) at update 1 .*--learning_rate"):
        run(diverging, warmup_ratio=0.0, max_grad_norm=1e30)
    folder = Path(settings["output_dir"])
    assert not (folder / "checkpoint").exists() and not (folder / "states").exists()


def test_best_weights_are_a_copy():
    layer, best = torch.nn.Linear(1, 1), BestWeights()
    best.consider(1, 1.0, layer)
    kept = layer.weight.clone()
    with torch.no_grad():
        layer.weight += 1
    best.consider(2, 1.0, layer)
    again = BestWeights()
    again.load_state_dict(best.state_dict())
    assert again.epoch == 1 and torch.equal(again.weights["weight"], kept)


# The first process stops after four epochs; the other would go on, and wait for it.
EACH_ITS_OWN_LOSSES = """
import hashlib, json, os, sys
from pathlib import Path
from train import finetune_classification
from train.classification import task
from train.classification.arguments import FinetuneClassificationArguments
rank, out, weights = int(os.environ["RANK"]), Path(sys.argv[1]), []
losses = [[3.0, 1.0, 2.0, 2.5, 2.5, 2.5], [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]][rank]
def validate(self, model, accelerator):
    content = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
    weights.append(hashlib.sha256(content).hexdigest())
    return losses[len(weights) - 1]
task.ClassificationTask.validate = validate
finetune_classification.main(FinetuneClassificationArguments(**json.loads(sys.argv[2])))
(out / f"weights-{rank}.json").write_text(json.dumps(weights))
"""


@pytest.mark.slow
def test_two_processes_stop_together_with_the_same_batch_statistics(settings, tiny_processor, tmp_path):
    vision = {
        "model_type": "timm_wrapper",
        "architecture": "resnet10t",
        "model_args": {"channels": [8, 8, 16, 16], "stem_width": 8},
    }
    torch.manual_seed(0)
    model = LumbarCLIPModel(LumbarCLIPConfig(vision_config=vision, text_config=TINY_TEXT, projection_dim=8))
    save_checkpoint(model, tiny_processor, tmp_path / "resnet")
    arguments = {**settings, "checkpoint": str(tmp_path / "resnet"), "epochs": 6, "batch_size": 4, "patience": 2}
    (tmp_path / "script.py").write_text(EACH_ITS_OWN_LOSSES)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*torchrun, str(tmp_path / "script.py"), str(tmp_path), json.dumps(arguments)],
        env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert read_json(settings, "run.json")["num_processes"] == 2
    first, second = (json.loads((tmp_path / f"weights-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second and len(set(first)) == 4
    assert read_json(settings, "metrics.json")["training"] == {"epochs": 4, "best_epoch": 2}


@pytest.mark.slow
def test_whether_the_starting_weights_saw_the_test_patients_is_told(settings):
    run({**settings, "epochs": 1})
    start = {"checkpoint": settings["checkpoint"], "is_folder": True, "rows": "unknown"}
    assert read_json(settings, "run.json")["start"] == start
    assert read_json(settings, "metrics.json")["dataset"]["start"] == start
    said = "**Starting weights**: It is unknown whether its starting weights saw these test patients."
    assert said in (Path(settings["output_dir"]) / "report.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"freeze_tower": True}, {"lora_rank": 2}, {"layer_decay": 0.5}])
def test_what_is_trained(settings, more):
    run({**settings, "epochs": 1}, **more)
    start = LumbarCLIPModel.from_pretrained(settings["checkpoint"]).state_dict()
    changed = {
        name for name, value in weights(settings).items() if name in start and not torch.equal(value, start[name])
    }
    adapters = Path(settings["output_dir"]) / "adapter"
    assert adapters.exists() == ("lora_rank" in more)
    if "freeze_tower" in more:
        assert not changed
    elif "lora_rank" in more:
        assert changed and all("attn" in name for name in changed)
    else:
        assert any("patch_embed" in name for name in changed) and any("blocks.1" in name for name in changed)


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"freeze_tower": True}, {"lora_rank": 2}])
def test_a_fused_head_carries_the_texts_of_its_classes(settings, tiny_model, tiny_processor, more):
    """As the text tower of the pretrained checkpoint embeds them; adapters bring them, too."""
    run({**settings, "epochs": 2, "head": "fusion"}, **more)
    expected = []
    for name in ("LBP", "No Finding"):
        tokens = tiny_processor(text=tiny_processor.class_prompt_texts(name), return_tensors="pt")
        with torch.no_grad():
            embeds = tiny_model.get_text_features(**tokens).pooler_output
        expected.append(torch.nn.functional.normalize(embeds.mean(dim=0), dim=0))
    torch.testing.assert_close(weights(settings)["class_embeds"], torch.stack(expected), rtol=1e-4, atol=1e-5)
    model = AutoModelForImageClassification.from_pretrained(f"{settings['output_dir']}/checkpoint")
    assert model.config.class_text_width == 8
    assert read_json(settings, "metrics.json")["weights_sha256"] == weights_sha256(model)
    start = LumbarCLIPModel.from_pretrained(settings["checkpoint"]).state_dict()
    assert not torch.equal(weights(settings)["image_projection.weight"], start["image_projection.weight"])
    if "lora_rank" in more:
        (saved,) = Path(settings["output_dir"], "adapter").glob("*.safetensors")
        adapters = load_file(saved)
        assert any(name.endswith("class_embeds") for name in adapters)


def test_a_fused_head_of_grades_gets_the_texts_of_the_grades(tiny_model, tiny_processor, tiny_dataset_folder, tmp_path):
    names = ["1", "2", "3", "4", "5"]
    dataset = load_dataset(str(tiny_dataset_folder))
    for split, rows in dataset.items():
        grades = [row % 5 for row in range(len(rows))]
        dataset[split] = rows.remove_columns("grade").add_column("grade", grades, feature=ClassLabel(names=names))
    save_checkpoint(tiny_model, tiny_processor, tmp_path / "pretrained")
    embeds = task.embed_classes(tmp_path / "pretrained", read_data(dataset, "grade"))
    assert embeds.shape == (5, 8) and len(embeds.unique(dim=0)) == 5
    torch.testing.assert_close(embeds.norm(dim=1), torch.ones(5))


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["plain", "logit_adjusted"])
def test_every_loss_learns_findings(settings, loss):
    """Two labels in a row make findings of them."""
    dataset = load_dataset(settings["dataset"])
    both = dataset["train"].select([0]).map(lambda row: {"labels": [0, 1]})
    dataset["train"] = concatenate_datasets([dataset["train"], both])
    model = finetune(FinetuneClassificationArguments(**{**settings, "epochs": 2}, loss=loss), dataset)
    assert model.config.problem_type == "multi_label_classification"
    metrics = read_json(settings, "metrics.json")
    assert model.config.class_temperatures == list(metrics["class_temperatures"].values())
    assert metrics["by_system"]["fine_tuned"]["macro_auroc"]["value"] > 0.9


def test_grades_are_exclusive_classes_of_the_graded_rows(tiny_dataset_folder):
    dataset = load_dataset(str(tiny_dataset_folder))
    with pytest.raises(ValueError, match="no row of train, validation, test has a grade"):
        read_data(dataset, "grade")
    graded = {}
    for split, rows in dataset.items():
        grades = [None if index % 3 == 2 else index % 2 for index in range(len(rows))]
        graded[split] = rows.remove_columns("grade").add_column("grade", grades)
        graded[split] = graded[split].cast_column("grade", ClassLabel(names=["1", "2", "3"]))
    data = read_data(graded, "grade")
    assert data.class_names == ("1", "2", "3") and data.problem_type == "single_label_classification"
    assert len(data.rows["train"]) == len(data.targets["train"]) == sum(index % 3 != 2 for index in range(40))
    assert data.multi_hot("train").sum(0).tolist() == [13.0, 14.0, 0.0]
    assert all(grade is not None for grade in data.rows["train"]["grade"])


@pytest.mark.parametrize(
    "more, message",
    [
        ({"target": "level"}, "labels, grade; got 'level'"),
        ({"loss": "focal"}, "plain, class_balanced, logit_adjusted; got 'focal'"),
        ({"layer_decay": 0.0}, r"in \(0, 1\]"),
        ({"freeze_tower": True, "lora_rank": 4}, "freeze_tower does not train the tower"),
        ({"patience": 0}, "patience must be at least 1; got 0"),
        ({"resume": True, "overwrite": True}, "choose one"),
    ],
)
def test_settings_that_cannot_work_are_refused(more, message):
    with pytest.raises(ValueError, match=message):
        FinetuneClassificationArguments(checkpoint="c", dataset="d", output_dir="o", **more)


@pytest.mark.slow
def test_a_start_that_is_none_is_refused(settings, tmp_path):
    with pytest.raises(ValueError, match="No checkpoint at .*nowhere"):
        run({**settings, "checkpoint": str(tmp_path / "nowhere")})
    with pytest.raises(ValueError, match="Did you mean "):
        run({**settings, "checkpoint": str(Path(settings["checkpoint"]).parent)})
    run({**settings, "epochs": 1})
    with pytest.raises(ValueError, match="is already a classifier"):
        run({**settings, "checkpoint": f"{settings['output_dir']}/checkpoint", "output_dir": str(tmp_path / "second")})
