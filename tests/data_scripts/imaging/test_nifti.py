import gzip
import random
import re
import tracemalloc

import nibabel
import numpy as np
import pytest

from data_scripts.imaging import nifti
from data_scripts.imaging.images import UnusableImageError
from data_scripts.imaging.nifti import is_nifti, read_header, read_voxels
from tests.data_scripts.imaging.volume_files import CORNER_MM, affine_of, spine, stored_as, write_nifti


def saved(path, voxels, affine=None, image_type=nibabel.Nifti1Image, **header):
    image = image_type(voxels, np.diag([0.9, 0.9, 4, 1]) if affine is None else affine)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "no_suffix"])
@pytest.mark.parametrize("image_type", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.float32, np.float64, ">i2"])
def test_both_versions_every_type_and_byte_order(tmp_path, name, image_type, dtype):
    voxels = (np.random.default_rng(0).random((3, 4, 5)) * 100).astype(dtype)
    image = image_type(voxels, np.diag([0.9, 0.8, 4, 1]))
    if dtype == ">i2":
        image = image_type(voxels, image.affine, image.header.as_byteswapped(">"))
    path = tmp_path / (name if "." in name else "a.nii")
    nibabel.save(image, path)
    path = path.rename(tmp_path / name)
    assert is_nifti(path) and np.array_equal(read_voxels(path), voxels.T)
    header = read_header(path)
    assert header.grid.size == (5, 4, 3) and header.grid.spacing_mm == pytest.approx((4, 0.8, 0.9))
    assert header.grid.directions == ((0, 0, 1), (0, -1, 0), (-1, 0, 0))  # to the head, front and right


def test_the_sform_outranks_the_qform_which_serves_a_sheared_one(tmp_path):
    _, directions, spacing, corner = stored_as(spine(), "PIL")
    stated, other = affine_of(directions, spacing, corner), np.diag([2.0, 2, 2, 1])
    image = nibabel.Nifti1Image(stored_as(spine(), "PIL")[0], stated)
    image.set_qform(other, code=1)
    image.set_sform(stated, code=2)
    nibabel.save(image, tmp_path / "a.nii")
    grid = read_header(tmp_path / "a.nii").grid
    assert np.allclose(grid.directions, directions[::-1]) and np.allclose(grid.corner_mm, corner, atol=1e-3)
    sheared = stated.copy()
    sheared[:3, 0] += 0.5 * sheared[:3, 1]
    for form in (sheared, np.zeros((4, 4))):
        image.set_sform(form, code=2)
        image.set_qform(stated, code=1)
        nibabel.save(image, tmp_path / "a.nii")
        assert np.allclose(read_header(tmp_path / "a.nii").grid.directions, directions[::-1], atol=1e-3)
        image.set_qform(None, code=0)
        nibabel.save(image, tmp_path / "a.nii")
        with pytest.raises(UnusableImageError, match="sform, qform. is damaged, or its axes are not perpendicular"):
            read_header(tmp_path / "a.nii")


def test_a_header_without_orientation_states_none(tmp_path):
    image = nibabel.Nifti1Image(spine(), None)
    image.header.set_zooms((4.4, 0.9, 0.7))
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)
    nibabel.save(image, tmp_path / "a.nii.gz")
    grid = read_header(tmp_path / "a.nii.gz").grid
    assert grid.directions is grid.corner_mm is None and grid.spacing_mm == pytest.approx((0.7, 0.9, 4.4))
    image.header.set_xyzt_units("meter")
    nibabel.save(image, tmp_path / "b.nii")
    assert read_header(tmp_path / "b.nii").grid.spacing_mm == pytest.approx((700, 900, 4400))


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("meter", 1000), ("micron", 0.001), ("unknown", 1)])
def test_units(tmp_path, unit, factor):
    image = nibabel.Nifti1Image(spine(), np.diag([4.4, 0.9, 0.7, 1]))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii")
    assert read_header(tmp_path / "a.nii").grid.spacing_mm == pytest.approx((0.7 * factor, 0.9 * factor, 4.4 * factor))


def test_scale_and_slice_axis(tmp_path):
    image = nibabel.Nifti1Image(spine(), np.eye(4))
    image.header.set_dim_info(freq=2, phase=1, slice=0)
    nibabel.save(image, tmp_path / "a.nii")
    header = read_header(tmp_path / "a.nii")
    assert (header.slope, header.intercept, header.grid.slice_axis) == (1, 0, 2)
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[112:120] = np.array([-2, 5], "<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(content)
    header = read_header(tmp_path / "a.nii")
    assert (header.slope, header.intercept) == (-2, 5)


@pytest.mark.parametrize(
    ("shape", "size"), [((3, 4, 5, 1), (5, 4, 3)), ((3, 4), (1, 4, 3)), ((3, 4, 5, 1, 1), (5, 4, 3))]
)
def test_a_single_volume_may_have_more_or_fewer_dimensions(tmp_path, shape, size):
    voxels = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    path = saved(tmp_path / "a.nii", voxels)
    assert read_header(path).grid.size == size and np.array_equal(read_voxels(path).ravel(), voxels.ravel(order="F"))


@pytest.mark.parametrize(
    ("voxels", "reason"),
    [
        (np.zeros((3, 4, 5, 6), np.int16), "of 6 volumes (time points, echoes or channels), dimensions 3 x 4 x 5 x 6"),
        (np.zeros((3, 4, 5, 1, 3), np.int16), "of 3 volumes"),
        (np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "type 128"),
        (np.zeros((3, 4, 5), np.complex64), "type 32"),
    ],
)
def test_what_is_no_single_grey_volume_is_refused(tmp_path, voxels, reason):
    with pytest.raises(UnusableImageError, match=re.escape(reason)):
        read_header(saved(tmp_path / "a.nii.gz", voxels))


def test_pairs_are_named(tmp_path):
    nibabel.save(nibabel.Nifti1Pair(spine(), np.eye(4)), tmp_path / "a.hdr")
    nibabel.save(nibabel.AnalyzeImage(spine(), np.eye(4)), tmp_path / "b.hdr")
    for name in ("a.hdr", "b.hdr"):
        assert is_nifti(tmp_path / name)
        with pytest.raises(UnusableImageError, match=r"pair \(\.hdr, \.img\); save it as one file"):
            read_header(tmp_path / name)


def test_damaged_files_are_refused(tmp_path):
    path = write_nifti(tmp_path / "a.nii", spine())
    content = path.read_bytes()
    wrong_sum = gzip.compress(content)
    cases = {
        "truncated NIfTI volume": content[:-1],
        "has more than the": content + b"\0",
        "damaged or too short": content[:300],
        "voxels begin at byte": content[:108] + np.float32(2**30).tobytes() + content[112:],
        "damaged NIfTI volume": gzip.compress(content)[:-20],
        "CRC check failed": wrong_sum[:-8] + bytes([wrong_sum[-8] ^ 1]) + wrong_sum[-7:],
        "dimensions must be positive": content[:42] + b"\0\0" + content[44:],
        "volume too large": content[:42] + np.array([30000, 30000, 30000], "<i2").tobytes() + content[48:],
    }
    for reason, damaged in cases.items():
        path.write_bytes(damaged)
        with pytest.raises(UnusableImageError, match=re.escape(reason)):
            read_voxels(path)
    with pytest.raises(UnusableImageError, match="missing volume: 'none.nii' is not a file"):
        read_header(tmp_path / "none.nii")
    assert not is_nifti(tmp_path / "none.nii") and not is_nifti(tmp_path)


def test_a_bomb_is_defused(tmp_path):
    path = write_nifti(tmp_path / "a.nii", spine())
    path.write_bytes(gzip.compress(path.read_bytes() + bytes(2**27), 1))
    tracemalloc.start()
    try:
        with pytest.raises(UnusableImageError, match="has more than the"):
            read_voxels(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_mutated_files_are_read_as_they_state_or_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(nifti, "MAX_VOLUME_BYTES", 2**16)
    path, draw = tmp_path / "a.nii", random.Random(4)
    original = write_nifti(path, spine((3, 8, 8))).read_bytes()
    assert read_header(path).grid.corner_mm == pytest.approx(CORNER_MM)
    num_read = 0
    for number in range(600):
        content = bytearray(original)
        for _ in range(draw.randint(1, 3)):
            content[draw.randrange(348)] = draw.choice((0, 1, 127, 128, 255, draw.randrange(256)))
        content = bytes(content[: draw.choice((None, None, draw.randrange(len(content))))])
        path.write_bytes(gzip.compress(content) if number % 2 else content)
        try:
            voxels = read_voxels(path)
        except UnusableImageError:
            continue
        assert voxels.shape == read_header(path).grid.size
        num_read += 1
    assert 50 < num_read < 500
