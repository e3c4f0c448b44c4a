"""Calibrated zero-shot answers: numbers by hand, and agreement with what the evaluation computes."""

from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from modeling_lumbarclip.calibration_lumbarclip import (
    calibrated_probabilities,
    prediction_sets,
    prompt_texts,
    readable_answers,
    weights_digests,
    zero_shot_logits,
)
from modeling_lumbarclip.configuration_lumbarclip import CalibratedQuestion, ZeroShotCalibration
from train.evaluation.protocols import conformal
from train.evaluation.protocols.calibration import scale
from train.evaluation.protocols.zero_shot import prompt_ensemble

CLASSES = ZeroShotCalibration(
    [CalibratedQuestion(None, ["LBP", "No Finding"], [["Bulge.", "Stenosis."], ["Normal."]], 2.0, [0.5, 0.6])], 0.9, {}
)
FINDINGS = ZeroShotCalibration(
    [
        CalibratedQuestion("bulge", ["absent", "present"], [["No bulge."], ["Bulge."]], 1.0, [0.3, 0.2]),
        CalibratedQuestion("stenosis", ["absent", "present"], [["No stenosis."], ["Stenosis."]], 4.0, [1.0, 1.0]),
    ],
    0.9,
    {},
)


def embeds(rows, width=6):
    return F.normalize(torch.randn(rows, width, generator=torch.Generator().manual_seed(rows)), dim=-1)


def test_prompts_are_listed_question_by_question():
    assert prompt_texts(CLASSES) == ["Bulge.", "Stenosis.", "Normal."]
    assert prompt_texts(FINDINGS) == ["No bulge.", "Bulge.", "No stenosis.", "Stenosis."]


def test_logits_are_similarities_to_the_prompt_ensembles():
    images, texts = embeds(4), embeds(3)
    logits = zero_shot_logits(images, texts, 10.0, CLASSES)
    ensembles = np.stack([prompt_ensemble(texts[:2].numpy()), prompt_ensemble(texts[2:].numpy())])
    np.testing.assert_allclose(logits[:, 0], 10 * images.numpy() @ ensembles.T, rtol=1e-5)
    of_findings = zero_shot_logits(images, embeds(4), torch.tensor(10.0), FINDINGS)
    np.testing.assert_allclose(of_findings, (10 * images @ embeds(4).T).reshape(4, 2, 2), rtol=1e-5)


def test_texts_of_another_question_are_refused():
    with pytest.raises(ValueError, match="has 3 prompts and there are 4 text embeddings"):
        zero_shot_logits(embeds(2), embeds(4), 10.0, CLASSES)


@pytest.mark.parametrize("calibration", [CLASSES, FINDINGS], ids=["classes", "findings"])
def test_users_get_what_the_evaluation_measured(calibration):
    num_questions = len(calibration.questions)
    logits = torch.randn(50, num_questions, 2, generator=torch.Generator().manual_seed(0)) * 3
    probabilities = calibrated_probabilities(logits, calibration)
    temperatures = np.array([question.temperature for question in calibration.questions])
    measured = scale(logits.double().numpy(), temperatures)
    np.testing.assert_allclose(probabilities, measured, rtol=1e-5)
    thresholds = np.array([question.score_thresholds for question in calibration.questions])
    sets = prediction_sets(probabilities, calibration)
    np.testing.assert_array_equal(sets, conformal.prediction_sets(measured, thresholds))


def test_answers_by_hand():
    probabilities = torch.tensor([[[0.25, 0.75], [0.5, 0.5]], [[0.125, 0.875], [0.25, 0.75]]])
    answers = readable_answers(probabilities, prediction_sets(probabilities, FINDINGS), FINDINGS)
    assert answers[0] == [
        {
            "label": "bulge",
            "probabilities": {"absent": 0.25, "present": 0.75},
            "prediction_set": [],  # neither is likely enough
            "answer": None,
            "reason": None,
        },
        {
            "label": "stenosis",
            "probabilities": {"absent": 0.5, "present": 0.5},
            "prediction_set": ["absent", "present"],  # neither can be ruled out
            "answer": None,
            "reason": None,
        },
    ]
    assert answers[1][0]["prediction_set"] == ["present"]
    assert answers[1][0]["answer"] == "present"
    held_back = readable_answers(probabilities, prediction_sets(probabilities, FINDINGS), FINDINGS, [None, "a knee"])
    assert held_back[0] == answers[0]
    assert held_back[1][0] == {**answers[1][0], "answer": None, "reason": "a knee"}


def test_processor_asks_and_answers_in_two_calls(tiny_model, tiny_processor, tiny_inputs):
    calibration = asdict(replace(CLASSES, fitted_on={"weights": weights_digests(tiny_model)}))
    texts = tiny_processor.zero_shot_texts(calibration)
    encoded = tiny_processor(text=texts, return_tensors="pt")
    output = tiny_model(pixel_values=tiny_inputs.pixel_values, **encoded)
    answers = tiny_processor.post_process_zero_shot(output, calibration)
    assert [len(of_image) for of_image in answers] == [1] * 4
    with torch.no_grad():
        classes = F.normalize(torch.stack([output.text_embeds[:2].mean(0), output.text_embeds[2]]), dim=-1)
        expected = (output.inverse_temperature * output.image_embeds @ classes.T / 2.0).softmax(-1)
    found = torch.tensor([[*of_image[0]["probabilities"].values()] for of_image in answers])
    torch.testing.assert_close(found, expected)


def test_users_get_probabilities_as_fine_as_the_thresholds(tiny_model, tiny_processor):
    # The likelier class has 1 - 2.1e-9, which float32 rounds to 1: its score would be 0, within any threshold.
    question = CalibratedQuestion(None, ["LBP", "No Finding"], [["Bulge."], ["Normal."]], 1.0, [1e-9, 0.5])
    output = SimpleNamespace(
        image_embeds=torch.tensor([[1.0, 0.0]]), text_embeds=torch.eye(2), inverse_temperature=torch.tensor(20.0)
    )
    calibration = asdict(ZeroShotCalibration([question], 0.9, {"weights": weights_digests(tiny_model)}))
    answers = tiny_processor.post_process_zero_shot(output, calibration, model=tiny_model)
    assert answers[0][0]["prediction_set"] == []


def test_a_checkpoint_without_calibration_says_how_to_get_one(tiny_processor):
    for ask in (
        lambda: tiny_processor.zero_shot_texts(None),
        lambda: tiny_processor.post_process_zero_shot(SimpleNamespace(), None),
    ):
        with pytest.raises(ValueError, match="has no calibration. Fit one.*fit_checkpoint_calibration"):
            ask()
