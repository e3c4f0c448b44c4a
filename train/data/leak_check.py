"""Refuse to learn from a dataset whose splits share patients or images, or say so beside every figure."""

from collections.abc import Mapping
from typing import Any

from datasets import Dataset

from data_scripts.auditing.leaks import leaks_of


def check_leaks(dataset: Mapping[str, Dataset], allow_leaks: bool, show_progress: bool = True) -> None:
    """Raise if a patient, a study, an image or a nearly equal image is in two splits, unless that is wanted.

    Args:
        dataset: Splits, or folds.
        allow_leaks: Whether it is wanted, as to compare with a paper that split by record.
        show_progress: Whether to draw a progress bar.

    Raises:
        ValueError: If the splits share something.
    """
    if allow_leaks:
        return
    leaks = leaks_of(dataset, show_progress)
    if leaks.found:
        examples = "; ".join(leak.examples[0] for leak in leaks.leaks)
        raise ValueError(
            f"The dataset leaks: {leaks.in_words()} For example: {examples}. Scores would be too good. Build it with "
            "--split_by patient; images shared nevertheless: give their rows one patient_id, or leave out the copies "
            "(`python -m data_scripts.audit` lists what is shared). Or give --allow_leaks; the figures are then marked."
        )


def leak_stamp(dataset: Mapping[str, Dataset]) -> dict[str, Any] | None:
    """What `metrics.json` says of leaks: the shared things by kind, and a sentence; None without any."""
    leaks = leaks_of(dataset)
    return {"in_words": leaks.in_words(), **leaks.as_dict()} if leaks.found else None
