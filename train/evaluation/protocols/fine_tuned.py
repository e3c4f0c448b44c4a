"""Measure a fine-tuned classifier on test patients, next to a linear probe of the tower it started from.

Exclusive classes, such as grades, are also compared by McNemar's test.

Shapes: N rows, K classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from train.evaluation.label_metrics import label_difference, label_estimates
from train.evaluation.predictions import Predictions
from train.evaluation.protocols.calibration import CalibrationResult, measure_calibration
from train.evaluation.protocols.grade_probe import grade_estimates
from train.evaluation.protocols.linear_probe import logistic_probe
from train.evaluation.protocols.patient_level import patient_measures
from train.evaluation.statistics.bootstrap import Estimate, Resampling, estimates_of
from train.evaluation.statistics.metrics import Array
from train.evaluation.statistics.p_values import mcnemar_table
from train.evaluation.targets import Targets


@dataclass(frozen=True)
class ClassifierMetrics:
    """Metrics of the test split."""

    # Probabilities by system: `fine_tuned`, calibrated; `linear_probe`; `majority`; and others that were given; (N, K).
    predictions: Predictions
    metrics: dict[str, dict[str, Estimate]]  # by system, each by name
    difference: dict[str, Estimate]  # the fine-tuned classifier less the linear probe, on the same resampled patients
    patients: dict[str, Estimate]  # of the fine-tuned classifier, patient by patient
    mcnemar: dict[str, dict[str, float]]  # `mcnemar_table` of the fine-tuned classifier; empty for findings
    calibration: CalibrationResult  # fitted on validation patients, measured on test patients


def measure_classifier(
    logits: Mapping[str, Array],
    start_features: Mapping[str, Array],
    targets: Mapping[str, Targets],
    resampling: Resampling,
    is_grade: bool,
    others: Mapping[str, Array] | None = None,
) -> ClassifierMetrics:
    """Measure a classifier on the test split.

    Args:
        logits: Splits `validation` and `test`, before calibration. Shape (N, K).
        start_features: Pooled output of the tower before fine-tuning, by split. Shape (N, D).
        targets: By split.
        resampling: How intervals are drawn.
        is_grade: Whether the classes are grades, in their order.
        others: Probabilities of the test rows by other classifiers, by name. Shape (N, K).
    """
    test = targets["test"]
    calibration = measure_calibration(logits["validation"], targets["validation"], logits["test"], test, resampling)
    probe = logistic_probe(start_features, targets)
    shares = np.tile(targets["train"].labels.mean(0), (len(test), 1))
    systems = {"fine_tuned": calibration.probabilities, "linear_probe": probe, "majority": shares, **(others or {})}
    mcnemar = {}
    if test.exclusive:
        ours, *theirs = (of_system.argmax(1) for of_system in systems.values())
        mcnemar = mcnemar_table(test.classes, ours, dict(zip([*systems][1:], theirs, strict=True)))
    return ClassifierMetrics(
        predictions=systems,
        metrics={name: _estimates(test, of_system, resampling, is_grade) for name, of_system in systems.items()},
        difference=label_difference(test, calibration.probabilities, probe, resampling),
        patients=estimates_of(patient_measures(test, calibration.probabilities), resampling),
        mcnemar=mcnemar,
        calibration=calibration,
    )


def _estimates(targets: Targets, probabilities: Array, resampling: Resampling, is_grade: bool) -> dict[str, Estimate]:
    estimates = label_estimates(targets, probabilities, resampling)
    if is_grade:  # the classes are the grades
        graded = replace(targets, grades=targets.classes, grade_names=targets.label_names)
        estimates |= grade_estimates(graded, probabilities.argmax(1), resampling)
    return estimates
