import tracemalloc

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from data_scripts.privacy.burnt_in_text import SUSPECT_LETTERS, burnt_in_letters, has_burnt_in_text

LINES = ["SALEM AHMAD", "ID: 0034571", "1961-04-02 M", "12/03/2016"]


def draw(image: Image.Image, lines: list[str], size: int, grey: int, corner: int) -> Image.Image:
    drawn = image.copy()
    canvas, font = ImageDraw.Draw(drawn), ImageFont.load_default(size)
    width = max(canvas.textlength(line, font=font) for line in lines)
    x = 4 if corner % 2 == 0 else int(image.width - width - 6)
    y = 3 if corner < 2 else image.height - len(lines) * (size + 3) - 6
    for number, line in enumerate(lines):
        canvas.text((x, y + number * (size + 3)), line, fill=grey, font=font)
    return drawn


def anatomy(seed: int) -> Image.Image:
    """Soft bright blobs on black, as anatomy is, with a little noise."""
    random = np.random.default_rng(seed)
    small = np.zeros((20, 20))
    small[4:16, 4:16] = random.uniform(0, 200, (12, 12))
    soft = Image.fromarray(small.astype(np.uint8)).resize((320, 320), Image.Resampling.BICUBIC)
    return Image.fromarray(np.clip(np.asarray(soft) + random.normal(0, 4, (320, 320)), 0, 255).astype(np.uint8))


@pytest.mark.parametrize("size", [9, 12, 16, 24])
@pytest.mark.parametrize("grey", [180, 255])
@pytest.mark.parametrize("corner", range(4))
def test_names_in_a_corner_are_found(size, grey, corner):
    image = anatomy(corner)
    assert not has_burnt_in_text(image)
    assert has_burnt_in_text(draw(image, LINES, size, grey, corner))


def test_a_side_marker_is_no_text_and_a_large_image_is_looked_at_small():
    assert burnt_in_letters(draw(anatomy(0), ["L"], 24, 255, 0)) < SUSPECT_LETTERS
    large = anatomy(1).resize((2560, 2560))
    assert not has_burnt_in_text(large)
    assert has_burnt_in_text(draw(large, LINES, 70, 255, 0))


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_blank_and_tiny_images_hold_nothing(grey):
    for size in ((1, 1), (3, 2), (200, 300)):
        assert burnt_in_letters(Image.new("L", size, grey)) == 0


@pytest.mark.slow
def test_real_slices_are_hardly_flagged_and_their_overlays_all(shared_data):
    paths = sorted([*(shared_data / "spider_sagittal").rglob("*.jpg"), *(shared_data / "mendeley_axial").glob("*.png")])
    images = [Image.open(path).convert("L") for path in paths]
    assert len(images) == 444
    assert sum(map(has_burnt_in_text, images)) == 0
    assert all(has_burnt_in_text(draw(image, LINES, 11, 255, 0)) for image in images[::4])
    # A single line, at any corner and size, also over fat and skin.
    single = [draw(image, [LINES[i % 4]], (9, 12, 18)[i % 3], 255, i % 4) for i, image in enumerate(images)]
    assert np.mean([has_burnt_in_text(image) for image in single]) > 0.9


def test_an_image_full_of_spots_is_suspected_within_bounded_memory():
    noise = np.random.default_rng(0).integers(0, 256, (1024, 1024)).astype(np.uint8)
    tracemalloc.start()
    assert has_burnt_in_text(Image.fromarray(noise))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300 * 2**20
