"""Settings come from YAML, the command line wins, and every shipped YAML is right."""

import re
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from data_scripts.system.command_line import arguments_class_of, parse_arguments
from train.checkpoints.packaged_towers import TOWERS
from train.pretraining import arguments
from train.pretraining.arguments import PretrainArguments

CONFIGS = sorted((Path(__file__).parents[3] / "train" / "configs").glob("*.yaml"))


def write(path, text):
    path.write_text(text)
    return str(path)


def test_the_command_line_wins_over_the_file(tmp_path):
    config = write(
        tmp_path / "run.yaml",
        "dataset: data/x\noutput_dir: runs/x\nlearning_rate: 1e-4\nepochs: 3\nvision_model_args: {img_size: 96}\n",
    )
    args = parse_arguments(PretrainArguments, [config, "--epochs", "7", "--no_pretrained"])
    assert (args.dataset, args.learning_rate, args.epochs, args.pretrained) == ("data/x", 1e-4, 7, False)
    assert args.vision_model_args == {"img_size": 96}
    args = parse_arguments(
        PretrainArguments, [config, "--vision_model_args", '{"img_size": 64}', "--target_columns", "none"]
    )
    assert args.vision_model_args == {"img_size": 64} and args.target_columns == []


def test_balance_is_one_word_or_two(tmp_path):
    config = write(tmp_path / "run.yaml", "dataset: d\noutput_dir: o\nbalance: upsample\n")
    assert parse_arguments(PretrainArguments, [config]).balance == ["upsample"]
    assert parse_arguments(PretrainArguments, [config, "--balance", "none"]).balance == []
    both = parse_arguments(PretrainArguments, [config, "--balance", "upsample", "sampler"])
    assert both.balance == ["upsample", "sampler"]


def test_an_unknown_setting_names_the_nearest(tmp_path):
    config = write(tmp_path / "run.yaml", "dataset: d\noutput_dir: o\nlearning_rat: 1\n")
    with pytest.raises(ValueError, match="'learning_rat'.*Did you mean learning_rate"):
        parse_arguments(PretrainArguments, [config])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: 3\nvision_model_args: {img_size: 96\nseed: 1\n", "run.yaml, line 3: while parsing a flow mapping"),
        ("epochs: 3\nseed: 1\nepochs: 4\n", "run.yaml, line 3: 'epochs' is given twice in one mapping"),
        ("vision_model_args: {depth: 2, dim: 3, depth: 4}\n", "line 1: 'depth' is given twice"),
        ("seed: \x07\n", "run.yaml is not valid YAML: .*not allowed"),
        ("hub_tag: 0.2\n", "sets hub_tag to 0.2, which YAML does not read as text: put it in quotes"),
        ("vision: no\n", "sets vision to False, .*put it in quotes"),
        ("power_watts: [1]\n", r"sets power_watts to \[1\]: it takes one number"),
        ("batch_size: {a: 1}\n", "sets batch_size to {'a': 1}: it takes one number"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        parse_arguments(PretrainArguments, [write(tmp_path / "run.yaml", text)])


def test_merged_keys_may_be_written_over(tmp_path):
    """Also where the mapping that is merged holds merged keys itself, and is built after the one that merges it."""
    text = "class_prompts: {x: {y: &a {<<: &b {k: 1, l: 2}, k: 3}}, a: 1}\nabsent_class_prompts: {<<: *a, l: 4}\n"
    config = write(tmp_path / "run.yaml", f"dataset: d\noutput_dir: o\n{text}")
    args = parse_arguments(PretrainArguments, [config])
    assert args.class_prompts["x"]["y"] == {"k": 3, "l": 2} and args.absent_class_prompts == {"k": 3, "l": 4}


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "dataset is empty"),
        (["--dataset", "d"], "output_dir is empty"),
        (["--dataset", "d", "--output_dir", "o", "--resume", "--overwrite"], "choose one"),
        (["--dataset", "d", "--output_dir", "o", "--batch_size", "0"], "batch_size must be at least 1; got 0"),
        (["--dataset", "d", "--output_dir", "o", "--objectives", "clap"], "got 'clap'. Did you mean clip"),
        (["--dataset", "d", "--output_dir", "o", "--objectives", "clip,polarity"], "Several are given with weights"),
        (["--dataset", "d", "--output_dir", "o", "--objectives", "{clip: 1}"], "'{clip: 1}' is not .*double quotes"),
        (["--dataset", "d", "--output_dir", "o", "--weight_average", "1.0"], "got 1.0"),
        (["--dataset", "d", "--output_dir", "o", "--lora_rank", "-1"], "lora_rank must be at least 0; got -1"),
        (
            ["--dataset", "d", "--output_dir", "o", "--lora_rank", "8", "--no_pretrained"],
            "8 would leave a random vision tower",
        ),
        (["--dataset", "d", "--output_dir", "o", "--target_columns", "labels", "colour"], "invalid choice: 'colour'"),
        (["--dataset", "d", "--output_dir", "o", "--balance", "upsample", "smote"], "invalid choice: 'smote'"),
        (["--dataset", "d", "--output_dir", "o", "--text_unit", "word"], "invalid choice: 'word'"),
        (["--dataset", "d", "--output_dir", "o", "--text_augmentation", "aeda"], "invalid choice: 'aeda'"),
        (["--dataset", "d", "--output_dir", "o", "--texts_per_pair", "0"], "texts_per_pair must be at least 1; got 0"),
        (["--dataset", "d", "--output_dir", "o", "--minority_share", "0.6"], r"a share in \(0, 0.5\]; got 0.6"),
        (["--dataset", "d", "--output_dir", "o", "--minority_share", "0"], r"a share in \(0, 0.5\]; got 0.0"),
        (["--dataset", "d", "--output_dir", "o", "--hub_tag", "v 2"], "hub_tag v 2 names the version .*push_to_hub"),
        (
            ["--dataset", "d", "--output_dir", "o", "--polarity_temperature", "0"],
            "polarity_temperature must be positive",
        ),
        (["--dataset", "d", "--output_dir", "o", "--power_watts", "0"], "power_watts must be positive, .*; got 0"),
        (["--dataset", "d", "--output_dir", "o", "--power_watts", "inf"], "power_watts must be .*; got inf"),
        (["--dataset", "d", "--output_dir", "o", "--carbon_intensity", "-1"], "carbon_intensity must .*; got -1"),
    ],
)
def test_settings_that_cannot_work_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        parse_arguments(PretrainArguments, words)


@pytest.mark.parametrize("off", [{"alpha": 1.0}, {"text_augmentation": "none"}, {"objectives": "clip"}])
def test_several_texts_per_pair_need_a_loss_on_them(off):
    with pytest.raises(ValueError, match="texts_per_pair 5 shows augmented texts, which only.*set texts_per_pair 1"):
        PretrainArguments(dataset="d", output_dir="o", texts_per_pair=5, **off)
    assert not PretrainArguments(dataset="d", output_dir="o", **off).shows_augmented_texts


def test_augmented_texts_are_shown_to_the_objectives_that_read_them():
    from train.objectives import OBJECTIVES

    for name, objective in OBJECTIVES.items():
        shown = PretrainArguments(dataset="d", output_dir="o", objectives=name).shows_augmented_texts
        assert shown == ("augmented_texts" in objective.inputs)


def test_every_objective_is_a_choice():
    from train.objectives import OBJECTIVES

    with pytest.raises(ValueError, match=f"among {', '.join(OBJECTIVES)}; got 'clap'"):
        PretrainArguments(dataset="d", output_dir="o", objectives="clap")


def test_objectives_are_a_name_or_weights(tmp_path):
    config = write(tmp_path / "run.yaml", "dataset: d\noutput_dir: o\nobjectives: {lumbarclip: 1, supervised: 1e-1}\n")
    assert parse_arguments(PretrainArguments, [config]).objectives == {"lumbarclip": 1.0, "supervised": 0.1}
    one = write(tmp_path / "one.yaml", "dataset: d\noutput_dir: o\nobjectives: siglip\n")
    assert parse_arguments(PretrainArguments, [one]).objectives == {"siglip": 1.0}
    for words, expected in (
        ([], {"lumbarclip": 1.0}),
        (["--objectives", "clip"], {"clip": 1.0}),
        (["--objectives", '{"clip": 2, "gloria": 0.5}'], {"clip": 2.0, "gloria": 0.5}),
    ):
        words = ["--dataset", "d", "--output_dir", "o", *words]
        assert parse_arguments(PretrainArguments, words).objectives == expected


@pytest.mark.parametrize(
    "given, message",
    [
        ({}, "objectives is a name, or names with weights"),
        ("{}", "objectives is a name, or names with weights"),
        (["clip", "siglip"], r"names with weights.*got \['clip', 'siglip'\]"),
        (3, "names with weights.*got 3"),
        ({"clip": 0}, "weight of clip must be a positive number; got 0"),
        ({"clip": -1.0}, "weight of clip .* got -1.0"),
        ({"clip": "half"}, "weight of clip .* got 'half'"),
        ({"clip": None}, "weight of clip .* got None"),
        ({"clip": True}, "weight of clip .* got True"),
        ({"clip": float("nan")}, "weight of clip .* got nan"),
        ({"clip": float("inf")}, "weight of clip .* got inf"),
        ({"clip": 1, "CLIP": 1}, "among lumbarclip, clip.*got 'CLIP'. Did you mean clip"),
    ],
)
def test_objectives_that_cannot_be_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        PretrainArguments(dataset="d", output_dir="o", objectives=given)


def test_words_that_are_no_json_are_refused_on_the_command_line():
    with pytest.raises(ValueError, match="objectives.*{clip: 1}"):
        parse_arguments(PretrainArguments, ["--dataset", "d", "--output_dir", "o", "--objectives", "{clip: 1}"])


def test_the_former_setting_names_the_one_of_today(tmp_path):
    config = write(tmp_path / "run.yaml", "dataset: d\noutput_dir: o\nobjective: clip\n")
    with pytest.raises(ValueError, match="'objective'.*Did you mean objectives"):
        parse_arguments(PretrainArguments, [config])


@pytest.fixture
def without_packages(monkeypatch):
    """A configuration may start from a packaged tower; whether its package is installed is not asked here."""
    monkeypatch.setattr(arguments, "describe_packaged", lambda _: [])


@pytest.mark.usefixtures("without_packages")
@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_every_config_parses_and_opens_with_its_command(config):
    first_lines = config.read_text().splitlines()[:6]
    assert first_lines[0].startswith("# ")
    (script,) = re.findall(rf"accelerate launch train/(\w+)\.py train/configs/{config.name}", "\n".join(first_lines))
    arguments_class = arguments_class_of(import_module(f"train.{script}").main)
    parse_arguments(arguments_class, [str(config)])
    assert set(yaml.safe_load(config.read_text())) <= set(arguments_class.__dataclass_fields__)


def test_the_paper_configs_hold_the_paper_hyperparameters():
    """Section 4.1: 50 epochs, batch 128, AdamW 2e-5, weight decay 1e-4, 10 % warm-up, alpha 0.5, d = 256, linear."""
    for tower in ("resnet50", "vit", "swin"):
        args = parse_arguments(PretrainArguments, [str(CONFIGS[0].with_name(f"paper_{tower}.yaml"))])
        assert (args.epochs, args.batch_size, args.learning_rate) == (50, 128, 2e-5)
        assert (args.weight_decay, args.warmup_ratio, args.alpha) == (1e-4, 0.1, 0.5)
        assert (args.projection, args.projection_dim, args.image_size, args.pretrained) == ("linear", 256, 224, True)
        assert (args.text_augmentation, args.texts_per_pair) == ("both", 5)
        assert (args.balance, args.minority_share) == (["upsample"], pytest.approx(1890 / 11760, abs=1e-4))
        assert args.text == "emilyalsentzer/Bio_ClinicalBERT"


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            {"freeze": ["text"], "pretrained": False},
            "freeze text would leave a random text tower random.*init_checkpoint",
        ),
        ({"freeze": "text", "lora_rank": 8}, "freeze keeps the text tower .* lora_rank 8 would adapt it: .*vision"),
        ({"freeze": ["text"], "lora_rank": 8, "lora_towers": ["text"]}, "lora_rank 8 would adapt it"),
        ({"freeze": ["vision"]}, "freeze must be .*vision"),
        ({"freeze_vision_layers": -1}, "freeze_vision_layers must be at least 0; got -1"),
        ({"freeze_vision_layers": 2, "pretrained": False}, "would leave random layers random.*init_checkpoint"),
        ({"freeze_vision_layers": 2, "lora_rank": 8}, "keeps layers that lora_rank 8 would adapt"),
        ({"lora_towers": ["text"]}, "lora_towers text names what lora_rank adapts, and lora_rank is 0"),
        ({"lora_rank": 8, "lora_towers": []}, "no tower to adapt"),
        (
            {"lora_rank": 8, "lora_towers": ["text"], "pretrained": False},
            "leave a random text tower random.*lora_towers",
        ),
    ],
)
def test_a_tower_is_frozen_or_adapted_where_that_makes_sense(settings, message):
    with pytest.raises(ValueError, match=message):
        PretrainArguments(dataset="d", output_dir="o", **settings)


def test_one_tower_may_be_frozen_and_the_other_adapted():
    args = parse_arguments(PretrainArguments, ["--dataset", "d", "--output_dir", "o", "--freeze", "text"])
    assert args.freeze == ["text"] and args.lora_towers == ["vision", "text"]
    one = PretrainArguments(dataset="d", output_dir="o", freeze=["text"], lora_rank=8, lora_towers="vision")
    assert (one.freeze, one.lora_towers) == (["text"], ["vision"])
    assert PretrainArguments(dataset="d", output_dir="o", freeze="none").freeze == []
    PretrainArguments(dataset="d", output_dir="o", freeze=["text"], pretrained=False, init_checkpoint="runs/demo")


TEXT = "packaged:all-MiniLM-L6-v2"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The metadata of the packages, without their files."""
    for tower in TOWERS.values():
        about = tmp_path / f"{tower.package.replace('-', '_')}-0.1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {tower.package}\nVersion: 0.1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize(
    "settings", [{"freeze": ["text"]}, {"lora_rank": 8, "lora_towers": ["text"]}, {"layer_decay": 0.5}]
)
def test_a_packaged_text_tower_may_be_kept_or_adapted_beside_a_random_vision_tower(installed, settings):
    args = PretrainArguments(dataset="d", output_dir="o", pretrained=False, text=TEXT, **settings)
    assert args.is_pretrained("text") and not args.is_pretrained("vision")


def test_the_random_tower_beside_a_packaged_one_is_not_adapted(installed):
    with pytest.raises(ValueError, match="leave a random vision tower random.*leave it out of lora_towers"):
        PretrainArguments(dataset="d", output_dir="o", pretrained=False, text=TEXT, lora_rank=8)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"text": "packaged:MiniLM"}, "Did you mean packaged:all-MiniLM-L6-v2"),
        ({"vision": TEXT}, f"is a text tower: set --text {TEXT}"),
    ],
)
def test_a_packaged_tower_is_looked_up_before_anything_is_loaded(installed, settings, said):
    with pytest.raises(ValueError, match=said):
        PretrainArguments(dataset="d", output_dir="o", **settings)
    PretrainArguments(dataset="d", output_dir="o", init_checkpoint="runs/demo/checkpoint", **settings)  # not read


@pytest.mark.parametrize("factor", [0, 1.5, -0.5, float("nan")])
def test_a_factor_that_is_none_is_told(factor):
    with pytest.raises(ValueError, match=r"layer_decay is a factor in \(0, 1\], such as 0.75; got"):
        PretrainArguments(dataset="d", output_dir="o", layer_decay=factor)
