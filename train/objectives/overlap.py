r"""Losses of segmentation: cross-entropy over pixels, and the Tversky index of soft masks.

Pure functions of tensors. Shapes: B images of H × W pixels, K classes with the background first, C = K - 1 classes
without it.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from train.objectives.objective import Gather, in_full_precision
from train.training.distributed import gather_with_gradient

IGNORED = 255  # label of pixels that count for nothing
SMOOTH = 1.0  # pixels: nothing beside a structure; a class that a batch lacks costs nothing once it is not predicted
# Least 1 - TI under an exponent: one below 1 has an infinite slope at 0, where a mask is perfect.
MIN_LOSS = 1e-6


class Overlap(NamedTuple):
    """Pixels of each class but the background, over the batch of all processes; soft: probabilities are added up.

    Attributes:
        true_positives: TP. Shape (C,).
        false_positives: FP. Shape (C,).
        false_negatives: FN. Shape (C,).
    """

    true_positives: Tensor
    false_positives: Tensor
    false_negatives: Tensor


def soft_overlap(logits: Tensor, labels: Tensor, gather: Gather = gather_with_gradient) -> Overlap:
    r"""Add up true positives, false positives and false negatives of each class, with gradient.

    All three come from one matrix product, the soft confusion matrix $M_{jk} = \sum_{x: y(x) = k} p_j(x)$: TP is its
    diagonal, FP and FN are what else its rows and columns hold. They are summed over all images and processes before
    any ratio is taken, so that an image without a class does not count as a failure, and several processes give the
    loss of one.

    The background is left out. Its overlap is near 1 and says little, its false positives are the false negatives of
    the classes, and weights on it would undo theirs.

    Args:
        logits: Shape (B, K, H, W). Minus infinity takes a class out of the softmax of a pixel.
        labels: Class of each pixel, 0 for the background; 255 is ignored. Shape (B, H, W), integer.
        gather: Joins a tensor of all processes, with gradient.

    Returns:
        Sums of at least float32. Shape (C,) each.

    Raises:
        ValueError: If the shapes do not fit, or a label is not a class.

    Example:
        >>> logits = torch.tensor([[0.0, 0.0], [0.0, 0.0]])[None, :, None]  # one row of two pixels, two classes
        >>> soft_overlap(logits, torch.tensor([[[1, 0]]]))
        Overlap(true_positives=tensor([0.5000]), false_positives=tensor([0.5000]), false_negatives=tensor([0.5000]))
    """
    _check_labels(logits, labels)
    with torch.autocast(logits.device.type, enabled=False):
        probabilities = in_full_precision(logits).softmax(dim=1).flatten(2)  # (B, K, H·W)
        classes = torch.arange(logits.shape[1], dtype=torch.uint8, device=logits.device)[:, None]
        one_hot = torch.empty_like(probabilities, requires_grad=False)
        # Written as float at once: comparing to bool and converting takes eight times as long.
        torch.eq(labels.flatten(1)[:, None].to(torch.uint8), classes, out=one_hot)  # an ignored pixel is of no class
        confusion = (probabilities @ one_hot.mT).sum(dim=0)  # (K, K): by prediction, by label
        confusion = gather(confusion[None]).sum(dim=0)
        errors = confusion - confusion.diagonal().diag()
        return Overlap(confusion.diagonal()[1:], errors.sum(dim=1)[1:], errors.sum(dim=0)[1:])


def tversky_loss(
    overlap: Overlap, false_negative_weights: Tensor | float = 0.5, gamma: float = 1.0, smooth: float = SMOOTH
) -> Tensor:
    r"""Compute one minus the Tversky index of each class, to a power, and their mean.

    $$TI_c = \frac{TP_c + s}{TP_c + a_c FP_c + b_c FN_c + s}, \quad a_c = 1 - b_c, \qquad
      \mathcal L = \frac1C \sum_c (1 - TI_c)^\gamma$$

    Args:
        overlap: Of the whole batch.
        false_negative_weights: b, in [0, 1]: above 0.5, a missed pixel costs more than one too many. Scalar or (C,).
        gamma: Exponent, > 0. Below 1, classes that are nearly right still learn; above 1, they hardly count.
        smooth: s, in pixels, > 0.

    Returns:
        In [0, 1]. Scalar, at least float32.

    Raises:
        ValueError: If `gamma` or `smooth` is not positive.

    Source:
        Tversky loss: Salehi et al. 2017, equation 4 (their α weighs false positives, our a). Exponent: focal Tversky
        loss, Abraham and Khan 2019, equation 5, where it is written 1/γ. With b = 0.5: soft Dice, Milletari et al.
        2016, with sums over the batch.

    Example:
        >>> overlap = Overlap(torch.tensor([6.0]), torch.tensor([2.0]), torch.tensor([4.0]))
        >>> tversky_loss(overlap, 0.75, smooth=1e-6)  # 1 - 6 / (6 + 0.25 · 2 + 0.75 · 4)
        tensor(0.3684)
    """
    if gamma <= 0 or smooth <= 0:
        raise ValueError(f"gamma and smooth must be above 0; got {gamma} and {smooth}.")
    true_positives, false_positives, false_negatives = overlap
    errors = (1 - false_negative_weights) * false_positives + false_negative_weights * false_negatives
    losses = errors / (true_positives + errors + smooth)  # 1 - TI
    return (losses if gamma == 1 else losses.clamp(min=MIN_LOSS) ** gamma).mean()


def pixel_cross_entropy(logits: Tensor, labels: Tensor, gather: Gather = gather_with_gradient) -> Tensor:
    """Compute the cross-entropy, the mean over the pixels of all processes.

    Args:
        logits: As in `soft_overlap`. Shape (B, K, H, W).
        labels: As in `soft_overlap`. Shape (B, H, W), integer.
        gather: Joins a tensor of all processes, with gradient.

    Returns:
        In nats; 0 if all pixels are ignored. Scalar, at least float32.

    Raises:
        ValueError: If the shapes do not fit, or a label is not a class.

    Example:
        >>> pixel_cross_entropy(torch.zeros(1, 4, 2, 2), torch.tensor([[[0, 1], [3, 255]]]))
        tensor(1.3863)
    """
    _check_labels(logits, labels)
    with torch.autocast(logits.device.type, enabled=False):
        logits = in_full_precision(logits)
        total = F.cross_entropy(logits, labels.long(), ignore_index=IGNORED, reduction="sum")
        total, count = gather(torch.stack([total, (labels != IGNORED).sum().to(total)])[None]).sum(dim=0)
        return total / count.clamp(min=1)


def _check_labels(logits: Tensor, labels: Tensor) -> None:
    if logits.ndim != 4 or labels.shape != logits.shape[:1] + logits.shape[2:]:
        raise ValueError(
            "logits must be (images, classes, height, width) and labels (images, height, width); got "
            f"{tuple(logits.shape)} and {tuple(labels.shape)}."
        )
    num_classes = logits.shape[1]
    least, greatest = labels.aminmax()
    # In 8 bits 255 + 1 is 0: one comparison for all.
    if least < 0 or greatest > IGNORED or (labels.to(torch.uint8) + 1).max() > num_classes:
        unknown = ((labels < 0) | (labels >= num_classes)) & (labels != IGNORED)
        values = ", ".join(map(str, labels[unknown].unique().tolist()[:5]))
        raise ValueError(
            f"labels must be 0 to {num_classes - 1}, for {num_classes} classes, or {IGNORED} where a pixel is to be "
            f"ignored; got {values}."
        )
