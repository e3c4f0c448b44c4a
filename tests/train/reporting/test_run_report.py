"""The report of an evaluation opens with what a stranger must know, and says why what is not defined is not."""

import re

import pytest

from tests.train.reporting.card.made_run import Numbers, made_metrics
from train.reporting.run_report import run_report, run_summary, scope_line

DRAWN = ["probe_comparison.png", "training.png"]


def entry(value, low=None, high=None, **more):
    return {"value": value, "low": low, "high": high, "n": 9, **more}


def made(num_patients=45, **changed):
    results = made_metrics(Numbers())
    results |= {"zero_shot_first_prompt": {}, "training_set": {}, "command": "python x.py", "date": "2026-11-30"}
    results["retrieval"] |= {
        "text_to_image_recall_at_10": entry(0.4, 0.3, 0.5),
        "text_to_image_chance_at_10": entry(0.1),
    }
    results["dataset"] |= {"num_patients": num_patients, "num_rows": 2 * num_patients, "missing_labels": ""}
    return results | changed


@pytest.mark.parametrize("num_patients, is_ranked", [(1, False), (4, False), (19, False), (20, True)])
def test_few_patients_are_not_ranked_and_that_comes_first(num_patients, is_ranked):
    report = run_report(made(num_patients), DRAWN)
    _, second, *_ = report.split("\n\n")
    assert second.startswith("**Too few to rank: ") is not is_ranked
    assert ("An interval above 0 means" in report) is is_ranked
    assert ("LumbarCLIP − HOG" in report) is is_ranked


def test_labelled_patients_count():
    results = made(45)
    results["dataset"]["num_labelled_patients"] = 4
    assert "Too few to rank: 4 patients" in run_report(results, DRAWN)
    results["dataset"]["num_labelled_patients"] = 0  # no labels at all: grades and retrieval are of all patients
    assert "Too few to rank" not in run_report(results, DRAWN)


def test_a_report_opens_with_a_summary_and_a_chart_shown_once():
    report = run_report(made(), DRAWN)
    opening = report.partition("## Linear probe")[0]
    lines = re.findall(r"^- .*$", opening, flags=re.M)
    assert len(lines) == 4
    assert "Linear probe on frozen image features: " in lines[0] and "best baseline" in lines[0]
    assert "Zero-shot, by prompts: " in lines[1] and "Prediction sets answer" in lines[1]
    assert "Zero-shot by one wording that no training used, of ten: macro F1 " in lines[2]
    assert "Polarity accuracy, statement against denial: " in lines[2]
    assert "0.400 [0.300, 0.500] of cases (chance 0.100)" in lines[3]
    assert "(figures/probe_comparison.png)" in opening and report.count("(figures/probe_comparison.png)") == 1
    assert "(figures/text_to_image.png)" in run_report(made(), ["text_to_image.png"]).partition("## Linear probe")[0]


@pytest.mark.parametrize(
    "low, high, words",
    [(0.1, 0.2, "ahead of the best"), (-0.2, -0.1, "behind the best"), (-0.1, 0.1, "not told apart from the best")],
)
def test_the_summary_says_whether_the_probe_leads(low, high, words):
    results = made()
    for baseline in results["baselines"].values():
        baseline["difference"]["macro_f1"] = entry((low + high) / 2, low, high)
    assert words in run_summary(results)[0]
    for baseline in results["baselines"].values():
        baseline["difference"]["macro_f1"] = entry(
            None, reason="too few to rank: 4 patients, and a comparison needs 20"
        )
    assert "baseline" not in run_summary(results)[0]


def test_what_is_not_defined_says_why():
    results, reason = made(), "no row of `LBP` in the test split"
    results["linear_probe"]["macro_f1"] = entry(None, reason=reason)
    results["linear_probe"]["balanced_accuracy"] = entry(None, reason=reason)
    results["linear_probe"]["accuracy"] = entry(None, reason="long " * 30)
    calibration = results["further"]["calibration/zero_shot"]
    for name in calibration:
        calibration[name] = entry(None, reason="4 validation patients, and a temperature needs 10")
    report = run_report(results, DRAWN)
    row = next(line for line in report.splitlines() if line.startswith("| LumbarCLIP "))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[1:4] == [f"not defined: {reason}", "not defined", "not defined: see below"]
    assert "not defined: 4 validation patients, and a temperature needs 10" in report
    notes = report.partition("## Metrics that are not defined")[2]
    assert "`macro_f1`, `balanced_accuracy`: no row" in notes and "long long" in notes
    assert not re.search(r"\bnan\b|None|undefined", report)


def test_so_few_images_that_chance_finds_them():
    results = made()
    results["retrieval"]["text_to_image_chance_at_10"] = entry(1.0)
    assert "chance finds each" in run_summary(results)[-1]


def test_a_report_without_labels_and_grades_still_opens():
    empty = {"linear_probe": {}, "zero_shot": {}, "baselines": {}, "further": {}, "prompts": {}}
    results = made(4, **empty)
    results["dataset"]["labels"] = {}
    report = run_report(results, [])
    assert report.split("\n\n")[1].startswith("**Too few to rank") and len(run_summary(results)) == 1


def test_baselines_are_explained_and_one_that_could_not_be_had_says_why():
    report = run_report(made(), DRAWN)
    assert "*Texture, boosted trees*: " in report and "is left out" not in report  # older results do not know
    report = run_report(made() | {"left_out_baselines": {"imagenet": "the Hub cannot be reached"}}, DRAWN)
    assert "*ImageNet tower* is left out: `the Hub cannot be reached`." in report


def test_unseen_wordings_have_a_section_whose_tables_are_tables():
    results = made(statement_cosines={"LBP": 0.995, "No Finding": 0.3})
    report = run_report(results, [*DRAWN, "wordings.png"])
    section = report.partition("### Unseen wordings\n")[2].partition("\n## ")[0]
    assert section.count("\n\n|") == 2  # a table needs a blank line before it
    single = results["further"]["zero_shot/single_wordings"]
    row = next(line for line in section.splitlines() if line.startswith("| macro F1 "))
    cells = [cell.strip() for cell in row.strip("|").split("|")][1:]
    shown = [
        results["further"]["zero_shot/unseen"]["macro_f1"],
        *(single[f"macro_f1_{s}"] for s in ("mean", "standard_deviation", "worst")),
    ]
    assert cells == ["{value:.3f} [{low:.3f}, {high:.3f}]".format(**entry) for entry in shown]
    assert "each is asked on its own" in section  # exclusive classes
    assert "**Statement and denial embed alike (cosine): LBP 0.995.**" in section
    assert report.count("(figures/wordings.png)") == 1 and "(figures/wordings.png)" in section
    assert "“LBP present.” against “No LBP present.”" in report and "“There is LBP.”" in report
    assert "| unseen wordings " in report.partition("### Unseen wordings")[0]


def test_grades_are_told_in_the_summary_in_a_narrow_table_and_in_figures():
    told = {"quadratic_kappa": entry(0.7, 0.6, 0.8), "accuracy": entry(0.6, 0.5, 0.7)}
    flipped = told | {"flip_agreement": entry(0.9, 0.8, 1.0), "view_variance": entry(0.1, 0.0, 0.2)}
    drawn = [*DRAWN, "grade_confusion_prompts.png", "grade_confusion_fusion.png"]
    for of_prompts, says_flips in ((told, False), (flipped, True)):
        report = run_report(made(further={"grade_by/prompts": of_prompts, "grade_by/fusion": of_prompts}), drawn)
        assert "- Grade by prompts, zero-shot, quadratic kappa 0.700 [0.600, 0.800] and accuracy 0.600" in report
        section = report.partition("## Grades\n")[2].partition("\n## ")[0]
        header = next(line for line in section.splitlines() if line.startswith("|"))
        assert [cell.strip() for cell in header.strip("|").split("|")] == [
            *("metric", "prompts, zero-shot", "image and text fused")
        ]
        assert ("mirror image" in section) == says_flips
        assert all(f"(figures/{name})" in report for name in drawn)


def test_prompts_that_no_training_used_are_shown_once():
    results = made()
    asked = {label: {"present": of["present"]} for label, of in results["unseen_wordings"].items()}
    report = run_report(results | {"prompts": asked}, DRAWN)
    assert "Zero-shot, by wordings that no training used: " in report
    assert "| unseen wordings " not in report and "Prompts of the checkpoint, which no training used" in report
    assert report.count("“LBP present.” against") == 1


def test_a_report_of_older_metrics_says_nothing_of_wordings():
    results = made(further={}, unseen_wordings={}, statement_cosines={})
    for name in ("unseen_wordings", "statement_cosines"):
        del results[name]
    report = run_report(results, DRAWN)
    assert "nseen" not in report and "olarity" not in report and "“There is LBP.”" in report


def test_the_scope_is_a_line_with_what_is_held_back():
    measured = {"value": 0.03, "low": 0.004, "high": 0.116, "n": 270}
    counts = {"aim": 0.05, "num_validation_patients": 45, "num_patients": 12}
    line = scope_line({"in_words": "axial slices (9 patients)", "no_check": "", "held_back": measured, **counts})
    assert line.startswith("Trained on axial slices (9 patients). Images unlike these get no answer.")
    assert "45 validation patients, aims to hold back 5 %" in line
    assert "of the 12 patients measured here, a share of 0.030 [0.004, 0.116]" in line
    assert scope_line(None) == ""
