"""What a checkpoint was trained on, in words; the distance of features; statistics that survive saving and casting."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from modeling_lumbarclip import LumbarCLIPConfig, LumbarCLIPForImageClassification, LumbarCLIPModel
from modeling_lumbarclip.configuration_lumbarclip import FeatureCheck, Scope
from modeling_lumbarclip.scope_lumbarclip import (
    ScopeStatistics,
    feature_reason,
    header_reason,
    scope_in_words,
)
from tests.without_package import last_line

WIDTH = 24  # of the tiny vision tower
TRAINED = {
    "planes": ["axial"],
    "sequences": ["T1", "T2"],
    "anatomy": "lumbar spine",
    "is_synthetic": True,
    "num_patients": 210,
}
CHECK = FeatureCheck(threshold=1.5, false_alarm_rate=0.05, num_directions=5, num_images=60, num_patients=20)
SCOPE = Scope(**TRAINED, check=CHECK)
WORDS = "Trained on drawn axial T1 and T2 slices of the lumbar spine (210 drawn patients); this is"


def statistics(width=WIDTH, num_directions=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "mean": 100 * torch.randn(width, generator=generator),  # far from zero: half precision would lose it
        "directions": torch.linalg.qr(torch.randn(width, num_directions, generator=generator))[0].T,
        "variances": torch.rand(num_directions + 1, generator=generator) + 0.1,
    }


@pytest.fixture
def features():
    return near() + 3000 * torch.randn(7, WIDTH, generator=torch.Generator().manual_seed(1))


def near():
    """Features z_I of which the roots are the mean."""
    mean = statistics()["mean"]
    return (mean.sign() * mean.square())[None]


@pytest.fixture
def scoped(tiny_model):
    tiny_model.set_scope(SCOPE, statistics())
    return tiny_model


def distances_by_hand(features, fitted):
    """With the whole covariance, inverted."""
    directions, variances = fitted["directions"].double(), fitted["variances"].double()
    whole = torch.eye(features.shape[1], dtype=torch.float64) * variances[-1]
    whole += directions.T @ torch.diag(variances[:-1] - variances[-1]) @ directions
    evened = features.double().sign() * features.double().abs().sqrt()
    centred = evened - fitted["mean"].double()
    return torch.sqrt(torch.einsum("nd,de,ne->n", centred, torch.linalg.inv(whole), centred) / features.shape[1])


@pytest.mark.parametrize("num_directions", [0, 1, 5, WIDTH - 1])
def test_the_distance_is_that_of_mahalanobis(features, num_directions):
    fitted = statistics(num_directions=num_directions)
    module = ScopeStatistics(WIDTH, num_directions)
    module.load(fitted)
    torch.testing.assert_close(module(features).double(), distances_by_hand(features, fitted), rtol=1e-4, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(module(features), module(features.clone()))
    assert not [*module.parameters()]


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"plane": "sagittal", "sequence": "T2"}, "a sagittal T2 slice."),
        ({"plane": "sagittal"}, "a sagittal slice."),
        ({"plane": "axial", "sequence": "T2_SPACE"}, "an axial T2 SPACE slice."),
        ({"plane": "axial", "sequence": "STIR"}, "an axial STIR slice."),
        ({"plane": "axial", "sequence": "other"}, "an axial slice, and no T1, T2, STIR or PD."),
        ({"sequence": "PD", "anatomy": ""}, "a PD slice."),
        ({"anatomy": "knee"}, "a slice of the knee."),
        ({"plane": "axial", "sequence": "T2", "anatomy": "head"}, "an axial T2 slice of the head."),
        ({"plane": "coronal", "sequence": "unknown", "anatomy": "unknown"}, "a coronal slice."),
    ],
)
def test_a_header_outside_is_named(header, said):
    assert header_reason(SCOPE, header) == f"{WORDS} {said}"


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"plane": "axial"},
        {"plane": "axial", "sequence": "T1", "anatomy": "lumbar spine"},
        {"plane": "unknown", "sequence": "", "anatomy": "Unknown"},
        {"plane": None},
        {"plane": "Axial", "sequence": "t2", "anatomy": "Lumbar spine"},
    ],
)
def test_a_header_inside_or_silent_is_no_reason(header):
    assert header_reason(SCOPE, header) is None


def test_what_the_training_did_not_record_is_not_held_against_a_header():
    nothing = Scope(planes=[], sequences=[], anatomy=None, is_synthetic=False, num_patients=3)
    assert header_reason(nothing, {"plane": "sagittal", "sequence": "other", "anatomy": "knee"}) is None
    assert scope_in_words(nothing) == "images (3 patients)"
    planes = Scope(planes=["axial"], sequences=[], anatomy=None, is_synthetic=False, num_patients=1)
    assert header_reason(planes, {"plane": "axial", "sequence": "other", "anatomy": "knee"}) is None


def test_a_radiograph_is_no_slice():
    scope = Scope(planes=["coronal"], sequences=["other"], anatomy="knee", is_synthetic=False, num_patients=2)
    assert scope_in_words(scope) == "coronal images of the knee (2 patients)"


@pytest.mark.parametrize("header", ["axial", [{"plane": "axial"}], {"plane": 1}, {"plane": ["axial"]}])
def test_what_is_no_header_is_shown(header):
    with pytest.raises(TypeError, match="dictionary of strings") as raised:
        header_reason(SCOPE, header)
    assert repr(header) in str(raised.value)


def test_an_unknown_field_of_a_header_is_named():
    with pytest.raises(ValueError, match="plane, sequence, anatomy; got orientation"):
        header_reason(SCOPE, {"orientation": "axial"})


def test_features_beyond_the_threshold_are_a_reason_and_nan_is_too():
    assert feature_reason(SCOPE, 1.5) is None
    assert feature_reason(SCOPE, 1.6) == f"{WORDS} an image unlike them (distance 1.60, at most 1.50 inside)."
    assert feature_reason(SCOPE, float("inf")).startswith(WORDS)
    assert "contain NaN" in feature_reason(SCOPE, float("nan"))
    assert feature_reason(SCOPE, None) is None
    assert feature_reason(Scope(**TRAINED, no_check="few"), 99.0) is None


def test_a_model_gives_reasons_by_header_first_then_by_features(scoped, features):
    assert scoped.scope_reasons(torch.cat([near(), features[:1], near()])) == [
        None,
        f"{WORDS} an image unlike them (distance {scoped.scope(features)[0]:.2f}, at most 1.50 inside).",
        None,
    ]
    headers = [{"plane": "sagittal"}, {"plane": "sagittal"}, None]
    by_header = f"{WORDS} a sagittal slice."
    assert scoped.scope_reasons(torch.cat([near(), features[:1], near()]), headers) == [by_header, by_header, None]
    with pytest.raises(ValueError):
        scoped.scope_reasons(near(), [{}, {}])


def test_without_a_scope_everything_is_as_before(tiny_model, features):
    names = set(tiny_model.state_dict())
    assert tiny_model.scope_reasons(features, [{"plane": "sagittal"}] * 7) == [None] * 7
    tiny_model.set_scope(SCOPE, statistics())
    assert set(tiny_model.state_dict()) - names == {"scope.mean", "scope.directions", "scope.variances"}
    tiny_model.set_scope(None)
    assert set(tiny_model.state_dict()) == names and tiny_model.config.scope is None


def test_a_scope_without_a_check_knows_headers_only(tiny_model, features):
    tiny_model.set_scope(Scope(**TRAINED, no_check="2 validation patients"))
    assert not [name for name in tiny_model.state_dict() if name.startswith("scope.")]
    assert tiny_model.scope_reasons(features[:2], [{"plane": "sagittal"}, None]) == [f"{WORDS} a sagittal slice.", None]


def test_check_and_statistics_go_together(tiny_model):
    with pytest.raises(ValueError, match="pass both or neither"):
        tiny_model.set_scope(SCOPE)
    with pytest.raises(ValueError, match="pass both or neither"):
        tiny_model.set_scope(Scope(**TRAINED), statistics())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_statistics_survive_saving_loading_and_casting(scoped, features, tmp_path, dtype):
    expected = scoped.scope(features)
    scoped.save_pretrained(tmp_path / "first")
    loaded = LumbarCLIPModel.from_pretrained(tmp_path / "first", dtype=dtype)
    assert next(loaded.parameters()).dtype == dtype
    loaded.save_pretrained(tmp_path / "second")
    for model in (loaded, LumbarCLIPModel.from_pretrained(tmp_path / "second").half(), loaded.to(torch.bfloat16)):
        assert torch.equal(model.scope(features), expected)
        assert model.config.scope == scoped.config.scope
    classifier = LumbarCLIPForImageClassification.from_pretrained(tmp_path / "first")
    assert torch.equal(classifier.scope(features), expected)  # the same tower
    assert LumbarCLIPForImageClassification.from_pretrained(tmp_path / "first", scope=None).scope is None


def test_statistics_that_are_missing_hold_every_image_back(scoped, features, tmp_path):
    scoped.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("scope.")}
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    loaded = LumbarCLIPModel.from_pretrained(tmp_path)
    assert all("contain NaN" in reason for reason in loaded.scope_reasons(features))


def test_statistics_of_a_removed_scope_are_ignored(scoped, tmp_path):
    scoped.save_pretrained(tmp_path)
    loaded, found = LumbarCLIPModel.from_pretrained(tmp_path, scope=None, output_loading_info=True)
    assert loaded.scope is None and not found["unexpected_keys"]


def test_nothing_of_it_is_trained_or_averaged_away(scoped, features):
    expected = scoped.scope(features)
    average = torch.optim.swa_utils.AveragedModel(scoped)
    with torch.no_grad():
        for parameter in scoped.parameters():
            parameter += 1
    average.update_parameters(scoped)
    assert torch.equal(average.module.scope(features), expected)


def test_a_wide_tower_costs_little(tiny_model):
    size = sum(value.nbytes for value in ScopeStatistics(2048, 256).buffers())
    assert size < 2.2e6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"planes": "axial"}, "list of names"),
        ({"anatomy": 3}, "anatomy of a scope"),
        ({"num_patients": -1}, "num_patients of a scope"),
        ({"is_synthetic": "yes"}, "is_synthetic of a scope"),
        ({"check": {"threshold": 1.0}}, "missing or unknown fields"),
        ({"colour": "red"}, "missing or unknown fields"),
        ({"check": {**vars(CHECK), "threshold": 0.0}}, "positive and finite"),
        ({"check": {**vars(CHECK), "false_alarm_rate": 5}}, "between 0 and 1"),
        ({"check": {**vars(CHECK), "num_directions": "5"}}, "num_directions of a scope"),
        ({"check": {**vars(CHECK), "num_patients": 0}}, "num_patients of a scope"),
    ],
)
def test_a_damaged_scope_is_refused_with_its_field(change, message):
    scope = {**TRAINED, "check": vars(CHECK), "no_check": ""} | change
    with pytest.raises(Exception, match=message):
        LumbarCLIPConfig(scope=scope)


def test_remote_code_gives_the_same_reasons(scoped, tiny_processor, tmp_path):
    """In a fresh process, in an empty folder, without our package."""
    scoped.save_pretrained(tmp_path / "checkpoint")
    tiny_processor.save_pretrained(tmp_path / "checkpoint")
    pixels = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "pixels.npy", pixels.numpy())
    with torch.no_grad():
        expected = scoped.scope_reasons(scoped(pixel_values=pixels).image_features, [{"plane": "sagittal"}, None, {}])
    script = (
        "import json, numpy, torch\nfrom transformers import AutoModel\n"
        "model = AutoModel.from_pretrained('../checkpoint', trust_remote_code=True).eval()\n"
        "features = model(pixel_values=torch.from_numpy(numpy.load('../pixels.npy'))).image_features\n"
        "print(json.dumps(model.scope_reasons(features, [{'plane': 'sagittal'}, None, {}])))\n"
    )
    assert json.loads(last_line(script, folder=tmp_path)) == expected


@torch.no_grad()
def change(parameter):
    parameter += 0.01


def test_the_scope_is_that_of_the_tower_it_was_fitted_on(scoped, features, tmp_path, caplog):
    change(scoped.text_projection.weight)  # of the text: the images are what they were
    assert scoped.scope_problem() is None and all(scoped.scope_reasons(features))
    scoped.save_pretrained(tmp_path / "same")
    assert LumbarCLIPModel.from_pretrained(tmp_path / "same").config.scope is not None
    change(next(scoped.vision_model.parameters()))
    assert "another vision tower" in scoped.scope_problem()
    assert scoped.scope_reasons(features) == [None] * 7
    scoped.save_pretrained(tmp_path / "other")
    loaded = LumbarCLIPModel.from_pretrained(tmp_path / "other")
    assert loaded.config.scope is None and loaded.scope is None
    assert scoped.config.scope is not None  # only the file is without it


def test_a_tower_changed_behind_the_back_of_autograd_is_another(scoped):
    assert scoped.scope_problem() is None
    next(scoped.vision_model.parameters()).data.mul_(1.1)  # as moving averages of weights do
    assert "another vision tower" in scoped.scope_problem()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_cast_makes_no_other_tower(scoped, features, tmp_path, dtype):
    scoped.save_pretrained(tmp_path)
    loaded = LumbarCLIPModel.from_pretrained(tmp_path, dtype=dtype)
    assert loaded.scope_problem() is None and all(loaded.scope_reasons(features))
    assert scoped.to(dtype).scope_problem() is None


def test_a_trainer_that_trains_a_classifier_further_leaves_no_scope(scoped, tmp_path):
    scoped.save_pretrained(tmp_path / "pretrained")
    classifier = LumbarCLIPForImageClassification.from_pretrained(tmp_path / "pretrained")
    assert classifier.scope_problem() is None
    optimizer = torch.optim.SGD(classifier.parameters(), lr=0.1)
    classifier(pixel_values=torch.rand(2, 3, 32, 32), labels=torch.tensor([0, 1])).loss.backward()
    optimizer.step()
    classifier.save_pretrained(tmp_path / "trained")
    assert LumbarCLIPForImageClassification.from_pretrained(tmp_path / "trained").config.scope is None
