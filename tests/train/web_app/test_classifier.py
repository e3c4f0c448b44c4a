"""A fine-tuned classifier answers with its head, its classes and its temperatures."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_lumbarclip import LumbarCLIPConfig, LumbarCLIPForImageClassification
from modeling_lumbarclip.calibration_lumbarclip import calibration_problem, weights_digests
from tests.conftest import TINY_TEXT, TINY_VISION
from tests.train.web_app.conftest import SCOPE
from train.checkpoints.checkpoint import save_checkpoint
from train.web_app.answer_words import answer_headers, calibrated_on
from train.web_app.answers import embed_slices, open_reader, seen_slice
from train.web_app.classifier import ClassifierReader
from train.web_app.interface import CLASSIFIES, OF_CLASSIFIER, build_page
from train.web_app.uploads import Slice, Upload, make_slice
from train.web_app.views import view_slice, view_study

NAMES = {0: "1", 1: "2", 2: "severe <b>stenosis</b>"}
KINDS = ["single_label_classification", "multi_label_classification"]


def embed(reader, image):
    embeds, outside = embed_slices(reader, [Slice(name="", image=image, seen=seen_slice(reader, image))])
    assert outside == [None]  # the checkpoint has no scope
    return embeds


@pytest.fixture
def classifier(tiny_processor, tmp_path):
    """Save a classifier of three classes or findings, with temperatures of its own, and open it."""

    def make(kind, temperatures=(3.0, 0.5, 2.0), scope=None):
        torch.manual_seed(0)
        config = LumbarCLIPConfig(vision_config=TINY_VISION, text_config=TINY_TEXT, id2label=NAMES, problem_type=kind)
        model = LumbarCLIPForImageClassification(config).eval()
        torch.nn.init.normal_(model.classifier.weight, std=2.0)
        config.class_temperatures = list(temperatures) if temperatures else None
        config.class_temperatures_fitted_on = {"weights": weights_digests(model)}
        config.scope = scope
        save_checkpoint(model.eval(), tiny_processor.image_processor, tmp_path / "checkpoint")
        return open_reader(str(tmp_path / "checkpoint"))

    return make


@pytest.fixture
def image():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90), dtype=np.uint8))


def sliced(reader, image):
    return make_slice(partial(seen_slice, reader), image.copy(), name="slice.png")


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_those_of_the_head_with_its_temperatures(classifier, image, kind):
    reader = classifier(kind)
    assert isinstance(reader, ClassifierReader) and calibration_problem(reader.model) is None
    with torch.no_grad():
        pixels = reader.image_processor(image, return_tensors="pt")["pixel_values"]
        features = reader.model.get_image_features(pixels).pooler_output
        logits = reader.model.classifier(features)[0] / torch.tensor([3.0, 0.5, 2.0])
    answers = reader.answers(embed(reader, image))[0]
    if kind == KINDS[0]:
        (answer,) = answers
        expected = dict(zip(NAMES.values(), logits.softmax(0).tolist(), strict=True))
        assert answer["probabilities"] == pytest.approx(expected, abs=1e-5) and answer["label"] is None
        assert answer["answer"] == NAMES[int(logits.argmax())]
    else:
        assert [answer["label"] for answer in answers] == list(NAMES.values())
        for answer, logit in zip(answers, logits, strict=True):
            assert answer["probabilities"]["present"] == pytest.approx(logit.sigmoid().item(), abs=1e-5)
            assert answer["answer"] == ("present" if logit > 0 else "absent")


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_shows_answers_without_sets_maps_or_words(classifier, image, kind):
    reader = classifier(kind)
    view = view_slice(reader, None, sliced(reader, image), finding="disc bulge", method="Grad-CAM")
    assert answer_headers(reader) == ["Question", "Answer", "Probabilities"]
    assert {len(row) for row in view.answers} == {3} and view.verdicts
    assert (view.own, view.subjects, view.reports) == ([], [], []) and "lc-heat" not in view.picture
    said, rows = view_study(reader, Upload(slices=(sliced(reader, image), sliced(reader, image))))
    assert "This is not calibrated for patients." in said and len(rows) == 3
    components = build_page(reader, "tiny").get_config_file()["components"]
    shown = [str(component["props"].get("value")) for component in components]
    assert [text for text in shown if OF_CLASSIFIER in text] and [text for text in shown if CLASSIFIES in text]
    html = [str(component["props"].get("value")) for component in components if component["type"] == "html"]
    assert not [text for text in html if "<b>stenosis" in text]
    buttons = [c["props"]["value"] for c in components if c["type"] == "button" and c["props"].get("visible", True)]
    assert "Normal disc" not in buttons and "Example: six slices of one drawn patient" not in buttons


def test_the_page_does_not_promise_to_answer_what_is_outside_the_scope():
    assert "any picture" not in OF_CLASSIFIER and "never" not in OF_CLASSIFIER


def test_a_classifier_of_drawn_slices_gets_the_examples(classifier):
    components = build_page(classifier(KINDS[0], scope=SCOPE), "tiny").get_config_file()["components"]
    assert "Normal disc" in [component["props"].get("value") for component in components]


def test_without_temperatures_it_answers_and_says_that_it_is_not_calibrated(classifier, image):
    reader = classifier(KINDS[0], temperatures=None)
    assert calibrated_on(reader).endswith("not calibrated")
    assert view_slice(reader, None, sliced(reader, image)).answers[0][1] != "No answer"
    assert calibrated_on(classifier(KINDS[0])).startswith("a classifier of 1, 2, severe")


@pytest.mark.parametrize("kind", KINDS)
def test_temperatures_of_other_weights_give_scores_and_the_reason(classifier, image, kind):
    reader = classifier(kind)
    with torch.no_grad():
        reader.model.classifier.bias.add_(0.1)
    view = view_slice(reader, None, sliced(reader, image))
    assert view.verdicts == ["No answer"] and view.reasons
    assert view.reasons[0].lower() in calibration_problem(reader.model).lower()
    assert calibrated_on(reader).endswith("not calibrated")
    assert {row[1] for row in view.answers} == {"No answer"} and "%" in view.answers[0][2]


def test_what_a_classifier_was_trained_on_is_read_from_the_run_beside_it(classifier, tmp_path):
    reader = classifier(KINDS[0])
    assert reader.anatomy is None and reader.scope is None
    data = {"planes": {"coronal": 9}, "sequences": {"other": 9}, "anatomy": "knee", "synthetic": False}
    (tmp_path / "run.json").write_text(json.dumps({"data": data}))
    assert open_reader(str(tmp_path / "checkpoint")).anatomy == "knee"
    for damaged in ("{", "[]", '{"data": 3}', '{"data": {}}'):
        (tmp_path / "run.json").write_text(damaged)
        assert open_reader(str(tmp_path / "checkpoint")).scope is None
