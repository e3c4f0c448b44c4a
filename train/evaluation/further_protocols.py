"""What else is asked of the same features, beside the headline probe: other probes, remedies, patients, calibration."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, softmax

from train.evaluation.label_metrics import exclusive_class_estimates, finding_estimates
from train.evaluation.predictions import PROBE_SEED, PROJECTED, UNPROJECTED, label_answers, remedy_answers
from train.evaluation.protocols.attention_pooling import attention_pooling
from train.evaluation.protocols.calibration import CalibrationResult, calibration_figures
from train.evaluation.protocols.nearest_neighbour_probe import nearest_neighbour_probe
from train.evaluation.protocols.paper_probe import paper_probe
from train.evaluation.protocols.patient_level import patient_figures
from train.evaluation.protocols.retrieval import rank_queries, retrieval_estimates
from train.evaluation.statistics.bootstrap import Estimate, Resampling
from train.evaluation.statistics.metrics import Array
from train.evaluation.targets import Targets

# What a decision without a probability does not have.
NEED_PROBABILITIES = ("auroc", "average_precision", "macro_", "expected_calibration_error")


@dataclass(frozen=True)
class Encoded:
    """What a model makes of the splits. D width of the shared space.

    Args:
        features: z_I by split. Shape (N, d_I).
        embeds: z'_I by split, unit length. Shape (N, D).
        texts: Reports of the test rows.
        text_embeds: Theirs, unit length. Shape (N, D).
    """

    features: Mapping[str, Array]
    embeds: Mapping[str, Array]
    texts: list[str]
    text_embeds: Array


@dataclass(frozen=True)
class FurtherFigures:
    """Figures by protocol, and the calibration of the two classifiers that were not fitted on validation rows.

    Args:
        figures: By protocol: `probe/PROBE/FEATURES`, `decision/...`, `patients/mean`, `patients/attention`,
            `retrieval/pair`, `retrieval/facts`, `calibration/paper`, `calibration/zero_shot`.
        paper_calibration: Of the paper's probe.
        zero_shot_calibration: Of the prompts.
        zero_shot_probabilities: Of the test rows by prompts, before calibration. Shape (N, K).
    """

    figures: dict[str, dict[str, Estimate]]
    paper_calibration: CalibrationResult
    zero_shot_calibration: CalibrationResult
    zero_shot_probabilities: Array


def further_figures(
    encoded: Encoded,
    targets: Mapping[str, Targets],
    headline_probabilities: Array,
    zero_shot: Mapping[str, Array],
    resampling: Resampling,
) -> FurtherFigures:
    """Measure everything but the headline probe, zero-shot and plain retrieval.

    Args:
        encoded: What the model makes of the splits.
        targets: By split.
        headline_probabilities: Of the headline probe, for the test rows; patients are their means. Shape (N, K).
        zero_shot: Logits of each label by prompts, of `validation` and `test`. Shape (N, K).
        resampling: How intervals are drawn.

    Returns:
        The figures. What the headline shows, its probe and grades, is not fitted again.
    """
    test, validation = targets["test"], targets["validation"]
    paper = paper_probe(encoded.features, targets, seed=PROBE_SEED)
    paper_projected = paper_probe(encoded.embeds, targets, seed=PROBE_SEED)
    answers = {
        f"probe/paper/{UNPROJECTED}": paper.probabilities["test"],
        f"probe/knn/{UNPROJECTED}": nearest_neighbour_probe(encoded.features, targets).probabilities,
        **remedy_answers(encoded.features, targets, paper),
        **label_answers(encoded.embeds, targets, PROJECTED, paper_projected),
    }
    figures = {name: _label_figures(test, answered, resampling) for name, answered in answers.items()}
    for name in figures:
        if name.startswith("decision/"):
            figures[name] = {key: of for key, of in figures[name].items() if not _needs_probabilities(key)}
    attention = attention_pooling(encoded.features, targets, PROBE_SEED)
    figures["patients/mean"] = patient_figures(test, headline_probabilities, resampling)
    figures["patients/attention"] = patient_figures(test, attention, resampling)
    for hits in ("pair", "facts"):
        asked = rank_queries(encoded.embeds["test"], encoded.texts, encoded.text_embeds, hits)
        figures[f"retrieval/{hits}"] = retrieval_estimates(asked, test.patient_ids, resampling)
    calibrated = {
        name: calibration_figures(logits["validation"], validation, logits["test"], test, resampling)
        for name, logits in {"paper": paper.logits, "zero_shot": zero_shot}.items()
    }
    figures |= {f"calibration/{name}": result.estimates for name, result in calibrated.items()}
    by_prompts = softmax(zero_shot["test"], axis=1) if test.exclusive else expit(zero_shot["test"])
    return FurtherFigures(figures, calibrated["paper"], calibrated["zero_shot"], by_prompts)


def _label_figures(targets: Targets, probabilities: Array, resampling: Resampling) -> dict[str, Estimate]:
    if targets.exclusive:
        return exclusive_class_estimates(targets, probabilities, resampling)
    unlearned = {
        k: f"`{targets.label_names[k]}` could not be learned"
        for k in np.flatnonzero(np.isnan(probabilities).any(0)).tolist()
    }
    return finding_estimates(targets, probabilities, probabilities > 0.5, resampling, unlearned)


def _needs_probabilities(figure: str) -> bool:
    return figure.startswith(NEED_PROBABILITIES) and figure != "macro_f1"
