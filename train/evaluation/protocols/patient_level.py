"""Patients instead of images: what several slices, levels and sequences of one patient say together.

A patient has a finding if any row shows it, `No Finding` if no row shows a finding, the exclusive finding of most rows
(the first in the list of labels on a tie), and the highest grade of the rows.

A patient's prediction is the mean of the probabilities of the rows; `attention_pooling` learns instead which rows
matter. Where a single row of many carries the finding, the mean stays below one half: yes-no metrics fall, while AUROC
does not depend on the cut.

Shapes: N rows, P patients in order of their ids, K labels.
"""

from dataclasses import replace

import numpy as np

from data_scripts.records import NO_FINDING
from train.evaluation.label_metrics import label_measures
from train.evaluation.statistics.bootstrap import Measure
from train.evaluation.statistics.metrics import Array
from train.evaluation.targets import Targets


def number_patients(patient_ids: Array) -> tuple[Array, Array]:
    """Number patients in order of their ids: the P patients, and the index of each row's patient, shape (N,).

    Example:
        >>> number_patients(np.array(["b", "a", "b"]))[1]
        array([1, 0, 1])
    """
    return np.unique(patient_ids, return_inverse=True)


def mean_over_patients(values: Array, patient_ids: Array) -> Array:
    """Average the rows, shape (N, ...), of each patient, shape (P, ...); NaN where a row is.

    Example:
        >>> mean_over_patients(np.array([[0.2], [0.9], [0.4]]), np.array(["b", "a", "b"])).round(3).tolist()
        [[0.9], [0.3]]
    """
    patients, patient_of_row = number_patients(patient_ids)
    sums = np.zeros((len(patients), *values.shape[1:]))
    np.add.at(sums, patient_of_row, values)
    num_rows = np.bincount(patient_of_row).reshape(-1, *[1] * (values.ndim - 1))
    return sums / num_rows


def patient_targets(targets: Targets) -> Targets:
    """Derive the truth of each patient by the rule at the top of this file, in order of the patients' ids."""
    patients, patient_of_row = number_patients(targets.patient_ids)
    rows_with_label = np.zeros((len(patients), len(targets.label_names)), dtype=int)
    np.add.at(rows_with_label, patient_of_row, targets.labels.astype(int))
    findings = rows_with_label.copy()
    findings[:, [k for k, name in enumerate(targets.label_names) if name == NO_FINDING]] = 0
    any_finding = np.any(findings, axis=1, keepdims=True)
    # If a patient has findings, `No Finding` of other rows no longer counts.
    counts = np.where(any_finding, findings, rows_with_label)
    one_label = np.eye(len(targets.label_names), dtype=bool)[counts.argmax(1)]
    labels = one_label if targets.exclusive else counts > 0
    grades = np.full(len(patients), -1)
    np.maximum.at(grades, patient_of_row, targets.grades)
    return replace(targets, labels=labels, grades=grades, patient_ids=patients)


def patient_measures(targets: Targets, probabilities: Array) -> dict[str, Measure]:
    """Collect `label_measures` with one row per patient.

    Args:
        targets: The truth of the rows.
        probabilities: Those of each row, averaged over the patient's; or its patient's, the same in all rows
            (attention pooling). A column with NaN could not be learned. Shape (N, K).
    """
    return label_measures(patient_targets(targets), mean_over_patients(probabilities, targets.patient_ids))
