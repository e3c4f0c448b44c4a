"""The metrics of one system and seed, not computed yet: its predictions, arranged by protocol.

A group is one way of predicting: `probe/PROBE/FEATURES`, `decision/...`, `calibrated/...`, `grade/...`,
`ordinal_grade/...`, `zero_shot`, `zero_shot/unseen`, `zero_shot/single_wordings/W` of each wording, `polarity`,
`retrieval/HITS`, and `patients/mean`, `patients/attention`, where a patient is one row. Arrays of the same names are
described in `train.evaluation.predictions`. `segmentation`: scores of masks.

Shapes: N rows, K labels.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np

from train.evaluation import label_metrics
from train.evaluation.label_metrics import unlearned_columns
from train.evaluation.predictions import Predictions, of_labelled_rows, ranks_within_folds
from train.evaluation.protocols.calibration import confidence_and_correctness
from train.evaluation.protocols.grade_classifiers import CLASSIFIERS, GROUP, grade_classifier_measures
from train.evaluation.protocols.grade_probe import grade_measures
from train.evaluation.protocols.patient_level import mean_over_patients, patient_targets
from train.evaluation.protocols.retrieval import retrieval_measures
from train.evaluation.protocols.segmentation import GROUP as SEGMENTATION
from train.evaluation.protocols.segmentation import dice_by_grade, scored_classes, segmentation_measures
from train.evaluation.protocols.wordings import STATED, measures_by_wording, polarity_measures
from train.evaluation.statistics import metrics
from train.evaluation.statistics.bootstrap import Measure
from train.evaluation.statistics.metrics import Array
from train.evaluation.statistics.spreads import POLARITY, UNSEEN
from train.evaluation.targets import Targets

Measures = dict[str, dict[str, Measure]]

CALIBRATION = "expected_calibration_error"
# The probe whose temperature is fitted: unlike the others, it has not learned from the validation patients.
CALIBRATED = "paper/unprojected"
# Enough to compare probes, features and poolings where no whole table is shown.
SUMMARY = ("accuracy", "macro_f1", "balanced_accuracy", "minority_recall", "auroc", "macro_auroc", CALIBRATION)
# The headline probe and prompts also have these, and each label.
ALSO = ("precision", "recall", "f1", "average_precision", "macro_average_precision", "brier_score")
OF_LABELS = ("auroc/", "f1/")
NOT_SCALED = "T left at 1: validation patients are too few, or do not settle it"
NOT_OF_DECISIONS = ("auroc", CALIBRATION, "macro_auroc")


def label_groups(predictions: Predictions) -> list[str]:
    """List the arrays that predict labels, shape (N, K)."""
    kept = ("zero_shot", UNSEEN, f"calibrated/{CALIBRATED}")
    return [name for name in predictions if name in kept or name.startswith(("probe/", "decision/"))]


def measures_of(
    predictions: Predictions, targets: Targets, headline: str, unlearned: Mapping[str, dict[int, str]]
) -> Measures:
    """Collect the metrics of one system and seed, by group and name; what was not predicted is left out.

    Args:
        predictions: Those of N rows.
        targets: The truth of the same rows.
        headline: The probe that is measured label by label and patient by patient, as `PROBE/FEATURES`.
        unlearned: By group, columns that some system could not learn, with the reason: they are left out of the macro
            means of all systems, which are thus compared on the same findings.
    """
    measures: Measures = {}
    if scored_classes(predictions):
        measures[SEGMENTATION] = segmentation_measures(predictions, targets.patient_ids)
        measures[SEGMENTATION] |= dice_by_grade(predictions, targets.patient_ids, targets.grades, targets.grade_names)
    of_labelled, labelled = of_labelled_rows(predictions, targets)
    for group in label_groups(predictions):
        of_group = label_measures(labelled, of_labelled[group], of_labelled["fold"], unlearned.get(group, {}))
        if group.startswith("calibrated/") and not was_scaled(of_labelled):
            of_group = {name: label_metrics.undefined_measure(labelled, NOT_SCALED) for name in of_group}
        shown = _shown(group, headline, of_group)
        measures[group] = {name: of_group[name] for name in shown if name in of_group}
    measures |= _wording_measures(of_labelled, labelled)
    measures |= _patient_measures(of_labelled, labelled, headline, unlearned)
    for name in predictions:
        if name.startswith(("grade/", "ordinal_grade/")) and (grades := grade_measures(targets, predictions[name])):
            measures[name] = grades
    for name in CLASSIFIERS:
        group = f"{GROUP}/{name}"
        if group in predictions and (of_group := grade_classifier_measures(predictions, targets, name)):
            measures[group] = of_group
    searches = dict.fromkeys("/".join(name.split("/")[:2]) for name in predictions if name.startswith("retrieval/"))
    for group in searches:
        of_group = retrieval_measures(predictions, group, targets.patient_ids)
        measures[group] = {name: measure for name, measure in of_group.items() if not name.endswith("_median_rank")}
    return measures


def _wording_measures(predictions: Predictions, targets: Targets) -> Measures:
    """What each single wording gives, without the metrics of each label, and the polarity."""
    if STATED not in predictions:
        return {}
    ranked = partial(label_measures, fold_of_row=predictions["fold"], unlearned={})
    by_wording = measures_by_wording(predictions, targets, ranked)
    kept = {
        group: {name: measure for name, measure in of_wording.items() if "/" not in name}
        for group, of_wording in by_wording.items()
    }
    return kept | {POLARITY: polarity_measures(predictions, targets)}


def was_scaled(predictions: Predictions) -> bool:
    """Whether a temperature was fitted, in any fold: one that is left at 1 changes no probability."""
    before, after = (predictions.get(f"{state}/{CALIBRATED}") for state in ("uncalibrated", "calibrated"))
    return before is None or after is None or not np.array_equal(before, after, equal_nan=True)


def _shown(group: str, headline: str, names: Iterable[str]) -> list[str]:
    """Names of the metrics of a group of labels that are kept."""
    if group.startswith("calibrated/"):
        return [CALIBRATION, "brier_score"]
    if group.startswith("decision/"):
        return [name for name in SUMMARY if name not in NOT_OF_DECISIONS]
    shown = list(SUMMARY)
    if group == f"probe/{CALIBRATED}":
        shown.append("brier_score")
    if group in (f"probe/{headline}", "zero_shot", UNSEEN):
        shown += [*ALSO, *(name for name in names if name.startswith(OF_LABELS))]
    return list(dict.fromkeys(shown))


def label_measures(
    targets: Targets, probabilities: Array, fold_of_row: Array, unlearned: Mapping[int, str]
) -> dict[str, Measure]:
    """Collect the metrics of predicted labels, shape (N, K), of several folds; each row is ranked within its fold.

    `unlearned` columns, given with the reason, are left out.
    """
    probabilities = np.asarray(probabilities, dtype=np.float64)
    ranks = ranks_within_folds(probabilities, fold_of_row)
    measures = label_metrics.label_measures(targets, probabilities, scores=ranks, unlearned=unlearned)
    if targets.exclusive:
        of_rows = [targets.classes, probabilities]
        return measures | {"brier_score": Measure(metrics.brier_score, of_rows, targets.patient_ids)}
    learned = [k for k in targets.findings if k not in unlearned]
    if learned:
        confidence, correct = confidence_and_correctness(targets, probabilities, learned)
        patient_ids = np.repeat(targets.patient_ids, len(learned))
        measures[CALIBRATION] = Measure(metrics.expected_calibration_error, [confidence, correct], patient_ids)
        measures["brier_score"] = Measure(metrics.mean, [(correct - confidence) ** 2], patient_ids)
    return measures


def unlearned_by_group(systems: Sequence[Predictions], targets: Targets) -> dict[str, dict[int, str]]:
    """Find the columns that at least one system or seed could not learn, with the reason, by group of labels."""
    unlearned: dict[str, dict[int, str]] = {}
    for predictions in systems:
        for group in label_groups(predictions):
            of_system = unlearned_columns(targets, predictions[group], predictions["fold"])
            unlearned[group] = of_system | unlearned.get(group, {})
    return unlearned


def _patient_measures(
    predictions: Predictions, targets: Targets, headline: str, unlearned: Mapping[str, dict[int, str]]
) -> Measures:
    """Mean and attention pooling; attention predicts the same for all images of a patient, which is their mean."""
    predictors = {"patients/mean": f"probe/{headline}", "patients/attention": "patient_attention"}
    pooled = {group: name for group, name in predictors.items() if name in predictions}
    if not pooled:
        return {}
    of_patients = patient_targets(targets)
    first_row = np.unique(targets.patient_ids, return_index=True)[1]  # a patient is in one fold
    measures = {}
    for group, name in pooled.items():
        probabilities = mean_over_patients(predictions[name], targets.patient_ids)
        folds = predictions["fold"][first_row]
        columns = unlearned.get(f"probe/{headline}", {}) | unlearned_columns(of_patients, probabilities, folds)
        of_group = label_measures(of_patients, probabilities, folds, columns)
        measures[group] = {name: of_group[name] for name in SUMMARY if name in of_group}
    return measures
