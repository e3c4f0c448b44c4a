import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from data_scripts.imaging.dicom import read_slice
from data_scripts.imaging.images import UnusableImageError, window_to_uint8
from tests.data_scripts.imaging.dicom_files import draw_pixels, make_dicom

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
LOSSLESS = (*NATIVE, RLELossless, JPEGLSLossless, JPEG2000Lossless)
IDENTITY_WINDOW = {"WindowCenter": 128, "WindowWidth": 256}  # on 0 to 255


def grey(path, frame=0):
    return np.asarray(read_slice(path, frame))


@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.keyword)
def test_window_of_identity(tmp_path, syntax, dtype):
    pixels = draw_pixels(dtype, 8)
    shift = 128 if dtype == np.int16 else 0
    window = {"WindowCenter": 128 - shift, "WindowWidth": 256}
    make_dicom(tmp_path / "a", pixels, transfer_syntax=syntax, bits_stored=12, **window)
    assert np.array_equal(grey(tmp_path / "a"), pixels.astype(int) + shift)


@pytest.mark.parametrize(
    ("tags", "slice_range", "expected"),
    [
        # ((x - 39.5) / 399 + 0.5) * 255
        (
            {"WindowCenter": 40, "WindowWidth": 400},
            (-160, 200),
            {-200: 0, -160: 0, 40: 128, 140: 192, 240: 255, 500: 255},
        ),
        ({"WindowCenter": [40, 9], "WindowWidth": [400, 9]}, (-160, 200), {-160: 0, 40: 128, 140: 192, 240: 255}),
        # (x - 100) / 200 + 0.5
        (
            {"WindowCenter": 100, "WindowWidth": 200, "VOILUTFunction": "LINEAR_EXACT"},
            (0, 190),
            {-1: 0, 0: 0, 50: 64, 100: 128, 200: 255, 201: 255},
        ),
        # 1 / (1 + exp(-4 (x - 100) / 100))
        (
            {"WindowCenter": 100, "WindowWidth": 100, "VOILUTFunction": "SIGMOID"},
            (0, 200),
            {-400: 0, 50: 30, 100: 128, 150: 225, 500: 255},
        ),
        # The window is of rescaled values: 70 * 2 - 100 = 40.
        (
            {"WindowCenter": 40, "WindowWidth": 400, "RescaleSlope": 2, "RescaleIntercept": -100},
            (-30, 150),
            {-30: 0, 70: 128, 120: 192, 170: 255},
        ),
    ],
)
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_window_by_hand(tmp_path, tags, slice_range, expected, photometric):
    """One row of known values above a slice that the window shows."""
    pixels = np.linspace(*slice_range, 40 * 40).reshape(40, 40).astype(np.int16)
    pixels[0, : len(expected)] = list(expected)
    make_dicom(tmp_path / "a", pixels, PhotometricInterpretation=photometric, **tags)
    values = np.array(list(expected.values()))
    assert (
        grey(tmp_path / "a")[0, : values.size].tolist()
        == (values if photometric == "MONOCHROME2" else 255 - values).tolist()
    )


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"WindowCenter": 100, "WindowWidth": 0},
        {"WindowCenter": 100, "WindowWidth": -5},
        {"WindowCenter": 1_000_000, "WindowWidth": 50},  # all black
        {"WindowCenter": 2000, "WindowWidth": 10_000_000},  # all grey
        {"WindowCenter": 2000, "WindowWidth": 1},  # black and white
        {"WindowCenter": 2000},
        {"WindowWidth": 2000},
        {"WindowCenter": 2000, "WindowWidth": 100, "VOILUTFunction": "CUBIC"},
        {"RescaleSlope": 3, "RescaleIntercept": -7},
    ],
)
def test_without_a_window_that_shows_something_percentiles_are_taken(tmp_path, tags):
    pixels = np.random.default_rng(0).gamma(2, 300, (50, 40)).clip(0, 4095).astype(np.uint16)
    make_dicom(tmp_path / "a", pixels, bits_stored=12, **tags)
    assert np.array_equal(grey(tmp_path / "a"), window_to_uint8(pixels))


def test_negative_slope_turns_the_greys(tmp_path):
    pixels = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    make_dicom(tmp_path / "a", pixels, RescaleSlope=-1, RescaleIntercept=4095)
    assert np.array_equal(grey(tmp_path / "a"), 255 - window_to_uint8(pixels))


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.keyword)
def test_lookup_tables(tmp_path, syntax):
    def table(first, data):
        item = Dataset()
        item.LUTDescriptor, item.LUTData = [len(data), first, 8], data
        item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "US"
        return [item]

    pixels = np.array([[8, 9, 10, 11, 12, 13, 14], [8] * 7, *[[10, 11] * 3 + [8]] * 4], dtype=np.uint16)
    make_dicom(tmp_path / "voi", pixels, transfer_syntax=syntax, VOILUTSequence=table(9, [0, 50, 100, 255]))
    assert grey(tmp_path / "voi")[0].tolist() == [0, 0, 50, 100, 255, 255, 255]
    modality = table(9, [3, 53, 103, 203])
    make_dicom(
        tmp_path / "both", pixels, transfer_syntax=syntax, ModalityLUTSequence=modality, RescaleType="US",
        **IDENTITY_WINDOW,
    )  # fmt: skip
    assert grey(tmp_path / "both")[0].tolist() == [3, 3, 53, 103, 203, 203, 203]


def test_8_bit_grey_without_a_window_is_not_touched(tmp_path):
    pixels = draw_pixels(np.uint8, 6)
    make_dicom(tmp_path / "a", pixels)
    assert np.array_equal(grey(tmp_path / "a"), pixels)


def test_colour_and_palette_become_luminance(tmp_path):
    rgb = draw_pixels(np.uint8, 8, (40, 36, 3))
    expected = np.asarray(Image.fromarray(rgb).convert("L"))
    make_dicom(tmp_path / "rgb", rgb)
    assert np.array_equal(grey(tmp_path / "rgb"), expected)
    planar = {"PlanarConfiguration": 1, "PixelData": rgb.transpose(2, 0, 1).tobytes()}
    make_dicom(tmp_path / "planar", rgb, **planar)
    assert np.array_equal(grey(tmp_path / "planar"), expected)

    indices = draw_pixels(np.uint8, 2, (8, 6))
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [255, 255, 255]], dtype=np.uint8)
    tags = {}
    for number, colour in enumerate(("Red", "Green", "Blue")):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [4, 0, 8]
        tags[f"{colour}PaletteColorLookupTableData"] = colours[:, number].tobytes()
    make_dicom(tmp_path / "palette", indices, PhotometricInterpretation="PALETTE COLOR", **tags)
    assert np.array_equal(grey(tmp_path / "palette"), np.asarray(Image.fromarray(colours[indices]).convert("L")))


PADDED = np.where(np.arange(2000).reshape(40, 50) < 120, 63536, np.arange(2000).reshape(40, 50) % 500)


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless], ids=str)
def test_padding_is_black_and_outside_the_window(tmp_path, syntax, photometric):
    """6 % of 63536, or of -2000 as it is signed, would leave the anatomy black."""
    tissue = window_to_uint8(PADDED[PADDED < 63536][np.newaxis])[0]
    expected = np.zeros(PADDED.shape, dtype=np.uint8)
    expected[PADDED < 63536] = tissue if photometric == "MONOCHROME2" else 255 - tissue
    assert len(np.unique(expected)) > 200
    for dtype in (np.uint16, np.int16):
        pixels = PADDED.astype(np.uint16).view(dtype)
        tags = {"PixelPaddingValue": int(pixels[0, 0]), "PhotometricInterpretation": photometric}
        make_dicom(tmp_path / "a", pixels, transfer_syntax=syntax, **tags)
        assert np.array_equal(grey(tmp_path / "a"), expected)


def test_range_of_padding_and_an_image_of_nothing_else(tmp_path):
    pixels = np.arange(2000, dtype=np.uint16).reshape(40, 50)
    make_dicom(tmp_path / "a", pixels, PixelPaddingValue=1999, PixelPaddingRangeLimit=1000)
    assert np.array_equal(grey(tmp_path / "a")[:20], window_to_uint8(pixels[:20]))
    assert not grey(tmp_path / "a")[20:].any()
    make_dicom(tmp_path / "a", pixels, PixelPaddingValue=0, PixelPaddingRangeLimit=1999)
    with pytest.raises(UnusableImageError, match="only padding"):
        grey(tmp_path / "a")
