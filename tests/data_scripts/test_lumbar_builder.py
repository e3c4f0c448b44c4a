from dataclasses import replace

import datasets
import numpy as np
import pytest
from huggingface_hub import DatasetCard
from PIL import Image

from data_scripts.imaging.images import UnusableImageError
from data_scripts.lumbar_builder import encode_record, load_pixels, read_mask_names
from data_scripts.records import Record, SourceAbout, SourceInfo
from tests.data_scripts.preprocessing.drawn_spine import drawn_spine


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


@pytest.fixture
def sagittal_study(study):
    """Nine whole sagittal T2 slices, of which the first three have masks, and three axial ones."""

    def make():
        rows = [
            {
                "file_name": f"{number}.png",
                "report": "Disc bulge at L4/L5.",
                "patient_id": f"p{number}",
                "plane": "sagittal" if number < 9 else "axial",
                "sequence": "T2",
                "level": "several",
                "mask": f"mask{number}.png" if number < 3 else "",
            }
            for number in range(12)
        ]
        raw = study(rows)
        for number in range(12):
            pixels, mask = drawn_spine(96, seed=number)
            Image.fromarray(pixels).save(raw / f"{number}.png")
            if number < 3:
                Image.fromarray((mask == 2).astype(np.uint8)).save(raw / f"mask{number}.png")
        return raw

    return make


def test_pseudo_masks_are_told_from_masks_of_the_source(sagittal_study, built, tmp_path):
    report = built(sagittal_study(), pseudo_masks=True, mask_names=["background", "disc"])
    assert report["pseudo_masks"] == {"written": 6, "tried": 6} and report["num_masks"] == 9
    assert read_mask_names(tmp_path / "out") == ("background", "disc", "vertebra", "spinal canal")
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert card.data.num_pseudo_masks == 6 and "pseudo-masks" in card.data.tags
    assert card.data.pretty_name.endswith("(pseudo-masks)") and "**6 of these are pseudo-masks" in card.text
    splits = datasets.load_dataset(str(tmp_path / "out"))
    rows = {row["patient_id"]: row for split in splits.values() for row in split}
    for number in range(12):
        row = rows[f"p{number}"]
        if number < 3:
            assert (row["mask_origin"], row["mask_classes"]) == (0, [1])
        elif number < 9:
            assert (row["mask_origin"], row["mask_classes"]) == (1, [1, 2, 3])
            assert set(np.unique(np.asarray(row["mask"]))) == {0, 1, 2, 3}
        else:
            assert row["mask"] is row["mask_origin"] is row["mask_classes"] is None


def test_without_the_option_there_are_no_pseudo_masks(sagittal_study, built, tmp_path):
    report = built(sagittal_study())
    assert report["num_masks"] == 3 and report["pseudo_masks"]["written"] == 0
    assert "num_pseudo_masks" not in DatasetCard.load(tmp_path / "out" / "README.md").data.to_dict()


def test_pseudo_masks_that_would_mislead_are_not_made(sagittal_study, study, built, tmp_path):
    with pytest.raises(ValueError, match="your own masks have no names: --mask_names"):
        built(sagittal_study(), pseudo_masks=True)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="whole sagittal T2 slices without a mask, and there is none"):
        built(study(num_patients=4), pseudo_masks=True)
