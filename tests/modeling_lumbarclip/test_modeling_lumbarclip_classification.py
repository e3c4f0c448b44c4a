"""The classifier: features of the tower and of a segmenter, transformers' losses, temperatures, no dead weights."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassClassValidationError
from safetensors import safe_open
from transformers import AutoModel, AutoModelForImageClassification

from modeling_lumbarclip import (
    LumbarCLIPConfig,
    LumbarCLIPForImageClassification,
    LumbarCLIPForSemanticSegmentation,
    LumbarCLIPModel,
)
from modeling_lumbarclip.calibration_lumbarclip import weights_digests
from modeling_lumbarclip.modeling_lumbarclip_classification import features_in_classes
from tests.without_package import last_line

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
    with pytest.raises(ValueError, match="without projections.*AutoModelForImageClassification"):
        AutoModel.from_pretrained(tmp_path / "classifier")
    with pytest.raises(ValueError, match="without projections"):
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


MASKS = {0: "background", 1: "disc", 2: "canal"}


@pytest.fixture(params=["patch", "none"])
def segmenter(request, folder, tiny_processor, tmp_path):
    """The folder of a segmentation model, with and without texts."""
    torch.manual_seed(0)
    prompts = tiny_processor.segmentation_prompts(["disc", "canal"]) if request.param == "patch" else {}
    settings = {"id2label": MASKS, "cross_attention": request.param, **prompts}
    LumbarCLIPForSemanticSegmentation.from_pretrained(folder, **settings).save_pretrained(tmp_path / "segmenter")
    return tmp_path / "segmenter"


def graded(segmenter, **settings):
    return LumbarCLIPForImageClassification.from_pretrained(segmenter, id2label=NAMES, mask_classes=3, **settings)


@torch.no_grad()
def test_features_in_classes_are_weighted_means_and_shares():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator)
    logits[1, 2] = -1e4  # a class that is nowhere
    weights = logits.softmax(dim=1)
    for of_each in (True, False):
        features = torch.randn(4 if of_each else 2, 6, 4, 5, generator=generator)
        found = features_in_classes(features, logits)
        assert found.shape == (2, 2 * 7)
        for image in range(2):
            for k in range(2):
                weight = weights[image, 1 + k]
                of_class = features[2 * image + k] if of_each else features[image]
                expected = (of_class * weight).sum((1, 2)) / weight.sum() if weight.any() else torch.zeros(6)
                torch.testing.assert_close(found[image, 6 * k : 6 * k + 6], expected)
                assert found[image, 12 + k].exp().item() == pytest.approx(max(weight.mean().item(), 1e-4), rel=1e-5)
    assert features_in_classes(features.half(), logits.half()).dtype == torch.float16


@torch.no_grad()
def test_the_head_reads_what_the_segmenter_finds_in_each_class(segmenter, tiny_inputs):
    before = LumbarCLIPForSemanticSegmentation.from_pretrained(segmenter).eval()
    model = graded(segmenter).eval()
    assert torch.equal(model.decoder.head.weight, before.decoder.head.weight)
    assert hasattr(model, "text_model") is (before.config.cross_attention == "patch")
    kept = {}
    handle = before.decoder.head.register_forward_hook(lambda _, inputs, output: kept.update(features=inputs[0]))
    output = before(tiny_inputs.pixel_values)
    handle.remove()
    both = torch.cat([output.image_features, features_in_classes(kept["features"], output.logits)], dim=1)
    answer = model(tiny_inputs.pixel_values)
    torch.testing.assert_close(answer.logits, both @ model.classifier.weight.T + model.classifier.bias)
    torch.testing.assert_close(answer.image_features, output.image_features)
    assert answer.hidden_states is None
    asked = model(tiny_inputs.pixel_values, output_hidden_states=True).hidden_states
    expected = before(tiny_inputs.pixel_values, output_hidden_states=True).hidden_states
    assert len(asked) == len(expected) and all(map(torch.equal, asked, expected))


def test_all_that_reads_masks_and_texts_has_a_gradient(segmenter, tiny_inputs):
    model = graded(segmenter, class_text_width=8, projection="linear", projection_dim=8).train()
    model.set_class_embeds(torch.eye(3, 8))
    assert model.image_projection.in_features == model.classifier.in_features - 8
    model(tiny_inputs.pixel_values, labels=torch.tensor([0, 2, 1, 2])).loss.backward()
    assert [name for name, value in model.named_parameters() if value.grad is None] == []


def test_a_classifier_from_a_segmenter_stands_alone(segmenter, tiny_inputs, tmp_path):
    torch.manual_seed(1)
    model = graded(segmenter).eval()
    model.save_pretrained(tmp_path / "classifier")
    torch.save(tiny_inputs.pixel_values, tmp_path / "pixels.pt")
    with torch.no_grad():
        torch.save(model(tiny_inputs.pixel_values).logits, tmp_path / "logits.pt")
    script = """
import sys, torch
from transformers import AutoModelForImageClassification
folder, pixels, logits = sys.argv[1:]
model, report = AutoModelForImageClassification.from_pretrained(
    folder, trust_remote_code=True, output_loading_info=True)
assert type(model).__module__.startswith("transformers_modules."), type(model)
assert not any(report.values()), report
with torch.no_grad():
    print((model.eval()(torch.load(pixels)).logits - torch.load(logits)).abs().max().item())
"""
    paths = [tmp_path / name for name in ("classifier", "pixels.pt", "logits.pt")]
    assert float(last_line(script, *paths, folder=tmp_path)) < 1e-5


def test_classes_of_masks_that_do_not_fit_are_refused(segmenter):
    with pytest.raises(StrictDataclassClassValidationError, match="mask_classes counts the background.*got 1"):
        LumbarCLIPConfig(mask_classes=1)
    if LumbarCLIPConfig.from_pretrained(segmenter).cross_attention == "patch":
        with pytest.raises(ValueError, match="4 classes need 3 segmentation_prompts"):
            LumbarCLIPForImageClassification.from_pretrained(segmenter, mask_classes=4)
