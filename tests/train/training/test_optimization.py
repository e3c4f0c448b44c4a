"""What decays and what does not, the shape of the schedule, and what an average of weights holds."""

import pytest
import torch

from modeling_lumbarclip import LumbarCLIPConfig, LumbarCLIPModel
from tests.conftest import TINY_TEXT, TINY_VISION
from train.training.adapters import add_adapters
from train.training.optimization import (
    average_weights,
    build_optimizer,
    build_schedule,
    freeze_first_layers,
    frozen_norms,
)


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
    expected = 0.0
    for step, kept in ((1, 2 / 11), (2, 3 / 12), (3, 4 / 13)):
        expected = kept * expected + (1 - kept) * step
    assert average.module["clip"].log_inverse_temperature.item() == pytest.approx(expected)
    assert average.module["norm"].running_mean.item() == pytest.approx(10 * expected)
    positions = average.module["clip"].text_model.embeddings.position_ids
    assert torch.equal(positions, torch.arange(64)[None])


def test_an_average_forgets_the_first_weights_and_then_keeps_its_decay():
    model = torch.nn.Linear(1, 1, bias=False)
    average = average_weights(model, 0.99)
    with torch.no_grad():
        model.weight.fill_(0)
        average.update_parameters(model)
        model.weight.fill_(1)
        for _ in range(50):
            average.update_parameters(model)
        assert average.module.weight.item() > 1 - 1e-6  # 0.39 with 0.99 from the start
        for _ in range(1000):
            average.update_parameters(model)
        model.weight.fill_(2)
        average.update_parameters(model)
    assert average.module.weight.item() == pytest.approx(1.01)


def rates_by_name(model, layer_decay, weight_decay=0.1):
    """The learning rate of each trained parameter, at a full rate of 1; each is in one group, and decays as ever."""
    optimizer = build_optimizer(model, 1.0, weight_decay, layer_decay)
    groups = {id(parameter): group for group in optimizer.param_groups for parameter in group["params"]}
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert groups.keys() == {id(parameter) for parameter in trained.values()}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(trained)  # none twice
    for parameter in trained.values():
        assert groups[id(parameter)]["weight_decay"] == (weight_decay if parameter.ndim > 1 else 0.0)
    assert optimizer.param_groups[-1]["lr"] == 1.0  # which the history logs
    return {name: groups[id(parameter)]["lr"] for name, parameter in trained.items()}


def clip_of(text, vision=TINY_VISION):
    return LumbarCLIPModel(LumbarCLIPConfig(vision_config=vision, text_config=text, projection_dim=8))


def test_the_rate_falls_from_the_heads_down_in_both_towers():
    """By hand, at a factor of 0.5: two blocks of vision, three of text; embeddings come before them."""
    model = clip_of(TINY_TEXT | {"num_hidden_layers": 3})
    model.vision_model.timm_model.blocks[0].mlp.requires_grad_(False)
    rates = rates_by_name(model, 0.5)
    assert {
        name: rates[name]
        for name in (
            *("image_projection.weight", "text_projection.bias", "log_inverse_temperature"),
            *(f"vision_model.timm_model.{name}" for name in ("norm.weight", "blocks.1.attn.qkv.weight")),
            *(f"vision_model.timm_model.{name}" for name in ("blocks.0.attn.qkv.weight", "patch_embed.proj.weight")),
            *(f"text_model.encoder.layer.{i}.output.dense.weight" for i in (2, 1, 0)),
            *("text_model.embeddings.word_embeddings.weight", "text_model.embeddings.LayerNorm.bias"),
        )
    } == {
        **{"image_projection.weight": 1.0, "text_projection.bias": 1.0, "log_inverse_temperature": 1.0},
        # timm counts the last norm to the last block.
        **{"vision_model.timm_model.norm.weight": 1.0, "vision_model.timm_model.blocks.1.attn.qkv.weight": 1.0},
        **{"vision_model.timm_model.blocks.0.attn.qkv.weight": 0.5},
        **{"vision_model.timm_model.patch_embed.proj.weight": 0.25},
        **{f"text_model.encoder.layer.{i}.output.dense.weight": rate for i, rate in ((2, 1.0), (1, 0.5), (0, 0.25))},
        "text_model.embeddings.word_embeddings.weight": 0.125,
        "text_model.embeddings.LayerNorm.bias": 0.125,
    }


SMALL = {"vocab_size": 16, "max_position_embeddings": 64}


@pytest.mark.parametrize(
    ("text", "first", "last", "final"),
    [
        (
            {"model_type": "gpt2", "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 64, "vocab_size": 16},
            *("wte.weight", "h.2.mlp.c_fc.weight", "ln_f.weight"),
        ),
        (
            {"model_type": "distilbert", "dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32, **SMALL},
            *("embeddings.word_embeddings.weight", "transformer.layer.2.ffn.lin1.weight", ""),
        ),
        (
            {"model_type": "deberta-v2", **TINY_TEXT, "num_hidden_layers": 3, "relative_attention": True}
            | {"model_type": "deberta-v2", "pos_att_type": ["p2c"]},
            *(
                "embeddings.word_embeddings.weight",
                "encoder.layer.2.output.dense.weight",
                "encoder.rel_embeddings.weight",
            ),
        ),
    ],
)
def test_layers_are_found_in_towers_of_transformers(text, first, last, final):
    model = LumbarCLIPModel(
        LumbarCLIPConfig(vision_config=TINY_VISION, text_config=text, projection_dim=8, text_pooling="last")
    )
    rates = rates_by_name(model, 0.5)
    assert rates[f"text_model.{first}"] == 0.125 and rates[f"text_model.{last}"] == 1.0
    assert not final or rates[f"text_model.{final}"] == 1.0


def test_a_vision_tower_of_transformers_has_layers_too():
    vision = {"model_type": "vit", "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"intermediate_size": 32, "image_size": 32, "patch_size": 16}
    rates = rates_by_name(clip_of(TINY_TEXT, vision), 0.1)
    patches = next(rate for name, rate in rates.items() if "patch_embeddings" in name)
    assert patches == pytest.approx(0.01)


def test_a_factor_of_one_changes_nothing(tiny_model):
    plain, layered = build_optimizer(tiny_model, 1e-3, 0.1), build_optimizer(tiny_model, 1e-3, 0.1, 1.0)
    assert plain.state_dict() == layered.state_dict() and len(plain.param_groups) == 2


def test_adapters_have_the_rate_of_their_layer():
    model = add_adapters(clip_of(TINY_TEXT | {"num_hidden_layers": 3}), rank=2)
    rates = rates_by_name(model, 0.5)
    found = {name: rate for name, rate in rates.items() if "lora_A" in name}
    for layer, rate in ((0, 0.25), (2, 1.0)):
        assert {found[name] for name in found if f"text_model.encoder.layer.{layer}." in name} == {rate}
    assert {found[name] for name in found if "timm_model.blocks.0." in name} == {0.5}


def test_a_tower_without_numbered_layers_is_told(tiny_model, monkeypatch):
    names = {"weight": torch.nn.Parameter(torch.zeros(1))}
    monkeypatch.setattr(tiny_model.text_model, "named_parameters", names.items)
    with pytest.raises(
        ValueError, match="layer_decay 0.5 needs the layers .* 'bert' number none: set layer_decay to 1"
    ):
        build_optimizer(tiny_model, 1.0, 0.1, 0.5)


def trained_names(tower):
    return {name for name, parameter in tower.named_parameters() if parameter.requires_grad}


def test_first_layers_of_a_timm_tower_are_frozen_and_the_others_learn():
    """By hand: layer 0 is the patch embedding, layers 1 and 2 the two blocks, with the last norm."""
    tower = clip_of(TINY_TEXT).vision_model
    everything = trained_names(tower)
    freeze_first_layers(tower, 0)
    assert trained_names(tower) == everything
    freeze_first_layers(tower, 2)
    assert trained_names(tower) == {
        name for name in everything if name.startswith(("timm_model.blocks.1.", "timm_model.norm."))
    }


def test_first_layers_of_a_transformers_tower_are_frozen():
    tower = clip_of(TINY_TEXT | {"num_hidden_layers": 3}).text_model
    freeze_first_layers(tower, 3)
    assert {name.rpartition("layer.")[2][0] for name in trained_names(tower)} == {"2"}


def test_a_tower_is_not_frozen_to_its_last_layer():
    with pytest.raises(ValueError, match="freeze_vision_layers 3 would leave nothing .* 3 layers: freeze at most 2"):
        freeze_first_layers(clip_of(TINY_TEXT).vision_model, 3)


def test_frozen_norms_are_those_of_frozen_layers():
    """By hand: layer 0 is the stem, with three norms, and each block is a layer."""
    tower = clip_of(TINY_TEXT, {"model_type": "timm_wrapper", "architecture": "test_resnet"}).vision_model
    assert frozen_norms(tower) == []
    freeze_first_layers(tower, 2)
    timm_model = tower.timm_model
    of_block = [norm for norm in timm_model.layer1.modules() if isinstance(norm, torch.nn.BatchNorm2d)]
    assert frozen_norms(tower) == [timm_model.conv1[1], timm_model.conv1[4], timm_model.bn1, *of_block]
