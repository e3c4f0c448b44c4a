"""Whether maps of what a model saw fall on the structure that a text speaks of, and whether controls do as well.

A map that looks right proves little: a tower with random weights draws maps, too, and the structure asked for often
lies in the middle of the image. So each score of a map is set beside those of the same maps from a randomised model,
of a prior that always points at the middle, and of no map at all (Adebayo et al. 2018, "Sanity Checks for Saliency
Maps").

Shapes: M maps, one for each finding of an image; H × W pixels of the image; h × w cells of a map; R randomised models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from train.evaluation.statistics.bootstrap import (
    Estimate,
    Resampling,
    paired_difference,
    patient_bootstrap,
    undefined_estimate,
)
from train.evaluation.statistics.metrics import Array, mean

SCORES = ("pointing_game", "inside_energy")
RANDOMISED, CENTRE, UNIFORM = "randomised model", "centre prior", "uniform map"
CENTRE_SPREAD = 0.25
# Pixels between the same cells are the same number, up to the rounding of float32.
TIE_TOLERANCE = 1e-6


def pointing_game(saliency: Array, inside: NDArray[np.bool_]) -> float:
    """Whether the maximum of a map lies inside a mask.

    Where several pixels share the maximum, the chance that one of them drawn at random lies inside: a constant map
    scores the area of the mask, and not 1 because its first pixel happens to lie well.

    Args:
        saliency: Shape (H, W).
        inside: The mask. Shape (H, W).

    Returns:
        In [0, 1].

    Source:
        Zhang et al. 2016, "Top-down Neural Attention by Excitation Backprop", section 4.2; without its tolerance of
        15 pixels.

    Example:
        >>> inside = np.array([[True, False], [False, False]])
        >>> pointing_game(np.array([[3.0, 1.0], [2.0, 0.0]]), inside), pointing_game(np.ones((2, 2)), inside)
        (1.0, 0.25)
    """
    highest = saliency.max()
    maxima = saliency >= highest - TIE_TOLERANCE * np.abs(saliency).max()
    return float(inside[maxima].mean())


def inside_energy(saliency: Array, inside: NDArray[np.bool_]) -> float:
    """Share of the mass of a map that lies inside a mask; what is negative has no mass.

    Args:
        saliency: Shape (H, W).
        inside: The mask. Shape (H, W).

    Returns:
        In [0, 1]. Of a map without mass, the area of the mask: it favours no place.

    Source:
        Wang et al. 2020, "Score-CAM", section 4.3: energy-based pointing game.

    Example:
        >>> inside = np.array([[True, False], [False, False]])
        >>> inside_energy(np.array([[3.0, 1.0], [-2.0, 0.0]]), inside), inside_energy(np.zeros((2, 2)), inside)
        (0.75, 0.25)
    """
    mass = np.clip(saliency, 0, None)
    total = mass.sum(dtype=np.float64)
    return float(mass[inside].sum(dtype=np.float64) / total) if total > 0 else float(inside.mean())


def centre_map(height: int, width: int) -> Array:
    """A map that knows nothing but that what matters lies in the middle: a Gaussian, a quarter of each side wide.

    Example:
        >>> centre_map(1, 5).round(2).tolist()
        [[0.28, 0.73, 1.0, 0.73, 0.28]]
    """
    rows, columns = (
        np.exp(-(((np.arange(side) + 0.5) / side - 0.5) ** 2) / (2 * CENTRE_SPREAD**2)) for side in (height, width)
    )
    return np.outer(rows, columns)


def rank_correlation(one: Array, other: Array) -> float:
    """Spearman's correlation of two maps over their cells; NaN when one of them is constant.

    Near 0 says that the weights decide what the map shows; near 1, that the image and the architecture do.

    Args:
        one: Shape (h, w).
        other: Shape (h, w).

    Returns:
        In [-1, 1].

    Source:
        Adebayo et al. 2018, section 3.

    Example:
        >>> round(rank_correlation(np.array([[1.0, 2.0, 3.0]]), np.array([[0.0, 9.0, 0.1]])), 3)
        0.5
    """
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(spearmanr(one, other, axis=None).statistic)


def score_map(saliency: Array, inside: NDArray[np.bool_]) -> Array:
    """Both scores of a map, in the order of `SCORES`. Shape (2,)."""
    return np.array([pointing_game(saliency, inside), inside_energy(saliency, inside)])


@dataclass(frozen=True)
class MapScores:
    """How the maps of one method score, and the maps of the same method by models with random weights.

    Args:
        trained: One row a map, one column a score. Shape (M, 2).
        randomised: Shape (R, M, 2).
        rank_correlation: Of each map with those of the randomised models; NaN for constant maps. Shape (R, M).
    """

    trained: Array
    randomised: Array
    rank_correlation: Array


def method_estimates(
    scores: MapScores, controls: Mapping[str, Array], patient_ids: Sequence[str] | Array, resampling: Resampling
) -> dict[str, dict[str, Estimate]]:
    """Measure a method, and by how much it exceeds each control on the same maps.

    Args:
        scores: Of the method.
        controls: By name, the scores of maps that need no model. Shape (M, 2).
        patient_ids: Patient of each map. Shape (M,).
        resampling: How intervals are drawn.

    Returns:
        `trained`, `randomised` and `less CONTROL` for the randomised model and each other control: estimates by score.
        `trained` also has the mean `rank_correlation` over the maps that have one.
    """
    randomised = scores.randomised.mean(axis=0)  # over the models, so that a map counts once
    groups = {
        "trained": score_estimates(scores.trained, patient_ids, resampling),
        RANDOMISED: score_estimates(randomised, patient_ids, resampling),
    }
    for name, control in {RANDOMISED: randomised, **controls}.items():
        groups[f"less {name}"] = {
            score: paired_difference(mean, [scores.trained[:, i]], [control[:, i]], patient_ids, resampling)
            for i, score in enumerate(SCORES)
        }
    has_one = ~np.isnan(scores.rank_correlation).all(axis=0)
    if has_one.any():
        correlations = np.nanmean(scores.rank_correlation[:, has_one], axis=0)
        estimate = patient_bootstrap(mean, [correlations], np.asarray(patient_ids)[has_one], resampling)
    else:
        estimate = undefined_estimate(len(patient_ids), "every map is constant, and has no ranks")
    groups["trained"]["rank_correlation"] = estimate
    return groups


def score_estimates(scores: Array, patient_ids: Sequence[str] | Array, resampling: Resampling) -> dict[str, Estimate]:
    """Mean of each score over the maps, with its interval over patients; `scores` has shape (M, 2)."""
    return {score: patient_bootstrap(mean, [scores[:, i]], patient_ids, resampling) for i, score in enumerate(SCORES)}
