"""Score whether saliency maps fall on the structure that a text is about, and whether baselines do as well.

A plausible map proves little: a tower with random weights draws maps, too, and the structure often lies in the middle
of the image. So each score is compared with the same map of randomised models, of a prior that always points at the
middle, and of a constant map (Adebayo et al. 2018, "Sanity Checks for Saliency Maps").

Shapes: M maps, one for each finding of an image; H × W pixels of the image; h × w cells of a map; R randomised models.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from scipy.stats import spearmanr
from tqdm.auto import tqdm

from modeling_lumbarclip import LumbarCLIPImageProcessor, LumbarCLIPProcessor
from train.evaluation.protocols.finding_maps import METHODS, Maps, MaskedFinding
from train.evaluation.statistics.bootstrap import (
    Estimate,
    Resampling,
    as_entries,
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
    """Tell whether the maximum of a map, shape (H, W), lies inside a mask, shape (H, W). In [0, 1].

    If several pixels share the maximum, the value is the share of them inside: a constant map scores the area of the
    mask, not 1 because its first pixel happens to lie inside.

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
    """Measure the share of a map's mass, in [0, 1], inside a mask; both of shape (H, W).

    Negative values have no mass. A map without mass scores the area of the mask: it favours no place.

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
    """Draw a Gaussian in the middle of an image, a quarter of each side wide.

    Example:
        >>> centre_map(1, 5).round(2).tolist()
        [[0.28, 0.73, 1.0, 0.73, 0.28]]
    """
    rows, columns = (
        np.exp(-(((np.arange(side) + 0.5) / side - 0.5) ** 2) / (2 * CENTRE_SPREAD**2)) for side in (height, width)
    )
    return np.outer(rows, columns)


def rank_correlation(one: Array, other: Array) -> float:
    """Correlate two maps, shape (h, w), over their cells (Spearman); NaN if one of them is constant.

    Near 0, the weights decide what the map shows; near 1, the image and the architecture do.

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
    """Compute both scores of a map, in the order of `SCORES`. Shape (2,)."""
    return np.array([pointing_game(saliency, inside), inside_energy(saliency, inside)])


@dataclass(frozen=True)
class MapScores:
    """Scores of one method's maps, and of the same maps by models with random weights."""

    trained: Array  # one row per map, one column per score; (M, 2)
    randomised: Array  # (R, M, 2)
    rank_correlation: Array  # of each map with those of the randomised models; NaN for constant maps; (R, M)


def method_estimates(
    scores: MapScores, baselines: Mapping[str, Array], patient_ids: Sequence[str] | Array, resampling: Resampling
) -> dict[str, dict[str, Estimate]]:
    """Measure a method, and how much it exceeds each baseline on the same maps.

    Args:
        scores: The method's.
        baselines: By name, the scores of maps that need no model. Shape (M, 2).
        patient_ids: Patient of each map. Shape (M,).
        resampling: How intervals are drawn.

    Returns:
        Estimates by score for `trained`, `randomised model`, and `less BASELINE` of it and the others. `trained` also
        has the mean `rank_correlation` over the maps that have one.
    """
    randomised = scores.randomised.mean(axis=0)  # over the models, so that a map counts once
    groups = {
        "trained": score_estimates(scores.trained, patient_ids, resampling),
        RANDOMISED: score_estimates(randomised, patient_ids, resampling),
    }
    for name, baseline in {RANDOMISED: randomised, **baselines}.items():
        groups[f"less {name}"] = {
            score: paired_difference(mean, [scores.trained[:, i]], [baseline[:, i]], patient_ids, resampling)
            for i, score in enumerate(SCORES)
        }
    has_one = ~np.isnan(scores.rank_correlation).all(axis=0)
    if has_one.any():
        correlations = np.nanmean(scores.rank_correlation[:, has_one], axis=0)
        estimate = patient_bootstrap(mean, [correlations], np.asarray(patient_ids)[has_one], resampling)
    else:
        estimate = undefined_estimate(len(patient_ids), "every map is constant and has no ranks")
    groups["trained"]["rank_correlation"] = estimate
    return groups


def score_estimates(scores: Array, patient_ids: Sequence[str] | Array, resampling: Resampling) -> dict[str, Estimate]:
    """Average each score over the maps, with its interval over patients; `scores` has shape (M, 2)."""
    return {score: patient_bootstrap(mean, [scores[:, i]], patient_ids, resampling) for i, score in enumerate(SCORES)}


def score_methods(
    trained: Maps,
    randomised: Sequence[Maps],
    rows: Dataset,
    findings: Sequence[MaskedFinding],
    image_processor: LumbarCLIPImageProcessor,
) -> tuple[dict[str, MapScores], dict[str, Array]]:
    """Score the maps of a trained and of randomised models at the pixels of the stored images, which have the masks.

    Returns:
        The scores by method, and those of maps that need no model, shape (M, 2), by name.
    """
    masks = rows.select_columns("mask")
    baselines: dict[str, list[Array]] = {CENTRE: [], UNIFORM: []}
    scores: dict[str, list[list[Array]]] = {method: [] for method in METHODS}
    for number, finding in enumerate(tqdm(findings, desc="Scores", unit=" maps")):
        inside = np.asarray(masks[finding.row]["mask"]) == finding.mask_index
        baselines[CENTRE].append(score_map(centre_map(*inside.shape), inside))
        baselines[UNIFORM].append(score_map(np.ones(inside.shape), inside))
        for method in METHODS:
            of_models = torch.stack([maps[method][number] for maps in (trained, *randomised)])
            over_image = image_processor.unpad_maps(of_models, inside.shape).numpy()
            scores[method].append([score_map(saliency, inside) for saliency in over_image])
    by_method = {}
    for method, of_findings in scores.items():
        by_model: Array = np.swapaxes(np.array(of_findings), 0, 1)  # (1 + R, M, 2)
        pairs = [zip(trained[method], maps[method], strict=True) for maps in randomised]
        correlations = [
            [rank_correlation(map_.numpy(), other.numpy()) for map_, other in of_model] for of_model in pairs
        ]
        by_method[method] = MapScores(by_model[0], by_model[1:], np.array(correlations))
    return by_method, {name: np.array(of_findings) for name, of_findings in baselines.items()}


def measure(
    trained: Maps,
    randomised: Sequence[Maps],
    rows: Dataset,
    findings: Sequence[MaskedFinding],
    processor: LumbarCLIPProcessor,
    resampling: Resampling,
) -> dict[str, Any]:
    """Score maps and their baselines: entries by method, by baseline, and by finding."""
    scores, baselines = score_methods(trained, randomised, rows, findings, processor.image_processor)
    patients = np.array(rows["patient_id"][:])[[finding.row for finding in findings]]
    methods = {name: method_estimates(of_method, baselines, patients, resampling) for name, of_method in scores.items()}
    by_finding = {}
    for label in dict.fromkeys(finding.label for finding in findings):
        of_label = np.array([finding.label == label for finding in findings])
        systems = {**{name: of_method.trained for name, of_method in scores.items()}, **baselines}
        by_finding[label] = {
            name: as_entries(score_estimates(values[of_label], patients[of_label], resampling))
            for name, values in systems.items()
        }
    return {
        "methods": {name: {group: as_entries(e) for group, e in groups.items()} for name, groups in methods.items()},
        "baselines": {name: as_entries(score_estimates(v, patients, resampling)) for name, v in baselines.items()},
        "by_finding": by_finding,
    }


def describe_findings(
    rows: Dataset, findings: Sequence[MaskedFinding], mask_names: Sequence[str], name: str, split: str
) -> dict[str, Any]:
    """Describe the images with a finding, and in which structure each finding was looked for."""
    patients = rows["patient_id"][:]
    asked = sorted({finding.row for finding in findings})
    return {
        "name": name,
        "split": split,
        "num_rows": len(asked),
        "num_patients": len({patients[row] for row in asked}),
        "synthetic": all(source.startswith("synthetic") for source in rows["source"][:]),
        "num_maps": len(findings),
        "findings": {
            label: {
                "structure": mask_names[next(f.mask_index for f in findings if f.label == label)],
                "maps": sum(finding.label == label for finding in findings),
                "patients": len({patients[finding.row] for finding in findings if finding.label == label}),
            }
            for label in dict.fromkeys(finding.label for finding in findings)
        },
    }
