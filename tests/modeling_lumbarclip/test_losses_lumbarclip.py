"""The flat loss against the formula, by loops, by the dense reference, and by open_clip."""

import math

import pytest
import torch
import torch.nn.functional as F

from modeling_lumbarclip.losses_lumbarclip import (
    info_nce_loss,
    lumbarclip_loss,
    sigmoid_loss,
    soft_contrastive_loss,
    soft_contrastive_loss_dense,
    soft_targets,
)


def embeds(num_pairs, width=8, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(2, num_pairs, width, generator=generator, dtype=torch.float64)
    image_embeds, text_embeds = F.normalize(random, dim=-1).to(dtype)
    return image_embeds.requires_grad_(), text_embeds.requires_grad_()


def one_hot(num_pairs):
    return F.one_hot(torch.arange(num_pairs) * 7 % 3, 3)


def multi_hot(num_pairs):
    labels = (torch.rand(num_pairs, 5, generator=torch.Generator().manual_seed(1)) < 0.4).int()
    labels[0] = 0  # a pair without any class
    return labels


def by_loops(image_embeds, text_embeds, inverse_temperature, labels, label_temperature):
    """Equations 3 to 6 of the paper in plain Python, without a maximum subtracted."""
    n = len(image_embeds)
    scores = [[inverse_temperature * float(a @ b) for b in text_embeds] for a in image_embeds]
    overlap = [[math.exp(float(p @ q) / label_temperature) for q in labels] for p in labels]
    total = 0.0
    for i in range(n):
        for j in range(n):
            target = overlap[i][j] / sum(overlap[i])
            total -= target * (scores[i][j] - math.log(sum(math.exp(scores[i][k]) for k in range(n))))
            total -= target * (scores[j][i] - math.log(sum(math.exp(scores[k][i]) for k in range(n))))
    return total / n


@pytest.mark.parametrize("labels_of", [one_hot, multi_hot])
def test_formula_by_loops(labels_of):
    image_embeds, text_embeds = embeds(9)
    labels = labels_of(9).double()
    expected = by_loops(image_embeds.detach(), text_embeds.detach(), 6.0, labels, 0.4)
    for loss in (soft_contrastive_loss, soft_contrastive_loss_dense):
        assert loss(image_embeds, text_embeds, 6.0, labels, 0.4).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("labels_of", [one_hot, multi_hot, lambda n: None, torch.eye])
@pytest.mark.parametrize("label_temperature", [None, 0.5])
@pytest.mark.parametrize("num_pairs, tile_size", [(1, 4), (12, 4), (37, 8), (37, 64)])
@pytest.mark.parametrize("inverse_temperature", [14.3, 100.0, 900.0])  # one exponential; two; beyond any format
def test_flat_equals_dense_in_value_and_gradient(
    labels_of, label_temperature, num_pairs, tile_size, inverse_temperature
):
    results = []
    for loss, options in ((soft_contrastive_loss, {"tile_size": tile_size}), (soft_contrastive_loss_dense, {})):
        image_embeds, text_embeds = embeds(num_pairs)
        scale = torch.tensor(inverse_temperature, dtype=torch.float64, requires_grad=True)
        value = loss(image_embeds, text_embeds, scale, labels_of(num_pairs), label_temperature, **options)
        (3 * value).backward()  # a factor, so that the gradient of the output matters
        results.append([value, image_embeds.grad, text_embeds.grad, scale.grad])
    for flat, dense in zip(*results, strict=True):
        torch.testing.assert_close(flat, dense, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("inverse_temperature", [14.3, 100.0])
def test_low_precision_is_computed_in_float32(dtype, inverse_temperature):
    image_embeds, text_embeds = embeds(70, dtype=dtype)
    labels = multi_hot(70)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        flat = soft_contrastive_loss(image_embeds, text_embeds, inverse_temperature, labels, 0.3, tile_size=16)
    exact = soft_contrastive_loss_dense(image_embeds.double(), text_embeds.double(), inverse_temperature, labels, 0.3)
    assert flat.dtype == torch.float32
    assert flat.item() == pytest.approx(exact.item(), rel=1e-5)
    flat.backward()
    (expected,) = torch.autograd.grad(exact, image_embeds)
    torch.testing.assert_close(image_embeds.grad, expected, rtol=1e-5 if dtype == torch.float32 else 1e-2, atol=1e-5)


def test_scale_is_not_limited_by_the_embeddings_being_unit_length():
    image_embeds, text_embeds = (20 * x.detach() for x in embeds(11, dtype=torch.float32))
    flat = soft_contrastive_loss(image_embeds, text_embeds, 5.0, one_hot(11), 1.0, tile_size=4)
    dense = soft_contrastive_loss_dense(image_embeds.double(), text_embeds.double(), 5.0, one_hot(11), 1.0)
    assert flat.item() == pytest.approx(dense.item(), rel=1e-5)


def test_distinct_labels_are_clip():
    open_clip = pytest.importorskip("open_clip.loss")
    image_embeds, text_embeds = embeds(10, dtype=torch.float32)
    clip = open_clip.ClipLoss()(image_embeds, text_embeds, torch.tensor(10.0))
    assert info_nce_loss(image_embeds, text_embeds, 10.0).item() == pytest.approx(clip.item(), rel=1e-5)
    hard = soft_contrastive_loss(image_embeds, text_embeds, 10.0, torch.eye(10), label_temperature=1e-3)
    assert hard.item() == pytest.approx(2 * clip.item(), rel=1e-5)
    assert soft_contrastive_loss(image_embeds, text_embeds, 10.0).item() == pytest.approx(2 * clip.item(), rel=1e-5)


def test_sigmoid_loss_is_siglip():
    open_clip = pytest.importorskip("open_clip.loss")
    image_embeds, text_embeds = embeds(10, dtype=torch.float32)
    expected = open_clip.SigLipLoss()(image_embeds, text_embeds, torch.tensor(10.0), torch.tensor(-10.0))
    assert sigmoid_loss(image_embeds, text_embeds, 10.0, -10.0).item() == pytest.approx(expected.item(), rel=1e-5)


def test_order_of_pairs_does_not_matter():
    image_embeds, text_embeds = embeds(13)
    order = torch.randperm(13, generator=torch.Generator().manual_seed(2))
    labels = multi_hot(13)
    here = soft_contrastive_loss(image_embeds, text_embeds, 9.0, labels, 0.5, tile_size=4)
    there = soft_contrastive_loss(image_embeds[order], text_embeds[order], 9.0, labels[order], 0.5, tile_size=4)
    assert here.item() == pytest.approx(there.item(), rel=1e-12)


def test_targets_carry_no_gradient_into_the_temperature():
    image_embeds, text_embeds = embeds(8)
    scale = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    soft_contrastive_loss(image_embeds, text_embeds, scale, one_hot(8), None).backward()
    tied = scale.grad.clone()
    scale.grad = None
    soft_contrastive_loss(image_embeds, text_embeds, scale, one_hot(8), 0.2).backward()
    torch.testing.assert_close(tied, scale.grad)


def test_one_class_batch_is_finite_and_lowest_for_equal_similarities():
    image_embeds, _ = embeds(6)
    labels = torch.ones(6, 1)
    same = F.normalize(torch.ones(6, 8, dtype=torch.float64), dim=1)
    assert soft_contrastive_loss(same, same, 10.0, labels).item() == pytest.approx(2 * math.log(6))
    assert soft_contrastive_loss(image_embeds, image_embeds, 10.0, labels).item() > 2 * math.log(6)


def test_alpha_weighs_reports_against_rephrasings():
    image_embeds, text_embeds = embeds(6)
    _, augmented = embeds(6, seed=3)
    labels = one_hot(6)
    reports = soft_contrastive_loss(image_embeds, text_embeds, 5.0, labels)
    rephrased = soft_contrastive_loss(image_embeds, augmented, 5.0, labels)
    mixed = lumbarclip_loss(image_embeds, text_embeds, augmented, 5.0, labels, alpha=0.3)
    torch.testing.assert_close(mixed, 0.3 * reports + 0.7 * rephrased)
    torch.testing.assert_close(lumbarclip_loss(image_embeds, text_embeds, None, 5.0, labels, alpha=0.3), reports)


def test_rows_of_targets_sum_to_one():
    torch.testing.assert_close(soft_targets(multi_hot(9).double(), 0.2).sum(dim=1), torch.ones(9).double())


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([torch.ones(3, 4), torch.ones(2, 4), 1.0], r"got \(3, 4\) and \(2, 4\)"),
        ([torch.ones(0, 4), torch.ones(0, 4), 1.0], "empty batch"),
        ([torch.ones(3, 4), torch.ones(3, 4), 1.0, torch.ones(2, 4)], r"each of the 3 pairs; got \(2, 4\)"),
        ([torch.ones(3, 4), torch.ones(3, 4), 1.0, torch.ones(3, 4), 0.0], "label_temperature must be positive"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        soft_contrastive_loss(*arguments)
    with pytest.raises(ValueError, match=message):
        soft_contrastive_loss_dense(*arguments)


def test_memory_is_flat():
    """A batch whose N × N matrix would be 256 MiB; the saved tensors of the flat loss are a hundredth of it."""
    image_embeds, text_embeds = embeds(8192, width=16, dtype=torch.float32)
    saved = 0

    def count(tensor):
        nonlocal saved
        saved += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        soft_contrastive_loss(image_embeds, text_embeds, 10.0, one_hot(8192), 0.5)
    assert saved < 8192 * 8192 * 4 / 50
