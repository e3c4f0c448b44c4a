import pytest

from tests.data_scripts.reports.test_findings import facts

LEFT_SEVERE, RIGHT_MILD = "foraminal narrowing left severe", "foraminal narrowing right mild"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # A severity belongs to its side.
        ("Severe left and mild right foraminal narrowing", [LEFT_SEVERE, RIGHT_MILD]),
        ("Severe left, mild right neural foraminal stenosis", [LEFT_SEVERE, RIGHT_MILD]),
        ("Foraminal narrowing, severe on the left and mild on the right", [LEFT_SEVERE, RIGHT_MILD]),
        ("Bilateral foraminal narrowing (severe left, mild right)", [LEFT_SEVERE, RIGHT_MILD]),
        ("Foraminal narrowing is severe on the left and mild on the right", [LEFT_SEVERE, RIGHT_MILD]),
        ("Foraminal narrowing: left severe, right mild", [LEFT_SEVERE, RIGHT_MILD]),
        ("Foraminal narrowing: left: severe; right: mild", [LEFT_SEVERE, RIGHT_MILD]),
        ("Severe (left) and mild (right) foraminal narrowing", [LEFT_SEVERE, RIGHT_MILD]),
        ("Severe left-sided and mild right-sided foraminal narrowing", [LEFT_SEVERE, RIGHT_MILD]),
        ("Severe left foraminal narrowing and mild right", [LEFT_SEVERE, RIGHT_MILD]),
        ("Severe foraminal narrowing on the left and mild on the right", [LEFT_SEVERE, RIGHT_MILD]),
        ("Left foraminal narrowing is severe, right is mild", [LEFT_SEVERE, RIGHT_MILD]),
        ("Foramina are severely narrowed on the left and mildly narrowed on the right", [LEFT_SEVERE, RIGHT_MILD]),
        ("Mild to severe left and minimal to mild right foraminal narrowing", [LEFT_SEVERE, RIGHT_MILD]),
        ("Severe left foraminal narrowing; right foraminal narrowing, mild", [LEFT_SEVERE, RIGHT_MILD]),
        (
            "Severe left and mild right foraminal narrowing at L4-5 & L5-S1",
            [f"{level} {fact}" for fact in (LEFT_SEVERE, RIGHT_MILD) for level in ("L4/L5", "L5/S1")],
        ),
        (
            "Mild left and severe right recess and foraminal narrowing",
            [
                f"{kind} {side}"
                for kind in ("lateral recess narrowing", "foraminal narrowing")
                for side in ("left mild", "right severe")
            ],
        ),
        (
            "Large left and small right paracentral protrusions compressing the sac",
            ["protrusion left severe", "protrusion right mild", "thecal sac compression"],
        ),
        (
            "Moderate canal stenosis, severe left and mild right foraminal narrowing",
            ["stenosis moderate", LEFT_SEVERE, RIGHT_MILD],
        ),
        # One side may be denied, or graded beyond what is said of both.
        ("Mild right and no left foraminal narrowing", [RIGHT_MILD, "-foraminal narrowing left"]),
        ("No right and severe left foraminal narrowing", ["-foraminal narrowing right", LEFT_SEVERE]),
        ("No right but severe left foraminal narrowing", ["-foraminal narrowing right", LEFT_SEVERE]),
        ("Mild right foraminal narrowing and none on the left", [RIGHT_MILD, "-foraminal narrowing left"]),
        ("Foraminal narrowing: none on the right, severe on the left", ["-foraminal narrowing right", LEFT_SEVERE]),
        ("Mild bilateral foraminal narrowing, severe on the left", [RIGHT_MILD, LEFT_SEVERE]),
        # No grading of sides.
        ("No mild left or severe right foraminal narrowing", ["-foraminal narrowing mild"]),
        ("Foraminal narrowing, left greater than right", ["foraminal narrowing bilateral"]),
        ("Mild bilateral foraminal narrowing, L > R", ["foraminal narrowing bilateral mild"]),
        ("Moderate left worse than right foraminal narrowing", ["foraminal narrowing bilateral moderate"]),
        ("Annular tear on the left and mild bulge on the right", ["annular tear left", "bulge right mild"]),
        # An extra vertebra has levels of its own.
        ("L4-L5: normal. L5-L6: bulge compressing the sac", ["L5/L6 bulge", "L5/L6 thecal sac compression"]),
        ("L5/S1: bulge. L6/S1: tear. S1-2: cyst", ["L5/S1 bulge", "L6/S1 annular tear", "S1/S2 cyst"]),
        ("T12/13: bulge. T13-L1: tear. Bulge at D12-L1", ["T12/T13 bulge", "T13/L1 annular tear", "T12/L1 bulge"]),
        ("Bulges from L4-5 to L6-S1", ["L4/L5 bulge", "L5/L6 bulge", "L6/S1 bulge"]),
        ("Bulges from L4-5 to S1", ["L4/L5 bulge"]),
        (
            "Bulges at L4-S1. Bulges at L4/5,5/6 and 6/1",
            ["L4/L5 bulge", "L5/S1 bulge", "L4/L5 bulge", "L5/L6 bulge", "L6/S1 bulge"],
        ),
        # A level that is not understood, or has no name, is not the last one.
        ("L4-5: bulge. L7-S1: annular tear", ["L4/L5 bulge", "annular tear"]),
        ("L4-5: bulge. L8/9: pressing the sac", ["L4/L5 bulge", "thecal sac compression"]),
        ("L4-5 bulge. At the transitional level: protrusion", ["L4/L5 bulge", "protrusion"]),
        ("L4-5: bulge. Level below: protrusion", ["L4/L5 bulge", "protrusion"]),
    ],
)
def test_values(text, expected):
    assert facts(text) == expected
