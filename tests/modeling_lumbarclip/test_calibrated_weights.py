"""A calibration holds for the weights it was fitted on, however they are cast, moved or saved, and for no others."""

import copy
import json
import pickle
import shutil
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from modeling_lumbarclip import LumbarCLIPForImageClassification, LumbarCLIPModel
from modeling_lumbarclip.calibration_lumbarclip import calibration_problem, weights_digests

QUESTION = {
    "label": None,
    "choices": ["LBP", "No Finding"],
    "prompts": [["disc bulge."], ["normal disc."]],
    "temperature": 0.5,
    "score_thresholds": [0.0, 1.0],  # always the second
}


@pytest.fixture
def model(tiny_model):
    """Calibrated; with running statistics and a tower that was trained, so that no tensor is constant."""
    tiny_model.extra_norm = nn.BatchNorm1d(3)
    for values in tiny_model.state_dict().values():
        if values.is_floating_point():
            values.add_(torch.randn(values.shape, generator=torch.Generator().manual_seed(1)) * 0.01)
    fitted_on = {"weights": weights_digests(tiny_model)}
    tiny_model.config.calibration = {"questions": [QUESTION], "target_coverage": 0.9, "fitted_on": fitted_on}
    return tiny_model


@pytest.fixture
def saved(tiny_model, tiny_processor, tmp_path):
    """A checkpoint on disk, calibrated."""
    fitted_on = {"weights": weights_digests(tiny_model)}
    tiny_model.config.calibration = {"questions": [QUESTION], "target_coverage": 0.9, "fitted_on": fitted_on}
    tiny_model.save_pretrained(tmp_path / "saved")
    tiny_processor.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def ask(model, processor, images=2):
    """Answer as the README does."""
    calibration = model.config.calibration
    pixels = torch.linspace(-1, 1, images * 3 * 32 * 32).reshape(images, 3, 32, 32)
    texts = processor(text=processor.zero_shot_texts(calibration), return_tensors="pt")
    with torch.no_grad():
        output = model(pixel_values=pixels, **texts)
    return [answer for (answer,) in processor.post_process_zero_shot(output, calibration)]


def test_the_same_weights_answer(model, tiny_processor):
    assert calibration_problem(model) is None
    for answer in ask(model, tiny_processor):
        assert answer["answer"] == "No Finding" and answer["reason"] is None
        assert answer["prediction_set"] == ["No Finding"]


def test_other_weights_score_without_answers_and_say_why(model, tiny_processor):
    before = ask(model, tiny_processor)
    with torch.no_grad():
        model.text_projection.bias[0] += 1e-6
    with torch.no_grad():
        pixels = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)
        texts = tiny_processor(text=["disc bulge.", "normal disc."], return_tensors="pt")
        raw = model(pixel_values=pixels, **texts).logits_per_image.double().softmax(-1)
    for answer, was, scores in zip(ask(model, tiny_processor), before, raw.tolist(), strict=True):
        assert answer["answer"] is None
        assert "fitted on other weights" in answer["reason"] and "Fit it again" in answer["reason"]
        assert answer["prediction_set"] == ["LBP", "No Finding"]  # nothing is ruled out
        assert list(answer["probabilities"].values()) == pytest.approx(scores, abs=1e-6)  # at temperature 1
        assert answer["probabilities"] != was["probabilities"]


def train(model, optimizer_class=torch.optim.SGD, **options):
    optimizer = optimizer_class([weight for weight in model.parameters() if weight.requires_grad], **options)
    inputs = {
        "pixel_values": torch.rand(3, 3, 32, 32),
        "input_ids": torch.tensor([[2, 5, 6, 3], [2, 7, 5, 3], [2, 8, 5, 3]]),
    }
    model(**inputs, return_loss=True).loss.backward()
    optimizer.step()


def train_by_hand(model):
    train(model, lr=0.0)
    for weight in model.parameters():
        if weight.grad is not None:
            weight.data -= 1e-6 * weight.grad


def lora(model, merged=False):
    # Random from the start: a new adapter changes no output before it is trained.
    config = LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False)
    adapted = get_peft_model(model, config)
    return adapted.merge_and_unload() if merged else adapted


def running_statistics(model):
    model.extra_norm.train()(torch.randn(8, 3))
    model.extra_norm.eval()


def load_others(model):
    model.load_state_dict(LumbarCLIPModel(copy.deepcopy(model.config)).state_dict(), strict=False)


def swap(name):
    def swap_head(model):
        head = getattr(model, name)
        setattr(model, name, nn.Linear(head.in_features, head.out_features))

    return swap_head


def edit(function):
    def change(model):
        with torch.no_grad():
            function(model)

    return change


OTHERS = {
    "one step": lambda model: train(model, lr=1e-3),
    "one step of AdamW at a tiny rate": lambda model: train(model, torch.optim.AdamW, lr=1e-7, weight_decay=0.0),
    "a loop on .data": train_by_hand,
    "a fused optimizer": lambda model: train(model, torch.optim.AdamW, lr=1e-6, fused=True),
    "running statistics": running_statistics,
    "load_state_dict": load_others,
    "image head": swap("image_projection"),
    "text head": swap("text_projection"),
    "another tower": lambda model: setattr(model, "text_model", copy.deepcopy(model.text_model).apply(model_noise)),
    "temperature": edit(lambda model: model.log_inverse_temperature.add_(1e-6)),
    "negated head": lambda model: model.image_projection.weight.data.neg_(),
    "swapped rows": lambda model: setattr(
        model.image_projection.weight, "data", model.image_projection.weight.data.flip(0)
    ),
    "zeros in place of a bias": edit(lambda model: model.text_projection.bias.zero_()),
    "one value": edit(lambda model: model.text_model.embeddings.word_embeddings.weight[3, 3].add_(1e-4)),
    "pooling": lambda model: setattr(model.config, "text_pooling", "mean"),
    "the bound of the temperature": lambda model: setattr(model.config, "max_inverse_temperature", 2.0),
}


def model_noise(module):
    for weight in module.parameters(recurse=False):
        weight.data.mul_(1 + 1e-6)


@pytest.mark.parametrize("change", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("asked_before", [True, False])
def test_weights_that_changed_in_any_way_give_no_answers(model, tiny_processor, change, asked_before):
    if asked_before:
        assert ask(model, tiny_processor)[0]["answer"] == "No Finding"
    change(model)
    assert "other weights" in calibration_problem(model)
    answer = ask(model.eval(), tiny_processor)[0]
    assert answer["answer"] is None and "other weights" in answer["reason"]


def quantised(model):
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


def fewer_bits(model):
    for weight in model.parameters():
        scale = weight.abs().max() / 127
        weight.data = (weight.data / scale).round() * scale
    return model


MADE_OF_IT = {
    "adapters": lora,
    "merged adapters": lambda model: lora(model, merged=True),
    "adapters of transformers": lambda model: add_adapter(model),
    "quantised": quantised,
    "rounded to 8 bits": fewer_bits,
    "trained copy": lambda model: [train(copied := copy.deepcopy(model), lr=0.1), copied][1],
}


def add_adapter(model):
    model.add_adapter(LoraConfig(r=2, target_modules=["query"]))
    return model


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization")
@pytest.mark.parametrize("make", MADE_OF_IT.values(), ids=MADE_OF_IT)
def test_what_is_made_of_a_model_gives_no_answers(model, tiny_processor, make):
    other = make(model).eval()
    assert calibration_problem(other) is not None
    answer = ask(other, tiny_processor)[0]
    assert answer["answer"] is None and answer["reason"]


def test_adapters_that_are_unloaded_leave_the_weights(model, tiny_processor):
    adapted = lora(model)
    assert ask(adapted, tiny_processor)[0]["answer"] is None
    assert ask(adapted.unload(), tiny_processor)[0]["answer"] == "No Finding"


def checkpointed(model):
    model.gradient_checkpointing_enable()
    return model


def compiled_tower(model):
    model.vision_model = torch.compile(model.vision_model, backend="eager")
    return model


SAME = {
    "a copy": copy.deepcopy,
    "a pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "bfloat16": lambda model: model.to(torch.bfloat16),
    "half": lambda model: model.half(),
    "half and back": lambda model: model.half().float(),
    "double": lambda model: model.double(),
    "trained mode and back": lambda model: model.train().eval(),
    "gradient checkpointing": checkpointed,
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "compiled tower": compiled_tower,
    "frozen": lambda model: model.requires_grad_(False),
    "channels last": lambda model: model.to(memory_format=torch.channels_last),
    "shared memory": lambda model: model.share_memory(),
    "its own state_dict": lambda model: [model.load_state_dict(copy.deepcopy(model.state_dict())), model][1],
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
@pytest.mark.parametrize("asked_before", [True, False])
def test_the_same_weights_in_another_form_answer(model, tiny_processor, change, asked_before):
    if asked_before:
        ask(model, tiny_processor)
    same = change(model)
    assert calibration_problem(same) is None
    assert ask(same, tiny_processor)[0]["answer"] == "No Finding"


def test_a_model_that_is_loaded_in_half_precision_and_saved_again_answers(saved, tiny_processor, tmp_path):
    for dtype in (torch.bfloat16, torch.float16):
        LumbarCLIPModel.from_pretrained(saved, dtype=dtype).save_pretrained(tmp_path / "half", max_shard_size="20KB")
        for again in (torch.float32, "auto"):
            loaded = LumbarCLIPModel.from_pretrained(tmp_path / "half", dtype=again)
            assert ask(loaded, tiny_processor)[0]["answer"] == "No Finding"


def test_weights_edited_on_disk_and_weights_beside_another_configuration_give_no_answers(
    saved, tiny_model, tiny_processor, tmp_path
):
    shutil.copytree(saved, tmp_path / "other")
    with torch.no_grad():
        tiny_model.text_projection.weight.mul_(1.01)
    tiny_model.save_pretrained(tmp_path / "other")
    shutil.copy(saved / "config.json", tmp_path / "other" / "config.json")
    weights = load_file(saved / "model.safetensors")
    weights["image_projection.bias"][0] += 1e-3
    save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
    for folder in (saved, tmp_path / "other"):
        answer = ask(LumbarCLIPModel.from_pretrained(folder), tiny_processor)[0]
        assert answer["answer"] is None and "other weights" in answer["reason"]


def test_a_calibration_is_not_saved_with_other_weights(model, tiny_processor, tmp_path):
    del model.extra_norm
    model.config.calibration["fitted_on"]["weights"] = weights_digests(model)
    fitted = model.config.calibration
    model.save_pretrained(tmp_path / "same")
    assert json.loads((tmp_path / "same" / "config.json").read_text())["calibration"] == fitted
    # As Trainer does: the weights are handed on, and outrank those of the model.
    trained = {name: values * 1.01 if name == "text_projection.weight" else values for name, values in state(model)}
    model.save_pretrained(tmp_path / "handed_on", state_dict=trained)
    train(model, lr=0.1)
    model.save_pretrained(tmp_path / "trained")
    for folder in ("handed_on", "trained"):
        assert json.loads((tmp_path / folder / "config.json").read_text())["calibration"] is None
    assert model.config.calibration is fitted  # the model itself was only asked to save


def state(model):
    return model.state_dict().items()


def test_a_calibration_without_a_record_of_its_weights_gives_no_answers(model, tiny_processor, tmp_path):
    del model.extra_norm
    model.config.calibration["fitted_on"] = {"dataset": "tiny"}  # as earlier versions wrote it
    model.save_pretrained(tmp_path)
    loaded = LumbarCLIPModel.from_pretrained(tmp_path)
    assert loaded.config.calibration == model.config.calibration
    answer = ask(loaded, tiny_processor)[0]
    assert answer["answer"] is None
    assert "does not record which weights" in answer["reason"] and "Fit it again" in answer["reason"]


@pytest.mark.parametrize("device", ["meta"])
def test_weights_that_are_not_here_cannot_be_compared(model, device):
    assert "cannot be checked: " in calibration_problem(model.to(device))
    with pytest.raises(ValueError, match="is sharded, offloaded or packed"):
        weights_digests(model)


def test_an_output_that_does_not_know_its_model_is_answered_with_the_model(model, tiny_processor):
    texts = tiny_processor(text=["disc bulge.", "normal disc."], return_tensors="pt")
    with torch.no_grad():
        output = model(pixel_values=torch.zeros(1, 3, 32, 32), **texts)
    by_hand = SimpleNamespace(
        image_embeds=output.image_embeds,
        text_embeds=output.text_embeds,
        inverse_temperature=output.inverse_temperature,
    )
    calibration = model.config.calibration
    for unknown in (by_hand, pickle.loads(pickle.dumps(output))):
        ((answer,),) = tiny_processor.post_process_zero_shot(unknown, calibration)
        assert answer["answer"] is None and "model=model" in answer["reason"]
        ((answer,),) = tiny_processor.post_process_zero_shot(unknown, calibration, model=model)
        assert answer["answer"] == "No Finding"


@pytest.fixture
def classifier(tiny_config):
    torch.manual_seed(0)
    tiny_config.id2label = {0: "LBP", 1: "No Finding"}
    model = LumbarCLIPForImageClassification(tiny_config).eval()
    model.config.class_temperatures = [4.0, 4.0]
    model.config.class_temperatures_fitted_on = {"weights": weights_digests(model)}
    return model


def raw_and_returned(model):
    pixels = torch.linspace(-1, 1, 3 * 32 * 32).reshape(1, 3, 32, 32).to(model.dtype)
    with torch.no_grad():
        returned = model(pixels).logits
        return model.classifier(model.get_submodule("vision_model")(pixels).pooler_output), returned


def test_a_classifier_divides_by_temperatures_of_its_weights_only(classifier, tmp_path):
    raw, returned = raw_and_returned(classifier)
    torch.testing.assert_close(returned, raw / 4)
    classifier.save_pretrained(tmp_path / "same")
    again = LumbarCLIPForImageClassification.from_pretrained(tmp_path / "same", dtype=torch.bfloat16)
    raw, returned = raw_and_returned(again)
    torch.testing.assert_close(returned, raw / 4)
    compiled = torch.compile(LumbarCLIPForImageClassification.from_pretrained(tmp_path / "same"), backend="eager")
    torch.testing.assert_close(compiled(torch.zeros(1, 3, 32, 32)).logits, classifier(torch.zeros(1, 3, 32, 32)).logits)

    classifier.classifier.weight.data.mul_(1.5)
    raw, returned = raw_and_returned(classifier)
    torch.testing.assert_close(returned, raw)
    problem = calibration_problem(classifier)
    assert "other weights" in problem and "train/finetune_classification.py" in problem
    classifier.save_pretrained(tmp_path / "other")
    settings = json.loads((tmp_path / "other" / "config.json").read_text())
    assert settings["class_temperatures"] is None


def test_a_classifier_is_trained_on_logits_that_no_temperature_divides(classifier):
    classifier.train()
    raw, returned = raw_and_returned(classifier)
    torch.testing.assert_close(returned, raw)


def test_temperatures_without_a_record_of_their_weights_are_not_used(classifier):
    classifier.config.class_temperatures_fitted_on = None
    raw, returned = raw_and_returned(classifier)
    torch.testing.assert_close(returned, raw)
    assert "does not record" in calibration_problem(classifier)
