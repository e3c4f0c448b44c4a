import tracemalloc

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from data_scripts.privacy.burnt_in_text import has_burnt_in_text
from data_scripts.records import ReadOptions
from data_scripts.sources.synthetic import source as synthetic
from tests.data_scripts.privacy.drawn_texts import drawings

LINES = ["SALEM AHMAD", "ID: 0034571", "1961-04-02 M", "12/03/2016"]
NUM_DRAWINGS = 12
# Of 12 drawings of a kind on synthetic slices, so many are found at least, with some slack. The kinds
# that are hardly found there have no line.
FLOORS = {
    "upright": 5,
    "three lines": 8,
    "two or three short lines": 7,
    "four or five letters": 8,
    "lower case": 6,
    "letter-spaced": 8,
    "date": 5,
    "bold": 6,
    "thin": 7,
    "not antialiased": 8,
    "outlined": 9,
    "in a frame": 9,
    "JPEG": 7,
    "5-6 pixels high": 9,
    "over tissue": 5,
    "turned by 90 degrees": 5,
    "turned by 270 degrees": 7,
    "upside down": 7,
    "tilted by 2-10 degrees": 6,
    "dark on a bright box": 9,
    "dark on tissue": 7,
    "negative image": 9,
    "dim, 25-40 on background": 9,
    "enlarged 2-6x, blocks": 7,
    "enlarged 2-6x, smooth": 5,
    "enlarged, dim": 7,
}

REAL_FLOORS = dict.fromkeys(("upright", "date", "negative image", "dark on a bright box"), 9) | {
    "turned by 90 degrees": 9,
    "5-6 pixels high": 8,
    "dim, 25-40 on background": 6,
    "enlarged 2-6x, blocks": 7,
    "tilted by 2-10 degrees": 6,
}


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


@pytest.fixture(scope="module")
def slices() -> list[Image.Image]:
    return [record.load_image() for record in synthetic.read(ReadOptions(raw=None, num_patients=8))]


@pytest.mark.parametrize("size", [9, 12, 16, 24])
@pytest.mark.parametrize("grey", [180, 255])
@pytest.mark.parametrize("corner", range(4))
def test_names_in_a_corner_are_found(size, grey, corner):
    image = anatomy(corner)
    assert not has_burnt_in_text(image)
    assert has_burnt_in_text(draw(image, LINES, size, grey, corner))


@pytest.mark.parametrize("kind", FLOORS)
def test_texts_of_a_kind_are_found(slices, kind):
    assert sum(map(has_burnt_in_text, drawings(kind, slices, NUM_DRAWINGS, 1))) >= FLOORS[kind]


def test_synthetic_slices_are_not_suspected(slices):
    assert len(slices) == 48
    assert sum(map(has_burnt_in_text, slices)) == 0


def test_a_side_marker_is_no_text_and_a_large_image_is_looked_at_small():
    assert not has_burnt_in_text(draw(anatomy(0), ["L"], 24, 255, 0))
    large = anatomy(1).resize((2560, 2560))
    assert not has_burnt_in_text(large)
    assert has_burnt_in_text(draw(large, LINES, 70, 255, 0))


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_blank_and_tiny_images_hold_nothing(grey):
    for size in ((1, 1), (3, 2), (200, 300)):
        assert not has_burnt_in_text(Image.new("L", size, grey))


@pytest.mark.slow
def test_real_slices_are_not_suspected_and_their_overlays_are(shared_data):
    paths = sorted([*(shared_data / "spider_sagittal").rglob("*.jpg"), *(shared_data / "mendeley_axial").glob("*.png")])
    images = [Image.open(path).convert("L") for path in paths]
    assert len(images) == 444
    assert sum(map(has_burnt_in_text, images)) == 0
    assert all(has_burnt_in_text(draw(image, LINES, 11, 255, 0)) for image in images[::4])
    # A single line, at any corner and size, also over fat and skin.
    single = [draw(image, [LINES[i % 4]], (9, 12, 18)[i % 3], 255, i % 4) for i, image in enumerate(images)]
    assert np.mean([has_burnt_in_text(image) for image in single]) > 0.9
    found = {kind: sum(map(has_burnt_in_text, drawings(kind, images, NUM_DRAWINGS, 1))) for kind in REAL_FLOORS}
    assert all(found[kind] >= floor for kind, floor in REAL_FLOORS.items()), found


def test_a_page_full_of_letters_is_suspected_within_bounded_memory():
    letter = np.pad(np.full((5, 3), 255, dtype=np.uint8), ((0, 3), (0, 3)))
    noise = np.random.default_rng(0).integers(0, 256, (1024, 1024)).astype(np.uint8)
    tracemalloc.start()
    assert has_burnt_in_text(Image.fromarray(np.tile(letter, (128, 170))))
    has_burnt_in_text(Image.fromarray(noise))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300 * 2**20
