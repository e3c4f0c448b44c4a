"""The lines of a report that are words, not tables."""

from train.reporting.run_report import scope_line


def test_the_scope_is_a_line_with_what_is_held_back():
    measured = {"value": 0.03, "low": 0.004, "high": 0.116, "n": 270}
    counts = {"aim": 0.05, "num_validation_patients": 45, "num_patients": 12}
    line = scope_line({"in_words": "axial slices (9 patients)", "no_check": "", "held_back": measured, **counts})
    assert line.startswith("Trained on axial slices (9 patients). Images unlike these get no answer.")
    assert "45 validation patients, aims to hold back 5 %" in line
    assert "of the 12 patients measured here, a share of 0.030 [0.004, 0.116]" in line
    assert scope_line(None) == ""
