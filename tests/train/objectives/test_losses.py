"""The losses of all systems: against plain loops, by hand, in any order of the pairs, and their gradients."""

import pytest
import torch
import torch.nn.functional as F

from modeling_lumbarclip.losses_lumbarclip import info_nce_loss, sigmoid_loss
from tests.train.objectives import plain_losses
from train.objectives.convirt import convirt_loss
from train.objectives.counterfactual import counterfactual_losses
from train.objectives.gloria import gloria_loss, word_region_scores
from train.objectives.instance import instance_loss
from train.objectives.medclip import medclip_loss
from train.objectives.ordinal import cumulative_link_loss, starting_thresholds
from train.objectives.polarity import polarity_loss
from train.objectives.supervised import supervised_loss

NUM_PAIRS, SCALE, BIAS = 5, 7.0, -3.0
WORDS_OF_TEXT = [1, 4, 2, 6, 3]


@pytest.fixture
def batch():
    """Five pairs of width 4, their labels, 3 regions an image, and words padded with numbers that must not matter."""
    generator = torch.Generator().manual_seed(0)

    def unit(*shape):
        return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)

    return {
        "images": unit(NUM_PAIRS, 4),
        "texts": unit(NUM_PAIRS, 4),
        "regions": unit(NUM_PAIRS, 3, 4),
        "words": unit(NUM_PAIRS, max(WORDS_OF_TEXT), 4),
        "word_mask": torch.arange(max(WORDS_OF_TEXT)) < torch.tensor(WORDS_OF_TEXT)[:, None],
        "labels": torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 0, 0]]),
        "class_logits": torch.randn(NUM_PAIRS, 3, generator=generator, dtype=torch.float64),
        "one_hot": F.one_hot(torch.tensor([0, 2, 1, 0, 2])),
        "statements": unit(3, 2, 2, 4),
        "states": torch.tensor([[1, 0, -1], [0, -1, 1], [-1, -1, -1], [1, 0, 0], [0, 1, 1]]),
        "facts": torch.tensor([7, 2, 7, 1, 0]),
        "grades": torch.tensor([3, 0, -1, 1, 0]),
        "changed": unit(3, 4),
    }


def plain(tensor):
    return tensor.tolist()


def plain_words(batch):
    return [words[:length].tolist() for words, length in zip(batch["words"], WORDS_OF_TEXT, strict=True)]


PREVALENCE = [0.02, 0.5, 0.75]
THRESHOLDS = torch.tensor([-1.5, -0.25, 2.0], dtype=torch.float64)
CHANGED_ROWS = torch.tensor([3, 0, 3])  # two of one pair


def mean_of_changed(b):
    """The losses of the pairs that have a counterfactual; `places` is where the pairs lie after a permutation."""
    rows = b["places"][CHANGED_ROWS] if "places" in b else CHANGED_ROWS
    losses = counterfactual_losses(b["images"], b["texts"], SCALE, b["changed"], rows, b["facts"], b["facts"])
    return losses.sum() / 2


# Of each loss: the function of a batch, and its independent reference.
LOSSES = {
    "clip": (
        lambda b: info_nce_loss(b["images"], b["texts"], SCALE),
        lambda b: plain_losses.clip(plain(b["images"]), plain(b["texts"]), SCALE),
    ),
    "siglip": (
        lambda b: sigmoid_loss(b["images"], b["texts"], SCALE, BIAS),
        lambda b: plain_losses.siglip(plain(b["images"]), plain(b["texts"]), SCALE, BIAS),
    ),
    "convirt": (
        lambda b: convirt_loss(b["images"], b["texts"], SCALE),
        lambda b: plain_losses.convirt(plain(b["images"]), plain(b["texts"]), SCALE),
    ),
    "medclip": (
        lambda b: medclip_loss(b["images"], b["texts"], SCALE, b["labels"], b["labels"].roll(1, dims=0)),
        lambda b: plain_losses.medclip(
            *(plain(b["images"]), plain(b["texts"]), SCALE),
            *(plain(b["labels"]), plain(b["labels"].roll(1, dims=0))),
        ),
    ),
    "gloria": (
        lambda b: gloria_loss(
            b["images"], b["texts"], SCALE, word_region_scores(b["regions"], b["words"], b["word_mask"])
        ),
        lambda b: plain_losses.gloria(
            plain(b["images"]), plain(b["texts"]), SCALE, plain(b["regions"]), plain_words(b)
        ),
    ),
    "polarity": (
        lambda b: polarity_loss(
            b["images"], b["statements"], SCALE, b["states"], torch.tensor(PREVALENCE, dtype=torch.float64)
        ),
        lambda b: plain_losses.polarity(
            plain(b["images"]), plain(b["statements"]), SCALE, plain(b["states"]), PREVALENCE
        ),
    ),
    "instance": (
        lambda b: instance_loss(b["images"], b["texts"], SCALE, b["facts"]),
        lambda b: plain_losses.instance(plain(b["images"]), plain(b["texts"]), SCALE, plain(b["facts"])),
    ),
    "counterfactual": (
        mean_of_changed,
        lambda b: plain_losses.counterfactual(
            *(plain(b["images"]), plain(b["texts"]), SCALE, plain(b["changed"])),
            *(plain(CHANGED_ROWS), plain(b["facts"])),
        ),
    ),
    "ordinal": (
        lambda b: cumulative_link_loss(b["class_logits"][:, 0], THRESHOLDS.to(b["class_logits"]), b["grades"]),
        lambda b: plain_losses.ordinal(plain(b["class_logits"][:, 0]), plain(THRESHOLDS), plain(b["grades"])),
    ),
    "supervised, exclusive": (
        lambda b: supervised_loss(b["class_logits"], b["one_hot"], exclusive=True),
        lambda b: plain_losses.supervised(plain(b["class_logits"]), plain(b["one_hot"]), exclusive=True),
    ),
    "supervised, findings": (
        lambda b: supervised_loss(b["class_logits"], b["labels"], exclusive=False),
        lambda b: plain_losses.supervised(plain(b["class_logits"]), plain(b["labels"]), exclusive=False),
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_value_is_that_of_plain_loops(name, batch):
    loss, reference = LOSSES[name]
    assert loss(batch).item() == pytest.approx(reference(batch), rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_order_of_the_pairs_does_not_matter(name, batch):
    loss, _ = LOSSES[name]
    order = torch.tensor([3, 0, 4, 2, 1])
    if name == "medclip":  # its texts have the labels of other pairs above
        ordered = {key: batch[key][order] for key in ("images", "texts", "labels")}
        before, after = (
            medclip_loss(b["images"], b["texts"], SCALE, b["labels"], b["labels"]) for b in (batch, ordered)
        )
    else:
        of_pairs = {key for key, value in batch.items() if len(value) == NUM_PAIRS}
        ordered = {key: value[order] if key in of_pairs else value for key, value in batch.items()}
        before, after = loss(batch), loss({**ordered, "places": order.argsort()})
    assert after.item() == pytest.approx(before.item(), rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_is_that_of_finite_differences(name, batch):
    loss, _ = LOSSES[name]
    floating = [key for key, value in batch.items() if value.is_floating_point()]

    def of_tensors(*tensors):
        return loss({**batch, **dict(zip(floating, tensors, strict=True))})

    assert torch.autograd.gradcheck(of_tensors, [batch[key].requires_grad_() for key in floating], fast_mode=True)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(name, dtype, batch):
    loss, _ = LOSSES[name]
    half = {key: value.to(dtype) if value.is_floating_point() else value for key, value in batch.items()}
    rounded = {key: value.float() if value.is_floating_point() else value for key, value in half.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(half)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(rounded).item(), rel=1e-6)


def test_convirt_by_hand():
    # Both images resemble text 0: rows [1, 0] and [1, 0], columns [1, 1] and [0, 0].
    images, texts = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.eye(2)
    rows = (0.313262 + 1.313262) / 2  # ln(1 + 1/e), ln(1 + e)
    assert convirt_loss(images, texts, 1.0).item() == pytest.approx(0.75 * rows + 0.25 * 0.693147, abs=1e-6)
    assert convirt_loss(images, texts, 1.0, 0.5) == info_nce_loss(images, texts, 1.0)


def test_polarity_by_hand():
    # Two findings, one wording of each kind. The image lies on the statement of 0, and between those of 1.
    statements = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]], [[[0.6, 0.8]], [[0.6, -0.8]]]])
    image, shares = torch.tensor([[1.0, 0.0]]), torch.tensor([0.25, 0.5])
    # Margins 2 · 1 and 2 · 0: weight 2 of a finding that a quarter shows, ln(1 + e^-2) and ln 2.
    value = polarity_loss(image, statements, 2.0, torch.tensor([[1, 0]]), shares)
    assert value.item() == pytest.approx((2 * 0.126928 + 0.693147) / 2, abs=1e-6)
    absent = polarity_loss(image, statements, 2.0, torch.tensor([[0, -1]]), shares)
    assert absent.item() == pytest.approx(2.126928 / 1.5, abs=1e-5)  # weight 1 / (2 · 0.75)
    rare = polarity_loss(image, statements, 2.0, torch.tensor([[1, -1]]), torch.tensor([0.001, 0.5]))
    assert rare.item() == pytest.approx(20 * 0.126928, abs=1e-5)  # at most twenty times


def test_polarity_of_what_is_not_known_or_not_told_apart_changes_nothing(batch):
    shares = torch.tensor(PREVALENCE)
    images, statements = (batch[key].clone().requires_grad_() for key in ("images", "statements"))
    silent = torch.full_like(batch["states"], -1)
    loss = polarity_loss(images, statements, SCALE, silent, shares)
    loss.backward()
    assert loss.item() == 0 and not images.grad.any() and not statements.grad.any()
    more = torch.cat([batch["states"], silent])
    twice = polarity_loss(images.repeat(2, 1), statements, SCALE, more, shares)
    assert twice.item() == pytest.approx(polarity_loss(images, statements, SCALE, batch["states"], shares).item())
    for share in (0.0, 1.0):
        one_sided = polarity_loss(images, statements, SCALE, batch["states"], torch.tensor([0.02, share, 0.75]))
        without = batch["states"].clone()
        without[:, 1] = -1
        assert one_sided.item() == pytest.approx(polarity_loss(images, statements, SCALE, without, shares).item())


def test_instance_of_distinct_facts_is_clip_and_of_equal_ones_moves_no_text(batch):
    pairs = batch["images"], batch["texts"], SCALE
    assert instance_loss(*pairs, torch.arange(NUM_PAIRS)) == pytest.approx(info_nce_loss(*pairs).item(), rel=1e-12)
    same = torch.zeros(2, dtype=torch.long)
    value = instance_loss(torch.tensor([[1.0, 0.0]] * 2), torch.tensor([[0.6, 0.8]] * 2), 3.0, same)
    assert value.item() == pytest.approx(0.693147, abs=1e-6)  # ln 2: both are right


def test_counterfactual_by_hand():
    # Logits of image 0: own report 1, the other 0, counterfactual 0.6; image 1 has none.
    value = counterfactual_losses(
        torch.eye(2), torch.eye(2), 1.0, torch.tensor([[0.6, 0.8]]), torch.tensor([0]), torch.arange(2), torch.arange(2)
    )
    expected = torch.tensor([1.0, 0.0, 0.6]).logsumexp(dim=0) - 1
    torch.testing.assert_close(value, torch.tensor([expected.item(), 0.0]))


def test_counterfactuals_are_columns_of_their_own_image_alone(batch):
    rows, facts = torch.tensor([3, 0, 3]), torch.arange(NUM_PAIRS)
    changed = batch["changed"].clone().requires_grad_()
    losses = counterfactual_losses(batch["images"], batch["texts"], SCALE, changed, rows, facts, facts)
    assert losses.nonzero().flatten().tolist() == [0, 3]
    losses[3].backward()
    assert changed.grad[[0, 2]].abs().sum(dim=1).min() > 0 and not changed.grad[1].any()
    none = counterfactual_losses(batch["images"], batch["texts"], SCALE, changed[:0], rows[:0], facts, facts)
    assert none.tolist() == [0.0] * NUM_PAIRS


def test_siglip_at_its_start_pays_for_the_positives_only():
    # Logit 10 · 1 - 10 = 0 for a pair that agrees: ln 2. A wrong pair at right angles: ln(1 + e^-10).
    value = sigmoid_loss(torch.eye(3), torch.eye(3), 10.0, -10.0)
    assert value.item() == pytest.approx(0.693147 + 2 * 4.5399e-5, abs=1e-6)


def test_medclip_by_hand_for_images_and_texts_of_different_pools():
    # One image of classes {0, 1}, texts of {0} and {2}: similarities 1/√2 and 0; logits 2 and 0.
    value = medclip_loss(
        torch.tensor([[1.0, 0.0]]),
        torch.eye(2),
        2.0,
        torch.tensor([[1, 1, 0]]),
        torch.tensor([[1, 0, 0], [0, 0, 1]]),
    )
    target = 0.669761  # 1 / (1 + e^(-1/√2))
    image_to_text = target * 0.126928 + (1 - target) * 2.126928  # ln(1 + e^-2), ln(1 + e^2)
    assert value.item() == pytest.approx(image_to_text / 2, abs=1e-5)  # a text has only one image to choose: 0


def test_medclip_images_without_labels_are_drawn_to_all_texts_alike():
    embeds, labels = torch.eye(2), torch.tensor([[0, 0], [0, 1]])
    alike = medclip_loss(embeds, embeds, 1.0, torch.zeros(2, 2), labels)
    assert alike.item() == pytest.approx((0.313262 + 1.313262) / 2, abs=1e-6)  # targets of one half


def test_gloria_finds_the_word_in_the_region_that_shows_it():
    # The word's own region gets e^4 / (e^4 + 1) of the attention, and the cosine of context and word is nearly 1.
    regions = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
    words = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    share = 0.982014
    cosine = share / (share**2 + (1 - share) ** 2) ** 0.5
    both = word_region_scores(regions, words, torch.tensor([[1, 1]]))
    assert both[0, 0].item() == pytest.approx(torch.tensor(2.0).log().item() + 5 * cosine, abs=1e-4)
    assert both[1, 0].item() == pytest.approx(torch.tensor(1 + 2.718281828**5).log().item(), abs=1e-4)
    assert word_region_scores(regions, words, torch.tensor([[1, 0]]))[1, 0].item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("max_block_numbers", [1, 2 * 5 * 6 * 7, 10**9])
def test_gloria_in_blocks_of_texts_is_the_same(max_block_numbers, batch):
    whole, blocks = [], []
    for found, limit in ((whole, 10**12), (blocks, max_block_numbers)):
        leaves = [batch[key].clone().requires_grad_() for key in ("regions", "words")]
        scores = word_region_scores(*leaves, batch["word_mask"], limit)
        scores.square().sum().backward()
        found += [scores, *(leaf.grad for leaf in leaves)]
    for one, other in zip(whole, blocks, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_gloria_padding_may_be_zeros(batch):
    words = (batch["words"] * batch["word_mask"][:, :, None]).requires_grad_()
    scores = word_region_scores(batch["regions"], words, batch["word_mask"])
    torch.testing.assert_close(scores, word_region_scores(batch["regions"], batch["words"], batch["word_mask"]))
    scores.sum().backward()
    assert torch.isfinite(words.grad).all()


def test_gloria_keeps_no_attention_for_backward():
    """What backward keeps is regions, words and scores, not texts x regions of each image."""
    kept = {}

    def count(saved):
        kept[saved.untyped_storage().data_ptr()] = saved
        return saved

    regions = F.normalize(torch.randn(16, 49, 8), dim=2).requires_grad_()
    words = F.normalize(torch.randn(16, 20, 8), dim=2).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda saved: saved):
        word_region_scores(regions, words, torch.ones(16, 20), max_block_numbers=50_000)
    assert sum(tensor.numel() for tensor in kept.values()) < 2 * (regions.numel() + words.numel())


def test_ordinal_by_hand():
    # Thresholds of -1 and 1 at a score of 0: grades have the probabilities 0.268941, 0.462117 and 0.268941.
    thresholds = torch.tensor([-1.0, 1.0])
    for grade, loss in enumerate((1.313262, 0.771937, 1.313262)):
        assert cumulative_link_loss(torch.zeros(1), thresholds, torch.tensor([grade])).item() == pytest.approx(loss)
    # Two grades make a logistic regression.
    score = torch.tensor([0.7])
    expected = F.binary_cross_entropy_with_logits(score - 0.2, torch.ones(1))
    assert cumulative_link_loss(score, torch.tensor([0.2]), torch.tensor([1])).item() == pytest.approx(expected.item())


def test_ordinal_errs_the_more_the_further_a_grade_is_off():
    thresholds, grade = torch.tensor([-3.0, -1.0, 1.0, 3.0]), torch.tensor([0])
    losses = [cumulative_link_loss(torch.tensor([score]), thresholds, grade).item() for score in (-4.0, -2.0, 0.0, 4.0)]
    assert losses == sorted(losses)


def test_ordinal_rows_without_a_grade_change_nothing():
    scores, thresholds = torch.tensor([0.3, -2.0, 5.0]).requires_grad_(), torch.tensor([-1.0, 1.0]).requires_grad_()
    loss = cumulative_link_loss(scores, thresholds, torch.tensor([1, 0, -1]))
    loss.backward()
    assert loss.item() == pytest.approx(cumulative_link_loss(scores[:2], thresholds, torch.tensor([1, 0])).item())
    assert scores.grad[2] == 0 and (scores.grad[:2] != 0).all() and (thresholds.grad != 0).all()
    for leaf in (scores, thresholds):
        leaf.grad = None
    loss = cumulative_link_loss(scores, thresholds, torch.tensor([-1, -1, -1]))
    loss.backward()
    assert loss.item() == 0 and (scores.grad == 0).all() and (thresholds.grad == 0).all()


def test_ordinal_gradient_survives_scores_far_beyond_the_thresholds():
    """A difference of two sigmoids would be 0 there, and its logarithm infinite."""
    scores = torch.tensor([200.0, -200.0, 200.0]).requires_grad_()
    thresholds = torch.tensor([-1.0, 1.0]).requires_grad_()
    loss = cumulative_link_loss(scores, thresholds, torch.tensor([1, 1, 0]))
    loss.backward()
    assert loss.item() == pytest.approx((199 + 199 + 201) / 3, rel=1e-3)
    assert scores.grad.tolist() == pytest.approx([1 / 3, -1 / 3, 1 / 3])
    assert torch.isfinite(thresholds.grad).all()


def test_ordinal_gradient_of_the_thresholds_is_that_of_finite_differences():
    scores, grades = torch.tensor([0.3, -2.0, 1.0, 0.2], dtype=torch.float64), torch.tensor([3, 0, 1, 2])
    assert torch.autograd.gradcheck(
        lambda thresholds: cumulative_link_loss(scores, thresholds, grades), [THRESHOLDS.clone().requires_grad_()]
    )


def test_ordinal_starts_at_the_shares_of_the_grades():
    counts = torch.tensor([40, 20, 0, 139])  # with one more of each: 41, 21, 1 and 140 of 203
    thresholds = starting_thresholds(counts)
    assert torch.sigmoid(thresholds).tolist() == pytest.approx([41 / 203, 62 / 203, 63 / 203])


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: cumulative_link_loss(torch.zeros(2), torch.zeros(1), torch.zeros(3, dtype=torch.long)),
            r"\(2,\), one a row; got \(3,\)",
        ),
        (lambda: cumulative_link_loss(torch.zeros(1), torch.tensor([1.0, 1.0]), torch.tensor([0])), "must rise"),
        (lambda: cumulative_link_loss(torch.zeros(1), torch.zeros(0), torch.tensor([0])), "must rise"),
        (
            lambda: cumulative_link_loss(torch.zeros(2), torch.tensor([0.0, 1.0]), torch.tensor([0, 3])),
            "between 0 and 2.*got 3",
        ),
        (
            lambda: cumulative_link_loss(torch.zeros(1), torch.tensor([0.0, 1.0]), torch.tensor([-2])),
            "between 0 and 2.*got -2",
        ),
        (lambda: convirt_loss(torch.eye(2), torch.eye(3, 2), 1.0), r"\(2, 2\) and \(3, 2\)"),
        (lambda: convirt_loss(torch.eye(2), torch.eye(2, 3), 1.0), r"\(2, 2\) and \(2, 3\)"),
        (lambda: convirt_loss(torch.zeros(0, 2), torch.zeros(0, 2), 1.0), "empty batch"),
        (lambda: medclip_loss(torch.eye(2), torch.eye(2), 1.0, torch.eye(3), torch.eye(2)), r"image_labels.*\(3, 3\)"),
        (
            lambda: medclip_loss(torch.eye(2), torch.eye(2), 1.0, torch.eye(2), torch.eye(2, 5)),
            r"text_labels.*\(2, 5\)",
        ),
        (
            lambda: polarity_loss(torch.eye(2), torch.ones(3, 1, 1, 2), 1.0, torch.ones(2, 3), torch.ones(3)),
            r"got \(2, 2\), \(3, 1, 1, 2\), \(2, 3\), \(3,\)",
        ),
        (
            lambda: polarity_loss(torch.eye(2), torch.ones(3, 2, 1, 2), 1.0, torch.ones(3, 3), torch.ones(3)),
            r"\(pairs, findings\).*\(3, 3\)",
        ),
        (lambda: instance_loss(torch.eye(2), torch.eye(2), 1.0, torch.arange(3)), r"each of the 2 pairs; got \(3,\)"),
        (
            lambda: counterfactual_losses(
                *(torch.eye(2), torch.eye(2), 1.0, torch.eye(2), torch.arange(3), torch.arange(2), torch.arange(2))
            ),
            r"got \(3,\) for 2",
        ),
        (lambda: supervised_loss(torch.zeros(2, 3), torch.zeros(2, 2), True), r"\(2, 3\); got \(2, 2\)"),
        (lambda: gloria_loss(torch.eye(2), torch.eye(2), 1.0, torch.eye(3)), r"must be \(2, 2\), got \(3, 3\)"),
        (lambda: word_region_scores(torch.ones(1, 2, 3), torch.ones(1, 2, 4), torch.ones(1, 2)), r"\(1, 2, 4\)"),
        (
            lambda: word_region_scores(torch.ones(1, 2, 3), torch.ones(2, 2, 3), torch.tensor([[1, 0], [0, 0]])),
            "Text 1 has no word",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
