import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from PIL import Image

from data_scripts.imaging import metaimage
from data_scripts.imaging.images import window_to_uint8
from data_scripts.records import LEVELS, Exclusion, ReadOptions, Record, record_problem
from data_scripts.sources.spider import crops as spider_crops
from data_scripts.sources.spider import source as spider
from data_scripts.sources.spider import volumes

COLUMNS = (
    "Patient,IVD label,Modic,UP endplate,LOW endplate,Spondylolisthesis,Disc herniation,Disc narrowing,Disc bulging,"
    "Pfirrman grade"
)
SHAPE = (11, 30, 20)  # to the patient's left, downwards, backwards
# Number of each disc, and its box in voxels: the spine is curved, so that the middle slices differ.
BOXES = {
    201: (slice(3, 8), slice(24, 26), slice(6, 13)),
    202: (slice(4, 9), slice(16, 19), slice(5, 12)),
    203: (slice(5, 10), slice(8, 10), slice(4, 11)),
}
MIDDLE = {201: 5, 202: 6, 203: 7}
LEVEL_OF = {201: "L5/S1", 202: "L4/L5", 203: "L3/L4"}


def spine():
    """Grey noise, so that equal crops are the same crops, and a mask of three vertebrae, three discs and the canal."""
    voxels = np.random.default_rng(0).integers(0, 3000, SHAPE).astype(np.int16)
    mask = np.zeros(SHAPE, np.uint8)
    for vertebra, top, bottom in ((1, 19, 24), (2, 10, 16), (3, 2, 8)):
        mask[3:9, top:bottom, 5:12] = vertebra
    mask[3:9, :, 14:16] = 100
    for number, box in BOXES.items():
        mask[box] = number
    return voxels, mask


def write_volume(path, pixels, orientation="LPS", spacing=(0.5, 0.5, 4.0)):
    """Write an array of the axes of `SHAPE`; `spacing` is backwards, downwards, to the left."""
    image = sitk.GetImageFromArray(pixels)
    image.SetSpacing(spacing)
    image.SetDirection([0, 0, 1, 1, 0, 0, 0, -1, 0])
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.DICOMOrient(image, orientation), str(path), True)


def write_gradings(raw, rows=("1,1,0,0,0,0,0,0,1,3", "1,2,2,0,0,0,1,0,0,4", "1,3,0,0,0,0,0,0,0,1")):
    raw.mkdir(exist_ok=True)
    (raw / "radiological_gradings.csv").write_text("\n".join([COLUMNS, *rows]) + "\n")


@pytest.fixture
def raw(tmp_path):
    """One series of patient 1, and its grades."""
    folder = tmp_path / "raw"
    write_gradings(folder)
    voxels, mask = spine()
    write_volume(folder / "images/1_t2.mha", voxels)
    write_volume(folder / "masks/1_t2.mha", mask)
    return folder


def read(raw, slices="middle", **options):
    return list(spider.read(ReadOptions(raw=raw, crops="discs", slices=slices, **options)))


def only_exclusion(items):
    (exclusion,) = (item for item in items if isinstance(item, Exclusion))
    return exclusion


@pytest.mark.parametrize(
    ("orientation", "of_mask"), [("LPS", "LPS"), ("PIR", "LPS"), ("RAI", "ASL"), ("SAR", "PIL"), ("IRP", "SLA")]
)
def test_each_disc_is_cut_out_of_its_middle_slice_whatever_axes_are_stored(raw, orientation, of_mask):
    voxels, mask = spine()
    write_volume(raw / "images/1_t2.mha", voxels, orientation)
    write_volume(raw / "masks/1_t2.mha", mask, of_mask)
    records = read(raw)
    info = spider.describe(ReadOptions(raw=raw, crops="discs"))
    assert [record.level for record in records] == list(LEVEL_OF.values())
    for record, (number, (_, rows, columns)) in zip(records, BOXES.items(), strict=True):
        # Cut by hand: row 0 is the top, column 0 the front.
        by_hand = window_to_uint8(voxels[MIDDLE[number]])[rows, columns]
        assert np.array_equal(np.asarray(record.load_image()), by_hand)
        assert np.array_equal(np.asarray(record.load_mask()), np.full(by_hand.shape, 2))
        assert record_problem(record, info) is None
    assert [record.grade for record in records] == ["3", "4", "1"]
    assert [record.labels for record in records] == [
        ("disc bulging",),
        ("Pfirrmann >= 4", "disc herniation", "Modic change"),
        ("No Finding",),
    ]
    assert [record.source for record in records] == [
        f"SPIDER/images/1_t2.mha/ivd{ivd}/slice{index}" for ivd, index in ((1, 5), (2, 6), (3, 7))
    ]
    first = records[0]
    assert (first.patient_id, first.study_id, first.series_id) == ("spider-1", "spider-1", "spider-1_t2")
    assert (first.sequence, first.plane, first.slice_index) == ("T2", "sagittal", 5)
    assert (first.pixel_spacing_mm, first.slice_spacing_mm) == (0.5, 4.0)
    assert "L5" in first.report and len({first.report, *first.rephrasings}) == 5


def test_context_shows_the_vertebrae_and_ends_at_the_edge_of_the_slice(raw):
    voxels, mask = spine()
    first, *_, last = read(raw, context_mm=3.2)  # 6.4 pixels: 7 on each side
    assert np.array_equal(np.asarray(first.load_image()), window_to_uint8(voxels[5])[17:30, 0:20])
    classes = np.zeros(256, np.uint8)
    classes[[1, 2, 3]], classes[[201, 202, 203]], classes[100] = 1, 2, 3
    assert np.array_equal(np.asarray(first.load_mask()), classes[mask[5, 17:30, 0:20]])
    assert np.array_equal(np.asarray(last.load_image()), window_to_uint8(voxels[7])[1:17, 0:18])


@pytest.mark.parametrize(
    ("slices", "indices"),
    [
        ("middle", [5]),
        ("1", [5]),
        ("2", [5, 4]),
        ("3", [4, 5, 6]),
        ("4", [4, 5, 6, 3]),
        ("5", [3, 4, 5, 6, 7]),
        ("9", [3, 4, 5, 6, 7]),
        ("all", [3, 4, 5, 6, 7]),
    ],
)
def test_slices_are_those_nearest_to_the_middle_of_the_disc(raw, slices, indices):
    records = [record for record in read(raw, slices) if record.level == "L5/S1"]
    assert [record.slice_index for record in records] == sorted(indices)
    _, rows, columns = BOXES[201]
    for record in records:
        by_hand = window_to_uint8(spine()[0][record.slice_index])[rows, columns]
        assert np.array_equal(np.asarray(record.load_image()), by_hand)


def test_the_box_is_that_of_the_disc_in_its_own_slice(raw):
    voxels, mask = spine()
    mask[5, 24:26, 6:10] = 0  # shorter in the middle slice than beside it
    write_volume(raw / "masks/1_t2.mha", mask)
    below = [record for record in read(raw, "3") if record.level == "L5/S1"]
    assert [record.load_image().size for record in below] == [(7, 2), (3, 2), (7, 2)]
    assert np.array_equal(np.asarray(below[1].load_image()), window_to_uint8(voxels[5])[24:26, 10:13])


def test_a_crop_of_a_volume_whose_pixels_are_not_square_is_part_of_its_square_slice(raw):
    voxels, mask = spine()
    for folder, pixels in (("images", voxels), ("masks", mask)):
        write_volume(raw / f"{folder}/1_t2.mha", pixels, spacing=(0.5, 0.75, 4.0))
    first = read(raw)[0]
    grey = Image.fromarray(window_to_uint8(voxels[5])).resize((20, 45), Image.Resampling.BILINEAR)
    assert np.array_equal(np.asarray(first.load_image()), np.asarray(grey)[36:39, 6:13])
    assert first.pixel_spacing_mm == 0.5


def test_a_volume_is_decoded_once_for_its_crops(raw, monkeypatch):
    write_volume(raw / "images/1_t1.mha", spine()[0], "PIR")
    write_volume(raw / "masks/1_t1.mha", spine()[1], "PIR")
    records = read(raw, "3", context_mm=2)
    assert len(records) == 18
    decoded = []

    def counted(path):
        decoded.append(f"{path.parent.name}/{path.name}")
        return metaimage.read_sagittal_volume(path)

    monkeypatch.setattr(spider_crops, "read_sagittal_volume", counted)
    for record in records:
        assert record.load_image().size == record.load_mask().size
    assert sorted(decoded) == ["images/1_t1.mha", "images/1_t2.mha", "masks/1_t1.mha", "masks/1_t2.mha"]


def test_discs_without_grades_and_grades_without_discs_are_listed(raw):
    write_gradings(raw, ["1,1,0,0,0,0,0,0,1,3", "1,4,0,0,0,0,0,0,0,2", "1,3,0,0,0,0,0,0,0,1", "8,1,0,0,0,0,0,0,0,1"])
    items = read(raw)
    assert [item.level for item in items if isinstance(item, Record)] == ["L5/S1", "L3/L4"]
    listed = {item.source: item.reason for item in items if isinstance(item, Exclusion) and item.by_rule}
    assert listed == {
        "SPIDER/images/1_t2.mha/ivd2": "this disc has no grades in radiological_gradings.csv",
        "SPIDER/images/1_t2.mha/ivd4": "graded, but the mask has no such disc",
        "SPIDER/radiological_gradings.csv patient 8": "graded, but images/ has no volume of this patient",
    }


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1,2,0,0,0,0,0,0,1,6", "unknown Pfirrman grade '6'"),
        ("1,2,0,0,2,0,0,0,1,3", "unknown LOW endplate '2'"),
        ("1,0,0,0,0,0,0,0,0,3", "unknown IVD label '0'"),
        ("1,26,0,0,0,0,0,0,0,3", "unknown IVD label '26'"),
        ("1,L6/S1,0,0,0,0,0,0,0,3", "unknown IVD label 'L6/S1'"),
        ("1,1,0,0,0,0,0,0,0,3", "patient '1' has two gradings for one disc"),
    ],
)
def test_bad_grades_cost_one_disc(raw, row, reason):
    write_gradings(raw, ["1,1,0,0,0,0,0,0,1,3", row, "1,3,0,0,0,0,0,0,0,1"])
    bad = [item for item in read(raw) if isinstance(item, Exclusion) and not item.by_rule]
    assert len(bad) == 1 and bad[0].reason.startswith(reason)
    assert "L3/L4" in [item.level for item in read(raw) if isinstance(item, Record)]


def moved_up(mask):
    """Number the vertebrae from an L6, the discs not."""
    return np.where(np.isin(mask, (1, 2, 3)), mask + 1, mask)


def with_another_vertebra(number):
    def make(mask):
        return np.where(np.indices(SHAPE)[1] >= 26, number * (mask == 0) + mask, mask)

    return make


def swapped(mask):
    return np.where(mask == 202, 203, np.where(mask == 203, 202, mask))


def swapped_without_vertebrae(mask):
    return np.where(swapped(mask) > 200, swapped(mask), 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (moved_up, "disc 202 lies above vertebra 2"),
        (with_another_vertebra(4), "disc 201 lies above vertebra 4"),
        (swapped, "disc 202 lies above vertebra 2"),
        (swapped_without_vertebrae, "disc 203 lies below disc 202"),
        (lambda mask: np.where(mask == 2, 5, mask), "disc 203 lies above vertebra 5"),
        (lambda mask: np.where(mask > 200, mask + 1, mask), "disc 202 lies below vertebra 1"),
    ],
)
def test_the_levels_of_a_mask_that_contradicts_itself_are_not_guessed(raw, change, words):
    write_volume(raw / "masks/1_t2.mha", change(spine()[1]).astype(np.uint8))
    (exclusion,) = read(raw)
    assert exclusion.source == "SPIDER/images/1_t2.mha" and not exclusion.by_rule
    assert words in exclusion.reason and "the levels are not known" in exclusion.reason


@pytest.mark.parametrize("number", [101, 103, 104])
def test_vertebrae_that_the_image_cuts_off_contradict_nothing(raw, number):
    write_volume(raw / "masks/1_t2.mha", with_another_vertebra(number)(spine()[1]).astype(np.uint8))
    assert len([item for item in read(raw) if isinstance(item, Record)]) == 3


@pytest.mark.parametrize("number", [0, 102])
def test_a_vertebra_that_is_not_marked_or_cut_off_contradicts_nothing(raw, number):
    write_volume(raw / "masks/1_t2.mha", np.where(spine()[1] == 2, number, spine()[1]).astype(np.uint8))
    assert [item.level for item in read(raw) if isinstance(item, Record)] == list(LEVEL_OF.values())


def test_a_disc_above_all_levels_is_listed(raw):
    mask = np.where(spine()[1] > 200, spine()[1], 0).astype(np.uint8)
    mask[5:10, 0:2, 4:11] = 210
    write_volume(raw / "masks/1_t2.mha", mask)
    write_gradings(raw, ["1,1,0,0,0,0,0,0,1,3", "1,2,0,0,0,0,0,0,0,3", "1,3,0,0,0,0,0,0,0,1", "1,10,0,0,0,0,0,0,0,1"])
    exclusion = only_exclusion(read(raw))
    assert exclusion.source.endswith("ivd10") and "unknown IVD label '10'" in exclusion.reason


@pytest.mark.parametrize(
    ("path", "content", "reason"),
    [
        ("masks/1_t2.mha", None, "no mask masks/1_t2.mha, which says where the discs are"),
        ("masks/1_t2.mha", np.zeros((11, 30, 19), np.uint8), "the mask does not fit"),
        ("masks/1_t2.mha", np.full(SHAPE, 201.5, np.float32), "must be whole numbers"),
        ("masks/1_t2.mha", np.full(SHAPE, -1, np.int16), "must be whole numbers"),
    ],
)
def test_a_mask_that_cannot_be_used_is_listed(raw, path, content, reason):
    (raw / path).unlink()
    if content is not None:
        write_volume(raw / path, content)
    exclusion = only_exclusion(read(raw))
    assert exclusion.source == "SPIDER/images/1_t2.mha" and reason in exclusion.reason


def test_a_mask_without_discs_gives_only_grades_without_discs(raw):
    write_volume(raw / "masks/1_t2.mha", np.zeros(SHAPE, np.uint8))
    assert [item.by_rule for item in read(raw)] == [True] * 3


def test_other_forms_have_nothing_to_cut(tmp_path):
    (tmp_path / "discs.csv").write_text("file\n")
    with pytest.raises(ValueError, match="--crops discs cuts discs out of volumes, but .* holds discs"):
        spider.describe(ReadOptions(raw=tmp_path, crops="discs"))


def test_a_built_dataset_of_crops_holds_every_sequence(built, tmp_path):
    from datasets import load_dataset

    raw, (voxels, mask) = tmp_path / "raw", spine()
    for patient in range(1, 7):
        for sequence in ("t1", "t2", "t2_SPACE"):
            write_volume(raw / f"images/{patient}_{sequence}.mha", voxels, "ASL")
            write_volume(raw / f"masks/{patient}_{sequence}.mha", mask, "PIR")
    (raw / "images/5_t2.mha").write_bytes((raw / "images/5_t2.mha").read_bytes()[:-9])
    write_gradings(raw, [f"{patient},{ivd},0,0,0,0,0,0,1,3" for patient in range(1, 7) for ivd in (1, 2, 3)])
    report = built(raw, source="spider", crops="discs", context_mm=1.0, max_bad=0.1)
    assert (report["rows_read"], report["rows_written"], report["num_masks"]) == (54, 51, 51)
    assert all("truncated" in exclusion["reason"] for exclusion in report["exclusions"])
    rows = [row for split in load_dataset(str(tmp_path / "out")).values() for row in split]
    for row in rows:
        number = 201 + int(row["source"].split("/ivd")[1][0]) - 1
        _, height, width = BOXES[number]
        by_hand = window_to_uint8(voxels[MIDDLE[number]])[
            height.start - 2 : height.stop + 2, width.start - 2 : width.stop + 2
        ]
        assert np.array_equal(np.asarray(row["image"]), by_hand)
        assert LEVELS[row["level"]] == LEVEL_OF[number] and row["slice_index"] == MIDDLE[number]
    assert {row["series_id"].partition("_")[2] for row in rows} == {"t1", "t2", "t2_SPACE"}
    assert "cut where the volume's mask marks the disc" in (tmp_path / "out/README.md").read_text()


def test_the_two_forms_window_alike(raw):
    """A crop is part of the slice that the form of whole volumes would store."""
    (crop,) = [record for record in read(raw) if record.level == "L5/S1"]
    whole = volumes.grey_slice(spine()[0][5], metaimage.read_header(raw / "images/1_t2.mha"))
    assert np.array_equal(np.asarray(crop.load_image()), np.asarray(whole)[24:26, 6:13])
