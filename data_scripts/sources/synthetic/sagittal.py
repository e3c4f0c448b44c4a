"""Paint the midline of the lumbar spine from the side: bone, discs, canal and what surrounds them.

Coordinates as in `spine.py`: the front of the patient is at the left of the image. What a slice shows of a disc and of
the canal follows `DiscShape`; everything else varies from patient to patient and states nothing.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d, map_coordinates

from data_scripts.sources.synthetic.canvas import Canvas, Field, capsule, ellipse, radial_distance, smooth_noise, union
from data_scripts.sources.synthetic.spine import WALL_STEP_MM, DiscShape, Segment, Spine

# Names and content as in SPIDER's masks, where the vertebra has its spinous process and the canal the cord; SPIDER
# leaves the sacrum out.
SAGITTAL_MASK_NAMES = ("background", "vertebra", "disc", "spinal canal", "sacrum")
VERTEBRA, DISC, SPINAL_CANAL, SACRUM = range(1, len(SAGITTAL_MASK_NAMES))

# Share of the difference between nucleus and annulus that the signal of a disc keeps, by Pfirrmann grade.
NUCLEUS_SHARE = {1: 1.35, 2: 1.1, 3: 0.42, 4: 0.06, 5: -0.15}
SEGMENT_REACH_MM = 34.0


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The canvas in the coordinates of the posterior wall, and the outline of the sac along it, all in mm."""

    along: Field  # position along the wall of each pixel, downwards
    behind: Field  # distance of each pixel behind the wall
    sac_front: Field  # of each pixel's position along the wall, as the next three
    sac_back: Field
    canal_back: Field  # of the bony canal
    filling: Field  # how full of rootlets the sac is, 0 to 1


def paint_spine(canvas: Canvas, spine: Spine, conus: str, fat_mm: float, rng: np.random.Generator) -> None:
    """Paint the whole slice; `fat_mm` is the depth of the fat behind the spinous processes."""
    frame = _frame(canvas, spine, rng)
    _paint_body(canvas, spine, frame, fat_mm, rng)
    _paint_prevertebral(canvas, spine, frame, rng)
    _paint_back(canvas, spine, frame, rng)
    _paint_canal(canvas, spine, frame, conus, rng)
    _paint_arches(canvas, spine, rng)
    texture = 0.6 * smooth_noise(rng, canvas.image.shape[0], 5.0) + 0.8 * smooth_noise(rng, canvas.image.shape[0], 2.0)
    patches = smooth_noise(rng, canvas.image.shape[0], 12.0)
    fatty = rng.uniform(0.0, 0.10)  # yellow marrow comes in patches, and more of it with age
    marrow = canvas.signal["marrow"] * rng.uniform(0.85, 1.3) * (1.0 + 0.05 * texture + fatty * patches)
    for disc in spine.discs:
        _paint_disc(canvas, disc, spine.shapes[disc.name], texture, rng)
    for disc in spine.sacral_discs:
        where = canvas.window(*disc.center, SEGMENT_REACH_MM)
        behind, above = disc.local(canvas.x[where], canvas.y[where])
        shape = np.maximum(np.abs(above) - disc.half_height, np.abs(behind) - disc.half_depth)
        canvas.paint(shape, "annulus", where=where, blur_mm=0.5)
    for body in spine.bodies:
        _paint_vertebra(canvas, body, marrow, VERTEBRA, rng)
    for body in spine.sacrum:
        _paint_vertebra(canvas, body, marrow, SACRUM, rng)
    for disc in spine.discs:
        _paint_intrusion(canvas, disc, spine.shapes[disc.name], texture)


def _frame(canvas: Canvas, spine: Spine, rng: np.random.Generator) -> Frame:
    along, behind = spine.along_wall(canvas.x, canvas.y)
    steps = WALL_STEP_MM * np.arange(len(spine.wall))
    nodes = [spine.wall_at[disc.name] for disc in spine.discs[::-1]]
    shapes = [spine.shapes[disc.name] for disc in spine.discs[::-1]]
    first, end = spine.wall_at["S1/S2"], spine.wall_at["S2"] + 6.0
    nodes += [first, end, steps[-1]]
    front = np.interp(steps, nodes, [*(shape.free_front for shape in shapes), 5.0, 9.0, 9.0])
    back = np.interp(steps, nodes, [*(shape.free_back for shape in shapes), 13.0, 9.5, 9.0])
    front, back = gaussian_filter1d(front, 5.0), gaussian_filter1d(back, 8.0)
    canal_back = back + 0.7
    filling = np.zeros_like(steps)
    for node, shape in zip(nodes, shapes, strict=False):
        # Fat fills the canal between the laminae, below each disc, more or less of it.
        pad = np.where(steps < node + 4.0, rng.uniform(6.0, 12.0), rng.uniform(4.0, 9.0))
        lumbar = spine.wall_at["L1"] < node < spine.wall_at["L5"]
        depth = rng.uniform(1.5, 5.5) if lumbar and rng.random() < 0.75 else rng.uniform(0.0, 1.0)
        canal_back += depth * np.exp(-(((steps - node - 4.0) / pad) ** 2))
        near = np.exp(-(((steps - node) / 6.5) ** 2))
        wide = np.exp(-(((steps - node) / 9.0) ** 2))
        front += near * (shape.sac_front - np.interp(node, steps, front))
        back += near * (shape.sac_back - np.interp(node, steps, back))
        filling = np.maximum(filling, wide * shape.filling)
    fields = [np.interp(along, steps, line).astype(np.float32) for line in (front, back, canal_back, filling)]
    return Frame(
        along=along, behind=behind, **dict(zip(("sac_front", "sac_back", "canal_back", "filling"), fields, strict=True))
    )


def _tip_line(spine: Spine, y: Field) -> Field:
    """Return x of the tips of the spinous processes and of the sacral crest at each y, in mm."""
    tips = [
        body.at(body.half_depth + (42.0 if body.name == "L5" else 50.0), -body.half_height) for body in spine.bodies
    ]
    tips = tips[::-1] + [
        body.at(body.half_depth + depth, 0.0) for body, depth in zip(spine.sacrum, (29, 23, 18, 14, 11, 9), strict=True)
    ]
    tips.sort(key=lambda tip: tip[1])
    lines = np.arange(-260.0, 260.0)
    line = gaussian_filter1d(np.interp(lines, *np.array(tips)[:, ::-1].T), 9.0)
    return np.interp(y, lines, line).astype(np.float32)


def _paint_body(canvas: Canvas, spine: Spine, frame: Frame, fat_mm: float, rng: np.random.Generator) -> None:
    """Paint air, skin, fat, the abdominal wall and its content."""
    x, y, size = canvas.x, canvas.y, canvas.image.shape[0]
    tips = _tip_line(spine, y)
    back = tips + fat_mm * (1.0 + 0.5 * np.exp(-(((y - 95.0) / 45.0) ** 2))) - 3.0 * np.exp(-(((y + 5.0) / 60.0) ** 2))
    wall_fat = fat_mm * rng.uniform(0.5, 1.2)
    depth = rng.uniform(95.0, 125.0) + fat_mm
    front = -depth - 34.0 + 0.0011 * (y - 10.0) ** 2 * rng.uniform(0.3, 1.2)
    texture, coarse = smooth_noise(rng, size, 9.0), smooth_noise(rng, size, 26.0, 14.0)
    septa = np.exp(-((smooth_noise(rng, size, 11.0, 16.0) / 0.10) ** 2))
    fat = canvas.signal["fat"] * (1.0 + 0.03 * texture - 0.15 * septa)
    skin = np.maximum(x - back, front - x)
    canvas.paint(skin, "skin")
    canvas.paint(skin + 2.0, fat)
    canvas.paint(np.abs(x - back + 0.5 * fat_mm) - 0.3, "fascia", opacity=0.35)
    inside = np.maximum(x - tips - 4.0, front + wall_fat + 3.0 - x)
    canvas.paint(inside, "fascia")
    canvas.paint(inside + 1.0, "muscle")
    deep = canvas.signal["deep fat"] * (0.9 + 0.1 * texture)
    bowel = canvas.signal["bowel"] * (1.0 + 0.25 * texture)
    share = np.clip(0.45 + 0.35 * coarse, 0.0, 1.0) * rng.uniform(0.3, 1.0)
    canvas.paint(np.maximum(inside, front + wall_fat + 13.0 - x), deep + share * (bowel - deep), blur_mm=1.5)
    for _ in range(16):  # loops of bowel
        center = (rng.uniform(-125, -48), rng.uniform(-150, 150))
        radii = (rng.uniform(8, 22), rng.uniform(7, 15))
        where = canvas.window(*center, 26)
        if not inside[where].size:
            continue
        loop = ellipse(x[where], y[where], center, radii, rng.uniform(-1.5, 1.5)) + 1.5 * texture[where]
        loop = np.maximum(loop, np.maximum(inside, front + wall_fat + 14.0 - x)[where])
        canvas.paint(loop, "muscle", where=where, blur_mm=1.5)
        grey = canvas.signal["bowel"] * rng.uniform(0.5, 1.3)
        content = "air" if rng.random() < 0.2 else grey * (1.0 + 0.12 * texture[where])
        canvas.paint(loop + 2.0, content, where=where, blur_mm=3.0)


def _paint_prevertebral(canvas: Canvas, spine: Spine, frame: Frame, rng: np.random.Generator) -> None:
    """Paint the great vessel and fat in front of the bodies, and the organs in front of the sacrum."""
    x, y, size = canvas.x, canvas.y, canvas.image.shape[0]
    texture = smooth_noise(rng, size, 6.0)
    bodies = [*spine.bodies[::-1], *spine.sacrum]
    fronts = np.array([body.at(-body.half_depth, 0.0) for body in bodies])
    lines = np.arange(-260.0, 260.0)
    sacral = fronts[len(spine.bodies) :]
    front = np.interp(y, lines, gaussian_filter1d(np.interp(lines, fronts[:, 1], fronts[:, 0]), 8.0)).astype(np.float32)
    ahead = front - x  # in front of the bodies, in mm
    deep = canvas.signal["deep fat"] * (0.95 + 0.05 * texture)
    canvas.paint(np.abs(ahead - 8.0) - 12.0 - 3.0 * texture, deep, blur_mm=6.0)
    # The anterior longitudinal ligament spans the waists of the bodies, with some fat and veins beneath.
    canvas.paint(
        np.maximum(np.abs(ahead) - 1.6, y - sacral[0][1]), "ligament", blur_mm=1.5, opacity=rng.uniform(0.6, 1.0)
    )
    # Presacral fat, wide below the promontory.
    low = sacral[0][1] - 6.0
    canvas.paint(np.maximum(np.abs(ahead - 6.0) - 15.0 - 4.0 * texture, low - y), deep, blur_mm=5.0)
    split = fronts[len(spine.bodies) - 2][1] + rng.uniform(-12.0, 10.0)  # the aorta divides at L4
    width, gap = rng.uniform(5.5, 8.5), rng.uniform(2.0, 5.0)
    vessel = np.maximum(np.abs(ahead - gap - width) - width * np.clip((split - y) / 30.0, 0.2, 1.0), y - split)
    opacity = rng.uniform(0.2, 1.0)
    canvas.paint(vessel - 1.0, "vessel wall", opacity=opacity)
    canvas.paint(vessel, "vessel", opacity=opacity, blur_mm=1.5)
    # Bladder, and an organ or the rectum along the sacrum.
    center = (float(sacral[2][0]) - rng.uniform(62, 80), float(sacral[2][1]) + rng.uniform(18, 36))
    bladder = ellipse(x, y, center, (rng.uniform(20, 32), rng.uniform(12, 22)), rng.uniform(-0.5, 0.2))
    canvas.paint(bladder - 3.0, "muscle", blur_mm=1.0)
    canvas.paint(bladder, "urine", blur_mm=1.0)
    center = (float(sacral[3][0]) - rng.uniform(20, 30), float(sacral[3][1]) + rng.uniform(-6, 10))
    rectum = ellipse(x, y, center, (rng.uniform(8, 14), rng.uniform(12, 22)), rng.uniform(0.0, 0.5)) + texture
    canvas.paint(rectum, "muscle", blur_mm=1.0)
    content = "air" if rng.random() < 0.4 else canvas.signal["bowel"] * (0.7 + 0.25 * texture)
    canvas.paint(rectum + 3.0, content, blur_mm=1.5)


def _paint_back(canvas: Canvas, spine: Spine, frame: Frame, rng: np.random.Generator) -> None:
    """Paint interspinous ligaments and fat between canal and subcutaneous fat."""
    size = canvas.image.shape[0]
    line = _tip_line(spine, canvas.y)
    region = np.maximum(canvas.x - line, frame.canal_back - frame.behind)
    streaks = 0.7 * smooth_noise(rng, size, 3.5, 10.0) + 0.5 * smooth_noise(rng, size, 14.0, 9.0)
    share = np.clip(rng.uniform(0.08, 0.45) + 0.2 * streaks, 0.0, 1.0)
    muscle = 0.85 * canvas.signal["muscle"]
    value = muscle + share * (0.85 * canvas.signal["deep fat"] - muscle)
    canvas.paint(region, value, blur_mm=1.0)
    canvas.paint(np.abs(canvas.x - line) - 1.3, "ligament", blur_mm=1.0, opacity=0.9)  # supraspinous


def _paint_canal(canvas: Canvas, spine: Spine, frame: Frame, conus: str, rng: np.random.Generator) -> None:
    """Paint epidural fat, dura, CSF, the cord down to its conus, and the cauda equina."""
    size = canvas.image.shape[0]
    canal = np.maximum(-frame.behind, frame.behind - frame.canal_back)
    canvas.paint(canal - 1.0, "ligament", blur_mm=0.8, opacity=0.7)
    # The posterior longitudinal ligament spans the waists of the bodies, with veins and some fat beneath.
    canvas.paint(np.abs(frame.behind + 0.3) - 1.7, "ligament", blur_mm=1.2, opacity=0.55)
    above_sacrum = spine.wall_at["L5"] - frame.along  # epidural fat in front of the sac begins at L5
    fat = canvas.signal["deep fat"] * (0.85 + 0.12 * smooth_noise(rng, size, 5.0))
    canvas.paint(np.maximum(canal, np.minimum(above_sacrum, 0.6 * frame.canal_back - frame.behind)), fat, blur_mm=2.0)
    middle, half = 0.5 * (frame.sac_front + frame.sac_back), 0.5 * (frame.sac_back - frame.sac_front)
    sac = np.abs(frame.behind - middle) - half
    sac = np.where(half > 0.6, sac, 9.0)
    csf, rootlet, cord_signal = (canvas.signal[name] for name in ("csf", "rootlet", "cord"))
    value = np.full(canvas.x.shape, csf, np.float32)
    # Pulsation: CSF loses some signal in waves along the canal.
    value *= 1.0 - 0.05 * np.clip(smooth_noise(rng, size, 14.0, 30.0), 0.0, 2.0)
    tip = spine.wall_at[conus]
    relative = (frame.behind - frame.sac_front) / np.maximum(2.0 * half, 0.5)
    # Rootlets sink to the back below the conus and grow fewer further down.
    lanes = _along_noise(frame, rng, along_mm=45.0, across_mm=1.1)
    fewer = np.clip(1.0 - (frame.along - tip) / 170.0, 0.25, 1.0) * np.clip((frame.along - tip + 25.0) / 25.0, 0.0, 1.0)
    start = 0.98 - 0.55 * fewer
    roots = np.clip((relative - start) / 0.22, 0.0, 1.0) * np.clip(0.62 + 0.45 * lanes, 0.0, 1.0)
    strands = np.clip(0.9 * lanes - 1.0, 0.0, 1.0) * 0.5 * fewer * (frame.along > tip)
    share = np.maximum(np.clip(roots * (0.35 + 0.65 * fewer), 0.0, 0.85), strands)
    share = np.maximum(share, 0.9 * frame.filling)
    value += share * (rootlet - value)
    thickness = np.interp(frame.along - tip, (-90, -45, -22, -8, 0), (3.6, 4.3, 3.4, 1.7, 0.3)).astype(np.float32)
    cord_middle = middle + 0.14 * half
    cord = np.maximum(np.abs(frame.behind - cord_middle) - thickness, frame.along - tip)
    cover = np.clip(0.5 - cord / (canvas.spacing_mm + 0.6), 0.0, 1.0)
    core = 1.0 - 0.10 * np.exp(-((cord / 1.2) ** 2))
    value += cover * (cord_signal * core - value)
    canvas.paint(sac - 0.7, "dura")
    canvas.paint(sac, value, mask=SPINAL_CANAL)


def _along_noise(frame: Frame, rng: np.random.Generator, along_mm: float, across_mm: float) -> Field:
    """Draw noise that follows the canal: it varies over `along_mm` down it and `across_mm` from front to back."""
    size = 512
    noise = smooth_noise(rng, size, along_mm, across_mm / 0.25)
    return map_coordinates(
        noise, [np.clip(frame.along, 0, size - 1), np.clip(60 + frame.behind / 0.25, 0, size - 1)], order=1
    )


def _paint_arches(canvas: Canvas, spine: Spine, rng: np.random.Generator) -> None:
    """Paint spinous processes with the laminae that close the canal, and the crest of the sacrum."""
    texture = smooth_noise(rng, canvas.image.shape[0], 5.0)
    fine = smooth_noise(rng, canvas.image.shape[0], 2.5, 6.0)
    marrow = canvas.signal["marrow"] * (0.95 + 0.08 * texture + 0.07 * fine)
    shapes = [spine.shapes[disc.name] for disc in spine.discs]
    for body, shape in zip(spine.bodies, shapes, strict=True):
        lumbar, last = body.name.startswith("L"), body.name == "L5"
        base = body.half_depth + shape.free_back + 3.2
        length = (19.0 if last else 25.0 if lumbar else 28.0) * rng.uniform(0.9, 1.12)
        thick = (7.5 if last else 10.5 if lumbar else 6.0) * rng.uniform(0.85, 1.1)
        drop = (3.0 if lumbar else 12.0) + rng.uniform(-2.0, 3.0)
        low = -body.half_height * (0.62 if lumbar else 0.65)
        start, end = body.at(base + 7.0, low), body.at(base + length - 0.5 * thick, low - drop)
        where = canvas.window(*body.at(base + 0.5 * length, low - 0.5 * drop), 0.5 * length + thick + 6.0)
        x, y = canvas.x[where], canvas.y[where]
        process = union(
            union(capsule(x, y, start, end, 0.72 * thick), ellipse(x, y, end, (0.95 * thick, 1.0 * thick)), 4.0),
            capsule(x, y, body.at(base, low + 5.0), body.at(base + 3.5, low - 5.0), 2.2),
            5.0,
        )
        process = process + 0.9 * texture[where]
        opacity = float(np.clip(rng.normal(0.95, 0.2), 0.45, 1.0))  # a process that leaves the slice is seen in part
        canvas.paint(process - 0.2, "cortex", where=where, blur_mm=1.0, opacity=0.8 * opacity)
        canvas.paint(process + 0.9, marrow[where], where=where, blur_mm=1.6, opacity=opacity)
        canvas.mask[where][process < -0.5] = VERTEBRA
    for body, depth in zip(spine.sacrum[:4], (20.0, 15.0, 12.0, 9.0), strict=True):
        start, end = body.at(body.half_depth + depth, 7.0), body.at(body.half_depth + depth - 3.0, -body.half_height)
        where = canvas.window(*body.at(body.half_depth + depth, 0.0), 24)
        crest = capsule(canvas.x[where], canvas.y[where], start, end, rng.uniform(2.4, 4.0)) + 0.8 * texture[where]
        canvas.paint(crest, "cortex", where=where, blur_mm=0.8, opacity=0.7)
        canvas.paint(crest + 1.2, marrow[where], where=where, blur_mm=1.4, opacity=0.8)
        canvas.mask[where][crest < 0] = SACRUM


def _paint_vertebra(canvas: Canvas, body: Segment, marrow: Field, mask: int, rng: np.random.Generator) -> None:
    where = canvas.window(*body.center, SEGMENT_REACH_MM)
    behind, above = body.local(canvas.x[where], canvas.y[where])
    height = body.half_height - behind * np.tan(0.5 * body.wedge)
    u = behind / body.half_depth
    dish = (1.5 if mask == VERTEBRA else 0.3) * np.clip(1.0 - u * u, 0.0, 1.0)  # endplates are concave
    waist = (1.2 if mask == VERTEBRA else 0.2) * np.clip(1.0 - (above / body.half_height) ** 2, 0.0, 1.0)
    flat = np.abs(above) - height + dish
    deep = np.abs(behind) - body.half_depth + waist
    outline = -union(-flat, -deep, 3.5)  # rounded corners
    outline = np.maximum(outline, np.maximum(flat, deep))
    value = marrow[where].copy()
    # The basivertebral vein enters at the middle of the posterior wall.
    if mask == VERTEBRA:
        reach = rng.uniform(0.25, 0.6)
        vein = np.exp(-((above / (1.0 + 1.4 * np.clip(u, 0, 1))) ** 2)) * np.clip((u - 1.0 + reach) / reach, 0.0, 1.0)
        value += rng.uniform(0.3, 0.9) * vein * (canvas.signal["vein"] - value)
    canvas.paint(outline, "cortex", where=where, opacity=rng.uniform(0.65, 1.0))
    # The endplates are seen as a line, the thin cortex of the walls hardly.
    canvas.paint(np.maximum(flat + 1.1, outline + 0.6), value, where=where, blur_mm=0.6)
    canvas.mask[where][outline < -0.4] = mask


def _disc_value(canvas: Canvas, disc: Segment, shape: DiscShape, behind: Field, above: Field, texture: Field) -> Field:
    """Compute the signal of a disc: a lens of nucleus between dark annulus in front and behind."""
    annulus, nucleus = canvas.signal["annulus"], canvas.signal["nucleus"]
    dry = canvas.signal["dehydrated nucleus"]
    share = NUCLEUS_SHARE[shape.pfirrmann] * (shape.hydration if shape.pfirrmann < 3 else 1.0)
    center = annulus + share * (nucleus - annulus) if share > 0.1 else dry * (1.0 + share)
    u, v = (behind / disc.half_depth - 0.06) / 0.76, above / (disc.half_height + 1.4)
    core = np.sqrt(u * u + 0.6 * v * v)
    blur = 0.2 if shape.pfirrmann < 3 else 0.32
    value = np.interp(core + 0.05 * texture, (0.82 - blur, 0.82 + blur), (center, annulus)).astype(np.float32)
    if shape.pfirrmann in (2, 3):  # a fibrous cleft divides the nucleus
        cleft = np.exp(-((v / 0.13) ** 2)) * np.clip(1.3 - core * 1.3, 0.0, 1.0)
        value -= (0.42 if shape.pfirrmann == 2 else 0.25) * cleft * (value - annulus)
    grain = 0.03 if shape.pfirrmann < 3 else 0.06
    return value * (1.0 + grain * texture)


def _paint_disc(canvas: Canvas, disc: Segment, shape: DiscShape, texture: Field, rng: np.random.Generator) -> None:
    where = canvas.window(*disc.center, SEGMENT_REACH_MM)
    behind, above = disc.local(canvas.x[where], canvas.y[where])
    half_gap = disc.half_height - behind * np.tan(0.5 * disc.wedge) + 2.2  # the endplates are painted over it
    round_ = np.clip(1.0 - (above / half_gap) ** 2, 0.0, 1.0)
    front, back = disc.half_depth + 1.0 * round_, disc.half_depth + np.minimum(shape.margin, 2.0) * (0.4 + 0.6 * round_)
    outline = np.maximum(np.abs(above) - half_gap, np.maximum(behind - back, -behind - front))
    value = rng.uniform(0.92, 1.1) * _disc_value(canvas, disc, shape, behind, above, texture[where])
    canvas.paint(outline - 0.9, "cortex", where=where)
    canvas.paint(outline, value, where=where, blur_mm=0.5)
    canvas.mask[where][(outline < 0) & (np.abs(above) < half_gap - 2.2)] = DISC


def _paint_intrusion(canvas: Canvas, disc: Segment, shape: DiscShape, texture: Field) -> None:
    """Paint what of a disc lies behind its normal margin, over the rims of the vertebrae."""
    if shape.margin < 1.0:
        return
    center = disc.at(disc.half_depth - 1.0, 0.0)
    where = canvas.window(*center, 16)
    behind, above = disc.local(canvas.x[where], canvas.y[where])
    half = 0.85 * disc.half_height + 0.28 * shape.margin
    u, v = (behind - disc.half_depth + 1.5) / (shape.margin + 1.5), above / half
    outline = radial_distance(behind - disc.half_depth + 1.5, above, np.sqrt(u * u + v * v), shape.margin + 1.5)
    outline = np.maximum(outline, disc.half_depth - 1.0 - behind)
    value = 0.85 * canvas.signal["annulus"] * (1.0 + 0.06 * texture[where])
    canvas.paint(np.maximum(outline - 0.8, disc.half_depth + 0.3 - behind), "cortex", where=where)
    canvas.paint(outline, value, where=where, blur_mm=0.5, mask=DISC)
