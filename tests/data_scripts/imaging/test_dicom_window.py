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
from data_scripts.imaging.images import WINDOW_REPLACED, UnusableImageError, window_to_uint8
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


def lookup_table(first, data):
    item = Dataset()
    item.LUTDescriptor, item.LUTData = [len(data), first, 8], data
    item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "US"
    return item


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.keyword)
def test_lookup_tables(tmp_path, syntax):
    pixels = np.array([[8, 9, 10, 11, 12, 13, 14], [8] * 7, *[[10, 11] * 3 + [8]] * 4], dtype=np.uint16)
    make_dicom(tmp_path / "voi", pixels, transfer_syntax=syntax, VOILUTSequence=[lookup_table(9, [0, 50, 100, 255])])
    assert grey(tmp_path / "voi")[0].tolist() == [0, 0, 50, 100, 255, 255, 255]
    modality = [lookup_table(9, [3, 53, 103, 203])]
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


def spine_like(seed=0, share_of_body=0.6, side=96):
    """An axial slice as an MR scanner stores it: noise around a body with dark muscle, discs, fluid and bright fat."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j] / np.sqrt(share_of_body)
    radius = np.hypot(x, y)
    body = 200 + 150 * np.sin(7 * x) * np.cos(5 * y)
    body = np.where(radius > 0.92, 950, body)  # fat
    body = np.where(np.hypot(x, y - 0.1) < 0.3, 450, body)  # disc
    body = np.where(np.hypot(x, y - 0.5) < 0.12, 1100, body)  # fluid
    pixels = np.where(radius > 1, 0, body) + rng.normal(0, 12, body.shape)
    return np.abs(pixels).round().clip(0, 1200).astype(np.int16)


def picture(path):
    image = read_slice(path)
    return np.asarray(image), image.info[WINDOW_REPLACED]


BAD_WINDOWS = [
    {"WindowCenter": 2048, "WindowWidth": 4096},  # all 12 bits
    {"WindowCenter": 2047.5, "WindowWidth": 4095},
    {"WindowCenter": 8191.5, "WindowWidth": 16383},
    {"WindowCenter": 32768, "WindowWidth": 65536},
    {"WindowCenter": 1024, "WindowWidth": 2048},
    {"WindowCenter": 127, "WindowWidth": 255},  # all 8 bits
    {"WindowCenter": 128, "WindowWidth": 256},
    {"WindowCenter": 40, "WindowWidth": 400},  # computed tomography: soft tissue, brain, bone, lung
    {"WindowCenter": 40, "WindowWidth": 80},
    {"WindowCenter": 300, "WindowWidth": 1500},
    {"WindowCenter": 480, "WindowWidth": 2500},
    {"WindowCenter": -600, "WindowWidth": 1500},
    {"WindowCenter": 600, "WindowWidth": 1},
    {"WindowCenter": 20, "WindowWidth": 2},
    {"WindowCenter": 1000, "WindowWidth": 2},
    {"WindowCenter": 850, "WindowWidth": 700},
    {"WindowCenter": -5000, "WindowWidth": 200},
    {"WindowCenter": 5000, "WindowWidth": 200},
    {"WindowCenter": 600, "WindowWidth": 1200, "RescaleSlope": 0.25, "RescaleIntercept": 0},  # of stored values
    {"WindowCenter": 600, "WindowWidth": 1200, "RescaleSlope": 1, "RescaleIntercept": -1024},
    {"WindowCenter": 2048, "WindowWidth": 4096, "VOILUTFunction": "SIGMOID"},
    {"WindowCenter": [2048, 40], "WindowWidth": [4096, 400]},
]


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
@pytest.mark.parametrize("tags", BAD_WINDOWS, ids=str)
def test_a_window_that_does_not_show_the_slice_is_replaced(tmp_path, tags, dtype, photometric):
    pixels = spine_like().astype(dtype)
    make_dicom(tmp_path / "a", pixels, bits_stored=12, PhotometricInterpretation=photometric, **tags)
    expected = window_to_uint8(pixels) if photometric == "MONOCHROME2" else 255 - window_to_uint8(pixels)
    shown, is_replaced = picture(tmp_path / "a")
    if photometric == "MONOCHROME1" and tags["WindowCenter"] == 300:
        assert not is_replaced  # the grey background of the negative is black
    else:
        assert is_replaced and np.array_equal(shown, expected)


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("share_of_body", [0.1, 0.6, 3])
@pytest.mark.parametrize(
    ("center", "width", "shift", "tags"),
    [
        (600, 1200, 0, {}),
        (500, 1000, 0, {}),
        (550, 1200, 0, {}),
        (600, 1200, -600, {}),  # signed: the centre is 0
        (600, 1200, -1500, {}),  # and negative
        (600, 1200, 0, {"RescaleSlope": 2, "RescaleIntercept": -100}),
        (600, 1200, 0, {"RescaleSlope": 0.01, "RescaleIntercept": 0, "VOILUTFunction": "LINEAR_EXACT"}),
        (600, 1200, 0, {"VOILUTFunction": "LINEAR_EXACT"}),
    ],
)
def test_a_good_window_stays(tmp_path, center, width, shift, tags, share_of_body, photometric):
    pixels = spine_like(share_of_body=share_of_body)
    slope, intercept = tags.get("RescaleSlope", 1), tags.get("RescaleIntercept", 0)
    window = {"WindowCenter": (center + shift) * slope + intercept, "WindowWidth": width * slope}
    stored = pixels + np.int16(shift)
    make_dicom(tmp_path / "a", stored, bits_stored=12, PhotometricInterpretation=photometric, **window, **tags)
    shown, is_replaced = picture(tmp_path / "a")
    expected = (pixels - center) / width + 0.5
    expected = 255 * np.clip(expected if photometric == "MONOCHROME2" else 1 - expected, 0, 1)
    assert not is_replaced and np.abs(shown - expected).max() <= 15 and np.abs(shown - expected).mean() < 3


def test_the_first_window_that_shows_the_slice_is_taken(tmp_path):
    pixels = spine_like()
    for centers, widths, center, width in [
        ([600, 500], [1200, 1000], 600, 1200),
        ([2048, 600], [4096, 1200], 600, 1200),
        ([40, -600, 600], [400, 1500, 1200], 600, 1200),
        ([600, 40], [1200, 400], 600, 1200),
    ]:
        make_dicom(tmp_path / "several", pixels, bits_stored=12, WindowCenter=centers, WindowWidth=widths)
        make_dicom(tmp_path / "one", pixels, bits_stored=12, WindowCenter=center, WindowWidth=width)
        shown, is_replaced = picture(tmp_path / "several")
        assert not is_replaced and np.array_equal(shown, picture(tmp_path / "one")[0])


def test_lookup_tables_are_judged_like_windows(tmp_path):
    pixels = spine_like()
    good, black = lookup_table(0, list(np.linspace(0, 255, 1201).astype(int))), lookup_table(0, [0] * 1201)
    window = {"WindowCenter": 600, "WindowWidth": 1200}
    for sequence, tags, is_replaced in [
        ([good], {}, False),
        ([black], {}, True),
        ([black, good], {}, False),
        ([black], window, False),
    ]:
        make_dicom(tmp_path / "a", pixels, bits_stored=12, VOILUTSequence=sequence, **tags)
        shown, found = picture(tmp_path / "a")
        assert found == is_replaced
        expected = window_to_uint8(pixels) if is_replaced else pixels / 1200 * 255
        assert np.abs(shown - expected).max() <= (0 if is_replaced else 2)


def test_a_modality_table_of_many_entries(tmp_path):
    pixels = spine_like()
    table = lookup_table(0, list(np.linspace(0, 255, 1201).astype(int)))
    make_dicom(tmp_path / "a", pixels, bits_stored=12, ModalityLUTSequence=[table], RescaleType="US", **IDENTITY_WINDOW)
    shown, is_replaced = picture(tmp_path / "a")
    assert not is_replaced and np.abs(shown - pixels / 1200 * 255).max() <= 1


def test_padding_does_not_count_when_a_window_is_judged(tmp_path):
    pixels = spine_like(share_of_body=3)
    pixels[:40] = -2000
    for tags, is_replaced in [
        ({"WindowCenter": 600, "WindowWidth": 1200}, False),
        ({"WindowCenter": -400, "WindowWidth": 3200}, True),  # which holds the padding
    ]:
        make_dicom(tmp_path / "a", pixels, PixelPaddingValue=-2000, **tags)
        shown, found = picture(tmp_path / "a")
        assert found == is_replaced and not shown[:40].any()
        if is_replaced:
            assert np.array_equal(shown[40:], window_to_uint8(pixels[40:]))


def test_an_image_of_one_value_keeps_its_window(tmp_path):
    make_dicom(tmp_path / "a", np.full((40, 40), 300, np.uint16), WindowCenter=600, WindowWidth=1200)
    shown, is_replaced = picture(tmp_path / "a")
    assert not is_replaced and set(shown.ravel()) == {64}


def test_windows_of_8_bit_images(tmp_path):
    pixels = (spine_like() // 5).astype(np.uint8)
    make_dicom(tmp_path / "a", pixels, **IDENTITY_WINDOW)
    assert np.array_equal(picture(tmp_path / "a")[0], pixels) and not picture(tmp_path / "a")[1]
    make_dicom(tmp_path / "a", pixels, WindowCenter=2048, WindowWidth=4096)
    assert np.array_equal(picture(tmp_path / "a")[0], window_to_uint8(pixels)) and picture(tmp_path / "a")[1]


def test_a_slice_without_a_window_has_none_replaced(tmp_path):
    for tags in ({}, {"WindowCenter": "", "WindowWidth": ""}, {"VOILUTSequence": []}):
        make_dicom(tmp_path / "a", spine_like(), bits_stored=12, **tags)
        assert not picture(tmp_path / "a")[1]
        eight_bits = (spine_like() // 8).astype(np.uint8)
        make_dicom(tmp_path / "a", eight_bits, **tags)
        shown, is_replaced = picture(tmp_path / "a")
        assert not is_replaced and np.array_equal(shown, eight_bits)
    make_dicom(tmp_path / "rgb", draw_pixels(np.uint8, 8, (40, 36, 3)))
    assert not picture(tmp_path / "rgb")[1]


@pytest.mark.parametrize(("bits", "factor", "first"), [(12, 3, 0), (12, 3, -2048), (10, 0.8, 0), (16, 45, 0)])
def test_a_window_of_all_values_that_the_bits_can_have_was_not_set_for_the_slice(tmp_path, bits, factor, first):
    """Even if the slice fills it."""
    pixels = (spine_like() * factor + first).astype(np.int16 if first else np.uint16)
    window = {"WindowCenter": 10 + 2 * (first + 2 ** (bits - 1)), "WindowWidth": 2 * 2**bits}
    make_dicom(tmp_path / "a", pixels, bits_stored=bits, RescaleSlope=2, RescaleIntercept=10, **window)
    shown, is_replaced = picture(tmp_path / "a")
    assert is_replaced and np.array_equal(shown, window_to_uint8(pixels))
