import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from data_scripts.sources.synthetic.anatomy import disc_distance, posterior_shift, sac_distance, sample_shape
from data_scripts.sources.synthetic.findings import (
    SYNTHETIC_LEVELS,
    LevelFindings,
    sample_patient,
    sample_sagittal_facts,
)
from data_scripts.sources.synthetic.spine import disc_shape, sample_spine


def facts_of(patient):
    rng = np.random.default_rng([5, patient])
    return sample_sagittal_facts(sample_patient(rng), rng)


def shapes_of(patient):
    return {
        level: sample_shape(level, 1.0, np.random.default_rng([patient, n])) for n, level in enumerate(SYNTHETIC_LEVELS)
    }


def spine_of(patient, **changes):
    facts = replace(facts_of(patient), **changes)
    return sample_spine(facts, shapes_of(patient), 1.0, np.random.default_rng([9, patient]))


def test_disc_and_sac_are_those_of_the_axial_slice_at_its_midline():
    y = np.arange(-30.0, 30.0, 0.02, dtype=np.float32)
    x = np.zeros_like(y)
    for patient in range(30):
        for findings in facts_of(patient).levels:
            shape = shapes_of(patient)[findings.level]
            drawn = disc_shape(shape, findings, 1, 10.0)
            disc, _ = disc_distance(x, y, shape, findings)
            sac = y[sac_distance(x, y, shape, findings, disc) < 0]
            wall = float(posterior_shift(0.0, shape, LevelFindings(level=findings.level)))
            assert y[disc < 0].max() - wall == pytest.approx(drawn.margin, abs=0.15)
            assert sac.min() - wall == pytest.approx(drawn.sac_front, abs=0.15)
            assert sac.max() - sac.min() == pytest.approx(drawn.sac_back - drawn.sac_front, abs=0.15)


def test_a_normal_disc_ends_at_the_wall():
    shape = shapes_of(1)["L4/L5"]
    assert disc_shape(shape, LevelFindings(level="L4/L5"), 1, 10.0).margin == pytest.approx(0.0, abs=1e-5)


def test_lordosis_is_that_of_adults():
    angles = []
    for patient in range(40):
        spine = spine_of(patient)
        upper = next(body for body in spine.bodies if body.name == "L1")
        angles.append(math.degrees(spine.sacrum[0].angle - upper.angle))
        assert [body.name for body in spine.bodies] == ["L5", "L4", "L3", "L2", "L1", "T12", "T11", "T10", "T9", "T8"]
        assert all(lower.center[1] > higher.center[1] for lower, higher in pairwise(spine.bodies))
        assert spine.sacrum[2].center[0] > spine.bodies[0].center[0]  # the sacrum turns backwards
    assert 35 < np.mean(angles) < 60
    assert min(angles) > 15 and max(angles) < 85


def test_a_disc_loses_height_with_its_grade_and_its_neighbours_keep_theirs():
    heights = []
    for grade in (2, 3, 4, 5):
        discs = {disc.name: disc for disc in spine_of(3, pfirrmann=(1, 1, 1, 1, 1, grade, 1)).discs}
        heights.append(2 * discs["L4/L5"].half_height)
        assert discs["L3/L4"].half_height == spine_of(3, pfirrmann=(1,) * 7).discs[2].half_height
    assert heights == sorted(heights, reverse=True)
    assert 3 < heights[-1] < 0.5 * heights[0]


def test_the_posterior_wall_is_measured_as_by_a_slow_search():
    spine = spine_of(2)
    y, x = np.mgrid[-120:100:4.0, -20:45:1.0].astype(np.float32)
    along, behind = spine.along_wall(x, y)
    fine = np.stack(
        [np.interp(np.arange(0, len(spine.wall) - 1, 0.05), np.arange(len(spine.wall)), line) for line in spine.wall.T],
        1,
    )
    rows, columns = np.random.default_rng(0).integers(0, x.shape, (200, 2)).T
    for row, column in zip(rows, columns, strict=True):
        distances = np.hypot(fine[:, 0] - x[row, column], fine[:, 1] - y[row, column])
        assert abs(behind[row, column]) == pytest.approx(distances.min(), abs=0.15)
        assert along[row, column] == pytest.approx(0.05 * distances.argmin(), abs=2.0)
    assert behind[0, -1] > 0  # the right of the image is behind
