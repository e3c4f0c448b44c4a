import numpy as np
import pytest

from train.evaluation.protocols.retrieval import (
    RANKINGS,
    best_hit_ranks,
    chance_recall,
    copies_before,
    group_facts,
    group_texts,
    rank_queries,
    retrieval_measures,
    retrieval_predictions,
)
from train.evaluation.statistics.bootstrap import Resampling, estimates_of

DISTINCT_REPORTS = [
    "Mild disc bulge at L4/L5.",
    "At L4-5 mild bulge of the disc.",  # the same finding in other words
    "No disc bulge at L4/L5.",
    "Mild disc bulge at L3/L4.",
    "Disc protrusion at L5/S1 compressing left nerve root.",
    "Disc protrusion at L5/S1 compressing right nerve root.",
    "Quality of images is good.",  # no finding is read of these two
    "Thank you.",
]
FACTS_OF_REPORT = [0, 0, 1, 2, 3, 4, 5, 6]


def retrieval(images, texts, text_embeds, patient_ids, hits="report"):
    predictions = retrieval_predictions(images, texts, text_embeds)
    return estimates_of(retrieval_measures(predictions, f"retrieval/{hits}", patient_ids), Resampling(10))


def duplicated_rows(num_rows=40, seed=0):
    """Reports that repeat, and embeddings on a coarse grid, so that similarities tie often."""
    rng = np.random.default_rng(seed)
    num_texts = len(DISTINCT_REPORTS)
    text_of_row = rng.permutation(np.r_[np.arange(num_texts), rng.integers(0, num_texts, num_rows - num_texts)])
    images = rng.integers(-1, 2, (num_rows, 3)).astype(np.float32)
    text_embeds = rng.integers(-1, 2, (num_texts, 3)).astype(np.float32)[text_of_row]
    return images, [DISTINCT_REPORTS[text] for text in text_of_row], text_embeds


def slow_search(similarities, is_hit, is_copy, copies_ahead):
    """Rank of the best hit among candidates in a list, hits, candidates."""
    best = max(s for s, hit in zip(similarities, is_hit, strict=True) if hit)
    others = zip(similarities, is_hit, is_copy, strict=True)
    rank = 1 + sum(s >= best for s, hit, copy in others if not hit and not copy) + copies_ahead
    return rank, sum(is_hit), len(is_hit)


def slow_queries(images, texts, text_embeds, hits):
    """Both ways, a row after another, all candidates in a list."""
    facts = dict(zip(DISTINCT_REPORTS, FACTS_OF_REPORT, strict=True))
    rows = range(len(texts))
    first_rows = [row for row in rows if texts.index(texts[row]) == row]
    candidates = rows if hits == "pair" else first_rows
    ahead = copies_before(group_texts(texts)[1]).tolist()

    def is_hit(query, candidate):
        if hits == "facts":
            return facts[texts[query]] == facts[texts[candidate]]
        return query == candidate if hits == "pair" else texts[query] == texts[candidate]

    def search(query, query_embeds, candidate_embeds, candidates, among_texts):
        similarities = [float(query_embeds[query] @ candidate_embeds[candidate]) for candidate in candidates]
        found = [is_hit(query, candidate) for candidate in candidates]
        copies = [among_texts and texts[query] == texts[candidate] for candidate in candidates]
        return slow_search(similarities, found, copies, ahead[query] if among_texts and hits == "pair" else 0)

    return {
        "image_to_text": [search(query, images, text_embeds, candidates, True) for query in rows],
        "text_to_image": [search(query, text_embeds, images, rows, False) for query in rows],
    }


@pytest.mark.parametrize("hits", RANKINGS)
@pytest.mark.parametrize("block", [1, 50, 10_000_000])
def test_ranks_equal_the_obvious_loop(hits, block, monkeypatch):
    monkeypatch.setattr("train.evaluation.protocols.retrieval.MAX_SIMILARITIES_IN_MEMORY", block)
    rows = duplicated_rows()
    expected = slow_queries(*rows, hits)
    for direction, asked in rank_queries(*rows, hits).items():
        found = zip(asked.ranks.tolist(), asked.num_hits.tolist(), asked.num_candidates.tolist(), strict=True)
        assert list(found) == expected[direction]


@pytest.mark.parametrize("hits", RANKINGS)
def test_a_model_that_answers_everything_alike_scores_nothing(hits):
    alike = np.ones((30, 4), dtype=np.float32) / 2
    texts = [f"Report number {i} is ready." for i in range(30)]
    result = retrieval(alike, texts, alike, np.arange(30).astype(str), hits)
    assert result["image_to_text_recall_at_10"].value == 0
    assert result["text_to_image_recall_at_10"].value == 0


def test_what_counts_as_a_hit_by_hand():
    # Rows 0 and 1 have the same report, row 2 says the same in other words, row 3 says something else. Every image
    # points at its own report, but that of row 0 lies a little nearer to row 2's.
    texts = [DISTINCT_REPORTS[0], DISTINCT_REPORTS[0], DISTINCT_REPORTS[1], DISTINCT_REPORTS[2]]
    text_embeds = np.eye(3)[[0, 0, 1, 2]]
    image_embeds = np.array([[0.6, 0.8, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    to_text = {hits: rank_queries(image_embeds, texts, text_embeds, hits)["image_to_text"] for hits in RANKINGS}
    # Row 0: after row 2's report. One of rows 0 and 1 finds its own report before the copy, the other behind it.
    assert to_text["pair"].ranks.tolist() in ([2, 2, 1, 1], [3, 1, 1, 1])
    assert to_text["report"].ranks.tolist() == [2, 1, 1, 1]
    assert to_text["facts"].ranks.tolist() == [1, 1, 1, 1]
    assert to_text["facts"].num_hits.tolist() == [2, 2, 2, 1]  # of three distinct reports
    to_image = {hits: rank_queries(image_embeds, texts, text_embeds, hits)["text_to_image"] for hits in RANKINGS}
    assert to_image["pair"].ranks.tolist() == [2, 1, 1, 1]
    assert to_image["report"].num_hits.tolist() == [2, 2, 1, 1]
    assert to_image["facts"].num_hits.tolist() == [3, 3, 3, 1]


def test_a_perfect_model_finds_everything_and_duplicates_count():
    # Rows 0 and 1 share a text. Row 1's image looks like row 2's text: image to text misses, text to image finds row 0.
    texts = ["same", "same", "other"]
    text_embeds = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    image_embeds = np.array([[1, 0], [0, 1], [0, 1]], dtype=np.float32)
    result = retrieval(image_embeds, texts, text_embeds, np.array(list("aab")))
    assert result["image_to_text_recall_at_1"].value == pytest.approx(2 / 3)
    assert result["image_to_text_chance_at_1"].value == pytest.approx(1 / 2)  # of two distinct texts
    # "other" ties between image 2 (its own) and image 1 (not): a tie counts as a miss.
    assert result["text_to_image_recall_at_1"].value == pytest.approx(2 / 3)
    assert result["text_to_image_chance_at_1"].value == pytest.approx((2 / 3 + 2 / 3 + 1 / 3) / 3)
    assert result["image_to_text_recall_at_5"].value == 1


@pytest.mark.parametrize("hits", RANKINGS)
def test_chance_is_what_random_embeddings_reach(hits):
    rng = np.random.default_rng(0)
    _, texts, _ = duplicated_rows()
    text_of_row = group_texts(texts)[1]
    recalls, chances = [], []
    for _ in range(60):
        images, text_embeds = rng.normal(size=(40, 8)), rng.normal(size=(len(DISTINCT_REPORTS), 8))[text_of_row]
        result = retrieval(images, texts, text_embeds, text_of_row.astype(str), hits)
        names = ("image_to_text_{}_at_5", "text_to_image_{}_at_5")
        recalls.append([result[name.format("recall")].value for name in names])
        chances.append([result[name.format("chance")].value for name in names])
    np.testing.assert_allclose(np.mean(recalls, 0), np.mean(chances, 0), atol=0.03)


def test_copies_stand_in_a_random_order_that_stays():
    text_of_row = np.random.default_rng(3).integers(0, 5, 200)
    before = copies_before(text_of_row)
    for text in range(5):
        of_text = before[text_of_row == text]
        assert sorted(of_text) == list(range(len(of_text)))  # each place once
        assert abs(np.corrcoef(of_text, np.arange(len(of_text)))[0, 1]) < 0.6  # not in the order of the rows
    np.testing.assert_array_equal(copies_before(text_of_row), before)


def test_chance_by_hand():
    # 2 hits among 4, 2 drawn: misses with 2/4 * 1/3.
    np.testing.assert_allclose(chance_recall(np.array([2, 1, 4]), 4, 2), [5 / 6, 1 / 2, 1])
    np.testing.assert_allclose(chance_recall(np.array([1]), 3, 10), [1])


@pytest.mark.parametrize("hits", RANKINGS)
def test_ranks_do_not_depend_on_the_order_of_rows(hits):
    images, texts, text_embeds = duplicated_rows()
    order = np.random.default_rng(1).permutation(len(images))
    before = rank_queries(images, texts, text_embeds, hits)
    after = rank_queries(images[order], [texts[row] for row in order], text_embeds[order], hits)
    for direction, asked in before.items():
        ranks = {"before": asked.ranks[order], "after": after[direction].ranks}
        if hits == "pair" and direction == "image_to_text":  # copies change places, among themselves alone
            text_of_row = group_texts([texts[row] for row in order])[1]
            ranks = {when: np.bincount(text_of_row, of_rows) for when, of_rows in ranks.items()}
        np.testing.assert_array_equal(ranks["after"], ranks["before"])


def test_texts_are_grouped_by_identity():
    distinct, rows = group_texts(["No herniation.", "Bulge.", "No herniation.", "no herniation."])
    assert distinct == ["No herniation.", "Bulge.", "no herniation."]
    assert rows.tolist() == [0, 1, 0, 2]


def test_texts_are_grouped_by_what_they_state():
    assert group_facts(DISTINCT_REPORTS).tolist() == FACTS_OF_REPORT


def test_an_unknown_kind_of_hit_is_refused():
    with pytest.raises(ValueError, match="pair, report, facts; got 'label'"):
        rank_queries(*duplicated_rows(), hits="label")


def test_embeddings_that_are_not_finite_are_refused():
    images, texts, text_embeds = duplicated_rows()
    images[3, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        rank_queries(images, texts, text_embeds)


def test_copies_count_each():
    queries, candidates = np.array([[1.0]]), np.array([[0.9], [0.5]])
    assert best_hit_ranks(queries, candidates, np.array([1]), np.array([0, 1]), np.array([4, 9])).tolist() == [5]
