"""The classifier: features of the pretrained tower, transformers' losses, temperatures, and no dead weights."""

import os
import subprocess
import sys

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


@pytest.fixture
def fused(folder):
    """A classifier that fuses image and text, with the tower, projection and temperature of the checkpoint."""
    model = LumbarCLIPForImageClassification.from_pretrained(folder, id2label=NAMES, class_text_width=8)
    model.set_class_embeds(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)))
    return model.eval()


def test_a_fused_head_reads_the_texts_that_the_image_resembles(fused, tiny_model, tiny_inputs):
    with torch.no_grad():
        features = tiny_model.get_image_features(tiny_inputs.pixel_values, project=False).pooler_output
        embeds = tiny_model.get_image_features(tiny_inputs.pixel_values).pooler_output
        shares = (embeds @ fused.class_embeds.T / 0.07).softmax(dim=1)
        both = torch.cat([features, shares @ fused.class_embeds], dim=1)
        expected = both @ fused.classifier.weight.T + fused.classifier.bias
        torch.testing.assert_close(fused(tiny_inputs.pixel_values).logits, expected)
        fused.set_class_embeds(-fused.class_embeds)
        assert not torch.allclose(fused(tiny_inputs.pixel_values).logits, expected)
    torch.testing.assert_close(fused.class_embeds.norm(dim=1), torch.ones(3))


def test_a_fused_head_trains_the_projection_but_not_the_texts(fused, tiny_inputs):
    fused.train()(tiny_inputs.pixel_values, labels=torch.tensor([0, 2, 1, 2])).loss.backward()
    assert all(parameter.grad is not None for parameter in fused.parameters())
    assert not fused.class_embeds.requires_grad


def test_a_fused_checkpoint_stands_alone(fused, tiny_inputs, tmp_path):
    """In another process, without this package and without a text tower."""
    fused.save_pretrained(tmp_path / "classifier")
    torch.save(tiny_inputs.pixel_values, tmp_path / "pixels.pt")
    script = (
        "import torch; from transformers import AutoModelForImageClassification\n"
        "model, report = AutoModelForImageClassification.from_pretrained(\n"
        "    'classifier', trust_remote_code=True, output_loading_info=True)\n"
        "assert type(model).__module__.startswith('transformers_modules.'), type(model)\n"
        "assert not any(report.values()), report\n"
        "torch.save(model.eval()(torch.load('pixels.pt')).logits.detach(), 'logits.pt')\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    # -P and another folder: the package of this repository must not be found; an installed one is blocked.
    (tmp_path / "modeling_lumbarclip.py").write_text("raise ImportError('the checkpoint must bring its own code')\n")
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.path.insert(0, '.')\n" + script],
        **{"cwd": tmp_path, "env": environment, "capture_output": True, "text": True},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    expected = fused(tiny_inputs.pixel_values).logits
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), expected.detach(), atol=1e-5, rtol=1e-4)
    with safe_open(tmp_path / "classifier" / "model.safetensors", "pt") as weights:
        kept = {name.split(".")[0] for name in weights.keys()}  # noqa: SIM118
    assert kept == {"vision_model", "classifier", "image_projection", "log_inverse_temperature", "class_embeds"}


@pytest.mark.parametrize(
    ("embeds", "message"),
    [
        (torch.ones(2, 8), r"must be \(3, 8\).*\(2, 8\)"),
        (torch.zeros(3, 8), "zero or not finite"),
        (torch.full((3, 8), float("nan")), "zero or not finite"),
    ],
)
def test_texts_that_cannot_be_fused_are_refused(fused, embeds, message):
    with pytest.raises(ValueError, match=message):
        fused.set_class_embeds(embeds)


def test_a_head_of_the_image_alone_takes_no_texts(folder):
    model = LumbarCLIPForImageClassification.from_pretrained(folder, id2label=NAMES)
    with pytest.raises(ValueError, match="reads the image alone"):
        model.set_class_embeds(torch.ones(3, 8))
    with pytest.raises(StrictDataclassClassValidationError, match="class_text_width is a width"):
        LumbarCLIPConfig(class_text_width=-1)
