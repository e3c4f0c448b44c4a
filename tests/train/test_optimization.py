"""What decays and what does not, and the shape of the schedule."""

import pytest
import torch

from train.optimization import build_optimizer, build_schedule


def test_matrices_decay_and_the_temperature_does_not(tiny_model):
    optimizer = build_optimizer(tiny_model, 1e-3, 0.1)
    decayed, spared = optimizer.param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert all(parameter.ndim > 1 for parameter in decayed["params"])
    assert any(parameter is tiny_model.log_inverse_temperature for parameter in spared["params"])
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(tiny_model.parameters()))


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
