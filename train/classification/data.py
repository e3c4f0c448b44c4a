"""The classes, rows and images that a classifier learns from.

Shapes: R rows of a split, B images of a batch, K classes, S side of the image.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from modeling_lumbarclip import LumbarCLIPImageProcessor
from train.data.batch_sampler import EpochAndRow
from train.data.image_augmentation import vary_images
from train.data.image_cache import decode_images, normalise
from train.evaluation.protocols.probe_inputs import unlearnable_findings
from train.evaluation.targets import Targets, read_targets

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClassificationData:
    """Classes and rows.

    Args:
        targets: The truth by split; grades are exclusive classes, in order.
        rows: The rows with a class, by split, in the order of the targets.
        is_grade: Whether the classes are grades.
    """

    targets: dict[str, Targets]
    rows: dict[str, Dataset]
    is_grade: bool

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the K classes."""
        return self.targets["train"].label_names

    @property
    def exclusive(self) -> bool:
        """Whether each row has exactly one class."""
        return self.targets["train"].exclusive

    @property
    def problem_type(self) -> str:
        """The type in transformers' terms."""
        return "single_label_classification" if self.exclusive else "multi_label_classification"

    def multi_hot(self, split: str) -> Tensor:
        """Return the classes of the rows of a split. Shape (R, K), float32."""
        return torch.from_numpy(self.targets[split].labels).float()

    def answerable(self, split: str) -> Tensor:
        """Mark the rows of a split whose classes all have training rows. Shape (R,), bool."""
        unlearned = ~self.targets["train"].labels.any(0)
        return torch.from_numpy(~self.targets[split].labels[:, unlearned].any(1))


def read_data(dataset: DatasetDict | Mapping[str, Dataset], target: str) -> ClassificationData:
    """Read what a classifier should learn from the splits `train`, `validation` and `test`.

    Args:
        dataset: The splits.
        target: `labels`: the labelled rows; exclusive classes if each has one label, else findings, without those that
            no or every training row has. `grade`: the rows with a grade. An exclusive class without a training row
            stays: its test rows count as errors.

    Raises:
        ValueError: If there is nothing to learn, or a split has no row for it.
    """
    targets = read_targets(dataset)
    if target == "grade":
        data = _grades(dataset, targets)
    else:
        labelled = {split: np.flatnonzero(of_split.is_labelled) for split, of_split in targets.items()}
        if without := [split for split, rows in labelled.items() if not len(rows)]:
            raise ValueError(
                f"--target labels: no row of {', '.join(without)} has a label. Build with --labels_from_reports to "
                "read labels from the reports, or use --target grade if the rows have grades."
            )
        targets = {split: targets[split].select(rows, split) for split, rows in labelled.items()}
        targets = targets if targets["train"].exclusive else _learnable(targets)
        rows_of_split = {split: dataset[split].select(rows) for split, rows in labelled.items()}
        data = ClassificationData(targets, rows_of_split, is_grade=False)
    if data.exclusive:
        if len(np.unique(data.targets["train"].classes)) < 2:
            kind = "grade" if data.is_grade else "class"
            raise ValueError(f"All training rows have the same {kind}: there is nothing to tell apart.")
        _warn_of_unlearned(data)
    return data


def _grades(dataset: DatasetDict | Mapping[str, Dataset], targets: Mapping[str, Targets]) -> ClassificationData:
    names = targets["train"].grade_names
    graded = {split: np.flatnonzero(of_split.grades >= 0) for split, of_split in targets.items()}
    if without := [split for split, rows in graded.items() if not len(rows)]:
        raise ValueError(f"--target grade: no row of {', '.join(without)} has a grade. Use --target labels.")
    as_classes = {}
    for split, rows in graded.items():
        selected = targets[split].select(rows, split)
        labels = np.eye(len(names), dtype=bool)[selected.grades]
        as_classes[split] = replace(selected, label_names=names, labels=labels, exclusive=True)
    rows_of_split = {split: dataset[split].select(rows) for split, rows in graded.items()}
    return ClassificationData(as_classes, rows_of_split, is_grade=True)


def _learnable(targets: Mapping[str, Targets]) -> dict[str, Targets]:
    names = targets["train"].label_names
    unlearnable = unlearnable_findings(targets["train"].labels, names)
    kept = [k for k in range(len(names)) if k not in unlearnable]
    if not kept:
        raise ValueError(f"No finding can be learned: {'; '.join(unlearnable.values())}.")
    for reason in unlearnable.values():
        logger.warning("Left out: %s.", reason)
    return {
        split: replace(of_split, label_names=tuple(names[k] for k in kept), labels=of_split.labels[:, kept])
        for split, of_split in targets.items()
    }


def _warn_of_unlearned(data: ClassificationData) -> None:
    rows = {split: of_split.labels.sum(0) for split, of_split in data.targets.items()}
    unlearned = [
        f"`{name}` ({rows['validation'][k]} validation rows, {rows['test'][k]} test rows)"
        for k, name in enumerate(data.class_names)
        if not rows["train"][k]
    ]
    if not data.answerable("validation").any():
        raise ValueError(
            f"No validation row has a class that a training row has. Classes without a training row: "
            f"{', '.join(unlearned)}. Rebuild the dataset with more patients or another --seed."
        )
    if unlearned:
        logger.warning(
            "Classes without a training row cannot be learned: %s. The validation loss ignores their rows; the metrics "
            "of the test split count them as errors.",
            ", ".join(unlearned),
        )


class LabelledImages(TorchDataset):
    """The images of a split, in memory, indexed by (epoch, row); these and the seed decide the augmentation."""

    def __init__(
        self,
        rows: Dataset,
        labels: Tensor,
        image_processor: LumbarCLIPImageProcessor,
        seed: int,
        augment: bool,
        show_progress: bool,
    ) -> None:
        self.images = decode_images(rows, image_processor, show_progress)
        self.labels, self.image_processor, self.seed, self.augment = labels, image_processor, seed, augment
        self.sources: list[str] = rows["source"][:]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, rows: list[EpochAndRow]) -> dict[str, Tensor]:
        """Make a batch: `pixel_values` (B, 3, S, S), `labels` (B, K), `rows` (B,)."""
        index = torch.tensor([row for _, row in rows])
        images = self.images[index].float()
        if self.augment:
            images = vary_images(images, [np.random.default_rng([self.seed, epoch, row]) for epoch, row in rows])
        pixel_values = normalise(images[:, None], self.image_processor)
        return {"pixel_values": pixel_values, "labels": self.labels[index], "rows": index}
