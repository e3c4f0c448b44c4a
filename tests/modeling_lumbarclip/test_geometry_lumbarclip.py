"""Masks follow their images through padding and resizing, and predictions come back to the original grid."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_lumbarclip import LumbarCLIPImageProcessor
from modeling_lumbarclip.geometry_lumbarclip import padding


def processor_of(side, **settings):
    return LumbarCLIPImageProcessor(size={"height": side, "width": side}, **settings)


def stripes(height, width):
    """A mask whose classes are three vertical stripes, one of them not annotated."""
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 3 : 2 * width // 3] = 1
    mask[:, 2 * width // 3 :] = 255
    return mask


@pytest.mark.parametrize("shape", [(40, 64), (64, 40), (41, 64), (64, 64), (63, 17)])
def test_masks_lie_where_their_images_do(shape):
    processor = processor_of(32)
    mask = np.zeros(shape, np.uint8)
    mask[shape[0] // 4 : shape[0] // 2, shape[1] // 4 : shape[1] // 2] = 1
    pixels = processor(mask * 255, return_tensors="pt", do_normalize=False).pixel_values[0, 0]
    labels = processor.process_masks(mask)[0]
    shown = (pixels > 0.5) & (labels != 255)
    is_edge = (pixels > 0.2) & (pixels < 0.8)  # between two classes
    assert torch.equal(shown[~is_edge], (labels == 1)[~is_edge]) and shown.any()
    # The padding is not annotated, and nothing else is.
    left, right, top, bottom = padding(torch.zeros(shape))
    side = max(shape)
    inside = torch.zeros(side, side, dtype=torch.bool)
    inside[top : side - bottom, left : side - right] = True
    centres = ((torch.arange(32) + 0.5) * side / 32).long()
    assert torch.equal(labels != 255, inside[centres][:, centres])


def test_a_mask_of_the_models_size_stays_as_it_is_with_its_unannotated_pixels():
    mask = stripes(32, 32)
    (labels,) = processor_of(32).process_masks(Image.fromarray(mask))
    assert labels.dtype == torch.int64 and torch.equal(labels, torch.from_numpy(mask).long())


def test_without_padding_the_sides_are_resized_one_by_one():
    (labels,) = processor_of(4, do_pad_to_square=False).process_masks(torch.tensor([[0, 1]], dtype=torch.uint8))
    assert labels.tolist() == [[0, 0, 1, 1]] * 4
    (kept,) = processor_of(4, do_resize=False).process_masks(np.array([[True, False, True]]))
    assert kept.tolist() == [[255] * 3, [1, 0, 1], [255] * 3]


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((2, 2, 3), np.uint8), r"shape \(H, W\) and whole numbers.*got \(2, 2, 3\).*Colours are no classes"),
        (np.zeros((2, 2)), "whole numbers.*float64"),
        (np.zeros((0, 2), np.uint8), r"got \(0, 2\)"),
        (np.array([[0, 256]]), "classes from 0 to 254.*got values from 0 to 256"),
        (np.array([[-1, 2]]), "got values from -1 to 2"),
    ],
)
def test_what_is_no_mask_is_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        processor_of(4).process_masks([mask])


def test_masks_of_several_sizes_need_a_size():
    masks = [stripes(6, 6), stripes(8, 8)]
    with pytest.raises(ValueError, match="2 masks have the sizes"):
        processor_of(4, do_resize=False).process_masks(masks)
    with pytest.raises(ValueError, match="0 masks"):
        processor_of(4).process_masks([])
    assert processor_of(4, do_resize=False).process_masks(masks, (4, 4)).shape == (2, 4, 4)


@pytest.mark.parametrize("shape", [(48, 80), (80, 48), (77, 50), (32, 32), (20, 20)])
def test_predictions_come_back_to_the_original_grid(shape, tiny_processor):
    rows, columns = torch.meshgrid(*(torch.linspace(-1, 1, size) for size in shape), indexing="ij")
    truth = ((rows - 0.2) ** 2 + (columns + 0.1) ** 2 < 0.4).long()
    labels = tiny_processor.image_processor.process_masks(truth)
    logits = 10 * torch.nn.functional.one_hot(labels.where(labels != 255, 0), 2).movedim(3, 1).float()
    for processor in (tiny_processor, tiny_processor.image_processor):
        (mask,) = processor.post_process_semantic_segmentation(SimpleNamespace(logits=logits), [shape])
        assert mask.shape == shape and mask.dtype == torch.int64
        overlap = 2 * (mask * truth).sum() / (mask.sum() + truth.sum())
        assert overlap > 0.95, overlap  # the model sees 32 pixels a side


def test_sizes_are_those_of_all_images():
    outputs = SimpleNamespace(logits=torch.randn(2, 3, 8, 8, dtype=torch.bfloat16))
    processor = processor_of(8)
    for sizes in ([(5, 9), (4, 4)], torch.tensor([[5, 9], [4, 4]])):
        first, second = processor.post_process_semantic_segmentation(outputs, sizes)
        assert first.shape == (5, 9) and second.shape == (4, 4)
    raw = processor.post_process_semantic_segmentation(outputs)
    assert torch.equal(torch.stack(raw), outputs.logits.float().argmax(1))
    with pytest.raises(ValueError, match="each of 2 images; got 1"):
        processor.post_process_semantic_segmentation(outputs, [(5, 9)])
