import itertools
import os
import random
import re
import tracemalloc
import zlib

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy.spatial.transform import Rotation

from data_scripts.imaging import metaimage
from data_scripts.imaging.images import UnusableImageError
from data_scripts.imaging.metaimage import read_header, read_sagittal_volume

# Every way in which a file may name its axes: which of them comes first, and to which side each runs.
ORIENTATIONS = [
    "".join(sides) for order in itertools.permutations(("LR", "PA", "SI")) for sides in itertools.product(*order)
]
HEADER = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False",
    "TransformMatrix": "0 1 0 0 0 -1 1 0 0",
    "Offset": "0 0 0",
    "ElementSpacing": "0.5 0.625 4",
    "DimSize": "4 3 2",
    "ElementType": "MET_UCHAR",
}
VOXELS = bytes(range(24))


def sagittal_image(pixels):
    """A SimpleITK image of an array of shape (to the left, downwards, backwards)."""
    image = sitk.GetImageFromArray(pixels)
    image.SetSpacing((0.5, 0.625, 4.0))
    image.SetDirection([0, 0, 1, 1, 0, 0, 0, -1, 0])
    return image


def written(path, voxels=VOXELS, **changes):
    """A file with its header made by hand; a field given as None is left out."""
    fields = {**HEADER, **changes, "ElementDataFile": changes.get("ElementDataFile", "LOCAL")}
    text = "".join(f"{name} = {value}\n" for name, value in fields.items() if value is not None)
    path.write_bytes(text.encode() + voxels)
    return path


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_order_and_direction_of_the_axes_gives_the_same_volume(tmp_path, orientation):
    pixels = np.random.default_rng(0).integers(-99, 2000, (3, 5, 7)).astype(np.int16)
    path = tmp_path / "volume.mha"
    is_compressed = ORIENTATIONS.index(orientation) % 2 == 0
    sitk.WriteImage(sitk.DICOMOrient(sagittal_image(pixels), orientation), str(path), is_compressed)
    header = read_header(path)
    assert (header.axes, header.is_compressed) == (orientation, is_compressed)
    assert header.sagittal_size == (3, 5, 7) and header.sagittal_spacing_mm == (4.0, 0.625, 0.5)
    assert np.array_equal(read_sagittal_volume(path), pixels)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_oblique_axes_are_named_by_the_nearest_sides(tmp_path, orientation):
    straight = sitk.DICOMOrient(sagittal_image(np.zeros((2, 3, 4), np.uint8)), orientation).GetDirection()
    rng = np.random.default_rng(1)
    for degrees in (5, 20, 35):  # beyond 45 degrees there is no nearest side
        axis = rng.normal(size=3)
        tilt = Rotation.from_rotvec(degrees * axis / np.linalg.norm(axis), degrees=True).as_matrix()
        image = sagittal_image(np.zeros((2, 3, 4), np.uint8))
        image.SetDirection((tilt @ np.reshape(straight, (3, 3))).ravel().tolist())
        sitk.WriteImage(image, str(tmp_path / "volume.mha"))
        assert read_header(tmp_path / "volume.mha").axes == orientation


@pytest.mark.parametrize(
    "pixel_type", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.float32, np.float64]
)
@pytest.mark.parametrize("is_compressed", [False, True])
def test_every_pixel_type(tmp_path, pixel_type, is_compressed):
    pixels = (np.random.default_rng(2).random((2, 3, 4)) * 250).astype(pixel_type)
    sitk.WriteImage(sagittal_image(pixels), str(tmp_path / "volume.mha"), is_compressed)
    volume = read_sagittal_volume(tmp_path / "volume.mha")
    assert volume.dtype == pixel_type and np.array_equal(volume, pixels)


def test_byte_order(tmp_path):
    voxels = np.arange(24, dtype=">i2").tobytes()
    path = written(tmp_path / "volume.mha", voxels, BinaryDataByteOrderMSB="True", ElementType="MET_SHORT")
    assert np.array_equal(read_sagittal_volume(path), np.arange(24).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"NDims": "2"}, "NDims must be 3, got '2'"),
        ({"NDims": None}, "NDims must be 3, got ''"),
        ({"DimSize": "1000000000 1000000000 1000000000"}, "volume too large"),
        ({"DimSize": "4 3"}, "DimSize must be 3 numbers, got '4 3'"),
        ({"DimSize": "4 3 0"}, "DimSize must be three positive whole numbers"),
        ({"DimSize": "-4 3 -2"}, "DimSize must be three positive whole numbers"),
        ({"DimSize": "4 3 2.5"}, "DimSize must be three positive whole numbers"),
        ({"DimSize": "4 3 nan"}, "DimSize must be 3 numbers"),
        ({"ElementSpacing": "0.5 0 4"}, "ElementSpacing must be positive"),
        ({"ElementSpacing": "0.5 inf 4"}, "ElementSpacing must be 3 numbers"),
        ({"TransformMatrix": None}, "TransformMatrix must be 9 numbers, got ''"),
        ({"TransformMatrix": "1 0 0 1 0 0 0 0 1"}, "perpendicular directions"),
        ({"TransformMatrix": "0 0 0 0 0 0 0 0 0"}, "perpendicular directions"),
        ({"ElementType": "MET_OTHER"}, "unknown ElementType 'MET_OTHER'"),
        ({"ElementNumberOfChannels": "3"}, "ElementNumberOfChannels must be 1"),
        ({"HeaderSize": "-1"}, "HeaderSize must be 0"),
        ({"BinaryData": "False"}, "BinaryData must be True"),
        (
            {"ElementDataFile": "/etc/passwd"},
            "ElementDataFile must be LOCAL, got '/etc/passwd'; save header and voxels as one",
        ),
        ({"ElementDataFile": "../other.raw"}, "ElementDataFile must be LOCAL"),
        ({"ElementDataFile": "LIST"}, "ElementDataFile must be LOCAL"),
        ({"DimSize": "4 3 3"}, "truncated volume: 24 bytes of 36"),
        ({"DimSize": "4 3 1"}, "has more than the 12 bytes"),
        ({"CompressedData": "True"}, "damaged volume"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, changes, reason):
    with pytest.raises(UnusableImageError, match=re.escape(reason)):
        read_sagittal_volume(written(tmp_path / "volume.mha", **changes))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not MetaImage: header line b''"),
        (b"NDims = 3\n" * 2, "states 'NDims' twice"),
        (b"NDims = 3", "not MetaImage"),
        (b"x" * 100_000, "not MetaImage"),
        (b"".join(b"a%d = 1\n" % number for number in range(20_000)), "not MetaImage"),
        (bytes(range(256)) * 8, "not MetaImage"),
    ],
)
def test_what_is_no_header_is_refused(tmp_path, content, reason):
    (tmp_path / "volume.mha").write_bytes(content)
    with pytest.raises(UnusableImageError, match=re.escape(reason)):
        read_header(tmp_path / "volume.mha")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UnusableImageError, match="missing volume: 'none.mha'"):
        read_header(tmp_path / "none.mha")


def test_damaged_compressed_voxels_are_refused(tmp_path):
    compressed = zlib.compress(bytes(np.random.default_rng(3).integers(0, 9, 24, dtype=np.uint8)))
    wrong_checksum = compressed[:-1] + bytes([compressed[-1] ^ 1])
    for voxels, reason in (
        (compressed[:-6], "has no end"),
        (wrong_checksum, "incorrect data check"),
        (compressed + b"\0", "has more"),
        (zlib.compress(VOXELS + b"\0"), "has more"),
        (zlib.compress(VOXELS[:-1]), "truncated volume: 23 bytes of 24"),
        (b"", "has no end"),
    ):
        with pytest.raises(UnusableImageError, match=reason):
            read_sagittal_volume(written(tmp_path / "volume.mha", voxels, CompressedData="True"))


def test_a_bomb_is_defused(tmp_path):
    path = written(tmp_path / "volume.mha", zlib.compress(bytes(2**27), 1), CompressedData="True")
    tracemalloc.start()
    try:
        with pytest.raises(UnusableImageError, match="has more than the 24 bytes"):
            read_sagittal_volume(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_mutated_files_are_read_as_they_state_or_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(metaimage, "MAX_VOLUME_BYTES", 2**16)
    path, draw = tmp_path / "volume.mha", random.Random(4)
    pixels = np.random.default_rng(4).integers(0, 999, (4, 8, 8)).astype(np.int16)
    originals = []
    for is_compressed in (False, True):
        sitk.WriteImage(sagittal_image(pixels), str(path), is_compressed)
        originals.append(path.read_bytes())
    num_read = 0
    for _ in range(500):
        content = bytearray(draw.choice(originals))
        for _ in range(draw.randint(1, 4)):
            content[draw.randrange(draw.choice((len(content), 400)))] = draw.choice(b"0123456789 =-.eLMT\n\0\xff")
        path.write_bytes(content[: draw.choice((None, None, draw.randrange(len(content))))])
        try:
            volume = read_sagittal_volume(path)
        except UnusableImageError:
            continue
        assert volume.shape == read_header(path).sagittal_size
        num_read += 1
    assert 50 < num_read < 400


def test_a_pipe_is_no_volume(tmp_path):
    os.mkfifo(tmp_path / "a.mha")
    with pytest.raises(UnusableImageError, match=r"missing volume: 'a\.mha' is not a file"):
        read_header(tmp_path / "a.mha")
