"""Answers of the app are those of the checkpoint, and what is not calibrated says so."""

import numpy as np
import pytest
import torch
from PIL import Image

from train.web_app.answers import calibrated_answers, embed_slices, make_reader, own_answer, own_finding, study_answer


@pytest.fixture
def images():
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 255, (40, 40 + 7 * i), dtype=np.uint8)) for i in range(3)]


def test_calibrated_answers_are_those_that_a_user_of_the_checkpoint_gets(reader, images):
    model, processor = reader.model, reader.processor
    texts = processor.zero_shot_texts(model.config.calibration)
    with torch.no_grad():
        output = model(**processor(images=images, text=texts, return_tensors="pt"))
    expected = processor.post_process_zero_shot(output, model.config.calibration)
    answered = calibrated_answers(reader, embed_slices(reader, images))
    for of_slice, of_user in zip(answered, expected, strict=True):
        for answer, other in zip(of_slice, of_user, strict=True):
            assert answer["answer"] == other["answer"]
            assert answer["prediction_set"] == other["prediction_set"]
            assert answer["probabilities"] == pytest.approx(other["probabilities"], abs=1e-6)


def test_slices_are_embedded_alike_in_batches_and_alone(reader, images, monkeypatch):
    together = embed_slices(reader, images)
    monkeypatch.setattr("train.web_app.answers.BATCH_SIZE", 2)
    assert torch.allclose(together, embed_slices(reader, images), atol=1e-6)
    assert torch.allclose(together[2:], embed_slices(reader, images[2:]), atol=1e-6)


def test_an_own_finding_is_the_softmax_of_its_statement_against_its_denial(reader, images):
    model, processor = reader.model, reader.processor
    asked = own_answer(reader, embed_slices(reader, images[:1]), "disc bulge")
    assert asked.statements == ["Disc bulge.", "There is disc bulge.", "MRI of the lumbar spine shows disc bulge."]
    assert asked.denials == ["No disc bulge.", "There is no disc bulge.", "No evidence of disc bulge."]
    with torch.no_grad():
        output = model(**processor(images=images[:1], text=asked.statements + asked.denials, return_tensors="pt"))
    means = output.text_embeds.view(2, 3, -1).mean(dim=1)
    cosines = torch.cosine_similarity(output.image_embeds, means)
    expected = torch.sigmoid(output.inverse_temperature * (cosines[0] - cosines[1]))
    assert asked.probability == pytest.approx(expected.item(), abs=1e-6)


def test_a_study_answers_with_the_mean_over_its_slices(reader, images):
    study = study_answer(reader, embed_slices(reader, images))
    assert len(study.of_slices) == 3
    for question, pooled in enumerate(study.pooled):
        of_slices = [answers[question]["probabilities"]["present"] for answers in study.of_slices]
        assert pooled["present"] == pytest.approx(np.mean(of_slices))
        assert sum(pooled.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "few words"), (" . ", "few words"), ("No disc bulge", "denies a finding"), ("bulge " * 20, "at most 80")],
)
def test_what_is_no_finding_is_refused(text, words):
    with pytest.raises(ValueError, match=words):
        own_finding(text)


def test_a_checkpoint_without_texts_is_refused(tiny_processor):
    with pytest.raises(ValueError, match="some/model is a Linear"):
        make_reader(torch.nn.Linear(2, 2), tiny_processor, "some/model")


def test_a_checkpoint_without_calibration_answers_in_own_words_only(uncalibrated, images):
    embeds = embed_slices(uncalibrated, images[:1])
    assert 0 < own_answer(uncalibrated, embeds, "disc bulge").probability < 1
    with pytest.raises(ValueError, match="no calibration"):
        calibrated_answers(uncalibrated, embeds)
