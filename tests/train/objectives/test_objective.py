"""Objectives: what they read of the model, what they train, and one process against two."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from modeling_lumbarclip import LumbarCLIPModel
from modeling_lumbarclip.losses_lumbarclip import info_nce_loss, lumbarclip_loss, sigmoid_loss
from tests.train.objectives.gradients import gradients_of, load_trained
from train.objectives import OBJECTIVES, build_objective
from train.objectives.objective import ModelWithObjective, Pairs, TrainingTargets, keep_local
from train.objectives.supervised import supervised_loss

PROJECT = Path(__file__).parents[3]
LABELS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
TARGETS = TrainingTargets(labels=LABELS, classes=LABELS)
OF_BATCH = {"labels": LABELS, "classes": LABELS}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_trained_parameter_gets_a_gradient(name, tiny_model, tiny_inputs):
    """Distributed training waits for all of them."""
    trained = ModelWithObjective(tiny_model.train(), build_objective(name, tiny_model, TARGETS))
    loss, numbers = trained({**tiny_inputs, **OF_BATCH})
    inverse_temperature = numbers["inverse_temperature"]
    loss.backward()
    for parameter_name, parameter in trained.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, parameter_name
    assert not inverse_temperature.requires_grad
    assert inverse_temperature.item() == pytest.approx(1 / 0.07)


def test_objectives_compute_their_losses_on_the_output_of_the_model(tiny_model, tiny_inputs):
    output = tiny_model(**tiny_inputs)
    pairs = output.image_embeds, output.text_embeds
    expected = {
        "clip": info_nce_loss(*pairs, 1 / 0.07),
        "siglip": sigmoid_loss(*pairs, 1 / 0.07, -10.0),
        "lumbarclip": lumbarclip_loss(*pairs, None, 1 / 0.07, LABELS),
    }
    for name, value in expected.items():
        loss, terms = build_objective(name, tiny_model, TARGETS)(Pairs(output=output, labels=LABELS), gather=keep_local)
        assert terms == {f"{name}_loss": loss}
        assert loss.item() == pytest.approx(value.item(), rel=1e-5)


def test_outputs_that_are_kept_for_a_whole_split_hold_no_logits_and_no_layers(tiny_model, tiny_inputs):
    trained = ModelWithObjective(tiny_model, build_objective("lumbarclip", tiny_model))
    kept = trained.encode(dict(tiny_inputs)).output
    assert {"image_embeds", "text_embeds", "inverse_temperature"} <= kept.keys()
    assert not kept.keys() & {"logits_per_image", "logits_per_text", "text_model_output", "vision_model_output"}


def test_parameters_of_an_objective_are_not_in_the_published_model(tiny_model):
    own = {name: dict(OBJECTIVES[name](tiny_model, TARGETS).named_parameters()) for name in OBJECTIVES}
    shapes = {name: {key: tuple(value.shape) for key, value in parameters.items()} for name, parameters in own.items()}
    assert shapes == {
        **{name: {} for name in ("lumbarclip", "clip", "convirt", "medclip")},
        "siglip": {"bias": ()},
        "gloria": {"region_projection.weight": (8, 24), "word_projection.weight": (8, 16)},
        "supervised": {"class_head.weight": (2, 24), "class_head.bias": (2,)},
    }


@pytest.mark.parametrize("projection", ["none", "nonlinear"])
def test_gloria_works_with_any_head(projection, tiny_config, tiny_inputs):
    tiny_config.projection = projection
    model = LumbarCLIPModel(tiny_config)
    assert torch.isfinite(ModelWithObjective(model, build_objective("gloria", model))(dict(tiny_inputs))[0])


def test_supervised_trains_the_vision_tower_alone(tiny_model):
    build_objective("supervised", tiny_model, TARGETS)
    trained = {name.partition(".")[0] for name, parameter in tiny_model.named_parameters() if parameter.requires_grad}
    assert trained == {"vision_model"}


def test_supervised_tells_exclusive_classes_from_findings(tiny_model, tiny_inputs):
    output = tiny_model(**tiny_inputs)
    for labels, exclusive in ((LABELS, True), (torch.tensor([[1.0, 1.0], *LABELS[1:].tolist()]), False)):
        objective = OBJECTIVES["supervised"](tiny_model, TrainingTargets(classes=labels))
        logits = objective.class_head(output.image_features)
        loss = objective(Pairs(output=output, classes=labels), gather=keep_local)
        assert loss.item() == pytest.approx(supervised_loss(logits, labels, exclusive).item())


def test_supervised_meets_splits_with_and_without_the_class_none_of_these(tiny_model, tiny_inputs):
    output = tiny_model(**tiny_inputs)
    with_none = torch.cat([LABELS, torch.zeros(4, 1)], dim=1)
    pairs = [Pairs(output=output, classes=classes) for classes in (LABELS, with_none)]
    for classes in (LABELS, with_none):
        objective = OBJECTIVES["supervised"](tiny_model, TrainingTargets(classes=classes))
        assert objective(pairs[0]) == objective(pairs[1])


def test_objectives_without_their_labels_are_refused(tiny_model):
    for name in ("medclip", "supervised"):
        with pytest.raises(ValueError, match="no training pair has one.*--target_columns labels.*--objectives clip"):
            build_objective(name, tiny_model)


@pytest.mark.slow
def test_two_processes_find_the_gradients_of_one(tiny_config, tmp_path):
    """Texts are longer in one process than in the other, and half of all reports occur twice."""
    generator = torch.Generator().manual_seed(0)
    lengths, index = torch.tensor([5, 8, 4, 12]), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    batch = {
        "pixel_values": torch.rand(8, 3, 32, 32, generator=generator, dtype=torch.float64),
        "input_ids": torch.randint(5, 16, (4, 12), generator=generator)[index],
        "attention_mask": (torch.arange(12) < lengths[:, None]).long()[index],
    }
    labels = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]])
    torch.save({"config": tiny_config.to_dict(), "batch": batch, "labels": labels}, tmp_path / "inputs.pt")
    script = str(PROJECT / "tests" / "train" / "objectives" / "gradients.py")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*torchrun, script, str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    of_two = torch.load(tmp_path / "gradients.pt")
    assert of_two.keys() == OBJECTIVES.keys()
    for name, (loss, gradients) in of_two.items():
        expected_loss, expected = gradients_of(load_trained(name, tiny_config, labels), batch, labels)
        assert loss == pytest.approx(expected_loss, rel=1e-9), name
        assert gradients.keys() == expected.keys()
        assert any(gradient.abs().max() > 1e-6 for gradient in gradients.values())
        for parameter, gradient in gradients.items():
            torch.testing.assert_close(gradient, expected[parameter], rtol=1e-6, atol=1e-8, msg=f"{name}: {parameter}")
