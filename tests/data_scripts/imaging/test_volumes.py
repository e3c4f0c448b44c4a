import re
import tracemalloc
from unittest.mock import patch

import nibabel
import numpy as np
import pytest
from PIL import Image

from data_scripts.imaging import metaimage, nifti, volumes
from data_scripts.imaging.images import ORIENTATION_STATED, UnusableImageError, window_to_uint8
from data_scripts.imaging.volumes import (
    check_fit,
    chosen_slices,
    find_series,
    is_volume,
    load_mask,
    load_slice,
    read_volume,
)
from tests.data_scripts.imaging.dicom_files import draw_pixels, make_dicom
from tests.data_scripts.imaging.volume_files import (
    SPACING_MM,
    spine,
    write_enhanced,
    write_metaimage,
    write_nifti,
    write_series,
)

ANATOMY = spine()
SAGITTAL = ANATOMY[:, :, ::-1].transpose(0, 2, 1)  # from right to left; head up, front at the left
WRITERS = {
    "a.nii": write_nifti,
    "a.nii.gz": write_nifti,
    "a.mha": write_metaimage,
    "series": write_series,
    "a": write_enhanced,
}


@pytest.fixture(autouse=True)
def _nothing_is_held():
    """A file of another test must not be answered from memory."""
    volumes._grey_slices.cache_clear()
    volumes._class_slices.cache_clear()


def all_slices(series):
    return np.stack([np.asarray(load_slice(series, index)) for index in range(series.num_slices)])


def only(path, **options):
    (series,) = find_series(path, **options)
    if isinstance(series, UnusableImageError):
        raise series
    return series


@pytest.mark.parametrize("axes", ["LPS", "RAS", "LAS", "PIL", "AIR", "SRP"])
@pytest.mark.parametrize("name", WRITERS)
def test_every_format_and_order_gives_the_same_slices(tmp_path, name, axes):
    if name in ("series", "a"):
        axes = {"LPS": "PIL", "RAS": "ASR", "LAS": "PSR", "SRP": "SPR"}.get(axes, axes)  # slices are sagittal
    series = only(WRITERS[name](tmp_path / name, ANATOMY, axes))
    assert (series.plane, series.num_slices) == ("sagittal", 5)
    assert series.slice_spacing_mm == pytest.approx(4.4) and series.pixel_spacing_mm == pytest.approx(0.7)
    assert series.grid.corner_mm == pytest.approx((-12.0, -40.0, -250.0 + 29 * 0.7), abs=1e-3)
    grey = window_to_uint8(SAGITTAL.reshape(-1, 24)).reshape(SAGITTAL.shape)
    square = [np.asarray(Image.fromarray(one).resize((31, 30), Image.Resampling.BILINEAR)) for one in grey]
    assert np.array_equal(all_slices(series), square)
    volume = read_volume(tmp_path / name)
    assert np.array_equal(volume.voxels, SAGITTAL) and volume.grid == series.grid and volume.plane == "sagittal"


def test_other_planes_on_request(tmp_path):
    series = only(write_nifti(tmp_path / "a.nii", ANATOMY, "RAS"), plane="axial")
    assert (series.plane, series.num_slices, series.pixel_spacing_mm) == ("axial", 30, pytest.approx(0.9))
    assert load_slice(series, 0).size == (round(5 * 4.4 / 0.9), 24)
    assert only(write_series(tmp_path / "s", ANATOMY), plane="coronal").num_slices == 24


def test_one_window_serves_the_whole_volume(tmp_path):
    dim = np.full((3, 20, 20), 100, np.int16)
    dim[1] = 1000
    series = only(write_nifti(tmp_path / "a.nii", dim, "LPS"))
    assert [int(np.asarray(load_slice(series, index)).max()) for index in range(3)] == [0, 255, 0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_that_are_not_finite_are_black(tmp_path, dtype):
    voxels = ANATOMY.astype(dtype)
    voxels[2, :5] = np.nan
    voxels[3, :5] = np.inf
    series = only(write_nifti(tmp_path / "a.nii", voxels, spacing_mm=(4, 1, 1)))
    grey = all_slices(series)
    assert (grey[2:4, :, :5] == 0).all() and grey[2:4, :, 5:].any() and grey[0].any()
    with pytest.raises(UnusableImageError, match="no finite pixel"):
        load_slice(only(write_nifti(tmp_path / "b.nii", np.full((3, 4, 5), np.nan))), 0)


def test_a_negative_slope_inverts(tmp_path):
    plain = all_slices(only(write_nifti(tmp_path / "a.nii", ANATOMY, spacing_mm=(4, 1, 1))))
    content = bytearray((tmp_path / "a.nii").read_bytes())
    content[112:120] = np.array([-2, 5], "<f4").tobytes()
    (tmp_path / "b.nii").write_bytes(content)
    assert np.array_equal(all_slices(only(tmp_path / "b.nii")), 255 - plain)
    assert np.array_equal(read_volume(tmp_path / "b.nii").voxels, 5 - 2 * SAGITTAL.astype(float))


def test_without_orientation_slices_are_as_stored(tmp_path):
    image = nibabel.Nifti1Image(ANATOMY.transpose(1, 2, 0), None)
    image.header.set_zooms((1, 1, 4))
    nibabel.save(image, tmp_path / "a.nii")
    write_metaimage(tmp_path / "a.mha", ANATOMY, "PSL", spacing_mm=(4, 1, 1))
    lines = (tmp_path / "a.mha").read_bytes().split(b"\n")
    (tmp_path / "a.mha").write_bytes(b"\n".join(line for line in lines if not line.startswith(b"TransformMatrix")))
    assert load_slice(only(write_nifti(tmp_path / "b.nii", ANATOMY)), 0).info[ORIENTATION_STATED] is True
    for name in ("a.nii", "a.mha"):
        series = only(tmp_path / name)
        assert load_slice(series, 0).info[ORIENTATION_STATED] is False
        assert (series.plane, series.num_slices, series.stored.directions) == ("unknown", 5, None)
        assert np.array_equal(read_volume(tmp_path / name).voxels, ANATOMY.transpose(0, 2, 1))


@pytest.mark.parametrize("write", [write_nifti, write_metaimage, write_series])
def test_masks_lie_on_their_slices(tmp_path, write):
    classes = (ANATOMY > 600).astype(np.uint8) * 2 + (ANATOMY > 300)
    series = only(write_nifti(tmp_path / "a.nii.gz", ANATOMY, "RAS"))
    options = {} if write is write_series else {"axes": "ILP"}
    mask = only(write(tmp_path / "mask.nii", classes, **options))
    expected = classes[:, :, ::-1].transpose(0, 2, 1)
    for index in range(5):
        whole = Image.fromarray(expected[index]).resize((31, 30), Image.Resampling.NEAREST)
        assert np.array_equal(np.asarray(load_mask(mask, series, index)), np.asarray(whole))


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        (np.full(ANATOMY.shape, 300, np.int16), "whole numbers from 0 to 255, got 300 to 300"),
        (np.full(ANATOMY.shape, -1, np.int16), "whole numbers from 0 to 255"),
        (np.full(ANATOMY.shape, 0.5, np.float32), "whole numbers from 0 to 255"),
        (np.full(ANATOMY.shape, np.nan, np.float32), "not finite"),
    ],
)
def test_masks_without_classes_are_refused(tmp_path, classes, reason):
    series = only(write_nifti(tmp_path / "a.nii", ANATOMY))
    mask = only(write_nifti(tmp_path / "m.nii", classes))
    with pytest.raises(UnusableImageError, match=re.escape(reason)):
        load_mask(mask, series, 0)
    with pytest.raises(UnusableImageError, match="another grid"):
        check_fit(only(write_nifti(tmp_path / "o.nii", spine((5, 24, 31)))), series)
    whole = np.full(ANATOMY.shape, 7.0, np.float64)  # as many programs save masks
    assert np.asarray(load_mask(only(write_nifti(tmp_path / "f.nii", whole)), series, 2)).max() == 7


def test_a_volume_is_decoded_once_for_its_slices_and_held_in_a_byte_a_voxel(tmp_path):
    series = only(write_nifti(tmp_path / "a.nii.gz", spine((40, 128, 128))))
    damaged = tmp_path / "b.nii.gz"
    damaged.write_bytes((tmp_path / "a.nii.gz").read_bytes()[:-5000])
    bad = only(damaged)
    with patch.object(nifti, "read_voxels", wraps=nifti.read_voxels) as read:
        load_slice(series, 0)
        tracemalloc.start()
        for index in range(40):
            load_slice(series, index)
        assert tracemalloc.get_traced_memory()[1] < 2**20 and read.call_count == 1
        tracemalloc.stop()
        for index in range(40):
            with pytest.raises(UnusableImageError, match="damaged NIfTI volume"):
                load_slice(bad, index)
        assert read.call_count == 2
    assert volumes._grey_slices.cache_info().currsize == 1


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.nrrd", b"NRRD0004\n", "'a.nrrd' is a volume of format NRRD, which is not read; save it as NIfTI"),
        ("a.mgz", b"\x1f\x8b12", "format FreeSurfer"),
        ("a.mnc", b"\x89HDF\r\n", "format HDF5 or MINC"),
        ("a.img", b"\0" * 400, "format NIfTI or Analyze pair"),
        ("a.par", b"# === DATA", "format Philips PAR/REC"),
        ("a.zip", b"PK\3\4", "format zip archive"),
        ("A.NII.BZ2", b"BZh", "format bzip2"),
        ("a.mhd", b"NDims = 3\nElementDataFile = a.raw\n", "ElementDataFile must be LOCAL"),
        ("a.mha", b"", "not MetaImage"),
        ("a.nii.gz", b"not gzip", "not NIfTI: its header is damaged"),
    ],
)
def test_formats_that_are_not_read_are_named(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    assert is_volume(tmp_path / name)
    with pytest.raises(UnusableImageError, match=reason):
        find_series(tmp_path / name)


def test_pictures_are_no_volumes(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    Image.new("L", (4, 4)).save(tmp_path / "b.tif")
    (tmp_path / "c.txt").write_text("text")
    assert not any(is_volume(tmp_path / name) for name in ("a.png", "b.tif", "c.txt", "none"))
    with pytest.raises(UnusableImageError, match="'a.png' is not a volume; those read are NIfTI"):
        find_series(tmp_path / "a.png")


def test_the_sequence_comes_from_the_header_or_the_name(tmp_path):
    assert only(write_nifti(tmp_path / "sub-1_T2w.nii.gz", ANATOMY)).sequence == "T2"
    assert only(write_metaimage(tmp_path / "7_t2_SPACE.mha", ANATOMY)).sequence == "T2_SPACE"
    assert only(write_series(tmp_path / "s", ANATOMY, series_description="SAG STIR")).sequence == "STIR"
    assert only(write_nifti(tmp_path / "spine.nii", ANATOMY)).sequence == "unknown"


def test_one_volume_is_read_whole(tmp_path):
    write_series(tmp_path / "s/a", ANATOMY, SeriesInstanceUID="1.2")
    write_series(tmp_path / "s/b", ANATOMY, SeriesInstanceUID="1.3")
    with pytest.raises(UnusableImageError, match="'s' holds 2 series; name one"):
        read_volume(tmp_path / "s")
    make_dicom(tmp_path / "x", draw_pixels(np.uint16, 12, (3, 36, 34)))
    with pytest.raises(UnusableImageError, match="slices lie at the same place"):
        read_volume(tmp_path / "x")


@pytest.mark.parametrize(
    ("num_slices", "slices", "expected"),
    [
        (7, "all", range(7)),
        (7, "middle", [3]),
        (8, "middle", [3]),
        (7, "3", [2, 3, 4]),
        (2, "9", [0, 1]),
        (1, "middle", [0]),
    ],
)
def test_chosen_slices(num_slices, slices, expected):
    assert list(chosen_slices(num_slices, slices)) == list(expected)


def test_a_large_volume_is_not_decoded(tmp_path, monkeypatch):
    write_metaimage(tmp_path / "a.mha", ANATOMY)
    monkeypatch.setattr(metaimage, "MAX_VOLUME_BYTES", 100)
    with pytest.raises(UnusableImageError, match="volume too large"):
        find_series(tmp_path / "a.mha")


def test_spacings_are_those_of_the_stored_image(tmp_path):
    assert SPACING_MM == (4.4, 0.9, 0.7)
    series = only(write_series(tmp_path / "s", ANATOMY))
    width, height = load_slice(series, 0).size
    assert (width * 0.7, height * 0.7) == pytest.approx((24 * 0.9, 30 * 0.7), abs=0.4)
