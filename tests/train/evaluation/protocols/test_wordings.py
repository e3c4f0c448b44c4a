"""Unseen wordings: their predictions by hand, their spread and the polarity beside scikit-learn, and the warning."""

import logging
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

from train.evaluation.measure import wording_groups
from train.evaluation.protocols.wordings import (
    DENIED,
    STATED,
    measures_by_wording,
    polarity_measures,
    statement_cosines,
    ten_wordings,
    unseen_predictions,
    warn_of_alike_statements,
    wording_margins,
)
from train.evaluation.protocols.zero_shot import zero_shot_logits
from train.evaluation.statistics.bootstrap import Resampling, _draws
from train.evaluation.statistics.metrics import auroc
from train.evaluation.statistics.spreads import POLARITY, SINGLE, UNSEEN, alike

FINDINGS, CLASSES = ("bulge", "stenosis", "No Finding"), ("mild", "moderate", "severe")
RESAMPLING = Resampling(num_resamples=40)


def unit(array):
    return array / np.linalg.norm(array, axis=-1, keepdims=True)


@pytest.fixture(params=["findings", "classes"])
def asked(request, make_targets):
    """Targets of 40 rows of 10 patients, images, and 12 wordings of each statement and denial."""
    rng = np.random.default_rng(0)
    if request.param == "classes":
        names, labels = CLASSES, np.eye(3)[np.r_[0, 1, 2, rng.integers(0, 3, 37)]]
    else:
        present = rng.random((40, 2)) < 0.4
        names, labels = FINDINGS, np.c_[present, ~present.any(1)]
    targets = make_targets({"test": labels}, names)["test"]
    images = unit(rng.normal(size=(40, 6)) + np.pad(labels, ((0, 0), (0, 3))))
    stated, denied = (
        {name: rng.normal(size=(12, 6)) + 0.5 * np.eye(6)[k] for k, name in enumerate(names)} for _ in "12"
    )
    return targets, images, stated, denied


def predicted(asked):
    targets, images, stated, denied = asked
    return unseen_predictions(images, stated, denied, 8.0, targets)


def test_single_wordings_are_cosines_in_the_order_of_labels_and_wordings(asked):
    targets, images, stated, denied = asked
    predictions = predicted(asked)
    for name, wordings in ((STATED, stated), (DENIED, denied)):
        assert predictions[name].shape == (40, 30)
        for k, label in enumerate(targets.label_names):
            for place in range(10):
                cosine = images @ unit(wordings[label][place])
                np.testing.assert_allclose(predictions[name][:, 10 * k + place], cosine, atol=1e-12)
    logits = zero_shot_logits(images, stated, denied, 8.0, targets)  # all twelve together
    probabilities = predictions[UNSEEN]
    if targets.exclusive:
        np.testing.assert_array_equal(probabilities.argmax(1), logits.argmax(1))
    else:
        np.testing.assert_allclose(np.log(probabilities / (1 - probabilities)), logits)
        np.testing.assert_allclose(8.0 * predictions[f"{UNSEEN}_margins"], logits)


def test_the_spread_and_the_polarity_are_those_of_scikit_learn(asked):
    targets, predictions = asked[0], predicted(asked)
    groups = wording_groups(predictions, targets, RESAMPLING)
    stated, denied = (predictions[name].reshape(40, 3, 10) for name in (STATED, DENIED))
    if targets.exclusive:
        metric = "macro_f1"
        values = [f1_score(targets.classes, stated[:, :, w].argmax(1), average="macro") for w in range(10)]
    else:
        metric, margins = "macro_auroc", stated - denied
        values = [np.mean([roc_auc_score(targets.labels[:, k], margins[:, k, w]) for k in (0, 1)]) for w in range(10)]
    single = groups[SINGLE]
    assert single[f"{metric}_mean"].value == pytest.approx(np.mean(values))
    assert single[f"{metric}_standard_deviation"].value == pytest.approx(np.std(values, ddof=1))
    assert single[f"{metric}_worst"].value == pytest.approx(min(values))
    assert single[f"{metric}_worst"].low <= single[f"{metric}_worst"].high <= single[f"{metric}_mean"].high
    by_label = [
        np.mean([balanced_accuracy_score(targets.labels[:, k], stated[:, k, w] > denied[:, k, w]) for w in range(10)])
        for k in range(3)
    ]
    polarity = groups[POLARITY]
    for name, expected in zip(targets.label_names, by_label, strict=True):
        assert polarity[f"polarity_accuracy/{name}"].value == pytest.approx(expected)
        assert polarity[f"polarity_accuracy/{name}"].low < expected < polarity[f"polarity_accuracy/{name}"].high
    of_findings = by_label if targets.exclusive else by_label[:2]  # not `No Finding`, the absence of the others
    assert polarity["polarity_accuracy"].value == pytest.approx(np.mean(of_findings))


def test_the_worst_wording_is_chosen_anew_in_each_resample_of_patients(make_targets):
    rng = np.random.default_rng(1)
    labels = rng.random((40, 1)) < 0.5
    targets = make_targets({"test": labels}, ["bulge"])["test"]
    predictions = {STATED: rng.normal(size=(40, 10)), DENIED: rng.normal(size=(40, 10))}
    worst = wording_groups({UNSEEN: labels, f"{UNSEEN}_margins": labels * 1.0, **predictions}, targets, RESAMPLING)
    patients, of_row = np.unique(targets.patient_ids, return_inverse=True)
    weights = _draws(len(patients), RESAMPLING)[:, of_row]
    margins = predictions[STATED] - predictions[DENIED]
    slow = [[float(auroc(labels[:, 0], margins[:, w], weights=of)) for w in range(10)] for of in weights]
    low, high = np.percentile(np.min(slow, axis=1), [2.5, 97.5])
    found = worst[SINGLE]["macro_auroc_worst"]
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_a_model_nearer_to_every_denial_ranks_well_and_knows_no_polarity(make_targets):
    labels = np.array([[1], [1], [0], [0]])
    targets = make_targets({"test": labels}, ["bulge"])["test"]
    score = np.array([0.4, 0.3, 0.2, 0.1])[:, None]
    predictions = {STATED: score.repeat(10, 1), DENIED: np.full((4, 10), 0.9)}
    (of_wording, *_) = measures_by_wording(predictions, targets).values()
    assert of_wording["macro_auroc"].value() == 1.0
    assert polarity_measures(predictions, targets)["polarity_accuracy"].value() == 0.5
    predictions[DENIED] = np.full((4, 10), 0.25)  # between them
    assert polarity_measures(predictions, targets)["polarity_accuracy"].value() == 1.0
    predictions[DENIED] = predictions[STATED]  # a tie says absent
    assert polarity_measures(predictions, targets)["polarity_accuracy"].value() == 0.5


def test_wordings_that_disagree_are_averaged(make_targets):
    """Two of ten wordings say present of the first row, seven of the second, none of the third."""
    targets = make_targets({"test": np.array([[1], [1], [0]])}, ["bulge"])["test"]
    said = np.array([2, 7, 0])[:, None] > np.arange(10)
    predictions = {STATED: said * 1.0, DENIED: np.full((3, 10), 0.5)}
    expected = (np.mean([0.2, 0.7]) + 1.0) / 2
    measures = polarity_measures(predictions, targets)
    assert measures["polarity_accuracy"].value() == pytest.approx(expected)
    assert measures["polarity_accuracy_together"].value() == (np.mean([0, 1]) + 1.0) / 2


def test_what_the_rows_do_not_define_says_so(make_targets):
    labels = np.c_[np.arange(8) % 2, np.zeros(8)]
    targets = make_targets({"test": labels}, ["bulge", "stenosis"])["test"]
    predictions = {STATED: np.random.default_rng(0).random((8, 20)), DENIED: np.full((8, 20), 0.5)}
    predictions |= {UNSEEN: labels, f"{UNSEEN}_margins": labels - 0.5}
    groups = wording_groups(predictions, targets, RESAMPLING)
    lacking = groups[POLARITY]["polarity_accuracy/stenosis"]
    assert np.isnan(lacking.value) and "`stenosis` has 0 positive rows of 8" in lacking.reason
    assert groups[POLARITY]["polarity_accuracy"].value == groups[POLARITY]["polarity_accuracy/bulge"].value
    assert np.isnan(groups[SINGLE]["auroc_worst/stenosis"].value)
    assert "`stenosis`" in groups[SINGLE]["auroc_worst/stenosis"].reason
    only = replace(targets.select(labels[:, 0] == 0, "test"))
    of_none = wording_groups({name: array[labels[:, 0] == 0] for name, array in predictions.items()}, only, RESAMPLING)
    assert np.isnan(of_none[POLARITY]["polarity_accuracy"].value) and of_none[POLARITY]["polarity_accuracy"].reason


def test_predictions_of_before_have_no_such_metrics(asked):
    targets = asked[0]
    assert wording_groups({"zero_shot": targets.labels * 1.0}, targets, RESAMPLING) == {}


@pytest.mark.parametrize("number", [1, 2, 3, 5, 9, 10, 11, 55])
def test_ten_wordings_of_any_number_pair_statements_with_denials(number):
    pairs = list(zip(ten_wordings(number, shift=3), ten_wordings(number, shift=4), strict=True))
    assert len(pairs) == 10 and {place for pair in pairs for place in pair} == set(range(min(number, 10)))
    assert len(set(pairs)) == min(10, number**2)


def test_cosines_tell_the_alike_apart():
    rng = np.random.default_rng(0)
    same, other = rng.normal(size=(2, 4, 8))
    cosines = statement_cosines({"a": same, "b": same, "c": same}, {"a": same, "b": other, "c": same + 0.05 * other})
    assert cosines["a"] == pytest.approx(1.0) and abs(cosines["b"]) < 0.9
    assert list(alike(cosines)) == ["a", "c"]
    assert alike({"broken": float("nan")}) == {"broken": pytest.approx(float("nan"), nan_ok=True)}


@pytest.mark.parametrize(
    "denial, is_trained, warns",
    [
        ("disc bulge.", True, True),
        ("disc bulge.", False, True),
        ("Disc  BULGE.", False, True),  # the same tokens
        ("no disc bulge.", True, True),  # a tower that has learned nothing
        ("no disc bulge.", False, False),  # and may learn it
    ],
)
def test_a_bank_whose_statement_and_denial_embed_alike_is_warned_about(
    tiny_model, tiny_processor, denial, is_trained, warns, caplog
):
    tiny_processor.class_prompts["bulge"] = ["disc bulge.", "disc bulge at l4/l5."]
    tiny_processor.absent_class_prompts["bulge"] = [denial]
    tiny_model.train()
    state = torch.get_rng_state()
    with caplog.at_level(logging.WARNING):
        warn_of_alike_statements(tiny_model, tiny_processor, ["bulge"], is_trained)
    assert ("Statement and denial embed alike (cosine): bulge 1.000" in caplog.text) is warns
    assert not warns or ("objective polarity" in caplog.text and "class_prompts" in caplog.text)
    assert tiny_model.training and torch.equal(torch.get_rng_state(), state)  # as they were


def test_statements_that_a_tower_tells_apart_are_not_warned_about(tiny_model, tiny_processor, monkeypatch, caplog):
    by_text = {"Bulge.": [1.0, 0.0], "No bulge.": [0.6, 0.8]}
    monkeypatch.setattr(
        "train.evaluation.protocols.wordings.encode_texts",
        lambda model, processor, texts, **_: np.array([by_text[text] for text in texts]),
    )
    tiny_processor.class_prompts["bulge"], tiny_processor.absent_class_prompts["bulge"] = ["Bulge."], ["No bulge."]
    warn_of_alike_statements(tiny_model, tiny_processor, ["bulge"], is_trained=True)
    assert not caplog.text


def test_margins_come_wording_by_wording():
    numbers = count()
    stated = np.array([[next(numbers) for _ in range(20)] for _ in range(2)], dtype=float)

    class Two:
        label_names = ("a", "b")

    margins = wording_margins({STATED: stated, DENIED: np.zeros((2, 20))}, Two)  # type: ignore[arg-type]
    assert margins.shape == (10, 2, 2) and margins[3].tolist() == [[3, 13], [23, 33]]
