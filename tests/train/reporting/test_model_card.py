"""The model card: every number from a file, warnings in front, metadata that the Hub reads, code that runs."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from jinja2 import Environment
from jinja2.meta import find_undeclared_variables
from PIL import Image

from modeling_lumbarclip import LumbarCLIPModel
from modeling_lumbarclip.export import weights_sha256
from tests.hub_card_rules import card_errors
from tests.train.reporting.made_run import CONTROLS, Numbers, change, made_calibration, made_run
from train.checkpoints import save_checkpoint
from train.evaluation.bootstrap import percentile_estimate
from train.reporting.card_tables import ZERO_SHOT
from train.reporting.card_values import OF_THE_PLACE, card_values
from train.reporting.model_card import TEMPLATE, RunFiles, build_model_card, fill_template
from train.reporting.report import MODEL, SYSTEM_NAMES

REPO = "someone/made-model"
NUMBER = re.compile(r"\d{4}-\d\d-\d\d|(?<![\w.-])-?\d+(?:\.\d+)*(?![\w-])")
STUDY = Path(__file__).parents[2] / "benchmarks" / "results"


def prose(card: str) -> str:
    """The card without metadata, blocks of code, addresses and the numbers of the paper in the arXiv."""
    text = re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL)
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"https?://\S+|arXiv \d+\.\d+", "", text)


def numbers_in(text: str) -> set[str]:
    return set(NUMBER.findall(text))


def numbers_of(content: Any) -> set[str]:
    """Every number of a JSON value as a card may write it; those in its strings and keys, too."""
    if isinstance(content, dict):
        keys = {number for key in content for number in re.findall(r"\d+", key)}
        return keys.union(*map(numbers_of, content.values()))
    if isinstance(content, list):
        return set().union(*map(numbers_of, content))
    if isinstance(content, str):
        return numbers_in(content)
    if isinstance(content, bool) or content is None:
        return set()
    if isinstance(content, int):
        return {str(content)}
    return {f"{content:.3f}", f"{content:g}"} | ({f"{content:.1f}"} if abs(content) >= 10 else set())


def files_of(folder: Path, processor: str = "checkpoint/processor_config.json") -> list[Any]:
    """What a card may draw on."""
    names = ["run.json", "metrics.json", "checkpoint/config.json", processor]
    lines = (folder / "history.jsonl").read_text().splitlines()
    return [json.loads((folder / name).read_text()) for name in names] + [json.loads(line) for line in lines]


def computed(folder: Path) -> set[str]:
    """Numbers that a card computes: pairs of an update, time, a share in percent, the width of the intervals."""
    run, history = json.loads((folder / "run.json").read_text()), (folder / "history.jsonl").read_text().splitlines()
    arguments = run["arguments"]
    pairs = run["num_processes"] * arguments["batch_size"] * arguments["gradient_accumulation_steps"]
    seconds, before = 0.0, 0
    for line in map(json.loads, history):
        seconds += (line["update"] - before) * pairs / line["pairs_per_second"]
        before = line["update"]
    calibration = json.loads((folder / "checkpoint" / "config.json").read_text())["calibration"]
    percent = f"{100 * calibration['target_coverage']:g}" if calibration else ""
    interval = percentile_estimate(0.0, np.arange(101.0), num_rows=2, num_patients=2)
    width = f"{interval.high - interval.low:g}"
    return {str(pairs), f"{seconds:.0f}", f"{seconds / 60:.1f}", f"{seconds / 3600:.1f}", percent, width}


def untraceable(card: str, folder: Path, *processor: str) -> set[str]:
    return numbers_in(prose(card)) - numbers_of(files_of(folder, *processor)) - computed(folder)


@pytest.mark.parametrize("findings", [False, True])
def test_every_number_comes_from_a_file(tmp_path, findings):
    folder = made_run(tmp_path, findings=findings)
    card = str(build_model_card(folder, REPO))
    assert len(numbers_in(prose(card))) > 100  # the pattern sees them
    assert untraceable(card, folder) == set()
    assert untraceable(card.replace("## Limits", "## Limits\n\nSeen by 17 readers at 0.987."), folder) == {
        "17",
        "0.987",
    }


def test_no_number_is_the_cards_own(tmp_path):
    first, second = (str(build_model_card(made_run(tmp_path / str(at), start=at), REPO)) for at in (0, 450))
    same_in_both_runs = {"2031-01-30", "2031-01-31", "2031-02-01", "2030", "3", "78", "20", "30", "83"}
    recall_at = {"1", "5"}
    assert numbers_in(prose(first)) & numbers_in(prose(second)) == same_in_both_runs | recall_at | {"95"}


def test_template_has_no_number_and_no_idle_placeholder(tmp_path):
    template = TEMPLATE.read_text()
    without_code = re.sub(r"{{.*?}}|{%.*?%}", "", prose(template), flags=re.DOTALL)
    assert numbers_in(without_code) == set()
    known = set(card_values(read(made_run(tmp_path)), REPO))
    assert known == find_undeclared_variables(Environment().parse(template))


def read(folder: Path) -> RunFiles:
    run, metrics, config, processor, *history = files_of(folder)
    return RunFiles(run, config, processor, history, metrics, None, None)


@pytest.mark.parametrize(
    ("findings", "columns"),
    [
        (False, ["macro_f1", "balanced_accuracy", "grade_quadratic_kappa"]),
        (True, ["macro_auroc", "grade_quadratic_kappa"]),
    ],
)
def test_headline_sets_controls_beside_the_model(tmp_path, findings, columns):
    folder = made_run(tmp_path, findings=findings)
    metrics = json.loads((folder / "metrics.json").read_text())
    results = str(build_model_card(folder, REPO)).partition("## Results")[2].partition("<details>")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in results.splitlines() if line[:1] == "|"]
    table = {name: cells for name, *cells in rows[2:]}
    probes = {MODEL: metrics["linear_probe"], ZERO_SHOT: metrics["zero_shot"]}
    probes |= {SYSTEM_NAMES[name]: metrics["baselines"][name]["linear_probe"] for name in CONTROLS}
    assert list(table) == list(probes)
    for system, entries in probes.items():
        shown = [
            "{value:.3f} [{low:.3f}, {high:.3f}]".format(**entries[name]) if name in entries else "-"
            for name in columns
        ]
        assert table[system] == shown


def test_calibration_is_told_as_measured(tmp_path):
    folder = made_run(tmp_path, findings=True)
    entries = json.loads((folder / "metrics.json").read_text())["further"]["calibration/zero_shot"]
    section = str(build_model_card(folder, REPO)).partition("## Calibration")[2].partition("## Training")[0]
    answered = "{value:.3f} [{low:.3f}, {high:.3f}]".format(**entries["class_conditional/answered"])
    assert re.search(rf"answered \(one choice in the set\) +\| {re.escape(answered)}", section)
    assert "83 % of cases" in " ".join(section.split())
    assert "spondylolisthesis: no validation patient has it" in section
    change(folder, "metrics.json", further={})
    assert "was not measured" in str(build_model_card(folder, REPO)).partition("## Calibration")[2]


@pytest.mark.parametrize(
    ("findings", "entry", "is_chance"),
    [
        (True, {"value": 0.6, "low": 0.5, "high": 0.7, "n": 9}, True),
        (True, {"value": 0.6, "low": 0.51, "high": 0.7, "n": 9}, False),
        (True, {"value": None, "low": None, "high": None, "n": 9, "reason": "one class"}, True),
        (False, {"value": 0.6, "low": 0.49, "high": 0.7, "n": 9}, True),
        (False, {"value": 0.6, "low": 0.51, "high": 0.7, "n": 9}, False),
    ],
)
def test_guessing_is_said_where_the_model_is_used(tmp_path, findings, entry, is_chance):
    figure = "macro_auroc" if findings else "balanced_accuracy"
    folder = change(made_run(tmp_path, findings=findings), "metrics.json", **{f"zero_shot__{figure}": entry})
    use = str(build_model_card(folder, REPO)).partition("## Use")[2].partition("## What")[0]
    assert ("no better than chance" in use) is is_chance


def test_metadata_survives_the_round_trip(tmp_path):
    folder = made_run(tmp_path)
    change(
        folder, "metrics.json", zero_shot__macro_f1={"value": None, "low": None, "high": None, "n": 9, "reason": "-"}
    )
    card = build_model_card(folder, REPO)
    index = card.data.to_dict()["model-index"]
    name, results = model_index_to_eval_results(index)
    assert eval_results_to_model_index(name, results) == index and name == "made-model"
    assert ModelCard(str(card)).data.to_dict() == card.data.to_dict() and str(ModelCard(str(card))) == str(card)
    assert card_errors(str(card), "model") == []
    metrics = json.loads((folder / "metrics.json").read_text())
    told = {(one.task_type, one.metric_name): one.metric_value for one in results}
    assert told["image-classification", "macro F1"] == metrics["linear_probe"]["macro_f1"]["value"]
    assert ("zero-shot-image-classification", "macro F1") not in told  # undefined
    assert not [name for _, name in told if "chance" in name]
    assert {(one.dataset_name, one.dataset_split, one.verified) for one in results} == {("made", "test", False)}
    assert card.data.license == "other" and card.data.pipeline_tag == "zero-shot-image-classification"
    assert card.data.base_model is None and card.data.datasets is None


LEAK = {"in_words": "7 patients in several splits (rows: train 9, test 8)."}


DRAWN = "**Synthetic data.** The images and reports that this model was"
RESTRICTED = {"data__may_be_shared": False, "data__license": "other: no redistribution"}


@pytest.mark.parametrize(
    ("file", "values", "stamp"),
    [
        ("metrics.json", {"dataset__synthetic": True}, f"{DRAWN} measured on were drawn"),
        ("run.json", {"data__synthetic": True}, f"{DRAWN} trained on were drawn"),
        ("metrics.json", {"dataset__leak": LEAK}, "**Leak.** 7 patients in several splits (rows: train 9, test 8)."),
        ("run.json", {"data__split_by": "record"}, "**Leak.** The splits are by record"),
        ("run.json", {"data__deidentification": {"passed": False, "ids": "kept"}}, "**De-identification failed.**"),
        ("run.json", {"data__deidentification": None}, "**De-identification unknown.**"),
        ("run.json", RESTRICTED, "what was made from them: no redistribution."),
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


def test_figures_of_other_data_are_not_taken_for_those_of_the_training(tmp_path):
    folder = change(made_run(tmp_path), "metrics.json", dataset__name="elsewhere")
    change(folder, "run.json", data__hub_id="someone/made")
    card = build_model_card(folder, REPO)
    assert "another data set than that of the training" in card.text
    assert {one.dataset_type for one in card.data.eval_results or []} == {"elsewhere"}
    assert card.data.datasets == "someone/made"


@pytest.mark.parametrize(
    ("name", "rows", "is_elsewhere"),
    [
        ("made", {"train": "a", "test": "c"}, False),
        ("moved", {"train": "a", "test": "c"}, False),  # the same rows in another folder
        ("made", {"train": "a", "test": "d"}, True),  # another build in a folder of the same name
        ("made", {"train": "a", "external": "e"}, True),
        ("made", None, False),
        ("moved", None, True),
    ],
)
def test_the_same_data_are_those_with_the_same_rows(tmp_path, name, rows, is_elsewhere):
    folder = change(made_run(tmp_path), "run.json", rows_sha256={"train": "a", "validation": "b", "test": "c"})
    change(folder, "run.json", data__hub_id="someone/made")
    change(folder, "metrics.json", dataset__name=name, **({"dataset__rows_sha256": rows} if rows else {}))
    card = build_model_card(folder, REPO)
    assert ("another data set than that of the training" in card.text) is is_elsewhere
    data_set = name if is_elsewhere else "someone/made"
    assert {one.dataset_type for one in card.data.eval_results or []} == {data_set}


START = {"checkpoint": "someone/base", "rows": "same"}


@pytest.mark.parametrize(
    ("checkpoint", "start", "said"),
    [
        ("", None, None),
        ("someone/base", START, None),
        (
            "someone/base",
            START | {"rows": "other"},
            "were trained on other rows of unknown overlap: they may have seen",
        ),
        ("someone/base", START | {"rows": "unknown"}, "whether they have seen these test patients is unknown"),
        ("someone/base", None, "whether they have seen these test patients is unknown"),  # an earlier run
    ],
)
def test_a_start_that_may_have_seen_the_test_patients_is_told(tmp_path, checkpoint, start, said):
    folder = change(made_run(tmp_path), "run.json", arguments__init_checkpoint=checkpoint)
    change(folder, "run.json", start=start)
    card = build_model_card(folder, REPO)
    limits, results = (
        card.text.partition(f"## {here}\n")[2].partition(f"## {there}\n")[0]
        for here, there in (("Limits", "Data"), ("Results", "Calibration and abstention"))
    )
    shown = re.compile(r"\| LumbarCLIP +\| \d")
    assert shown.search(results)
    assert ("model-index" in card.data.to_dict()) is (said is None)
    assert ("Starting weights" in limits) is ("May be too good" in results) is (said is not None)
    if said:
        assert said in limits and said in results[: shown.search(results).start()]  # type: ignore[union-attr]


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
        ("cc0-1.0", {"arguments__init_checkpoint": "a/b"}, "other", "of the data and those of the weights of `a/b`."),
        ("cc-by-4.0", {}, "other", "of the data. That of the data asks for attribution: name their source"),
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


def test_figures_of_other_weights_are_refused(tmp_path, tiny_model: LumbarCLIPModel, tiny_processor):
    folder = made_run(tmp_path)
    not_recorded = "That these are the figures of these very weights was not recorded."
    assert not_recorded in build_model_card(folder, REPO).text
    change(folder, "metrics.json", weights_sha256=weights_sha256(tiny_model))
    with pytest.raises(ValueError, match=r"checkpoint cannot be loaded, .*Unrecognized model"):
        build_model_card(folder, REPO)
    save_checkpoint(tiny_model, tiny_processor, folder / "checkpoint")
    assert not_recorded not in build_model_card(folder, REPO).text
    tiny_model.text_projection.weight.data[0, 0] += 1e-3
    save_checkpoint(tiny_model, tiny_processor, folder / "checkpoint")
    with pytest.raises(
        ValueError, match=r"metrics\.json holds figures of other weights than those in .*evaluate_model"
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


def test_run_that_recorded_nothing_of_its_data(tmp_path):
    folder = made_run(tmp_path)
    run = json.loads((folder / "run.json").read_text())
    for later in ("data", "device_name", "num_threads"):
        del run[later]
    for later in ("allow_leaks", "init_checkpoint", "lora_rank"):
        del run["arguments"][later]
    (folder / "run.json").write_text(json.dumps(run))
    card = build_model_card(folder, REPO)
    assert "Licence: not recorded." in card.text and "Leaks: not recorded." in card.text
    assert "**De-identification unknown.**" in card.text and card.data.license == "other"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{{ metadata }} {{ accuracy }} {% if false %}{{ auroc }}{% endif %}",
            "asks for accuracy, auroc, .*are: .*leak",
        ),
        ("{{ calibration.sharpness }}", r"sharpness.*Known are"),
        ("one\n{% if leak %}", r"line 2: .*(endif|end of template)"),
    ],
)
def test_template_that_cannot_be_filled(tmp_path, template, message):
    with pytest.raises(ValueError, match=message):
        fill_template(template, card_values(read(made_run(tmp_path)), REPO))


@pytest.mark.parametrize("missing", ["run.json", "checkpoint/config.json", "checkpoint/processor_config.json"])
def test_missing_file_is_named(tmp_path, missing):
    folder = made_run(tmp_path)
    (folder / missing).unlink()
    with pytest.raises(ValueError, match=re.escape(missing)):
        build_model_card(folder, REPO)


def test_nothing_of_the_machine_is_on_the_card(tmp_path):
    folder = change(
        made_run(tmp_path), "run.json", arguments__vision="/mnt/smith/towers/resnet", arguments__pretrained=True
    )
    card = str(build_model_card(folder, REPO))
    assert "smith" not in card.replace("Smith et al.", "") and "/mnt" not in card
    assert "python train/pretrain.py train/configs/made.yaml --output_dir made\n" in card
    assert "the weights of `resnet` and `emilyalsentzer/Bio_ClinicalBERT`" in " ".join(card.split())
    assert ModelCard(card).data.base_model == ["emilyalsentzer/Bio_ClinicalBERT"]


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
    folder = change(made_run(tmp_path), "run.json", arguments__init_checkpoint=base, arguments__lora_rank=8)
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
        "model.config.calibration = None  # that of the base, which does not hold with the adapters",
    ]
    # The run's own checkpoint was calibrated; its adapters do not carry that.
    assert "The checkpoint carries a temperature" in merged.text and "The checkpoint carries" not in adapter.text
    assert "set `model.config.calibration = None` after" in adapter.text
    own = "The run's checkpoint, with the adapters merged, has its own."
    assert own in " ".join(adapter.text.split())
    change(folder, "checkpoint/config.json", calibration=None)
    assert own not in " ".join(build_model_card(folder, REPO, adapter_base=(base, "0123abc")).text.split())
    assert "modeling_lumbarclip.verify" not in adapter.text  # adapters have no golden outputs of their own


def test_classifier_tells_its_own_figures(tmp_path):
    folder, numbers = made_run(tmp_path), Numbers(500)
    metrics = json.loads((folder / "metrics.json").read_text())
    names = ("macro_f1", "balanced_accuracy")
    figures = {name: numbers.entries(*names) for name in ("fine_tuned", "linear_probe", "majority")}
    of_classifier = {
        **{name: metrics[name] for name in ("dataset", "command", "date")},
        "figures": figures,
        "difference": numbers.entries("macro_f1"),
        "patients": numbers.entries(*names),
        "calibration": metrics["further"]["calibration/zero_shot"],
    }
    (folder / "metrics.json").write_text(json.dumps(of_classifier))
    classes = {"id2label": {"0": "LBP", "1": "No Finding"}, "class_temperatures": [0.611, 0.622], "calibration": None}
    change(folder, "checkpoint/config.json", architectures=["LumbarCLIPForImageClassification"], **classes)
    arguments = {"dataset": "made", "allow_leaks": False, "checkpoint": "someone/base", "loss": "focal"}
    numeric = {"batch_size": 13, "gradient_accumulation_steps": 1, "learning_rate": 0.1, "seed": 0}
    change(folder, "run.json", arguments=arguments | numeric, start=START)
    (folder / "checkpoint" / "processor_config.json").unlink()
    (folder / "checkpoint" / "preprocessor_config.json").write_text('{"size": {"height": 64, "width": 64}}')
    card = build_model_card(folder, REPO)
    assert card.data.pipeline_tag == "image-classification" and card.data.base_model == ["someone/base"]
    fine_tuned = figures["fine_tuned"]
    shown = "{value:.3f} [{low:.3f}, {high:.3f}]".format(**fine_tuned["macro_f1"])
    assert re.search(rf"\| fine-tuned +\| {re.escape(shown)}", card.text)
    assert {one.metric_value for one in card.data.eval_results or []} == {fine_tuned[name]["value"] for name in names}
    assert "LBP 0.611, No Finding 0.622" in card.text and 'pipeline("image-classification", repo' in card.text
    assert not re.search("zero-shot|by prompts|Retrieval|encoder|pairs", card.text)
    assert "updates of 39 images" in card.text
    assert untraceable(str(card), folder, "checkpoint/preprocessor_config.json") == set()


def test_study_is_told_as_other_runs(tmp_path):
    entry = {"value": 0.611, "low": 0.601, "high": 0.621, "n": 9}
    system = {"figures": {"probe/logistic/unprojected": {"macro_f1": entry}}}
    headline = {"group": "probe/logistic/unprojected", "metric": "macro_f1"}
    study = {
        "headline": headline,
        "systems": {"CLIP": system},
        "controls": {"hog": system},
        "card_text": "Study `s` on t.",
    }
    folder = made_run(tmp_path / "run")
    (tmp_path / "results.json").write_text(json.dumps(study))
    text = build_model_card(folder, REPO, study_folder=tmp_path).text
    assert "not of these very weights: Study `s` on t." in text
    assert re.search(r"\| CLIP +\| 0\.611 \[0\.601, 0\.621\] \|\n\| HOG ", text)


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
