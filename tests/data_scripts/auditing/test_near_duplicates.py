from dataclasses import replace

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageOps

from data_scripts.auditing.near_duplicates import fingerprint, near_duplicates, thumbnail_correlation
from tests.data_scripts.made_rows import brighter, jpeg, png, slice_of


@pytest.mark.parametrize("change, found", [(jpeg, True), (brighter, True), (slice_of, False)])
def test_near_duplicates_are_copies_that_differ(change, found):
    first = [fingerprint(png(slice_of(number))) for number in range(40)]
    second = [fingerprint(png(change(number))) for number in range(30, 50)]
    pairs = near_duplicates(first, second)
    # The same pixels are an image leak, and so not listed here.
    assert [(pair.first, pair.second) for pair in pairs] == ([(30 + i, i) for i in range(10)] if found else [])
    assert near_duplicates(first, []) == near_duplicates([], first) == []


def test_mirrored_copies_are_found():
    first = [fingerprint(png(slice_of(number))) for number in range(10)]
    second = [fingerprint(png(ImageOps.mirror(slice_of(number)))) for number in (7, 20)]
    assert [(pair.first, pair.second) for pair in near_duplicates(first, second)] == [(7, 0)]


def test_inverted_copies_are_found():
    first = [fingerprint(png(slice_of(number))) for number in range(10)]
    inverted = [ImageOps.invert(slice_of(7)), ImageOps.mirror(ImageOps.invert(jpeg(3))), ImageOps.invert(slice_of(20))]
    second = [fingerprint(png(image)) for image in inverted]
    assert [(pair.first, pair.second) for pair in near_duplicates(first, second)] == [(7, 0), (3, 1)]
    assert (first[7].inverted().perceptual_hash ^ second[0].perceptual_hash).bit_count() <= 2
    np.testing.assert_array_equal(first[7].inverted().inverted().thumbnail, first[7].thumbnail)


def test_hashes_are_those_of_imagehash():
    image = slice_of(4, 150)
    one, mirrored = fingerprint(png(image)), fingerprint(png(ImageOps.mirror(image)))
    assert one.perceptual_hash == int(str(imagehash.phash(image)), 16)
    assert (one.mirrored_hash ^ mirrored.perceptual_hash).bit_count() <= 2  # rounded once more


def test_many_copies_of_other_images_do_not_hide_a_near_duplicate():
    image, near = fingerprint(png(slice_of(1))), fingerprint(png(jpeg(1)))
    other = replace(fingerprint(png(slice_of(2))), perceptual_hash=image.perceptual_hash)
    pairs = near_duplicates([*[image] * 9, *[other] * 9, near], [image])
    assert [(pair.first, pair.second) for pair in pairs] == [(18, 0)]


def test_slices_of_16_bits_are_told_apart():
    deep = [np.asarray(slice_of(number)).astype(np.uint16) * 40 + 1000 for number in (1, 2)]
    one, other = (fingerprint(png(Image.fromarray(pixels))) for pixels in deep)
    assert one.pixels_sha256 != other.pixels_sha256
    assert thumbnail_correlation(one.thumbnail, fingerprint(png(slice_of(1))).thumbnail) > 0.99
    assert near_duplicates([one], [other]) == []


def test_hashes_in_tiles_equal_the_slow_search():
    random = np.random.default_rng(0)
    numbers = random.integers(0, 60, 300)
    first = [fingerprint(png(slice_of(int(number), 40))) for number in numbers[:60]]
    second = [fingerprint(png(slice_of(int(number), 44))) for number in numbers]
    expected = {
        j
        for j, b in enumerate(second)
        for a in first
        if (a.perceptual_hash ^ b.perceptual_hash).bit_count() <= 8
        and a.pixels_sha256 != b.pixels_sha256
        and np.corrcoef(a.thumbnail.ravel(), b.thumbnail.ravel())[0, 1] >= 0.98
    }
    assert {pair.second for pair in near_duplicates(first, second)} == expected and len(expected) > 150


def test_a_hash_alone_makes_no_near_duplicate():
    """Of real knees of different patients one pair in 1,200 has hashes as near as copies have."""
    alike = Image.blend(slice_of(1), slice_of(2), 0.3)
    one, other = fingerprint(png(slice_of(1))), fingerprint(png(alike))
    assert 0.8 < thumbnail_correlation(one.thumbnail, other.thumbnail) < 0.97
    assert near_duplicates([one], [replace(other, perceptual_hash=one.perceptual_hash)]) == []


def test_blank_images_are_not_near_identical_to_anything():
    blank = [fingerprint(png(Image.new("L", (40, 40), grey))) for grey in (0, 9, 200)]
    assert near_duplicates(blank, blank) == []
    assert thumbnail_correlation(blank[0].thumbnail, blank[1].thumbnail) == 0


@pytest.mark.slow
def test_real_slices_of_different_patients_are_not_near_identical_and_their_copies_are(shared_data):
    paths = sorted((shared_data / "spider_discs").rglob("*.png"))
    patients = [path.name.split("_")[0] for path in paths]
    prints = [fingerprint(path.read_bytes()) for path in paths]
    assert len(prints) == 805
    for start in range(0, 805, 115):
        others = [index for index in range(805) if patients[index] not in patients[start : start + 115]]
        assert near_duplicates([prints[index] for index in others], prints[start : start + 115]) == []
    smaller = []
    for path in paths[::10]:
        image = Image.open(path).convert("L")
        smaller.append(fingerprint(png(image.resize((image.width * 3 // 4, image.height * 3 // 4)))))
    assert [pair.first for pair in near_duplicates(prints, smaller)] == list(range(0, 805, 10))
