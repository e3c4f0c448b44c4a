"""The pairs that a pretraining run learns from."""

from collections.abc import Mapping
from typing import Any

from datasets import Dataset
from torch import Tensor

from modeling_lumbarclip import LumbarCLIPProcessor
from train.data.loaders import PairedRows
from train.objectives import OBJECTIVES
from train.pretraining.arguments import PretrainArguments


def build_rows(
    args: PretrainArguments, dataset: Mapping[str, Dataset], processor: LumbarCLIPProcessor, show_progress: bool
) -> tuple[PairedRows, PairedRows]:
    """Make the pairs of the splits `train`, which the run varies, and `validation`, which it does not.

    The training split decides whether pairs have classes, so that the validation loss is that of the same objective.
    """
    objective_class = OBJECTIVES[args.objective]
    target_columns, count_absences = objective_class.label_settings(list[str](args.target_columns), args.count_absences)
    options: dict[str, Any] = {"count_absences": count_absences, "seed": args.seed, "show_progress": show_progress}
    uses_augmented_texts = "augmented_texts" in objective_class.inputs and args.alpha < 1
    train_rows = PairedRows(
        dataset["train"],
        processor,
        target_columns,
        **options,
        augment=args.augment,
        text_unit=args.text_unit,
        text_augmentation=args.text_augmentation if uses_augmented_texts else "none",
    )
    validation_rows = PairedRows(
        dataset["validation"],
        processor,
        [] if train_rows.labels is None else target_columns,
        **options,
        classes_even_if_none=True,
        text_augmentation="none",
    )
    return train_rows, validation_rows


def check_labels_differ(labels: Tensor | None) -> None:
    """Check that pairs differ in their classes: the soft targets of every batch would be flat otherwise.

    Raises:
        ValueError: If all pairs have the same classes.
    """
    if labels is not None and len(labels.unique(dim=0)) == 1:
        raise ValueError(
            f"All {len(labels)} training pairs have the same classes, so every report would match every image and "
            "there is nothing to learn. For plain contrast of pairs, set --target_columns none (with --objective "
            "lumbarclip) or --objective clip; or label the data."
        )
