import numpy as np
import pytest

from data_scripts.sources.synthetic.anatomy import disc_distance, posterior_shift, sac_distance, sample_shape
from data_scripts.sources.synthetic.canvas import Canvas, Pose, ellipse, smooth_noise
from data_scripts.sources.synthetic.findings import SEVERITIES, SYNTHETIC_LEVELS, LevelFindings, sample_patient

STEP_MM = 0.4
Y, X = np.mgrid[-20:26:STEP_MM, -20:20:STEP_MM].astype(np.float32)


def shape_of(level, seed=0):
    rng = np.random.default_rng([seed, SYNTHETIC_LEVELS.index(level)])
    return sample_shape(level, rng.uniform(0.93, 1.06), rng)


def sac_area_mm2(shape, findings):
    disc, _ = disc_distance(X, Y, shape, findings)
    return (sac_distance(X, Y, shape, findings, disc) < 0).sum() * STEP_MM**2


def test_sac_area_tells_the_severity_of_stenosis_apart_whatever_the_disc_does():
    shares = {severity: [] for severity in (None, *SEVERITIES)}
    for patient in range(120):
        for findings in sample_patient(np.random.default_rng([1, patient])):
            shape = shape_of(findings.level, patient)
            normal = sac_area_mm2(shape, LevelFindings(level=findings.level))
            assert 110 < normal < 260
            shares[findings.stenosis].append(sac_area_mm2(shape, findings) / normal)
    assert min(shares[None]) > 0.70 > max(shares["mild"])
    assert min(shares["mild"]) > 0.47 > max(shares["moderate"])
    assert min(shares["moderate"]) > 0.27 > max(shares["severe"])
    assert min(shares["severe"]) > 0.12


@pytest.mark.parametrize(
    ("findings", "least_mm", "most_mm"),
    [
        ({"bulge": "mild"}, 3.0, 3.8),
        ({"bulge": "moderate"}, 4.4, 5.2),
        ({"bulge": "severe"}, 5.8, 6.8),
        ({"protrusion": "mild", "protrusion_site": "central"}, 4.2, 5.0),
        ({"protrusion": "severe", "protrusion_site": "central"}, 7.6, 9.0),
    ],
)
def test_the_margin_moves_by_the_millimetres_of_the_severity(findings, least_mm, most_mm):
    for seed in range(20):
        shape = shape_of("L4/L5", seed)
        findings_here = LevelFindings(level="L4/L5", **findings)
        x = np.float32([0.0]) if "protrusion" in findings else np.float32([-18.0, 18.0])  # aside of the concavity
        moved = posterior_shift(x, shape, findings_here) - posterior_shift(x, shape, LevelFindings(level="L4/L5"))
        assert (moved > least_mm - 0.05).all() and (moved < most_mm + 0.05).all()


def test_no_finding_is_smaller_than_two_pixels_of_a_small_image():
    smallest = min(
        float(posterior_shift(0.0, shape_of(level, seed), LevelFindings(level=level, bulge="mild")))
        - float(posterior_shift(0.0, shape_of(level, seed), LevelFindings(level=level)))
        for level in SYNTHETIC_LEVELS
        for seed in range(50)
    )
    assert smallest > 3.0


def test_left_is_to_the_right_of_the_image():
    findings = LevelFindings(level="L5/S1", protrusion="mild", protrusion_site="left paracentral")
    x = np.linspace(-20, 20, 81, dtype=np.float32)
    peak = x[np.argmax(posterior_shift(x, shape_of("L5/S1"), findings))]
    assert 5 < peak < 12


def test_a_circle_is_measured_exactly():
    grid_y, grid_x = np.mgrid[-10:11, -10:11].astype(np.float32)
    assert np.allclose(ellipse(grid_x, grid_y, (0, 0), (5, 5)), np.hypot(grid_x, grid_y) - 5, atol=0.02)


def test_a_disc_of_twenty_millimetres_covers_its_area_and_its_mask():
    pose = Pose(angle=0.0, column=31.5, row=31.5)
    canvas = Canvas(64, 0.8, pose, {"bone": 1.0}, np.random.default_rng(0))
    canvas.paint(ellipse(canvas.x, canvas.y, (0, 0), (10, 10)), "bone", mask=3)
    assert canvas.image.sum() * 0.8**2 == pytest.approx(np.pi * 100, rel=0.1)
    assert np.array_equal(canvas.mask == 3, canvas.image > 0.5)


def test_a_window_holds_all_of_a_shape():
    pose = Pose(angle=0.3, column=40.0, row=20.0)
    canvas = Canvas(96, 1.0, pose, {"bone": 1.0}, np.random.default_rng(1))
    inside = ellipse(canvas.x, canvas.y, (12, 5), (9, 4)) < 0
    where = canvas.window(12, 5, 9)
    outside = np.ones_like(inside)
    outside[where] = False
    assert inside.any() and not (inside & outside).any()
    assert outside.any()


@pytest.mark.parametrize("cell", [2.5, 7.0, 60.0])
def test_noise_has_unit_deviation_and_varies_over_its_cell(cell):
    fields = np.stack([smooth_noise(np.random.default_rng(seed), 96, cell) for seed in range(200)])
    assert fields.std() == pytest.approx(1.0, abs=0.06)
    assert abs(fields.mean()) < 0.1
    neighbours = np.mean(fields[:, :, 1:] * fields[:, :, :-1]) / fields.var()
    assert neighbours > (0.75 if cell < 5 else 0.95)
