"""Pipelines: the model's own answers, calibrated and in its own words; from a folder, without our package."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, ZeroShotImageClassificationPipeline, pipeline

from modeling_lumbarclip import LumbarCLIPForImageClassification, LumbarCLIPForSemanticSegmentation
from modeling_lumbarclip.calibration_lumbarclip import weights_digests
from modeling_lumbarclip.configuration_lumbarclip import FeatureCheck, Scope
from modeling_lumbarclip.pipeline_lumbarclip import (
    LumbarCLIPImageClassificationPipeline,
    LumbarCLIPImageFeaturePipeline,
    LumbarCLIPTextFeaturePipeline,
    LumbarCLIPZeroShotPipeline,
)
from modeling_lumbarclip.scope_lumbarclip import evened
from modeling_lumbarclip.vision_tower_lumbarclip import pooled_image
from tests.without_package import last_line

RAMP = Image.linear_gradient("L").resize((40, 24))
DEEP = Image.fromarray(np.asarray(RAMP).astype(np.uint16) * 16)  # 12 bits; transformers' own pipelines see white
STRUCTURES = ["background", "disc", "left disc"]


def calibration(model, *questions):
    return {"questions": list(questions), "target_coverage": 0.9, "fitted_on": {"weights": weights_digests(model)}}


CLASSES = {
    "label": None,
    "choices": ["LBP", "No Finding"],
    "prompts": [["disc bulge.", "left disc bulge."], ["normal disc."]],
    "temperature": 0.5,
    "score_thresholds": [0.9, 0.9],
}
FINDING = {
    "label": "disc bulge",
    "choices": ["absent", "present"],
    "prompts": [["no disc bulge."], ["disc bulge.", "left disc bulge."]],
    "temperature": 2.0,
    "score_thresholds": [0.4, 0.4],
}


@pytest.fixture
def classify(tiny_model, tiny_processor):
    tiny_processor.class_prompts["bulge"] = ["disc bulge.", "disc bulge at l4/l5."]
    return LumbarCLIPZeroShotPipeline(model=tiny_model, processor=tiny_processor, task="zero-shot-image-classification")


def probabilities_by_hand(model, processor, image, prompts, temperature=1.0):
    with torch.no_grad():
        embed = model.get_image_features(**processor(images=image, return_tensors="pt")).pooler_output[0]
        texts = [
            model.get_text_features(**processor(text=group, return_tensors="pt")).pooler_output for group in prompts
        ]
    similarities = torch.stack([embed @ F.normalize(group.mean(0), dim=0) for group in texts])
    return (similarities / 0.07 / temperature).double().softmax(0).tolist()


def test_without_candidates_it_answers_the_calibrated_questions(classify, tiny_model, tiny_processor):
    tiny_model.config.calibration = calibration(tiny_model, CLASSES)
    present, absent = probabilities_by_hand(tiny_model, tiny_processor, RAMP, CLASSES["prompts"], temperature=0.5)
    answers = {entry["label"]: entry for entry in classify(RAMP)}
    assert answers["LBP"]["score"] == pytest.approx(present, abs=1e-5)
    assert answers["No Finding"]["score"] == pytest.approx(absent, abs=1e-5)
    assert [entry["answer"] for entry in answers.values()] == [None, None]  # either may be: it abstains
    tiny_model.config.calibration["questions"][0]["score_thresholds"] = [0.0, 1.0]
    answers = {entry["label"]: entry["answer"] for entry in classify(RAMP)}
    assert answers == {"LBP": False, "No Finding": True}
    assert classify(RAMP, candidate_labels=["No Finding", "LBP"]) == classify(RAMP)


def test_a_finding_is_one_entry_and_scores_its_presence(classify, tiny_model, tiny_processor):
    tiny_model.config.calibration = calibration(tiny_model, FINDING)
    _, present = probabilities_by_hand(tiny_model, tiny_processor, RAMP, FINDING["prompts"], temperature=2.0)
    (entry,) = classify(RAMP)
    assert entry["label"] == "disc bulge" and entry["score"] == pytest.approx(present, abs=1e-5)
    held = [1 - probability <= 0.4 for probability in (1 - present, present)]
    assert entry["answer"] == (held[1] if sum(held) == 1 else None)


def test_candidates_are_asked_for_in_the_words_of_the_processor(classify, tiny_model, tiny_processor):
    tiny_model.config.calibration = calibration(tiny_model, CLASSES)
    prompts = [["disc bulge.", "disc bulge at l4/l5."], tiny_processor.class_prompt_texts("normal disc")]
    expected = probabilities_by_hand(tiny_model, tiny_processor, RAMP, prompts)
    for image in (RAMP, np.asarray(RAMP)):
        scores = {entry["label"]: entry["score"] for entry in classify(image, ["bulge", "normal disc"])}
        assert scores == pytest.approx({"bulge": expected[0], "normal disc": expected[1]}, abs=1e-5)
    assert "answer" not in classify(RAMP, ["bulge", "normal disc"])[0]
    expected = probabilities_by_hand(tiny_model, tiny_processor, RAMP, [["no bulge"], ["no disc"]])
    scores = {
        entry["label"]: entry["score"] for entry in classify(RAMP, ["bulge", "disc"], hypothesis_template="no {}")
    }
    assert scores == pytest.approx({"bulge": expected[0], "disc": expected[1]}, abs=1e-5)
    of_braces = {
        entry["label"]: entry["score"] for entry in classify(RAMP, ["bulge", "disc"], hypothesis_template="no {} {x}")
    }
    expected = probabilities_by_hand(tiny_model, tiny_processor, RAMP, [["no bulge {x}"], ["no disc {x}"]])
    assert of_braces == pytest.approx({"bulge": expected[0], "disc": expected[1]}, abs=1e-5)


def test_what_cannot_be_asked_is_said(classify, tiny_model):
    with pytest.raises(ValueError, match="no calibration.*pass candidate_labels"):
        classify(RAMP)
    for labels in (["bulge"], "disc bulge", []):
        with pytest.raises(ValueError, match="at least two names"):
            classify(RAMP, candidate_labels=labels)
    with pytest.raises(ValueError, match="without an image"):
        classify(candidate_labels=["bulge", "normal"])
    for template in ("a lumbar slice", "{x}", ""):
        with pytest.raises(ValueError, match=f"hypothesis_template needs {{}} for.*got '{template}'"):
            classify(RAMP, candidate_labels=["bulge", "normal"], hypothesis_template=template)
    for unknown in ("template", "multi_label", "tokenizer_kwargs", "function_to_apply"):
        with pytest.raises(TypeError, match=f"takes no {unknown}; it takes candidate_labels, .*top_k"):
            classify(RAMP, candidate_labels=["bulge", "normal"], **{unknown: "{}"})
    for top_k in (0, -1, 1.5, "2", True):
        with pytest.raises(ValueError, match="top_k is how many entries"):
            classify(RAMP, candidate_labels=["bulge", "normal"], top_k=top_k)


def test_arguments_of_the_call_may_be_given_when_the_pipeline_is_made(tiny_model, tiny_processor):
    options = {"candidate_labels": ["bulge", "normal", "left"], "top_k": 2, "local_files_only": True}
    classify = LumbarCLIPZeroShotPipeline(model=tiny_model, processor=tiny_processor, task="", **options)
    every = classify(RAMP, top_k=9)
    assert len(every) == 3
    assert classify(RAMP) == every[:2]
    assert classify((RAMP, RAMP), top_k=1) == [every[:1], every[:1]]
    assert {entry["label"] for entry in classify(RAMP, candidate_labels=["left", "right"])} == {"left", "right"}
    with pytest.raises(TypeError, match="takes no multi_label"):
        LumbarCLIPZeroShotPipeline(model=tiny_model, processor=tiny_processor, task="", multi_label=True)


def test_other_weights_are_scored_without_answers(classify, tiny_model):
    tiny_model.config.calibration = calibration(
        tiny_model,
        CLASSES | {"score_thresholds": [0.0, 1.0]},
    )
    assert [entry["reason"] for entry in classify(RAMP)] == [None, None]
    assert {entry["answer"] for entry in classify(RAMP)} == {True, False}
    with torch.no_grad():
        tiny_model.image_projection.weight.mul_(1.001)
    for candidates in (None, ["No Finding", "LBP"]):
        for entry in classify(RAMP, candidate_labels=candidates):
            assert entry["answer"] is None and "fitted on other weights" in entry["reason"]
    assert "reason" not in classify(RAMP, candidate_labels=["bulge", "normal"])[0]  # which promised nothing


@pytest.mark.parametrize("problem_type", ["multi_label_classification", "single_label_classification"])
def test_no_finding_is_hidden(tiny_config, tiny_processor, problem_type):
    names = {number: f"finding {number}" for number in range(7)}
    tiny_config.id2label, tiny_config.problem_type = names, problem_type
    model = LumbarCLIPForImageClassification(tiny_config).eval()
    model.config.architectures = [type(model).__name__]
    classify = LumbarCLIPImageClassificationPipeline(
        model=model, image_processor=tiny_processor.image_processor, task="image-classification"
    )
    with torch.no_grad():
        logits = model(**tiny_processor(images=RAMP, return_tensors="pt")).logits[0]
    scores = logits.sigmoid() if problem_type.startswith("multi") else logits.softmax(0)
    answers = classify(RAMP)
    assert {entry["label"]: entry["score"] for entry in answers} == pytest.approx(
        dict(zip(names.values(), scores.tolist(), strict=True)), abs=1e-5
    )
    assert classify(RAMP, top_k=2) == answers[:2]
    with pytest.raises(TypeError, match="takes no candidate_labels; it takes top_k"):
        classify(RAMP, candidate_labels=["a", "b"])
    model.config.class_temperatures = [2.0] * 7
    assert {"does not record" in entry["reason"] for entry in classify(RAMP)} == {True}
    model.config.class_temperatures_fitted_on = {"weights": weights_digests(model)}
    assert "reason" not in classify(RAMP)[0]


def test_feature_pipelines_refuse_what_they_would_swallow(tiny_model, tiny_processor):
    parts = {"model": tiny_model, "processor": tiny_processor, "task": ""}
    for pipeline_class, ask in (
        (LumbarCLIPImageFeaturePipeline, RAMP),
        (LumbarCLIPTextFeaturePipeline, "disc bulge"),
    ):
        with pytest.raises(TypeError, match="takes no top_k; it takes .*return_tensors"):
            pipeline_class(**parts)(ask, top_k=1)
    assert np.shape(LumbarCLIPImageFeaturePipeline(**parts)(RAMP, pool=True, timeout=3)) == (1, 24)


def compiled(model):
    return torch.compile(model, backend="eager")


def adapted(model):
    return get_peft_model(model, LoraConfig(r=2, target_modules=["query"], init_lora_weights=False))


OBJECTS = {
    "as it is": lambda model: model,
    "half precision": lambda model: model.to(torch.bfloat16),
    "compiled": compiled,
    "adapters": adapted,
    "merged adapters": lambda model: adapted(model).merge_and_unload(),
    "quantised": lambda model: torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}),
}


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization")
@pytest.mark.parametrize("make", OBJECTS.values(), ids=OBJECTS)
def test_a_loaded_model_gets_our_pipelines(tiny_model, tiny_processor, make, caplog):
    model = make(tiny_model)
    parts = {"image_processor": tiny_processor.image_processor, "tokenizer": tiny_processor.tokenizer}
    ask = pipeline("zero-shot-image-classification", model=model, processor=tiny_processor)
    assert type(ask) is LumbarCLIPZeroShotPipeline
    asked = {"candidate_labels": ["bulge", "normal"]}
    found = {entry["label"]: entry["score"] for entry in ask(DEEP, **asked)}
    ours = LumbarCLIPZeroShotPipeline(model=model, processor=tiny_processor, task="")
    assert found == {entry["label"]: entry["score"] for entry in ours(DEEP, **asked)}
    every_part = pipeline("zero-shot-image-classification", model=model, processor=tiny_processor, **parts)
    assert {entry["label"]: entry["score"] for entry in every_part(DEEP, **asked)} == found
    for too_little in ({}, parts, {"tokenizer": tiny_processor.tokenizer}, {"image_processor": tiny_processor}):
        with pytest.raises(ValueError, match=r'pipeline\("zero-shot-image-classification", .* needs processor='):
            pipeline("zero-shot-image-classification", model=model, **too_little)
    with pytest.raises(ValueError, match=r'pipeline\("feature-extraction", .* needs processor='):
        pipeline("feature-extraction", model=model, tokenizer=tiny_processor.tokenizer)
    texts = pipeline("feature-extraction", model=model, processor=tiny_processor)
    assert type(texts) is LumbarCLIPTextFeaturePipeline and np.shape(texts("disc bulge")) == (1, 8)
    for given in ({"processor": tiny_processor}, {"image_processor": tiny_processor.image_processor}):
        images = pipeline("image-feature-extraction", model=model, **given)
        assert type(images) is LumbarCLIPImageFeaturePipeline and np.shape(images(DEEP)) == (1, 8)
    with pytest.raises(ValueError, match="needs image_processor= or processor="):
        pipeline("image-feature-extraction", model=model)
    with pytest.raises(ValueError, match="no classification head"):
        pipeline("image-classification", model=model, processor=tiny_processor)
    assert "is not supported" not in caplog.text


def test_a_loaded_classifier_gets_our_pipeline(tiny_config, tiny_processor):
    tiny_config.id2label = {number: f"finding {number}" for number in range(7)}
    model = LumbarCLIPForImageClassification(tiny_config).eval()
    given = {"image_processor": tiny_processor.image_processor}
    with pytest.raises(ValueError, match="save the model first"):
        pipeline("image-classification", model=model, **given)
    model.config.architectures = [type(model).__name__]
    assert len(pipeline("image-classification", model=model, **given)(DEEP)) == 7  # transformers': five


def test_other_models_keep_the_pipelines_of_transformers(tiny_processor):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    texts = {**sizes, "vocab_size": 50, "bos_token_id": 2, "eos_token_id": 3}
    clip = CLIPModel(CLIPConfig(text_config=texts, vision_config={**sizes, "image_size": 32, "patch_size": 16})).eval()
    parts = {
        "image_processor": CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32),
        "tokenizer": tiny_processor.tokenizer,
    }
    ask = pipeline("zero-shot-image-classification", model=clip, **parts)
    assert type(ask) is ZeroShotImageClassificationPipeline
    assert len(ask(RAMP, candidate_labels=["a", "b", "c"])) == 3
    with pytest.raises(ValueError, match="needs tokenizer="):
        pipeline("zero-shot-image-classification", model=clip, image_processor=parts["image_processor"])


FRESH_PROCESS = """
import json, sys
import numpy as np
from PIL import Image
from transformers import pipeline
try:
    import modeling_lumbarclip
    raise SystemExit("the package must not be importable here")
except ModuleNotFoundError:
    trust = {"trust_remote_code": True}
folder, classifier = sys.argv[1:]
image = Image.linear_gradient("L").resize((40, 24))
Image.fromarray(np.asarray(image).astype(np.uint16) * 16).save("deep.png")
answers = {}
zero_shot = pipeline("zero-shot-image-classification", model=folder, **trust)
answers["zero_shot"] = zero_shot([image, "deep.png"], batch_size=2)
pixels = zero_shot.processor(images=["deep.png", Image.open("deep.png")], return_tensors="np").pixel_values
assert np.array_equal(pixels[0], pixels[1])
zero_shot.model.save_pretrained("again")
zero_shot.processor.save_pretrained("again")
again = pipeline("zero-shot-image-classification", model="again", **trust)(image)
for entry, before in zip(again, answers["zero_shot"][0], strict=True):
    assert entry["label"] == before["label"] and abs(entry["score"] - before["score"]) < 1e-5, (entry, before)
from transformers import AutoModel
of_object = pipeline("zero-shot-image-classification", model=AutoModel.from_pretrained(folder, **trust),
                     processor=zero_shot.processor)
assert type(of_object).__name__ == type(zero_shot).__name__
assert of_object([image, "deep.png"], batch_size=2) == answers["zero_shot"]
features = pipeline("image-feature-extraction", model=folder, **trust)
answers["image"] = features(["deep.png", "deep.png"], batch_size=2)
answers["pooled"] = features("deep.png", pool=True)
answers["text"] = pipeline("feature-extraction", model=folder, **trust)(["disc", "no disc bulge. " * 30], batch_size=2)
answers["classes"] = pipeline("image-classification", model=classifier, **trust)("deep.png")
for task, wrong in (("image-classification", folder), ("zero-shot-image-classification", classifier)):
    try:
        answers["refused " + task] = pipeline(task, model=wrong, **trust)(image)
    except ValueError as error:
        answers["refused " + task] = str(error)
print(json.dumps(answers))
"""


def test_every_pipeline_works_from_a_folder_without_our_package(tiny_model, tiny_processor, tmp_path):
    tiny_model.config.calibration = calibration(tiny_model, CLASSES)
    tiny_model.save_pretrained(tmp_path / "checkpoint")
    tiny_processor.save_pretrained(tmp_path / "checkpoint")
    classifier = LumbarCLIPForImageClassification.from_pretrained(
        tmp_path / "checkpoint", id2label={0: "LBP", 1: "No Finding"}, class_temperatures=[2.0, 2.0]
    )
    classifier.config.class_temperatures_fitted_on = {"weights": weights_digests(classifier)}
    classifier.eval().save_pretrained(tmp_path / "classifier")
    tiny_processor.image_processor.save_pretrained(tmp_path / "classifier")
    answers = json.loads(last_line(FRESH_PROCESS, tmp_path / "checkpoint", tmp_path / "classifier", folder=tmp_path))

    expected = probabilities_by_hand(tiny_model, tiny_processor, DEEP, CLASSES["prompts"], temperature=0.5)
    scores = {entry["label"]: entry["score"] for entry in answers["zero_shot"][1]}
    assert scores == pytest.approx(dict(zip(CLASSES["choices"], expected, strict=True)), abs=1e-5)
    pixels = tiny_processor(images=DEEP, return_tensors="pt").pixel_values
    texts = tiny_processor(text=["disc", "no disc bulge. " * 30], return_tensors="pt")
    with torch.no_grad():
        output, text_embeds = tiny_model(pixel_values=pixels), tiny_model(**texts).text_embeds
        logits = classifier(pixels).logits[0]
    for answer in answers["image"]:
        torch.testing.assert_close(torch.tensor(answer), output.image_embeds, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.tensor(answers["pooled"]), output.image_features, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.tensor(answers["text"])[:, 0], text_embeds, atol=1e-5, rtol=1e-5)
    scores = {entry["label"]: entry["score"] for entry in answers["classes"]}
    expected = dict(zip(("LBP", "No Finding"), logits.softmax(0).tolist(), strict=True))
    assert scores == pytest.approx(expected, abs=1e-5)
    assert "no classification head" in answers["refused image-classification"]
    assert "without projections" in answers["refused zero-shot-image-classification"]


SCOPE = Scope(
    **{"planes": ["axial"], "sequences": ["T2"], "anatomy": "lumbar spine", "is_synthetic": False, "num_patients": 9},
    check=FeatureCheck(threshold=2.0, false_alarm_rate=0.05, num_directions=0, num_images=60, num_patients=20),
)
OUTSIDE = "Trained on axial T2 slices of the lumbar spine (9 patients); this is"
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40), dtype=np.uint8))


def set_scope(model, processor):
    """A scope around the features of the ramp."""
    with torch.no_grad():
        pixels = processor(images=[RAMP, NOISE], return_tensors="pt").pixel_values
        vision = model.vision_model(pixel_values=pixels)
        ramp, noise = evened(pooled_image(model.vision_model, vision))
    spread = (ramp - noise).square().mean() / 100  # the noise lies ten deviations away
    model.set_scope(SCOPE, {"mean": ramp, "directions": torch.zeros(0, len(ramp)), "variances": spread[None]})


@pytest.fixture
def classify_findings(tiny_config, tiny_processor):
    tiny_config.id2label = {0: "bulge", 1: "stenosis"}
    tiny_config.problem_type = "multi_label_classification"
    tiny_config.architectures = ["LumbarCLIPForImageClassification"]
    torch.manual_seed(0)
    model = LumbarCLIPForImageClassification(tiny_config).eval()
    set_scope(model, tiny_processor)
    return LumbarCLIPImageClassificationPipeline(
        model=model, image_processor=tiny_processor.image_processor, task="image-classification"
    )


@pytest.fixture
def ask(classify, tiny_model, tiny_processor):
    tiny_model.config.calibration = calibration(tiny_model, CLASSES)
    tiny_model.config.calibration["questions"][0]["score_thresholds"] = [0.0, 1.0]
    set_scope(tiny_model, tiny_processor)
    return classify


@pytest.mark.parametrize("labels", [None, ["bulge", "normal disc"], ["LBP", "No Finding"]])
def test_an_image_outside_the_scope_gets_no_answer_but_why(ask, labels):
    (entry,) = ask(NOISE, candidate_labels=labels)
    assert (entry["label"], entry["score"], entry["answer"]) == (None, None, None)
    assert entry["reason"].startswith(f"{OUTSIDE} an image unlike them (distance 10.00")
    inside = ask(RAMP, candidate_labels=labels)
    assert len(inside) == 2 and all(entry["score"] is not None for entry in inside)
    assert all(entry.get("reason") is None for entry in inside)


def test_scores_outside_the_scope_come_on_request_and_never_with_an_answer(ask, tiny_model):
    scored = ask(NOISE, score_outside_scope=True)
    assert [entry["answer"] for entry in scored] == [None, None]
    assert all(entry["reason"].startswith(OUTSIDE) and 0 < entry["score"] < 1 for entry in scored)
    assert {entry["answer"] for entry in ask(RAMP, score_outside_scope=True)} == {True, False}
    tiny_model.set_scope(None)
    without = {entry["label"]: entry["score"] for entry in ask(NOISE)}
    assert without == pytest.approx({entry["label"]: entry["score"] for entry in scored})
    assert {entry["answer"] for entry in ask(NOISE)} == {True, False}  # as before there were scopes


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"plane": "sagittal", "sequence": "T2"}, "a sagittal T2 slice."),
        ({"anatomy": "knee"}, "a slice of the knee."),
        ({"plane": "axial", "sequence": "T2", "anatomy": "lumbar spine"}, None),
        ({}, None),
    ],
)
def test_a_header_outside_the_scope_gets_no_answer(ask, classify_findings, header, said):
    for pipe in (ask, classify_findings):
        entries = pipe(RAMP, header=header)
        assert entries[0].get("reason") == (said and f"{OUTSIDE} {said}")
        assert len(entries) == (1 if said else 2)
    with pytest.raises(ValueError, match="plane, sequence, anatomy; got modality"):
        ask(RAMP, header={"modality": "CR"})


def test_each_image_of_a_list_is_judged_on_its_own(ask, classify_findings):
    for pipe in (ask, classify_findings):
        for options in ({}, {"batch_size": 2}, {"top_k": 1}):
            entries = [len(of_image) for of_image in pipe([RAMP, NOISE, RAMP], **options)]
            assert entries == ([1, 1, 1] if "top_k" in options else [2, 1, 2])
            assert [of_image[0]["score"] is None for of_image in pipe([RAMP, NOISE, RAMP], **options)] == [
                *(False, True, False)
            ]


def test_a_classifier_scores_only_what_it_was_trained_for(classify_findings):
    (entry,) = classify_findings(NOISE)
    assert entry["label"] is None and entry["score"] is None and entry["reason"].startswith(OUTSIDE)
    inside = classify_findings(RAMP)
    assert {entry["label"] for entry in inside} == {"bulge", "stenosis"} and "reason" not in inside[0]
    scored = classify_findings(NOISE, score_outside_scope=True)
    assert {entry["label"] for entry in scored} == {"bulge", "stenosis"}
    assert all(entry["reason"].startswith(OUTSIDE) and 0 < entry["score"] < 1 for entry in scored)
    made = LumbarCLIPImageClassificationPipeline(
        model=classify_findings.model,
        image_processor=classify_findings.image_processor,
        task="image-classification",
        score_outside_scope=True,
    )
    assert made(NOISE) == scored


def test_both_reasons_are_given(ask, tiny_model):
    tiny_model.config.calibration["fitted_on"] = {"weights": ["of others"]}
    (entry,) = ask(NOISE)
    assert entry["reason"].startswith(OUTSIDE) and ". The calibration was fitted on other weights." in entry["reason"]


def test_a_classifier_compiled_before_tells_the_features_too(classify_findings):
    expected = classify_findings(NOISE)
    model = compiled(classify_findings.model)
    with torch.no_grad():  # as in the pipeline, which hooks that come later would miss
        model(**classify_findings.image_processor(NOISE, return_tensors="pt"))
    ask = pipeline("image-classification", model=model, image_processor=classify_findings.image_processor)
    assert ask(NOISE) == expected


@pytest.fixture
def segmenter(tiny_model, tiny_processor, tmp_path):
    """A folder with a segmentation model of two structures."""
    tiny_model.save_pretrained(tmp_path / "pretrained")
    torch.manual_seed(0)
    model = LumbarCLIPForSemanticSegmentation.from_pretrained(
        tmp_path / "pretrained",
        id2label=dict(enumerate(STRUCTURES)),
        **tiny_processor.segmentation_prompts(STRUCTURES[1:]),
    ).eval()
    model.save_pretrained(tmp_path / "segmenter")
    tiny_processor.save_pretrained(tmp_path / "segmenter")
    return tmp_path / "segmenter"


def test_segmentation_gives_a_mask_of_the_original_size_for_each_class(segmenter, tiny_processor):
    segment = pipeline("image-segmentation", model=str(segmenter), trust_remote_code=True)
    assert type(segment).__name__ == "LumbarCLIPSegmentationPipeline"
    with torch.no_grad():
        output = segment.model(**tiny_processor(images=DEEP, return_tensors="pt"))
        (classes,) = tiny_processor.post_process_semantic_segmentation(output, [(24, 40)])
    for image in (DEEP, np.asarray(DEEP)):
        entries = segment(image)
        assert [entry["label"] for entry in entries] == STRUCTURES[1:]
        for index, entry in enumerate(entries, start=1):
            assert entry["mask"].size == (40, 24) and entry["reason"] is None
            assert np.array_equal(np.asarray(entry["mask"]) == 255, (classes == index).numpy())
            assert (entry["score"] is None) == (not (classes == index).any())
    asked = segment([DEEP, RAMP], prompts=["disc bulge", "no disc", "right"])
    assert [[entry["label"] for entry in entries] for entries in asked] == [["disc bulge", "no disc", "right"]] * 2
    with pytest.raises(ValueError, match="prompts must be a list of texts"):
        segment(DEEP, prompts="disc bulge")
    with pytest.raises(TypeError, match="takes no threshold; it takes prompts"):
        segment(DEEP, threshold=0.5)


def test_segmentation_refuses_a_model_without_a_decoder_and_holds_foreign_images_back(
    segmenter, tiny_model, tiny_processor
):
    parts = {"task": "image-segmentation", "image_processor": tiny_processor.image_processor}
    with pytest.raises(ValueError, match="no decoder for segmentation"):
        pipeline(model=tiny_model, **parts)
    model = LumbarCLIPForSemanticSegmentation.from_pretrained(segmenter).eval()
    segment = pipeline(model=model, **parts)
    with pytest.raises(ValueError, match="prompts need a checkpoint with a text tower, and its processor"):
        segment(DEEP, prompts=["disc"])
    set_scope(model, tiny_processor)
    (entry,) = segment(DEEP, header={"plane": "sagittal"})
    assert entry["mask"] is None and "this is a sagittal slice" in entry["reason"]
    scored = segment(DEEP, header={"plane": "sagittal"}, score_outside_scope=True)
    assert [entry["reason"] is None for entry in scored] == [False, False]
