"""Retrieval: does an image find its report among all, and a report its image?

Reports repeat ("no disc herniation"), and a model cannot know which of two equal reports belongs to an image. So each
metric says what counts as a hit:

    pair      only the row's own report or image; copies of the report compete with it, in a random order that is the
              same in each run, since no model tells them apart. The strictest, for comparison with other work; no model
              can reach 1 where reports repeat.
    report    every image whose report is word for word the query's. Image to text searches the distinct reports, so
              that ten copies of a text cannot fill the first ten places.
    facts     every report that states the same findings (level, side, severity, negation), however it is worded; the
              distinct reports are searched, too. A report without findings is a hit only for itself. Measures in mm
              do not count as findings.

Any other candidate that ties with the hit is ranked before it: a model that scores everything alike gets 0, not 1.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.special import gammaln
from tqdm.auto import tqdm

from data_scripts.reports.text import report_facts
from train.evaluation.statistics import metrics
from train.evaluation.statistics.bootstrap import Measure
from train.evaluation.statistics.metrics import Array, Floats

RECALL_DEPTHS = (1, 5, 10)
DIRECTIONS = ("image_to_text", "text_to_image")
RANKINGS = ("pair", "report", "facts")  # what counts as a hit
COLUMNS = ("rank", "num_hits", "num_candidates")
SEED_OF_COPIES = 0  # of the order of equal reports

# Similarities are computed in blocks of rows: 16 million float32 are 64 MiB, whatever the size of the split.
MAX_SIMILARITIES_IN_MEMORY = 16_000_000


def group_texts(texts: Sequence[str]) -> tuple[list[str], Array]:
    """List the M distinct texts in order of first appearance, and the index of each row's text, shape (N,).

    Example:
        >>> group_texts(["b", "a", "b"])
        (['b', 'a'], array([0, 1, 0]))
    """
    return list(dict.fromkeys(texts)), _numbered(texts)


def group_facts(texts: Sequence[str]) -> Array:
    """Number M distinct texts so that texts that state the same findings share a number. Shape (M,), integer.

    A text without findings has a number of its own.

    Example:
        >>> group_facts(["Mild bulge at L4-5.", "L4/L5: mild disc bulge.", "No bulge at L4-5.", "Done.", "Thanks."])
        array([0, 0, 1, 2, 3])
    """
    read = tqdm(texts, desc="Reading reports", unit=" reports", delay=5)
    return _numbered(report_facts(text) or text for text in read)


def best_hit_ranks(
    query_embeds: Array,
    candidate_embeds: Array,
    group_of_query: Array,
    group_of_candidate: Array,
    copies_of_candidate: Array | None = None,
) -> Array:
    """Rank each query's best hit, a candidate of the query's group.

    Args:
        query_embeds: Unit length. Shape (Q, D).
        candidate_embeds: Unit length. Shape (C, D).
        group_of_query: Each has a candidate. Shape (Q,), integer.
        group_of_candidate: Shape (C,), integer.
        copies_of_candidate: Number of copies that each candidate represents; None: one each. Shape (C,), integer.

    Returns:
        1 is the best; candidates of other groups that tie with the hit count against it. Shape (Q,), integer.

    Raises:
        ValueError: If an embedding is not finite.

    Example:
        >>> best_hit_ranks(np.array([[1.0]]), np.array([[0.9], [0.5], [0.5]]), np.array([7]), np.array([3, 7, 7]))
        array([2])
    """
    if not all(np.isfinite(embeds).all() for embeds in (query_embeds, candidate_embeds)):
        raise ValueError("An embedding is not finite; the checkpoint may have diverged: check its training curves.")
    copies = np.ones(len(candidate_embeds), dtype=int) if copies_of_candidate is None else copies_of_candidate
    ranks = np.empty(len(query_embeds), dtype=int)
    step = max(1, MAX_SIMILARITIES_IN_MEMORY // len(candidate_embeds))
    for start in range(0, len(query_embeds), step):
        rows = slice(start, start + step)
        similarities = query_embeds[rows] @ candidate_embeds.T
        hits = group_of_query[rows, None] == group_of_candidate
        best_hit = np.where(hits, similarities, -np.inf).max(1, keepdims=True)
        ranks[rows] = 1 + ((similarities >= best_hit) & ~hits) @ copies
    return ranks


def chance_recall(num_hits: Array, num_candidates: Array | int, depth: int) -> Floats:
    """Compute the probability that `depth` candidates drawn at random hold at least one of the hits.

    Args:
        num_hits: Number of hits among the candidates, for each query. Shape (Q,).
        num_candidates: Number of candidates, for all queries, or for each. Shape () or (Q,).
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


@dataclass(frozen=True)
class Queries:
    """Where queries found their hit. Each array has shape (Q,) for Q queries."""

    ranks: Array  # of the best hit; 1 is the first
    num_hits: Array
    num_candidates: Array


def rank_queries(
    image_embeds: Array, texts: Sequence[str], text_embeds: Array, hits: str = "report"
) -> dict[str, Queries]:
    """Search both ways within one split: each row's image for its text, and its text for an image.

    Args:
        image_embeds: Unit length. Shape (N, D).
        texts: Report of each row.
        text_embeds: Embedding of each row's report, unit length; equal for equal texts. Shape (N, D).
        hits: What counts as a hit: one of `RANKINGS`.

    Returns:
        The queries `image_to_text` and `text_to_image`, row by row.

    Raises:
        ValueError: If an embedding is not finite, or `hits` is unknown.
    """
    if hits not in RANKINGS:
        raise ValueError(f"hits must be one of {', '.join(RANKINGS)}; got {hits!r}.")
    distinct, text_of_row = group_texts(texts)
    distinct_embeds = text_embeds[np.unique(text_of_row, return_index=True)[1]]
    row, text = np.arange(len(texts)), np.arange(len(distinct))
    if hits == "pair":
        copies = np.bincount(text_of_row)
        # Equal reports tie, in a random order: with all copies ahead of its own report, a model would have to beat
        # chance to reach it. They share a column: products of equal vectors may differ in the last bit.
        image_ranks = best_hit_ranks(image_embeds, distinct_embeds, text_of_row, text, copies)
        return {
            "image_to_text": _queries(image_ranks + copies_before(text_of_row), 1, len(texts)),
            "text_to_image": _queries(best_hit_ranks(text_embeds, image_embeds, row, row), 1, len(texts)),
        }
    group_of_text = text if hits == "report" else group_facts(distinct)
    group_of_row = group_of_text[text_of_row]
    image_ranks = best_hit_ranks(image_embeds, distinct_embeds, group_of_row, group_of_text)
    text_ranks = best_hit_ranks(distinct_embeds, image_embeds, group_of_text, group_of_row)
    return {
        "image_to_text": _queries(image_ranks, np.bincount(group_of_text)[group_of_row], len(distinct)),
        "text_to_image": _queries(text_ranks[text_of_row], np.bincount(group_of_row)[group_of_row], len(texts)),
    }


def copies_before(text_of_row: Array) -> Array:
    """Put the rows into a random order, the same in each run, and count the copies of each row's text before it.

    `text_of_row`, shape (N,), is equal for equal texts. The n rows of a text get 0 to n - 1, each once. Shape (N,).

    Example:
        >>> copies_before(np.array([0, 1, 0, 0])).tolist()
        [1, 0, 0, 2]
    """
    num_rows, copies = len(text_of_row), np.bincount(text_of_row)
    order = np.lexsort((np.random.default_rng(SEED_OF_COPIES).permutation(num_rows), text_of_row))  # text by text
    before = np.empty(num_rows, dtype=int)
    before[order] = np.arange(num_rows) - (np.cumsum(copies) - copies)[text_of_row[order]]
    return before


def retrieval_predictions(image_embeds: Array, texts: Sequence[str], text_embeds: Array) -> dict[str, Array]:
    """Search one split both ways, by each meaning of a hit; arguments as for `rank_queries`.

    Returns:
        `retrieval/HITS/DIRECTION/rank`, `num_hits` and `num_candidates`, of each row. Shape (N,).
    """
    return {
        f"retrieval/{hits}/{direction}/{name}": array
        for hits in RANKINGS
        for direction, asked in rank_queries(image_embeds, texts, text_embeds, hits).items()
        for name, array in zip(COLUMNS, (asked.ranks, asked.num_hits, asked.num_candidates), strict=True)
    }


def retrieval_measures(predictions: Mapping[str, Array], group: str, patient_ids: Array) -> dict[str, Measure]:
    """Collect the metrics of the search `group`, `retrieval/HITS`; resamples the queries' patients, not candidates.

    Returns:
        For each direction: `..._recall_at_1`, `_5`, `_10`, the level of chance for each (`..._chance_at_1`) and
        `..._median_rank`.
    """
    measure = partial(Measure, patient_ids=patient_ids)
    measures = {}
    for direction in DIRECTIONS:
        ranks, num_hits, num_candidates = (predictions[f"{group}/{direction}/{name}"] for name in COLUMNS)
        for depth in RECALL_DEPTHS:
            measures[f"{direction}_recall_at_{depth}"] = measure(metrics.mean, [ranks <= depth])
            chance = chance_recall(num_hits, num_candidates, depth)
            measures[f"{direction}_chance_at_{depth}"] = measure(metrics.mean, [chance])
        measures[f"{direction}_median_rank"] = measure(metrics.median, [ranks])
    return measures


def _queries(ranks: Array, num_hits: Array | int, num_candidates: int) -> Queries:
    return Queries(ranks, np.broadcast_to(num_hits, ranks.shape).copy(), np.full(ranks.shape, num_candidates))


def _numbered(keys: Iterable[Hashable]) -> Array:
    """Index of each key among the distinct ones, in order of first appearance."""
    index: dict[Hashable, int] = {}
    return np.array([index.setdefault(key, len(index)) for key in keys], dtype=int)
