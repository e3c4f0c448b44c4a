"""Retrieval: does an image find its report among all, and a report its image?

Reports repeat ("no disc herniation"), and a model cannot know which of two equal reports was written of an image. What
counts as a hit therefore stands beside each metric:

    pair      only the row's own report or image; copies of the report compete with it, in a random order that is the
              same in each run, since no model tells them apart. The strictest, for comparison with other work; no model
              can reach 1 where reports repeat.
    report    every image whose report is word for word the query's. Image to text searches the distinct reports, so
              that ten copies of a text cannot fill the first ten places.
    facts     every report that states the same findings (level, side, severity, negation), however it is worded; the
              distinct reports are searched, too. A report of which no finding is read is a hit for itself alone.
              Measures in mm are no part of the findings.

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
COLUMNS = ("rank", "num_hits", "num_candidates")
SEED_OF_COPIES = 0  # of the order of equal reports

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
    text_of_row = _numbered(texts)
    return list(dict.fromkeys(texts)), text_of_row


def group_facts(texts: Sequence[str]) -> Array:
    """Number texts so that those which state the same findings share a number.

    Nothing read is not the same as the same: a text without findings has a number of its own.

    Args:
        texts: M distinct texts.

    Returns:
        Shape (M,), integer.

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
    """Rank of each query's best hit, a hit being a candidate of the query's group.

    Args:
        query_embeds: Unit length. Shape (Q, D).
        candidate_embeds: Unit length. Shape (C, D).
        group_of_query: Each has a candidate. Shape (Q,), integer.
        group_of_candidate: Shape (C,), integer.
        copies_of_candidate: How many candidates this one stands for; ones when None. Shape (C,), integer.

    Returns:
        1 is the best; candidates of other groups that tie with the hit count against it. Shape (Q,), integer.

    Raises:
        ValueError: If an embedding is not finite.

    Example:
        >>> best_hit_ranks(np.array([[1.0]]), np.array([[0.9], [0.5], [0.5]]), np.array([7]), np.array([3, 7, 7]))
        array([2])
    """
    _check_finite(query_embeds, candidate_embeds)
    copies = np.ones(len(candidate_embeds), dtype=int) if copies_of_candidate is None else copies_of_candidate
    ranks = np.empty(len(query_embeds), dtype=int)
    for rows in _blocks(len(query_embeds), len(candidate_embeds)):
        similarities = query_embeds[rows] @ candidate_embeds.T
        hits = group_of_query[rows, None] == group_of_candidate
        best_hit = np.where(hits, similarities, -np.inf).max(1, keepdims=True)
        ranks[rows] = 1 + ((similarities >= best_hit) & ~hits) @ copies
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


@dataclass(frozen=True)
class Queries:
    """Where queries found their hit. Q queries.

    Args:
        ranks: Of the best hit, 1 is the first. Shape (Q,).
        num_hits: Candidates that are a hit. Shape (Q,).
        num_candidates: Candidates searched. Shape (Q,).
    """

    ranks: Array
    num_hits: Array
    num_candidates: Array


def rank_pairs(image_embeds: Array, texts: Sequence[str], text_embeds: Array) -> dict[str, Queries]:
    """Search for the own pair: each row's image among all N reports, copies included, and its text among all images.

    Equal reports have equal embeddings and tie. They stand in a random order: were the copies all before the own
    report, a model would have to beat chance in order to reach it.

    Args:
        image_embeds: Unit length. Shape (N, D).
        texts: Report of each row.
        text_embeds: Embedding of each row's report, unit length; equal for equal texts. Shape (N, D).

    Returns:
        The queries `image_to_text` and `text_to_image`, row by row.
    """
    distinct, text_of_row, distinct_embeds = _distinct(texts, text_embeds)
    copies = np.bincount(text_of_row)
    # Copies stand together instead of in columns of their own: products of equal vectors may differ in the last bit.
    image_ranks = best_hit_ranks(image_embeds, distinct_embeds, text_of_row, np.arange(len(distinct)), copies)
    row = np.arange(len(texts))
    return {
        "image_to_text": _queries(image_ranks + copies_before(text_of_row), 1, len(texts)),
        "text_to_image": _queries(best_hit_ranks(text_embeds, image_embeds, row, row), 1, len(texts)),
    }


def copies_before(text_of_row: Array) -> Array:
    """Put the rows into a random order, the same in each run, and count the copies of each row's text before it.

    Args:
        text_of_row: Equal for equal texts. Shape (N,), integer in [0, M).

    Returns:
        0 to n - 1, each once, for the n rows of a text. Shape (N,), integer.

    Example:
        >>> copies_before(np.array([0, 1, 0, 0])).tolist()
        [1, 0, 0, 2]
    """
    num_rows, copies = len(text_of_row), np.bincount(text_of_row)
    order = np.lexsort((np.random.default_rng(SEED_OF_COPIES).permutation(num_rows), text_of_row))  # text by text
    before = np.empty(num_rows, dtype=int)
    before[order] = np.arange(num_rows) - (np.cumsum(copies) - copies)[text_of_row[order]]
    return before


def rank_reports(image_embeds: Array, texts: Sequence[str], text_embeds: Array) -> dict[str, Queries]:
    """Search for the report, word for word; arguments and result as of `rank_pairs`."""
    return _rank_groups(image_embeds, texts, text_embeds, np.arange(len(set(texts))))


def rank_facts(image_embeds: Array, texts: Sequence[str], text_embeds: Array) -> dict[str, Queries]:
    """Search for a report that states the same findings; arguments and result as of `rank_pairs`."""
    return _rank_groups(image_embeds, texts, text_embeds, group_facts(group_texts(texts)[0]))


# What counts as a hit, by name.
RANKINGS = {"pair": rank_pairs, "report": rank_reports, "facts": rank_facts}


def rank_queries(
    image_embeds: Array, texts: Sequence[str], text_embeds: Array, hits: str = "report"
) -> dict[str, Queries]:
    """Search both ways within one split: each row's image for its text, and its text for an image.

    Args:
        image_embeds: Unit length. Shape (N, D).
        texts: Report of each row.
        text_embeds: Embedding of each row's report, unit length; equal for equal texts. Shape (N, D).
        hits: What counts as a hit: `pair`, `report` or `facts`.

    Returns:
        The queries `image_to_text` and `text_to_image`, row by row.

    Raises:
        ValueError: If an embedding is not finite, or `hits` is none of the three.
    """
    if hits not in RANKINGS:
        raise ValueError(f"hits must be one of {', '.join(RANKINGS)}; got {hits!r}.")
    return RANKINGS[hits](image_embeds, texts, text_embeds)


def retrieval_predictions(image_embeds: Array, texts: Sequence[str], text_embeds: Array) -> dict[str, Array]:
    """Search one split both ways, by each meaning of a hit.

    Args:
        image_embeds: Unit length. Shape (N, D).
        texts: Report of each row.
        text_embeds: Embedding of each row's report, unit length; equal for equal texts. Shape (N, D).

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
    """Say what the metrics of a search are computed of. The patients who ask are resampled, the candidates are not.

    Args:
        predictions: Of `retrieval_predictions`.
        group: Which of them: `retrieval/HITS`.
        patient_ids: Patient of each row. Shape (N,).

    Returns:
        For each direction: `..._recall_at_1`, `_5`, `_10`, the level of chance beside each (`..._chance_at_1`) and
        `..._median_rank`.
    """
    measure = partial(Measure, patient_ids=patient_ids)
    measures = {}
    for direction in DIRECTIONS:
        if f"{group}/{direction}/rank" not in predictions:
            continue
        ranks, num_hits, num_candidates = (predictions[f"{group}/{direction}/{name}"] for name in COLUMNS)
        for depth in RECALL_DEPTHS:
            measures[f"{direction}_recall_at_{depth}"] = measure(metrics.mean, [ranks <= depth])
            chance = chance_recall(num_hits, num_candidates, depth)
            measures[f"{direction}_chance_at_{depth}"] = measure(metrics.mean, [chance])
        measures[f"{direction}_median_rank"] = measure(metrics.median, [ranks])
    return measures


def _rank_groups(
    image_embeds: Array, texts: Sequence[str], text_embeds: Array, group_of_text: Array
) -> dict[str, Queries]:
    """Search the distinct texts, and the images, for one whose text is of the query's group. `group_of_text`: (M,)."""
    distinct, text_of_row, distinct_embeds = _distinct(texts, text_embeds)
    group_of_row = group_of_text[text_of_row]
    image_ranks = best_hit_ranks(image_embeds, distinct_embeds, group_of_row, group_of_text)
    text_ranks = best_hit_ranks(distinct_embeds, image_embeds, group_of_text, group_of_row)
    return {
        "image_to_text": _queries(image_ranks, np.bincount(group_of_text)[group_of_row], len(distinct)),
        "text_to_image": _queries(text_ranks[text_of_row], np.bincount(group_of_row)[group_of_row], len(texts)),
    }


def _queries(ranks: Array, num_hits: Array | int, num_candidates: int) -> Queries:
    return Queries(ranks, np.broadcast_to(num_hits, ranks.shape).copy(), np.full(ranks.shape, num_candidates))


def _distinct(texts: Sequence[str], text_embeds: Array) -> tuple[list[str], Array, Array]:
    """The distinct texts, the index of each row's text, and the embeddings of the distinct texts."""
    distinct, text_of_row = group_texts(texts)
    return distinct, text_of_row, text_embeds[np.unique(text_of_row, return_index=True)[1]]


def _numbered(keys: Iterable[Hashable]) -> Array:
    """Index of each key among the distinct ones, in order of first appearance."""
    index: dict[Hashable, int] = {}
    return np.array([index.setdefault(key, len(index)) for key in keys], dtype=int)


def _blocks(num_rows: int, num_columns: int) -> list[slice]:
    step = max(1, MAX_SIMILARITIES_IN_MEMORY // num_columns)
    return [slice(start, min(start + step, num_rows)) for start in range(0, num_rows, step)]


def _check_finite(*embeds: Array) -> None:
    for array in embeds:
        if not np.isfinite(array).all():
            raise ValueError(
                "An embedding is not finite; the checkpoint may have diverged: look at its training curves."
            )
