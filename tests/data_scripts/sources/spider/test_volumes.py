import random

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from data_scripts.imaging.images import UnusableImageError
from data_scripts.records import Exclusion, ReadOptions, Record, record_problem
from data_scripts.sources.spider import source as spider
from data_scripts.sources.spider.volumes import MASK_NAMES, load_image, load_mask

GRADES = (
    "Patient,IVD label,Modic,UP endplate,LOW endplate,Spondylolisthesis,Disc herniation,Disc narrowing,Disc bulging"
)
SHAPE = (9, 20, 16)  # to the patient's left, downwards, backwards
SPINE = 5  # the slice through the middle of the spine, left of the middle of the volume


def anatomy():
    """A grey volume that tells its corners apart, and a mask: the canal is widest in the slice `SPINE`."""
    voxels = np.full(SHAPE, 100, np.int16)
    voxels[:, :4, :4] = 900  # at the top, in front
    voxels[:, -4:, :4] = 500  # at the bottom, in front
    voxels[SPINE, 10, 8] = 2000
    mask = np.zeros(SHAPE, np.uint8)
    for level in range(3):
        mask[2:8, 6 * level : 6 * level + 4, 2:8] = 3 - level  # vertebrae, the lowest is 1
        mask[2:8, 6 * level + 4 : 6 * level + 6, 2:8] = 203 - level
    mask[2:8, 18:, 2:8] = 101  # cut off by the edge of the image
    for index, width in ((4, 1), (SPINE, 3), (6, 2)):
        mask[index, :, 10 : 10 + width] = 100
    mask[4, :, 13:] = 4  # beside the canal, more bone is cut
    mask[0] = 100  # outside the middle third: a slip of the brush
    return voxels, mask


def write_volume(path, pixels, orientation="LPS", spacing=(0.5, 1.0, 4.0), is_compressed=False):
    """Write an array of the axes of `SHAPE`; `spacing` is backwards, downwards, to the left."""
    image = sitk.GetImageFromArray(pixels)
    image.SetSpacing(spacing)
    image.SetDirection([0, 0, 1, 1, 0, 0, 0, -1, 0])
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(sitk.DICOMOrient(image, orientation), str(path), is_compressed)


def write_gradings(raw, rows=("1,1,0,0,0,0,0,0,1,3", "1,2,0,0,0,0,1,0,0,4", "2,1,0,0,0,0,0,0,0,1")):
    (raw / "radiological_gradings.csv").write_text("\n".join([f"{GRADES},Pfirrman grade", *rows]) + "\n")


@pytest.fixture
def volumes(tmp_path):
    """Two series of patient 1 with masks, one of patient 2 without, each with axes of its own."""
    voxels, mask = anatomy()
    for name, orientation, is_compressed in (
        ("1_t1", "PIR", True),
        ("1_t2_SPACE", "RAI", False),
        ("2_t2", "SLP", True),
    ):
        write_volume(tmp_path / f"images/{name}.mha", voxels, orientation, is_compressed=is_compressed)
        if name != "2_t2":
            # The mask may name its axes otherwise than the volume.
            write_volume(tmp_path / f"masks/{name}.mha", mask, "LPS", is_compressed=True)
    write_gradings(tmp_path)
    return tmp_path


def read(raw):
    return list(spider.read(ReadOptions(raw=raw)))


@pytest.mark.parametrize("orientation", ["PIR", "PIL", "LPS", "RAI", "SAR", "ASL", "ILA", "IRP"])
def test_the_slice_is_upright_with_the_front_at_the_left(tmp_path, orientation):
    voxels, mask = anatomy()
    write_volume(tmp_path / "image.mha", voxels, orientation)
    write_volume(tmp_path / "mask.mha", mask, orientation)
    image = np.asarray(load_image(tmp_path / "image.mha", tmp_path / "mask.mha"))
    assert image.shape == (40, 16)  # 20 mm by 8 mm, pixels of 0.5 mm
    top_left, bottom_left = image[:7, :4], image[-7:, :4]
    right = image[:, 12:]
    assert top_left.min() > bottom_left.max() and bottom_left.min() > right.max()
    assert image[20:22, 8].tolist() == [191, 191]  # white, a quarter of the way to its black neighbours
    indices = np.asarray(load_mask(tmp_path / "image.mha", tmp_path / "mask.mha"))
    expected = np.zeros((20, 16), np.uint8)
    expected[:, 2:8] = np.repeat([1, 2, 1, 2, 1, 2, 1], [4, 2, 4, 2, 4, 2, 2])[:, None]
    expected[:, 10:13] = 3
    assert np.array_equal(indices, expected.repeat(2, axis=0))


def test_without_a_mask_the_middle_slice_is_taken(tmp_path):
    voxels = np.zeros(SHAPE, np.int16)
    voxels[4, :, 8:] = 1000
    voxels[5, 10:] = 1000
    write_volume(tmp_path / "image.mha", voxels, "RPI", spacing=(1.0, 1.0, 4.0))
    image = np.asarray(load_image(tmp_path / "image.mha", None))
    assert np.array_equal(image, (voxels[4] * 0.255).astype(np.uint8))


def test_each_volume_is_a_record(volumes):
    options = ReadOptions(raw=volumes)
    info, (first, second, third) = spider.describe(options), read(volumes)
    assert info.mask_names == MASK_NAMES == ("background", "vertebra", "disc", "spinal canal")
    assert [record.source for record in (first, second, third)] == [
        "SPIDER/images/1_t1.mha",
        "SPIDER/images/1_t2_SPACE.mha",
        "SPIDER/images/2_t2.mha",
    ]
    assert (first.patient_id, first.study_id) == ("spider-1", "spider-1") and third.patient_id == "spider-2"
    assert [record.sequence for record in (first, second, third)] == ["T1", "T2_SPACE", "T2"]
    assert (first.grade, first.labels) == ("4", ("Pfirrmann >= 4", "disc bulging", "disc herniation"))
    assert (third.grade, third.labels, third.load_mask) == ("1", ("No Finding",), None)
    assert len({first.report, *first.rephrasings}) == 5 and "L4" in first.report
    for record in (first, second, third):
        assert (record.plane, record.level, record.pixel_spacing_mm) == ("sagittal", "several", 0.5)
        assert record_problem(record, info) is None
        assert record.load_image().size == (16, 40)
    assert np.array_equal(np.asarray(first.load_mask()), np.asarray(second.load_mask()))
    assert first.load_mask().size == (16, 40)


@pytest.mark.parametrize(("slices", "expected"), [("1", [5]), ("3", [4, 5, 6]), ("8", [1, 2, 3, 4, 5, 6, 7, 8])])
def test_slices_about_the_middle_of_the_spine(volumes, slices, expected):
    records = [record for record in spider.read(ReadOptions(raw=volumes, slices=slices)) if "1_t1" in record.source]
    assert [record.slice_index for record in records] == expected
    assert records[0].source == f"SPIDER/images/1_t1.mha slice {expected[0]}"
    assert (records[0].series_id, records[0].slice_spacing_mm) == ("spider-1_t1", 4.0)
    (middle,) = (record for record in records if record.slice_index == SPINE)
    alone = read(volumes)[0]
    assert np.array_equal(np.asarray(middle.load_image()), np.asarray(alone.load_image()))
    assert np.array_equal(np.asarray(middle.load_mask()), np.asarray(alone.load_mask()))
    for record in records:
        canal = (np.asarray(record.load_mask()) == 3).any(axis=0).sum()
        assert canal == {4: 1, SPINE: 3, 6: 2}.get(record.slice_index, 0)


def test_all_slices_of_volumes(volumes):
    records = list(spider.read(ReadOptions(raw=volumes, slices="all")))
    assert len(records) == 3 * SHAPE[0]
    unmasked = [record for record in records if "2_t2" in record.source]
    assert [record.slice_index for record in unmasked] == [*range(SHAPE[0])]
    assert {record.load_mask for record in unmasked} == {None} and unmasked[3].load_image().size == (16, 40)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("1.mha", "a volume is named PATIENT_t1.mha, _t2.mha or _t2_SPACE.mha, got '1.mha'"),
        ("1_t3.mha", "a volume is named"),
        ("1_T2.mha", "a volume is named"),
        ("a_t2.mha", "a volume is named"),
        ("٣_t2.mha", "a volume is named"),
        ("9_t2.mha", "no gradings for patient '9' in radiological_gradings.csv"),
    ],
)
def test_a_volume_of_another_name_is_listed(volumes, name, reason):
    (volumes / "images/2_t2.mha").rename(volumes / "images" / name)
    items = read(volumes)
    (exclusion,) = (item for item in items if isinstance(item, Exclusion))
    assert exclusion.source == f"SPIDER/images/{name}" and exclusion.reason.startswith(reason)
    assert len(items) == 3


def test_broken_volumes_are_listed_when_read_or_when_loaded(volumes):
    first = volumes / "images/1_t1.mha"
    content = first.read_bytes()
    first.write_bytes(content.replace(b"DimSize = ", b"DimSize = 99999"))
    assert isinstance(read(volumes)[0], Exclusion) and "volume too large" in read(volumes)[0].reason
    first.write_bytes(content[:-10])
    record = read(volumes)[0]
    with pytest.raises(UnusableImageError, match="truncated"):
        record.load_image()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pixels": np.zeros((9, 20, 15), np.uint8)}, r"the mask does not fit: it has \(9, 20, 15\) voxels"),
        ({"spacing": (0.6, 1.0, 4.0)}, "the mask does not fit"),
        ({"pixels": np.full(SHAPE, 57, np.uint8)}, "unknown mask value 57; allowed: 0 to 25, 100 to 125, 201 to 225"),
        ({"pixels": np.full(SHAPE, 300, np.int16)}, "must be whole numbers from 0 to 255"),
        ({"pixels": np.full(SHAPE, 1.5, np.float32)}, "must be whole numbers from 0 to 255"),
    ],
)
def test_masks_that_cannot_be_right_are_refused(volumes, change, reason):
    write_volume(volumes / "masks/1_t1.mha", **{"pixels": anatomy()[1], **change})
    with pytest.raises(UnusableImageError, match=reason):
        read(volumes)[0].load_mask()


def test_a_malformed_row_of_grades_is_listed(volumes):
    write_gradings(volumes, ["1,1,0,0,0,0,0,0,1,3", "2,1,0,0", "2,2,0,0,0,0,0,0,0,1"])
    bad, *records = read(volumes)
    assert isinstance(bad, Exclusion) and bad.source == "radiological_gradings.csv row 2" and len(records) == 3


def test_a_built_dataset_holds_slices_and_masks(built, tmp_path):
    raw, (voxels, mask) = tmp_path / "raw", anatomy()
    for patient in range(1, 9):
        write_volume(raw / f"images/{patient}_t2.mha", voxels + patient, "ASL", is_compressed=patient % 2 == 0)
        write_volume(raw / f"masks/{patient}_t2.mha", mask, "ASL", is_compressed=True)
    (raw / "images/5_t2.mha").write_bytes((raw / "images/5_t2.mha").read_bytes()[:-9])
    write_gradings(raw, [f"{patient},1,0,0,0,0,0,0,1,3" for patient in range(1, 9)])
    report = built(raw, source="spider", max_bad=0.2)
    assert (report["rows_read"], report["rows_written"], report["num_masks"]) == (8, 7, 7)
    (exclusion,) = report["exclusions"]
    assert exclusion["source"] == "SPIDER/images/5_t2.mha" and "truncated" in exclusion["reason"]
    assert "1 vertebra, 2 disc, 3 spinal canal" in (tmp_path / "out/README.md").read_text()


def test_mutated_volumes_are_records_or_exclusions(volumes):
    draw = random.Random(0)
    paths = sorted(volumes.rglob("*.mha"))
    originals = {path: path.read_bytes() for path in paths}
    for _ in range(60):
        path = draw.choice(paths)
        content = bytearray(originals[path])
        for _ in range(3):
            content[draw.randrange(draw.choice((len(content), 400)))] = draw.randrange(256)
        path.write_bytes(content)
        items = read(volumes)
        assert len(items) == 3
        for record in (item for item in items if isinstance(item, Record)):
            try:
                image = record.load_image()
                assert record.load_mask is None or record.load_mask().size == image.size
            except UnusableImageError:
                continue
        path.write_bytes(originals[path])
