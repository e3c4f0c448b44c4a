"""The figures of an experiment, counted by hand on 8 patients, and what an experiment may lack."""

import json
import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, cohen_kappa_score, precision_recall_fscore_support, roc_auc_score

from tests.train.experiments.made_experiment import (
    NUM_ROWS,
    POSITIVE,
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

pytestmark = pytest.mark.usefixtures("any_number_is_ranked")


HEADLINE = "probe/paper/unprojected"


def measured(answers, targets, baselines=None, summaries=(), systems=None, **more):
    systems = systems or {title: system("lumbarclip" if "Lumbar" in title else "clip") for title in answers}
    answers = {title: seeds if isinstance(seeds, dict) else dict(enumerate(seeds)) for title, seeds in answers.items()}
    results = measure_experiment(
        answers, baselines or {}, targets, summaries, Resampling(100), "paper/unprojected", systems, **more
    )
    json.dumps(results, allow_nan=False)  # what is undefined is null
    return results


def value(results, title, name, group=HEADLINE, part="systems"):
    return results[part][title]["metrics"][group][name]["value"]


def test_table_2_counted_by_hand():
    # Wrong: rows 0, 1 (LBP missed) and 20 (LBP invented). TP 13, FN 2, FP 1, TN 8.
    results = measured({"LumbarCLIP": [class_answers(wrong=[0, 1, 20])]}, exclusive_targets())
    assert value(results, "LumbarCLIP", "accuracy") == pytest.approx(21 / 24)
    assert value(results, "LumbarCLIP", "precision") == pytest.approx(13 / 14)
    assert value(results, "LumbarCLIP", "recall") == pytest.approx(13 / 15)
    assert value(results, "LumbarCLIP", "f1") == pytest.approx(26 / 29)
    assert value(results, "LumbarCLIP", "minority_recall") == pytest.approx(8 / 9)
    assert value(results, "LumbarCLIP", "balanced_accuracy") == pytest.approx((13 / 15 + 8 / 9) / 2)
    assert value(results, "LumbarCLIP", "macro_f1") == pytest.approx((26 / 29 + 16 / 19) / 2)
    assert value(results, "LumbarCLIP", "expected_calibration_error") == pytest.approx(21 / 24 - 0.8)
    answered = ~np.isin(np.arange(NUM_ROWS), [0, 1, 20])
    probabilities = np.where(answered == POSITIVE, 0.8, 0.2)
    assert value(results, "LumbarCLIP", "brier_score") == pytest.approx(brier_score_loss(POSITIVE, probabilities))
    expected = precision_recall_fscore_support(POSITIVE, probabilities > 0.5, average="binary")[:3]
    assert [value(results, "LumbarCLIP", name) for name in ("precision", "recall", "f1")] == pytest.approx(expected)


def test_three_seeds_are_averaged_and_their_spread_stands_beside():
    wrong = ([0], [0, 3, 20], [])
    seeds = [class_answers(wrong=rows) for rows in wrong]
    results = measured({"LumbarCLIP": seeds}, exclusive_targets())
    entry = results["systems"]["LumbarCLIP"]["metrics"][HEADLINE]["accuracy"]
    assert entry["by_seed"] == pytest.approx([23 / 24, 21 / 24, 1])
    assert entry["value"] == pytest.approx(np.mean([23 / 24, 21 / 24, 1]))
    assert entry["standard_deviation_of_seeds"] == pytest.approx(np.std([23 / 24, 21 / 24, 1], ddof=1))
    one = measured({"LumbarCLIP": seeds[:1]}, exclusive_targets())
    assert one["systems"]["LumbarCLIP"]["metrics"][HEADLINE]["accuracy"]["standard_deviation_of_seeds"] is None
    assert one["comparisons"] == []  # nothing to compare with


def test_differences_are_those_of_the_figures_and_are_paired():
    answers = {
        "LumbarCLIP": [class_answers(wrong=[0])],
        "CLIP": [class_answers(wrong=[0, 3, 6, 9, 15, 18])],
        "SigLIP": [class_answers(wrong=[0])],
    }
    baselines = {"hog": class_answers(wrong=range(12))}
    results = measured(answers, exclusive_targets(), baselines)
    best, of_best, systems, against_baselines = results["comparisons"]
    assert (best["first"], best["num_comparisons"], best["metric"]) == ("LumbarCLIP", 2, "macro_f1")
    assert best["tied"] == ["SigLIP"]
    assert of_best["to"] == "baselines of the best" and of_best["differences"] == against_baselines["differences"]
    clip, siglip = (systems["differences"][title] for title in ("CLIP", "SigLIP"))
    assert clip["value"] == pytest.approx(value(results, "LumbarCLIP", "macro_f1") - value(results, "CLIP", "macro_f1"))
    assert (siglip["value"], siglip["low"], siglip["high"], siglip["excludes_zero"]) == (0, 0, 0, False)
    assert siglip["p"] == siglip["p_holm"] == 1
    # CLIP errs wherever LumbarCLIP does and in other patients besides: every resample agrees.
    assert clip["excludes_zero"] and clip["p"] == pytest.approx(2 / (101 - clip["dropped_resamples"]))
    assert clip["p_holm"] == 2 * clip["p"]
    assert against_baselines["to"] == "baselines" and against_baselines["differences"]["hog"]["excludes_zero"]


def test_the_reference_is_named_beforehand_and_the_best_is_found():
    answers = {"CLIP": [class_answers()], "LumbarCLIP-B": [class_answers(wrong=[0])], "LumbarCLIP-A": [class_answers()]}
    results = measured(answers, exclusive_targets())
    assert results["headline"]["reference"] == "LumbarCLIP-B"
    assert results["comparisons"][0]["first"] == "CLIP"
    assert results["comparisons"][0]["tied"] == ["LumbarCLIP-A"]
    named = measured(answers, exclusive_targets(), reference="LumbarCLIP-A")
    assert named["headline"]["reference"] == "LumbarCLIP-A"


def test_the_reference_does_not_depend_on_what_has_finished():
    answers = {"LumbarCLIP": [], "LumbarCLIP-B": [class_answers(wrong=[0])], "CLIP": [class_answers()]}
    results = measured(answers, exclusive_targets())
    assert results["headline"]["reference"] == "LumbarCLIP"
    assert [entry["to"] for entry in results["comparisons"]] == ["best"]


def test_a_difference_is_over_the_seeds_that_both_have():
    # On seed 1 both miss the same row; on seed 0, which CLIP lacks, LumbarCLIP misses six more.
    ours = {0: class_answers(wrong=range(6)), 1: class_answers(wrong=[0]), 2: class_answers(wrong=[3])}
    theirs = {1: class_answers(wrong=[0]), 3: class_answers(wrong=range(12))}
    results = measured({"LumbarCLIP": ours, "CLIP": theirs, "GLoRIA": {7: class_answers()}}, exclusive_targets())
    comparison = next(entry for entry in results["comparisons"] if entry["to"] == "systems")
    assert comparison["differences"]["CLIP"]["value"] == 0
    assert value(results, "LumbarCLIP", "accuracy") == pytest.approx((18 + 23 + 23) / 72)
    disjoint = comparison["differences"]["GLoRIA"]
    assert disjoint["value"] is None and disjoint["reason"] == "the two have no seed in common"


def test_retrieval_that_chance_solves_is_not_compared():
    def compared(num_candidates):
        more = retrieval_answers(np.ones(NUM_ROWS))
        more = {name: array if "candidates" not in name else array * 0 + num_candidates for name, array in more.items()}
        answers = {title: [class_answers(**more)] for title in ("LumbarCLIP", "CLIP")}
        return {entry["metric"] for entry in measured(answers, exclusive_targets())["comparisons"]}

    assert compared(10) == {"macro_f1"}
    assert compared(11) == {"macro_f1", "image_to_text_recall_at_10", "text_to_image_recall_at_10"}


def test_findings_of_two_folds_equal_scikit_learn_and_an_absent_class_has_a_reason():
    targets = finding_targets()
    answers = finding_answers(targets)
    results = measured({"LumbarCLIP": [answers]}, targets)
    ranks = np.empty((NUM_ROWS, 2))
    for fold in (0, 1):
        rows = answers["fold"] == fold
        ranks[rows] = answers[HEADLINE][rows, :2].argsort(0).argsort(0)
    by_finding = [roc_auc_score(targets.labels[:, k], ranks[:, k]) for k in (0, 1)]
    assert value(results, "LumbarCLIP", "auroc/bulge") == pytest.approx(by_finding[0])
    assert value(results, "LumbarCLIP", "macro_auroc") == pytest.approx(np.mean(by_finding))
    absent = results["systems"]["LumbarCLIP"]["metrics"][HEADLINE]["auroc/Modic change"]
    assert absent["value"] is None and "`Modic change` has 0 positive rows of 24" in absent["reason"]
    kappa = cohen_kappa_score(targets.grades, answers["grade/unprojected"], weights="quadratic")
    assert value(results, "LumbarCLIP", "quadratic_kappa", "grade/unprojected") == pytest.approx(kappa)


def test_what_one_system_could_not_learn_is_left_out_of_the_mean_of_all():
    targets = finding_targets()
    whole, lacking = finding_answers(targets, seed=1), finding_answers(targets, seed=2)
    lacking[HEADLINE] = lacking[HEADLINE].copy()
    lacking[HEADLINE][lacking["fold"] == 1, 1] = np.nan
    results = measured({"LumbarCLIP": [whole], "CLIP": [lacking]}, targets)
    for title in ("LumbarCLIP", "CLIP"):
        assert value(results, title, "macro_auroc") == value(results, title, "auroc/bulge")
    reason = results["systems"]["LumbarCLIP"]["metrics"][HEADLINE]["auroc/stenosis"]["reason"]
    assert "`stenosis`" in reason and "(fold 1)" in reason
    pair = results["comparisons"][0]["differences"]
    assert all(entry["value"] is not None for entry in pair.values())


def test_an_absent_exclusive_class_is_null_with_its_reason_everywhere():
    targets = exclusive_targets()
    only = targets.select(POSITIVE, "test")
    answers = {name: array[POSITIVE] for name, array in class_answers(wrong=[2]).items()}
    results = measured({"LumbarCLIP": [answers], "CLIP": [answers]}, only)
    entry = results["systems"]["CLIP"]["metrics"][HEADLINE]["macro_f1"]
    assert entry["value"] is None and entry["reason"] == "no row of `No Finding` in the test split"
    assert value(results, "CLIP", "accuracy") == pytest.approx(14 / 15)
    assert not [entry for entry in results["comparisons"] if entry["metric"] == "macro_f1"]


def test_every_way_of_asking_is_measured_where_it_was_asked():
    rank = np.repeat([1, 4, 8], 8)
    attention = np.repeat(class_answers()[HEADLINE][::3], 3, axis=0)
    more = {
        "probe/knn/projected": class_answers(wrong=[0])[HEADLINE],
        "decision/paper_threshold/unprojected": class_answers(wrong=[0, 20])[HEADLINE] > 0.5,
        "calibrated/paper/unprojected": class_answers()[HEADLINE],
        "zero_shot": class_answers(wrong=range(6))[HEADLINE],
        "patient_attention": attention,
        **retrieval_answers(rank),
    }
    answers = {"LumbarCLIP": [class_answers(wrong=[0, 1, 20], **more)], "CLIP": [class_answers()]}
    results = measured(answers, exclusive_targets())
    assert value(results, "LumbarCLIP", "accuracy", "probe/knn/projected") == pytest.approx(23 / 24)
    decision = results["systems"]["LumbarCLIP"]["metrics"]["decision/paper_threshold/unprojected"]
    assert decision["accuracy"]["value"] == pytest.approx(22 / 24)
    assert "auroc" not in decision and "expected_calibration_error" not in decision
    calibrated = results["systems"]["LumbarCLIP"]["metrics"]["calibrated/paper/unprojected"]
    assert calibrated["expected_calibration_error"]["value"] == pytest.approx(0.2)
    assert set(calibrated) == {"expected_calibration_error", "brier_score"}
    assert value(results, "LumbarCLIP", "accuracy", "zero_shot") == pytest.approx(18 / 24)
    recall = [value(results, "LumbarCLIP", f"image_to_text_recall_at_{k}", "retrieval/report") for k in (1, 5, 10)]
    assert recall == pytest.approx([1 / 3, 2 / 3, 1])
    assert value(results, "LumbarCLIP", "image_to_text_chance_at_5", "retrieval/report") == pytest.approx(5 / 24)
    # Patient 0 is wrong in two images of three (mean 0.4), patient 6 in one (mean 0.4 for LBP): 7 of 8 patients.
    assert value(results, "LumbarCLIP", "accuracy", "patients/mean") == pytest.approx(7 / 8)
    assert value(results, "LumbarCLIP", "accuracy", "patients/attention") == 1
    assert set(results["systems"]["CLIP"]["metrics"]) == {HEADLINE, "patients/mean"}
    reliability = results["systems"]["LumbarCLIP"]["reliability"]
    assert reliability["before"] == {
        "counts": [24],
        "claimed": [pytest.approx(0.8)],
        "achieved": [pytest.approx(21 / 24)],
    }
    assert reliability["after"]["achieved"] == [1.0]


def test_patients_of_two_folds_are_ranked_within_their_fold():
    targets = finding_targets()
    answers = finding_answers(targets)
    shifted = answers[HEADLINE].copy()
    shifted[answers["fold"] == 1] *= 0.5  # another scale, the same order
    results = measured({"LumbarCLIP": [answers], "CLIP": [answers | {HEADLINE: shifted}]}, targets)
    aurocs = [value(results, title, "macro_auroc", "patients/mean") for title in ("LumbarCLIP", "CLIP")]
    assert aurocs[0] == aurocs[1] > 0.5
    assert results["systems"]["CLIP"]["metrics"]["patients/mean"]["macro_auroc"]["n"] == 8


def test_cost_and_failed_runs_are_told():
    summaries = [
        summary("LumbarCLIP", 0, seconds=4.0),
        summary("LumbarCLIP", 1, seconds=8.0),
        summary("LumbarCLIP", 2, "diverged", "the loss is not finite at update 3"),
        summary("CLIP", 0, "failed", "CUDA out of memory"),
    ]
    answers = {"LumbarCLIP": [class_answers(), class_answers(wrong=[0])], "CLIP": []}
    results = measured(answers, exclusive_targets(), summaries=summaries)
    cost = results["systems"]["LumbarCLIP"]["cost"]
    assert (cost["num_runs"], cost["num_finished"], cost["seconds"], cost["pairs_seen"]) == (3, 2, 6.0, 320)
    failed = results["systems"]["CLIP"]
    assert failed["metrics"] == {} and failed["cost"]["seconds"] is None and failed["num_seeds"] == 0
    assert [run["reason"] for run in results["runs"] if run["state"] != "done"] == [
        "the loss is not finite at update 3",
        "CUDA out of memory",
    ]


def test_what_cannot_be_compared_is_refused():
    shuffled = class_answers() | {"row": np.arange(NUM_ROWS)[::-1]}
    with pytest.raises(ValueError, match="CLIP predicts 24 rows that are not the 24 rows"):
        measured({"LumbarCLIP": [class_answers()], "CLIP": [shuffled]}, exclusive_targets())
    with pytest.raises(ValueError, match="No system has a finished run.*--retry_failed"):
        measured({"LumbarCLIP": []}, exclusive_targets())
    asked = class_answers()
    asked["probe/knn/projected"] = asked.pop(HEADLINE)
    with pytest.raises(ValueError, match="no system has this probe; choose one of knn/projected"):
        measured({"LumbarCLIP": [asked]}, exclusive_targets())


def test_one_patient_gives_figures_and_no_interval():
    targets = exclusive_targets()
    one = targets.select(np.arange(3), "test")
    answers = {name: array[:3] for name, array in class_answers(wrong=[1]).items()}
    entry = measured({"LumbarCLIP": [answers]}, one)["systems"]["LumbarCLIP"]["metrics"][HEADLINE]["accuracy"]
    assert entry["value"] == pytest.approx(2 / 3) and entry["low"] is None
    assert math.isclose(entry["n"], 3)


def test_few_patients_name_no_winner(monkeypatch):
    monkeypatch.setattr("train.evaluation.statistics.minima.PATIENTS_TO_RANK", 20)
    answers = {"LumbarCLIP": [class_answers(wrong=[0])], "CLIP": [class_answers(wrong=range(12))]}
    results = measured(answers, exclusive_targets(), {"hog": class_answers(wrong=range(12))})
    assert results["comparisons"] == []
    assert value(results, "LumbarCLIP", "macro_f1") > value(results, "CLIP", "macro_f1")  # still told


def test_a_temperature_that_was_not_fitted_has_no_after():
    probabilities = class_answers(wrong=[0, 3])[HEADLINE]
    scaled = {"uncalibrated/paper/unprojected": probabilities, "calibrated/paper/unprojected": probabilities}
    for change, is_scaled in ((0.0, False), (0.01, True)):
        moved = probabilities + change * np.array([1, -1])
        answers = class_answers(wrong=[0, 3], **(scaled | {"calibrated/paper/unprojected": moved}))
        system = measured({"LumbarCLIP": [answers]}, exclusive_targets())["systems"]["LumbarCLIP"]
        entry = system["metrics"]["calibrated/paper/unprojected"]["brier_score"]
        assert (entry["value"] is not None) is is_scaled
        assert ("after" in system["reliability"]) is is_scaled
        assert is_scaled or "T left at 1" in entry["reason"]


def test_the_spread_over_wordings_stands_beside_that_over_seeds():
    targets = finding_targets()
    seeds = [finding_answers(targets, seed, **wording_answers(targets, seed)) for seed in (0, 1)]
    results = measured({"LumbarCLIP": seeds, "CLIP": seeds[:1]}, targets)
    metrics = results["systems"]["LumbarCLIP"]["metrics"]
    by_seed = []
    for answers in seeds:
        stated = answers["single_wordings/stated"].reshape(NUM_ROWS, 4, 10)
        of_seed = []
        for wording in range(10):
            ranks = np.empty((NUM_ROWS, 2))
            for fold in (0, 1):
                rows = answers["fold"] == fold
                ranks[rows] = stated[rows, :2, wording].argsort(0).argsort(0) / rows.sum()
            of_seed.append(np.mean([roc_auc_score(targets.labels[:, k], ranks[:, k]) for k in (0, 1)]))
        by_seed.append(of_seed)
    single = metrics["zero_shot/single_wordings"]
    for name, how in (("mean", np.mean), ("standard_deviation", lambda of: np.std(of, ddof=1)), ("worst", np.min)):
        entry = single[f"macro_auroc_{name}"]
        assert entry["by_seed"] == pytest.approx([how(of_seed) for of_seed in by_seed])
        assert entry["value"] == pytest.approx(np.mean(entry["by_seed"]))
        assert entry["standard_deviation_of_seeds"] == pytest.approx(np.std(entry["by_seed"], ddof=1))
        assert entry["low"] <= entry["high"]
    assert not [group for group in metrics if group.startswith("zero_shot/single_wordings/")]
    assert {"polarity_accuracy", "polarity_accuracy/bulge"} <= set(metrics["polarity"])
    assert metrics["polarity"]["polarity_accuracy/Modic change"]["value"] is None  # nobody has it
    over_folds = results["systems"]["LumbarCLIP"]["mean_over_folds"]
    assert over_folds["zero_shot/single_wordings"]["macro_auroc_mean"]["n"] == 2
    compared = {(entry["group"], entry["metric"]) for entry in results["comparisons"]}
    assert {("zero_shot/single_wordings", "macro_auroc_mean"), ("polarity", "polarity_accuracy")} <= compared


def test_an_experiment_of_older_predictions_has_no_wordings():
    targets = finding_targets()
    answers = {"LumbarCLIP": [finding_answers(targets, **wording_answers(targets)), finding_answers(targets, seed=1)]}
    metrics = measured(answers, targets)["systems"]["LumbarCLIP"]["metrics"]  # a seed lacks them
    assert not [group for group in metrics if "wording" in group or "unseen" in group or group == "polarity"]
