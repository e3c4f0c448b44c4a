"""Cross-validation: answers for every row by a model that never saw its patient, and what they come to together.

Answers are arrays with one entry a row, by name, which is what a fold leaves on disk. N rows, K labels:

    row, fold               index in the whole data set; the fold whose models answered       (N,)
    probe/SYSTEM            probability of each label; NaN where a fold could not learn it     (N, K)
    grade/SYSTEM            predicted grade; -1 where the row has none                         (N,)
    zero_shot               probability of each label, by prompts                              (N, K)
    DIRECTION/rank, num_hits, num_candidates      retrieval among the rows of the fold        (N,)

All label answers are probabilities, of probes and prompts alike. Yes or no is read off the probability; but where rows
are ranked (AUROC, average precision), rows of different folds meet by their rank within the fold. Probabilities of
differently fitted models do not compare: where a fold has more of a finding, its training patients have less, so that
even a constant answer, pooled, would rank below chance (AUROC 0.41 instead of 0.5 over the SPIDER discs), and every
system loses by it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from scipy.special import expit
from scipy.stats import rankdata

from train.evaluation.baselines import BASELINES
from train.evaluation.label_metrics import exclusive_class_estimates, finding_estimates
from train.evaluation.protocols.grade_probe import GradeResult, grade_result
from train.evaluation.protocols.linear_probe import ProbeResult
from train.evaluation.protocols.retrieval import Queries, rank_queries, retrieval_estimates
from train.evaluation.statistics.bootstrap import Estimate, Resampling
from train.evaluation.statistics.metrics import Array
from train.evaluation.suite import Figures, Measurements, Probes, grade_difference, label_difference
from train.evaluation.targets import Targets

Answers: TypeAlias = dict[str, Array]

MODEL = "model"
DIRECTIONS = ("image_to_text", "text_to_image")


def fold_answers(measured: Measurements, fold: int, rows: Array, inverse_temperature: float) -> Answers:
    """Collect what the models of one fold answered for its rows.

    Args:
        measured: On the fold as the test split.
        fold: Its number.
        rows: Index of each of its rows in the whole data set. Shape (N,).
        inverse_temperature: Of the model. Two prompts of a finding, stated and denied, become a probability with it.

    Returns:
        The answers.
    """
    targets = measured.targets["test"]
    scores = measured.zero_shot_scores
    answers = {
        "row": rows,
        "fold": np.full(len(rows), fold),
        "zero_shot": scores if targets.exclusive else expit(inverse_temperature * scores),
    }
    for system, probes in {MODEL: measured.probes, **measured.baselines}.items():
        answers[f"probe/{system}"] = probes.labels.probabilities
        answers[f"grade/{system}"] = _grade_of_rows(probes.grades, targets)
    queries = rank_queries(measured.image_embeds, measured.texts, measured.text_embeds)
    for direction, asked in queries.items():
        answers[f"{direction}/rank"] = asked.ranks
        answers[f"{direction}/num_hits"] = asked.num_hits
        answers[f"{direction}/num_candidates"] = asked.num_candidates
    return answers


def pool(folds: Sequence[Answers]) -> Answers:
    """Put the answers of all folds together, in the order of the data set.

    Args:
        folds: The answers of each fold.

    Returns:
        One answer for each row.

    Raises:
        ValueError: If the folds answer for different systems, or do not answer for every row exactly once.

    Example:
        >>> folds = [{"row": np.array([0, 2]), "x": np.array([5, 7])}, {"row": np.array([1]), "x": np.array([6])}]
        >>> pool(folds)["x"].tolist()
        [5, 6, 7]
    """
    for number, answers in enumerate(folds):
        if differing := sorted(answers.keys() ^ folds[0].keys()):
            raise ValueError(
                f"Only one of fold-0 and fold-{number} holds {', '.join(differing)}: they were run with different "
                "--baselines. Delete the predictions.safetensors of both and run with --resume."
            )
    joined = {name: np.concatenate([answers[name] for answers in folds]) for name in folds[0]}
    order = np.argsort(joined["row"], kind="stable")
    if not np.array_equal(joined["row"][order], np.arange(len(order))):
        raise ValueError(
            f"The folds hold {len(order)} answers but not one for each row; they come from different cuts of the data. "
            "Start again with --overwrite."
        )
    return {name: array[order] for name, array in joined.items()}


def pool_shared(folds: Sequence[Answers]) -> tuple[Answers, list[str]]:
    """Put together what all folds have answered; one may lack what its rows did not define, such as a grade.

    Args:
        folds: The answers of each fold.

    Returns:
        One answer for each row, and the names of what is left out because a fold lacks it.

    Raises:
        ValueError: If the folds do not answer for every row exactly once.

    Example:
        >>> folds = [{"row": np.array([0]), "x": np.array([5])}, {"row": np.array([1])}]
        >>> pool_shared(folds)
        ({'row': array([0, 1])}, ['x'])
    """
    shared = [name for name in folds[0] if all(name in of_fold for of_fold in folds)]
    left_out = sorted({name for of_fold in folds for name in of_fold} - set(shared))
    return pool([{name: of_fold[name] for name in shared} for of_fold in folds]), left_out


def ranks_within_folds(scores: Array, fold_of_row: Array) -> Array:
    """Replace scores by their rank among the rows of the fold, as a share in (0, 1); ties share a rank.

    Args:
        scores: Shape (N, K). A column that is NaN in a fold stays NaN there.
        fold_of_row: Shape (N,).

    Returns:
        Shape (N, K).

    Example:
        >>> ranks_within_folds(np.array([[0.2], [0.9], [0.1], [0.1]]), np.array([0, 0, 1, 1])).tolist()
        [[0.25], [0.75], [0.5], [0.5]]
    """
    ranks = np.empty(scores.shape)
    for fold in np.unique(fold_of_row):
        rows = fold_of_row == fold
        ranks[rows] = (rankdata(scores[rows], axis=0, nan_policy="propagate") - 0.5) / rows.sum()
    return ranks


def measure_answers(answers: Answers, targets: Targets, resampling: Resampling) -> Figures:
    """Measure answers of one fold or of several.

    Args:
        answers: Of N rows.
        targets: The truth of the same rows.
        resampling: How intervals are drawn.

    Returns:
        The figures, with paired differences to every baseline.
    """
    fold_of_row = answers["fold"]

    def probes_of(system: str) -> Probes:
        probabilities = answers[f"probe/{system}"]
        estimates = _label_estimates(targets, probabilities, fold_of_row, resampling)
        return Probes(ProbeResult(estimates, probabilities), _grades(targets, answers[f"grade/{system}"], resampling))

    def difference_to(baseline: Probes) -> dict[str, Estimate]:
        ours, theirs = probes.labels.probabilities, baseline.labels.probabilities
        if not targets.exclusive:
            ours, theirs = ranks_within_folds(ours, fold_of_row), ranks_within_folds(theirs, fold_of_row)
        labels = label_difference(targets, ours, theirs, resampling)
        return labels | grade_difference(targets, probes.grades, baseline.grades, resampling)

    probes = probes_of(MODEL)
    baselines = {name: probes_of(name) for name in BASELINES if f"probe/{name}" in answers}
    queries = {
        direction: Queries(*(answers[f"{direction}/{name}"] for name in ("rank", "num_hits", "num_candidates")))
        for direction in DIRECTIONS
    }
    return Figures(
        probes=probes,
        baselines=baselines,
        differences={name: difference_to(baseline) for name, baseline in baselines.items()},
        zero_shot=_label_estimates(targets, answers["zero_shot"], fold_of_row, resampling),
        retrieval=retrieval_estimates(queries, targets.patient_ids, resampling),
    )


def mean_over_folds(folds: Sequence[Mapping[str, Estimate]]) -> dict[str, dict[str, Any]]:
    """Average each figure over the folds that define it.

    Args:
        folds: Figures by name, of each fold.

    Returns:
        JSON values: `value`, `standard_deviation` over the folds (null for fewer than two), `n` folds averaged; null
        with a `reason` where no fold defines the figure.

    Example:
        >>> mean_over_folds([{"auroc": Estimate(0.7, 0.6, 0.8, n=9)}, {"auroc": Estimate(0.9, 0.8, 1.0, n=9)}])
        {'auroc': {'value': 0.8, 'standard_deviation': 0.1414..., 'n': 2}}
    """
    entries: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for figures in folds for name in figures):
        of_folds = [figures[name] for figures in folds if name in figures]
        values = [estimate.value for estimate in of_folds if not math.isnan(estimate.value)]
        entries[name] = {
            "value": float(np.mean(values)) if values else None,
            "standard_deviation": float(np.std(values, ddof=1)) if len(values) > 1 else None,
            "n": len(values),
        }
        if not values:
            entries[name]["reason"] = of_folds[0].reason
    return entries


def _label_estimates(
    targets: Targets, probabilities: Array, fold_of_row: Array, resampling: Resampling
) -> dict[str, Estimate]:
    ranks = ranks_within_folds(probabilities, fold_of_row)
    if targets.exclusive:
        return exclusive_class_estimates(targets, probabilities, resampling, ranks)
    undefined = unlearned_columns(targets, probabilities, fold_of_row)
    return finding_estimates(targets, ranks, probabilities > 0.5, resampling, undefined)


def unlearned_columns(targets: Targets, probabilities: Array, fold_of_row: Array) -> dict[int, str]:
    """Columns that are NaN, because a fold had nothing to learn the label from, with the reason."""
    undefined = {}
    for k, name in enumerate(targets.label_names):
        without = np.unique(fold_of_row[np.isnan(probabilities[:, k])])
        if len(without):
            folds = ", ".join(map(str, without))
            undefined[k] = f"the patients to learn `{name}` from all have it or all lack it (fold {folds})"
    return undefined


def _grades(targets: Targets, predicted: Array, resampling: Resampling) -> GradeResult | None:
    graded = (targets.grades >= 0) & (predicted >= 0)
    if not graded.any():
        return None
    return grade_result(
        targets.grades[graded], predicted[graded], targets.patient_ids[graded], len(targets.grade_names), resampling
    )


def _grade_of_rows(grades: GradeResult | None, targets: Targets) -> Array:
    of_rows = np.full(len(targets), -1)
    if grades is not None:
        of_rows[targets.grades >= 0] = grades.predicted
    return of_rows
