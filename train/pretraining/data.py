"""The pairs that a pretraining run learns from, and how many updates they make."""

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
    """Make the pairs of the splits `train`, as the run varies them, and `validation`, as they are.

    Whether pairs have classes is decided by the training split, so that the validation loss is that of the same
    objective.
    """
    objective_class = OBJECTIVES[args.objective]
    target_columns, count_absences = objective_class.label_settings(args.target_columns, args.count_absences)
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


def count_updates(args: PretrainArguments, steps_of_epoch: int) -> int:
    """Count the optimizer updates of a run.

    Raises:
        ValueError: If there is not one.
    """
    num_updates = args.epochs * steps_of_epoch // args.gradient_accumulation_steps
    if num_updates < 1:
        raise ValueError(
            f"{args.epochs} epochs of {steps_of_epoch} steps do not fill one update of "
            f"{args.gradient_accumulation_steps} steps: lower --gradient_accumulation_steps or raise --epochs."
        )
    return min(num_updates, args.max_updates or num_updates)


def check_labels_differ(labels: Tensor | None) -> None:
    """Raise if the soft targets would be flat for every batch there can be."""
    if labels is not None and len(labels.unique(dim=0)) == 1:
        raise ValueError(
            f"All {len(labels)} training pairs have the same classes, so every report would be a right answer for "
            "every image and there is nothing to learn. Give --target_columns none (of --objective lumbarclip) or "
            "--objective clip for plain contrast of pairs, or label the data."
        )
