from collections import Counter, defaultdict

import numpy as np
import pytest

from data_scripts.records import SPLITS
from data_scripts.splits import (
    check_given_splits,
    num_shared_patients,
    patient_folds,
    split_by_patient,
)

LABELS = ("bulge", "herniation", "stenosis", "No Finding")


def random_rows(seed, num_patients):
    """Patients of 1 to 8 rows; labels of differing frequency."""
    generator = np.random.default_rng(seed)
    patient_ids, labels = [], []
    for patient in range(num_patients):
        for _ in range(generator.integers(1, 9)):
            patient_ids.append(f"p{patient}")
            labels.append(
                {label for label, p in zip(LABELS, (0.5, 0.1, 0.3, 0.2), strict=True) if generator.random() < p}
            )
    return patient_ids, labels


@pytest.mark.parametrize("seed", range(30))
def test_no_patient_is_shared_and_sizes_are_exact(seed):
    num_patients = int(np.random.default_rng(seed).integers(3, 120))
    patient_ids, labels = random_rows(seed, num_patients)
    splits = split_by_patient(patient_ids, labels, seed=seed)
    assert num_shared_patients(patient_ids, splits) == 0
    sizes = Counter(dict(zip(patient_ids, splits, strict=True)).values())
    for split, fraction in zip(SPLITS, (0.7, 0.15, 0.15), strict=True):
        assert sizes[split] >= 1
        assert abs(sizes[split] - fraction * num_patients) < 1.5


@pytest.mark.parametrize("seed", range(10))
def test_row_order_and_row_counts_do_not_matter(seed):
    patient_ids, labels = random_rows(seed, 40)
    expected = dict(zip(patient_ids, split_by_patient(patient_ids, labels, seed=seed), strict=True))
    order = np.random.default_rng(seed).permutation(len(patient_ids))
    order = np.concatenate([order, order[:20]])  # some rows twice
    shuffled_ids, shuffled_labels = [patient_ids[i] for i in order], [labels[i] for i in order]
    assert dict(zip(shuffled_ids, split_by_patient(shuffled_ids, shuffled_labels, seed=seed), strict=True)) == expected


def test_seeds_differ():
    patient_ids, labels = random_rows(0, 40)
    assert split_by_patient(patient_ids, labels, seed=0) != split_by_patient(patient_ids, labels, seed=1)


def test_labels_are_spread_more_evenly_than_by_chance():
    def unevenness(patient_ids, labels, splits):
        split_of, labels_of = dict(zip(patient_ids, splits, strict=True)), defaultdict(set)
        for patient_id, row_labels in zip(patient_ids, labels, strict=True):
            labels_of[patient_id] |= row_labels
        total = 0.0
        for label in LABELS:
            holders = [patient_id for patient_id in labels_of if label in labels_of[patient_id]]
            counts = Counter(split_of[patient_id] for patient_id in holders)
            total += sum(abs(counts[s] - f * len(holders)) for s, f in zip(SPLITS, (0.7, 0.15, 0.15), strict=True))
        return total

    stratified, by_chance = [], []
    for seed in range(10):
        patient_ids, labels = random_rows(seed, 60)
        stratified.append(unevenness(patient_ids, labels, split_by_patient(patient_ids, labels, seed=seed)))
        unlabelled = split_by_patient(patient_ids, [set()] * len(labels), seed=seed)
        by_chance.append(unevenness(patient_ids, labels, unlabelled))
    assert np.mean(stratified) < 0.6 * np.mean(by_chance)


def test_a_class_of_each_patient_its_own_does_not_fill_one_split():
    patient_ids = [f"p{number}" for number in range(20)]
    splits = split_by_patient(patient_ids, [{patient_id} for patient_id in patient_ids])
    assert Counter(splits) == {"train": 14, "validation": 3, "test": 3}


def test_too_few_patients_is_an_error_that_says_so():
    with pytest.raises(ValueError, match="2 patients cannot fill 3 splits: one would be empty"):
        split_by_patient(["a", "a", "b"], [set()] * 3)


def test_a_share_of_zero_leaves_a_split_out():
    assert set(split_by_patient(["a", "b"], [set()] * 2, fractions=(0, 0, 1))) == {"test"}
    assert set(split_by_patient(["a", "b", "c"], [set()] * 3, fractions=(0.8, 0, 0.2))) == {"train", "test"}


@pytest.mark.parametrize("fractions", [(0.7, 0.2), (0.7, 0.2, 0.2), (1.2, -0.1, -0.1), (0.5, 0.5, float("nan"))])
def test_fractions_must_be_shares(fractions):
    with pytest.raises(ValueError, match="shares that sum to 1"):
        split_by_patient(["a", "b", "c"], [set()] * 3, fractions=fractions)


def test_by_record_shares_patients_and_counts_them():
    patient_ids, labels = random_rows(3, 40)
    splits = split_by_patient([f"r{row}" for row in range(len(patient_ids))], labels)
    assert abs(splits.count("train") - 0.7 * len(splits)) < 1.5
    seen = defaultdict(set)
    for patient_id, split in zip(patient_ids, splits, strict=True):
        seen[patient_id].add(split)
    assert num_shared_patients(patient_ids, splits) == sum(len(found) > 1 for found in seen.values()) > 10


@pytest.mark.parametrize("num_folds", [2, 5, 7])
def test_folds_partition_the_patients_evenly(num_folds):
    patient_ids, labels = random_rows(num_folds, 47)
    folds = patient_folds(patient_ids, labels, num_folds, seed=1)
    assert num_shared_patients(patient_ids, list(map(str, folds))) == 0
    sizes = Counter(dict(zip(patient_ids, folds, strict=True)).values())
    assert set(sizes) == set(range(num_folds)) and max(sizes.values()) - min(sizes.values()) <= 1


def test_fold_errors():
    with pytest.raises(ValueError, match="2 patients cannot fill 3 folds"):
        patient_folds(["a", "b"], [set()] * 2, 3)
    with pytest.raises(ValueError, match="at least 2"):
        patient_folds(["a", "b"], [set()] * 2, 1)


def test_a_patient_in_two_given_splits_is_named():
    check_given_splits(["a", "a", "b"], ["train", "train", "test"])
    with pytest.raises(ValueError, match="patient 'a' in test and train"):
        check_given_splits(["a", "a", "b"], ["train", "test", "test"])
