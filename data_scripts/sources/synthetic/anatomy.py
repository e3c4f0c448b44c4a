"""Disc, spinal canal and posterior elements, and what each finding does to them, in the coordinates of `canvas.py`."""

import math
from dataclasses import dataclass

import numpy as np

from data_scripts.sources.synthetic.canvas import Canvas, Field, capsule, ellipse, radial_distance, smooth_noise, union
from data_scripts.sources.synthetic.findings import SYNTHETIC_LEVELS, LevelFindings

MASK_NAMES = (
    "background",
    "disc",
    "posterior element",
    "thecal sac",
    "area between disc and posterior elements",
    "psoas",
    "paraspinal muscle",
)
DISC, POSTERIOR_ELEMENT, THECAL_SAC, AREA_BETWEEN, PSOAS, PARASPINAL_MUSCLE = range(1, len(MASK_NAMES))

# Millimetres by which the disc passes its normal posterior margin: (least, most) of each severity.
BULGE_MM = {"mild": (3.0, 3.8), "moderate": (4.4, 5.2), "severe": (5.8, 6.8)}
PROTRUSION_MM = {"mild": (4.2, 5.0), "moderate": (5.8, 6.8), "severe": (7.6, 9.0)}

SUPERIMPOSED = 0.6  # share of these millimetres that a protrusion adds to a bulge

# Area of the thecal sac as a share of the patient's own normal area.
SAC_SHARE = {None: 1.0, "mild": 0.62, "moderate": 0.40, "severe": 0.20}
CANAL_DEPTH_MM = 18.5  # from the normal disc margin to where the ligamenta flava meet
ROOTLETS = 18
HYPERTROPHY_MM = {"mild": 0.9, "moderate": 1.5, "severe": 2.0}


@dataclass(frozen=True, kw_only=True)
class LevelShape:
    """Normal measures of one level of one patient, in mm unless said otherwise; widths run left to right."""

    level: str  # one of `SYNTHETIC_LEVELS`
    disc_half_width: float
    disc_half_depth: float
    concavity: float  # how far the middle of a normal posterior margin lies in front of its sides
    sac_half_width: float
    sac_half_depth: float
    sac_triangularity: float  # 0 is an ellipse, 0.2 a rounded triangle with its apex behind
    sac_gap: float  # epidural fat between disc and sac
    facet_offset: float  # from the midline to the middle of a facet joint
    facet_turn: float  # angle of the joint line to the sagittal plane, in radians
    facet_tropism: float  # difference between the left and the right joint line, in radians
    intrusion_share: float  # position of each finding within the range of its severity, 0 to 1
    hydration: float  # water signal of a healthy nucleus, 0 to 1


def sample_shape(level: str, size: float, rng: np.random.Generator) -> LevelShape:
    """Draw the normal measures of a level, whatever its findings; `size` is the patient's, about 1."""
    index = SYNTHETIC_LEVELS.index(level)
    canal = size * rng.uniform(0.94, 1.06)
    return LevelShape(
        level=level,
        disc_half_width=size * (23.5, 24.5, 25.5)[index] * rng.uniform(0.98, 1.02),
        disc_half_depth=size * (17.8, 17.6, 16.2)[index] * rng.uniform(0.97, 1.03),
        concavity=(1.6, 1.1, 0.4)[index] + rng.uniform(-0.4, 0.4),
        sac_half_width=canal * (8.6, 8.6, 8.0)[index],
        sac_half_depth=canal * (7.3, 7.0, 6.2)[index],
        sac_triangularity=(0.02, 0.08, 0.15)[index] + rng.uniform(-0.02, 0.03),
        sac_gap=(0.8, 1.0, 2.2)[index] * rng.uniform(0.8, 1.2),
        facet_offset=size * (16.5, 18.0, 20.0)[index] * rng.uniform(0.97, 1.03),
        facet_turn=(0.45, 0.65, 0.85)[index] + rng.uniform(-0.1, 0.1),
        facet_tropism=rng.normal(0.0, 0.12),
        intrusion_share=rng.random(),
        hydration=rng.uniform(0.75, 1.0),
    )


def posterior_shift(x: Field | float, shape: LevelShape, findings: LevelFindings) -> Field:
    """Measure how far the posterior disc margin lies behind a plain oval at x, in mm; below 0 where it is concave."""
    x = np.asarray(x, np.float32)
    bulge = _extent(BULGE_MM, findings.bulge, shape)
    flattened = shape.concavity * (0.15 if findings.bulge else 1.0)
    shift = bulge - flattened * np.exp(-((x / 9.0) ** 2))
    if findings.protrusion_site:
        extent = _extent(PROTRUSION_MM, findings.protrusion, shape) * (SUPERIMPOSED if findings.bulge else 1.0)
        shift = shift + extent * np.exp(-(((x - _protrusion_x(shape, findings)) / 6.2) ** 2))
    return shift.astype(np.float32)


def _protrusion_x(shape: LevelShape, findings: LevelFindings) -> float:
    toward_left = {"left": 1.0, "central": 0.0, "right": -1.0}[findings.protrusion_side or "central"]
    return toward_left * (0.74 * shape.disc_half_width if findings.foraminal_side else 0.34 * shape.disc_half_width)


def _extent(ranges: dict[str, tuple[float, float]], severity: str | None, shape: LevelShape) -> float:
    if severity is None:
        return 0.0
    least, most = ranges[severity]
    return least + shape.intrusion_share * (most - least)


def _hypertrophy(findings: LevelFindings) -> float:
    return HYPERTROPHY_MM[findings.stenosis] if findings.hypertrophy and findings.stenosis else 0.0


def disc_distance(x: Field, y: Field, shape: LevelShape, findings: LevelFindings) -> tuple[Field, Field]:
    """Return the signed distance to the disc's outline in mm, and the relative radius (0 centre, 1 outline)."""
    bulge = _extent(BULGE_MM, findings.bulge, shape)
    half_width, half_depth = shape.disc_half_width + 0.35 * bulge, shape.disc_half_depth
    back = np.clip(1.5 * (y + half_depth) / half_depth, 0.0, 1.0)
    back = back * back * (3.0 - 2.0 * back)  # the back half moves, the front half stays
    v = (y - posterior_shift(x, shape, findings) * back + half_depth) / half_depth
    u = x / half_width
    # |u|^2.2 + |v|^2.2 = 1: fuller at the corners than an ellipse.
    radius = ((u * u) ** 1.1 + (v * v) ** 1.1) ** (1 / 2.2)
    return radial_distance(u * half_width, v * half_depth, radius, half_depth), radius


def sac_frame(shape: LevelShape, findings: LevelFindings) -> tuple[float, float, float]:
    """Return half width, half depth and y of the middle of the thecal sac, in mm.

    A stenotic sac loses more of its depth than of its width. Without stenosis an intruding disc flattens the sac and
    pushes it back into the epidural fat, but takes little of its area: the canal stays wide enough.
    """
    share = SAC_SHARE[findings.stenosis]
    shift = float(posterior_shift(0.0, shape, findings))
    front = shift + (shape.sac_gap if shift < 2.0 else 0.8)
    half_depth = min(shape.sac_half_depth * share**0.65, 0.5 * (CANAL_DEPTH_MM - front))
    half_width = min(share * shape.sac_half_width * shape.sac_half_depth / half_depth, 1.2 * shape.sac_half_width)
    return half_width, half_depth, front + half_depth


def sac_triangularity(shape: LevelShape, findings: LevelFindings) -> float:
    """Return by how much of its half depth the sac is deeper behind its middle, and less deep in front of it."""
    return shape.sac_triangularity + 0.12 * (1.0 - SAC_SHARE[findings.stenosis])


def sac_distance(x: Field, y: Field, shape: LevelShape, findings: LevelFindings, disc: Field) -> Field:
    """Return the signed distance to the thecal sac in mm; it yields to the disc, whose distance is `disc`."""
    half_width, half_depth, middle = sac_frame(shape, findings)
    triangularity = sac_triangularity(shape, findings)
    angle = np.arctan2((y - middle) / half_depth, x / half_width)
    outline = 1.0 - triangularity * np.sin(3 * angle)  # apex behind, at 90 degrees
    radius = np.hypot(x / half_width, (y - middle) / half_depth) / outline
    return np.maximum(radial_distance(x, y - middle, radius, half_depth), 0.7 - disc)


def paint_level(canvas: Canvas, shape: LevelShape, findings: LevelFindings, rng: np.random.Generator) -> None:
    """Paint canal, posterior elements, disc and sac onto the surroundings."""
    _paint_canal_fat(canvas, shape, findings)
    _paint_posterior_elements(canvas, shape, findings)
    _paint_flava(canvas, shape, findings)
    _paint_roots(canvas, shape, findings)
    _paint_disc(canvas, shape, findings, rng)
    _paint_sac(canvas, shape, findings, rng)


def _paint_canal_fat(canvas: Canvas, shape: LevelShape, findings: LevelFindings) -> None:
    where = canvas.window(0, 6, 34)
    x, y = canvas.x[where], canvas.y[where]
    for side in (-1, 1):
        foramen = ellipse(x, y, (side * (shape.facet_offset + 3.5), -0.5), (9.5, 6.5), side * 0.35)
        canvas.paint(foramen, "deep fat", where=where, blur_mm=2.5, mask=AREA_BETWEEN)
    canal = ellipse(x, y, (0, 8.5), (shape.sac_half_width + 4.5, 12.5))
    canvas.paint(canal, "deep fat", where=where, mask=AREA_BETWEEN)
    if findings.stenosis == "severe":  # no epidural fat is left: thick ligament fills the canal around the sac
        canvas.paint(np.maximum(canal - 3.5, 4.0 - y), "ligament", where=where)


def _paint_posterior_elements(canvas: Canvas, shape: LevelShape, findings: LevelFindings) -> None:
    """Paint facet joints, laminae and spinous process: marrow inside a dark cortical line."""
    where = canvas.window(0, 28, 34)
    x, y = canvas.x[where], canvas.y[where]
    grown = _hypertrophy(findings)
    bone = union(capsule(x, y, (0, 26), (0, 49), 2.0), ellipse(x, y, (0, 47), (3.4, 6.5)), 4.0)
    joints = []
    for side in (-1, 1):
        center, turn = (side * shape.facet_offset, 15.5), -side * shape.facet_turn + 0.5 * shape.facet_tropism
        cosine, sine = math.cos(turn), math.sin(turn)
        across = cosine * (x - center[0]) + sine * (y - center[1])
        along = cosine * (y - center[1]) - sine * (x - center[0])
        facet = np.minimum(  # the superior process of the lower vertebra lies lateral, the inferior one medial
            ellipse(across, along, (side * 4.0, -1.0), (4.2 + 0.4 * grown, 7.6 + 0.6 * grown)),
            ellipse(across, along, (-side * 3.8, 1.0), (3.9 + 0.6 * grown, 7.2 + 0.6 * grown)),
        )
        lamina = capsule(x, y, (side * (shape.facet_offset - 4), 20.5), (0, 27.0), 2.0)
        bone = union(bone, union(facet, lamina, 3.5), 3.5)
        joints.append(np.maximum(np.abs(across) - 0.35, np.abs(along) - 6.5))
    behind = np.maximum(bone - 2.2, 19.0 - y)
    canvas.paint(behind, "deep fat", where=where, blur_mm=3.5, opacity=0.65)  # between the bone and multifidus
    canvas.paint(bone, "cortex", where=where, mask=POSTERIOR_ELEMENT)
    canvas.paint(bone + 1.3, "marrow", where=where, blur_mm=1.2)
    for joint in joints:
        canvas.paint(joint - 0.9, "cortex", where=where)
        canvas.paint(joint, "joint fluid", where=where, opacity=0.9)


def _paint_flava(canvas: Canvas, shape: LevelShape, findings: LevelFindings) -> None:
    where = canvas.window(0, 16, 18)
    x, y = canvas.x[where], canvas.y[where]
    grown = _hypertrophy(findings)
    lateral = shape.sac_half_width + 2.6 - 0.7 * grown
    for side in (-1, 1):
        flavum = capsule(x, y, (side * lateral, 11.0), (side * 1.8, 21.0 - 0.5 * grown), 1.4 + grown)
        canvas.paint(flavum, "ligament", where=where)


def _paint_roots(canvas: Canvas, shape: LevelShape, findings: LevelFindings) -> None:
    """Paint exiting roots in the foramina, traversing roots in the recesses; a disc that reaches them shifts them."""
    for side in (-1, 1):
        for x, y, radius in (
            (side * (shape.facet_offset + 4.5), -0.5, 2.7),
            (side * (shape.sac_half_width + 0.8), 5.0, 1.6),
        ):
            pushed = max(y, _margin_y(x, shape, findings) + 0.6 * radius)
            flattened = 0.75 * radius if pushed > y else radius
            where = canvas.window(x, pushed, 5)
            root = ellipse(canvas.x[where], canvas.y[where], (x, pushed), (radius, flattened))
            canvas.paint(root, "nerve", where=where, blur_mm=0.5)


def _margin_y(x: float, shape: LevelShape, findings: LevelFindings) -> float:
    relative = min(1.0, abs(x) / shape.disc_half_width)
    plain = shape.disc_half_depth * ((1.0 - relative**2.2) ** (1 / 2.2) - 1.0)
    return plain + float(posterior_shift(x, shape, findings))


def _paint_disc(canvas: Canvas, shape: LevelShape, findings: LevelFindings, rng: np.random.Generator) -> None:
    where = canvas.window(0, -14, 44)
    distance, radius = disc_distance(canvas.x[where], canvas.y[where], shape, findings)
    texture = smooth_noise(rng, canvas.image.shape[0], 7.0)[where]
    annulus, nucleus = canvas.signal["annulus"], canvas.signal["dehydrated nucleus"]
    if not findings.dehydration:
        nucleus = annulus + shape.hydration * (canvas.signal["nucleus"] - annulus)
    # The nucleus stays where it was: what passes the margin is annulus.
    core = np.hypot(canvas.x[where] / shape.disc_half_width, canvas.y[where] / shape.disc_half_depth + 1.0)
    value = np.interp(core + 0.03 * texture, (0.42, 0.74), (nucleus, annulus)).astype(np.float32)
    value *= 1.0 - 0.25 * np.clip((radius - 0.85) / 0.15, 0.0, 1.0)
    value *= 1.0 + (0.10 if findings.dehydration else 0.04) * texture
    canvas.paint(distance - 0.8, "cortex", where=where)  # outer fibres and longitudinal ligaments
    canvas.paint(distance, value, where=where, blur_mm=0.6, mask=DISC)


def _paint_sac(canvas: Canvas, shape: LevelShape, findings: LevelFindings, rng: np.random.Generator) -> None:
    where = canvas.window(0, 9, 13)
    x, y = canvas.x[where], canvas.y[where]
    disc, _ = disc_distance(x, y, shape, findings)
    sac = sac_distance(x, y, shape, findings, disc)
    csf, rootlet = canvas.signal["csf"], canvas.signal["rootlet"]
    # How full of rootlets the sac is: they sink to the back in a wide sac and melt together in a narrow one.
    filling = {None: 0.0, "mild": 0.45, "moderate": 0.85, "severe": 1.0}[findings.stenosis]
    value = np.full(x.shape, csf + filling * 0.9 * (rootlet - csf), np.float32)
    if findings.stenosis in (None, "mild"):
        value -= (value - rootlet) * _rootlets(x, y, sac, shape, findings, rng)
    canvas.paint(sac - 0.6, "dura", where=where)
    canvas.paint(sac, value, where=where, mask=THECAL_SAC)


def _rootlets(
    x: Field, y: Field, sac: Field, shape: LevelShape, findings: LevelFindings, rng: np.random.Generator
) -> Field:
    """Compute the share of cauda equina per pixel: a crescent at the back of a wide sac, spread out in a tight one."""
    half_width, half_depth, _ = sac_frame(shape, findings)
    turn, depth = rng.uniform(0, 2 * np.pi, ROOTLETS), np.sqrt(rng.uniform(0.2, 0.85, ROOTLETS))
    across = 0.85 * depth * np.cos(turn)
    spread_out = 0.8 * depth * np.sin(turn)
    crescent = rng.uniform(0.1, 0.85, ROOTLETS) * np.sqrt(1.0 - across**2)
    back = spread_out if findings.stenosis else crescent
    middle = y[sac < 0].mean()
    dx = x[..., None] - (half_width * across).astype(np.float32)
    dy = y[..., None] - (middle + half_depth * back).astype(np.float32)
    nearest = (dx * dx + dy * dy).min(axis=-1)  # mm², to the nearest rootlet
    return 0.85 * np.exp(-nearest / 0.9)
