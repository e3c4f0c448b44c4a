import numpy as np
import pytest

from train.evaluation.bootstrap import Resampling
from train.evaluation.retrieval import (
    chance_recall,
    group_texts,
    image_to_text_ranks,
    retrieval,
    text_to_image_ranks,
)


def random_pairs(num_rows=40, num_texts=15, seed=0):
    """Embeddings on a coarse grid, so that similarities tie often."""
    rng = np.random.default_rng(seed)
    text_of_image = np.concatenate([np.arange(num_texts), rng.integers(0, num_texts, num_rows - num_texts)])
    images = rng.integers(-1, 2, (num_rows, 3)).astype(np.float32)
    texts = rng.integers(-1, 2, (num_texts, 3)).astype(np.float32)
    return images, texts, text_of_image


def slow_image_to_text_rank(image, texts, own):
    similarities = [float(image @ text) for text in texts]
    return 1 + sum(s >= similarities[own] for i, s in enumerate(similarities) if i != own)


def slow_text_to_image_rank(text, images, is_hit):
    similarities = [float(text @ image) for image in images]
    best = max(s for s, hit in zip(similarities, is_hit, strict=True) if hit)
    return 1 + sum(s >= best for s, hit in zip(similarities, is_hit, strict=True) if not hit)


@pytest.mark.parametrize("block", [1, 50, 10_000_000])
def test_ranks_equal_the_obvious_loop(block, monkeypatch):
    monkeypatch.setattr("train.evaluation.retrieval.MAX_SIMILARITIES_IN_MEMORY", block)
    images, texts, text_of_image = random_pairs()
    expected = [slow_image_to_text_rank(image, texts, own) for image, own in zip(images, text_of_image, strict=True)]
    assert image_to_text_ranks(images, texts, text_of_image).tolist() == expected
    expected = [slow_text_to_image_rank(text, images, text_of_image == index) for index, text in enumerate(texts)]
    assert text_to_image_ranks(images, texts, text_of_image).tolist() == expected


def test_a_model_that_answers_everything_alike_scores_nothing():
    alike = np.ones((30, 4), dtype=np.float32) / 2
    result = retrieval(alike, [f"text {i}" for i in range(30)], alike, np.arange(30).astype(str), Resampling(10))
    assert result["image_to_text_recall_at_10"].value == 0
    assert result["text_to_image_recall_at_10"].value == 0


def test_a_perfect_model_finds_everything_and_duplicates_count():
    # Rows 0 and 1 share a text. Row 1's image looks like row 2's text: image to text misses, text to image finds row 0.
    texts = ["same", "same", "other"]
    text_embeds = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    image_embeds = np.array([[1, 0], [0, 1], [0, 1]], dtype=np.float32)
    result = retrieval(image_embeds, texts, text_embeds, np.array(list("aab")), Resampling(10))
    assert result["image_to_text_recall_at_1"].value == pytest.approx(2 / 3)
    assert result["image_to_text_chance_at_1"].value == pytest.approx(1 / 2)  # of two distinct texts
    # "other" ties between image 2 (its own) and image 1 (not): a tie counts as a miss.
    assert result["text_to_image_recall_at_1"].value == pytest.approx(2 / 3)
    assert result["text_to_image_chance_at_1"].value == pytest.approx((2 / 3 + 2 / 3 + 1 / 3) / 3)
    assert result["image_to_text_recall_at_5"].value == 1


def test_chance_is_what_random_embeddings_reach():
    rng = np.random.default_rng(0)
    recalls, chances = [], []
    for _ in range(60):
        _, texts, text_of_image = random_pairs()
        images, texts = rng.normal(size=(40, 8)), rng.normal(size=(15, 8))
        reports = [str(i) for i in text_of_image]
        result = retrieval(images, reports, texts[text_of_image], text_of_image.astype(str), Resampling(2))
        names = ("image_to_text_{}_at_5", "text_to_image_{}_at_5")
        recalls.append([result[name.format("recall")].value for name in names])
        chances.append([result[name.format("chance")].value for name in names])
    np.testing.assert_allclose(np.mean(recalls, 0), np.mean(chances, 0), atol=0.05)


def test_chance_by_hand():
    # 2 hits among 4, 2 drawn: misses with 2/4 * 1/3.
    np.testing.assert_allclose(chance_recall(np.array([2, 1, 4]), 4, 2), [5 / 6, 1 / 2, 1])
    np.testing.assert_allclose(chance_recall(np.array([1]), 3, 10), [1])


def test_ranks_do_not_depend_on_the_order_of_rows():
    images, texts, text_of_image = random_pairs()
    order = np.random.default_rng(1).permutation(len(images))
    ranks = image_to_text_ranks(images, texts, text_of_image)
    assert (image_to_text_ranks(images[order], texts, text_of_image[order]) == ranks[order]).all()


def test_texts_are_grouped_by_identity():
    distinct, rows = group_texts(["No herniation.", "Bulge.", "No herniation.", "no herniation."])
    assert distinct == ["No herniation.", "Bulge.", "no herniation."]
    assert rows.tolist() == [0, 1, 0, 2]


def test_embeddings_that_are_not_finite_are_refused():
    images, texts, text_of_image = random_pairs()
    images[3, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        image_to_text_ranks(images, texts, text_of_image)
