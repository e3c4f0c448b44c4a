"""Objectives: what they read of the model, what they train, and one process against two."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from modeling_lumbarclip import LumbarCLIPModel, LumbarCLIPOutput
from modeling_lumbarclip.losses_lumbarclip import info_nce_loss, lumbarclip_loss, sigmoid_loss
from tests.train.objectives.gradients import gradients_of, load_trained, targets_of
from train.objectives import OBJECTIVES, build_objective
from train.objectives.objective import ModelWithObjective, Pairs, TrainingTargets, keep_local
from train.objectives.supervised import supervised_loss

PROJECT = Path(__file__).parents[3]
LABELS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
TARGETS = TrainingTargets(**targets_of(LABELS), findings=("a", "b"), grade_names=("1", "2"), num_counterfactuals=1)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_trained_parameter_gets_a_gradient(name, tiny_config, tiny_inputs):
    """Distributed training waits for all of them."""
    trained = load_trained(name, tiny_config, LABELS).float()
    views = {f"{view}_pixel_values": tiny_inputs["pixel_values"] for view in ("flipped", "view")}
    changed = {f"counterfactual_{key}": tiny_inputs[key][:1] for key in ("input_ids", "attention_mask")}
    facts = {"facts": torch.arange(4), "counterfactual_rows": torch.tensor([2])}
    loss, numbers = trained({**tiny_inputs, **targets_of(LABELS), **views, **changed, **facts})
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
        **{name: {} for name in set(OBJECTIVES) - {"siglip", "gloria", "supervised", "image_grades"}},
        "siglip": {"bias": ()},
        "gloria": {"region_projection.weight": (8, 24), "word_projection.weight": (8, 16)},
        "supervised": {"class_head.weight": (2, 24), "class_head.bias": (2,)},
        "image_grades": {"grade_head.weight": (2, 24), "grade_head.bias": (2,)},
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


LACKING = [
    (
        "polarity",
        {"states": None},
        "PolarityObjective learns which findings are present, but the dataset has no classes",
    ),
    ("polarity", {"states": torch.ones(4, 2)}, r"no class is both stated and denied in the training pairs \(a, b\)"),
    ("polarity", {"states": torch.full((4, 2), -1.0)}, "no class is both stated and denied"),
    ("counterfactual", {"num_counterfactuals": 0}, "finds none to change in any training report.*parse_reports"),
]


@pytest.mark.parametrize("name, without, message", LACKING)
def test_objectives_without_their_inputs_are_refused(name, without, message, tiny_model):
    for objectives in (name, {"lumbarclip": 1.0, name: 0.5}):
        with pytest.raises(ValueError, match=message):
            build_objective(objectives, tiny_model, replace(TARGETS, **without))


def test_a_combination_is_the_weighted_sum_of_its_terms(tiny_config, tiny_inputs):
    batch = {**tiny_inputs, **targets_of(LABELS), "facts": torch.arange(4)}
    alone = {}
    for name in ("lumbarclip", "polarity", "supervised"):
        _, numbers = load_trained(name, tiny_config, LABELS).float()(batch)
        alone[name] = numbers[f"{name}_loss"].item()
    trained = load_trained({"lumbarclip": 2.0, "polarity": 0.5}, tiny_config, LABELS).float()
    loss, numbers = trained(batch)
    assert loss.item() == pytest.approx(2 * alone["lumbarclip"] + 0.5 * alone["polarity"], rel=1e-5)
    assert numbers.keys() == {"inverse_temperature", "lumbarclip_loss", "polarity_loss"}
    assert numbers["polarity_loss"].item() == pytest.approx(alone["polarity"], rel=1e-5)
    assert not any(number.requires_grad for number in numbers.values())


def test_what_another_term_trains_is_not_frozen(tiny_config):
    both = load_trained({"supervised": 1.0, "clip": 1.0}, tiny_config, LABELS)
    assert all(parameter.requires_grad for parameter in both.parameters())
    fixed = LumbarCLIPModel(tiny_config)
    fixed.log_inverse_temperature.requires_grad_(False)
    build_objective("clip", fixed)
    assert not fixed.log_inverse_temperature.requires_grad  # as the run has set it


def test_a_step_without_counterfactuals_costs_nothing(tiny_config, tiny_inputs):
    trained = load_trained("counterfactual", tiny_config, LABELS).float()
    none = {f"counterfactual_{key}": tiny_inputs[key][:0] for key in ("input_ids", "attention_mask")}
    batch = {**tiny_inputs, **none, "facts": torch.arange(4), "counterfactual_rows": torch.zeros(0, dtype=torch.long)}
    loss, _ = trained(batch)
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad is not None for parameter in trained.parameters())


def test_wordings_change_from_step_to_step_and_go_on_after_a_resume(tiny_config, tiny_inputs):
    batch = {**tiny_inputs, **targets_of(LABELS)}
    trained = load_trained("polarity", tiny_config, LABELS).float()
    losses = [trained(batch)[0].item() for _ in range(4)]
    assert len(set(losses)) > 1 and trained.step.item() == 4
    resumed = load_trained("polarity", tiny_config, LABELS).float()
    resumed.step.fill_(2)
    assert [resumed(batch)[0].item() for _ in range(2)] == losses[2:]
    assert "step" in resumed.state_dict()
    validated = {resumed.eval()(batch)[0].item() for _ in range(3)}
    assert len(validated) == 1 and resumed.step.item() == 4


def test_joined_and_selected_pairs_keep_their_counterfactuals():
    def pairs(start, rows):
        embeds = torch.arange(start, start + 3.0)[:, None]
        changed = 10 * embeds[rows]
        output = LumbarCLIPOutput(image_embeds=embeds, text_embeds=embeds, inverse_temperature=torch.tensor(1.0))
        return Pairs(output=output, facts=embeds[:, 0], counterfactual_embeds=changed, counterfactual_rows=rows)

    joined = Pairs.join(
        [pairs(0.0, torch.tensor([2, 0])), pairs(3.0, torch.tensor([1])), pairs(6.0, torch.tensor([2]))]
    )
    assert joined.counterfactual_rows.tolist() == [2, 0, 4, 8]
    chosen = joined.select(torch.tensor([8, 3, 2, 5]))
    assert chosen.output.image_embeds.flatten().tolist() == chosen.facts.tolist() == [8, 3, 2, 5]
    assert chosen.counterfactual_rows.tolist() == [2, 0]
    assert chosen.counterfactual_embeds.flatten().tolist() == [20, 80]


@pytest.mark.slow
def test_two_processes_find_the_gradients_of_one(tiny_config, tmp_path):
    """Texts are longer in one process than in the other, and half of all reports occur twice."""
    generator = torch.Generator().manual_seed(0)
    lengths, index = torch.tensor([5, 8, 4, 12]), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    batch = {
        "pixel_values": torch.rand(8, 3, 32, 32, generator=generator, dtype=torch.float64),
        "input_ids": torch.randint(5, 16, (4, 12), generator=generator)[index],
        "attention_mask": (torch.arange(12) < lengths[:, None]).long()[index],
        "facts": index,
        "counterfactual_input_ids": torch.randint(5, 16, (3, 6), generator=generator),
        "counterfactual_attention_mask": torch.ones(3, 6, dtype=torch.long),
        "counterfactual_rows": torch.tensor([0, 2, 5]),
        "flipped_pixel_values": torch.rand(8, 3, 32, 32, generator=generator, dtype=torch.float64),
        "view_pixel_values": torch.rand(8, 3, 32, 32, generator=generator, dtype=torch.float64),
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
