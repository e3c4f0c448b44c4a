"""Retrieval: does an image find its report among all, and a report its image?

Reports repeat ("no disc herniation"). Every image whose report is word for word the query's counts as a hit, and the
reports searched are the distinct ones, so that ten copies of a text cannot fill the first ten places.
A candidate that ties with the hit is ranked before it: a model that answers everything alike scores 0, not 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.special import gammaln

from train.evaluation import metrics
from train.evaluation.bootstrap import Estimate, Resampling, patient_bootstrap
from train.evaluation.metrics import Array, Floats

RECALL_DEPTHS = (1, 5, 10)

# Similarities are computed in blocks of rows: 16 million float32 are 64 MiB, whatever the size of the split.
MAX_SIMILARITIES_IN_MEMORY = 16_000_000


def group_texts(texts: Sequence[str]) -> tuple[list[str], Array]:
    """Number the distinct texts in order of first appearance.

    Args:
        texts: N texts.

    Returns:
        The M distinct texts, and the index of each row's text among them, shape (N,).

    Example:
        >>> group_texts(["b", "a", "b"])
        (['b', 'a'], array([0, 1, 0]))
    """
    index: dict[str, int] = {}
    rows = np.array([index.setdefault(text, len(index)) for text in texts], dtype=int)
    return list(index), rows


def image_to_text_ranks(image_embeds: Array, text_embeds: Array, text_of_image: Array) -> Array:
    """Rank of each image's own text among the distinct texts.

    Args:
        image_embeds: Unit length. Shape (N, D).
        text_embeds: Of the distinct texts, unit length. Shape (M, D).
        text_of_image: Index of each image's text. Shape (N,).

    Returns:
        1 is the best; ties count against. Shape (N,), integer.

    Raises:
        ValueError: If an embedding is not finite.
    """
    _check_finite(image_embeds, text_embeds)
    ranks = np.empty(len(image_embeds), dtype=int)
    for rows in _blocks(len(image_embeds), len(text_embeds)):
        similarities = image_embeds[rows] @ text_embeds.T
        own = np.take_along_axis(similarities, text_of_image[rows, None], axis=1)
        ranks[rows] = (similarities >= own).sum(1)
    return ranks


def text_to_image_ranks(image_embeds: Array, text_embeds: Array, text_of_image: Array) -> Array:
    """Rank of the best image that carries the text, among all images, for each distinct text.

    Args:
        image_embeds: Unit length. Shape (N, D).
        text_embeds: Of the distinct texts, unit length; each has an image. Shape (M, D).
        text_of_image: Index of each image's text. Shape (N,).

    Returns:
        1 is the best; ties with images of other texts count against. Shape (M,), integer.

    Raises:
        ValueError: If an embedding is not finite.
    """
    _check_finite(image_embeds, text_embeds)
    ranks = np.empty(len(text_embeds), dtype=int)
    for texts in _blocks(len(text_embeds), len(image_embeds)):
        similarities = text_embeds[texts] @ image_embeds.T
        hits = text_of_image == np.arange(texts.start, texts.stop)[:, None]
        best_hit = np.where(hits, similarities, -np.inf).max(1, keepdims=True)
        ranks[texts] = 1 + ((similarities >= best_hit) & ~hits).sum(1)
    return ranks


def chance_recall(num_hits: Array, num_candidates: Array | int, depth: int) -> Floats:
    """Probability that `depth` candidates drawn at random hold at least one of the hits.

    Args:
        num_hits: Number of hits among the candidates, for each query. Shape (Q,).
        num_candidates: Number of candidates, one for all queries or of each. Shape () or (Q,).
        depth: Number of candidates drawn.

    Returns:
        1 - C(candidates - hits, depth) / C(candidates, depth). Shape (Q,).

    Example:
        >>> chance_recall(np.array([1, 2, 9]), 10, 2).round(4).tolist()
        [0.2, 0.3778, 1.0]
    """
    drawn = np.minimum(depth, num_candidates)
    others = num_candidates - np.asarray(num_hits)
    enough = others >= drawn

    def log_choose(n: Array | int) -> Floats:
        return gammaln(np.asarray(n) + 1) - gammaln(drawn + 1) - gammaln(np.asarray(n) - drawn + 1)

    missed = np.exp(log_choose(np.where(enough, others, drawn)) - log_choose(num_candidates))
    return np.where(enough, 1 - missed, 1.0)


def retrieval(
    image_embeds: Array, texts: Sequence[str], text_embeds: Array, patient_ids: Array, resampling: Resampling
) -> dict[str, Estimate]:
    """Measure retrieval both ways on one split: `rank_queries`, then `retrieval_estimates`.

    Args:
        image_embeds: Unit length. Shape (N, D).
        texts: Report of each row.
        text_embeds: Embedding of each row's report, unit length. Shape (N, D).
        patient_ids: Patient of each row. Shape (N,).
        resampling: How intervals are drawn.

    Returns:
        The figures.
    """
    return retrieval_estimates(rank_queries(image_embeds, texts, text_embeds), patient_ids, resampling)


@dataclass(frozen=True)
class Queries:
    """Where queries found their answer. Q queries.

    Args:
        ranks: Of the best hit, 1 is the first. Shape (Q,).
        num_hits: Candidates that are a hit. Shape (Q,).
        num_candidates: Candidates searched. Shape (Q,).
    """

    ranks: Array
    num_hits: Array
    num_candidates: Array


def rank_queries(image_embeds: Array, texts: Sequence[str], text_embeds: Array) -> dict[str, Queries]:
    """Search both ways within one split.

    Each row asks twice: its image for its text among the distinct texts, its text for an image that carries it among
    all images.

    Args:
        image_embeds: Unit length. Shape (N, D).
        texts: Report of each row.
        text_embeds: Embedding of each row's report, unit length. Shape (N, D).

    Returns:
        The queries `image_to_text` and `text_to_image`, row by row.
    """
    distinct, text_of_image = group_texts(texts)
    first_row = np.unique(text_of_image, return_index=True)[1]
    distinct_embeds = text_embeds[first_row]
    images_with_text = np.bincount(text_of_image)
    num_rows = len(texts)
    return {
        "image_to_text": Queries(
            image_to_text_ranks(image_embeds, distinct_embeds, text_of_image),
            np.ones(num_rows, dtype=int),
            np.full(num_rows, len(distinct)),
        ),
        "text_to_image": Queries(
            text_to_image_ranks(image_embeds, distinct_embeds, text_of_image)[text_of_image],
            images_with_text[text_of_image],
            np.full(num_rows, num_rows),
        ),
    }


def retrieval_estimates(
    queries: Mapping[str, Queries], patient_ids: Array, resampling: Resampling
) -> dict[str, Estimate]:
    """Measure searches. Intervals resample the patients who ask; the candidates stay as they are.

    Args:
        queries: By direction, one a row.
        patient_ids: Patient of each row. Shape (N,).
        resampling: How intervals are drawn.

    Returns:
        For `image_to_text` and `text_to_image`: `..._recall_at_1`, `_5`, `_10`, the level of chance beside each
        (`..._chance_at_1`) and `..._median_rank`.
    """
    estimate = partial(
        patient_bootstrap,
        patient_ids=patient_ids,
        resampling=resampling,
    )
    estimates = {}
    for direction, asked in queries.items():
        for depth in RECALL_DEPTHS:
            estimates[f"{direction}_recall_at_{depth}"] = estimate(metrics.mean, [asked.ranks <= depth])
            chance = chance_recall(asked.num_hits, asked.num_candidates, depth)
            estimates[f"{direction}_chance_at_{depth}"] = estimate(metrics.mean, [chance])
        estimates[f"{direction}_median_rank"] = estimate(metrics.median, [asked.ranks])
    return estimates


def _blocks(num_rows: int, num_columns: int) -> list[slice]:
    step = max(1, MAX_SIMILARITIES_IN_MEMORY // num_columns)
    return [slice(start, min(start + step, num_rows)) for start in range(0, num_rows, step)]


def _check_finite(*embeds: Array) -> None:
    for array in embeds:
        if not np.isfinite(array).all():
            raise ValueError(
                "An embedding is not finite; the checkpoint may have diverged: look at its training curves."
            )
