import pickle
import re

import numpy as np
import pytest
from pydicom import dcmread

from data_scripts.imaging import dicom_series
from data_scripts.imaging.dicom_series import Stack, UnusableSeriesError, read_frames, read_stacks
from data_scripts.imaging.images import UnusableImageError
from tests.data_scripts.imaging.dicom_files import AXIAL, make_dicom, tilted
from tests.data_scripts.imaging.volume_files import spine, stored_as, write_enhanced, write_series


def axial(folder, places_mm, orientation=AXIAL, first=0, shape=(6, 8), **tags):
    """Slices at places along the normal."""
    normal = np.cross(orientation[:3], orientation[3:])
    for number, place in enumerate(places_mm, start=first):
        make_dicom(
            folder / f"{number}.dcm", np.full(shape, number, np.uint16), orientation=orientation,
            position=(normal * place).tolist(), InstanceNumber=number, **{"SeriesInstanceUID": "1.2.3", **tags},
        )  # fmt: skip
    return folder


def refused(stacks):
    return [str(stack) for stack in stacks if isinstance(stack, UnusableSeriesError)]


def test_slices_are_ordered_by_their_places(tmp_path):
    (stack,) = read_stacks(write_series(tmp_path, spine(), "PIL"))
    voxels, directions, _, corner = stored_as(spine(), "PIR")  # sagittal normals run to the right
    assert (stack.series_id, stack.sequence, stack.grid.size) == ("1.2.3.4", "unknown", (5, 30, 24))
    assert np.allclose(stack.grid.directions, directions[[2, 1, 0]]) and np.allclose(stack.grid.corner_mm, corner)
    assert stack.grid.spacing_mm == pytest.approx((4.4, 0.7, 0.9)) and stack.grid.slice_axis == 0
    values, is_inverted = read_frames(stack.frames)
    assert np.array_equal(values, voxels.transpose(2, 1, 0)) and not is_inverted


def test_a_multi_frame_file_is_a_stack(tmp_path):
    (stack,) = read_stacks(write_enhanced(tmp_path / "a", spine()))
    assert [frame for _, frame in stack.frames] == [0, 1, 2, 3, 4]
    assert np.array_equal(read_frames(stack.frames)[0], stored_as(spine(), "PIR")[0].transpose(2, 1, 0))


def test_each_series_and_each_tilt_is_a_stack(tmp_path):
    axial(tmp_path / "a", (0, 4, 8), SeriesInstanceUID="1.2")
    axial(tmp_path / "b", (50, 54), tilted(20, (1, 2)), SeriesInstanceUID="1.1")
    axial(tmp_path / "b", (90, 94, 98), tilted(35, (1, 2)), first=2, SeriesInstanceUID="1.1")
    stacks = read_stacks(tmp_path)
    assert [(stack.series_id, len(stack.frames)) for stack in stacks] == [("1.1/1", 2), ("1.1/2", 3), ("1.2", 3)]


def test_other_files_are_passed_over(tmp_path):
    axial(tmp_path, (0, 4, 8))
    for name, content in (
        ("Thumbs.db", b"x"),
        ("notes.txt", b"slices"),
        ("DICOMDIR", (tmp_path / "0.dcm").read_bytes()),
    ):
        (tmp_path / name).write_bytes(content)
    assert len(read_stacks(tmp_path)[0].frames) == 3


def test_what_holds_no_image_by_its_kind_is_passed_over(tmp_path):
    axial(tmp_path, (0, 4, 8))
    for name, modality in (("report", "SR"), ("display", "PR")):
        dataset = make_dicom(tmp_path / name, np.zeros((6, 8), np.uint16), Modality=modality)
        del dataset.PixelData, dataset.Rows
        dataset.save_as(tmp_path / name, enforce_file_format=True)
    assert len(read_stacks(tmp_path)[0].frames) == 3
    dataset.Modality = "MR"
    dataset.save_as(tmp_path / "display", enforce_file_format=True)
    with pytest.raises(UnusableImageError, match="'display' cannot be read as a slice: no DICOM image"):
        read_stacks(tmp_path)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"patient_id": "0002", "StudyInstanceUID": "1.9"}, "of 2 patients"),
        ({"StudyInstanceUID": "1.9"}, "of 2 examinations"),
    ],
)
def test_a_report_is_about_one_examination(tmp_path, tags, reason):
    axial(tmp_path / "a", (0, 4))
    axial(tmp_path / "a", (0, 4), first=2, SeriesInstanceUID="1.2.4", **tags)
    with pytest.raises(UnusableImageError, match=f"'a' holds slices {reason}; name a folder of one"):
        read_stacks(tmp_path / "a")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda at: axial(at, (0, 4, 12, 16)), "slices are missing: 1.dcm and 2.dcm are 8.0 mm apart, the others 4.0"),
        (lambda at: axial(at, (0, 4, 4, 8)), "slices lie at the same place (1.dcm and 2.dcm)"),
        (lambda at: axial(axial(at, (0, 4, 8)), (0, 4, 8), first=3), "as copies, echoes or time points do"),
        (lambda at: axial(axial(at, (0, 4)), (8,), first=2, shape=(7, 8)), "have several sizes: 8 x 6, 8 x 7"),
        (lambda at: axial(axial(at, (0, 4)), (8,), first=2, spacing=(1, 1)), "several pixel spacings: 0.6875 x 0.6875"),
    ],
)
def test_slices_that_make_no_volume_are_refused(tmp_path, make, reason):
    make(tmp_path / "a")
    axial(tmp_path / "b", (0, 4), SeriesInstanceUID="1.2.4")
    stacks = read_stacks(tmp_path)
    assert len(stacks) == 2 and isinstance(stacks[1], Stack)  # the other series is still read
    assert reason in refused(stacks)[0]
    again = pickle.loads(pickle.dumps(stacks[0]))
    assert (str(again), again.series_id) == (str(stacks[0]), "1.2.3")


def test_slices_that_lie_almost_evenly_are_a_stack(tmp_path):
    (stack,) = read_stacks(axial(tmp_path, (0, 4.1, 8, 12.2)))
    assert stack.grid.spacing_mm[0] == pytest.approx(12.2 / 3)


def test_without_places_slices_are_ordered_by_number(tmp_path):
    for number in (3, 1, 2):
        make_dicom(tmp_path / f"{number}", np.full((6, 8), number, np.uint16), orientation=None, position=None,
                   SeriesInstanceUID="1.2", InstanceNumber=number)  # fmt: skip
    (stack,) = read_stacks(tmp_path)
    assert stack.grid.directions is stack.grid.corner_mm is None
    assert read_frames(stack.frames)[0][:, 0, 0].tolist() == [1, 2, 3]


def test_a_folder_that_cannot_be_a_series_is_refused(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/a.nii.gz").write_bytes(b"")
    with pytest.raises(UnusableImageError, match=r"'empty' is a folder without DICOM slices \(no file\)"):
        read_stacks(tmp_path / "empty")
    with pytest.raises(UnusableImageError, match=r"without DICOM slices \(a\.nii\.gz\); name one file in it"):
        read_stacks(tmp_path / "other")
    axial(tmp_path / "a", (0, 4, 8))
    (tmp_path / "a/1.dcm").write_bytes((tmp_path / "a/1.dcm").read_bytes()[:-40])
    with pytest.raises(UnusableImageError, match=r"'1\.dcm' cannot be read as a slice: truncated DICOM"):
        read_stacks(tmp_path / "a")
    axial(tmp_path / "b", (0, 4, 8))
    (tmp_path / "b/4.dcm").symlink_to(tmp_path / "a/0.dcm")
    with pytest.raises(UnusableImageError, match=r"'4\.dcm' links to a file outside the folder"):
        read_stacks(tmp_path / "b")
    (tmp_path / "b/4.dcm").unlink()
    monkeypatch.setattr(dicom_series, "MAX_FILES", 1)
    with pytest.raises(UnusableImageError, match="more than 1 files"):
        read_stacks(tmp_path / "b")


def test_values_of_slices_with_scales_of_their_own_are_comparable(tmp_path):
    pixels = np.arange(48, dtype=np.uint16).reshape(6, 8)
    for number, (slope, intercept) in enumerate([(1, 0), (2, 5), (0.5, -3)]):
        make_dicom(tmp_path / f"{number}", pixels, position=(0, 0, 4 * number), SeriesInstanceUID="1.2",
                   RescaleSlope=slope, RescaleIntercept=intercept)  # fmt: skip
    (stack,) = read_stacks(tmp_path)
    values, _ = read_frames(stack.frames)
    assert np.allclose(values, [pixels, 2 * pixels + 5, pixels / 2 - 3])


@pytest.mark.parametrize(
    ("tags", "is_inverted"),
    [({}, False), ({"RescaleSlope": -1}, True), ({"PhotometricInterpretation": "MONOCHROME1"}, True),
     ({"RescaleSlope": -1, "PhotometricInterpretation": "MONOCHROME1"}, False)],
)  # fmt: skip
def test_inverted_slices(tmp_path, tags, is_inverted):
    (stack,) = read_stacks(axial(tmp_path, (0, 4), **tags))
    assert read_frames(stack.frames)[1] == is_inverted


def test_padding_has_no_value(tmp_path):
    (stack,) = read_stacks(axial(tmp_path, (0, 4), PixelPaddingValue=1))
    values, _ = read_frames(stack.frames)
    assert (values[0] == 0).all() and np.isnan(values[1]).all()


def test_what_makes_no_grey_volume_is_refused(tmp_path, monkeypatch):
    for number in range(2):
        make_dicom(tmp_path / f"rgb/{number}", np.zeros((6, 8, 3), np.uint8), position=(0, 0, number))
    with pytest.raises(UnusableImageError, match="slices in colour make no volume"):
        read_frames(read_stacks(tmp_path / "rgb")[0].frames)
    axial(axial(tmp_path / "mixed", (0, 4)), (8,), first=2, PhotometricInterpretation="MONOCHROME1")
    with pytest.raises(UnusableImageError, match="some slices of the series are MONOCHROME1"):
        read_frames(read_stacks(tmp_path / "mixed")[0].frames)
    monkeypatch.setattr(dicom_series, "MAX_VOLUME_BYTES", 200)
    with pytest.raises(UnusableImageError, match=re.escape("volume too large: 3 slices, at most 200 bytes")):
        read_frames(read_stacks(axial(tmp_path / "large", (0, 4, 8)))[0].frames)


def test_names_of_people_stay_in_the_files(tmp_path):
    dataset = dcmread(write_series(tmp_path, spine()) / "IM000")
    assert str(dataset.PatientName) == "Doe^Jane" and "Doe" not in repr(read_stacks(tmp_path))
