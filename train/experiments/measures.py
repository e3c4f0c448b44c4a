"""What the figures of one system and seed are computed of: its answers, arranged by what was asked.

A group is one way of asking: `probe/PROBE/FEATURES`, `decision/...`, `calibrated/...`, `grade/...`, `zero_shot`,
`retrieval/HITS`, and `patients/mean`, `patients/attention`, in which a patient answers once. The arrays of the same
names, one entry a row, are described in `train.evaluation.predictions`.

Shapes: N rows, K labels.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from train.evaluation.label_metrics import exclusive_class_measures, finding_measures
from train.evaluation.out_of_fold import DIRECTIONS, Answers, ranks_within_folds, unlearned_columns
from train.evaluation.protocols.patient_level import mean_over_patients, patient_targets
from train.evaluation.protocols.retrieval import RECALL_DEPTHS, chance_recall
from train.evaluation.statistics import metrics
from train.evaluation.statistics.metrics import Array
from train.evaluation.statistics.resampled import Measure
from train.evaluation.targets import Targets

Measures = dict[str, dict[str, Measure]]

CALIBRATION = "expected_calibration_error"
# The probe whose temperature is fitted: it has learned nothing of the validation patients, unlike the other probes.
CALIBRATED = "paper/unprojected"
# Where a whole table is not shown: enough to set probes, features and poolings beside each other.
SUMMARY = (
    "accuracy",
    "macro_f1",
    "balanced_accuracy",
    "minority_recall",
    "auroc",
    "macro_auroc",
    CALIBRATION,
)
# Of the headline probe and of prompts also these, and each label.
ALSO = ("precision", "recall", "f1", "average_precision", "macro_average_precision", "brier_score")
OF_LABELS = ("auroc/", "f1/")
NOT_OF_DECISIONS = ("auroc", CALIBRATION, "macro_auroc")


def label_groups(answers: Answers) -> list[str]:
    """Names of the arrays that answer for labels, shape (N, K)."""
    return [name for name in answers if name == "zero_shot" or name.startswith(("probe/", "decision/", "calibrated/"))]


def answer_measures(
    answers: Answers, targets: Targets, headline: str, unlearned: Mapping[str, dict[int, str]]
) -> Measures:
    """Arrange what one system and seed answered into figures.

    Args:
        answers: Of N rows.
        targets: The truth of the same rows.
        headline: The probe that is measured label by label and patient by patient, as `PROBE/FEATURES`.
        unlearned: Columns that some system could not learn, with the reason, by group of labels: they are left out of
            the macro means of all, so that systems are compared on the same findings.

    Returns:
        By group, by name of the figure. What was not answered is not there.
    """
    measures: Measures = {}
    for group in label_groups(answers):
        figures = label_measures(targets, answers[group], answers["fold"], unlearned.get(group, {}))
        if group.startswith("calibrated/"):
            shown = [CALIBRATION, "brier_score"]
        elif group.startswith("decision/"):
            shown = [name for name in SUMMARY if name not in NOT_OF_DECISIONS]
        else:
            shown = list(SUMMARY)
            if group == f"probe/{CALIBRATED}":
                shown.append("brier_score")
            if group in (f"probe/{headline}", "zero_shot"):
                shown += [*ALSO, *(name for name in figures if name.startswith(OF_LABELS))]
        measures[group] = {name: figures[name] for name in dict.fromkeys(shown) if name in figures}
    measures |= _patient_measures(answers, targets, headline, unlearned)
    for name in [name for name in answers if name.startswith("grade/")]:
        if grades := _grade_measures(targets, answers[name]):
            measures[name] = grades
    for hits in dict.fromkeys(name.split("/")[1] for name in answers if name.startswith("retrieval/")):
        measures[f"retrieval/{hits}"] = _retrieval_measures(answers, f"retrieval/{hits}", targets)
    return measures


def label_measures(
    targets: Targets, probabilities: Array, fold_of_row: Array, unlearned: Mapping[int, str]
) -> dict[str, Measure]:
    """Arrange answers on labels: of exclusive classes, or of findings.

    Args:
        targets: The truth.
        probabilities: Of each label; rows of different folds are ranked within their fold. Shape (N, K).
        fold_of_row: Shape (N,).
        unlearned: Columns to leave out, with the reason.

    Returns:
        By name of the figure.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    ranks = ranks_within_folds(probabilities, fold_of_row)
    if targets.exclusive:
        measures = exclusive_class_measures(targets, probabilities, ranks)
        of_rows = [targets.classes, probabilities]
        return measures | {"brier_score": Measure(metrics.brier_score, of_rows, targets.patient_ids)}
    measures = finding_measures(targets, ranks, probabilities > 0.5, unlearned)
    learned = [k for k in targets.findings if k not in unlearned]
    if learned:
        confidence, correct, patient_ids = confident_answers(targets, probabilities, learned)
        measures[CALIBRATION] = Measure(metrics.expected_calibration_error, [confidence, correct], patient_ids)
        measures["brier_score"] = Measure(metrics.mean, [(correct - confidence) ** 2], patient_ids)
    return measures


def confident_answers(
    targets: Targets, probabilities: Array, findings: Sequence[int] | None = None
) -> tuple[Array, Array, Array]:
    """Read off how sure each answer is, and whether it is right; of findings, every yes or no counts.

    Args:
        targets: The truth.
        probabilities: Shape (N, K).
        findings: Columns that count; those that are learned when None. Ignored for exclusive classes.

    Returns:
        Confidence, correctness and patient, shape (N,) for exclusive classes, else (N x findings,).
    """
    if targets.exclusive:
        return probabilities.max(1), probabilities.argmax(1) == targets.classes, targets.patient_ids
    if findings is None:
        findings = [k for k in targets.findings if not np.isnan(probabilities[:, k]).any()]
    present = probabilities[:, findings].ravel()
    correct = (present > 0.5) == targets.labels[:, findings].ravel()
    return np.maximum(present, 1 - present), correct, np.repeat(targets.patient_ids, len(findings))


def unlearned_by_group(systems: Sequence[Answers], targets: Targets) -> dict[str, dict[int, str]]:
    """Columns that one system or seed at least could not learn, with the reason, by group of labels."""
    unlearned: dict[str, dict[int, str]] = {}
    for answers in systems:
        for group in label_groups(answers):
            unlearned[group] = _unlearned(targets, answers[group], answers["fold"]) | unlearned.get(group, {})
    return unlearned


def _unlearned(targets: Targets, probabilities: Array, fold_of_row: Array) -> dict[int, str]:
    """Columns of findings without an answer; exclusive classes always have one."""
    if targets.exclusive:
        return {}
    return unlearned_columns(targets, np.asarray(probabilities, dtype=np.float64), fold_of_row)


def _patient_measures(
    answers: Answers, targets: Targets, headline: str, unlearned: Mapping[str, dict[int, str]]
) -> Measures:
    """Of mean and attention pooling; attention gives all images of a patient the same answer, which is its mean."""
    of_patients = patient_targets(targets)
    first_row = np.unique(targets.patient_ids, return_index=True)[1]  # a patient is in one fold
    pooled = {"patients/mean": f"probe/{headline}", "patients/attention": "patient_attention"}
    measures = {}
    for group, name in pooled.items():
        if name in answers:
            probabilities = mean_over_patients(answers[name], targets.patient_ids)
            folds = answers["fold"][first_row]
            columns = unlearned.get(f"probe/{headline}", {}) | _unlearned(of_patients, probabilities, folds)
            figures = label_measures(of_patients, probabilities, folds, columns)
            measures[group] = {name: figures[name] for name in SUMMARY if name in figures}
    return measures


def _grade_measures(targets: Targets, predicted: Array) -> dict[str, Measure]:
    graded = (targets.grades >= 0) & (predicted >= 0)
    if not graded.any():
        return {}
    kappa = partial(metrics.quadratic_kappa, num_classes=len(targets.grade_names))
    truth, predicted, patient_ids = targets.grades[graded], predicted[graded], targets.patient_ids[graded]
    reason = "all rows have one grade, and it is predicted for all"
    return {
        "quadratic_kappa": Measure(kappa, [truth, predicted], patient_ids, reason),
        "mean_absolute_error": Measure(metrics.mean, [np.abs(truth - predicted)], patient_ids),
    }


def _retrieval_measures(answers: Answers, group: str, targets: Targets) -> dict[str, Measure]:
    measures = {}
    for direction in DIRECTIONS:
        if f"{group}/{direction}/rank" not in answers:
            continue
        ranks, num_hits, num_candidates = (
            answers[f"{group}/{direction}/{name}"] for name in ("rank", "num_hits", "num_candidates")
        )
        for depth in RECALL_DEPTHS:
            chance = chance_recall(num_hits, num_candidates, depth)
            measures[f"{direction}_recall_at_{depth}"] = Measure(metrics.mean, [ranks <= depth], targets.patient_ids)
            measures[f"{direction}_chance_at_{depth}"] = Measure(metrics.mean, [chance], targets.patient_ids)
    return measures
