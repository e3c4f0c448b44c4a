"""The classes, rows, images and masks that a segmenter learns from.

Shapes: R rows of a split, B images of a batch, K classes, background first, S side of the image that the model sees,
P side of a patch, H and W sides of the stored image.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from io import BytesIO
from typing import Any

import numpy as np
import torch
from datasets import Dataset, DatasetDict, Image, List, Value, concatenate_datasets
from numpy.typing import NDArray
from PIL import Image as PILImage
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from tqdm.auto import tqdm

from data_scripts.lumbar_builder import read_mask_names
from modeling_lumbarclip import LumbarCLIPImageProcessor
from train.data.batch_sampler import EpochAndRow
from train.data.image_cache import decode_images, normalise
from train.data.loaders import have_pseudo_masks, open_dataset
from train.segmentation.arguments import FinetuneSegmentationArguments
from train.segmentation.variation import IGNORED, Variation

logger = logging.getLogger(__name__)

BACKGROUND = "background"
NAMES, MARKED = "mask_names", "mask_classes"  # columns: of the mask's values, and of the classes it marks
SPLITS = ("train", "validation", "test")
Mask = NDArray[np.uint8]


@dataclass(frozen=True)
class SegmentationData:
    """Classes and rows.

    Args:
        class_names: Names of the K classes, background first.
        rows: The rows with a mask, by split.
        annotated: Whether the mask of each row marks each class, by split. Shape (R, K), bool.
        class_of_value: The class of each value of a stored mask, or 255, for the rows of each naming. (N, 256).
        naming: Which of the N namings each row has, by split. Shape (R,).
    """

    class_names: tuple[str, ...]
    rows: dict[str, Dataset]
    annotated: dict[str, Tensor]
    class_of_value: Mask
    naming: dict[str, NDArray[np.int64]]

    def mask(self, split: str, row: int) -> Mask:
        """Return the mask of a row as it is stored, in indices of `class_names`; 255 is ignored. Shape (H, W)."""
        stored = np.asarray(self.rows[split][row]["mask"])
        return self.class_of_value[self.naming[split][row], stored]


def read_data(dataset: DatasetDict | Mapping[str, Dataset], args: FinetuneSegmentationArguments) -> SegmentationData:
    """Read the classes and the rows with masks of the splits `train`, `validation` and `test`, and check every mask.

    Masks that a program computed, `pseudo`, are learned from, but not measured against.

    Raises:
        ValueError: If a split has no mask, a mask does not fit its image or holds an unknown value, or classes have no
            or contradicting names.
    """
    named = {split: _with_names(dataset[split], args.dataset, args.mask_names) for split in SPLITS}
    rows = {split: _with_masks(of_split, split) for split, of_split in named.items()}
    namings = list(dict.fromkeys(tuple(names) for of_split in rows.values() for names in of_split[NAMES][:]))
    class_names = _class_names(namings, args.rename_classes)
    index = {name: k for k, name in enumerate(class_names)}
    table = np.full((len(namings), 256), IGNORED, dtype=np.uint8)
    for n, names in enumerate(namings):
        for value, name in enumerate(names):
            renamed = args.rename_classes.get(name, name)
            table[n, value] = IGNORED if renamed is None else index[renamed]
    naming, annotated = {}, {}
    for split, of_split in rows.items():
        naming[split] = np.array([namings.index(tuple(names)) for names in of_split[NAMES][:]])
        annotated[split] = torch.zeros(len(of_split), len(class_names), dtype=torch.bool)
        annotated[split][:, 0] = True
        for row, marked in enumerate(of_split[MARKED][:]):
            renamed = (args.rename_classes.get(name, name) for name in marked)
            annotated[split][row, [index[name] for name in renamed if name is not None]] = True
    data = SegmentationData(class_names, rows, annotated, table, naming)
    _check_masks(data, namings)
    return data


def with_more_datasets(dataset: DatasetDict, args: FinetuneSegmentationArguments) -> DatasetDict:
    """Add the training rows of `args.more_datasets`, with the names of their masks and without labels and grades.

    Raises:
        ValueError: If one has a class that the dataset does not have, and `rename_classes` does not say what it is.
    """
    if not args.more_datasets:
        return dataset
    named = DatasetDict({split: _with_names(rows, args.dataset, args.mask_names) for split, rows in dataset.items()})
    known = [name for names in _distinct(named["train"], NAMES) for name in names]
    added = []
    for name in args.more_datasets:
        rows = _with_names(open_dataset(name)["train"], name, ())
        for own in dict.fromkeys(own for names in _distinct(rows, NAMES) for own in names):
            if own not in known and own not in args.rename_classes:
                nearest = get_close_matches(own, known, n=1, cutoff=0.4)
                example = f'"{own}": "{nearest[0]}"' if nearest else f'"{own}": null'
                raise ValueError(
                    f"{name} has the class {own!r}, which {args.dataset} does not have (its classes: "
                    f"{', '.join(known)}). Say which one it is with --rename_classes '{{{example}}}'; "
                    f'null ignores its pixels, and "{own}": "{own}" makes it a class of its own.'
                )
        added.append(_with_columns_of(named["train"], rows))
    return DatasetDict({**named, "train": concatenate_datasets([named["train"], *added])})


def _with_columns_of(main: Dataset, rows: Dataset) -> Dataset:
    """Give rows the columns of another dataset; classes that may be other ones, of labels and grades, become null."""
    for name, feature in main.features.items():
        if name not in rows.column_names or (name in ("labels", "grade") and rows.features[name] != feature):
            rows = rows.remove_columns(name) if name in rows.column_names else rows
            rows = rows.add_column(name, [None] * len(rows), feature=feature)
    return rows.select_columns(main.column_names).cast(main.features)


def _distinct(rows: Dataset, column: str) -> list[tuple[str, ...]]:
    return list(dict.fromkeys(map(tuple, rows[column][:])))


def _with_names(rows: Dataset, name: str, given: Sequence[str]) -> Dataset:
    """Add the names of each mask's values, and of the classes it marks, as columns of strings."""
    if NAMES in rows.column_names:
        return rows
    if "mask" not in rows.column_names:
        raise ValueError(f"{name} has no masks: build it with masks, such as those of spider or lsma_pqr.")
    feature = rows.features.get(MARKED)
    of_column = getattr(getattr(feature, "feature", None), "names", ())
    names = tuple(given) or tuple(of_column) or read_mask_names(name)
    if len(names) < 2:
        said = f"{', '.join(names)} names no class" if names else "its masks have no names"
        raise ValueError(f"{name}: {said}. Name the classes in their order: --mask_names background disc ...")
    if len(set(names)) < len(names):
        raise ValueError(f"Two classes of {name} have one name: {', '.join(names)}. Use --rename_classes to join them.")
    marked = [list(names[1:])] * len(rows)
    if feature is not None:
        marked = [
            [names[k] for k in of_row] if of_row is not None else every
            for of_row, every in zip(rows[MARKED][:], marked, strict=True)
        ]
        rows = rows.remove_columns(MARKED)
    strings = List(Value("string"))
    rows = rows.add_column(NAMES, [list(names)] * len(rows), feature=strings)
    return rows.add_column(MARKED, marked, feature=strings)


def _with_masks(rows: Dataset, split: str) -> Dataset:
    """Select the rows with a mask: in validation and test, with one that may be measured against."""
    stored = rows.with_format(None).cast_column("mask", Image(decode=False)).select_columns("mask")
    has_mask = np.array([row["mask"] is not None for row in stored], dtype=bool)
    is_pseudo = have_pseudo_masks(rows) & (split != "train")
    kept = np.flatnonzero(has_mask & ~is_pseudo)
    left_out = Counter(
        {"without a mask": int((~has_mask).sum()), "with a pseudo-mask": int((has_mask & is_pseudo).sum())}
    )
    in_words = " and ".join(f"{number} {why}" for why, number in left_out.items() if number)
    if not len(kept):
        raise ValueError(
            f"No row of {split} can be {'learned from' if split == 'train' else 'measured'}"
            f"{f' ({in_words})' if in_words else ''}: build the dataset with masks, in all splits."
        )
    if in_words:
        logger.info("Rows of %s left out: %s.", split, in_words)
    return rows.select(kept)


def _class_names(namings: Sequence[tuple[str, ...]], rename_classes: Mapping[str, Any]) -> tuple[str, ...]:
    stored = list(dict.fromkeys(name for names in namings for name in names))
    for old, new in rename_classes.items():
        if old not in stored:
            nearest = get_close_matches(old, stored, n=1)
            hint = f" Did you mean {nearest[0]}?" if nearest else ""
            raise ValueError(f"rename_classes renames {old!r}; the classes are {', '.join(stored)}.{hint}")
        if new is not None and (not isinstance(new, str) or not new.strip()):
            raise ValueError(
                f"rename_classes gives {old!r} the name {new!r}: a name is text, and null ignores a class."
            )
    backgrounds = {names[0] for names in namings}
    if backgrounds != {BACKGROUND} or BACKGROUND in rename_classes:
        raise ValueError(
            f"The first class of masks, value 0, is {BACKGROUND!r}; found {', '.join(sorted(backgrounds))}. Name it "
            f"so: --mask_names {BACKGROUND} ..."
        )
    renamed = (rename_classes.get(name, name) for name in stored)
    names = tuple(dict.fromkeys(name for name in renamed if name is not None))
    if len(names) < 2:
        raise ValueError("rename_classes leaves no class but the background: there is nothing to segment.")
    return names


def _check_masks(data: SegmentationData, namings: Sequence[tuple[str, ...]]) -> None:
    """Raise ValueError for a mask that does not fit its image, its names or the classes it marks."""
    pixels = {split: np.zeros(len(data.class_names), dtype=np.int64) for split in SPLITS}
    for split, rows in data.rows.items():
        columns = rows.with_format(None).select_columns(["image", "mask", "source"])
        columns = columns.cast_column("image", Image(decode=False)).cast_column("mask", Image(decode=False))
        for index, row in enumerate(columns):
            where = f"row {index} of {split} ({row['source']})"
            if row["image"] is None:
                raise ValueError(f"{where} has a mask, but no image. Build the dataset again.")
            mask, size = _read_mask(row["mask"], where), _opened(row["image"], where).size
            if mask.shape != size[::-1]:
                raise ValueError(
                    f"The mask of {where} has {mask.shape[1]} x {mask.shape[0]} pixels, its image {size[0]} x "
                    f"{size[1]}. Build the dataset again from masks on the images' grid."
                )
            naming = data.naming[split][index]
            names, found = namings[naming], np.bincount(mask.ravel(), minlength=256)
            unknown = np.flatnonzero(found[len(names) : IGNORED]) + len(names)
            if len(unknown):
                raise ValueError(
                    f"The mask of {where} has the value {unknown[0]}; the classes are "
                    f"{', '.join(f'{value} {name}' for value, name in enumerate(names))}. Name all classes with "
                    "--mask_names, or build the dataset again."
                )
            counts = np.bincount(data.class_of_value[naming], weights=found, minlength=256).astype(np.int64)
            counts = counts[: len(data.class_names)]
            if (unmarked := np.flatnonzero((counts > 0) & ~data.annotated[split][index].numpy())).size:
                raise ValueError(
                    f"The mask of {where} has pixels of {data.class_names[unmarked[0]]!r}, which its {MARKED} does not "
                    "list. Build the dataset again."
                )
            pixels[split] += counts
    _check_learnable(data.class_names, pixels)


def _check_learnable(class_names: Sequence[str], pixels: Mapping[str, NDArray[np.int64]]) -> None:
    for split in ("train", "validation"):
        if not pixels[split][1:].any():
            raise ValueError(
                f"No mask of {split} shows any of {', '.join(class_names[1:])}: rebuild with more patients."
            )
    for split, lost in (("train", "cannot be learned"), ("validation", "do not count"), ("test", "cannot be measured")):
        if absent := [name for name, number in zip(class_names, pixels[split], strict=True) if not number]:
            logger.warning("No mask of %s shows %s: they %s there.", split, ", ".join(absent), lost)


def _opened(stored: Mapping[str, Any], where: str) -> PILImage.Image:
    try:
        return PILImage.open(stored["path"] if stored["bytes"] is None else BytesIO(stored["bytes"]))
    except Exception as error:  # decoders raise anything
        raise ValueError(f"A picture of {where} cannot be read: {error}. Build or copy the dataset again.") from error


def _read_mask(stored: Mapping[str, Any], where: str) -> Mask:
    picture = _opened(stored, where)
    if picture.mode not in ("L", "P"):
        raise ValueError(f"The mask of {where} has mode {picture.mode}; masks are 8-bit class indices.")
    return np.asarray(picture)


class MaskedImages(TorchDataset):
    """The images and masks of a split, in memory, indexed by (epoch, row); these and the seed decide the variation."""

    def __init__(
        self,
        data: SegmentationData,
        split: str,
        image_processor: LumbarCLIPImageProcessor,
        seed: int,
        variation: Variation | None = None,
        show_progress: bool = True,
    ) -> None:
        rows = data.rows[split]
        self.images = decode_images(rows, image_processor, show_progress)
        self.masks = torch.empty(self.images.shape, dtype=torch.uint8)
        for row in tqdm(range(len(rows)), desc="decoding masks", unit=" masks", disable=not show_progress):
            self.masks[row] = image_processor.process_masks([data.mask(split, row)])[0].to(torch.uint8)
        self.annotated, self.image_processor = data.annotated[split], image_processor
        self.seed, self.variation = seed, variation
        self.sources: list[str] = rows["source"][:]

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, rows: list[EpochAndRow]) -> dict[str, Tensor]:
        """Make a batch.

        Returns:
            `pixel_values` (B, 3, P, P), `labels` (B, P, P), int64, 255 ignored, `annotated` (B, K), `rows` (B,).
        """
        index = torch.tensor([row for _, row in rows])
        images, masks = self.images[index].float(), self.masks[index]
        if self.variation is not None:
            generators = [np.random.default_rng([self.seed, epoch, row]) for epoch, row in rows]
            images, masks = self.variation(images, masks, generators)
        return {
            "pixel_values": normalise(images[:, None], self.image_processor),
            "labels": masks.long(),
            "annotated": self.annotated[index],
            "rows": index,
        }
