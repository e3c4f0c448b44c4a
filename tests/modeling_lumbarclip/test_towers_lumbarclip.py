"""Patches and tokens of any tower, in order and without class tokens, padding or special tokens."""

import pytest
import torch
from transformers import (
    AutoConfig,
    BertConfig,
    BertModel,
    DeiTConfig,
    Dinov2WithRegistersConfig,
    ResNetConfig,
    SwinConfig,
    ViTConfig,
)

from modeling_lumbarclip import LumbarCLIPConfig, LumbarCLIPModel
from modeling_lumbarclip.towers_lumbarclip import (
    PICKLED_TOWERS,
    build_tower,
    check_text_pooling,
    inner_tokens,
    load_tower,
    max_text_tokens,
    padding_last,
    pooled_text,
    special_tokens,
)
from modeling_lumbarclip.vision_tower_lumbarclip import patch_width
from tests.conftest import Marks

TEXT = {"model_type": "bert", "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
SMALL = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 64, "patch_size": 16}
WINDOWS = {"embed_dim": 12, "depths": [1, 1, 1, 1], "window_size": 2}


def model_of(vision_config):
    torch.manual_seed(0)
    return LumbarCLIPModel(LumbarCLIPConfig(vision_config=vision_config, text_config=TEXT, projection_dim=8)).eval()


def local_features(model, side=64):
    pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model(torch.randint(5, 40, (2, 7)), pixels, output_local_features=True), pixels


@pytest.mark.parametrize(
    "architecture, args, num_patches",
    [
        ("resnet10t", {}, 4),
        ("convnext_atto", {}, 4),
        ("mobilenetv3_small_050", {}, 4),  # widens after its patches
        ("test_vit", {"img_size": 64}, 16),
        ("deit_tiny_distilled_patch16_224", {"img_size": 64, "embed_dim": 24, "depth": 1, "num_heads": 2}, 16),
        ("swin_tiny_patch4_window7_224", {"img_size": 64, **WINDOWS}, 4),
        ("swinv2_tiny_window8_256", {"img_size": 64, **WINDOWS}, 4),
    ],
)
def test_patches_of_timm_towers_are_its_last_feature_map(architecture, args, num_patches):
    model = model_of({"model_type": "timm_wrapper", "architecture": architecture, "model_args": args or None})
    output, pixels = local_features(model)
    timm_model = model.vision_model.timm_model
    with torch.no_grad():
        last_map = timm_model.forward_intermediates(
            pixels, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True
        )[-1]
    assert output.patch_features.shape == (2, num_patches, patch_width(model.vision_model))
    torch.testing.assert_close(output.patch_features, last_map.flatten(2).transpose(1, 2), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "vision_config, num_patches, num_prefix_tokens",
    [
        (ViTConfig(**SMALL), 16, 1),
        (DeiTConfig(**SMALL), 16, 2),
        (Dinov2WithRegistersConfig(**SMALL, num_register_tokens=3), 16, 4),
        (SwinConfig(image_size=64, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4), 64, 0),
    ],
    ids=lambda config: getattr(config, "model_type", None),
)
def test_patches_of_transformers_towers_follow_their_prefix_tokens(vision_config, num_patches, num_prefix_tokens):
    model = model_of(vision_config)
    output, pixels = local_features(model)
    with torch.no_grad():
        hidden = model.vision_model(pixel_values=pixels).last_hidden_state
    assert hidden.shape[1] == num_prefix_tokens + num_patches
    torch.testing.assert_close(output.patch_features, hidden[:, num_prefix_tokens:])
    assert output.patch_features.shape[2] == patch_width(model.vision_model)


def test_patches_of_a_transformers_resnet_go_row_by_row():
    model = model_of(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"))
    output, pixels = local_features(model)
    with torch.no_grad():
        feature_map = model.vision_model(pixel_values=pixels).last_hidden_state  # (2, 16, 8, 8)
    assert output.patch_features.shape == (2, 64, 16)
    torch.testing.assert_close(output.patch_features[:, 8 * 3 + 5], feature_map[:, :, 3, 5])
    torch.testing.assert_close(output.patch_features.mean(dim=1), output.image_features, atol=1e-5, rtol=1e-4)


def test_tokens_are_those_of_the_text_tower_one_row_a_pair(tiny_model, tiny_inputs):
    index = torch.tensor([2, 0, 2])
    tokens = {name: tiny_inputs[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        output = tiny_model(
            pixel_values=tiny_inputs.pixel_values[:3], **tokens, text_index=index, output_local_features=True
        )
        hidden = tiny_model.text_model(**tokens).last_hidden_state
    torch.testing.assert_close(output.token_features, hidden[index])
    torch.testing.assert_close(output.token_features[:, 0], output.text_features[index])  # [CLS]
    words = [tokens["input_ids"][row][output.token_mask[i]] for i, row in enumerate(index.tolist())]
    special_or_padding = {0, 2, 3}  # [PAD], [CLS], [SEP]
    assert [len(row) for row in words] == [3, 7, 3]  # "normal disc ." and "disc bulge at l4 / l5 ."
    assert not special_or_padding & {int(token) for row in words for token in row}


def test_inner_tokens_of_either_padding_side():
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 1, 0, 0, 0]])
    expected = [[0, 1, 1, 1, 0], [0, 1, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]
    assert inner_tokens(mask).int().tolist() == expected


def test_local_features_are_left_out_unless_asked_for(tiny_model, tiny_inputs):
    output = tiny_model(**tiny_inputs)
    assert output.patch_features is None and output.token_features is None and output.token_mask is None
    with_local = tiny_model(**tiny_inputs, output_local_features=True)
    assert torch.equal(with_local.image_embeds, output.image_embeds)
    assert torch.equal(with_local.text_embeds, output.text_embeds)


POSITIONS = 24
SIZES = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def small_text_tower(kind, **settings):
    """Build a text tower of 24 positions, whatever its configuration calls them."""
    config_class = type(AutoConfig.for_model(kind))
    given = {**SIZES, "max_position_embeddings": POSITIONS, **settings}
    known = {*AutoConfig.for_model(kind).to_dict(), *config_class.attribute_map}
    return build_tower(AutoConfig.for_model(kind, **{name: given[name] for name in given if name in known})).eval()


def takes(tower, num_tokens):
    try:
        tower(input_ids=torch.full((1, num_tokens), 20), attention_mask=torch.ones(1, num_tokens, dtype=torch.long))
    except (IndexError, RuntimeError, ValueError):
        return False
    return True


# Families with their settings and the longest text that they take.
TEXT_TOWERS = [
    ("bert", {}, 24),
    ("distilbert", {}, 24),
    ("electra", {"embedding_size": 16}, 24),
    ("roberta", {}, 22),  # two positions stand for padding
    ("xlm-roberta", {}, 22),
    ("camembert", {"pad_token_id": 0}, 23),
    ("mpnet", {}, 22),
    ("longformer", {"attention_window": 4}, 22),
    ("nystromformer", {}, 24),  # adds the two itself
    ("clip_text_model", {}, 24),
    ("gpt2", {}, 24),
    ("opt", {"ffn_dim": 16, "word_embed_proj_dim": 16}, 24),
    ("ctrl", {"dff": 16}, 24),  # sines in a plain tensor
    ("gptj", {"rotary_dim": 4}, 24),
    ("deberta-v2", {}, 24),
    ("deberta-v2", {"relative_attention": True, "position_biased_input": False}, None),
    ("deberta-v2", {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]}, 24),
    ("xlnet", {"d_inner": 16, "d_head": 8}, None),
    ("modernbert", {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}, None),
    ("bloom", {}, None),
    ("llama", {}, None),
]


@pytest.mark.parametrize(("kind", "settings", "expected"), TEXT_TOWERS)
def test_a_text_tower_takes_as_many_tokens_as_it_says(kind, settings, expected):
    tower = small_text_tower(kind, **settings)
    limit = max_text_tokens(tower.train())
    assert limit == expected and tower.training
    assert takes(tower.eval(), limit or 10 * POSITIONS)
    assert limit is None or not takes(tower, limit + 1)


def test_a_model_that_does_not_read_tokens_is_no_text_tower():
    tower = build_tower(ViTConfig(**SMALL))
    with pytest.raises(
        ValueError, match="'vit' is no text tower: given tokens and their mask, it fails with AttributeError"
    ):
        max_text_tokens(tower)


def test_a_tower_that_heeds_no_mask_is_named_when_it_is_checked(caplog):
    with caplog.at_level("WARNING", "modeling_lumbarclip"):
        check_text_pooling(small_text_tower("bert"), "cls")
        assert not caplog.messages
        check_text_pooling(small_text_tower("fnet"), "cls")
    assert "'fnet' does not look at the attention mask" in caplog.text


def test_a_tower_of_several_classes_is_refused_by_name():
    with pytest.raises(ValueError, match="builds no 'funnel'"):
        small_text_tower("funnel")


MASKS = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [0, 1, 1, 0, 0]])


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [("cls", [0, 0, 2, 1]), ("last", [4, 2, 4, 2]), ("mean", [2, 1, 3, 1.5])],
)
def test_texts_are_pooled_over_their_tokens_on_whichever_side_padding_is(pooling, expected):
    hidden = torch.arange(5.0)[None, :, None].expand(4, 5, 2)
    assert pooled_text(hidden, MASKS, pooling)[:, 0].tolist() == expected


def test_padding_moves_behind_the_text_and_back():
    tokens = torch.arange(1, 21).view(4, 5)
    moved = padding_last(tokens, MASKS)
    assert moved[2].tolist() == [13, 14, 15, 11, 12] and torch.equal(moved[:2], tokens[:2])
    assert torch.equal(padding_last(moved, MASKS, back=True), tokens)


def test_words_are_all_but_the_special_tokens_that_a_tower_knows():
    ids = torch.tensor([[1, 5, 6, 2, 0], [0, 0, 1, 7, 2], [5, 6, 7, 0, 0]])  # the last has no special tokens
    mask = (ids > 0).long()
    expected = [[0, 1, 1, 0, 0], [0, 0, 0, 1, 0], [1, 1, 1, 0, 0]]
    assert inner_tokens(mask, ids, [1, 2]).int().tolist() == expected
    assert special_tokens(small_text_tower("roberta")) == [0, 2]
    assert special_tokens(small_text_tower("bert")) == []


def model_with(text_tower, pooling):
    config = LumbarCLIPConfig(
        vision_config=ViTConfig(**SMALL), text_config=text_tower.config, text_pooling=pooling, projection_dim=8
    )
    return LumbarCLIPModel(config, text_model=text_tower).eval()


CAUSAL = [
    ("clip_text_model", {}),
    ("gpt2", {}),
    ("opt", {"ffn_dim": 16, "word_embed_proj_dim": 16}),
    ("bloom", {}),
    ("llama", {}),
    ("bert", {"is_decoder": True}),
]


@pytest.mark.parametrize(("kind", "settings"), CAUSAL)
def test_a_causal_tower_is_pooled_at_its_end_or_refused(kind, settings):
    tower = small_text_tower(kind, **settings)
    with pytest.raises(ValueError, match="two texts one embedding with text_pooling='cls'.*'last'.*or 'mean'"):
        model_with(tower, "cls")
    for pooling in ("last", "mean"):
        with torch.no_grad():
            ids = torch.tensor([[20, 21, 22], [20, 23, 22]])
            one, two = model_with(tower, pooling).get_text_features(ids).pooler_output
        assert (one - two).norm() > 1e-4


@pytest.mark.parametrize("pooling", ["cls", "last", "mean"])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("bert", {}),
        ("distilbert", {}),
        ("roberta", {}),
        ("mpnet", {}),
        ("electra", {"embedding_size": 16}),
        ("deberta-v2", {}),
        ("modernbert", {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}),
        *CAUSAL,
    ],
)
def test_the_side_of_the_padding_changes_nothing(kind, settings, pooling):
    tower = small_text_tower(kind, **settings)
    if pooling == "cls" and (kind, settings) in CAUSAL:
        return
    model, pad = model_with(tower, pooling), tower.config.pad_token_id or 0
    ids = {"right": [[20, 21, 22, pad, pad]], "left": [[pad, pad, 20, 21, 22]], "none": [[20, 21, 22]]}
    masks = {"right": [[1, 1, 1, 0, 0]], "left": [[0, 0, 1, 1, 1]], "none": [[1, 1, 1]]}
    with torch.no_grad():
        outputs = {
            side: model(
                input_ids=torch.tensor(ids[side]),
                attention_mask=torch.tensor(masks[side]),
                output_local_features=True,
                output_hidden_states=True,
            )
            for side in ids
        }
    for side in ("left", "right"):
        torch.testing.assert_close(outputs[side].text_embeds, outputs["none"].text_embeds, atol=1e-5, rtol=1e-4)
        mask = torch.tensor(masks[side]).bool()
        for got, expected in zip(
            (outputs[side].token_features, *outputs[side].text_model_output.hidden_states),
            (outputs["none"].token_features, *outputs["none"].text_model_output.hidden_states),
            strict=True,
        ):
            torch.testing.assert_close(got[mask], expected[0], atol=1e-5, rtol=1e-4)


def test_attentions_follow_the_padding_back():
    model = model_with(small_text_tower("bert"), "mean")
    model.text_model.set_attn_implementation("eager")
    with torch.no_grad():
        left = model.get_text_features(torch.tensor([[0, 20, 21]]), torch.tensor([[0, 1, 1]]), output_attentions=True)
        alone = model.get_text_features(torch.tensor([[20, 21]]), output_attentions=True)
    torch.testing.assert_close(left.attentions[0][:, :, 1:, 1:], alone.attentions[0])
    assert left.attentions[0][:, :, 1:, 0].abs().max() == 0


def test_a_tower_whose_weights_say_nothing_is_refused():
    tower = small_text_tower("bert")
    torch.nn.init.zeros_(tower.embeddings.word_embeddings.weight)
    for pooling in ("cls", "mean"):
        with pytest.raises(ValueError, match="gives two texts one embedding"):
            model_with(tower, pooling)


def save_pickled_tower(folder):
    tower = BertModel(BertConfig(**{name: value for name, value in TEXT.items() if name != "model_type"}))
    tower.config.save_pretrained(folder)
    torch.save(tower.state_dict(), folder / "pytorch_model.bin")
    return tower.state_dict()


def test_a_tower_of_pickled_weights_is_refused_with_the_way_out(tmp_path):
    save_pickled_tower(tmp_path / "tower")
    with pytest.raises(ValueError, match=r"No weights of the tower .*pytorch_model.bin may run code.*convert it"):
        load_tower(str(tmp_path / "tower"))


def test_only_tensors_of_the_papers_tower_are_unpickled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (name,) = PICKLED_TOWERS
    weights = save_pickled_tower(tmp_path / name)
    loaded = load_tower(name).state_dict()
    assert all(torch.equal(weights[key], value) for key, value in loaded.items())
    torch.save({"embeddings": Marks(tmp_path / "ran")}, tmp_path / name / "pytorch_model.bin")
    with pytest.raises(Exception, match="[Ww]eights"):
        load_tower(name)
    assert not (tmp_path / "ran").exists()
