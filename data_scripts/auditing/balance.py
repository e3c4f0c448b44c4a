"""Compare the frequencies of classes between the splits of a dataset."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import datasets

# Rubin, "Using propensity scores to help design observational studies", Health Serv Outcomes Res Methodol 2:169, 2001.
LARGE_DIFFERENCE = 0.25

_COLUMNS = ("labels", "grade", "sequence")


def class_shares(dataset: Mapping[str, datasets.Dataset]) -> list[dict[str, Any]]:
    """Compute the share of the rows of each split that hold a class, and its difference from the first split.

    Returns:
        One entry for each class that occurs: `column`, `name`, `shares` and `differences` by split. Rows without a
        grade do not count for the shares of grades.
    """
    first = next(iter(dataset))
    entries = []
    for column in _COLUMNS:
        feature = dataset[first].features[column]
        names = getattr(feature, "feature", feature).names
        shares_of_split = {split: _shares(rows[column], len(names)) for split, rows in dataset.items()}
        for index, name in enumerate(names):
            shares = {split: of_split[index] for split, of_split in shares_of_split.items()}
            if any(shares.values()):
                differences = {split: standardised_difference(share, shares[first]) for split, share in shares.items()}
                entries.append({"column": column, "name": name, "shares": shares, "differences": differences})
    return entries


def standardised_difference(share: float, reference: float) -> float | None:
    """Divide the difference of two shares by their pooled standard deviation.

    Returns:
        None for the shares 0 and 1, which have no spread: one split lacks the class, the other has it in all rows.

    Source:
        Austin, "An introduction to propensity score methods", Multivariate Behav Res 46:399, 2011.

    Example:
        >>> round(standardised_difference(0.6, 0.5), 3)
        0.202
    """
    spread = math.sqrt((share * (1 - share) + reference * (1 - reference)) / 2)
    if spread == 0:
        return 0.0 if share == reference else None
    return (share - reference) / spread


def _shares(values: list[Any], num_classes: int) -> list[float]:
    """Compute the share of each class among the rows with a value: an empty list counts, null does not."""
    known = [value if isinstance(value, list) else [value] for value in values if value is not None]
    counts = Counter(index for row in known for index in set(row))
    return [counts[index] / len(known) if known else 0.0 for index in range(num_classes)]
