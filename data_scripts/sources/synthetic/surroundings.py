"""Skin, fat, muscles, pelvis, vessels and bowel around the spine, in the coordinates of `canvas.py`."""

import math
from dataclasses import dataclass

import numpy as np

from data_scripts.sources.synthetic.anatomy import PARASPINAL_MUSCLE, PSOAS, LevelShape
from data_scripts.sources.synthetic.canvas import Canvas, Field, capsule, ellipse, radial_distance, smooth_noise
from data_scripts.sources.synthetic.findings import SYNTHETIC_LEVELS


@dataclass(frozen=True, kw_only=True)
class Build:
    """The build of a patient: the same at all levels, and independent of findings."""

    size: float  # scale of the skeleton, about 1
    fat_mm: float  # subcutaneous fat behind the muscles
    muscle: float  # scale of the muscles, about 1
    fatty_streaks: float  # share of fat in the paraspinal muscles, 0 to 1
    lean: float  # how much the spine's surroundings differ from left to right, in mm


def sample_build(rng: np.random.Generator) -> Build:
    """Draw a patient's build."""
    return Build(
        size=rng.uniform(0.93, 1.06),
        fat_mm=rng.uniform(6, 26),
        muscle=rng.uniform(0.9, 1.08),
        fatty_streaks=rng.beta(1.5, 2.5),
        lean=rng.normal(0, 1.2),
    )


def paint_surroundings(canvas: Canvas, shape: LevelShape, build: Build, rng: np.random.Generator) -> None:
    """Paint everything that the level itself is later painted onto."""
    _paint_body(canvas, build, rng)
    if shape.level == "L5/S1":
        _paint_pelvis(canvas, build)
    else:
        _paint_flank(canvas, shape, build)
    _paint_bowel(canvas, build, rng)
    _paint_back_muscles(canvas, shape, build, rng)
    _paint_psoas(canvas, shape, build, rng)
    _paint_vessels(canvas, shape, rng)


def _paint_body(canvas: Canvas, build: Build, rng: np.random.Generator) -> None:
    """Paint fat inside a skin line; the midline furrow follows the spinous processes."""
    x, y, size = canvas.x, canvas.y, canvas.image.shape[0]
    furrow = 4.0 * np.exp(-((x / 14.0) ** 2))
    back = 60.0 * build.size + build.fat_mm - furrow - 0.0016 * x * x
    texture = smooth_noise(rng, size, 9.0)
    lobules = np.exp(-((smooth_noise(rng, size, 11.0, 16.0) / 0.10) ** 2))  # septa: where smooth noise crosses 0
    fat = canvas.signal["fat"] * (1.0 + 0.03 * texture - 0.18 * lobules)
    # Vessels and septa of the deep fat come in tufts, not everywhere.
    strands = np.exp(-((smooth_noise(rng, size, 5.0) / 0.40) ** 2)) * np.clip(texture, 0.0, 1.0)
    deep_fat = canvas.signal["deep fat"] * (0.95 + 0.12 * texture - 0.32 * strands)
    canvas.paint(y - back, "skin")
    canvas.paint(y - back + 2.0, fat)
    canvas.paint(y - 45.0 + 0.006 * x * x, deep_fat, blur_mm=6.0)
    canvas.paint(np.abs(y - (back - 0.45 * build.fat_mm)) - 0.35, "fascia", opacity=0.5)


def _paint_back_muscles(canvas: Canvas, shape: LevelShape, build: Build, rng: np.random.Generator) -> None:
    """Paint erector spinae and multifidus: one compartment per side, feathered with fat, in a thin fascia."""
    size = canvas.image.shape[0]
    narrow = {"L3/L4": 1.0, "L4/L5": 0.96, "L5/S1": 0.84}[shape.level] * build.muscle * build.size
    wide, deep = 35.0 * narrow, 23.0 * narrow
    noise, patches = smooth_noise(rng, size, 6.0), smooth_noise(rng, size, 9.0, 6.0)
    for side in (-1, 1):
        center = (side * (3.0 + wide), 35.5 * build.size)
        where = canvas.window(*center, 1.2 * wide + 4)
        x, y = canvas.x[where], canvas.y[where]
        u = (x - center[0]) / wide
        v = (y - center[1] + 0.06 * side * (x - center[0])) / (deep * (1.0 - 0.22 * np.clip(side * u, -1, 1)))
        radius = ((u * u) ** 1.15 + (v * v) ** 1.15) ** (1 / 2.3)  # slimmer on its lateral side
        distance = radial_distance(x - center[0], y - center[1], radius, deep)
        share = _fat_share(side * x, y, noise[where], patches[where], build, rng)
        value = canvas.signal["muscle"] * (1 + 0.06 * noise[where])
        value += share * (canvas.signal["deep fat"] - value)
        canvas.paint(distance - 0.4, "fascia", where=where)
        canvas.paint(distance, value, where=where, mask=PARASPINAL_MUSCLE)


def _fat_share(lateral: Field, y: Field, noise: Field, patches: Field, build: Build, rng: np.random.Generator) -> Field:
    """Compute the share of fat in a paraspinal muscle: septa that fan out from the facet, most near the spine."""
    turn = np.arctan2(y - 17.0, lateral - 10.0) + 0.07 * noise
    fan = np.interp(turn, np.linspace(-1.2, 3.2, 90), rng.standard_normal(90)).astype(np.float32)
    septa = np.exp(-((fan / 0.30) ** 2)) * np.clip(0.45 + 0.6 * patches, 0.0, 1.0)
    medial = np.exp(-np.clip(lateral - 5.0, 0.0, None) / 18.0)
    cleft = np.exp(-((capsule(lateral, y, (22, 20), (29, 54), 0.1) / 1.0) ** 2)) * np.clip(0.5 + 0.6 * noise, 0, 1)
    grain = fan * 0.5 + noise * 0.4 + patches * 0.6  # infiltration keeps the grain of the muscle
    replaced = np.clip(1.6 * (grain - 1.7 + 1.6 * build.fatty_streaks * (0.4 + medial) + 0.9 * medial), 0.0, 1.0)
    share = septa * (0.15 + (0.35 + 0.5 * build.fatty_streaks) * medial) + 0.5 * cleft + 0.9 * replaced
    return np.clip(share, 0.0, 0.95)


def _paint_psoas(canvas: Canvas, shape: LevelShape, build: Build, rng: np.random.Generator) -> None:
    index = SYNTHETIC_LEVELS.index(shape.level)
    wide, deep = (x * build.muscle * build.size for x in ((13.5, 20.0), (17.0, 22.0), (15.5, 21.0))[index])
    veins = np.exp(-((smooth_noise(rng, canvas.image.shape[0], 8.0, 5.0) / 0.07) ** 2))
    for side in (-1, 1):
        out, up = ((0.84, -14.0), (0.96, -20.0), (1.25, -34.0))[index]
        center = (side * (out * shape.disc_half_width + wide) + build.lean, up + side * 0.5 * build.lean)
        where = canvas.window(*center, deep + 6)
        tilt = side * (0.15, 0.3, 0.25)[index]
        distance = ellipse(canvas.x[where], canvas.y[where], center, (wide, deep), tilt)
        value = canvas.signal["muscle"] * (1 - 0.25 * veins[where]) + 0.25 * veins[where] * canvas.signal["deep fat"]
        canvas.paint(distance - 0.3, "fascia", where=where)
        canvas.paint(distance, value, where=where, mask=PSOAS)


def _paint_flank(canvas: Canvas, shape: LevelShape, build: Build) -> None:
    """Paint quadratus lumborum, and the top of the iliac crest at L4/L5."""
    for side in (-1, 1):
        center, wide = (side * 60.0 * build.size, 4.5), 27.0 * build.muscle
        where = canvas.window(*center, wide + 4)
        distance = ellipse(canvas.x[where], canvas.y[where], center, (wide, 0.36 * wide), side * 0.16)
        canvas.paint(distance - 0.3, "fascia", where=where)
        canvas.paint(distance, "muscle", where=where, blur_mm=0.5)
        if shape.level == "L4/L5":
            _paint_bone_bar(canvas, (side * 84.0, 18.0), (side * 112.0, -2.0), 4.5)


def _paint_pelvis(canvas: Canvas, build: Build) -> None:
    """Paint iliac wings with iliacus in front and gluteus behind, and the fading sacral ala."""
    for side in (-1, 1):
        iliacus, gluteus, ala = (side * 92.0, -16.0), (side * 100.0, 40.0), (side * 40.0, 7.0)
        for center, radii, turn, tissue, blur, opacity in (
            (iliacus, (30.0, 22.0), -0.65, "muscle", 0.0, 1.0),
            (gluteus, (34.0, 20.0), -0.6, "muscle", 0.0, 1.0),
            (ala, (15.0, 8.0), 0.35, "marrow", 9.0, 0.7),
        ):
            where = canvas.window(*center, radii[0] + blur)
            distance = ellipse(canvas.x[where], canvas.y[where], center, radii, side * turn)
            canvas.paint(distance, tissue, where=where, blur_mm=blur, opacity=opacity)
        _paint_bone_bar(canvas, (side * 60.0 * build.size, 32.0), (side * 110.0, -8.0), 5.5)


def _paint_bone_bar(canvas: Canvas, start: tuple[float, float], end: tuple[float, float], radius: float) -> None:
    middle = (0.5 * (start[0] + end[0]), 0.5 * (start[1] + end[1]))
    where = canvas.window(*middle, 0.5 * math.dist(start, end) + radius + 2)
    bone = capsule(canvas.x[where], canvas.y[where], start, end, radius)
    canvas.paint(bone, "cortex", where=where)
    canvas.paint(bone + 1.6, "marrow", where=where, blur_mm=0.8)


def _paint_vessels(canvas: Canvas, shape: LevelShape, rng: np.random.Generator) -> None:
    """Paint the aorta on the patient's left and cava on the right; below L4 the iliac vessels."""
    front = -2.0 * shape.disc_half_depth
    vessels = {
        "L3/L4": [(8, -9, 8.0, 8.0), (-15, -8, 10.5, 7.5)],
        "L4/L5": [(13, -8, 6.0, 6.0), (-3, -11, 6.0, 6.0), (-19, -6, 9.5, 7.0)],
        "L5/S1": [(26, 2, 5.0, 5.0), (-25, 3, 5.0, 5.0), (16, -4, 6.5, 5.0), (-15, -5, 6.5, 5.0)],
    }[shape.level]
    for x, y, wide, deep in vessels:
        center = (x + rng.uniform(-2, 2), front + y + rng.uniform(-1.5, 1.5))
        where = canvas.window(*center, max(wide, deep) + 4)
        radii = (wide * rng.uniform(0.85, 1.1), deep * rng.uniform(0.75, 1.1))
        distance = ellipse(canvas.x[where], canvas.y[where], center, radii, rng.uniform(-0.4, 0.4))
        canvas.paint(distance - 0.9, "vessel wall", where=where)
        canvas.paint(distance, "vessel", where=where, blur_mm=0.6)
        slow = ellipse(canvas.x[where], canvas.y[where], center, (0.7 * radii[0], 0.7 * radii[1]))
        canvas.paint(slow, "vessel wall", where=where, blur_mm=3.0, opacity=rng.uniform(0.0, 0.8))


def _paint_bowel(canvas: Canvas, build: Build, rng: np.random.Generator) -> None:
    """Paint loops of grey content in front of the spine, colon on both flanks, gas in some."""
    texture = smooth_noise(rng, canvas.image.shape[0], 5.0)
    loops = [(side * 76.0, -36.0, 15.0) for side in (-1, 1)]
    loops += [(rng.uniform(-70, 70), rng.uniform(-78, -58), rng.uniform(8, 14)) for _ in range(5)]
    for x, y, reach in loops:
        center = (x + rng.uniform(-6, 6), y + rng.uniform(-6, 6))
        radii = (reach * rng.uniform(0.8, 1.2), reach * rng.uniform(0.8, 1.2))
        gas = rng.random() < 0.25
        where = canvas.window(*center, 1.3 * reach + 3)
        distance = ellipse(canvas.x[where], canvas.y[where], center, radii, rng.uniform(-0.6, 0.6))
        distance = distance + 1.2 * texture[where]
        canvas.paint(distance, "bowel", where=where, blur_mm=1.0)
        value: str | Field = "air" if gas else canvas.signal["bowel"] * (1.0 + 0.22 * texture[where])
        canvas.paint(distance + 2.0, value, where=where, blur_mm=1.0)
