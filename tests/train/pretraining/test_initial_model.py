"""What a pretraining run starts from: towers random or pretrained, a checkpoint, and prompts."""

import hashlib
from dataclasses import replace

import pytest
import timm
import torch
from datasets import ClassLabel, Dataset, Features, List, Value
from huggingface_hub import constants
from safetensors.torch import load_file
from tokenizers.processors import TemplateProcessing
from transformers import AutoConfig, AutoModel, BertConfig, BertModel, ViTConfig, ViTModel

from train.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from train.checkpoints.packaged_towers import TOWERS
from train.data.loaders import open_dataset
from train.evaluation.questions import bank_prompts
from train.pretraining.arguments import PretrainArguments
from train.pretraining.initial_model import build_model, check_pooled_token, texts_of_run
from train.training.initial_towers import learn_tokenizer

TEXTS = ["Disc bulge at L4/L5.", "No disc bulge at L5/S1.", "Mild left paracentral protrusion."]


def test_a_run_that_words_grades_alone_needs_no_words_for_its_classes():
    features = Features(
        report=Value("string"),
        rephrasings=List(Value("string")),
        labels=List(ClassLabel(names=["?!"])),
        grade=ClassLabel(names=list("12345")),
    )
    row = {"report": "A disc.", "rephrasings": [], "labels": [0], "grade": 0}
    rows = Dataset.from_list([row], features=features)
    settings = {"dataset": "discs", "output_dir": "run"}
    texts = [*texts_of_run(PretrainArguments(**settings, objectives="grade_prompts"), rows, "lumbar spine")]
    assert texts[0] == "A disc." and any("Pfirrmann" in text for text in texts)
    with pytest.raises(ValueError, match="No statement can be made of the class"):
        list(texts_of_run(PretrainArguments(**settings, objectives="polarity"), rows, "lumbar spine"))


def test_pretrained_towers_bring_their_weights_and_tokenizer(tiny_dataset_folder, tmp_path):
    ViTModel(
        ViTConfig(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8)
    ).save_pretrained(tmp_path / "vision")
    text = BertModel(BertConfig(vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    text.save_pretrained(tmp_path / "text")
    learn_tokenizer(TEXTS, 60).save_pretrained(tmp_path / "text")
    args = PretrainArguments(
        dataset=str(tiny_dataset_folder),
        output_dir=str(tmp_path / "run"),
        vision=str(tmp_path / "vision"),
        text=str(tmp_path / "text"),
        image_size=32,
        projection="nonlinear",
        gradient_checkpointing=True,
    )
    processor, model = build_model(args, open_dataset(args.dataset)["train"])
    weights = model.text_model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in text.state_dict().items() if name in weights)
    assert processor.tokenizer.get_vocab() == learn_tokenizer(TEXTS, 60).get_vocab()
    assert model.config.projection == "nonlinear"
    assert processor.image_processor.size["height"] == 32


def small_images(folder, vision, **more):
    return PretrainArguments(dataset=str(folder), output_dir="run", pretrained=False, vision=vision, **more)


@pytest.mark.parametrize("vision", ["test_vit", "swin_tiny_patch4_window7_224", "resnet10t"])
def test_towers_of_one_size_are_built_for_the_images(tiny_dataset_folder, vision):
    small = {"embed_dim": 12, "depths": [1, 1], "num_heads": [1, 2]} if "swin" in vision else {}
    args = small_images(tiny_dataset_folder, vision, image_size=96, vision_model_args=small)
    _, model = build_model(args, open_dataset(args.dataset)["train"])
    assert model.get_image_features(torch.zeros(1, 3, 96, 96)).pooler_output.shape == (1, args.projection_dim)
    assert ("img_size" in (model.config.vision_config.model_args or {})) is (vision != "resnet10t")


def test_an_image_size_that_is_not_that_of_the_images_is_refused(tiny_dataset_folder):
    args = small_images(tiny_dataset_folder, "test_vit", image_size=96, vision_model_args={"img_size": 128})
    with pytest.raises(ValueError, match=r"test_vit for images of 128 pixels, and image_size is 96: leave img_size"):
        build_model(args, open_dataset(args.dataset)["train"])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"text_config": {"num_hiden_layers": 1}}, "'num_hiden_layers', which bert .*Did you mean num_hidden_layers"),
        ({"vision_model_args": {"channels": [8]}}, r"\{'channels': \[8\]\} do not fit test_vit: .*--vision_model_args"),
    ],
)
def test_settings_that_a_tower_does_not_have(tiny_dataset_folder, settings, said):
    args = small_images(tiny_dataset_folder, "test_vit", **settings)
    with pytest.raises(ValueError, match=said):
        build_model(args, open_dataset(args.dataset)["train"])


def test_an_unreachable_tower_is_named(tiny_dataset_folder, tmp_path):
    args = PretrainArguments(
        dataset=str(tiny_dataset_folder), output_dir=str(tmp_path), vision="resnet10t", text="nowhere/bert"
    )
    with pytest.raises(ValueError, match="No tower"):
        build_model(args, open_dataset(args.dataset)["train"])


def test_a_checkpoint_brings_all_but_how_the_loss_is_computed(
    tiny_model, tiny_processor, tiny_dataset_folder, tmp_path
):
    save_checkpoint(tiny_model, tiny_processor, tmp_path / "base")
    args = PretrainArguments(
        dataset=str(tiny_dataset_folder),
        output_dir=str(tmp_path / "run"),
        init_checkpoint=str(tmp_path / "base"),
        vision="no_such_tower",
        image_size=999,
        learn_temperature=False,
        class_prompts={"scoliosis": ["The spine is curved."]},
    )
    processor, model = build_model(args, open_dataset(args.dataset)["train"])
    weights = tiny_model.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert processor.tokenizer.get_vocab() == tiny_processor.tokenizer.get_vocab()
    assert processor.image_processor.size["height"] == 32
    of_banks, denied = bank_prompts(["LBP", "No Finding"], "lumbar spine")
    own = {"scoliosis": ["The spine is curved."]}
    assert processor.class_prompts == {**tiny_processor.class_prompts, **of_banks, **own}
    assert processor.absent_class_prompts == {**tiny_processor.absent_class_prompts, **denied}
    assert not model.log_inverse_temperature.requires_grad


@pytest.mark.parametrize("anatomy", ["knee", "lumbar spine", "shoulder", None])
@pytest.mark.parametrize("starts_from_checkpoint", [False, True])
def test_prompts_are_those_of_what_the_images_show(
    tiny_model, tiny_processor, tiny_dataset_folder, tmp_path, anatomy, starts_from_checkpoint
):
    base = tmp_path / "base"
    save_checkpoint(tiny_model, tiny_processor, base)
    towers = {"init_checkpoint": str(base)} if starts_from_checkpoint else {"vision": "resnet10t", "image_size": 32}
    args = PretrainArguments(
        dataset=str(tiny_dataset_folder), output_dir=str(tmp_path / "run"), pretrained=False, **towers
    )
    processor, _ = build_model(args, open_dataset(args.dataset)["train"], anatomy)
    stated, denied = bank_prompts(["LBP", "No Finding"], anatomy)
    for name in ("LBP", "No Finding"):
        assert processor.class_prompt_texts(name) == stated[name]
        assert processor.absent_class_prompt_texts(name) == denied[name]
    about = {"knee": "knee", "shoulder": "shoulder"}.get(anatomy, "disc")
    assert about in " ".join(processor.class_prompt_texts("No Finding"))


@pytest.mark.parametrize("starts_from_checkpoint", [False, True])
def test_what_a_user_asks_stands_before_the_banks(
    tiny_model, tiny_processor, tiny_dataset_folder, tmp_path, starts_from_checkpoint
):
    """In the settings of the run, or of the checkpoint that it starts from."""
    base, own = tmp_path / "base", {"LBP": ["A painful back."]}
    if starts_from_checkpoint:
        tiny_processor.class_prompts |= own
        save_checkpoint(tiny_model, tiny_processor, base)
        towers = {"init_checkpoint": str(base)}
    else:
        towers = {"vision": "resnet10t", "image_size": 32, "class_prompts": own}
    args = PretrainArguments(
        dataset=str(tiny_dataset_folder), output_dir=str(tmp_path / "run"), pretrained=False, **towers
    )
    processor, _ = build_model(args, open_dataset(args.dataset)["train"], "lumbar spine")
    stated, denied = bank_prompts(["LBP", "No Finding"], "lumbar spine")
    assert processor.class_prompt_texts("LBP") == ["A painful back."]
    assert processor.absent_class_prompt_texts("LBP") == denied["LBP"]
    assert processor.class_prompt_texts("No Finding") == stated["No Finding"]


def test_what_is_no_lumbarclip_checkpoint_is_not_gone_on_with(tiny_dataset_folder, tmp_path):
    BertModel(BertConfig(vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)).save_pretrained(
        tmp_path / "bert"
    )
    learn_tokenizer(TEXTS, 60).save_pretrained(tmp_path / "bert")
    args = PretrainArguments(
        dataset=str(tiny_dataset_folder), output_dir=str(tmp_path), init_checkpoint=str(tmp_path / "bert")
    )
    with pytest.raises(ValueError, match="is not a LumbarCLIP checkpoint: the model_type .* is 'bert'"):
        build_model(args, open_dataset(args.dataset)["train"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("lora_rank", [0, 2])
def test_a_checkpoint_of_another_precision_is_trained_in_float32(
    tiny_model, tiny_processor, tiny_dataset_folder, tmp_path, dtype, lora_rank
):
    tiny_model.to(dtype).save_pretrained(tmp_path / "base")
    tiny_processor.save_pretrained(tmp_path / "base")
    args = PretrainArguments(
        dataset=str(tiny_dataset_folder),
        output_dir=str(tmp_path),
        init_checkpoint=str(tmp_path / "base"),
        lora_rank=lora_rank,
    )
    _, model = build_model(args, open_dataset(args.dataset)["train"])
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.config.dtype == model.config.text_config.dtype == torch.float32


def save_text_tower(folder, kind, **more):
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = AutoConfig.for_model(kind, vocab_size=60, **small, **more)
    AutoModel.from_config(config).save_pretrained(folder)
    learn_tokenizer(TEXTS, 60).save_pretrained(folder)


@pytest.mark.parametrize(
    ("kind", "positions", "tokens"), [("bert", 96, 96), ("roberta", 98, 96), ("xlm-roberta", 98, 96)]
)
def test_texts_are_no_longer_than_a_pretrained_tower_has_positions_for(
    tiny_dataset_folder, tmp_path, kind, positions, tokens
):
    """RoBERTa counts from its padding token on: 98 positions, 96 tokens."""
    more = {} if kind == "bert" else {"pad_token_id": 1}
    save_text_tower(tmp_path / "text", kind, max_position_embeddings=positions, **more)
    timm_tower = AutoConfig.for_model("timm_wrapper", architecture="test_vit", model_args={"img_size": 32})
    AutoModel.from_config(timm_tower).save_pretrained(tmp_path / "vision")

    def build(**more):
        towers = {"vision": str(tmp_path / "vision"), "text": str(tmp_path / "text"), "image_size": 32}
        args = PretrainArguments(dataset=str(tiny_dataset_folder), output_dir="run", **towers, **more)
        return build_model(args, open_dataset(args.dataset)["train"])

    for length in (128, tokens + 1):
        with pytest.raises(ValueError, match=rf"max_text_length is {length}, .* set --max_text_length {tokens},"):
            build(max_text_length=length)
    processor, _ = build(max_text_length=tokens)
    assert processor.max_length == tokens


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert"])
@pytest.mark.parametrize("length", [32, 128, 200])
def test_an_untrained_tower_has_positions_for_the_longest_text(tiny_dataset_folder, kind, length):
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    small = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32} if kind == "distilbert" else small
    settings = {"text_config": {"model_type": kind, **small}, "image_size": 32, "max_text_length": length}
    args = small_images(tiny_dataset_folder, "test_vit", **settings)
    processor, model = build_model(args, open_dataset(args.dataset)["train"])
    token_ids = processor(text=["disc " * 300], return_tensors="pt")["input_ids"]
    assert token_ids.shape == (1, length)
    assert model.eval().get_text_features(token_ids).pooler_output.isfinite().all()
    if kind == "bert":  # as before: a tower of another shape would have other weights
        assert model.config.text_config.max_position_embeddings == max(length, 64)


def test_positions_that_the_settings_give_are_not_changed(tiny_dataset_folder):
    settings = {"text_config": {"max_position_embeddings": 64}, "max_text_length": 65}
    with pytest.raises(ValueError, match="max_text_length is 65, .* 64 tokens: set --max_text_length 64"):
        build_model(
            small_images(tiny_dataset_folder, "test_vit", image_size=32, **settings),
            open_dataset(str(tiny_dataset_folder))["train"],
        )


def test_a_tokenizer_without_a_first_token_is_not_pooled_there():
    words = learn_tokenizer(["disc bulge"], 30)
    check_pooled_token(words, "cls")
    words._tokenizer.post_processor = TemplateProcessing(single="$A [SEP]", special_tokens=[("[SEP]", 3)])  # as T5's
    with pytest.raises(ValueError, match=r"puts none like \[CLS\] before a text: it starts with \['disc'\]"):
        check_pooled_token(words, "cls")
    check_pooled_token(words, "mean")


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """Two tiny towers in packages, in the place of the real ones."""
    for name, role, folder in (("efficientnet_lite0", "vision", "v"), ("all-MiniLM-L6-v2", "text", "t")):
        about = tmp_path / "site" / f"made_{role}-0.1.0.dist-info"
        about.mkdir(parents=True)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: made-{role}\nVersion: 0.1.0\n")
        files = tmp_path / "site" / folder
        if role == "vision":
            files.mkdir()
            torch.save(timm.create_model("test_resnet").state_dict(), files / "weights.pth")
        else:
            save_text_tower(files, "bert")
        digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files.iterdir()}
        changed = {"package": f"made-{role}", "folder": folder, "sha256": digests}
        changed |= {"architecture": "test_resnet"} if role == "vision" else {}
        monkeypatch.setitem(TOWERS, name, replace(TOWERS[name], **changed))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "site"


LITE0, MINILM = "packaged:efficientnet_lite0", "packaged:all-MiniLM-L6-v2"


@pytest.mark.parametrize(
    ("towers", "pretrained"),
    [(("vision",), False), (("text",), False), (("vision", "text"), False), (("vision", "text"), True)],
)
def test_a_packaged_tower_brings_its_weights_and_the_other_is_as_the_settings_say(
    packaged, tiny_dataset_folder, tmp_path, towers, pretrained
):
    settings = {name: value for name, value in (("vision", LITE0), ("text", MINILM)) if name in towers}
    more = {"max_text_length": 64, "text_config": {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1}}
    args = PretrainArguments(
        dataset=str(tiny_dataset_folder),
        output_dir=str(tmp_path / "run"),
        image_size=64,
        **({"vision": "test_vit"} | more | settings | {"pretrained": pretrained}),
    )
    processor, model = build_model(args, open_dataset(args.dataset)["train"])
    images, vocabulary = processor.image_processor, learn_tokenizer(TEXTS, 60).get_vocab()
    if "vision" in towers:
        expected = torch.load(packaged / "v/weights.pth", weights_only=True)
        found = model.vision_model.timm_model.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in found.items())
    assert images.image_mean[0] == (0.5 if "vision" in towers else 0.485)
    assert (processor.tokenizer.get_vocab() == vocabulary) is ("text" in towers)
    assert model.config.text_config.hidden_size == (16 if "text" in towers else 24)
    if "text" in towers:
        expected = load_file(packaged / "t/model.safetensors")
        found = model.text_model.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in found.items() if name in expected)
    save_checkpoint(model, processor, tmp_path / "checkpoint")
    for file in (tmp_path / "checkpoint").glob("*.json"):
        assert str(tmp_path) not in file.read_text(), file.name
    loaded, _ = load_checkpoint(tmp_path / "checkpoint")
    pixels = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(loaded.get_image_features(pixels), model.eval().get_image_features(pixels))


@pytest.mark.parametrize(("name", "mean"), [("vit_tiny_patch16_224", 0.5), ("resnet10t", 0.485)])
def test_a_pretrained_tower_of_timm_brings_the_scale_of_its_pixels(
    tiny_dataset_folder, tmp_path, monkeypatch, name, mean
):
    made = timm.create_model  # without the network
    monkeypatch.setattr(timm, "create_model", lambda *args, **more: made(*args, **{**more, "pretrained": False}))
    save_text_tower(tmp_path / "text", "bert")
    args = PretrainArguments(
        dataset=str(tiny_dataset_folder),
        output_dir="run",
        vision=name,
        text=str(tmp_path / "text"),
        image_size=32,
        max_text_length=64,
    )
    images = build_model(args, open_dataset(args.dataset)["train"])[0].image_processor
    assert images.image_mean[0] == mean
    random = small_images(tiny_dataset_folder, name, image_size=32)
    images = build_model(random, open_dataset(args.dataset)["train"])[0].image_processor
    assert images.image_mean[0] == 0.485


def test_a_tower_trained_with_another_pooling_is_told(packaged, tiny_dataset_folder, caplog):
    more = {"text": MINILM, "image_size": 32, "max_text_length": 64}
    for pooling in ("mean", "cls"):
        caplog.clear()
        args = small_images(tiny_dataset_folder, "test_vit", text_pooling=pooling, **more)
        build_model(args, open_dataset(args.dataset)["train"])
        assert ("--text_pooling mean" in caplog.text) is (pooling == "cls")
