"""Who wins: three situations and their sentences, and what a card says."""

import pytest

from train.reporting.experiment.words import card_text, who_wins

GROUP, METRIC = "probe/paper/unprojected", "macro_f1"


def pair(value, low, high, p_holm):
    excludes_zero = None if low is None else low > 0 or high < 0
    return {
        "value": value,
        "low": low,
        "high": high,
        "n": 9,
        "p": p_holm,
        "p_holm": p_holm,
        "excludes_zero": excludes_zero,
    }


SURE, WEAK, UNSURE = pair(0.2, 0.1, 0.3, 0.01), pair(0.1, 0.01, 0.2, 0.09), pair(0.05, -0.1, 0.2, 0.8)
CHOSEN = "It was chosen as the highest on these very rows, which flatters its lead."
PROBE = " by linear layer (paper) on unprojected features"
NO_INTERVAL = pair(0.05, None, None, None)


def experiment(
    first,
    differences,
    reference="Ours",
    to_reference=None,
    baselines=None,
    of_best=None,
    num_resamples=1000,
    tied=(),
    **baseline_values,
):
    def comparison(to, title, pairs):
        of = {"to": to, "first": title, "group": GROUP, "metric": METRIC, "num_comparisons": len(pairs)}
        return of | {"differences": pairs} | ({"tied": list(tied)} if to == "best" else {})

    def figures(value):
        entry = {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 9}
        return {"metrics": {GROUP: {METRIC: entry}}, "num_seeds": 3}

    comparisons = [comparison("best", first, differences)]
    comparisons += [comparison("systems", reference, to_reference)] if to_reference else []
    comparisons += [comparison("baselines", reference, baselines)] if baselines else []
    comparisons += [comparison("baselines of the best", first, of_best)] if of_best else []
    return {
        "headline": {
            "group": GROUP,
            "metric": METRIC,
            "reference": reference,
            "exclusive": True,
            "calibrated": "paper/unprojected",
        },
        "num_resamples": num_resamples,
        "systems": {first: figures(0.8), reference: figures(0.8 if first == reference else 0.7)},
        "baselines": {name: figures(value) for name, value in baseline_values.items()},
        "comparisons": comparisons,
        "experiment": {"name": "small", "seeds": [0, 1, 2]},
        "dataset": {"name": "demo", "split": "test", "num_rows": 9, "num_patients": 3, "synthetic": True, "leak": None},
        "command": "accelerate launch train/compare_systems.py small.yaml",
        "date": "2026-11-22T10:00:00+00:00",
    }


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        (
            {"A": SURE, "B": SURE},
            "excludes zero against "
            f"each of the other 2 systems. After Holm's correction for 2 comparisons: all of these. {CHOSEN}",
        ),
        (
            {"A": UNSURE, "B": UNSURE},
            "does not exclude zero against any of the other 2 systems: no winner is shown.",
        ),
        (
            {"A": SURE, "B": WEAK, "C": UNSURE, "D": NO_INTERVAL},
            "excludes zero against A and B; it does not against C. After Holm's correction for 4 comparisons: A. "
            f"{CHOSEN} Against D there is no interval.",
        ),
        (
            {"A": WEAK, "B": UNSURE},
            "excludes zero against A; it does not against B. After Holm's correction for 2 comparisons: none of these. "
            f"{CHOSEN}",
        ),
    ],
)
def test_the_lead_is_told_by_its_intervals(differences, expected):
    lead = f"**Ours** has the highest macro F1{PROBE}, 0.800 [0.700, 0.900]. The 95 % interval of its lead "
    assert who_wins(experiment("Ours", differences), METRIC) == lead + expected


def test_the_reference_is_placed_when_another_leads():
    to_reference = {"A": pair(-0.2, -0.3, -0.1, 0.01), "B": SURE, "C": UNSURE}
    said = who_wins(experiment("A", {"Ours": SURE, "B": SURE, "C": SURE}, to_reference=to_reference), METRIC)
    assert said.startswith("**A** has the highest macro F1")
    assert said.endswith("Ours is above B; is below A; cannot be told from C.")


@pytest.mark.parametrize(
    ("difference", "expected"),
    [
        (pair(-0.05, -0.08, -0.02, 0.01), "No system reaches the baseline HOG (0.850)."),
        (pair(-0.05, -0.2, 0.1, 0.8), "Ours cannot be told from the baseline HOG (0.850), which is higher."),
        (pair(-0.05, None, None, None), "No system is as high as the baseline HOG (0.850), but there is no interval."),
    ],
)
def test_baselines_are_told_apart_and_one_that_beats_all_is_named(difference, expected):
    told = {"baselines": {"hog": UNSURE, "majority": SURE}, "of_best": {"hog": difference, "majority": SURE}}
    said = who_wins(experiment("Ours", {"A": SURE}, **told, hog=0.85, majority=0.4), METRIC)
    assert "Among the baselines, Ours is above majority class; cannot be told from HOG." in said
    assert said.endswith(expected)


def test_systems_that_share_the_maximum_are_all_named():
    said = who_wins(experiment("Ours", {"A": pair(0, 0, 0, 1), "B": SURE}, tied=["A"]), METRIC)
    assert said.startswith(f"**Ours** and **A** share the highest macro F1{PROBE}, 0.800")
    assert "No winner is shown. The 95 % interval of the lead of Ours excludes zero against B." in said
    alone = who_wins(experiment("Ours", {"A": pair(0, 0, 0, 1)}, tied=["A"]), METRIC)
    assert alone.endswith("0.800 [0.700, 0.900]. No winner is shown.")


def test_the_probe_is_named_and_the_papers_own_stands_beside():
    results = experiment("Ours", {"A": SURE})
    assert "By the paper's own probe" not in who_wins(results, METRIC)
    entries = {"Ours": 0.5, "A": 0.6, "B": 0.6}
    group = "probe/logistic/unprojected"
    results["headline"]["group"] = results["comparisons"][0]["group"] = group
    for title, value in entries.items():
        by_probe = {METRIC: {"value": value, "low": None, "high": None, "n": 9}}
        results["systems"][title] = {"metrics": {GROUP: by_probe, group: by_probe}, "num_seeds": 3}
    said = who_wins(results, METRIC)
    assert said.startswith("**Ours** has the highest macro F1 by logistic regression on unprojected features, 0.500.")
    assert said.endswith("By the paper's own probe, A and B share the highest, 0.600.")


def test_a_reference_that_has_not_finished_is_told():
    results = experiment("A", {"B": SURE})
    assert "The reference" not in who_wins(results, METRIC)
    results["systems"]["Ours"]["metrics"] = {}
    assert "The reference, Ours, has no finished seed, so that differences are to the best alone." in who_wins(
        results, METRIC
    )


def test_too_few_resamples_for_the_correction_are_said_instead_of_a_false_no():
    many = {f"S{number}": pair(0.2, 0.1, 0.3, 0.06) for number in range(30)}
    said = who_wins(experiment("Ours", many), METRIC)
    assert "each of the other 30 systems" in said
    assert "Holm's correction for 30 comparisons needs 1200 resamples or more; there are 1000." in said
    assert "all of these" not in who_wins(experiment("Ours", many, num_resamples=1200), METRIC)
    assert "needs" not in who_wins(experiment("Ours", many, num_resamples=1200), METRIC)


def test_what_was_not_compared_is_not_told():
    assert who_wins(experiment("Ours", {"A": SURE}), "quadratic_kappa") == ""


def test_a_card_names_command_data_and_date():
    text = card_text(experiment("Ours", {"A": SURE}))
    for part in ("`small`", "demo (synthetic), test: 9 images of 3 patients", "mean over 3 seeds", "2026-11-22."):
        assert part in text
    assert CHOSEN in text and "Fewer seeds" not in text
    assert "`accelerate launch train/compare_systems.py small.yaml`" in text and "Research use only" in text


def test_a_card_says_where_seeds_are_missing():
    results = experiment("Ours", {"A": SURE})
    results["systems"]["A"] = {"metrics": {}, "num_seeds": 2}
    assert "Fewer seeds than asked (3) have finished of A (2)." in card_text(results)
