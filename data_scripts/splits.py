"""Assign patients to splits and folds.

The outcome depends on ids, labels and seed only, not on the order of rows or on how many rows a patient has.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

from data_scripts.records import SPLITS

DEFAULT_FRACTIONS = (0.7, 0.15, 0.15)


def split_by_patient(
    patient_ids: Sequence[str],
    labels: Sequence[Collection[str]],
    *,
    fractions: Sequence[float] = DEFAULT_FRACTIONS,
    seed: int = 0,
    unit: str = "patient",
) -> list[str]:
    """Assign rows to train, validation and test so that no patient is in two, stratified by the patients' labels.

    Given row ids instead of patient ids, each row is assigned on its own, as in the LumbarCLIP paper: images of one
    patient are then in several splits, and a model that remembers patients gets inflated test scores.

    A patient has every class of its rows. `fractions` are shares of the patients; 0 leaves a split out. `unit` names
    what the ids identify, for messages.

    Raises:
        ValueError: If the fractions do not sum to 1, or there are fewer patients than splits.

    Example:
        >>> split_by_patient(["a", "a", "b", "c"], [{"LBP"}, {"LBP"}, {"LBP"}, {"LBP"}], fractions=(0.5, 0.25, 0.25))
        ['train', 'train', 'validation', 'test']
    """
    if len(fractions) != len(SPLITS) or min(fractions) < 0 or not abs(sum(fractions) - 1) < 1e-6:
        raise ValueError(f"split fractions must be {len(SPLITS)} shares that sum to 1, got {list(fractions)}")
    groups = _union_by_id(patient_ids, labels)
    num_wanted = sum(fraction > 0 for fraction in fractions)
    if len(groups) < num_wanted:
        raise ValueError(
            f"{len(groups)} {unit}s cannot fill {num_wanted} splits: one would be empty. "
            f"Bring at least {num_wanted} {unit}s, or set the share of a split to 0."
        )
    split_of = _stratified_assignment(groups, _quotas(len(groups), fractions), seed)
    return [SPLITS[split_of[patient_id]] for patient_id in patient_ids]


def patient_folds(
    patient_ids: Sequence[str], labels: Sequence[Collection[str]], num_folds: int, seed: int = 0
) -> list[int]:
    """Assign rows to the folds of a cross-validation, by patient and stratified as in `split_by_patient`.

    Returns:
        Fold of each row, 0 to `num_folds` - 1. Folds differ by one patient at most.

    Raises:
        ValueError: If there are fewer patients than folds, or fewer than two folds.

    Example:
        >>> patient_folds(["a", "b", "c", "c"], [{"x"}, {"x"}, {"y"}, {"y"}], num_folds=3)
        [0, 1, 2, 2]
    """
    if num_folds < 2:
        raise ValueError(f"num_folds must be at least 2, got {num_folds}")
    groups = _union_by_id(patient_ids, labels)
    if len(groups) < num_folds:
        raise ValueError(f"{len(groups)} patients cannot fill {num_folds} folds; lower num_folds")
    quotas = _quotas(len(groups), [1 / num_folds] * num_folds)
    fold_of = _stratified_assignment(groups, quotas, seed)
    return [fold_of[patient_id] for patient_id in patient_ids]


def check_given_splits(patient_ids: Sequence[str], splits: Sequence[str]) -> None:
    """Check that prescribed splits put no patient in two of them.

    Raises:
        ValueError: Naming up to ten such patients and their splits.
    """
    splits_of = _union_by_id(patient_ids, [{split} for split in splits])
    shared = sorted(patient_id for patient_id, names in splits_of.items() if len(names) > 1)
    if shared:
        listed = "; ".join(f"patient {name!r} in {' and '.join(sorted(splits_of[name]))}" for name in shared[:10])
        raise ValueError(
            f"{len(shared)} patients are in more than one given split: {listed}. "
            "Give all rows of a patient one split, or leave the split column out."
        )


def num_shared_patients(patient_ids: Sequence[str], splits: Sequence[str]) -> int:
    """Count the patients whose rows lie in more than one split.

    Example:
        >>> num_shared_patients(["a", "a", "b"], ["train", "test", "test"])
        1
    """
    return sum(len(names) > 1 for names in _union_by_id(patient_ids, [{split} for split in splits]).values())


def _union_by_id(ids: Sequence[str], members: Sequence[Collection[str]]) -> dict[str, set[str]]:
    union_of: dict[str, set[str]] = defaultdict(set)
    for one_id, of_row in zip(ids, members, strict=True):
        union_of[one_id].update(of_row)
    return union_of


def _quotas(total: int, fractions: Sequence[float]) -> list[int]:
    """Round the fractions of `total` to whole numbers (largest remainders); only a fraction of 0 gives 0."""
    quotas = [max(int(total * fraction + 1e-9), int(fraction > 0)) for fraction in fractions]
    while sum(quotas) != total:
        step = 1 if sum(quotas) < total else -1
        deficits = [total * fraction - quota for fraction, quota in zip(fractions, quotas, strict=True)]
        movable = [index for index, quota in enumerate(quotas) if fractions[index] > 0 and quota + step >= 1]
        quotas[max(movable, key=lambda index: step * deficits[index])] += step
    return quotas


def _stratified_assignment(groups: Mapping[str, set[str]], quotas: Sequence[int], seed: int) -> dict[str, int]:
    """Distribute the groups over bins of given sizes, each label in proportion to the sizes.

    Iterative stratification: the label with the fewest groups left goes first, since it leaves the least choice, and
    each of its groups goes to the bin that lacks the label most. A full bin is closed: sizes are exact.

    Source:
        Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data", ECML PKDD 2011.
        Deviation: exact sizes, and a seeded order of the groups instead of random ties.
    """
    total = sum(quotas)
    totals = Counter(label for labels in groups.values() for label in labels)
    lacking = [{label: count * quota / total for label, count in totals.items()} for quota in quotas]
    room = list(quotas)
    left = sorted(groups, key=lambda group: hashlib.sha256(f"{seed}/{group}".encode()).digest())
    assignment: dict[str, int] = {}
    while left:
        counts = Counter(label for group in left for label in groups[group])
        rarest = min(counts, key=lambda label: (counts[label], label)) if counts else None
        for group in [group for group in left if rarest is None or rarest in groups[group]]:
            # A later bin wins a tie: a rare finding is worth more in test than in validation.
            chosen = max(
                (index for index in range(len(quotas)) if room[index]),
                key=lambda index: (lacking[index][rarest] if rarest else 0.0, room[index], index),
            )
            assignment[group] = chosen
            room[chosen] -= 1
            for label in groups[group]:
                lacking[chosen][label] -= 1
        left = [group for group in left if group not in assignment]
    return assignment
