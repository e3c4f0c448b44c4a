"""Losses of masks, against slow loops, hand values and MONAI."""

import math

import pytest
import torch

from train.objectives.overlap import IGNORED, Overlap, pixel_cross_entropy, soft_overlap, tversky_loss

NUM_CLASSES = 4


@pytest.fixture
def masks():
    """Logits and labels of three images; some pixels are ignored."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(3, NUM_CLASSES, 5, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, NUM_CLASSES, (3, 5, 6), generator=generator)
    labels[0, :2] = labels[2, 4, 5] = IGNORED
    return logits, labels


def plain_overlap(logits, labels):
    """TP, FP and FN of each class but the background, pixel by pixel, in float64."""
    sums = [[0.0] * (NUM_CLASSES - 1) for _ in range(3)]
    for image, mask in zip(logits.tolist(), labels.tolist(), strict=True):
        for row, columns in enumerate(mask):
            for column, label in enumerate(columns):
                if label == IGNORED:
                    continue
                exponentials = [math.exp(image[k][row][column]) for k in range(NUM_CLASSES)]
                for k in range(1, NUM_CLASSES):
                    probability = exponentials[k] / sum(exponentials)
                    sums[0][k - 1] += probability if label == k else 0.0
                    sums[1][k - 1] += 0.0 if label == k else probability
                    sums[2][k - 1] += 1 - probability if label == k else 0.0
    return sums


def plain_tversky(logits, labels, weights, gamma, smooth):
    losses = []
    for tp, fp, fn, b in zip(*plain_overlap(logits, labels), weights, strict=True):
        losses.append((1 - (tp + smooth) / (tp + (1 - b) * fp + b * fn + smooth)) ** gamma)
    return sum(losses) / len(losses)


def plain_cross_entropy(logits, labels):
    terms = []
    for image, mask in zip(logits.tolist(), labels.tolist(), strict=True):
        for row, columns in enumerate(mask):
            for column, label in enumerate(columns):
                if label != IGNORED:
                    values = [image[k][row][column] for k in range(NUM_CLASSES)]
                    terms.append(math.log(sum(map(math.exp, values))) - values[label])
    return sum(terms) / len(terms)


WEIGHTS = [0.3, 0.5, 0.8]
LOSSES = {
    "cross-entropy": (pixel_cross_entropy, plain_cross_entropy),
    **{
        name: (
            lambda logits, labels, w=weights, g=gamma, s=smooth: tversky_loss(
                soft_overlap(logits, labels), torch.tensor(w, dtype=torch.float64), g, s
            ),
            lambda logits, labels, w=weights, g=gamma, s=smooth: plain_tversky(logits, labels, w, g, s),
        )
        for name, weights, gamma, smooth in (
            ("dice", [0.5] * 3, 1.0, 1.0),
            ("tversky", WEIGHTS, 1.0, 1e-5),
            ("focal", WEIGHTS, 0.75, 1.0),
            ("steep", WEIGHTS, 2.0, 1.0),
        )
    },
}


@pytest.mark.parametrize("name", LOSSES)
def test_value_is_that_of_plain_loops(name, masks):
    loss, reference = LOSSES[name]
    assert loss(*masks).item() == pytest.approx(reference(*masks), rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_order_of_images_and_pixels_does_not_matter(name, masks):
    loss, _ = LOSSES[name]
    logits, labels = masks
    moved = loss(logits[[2, 0, 1]].flip(-1), labels[[2, 0, 1]].flip(-1))
    assert moved.item() == pytest.approx(loss(logits, labels).item(), rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_is_that_of_finite_differences_and_none_of_ignored_pixels(name, masks):
    loss, _ = LOSSES[name]
    logits, labels = masks
    assert torch.autograd.gradcheck(lambda values: loss(values, labels), [logits.requires_grad_()], fast_mode=True)
    loss(logits, labels).backward()
    is_ignored = (labels == IGNORED)[:, None].expand_as(logits)
    assert not logits.grad[is_ignored].any() and logits.grad[~is_ignored].all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(name, dtype, masks):
    loss, _ = LOSSES[name]
    logits, labels = masks
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(logits.to(dtype), labels)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(logits.to(dtype).float(), labels).item(), rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32])
def test_labels_may_have_any_integer_type(name, dtype, masks):
    loss, _ = LOSSES[name]
    logits, labels = masks
    assert loss(logits, labels.to(dtype)) == loss(logits, labels)


@pytest.mark.parametrize("name", LOSSES)
def test_a_class_masked_out_of_the_softmax_of_an_image_gets_no_gradient_there(name, masks):
    loss, _ = LOSSES[name]
    logits, labels = masks
    labels = labels.masked_fill((labels == 2) & (torch.arange(3) == 1)[:, None, None], 0)  # image 1 marks no class 2
    hidden = torch.zeros(3, NUM_CLASSES, 1, 1, dtype=torch.bool)
    hidden[1, 2] = True
    logits.requires_grad_()
    value = loss(logits.masked_fill(hidden, -math.inf), labels)
    value.backward()
    assert value.isfinite() and logits.grad.isfinite().all()
    assert not logits.grad[1, 2].any() and logits.grad[1, [0, 1, 3]].all()


@pytest.mark.parametrize("name", LOSSES)
def test_images_that_are_ignored_as_a_whole_give_zero_with_gradient(name, masks):
    loss, _ = LOSSES[name]
    logits = masks[0].requires_grad_()
    value = loss(logits, torch.full_like(masks[1], IGNORED))
    value.backward()
    assert value.item() == pytest.approx(0.0, abs=1e-4) and not logits.grad.any()


def test_tversky_by_hand():
    # Two pixels of class 1, one of the background; probabilities of class 1: 0.5, 0.75, 0.25.
    odds = torch.tensor([[[[1.0, 3.0, 1 / 3]]]])
    logits = torch.cat([torch.zeros_like(odds), odds.log()], dim=1)
    overlap = soft_overlap(logits, torch.tensor([[[1, 1, 0]]]))
    assert [round(part.item(), 5) for part in overlap] == [1.25, 0.25, 0.75]
    # 1 - 1.25 / (1.25 + 0.3 · 0.25 + 0.7 · 0.75) = 0.6 / 1.85
    assert tversky_loss(overlap, 0.7, smooth=1e-9).item() == pytest.approx(0.6 / 1.85, abs=1e-6)
    assert tversky_loss(overlap, 0.7, 0.75, 1e-9).item() == pytest.approx((0.6 / 1.85) ** 0.75, abs=1e-6)
    assert tversky_loss(overlap, 0.5, smooth=1e-9).item() == pytest.approx(1 - 2.5 / 3.5, abs=1e-6)  # Dice


@pytest.mark.parametrize("gamma", [0.75, 1.0])
def test_perfect_masks_have_a_finite_gradient(gamma):
    labels = torch.tensor([[[0, 1], [2, 1]]])
    logits = (200.0 * torch.nn.functional.one_hot(labels, 3).movedim(-1, 1)).requires_grad_()
    value = tversky_loss(soft_overlap(logits, labels), 0.7, gamma)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-4) and logits.grad.isfinite().all()


def test_large_batches_are_summed_exactly_enough():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, 512, 512, generator=generator)
    labels = torch.randint(0, 3, (4, 512, 512), generator=generator)
    for loss in (pixel_cross_entropy, lambda *batch: tversky_loss(soft_overlap(*batch), 0.7)):
        assert loss(logits, labels).item() == pytest.approx(loss(logits.double(), labels).item(), rel=1e-5)


@pytest.mark.parametrize("weights", [0.5, 0.7])
def test_tversky_and_dice_are_those_of_monai(weights, masks):
    losses = pytest.importorskip("monai.losses")
    logits, labels = masks[0].float(), masks[1].masked_fill(masks[1] == IGNORED, 0)  # MONAI ignores no pixel
    settings = {"include_background": False, "to_onehot_y": True, "softmax": True, "batch": True}
    smooth = {"smooth_nr": 1e-5, "smooth_dr": 1e-5}
    theirs = losses.TverskyLoss(alpha=1 - weights, beta=weights, **settings, **smooth)(logits, labels[:, None])
    ours = tversky_loss(soft_overlap(logits, labels), weights, smooth=1e-5)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    if weights == 0.5:
        dice = losses.DiceLoss(**settings, **smooth)(logits, labels[:, None])
        assert tversky_loss(soft_overlap(logits, labels), smooth=0.5e-5).item() == pytest.approx(dice.item(), rel=1e-5)
        both = losses.DiceCELoss(**settings, **smooth)(logits, labels[:, None])
        assert (ours + pixel_cross_entropy(logits, labels)).item() == pytest.approx(both.item(), rel=1e-5)


def test_the_overlap_of_the_batch_is_not_the_mean_of_its_images(masks):
    logits, labels = masks
    labels = labels.masked_fill(labels == 3, 0)
    labels[0, 3, 3] = 3  # the other images lack it
    whole = soft_overlap(logits, labels)
    parts = [soft_overlap(logits[[row]], labels[[row]]) for row in range(3)]
    for together, images in zip(whole, zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(together, sum(images))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda logits, labels: (logits, labels.clamp(max=4)), "0 to 3, for 4 classes, or 255 .* got 4"),
        (lambda logits, labels: (logits, labels - 1), "got -1, 254"),
        (lambda logits, labels: (logits, labels + 256), "got 256"),
        (lambda logits, labels: (logits, labels[:, :4]), r"got \(3, 4, 5, 6\) and \(3, 4, 6\)"),
        (lambda logits, labels: (logits[0], labels), r"got \(4, 5, 6\)"),
    ],
)
@pytest.mark.parametrize("loss", [soft_overlap, pixel_cross_entropy])
def test_labels_that_are_no_classes_are_named(loss, change, words, masks):
    with pytest.raises(ValueError, match=words):
        loss(*change(*masks))


@pytest.mark.parametrize("settings", [{"gamma": 0.0}, {"gamma": -1.0}, {"smooth": 0.0}])
def test_exponent_and_smoothing_are_positive(settings):
    with pytest.raises(ValueError, match="must be above 0"):
        tversky_loss(Overlap(*torch.ones(3, 1)), **settings)
