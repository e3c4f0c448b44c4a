"""The report of an experiment from made-up predictions: its tables, what it leaves out, its page."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.page_content import HOSTILE, page_content, shown
from tests.train.experiments.made_experiment import (
    by_seed,
    class_answers,
    exclusive_targets,
    finding_answers,
    finding_targets,
    retrieval_answers,
    summary,
    system,
    wording_answers,
)
from train.evaluation.statistics.bootstrap import Resampling
from train.experiments.results import measure_experiment
from train.reporting.experiment.paper import TABLE_2, paper_row
from train.reporting.experiment.report import experiment_report, write_report
from train.reporting.experiment.tables import comparison_table, cost_table, fold_tables, systems_by_head
from train.reporting.figures.experiment import cost_chart, draw_charts
from train.reporting.rendering import html_page

pytestmark = pytest.mark.usefixtures("any_number_is_ranked")


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
        "left_out_predictions": {},
    }
    return json.loads(json.dumps(results, allow_nan=False))


@pytest.fixture(scope="module")
def whole(any_number_is_ranked):
    """An experiment with everything: seeds, heads, imbalance corrections, patients, a baseline, a diverged system."""
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
    assert row[5:] == ["MedCLIP-ViT", "82.94, 84.16, 98.08, 90.59"]
    assert f"{entry['macro_f1']['value']:.3f}" in table_row(report, "Systems", "MedCLIP")[1]
    assert table_row(report, "Systems", "MedCLIP")[-1] == f"{entry['macro_f1']['standard_deviation_of_seeds']:.3f}"
    assert table_row(report, "Systems", "SigLIP (0 of 3 runs)")[1] == "-"
    assert table_row(report, "Systems", "HOG")[1].startswith("0.7")
    (difference,) = (
        entry["differences"]["MedCLIP"]
        for entry in whole["comparisons"]
        if entry["to"] == "systems" and entry["metric"] == "macro_f1"
    )
    shown = "{value:.3f} [{low:.3f}, {high:.3f}]".format(**difference)
    assert table_row(report, "Differences", "MedCLIP")[2:5] == [
        shown,
        *(f"{difference[p]:.3f}" for p in ("p", "p_holm")),
    ]
    assert table_row(report, "Retrieval", "chance")[1] == f"{1 / 24:.3f}"
    assert table_row(report, "Cost", "MedCLIP")[1:] == ["3 of 3", "10", "320", "6.0", "64"]
    assert table_row(report, "Runs that did not finish", "SigLIP")[3:] == [
        "diverged",
        r"loss &lt;nan> at &#96;update&#96; 3 \| bad",
    ]
    assert table_row(report, "Projection heads, as in figures 3 and 4 of the paper", "ViT")[1:3] == ["none", "-"]


def test_the_report_warns_and_marks_what_is_the_papers(whole):
    report = experiment_report(whole, [])
    assert report.startswith("# Experiment `tiny`\n\nResearch use only")
    assert "synthetic" in report.partition("## Systems")[0] and "3 seeds, averaged" in report
    assert "**The last columns are the paper's own numbers**" in report and "87.50" in report
    assert "It has no finished seed" not in report
    assert "With 60 resamples, no p-value after Holm can fall below 0.05: that takes 160." in " ".join(report.split())
    assert report.rstrip().endswith("2026-11-22T10:00:00+00:00")


@pytest.mark.parametrize("made, metric", [(finding_targets, "macro_auroc"), (exclusive_targets, "macro_f1")])
def test_unseen_wordings_are_told_with_the_spread_over_seeds(made, metric):
    targets = made()
    make = class_answers if targets.exclusive else lambda **more: finding_answers(targets, **more)
    answers = {"LumbarCLIP": [make(**wording_answers(targets, seed)) for seed in (0, 1, 2)], "CLIP": [make()]}
    results = described(answers, targets, {"LumbarCLIP": system(), "CLIP": system("clip")}, seeds=(0, 1, 2))
    report = experiment_report(results, [])
    metrics = results["systems"]["LumbarCLIP"]["metrics"]
    asked = [metrics["zero_shot/unseen"][metric]]
    asked += [metrics["zero_shot/single_wordings"][f"{metric}_{s}"] for s in ("mean", "standard_deviation", "worst")]
    asked += [metrics["polarity"][name] for name in ("polarity_accuracy", "polarity_accuracy_together")]
    cells = [
        "{value:.3f} [{low:.3f}, {high:.3f}] ± {standard_deviation_of_seeds:.3f}".format(**entry) for entry in asked
    ]
    assert table_row(report, "Unseen wordings", "LumbarCLIP")[1:] == cells
    section = report.split("\n## Unseen wordings\n")[1].split("\n## ")[0]
    assert section.count("\n\n| system") == 2 and "CLIP (" not in section
    assert ("each is asked on its own" in section) is targets.exclusive
    assert f"{metrics['polarity'][f'polarity_accuracy/{targets.label_names[0]}']['value']:.3f} [" in section


def test_an_experiment_of_older_predictions_tells_nothing_of_wordings(whole):
    assert "nseen" not in experiment_report(whole, []) and "olarity" not in experiment_report(whole, [])


def pair(value):
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 9, "p": 0.5, "p_holm": 1.0}


def compared(to, first, **differences):
    group, metric = "probe/paper/unprojected", "macro_f1"
    return {"to": to, "first": first, "group": group, "metric": metric, "tied": [], "differences": differences}


def test_the_highest_stands_beside_the_reference_with_its_baselines():
    def scored(value):
        return {"metrics": {HEADLINE: {"macro_f1": {"value": value, "low": None, "high": None, "n": 9}}}}

    results = {
        "headline": {"reference": "Ours"},
        "systems": {"Ours": scored(0.7), "A": scored(0.8), "Failed": {"metrics": {}}},
        "baselines": {"hog": scored(0.9)},
        "comparisons": [
            compared("best", "A", Ours=pair(0.1)),
            compared("baselines of the best", "A", hog=pair(-0.1)),
            compared("systems", "Ours", A=pair(-0.1)),
            compared("baselines", "Ours", hog=pair(-0.2)),
        ],
    }
    header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table_lines(results))
    assert header == ["system", "macro F1", "Ours − system", "p", "p after Holm", "A − system", "p", "p after Holm"]
    assert [[row[0], row[1], row[2][:6], row[5][:6]] for row in rows] == [
        ["Ours", "0.700", "-", "0.100 "],
        ["A", "0.800", "-0.100", "-"],
        ["HOG", "0.900", "-0.200", "-0.100"],
    ]
    results["comparisons"] = results["comparisons"][:2]  # the reference has no finished seed
    assert "Ours − system" not in table_lines(results)[0] and "A − system" in table_lines(results)[0]


def table_lines(results):
    return comparison_table(results, HEADLINE, "macro_f1").splitlines()


def test_metrics_of_one_name_have_a_table_and_a_column_each(whole):
    results = json.loads(json.dumps(whole))
    sizes = {"train": 16, "validation": 4, "test": 4}
    results["dataset"]["folds"] = [{"fold": 0, "num_rows": sizes, "num_patients": sizes}] * 2
    groups = {"grade/unprojected": 0.7, "grade_by/prompts": 0.4, "grade_by/fusion": 0.5}
    mean = {"standard_deviation": None, "n": 2}
    for group, value in groups.items():
        entry = {"value": value, "low": value, "high": value, "n": 9}
        for title in ("LumbarCLIP 64", "MedCLIP"):
            metrics = results["systems"][title]
            metrics["metrics"][group] = {"quadratic_kappa": entry}
            metrics.setdefault("mean_over_folds", {})[group] = {"quadratic_kappa": {"value": value, **mean}}
        of_pair = compared("best", "MedCLIP", **{"LumbarCLIP 64": pair(value)})
        results["comparisons"].append({**of_pair, "group": group, "metric": "quadratic_kappa", "num_comparisons": 1})
    report = experiment_report(results, [])
    named = ["quadratic kappa of the grade", "quadratic kappa of the grade by prompts, zero-shot"]
    named.append("quadratic kappa of the grade by image and text fused")
    for name, value in zip(named, groups.values(), strict=True):
        table = report.split(f"\n{name[0].upper()}{name[1:]}:\n")[1].strip().split("\n\n")[0]
        assert f"| {value:.3f} [{value:.3f}, {value:.3f}] |" in " ".join(table.split())
        assert f"{name}: MedCLIP, {value:.3f}" in report
    header = next(line for line in report.split("\n## Folds\n")[1].splitlines() if line.startswith("| system"))
    assert [cell.strip() for cell in header.strip("|").split("|")][-3:] == named
    assert table_row(report, "Folds", "MedCLIP")[-3:] == [f"{value:.3f}" for value in groups.values()]


def test_a_single_system_is_listed_without_comparison():
    answers = {"LumbarCLIP": [class_answers(wrong=[0, 20])]}
    results = described(answers, exclusive_targets(), {"LumbarCLIP": system()}, [summary("LumbarCLIP")])
    assert not results["comparisons"]
    header, _, row = table_lines(results)
    assert header.count("|") == row.count("|") == 3 and "LumbarCLIP" in row


def test_systems_that_share_the_highest_are_named(whole):
    assert "share the highest macro F1" not in experiment_report(whole, [])
    (best,) = (entry for entry in whole["comparisons"] if (entry["to"], entry["metric"]) == ("best", "macro_f1"))
    others = [entry for entry in whole["comparisons"] if entry is not best]
    tied = whole | {"comparisons": [best | {"first": "LumbarCLIP", "tied": ["CLIP"]}, *others]}
    assert "LumbarCLIP, CLIP share the highest macro F1; the first" in " ".join(experiment_report(tied, []).split())


def test_the_report_of_an_experiment_warns_of_its_starting_weights(whole):
    assert "**Starting weights**" not in experiment_report(whole, [])
    warned = whole | {"dataset": whole["dataset"] | {"start": {"rows": "other"}}}
    assert "**Starting weights**: Its starting weights were trained on other rows" in experiment_report(warned, [])


def test_baselines_are_explained_and_one_that_could_not_be_had_says_why(whole):
    report = experiment_report(whole, [])
    assert "*Pixel PCA* and *HOG*: " in report and "is left out" not in report
    report = experiment_report(whole | {"left_out_baselines": {"imagenet": "the Hub cannot be reached"}}, [])
    assert "*ImageNet tower* is left out: `the Hub cannot be reached`." in report


def test_sections_without_anything_to_show_are_left_out():
    targets = finding_targets()
    answers = {"LumbarCLIP": [finding_answers(targets)], "CLIP": [finding_answers(targets, seed=1)]}
    systems = {"LumbarCLIP": system(), "CLIP": system("clip")}
    results = described(answers, targets, systems, [summary(title) for title in answers], folds=2)
    report = experiment_report(results, [])
    headings = re.findall(r"^## (.*)$", report, flags=re.M)
    undefined = "Metrics that are not defined"
    assert headings == ["Summary", "Systems", "Differences", "Findings", "Patients", "Cost", undefined, "Command"]
    assert "2 folds of the patients; 1 seed." in " ".join(report.split())
    assert "SD of seeds" not in report and "grade quadratic kappa" in report
    reason = "`Modic change` has 0 positive rows of 24 in the test split"
    assert table_row(report, "Findings", "Modic change")[2:] == [
        f"not defined: {reason}",
        "not defined",
    ]
    assert "`auroc/Modic change`: `Modic change` has 0 positive rows of 24 in the test split." in report
    assert set(draw_charts(results)) == {"systems.png", "differences.png", "cost.png"}


def test_seconds_are_whole_from_ten_on_and_the_last_mark_of_the_cost_chart_is_whole():
    costs = {name: {"seconds": seconds} for name, seconds in (("a", 2.34), ("b", 1234.5), ("c", None))}
    of_all = {"num_runs": 1, "num_finished": 1, "updates": 4, "pairs_seen": 3200, "pairs_per_second": 5.5}
    table = cost_table({name: {"cost": of_all | cost} for name, cost in costs.items()})
    assert [line.split("|")[5].strip() for line in table.splitlines()[-3:]] == ["2.3", "1,234", "-"]
    entry = {"value": 0.5, "low": None, "high": None}
    axes = cost_chart({"a": (100.0, entry), "b": (100.1, entry)}, "a", "score", "title").axes[0]
    assert axes.get_xlim() == pytest.approx((0, 1.05 * 100.1))


def test_the_page_needs_nothing_beside_it(whole, tmp_path):
    write_report(whole, tmp_path)
    drawn = {path.name for path in (tmp_path / "figures").glob("*.png")}
    assert {path.stem for path in (tmp_path / "figures").glob("*.svg")} == {Path(name).stem for name in drawn}
    assert drawn == {"systems.png", "differences.png", "no_heads.png", "heads.png", "reliability.png", "cost.png"}
    report, page = ((tmp_path / name).read_text() for name in ("report.md", "report.html"))
    assert set(re.findall(r"\(figures/(.*?)\)", report)) == drawn
    assert page.count('src="data:image/png;base64,iVBOR') == len(drawn)
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert page.count("<table>") == report.count("|:---") and "width=device-width" in page
    assert "loss &lt;nan&gt; at &#96;update&#96; 3 | bad" in page  # an error's angle brackets are not HTML
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
def test_undefined_and_uncertain_metrics_can_be_drawn(whole):
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
    assert "the paper's own numbers" not in report
    assert len(table_row(report, "As in Table 2 of the paper", "MedCLIP")) == 5


def test_what_is_missing_is_told(whole):
    report = experiment_report(whole, [])
    assert "Finished fewer than 3 seeds: SigLIP (0)." in report
    assert "never trained to match" not in report
    results = json.loads(json.dumps(whole)) | {"left_out_predictions": {"MedCLIP": ["grade/unprojected"]}}
    for title, kind in (("LumbarCLIP 64", "supervised"), ("No heads", "untrained"), ("SigLIP", "untrained")):
        results["systems"][title]["settings"]["system"] = kind
    report = experiment_report(results, [])
    for heading in ("Zero-shot", "Retrieval"):
        section = report.split(f"\n## {heading}\n")[1].split("\n## ")[0]
        assert "LumbarCLIP 64, No heads: never trained to match images and texts" in section
    assert "- MedCLIP: not in all folds, so left out: `grade/unprojected`." in report


def test_means_over_folds_stand_in_a_table_of_their_own(whole):
    assert fold_tables(whole) == ("", "")
    results = json.loads(json.dumps(whole))
    sizes = {"train": 16, "validation": 4, "test": 4}
    results["dataset"]["folds"] = [{"fold": 0, "num_rows": sizes, "num_patients": sizes}] * 2
    mean = {"value": 0.5, "standard_deviation": 0.125, "n": 2}
    results["systems"]["MedCLIP"]["mean_over_folds"] = {HEADLINE: {"macro_f1": mean}}
    report = experiment_report(results, [])
    assert table_row(report, "Folds", "MedCLIP")[1] == "0.500 ± 0.125"
    assert table_row(report, "Folds", "0 ")[1:] == ["16 (16)", "4 (4)", "4 (4)"]


def hostile_experiment(whole, text):
    """Put a text wherever an experiment holds words of its settings or its data."""
    words = json.dumps(whole).replace("MedCLIP", "NAMED").replace("loss <nan> at `update` 3 | bad", "NAMED")
    results = json.loads(words.replace("NAMED", json.dumps(text)[1:-1]))
    results["headline"]["reference"] = text
    results["experiment"] |= {"name": text, "description": text}
    results["dataset"] |= {"name": text, "labels": {text: {"rows": 3, "patients": 2}}, "synthetic": False}
    results["dataset"]["leak"] = {"in_words": text}
    results["command"] = text
    results["left_out_predictions"] = {text: [text]}
    return results


@pytest.mark.parametrize("text", HOSTILE)
def test_names_add_nothing_to_a_report_but_words(whole, tmp_path, text):
    (tmp_path / "figures").mkdir()
    figures = {}
    pages = [
        html_page(experiment_report(hostile_experiment(whole, name), figures), "A page", figures)
        for name in ("plain", text)
    ]
    (elements, words), found = map(page_content, pages)
    assert found == (elements, words.replace("plain", shown(text)).replace("Plain", shown(text)))


@pytest.mark.slow
@pytest.mark.parametrize("text", ["![a](../secret.png)", r"$\frac{$", "a $x^2$ \x1b\x00"])
def test_a_title_reaches_no_file_and_is_no_formula(whole, tmp_path, text):
    Image.new("L", (2, 2)).save(tmp_path / "secret.png")
    (tmp_path / "out").mkdir()
    write_report(hostile_experiment(whole, text), tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert (
        page.count("src=") == page.count('src="data:image/png') == len(list((tmp_path / "out/figures").glob("*.png")))
    )


def test_an_experiment_opens_with_a_summary_and_a_chart(whole):
    report = experiment_report(whole, ["systems.png"])
    opening = report.partition("## Systems")[0]
    lines = re.findall(r"^- .*$", opening, flags=re.M)
    assert 3 <= len(lines) <= 4 and all(len(line) < 400 for line in lines)
    assert "highest macro F1 of the systems" in lines[0] and "after Holm" in lines[0]
    assert lines[1].startswith("- The best baseline, HOG, has 0.")
    assert "3 of 18 runs did not finish" in lines[-1]
    assert opening.count("(figures/systems.png)") == report.count("(figures/systems.png)") == 1


def test_few_patients_are_not_ranked_by_report_page_and_chart(monkeypatch, tmp_path):
    monkeypatch.setattr("train.evaluation.statistics.minima.PATIENTS_TO_RANK", 20)
    answers = {"Low": [class_answers(wrong=range(12))], "High": [class_answers(wrong=[0])]}
    systems = {"Low": system(), "High": system("clip")}
    results = described(answers, exclusive_targets(), systems, [summary(title) for title in answers])
    write_report(results, tmp_path)
    report, page = ((tmp_path / name).read_text() for name in ("report.md", "report.html"))
    assert report.split("\n\n")[1].startswith("**Too few to rank: 8 patients, and a comparison needs 20.**")
    assert page.partition("<body>")[2].partition("</h1>")[2].strip().startswith("<p><strong>Too few to rank")
    assert "highest" not in report and "share" not in report.partition("## Cost")[0].partition("## Systems")[2]
    assert "## Differences\n\nToo few to rank" in report and "p after Holm" not in report
    chart = draw_charts(results)["systems.png"].axes[0]
    assert [label.get_text() for label in chart.get_yticklabels()] == ["Low", "High"]  # not sorted
