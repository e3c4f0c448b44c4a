from dataclasses import replace

import pytest
from PIL import Image

from data_scripts.records import Record, SourceAbout, SourceInfo, record_problem

ABOUT = SourceAbout(name="test", summary="", license="other: none", citation="", size="", where="")
INFO = SourceInfo(about=ABOUT, label_names=("LBP", "No Finding"), grade_names=("1", "2"))
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
        ({"sequence": "T3"}, "unknown sequence 'T3'; allowed: T1, T2"),
        ({"level": "C5/C6"}, "unknown level 'C5/C6'; allowed: T10/T11"),
        ({"plane": "oblique"}, "unknown plane 'oblique'; allowed: axial"),
        ({"labels": ("LPB",)}, "unknown label 'LPB'; allowed: LBP, No Finding"),
        ({"labels": ("LBP", "No Finding")}, "contradictory labels: 'No Finding' together with ['LBP']"),
        ({"grade": "3"}, "unknown grade '3'; allowed: 1, 2"),
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
