"""The metric of `evaluate`: loaded by path in a process of its own, it gives the figures of our evaluation."""

import json
import os
import subprocess
import sys
from pathlib import Path

import evaluate
import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from train.evaluation import lumbar_metrics
from train.evaluation.label_metrics import label_estimates, label_measures
from train.evaluation.statistics.bootstrap import Resampling, estimates_of
from train.evaluation.targets import Targets

PATH = lumbar_metrics.__file__
NAMES = ["LBP", "No Finding"]
FINDINGS = ["bulge", "stenosis", "No Finding"]
FRESH_PROCESS = """
import json, sys
import evaluate
metric = evaluate.load(sys.argv[1], "single_label")
print(json.dumps(metric.compute(**json.loads(sys.argv[2]))))
"""


@pytest.fixture
def exclusive():
    rng = np.random.default_rng(0)
    references = rng.integers(2, size=60)
    score = np.clip(rng.normal(0.35 + 0.3 * (1 - references), 0.2), 0.01, 0.99)
    patients = [f"p{row // 4}" for row in range(60)]
    return {"predictions": np.stack([score, 1 - score], axis=1), "references": references, "patient_ids": patients}


def targets(names, labels, patients, exclusive):
    nothing = np.full(len(labels), -1)
    return Targets("measured", tuple(names), labels.astype(bool), exclusive, (), nothing, np.array(patients))


def as_dicts(estimates):
    return {name: estimate.as_dict() for name, estimate in estimates.items()}


def test_exclusive_classes_get_the_figures_of_our_evaluation(exclusive):
    figures = evaluate.load(PATH, "single_label").compute(**exclusive, label_names=NAMES, num_resamples=50, seed=3)
    truth = targets(NAMES, np.eye(2)[exclusive["references"]], exclusive["patient_ids"], exclusive=True)
    assert figures == as_dicts(label_estimates(truth, exclusive["predictions"], Resampling(50, 3)))
    predicted = exclusive["predictions"].argmax(1)
    assert figures["balanced_accuracy"]["value"] == pytest.approx(
        balanced_accuracy_score(exclusive["references"], predicted)
    )
    auroc = figures["auroc"]
    assert auroc["value"] == pytest.approx(roc_auc_score(exclusive["references"] == 0, exclusive["predictions"][:, 0]))
    assert auroc["low"] < auroc["value"] < auroc["high"] and auroc["n"] == 60


def test_findings_get_the_figures_of_our_evaluation():
    rng = np.random.default_rng(1)
    references = rng.integers(2, size=(40, 3))
    predictions = np.clip(references * 0.4 + rng.random((40, 3)) * 0.6, 0, 1)
    patients = [f"p{row // 2}" for row in range(40)]
    metric = evaluate.load(PATH, "multi_label")
    for start in (0, 25):  # in batches, as a data loader gives them
        rows = slice(start, start + 25)
        metric.add_batch(
            predictions=predictions[rows], references=references[rows].tolist(), patient_ids=patients[rows]
        )
    figures = metric.compute(label_names=FINDINGS, threshold=0.3, num_resamples=50)
    truth = targets(FINDINGS, references, patients, exclusive=False)
    assert figures == as_dicts(estimates_of(label_measures(truth, predictions, said=predictions > 0.3), Resampling(50)))
    expected = np.mean([roc_auc_score(references[:, k], predictions[:, k]) for k in (0, 1)])
    assert figures["macro_auroc"]["value"] == pytest.approx(expected)


def test_intervals_draw_patients_and_not_images(exclusive):
    metric = evaluate.load(PATH, "single_label")
    one_patient = metric.compute(**{**exclusive, "patient_ids": ["p"] * 60}, label_names=NAMES)["accuracy"]
    assert one_patient["low"] is None and "one patient" in one_patient["reason"]


@pytest.mark.parametrize(
    ("config", "changed", "message"),
    [
        ("single_label", {"predictions": np.full((60, 2), 3.0)}, "softmax or sigmoid"),
        ("single_label", {"predictions": np.full((60, 2), 0.7)}, "sum to 1"),
        ("single_label", {"predictions": np.full((60, 3), 1 / 3)}, r"need 2 probabilities.*\(60, 3\)"),
        ("single_label", {"references": [2] * 60}, "class indices below 2; got values .2."),
        ("multi_label", {"references": [[0, 1, 1]] * 60}, r"rows of 2 zeros and ones; .*\(60, 3\)"),
    ],
)
def test_what_cannot_be_measured_is_refused(exclusive, config, changed, message):
    with pytest.raises(ValueError, match=message):
        evaluate.load(PATH, config).compute(**{**exclusive, **changed}, label_names=NAMES)


def test_without_a_configuration_the_classes_exclude_each_other(exclusive):
    asked = {**exclusive, "label_names": NAMES, "num_resamples": 20}
    assert evaluate.load(PATH).compute(**asked) == evaluate.load(PATH, "single_label").compute(**asked)
    with pytest.raises(ValueError, match="don't match the expected format"):
        evaluate.load(PATH).compute(**{**asked, "references": [[0, 1]] * 60})


def test_a_configuration_that_is_none():
    with pytest.raises(ValueError, match=r"single_label \(the default\) or multi_label; got 'findings'"):
        evaluate.load(PATH, "findings")


@pytest.mark.slow
def test_it_loads_by_path_in_a_process_of_its_own(exclusive, tmp_path):
    inputs = {name: np.asarray(values).tolist() for name, values in exclusive.items()}
    inputs |= {"label_names": NAMES, "num_resamples": 20}
    offline = {"HF_EVALUATE_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS, PATH, json.dumps(inputs)],
        cwd=tmp_path,
        env={**os.environ, **offline, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    here = evaluate.load(PATH, "single_label").compute(**inputs)
    assert json.loads(done.stdout.splitlines()[-1]) == here
