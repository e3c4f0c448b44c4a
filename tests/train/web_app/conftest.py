"""A tiny checkpoint that has been calibrated."""

import pytest

from train.web_app.answers import make_reader

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


@pytest.fixture
def uncalibrated(tiny_model, tiny_processor):
    return make_reader(tiny_model, tiny_processor)


@pytest.fixture
def reader(tiny_model, tiny_processor):
    tiny_model.config.calibration = CALIBRATION
    return make_reader(tiny_model, tiny_processor)
