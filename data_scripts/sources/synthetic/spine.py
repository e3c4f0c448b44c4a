"""The lumbar spine from the side: vertebrae, discs, sacrum and canal along one lordotic curve, in mm.

x grows to the right of the image, which is posterior; y grows downwards. The origin is the middle of the posterior
margin of the disc L3/L4. Discs that are also drawn in axial slices take their measures from the same `LevelShape` and
`LevelFindings`: both planes show the same disc and the same thecal sac at the midline.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.spatial import KDTree

from data_scripts.sources.synthetic.anatomy import LevelShape, posterior_shift, sac_frame, sac_triangularity
from data_scripts.sources.synthetic.canvas import Field
from data_scripts.sources.synthetic.findings import SAGITTAL_LEVELS, LevelFindings, Patient

# From the bottom up, L5/S1 to T8/T9: height of a healthy disc and its wedge (degrees, anterior side higher), then
# height, depth at mid-height and wedge of the vertebra above it. About 50 degrees of lordosis, as in supine adults.
DISCS = {
    "L5/S1": (10.5, 13.0), "L4/L5": (11.5, 11.0), "L3/L4": (10.5, 8.5), "L2/L3": (9.5, 7.0), "L1/L2": (8.3, 5.0),
    "T12/L1": (7.0, 3.0), "T11/T12": (6.0, 1.5), "T10/T11": (5.5, 0.5), "T9/T10": (5.0, 0.0), "T8/T9": (4.8, 0.0),
}  # fmt: skip
BODIES = {
    "L5": (27.5, 33.0, 7.0), "L4": (28.0, 34.0, 2.0), "L3": (28.5, 34.0, 0.0), "L2": (28.0, 33.0, -1.5),
    "L1": (27.0, 32.0, -3.0), "T12": (25.5, 31.0, -4.0), "T11": (24.0, 30.0, -4.5), "T10": (22.5, 29.0, -4.0),
    "T9": (21.5, 28.0, -4.0), "T8": (21.0, 27.0, -4.0),
}  # fmt: skip
# From the top down, S1 to the first coccygeal segment: height, depth at its upper end, wedge, height of the disc below.
SACRUM = (
    (30.0, 32.0, 1.0, 3.5), (25.0, 24.0, 5.0, 2.2), (21.0, 18.5, 15.0, 1.6), (18.0, 14.5, 22.0, 1.2),
    (16.0, 11.5, 24.0, 2.5), (13.0, 8.5, 16.0, 0.0),
)  # fmt: skip

# Share of the healthy height that a disc of each Pfirrmann grade keeps.
HEIGHT_SHARE = {1: 1.0, 2: 1.0, 3: 0.9, 4: 0.74, 5: 0.4}
SAC_DEPTH_MM = 14.5  # above the levels drawn in axial slices
WALL_STEP_MM = 1.0


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A vertebral body or a disc: a wedge, turned by `angle` radians (above 0: its front tilts down)."""

    name: str
    center: tuple[float, float]
    angle: float
    half_height: float
    half_depth: float  # of a body at mid-height, of a disc at its rim
    wedge: float  # angle between its endplates in radians, above 0 where the front is higher

    def local(self, x: Field, y: Field) -> tuple[Field, Field]:
        """Measure how far behind and above the centre a point lies, along the segment's own axes, in mm."""
        dx, dy = x - self.center[0], y - self.center[1]
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        return cosine * dx - sine * dy, -sine * dx - cosine * dy

    def at(self, behind: float, above: float) -> tuple[float, float]:
        """Return the point that lies so far behind and above the centre."""
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        return self.center[0] + cosine * behind - sine * above, self.center[1] - sine * behind - cosine * above


@dataclass(frozen=True, kw_only=True)
class DiscShape:
    """What one disc looks like from the side; millimetres behind the normal margin, along the posterior wall."""

    pfirrmann: int  # 1 to 5
    height: float
    half_depth: float
    margin: float  # posterior margin of the disc
    sac_front: float
    sac_back: float
    free_front: float  # of the same sac without any finding
    free_back: float
    filling: float  # how full of rootlets the sac is, 0 to 1
    hydration: float  # water signal of a healthy nucleus, 0 to 1
    thick_ligaments: bool


@dataclass(frozen=True, kw_only=True)
class Spine:
    """All segments, from the bottom up (the sacrum from the top down), and the posterior wall that they share."""

    bodies: tuple[Segment, ...]
    discs: tuple[Segment, ...]
    sacrum: tuple[Segment, ...]
    sacral_discs: tuple[Segment, ...]
    shapes: Mapping[str, DiscShape]  # of the discs
    wall: np.ndarray  # points of the posterior wall every `WALL_STEP_MM`, from the top down, shape (N, 2)
    wall_at: Mapping[str, float]  # position along the wall of each segment's middle, in mm

    def along_wall(self, x: Field, y: Field) -> tuple[Field, Field]:
        """Measure the position along the posterior wall (downwards) and the distance behind it, in mm.

        The nearest point of the wall is looked up for every fourth row and column, then improved for every pixel.
        """
        tangents = np.gradient(self.wall, axis=0)
        tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
        coarse = np.stack([x[::4, ::4], y[::4, ::4]], axis=-1)
        _, nearest = KDTree(self.wall).query(coarse)
        nearest = nearest.repeat(4, axis=0).repeat(4, axis=1)[: x.shape[0], : x.shape[1]]
        for _ in range(2):
            wall, tangent = self.wall[nearest], tangents[nearest]
            dx, dy = x - wall[..., 0], y - wall[..., 1]
            position = WALL_STEP_MM * nearest + dx * tangent[..., 0] + dy * tangent[..., 1]
            nearest = np.clip(np.rint(position / WALL_STEP_MM), 0, len(self.wall) - 1).astype(int)
        behind = dx * tangent[..., 1] - dy * tangent[..., 0]
        return position.astype(np.float32), behind.astype(np.float32)


def disc_shape(shape: LevelShape, findings: LevelFindings, pfirrmann: int, height: float) -> DiscShape:
    """Measure a disc at the midline of its axial slice."""
    # In the middle a normal disc lies in front of the oval that axial measures refer to; the wall follows it there.
    wall = -shape.concavity
    margin = float(posterior_shift(0.0, shape, findings)) - wall

    def sac(drawn: LevelFindings) -> tuple[float, float]:
        half_depth, middle = sac_frame(shape, drawn)[1:]
        triangularity = sac_triangularity(shape, drawn)
        return middle - half_depth * (1.0 - triangularity) - wall, middle + half_depth * (1.0 + triangularity) - wall

    sac_front, sac_back = sac(findings)
    free_front, free_back = sac(LevelFindings(level=shape.level))
    return DiscShape(
        pfirrmann=pfirrmann,
        height=height,
        half_depth=shape.disc_half_depth,
        margin=margin,
        sac_front=max(sac_front, margin + 0.7),
        sac_back=sac_back,
        free_front=free_front,
        free_back=free_back,
        filling={None: 0.0, "mild": 0.45, "moderate": 0.85, "severe": 1.0}[findings.stenosis],
        hydration=shape.hydration,
        thick_ligaments=findings.hypertrophy,
    )


def sample_spine(patient: Patient, shapes: Mapping[str, LevelShape], size: float, rng: np.random.Generator) -> Spine:
    """Draw the spine of a patient whose axial levels have `shapes`; `size` is the scale of the skeleton, about 1."""
    slope_degrees = rng.normal(41.0, 6.0)
    lordosis = slope_degrees / 41.0 * rng.normal(1.0, 0.10)  # a steep sacrum needs more lordosis
    stature, disc_scale = size * rng.uniform(0.95, 1.04), rng.uniform(0.9, 1.12)
    canal, age = rng.uniform(0.92, 1.08), rng.uniform(0.7, 1.0)
    findings_of = {findings.level: findings for findings in patient.levels}
    grade_of = dict(zip(SAGITTAL_LEVELS, patient.pfirrmann, strict=True))
    discs_shaped: dict[str, DiscShape] = {}
    for level, (height, _) in DISCS.items():
        pfirrmann = grade_of.get(level, patient.pfirrmann[0])  # those above look like the uppermost
        height *= stature * disc_scale * HEIGHT_SHARE[pfirrmann] * rng.uniform(0.93, 1.07)
        if level in findings_of:
            discs_shaped[level] = disc_shape(shapes[level], findings_of[level], pfirrmann, height)
            continue
        upper, front = level.split("/")[0], rng.uniform(1.2, 2.0)
        back = front + canal * SAC_DEPTH_MM
        discs_shaped[level] = DiscShape(
            pfirrmann=pfirrmann,
            height=height,
            half_depth=0.5 * size * (BODIES[upper][1] + 1.5) * rng.uniform(0.98, 1.02),
            margin=rng.uniform(0.0, 0.7) if pfirrmann < 4 else rng.uniform(0.5, 1.2),
            sac_front=front,
            sac_back=back,
            free_front=front,
            free_back=back,
            filling=0.0,
            hydration=age * rng.uniform(0.9, 1.0),
            thick_ligaments=False,
        )
    bodies, discs = _stack_up(discs_shaped, math.radians(slope_degrees), lordosis, stature, size, rng)
    sacrum, sacral_discs = _stack_down(math.radians(slope_degrees), stature, size, rng)
    return _assemble(bodies, discs, sacrum, sacral_discs, discs_shaped)


def _up(angle: float, length: float) -> np.ndarray:
    return length * np.array([-math.sin(angle), -math.cos(angle)])


def _stack_up(
    shapes: Mapping[str, DiscShape],
    slope: float,
    lordosis: float,
    stature: float,
    size: float,
    rng: np.random.Generator,
) -> tuple[list[Segment], list[Segment]]:
    """Stack discs and vertebrae on the sacral endplate, whose middle is (0, 0) here."""
    bodies: list[Segment] = []
    discs: list[Segment] = []
    point, angle = np.zeros(2), slope
    for (level, (_, disc_wedge)), (name, (height, depth, body_wedge)) in zip(
        DISCS.items(), BODIES.items(), strict=True
    ):
        shape = shapes[level]
        flat = min(1.0, 0.35 + 0.65 * shape.height / (DISCS[level][0] * stature))  # a narrow disc loses its wedge
        pieces = (
            (level, shape.height, shape.half_depth, flat * lordosis * disc_wedge + rng.normal(0.0, 1.0)),
            (name, height * stature * rng.uniform(0.97, 1.03), 0.5 * depth * size, body_wedge + rng.normal(0.0, 1.0)),
        )
        for piece, length, half_depth, degrees in pieces:
            wedge = math.radians(degrees)
            middle = angle - 0.5 * wedge
            center = point + _up(middle, 0.5 * length)
            segment = Segment(
                name=piece,
                center=(float(center[0]), float(center[1])),
                angle=middle,
                half_height=0.5 * length,
                half_depth=half_depth,
                wedge=wedge,
            )
            (discs if piece == level else bodies).append(segment)
            point, angle = point + _up(middle, length), angle - wedge
    return bodies, discs


def _stack_down(
    slope: float, stature: float, size: float, rng: np.random.Generator
) -> tuple[list[Segment], list[Segment]]:
    """Hang the sacrum below its endplate; it tapers, and bends forwards below S2."""
    bodies: list[Segment] = []
    discs: list[Segment] = []
    kyphosis = rng.uniform(0.6, 1.3)
    point, angle = np.zeros(2), slope
    for index, (height, depth, degrees, gap) in enumerate(SACRUM):
        wedge = math.radians(degrees) * kyphosis
        middle = angle - 0.5 * wedge
        length = height * stature
        center = point - _up(middle, 0.5 * length)
        below = SACRUM[index + 1][1] if index + 1 < len(SACRUM) else 0.8 * depth
        bodies.append(
            Segment(
                name=f"S{index + 1}",
                center=(float(center[0]), float(center[1])),
                angle=middle,
                half_height=0.5 * length,
                half_depth=0.25 * size * (depth + below),
                wedge=-wedge,
            )
        )
        point, angle = point - _up(middle, length), angle - wedge
        if gap:
            center = point - _up(angle, 0.5 * gap)
            discs.append(
                Segment(
                    name=f"S{index + 1}/S{index + 2}",
                    center=(float(center[0]), float(center[1])),
                    angle=angle,
                    half_height=0.5 * gap,
                    half_depth=0.5 * size * below,
                    wedge=0.0,
                )
            )
            point = point - _up(angle, gap)
    return bodies, discs


def _assemble(
    bodies: list[Segment],
    discs: list[Segment],
    sacrum: list[Segment],
    sacral_discs: list[Segment],
    shapes: Mapping[str, DiscShape],
) -> Spine:
    """Move the origin to the disc L3/L4, and lay the posterior wall through the rims of all discs."""
    third = next(segment for segment in discs if segment.name == "L3/L4")
    origin = np.array(third.at(third.half_depth, 0.0))

    def moved(segments: list[Segment]) -> tuple[Segment, ...]:
        return tuple(
            replace(one, center=(one.center[0] - float(origin[0]), one.center[1] - float(origin[1])))
            for one in segments
        )

    bodies_there, discs_there, sacrum_there, sacral_there = map(moved, (bodies, discs, sacrum, sacral_discs))
    nodes = [disc.at(disc.half_depth, 0.0) for disc in (*discs_there[::-1], *sacral_there)]
    last = sacrum_there[-1]
    nodes.append(last.at(last.half_depth, -last.half_height))
    knots = np.concatenate([[0.0], np.cumsum([math.dist(a, b) for a, b in pairwise(nodes)])])
    curve = CubicSpline(knots, np.array(nodes))
    fine = curve(np.arange(-30.0, knots[-1], 0.25))  # the wall goes on above the uppermost disc
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(fine, axis=0), axis=1))])
    steps = np.arange(0.0, length[-1], WALL_STEP_MM)
    wall = np.stack([np.interp(steps, length, fine[:, axis]) for axis in (0, 1)], axis=1)
    tree = KDTree(wall)
    segments = (*bodies_there, *discs_there, *sacrum_there, *sacral_there)
    rims = np.array([segment.at(segment.half_depth, 0.0) for segment in segments])
    wall_at = {
        segment.name: WALL_STEP_MM * float(nearest)
        for segment, nearest in zip(segments, tree.query(rims)[1], strict=True)
    }
    return Spine(
        bodies=bodies_there,
        discs=discs_there,
        sacrum=sacrum_there,
        sacral_discs=sacral_there,
        shapes=shapes,
        wall=wall,
        wall_at=wall_at,
    )
