r"""Nearest-neighbour probe: which labels the most similar images carry.

Nothing is fitted to the labels, so it tells whether a neighbourhood in the embedding space means the same findings,
where a linear probe tells whether some direction does. Similarity is the cosine; a neighbour at similarity $s$ votes
with the weight $\exp(s / 0.07)$, for every label it carries. The number of neighbours is the one with the least
squared error on the validation patients, with the training rows for neighbours; then training and validation rows are
the neighbours of the test rows.

Source:
    Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, 2018, section 3.4, for the
    vote; the number of neighbours is fixed there at 200, more than some of our classes have rows.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.neighbors import NearestNeighbors

from train.evaluation.protocols.probe_inputs import check_features, unlearnable_findings
from train.evaluation.statistics.metrics import Array, Floats
from train.evaluation.targets import Targets

NUM_NEIGHBOURS = (5, 10, 20, 50)
VOTE_TEMPERATURE = 0.07


def nearest_neighbour_probe(features: Mapping[str, Array], targets: Mapping[str, Targets]) -> Array:
    """Predict the test rows from their neighbours in features, by split of shape (N, D).

    Returns:
        Probabilities of the test rows. A finding that all known rows carry, or none of them, is NaN; an exclusive class
        that no neighbour carries has probability 0. Shape (N, K).

    Raises:
        ValueError: If the rows of features and targets differ, or a feature is not finite.
    """
    check_features(features, targets)
    train, validation = targets["train"], targets["validation"]
    candidates = [number for number in NUM_NEIGHBOURS if number <= len(train)] or [len(train)]
    votes = neighbour_votes(features["train"], train.labels, features["validation"], candidates)
    errors = [((votes[number] - validation.labels) ** 2).mean() for number in candidates]
    chosen = candidates[int(np.argmin(errors))]

    known = np.concatenate([features["train"], features["validation"]])
    labels = np.concatenate([train.labels, validation.labels])
    probabilities = neighbour_votes(known, labels, features["test"], [chosen])[chosen]
    if not targets["test"].exclusive:
        probabilities[:, list(unlearnable_findings(labels, train.label_names))] = np.nan
    return probabilities


def neighbour_votes(known: Array, labels: Array, queries: Array, numbers: Sequence[int]) -> dict[int, Floats]:
    """Compute the share of each label in the votes of the nearest rows.

    Args:
        known: Features of the rows that vote. Shape (N, D).
        labels: Whether they carry each label. Shape (N, K).
        queries: Features of the rows to predict. Shape (Q, D).
        numbers: Numbers of neighbours, all from one search.

    Returns:
        By number of neighbours, shape (Q, K), in [0, 1].

    Example:
        >>> known, labels = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), np.eye(3)
        >>> neighbour_votes(known, labels, np.array([[1.0, 1.0]]), [2])[2].tolist()
        [[0.5, 0.5, 0.0]]
    """
    search = NearestNeighbors(n_neighbors=max(numbers), metric="cosine").fit(known)
    distances, nearest = search.kneighbors(queries)  # (Q, neighbours), nearest first
    weights = np.exp((1 - distances) / VOTE_TEMPERATURE)
    voted = labels[nearest] * weights[:, :, None]  # (Q, neighbours, K)
    return {number: voted[:, :number].sum(1) / weights[:, :number].sum(1, keepdims=True) for number in numbers}
