"""Draw names, ids and dates into an image, in the ways that scanners, exports and viewers do."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from zlib import crc32

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Two halves: the first to choose how text is found, the other to measure it.
FONTS = (("DejaVuSans", "STIXGeneral", "cmtt10", None), ("DejaVuSansMono", "DejaVuSerif", "cmss10", None))
BOLD_FONTS = (("DejaVuSans-Bold",), ("DejaVuSansMono-Bold", "STIXGeneralBol"))
THIN_FONTS = (("cmr10",), ("STIXGeneral",))
TEXTS = (
    ("SALEM AHMAD", "ID: 0034571", "MILLER, JANE", "PAT 772-104 F", "DR. HUSSEIN", "MRN 4402917"),
    ("GARCIA LOPEZ", "ID 9920418", "SCHMIDT, PETER", "ACC 55-20871 M", "ST. MARY CLINIC", "NO. 1083264"),
)
DATES = (("12/03/2016", "1961-04-02", "09:16:29", "20160312"), ("27/11/2019", "1948-10-30", "14:52:07", "20191127"))
SHORT = (("SALEM", "AHMAD", "34571", "F 61Y"), ("LOPEZ", "PETER", "20871", "M 72Y"))

# Font size, where it is drawn, and how much brighter than the pixels below (or which grey), each a range; see `draw`.
KINDS = {
    "upright": {},
    "three lines": {"lines": "block"},
    "two or three short lines": {"lines": "short block"},
    "four or five letters": {"lines": "short"},
    "lower case": {"case": "lower"},
    "letter-spaced": {"spacing": (0.15, 0.5)},
    "date": {"lines": "date"},
    "bold": {"fonts": BOLD_FONTS},
    "thin": {"fonts": THIN_FONTS, "size": (12, 23)},
    "not antialiased": {"is_antialiased": False, "size": (10, 15)},
    "outlined": {"outline": "dark"},
    "hollow": {"fonts": BOLD_FONTS, "size": (18, 33), "outline": "hollow"},
    "in a frame": {"box": "frame"},
    "JPEG": {"jpeg_quality": (30, 75)},
    "5-6 pixels high": {"size": (7, 8)},
    "over tissue": {"place": "tissue"},
    "turned by 90 degrees": {"turn": 90},
    "turned by 270 degrees": {"turn": 270},
    "upside down": {"turn": 180},
    "tilted by 2-10 degrees": {"tilt": (2, 10)},
    "dark on a bright box": {"box": "bright", "grey": (0, 40)},
    "dark on tissue": {"place": "bright", "grey": (0, 20)},
    "dark on tissue, turned": {"place": "bright", "grey": (0, 20), "turn": 90},
    "negative image": {"is_negative": True},
    "dim, 25-40 on background": {"place": "dark", "contrast": (25, 40)},
    "dim, turned": {"place": "dark", "contrast": (25, 40), "turn": 90},
    "dim, tilted": {"place": "dark", "contrast": (25, 40), "tilt": (2, 10)},
    "dim, 40-55 on tissue": {"place": "tissue", "contrast": (40, 55)},
    "dim, 40-60 darker than tissue": {"place": "bright", "contrast": (-60, -40)},
    "enlarged 2-6x, blocks": {"enlarged": "blocks"},
    "enlarged 2-6x, smooth": {"enlarged": "smooth"},
    "enlarged, dim": {"enlarged": "smooth", "place": "dark", "contrast": (25, 40)},
    "enlarged, dark on tissue": {"enlarged": "smooth", "place": "bright", "grey": (0, 20)},
}


def drawings(kind: str, images: Sequence[Image.Image], number: int, half: int) -> Iterator[Image.Image]:
    """Yield copies of some images (mode `L`) with a text of a kind; the same ones each time."""
    random = np.random.default_rng([half, crc32(kind.encode())])
    while number:
        drawn = draw(images[random.integers(len(images))], random, half, **KINDS[kind])
        if drawn is not None:
            number -= 1
            yield drawn


def draw(
    image: Image.Image,
    random: np.random.Generator,
    half: int,
    *,
    lines: str = "one",
    case: str = "upper",
    fonts: Sequence[Sequence[str | None]] = FONTS,
    size: tuple[int, int] = (10, 22),  # pixels; capital letters have 0.7 of it
    spacing: tuple[float, float] | None = None,  # more between letters; of the font size
    is_antialiased: bool = True,
    outline: str = "",  # dark, or hollow: nothing but an outline
    turn: int = 0,
    tilt: tuple[float, float] | None = None,  # degrees
    place: str = "corner",
    grey: tuple[int, int] = (180, 255),
    contrast: tuple[int, int] | None = None,  # grey values above the pixels below, instead of `grey`
    box: str = "",
    is_negative: bool = False,
    enlarged: str = "",  # letters of 40 to 150 pixels
    jpeg_quality: tuple[int, int] | None = None,
) -> Image.Image | None:
    """Draw a text; None if it has no room."""
    factor = 1.0
    points = int(random.integers(size[0], size[1] + 1))
    if enlarged:
        factor = float(random.integers(2, 7)) if enlarged == "blocks" else random.uniform(2, 6)
        points = int(np.clip(random.uniform(40, 150) / factor / 0.72, 9, 60))
        if factor > 3.5:
            image = image.reduce(2)
    text = _lines(lines, random, half)
    if case == "lower":
        text = [line.title() if random.random() < 0.5 else line.lower() for line in text]
    font = _font(random.choice(np.array(fonts[half], dtype=object)), points)
    gap = 0 if spacing is None else points * random.uniform(*spacing)
    ink = _ink(text, font, gap, 0, is_antialiased)
    if turn:
        ink = ink.rotate(turn, expand=True)
    if tilt:
        ink = ink.rotate(random.choice([-1, 1]) * random.uniform(*tilt), Image.Resampling.BICUBIC, expand=True)
    if ink.width + 12 > image.width or ink.height + 12 > image.height:
        return None
    left, top = _corner(image, ink.size, place, random)
    pixels = np.asarray(image).astype(float)
    area = (slice(top, top + ink.height), slice(left, left + ink.width))
    if box:
        around = (slice(top - 3, top + ink.height + 3), slice(left - 3, left + ink.width + 3))
        pixels[around] = 230 if box == "bright" else 255
        if box == "frame":
            pixels[top - 2 : top + ink.height + 2, left - 2 : left + ink.width + 2] = 0
    value: float | np.ndarray = random.integers(grey[0], grey[1] + 1)
    if contrast:
        value = pixels[area] + random.integers(contrast[0], contrast[1] + 1)
    share = np.asarray(ink) / 255
    if outline:
        whole = np.asarray(_ink(text, font, gap, 1, is_antialiased).resize(ink.size)) / 255
        if outline == "dark":
            pixels[area] *= 1 - whole
        else:
            share = np.clip(whole - share, 0, 1)
    pixels[area] = pixels[area] * (1 - share) + value * share
    drawn = Image.fromarray(np.clip(pixels, 0, 255).round().astype(np.uint8))
    if is_negative:
        drawn = Image.fromarray(255 - np.asarray(drawn))
    if enlarged:
        smooth = random.choice([Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.LANCZOS])
        shape = (int(drawn.width * factor), int(drawn.height * factor))
        drawn = drawn.resize(shape, Image.Resampling.NEAREST if enlarged == "blocks" else int(smooth))
    if jpeg_quality:
        drawn.save(file := io.BytesIO(), "JPEG", quality=int(random.integers(*jpeg_quality)))
        drawn = Image.open(file)
    return drawn


def _lines(lines: str, random: np.random.Generator, half: int) -> list[str]:
    if lines == "block":
        return [*random.permutation(TEXTS[half])[:2], str(random.choice(DATES[half]))]
    if lines == "short block":
        return [*random.permutation(SHORT[half])[: random.integers(2, 4)]]
    return [str(random.choice({"one": TEXTS, "date": DATES, "short": SHORT}[lines][half]))]


def _font(name: str | None, points: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    if name is None:
        return ImageFont.load_default(points)
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf", f"{name}.ttf"), points)


def _ink(lines: list[str], font: ImageFont.FreeTypeFont, gap: float, stroke: int, is_antialiased: bool) -> Image.Image:
    """Draw lines in white on black, cut to their size; a stroke adds a pixel on each side."""
    line_height = int(1.1 * sum(font.getmetrics()))
    width = max(int(sum(font.getlength(letter) + gap for letter in line)) for line in lines)
    ink = Image.new("L", (width + 12, len(lines) * line_height + 12))
    canvas = ImageDraw.Draw(ink)
    if not is_antialiased:
        canvas.fontmode = "1"
    for number, line in enumerate(lines):
        x, y = 4.0, 4 + number * line_height
        for part in line if gap else [line]:
            canvas.text((x, y), part, fill=255, font=font, stroke_width=stroke)
            x += font.getlength(part) + gap
    left, top, right, bottom = ink.getbbox()
    return ink.crop((left, top, right, bottom) if stroke else (left - 1, top - 1, right + 1, bottom + 1))


def _corner(image: Image.Image, size: tuple[int, int], place: str, random: np.random.Generator) -> tuple[int, int]:
    """Choose the left upper corner of a text; the most suitable of some places, unless in a corner of the image."""
    rights, bottoms = image.width - size[0] - 5, image.height - size[1] - 5
    if place == "corner":
        return int(random.choice([5, rights])), int(random.choice([5, bottoms]))
    pixels = np.asarray(image).astype(float)
    places = []
    for _ in range(30):
        left, top = int(random.integers(5, rights + 1)), int(random.integers(5, bottoms + 1))
        below = pixels[top : top + size[1], left : left + size[0]]
        suitable = {
            "dark": -below.mean() - 2 * below.std(),
            "tissue": min(below.mean(), 90) - 0.5 * below.std() - max(0, below.mean() - 150),
            "bright": min(np.percentile(below, 20), 180),
        }
        places.append((suitable[place], left, top))
    return max(places)[1:]
