import pytest

from tests.data_scripts.reports.test_findings import facts

NARROWED = "foraminal narrowing"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # A level between adjective and noun.
        ("Moderate L3/L4 stenosis, mild L4/L5 bulge", ["L3/L4 stenosis moderate", "L4/L5 bulge mild"]),
        ("Mild L4-L5 disc bulge", ["L4/L5 bulge mild"]),
        ("Mild right L4/L5 foraminal narrowing", [f"L4/L5 {NARROWED} right mild"]),
        ("Severe left L5-S1 foraminal stenosis", [f"L5/S1 {NARROWED} left severe"]),
        ("Right L4-5 paracentral protrusion", ["L4/L5 protrusion right"]),
        ("Left paracentral L4-5 protrusion", ["L4/L5 protrusion left"]),
        ("Small central L4/5 protrusion", ["L4/L5 protrusion central mild"]),
        ("Bilateral L4-5 foraminal narrowing", [f"L4/L5 {NARROWED} bilateral"]),
        ("Mild-to-moderate right L4-5 foraminal stenosis", [f"L4/L5 {NARROWED} right moderate"]),
        ("Mild narrowing of the right L4-5 foramen", [f"L4/L5 {NARROWED} right mild"]),
        ("Severe L3-4 and L4-5 bulges", ["L3/L4 bulge severe", "L4/L5 bulge severe"]),
        (
            "Mild L4-5 and L5-S1 foraminal narrowing and a cyst",
            [f"{level} {fact}" for fact in (f"{NARROWED} mild", "cyst") for level in ("L4/L5", "L5/S1")],
        ),
        (
            "Bulge at L3-4 and severe right L4-5 foraminal narrowing with root compression",
            ["L3/L4 bulge", f"L4/L5 {NARROWED} right severe", "L4/L5 nerve root compression"],
        ),
        (
            "Tiny L3-4 bulge; small left L4-5 protrusion; large right L5-S1 extrusion",
            ["L3/L4 bulge minimal", "L4/L5 protrusion left mild", "L5/S1 extrusion right severe"],
        ),
        (
            "Mild right L4-5 recess and foraminal narrowing",
            ["L4/L5 lateral recess narrowing right mild", f"L4/L5 {NARROWED} right mild"],
        ),
        # Levels graded before their finding.
        ("Mild L4/5 and severe L5/S1 foraminal narrowing", [f"L4/L5 {NARROWED} mild", f"L5/S1 {NARROWED} severe"]),
        (
            "Mild L3/4, moderate L4/5 and severe L5/S1 canal stenosis",
            ["L3/L4 stenosis mild", "L4/L5 stenosis moderate", "L5/S1 stenosis severe"],
        ),
        (
            "Severe left L4-5 and mild right L5-S1 foraminal narrowing",
            [f"L4/L5 {NARROWED} left severe", f"L5/S1 {NARROWED} right mild"],
        ),
        ("Left L4-5 and right L5-S1 protrusions", ["L4/L5 protrusion left", "L5/S1 protrusion right"]),
        ("L4/5 severe and L5/S1 mild canal stenosis", ["L4/L5 stenosis severe", "L5/S1 stenosis mild"]),
        ("At L3-4 there is mild and at L4-5 severe stenosis", ["L3/L4 stenosis mild", "L4/L5 stenosis severe"]),
        (
            "Mild L1-2 through L3-4 and severe L4-5 stenosis",
            [*(f"{level} stenosis mild" for level in ("L1/L2", "L2/L3", "L3/L4")), "L4/L5 stenosis severe"],
        ),
        # Levels graded after their finding.
        ("Stenosis is mild at L3/L4 and severe at L4/L5", ["L3/L4 stenosis mild", "L4/L5 stenosis severe"]),
        (
            "Foraminal narrowing: mild at L3-4, moderate at L4-5, severe at L5-S1",
            [f"L3/L4 {NARROWED} mild", f"L4/L5 {NARROWED} moderate", f"L5/S1 {NARROWED} severe"],
        ),
        (
            "Disc bulges at L3-4 (mild), L4-5 (moderate) and L5-S1 (severe)",
            ["L3/L4 bulge mild", "L4/L5 bulge moderate", "L5/S1 bulge severe"],
        ),
        ("Stenosis: L3-4 mild; L4-5: severe", ["L3/L4 stenosis mild", "L4/L5 stenosis severe"]),
        ("Stenosis at L3-4 is mild and at L4-5 severe", ["L3/L4 stenosis mild", "L4/L5 stenosis severe"]),
        ("Mild stenosis at L3-4, mild to moderate at L4-5", ["L3/L4 stenosis mild", "L4/L5 stenosis moderate"]),
        (
            "Mild stenosis at L3-4 and severe at L4-5 with root compression",
            ["L3/L4 stenosis mild", "L4/L5 stenosis severe", "L4/L5 nerve root compression"],
        ),
        ("Bulges at L3-4 and L4-5, severe at L4-5", ["L3/L4 bulge", "L4/L5 bulge severe"]),
        (
            "Bilateral foraminal narrowing at L3-4 and L4-5, severe at L4-5",
            [f"L3/L4 {NARROWED} bilateral", f"L4/L5 {NARROWED} bilateral severe"],
        ),
        ("Canal stenosis, severe at L4-5 and mild elsewhere", ["L4/L5 stenosis severe", "stenosis mild"]),
        ("Stenosis is severe at L4-5 but mild at the other levels", ["L4/L5 stenosis severe", "stenosis mild"]),
        (
            "Canal is mildly narrowed at L3-4 and severely narrowed at L4-5",
            ["L3/L4 stenosis mild", "L4/L5 stenosis severe"],
        ),
        (
            "L3-4 bulge, foraminal narrowing mild at L4-5 and severe at L5-S1",
            ["L3/L4 bulge", f"L4/L5 {NARROWED} mild", f"L5/S1 {NARROWED} severe"],
        ),
        # With the sides of each level.
        (
            "Severe left foraminal narrowing at L4-5 and mild right at L5-S1",
            [f"L4/L5 {NARROWED} left severe", f"L5/S1 {NARROWED} right mild"],
        ),
        (
            "Foraminal narrowing: L4-5 (severe left, mild right), L5-S1 (mild left)",
            [f"L4/L5 {NARROWED} left severe", f"L4/L5 {NARROWED} right mild", f"L5/S1 {NARROWED} left mild"],
        ),
        (
            "Severe left and mild right foraminal narrowing at L4-5, mild bilateral at L5-S1",
            [f"L4/L5 {NARROWED} left severe", f"L4/L5 {NARROWED} right mild", f"L5/S1 {NARROWED} bilateral mild"],
        ),
        ("Mild bulge at L4-5, left paracentral at L5-S1", ["L4/L5 bulge mild", "L5/S1 bulge left"]),
        (
            "Protrusion to the left at L4-5 and to the right at L5-S1",
            ["L4/L5 protrusion left", "L5/S1 protrusion right"],
        ),
        # Denied at a level.
        ("No stenosis at L3-4, mild at L4-5", ["-L3/L4 stenosis", "L4/L5 stenosis mild"]),
        ("No L3-4 and mild L4-5 stenosis", ["-L3/L4 stenosis", "L4/L5 stenosis mild"]),
        ("Mild stenosis at L3-4, none at L4-5", ["L3/L4 stenosis mild", "-L4/L5 stenosis"]),
        ("Stenosis is absent at L3-4, mild at L4-5", ["-L3/L4 stenosis", "L4/L5 stenosis mild"]),
        ("No mild L3-4 or severe L4-5 stenosis", ["-L3/L4 stenosis mild", "-L4/L5 stenosis"]),
        ("No right L4-5 or left L5-S1 foraminal narrowing", [f"-L4/L5 {NARROWED} right", f"-L5/S1 {NARROWED} left"]),
        ("No left L4-5 foraminal narrowing", [f"-L4/L5 {NARROWED} left"]),
        ("Stenosis: none at L4-5", ["-L4/L5 stenosis"]),
        ("Stenosis is none at L3-4 and L4-5 moderate bulge", ["-L3/L4 stenosis", "L4/L5 bulge moderate"]),
        ("L3-4 no stenosis and L4-5 mild stenosis", ["-L3/L4 stenosis", "L4/L5 stenosis mild"]),
        # Two findings.
        (
            "Bulge at L3-4 (mild) and severe left L4-5 foraminal narrowing",
            ["L3/L4 bulge mild", f"L4/L5 {NARROWED} left severe"],
        ),
        (
            "Severe left bulge at L4-5; L3-4 moderate stenosis; tear at L5-S1 (mild)",
            ["L4/L5 bulge left severe", "L3/L4 stenosis moderate", "L5/S1 annular tear mild"],
        ),
        (
            "Marked protrusion at L2-3, annular tear: severe at L4-5",
            ["L2/L3 protrusion severe", "L4/L5 annular tear severe"],
        ),
        # What is not clear is not said.
        ("L3-4 and L4-5 bulges, the latter severe", ["L3/L4 bulge", "L4/L5 bulge"]),
        ("Mild and severe stenosis at L3-4 and L4-5, respectively", ["L3/L4 stenosis", "L4/L5 stenosis"]),
        ("Bulges at L3-4 and L4-5, more severe at L4-5", ["L3/L4 bulge", "L4/L5 bulge"]),
        ("Bulges at L3-4 and L4-5, severe at the last", ["L3/L4 bulge", "L4/L5 bulge"]),
        ("Bulges at L3-4 and L4-5 (severe)", ["L3/L4 bulge", "L4/L5 bulge severe"]),
        ("Stenosis: severe at L4-5, otherwise mild", ["L4/L5 stenosis severe"]),
        (
            "Severe left foraminal narrowing at L4-5 and right at L5-S1",
            [f"L4/L5 {NARROWED} left severe", f"L5/S1 {NARROWED} right"],
        ),
        (
            "Bulges pressing the sac: mild at L3-4, severe at L4-5",
            [f"{level} {kind}" for kind in ("bulge", "thecal sac compression") for level in ("L3/L4", "L4/L5")],
        ),
        ("Compression of the left root at L4-5 and the right root at L5-S1", ["L4/L5 nerve root compression left"]),
    ],
)
def test_levels_graded_one_by_one(text, expected):
    assert facts(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Bulge at L3-4 is mild, stenosis at L4-5", ["L3/L4 bulge mild", "L4/L5 stenosis"]),
        ("There is mild, diffuse bulge at L4-5", ["L4/L5 bulge mild"]),
        ("Mild bulge at L3-4, mild to moderate left bulge at L4-5", ["L3/L4 bulge mild", "L4/L5 bulge left moderate"]),
        ("Stenosis at L4-5 (severe) is seen", ["L4/L5 stenosis severe"]),
        ("Foraminal narrowing at L4-5, severe on the left", [f"L4/L5 {NARROWED} left severe"]),
        ("Mild L4-5 and severe L5-S1 ankylosis, bulge", ["L4/L5 bulge", "L5/S1 bulge"]),
    ],
)
def test_other_severities_stay_with_their_finding(text, expected):
    assert facts(text) == expected
