"""Measure what a run predicts: the metrics of `metrics.json`, each with its interval over resampled patients."""

from typing import Any

from train.evaluation.label_metrics import label_difference, label_estimates
from train.evaluation.predictions import Predictions, of_baselines, of_labelled_rows
from train.evaluation.protocols.calibration import calibration_estimates, find_unfitted
from train.evaluation.protocols.grade_classifiers import CLASSIFIERS, GROUP, grade_classifier_measures
from train.evaluation.protocols.grade_probe import grade_estimates, grade_measures
from train.evaluation.protocols.patient_level import patient_measures
from train.evaluation.protocols.retrieval import RANKINGS, retrieval_measures
from train.evaluation.protocols.wordings import STATED, measures_by_wording, polarity_measures, with_spreads
from train.evaluation.protocols.zero_shot import zero_shot_measures
from train.evaluation.questions import choice_names, question_names
from train.evaluation.statistics.bootstrap import (
    Estimate,
    Resampling,
    as_entries,
    combined,
    difference,
    estimates_of,
    resample,
)
from train.evaluation.statistics.metrics import Array
from train.evaluation.statistics.spreads import POLARITY, UNSEEN
from train.evaluation.targets import Targets

HEADLINE, GRADES = "probe/logistic/unprojected", "grade/unprojected"
CALIBRATED = {"paper": "paper/unprojected", "zero_shot": "zero_shot"}  # names in metrics.json, and in predictions
# A decision without a probability has no such metrics.
NEED_PROBABILITIES = ("auroc", "average_precision", "macro_auroc", "macro_average", "expected_calibration_error")


def measure(predictions: Predictions, targets: Targets, validation: Targets, resampling: Resampling) -> dict[str, Any]:
    """Measure the predictions of one run for one split, with or without baselines.

    Rows that were not labelled count for grades and retrieval. Where no label was predicted, what needs one is empty.
    What the patients of `validation` were too few to fit is undefined.

    Returns:
        JSON values: `linear_probe`, `zero_shot`, `zero_shot_first_prompt`, `retrieval`, `baselines` (each with its
        `linear_probe` and the `difference`, the model less the baseline) and `further`, by protocol:
        `probe/PROBE/FEATURES`, `decision/...`, `patients/mean`, `patients/attention`, `retrieval/pair`,
        `retrieval/facts`, `calibration/paper`, `calibration/zero_shot`; and where unseen wordings were asked
        `zero_shot/unseen`, `zero_shot/single_wordings` and `polarity`.
    """
    of_labelled = of_labelled_rows(predictions, targets)
    zero_shot, first_prompt = (
        estimates_of(zero_shot_measures(*of_labelled, which), resampling) if HEADLINE in predictions else {}
        for which in ("zero_shot", "zero_shot_first")
    )
    retrieval = retrieval_measures(predictions, "retrieval/report", targets.patient_ids)
    further = further_estimates(predictions, targets, validation, resampling)
    return {
        "linear_probe": as_entries(probe_estimates(predictions, targets, resampling)),
        "zero_shot": as_entries(zero_shot),
        "retrieval": as_entries(estimates_of(retrieval, resampling)),
        "baselines": {
            name: {
                "linear_probe": as_entries(probe_estimates(baseline, targets, resampling)),
                "difference": as_entries(probe_difference(predictions, baseline, targets, resampling)),
            }
            for name, baseline in of_baselines(predictions).items()
        },
        "further": {name: as_entries(estimates) for name, estimates in further.items()},
        "zero_shot_first_prompt": as_entries(first_prompt),
    }


def probe_estimates(predictions: Predictions, targets: Targets, resampling: Resampling) -> dict[str, Estimate]:
    """Measure the headline probe of labels and, where there are grades, the grade probe."""
    labels = {}
    if HEADLINE in predictions:
        of_labelled, labelled = of_labelled_rows({HEADLINE: predictions[HEADLINE]}, targets)
        labels = label_estimates(labelled, of_labelled[HEADLINE], resampling)
    return labels | (grade_estimates(targets, predictions[GRADES], resampling) if GRADES in predictions else {})


def probe_difference(
    ours: Predictions, theirs: Predictions, targets: Targets, resampling: Resampling
) -> dict[str, Estimate]:
    """Measure how much the headline probes of one system exceed another's, on the same resampled patients.

    Returns:
        `macro_f1` (exclusive labels) or `macro_auroc` (findings), and `grade_quadratic_kappa` where there are grades.
    """
    labels = {}
    if HEADLINE in ours and HEADLINE in theirs:
        pair, labelled = of_labelled_rows({"ours": ours[HEADLINE], "theirs": theirs[HEADLINE]}, targets)
        labels = label_difference(labelled, pair["ours"], pair["theirs"], resampling)
    if GRADES not in ours or GRADES not in theirs:
        return labels
    kappas = [resample([grade_measures(targets, of[GRADES])["quadratic_kappa"]], resampling) for of in (ours, theirs)]
    return labels | {"grade_quadratic_kappa": difference(*kappas).estimate()}


def further_estimates(
    predictions: Predictions, targets: Targets, validation: Targets, resampling: Resampling
) -> dict[str, dict[str, Estimate]]:
    """Measure everything but the headline probes, zero-shot and plain retrieval, by protocol."""
    further: dict[str, dict[str, Estimate]] = {}
    if HEADLINE in predictions:
        further = label_groups(*of_labelled_rows(predictions, targets), validation, resampling)
    for name in CLASSIFIERS:
        if f"{GROUP}/{name}" in predictions:
            measures = grade_classifier_measures(predictions, targets, name)
            further[f"{GROUP}/{name}"] = estimates_of(measures, resampling)
    for group in (f"retrieval/{hits}" for hits in RANKINGS if hits != "report"):
        further[group] = estimates_of(retrieval_measures(predictions, group, targets.patient_ids), resampling)
    return further


def label_groups(
    predictions: Predictions, targets: Targets, validation: Targets, resampling: Resampling
) -> dict[str, dict[str, Estimate]]:
    """Measure the further protocols that predict labels, on labelled rows."""
    further = {
        name: label_estimates(targets, predicted, resampling)
        for name, predicted in predictions.items()
        if name.startswith(("probe/", "decision/")) and name != HEADLINE
    }
    for name in further:
        if name.startswith("decision/"):
            further[name] = {key: of for key, of in further[name].items() if not key.startswith(NEED_PROBABILITIES)}
    for pooling, name in (("mean", HEADLINE), ("attention", "patient_attention")):
        further[f"patients/{pooling}"] = estimates_of(patient_measures(targets, predictions[name]), resampling)
    unfitted = find_unfitted(validation.select(validation.is_labelled, validation.split))
    for short, name in CALIBRATED.items():
        further[f"calibration/{short}"] = calibration_estimates(
            targets,
            predictions[f"uncalibrated/{name}"],
            predictions[f"calibrated/{name}"],
            as_sets(predictions[f"sets/{name}"], targets),
            as_sets(predictions[f"marginal_sets/{name}"], targets),
            resampling,
            unfitted,
        )
    return further | wording_groups(predictions, targets, resampling)


def wording_groups(
    predictions: Predictions, targets: Targets, resampling: Resampling
) -> dict[str, dict[str, Estimate]]:
    """Measure zero-shot by unseen wordings, together and one by one, and the polarity; empty in older predictions."""
    if STATED not in predictions:
        return {}
    measures = {
        UNSEEN: zero_shot_measures(predictions, targets, UNSEEN),
        **measures_by_wording(predictions, targets),
        POLARITY: polarity_measures(predictions, targets),
    }
    resampled = {
        group: {name: resample([measure], resampling) for name, measure in of_group.items()}
        for group, of_group in measures.items()
    }
    return {
        group: {name: one.estimate(warn=True) for name, one in of_group.items()}
        for group, of_group in with_spreads(resampled, combined).items()
    }


def as_sets(flat: Array, targets: Targets) -> Array:
    """Reshape prediction sets from (N, Q C) to (N, Q, C)."""
    return flat.reshape(len(flat), len(question_names(targets)), len(choice_names(targets)))
