from dataclasses import replace

import pytest
from PIL import Image

from data_scripts.records import LEVELS, Record, SourceAbout, SourceInfo, normalise_level, record_problem

ABOUT = SourceAbout(name="test", summary="", license="other: none", citation="", size="", where="")
MASK_NAMES = ("background", "vertebra", "disc")
INFO = SourceInfo(about=ABOUT, label_names=("LBP", "No Finding"), grade_names=("1", "2"), mask_names=MASK_NAMES)
RECORD = Record(
    load_image=lambda: Image.new("L", (1, 1)),
    report="Bulge.",
    patient_id="p",
    study_id="s",
    source="a",
    labels=("LBP",),
)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"labels": ()}, None),
        ({"grade": "2", "split": "test", "pixel_spacing_mm": 0.5}, None),
        ({"report": " \n"}, "empty report"),
        ({"patient_id": " "}, "unknown patient"),
        ({"patient_id": "Unknown"}, "unknown patient"),
        *(({"patient_id": unknown}, "unknown patient") for unknown in ("nan", "NA", "<na>", "?", "-")),
        ({"patient_id": "NA-1"}, None),
        *(
            ({"report": text}, "empty report")
            for text in ("n/d", "N.D.", "TBD", "Report pending", "see above", "ditto")
        ),
        *(({"report": text}, None) for text in ("Same as above, but bulge.", "See PACS: bulge.", "No disc.")),
        *(({"grade": text}, f"unknown grade '{text}'") for text in ("same", "x")),
        ({"sequence": "T3"}, "unknown sequence 'T3'; allowed: T1, T2"),
        ({"level": "C5/C6"}, "unknown level 'C5/C6'; allowed: T9/T10"),
        ({"plane": "oblique"}, "unknown plane 'oblique'; allowed: axial"),
        ({"labels": ("LPB",)}, "unknown label 'LPB'; allowed: LBP, No Finding"),
        ({"labels": ("LBP", "No Finding")}, "contradictory labels: 'No Finding' together with ['LBP']"),
        ({"grade": "3"}, "unknown grade '3'; allowed: 1, 2"),
        ({"mask_classes": ("disc",)}, None),
        ({"mask_classes": ("psoas",)}, "unknown mask class 'psoas'; allowed: vertebra, disc"),
        ({"mask_classes": ("background",)}, "unknown mask class 'background'"),
        ({"split": "holdout"}, "unknown split 'holdout'; allowed: train, validation, test"),
        ({"pixel_spacing_mm": 0.0}, "pixel_spacing_mm must be a positive number"),
        ({"pixel_spacing_mm": float("nan")}, "pixel_spacing_mm must be a positive number"),
        ({"disc_height_mm": 9.5}, None),
        ({"series_id": "t2", "slice_index": 0, "slice_spacing_mm": 4.0}, None),
        ({"slice_index": -1}, "slice_index must be 0 to 99999, got -1"),
        ({"slice_index": 2**31}, "slice_index must be 0 to 99999, got 2147483648"),
        ({"slice_spacing_mm": -4.0}, "slice_spacing_mm must be a positive number"),
        ({"disc_height_mm": float("inf")}, "disc_height_mm must be a positive number, got inf"),
    ],
)
def test_record_problem(change, reason):
    problem = record_problem(replace(RECORD, **change), INFO)
    assert problem is None if reason is None else problem.startswith(reason)


@pytest.mark.parametrize(
    ("level", "spellings"),
    [
        ("L4/L5", ("L4-5", "l4-L5", "L4–L5", "L45", "L 4 / L 5", "L4_L5")),
        ("L5/S1", ("L5-S1", "l5s1", "L5-1")),
        ("L5/L6", ("L5-6", "L5/6", "L5–L6", "l5l6")),
        ("L6/S1", ("L6-S1", "L6/1", "l6 s1")),
        ("S1/S2", ("S1-2", "S1/2", "s1s2")),
        ("T12/T13", ("T12-13", "Th12/Th13", "D12/13")),
        ("T13/L1", ("T13-L1", "Th13/L1", "T13-1")),
        ("T12/L1", ("T12-L1", "D12/L1", "TH12-1")),
        ("T9/T10", ("T9-10", "D9/D10")),
        ("unknown", ("", " ", "/", "Unknown")),
        ("several", ("Several",)),
    ],
)
def test_usual_spellings_of_levels(level, spellings):
    assert {normalise_level(text) for text in (level, *spellings)} == {level}
    assert record_problem(replace(RECORD, level=level), INFO) is None


def test_what_is_no_level_stays_as_it_is():
    for text in ("T12", "D3", "L5", "L4/S1", "L6/L7", "T13/L2", "S2/S3", "C5/C6"):
        assert normalise_level(text) == text


def test_levels_run_from_the_top_down():
    rank = {"T": 0, "L": 20, "S": 30}
    discs = [[rank[name[0]] + int(name[1:]) for name in level.split("/")] for level in LEVELS[:-2]]
    assert [upper for upper, _ in discs] == sorted(upper for upper, _ in discs)
    assert all(upper < lower for upper, lower in discs)
    assert LEVELS[-2:] == ("several", "unknown")
