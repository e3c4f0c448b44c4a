import numpy as np
import pytest

from train.evaluation.targets import Targets

SIZES = {"train": 120, "validation": 60, "test": 80}


@pytest.fixture
def make_targets():
    """Makes targets by split from label matrices (and grades), four rows a patient."""

    def make(labels, label_names, grades=None, grade_names=()):
        return {
            split: Targets(
                split=split,
                label_names=tuple(label_names),
                labels=matrix.astype(bool),
                exclusive=all((other.sum(1) == 1).all() for other in labels.values()),
                grade_names=tuple(grade_names),
                grades=np.full(len(matrix), -1) if grades is None else grades[split],
                patient_ids=np.array([f"{split}-{row // 4}" for row in range(len(matrix))]),
            )
            for split, matrix in labels.items()
        }

    return make


@pytest.fixture
def planted(make_targets):
    """Two findings and `No Finding`: the first is planted in the features, the second is not."""
    rng = np.random.default_rng(0)
    labels, features = {}, {}
    for split, size in SIZES.items():
        present = rng.random((size, 2)) < 0.4
        labels[split] = np.c_[present, ~present.any(1)]
        features[split] = rng.normal(size=(size, 12))
        features[split][:, 3] += 3 * present[:, 0]
    return features, make_targets(labels, ["bulge", "stenosis", "No Finding"])
