"""The configuration refuses nonsense and survives a round trip."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoConfig, BertConfig

from modeling_lumbarclip import LumbarCLIPConfig
from modeling_lumbarclip.configuration_lumbarclip import CalibratedQuestion, ZeroShotCalibration


def test_defaults_are_the_paper():
    config = LumbarCLIPConfig()
    assert config.vision_config.architecture == "resnet50"
    assert (config.projection, config.projection_dim) == ("linear", 256)
    assert config.text_config.hidden_size == 768  # BioClinicalBERT


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"projection": "mlp"}, "none, linear, nonlinear; got 'mlp'"),
        ({"projection_dim": 0}, "at least 1.*got 0.*projection='none'"),
        ({"text_pooling": "max"}, "cls, mean, last; got 'max'"),
        ({"initial_temperature": 0}, "must be positive.*got 0"),
        ({"initial_temperature": 0.001}, "starts at an inverse of 1000"),
        (
            {"alpha": 0.5, "label_temperature": None},
            "alpha, label_temperature: set by .*train it again",
        ),
        ({"text_config": {"model_type": "t5"}}, "encoder-decoder"),
        ({"text_config": {"hidden_size": 8}}, "needs a 'model_type'"),
        ({"projection_dim": "wide"}, "projection_dim"),
    ],
)
def test_nonsense_is_refused_with_the_way_out(fields, message):
    with pytest.raises(Exception, match=f"(?s){message}"):
        LumbarCLIPConfig(**fields)


def test_round_trip(tiny_config, tmp_path):
    tiny_config.initial_temperature = 0.4
    tiny_config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == AutoConfig.from_pretrained(tmp_path).to_dict()
    assert loaded.initial_temperature == 0.4
    assert loaded.vision_config.model_args == tiny_config.vision_config.model_args
    assert isinstance(loaded.text_config, BertConfig) and loaded.text_config.hidden_size == 16


QUESTION = {
    "label": "disc bulge",
    "choices": ["absent", "present"],
    "prompts": [["No disc bulge."], ["Disc bulge.", "There is disc bulge."]],
    "temperature": 1.5,
    "score_thresholds": [0.25, 1.0],
}
CALIBRATION = {"questions": [QUESTION], "target_coverage": 0.9, "fitted_on": {"dataset": "tiny", "num_patients": 3}}


def test_a_calibration_survives_a_round_trip(tmp_path):
    LumbarCLIPConfig(calibration=CALIBRATION).save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert loaded.calibration == CALIBRATION
    question = ZeroShotCalibration.from_dict(loaded.calibration).questions[0]
    assert question == CalibratedQuestion(**QUESTION)
    assert LumbarCLIPConfig().calibration is None


@pytest.mark.parametrize(
    "change, message",
    [
        ({"temperature": 0.0}, "positive and finite; got 0.0"),
        ({"temperature": float("nan")}, "positive and finite; got nan"),
        ({"score_thresholds": [0.5]}, r"one entry of score_thresholds for each; got \[0.5\]"),
        ({"score_thresholds": [0.5, 1.5]}, r"lie in \[0, 1\]; got \[0.5, 1.5\]"),
        ({"prompts": [["No."], []]}, "at least one prompt"),
        ({"choices": ["present", "present"]}, "two different choices"),
        ({"threshold": 1}, "missing or unknown fields.*threshold"),
    ],
)
def test_a_calibration_that_cannot_be_computed_with_is_refused(change, message):
    with pytest.raises(Exception, match=f"(?s){message}"):
        LumbarCLIPConfig(calibration={**CALIBRATION, "questions": [{**QUESTION, **change}]})


@pytest.mark.parametrize(
    "calibration, message",
    [
        ({**CALIBRATION, "target_coverage": 90}, "between 0 and 1, such as 0.9; got 90"),
        ({**CALIBRATION, "questions": []}, "needs questions"),
        ({"target_coverage": 0.9}, "missing or unknown.*'questions'"),
    ],
)
def test_half_a_calibration_is_refused(calibration, message):
    with pytest.raises(Exception, match=f"(?s){message}"):
        LumbarCLIPConfig(calibration=calibration)


@pytest.mark.parametrize(
    ("tower", "setting"),
    [
        ({"text_config": {"model_type": "bert", "auto_map": {"AutoModel": "other/code--a.B"}}}, "auto_map"),
        ({"vision_config": {"model_type": "dpt", "backbone_config": {"auto_map": {"AutoModel": "a.B"}}}}, "auto_map"),
        ({"text_config": {"model_type": "bert", "quantization_config": {}}}, "quantization_config"),
        (
            {"vision_config": {"model_type": "timm_wrapper", "model_args": {"pretrained": True}}},
            "model_args.pretrained",
        ),
        (
            {"vision_config": {"model_type": "timm_wrapper", "model_args": {"checkpoint_path": "a.pth"}}},
            "model_args.checkpoint_path",
        ),
    ],
)
def test_a_tower_cannot_run_code_or_read_other_files(tower, setting):
    (name,) = tower
    with pytest.raises(ValueError, match=f"{name} sets {setting}, which would run code or read other files"):
        LumbarCLIPConfig(**tower)


def test_dicts_given_by_the_user_are_not_changed():
    text = {"model_type": "bert", "hidden_size": 32}
    LumbarCLIPConfig(text_config=text)
    assert text == {"model_type": "bert", "hidden_size": 32}


REGISTERED = """
import json, sys
from pathlib import Path
from modeling_lumbarclip.configuration_lumbarclip import LumbarCLIPConfig
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoProcessor
assert type(AutoConfig.for_model("lumbarclip")) is LumbarCLIPConfig
LumbarCLIPConfig().save_pretrained("saved")
assert json.loads(Path("saved/config.json").read_text())["auto_map"]["AutoConfig"].endswith(".LumbarCLIPConfig")
assert Path("saved/configuration_lumbarclip.py").exists()

from modeling_lumbarclip.image_processing_lumbarclip import LumbarCLIPImageProcessor
LumbarCLIPImageProcessor().save_pretrained("saved")
assert Path("saved/image_processing_lumbarclip.py").exists()
assert type(AutoImageProcessor.from_pretrained("saved")) is LumbarCLIPImageProcessor
from modeling_lumbarclip.processing_lumbarclip import LumbarCLIPProcessor
assert LumbarCLIPProcessor._auto_class == "AutoProcessor"
from modeling_lumbarclip.modeling_lumbarclip import LumbarCLIPModel
assert LumbarCLIPModel._auto_class == "AutoModel"
assert AutoModel._model_mapping[LumbarCLIPConfig] is LumbarCLIPModel
"""


def test_each_class_file_registers_its_class(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", REGISTERED],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
