"""The classifier: features of the pretrained tower, transformers' losses, temperatures, and no dead weights."""

import pytest
import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassClassValidationError
from safetensors import safe_open
from transformers import AutoModel, AutoModelForImageClassification

from modeling_lumbarclip import LumbarCLIPConfig, LumbarCLIPForImageClassification, LumbarCLIPModel
from modeling_lumbarclip.calibration_lumbarclip import weights_digests

NAMES = {0: "LBP", 1: "No Finding", 2: "disc bulge"}


@pytest.fixture
def folder(tiny_model, tmp_path):
    tiny_model.save_pretrained(tmp_path / "pretrained")
    return tmp_path / "pretrained"


def test_a_pretrained_checkpoint_gives_its_tower_and_a_new_head_which_is_reported(folder, tiny_model, tiny_inputs):
    model, report = AutoModelForImageClassification.from_pretrained(folder, id2label=NAMES, output_loading_info=True)
    assert type(model) is LumbarCLIPForImageClassification
    assert report["missing_keys"] == {"classifier.weight", "classifier.bias"}
    assert not report["unexpected_keys"]
    assert model.config.id2label == NAMES
    assert {name.split(".")[0] for name in model.state_dict()} == {"vision_model", "classifier"}
    with torch.no_grad():
        features = tiny_model.get_image_features(tiny_inputs.pixel_values, project=False).pooler_output
        logits = model.eval()(tiny_inputs.pixel_values).logits
    torch.testing.assert_close(logits, features @ model.classifier.weight.T + model.classifier.bias)


def test_a_saved_classifier_reloads_with_its_head_and_is_no_dual_encoder(folder, tiny_inputs, tmp_path):
    model = LumbarCLIPForImageClassification.from_pretrained(folder, id2label=NAMES, class_temperatures=[1.0, 2.0, 4])
    model.config.class_temperatures_fitted_on = {"weights": weights_digests(model)}
    model.save_pretrained(tmp_path / "classifier")
    again, report = AutoModelForImageClassification.from_pretrained(tmp_path / "classifier", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert again.config.id2label == NAMES and again.config.is_classifier
    with torch.no_grad():
        logits, raw = again(tiny_inputs.pixel_values).logits, again.classifier
        torch.testing.assert_close(logits, model.eval()(tiny_inputs.pixel_values).logits, atol=1e-6, rtol=1e-5)
        again.config.class_temperatures = None
        torch.testing.assert_close(logits * torch.tensor([1.0, 2.0, 4.0]), again(tiny_inputs.pixel_values).logits)
    assert raw.out_features == 3
    with safe_open(tmp_path / "classifier" / "model.safetensors", "pt") as weights:
        assert {name.split(".")[0] for name in weights.keys()} == {"vision_model", "classifier"}  # noqa: SIM118
    with pytest.raises(ValueError, match="without a text tower.*AutoModelForImageClassification"):
        AutoModel.from_pretrained(tmp_path / "classifier")
    with pytest.raises(ValueError, match="without a text tower"):
        LumbarCLIPModel.from_pretrained(tmp_path / "classifier")


@pytest.mark.parametrize(
    "labels, loss, problem_type",
    [
        (torch.tensor([0, 2, 1, 2]), F.cross_entropy, "single_label_classification"),
        (torch.eye(4)[:, :3], F.binary_cross_entropy_with_logits, "multi_label_classification"),
    ],
)
def test_the_loss_is_that_of_the_problem(folder, tiny_inputs, labels, loss, problem_type):
    model = LumbarCLIPForImageClassification.from_pretrained(folder, id2label=NAMES, problem_type=problem_type).eval()
    output = model(tiny_inputs.pixel_values, labels=labels)
    torch.testing.assert_close(output.loss, loss(output.logits, labels))
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("temperatures", [[1.0], [1.0, 0.0, 1.0], [1.0, float("inf"), 1.0]])
def test_temperatures_that_are_none_are_refused(temperatures):
    with pytest.raises(StrictDataclassClassValidationError, match="positive number for each of the 3 classes"):
        LumbarCLIPConfig(id2label=NAMES, class_temperatures=temperatures)
