"""Each name is what its protocol predicts when called by hand; the truth of test rows changes no prediction."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from datasets import load_dataset
from scipy.special import expit, softmax

from modeling_lumbarclip.calibration_lumbarclip import zero_shot_logits
from modeling_lumbarclip.configuration_lumbarclip import CalibratedQuestion, ZeroShotCalibration
from tests.train.experiments.made_experiment import exclusive_targets, finding_targets
from train.data.batch_sampler import TrainingSet
from train.evaluation import predict as module
from train.evaluation.features import encode_images, encode_texts
from train.evaluation.predict import (
    calibrated_predictions,
    encode,
    grade_predictions,
    predict,
    predict_majority,
    probe_predictions,
)
from train.evaluation.predictions import of_baselines
from train.evaluation.protocols.attention_pooling import attention_pooling
from train.evaluation.protocols.calibration import apply_calibration, fit_calibration
from train.evaluation.protocols.decision_threshold import threshold_decisions
from train.evaluation.protocols.grade_classifiers import CLASSIFIERS
from train.evaluation.protocols.grade_probe import grade_probe
from train.evaluation.protocols.linear_probe import logistic_probe
from train.evaluation.protocols.nearest_neighbour_probe import nearest_neighbour_probe
from train.evaluation.protocols.paper_probe import paper_probe
from train.evaluation.protocols.probe_losses import PROBE_LOSSES
from train.evaluation.protocols.retrieval import RANKINGS, rank_queries
from train.evaluation.protocols.wordings import unseen_predictions
from train.evaluation.protocols.zero_shot import zero_shot_logits as prompt_logits
from train.evaluation.questions import unseen_wordings
from train.evaluation.statistics import metrics
from train.evaluation.targets import read_targets

TRAIN, VALIDATION, TEST = np.r_[0:2, 15:24], np.r_[2:6], np.r_[6:15, 15:18]
SPACES = {"unprojected": "image_features", "projected": "image_embeds"}
FITTED_ONCE = {"paper": 4, "logistic": 2, "knn": 2, "grade": 2}  # calls


def graded(row, index, exclusive):
    """Levels stand in for grades, which every third row lacks; of findings, every fifth row has none."""
    labels = row["labels"] if exclusive or index % 5 else []
    return {"grade": row["level"] if index % 3 else None, "labels": labels}


def other_truth(row):
    return {"labels": [1 - label for label in row["labels"]], "grade": None if row["grade"] is None else 0}


@pytest.fixture(params=[True, False], ids=["exclusive", "findings"])
def dataset(request, tiny_dataset_folder):
    rows = load_dataset(str(tiny_dataset_folder))
    features = rows["train"].features.copy()
    features["grade"] = features["level"]
    options = {"with_indices": True, "fn_kwargs": {"exclusive": request.param}, "features": features}
    return {split: rows[split].map(graded, **options) for split in rows}


@pytest.fixture(autouse=True)
def few_epochs(monkeypatch):
    monkeypatch.setattr("train.evaluation.protocols.attention_pooling.MAX_EPOCHS", 2)
    monkeypatch.setattr("train.evaluation.protocols.paper_probe.EPOCHS", 20)


@pytest.fixture
def predicted(tiny_model, tiny_processor):
    def of(dataset, rows, fold):
        targets = read_targets(dataset)
        return predict(encode(tiny_model, tiny_processor, dataset, targets, batch_size=5), targets, rows, fold)

    return of


def test_every_name_is_the_protocol_called_by_hand(dataset, predicted, tiny_model, tiny_processor, monkeypatch):
    calls = dict.fromkeys(FITTED_ONCE, 0)

    def counted(name, probe):
        def count(*args, **kwargs):
            calls[name] += 1
            return probe(*args, **kwargs)

        return count

    for name in ("paper", "grade"):
        monkeypatch.setattr(module, f"{name}_probe", counted(name, getattr(module, f"{name}_probe")))
    probes = {name: probe if name == "paper" else counted(name, probe) for name, probe in module.PROBES.items()}
    monkeypatch.setattr(module, "PROBES", probes)
    rows = np.arange(12)[::-1] + 100
    predictions = predicted(dataset, rows, 3)
    assert calls == FITTED_ONCE

    targets, (model, processor) = read_targets(dataset), (tiny_model, tiny_processor)
    encoded = {
        split: encode_images(model, processor, dataset[split], batch_size=5, description="") for split in dataset
    }
    expected = {"row": rows, "fold": np.full(12, 3)}
    for space, name in SPACES.items():
        features = {split: arrays[name] for split, arrays in encoded.items()}
        expected[f"probe/paper/{space}"] = paper_probe(features, targets, seed=0).probabilities["test"]
        expected[f"probe/logistic/{space}"] = logistic_probe(features, targets)
        expected[f"probe/knn/{space}"] = nearest_neighbour_probe(features, targets)
        expected[f"grade/{space}"] = grade_probe(features, targets)
    features = {split: arrays["image_features"] for split, arrays in encoded.items()}
    for name in ("paper_balanced", "paper_logit_adjusted"):
        probe = paper_probe(features, targets, PROBE_LOSSES[name], seed=0)
        expected[f"probe/{name}/unprojected"] = probe.probabilities["test"]
    paper = paper_probe(features, targets, seed=0)
    expected["decision/paper_threshold/unprojected"] = threshold_decisions(paper.probabilities, targets)
    calibration = fit_calibration(paper.logits["validation"], targets["validation"])
    calibrated, sets, marginal = apply_calibration(calibration, paper.logits["test"], targets["test"])
    expected["calibrated/paper/unprojected"] = calibrated
    expected["uncalibrated/paper/unprojected"] = paper.probabilities["test"]
    expected["sets/paper/unprojected"] = sets.reshape(12, -1)
    expected["marginal_sets/paper/unprojected"] = marginal.reshape(12, -1)
    expected["patient_attention"] = attention_pooling(features, targets, 0)
    texts = list(dataset["test"]["report"][:])
    embeds = encoded["test"]["image_embeds"], texts, encode_texts(model, processor, texts, batch_size=5)
    for hits in RANKINGS:
        for direction, asked in rank_queries(*embeds, hits).items():
            for name in ("ranks", "num_hits", "num_candidates"):
                expected[f"retrieval/{hits}/{direction}/{name.replace('ranks', 'rank')}"] = getattr(asked, name)
    encode = partial(encode_texts, model, processor, batch_size=5)
    stated = {name: encode(processor.class_prompt_texts(name)) for name in targets["test"].label_names}
    denied = {name: encode(processor.absent_class_prompt_texts(name)) for name in targets["test"].label_names}
    logits = prompt_logits(embeds[0], stated, denied, model.inverse_temperature.item(), targets["test"])
    exclusive = targets["test"].exclusive
    expected["zero_shot"] = softmax(logits, axis=1) if exclusive else expit(logits)
    more = ["zero_shot_first"] if exclusive else ["zero_shot_margins", "zero_shot_first_margins"]
    more += [f"{name}/zero_shot" for name in ("calibrated", "uncalibrated", "sets", "marginal_sets")]
    more += [f"grade_by/{name}" for name in CLASSIFIERS]
    stated, denied = (
        {name: encode(texts[side]) for name, texts in unseen_wordings(processor, targets["test"].label_names).items()}
        for side in ("present", "absent")
    )
    expected |= unseen_predictions(embeds[0], stated, denied, model.inverse_temperature.item(), targets["test"])
    assert set(predictions) == {*expected, *more}
    for name, array in expected.items():
        np.testing.assert_allclose(predictions[name], array, rtol=1e-6, err_msg=name)
    for protocol in ("probe/paper", "probe/logistic"):
        difference = predictions[f"{protocol}/unprojected"] - predictions[f"{protocol}/projected"]
        assert np.abs(difference).max() > 1e-4  # so that a swap of the spaces is seen
    for space in SPACES:
        np.testing.assert_array_equal(predictions[f"grade/{space}"] == -1, np.arange(12) % 3 == 0)


@pytest.mark.parametrize("dataset", [True], indirect=True)
def test_only_the_papers_probe_learns_from_the_augmented_set(dataset, tiny_model, tiny_processor):
    labels = dataset["train"]["labels"][:]  # fewer of one class: else upsampling repeats nothing
    dataset["train"] = dataset["train"].select(
        [row for row, label in enumerate(labels) if row < 24 or label == labels[0]]
    )
    targets, rows = read_targets(dataset), np.arange(len(dataset["test"]))
    encoded, training_set = (
        encode(tiny_model, tiny_processor, dataset, targets, batch_size=5),
        TrainingSet(3, ["upsample"]),
    )
    once = predict(encoded, targets, rows)
    repeated = predict(encoded, targets, rows, training_set=training_set)
    changed = {name for name in once if not np.array_equal(once[name], repeated[name])}
    assert {name.rpartition("/")[0] for name in changed if name.startswith("probe/")} == {
        f"probe/{name}" for name in PROBE_LOSSES
    }
    assert not {name for name in changed if name.startswith(("retrieval/", "zero_shot", "grade/", "patient_"))}
    for space, features in encoded.features.items():
        expected = paper_probe(features, targets, training_set=training_set, seed=0).probabilities["test"]
        np.testing.assert_array_equal(repeated[f"probe/paper/{space}"], expected)


@pytest.mark.parametrize("dataset", [False], indirect=True)
def test_the_truth_of_test_rows_changes_no_prediction(dataset, predicted):
    changed = dataset | {"test": dataset["test"].map(other_truth, features=dataset["test"].features)}
    truth = [read_targets(of)["test"] for of in (dataset, changed)]
    assert (truth[0].labels != truth[1].labels).any()
    assert (truth[0].grades != truth[1].grades).any()
    before, after = (predicted(of, np.arange(12), 0) for of in (dataset, changed))
    assert list(before) == list(after)
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)


def test_calibrated_predictions_depend_on_validation_rows_and_on_no_test_row(planted):
    features, targets = planted
    paper = paper_probe(features, targets, seed=0)

    def calibrated(**changed):
        of = targets | changed
        calibration = fit_calibration(paper.logits["validation"], of["validation"])
        predictions = calibrated_predictions("paper/unprojected", calibration, paper.logits["test"], of["test"])
        return predictions["calibrated/paper/unprojected"]

    flipped = {split: replace(of, labels=~of.labels) for split, of in targets.items()}
    np.testing.assert_array_equal(calibrated(test=flipped["test"]), calibrated())
    assert np.abs(calibrated(validation=flipped["validation"]) - calibrated()).max() > 1e-3


@pytest.mark.parametrize("dataset", [True], indirect=True)
@pytest.mark.parametrize("exclusive", [True, False])
def test_prompts_answer_as_users_of_the_checkpoint_ask_them(dataset, tiny_model, tiny_processor, exclusive):
    targets = replace(read_targets(dataset)["test"], exclusive=exclusive)
    names, encode = targets.label_names, partial(encode_texts, tiny_model, tiny_processor, batch_size=5)
    stated = [tiny_processor.class_prompt_texts(name) for name in names]
    denied = [tiny_processor.absent_class_prompt_texts(name) for name in names]
    prompts = [stated] if exclusive else [list(pair) for pair in zip(denied, stated, strict=True)]
    asked = ZeroShotCalibration([CalibratedQuestion(None, ["a", "b"], of, 1.0, [1.0, 1.0]) for of in prompts], 0.9, {})
    texts = [text for of_question in prompts for of_choice in of_question for text in of_choice]
    images = encode_images(tiny_model, tiny_processor, dataset["test"], batch_size=5, description="")["image_embeds"]
    inverse_temperature = tiny_model.inverse_temperature.item()
    tensors = torch.from_numpy(images), torch.from_numpy(encode(texts))
    by_question = zero_shot_logits(*tensors, inverse_temperature, asked).detach().numpy()
    expected = by_question[:, 0] if exclusive else by_question[..., 1] - by_question[..., 0]
    embeds = [{name: encode(of_label) for name, of_label in zip(names, of, strict=True)} for of in (stated, denied)]
    logits = prompt_logits(images, *embeds, inverse_temperature, targets)
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def majority(targets):
    return of_baselines(predict_majority(targets))["majority"]


def splits_of(targets):
    rows = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    return {split: targets.select(of_split, split) for split, of_split in rows.items()}


def test_the_most_frequent_class_of_training_is_predicted_by_every_probe():
    # 2 of 11 training rows have low back pain, 9 of 12 test rows: answering `No Finding` finds 3.
    targets = splits_of(exclusive_targets())
    predictions = majority(targets)
    for probe in ("paper", "logistic", "knn"):
        probabilities = predictions[f"probe/{probe}/unprojected"]
        np.testing.assert_allclose(probabilities, [[2 / 11, 9 / 11]] * 12)
        classes, predicted = targets["test"].classes, probabilities.argmax(1)
        # `LBP`: recall 0, F1 0. `No Finding`: recall 1, precision 3 / 12, F1 2 * 3 / (12 + 3).
        assert metrics.accuracy(classes, predicted, 2) == pytest.approx(3 / 12)
        assert metrics.balanced_accuracy(classes, predicted, 2) == pytest.approx(1 / 2)
        assert metrics.macro_f1(classes, predicted, 2) == pytest.approx((0 + 6 / 15) / 2)


def test_findings_are_predicted_by_their_share_and_grades_by_the_commonest():
    targets = splits_of(finding_targets())
    targets["test"].grades[3] = -1
    predictions = majority(targets)
    shares = [sum(row[k] for row in targets["train"].labels.tolist()) / 11 for k in range(4)]
    np.testing.assert_allclose(predictions["probe/knn/unprojected"], [shares] * 12)
    # Training rows 0, 1, 15, ..., 23: the odd ones, of grade 1, are more.
    assert predictions["grade/unprojected"].tolist() == [1] * 3 + [-1] + [1] * 8


@pytest.mark.parametrize("made", [exclusive_targets, finding_targets])
def test_it_answers_what_the_probes_answer(made):
    targets = splits_of(made())
    features = {split: np.random.default_rng(0).random((len(of), 2)) for split, of in targets.items()}
    of_features = (features, targets, "unprojected")
    assert majority(targets).keys() == {**probe_predictions(*of_features), **grade_predictions(*of_features)}.keys()
