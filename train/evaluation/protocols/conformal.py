"""Prediction sets that hold the truth as often as promised, and the right to abstain.

Split conformal prediction: the score of a choice is 1 less its probability. A threshold is taken from the scores of the
true choices of validation rows, and a test row's set holds every choice whose score does not exceed it. A set of one
choice is an answer; with any other set, empty or of several, the model abstains.

One threshold for all classes promises coverage on average, at the minority's expense. A threshold for each class, from
its own rows, promises it class by class.

The promise needs exchangeability. Rows of one patient resemble each other and are not exchangeable; patients are. Each
patient therefore has a mass of 1, spread evenly over its rows, and the promise is coverage of a random row of a new
patient from the same clinic and scanner; not of all rows of that patient at once. It holds on average over validation
sets: the coverage that a single one gives varies, the more the fewer its patients.

Shapes: N rows, Q questions, C choices. Exclusive classes are one question with the classes for choices; findings are a
question each, with the choices absent and present.
"""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from train.evaluation.statistics import metrics
from train.evaluation.statistics.bootstrap import Estimate, Resampling, patient_bootstrap, undefined_estimate
from train.evaluation.statistics.metrics import Array, Floats
from train.evaluation.statistics.minima import ROUNDING

IN_EVERY_SET = 1.0  # no score is greater


def conformal_threshold(scores: Array, patient_ids: Array, target_coverage: float) -> float:
    """Find the score up to which a choice belongs to a set.

    The weighted quantile of the scores in which each of n patients has mass 1 / (n + 1), spread evenly over its rows,
    and the new patient, for whom the worst is assumed, has the rest. With one row per patient it is the usual
    ceil((n + 1) target) / n quantile.

    Args:
        scores: Scores of the true choices. Shape (N,), in [0, 1].
        patient_ids: Shape (N,).
        target_coverage: In (0, 1).

    Returns:
        The threshold; 1, at which every set holds the choice, for fewer patients than `minima.patients_for_sets`.

    Raises:
        ValueError: If the target is not between 0 and 1.

    Source:
        Angelopoulos & Bates, A Gentle Introduction to Conformal Prediction, 2021, section 1; the mass of a patient as
        in Lee, Barber & Willett, Distribution-free inference with hierarchical data, 2023, section 3.

    Relations:
        The same mass for each row promises nothing where rows of a patient resemble each other. Each patient's greatest
        score would promise to cover all rows of a new patient at once, with larger sets; the mean score promises
        nothing for a row.

    Example:
        >>> conformal_threshold(np.arange(1, 10) / 10, np.arange(9), 0.8)
        0.8
        >>> conformal_threshold(np.arange(1, 10) / 10, np.array([0, 0, 0, 0, 0, 0, 1, 2, 3]), 0.6)
        0.8
    """
    if not 0 < target_coverage < 1:
        raise ValueError(f"target_coverage must be between 0 and 1, such as 0.9; got {target_coverage}.")
    patients, patient_of_row, rows_of_patient = np.unique(patient_ids, return_inverse=True, return_counts=True)
    mass = 1 / ((len(patients) + 1) * rows_of_patient[patient_of_row])
    order = np.argsort(scores, kind="stable")
    reached = np.flatnonzero(mass[order].cumsum() >= target_coverage - ROUNDING)
    return float(scores[order[reached[0]]]) if len(reached) else IN_EVERY_SET


def marginal_thresholds(probabilities: Array, truth: Array, patient_ids: Array, target_coverage: float) -> Floats:
    """Find one threshold per question for all its choices, as `class_conditional_thresholds`. Shape (Q, C)."""
    scores = _scores_of_truth(probabilities, truth)
    of_questions = [conformal_threshold(of_question, patient_ids, target_coverage) for of_question in scores.T]
    return np.repeat(np.array(of_questions)[:, None], probabilities.shape[2], axis=1)


def class_conditional_thresholds(
    probabilities: Array, truth: Array, patient_ids: Array, target_coverage: float
) -> Floats:
    """Find a threshold for each choice, from the rows where it is the truth (Mondrian conformal prediction).

    Args:
        probabilities: Those of validation rows. Shape (N, Q, C).
        truth: True choice of each row and question. Shape (N, Q), integer.
        patient_ids: Shape (N,).
        target_coverage: Share of each choice's rows whose set should hold it, in (0, 1).

    Returns:
        Shape (Q, C); 1, which puts the choice into every set, for fewer patients than `minima.patients_for_sets`.

    Source:
        Vovk, Conditional validity of inductive conformal predictors, 2012; Angelopoulos & Bates 2021, section 4.2.
    """
    scores = _scores_of_truth(probabilities, truth)
    thresholds = np.empty(probabilities.shape[1:])
    for question, choice in np.ndindex(*thresholds.shape):
        rows = truth[:, question] == choice
        thresholds[question, choice] = conformal_threshold(scores[rows, question], patient_ids[rows], target_coverage)
    return thresholds


def prediction_sets(probabilities: Array, thresholds: Array) -> NDArray[np.bool_]:
    """Tell which choices are in each set, shape (N, Q, C); none where the probabilities are NaN.

    Example:
        >>> prediction_sets(np.array([[[0.3, 0.7]], [[0.9, 0.1]]]), np.array([[0.4, 0.4]])).tolist()
        [[[False, True]], [[True, False]]]
    """
    return 1 - probabilities <= thresholds


def set_estimates(
    truth: Array,
    probabilities: Array,
    sets: Array,
    choices: tuple[str, ...],
    patient_ids: Array,
    resampling: Resampling,
    unfitted: str = "",
) -> dict[str, Estimate]:
    """Measure sets: do they hold the truth, and do they say anything?

    Args:
        truth: True choice. Shape (N, Q), integer.
        probabilities: Shape (N, Q, C), finite.
        sets: Whether a set holds a choice. Shape (N, Q, C), bool.
        choices: Names of the C choices.
        patient_ids: Shape (N,).
        resampling: How intervals are drawn.
        unfitted: Why the sets were not fitted, if so: their metrics are undefined.

    Returns:
        Means over the questions that define the metric: `coverage` (share of sets that hold the truth),
        `coverage/CHOICE` (for the rows where the choice is true), `set_size`, `answered` (share of sets with one
        choice; the others abstain), `accuracy_if_answered` and `accuracy_of_all` (of the likeliest choice, answered or
        not).
    """
    held = np.take_along_axis(sets, truth[..., None], axis=2)[..., 0]
    sizes = sets.sum(2)
    correct = probabilities.argmax(2) == truth
    everywhere = np.ones_like(held)

    mean_of_means = partial(metrics.mean_over_findings, _mean_where)

    def mean_over_questions(
        values: Array, where: Array = everywhere, reason: str = "there is no question", needs_sets: bool = True
    ) -> Estimate:
        if unfitted and needs_sets:
            return undefined_estimate(len(truth), unfitted, warn=False)
        defined = where.any(0)
        if not defined.any():
            return undefined_estimate(len(truth), reason)
        return patient_bootstrap(
            mean_of_means, [where[:, defined], values[:, defined]], patient_ids, resampling, reason
        )

    return {
        "coverage": mean_over_questions(held),
        **{
            f"coverage/{name}": mean_over_questions(held, truth == choice, f"`{name}` is true of no row")
            for choice, name in enumerate(choices)
        },
        "set_size": mean_over_questions(sizes),
        "answered": mean_over_questions(sizes == 1),
        "accuracy_if_answered": mean_over_questions(correct, sizes == 1, "every set abstains"),
        "accuracy_of_all": mean_over_questions(correct, needs_sets=False),
    }


def risk_coverage(confidence: Array, correct: Array) -> tuple[Floats, Floats]:
    """Trace how accurate predictions are when only the most confident rows are predicted.

    Args:
        confidence: Probability given to the predicted class. Shape (N,).
        correct: Whether that class is the true one. Shape (N,), 0/1 or bool.

    Returns:
        Share of the rows predicted, rising to 1, and the accuracy on them; one entry for each distinct confidence.

    Source:
        El-Yaniv & Wiener, On the Foundations of Noise-free Selective Classification, 2010; risk is 1 - accuracy.

    Example:
        >>> shares, accuracies = risk_coverage(np.array([0.9, 0.9, 0.6, 0.5]), np.array([1, 1, 1, 0]))
        >>> shares.tolist(), accuracies.tolist()
        ([0.5, 0.75, 1.0], [1.0, 1.0, 0.75])
    """
    order = np.argsort(-np.asarray(confidence), kind="stable")
    descending = np.asarray(confidence)[order]
    last_of_ties = np.flatnonzero(np.append(np.diff(descending) != 0, True))
    kept = last_of_ties + 1
    right = np.cumsum(np.asarray(correct, dtype=np.float64)[order])[last_of_ties]
    return kept / len(order), right / kept


def _scores_of_truth(probabilities: Array, truth: Array) -> Floats:
    """Score of the true choice of each row and question. Shape (N, Q)."""
    return 1 - np.take_along_axis(probabilities, truth[..., None], axis=2)[..., 0]


def _mean_where(selected: Array, values: Array, weights: Array | None = None) -> Floats:
    """Mean of the values of the selected rows; NaN if no weight is on them."""
    return metrics.mean(values, selected if weights is None else weights * selected)
