"""The metrics of a model card: every number from a file, tables and metadata as measured."""

import json
import re
from pathlib import Path

import pytest
from accelerate import Accelerator
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results
from jinja2 import Environment
from jinja2.meta import find_undeclared_variables

from data_scripts.hub.upload import paths_of_this_machine
from tests.hub_card_rules import card_errors
from tests.train.reporting.card.card_tracing import REPO, numbers_in, prose, read_run, untraceable
from tests.train.reporting.card.made_run import BASELINES, Numbers, change, made_run, started_from
from train.reporting.card import model_card
from train.reporting.card.model_card import TEMPLATE, build_model_card
from train.reporting.card.tables import ZERO_SHOT
from train.reporting.card.values import card_values
from train.reporting.rendering import FILTERS
from train.reporting.run_report import MODEL, SYSTEM_NAMES
from train.reporting.tables import readable
from train.training.history import read_history, training_seconds
from train.training.run_folder import keep_history

RUNS = Path(__file__).parent / "runs"  # files of real runs, without the weights


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


@pytest.mark.parametrize("name", ["demo", "spider", "spider_classifier"])
def test_every_number_of_a_real_run_comes_from_its_files(name, monkeypatch):
    folder, asked = RUNS / name, []
    monkeypatch.setattr(model_card, "check_same_weights", lambda checkpoint, digest: asked.append(digest))
    card = build_model_card(folder, REPO)
    assert len(numbers_in(prose(str(card)))) > 100
    assert untraceable(str(card), folder) == set()
    assert untraceable(str(card).replace("## Limits", "## Limits\n\nAt 0.98765."), folder) == {"0.98765"}
    metrics = json.loads((folder / "metrics.json").read_text())
    assert asked == [metrics["weights_sha256"]]  # that of the weights, which are not kept here
    protocols = {
        "image-classification": metrics["by_system"]["fine_tuned"]
        if "by_system" in metrics
        else metrics["linear_probe"],
        "zero-shot-image-classification": metrics.get("zero_shot", {}),
        "information-retrieval": metrics.get("retrieval", {}),
    }
    measured = [
        (task, readable(figure), round(entry["value"], 4))
        for task, entries in protocols.items()
        for figure, entry in entries.items()
        if entry["value"] is not None and "chance" not in figure
    ]
    (index,) = ModelCard(str(card)).data.to_dict()["model-index"]
    told = [
        (result["task"]["type"], metric["name"], metric["value"])
        for result in index["results"]
        for metric in result["metrics"]
    ]
    assert sorted(told) == sorted(measured) and len(told) > 15
    assert {(result["dataset"]["type"], result["dataset"]["split"]) for result in index["results"]} == {
        (metrics["dataset"]["name"], "test")
    }
    assert card_errors(str(card), "model") == []


def test_a_run_that_was_not_timed_explains_no_time_of_zero():
    assert untraceable("Time: 0.0 h.", RUNS / "spider_classifier") == {"0.0"}


def test_real_runs_are_kept_without_answers_of_patients_and_paths_of_a_machine():
    files = [path for path in RUNS.rglob("*") if path.is_file()]
    assert {path.name for path in files} <= {
        "run.json",
        "metrics.json",
        "history.jsonl",
        "config.json",
        "processor_config.json",
        "preprocessor_config.json",
    }
    for path in files:
        text = path.read_text()
        assert paths_of_this_machine(text) == []
        documents = text.splitlines() if path.suffix == ".jsonl" else [text]
        assert max(map(longest_list, map(json.loads, documents))) <= 8  # no list is of rows or patients


def longest_list(content):
    inner = content.values() if isinstance(content, dict) else content if isinstance(content, list) else []
    return max([len(content) if isinstance(content, list) else 0, *map(longest_list, inner)])


def test_no_number_is_the_cards_own(tmp_path):
    first, second = (str(build_model_card(made_run(tmp_path / str(at), start=at), REPO)) for at in (0, 450))
    same_in_both_runs = {"2031-01-30", "2031-01-31", "2031-02-01", "2030", "3", "78", "20", "30", "83"}
    recall_at = {"1", "5"}
    assert numbers_in(prose(first)) & numbers_in(prose(second)) == same_in_both_runs | recall_at | {"95"}


def test_template_has_no_number_and_no_idle_placeholder(tmp_path):
    template = TEMPLATE.read_text()
    without_code = re.sub(r"{{.*?}}|{%.*?%}", "", prose(template), flags=re.DOTALL)
    assert numbers_in(without_code) == set()
    known = set(card_values(read_run(made_run(tmp_path)), REPO))
    environment = Environment()
    environment.filters.update(FILTERS)
    assert known == find_undeclared_variables(environment.parse(template))


@pytest.mark.parametrize(
    ("findings", "columns"),
    [
        (False, ["macro_f1", "balanced_accuracy", "grade_quadratic_kappa", "ordinal_grade_quadratic_kappa"]),
        (True, ["macro_auroc", "grade_quadratic_kappa", "ordinal_grade_quadratic_kappa"]),
    ],
)
def test_headline_sets_controls_beside_the_model(tmp_path, findings, columns):
    folder = made_run(tmp_path, findings=findings)
    metrics = json.loads((folder / "metrics.json").read_text())
    results = str(build_model_card(folder, REPO)).partition("## Results")[2].partition("<details>")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in results.splitlines() if line[:1] == "|"]
    table = {name: cells for name, *cells in rows[2:]}
    probes = {MODEL: metrics["linear_probe"], ZERO_SHOT: metrics["zero_shot"]}
    single = metrics["further"]["zero_shot/single_wordings"]
    probes |= {
        f"{ZERO_SHOT}, {words}": {columns[0]: single[f"macro_{'auroc' if findings else 'f1'}_{spread}"]}
        for words, spread in (("one wording on average", "mean"), ("the worst wording", "worst"))
    }
    probes[f"{ZERO_SHOT}, one wording on average"] |= metrics["further"]["polarity"]
    columns = [*columns, "polarity_accuracy"]
    probes |= {SYSTEM_NAMES[name]: metrics["baselines"][name]["linear_probe"] for name in BASELINES}
    assert list(table) == list(probes)
    for system, entries in probes.items():
        shown = [
            "{value:.3f} [{low:.3f}, {high:.3f}]".format(**entries[name]) if name in entries else "-"
            for name in columns
        ]
        assert table[system] == shown


def test_the_card_says_what_was_asked_and_how_much_the_wording_matters(tmp_path):
    folder = made_run(tmp_path, findings=True)
    metrics = json.loads((folder / "metrics.json").read_text())
    results = str(build_model_card(folder, REPO)).partition("## Results")[2].partition("## Calibration")[0]
    front, _, folded = results.partition("<details>")
    said = "Each class was asked in 1 statement (“disc bulging present.”) and 1 denial (“No disc bulging present.”)"
    assert said in front and "embed alike" not in front
    entry = metrics["further"]["polarity"]["polarity_accuracy/disc bulging"]
    row = "{value:.3f} [{low:.3f}, {high:.3f}]".format(**entry)
    cosine = metrics["statement_cosines"]["disc bulging"]
    assert re.search(rf"\| disc bulging +\| +{re.escape(row)} \| +{cosine:.3f} \|", folded)
    spread = metrics["further"]["zero_shot/single_wordings"]["macro_auroc_standard_deviation"]["value"]
    assert f"{spread:.3f}" in folded and "Unseen wordings" in folded
    change(folder, "metrics.json", statement_cosines={"disc bulging": 0.9991, "spondylolisthesis": 0.4})
    front = str(build_model_card(folder, REPO)).partition("## Results")[2].partition("<details>")[0]
    assert "Statement and denial embed alike (cosine): disc bulging 0.999." in front


def test_the_card_says_how_well_prompts_tell_the_grade(tmp_path):
    folder = made_run(tmp_path, findings=True)
    metrics = json.loads((folder / "metrics.json").read_text())
    by_probe = metrics["linear_probe"]["grade_quadratic_kappa"]
    for at, name in enumerate(("prompts", "fusion")):
        entry = {**by_probe, "value": 0.7111 + at / 1000}
        metrics["further"][f"grade_by/{name}"] = {"quadratic_kappa": entry, "accuracy": entry}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    front = str(build_model_card(folder, REPO)).partition("## Results")[2].partition("<details>")[0]
    (prompts,) = (line for line in front.splitlines() if line.startswith("| LumbarCLIP, zero-shot  "))
    (fused,) = (line for line in front.splitlines() if line.startswith("| LumbarCLIP, image and text fused "))
    assert "0.711 [" in prompts and "0.712 [" in fused and "*Image and text fused*: " in front


def test_the_card_says_how_long_a_report_may_be(tmp_path):
    folder = made_run(tmp_path)
    change(folder, "checkpoint/processor_config.json", text_kwargs={"max_length": 97})
    assert "reports of at most\n97 tokens" in str(build_model_card(folder, REPO))


def test_a_card_of_older_metrics_says_nothing_of_wordings(tmp_path):
    folder = made_run(tmp_path)
    metrics = json.loads((folder / "metrics.json").read_text())
    for name in ("unseen_wordings", "statement_cosines"):
        del metrics[name]
    kept = {"calibration/zero_shot": metrics["further"]["calibration/zero_shot"]}
    (folder / "metrics.json").write_text(json.dumps(metrics | {"further": kept}))
    results = str(build_model_card(folder, REPO)).partition("## Results")[2].partition("## Calibration")[0]
    assert "**Prompts** of the zero-shot metrics" in results
    assert "nseen" not in results and "olarity" not in results and "one wording" not in results


def test_prompts_that_are_the_unseen_wordings_are_listed_once(tmp_path):
    folder = made_run(tmp_path)
    unseen = json.loads((folder / "metrics.json").read_text())["unseen_wordings"]
    change(folder, "metrics.json", prompts={label: {"present": of["present"]} for label, of in unseen.items()})
    card = str(build_model_card(folder, REPO))
    assert card.count("LBP present.”;") + card.count("LBP present.” against") == 1


def test_calibration_is_told_as_measured(tmp_path):
    folder = made_run(tmp_path, findings=True)
    entries = json.loads((folder / "metrics.json").read_text())["further"]["calibration/zero_shot"]
    section = str(build_model_card(folder, REPO)).partition("## Calibration")[2].partition("## Training")[0]
    answered = "{value:.3f} [{low:.3f}, {high:.3f}]".format(**entries["class_conditional/answered"])
    assert re.search(rf"answered \(one choice in the set\) +\| {re.escape(answered)}", section)
    assert "83 % of cases" in " ".join(section.split())
    assert "spondylolisthesis: no validation patient has it" in section
    change(folder, "metrics.json", further={})
    assert "on other patients was not measured" in str(build_model_card(folder, REPO)).partition("## Calibration")[2]


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


def test_classifier_tells_its_own_figures(tmp_path):
    folder, numbers = made_run(tmp_path), Numbers(500)
    metrics = json.loads((folder / "metrics.json").read_text())
    names = ("macro_f1", "balanced_accuracy")
    by_system = {name: numbers.entries(*names) for name in ("fine_tuned", "linear_probe", "majority")}
    of_classifier = {
        **{name: metrics[name] for name in ("dataset", "weights_sha256", "command", "date")},
        "by_system": by_system,
        "difference": numbers.entries("macro_f1"),
        "patients": numbers.entries(*names),
        "calibration": metrics["further"]["calibration/zero_shot"],
    }
    (folder / "metrics.json").write_text(json.dumps(of_classifier))
    classes = {"id2label": {"0": "LBP", "1": "No Finding"}, "class_temperatures": [0.611, 0.622], "calibration": None}
    change(folder, "checkpoint/config.json", architectures=["LumbarCLIPForImageClassification"], **classes)
    arguments = {"dataset": "made", "allow_leaks": False, "checkpoint": "someone/base", "loss": "focal"}
    numeric = {"batch_size": 13, "gradient_accumulation_steps": 1, "learning_rate": 0.1, "seed": 0}
    change(
        folder,
        "run.json",
        arguments=arguments | numeric,
        start={"checkpoint": "someone/base", "is_folder": False, "rows": "same"},
    )
    (folder / "checkpoint" / "processor_config.json").unlink()
    (folder / "checkpoint" / "preprocessor_config.json").write_text('{"size": {"height": 64, "width": 64}}')
    card = build_model_card(folder, REPO)
    assert card.data.pipeline_tag == "image-classification" and card.data.base_model == ["someone/base"]
    fine_tuned = by_system["fine_tuned"]
    shown = "{value:.3f} [{low:.3f}, {high:.3f}]".format(**fine_tuned["macro_f1"])
    assert re.search(rf"\| fine-tuned +\| {re.escape(shown)}", card.text)
    assert {one.metric_value for one in card.data.eval_results or []} == {fine_tuned[name]["value"] for name in names}
    assert "LBP 0.611, No Finding 0.622" in card.text and 'pipeline("image-classification", repo' in card.text
    assert not re.search("zero-shot|by prompts|Retrieval|encoder|pairs", card.text)
    assert "updates of 39 images" in card.text
    assert untraceable(str(card), folder) == set()


@pytest.mark.parametrize("cross_attention", ["patch", "none"])
def test_the_card_of_a_segmentation_model(tmp_path, cross_attention):
    folder = made_run(tmp_path)
    metrics = json.loads((folder / "metrics.json").read_text())
    entries = {
        "macro_dice": {"value": 0.901, "low": 0.88, "high": 0.92, "n": 9},
        "dice/disc": {"value": 0.871, "low": 0.85, "high": 0.89, "n": 9},
        "hausdorff_95_pixels/disc": {"value": None, "low": None, "high": None, "n": 0, "reason": "no disc was found"},
    }
    measured = {name: metrics[name] for name in ("dataset", "weights_sha256", "command", "date")}
    measured |= {"metrics": entries, "resolution_limit": entries, "classes": ["disc"]}
    (folder / "metrics.json").write_text(json.dumps(measured))
    names = {"0": "background", "1": "disc"}
    fields = {"id2label": names, "cross_attention": cross_attention, "calibration": None, "class_temperatures": None}
    change(folder, "checkpoint/config.json", architectures=["LumbarCLIPForSemanticSegmentation"], **fields)
    card = build_model_card(folder, REPO)
    assert card.data.pipeline_tag == "image-segmentation"
    assert {one.metric_value for one in card.data.eval_results or []} == {0.901, 0.871}
    assert "0.901 [0.880, 0.920]" in card.text and 'pipeline("image-segmentation", repo' in card.text
    assert "a decoder that segments disc" in card.text and "probabilities of pixels are not calibrated" in card.text
    assert ("prompts=[" in card.text) == (cross_attention == "patch")
    assert not re.search("zero-shot|by prompts|Retrieval|projection heads|pairs", card.text)


def made_experiment():
    """A small `results.json`: two systems and a baseline by the headline metric."""
    group, metric = "probe/logistic/unprojected", "macro_f1"
    entry = {"value": 0.611, "low": 0.601, "high": 0.621, "n": 9}
    pair = {"value": -0.031, "low": -0.041, "high": -0.021, "n": 9, "p": 0.011, "p_holm": 0.022, "excludes_zero": True}
    system = {"metrics": {group: {metric: entry}}}
    compared = {"first": "LumbarCLIP", "group": group, "metric": metric, "num_comparisons": 1}
    return {
        "experiment": {"name": "small", "seeds": [0, 1]},
        "headline": {"group": group, "metric": metric, "reference": "LumbarCLIP"},
        "systems": {"LumbarCLIP": system, "CLIP": system},
        "baselines": {"hog": system},
        "comparisons": [
            {"to": "best", "tied": [], **compared, "differences": {"CLIP": pair}},
            {"to": "systems", **compared, "differences": {"CLIP": pair}},
            {"to": "baselines", **compared, "differences": {"hog": pair}},
        ],
        "dataset": {"name": "t", "split": "test", "num_rows": 9, "num_patients": 3, "synthetic": False},
        "command": "python train/compare_systems.py small.yaml",
        "date": "2031-02-02T01:02:03+00:00",
    }


def test_an_experiment_is_told_as_other_runs(tmp_path):
    folder = made_run(tmp_path / "run")
    (tmp_path / "results.json").write_text(json.dumps(made_experiment()))
    text = build_model_card(folder, REPO, experiment_folder=tmp_path).text
    words = " ".join(text.split())
    assert "not with these weights: `small` on t, test: 9 images of 3 patients; 2 seeds." in words
    assert "`python train/compare_systems.py small.yaml`, 2031-02-02" in words
    shown, difference = r"0\.611 \[0\.601, 0\.621\]", r"-0\.031 \[-0\.041, -0\.021\]"
    for system in ("CLIP", "HOG"):
        assert re.search(rf"\| {system} +\| {shown} \| +{difference} \| 0\.011 \| +0\.022 \|", text)


@pytest.mark.parametrize(("processes", "said"), [(1, "1 process, 2 threads, "), (3, "3 processes, 2 threads each, ")])
def test_training_is_told_in_words(tmp_path, processes, said):
    folder = change(made_run(tmp_path), "run.json", num_processes=processes, num_threads=2)
    words = " ".join(build_model_card(folder, REPO).text.split())
    assert said in words and "Trained from random weights on the dataset `made` with the objective" in words


def test_energy_and_carbon_follow_from_time_power_and_grid(tmp_path):
    """By hand: 10 updates of 78 pairs at 78 a second and 10 at 39 are 30 s; 360 W for 30 s are 3 Wh."""
    folder = change(made_run(tmp_path), "run.json", arguments__power_watts=360.0)
    card = build_model_card(folder, REPO)
    assert "carbon were not measured" in card.text and "co2_eq_emissions" not in card.data.to_dict()
    change(folder, "run.json", arguments__carbon_intensity=250.0)
    card = build_model_card(folder, REPO)
    words = " ".join(card.text.split())
    assert "Time: 30 s" in words and "Energy: 0.003 kWh, computed: 360 W, as given for the whole machine" in words
    assert "Carbon: 0.75 g CO2eq, computed: at 250 g CO2eq per kWh" in words and "not measured" not in words
    emissions = ModelCard(str(card)).data.to_dict()["co2_eq_emissions"]
    assert list(emissions) == ["emissions", "source", "training_type", "hardware_used"]
    assert emissions["emissions"] == 0.75 and emissions["training_type"] == "pre-training"
    assert "cpu (x86_64): 3 processes" in emissions["hardware_used"] and "not metered" in emissions["source"]
    assert card_errors(str(card), "model") == [] and untraceable(str(card), folder) == {"0.003", "0.75"}
    started_from(folder, "someone/base")
    assert build_model_card(folder, REPO).data.to_dict()["co2_eq_emissions"]["training_type"] == "fine-tuning"
    (folder / "history.jsonl").write_text('{"update": 20, "loss": 1.0}\n')  # of a run that was not timed
    assert "carbon were not measured" in build_model_card(folder, REPO).text


def test_the_time_of_a_resumed_run_counts_each_update_once(tmp_path):
    """Interrupted at update 25, it went on from the state of update 20: by hand, 60 pairs at 6, 3 and 2 a second."""
    path = tmp_path / "history.jsonl"
    speeds = {10: 6.0, 20: 3.0, 25: 1.0}
    path.write_text("".join(f'{{"update": {at}, "pairs_per_second": {speed}}}\n' for at, speed in speeds.items()))
    keep_history(path, 20, Accelerator(cpu=True))
    with path.open("a") as history:
        history.write('{"update": 30, "pairs_per_second": 2.0}\n')
    assert training_seconds(read_history(tmp_path), pairs_of_update=6) == 10 + 20 + 30


LINE = '{"update": 10, "loss": 1.0, "pairs_per_second": 6.0}'


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"update": 20, "lo', "Unterminated string"),
        ("null", "no integer `update`"),
        ("5", "no integer `update`"),
        ('{"loss": 1.0}', "no integer `update`"),
        ('{"update": NaN}', "no integer `update`"),
        ('{"update": 20, "loss": NaN}', "its loss is nan"),
        ('{"update": 20, "validation_loss": null}', "its validation_loss is None"),
        ('{"update": 20, "pairs_per_second": NaN}', "its pairs_per_second is nan"),
        ('{"update": 20, "pairs_per_second": 1e999}', "its pairs_per_second is inf"),
        ('{"update": 20, "pairs_per_second": 0}', "its pairs_per_second is 0, which is not above 0"),
    ],
)
def test_a_damaged_history_is_told_by_line(tmp_path, line, said):
    folder = made_run(tmp_path)
    (folder / "history.jsonl").write_text(f"{LINE}\n{line}\n")
    message = rf"history\.jsonl, line 2, is not an update of a run \(.*{said}.*complete copy.*updates, time and energy"
    with pytest.raises(ValueError, match=message):
        build_model_card(folder, REPO)


def test_the_history_of_a_run_that_diverged_is_read(tmp_path):
    """A step may have made the temperature NaN before a loss stopped the run; a study still tells its updates."""
    (tmp_path / "history.jsonl").write_text(f'{LINE[:-1]}, "inverse_temperature": NaN}}\n')
    assert training_seconds(read_history(tmp_path), pairs_of_update=6) == 10
