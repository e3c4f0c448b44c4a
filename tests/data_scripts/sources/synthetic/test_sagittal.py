from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from data_scripts.sources.synthetic.findings import LevelFindings, Patient
from data_scripts.sources.synthetic.sagittal import DISC, SACRUM, SAGITTAL_MASK_NAMES, SPINAL_CANAL, VERTEBRA
from data_scripts.sources.synthetic.source import draw_sagittal

HEALTHY = Patient(
    levels=tuple(LevelFindings(level=level) for level in ("L3/L4", "L4/L5", "L5/S1")), pfirrmann=(1,) * 7, conus="L1"
)


def with_lumbar(pfirrmann=(1,) * 7, **findings):
    """A patient with findings at L4/L5 alone."""
    upper, _, lower = HEALTHY.levels
    return replace(HEALTHY, levels=(upper, LevelFindings(level="L4/L5", **findings), lower), pfirrmann=pfirrmann)


def discs_of(mask):
    """Masks of the discs from the bottom up."""
    labels, count = ndimage.label(mask == DISC)
    discs = [labels == index for index in range(1, count + 1) if (labels == index).sum() > 25]
    return sorted(discs, key=lambda disc: -np.nonzero(disc)[0].mean())


def row_of_margin(disc):
    rows, columns = np.nonzero(disc)
    return int(rows[columns == columns.max()].mean())


def middle_signal(drawn, disc):
    rows, columns = (int(at.mean()) for at in np.nonzero(disc))
    return drawn.image[rows - 1 : rows + 2, columns - 3 : columns + 4].mean()


@pytest.mark.parametrize("patient", [1, 2, 3, 4])
def test_mask_lies_on_the_tissue_it_names(patient):
    t1, t2 = (draw_sagittal(0, patient, HEALTHY, sequence) for sequence in ("T1", "T2"))
    assert np.array_equal(t1.mask, t2.mask) and t2.image.shape == t2.mask.shape
    assert set(np.unique(t2.mask)) == set(range(len(SAGITTAL_MASK_NAMES)))
    assert t2.image[t2.mask == SPINAL_CANAL].mean() > 1.5 * t2.image[t2.mask == VERTEBRA].mean()
    assert t1.image[t1.mask == SPINAL_CANAL].mean() < 0.8 * t1.image[t1.mask == VERTEBRA].mean()
    assert t2.image[t2.mask == 0].mean() < t2.image[t2.mask == SACRUM].mean()


@pytest.mark.parametrize("patient", [1, 5, 9])
def test_seven_discs_lie_in_order_in_front_of_the_canal(patient):
    drawn = draw_sagittal(0, patient, HEALTHY, "T2")
    discs = discs_of(drawn.mask)
    assert len(discs) >= 7  # T11/T12 to L5/S1
    for disc in discs[:7]:
        rows, columns = np.nonzero(disc)
        canal = np.nonzero(drawn.mask[int(rows.mean())] == SPINAL_CANAL)[0]
        assert canal.size and columns.mean() < canal.min()
    assert np.nonzero(drawn.mask == SACRUM)[0].mean() > np.nonzero(discs[0])[0].mean()


@pytest.mark.parametrize("patient", [1, 2, 3])
def test_a_disc_grows_darker_and_lower_with_its_grade(patient):
    signals, areas = [], []
    for grade in (1, 2, 3, 4, 5):
        facts = with_lumbar(pfirrmann=(1, 1, 1, 1, 1, grade, 1), dehydration=grade > 2)
        drawn = draw_sagittal(0, patient, facts, "T2")
        disc = discs_of(drawn.mask)[1]
        signals.append(middle_signal(drawn, disc))
        areas.append(int(disc.sum()))
    assert signals == sorted(signals, reverse=True) and signals[0] > 2.5 * signals[3]
    assert min(areas[:2]) > areas[2] > areas[3] > areas[4]


@pytest.mark.parametrize("patient", [1, 2, 3])
def test_the_canal_narrows_with_stenosis_at_its_level_alone(patient):
    depths, far = [], []
    for severity in (None, "mild", "moderate", "severe"):
        mask = draw_sagittal(0, patient, with_lumbar(stenosis=severity), "T2").mask
        lumbar, upper = (row_of_margin(discs_of(mask)[index]) for index in (1, 5))
        depths.append(min((mask[row] == SPINAL_CANAL).sum() for row in range(lumbar - 6, lumbar + 7)))
        far.append((mask[upper - 20 : upper] == SPINAL_CANAL).sum())
    assert depths == sorted(depths, reverse=True) and depths[3] < 0.6 * depths[0]
    assert len(set(far)) == 1


@pytest.mark.parametrize("finding", [{"bulge": "severe"}, {"protrusion": "severe", "protrusion_site": "central"}])
def test_a_disc_that_bulges_reaches_into_the_canal(finding):
    for patient in (1, 2, 3):
        normal, bulging = (
            discs_of(draw_sagittal(0, patient, facts, "T1").mask)[1] for facts in (HEALTHY, with_lumbar(**finding))
        )
        assert np.nonzero(bulging)[1].max() - np.nonzero(normal)[1].max() >= 3  # pixels of about 1 mm


def test_the_cord_ends_at_its_level():
    high, low = (draw_sagittal(0, 1, replace(HEALTHY, conus=conus), "T2") for conus in ("T12/L1", "L2"))
    bodies = discs_of(high.mask)
    rows = slice(*(int(np.nonzero(bodies[index])[0].mean()) for index in (5, 3)))  # T12/L1 to L2/L3
    canal = high.mask[rows] == SPINAL_CANAL
    assert low.image[rows][canal].mean() < 0.97 * high.image[rows][canal].mean()


def test_patients_differ():
    assert len({draw_sagittal(0, patient, HEALTHY, "T2").image.tobytes() for patient in (1, 2, 3)}) == 3
