"""An experiment's report from made-up answers: its tables, what it leaves out, its page."""

import json
import re

import numpy as np
import pytest

from tests.train.experiments.made_experiment import (
    by_seed,
    class_answers,
    exclusive_targets,
    finding_answers,
    finding_targets,
    retrieval_answers,
    summary,
    system,
)
from train.evaluation.statistics.bootstrap import Resampling
from train.experiments.results import measure_experiment
from train.reporting.experiment.charts import draw_charts, systems_by_head
from train.reporting.experiment.protocol_sections import cost_section
from train.reporting.experiment.report import experiment_report, write_report
from train.reporting.figures.experiment import cost_chart
from train.reporting.figures.paper import TABLE_2, paper_row

HEADLINE = "probe/paper/unprojected"


def described(answers, targets, systems, summaries=(), baselines=None, seeds=(0,), folds=None):
    asked = (by_seed(answers), baselines or {}, targets, summaries, Resampling(60), "paper/unprojected", systems)
    results = measure_experiment(*asked)
    labels = {name: {"rows": 3, "patients": 2} for name in targets.label_names}
    of_data = {"name": "made", "split": "test", "num_rows": 24, "num_patients": 8, "leak": None, "synthetic": True}
    results |= {
        "experiment": {"name": "tiny", "description": "Does it work?", "seeds": list(seeds), "folds": folds},
        "dataset": of_data | {"labels": labels},
        "command": "accelerate launch train/compare_systems.py tiny.yaml",
        "date": "2026-11-22T10:00:00+00:00",
        "left_out_answers": {},
    }
    return json.loads(json.dumps(results, allow_nan=False))


@pytest.fixture(scope="module")
def whole():
    """An experiment with everything: three seeds, heads, remedies, patients, a baseline, a diverged system."""
    probabilities = class_answers(wrong=[0, 20])[HEADLINE]
    more = {
        "probe/paper_balanced/unprojected": probabilities,
        "probe/knn/projected": probabilities,
        "calibrated/paper/unprojected": probabilities,
        "zero_shot": probabilities,
        "patient_attention": probabilities,
        **retrieval_answers(np.arange(24) % 12 + 1),
    }
    answers = {
        "LumbarCLIP": [class_answers(wrong=[row], **more) for row in (0, 3, 20)],
        "LumbarCLIP 64": [class_answers(wrong=[row, 1], **more) for row in (0, 3, 20)],
        "No heads": [class_answers(wrong=[row, 1, 2], **more) for row in (0, 3, 20)],
        "No heads, ViT": [class_answers(wrong=[row, 1, 2], **more) for row in (0, 3, 20)],
        "MedCLIP": [class_answers(wrong=range(row, row + 9), **more) for row in (0, 3, 12)],
        "SigLIP": [],
    }
    systems = {
        "LumbarCLIP": system(),
        "LumbarCLIP 64": system(projection_dim=64),
        "No heads": system(projection="none"),
        "No heads, ViT": system(projection="none", vision="vit_tiny"),
        "MedCLIP": system("medclip", "swin_tiny_patch4_window7_224"),
        "SigLIP": system("siglip"),
    }
    summaries = [
        summary(title, seed, seconds=5.0 + seed) for title in answers if title != "SigLIP" for seed in range(3)
    ]
    summaries += [summary("SigLIP", seed, "diverged", "loss <nan> at `update` 3 | bad") for seed in range(3)]
    baselines = {"hog": class_answers(wrong=range(5))}
    return described(answers, exclusive_targets(), systems, summaries, baselines, seeds=(0, 1, 2))


def table_row(report, heading, start):
    section = report.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    line = next(line for line in section.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))]


def test_tables_say_what_the_results_say(whole):
    report = experiment_report(whole, [])
    entry = whole["systems"]["MedCLIP"]["metrics"][HEADLINE]
    row = table_row(report, "As in Table 2 of the paper", "MedCLIP")
    accuracy = entry["accuracy"]
    assert row[1] == f"{100 * accuracy['value']:.1f} [{100 * accuracy['low']:.1f}, {100 * accuracy['high']:.1f}]"
    assert row[5:] == ["MedCLIP-ViT", "82.94", "90.59"]
    assert f"{entry['macro_f1']['value']:.3f}" in table_row(report, "Systems", "MedCLIP")[1]
    assert table_row(report, "Systems", "MedCLIP")[-1] == f"{entry['macro_f1']['standard_deviation_of_seeds']:.3f}"
    assert table_row(report, "Systems", "SigLIP (0 of 3 runs)")[1] == "-"
    assert table_row(report, "Systems", "HOG")[1].startswith("0.7")
    assert table_row(report, "Differences", "LumbarCLIP − MedCLIP")[2] in ("yes", "no")
    assert table_row(report, "Retrieval", "chance")[1] == f"{1 / 24:.3f}"
    assert table_row(report, "Cost", "MedCLIP")[1:] == ["3 of 3", "10", "320", "6.0", "64"]
    assert table_row(report, "Runs that did not finish", "SigLIP")[3:] == [
        "diverged",
        r"`loss <nan> at 'update' 3 \| bad`",
    ]
    assert table_row(report, "Projection heads, as in figures 3 and 4 of the paper", "ViT")[1:3] == ["none", "-"]


def test_the_report_warns_names_the_winner_and_marks_what_is_the_papers(whole):
    report = experiment_report(whole, [])
    assert report.startswith("# Experiment `tiny`\n\nResearch use only")
    assert "The images and reports are synthetic" in report and "mean over 3 seeds" in report
    assert "**LumbarCLIP** has the highest macro F1" in report
    assert "**The last columns are the paper's own figures**" in report and "an accuracy of 87.50" in report
    assert report.index("Who wins") < report.index("## Systems")
    assert report.rstrip().endswith("2026-11-22T10:00:00+00:00")


def test_sections_without_anything_to_show_are_left_out():
    targets = finding_targets()
    answers = {"LumbarCLIP": [finding_answers(targets)], "CLIP": [finding_answers(targets, seed=1)]}
    systems = {"LumbarCLIP": system(), "CLIP": system("clip")}
    results = described(answers, targets, systems, [summary(title) for title in answers], folds=2)
    report = experiment_report(results, [])
    headings = re.findall(r"^## (.*)$", report, flags=re.M)
    assert headings == ["Systems", "Differences", "Findings", "Patients", "Cost", "Undefined figures", "Command"]
    assert "2 folds of the patients; one seed" in report
    assert "SD of seeds" not in report and "grade quadratic kappa" in report
    assert table_row(report, "Findings", "Modic change")[2:] == ["undefined", "undefined"]
    assert "`auroc/Modic change`: `Modic change` has 0 positive rows of 24 in the test split." in report
    assert set(draw_charts(results)) == {"systems.png", "differences.png", "cost.png"}


def test_seconds_are_whole_from_ten_on_and_the_last_mark_of_the_cost_chart_is_whole():
    costs = {name: {"seconds": seconds} for name, seconds in (("a", 2.34), ("b", 1234.5), ("c", None))}
    of_all = {"num_runs": 1, "num_finished": 1, "updates": 4, "pairs_seen": 3200, "pairs_per_second": 5.5}
    table = cost_section({"systems": {name: {"cost": of_all | cost} for name, cost in costs.items()}})
    assert [line.split("|")[5].strip() for line in table.splitlines()[-3:]] == ["2.3", "1,234", "-"]
    entry = {"value": 0.5, "low": None, "high": None}
    axes = cost_chart({"a": (100.0, entry), "b": (100.1, entry)}, "a", "score", "title").axes[0]
    assert axes.get_xlim() == pytest.approx((0, 1.05 * 100.1))


def test_the_page_needs_nothing_beside_it(whole, tmp_path):
    write_report(whole, tmp_path)
    drawn = {path.name for path in (tmp_path / "figures").iterdir()}
    assert drawn == {"systems.png", "differences.png", "no_heads.png", "heads.png", "reliability.png", "cost.png"}
    report, page = ((tmp_path / name).read_text() for name in ("report.md", "report.html"))
    assert set(re.findall(r"\(figures/(.*?)\)", report)) == drawn
    assert page.count('src="data:image/png;base64,iVBOR') == len(drawn)
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert page.count("<table>") == report.count("|:---") and "width=device-width" in page
    assert "loss &lt;nan&gt; at 'update' 3" in page  # an error's angle brackets are not HTML
    write_report(whole, tmp_path)  # again, over the old one
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_heads_are_arranged_by_kind_backbone_and_width(whole):
    arranged = systems_by_head(whole)
    assert {head: {name: list(of) for name, of in widths.items()} for head, widths in arranged.items()} == {
        "linear": {"ResNet": ["128", "64"]},
        "none": {"ResNet": ["128"], "ViT": ["128"]},
    }
    charts = draw_charts(whole)
    ticks = [label.get_text() for label in charts["heads.png"].axes[0].get_xticklabels()]
    assert ticks == ["64", "128"]
    line = charts["heads.png"].axes[0].lines[-1]
    figures = arranged["linear"]["ResNet"]
    assert sorted(line.get_ydata()) == sorted(figures[width]["accuracy"]["value"] for width in ("64", "128"))


@pytest.mark.slow
def test_undefined_and_uncertain_figures_can_be_drawn(whole):
    results = json.loads(json.dumps(whole))
    figures = results["systems"]["MedCLIP"]["metrics"][HEADLINE]["macro_f1"]
    figures |= {"value": None, "low": None, "high": None, "reason": "no row"}
    results["systems"]["No heads"]["metrics"][HEADLINE]["macro_f1"] |= {"low": None, "high": None}
    charts = draw_charts(results)
    names = [label.get_text() for label in charts["systems.png"].axes[0].get_yticklabels()]
    assert "MedCLIP" not in names and names[-1] == "HOG"
    for figure in charts.values():
        figure.draw_without_rendering()


@pytest.mark.parametrize(
    ("settings", "row"),
    [
        (system(vision="resnet50", projection_dim=256), "LumbarCLIP-ResNet50-256"),
        (system(vision="resnet50.a1_in1k", projection_dim=256), "LumbarCLIP-ResNet50-256"),
        (system(vision="vit_base_patch16_224", projection_dim=256), "LumbarCLIP-ViT-256"),
        (system(vision="resnet50", projection_dim=512), None),
        (system(vision="resnet10t", projection_dim=256), None),
        (system(vision="resnet50", projection_dim=256) | {"vision_model_args": {"channels": [8, 8, 8, 8]}}, None),
        (system(vision="resnet50", projection="nonlinear", projection_dim=256), None),
        (system("medclip", "resnet50"), "MedCLIP-ResNet-50"),
        (system("medclip", "convnext"), None),
        (system("gloria", "resnet50", projection_dim=768), "GLoRIA"),
        (system("gloria", "vit_base_patch16_224"), None),
        (system("siglip", "resnet50"), None),
    ],
)
def test_rows_of_the_paper_are_found_by_kind_tower_and_width(settings, row):
    assert paper_row(settings) == row
    assert row is None or row in TABLE_2


def test_a_row_of_the_paper_stands_beside_one_system(whole):
    results = json.loads(json.dumps(whole))
    for title in ("LumbarCLIP", "LumbarCLIP 64"):
        results["systems"][title]["settings"] = system(vision="resnet50", projection_dim=256)
    report = experiment_report(results, [])
    rows = [table_row(report, "As in Table 2 of the paper", f"{title} ") for title in ("LumbarCLIP", "LumbarCLIP 64")]
    assert [row[5] for row in rows] == ["LumbarCLIP-ResNet50-256", "-"]
    results["systems"]["MedCLIP"]["settings"] = results["systems"]["LumbarCLIP"]["settings"] = system()
    results["systems"]["LumbarCLIP 64"]["settings"] = system()
    report = experiment_report(results, [])
    assert "the paper's own figures" not in report
    assert len(table_row(report, "As in Table 2 of the paper", "MedCLIP")) == 5


def test_what_is_missing_is_told(whole):
    report = experiment_report(whole, [])
    assert "Fewer seeds than asked (3) have finished of SigLIP (0)." in report
    assert "bring images and texts together" not in report
    results = json.loads(json.dumps(whole)) | {"left_out_answers": {"MedCLIP": ["grade/unprojected"]}}
    for title, kind in (("LumbarCLIP 64", "supervised"), ("No heads", "untrained"), ("SigLIP", "untrained")):
        results["systems"][title]["settings"]["system"] = kind
    report = experiment_report(results, [])
    sentence = "LumbarCLIP 64 and No heads have not learned to bring images and texts together: their rows show chance."
    for heading in ("Zero-shot", "Retrieval"):
        assert sentence in report.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    assert "MedCLIP: left out, since not all folds have it: `grade/unprojected`." in report
