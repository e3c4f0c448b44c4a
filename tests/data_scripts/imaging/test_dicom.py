import multiprocessing
import os
import pickle
import signal
import warnings
from functools import partial

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from data_scripts.imaging import dicom
from data_scripts.imaging.dicom import (
    is_dicom,
    order_slices,
    read_all_headers,
    read_headers,
    read_mask,
    read_slice,
)
from data_scripts.imaging.images import ORIENTATION_STATED, UnusableImageError
from data_scripts.system.worker_pool import Workers
from tests.data_scripts.imaging.dicom_files import AXIAL, CORONAL, SAGITTAL, draw_pixels, make_dicom, tilted

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
IDENTITY_WINDOW = {"WindowCenter": 128, "WindowWidth": 256}  # on 0 to 255


def grey(path, frame=0):
    return np.asarray(read_slice(path, frame))


def test_pixels_become_squares_of_the_finer_spacing(tmp_path):
    rows = np.repeat([[0], [100], [200]], 5, axis=1).astype(np.uint8)
    make_dicom(tmp_path / "a", rows, spacing=(1.5, 0.5))
    (header,) = read_headers(tmp_path / "a")
    assert (header.rows, header.columns, header.pixel_spacing_mm) == (3, 5, (1.5, 0.5))
    assert header.stored_spacing_mm == 0.5
    # Linear between the centres of the rows, which lie at 1, 4 and 7.
    assert grey(tmp_path / "a")[:, 2].tolist() == [0, 0, 33, 67, 100, 133, 167, 200, 200]
    make_dicom(tmp_path / "b", rows, spacing=(0.6875, 0.6875))
    (header,) = read_headers(tmp_path / "b")
    assert header.stored_spacing_mm == 0.6875


@pytest.mark.parametrize(
    ("tags", "spacing"),
    [
        ({}, (0.5, 0.75)),
        ({"ImagerPixelSpacing": [9, 9]}, (0.5, 0.75)),
        ({"PixelSpacing": None, "ImagerPixelSpacing": [0.14, 0.14]}, (0.14, 0.14)),
        ({"PixelSpacing": None}, None),
        ({"PixelSpacing": [0, 0.75]}, None),
        ({"PixelSpacing": [0.5, 0.5, 0.5]}, None),
    ],
)
def test_spacing(tmp_path, tags, spacing):
    make_dicom(tmp_path / "a", draw_pixels(np.uint8, 8), spacing=(0.5, 0.75), **tags)
    (header,) = read_headers(tmp_path / "a")
    assert header.pixel_spacing_mm == spacing


@pytest.mark.parametrize(
    ("orientation", "plane"),
    [
        (AXIAL, "axial"),
        (SAGITTAL, "sagittal"),
        (CORONAL, "coronal"),
        ((-1, 0, 0, 0, -1, 0), "axial"),
        ((0, -1, 0, 0, 0, 1), "sagittal"),
        (tilted(20, (1, 2)), "axial"),
        (tilted(-20, (1, 2)), "axial"),
        (tilted(50, (1, 2)), "axial"),
        (tilted(70, (1, 2)), "coronal"),
        (tilted(20, (0, 2)), "axial"),
        (tilted(70, (0, 2)), "sagittal"),
        ((0, 1, 0, 0.3420201, 0, -0.9396926), "sagittal"),
        (None, "unknown"),
        ((1, 0, 0, 1, 0, 0), "unknown"),
        ((0, 0, 0, 0, 0, 0), "unknown"),
        ((1, 0, 0, 0, 7, 0), "unknown"),
    ],
)
def test_plane_from_cosines(tmp_path, orientation, plane):
    make_dicom(tmp_path / "a", draw_pixels(np.uint8, 8), orientation=orientation)
    assert read_headers(tmp_path / "a")[0].plane == plane


@pytest.mark.parametrize(
    ("body_part", "anatomy"),
    [
        ("LSPINE", "lumbar spine"),
        ("LSSPINE", "lumbar spine"),
        ("LUMBOSACRAL", "lumbar spine"),
        ("CSPINE", "cervical spine"),
        ("TSPINE", "thoracic spine"),
        ("THORACOLUMBAR", "unknown"),  # two parts
        ("SPINE", "unknown"),  # which may be the lumbar one
        ("KNEE", "knee"),
        ("BRAIN", "head"),
        ("SHOULDER", "shoulder"),
        ("Smith, John", "unknown"),  # never what was typed
        ("", "unknown"),
    ],
)
def test_anatomy_from_the_body_part(tmp_path, body_part, anatomy):
    make_dicom(tmp_path / "a", draw_pixels(np.uint8, 8), BodyPartExamined=body_part)
    assert read_headers(tmp_path / "a")[0].anatomy == anatomy


def position_mm(header):
    return None if header.corner_mm is None else np.dot(header.normal, header.corner_mm)


def test_the_normal_points_to_the_right_or_the_head_however_slices_are_stored(tmp_path):
    for orientation, position, expected in [
        (AXIAL, (1, 2, 30), 30),
        ((-1, 0, 0, 0, 1, 0), (1, 2, 30), 30),
        (SAGITTAL, (5, 2, 3), -5),
        ((0, 1, 0, 0, 0, 1), (5, 2, 3), -5),
        ((0, 0, -1, 0, 1, 0), (5, 2, 3), -5),
        (CORONAL, (1, 7, 3), 7),
        (tilted(20, (1, 2)), (0, 10, 100), 100 * np.cos(np.radians(20)) - 10 * np.sin(np.radians(20))),
    ]:
        make_dicom(tmp_path / "a", draw_pixels(np.uint8, 8), orientation=orientation, position=position)
        assert position_mm(read_headers(tmp_path / "a")[0]) == pytest.approx(expected, abs=1e-3)


def enhanced_groups(undefined_length):
    """Functional groups of three sagittal frames: places, windows and rescaling of their own, the rest shared."""

    def macro(keyword, **elements):
        group, item = Dataset(), Dataset()
        for name, value in elements.items():
            setattr(item, name, value)
        item.is_undefined_length_sequence_item = undefined_length
        setattr(group, keyword, [item])
        group[keyword].is_undefined_length = undefined_length
        return group

    shared = macro("PlaneOrientationSequence", ImageOrientationPatient=list(SAGITTAL))
    shared.update(macro("PixelMeasuresSequence", PixelSpacing=[0.5, 0.5], SliceThickness=3, SpacingBetweenSlices=4))
    shared.update(macro("MRTimingAndRelatedParametersSequence", RepetitionTime=3000))
    frames = []
    for number in range(3):
        frame = macro("PlanePositionSequence", ImagePositionPatient=[10 - 4 * number, 0, 0])
        frame.update(macro("FrameVOILUTSequence", WindowCenter=128 + number, WindowWidth=256))
        frame.update(macro("PixelValueTransformationSequence", RescaleSlope=1, RescaleIntercept=number))
        frame.update(macro("MREchoSequence", EffectiveEchoTime=100.0))
        frame.is_undefined_length_sequence_item = undefined_length
        frames.append(frame)
    return {"SharedFunctionalGroupsSequence": [shared], "PerFrameFunctionalGroupsSequence": frames}


@pytest.mark.parametrize("undefined_length", [False, True])
@pytest.mark.parametrize("syntax", [*NATIVE, RLELossless], ids=lambda syntax: syntax.keyword)
def test_enhanced_multi_frame(tmp_path, syntax, undefined_length):
    pixels = draw_pixels(np.uint16, 8, (3, 36, 34))
    make_dicom(
        tmp_path / "a", pixels, transfer_syntax=syntax, orientation=None, position=None, spacing=None,
        series_description="lumbar", ScanningSequence="SE", **enhanced_groups(undefined_length),
    )  # fmt: skip
    headers = read_headers(tmp_path / "a")
    assert [header.frame for header in headers] == [0, 1, 2]
    assert [position_mm(header) for header in headers] == pytest.approx([-10, -6, -2])
    for header in headers:
        assert (header.plane, header.pixel_spacing_mm) == ("sagittal", (0.5, 0.5))
        assert (header.sequence, header.slice_spacing_mm) == ("T2", 4)
        # Rescaling and window of a frame cancel; those of another frame would not.
        assert np.array_equal(grey(header.path, header.frame), pixels[header.frame])
    # What a frame lacks, it does not take from the one before.
    groups = enhanced_groups(undefined_length)
    del groups["PerFrameFunctionalGroupsSequence"][1].PlanePositionSequence
    make_dicom(tmp_path / "b", pixels, transfer_syntax=syntax, position=None, **groups)
    assert [position_mm(header) for header in read_headers(tmp_path / "b")] == [-10, None, -2]
    with pytest.raises(UnusableImageError, match="no frame 3: the file has 3"):
        read_slice(tmp_path / "a", 3)


@pytest.mark.parametrize("place", ["file", "shared", "frame"])
def test_a_stated_orientation_turns_a_frame_wherever_it_is_stated(tmp_path, place):
    pixels = draw_pixels(np.uint16, 8, (2, 36, 34))
    lying = Dataset()
    lying.PlaneOrientationSequence = [Dataset()]
    lying.PlaneOrientationSequence[0].ImageOrientationPatient = [0, 0, 1, 0, 1, 0]  # rows run to the head
    shared, frames = lying if place == "shared" else Dataset(), [Dataset(), lying if place == "frame" else Dataset()]
    make_dicom(
        tmp_path / "a", pixels, orientation=lying.PlaneOrientationSequence[0].ImageOrientationPatient
        if place == "file" else None, SharedFunctionalGroupsSequence=[shared], PerFrameFunctionalGroupsSequence=frames,
        **IDENTITY_WINDOW,
    )  # fmt: skip
    image = read_slice(tmp_path / "a", 1)
    assert image.info[ORIENTATION_STATED] and np.array_equal(np.asarray(image), pixels[1].T[::-1])
    first = read_slice(tmp_path / "a", 0)
    is_turned = place != "frame"
    assert np.array_equal(np.asarray(first), pixels[0].T[::-1] if is_turned else pixels[0])
    assert first.info[ORIENTATION_STATED] == is_turned


def body(x, y, z):
    """Intensity at a place in a patient, without symmetry: no two ways to store a slice give the same pixels."""
    return (
        (128 + 64 * np.tanh(x / 5) + 56 * np.tanh(y / 6) + 60 * np.tanh(z / 4)).round().clip(0, 254).astype(np.uint16)
    )


def stored(row, column, shape, spacing_mm):
    """The slice through the centre of the patient, sampled along its rows and columns, and its first pixel's place."""
    down, along = (np.arange(n) - (n - 1) / 2 for n in shape)
    places = np.multiply.outer(down * spacing_mm[0], column)[:, None] + np.multiply.outer(along * spacing_mm[1], row)
    return body(*np.moveaxis(places, -1, 0)), places[0, 0]


@pytest.mark.parametrize("standard", [AXIAL, SAGITTAL, CORONAL, tilted(50, (1, 2))], ids=str)
@pytest.mark.parametrize("signs", [(1, 1), (1, -1), (-1, 1), (-1, -1)])
@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("spacing", [(0.5, 0.5), (1.0, 0.5), (0.5, 1.0)])
def test_slices_show_the_patient_in_radiological_convention(tmp_path, standard, signs, transpose, spacing):
    row, column = signs[0] * np.array(standard[:3]), signs[1] * np.array(standard[3:])
    row, column = (column, row) if transpose else (row, column)
    pixels, corner_mm = stored(row, column, (36, 44), spacing)
    make_dicom(
        tmp_path / "a", pixels, orientation=[*row, *column], position=list(corner_mm), spacing=spacing,
        **IDENTITY_WINDOW,
    )  # fmt: skip
    # As it is, on square pixels; then as the standard orientation has it.
    (header,) = read_headers(tmp_path / "a")
    upright = np.asarray(Image.fromarray(pixels.astype(np.uint8)).resize(header.square_size, Image.Resampling.BILINEAR))
    upright = upright.T if transpose else upright
    expected = upright[:: signs[1], :: signs[0]]
    image = read_slice(tmp_path / "a")
    assert image.info[ORIENTATION_STATED] and np.array_equal(np.asarray(image), expected)
    # And as the patient is, away from the border, where interpolation has neighbours.
    finest = min(spacing)
    shape = np.asarray(image).shape
    anatomy, _ = stored(np.array(standard[:3]), np.array(standard[3:]), shape, (finest, finest))
    assert np.abs(np.asarray(image).astype(int) - anatomy)[2:-2, 2:-2].max() <= 2
    assert header.stored_spacing_mm == finest

    # A mask of the stored grid, or of square pixels, lies where its image does.
    marked = pixels > 150
    Image.fromarray(marked.astype(np.uint8)).save(tmp_path / "m.png")
    mask = np.asarray(read_mask(tmp_path / "m.png", tmp_path / "a"))
    assert mask.shape == shape and set(np.unique(mask)) <= {0, 1}
    assert (mask != (np.asarray(image) > 150)).mean() < (0.02 if spacing[0] != spacing[1] else 1e-9)
    square = Image.fromarray(marked.astype(np.uint8)).resize(header.square_size, Image.Resampling.NEAREST)
    square.save(tmp_path / "square.png")
    assert np.array_equal(np.asarray(read_mask(tmp_path / "square.png", tmp_path / "a")), mask)
    Image.fromarray(mask[:, :-1]).save(tmp_path / "other.png")
    with pytest.raises(UnusableImageError, match=rf"mask is {mask.shape[1] - 1} x {mask.shape[0]}, its image 44 x 36"):
        read_mask(tmp_path / "other.png", tmp_path / "a")


def test_a_mask_of_the_size_of_the_turned_slice_only_is_turned_already(tmp_path):
    make_dicom(tmp_path / "a", draw_pixels(np.uint8, 8, (36, 44)), orientation=(0, 0, -1, 0, 1, 0))
    mask = draw_pixels(np.uint8, 2, (44, 36))
    Image.fromarray(mask).save(tmp_path / "m.png")
    assert np.array_equal(np.asarray(read_mask(tmp_path / "m.png", tmp_path / "a")), mask)


@pytest.mark.parametrize("orientation", [None, (1, 0, 0, 1, 0, 0), (0, 0, 0, 0, 0, 0)])
def test_a_file_without_orientation_is_not_turned(tmp_path, orientation):
    pixels = draw_pixels(np.uint8, 8)
    make_dicom(tmp_path / "a", pixels, orientation=orientation)
    image = read_slice(tmp_path / "a")
    assert not image.info[ORIENTATION_STATED] and np.array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("mirrored", [False, True])
def test_stacks_are_ordered_in_the_patient_however_their_slices_are_stored(tmp_path, mirrored):
    orientation = (-1, 0, 0, 0, 1, 0) if mirrored else AXIAL
    for number, height_mm in enumerate((20, 0, 10)):
        make_dicom(
            tmp_path / str(number), draw_pixels(np.uint8, 8), orientation=orientation, position=(0, 0, height_mm),
            InstanceNumber=number,
        )  # fmt: skip
    headers = [read_headers(tmp_path / str(number))[0] for number in range(3)]
    assert [header.corner_mm[2] for header in order_slices(headers)] == [0, 10, 20]


def test_steep_slices_are_turned_and_ordered_with_their_series(tmp_path):
    pixels = draw_pixels(np.uint8, 8)
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    for number, degrees in enumerate((62, 50, 40, 30)):
        make_dicom(
            tmp_path / str(number), pixels, orientation=tilted(degrees, (1, 2)), position=(0, 0, 30 * number),
            InstanceNumber=9 - number,
        )  # fmt: skip
        assert np.array_equal(np.asarray(read_slice(tmp_path / str(number), plane="axial")), pixels)
        mask = read_mask(tmp_path / "mask.png", tmp_path / str(number), plane="axial")
        assert np.array_equal(np.asarray(mask), pixels)
    headers = [read_headers(tmp_path / str(number))[0] for number in range(4)]
    assert [header.plane for header in headers] == ["coronal", "axial", "axial", "axial"]
    assert order_slices(headers) == headers


@pytest.mark.parametrize(
    ("tags", "spacing_mm"),
    [
        ({"SpacingBetweenSlices": 4.4, "SliceThickness": 4}, 4.4),
        ({"SliceThickness": 4}, 4),
        ({"SpacingBetweenSlices": -4.4, "SliceThickness": 4}, 4),
        ({"SliceThickness": 0}, None),
        ({}, None),
    ],
)
def test_slice_spacing(tmp_path, tags, spacing_mm):
    make_dicom(tmp_path / "a", draw_pixels(np.uint8, 8), **tags)
    assert read_headers(tmp_path / "a")[0].slice_spacing_mm == spacing_mm


def test_header_facts(tmp_path):
    make_dicom(tmp_path / "a", draw_pixels(np.uint8, 8), patient_id=" 0042 ", InstanceNumber=7)
    (header,) = read_headers(tmp_path / "a")
    assert (header.patient_id, header.instance_number) == ("0042", 7)
    make_dicom(tmp_path / "b", draw_pixels(np.uint8, 8), PatientID=None, InstanceNumber=None)
    (header,) = read_headers(tmp_path / "b")
    assert (header.patient_id, header.instance_number) == ("", None)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_incomplete_meta_information(tmp_path, syntax):
    pixels = draw_pixels(np.uint16, 8)
    dataset = make_dicom(tmp_path / "whole", pixels, transfer_syntax=syntax, **IDENTITY_WINDOW)
    content = (tmp_path / "whole").read_bytes()
    group = b"\x00\x08" if syntax == ExplicitVRBigEndian else b"\x08\x00"
    first_tag = group + (b"\x00\x16" if syntax == ExplicitVRBigEndian else b"\x16\x00")
    syntax_at = content.index(b"\x02\x00\x10\x00UI")
    after_syntax = syntax_at + 8 + int.from_bytes(content[syntax_at + 6 : syntax_at + 8], "little")
    for name, incomplete in {
        "no preamble": content[132:],
        "no meta information": content[content.index(first_tag, 132) :],
        "no transfer syntax": content[:syntax_at] + content[after_syntax:],
    }.items():
        (tmp_path / name).write_bytes(incomplete)
        assert is_dicom(tmp_path / name), name
        assert read_headers(tmp_path / name)[0].patient_id == dataset.PatientID
        assert np.array_equal(grey(tmp_path / name), pixels), name


def test_is_dicom(tmp_path):
    make_dicom(tmp_path / "IM_0001", draw_pixels(np.uint8, 8))
    Image.new("L", (9, 9)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("ID,note\n" * 40)
    (tmp_path / "empty").write_bytes(b"")
    found = {path.name: is_dicom(path) for path in [*tmp_path.iterdir(), tmp_path / "absent"]}
    assert found == {"IM_0001": True, "a.png": False, "a.txt": False, "empty": False, "absent": False}


def test_odd_values_neither_warn_nor_fail(tmp_path, recwarn, caplog, capfd):
    warnings.simplefilter("always")
    make_dicom(tmp_path / "a", draw_pixels(np.uint16, 12), bits_stored=12)
    dataset = dcmread(tmp_path / "a")
    content = (tmp_path / "a").read_bytes().replace(b"0.6875\\0.6875", b"abcdef\\0.6875")
    content = content.replace(dataset.StudyInstanceUID.encode(), b"x" * len(dataset.StudyInstanceUID))
    content = content.replace(ExplicitVRLittleEndian.encode(), f"{ImplicitVRLittleEndian}\0\0".encode())  # it is not
    (tmp_path / "b").write_bytes(content)
    recwarn.clear()
    (header,) = read_headers(tmp_path / "b")
    assert header.pixel_spacing_mm is None and header.study_id.startswith("xxx")
    assert read_slice(tmp_path / "b").size == (33, 36)
    assert not recwarn.list and not caplog.records and capfd.readouterr() == ("", "")


def test_reader_can_be_sent_to_a_worker(tmp_path):
    make_dicom(tmp_path / "a", draw_pixels(np.uint8, 8))
    load = pickle.loads(pickle.dumps(partial(read_slice, tmp_path / "a", 0)))
    assert load().tobytes() == read_slice(tmp_path / "a").tobytes()


@pytest.mark.parametrize("orientation", [AXIAL, tilted(20, (1, 2))])
def test_slices_are_ordered_by_place(tmp_path, orientation):
    normal = np.cross(orientation[:3], orientation[3:])
    shuffled = np.random.default_rng(1).permutation(9)
    names = np.random.default_rng(2).permutation(9)
    for place, number, name in zip(range(9), shuffled, names, strict=True):
        make_dicom(
            tmp_path / f"{name}.ima", draw_pixels(np.uint8, 8), orientation=orientation, position=4.4 * place * normal,
            InstanceNumber=int(number),
        )  # fmt: skip
    headers = [header for path in sorted(tmp_path.iterdir()) for header in read_headers(path)]
    assert [header.path.stem for header in order_slices(headers)] == [str(name) for name in names]
    # Without the place of one slice, the scanner's count.
    make_dicom(tmp_path / f"{names[0]}.ima", draw_pixels(np.uint8, 8), position=None, InstanceNumber=int(shuffled[0]))
    headers = [header for path in sorted(tmp_path.iterdir()) for header in read_headers(path)]
    assert [header.instance_number for header in order_slices(headers)] == list(range(9))


def test_several_processes_give_what_one_gives_in_order(tmp_path, monkeypatch):
    paths = [tmp_path / f"{number:03}.ima" for number in range(12)]
    for number, path in enumerate(paths):
        make_dicom(path, draw_pixels(np.uint8, 8), InstanceNumber=number + 1, series_description=f"T2 {number}")
    paths[1].write_bytes(b"no DICOM")
    paths[9].write_bytes(paths[9].read_bytes()[:-700])
    paths.insert(11, tmp_path / "missing.ima")
    # Two files here, the others in two processes.
    monkeypatch.setattr(dicom, "NUM_READ_HERE", 2)
    alone = list(read_all_headers(paths, 1))
    with Workers(2):  # as in a build: their server, which lasts, has imported everything
        together = list(read_all_headers(paths, 2))
    assert [str(outcome) for outcome in together] == [str(outcome) for outcome in alone]
    for path, outcome in zip(paths, together, strict=True):
        if path.name in ("001.ima", "009.ima", "missing.ima"):
            assert isinstance(outcome, UnusableImageError)
        else:
            assert outcome == read_headers(path)
    assert "truncated" in str(together[9])


def test_no_files_need_no_process():
    assert list(read_all_headers([], 8)) == []


def test_a_killed_process_costs_no_header(tmp_path, monkeypatch):
    path = tmp_path / "0.ima"
    make_dicom(path, draw_pixels(np.uint8, 8))
    monkeypatch.setattr(dicom, "NUM_READ_HERE", 1)
    before = set(multiprocessing.active_children())
    outcomes = read_all_headers([path] * 2_000, 2)
    assert [next(outcomes), next(outcomes)] == 2 * [read_headers(path)]  # one of this process, one of the others
    os.kill((set(multiprocessing.active_children()) - before).pop().pid, signal.SIGKILL)
    assert list(outcomes) == 1_998 * [read_headers(path)]


def test_a_pipe_is_not_dicom(tmp_path):
    os.mkfifo(tmp_path / "slice.dcm")
    assert not is_dicom(tmp_path / "slice.dcm")
    with pytest.raises(UnusableImageError, match="no file"):
        read_headers(tmp_path / "slice.dcm")
