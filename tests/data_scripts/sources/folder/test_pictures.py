"""Volumes in the table of a folder: every format gives the same rows."""

import json

import datasets
import numpy as np
import pytest
from PIL import Image

from data_scripts.imaging.images import UnusableImageError
from data_scripts.records import Exclusion, ReadOptions, Record
from data_scripts.sources.folder import source as folder
from data_scripts.sources.folder.pictures import pictures_of
from tests.data_scripts.imaging.dicom_files import make_dicom
from tests.data_scripts.imaging.volume_files import (
    spine,
    write_enhanced,
    write_metaimage,
    write_nifti,
    write_series,
)

ANATOMY = spine()
CLASSES = (ANATOMY > 600).astype(np.uint8) * 2 + (ANATOMY > 300)
SHOWN = ANATOMY[:, :, ::-1].transpose(0, 2, 1)  # sagittal, from right to left; head up, front at the left
# Of each format: how the spine and its mask are stored.
FORMATS = {
    "nifti_ras": (write_nifti, "a.nii.gz", "RAS", write_nifti, "mask.nii.gz", "RAS"),
    "nifti_las": (write_nifti, "a.nii", "LAS", write_nifti, "mask.nii", "RPI"),
    "nifti_pil": (write_nifti, "a.nii.gz", "PIL", write_metaimage, "mask.mha", "LPS"),
    "metaimage_lps": (write_metaimage, "a.mha", "LPS", write_metaimage, "mask.mha", "PSR"),
    "metaimage_asr": (write_metaimage, "a.mha", "ASR", write_nifti, "mask.nii.gz", "LAS"),
    "series_pil": (write_series, "series", "PIL", write_nifti, "mask.nii.gz", "RAS"),
    "series_air": (write_series, "series", "AIR", write_series, "mask", "PIL"),
    "series_spl": (write_series, "series", "SPL", write_series, "mask", "SPL"),
    "enhanced_pil": (write_enhanced, "IM0", "PIL", write_enhanced, "mask_IM0", "AIR"),
    "enhanced_asr": (write_enhanced, "IM0", "ASR", write_nifti, "mask.nii.gz", "PIL"),
}


def rows_of_table(name, mask="", num_patients=4):
    return [
        {"file_name": f"{patient}/{name}", "mask": mask and f"{patient}/{mask}", "report": "Disc bulge at L4/L5.",
         "patient_id": f"p{patient}", "labels": "LBP", "sequence": "T2"}
        for patient in range(num_patients)
    ]  # fmt: skip


def read(raw, **options):
    return list(folder.read(ReadOptions(raw=raw, **options)))


@pytest.fixture
def built_rows(study, built, tmp_path):
    """Build a dataset of four patients whose volumes are stored in one way; return its rows in order."""

    def run(storage):
        write, name, axes, write_mask, mask, mask_axes = FORMATS[storage]
        raw = study(rows_of_table(name, mask))
        for patient in range(4):
            write(raw / f"{patient}/{name}", ANATOMY, axes)
            write_mask(raw / f"{patient}/{mask}", CLASSES, mask_axes)
        report = built(raw, out=tmp_path / storage, split_fractions=[0.5, 0.25, 0.25])
        assert report["rows_written"] == 20 and report["exclusions"] == [] == report["orientation_not_stated"]
        loaded = datasets.load_dataset(str(tmp_path / storage))
        rows = [row for split in loaded for row in loaded[split]]
        raw.rename(tmp_path / f"raw_{storage}")
        return sorted(rows, key=lambda row: (row["patient_id"], row["slice_index"]))

    return run


def facts(row):
    varying = ("source", "series_id", "image", "mask", "pixel_spacing_mm", "slice_spacing_mm")
    spacings = (round(row["pixel_spacing_mm"], 4), round(row["slice_spacing_mm"], 4))
    return {name: value for name, value in row.items() if name not in varying}, spacings


def test_however_a_volume_is_stored_the_dataset_is_the_same(built_rows):
    expected = built_rows("nifti_ras")
    assert [row["slice_index"] for row in expected] == [0, 1, 2, 3, 4] * 4
    assert facts(expected[0])[1] == (0.7, 4.4) and expected[0]["plane"] == 1
    # The slices are those of the array: the block of the first row of SHOWN is in front and near the head.
    brightest = [np.asarray(row["image"]).astype(int)[:7, :10].mean() for row in expected[:5]]
    assert brightest == sorted(brightest) and np.asarray(expected[0]["image"])[-2:, -3:].mean() > 60
    for storage in [*FORMATS][1:]:
        rows = built_rows(storage)
        for row, other in zip(rows, expected, strict=True):
            assert facts(row) == facts(other), storage
            assert np.array_equal(np.asarray(row["image"]), np.asarray(other["image"])), storage
            assert np.array_equal(np.asarray(row["mask"]), np.asarray(other["mask"])), storage
        assert len({row["series_id"] for row in rows}) == (4 if "series" not in storage else 1)


@pytest.mark.parametrize(("slices", "indices"), [("all", [0, 1, 2, 3, 4]), ("middle", [2]), ("3", [1, 2, 3])])
def test_slices_are_chosen_about_the_middle(study, slices, indices):
    raw = study(rows_of_table("a.mha", num_patients=1))
    write_metaimage(raw / "0/a.mha", ANATOMY)
    records = read(raw, slices=slices)
    assert [record.slice_index for record in records] == indices
    assert {record.series_id for record in records} == {"study/0/a.mha"}
    assert records[0].source == f"study/0/a.mha slice {indices[0]}"
    expected = [SHOWN[index].shape for index in indices]
    assert [record.load_image().size[1] for record in records] == [height for height, _ in expected]


def test_the_table_asks_for_a_plane(study):
    rows = rows_of_table("a.mha", num_patients=1)
    raw = study([{**rows[0], "plane": "Axial"}])
    write_metaimage(raw / "0/a.mha", ANATOMY)
    records = read(raw)
    assert len(records) == 30 and {record.plane for record in records} == {"axial"}
    assert records[0].slice_spacing_mm == pytest.approx(0.7)


def test_a_folder_of_several_series_gives_the_slices_of_each(study):
    raw = study(rows_of_table("dicom", num_patients=1))
    write_series(raw / "0/dicom/a", ANATOMY, SeriesInstanceUID="1.1")
    write_series(raw / "0/dicom/b", spine((3, 24, 30)), SeriesInstanceUID="1.2")
    (raw / "0/dicom/b/IM001").unlink()  # the middle one or not: two slices remain, or a gap
    write_series(raw / "0/dicom/c", spine((4, 24, 30)), SeriesInstanceUID="1.3")
    write_series(raw / "0/dicom/d", spine((4, 24, 30)), SeriesInstanceUID="1.3")  # copies
    items = read(raw)
    records = [item for item in items if isinstance(item, Record)]
    assert [record.series_id for record in records] == ["1.1"] * 5 + ["1.2"] * 2
    assert records[0].source == "study/0/dicom series 1 slice 0"
    (bad,) = [item for item in items if isinstance(item, Exclusion)]
    assert bad.source == "metadata.csv row 1" and "slices lie at the same place" in bad.reason


@pytest.mark.parametrize(("column", "value"), [("series_id", "t2"), ("slice_index", "1")])
def test_what_each_slice_has_itself_cannot_be_given_for_all(study, column, value):
    raw = study([{**rows_of_table("a.mha", num_patients=1)[0], column: value}])
    write_metaimage(raw / "0/a.mha", ANATOMY)
    (bad,) = read(raw)
    assert f"{column} given for a file of several slices" in bad.reason


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: write_nifti(path / "m.nii", spine((5, 24, 31))), "another grid: 5 x 31 x 24 voxels"),
        (lambda path: write_nifti(path / "m.nii", CLASSES, spacing_mm=(4, 0.9, 0.7)), "another grid"),
        (lambda path: Image.new("L", (24, 30)).save(path / "m.png"), "mask 'm.png' is one image, its image a volume"),
        (lambda path: (path / "m.nrrd").write_bytes(b"NRRD0004"), "format NRRD, which is not read"),
    ],
)
def test_a_mask_that_does_not_fit_its_volume_is_refused(tmp_path, make, reason):
    image = write_nifti(tmp_path / "a.nii", ANATOMY)
    make(tmp_path)
    (mask,) = [path for path in tmp_path.iterdir() if path.name.startswith("m.")]
    with pytest.raises(UnusableImageError, match=reason):
        pictures_of(image, mask)


def test_a_volume_is_no_mask_of_one_image(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    make_dicom(tmp_path / "b", np.zeros((4, 4), np.uint16))
    mask = write_nifti(tmp_path / "m.nii", CLASSES)
    for name in ("a.png", "b"):
        with pytest.raises(UnusableImageError, match=r"mask 'm\.nii' is a volume, its image one slice"):
            pictures_of(tmp_path / name, mask)


def test_a_damaged_volume_is_listed_slice_by_slice(study, built, tmp_path):
    raw = study(rows_of_table("a.nii.gz", num_patients=5))
    for patient in range(5):
        write_nifti(raw / f"{patient}/a.nii.gz", ANATOMY + patient)
    write_nifti(raw / "3/a.nii.gz", ANATOMY)
    (raw / "3/a.nii.gz").write_bytes((raw / "3/a.nii.gz").read_bytes()[:-900])
    report = built(raw, max_bad=0.5, split_fractions=[1, 0, 0], keep_ids=False)
    assert report["rows_read"] == 25 and report["rows_written"] == 20
    names = json.loads((tmp_path / "out.rows.json").read_text())["rows"]  # the report itself names no row
    left_out = {names[bad["source"]] for bad in report["exclusions"]}
    assert left_out == {f"study/3/a.nii.gz slice {index}" for index in range(5)}
    assert all("damaged NIfTI volume" in bad["reason"] for bad in report["exclusions"])
    for row in datasets.load_dataset(str(tmp_path / "out"), split="train"):
        assert row["series_id"].startswith("series-") and row["source"].startswith("folder/file-")
