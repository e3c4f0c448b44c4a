"""Scores of maps against masks: by hand, fair to ties, and high for a map that finds what was planted alone."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from modeling_lumbarclip import LumbarCLIPImageProcessor
from train.evaluation.protocols.explanation import (
    CENTRE,
    RANDOMISED,
    UNIFORM,
    MapScores,
    centre_map,
    inside_energy,
    method_estimates,
    pointing_game,
    rank_correlation,
    score_map,
)
from train.evaluation.statistics.bootstrap import Resampling

pytestmark = pytest.mark.usefixtures("any_number_is_ranked")


INSIDE = np.zeros((4, 5), dtype=bool)
INSIDE[1:3, 1:3] = True  # 4 of 20 pixels


def map_with(values):
    saliency = np.zeros((4, 5))
    for place, value in values.items():
        saliency[place] = value
    return saliency


@pytest.mark.parametrize(
    "values, pointing, energy",
    [
        ({(1, 1): 3.0, (0, 0): 1.0}, 1.0, 0.75),
        ({(1, 1): 1.0, (0, 0): 3.0}, 0.0, 0.25),
        ({(1, 1): 2.0, (2, 2): 2.0, (3, 4): 2.0}, 2 / 3, 2 / 3),  # three pixels tie
        ({(1, 1): 2.0, (3, 4): 2.0 - 1e-7}, 0.5, 0.5),  # as float32 has it
        ({(1, 1): 2.0, (3, 4): -9.0}, 1.0, 1.0),  # what is negative has no mass
        ({}, 0.2, 0.2),  # nothing anywhere: the area of the mask
    ],
)
def test_scores_by_hand(values, pointing, energy):
    assert score_map(map_with(values), INSIDE) == pytest.approx([pointing, energy])


def test_a_map_that_is_negative_everywhere_has_a_maximum_but_no_mass():
    saliency = map_with({(1, 1): 1.0}) - 2.0
    assert pointing_game(saliency, INSIDE) == 1.0
    assert inside_energy(saliency, INSIDE) == pytest.approx(0.2)


def test_ties_do_not_depend_on_where_the_first_pixel_lies():
    saliency = np.round(np.random.default_rng(0).random((4, 5)), 1)
    turned = (saliency[::-1, ::-1], INSIDE[::-1, ::-1])
    assert score_map(saliency, INSIDE) == pytest.approx(score_map(*turned))


def test_the_centre_prior_is_highest_in_the_middle_and_turns_with_the_image():
    prior = centre_map(20, 40)
    assert prior.shape == (20, 40) and np.unravel_index(prior.argmax(), prior.shape) in [
        (9, 19),
        (9, 20),
        (10, 19),
        (10, 20),
    ]
    np.testing.assert_allclose(prior, prior[::-1, ::-1])
    np.testing.assert_allclose(centre_map(40, 20), prior.T)


def test_rank_correlation_is_scipys_and_undefined_for_a_constant_map():
    one, other = np.random.default_rng(0).random((2, 3, 4))
    assert rank_correlation(one, other) == pytest.approx(spearmanr(one.ravel(), other.ravel()).statistic)
    assert rank_correlation(one, np.exp(one)) == pytest.approx(1.0)
    assert math.isnan(rank_correlation(one, np.ones((3, 4))))


def test_a_planted_patch_is_found_through_padding_and_resizing():
    """A map that is high where a square was drawn scores full marks; that of another place, none."""
    processor = LumbarCLIPImageProcessor(size={"height": 64, "width": 64}, do_normalize=False)
    image = np.zeros((90, 160), dtype=np.uint8)
    image[20:40, 100:120] = 255
    seen = processor(image, return_tensors="pt").pixel_values[0, 0]
    grid = torch.nn.functional.avg_pool2d(seen[None], 8)[0]  # as a tower with 8 x 8 patches would
    good, bad = (
        score_map(processor.unpad_maps(cells, image.shape).numpy(), image > 0) for cells in (grid, grid.flip(1))
    )
    assert good[0] == 1.0 and good[1] > 0.4  # bilinear between cells of 20 pixels, for a square of 20
    assert bad[0] == 0.0 and bad[1] < 0.01
    assert good[1] > 5 * score_map(centre_map(*image.shape), image > 0)[1]


def test_estimates_compare_a_method_with_each_baseline_on_the_same_maps():
    patients = ["a", "a", "b", "b"]
    trained = np.array([[1.0, 0.5], [1.0, 0.6], [0.0, 0.4], [1.0, 0.5]])
    randomised = np.array([np.zeros((4, 2)), np.full((4, 2), 0.4)])  # two models; 0.2 on average
    baselines = {CENTRE: np.full((4, 2), 0.5), UNIFORM: np.full((4, 2), 0.1)}
    correlations = np.array([[0.5, np.nan, 0.3, np.nan], [0.1, np.nan, 0.1, 0.0]])
    groups = method_estimates(MapScores(trained, randomised, correlations), baselines, patients, Resampling(200, 0))
    assert groups["trained"]["pointing_game"].value == pytest.approx(0.75)
    assert groups["trained"]["inside_energy"].value == pytest.approx(0.5)
    assert groups[RANDOMISED]["pointing_game"].value == pytest.approx(0.2)
    assert groups[f"less {RANDOMISED}"]["pointing_game"].value == pytest.approx(0.55)
    assert groups[f"less {CENTRE}"]["inside_energy"].value == pytest.approx(0.0)
    assert groups[f"less {UNIFORM}"]["inside_energy"].value == pytest.approx(0.4)
    # Patients are drawn, not maps: "a" twice gives 1, "b" twice 0.5.
    assert (groups["trained"]["pointing_game"].low, groups["trained"]["pointing_game"].high) == (0.5, 1.0)
    correlation = groups["trained"]["rank_correlation"]  # 0.3, none, 0.2, 0.0
    assert correlation.value == pytest.approx(0.5 / 3) and correlation.n == 3


def test_constant_maps_have_no_rank_correlation():
    scores = MapScores(np.ones((2, 2)), np.ones((1, 2, 2)), np.full((1, 2), np.nan))
    groups = method_estimates(scores, {}, ["a", "b"], Resampling(10, 0))
    assert math.isnan(groups["trained"]["rank_correlation"].value)
    assert "constant" in groups["trained"]["rank_correlation"].reason
