"""Checks of the inputs of label probes: features that match their rows, and labels that can be learned."""

from collections.abc import Mapping

import numpy as np

from train.evaluation.statistics.metrics import Array
from train.evaluation.targets import Targets


def rows_to_learn_from(
    features: Mapping[str, Array], targets: Mapping[str, Targets]
) -> tuple[dict[str, Array], dict[str, Targets]]:
    """Leave out the rows of `train` and `validation` that were not labelled; features have shape (N, D)."""
    kept = {split: np.ones(len(of), bool) if split == "test" else of.is_labelled for split, of in targets.items()}
    if all(rows.all() for rows in kept.values()):
        return dict(features), dict(targets)
    return (
        {split: features[split][rows] for split, rows in kept.items()},
        {split: targets[split].select(rows, split) for split, rows in kept.items()},
    )


def check_features(features: Mapping[str, Array], targets: Mapping[str, Targets]) -> None:
    """Check the features of a probe, shape (N, D), split by split.

    Raises:
        ValueError: If the rows of features and targets differ, or a feature is not finite.
    """
    for split, split_targets in targets.items():
        num_rows, rows = len(split_targets), features[split]
        if len(rows) != num_rows:
            raise ValueError(f"The {split} split has {num_rows} rows but {len(rows)} feature rows; encode it again.")
        bad_rows = np.flatnonzero(~np.isfinite(rows).all(1))
        if len(bad_rows):
            raise ValueError(
                f"{len(bad_rows)} of {num_rows} feature rows of the {split} split are not finite, the first is row "
                f"{bad_rows[0]}; the checkpoint may have diverged: check its training curves."
            )


def unlearnable_findings(labels: Array, label_names: tuple[str, ...]) -> dict[int, str]:
    """Find the labels, shape (N, K), that all rows to learn from carry, or none of them.

    Returns:
        Columns, each with the reason.

    Example:
        >>> unlearnable_findings(np.array([[True, False], [False, False]]), ("bulge", "stenosis"))
        {1: '`stenosis` has 0 positive rows of 2 to learn from'}
    """
    positives = labels.sum(0)
    return {
        k: f"`{name}` has {positives[k]} positive rows of {len(labels)} to learn from"
        for k, name in enumerate(label_names)
        if positives[k] in (0, len(labels))
    }
