"""A tiny checkpoint that has been calibrated."""

import pytest

from modeling_lumbarclip.calibration_lumbarclip import weights_digests
from train.web_app.answers import make_reader
from train.web_app.interface import build_page
from train.web_app.serving import launch_settings

CALIBRATION = {
    "questions": [
        {
            "label": "disc bulge",
            "choices": ["absent", "present"],
            "prompts": [["no disc bulge.", "normal disc."], ["disc bulge."]],
            "temperature": 2.0,
            "score_thresholds": [0.6, 0.6],
        },
        {
            "label": "left bulge",
            "choices": ["absent", "present"],
            "prompts": [["no left bulge."], ["left bulge."]],
            "temperature": 1.0,
            "score_thresholds": [0.1, 0.1],
        },
    ],
    "target_coverage": 0.9,
    "fitted_on": {"dataset": "tiny", "split": "validation", "num_rows": 12, "num_patients": 3},
}


# What a model was trained on that the app's examples suit.
SCOPE = {
    "planes": ["axial"],
    "sequences": ["T1", "T2"],
    "anatomy": "lumbar spine",
    "is_synthetic": True,
    "num_patients": 12,
    "check": None,
    "no_check": "too few patients",
}


@pytest.fixture
def uncalibrated(tiny_model, tiny_processor):
    return make_reader(tiny_model, tiny_processor)


def calibrate(model):
    """Give a model `CALIBRATION`, as if it had been fitted on its weights."""
    fitted_on = {**CALIBRATION["fitted_on"], "weights": weights_digests(model)}
    model.config.calibration = {**CALIBRATION, "fitted_on": fitted_on}
    model.config.scope = SCOPE


@pytest.fixture
def reader(tiny_model, tiny_processor):
    calibrate(tiny_model)
    return make_reader(tiny_model, tiny_processor)


@pytest.fixture
def launch(reader, tmp_path, monkeypatch):
    pages = []

    def launch():
        monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
        pages.append(build_page(reader, "tiny"))
        app, address, _ = pages[-1].launch(prevent_thread_lock=True, **launch_settings())
        return pages[-1], app, address

    yield launch
    for page in pages:
        page.close()
