"""What users of transformers expect of a model, on five towers and of both models."""

import copy
import inspect

import pytest
import timm
import torch
import torch.nn.functional as F
from peft import LoraConfig, TaskType, get_peft_model
from transformers import AutoConfig, AutoModel, SiglipModel, Trainer, TrainingArguments
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import ModelOutput, logging

from modeling_lumbarclip import LumbarCLIPConfig, LumbarCLIPForImageClassification, LumbarCLIPModel
from modeling_lumbarclip.towers_lumbarclip import build_tower, load_vision_tower


def of_timm(architecture, **model_args):
    return {"model_type": "timm_wrapper", "architecture": architecture, "model_args": model_args or None}


TEXT = {"model_type": "bert", "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
TIMM_SWIN = {"img_size": 32, "embed_dim": 12, "depths": [1, 1, 1, 1], "window_size": 4}
VISION = {
    "timm ResNet": of_timm("resnet10t"),
    "timm ViT": of_timm("test_vit", img_size=32),
    "timm Swin": of_timm("swin_tiny_patch4_window7_224", **TIMM_SWIN),
    "ViT": {"model_type": "vit", "image_size": 32, "patch_size": 8, "hidden_size": 24, "num_hidden_layers": 2}
    | {"num_attention_heads": 2, "intermediate_size": 48},
    "Swin": {"model_type": "swin", "image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1]}
    | {"num_heads": [1, 2], "window_size": 4},
}
RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
IDS = torch.randint(5, 40, (4, 7), generator=torch.Generator().manual_seed(0))
PIXELS = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
PAIRS = {"input_ids": IDS, "pixel_values": PIXELS}
NORM_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
CHECKPOINTING = ("gradient_checkpointing", "grad_checkpointing")  # of modules of transformers, of timm
TOWERS = pytest.mark.parametrize("tower", VISION)


def config_of(vision, **fields):
    return LumbarCLIPConfig(
        vision_config=copy.deepcopy(vision), text_config=dict(TEXT), projection_dim=8, num_labels=3, **fields
    )


def pretrained_model(tower="timm ViT", **fields):
    torch.manual_seed(0)
    return LumbarCLIPModel(config_of(VISION.get(tower, RESNET), **fields)).eval()


def classifier(tower="timm ViT", **fields):
    torch.manual_seed(0)
    return LumbarCLIPForImageClassification(config_of(VISION[tower], **fields)).eval()


@pytest.fixture
def warnings(caplog):
    """What transformers logs, as text."""
    logging.enable_propagation()
    with caplog.at_level("WARNING"):
        yield caplog
    logging.disable_propagation()


def assert_equal(actual, expected):
    if isinstance(expected, ModelOutput | tuple):
        values = expected.to_tuple() if isinstance(expected, ModelOutput) else expected
        assert type(actual) is tuple and len(actual) == len(values)
        for one, other in zip(actual, values, strict=True):
            assert_equal(one, other)
    else:
        torch.testing.assert_close(actual, expected)


# Outputs.


@torch.no_grad()
@TOWERS
def test_tuples_on_request_or_by_the_configuration_have_the_values_of_the_outputs(tower):
    model, classify = pretrained_model(tower), classifier(tower)
    calls = [
        (model, PAIRS),
        (model, {"pixel_values": PIXELS}),
        (model, {"input_ids": IDS}),
        (model, {**PAIRS, "classes": torch.eye(4), "output_local_features": True}),
        (model.get_image_features, {"pixel_values": PIXELS}),
        (model.get_image_features, {"pixel_values": PIXELS, "project": False}),
        (model.get_text_features, {"input_ids": IDS, "output_hidden_states": True}),
        (classify, {"pixel_values": PIXELS, "labels": torch.tensor([0, 1, 2, 0])}),
        (classify.get_image_features, {"pixel_values": PIXELS}),
    ]
    for method, inputs in calls:
        output = method(**inputs)
        assert isinstance(output, ModelOutput)
        assert_equal(method(**inputs, return_dict=False), output)
        owner = getattr(method, "__self__", method)
        owner.config.return_dict = False
        assert_equal(method(**inputs), output)
        assert isinstance(method(**inputs, return_dict=True), ModelOutput)
        owner.config.return_dict = True


@torch.no_grad()
def test_maps_do_not_depend_on_the_form_of_outputs():
    model, texts = pretrained_model(), {"denial_input_ids": IDS.flip(0)}
    for method in (model.text_to_patch_similarity, model.grad_cam):
        expected = method(PIXELS, IDS, **texts)
        for config in (model.config, model.config.vision_config, model.config.text_config):
            config.return_dict = False
            assert torch.equal(method(PIXELS, IDS, **texts), expected)
            config.return_dict = True


@torch.no_grad()
def test_the_outputs_of_the_towers_are_those_that_are_pooled():
    output = pretrained_model()(**PAIRS)
    assert output.vision_model_output.pooler_output is output.image_features
    assert output.text_model_output.pooler_output is output.text_features
    torch.testing.assert_close(output.text_model_output.last_hidden_state[:, 0], output.text_features)
    assert list(output)[:2] == ["logits_per_image", "logits_per_text"]
    assert (
        list(SiglipModel.forward.__wrapped__.__annotations__)[:5]
        == list(inspect.signature(LumbarCLIPModel.forward).parameters)[1:6]
    )


@torch.no_grad()
@TOWERS
def test_hidden_states_on_request(tower):
    model, classify = pretrained_model(tower), classifier(tower)
    expected = model(**PAIRS)
    assert expected.vision_model_output.hidden_states is expected.text_model_output.hidden_states is None
    output = model(**PAIRS, output_hidden_states=True)
    torch.testing.assert_close(output.image_embeds, expected.image_embeds)
    assert len(output.text_model_output.hidden_states) == 3
    assert len(output.vision_model_output.hidden_states) >= 3
    torch.testing.assert_close(output.text_model_output.hidden_states[-1], output.text_model_output.last_hidden_state)
    images = model.get_image_features(PIXELS, output_hidden_states=True)
    assert_equal(images.hidden_states, output.vision_model_output.hidden_states)
    assert images.attentions is None
    assert len(classify(PIXELS, output_hidden_states=True).hidden_states) == len(images.hidden_states)
    assert classify(PIXELS).hidden_states is None

    last = model(**PAIRS, output_hidden_states=[-1, 99]).vision_model_output.hidden_states
    assert len(last) == len(images.hidden_states) and set(last[:-1]) == {None}
    torch.testing.assert_close(last[-1], images.hidden_states[-1])

    model.config.output_hidden_states = True
    assert_equal(model(**PAIRS).text_model_output.hidden_states, output.text_model_output.hidden_states)
    assert model(**PAIRS, output_hidden_states=False).text_model_output.hidden_states is None
    model.config.output_hidden_states = False
    model.config.text_config.output_hidden_states = True  # of one tower alone
    of_text = model(**PAIRS)
    assert of_text.text_model_output.hidden_states and not of_text.vision_model_output.hidden_states


@torch.no_grad()
@TOWERS
def test_attentions_on_request_or_a_refusal_that_names_the_tower(tower):
    model, classify = pretrained_model(tower), classifier(tower)
    assert len(model.get_text_features(IDS, output_attentions=True).attentions) == 2
    assert len(model(input_ids=IDS, output_attentions=True).text_model_output.attentions) == 2
    if tower.startswith("timm"):
        for method in (model, model.get_image_features, classify, classify.get_image_features):
            with pytest.raises(ValueError, match=f"output_attentions.*{VISION[tower]['architecture']}.*no attentions"):
                method(pixel_values=PIXELS, output_attentions=True)
        model.config._attn_implementation = "eager"
        model.config.output_attentions = True
        with pytest.raises(ValueError, match="no attentions"):
            model(**PAIRS)
        return
    output = model(**PAIRS, output_attentions=True)  # though the towers run with "sdpa"
    assert [len(part.attentions) for part in (output.vision_model_output, output.text_model_output)] == [2, 2]
    torch.testing.assert_close(output.logits_per_image, model(**PAIRS).logits_per_image)
    torch.testing.assert_close(output.text_model_output.attentions[0].sum(dim=-1), torch.ones(4, 2, 7))
    assert len(classify(PIXELS, output_attentions=True).attentions) == 2
    assert {config._attn_implementation for config in (model.vision_model.config, model.text_model.config)} == {"sdpa"}


def test_a_tower_without_attention_says_so():
    with pytest.raises(ValueError, match="'resnet' returns no attentions"):
        pretrained_model("ResNet of transformers")(**PAIRS, output_attentions=True)


# Inputs.

MISSPELT = [
    ("forward", "retrun_loss", "return_loss"),
    ("forward", "return_logit", "return_logits"),
    ("forward", "pixel_value", "pixel_values"),
    ("forward", "inputs_ids", "input_ids"),
    ("forward", "label", None),
    ("forward", "output_hidden_state", "output_hidden_states"),
    ("forward", "output_attention", "output_attentions"),
    ("forward", "retrun_dict", "return_dict"),
    ("forward", "token_type_id", "token_type_ids"),
    ("forward", "text_indices", "text_index"),
    ("forward", "inputs_embeds", None),
    ("get_image_features", "projct", "project"),
    ("get_image_features", "input_ids", None),
    ("get_image_features", "token_type_ids", None),
    ("get_image_features", "attention_mask", None),
    ("get_text_features", "projekt", "project"),
    ("get_text_features", "attentionmask", "attention_mask"),
    ("get_text_features", "pixel_values", None),
    ("get_text_features", "interpolate_pos_encoding", None),
    ("text_to_patch_similarity", "denial_inputs_ids", "denial_input_ids"),
    ("text_to_patch_similarity", "output_attentions", None),
    ("text_to_patch_similarity", "project", None),
    ("grad_cam", "denial_attentionmask", "denial_attention_mask"),
    ("grad_cam", "interpolate", None),
]


@pytest.mark.parametrize("method, misspelt, nearest", MISSPELT)
def test_unknown_inputs_are_refused_by_name(method, misspelt, nearest):
    inputs = {"get_image_features": {"pixel_values": PIXELS}, "get_text_features": {"input_ids": IDS}}
    inputs = inputs.get(method, {"pixel_values": PIXELS, "input_ids": IDS})
    hint = f".*Did you mean '{nearest}'" if nearest else ""
    with pytest.raises(TypeError, match=f"takes no '{misspelt}'{hint}"):
        getattr(pretrained_model(), method)(**inputs, **{misspelt: True})


@pytest.mark.parametrize("misspelt, nearest", [("label", "labels"), ("input_ids", None), ("num_items_in_batch", None)])
def test_the_classifier_refuses_unknown_inputs_by_name(misspelt, nearest):
    hint = f".*Did you mean '{nearest}'" if nearest else ""
    with pytest.raises(TypeError, match=f"LumbarCLIPForImageClassification.forward.*takes no '{misspelt}'{hint}"):
        classifier()(PIXELS, **{misspelt: 1})


def test_images_without_their_name_are_not_read_as_texts(tiny_model):
    with pytest.raises(TypeError, match=r"pass images by name: pixel_values=images"):
        tiny_model(torch.zeros(1, 3, 32, 32))


def test_a_misspelt_input_is_named_before_a_missing_one():
    with pytest.raises(TypeError, match="takes no 'pixel_value'"):
        pretrained_model()(pixel_value=PIXELS)


@torch.no_grad()
def test_inputs_of_a_tower_reach_it():
    model = pretrained_model("ViT")
    larger = F.interpolate(PIXELS, size=48)
    with pytest.raises(ValueError, match="48"):
        model(pixel_values=larger)
    outputs = model(IDS, larger, interpolate_pos_encoding=True, output_local_features=True)
    assert outputs.patch_features.shape[1] == 36
    assert model.get_image_features(larger, interpolate_pos_encoding=True).last_hidden_state.shape[1] == 37
    assert classifier("ViT")(larger, interpolate_pos_encoding=True).logits.shape == (4, 3)
    for extra in ({"token_type_ids": torch.ones_like(IDS)}, {"position_ids": torch.arange(7, 0, -1)[None]}):
        expected = model.text_model(input_ids=IDS, **extra).last_hidden_state[:, 0]
        torch.testing.assert_close(model(**PAIRS, **extra).text_features, expected)
        torch.testing.assert_close(model.get_text_features(IDS, project=False, **extra).pooler_output, expected)
        assert not torch.allclose(model(**PAIRS).text_features, expected)
    with pytest.raises(TypeError, match="takes no 'interpolate_pos_encoding'"):
        pretrained_model("timm ViT")(**PAIRS, interpolate_pos_encoding=True)


@torch.no_grad()
def test_token_types_of_a_tokenizer_are_no_fault_of_a_tower_without_types():
    distilbert = {"model_type": "distilbert", "vocab_size": 40, "dim": 16, "n_layers": 1, "n_heads": 2}
    model = LumbarCLIPModel(LumbarCLIPConfig(vision_config=VISION["ViT"], text_config=distilbert)).eval()
    types = {"token_type_ids": torch.zeros_like(IDS)}
    for method, inputs in ((model, PAIRS), (model.get_text_features, {"input_ids": IDS}), (model.grad_cam, PAIRS)):
        assert method(**inputs, **types) is not None
    with pytest.raises(TypeError, match="takes no 'token_type_ids'"):
        model.get_image_features(PIXELS, **types)


@torch.no_grad()
def test_what_peft_passes_as_none_is_no_input():
    adapted = get_peft_model(
        pretrained_model(), LoraConfig(task_type=TaskType.FEATURE_EXTRACTION, target_modules=["query", "value"])
    )
    output = adapted(input_ids=IDS, pixel_values=PIXELS, return_dict=True)
    torch.testing.assert_close(output.logits_per_image, pretrained_model()(**PAIRS).logits_per_image)


def test_the_temperature_has_the_name_that_clip_gives_it():
    model = pretrained_model()
    assert model.logit_scale is model.log_inverse_temperature
    torch.testing.assert_close(model.logit_scale.exp(), model.inverse_temperature)
    assert "logit_scale" not in model.state_dict()


def test_token_embeddings_are_found_and_grow():
    model = pretrained_model()
    assert model.get_input_embeddings() is model.text_model.embeddings.word_embeddings
    model.resize_token_embeddings(44)
    assert model(torch.full((4, 7), 43), PIXELS).logits_per_image.shape == (4, 4)
    patches = classifier("ViT")
    assert patches.get_input_embeddings() is patches.vision_model.get_input_embeddings()


class Recorded:
    """Makes batches as `collate`, and keeps them."""

    def __init__(self, collate):
        self.collate, self.batches = collate, []

    def __call__(self, rows):
        self.batches.append(self.collate(rows))
        return copy.deepcopy(self.batches[-1])


@pytest.mark.parametrize("task", ["pairs", "pairs with classes", "classifier"])
def test_trainer_with_accumulation_takes_the_mean_over_the_micro_batches(task, tmp_path):
    model = classifier() if task == "classifier" else pretrained_model()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    generator = torch.Generator().manual_seed(0)
    rows = [{"pixel_values": torch.randn(3, 32, 32, generator=generator)} for _ in range(8)]
    for index, row in enumerate(rows):
        if task == "classifier":
            row["labels"] = torch.tensor(index % 3)
        else:
            row["input_ids"] = torch.randint(5, 40, (7,), generator=generator)
        if task == "pairs with classes":
            row["classes"] = torch.tensor([index % 2, 1 - index % 2])
    extra = {"return_loss": True} if task == "pairs" else {}
    collate = Recorded(lambda rows: {name: torch.stack([row[name] for row in rows]) for name in rows[0]} | extra)
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    settings = {"optim": "sgd", "learning_rate": 0.5, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
    args = TrainingArguments(
        str(tmp_path),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
        max_steps=1,
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        **settings,
    )
    trainer = Trainer(model=model, args=args, train_dataset=rows, data_collator=collate)
    trainer.train()
    trained = {name: value.detach().clone() for name, value in model.named_parameters()}

    model.load_state_dict(start, strict=False)
    model.zero_grad()
    losses = [model.train()(**batch).loss for batch in collate.batches[:4]]
    mean = torch.stack(losses).mean()
    mean.backward()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(mean.item(), rel=1e-3)
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            expected = start[name] - 0.5 * parameter.grad
            torch.testing.assert_close(trained[name], expected, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("build", [pretrained_model, classifier])
@pytest.mark.parametrize("reentrant", [False, True])
@TOWERS
def test_gradient_checkpointing_changes_neither_loss_nor_gradients(tower, reentrant, build):
    model = build(tower).train()
    of_classes = {"pixel_values": PIXELS, "labels": torch.tensor([0, 1, 2, 0])}
    inputs = of_classes if build is classifier else {**PAIRS, "return_loss": True}

    start = copy.deepcopy(model.state_dict())

    def loss_and_gradients():
        model.load_state_dict(start)
        model.zero_grad()
        torch.manual_seed(1)  # for dropout
        loss = model(**inputs).loss
        loss.backward()
        statistics = {name: value.clone() for name, value in model.named_buffers() if name.endswith(NORM_STATISTICS)}
        return loss.detach(), {n: parameter.grad.clone() for n, parameter in model.named_parameters()}, statistics

    plain = loss_and_gradients()
    assert not model.is_activation_checkpointing
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    assert model.is_activation_checkpointing
    for kept in (module for module in model.modules() if isinstance(module, PreTrainedModel)):
        if kept is not model:
            assert any(getattr(module, CHECKPOINTING[hasattr(kept, "timm_model")], False) for module in kept.modules())
    torch.testing.assert_close(loss_and_gradients(), plain, atol=1e-5, rtol=1e-3)
    model.activation_checkpointing_disable()
    assert not model.is_activation_checkpointing
    assert not any(getattr(module, flag, False) for module in model.modules() for flag in CHECKPOINTING)


@TOWERS
def test_adapters_learn_with_gradient_checkpointing(tower):
    """The weights of the towers do not learn, so the inputs of their layers must have a gradient."""
    model = pretrained_model(tower)
    model.activation_checkpointing_enable({"use_reentrant": True})
    adapted = get_peft_model(model, LoraConfig(target_modules=["query", "value", "qkv"])).train()
    adapted(**PAIRS, return_loss=True).loss.backward()
    learning = {name: parameter for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert any("text_model" in name for name in learning)
    assert all(parameter.grad is not None for parameter in learning.values())
    model.disable_input_require_grads()


def test_a_tower_that_keeps_its_activations_is_named(warnings):
    model = pretrained_model("ResNet of transformers")
    model.activation_checkpointing_enable()
    assert model.text_model.is_activation_checkpointing
    assert "'resnet' cannot recompute its activations" in warnings.text
    with pytest.raises(ValueError, match="does not support"):
        LumbarCLIPForImageClassification(config_of(RESNET)).activation_checkpointing_enable()


@pytest.mark.parametrize("tower", ["timm ResNet", "timm ViT", "timm Swin", "Swin", "ResNet of transformers"])
def test_flash_attention_falls_back_where_a_tower_has_none(tower, warnings, monkeypatch):
    """As on a GPU with flash attention: what needs the hardware is left out."""
    monkeypatch.setattr(PreTrainedModel, "_flash_attn_import_error", lambda *args, **kwargs: None)
    can = lambda self, flash_attn_version, is_init_check=False: self._supports_flash_attn or pytest.fail()  # noqa: E731
    monkeypatch.setattr(PreTrainedModel, "_flash_attn_can_dispatch", can)
    monkeypatch.setattr("transformers.modeling_utils.lazy_import_flash_attention", lambda *args, **kwargs: None)
    model = pretrained_model(tower, attn_implementation="flash_attention_2")
    instead = "eager" if tower.startswith("ResNet") else "sdpa"
    assert model.config.vision_config._attn_implementation == instead
    assert model.config.text_config._attn_implementation == "flash_attention_2"
    assert f"has no flash attention: it uses '{instead}' in place of 'flash_attention_2'" in warnings.text
    assert model.get_image_features(PIXELS).pooler_output.shape == (4, 8)
    if tower.startswith("timm"):
        warnings.clear()
        model.set_attn_implementation("sdpa")
        assert not warnings.text
        model.set_attn_implementation("flash_attention_2")
        assert model.config.vision_config._attn_implementation == "sdpa"
        assert model.config.text_config._attn_implementation == "flash_attention_2"
        assert "has no flash attention" in warnings.text


def test_attention_that_is_not_flash_is_left_to_transformers(warnings):
    assert pretrained_model("ViT", attn_implementation="flex_attention").config.vision_config._attn_implementation == (
        "flex_attention"
    )
    assert "flash" not in warnings.text
    with pytest.raises(ValueError, match="does not support an attention implementation through torch's flex_attention"):
        pretrained_model("timm ViT", attn_implementation="flex_attention")


@TOWERS
def test_attention_backends_are_supported_if_every_tower_does(tower):
    for model in (pretrained_model(tower), classifier(tower)):
        towers = [module for module in model.children() if isinstance(module, PreTrainedModel)]
        for flag in ("_supports_attention_backend", "_supports_flex_attn"):
            assert getattr(model, flag) == all(getattr(one, flag) for one in towers)
    assert pretrained_model("ViT")._supports_attention_backend
    assert not pretrained_model("timm ViT")._supports_attention_backend


@pytest.mark.parametrize("tower", [name for name in VISION if name.startswith("timm")])
def test_a_timm_tower_is_built_once_with_the_weights_that_timm_drew(tower, monkeypatch):
    config = AutoConfig.for_model(**copy.deepcopy(VISION[tower]))
    torch.manual_seed(3)
    expected = timm.create_model(config.architecture, num_classes=0, **(config.model_args or {})).state_dict()
    built, create_model = [], timm.create_model
    monkeypatch.setattr(
        timm, "create_model", lambda *args, **kwargs: built.append(args) or create_model(*args, **kwargs)
    )
    torch.manual_seed(3)
    actual = build_tower(config).timm_model.state_dict()
    assert len(built) == 1
    torch.testing.assert_close(actual, expected, atol=0, rtol=0)
    torch.manual_seed(3)
    model = LumbarCLIPModel(config_of(VISION[tower]))  # keeps them, too
    torch.testing.assert_close(model.vision_model.timm_model.state_dict(), expected, atol=0, rtol=0)


@TOWERS
def test_models_are_declared_on_the_meta_device(tower, tmp_path):
    with torch.device("meta"):
        assert all(parameter.is_meta for parameter in pretrained_model(tower).parameters())
    model = pretrained_model(tower)
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(**PAIRS).logits_per_image, model(**PAIRS).logits_per_image)


def test_given_towers_are_those_of_the_model(monkeypatch):
    create_model = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, pretrained=False, **kwargs: create_model(name, **kwargs))
    vision, text = load_vision_tower("resnet10t", None), AutoModel.from_config(AutoConfig.for_model(**TEXT))
    before = {name: value.clone() for name, value in vision.state_dict().items()}
    model = LumbarCLIPModel(LumbarCLIPConfig(vision_config=vision.config, text_config=text.config), vision, text)
    assert model.vision_model is vision and model.text_model is text
    torch.testing.assert_close(vision.state_dict(), before, atol=0, rtol=0)


@torch.no_grad()
def test_what_other_libraries_read_is_a_pooled_output():
    output = pretrained_model().get_image_features(PIXELS)
    assert isinstance(output, BaseModelOutputWithPooling)
    assert isinstance(pretrained_model().get_text_features(IDS), BaseModelOutputWithPooling)
    torch.testing.assert_close(output.pooler_output.norm(dim=1), torch.ones(4))
