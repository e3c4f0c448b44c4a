"""Calibration: do probabilities mean what they say, before and after a temperature is fitted on validation patients?

Temperature scaling divides the logits by a temperature T: exclusive classes share one; each finding, a classifier of
its own scale, has its own. Predicted choices and ranks stay as they are; only the confidence changes. Few validation
patients make T noisy, so whether it helps is measured.

The input is logits, not probabilities: a sharp classifier's probabilities round to 0 and 1, and a temperature fitted on
those is not that of the logits that users divide.

Prediction sets (`conformal.py`) are then fitted on the calibrated probabilities of the same rows: for two choices that
changes no set, because T keeps the order; for more, one number fitted on all rows hardly affects the promise.

The validation logits must come from a classifier that was not fitted on the validation rows; otherwise it has no errors
there to be calibrated by.

Shapes: N rows, K labels, Q questions, C choices, as in `train.evaluation.protocols.conformal`.
"""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from train.evaluation.protocols.conformal import (
    IN_EVERY_SET,
    class_conditional_thresholds,
    marginal_thresholds,
    prediction_sets,
    set_estimates,
)
from train.evaluation.questions import (
    as_label_probabilities,
    as_questions,
    choice_names,
    counted_questions,
    learned_questions,
    logits_as_questions,
    question_names,
    true_choices,
)
from train.evaluation.statistics import metrics
from train.evaluation.statistics.bootstrap import (
    Estimate,
    Resampling,
    paired_difference,
    patient_bootstrap,
    undefined_estimate,
)
from train.evaluation.statistics.metrics import Array, Floats
from train.evaluation.statistics.minima import patients_for_sets, too_few_for_sets, too_few_for_temperature
from train.evaluation.targets import Targets

logger = logging.getLogger(__name__)
_warned: set[tuple[str, str]] = set()

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 100.0
TARGET_COVERAGE = 0.9
MAX_NAMES = 4  # a warning names no more questions or choices with the same reason


@dataclass(frozen=True)
class Calibration:
    """Temperatures and thresholds fitted on validation rows."""

    temperatures: Floats  # one per question; (Q,)
    thresholds: Floats  # of the sets that promise coverage for each choice; (Q, C)
    marginal_thresholds: Floats  # of the sets that promise coverage on average; (Q, C)
    # why T is 1 or at its bound, or a choice is in every set; by question and by `QUESTION: CHOICE`
    reasons: dict[str, str]


@dataclass(frozen=True)
class Unfitted:
    """What validation patients are too few for, with the reason; empty where they are enough."""

    temperature: str
    marginal_sets: str
    # class-conditional sets of each question, if a choice has too few: it would be in every set, so that no other could
    # be the answer; (Q,)
    sets: tuple[str, ...]


@dataclass(frozen=True)
class CalibrationResult:
    """A calibration fitted on validation rows and measured on test rows."""

    calibration: Calibration
    probabilities: Array  # of the test rows, calibrated; (N, K)
    sets: Array  # of the test rows, class-conditional; (N, Q, C), bool
    marginal_sets: Array  # the same with one threshold per question
    estimates: dict[str, Estimate]  # the metrics of `calibration_estimates`


def measure_calibration(
    validation_logits: Array, validation: Targets, test_logits: Array, test: Targets, resampling: Resampling
) -> CalibrationResult:
    """Fit temperatures and prediction sets on validation rows, and measure them on test rows.

    Args:
        validation_logits: One for each label, from a classifier that was not fitted on these rows: softmax logits of
            exclusive classes, log-odds of a finding. Shape (N_v, K); a column that could not be learned is NaN.
        validation: The truth of the same rows.
        test_logits: From the same classifier. Shape (N, K).
        test: The truth of the same rows.
        resampling: How intervals are drawn.
    """
    calibration = fit_calibration(validation_logits, validation)
    probabilities, sets, marginal_sets = apply_calibration(calibration, test_logits, test)
    uncalibrated = as_label_probabilities(softmax(logits_as_questions(test_logits, test), axis=2), test)
    unfitted = find_unfitted(validation)
    estimates = calibration_estimates(test, uncalibrated, probabilities, sets, marginal_sets, resampling, unfitted)
    return CalibrationResult(calibration, probabilities, sets, marginal_sets, estimates)


def fit_temperature(logits: Array, truth: Array) -> tuple[float, str | None]:
    """Fit the temperature with the least negative log-likelihood.

    Args:
        logits: Any whose softmax gives the probabilities. Shape (N, C); -inf for a choice that cannot be predicted.
        truth: True choices. Shape (N,), in [0, C). A row whose true choice cannot be predicted is left out.

    Returns:
        T in [0.01, 100], and a reason where the rows do not settle it. T is then 1 if one choice is true of all rows or
        all rows are predicted right (the loss falls with T without end), or 100 if the logits tell nothing.

    Source:
        Guo et al., On Calibration of Modern Neural Networks, 2017, section 4.2.

    Relations:
        Platt scaling adds an offset for each class, which doubles the numbers to fit and changes predictions.

    Example:
        >>> fit_temperature(np.array([[3.0, 0.0], [0.0, 3.0], [3.0, 0.0], [0.0, 3.0]]), np.array([0, 1, 0, 0]))
        (2.7307..., None)
    """
    possible = np.isfinite(np.take_along_axis(logits, truth[:, None], axis=1)[:, 0])
    logits, truth = logits[possible], truth[possible]
    if not len(truth):
        return 1.0, "T left at 1: the true choice of no validation row can be predicted"
    if len(np.unique(truth)) < 2:
        return 1.0, f"T left at 1: one choice is true of all {len(truth)} validation rows"
    of_truth = np.take_along_axis(logits, truth[:, None], axis=1)
    if ((logits < of_truth).sum(1) == logits.shape[1] - 1).all():
        return 1.0, f"T left at 1: all {len(truth)} validation rows are predicted right"

    def loss(log_temperature: float) -> float:
        log_probabilities = log_softmax(logits * math.exp(-log_temperature), axis=1)
        return -float(np.take_along_axis(log_probabilities, truth[:, None], axis=1).mean())

    # Convex in 1/T, so there is one minimum.
    bounds = (math.log(MIN_TEMPERATURE), math.log(MAX_TEMPERATURE))
    temperature = math.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x)
    if temperature > 0.999 * MAX_TEMPERATURE:
        return MAX_TEMPERATURE, f"T at its bound {MAX_TEMPERATURE:g}: the probabilities tell nothing on validation rows"
    if temperature < 1.001 * MIN_TEMPERATURE:
        return MIN_TEMPERATURE, f"T at its bound {MIN_TEMPERATURE:g}: all errors on validation rows are near misses"
    return temperature, None


def scale(logits: Array, temperatures: Array) -> Floats:
    """Divide logits, shape (N, Q, C), by the temperatures, shape (Q,), and take the softmax over the choices.

    Example:
        >>> odds_of_4 = np.log([[[1.0, 4.0]]])
        >>> scale(odds_of_4, np.array([2.0])).round(4).tolist()  # odds of 2
        [[[0.3333, 0.6667]]]
    """
    return softmax(logits / temperatures[:, None], axis=2)


def fit_calibration(logits: Array, targets: Targets, target_coverage: float = TARGET_COVERAGE) -> Calibration:
    """Fit temperatures, and the thresholds of prediction sets, on validation rows.

    Args:
        logits: One for each label, as in `measure_calibration`. Shape (N, K). A column of NaN, which could not be
            learned, gets T = 1 and thresholds of 1.
        targets: The truth of the same rows.
        target_coverage: What the sets promise, in (0, 1).
    """
    by_question, truth = logits_as_questions(logits, targets), true_choices(targets)
    choices, names = choice_names(targets), question_names(targets)
    learned = learned_questions(by_question)
    temperatures, reasons = np.ones(len(names)), {}
    unfitted = find_unfitted(targets, target_coverage)
    for question, name in enumerate(names):
        if not learned[question]:
            reasons[name] = "there are no probabilities to calibrate"
            continue
        if unfitted.temperature:
            reasons[name] = f"T left at 1: {unfitted.temperature}"
            continue
        temperatures[question], reason = fit_temperature(by_question[:, question], truth[:, question])
        if reason is not None:
            reasons[name] = reason
    calibrated = scale(by_question, temperatures)
    thresholds, marginal = np.full((2, len(names), len(choices)), IN_EVERY_SET)
    fitted = calibrated[:, learned], truth[:, learned], targets.patient_ids, target_coverage
    thresholds[learned] = class_conditional_thresholds(*fitted)
    thresholds[[bool(reason) for reason in unfitted.sets]] = IN_EVERY_SET
    marginal[learned] = marginal_thresholds(*fitted)
    for question, choice in zip(*np.nonzero((thresholds == IN_EVERY_SET) & learned[:, None]), strict=True):
        found, needed = (
            len(np.unique(targets.patient_ids[truth[:, question] == choice])),
            patients_for_sets(target_coverage),
        )
        why = f"{found} validation patients have it, and {target_coverage:g} coverage needs {needed}"
        if found >= needed and unfitted.sets[question]:
            why = f"another choice has fewer than the {needed} validation patients that sets need"
        elif found >= needed:
            why += " whose probabilities of it are not 0"
        reasons[f"{names[question]}: {choices[choice]}"] = f"in every set: {why}"
    return Calibration(temperatures, thresholds, marginal, reasons)


def find_unfitted(validation: Targets, target_coverage: float = TARGET_COVERAGE) -> Unfitted:
    """Find what labelled validation rows have too few patients for, by `statistics.minima`."""
    num_patients = len(np.unique(validation.patient_ids))
    truth, num_choices = true_choices(validation), len(choice_names(validation))
    fewest_of_a_choice = [
        min(len(np.unique(validation.patient_ids[of_question == choice])) for choice in range(num_choices))
        for of_question in truth.T
    ]
    return Unfitted(
        temperature=too_few_for_temperature(num_patients),
        marginal_sets=too_few_for_sets(num_patients, target_coverage),
        sets=tuple(too_few_for_sets(fewest, target_coverage, "choice") for fewest in fewest_of_a_choice),
    )


def warn_of_reasons(calibrations: Iterable[Calibration]) -> None:
    """Warn in one line of all that the validation rows do not settle; of each thing once per process."""
    details: dict[str, dict[str, str]] = {}  # by consequence, such as `T left at 1`, and question or choice
    for calibration in calibrations:
        for name, reason in calibration.reasons.items():
            consequence, _, detail = reason.partition(": ")
            if (consequence, name) not in _warned:
                details.setdefault(consequence, {})[name] = detail
    parts = []
    for consequence, of_names in details.items():
        _warned.update((consequence, name) for name in of_names)
        more = f" and {len(of_names) - MAX_NAMES} more" if len(of_names) > MAX_NAMES else ""
        why = next(iter(of_names.values()))
        such_as = "" if len(set(of_names.values())) == 1 else "such as "
        names = f"{', '.join(list(of_names)[:MAX_NAMES])}{more}"
        parts.append(f"{consequence} ({names})" + (f": {such_as}{why}" if why else ""))
    if parts and logger.isEnabledFor(logging.WARNING):
        logger.warning("Calibration: %s.", "; ".join(parts))


def apply_calibration(calibration: Calibration, logits: Array, targets: Targets) -> tuple[Floats, Array, Array]:
    """Calibrate the predictions of rows that were not fitted on, without looking at their truth.

    Returns:
        Calibrated probabilities (N, K), class-conditional and marginal prediction sets (N, Q, C).
    """
    calibrated = scale(logits_as_questions(logits, targets), calibration.temperatures)
    return (
        as_label_probabilities(calibrated, targets),
        prediction_sets(calibrated, calibration.thresholds),
        prediction_sets(calibrated, calibration.marginal_thresholds),
    )


def calibration_estimates(
    targets: Targets,
    uncalibrated: Array,
    calibrated: Array,
    sets: Array,
    marginal_sets: Array,
    resampling: Resampling,
    unfitted: Unfitted,
) -> dict[str, Estimate]:
    """Measure probabilities before and after calibration, and prediction sets; on one test split or pooled folds.

    Args:
        targets: The truth.
        uncalibrated: Shape (N, K).
        calibrated: Shape (N, K).
        sets: Class-conditional. Shape (N, Q, C), bool.
        marginal_sets: The same with one threshold per question.
        resampling: How intervals are drawn.
        unfitted: What was not fitted, of `find_unfitted`: its metrics are undefined, with the reason.

    Returns:
        `expected_calibration_error`, `brier_score` and `negative_log_likelihood`, each as `uncalibrated/`,
        `calibrated/` and `change/` (calibrated less uncalibrated on the same resampled patients: below 0 is better);
        the metrics of `conformal.set_estimates` as `class_conditional/` and `marginal/`. For findings all are means
        over the findings that have probabilities, without `No Finding`, and each finding has its own
        `STATE/expected_calibration_error/FINDING`. Empty where nothing has probabilities.
    """
    learned = counted_questions(uncalibrated, targets)
    if not learned:
        return {}
    truth, drawn = true_choices(targets)[:, learned], (targets.patient_ids, resampling)
    before, after = (as_questions(of_labels, targets)[:, learned] for of_labels in (uncalibrated, calibrated))
    states = {"uncalibrated": before, "calibrated": after}
    estimates = {}
    for metric in (expected_calibration_error, metrics.brier_score, metrics.negative_log_likelihood):
        over_questions = partial(metrics.mean_over_findings, metric)
        for state, probabilities in states.items():
            estimates[f"{state}/{metric.__name__}"] = patient_bootstrap(over_questions, [truth, probabilities], *drawn)
        change = paired_difference(over_questions, [truth, after], [truth, before], *drawn)
        estimates[f"change/{metric.__name__}"] = change
    if not targets.exclusive:
        for state, probabilities in states.items():
            for column, question in enumerate(learned):
                arrays = [truth[:, column], probabilities[:, column]]
                error = patient_bootstrap(expected_calibration_error, arrays, *drawn)
                estimates[f"{state}/expected_calibration_error/{targets.label_names[question]}"] = error
    if unfitted.temperature:
        of_scaling = [name for name in estimates if name.startswith(("calibrated/", "change/"))]
        estimates |= {name: undefined_estimate(len(targets), unfitted.temperature, warn=False) for name in of_scaling}
    reasons_by_kind = {
        "class_conditional": [unfitted.sets[question] for question in learned],
        "marginal": [unfitted.marginal_sets] * len(learned),
    }
    for (kind, reasons), of_kind in zip(reasons_by_kind.items(), (sets, marginal_sets), strict=True):
        fitted = [column for column, reason in enumerate(reasons) if not reason]
        columns = fitted or list(range(len(learned)))
        of_columns = truth[:, columns], after[:, columns], of_kind[:, learned][:, columns]
        of_sets = set_estimates(*of_columns, choice_names(targets), *drawn, unfitted="" if fitted else reasons[0])
        estimates |= {f"{kind}/{name}": estimate for name, estimate in of_sets.items()}
    return estimates


def expected_calibration_error(truth: Array, probabilities: Array, weights: Array | None = None) -> Floats:
    """Expected calibration error of the likeliest choice. Shapes (N,), (N, C)."""
    correct = probabilities.argmax(1) == truth
    return metrics.expected_calibration_error(probabilities.max(1), correct, weights=weights)


def confidence_and_correctness(
    targets: Targets, probabilities: Array, questions: Sequence[int] | None = None
) -> tuple[Floats, Array]:
    """Compute what a reliability diagram or a risk-coverage curve is drawn from.

    Args:
        targets: The truth.
        probabilities: One for each label; NaN where it could not be learned. Shape (N, K).
        questions: Which questions count; None: all that were learned.

    Returns:
        Probability of the likeliest choice, and whether it is the true one; one entry for each row and question, row
        by row. Exclusive classes are one question.
    """
    by_question = as_questions(probabilities, targets)
    asked = learned_questions(by_question) if questions is None else questions
    predicted = by_question[:, asked]
    correct = predicted.argmax(2) == true_choices(targets)[:, asked]
    return predicted.max(2).ravel(), correct.ravel()
