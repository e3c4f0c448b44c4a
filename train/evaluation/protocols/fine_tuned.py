"""What a fine-tuned classifier predicts for test patients, beside a linear probe of the tower it started from.

Shapes: N rows, K classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from train.evaluation.label_metrics import label_difference, label_estimates
from train.evaluation.protocols.calibration import CalibrationResult, measure_calibration
from train.evaluation.protocols.grade_probe import grade_measures
from train.evaluation.protocols.linear_probe import logistic_probe
from train.evaluation.protocols.patient_level import patient_measures
from train.evaluation.statistics.bootstrap import Estimate, Resampling, estimates_of
from train.evaluation.statistics.metrics import Array
from train.evaluation.targets import Targets


@dataclass(frozen=True)
class ClassifierMetrics:
    """Metrics of the test split.

    Args:
        probabilities: Calibrated. Shape (N, K).
        metrics: By system (`fine_tuned`, `linear_probe`, `majority`), each by name.
        difference: The fine-tuned classifier less the linear probe, on the same resampled patients.
        patients: Of the fine-tuned classifier, patient by patient.
        calibration: What was fitted on validation patients, and what it changes on test patients.
    """

    probabilities: Array
    metrics: dict[str, dict[str, Estimate]]
    difference: dict[str, Estimate]
    patients: dict[str, Estimate]
    calibration: CalibrationResult


def measure_classifier(
    logits: Mapping[str, Array],
    start_features: Mapping[str, Array],
    targets: Mapping[str, Targets],
    resampling: Resampling,
    is_grade: bool,
) -> ClassifierMetrics:
    """Measure a classifier on the test split.

    Args:
        logits: Before calibration, of the splits `validation` and `test`. Shape (N, K).
        start_features: Pooled output of the tower before fine-tuning, by split. Shape (N, D).
        targets: The truth by split.
        resampling: How intervals are drawn.
        is_grade: Whether the classes are grades, in their order.

    Returns:
        The metrics.
    """
    test = targets["test"]
    calibration = measure_calibration(
        logits["validation"], targets["validation"], logits["test"], test, resampling=resampling
    )
    probe = logistic_probe(start_features, targets)
    shares = np.broadcast_to(targets["train"].labels.mean(0), probe.shape)
    estimates = {
        name: _estimates(test, probabilities, resampling, is_grade)
        for name, probabilities in (
            ("fine_tuned", calibration.probabilities),
            ("linear_probe", probe),
            ("majority", shares),
        )
    }
    return ClassifierMetrics(
        probabilities=calibration.probabilities,
        metrics=estimates,
        difference=label_difference(test, calibration.probabilities, probe, resampling),
        patients=estimates_of(patient_measures(test, calibration.probabilities), resampling),
        calibration=calibration,
    )


def _estimates(targets: Targets, probabilities: Array, resampling: Resampling, is_grade: bool) -> dict[str, Estimate]:
    estimates = label_estimates(targets, probabilities, resampling)
    if is_grade:  # the classes are the grades
        graded = replace(targets, grades=targets.classes, grade_names=targets.label_names)
        of_grades = estimates_of(grade_measures(graded, probabilities.argmax(1)), resampling)
        estimates |= {f"grade_{name}": estimate for name, estimate in of_grades.items()}
    return estimates
