"""The losses of all systems: against plain loops, by hand, in any order of the pairs, and their gradients."""

import pytest
import torch
import torch.nn.functional as F

from modeling_lumbarclip.losses_lumbarclip import info_nce_loss, sigmoid_loss
from tests.train.objectives import plain_losses
from train.objectives.convirt import convirt_loss
from train.objectives.gloria import gloria_loss, word_region_scores
from train.objectives.medclip import medclip_loss
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
    }


def plain(tensor):
    return tensor.tolist()


def plain_words(batch):
    return [words[:length].tolist() for words, length in zip(batch["words"], WORDS_OF_TEXT, strict=True)]


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
        ordered = {key: value[order] for key, value in batch.items()}
        before, after = (
            medclip_loss(b["images"], b["texts"], SCALE, b["labels"], b["labels"]) for b in (batch, ordered)
        )
    else:
        before, after = loss(batch), loss({key: value[order] for key, value in batch.items()})
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


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: convirt_loss(torch.eye(2), torch.eye(3, 2), 1.0), r"\(2, 2\) and \(3, 2\)"),
        (lambda: convirt_loss(torch.eye(2), torch.eye(2, 3), 1.0), r"\(2, 2\) and \(2, 3\)"),
        (lambda: convirt_loss(torch.zeros(0, 2), torch.zeros(0, 2), 1.0), "empty batch"),
        (lambda: medclip_loss(torch.eye(2), torch.eye(2), 1.0, torch.eye(3), torch.eye(2)), r"image_labels.*\(3, 3\)"),
        (
            lambda: medclip_loss(torch.eye(2), torch.eye(2), 1.0, torch.eye(2), torch.eye(2, 5)),
            r"text_labels.*\(2, 5\)",
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
