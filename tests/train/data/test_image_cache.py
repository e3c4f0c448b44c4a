"""Decoded images are those of the processor, and are decoded once for all runs of a process."""

import io

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image
from PIL import Image as PILImage

from modeling_lumbarclip import LumbarCLIPImageProcessor
from train.data import image_cache
from train.data.image_cache import DecodedImages, ImageCache, decode_images, normalise


@pytest.fixture
def decodings(monkeypatch):
    """An empty cache, and the count of what was decoded: a list that grows."""
    monkeypatch.setattr(image_cache, "_CACHE", ImageCache(10**6))
    counted = []
    original = Image.decode_example
    monkeypatch.setattr(Image, "decode_example", lambda *args, **kw: counted.append(1) or original(*args, **kw))
    return counted


def images_of(seeds, colour=False, **feature):
    random = [np.random.default_rng(seed) for seed in seeds]
    shape = (20, 30, 3) if colour else (20, 30)
    images = [PILImage.fromarray(r.integers(0, 255, size=shape, dtype=np.uint8)) for r in random]
    return Dataset.from_dict({"image": images}, features=Features({"image": Image(**feature)}))


def test_an_image_that_cannot_be_read_is_named_by_its_row(tiny_processor):
    rows = images_of(range(3)).cast_column("image", Image(decode=False))
    cut = [{**image, "bytes": image["bytes"][: 300 if row == 1 else None]} for row, image in enumerate(rows["image"])]
    rows = Dataset.from_dict({"image": cut}, features=Features({"image": Image()}), split="test")
    decoded = DecodedImages(rows, tiny_processor.image_processor)
    assert decoded[0].shape == decoded[2].shape
    with pytest.raises(
        ValueError, match="The image of row 1 of test cannot be read: .*Build or copy the dataset again"
    ):
        decoded[1]


def test_folds_runs_and_evaluations_share_what_is_decoded(decodings, tiny_processor):
    processor = tiny_processor.image_processor
    rows = images_of(range(6))
    first = decode_images(rows, processor, show_progress=False)
    assert len(decodings) == 6
    fold = decode_images(rows.select([4, 1, 1]), processor, show_progress=False)
    assert torch.equal(fold, first[[4, 1, 1]])
    again = LumbarCLIPImageProcessor.from_dict(processor.to_dict())
    assert torch.equal(DecodedImages(images_of([5]), again)[0][0], first[5])  # the same image in another dataset
    assert len(decodings) == 6


@pytest.mark.parametrize(
    "settings", [{"size": {"height": 16, "width": 16}}, {"do_pad_to_square": False}, {"do_window_eight_bit": True}]
)
def test_other_settings_and_other_pixels_are_decoded_anew(decodings, tiny_processor, settings):
    rows = images_of([0])
    before = decode_images(rows, tiny_processor.image_processor, show_progress=False)
    other = LumbarCLIPImageProcessor.from_dict({**tiny_processor.image_processor.to_dict(), **settings})
    decoded = decode_images(rows, other, show_progress=False)
    assert decoded.shape != before.shape or not torch.equal(decoded, before)
    assert not torch.equal(decode_images(images_of([1]), tiny_processor.image_processor, show_progress=False), before)
    assert len(decodings) == 3


def test_a_file_that_changes_is_read_again(decodings, tiny_processor, tmp_path):
    path = tmp_path / "slice.png"
    rows = Dataset.from_dict({"image": [str(path)]}, features=Features({"image": Image()}))
    for grey in (50, 150):
        PILImage.new("L", (8, 8), grey).save(path)
        assert int(DecodedImages(rows, tiny_processor.image_processor)[0].max()) == grey


def test_what_was_used_longest_ago_is_forgotten_first():
    cache, made = ImageCache(max_bytes=250), []

    def image(key):
        return cache.get(key, lambda: made.append(key) or torch.full((100,), ord(key), dtype=torch.uint8))

    for key in "abacab":  # c pushes b out, since a was used again
        assert image(key)[0] == ord(key)
    assert made == list("abcb")
    cache.get("large", lambda: torch.zeros(300, dtype=torch.uint8))  # kept by none, and returned all the same
    assert image("b")[0] == ord("b") and made == list("abcbb")


@pytest.mark.parametrize("mode", [None, "RGB"])
@pytest.mark.parametrize("colour", [False, True])
def test_pixels_are_exactly_those_of_the_processor(decodings, tiny_processor, colour, mode):
    rows = images_of(range(3), colour, mode=mode)
    decoded = DecodedImages(rows, tiny_processor.image_processor)
    assert decoded[0].shape == (3 if colour else 1, 32, 32)
    pixels = normalise(torch.stack([decoded[row] for row in range(3)]), tiny_processor.image_processor)
    assert torch.equal(pixels, tiny_processor(images=rows["image"][:], return_tensors="pt").pixel_values)


def test_deep_images_are_windowed_as_the_processor_does(decodings, tiny_processor):
    buffer = io.BytesIO()
    PILImage.fromarray((np.arange(600).reshape(20, 30) * 7).astype(np.uint16)).save(buffer, "png")
    features = Features({"image": Image()})
    rows = Dataset.from_dict({"image": [{"bytes": buffer.getvalue(), "path": None}]}, features=features)
    pixels = normalise(DecodedImages(rows, tiny_processor.image_processor)[0][None], tiny_processor.image_processor)
    assert torch.equal(pixels, tiny_processor(images=rows["image"][:], return_tensors="pt").pixel_values)


def test_colour_is_refused_for_training(decodings, tiny_processor):
    with pytest.raises(ValueError, match="Row 0 holds a colour image"):
        decode_images(images_of([0], colour=True), tiny_processor.image_processor, show_progress=False)
