from dataclasses import replace

import datasets
import numpy as np
import pytest
from PIL import Image

from data_scripts.imaging.images import UnusableImageError
from data_scripts.lumbar_builder import encode_record, load_pixels, read_mask_names
from data_scripts.records import Record, SourceAbout, SourceInfo


def test_a_mask_marks_only_the_classes_of_its_row():
    pixels = np.array([[0, 1], [2, 2]], np.uint8)
    about = SourceAbout(name="test", summary="", license="other: none", citation="", size="", where="")
    info = SourceInfo(about=about, label_names=(), mask_names=("background", "vertebra", "disc"))
    record = Record(
        load_image=lambda: Image.fromarray(pixels),
        load_mask=lambda: Image.fromarray(pixels),
        report="Bulge.",
        patient_id="p",
        study_id="s",
        source="a",
    )
    assert encode_record(record, info, *load_pixels(record, info))["mask_classes"] == [1, 2]
    named = replace(record, mask_classes=("disc", "vertebra"))
    assert encode_record(named, info, *load_pixels(named, info))["mask_classes"] == [1, 2]
    with pytest.raises(UnusableImageError, match=r"mask contains class 1 \(vertebra\), which it should not mark"):
        load_pixels(replace(record, mask_classes=("disc",)), info)
    unnamed = replace(info, mask_names=())
    assert encode_record(record, unnamed, *load_pixels(record, unnamed))["mask_classes"] is None
    without = replace(record, load_mask=None)
    row = encode_record(without, info, *load_pixels(without, info))
    assert row["mask"] is row["mask_classes"] is row["mask_origin"] is None


def test_classes_of_own_masks_have_the_names_given(study, built, tmp_path):
    rows = [
        {"file_name": f"{n}.png", "report": "Bulge.", "patient_id": f"p{n}", "mask": f"mask{n % 2}.png"}
        for n in range(24)
    ]
    raw = study(rows)
    for number in range(2):
        Image.fromarray(np.full((12, 10), number, np.uint8)).save(raw / f"mask{number}.png")
    Image.fromarray(np.full((12, 10), 3, np.uint8)).save(raw / "other.png")
    table = (raw / "metadata.csv").read_text().replace("23.png,Bulge.,p23,mask1.png", "23.png,Bulge.,p23,other.png")
    (raw / "metadata.csv").write_text(table)
    report = built(raw, mask_names=["background", "vertebra", "disc"])
    (exclusion,) = report["exclusions"]
    assert "mask contains class 3; known are 0 to 2" in exclusion["reason"]
    assert read_mask_names(tmp_path / "out") == ("background", "vertebra", "disc")
    train = datasets.load_dataset(str(tmp_path / "out"), split="train")
    assert train.features["mask_classes"].feature.names == ["background", "vertebra", "disc"]
    assert train["mask_classes"][0] == [1, 2] and set(train["mask_origin"]) == {0}
