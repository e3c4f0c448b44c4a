"""Maps are those of the model's own methods, laid over the slice."""

import base64
import io
import json
import re
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import PROJECT
from train.web_app.answers import seen_slice
from train.web_app.explanations import METHODS, explanation_map, heat_picture, legend_picture, subjects
from train.web_app.interface import NO_EVIDENCE
from train.web_app.pictures import slice_html
from train.web_app.uploads import Slice, make_slice


@pytest.fixture
def image():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90), dtype=np.uint8))


def slice_of(reader, image):
    return make_slice(partial(seen_slice, reader), image.copy(), name="")


@pytest.mark.parametrize(
    ("method", "of_model"),
    [("Grad-CAM", "grad_cam"), ("Text-to-patch similarity", "text_to_patch_similarity")],
)
def test_the_map_of_a_single_prompt_is_that_of_the_model(reader, image, method, of_model):
    model, processor = reader.model, reader.processor
    (subject,) = [subject for subject in subjects(reader) if subject.name == "left bulge"]
    inputs = processor(images=image, text=["left bulge."], return_tensors="pt")
    denial = processor(text=["no left bulge."], return_tensors="pt")
    maps = getattr(model, of_model)(
        inputs.pixel_values,
        inputs.input_ids,
        inputs.attention_mask,
        denial_input_ids=denial.input_ids,
        denial_attention_mask=denial.attention_mask,
    )
    expected = processor.image_processor.unpad_maps(maps, (60, 90))[0, 0]
    found = explanation_map(reader, slice_of(reader, image), subject, method)
    assert found.shape == (60, 90)
    assert torch.allclose(torch.from_numpy(found), expected, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_the_map_of_a_large_slice_stays_small(reader, method):
    large = Image.new("L", (2048, 1024), 90)
    assert explanation_map(reader, slice_of(reader, large), subjects(reader)[0], method).shape == (256, 512)


def test_presence_and_absence_point_the_other_way(reader, image):
    present = subjects(reader)[1]
    absent = type(present)(name="", question=present.question, choice=0)
    first, second = (
        explanation_map(reader, slice_of(reader, image), s, "Text-to-patch similarity") for s in (present, absent)
    )
    assert np.allclose(first, -second, atol=1e-6)


def test_what_can_be_explained(reader, uncalibrated):
    assert [subject.name for subject in subjects(reader)] == ["disc bulge", "left bulge"]
    assert [subject.name for subject in subjects(reader, "stenosis")] == ["stenosis", "disc bulge", "left bulge"]
    assert [subject.name for subject in subjects(reader, "disc bulge")] == ["disc bulge", "left bulge"]


def test_the_first_map_is_the_one_that_did_better_than_a_randomised_model():
    methods = json.loads((PROJECT / "tests/benchmarks/results/explanation.json").read_text())["methods"]
    better = [
        shown
        for shown, measured in [("Grad-CAM", "Grad-CAM"), ("Text-to-patch similarity", "text to patch")]
        if methods[f"{measured}, less its denial"]["less randomised model"]["pointing_game"]["low"] > 0
    ]
    assert better == [next(iter(METHODS))]


def test_the_note_says_what_was_measured_no_map_did_better_than_the_middle():
    methods = json.loads((PROJECT / "tests/benchmarks/results/explanation.json").read_text())["methods"]
    against_middle = [scores["less centre prior"] for scores in methods.values() if "less centre prior" in scores]
    assert len(against_middle) >= len(METHODS)
    assert all(score["value"] < 0 for scores in against_middle for score in scores.values())
    assert "In our measurement on drawn slices no map beat pointing at the middle of the picture" in NO_EVIDENCE


def test_colours_go_from_transparent_to_full():
    picture = np.asarray(heat_picture(np.array([[0.0, 0.25], [0.5, 1.0]])))
    assert picture[..., 3].tolist() == [[0, 128], [180, 255]]
    assert picture[1, 1, :3].sum() > picture[0, 1, :3].sum()


def test_what_speaks_against_is_not_painted():
    picture = np.asarray(heat_picture(np.array([[-0.9, -0.1], [0.5, 1.0]])))
    assert picture[..., 3].tolist() == [[0, 0], [180, 255]]


def test_the_legend_has_the_colours_of_the_map_from_low_to_high(image):
    legend = np.asarray(legend_picture())[0]
    values = np.linspace(0.2, 0.7, len(legend)).reshape(8, -1)  # a map is shown on its own scale
    assert np.array_equal(np.asarray(heat_picture(values)).reshape(-1, 4), legend)
    shown = slice_html(Slice(name="a", image=image, seen=image), heat_picture(values), "A map", legend_picture())
    pictures = [Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall(r'base64,([^"]+)"', shown)]
    assert [picture.size for picture in pictures] == [image.size, (12, 8), legend_picture().size]
    assert {tuple(colour) for colour in np.asarray(pictures[1]).reshape(-1, 4)} == {tuple(c) for c in legend}


@pytest.mark.parametrize("values", [np.zeros((2, 2)), np.full((2, 2), 0.3), np.array([[-0.5, -0.2]])])
def test_a_map_that_shows_nothing_is_not_drawn(values):
    assert heat_picture(values) is None
