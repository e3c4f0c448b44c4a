"""Classes by name, whatever their values; rows without truth; masks that fit nothing."""

import logging

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_lumbarclip import LumbarCLIPImageProcessor
from tests.train.segmentation.made_masks import NAMES, made_row, masked_dataset, write_dataset
from train.segmentation.arguments import FinetuneSegmentationArguments
from train.segmentation.data import MaskedImages, read_data, with_more_datasets
from train.segmentation.variation import IGNORED, Variation

BOTH = ("background", "disc", "canal", "sacrum")


def arguments(**more):
    return FinetuneSegmentationArguments(
        **({"dataset": "drawn", "output_dir": "run", "pretrained": False, "vision": "resnet10t"} | more)
    )


def mask_of(patient, number):
    return np.asarray(made_row(patient, number)["mask"])


def change_first(split, **values):
    """Change the first row of a split."""
    return lambda of, row: row | values if of == split and row["source"].endswith("/0") else row


def test_masks_on_the_stored_grid_and_that_of_the_model():
    data = read_data(masked_dataset(), arguments())
    assert data.class_names == NAMES and all(marked.all() for marked in data.annotated.values())
    assert np.array_equal(data.mask("train", 4), mask_of(1, 1))
    images = MaskedImages(data, "train", LumbarCLIPImageProcessor(size={"height": 40, "width": 40}), 0)
    batch = images.__getitems__([(0, 4), (3, 0)])
    assert batch["pixel_values"].shape == (2, 3, 40, 40) and batch["rows"].tolist() == [4, 0]
    padded = np.pad(mask_of(1, 1), ((0, 0), (6, 6)), constant_values=IGNORED)  # to a square: nothing is squashed
    assert batch["labels"].dtype == torch.int64 and np.array_equal(batch["labels"][0], padded)
    bright = batch["pixel_values"][0, 0][batch["labels"][0] == 1].min()
    assert bright > batch["pixel_values"][0, 0][batch["labels"][0] == 2].max()


def test_variation_depends_on_seed_epoch_and_row_alone():
    data, processor = (
        read_data(masked_dataset(), arguments()),
        LumbarCLIPImageProcessor(size={"height": 32, "width": 32}),
    )
    images = [MaskedImages(data, "train", processor, seed, Variation(patch_size=24), False) for seed in (0, 0, 1)]
    first, again, other = (of.__getitems__([(1, 2), (1, 5)]) for of in images)
    assert torch.equal(first["pixel_values"], again["pixel_values"]) and torch.equal(first["labels"], again["labels"])
    assert not torch.equal(first["pixel_values"], other["pixel_values"])
    assert first["labels"].shape == (2, 24, 24)
    alone = images[1].__getitems__([(1, 5)])
    torch.testing.assert_close(alone["pixel_values"][0], first["pixel_values"][1], rtol=0, atol=1e-4)
    assert torch.equal(alone["labels"][0], first["labels"][1])


def test_a_row_says_which_classes_its_mask_marks():
    data = read_data(masked_dataset(BOTH, change_first("train", mask_classes=["disc", "canal"])), arguments())
    assert data.annotated["train"][0].tolist() == [True, True, True, False]
    assert data.annotated["train"][1].tolist() == [True] * 4  # null: all


def test_datasets_are_joined_by_the_names_of_their_classes(tmp_path):
    """The other one has the same classes under other values, another name, and one class more."""
    other_names = ("background", "sacrum", "spinal canal", "disc")
    other = masked_dataset(other_names, source="other", values=(3, 2))
    write_dataset(tmp_path / "other", other)
    args = arguments(more_datasets=[str(tmp_path / "other")])
    with pytest.raises(
        ValueError, match=r"has the class 'sacrum', which drawn does not have .*background, disc, canal"
    ):
        with_more_datasets(masked_dataset(), args)
    args.rename_classes = {"sacrum": None}
    with pytest.raises(ValueError, match=r"'spinal canal'.*--rename_classes '\{\"spinal canal\": \"canal\"\}'"):
        with_more_datasets(masked_dataset(), args)
    args.rename_classes = {"sacrum": None, "spinal canal": "canal"}
    joined = with_more_datasets(masked_dataset(), args)
    assert [len(joined[split]) for split in ("train", "validation", "test")] == [36, 6, 6]
    data = read_data(joined, args)
    assert data.class_names == NAMES
    assert np.array_equal(data.mask("train", 18 + 4), mask_of(1, 1))  # 3 and 2 there are 1 and 2 here
    args.rename_classes = {"sacrum": "sacrum", "spinal canal": "canal"}
    data = read_data(with_more_datasets(masked_dataset(), args), args)
    assert data.class_names == (*NAMES, "sacrum")
    assert not data.annotated["train"][:18, 3].any() and data.annotated["train"][18:].all()


def test_classes_are_joined_ignored_or_made_background():
    def renamed(**names):
        return read_data(masked_dataset(), arguments(rename_classes=names))

    joined, ignored, removed = renamed(canal="disc"), renamed(canal=None), renamed(canal="background")
    stored = mask_of(0, 0)
    for data, value in ((joined, 1), (ignored, IGNORED), (removed, 0)):
        assert data.class_names == ("background", "disc")
        assert np.array_equal(data.mask("train", 0), np.where(stored == 2, value, stored))
    with pytest.raises(ValueError, match="renames 'canl'; .* Did you mean canal"):
        renamed(canl="disc")
    with pytest.raises(ValueError, match="leaves no class but the background"):
        renamed(canal=None, disc=None)
    with pytest.raises(ValueError, match="gives 'disc' the name 3"):
        renamed(disc=3)


def test_rows_without_a_mask_are_left_out_and_pseudo_masks_are_only_learned_from(caplog):
    caplog.set_level(logging.INFO)
    data = read_data(masked_dataset(change=change_first("train", mask=None, mask_origin=None)), arguments())
    assert len(data.rows["train"]) == 12 and "Rows of train left out: 6 without a mask" in caplog.text
    for split, kept in (("train", 18), ("test", 4)):
        data = read_data(masked_dataset(change=change_first(split, mask_origin="pseudo")), arguments())
        assert len(data.rows[split]) == kept
    assert "Rows of test left out: 2 with a pseudo-mask" in caplog.text
    all_pseudo = masked_dataset(change=lambda split, row: row | {"mask_origin": "pseudo"})
    with pytest.raises(ValueError, match=r"No row of validation can be measured \(6 with a pseudo-mask\)"):
        read_data(all_pseudo, arguments())
    without = masked_dataset(change=lambda split, row: row | {"mask": None, "mask_origin": None})
    with pytest.raises(ValueError, match=r"No row of train can be learned from \(18 without a mask\)"):
        read_data(without, arguments())
    with pytest.raises(ValueError, match="drawn has no masks: build it with masks"):
        read_data({split: rows.remove_columns("mask") for split, rows in without.items()}, arguments())


def with_mask(pixels):
    return {"mask": Image.fromarray(pixels)}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (with_mask(np.ones((28, 40), np.uint8)), r"row 0 of test \(drawn/08/0\) has 40 x 28 pixels, its image 28 x 40"),
        (with_mask(np.full((40, 28), 7, np.uint8)), "has the value 7; the classes are 0 background, 1 disc, 2 canal"),
        (with_mask(np.ones((40, 28, 3), np.uint8)), "has mode RGB; masks are 8-bit class indices"),
        ({"image": None}, r"row 0 of test \(drawn/08/0\) has a mask, but no image"),
        ({"mask_classes": ["disc"]}, "has pixels of 'canal', which its mask_classes does not list"),
    ],
)
def test_a_mask_that_does_not_fit(values, said):
    with pytest.raises(ValueError, match=said):
        read_data(masked_dataset(change=change_first("test", **values)), arguments())


def test_ignored_pixels_may_be_stored():
    pixels = mask_of(0, 0).copy()
    pixels[:3] = IGNORED
    data = read_data(masked_dataset(change=change_first("train", **with_mask(pixels))), arguments())
    assert (data.mask("train", 0)[:3] == IGNORED).all()


def test_names_of_an_older_build_and_of_none():
    older = {split: rows.remove_columns(["mask_classes", "mask_origin"]) for split, rows in masked_dataset().items()}
    with pytest.raises(ValueError, match="drawn: its masks have no names.*--mask_names background disc"):
        read_data(older, arguments())
    data = read_data(older, arguments(mask_names=["background", "disc", "spinal canal"]))
    assert data.class_names == ("background", "disc", "spinal canal") and data.annotated["train"].all()
    with pytest.raises(ValueError, match="value 0, is 'background'; found disc"):
        read_data(older, arguments(mask_names=["disc", "canal", "background"]))
    with pytest.raises(ValueError, match="background names no class"):
        read_data(older, arguments(mask_names=["background"]))
    with pytest.raises(ValueError, match="Two classes of drawn have one name"):
        read_data(older, arguments(mask_names=["background", "disc", "disc"]))


def test_a_class_that_a_fold_lacks_is_told(caplog):
    def without_canal(split, row):
        pixels = np.asarray(row["mask"]).copy()
        pixels[pixels == 2] = 0
        return row | with_mask(pixels) if split == lacking else row

    for lacking, said in (
        ("train", "cannot be learned"),
        ("validation", "do not count"),
        ("test", "cannot be measured"),
    ):
        caplog.clear()
        read_data(masked_dataset(change=without_canal), arguments())
        assert f"No mask of {lacking} shows canal: they {said} there" in caplog.text
    empty = masked_dataset(change=lambda split, row: row | with_mask(np.zeros((40, 28), np.uint8)))
    with pytest.raises(ValueError, match="No mask of train shows any of disc, canal"):
        read_data(empty, arguments())
