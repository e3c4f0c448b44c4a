"""What decays and what does not, the shape of the schedule, and what an average of weights holds."""

import pytest
import torch

from train.training.optimization import average_weights, build_layerwise_optimizer, build_optimizer, build_schedule


def test_matrices_decay_and_the_temperature_does_not(tiny_model):
    optimizer = build_optimizer(tiny_model, 1e-3, 0.1)
    decayed, spared = optimizer.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert any(parameter is tiny_model.log_inverse_temperature for parameter in spared["params"])
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(tiny_model.parameters()))


def test_two_updates_are_those_of_adamw_at_the_given_rate():
    """By hand, Loshchilov and Hutter 2019: a weight that decays and a bias that does not, with different gradients."""
    layer = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(layer.weight, 3.0)
    torch.nn.init.constant_(layer.bias, 3.0)
    optimizer = build_optimizer(layer, learning_rate=0.2, weight_decay=0.1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.2, 0.2]
    for gradient in (0.5, -2.0):
        layer.weight.grad, layer.bias.grad = torch.full((1, 1), gradient), torch.full((1,), gradient)
        optimizer.step()
    # First: the mean is 0.5, the root of the mean square 0.5. Then, corrected for their start:
    mean, mean_square = (0.9 * 0.1 * 0.5 - 0.1 * 2) / (1 - 0.9**2), (0.999 * 0.001 * 0.25 + 0.001 * 4) / (1 - 0.999**2)
    bias = 3 - 0.2 - 0.2 * mean / mean_square**0.5
    weight = (3 * (1 - 0.2 * 0.1) - 0.2) * (1 - 0.2 * 0.1) - 0.2 * mean / mean_square**0.5
    assert (layer.weight.item(), layer.bias.item()) == pytest.approx((weight, bias), rel=1e-6)


def test_frozen_parameters_are_left_out(tiny_model):
    tiny_model.text_model.requires_grad_(False)
    trained = {
        id(parameter) for group in build_optimizer(tiny_model, 1, 0).param_groups for parameter in group["params"]
    }
    assert not trained & {id(parameter) for parameter in tiny_model.text_model.parameters()}


def test_schedule_warms_up_and_ends_at_zero():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    schedule = build_schedule(optimizer, 100, 0.1)
    rates = []
    for _ in range(100):
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[5] == pytest.approx(1.0) and max(rates) == rates[10] == 2.0
    assert rates[55] == pytest.approx(1.0) and schedule.get_last_lr()[0] == pytest.approx(0.0, abs=1e-9)


def test_weights_and_statistics_are_averaged_and_positions_are_not(tiny_model):
    model = torch.nn.ModuleDict({"clip": tiny_model, "norm": torch.nn.BatchNorm1d(1)})
    average = average_weights(model, 0.9)
    for step in range(4):
        with torch.no_grad():
            tiny_model.log_inverse_temperature.fill_(step)
            model["norm"].running_mean.fill_(10 * step)
        average.update_parameters(model)
    expected = 0.9 * (0.9 * (0.9 * 0 + 0.1 * 1) + 0.1 * 2) + 0.1 * 3
    assert average.module["clip"].log_inverse_temperature.item() == pytest.approx(expected)
    assert average.module["norm"].running_mean.item() == pytest.approx(10 * expected)
    positions = average.module["clip"].text_model.embeddings.position_ids
    assert torch.equal(positions, torch.arange(64)[None])


def test_the_rate_falls_from_the_head_down(tiny_model):
    tower = tiny_model.vision_model.timm_model  # two blocks
    tower.blocks[0].mlp.requires_grad_(False)
    optimizer = build_layerwise_optimizer(tiny_model, tower, learning_rate=1.0, weight_decay=0.1, layer_decay=0.5)
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    trained = [parameter for parameter in tiny_model.parameters() if parameter.requires_grad]
    assert groups.keys() == {id(parameter) for parameter in trained}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(trained)  # none twice
    rates = {
        name: groups[id(parameter)]["lr"]
        for name, parameter in (
            ("head", tiny_model.image_projection.weight),
            ("norm", tower.norm.weight),
            ("second", tower.blocks[1].attn.qkv.weight),
            ("first", tower.blocks[0].attn.qkv.weight),
            ("patches", tower.patch_embed.proj.weight),
        )
    }
    # timm counts the last norm to the last block.
    assert rates == {"head": 1.0, "norm": 1.0, "second": 1.0, "first": 0.5, "patches": 0.25}
    for parameter in trained:
        assert groups[id(parameter)]["weight_decay"] == (0.1 if parameter.ndim > 1 else 0.0)
