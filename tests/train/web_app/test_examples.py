"""Examples are for models that were trained on slices like them."""

import pytest

from tests.train.web_app.conftest import SCOPE
from train.web_app.answers import make_reader
from train.web_app.examples import fits_examples
from train.web_app.interface import build_page


@pytest.mark.parametrize(
    ("differing", "fits"),
    [
        ({}, True),
        ({"planes": ["axial", "sagittal"]}, True),
        ({"planes": ["sagittal"]}, False),
        ({"planes": []}, False),
        ({"planes": ["unknown"]}, False),
        ({"anatomy": "knee"}, False),
        ({"anatomy": None}, False),
        ({"is_synthetic": False}, False),
        ({"is_synthetic": None}, False),
    ],
)
def test_only_a_model_of_drawn_axial_slices_of_the_spine_gets_them(tiny_model, tiny_processor, differing, fits):
    scope = {**SCOPE, **differing}
    assert fits_examples(scope) is fits
    tiny_model.config.scope = scope
    components = build_page(make_reader(tiny_model, tiny_processor), "tiny").get_config_file()["components"]
    names = [component["props"].get("value") for component in components]
    assert ("Normal disc" in names) is fits
    assert any("or take an example" in str(name) for name in names) is fits


def test_a_model_that_does_not_say_what_it_was_trained_on_gets_none(tiny_model, tiny_processor):
    assert not fits_examples(make_reader(tiny_model, tiny_processor).scope)


def test_a_model_of_knees_is_shown_knees(tiny_model, tiny_processor):
    tiny_model.config.scope = {**SCOPE, "planes": ["coronal"], "anatomy": "knee", "is_synthetic": False}
    components = build_page(make_reader(tiny_model, tiny_processor), "tiny").get_config_file()["components"]
    head = next(str(c["props"]["value"]) for c in components if "Show it" in str(c["props"].get("value")))
    assert "Show it an image of the knee." in head and "spine" not in head
