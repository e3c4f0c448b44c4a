import pytest

from tests.data_scripts.reports.test_findings import facts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # A denial ends where a statement with a severity, a side, an article or a verb of its own begins.
        ("No bulge or cyst and there is mild stenosis", ["-bulge", "-cyst", "stenosis mild"]),
        ("No stenosis and mild left foraminal narrowing", ["-stenosis", "foraminal narrowing left mild"]),
        ("No cyst and severe stenosis", ["-cyst", "stenosis severe"]),
        ("No cyst and right foraminal narrowing", ["-cyst", "foraminal narrowing right"]),
        ("No stenosis and a small protrusion", ["-stenosis", "protrusion mild"]),
        ("No herniation and the canal is narrowed", ["-herniation", "stenosis"]),
        ("No herniation, the canal is narrowed", ["-herniation", "stenosis"]),
        ("The canal is not narrowed and the discs are bulging", ["-stenosis", "bulge"]),
        ("It does not compress the sac and abuts the root", ["-thecal sac compression", "nerve root contact"]),
        ("No cyst is seen and mild bulge is present", ["-cyst", "bulge mild"]),
        ("Absence of cyst and presence of a bulge", ["-cyst", "bulge"]),
        ("Negative for cyst and positive for stenosis", ["-cyst", "stenosis"]),
        # A denied list goes on.
        ("No cyst and stenosis. No cyst and stenosis is seen", ["-cyst", "-stenosis"] * 2),
        ("No thecal sac and left root compression", ["-thecal sac compression", "-nerve root compression left"]),
        ("No compression of sac and left root", ["-thecal sac compression", "-nerve root compression left"]),
        ("No left and right foraminal narrowing", ["-foraminal narrowing"]),
        (
            "No bulge compressing the sac and displacing the root",
            ["-bulge", "-thecal sac compression", "-nerve root compression"],
        ),
        ("No cyst, bulge, or fracture, but mild stenosis", ["-cyst", "-bulge", "-fracture", "stenosis mild"]),
        ("No herniation and significant stenosis", ["-herniation", "-stenosis"]),
        ("No abnormality or cyst", ["-cyst"]),
        # Not denied: "no more than", change, exceptions.
        ("No more than mild stenosis", ["stenosis mild"]),
        ("Not greater than minimal bulge", ["bulge minimal"]),
        ("No stenosis greater than mild", ["stenosis mild"]),
        ("Nothing but a mild bulge", ["bulge mild"]),
        ("No evidence of worsening stenosis", ["stenosis"]),
        ("No significant interval worsening of stenosis", ["stenosis"]),
        ("Without progression of the bulge", ["bulge"]),
        ("No increase in the L4-5 bulge", ["L4/L5 bulge"]),
        ("No new fracture or cyst", []),
        ("No abnormality except for mild bulge", ["bulge mild"]),
        ("No stenosis apart from left foraminal narrowing", ["-stenosis", "foraminal narrowing left"]),
        ("No cyst other than mild bulge", ["-cyst", "bulge mild"]),
        ("Normal discs aside from bulge at L5-S1", ["L5/S1 bulge"]),
        ("Normal study except L4-5 bulge", ["L4/L5 bulge"]),
        ("Apart from L4-5 bulge, no cyst", ["L4/L5 bulge", "-cyst"]),
        ("No cyst yet mild stenosis; no cyst whereas stenosis", ["-cyst", "stenosis mild", "-cyst", "stenosis"]),
        ("No cyst – mild stenosis", ["-cyst", "stenosis mild"]),
        # What is denied in other words.
        (
            "Bulge rather than protrusion. Rather than cyst, there is a bulge",
            ["bulge", "-protrusion", "-cyst", "bulge"],
        ),
        ("Bulge instead of protrusion, not extrusion", ["bulge", "-protrusion", "-extrusion"]),
        ("Bulge fails to compress the sac", ["bulge", "-thecal sac compression"]),
        ("Bulge does not reach the root", ["bulge", "-nerve root contact"]),
        ("MRI failed to demonstrate cyst. It did not demonstrate a bulge", ["-cyst", "-bulge"]),
        ("MRI ruled out cyst. It excludes fracture. Nothing to suggest mass", ["-cyst", "-fracture", "-mass"]),
        ("Not only a bulge but also a protrusion", ["bulge", "protrusion"]),
        ("Neither bulge nor cyst but stenosis", ["-bulge", "-cyst", "stenosis"]),
        ("The bulge is no longer present and no longer compresses the root", ["-bulge", "-nerve root compression"]),
        ("Non stenotic canal, non compressive bulge", ["-stenosis", "bulge"]),
        # Questions are no findings.
        ("R/O cyst. Rule out stenosis; bulge", ["bulge"]),
        ("Please evaluate for cyst. Assess for stenosis. Query bulge. To exclude fracture", []),
        ("Suspected cyst. Bulge is suspected. Clinical suspicion of discitis. Stenosis suspected clinically", []),
        ("Concern for cyst. Evaluation of stenosis is limited. Evaluation of the canal shows a cyst", ["cyst"]),
        ("If there is stenosis, surgery is advised. Whether there is a cyst is unclear", []),
        ("CT recommended for fracture. Risk of fracture. Fracture should be excluded. Cyst is unlikely", []),
        ("Stenosis is not well evaluated; cyst cannot be assessed", []),
        ("Is there a cyst? No. Stenosis?", ["-cyst"]),
        ("Query stenosis, but the canal is normal", ["-stenosis"]),
        ("45-year-old man with herniation. Herniation, for evaluation. Patient with cyst", []),
        # Nor is what was seen or done before.
        ("Prior MRI showed L4-5 extrusion. Compressing the sac", ["thecal sac compression"]),
        ("MRI of 2019 demonstrated a cyst. In 2019 there was a bulge", []),
        ("The cyst seen on the previous MRI. On the prior study there was a bulge", []),
        ("Previously seen cyst has resolved; bulge seen on the prior MRI is no longer visible", ["-cyst", "-bulge"]),
        ("Previously noted bulge is unchanged. Known L4-5 bulge, stable", ["bulge", "L4/L5 bulge"]),
        ("Previously described extrusion is now a protrusion", ["protrusion"]),
        ("Compared with the prior MRI, the bulge is larger. Protrusion has progressed", ["bulge", "protrusion"]),
        ("In comparison with the previous exam, a new bulge is noted", ["bulge"]),
        ("History of cyst. Family history of scoliosis. Mother has scoliosis. Follow-up of stenosis", []),
        ("Known case of cyst. Treated for discitis", []),
        ("History of surgery. Status post laminectomy for stenosis", ["postoperative change"] * 2),
        ("S/p fusion for cyst with residual stenosis", ["postoperative change", "stenosis"]),
        ("Surgical consultation is recommended", []),
    ],
)
def test_values(text, expected):
    assert facts(text) == expected
