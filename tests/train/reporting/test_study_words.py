"""Who wins: three situations and their sentences, and what a card says."""

import pytest

from train.reporting.study_words import card_text, who_wins

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
NO_INTERVAL = pair(0.05, None, None, None)


def study(first, differences, reference="Ours", to_reference=None, controls=None, num_resamples=1000, **control_values):
    def comparison(to, title, pairs):
        of = {"to": to, "first": title, "group": GROUP, "metric": METRIC, "num_comparisons": len(pairs)}
        return of | {"differences": pairs}

    def figures(value):
        return {"figures": {GROUP: {METRIC: {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 9}}}}

    comparisons = [comparison("best", first, differences)]
    comparisons += [comparison("systems", reference, to_reference)] if to_reference else []
    comparisons += [comparison("controls", reference, controls)] if controls else []
    return {
        "headline": {
            "group": GROUP,
            "metric": METRIC,
            "reference": reference,
            "exclusive": True,
            "calibrated": "paper/unprojected",
        },
        "num_resamples": num_resamples,
        "systems": {first: figures(0.8)},
        "controls": {name: figures(value) for name, value in control_values.items()},
        "comparisons": comparisons,
        "study": {"name": "small", "seeds": [0, 1, 2]},
        "dataset": {"name": "demo", "split": "test", "num_rows": 9, "num_patients": 3, "synthetic": True, "leak": None},
        "command": "accelerate launch train/study.py small.yaml",
        "date": "2026-11-22T10:00:00+00:00",
    }


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        (
            {"A": SURE, "B": SURE},
            "excludes zero against "
            "each of the other 2 systems. After Holm's correction for 2 comparisons: all of these.",
        ),
        (
            {"A": UNSURE, "B": UNSURE},
            "does not exclude zero against any of the other 2 systems: no winner is shown.",
        ),
        (
            {"A": SURE, "B": WEAK, "C": UNSURE, "D": NO_INTERVAL},
            "excludes zero against A and B; it does not against C. After Holm's correction for 4 comparisons: A. "
            "Against D there is no interval.",
        ),
        (
            {"A": WEAK, "B": UNSURE},
            "excludes zero against A; it does not against B. After Holm's correction for 2 comparisons: none of these.",
        ),
    ],
)
def test_the_lead_is_told_by_its_intervals(differences, expected):
    lead = "**Ours** has the highest macro F1, 0.800 [0.700, 0.900]. The 95 % interval of its lead "
    assert who_wins(study("Ours", differences), METRIC) == lead + expected


def test_the_reference_is_placed_when_another_leads():
    to_reference = {"A": pair(-0.2, -0.3, -0.1, 0.01), "B": SURE, "C": UNSURE}
    said = who_wins(study("A", {"Ours": SURE, "B": SURE, "C": SURE}, to_reference=to_reference), METRIC)
    assert said.startswith("**A** has the highest macro F1")
    assert said.endswith("Ours is above B; is below A; cannot be told from C.")


def test_controls_are_told_apart_and_one_that_beats_all_is_named():
    results = study("Ours", {"A": SURE}, controls={"hog": UNSURE, "majority": SURE}, hog=0.85, majority=0.4)
    said = who_wins(results, METRIC)
    assert "Among the controls, Ours is above majority class; cannot be told from HOG." in said
    assert said.endswith("No system reaches the control HOG (0.850).")


def test_too_few_resamples_for_the_correction_are_said_instead_of_a_false_no():
    many = {f"S{number}": pair(0.2, 0.1, 0.3, 0.06) for number in range(30)}
    said = who_wins(study("Ours", many), METRIC)
    assert "each of the other 30 systems" in said
    assert said.endswith("Holm's correction for 30 comparisons needs 1200 resamples or more; there are 1000.")
    assert "all of these" not in who_wins(study("Ours", many, num_resamples=1200), METRIC)
    assert "needs" not in who_wins(study("Ours", many, num_resamples=1200), METRIC)


def test_what_was_not_compared_is_not_told():
    assert who_wins(study("Ours", {"A": SURE}), "quadratic_kappa") == ""


def test_a_card_names_command_data_and_date():
    text = card_text(study("Ours", {"A": SURE}))
    for part in ("`small`", "demo (synthetic), test: 9 images of 3 patients", "mean over 3 seeds", "2026-11-22."):
        assert part in text
    assert "`accelerate launch train/study.py small.yaml`" in text and "Research use only" in text
