import pytest

from tests.data_scripts.reports.test_findings import facts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Degenerative disc disease at L4-5", ["L4/L5 degenerative change"]),
        ("DDD. Discopathy. Degenerated discs. The disc is degenerated", ["degenerative change"] * 4),
        ("Degenerated bulging disc, degenerative disc bulge", ["bulge", "bulge"]),
        ("High intensity zone in the annulus at L4-5. HIZ", ["L4/L5 annular tear"] * 2),
        ("Annular fissuring, annular disruption", ["annular tear"] * 2),
        ("Tear at L4-5. Meniscal tear, muscle tear, dural tear", ["L4/L5 annular tear"]),
        ("Disc osteophyte complex; bony spurring", ["osteophyte"] * 2),
        ("Abutment of the left S1 root. It abuts the sac", ["nerve root contact left", "thecal sac contact"]),
        ("Mass effect on the sac, mass", ["thecal sac compression", "mass"]),
        ("Effacing the sac; entrapment of the root", ["thecal sac compression", "nerve root compression"]),
        ("Disc space collapse. Vertebral heights are maintained", ["disc space narrowing", "-vertebral height loss"]),
        ("Loss of T2 signal at L4-5", ["L4/L5 dehydration"]),
        ("Loss of the normal disc signal. Dark in T2 signal", ["dehydration"] * 2),
        ("Loss of normal lumbar lordosis. High signal in the posterior annulus", ["loss of lordosis", "annular tear"]),
        ("Grade 1 slip of L5. Slippage at L4-5", ["spondylolisthesis grade 1", "L4/L5 spondylolisthesis"]),
        ("Marrow: normal. Bone marrow signal is normal", ["-marrow change"] * 2),
        (
            "The left foramen is narrowed, the right is narrowed, too",
            ["foraminal narrowing left", "foraminal narrowing right"],
        ),
        (
            "The left recess is narrowed and the right is narrowed",
            ["lateral recess narrowing left", "lateral recess narrowing right"],
        ),
        ("Th12-L1: bulge. Th 11/Th 12: cyst", ["T12/L1 bulge", "T11/T12 cyst"]),
        ("Slipped disc. Grade 1 retrolisthesis of L5 on S1", ["herniation", "L5/S1 spondylolisthesis grade 1"]),
        ("Bilateral pars defects, left pars fracture", ["spondylolysis bilateral", "spondylolysis left"]),
        ("Facet joint degenerative disease, facet arthrosis", ["facet arthropathy"] * 2),
        ("Buckling of the ligamentum flavum", ["ligament hypertrophy"]),
        ("Clumping of the nerve roots", ["nerve root crowding"]),
        ("Compression deformity of L1. Intravertebral disc herniation", ["fracture", "Schmorl node"]),
        ("Metastases. Spondylodiscitis. Perineural cyst", ["mass", "discitis", "cyst"]),
        ("Levocurvature. Dextroscoliosis", ["scoliosis left", "scoliosis right"]),
        ("The roots are spared. Canal is widely patent", ["-nerve root compression", "-stenosis"]),
    ],
)
def test_synonyms(text, expected):
    assert facts(text) == expected
